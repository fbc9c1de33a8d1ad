"""RateBudget: how much may be done in a second, to whether there is some left."""

from __future__ import annotations

from typing import final

from rawws import clock

__all__ = ["RateBudget"]


@final
class RateBudget:
    """So much a second, and `burst` at once after a rest."""

    __slots__ = ("_at", "_left", "burst", "rate")

    def __init__(self, rate: float, burst: float) -> None:
        self.rate = rate
        self.burst = burst
        self._left = burst
        self._at = clock.monotonic()

    def take(self, amount: float = 1.0) -> bool:
        """Take some, if it is there; tell whether it was."""
        now = clock.monotonic()
        self._left = min(self.burst, self._left + (now - self._at) * self.rate)
        self._at = now
        if self._left < amount:
            return False
        self._left -= amount
        return True
