"""Figures: a hub as it is now, to its topics, one by one, for whoever looks into it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .names import CONTROL
from .patterns import Pattern

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from .subscribers import Subscriber
    from .table import TopicTable

__all__ = ["HubStats", "TopicFigures", "each_topic", "stats_of"]


class TopicFigures(NamedTuple):
    """A topic: how many are subscribed to it here, how many are present on all servers, what is held, in numbers."""

    topic: str
    subscribers: int
    present: int
    held: int


class HubStats(NamedTuple):
    """What a hub holds now, and what it did since it was made."""

    topics: int
    subscribers: int
    subscriptions: int
    present: int
    held: int
    held_bytes: int
    waiting: int
    published: int
    delivered: int
    queued: int
    conflated: int
    dropped: int
    closed: int
    # Of the backplane: whether it is away, what waits for it, what was given up, where something was found missing
    # and asked for, where it could not be had, and how often the engine was tried to be reached again.
    degraded: bool = False
    unsent: int = 0
    lost: int = 0
    gaps: int = 0
    declared: int = 0
    retries: int = 0
    # How often it could not serve a topic, or told of one what cannot be read.
    faults: int = 0


def stats_of(
    table: TopicTable, subscribers: Collection[Subscriber], published: int, engine: dict[str, int], *, degraded: bool
) -> HubStats:
    """Return what a hub with these topics and subscribers did so far, and holds; `engine` is what its backplane did."""
    # The topic of the orders is none of the application's.
    hidden = CONTROL in table.topics
    topics = table.topics.values()
    return HubStats(
        topics=len(topics) - hidden,
        subscribers=len(subscribers) - hidden,
        subscriptions=sum(len(topic.subscriptions) for topic in topics) - hidden,
        present=sum(len(topic.presence.members) for topic in topics if topic.presence is not None),
        held=sum(len(topic.log.held) for topic in topics),
        held_bytes=table.store.size,
        waiting=sum(len(subscriber.queue or ()) for subscriber in subscribers),
        published=published,
        **table.counts,
        degraded=degraded,
        **engine,
    )


def each_topic(table: TopicTable) -> Iterator[TopicFigures]:
    """Yield the topics of a hub."""
    for name, topic in table.topics.items():
        if name == CONTROL:
            continue
        present = 0 if topic.presence is None else len(topic.presence.members)
        shown = f"{name.text} (pattern)" if isinstance(name, Pattern) else name
        yield TopicFigures(shown, len(topic.subscriptions), present, len(topic.log.held))
