"""Application: what answers all the requests of a server itself, as an integration does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rawws.errors import HttpError
    from rawws.net.websocket import WebSocket
    from rawws.protocol.http11 import HttpResponse

    from .exchange import BodyObserver, Exchange, ExchangeObserver, HttpContext
    from .requests import HttpRequest

__all__ = ["HttpApplication", "PendingHandshake"]


class PendingHandshake(Protocol):
    """An opening handshake that an application decides on: its request is a good one."""

    @property
    def request(self) -> HttpRequest:
        """The request, its body none."""

    @property
    def ws(self) -> WebSocket:
        """The connection, which is no WebSocket yet."""

    @property
    def context(self) -> HttpContext:
        """What it needs of the server."""

    def accept(self, subprotocol: str | None, fields: Iterable[tuple[str, str]]) -> None:
        """Answer 101, with these header fields as well; from then on there is a WebSocket.

        Raises LocalProtocolError for fields that are the handshake's own.
        """

    def respond(self, response: HttpResponse) -> None:
        """Answer with a response that is no WebSocket, and end the connection."""

    def refuse(self, error: HttpError) -> None:
        """Answer with an error, which is counted."""


class HttpApplication:
    """What answers all the requests of a server itself: an integration, in the place of a handler or of Routes.

    `start_up` is awaited before the server listens, and `shut_down`, maybe more than once, when all is closed. What
    `begin` and `open` return is told of the body, of the deadline, and of the ends.
    """

    async def start_up(self, context: HttpContext) -> None:
        """Prepare. What this raises, `serve` raises."""

    async def shut_down(self) -> None:
        """End."""

    def begin(self, exchange: Exchange, request: HttpRequest) -> BodyObserver:
        """Begin to answer a request."""
        raise NotImplementedError

    def open(self, handshake: PendingHandshake) -> ExchangeObserver:
        """Begin to decide on an opening handshake."""
        raise NotImplementedError
