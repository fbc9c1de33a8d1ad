"""Model: connections, channels and events of all apps, whatever face they are seen by.

Laws:
1. A connection is held by one instance. What all must know of it is in the hubs, or asked of its instance.
2. A face turns what clients and servers say into calls of the gateway, and events into what its clients hear. It holds
   nothing that another instance needs.
3. Nothing is delivered to whoever it excludes, at any instance.
4. A connection is done something to for its own app alone; to any other it is as one that there never was. Its instance
   judges that, whoever asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, final

import rawws
from rawws import clock
from rawws.metrics import add_source, sum_samples

from .bodies import BodyRooms
from .control import InstanceRegistry, OnceMemory, RegistryAway
from .deliveries import GONE, ConnectionInfo, Delivery
from .events import app_of_client, excluded_from, extra_of_event, is_cached, topic_of_channel
from .figures import GATEWAY_METRICS, ConnectionCounts, FaceFigures, gateway_samples, tally
from .spelling import ConnectionId

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine, Iterable

    from rawws.metrics import Samples
    from rawws.topics import Publication, PublishResult

    from .config import GatewayConfig
    from .events import GatewayEvent

__all__ = ["Face", "Gateway", "GatewayConnection", "GatewayObserver"]

logger = logging.getLogger("rawws.gateway")

# As a hub has it.
MAX_EVENT: Final = 255
# How long a cache channel holds its last event, in seconds: that of Pusher.
CACHE_AGE: Final = 1800.0
# What instances tell each other in one piece, in bytes: the counts of 100,000 channels.
MAX_CONTROL: Final = 8 << 20
# How long an instance waits for its backplane before it serves alone, and how often it looks, in seconds; and the topic
# that it asks for.
START: Final = 5.0
LOOK: Final = 0.02
FIRST: Final = "~start"


class GatewayConnection:
    """A client's connection at this instance, and what a hub sends to; each face has a class of them.

    A hub takes it as a subscriber: `gateway.hub_of(...).subscribe(connection, topic)`.
    """

    # "Going away" (RFC 6455 section 7.4.1): what a client is told when the server ends.
    drain_code = 1001

    def __init__(self, gateway: Gateway, app: str, face: str, ws: rawws.WebSocket) -> None:
        self.gateway = gateway
        self.id = gateway.new_id()
        self.app = app
        self.face = face
        self.ws = ws
        self.figures = gateway.figures_of(app, face)
        # Who it is, once that is known, and what it is subscribed to.
        self.user = ""
        self.channels: dict[str, Any] = {}
        self.connected_at = self.active_at = time.time()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id.socket_id} of {self.app}>"

    # -- what a face overrides

    def take(self, publication: Publication) -> None:
        """Send a publication, or a notice of who came and went. Raises rawws.ConnectionClosed.

        `self.ws.send_prepared(publication.form_of(spell))` sends what `spell(publication)` returns, made once for all;
        count it in `self.figures.sent`.
        """
        raise NotImplementedError

    # -- what is done to any connection

    def write(self, message: str | bytes) -> None:
        """Send a message as it is. Raises rawws.ConnectionClosed."""
        self.figures.sent += 1
        self.ws.send(message)

    def tell_event(self, event: GatewayEvent) -> None:
        """Send an event to its client alone, in no channel. Raises rawws.ConnectionClosed and TopicError."""
        if event.name is not None:
            raise rawws.TopicError("event", "the client knows no events, allowed is data alone")
        self.write(event.data)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Begin the closing handshake."""
        self.ws.close(code, reason)

    def join(self, channel: str) -> None:
        """Subscribe to a channel, as its server asks; nothing where it is. Raises rawws.TopicError."""
        raise NotImplementedError

    def leave(self, channel: str) -> None:
        """End the subscription to a channel; nothing where there is none."""
        raise NotImplementedError

    def info(self) -> ConnectionInfo:
        """Return what is told of it."""
        address = self.ws.remote_address
        return ConnectionInfo(
            self.connected_at,
            self.active_at,
            str(address[0]) if address else "",
            self.ws.headers.get("User-Agent", "") or "",
            self.face,
            self.app,
            self.user,
            tuple(self.channels),
        )

    def active(self) -> None:
        """Remember that its client said something, and count it."""
        self.active_at = time.time()
        self.figures.received += 1

    # -- the contract of subscribers (rawws.topics.Receiver)

    @property
    def congested(self) -> bool:
        """Whether its write buffer is over the high-water mark."""
        return self.ws.congested

    @property
    def hard_limit(self) -> int:
        """How many bytes may wait for it."""
        return self.ws.hard_limit

    def follow(self, follower: Any) -> None:
        """Have a subscriber called when there is room, and at the end."""
        self.ws.follow(follower)

    def unfollow(self, follower: Any) -> None:
        """Call it no more."""
        self.ws.unfollow(follower)

    def fail(self, code: int, reason: str) -> None:
        """Close the connection."""
        self.ws.fail(code, reason)

    @final
    def send(self, publication: Publication) -> None:
        """Take what a hub has for it. Raises rawws.ConnectionClosed."""
        if excluded_from(publication) != self.id.socket_id:
            self.take(publication)


