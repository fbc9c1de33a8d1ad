"""HTTP/1.1: the octets of one connection to exchanges, or the last one to a WebSocket (RFC 9112 section 9).

Laws:
1. One after the other: while a response is due, what follows its request is held, up to a limit, and then not read.
2. After a refusal nothing is processed: what follows it may be the smuggled second half of a request.
3. The server of one handler answers one request; that of Routes goes on as long as the client wants.
4. Whatever a hook, an endpoint or a client does, it ends its own connection only.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, final

from rawws.errors import HttpError
from rawws.http.cors import without_permission
from rawws.http.exchange import BODILESS, HELD, PATIENCE, Exchange
from rawws.http.requests import HttpRequest
from rawws.http.routes import NO_PARAMS
from rawws.net.transports import close_transport
from rawws.protocol.bodies import Body
from rawws.protocol.handshake import refusal
from rawws.protocol.http11 import Headers, HeadReader, HttpResponse, Request, content_length, parse_request

from . import heads
from .connection import BUSY, ENDED, FAILED, LINGER, READING, UNKNOWN_CLIENT, ServerConnection
from .forwarded import scheme_of
from .http2 import Http2Connection, alpn_of
from .upgrade import WebSocketUpgrade, open_websocket, read_on, serialize_accept

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from rawws.http.application import HttpApplication
    from rawws.http.exchange import ExchangeObserver
    from rawws.http.routes import Resource
    from rawws.net.websocket import WebSocket
    from rawws.protocol.handshake import Acceptance

    from .context import ServerContext, WebSocketEndpoint
    from .proxy_header import ProxiedClient

__all__ = ["Http1Connection"]

# So many requests of one connection are answered before the others have a turn: about 1 ms.
BATCH = 32
# Of a chunked body, so much at a time: 16 KiB may be 2,700 chunks, which take 10 ms.
SLICE = 16384
NO_BODY = Body(Headers(), max_size=None)


@final
class Http1Connection(ServerConnection):
    """The HTTP side of one connection, up to its end or to a WebSocket."""

    __slots__ = ("body", "half_closed", "held", "modern", "persistent", "reader")

    def __init__(self, context: ServerContext, client: ProxiedClient = UNKNOWN_CLIENT) -> None:
        super().__init__(context, client)
        self.reader: HeadReader | None = HeadReader()
        # Of the request that is read or answered: its body, whether it is of HTTP/1.1, whether the connection outlasts
        # it.
        self.body = NO_BODY
        self.modern, self.persistent = False, False
        # What came behind it, and whether nothing comes behind that.
        self.held = b""
        self.half_closed = False

    def begin(self, ws: WebSocket) -> None:
        """Begin with a new connection. That is HTTP/2, where the TLS handshake said so (RFC 9113 section 3.2)."""
        self.ws = ws
        if self.client is not UNKNOWN_CLIENT:
            ws.remote, ws.secure = self.client
        ws.set_deadline(self.context.settings.open_timeout)
        self.context.settings.connections.add(ws)
        self.context.keepalive.start()
        self.context.counters.accepted += 1
        if self.context.closing:
            # It came while the listeners closed: in TLS, a handshake later.
            ws.abort()
        elif alpn_of(ws) == "h2":
            self._speak_http2(b"")
        else:
            self.attempt(self._enter)

    def _enter(self) -> None:
        if not self.context.enter(self.ws):
            self.phase = ENDED
            self.ws.abort()

    def _speak_http2(self, came: bytes) -> None:
        """Leave the connection to HTTP/2, of which this came already."""
        self.phase, self.reader = ENDED, None
        self.ws.handler = connection = Http2Connection(self.context, self.client)
        connection.begin(self.ws)
        if came:
            connection.receive(came)

    # -- reading

    def receive(self, data: bytes) -> None:
        """Take what came."""
        if self.phase == READING:
            self.ws.corked = True
            self._advance(data)
        elif self.phase == BUSY:
            exchange = self.exchange
            if exchange is not None and exchange.sink is not None and not self.body.done:
                data = self.attempt(self._read_body, exchange, data)
            if data:
                self._hold(data)

    def _advance(self, data: bytes) -> None:
        """Process what came, up to a request whose response is due later; then write what it gave."""
        turn = self.context.settings.shared.turn
        for number in range(BATCH):
            exchange = self.exchange
            over = number > 0 and exchange is None and turn.is_over()
            if not data or self.phase != READING or self.ws.congested or over:
                break
            if exchange is None:
                data = self.attempt(self._read_head, data)
            elif len(data) > SLICE and "Transfer-Encoding" in exchange.request.headers:
                data = self.attempt(self._read_body, exchange, data[:SLICE]) + data[SLICE:]
                break
            else:
                data = self.attempt(self._read_body, exchange, data)
        self.ws.corked = False
        self.ws.flush()
        if self.phase == READING and (data or self.ws.congested):
            # The other connections have a turn, or the client has to read what it was answered.
            self.phase = BUSY
            self._hold(data)
            if self.ws.congested:
                self.set_deadline(PATIENCE)
                self.task = self.context.start(self._catch_up())
            else:
                turn.wait(self._resume)
        elif data and self.phase == BUSY:
            self._hold(data)

    def _hold(self, data: bytes) -> None:
        self.held += data
        if len(self.held) > HELD:
            self.ws.pause_reading()

    def _resume(self) -> None:
        """Go on with what was held."""
        if self.phase == BUSY:
            self._read_on()

    def _read_on(self, step: Callable[..., bytes] | None = None, *arguments: Any) -> None:
        self.phase = READING
        data, self.held = self.held, b""
        self.ws.resume_reading()
        self.ws.corked = True
        self._advance(data if step is None else self.attempt(step, *arguments, data))

    async def _catch_up(self) -> None:
        """Go on when the client has read what it was answered."""
        await self.ws.wait_drained()
        self.task = None
        self._resume()

    def _read_head(self, data: bytes) -> bytes:
        reader = self.reader
        if reader is None:
            # The next request begins: from here on it must not take too long.
            reader = self.reader = HeadReader()
            self.set_deadline(self.context.settings.open_timeout)
        try:
            if not reader.receive(data):
                return b""
            request = parse_request(reader.head)
        except HttpError as error:
            # RFC 9113 3.3: a client with prior knowledge of HTTP/2 sends its preface at once, and that looks like a
            # request. Behind a response it is none: then it is what RFC 9112 says. And in TLS, 3.2: "HTTP/2 over TLS
            # uses the "h2" protocol identifier", which would have been agreed on.
            if error.status == 505 and self.context.options.http2 and not self.ws.bytes_sent:
                if self.ws.extra("ssl_object") is None and reader.begins_with(b"PRI * HTTP/2.0\r\n"):
                    self._speak_http2(reader.received())
                    return b""
            raise
        # The reader stays for as long as the request is read; what came of a body has its own place, and its limit.
        rest, reader.rest = reader.rest, b""
        answer = self.context.judge(self.ws, request, self.client)
        if answer is not None and inspect.isawaitable(answer):
            # More must not arrive meanwhile; the deadline of the handshake goes on.
            self.ws.pause_reading()
            self.phase = BUSY
            self.held = rest
            self.task = self.context.settings.loop.create_task(self._wait(request, answer))
            return b""
        return self._go_on(request, answer, rest)

    async def _wait(self, request: Request, answer: Awaitable[Any]) -> None:
        """Wait for process_request."""
        response = await self.decided(answer)
        if self.phase == BUSY:
            self._read_on(self._go_on, request, response)

    def _go_on(self, request: Request, response: Any, rest: bytes) -> bytes:
        """Answer a request as `process_request` said, or by its endpoint; return what is left of what came."""
        context = self.context
        if self.hooked(response):
            return b""
        if context.closing:
            raise HttpError(503, "the server is shutting down")
        if context.application is not None:
            return self._hand_over(context.application, request, rest)
        endpoint = context.endpoint
        if endpoint is None:
            resource, path_params = context.routes.resource_of(request)
            if resource.application is not None:
                return self._hand_over(resource.application, request, rest)
            # RFC 9110 7.8: "A server MAY ignore a received Upgrade header field if it wishes to continue using the
            # current protocol on that connection": so where there is no WebSocket, and for other protocols.
            if resource.websocket is None or (resource.methods and not heads.asks_for_websocket(request.headers)):
                return self._begin_exchange(resource, self.request_of(request, path_params), rest)
            endpoint = context.endpoint_of(resource.websocket)
            self.ws.path_params = path_params
        self._open(request, endpoint, rest)
        return b""

    def head(self) -> bytes:
        """Return what was read of the head of the request that is read now."""
        return b"" if self.reader is None else self.reader.head

    # -- WebSocket

    def _open(self, request: Request, endpoint: WebSocketEndpoint, rest: bytes) -> None:
        """Do the opening handshake (RFC 6455 section 4.2)."""
        context, ws = self.context, self.ws
        key = context.shake_hands(ws, request)
        ws.request_head = self.head()
        accepted = context.accept(ws, request, key)
        ws.subprotocol = accepted.subprotocol
        self.switch(accepted, context.response_head(ws, request, accepted))
        context.start_handler(ws, endpoint)
        read_on(ws, rest)

    def switch(self, accepted: Acceptance, head: bytes) -> None:
        """Answer 101 with this head: from here on there is a WebSocket. `read_on` is to follow."""
        self.phase = ENDED
        self.observer = None
        self.ws.flush()
        open_websocket(self.ws, accepted, head, self.context.terms)
        self.context.counters.open(self.ws)

    def agree(self, accepted: Acceptance, fields: Iterable[tuple[str, str]]) -> None:
        """Answer 101 with what an application agreed to, and read on."""
        self.switch(accepted, serialize_accept(accepted, fields, self.context.extra_lines))
        read_on(self.ws, self.held)

    # -- exchanges

    def new_exchange(self, request: HttpRequest) -> Exchange:
        """Begin an exchange."""
        self.persistent = heads.persists(request.head)
        self.modern = request.head.http_version == "1.1"
        self.body = NO_BODY
        self.line = self.head() if self.context.counters.log.access else b""
        self.exchange = Exchange(self, self.ws, self.context, request)
        return self.exchange

    def _hand_over(self, application: HttpApplication, head: Request, rest: bytes) -> bytes:
        """Have an application answer a request, whose body it gets as it comes; return what is left of what came."""
        request, headers = self.request_of(head, NO_PARAMS), head.headers
        if heads.asks_for_websocket(headers):
            key = self.context.shake_hands(self.ws, head)
            self.ws.request_head = self.head()
            # Nothing is read before the application decides; the deadline of the handshake goes on.
            self.ws.pause_reading()
            self.phase, self.held = BUSY, rest
            self.observer = application.open(WebSocketUpgrade(self, request, key))
            return b""
        exchange = self.new_exchange(request)
        exchange.fields = self.context.extra_fields
        self.body = Body(headers, max_size=self.context.options.max_size)
        heads.expects_continue(head)
        self.leave_request()
        self.observer = exchange.sink = application.begin(exchange, request)
        if self.body.done:
            exchange.sink.feed(b"", whole=True)
            return rest
        return self._read_body(exchange, rest)

    def _begin_exchange(self, resource: Resource, request: HttpRequest, rest: bytes) -> bytes:
        """Begin with a request that an endpoint answers; return what is left of what came."""
        headers, max_size = request.headers, self.context.options.max_size
        exchange = self.exchange_with(resource, request)
        if "Content-Length" in headers or "Transfer-Encoding" in headers:
            self.body = Body(headers, max_size=max_size)
        if self.objects(resource, exchange, whole=self.body.done):
            return rest
        # RFC 9110 10.1.1: a server "MAY omit sending a 100 (Continue) response if it has already received some or all
        # of the content".
        if heads.expects_continue(request.head) and not self.body.done and not rest:
            self.send_continue()
        if self.body.done:
            self.call(exchange)
        else:
            self.wait_for_body(content_length(headers) or max_size or 0)
        return rest

    def _read_body(self, exchange: Exchange, data: bytes) -> bytes:
        body = self.body
        if exchange.sink is not None:
            exchange.sink.feed(body.receive(data), whole=body.done)
            return body.rest
        self.keep(exchange, body.receive(data))
        if not body.done:
            return b""
        exchange.request.body = bytes(exchange.content)
        self.call(exchange)
        return body.rest

    def leave_request(self) -> None:
        """Leave the request behind: from here on a response is due."""
        self.reader = None
        ServerConnection.leave_request(self)

    # -- what the exchange calls

    def observe(self, observer: ExchangeObserver) -> None:
        """Have this told of the ends of the exchange, also of one that came before it."""
        ServerConnection.observe(self, observer)
        if self.half_closed:
            self.ws.resume_reading()

    def send_response(self, exchange: Exchange, response: HttpResponse) -> None:
        """Send a response that is whole, and go on with the next request."""
        if heads.says_close(response.headers):
            self.persistent = False
        self.ws.gather(self._serialize(response))
        self.finish(exchange)

    def send_head(self, exchange: Exchange, response: HttpResponse) -> bool:
        """Begin a response whose body is as long as its head says, if it does; tell whether it is sent in chunks."""
        chunked = "Content-Length" not in response.headers and response.status not in BODILESS
        if (chunked and not self.modern) or heads.says_close(response.headers):
            self.persistent = False
        head = self._serialize(heads.with_chunks(response) if chunked else response)
        exchange.started = True
        self.ws.gather(head if self.modern else heads.without_chunks(head))
        return self.modern and chunked

    def send_stream_head(self, exchange: Exchange, fields: tuple[tuple[str, str], ...]) -> bool:
        """Begin a response of 200 with these fields and no known end; tell whether it is sent in chunks."""
        exchange.started = True
        self.context.counters.respond(self.ws, self.line, 200, "-")
        exchange.answered(200)
        lines = heads.field_lines(fields)
        if self.modern:
            lines += b"Transfer-Encoding: chunked\r\n"
        else:
            self.persistent = False
        own = self._connection_line() + heads.field_lines(exchange.fields)
        self.ws.gather(b"HTTP/1.1 200 OK\r\nDate: %b\r\n%b%b\r\n" % (self.context.date().encode(), own, lines))
        return self.modern

    def send_continue(self) -> None:
        """Have the client send the body that it announced (RFC 9110 section 15.2.1)."""
        self.ws.gather(b"HTTP/1.1 100 Continue\r\n\r\n")

    def finish(self, exchange: Exchange) -> None:
        """Go on behind a response that is complete."""
        exchange.end()
        persistent = self.persistent and not self.context.closing
        self.exchange = self.observer = None
        if not persistent:
            self._end()
            return
        self.set_deadline(self.context.keep_alive_timeout)
        if self.held:
            self.context.settings.loop.call_soon(self._resume)
        else:
            self.phase = READING
            if self.half_closed:
                self.ws.resume_reading()

    # -- responses

    def _connection_line(self) -> bytes:
        if self.exchange is None or not self.persistent or self.context.closing:
            return heads.CLOSE
        return b"" if self.modern else b"Connection: keep-alive\r\n"

    def _serialize(self, response: HttpResponse) -> bytes:
        exchange, context = self.exchange, self.context
        if exchange is None:
            # A refusal has no body either where the request is HEAD, whatever else is wrong with it.
            omit_body = self.reader is not None and self.reader.begins_with(b"HEAD ")
            head, fields = self.head(), self._permission()
        else:
            head, fields, omit_body = self.line, exchange.fields, exchange.omit_body
        own = heads.field_lines(without_permission(fields, response.headers))
        data = heads.serialize_whole(response, context.date(), self._connection_line(), own, omit_body=omit_body)
        size: object = 0
        if context.counters.log.access:
            size = len(response.body) or next(iter(response.headers.get_all("Content-Length")), 0)
        context.counters.respond(self.ws, head, response.status, size)
        if exchange is not None:
            exchange.answered(response.status)
        return data

    def _permission(self) -> tuple[tuple[str, str], ...]:
        """Return the header fields that let the page of a listed origin read what no endpoint answers."""
        try:
            request = parse_request(self.head())
        except HttpError:
            return ()
        return self.context.cross_origin.fields_of_refusal(request, scheme_of(self.ws))

    def respond_last(self, response: HttpResponse) -> None:
        """Send a response, and end the connection once the peer has it."""
        self.persistent = False
        if self.ws.lost:
            self.phase = ENDED
            return
        try:
            data = self._serialize(response)
        except Exception as error:  # noqa: BLE001 - a response that an application made and that is none
            self.log(error)
            self.context.counters.refuse(self.ws, FAILED, self.head())
            data = self._serialize(refusal(FAILED))
        self.ws.gather(data)
        self._end()

    def _end(self) -> None:
        """End the connection once the peer has all that was written."""
        ws = self.ws
        self.leave()
        self.exchange = self.observer = None
        # A client that stays for a while keeps nothing of what it sent: a read may be as long as 256 KiB.
        self.reader, self.held = None, b""
        self.ws.flush()
        if ws.lost:
            return
        self.set_deadline(PATIENCE if ws.buffered else LINGER)
        if self.context.closing:
            ws.set_deadline(self.context.settings.close_timeout)
        ws.resume_reading()
        # Closing with unread bytes resets the connection, and the reset may overtake the response.
        if not ws.end_writing():
            close_transport(ws.transport)

    # -- ends

    def cut(self) -> None:
        """End the connection in the middle of a response, behind what was written of it."""
        self.leave()
        self.ws.flush()
        self.set_deadline(LINGER)
        close_transport(self.ws.transport)

    def receive_eof(self) -> bool:
        """Tell whether requests that came whole are still to be answered: their client may have ended its side alone.

        A client that is gone looks alike: `Exchange.half_close` knows where that is to be noticed.
        """
        # What was answered in this turn goes first.
        self.ws.flush()
        exchange = self.exchange
        if self.phase != BUSY or not self.ws.transport.can_write_eof():
            # Nothing whole is left, or it is TLS, of which the loop ends both sides.
            return False
        # Without an exchange, what is held has its turn soon; with an observer, it opens a WebSocket.
        self.half_closed = self.observer is None if exchange is None else exchange.half_close()
        if self.half_closed:
            # Whoever resumes reading is told of the end again.
            self.ws.pause_reading()
        return self.half_closed

    def lose(self) -> None:
        """End the exchange, its task and its observer: the connection has ended."""
        super().lose()
        self.reader, self.held = None, b""

    def expire_reading(self) -> None:
        """End a connection that is silent, or whose request did not arrive in time."""
        if self.reader is None:
            self.phase = ENDED
            close_transport(self.ws.transport)
        else:
            super().expire_reading()
