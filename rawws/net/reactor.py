"""Reactor: an engine of our own for sockets: one epoll descriptor in any event loop of Linux (epoll(7)).

The way of a message: the loop calls `Reactor.run` when the descriptor is readable; that asks which sockets are ready,
and calls `EpollTransport.ready` of each; that reads into the buffer that all share, and calls
`AsyncSocket.buffer_updated`, where a transport of the loop would have. What is written goes to the socket at once
(`AsyncSocket.write`); what the kernel refuses waits in the transport, and epoll tells when there is room.

Laws:
1. A loop wakes once for all sockets that are ready; each is read once, and then the others have their turn.
2. Events are hints: a descriptor may be closed, and its number another's, before its event is looked at. What the
   socket says when it is read or written is the truth.
3. epoll knows of a socket only what is waited for: nothing where reading is paused, room only where the kernel refused.
4. What the loop's transports promise to a protocol, these do: the end is never told from within a call of it.
5. What came before an end is handed over before that is told, also where a write finds that the peer is gone.
"""

from __future__ import annotations

import contextvars
import errno
import os
import select
import socket
import warnings
from asyncio.trsock import TransportSocket
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from . import polls
from .forks import let_go_in_children
from .socket import GONE_DELAY, HIGH_WATER, LOW_WATER, shared
from .transports import has_unread
from .turns import TURN_SIZE
from .watched import READ, WRITE, Watched

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Iterator

    from .polls import Batch
    from .socket import AsyncSocket

__all__ = ["COMPILED", "Acceptor", "EpollTransport", "Reactor", "adopt", "reactor_of", "start"]

# Which twin this is.
COMPILED = not __file__.endswith(".py")
# So many connections are accepted at a time, before others have their turn: of each it is decided at once whether it
# stays, so that this many descriptors at the most are open beyond `max_connections`.
ACCEPTS = 32
# Where there are no descriptors, in seconds until the next attempt: asyncio's own.
ACCEPT_DELAY = 1.0
# writev takes so many pieces at the most (IOV_MAX of Linux).
MAX_PIECES = 1024
# How long the rest is kept that a peer sent before it went, for an application that does not read it now; in TLS, how
# long a peer is waited for that does not answer close_notify, where nobody says: as the loops do. In seconds.
SHUTDOWN_TIMEOUT = 30.0