# What becomes of an opening handshake.
Admission: TypeAlias = "rawws.Response | None"


class Face(Protocol):
    """One way to speak to a gateway: its routes, and what begins and ends with the server."""

    name: str

    def routes(self) -> Iterable[rawws.Route]:
        """Return what it answers to clients: WebSockets, and the requests in their place."""

    def server_routes(self) -> Iterable[rawws.Route]:
        """Return what it answers to the servers of applications."""

    def admit(self, ws: rawws.WebSocket, request: rawws.Request) -> Admission | Awaitable[Admission]:
        """Judge an opening handshake: a response refuses it, None lets it in, or is of no path of this face."""

    def subprotocol(self, ws: rawws.WebSocket, offered: list[str]) -> str | None:
        """Choose one of the subprotocols that a client offers, None for none; asked of what it let in."""

    async def start(self) -> None:
        """Begin, in the event loop in which it will serve."""

    async def close(self) -> None:
        """End: what is queued is delivered, or counted."""


class GatewayObserver(Protocol):
    """Whoever is told of what happens at this instance: what hooks are made of. None of its methods may block."""

    def on_count(self, app: str, key: str, count: int) -> None:
        """Handle a change of how many connections this instance has for a key.

        `c:CHANNEL` are those that are subscribed to a channel, `m:CHANNEL:USER` those of a user in a presence channel,
        `u:USER` those of a user that is signed in.
        """

    def on_client_event(self, connection: GatewayConnection, channel: str, event: GatewayEvent) -> None:
        """Handle an event that a client published."""

    def on_cache_miss(self, app: str, channel: str) -> None:
        """Handle a subscription to a cache channel that holds nothing."""

    def on_subscription_count(self, app: str, channel: str, count: int) -> None:
        """Handle how many connections of all instances are subscribed to a channel now, where the app counts them."""

    def on_missed(self, app: str, user: str, event: GatewayEvent) -> None:
        """Handle an event for a user who is connected nowhere: nobody got it."""

    def on_opened(self, connection: GatewayConnection) -> None:
        """Handle a new connection."""

    def on_closed(self, connection: GatewayConnection, code: int, reason: str) -> None:
        """Handle the end of a connection."""


