"""TLS handshake: a connection of our own engine, from the moment that it is accepted to HTTP.

It counts from the start, and has the deadline of its first request: a client that never ends its handshake is one that
never sends a request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from rawws.net.websocket import WebSocket

    from .http1 import Http1Connection

__all__ = ["TlsHandshake", "finish_handshake"]


@final
class TlsHandshake:
    """What a connection has in the place of HTTP until its TLS handshake is done."""

    __slots__ = ("_connection", "_ws")

    lasts = False
    kind = "http"

    def __init__(self, connection: Http1Connection) -> None:
        # What speaks on it then.
        self._connection = connection
        self._ws: WebSocket = None  # type: ignore[assignment]  # from `begin` on

    def begin(self, ws: WebSocket) -> None:
        """Begin with a new connection."""
        self._ws = ws
        context = self._connection.context
        ws.set_deadline(context.settings.open_timeout)
        context.settings.connections.add(ws)
        context.keepalive.start()
        if not context.arrive(ws):
            ws.abort()

    def finish(self) -> None:
        """Leave the connection to HTTP: what it speaks was agreed on."""
        self._ws.handler = self._connection
        self._connection.begin(self._ws)

    def receive(self, data: bytes) -> None:
        """Do nothing: there is nothing to read yet."""

    def receive_eof(self) -> bool:
        """Do nothing: the connection is about to be lost."""
        return False

    def lose(self) -> None:
        """Count it no more."""
        self._connection.context.arriving.pop(self._ws, None)

    def expire(self) -> None:
        """End one whose handshake takes too long."""
        self._ws.abort()

    def shut_down(self) -> None:
        """End with the server."""
        self._ws.abort()


def finish_handshake(ws: Any) -> None:
    """Leave a connection whose handler is a TlsHandshake to HTTP."""
    ws.handler.finish()
