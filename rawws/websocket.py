"""WebSocket: what a handler holds: messages in and out, and the end of the connection.

Laws:
1. `send`, `ping`, `pong` and `close` act at once; awaiting what they return is allowed, and so is not awaiting it.
2. A message leaves the queue in the step that hands it over, so a cancelled `recv` loses none.
3. A handler that waits for a message is woken inside the read that brings it, where no task is running.
"""

from __future__ import annotations

import os
import uuid
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from .errors import ConnectionClosedOK, LocalProtocolError
from .protocol.connection import STATES, Phase, Pong, State
from .protocol.messages import Fragment
from .transport import Shared, Transport

if TYPE_CHECKING:
    import asyncio
    import logging
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Generator, Iterable
    from contextvars import Context

    from .errors import RemoteProtocolError
    from .protocol.connection import Connection
    from .protocol.http11 import Request, Response

__all__ = ["Later", "Settings", "WebSocket"]

# The queue of received messages, in bytes, with 64 for each message: reading stops above the first mark. What a peer can
# make this side hold is the queue, one read (256 KiB) and one message.
QUEUE_SIZE = 65536
MESSAGE_COST = 64
# A peer that broke the protocol has so many seconds to read the Close frame that says so, and no more: measured on
# peers, those that wait for the end of what comes are held for 20 to 30 s by one that goes on sending.
LINGER = 2.0


class Settings(Shared):
    """The options that the connections of one server, or of one client, share; times in seconds, 0 for none."""

    __slots__ = (
        "close_timeout",
        "connections",
        "hard_limit",
        "logger",
        "on_close",
        "on_drain",
        "on_message",
        "open_timeout",
        "ping_interval",
        "ping_timeout",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, logger: logging.Logger) -> None:
        super().__init__(loop)
        self.logger = logger
        self.connections: set[WebSocket] = set()
        self.on_message: Callable[[WebSocket, Any], object] | None = None
        self.on_close: Callable[[WebSocket, int, str], object] | None = None
        self.on_drain: Callable[[WebSocket], object] | None = None
        self.open_timeout = 10.0
        self.close_timeout = 10.0
        self.ping_interval = 20.0
        self.ping_timeout = 20.0
        self.hard_limit = 1 << 20


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
        context.run(callback, self)

    def wake_soon(self) -> None:
        """Run the task's next step in the loop's next turn."""
        callback = self.callback
        if callback is not None:
            self.callback = None
            self.loop.call_soon(callback, self, context=self.context)
            self.context = None


class Receiver:
    """What `recv()` and `async for` await; one object serves all the calls of a connection, for it holds no state."""

    __slots__ = ("iterates", "ws")

    def __init__(self, ws: WebSocket, iterates: bool) -> None:
        self.ws = ws
        self.iterates = iterates

    def __await__(self) -> Receiver:
        return self

    def __iter__(self) -> Receiver:
        return self

    def __next__(self) -> Waiter:
        ws = self.ws
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


class PendingPing:
    """A Ping whose Pong did not come yet."""

    __slots__ = ("future", "payload", "sent_at")

    def __init__(self, payload: bytes, sent_at: float, future: asyncio.Future[float] | None) -> None:
        self.payload = payload
        self.sent_at = sent_at
        self.future = future


