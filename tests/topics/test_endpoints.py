"""The endpoints of a hub: one URL for all, who is let in, and rawws.js below it."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import rawws
from rawws.topics import Hub, endpoints
from tests.server.answers import ask, get
from tests.server.peers import Peer, serve
from tests.topics.dialogue import Client, allow
from tests.topics.test_http import feed


def routes(hub: Hub) -> rawws.Routes:
    return rawws.Routes(endpoints.routes(hub, "/topics"))


async def fetch(target: str, *fields: str, method: str = "GET", body: bytes = b"", **options: Any) -> Any:
    async with serve(routes(Hub(authorize=allow)), subprotocols=["rawws.v1"], **options) as server:
        [answer] = await ask(server, get(target, *fields, "Connection: close", method=method, body=body), [method])
        return answer


async def test_browsers_get_it_compressed() -> None:
    answer = await fetch("/topics/rawws.js", "Accept-Encoding: gzip, deflate, br, zstd")
    assert answer.headers["content-encoding"] == "gzip"
    assert len(answer.body) <= 7 * 1024
    plain = await fetch("/topics/rawws.js")
    assert "content-encoding" not in plain.headers
    assert gzip.decompress(answer.body) == plain.body
    for each in (answer, plain):
        assert each.headers["content-type"] == "text/javascript; charset=utf-8"
        assert each.headers["vary"] == "Accept-Encoding"
    assert "content-encoding" not in (await fetch("/topics/rawws.js", "Accept-Encoding: gzip;q=0, br")).headers


async def test_a_browser_that_has_it_is_told_so() -> None:
    etag = (await fetch("/topics/rawws.js")).headers["etag"]
    for known in (etag, f'W/{etag}, "other"'):
        answer = await fetch("/topics/rawws.js", f"If-None-Match: {known}")
        assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", etag)
        assert answer.headers["cache-control"] == "no-cache"
    assert (await fetch("/topics/rawws.js", 'If-None-Match: "other"')).status == 200


# -- the one URL


@asynccontextmanager
async def socket(server: rawws.Server, target: str) -> AsyncIterator[Client]:
    peer = await Peer.reach(server.sockets[0].getsockname())
    try:
        await peer.shake_hands("Sec-WebSocket-Protocol: rawws.v1", line=f"GET {target} HTTP/1.1")
        yield Client(peer)
    finally:
        peer.close()


async def test_one_url_leads_to_a_stream_a_poll_and_a_post() -> None:
    async with serve(routes(Hub(authorize=allow)), subprotocols=["rawws.v1"]) as server:
        [answer] = await ask(server, get("/topics?topic=a", "Accept: application/json", "Connection: close"))
        assert json.loads(answer.body)["publications"] == []
        body = b'{"publish": "a", "data": "b"}'
        [answer] = await ask(server, get("/topics", "Connection: close", method="POST", body=body), ["POST"])
        assert set(json.loads(answer.body)) == {"cursor"}
        async with socket(server, "/topics") as ws:
            assert (await ws.ask(id=1, subscribe="a"))["recovered"] is True


async def test_a_stream_is_what_accept_asks_for() -> None:
    hub = Hub(authorize=allow)
    async with serve(routes(hub), subprotocols=["rawws.v1"]) as server:
        async with feed(server, "/topics?topic=a", "Accept: text/html, Text/Event-Stream") as stream:
            assert (await stream.data())["recovered"] is True


async def test_another_sites_page_is_refused_at_every_door() -> None:
    for target, method, body in (
        ("/topics?topic=a", "GET", b""),
        ("/topics", "POST", b'{"publish": "a", "data": "b"}'),
        ("/topics/rawws.js", "GET", b""),
    ):
        answer = await fetch(target, "Origin: http://elsewhere.example", method=method, body=body)
        assert answer.status == 403


async def test_a_token_is_found_wherever_it_came_by() -> None:
    found = []

    def authorize(asker: Any, _action: str, _topic: str) -> bool:
        found.append(endpoints.token_of(asker))
        return True

    async with serve(routes(Hub(authorize=authorize)), subprotocols=["rawws.v1"]) as server:
        await ask(server, get("/topics?topic=a&token=a%20b", "Connection: close"))
        async with socket(server, "/topics?token=c") as ws:
            await ws.ask(id=1, subscribe="a")
        async with socket(server, "/topics") as ws:
            await ws.ask(id=1, subscribe="a")
    assert found == ["a b", "c", ""]
