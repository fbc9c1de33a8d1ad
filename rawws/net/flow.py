"""Flow: what waits to be written where each piece is awaited, as in ASGI: its marks, and those who are told of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from .awaitables import release
from .awaited import AwaitedBytes
from .socket import HIGH_WATER, LOW_WATER, shared

if TYPE_CHECKING:
    from .awaited import Claim
    from .interfaces import Follower

__all__ = ["Flow"]


class Flow:
    """The bytes on their way to one peer; there is no socket here that would say so."""

    __slots__ = ("_awaited", "_taken", "_waiters", "buffered", "congested", "followers", "lost", "shared")

    def __init__(self) -> None:
        self.shared = shared(asyncio.get_running_loop())
        # How many bytes wait; whether these were over the high-water mark and are not under the low one.
        self.buffered = 0
        self.congested = False
        # Whether the peer is gone.
        self.lost = False
        self.followers: list[Follower] | None = None
        self._taken = 0
        self._waiters: list[asyncio.Future[None]] | None = None
        self._awaited: AwaitedBytes | None = None

    def add(self, size: int) -> None:
        """Count what waits from now on."""
        self.buffered += size
        if self.buffered > HIGH_WATER:
            self.congested = True

    def take(self, size: int) -> None:
        """Count what waits no more, and tell those who wait for that."""
        self.buffered -= size
        self._taken += size
        if self.congested and self.buffered <= LOW_WATER and not self.lost:
            self.congested = False
            release(self._waiters)
            self._waiters = None
            for follower in self.followers or ():
                follower.drained()

    def end(self) -> None:
        """Let those go on who wait, and tell the followers that the peer is gone."""
        self.lost = True
        release(self._waiters)
        self._waiters = None
        followers, self.followers = self.followers, None
        for follower in followers or ():
            follower.lost()

    @property
    def unawaited(self) -> int:
        """How many of the bytes that wait nobody waits for."""
        return self.buffered if self._awaited is None else self.buffered - self._awaited.waiting(self._taken)

    def bytes_written(self) -> int:
        """Return how many bytes were written, whatever became of them."""
        return self._taken + self.buffered

    def claim(self, start: int) -> Claim:
        """Count what was written from `start` on as awaited, for as long as somebody keeps what this returns."""
        if self._awaited is None:
            self._awaited = AwaitedBytes()
        return self._awaited.claim(max(start, self._taken), self.bytes_written())

    async def wait_drained(self) -> None:
        """Wait until the write buffer is under its low-water mark, or the peer is gone."""
        if self.congested and not self.lost:
            waiter: asyncio.Future[None] = self.shared.loop.create_future()
            self._waiters = [*(self._waiters or ()), waiter]
            await waiter

    def unfollow(self, follower: Follower) -> None:
        """Tell it no more."""
        self.followers = [other for other in self.followers or () if other is not follower] or None
