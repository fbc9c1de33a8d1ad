"""WebSocket: what a handler holds: messages in and out, and the end of the connection.

Laws:
1. `send`, `ping`, `pong` and `close` act at once; awaiting what they return is allowed, and so is not awaiting it.
2. A message leaves the queue in the step that hands it over, so a cancelled `recv` loses none.
3. A handler that waits for a message is woken inside the read that brings it, where no task is running.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import random
import uuid
from collections.abc import Mapping
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from rawws import clock
from rawws.errors import ConnectionClosed, ConnectionClosedOK, LocalProtocolError
from rawws.protocol.connection import Pong, State, state_of
from rawws.protocol.frames import FrameWriter
from rawws.protocol.messages import Fragment

from .rate import Pace
from .socket import Transport, abort_transport, close_transport, shared

if TYPE_CHECKING:
    import asyncio
    import logging
    from collections.abc import AsyncIterable, Awaitable, Callable, Generator, Iterable
    from contextvars import Context

    from rawws.errors import RemoteProtocolError
    from rawws.protocol.connection import Connection
    from rawws.protocol.deflate import PerMessageDeflate
    from rawws.protocol.http11 import Request, Response

__all__ = ["Encoded", "Later", "Settings", "WebSocket", "broadcast"]

# The queue of received messages, in bytes, with 64 for each message: reading stops above this mark. What a peer can
# make this side hold is the queue, one read (256 KiB) and one message.
QUEUE_SIZE = 65536
MESSAGE_COST = 64
# How far the reading of a message in parts is: there is none; no part of it was taken yet; in the middle; broken off,
# and what is left of it skipped; the same, and then the next one in parts; broken off before its first part, joined.
NONE, WAITING, READING, SKIPPING, SKIPPING_FIRST, JOINING = range(6)
NO_PARAMS: Mapping[str, str] = MappingProxyType({})
# A peer that broke the protocol has so many seconds to read the Close frame that says so, and no more: measured on
# peers, those that wait for the end of what comes are held for 20 to 30 s by one that goes on sending.
LINGER = 2.0
# Of `max_lifetime`, so much is left to chance: a tenth.
JITTER = 0.1


class Settings:
    """The options that the connections of one server, or of one client, share; times in seconds, 0 for none."""

    __slots__ = (
        "byte_rate",
        "close_timeout",
        "connections",
        "gate",
        "hard_limit",
        "journal",
        "keepalive",
        "logger",
        "loop",
        "max_lifetime",
        "message_rate",
        "on_close",
        "on_drain",
        "on_message",
        "open_timeout",
        "ping_interval",
        "ping_timeout",
        "shared",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, logger: logging.Logger) -> None:
        self.loop = loop
        self.shared = shared(loop)
        self.logger = logger
        self.connections: set[WebSocket] = set()
        self.keepalive: Any = None
        # What a server counts.
        self.journal: Any = None
        # What counts its connections for each address.
        self.gate: Any = None
        self.on_message: Callable[[WebSocket, Any], object] | None = None
        self.on_close: Callable[[WebSocket, int, str], object] | None = None
        self.on_drain: Callable[[WebSocket], object] | None = None
        self.open_timeout = 10.0
        self.close_timeout = 10.0
        self.ping_interval = 20.0
        self.ping_timeout = 20.0
        self.hard_limit = 1 << 20
        self.max_lifetime = 0.0
        self.message_rate = 0.0
        self.byte_rate = 0.0

    def with_callbacks(self, handler: Any) -> Settings:
        """Return the same options, for the same connections, with the callbacks of a Handler."""
        settings = Settings(self.loop, self.logger)
        for name in ("connections", "gate", "journal", "keepalive", "hard_limit", "max_lifetime"):
            setattr(settings, name, getattr(self, name))
        for name in ("open_timeout", "close_timeout", "ping_interval", "ping_timeout", "message_rate", "byte_rate"):
            setattr(settings, name, getattr(self, name))
        settings.on_message = handler.on_message
        settings.on_close = handler.on_close
        settings.on_drain = handler.on_drain
        return settings


class Done:
    """An awaitable that has nothing to wait for; there is one."""

    __slots__ = ()

    def __await__(self) -> Done:
        return self

    def __iter__(self) -> Done:
        return self

    def __next__(self) -> None:
        raise StopIteration

    def send(self, value: None) -> None:  # noqa: ARG002 - with throw and close: what makes it a coroutine to asyncio
        """End."""
        raise StopIteration

    def throw(self, *error: Any) -> None:
        """Raise the error."""
        raise error[1] if len(error) > 1 and error[1] is not None else error[0]

    def close(self) -> None:
        """Do nothing."""


class Later:
    """An awaitable that calls `start` for what to wait for when it is awaited, and that nobody need await."""

    __slots__ = ("_iterator", "_start")

    def __init__(self, start: Callable[[], Awaitable[Any]]) -> None:
        self._start = start
        self._iterator: Generator[Any, None, Any] | None = None

    def __await__(self) -> Generator[Any, None, Any]:
        return self._start().__await__()

    def send(self, value: None) -> Any:
        """Go on, as a coroutine that asyncio made a task of."""
        if self._iterator is None:
            self._iterator = self._start().__await__()
        return self._iterator.send(value)

    def throw(self, *error: Any) -> Any:
        """Raise the error where the coroutine waits."""
        if self._iterator is None:
            self._iterator = self._start().__await__()
        return self._iterator.throw(*error)

    def close(self) -> None:
        """End the coroutine."""
        if self._iterator is not None:
            self._iterator.close()


class Waiter:
    """What a task that waits for a message yields: a future to the task, but one that is used again and again.

    asyncio takes for a future what has `_asyncio_future_blocking`; then it calls `get_loop`, `add_done_callback`,
    `cancel` and `result`.
    """

    __slots__ = ("_asyncio_future_blocking", "callback", "context", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._asyncio_future_blocking = False
        self.callback: Callable[[Any], object] | None = None
        self.context: Context | None = None

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop of the task that may wait."""
        return self.loop

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Context | None = None) -> None:
        """Remember how to wake the task."""
        self.callback = callback
        self.context = context

    def cancel(self, msg: Any = None) -> bool:  # noqa: ARG002 - the task keeps it
        """Wake the task, which raises its CancelledError itself: "False" means that it was not done here."""
        self.wake_soon()
        return False

    def result(self) -> None:
        """Return nothing: the task then looks for its message."""

    def wake(self) -> None:
        """Run the task's next step now. No other task may be running."""
        callback = self.callback
        context = self.context
        self.callback = None
        self.context = None
        if callback is not None and context is not None:
            context.run(callback, self)

    def wake_soon(self) -> None:
        """Run the task's next step in the loop's next turn."""
        callback = self.callback
        if callback is not None:
            self.callback = None
            self.loop.call_soon(callback, self, context=self.context)
            self.context = None


