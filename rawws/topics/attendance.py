"""Attendance: subscribers who are present to the topics that they are in, here and at other servers.

Laws:
1. Whoever unsubscribes is gone at once. A user whose connection is lost is away for a while, and whoever watches is not
   told: it may come back, by whatever server, under the id that it had.
2. Of two servers at which one id is, that one has it where the user is now.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple, Protocol, final

from rawws import clock

from .history import JOIN, LEAVE
from .presence import PresenceSet

if TYPE_CHECKING:
    from .history import Publication
    from .presence import Present
    from .replication import Replication
    from .subscribers import Subscription
    from .table import Topic, TopicTable

__all__ = ["Attendance", "SubscribeResult", "SubscriptionObserver"]


class SubscribeResult(NamedTuple):
    """A new subscription, the cursor at which it begins, and what is to be sent to it first."""

    subscription: Subscription
    cursor: str
    missed: list[Publication]


class SubscriptionObserver(Protocol):
    """Whoever is told of each subscription of a hub: when it was made, and when it is over, however it ended."""

    def subscribed(self, subscription: Subscription) -> None:
        """Handle a new subscription."""

    def unsubscribed(self, subscription: Subscription) -> None:
        """Handle the end of one."""


@final
class Attendance:
    """Has subscribers come and go in the topics of a hub; users whose connection is lost go after `grace` seconds."""

    __slots__ = ("_grace", "_replication", "_table", "_timers")

    def __init__(self, table: TopicTable, replication: Replication | None, grace: float) -> None:
        self._table = table
        self._replication = replication
        self._grace = grace
        # Of those who are away, what ends that, by topic and id.
        self._timers: dict[tuple[str, str], asyncio.TimerHandle] = {}
        if replication is not None:
            replication.roster.on_taken = self.give_up

    def join(self, topic: Topic, subscription: Subscription, present: Present) -> None:
        """Have a new subscriber be present, as one that was away where it is the same user."""
        if topic.presence is None:
            topic.presence = PresenceSet()
        known = topic.presence.find_away(present.user) if present.user else None
        if known is not None:
            self._stop(topic, known.id)
            present = present._replace(id=known.id)
        subscription.present = present.id
        topic.presence.join(present)
        if not present.looks_as(known):
            self._table.tell(topic, JOIN, present)
        if self._replication is not None:
            self._replication.join(topic.log.topic, present.id, present.told())

    def leave(self, topic: Topic, subscription: Subscription, *, lost: bool) -> None:
        """Have a subscriber that ends be present no more, or be away where its connection is `lost`."""
        ident = subscription.present
        known = None if topic.presence is None else topic.presence.members.get(ident)
        if known is None or known.server:
            # It is at another server by now.
            if self._replication is not None:
                self._replication.leave(topic.log.topic, ident)
            return
        loop = asyncio._get_running_loop()  # noqa: SLF001 - asyncio's name, None without one
        if not lost or not self._grace or not known.user or loop is None:
            self._part(topic, ident)
            return
        away = known._replace(away=True)
        assert topic.presence is not None  # noqa: S101 - for mypy
        topic.presence.join(away)
        self._timers[topic.log.topic, ident] = loop.call_later(self._grace, self._expire, topic, ident)
        topic.away += 1
        if self._replication is not None:
            self._replication.join(topic.log.topic, ident, away.told())

    def give_up(self, topic: Topic, ident: str) -> None:
        """Leave somebody who was away to the server to which it came back."""
        if self._stop(topic, ident) and self._replication is not None:
            self._replication.leave(topic.log.topic, ident)
            asyncio.get_running_loop().call_soon(self._tidy, topic)

    def close(self) -> None:
        """Have all go who are away, and all who are lost from now on."""
        self._grace = 0.0
        for topic, ident in list(self._timers):
            self._expire(self._table.topics[topic], ident)

    def _expire(self, topic: Topic, ident: str) -> None:
        """Have somebody go who did not come back in time."""
        self._stop(topic, ident)
        self._part(topic, ident)
        self._tidy(topic)

    def _tidy(self, topic: Topic) -> None:
        if not topic.subscriptions:
            # Its cursor was told: whoever comes back with it must find the same epoch.
            self._table.store.touch(topic.log, clock.monotonic())
            self._table.tidy(topic)

    def _stop(self, topic: Topic, ident: str) -> bool:
        """Wait for somebody no more; tell whether it was waited for here."""
        timer = self._timers.pop((topic.log.topic, ident), None)
        if timer is None:
            return False
        timer.cancel()
        topic.away -= 1
        return True

    def _part(self, topic: Topic, ident: str) -> None:
        presence = topic.presence
        present = None if presence is None else presence.leave(ident)
        if self._replication is not None:
            self._replication.leave(topic.log.topic, ident)
        if presence is not None and not presence.members:
            topic.presence = None
        if present is not None:
            self._table.tell(topic, LEAVE, present)