class Reactor:
    """The sockets of one loop that are served without its transports; `reactor_of` returns it.

    It has a descriptor for as long as it has sockets.
    """

    __slots__ = (
        "__weakref__", "batch", "buffers", "count", "fd", "loop", "members", "poll", "position", "spent",
        "table",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        # What `readv` reads into: the buffer of all connections in the loop.
        self.buffers = [shared(loop).buffer]
        self.poll: select.epoll | None = None
        self.fd = -1
        # Whose each descriptor is.
        self.table: list[Watched | None] = []
        self.members = 0
        # What was ready at the last look, how many that are, and which is next.
        self.batch: Batch = polls.new_batch()
        self.count = self.position = 0
        # Bytes that were read in this turn.
        self.spent = 0
        let_go_in_children(self)

    def descriptors(self) -> Iterator[int]:
        """Return all that it has, for the children of this process to close."""
        # First its own: a child that shares it would change what the parent waits for.
        yield self.fd
        for watched in self.table:
            if watched is not None:
                yield watched.fd

    def add(self, watched: Watched) -> None:
        """Take a descriptor in."""
        if self.poll is None:
            self.poll = select.epoll()
            self.fd = self.poll.fileno()
            self.loop.add_reader(self.fd, self.run)
        table = self.table
        if watched.fd >= len(table):
            table.extend([None] * (watched.fd + 1 - len(table)))
        table[watched.fd] = watched
        self.members += 1

    def watch(self, watched: Watched, mask: int) -> None:
        """Have epoll tell of this from now on, and of nothing else; 0 is nothing at all."""
        if mask == watched.mask or self.poll is None:
            return
        before, watched.mask = watched.mask, mask
        if not mask:
            self.poll.unregister(watched.fd)
        elif before:
            self.poll.modify(watched.fd, mask)
        else:
            self.poll.register(watched.fd, mask)

    def remove(self, watched: Watched) -> None:
        """Let go of a descriptor, which is about to be closed."""
        if self.poll is None or self.table[watched.fd] is not watched:
            return
        # By closing alone it would stay, where a child has the same socket.
        self.watch(watched, 0)
        self.table[watched.fd] = None
        self.members -= 1
        if not self.members:
            self.loop.remove_reader(self.fd)
            self.poll.close()
            self.poll = None
            self.fd = -1
            self.count = self.position = 0
            self.table.clear()

    def run(self) -> None:
        """Serve the sockets that are ready, for as long as a turn of the loop lasts. The loop calls this."""
        if self.position == self.count:
            self.position = 0
            self.count = polls.wait(self.poll, self.fd, self.batch)  # type: ignore[arg-type]  # there is one
        self.spent = 0
        # Those that are left stay ready, and so does this: the loop comes back for them.
        while self.position < self.count and self.spent < TURN_SIZE:
            position = self.position
            self.position += 1
            polls.serve(self.batch, position, self.table)


class EpollTransport(Watched):
    """The transport of one connection, with the methods of an asyncio.Transport that are used here."""

    __slots__ = (
        "address", "alarm", "broken", "closing", "ended", "eof", "high", "ipv4", "low", "paused", "protocol", "reactor",
        "sock", "waiting", "waiting_bytes", "writing_paused",
    )  # fmt: skip

    def __init__(self, reactor: Reactor, fd: int, address: Any, protocol: AsyncSocket) -> None:
        super().__init__(fd, contextvars.copy_context())
        self.reactor = reactor
        self.protocol = protocol
        # The peer's. That of IPv4 is a number where `polls.accept_one` told it, and -1 for none.
        self.address: Any = None
        self.ipv4 = -1
        if type(address) is int:
            self.ipv4 = address
        else:
            self.address = address
        # Made for those who ask for it.
        self.sock: socket.socket | None = None
        # What the kernel refused.
        self.waiting: list[bytes | memoryview] | None = None
        self.waiting_bytes = 0
        self.high = HIGH_WATER
        self.low = LOW_WATER
        # The protocol was told that too much waits.
        self.writing_paused = False
        # Nothing is read for now.
        self.paused = False
        # Nothing more is read, and it ends behind what waits.
        self.closing = False
        # The sending side ends behind what waits.
        self.eof = False
        # The peer takes nothing any more; what it sent before that is still read.
        self.broken = False
        # When a peer is given up that does not end, or an application that does not read the rest.
        self.alarm: asyncio.TimerHandle | None = None
        # Nothing more is done, the protocol is about to be told.
        self.ended = False
        reactor.add(self)

    def __del__(self) -> None:
        if self.fd >= 0:
            # Its loop was closed before it.
            warnings.warn(f"unclosed transport of the descriptor {self.fd}", ResourceWarning, source=self, stacklevel=1)
            self.close_descriptor()

    # -- what the engine calls

    def begin(self) -> None:
        """Tell the protocol, and read from now on. Raises what the protocol does."""
        self.protocol.begin_on(self, self.fd)
        self.update()

    def ready(self, events: int) -> None:
        """Read or write, whichever was waited for. What the protocol raises ends this connection only."""
        try:
            if self.mask & READ and events != WRITE:
                self.read()
            if self.mask & WRITE and events != READ:
                self.send()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - as the loops do
            self.fail(error, "a protocol failed")

    def read(self) -> None:
        """Read once, and hand it over."""
        reactor = self.reactor
        try:
            count = os.readv(self.fd, reactor.buffers)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.cut(error)
            return
        if count:
            reactor.spent += count
            self.protocol.buffer_updated(count)
        elif not self.protocol.eof_received():
            self.close()

    def send(self) -> None:
        """Give the kernel what waits, as much as it takes; then what is due behind it."""
        waiting = self.waiting
        if waiting is None:
            return
        try:
            sent = os.writev(self.fd, waiting[:MAX_PIECES])
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.break_off(error)
            return
        self.drop(waiting, sent)
        self.relieve()

    def break_off(self, error: OSError) -> None:
        """Write nothing more. What the peer sent before it went is still read, by those who take it in time."""
        if self.closing or (self.paused and not self.has_unread()):
            self.cut(error)
            return
        self.broken = True
        self.waiting = []
        self.waiting_bytes = 0
        self.set_alarm(SHUTDOWN_TIMEOUT)
        # Who waits to write goes on: it may be the one who is to read.
        self.relieve()

    def has_unread(self) -> bool:
        """Tell whether something came that was not read, or not processed."""
        return self.has_unprocessed() or has_unread(self.fd)

    def has_unprocessed(self) -> bool:
        """Tell whether there is more of what was read than the application took so far."""
        return self.protocol.handler is None and self.protocol.connection.has_unprocessed()

    def set_alarm(self, seconds: float) -> None:
        """Give up a peer, or an application, that takes too long to end."""
        if self.alarm is None:
            self.alarm = self.reactor.loop.call_later(seconds, self.abort, context=self.context)

    def drop(self, waiting: list[bytes | memoryview], sent: int) -> None:
        """Keep so many bytes no more: they were taken."""
        self.waiting_bytes -= sent
        whole = 0
        while whole < len(waiting) and sent >= len(waiting[whole]):
            sent -= len(waiting[whole])
            whole += 1
        del waiting[:whole]
        if sent:
            waiting[0] = memoryview(waiting[0])[sent:]

    def relieve(self) -> None:
        """Do what is due as less waits than before, or nothing."""
        if not self.waiting:
            self.waiting = None
        if self.writing_paused and self.waiting_bytes <= self.low:
            self.writing_paused = False
            # That may write again, or close.
            self.protocol.resume_writing()
        if self.waiting is None:
            self.sent_all()

    def sent_all(self) -> None:
        """Do what was to be done behind all that was written."""
        if self.ended:
            return
        if self.closing:
            self.finish()
        else:
            self.update()
            if self.eof:
                polls.shut_down(self.fd, socket.SHUT_WR)

    def finish(self) -> None:
        """End it behind all that was written."""
        self.end_soon(None)

    def update(self) -> None:
        """Have epoll watch for what is waited for now."""
        if not self.ended:
            mask = 0 if self.paused or self.closing else READ
            self.reactor.watch(self, mask | WRITE if self.waiting is not None else mask)

    def fail(self, error: BaseException, message: str) -> None:
        """Tell the loop's handler of exceptions, and end the connection."""
        context = {"message": message, "exception": error, "transport": self, "protocol": self.protocol}
        self.reactor.loop.call_exception_handler(context)
        self.cut(error)

    def cut(self, error: BaseException | None) -> None:
        """End it now; what waits is dropped."""
        if not self.ended:
            self.closing = True
            self.end_soon(error)

    def end_soon(self, error: BaseException | None) -> None:
        """Tell the protocol in the next turn of the loop: whoever ends it may be in the middle of a read."""
        if self.alarm is not None:
            self.alarm.cancel()
            self.alarm = None
        self.waiting = None
        self.waiting_bytes = 0
        self.ended = True
        self.reactor.remove(self)
        self.reactor.loop.call_soon(self.end, error, context=self.context)

    def end(self, error: BaseException | None) -> None:
        """Tell the protocol, and close the descriptor."""
        if self.fd >= 0:
            # A forked child may have the descriptor, too: then to close it here would not end the connection.
            polls.shut_down(self.fd, socket.SHUT_RDWR)
        try:
            self.protocol.connection_lost(error)  # type: ignore[arg-type]  # nobody looks at it
        finally:
            # Each holds the other, which would leave both, with their messages, to the garbage collector.
            self.protocol = None  # type: ignore[assignment]  # nothing is told any more
            self.close_descriptor()

    def close_descriptor(self) -> None:
        """Close the descriptor, and that of the object that was made of it."""
        fd, self.fd = self.fd, -1
        if self.sock is not None:
            self.sock.close()
        elif fd >= 0:
            os.close(fd)

    # -- what a transport of the loop does

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what is known under this name: the socket, or one of its addresses."""
        if name == "peername":
            if self.ipv4 >= 0:
                return socket.inet_ntoa((self.ipv4 >> 16).to_bytes(4, "big")), self.ipv4 & 0xFFFF
            return self.address
        if name not in {"socket", "sockname"} or self.fd < 0 or self.ended:
            return default
        if self.sock is None:
            self.sock = socket.socket(fileno=self.fd)
        if name == "sockname":
            return self.sock.getsockname()
        return TransportSocket(self.sock)

    def is_closing(self) -> bool:
        """Tell whether nothing more is read."""
        return self.closing

    def is_reading(self) -> bool:
        """Tell whether it is read from."""
        return not self.paused and not self.closing

    def pause_reading(self) -> None:
        """Leave what comes to the kernel, and so to the peer."""
        if not self.paused and not self.closing:
            self.paused = True
            self.update()

    def resume_reading(self) -> None:
        """Read again."""
        if self.paused and not self.closing:
            self.paused = False
            self.update()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the marks, in bytes, over which the protocol's `pause_writing` is called, and under which the other."""
        if high is None:
            high = HIGH_WATER if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self.high = high
        self.low = low

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the low mark and the high one."""
        return self.low, self.high

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait."""
        return self.waiting_bytes

    def write(self, data: bytes | memoryview) -> None:
        """Send data, behind what waits."""
        self.writelines((data,))

    def writelines(self, pieces: Iterable[bytes | memoryview]) -> None:
        """Send pieces, behind what waits. They must not change any more."""
        if self.eof:
            raise RuntimeError("this was written after write_eof()")
        if self.ended:
            return
        if self.broken:
            self.protocol.yield_writing(GONE_DELAY)
            return
        tried = self.waiting is not None
        for piece in pieces:
            if piece:
                if self.waiting is None:
                    self.waiting = []
                self.waiting.append(piece if type(piece) is bytes else memoryview(piece))
                self.waiting_bytes += len(piece)
        if not tried:
            self.send()
        if self.waiting is not None and not self.ended:
            self.update()
            if self.waiting_bytes > self.high and not self.writing_paused:
                self.writing_paused = True
                self.protocol.pause_writing()

    def can_write_eof(self) -> bool:
        """Tell that the sending side can end alone."""
        return True

    def write_eof(self) -> None:
        """End the sending side behind all that was written."""
        if not self.closing and not self.eof:
            self.eof = True
            if self.waiting is None:
                polls.shut_down(self.fd, socket.SHUT_WR)

    def close(self) -> None:
        """End the connection behind all that was written; nothing more is read."""
        if not self.closing:
            self.closing = True
            if self.waiting is None:
                self.finish()
            else:
                self.update()

    def abort(self) -> None:
        """End the connection now."""
        self.cut(None)


class Acceptor(Watched):
    """A listening socket. Whose it is keeps it, and closes it behind this."""

    __slots__ = ("adopt", "make_protocol", "reactor", "sock", "told")

    def __init__(
        self, reactor: Reactor, fd: int, make_protocol: Callable[[], AsyncSocket], adopt: Callable[..., None]
    ) -> None:
        super().__init__(fd, contextvars.copy_context())
        self.reactor = reactor
        self.make_protocol = make_protocol
        # Serves what is accepted: the function of this name, or that of TLS.
        self.adopt = adopt
        # For what is asked of a listening socket in Python.
        self.sock = socket.socket(fileno=fd)
        if self.sock.family in {socket.AF_INET, socket.AF_INET6}:
            # As the loops have it; what is accepted is told the same.
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The lack of descriptors was logged.
        self.told = False
        self.sock.setblocking(False)
        self.sock.listen()
        reactor.add(self)
        reactor.watch(self, READ)

    def close(self) -> None:
        """Accept no more."""
        if self.fd >= 0:
            self.reactor.remove(self)
            self.sock.detach()
            self.fd = -1

    def ready(self, events: int) -> None:  # noqa: ARG002 - there is one that is waited for
        """Accept those who wait."""
        for _ in range(ACCEPTS):
            if not self.mask:
                # A connection that began just now closed the server.
                return
            try:
                accepted = polls.accept_one(self.sock, self.fd)
            except ConnectionAbortedError:
                # It is gone; the next may be there.
                continue
            except OSError as error:
                self.wait(error)
                return
            if accepted is None:
                return
            self.told = False
            fd, address = accepted
            self.adopt(self.reactor, fd, address, self.make_protocol())

    def wait(self, error: OSError) -> None:
        """Say once what is missing, and try again after a while: the kernel tells all the time of those who wait."""
        if not self.told:
            self.told = True
            message = f"cannot accept connections: {os.strerror(error.errno or errno.EMFILE)}"
            context = {"message": message, "exception": error, "socket": TransportSocket(self.sock)}
            self.reactor.loop.call_exception_handler(context)
        self.reactor.watch(self, 0)
        self.reactor.loop.call_later(ACCEPT_DELAY, self.go_on)

    def go_on(self) -> None:
        """Accept again, unless it is closed meanwhile."""
        if self.fd >= 0:
            self.reactor.watch(self, READ)


def adopt(reactor: Reactor, fd: int, address: Any, protocol: AsyncSocket) -> None:
    """Serve a connection from now on: a descriptor that does not block, and that is closed with it."""
    start(EpollTransport(reactor, fd, address, protocol))


def start(transport: EpollTransport) -> None:
    """Begin with a connection."""
    try:
        transport.begin()
    except Exception as error:  # noqa: BLE001 - it ends its own connection only
        transport.fail(error, "a protocol failed to begin")


REACTORS: WeakKeyDictionary[asyncio.AbstractEventLoop, ref[Reactor]] = WeakKeyDictionary()


def reactor_of(loop: asyncio.AbstractEventLoop) -> Reactor:
    """Return the reactor of a loop. The loop has it while there are sockets, and nobody when the loop is gone."""
    known = REACTORS.get(loop)
    reactor = None if known is None else known()
    if reactor is None:
        reactor = Reactor(loop)
        REACTORS[loop] = ref(reactor)
    return reactor
