"""Own clients: who the clients of rawws.v1 are, and what they may do, by the tokens and the calls of their apps.

Laws:
1. What is done for a client is done at its own app, which the path of its request names.
2. Whoever renews is who it was: what it may do never becomes what somebody else may.
3. What neither a capability nor a call allows is refused.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, final

import rawws
from rawws.net.rate import RateLimiter
from rawws.topics import TopicError

from .events import app_of_client, is_cached
from .grants import ClientGrant, TokenVerifier
from .model import GatewayConnection
from .own_calls import ApplicationCalls
from .pusher_rules import USER_CHANNEL, check_channel_name

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .config import AppConfig
    from .jwks import KeySet
    from .model import Gateway
    from .outgoing import Outgoing

__all__ = ["OwnClients", "address_of", "check_own_channel"]

# Users of whom it is remembered how much they published; of others it is not known that they did.
MOST_RATES: Final = 10_000


@final
class OwnClients:
    """Judges clients, as the functions of a hub do. `entered(client, grant)` is told who is known now."""

    def __init__(
        self, gateway: Gateway, outgoing: Callable[[], Outgoing], entered: Callable[[Any, ClientGrant], object]
    ) -> None:
        self._gateway = gateway
        self._outgoing = outgoing
        self._calls = ApplicationCalls(outgoing)
        self._entered = entered
        self._grants: dict[Any, ClientGrant] = {}
        self._verifiers: dict[str, TokenVerifier] = {}
        self._left: list[KeySet] = []
        self._rates: OrderedDict[tuple[str, str, float], RateLimiter] = OrderedDict()
        self.load()
        gateway.on_reload.append(lambda _: self.reload())

    def load(self) -> None:
        """Use what the configuration says now."""
        known, self._verifiers = self._verifiers, {}
        for app in self._gateway.config.apps:
            if app.jwt is not None:
                found = known.get(app.id)
                # Keys that were fetched are good still.
                if found is None or found.config != app.jwt:
                    found = TokenVerifier(app.jwt, self._outgoing)
                self._verifiers[app.id] = found
        # Clients may wait for keys that nobody needs any more.
        left = [each.keys for each in known.values() if each.keys is not None and each not in self._verifiers.values()]
        self._left = [each for each in (*self._left, *left) if each.is_fetching]

    def reload(self) -> None:
        """Use what the configuration says from now on."""
        self.load()
        self.start()

    def start(self) -> None:
        """Fetch what tokens are verified by: what is wrong with that is known before clients come."""
        for each in self._verifiers.values():
            if each.keys is not None:
                each.keys.refresh()

    async def close(self) -> None:
        """End what is under way."""
        for keys in (*self._left, *(each.keys for each in self._verifiers.values())):
            if keys is not None:
                await keys.close()

    def forget(self, client: Any) -> None:
        """Forget what a client may do that is gone, or has its answer."""
        self._grants.pop(client, None)

    def app_of(self, client: Any) -> AppConfig:
        """Return the app that a client is at. Raises HttpError where it takes no clients."""
        app = self._gateway.config.app(app_of_client(client))
        if app is None or not app.speaks_rawws:
            raise rawws.HttpError(404, "there is no such app for rawws.v1")
        if not app.enabled:
            raise rawws.HttpError(403, "the app is disabled")
        return app

    # -- who it is

    def identify(self, client: Any) -> rawws.Identity | Awaitable[rawws.Identity]:
        """Return who a client is. Raises HttpError."""
        app = self.app_of(client)
        verifier = self._verifiers.get(app.id)
        if verifier is not None:
            grant = verifier.grant_of(app, client.token)
            return self._enter(client, grant) if isinstance(grant, ClientGrant) else self._enter_later(client, grant)
        return self._ask_who(app, client)

    async def _enter_later(self, client: Any, grant: Awaitable[ClientGrant]) -> rawws.Identity:
        return self._enter(client, await grant)

    async def _ask_who(self, app: AppConfig, client: Any) -> rawws.Identity:
        url = app.calls.connect if app.calls is not None else ""
        return self._enter(client, await self._calls.connect(app, url, told_of(client)))

    def _enter(self, client: Any, grant: ClientGrant) -> rawws.Identity:
        """Remember what a client may do. Raises HttpError for a renewal by somebody else."""
        before = client.identity
        if before is not None and before.user != grant.user:
            raise rawws.HttpError(401, "the token is of somebody else")
        if grant.identity.is_over():
            raise rawws.HttpError(401, "the identity has expired")
        self._grants[client] = grant
        if before is None:
            self._entered(client, grant)
        return grant.identity

    # -- what it may do

    def authorize(self, client: Any, action: str, topic: str) -> bool | Awaitable[bool]:
        """Tell whether a client may subscribe or publish. Raises TopicError."""
        app, grant, channel = self._config_of(client), self._grants.get(client), channel_of_topic(topic)
        if grant is None or action not in {"subscribe", "publish"}:
            return False
        check_own_channel(channel)
        if channel.startswith(USER_CHANNEL):
            return action == "subscribe" and channel == f"{USER_CHANNEL}{grant.user}"
        if grant.caps is not None and not grant.permits(action, channel):
            return False
        if action == "publish":
            if not app.client_events:
                raise rawws.Refused("the app takes no events of clients")
            # Who is asked may change what is said: `on_publish` asks.
            return grant.caps is not None or bool(app.calls and app.calls.publish)
        if app.calls is not None and app.calls.subscribe:
            return self._calls.subscribe(app, app.calls.subscribe, about(client, grant, channel))
        return grant.caps is not None

    def on_subscribe(self, client: Any, topic: str) -> None:
        """Refuse a channel too many, or one that is full. Raises TopicError."""
        app, hub, channel = self._config_of(client), self._gateway.main, channel_of_topic(topic)
        # Of a stream and a poll, the hub limits how many topics a request has.
        if isinstance(client, rawws.WebSocket) and hub.topics_of(client) >= app.limits.channels:
            raise TopicError("limit", f"the connection has {app.limits.channels} channels, the limit")
        if channel.startswith("presence-"):
            most, user = app.most_members(channel), client.identity.user
            if hub.user_count(topic) >= most and not hub.connections(topic, user):
                raise TopicError("limit", f"the channel {channel} has {most} members, the limit")

    def on_publish(self, client: Any, topic: str, data: Any) -> Any:
        """Return what is published of what a client says, or an awaitable of it. Raises TopicError."""
        app, grant, channel = self._config_of(client), self._grants[client], channel_of_topic(topic)
        size = len(data if isinstance(data, bytes) else text_of_data(data).encode())
        if size > app.limits.event_size:
            raise TopicError("size", f"the data has {size} bytes, limit {app.limits.event_size}")
        if not self._rate_of(app, grant.user).take():
            raise TopicError("limit", f"over {app.limits.client_events:g} publications a second, the limit")
        if app.calls is not None and app.calls.publish:
            return self._calls.publish(app, app.calls.publish, about(client, grant, channel), data)
        return data

    def _config_of(self, client: Any) -> AppConfig:
        """Return the app that a client is at. Raises Refused where it takes no clients any more."""
        try:
            return self.app_of(client)
        except rawws.HttpError as error:
            raise rawws.Refused(error.reason) from None

    def _rate_of(self, app: AppConfig, user: str) -> RateLimiter:
        """Return how fast a user may publish, by all of its connections to this instance."""
        key = app.id, user, app.limits.client_events
        rate = self._rates.get(key)
        if rate is None:
            rate = self._rates[key] = RateLimiter(app.limits.client_events, 0)
            if len(self._rates) > MOST_RATES:
                self._rates.popitem(last=False)
        self._rates.move_to_end(key)
        return rate


def channel_of_topic(topic: str) -> str:
    """Return the channel of a topic."""
    return topic.partition("/")[2]


def check_own_channel(channel: str) -> None:
    """Raise Refused for a channel that clients of rawws.v1 cannot have."""
    try:
        check_channel_name(channel)
    except rawws.HttpError as error:
        raise rawws.Refused(error.reason) from None
    if is_cached(channel):
        raise rawws.Refused("cache channels are for clients of Pusher, others have a history")


def text_of_data(data: Any) -> str:
    """Return what is said as text."""
    return data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def address_of(client: Any) -> str:
    """Return the address of a client."""
    found = client.remote_address
    return str(found[0]) if found else ""


def connection_of(client: Any) -> str:
    """Return the id of the connection of a client, "" for a request."""
    connection = client.state if isinstance(client, rawws.WebSocket) else None
    return connection.id.socket_id if isinstance(connection, GatewayConnection) else ""


def told_of(client: Any) -> dict[str, Any]:
    """Return what an application is told of a client that wants to come in."""
    headers: dict[str, str] = {}
    for name, value in client.headers.items():
        headers[name.lower()] = f"{headers[name.lower()]}, {value}" if name.lower() in headers else value
    return {
        "connection": connection_of(client),
        "address": address_of(client),
        # That of a renewal is not in the request.
        "token": client.token,
        "headers": headers,
        "query": {name: client.query.get_all(name) for name in client.query},
    }


def about(client: Any, grant: ClientGrant, channel: str) -> dict[str, Any]:
    """Return what an application is told of what a client wants to do."""
    return {"connection": connection_of(client), "user": grant.user, "channel": channel, "state": grant.state}
