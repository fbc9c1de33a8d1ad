"""Histograms: times in seconds to how many of them were at most so long, as Prometheus counts them."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final, NamedTuple, final

__all__ = ["TIME_BOUNDS", "Histogram", "TimeFigures"]

# In seconds. From what a network inside a house takes to what a peer has for a Pong; the bounds of prometheus-client
# are these from 0.005 on.
TIME_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class TimeFigures(NamedTuple):
    """Times that were measured, in seconds.

    `counts` has how many were at most as long as each of `TIME_BOUNDS` and longer than the bound before, and at its end
    how many were longer than all. `total` is the sum of them, `last` the last one.
    """

    counts: tuple[int, ...] = (0,) * (len(TIME_BOUNDS) + 1)
    total: float = 0.0
    last: float = 0.0


@final
class Histogram:
    """Counts times: 14 numbers, however many there are."""

    __slots__ = ("_counts", "_last", "_total")

    def __init__(self) -> None:
        self._counts = list(TimeFigures().counts)
        self._total = self._last = 0.0

    def observe(self, seconds: float) -> None:
        """Count a time."""
        self._counts[bisect_left(TIME_BOUNDS, seconds)] += 1
        self._total += seconds
        self._last = seconds

    def figures(self) -> TimeFigures:
        """Return what was counted."""
        return TimeFigures(tuple(self._counts), self._total, self._last)
