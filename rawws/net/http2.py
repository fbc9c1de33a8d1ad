"""HTTP/2 on a socket: the streams of a connection to one write for all, each in its turn (RFC 9113 section 5.2).

Laws:
1. What is sent in one read, or in one turn of the loop, leaves in one write.
2. No more is taken from the streams than the peer's windows and its kernel take: what waits, waits where it can be told
   who is slow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .scheduling import StreamScheduler

if TYPE_CHECKING:
    import asyncio

    from rawws.protocol.http2 import Http2Endpoint
    from rawws.protocol.http2_streams import Http2Stream

    from .streams import StreamTransport
    from .websocket import WebSocket

__all__ = ["Http2Carrier"]

# The largest DATA frame, and how much is written at a time: a stream that is more urgent waits for no more than that.
FRAME_SIZE = 16384
WRITE_SIZE = 65536
# So many bytes of one write, before the others have a turn.
BURST = 524288


class Http2Carrier:
    """The half of a connection that sends. `key` of a stream is the core's `Http2Stream`, whose `owner` it is."""

    __slots__ = ("core", "corked", "loop", "scheduled", "scheduler", "socket")

    def __init__(self, core: Http2Endpoint, loop: asyncio.AbstractEventLoop) -> None:
        self.core = core
        self.loop = loop
        self.socket: WebSocket = None  # type: ignore[assignment]  # from `begin` on
        self.scheduler = StreamScheduler()
        # A read is processed; a write is due in the next turn of the loop.
        self.corked = self.scheduled = False

    # -- what a stream calls

    def schedule(self, stream: StreamTransport) -> None:
        """Send what waits on a stream when it is its turn."""
        self.scheduler.add(stream)
        self.flush_soon()

    def acknowledge(self, stream: StreamTransport, count: int) -> None:
        """Let the peer send so many bytes more."""
        self.core.acknowledge(stream.key, count)
        if self.core.pending():
            self.flush_soon()

    def extra(self, name: str) -> Any:
        """Return what the connection's transport knows under this name."""
        return self.socket.extra(name)

    # -- writing

    def flush_soon(self) -> None:
        """Write at the end of this read, or in the next turn of the loop."""
        if not self.corked and not self.scheduled:
            self.scheduled = True
            self.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what waits, as much as the peer takes, each stream in its turn."""
        self.scheduled = False
        socket, core = self.socket, self.core
        if socket.lost:
            return
        sent = 0
        while core.error is None and not socket.congested and sent < BURST:
            stream = self.scheduler.next()
            if stream is None:
                break
            sent += self.send_piece(stream)
            if core.pending() >= WRITE_SIZE:
                self.write()
            if core.send_window <= 0 and stream.is_queued:
                # Only ends and heads go out until the peer makes room.
                break
        self.write()
        if sent >= BURST:
            self.flush_soon()

    def send_piece(self, stream: StreamTransport) -> int:
        """Send a frame of a stream, and give it another turn if it has more; return how long it is."""
        core = self.core
        key: Http2Stream = stream.key
        if stream.over or not key.may_send():
            return 0
        room = min(FRAME_SIZE, core.sendable(key))
        if stream.queued and not room:
            # The window of the stream is closed: WindowOpened brings it back. That of the connection: it is the next.
            if core.send_window <= 0:
                self.scheduler.add(stream, again=True)
            return 0
        if not stream.queued and not stream.ending:
            stream.sent(False)
            return 0
        data, last = stream.take(room)
        core.send_data(key, data, last)
        if stream.queued or (stream.ending and not last):
            self.scheduler.add(stream, again=True)
        stream.sent(last)
        return len(data)

    def write(self) -> None:
        """Write the frames that there are."""
        chunks = self.core.data_to_send()
        if chunks and not self.socket.lost:
            self.socket.write(chunks if len(chunks) == 1 else [b"".join(chunks)])
