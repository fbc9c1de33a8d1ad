"""Figures: what a gateway counted to metrics in the words of Prometheus (docs/run/gateway.md).

Laws:
1. A label is a word of the configuration or of this program: never a channel, a user, or what a client said.
2. A number is read when it is asked for. What is counted for a message is one addition.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, TypeVar, final

from rawws.metrics import Metric, Samples, histogram, series, sum_samples

from .spelling import shown_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rawws.integrations.push import PushStats

    from .control import InstanceRegistry
    from .hooks import HookQueue, HookStats
    from .outgoing import Outgoing
    from .shared_state import SharedState

__all__ = [
    "GATEWAY_METRICS",
    "ConnectionCounts",
    "FaceFigures",
    "call_samples",
    "gateway_samples",
    "hook_samples",
    "push_samples",
    "state_samples",
    "tally",
]

Key = TypeVar("Key")

TOTAL: Final = "_total"
# The fields of FaceFigures: the name, the help, and the label of those that are counted by something.
FACE_COUNTERS: Final = {
    "opened": ("rawws_gateway_connections_opened", "connections of clients that were opened", ""),
    "received": ("rawws_gateway_messages_received", "messages that clients sent", ""),
    "sent": ("rawws_gateway_messages_sent", "messages that clients were sent", ""),
    "refused": ("rawws_gateway_connections_refused", "clients that were not let in, by status or close code", "code"),
    "requests": ("rawws_gateway_requests", "requests of servers to the HTTP API, by status", "status"),
    "asked": ("rawws_gateway_client_requests", "event streams, polls and posts of clients, by status", "status"),
}
PUSH_OUTCOMES: Final = ("sent", "gone", "refused", "expired", "dropped", "lost")
HOOK_OUTCOMES: Final = ("sent", "refused", "dropped", "expired", "lost")
GATEWAY_METRICS: Final = {
    "rawws_gateway_connections": Metric("gauge", "connections of clients that are open"),
    **{name: Metric("counter", text) for name, text, _ in FACE_COUNTERS.values()},
    "rawws_gateway_subscriptions": Metric("gauge", "subscriptions of connections to channels"),
    "rawws_gateway_published": Metric("counter", "events that were published, by a client or by a server"),
    "rawws_gateway_instances": Metric("gauge", "instances that this one knows of, itself among them", highest=True),
    "rawws_gateway_asked": Metric("counter", "what other instances were asked, and whether they answered"),
    "rawws_gateway_calls": Metric("counter", "requests to backends and hooks, by their outcome"),
    "rawws_gateway_call_seconds": Metric("histogram", "how long those took that were sent"),
    "rawws_gateway_calls_under_way": Metric("gauge", "requests to backends and hooks that are under way"),
    "rawws_gateway_breaker": Metric("gauge", "1 where a URL may be tried anew, 2 where it is left alone", highest=True),
    "rawws_gateway_hook_events": Metric("counter", "what became of the events of a hook"),
    "rawws_gateway_hook_retries": Metric("counter", "requests of a hook that will be made again"),
    "rawws_gateway_hook_waiting": Metric("gauge", "events that wait for a hook"),
    "rawws_gateway_hook_age_seconds": Metric("gauge", "for how long the oldest of them waits", highest=True),
    "rawws_gateway_hook_off": Metric("gauge", "1 for a hook that answered 410 and is told nothing", highest=True),
    "rawws_gateway_push": Metric("counter", "what became of notifications to devices"),
    "rawws_gateway_push_retries": Metric("counter", "tries of those that will be made again"),
    "rawws_gateway_push_waiting": Metric("gauge", "notifications that wait for a service"),
    "rawws_gateway_push_users": Metric("counter", "what became of users who were to be notified"),
    "rawws_gateway_push_users_waiting": Metric("gauge", "users who wait until it is looked whether they are back"),
    "rawws_gateway_state_keys": Metric("gauge", "channels, members and users of which hooks were told", highest=True),
    "rawws_gateway_state_unsettled": Metric("gauge", "those of which something is still to be told", highest=True),
    "rawws_gateway_state_behind": Metric("gauge", "1 while it is not known what hooks were told", highest=True),
}


@final
class FaceFigures:
    """What was counted of the clients and the servers of an app."""

    __slots__ = ("asked", "open", "opened", "received", "refused", "requests", "sent")

    def __init__(self) -> None:
        self.open = self.opened = 0
        # Messages.
        self.received = self.sent = 0
        # By the close code or the status, and by the status, of servers and of clients.
        self.refused: Counter[int] = Counter()
        self.requests: Counter[int] = Counter()
        self.asked: Counter[int] = Counter()

    def count_request(self, status: int) -> None:
        """Count the response to a request of a server."""
        self.requests[status] += 1

    def count_client_request(self, status: int) -> None:
        """Count the response to a request of a client."""
        self.asked[status] += 1

    def samples(self, app: str, face: str) -> Samples:
        """Return them as metrics."""
        labels = {"app": app, "face": face}
        found: Samples = {"rawws_gateway_connections": {series(**labels): self.open}}
        for field, (name, _, label) in FACE_COUNTERS.items():
            value = getattr(self, field)
            if label:
                found[name] = {series(TOTAL, **labels, **{label: str(key)}): count for key, count in value.items()}
            else:
                found[name] = {series(TOTAL, **labels): value}
        return found


@final
class ConnectionCounts:
    """How many connections an instance has, of each app and in all: what `max_connections` is about.

    They are those of all faces, and event streams.
    """

    __slots__ = ("_of_apps", "total")

    def __init__(self) -> None:
        self._of_apps: dict[str, int] = {}
        self.total = 0

    def of(self, app: str) -> int:
        """Return those of an app: it is asked at each handshake."""
        return self._of_apps.get(app, 0)

    def change(self, app: str, change: int) -> None:
        """Count one more, or one less."""
        tally(self._of_apps, app, change)
        self.total += change


def gateway_samples(
    faces: Mapping[tuple[str, str], FaceFigures],
    subscriptions: Mapping[str, int],
    published: Mapping[tuple[str, str], int],
    registry: InstanceRegistry,
) -> Samples:
    """Return what an instance counted: by the app and the face, by the app, and by the app and who published."""
    own: Samples = {
        "rawws_gateway_subscriptions": {series(app=app): count for app, count in subscriptions.items()},
        "rawws_gateway_published": {series(TOTAL, app=app, by=by): count for (app, by), count in published.items()},
        "rawws_gateway_asked": {series(TOTAL, outcome=outcome): count for outcome, count in registry.asked.items()},
    }
    if registry.instance >= 0:
        own["rawws_gateway_instances"] = {"": 1 + len(registry.others())}
    return sum_samples([own, *(figures.samples(*key) for key, figures in faces.items())])


def call_samples(outgoing: Outgoing | None) -> Samples:
    """Return what calls came to."""
    parts: list[Samples] = []
    for url, target in () if outgoing is None else outgoing.targets.items():
        shown = shown_url(url)
        parts.append(
            {
                "rawws_gateway_calls": {
                    series(TOTAL, url=shown, outcome=outcome): count for outcome, count in target.outcomes.items()
                },
                "rawws_gateway_call_seconds": dict(histogram(target.times.figures(), url=shown)),
                "rawws_gateway_calls_under_way": {series(url=shown): target.calls},
                "rawws_gateway_breaker": {series(url=shown): target.breaker.state},
            }
        )
    return sum_samples(parts)


def hook_samples(stats: dict[tuple[str, str], HookStats], queues: Iterable[HookQueue]) -> Samples:
    """Return what became of the events of hooks, by app and URL, and what waits in their queues."""
    parts: list[Samples] = []
    for (app, url), counted in stats.items():
        labels = {"app": app, "url": shown_url(url)}
        outcomes = {series(TOTAL, **labels, outcome=name): getattr(counted, name) for name in HOOK_OUTCOMES}
        retries = {series(TOTAL, **labels): float(counted.retries)}
        parts.append({"rawws_gateway_hook_events": outcomes, "rawws_gateway_hook_retries": retries})
    for queue in queues:
        line = series(app=queue.app.id, url=queue.shown_url)
        gauges: dict[str, float] = {"waiting": queue.waiting, "age_seconds": queue.age(), "off": int(queue.is_off)}
        parts.append({f"rawws_gateway_hook_{name}": {line: float(value)} for name, value in gauges.items()})
    return sum_samples(parts)


def push_samples(
    stats: Mapping[str, Mapping[str, PushStats]],
    waiting: Mapping[str, int],
    users: Mapping[tuple[str, str], int],
    users_waiting: Mapping[str, int],
) -> Samples:
    """Return what became of notifications, by app and service, what waits, what became of users, and who waits."""
    parts: list[Samples] = []
    for app, services in stats.items():
        for service, counted in services.items():
            labels = {"app": app, "service": service}
            outcomes = {series(TOTAL, **labels, outcome=name): getattr(counted, name) for name in PUSH_OUTCOMES}
            retries = {series(TOTAL, **labels): float(counted.retries)}
            parts.append({"rawws_gateway_push": outcomes, "rawws_gateway_push_retries": retries})
    gauges: Samples = {
        "rawws_gateway_push_waiting": {series(app=app): float(count) for app, count in waiting.items()},
        "rawws_gateway_push_users_waiting": {series(app=app): float(count) for app, count in users_waiting.items()},
        "rawws_gateway_push_users": {
            series(TOTAL, app=app, outcome=outcome): float(count) for (app, outcome), count in users.items()
        },
    }
    return sum_samples([gauges, *parts])


def state_samples(state: SharedState | None) -> Samples:
    """Return what is known of what hooks were told; nothing where there are no hooks."""
    if state is None:
        return {}
    gauges: dict[str, float] = {
        "keys": len(state.log.told),
        "unsettled": state.log.unsettled,
        "behind": int(not state.is_ready),
    }
    return {f"rawws_gateway_state_{name}": {"": float(value)} for name, value in gauges.items()}


def tally(counts: dict[Key, int], key: Key, change: int) -> int:
    """Change one of many counts, of which those that are 0 are not kept; return it."""
    count = counts.get(key, 0) + change
    if count:
        counts[key] = count
    else:
        counts.pop(key, None)
    return count
