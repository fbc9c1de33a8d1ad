"""Control: what an application orders for all connections of a user, to the servers that may have some.

Laws:
1. An order is done here at once, and at each other server once, when the backplane brings it there: also later, where
   the engine was away.
2. Orders go through a topic that no client and no application can name.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Final, Protocol, final

from rawws.http.event_stream import EventStream
from rawws.net.identity import Identity
from rawws.net.prepared import PreparedMessage
from rawws.net.websocket import WebSocket

from .asgi_socket import AsgiSocket
from .history import Publication
from .names import CONTROL
from .payloads import serialize
from .subscribers import PublishResult

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rawws.net.interfaces import Follower

    from .replication import Replication
    from .sessions import ClientSessions
    from .subscribers import Subscriber, SubscriberConnection

__all__ = ["ControlledHub", "UserControl"]

logger = logging.getLogger("rawws.topics")

HARD_LIMIT: Final = 1 << 20


class ControlledHub(Protocol):
    """What has the subscriptions."""

    def leave(self, receiver: SubscriberConnection, topic: str | None = None, *, reason: str | None = None) -> None:
        """End a subscription, or all of them; with a reason, a client hears that the application ended them."""


@final
class UserControl:
    """Gives orders for users, here and to the hubs of other servers, and does what those order.

    It is the receiver of the topic of orders; there are no others without a `replication`.
    """

    __slots__ = ("_hub", "_replication", "_sessions", "_subscribers", "congested", "hard_limit")

    def __init__(
        self,
        hub: ControlledHub,
        subscribers: Mapping[SubscriberConnection, Subscriber],
        sessions: ClientSessions,
        replication: Replication | None,
    ) -> None:
        self._hub = hub
        self._subscribers = subscribers
        self._sessions = sessions
        self._replication = replication
        self.congested = False
        self.hard_limit = HARD_LIMIT

    def disconnect(self, user: str, code: int, reason: str) -> int:
        """Close all connections of a user; return how many there were here."""
        count = self._disconnect(user, code, reason)
        self._order(disconnect=user, code=code, reason=reason)
        return count

    def unsubscribe(self, user: str, topic: str | None, reason: str) -> None:
        """End the subscriptions of a user to a topic, or all of them."""
        self._unsubscribe(user, topic, reason)
        self._order(unsubscribe=user, topic=topic, reason=reason)

    # -- here

    def _disconnect(self, user: str, code: int, reason: str) -> int:
        found = self._receivers_of(user)
        for receiver in found:
            # Without the grace of those who are lost.
            self._hub.leave(receiver)
        sessions = self._sessions.of(user)
        for session in sessions:
            session.close(code, reason)
        known = {session.connection for session in sessions}
        for receiver in found:
            if receiver not in known:
                end_connection(receiver, code, reason)
        return len(known.union(found))

    def _unsubscribe(self, user: str, topic: str | None, reason: str) -> None:
        for receiver in self._receivers_of(user):
            self._hub.leave(receiver, topic, reason=reason)

    def _receivers_of(self, user: str) -> list[SubscriberConnection]:
        found = ((receiver, getattr(receiver, "identity", None)) for receiver in self._subscribers)
        return [each for each, identity in found if isinstance(identity, Identity) and identity.user == user]

    # -- at other servers

    def _order(self, **fields: str | int | None) -> None:
        if self._replication is not None:
            self._replication.open()
            text = serialize({**fields, "server": self._replication.server})
            self._replication.publish(Publication(CONTROL, PreparedMessage(text)), PublishResult())

    def send(self, publication: Publication) -> None:
        """Do what another server ordered."""
        try:
            fields = json.loads(publication.message)
            if self._replication is None or fields["server"] == self._replication.server:
                return
            if "disconnect" in fields:
                self._disconnect(str(fields["disconnect"]), int(fields["code"]), str(fields["reason"]))
            else:
                topic = fields["topic"]
                self._unsubscribe(
                    str(fields["unsubscribe"]), None if topic is None else str(topic), str(fields["reason"])
                )
        except Exception:
            # Such as that of a server of another version: others are still to be done.
            logger.exception("an order of another server cannot be done")

    def follow(self, follower: Follower) -> None:
        """Nothing is to be told: it is never slow, and never over."""

    unfollow = follow

    def fail(self, code: int, reason: str) -> None:
        """Do nothing, as above."""


def end_connection(receiver: SubscriberConnection, code: int, reason: str) -> None:
    """Close what a subscriber is connected by."""
    if isinstance(receiver, (WebSocket, AsgiSocket)):
        receiver.close(code, reason)
    elif isinstance(receiver, EventStream):
        receiver.close()
    else:
        receiver.fail(code, reason)
