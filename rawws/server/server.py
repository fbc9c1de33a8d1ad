"""Server: listening sockets to connections, and their end (RFC 6455 section 7.1)."""

from __future__ import annotations

import asyncio
import os
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

from rawws.net.engines import chosen_engine
from rawws.net.forks import let_go_in_children
from rawws.net.kernel import gone_after, notice_vanished
from rawws.net.reactor import adopt, reactor_of
from rawws.net.websocket import WebSocket
from rawws.protocol.closing import serialize_close
from rawws.protocol.opcodes import CloseCode

from .admission import ACCEPTS
from .connection import UNKNOWN_CLIENT
from .context import ServerContext
from .engines import EpollServer
from .forwarded import TrustedProxies
from .hosts import AllowedHosts
from .http1 import Http1Connection
from .options import ListenOptions, ServerHandler, UnixOptions, check_server_handler, takes_options
from .proxy_protocol import ProxyListener, ProxyTerms
from .shutdown import Drain, drain
from .tls import TlsReloader
from .tls_handshake import TlsHandshake, finish_handshake
from .unix import bind_unix

if TYPE_CHECKING:
    import ssl as ssl_module
    from collections.abc import Awaitable, Callable, Generator
    from types import TracebackType

    from rawws.http.serving import ServerFigures
    from rawws.net.reactor import Reactor
    from rawws.net.socket import AsyncSocket

    from .listening import ListeningServer
    from .proxy_header import ProxiedClient

__all__ = ["Serve", "Server", "serve", "start_serving", "unix_serve"]


# RFC 9113 3.2 and RFC 7301: what is offered in the TLS handshake, the best first.
ALPN = ("h2", "http/1.1")


