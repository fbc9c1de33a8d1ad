"""Streams: one stream of a connection that carries many, to the transport that a socket of its own would have.

A `WebSocket` stands on it as on a transport of the loop, and so does all that HTTP/1.1 answers with. Nothing here knows
how streams are written: that is the `StreamCarrier`'s, which may be a connection of HTTP/2.

Laws:
1. What is written waits here, and not in the connection, until it is the stream's turn: so it can be told who is slow.
2. What comes while nobody reads waits here, too, within the window that the client was given; what was taken is
   acknowledged, and not before.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Protocol, final

from .socket import HIGH_WATER, LOW_WATER

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

    from .websocket import WebSocket

__all__ = ["StreamCarrier", "StreamTransport", "is_stream"]

# So much of what was held back is handed on at a time, as one read of a socket.
PIECE = 65536


class StreamCarrier(Protocol):
    """The connection that carries streams. `key` is what it knows a stream by."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that runs it."""

    def schedule(self, stream: StreamTransport) -> None:
        """Send what waits on a stream, its end included, when it is its turn."""

    def acknowledge(self, stream: StreamTransport, count: int) -> None:
        """Let the client send so many bytes more."""

    def widen(self, stream: StreamTransport, window: int) -> None:
        """Let the client send so many bytes before the first is taken."""

    def reset(self, stream: StreamTransport, *, complete: bool) -> None:
        """End a stream at once: because nothing more is wanted of a client that has all, or in the middle."""

    def forget(self, stream: StreamTransport) -> None:
        """Take note that a stream has ended."""

    def extra(self, name: str) -> Any:
        """Return what the connection's transport knows under this name."""


