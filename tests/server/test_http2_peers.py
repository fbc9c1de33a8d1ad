"""HTTP/2 with node: a WebSocket and a request on one TCP connection."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.server.http2_site import make_keys, site
from tests.server.peers import serve

NODE = """
const http2 = require('node:http2')
const session = http2.connect('https://localhost:' + process.argv[2], {rejectUnauthorized: false})
session.on('remoteSettings', settings => {
    if (!settings.enableConnectProtocol) return
    const request = session.request({
        ':method': 'CONNECT', ':protocol': 'websocket', ':path': '/ws', 'sec-websocket-version': '13',
        'sec-websocket-protocol': 'chat.v1',
    }, {endStream: false})
    request.on('response', headers => console.log(headers[':status'], headers['sec-websocket-protocol']))
    request.write(Buffer.from('81850000000068656c6c6f', 'hex'))
    request.on('data', data => { console.log(data.toString('hex')); request.close(); session.close() })
    const get = session.request({':path': '/item/7'})
    get.on('response', headers => console.log(headers[':status']))
    get.end()
})
"""


async def test_node_has_a_websocket_over_its_own_http2(tmp_path: Path) -> None:
    options: dict[str, Any] = {"ssl": make_keys().context, "http2": True, "subprotocols": ["chat.v1"]}
    script = tmp_path / "client.js"
    script.write_text(NODE)
    async with serve(site(set()), **options) as server:
        port = str(server.sockets[0].getsockname()[1])
        node = await asyncio.create_subprocess_exec("node", str(script), port, stdout=asyncio.subprocess.PIPE)
        async with asyncio.timeout(50):
            output, _ = await node.communicate()
        assert sorted(output.decode().split()) == sorted(["200", "200", "chat.v1", "810568656c6c6f"]), output
        assert server.stats().accepted == 1
