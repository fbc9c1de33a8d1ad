"""Stream requests: one request and its response on a stream of its own, or a WebSocket there (RFC 9113 8, RFC 8441).

It stands where the connection of HTTP/1.1 stands, under the same exchanges, with one request and no framing.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Protocol, final

from rawws.errors import HttpError
from rawws.http.cors import without_permission
from rawws.http.exchange import BODILESS, PATIENCE, Exchange
from rawws.http.routes import NO_PARAMS
from rawws.net.transports import close_transport
from rawws.protocol.handshake import refusal
from rawws.protocol.http11 import Headers, HttpResponse, content_length, serialize_fields
from rawws.protocol.priorities import parse_priority

from . import heads
from .connection import BUSY, ENDED, FAILED, LINGER, READING, ServerConnection
from .forwarded import scheme_of
from .upgrade import WebSocketUpgrade, checked_fields, open_websocket, read_on

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable

    from rawws.http.application import HttpApplication
    from rawws.http.exchange import ExchangeObserver
    from rawws.http.requests import HttpRequest
    from rawws.http.routes import Resource
    from rawws.net.streams import StreamTransport
    from rawws.net.websocket import WebSocket
    from rawws.protocol.handshake import Acceptance
    from rawws.protocol.http11 import Request

    from .context import ServerContext, WebSocketEndpoint
    from .proxy_header import ProxiedClient

__all__ = ["RequestCarrier", "StreamRequests"]

# RFC 9113 8.2.2: what says of a connection of HTTP/1.1 how it is used. An application that writes it means no harm.
CONNECTION_FIELDS = frozenset({"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"})
# RFC 8441 5: of the handshake's own fields, these are about the connection that is not switched here.
SWITCH_FIELDS = CONNECTION_FIELDS | {"sec-websocket-accept"}


class RequestCarrier(Protocol):
    """What a request needs of the connection that carries its stream."""

    def send_head(self, stream: StreamTransport, status: int, fields: Headers) -> None:
        """Send the head of a response: any number with a status below 200, and one other."""

    def enter(self, stream: StreamTransport, ws: WebSocket) -> None:
        """Count a stream. Raises HttpError for one too many."""

    def check_lasting(self, stream: StreamTransport) -> None:
        """Raise HttpError where there are too many streams already that last."""


@final
class StreamRequests(ServerConnection):
    """The HTTP side of one stream, up to its end or to a WebSocket."""

    __slots__ = ("_request", "carrier", "limit", "received", "transport", "whole")

    def __init__(
        self, context: ServerContext, client: ProxiedClient, carrier: RequestCarrier, transport: StreamTransport
    ) -> None:
        super().__init__(context, client)
        self.carrier = carrier
        self.transport = transport
        self._request: Request | None = None
        # Whether all of the body is here, how much is, and how much may be.
        self.whole = False
        self.received = 0
        self.limit = context.options.max_size

    def begin(self, ws: WebSocket) -> None:
        """Begin with a new stream."""
        self.ws = ws
        ws.remote, ws.secure = self.client
        ws.set_deadline(self.context.settings.open_timeout)
        self.context.settings.connections.add(ws)

    # -- reading

    def receive_request(self, request: Request, protocol: str | None, whole: bool) -> None:
        """Take the request; `protocol` is that of an extended CONNECT, `whole` tells that it has no body."""
        self.ws.corked = True
        self.whole = whole
        websocket = protocol is not None and protocol.lower() == "websocket"
        if websocket:
            # From here on it is the request of an opening handshake as any other.
            request = request._replace(method="GET")
        self._request = request
        # What was a CONNECT is ended by its client, too, also where it is refused.
        self.transport.tunnel = protocol is not None
        priority = parse_priority(request.headers.get_all("Priority"))
        self.transport.urgency, self.transport.incremental = priority
        if request.method == "CONNECT":
            # RFC 9110 15.6.2: 501 "is the appropriate response when the server does not recognize the request method
            # and is not capable of supporting it".
            protocols = "this server is no proxy" if protocol is None else f":protocol is {protocol[:64]!r}"
            self.attempt(self._reject, HttpError(501, f"the method is CONNECT, {protocols}"))
        else:
            self.attempt(self._judge, request, websocket)
        self.ws.corked = False
        self.ws.flush()

    def refuse_head(self, size: int, limit: int, whole: bool) -> None:
        """Answer a request whose header fields are too large to be looked at."""
        self.whole = whole
        self.attempt(self._reject, HttpError(431, f"the header fields have {size} bytes, limit {limit}"))
        self.ws.flush()

    def _reject(self, error: HttpError) -> None:
        """Raise what is wrong with a request. Its stream counts before: it is there until the client ends it, too."""
        self.carrier.enter(self.transport, self.ws)
        raise error

    def _judge(self, request: Request, websocket: bool) -> None:
        self.carrier.enter(self.transport, self.ws)
        answer = self.context.judge(self.ws, request, self.client)
        if answer is not None and inspect.isawaitable(answer):
            # The body waits; the deadline of the request goes on.
            self.ws.pause_reading()
            self.phase = BUSY
            self.task = self.context.settings.loop.create_task(self._wait(request, websocket, answer))
        else:
            self._go_on(request, websocket, answer)

    async def _wait(self, request: Request, websocket: bool, answer: Awaitable[Any]) -> None:
        response = await self.decided(answer)
        if self.phase == BUSY:
            self.phase = READING
            self.ws.resume_reading()
            self.attempt(self._go_on, request, websocket, response)
            self.ws.flush()

    def _go_on(self, request: Request, websocket: bool, response: Any) -> None:
        """Answer a request as `process_request` said, or by its endpoint."""
        context = self.context
        if self.hooked(response):
            return
        if context.closing:
            raise HttpError(503, "the server is shutting down")
        resource, path_params, application = None, NO_PARAMS, context.application
        if application is None and context.endpoint is None:
            resource, path_params = context.routes.resource_of(request)
            application = resource.application
        if application is not None:
            self._hand_over(application, request, websocket)
        elif resource is not None and (resource.websocket is None or (resource.methods and not websocket)):
            if websocket:
                # RFC 6455 4.2.2: "it MUST return an appropriate HTTP error code (e.g., 403 Forbidden)".
                raise HttpError(403, "there is no WebSocket at this path")
            self._begin_exchange(resource, request, path_params)
        elif not websocket:
            raise HttpError(
                501, "there is a WebSocket at this path, needed is CONNECT with the protocol websocket (RFC 8441)"
            )
        else:
            self.ws.path_params = path_params
            endpoint = context.endpoint if resource is None else context.endpoint_of(resource.websocket)
            self._open(request, endpoint)

    def receive(self, data: bytes) -> None:
        """Take what came of the body."""
        exchange = self.exchange
        if exchange is None:
            return
        self.ws.corked = True
        self.attempt(self._read_body, exchange, data, False)
        self.ws.corked = False
        self.ws.flush()

    def receive_eof(self) -> bool:
        """Take the end of the body: the client sends no more on this stream, which ends by itself."""
        exchange, whole = self.exchange, self.whole
        self.whole = True
        if exchange is not None and not whole:
            self.ws.corked = True
            self.attempt(self._read_body, exchange, b"", True)
            self.ws.corked = False
            self.ws.flush()
        return False

    def _read_body(self, exchange: Exchange, data: bytes, whole: bool) -> None:
        self.received += len(data)
        if self.limit is not None and self.received > self.limit:
            raise HttpError(413, f"the body is over {self.limit} bytes, the limit")
        if exchange.sink is not None:
            exchange.sink.feed(data, whole=whole)
            return
        self.keep(exchange, data)
        if whole:
            exchange.request.body = bytes(exchange.content)
            self.call(exchange)

    def head(self) -> bytes:
        """Return the head of the request as HTTP/1.1 would have it."""
        request = self._request
        if request is None:
            return b""
        line = f"{request.method} {request.path} HTTP/2\r\n".encode("latin-1")
        return b"%b%b\r\n" % (line, serialize_fields(request.headers.raw_items()))

    # -- WebSocket

    def _open(self, request: Request, endpoint: WebSocketEndpoint | None) -> None:
        """Do the opening handshake (RFC 8441 section 5)."""
        assert endpoint is not None  # noqa: S101 - there is one, or routes
        context, ws = self.context, self.ws
        self._check_connect(request)
        accepted = context.accept(ws, request, "")
        response = context.handshake_response(ws, request, accepted)
        self._switch(accepted, [*context.extra_fields, *response.headers.raw_items()])
        context.start_handler(ws, endpoint)

    def _check_connect(self, request: Request) -> None:
        self.carrier.check_lasting(self.transport)
        self.context.judge_connect(self.ws, request)
        if self.whole:
            raise HttpError(400, "the stream ends with the request, a WebSocket would end with it")
        self.ws.request_head = self.head()

    def _switch(self, accepted: Acceptance, fields: Iterable[tuple[str, str]]) -> None:
        """Answer 200: from here on there is a WebSocket."""
        self.phase = ENDED
        self.observer = None
        self.transport.incremental = True
        # RFC 8441 5: "a 2xx response", in the place of 101.
        answer = Headers([field for field in fields if field[0].lower() not in SWITCH_FIELDS])
        self.carrier.send_head(self.transport, 200, answer)
        open_websocket(self.ws, accepted, b"", self.context.terms)
        self.context.counters.open(self.ws)

    def agree(self, accepted: Acceptance, fields: Iterable[tuple[str, str]]) -> None:
        """Answer 200 with what an application agreed to, and read on."""
        self._switch(accepted, [*accepted.fields, *self.context.extra_fields, *checked_fields(fields)])
        read_on(self.ws)

    # -- exchanges

    def new_exchange(self, request: HttpRequest) -> Exchange:
        """Begin an exchange."""
        self.line = self.head() if self.context.counters.log.access else b""
        self.exchange = Exchange(self, self.ws, self.context, request)
        return self.exchange

    def _hand_over(self, application: HttpApplication, request: Request, websocket: bool) -> None:
        """Have an application answer a request, whose body it gets as it comes."""
        if websocket:
            self._check_connect(request)
            # Nothing is read before the application decides; the deadline of the handshake goes on.
            self.ws.pause_reading()
            self.phase = BUSY
            self.observer = application.open(WebSocketUpgrade(self, self.request_of(request, NO_PARAMS), ""))
            return
        exchange = self.new_exchange(self.request_of(request, NO_PARAMS))
        exchange.fields = self.context.extra_fields
        self._check_length(request)
        heads.expects_continue(request)
        self.leave_request()
        self.observer = exchange.sink = application.begin(exchange, exchange.request)
        if self.whole:
            exchange.sink.feed(b"", whole=True)

    def _begin_exchange(self, resource: Resource, request: Request, path_params: Any) -> None:
        """Begin with a request that an endpoint answers."""
        exchange = self.exchange_with(resource, self.request_of(request, path_params))
        size = self._check_length(request)
        expects = heads.expects_continue(request)
        if self.objects(resource, exchange, whole=self.whole):
            return
        if self.whole:
            self.call(exchange)
            return
        if expects:
            self.send_continue()
        self.wait_for_body(size)

    def _check_length(self, request: Request) -> int:
        """Return how long the body may be. Raises HttpError with 413 for one that says that it is too long."""
        length = content_length(request.headers)
        if length is not None and self.limit is not None and length > self.limit:
            raise HttpError(413, f"the body is {length} bytes, the limit is {self.limit}")
        return self.limit or 0 if length is None else length

    # -- what the exchange calls

    def observe(self, observer: ExchangeObserver) -> None:
        """Have this told of the ends of the exchange. Raises HttpError where too many streams last already."""
        if observer.kind != "http":
            self.carrier.check_lasting(self.transport)
            # Whatever the client says: one that lasts would hold up all behind it.
            self.transport.incremental = True
        self.observer = observer

    def send_response(self, exchange: Exchange, response: HttpResponse) -> None:
        """Send a response that is whole."""
        self._send(response)
        self.finish(exchange)

    def send_head(self, exchange: Exchange, response: HttpResponse) -> bool:
        """Begin a response; it has no chunks."""
        self._send_head(response, response.headers.raw_items())
        exchange.started = True
        return False

    def send_stream_head(self, exchange: Exchange, fields: tuple[tuple[str, str], ...]) -> bool:
        """Begin a response of 200 with these fields and no known end; it has no chunks."""
        self._send_head(HttpResponse(200, Headers(fields)), fields)
        exchange.started = True
        return False

    def send_continue(self) -> None:
        """Have the client send the body that it announced (RFC 9110 section 15.2.1)."""
        self.carrier.send_head(self.transport, 100, Headers())

    def finish(self, exchange: Exchange) -> None:
        """End the stream behind a response that is complete."""
        exchange.end()
        self.exchange = self.observer = None
        self._end()

    # -- responses

    def _send(self, response: HttpResponse) -> None:
        """Send a response, with its body unless there is none. Raises what is wrong with it before."""
        status, body = response.status, response.body
        if not isinstance(body, bytes):
            raise TypeError(f"the body is of type {type(body).__name__}, bytes are needed")
        fields = list(response.headers.raw_items())
        if status not in BODILESS and status >= 200 and "Content-Length" not in response.headers:
            fields.append(("Content-Length", str(len(body))))
        self._send_head(response, fields)
        exchange = self.exchange
        omit_body = exchange.omit_body if exchange is not None else self._request is not None and self._is_head()
        if body and not omit_body:
            self.ws.gather(body)

    def _is_head(self) -> bool:
        return self._request is not None and self._request.method == "HEAD"

    def _send_head(self, response: HttpResponse, fields: Iterable[tuple[str, str]]) -> None:
        exchange, context = self.exchange, self.context
        own = self._permission() if exchange is None else exchange.fields
        answer = Headers([field for field in fields if field[0].lower() not in CONNECTION_FIELDS])
        if "Date" not in answer:
            answer["Date"] = context.date()
        for name, value in without_permission(own, response.headers):
            answer[name] = value
        self.carrier.send_head(self.transport, response.status, answer)
        size: object = "-"
        if context.counters.log.access:
            size = len(response.body) or next(iter(response.headers.get_all("Content-Length")), "-")
        context.counters.respond(self.ws, self.line or self.head(), response.status, size)
        if exchange is not None:
            exchange.answered(response.status)

    def _permission(self) -> tuple[tuple[str, str], ...]:
        """Return the header fields that let the page of a listed origin read what no endpoint answers."""
        if self._request is None:
            return ()
        return self.context.cross_origin.fields_of_refusal(self._request, scheme_of(self.ws))

    def respond_last(self, response: HttpResponse) -> None:
        """Send a response, and end the stream."""
        if self.ws.lost or self.transport.is_closing():
            self.phase = ENDED
            return
        try:
            self._send(response)
        except Exception as error:  # noqa: BLE001 - a response that an application made and that is none
            self.log(error)
            self.context.counters.refuse(self.ws, FAILED, self.head())
            self._send(refusal(FAILED))
        self._end()

    def _end(self) -> None:
        """End the stream once the peer has all that was written."""
        ws = self.ws
        self.leave()
        self.exchange = self.observer = None
        ws.flush()
        if ws.lost:
            return
        self.set_deadline(PATIENCE if ws.buffered else LINGER)
        if self.context.closing:
            ws.set_deadline(self.context.settings.close_timeout)
        close_transport(ws.transport)

    # -- ends

    def cut(self) -> None:
        """End the stream in the middle of a response, so that nobody takes a part for the whole."""
        self.leave()
        self.ws.flush()
        self.set_deadline(LINGER)
        self.transport.cut()
