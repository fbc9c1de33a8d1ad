"""What a hub does: publications to all who subscribe to their topic, and to those who come back for what they missed.

It speaks no protocol of clients: those that there are, and how each says what is to be said, are given to it.
"""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

from rawws import clock
from rawws.errors import ConnectionClosed
from rawws.http.event_stream import EventStream
from rawws.net.identity import MAX_INFO, Identity
from rawws.net.prepared import PreparedMessage
from rawws.net.websocket import WebSocket

from .asgi_socket import AsgiSocket, AsgiSubscriber, receiver_of
from .attendance import Attendance, SubscribeResult
from .calls import Calls
from .control import UserControl
from .cursors import EARLIEST, CursorError, cursor_of, cursors_of, parse_cursor
from .figures import each_topic, stats_of
from .history import ENDED, Log, Publication, cost
from .listening import TopicListener
from .names import CONTROL, TopicError, check_key, check_name
from .patterns import Pattern, channel_of, check_channel, is_matched
from .payloads import check_extra, payload_of, serialize
from .policies import Policy
from .presence import NOTHING, Present, new_present
from .rates import TopicRates
from .replica import ReplicaLog
from .replication import Replication
from .sessions import ClientSessions
from .subscribers import (
    EventSubscriber,
    ObjectSubscriber,
    ProtocolSocketSubscriber,
    PublishResult,
    SocketSubscriber,
    Subscriber,
    Subscription,
)
from .table import TopicTable, missed_since
from .threadsafe import HubThread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence

    from .asgi_socket import AsgiWebSocket
    from .attendance import SubscriptionObserver
    from .backplane import Backplane, History
    from .figures import HubStats, TopicFigures
    from .rules import ClientRules
    from .subscribers import ClientProtocol, Receiver, SubscriberConnection

__all__ = ["HubCore", "known_hubs"]

Answer = TypeVar("Answer")

# What was missed and waits for one subscriber, in bytes of memory, or in histories of one topic: it may be held longer
# than the history holds it. Whoever asks for more is told to begin anew.
MAX_REPLAY = 4 << 20
MAX_REPLAYS = 4
# What clients take by default, a message of a WebSocket as an event; and room for the id of an event, which has the
# cursors of all its topics, and for the cursor of the publication.
LARGEST_ENVELOPE = 1 << 20
ENVELOPE_ROOM = 8192
# A control character is six bytes of JSON.
ESCAPED = 6


# Those of this process that somebody holds.
HUBS: WeakValueDictionary[int, HubCore] = WeakValueDictionary()
NUMBERS = itertools.count()


def known_hubs() -> list[HubCore]:
    """Return the hubs of this process, in the order in which they were made."""
    return [hub for _, hub in sorted(HUBS.items())]


