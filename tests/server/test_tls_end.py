"""The end of a TLS connection whose peer never answers close_notify: within `close_timeout`, on both ends."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

import pytest

import rawws
from rawws.protocol.handshake import accept, check_upgrade
from rawws.protocol.http11 import parse_request
from tests.client.peers import HOST, Tls, tls
from tests.server.answers import get
from tests.server.peers import eventually, request, serve

# Less than the 30 s that a loop takes by itself.
SOON = 25.0


def reach(address: tuple[str, int], part: Tls, data: bytes) -> socket.socket:
    """Return a TLS client that sent this, got something for it, and does nothing from now on."""
    sock = part.client.wrap_socket(socket.create_connection(address), server_hostname=HOST)
    sock.sendall(data)
    assert sock.recv(1000)
    return sock


def routes() -> rawws.Routes:
    table = rawws.Routes()
    table.get("/ok")(lambda _: "ok\n")
    table.get("/stream")(lambda _: rawws.EventStream())

    @table.websocket("/")
    async def wait(ws: rawws.WebSocket) -> None:
        await ws.wait_closed()

    return table


OK = get("/ok")
# A Close frame of 1000; a frame that breaks the protocol; nothing.
ASKED = [(request(), b"\x88\x82\0\0\0\0\x03\xe8"), (request(), b"\x83\x80\0\0\0\0"), (OK, b""), (OK, b"bad\r\n\r\n")]


@pytest.mark.parametrize(("data", "then"), ASKED, ids=["closed", "violated", "idle", "refused"])
async def test_a_client_that_never_answers_close_notify_is_gone_within_close_timeout(data: bytes, then: bytes) -> None:
    part = tls(HOST)
    times: Any = {"close_timeout": 0.5, "keep_alive_timeout": 0.5}
    async with serve(routes(), ssl=part.server, **times) as server:
        sock = await asyncio.to_thread(reach, server.sockets[0].getsockname(), part, data)
        with sock:
            if then:
                await asyncio.to_thread(sock.sendall, then)
            async with asyncio.timeout(SOON):
                await eventually(lambda: not server.settings.connections)


async def test_a_server_ends_within_close_timeout_whoever_is_silent() -> None:
    part = tls(HOST)
    server = await serve(routes(), ssl=part.server, close_timeout=0.5)
    address = server.sockets[0].getsockname()
    socks = [await asyncio.to_thread(reach, address, part, data) for data in (request(), OK, get("/stream"))]
    server.close()
    async with asyncio.timeout(SOON):
        await server.wait_closed()
    for sock in socks:
        sock.close()


async def agree(listening: socket.socket, context: ssl.SSLContext) -> socket.socket:
    """Return the server's end of a connection that is a WebSocket."""

    def shake_hands() -> socket.socket:
        sock = context.wrap_socket(listening.accept()[0], server_side=True)
        head = parse_request(sock.recv(4096))
        sock.sendall(accept(head, check_upgrade(head)).serialize(b""))
        return sock

    return await asyncio.to_thread(shake_hands)


@pytest.mark.parametrize("frame", [b"", b"\x88\x02\x03\xe8", b"\x83\x00"], ids=["silent", "closes", "violates"])
async def test_a_server_that_never_answers_close_notify_is_left_within_close_timeout(frame: bytes) -> None:
    part = tls(HOST)
    with socket.create_server((HOST, 0)) as listening:
        uri = f"wss://{HOST}:{listening.getsockname()[1]}/"
        options: Any = {"proxy": None, "ssl": part.client, "close_timeout": 0.5, "compression": None}
        agreed = asyncio.create_task(agree(listening, part.server))
        ws = await rawws.connect(uri, **options)
        with await agreed as sock:
            if frame:
                await asyncio.to_thread(sock.sendall, frame)
            else:
                ws.close()
            async with asyncio.timeout(SOON):
                await ws.wait_closed()
