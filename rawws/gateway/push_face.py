"""Push face: events that users missed to notifications on their devices (docs/run/push.md).

Laws:
1. A user is looked for again after a while: who is back by then is not pushed to. In doubt it is.
2. What is to be pushed ends in one count, here or in that of its service, also at a reload and at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, final

import rawws
from rawws.integrations.push import PushSender
from rawws.net.cancellation import end_all, finish

from .figures import push_samples
from .push_api import MOST_USERS, PushApi
from .push_devices import DevicesAway, device_store
from .push_loading import services_of
from .push_messages import notification_of_event
from .pusher_users import user_topic
from .servers import ServerFace

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

    from rawws.integrations.push import PushDevice, PushMessage, PushStats
    from rawws.metrics import Samples

    from .config import AppConfig, GatewayConfig, PushConfig
    from .events import GatewayEvent
    from .idempotency import KeptAnswers
    from .model import Gateway, GatewayConnection
    from .push_devices import DeviceStore

__all__ = ["PushFace"]

logger = logging.getLogger("rawws.gateway")

# Users who wait to be looked for again, of all apps: each has an equal part of it, so that no app takes the room of
# another; and at least so many, those of one request.
MAX_WAITING: Final = 10_000
LEAST_ROOM: Final = MOST_USERS
# Seconds for which the engine of the backplane is asked whether a user is back.
PATIENCE: Final = 5.0


class AppSender(NamedTuple):
    """What sends for an app, and what it was made of."""

    config: PushConfig
    sender: PushSender


@final
class PushFace(ServerFace):
    """The notifications of all apps: an observer of a gateway, and a face with requests of servers alone."""

    name = "push"

    def __init__(self, gateway: Gateway, kept: KeptAnswers, *, tls: ssl.SSLContext | None = None) -> None:
        self.gateway = gateway
        self.senders: dict[str, AppSender] = {}
        # By the app: what became of messages, by the services that there are and were; and what became of users.
        self.stats: dict[str, dict[str, PushStats]] = {}
        self.users: Counter[tuple[str, str]] = Counter()
        # How many users of an app wait.
        self.waiting: Counter[str] = Counter()
        self._tls = tls
        self._devices: DeviceStore | None = None
        self._serves = False
        self._closing = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending: set[asyncio.Task[None]] = set()
        gateway.observers.append(self)
        gateway.sources.append(self._samples)
        gateway.on_reload.append(self.reload)
        self._api = PushApi(gateway, self, kept)

    @property
    def devices(self) -> DeviceStore:
        """What keeps the devices: made when it is first needed."""
        if self._devices is None:
            config = self.gateway.config
            self._devices = device_store(config.backplane, config.prefix)
        return self._devices

    def server_routes(self) -> Iterable[rawws.Route]:
        """Return what servers may ask."""
        return self._api.routes()

    async def start(self) -> None:
        """Begin, in the event loop in which it will serve."""
        self._serves = True
        self._begin(self.gateway.config)

    async def close(self) -> None:
        """End: who waits is looked for now, and what waits is sent within `drain` seconds, or counted as lost."""
        self._closing.set()
        async with contextlib.AsyncExitStack() as closing:
            closing.push_async_callback(self._end_devices)
            # Each has the same time, so all end at once: that is not cut off before it began.
            closing.push_async_callback(lambda: finish(self._end_senders()))
            closing.push_async_callback(self._end_pushes)

    async def _end_pushes(self) -> None:
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.gateway.config.drain):
                    while self._tasks:
                        await asyncio.wait(self._tasks)
        finally:
            await end_all(*self._tasks)

    async def _end_senders(self) -> None:
        await asyncio.gather(*self._ending, *(each.sender.close() for each in self.senders.values()))

    async def _end_devices(self) -> None:
        if self._devices is not None:
            await self._devices.close()

    def reload(self, config: GatewayConfig) -> None:
        """Take over a new configuration; before it begins, `start` reads that."""
        if not self._serves:
            return
        for sender in self._begin(config):
            task = asyncio.get_running_loop().create_task(sender.close())
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    def check(self, app: str, device: PushDevice) -> None:
        """Raise ValueError for a device that cannot be pushed to."""
        self.senders[app].sender.check(device)

    def room(self) -> int:
        """Return how many users of one app may wait."""
        return max(LEAST_ROOM, MAX_WAITING // max(1, len(self.senders)))

    def refusal(self, app: str, count: int) -> str:
        """Return why there is no room for so many users of an app, "" where there is; they are counted as dropped."""
        waiting, room = self.waiting[app], self.room()
        if waiting + count <= room:
            return ""
        reason = f"{waiting} users of the app wait, with {count} more over {room}, the limit of one app"
        self.users[app, "dropped"] += count - 1
        self._count(app, "dropped", reason)
        return reason

    def notify(self, app: str, user: str, message: PushMessage, *, after: float | None = None) -> bool:
        """Push to the devices of a user who is connected nowhere some seconds later; tell whether there is room.

        By default that is after as long as the configuration says; below 0, the user may be connected.
        """
        known = self.senders.get(app)
        if known is None:
            self._count(app, "dropped", "push is not configured")
            return False
        if self.refusal(app, 1):
            return False
        work = self._push(app, user, message, known.config.after if after is None else after)
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        self.waiting[app] += 1
        task.add_done_callback(partial(self._end_push, app))
        return True

    # -- what happens

    def on_missed(self, app: str, user: str, event: GatewayEvent) -> None:
        """Handle an event that a user missed: it is pushed where its data says what."""
        if app not in self.senders:
            return
        try:
            message = notification_of_event(event)
        except (ValueError, TypeError) as error:
            self._count(app, "malformed", f"the notification of an event is none: {error}")
            return
        if message is not None:
            self.notify(app, user, message)

    def on_count(self, app: str, key: str, count: int) -> None:
        """Nothing of that is pushed."""

    def on_client_event(self, connection: GatewayConnection, channel: str, event: GatewayEvent) -> None:
        """Nothing either."""

    def on_cache_miss(self, app: str, channel: str) -> None:
        """Nothing either."""

    def on_subscription_count(self, app: str, channel: str, count: int) -> None:
        """Nothing either."""

    def on_opened(self, connection: GatewayConnection) -> None:
        """Nothing either."""

    def on_closed(self, connection: GatewayConnection, code: int, reason: str) -> None:
        """Nothing either."""

    # -- inside

    def _samples(self) -> Samples:
        if not self.stats:
            # No app ever had something to push by.
            return {}
        waiting = {app: each.sender.waiting for app, each in self.senders.items()}
        users = {app: self.waiting[app] for app in self.stats}
        return push_samples(self.stats, waiting, self.users, users)

    def _begin(self, config: GatewayConfig) -> list[PushSender]:
        """Make the senders that there are not yet; return those of which the configuration says something else."""
        before, self.senders = self.senders, {}
        for app in config.apps:
            if app.push is None:
                continue
            known = before.get(app.id)
            if known is not None and known.config == app.push:
                self.senders[app.id] = before.pop(app.id)
            else:
                made = AppSender(app.push, self._sender_of(app, app.push))
                made.sender.start()
                self.senders[app.id] = made
        return [each.sender for each in before.values()]

    def _sender_of(self, app: AppConfig, config: PushConfig) -> PushSender:
        async def forget(device: PushDevice) -> None:
            await self.devices.remove(app.id, device.id, device.token)

        return PushSender(
            *services_of(config),
            on_gone=forget,
            drain=self.gateway.config.drain,
            tls=self._tls,
            stats=self.stats.setdefault(app.id, {}),
        )

    async def _push(self, app: str, user: str, message: PushMessage, after: float) -> None:
        """Push to the devices of a user, if that is connected nowhere."""
        if after >= 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(after):
                    await self._closing.wait()
            if await self._is_connected(app, user):
                self.users[app, "connected"] += 1
                return
        try:
            devices = await self.devices.of_user(app, user)
        except DevicesAway as error:
            self._count(app, "unknown", str(error))
            return
        known = self.senders.get(app)
        services = [] if known is None else known.sender.services
        devices = [device for device in devices if device.service in services]
        for device in devices:
            if known is not None:
                known.sender.send(device, message)
        self.users[app, "pushed" if devices else "without_device"] += 1

    async def _is_connected(self, app: str, user: str) -> bool:
        """Tell whether a user is connected somewhere, as far as that can be known."""
        control, topic = self.gateway.control, user_topic(app, user)
        try:
            async with asyncio.timeout(PATIENCE):
                found = control.when_ready([topic], "", lambda: control.connections(topic, user))
                return bool(await found if isinstance(found, Awaitable) else found)
        except (rawws.TopicError, TimeoutError):
            return False

    def _end_push(self, app: str, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.waiting[app] -= 1
        if task.cancelled():
            self._count("", "lost", "the gateway ends, and a user who waits is not told")
        elif (error := task.exception()) is not None:
            logger.error("a push failed", exc_info=error)

    def _count(self, app: str, outcome: str, reason: str) -> None:
        self.users[app, outcome] += 1
        logger.warning("push for the app %s: %s: %s", app, outcome, reason)
