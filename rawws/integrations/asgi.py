"""asgi: any ASGI 3 application served by rawws itself: lifespan, HTTP and WebSocket, without another server.

    python -m rawws serve --asgi app:app

Laws:
1. What a client sends waits for the application, and what the application sends for the client: neither grows here.
2. Every response ends as its head says, or the connection is cut, so that nobody takes a part for the whole.
3. The application hears of every end; `send` behind it raises an OSError, which is no fault of the application.
"""

from __future__ import annotations

import asyncio
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, final

from rawws import clock
from rawws.errors import HttpError
from rawws.http.application import HttpApplication
from rawws.http.exchange import BODILESS, HELD, PATIENCE, SLOWEST
from rawws.net.cancellation import is_cancelled
from rawws.net.handlers import check_arguments
from rawws.protocol.http11 import Headers, HttpResponse, content_length
from rawws.server.heads import says_close
from rawws.server.options import ListenOptions, takes_options
from rawws.server.server import Serve, start_serving

from .asgi_websocket import WebSocketSession, check_status, describe, describe_websocket, text

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterable

    from rawws.http.application import PendingHandshake
    from rawws.http.exchange import ByteStream, Exchange, HttpContext
    from rawws.http.requests import HttpRequest

    from .asgi_websocket import AsgiEvent

__all__ = ["Application", "ClientDisconnectedError", "serve"]

# The version of the ASGI specifications. That of HTTP is 2.3, though `send` raises as 2.4 asks: Starlette then listens
# for the disconnect, and so ends a stream that is silent.
VERSION = "3.0"
HTTP_VERSION = "2.3"
WEBSOCKET_VERSION = "2.5"
LIFESPANS = ("auto", "on", "off")
# Header lines that are the server's to write (RFC 9110 section 7.6.1).
OWN = ("Connection", "Keep-Alive", "Transfer-Encoding")


@dataclass(frozen=True)
class AsgiOptions(ListenOptions):
    """The options of a server, and those of its application."""

    _: KW_ONLY
    # Where a proxy mounted the application.
    root_path: str = ""
    # "on" fails where the application has no lifespan, "auto" goes on, "off" does not ask.
    lifespan: str = "auto"


@takes_options(AsgiOptions)
def serve(app: Any, options: AsgiOptions) -> Serve:
    """Serve an ASGI application; `async with` what this returns, or await it, for the Server.

    `root_path` is where a proxy mounted it. `lifespan` "on" fails where the application has none, "auto" goes on, "off"
    does not ask. The other options are those of `rawws.serve`, but for those that the application decides. Raises
    RuntimeError where the application says that it did not start.
    """
    return start_serving(Application(app, root_path=options.root_path, lifespan=options.lifespan), options)


class ClientDisconnectedError(OSError):
    """There is nobody to send to."""


@final
class Application(HttpApplication):
    """An ASGI application, for `rawws.serve` and `rawws.run` in the place of a handler."""

    def __init__(self, app: Any, *, root_path: str = "", lifespan: str = "auto") -> None:
        if not callable(app):
            raise TypeError(f"app is {type(app).__name__}, allowed is an ASGI application")
        check_arguments(app, "app", "scope", "receive", "send")
        if lifespan not in LIFESPANS:
            raise ValueError(f"lifespan is {lifespan!r}, allowed are {', '.join(LIFESPANS)}")
        if root_path and (not root_path.startswith("/") or not root_path.isascii()):
            raise ValueError(f"root_path is {root_path!r}, it must begin with '/' and be ASCII")
        self.app = app
        self.root_path = root_path.rstrip("/")
        self.state: AsgiEvent = {}
        self._mode = lifespan
        self._lifespan: Lifespan | None = None

    async def start_up(self, context: HttpContext) -> None:
        """Have the application prepare. Raises RuntimeError where it says that it cannot."""
        if self._mode != "off":
            self._lifespan = Lifespan(self.app, self.state, context.settings.logger, required=self._mode == "on")
            await self._lifespan.start_up()

    async def shut_down(self) -> None:
        """Have the application clean up."""
        if self._lifespan is not None:
            await self._lifespan.shut_down()

    def begin(self, exchange: Exchange, request: HttpRequest) -> HttpSession:
        """Begin to answer a request."""
        scope = self._describe(exchange.socket, request, HTTP_VERSION) | {
            "type": "http",
            "method": request.method,
            "scheme": request.scheme,
            "extensions": {},
        }
        session = HttpSession(self.app, scope, exchange, request)
        exchange.context.start(session.run())
        return session

    def open(self, handshake: PendingHandshake) -> Upgrade:
        """Begin to decide on an opening handshake."""
        request = handshake.request
        common = self._describe(handshake.ws, request, WEBSOCKET_VERSION)
        scope = describe_websocket(common, request.head, secure=request.scheme == "https")
        upgrade = Upgrade(handshake)
        upgrade.session = WebSocketSession(self.app, scope, handshake.ws, upgrade)
        handshake.context.start(upgrade.session.run())
        return upgrade

    def _describe(self, socket: ByteStream, request: HttpRequest, version: str) -> AsgiEvent:
        common = describe(socket, request.head, self.root_path, self.state)
        return common | {"asgi": {"version": VERSION, "spec_version": version}}


