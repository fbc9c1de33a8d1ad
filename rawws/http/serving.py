"""Serving: what a server shows to the endpoints that answer for it: its figures, and how it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from rawws.net.histogram import TimeFigures

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from rawws.net.settings import Settings
    from rawws.net.websocket import WebSocket

__all__ = ["RunningServer", "ServerFigures"]


class ServerFigures(NamedTuple):
    """What a server holds now, and what it did since it began; bytes are those inside TLS, and of HTTP as well.

    `sockets` and `accepted` count TCP connections, `connections` and `opened` WebSockets. `closes` are by the code of
    the Close frame that came first, whichever side sent it, 1006 where there was none. `refusals` are requests that
    were answered with an error by the server itself, `responses` all HTTP responses, both by status. `slow` are peers
    that were closed because they read too slowly, `drained` those that a drain told to go, `retired` those over
    `max_lifetime`, `aborted` those that this side ended without a closing handshake. `streams` and `polls` are the
    event streams and long polls that are open. `lag` is by how much the event loop was late when it was to look after
    the connections, once a second while there are any; `round_trips` are how long the Pongs of WebSockets took.
    `proxies_refused` are connections that were closed for want of a PROXY header of a trusted proxy.
    `http2_connections` are those of `sockets` that speak HTTP/2, and `http2_streams` the streams that are open on them:
    a WebSocket, an event stream or a poll on one counts as any other.
    """

    sockets: int
    accepted: int
    connections: int
    opened: int
    closes: Mapping[int, int]
    refusals: Mapping[int, int]
    responses: Mapping[int, int]
    bytes_received: int
    bytes_sent: int
    slow: int
    drained: int
    retired: int
    aborted: int
    draining: bool
    streams: int = 0
    polls: int = 0
    lag: TimeFigures = TimeFigures()
    round_trips: TimeFigures = TimeFigures()
    proxies_refused: int = 0
    http2_connections: int = 0
    http2_streams: int = 0


class RunningServer(Protocol):
    """The server that got a request: `rawws.Server`."""

    settings: Settings

    @property
    def draining(self) -> bool:
        """Whether it was told to end."""

    @property
    def closing(self) -> bool:
        """Whether it takes no new connections."""

    @property
    def sockets(self) -> tuple[Any, ...]:
        """The listening sockets."""

    @property
    def connections(self) -> set[WebSocket]:
        """The WebSockets that are open."""

    @property
    def handlers(self) -> int:
        """How many handlers, and answers to requests, are running; callbacks have none."""

    def is_serving(self) -> bool:
        """Tell whether it takes new connections."""

    def stats(self) -> ServerFigures:
        """Return what it holds now, and what it did so far."""

    def close(self, code: int = 1001, reason: str = "") -> None:
        """Take no new connections and close those there are."""

    def abort(self) -> None:
        """End all connections now."""

    async def drain(self) -> None:
        """End as the option `drain` says."""

    async def wait_closed(self) -> None:
        """Wait until all connections and their handlers are done."""

    def reload_tls(self, context: ssl.SSLContext | None = None) -> None:
        """Use another certificate for the connections that begin from now on."""
