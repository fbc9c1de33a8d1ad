"""Upgrade: an agreement of the opening handshake to a WebSocket (RFC 6455 section 4.2.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, final

from rawws.errors import LocalProtocolError
from rawws.http.exchange import HttpContext
from rawws.protocol.connection import Connection, Role
from rawws.protocol.deflate import PerMessageDeflate
from rawws.protocol.http11 import serialize_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rawws.errors import HttpError
    from rawws.http.requests import HttpRequest
    from rawws.net.websocket import WebSocket
    from rawws.protocol.deflate import Compression, Deflater
    from rawws.protocol.handshake import Acceptance
    from rawws.protocol.http11 import HttpResponse, Request

__all__ = [
    "UpgradeContext",
    "UpgradingConnection",
    "WebSocketTerms",
    "WebSocketUpgrade",
    "checked_fields",
    "open_websocket",
    "read_on",
    "serialize_accept",
]

# The headers of the 101 response that the handshake itself writes.
OWN = frozenset({"sec-websocket-accept", "sec-websocket-extensions", "sec-websocket-protocol"})


@final
class WebSocketTerms:
    """What the WebSockets of one server have in common."""

    __slots__ = ("compression", "deflaters", "max_size")

    def __init__(self, max_size: int | None, compression: Compression | None) -> None:
        self.max_size = max_size
        self.compression = compression
        # The compressors that connections share, by their parameters.
        self.deflaters: dict[tuple[int, int, int], Deflater] = {}


def open_websocket(ws: WebSocket, accepted: Acceptance, head: bytes, terms: WebSocketTerms) -> None:
    """Answer 101 with this head, if one is to be written: from here on there is a WebSocket. `read_on` is to follow."""
    deflate = None
    if accepted.parameters is not None and terms.compression is not None:
        deflate = PerMessageDeflate(accepted.parameters, True, terms.compression, terms.deflaters)
    ws.subprotocol = accepted.subprotocol
    if head:
        ws.write([head])
    ws.open(Connection(Role.SERVER, terms.max_size, deflate, ws.settings.shared.writers))


def read_on(ws: WebSocket, rest: bytes = b"") -> None:
    """Go on with what comes behind the handshake, of which this came already."""
    if rest:
        # Frames came in the same segment. The handler's first step is due before them: so it can answer what stands
        # before a Close. Nothing may be read meanwhile: libuv reads again at once where a read filled the buffer.
        ws.keep(rest)
        ws.settings.loop.call_soon(ws.read_kept)
    else:
        ws.resume_reading()


def serialize_accept(accepted: Acceptance, fields: Iterable[tuple[str, str]], own: bytes = b"") -> bytes:
    """Return the head of the 101, with header lines of the server's `own` and of these `fields`.

    Raises LocalProtocolError for those that an application may not say.
    """
    return accepted.serialize(own + serialize_fields(checked_fields(fields)))


def checked_fields(fields: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return what an application says beside the handshake. Raises LocalProtocolError for what is that one's own."""
    fields = list(fields)
    for name, _ in fields:
        if name.lower() in OWN:
            raise LocalProtocolError(f"the header {name} cannot be added, it is the handshake's own")
    return fields


class UpgradeContext(HttpContext, Protocol):
    """What an opening handshake needs of the server."""

    extra_lines: bytes

    def accept(
        self, ws: WebSocket, request: Request, key: str, select: Callable[[WebSocket, list[str]], str | None]
    ) -> Acceptance:
        """Negotiate with a client whose request is a good one; `select` chooses the subprotocol."""


class UpgradingConnection(Protocol):
    """The connection of a request that wants to be a WebSocket."""

    @property
    def context(self) -> UpgradeContext:
        """What it needs of the server."""

    ws: WebSocket

    def agree(self, accepted: Acceptance, fields: Iterable[tuple[str, str]]) -> None:
        """Say what was agreed on, with these header fields: from here on there is a WebSocket.

        Raises LocalProtocolError for fields that are the handshake's own.
        """

    def respond_last(self, response: HttpResponse) -> None:
        """Answer with this, and end the connection."""

    def refuse(self, error: HttpError) -> None:
        """Answer with an error, and end the connection."""


@final
class WebSocketUpgrade:
    """An opening handshake that an application decides on."""

    __slots__ = ("_connection", "_key", "context", "request", "ws")

    def __init__(self, connection: UpgradingConnection, request: HttpRequest, key: str) -> None:
        self._connection = connection
        self._key = key
        self.context = connection.context
        self.request = request
        self.ws = connection.ws

    def accept(self, subprotocol: str | None, fields: Iterable[tuple[str, str]]) -> None:
        """Answer 101, with these header fields as well; from then on there is a WebSocket."""
        accepted = self.context.accept(self.ws, self.request.head, self._key, lambda _ws, _offered: subprotocol)
        self._connection.agree(accepted, fields)

    def respond(self, response: HttpResponse) -> None:
        """Answer with a response that is no WebSocket, and end the connection."""
        self._connection.respond_last(response)

    def refuse(self, error: HttpError) -> None:
        """Answer with an error, which is counted."""
        self._connection.refuse(error)
