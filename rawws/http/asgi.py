"""ASGI: a request of any ASGI server to an exchange, and its response back (ASGI 3, HTTP specification 2.3).

So a Response, an EventStream and a LongPoll answer in an application of Starlette or Django, whatever serves that.

Laws:
1. What is written in one turn of the loop is one `http.response.body`; the next one follows when the server took it.
2. The end of the client ends the response, and the application returns. A response that is cut is not completed: the
   server then ends the connection, and says so in its log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, final
from urllib.parse import quote

from rawws import clock
from rawws.errors import HttpError
from rawws.net.flow import Flow
from rawws.net.loops import of_loop
from rawws.net.settings import Settings
from rawws.protocol.handshake import refusal
from rawws.protocol.http11 import Headers, HttpResponse, Request, serialize_fields

from .dispatch import call_endpoint
from .exchange import BODILESS, PATIENCE, Exchange
from .requests import HttpRequest
from .routes import NO_PARAMS

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from .exchange import ExchangeObserver

__all__ = ["AsgiReceive", "AsgiScope", "AsgiSend", "answer_asgi", "head_of_scope", "scheme_of_scope"]

AsgiScope = MutableMapping[str, Any]
# Each framework has types of its own for the events.
AsgiReceive = Callable[[], Awaitable[Any]]
AsgiSend = Callable[[Any], Awaitable[None]]

# What one `http.response.body` has at the most, in bytes, but for one piece that is larger.
WRITE_SIZE = 65536
FAILED = HttpError(500, "the server failed")


async def answer_asgi(
    scope: AsgiScope,
    receive: AsgiReceive,
    send: AsgiSend,
    endpoint: Callable[[HttpRequest], object],
    *,
    fields: tuple[tuple[str, str], ...] = (),
    max_size: int | None = None,
) -> None:
    """Have an endpoint answer one request; its response has these header fields as well.

    With `max_size`, the body is read before, up to so many bytes; without, it is left to who called.
    """
    connection = AsgiConnection(scope, send)
    params, address = scope.get("path_params", NO_PARAMS), connection.remote_address
    request = HttpRequest(head_of_scope(scope), params, address, scheme_of_scope(scope))
    request.scope = scope
    exchange = connection.exchange = Exchange(connection, connection, connection.context, request)
    exchange.endpoint, exchange.fields = endpoint, fields
    await connection.run(exchange, receive, max_size)


def head_of_scope(scope: AsgiScope) -> Request:
    """Return the head of a request as its client sent it, as far as the scope has it."""
    path = (scope.get("raw_path") or quote(scope["path"], safe="/:@!$&'()*+,;=~").encode()).decode("latin-1")
    query = scope.get("query_string", b"").decode("latin-1")
    # That of some servers has the query, too.
    target = path.partition("?")[0] + (f"?{query}" if query else "")
    headers = Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]])
    return Request(scope.get("method", "GET"), target, headers, scope.get("http_version", "1.1"))


def scheme_of_scope(scope: AsgiScope) -> str:
    """Return "http" or "https"."""
    return "https" if scope.get("scheme") in {"https", "wss"} else "http"


@final
class AsgiContext:
    """What the exchanges in one event loop need of a server."""

    __slots__ = ("body_bytes", "closing", "settings", "tasks")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.settings = Settings(loop, logging.getLogger("rawws.server"))
        # No ASGI server tells its applications.
        self.closing = False
        # Nor do they say what others may take.
        self.body_bytes = 0
        self.tasks: set[asyncio.Task[None]] = set()

    def start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run what answers a request."""
        task = self.settings.loop.create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def outlive(self, task: asyncio.Task[None]) -> None:
        """Leave an endpoint whose client is gone to its end."""


CONTEXTS: dict[asyncio.AbstractEventLoop, AsgiContext] = {}


