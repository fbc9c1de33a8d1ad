"""Exchange: the HTTP requests of one connection to responses, or the last one to a WebSocket (RFC 9112 section 9).

Laws:
1. One after the other: while a response is due, what follows its request is held, up to a limit, and then not read.
2. After a refusal nothing is processed: what follows it may be the smuggled second half of a request.
3. The server of one handler answers one request; that of Routes goes on as long as the client wants.
4. Whatever a hook, an endpoint or a client does, it ends its own connection only.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, BinaryIO, final

from rawws import clock
from rawws.errors import HandshakeError
from rawws.http.event_stream import EventStream
from rawws.http.long_poll import LongPoll
from rawws.http.requests import HttpRequest
from rawws.http.responses import FileResponse, as_response
from rawws.net.transports import close_transport
from rawws.net.websocket import NO_PARAMS
from rawws.protocol.bodies import Body
from rawws.protocol.connection import Connection, Role
from rawws.protocol.deflate import PerMessageDeflate
from rawws.protocol.extensions import parse_tokens
from rawws.protocol.handshake import check_origin, check_upgrade, refusal
from rawws.protocol.http11 import Headers, HeadReader, Request, content_length, parse_request, serialize_response
from rawws.protocol.http11 import Response as HttpResponse

from .admission import REFUSALS, RETRY_AFTER

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rawws.http.routes import Place
    from rawws.net.handlers import Application
    from rawws.net.websocket import WebSocket
    from rawws.protocol.handshake import Acceptance

    from .server import Endpoint, Server

__all__ = ["Exchange", "says_close"]

# A request is read; a response is due; the connection ends.
READING, BUSY, ENDED = range(3)
# How long the last bytes of a refusal may wait for the peer to read them, in seconds.
LINGER = 2.0
# What is held of requests whose turn has not come: more than that is left to the kernel, in bytes, beside one read.
HELD = 16384
# How long a client may read nothing of what waits for it, in seconds: that of nginx (send_timeout).
PATIENCE = 60.0
# The slowest body that is waited for, in bytes a second, beside `open_timeout`. Apache's mod_reqtimeout asks for 500,
# which lets 1 MiB take 35 minutes.
SLOWEST = 16384
# So many requests of one connection are answered before the others have a turn: about 1 ms.
BATCH = 32
# Of a chunked body, so much at a time: 16 KiB may be 2,700 chunks, which take 10 ms.
SLICE = 16384
# What is gathered is written when it reaches this size, even if more is about to follow: as for WebSockets.
WRITE_SIZE = 65536
# RFC 9112 9.6: "A sender SHOULD send a Connection header field (Section 7.6.1 of [HTTP]) containing the "close"
# connection option when it intends to close a connection."
CLOSE = b"Connection: close\r\n"
# Of a file, so much is read at a time; less than that is read in the event loop, for a thread costs more.
PIECE = 65536


@final
class Exchange:
    """The HTTP side of one connection, up to its end or to a WebSocket."""

    __slots__ = (
        "answer",
        "chunked",
        "corked",
        "gathered",
        "held",
        "omit_body",
        "phase",
        "reader",
        "sent",
        "server",
        "taken",
        "task",
        "turn",
        "waiting",
        "wrote_at",
        "ws",
    )

    def __init__(self, server: Server) -> None:
        self.server = server
        self.reader: HeadReader | None = HeadReader()
        self.ws: WebSocket = None  # type: ignore[assignment]  # from `begin` on
        self.phase = READING
        # What process_request, or a file, is waited for in.
        self.task: asyncio.Task[Any] | None = None
        # The request that is read or answered, and what answers it later.
        self.turn: Turn | None = None
        self.answer: Any = None
        # What came behind it; what is written at the end of this read, or of the loop's turn.
        self.held = b""
        self.gathered: list[bytes] = []
        self.waiting = 0
        self.corked = False
        # Of the response: what begin_turn found out.
        self.omit_body = self.chunked = False
        # Bytes written since the connection began, how many of them the client had taken at the last look, and when.
        self.sent = self.taken = 0
        self.wrote_at = 0.0

    def begin(self, ws: WebSocket) -> None:
        """Begin with a new connection."""
        self.ws = ws
        ws.set_deadline(self.server.settings.open_timeout)
        self.server.settings.connections.add(ws)
        self.server.keepalive.start()
        self.server.journal.accepted += 1
        if self.server.closing:
            # It came while the listeners closed: in TLS, a handshake later.
            ws.abort()
        else:
            self._try(self._enter)

    def _enter(self) -> None:
        """Refuse a connection that is one too many."""
        server, ws = self.server, self.ws
        limit = server.max_connections
        over = 0 if limit is None else len(server.settings.connections) - limit
        if over > REFUSALS:
            self.phase = ENDED
            ws.abort()
        elif over > 0:
            # RFC 9110 15.6.4: the server "is currently unable to handle the request due to a temporary overload"; it
            # "MAY send a Retry-After header field".
            headers = (("Retry-After", str(RETRY_AFTER)),)
            raise HandshakeError(503, f"there are {limit} connections, the limit", headers)
        elif server.proxies is None:
            server.gate.enter(ws)

    # -- reading

    def receive(self, data: bytes) -> None:
        """Take what came."""
        if self.phase == READING:
            self.corked = True
            self._advance(data)
        elif self.phase == BUSY:
            turn = self.turn
            if turn is not None and turn.sink is not None and not turn.body.done:
                data = self._try(self._read_body, turn, data)
            if data:
                self._hold(data)

    def _advance(self, data: bytes) -> None:
        """Process what came, up to a request whose response is due later; then write what it gave."""
        for _ in range(BATCH):
            if not data or self.phase != READING:
                break
            turn = self.turn
            if turn is None:
                data = self._try(self._read_head, data)
            elif len(data) > SLICE and "Transfer-Encoding" in turn.asked.headers:
                rest = data[SLICE:]
                data = self._try(self._read_body, turn, data[:SLICE]) + rest
                break
            else:
                data = self._try(self._read_body, turn, data)
        self.corked = False
        if self.gathered:
            self.flush()
        if self.phase == READING and (data or self.ws.congested):
            # The other connections have a turn, or the client has to read what it was answered.
            self.phase = BUSY
            self._hold(data)
            if self.ws.congested:
                self.set_deadline(PATIENCE)
                self.task = self.server.start(self._catch_up())
            else:
                self.server.settings.loop.call_soon(self._resume)
        elif data and self.phase == BUSY:
            self._hold(data)

    def _try(self, step: Callable[..., bytes | None], *arguments: Any) -> bytes:
        """Do a step, which returns what it leaves of what came; answer what it raises."""
        try:
            return step(*arguments) or b""
        except HandshakeError as error:
            self.refuse(error)
        except Exception as error:  # noqa: BLE001 - whatever a hook or an endpoint raises, it ends this connection only
            self._fail(error)
        return b""

    def _hold(self, data: bytes) -> None:
        self.held += data
        if len(self.held) > HELD:
            self.ws.pause_reading()

    def _resume(self) -> None:
        """Go on with what was held."""
        if self.phase != BUSY or self.ws.lost:
            return
        self.phase = READING
        data, self.held = self.held, b""
        self.ws.resume_reading()
        self.corked = True
        self._advance(data)

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
            self.set_deadline(self.server.settings.open_timeout)
        if not reader.receive(data):
            return b""
        request = parse_request(reader.head)
        server, ws = self.server, self.ws
        if server.proxies is not None:
            # A proxy may send the requests of several clients over one connection.
            ws.remote = ws.secure = None
            server.proxies.apply(ws, request)
            server.gate.enter(ws)
        process = server.process_request
        answer = None if process is None else process(ws, request)
        if answer is not None and inspect.isawaitable(answer):
            # More must not arrive meanwhile; the deadline of the handshake goes on.
            ws.pause_reading()
            self.phase = BUSY
            self.held = reader.rest
            self.task = server.settings.loop.create_task(self._wait(request, answer))
            return b""
        return self._go_on(request, answer, reader.rest)

    async def _wait(self, request: Request, answer: Awaitable[Any]) -> None:
        """Wait for process_request."""
        response = None
        try:
            response = await answer
        except HandshakeError as error:
            self.refuse(error)
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(error)
        self.task = None
        if self.phase != BUSY or self.ws.lost:
            return
        self.phase = READING
        rest, self.held = self.held, b""
        self.ws.resume_reading()
        self.corked = True
        self._advance(self._try(self._go_on, request, response, rest))

    def _go_on(self, request: Request, response: Any, rest: bytes) -> bytes:
        """Answer a request as `process_request` said, or by its endpoint; return what is left of what came."""
        server = self.server
        if response is not None:
            if not isinstance(response, HttpResponse):
                came = type(response).__name__
                raise TypeError(f"process_request returned {came}, allowed are a Response and None")
            self.omit_body = request.method == "HEAD"
            self.respond_last(response)
            return b""
        if server.closing:
            raise HandshakeError(503, "the server is shutting down")
        if server.application is not None:
            return self._hand_over(server.application, request, rest)
        endpoint = server.endpoint
        if endpoint is None:
            place, path_params = server.routes.find(request.path)
            # RFC 9110 7.8: "A server MAY ignore a received Upgrade header field if it wishes to continue using the
            # current protocol on that connection": so where there is no WebSocket, and for other protocols.
            if place.websocket is None or (place.methods and not _asks_for_websocket(request.headers)):
                asked = HttpRequest(request, path_params, self.ws.remote_address, self._scheme())
                asked.server = server
                return self._begin_turn(request, place, asked, rest)
            endpoint = server.endpoint_of(place.websocket)
            self.ws.path_params = path_params
        self._open(request, endpoint, rest)
        return b""

    def _hand_over(self, application: Application, request: Request, rest: bytes) -> bytes:
        """Have an application answer a request, whose body it gets as it comes; return what is left of what came."""
        server, headers = self.server, request.headers
        asked = HttpRequest(request, NO_PARAMS, self.ws.remote_address, self._scheme())
        asked.server = server
        if _asks_for_websocket(headers):
            server.gate.shake_hands(self.ws)
            key = check_upgrade(request)
            check_origin(request, server.origins, asked.scheme, headers.get("Host") or "")
            self.ws.request_head = self.reader.head  # type: ignore[union-attr]  # it read this request
            # Nothing is read before the application decides; the deadline of the handshake goes on.
            self.ws.pause_reading()
            self.phase, self.held = BUSY, rest
            self.answer = application.open(self, asked, key)
            return b""
        turn = self._new_turn(asked, None)
        turn.fields = server.extra_fields
        turn.body = Body(headers, max_size=server.max_size)
        self._expect(headers, request.http_version == "1.1", waits=False)
        self.reader = None
        self.ws.deadline = 0.0
        self.phase = BUSY
        self.answer = turn.sink = application.begin(self, asked)
        if turn.body.done:
            turn.sink.feed(b"", whole=True)
            return rest
        return self._read_body(turn, rest)

    def _scheme(self) -> str:
        """Return the scheme by which the client came."""
        ws = self.ws
        secure = ws.secure if ws.secure is not None else ws.extra("sslcontext") is not None
        return "https" if secure else "http"

    # -- WebSocket

    def _open(self, request: Request, endpoint: Endpoint, rest: bytes) -> None:
        """Do the opening handshake (RFC 6455 section 4.2)."""
        server, ws = self.server, self.ws
        server.gate.shake_hands(ws)
        key = check_upgrade(request)
        check_origin(request, server.origins, self._scheme(), request.headers.get("Host") or "")
        accepted = server.accept(ws, request, key)
        ws.subprotocol = accepted.subprotocol
        ws.request_head = self.reader.head  # type: ignore[union-attr]  # it read this request
        self.switch(accepted, server.response_head(ws, request, accepted))
        server.start_handler(ws, endpoint)
        self.read_on(rest)

    def switch(self, accepted: Acceptance, head: bytes) -> None:
        """Answer 101 with this head: from here on there is a WebSocket. `read_on` is to follow."""
        server, ws = self.server, self.ws
        deflate = None
        if accepted.parameters is not None and server.compression is not None:
            deflate = PerMessageDeflate(accepted.parameters, True, server.compression, server.deflaters)
        ws.subprotocol = accepted.subprotocol
        connection = Connection(Role.SERVER, server.max_size, deflate, server.settings.shared.writers)
        self.phase = ENDED
        self.answer = None
        self.flush()
        ws.write([head])
        ws.open(connection)
        server.journal.open(ws)

    def read_on(self, rest: bytes) -> None:
        """Go on with what comes behind the handshake, of which this came already."""
        ws = self.ws
        if rest:
            # Frames came in the same segment. The handler's first step is due before them: so it can answer what stands
            # before a Close. Nothing may be read meanwhile: libuv reads again at once where a read filled the buffer.
            ws.pause_reading()
            self.server.settings.loop.call_soon(self._deliver, rest)
        else:
            ws.resume_reading()

    def _deliver(self, rest: bytes) -> None:
        """Hand on what came behind the request."""
        self.ws.resume_reading()
        self.ws.data_received(rest)

    # -- HTTP

    def _new_turn(self, asked: HttpRequest, endpoint: Callable[..., Any] | None) -> Turn:
        headers, modern = asked.headers, asked.head.http_version == "1.1"
        options = [option.lower() for option in parse_tokens(headers.get_all("Connection"), "Connection")]
        # RFC 9112 9.3: "If the received protocol is HTTP/1.1 (or later), the connection will persist"; "if the received
        # protocol is HTTP/1.0, the "keep-alive" connection option is present".
        persistent = "close" not in options and (modern or "keep-alive" in options)
        self.omit_body, self.chunked = asked.method == "HEAD", modern
        turn = self.turn = Turn(asked, endpoint, persistent)
        turn.line = self._head() if self.server.journal.access else b""
        return turn

    def _begin_turn(self, request: Request, place: Place, asked: HttpRequest, rest: bytes) -> bytes:
        """Begin with a request that an endpoint answers; return what is left of what came."""
        server, headers = self.server, request.headers
        turn = self._new_turn(asked, place.find(request.method) or place.answer_options)
        turn.fields = server.extra_fields + server.cross_origin(request, asked.scheme)
        place.check_method(request.method)
        if "Content-Length" in headers or "Transfer-Encoding" in headers:
            turn.body = Body(headers, max_size=server.max_size)
        self._expect(headers, request.http_version == "1.1", waits=not turn.body.done and not rest)
        if turn.body.done:
            self._call(turn)
        else:
            size = content_length(headers) or server.max_size or 0
            self.set_deadline(server.settings.open_timeout and server.settings.open_timeout + size / SLOWEST)
        return rest

    def _expect(self, headers: Headers, modern: bool, *, waits: bool) -> None:
        # RFC 9110 10.1.1: "A server that receives a 100-continue expectation in an HTTP/1.0 request MUST ignore that
        # expectation", and "MAY omit sending a 100 (Continue) response if it has already received some or all of the
        # content"; one "that receives an Expect field value other than 100-continue MAY respond with a 417".
        if "Expect" in headers and modern:
            expected = ", ".join(headers.get_all("Expect"))
            if expected.lower() != "100-continue":
                raise HandshakeError(417, f"the expectation is {expected[:64]!r}, allowed is 100-continue")
            if waits:
                self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _read_body(self, turn: Turn, data: bytes) -> bytes:
        body = turn.body
        if turn.sink is not None:
            turn.sink.feed(body.receive(data), whole=body.done)
            return body.rest
        turn.content += body.receive(data)
        if not body.done:
            return b""
        turn.asked.body = bytes(turn.content)
        self._call(turn)
        return body.rest

    def _call(self, turn: Turn) -> None:
        """Have the endpoint answer."""
        self.reader = None
        turn.content.clear()
        self.ws.deadline = 0.0
        self.phase = BUSY
        assert turn.endpoint is not None  # noqa: S101 - where there is a sink, nothing calls one
        value = turn.endpoint(turn.asked)
        if inspect.isawaitable(value):
            self.server.start(self._await(value))
        else:
            self._complete(value)

    async def _await(self, value: Awaitable[Any]) -> None:
        """Wait for an endpoint. It is not cancelled when its client goes: it may be in the middle of something."""
        try:
            self._try(self._complete, await value)
        except asyncio.CancelledError:
            self.ws.abort()
            raise
        except HandshakeError as error:
            self.refuse(error)
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(error)

    def _complete(self, value: Any) -> None:
        """Send what an endpoint answered."""
        turn = self.turn
        if turn is None or self.phase != BUSY or self.ws.lost:
            if isinstance(value, (EventStream, LongPoll)):
                value.lose()
            return
        asked = turn.asked
        if isinstance(value, (EventStream, LongPoll)):
            # It may last: what is not needed any more goes.
            turn.forget()
            self.answer = value
            value.begin(self, asked)
            if self.server.closing:
                value.shut_down()
        elif isinstance(value, FileResponse):
            self._send_file(turn, value.open(asked.headers))
        else:
            self.respond(as_response(value))

    def respond(self, response: HttpResponse) -> None:
        """Send a response and go on with the next request."""
        turn = self.turn
        if turn is None:
            return
        if says_close(response.headers):
            turn.persistent = False
        self.write(self._serialize(response))
        self._done(turn)

    def respond_late(self, response: HttpResponse) -> None:
        """Send a response for which others waited."""
        self._try(self.respond, response)

    def send_head(self, fields: bytes) -> None:
        """Begin a response that is sent piece by piece, with these header lines."""
        turn = self.turn
        if turn is None:
            return
        turn.started = True
        self.server.journal.respond(self.ws, turn.line, 200, "-")
        if self.chunked:
            fields += b"Transfer-Encoding: chunked\r\n"
        else:
            turn.persistent = False
        head = b"HTTP/1.1 200 OK\r\nDate: %b\r\n%b%b\r\n"
        self.write(head % (self.server.date().encode(), self._connection_fields(turn), fields))

    def begin_response(self, response: HttpResponse) -> None:
        """Begin a response whose body is written behind it: as long as it says, or chunked."""
        turn = self.turn
        if turn is None:
            return
        chunked = "Transfer-Encoding" in response.headers
        if (chunked and not self.chunked) or says_close(response.headers):
            turn.persistent = False
        head = self._serialize(response)
        if chunked and not self.chunked:
            # RFC 9112 6.1: "A server MUST NOT send a response containing Transfer-Encoding unless the corresponding
            # request indicates HTTP/1.1": the end of the connection is that of the body.
            head = head.replace(b"Transfer-Encoding: chunked\r\n", b"", 1)
        turn.started = True
        self.chunked = self.chunked and chunked
        self.write(head)

    def finish(self) -> None:
        """End the response that was begun."""
        turn = self.turn
        if turn is not None:
            if self.chunked and not self.omit_body:
                self.write(b"0\r\n\r\n")
            self._done(turn)

    def _send_file(self, turn: Turn, opened: tuple[HttpResponse, BinaryIO | None]) -> None:
        head, file = opened
        if file is None:
            self.respond(head)
        elif self.omit_body or int(head.headers["Content-Length"]) <= PIECE:
            with file:
                self.respond(head if self.omit_body else head._replace(body=file.read(PIECE)))
        else:
            turn.started = True
            self.write(self._serialize(head))
            self.task = self.server.start(self._send_pieces(turn, file, int(head.headers["Content-Length"])))

    async def _send_pieces(self, turn: Turn, file: BinaryIO, left: int) -> None:
        """Send a file as the client takes it."""
        with file:
            while left:
                if not self.server.closing:
                    self.set_deadline(PATIENCE)
                piece = await self.server.settings.loop.run_in_executor(None, file.read, min(left, PIECE))
                if not piece or self.ws.lost:
                    break
                left -= len(piece)
                self.write(piece)
                await self.ws.wait_drained()
        self.task = None
        if left:
            # The file was cut meanwhile, or the client is gone.
            self.ws.abort()
        else:
            self._done(turn)

    def _done(self, turn: Turn) -> None:
        """Go on behind a response that is complete."""
        persistent = turn.persistent and not self.server.closing
        self.turn = self.answer = None
        if not persistent:
            self._end()
            return
        self.set_deadline(self.server.keep_alive_timeout)
        if self.held:
            self.server.settings.loop.call_soon(self._resume)
        else:
            self.phase = READING

    # -- responses

    def _connection_fields(self, turn: Turn | None) -> bytes:
        if turn is None:
            return CLOSE
        if not turn.persistent or self.server.closing:
            return CLOSE + turn.fields
        return turn.fields if self.chunked else b"Connection: keep-alive\r\n" + turn.fields

    def _serialize(self, response: HttpResponse) -> bytes:
        data = serialize_response(response, self.server.date(), omit_body=self.omit_body)
        journal = self.server.journal
        size: object = 0
        if journal.access:
            size = len(response.body) or next(iter(response.headers.get_all("Content-Length")), 0)
        journal.respond(self.ws, self._head() if self.turn is None else self.turn.line, response.status, size)
        fields = self._connection_fields(self.turn)
        if "Connection" in response.headers and (says_close(response.headers) or not fields.startswith(CLOSE)):
            fields = b"" if self.turn is None else self.turn.fields
        end_of_line = data.index(b"\r\n") + 2
        return b"%b%b%b" % (data[:end_of_line], fields, data[end_of_line:]) if fields else data

    def respond_last(self, response: HttpResponse) -> None:
        """Send a response, and end the connection once the peer has it."""
        if self.turn is not None:
            self.turn.persistent = False
        if self.ws.lost:
            self.phase = ENDED
            return
        try:
            data = self._serialize(response)
        except Exception as error:  # noqa: BLE001 - a response that process_request made and that is none
            self._log(error)
            failed = HandshakeError(500, "the server failed")
            self.server.journal.refuse(self.ws, failed, self._head())
            data = self._serialize(refusal(failed))
        self.write(data)
        self._end()

    def _end(self) -> None:
        """End the connection once the peer has all that was written."""
        ws = self.ws
        self.phase = ENDED
        self.turn = self.answer = None
        self.held = b""
        self.flush()
        if ws.lost:
            return
        self.set_deadline(PATIENCE if ws.buffered else LINGER)
        if self.server.closing:
            ws.set_deadline(self.server.settings.close_timeout)
        ws.resume_reading()
        # Closing with unread bytes resets the connection, and the reset may overtake the response.
        if not ws.end_writing():
            close_transport(ws.transport)

    def _fail(self, error: Exception) -> None:
        self._log(error)
        self.refuse(HandshakeError(500, "the server failed"))

    def refuse(self, error: HandshakeError) -> None:
        """Answer with an error, and end the connection; a response that is begun is cut."""
        if self.turn is not None and self.turn.sink is not None:
            self.turn.sink.lose()
        if self.phase == ENDED or (self.turn is not None and self.turn.started):
            self.ws.abort()
        else:
            self.server.journal.refuse(self.ws, error, self._head())
            self.respond_last(refusal(error))

    def _head(self) -> bytes:
        """Return what was read of the head of the request that is read now."""
        return b"" if self.reader is None else self.reader.head

    def _log(self, error: Exception) -> None:
        what = "opening handshake failed" if self.server.endpoint is not None else "request failed"
        self.server.settings.logger.error(what, exc_info=error)

    # -- writing

    def write(self, data: bytes) -> None:
        """Write at the end of this read, or of the loop's turn."""
        self.gathered.append(data)
        self.waiting += len(data)
        if self.waiting >= WRITE_SIZE:
            self.flush()
        elif not self.corked:
            self.ws.flush_soon()

    def flush(self) -> None:
        """Write what was gathered."""
        gathered = self.gathered
        self.waiting = 0
        if gathered and not self.ws.lost:
            # One piece: asyncio's transports warn of each that they are given once the client is gone.
            data = gathered[0] if len(gathered) == 1 else b"".join(gathered)
            self.ws.write([data])
            self.sent += len(data)
            self.wrote_at = clock.monotonic()
        gathered.clear()

    @property
    def buffered(self) -> int:
        """How many bytes were written here and not taken by the kernel yet."""
        return self.waiting + self.ws.buffered

    def stalls(self) -> bool:
        """Tell whether bytes wait that the client has read none of since the last look."""
        waiting = self.ws.buffered
        before, self.taken = self.taken, self.sent - waiting
        return waiting > 0 and self.taken == before

    # -- ends

    def set_deadline(self, seconds: float) -> None:
        """Be called by `expire` so many seconds from now, and not before; 0 for never."""
        self.ws.deadline = 0.0
        self.ws.set_deadline(seconds)

    def drop(self, why: str) -> None:
        """End the connection of a client that reads too slowly."""
        self.server.settings.logger.info("%s is a slow consumer: %s", self.ws.remote_address, why)
        self.server.journal.slow += 1
        self.phase = ENDED
        self.ws.abort()

    def cut(self) -> None:
        """End the connection in the middle of a response, behind what was written of it."""
        self.phase = ENDED
        self.flush()
        self.set_deadline(LINGER)
        close_transport(self.ws.transport)

    def receive_eof(self) -> None:
        """Take note that the peer sends nothing more."""

    def lose(self) -> None:
        """Take note that the connection is gone."""
        self.phase = ENDED
        # It and the connection hold each other, until the garbage collector comes.
        self.reader, self.turn, self.held = None, None, b""
        answer, self.answer = self.answer, None
        if self.task is not None:
            self.task.cancel()
        if answer is not None:
            answer.lose()

    def shut_down(self) -> None:
        """End with the server: a response that is due is waited for, silent clients and half requests are not."""
        if self.answer is not None:
            self.answer.shut_down()
        elif self.phase == READING and self.turn is None:
            self.ws.abort()
        elif self.turn is not None or self.ws.buffered:
            self.ws.set_deadline(self.server.settings.close_timeout)

    def expire(self) -> None:
        """Do what is due at the deadline: end what takes too long."""
        ws = self.ws
        if self.answer is not None:
            self.answer.expire()
        elif self.phase == ENDED or (self.turn is not None and self.turn.started) or ws.buffered:
            # A client that reads is given the time for it.
            if ws.buffered and not self.stalls() and not self.server.closing:
                self.set_deadline(PATIENCE)
            else:
                ws.abort()
        elif self.phase == BUSY:
            if self.task is not None:
                self.task.cancel()
            self.refuse(HandshakeError(503, "the server did not decide in time"))
        elif self.reader is None:
            self.phase = ENDED
            close_transport(ws.transport)
        else:
            self.refuse(HandshakeError(408, "the request did not arrive in time"))


@final
class Turn:
    """One request, from its head to the end of its response."""

    __slots__ = ("asked", "body", "content", "endpoint", "fields", "line", "persistent", "sink", "started")

    def __init__(self, asked: HttpRequest, endpoint: Callable[..., Any] | None, persistent: bool) -> None:
        self.asked = asked
        self.endpoint = endpoint
        # What takes the body as it comes, in the place of an endpoint that gets it whole.
        self.sink: Any = None
        self.persistent = persistent
        self.body = NO_BODY
        self.content = bytearray()
        # How the access log names it.
        self.line = b""
        # Header lines that the response has because of who asked; whether its head is out.
        self.fields = b""
        self.started = False

    def forget(self) -> None:
        """Let go of the request."""
        del self.asked, self.endpoint, self.body, self.content


NO_BODY = Body(Headers(), max_size=None)


def says_close(headers: Headers) -> bool:
    """Tell whether a response itself says that the connection ends with it."""
    if "Connection" not in headers:
        return False
    return "close" in [option.strip(" \t") for option in ",".join(headers.get_all("Connection")).lower().split(",")]


def _asks_for_websocket(headers: Headers) -> bool:
    return "websocket" in ",".join(headers.get_all("Upgrade")).lower()
