"""Connection: what a connection of HTTP/1.1 and a stream of HTTP/2 do alike: faults, deadlines and ends of exchanges.

Laws:
1. Whatever a hook, an endpoint or a client does, it ends its own connection, or stream, only.
2. Nothing here knows how a version of HTTP reads or writes: that are the methods that the class of each has.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from rawws.errors import HttpError
from rawws.http.dispatch import call_endpoint
from rawws.http.exchange import PATIENCE, SLOWEST
from rawws.http.requests import HttpRequest
from rawws.net.cancellation import result_of
from rawws.net.kernel import send_queue
from rawws.net.logs import request_line
from rawws.net.streams import is_stream
from rawws.protocol.handshake import refusal
from rawws.protocol.http11 import HttpResponse

from .forwarded import scheme_of
from .proxy_header import ProxiedClient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from rawws.http.exchange import Exchange, ExchangeObserver
    from rawws.http.routes import Resource
    from rawws.net.websocket import WebSocket
    from rawws.protocol.http11 import Request

    from .context import ServerContext

__all__ = ["UNKNOWN_CLIENT", "ServerConnection"]

READING, BUSY, ENDED = range(3)  # a request is read; a response is due; the connection ends
# How long the last bytes of a refusal may wait for the peer to read them, in seconds.
LINGER = 2.0
# So many bytes at least are read of a stream between two looks, if there are more: a client of HTTP/2 can take one at a
# time, and have all the others held for it, which TCP does not (RFC 1122 4.2.3.3, silly windows).
LEAST = 1024
FAILED = HttpError(500, "the server failed")
UNKNOWN_CLIENT = ProxiedClient()


class ServerConnection:
    """The HTTP side of one connection or stream, up to its end or to a WebSocket."""

    __slots__ = ("client", "context", "exchange", "line", "observer", "phase", "taken", "task", "ws")

    def __init__(self, context: ServerContext, client: ProxiedClient) -> None:
        self.context = context
        # Who a PROXY header names.
        self.client = client
        self.ws: WebSocket = None  # type: ignore[assignment]  # from `begin` on
        self.phase = READING
        # What process_request, or the client, is waited for in.
        self.task: asyncio.Task[Any] | None = None
        # The request that is read or answered, and who answers it later.
        self.exchange: Exchange | None = None
        self.observer: ExchangeObserver | None = None
        # How the access log names that request.
        self.line = b""
        # How far the client had come with reading at the last look.
        self.taken = 0

    @property
    def lasts(self) -> bool:
        """Whether who answers now is told of the end of the server: an event stream, a poll."""
        return self.observer is not None

    @property
    def kind(self) -> str:
        """What is sent now: "stream", "poll" or "http"."""
        return "http" if self.observer is None else self.observer.kind

    # -- what each version of HTTP does

    def head(self) -> bytes:
        """Return what was read of the head of the request that is read now."""
        raise NotImplementedError

    def respond_last(self, response: HttpResponse) -> None:
        """Send a response, and end once the peer has it."""
        raise NotImplementedError

    def new_exchange(self, request: HttpRequest) -> Exchange:
        """Begin an exchange."""
        raise NotImplementedError

    # -- requests

    def attempt(self, step: Callable[..., bytes | None], *arguments: Any) -> bytes:
        """Do a step, which returns what it leaves of what came; answer what it raises."""
        try:
            return step(*arguments) or b""
        except HttpError as error:
            self.refuse(error)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever a hook or an endpoint raises
            self.fail(error)
        return b""

    async def decided(self, answer: Awaitable[Any]) -> Any:
        """Wait for what `process_request` answers; what it raises is answered here."""
        response = None
        try:
            response = await result_of(answer)
        except HttpError as error:
            self.refuse(error)
        except Exception as error:  # noqa: BLE001 - as above
            self.fail(error)
        self.task = None
        return response

    def hooked(self, response: Any) -> bool:
        """Tell whether `process_request` answered; then that was sent."""
        self.ws.lend_request(None)
        if response is None:
            return False
        if not isinstance(response, HttpResponse):
            raise TypeError(f"process_request returned {type(response).__name__}, allowed are a Response and None")
        self.respond_last(response)
        return True

    def request_of(self, head: Request, path_params: Mapping[str, str]) -> HttpRequest:
        """Return a request as those who answer it get it."""
        request = HttpRequest(head, path_params, self.ws.remote_address, scheme_of(self.ws))
        request.server = self.context.server
        return request

    def exchange_with(self, resource: Resource, request: HttpRequest) -> Exchange:
        """Begin an exchange that an endpoint answers. Raises HttpError with 405 where there is none for its method."""
        exchange = self.new_exchange(request)
        exchange.endpoint = resource.find(request.method) or resource.answer_options
        exchange.is_cancelled_with_client = request.method in resource.cancelled
        permission = self.context.cross_origin.fields(request.head, request.scheme)
        exchange.fields = self.context.extra_fields + permission
        resource.check_method(request.method)
        return exchange

    def objects(self, resource: Resource, exchange: Exchange, *, whole: bool) -> bool:
        """Tell whether the check of the route answered; then that was sent. `whole` tells that no body is to come."""
        check = resource.checks.get(exchange.request.method)
        if exchange.endpoint == resource.answer_options:
            # The head has all that it takes: no body is kept for that.
            check = resource.answer_options
        response = None if check is None else check(exchange.request)
        if response is None:
            return False
        if not isinstance(response, HttpResponse):
            raise TypeError(f"the check returned {type(response).__name__}, allowed are a Response and None")
        if whole:
            self.leave_request()
            exchange.respond(response)
        else:
            # What comes of the body is dropped, for a while.
            self.respond_last(response)
        return True

    def wait_for_body(self, size: int) -> None:
        """Give the client the time that a body of so many bytes may take."""
        limit = self.context.settings.open_timeout
        self.set_deadline(limit and limit + size / SLOWEST)

    def keep(self, exchange: Exchange, data: bytes) -> None:
        """Keep a piece of a body. Raises HttpError with 503 where those of all requests together are too long."""
        self.context.hold(exchange, len(data))
        exchange.content += data

    def call(self, exchange: Exchange) -> None:
        """Have the endpoint answer."""
        exchange.content.clear()
        self.leave_request()
        call_endpoint(exchange)

    def leave_request(self) -> None:
        """Leave the request behind: from here on a response is due."""
        self.ws.deadline = 0.0
        self.phase = BUSY

    def observe(self, observer: ExchangeObserver) -> None:
        """Have this told of the ends of the exchange."""
        self.observer = observer

    # -- faults

    def leave(self) -> None:
        """Answer nothing more."""
        self.phase = ENDED
        if self.exchange is not None:
            self.exchange.end()

    def fail(self, error: BaseException) -> None:
        """Log a fault of this side, and answer with 500."""
        self.log(error)
        self.refuse(FAILED)

    def refuse(self, error: HttpError) -> None:
        """Answer with an error, and end the connection; a response that is begun is cut.

        It raises nothing: nobody else would end the connection.
        """
        exchange = self.exchange
        try:
            if exchange is not None and exchange.sink is not None:
                exchange.sink.lose()
            if self.phase == ENDED or (exchange is not None and exchange.started):
                self.ws.abort()
            else:
                response = refusal(error)
                self.context.counters.refuse(self.ws, error, self.head())
                self.respond_last(response)
        except Exception as failure:  # noqa: BLE001 - header fields, for example, that an application made and are none
            self.log(failure)
            if error is not FAILED:
                self.refuse(FAILED)
            else:
                self.leave()
                self.ws.abort()

    def log(self, error: BaseException) -> None:
        """Log a fault of this side."""
        exchange = self.exchange
        self.context.log_failure(request_line(None, self.head()) if exchange is None else exchange.name(), error)

    # -- writing

    @property
    def wrote_at(self) -> float:
        """When something was written last."""
        return self.ws.last_sent_at

    def stalls(self) -> bool:
        """Tell whether bytes wait that the client has read none of since the last look; of a stream, next to none."""
        refused = self.ws.refused
        acked = send_queue(self.ws.transport).acked
        before, self.taken = self.taken, acked if acked >= 0 else self.ws.bytes_sent - refused
        return refused > 0 and self.taken - before < (LEAST if refused > LEAST and is_stream(self.ws) else 1)

    # -- ends

    def set_deadline(self, seconds: float) -> None:
        """Be called by `expire` so many seconds from now, and not before; 0 for never."""
        self.ws.deadline = 0.0
        self.ws.set_deadline(seconds)

    def press(self) -> None:
        """Give up a client that read nothing since the last look, and give others their time."""
        ws = self.ws
        if ws.buffered and not self.stalls() and not self.context.closing:
            self.set_deadline(PATIENCE)
        else:
            ws.abort()

    def drop(self, why: str) -> None:
        """End the connection of a client that reads too slowly."""
        self.context.settings.logger.info("%s is a slow consumer: %s", self.ws.remote_address, why)
        self.context.counters.slow += 1
        self.leave()
        self.ws.abort()

    def lose(self) -> None:
        """End the exchange, its task and its observer: the connection has ended."""
        self.leave()
        if self.exchange is not None:
            self.exchange.lose()
        # It and the connection hold each other, until the garbage collector comes.
        self.exchange = None
        observer, self.observer = self.observer, None
        if self.task is not None:
            self.task.cancel()
        if observer is not None:
            observer.lose()

    def shut_down(self) -> None:
        """End with the server: a response that is due is waited for, silent clients and half requests are not."""
        if self.observer is not None:
            self.observer.shut_down()
        elif self.phase == READING and self.exchange is None:
            self.ws.abort()
        elif self.exchange is not None or self.ws.buffered:
            self.ws.set_deadline(self.context.settings.close_timeout)

    def expire(self) -> None:
        """Do what is due at the deadline: end what takes too long."""
        if self.observer is not None:
            self.observer.expire()
        elif self.phase == ENDED or (self.exchange is not None and self.exchange.started) or self.ws.buffered:
            self.press()
        elif self.phase == BUSY:
            if self.task is not None:
                self.task.cancel()
            self.refuse(HttpError(503, "the server did not decide in time"))
        else:
            self.expire_reading()

    def expire_reading(self) -> None:
        """End one whose request did not arrive in time."""
        self.refuse(HttpError(408, "the request did not arrive in time"))
