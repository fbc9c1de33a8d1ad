"""TLS transport: a connection of the engine in TLS, with OpenSSL on the socket itself (RFC 8446).

The way of a message: epoll tells that the socket is ready; OpenSSL reads a record of it, and decrypts that into the
buffer that all connections share. What is written becomes records, which OpenSSL writes to the socket at once.

Laws:
1. One buffer: nothing is kept here between the socket and OpenSSL, nor between OpenSSL and the protocol.
2. What OpenSSL has decrypted epoll does not tell of: OpenSSL is asked.
3. A record that the kernel did not take whole is offered again as it was (SSL_write(3)).
4. What came before an end, or an error, is handed over before that is told.
5. close_notify follows all that was written; the peer's is waited for, but not for long.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from typing import TYPE_CHECKING, Any

from .logs import shown_address
from .reactor import SHUTDOWN_TIMEOUT, EpollTransport, start
from .socket import shared
from .watched import READ, WRITE

if TYPE_CHECKING:
    import asyncio
    import logging
    from collections.abc import Callable, Iterable

    from .reactor import Reactor
    from .socket import AsyncSocket

__all__ = ["TlsTerms", "TlsTransport"]

# RFC 8446 5.1: "The length MUST NOT exceed 2^14 bytes."
RECORD = 16384
# What a step of a handshake costs, in bytes that are read in that time: some are signatures of 1 ms, and others wait.
STEP_COST = 65536
# A handshake is due or under way; messages go; close_notify is to be sent; the peer's is waited for.
SHAKING = 0
OPEN = 1
LEAVING = 2
LEFT = 3


class TlsTerms:
    """What the connections of one server in TLS share."""

    __slots__ = ("context", "logger", "on_secure", "shutdown_timeout", "size", "view")

    def __init__(
        self,
        context: ssl.SSLContext,
        loop: asyncio.AbstractEventLoop,
        on_secure: Callable[[AsyncSocket], object],
        *,
        shutdown_timeout: float,
        logger: logging.Logger,
    ) -> None:
        self.context = context
        # Called for each connection whose handshake is done.
        self.on_secure = on_secure
        # How long a peer may take to answer close_notify, in seconds; 0 for the loops' own time.
        self.shutdown_timeout = shutdown_timeout or SHUTDOWN_TIMEOUT
        self.logger = logger
        # What is read into: the buffer of all connections in the loop.
        self.view = memoryview(shared(loop).buffer)
        self.size = len(self.view)

    def adopt(self, reactor: Reactor, fd: int, address: Any, protocol: AsyncSocket) -> None:
        """Serve a connection from now on: a descriptor that does not block, and that is closed with it.

        The protocol begins at once, before the handshake, so that it can count it and end it in time.
        """
        start(TlsTransport(reactor, fd, address, protocol, self))


class TlsTransport(EpollTransport):
    """The transport of one connection in TLS, with the methods of an asyncio.Transport that are used here."""

    __slots__ = (
        "certificate", "fate", "inner", "more", "phase", "read_wants_room", "reading_soon", "record", "terms", "tls",
        "wants", "write_wants_data",
    )  # fmt: skip

    def __init__(self, reactor: Reactor, fd: int, address: Any, protocol: AsyncSocket, terms: TlsTerms) -> None:
        super().__init__(reactor, fd, address, protocol)
        self.terms = terms
        # OpenSSL has tens of KiB for each connection: there is none before the first byte.
        self.tls: ssl.SSLSocket | None = None
        # What that calls: its own methods are written in Python, and cost 1 us of the 10 us of an echo.
        self.inner: Any = None
        self.phase = SHAKING
        # What OpenSSL waits for in its handshakes, at the begin and the end.
        self.wants = READ
        # What OpenSSL waits for where it has to answer the peer's OpenSSL in the middle: of a key update, for example.
        self.read_wants_room = False
        self.write_wants_data = False
        # What was offered to OpenSSL, and not taken whole.
        self.record: bytes | memoryview | None = None
        # There is something to read that epoll does not tell of: what OpenSSL has, or how the reading ended.
        self.more = False
        self.fate: OSError | None = None
        self.reading_soon = False
        # The peer's.
        self.certificate: Any = None

    # -- what the engine calls

    def begin(self) -> None:
        """Tell the protocol, and wait for the first byte. Raises what the protocol does."""
        self.protocol.begin_on(self, -1)
        self.update()

    def ready(self, events: int) -> None:
        """Do whichever was waited for. What the protocol raises ends this connection only."""
        try:
            if self.phase == SHAKING:
                self.shake()
            elif self.phase != OPEN:
                self.leave()
            else:
                readable = self.mask & READ and events & ~WRITE
                room = self.mask & WRITE and events & ~READ
                if (room if self.read_wants_room else readable) and not self.paused and not self.closing:
                    self.read()
                if self.phase == OPEN and (readable if self.write_wants_data else room):
                    self.send()
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - as the loops do
            self.fail(error, "a protocol failed")

    def update(self) -> None:
        """Have epoll watch for what is waited for now."""
        if self.ended:
            return
        mask = self.wants
        if self.phase == OPEN:
            mask = 0 if self.paused or self.closing else WRITE if self.read_wants_room else READ
            if self.waiting is not None:
                mask |= READ if self.write_wants_data else WRITE
        self.reactor.watch(self, mask)

    # -- the handshake

    def shake(self) -> None:
        """Go on with the handshake."""
        if self.ended:
            return
        self.reactor.spent += STEP_COST
        try:
            if self.tls is None:
                self.tls = self.wrap()
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self.wants = READ
        except ssl.SSLWantWriteError:
            self.wants = WRITE
        except (OSError, ValueError) as error:
            # Clients that are none of TLS are no news.
            peer = shown_address(self.get_extra_info("peername"))
            self.terms.logger.debug("the TLS handshake of %s failed: %s", peer, error)
            self.empty()
            self.cut(error)
            return
        else:
            self.phase = OPEN
            if self.terms.context.verify_mode != ssl.CERT_NONE:
                self.certificate = self.tls.getpeercert()
            self.terms.on_secure(self.protocol)
        self.update()

    def wrap(self) -> ssl.SSLSocket:
        """Return OpenSSL on the socket. Raises OSError where the peer is gone."""
        sock = socket.socket(fileno=self.fd) if self.sock is None else self.sock
        self.sock = sock
        sock.setblocking(False)
        # Where the peer is gone `ssl` would leave the socket to the garbage collector.
        sock.getpeername()
        try:
            tls = self.terms.context.wrap_socket(
                sock, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=False
            )
        except BaseException:
            if sock.fileno() < 0:
                # `ssl` took the descriptor, and closed it: the number may be another's soon.
                self.sock = None
                self.mask = 0
                self.reactor.remove(self)
                self.fd = -1
            raise
        self.sock = tls
        self.inner = getattr(tls, "_sslobj", tls)
        return tls

    def empty(self) -> None:
        """Read what came: to close with unread bytes resets the connection, and the peer never reads our alert."""
        if self.fd >= 0:
            with contextlib.suppress(OSError):
                os.readv(self.fd, self.reactor.buffers)

    # -- reading

    def read(self) -> None:
        """Read the records that are there, as many as the buffer takes, and hand them over; then what is due behind."""
        view = self.terms.view
        size = self.terms.size
        total = 0
        self.more = self.read_wants_room = False
        while self.fate is None:
            try:
                count = self.inner.read(size, view[total:] if total else view)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLWantWriteError:
                self.read_wants_room = True
                break
            except OSError as error:
                self.fate = error
                break
            if not count:
                self.fate = END
                break
            total += count
            # Behind a record that is not full there is rarely another one, and to find none costs as much as to read.
            if count < RECORD or total > size - RECORD:
                break
        if total:
            self.reactor.spent += total
            self.protocol.buffer_updated(total)
            if self.ended or self.phase != OPEN:
                return
            # Less than what was asked for is the whole of a record, and then OpenSSL has nothing of it.
            if self.fate is not None or (total > size - RECORD and self.inner.pending()):
                self.more = True
                self.read_soon()
            elif self.read_wants_room:
                self.update()
        elif self.fate is END:
            # Where it stays, it is told again as reading is resumed.
            self.more = True
            if not self.protocol.eof_received():
                self.close()
        elif self.fate is not None:
            self.cut(self.fate)
        else:
            self.update()

    def read_soon(self) -> None:
        """Read in the next turn of the loop what epoll does not tell of."""
        if not self.reading_soon:
            self.reading_soon = True
            self.reactor.loop.call_soon(self.read_more, context=self.context)

    def read_more(self) -> None:
        """Read what epoll does not tell of, unless nobody wants it now."""
        self.reading_soon = False
        if self.more and self.phase == OPEN and not self.paused and not self.closing and not self.ended:
            try:
                self.read()
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # noqa: BLE001 - as the loops do
                self.fail(error, "a protocol failed")

    def resume_reading(self) -> None:
        """Read again."""
        EpollTransport.resume_reading(self)
        if self.more:
            self.read_soon()

    # -- writing

    def send(self) -> None:
        """Give OpenSSL what waits, record by record, as much as the kernel takes; then what is due behind it."""
        waiting = self.waiting
        if waiting is None or self.phase != OPEN:
            return
        self.write_wants_data = False
        try:
            while waiting:
                if self.record is None:
                    self.record = next_record(waiting)
                sent = self.inner.write(self.record)
                self.record = None
                self.drop(waiting, sent)
        except ssl.SSLWantWriteError:
            pass
        except ssl.SSLWantReadError:
            self.write_wants_data = True
        except OSError as error:
            self.break_off(error)
            return
        self.relieve()

    def break_off(self, error: OSError) -> None:
        """Write nothing more. What the peer sent before it went is still read, by those who take it in time."""
        self.record = None
        # The first is what `ssl` makes of any error of the socket.
        if isinstance(error, ssl.SSLEOFError) or not isinstance(error, ssl.SSLError):
            self.set_alarm(self.terms.shutdown_timeout)
            EpollTransport.break_off(self, error)
        else:
            self.cut(error)

    def has_unread(self) -> bool:
        """Tell whether something came that was not read, or not processed."""
        if self.fate is None:
            return self.inner.pending() > 0 or EpollTransport.has_unread(self)
        return self.has_unprocessed()

    def writelines(self, pieces: Iterable[bytes | memoryview]) -> None:
        """Send pieces, behind what waits. They must not change any more."""
        if self.phase <= OPEN:
            EpollTransport.writelines(self, pieces)

    def can_write_eof(self) -> bool:
        """Tell that the sending side cannot end alone: in TLS 1.2, close_notify ends both (RFC 5246 7.2.1)."""
        return False

    def write_eof(self) -> None:
        """Raise NotImplementedError."""
        raise NotImplementedError("TLS has no half-closed connections")

    # -- the end

    def finish(self) -> None:
        """Send close_notify, and wait for the peer's; nothing of that before the handshake is done."""
        if self.phase != OPEN:
            self.end_soon(None)
            return
        self.phase = LEAVING
        self.set_alarm(self.terms.shutdown_timeout)
        self.leave()

    def leave(self) -> None:
        """Go on with the end: with our close_notify, or what comes up to the peer's, which is dropped."""
        if self.ended:
            return
        try:
            if self.phase == LEAVING:
                self.tls.unwrap()  # type: ignore[union-attr]  # there is one
                over = True
            else:
                count = self.inner.read(self.terms.size, self.terms.view)
                self.reactor.spent += count
                over = not count
        except ssl.SSLWantReadError:
            self.phase = LEFT
            self.wants = READ
            over = False
        except ssl.SSLWantWriteError:
            self.wants = WRITE
            over = False
        except OSError as error:
            # Ours was sent, but there is data in the place of the peer's: SSL_shutdown(3) says to read that.
            over = self.phase == LEFT or getattr(error, "reason", "") != "APPLICATION_DATA_AFTER_CLOSE_NOTIFY"
            self.phase = LEFT
            self.wants = READ
        if over:
            self.end_soon(None)
        else:
            self.update()

    def end_soon(self, error: BaseException | None) -> None:
        """Tell the protocol in the next turn of the loop: whoever ends it may be in the middle of a read."""
        self.record = None
        EpollTransport.end_soon(self, error)

    def close_descriptor(self) -> None:
        """Close the descriptor, and let go of OpenSSL: the application may keep the connection for long."""
        self.inner = None
        EpollTransport.close_descriptor(self)

    # -- what a transport of the loop does

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what is known under this name: of TLS, or of the socket.

        The `ssl_object` is an ssl.SSLSocket here; once the connection is gone, it knows nothing any more.
        """
        if name == "sslcontext":
            return self.terms.context
        if name not in {"ssl_object", "peercert", "cipher", "compression"}:
            return EpollTransport.get_extra_info(self, name, default)
        if self.tls is None or self.phase == SHAKING:
            return default
        if name == "ssl_object":
            return self.tls
        if name == "peercert":
            return self.certificate
        return self.tls.cipher() if name == "cipher" else self.tls.compression()


def next_record(waiting: list[bytes | memoryview]) -> bytes | memoryview:
    """Return the first bytes of these pieces, as many as one record takes: each has its own cost."""
    first = waiting[0]
    if len(first) > RECORD:
        return memoryview(first)[:RECORD]
    if len(waiting) == 1:
        return first
    pieces: list[bytes | memoryview] = []
    room = RECORD
    for piece in waiting:
        if len(piece) >= room:
            pieces.append(memoryview(piece)[:room])
            break
        pieces.append(piece)
        room -= len(piece)
    return b"".join(pieces)


# How the reading ends where the peer ended it by close_notify.
END = OSError("close_notify")
