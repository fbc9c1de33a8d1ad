"""Hook dispatch: what happens at this instance, and what the state log has it tell, to the hooks of each app.

Laws:
1. What all instances know (channels, members, users) is told by one of them; what one knows alone, by that one.
2. A new configuration keeps the queue of each hook that is still there, and counts what waits for those that are not.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, final

from .figures import call_samples, hook_samples, state_samples
from .hook_log import MOST_DELIVERIES
from .hooks import HookQueue, HookStats
from .outgoing import Outgoing
from .servers import ServerFace
from .shared_state import ALONE_WAIT, SharedState
from .webhooks import HookEvent

if TYPE_CHECKING:
    from collections.abc import Iterable

    import rawws

    from .config import AppConfig, GatewayConfig, HookConfig
    from .events import GatewayEvent
    from .hook_log import DeliveryLog, HookDelivery
    from .model import Gateway, GatewayConnection
    from .state_log import Transition

__all__ = ["HookDispatch"]

logger = logging.getLogger("rawws.gateway")

# By what a key begins with, what is told when it begins and when it ends.
NAMES: Final = {
    "c": ("channel_occupied", "channel_vacated"),
    "m": ("member_added", "member_removed"),
    "u": ("user_online", "user_offline"),
}


@final
class HookDispatch(ServerFace):
    """The hooks of all apps, as an observer of a gateway; it begins and ends as a face does, and has no routes."""

    name = "hooks"

    def __init__(self, gateway: Gateway, outgoing: Outgoing | None = None) -> None:
        self.gateway = gateway
        # Made with the first queue: only who has hooks needs what it is made of.
        self.outgoing = outgoing
        # By the app and the hook; those of an app in the order of the configuration.
        self.queues: dict[tuple[str, HookConfig], HookQueue] = {}
        # By the app and the URL, also of hooks that there are no more: a counter does not fall at a reload.
        self.stats: dict[tuple[str, str], HookStats] = {}
        # By the app and the hook, as long as there is that: one that was off is shown what it answered.
        self._logs: dict[tuple[str, HookConfig], DeliveryLog] = {}
        # From its start on: only then it is known which instance this is.
        self.state: SharedState | None = None
        self._serves = False
        self._ending: set[asyncio.Task[None]] = set()
        gateway.observers.append(self)
        gateway.sources += [
            lambda: hook_samples(self.stats, self.queues.values()),
            lambda: call_samples(self.outgoing),
            lambda: state_samples(self.state),
        ]
        gateway.on_reload.append(self.reload)

    def server_routes(self) -> Iterable[rawws.Route]:
        """Return nothing: it answers nobody."""
        return ()

    async def start(self) -> None:
        """Begin, in the event loop in which it will serve."""
        self._serves = True
        self._begin(self.gateway.config)

    async def close(self) -> None:
        """End: what is queued is sent within `drain` seconds of the configuration, or counted as lost."""
        async with contextlib.AsyncExitStack() as closing:
            if self.outgoing is not None:
                closing.push_async_callback(self.outgoing.close)
            closing.push_async_callback(self._end_queues)
            if self.state is not None:
                closing.push_async_callback(self.state.close)

    async def _end_queues(self) -> None:
        drain = self.gateway.config.drain
        await asyncio.gather(*self._ending, *(queue.close(drain) for queue in self.queues.values()))

    def reload(self, config: GatewayConfig) -> None:
        """Take over a new configuration."""
        if not self._serves:
            # `start` reads the configuration.
            return
        loop = asyncio.get_running_loop()
        before, self.queues = self.queues, {}
        for key, queue in before.items():
            app = config.app(key[0])
            if app is not None and key[1] in app.hooks and not queue.is_off:
                queue.app = app
                self.queues[key] = queue
            else:
                task = loop.create_task(queue.close())
                self._ending.add(task)
                task.add_done_callback(self._ending.discard)
        self._begin(config)
        self._logs = {key: log for key, log in self._logs.items() if key in self.queues}
        # An app that has hooks now has what was not said before.
        if self.state is not None:
            self.state.replace(f"{app}/{key}" for app, key in self.gateway.counts if self._has_hooks(app))

    # -- what is asked of the hooks of an app by whoever looks into the gateway, who knows a URL as metrics show it

    def retry(self, app: str, url: str) -> dict[str, Any] | None:
        """Have a hook tried now; return how many there are at the URL, None for none."""
        found = self._at(app, url)
        for queue in found:
            logger.info("the hook %s of %s is tried now, as somebody asked for", url, app)
            queue.retry()
        return {"hooks": len(found)} if found else None

    def deliveries(self, app: str, url: str) -> dict[str, Any] | None:
        """Return the last `deliveries` of a hook, the newest first; None where there is none."""
        found = self._at(app, url)
        return {"deliveries": shown_deliveries([each for queue in found for each in queue.log])} if found else None

    async def test(self, app: str, url: str) -> dict[str, Any] | None:
        """Send a hook a test; return the `deliveries` that came of it, none while another test is under way."""
        found = self._at(app, url)
        for _ in found:
            logger.info("the hook %s of %s is sent a test, as somebody asked for", url, app)
        sent = await asyncio.gather(*[queue.test() for queue in found])
        return {"deliveries": shown_deliveries([each for each in sent if each is not None])} if found else None

    def _at(self, app: str, url: str) -> list[HookQueue]:
        """Return the queues of the hooks of an app at a URL: those that differ in its query, or in their events."""
        return [each for each in self.queues.values() if each.app.id == app and each.shown_url == url]

    # -- what happens

    def on_count(self, app: str, key: str, count: int) -> None:
        """Handle a change of how many connections this instance has for a key."""
        if self.state is not None and self._has_hooks(app):
            self.state.hold(f"{app}/{key}", count > 0)

    def on_client_event(self, connection: GatewayConnection, channel: str, event: GatewayEvent) -> None:
        """Handle an event that a client published."""
        members: dict[str, Any] = {"channel": channel, "event": event.name}
        members["data"] = event.data if isinstance(event.data, str) else event.data.decode("utf-8", "replace")
        members["socket_id"] = connection.id.socket_id
        if event.user:
            members["user_id"] = event.user
        self._tell(connection.app, "client_event", members)

    def on_cache_miss(self, app: str, channel: str) -> None:
        """Handle a subscription to a cache channel that holds nothing."""
        self._tell(app, "cache_miss", {"channel": channel})

    def on_subscription_count(self, app: str, channel: str, count: int) -> None:
        """Handle how many are subscribed to a channel now: the instance that counted them tells it."""
        self._tell(app, "subscription_count", {"channel": channel, "subscription_count": count})

    def on_missed(self, app: str, user: str, event: GatewayEvent) -> None:
        """Handle an event that a user missed: the instance that published it tells that."""
        data = event.data if isinstance(event.data, str) else event.data.decode("utf-8", "replace")
        self._tell(app, "user_missed", {"user_id": user, "event": event.name, "data": data})

    def on_opened(self, connection: GatewayConnection) -> None:
        """Handle a new connection."""
        self._tell(connection.app, "connection_opened", members_of_connection(connection))

    def on_closed(self, connection: GatewayConnection, code: int, reason: str) -> None:
        """Handle the end of a connection."""
        seconds = round(time.time() - connection.connected_at, 3)
        members = {**members_of_connection(connection), "code": code, "reason": reason, "seconds": seconds}
        self._tell(connection.app, "connection_closed", members)

    # -- inside

    def _on_transition(self, transition: Transition, cursor: str) -> None:
        app, _, key = transition.key.partition("/")
        kind, _, rest = key.partition(":")
        if kind not in NAMES:
            return
        members = {"user_id": rest} if kind == "u" else {"channel": rest}
        if kind == "m":
            channel, _, user = rest.partition(":")
            members = {"channel": channel, "user_id": user}
        self._tell(app, NAMES[kind][not transition.up], members, cursor)

    def _tell(self, app: str, name: str, members: dict[str, Any], seq: str = "") -> None:
        event: HookEvent | None = None
        for (owner, _), queue in self.queues.items():
            if owner == app:
                if event is None:
                    event = HookEvent(name, app, time.time(), members, seq)
                queue.put(event)

    def _has_hooks(self, app: str) -> bool:
        config = self.gateway.config.app(app)
        return config is not None and bool(config.hooks)

    def _begin(self, config: GatewayConfig) -> None:
        """Make the queues that there are not yet; where there are none, other instances need not be heard."""
        for app in config.apps:
            for hook in app.hooks:
                if (app.id, hook) not in self.queues:
                    self.queues[app.id, hook] = self._queue_of(app, hook)
        if self.queues and self.state is None:
            wait = 0.0 if config.backplane == "none" else ALONE_WAIT
            instance = f"{self.gateway.instance:06x}"
            self.state = SharedState(self.gateway.control, instance, self._on_transition, wait=wait)
            self.state.start()

    def _queue_of(self, app: AppConfig, hook: HookConfig) -> HookQueue:
        if self.outgoing is None:
            self.outgoing = Outgoing()
        stats = self.stats.setdefault((app.id, hook.url), HookStats())
        log = self._logs.setdefault((app.id, hook), deque(maxlen=MOST_DELIVERIES))
        queue = HookQueue(app, hook, self.outgoing, stats=stats, log=log)
        queue.start()
        return queue


def shown_deliveries(deliveries: Iterable[HookDelivery]) -> list[dict[str, Any]]:
    """Return what JSON has of deliveries, the newest first."""
    return [each.shown() for each in sorted(deliveries, key=lambda each: -each.time)[:MOST_DELIVERIES]]


def members_of_connection(connection: GatewayConnection) -> dict[str, Any]:
    """Return what is told of a connection."""
    members: dict[str, Any] = {"socket_id": connection.id.socket_id, "face": connection.face}
    if connection.user:
        members["user_id"] = connection.user
    return members
