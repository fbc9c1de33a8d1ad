"""Rate: how fast a connection may send, or somebody may ask.

Laws:
1. No timer for a connection: a rate is one number, the time at which all that came would have been due had it come
   evenly (the generic cell rate algorithm of ATM, which is a token bucket without a bucket).
2. Who sends too fast is not read from for a while. TCP tells the peer, and nothing is lost. Where that cannot be,
   `take` refuses what is too much, and what is refused does not count.
"""

from __future__ import annotations

from typing import final

from rawws import clock

__all__ = ["BURST", "RateLimiter"]

# What may come at once although the rate is even, in seconds of it: a page that opens asks for several things.
BURST = 1.0


@final
class RateLimiter:
    """How fast one connection sends, in messages and in bytes a second; 0 for no limit."""

    __slots__ = ("_message", "_messages_due", "_octet", "_octets_due", "resume_at")

    def __init__(self, message_rate: float, byte_rate: float) -> None:
        self._message = 1 / message_rate if message_rate else 0.0
        self._octet = 1 / byte_rate if byte_rate else 0.0
        self._messages_due = self._octets_due = 0.0
        # Until when nothing is read; 0 where it is.
        self.resume_at = 0.0

    def account(self, messages: int, octets: int) -> bool:
        """Count received messages and bytes. Return True if they exceed the rate; then read again at `resume_at`."""
        now = clock.monotonic()
        self._messages_due = max(self._messages_due, now) + messages * self._message
        self._octets_due = max(self._octets_due, now) + octets * self._octet
        resume_at = max(self._messages_due, self._octets_due) - BURST
        if resume_at <= now:
            return False
        self.resume_at = resume_at
        return True

    def take(self, burst: float = BURST) -> bool:
        """Count a message if the rate allows it now, and `burst` seconds of it at once; tell whether it does."""
        now = clock.monotonic()
        due = max(self._messages_due, now) + self._message
        # One is always allowed after a rest. What is added many times is off by less than this.
        if due - now > max(burst, self._message) + 1e-6:
            return False
        self._messages_due = due
        return True