class Receiver:
    """What `recv()` and `async for` await; it holds no state, so `async for` does with one for all messages."""

    __slots__ = ("iterates", "streams", "ws")

    def __init__(self, ws: WebSocket, iterates: bool, streams: bool) -> None:
        self.ws = ws
        self.iterates = iterates
        self.streams = streams

    def __await__(self) -> Receiver:
        return self

    def __iter__(self) -> Receiver:
        return self

    def __next__(self) -> Waiter:
        ws = self.ws
        if ws.stream != 0 and not self.streams:
            ws.end_stream()
        if ws.has_message():
            raise StopIteration(ws.take())
        return ws.wait(self.iterates)

    def send(self, value: None) -> Waiter:  # noqa: ARG002 - with throw and close: what makes it a coroutine to asyncio
        """Go on."""
        return self.__next__()

    def throw(self, *error: Any) -> None:
        """Raise the error, for example that the waiting task is cancelled; a message that came stays in the queue."""
        raise error[1] if len(error) > 1 and error[1] is not None else error[0]

    def close(self) -> None:
        """Do nothing."""


class Stream:
    """What `recv_streaming()` returns: the parts of one message, each str or bytes."""

    __slots__ = ("_decode", "_decoder", "_receiver", "_started", "_ws")

    def __init__(self, ws: WebSocket, decode: bool | None) -> None:
        self._ws = ws
        self._decode = decode
        # A part of a binary message may end inside a character.
        self._decoder = codecs.getincrementaldecoder("utf-8")() if decode else None
        self._receiver: Receiver | None = None
        self._started = False

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> str | bytes:
        if not self._started:
            self._ws.begin_stream()
            self._receiver = Receiver(self._ws, iterates=False, streams=True)
            self._started = True
        while self._receiver is not None:
            part: Any = await self._receiver
            final = True
            if isinstance(part, Fragment):
                final = part.final
                self._ws.stream = NONE if final else READING
                part = part.data
            if final:
                self._receiver = None
            if self._decode is False and isinstance(part, str):
                part = part.encode()
            elif self._decoder is not None and isinstance(part, bytes):
                part = self._decoder.decode(part, final)
                if not part and not final:
                    continue
            return part  # type: ignore[no-any-return]
        raise StopAsyncIteration


