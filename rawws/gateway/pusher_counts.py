"""Pusher counts: how many are subscribed to a channel, told to those who are (`subscription_count` of an app)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Final, final

import rawws

from .control import RegistryAway
from .receivers import ControlReceiver

if TYPE_CHECKING:
    from rawws.topics import Publication

    from .model import Gateway
    from .pusher_wire import SpokenConnection

__all__ = ["SubscriptionCounts"]

TOPIC: Final = "subscription-counts"
# Of a large channel it is told only now and then, as Pusher does.
LARGE: Final = 100
INTERVAL: Final = 5.0
# Of a small one, those who come together are told of once.
GATHER: Final = 0.1


@final
class SubscriptionCounts:
    """Who of this instance is told, channel by channel; the instances tell one another the numbers."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._members: dict[tuple[str, str], set[SpokenConnection]] = {}
        self._receiver = ControlReceiver(self._take)
        self._due: dict[tuple[str, str], asyncio.TimerHandle] = {}
        self._told: dict[tuple[str, str], int] = {}

    def _take(self, publication: Publication) -> None:
        """Tell those of this instance."""
        app, channel, count = json.loads(publication.message)
        members = self._members.get((app, channel), ())
        if members:
            self._told[app, channel] = count
        for connection in tuple(members):
            with contextlib.suppress(rawws.ConnectionClosed):
                connection.tell("pusher_internal:subscription_count", {"subscription_count": count}, channel)

    # -- what the face calls

    def start(self) -> None:
        """Begin to hear the numbers."""
        self._gateway.control.subscribe(self._receiver, TOPIC)

    def close(self) -> None:
        """Tell nobody any more."""
        for timer in self._due.values():
            timer.cancel()

    def join(self, connection: SpokenConnection, channel: str) -> None:
        """Count one more."""
        self._members.setdefault((connection.app, channel), set()).add(connection)
        self._change(connection.app, channel)

    def leave(self, connection: SpokenConnection, channel: str) -> None:
        """Count one less; nothing for who was not counted."""
        members = self._members.get((connection.app, channel))
        if members is None or connection not in members:
            return
        members.discard(connection)
        if not members:
            del self._members[connection.app, channel]
        self._change(connection.app, channel)

    def _change(self, app: str, channel: str) -> None:
        key = app, channel
        if key not in self._due:
            delay = INTERVAL if self._told.get(key, 0) > LARGE else GATHER
            self._due[key] = asyncio.get_running_loop().call_later(delay, self._publish_soon, key)

    def _publish_soon(self, key: tuple[str, str]) -> None:
        del self._due[key]
        self._gateway.start(self._publish(*key))

    async def _publish(self, app: str, channel: str) -> None:
        try:
            count = (await self._gateway.channel_counts(app)).get(channel, 0)
        except RegistryAway:
            # Whoever comes or goes next has it told.
            return
        if (app, channel) not in self._members:
            self._told.pop((app, channel), None)
        if count:
            self._gateway.control.publish(TOPIC, json.dumps([app, channel, count]))
            self._gateway.counted(app, channel, count)
