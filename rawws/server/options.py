"""Options: what a server may be told, each option once: its type, its default, and what it is for.

`takes_options` gives a function the fields of such a class as keywords. So mypy, pyright and `help` know them wherever
they are taken, and a name that is none is an error of types.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeAlias, TypeVar, cast

from rawws.http.application import HttpApplication
from rawws.http.routes import Routes
from rawws.net.engines import check_engine
from rawws.net.handlers import Handler, check_handler
from rawws.net.options import check_limits, options_for
from rawws.protocol.deflate import Compression
from rawws.protocol.extensions import is_token

from .hosts import check_hosts
from .shutdown import Drain
from .unix import check_mode

if TYPE_CHECKING:
    import logging
    import socket
    import ssl as ssl_module

    from rawws.net.engines import SocketEngine
    from rawws.net.websocket import WebSocket
    from rawws.protocol.handshake import Origins
    from rawws.protocol.http11 import HttpResponse, Request

__all__ = [
    "ListenOptions",
    "ServerHandler",
    "ServerOptions",
    "UnixOptions",
    "check_origins",
    "check_server_handler",
    "takes_options",
]

# RFC 6454 6.2: a scheme, "://", a host, and a port that is not the default; nothing behind it.
ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#\s]+")

# What serves: a coroutine function that takes each WebSocket, callbacks, a table of routes, or an application.
ServerHandler: TypeAlias = "Callable[[WebSocket], Coroutine[Any, Any, object]] | Handler | Routes | HttpApplication"

P = ParamSpec("P")
Taken = TypeVar("Taken")
Options = TypeVar("Options")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """What a server is told, wherever it listens. Times in seconds, sizes in bytes; None is no limit.

    Raises ValueError or TypeError for options that make no sense.
    """

    # For TLS: a context, or a function that makes one, which `reload_tls` calls again.
    ssl: ssl_module.SSLContext | Callable[[], ssl_module.SSLContext] | None = None
    # How many connections the kernel keeps that this side has not accepted yet.
    backlog: int = 1024
    # Whose pages may connect: origins and patterns, None for requests without Origin, "*" for all; by default this
    # server's own pages, and what is no browser.
    origins: Origins = None
    # The names that Host may have, "*.name" for those below, "*" for any (421); by default those of loopback where the
    # server listens on nothing else and trusts no proxy, and else any.
    hosts: str | Sequence[str] | None = None
    # The subprotocols that are spoken, the best first; or a function that chooses one of those offered, or None.
    subprotocols: Sequence[str] | None = None
    select_subprotocol: Callable[[WebSocket, list[str]], str | None] | None = None
    # permessage-deflate (RFC 7692): "deflate", a Compression, or None for no compression.
    compression: str | Compression | None = "deflate"
    # May answer a request with a Response in the place of the handshake; plain or asynchronous.
    process_request: Callable[[WebSocket, Request], Any] | None = None
    # May add headers to the 101 response, or return another one.
    process_response: Callable[[WebSocket, Request, HttpResponse], HttpResponse | None] | None = None
    # The Server header of all responses.
    server_header: str | None = None
    # From the connection to the end of the opening handshake (408), and from a Close frame to the end (abort).
    open_timeout: float | None = 10
    close_timeout: float | None = 10
    # Pings to silent peers, and how long the answer may take (1011).
    ping_interval: float | None = 20
    ping_timeout: float | None = 20
    # Of a received message after decompression (1009), and of the body of a request (413).
    max_size: int | None = 1 << 20
    # Of what waits for a slow peer where `send` is not awaited (1013).
    hard_limit: int | None = 1 << 20
    # Of silence between two requests: longer than the 60 s of most proxies, so that it is they who end the connection,
    # and no request meets one that is closed.
    keep_alive_timeout: float | None = 75
    # Of a WebSocket, less up to a tenth by chance (1001); the client connects again.
    max_lifetime: float | None = None
    # In all (503), by default as many as there are descriptors for, less a twentieth; and from one address (429).
    max_connections: int | None = None
    max_connections_per_address: int | None = None
    # Of one address, a second (429).
    handshake_rate: float | None = None
    # Of one WebSocket, a second: who is faster is not read from for a while.
    message_rate: float | None = None
    byte_rate: float | None = None
    # Of compressors with context takeover; over that it is agreed on without.
    max_compression_memory: int | None = 1 << 28
    # Of the bodies of all requests that are read or answered; the next piece of another one is refused (503). As much
    # as for compressors: by default, 256 bodies of `max_size`.
    max_body_memory: int | None = 1 << 28
    # How the server ends on a signal.
    drain: Drain | None = None
    # HTTP/2 (RFC 9113): True by TLS where the client wants it too, and without TLS to those that begin with it; None by
    # TLS alone. False is HTTP/1.1 alone; "no-websocket" is True, and leaves WebSockets to HTTP/1.1.
    http2: bool | str | None = None
    # Whether `rawws.access` logs each HTTP response.
    access_log: bool = False
    # Addresses and networks whose X-Forwarded-For and X-Forwarded-Proto are believed.
    trusted_proxies: Sequence[str] = ()
    # Who reads and writes the sockets, plain and in TLS: "asyncio", the transports of the loop; "epoll", an engine of
    # our own, on Linux; None is the one that costs less in the loop.
    engine: SocketEngine | None = None
    # By default `rawws.server`.
    logger: logging.Logger | None = None

    def __post_init__(self) -> None:
        Compression.of(self.compression)
        check_origins(self.origins)
        check_hosts(self.hosts)
        check_subprotocols(self.subprotocols)
        for name in ("process_request", "process_response", "select_subprotocol"):
            hook = getattr(self, name)
            if hook is not None and not callable(hook):
                raise TypeError(f"{name} is {type(hook).__name__}, allowed are a callable and None")
        if self.ssl is not None and not hasattr(self.ssl, "wrap_bio") and not callable(self.ssl):
            raise TypeError(f"ssl is {type(self.ssl).__name__}, allowed are an ssl.SSLContext, a function and None")
        if self.drain is not None and not isinstance(self.drain, Drain):
            raise TypeError(f"drain is {type(self.drain).__name__}, allowed are a Drain and None")
        if self.http2 is not None and not isinstance(self.http2, bool) and self.http2 != "no-websocket":
            raise ValueError(f"http2 is {self.http2!r}, allowed are True, False, None and 'no-websocket'")
        check_engine(self.engine)
        if self.logger is not None and not hasattr(self.logger, "exception"):
            raise TypeError(f"logger is {type(self.logger).__name__}, allowed are a logging.Logger and None")
        check_limits(**{name: getattr(self, name) for name in LIMITS})

    def at(
        self,
        *,
        path: str | None = None,
        mode: int | None = None,
        sock: Sequence[socket.socket] | None = None,
        proxy_protocol: bool = False,
    ) -> ListenOptions:
        """Return the same options for a server at a unix socket, or at these sockets."""
        same = {field.name: getattr(self, field.name) for field in fields(ServerOptions)}
        return ListenOptions(path=path, mode=mode, sock=sock, proxy_protocol=proxy_protocol, **same)


LIMITS = (
    "open_timeout",
    "close_timeout",
    "ping_interval",
    "ping_timeout",
    "max_size",
    "hard_limit",
    "keep_alive_timeout",
    "max_lifetime",
    "max_connections",
    "max_connections_per_address",
    "handshake_rate",
    "message_rate",
    "byte_rate",
    "max_compression_memory",
    "max_body_memory",
)


@dataclass(frozen=True)
class ListenOptions(ServerOptions):
    """The same, and where the server listens: `host` and `port`, or `path`, or `sock`."""

    # One address or name, or several; None for all of this machine.
    host: str | Sequence[str] | None = None
    # 0 for any free one.
    port: int | None = None
    _: KW_ONLY
    # Of a unix socket; and its permissions, such as 0o660, by default those that the umask leaves.
    path: str | None = None
    mode: int | None = None
    # One socket that is bound, or several.
    sock: socket.socket | Sequence[socket.socket] | None = None
    # Whether other processes may listen at the same port: the kernel spreads the connections.
    reuse_port: bool | None = None
    # Whether every connection begins with a PROXY header, versions 1 and 2, of one of the trusted proxies; others are
    # closed.
    proxy_protocol: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_mode(self.mode, self.path)
        check_proxy_protocol(self)
        if self.port is not None and not isinstance(self.port, int):
            raise TypeError(f"port is {type(self.port).__name__}, allowed are whole numbers")
        if self.port is not None and not 0 <= self.port <= 65535:
            raise ValueError(f"port is {self.port}, allowed are 0 to 65535")
        if self.host is not None and self.port is None:
            raise ValueError(f"host is {self.host!r} without a port, allowed is both or neither")
        if sum(option is not None for option in (self.path, self.sock, self.port)) != 1:
            raise ValueError("one of port, path and sock says where to listen, allowed is exactly one")


@dataclass(frozen=True)
class UnixOptions(ServerOptions):
    """The same, for a server on a unix socket."""

    # Of the socket; and its permissions, such as 0o660.
    path: str
    _: KW_ONLY
    mode: int | None = None
    # Whether every connection begins with a PROXY header.
    proxy_protocol: bool = False


def takes_options(
    options: Callable[P, Options],
) -> Callable[[Callable[[Taken, Options], Result]], Callable[Concatenate[Taken, P], Result]]:
    """Have a function of two arguments take the fields of its second one, a class of options, as keywords."""

    def decorate(function: Callable[[Taken, Options], Result]) -> Callable[Concatenate[Taken, P], Result]:
        @functools.wraps(function)
        def call(handler: Taken, *arguments: P.args, **keywords: P.kwargs) -> Result:
            return function(handler, options_for(function.__name__, options, *arguments, **keywords))

        own = inspect.signature(function)
        first = next(iter(own.parameters.values()))
        parameters = [first, *inspect.signature(options).parameters.values()]
        # For `help`, which shows it in the place of the keywords above.
        call.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        return cast("Callable[Concatenate[Taken, P], Result]", call)

    return decorate


def check_server_handler(handler: object, options: ServerOptions) -> None:
    """Raise TypeError for what cannot serve, ValueError for options that an application decides itself."""
    if isinstance(handler, HttpApplication):
        if options.subprotocols or options.select_subprotocol or options.process_response:
            raise ValueError("subprotocols, select_subprotocol and process_response are the application's to decide")
    elif not isinstance(handler, Routes):
        check_handler(handler)


def check_origins(origins: Any) -> None:
    """Raise TypeError for what is not an option `origins`, ValueError for a str that no browser's Origin can be."""
    for origin in [origins] if origins is None or isinstance(origins, str) else _listed("origins", origins):
        if origin is not None and not isinstance(origin, (str, re.Pattern)):
            raise TypeError(f"origins has a {type(origin).__name__}, allowed are str, compiled patterns and None")
        if isinstance(origin, str) and origin not in {"*", "null"} and not ORIGIN.fullmatch(origin):
            meant = ORIGIN.match(origin if "://" in origin else f"https://{origin}")
            raise ValueError(
                f"origins has {origin!r}, allowed are a scheme, a host and maybe a port, "
                f"such as {meant[0] if meant else 'https://example.com'}"
            )


def check_proxy_protocol(options: ListenOptions) -> None:
    """Raise TypeError or ValueError where PROXY headers are expected of nobody, or cannot be."""
    if not isinstance(options.proxy_protocol, bool):
        raise TypeError(f"proxy_protocol is {type(options.proxy_protocol).__name__}, allowed are True and False")
    if options.proxy_protocol and not options.trusted_proxies:
        raise ValueError("proxy_protocol is True without trusted_proxies, needed are those that send the headers")
    if options.proxy_protocol and os.name != "posix":
        raise ValueError("proxy_protocol is True, allowed on POSIX systems only")


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
