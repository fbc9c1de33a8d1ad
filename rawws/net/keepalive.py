"""Keepalive: one timer for the deadlines and pings of a server, or of all clients (RFC 6455 section 5.5.2).

A timer for each connection costs more than the connection: 8,000 of them are a heap to keep sorted. One sweep every
second looks at each connection for a fraction of a microsecond; what is due is done up to one sweep late. The sweep of
many connections is cut into slices with even times between them: all at once, a million would stop the loop for 0.2 s.
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
# A sweep has this many slices at most, and a slice at least so many connections, which take 0.2 ms: fewer connections
# are looked at in one go, and wake the process no more often.
SLICES = 16
SLICE = 1024


class Keepalive:
    """The timer. It runs while there are connections: those of `settings`."""

    __slots__ = ("__weakref__", "_due", "_handle", "_interval", "_left", "_slice", "_slices", "settings")

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._interval = SWEEP
        # When the next slice is due.
        self._due = 0.0
        # The connections that this sweep has not looked at, how many a slice has, and how many slices there were.
        self._left: list[AsyncSocket] = []
        self._slice = SLICE
        self._slices = 0
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
            self._start(self._interval)

    def _start(self, delay: float) -> None:
        self._due = clock.monotonic() + delay
        self._handle = self.settings.loop.call_later(delay, self._sweep)

    def _sweep(self) -> None:
        self._handle = None
        now = clock.monotonic()
        if self.settings.counters is not None:
            # Whatever has to wait for its turn now waits as long as this did. A loop may be early by its own clock.
            self.settings.counters.lag.observe(max(0.0, now - self._due))
        left = self._left
        if not left:
            left.extend(self.settings.connections)
            self._slice = max(SLICE, -(-len(left) // SLICES))
            self._slices = 0
        self._slices += 1
        for _ in range(min(self._slice, len(left))):
            connection = left.pop()
            if connection.lost:
                continue
            try:
                connection.on_sweep(now)
            except Exception:
                self.settings.logger.exception("the keepalive of a connection failed")
        if not self.settings.connections:
            left.clear()
        elif self._handle is None:
            share = self._interval / SLICES
            self._start(share if left else self._interval - (self._slices - 1) * share)


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
