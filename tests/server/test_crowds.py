"""Crowds: more clients than descriptors, one who floods beside many who are quiet, and thousands at once."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import rawws
from rawws.net.turns import EVENT_COST, TURN_SIZE
from tests.client.peers import HOST, Tls, descriptors, tls
from tests.server.peers import Peer, eventually, request
from tests.server.tls_client import TlsClient

ENGINES = pytest.mark.parametrize("engine", ["epoll", "asyncio"])
SECURE = pytest.mark.parametrize("secure", [False, True])


class Echo(rawws.Handler):
    """Sends text back, and counts the rest."""

    def __init__(self) -> None:
        self.others = 0

    def on_message(self, ws: rawws.WebSocket, message: str | bytes) -> None:
        if isinstance(message, str):
            ws.send(message)
        else:
            self.others += 1


def serve(part: Tls | None, engine: Any, handler: rawws.Handler | None = None, **options: Any) -> Any:
    """Serve by an engine, in TLS or without."""
    return rawws.serve(handler or Echo(), HOST, 0, engine=engine, ssl=part and part.server, backlog=4096, **options)


async def open_on(sock: socket.socket, part: Tls | None) -> Peer | TlsClient:
    """Give a client on a socket that is connected, whose WebSocket is open."""
    peer = Peer(sock)
    if part is None:
        await peer.shake_hands()
        return peer
    client = TlsClient(peer, part)
    await client.open()
    return client


async def echoes(client: Peer | TlsClient) -> bool:
    """Tell whether a message comes back."""
    await client.send("hi")
    return await client.message() == "hi"


@contextlib.contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Leave so many descriptors to this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def wakeups() -> Iterator[list[float | None]]:
    """Give what asyncio's loop waits for each time, as it comes; nothing of a loop in C."""
    selector = getattr(asyncio.get_running_loop(), "_selector", None)
    seen: list[float | None] = []
    if selector is None:
        yield seen
        return
    select = selector.select

    def look(timeout: float | None = None) -> Any:
        seen.append(timeout)
        return select(timeout)

    selector.select = look
    try:
        yield seen
    finally:
        del selector.select


@contextlib.contextmanager
def heard() -> Iterator[list[str]]:
    """Give what the loop's handler of exceptions is told."""
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    told: list[str] = []
    loop.set_exception_handler(lambda _loop, context: told.append(context["message"]))
    try:
        yield told
    finally:
        loop.set_exception_handler(before)


@ENGINES
@SECURE
async def test_a_server_without_descriptors_goes_on_neither_spins_nor_loses_who_waits(
    engine: str, *, secure: bool
) -> None:
    part = tls(HOST) if secure else None
    async with serve(part, engine, max_connections=1000) as server, contextlib.AsyncExitStack() as stack:
        address = server.sockets[0].getsockname()
        other = await open_on((await Peer.reach(address)).sock, part)
        stack.callback(other.close)
        shaking = await Peer.reach(address)
        if part is not None:
            client = TlsClient(shaking, part)
            hello = client.hello()
            await shaking.write(hello[:100])
        loop = asyncio.get_running_loop()
        socks = [stack.enter_context(socket.socket()) for _ in range(5)]
        # The server and OpenSSL have opened what they open once.
        await asyncio.sleep(0.1)
        with heard() as told:
            with descriptors_left(2):
                for sock in socks:
                    sock.setblocking(False)
                    await loop.sock_connect(sock, address)
                assert await echoes(other)
                if part is None:
                    await shaking.shake_hands()
                    assert await echoes(shaking)
                else:
                    # It goes on where it was.
                    await shaking.write(hello[100:])
                    await client.open()
                    assert await echoes(client)
                with wakeups() as seen:
                    await asyncio.sleep(0.5)
                # The next attempt, and the looks of the keepalive.
                assert len(seen) < 20
            opened = 0
            for sock in socks:
                # libuv takes those for which there is no descriptor, and ends them.
                with contextlib.suppress(AssertionError, ConnectionError):
                    assert await echoes(await open_on(sock, part))
                    opened += 1
            assert opened == 5 or (engine == "asyncio" and opened >= 1)
            again = await open_on((await Peer.reach(address)).sock, part)
            stack.callback(again.close)
            assert await echoes(again)
        # asyncio says it for each that it would accept.
        assert len(told) <= 1 or engine == "asyncio"
        shaking.close()


@ENGINES
async def test_one_who_floods_leaves_the_others_their_turns(engine: str) -> None:
    handler = Echo()
    turns = 0
    most = 0
    before = 0
    over = threading.Event()

    def turn() -> None:
        nonlocal turns, most, before
        turns += 1
        most = max(most, handler.others - before)
        before = handler.others
        if not over.is_set():
            loop.call_soon(turn)

    def flood() -> None:
        with contextlib.suppress(OSError):
            while not over.is_set():
                sock.sendall(b"\x82\x80\0\0\0\0" * 50_000)

    loop = asyncio.get_running_loop()
    async with serve(None, engine, handler) as server, contextlib.AsyncExitStack() as stack:
        address = server.sockets[0].getsockname()
        quiet = [await open_on((await Peer.reach(address)).sock, None) for _ in range(50)]
        for peer in quiet:
            stack.callback(peer.close)
        sock = stack.enter_context(socket.create_connection(address))
        sock.sendall(request())
        thread = threading.Thread(target=flood)
        thread.start()
        try:
            await eventually(lambda: handler.others)
            before = handler.others
            turn()
            waited: list[int] = []
            for peer in quiet:
                started = turns
                assert await echoes(peer)
                waited.append(turns - started)
        finally:
            over.set()
            sock.shutdown(socket.SHUT_RDWR)
            await asyncio.to_thread(thread.join)
        assert handler.others > TURN_SIZE // EVENT_COST
        # Each sends, is read and answered, and reads.
        assert max(waited) <= 10
        assert most <= 2 * (TURN_SIZE // EVENT_COST + 1)


@ENGINES
@SECURE
async def test_thousands_who_come_at_once_are_answered_and_leave_nothing(engine: str, *, secure: bool) -> None:
    part = tls(HOST) if secure else None
    loop = asyncio.get_running_loop()

    def kept() -> list[Any]:
        return [thing for thing in gc.get_objects() if isinstance(thing, rawws.WebSocket) and id(thing) not in known]

    async def visit(sock: socket.socket) -> bool:
        client = await open_on(sock, part)
        answered = await echoes(client)
        client.connection.close(1000, "")
        await client.send()
        while await (client.event() if isinstance(client, Peer) else client.message()):
            pass
        client.close()
        return answered

    gc.collect()
    known: set[int] = set()
    known.update(map(id, kept()))
    gc.disable()
    try:
        async with serve(part, engine) as server:
            before = descriptors()
            address = server.sockets[0].getsockname()
            socks = [socket.socket() for _ in range(200 if secure else 3000)]
            for sock in socks:
                sock.setblocking(False)
            await asyncio.gather(*(loop.sock_connect(sock, address) for sock in socks))
            assert all(await asyncio.gather(*map(visit, socks)))
            await eventually(lambda: not server.settings.connections)
            assert server.stats().opened == len(socks)
            # The engine has one while it has sockets.
            await eventually(lambda: descriptors() <= before)
            # The loops' own leave some of TLS to it.
            assert engine == "epoll" or gc.collect() >= 0
            await eventually(lambda: kept() == [])
    finally:
        gc.enable()
