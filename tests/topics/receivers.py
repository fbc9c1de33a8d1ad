"""Receivers in memory, and a clock that stands still."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final
from unittest.mock import patch

import rawws
from rawws.topics import Identity, Publication

__all__ = ["Clock", "Receiver", "still"]


@final
class Receiver:
    """A subscriber that remembers what it got; a test says when it is slow, closed or broken."""

    def __init__(self, hard_limit: int = 1 << 20) -> None:
        self.got: list[str | bytes] = []
        self.congested = False
        self.closed = False
        self.breaks = False
        self.hard_limit = hard_limit
        self.member: Any = None
        self.identity: Identity | None = None
        self.failed: tuple[int, str] | None = None

    def send(self, publication: Publication) -> None:
        if self.breaks:
            raise ZeroDivisionError
        if self.closed:
            raise rawws.ConnectionClosedError(None, None)
        self.got.append(publication.message)

    def follow(self, member: Any) -> None:
        assert self.member is None
        if self.closed:
            raise rawws.ConnectionClosedError(None, None)
        self.member = member

    def unfollow(self, member: Any) -> None:
        assert self.member is member
        self.member = None

    def fail(self, code: int, reason: str) -> None:
        self.failed = code, reason
        self.closed = True

    def read_on(self) -> None:
        """Be slow no more."""
        self.congested = False
        if self.member is not None:
            self.member.drained()

    def die(self) -> None:
        """Lose the connection."""
        self.closed = True
        if self.member is not None:
            self.member.lost()


@final
class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def still() -> Iterator[Clock]:
    """Have the topics look at a clock that stands still."""
    clock = Clock()
    with patch("rawws.clock.monotonic", clock):
        yield clock
