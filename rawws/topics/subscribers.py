"""Subscribers: those of a hub, and what each of them gets of a publication.

Laws:
1. To one subscriber, publications go in the order in which they were published, over all its topics.
2. What waits for a subscriber that reads too slowly is shared with those that wait as well, and bounded.
3. A subscriber that closes or fails is unsubscribed from everything, and no other one notices.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from base64 import b64encode
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from rawws.errors import ConnectionClosed
from rawws.net.turns import spend
from rawws.protocol.opcodes import CloseCode
from rawws_sse import Event

from .backplane import new_answer
from .cursors import MAX_ID, is_short, join_cursors
from .history import FAULT, Notice, cost
from .policies import BLOCK, CONFLATE, DROP_NEWEST

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from rawws.http.event_stream import EventStream
    from rawws.net.websocket import WebSocket

    from .history import Log, Publication
    from .policies import Policy

__all__ = [
    "ClientProtocol",
    "EventSubscriber",
    "ObjectSubscriber",
    "ProtocolSocketSubscriber",
    "PublishResult",
    "Receiver",
    "SocketSubscriber",
    "Subscriber",
    "SubscriberConnection",
    "Subscription",
    "fan_out",
]

logger = logging.getLogger("rawws.topics")


class ClientProtocol(NamedTuple):
    """A protocol in which clients are told of publications and notices: `render` makes the text of one."""

    subprotocol: str
    render: Callable[[Publication], str]


class SubscriberConnection(Protocol):
    """What a subscriber is connected by: those that follow it are called when it is `drained` and when it is `lost`."""

    @property
    def congested(self) -> bool:
        """Whether its write buffer is over the high-water mark."""

    @property
    def hard_limit(self) -> int:
        """How many bytes of publications may wait for it."""

    def follow(self, follower: Subscriber, /) -> None:
        """Begin to call a subscriber. Raises ConnectionClosed."""

    def unfollow(self, follower: Subscriber, /) -> None:
        """Call it no more."""

    def fail(self, code: int, reason: str, /) -> None:
        """Close the connection."""


class Receiver(SubscriberConnection, Protocol):
    """An object of the application's that subscribes.

    One with `move(topic, cursor, recovered)` is told of cursors, one with `fault(topic)` where the backplane cannot
    serve a topic for now.
    """

    def send(self, publication: Publication, /) -> None:
        """Take a publication, or a notice. Raises ConnectionClosed."""


class SubscriberOwner(Protocol):
    """What a subscriber belongs to, a hub."""

    def forget(self, subscriber: Subscriber, /) -> None:
        """End all subscriptions of a subscriber."""


class PublishResult:
    """What became of a publication.

    `delivered` and `queued` count the subscribers that it was sent to and those that it waits for; `conflated` and
    `dropped` the publications, older ones or itself, that were given up for it; `closed` the subscribers that were
    found closing, or closed because too much waits for them. `cursor` is its place in the topic. Awaiting it waits for
    those whose policy is "block", and returns it. With a backplane, it first waits until the engine has the publication
    and it is delivered here: until then all is 0, and `accepted` False. `refused` says why the engine did not take it.
    """

    __slots__ = (
        "accepted", "blocked", "closed", "conflated", "cursor", "delivered", "dropped", "excluded", "pending", "queued",
        "refused", "waiter",
    )  # fmt: skip

    def __init__(self, cursor: str = "") -> None:
        self.cursor = cursor
        # Whether others can have it: False where a backplane has not, or not yet, or will never.
        self.accepted = True
        # Why the backplane's engine did not take it, "" where it did or may.
        self.refused = ""
        self.pending = False
        self.waiter: asyncio.Future[None] | None = None
        self.delivered = 0
        self.queued = 0
        self.conflated = 0
        self.dropped = 0
        self.closed = 0
        self.blocked: list[Subscriber] | None = None
        # Who does not get it, though it is subscribed: what its subscriber sends to.
        self.excluded: SubscriberConnection | None = None

    def __repr__(self) -> str:
        names = ("delivered", "queued", "conflated", "dropped", "closed")
        counts = ", ".join([f"{getattr(self, name)} {name}" for name in names if getattr(self, name)])
        return f"<rawws.PublishResult {self.cursor}: {counts or 'to nobody'}>"

    def __await__(self) -> Generator[Any, None, PublishResult]:
        return self._wait().__await__()

    async def _wait(self) -> PublishResult:
        if self.pending:
            if self.waiter is None:
                self.waiter = asyncio.get_running_loop().create_future()
            await asyncio.shield(self.waiter)
        for subscriber in self.blocked or ():
            await subscriber.wait_drained()
        self.blocked = None
        return self

    def settle(self, cursor: str, accepted: bool) -> None:
        """Store the answer of the engine, and wake the task that waits for it."""
        self.cursor = cursor
        self.accepted = accepted
        self.pending = False
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


class Subscription:
    """One subscriber's subscription to one topic.

    `recovered` is False where it asked for what it missed, and that could not be had: it must get the state anew; with
    a backplane, also where something was lost since. Awaiting it waits until it gets what is published: without a
    backplane, that is at once. It raises TopicError ("unavailable") where the backplane cannot serve the topic: the
    subscription waits on, and begins when that is mended.
    """

    __slots__ = ("held", "log", "pending", "policy", "present", "recovered", "subscriber", "topic", "waiter", "watches")

    def __init__(self, subscriber: Subscriber, log: Log, policy: Policy) -> None:
        self.subscriber = subscriber
        self.topic = log.topic
        self.log = log
        self.policy = policy
        self.recovered = True
        # Which of what waits for the subscriber waits because of it: the numbers there, by what they are about.
        self.held: OrderedDict[Any, int] | None = None
        # Under which id it is present, if it is; whether it is told who comes and goes.
        self.present = ""
        self.watches = False
        # Whether it waits for the topic's place, and who waits for that.
        self.pending = False
        self.waiter: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<rawws.Subscription to {self.topic!r}>"

    def __await__(self) -> Generator[Any, None, Subscription]:
        return self._wait().__await__()

    async def _wait(self) -> Subscription:
        if self.pending:
            if self.waiter is None:
                self.waiter = new_answer(asyncio.get_running_loop())
            await asyncio.shield(self.waiter)
        return self

    def fail(self, error: Exception) -> None:
        """Tell those who wait that it cannot begin yet."""
        waiter, self.waiter = self.waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    def settle(self) -> None:
        """Let go of those who wait: it gets what is published from now on, or is over."""
        self.pending = False
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    @property
    def cursor(self) -> str:
        """Where the topic is now."""
        return self.log.cursor


class Subscriber:
    """A subscriber of a hub, with all its subscriptions, and what waits until it reads on; its kinds follow."""

    __slots__ = ("hub", "last", "queue", "receiver", "replayed", "size", "subscriptions", "waiters")

    def __init__(self, hub: SubscriberOwner, receiver: SubscriberConnection) -> None:
        self.hub = hub
        self.receiver = receiver
        self.subscriptions: dict[str, Subscription] = {}
        # What waits, by ascending numbers, and how many bytes of it count against the limit.
        self.queue: OrderedDict[int, QueuedPublication] | None = None
        self.last = 0
        self.size = 0
        # How many bytes of memory it was promised of what it missed, and has not been sent yet.
        self.replayed = 0
        self.waiters: list[asyncio.Future[None]] | None = None

    def __repr__(self) -> str:
        return f"<Subscriber {self.receiver!r}>"

    # -- what differs from kind to kind

    def is_slow(self) -> bool:
        """Tell whether its write buffer is over the high-water mark."""
        return self.receiver.congested

    def write(self, publication: Publication) -> None:
        """Send a publication. Raises ConnectionClosed where that is over."""
        raise NotImplementedError

    def begin(self, subscription: Subscription, cursor: str) -> None:
        """Handle the start of a subscription, at this cursor. Raises ValueError for one too many."""

    def end(self, subscription: Subscription) -> None:
        """Handle the end of a subscription."""

    def tell_place(self, subscription: Subscription, place: Notice) -> None:
        """Tell it where it is from now on, behind all that it got; whoever knows no cursors is told nothing."""
        self.deliver(subscription, place, PublishResult())

    def tell_end(self, notice: Notice) -> None:
        """Tell it that the application ended a subscription, where it speaks a client protocol."""

    # -- publications

    def deliver(self, subscription: Subscription, publication: Publication, outcome: PublishResult) -> None:
        """Send a publication, or do what the policy says where the subscriber reads too slowly."""
        try:
            if self.queue is not None or self.is_slow():
                self.hold(subscription, publication, outcome)
            else:
                self.write(publication)
                outcome.delivered += 1
        except ConnectionClosed:
            outcome.closed += 1
            self.leave()
        except Exception as error:  # noqa: BLE001 - whatever goes wrong with one subscriber, the others go on
            outcome.closed += 1
            self.fail(error)

    def hold(self, subscription: Subscription, publication: Publication, outcome: PublishResult) -> None:
        """Do what the policy says."""
        policy = subscription.policy
        kind = policy.kind
        # Of several topics of one pattern, each has keys of its own.
        key = (publication.topic, policy.key_of(publication)) if kind == CONFLATE else self.last
        # What comes later goes later: it does not take the place of the one that it replaces.
        if kind == CONFLATE and subscription.held is not None and key in subscription.held:
            self.drop(subscription, key)
            outcome.conflated += 1
        while not self.has_room(subscription, publication):
            if kind <= BLOCK:
                outcome.closed += 1
                self.leave()
                self.receiver.fail(
                    CloseCode.TRY_AGAIN_LATER, f"slow consumer: over {self.receiver.hard_limit} bytes wait to be sent"
                )
                return
            outcome.dropped += 1
            if kind == DROP_NEWEST or not subscription.held:
                return
            self.drop(subscription, next(iter(subscription.held)))
        self.keep(subscription, key, publication)
        outcome.queued += 1
        if kind == BLOCK:
            if outcome.blocked is None:
                outcome.blocked = []
            outcome.blocked.append(self)

    def has_room(self, subscription: Subscription, publication: Publication) -> bool:
        """Tell whether a publication may wait."""
        if subscription.held is not None and len(subscription.held) >= subscription.policy.limit:
            return False
        return subscription.policy.limit > 0 and self.size + publication.size <= self.receiver.hard_limit

    def keep(self, subscription: Subscription, key: Any, publication: Publication) -> None:
        """Have a publication wait behind all that waits already."""
        if subscription.held is None:
            subscription.held = OrderedDict()
        subscription.held[key] = self.last
        self.size += publication.size
        self.put(QueuedPublication(subscription, key, publication, True))

    def put(self, waiting: QueuedPublication) -> None:
        """Have something wait."""
        if self.queue is None:
            self.queue = OrderedDict()
        self.queue[self.last] = waiting
        self.last += 1

    def drop(self, subscription: Subscription, key: Any) -> None:
        """Drop what waits for a subscription under a key."""
        if self.queue is not None and subscription.held is not None:
            waiting = self.queue.pop(subscription.held.pop(key))
            self.size -= waiting.publication.size
            if not self.queue:
                self.queue = None

    def replay(self, subscription: Subscription, publications: list[Publication]) -> None:
        """Send what it missed, as fast as it reads, whatever the policy is: the history bounds it."""
        spend(sum([publication.size for publication in publications]))
        try:
            for publication in publications:
                if self.queue is not None or self.is_slow():
                    self.put(QueuedPublication(subscription, None, publication, False))
                else:
                    self.replayed -= cost(publication)
                    self.write_form(publication)
        except ConnectionClosed:
            self.leave()
        except Exception as error:  # noqa: BLE001 - as above
            self.fail(error)

    # -- what its connection calls

    def write_form(self, publication: Publication) -> None:
        """Send a publication to this one alone, and hold no more forms than allowed."""
        self.write(publication)
        if publication.cache is not None:
            publication.cache.trim()

    def drained(self) -> None:
        """Send what waited, as long as the connection takes it."""
        try:
            while self.queue is not None and not self.is_slow():
                _, waiting = self.queue.popitem(last=False)
                if not self.queue:
                    self.queue = None
                if waiting.counts and waiting.subscription.held is not None:
                    del waiting.subscription.held[waiting.key]
                    self.size -= waiting.publication.size
                elif not waiting.counts:
                    self.replayed -= cost(waiting.publication)
                self.write_form(waiting.publication)
            if self.queue is None and not self.is_slow():
                self.release()
        except ConnectionClosed:
            self.leave()
        except Exception as error:  # noqa: BLE001 - as above
            self.fail(error)

    def lost(self) -> None:
        """End all subscriptions: the connection has ended."""
        self.leave()

    # -- ends

    def leave(self) -> None:
        """End all subscriptions, and let go of those who wait."""
        self.hub.forget(self)
        self.queue = None
        self.size = self.replayed = 0
        self.release()

    def fail(self, error: Exception) -> None:
        """Close a subscriber that failed."""
        logger.error("a subscriber failed", exc_info=error)
        self.leave()
        with contextlib.suppress(Exception):
            self.receiver.fail(CloseCode.INTERNAL_ERROR, "internal error")

    def give_up(self, subscription: Subscription) -> None:
        """Let go of what waits for a subscription that is over."""
        if self.queue is not None:
            for number, waiting in list(self.queue.items()):
                if waiting.subscription is subscription:
                    del self.queue[number]
                    if waiting.counts:
                        self.size -= waiting.publication.size
                    else:
                        self.replayed -= cost(waiting.publication)
            if not self.queue:
                self.queue = None
        subscription.held = None

    # -- those who wait

    async def wait_drained(self) -> None:
        """Wait until nothing waits for this subscriber, or it is gone."""
        if self.subscriptions and (self.queue is not None or self.is_slow()):
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            if self.waiters is None:
                self.waiters = []
            self.waiters.append(waiter)
            await waiter

    def release(self) -> None:
        """Let those go on who wait."""
        waiters, self.waiters = self.waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)


class QueuedPublication:
    """A publication that waits for a subscriber; a replayed one has no key, and does not count."""

    __slots__ = ("counts", "key", "publication", "subscription")

    def __init__(self, subscription: Subscription, key: Any, publication: Publication, counts: bool) -> None:
        self.subscription = subscription
        self.key = key
        self.publication = publication
        self.counts = counts


class ObjectSubscriber(Subscriber):
    """An object of the application's that gets the publications themselves."""

    __slots__ = ("target",)

    def __init__(self, hub: SubscriberOwner, target: Receiver) -> None:
        super().__init__(hub, target)
        self.target = target

    def write(self, publication: Publication) -> None:
        """Send the publication."""
        self.target.send(publication)

    def tell_place(self, subscription: Subscription, place: Notice) -> None:
        """Tell it, if it has a method for that."""
        if place.event == FAULT:
            fault: Callable[[str], object] | None = getattr(self.target, "fault", None)
            if fault is not None:
                fault(place.topic)
            return
        move: Callable[[str, str, bool], object] | None = getattr(self.target, "move", None)
        if move is not None:
            move(place.topic, place.cursor, subscription.recovered)


