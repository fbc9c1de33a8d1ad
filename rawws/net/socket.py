"""AsyncSocket: the asyncio protocol of one TCP connection, whatever is spoken on it.

Laws:
1. Cork: while one read is being processed, all that the connection writes is gathered, and leaves in one system call at
   its end. What is written at other times leaves at the end of the loop's turn, in one call for each connection.
2. Nothing for each connection that can be for each server: the read buffer, the writers, the timers are shared.
3. What the kernel takes at once never goes through the transport's buffer; what it refuses does.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, Self

from rawws import clock
from rawws.errors import RemoteProtocolError
from rawws.protocol import phases
from rawws.protocol.frames import FrameWriter

from .awaitables import release
from .kernel import send_queue
from .loops import of_loop
from .peer_addresses import plain_peer
from .threads import LoopThread
from .transports import abort_transport, shut_down_socket
from .turns import EVENT_COST, FLUSHED, TURN_SIZE, turn_of

if TYPE_CHECKING:
    import asyncio

    from rawws.protocol.connection import Connection, ConnectionEvent

    from .interfaces import Follower, SocketHandler, Sweeper
    from .rate import RateLimiter

__all__ = ["GONE_DELAY", "HIGH_WATER", "LOW_WATER", "AsyncSocket", "Shared", "SocketAddress", "shared"]

# One read takes at most this many bytes. It is libuv's size: larger ones gain nothing, 64 KiB costs 20 % at 1 MiB.
# Interpreted, 43,000 frames in one read take 0.3 s, in which all others wait.
READ_SIZE = 65536 if __file__.endswith(".py") else 262144
# What is gathered is written when it reaches this size, even if more is about to follow.
WRITE_SIZE = 65536
# `send` is to be waited for above the first mark, and no more under the second. websockets and asyncio chose alike.
HIGH_WATER = 65536
LOW_WATER = 16384
# How long a `send` to a peer that is gone waits, in seconds, while what came before its end is still to be read.
GONE_DELAY = 0.001
# Writers of frames that a loop begins with.
WRITERS = 4
# writev takes so many pieces at the most (IOV_MAX of Linux and macOS).
MAX_PIECES = 1024

# That of a unix socket is its path, "" for a client's.
SocketAddress = tuple[str, int] | tuple[str, int, int, int] | str


class Shared(LoopThread):
    """What all connections in one event loop share; `shared` returns it."""

    __slots__ = ("buffer", "clients", "dirty", "scheduled", "turn", "view", "writers")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.turn = turn_of(loop)
        self.buffer = bytearray(READ_SIZE)
        self.view = memoryview(self.buffer)
        # More than are used at a time mostly: a list that becomes empty gives its memory back, at each message.
        self.writers = [FrameWriter() for _ in range(WRITERS)]
        self.dirty: list[AsyncSocket] = []
        self.scheduled = False
        # The keepalive of the clients, once there is one; a server has its own.
        self.clients: Sweeper[AsyncSocket] | None = None

    def add_dirty(self, socket: AsyncSocket) -> None:
        """Have the connection write at the end of the loop's turn."""
        self.dirty.append(socket)
        if not self.scheduled:
            self.scheduled = True
            self.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Let the connections write what they gathered; over FLUSHED of them, the rest a turn later."""
        dirty, self.dirty = self.dirty[:FLUSHED], self.dirty[FLUSHED:]
        self.scheduled = bool(self.dirty)
        if self.scheduled:
            self.loop.call_soon(self.flush)
        for socket in dirty:
            socket.flush()
        # A burst may need a writer for each connection; afterwards a few are enough.
        del self.writers[64:]


def shared(loop: asyncio.AbstractEventLoop) -> Shared:
    """Return what the connections in this loop share."""
    return of_loop(LOOPS, loop, Shared)


LOOPS: dict[asyncio.AbstractEventLoop, Shared] = {}


class AsyncSocket:
    """The asyncio protocol of one TCP connection; `WebSocket` adds what an application holds.

    It serves loops that read into a buffer (uvloop asks for `get_buffer`) and those that hand over bytes
    (`data_received`). `handler` gets what is read, up to the end of the opening handshake.
    """

    __slots__ = (
        "aborted", "bytes_received", "bytes_sent", "closed_waiters", "congested", "connection", "corked", "deadline",
        "drain_waiters", "fd", "followers", "full", "gathered", "gathered_bytes", "handler", "in_dirty", "last_look",
        "last_sent_at", "lost", "rate_limiter", "reading_paused", "received_since_sweep", "remote", "secure",
        "sent_since_sweep", "shared", "transport", "transport_holds", "turn_bytes", "yielding",
        "yields_writing",
    )  # fmt: skip

    def __init__(self, shared: Shared, handler: SocketHandler[Self]) -> None:
        self.shared = shared
        # None where there is a WebSocket.
        self.handler: SocketHandler[Self] | None = handler
        # There is one as soon as `handler` is None.
        self.connection: Connection = None  # type: ignore[assignment]
        self.transport: Any = None
        self.fd = -1
        # What is written of HTTP at the end of this read, or of the loop's turn; that of a WebSocket are its frames.
        self.gathered: list[bytes] | None = None
        self.gathered_bytes = 0
        # A read is being processed.
        self.corked = False
        # The application has enough to read.
        self.full = False
        # Bytes of messages in this turn of the loop.
        self.turn_bytes = 0
        # The peer reads too slowly.
        self.congested = False
        # And that is said for a while only, not by the transport.
        self.yields_writing = False
        self.in_dirty = False
        # The TCP connection is gone.
        self.lost = False
        # The transport may have bytes in its buffer.
        self.transport_holds = False
        self.reading_paused = False
        # The others have their turn before the next read.
        self.yielding = False
        self.received_since_sweep = False
        self.sent_since_sweep = False
        # How fast the peer sends, where that is limited.
        self.rate_limiter: RateLimiter | None = None
        # Inside TLS, and with the heads of HTTP.
        self.bytes_received = 0
        self.bytes_sent = 0
        # This side ended it without a closing handshake.
        self.aborted = False
        # When it is aborted, or what is due at its handler; 0 for never.
        self.deadline = 0.0
        # At the last look at a peer whose Pong is due: how many bytes waited for it, how many it had taken, how many it
        # had room for.
        self.last_look: tuple[int, int, int] | None = None
        # When something was sent last: of HTTP to the moment, of a WebSocket to the last look of the keepalive.
        self.last_sent_at = 0.0
        self.drain_waiters: list[asyncio.Future[None]] | None = None
        self.closed_waiters: list[asyncio.Future[None]] | None = None
        # Those who are told when the connection takes more, and when it is gone: the hubs that it is subscribed to.
        self.followers: list[Follower] | None = None
        # What a trusted proxy says: the client's address, and whether it came by TLS.
        self.remote: SocketAddress | None = None
        self.secure: bool | None = None

    # -- what the loop calls

    def connection_made(self, transport: Any) -> None:
        """Begin with a new TCP connection, or a TLS one."""
        fd = -1
        if os.name == "posix" and transport.get_extra_info("sslcontext") is None:
            sock = transport.get_extra_info("socket")
            if sock is not None:
                fd = sock.fileno()
        if fd < 0:
            # A TLS transport has marks of its own, eight times these; a plain one has these on both loops.
            transport.set_write_buffer_limits(high=HIGH_WATER, low=LOW_WATER)
        self.begin_on(transport, fd)

    def begin_on(self, transport: Any, fd: int) -> None:
        """Begin with a transport whose descriptor this is, -1 for one that is not written to at once."""
        self.transport = transport
        self.fd = fd
        if self.handler is not None:
            self.handler.begin(self)  # type: ignore[arg-type]  # to mypy, its own class is not "Self"

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the loop's interface
        """Return where the loop reads into."""
        return self.shared.view

    def buffer_updated(self, nbytes: int) -> None:
        """Take what the loop read into the shared buffer."""
        self.received_since_sweep = True
        self.bytes_received += nbytes
        if nbytes == READ_SIZE and not self.yielding:
            # Where a read filled the buffer, libuv reads up to 32 times at once: 8 MiB of tiny frames, for which all
            # others would wait 0.5 s. This way they have their turn after each.
            self.yielding = True
            self.transport.pause_reading()
            self.shared.loop.call_soon(self.read_on)
        if self.handler is not None:
            self.handler.receive(bytes(self.shared.buffer[:nbytes]))
        else:
            self.receive(self.shared.buffer, nbytes)

    def data_received(self, data: bytes) -> None:
        """Take what the loop read, from a loop that does not know buffers."""
        self.received_since_sweep = True
        self.bytes_received += len(data)
        if self.handler is not None:
            self.handler.receive(data)
        else:
            self.receive(bytearray(data), len(data))

    def eof_received(self) -> bool:
        """Tell the handler or the core that the peer sends no more. If this is false, the transport closes itself."""
        if self.handler is not None:
            return self.handler.receive_eof()
        self.connection.receive_eof()
        # What waits to be written still goes out, but not to a peer that never reads it.
        self.on_end()
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the cause is told by the close code
        """End: from here on nothing is written, the descriptor may belong to another connection soon."""
        if self.fd >= 0:
            # A forked child may have the descriptor, too: then to close it here would not end the connection.
            shut_down_socket(self.transport)
        self.fd = -1
        self.lost = True
        self.gathered = None
        self.gathered_bytes = 0
        if self.handler is not None:
            self.handler.lose()
        else:
            self.connection.receive_eof()
        self.on_lost()

    def pause_writing(self) -> None:
        """Hold Pongs back, and be congested: the transport's buffer is over its high-water mark."""
        self.congested = True
        self.yields_writing = False
        if self.handler is None:
            self.connection.hold_pongs = True

    def resume_writing(self) -> None:
        """Write what waits, and tell the followers: the transport's buffer is under its low-water mark."""
        self.congested = False
        if self.handler is None:
            self.connection.release_pong()
            self.flush()
        self.drained()

    # -- reading

    def receive(self, buffer: bytearray, count: int) -> None:
        """Process one read: the messages in it, the handler they wake, and then one write."""
        connection = self.connection
        self.corked = True
        self.turn_bytes = 0
        connection.receive_buffer(buffer, count)
        try:
            self.pump()
            self.wake()
        finally:
            connection.keep_buffer()
            self.corked = False
            if connection.phase >= phases.CLOSE_RECEIVED:
                self.on_end()
            self.flush()
        if self.rate_limiter is not None:
            self.account(0, count)
        if self.full:
            self.pause_reading()

    def pump(self) -> None:
        """Hand the messages and control events that were read to the application, as many as it takes."""
        connection = self.connection
        try:
            while not self.full:
                event = connection.next_event()
                if event is None:
                    break
                if isinstance(event, (str, bytes)):
                    self.on_message(event)
                else:
                    # Pongs gather, too.
                    self.on_event(event)
                    self.wrote()
                self.turn_bytes += EVENT_COST
                more = connection.frames.position < connection.frames.end
                if self.turn_bytes > TURN_SIZE or (more and self.shared.turn.is_over()):
                    self.pause_turn()
        except RemoteProtocolError as error:
            self.on_failure(error)
        except Exception as error:  # noqa: BLE001 - a fault of ours ends its own connection only
            self.on_handler_error(error)

    def pause_reading(self) -> None:
        """Leave further bytes to the kernel, and so to the peer."""
        if not self.reading_paused:
            self.reading_paused = True
            if not self.yielding:
                self.transport.pause_reading()

    def read_on(self) -> None:
        """Read again, for the others had their turn."""
        self.yielding = False
        if not self.reading_paused and not self.lost:
            self.transport.resume_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if self.reading_paused:
            self.reading_paused = False
            if not self.yielding:
                self.transport.resume_reading()

    # -- writing

    def wrote(self) -> None:
        """See to it that what was just gathered is written: now, at the end of this read, or of this turn."""
        if self.connection.pending() >= WRITE_SIZE:
            self.flush()
        elif not self.corked:
            self.flush_soon()

    def gather(self, octets: bytes) -> None:
        """Write octets of HTTP at the end of this read, or of this turn."""
        self.shared.check()
        if self.gathered is None:
            self.gathered = []
        self.gathered.append(octets)
        self.gathered_bytes += len(octets)
        if self.gathered_bytes >= WRITE_SIZE:
            self.flush()
        elif not self.corked:
            self.flush_soon()

    def flush_soon(self) -> None:
        """Have what is gathered written at the end of the loop's turn."""
        if not self.in_dirty:
            self.in_dirty = True
            self.shared.add_dirty(self)

    def flush(self) -> None:
        """Write what was gathered."""
        self.in_dirty = False
        if self.handler is not None:
            self.flush_gathered()
            return
        chunks = self.connection.take_data()
        if chunks and not self.lost:
            self.sent_since_sweep = True
            self.write(chunks)

    def flush_gathered(self) -> None:
        """Write what was gathered of HTTP."""
        gathered = self.gathered
        if gathered is not None:
            self.gathered = None
            self.gathered_bytes = 0
            if not self.lost:
                # One piece: asyncio's transports warn of each that they are given once the client is gone.
                self.write(gathered if len(gathered) == 1 else [b"".join(gathered)])
                self.last_sent_at = clock.monotonic()

    def write(self, chunks: list[bytes]) -> None:
        """Write to the socket at once what it takes, and leave the rest to the transport."""
        rest: list[bytes | memoryview] = []
        if self.fd >= 0 and not self.held():
            count = len(chunks)
            try:
                if count == 1:
                    sent = os.write(self.fd, chunks[0])
                    if sent == len(chunks[0]):
                        self.bytes_sent += sent
                        return
                else:
                    sent = os.writev(self.fd, chunks if count <= MAX_PIECES else chunks[:MAX_PIECES])
            except OSError as error:
                if isinstance(error, ConnectionError):
                    self.yield_writing(GONE_DELAY)
                    # Its transport would drop what came before, if it found by writing that it is broken; by reading,
                    # not.
                    if not self.reading_paused and not self.yielding:
                        return
                sent = 0
            for chunk in chunks:
                self.bytes_sent += len(chunk)
                if sent >= len(chunk):
                    sent -= len(chunk)
                else:
                    rest.append(memoryview(chunk)[sent:] if sent else chunk)
                    sent = 0
            if not rest:
                return
        else:
            count = sum(map(len, chunks))
            self.bytes_sent += count
            rest.extend(chunks)
        self.transport_holds = True
        if self.fd < 0:
            self.transport.writelines(rest)
            # The TLS of the loops takes all, and tells nobody of this turn that it is broken.
            if count >= WRITE_SIZE:
                self.shared.turn.spend(count)
                if self.shared.turn.is_over():
                    self.yield_writing(0.0)
        else:
            # The writelines of asyncio's sockets does not call `pause_writing` (Python 3.12.1, 3.13.0: a peer that does
            # not read would never be noticed). Of these writes only the first tries the socket.
            for piece in rest:
                self.transport.write(piece)
        if self.transport.is_closing():
            self.yield_writing(GONE_DELAY)

    def yield_writing(self, seconds: float) -> None:
        """Be congested for so long, and for the rest of this turn of the loop at least: it may go to nobody.

        A task that only sends would never wait, and the loop not come to the end of its connection.
        """
        if not self.congested and not self.lost:
            self.pause_writing()
            self.yields_writing = True
            self.shared.loop.call_later(seconds, self.write_on)

    def write_on(self) -> None:
        """Be congested no more, unless meanwhile the transport said that it is full: it says when it is not."""
        if self.yields_writing:
            self.resume_writing()

    def end_writing(self) -> bool:
        """End the sending side behind all that was written; return False where there is no such thing, as in TLS."""
        if not self.transport.can_write_eof():
            return False
        # asyncio's own transports raise where the peer is gone and the loop does not know it yet.
        with contextlib.suppress(OSError):
            self.transport.write_eof()
        return True

    def held(self) -> bool:
        """Tell whether the transport has bytes that must go first."""
        if self.transport_holds:
            self.transport_holds = self.transport.get_write_buffer_size() > 0
        return self.transport_holds

    @property
    def buffered(self) -> int:
        """How many bytes were sent here and not taken by the kernel yet."""
        return self.refused + (self.gathered_bytes if self.handler is not None else self.connection.pending())

    @property
    def refused(self) -> int:
        """How many bytes the kernel did not take when they were written."""
        return self.transport.get_write_buffer_size() if not self.lost and self.held() else 0

    def bytes_taken(self) -> int:
        """Return how many bytes the kernel took."""
        return self.bytes_sent - self.refused

    # -- waiting for the peer

    async def wait_drained(self) -> None:
        """Wait until the write buffer is under its low-water mark, or the connection ends."""
        if self.congested and not self.lost:
            waiter: asyncio.Future[None] = self.shared.loop.create_future()
            if self.drain_waiters is None:
                self.drain_waiters = []
            self.drain_waiters.append(waiter)
            await waiter

    async def wait_closed(self) -> None:
        """Wait until the connection is closed, whoever closes it."""
        if not self.lost:
            waiter: asyncio.Future[None] = self.shared.loop.create_future()
            if self.closed_waiters is None:
                self.closed_waiters = []
            self.closed_waiters.append(waiter)
            await waiter

    def drained(self) -> None:
        """Let those who wait for the write buffer go on."""
        release(self.drain_waiters)
        self.drain_waiters = None
        for follower in self.followers or ():
            follower.drained()

    def follow(self, follower: Follower) -> None:
        """Have `follower.drained()` called when the write buffer is under its low-water mark, `lost()` at the end."""
        self.followers = [*(self.followers or ()), follower]

    def unfollow(self, follower: Follower) -> None:
        """Call it no more."""
        self.followers = [other for other in self.followers or () if other is not follower] or None

    # -- the end

    def abort(self) -> None:
        """End the TCP connection now, without a closing handshake."""
        if self.transport is not None and not self.lost:
            self.shared.check()
            self.aborted = True
            abort_transport(self.transport)

    def set_deadline(self, seconds: float) -> None:
        """Abort the connection so many seconds from now, or earlier where that was said before."""
        if seconds:
            deadline = clock.monotonic() + seconds
            if not self.deadline or deadline < self.deadline:
                self.deadline = deadline

    def expire(self) -> None:
        """Do what is due at the deadline."""
        self.deadline = 0.0
        if self.handler is not None:
            self.handler.expire()
        else:
            self.abort()

    def on_lost(self) -> None:
        """Wake all who wait for the peer, and tell the followers."""
        followers, self.followers = self.followers, None
        for follower in followers or ():
            follower.lost()
        release(self.drain_waiters)
        release(self.closed_waiters)

    # -- the keepalive's look

    def on_sweep(self, now: float) -> None:
        """Do what is due at this time."""
        if self.deadline and now >= self.deadline:
            self.expire()

    def makes_progress(self) -> bool:
        """Tell whether the peer has read some of what waited for it at the last look, in the kernel or before it."""
        held, taken, window = self.last_look or (0, 0, 0)
        told = send_queue(self.transport)
        held_now = self.refused + told.held
        taken_now = told.acked if told.acked >= 0 else self.bytes_sent - held_now
        self.last_look = (held_now, taken_now, told.window)
        # What is acknowledged of a peer for which nothing waited may be our Ping, to a program that stands still. The
        # window opens when the program reads what its kernel has acknowledged.
        return (held > 0 and taken < taken_now) or 0 < window < told.window

    # -- facts

    @property
    def remote_address(self) -> SocketAddress | None:
        """The address of the peer, or of the client that a trusted proxy named: a tuple, or a str for a unix socket.

        That of an IPv4 peer is an IPv4 one, also where the server listens for both versions.
        """
        return self.remote if self.remote is not None else plain_peer(self.extra("peername"))

    @property
    def local_address(self) -> SocketAddress | None:
        """The address of this side."""
        return plain_peer(self.extra("sockname"))  # type: ignore[no-any-return]

    def extra(self, name: str) -> Any:
        """Return what the transport knows under this name, None once it is gone."""
        return None if self.transport is None else self.transport.get_extra_info(name)

    # -- what WebSocket adds

    def is_idle(self) -> bool:
        """Tell whether nothing is done on it now."""
        return True

    def pause_turn(self) -> None:
        """Take no more in this turn of the loop."""

    def account(self, messages: int, octets: int) -> None:
        """Count received messages and bytes against the rate limit."""

    def on_message(self, message: str | bytes) -> None:
        """Take a message."""

    def on_event(self, event: ConnectionEvent) -> None:
        """Take a control event or a fragment."""

    def on_failure(self, error: RemoteProtocolError) -> None:
        """Handle a violation of the protocol by the peer."""

    def on_end(self) -> None:
        """Answer the peer's Close, or its violation of the protocol, and end the TCP connection."""

    def on_handler_error(self, error: Exception) -> None:
        """Handle an exception of a callback."""

    def wake(self) -> None:
        """Let a handler that waits for a message go on."""
