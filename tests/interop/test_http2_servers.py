"""HTTP/2 of others under the client: node's own server and haproxy, which have WebSockets there, nginx and Envoy."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest
import trustme

import rawws
from tests.browser.chromium import serving
from tests.processes import LOOPBACK, Process, find_node, free_port
from tests.processes import eventually as soon
from tests.proxies.fronts import PROXIES, Front

# A server on node's HTTP/2 that answers each WebSocket frame of a client with a text of the same octets, and a Close
# with its own; it knows text of at most 125 octets. `GET /sessions` says how many connections it had.
NODE: Final = """
const http2 = require('node:http2')
const fs = require('node:fs')
const server = http2.createSecureServer({
    cert: fs.readFileSync('chain.pem'), key: fs.readFileSync('chain.pem'), settings: {enableConnectProtocol: true},
})
let sessions = 0
server.on('session', () => sessions++)
server.on('stream', (stream, headers) => {
    stream.on('error', () => {})
    if (headers[':method'] !== 'CONNECT') {
        stream.respond({':status': 200})
        stream.end(String(sessions))
        return
    }
    if (headers[':protocol'] !== 'websocket' || headers[':path'] === '/no') {
        stream.respond({':status': 403, 'content-type': 'text/plain'})
        stream.end('not here')
        return
    }
    stream.respond({':status': 200, 'sec-websocket-protocol': headers['sec-websocket-protocol']})
    let rest = Buffer.alloc(0)
    stream.on('data', data => {
        rest = Buffer.concat([rest, data])
        while (rest.length >= 6 && rest.length >= 6 + (rest[1] & 127)) {
            const size = rest[1] & 127, key = rest.subarray(2, 6)
            const payload = Buffer.from(rest.subarray(6, 6 + size)).map((octet, at) => octet ^ key[at % 4])
            const frame = Buffer.concat([Buffer.from([rest[0], size]), payload])
            const ends = (rest[0] & 15) === 8
            rest = rest.subarray(6 + size)
            if (ends) stream.end(frame)
            else stream.write(frame)
        }
    })
})
server.listen(Number(process.argv[2]), '127.0.0.1')
"""


@pytest.fixture(scope="module")
def fronts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Front]]:
    """Run the server of the browsers' tests behind three proxies."""
    with ExitStack() as stack:
        upstream = stack.enter_context(serving(free_port(), trusted_proxies=[LOOPBACK])).port
        assert upstream is not None
        found = {
            name: stack.enter_context(PROXIES[name](tmp_path_factory.mktemp(name), upstream))
            for name in ("nginx", "haproxy", "envoy")
        }
        for front in found.values():
            # haproxy looks once a second whether its server is there.
            soon(lambda front=front: front.get("/").status_code == 200)  # type: ignore[misc]
        yield found


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """Run node's server; give its port, and whom its clients trust."""
    folder = tmp_path_factory.mktemp("node")
    authority = trustme.CA()
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(folder / "chain.pem"))
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    (folder / "server.js").write_text(NODE, encoding="utf-8")
    port = free_port()
    with Process([find_node(), "server.js", str(port)], cwd=folder, listens=port):
        yield port, folder / "authority.pem"


@pytest.mark.parametrize(("name", "version"), [("nginx", "1.1"), ("haproxy", "2"), ("envoy", "1.1")])
async def test_websockets_go_through_a_proxy_over_http2_where_it_has_them(
    name: str, version: str, fronts: dict[str, Front]
) -> None:
    front = fronts[name]
    options: dict[str, Any] = {"ssl": front.context(), "http2": True}
    url = f"wss://{front.host}/echo"
    all_of_them = await asyncio.gather(*[connected(url, origin=front.origin, **options) for _ in range(5)])
    for number, ws in enumerate(all_of_them):
        assert ws.response is not None
        assert ws.response.http_version == version
        await ws.send(f"Grüße {number}" * 20_000)
        while (message := await ws.recv()) != f"Grüße {number}" * 20_000:
            # It may greet.
            assert isinstance(message, str)
    assert len({ws.local_address for ws in all_of_them}) == (1 if version == "2" else 5)
    # Its event streams share one, also where WebSockets do not.
    async with rawws.events(f"https://{front.host}/who/stream", **options) as feed:
        assert (await anext(feed)).data
        assert feed.response is not None
        assert feed.response.http_version == "2"
    with pytest.raises(rawws.InvalidStatus) as caught:
        await rawws.connect(url, origin="https://elsewhere.example", **options)
    assert caught.value.status == 403
    await asyncio.gather(*[ws.close(4000, "enough") for ws in all_of_them])
    assert [(ws.close_code, ws.close_reason) for ws in all_of_them] == [(4000, "enough")] * 5


async def connected(uri: str, **options: Any) -> rawws.WebSocket:
    return await rawws.connect(uri, **options)


async def test_websockets_of_node_share_a_connection(node: tuple[int, Path]) -> None:
    port, authority = node
    options: dict[str, Any] = {"ssl": ssl.create_default_context(cafile=str(authority)), "http2": True}
    url = f"wss://localhost:{port}/"
    all_of_them = await asyncio.gather(*[connected(url, subprotocols=["chat.v1"], **options) for _ in range(20)])
    for number, ws in enumerate(all_of_them):
        assert ws.subprotocol == "chat.v1"
        await ws.send(f"{number}")
        assert await ws.recv() == f"{number}"
    assert len({ws.local_address for ws in all_of_them}) == 1
    with pytest.raises(rawws.InvalidStatus, match="not here"):
        await rawws.connect(f"{url}no", **options)
    await asyncio.gather(*[ws.close(4000, "enough") for ws in all_of_them])
    assert [(ws.close_code, ws.close_reason) for ws in all_of_them] == [(4000, "enough")] * 20