class SocketSubscriber(Subscriber):
    """A WebSocket that gets the messages as they are."""

    __slots__ = ("ws",)

    def __init__(self, hub: SubscriberOwner, ws: WebSocket) -> None:
        super().__init__(hub, ws)
        self.ws = ws

    def is_slow(self) -> bool:
        """Tell whether its write buffer is over the high-water mark."""
        return self.ws.congested

    def write(self, publication: Publication) -> None:
        """Send the message."""
        self.ws.send_prepared(publication.encoded)

    def tell_place(self, subscription: Subscription, place: Notice) -> None:
        """Tell nothing: it knows no cursors."""


class ProtocolSocketSubscriber(SocketSubscriber):
    """A WebSocket that speaks a client protocol."""

    __slots__ = ("render",)

    def __init__(self, hub: SubscriberOwner, ws: WebSocket, render: Callable[[Publication], str]) -> None:
        super().__init__(hub, ws)
        self.render = render

    def write(self, publication: Publication) -> None:
        """Send what the protocol makes of it, made once for all."""
        self.ws.send_prepared(publication.form_of(self.render))

    def tell_place(self, subscription: Subscription, place: Notice) -> None:
        """Tell it, behind all that it got."""
        self.deliver(subscription, place, PublishResult())

    def tell_end(self, notice: Notice) -> None:
        """Tell it."""
        self.write_form(notice)


