"""Hostile bytes against a live server: nothing but the documented ends, and nothing left behind.

Invariant: whatever a peer sends and in whatever pieces, the server answers with HTTP, then frames, or not at all; it
logs no traceback, keeps no connection and no task, and serves the next peer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rawws
from rawws.protocol.connection import Connection, Role
from tests.server.conftest import LOOPS
from tests.server.peers import DEADLINE, Peer, eventually, request, serve

OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
REQUESTS = [request(), request(OFFER), request("Origin: http://evil.example"), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"]


async def echo(ws: rawws.WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


async def stream(ws: rawws.WebSocket) -> None:
    while True:
        async for part in ws.recv_streaming():
            await ws.send(part)


class Callbacks(rawws.Handler):
    def on_message(self, ws: rawws.WebSocket, message: str | bytes) -> None:
        ws.send(message)


async def later(ws: rawws.WebSocket, request: rawws.Request) -> None:
    await asyncio.sleep(0)


SERVERS: dict[str, Callable[[], Any]] = {
    "coroutine": lambda: serve(echo, max_size=5000),
    "streaming": lambda: serve(stream, max_size=5000),
    "callbacks": lambda: serve(Callbacks(), max_size=5000),
    "deciding later": lambda: serve(echo, max_size=5000, process_request=later),
}


def frame(first: int, payload: bytes, masked: bool) -> bytes:
    """Return a frame that may be an illegal one."""
    length = len(payload)
    size = bytes([length]) if length < 126 else b"\x7e" + length.to_bytes(2, "big")
    head = bytes([first, size[0] | (0x80 if masked else 0)]) + size[1:]
    return head + (bytes(4) if masked else b"") + payload


def legal(message: str | bytes) -> bytes:
    connection = Connection(Role.CLIENT)
    connection.send(message)
    return b"".join(connection.take_data())


FRAMES = st.one_of(
    st.builds(legal, st.one_of(st.text(max_size=200), st.binary(max_size=200))),
    st.builds(frame, st.integers(0, 255), st.binary(max_size=300), st.sampled_from([True, True, True, False])),
    st.sampled_from([b"\x88\x80\0\0\0\0", b"\x88\x82\0\0\0\0\x03\xe8", b"\x89\x80\0\0\0\0", b"\x01\x81\0\0\0\0a"]),
)


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Draw the pieces of a stream that began as a valid one, and was changed in a few places."""
    if draw(st.booleans()):
        data = bytearray(draw(st.sampled_from(REQUESTS)) + b"".join(draw(st.lists(FRAMES, max_size=8))))
    else:
        data = bytearray(draw(st.sampled_from([b"", REQUESTS[0]])) + draw(st.binary(max_size=300)))
    # What stands behind the request is what a handshake that succeeds lets in.
    start = draw(st.sampled_from([0, len(REQUESTS[0])]))
    for _ in range(draw(st.integers(0, 3))):
        if len(data) <= start:
            break
        at = draw(st.integers(start, len(data) - 1))
        change = draw(st.sampled_from(["flip", "delete", "repeat", "cut"]))
        if change == "flip":
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif change == "delete":
            del data[at : at + draw(st.integers(1, 20))]
        elif change == "repeat":
            data[at:at] = data[at : at + draw(st.integers(1, 20))]
        else:
            del data[at:]
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=3)))
    return [bytes(data[start:stop]) for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True)]


async def attack(server: rawws.Server, pieces: list[bytes]) -> bytes:
    """Send the pieces, end this side, and return what came."""
    peer = await Peer.reach(server.sockets[0].getsockname())
    try:
        reading = asyncio.ensure_future(peer.read_to_end())
        try:
            for piece in pieces:
                await peer.write(piece)
                await asyncio.sleep(0)
            peer.sock.shutdown(1)
        except OSError:
            # The server reset the connection, or ended it.
            pass
        return await reading
    finally:
        peer.close()


async def survive(server: rawws.Server, pieces: list[bytes]) -> None:
    async with asyncio.timeout(DEADLINE):
        answer = await attack(server, pieces)
        assert not answer or answer.startswith(b"HTTP/1.1 ")
        await eventually(lambda: not server.settings.connections)
        await eventually(lambda: asyncio.all_tasks() == {asyncio.current_task()})


async def still_serves(server: rawws.Server) -> None:
    peer = await Peer.reach(server.sockets[0].getsockname())
    await peer.shake_hands()
    await peer.send("still here")
    assert await peer.message() == "still here"
    await peer.start_close()
    await peer.finish()
    peer.close()


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", SERVERS)
def test_no_stream_of_bytes_does_more_than_end_its_own_connection(name: str, loop: str) -> None:
    failures: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.get_loop().set_exception_handler(lambda _loop, context: failures.append(context))

        async def start() -> rawws.Server:
            server: rawws.Server = await SERVERS[name]()
            return server

        async def stop() -> None:
            server.close()
            await server.wait_closed()

        server = runner.run(start())

        @settings(suppress_health_check=[HealthCheck.too_slow])
        @given(streams())
        def check(pieces: list[bytes]) -> None:
            runner.run(survive(server, pieces))

        try:
            check()
            runner.run(still_serves(server))
        finally:
            runner.run(stop())
    assert failures == []
