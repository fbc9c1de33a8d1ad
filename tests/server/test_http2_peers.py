"""HTTP/2 with a browser and with node: page, event streams, WebSockets and requests on one TCP connection."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
from pathlib import Path
from typing import Any

import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import rawws
from tests.server.peers import eventually, serve

PAGE = """<!doctype html><script>
const got = {events: 0, messages: [], fetched: 0, closed: []}
const done = () => got.events == 20 && got.closed.length == 20 && got.fetched == 20
function report() { if (done()) fetch('/report', {method: 'POST', body: JSON.stringify(got)}) }
for (let i = 0; i < 20; i++) {
    const source = new EventSource('/events/' + i)
    source.onmessage = event => { if (event.data == i) { got.events++; report() } }
    const ws = new WebSocket('wss://' + location.host + '/ws', ['chat.v1'])
    ws.onopen = () => ws.send('message ' + i)
    ws.onmessage = event => { got.messages.push(event.data); ws.close(4000, 'enough') }
    ws.onclose = event => { got.closed.push([event.code, event.reason, event.wasClean, ws.protocol]); report() }
    fetch('/item/' + i).then(answer => answer.text()).then(text => { if (text == i) got.fetched++; report() })
}
</script>"""

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


def site(reports: asyncio.Queue[Any], peers: set[Any]) -> rawws.Routes:
    """Serve the page; `peers` are the addresses from which all of it is asked."""
    routes = rawws.Routes()

    @routes.get("/")
    def page(request: rawws.HttpRequest) -> rawws.Response:
        peers.add(request.remote_address)
        return rawws.Response(200, PAGE, content_type="text/html")

    @routes.get("/item/{name}")
    def item(request: rawws.HttpRequest) -> str:
        peers.add(request.remote_address)
        return request.path_params["name"]

    @routes.get("/events/{name}")
    def events(request: rawws.HttpRequest) -> rawws.EventStream:
        peers.add(request.remote_address)
        stream = rawws.EventStream()
        stream.send(request.path_params["name"])
        return stream

    @routes.post("/report")
    def report(request: rawws.HttpRequest) -> None:
        reports.put_nowait(request.json())

    @routes.websocket("/ws")
    async def talk(ws: rawws.WebSocket) -> None:
        peers.add(ws.remote_address)
        async for message in ws:
            await ws.send(message)

    return routes


def certificate() -> tuple[ssl.SSLContext, str]:
    """Return a context of a server, and what Chromium is to take its key by."""
    leaf = trustme.CA().issue_cert("localhost", "127.0.0.1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    leaf.configure_cert(context)
    key = x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes()).public_key()
    octets = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return context, base64.b64encode(hashlib.sha256(octets).digest()).decode()


async def test_chromium_has_all_on_one_connection(tmp_path: Path) -> None:
    reports: asyncio.Queue[Any] = asyncio.Queue()
    peers: set[Any] = set()
    context, pin = certificate()
    options: dict[str, Any] = {"ssl": context, "http2": True, "subprotocols": ["chat.v1"]}
    async with serve(site(reports, peers), **options) as server:
        browser = await asyncio.create_subprocess_exec(
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={tmp_path}", f"--ignore-certificate-errors-spki-list={pin}", "--remote-debugging-port=0",
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
    context, _ = certificate()
    options: dict[str, Any] = {"ssl": context, "http2": True, "subprotocols": ["chat.v1"]}
    script = tmp_path / "client.js"
    script.write_text(NODE)
    async with serve(site(asyncio.Queue(), set()), **options) as server:
        port = str(server.sockets[0].getsockname()[1])
        node = await asyncio.create_subprocess_exec("node", str(script), port, stdout=asyncio.subprocess.PIPE)
        async with asyncio.timeout(50):
            output, _ = await node.communicate()
        assert sorted(output.decode().split()) == sorted(["200", "200", "chat.v1", "810568656c6c6f"]), output
        assert server.stats().accepted == 1
