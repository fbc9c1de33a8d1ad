"""Outbox: the publications of this server that wait for the engine behind a backplane, or for their return from it.

Laws:
1. Each has a number, one more than the one before; they are listed in that order.
2. They are bounded in their count and in their bytes. What is over the bounds gets a number, and is not kept.
3. Each is kept until it came back, or will not come, in its topic and in all patterns for it that this server has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from .backplane import Placed, Position

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

    from .backplane import Record
    from .history import Publication
    from .replica import ReplicaLog
    from .subscribers import PublishResult

__all__ = ["Outbox", "PendingPublish"]

# At 1,000 publications a second, the engine may be away for ten seconds.
MAX_WAITING = 10_000
MAX_WAITING_SIZE = 16 << 20


@final
class PendingPublish:
    """A publication of this server of which the engine has not said where it is, or which did not come back yet."""

    __slots__ = ("expected", "number", "outcome", "patterns", "place", "publication")

    def __init__(
        self, number: int, publication: Publication, outcome: PublishResult, expected: tuple[str, ...]
    ) -> None:
        self.number = number
        self.publication = publication
        self.outcome = outcome
        # What the engine said: where it is, and when it answered, where the patterns for the topic are behind it.
        self.place: Position | None = None
        self.patterns: Mapping[str, Position] | None = None
        # Where it has not come back: its topic, and patterns for that.
        self.expected = expected

    @property
    def topic(self) -> str:
        """The topic that it is published to."""
        return self.publication.topic

    def answer(self, place: Position) -> None:
        """Record what the engine answered."""
        self.place = place
        self.patterns = place.patterns if isinstance(place, Placed) else {}

    def settle(self) -> None:
        """Say where it is, as far as that is known."""
        place = self.place
        known = place is not None and place.offset > 0
        self.outcome.settle(f"{place.epoch}:{place.offset}" if place and known else "", accepted=place is not None)

    def is_past(self, replica: ReplicaLog) -> bool:
        """Tell whether it has its place, and a replica that is live is beyond that."""
        place = self.place
        if replica.topic != self.topic:
            # A pattern that the engine does not name had no log there.
            known = self.patterns
            place = None if known is None else known.get(replica.topic, Position(replica.epoch, 0))
        if place is None or place.epoch == replica.epoch:
            return place is not None and place.offset <= replica.offset
        # The first publication of a topic is of another epoch than what is before it, and comes yet.
        return replica.offset > 0 or not place.offset


@final
class Outbox:
    """What waits, by its numbers."""

    __slots__ = ("number", "size", "waiting")

    def __init__(self) -> None:
        self.number = 0
        self.size = 0
        self.waiting: dict[int, PendingPublish] = {}

    def __len__(self) -> int:
        return len(self.waiting)

    def __contains__(self, sent: PendingPublish) -> bool:
        return self.waiting.get(sent.number) is sent

    def add(
        self, publication: Publication, outcome: PublishResult, patterns: Iterable[str] = (), *, keep: bool = True
    ) -> PendingPublish:
        """Give a publication its number, and keep it, unless it is over the bounds; here are patterns for its topic."""
        self.number += 1
        sent = PendingPublish(self.number, publication, outcome, (publication.topic, *patterns))
        size = self.size + publication.size
        if keep and len(self.waiting) < MAX_WAITING and size <= MAX_WAITING_SIZE:
            self.waiting[sent.number] = sent
            self.size = size
        return sent

    def take(self, number: int) -> PendingPublish | None:
        """Remove and return the publication of this number, None where there is none."""
        sent = self.waiting.pop(number, None)
        if sent is not None:
            self.size -= sent.publication.size
        return sent

    def come(self, record: Record) -> PendingPublish | None:
        """Return the publication that came back as a record, None where there is none; the last time, remove it."""
        sent = self.waiting.get(record.number)
        if sent is not None:
            if record.topic == sent.topic:
                sent.place = Position(record.epoch, record.offset)
            self.expect_no_more(sent, record.topic)
        return sent

    def expect_no_more(self, sent: PendingPublish, channel: str) -> None:
        """Record that a publication came back in its topic or in a pattern, or will not; the last time, remove it."""
        sent.expected = tuple([each for each in sent.expected if each != channel])
        if not sent.expected:
            self.take(sent.number)

    def expected_in(self, channel: str) -> list[PendingPublish]:
        """Return the publications that have not come back in a topic or in a pattern, in their order."""
        return [sent for sent in self.waiting.values() if channel in sent.expected]

    def of(self, topics: Container[str]) -> list[PendingPublish]:
        """Return the publications of some topics, in their order."""
        return [sent for sent in self.waiting.values() if sent.topic in topics]
