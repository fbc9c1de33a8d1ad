"""Settings: what the connections of one server, or of one client, have in common."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Protocol

from .rate import BURST
from .socket import shared

if TYPE_CHECKING:
    import asyncio
    import logging
    from collections.abc import Callable

    from .histogram import Histogram
    from .interfaces import Sweeper
    from .socket import AsyncSocket

__all__ = ["Callbacks", "ConnectionCounter", "ConnectionLimiter", "Settings"]


class Callbacks(Protocol):
    """What is called with a WebSocket: a `Handler`, whose methods say with what else."""

    @property
    def on_message(self) -> Callable[..., object]:
        """Take a message."""

    @property
    def on_close(self) -> Callable[..., object]:
        """Handle the end of the WebSocket."""

    @property
    def on_drain(self) -> Callable[..., object]:
        """Handle room in the write buffer: it fell under its low-water mark."""


class ConnectionCounter(Protocol):
    """What a server counts of its connections."""

    # Peers that were closed because they read too slowly, and connections over `max_lifetime`.
    slow: int
    retired: int
    # How long Pongs took, and how late the loop was with the sweeps of the keepalive.
    round_trips: Histogram
    lag: Histogram

    def close(self, socket: AsyncSocket, /) -> None:
        """Count the end of a connection."""


class ConnectionLimiter(Protocol):
    """What counts the connections of each address."""

    def leave(self, socket: AsyncSocket, /) -> None:
        """Count a connection no more."""


class Settings:
    """The options that the connections of one server, or of one client, share; times in seconds, 0 for none."""

    __slots__ = (
        "admission",
        "byte_rate",
        "close_timeout",
        "connections",
        "counters",
        "hard_limit",
        "keepalive",
        "logger",
        "loop",
        "max_lifetime",
        "message_rate",
        "on_close",
        "on_drain",
        "on_message",
        "open_timeout",
        "ping_interval",
        "ping_timeout",
        "shared",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, logger: logging.Logger) -> None:
        self.loop = loop
        self.shared = shared(loop)
        self.logger = logger
        self.connections: set[AsyncSocket] = set()
        self.keepalive: Sweeper[AsyncSocket] | None = None
        # What a server has.
        self.counters: ConnectionCounter | None = None
        self.admission: ConnectionLimiter | None = None
        # The callbacks of a Handler.
        self.on_message: Callable[..., object] | None = None
        self.on_close: Callable[..., object] | None = None
        self.on_drain: Callable[..., object] | None = None
        self.open_timeout = 10.0
        self.close_timeout = 10.0
        self.ping_interval = 20.0
        self.ping_timeout = 20.0
        self.hard_limit = 1 << 20
        self.max_lifetime = 0.0
        self.message_rate = 0.0
        self.byte_rate = 0.0

    def take_callbacks(self, handler: Callbacks) -> None:
        """Have the connections call these."""
        self.on_message = handler.on_message
        self.on_close = handler.on_close
        self.on_drain = handler.on_drain

    def with_callbacks(self, handler: Callbacks) -> Settings:
        """Return the same options, for the same connections, with the callbacks of a Handler."""
        settings = Settings(self.loop, self.logger)
        settings.connections = self.connections
        settings.counters = self.counters
        settings.admission = self.admission
        # Without what is read before a connection has these: `open_timeout`, `keepalive`, `message_rate`, `byte_rate`;
        # and `max_lifetime`, which is read once more of busy handlers alone, and callbacks are never busy.
        settings.close_timeout = self.close_timeout
        settings.ping_interval = self.ping_interval
        settings.ping_timeout = self.ping_timeout
        settings.hard_limit = self.hard_limit
        settings.take_callbacks(handler)
        return settings

    def measure(self, round_trip: float) -> None:
        """Count how long a Pong took, where somebody counts."""
        if self.counters is not None:
            self.counters.round_trips.observe(round_trip)

    def shortest_time(self) -> float:
        """Return the shortest of the times, and `inf` where there is none."""
        times = (
            self.open_timeout,
            self.close_timeout,
            self.ping_interval,
            self.ping_timeout,
            self.max_lifetime,
            BURST if self.message_rate or self.byte_rate else 0.0,
        )
        return min((seconds for seconds in times if seconds), default=inf)
