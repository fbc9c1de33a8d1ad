"""Exchange: one request and its response, whatever version of HTTP carries them (RFC 9110 section 3.4).

It stands on the `HttpConnection` below it: a connection of HTTP/1.1 between two heads, or one stream of HTTP/2. Who
answers (a `Responder`, an application) writes payload here, and hears of the ends as an `ExchangeObserver`.

Laws:
1. Who answers writes payload: the framing is added here, and what of it a version of HTTP needs, `HttpConnection` says.
2. A response begins once. Whatever comes behind its end, or behind that of the connection, is dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, final

from rawws.errors import HttpError
from rawws.net.logs import request_line
from rawws.protocol.bodies import Chunk, encode_chunk

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine

    from rawws.net.awaited import Claim
    from rawws.net.interfaces import Follower
    from rawws.net.settings import Settings
    from rawws.net.socket import SocketAddress
    from rawws.protocol.http11 import HttpResponse

    from .requests import HttpRequest

__all__ = [
    "BODILESS",
    "HELD",
    "PATIENCE",
    "SLOWEST",
    "BodyObserver",
    "ByteStream",
    "Exchange",
    "ExchangeObserver",
    "HttpConnection",
    "HttpContext",
    "Responder",
    "is_responder",
]


# What is held of a body that is not taken, or of requests whose turn has not come: more than that is left to the
# kernel, in bytes, beside one read.
HELD = 16384
# How long a client may read nothing of what waits for it, in seconds: that of nginx (send_timeout).
PATIENCE = 60.0
# The slowest body that is waited for, in bytes a second, beside `open_timeout`. Apache's mod_reqtimeout asks for 500,
# which lets 1 MiB take 35 minutes.
SLOWEST = 16384
# RFC 9110 6.4.1: "All 1xx (Informational), 204 (No Content), and 304 (Not Modified) responses do not include content."
BODILESS = frozenset({204, 304})


class ByteStream(Protocol):
    """What an exchange needs of the socket of its connection, or of its stream of HTTP/2: the flow in both ways."""

    # Those who are told when more may be written (`drained`), and of the end (`lost`).
    followers: list[Follower] | None

    @property
    def lost(self) -> bool:
        """Whether it is gone."""

    @property
    def congested(self) -> bool:
        """Whether the peer reads too slowly: the write buffer was over its high mark and is not under the low one."""

    @property
    def buffered(self) -> int:
        """How many bytes were sent and not taken by the kernel yet."""

    @property
    def unawaited(self) -> int:
        """How many of these bytes nobody waits for."""

    def bytes_written(self) -> int:
        """Return how many bytes were written, whatever became of them."""

    def claim(self, start: int) -> Claim:
        """Count what was written from `start` on as awaited, for as long as somebody keeps what this returns."""

    @property
    def remote_address(self) -> SocketAddress | None:
        """The address of the client."""

    @property
    def local_address(self) -> SocketAddress | None:
        """The address that the client reached."""

    def gather(self, octets: bytes) -> None:
        """Write octets at the end of this read, or of the loop's turn."""

    async def wait_drained(self) -> None:
        """Wait until the write buffer is under its low-water mark, or the connection ends."""

    def pause_reading(self) -> None:
        """Leave further bytes to the peer."""

    def resume_reading(self) -> None:
        """Read again."""

    def set_deadline(self, seconds: float) -> None:
        """End it so many seconds from now, or earlier where that was said before."""

    def abort(self) -> None:
        """End it now."""


