"""Testing: a handler and its clients in one process, on lines in memory that fail as told, and a clock that jumps.

    async def test_echo():
        async with testing.serve(echo) as host, host.connect() as ws:
            await ws.send("Hello")
            assert await ws.recv() == "Hello"

What runs is the server and the client themselves, with their handshakes, frames and limits; only TCP is replaced.
"""

from __future__ import annotations

import asyncio
import selectors
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar, final

from . import clock
from .client.connect import connect
from .client.events import events
from .client.topics import HubClient
from .net.logs import without_userinfo
from .server.options import ServerHandler, ServerOptions, takes_options
from .server.server import start_serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine
    from typing import Unpack

    from .client.dialing import InMemory
    from .client.options import ConnectKeywords, EventsKeywords, HubKeywords
    from .client.transports import ProtocolFactory
    from .net.websocket import WebSocket
    from .server.server import Server

__all__ = ["Host", "Line", "pair", "run", "serve"]

T = TypeVar("T")

# What a delivery has at the most, unless `piece` says less: what a loop reads at once.
READ_SIZE = 262144


@final
class Line:
    """One direction of a connection in memory, and what goes wrong on it. All of it may be changed while it is used.

    `piece` is the number of bytes that arrive at once, 1 for every byte alone, None for what was written. `delay` is
    how long each of them takes, in seconds. After `cut_after` bytes the connection is lost, on both sides and without a
    word, after `stall_after` bytes no more arrives, until that is set to None. `passed` counts the bytes that arrived.
    """

    __slots__ = ("_stall_after", "cut_after", "delay", "end", "passed", "piece")

    def __init__(
        self,
        *,
        piece: int | None = None,
        delay: float = 0.0,
        cut_after: int | None = None,
        stall_after: int | None = None,
    ) -> None:
        if piece is not None and piece < 1:
            raise ValueError(f"piece is {piece} bytes, allowed are 1 and more, or None")
        if delay < 0:
            raise ValueError(f"delay is {delay} s, allowed are 0 and more")
        self.piece = piece
        self.delay = delay
        self.cut_after = cut_after
        self.passed = 0
        self._stall_after = stall_after
        self.end: _End | None = None

    @property
    def stall_after(self) -> int | None:
        """After how many bytes nothing more arrives; 0 is at once."""
        return self._stall_after

    @stall_after.setter
    def stall_after(self, count: int | None) -> None:
        self._stall_after = count
        if self.end is not None:
            self.end.go_on()

    def cut(self) -> None:
        """Lose the connection now, on both sides, as when a cable is pulled and both notice at once."""
        if self.end is not None:
            self.end.lose()

    def room(self) -> int:
        """Return how many bytes may arrive now."""
        limits = (
            self.piece,
            *(limit - self.passed for limit in (self.cut_after, self._stall_after) if limit is not None),
        )
        return max(0, min([READ_SIZE, *(limit for limit in limits if limit is not None)]))


@final
class _End(asyncio.Transport):
    """One end of a connection: takes what its protocol writes and brings it to the protocol of the other end."""

    def __init__(self, protocol: Any, line: Line, names: tuple[str, int], others: tuple[str, int]) -> None:
        super().__init__({"sockname": names, "peername": others})
        self.loop = asyncio.get_running_loop()
        self.protocol = protocol
        self.line = line
        self.other: _End = None  # type: ignore[assignment]  # `_join` sets it
        self.waiting = bytearray()
        self.high, self.low = 65536, 16384
        # What the other end was told (`ended`), and what is still to come (`finishing`, `closing`).
        self.congested = self.paused = self.scheduled = False
        self.finishing = self.closing = self.ended = self.lost = False
        line.end = self

    # -- what the protocol calls

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.finishing or self.lost:
            return
        self.waiting += data
        if len(self.waiting) > self.high and not self.congested:
            self.congested = True
            self.protocol.pause_writing()
        self.go_on()

    def write_eof(self) -> None:
        self.finishing = True
        self.go_on()

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        self.closing = self.finishing = True
        self.go_on()

    def abort(self) -> None:
        self.lose()

    def is_closing(self) -> bool:
        return self.closing or self.lost

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False
        self.other.go_on()

    def is_reading(self) -> bool:
        return not (self.paused or self.is_closing())

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = 65536 if high is None else high
        self.low = self.high // 4 if low is None else low

    def get_write_buffer_size(self) -> int:
        return len(self.waiting)

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def get_protocol(self) -> Any:
        return self.protocol

    # -- what happens in between

    def is_lost(self) -> bool:
        """Tell whether the connection is gone, which a protocol may bring about whenever it is called."""
        return self.lost

    def go_on(self) -> None:
        """Deliver in a later turn of the loop."""
        if not self.scheduled and not self.lost:
            self.scheduled = True
            self.loop.call_later(self.line.delay, self._deliver)

    def _deliver(self) -> None:
        self.scheduled = False
        line, other = self.line, self.other
        room = line.room()
        if self.is_lost() or (other.paused and not other.closing):
            return
        data = bytes(self.waiting[:room])
        del self.waiting[:room]
        line.passed += len(data)
        if data and not other.is_closing():
            other.protocol.data_received(data)
        if line.cut_after is not None and line.passed >= line.cut_after:
            self.lose()
        if self.is_lost():
            return
        if self.congested and len(self.waiting) <= self.low:
            self.congested = False
            self.protocol.resume_writing()
        if not self.waiting:
            self._finish()
        elif room:
            self.go_on()

    def _finish(self) -> None:
        """Say that no more comes, where that is so; a line that is stalled does not."""
        if not self.finishing or not self.line.room():
            return
        if not self.ended:
            # Whoever stays, and pauses, is told again when it resumes. But this end takes nothing once it is closed.
            self.ended = self.other.is_closing() or not self.other.protocol.eof_received() or self.closing
            if self.ended and not self.other.is_closing():
                self.other.close()
        if self.closing and not self.lost:
            self.lost = True
            self.protocol.connection_lost(None)

    def lose(self) -> None:
        """End both sides; what waits is gone."""
        for end in (self, self.other):
            if not end.lost:
                end.lost = True
                end.waiting.clear()
                end.loop.call_soon(end.protocol.connection_lost, ConnectionResetError("the connection was lost"))


