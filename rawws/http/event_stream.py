"""EventStream: events to a response that does not end (WHATWG HTML section 9.2, RFC 9112 section 7.1).

Laws:
1. An event leaves whole or not at all. What ends in the middle, ends without the last chunk, and the client reconnects.
2. `send` acts at once, as that of a WebSocket does: what is sent in one turn of the loop leaves in one system call.
3. An event that goes to many streams is encoded once: the last one is remembered.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from typing import TYPE_CHECKING, Any, final

from rawws import clock
from rawws.errors import ConnectionClosedError, LocalProtocolError
from rawws.net.awaitables import DONE, later, release
from rawws.net.cancellation import is_cancelled
from rawws.net.socket import HIGH_WATER
from rawws.net.threads import wrong_thread
from rawws.protocol.http11 import Headers
from rawws_sse import Event, encode

from .asgi import answer_asgi

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterable, Mapping

    from rawws.net.awaitables import Started
    from rawws.net.awaited import Claim
    from rawws.net.identity import Identity
    from rawws.net.interfaces import Follower

    from .asgi import AsgiReceive, AsgiScope, AsgiSend
    from .exchange import Exchange
    from .requests import HttpRequest

__all__ = ["EventStream"]

# Seconds of silence before a comment shows proxies, and the kernel, that the stream is alive: WHATWG HTML 9.2.7 names
# "every 15 seconds or so". The proxies' own limits are 60 (nginx, AWS), 55 (Heroku) and 100 (Cloudflare).
KEEPALIVE = 15.0
COMMENT = b":\n\n"
# After so many events of one producer the rest of the program has a turn, if nothing that it awaited gave it one.
BURST = 64
# What may be sent to a stream that no endpoint has returned yet, in bytes.
EARLY_LIMIT = 1 << 20
# What closes the iterators that were never begun: a loop holds its tasks weakly.
CLOSING: set[asyncio.Task[None]] = set()
# No proxy may store the stream, nor nginx hold it back until a buffer is full. Browsers read no other type.
HEAD = (
    ("Content-Type", "text/event-stream"),
    ("Cache-Control", "no-store"),
    ("X-Accel-Buffering", "no"),
    ("X-Content-Type-Options", "nosniff"),
)
# What the stream says itself: its type, and how it is sent.
OWN = ("Content-Type", "Content-Length", "Transfer-Encoding", "Connection")


@final
class EventStream:
    """A stream of Server-Sent Events, for an HTTP endpoint to return.

    With `events`, an asynchronous iterable of Events or of str, it sends those and ends; without, it stays open, and
    whoever holds it calls `send`. `retry` is what clients wait before they reconnect, in milliseconds. `on_close` is
    called with the stream when it is over, whoever ended it, and never from inside `send` or `close`. `headers` stand
    in the head of the response, in the place of ours of the same name (Cache-Control, X-Accel-Buffering,
    X-Content-Type-Options); ValueError for those that say how it is sent, LocalProtocolError for what cannot be sent.
    """

    __slots__ = (
        "_early",
        "_exchange",
        "_fields",
        "_followers",
        "_keepalive",
        "_maker",
        "_over",
        "_retry",
        "_source",
        "_task",
        "_waiters",
        "identity",
        "last_event_id",
        "on_close",
    )

    def __init__(
        self,
        events: AsyncIterable[Event | str] | None = None,
        *,
        retry: int | None = None,
        keepalive: float | None = KEEPALIVE,
        on_close: Callable[[EventStream], object] | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
    ) -> None:
        if events is not None and not hasattr(events, "__aiter__"):
            raise TypeError(f"events is {type(events).__name__}, allowed are an asynchronous iterable and None")
        if keepalive is not None and not keepalive > 0:
            raise ValueError(f"keepalive is {keepalive}, allowed are numbers above 0 and None")
        self.on_close = on_close
        self._fields = HEAD if not headers else fields_with(Headers(headers))
        # The id that the client says it got last, empty where it says none: from when the response begins on.
        self.last_event_id = ""
        # Who it is for, as `identify` of a hub said, or the application.
        self.identity: Identity | None = None
        self._source = events
        self._keepalive = keepalive or 0.0
        # The line that goes out with the first event, in its block.
        self._retry = b"" if retry is None else encode(Event(retry=retry))[:-1]
        # What was sent before there is a response, by the thread that made the stream.
        self._early: list[bytes] | None = []
        self._maker = threading.get_ident()
        self._exchange: Exchange | None = None
        self._over = False
        self._task: asyncio.Task[None] | None = None
        self._waiters: list[asyncio.Future[None]] | None = None
        self._followers: list[Follower] | None = None

    def __repr__(self) -> str:
        state = "over" if self._over else "waiting" if self._exchange is None else "open"
        return f"<rawws.EventStream {state}>"

    # -- what users call

    def send(
        self,
        data: Event | str,
        *,
        event: str | None = None,
        id: str | None = None,  # noqa: A002 - the field's own name
        retry: int | None = None,
    ) -> Started[None]:
        """Send an event at once: its data, or an Event. Return an awaitable.

        Awaiting it waits until the write buffer is under its low-water mark. Raises ConnectionClosed once the stream is
        over, TypeError or ValueError for what is no event, RuntimeError in another thread than the event loop's.
        """
        if event is not None or id is not None or retry is not None:
            if isinstance(data, Event):
                raise TypeError("data is an Event, allowed beside event, id and retry is a str")
            data = Event(data, event, id, retry)
        last = EncodedEvent.last
        octets = last.octets if last.event is data else EncodedEvent.remember(data)
        if self._over:
            raise ConnectionClosedError(None, None)
        exchange = self._exchange
        if exchange is None:
            self._keep(octets)
            return DONE
        start = 0
        if exchange.socket.congested:
            exchange.check_thread()
            start = exchange.socket.bytes_written()
            limit = exchange.context.settings.hard_limit
            if self.buffered > limit and exchange.socket.unawaited > limit:
                exchange.connection.drop(f"over {limit} bytes wait to be sent")
                self._end()
                return later(lambda: self._drain(None))
        if self._retry:
            exchange.check_thread()
            octets = self._with_retry(octets)
        exchange.write(octets)
        if not exchange.socket.congested:
            return DONE
        claim = exchange.socket.claim(start)
        return later(lambda: self._drain(claim))

    def close(self) -> None:
        """End the stream: what was sent still goes out. A browser reconnects; 204 to that request makes it stop."""
        exchange = self._exchange
        if self._over:
            return
        if exchange is not None:
            exchange.check_thread()
        self._end()
        if exchange is not None:
            exchange.finish()

    async def wait_closed(self) -> None:
        """Wait until the stream is over, whoever ended it."""
        if not self._over:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters = [*(self._waiters or ()), waiter]
            await waiter

    def follow(self, follower: Follower) -> None:
        """Have `follower.drained()` called when the write buffer is under its low-water mark, `lost()` at the end."""
        if self._over:
            raise ConnectionClosedError(None, None)
        self._followers = [*(self._followers or ()), follower]
        self._watch()

    def unfollow(self, follower: Follower) -> None:
        """Call it no more."""
        self._followers = [other for other in self._followers or () if other is not follower] or None

    @property
    def congested(self) -> bool:
        """Whether the client reads too slowly: the write buffer was over its high mark and is not under the low one."""
        if self._exchange is None:
            return self.buffered > HIGH_WATER
        return not self._over and self._exchange.socket.congested

    @property
    def hard_limit(self) -> int:
        """How many bytes may wait for the client."""
        return EARLY_LIMIT if self._exchange is None else self._exchange.context.settings.hard_limit

    def fail(self, code: int, reason: str) -> None:  # noqa: ARG002 - a WebSocket says the code to its client
        """End in the middle, for a reason that the log has: the client reconnects."""
        if self._exchange is not None and not self._over:
            self._exchange.connection.drop(reason)
        self._end()

    @property
    def closed(self) -> bool:
        """Whether the stream is over."""
        return self._over

    @property
    def buffered(self) -> int:
        """How many bytes were sent and not taken by the kernel yet."""
        early = sum(map(len, self._early or ()))
        return early if self._exchange is None else early + self._exchange.buffered

    async def __call__(self, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        """Answer a request of an ASGI server: so an endpoint of Starlette may return a stream as its response."""
        await answer_asgi(scope, receive, send, lambda _: self)

    # -- what the exchange calls

    @property
    def kind(self) -> str:
        """What it sends."""
        return "stream"

    def begin(self, exchange: Exchange, request: HttpRequest) -> None:
        """Begin the response. Raises LocalProtocolError for a stream that had one."""
        if self._exchange is not None:
            raise LocalProtocolError("the stream is another response already, needed is one for each request")
        self._exchange = exchange
        # Asked for until now; the number of a thread is an object of its own for each stream.
        self._maker = 0
        exchange.observe(self)
        self._watch()
        self.last_event_id = request.last_event_id
        exchange.begin_stream(self._fields)
        early, self._early = self._early, None
        if exchange.omit_body:
            early = None
            self._end()
        for octets in early or ():
            exchange.write(self._with_retry(octets))
        if self._retry and (self._over or self._source is None) and not exchange.omit_body:
            # Nobody knows when an event comes to join.
            exchange.write(self._with_retry(b"\n"))
        if self._over:
            exchange.finish()
            return
        exchange.set_deadline(self._keepalive)
        self.drained()
        if self._source is not None:
            self._task = exchange.context.start(self._pump(self._source))
            self._task.add_done_callback(lambda _: self._close_source())

    def lose(self) -> None:
        """End the stream: the client has left."""
        self._end()

    def drained(self) -> None:
        """Tell the followers that the client has read what waited for it."""
        for follower in self._followers or ():
            follower.drained()

    def lost(self) -> None:
        """Do nothing: `lose` was called before."""

    def shut_down(self) -> None:
        """End with the server."""
        self.close()

    def expire(self) -> None:
        """Send a comment where nothing was sent for a while, and let go of a client that reads nothing."""
        exchange = self._exchange
        if exchange is None:
            return
        if exchange.connection.stalls():
            exchange.connection.drop(f"it read nothing for {self._keepalive:g} s")
            self._end()
            return
        silence = clock.monotonic() - exchange.connection.wrote_at
        if silence < self._keepalive:
            exchange.set_deadline(self._keepalive - silence)
            return
        if not exchange.socket.congested:
            exchange.write(self._with_retry(COMMENT))
        exchange.set_deadline(self._keepalive)

    # -- inside

    def _with_retry(self, octets: bytes) -> bytes:
        """Return the first event, with `retry` before it."""
        retry, self._retry = self._retry, b""
        return retry + octets

    def _keep(self, octets: bytes) -> None:
        """Keep what is sent before the response begins."""
        if threading.get_ident() != self._maker and asyncio._get_running_loop() is None:  # noqa: SLF001 - asyncio's name
            # It was made in one thread and is returned in another: but that is one with a loop.
            raise wrong_thread()
        early = self._early
        if early is None or self.buffered + len(octets) > EARLY_LIMIT:
            self._early = None
            self._end()
            raise LocalProtocolError(f"over {EARLY_LIMIT} bytes were sent to a stream that no endpoint has returned")
        early.append(octets)

    def _end(self) -> None:
        """Let go of all who wait for the end."""
        if self._over:
            return
        self._over = True
        release(self._waiters)
        self._waiters = None
        task = self._task
        self._task = None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
        elif task is None:
            self._close_source()
        if self._followers is not None and self._exchange is not None:
            self._exchange.socket.followers = None
        if self.on_close is not None or self._followers is not None:
            asyncio.get_running_loop().call_soon(self._tell)

    def _watch(self) -> None:
        """Be told when the client has read, if anybody wants to know."""
        if self._followers is not None and self._exchange is not None and not self._over:
            self._exchange.socket.followers = [self]

    def _tell(self) -> None:
        followers, self._followers = self._followers, None
        for follower in followers or ():
            follower.lost()
        on_close, self.on_close = self.on_close, None
        try:
            if on_close is not None:
                on_close(self)
        except Exception as error:
            if self._exchange is None:
                raise
            self._exchange.log_failure("on_close of an event stream failed", error)

    async def _drain(self, claim: Claim | None) -> None:
        """Wait until the client has read enough; until then what was sent counts as awaited."""
        exchange = self._exchange
        try:
            if exchange is not None and not self._over:
                await exchange.socket.wait_drained()
        finally:
            if claim is not None:
                claim.release()
        if self._over:
            raise ConnectionClosedError(None, None)

    async def _pump(self, source: AsyncIterable[Event | str]) -> None:
        """Send the events of an iterable as the client takes them."""
        self._source = None
        iterator = aiter(source)
        count = 0
        try:
            async for event in iterator:
                await self.send(event)
                count += 1
                if count % BURST == 0:
                    await asyncio.sleep(0)
        except asyncio.CancelledError as error:
            if is_cancelled() or self._over:
                raise
            self._break(error)
        except Exception as error:  # noqa: BLE001 - whatever the producer raises, it ends its own stream only
            # Where the client is gone, there is nobody to send to, and that is no fault of the producer.
            if not self._over:
                self._break(error)
        else:
            self.close()
        finally:
            await self._close(iterator)

    def _close_source(self) -> None:
        """Close an iterator that was never begun: its client left before, or asked for the head alone."""
        source, self._source = self._source, None
        if getattr(source, "aclose", None) is None:
            return
        # Without a running loop there is nothing that could wait for it.
        with contextlib.suppress(RuntimeError):
            loop = asyncio.get_running_loop()
            CLOSING.add(task := loop.create_task(self._close(source)))
            task.add_done_callback(CLOSING.discard)

    async def _close(self, iterator: Any) -> None:
        """Close an iterator, if it can be; what that raises is the producer's fault, and logged."""
        aclose = getattr(iterator, "aclose", None)
        try:
            if aclose is not None:
                await aclose()
        except Exception as error:
            what = "closing the iterator of an event stream failed"
            if self._exchange is None:
                logging.getLogger("rawws.server").exception(what)
            else:
                self._exchange.log_failure(what, error)

    def _break(self, error: BaseException) -> None:
        """End without the last chunk: so the client knows that there is more, and reconnects."""
        exchange = self._exchange
        if exchange is not None:
            exchange.log_failure("event stream failed", error)
            exchange.connection.cut()
        self._end()


def fields_with(headers: Headers) -> tuple[tuple[str, str], ...]:
    """Return the fields of a head with these of an application. Raises ValueError for what the stream says itself."""
    own = [name for name in OWN if name in headers]
    if own:
        raise ValueError(f"headers has {own[0]}, allowed are those that a stream does not say itself: {', '.join(OWN)}")
    return (*(field for field in HEAD if field[0] not in headers), *headers.raw_items())


@final
class EncodedEvent:
    """An event, and its octets."""

    __slots__ = ("event", "octets")

    last: EncodedEvent

    def __init__(self, event: Event | str) -> None:
        self.event = event
        self.octets = encode(event)

    @classmethod
    def remember(cls, event: Event | str) -> bytes:
        """Return the octets of an event that was not the last one, and remember it."""
        cls.last = encoded = cls(event)
        return encoded.octets


EncodedEvent.remember(Event(""))
