"""HTTP/2 on a socket: one read to the streams of a connection, and those to one write, each in its turn (RFC 9113 5.2).

Laws:
1. What is sent in one read, or in one turn of the loop, leaves in one write.
2. No more is taken from the streams than the peer's windows and its kernel take: what waits, waits where it can be told
   who is slow.
3. What is read is processed for a few ms at a time; then others have their turn.
4. What comes on a tunnel in several frames, one behind the other, is handed on at once: browsers send each message of a
   WebSocket in a frame of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from rawws import clock
from rawws.errors import Http2Error
from rawws.protocol.http2_events import DataReceived

from .scheduling import StreamScheduler
from .streams import StreamTransport

if TYPE_CHECKING:
    import asyncio

    from rawws.protocol.http2 import Http2Endpoint
    from rawws.protocol.http2_events import Http2Event
    from rawws.protocol.http2_streams import Http2Stream

    from .websocket import WebSocket

__all__ = ["Http2Carrier", "stream_of"]

# The largest DATA frame, and how much is written at a time: a stream that is more urgent waits for no more than that.
FRAME_SIZE = 16384
WRITE_SIZE = 65536
# So many bytes of one write, before the others have a turn.
BURST = 524288
# So many events of one read, before the others have a turn; an event that is `large` is as much as so many.
BATCH = 1024
LARGE = 32
# What comes on a tunnel in larger frames is not gathered: to copy it would cost more than it saves.
GATHERED = 1024


class Http2Carrier:
    """What a connection does in both roles. `key` of a stream is the core's `Http2Stream`, whose `owner` it is."""

    __slots__ = (
        "core", "corked", "elapsed_at", "gathered", "gathering", "loop", "over", "scheduled", "scheduler", "socket",
        "waiting",
    )  # fmt: skip

    large: ClassVar[tuple[type[Http2Event], ...]] = ()

    def __init__(self, core: Http2Endpoint, loop: asyncio.AbstractEventLoop) -> None:
        self.core = core
        self.loop = loop
        self.socket: WebSocket = None  # type: ignore[assignment]  # from `begin` on
        self.scheduler = StreamScheduler()
        # What came on a tunnel, and is not handed on yet.
        self.gathering: Http2Stream | None = None
        self.gathered: list[bytes] = []
        # A read is processed; a write is due in the next turn of the loop.
        self.corked = self.scheduled = False
        self.elapsed_at = clock.monotonic()
        # Others have their turn before more is read.
        self.waiting = False
        # All is said; what comes is dropped.
        self.over = False

    # -- what each role does

    def handle(self, event: Http2Event) -> None:
        """Do what an event asks for."""
        raise NotImplementedError

    def break_off(self, error: Http2Error) -> None:
        """End a connection whose peer broke the protocol."""
        raise NotImplementedError

    # -- what the socket calls

    @property
    def lasts(self) -> bool:
        """Whether it is told to go by itself: no, its streams are."""
        return False

    @property
    def kind(self) -> str:
        """What it is for."""
        return "http2"

    def receive(self, data: bytes) -> None:
        """Take what came."""
        if self.over:
            return
        now = clock.monotonic()
        self.core.elapse(now - self.elapsed_at)
        self.elapsed_at = now
        self.core.receive(data)
        self.process()

    def process(self) -> None:
        """Process what came, as much as this turn of the loop has room for; then write what that gave."""
        core, turn = self.core, self.socket.settings.shared.turn
        self.waiting = False
        if self.has_ended():
            return
        self.corked = True
        number = 0
        try:
            while (event := core.next_event()) is not None:
                number += LARGE if isinstance(event, self.large) else 1
                if isinstance(event, DataReceived):
                    self.receive_data(event)
                else:
                    self.hand_on()
                    self.handle(event)
                if number >= BATCH or turn.is_over():
                    self.waiting = True
                    break
            self.hand_on()
        except Http2Error as error:
            self.hand_on()
            self.socket.settings.logger.debug("%s broke the protocol: %s", self.socket.remote_address, error)
            self.break_off(error)
        finally:
            core.keep_buffer()
            self.corked = False
            self.flush()
        if self.has_ended():
            return
        if self.waiting:
            self.socket.pause_reading()
            turn.wait(self.process)
        elif self.socket.congested:
            # What asks for an answer and reads none (CVE-2019-9512, 9515) is not read either.
            self.socket.pause_reading()
        else:
            self.socket.resume_reading()

    def receive_data(self, event: DataReceived) -> None:
        """Take what came on a stream in one frame."""
        stream, data = event.stream, bytes(event.data)
        if self.gathering is not stream:
            self.hand_on()
        if stream.tunnel and not event.end_stream and len(data) <= GATHERED:
            self.gathering = stream
            self.gathered.append(data)
        else:
            self.hand_on()
            stream_of(stream).feed(data, event.end_stream)

    def hand_on(self) -> None:
        """Hand on what was gathered: before anything else happens."""
        if self.gathering is not None:
            stream, pieces = self.gathering, self.gathered
            self.gathering, self.gathered = None, []
            stream_of(stream).feed(pieces[0] if len(pieces) == 1 else b"".join(pieces), False)

    def has_ended(self) -> bool:
        """Tell whether nothing is sent any more, and what comes is dropped."""
        return self.over

    # -- the flow of the connection: a Follower

    def drained(self) -> None:
        """Go on: the peer has read what waited for it."""
        if not self.waiting:
            self.socket.resume_reading()
        self.flush_soon()

    def lost(self) -> None:
        """Do nothing: `lose` was called before."""

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


def stream_of(key: Http2Stream) -> StreamTransport:
    """Return the transport of a stream of the core."""
    assert isinstance(key.owner, StreamTransport)  # noqa: S101 - whoever began the stream has put it there
    return key.owner
