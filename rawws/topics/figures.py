"""Figures: a hub as it is now, to its topics, one by one, for whoever looks into it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .names import CONTROL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .table import TopicTable

__all__ = ["HubStats", "TopicFigures", "each_topic"]


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


def each_topic(table: TopicTable) -> Iterator[TopicFigures]:
    """Yield the topics of a hub."""
    for name, topic in table.topics.items():
        if name == CONTROL:
            continue
        present = 0 if topic.presence is None else len(topic.presence.members)
        yield TopicFigures(name, len(topic.subscriptions), present, len(topic.log.held))
