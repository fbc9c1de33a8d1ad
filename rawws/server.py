"""Server: listening sockets to opening handshakes, and those to handlers (RFC 6455 sections 4.2 and 7.1)."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import re
import signal
import socket
import sys
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, final

from .errors import ConnectionClosed, HandshakeError, LocalProtocolError
from .keepalive import Keepalive
from .protocol.closing import serialize_close
from .protocol.connection import Connection, Role
from .protocol.deflate import Compression, Deflater, PerMessageDeflate
from .protocol.extensions import is_token
from .protocol.handshake import Acceptance, Origins, accept, check_origin, check_upgrade, refusal
from .protocol.http11 import (
    HeadReader,
    Request,
    parse_request,
    serialize_fields,
    serialize_response,
)
from .protocol.http11 import Response as HttpResponse
from .proxies import TrustedProxies
from .websocket import Settings, WebSocket

if TYPE_CHECKING:
    import ssl as ssl_module
    from collections.abc import Awaitable, Callable, Generator, Sequence
    from types import TracebackType

__all__ = ["Handler", "Server", "run", "serve", "unix_serve"]

# How long the last bytes of a refusal may wait for the peer to read them, in seconds.
LINGER = 2.0


class Handler:
    """Callbacks for all the connections of a server: one instance serves them, what belongs to one is in `ws.state`.

    Each is called in the event loop and must not block it. What one raises is logged, and closes its connection with
    1011.
    """

    def on_open(self, ws: WebSocket) -> None:
        """Take a new connection, its opening handshake done."""

    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        """Take a message: str for text, bytes for binary."""

    def on_close(self, ws: WebSocket, code: int, reason: str) -> None:
        """Take note of the end: the close code and reason that the peer sent, 1006 where it sent none."""

    def on_drain(self, ws: WebSocket) -> None:
        """Take note that the write buffer, which was over its high-water mark, is under its low-water mark."""


@final
class Opening:
    """The opening handshake of one connection, or the plain HTTP request that came instead."""

    __slots__ = ("answered", "reader", "server", "task", "ws")

    def __init__(self, server: Server) -> None:
        self.server = server
        self.reader = HeadReader()
        self.ws: WebSocket = None  # type: ignore[assignment]  # from `begin` on
        self.answered = False
        self.task: asyncio.Task[None] | None = None

    def begin(self, ws: WebSocket) -> None:
        """Begin with a new connection."""
        self.ws = ws
        ws.set_deadline(self.server.settings.open_timeout)
        self.server.settings.connections.add(ws)
        self.server.keepalive.start()

    def receive(self, data: bytes) -> None:
        """Take what came of the request."""
        # After a refusal nothing is processed: what follows it may be the smuggled second half of a request.
        if self.answered:
            return
        if self.task is not None:
            self.reader.rest += data
            return
        try:
            if not self.reader.receive(data):
                return
            request = parse_request(self.reader.head)
            ws = self.ws
            proxies = self.server.proxies
            if proxies is not None:
                proxies.apply(ws, request)
            process = self.server.process_request
            answer = None if process is None else process(ws, request)
            if answer is not None and inspect.isawaitable(answer):
                # More must not arrive meanwhile; the deadline of the handshake goes on.
                ws.pause_reading()
                self.task = self.server.settings.loop.create_task(self._wait(request, answer))
                return
            self._go_on(request, answer)
        except HandshakeError as error:
            self._respond(refusal(error))
        except Exception as error:  # noqa: BLE001 - whatever process_request raises, it ends this connection only
            self._fail(error)

    async def _wait(self, request: Request, answer: Awaitable[HttpResponse | None]) -> None:
        try:
            response = await answer
            ws = self.ws
            if not ws.lost:
                self._go_on(request, response)
        except HandshakeError as error:
            self._respond(refusal(error))
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(error)

    def _go_on(self, request: Request, response: Any) -> None:
        """Answer the request as `process_request` said, or do the handshake."""
        if response is not None:
            if not isinstance(response, HttpResponse):
                came = type(response).__name__
                raise TypeError(f"process_request returned {came}, allowed are a Response and None")
            self._respond(response, omit_body=request.method == "HEAD")
            return
        server, ws, reader = self.server, self.ws, self.reader
        if server.closing:
            raise HandshakeError(503, "the server is shutting down")
        key = check_upgrade(request)
        secure = ws.secure if ws.secure is not None else ws.extra("sslcontext") is not None
        check_origin(request, server.origins, "https" if secure else "http", request.headers.get("Host") or "")
        accepted = server.accept(ws, request, key)
        deflate = None
        if accepted.parameters is not None and server.compression is not None:
            deflate = PerMessageDeflate(accepted.parameters, True, server.compression, server.deflaters)
        ws.subprotocol = accepted.subprotocol
        ws.request_head = reader.head
        head = server.response_head(ws, request, accepted)
        connection = Connection(Role.SERVER, server.max_size, deflate, server.settings.shared.writers)
        self.answered = True
        ws.write([head])
        ws.open(connection)
        server.start_handler(ws)
        if reader.rest:
            # Frames came in the same segment. The handler's first step is due before them: so it can answer what stands
            # before a Close. Nothing may be read meanwhile: libuv reads again at once where a read filled the buffer.
            ws.pause_reading()
            server.settings.loop.call_soon(self._deliver)
        else:
            ws.resume_reading()

    def _deliver(self) -> None:
        """Hand on what came behind the request."""
        self.ws.resume_reading()
        self.ws.data_received(self.reader.rest)

    def _respond(self, response: HttpResponse, *, omit_body: bool = False) -> None:
        """Send a response, and end the connection once the peer has it."""
        ws = self.ws
        self.answered = True
        if ws.lost:
            return
        if "Connection" not in response.headers:
            response.headers["Connection"] = "close"
        try:
            data = serialize_response(response, self.server.date(), omit_body=omit_body)
        except Exception as error:  # noqa: BLE001 - a response that process_request made and that is none
            self._log(error)
            data = serialize_response(refusal(HandshakeError(500, "the server failed")), self.server.date())
        ws.write([data])
        ws.deadline = 0.0
        ws.set_deadline(LINGER)
        ws.resume_reading()
        # Closing with unread bytes resets the connection, and the reset may overtake the response.
        if ws.transport.can_write_eof():
            ws.transport.write_eof()
        else:
            ws.transport.close()

    def _fail(self, error: Exception) -> None:
        self._log(error)
        if self.answered:
            self.ws.abort()
        else:
            self._respond(refusal(HandshakeError(500, "the server failed")))

    def _log(self, error: Exception) -> None:
        self.server.settings.logger.error("opening handshake failed", exc_info=error)

    def receive_eof(self) -> None:
        """Take note that the peer sends nothing more."""

    def lose(self) -> None:
        """Take note that the connection is gone."""
        if self.task is not None:
            self.task.cancel()

    def expire(self) -> None:
        """End a handshake that takes too long."""
        ws = self.ws
        if self.answered:
            ws.abort()
            return
        if self.task is not None:
            self.task.cancel()
            self._respond(refusal(HandshakeError(503, "the server did not decide in time")))
        else:
            self._respond(refusal(HandshakeError(408, "the request did not arrive in time")))


class Server:
    """A running server, as `async with serve(...)` gives it."""

    def __init__(
        self,
        handler: Any,
        settings: Settings,
        *,
        origins: Origins,
        subprotocols: Sequence[str] | None,
        select_subprotocol: Callable[[WebSocket, list[str]], str | None] | None,
        server_header: str | None,
        process_request: Callable[[WebSocket, Request], Any] | None,
        process_response: Callable[[WebSocket, Request, HttpResponse], HttpResponse | None] | None,
        max_size: int | None,
        compression: Compression | None,
        proxies: TrustedProxies | None,
    ) -> None:
        self.settings = settings
        self.keepalive = Keepalive(settings)
        self.closing = False
        self.origins = origins
        self.subprotocols = subprotocols
        self.select_subprotocol = select_subprotocol
        # What every 101 response has besides what was negotiated, checked and written once.
        self.extra_fields = serialize_fields([("Server", server_header)] if server_header else [])
        self.process_request = process_request
        self.process_response = process_response
        self.max_size = max_size
        self.compression = compression
        self.proxies = proxies
        self.deflaters: dict[tuple[int, int, int], Deflater] = {}
        self._handler = handler
        self._on_open: Any = None
        if isinstance(handler, Handler):
            self._on_open = handler.on_open
            settings.on_message = handler.on_message
            settings.on_close = handler.on_close
            settings.on_drain = handler.on_drain
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopped: asyncio.Future[None] | None = None
        self._date = ""
        self._date_at = 0.0

    async def listen(
        self,
        host: str | Sequence[str] | None,
        port: int | None,
        path: str | None,
        sock: socket.socket | Sequence[socket.socket] | None,
        **options: Any,
    ) -> None:
        """Begin to listen. Raises OSError where that fails."""
        loop = self.settings.loop
        if options["ssl"] is None:
            del options["ssl"]
        elif self.settings.open_timeout:
            # The loop hands over a connection when its TLS handshake is done: so that has a deadline of its own.
            options["ssl_handshake_timeout"] = self.settings.open_timeout
        if path is not None:
            del options["reuse_port"]
            self._servers.append(await loop.create_unix_server(self.make_protocol, path, **options))
        elif sock is not None:
            del options["reuse_port"]
            try:
                for one in [sock] if isinstance(sock, socket.socket) else sock:
                    create = loop.create_unix_server if one.family == socket.AF_UNIX else loop.create_server
                    self._servers.append(await create(self.make_protocol, sock=one, **options))
            except BaseException:
                for server in self._servers:
                    server.close()
                raise
        else:
            self._servers.append(await loop.create_server(self.make_protocol, host, port or 0, **options))

    # -- what users call

    @property
    def sockets(self) -> tuple[Any, ...]:
        """The listening sockets."""
        return tuple(sock for server in self._servers for sock in server.sockets)

    @property
    def connections(self) -> set[WebSocket]:
        """The connections that are open."""
        return {ws for ws in self.settings.connections if ws.opening is None}

    def is_serving(self) -> bool:
        """Tell whether the server takes new connections."""
        return bool(self._servers) and not self.closing

    def close(self, code: int = 1001, reason: str = "") -> None:
        """Take no new connections and close those there are, with this code; `wait_closed` waits for the end.

        A connection whose peer does not answer within `close_timeout` is aborted.
        """
        if self.closing:
            return
        # What may not be sent is refused before anything is closed.
        serialize_close(code, reason)
        self.closing = True
        for server in self._servers:
            server.close()
        for ws in tuple(self.settings.connections):
            if ws.opening is not None:
                # One that is still in its opening handshake is answered with 503 when its request is complete; silent
                # ones are not waited for.
                if ws.opening.task is None:
                    ws.abort()
            else:
                ws.close(code, reason)

    def abort(self) -> None:
        """End all connections now, without a closing handshake, and cancel their handlers."""
        for ws in tuple(self.settings.connections):
            ws.abort()
        for task in tuple(self._tasks):
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait until all connections and their handlers are done."""
        while self.settings.connections:
            await asyncio.wait([asyncio.ensure_future(ws.wait_closed()) for ws in tuple(self.settings.connections)])
        if self._tasks:
            await asyncio.wait(self._tasks)
        for server in self._servers:
            await server.wait_closed()
        if self._stopped is not None and not self._stopped.done():
            self._stopped.set_result(None)

    async def serve_forever(self) -> None:
        """Wait until the server is closed; being cancelled closes it."""
        try:
            if not self.closing:
                if self._stopped is None:
                    self._stopped = self.settings.loop.create_future()
                await asyncio.shield(self._stopped)
        finally:
            self.close()
            await self.wait_closed()

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        await self.wait_closed()

    # -- what connections call

    def make_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol for a new connection."""
        # It has the methods of one, without the base class: a compiled class cannot have that.
        return WebSocket(self.settings, Opening(self))  # type: ignore[return-value]

    def accept(self, ws: WebSocket, request: Request, key: str) -> Acceptance:
        """Negotiate with a client whose request is a good one."""
        select = self.select_subprotocol
        return accept(
            request,
            key,
            subprotocols=self.subprotocols,
            select_subprotocol=None if select is None else lambda offered: select(ws, offered),
            compression=self.compression,
        )

    def response_head(self, ws: WebSocket, request: Request, accepted: Acceptance) -> bytes:
        """Return the 101 response, with what `process_response` adds to it."""
        if self.process_response is None:
            return accepted.serialize(self.extra_fields)
        response = accepted.response()
        response = self.process_response(ws, request, response) or response
        if response.status != 101:
            raise LocalProtocolError(f"process_response returned the status {response.status}, allowed is 101")
        return serialize_response(response)

    def date(self) -> str:
        """Return the value of the Date header, made once a second."""
        now = time.time()
        if now >= self._date_at + 1:
            self._date_at = float(int(now))
            self._date = formatdate(now, usegmt=True)
        return self._date

    def start_handler(self, ws: WebSocket) -> None:
        """Hand an open connection to the application."""
        if self.settings.on_message is not None:
            try:
                self._on_open(ws)
            except Exception as error:  # noqa: BLE001 - whatever a handler raises, it ends its own connection only
                ws.on_handler_error(error)
            return
        try:
            task = self.settings.loop.create_task(self._handler(ws))
        except Exception as error:  # noqa: BLE001 - the handler is no coroutine function, or raised before it was one
            ws.on_handler_error(error)
            return
        ws.task = task
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._handler_done(ws, task))

    def _handler_done(self, ws: WebSocket, task: asyncio.Task[Any]) -> None:
        """Close the connection of a handler that returned with 1000, of one that raised with 1011."""
        self._tasks.discard(task)
        ws.task = None
        error = None if task.cancelled() else task.exception()
        if error is None:
            ws.close(1000)
        elif isinstance(error, ConnectionClosed) and ws.opening is None and ws.connection.phase:
            # The handler ended because its connection did, which is no fault of it.
            ws.close(1000)
        elif isinstance(error, Exception):
            ws.on_handler_error(error)


class Serve:
    """What `serve` returns: `async with` it, or await it, for the running Server."""

    def __init__(self, start: Callable[[], Awaitable[Server]]) -> None:
        self._start = start
        self._server: Server | None = None

    def __await__(self) -> Generator[Any, None, Server]:
        return self._start().__await__()

    async def __aenter__(self) -> Server:
        self._server = await self
        return self._server

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            await self._server.__aexit__(kind, error, trace)

    async def serve_forever(self) -> None:
        """Start, and wait until the server is closed."""
        await (await self).serve_forever()


def serve(
    handler: Any,
    host: str | Sequence[str] | None = None,
    port: int | None = None,
    *,
    path: str | None = None,
    sock: socket.socket | Sequence[socket.socket] | None = None,
    ssl: ssl_module.SSLContext | None = None,
    reuse_port: bool | None = None,
    backlog: int = 1024,
    origins: Origins = None,
    subprotocols: Sequence[str] | None = None,
    select_subprotocol: Callable[[WebSocket, list[str]], str | None] | None = None,
    compression: str | Compression | None = "deflate",
    process_request: Callable[[WebSocket, Request], Any] | None = None,
    process_response: Callable[[WebSocket, Request, HttpResponse], HttpResponse | None] | None = None,
    server_header: str | None = None,
    open_timeout: float | None = 10,
    close_timeout: float | None = 10,
    ping_interval: float | None = 20,
    ping_timeout: float | None = 20,
    max_size: int | None = 1 << 20,
    hard_limit: int | None = 1 << 20,
    trusted_proxies: Sequence[str] = (),
    logger: logging.Logger | None = None,
) -> Serve:
    """Start a WebSocket server; `async with` what this returns, or await it, for the Server.

    `handler` is a coroutine function that takes the connection, or a Handler. When it returns the connection closes
    with 1000, when it raises with 1011.

    Where: `host` (one or several) and `port`, or the `path` of a unix socket, or listening sockets in `sock`; `ssl` is
    for TLS.

    Who may connect: browsers whose page has the same origin as the request's Host, unless `origins` says otherwise: a
    list of origins such as "https://example.com" or compiled regular expressions, with None for requests without an
    Origin header, or "*" for all. Programs that are no browsers send no Origin and are let in by default.

    `process_request(ws, request)`, plain or asynchronous, may return a Response to answer with instead of the
    handshake; None goes on. `process_response(ws, request, response)` may add headers to the 101 response, or return
    another one.

    Limits: times in seconds, None for no limit; `max_size` of a received message in bytes, after decompression (1009);
    `hard_limit` of what may wait for a slow peer when `send` is not awaited, in bytes (1013).

    `trusted_proxies` are addresses or networks whose X-Forwarded-For and X-Forwarded-Proto are believed; by default
    none.

    Raises ValueError or TypeError for options that make no sense, OSError where it cannot listen.
    """
    check_handler(handler)
    chosen_compression = Compression.of(compression)
    check_origins(origins)
    check_subprotocols(subprotocols)
    for name, hook in (
        ("process_request", process_request),
        ("process_response", process_response),
        ("select_subprotocol", select_subprotocol),
    ):
        if hook is not None and not callable(hook):
            raise TypeError(f"{name} is {type(hook).__name__}, allowed are a callable and None")
    if ssl is not None and not hasattr(ssl, "wrap_bio"):
        raise TypeError(f"ssl is {type(ssl).__name__}, allowed are an ssl.SSLContext and None")
    if logger is not None and not hasattr(logger, "exception"):
        raise TypeError(f"logger is {type(logger).__name__}, allowed are a logging.Logger and None")
    if port is not None and not isinstance(port, int):
        raise TypeError(f"port is {type(port).__name__}, allowed are whole numbers")
    if port is not None and not 0 <= port <= 65535:
        raise ValueError(f"port is {port}, allowed are 0 to 65535")
    if host is not None and port is None:
        raise ValueError(f"host is {host!r} without a port, allowed is both or neither")
    if sum(option is not None for option in (path, sock, port)) != 1:
        raise ValueError("one of port, path and sock says where to listen, allowed is exactly one")
    check_limits(
        open_timeout=open_timeout,
        close_timeout=close_timeout,
        ping_interval=ping_interval,
        ping_timeout=ping_timeout,
        max_size=max_size,
        hard_limit=hard_limit,
    )
    proxies = TrustedProxies(trusted_proxies) if trusted_proxies else None

    async def start() -> Server:
        settings = Settings(asyncio.get_running_loop(), logger or logging.getLogger("rawws.server"))
        settings.open_timeout = open_timeout or 0.0
        settings.close_timeout = close_timeout or 0.0
        settings.ping_interval = ping_interval or 0.0
        settings.ping_timeout = ping_timeout or 0.0
        settings.hard_limit = sys.maxsize if hard_limit is None else hard_limit
        server = Server(
            handler,
            settings,
            origins=origins,
            subprotocols=subprotocols,
            select_subprotocol=select_subprotocol,
            server_header=server_header,
            process_request=process_request,
            process_response=process_response,
            max_size=max_size,
            compression=chosen_compression,
            proxies=proxies,
        )
        await server.listen(host, port, path, sock, ssl=ssl, reuse_port=reuse_port, backlog=backlog)
        return server

    return Serve(start)


def unix_serve(handler: Any, path: str, **options: Any) -> Serve:
    """Start a server on a unix socket; the same as `serve(handler, path=path, ...)`."""
    return serve(handler, path=path, **options)


def run(handler: Any, host: str | Sequence[str] | None = None, port: int | None = None, **options: Any) -> None:
    """Serve until SIGINT or SIGTERM, then close all connections with 1001 and return; a second signal ends at once.

    Takes what `serve` takes. Runs on uvloop where it is installed.
    """

    async def main() -> None:
        async with serve(handler, host, port, **options) as server:
            await _until_signal(server)

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())


def check_handler(handler: Any, *, callbacks: bool = False) -> None:
    """Raise TypeError for what cannot be a handler; `callbacks` where only a Handler can."""
    if isinstance(handler, type) and issubclass(handler, Handler):
        raise TypeError(f"handler is the class {handler.__name__}, allowed is an instance of it: {handler.__name__}()")
    if isinstance(handler, Handler):
        for name in ("on_open", "on_message", "on_close", "on_drain"):
            if inspect.iscoroutinefunction(getattr(handler, name)):
                raise TypeError(f"{type(handler).__name__}.{name} is a coroutine function, allowed are plain functions")
    elif callbacks or not callable(handler):
        allowed = "a rawws.Handler" if callbacks else "a coroutine function and a rawws.Handler"
        raise TypeError(f"handler is {type(handler).__name__}, allowed is {allowed}")


def check_origins(origins: Any) -> None:
    """Raise TypeError for what is not an option `origins`."""
    for origin in [origins] if origins is None or isinstance(origins, str) else _listed("origins", origins):
        if origin is not None and not isinstance(origin, (str, re.Pattern)):
            raise TypeError(f"origins has a {type(origin).__name__}, allowed are str, compiled patterns and None")


def check_subprotocols(subprotocols: Any) -> None:
    """Raise TypeError or ValueError for what is not an option `subprotocols`."""
    if isinstance(subprotocols, str):
        raise TypeError(f"subprotocols is str, allowed is a list: [{subprotocols!r}]")
    for subprotocol in _listed("subprotocols", subprotocols or ()):
        if not is_token(subprotocol):
            raise ValueError(f"subprotocols has {subprotocol!r}, allowed are tokens (RFC 6455 section 4.1)")


def _listed(name: str, values: Any) -> list[Any]:
    if not hasattr(values, "__iter__"):
        raise TypeError(f"{name} is {type(values).__name__}, allowed is a list")
    return list(values)


def check_limits(**limits: Any) -> None:
    """Raise ValueError for a time or a size that is not above 0, TypeError for what is no number; None is no limit.

    Times are in seconds and may be fractions, sizes are whole bytes.
    """
    for name, value in limits.items():
        kinds = int if name in {"max_size", "hard_limit"} else (int, float)
        if value is not None and not isinstance(value, kinds):
            raise TypeError(f"{name} is {type(value).__name__}, allowed are numbers above 0 and None")
        if value is not None and not value > 0:
            raise ValueError(f"{name} is {value}, allowed are numbers above 0 and None")


async def _until_signal(server: Server) -> None:
    """Wait for the server's end, which the first SIGINT or SIGTERM begins and the second does not wait for."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()

    def stop() -> None:
        if server.closing:
            server.abort()
            if task is not None:
                task.cancel()
        else:
            server.settings.logger.info("closing %d connections", len(server.connections))
            server.close()
            closing.append(loop.create_task(server.wait_closed()))

    closing: list[asyncio.Task[None]] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        # Windows has no signal handlers on its loops: Ctrl-C raises KeyboardInterrupt there.
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stop)
    try:
        await server.serve_forever()
    finally:
        for number in signals:
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(number)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes a uvloop loop where uvloop is installed, None (asyncio's own) elsewhere."""
    try:
        import uvloop  # noqa: PLC0415 - optional
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