@final
class Gateway:
    """What all faces share, at one instance; `async with` it in the loop that serves."""

    def __init__(self, config: GatewayConfig) -> None:
        self.config = config
        self.faces: list[Face] = []
        self.connections: dict[ConnectionId, GatewayConnection] = {}
        self.held = ConnectionCounts()
        self.bodies = BodyRooms(lambda: self.config)
        # By the app and the face; and what else is counted by whatever belongs to the gateway.
        self.figures: dict[tuple[str, str], FaceFigures] = {}
        self.sources: list[Callable[[], Samples]] = []
        # By the app: how many subscriptions there are; and by the app and who did it, how many events were published.
        self.subscriptions: Counter[str] = Counter()
        self.published: Counter[tuple[str, str]] = Counter()
        self.observers: list[GatewayObserver] = []
        # By key of an observer, how many connections of this instance.
        self.counts: dict[tuple[str, str], int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # What is called with each new configuration.
        self.on_reload: list[Callable[[GatewayConfig], None]] = []
        bounds = rawws.History(count=config.history_count, age=config.history_age)
        # Each is joined to its like at other instances: the order of these three lines is part of that.
        self.main = rawws.Hub(
            history=bounds if config.history_count else None,
            namespace=app_of_client,
            # Whoever is present in a channel is told of as the application says.
            claims=False,
        )
        self.cache = rawws.Hub(history=rawws.History(count=1, age=CACHE_AGE))
        self.control = rawws.Hub(history=None, max_size=MAX_CONTROL)
        self.registry = InstanceRegistry(self.control, self._answer)
        # By the verb: what answers other instances, and what is done to a connection of this one, whoever asks.
        self.answers: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {}
        self.acts: dict[str, Callable[[GatewayConnection, dict[str, Any]], Delivery]] = {}
        self._done = OnceMemory()
        # What is to be closed: the last that began is the first to end.
        self._opened = contextlib.AsyncExitStack()
        add_source(self, GATEWAY_METRICS)

    def figures_of(self, app: str, face: str) -> FaceFigures:
        """Return what is counted of an app at a face; "" is the app of whoever names none that there is."""
        found = self.figures.get((app, face))
        if found is None:
            # A client may name any: it makes no figures of its own.
            known = app if self.config.app(app) or self.config.api(app) else ""
            found = self.figures.setdefault((known, face), FaceFigures())
        return found

    def samples(self) -> Samples:
        """Return what was counted, for `rawws.metrics`."""
        own = gateway_samples(self.figures, self.subscriptions, self.published, self.registry)
        return sum_samples([own, *(source() for source in self.sources)])

    @property
    def instance(self) -> int:
        """The number of this instance, from when it serves on."""
        return self.registry.instance

    # -- connections

    def new_id(self) -> ConnectionId:
        """Return the id of a new connection."""
        return ConnectionId.new(self.instance)

    def opened(self, connection: GatewayConnection) -> None:
        """Take a connection whose handshake is done."""
        self.connections[connection.id] = connection
        self.held.change(connection.app, 1)
        connection.figures.open += 1
        connection.figures.opened += 1
        for observer in self.observers:
            observer.on_opened(connection)

    def closed(self, connection: GatewayConnection, code: int, reason: str) -> None:
        """Forget a connection that ended; the face has had it leave its channels."""
        if self.connections.pop(connection.id, None) is not None:
            self.held.change(connection.app, -1)
            connection.figures.open -= 1
            for observer in self.observers:
                observer.on_closed(connection, code, reason)

    def of_app(self, app: str) -> int:
        """Return how many connections of an app this instance has."""
        return self.held.of(app)

    def count(self, app: str, key: str, change: int) -> int:
        """Count one connection more, or one less, for a key of an observer; return how many there are."""
        count = tally(self.counts, (app, key), change)
        if key.startswith("c:"):
            self.subscriptions[app] += change
        for observer in self.observers:
            observer.on_count(app, key, count)
        return count

    def heard(self, connection: GatewayConnection, channel: str, event: GatewayEvent) -> None:
        """Tell of an event that a client published."""
        for observer in self.observers:
            observer.on_client_event(connection, channel, event)

    def missed_cache(self, app: str, channel: str) -> None:
        """Tell of a subscription to a cache channel that holds nothing."""
        for observer in self.observers:
            observer.on_cache_miss(app, channel)

    def counted(self, app: str, channel: str, count: int) -> None:
        """Tell of how many are subscribed to a channel, at all instances."""
        for observer in self.observers:
            observer.on_subscription_count(app, channel, count)

    def missed(self, app: str, user: str, event: GatewayEvent) -> None:
        """Tell of an event for a user who is connected nowhere."""
        for observer in self.observers:
            observer.on_missed(app, user, event)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something in the background, until the gateway ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._end_task)

    def _end_task(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logger.error("the gateway failed at work in the background", exc_info=error)

    # -- to a connection, wherever it is

    async def send(
        self, ident: ConnectionId, message: str | bytes, *, once: str = "", apps: Collection[str] | None = None
    ) -> Delivery:
        """Send a message to a connection of one of these apps, by default of any.

        One with the `once` of an earlier one, within a minute, is not sent again.
        """
        if ident.instance == self.instance:
            return self.send_here(ident, message, once, apps)
        told = {"text": message} if isinstance(message, str) else {"octets": b64encode(message).decode()}
        return await self._ask(ident, "send", apps, once=once, **told)

    def send_here(
        self, ident: ConnectionId, message: str | bytes, once: str, apps: Collection[str] | None = None
    ) -> Delivery:
        """Send a message to a connection of this instance."""
        connection = self.connections.get(ident)
        if connection is not None and not is_of(connection, apps):
            return GONE
        known = self._done.status_of(once)
        if known is not None:
            return Delivery(known)
        if connection is None:
            return GONE
        if connection.congested:
            # It is told of nothing, and nothing is lost of what waits for it.
            return Delivery(429)
        try:
            connection.write(message)
        except rawws.ConnectionClosed:
            return GONE
        self._done.remember(once, 200)
        return Delivery(200)

    async def close(
        self, ident: ConnectionId, code: int = 1000, reason: str = "", *, apps: Collection[str] | None = None
    ) -> Delivery:
        """Close a connection of one of these apps, by default of any.

        Raises rawws.LocalProtocolError for a code or a reason that no Close frame has.
        """
        if ident.instance != self.instance:
            return await self._ask(ident, "close", apps, code=code, reason=reason)
        connection = self.connections.get(ident)
        if connection is None or not is_of(connection, apps):
            return GONE
        connection.close(code, reason)
        return Delivery(200)

    async def get(self, ident: ConnectionId, *, apps: Collection[str] | None = None) -> Delivery:
        """Return what is told of a connection of one of these apps, by default of any."""
        if ident.instance != self.instance:
            return await self._ask(ident, "get", apps)
        connection = self.connections.get(ident)
        return GONE if connection is None or not is_of(connection, apps) else Delivery(200, connection.info())

    async def act(self, ident: ConnectionId, verb: str, apps: Collection[str], **fields: Any) -> Delivery:
        """Do one of the `acts` to a connection of one of these apps."""
        if ident.instance != self.instance:
            return await self._ask(ident, verb, apps, **fields)
        connection = self.connections.get(ident)
        return GONE if connection is None or not is_of(connection, apps) else self.acts[verb](connection, fields)

    async def _ask(self, ident: ConnectionId, verb: str, apps: Collection[str] | None, **fields: Any) -> Delivery:
        """Have the instance that has a connection do something."""
        try:
            of = None if apps is None else sorted(apps)
            answer = await self.registry.ask(ident.instance, verb, to=ident.socket_id, of=of, **fields)
        except LookupError:
            return GONE
        except RegistryAway:
            return Delivery(503)
        info = answer.get("info")
        return Delivery(answer["status"], None if info is None else ConnectionInfo.read(info), answer.get("reason", ""))

    def _answer(self, verb: str, fields: dict[str, Any]) -> dict[str, Any]:
        """Answer what another instance asks."""
        if verb == "counts":
            return {"channels": self.own_channel_counts(fields["app"])}
        if verb == "connections":
            return {"count": self.of_app(fields["app"])}
        if verb in self.answers:
            return self.answers[verb](fields)
        ident, apps = ConnectionId.parse(fields["to"]), fields["of"]
        connection = self.connections.get(ident)
        if verb == "send":
            message = b64decode(fields["octets"]) if "octets" in fields else fields["text"]
            return {"status": self.send_here(ident, message, fields["once"], apps).status}
        if connection is None or not is_of(connection, apps):
            return {"status": GONE.status}
        if verb == "close":
            connection.close(fields["code"], fields["reason"])
            return {"status": 200}
        if verb in self.acts:
            return self.acts[verb](connection, fields)._asdict()
        return {"status": 200, "info": connection.info()}

    # -- channels

    def hub_of(self, channel: str, *, by_client: bool = False) -> rawws.Hub:
        """Return the hub that has the events of a channel: those of servers in a cache channel are in one of its own.

        Who subscribes to a cache channel does so in both; who is present, is so in `main`.
        """
        return self.cache if is_cached(channel) and not by_client else self.main

    def publish(self, app: str, channel: str, event: GatewayEvent) -> PublishResult:
        """Publish an event to a channel. Raises rawws.TopicError for what cannot be published."""
        if event.name is not None and (not event.name.isprintable() or not 0 < len(event.name.encode()) <= MAX_EVENT):
            raise rawws.TopicError("event", f"the event is {event.name[:64]!r}, allowed are 1 to 255 printable bytes")
        hub = self.hub_of(channel, by_client=event.by_client)
        self.published[app, "client" if event.by_client else "server"] += 1
        return hub.publish_payload(topic_of_channel(app, channel), event.data, extra_of_event(event))

    async def channel_counts(self, app: str) -> dict[str, int]:
        """Return how many connections are subscribed to each channel of an app that somebody is subscribed to.

        Raises RegistryAway where an instance does not answer.
        """
        counts = self.own_channel_counts(app)
        for answer in await self.registry.ask_all("counts", app=app):
            for channel, count in answer["channels"].items():
                counts[channel] = counts.get(channel, 0) + count
        return counts

    def own_channel_counts(self, app: str) -> dict[str, int]:
        """Return the same for the connections of this instance."""
        return {key[2:]: count for (of, key), count in self.counts.items() if of == app and key.startswith("c:")}

    async def connection_count(self, app: str) -> int:
        """Return how many connections an app has. Raises RegistryAway where an instance does not answer."""
        answers = await self.registry.ask_all("connections", app=app)
        counts: list[int] = [answer["count"] for answer in answers]
        return self.of_app(app) + sum(counts)

    async def users_in(self, topic: str) -> list[str]:
        """Return the users who are present in a topic of `main`."""
        found = self.main.when_ready([topic], "", lambda: list(self.main.users(topic)))
        return await found if isinstance(found, Awaitable) else found

    def cache_left(self, publication: Publication) -> int:
        """Return for how many seconds a cache channel holds an event still."""
        return max(0, round(CACHE_AGE - (clock.monotonic() - publication.at)))

    # -- configuration

    def reload(self, config: GatewayConfig) -> None:
        """Use a new configuration from now on: apps, keys, routes, hooks and limits."""
        self.config = config
        for react in self.on_reload:
            react(config)

    async def __aenter__(self) -> Gateway:
        try:
            await self._open()
        except BaseException:
            # Why it did not begin is of more interest than what that has fail behind it.
            try:
                await self._close()
            except Exception:
                logger.exception("the gateway did not begin, and could not close all that it had opened")
            raise
        return self

    async def _open(self) -> None:
        # What begins half way is closed, too.
        for hub in (self.control, self.cache, self.main):
            self._opened.push_async_callback(hub.close)
            hub.enter()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START):
                await self._reach()
        self._opened.callback(self.registry.close)
        await self.registry.start()
        for face in self.faces:
            self._opened.push_async_callback(face.close)
            await face.start()

    async def _reach(self) -> None:
        """Wait until the backplane is there: whoever came before would hear nothing of other instances."""
        for hub in (self.main, self.cache, self.control):
            ready = hub.when_ready([FIRST], "", lambda: None)
            if isinstance(ready, Awaitable):
                await ready
            while hub.degraded:  # noqa: ASYNC110 - a hub has no event for that
                await asyncio.sleep(LOOK)

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        # All of it, whatever becomes of one: of a cancellation, too.
        await self._opened.aclose()


def is_of(connection: GatewayConnection, apps: Collection[str] | None) -> bool:
    """Tell whether a connection is one of these apps, None for any."""
    return apps is None or connection.app in apps