class HubCore:
    """What `rawws.Hub` does; its options are explained there.

    `protocols` are those that clients may speak. Who speaks none is told of notices as by the first of them.
    """

    def __init__(
        self,
        history: History,
        policy: str | Policy,
        max_topics: int,
        max_size: int,
        topic_rate: float | None,
        rules: ClientRules,
        backplane: Backplane | None,
        protocols: Sequence[ClientProtocol],
        presence_grace: float = 0.0,
        max_info: int = MAX_INFO,
    ) -> None:
        self.policy = Policy.of(policy)
        self.max_topics = max_topics
        self.max_size = max_size
        self.rules = rules
        self.sessions = ClientSessions()
        self._rates = None if topic_rate is None else TopicRates(topic_rate)
        self._renders = dict(protocols)
        # What clients that ask by HTTP hear.
        self.render = protocols[0].render
        self._table = TopicTable(history, protocols[0].render, Log if backplane is None else ReplicaLog)
        self._table.max_info, self._table.rules = max_info, rules
        self._replication = (
            None if backplane is None else Replication(self._table, backplane, history, self._check_record)
        )
        self.attendance = Attendance(self._table, self._replication, presence_grace)
        self._subscribers: dict[SubscriberConnection, Subscriber] = {}
        self.control = UserControl(self, self._subscribers, self.sessions, self._replication)
        self.observer: SubscriptionObserver | None = None
        self._published = 0
        self.calls = Calls()
        self._thread = HubThread(self.publish_payload)
        HUBS[next(NUMBERS)] = self

    def enter(self) -> None:
        """Begin in the event loop that runs here, and reach the engine of the backplane, if there is one."""
        self._thread.enter()
        if self._replication is not None:
            self._replication.open()
            if self.rules.identify is not None:
                self.listen_to_orders()

    async def close(self) -> None:
        """Let go of the backplane, if there is one: what waits for it is given up, and counted as lost.

        WebSockets that are subscribed close with 1000, and event streams end. What other threads published before is
        sent first.
        """
        self._thread.enter()
        self._thread.take_all()
        self.attendance.close()
        self.calls.close()
        try:
            if self._replication is not None:
                await self._replication.close()
        finally:
            for receiver in tuple(self._subscribers):
                if isinstance(receiver, (WebSocket, AsgiSocket)):
                    receiver.close(1000)
                elif isinstance(receiver, (EventStream, TopicListener)):
                    receiver.close()

    def subscribe(
        self,
        receiver: WebSocket | EventStream | Receiver | AsgiWebSocket,
        topic: str,
        *,
        since: str | None = None,
        policy: str | Policy | None = None,
        join: Any = NOTHING,
        watch: bool = False,
        pattern: bool = False,
    ) -> Subscription:
        """Send a subscriber all that is published to a topic from now on; first, what came since a cursor.

        It is a WebSocket or an EventStream; a WebSocket of Starlette, FastAPI or Django Channels, or the (scope,
        receive, send) of an ASGI application, in the task of its endpoint and accepted; or an object of yours.

        `since` is the cursor of the last publication that the subscriber has, alone or among those of other topics;
        "earliest" stands for all that is held, None or "" for nothing. Where it is not known what came since,
        `recovered` of the result is False. With `join`, the subscriber is present, and `join` is what others are told
        of it, or an Identity that it has here; with `watch`, it is told who comes and goes. Without `since`, a second
        subscription of the same subscriber to the same topic is the first one.

        With `pattern`, the topic is the beginning of names and a `*`: `news/*` is for all topics whose names begin with
        "news/", those of tomorrow too. Its cursor is one for all of them, its history what came since it was first
        subscribed to. Who has a topic by name too gets it twice. There is no presence in it.

        With a backplane, it gets what is published from when the topic's place is known: awaiting the result waits for
        that, and then `cursor` and `recovered` say what they mean.

        Raises TopicError for a name that no topic may have, for too many of them and for what cannot be told of
        somebody; CursorError for a cursor that the topic never gave; ConnectionClosed for a subscriber that is gone.
        """
        topic = channel_of(topic, pattern=pattern)
        self._check_channel(topic)
        subscriber = self.subscriber_of(receiver_of(receiver))
        known = subscriber.subscriptions.get(topic)
        if known is not None and not since:
            return known
        cursor = cursor_of(since or "", topic)
        if self._replication is not None:
            if cursor and cursor != EARLIEST:
                parse_cursor(cursor)
            if not self._replication.is_ready(topic, cursor):
                subscription = self._enter(subscriber, topic, policy, join, watch=watch).subscription
                self._wait(self._replication, subscription, cursor)
                return subscription
        result = self.admit(subscriber, topic, since=cursor, policy=policy, join=join, watch=watch)
        subscriber.replay(result.subscription, result.missed)
        return result.subscription

    def unsubscribe(
        self,
        receiver: WebSocket | EventStream | Receiver | AsgiWebSocket | str,
        topic: str | None = None,
        *,
        reason: str = "",
        pattern: bool = False,
    ) -> None:
        """End a subscription, or all of them; nothing, where there is none. A client of rawws.v1 is told.

        A str is a user: then it is done to all connections of the user, with a backplane at all servers. Those by a
        pattern for the topic end too, so that nothing of it comes any more; with `pattern`, only the one by that.
        """
        self._thread.enter()
        if topic is not None and pattern:
            topic = channel_of(topic, pattern=True)
        if isinstance(receiver, str):
            self.control.unsubscribe(receiver, topic, reason)
        else:
            self.leave(receiver_of(receiver), topic, reason=reason)

    def publish(
        self,
        topic: str,
        message: Any,
        *,
        key: str | None = None,
        event: str | None = None,
        exclude: WebSocket | EventStream | Receiver | AsgiWebSocket | None = None,
    ) -> PublishResult:
        """Send a message to all subscribers of a topic at once: str as text, bytes-like as binary, the rest as JSON.

        JSON may be a dict, list, tuple, int, float, bool or None. `key` says what the message is about, for "conflate";
        `event` is the name of an event, which subscribers get with the message; `exclude` is a subscriber that does not
        get it, such as who said it. Returns what became of it, which may be awaited. Raises TopicError for a name that
        no topic may have, for such a key or event and for too large a message, TypeError for what is no message,
        LocalProtocolError for text that has no UTF-8, RuntimeError in another thread than that of the event loop in
        which the hub is used: that one calls `publish_threadsafe`.
        """
        if event is None and isinstance(message, (str, bytes)):
            return self.publish_payload(topic, message, "", key, exclude)
        return self.publish_payload(topic, *payload_of(message, event), key, exclude)

    def user_count(self, topic: str) -> int:
        """Return how many users are present in a topic, whatever they have of connections."""
        found = self._table.topics.get(topic)
        return 0 if found is None or found.presence is None else len(found.presence.users)

    def members(self, topic: str) -> Collection[Present]:
        """Return the same to look at now: it changes with who comes and goes."""
        found = self._table.topics.get(topic)
        return () if found is None or found.presence is None else found.presence.members.values()

    def topic_figures(self) -> list[TopicFigures]:
        """Return the topics as they are now."""
        return list(each_topic(self._table))

    def waiting_subscribers(self) -> list[tuple[SubscriberConnection, int]]:
        """Return those for whom something waits here, and how many bytes of publications that is."""
        return [(each.receiver, each.size) for each in self._subscribers.values() if each.size]

    def topics_of(self, receiver: SubscriberConnection) -> int:
        """Return how many topics a subscriber has."""
        subscriber = self._subscribers.get(receiver)
        return 0 if subscriber is None else len(subscriber.subscriptions)

    def stats(self) -> HubStats:
        """Return what the hub did so far, and what it holds."""
        self._table.tidy()
        engine = {} if self._replication is None else self._replication.stats()
        return stats_of(self._table, self._subscribers.values(), self._published, engine, degraded=self.degraded)

    @property
    def degraded(self) -> bool:
        """Whether the backplane is away, for some topics at least: own publications wait, others are missing."""
        return self._replication is not None and self._replication.is_away

    # -- what client protocols and subscribers call

    def broadcast_payload(
        self,
        topics: Iterable[str],
        message: Any,
        extra: str = "",
        key: str | None = None,
        exclude: WebSocket | EventStream | Receiver | AsgiWebSocket | None = None,
    ) -> list[PublishResult]:
        """Publish a message, and the members that go beside it, to several topics. Raises as `broadcast` does."""
        if isinstance(topics, str):
            raise TypeError("topics is str, allowed is a list of them")
        names = list(topics)
        if not names:
            raise TopicError("topic", "no topic is named, needed is at least one")
        for name in names:
            self.check_publish(name, message, extra, key)
        if len(set(names)) < len(names):
            raise TopicError("topic", "a topic is named twice, allowed is once")
        return [self.publish_payload(name, message, extra, key, exclude) for name in names]

    def publish_payload(
        self,
        topic: str,
        message: Any,
        extra: str = "",
        key: str | None = None,
        exclude: WebSocket | EventStream | Receiver | AsgiWebSocket | None = None,
    ) -> PublishResult:
        """Publish a message, and the members that go beside it in envelopes. Raises as `publish` does."""
        if not self._thread.is_here():
            self._thread.enter()
        check_name(topic)
        check_key(key)
        encoded = PreparedMessage(message)
        self._check_size(topic, encoded, extra)
        excluded = None if exclude is None else receiver_of(exclude, known_only=True)
        self._published += 1
        if self._replication is not None:
            outcome = PublishResult()
            outcome.excluded = excluded
            return self._replication.publish(Publication(topic, encoded, key, extra=extra), outcome)
        found = self._table.topics.get(topic) or self._table.make(topic)
        publication = found.log.append(encoded, key, extra)
        outcome = PublishResult(publication.cursor)
        outcome.excluded = excluded
        self._table.distribute(found, publication, outcome)
        if self._table.patterns:
            self._table.match(found, publication, outcome)
        return outcome

    def leave(self, receiver: SubscriberConnection, topic: str | None = None, *, reason: str | None = None) -> None:
        """End a subscription, or all of them; with a reason, "" too, a client hears that the application ended them."""
        subscriber = self._subscribers.get(receiver)
        if subscriber is None:
            return
        for subscription in list(subscriber.subscriptions.values()):
            if topic in {None, subscription.topic} or (reason is not None and is_matched(subscription.topic, topic)):
                found = self._table.topics[subscription.topic]
                self._end(subscription)
                subscriber.give_up(subscription)
                if reason is not None:
                    extra = f'"reason":{serialize(reason)}' if reason else ""
                    with contextlib.suppress(ConnectionClosed):
                        subscriber.tell_end(self._table.notice(found, ENDED, extra=extra))
        if not subscriber.subscriptions:
            subscriber.leave()

    def listen_to_orders(self) -> None:
        """Begin to do what other servers order for users, if that was not begun."""
        if self._replication is not None and CONTROL not in self._table.topics:
            subscriber = ObjectSubscriber(self, self.control)
            result = self._enter(subscriber, CONTROL, None, NOTHING, watch=False)
            self._wait(self._replication, result.subscription, "")

    def account(self, client: Any, topics: Collection[str]) -> None:
        """Count the topics that a client brings up. Raises TopicError where those that are new are too many."""
        if self._rates is not None:
            self._rates.account(client, topics, self._table.topics)

    def forget_client(self, client: Any) -> None:
        """Have a client that is gone have no session, and owe nothing to those that come after it."""
        self.sessions.end(client)
        if self._rates is not None:
            self._rates.forget(client)

    def subscriber_of(self, receiver: WebSocket | AsgiSocket | EventStream | Receiver) -> Subscriber:
        """Return the subscriber that a receiver is, or would be."""
        known = self._subscribers.get(receiver)
        if known is not None:
            return known
        if isinstance(receiver, EventStream):
            return EventSubscriber(self, receiver)
        if isinstance(receiver, AsgiSocket):
            return AsgiSubscriber(self, receiver, self._renders.get(receiver.subprotocol or ""))
        if not isinstance(receiver, WebSocket):
            return ObjectSubscriber(self, receiver)
        receiver.check_open()
        render = self._renders.get(receiver.subprotocol or "")
        return SocketSubscriber(self, receiver) if render is None else ProtocolSocketSubscriber(self, receiver, render)

    def admit(
        self,
        subscriber: Subscriber,
        topic: str,
        *,
        since: str = "",
        policy: str | Policy | None = None,
        join: Any = NOTHING,
        is_claim: bool = False,
        watch: bool = False,
    ) -> SubscribeResult:
        """Make a subscription; the caller has `subscriber.replay` send what was missed. Raises as `subscribe` does.

        `since` is a cursor of this topic alone. `is_claim` says that `join` is what a client says of itself.
        """
        return self._enter(subscriber, topic, policy, join, is_claim=is_claim, watch=watch, since=since)

    def when_ready(self, topics: Iterable[str], since: str, go: Callable[[], Answer]) -> Answer | Awaitable[Answer]:
        """Return what `go` returns, or an awaitable of it where it must be asked first what came since a cursor."""
        return go() if self._replication is None else self._when_ready(self._replication, list(topics), since, go)

    def recall(self, topic: str, *, since: str) -> tuple[str, list[Publication], bool]:
        """Return where a topic is, what came since a cursor, and whether that is known; remember that it was told."""
        self._thread.enter()
        self._check_channel(topic)
        found = self._table.topics.get(topic) or self._table.make(topic)
        log = found.log
        if self._replication is not None:
            self._replication.prepare(log)
        self._table.store.touch(log, clock.monotonic())
        publications, recovered = missed_since(log, since) if since else ([], True)
        self._table.tidy(found)
        return log.cursor, publications, recovered

    def place_of(self, topic: str, cursor: str) -> tuple[str, int, str]:
        """Return the epoch and the offset that a cursor of a topic stands for now, and where the topic is."""
        found = self._table.topics.get(topic) or self._table.make(topic)
        try:
            return *found.log.place_of(cursor), found.log.cursor
        finally:
            self._table.tidy(found)

    def forget(self, subscriber: Subscriber) -> None:
        """End all subscriptions of a subscriber."""
        if self._subscribers.get(subscriber.receiver) is subscriber:
            del self._subscribers[subscriber.receiver]
            subscriber.receiver.unfollow(subscriber)
        for subscription in list(subscriber.subscriptions.values()):
            self._end(subscription, lost=True)

    # -- inside

    def check_publish(self, topic: str, message: Any, extra: str, key: str | None) -> None:
        """Raise what `publish_payload` would, in whatever thread."""
        check_name(topic)
        check_key(key)
        self._check_size(topic, PreparedMessage(message), extra)

    def _check_channel(self, channel: str, *, with_presence: bool = False) -> None:
        """Raise TopicError for what is no name and no pattern, and for a pattern where there can be none."""
        check_channel(channel)
        if isinstance(channel, Pattern):
            if self._replication is not None and not self._replication.backplane.patterns:
                raise TopicError("pattern", "the engine of the backplane has no patterns: name the topics")
            if with_presence:
                raise TopicError("pattern", "presence is that of a topic, a pattern has neither join nor watch")

    def _check_record(self, topic: str, encoded: PreparedMessage, extra: str) -> None:
        """Raise TopicError for what another server published, and no subscriber here may get."""
        check_extra(extra)
        self._check_size(topic, encoded, extra)

    def _check_size(self, topic: str, encoded: PreparedMessage, extra: str) -> None:
        """Raise TopicError for a message that is too large, as it is or in what client protocols make of it."""
        size = encoded.size
        if size > self.max_size:
            raise TopicError("size", f"the message has {size} bytes, limit {self.max_size}")
        limit = max(self.max_size, LARGEST_ENVELOPE) - ENVELOPE_ROOM
        if size * ESCAPED > limit:
            publication = Publication(topic, encoded, extra=extra)
            for render in self._renders.values():
                size = len(render(publication).encode())
                if size > limit:
                    raise TopicError("size", f"the message has {size} bytes in its envelope, limit {limit}")

    def _enter(
        self,
        subscriber: Subscriber,
        topic: str,
        policy: str | Policy | None,
        join: Any,
        *,
        watch: bool,
        is_claim: bool = False,
        since: str | None = None,
    ) -> SubscribeResult:
        """Make a subscription; without `since` it is pending."""
        self._thread.enter()
        if subscriber.receiver is not self.control:
            self._check_channel(topic, with_presence=watch or join is not NOTHING)
        if topic in subscriber.subscriptions:
            raise TopicError("limit", "the subscriber has this topic already, allowed is one subscription")
        if len(subscriber.subscriptions) >= self.max_topics:
            raise TopicError("limit", f"the subscriber has {self.max_topics} topics already, the limit")
        chosen = self.policy if policy is None else Policy.of(policy)
        present = None
        if join is not NOTHING:
            found_identity = getattr(subscriber.receiver, "identity", None)
            identity = found_identity if isinstance(found_identity, Identity) else None
            if isinstance(join, Identity):
                identity, join = join, join.info
            present = new_present(
                join, identity, is_claim=is_claim, claims=self.rules.claims, max_info=self._table.max_info
            )
        found = self._table.topics.get(topic)
        log = self._table.new_log(topic, self._table.store) if found is None else found.log
        subscription = Subscription(subscriber, log, chosen)
        subscription.pending = since is None
        start, missed = ("", []) if since is None else self._missed(subscription, since)
        if subscriber.receiver not in self._subscribers:
            subscriber.receiver.follow(subscriber)
            self._subscribers[subscriber.receiver] = subscriber
        try:
            subscriber.begin(subscription, start)
        except ValueError as error:
            raise TopicError("limit", str(error)) from None
        subscriber.replayed += sum(map(cost, missed))
        if found is None:
            found = self._table.add(log)
        subscriber.subscriptions[topic] = found.subscriptions[subscriber] = subscription
        found.receivers = None
        if present is not None:
            self.attendance.join(found, subscription, present)
        if watch:
            subscription.watches = True
            found.watchers[subscriber] = subscription
        if self.observer is not None:
            self.observer.subscribed(subscription)
        return SubscribeResult(subscription, start, missed)

    def _wait(self, replication: Replication, subscription: Subscription, since: str) -> None:
        """Have a pending subscription begin when it is known what came since a cursor."""
        subscriber, topic = subscription.subscriber, self._table.topics[subscription.topic]

        def go_on() -> None:
            if subscriber.subscriptions.get(subscription.topic) is not subscription:
                return
            try:
                replication.check_fault(topic)
            except TopicError as error:
                subscription.fail(error)
                replication.wait(topic, go_on, again=False)
                return
            if not replication.is_ready(subscription.topic, since, asked=True):
                replication.wait(topic, go_on)
                return
            try:
                start, missed = self._missed(subscription, since)
            except CursorError:
                # It is too late to raise: a cursor that the topic never gave is one that is lost.
                start, missed, subscription.recovered = subscription.cursor, [], False
            subscription.settle()
            topic.receivers = None
            subscriber.begin(subscription, start)
            subscriber.replayed += sum(map(cost, missed))
            subscriber.replay(subscription, missed)

        replication.wait(topic, go_on)

    async def _when_ready(
        self, replication: Replication, topics: list[str], since: str, go: Callable[[], Answer]
    ) -> Answer:
        for topic in topics:
            self._check_channel(topic)
        asked: set[str] = set()
        starts = cursors_of(since, topics)
        while True:
            for topic in topics:
                found = self._table.topics.get(topic) or self._table.make(topic)
                if not replication.is_ready(topic, starts[topic], asked=topic in asked):
                    asked.add(topic)
                    await replication.changed(found)
                    break
            else:
                return go()

    def _missed(self, subscription: Subscription, since: str) -> tuple[str, list[Publication]]:
        """Return the cursor at which a subscription begins, and what its subscriber missed from there on."""
        log = subscription.log
        if self._replication is not None:
            self._replication.prepare(log)
        if not since:
            return log.cursor, []
        missed, subscription.recovered = missed_since(log, since)
        size = subscription.subscriber.replayed + sum(map(cost, missed))
        if missed and size > max(MAX_REPLAY, MAX_REPLAYS * self._table.store.bounds.size):
            subscription.recovered = False
            missed = []
        return f"{missed[0].epoch}:{missed[0].offset - 1}" if missed else log.cursor, missed

    def _end(self, subscription: Subscription, *, lost: bool = False) -> None:
        subscriber = subscription.subscriber
        del subscriber.subscriptions[subscription.topic]
        subscriber.end(subscription)
        subscription.settle()
        if self.observer is not None:
            self.observer.unsubscribed(subscription)
        topic = self._table.topics[subscription.topic]
        del topic.subscriptions[subscriber]
        topic.receivers = None
        topic.watchers.pop(subscriber, None)
        if subscription.present:
            self.attendance.leave(topic, subscription, lost=lost)
        if not topic.subscriptions:
            # Its cursor was told: whoever comes back with it must find the same epoch.
            self._table.store.touch(topic.log, clock.monotonic())
            self._table.tidy(topic)