class Server:
    """A running server, as `async with serve(...)` gives it."""

    def __init__(self, context: ServerContext) -> None:
        self.context = context
        self.settings = context.settings
        self.counters = context.counters
        self.admission = context.admission
        context.server = self
        let_go_in_children(self)
        self._closed = False
        # A program that gives sockets may mean children of its own to listen with them, too.
        self._listens_with_given = False
        self._drain: asyncio.Task[None] | None = None
        self._servers: list[ListeningServer] = []
        self._tls = TlsReloader(None)
        # TLS is our own engine's: a connection is known before its handshake.
        self._counts_handshakes = False
        self._stopped: asyncio.Future[None] | None = None
        # What is called on SIGHUP as well, for an application that reads its configuration again.
        self.on_reload: Callable[[], object] | None = None

    async def listen(self, options: ListenOptions) -> None:
        """Begin to listen. Raises OSError where that fails."""
        self._tls = TlsReloader(options.ssl, None if self.context.options.http2 is False else ALPN)
        more: dict[str, Any] = {"backlog": min(options.backlog, ACCEPTS), "start_serving": False}
        by_epoll = chosen_engine(options.engine, self.settings.loop, tls=self._tls.context is not None) == "epoll"
        if self._tls.context is not None and not by_epoll:
            more["ssl"] = self._tls.context
            if self.settings.open_timeout:
                # The loop hands over a connection when its TLS handshake is done: so that has a deadline of its own.
                more["ssl_handshake_timeout"] = self.settings.open_timeout
            if self.settings.close_timeout:
                # Of a client that does not answer close_notify; the loop's own is 30 s.
                more["ssl_shutdown_timeout"] = self.settings.close_timeout
        try:
            await self._bind(options, more)
            adopting = self._adopting() if by_epoll else None
            if options.proxy_protocol:
                tls = {name: value for name, value in more.items() if name.startswith("ssl")}
                self._read_proxy_headers(tls, adopting)
            elif adopting is not None:
                self._servers = [EpollServer(server, self.make_protocol, adopting) for server in self._servers]
            if options.hosts is None and not options.trusted_proxies:
                # RFC 9110 7.4 excepts "a trusted gateway": what it passes on is by the name of its site.
                self.context.hosts = AllowedHosts.at(self.sockets, options.host)
            for listening in self.sockets:
                # What is accepted is told the same, and nothing is accepted before.
                notice_vanished(listening, gone_after(self.settings.ping_interval, self.settings.ping_timeout))
            for server in self._servers:
                await server.start_serving()
        except BaseException:
            for server in self._servers:
                server.close()
            raise
        for listening in self.sockets if os.name == "posix" else ():
            with socket.socket(fileno=os.dup(listening.fileno())) as same:
                same.listen(options.backlog)

    async def _bind(self, options: ListenOptions, more: dict[str, Any]) -> None:
        """Make the listening sockets, or take those that are given."""
        loop = self.settings.loop
        # It has the methods of a protocol, without the base class: a compiled class cannot have that.
        make: Any = self.make_protocol
        if options.path is not None:
            unix = bind_unix(options.path, options.mode)
            try:
                self._servers.append(await loop.create_unix_server(make, sock=unix, **more))
            except BaseException:
                unix.close()
                raise
        elif options.sock is not None:
            self._listens_with_given = True
            for one in [options.sock] if isinstance(options.sock, socket.socket) else options.sock:
                create: Callable[..., Awaitable[asyncio.Server]] = loop.create_server
                if one.family == socket.AF_UNIX:
                    create = loop.create_unix_server
                self._servers.append(await create(make, sock=one, **more))
        else:
            more["reuse_port"] = options.reuse_port
            port = options.port or 0
            self._servers.append(await loop.create_server(make, options.host, port, **more))

    def _adopting(self) -> Callable[[Reactor, int, Any, AsyncSocket], None]:
        """Return what serves an accepted descriptor by our own engine."""
        if self._tls.context is None:
            return adopt
        from rawws.net.tls_transport import TlsTerms  # noqa: PLC0415 - as `ssl` itself: few servers have TLS

        self._counts_handshakes = True
        settings = self.settings
        return TlsTerms(
            self._tls.context,
            settings.loop,
            finish_handshake,
            shutdown_timeout=settings.close_timeout,
            logger=settings.logger,
        ).adopt

    def _read_proxy_headers(
        self, tls: dict[str, Any], adopting: Callable[[Reactor, int, Any, AsyncSocket], None] | None
    ) -> None:
        """Have every connection begin with a PROXY header."""
        context = self.context
        terms = ProxyTerms(
            TrustedProxies(context.options.trusted_proxies),
            self._protocol_for,
            context.counters.refuse_proxy,
            open_timeout=context.options.open_timeout,
            most=context.max_connections,
            tls=tls,
            logger=self.settings.logger,
            adopt=None if adopting is None else partial(adopting, reactor_of(self.settings.loop)),
        )
        self._servers = [ProxyListener(server, terms) for server in self._servers]

    # -- what users call

    @property
    def draining(self) -> bool:
        """Whether it was told to end: `readyz` says so."""
        return self.context.draining

    @property
    def closing(self) -> bool:
        """Whether it takes no new connections."""
        return self.context.closing

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
        return len(self.context.tasks)

    def is_serving(self) -> bool:
        """Tell whether the server takes new connections."""
        return bool(self._servers) and not self.closing

    def close(self, code: int = CloseCode.GOING_AWAY, reason: str = "") -> None:
        """Take no new connections and close those there are, with this code; `wait_closed` waits for the end.

        A connection whose peer does not answer within `close_timeout` is aborted.
        """
        if self._closed:
            return
        self.settings.shared.check()
        # What may not be sent is refused before anything is closed.
        serialize_close(code, reason)
        self._closed = True
        self.stop_listening()
        for ws in tuple(self.settings.connections):
            self.close_gracefully(ws, code, reason)

    async def drain(self) -> None:
        """End as the option `drain` says: not ready, no new connections, all told to go in batches, at last aborted.

        Returns when all connections and their handlers are done. `run` does this on a signal.
        """
        await asyncio.shield(self.start_draining())

    def start_draining(self) -> asyncio.Task[None]:
        """Begin to end as `drain` does, and return the task that does it."""
        # Known at once: the next to ask may be a supervisor that passes on the same signal.
        self.context.draining = True
        if self._drain is None:
            self._drain = self.settings.loop.create_task(drain(self, self.context.options.drain or Drain()))
        return self._drain

    def stats(self) -> ServerFigures:
        """Return what the server holds now, and what it did so far."""
        return self.counters.figures(self.settings.connections, draining=self.draining)

    def reload_tls(self, context: ssl_module.SSLContext | None = None) -> None:
        """Use another certificate for the connections that begin from now on: that of a new context.

        Without one, the function that was given as `ssl` makes it; where that raises, the old certificate stays.
        Certificate and ALPN are the new context's; versions, ciphers and what is asked of clients stay the first one's.
        Raises LocalProtocolError for a server without TLS, without such a function, or whose own context has an
        `sni_callback`, which chooses certificates itself.
        """
        self._tls.reload(context)

    @property
    def reloads_tls(self) -> bool:
        """Whether `ssl` was given as a function."""
        return self._tls.reloads

    @property
    def reloads(self) -> bool:
        """Whether there is something to do on SIGHUP: `ssl` was given as a function, or `on_reload` is set."""
        return self._tls.reloads or self.on_reload is not None

    def on_hangup(self) -> None:
        """Load the certificate again, and call `on_reload`; where one fails, log why and go on as before."""
        if self._tls.reloads:
            self._tls.on_hangup(self.settings.logger)
        if self.on_reload is not None:
            try:
                self.on_reload()
            except Exception:
                self.settings.logger.exception("on_reload failed")

    def abort(self) -> None:
        """End all connections now, without a closing handshake, and cancel their handlers."""
        self.settings.shared.check()
        for ws in tuple(self.settings.connections):
            ws.abort()
        for task in tuple(self.context.tasks):
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait until all connections and their handlers are done."""
        while self.settings.connections:
            await asyncio.wait([asyncio.ensure_future(ws.wait_closed()) for ws in tuple(self.settings.connections)])
        if self.context.tasks:
            await asyncio.wait(self.context.tasks)
        for server in self._servers:
            await server.wait_closed()
        if self.context.lasting is not None:
            await self.context.lasting.shut_down()
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
        self.context.closing = True
        for server in self._servers:
            server.close()

    def close_gracefully(self, ws: AsyncSocket, code: int, reason: str) -> None:
        """Tell one connection to go."""
        if ws.handler is not None:
            ws.handler.shut_down()
        elif isinstance(ws, WebSocket):
            ws.close(code, reason)

    def descriptors(self) -> list[int]:
        """Return those that it listens with, for the children of this process to close; not those it was given."""
        if self._listens_with_given:
            return []
        more = [one for server in self._servers if isinstance(server, ProxyListener) for one in server.descriptors()]
        return [*more, *(listening.fileno() for listening in self.sockets)]

    # -- what the loop calls

    def make_protocol(self) -> WebSocket:
        """Return the protocol for a new connection."""
        return self._protocol_for(UNKNOWN_CLIENT)

    def _protocol_for(self, client: ProxiedClient) -> WebSocket:
        """Return the protocol for a new connection of a client that a PROXY header names."""
        connection = Http1Connection(self.context, client)
        return WebSocket(self.settings, TlsHandshake(connection) if self._counts_handshakes else connection)


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


def start_serving(handler: ServerHandler, options: ListenOptions) -> Serve:
    """Start a server; `async with` what this returns, or await it, for the Server. Raises as `serve` does."""
    check_server_handler(handler, options)

    async def start() -> Server:
        server = Server(ServerContext(handler, options, asyncio.get_running_loop()))
        application = server.context.lasting
        if application is not None:
            await application.start_up(server.context)
        try:
            await server.listen(options)
        except BaseException:
            if application is not None:
                await application.shut_down()
            raise
        return server

    return Serve(start)


@takes_options(ListenOptions)
def serve(handler: ServerHandler, options: ListenOptions) -> Serve:
    """Start a WebSocket server; `async with` what this returns, or await it, for the Server.

    `handler` is a coroutine function that takes the connection, or a Handler. When it returns the connection closes
    with 1000, when it raises with 1011. Or it is a table of Routes, which answer plain HTTP as well.

    Where: `host` (one or several) and `port`, or the `path` of a unix socket, or listening sockets in `sock`; `ssl` is
    for TLS, a context or a function that makes one: `reload_tls` calls it again, and so does `run` on SIGHUP.

    Who may connect: browsers whose page has the same origin as the request's Host, unless `origins` says otherwise: a
    list of origins such as "https://example.com" or compiled regular expressions, with None for requests without an
    Origin header, or "*" for all. Programs that are no browsers send no Origin and are let in by default.

    By what name: `hosts` are the names that Host may have, whatever the port: "example.com", "*.example.com" for all
    below, addresses, "*" for any; 421 for others. By default a server that listens on loopback addresses alone, and
    has no `trusted_proxies`, answers to localhost, to addresses and to `host`: so a page of another site whose name was
    made to lead here (DNS rebinding) is refused. Any other server answers to any name.

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
    it is agreed on without. Of the bodies of all requests, `max_body_memory` bytes are kept (503, with Retry-After).

    `drain` says how the server ends on a signal. `access_log` has each HTTP response logged, by `rawws.access`.

    `trusted_proxies` are addresses or networks whose X-Forwarded-For and X-Forwarded-Proto are believed; by default
    none. With `proxy_protocol`, every connection must begin with a PROXY header of one of them (version 1 or 2), before
    TLS, too; others are closed.

    `engine` is who reads and writes the sockets, plain and in TLS: "asyncio", the transports of the loop; "epoll", an
    engine of our own, on Linux alone. None is "epoll" where there is one, but "asyncio" where rawws runs interpreted in
    a loop that is written in C, such as uvloop.

    Raises ValueError or TypeError for options that make no sense, OSError where it cannot listen.
    """
    return start_serving(handler, options)


@takes_options(UnixOptions)
def unix_serve(handler: ServerHandler, options: UnixOptions) -> Serve:
    """Start a server on a unix socket, at this path; the other options are those of `serve`.

    `mode` are the permissions of the socket, such as 0o660. Raises OSError where another server listens there; the
    socket of one that is gone is replaced.
    """
    where = options.at(path=options.path, mode=options.mode, proxy_protocol=options.proxy_protocol)
    return start_serving(handler, where)
