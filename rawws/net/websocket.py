"""WebSocket: what a handler holds: messages in and out, and the end of the connection.

Laws:
1. `send`, `ping`, `pong` and `close` act at once; awaiting what they return is allowed, and so is not awaiting it.
2. A message leaves the queue in the step that hands it over, so a cancelled `recv` loses none.
3. A handler that waits for a message is woken inside the read that brings it, where no task is running.
"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Any, Literal, overload

from rawws import clock
from rawws.errors import ConnectionClosed, ConnectionClosedOK, LocalProtocolError
from rawws.protocol import opcodes, phases
from rawws.protocol.connection import Pong
from rawws.protocol.messages import Fragment
from rawws.protocol.opcodes import CloseCode
from rawws.protocol.phases import State, state_of

from . import results
from .awaitables import DONE, Latency, PendingPing, Stream, later, raise_thrown, release
from .awaited import AwaitedBytes
from .deflating import INFLATED, PIECE_SIZE, Deflating
from .handshaken import HandshakenSocket
from .held_messages import HeldMessages
from .logs import request_line
from .prepared import control_payload, encode_part
from .rate import RateLimiter
from .socket import AsyncSocket
from .transports import close_transport
from .waking import Waiter

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterable, Coroutine, Generator, Iterable

    from rawws.errors import RemoteProtocolError
    from rawws.protocol.connection import Connection, ConnectionEvent

    from .awaitables import Started
    from .awaited import Claim
    from .interfaces import Follower, SocketHandler
    from .prepared import DataLike, PreparedMessage
    from .settings import Settings

__all__ = ["WebSocket"]

# The queue of received messages, in bytes, with 64 for each message: reading stops above this mark. What a peer can
# make this side hold is the queue, one read (256 KiB) and one message.
QUEUE_SIZE = 65536
MESSAGE_COST = 64
# How far the reading of a message in parts is: there is none; no part of it was taken yet; in the middle; broken off,
# and what is left of it skipped; the same, and then the next one in parts; broken off before its first part, joined.
NONE, WAITING, READING, SKIPPING, SKIPPING_FIRST, JOINING = range(6)
# A peer that broke the protocol has so many seconds to read the Close frame that says so, and no more: measured on
# peers, those that wait for the end of what comes are held for 20 to 30 s by one that goes on sending.
LINGER = 2.0
# Of `max_lifetime`, a tenth is left to chance: those that came together do not go together.
JITTER = 0.1
# The queue of those that had none yet: most callbacks never do.
NOTHING: list[Any] = []


class Receiver:
    """What `recv()` and `async for` await; it holds no state, so `async for` does with one for all messages."""

    __slots__ = ("iterates", "streams", "ws")

    def __init__(self, ws: WebSocket, iterates: bool, streams: bool) -> None:
        self.ws = ws
        self.iterates = iterates
        self.streams = streams

    def __await__(self) -> Generator[Waiter, None, str | bytes]:
        return self  # type: ignore[return-value]  # what asyncio needs of a generator it has

    def __iter__(self) -> Receiver:
        return self

    def __next__(self) -> Waiter:
        ws = self.ws
        if ws.stream != 0 and not self.streams:
            ws.end_stream()
        if ws.has_message() and (ws.queue_at == 0 or not ws.leaves_turn()):
            results.give(ws.take())
            raise StopIteration
        return ws.wait(self.iterates)

    def send(self, value: None) -> Waiter:  # noqa: ARG002 - with throw and close: what makes it a coroutine to asyncio
        """Go on."""
        return self.__next__()

    # A message that came stays in the queue.
    throw = staticmethod(raise_thrown)

    def close(self) -> None:
        """Do nothing."""


class WebSocket(HandshakenSocket):
    """A WebSocket connection.

    `async for message in ws` gives its messages, str for text and bytes for binary, until it is closed; it ends where
    the connection closed as agreed and raises ConnectionClosedError where it did not.
    """

    __slots__ = (
        "_iterator", "active_at", "active_since_sweep", "alive_at", "awaited", "deflating", "ending", "held_messages",
        "idle_timeout", "joined", "latency", "messages_paused", "opened_at", "pinged_at", "pings", "queue", "queue_at",
        "queued", "retires_at", "settings", "stream", "task", "turn_paused", "waiter",
    )  # fmt: skip

    def __init__(self, settings: Settings, handler: SocketHandler[WebSocket]) -> None:
        super().__init__(settings.shared, handler)
        self.settings = settings
        # Of a message in parts, what came of it; None where one was taken.
        self.queue = NOTHING
        self.queue_at = 0
        self.queued = 0
        self.stream = NONE
        self.waiter: Waiter | None = None
        self._iterator: Receiver | None = None
        self.joined: list[Any] | None = None  # of str, or of bytes; not empty
        self.held_messages: HeldMessages | None = None
        self.pings: list[PendingPing] | None = None
        self.task: asyncio.Task[None] | None = None
        # No more messages are taken before the next turn of the loop, or for longer.
        self.turn_paused = False
        self.messages_paused = False
        self.ending = False
        # What somebody waits for of what waits for the peer, from the first time on that it reads too slowly.
        self.awaited: AwaitedBytes | None = None
        # A large message is being compressed.
        self.deflating: Deflating | None = None
        self.opened_at = 0.0
        self.retires_at = 0.0
        self.pinged_at = 0.0
        self.alive_at = 0.0
        # How long no message may come; when the last one was seen to have come, and whether one came since.
        self.idle_timeout = 0.0
        self.active_at = 0.0
        self.active_since_sweep = False
        # The latency in seconds that the last answered Ping measured; 0 before the first.
        self.latency = 0.0

    def __repr__(self) -> str:
        return f"<rawws.WebSocket {self.ready_state.name} {self.remote_address}>"

    def open(self, connection: Connection) -> None:
        """Begin, after the opening handshake."""
        self.connection = connection
        connection.hold_pongs = self.congested
        if connection.deflate is not None:
            connection.deflate.piece_size = PIECE_SIZE
        self.handler = None
        self.deadline = 0.0
        self.opened_at = self.pinged_at = self.alive_at = self.last_sent_at = clock.monotonic()
        if self.settings.max_lifetime:
            seconds = self.settings.max_lifetime * random.uniform(1 - JITTER, 1)  # noqa: S311 - no secret
            self.retires_at = self.opened_at + seconds
        if self.settings.message_rate or self.settings.byte_rate:
            self.rate_limiter = RateLimiter(self.settings.message_rate, self.settings.byte_rate)

    def check_open(self) -> None:
        """Raise LocalProtocolError before the opening handshake is done, RuntimeError in another thread."""
        self.shared.check()
        if self.handler is not None:
            raise LocalProtocolError("the opening handshake is not done yet")

    def limit(
        self,
        *,
        max_size: int | None = None,
        max_frame_size: int | None = None,
        text_only: bool = False,
        idle_timeout: float | None = None,
        max_lifetime: float | None = None,
    ) -> None:
        """Have limits hold for this connection that do not hold for all of a server; None for as it was.

        A message over `max_size` bytes or a frame over `max_frame_size` closes it with 1009, with `text_only` a binary
        message with 1003. Where no message came for `idle_timeout` seconds, whatever came of Pings, it closes with
        1001; so it does `max_lifetime` seconds after its begin, less up to a tenth by chance, busy or not. Both are
        looked at once a second. Raises ValueError for sizes below 0 and times of 0 and less.
        """
        self.check_open()
        for name, seconds in (("idle_timeout", idle_timeout), ("max_lifetime", max_lifetime)):
            if seconds is not None and not seconds > 0:
                raise ValueError(f"{name} is {seconds} seconds, allowed are times above 0, or None")
        self.connection.limit(max_size, max_frame_size, text_only)
        if idle_timeout is not None:
            self.idle_timeout = idle_timeout
            self.active_at = clock.monotonic()
        if max_lifetime is not None:
            self.retires_at = self.opened_at + max_lifetime * random.uniform(1 - JITTER, 1)  # noqa: S311 - no secret

    def touch(self) -> None:
        """Count as active for `idle_timeout`, as if a message had come."""
        self.active_since_sweep = True

    # -- receiving

    @overload
    def recv(self, decode: None = None) -> Coroutine[Any, Any, str | bytes]: ...

    @overload
    def recv(self, decode: Literal[True]) -> Coroutine[Any, Any, str]: ...

    @overload
    def recv(self, decode: Literal[False]) -> Coroutine[Any, Any, bytes]: ...

    @overload
    def recv(self, decode: bool | None) -> Coroutine[Any, Any, str | bytes]: ...

    def recv(self, decode: bool | None = None) -> object:
        """Return an awaitable of the next message: str for text, bytes for binary.

        `decode` True makes text of a binary message, False bytes of a text message. A cancelled `recv` loses nothing.
        Raises ConnectionClosed after the last message, LocalProtocolError where another task waits already.
        """
        self.check_open()
        if self.waiter is not None and self.waiter.callback is not None:
            raise self.concurrent()
        if decode is not None:
            return later(lambda: self.recv_as(decode))
        return Receiver(self, iterates=False, streams=False)

    async def recv_as(self, decode: bool) -> str | bytes:
        """Return the next message as str or bytes."""
        message = await self.recv()
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

    def begin_stream(self) -> Receiver:
        """Have the next message come in parts, unless it is here already; return what to await for each."""
        if self.waiter is not None and self.waiter.callback is not None:
            raise self.concurrent()
        if self.stream != WAITING:
            self.end_stream()
            if self.stream == SKIPPING:
                self.stream = SKIPPING_FIRST
            elif self.stream == NONE and not self.has_message():
                self.stream = WAITING
                self.connection.messages.streaming = True
        return Receiver(self, iterates=False, streams=True)

    def took_part(self, final: bool) -> None:
        """Expect the next part of this message, or after the last part the next message."""
        self.stream = NONE if final else READING

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
        parts = self.joined or []
        parts.append(part)
        self.queued += len(part)
        limit = self.connection.messages.max_size
        if self.queued > limit:
            self.fail(CloseCode.MESSAGE_TOO_BIG, f"message is over {limit} bytes, the limit")
        elif final:
            message = part[:0].join(parts)
            self.joined = None
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
        if (self.turn_paused or self.messages_paused) and self.connection.phase == phases.OPEN:
            return
        self.full = False
        self.pump()
        if self.connection.phase >= phases.CLOSE_RECEIVED and not self.corked:
            self.settings.loop.call_soon(self.on_end)
        if not self.full:
            if not self.corked:
                self.connection.keep_buffer()
            self.resume_reading()

    def pause_messages(self) -> None:
        """Hand no more messages to the callback, and leave what comes to the peer, until `resume_messages`."""
        self.messages_paused = self.full = True
        if not self.corked:
            self.pause_reading()

    def resume_messages(self) -> None:
        """Hand on messages again."""
        if self.messages_paused and not self.lost:
            self.messages_paused = False
            self.refill()

    def account(self, messages: int, octets: int) -> None:
        """Count received messages and bytes, and pause reading if they exceed the rate."""
        if (
            self.rate_limiter is not None
            and self.connection.phase == phases.OPEN
            and self.rate_limiter.account(messages, octets)
        ):
            self.turn_paused = self.full = True

    def pause_turn(self) -> None:
        """Take no more in this turn of the loop."""
        self.full = True
        if not self.turn_paused:
            self.turn_paused = True
            self.shared.turn.wait(self.resume_turn)

    def resume_turn(self) -> None:
        """Take what comes again, unless the peer is too fast still."""
        if self.lost or (self.rate_limiter is not None and self.rate_limiter.resume_at > clock.monotonic()):
            return
        self.turn_paused = False
        self.turn_bytes = 0
        # Once it closes, nobody need take what is in the queue; the peer's Close is behind what is left to read.
        if self.full and (not self.has_message() or self.connection.phase != phases.OPEN):
            self.refill()
            self.wake()

    def leaves_turn(self) -> bool:
        """Take what is in the queue in the next turn of the loop, if this one has its work; tell whether it has."""
        if not self.shared.turn.is_over():
            return False
        self.shared.turn.wait(self.wake)
        return True

    def wait(self, iterates: bool) -> Waiter:
        """Return what the current task yields to wait for a message; raise where none can come."""
        if self.handler is not None:
            self.check_open()
        if (self.connection.phase >= phases.CLOSE_RECEIVED or self.lost) and not self.has_message():
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

    def on_message(self, message: str | bytes) -> None:
        """Give a message to the callback, or put it into the queue."""
        if self.connection.phase != phases.OPEN:
            return
        self.active_since_sweep = True
        if self.rate_limiter is not None:
            self.account(1, 0)
        self.turn_bytes += len(message)
        callback = self.settings.on_message
        if callback is not None:
            try:
                callback(self, message)
            except Exception as error:  # noqa: BLE001 - whatever a handler raises, it ends its own connection only
                # What follows the message is still read: the peer's Close may be in it.
                self.on_handler_error(error)
            return
        self.put(message, len(message))

    def put(self, item: Any, size: int) -> None:
        """Put a message of this size, or a fragment, into the queue."""
        if self.queue is NOTHING:
            self.queue = []
        self.queue.append(item)
        self.queued += size + MESSAGE_COST
        self.full = self.full or self.queued > QUEUE_SIZE

    def on_event(self, event: ConnectionEvent) -> None:
        """Take a fragment, a Pong, or note of a piece of a large message."""
        if self.connection.messages.inflating:
            self.shared.turn.spend(INFLATED)
            self.pause_turn()
        if isinstance(event, Fragment):
            self.active_since_sweep = True
            if self.stream == SKIPPING or self.stream == SKIPPING_FIRST:
                if event.final:
                    self.connection.messages.streaming = self.stream == SKIPPING_FIRST
                    self.stream = WAITING if self.stream == SKIPPING_FIRST else NONE
            elif self.stream == JOINING:
                self.join_part(event.data, event.final)
            elif self.connection.phase == phases.OPEN:
                self.put(event, len(event.data))
        elif isinstance(event, Pong):
            self.on_pong(event.payload)

    def wake(self) -> None:
        """Let the task that waits for a message take it, here and now."""
        waiter = self.waiter
        if waiter is not None and waiter.callback is not None:
            if self.queue_at < len(self.queue) or self.connection.phase >= phases.CLOSE_RECEIVED:
                waiter.wake()

    # -- sending

    def send(
        self,
        message: DataLike | Iterable[DataLike] | AsyncIterable[DataLike],
        text: bool | None = None,
        compress: bool | None = None,
    ) -> Started[None]:
        """Send a message at once: str as text, bytes-like as binary. Return an awaitable.

        Awaiting it waits until the write buffer is under its low-water mark. `text` True sends bytes as text, False
        sends str as binary. `compress` overrides the threshold of permessage-deflate. An iterable or asynchronous
        iterable of str or of bytes goes out as one fragmented message (the asynchronous one must be awaited).
        Raises ConnectionClosed once it is closed or closing, TypeError for other types, RuntimeError in another thread.
        """
        if self.handler is not None or not self.shared.is_here():
            self.check_open()
        if text is not None or self.held_messages is not None or not isinstance(message, (str, bytes)):
            return self.send_other(message, text, compress)
        start = self.check_hard_limit() if self.congested else 0
        self.connection.send(message, compress)
        self.wrote()
        return self.written(start) if self.congested or self.connection.backlog is not None else DONE

    def written(self, start: int) -> Started[None]:
        """Return what `send` does, where what was written from `start` on waits, or is being compressed."""
        if self.deflating is not None:
            self.deflating.keep(self.claim(start))
        elif self.connection.backlog is not None:
            self.deflating = Deflating(self, self.settings.loop)
        else:
            return self.drain_later(start)
        return later(self.deflating.drain)

    def on_deflated(self) -> None:
        """Go on where all that was sent is compressed and written: with the end, if that is due."""
        self.deflating = None
        if self.connection.phase >= phases.CLOSE_RECEIVED:
            self.on_end()

    def send_prepared(self, prepared: PreparedMessage) -> None:
        """Send a message that many connections get. Raises as `send` does."""
        connection = self.connection
        form = prepared.plain if connection.deflate is None else prepared.compressed(connection.deflate)
        if form is None or self.held_messages is not None or connection.masks:
            self.send(prepared.message)
            return
        if self.congested:
            self.check_hard_limit()
        if isinstance(form, bytes):
            connection.send_frames(form)
        else:
            connection.send_job(prepared.first, form)
        self.wrote()
        if connection.backlog is not None:
            self.written(0)

    def send_other(self, message: Any, text: bool | None, compress: bool | None) -> Started[None]:
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
            return self.held_messages.add(message, compress)
        if hasattr(message, "__await__"):
            raise TypeError(f"message is {type(message).__name__}, which is to be awaited first")
        if hasattr(message, "__aiter__"):
            return later(lambda: self.send_fragments(message, text))
        # A dict iterates over its keys, which is never what was meant.
        if hasattr(message, "__iter__") and not hasattr(message, "keys"):
            return self.send_parts(message, text)
        raise TypeError(
            f"message is {type(message).__name__}, allowed are str, bytes, bytearray, memoryview and iterables of them"
        )

    def send_parts(self, parts: Iterable[DataLike], text: bool | None) -> Started[None]:
        """Send an iterable as one message in fragments, at once."""
        if self.held_messages is not None:
            raise LocalProtocolError("another message in fragments is being sent, allowed is one at a time")
        encoded = [encode_part(part, text) for part in parts]
        if len({opcode for opcode, _ in encoded}) > 1:
            raise TypeError("the parts of a message are str and bytes, allowed is one kind")
        if not encoded:
            return DONE
        start = self.check_hard_limit() if self.congested else 0
        last = len(encoded) - 1
        for number, (opcode, payload) in enumerate(encoded):
            self.connection.send_fragment(opcodes.CONTINUATION if number else opcode, payload, number == last)
            self.wrote()
        return self.written(start) if self.congested or self.connection.backlog is not None else DONE

    async def send_fragments(self, parts: AsyncIterable[DataLike], text: bool | None) -> None:
        """Send an asynchronous iterable as one message in fragments; other messages wait for its end."""
        if self.held_messages is not None:
            raise LocalProtocolError("another message in fragments is being sent, allowed is one at a time")
        held = self.held_messages = HeldMessages(self)
        first = 0
        try:
            async for part in parts:
                opcode, payload = encode_part(part, text)
                if first and opcode != first:
                    raise TypeError("the parts of a message are str and bytes, allowed is one kind")
                start = self.bytes_written() if self.congested else 0
                self.connection.send_fragment(opcodes.CONTINUATION if first else opcode, payload, final=False)
                first = opcode
                self.wrote()
                if self.congested or self.connection.backlog is not None:
                    await self.written(start)
            if first:
                self.connection.send_fragment(opcodes.CONTINUATION, b"", final=True)
                self.wrote()
        except BaseException:
            # A message that stops in the middle cannot be taken back: the peer must not take it for whole.
            if first:
                self.close(CloseCode.INTERNAL_ERROR, "a message in fragments was broken off")
            raise
        finally:
            self.held_messages = None
            held.end()
        await self.drain()

    def ping(self, data: DataLike | None = None) -> Started[Latency]:
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
        self.pings = [*(self.pings or ()), pending]
        return later(lambda: self.wait_pong(pending))

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
                self.settings.measure(self.latency)
                for answered in pings[: number + 1]:
                    answered.latency = now - answered.sent_at
                    if answered.future is not None:
                        release([answered.future])
                self.pings = pings[number + 1 :] or None
                return

    def pong(self, data: DataLike = b"") -> Started[None]:
        """Send a Pong that nobody asked for, a heartbeat in one direction (RFC 6455 section 5.5.3)."""
        self.check_open()
        payload = control_payload(data)
        start = self.check_hard_limit() if self.congested else 0
        self.connection.pong(payload)
        self.wrote()
        return self.drain_later(start) if self.congested else DONE

    def drain_later(self, start: int) -> Started[None]:
        """Return an awaitable of `drain`; while somebody has it, what was written from `start` on counts as awaited."""
        claim = self.claim(start)
        return later(lambda: self.drain_claim(claim))

    async def drain_claim(self, claim: Claim) -> None:
        """Wait until the write buffer is under its low-water mark, for these bytes. Raises as `drain` does."""
        try:
            await self.drain()
        finally:
            claim.release()

    async def drain(self) -> None:
        """Wait until the write buffer is under its low-water mark. Raises ConnectionClosed if the connection ends."""
        if self.deflating is not None:
            await self.deflating.drain()
        elif self.congested:
            await self.wait_drained()
            if self.lost:
                raise self.connection.closed()

    def drained(self) -> None:
        """Let those who wait in `drain` go on."""
        AsyncSocket.drained(self)
        if self.settings.on_drain is not None and self.handler is None and not self.lost:
            try:
                self.settings.on_drain(self)
            except Exception as error:  # noqa: BLE001 - whatever a handler raises, it ends its own connection only
                self.on_handler_error(error)

    def check_hard_limit(self) -> int:
        """Disconnect a peer for which more waits, and nobody awaits, than the hard limit; return `bytes_written()`."""
        limit = self.settings.hard_limit
        if self.connection.phase == phases.OPEN and self.buffered > limit and self.unawaited > limit:
            self.fail(CloseCode.TRY_AGAIN_LATER, f"slow consumer: over {limit} bytes wait to be sent")
        return self.bytes_written()

    @property
    def unawaited(self) -> int:
        """How many of these bytes nobody waits for."""
        return self.buffered if self.awaited is None else self.buffered - self.awaited.waiting(self.bytes_taken())

    def bytes_written(self) -> int:
        """Return how many bytes were written here, whatever became of them."""
        return self.bytes_taken() + self.buffered

    def claim(self, start: int) -> Claim:
        """Count what was written from `start` on as awaited, for as long as somebody keeps what this returns."""
        if self.awaited is None:
            self.awaited = AwaitedBytes()
        return self.awaited.claim(max(start, self.bytes_taken()), self.bytes_written())

    # -- closing

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> Started[None]:
        """Start the closing handshake at once; return an awaitable that waits for its end.

        Messages that come after this are dropped; those that came before can still be received. The connection is
        aborted if the peer does not answer within `close_timeout`. On a closed connection this does nothing.
        Raises LocalProtocolError for a code or a reason that may not be sent.
        """
        self.check_open()
        self.connection.close(code, reason)
        if self.connection.phase == phases.CLOSE_DONE:
            self.on_end()
        elif self.connection.phase == phases.CLOSE_SENT:
            self.wrote()
            self.set_deadline(self.settings.close_timeout)
            if self.full:
                # What is left is dropped up to the peer's Close.
                self.refill()
        return later(self.wait_closed)

    def on_failure(self, error: RemoteProtocolError) -> None:
        """Log at level DEBUG how the peer broke the protocol."""
        self.settings.logger.debug("%s broke the protocol: %s", self.remote_address, error)

    def on_end(self) -> None:
        """Answer the peer's Close, or its violation of the protocol, and end the TCP connection."""
        connection = self.connection
        connection.settle()
        self.flush()
        if self.ending or self.lost or connection.backlog is not None:
            return
        self.ending = True
        if connection.phase == phases.FAILED:
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
        if code == CloseCode.TRY_AGAIN_LATER and self.settings.counters is not None:
            self.settings.counters.slow += 1
        self.connection.fail(code, reason)
        self.on_end()

    def on_handler_error(self, error: Exception) -> None:
        """Log what a handler raised, once, and close with 1011."""
        if isinstance(error, ConnectionClosed) and self.connection.phase != phases.OPEN:
            # It did not expect the end of its connection, which is no fault of it.
            return
        self.settings.logger.error("connection handler failed: %s", request_line(self.request), exc_info=error)
        if self.connection.phase == phases.OPEN:
            self.close(CloseCode.INTERNAL_ERROR, "internal error")

    def on_lost(self) -> None:
        """Wake all who wait, and tell the handler."""
        self.settings.connections.discard(self)
        self.full = False
        if self.deflating is not None:
            self.deflating.end()
            self.deflating = None
        # It holds the connection, which would be left, with its messages, to the garbage collector.
        self._iterator = None
        if self.handler is None:
            if self.waiter is not None:
                self.waiter.wake_soon()
            release([ping.future for ping in self.pings or () if ping.future is not None])
            if self.settings.on_close is not None:
                try:
                    self.settings.on_close(self, self.connection.closed().code, self.connection.closed().reason)
                except Exception:
                    self.settings.logger.exception("on_close failed: %s", request_line(self.request))
        if self.settings.counters is not None:
            self.settings.counters.close(self)
        if self.settings.admission is not None:
            self.settings.admission.leave(self)
        AsyncSocket.on_lost(self)

    def follow(self, follower: Follower) -> None:
        """Have `follower.drained()` called when the write buffer is under its low-water mark, `lost()` at the end."""
        self.check_open()
        if self.lost or self.connection.phase != phases.OPEN:
            raise self.connection.closed()
        AsyncSocket.follow(self, follower)

    # -- the keepalive's look

    def on_sweep(self, now: float) -> None:
        """Do what is due at this time: end what is late, ping what is silent."""
        if self.deadline and now >= self.deadline:
            self.expire()
            return
        if self.handler is not None or self.connection.phase != phases.OPEN:
            return
        # With a full queue nothing is read, and the Pong may be among it. What the peer reads is looked at only where
        # its answer is due.
        if self.received_since_sweep or self.full or (self.pings is not None and self.makes_progress()):
            self.received_since_sweep = False
            self.alive_at = now
        if self.retires_at and now >= self.retires_at:
            self.retire(now)
            return
        if self.idle_timeout:
            if self.active_since_sweep:
                self.active_since_sweep = False
                self.active_at = now
            elif now - self.active_at >= self.idle_timeout:
                self.close(CloseCode.GOING_AWAY, f"idle timeout: no message came for {self.idle_timeout:g} s")
                return
        if self.rate_limiter is not None and self.turn_paused:
            self.resume_turn()
            if self.connection.phase != phases.OPEN:
                return
        settings = self.settings
        # A peer that sends anything at all, or reads what waits for it, is alive, even if its Pong comes late behind a
        # large message.
        if self.pings is not None and settings.ping_timeout:
            if now - max(self.alive_at, self.pings[0].sent_at) >= settings.ping_timeout:
                self.fail(
                    CloseCode.INTERNAL_ERROR, f"keepalive ping timeout: nothing came for {settings.ping_timeout:g} s"
                )
                return
        if self.sent_since_sweep:
            self.sent_since_sweep = False
            self.last_sent_at = now
        # A connection with traffic both ways needs no Ping to show that it is alive, neither to its ends nor to the
        # proxies between; with traffic one way only it does, for a proxy may count each way by itself.
        quiet_since = max(self.pinged_at, min(self.alive_at, self.last_sent_at))
        if settings.ping_interval and now - quiet_since >= settings.ping_interval:
            self.pinged_at = now
            if self.congested:
                self.check_hard_limit()
            if self.connection.phase == phases.OPEN:
                self.ping()

    def retire(self, now: float) -> None:
        """Close a connection that is as old as it may be; one whose handler is busy has a tenth longer."""
        if self.is_idle() or now >= self.retires_at + JITTER * self.settings.max_lifetime:
            if self.settings.counters is not None:
                self.settings.counters.retired += 1
            self.close(CloseCode.GOING_AWAY, "max_lifetime is over, connect again")

    # -- facts

    def is_idle(self) -> bool:
        """Tell whether the handler waits for a message or for the end, and has taken all messages that came."""
        waits = self.waiter is not None and self.waiter.callback is not None
        return self.task is None or (not self.has_message() and (waits or bool(self.closed_waiters)))

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
        return State.CONNECTING if self.handler is not None else state_of(self.connection.phase)

    @property
    def close_code(self) -> int | None:
        """The close code (RFC 6455 section 7.1.5): 1006 without a Close frame, None while the connection is open."""
        if self.handler is not None or not (self.lost or self.connection.phase):
            return None
        return self.connection.closed().code if self.lost or self.connection.close_rcvd else None

    @property
    def close_reason(self) -> str | None:
        """The close reason (RFC 6455 section 7.1.6), None while the connection is open."""
        return None if self.close_code is None else self.connection.closed().reason
