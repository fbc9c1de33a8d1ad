"""Faults: what is wrong with topics behind a backplane, to a count, and to the log once."""

from __future__ import annotations

import logging
from typing import Final, final

from rawws.errors import RawwsError
from rawws.protocol.extensions import excerpt

from .backplane import TopicUnavailable

__all__ = ["Faults"]

logger = logging.getLogger("rawws.topics")

# So many topics with which something is wrong are named in the log; the others are counted.
MAX_NAMED: Final = 100


@final
class Faults:
    """How often something was wrong with a topic, and which of them the log names."""

    __slots__ = ("count", "named")

    def __init__(self) -> None:
        self.count = 0
        self.named: set[str] = set()

    def add(self, topic: str, error: BaseException | str) -> None:
        """Count that something is wrong with a topic, and say so once."""
        self.count += 1
        if topic not in self.named and len(self.named) < MAX_NAMED:
            self.named.add(topic)
            reason = error.reason if isinstance(error, TopicUnavailable) else str(error)
            mistake = None if isinstance(error, (str, RawwsError)) else error
            logger.error(
                "the backplane cannot serve all of the topic %s: %s",
                excerpt(topic),
                " ".join(reason.split())[:500],
                exc_info=mistake,
            )
