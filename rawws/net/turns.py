"""Turns: how much work one turn of an event loop does, and who waits for the next.

Laws:
1. Work is counted in bytes, as of messages that are handed over: a message of a few bytes that goes out to a thousand
   is a thousand messages.
2. When a turn has its work, whoever had a message of it waits. First come, first served: none waits for ever.
3. Nothing is lost and nothing overtakes: what waits is not read, and TCP tells the peer.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING

from .awaitables import release
from .loops import of_loop

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["EVENT_COST", "FLUSHED", "TURN_SIZE", "Turn", "spend", "turn_of"]

# A turn of the loop hands over so many bytes of one connection, with some for each message or control event: a read of
# 256 KiB holds 43,000 empty messages, or 250 of 1 MiB that are compressed, and all others would wait for a second. It
# has as many bytes of work beside that, of all connections together.
TURN_SIZE = 524288
EVENT_COST = 256
# So many connections write what they gathered in one turn: each takes a system call, of 5 to 10 us, and so about 1 ms.
FLUSHED = 128


class Turn:
    """The turn of one loop: how much was `spent` of it, and what goes on in the next."""

    __slots__ = ("_loop", "_scheduled", "_size", "_waiting", "spent")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # An attribute is a C integer in the compiled twin, for which each message asks.
        self._size = TURN_SIZE
        self._scheduled = False
        self._waiting: OrderedDict[Callable[[], object], None] = OrderedDict()
        self.spent = 0

    def spend(self, size: int) -> None:
        """Count work that is done in this turn."""
        self.spent += size
        self._schedule()

    def is_over(self) -> bool:
        """Tell whether this turn has its work."""
        return self.spent > self._size

    def wait(self, go_on: Callable[[], object]) -> None:
        """Have something called once in the next turn that has room for it."""
        self._waiting[go_on] = None
        self._schedule()

    async def next(self) -> None:
        """Wait for such a turn, if this one has its work."""
        if self.is_over():
            waiter: asyncio.Future[None] = self._loop.create_future()
            self.wait(lambda: release([waiter]))
            await waiter

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        """Begin a turn: those go on that wait, as long as there is room; those that wait again have the next."""
        self._scheduled = False
        self.spent = 0
        try:
            for _ in range(len(self._waiting)):
                if self.is_over():
                    break
                go_on, _ = self._waiting.popitem(last=False)
                go_on()
        finally:
            if self._waiting:
                self._schedule()


def turn_of(loop: asyncio.AbstractEventLoop) -> Turn:
    """Return the turn of a loop."""
    return of_loop(TURNS, loop, Turn)


def spend(size: int) -> None:
    """Count work of the loop that runs; where none does, nobody waits."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return
    turn_of(loop).spend(size)


TURNS: dict[asyncio.AbstractEventLoop, Turn] = {}