def _join(server: Any, client: Any, to_server: Line, to_client: Line) -> _End:
    """Connect two protocols; return the client's end."""
    here, there = ("127.0.0.1", 80), ("127.0.0.1", 40000)
    ends = _End(server, to_client, here, there), _End(client, to_server, there, here)
    ends[0].other, ends[1].other = ends[1], ends[0]
    for end in ends:
        end.protocol.connection_made(end)
    return ends[1]


@final
class Host:
    """A server that listens nowhere, as `async with testing.serve(...)` gives it; `server` is the Server itself."""

    __slots__ = ("server",)

    def __init__(self, server: Server) -> None:
        self.server = server

    def connect(
        self,
        uri: str = "/",
        *,
        to_server: Line | None = None,
        to_client: Line | None = None,
        **options: Unpack[ConnectKeywords],
    ) -> connect:
        """Return what `rawws.connect` returns, with its `options`, for this server; `uri` may be a path.

        A Line serves one connection: one that comes back by itself has sound lines the next time.
        """
        connecting = connect(_absolute(uri, "ws"), **options)
        connecting.transport = connecting.transport._replace(in_memory=self._link(to_server, to_client))
        return connecting

    def events(
        self,
        url: str = "/",
        *,
        to_server: Line | None = None,
        to_client: Line | None = None,
        **options: Unpack[EventsKeywords],
    ) -> events:
        """Return what `rawws.events` returns, for this server."""
        feed = events(_absolute(url, "http"), **options)
        feed.transport = feed.transport._replace(in_memory=self._link(to_server, to_client))
        return feed

    def hub_client(
        self,
        url: str = "/",
        *,
        to_server: Line | None = None,
        to_client: Line | None = None,
        **options: Unpack[HubKeywords],
    ) -> HubClient:
        """Return a `rawws.HubClient` for this server; the lines are those of its first connection."""
        client = HubClient(_absolute(url, "ws"), **options)
        client.address.in_memory = self._link(to_server, to_client)
        return client

    def _link(self, to_server: Line | None, to_client: Line | None) -> InMemory:
        lines = [to_server, to_client]

        def link(factory: ProtocolFactory) -> asyncio.Transport:
            if self.server.closing:
                raise ConnectionRefusedError("the server is closed")
            first, second = [line or Line() for line in lines]
            lines[:] = None, None
            return _join(self.server.make_protocol(), factory(), first, second)

        return link


def _absolute(uri: str, scheme: str) -> str:
    if uri.startswith("/"):
        return f"{scheme}://localhost{uri}"
    if not uri.startswith(f"{scheme}://"):
        shown = without_userinfo(uri)
        raise ValueError(
            f"the URI is {shown!r}, allowed are a path and {scheme}://, for there is no TLS without sockets"
        )
    return uri


@takes_options(ServerOptions)
@asynccontextmanager
async def serve(handler: ServerHandler, options: ServerOptions) -> AsyncIterator[Host]:
    """Serve without listening; the options are those of `rawws.serve` but where to listen and TLS."""
    async with start_serving(handler, options.at(sock=())) as server:
        yield Host(server)


@asynccontextmanager
async def pair(
    *, to_server: Line | None = None, to_client: Line | None = None, **options: Any
) -> AsyncIterator[tuple[WebSocket, WebSocket]]:
    """Give both ends of an open connection, the client's first; `options` are those of `rawws.serve`."""
    handed: asyncio.Future[WebSocket] = asyncio.get_running_loop().create_future()

    async def hand_over(ws: WebSocket) -> None:
        handed.set_result(ws)
        await ws.wait_closed()

    async with serve(hand_over, **options) as host, host.connect(to_server=to_server, to_client=to_client) as ws:
        yield ws, await handed


# -- the clock


@final
class _Selector(selectors.DefaultSelector):
    """Wait for nobody: where the loop would sleep, its time jumps instead."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(None if timeout is None else 0)
        if not ready and timeout:
            self.now += timeout
        return ready


@final
class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.selector = _Selector()
        super().__init__(self.selector)

    def time(self) -> float:
        return self.selector.now


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine as `asyncio.run` does, on a clock that jumps: where all wait for a time, that time has come.

    So a test of timeouts, pings and reconnects takes no time, and takes place in the same order each time. The clock
    does not wait for threads and other processes.
    """
    with asyncio.Runner(loop_factory=_Loop) as runner:
        loop = runner.get_loop()
        real, clock.monotonic = clock.monotonic, loop.time
        try:
            return runner.run(main)
        finally:
            clock.monotonic = real
