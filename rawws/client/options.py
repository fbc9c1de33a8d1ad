"""Options: the keywords of `connect` and `events` to one checked object, each with its default and the reason for it.

Times are in seconds, sizes in bytes, None is no limit.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from rawws._version import __version__
from rawws.net.engines import check_engine
from rawws.net.handlers import check_handler
from rawws.net.options import check_limits
from rawws.protocol.deflate import Compression
from rawws.protocol.http11 import Headers

from .retrying import full_jitter, process_exception

if TYPE_CHECKING:
    import logging
    import socket
    import ssl as ssl_module
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence

    from rawws.net.engines import SocketEngine
    from rawws.net.handlers import Handler

__all__ = [
    "ClientOptions",
    "ConnectKeywords",
    "ConnectOptions",
    "EventsKeywords",
    "EventsOptions",
    "HubKeywords",
    "HubOptions",
    "HubState",
    "LocatedKeywords",
    "UnixConnectKeywords",
]

USER_AGENT = f"rawws/{__version__}"
# What a hub can be reached by.
TRANSPORTS = ("websocket", "stream", "poll")


class HubState(NamedTuple):
    """How a `HubClient` is connected: `state` is "connecting", "open", "refused", "failed" or "closed".

    `transport` is "websocket", "stream" or "poll" while it is open, else None; `reason` says why it is not, and
    `status` is the HTTP status where the server let nobody in.
    """

    state: str
    transport: str | None = None
    reason: str = ""
    status: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClientOptions:
    """The options that `connect` and `events` share."""

    # Sent to the origin of the URI only, not where a redirect leads: they may be secrets.
    additional_headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = field(default=None, repr=False)
    # None sends none. Servers tell by it which clients misbehave.
    user_agent_header: str | None = USER_AGENT
    # A URL, None for none, True for what the environment says, as curl and websockets do.
    # It may have a password.
    proxy: str | bool | None = field(default=True, repr=False)
    # The waits between two attempts; where they end, the last error is raised.
    reconnect_delays: Callable[[], Iterator[float]] = full_jitter
    # Told before each wait: the error and the seconds.
    on_retry: Callable[[Exception, float], object] | None = None
    # From the look-up of the name to the end of the handshake, redirects included; websockets has 10 s, too.
    open_timeout: float | None = 10
    # Of a received message, inflated, or of an event: the default of websockets.
    max_size: int | None = 1 << 20
    # None makes one for wss:// and https:// that verifies.
    ssl: ssl_module.SSLContext | bool | None = None
    # The name that the certificate must have, if it is not that of the URI.
    server_hostname: str | None = None
    # Share a connection of HTTP/2 with all that go to the same server, where it offers that, by TLS. New: off.
    http2: bool = False
    # The address and port to connect from.
    local_addr: tuple[str, int] | None = None
    # Of a unix socket, in the place of the URI's host and port.
    path: str | None = None
    # None is `rawws.client` or `rawws.events`.
    logger: logging.Logger | None = None
    # The added headers, read once: an iterator can be read no second time.
    headers: tuple[tuple[str, str], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_limits(open_timeout=self.open_timeout, max_size=self.max_size)
        if not isinstance(self.http2, bool):
            raise TypeError(f"http2 is {self.http2!r}, allowed are True and False")
        object.__setattr__(self, "headers", tuple(Headers(self.additional_headers or ()).raw_items()))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ConnectOptions(ClientOptions):
    """The options of `connect`."""

    # Callbacks, in the place of a task that calls `recv`.
    handler: Handler | None = None
    # None sends none, as programs that are no browsers do (RFC 6455 section 10.2).
    origin: str | None = None
    # What to offer, the best first.
    subprotocols: Sequence[str] | None = None
    # None offers none; a Compression tunes it.
    compression: str | Compression | None = "deflate"
    # Decides about a connection that could not be made: None tries again, an exception is raised.
    process_exception: Callable[[Exception], Exception | None] = process_exception
    # Of the closing handshake; websockets has 10 s, too.
    close_timeout: float | None = 10
    # The next two notice a peer that is gone after 40 s at most, and keep NATs and proxies, whose shortest common limit
    # is 60 s, from ending an idle connection.
    ping_interval: float | None = 20
    ping_timeout: float | None = 20
    # Of what waits for a slow peer where `send` is not awaited: room for one message of `max_size`.
    hard_limit: int | None = 1 << 20
    # A connected socket.
    sock: socket.socket | None = None
    # Who reads and writes a plain socket: "asyncio", the transports of the loop; "epoll", an engine of our own, on
    # Linux; None is the one that costs less in the loop that runs. In TLS, by a proxy and on `sock` it is the loop.
    engine: SocketEngine | None = None
    # What `compression` stands for.
    deflate: Compression | None = field(init=False)

    def __post_init__(self) -> None:
        ClientOptions.__post_init__(self)
        if self.handler is not None:
            check_handler(self.handler, callbacks=True)
        check_engine(self.engine)
        if isinstance(self.subprotocols, str):
            raise TypeError(f"subprotocols is {self.subprotocols!r}, allowed is a list of them")
        if sum(option is not None for option in (self.path, self.sock, self.local_addr)) > 1:
            raise ValueError("of path, sock and local_addr more than one is given, allowed is one")
        if self.http2 and self.sock is not None:
            raise ValueError("http2 is True and sock is given, whose connection is not shared: allowed is one of them")
        check_limits(
            close_timeout=self.close_timeout,
            ping_interval=self.ping_interval,
            ping_timeout=self.ping_timeout,
            hard_limit=self.hard_limit,
        )
        object.__setattr__(self, "subprotocols", tuple(self.subprotocols or ()))
        object.__setattr__(self, "deflate", Compression.of(self.compression))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EventsOptions(ClientOptions):
    """The options of `events`."""

    # The id of the event to go on behind.
    last_event_id: str = ""
    # False takes one connection, whose end ends the iteration.
    reconnect: bool = True
    # A connection that is silent for so long counts as lost. None leaves that to the operating system, which notices
    # within a minute where the peer is gone: how often a server sends comments is not known here.
    read_timeout: float | None = None

    def __post_init__(self) -> None:
        ClientOptions.__post_init__(self)
        check_limits(read_timeout=self.read_timeout)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HubOptions(ClientOptions):
    """The options of `HubClient`."""

    # A message of 1 MiB, the most that a hub takes by default, can be 6 MiB of JSON.
    max_size: int | None = 8 << 20
    # Those that are used, the best first.
    transports: Sequence[str] = TRANSPORTS
    # Goes into the URL as ?token=: a string, or a function that is asked for one at each connection.
    token: str | Callable[[], str | Awaitable[str]] = field(default="", repr=False)
    # Told of each change.
    on_state: Callable[[HubState], object] | None = None
    # Requests that wait for an answer, and their bytes: as in rawws.js.
    queue: int = 1000
    queue_size: int = 4 << 20
    # Publications that wait for the reader of a subscription, and the bytes of their messages: as in rawws.js.
    buffer: int = 1000
    buffer_size: int = 4 << 20
    # Those of `connect`.
    compression: str | Compression | None = "deflate"
    close_timeout: float | None = 10
    ping_interval: float | None = 20
    ping_timeout: float | None = 20

    def __post_init__(self) -> None:
        ClientOptions.__post_init__(self)
        if isinstance(self.transports, str):
            raise TypeError(f"transports is {self.transports!r}, allowed is a list of them")
        wrong = [name for name in self.transports if name not in TRANSPORTS]
        if wrong or not self.transports or len({*self.transports}) != len(self.transports):
            raise ValueError(f"transports is {self.transports!r}, allowed are {', '.join(TRANSPORTS)}, each once")
        if not isinstance(self.token, str) and not callable(self.token):
            raise TypeError(f"token is {type(self.token).__name__}, allowed are a str and a function that returns one")
        for name in ("queue", "queue_size", "buffer", "buffer_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}, allowed are whole numbers above 0")
        check_limits(close_timeout=self.close_timeout, ping_interval=self.ping_interval, ping_timeout=self.ping_timeout)
        object.__setattr__(self, "transports", tuple(self.transports))
        Compression.of(self.compression)


# The same as keywords, for type checkers: a function that takes `**options` says so by `Unpack` (PEP 692). A test sees
# that the types agree.


class ClientKeywords(TypedDict, total=False):
    """The keywords of ClientOptions but `path`."""

    additional_headers: Mapping[str, str] | Iterable[tuple[str, str]] | None
    user_agent_header: str | None
    proxy: str | bool | None
    reconnect_delays: Callable[[], Iterator[float]]
    on_retry: Callable[[Exception, float], object] | None
    open_timeout: float | None
    max_size: int | None
    ssl: ssl_module.SSLContext | bool | None
    server_hostname: str | None
    http2: bool
    local_addr: tuple[str, int] | None
    logger: logging.Logger | None


class LocatedKeywords(ClientKeywords, total=False):
    """The keywords of ClientOptions."""

    path: str | None


class UnixConnectKeywords(ClientKeywords, total=False):
    """The keywords of ConnectOptions but `path`."""

    handler: Handler | None
    origin: str | None
    subprotocols: Sequence[str] | None
    compression: str | Compression | None
    process_exception: Callable[[Exception], Exception | None]
    close_timeout: float | None
    ping_interval: float | None
    ping_timeout: float | None
    hard_limit: int | None
    sock: socket.socket | None
    engine: SocketEngine | None


class ConnectKeywords(UnixConnectKeywords, total=False):
    """The keywords of ConnectOptions."""

    path: str | None


class EventsKeywords(LocatedKeywords, total=False):
    """The keywords of EventsOptions."""

    last_event_id: str
    reconnect: bool
    read_timeout: float | None


class HubKeywords(LocatedKeywords, total=False):
    """The keywords of HubOptions."""

    transports: Sequence[str]
    token: str | Callable[[], str | Awaitable[str]]
    on_state: Callable[[HubState], object] | None
    queue: int
    queue_size: int
    buffer: int
    buffer_size: int
    compression: str | Compression | None
    close_timeout: float | None
    ping_interval: float | None
    ping_timeout: float | None
