"""Keepalive: one timer for the deadlines and pings of a server, or of all clients (RFC 6455 section 5.5.2).

A timer for each connection costs more than the connection: 8,000 of them are a heap to keep sorted. One sweep every
second looks at each connection for a fraction of a microsecond; what is due is done up to one sweep late.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rawws import clock

from .forks import let_go_in_children
from .socket import shared

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from .settings import Settings
    from .socket import AsyncSocket

__all__ = ["Keepalive", "join_clients"]

# Seconds between sweeps; shorter where an option asks for less than ten of them, so that none is over 10 % late.
SWEEP = 1.0


class Keepalive:
    """The timer. It runs while there are connections: those of `settings`."""

    __slots__ = ("__weakref__", "_due", "_handle", "_interval", "settings")

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._interval = SWEEP
        # When the next sweep is due.
        self._due = 0.0
        self._handle: asyncio.TimerHandle | None = None
        self.tighten_interval(settings.shortest_time())
        let_go_in_children(self)

    @property
    def connections(self) -> set[AsyncSocket]:
        """The connections that it looks after."""
        return self.settings.connections

    def descriptors(self) -> Iterator[int]:
        """Return those of the connections, for the children of this process to close."""
        for connection in self.settings.connections:
            sock = None if connection.lost else connection.extra("socket")
            if sock is not None:
                yield sock.fileno()

    def tighten_interval(self, seconds: float) -> None:
        """Sweep often enough for options as short as this: clients share a timer, and not their options."""
        interval = seconds / 10
        if interval < self._interval:
            self._interval = interval
            if self._handle is not None:
                self._handle.cancel()
                self._handle = None
                self.start()

    def start(self) -> None:
        """Sweep from now on; nothing, if it does already."""
        if self._handle is None:
            self._due = clock.monotonic() + self._interval
            self._handle = self.settings.loop.call_later(self._interval, self._sweep)

    def _sweep(self) -> None:
        self._handle = None
        now = clock.monotonic()
        if self.settings.counters is not None:
            # Whatever has to wait for its turn now waits as long as this did. A loop may be early by its own clock.
            self.settings.counters.lag.observe(max(0.0, now - self._due))
        for connection in tuple(self.settings.connections):
            try:
                connection.on_sweep(now)
            except Exception:
                self.settings.logger.exception("the keepalive of a connection failed")
        if self.settings.connections:
            self.start()


def join_clients(settings: Settings) -> None:
    """Have the connections with these options swept with those of all clients in the loop."""
    loop = shared(settings.loop)
    # One sweep for all clients in a loop; a new one when there are none left, for it is as often as one needed.
    keepalive = loop.clients
    if keepalive is None or not keepalive.connections:
        keepalive = loop.clients = Keepalive(settings)
    settings.connections = keepalive.connections
    settings.keepalive = keepalive
    keepalive.tighten_interval(settings.shortest_time())