@final
class StreamTransport:
    """The transport of one stream; `protocol` is the WebSocket that it belongs to.

    `urgency` and `incremental` are those of RFC 9218. `tunnel` tells that what comes is no request's body, and that the
    client ends the stream, too: it is that of a WebSocket.
    """

    __slots__ = (
        "breaking", "carrier", "closing", "end_sent", "ending", "held", "incremental", "is_queued", "key", "over",
        "paused", "protocol", "queue", "queued", "resuming", "taken", "tunnel", "urgency", "whole", "window",
        "writing_paused",
    )  # fmt: skip

    def __init__(self, carrier: StreamCarrier, key: Any, window: int) -> None:
        self.carrier = carrier
        self.key = key
        self.protocol: WebSocket = None  # type: ignore[assignment]  # from `begin` on
        self.urgency = 3
        self.incremental = False
        self.tunnel = False
        # What waits to be sent, in bytes; whether the end is behind it, and was sent; whether it is to have a turn.
        self.queue: deque[bytes | memoryview] = deque()
        self.queued = 0
        self.ending = self.end_sent = self.is_queued = False
        # It is broken off behind what waits, without an end.
        self.breaking = False
        self.writing_paused = False
        # What came and was not taken; whether all came that comes.
        self.held = bytearray()
        self.whole = False
        self.paused = self.resuming = False
        # How much came, and how much may be on its way.
        self.taken = 0
        self.window = window
        # `close` was called; the protocol was told, or is about to be.
        self.closing = self.over = False

    def begin(self, protocol: WebSocket) -> None:
        """Begin: from here on the protocol is told what comes."""
        self.protocol = protocol
        protocol.connection_made(self)

    # -- what a transport of the loop does

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the connection knows; a stream has no socket of its own."""
        found = None if name == "socket" else self.carrier.extra(name)
        return default if found is None else found

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Do nothing: the marks are those of every connection."""

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait."""
        return self.queued

    def is_closing(self) -> bool:
        """Tell whether nothing more can be written."""
        return self.closing or self.over

    def can_write_eof(self) -> bool:
        """Tell that the sending side can end alone."""
        return True

    def write(self, data: bytes | memoryview) -> None:
        """Send data when it is the stream's turn."""
        self.writelines((data,))

    def writelines(self, chunks: Iterable[bytes | memoryview]) -> None:
        """Send pieces when it is the stream's turn."""
        if self.ending or self.over:
            return
        for chunk in chunks:
            if chunk:
                self.queue.append(chunk)
                self.queued += len(chunk)
        self.carrier.schedule(self)
        if self.queued > HIGH_WATER and not self.writing_paused:
            self.writing_paused = True
            self.protocol.pause_writing()

    def write_eof(self) -> None:
        """End the sending side behind all that was written."""
        if not self.ending and not self.over:
            self.ending = True
            self.carrier.schedule(self)

    def close(self) -> None:
        """End the stream behind all that was written; what comes is dropped."""
        if self.closing or self.over:
            return
        self.closing = True
        self.held.clear()
        self.paused = False
        self.write_eof()
        if self.end_sent:
            self.settle()

    def cut(self) -> None:
        """Break the stream off behind all that was written, so that nobody takes a part for the whole."""
        if not self.closing and not self.over:
            self.closing = self.breaking = True
            self.carrier.schedule(self)

    def abort(self) -> None:
        """End the stream now."""
        if not self.over:
            self.queue.clear()
            self.queued = 0
            self.carrier.reset(self, complete=self.end_sent)
            self.end_soon()

    def pause_reading(self) -> None:
        """Hold what comes back."""
        self.paused = True

    def resume_reading(self) -> None:
        """Hand on what comes, and what was held back."""
        self.paused = False
        if (self.held or self.whole) and not self.resuming:
            self.resuming = True
            self.carrier.loop.call_soon(self.hand_on)

    # -- what the carrier calls

    def take(self, limit: int) -> tuple[bytes, bool]:
        """Return the next bytes to send, at most so many, and whether the end is behind them."""
        queue, pieces, size = self.queue, [], 0
        while queue and size < limit:
            chunk = queue.popleft()
            room = limit - size
            if len(chunk) > room:
                queue.appendleft(memoryview(chunk)[room:])
                chunk = memoryview(chunk)[:room]
            pieces.append(chunk)
            size += len(chunk)
        self.queued -= size
        last = self.ending and not queue
        data = pieces[0] if len(pieces) == 1 and isinstance(pieces[0], bytes) else b"".join(pieces)
        return data, last

    def sent(self, last: bool) -> None:
        """Go on where something was sent, and maybe the end."""
        if self.breaking and not self.queue:
            self.abort()
        elif last:
            self.end_sent = True
            if self.closing:
                self.settle()
        if self.writing_paused and self.queued <= LOW_WATER and not self.over:
            self.writing_paused = False
            self.protocol.resume_writing()

    def feed(self, data: bytes, whole: bool) -> None:
        """Take what came, and whether nothing follows."""
        self.whole = whole
        if self.over:
            return
        if self.closing:
            self.carrier.acknowledge(self, len(data))
            if whole and self.end_sent:
                self.settle()
        elif self.paused or self.held or self.resuming:
            if data:
                self.held += data
        else:
            if data:
                self.deliver(data)
            if whole and not self.paused:
                self.deliver_end()

    def lose(self) -> None:
        """End: the client has reset the stream, or the connection is gone."""
        if not self.over:
            # Not now: the task that answers may not have begun, if the request came in the same read.
            self.end_soon()

    # -- inside

    def hand_on(self) -> None:
        """Hand on what was held back."""
        self.resuming = False
        while self.held and not self.paused and not self.over:
            data = bytes(self.held[:PIECE])
            del self.held[:PIECE]
            self.deliver(data)
        if self.whole and not self.held and not self.paused and not self.over:
            self.deliver_end()

    def deliver(self, data: bytes) -> None:
        """Hand on what came, and let the client send as much again; twice as much where it goes on and on."""
        self.taken += len(data)
        if self.taken >= self.window:
            self.window *= 2
            self.carrier.widen(self, self.window)
        self.carrier.acknowledge(self, len(data))
        self.protocol.data_received(data)

    def deliver_end(self) -> None:
        """Tell that nothing follows. A WebSocket ends with that, as a TCP connection would."""
        if not self.closing:
            self.protocol.eof_received()
            if self.tunnel:
                self.close()
        elif self.end_sent:
            self.settle()

    def settle(self) -> None:
        """End a stream that was closed, and whose end was sent, when the client's end is there."""
        if self.over:
            return
        # The client is waited for: browsers take a reset of a WebSocket for a failure, and do not try again, and others
        # do so of a request that is answered before its body is there. The deadline of the socket is the limit, then
        # there is a reset (RFC 9113 section 8.1).
        if self.whole:
            self.end_soon()

    def end_soon(self) -> None:
        """Tell the protocol in the next turn of the loop, as transports do."""
        self.over = True
        self.carrier.loop.call_soon(self.end)

    def end(self) -> None:
        """Tell the protocol that the stream has ended."""
        self.queue.clear()
        self.held.clear()
        self.queued = 0
        self.protocol.connection_lost(None)
        self.carrier.forget(self)


def is_stream(connection: Any) -> bool:
    """Tell whether a connection is one of the streams of another."""
    return isinstance(connection.transport, StreamTransport)