@final
class Lifespan:
    """The application's own beginning and end, around those of the server."""

    __slots__ = ("_app", "_asked", "_events", "_failed", "_logger", "_required", "_state", "_task")

    def __init__(self, app: Any, state: AsgiEvent, logger: logging.Logger, *, required: bool) -> None:
        self._app = app
        self._state = state
        self._logger = logger
        self._required = required
        self._task: asyncio.Task[None] | None = None
        # The application said that it failed: what it raises then is the same once more.
        self._failed = False
        # What `receive` gives, and what the answer to the last of that is waited for in.
        self._events: asyncio.Queue[AsgiEvent] = asyncio.Queue()
        self._asked: asyncio.Future[str | None] | None = None

    async def start_up(self) -> None:
        """Wait until the application is ready."""
        scope = {"type": "lifespan", "asgi": {"version": VERSION, "spec_version": "2.0"}, "state": self._state}
        self._task = asyncio.get_running_loop().create_task(self._run(scope))
        try:
            failure = await self._ask("lifespan.startup")
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        if failure is not None:
            raise RuntimeError(f"the application did not start: {failure.strip() or 'it says no more'}")

    async def shut_down(self) -> None:
        """Wait until the application is done, if it is not yet."""
        task = self._task
        if task is None:
            return
        self._task = None
        failure = await self._ask("lifespan.shutdown") if not task.done() else None
        if failure is not None:
            self._logger.error("the application did not shut down: %s", failure)
        await asyncio.wait([task])

    async def _ask(self, kind: str) -> str | None:
        """Send an event and wait for its answer: None, or why it failed."""
        self._asked = asyncio.get_running_loop().create_future()
        self._events.put_nowait({"type": kind})
        return await self._asked

    def _answer(self, failure: str | None) -> None:
        if self._asked is not None and not self._asked.done():
            self._asked.set_result(failure)

    async def _run(self, scope: AsgiEvent) -> None:
        try:
            await self._app(scope, self._events.get, self._send)
        except Exception as error:
            if self._failed:
                return
            if self._required or (self._asked is not None and self._asked.done()):
                self._logger.exception("Exception in 'lifespan' protocol")
            else:
                self._logger.info("the application has no lifespan: %s: %s", type(error).__name__, error)
            self._answer(f"{type(error).__name__}: {error}" if self._required else None)
        finally:
            self._answer(None)

    async def _send(self, event: AsgiEvent) -> None:
        kind = event["type"]
        if kind in {"lifespan.startup.complete", "lifespan.shutdown.complete"}:
            self._answer(None)
        elif kind in {"lifespan.startup.failed", "lifespan.shutdown.failed"}:
            self._failed = True
            self._answer(event.get("message", ""))
        else:
            raise RuntimeError(f"the lifespan event is {kind!r}, allowed are 'complete' and 'failed' of what was asked")


@final
class Upgrade:
    """The opening handshake of one session: its WebSocketAcceptor, and what the exchange holds until it is decided."""

    __slots__ = ("handshake", "logger", "session")

    def __init__(self, handshake: PendingHandshake) -> None:
        self.handshake = handshake
        self.logger = handshake.context.settings.logger
        self.session: WebSocketSession = None  # type: ignore[assignment]  # from `Application.open` on

    # -- what the session calls

    def open(self, subprotocol: str | None, fields: Iterable[tuple[str, str]]) -> None:
        """Answer the handshake with 101."""
        self.handshake.accept(subprotocol, fields)
        # The connection lasts, and this need not.
        self.handshake = None  # type: ignore[assignment]

    def respond(self, response: HttpResponse) -> None:
        """Answer with a response that is no WebSocket."""
        self.handshake.respond(response)

    def refuse(self, error: HttpError) -> None:
        """Answer with an error, which is counted."""
        self.handshake.refuse(error)

    def gone(self) -> OSError:
        """Return the error of a `send` to nobody."""
        return ClientDisconnectedError("the client is gone")

    def note(self, outcome: str) -> None:
        """Log what became of the handshake."""
        self.logger.debug("WebSocket %s: %s", self.session.scope["path"], outcome)

    # -- what the exchange calls

    @property
    def kind(self) -> str:
        """What it sends: nothing yet."""
        return "http"

    def lose(self) -> None:
        """End the session: the client has left."""
        self.session.end()

    def expire(self) -> None:
        """Wait no longer for a decision."""
        self.session.refuse(HttpError(503, "the server did not decide in time"))

    def shut_down(self) -> None:
        """End with the server."""
        self.session.refuse(HttpError(503, "the server is shutting down"))


