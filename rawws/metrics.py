"""Metrics: what a server and a hub count, to the text that Prometheus reads (its exposition format 0.0.4).

Needs prometheus-client: `pip install 'rawws[metrics]'`. What is counted is read when it is asked for, and costs nothing
in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

from .http.responses import Response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client import CollectorRegistry, Metric

    from .http.requests import HttpRequest
    from .topics import Hub

__all__ = ["endpoint"]

# The fields of Stats: the name (a counter's ends in _total, which the library adds), the help, and the label of those
# that are counted by something.
GAUGES = {
    "sockets": ("rawws_sockets", "TCP connections that are open"),
    "connections": ("rawws_connections", "WebSockets that are open"),
    "draining": ("rawws_draining", "1 from the moment on that the server is told to end"),
}
COUNTERS = {
    "accepted": ("rawws_sockets_accepted", "TCP connections that were accepted", ""),
    "opened": ("rawws_connections_opened", "WebSockets that were opened", ""),
    "closes": ("rawws_connections_closed", "WebSockets that were closed, by the code that came first", "code"),
    "refusals": ("rawws_requests_refused", "requests that the server itself refused, by status", "status"),
    "responses": ("rawws_responses", "HTTP responses, by status", "status"),
    "bytes_received": ("rawws_received_bytes", "bytes that were received, inside TLS", ""),
    "bytes_sent": ("rawws_sent_bytes", "bytes that were sent, inside TLS", ""),
    "slow": ("rawws_slow_consumers", "connections that were closed because their peer read too slowly", ""),
    "drained": ("rawws_connections_drained", "connections that a drain told to go", ""),
    "retired": ("rawws_connections_retired", "WebSockets that were closed for their age", ""),
    "aborted": ("rawws_connections_aborted", "connections that were ended without a closing handshake", ""),
}
# The fields of the hub's Stats.
HUB_GAUGES = {
    "topics": ("rawws_hub_topics", "topics that there are"),
    "subscribers": ("rawws_hub_subscribers", "clients that are subscribed to something"),
    "subscriptions": ("rawws_hub_subscriptions", "subscriptions that there are"),
    "present": ("rawws_hub_present", "clients that are present, in all topics"),
    "held": ("rawws_hub_held_publications", "publications that are held for those who come back"),
    "held_bytes": ("rawws_hub_held_bytes", "bytes of memory that they take"),
    "waiting": ("rawws_hub_waiting_publications", "publications that wait for slow subscribers"),
    "degraded": ("rawws_hub_degraded", "1 while the backplane is away"),
    "unsent": ("rawws_hub_unsent_publications", "publications that wait for the backplane"),
}
HUB_COUNTERS = {
    "published": ("rawws_hub_published", "publications"),
    "lost": ("rawws_hub_lost", "publications that were given up, for the backplane did not take them"),
    "gaps": ("rawws_hub_gaps", "times that something of the backplane was found missing, and asked for"),
    "declared": ("rawws_hub_gaps_declared", "times that it could not be had"),
    "retries": ("rawws_hub_retries", "times that the backplane was tried to be reached again"),
    "faults": ("rawws_hub_faults", "times that the backplane could not serve a topic, or told what cannot be read"),
}
OUTCOMES = ("delivered", "queued", "conflated", "dropped", "closed")


def endpoint(hub: Hub | None = None, *, registry: CollectorRegistry | None = None) -> Callable[[HttpRequest], Response]:
    """Return an endpoint that answers Prometheus, for a route: what the server that is asked counts, and the hub.

    With them comes what is in `registry`, by default that of prometheus-client: the process, and what the application
    counts itself. Raises ImportError where prometheus-client is not installed.
    """
    try:
        from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest  # noqa: PLC0415 - an extra
    except ImportError:
        raise ImportError(
            "metrics need prometheus-client, which is not installed: pip install 'rawws[metrics]'"
        ) from None
    chosen = REGISTRY if registry is None else registry

    def metrics(request: HttpRequest) -> Response:
        counts: Any = Counts(request.server, hub)
        text = generate_latest(chosen) + generate_latest(counts)
        return Response(200, text, {"Cache-Control": "no-store"}, CONTENT_TYPE_LATEST)

    return metrics


@final
class Counts:
    """A collector, as prometheus-client calls what it asks for metrics, of one moment."""

    __slots__ = ("_hub", "_server")

    def __init__(self, server: Any, hub: Hub | None) -> None:
        self._server = server
        self._hub = hub

    def collect(self) -> Iterator[Metric]:
        """Yield all that is counted."""
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415 - an extra

        stats = self._server.stats()
        for field, (name, text) in GAUGES.items():
            yield GaugeMetricFamily(name, text, getattr(stats, field))
        for field, (name, text, label) in COUNTERS.items():
            value = getattr(stats, field)
            metric = CounterMetricFamily(name, text, None if label else value, [label] if label else None)
            for key, count in value.items() if label else ():
                metric.add_metric([str(key)], count)
            yield metric
        if self._hub is None:
            return
        held = self._hub.stats()
        for field, (name, text) in HUB_GAUGES.items():
            yield GaugeMetricFamily(name, text, getattr(held, field))
        for field, (name, text) in HUB_COUNTERS.items():
            yield CounterMetricFamily(name, text, getattr(held, field))
        text = "what became of publications, once for each subscriber"
        outcomes = CounterMetricFamily("rawws_hub_deliveries", text, labels=["outcome"])
        for outcome in OUTCOMES:
            outcomes.add_metric([outcome], getattr(held, outcome))
        yield outcomes