class Latency(float):
    """A time in seconds. It may be awaited once more: what `await ws.ping()` gives in `websockets` is awaited, too."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, Latency]:
        yield from ()
        return self


class PendingPing:
    """A Ping whose Pong did not come yet: its `latency` is below 0 until then."""

    __slots__ = ("future", "latency", "payload", "sent_at")

    def __init__(self, payload: bytes, sent_at: float) -> None:
        self.payload = payload
        self.sent_at = sent_at
        self.latency = -1.0
        self.future: asyncio.Future[None] | None = None


class Encoded:
    """A message for many connections: framed once, and compressed once for all that share a compressor."""

    __slots__ = ("first", "frames", "message", "payload", "plain")

    def __init__(self, message: Any) -> None:
        """Take a str as text, bytes-like as binary. Raises TypeError for others, LocalProtocolError without UTF-8."""
        if isinstance(message, (bytearray, memoryview)):
            message = bytes(message)
        self.message = message
        if isinstance(message, str):
            try:
                self.payload = message.encode()
            except UnicodeEncodeError as error:
                raise LocalProtocolError(f"message has a lone surrogate at index {error.start}") from None
        elif isinstance(message, bytes):
            self.payload = message
        else:
            allowed = "str, bytes, bytearray and memoryview"
            raise TypeError(f"message is {type(message).__name__}, allowed are {allowed}")
        self.first = 0x81 if isinstance(message, str) else 0x82
        self.plain = frame(self.first, self.payload)
        self.frames: dict[Any, bytes] | None = None

    def compressed(self, deflate: PerMessageDeflate) -> bytes | None:
        """Return the frame for a connection with this extension, None where it must compress for itself."""
        if len(self.payload) < deflate.threshold:
            return self.plain
        if not deflate.shares:
            return None
        if self.frames is None:
            self.frames = {}
        found = self.frames.get(deflate.deflater)
        if found is None:
            # RFC 7692 7.2.1: the first frame of a compressed message has the "Per-Message Compressed" bit, rsv1.
            found = self.frames[deflate.deflater] = frame(self.first | 0x40, deflate.compress(self.payload))
        return found


def frame(first: int, payload: bytes) -> bytes:
    """Return one unmasked frame."""
    writer = FrameWriter()
    writer.write(first, payload, False, 0)
    return b"".join(writer.take())


class WebSocket(Transport):
    """A WebSocket connection.

    `async for message in ws` gives its messages, str for text and bytes for binary, until it is closed; it ends where
    the connection closed as agreed and raises ConnectionClosedError where it did not.
    """

    __slots__ = (
        "_id",
        "_iterator",
        "_request",
        "_state",
        "aborted",
        "alive_at",
        "closed_waiters",
        "deadline",
        "drain_waiters",
        "ending",
        "followers",
        "held_messages",
        "joined",
        "last_buffered",
        "latency",
        "opened_at",
        "path_params",
        "pinged_at",
        "pings",
        "queue",
        "queue_at",
        "queued",
        "remote",
        "request_head",
        "response",
        "resting",
        "retires_at",
        "secure",
        "settings",
        "spoke_at",
        "stream",
        "subprotocol",
        "task",
        "username",
        "waiter",
    )

    def __init__(self, settings: Settings, opening: Any) -> None:
        super().__init__(settings.shared, opening)
        self.settings = settings
        self.queue: list[Any] = []
        self.queue_at = 0
        self.queued = 0
        self.stream = NONE
        self.waiter: Waiter | None = None
        self._iterator: Receiver | None = None
        self.joined: list[Any] = []
        self.drain_waiters: list[asyncio.Future[None]] | None = None
        self.closed_waiters: list[asyncio.Future[None]] | None = None
        # Those who are told when the connection takes more, and when it is gone: the hubs that it is subscribed to.
        self.followers: list[Any] | None = None
        self.held_messages: list[tuple[Any, Any]] | None = None
        self.pings: list[PendingPing] | None = None
        self.task: asyncio.Task[Any] | None = None
        # No more messages are taken before the next turn of the loop, or for longer.
        self.resting = False
        self.ending = False
        self.aborted = False
        self.deadline = 0.0
        self.opened_at = 0.0
        self.retires_at = 0.0
        self.pinged_at = 0.0
        self.alive_at = 0.0
        self.spoke_at = 0.0
        self.last_buffered = 0
        # The latency in seconds that the last answered Ping measured; 0 before the first.
        self.latency = 0.0
        self.request_head = b""
        self._request: Request | None = None
        # The response of the opening handshake, on a client.
        self.response: Response | None = None
        self.subprotocol: str | None = None
        # Who this is, for `process_request` to say; a name of `websockets`.
        self.username: Any = None
        # What a trusted proxy says: the client's address, and whether it came by TLS.
        self.remote: Any = None
        self.secure: bool | None = None
        # What the path of its route has in braces.
        self.path_params: Mapping[str, str] = NO_PARAMS
        self._state: Any = None
        self._id: uuid.UUID | None = None

    def __repr__(self) -> str:
        return f"<rawws.WebSocket {self.ready_state.name} {self.remote_address}>"

    def open(self, connection: Connection) -> None:
        """Begin, after the opening handshake."""
        self.connection = connection
        connection.hold_pongs = self.congested
        self.opening = None
        self.deadline = 0.0
        self.opened_at = self.pinged_at = self.alive_at = self.spoke_at = clock.monotonic()
        if self.settings.max_lifetime:
            # Those that came together do not go together.
            share = random.uniform(1 - JITTER, 1)  # noqa: S311 - no secret
            self.retires_at = self.opened_at + self.settings.max_lifetime * share
        if self.settings.message_rate or self.settings.byte_rate:
            self.pace = Pace(self.settings.message_rate, self.settings.byte_rate)

    def check_open(self) -> None:
        """Raise LocalProtocolError before the opening handshake is done."""
        if self.opening is not None:
            raise LocalProtocolError("the opening handshake is not done yet")

    # -- receiving

    def recv(self, decode: bool | None = None) -> Any:
        """Return an awaitable of the next message: str for text, bytes for binary.

        `decode` True makes text of a binary message, False bytes of a text message. A cancelled `recv` loses nothing.
        Raises ConnectionClosed after the last message, LocalProtocolError where another task waits already.
        """
        self.check_open()
        if self.waiter is not None and self.waiter.callback is not None:
            raise self.concurrent()
        if decode is not None:
            return Later(lambda: self.recv_as(decode))
        return Receiver(self, iterates=False, streams=False)

    async def recv_as(self, decode: bool) -> str | bytes:
        """Return the next message as str or bytes."""
        message: str | bytes = await self.recv()
        if decode and isinstance(message, bytes):
            return message.decode()
        if not decode and isinstance(message, str):
            return message.encode()
        return message

    def __aiter__(self) -> WebSocket:
        return self

    def __anext__(self) -> Receiver:
        iterator = self._iterator
        if iterator is None:
            iterator = self._iterator = Receiver(self, iterates=True, streams=False)
        return iterator

    def recv_streaming(self, decode: bool | None = None) -> Stream:
        """Return an asynchronous iterator of the next message, in the parts in which it arrives.

        It is not held whole, so `max_size` does not limit it, unless it is compressed. What is left of a message whose
        iteration is broken off is skipped. Raises ConnectionClosed as `recv` does.
        """
        self.check_open()
        return Stream(self, decode)

    def begin_stream(self) -> None:
        """Have the next message come in parts, unless it is here already."""
        if self.waiter is not None and self.waiter.callback is not None:
            raise self.concurrent()
        if self.stream == WAITING:
            return
        self.end_stream()
        if self.stream == SKIPPING:
            self.stream = SKIPPING_FIRST
        elif self.stream == NONE and not self.has_message():
            self.stream = WAITING
            self.connection.messages.streaming = True

    def end_stream(self) -> None:
        """Skip what is left of a message in parts; one of which no part was taken can still be received whole."""
        if self.stream == WAITING:
            self.join()
        elif self.stream == SKIPPING_FIRST:
            self.stream = SKIPPING
        elif self.stream == READING:
            self.stream = SKIPPING
            while self.stream == SKIPPING and self.has_message():
                if self.take().final:
                    self.stream = NONE

    def join(self) -> None:
        """Make one message again of the parts in the queue, now or when the last one comes."""
        if self.queue_at == len(self.queue):
            self.connection.messages.streaming = False
            self.stream = NONE
            return
        parts = []
        for number in range(self.queue_at, len(self.queue)):
            parts.append(self.queue[number].data)
            if self.queue[number].final:
                self.queue[: number + 1] = [parts[0][:0].join(parts)]
                self.queue_at = 0
                self.stream = NONE
                return
        self.queue.clear()
        self.queue_at = 0
        self.queued = sum(map(len, parts))
        self.joined = parts
        self.stream = JOINING
        if self.full:
            self.refill()

    def join_part(self, part: Any, final: bool) -> None:
        """Take a part of a message that is joined."""
        self.joined.append(part)
        self.queued += len(part)
        if self.queued > self.connection.messages.max_size:
            self.fail(1009, f"message is over {self.connection.messages.max_size} bytes, the limit")
        elif final:
            message = part[:0].join(self.joined)
            self.joined = []
            self.queued = 0
            self.stream = NONE
            self.on_message(message)

    def has_message(self) -> bool:
        """Tell whether a message can be taken."""
        return self.queue_at < len(self.queue)

    def take(self) -> Any:
        """Take a message out of the queue."""
        queue = self.queue
        at = self.queue_at
        message = queue[at]
        at += 1
        if at == len(queue):
            queue.clear()
            self.queue_at = 0
            self.queued = 0
            if self.full:
                self.refill()
        else:
            queue[at - 1] = None
            self.queue_at = at
        return message

    def refill(self) -> None:
        """Go on with what was read and not processed, and with reading."""
        if self.resting and self.connection.phase == 0:
            return
        self.full = False
        self.pump()
        if self.connection.phase >= 2 and not self.corked:
            self.settings.loop.call_soon(self.on_end)
        if not self.full:
            if not self.corked:
                self.connection.keep_buffer()
            self.resume_reading()

    def spend(self, messages: int, octets: int) -> None:
        """Take note of what came, and take no more for a while where that was too fast."""
        if self.connection.phase == 0 and self.pace.spend(messages, octets):
            self.resting = self.full = True

    def rest(self) -> None:
        """Take no more in this turn of the loop."""
        if not self.resting:
            self.resting = self.full = True
            self.settings.loop.call_soon(self.go_on)

    def go_on(self) -> None:
        """Take what comes again, unless the peer is too fast still."""
        if self.lost or (self.pace is not None and self.pace.resume_at > clock.monotonic()):
            return
        self.resting = False
        self.given = 0
        if self.full and not self.has_message():
            self.refill()
            self.wake()

    def wait(self, iterates: bool) -> Waiter:
        """Return what the current task yields to wait for a message; raise where none can come."""
        if self.opening is not None:
            self.check_open()
        if self.connection.phase >= 2 or self.lost:
            # All that came before the end was taken: now this side's Close frame may go.
            self.connection.settle()
            if iterates and isinstance(self.connection.closed(), ConnectionClosedOK):
                raise StopAsyncIteration
            # A name for it would be a cycle by its traceback, and so keep the handler's last message.
            raise self.connection.closed()
        waiter = self.waiter
        if waiter is None:
            waiter = self.waiter = Waiter(self.settings.loop)
        elif waiter.callback is not None:
            raise self.concurrent()
        waiter._asyncio_future_blocking = True  # noqa: SLF001 - asyncio's name, on an object of ours
        return waiter

    def concurrent(self) -> LocalProtocolError:
        """Return the error of a second task that wants to receive."""
        return LocalProtocolError("another task waits in recv already, allowed is one at a time")

    def on_message(self, message: Any) -> None:
        """Give a message to the callback, or put it into the queue."""
        if self.connection.phase != 0:
            return
        if self.pace is not None:
            self.spend(1, 0)
        self.given += len(message)
        callback = self.settings.on_message
        if callback is not None:
            try:
                callback(self, message)
            except Exception as error:  # noqa: BLE001 - whatever a handler raises, it ends its own connection only
                # What follows the message is still read: the peer's Close may be in it.
                self.on_handler_error(error)
            return
        self.queue.append(message)
        self.queued += len(message) + MESSAGE_COST
        if self.queued > QUEUE_SIZE:
            self.full = True

    def on_event(self, event: Any) -> None:
        """Take a fragment or a Pong."""
        if isinstance(event, Fragment):
            if self.stream == SKIPPING or self.stream == SKIPPING_FIRST:
                if event.final:
                    self.connection.messages.streaming = self.stream == SKIPPING_FIRST
                    self.stream = WAITING if self.stream == SKIPPING_FIRST else NONE
            elif self.stream == JOINING:
                self.join_part(event.data, event.final)
            elif self.connection.phase == 0:
                self.queue.append(event)
                self.queued += len(event.data) + MESSAGE_COST
                if self.queued > QUEUE_SIZE:
                    self.full = True
        elif isinstance(event, Pong):
            self.on_pong(event.payload)

    def wake(self) -> None:
        """Let the task that waits for a message take it, here and now."""
        waiter = self.waiter
        if waiter is not None and waiter.callback is not None:
            if self.queue_at < len(self.queue) or self.connection.phase >= 2:
                waiter.wake()

    # -- sending

    def send(self, message: Any, text: bool | None = None, compress: bool | None = None) -> Any:
        """Send a message at once: str as text, bytes-like as binary. Return an awaitable.

        Awaiting it waits until the write buffer is under its low-water mark. `text` True sends bytes as text, False
        sends str as binary. `compress` overrides the threshold of permessage-deflate. An iterable or asynchronous
        iterable of str or of bytes goes out as one fragmented message (the asynchronous one must be awaited).
        Raises ConnectionClosed once the connection is closed or closing, TypeError for other types.
        """
        if self.opening is not None:
            self.check_open()
        if text is not None or self.held_messages is not None or not isinstance(message, (str, bytes)):
            return self.send_other(message, text, compress)
        if self.congested:
            self.check_hard_limit()
        self.connection.send(message, compress)
        self.wrote()
        return Later(self.drain) if self.congested else DONE

    def send_encoded(self, encoded: Encoded) -> None:
        """Send a message that many connections get. Raises as `send` does."""
        connection = self.connection
        octets = encoded.plain if connection.deflate is None else encoded.compressed(connection.deflate)
        if octets is None or self.held_messages is not None or connection.masks:
            self.send(encoded.message)
            return
        if self.congested:
            self.check_hard_limit()
        connection.send_frames(octets)
        self.wrote()

    def send_other(self, message: Any, text: bool | None, compress: bool | None) -> Any:
        """Send what is not simply a str or bytes, or not simply now."""
        if isinstance(message, (bytearray, memoryview)):
            message = bytes(message)
        if isinstance(message, (str, bytes)):
            if text is True and isinstance(message, bytes):
                message = message.decode()
            elif text is False and isinstance(message, str):
                message = message.encode()
            if self.held_messages is None:
                return self.send(message, None, compress)
            if not self.connection.may_send():
                raise self.connection.closed()
            self.held_messages.append((message, compress))
            return Later(self.drain)
        if hasattr(message, "__await__"):
            raise TypeError(f"message is {type(message).__name__}, which is to be awaited first")
        if hasattr(message, "__aiter__"):
            return Later(lambda: self.send_fragments(message, text))
        # A dict iterates over its keys, which is never what was meant.
        if hasattr(message, "__iter__") and not hasattr(message, "keys"):
            return self.send_parts(message, text)
        raise TypeError(
            f"message is {type(message).__name__}, allowed are str, bytes, bytearray, memoryview and iterables of them"
        )

    def send_parts(self, parts: Iterable[Any], text: bool | None) -> Any:
        """Send an iterable as one message in fragments, at once."""
        if self.held_messages is not None:
            raise LocalProtocolError("another message in fragments is being sent, allowed is one at a time")
        encoded = [encode_part(part, text) for part in parts]
        if len({opcode for opcode, _ in encoded}) > 1:
            raise TypeError("the parts of a message are str and bytes, allowed is one kind")
        if not encoded:
            return DONE
        if self.congested:
            self.check_hard_limit()
        last = len(encoded) - 1
        for number, (opcode, payload) in enumerate(encoded):
            self.connection.send_fragment(0 if number else opcode, payload, number == last)
            self.wrote()
        return Later(self.drain) if self.congested else DONE

    async def send_fragments(self, parts: AsyncIterable[Any], text: bool | None) -> None:
        """Send an asynchronous iterable as one message in fragments; other messages wait for its end."""
        if self.held_messages is not None:
            raise LocalProtocolError("another message in fragments is being sent, allowed is one at a time")
        self.held_messages = []
        first = 0
        try:
            async for part in parts:
                opcode, payload = encode_part(part, text)
                if first and opcode != first:
                    raise TypeError("the parts of a message are str and bytes, allowed is one kind")
                self.connection.send_fragment(0 if first else opcode, payload, final=False)
                first = opcode
                self.wrote()
                await self.drain()
            if first:
                self.connection.send_fragment(0, b"", final=True)
                self.wrote()
        except BaseException:
            # A message that stops in the middle cannot be taken back: the peer must not take it for whole.
            if first:
                self.close(1011, "a message in fragments was broken off")
            raise
        finally:
            held = self.held_messages
            self.held_messages = None
            if self.connection.may_send():
                for message, compress in held:
                    self.send(message, None, compress)
        await self.drain()

    def ping(self, data: str | bytes | None = None) -> Any:
        """Send a Ping at once; return an awaitable of the latency in seconds, once the Pong is there.

        `data` is at most 125 bytes, by default four random ones. Raises ConnectionClosed, also while waiting.
        """
        self.check_open()
        payload = control_payload(os.urandom(4) if data is None else data)
        if self.pings is not None and any(pending.payload == payload for pending in self.pings):
            raise LocalProtocolError(f"a ping with the data {payload!r} waits for its pong already")
        if self.congested:
            self.check_hard_limit()
        self.connection.ping(payload)
        self.wrote()
        pending = PendingPing(payload, clock.monotonic())
        if self.pings is None:
            self.pings = []
        self.pings.append(pending)
        return Later(lambda: self.wait_pong(pending))

    async def wait_pong(self, pending: PendingPing) -> Latency:
        """Wait for a Pong."""
        if pending.latency < 0 and not self.lost:
            pending.future = self.settings.loop.create_future()
            await pending.future
        if pending.latency < 0:
            raise self.connection.closed()
        return Latency(pending.latency)

    def on_pong(self, payload: bytes) -> None:
        """Answer those who wait for this Pong."""
        # RFC 6455 5.5.3: "A Pong frame sent in response to a Ping frame must have identical "Application data"". A peer
        # "MAY elect to send a Pong frame for only the most recently processed Ping frame": it answers the earlier ones.
        pings = self.pings or []
        for number, pending in enumerate(pings):
            if pending.payload == payload:
                now = clock.monotonic()
                self.latency = now - pending.sent_at
                for answered in pings[: number + 1]:
                    answered.latency = now - answered.sent_at
                    if answered.future is not None:
                        release([answered.future])
                self.pings = pings[number + 1 :] or None
                return

    def pong(self, data: str | bytes = b"") -> Any:
        """Send a Pong that nobody asked for, a heartbeat in one direction (RFC 6455 section 5.5.3)."""
        self.check_open()
        payload = control_payload(data)
        if self.congested:
            self.check_hard_limit()
        self.connection.pong(payload)
        self.wrote()
        return Later(self.drain) if self.congested else DONE

    async def drain(self) -> None:
        """Wait until the write buffer is under its low-water mark. Raises ConnectionClosed if the connection ends."""
        if self.congested:
            await self.wait_drained()
            if self.lost:
                raise self.connection.closed()

    async def wait_drained(self) -> None:
        """Wait until the write buffer is under its low-water mark, or the connection ends."""
        if self.congested and not self.lost:
            waiter: asyncio.Future[None] = self.settings.loop.create_future()
            if self.drain_waiters is None:
                self.drain_waiters = []
            self.drain_waiters.append(waiter)
            await waiter

    def drained(self) -> None:
        """Let those who wait in `drain` go on."""
        release(self.drain_waiters)
        self.drain_waiters = None
        for follower in self.followers or ():
            follower.drained()
        if self.settings.on_drain is not None and self.opening is None and not self.lost:
            try:
                self.settings.on_drain(self)
            except Exception as error:  # noqa: BLE001 - whatever a handler raises, it ends its own connection only
                self.on_handler_error(error)

    def check_hard_limit(self) -> None:
        """Disconnect a peer that reads so slowly that what waits for it is over the hard limit."""
        if self.connection.phase == 0 and self.buffered > self.settings.hard_limit:
            self.fail(1013, f"slow consumer: over {self.settings.hard_limit} bytes wait to be sent")

    # -- closing

    def close(self, code: int = 1000, reason: str = "") -> Any:
        """Start the closing handshake at once; return an awaitable that waits for its end.

        Messages that come after this are dropped; those that came before can still be received. The connection is
        aborted if the peer does not answer within `close_timeout`. On a closed connection this does nothing.
        Raises LocalProtocolError for a code or a reason that may not be sent.
        """
        self.check_open()
        self.connection.close(code, reason)
        if self.connection.phase == 4:
            self.on_end()
        elif self.connection.phase == 1:
            self.wrote()
            self.set_deadline(self.settings.close_timeout)
            if self.full:
                # What is left is dropped up to the peer's Close.
                self.refill()
        return Later(self.wait_closed)

    async def wait_closed(self) -> None:
        """Wait until the connection is closed, whoever closes it."""
        if not self.lost:
            waiter: asyncio.Future[None] = self.settings.loop.create_future()
            if self.closed_waiters is None:
                self.closed_waiters = []
            self.closed_waiters.append(waiter)
            await waiter

    def abort(self) -> None:
        """End the TCP connection now, without a closing handshake."""
        if self.transport is not None and not self.lost:
            self.aborted = True
            abort_transport(self.transport)

    def set_deadline(self, seconds: float) -> None:
        """Abort the connection so many seconds from now, or earlier where that was said before."""
        if seconds:
            deadline = clock.monotonic() + seconds
            if not self.deadline or deadline < self.deadline:
                self.deadline = deadline

    def on_failure(self, error: RemoteProtocolError) -> None:
        """Take note that the peer broke the protocol."""
        self.settings.logger.debug("%s broke the protocol: %s", self.remote_address, error)

    def on_end(self) -> None:
        """Answer the peer's Close, or its violation of the protocol, and end the TCP connection."""
        connection = self.connection
        connection.settle()
        self.flush()
        if self.ending or self.lost:
            return
        self.ending = True
        if connection.phase == 5:
            # Closing with unread bytes resets the connection, and the reset may overtake the Close frame: so the
            # sending side ends, and what comes is read and dropped for a while.
            self.end_writing()
            self.set_deadline(min(LINGER, self.settings.close_timeout or LINGER))
            self.full = False
            self.resume_reading()
        else:
            # RFC 6455 7.1.1: with the closing handshake done, the server closes the TCP connection first, so that it
            # holds TIME_WAIT; a client waits for that, until the deadline.
            self.set_deadline(self.settings.close_timeout)
            if not connection.masks:
                close_transport(self.transport)

    def fail(self, code: int, reason: str) -> None:
        """Fail the connection for a reason of this side."""
        if code == 1013 and self.settings.journal is not None:
            self.settings.journal.slow += 1
        self.connection.fail(code, reason)
        self.on_end()

    def on_handler_error(self, error: Exception) -> None:
        """Log what a handler raised, once, and close with 1011."""
        if isinstance(error, ConnectionClosed) and self.connection.phase != 0:
            # It did not expect the end of its connection, which is no fault of it.
            return
        self.settings.logger.error("connection handler failed", exc_info=error)
        if self.connection.phase == 0:
            self.close(1011, "internal error")

    def on_lost(self) -> None:
        """Wake all who wait, and tell the handler."""
        self.settings.connections.discard(self)
        self.full = False
        # It holds the connection, which would be left, with its messages, to the garbage collector.
        self._iterator = None
        if self.opening is None:
            if self.waiter is not None:
                self.waiter.wake_soon()
            release([ping.future for ping in self.pings or () if ping.future is not None])
            if self.settings.on_close is not None:
                try:
                    self.settings.on_close(self, self.connection.closed().code, self.connection.closed().reason)
                except Exception:
                    self.settings.logger.exception("on_close failed")
        if self.settings.journal is not None:
            self.settings.journal.close(self)
        if self.settings.gate is not None:
            self.settings.gate.leave(self)
        followers, self.followers = self.followers, None
        for follower in followers or ():
            follower.lost()
        release(self.drain_waiters)
        release(self.closed_waiters)

    def follow(self, follower: Any) -> None:
        """Have `follower.drained()` called when the write buffer is under its low-water mark, `lost()` at the end."""
        self.check_open()
        if self.lost or self.connection.phase != 0:
            raise self.connection.closed()
        self.followers = [*(self.followers or ()), follower]

    def unfollow(self, follower: Any) -> None:
        """Call it no more."""
        self.followers = [other for other in self.followers or () if other is not follower] or None

    # -- the keepalive's look

    def look_after(self, now: float) -> None:
        """Do what is due at this time: end what is late, ping what is silent."""
        if self.deadline and now >= self.deadline:
            self.deadline = 0.0
            if self.opening is not None:
                self.opening.expire()
            else:
                self.abort()
            return
        if self.opening is not None or self.connection.phase != 0:
            return
        # With a full queue nothing is read, and the Pong may be among it.
        if self.seen or self.full or self.makes_progress():
            self.seen = False
            self.alive_at = now
        if self.retires_at and now >= self.retires_at:
            self.retire(now)
            return
        if self.pace is not None and self.resting:
            self.go_on()
            if self.connection.phase != 0:
                return
        settings = self.settings
        # A peer that sends anything at all, or reads what waits for it, is alive, even if its Pong comes late behind a
        # large message.
        if self.pings is not None and settings.ping_timeout:
            if now - max(self.alive_at, self.pings[0].sent_at) >= settings.ping_timeout:
                self.fail(1011, f"keepalive ping timeout: nothing came for {settings.ping_timeout:g} s")
                return
        if self.spoke:
            self.spoke = False
            self.spoke_at = now
        # A connection with traffic both ways needs no Ping to show that it is alive, neither to its ends nor to the
        # proxies between; with traffic one way only it does, for a proxy may count each way by itself.
        quiet_since = max(self.pinged_at, min(self.alive_at, self.spoke_at))
        if settings.ping_interval and now - quiet_since >= settings.ping_interval:
            self.pinged_at = now
            if self.congested:
                self.check_hard_limit()
            if self.connection.phase == 0:
                self.ping()

    def retire(self, now: float) -> None:
        """Close a connection that is as old as it may be; one whose handler is busy has a tenth longer."""
        if self.is_idle() or now >= self.retires_at + JITTER * self.settings.max_lifetime:
            self.settings.journal.retired += 1
            self.close(1001, "max_lifetime is over, connect again")

    def makes_progress(self) -> bool:
        """Tell whether the peer has taken some of what waited for it at the last look."""
        before = self.last_buffered
        self.last_buffered = self.buffered if self.transport_holds else 0
        return self.last_buffered < before

    # -- facts

    def is_idle(self) -> bool:
        """Tell whether the handler waits for a message or for the end, and has taken all messages that came."""
        if self.task is None:
            return True
        waits = self.waiter is not None and self.waiter.callback is not None
        return not self.has_message() and (waits or bool(self.closed_waiters))

    @property
    def lifetime(self) -> float:
        """How many seconds the connection has in all, 0 for no limit."""
        return self.retires_at - self.opened_at if self.retires_at else 0.0

    def age(self) -> float:
        """Return for how many seconds there has been a WebSocket."""
        return clock.monotonic() - self.opened_at

    @property
    def hard_limit(self) -> int:
        """How many bytes may wait for the peer."""
        return self.settings.hard_limit

    @property
    def ready_state(self) -> State:
        """CONNECTING, OPEN, CLOSING or CLOSED, as in browsers."""
        if self.lost:
            return State.CLOSED
        return State.CONNECTING if self.opening is not None else state_of(self.connection.phase)

    @property
    def state(self) -> Any:
        """A place for the application's own data on this connection: an empty namespace, or what is assigned."""
        if self._state is None:
            self._state = SimpleNamespace()
        return self._state

    @state.setter
    def state(self, value: Any) -> None:
        self._state = value

    @property
    def sent_request(self) -> Request | None:
        """The request of the opening handshake, on a client."""
        return self._request

    @sent_request.setter
    def sent_request(self, request: Request) -> None:
        self._request = request

    @property
    def id(self) -> uuid.UUID:
        """A unique name of the connection, for logs."""
        if self._id is None:
            self._id = uuid.uuid4()
        return self._id

    @property
    def request(self) -> Request | None:
        """The request of the opening handshake, parsed again when first asked for: few ask, and all would hold it."""
        if self._request is None and self.request_head:
            from rawws.protocol.http11 import parse_request  # noqa: PLC0415

            self._request = parse_request(self.request_head)
        return self._request

    def respond(self, status: int, text: str) -> Response:
        """Return an HTTP response of this status with this text, for `process_request` to return."""
        from rawws.http.responses import Response  # noqa: PLC0415

        return Response(status, text)

    @property
    def remote_address(self) -> Any:
        """The address of the peer, or of the client that a trusted proxy named: a tuple, or a str for a unix socket."""
        return self.remote if self.remote is not None else self.extra("peername")

    @property
    def local_address(self) -> Any:
        """The address of this side."""
        return self.extra("sockname")

    def extra(self, name: str) -> Any:
        """Return what the transport knows under this name, None once it is gone."""
        return None if self.transport is None else self.transport.get_extra_info(name)

    @property
    def close_code(self) -> int | None:
        """The close code (RFC 6455 section 7.1.5): 1006 without a Close frame, None while the connection is open."""
        if self.opening is not None or not (self.lost or self.connection.phase):
            return None
        return self.connection.closed().code if self.lost or self.connection.close_rcvd else None

    @property
    def close_reason(self) -> str | None:
        """The close reason (RFC 6455 section 7.1.6), None while the connection is open."""
        return None if self.close_code is None else self.connection.closed().reason


