"""A site for foreign clients of HTTP/2: a page, requests, event streams and WebSockets, and where each came from."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
from pathlib import Path
from typing import Any, NamedTuple

import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import rawws
from tests.server.peers import DEADLINE

__all__ = ["LARGE", "Keys", "address", "make_keys", "options", "run_client", "site"]

# More than the windows of most clients, and as much as a server takes unless it is told otherwise.
LARGE = bytes(range(256)) * 4096

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

    @routes.get("/large")
    def large(request: rawws.HttpRequest) -> bytes:
        peers.add(request.remote_address)
        return LARGE

    @routes.post("/echo")
    def echo(request: rawws.HttpRequest) -> bytes:
        peers.add(request.remote_address)
        return request.body

    @routes.post("/report")
    def report(request: rawws.HttpRequest) -> None:
        reports.put_nowait(request.json())

    @routes.websocket("/ws")
    async def talk(ws: rawws.WebSocket) -> None:
        peers.add(ws.remote_address)
        async for message in ws:
            await ws.send(message)

    return routes


class Keys(NamedTuple):
    """Of a server: its context, its authority in PEM, and what Chromium is to take its key by."""

    context: ssl.SSLContext
    authority: bytes
    pin: str


def make_keys() -> Keys:
    """Make a certificate for localhost."""
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost", "127.0.0.1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    leaf.configure_cert(context)
    key = x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes()).public_key()
    octets = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pin = base64.b64encode(hashlib.sha256(octets).digest()).decode()
    return Keys(context, authority.cert_pem.bytes(), pin)


async def run_client(*command: str | Path) -> bytes:
    """Run a client to its end, which is to be good, and return what it printed on standard output."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(5 * DEADLINE):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, (output[-2000:], errors[-2000:])
    return output


def address(server: rawws.Server, scheme: str = "https") -> str:
    """Return where a client is to go."""
    return f"{scheme}://localhost:{server.sockets[0].getsockname()[1]}"


def options(keys: Keys) -> dict[str, Any]:
    """Return the options of a server of the site."""
    return {"ssl": keys.context, "subprotocols": ["chat.v1"]}