class WebSocket(Transport):
    """A WebSocket connection.

    `async for message in ws` gives its messages, str for text and bytes for binary, until it is closed; it ends where
    the connection closed as agreed and raises ConnectionClosedError where it did not.
    """

    __slots__ = (
        "_id",
        "_iterator",
        "_receiver",
        "_request",
        "_state",
        "alive_at",
        "closed_waiters",
        "deadline",
        "drain_waiters",
        "held_messages",
        "last_buffered",
        "latency",
        "pinged_at",
        "pings",
        "queue",
        "queue_at",
        "queued",
        "reading_stream",
        "remote",
        "request_head",
        "response",
        "secure",
        "settings",
        "subprotocol",
        "task",
        "waiter",
    )

    def __init__(self, settings: Settings, opening: Any) -> None:
        super().__init__(settings, opening)
        self.settings = settings
        self.queue: list[Any] = []
        self.queue_at = 0
        self.queued = 0
        self.reading_stream = 0
        self.waiter: Waiter | None = None
        self._receiver: Receiver | None = None
        self._iterator: Receiver | None = None
        self.drain_waiters: list[asyncio.Future[None]] | None = None
        self.closed_waiters: list[asyncio.Future[None]] | None = None
        self.held_messages: list[tuple[Any, Any]] | None = None
        self.pings: list[PendingPing] | None = None
        self.task: asyncio.Task[Any] | None = None
        self.deadline = 0.0
        self.pinged_at = 0.0
        self.alive_at = 0.0
        self.last_buffered = 0
        # The latency in seconds that the last answered Ping measured; 0 before the first.
        self.latency = 0.0
        self.request_head = b""
        self._request: Request | None = None
        # The response of the opening handshake, on a client.
        self.response: Response | None = None
        self.subprotocol: str | None = None
        # What a trusted proxy says: the client's address, and whether it came by TLS.
        self.remote: Any = None
        self.secure: bool | None = None
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
        self.pinged_at = self.alive_at = self.settings.loop.time()

    # -- receiving

    def recv(self, decode: bool | None = None) -> Any:
        """Return an awaitable of the next message: str for text, bytes for binary.

        `decode` True makes text of a binary message, False bytes of a text message. A cancelled `recv` loses nothing.
        Raises ConnectionClosed after the last message, LocalProtocolError where another task waits already.
        """
        if self.waiter is not None and self.waiter.callback is not None:
            raise self.concurrent()
        if decode is not None:
            return Later(lambda: self.recv_as(decode))
        if self._receiver is None:
            self._receiver = Receiver(self, iterates=False)
        return self._receiver

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
            iterator = self._iterator = Receiver(self, iterates=True)
        return iterator

    async def recv_streaming(self, decode: bool | None = None) -> AsyncIterator[str | bytes]:
        """Give the next message in the parts in which it arrives, without holding it whole.

        `max_size` does not limit such a message, unless it is compressed. What is left of a message whose iteration is
        broken off is skipped. Raises ConnectionClosed as `recv` does.
        """
        self.connection.messages.streaming = True
        self.reading_stream = 1
        final = False
        try:
            while not final:
                part = await self.recv()
                final = True
                if isinstance(part, Fragment):
                    final = part.final
                    part = part.data
                if decode is not None and decode != isinstance(part, str):
                    part = part.decode() if decode else part.encode()
                yield part
        finally:
            self.reading_stream = 0 if final else 2
            if self.connection.messages.opcode == 0:
                self.connection.messages.streaming = False

    def has_message(self) -> bool:
        """Tell whether a message can be taken."""
        if self.queue_at < len(self.queue):
            return True
        if self.full:
            self.refill()
            return self.queue_at < len(self.queue)
        return False

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
        else:
            queue[at - 1] = None
            self.queue_at = at
        return message

    def refill(self) -> None:
        """Go on with what was read and not processed, and with reading."""
        self.full = False
        self.pump()
        if not self.full:
            if not self.corked:
                self.connection.keep_buffer()
            self.resume_reading()

    def wait(self, iterates: bool) -> Waiter:
        """Return what the current task yields to wait for a message; raise where none can come."""
        if self.connection.phase >= 2 or self.lost:
            error = self.connection.closed()
            if iterates and isinstance(error, ConnectionClosedOK):
                raise StopAsyncIteration
            raise error
        waiter = self.waiter
        if waiter is None:
            waiter = self.waiter = Waiter(self.settings.loop)
        elif waiter.callback is not None:
            raise self.concurrent()
        waiter._asyncio_future_blocking = True
        return waiter

    def concurrent(self) -> LocalProtocolError:
        """Return the error of a second task that wants to receive."""
        return LocalProtocolError("another task waits in recv already, allowed is one at a time")

    def on_message(self, message: Any) -> None:
        """Give a message to the callback, or put it into the queue."""
        if self.connection.phase != 0:
            return
        callback = self.settings.on_message
        if callback is not None:
            callback(self, message)
            return
        self.queue.append(message)
        self.queued += len(message) + MESSAGE_COST
        if self.queued > QUEUE_SIZE:
            self.full = True

    def on_event(self, event: Any) -> None:
        """Take a fragment, a Pong, or the peer's Close."""
        if isinstance(event, Fragment):
            if self.reading_stream == 2:
                self.reading_stream = 0 if event.final else 2
            elif self.connection.phase == 0:
                self.queue.append(event)
                self.queued += len(event.data) + MESSAGE_COST
                if self.queued > QUEUE_SIZE:
                    self.full = True
        elif isinstance(event, Pong):
            self.on_pong(event.payload)
        elif self.connection.phase == 3:
            # RFC 6455 7.1.1: "the server MUST close the TCP connection first": it "SHOULD be the server" that holds
            # TIME_WAIT. A client waits for that, until the deadline.
            self.set_deadline(self.settings.close_timeout)
            if not self.connection.masks:
                self.flush()
                self.transport.close()

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
        if text is not None or self.held_messages is not None or not isinstance(message, (str, bytes)):
            return self.send_other(message, text, compress)
        if self.congested:
            self.check_hard_limit()
        self.connection.send(message, compress)
        self.wrote()
        return Later(self.drain) if self.congested else DONE

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
            if self.connection.phase != 0:
                raise self.connection.closed()
            self.held_messages.append((message, compress))
            return Later(self.drain)
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
            if self.connection.phase == 0:
                for message, compress in held:
                    self.send(message, None, compress)
        await self.drain()

    def ping(self, data: str | bytes | None = None) -> Any:
        """Send a Ping at once; return an awaitable of the latency in seconds, once the Pong is there.

        `data` is at most 125 bytes, by default four random ones. Raises ConnectionClosed, also while waiting.
        """
        payload = control_payload(os.urandom(4) if data is None else data)
        if self.pings is not None and any(pending.payload == payload for pending in self.pings):
            raise LocalProtocolError(f"a ping with the data {payload!r} waits for its pong already")
        self.connection.ping(payload)
        self.wrote()
        pending = PendingPing(payload, self.settings.loop.time(), None)
        if self.pings is None:
            self.pings = []
        self.pings.append(pending)
        return Later(lambda: self.wait_pong(pending))

    async def wait_pong(self, pending: PendingPing) -> float:
        """Wait for a Pong."""
        if self.pings is not None and pending in self.pings:
            if self.lost:
                raise self.connection.closed()
            pending.future = self.settings.loop.create_future()
            await pending.future
            if self.lost and pending in (self.pings or ()):
                raise self.connection.closed()
        return pending.sent_at

    def on_pong(self, payload: bytes) -> None:
        """Answer those who wait for this Pong."""
        # RFC 6455 5.5.3: "A Pong frame sent in response to a Ping frame must have identical "Application data"". A peer
        # "MAY elect to send a Pong frame for only the most recently processed Ping frame": it answers the earlier ones.
        pings = self.pings or []
        for number, pending in enumerate(pings):
            if pending.payload == payload:
                now = self.settings.loop.time()
                self.latency = now - pending.sent_at
                for answered in pings[: number + 1]:
                    answered.sent_at = now - answered.sent_at
                    if answered.future is not None and not answered.future.done():
                        answered.future.set_result(answered.sent_at)
                self.pings = pings[number + 1 :] or None
                return

    def pong(self, data: str | bytes = b"") -> Any:
        """Send a Pong that nobody asked for, a heartbeat in one direction (RFC 6455 section 5.5.3)."""
        self.connection.pong(control_payload(data))
        self.wrote()
        return Later(self.drain) if self.congested else DONE

    async def drain(self) -> None:
        """Wait until the write buffer is under its low-water mark. Raises ConnectionClosed if the connection ends."""
        if self.congested and not self.lost:
            waiter: asyncio.Future[None] = self.settings.loop.create_future()
            if self.drain_waiters is None:
                self.drain_waiters = []
            self.drain_waiters.append(waiter)
            await waiter
            if self.lost:
                raise self.connection.closed()

    def drained(self) -> None:
        """Let those who wait in `drain` go on."""
        release(self.drain_waiters)
        self.drain_waiters = None
        if self.settings.on_drain is not None and self.connection is not None and not self.lost:
            try:
                self.settings.on_drain(self)
            except Exception as error:  # noqa: BLE001 - whatever a handler raises, it ends its own connection only
                self.on_handler_error(error)

    def check_hard_limit(self) -> None:
        """Disconnect a peer that reads so slowly that what waits for it is over the hard limit."""
        if self.connection.phase == 0 and self.buffered > self.settings.hard_limit:
            self.connection.fail(1013, f"slow consumer: over {self.settings.hard_limit} bytes wait to be sent")
            self.flush()
            self.set_deadline(self.settings.close_timeout)

    # -- closing

    def close(self, code: int = 1000, reason: str = "") -> Any:
        """Start the closing handshake at once; return an awaitable that waits for its end.

        Messages that come after this are dropped; those that came before can still be received. The connection is
        aborted if the peer does not answer within `close_timeout`. On a closed connection this does nothing.
        Raises LocalProtocolError for a code or a reason that may not be sent.
        """
        self.connection.close(code, reason)
        if self.connection.phase == 1:
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
        if not self.lost:
            self.transport.abort()

    def set_deadline(self, seconds: float) -> None:
        """Abort the connection so many seconds from now, or earlier where that was said before."""
        if seconds:
            deadline = self.settings.loop.time() + seconds
            if not self.deadline or deadline < self.deadline:
                self.deadline = deadline

    def on_failure(self, error: RemoteProtocolError) -> None:
        """Tell the peer what it did wrong, and end."""
        self.settings.logger.debug("%s broke the protocol: %s", self.remote_address, error)
        self.give_up()

    def give_up(self) -> None:
        """End a failed connection: its Close frame is sent, then the sending side, then all that comes is dropped."""
        self.flush()
        if not self.lost:
            # Closing with unread bytes resets the connection, and the reset may overtake the Close frame.
            if self.transport.can_write_eof():
                self.transport.write_eof()
            self.set_deadline(LINGER)
            self.full = False
            self.resume_reading()

    def on_handler_error(self, error: Exception) -> None:
        """Log what a handler raised, once, and close with 1011."""
        self.settings.logger.error("connection handler failed", exc_info=error)
        if self.connection.phase == 0:
            self.close(1011, "internal error")

    def on_lost(self) -> None:
        """Wake all who wait, and tell the handler."""
        self.settings.connections.discard(self)
        self.full = False
        if self.connection is not None:
            if self.waiter is not None:
                self.waiter.wake_soon()
            release([pending.future for pending in self.pings or () if pending.future is not None])
            if self.settings.on_close is not None:
                try:
                    self.settings.on_close(self, self.close_code, self.close_reason)
                except Exception:
                    self.settings.logger.exception("on_close failed")
        release(self.drain_waiters)
        release(self.closed_waiters)

    # -- the keepalive's look

    def look_after(self, now: float) -> None:
        """Do what is due at this time: end what is late, ping what is silent."""
        if self.deadline and now >= self.deadline:
            self.deadline = 0.0
            if self.connection is None:
                self.opening.expire()
            else:
                self.abort()
            return
        if self.connection is None or self.connection.phase != 0:
            return
        if self.seen or self.makes_progress():
            self.seen = False
            self.alive_at = now
        settings = self.settings
        # A peer that sends anything at all, or reads what waits for it, is alive, even if its Pong comes late behind a
        # large message.
        if self.pings is not None and settings.ping_timeout:
            if now - max(self.alive_at, self.pings[0].sent_at) >= settings.ping_timeout:
                self.connection.fail(1011, f"keepalive ping timeout: nothing came for {settings.ping_timeout:g} s")
                self.give_up()
                return
        if settings.ping_interval and now - self.pinged_at >= settings.ping_interval:
            self.pinged_at = now
            self.ping()

    def makes_progress(self) -> bool:
        """Tell whether the peer has taken some of what waited for it at the last look."""
        before = self.last_buffered
        self.last_buffered = self.buffered if self.transport_holds else 0
        return self.last_buffered < before

    # -- facts

    @property
    def ready_state(self) -> State:
        """CONNECTING, OPEN, CLOSING or CLOSED, as in browsers."""
        if self.lost:
            return State.CLOSED
        return State.CONNECTING if self.connection is None else STATES[Phase(self.connection.phase)]

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
    def id(self) -> uuid.UUID:
        """A unique name of the connection, for logs."""
        if self._id is None:
            self._id = uuid.uuid4()
        return self._id

    @property
    def request(self) -> Request | None:
        """The request of the opening handshake; parsed again when first asked for, for few ask and all would hold it."""
        if self._request is None and self.request_head:
            from .protocol.http11 import parse_request  # noqa: PLC0415

            self._request = parse_request(self.request_head)
        return self._request

    def respond(self, status: int, text: str) -> Response:
        """Return an HTTP response of this status with this text, for `process_request` to return."""
        from .responses import Response  # noqa: PLC0415

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
        if self.connection is None or not (self.lost or self.connection.phase):
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