def release(waiters: list[asyncio.Future[Any]] | None) -> None:
    """Let those who wait go on; they look for themselves how it ended."""
    for waiter in waiters or ():
        if not waiter.done():
            waiter.set_result(None)


def broadcast(connections: Iterable[Any], message: Any) -> None:
    """Send a message to many connections at once, without waiting for any; those that are not open are skipped.

    Among the connections may be EventStreams: they take a str as the data of an event, and Events. One that reads too
    slowly delays no other: it is closed, a WebSocket with 1013, when over `hard_limit` bytes wait for it. Raises
    TypeError for what is no message.
    """
    encoded: Encoded | None = None
    for receiver in tuple(connections):
        if not isinstance(receiver, WebSocket):
            if not receiver.closed:
                receiver.send(message)
        elif receiver.opening is None and receiver.connection.phase == 0:
            if encoded is None:
                encoded = Encoded(message)
            # The hard limit may close it in the call.
            with contextlib.suppress(ConnectionClosed):
                receiver.send_encoded(encoded)


def encode_part(part: Any, text: bool | None) -> tuple[int, bytes]:
    """Return the opcode and the payload of a part of a message."""
    if isinstance(part, str):
        return 2 if text is False else 1, part.encode()
    if isinstance(part, (bytes, bytearray, memoryview)):
        return 1 if text is True else 2, bytes(part)
    raise TypeError(f"a part of a message is {type(part).__name__}, allowed are str, bytes, bytearray and memoryview")


def control_payload(data: str | bytes) -> bytes:
    """Return the payload of a Ping or Pong."""
    if not isinstance(data, (str, bytes, bytearray, memoryview)):
        raise TypeError(f"data is {type(data).__name__}, allowed are str, bytes, bytearray and memoryview")
    payload = data.encode() if isinstance(data, str) else bytes(data)
    # RFC 6455 5.5: "All control frames MUST have a payload length of 125 bytes or less".
    if len(payload) > 125:
        raise LocalProtocolError(f"control frame payload is {len(payload)} bytes, limit 125")
    return payload


DONE = Done()
