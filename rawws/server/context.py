"""Context: what the connections of a server need of it: its options, its counters, and who answers."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
import time
from dataclasses import replace
from types import CoroutineType
from typing import TYPE_CHECKING, Any, final

from rawws.errors import ConnectionClosed, HttpError, LocalProtocolError
from rawws.http.application import HttpApplication
from rawws.http.cors import CrossOrigin
from rawws.http.routes import Routes
from rawws.net.handlers import Handler
from rawws.net.keepalive import Keepalive
from rawws.net.settings import Settings
from rawws.net.waking import HandlerCoroutine
from rawws.protocol.deflate import Compression
from rawws.protocol.handshake import accept, check_connect, check_origin, check_upgrade
from rawws.protocol.http11 import serialize_fields, serialize_response
from rawws.protocol.opcodes import CloseCode

from .admission import REFUSALS, RETRY_AFTER, AdmissionControl, most_connections
from .forwarded import TrustedProxies, scheme_of
from .hosts import AllowedHosts
from .stats import ConnectionLog, ServerStats
from .upgrade import WebSocketTerms

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from rawws.http.exchange import Exchange
    from rawws.http.serving import RunningServer
    from rawws.net.websocket import WebSocket
    from rawws.protocol.handshake import Acceptance
    from rawws.protocol.http11 import HttpResponse, Request

    from .options import ServerHandler, ServerOptions
    from .proxy_header import ProxiedClient

__all__ = ["ServerContext", "WebSocketEndpoint"]

# What the tasks of handlers are called.
HANDLER = "rawws handler"


@final
class WebSocketEndpoint:
    """A handler of WebSockets, and the settings of its connections."""

    __slots__ = ("handler", "on_open", "settings")

    def __init__(self, handler: Any, settings: Settings) -> None:
        self.handler = handler
        self.on_open: Any = handler.on_open if isinstance(handler, Handler) else None
        self.settings = settings.with_callbacks(handler) if isinstance(handler, Handler) else settings


def settings_of(options: ServerOptions, loop: asyncio.AbstractEventLoop) -> Settings:
    """Return what the WebSockets of a server are told of its options."""
    settings = Settings(loop, options.logger or logging.getLogger("rawws.server"))
    settings.open_timeout = options.open_timeout or 0.0
    settings.close_timeout = options.close_timeout or 0.0
    settings.ping_interval = options.ping_interval or 0.0
    settings.ping_timeout = options.ping_timeout or 0.0
    settings.max_lifetime = options.max_lifetime or 0.0
    settings.message_rate = options.message_rate or 0.0
    settings.byte_rate = options.byte_rate or 0.0
    settings.hard_limit = sys.maxsize if options.hard_limit is None else options.hard_limit
    return settings


@final
class ServerContext:
    """What the connections of one server share."""

    def __init__(self, handler: ServerHandler, options: ServerOptions, loop: asyncio.AbstractEventLoop) -> None:
        self.options = options
        self.settings = settings = settings_of(options, loop)
        self.counters = settings.counters = ServerStats(ConnectionLog(settings.logger, access_log=options.access_log))
        self.admission = settings.admission = AdmissionControl(
            options.max_connections_per_address, options.handshake_rate
        )
        self.keepalive = Keepalive(settings)
        self.max_connections = options.max_connections or most_connections()
        self.keep_alive_timeout = options.keep_alive_timeout or 0.0
        self.proxies = TrustedProxies(options.trusted_proxies) if options.trusted_proxies else None
        # None for any name; where the server listens decides, if the option does not.
        self.hosts = AllowedHosts.of(options.hosts)
        self.cross_origin = CrossOrigin(options.origins)
        # What every response of an endpoint has, and every 101 besides what was negotiated, checked and written once.
        self.extra_fields = (("Server", options.server_header),) if options.server_header else ()
        self.extra_lines = serialize_fields(self.extra_fields)
        # `draining`: it was told to end; `closing`: it takes no new connections.
        self.draining = False
        self.closing = False
        # The server that endpoints see.
        self.server: RunningServer | None = None
        compression = Compression.of(options.compression)
        self.terms = WebSocketTerms(options.max_size, compression)
        # What is agreed on where `max_compression_memory` is used up: it holds none.
        self._lean = compression and replace(
            compression, server_no_context_takeover=True, client_no_context_takeover=True
        )
        memory = options.max_compression_memory
        self._compression_memory = sys.maxsize if memory is None else memory
        # What takes every connection, or else the table that tells.
        self.application = handler if isinstance(handler, HttpApplication) else None
        self.routes: Routes = handler if isinstance(handler, Routes) else Routes()
        # The same, or that beside the routes: what begins and ends with the server.
        self.lasting = self.application or self.routes.application
        tells = isinstance(handler, (Routes, HttpApplication))
        self.endpoint = None if tells else WebSocketEndpoint(handler, settings)
        self._endpoints: dict[int, WebSocketEndpoint] = {}
        memory = options.max_body_memory
        self._body_memory = sys.maxsize if memory is None else memory
        # Of the bodies of requests that are read, or answered.
        self.body_bytes = 0
        # Connections in their TLS handshake, and what is to be told to those that are too many.
        self.arriving: dict[WebSocket, HttpError | None] = {}
        # Connections of HTTP/2 that have streams: these count, in their place.
        self.carriers: set[WebSocket] = set()
        # Of WebSockets each with its connection.
        self.tasks: dict[asyncio.Task[Any], Any] = {}
        # Of these, the endpoints whose clients are gone: each counts as a connection.
        self.outliving: set[asyncio.Task[None]] = set()
        # One for all handlers: with one for each, and a copy of the context for it, a connection holds 300 bytes more.
        self._when_done = self._handler_done
        self._done_in = contextvars.copy_context()
        self._date = ""
        self._date_at = 0.0

    def arrive(self, ws: WebSocket) -> bool:
        """Count a connection that is still in its TLS handshake; tell whether to go on with that.

        It has its place from here on. What is wrong with it can be told behind the handshake only: `enter` does so.
        """
        try:
            counted = self._count(ws)
        except HttpError as error:
            self.arriving[ws] = error
            return True
        if counted:
            self.arriving[ws] = None
        return counted

    def enter(self, ws: WebSocket) -> bool:
        """Count a new connection; tell whether it is to be answered. Raises HttpError for one too many."""
        if ws not in self.arriving:
            return self._count(ws)
        error = self.arriving.pop(ws)
        if error is not None:
            raise error
        return True

    def _count(self, ws: WebSocket) -> bool:
        limit = self.max_connections
        count = len(self.settings.connections) - len(self.carriers) + len(self.outliving)
        over = 0 if limit is None else count - limit
        if over > REFUSALS:
            return False
        if over > 0:
            # RFC 9110 15.6.4: the server "is currently unable to handle the request due to a temporary overload"; it
            # "MAY send a Retry-After header field".
            headers = (("Retry-After", str(RETRY_AFTER)),)
            raise HttpError(503, f"there are {limit} connections, the limit", headers)
        if self.proxies is None:
            self.admission.enter(ws)
        return True

    # -- what is judged of a request before anybody answers it

    def judge(self, ws: WebSocket, request: Request, client: ProxiedClient) -> Any:
        """Judge a request by who sent it and by what name; return what `process_request` answers, None for nothing.

        `client` is who a PROXY header names.

        Raises HttpError for one that is refused.
        """
        if self.proxies is not None:
            # A proxy may send the requests of several clients over one connection.
            ws.remote, ws.secure = client
            self.proxies.apply(ws, request, client.address)
            self.admission.enter(ws)
        if self.hosts is not None:
            self.hosts.check(request)
        process = self.options.process_request
        if process is None:
            return None
        ws.lend_request(request)
        return process(ws, request)

    def shake_hands(self, ws: WebSocket, request: Request) -> str:
        """Judge the request of an opening handshake, and return its key. Raises HttpError for one that is refused."""
        self.admission.shake_hands(ws)
        key = check_upgrade(request)
        check_origin(request, self.options.origins, scheme_of(ws), "".join(request.headers.values_of("host")))
        return key

    def judge_connect(self, ws: WebSocket, request: Request) -> None:
        """Judge the extended CONNECT for a WebSocket. Raises HttpError for one that is refused."""
        self.admission.shake_hands(ws)
        check_connect(request)
        check_origin(request, self.options.origins, scheme_of(ws), "".join(request.headers.values_of("host")))

    # -- the opening handshake

    def accept(
        self,
        ws: WebSocket,
        request: Request,
        key: str,
        select: Callable[[WebSocket, list[str]], str | None] | None = None,
    ) -> Acceptance:
        """Negotiate with a client whose request is a good one; `select` is in the place of `select_subprotocol`."""
        select = select or self.options.select_subprotocol
        compression = self.terms.compression if self.admission.memory < self._compression_memory else self._lean
        accepted = accept(
            request,
            key,
            subprotocols=self.options.subprotocols,
            select_subprotocol=None if select is None else lambda offered: select(ws, offered),
            compression=compression,
        )
        if accepted.parameters is not None and compression is not None:
            self.admission.hold(ws, accepted.parameters, compression.memory_level)
        return accepted

    def response_head(self, ws: WebSocket, request: Request, accepted: Acceptance) -> bytes:
        """Return the 101 response, with what `process_response` adds to it."""
        if self.options.process_response is None:
            return accepted.serialize(self.extra_lines)
        return serialize_response(self.handshake_response(ws, request, accepted))

    def handshake_response(self, ws: WebSocket, request: Request, accepted: Acceptance) -> HttpResponse:
        """Return the 101 response as `process_response` has it, without header fields of the server."""
        process, response = self.options.process_response, accepted.response()
        if process is not None:
            response = process(ws, request, response) or response
            if response.status != 101:
                raise LocalProtocolError(f"process_response returned the status {response.status}, allowed is 101")
        return response

    # -- who answers

    def has_websockets(self) -> bool:
        """Tell whether there is anything that a WebSocket may be opened to over HTTP/2."""
        # Where it is offered and does not work, browsers do not fall back to HTTP/1.1.
        if self.options.http2 == "no-websocket":
            return False
        return self.endpoint is not None or self.application is not None or self.routes.has_websockets()

    def endpoint_of(self, handler: Any) -> WebSocketEndpoint:
        """Return the endpoint of a route for WebSockets."""
        endpoint = self._endpoints.get(id(handler))
        if endpoint is None:
            endpoint = self._endpoints[id(handler)] = WebSocketEndpoint(handler, self.settings)
        return endpoint

    def start_handler(self, ws: WebSocket, endpoint: WebSocketEndpoint) -> None:
        """Hand an open connection to the application."""
        ws.settings = endpoint.settings
        if endpoint.on_open is not None:
            try:
                endpoint.on_open(ws)
            except Exception as error:  # noqa: BLE001 - whatever a handler raises, it ends its own connection only
                ws.on_handler_error(error)
            return
        try:
            coroutine = endpoint.handler(ws)
            if coroutine is None:
                raise TypeError("handler returned None, needed is a coroutine: `async` is missing before its `def`")
            if isinstance(coroutine, CoroutineType):
                coroutine = HandlerCoroutine(coroutine)
            task = self.settings.loop.create_task(coroutine, name=HANDLER)
        except Exception as error:  # noqa: BLE001 - the handler is no coroutine function, or raised before it was one
            ws.on_handler_error(error)
            return
        ws.task = task
        self.tasks[task] = ws
        task.add_done_callback(self._when_done, context=self._done_in)

    def start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run what answers a request; `wait_closed` waits for it, too."""
        task = self.settings.loop.create_task(coroutine)
        self.tasks[task] = None
        task.add_done_callback(self.tasks.pop)
        return task

    def hold(self, exchange: Exchange, size: int) -> None:
        """Count so many bytes of a body. Raises HttpError with 503 for too many: never for one body alone.

        Where the request has a room, it raises what that does.
        """
        room = exchange.request.body_room
        if room is not None:
            room.take(exchange.held, size)
        exchange.held += size
        self.body_bytes += size
        if self.body_bytes > self._body_memory and self.body_bytes > exchange.held:
            headers = (("Retry-After", str(RETRY_AFTER)),)
            raise HttpError(503, f"the bodies of all requests are over {self._body_memory} bytes, the limit", headers)

    def outlive(self, task: asyncio.Task[None]) -> None:
        """Count an endpoint whose client is gone as a connection, until it is done."""
        self.outliving.add(task)
        task.add_done_callback(self.outliving.discard)

    def _handler_done(self, task: asyncio.Task[Any]) -> None:
        """Close the connection of a handler that returned with 1000, of one that raised with 1011."""
        ws: WebSocket = self.tasks.pop(task)
        ws.task = None
        if task.cancelled() and not task.cancelling():
            # Nobody ended the handler: what it waited for was cancelled.
            ws.on_handler_error(RuntimeError("what the handler waited for is cancelled"))
            return
        error = None if task.cancelled() else task.exception()
        if error is None:
            ws.close(CloseCode.NORMAL_CLOSURE)
        elif isinstance(error, ConnectionClosed) and ws.handler is None and ws.connection.phase:
            # The handler ended because its connection did, which is no fault of it.
            ws.close(CloseCode.NORMAL_CLOSURE)
        elif isinstance(error, Exception):
            ws.on_handler_error(error)

    # -- responses

    def log_failure(self, request: str, error: BaseException) -> None:
        """Log a fault of this side, in what answers a request."""
        what = "opening handshake failed" if self.endpoint is not None else "request failed"
        self.settings.logger.error("%s: %s", what, request, exc_info=error)

    def date(self) -> str:
        """Return the value of the Date header, made once a second."""
        now = time.time()
        if now >= self._date_at + 1:
            self._date_at = float(int(now))
            from email.utils import formatdate  # noqa: PLC0415 - a server of WebSockets alone sends no Date

            self._date = formatdate(now, usegmt=True)
        return self._date
