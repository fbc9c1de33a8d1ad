"""Figures: a hub as it is now, to its topics and its subscribers, one by one, for whoever looks into it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .subscribers import Subscriber, SubscriberConnection
    from .table import TopicTable

__all__ = ["SubscriberFigures", "TopicFigures", "each_subscriber", "each_topic"]


class TopicFigures(NamedTuple):
    """A topic: how many are subscribed to it here, how many are present on all servers, what is held, in numbers."""

    topic: str
    subscribers: int
    present: int
    held: int


class SubscriberFigures(NamedTuple):
    """A subscriber: what it is connected by, its topics, and how many bytes of publications wait for it in the hub."""

    connection: SubscriberConnection
    topics: int
    waiting: int


def each_topic(table: TopicTable) -> Iterator[TopicFigures]:
    """Yield the topics of a hub."""
    for name, topic in table.topics.items():
        present = 0 if topic.presence is None else len(topic.presence.members)
        yield TopicFigures(name, len(topic.subscriptions), present, len(topic.log.held))


def each_subscriber(subscribers: Iterable[Subscriber]) -> Iterator[SubscriberFigures]:
    """Yield the subscribers of a hub."""
    for subscriber in subscribers:
        yield SubscriberFigures(subscriber.receiver, len(subscriber.subscriptions), subscriber.size)
