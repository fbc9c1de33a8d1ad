"""Interfaces: what a socket asks of those who use it."""

from __future__ import annotations

from typing import Protocol, TypeVar

__all__ = ["Follower", "SocketHandler", "Sweeper"]

Spoken_contra = TypeVar("Spoken_contra", contravariant=True)
Swept = TypeVar("Swept")


class SocketHandler(Protocol[Spoken_contra]):
    """What speaks on a socket before there is a WebSocket: HTTP, on either side of the connection."""

    @property
    def lasts(self) -> bool:
        """Whether it sends a response that lasts as long as it likes, and that is to be told to end."""

    @property
    def kind(self) -> str:
        """What it sends now: "stream", "poll" or, for anything else, "http"."""

    def begin(self, socket: Spoken_contra, /) -> None:
        """Begin with a new connection."""

    def receive(self, data: bytes) -> None:
        """Take what was read."""

    def receive_eof(self) -> bool:
        """Handle the end of what the peer sends; tell whether something is still to be sent to it.

        Then the connection stays: reading was paused, and this is called again once it is resumed.
        """

    def lose(self) -> None:
        """Handle the end of the connection."""

    def expire(self) -> None:
        """Do what is due at the deadline."""

    def shut_down(self) -> None:
        """End with the server."""


class Follower(Protocol):
    """What is told about the write buffer of a connection, and about its end: a hub, an application."""

    def drained(self) -> None:
        """Handle room in the write buffer: it fell under its low-water mark."""

    def lost(self) -> None:
        """Handle the end of the connection."""


class Sweeper(Protocol[Swept]):
    """The timer that calls `on_sweep` of connections: `Keepalive`."""

    @property
    def connections(self) -> set[Swept]:
        """The connections that it looks after."""

    def start(self) -> None:
        """Sweep from now on, while there are connections."""

    def tighten_interval(self, seconds: float) -> None:
        """Sweep often enough for times as short as this."""