@final
class AsgiConnection(Flow):
    """One request and response of an ASGI server: the HttpConnection and the ByteStream of its exchange."""

    __slots__ = (
        "context", "cutting", "ended", "exchange", "head", "interrupted", "observer", "pieces", "scope", "send",
        "stalled_at", "task", "timer", "waiter", "wrote_at",
    )  # fmt: skip

    def __init__(self, scope: AsgiScope, send: AsgiSend) -> None:
        super().__init__()
        self.context = of_loop(CONTEXTS, self.shared.loop, AsgiContext)
        self.scope = scope
        self.send = send
        self.exchange: Exchange = None  # type: ignore[assignment]  # `answer_asgi` sets it
        self.observer: ExchangeObserver | None = None
        # What is to be sent: the head, the body; and whether that is all.
        self.head: dict[str, Any] | None = None
        self.pieces: list[bytes] = []
        self.ended = False
        # The response is broken off: the application returns without completing it, even out of a `send`.
        self.cutting = self.interrupted = False
        self.task: asyncio.Task[Any] | None = None
        self.waiter: asyncio.Future[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.wrote_at = clock.monotonic()
        # How many bytes had been taken at the last look.
        self.stalled_at = -1

    async def run(self, exchange: Exchange, receive: AsgiReceive, max_size: int | None) -> None:
        """Answer, and return when the response is complete, or nobody is there to have it."""
        self.task = asyncio.current_task()
        listening = None
        try:
            if max_size is not None:
                await self.read_body(exchange, receive, max_size)
            if not self.ended and not self.lost:
                self.call(exchange)
            if not self.ended:
                listening = self.context.start(self.listen(receive))
            await self.write_out()
        except asyncio.CancelledError:
            if not self.interrupted or self.task is None or self.task.uncancel():
                raise
        except OSError:
            # What servers raise where the client is gone (ASGI, HTTP specification 2.4).
            pass
        finally:
            if listening is not None:
                listening.cancel()
            self.lose()

    def call(self, exchange: Exchange) -> None:
        """Have the endpoint answer, now or later."""
        try:
            call_endpoint(exchange)
        except HttpError as error:
            self.refuse(error)
        except Exception as error:  # noqa: BLE001 - whatever an endpoint raises is logged, and told as 500
            self.fail(error)

    async def read_body(self, exchange: Exchange, receive: AsgiReceive, max_size: int) -> None:
        """Read the body of the request."""
        body, more = bytearray(), True
        while more and not self.lost:
            event = await receive()
            if event["type"] != "http.request":
                self.lose()
                return
            body += event.get("body", b"")
            more = event.get("more_body", False)
            if len(body) > max_size:
                self.refuse(HttpError(413, f"the body is over {max_size} bytes, the limit"))
                return
        exchange.request.body = bytes(body)

    async def listen(self, receive: AsgiReceive) -> None:
        """Wait for the end of the client."""
        while (await receive())["type"] != "http.disconnect":
            pass
        if not self.ended:
            self.lose()

    async def write_out(self) -> None:
        """Send what is written, up to the end."""
        while not self.lost and not self.cutting:
            if self.head is not None:
                head, self.head = self.head, None
                await self.send(head)
                if not self.pieces and not self.ended:
                    # ASGI: a server must not send the head before it has some of the body.
                    await self.send({"type": "http.response.body", "body": b"", "more_body": True})
            elif self.pieces or self.ended:
                if await self.send_body():
                    return
            else:
                self.waiter = self.shared.loop.create_future()
                await self.waiter

    async def send_body(self) -> bool:
        """Send some pieces of the body; tell whether these were the last."""
        size = count = 0
        for piece in self.pieces:
            if count and size + len(piece) > WRITE_SIZE:
                break
            size += len(piece)
            count += 1
        body = self.pieces[0] if count == 1 else b"".join(self.pieces[:count])
        del self.pieces[:count]
        last = self.ended and not self.pieces
        await self.send({"type": "http.response.body", "body": body, "more_body": not last})
        self.take(size)
        return last

    def wake(self) -> None:
        """Have what is written sent."""
        waiter, self.waiter = self.waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # -- what the exchange calls: an HttpConnection

    def observe(self, observer: ExchangeObserver) -> None:
        """Have this told of the ends of the exchange."""
        self.observer = observer

    def send_response(self, exchange: Exchange, response: HttpResponse) -> None:
        """Send a response that is whole."""
        fields = list(response.headers.raw_items())
        if response.status not in BODILESS and "Content-Length" not in response.headers:
            fields.append(("Content-Length", str(len(response.body))))
        self.begin(exchange, response.status, fields)
        if response.body and not exchange.omit_body:
            self.gather(response.body)
        self.finish(exchange)

    def send_head(self, exchange: Exchange, response: HttpResponse) -> bool:
        """Begin a response; the server sees to its framing."""
        self.begin(exchange, response.status, list(response.headers.raw_items()))
        return False

    def send_stream_head(self, exchange: Exchange, fields: tuple[tuple[str, str], ...]) -> bool:
        """Begin a response without a known end."""
        self.begin(exchange, 200, list(fields))
        return False

    def begin(self, exchange: Exchange, status: int, fields: list[tuple[str, str]]) -> None:
        """Have a head sent. Raises LocalProtocolError for fields that would break out of their lines."""
        self.shared.check()
        fields += exchange.fields
        serialize_fields(fields)
        headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in fields]
        self.head = {"type": "http.response.start", "status": int(status), "headers": headers}
        exchange.started = True
        self.wake()

    def send_continue(self) -> None:
        """Leave it to the server."""

    def finish(self, exchange: Exchange) -> None:
        """End a response that is complete."""
        exchange.end()
        self.ended, self.observer = True, None
        self.set_deadline(0)
        self.wake()

    def refuse(self, error: HttpError) -> None:
        """Answer with an error, or cut a response that is begun."""
        if self.exchange.started:
            self.cut()
        else:
            self.send_response(self.exchange, refusal(error))

    def fail(self, error: BaseException) -> None:
        """Log a fault of this side, and answer with 500."""
        self.context.settings.logger.error("request failed: %s", self.scope["path"], exc_info=error)
        self.refuse(FAILED)

    def drop(self, why: str) -> None:
        """Give up a client that reads too slowly."""
        self.context.settings.logger.info("%s is a slow consumer: %s", self.remote_address, why)
        self.abort()

    def cut(self) -> None:
        """End in the middle of a response, behind what was written of it."""
        self.exchange.end()
        self.cutting = True
        self.wake()

    def set_deadline(self, seconds: float) -> None:
        """Call `expire` of the observer so many seconds from now, and not before; 0 for never."""
        if self.timer is not None:
            self.timer.cancel()
        self.timer = self.shared.loop.call_later(seconds, self.expire) if seconds and not self.lost else None

    def expire(self) -> None:
        """Do what is due."""
        if self.observer is not None and not self.lost:
            self.observer.expire()

    def stalls(self) -> bool:
        """Tell whether bytes wait that the client has read none of since the last look."""
        taken = self.bytes_written() - self.buffered
        before, self.stalled_at = self.stalled_at, taken
        return self.buffered > 0 and taken == before

    def press(self) -> None:
        """Give up a client that read nothing since the last look, and give others their time."""
        if self.buffered and not self.stalls():
            self.set_deadline(PATIENCE)
        else:
            self.abort()

    # -- a ByteStream

    def gather(self, octets: bytes) -> None:
        """Have a piece of the body sent."""
        self.shared.check()
        self.pieces.append(octets)
        self.wrote_at = clock.monotonic()
        self.add(len(octets))
        self.wake()

    def pause_reading(self) -> None:
        """Leave it to the server."""

    def resume_reading(self) -> None:
        """Leave it to the server."""

    @property
    def remote_address(self) -> Any:
        """The address of the client, as the server says."""
        client = self.scope.get("client")
        return tuple(client) if client else None

    @property
    def local_address(self) -> Any:
        """The address that the client reached, as the server says."""
        server = self.scope.get("server")
        return tuple(server) if server else None

    def abort(self) -> None:
        """End it now, though the server may not take what is written."""
        self.exchange.end()
        self.cutting = True
        if self.waiter is None and self.task is not None and self.task is not asyncio.current_task():
            self.interrupted = True
            self.task.cancel()
        self.wake()

    def lose(self) -> None:
        """End, with the client or with its response, and tell whoever answers."""
        if self.lost:
            return
        if not self.ended:
            self.exchange.lose()
        self.set_deadline(0)
        observer, self.observer = self.observer, None
        self.pieces.clear()
        self.end()
        if observer is not None:
            observer.lose()
        self.wake()