class HttpContext(Protocol):
    """What an exchange needs of the server."""

    settings: Settings
    closing: bool
    # How many bytes of bodies are kept for all exchanges.
    body_bytes: int

    def start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run what answers a request; the end of the server waits for it."""

    def outlive(self, task: asyncio.Task[None]) -> None:
        """Count an endpoint whose client is gone as a connection, until it is done."""


class ExchangeObserver(Protocol):
    """Who answers later or piece by piece, and so hears of what becomes of the exchange meanwhile."""

    @property
    def kind(self) -> str:
        """What it sends: "stream" for events, "poll", or "http"."""

    def lose(self) -> None:
        """End the response: the client has left."""

    def expire(self) -> None:
        """Do what is due: the deadline that was set is over."""

    def shut_down(self) -> None:
        """End with the server."""


class BodyObserver(ExchangeObserver, Protocol):
    """An observer that takes the body of the request as it comes."""

    def feed(self, data: bytes, whole: bool) -> None:
        """Take a piece of the body; `whole` with the last one."""


class HttpConnection(Protocol):
    """What an exchange needs of the connection of HTTP/1.1, or of the stream of HTTP/2, that it stands on."""

    # Who hears of the ends of the exchange that is answered now.
    observer: ExchangeObserver | None

    def observe(self, observer: ExchangeObserver) -> None:
        """Have this told of the ends of the exchange. Raises HttpError where there are too many that last."""

    @property
    def wrote_at(self) -> float:
        """When something was written last, by `rawws.clock`."""

    def send_response(self, exchange: Exchange, response: HttpResponse) -> None:
        """Send a response that is whole, and end the exchange."""

    def send_head(self, exchange: Exchange, response: HttpResponse) -> bool:
        """Begin a response whose body is as long as its head says, if it does; tell whether it is sent in chunks."""

    def send_stream_head(self, exchange: Exchange, fields: tuple[tuple[str, str], ...]) -> bool:
        """Begin a response of 200 with these fields and no known end; tell whether it is sent in chunks."""

    def send_continue(self) -> None:
        """Have the client send the body that it announced (RFC 9110 section 15.2.1)."""

    def finish(self, exchange: Exchange) -> None:
        """End an exchange whose response is complete."""

    def refuse(self, error: HttpError) -> None:
        """Answer with an error, or cut a response that is begun."""

    def fail(self, error: BaseException) -> None:
        """Log a fault of this side, and answer with 500."""

    def cut(self) -> None:
        """End in the middle of a response, behind what was written of it."""

    def drop(self, why: str) -> None:
        """Give up a client that reads too slowly."""

    def set_deadline(self, seconds: float) -> None:
        """Call `expire` so many seconds from now, and not before; 0 for never."""

    def stalls(self) -> bool:
        """Tell whether bytes wait that the client has read none of since the last look."""

    def press(self) -> None:
        """Give up a client that read nothing since the last look, and give others their time."""


class Responder(Protocol):
    """What an endpoint may return that answers by itself: an event stream, a poll, a file."""

    def begin(self, exchange: Exchange, request: HttpRequest) -> None:
        """Begin to answer; who is to hear of the ends is said by `exchange.observe`."""

    def lose(self) -> None:
        """Do nothing: the client left before the response could begin."""


def is_responder(answer: object) -> TypeGuard[Responder]:
    """Tell whether this answers by itself; all else is a response, or stands for one."""
    return hasattr(answer, "begin")


@final
class Exchange:
    """One request, from its head to the end of its response."""

    __slots__ = (
        "chunked",
        "connection",
        "content",
        "context",
        "endpoint",
        "endpoint_task",
        "fields",
        "held",
        "is_cancelled_with_client",
        "line",
        "omit_body",
        "on_response",
        "over",
        "request",
        "sink",
        "socket",
        "started",
    )

    last_line = ""

    def __init__(
        self, connection: HttpConnection, socket: ByteStream, context: HttpContext, request: HttpRequest
    ) -> None:
        self.connection = connection
        self.socket = socket
        self.context = context
        self.request = request
        self.endpoint: Callable[[HttpRequest], object] | None = None
        # Where the endpoint is asynchronous: its task, and whether that ends with the client.
        self.endpoint_task: asyncio.Task[None] | None = None
        self.is_cancelled_with_client = False
        # What takes the body as it comes, in the place of an endpoint that gets it whole; and what came of it.
        self.sink: BodyObserver | None = None
        self.content = bytearray()
        # How many bytes of a body are counted for it.
        self.held = 0
        # Header fields that the response has because of who asked.
        self.fields: tuple[tuple[str, str], ...] = ()
        # RFC 9110 9.3.2: "The HEAD method is identical to GET except that the server MUST NOT send content".
        self.omit_body = request.method == "HEAD"
        # That of the request, once this one is left behind.
        self.on_response: Callable[[int], object] | None = None
        # How a log names it, once the request is left behind.
        self.line = ""
        # Whether the head of the response is out; whether its body has chunks; whether all is done, or nobody is there.
        self.started = self.chunked = self.over = False

    def observe(self, observer: ExchangeObserver) -> None:
        """Have this told of the ends of the exchange. Raises HttpError where there are too many that last."""
        self.connection.observe(observer)

    def forget(self) -> None:
        """Let go of the request: the response may last."""
        # Streams of one target have one line.
        line = self.name()
        if line != Exchange.last_line:
            Exchange.last_line = line
        self.line = Exchange.last_line
        self.on_response = self.request.on_response
        self.free()
        del self.endpoint, self.content
        if self.request.is_watched:
            self.request.body = b""
        else:
            del self.request

    def answered(self, status: int) -> None:
        """Tell whoever asked for it that the response begins."""
        request: HttpRequest | None = getattr(self, "request", None)
        if request is not None and request.on_response is not None:
            self.on_response, request.on_response = request.on_response, None
        tell, self.on_response = self.on_response, None
        if tell is not None:
            tell(status)

    def name(self) -> str:
        """Return the method and the target of the request, for a log."""
        return self.line or request_line(self.request.head)

    def log_failure(self, what: str, error: BaseException) -> None:
        """Log a fault of the application that no client is told."""
        self.context.settings.logger.error("%s: %s", what, self.name(), exc_info=error)

    def end(self) -> None:
        """Mark the exchange as over, and end its request."""
        self.over = True
        if self.endpoint_task is None:
            self.free()
        request: HttpRequest | None = getattr(self, "request", None)
        if request is not None:
            request.end()

    def free(self) -> None:
        """Keep and count the body no longer: a request that is refused may outlast its refusal."""
        if self.held:
            self.content.clear()
            self.context.body_bytes -= self.held
            room = self.request.body_room
            if room is not None:
                room.change(-self.held)
            self.held = 0

    def lose(self) -> None:
        """End the exchange: the client has left. A running endpoint counts as a connection, and may be cancelled."""
        self.end()
        task = self.endpoint_task
        if task is not None:
            self.request.drop_body()
            self.context.outlive(task)
            if self.is_cancelled_with_client:
                task.cancel()

    def half_close(self) -> bool:
        """Take that the client sends no more; tell whether it is to be answered all the same.

        Not where its leaving is to be noticed, for it may be gone: by a stream, a poll, an application, an endpoint
        that ends with it, or that waits for that.
        """
        observer = self.connection.observer
        if observer is not None:
            return self.sink is None and observer.kind == "http"
        if self.is_cancelled_with_client or self.request.is_watched:
            return False
        self.request.half_close()
        return True

    # -- the response

    def respond(self, response: HttpResponse) -> None:
        """Send a response that is whole."""
        if not self.over:
            self.connection.send_response(self, response)

    def respond_late(self, response: HttpResponse) -> None:
        """Send a response for which others waited: what is wrong with it ends this exchange, and raises nothing."""
        try:
            self.respond(response)
        except HttpError as error:
            self.refuse(error)
        except Exception as error:  # noqa: BLE001 - whatever an application made, it ends its own connection only
            self.fail(error)

    def begin_response(self, response: HttpResponse) -> None:
        """Begin a response whose body is written behind it: as long as its Content-Length says, if it has one."""
        if not self.over:
            self.chunked = self.connection.send_head(self, response)

    def begin_stream(self, fields: tuple[tuple[str, str], ...]) -> None:
        """Begin a response of 200 that is written piece by piece, with these header fields."""
        if not self.over:
            self.chunked = self.connection.send_stream_head(self, fields)

    def write(self, payload: bytes) -> None:
        """Write a piece of the body, which is not empty."""
        if self.chunked:
            # Not always a call: an event goes to many clients.
            last = Chunk.last
            payload = last.octets if last.payload is payload else encode_chunk(payload)
        self.socket.gather(payload)

    def finish(self) -> None:
        """End the response that was begun."""
        if not self.over:
            if self.chunked and not self.omit_body:
                # RFC 9112 7.1: the "last-chunk", and no trailers.
                self.socket.gather(b"0\r\n\r\n")
            self.connection.finish(self)

    def refuse(self, error: HttpError) -> None:
        """Answer with an error; a response that is begun is cut."""
        self.connection.refuse(error)

    def fail(self, error: BaseException) -> None:
        """Log a fault of the application, and answer with 500."""
        self.connection.fail(error)

    # -- the flow

    def check_thread(self) -> None:
        """Raise RuntimeError in another thread than the event loop's, as `write` does."""
        self.context.settings.shared.check()

    @property
    def buffered(self) -> int:
        """How many bytes were written and not taken by the kernel yet."""
        return self.socket.buffered

    def set_deadline(self, seconds: float) -> None:
        """Have the observer's `expire` called so many seconds from now, and not before; 0 for never."""
        self.connection.set_deadline(seconds)
