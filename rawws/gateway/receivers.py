"""Receivers: what a hub sends to the gateway itself to what takes it at once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Callable

    from rawws.topics import Publication

__all__ = ["ControlReceiver"]

logger = logging.getLogger("rawws.gateway")


def ignore(*_: object) -> None:
    """Do nothing."""


@final
class ControlReceiver:
    """A subscriber of a hub (rawws.topics.Receiver) with room for all; `on_gap()` is told that it missed something."""

    __slots__ = ("_on_gap", "_take")

    congested = False
    hard_limit = 64 << 20

    def __init__(self, take: Callable[[Publication], None] = ignore, on_gap: Callable[[], None] = ignore) -> None:
        self._take = take
        self._on_gap = on_gap

    def follow(self, follower: object) -> None:
        """Do nothing: nothing waits for it."""

    def unfollow(self, follower: object) -> None:
        """Do nothing, as well."""

    def fail(self, code: int, reason: str) -> None:
        """Say that what was to come is lost."""
        logger.error("the gateway is cut off from a hub: %s (%d)", reason, code)

    def send(self, publication: Publication) -> None:
        """Take a publication."""
        try:
            self._take(publication)
        except Exception:
            # Such as that of an instance of another version: a hub would end the subscription, for good.
            logger.exception("what another instance says could not be understood")

    def move(self, topic: str, cursor: str, recovered: bool) -> None:  # noqa: ARG002 - what every receiver has
        """Say that there is a gap."""
        if not recovered:
            self._on_gap()
