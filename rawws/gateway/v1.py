"""`/v1`: the HTTP API of a gateway's own, for the servers of its apps (docs/run/gateway-api.md).

Laws:
1. Nothing is done for who is no server of the app (servers.py).
2. A request is checked whole before any of it is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import rawws
from rawws.topics.cursors import EARLIEST, cursor_of
from rawws.topics.pages import MAX_ANSWER, answer_page, check_page, page_of
from rawws.topics.payloads import serialize

from .control import RegistryAway
from .events import topic_of_channel
from .loading import app_of_api
from .pusher_rules import USER_CHANNEL, check_channel_name
from .servers import LATER, ServerFace, ServerRequests
from .v1_connections import ConnectionRequests
from .v1_requests import V1Error, event_in, page_in, publish_in

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from .config import AppConfig
    from .events import GatewayEvent
    from .idempotency import KeptAnswers
    from .model import Gateway
    from .pusher_users import Users

__all__ = ["V1Api"]


@final
class V1Api(ServerFace):
    """The endpoints, for all apps: a face without clients, at whose end `kept` ends."""

    name = "v1"

    def __init__(self, gateway: Gateway, users: Users, kept: KeptAnswers) -> None:
        self._gateway = gateway
        self._users = users
        self._kept = kept
        self._connections = ConnectionRequests(gateway, users)
        # An API of AWS is an app, too.
        self._requests = ServerRequests(gateway, kept, lambda config: (*config.apps, *map(app_of_api, config.apis)))

    def server_routes(self) -> list[rawws.Route]:
        """Return what is answered."""
        return self._requests.routes(
            {
                "GET /channels": self._channels,
                "GET /channels/{channel}": self._channel,
                "GET /channels/{channel}/members": self._members,
                "GET /channels/{channel}/history": self._history,
                "POST /publish": self._publish,
                "POST /users/{user}/send": self._send_to_user,
                **self._connections.endpoints(),
            }
        )

    async def start(self) -> None:
        """Begin."""

    async def close(self) -> None:
        """End what is under way."""
        await self._kept.close()

    # -- events

    async def _publish(self, app: AppConfig, request: rawws.HttpRequest) -> str:
        """Publish an event to a channel, or to several."""
        asked = publish_in(app, request)
        told = await self._publish_to(app, asked.channels, asked.event)
        if asked.counted:
            told["subscribers"] = await self._counted(app, asked.channels)
        return serialize(told)

    async def _counted(self, app: AppConfig, channels: list[str]) -> dict[str, int] | None:
        """Return how many are subscribed to channels, None where that is not known now.

        An error would have the server ask again, and publish again what is out already.
        """
        try:
            counts = await self._gateway.channel_counts(app.id)
        except RegistryAway:
            return None
        return {channel: counts.get(channel, 0) for channel in channels}

    async def _send_to_user(self, app: AppConfig, request: rawws.HttpRequest) -> str:
        """Send an event to the connections of a user, in the channel that is for that."""
        channel = check_channel_name(f"{USER_CHANNEL}{request.path_params['user']}")
        return serialize(await self._publish_to(app, [channel], event_in(app, request)))

    async def _publish_to(self, app: AppConfig, channels: list[str], event: GatewayEvent) -> dict[str, Any]:
        """Publish; return the cursors, and how many of this instance get it. Raises V1Error where it is lost."""
        results = {channel: self._gateway.publish(app.id, channel, event) for channel in channels}
        for result in results.values():
            if result.pending:
                await result
        refused = [each for each in results.values() if not (each.accepted or each.cursor)]
        if refused:
            reason = refused[0].refused or "too many publications wait already"
            reason = f"{len(refused)} of {len(channels)} channels did not get it: {reason}"
            raise V1Error(503, "unavailable", reason, (LATER,))
        self._users.begin_missed(app, channels, event)
        told: dict[str, Any] = {
            "cursors": {channel: each.cursor for channel, each in results.items()},
            "reached": sum(each.delivered + each.queued for each in results.values()),
        }
        if not all(each.accepted for each in results.values()):
            # The engine is away: other instances get it when it is back.
            told["waiting"] = True
        return told

    # -- channels

    async def _channels(self, app: AppConfig, request: rawws.HttpRequest) -> str:
        """List the channels that somebody is subscribed to."""
        limit, after = page_in(request)
        prefix = request.query.get("prefix", "")
        counts = await self._gateway.channel_counts(app.id)
        names = sorted(name for name in counts if name > after and name.startswith(prefix))
        told = [{"channel": name, "connections": counts[name]} for name in names[:limit]]
        return serialize({"channels": told, "more": len(names) > limit})

    async def _channel(self, app: AppConfig, request: rawws.HttpRequest) -> str:
        """Tell of one channel."""
        channel = channel_of(request)
        counts = await self._gateway.channel_counts(app.id)
        users = await self._gateway.users_in(topic_of_channel(app.id, channel))
        return serialize({"channel": channel, "connections": counts.get(channel, 0), "members": len(users)})

    async def _members(self, app: AppConfig, request: rawws.HttpRequest) -> str:
        """List who is present in a channel."""
        limit, after = page_in(request)
        topic = topic_of_channel(app.id, channel_of(request))
        await self._gateway.users_in(topic)
        users = self._gateway.main.users(topic)
        names = sorted(user for user in users if user > after)
        told = [{"user": user, "info": users[user][0].info, "connections": len(users[user])} for user in names[:limit]]
        return serialize({"members": told, "count": len(users), "more": len(names) > limit})

    async def _history(self, app: AppConfig, request: rawws.HttpRequest) -> str:
        """List what is held of a channel: the last of all, or of those before a cursor, or the first behind one."""
        channel, (limit, _) = channel_of(request), page_in(request)
        hub, topic = self._gateway.hub_of(channel), topic_of_channel(app.id, channel)
        given = (request.query.get(name, "") for name in ("since", "before"))
        since, before = (cursor_of(cursor, topic) for cursor in given)
        check_page(since, before)

        def answer() -> str:
            page = page_of(hub, topic, since, before, limit, MAX_ANSWER)
            return answer_page(self._gateway.main, page, {}).decode()

        found: str | Awaitable[str] = hub.when_ready([topic], since or before or EARLIEST, answer)
        return found if isinstance(found, str) else await found


def channel_of(request: rawws.HttpRequest) -> str:
    """Return the channel that a path names. Raises V1Error."""
    try:
        return check_channel_name(request.path_params["channel"])
    except rawws.HttpError as error:
        raise V1Error(400, "channel", error.reason) from None
