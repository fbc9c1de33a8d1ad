"""What a server sends to a client that is gone: what came before that is still read, and nothing waits or spins."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import termios
from collections.abc import AsyncIterator
from typing import Any

import pytest

import rawws
from rawws.net import reactor
from tests.client.peers import HOST, Tls, tls
from tests.server.answers import get, on
from tests.server.peers import Peer, eventually, request, set_at_end
from tests.server.test_reactor import fill, pair
from tests.server.tls_client import TlsClient

ENGINES = pytest.mark.parametrize("engine", ["epoll", "asyncio"])
SECURE = pytest.mark.parametrize("secure", [False, True])
# The first are more than a connection reads ahead, the others less than the kernel holds for one that does not read.
FIRST = [bytes([number]) * 4000 for number in range(40)]
OTHERS = [bytes([number]) * 4000 for number in range(40, 60)]


def roomy() -> socket.socket:
    """Return a listening socket whose connections hold much that was not read, and little that was not sent."""
    sock = socket.create_server((HOST, 0))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    return sock


def serve(handler: Any, part: Tls | None, engine: str, **options: Any) -> Any:
    """Serve by an engine, in TLS or without."""
    more: dict[str, Any] = {"sock": roomy(), **options, "engine": engine, "ssl": part and part.server}
    return rawws.serve(handler, **more)


@contextlib.asynccontextmanager
async def opened(server: Any, part: Tls | None) -> AsyncIterator[Any]:
    """Give a client whose WebSocket is open: a Peer, or a TlsClient."""
    client = await (Peer.reach(server.sockets[0].getsockname()) if part is None else TlsClient.reach(server, part))
    try:
        await (client.shake_hands() if isinstance(client, Peer) else client.open())
        yield client
    finally:
        client.close()


def tcp(client: Peer | TlsClient) -> Peer:
    """Return the TCP connection of a client."""
    return client if isinstance(client, Peer) else client.peer


async def leave_unread(client: Peer | TlsClient, ws: rawws.WebSocket) -> None:
    """Send more than is read now, and a Close."""

    def left() -> int:
        return int.from_bytes(fcntl.ioctl(tcp(client).sock, termios.TIOCOUTQ, bytes(4)), "little")

    await client.send(*FIRST)
    await eventually(lambda: not ws.transport.is_reading())
    await client.send(*OTHERS)
    client.connection.close(1001, "")
    await client.send()
    await eventually(lambda: left() == 0)


@ENGINES
@SECURE
@pytest.mark.parametrize("paused", [False, True])
async def test_a_task_that_only_sends_comes_to_the_end_of_its_connection(
    engine: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, *, secure: bool, paused: bool
) -> None:
    part = tls(HOST) if secure else None
    done: list[object] = []
    monkeypatch.setattr(reactor, "SHUTDOWN_TIMEOUT", 1.0)
    # asyncio warns of what is written to one that is gone.
    caplog.set_level("ERROR", "asyncio")

    async def flood(ws: rawws.WebSocket) -> None:
        await ws.recv()
        if paused:
            await leave_unread(client, ws)
        tcp(client).reset()
        # No other task has a turn here, unless `send` gives it one.
        for number in range(1_000_000):
            try:
                await ws.send(bytes(1000))
            except rawws.ConnectionClosed:
                done.append(number)
                return

    async with serve(flood, part, engine, close_timeout=1) as server, opened(server, part) as client:
        await client.send("go")
        await eventually(lambda: done)
        await eventually(lambda: not server.settings.connections)


@ENGINES
async def test_an_event_stream_that_only_sends_comes_to_its_end(engine: str) -> None:
    ended: list[bool] = []

    async def ticks(peer: Peer) -> AsyncIterator[str]:
        try:
            peer.reset()
            for _ in range(1_000_000):
                yield "x" * 1000
        finally:
            ended.append(True)

    peers: list[Peer] = []
    endpoint: Any = lambda _request: rawws.EventStream(ticks(*peers))  # noqa: E731 - a function of one line
    async with rawws.serve(on("/", endpoint), HOST, 0, engine=engine) as server:  # type: ignore[arg-type]
        peer = await Peer.reach(server.sockets[0].getsockname())
        peers.append(peer)
        await peer.write(get("/"))
        await eventually(lambda: ended)
        await eventually(lambda: not server.settings.connections)


@SECURE
@pytest.mark.parametrize("waits", [False, True])
async def test_what_came_before_a_write_failed_is_read(*, secure: bool, waits: bool) -> None:
    part = tls(HOST) if secure else None
    got: list[Any] = []
    ended: list[Any] = []
    reset = asyncio.Event()

    async def slow(ws: rawws.WebSocket) -> None:
        with pytest.raises(rawws.ConnectionClosed):
            # Before: the kernel refuses it, and the engine finds the end as it writes the rest.
            await (ws.send(bytes(1_000_000)) if waits else reset.wait())
            while True:
                with contextlib.suppress(rawws.ConnectionClosed):
                    await ws.send(bytes(100_000))
                got.append(await ws.recv())
        ended.append(ws.close_code)

    async with serve(slow, part, "epoll") as server, opened(server, part) as client, set_at_end(reset):
        [ws] = server.connections
        await leave_unread(client, ws)
        tcp(client).reset()
        reset.set()
        await eventually(lambda: ended)
        assert (got == FIRST + OTHERS, ended) == (True, [1001])
        await eventually(lambda: not server.settings.connections)


@SECURE
async def test_what_was_read_at_once_and_is_more_than_a_queue_is_taken_behind_a_reset(*, secure: bool) -> None:
    part = tls(HOST) if secure else None
    got: list[Any] = []
    reset = asyncio.Event()
    # So short that all are in one record of TLS, and over the queue with what each counts.
    short = [b"%04d" % number for number in range(1500)]

    async def slow(ws: rawws.WebSocket) -> None:
        await reset.wait()
        with contextlib.suppress(rawws.ConnectionClosed):
            await ws.send(bytes(100_000))
        with pytest.raises(rawws.ConnectionClosed):
            while True:
                got.append(await ws.recv())

    async with (
        serve(slow, part, "epoll") as server,
        opened(server, part) as client,
        set_at_end(reset),
    ):
        [ws] = server.connections
        await client.send(*short)
        await eventually(lambda: not ws.transport.is_reading())
        tcp(client).reset()
        reset.set()
        await eventually(lambda: not server.settings.connections)
        await eventually(lambda: got == short)


@ENGINES
@pytest.mark.parametrize("size", [10, 100_000])
async def test_a_message_that_came_with_the_request_is_taken_where_the_first_write_meets_a_reset(
    engine: str, size: int
) -> None:
    got: list[Any] = []
    peers: list[Peer] = []

    async def greet(ws: rawws.WebSocket) -> None:
        peers[0].reset()
        ws.send(bytes(size))
        async for message in ws:
            got.append(message)

    async with rawws.serve(greet, HOST, 0, engine=engine) as server:  # type: ignore[arg-type]
        peers.append(await Peer.reach(server.sockets[0].getsockname()))
        peers[0].connection.send("hi")
        peers[0].connection.send("you")
        await peers[0].write(request() + b"".join(peers[0].connection.data_to_send()))
        await eventually(lambda: len(got) == 2)
        await eventually(lambda: not server.settings.connections)
        assert got == ["hi", "you"]


@ENGINES
async def test_what_came_with_the_request_is_counted_once(engine: str) -> None:
    counts: list[int] = []

    async def count(ws: rawws.WebSocket) -> None:
        await ws.recv()
        counts.append(ws.bytes_received)

    async with rawws.serve(count, HOST, 0, engine=engine) as server:  # type: ignore[arg-type]
        peer = await Peer.reach(server.sockets[0].getsockname())
        peer.connection.send("hi")
        octets = request() + b"".join(peer.connection.data_to_send())
        await peer.write(octets)
        await eventually(lambda: counts)
        assert counts == [len(octets)]
        peer.close()


async def test_the_rest_waits_for_an_application_only_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reactor, "SHUTDOWN_TIMEOUT", 0.1)
    async with pair() as (witness, transport, theirs):
        theirs.send(b"the rest")
        transport.pause_reading()
        await fill(transport)
        theirs.close()
        await eventually(lambda: not transport.get_write_buffer_size())
        transport.write(b"nobody takes it")
        assert transport.get_write_buffer_size() == 0
        await eventually(lambda: witness.lost)
        assert witness.told == []


async def test_the_rest_is_read_when_reading_goes_on_and_then_the_end() -> None:
    async with pair() as (witness, transport, theirs):
        theirs.send(b"the rest")
        transport.pause_reading()
        while not witness.socket.congested:
            transport.write(bytes(10_000))
        theirs.close()
        await eventually(lambda: not transport.get_write_buffer_size())
        assert (transport.is_closing(), witness.lost, witness.socket.congested) == (False, 0, False)
        transport.resume_reading()
        await eventually(lambda: witness.lost)
        assert witness.received() == b"the rest"


async def test_one_that_ends_sends_what_waits_and_no_more_is_read() -> None:
    async with pair() as (witness, transport, theirs):
        await fill(transport)
        transport.close()
        theirs.send(b"too late")
        theirs.close()
        await eventually(lambda: witness.lost)
        assert witness.told == []