def event_data(publication: Publication) -> str | None:
    """Return the data of an event for those who speak no protocol: the message."""
    if isinstance(publication, Notice) and publication.present is None:
        return None
    message: str | bytes = publication.message
    return message if isinstance(message, str) else b64encode(message).decode()


class EventSubscriber(Subscriber):
    """An EventStream that gets the messages as data, or what `render` makes of them.

    The ids of its events say where it is in all its topics, of whose names the first `skip` characters are left out.
    """

    __slots__ = ("cursors", "render", "skip", "stream", "told")

    def __init__(
        self,
        hub: SubscriberOwner,
        stream: EventStream,
        render: Callable[[Publication], str | None] = event_data,
        skip: int = 0,
    ) -> None:
        super().__init__(hub, stream)
        self.skip = skip
        self.stream = stream
        self.render = render
        self.cursors: dict[str, str] = {}
        self.told = True

    def write(self, publication: Publication) -> None:
        """Send an event, made once for all that are as far in the same topics."""
        at = None
        if publication.cursor:
            self.cursors[publication.channel] = publication.cursor
            at = join_cursors(self.cursors, self.skip)
            self.told = True
        # Envelopes have the name within; there, an EventSource of before knows no other event than "message".
        name = publication.event if publication.extra and self.render is event_data else None
        self.stream.send(publication.event_of(self.render, at, name))

    def tell_place(self, subscription: Subscription, place: Notice) -> None:
        """Tell it; of a topic at fault, only whoever renders envelopes."""
        if place.event != FAULT or self.render is not event_data:
            super().tell_place(subscription, place)

    def tell_end(self, notice: Notice) -> None:
        """Tell it, if it renders envelopes."""
        if self.render is not event_data:
            self.write_form(notice)

    def begin(self, subscription: Subscription, cursor: str) -> None:
        """Say where the stream is, before anything came: a client that is cut off now must miss nothing later."""
        # Those that wait for their place have no cursor yet, and will have one.
        if not is_short({*self.subscriptions, subscription.topic}):
            raise ValueError(f"the topics are too many for the id of an event, which has {MAX_ID} bytes")
        if cursor:
            self.cursors[subscription.topic] = cursor
        if cursor and self.told:
            self.told = False
            asyncio.get_running_loop().call_soon(self.tell)

    def end(self, subscription: Subscription) -> None:
        """Leave the topic out of what follows."""
        self.cursors.pop(subscription.topic, None)

    def tell(self) -> None:
        """Send an event that is only an id, if none had one meanwhile."""
        if not self.told and self.cursors:
            self.told = True
            with contextlib.suppress(ConnectionClosed):
                self.stream.send(Event(id=join_cursors(self.cursors, self.skip)))


def fan_out(subscriptions: list[Subscription], publication: Publication, outcome: PublishResult) -> None:
    """Deliver a publication to all of a topic; the list does not change meanwhile."""
    for subscription in subscriptions:
        subscription.subscriber.deliver(subscription, publication, outcome)
