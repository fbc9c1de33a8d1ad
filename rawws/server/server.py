"""Server: listening sockets to opening handshakes, and those to handlers (RFC 6455 sections 4.2 and 7.1)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import socket
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, final

from rawws.errors import ConnectionClosed, HandshakeError, LocalProtocolError
from rawws.http.routes import Routes
from rawws.net.handlers import Application, Handler, check_handler
from rawws.net.keepalive import Keepalive
from rawws.net.loops import loop_factory
from rawws.net.options import check_limits
from rawws.net.settings import Settings
from rawws.net.websocket import WebSocket
from rawws.protocol.closing import serialize_close
from rawws.protocol.deflate import Compression, Deflater
from rawws.protocol.extensions import is_token
from rawws.protocol.handshake import Acceptance, Origins, accept, check_origin
from rawws.protocol.http11 import Request, serialize_fields, serialize_response
from rawws.protocol.http11 import Response as HttpResponse

from .admission import ACCEPTS, Gate, most_connections
from .forwarded import TrustedProxies
from .http1 import Exchange
from .shutdown import Drain, drain
from .stats import Journal, Stats

if TYPE_CHECKING:
    import ssl as ssl_module
    from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
    from types import TracebackType

    from rawws.net.socket import AsyncSocket

__all__ = ["Handler", "Server", "run", "serve", "unix_serve"]


@final
class Endpoint:
    """A handler, and the settings of its connections."""

    __slots__ = ("handler", "on_open", "settings")

    def __init__(self, handler: Any, settings: Settings) -> None:
        self.handler = handler
        self.on_open: Any = handler.on_open if isinstance(handler, Handler) else None
        self.settings = settings.with_callbacks(handler) if isinstance(handler, Handler) else settings


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
        keep_alive_timeout: float,
        access_log: bool,
        drain: Drain,
        max_connections: int | None,
        gate: Gate,
        max_compression_memory: int | None,
    ) -> None:
        self.settings = settings
        self.journal = settings.journal = Journal(settings.logger, access_log=access_log)
        self.plan = drain
        self.max_connections = max_connections
        self.gate = settings.gate = gate
        self.keepalive = Keepalive(settings)
        # `draining`: it was told to end; `closing`: it takes no new connections.
        self.draining = False
        self.closing = False
        self._dismissed = False
        self._drain: asyncio.Task[None] | None = None
        self.origins = origins
        # For other requests than WebSockets: the origins that may send cookies, and whether others may ask as well.
        listed = [origins] if isinstance(origins, str) else list(origins or ())
        self._all = "*" in listed
        self._listed = [origin for origin in listed if origin not in {"*", None}]
        self.subprotocols = subprotocols
        self.select_subprotocol = select_subprotocol
        # What every response of an endpoint has, and every 101 besides what was negotiated, checked and written once.
        self.extra_fields = serialize_fields([("Server", server_header)] if server_header else [])
        self.process_request = process_request
        self.process_response = process_response
        self.max_size = max_size
        self.compression = compression
        # What is agreed on where `max_compression_memory` is used up: it holds none.
        self._lean = compression and replace(
            compression, server_no_context_takeover=True, client_no_context_takeover=True
        )
        self._compression_memory = sys.maxsize if max_compression_memory is None else max_compression_memory
        self.proxies = proxies
        self.deflaters: dict[tuple[int, int, int], Deflater] = {}
        self.keep_alive_timeout = keep_alive_timeout
        # What takes every connection, or else the table that tells.
        self.application = handler if isinstance(handler, Application) else None
        self.endpoint = None if isinstance(handler, (Routes, Application)) else Endpoint(handler, settings)
        self.routes: Routes = handler if isinstance(handler, Routes) else Routes()
        self._endpoints: dict[int, Endpoint] = {}
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._make_tls: Callable[[], ssl_module.SSLContext] | None = None
        self._listening_tls: ssl_module.SSLContext | None = None
        self._tls: ssl_module.SSLContext | None = None
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
        backlog = options["backlog"]
        options["backlog"] = min(backlog, ACCEPTS)
        if options["ssl"] is not None and not hasattr(options["ssl"], "wrap_bio"):
            self._make_tls = options["ssl"]
            options["ssl"] = self._make_tls()
        self._listening_tls = options["ssl"]
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
        for listening in self.sockets if os.name == "posix" else ():
            with socket.socket(fileno=os.dup(listening.fileno())) as same:
                same.listen(backlog)

    # -- what users call

    @property
    def sockets(self) -> tuple[Any, ...]:
        """The listening sockets."""
        return tuple(sock for server in self._servers for sock in server.sockets)

    @property
    def connections(self) -> set[WebSocket]:
        """The connections that are open."""
        return {ws for ws in self.settings.connections if isinstance(ws, WebSocket) and ws.handler is None}

    @property
    def handlers(self) -> int:
        """How many handlers, and answers to requests, are running; callbacks have none."""
        return len(self._tasks)

    def is_serving(self) -> bool:
        """Tell whether the server takes new connections."""
        return bool(self._servers) and not self.closing

    def close(self, code: int = 1001, reason: str = "") -> None:
        """Take no new connections and close those there are, with this code; `wait_closed` waits for the end.

        A connection whose peer does not answer within `close_timeout` is aborted.
        """
        if self._dismissed:
            return
        # What may not be sent is refused before anything is closed.
        serialize_close(code, reason)
        self._dismissed = True
        self.stop_listening()
        for ws in tuple(self.settings.connections):
            self.dismiss(ws, code, reason)

    async def drain(self) -> None:
        """End as the option `drain` says: not ready, no new connections, all told to go in batches, at last aborted.

        Returns when all connections and their handlers are done. `run` does this on a signal.
        """
        if self._drain is None:
            self.draining = True
            self._drain = self.settings.loop.create_task(drain(self, self.plan))
        await asyncio.shield(self._drain)

    def stats(self) -> Stats:
        """Return what the server holds now, and what it did so far."""
        return self.journal.stats(self.settings.connections, draining=self.draining)

    def reload_tls(self, context: ssl_module.SSLContext | None = None) -> None:
        """Use another certificate for the connections that begin from now on: that of a new context.

        Without one, the function that was given as `ssl` makes it; where that raises, the old certificate stays.
        Certificate and ALPN are the new context's; versions, ciphers and what is asked of clients stay the first one's.
        Raises LocalProtocolError for a server without TLS, without such a function, or whose own context has an
        `sni_callback`, which chooses certificates itself.
        """
        first = self._listening_tls
        if first is None or (context is None and self._make_tls is None):
            raise LocalProtocolError("there is nothing to load, needed is TLS, and a function as ssl or a context")
        if self._tls is None and first.sni_callback is not None:
            raise LocalProtocolError("the context of the server has an sni_callback, which chooses certificates itself")
        self._tls = self._make_tls() if context is None and self._make_tls is not None else context
        first.sni_callback = self._choose_tls

    @property
    def reloads_tls(self) -> bool:
        """Whether `ssl` was given as a function."""
        return self._make_tls is not None

    def on_hangup(self) -> None:
        """Load the certificate again; where that fails, log why and go on with the old one."""
        try:
            self.reload_tls()
        except Exception:
            self.settings.logger.exception("the new certificate cannot be used, the old one stays")
        else:
            self.settings.logger.info("the certificate was loaded again")

    def _choose_tls(self, ssl_object: Any, name: str | None, context: ssl_module.SSLContext) -> None:  # noqa: ARG002
        # OpenSSL asks in each handshake, with and without a name in it.
        ssl_object.context = self._tls

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
        if self.application is not None:
            await self.application.shut_down()
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

    # -- what a drain calls

    def stop_listening(self) -> None:
        """Take no new connections."""
        self.closing = True
        for server in self._servers:
            server.close()

    def dismiss(self, ws: AsyncSocket, code: int, reason: str) -> None:
        """Tell one connection to go."""
        if ws.handler is not None:
            ws.handler.shut_down()
        elif isinstance(ws, WebSocket):
            ws.close(code, reason)

    # -- what connections call

    def make_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol for a new connection."""
        # It has the methods of one, without the base class: a compiled class cannot have that.
        return WebSocket(self.settings, Exchange(self))  # type: ignore[return-value]

    def accept(
        self,
        ws: WebSocket,
        request: Request,
        key: str,
        select: Callable[[WebSocket, list[str]], str | None] | None = None,
    ) -> Acceptance:
        """Negotiate with a client whose request is a good one; `select` is in the place of `select_subprotocol`."""
        select = select or self.select_subprotocol
        compression = self.compression if self.gate.memory < self._compression_memory else self._lean
        accepted = accept(
            request,
            key,
            subprotocols=self.subprotocols,
            select_subprotocol=None if select is None else lambda offered: select(ws, offered),
            compression=compression,
        )
        if accepted.parameters is not None and compression is not None:
            self.gate.hold(ws, accepted.parameters, compression.memory_level)
        return accepted

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
            from email.utils import formatdate  # noqa: PLC0415 - a server of WebSockets alone sends no Date

            self._date = formatdate(now, usegmt=True)
        return self._date

    def endpoint_of(self, handler: Any) -> Endpoint:
        """Return the endpoint of a route for WebSockets."""
        endpoint = self._endpoints.get(id(handler))
        if endpoint is None:
            endpoint = self._endpoints[id(handler)] = Endpoint(handler, self.settings)
        return endpoint

    def start_handler(self, ws: WebSocket, endpoint: Endpoint) -> None:
        """Hand an open connection to the application."""
        ws.settings = endpoint.settings
        if endpoint.on_open is not None:
            try:
                endpoint.on_open(ws)
            except Exception as error:  # noqa: BLE001 - whatever a handler raises, it ends its own connection only
                ws.on_handler_error(error)
            return
        try:
            task = self.settings.loop.create_task(endpoint.handler(ws))
        except Exception as error:  # noqa: BLE001 - the handler is no coroutine function, or raised before it was one
            ws.on_handler_error(error)
            return
        ws.task = task
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._handler_done(ws, task))

    def start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run what answers a request; `wait_closed` waits for it, too."""
        task = self.settings.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def cross_origin(self, request: Request, scheme: str) -> bytes:
        """Return the header lines that let the page of an allowed origin read the response (WHATWG Fetch 3.3).

        Raises HandshakeError with 403 for the page of another origin; same-origin pages, and what is no browser, need
        no permission.
        """
        vary = b"Vary: Origin\r\n" if self._listed else b""
        if "Origin" not in request.headers:
            return vary
        with contextlib.suppress(HandshakeError):
            check_origin(request, None, scheme, request.headers.get("Host") or "")
            return vary
        try:
            origin = check_origin(request, self._listed, "", "")
        except HandshakeError:
            if not self._all:
                raise
            return b"Access-Control-Allow-Origin: *\r\n" + vary
        return vary + serialize_fields(
            [("Access-Control-Allow-Origin", origin or ""), ("Access-Control-Allow-Credentials", "true")]
        )

    def _handler_done(self, ws: WebSocket, task: asyncio.Task[Any]) -> None:
        """Close the connection of a handler that returned with 1000, of one that raised with 1011."""
        self._tasks.discard(task)
        ws.task = None
        error = None if task.cancelled() else task.exception()
        if error is None:
            ws.close(1000)
        elif isinstance(error, ConnectionClosed) and ws.handler is None and ws.connection.phase:
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
    ssl: ssl_module.SSLContext | Callable[[], ssl_module.SSLContext] | None = None,
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
    keep_alive_timeout: float | None = 75,
    max_lifetime: float | None = None,
    max_connections: int | None = None,
    max_connections_per_address: int | None = None,
    handshake_rate: float | None = None,
    message_rate: float | None = None,
    byte_rate: float | None = None,
    max_compression_memory: int | None = 1 << 28,
    drain: Drain | None = None,
    access_log: bool = False,
    trusted_proxies: Sequence[str] = (),
    logger: logging.Logger | None = None,
) -> Serve:
    """Start a WebSocket server; `async with` what this returns, or await it, for the Server.

    `handler` is a coroutine function that takes the connection, or a Handler. When it returns the connection closes
    with 1000, when it raises with 1011. Or it is a table of Routes, which answer plain HTTP as well.

    Where: `host` (one or several) and `port`, or the `path` of a unix socket, or listening sockets in `sock`; `ssl` is
    for TLS, a context or a function that makes one: `reload_tls` calls it again, and so does `run` on SIGHUP.

    Who may connect: browsers whose page has the same origin as the request's Host, unless `origins` says otherwise: a
    list of origins such as "https://example.com" or compiled regular expressions, with None for requests without an
    Origin header, or "*" for all. Programs that are no browsers send no Origin and are let in by default.

    `process_request(ws, request)`, plain or asynchronous, may return a Response to answer with instead of the
    handshake; None goes on. `process_response(ws, request, response)` may add headers to the 101 response, or return
    another one.

    Limits: times in seconds, None for no limit; `max_size` of a received message in bytes, after decompression (1009),
    and of the body of a request (413); `hard_limit` of what may wait for a slow peer when `send` is not awaited, in
    bytes (1013); `keep_alive_timeout` of what an HTTP connection may be silent between its requests, by default longer
    than the 60 s of most proxies, so that it is they who end it and no request meets a closed connection;
    `max_lifetime` of a WebSocket, less up to a tenth of it by chance (1001; the client connects again).

    `max_connections` there may be in all (503, with Retry-After), by default as many as there are descriptors for, less
    a twentieth; `max_connections_per_address` (429). Of each address, `handshake_rate` a second (429). Of each
    WebSocket, `message_rate` messages and `byte_rate` bytes a second: a client that is faster is not read from, so TCP
    slows it down. Over `max_compression_memory` bytes of compressors that a Compression with context takeover keeps,
    it is agreed on without.

    `drain` says how the server ends on a signal. `access_log` has each HTTP response logged, by `rawws.access`.

    `trusted_proxies` are addresses or networks whose X-Forwarded-For and X-Forwarded-Proto are believed; by default
    none.

    Raises ValueError or TypeError for options that make no sense, OSError where it cannot listen.
    """
    if isinstance(handler, Application):
        if subprotocols or select_subprotocol or process_response:
            raise ValueError("subprotocols, select_subprotocol and process_response are the application's to decide")
    elif not isinstance(handler, Routes):
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
    if ssl is not None and not hasattr(ssl, "wrap_bio") and not callable(ssl):
        raise TypeError(f"ssl is {type(ssl).__name__}, allowed are an ssl.SSLContext, a function and None")
    if drain is not None and not isinstance(drain, Drain):
        raise TypeError(f"drain is {type(drain).__name__}, allowed are a Drain and None")
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
        keep_alive_timeout=keep_alive_timeout,
        max_lifetime=max_lifetime,
        max_connections=max_connections,
        max_connections_per_address=max_connections_per_address,
        handshake_rate=handshake_rate,
        message_rate=message_rate,
        byte_rate=byte_rate,
        max_compression_memory=max_compression_memory,
    )
    proxies = TrustedProxies(trusted_proxies) if trusted_proxies else None

    async def start() -> Server:
        settings = Settings(asyncio.get_running_loop(), logger or logging.getLogger("rawws.server"))
        settings.open_timeout = open_timeout or 0.0
        settings.close_timeout = close_timeout or 0.0
        settings.ping_interval = ping_interval or 0.0
        settings.ping_timeout = ping_timeout or 0.0
        settings.max_lifetime = max_lifetime or 0.0
        settings.message_rate = message_rate or 0.0
        settings.byte_rate = byte_rate or 0.0
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
            keep_alive_timeout=keep_alive_timeout or 0.0,
            access_log=access_log,
            drain=drain or Drain(),
            max_connections=max_connections or most_connections(),
            gate=Gate(max_connections_per_address, handshake_rate),
            max_compression_memory=max_compression_memory,
        )
        if server.application is not None:
            await server.application.start_up(server)
        try:
            await server.listen(host, port, path, sock, ssl=ssl, reuse_port=reuse_port, backlog=backlog)
        except BaseException:
            if server.application is not None:
                await server.application.shut_down()
            raise
        return server

    return Serve(start)


def unix_serve(handler: Any, path: str, **options: Any) -> Serve:
    """Start a server on a unix socket; the same as `serve(handler, path=path, ...)`."""
    return serve(handler, path=path, **options)


def run(handler: Any, host: str | Sequence[str] | None = None, port: int | None = None, **options: Any) -> None:
    """Serve until SIGINT or SIGTERM, then drain and return; a second signal ends at once.

    SIGHUP loads the certificate again, where `ssl` is a function. Takes what `serve` takes. Runs on uvloop where it is
    installed.
    """

    async def main() -> None:
        async with serve(handler, host, port, **options) as server:
            await until_signal(server)

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())


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


async def until_signal(server: Server) -> None:
    """Wait for the server's end, which the first SIGINT or SIGTERM begins and the second does not wait for."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()

    def stop() -> None:
        if server.draining or server.closing:
            server.abort()
            if task is not None:
                task.cancel()
        else:
            # Known at once: the next to ask may be a supervisor that passes on the same signal.
            server.draining = True
            draining.append(loop.create_task(server.drain()))

    draining: list[asyncio.Task[None]] = []
    signals: dict[int, Callable[[], None]] = {signal.SIGINT: stop, signal.SIGTERM: stop}
    if server.reloads_tls:
        signals[signal.SIGHUP] = server.on_hangup
    for number, react in signals.items():
        # Windows has no signal handlers on its loops: Ctrl-C raises KeyboardInterrupt there.
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, react)
    try:
        await server.serve_forever()
        # What ended it may have something left to say.
        await asyncio.gather(*draining)
    finally:
        for number in signals:
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(number)
