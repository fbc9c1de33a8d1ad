"""Connections of `/v1`: what a server asks of the connections and the users of its app, to what is done to them.

Laws:
1. Nothing is done to a connection, or told of it, but by a server of its own app: to others it is gone.
2. A list is told in parts, each of a bounded size, which only those instances are asked for that have some of it.
"""

from __future__ import annotations

import base64
import heapq
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Final, final

import rawws
from rawws.topics.payloads import serialize

from .deliveries import ConnectionInfo, Delivery
from .events import GatewayEvent
from .pusher_rules import is_name
from .pusher_users import user_topic
from .spelling import ConnectionId
from .v1_requests import V1Error, channels_in, close_in, connection_named, event_in, page_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .config import AppConfig
    from .model import Gateway, GatewayConnection
    from .pusher_users import Users
    from .v1_requests import ServerEndpoint

__all__ = ["ConnectionRequests"]

LIST, NAMES, TELL, JOIN, LEAVE = "list", "names", "tell", "join", "leave"
# What connections say of themselves and their channels, in characters of one part of a list.
MOST_LISTED: Final = 1 << 20
# What closes a connection, where its server says nothing else: the end of what it was for (RFC 6455 section 7.4.1).
CLOSED: Final = 1000
# As identities have it.
MAX_USER: Final = 255
REASONS: Final = {
    410: "the connection is gone, or was never given",
    429: "the client reads too slowly, nothing was sent",
    503: "the instance that has the connection cannot be reached at this time",
}
WORDS: Final = {409: "refused", 410: "gone", 429: "limit", 503: "unavailable"}


