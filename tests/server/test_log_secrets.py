"""Logs have no tokens: what a client names in its URL to come in stands in no line of the server."""

from __future__ import annotations

import logging

import pytest

import rawws
from rawws.net.logs import first_line, without_tokens
from tests.server.answers import ask, get
from tests.server.peers import Peer, eventually, serve


@pytest.mark.parametrize(
    ("came", "shown"),
    [
        ("GET /a?token=abc HTTP/1.1", "GET /a?token=*** HTTP/1.1"),
        ("GET /a?x=1&access_token=a.b.c&y=2 HTTP/1.1", "GET /a?x=1&access_token=***&y=2 HTTP/1.1"),
        ("GET /a?auth_key=k&auth_signature=s", "GET /a?auth_key=***&auth_signature=***"),
        ("GET /a?TOKEN=a&password=b", "GET /a?TOKEN=***&password=***"),
        ("GET /token=a?tokens=3&x=token=", "GET /token=a?tokens=3&x=token="),
    ],
)
def test_what_opens_doors_is_not_shown(came: str, shown: str) -> None:
    assert without_tokens(came) == shown
    assert first_line(came.encode() + b"\r\nHost: x") == shown


async def test_no_line_of_a_server_has_a_token(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def handler(ws: rawws.WebSocket) -> None:
        await ws.close()

    routes = rawws.Routes(
        [rawws.Route("/ws", handler, websocket=True), rawws.Route("/", lambda _: rawws.Response(200))]
    )
    async with serve(routes, access_log=True) as server:
        peer = await Peer.reach(server.sockets[0].getsockname())
        await peer.shake_hands(line="GET /ws?token=private HTTP/1.1")
        await peer.finish()
        await eventually(lambda: not server.connections)
        peer.close()
        for target in ("/?token=private", "/none?token=private"):
            await ask(server, get(target, "Connection: close"))
        refused = await Peer.reach(server.sockets[0].getsockname())
        await refused.write(get("/ws?token=private", "Upgrade: websocket", "Connection: Upgrade"))
        await refused.response()
        refused.close()
    assert "/ws?token=***" in caplog.text
    assert "/none?token=***" in caplog.text
    assert "private" not in caplog.text
