"""Broadcast: one message to many connections, WebSockets and event streams."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol

from rawws.errors import ConnectionClosed
from rawws.protocol import phases

from .prepared import PreparedMessage
from .websocket import WebSocket

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rawws_sse.event import Event

    from .prepared import DataLike

__all__ = ["Listening", "broadcast"]


class Listening(Protocol):
    """What gets messages and is no WebSocket: an EventStream."""

    @property
    def closed(self) -> bool:
        """Whether it takes no more."""

    def send(self, message: str | Event, /) -> object:
        """Send a message."""


def broadcast(connections: Iterable[WebSocket | Listening], message: DataLike | Event) -> None:
    """Send a message to many connections at once, without waiting for any; those that are not open are skipped.

    Among the connections may be EventStreams: they take a str as the data of an event, and Events. One that reads too
    slowly delays no other: it is closed, a WebSocket with 1013, when over `hard_limit` bytes wait for it. Raises
    TypeError for what is no message, RuntimeError in another thread than the event loop's.
    """
    prepared: PreparedMessage | None = None
    for receiver in tuple(connections):
        if not isinstance(receiver, WebSocket):
            if not receiver.closed:
                receiver.send(message)  # type: ignore[arg-type]  # it judges itself
            continue
        ws = receiver
        if ws.handler is None and ws.connection.phase == phases.OPEN:
            if prepared is None:
                ws.check_open()
                prepared = PreparedMessage(message)  # type: ignore[arg-type]  # as it does
            # The hard limit may close it in the call.
            with contextlib.suppress(ConnectionClosed):
                ws.send_prepared(prepared)
