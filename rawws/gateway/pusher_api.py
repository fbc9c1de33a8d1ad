"""The HTTP API of Pusher Channels: what the servers of an app ask for, signed with its secret (docs/run/gateway.md).

Sources: https://pusher.com/docs/channels/library_auth_reference/rest-api/, and what its libraries send.

Laws:
1. Who has no signature learns nothing, and nothing is done: it is over the head, so no body of a stranger is read.
2. A request is checked whole before any of it is done.
3. An answer is a JSON object, also where there is nothing to say: a library reads it.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

import rawws

from .control import RegistryAway
from .events import GatewayEvent, is_cached, topic_of_channel
from .pusher_rules import MAX_EVENT_NAME, check_body, check_channel_name, check_request, is_name, kind_of_channel
from .servers import LATER, RequestRates

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .config import AppConfig
    from .model import Gateway
    from .pusher_users import Users

__all__ = ["PusherApi"]

# How long an answer may take that other instances are asked for, or the engine of the backplane, in seconds.
PATIENCE: Final = 5.0
# And what is told of the channels of an event that is published already.
INFO_PATIENCE: Final = 2.5
SOCKET_ID: Final = re.compile(r"[0-9]{1,16}\.[0-9]{1,16}", re.ASCII)
INFOS: Final = ("user_count", "subscription_count", "cache")


class EventRequest(NamedTuple):
    """An event of a server, and the channels that it goes to."""

    channels: list[str]
    event: GatewayEvent
    infos: frozenset[str]


@final
class PusherApi:
    """The endpoints, for all apps."""

    def __init__(self, gateway: Gateway, users: Users) -> None:
        self._gateway = gateway
        self._users = users
        self._rates = RequestRates()

    def routes(self) -> list[rawws.Route]:
        """Return what is answered."""
        app = "/apps/{app}"
        terminate = "/users/{user}/terminate_connections"
        return [
            self._route(f"{app}/events", self._events, "POST"),
            self._route(f"{app}/batch_events", self._batch, "POST"),
            self._route(f"{app}/channels", self._channels),
            self._route(f"{app}/channels/{{channel}}", self._channel),
            self._route(f"{app}/channels/{{channel}}/users", self._channel_users),
            self._route(f"{app}/connections", self._connections),
            self._route(f"{app}{terminate}", self._terminate, "POST"),
            # As the library for Python has it, up to 3.3.4.
            self._route(terminate, self._terminate, "POST"),
        ]

    def _route(
        self, path: str, endpoint: Callable[[AppConfig, rawws.HttpRequest], Awaitable[Any]], method: str = "GET"
    ) -> rawws.Route:
        return rawws.Route(path, self._guarded(endpoint), [method], check=self._check)

    def _check(self, request: rawws.HttpRequest) -> rawws.Response | None:
        """Refuse a request that no server of an app signed, or that comes too early, before its body is read."""
        named = self._app_named(request)
        request.on_response = self._gateway.figures_of("" if named is None else named.id, "pusher").count_request
        try:
            app = self._app_of(request)
            self._rates.take(app)
            self._gateway.bodies.enter_server(app.id, request)
        except rawws.HttpError as error:
            return problem(error.status, error.reason, *error.headers)
        return None

    def _guarded(self, endpoint: Callable[[AppConfig, rawws.HttpRequest], Awaitable[Any]]) -> Callable[..., Any]:
        """Return an endpoint that looks at the signature first."""

        async def answer(request: rawws.HttpRequest) -> rawws.Response:
            try:
                # Again: while the body came, the app may have gone from the file.
                app = self._app_of(request)
                check_body(request)
                async with asyncio.timeout(PATIENCE):
                    found = await endpoint(app, request)
            except rawws.TopicError as error:
                return problem(error.status, error.reason)
            except rawws.HttpError as error:
                return problem(error.status, error.reason, *error.headers)
            except (TimeoutError, RegistryAway):
                return problem(503, "other instances cannot be reached at this time", LATER)
            return rawws.Response.json(found)

        return answer

    def _app_named(self, request: rawws.HttpRequest) -> AppConfig | None:
        """Return the app that a request says it is of."""
        config, ident = self._gateway.config, request.path_params.get("app")
        return config.app_of_key(request.query.get("auth_key", "")) if ident is None else config.app(ident)

    def _app_of(self, request: rawws.HttpRequest) -> AppConfig:
        """Return the app whose server asks. Raises HttpError."""
        app = self._app_named(request)
        if app is None:
            raise rawws.HttpError(404, "there is no such app")
        check_request(app, request)
        if not app.enabled:
            raise rawws.HttpError(403, "the app is disabled")
        return app

    # -- events

    async def _events(self, app: AppConfig, request: rawws.HttpRequest) -> dict[str, Any]:
        """Publish an event to channels."""
        asked = event_of(app, object_of(request.json()))
        await self._publish(app, asked)
        if not asked.infos:
            return {}
        infos = await self._infos_of_published(app, asked)
        return {"channels": dict(zip(asked.channels, infos, strict=True))}

    async def _batch(self, app: AppConfig, request: rawws.HttpRequest) -> dict[str, Any]:
        """Publish several events."""
        batch = object_of(request.json()).get("batch")
        if not isinstance(batch, list) or not 0 < len(batch) <= app.limits.batch:
            raise rawws.HttpError(400, f"batch is no list of 1 to {app.limits.batch} events")
        asked = [event_of(app, object_of(each)) for each in batch]
        for each in asked:
            await self._publish(app, each)
        if not any(each.infos for each in asked):
            return {}
        told = await asyncio.gather(*[self._infos_of_published(app, each) for each in asked])
        return {"batch": [infos[0] for infos in told]}

    async def _publish(self, app: AppConfig, asked: EventRequest) -> None:
        """Publish, and wait until the event is on its way to all instances. Raises HttpError(503) where it is not."""
        results = [self._gateway.publish(app.id, channel, asked.event) for channel in asked.channels]
        for result in results:
            if result.pending:
                await result
            if not result.accepted:
                raise rawws.HttpError(503, "the event could not be published at this time", (LATER,))
        self._users.begin_missed(app, asked.channels, asked.event)

    async def _infos_of_published(self, app: AppConfig, asked: EventRequest) -> list[dict[str, Any]]:
        """Return what is asked of the channels of an event that is out; nothing of what cannot be known now.

        An error would have the server ask again, and publish again.
        """
        try:
            async with asyncio.timeout(INFO_PATIENCE):
                return await self._infos(app, asked.channels, asked.infos)
        except (rawws.TopicError, TimeoutError, RegistryAway):
            return [{} for _ in asked.channels]

    async def _infos(self, app: AppConfig, channels: list[str], infos: frozenset[str]) -> list[dict[str, Any]]:
        """Return what is asked of channels."""
        found: list[dict[str, Any]] = [{} for _ in channels]
        if "subscription_count" in infos:
            counts = await self._gateway.channel_counts(app.id)
            for channel, told in zip(channels, found, strict=True):
                told["subscription_count"] = counts.get(channel, 0)
        if "user_count" in infos:
            for channel, told in zip(channels, found, strict=True):
                if kind_of_channel(channel).presence:
                    told["user_count"] = len(await self._members(app, channel))
        return found

    # -- channels

    async def _channels(self, app: AppConfig, request: rawws.HttpRequest) -> dict[str, Any]:
        """List the channels that somebody is subscribed to."""
        prefix, infos = request.query.get("filter_by_prefix", ""), infos_of(request.query.get("info"))
        if "user_count" in infos and not prefix.startswith("presence-"):
            raise rawws.HttpError(400, "user_count is of presence channels, needed is filter_by_prefix=presence-")
        counts = await self._gateway.channel_counts(app.id)
        names = sorted(name for name in counts if name.startswith(prefix))
        return {"channels": dict(zip(names, await self._infos(app, names, infos), strict=True))}

    async def _channel(self, app: AppConfig, request: rawws.HttpRequest) -> dict[str, Any]:
        """Tell of one channel."""
        channel = check_channel_name(request.path_params["channel"])
        infos = infos_of(request.query.get("info"))
        if "user_count" in infos and not kind_of_channel(channel).presence:
            raise rawws.HttpError(400, f"user_count is of presence channels, and {channel} is none")
        counts = await self._gateway.channel_counts(app.id)
        found: dict[str, Any] = {"occupied": counts.get(channel, 0) > 0}
        found |= (await self._infos(app, [channel], infos))[0]
        if "cache" in infos and is_cached(channel):
            found["cache"] = await self._cached(app, channel)
        return found

    async def _cached(self, app: AppConfig, channel: str) -> dict[str, Any] | None:
        """Return what a cache channel holds."""
        page = await self._gateway.cache.history(topic_of_channel(app.id, channel), limit=1)
        if not page.publications:
            return None
        last = page.publications[-1]
        return {"data": last.message, "ttl": self._gateway.cache_left(last)}

    async def _channel_users(self, app: AppConfig, request: rawws.HttpRequest) -> dict[str, Any]:
        """List the users in a presence channel."""
        channel = check_channel_name(request.path_params["channel"])
        if not kind_of_channel(channel).presence:
            raise rawws.HttpError(400, f"users are in presence channels, and {channel} is none")
        return {"users": [{"id": user} for user in await self._members(app, channel)]}

    async def _members(self, app: AppConfig, channel: str) -> list[str]:
        """Return the users in a presence channel, at all instances."""
        return await self._gateway.users_in(topic_of_channel(app.id, channel))

    async def _connections(self, app: AppConfig, request: rawws.HttpRequest) -> dict[str, Any]:
        """Count the connections of the app."""
        del request
        return {"connections": await self._gateway.connection_count(app.id)}

    async def _terminate(self, app: AppConfig, request: rawws.HttpRequest) -> dict[str, Any]:
        """Close all connections of a user."""
        user = request.path_params["user"]
        self._users.terminate(app.id, user)
        return {}


def object_of(value: object) -> dict[str, Any]:
    """Return a JSON object. Raises HttpError(400)."""
    if not isinstance(value, dict):
        raise rawws.HttpError(400, "the body, or an event of it, is no JSON object")
    return value


def infos_of(text: object) -> frozenset[str]:
    """Return what is asked of channels. Raises HttpError(400)."""
    if text is None:
        return frozenset()
    found = frozenset(filter(None, text.split(","))) if isinstance(text, str) else frozenset({"?"})
    if not found <= set(INFOS):
        raise rawws.HttpError(400, f"info is {str(text)[:64]!r}, allowed are {', '.join(INFOS)}")
    return found


def event_of(app: AppConfig, fields: dict[str, Any]) -> EventRequest:
    """Return an event that a server asks for. Raises HttpError: 400, or 413 for too much data."""
    name, data, limits = fields.get("name"), fields.get("data"), app.limits
    if not is_name(name, MAX_EVENT_NAME):
        raise rawws.HttpError(400, f"name is no text of 1 to {MAX_EVENT_NAME} characters")
    if not isinstance(data, str):
        raise rawws.HttpError(400, f"data is {type(data).__name__}, allowed is a string")
    try:
        size = len(data.encode())
    except UnicodeEncodeError:
        raise rawws.HttpError(400, "data has a lone surrogate") from None
    if size > limits.event_size:
        raise rawws.HttpError(413, f"data has {size} bytes, limit {limits.event_size}")
    # Libraries send either one or the other.
    channels = fields.get("channels")
    channels = [fields.get("channel")] if channels is None else channels
    if not isinstance(channels, list) or not 0 < len(channels) <= limits.event_channels:
        raise rawws.HttpError(400, f"channels is no list of 1 to {limits.event_channels} channels")
    names = list(dict.fromkeys(check_channel_name(each) for each in channels))
    if len(names) > 1 and any(kind_of_channel(each).encrypted for each in names):
        raise rawws.HttpError(400, "an encrypted event is for one channel: each has a key of its own")
    exclude = fields.get("socket_id") or ""
    if not isinstance(exclude, str) or (exclude and not SOCKET_ID.fullmatch(exclude)):
        raise rawws.HttpError(400, "socket_id is none, needed are two numbers and a dot between them")
    return EventRequest(names, GatewayEvent(name, data, exclude=exclude), infos_of(fields.get("info")))


def problem(status: int, reason: str, *fields: tuple[str, str]) -> rawws.Response:
    """Return an answer that says what is wrong; the libraries show it as it is."""
    return rawws.Response(status, f"{reason}\n", fields)