@final
class ConnectionRequests:
    """The endpoints, and what they ask of other instances."""

    def __init__(self, gateway: Gateway, users: Users) -> None:
        self._gateway = gateway
        self._users = users
        gateway.answers[LIST] = self._here
        gateway.answers[NAMES] = lambda asked: {"found": self._names_here(asked)}
        gateway.acts[TELL] = tell
        gateway.acts[JOIN] = join
        gateway.acts[LEAVE] = leave

    def endpoints(self) -> dict[str, ServerEndpoint]:
        """Return what is answered, by method and path."""
        one, user = "/connections/{connection}", "/users/{user}"
        return {
            "GET /connections": self._list,
            f"GET {one}": self._get,
            f"POST {one}/send": self._send,
            f"POST {one}/disconnect": self._disconnect,
            f"POST {one}/subscribe": self._subscribe,
            f"POST {one}/unsubscribe": self._unsubscribe,
            "GET /users": self._list_users,
            f"GET {user}": self._get_user,
            f"POST {user}/disconnect": self._disconnect_user,
        }

    # -- connections

    async def _list(self, app: AppConfig, request: rawws.HttpRequest) -> str:
        """List connections, those of a user or in a channel where one is named."""
        limit, after = page_in(request)
        if after:
            after = connection_named(after).socket_id
        user, channel = (request.query.get(name, "") for name in ("user", "channel"))
        return serialize(await self._found(app.id, limit, after, user, channel))

    async def _found(self, app: str, limit: int, after: str, user: str, channel: str = "") -> dict[str, Any]:
        """Return the first connections behind one, in the order of their ids. Raises RegistryAway."""
        gateway, first = self._gateway, ConnectionId.parse(after).instance if after else 0
        told: list[dict[str, Any]] = []
        more = False
        for instance in sorted([gateway.instance, *gateway.registry.others()]):
            if instance < first or more:
                continue
            asked = {"app": app, "limit": limit - len(told), "after": after, "user": user, "channel": channel}
            try:
                own = instance == gateway.instance
                answer = self._here(asked) if own else await gateway.registry.ask(instance, LIST, **asked)
            except LookupError:
                continue
            told += [described(ident, ConnectionInfo.read(fields)) for ident, *fields in answer["found"]]
            more = answer["more"]
        return {"connections": told, "more": more}

    def _here(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Return the first connections of this instance behind one, and whether there are more."""
        after = ConnectionId.parse(asked["after"]) if asked["after"] else ConnectionId(-1, -1)
        user, channel, connections = asked["user"], asked["channel"], self._gateway.connections
        wanted = (
            ident
            for ident, each in connections.items()
            if each.app == asked["app"] and ident > after and user in {"", each.user}
            if not channel or channel in each.channels
        )
        idents = heapq.nsmallest(asked["limit"] + 1, wanted)
        found: list[list[Any]] = []
        size = 0
        for ident in idents[: asked["limit"]]:
            info = connections[ident].info()
            size += len(info.agent) + sum(map(len, info.channels))
            if found and size > MOST_LISTED:
                return {"found": found, "more": True}
            found.append([ident.socket_id, *info[:-1], list(info.channels)])
        return {"found": found, "more": len(idents) > len(found)}

    async def _get(self, app: AppConfig, request: rawws.HttpRequest) -> str:
        """Tell of a connection."""
        ident = named(request)
        done = checked(await self._gateway.get(ident, apps=[app.id]))
        assert done.info is not None  # noqa: S101 - that of a status of 200
        return serialize(described(ident.socket_id, done.info))

    async def _send(self, app: AppConfig, request: rawws.HttpRequest) -> str:
        """Send an event to a connection alone."""
        ident, event = named(request), event_in(app, request)
        octets = {"base64": base64.b64encode(event.data).decode()} if isinstance(event.data, bytes) else {}
        text = {} if octets else {"text": event.data}
        fields = {"event": event.name, "json": event.is_json, **octets, **text}
        checked(await self._gateway.act(ident, TELL, [app.id], **fields))
        return "{}"

    async def _disconnect(self, app: AppConfig, request: rawws.HttpRequest) -> str:
        """Close a connection."""
        ident, (code, reason) = named(request), close_in(request)
        checked(await self._gateway.close(ident, CLOSED if code is None else code, reason, apps=[app.id]))
        return "{}"

    async def _subscribe(self, app: AppConfig, request: rawws.HttpRequest) -> str:
        """Subscribe a connection to channels."""
        checked(await self._gateway.act(named(request), JOIN, [app.id], channels=channels_in(app, request)))
        return "{}"

    async def _unsubscribe(self, app: AppConfig, request: rawws.HttpRequest) -> str:
        """End subscriptions of a connection."""
        checked(await self._gateway.act(named(request), LEAVE, [app.id], channels=channels_in(app, request)))
        return "{}"

    # -- users

    async def _list_users(self, app: AppConfig, request: rawws.HttpRequest) -> str:
        """List the users that have connections."""
        limit, after = page_in(request)
        asked = {"app": app.id, "after": after, "limit": limit + 1}
        counts = dict(self._names_here(asked))
        for answer in await self._gateway.registry.ask_all(NAMES, **asked):
            for user, count in answer["found"]:
                counts[user] = counts.get(user, 0) + count
        told = [{"user": user, "connections": counts[user]} for user in sorted(counts)[:limit]]
        return serialize({"users": told, "more": len(counts) > limit})

    def _names_here(self, asked: dict[str, Any]) -> list[tuple[str, int]]:
        """Return the first users behind one, and how many connections of this instance each has."""
        mine = (
            (key[2:], count)
            for (app, key), count in self._gateway.counts.items()
            if app == asked["app"] and key.startswith("u:") and key[2:] > asked["after"]
        )
        return heapq.nsmallest(asked["limit"], mine)

    async def _get_user(self, app: AppConfig, request: rawws.HttpRequest) -> str:
        """Tell of the connections of a user."""
        user, (limit, after) = user_named(request), page_in(request)
        found = await self._found(app.id, limit, after and connection_named(after).socket_id, user)
        return serialize({"user": user, "count": await self._count(app.id, user), **found})

    async def _disconnect_user(self, app: AppConfig, request: rawws.HttpRequest) -> str:
        """Close all connections of a user of the app, event streams too; tell how many there were."""
        user, (code, reason) = user_named(request), close_in(request)
        count = await self._count(app.id, user)
        self._users.terminate(app.id, user, code, reason)
        return serialize({"count": count})

    async def _count(self, app: str, user: str) -> int:
        """Return how many connections and event streams a user has, at all instances. Raises TopicError."""
        control, topic = self._gateway.control, user_topic(app, user)
        found = control.when_ready([topic], "", lambda: control.connections(topic, user))
        return await found if isinstance(found, Awaitable) else found


# -- what is done to a connection of this instance, whoever asks


def tell(connection: GatewayConnection, fields: dict[str, Any]) -> Delivery:
    """Send an event to a connection alone."""
    if connection.congested:
        # It is told of nothing, and nothing is lost of what waits for it.
        return Delivery(429)
    data = base64.b64decode(fields["base64"]) if "base64" in fields else fields["text"]
    event = GatewayEvent(fields["event"], data, is_json=fields["json"])
    return attempt(lambda: connection.tell_event(event))


def join(connection: GatewayConnection, fields: dict[str, Any]) -> Delivery:
    """Subscribe a connection to channels: to those before one that cannot be, too."""
    return attempt(lambda: each_of(connection.join, fields["channels"]))


def leave(connection: GatewayConnection, fields: dict[str, Any]) -> Delivery:
    """End subscriptions of a connection."""
    return attempt(lambda: each_of(connection.leave, fields["channels"]))


def each_of(act: Callable[[str], None], channels: Iterable[str]) -> None:
    """Do something about each channel."""
    for channel in channels:
        act(channel)


def attempt(act: Callable[[], None]) -> Delivery:
    """Do something to a connection, and return what became of it."""
    try:
        act()
    except rawws.TopicError as error:
        return Delivery(429 if error.code == "limit" else 409, None, error.reason)
    except (rawws.ConnectionClosed, LookupError):
        # It is closing, or its app is gone from the file of its instance.
        return Delivery(410)
    return Delivery(200)


# -- what is asked, and told


def named(request: rawws.HttpRequest) -> ConnectionId:
    """Return the connection that a path names. Raises V1Error."""
    return connection_named(request.path_params["connection"])


def user_named(request: rawws.HttpRequest) -> str:
    """Return the user that a path names. Raises V1Error."""
    user = request.path_params["user"]
    if not is_name(user, MAX_USER):
        raise V1Error(400, "user", f"the user is {user[:64]!r}, allowed are 1 to {MAX_USER} printable characters")
    return user


def checked(done: Delivery) -> Delivery:
    """Return what became of something that was done. Raises V1Error where it was not."""
    if done.status == 200:
        return done
    later = (("Retry-After", "1"),) if done.status in {429, 503} else ()
    raise V1Error(done.status, WORDS[done.status], done.reason or REASONS[done.status], later)


def described(ident: str, info: ConnectionInfo) -> dict[str, Any]:
    """Return what is told of a connection."""
    return {
        "connection": ident,
        "face": info.face,
        "user": info.user or None,
        "channels": list(info.channels),
        "address": info.address,
        "agent": info.agent,
        "connected_at": info.connected_at,
        "active_at": info.active_at,
    }
