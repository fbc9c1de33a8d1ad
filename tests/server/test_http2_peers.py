"""HTTP/2 with a browser and with node: page, event streams, WebSockets and requests on one TCP connection."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.server.http2_site import make_keys, site
from tests.server.peers import eventually, serve

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


async def test_chromium_has_all_on_one_connection(tmp_path: Path) -> None:
    reports: asyncio.Queue[Any] = asyncio.Queue()
    peers: set[Any] = set()
    keys = make_keys()
    options: dict[str, Any] = {"ssl": keys.context, "http2": True, "subprotocols": ["chat.v1"]}
    async with serve(site(reports, peers), **options) as server:
        browser = await asyncio.create_subprocess_exec(
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={tmp_path}", f"--ignore-certificate-errors-spki-list={keys.pin}",
            "--remote-debugging-port=0",
            f"https://localhost:{server.sockets[0].getsockname()[1]}/",
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            async with asyncio.timeout(50):
                report = await reports.get()
            figures = server.stats()
        finally:
            browser.kill()
            await browser.wait()
        assert report["events"] == report["fetched"] == 20
        assert sorted(report["messages"]) == sorted(f"message {number}" for number in range(20))
        assert report["closed"] == [[4000, "enough", True, "chat.v1"]] * 20
        # A browser may open a second one that it does not use.
        assert len(peers) == 1 <= figures.http2_connections
        assert figures.opened == figures.closes[4000] == 20
        assert figures.streams == 20
        await eventually(lambda: not server.settings.connections)


async def test_node_has_a_websocket_over_its_own_http2(tmp_path: Path) -> None:
    options: dict[str, Any] = {"ssl": make_keys().context, "http2": True, "subprotocols": ["chat.v1"]}
    script = tmp_path / "client.js"
    script.write_text(NODE)
    async with serve(site(asyncio.Queue(), set()), **options) as server:
        port = str(server.sockets[0].getsockname()[1])
        node = await asyncio.create_subprocess_exec("node", str(script), port, stdout=asyncio.subprocess.PIPE)
        async with asyncio.timeout(50):
            output, _ = await node.communicate()
        assert sorted(output.decode().split()) == sorted(["200", "200", "chat.v1", "810568656c6c6f"]), output
        assert server.stats().accepted == 1
