"""Events: a URL to the events that its server sends, over as many connections as it takes (WHATWG HTML section 9.2).

Laws:
1. What is lost is a connection, not the place: the next one begins behind the last event that came whole.
2. No task of its own: who asks for the next event reads, and who asks slowly lets the server wait.
3. What may heal is tried again, ever later, and what the server refused is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import TYPE_CHECKING, cast, final

from rawws import clock
from rawws.errors import HttpError, InvalidContentType, InvalidMessage, LocalProtocolError
from rawws.http.responses import Received
from rawws.net.options import options_for
from rawws.net.transports import abort_transport, close_transport, write_first
from rawws.protocol.bodies import Body
from rawws.protocol.extensions import excerpt
from rawws.protocol.http11 import Headers, Request, serialize_request
from rawws_sse import Decoder

from .dialing import TransportOptions, create_connection
from .options import EventsOptions
from .pool import ask_over_http2, can_share
from .redirects import added_headers, follow_redirects
from .response import BODY_SIZE, BODY_WAIT, receive_response, refusal_of
from .retrying import LONGEST_ASKED, STABLE, is_permanent, retry_after
from .uri import HTTP, parse_uri

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Unpack

    from rawws.protocol.http11 import HttpResponse
    from rawws_sse import Event

    from .http2 import Http2ClientConnection
    from .options import EventsKeywords
    from .uri import Target

__all__ = ["events"]

# WHATWG HTML 9.2.2, of the reconnection time: "This must initially be an implementation-defined value, probably in the
# region of a few seconds." Chromium takes 3, Firefox 5.
RETRY = 3.0
# One read takes at most so much, and twice that is what may wait for a slow consumer, decoded events not counted.
READ_SIZE = 65536
# What the request itself says, and what would announce a body or change the protocol.
OWN_HEADERS = frozenset((
    "accept", "accept-encoding", "cache-control", "connection", "content-length", "expect", "host", "last-event-id",
    "te", "transfer-encoding", "upgrade",
))  # fmt: skip


class events:  # noqa: N801 - used as a function, as `connect`
    """Receive Server-Sent Events: `async for event in events(url)`.

    It connects when it is first asked for an event, and again and again: where the connection is lost, cannot be made,
    or is ended by the server, it waits for `retry` seconds, which the server may change, and for a random time, which
    is longer from failure to failure, and goes on behind the last event. It ends where the server answers 204, and
    raises what never heals: InvalidStatus for a refusal (4xx but 408 and 429, for example), InvalidContentType for what
    is no event stream, ssl.SSLCertVerificationError, rawws_sse.EventTooLarge. `reconnect=False` takes one connection:
    its end ends the iteration, and any error is raised. `on_retry(error, seconds)` is told why and how long it waits.
    `reconnect_delays()` gives an iterator over the random part of the waits in seconds; where it ends, the last error
    is raised.

    `async with events(url) as feed` closes the connection at the end of the block, `await feed.aclose()` at any time. A
    cancelled `anext(feed)` loses no event: the next call goes on.

    `url` begins with http:// or https://. `last_event_id` is where to go on from. `additional_headers` are sent to the
    origin of `url` only, not where a redirect leads. `open_timeout` is in seconds, from the look-up of the name to the
    head of the response. A connection that is silent for `read_timeout` seconds counts as lost; None leaves that to the
    operating system, which notices after a minute where the peer is gone. `max_size` is that of an event in bytes. The
    other options are those of `connect`.
    """

    __slots__ = (
        "_busy",
        "_decoder",
        "_due",
        "_ended",
        "_events",
        "_stream",
        "_waits",
        "last_event_id",
        "logger",
        "options",
        "response",
        "retry",
        "target",
        "transport",
    )

    def __init__(self, url: str, **options: Unpack[EventsKeywords]) -> None:
        self.options = chosen = options_for("events", EventsOptions, **options)
        self.target = parse_uri(url.partition("#")[0], HTTP)
        self.transport = TransportOptions.of(chosen)
        self.logger = chosen.logger or logging.getLogger("rawws.events")
        #: The id of the last event that was handed over: what to go on from another time.
        self.last_event_id = chosen.last_event_id
        #: How many seconds to wait before the next connection, at least.
        self.retry = RETRY
        #: The head of the response that the events come in, once there is one.
        self.response: Received | None = None
        self._stream: _Stream | None = None
        # One for all connections: it knows how far the last one came.
        self._decoder = Decoder(chosen.max_size)
        self._decoder.last_event_id = chosen.last_event_id
        self._events: deque[Event] = deque()
        self._waits = chosen.reconnect_delays()
        # When to connect, on the clock of `clock.monotonic`.
        self._due = 0.0
        self._busy = False
        self._ended = asyncio.Event()
        # Raise now what cannot be sent.
        self._request(self.target)

    # -- what the application calls

    def __aiter__(self) -> events:
        return self

    async def __anext__(self) -> Event:
        if self._busy:
            raise LocalProtocolError("another task waits for the next event already")
        self._busy = True
        try:
            while not self._events and not self._ended.is_set():
                await self._advance()
        finally:
            self._busy = False
            if self._ended.is_set():
                self._disconnect()
        if not self._events:
            raise StopAsyncIteration
        event = self._events.popleft()
        # An id can come without an event.
        self.last_event_id = (event.id or "") if self._events else self._decoder.last_event_id
        return event

    async def __aenter__(self) -> events:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End: close the connection, drop what came, and let a task that waits for an event go."""
        self._ended.set()
        self._events.clear()
        self._disconnect()

    def __del__(self) -> None:
        # There is no attribute where the arguments were wrong.
        stream = getattr(self, "_stream", None)
        if stream is not None:
            # The collector may run in any thread, and after the loop's end.
            with contextlib.suppress(RuntimeError):
                stream.loop.call_soon_threadsafe(abort_transport, stream.transport)

    # -- one step after the other

    async def _advance(self) -> None:
        """Wait, connect or read, and plan the next attempt where that fails."""
        try:
            if self._stream is None:
                await self._connect()
            else:
                await self._read(self._stream)
        except Exception as error:  # noqa: BLE001 - all that can go wrong on the way to a server
            self._fail(error)

    async def _connect(self) -> None:
        """Connect when it is time, and follow redirects, within `open_timeout`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._due - clock.monotonic()):
                await self._ended.wait()
                return
        # An event that did not come whole comes again.
        self._decoder.receive_eof()
        seconds = self.options.open_timeout
        try:
            async with asyncio.timeout(seconds) as timeout:
                self._stream = await follow_redirects(self.target, self.transport, self._attempt)
        except TimeoutError:
            # The network has timeouts of its own.
            if not timeout.expired():
                raise
            raise TimeoutError(f"no answer from {self.target.authority} within {seconds:g} s") from None
        if self._stream is None:
            # WHATWG HTML 9.2.1: "Clients will reconnect if the connection is closed; a client can be told to stop
            # reconnecting using the HTTP 204 No Content response code."
            self._ended.set()
        else:
            self._decode(self._stream, self._stream.rest)

    async def _attempt(self, target: Target, options: TransportOptions) -> _Stream | None:
        """Ask for the events. Returns None where the server has none to give any more."""
        asking = _Asking(self.options.max_size)
        try:
            if not self.options.http2 or not can_share(target, options):
                await create_connection(lambda: asking.protocol, target, options)
                response, rest = await asking.ask(self._request(target))
            elif (
                found := await ask_over_http2(
                    target,
                    options,
                    self.logger,
                    lambda shared: self._ask(shared, target),
                    lambda: asking.protocol,
                    websocket=False,
                )
            ) is None:
                response, rest = await asking.ask(self._request(target))
            else:
                asking, response, rest = found
            return await self._judge(asking, response, rest)
        except BaseException:
            asking.end()
            raise

    async def _ask(self, shared: Http2ClientConnection, target: Target) -> tuple[_Asking, HttpResponse, bytes]:
        """Ask on a stream of a connection that others share."""
        asking = _Asking(self.options.max_size)
        try:
            fields = [field for field in self._fields(target) if field[0] != "Connection"]
            shared.get(Request("GET", target.path, Headers(fields), "2"), asking.protocol, asking)
            return asking, await asking.head, b""
        except BaseException:
            asking.end()
            raise

    async def _judge(self, asking: _Asking, response: HttpResponse, rest: bytes) -> _Stream | None:
        """Return the stream that a response begins. Raises InvalidStatus where it is none."""
        self.response = Received(*response)
        if response.status == 204:
            asking.end()
            return None
        # WHATWG HTML 9.2.2: "if res's status is not 200, or if res's `Content-Type` is not `text/event-stream`,
        # then fail the connection."
        if response.status != 200:
            raise refusal_of(response, await _receive_body(asking.reader, response, rest), "an event stream")
        _check_content(self.response)
        return _Stream(asking.reader, asking.transport, response, rest)

    async def _read(self, stream: _Stream) -> None:
        """Read once."""
        # Where too large an event came behind others, it raises now.
        self._decoder.receive(b"")
        if stream.body.done:
            raise StreamEndedError("the server ended the stream")
        seconds = self.options.read_timeout
        try:
            async with asyncio.timeout(seconds) as timeout:
                data = await stream.reader.read(READ_SIZE)
        except TimeoutError:
            if not timeout.expired():
                raise
            raise TimeoutError(f"nothing came from {self.target.authority} for {seconds:g} s") from None
        self._decode(stream, data, eof=not data)

    def _decode(self, stream: _Stream, data: bytes, *, eof: bool = False) -> None:
        """Take what was read."""
        if self._ended.is_set():
            return
        decoder = self._decoder
        try:
            if eof:
                stream.body.receive_eof()
            self._events.extend(decoder.receive(stream.body.receive(data)))
        except HttpError as error:
            raise InvalidMessage(0, error.reason) from None
        if decoder.retry is not None:
            self.retry = min(decoder.retry, LONGEST_ASKED * 1000) / 1000
        stream.good = stream.good or bool(self._events)
        if not self._events:
            self.last_event_id = decoder.last_event_id

    def _fail(self, error: Exception) -> None:
        """Plan the next attempt; raise the error where there is none."""
        options, stream = self.options, self._stream
        self._disconnect()
        if stream is not None and (stream.good or clock.monotonic() - stream.opened_at >= STABLE):
            self._waits = options.reconnect_delays()
        seconds = next(self._waits, None) if options.reconnect and not is_permanent(error) else None
        if seconds is None:
            self._ended.set()
            if isinstance(error, StreamEndedError) and not options.reconnect:
                return
            raise error
        # WHATWG HTML 9.2.3: "Wait a delay equal to the reconnection time of the event source. Optionally, wait some
        # more. In particular, if the previous attempt failed, then user agents might introduce an exponential backoff
        # delay to avoid overloading a potentially already overloaded server."
        seconds += max(self.retry, retry_after(error))
        self._due = clock.monotonic() + seconds
        self.logger.info("connecting to %s again in %.1f s: %s", self.target.authority, seconds, error)
        if options.on_retry is not None:
            options.on_retry(error, seconds)

    def _disconnect(self) -> None:
        if self._stream is not None:
            _end_connection(self._stream.transport)
            self._stream = None

    def _request(self, target: Target) -> bytes:
        return serialize_request(Request("GET", target.path, Headers(self._fields(target))))

    def _fields(self, target: Target) -> list[tuple[str, str]]:
        fields = [
            ("Host", target.authority),
            ("Accept", "text/event-stream"),
            # A compressed stream is of no use where each event is to come at once, and a trap for small limits.
            ("Accept-Encoding", "identity"),
            ("Cache-Control", "no-store"),
            # RFC 9112 9.3: "A client that does not support persistent connections MUST send the "close" connection
            # option in every request message."
            ("Connection", "close"),
        ]
        last_event_id = self._decoder.last_event_id
        if last_event_id:
            # WHATWG HTML 9.2.3: "Let lastEventIDValue be the EventSource object's last event ID string, encoded as
            # UTF-8." A header has no whitespace around its value.
            fields.append(("Last-Event-ID", last_event_id.encode().decode("latin-1").strip(" \t")))
        for name, value in added_headers(target, self.target, self.options):
            if name.lower() in OWN_HEADERS:
                raise LocalProtocolError(f"the header {name!r} cannot be added, it is the request's own")
            fields.append((name, value))
        return fields


class StreamEndedError(ConnectionError):
    """The server ended the stream, as it may at any time."""


@final
class _Protocol(asyncio.StreamReaderProtocol):
    """Gives what comes to a reader, and says by which transport."""

    transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        # A stream, and one of uvloop, is none by its class.
        self.transport = cast("asyncio.Transport", transport)
        super().connection_made(transport)


@final
class _Asking:
    """A request on its way, and what asks on a stream of HTTP/2."""

    __slots__ = ("head", "max_window", "protocol", "reader")

    def __init__(self, max_window: int | None) -> None:
        self.reader = asyncio.StreamReader(READ_SIZE)
        self.protocol = _Protocol(self.reader)
        self.max_window = max_window
        # Of the response on a stream.
        self.head: asyncio.Future[HttpResponse] = asyncio.get_running_loop().create_future()

    @property
    def transport(self) -> asyncio.Transport:
        """What it goes by, once it is connected."""
        assert self.protocol.transport is not None  # noqa: S101 - `create_connection` has connected it
        return self.protocol.transport

    async def ask(self, request: bytes) -> tuple[HttpResponse, bytes]:
        """Send a request over a connection of its own; return the response, and what came behind its head."""
        write_first(self.transport, request)
        return await receive_response(lambda: self.reader.read(READ_SIZE))

    def receive_response(self, response: HttpResponse) -> None:
        """Take the response on a stream."""
        if not self.head.done():
            self.head.set_result(response)

    def fail(self, error: Exception) -> None:
        """Take note of why there is none."""
        if not self.head.done():
            self.head.set_exception(error)

    def end(self) -> None:
        """End what was begun."""
        if self.protocol.transport is not None:
            _end_connection(self.protocol.transport)
        # Nobody shall be told that it was not looked at.
        if not self.head.cancel() and not self.head.cancelled():
            self.head.exception()


@final
class _Stream:
    """A connection that events come over."""

    __slots__ = ("body", "good", "loop", "opened_at", "reader", "rest", "transport")

    def __init__(
        self,
        reader: asyncio.StreamReader,
        transport: asyncio.Transport,
        response: HttpResponse,
        rest: bytes,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.reader = reader
        self.transport = transport
        self.body = Body(response.headers, max_size=None, until_eof=True)
        self.rest = rest
        self.opened_at = clock.monotonic()
        # Whether an event came.
        self.good = False


def _end_connection(transport: asyncio.Transport) -> None:
    """Close a connection whose further bytes are not needed."""
    # RFC 9112 9.8: "Clients MUST send a closure alert before closing the connection. Clients that do not expect to
    # receive any more data MAY choose not to wait for the server's closure alert and simply close the connection".
    close_transport(transport)
    # uvloop writes the alert at the end of this turn.
    asyncio.get_running_loop().call_soon(abort_transport, transport)


async def _receive_body(reader: asyncio.StreamReader, response: HttpResponse, data: bytes) -> bytes:
    """Return the body of a refusal, as much of it as comes soon and makes sense."""
    body = bytearray()
    with contextlib.suppress(HttpError, OSError):
        async with asyncio.timeout(BODY_WAIT):
            decoder = Body(response.headers, max_size=None, until_eof=response.status not in {101, 304})
            body += decoder.receive(data)
            while not decoder.done and len(body) < BODY_SIZE:
                data = await reader.read(READ_SIZE)
                if not data:
                    break
                body += decoder.receive(data)
    return bytes(body)


def _check_content(response: Received) -> None:
    kinds = response.headers.get_all("Content-Type")
    if [kind.partition(";")[0].rstrip(" \t").lower() for kind in kinds] != ["text/event-stream"]:
        came = f"with {excerpt(', '.join(kinds))}" if kinds else "without a Content-Type"
        raise InvalidContentType(response, f"the server answered {came}, needed is 'text/event-stream'")
    coding = ", ".join(response.headers.get_all("Content-Encoding"))
    if coding.lower() not in {"", "identity"}:
        raise InvalidContentType(response, f"the events are in the coding {excerpt(coding)}, asked for was none")
