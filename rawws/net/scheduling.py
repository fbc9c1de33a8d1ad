"""Scheduling: the streams of one connection that have something to send, to whose turn it is (RFC 9218 section 10).

Laws:
1. What is more urgent goes first; of one urgency, what is incremental goes in turns, a frame each, and what is not goes
   one after the other: the two share.
2. No stream waits for ever: of so many turns, one is that of the least urgent.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from .streams import StreamTransport

__all__ = ["StreamScheduler"]

URGENCIES = 8
# RFC 9218 10: "it is RECOMMENDED that [...] some capacity" is left to lower urgencies: a page that is loaded for a
# minute must not end the WebSockets behind it.
FAIRNESS = 8


@final
class StreamScheduler:
    """Whose turn it is to send. A stream is in it once at the most."""

    __slots__ = ("_alternate", "_count", "_lines", "_turns")

    def __init__(self) -> None:
        # By urgency: those that go in turns, and those that go one after the other.
        self._turns: list[deque[StreamTransport]] = [deque() for _ in range(URGENCIES)]
        self._lines: list[deque[StreamTransport]] = [deque() for _ in range(URGENCIES)]
        self._alternate = False
        self._count = 0

    def add(self, stream: StreamTransport, *, again: bool = False) -> None:
        """Give a stream a turn; one that had one and is not done is the first of its line `again`."""
        if stream.is_queued:
            return
        stream.is_queued = True
        if stream.incremental:
            self._turns[stream.urgency].append(stream)
        elif again:
            self._lines[stream.urgency].appendleft(stream)
        else:
            self._lines[stream.urgency].append(stream)

    def next(self) -> StreamTransport | None:
        """Return the stream whose turn it is, None where all have sent."""
        self._count += 1
        order = range(URGENCIES) if self._count % FAIRNESS else range(URGENCIES - 1, -1, -1)
        for urgency in order:
            turns, line = self._turns[urgency], self._lines[urgency]
            if turns or line:
                self._alternate = not self._alternate
                stream = (turns if turns and (self._alternate or not line) else line).popleft()
                stream.is_queued = False
                return stream
        return None