@final
class HttpSession:
    """One HTTP request and its response."""

    __slots__ = (
        "app",
        "asked",
        "came",
        "completed",
        "content",
        "delivered",
        "draining",
        "ending",
        "exchange",
        "expects",
        "head",
        "left",
        "news",
        "over",
        "scope",
        "started",
        "streams",
        "waited",
        "waits",
        "whole",
    )

    def __init__(self, app: Any, scope: AsgiEvent, exchange: Exchange, asked: HttpRequest) -> None:
        self.app = app
        self.scope = scope
        self.exchange = exchange
        self.asked = asked
        # Of the body: what the application has not received yet, how many bytes came, whether all did, whether the
        # application has all. `expects`: the client waits for a word (100).
        self.content = bytearray()
        self.came = 0
        self.whole = self.delivered = False
        self.expects = "Expect" in asked.headers and asked.head.http_version != "1.0"
        # For how many seconds the body was waited for, and whether it is, or the client is to read.
        self.waited = 0.0
        self.waits = self.draining = False
        self.news = asyncio.Event()
        # Of the response: the head while it is not sent, whether it is, how many bytes are to come (None: any number).
        self.head: HttpResponse | None = None
        self.started = False
        self.left: int | None = None
        # `streams`: it is one of events, without an end; `ending`: the application is told to end it, with the server.
        self.streams = self.ending = False
        # `completed`: the response is; `over`: that, or the client is gone.
        self.completed = self.over = False

    async def run(self) -> None:
        """Run the application, and see to it that the exchange ends with it."""
        logger = self.exchange.context.settings.logger
        try:
            result = await self.app(self.scope, self.receive, self.send)
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and is_cancelled():
                self.exchange.socket.abort()
                raise
            # The end of the connection was no fault of an application that did not expect it.
            if not (isinstance(error, OSError) and self.over):
                logger.exception("Exception in ASGI application (%s)", self.exchange.name())
        else:
            if self.ending and not self.over:
                # It did what it was told: the client reconnects, behind a whole event.
                self.write(b"", False)
            elif not self.over:
                logger.error("ASGI callable returned without completing response. (%s)", self.exchange.name())
            elif result is not None:
                logger.error("ASGI callable should return None, but returned '%s'. (%s)", result, self.exchange.name())
        if not self.over:
            self.fail(HttpError(500, "the application failed"))

    def fail(self, error: HttpError) -> None:
        """Answer with an error; where the response is begun, cut it."""
        if self.started:
            self.lose()
            self.exchange.connection.cut()
        else:
            self.exchange.refuse(error)

    # -- what the exchange calls

    @property
    def kind(self) -> str:
        """What it sends."""
        return "stream" if self.streams else "http"

    def feed(self, data: bytes, whole: bool) -> None:
        """Take a piece of the body."""
        self.content += data
        self.came += len(data)
        self.whole = whole
        if data:
            self.expects = False
        if len(self.content) > HELD and not whole:
            self.exchange.socket.pause_reading()
        if data or whole:
            self.news.set()

    def lose(self) -> None:
        """Tell the application that the client has left, or has its answer."""
        self.over = True
        self.news.set()

    def shut_down(self) -> None:
        """End with the server, which waits for a response as long as for a closing handshake.

        The application of a stream of events, which has no end, is told at once that nobody listens any more, as if
        its client had gone.
        """
        if self.streams:
            self.ending = True
            self.news.set()
        self.exchange.socket.set_deadline(self.exchange.context.settings.close_timeout)

    def expire(self) -> None:
        """End what takes too long: the end of the server, a client that does not read, or one that does not send."""
        exchange = self.exchange
        if exchange.context.closing:
            self.fail(HttpError(503, "the server is shutting down"))
        elif not exchange.socket.buffered:
            self.give_up()
        elif exchange.connection.stalls():
            exchange.connection.drop(f"it read nothing for {PATIENCE:g} s")
        else:
            exchange.set_deadline(PATIENCE)

    def give_up(self) -> None:
        """Wait no longer for the body."""
        self.fail(HttpError(408, "the body of the request did not arrive in time"))

    def watch(self) -> None:
        """Have `expire` called at the right time while the client is waited for."""
        exchange = self.exchange
        if exchange.context.closing or self.over:
            return
        limit = exchange.context.settings.open_timeout
        if self.draining:
            exchange.set_deadline(PATIENCE)
        elif self.waits and limit:
            # All the time that was waited counts, so that a client cannot gain more by sending a byte now and then.
            left = limit + self.came / SLOWEST - self.waited
            if left > 0:
                exchange.set_deadline(left)
            else:
                self.give_up()
        else:
            exchange.set_deadline(0)

    # -- `receive` of ASGI

    async def receive(self) -> AsgiEvent:
        """Return the next piece of the body; behind it, wait for the end."""
        while not self.over and not self.ending and (self.delivered or not (self.content or self.whole)):
            await self.wait()
        if self.over or self.ending:
            return {"type": "http.disconnect"}
        body = bytes(self.content)
        self.content.clear()
        self.delivered = self.whole
        if not self.whole:
            self.exchange.socket.resume_reading()
        return {"type": "http.request", "body": body, "more_body": not self.whole}

    async def wait(self) -> None:
        """Wait for more of the body, or for the end."""
        self.news.clear()
        if self.whole:
            await self.news.wait()
            return
        if self.expects and not self.started:
            self.expects = False
            self.exchange.connection.send_continue()
        began = clock.monotonic()
        self.waits = True
        self.watch()
        try:
            await self.news.wait()
        finally:
            self.waits = False
            self.waited += clock.monotonic() - began
            self.watch()

    # -- `send` of ASGI

    async def send(self, event: AsgiEvent) -> None:
        """Do what the application says."""
        kind = event["type"]
        if self.over:
            if self.completed:
                raise RuntimeError(f"Unexpected ASGI message '{kind}' sent, after response already completed.")
            raise ClientDisconnectedError("the client is gone")
        if self.head is None and not self.started:
            if kind != "http.response.start":
                raise RuntimeError(f"Expected ASGI message 'http.response.start', but got '{kind}'.")
            self.head = self.make_head(event)
            return
        if kind != "http.response.body":
            raise RuntimeError(f"Expected ASGI message 'http.response.body', but got '{kind}'.")
        data, more = bytes(event.get("body", b"")), event.get("more_body", False)
        if not self.started and self.begin(data, more):
            return
        self.write(data, more)
        if self.exchange.socket.congested and not self.over:
            self.draining = True
            self.watch()
            try:
                await self.exchange.socket.wait_drained()
            finally:
                self.draining = False
                self.watch()

    def make_head(self, event: AsgiEvent) -> HttpResponse:
        """Return the head of a response, as far as the application says it."""
        status = check_status(event.get("status"))
        headers = Headers(text(event.get("headers", ())))
        closes = not self.whole or says_close(headers)
        for name in OWN:
            headers.pop(name, None)
        if closes:
            # RFC 9112 9.3: "a server MUST read the entire request message body or close the connection after sending
            # its response".
            headers["Connection"] = "close"
        if status == 204:
            # RFC 9110 8.6: "A server MUST NOT send a Content-Length header field in any response with a status code of
            # 1xx (Informational) or 204 (No Content)". Some frameworks give one of 0.
            headers.pop("Content-Length", None)
        return HttpResponse(status, headers)

    def begin(self, data: bytes, more: bool) -> bool:
        """Send the head with the first piece of the body; tell whether that was all."""
        exchange, head = self.exchange, self.head
        if head is None:
            return False
        length = content_length(head.headers)
        if head.status in BODILESS:
            if data:
                raise RuntimeError(f"a response with status {head.status} has no body, came {len(data)} bytes")
            exchange.omit_body = True
        # Of a response to HEAD the length may be unknown, and is not 0 then.
        known = length is not None or data or not exchange.omit_body or head.status in BODILESS
        if not more and known:
            if not exchange.omit_body:
                check_length(len(data), len(data) if length is None else length)
            exchange.respond(head._replace(body=b"" if exchange.omit_body and length is not None else data))
            self.complete()
            return True
        self.streams = head.headers.get("Content-Type", "").lower().startswith("text/event-stream")
        if self.streams:
            try:
                exchange.observe(self)
            except HttpError as error:
                # One too many that lasts: the client is told, and for the application it is gone.
                self.streams = False
                exchange.refuse(error)
                return True
        exchange.begin_response(head)
        self.left = length
        self.started, self.head = True, None
        if self.streams and exchange.context.closing:
            self.shut_down()
        return False

    def write(self, data: bytes, more: bool) -> None:
        """Send a piece of the body."""
        exchange = self.exchange
        if not exchange.omit_body:
            if self.left is not None:
                check_length(len(data), self.left, more=more)
                self.left -= len(data)
            if data:
                exchange.write(data)
        if not more:
            self.complete()
            exchange.finish()

    def complete(self) -> None:
        """Mark the response as complete."""
        self.completed = self.started = True
        self.lose()


def check_length(came: int, left: int, *, more: bool = False) -> None:
    """Raise RuntimeError for a body that is not as long as the head of its response says."""
    if came > left or (came < left and not more):
        how = "longer" if came > left else "shorter"
        raise RuntimeError(f"Response content {how} than Content-Length: {came} bytes came, {left} were left")
