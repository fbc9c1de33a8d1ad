"""Listening: the publications of topics to an `async for`, for a bot, a response of another framework, a test.

Laws:
1. Nothing is lost without a word: where something is, the iteration raises behind all that came before.
2. What waits for the iteration is bounded as for a client: one publication here, the rest under the policy.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, final

from .names import TopicError

if TYPE_CHECKING:
    from rawws.net.interfaces import Follower

    from .history import Publication

__all__ = ["TopicListener"]

# Publications that wait, in bytes: as for a client of a server.
HARD_LIMIT = 1 << 20


@final
class TopicListener:
    """The receiver of one iteration."""

    __slots__ = ("_closed", "_error", "_follower", "_next", "_waiter", "hard_limit")

    def __init__(self) -> None:
        self.hard_limit = HARD_LIMIT
        self._next: Publication | None = None
        self._error: TopicError | None = None
        self._closed = False
        self._follower: Follower | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def congested(self) -> bool:
        """Whether a publication waits to be taken: others then wait in the hub, under its policy."""
        return self._next is not None

    def follow(self, follower: Follower) -> None:
        """Tell this one when a publication was taken."""
        self._follower = follower

    def unfollow(self, follower: Follower) -> None:  # noqa: ARG002 - there is one
        """Tell it no more."""
        self._follower = None

    def send(self, publication: Publication) -> None:
        """Take a publication."""
        self._next = publication
        self._wake()

    def move(self, topic: str, cursor: str, recovered: bool) -> None:  # noqa: ARG002 - what every receiver has
        """Have the iteration raise: something of a topic with a backplane is missing."""
        if not recovered:
            self.lose(f"publications of {topic!r} were lost on their way")

    def fail(self, code: int, reason: str) -> None:  # noqa: ARG002 - as above
        """End: too much waited."""
        self.lose(reason)

    def lose(self, reason: str) -> None:
        """Have the iteration raise, behind what came before."""
        if self._error is None:
            self._error = TopicError("lost", reason)
        self._wake()

    def close(self) -> None:
        """End with the hub."""
        self._closed = True
        self._wake()

    async def take(self) -> Publication | None:
        """Return the next publication, None at the end of the hub. Raises TopicError where something was lost."""
        while self._next is None:
            if self._error is not None:
                raise self._error
            if self._closed:
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        publication, self._next = self._next, None
        if self._follower is not None:
            self._follower.drained()
        return publication

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
