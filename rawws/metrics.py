"""Metrics: what servers and hubs count, to the text that Prometheus reads (its exposition format 0.0.4).

What is counted is read when it is asked for, and costs nothing in between. The endpoint needs prometheus-client:
`pip install 'rawws[metrics]'`.
"""

from __future__ import annotations

import platform
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol
from weakref import WeakSet

from . import _twins
from ._version import __version__
from .http.responses import Response
from .net.histogram import TIME_BOUNDS

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from prometheus_client import CollectorRegistry

    from .http.requests import HttpRequest
    from .http.serving import RunningServer, ServerFigures
    from .net.histogram import TimeFigures
    from .topics.core import HubCore

__all__ = [
    "METRICS",
    "Metric",
    "MetricSource",
    "Samples",
    "add_source",
    "endpoint",
    "exposition",
    "histogram",
    "lasting_samples",
    "samples_of",
    "series",
    "sum_samples",
]

# By the name of a metric: what follows it in each line, such as `_total{code="1000"}`, and the number.
Samples = dict[str, dict[str, float]]

# The fields of Stats: the name (a counter's ends in _total), the help, and the label of those that are counted by
# something.
GAUGES = {
    "sockets": ("rawws_sockets", "TCP connections that are open"),
    "connections": ("rawws_connections", "WebSockets that are open"),
    "streams": ("rawws_event_streams", "event streams that are open"),
    "polls": ("rawws_long_polls", "long polls that wait for their answer"),
    "http2_connections": ("rawws_http2_connections", "TCP connections that speak HTTP/2"),
    "http2_streams": ("rawws_http2_streams", "streams of HTTP/2 that are open"),
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
    "proxies_refused": ("rawws_proxies_refused", "connections without the PROXY header of a trusted proxy", ""),
    "slow": ("rawws_slow_consumers", "connections that were closed because their peer read too slowly", ""),
    "drained": ("rawws_connections_drained", "connections that a drain told to go", ""),
    "retired": ("rawws_connections_retired", "WebSockets that were closed for their age", ""),
    "aborted": ("rawws_connections_aborted", "connections that were ended without a closing handshake", ""),
}
TIMES = {
    "lag": ("rawws_loop_lag_seconds", "by how much the event loop was late, looked at once a second"),
    "round_trips": ("rawws_ping_round_trip_seconds", "from a Ping to its Pong"),
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
DELIVERIES, BUILD = "rawws_hub_deliveries", "rawws_build_info"


# In the value of a label.
ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class Metric(NamedTuple):
    """A metric: "gauge", "counter" or "histogram", what it says, and whether of several processes the highest counts.

    Each worker knows the topics and those present of all: their sum would count them several times.
    """

    kind: str
    text: str
    highest: bool = False


HIGHEST: Final = frozenset({"draining", "topics", "present", "degraded"})
METRICS: Final = {
    BUILD: Metric("gauge", "1, with what runs here", highest=True),
    **{name: Metric("gauge", text, field in HIGHEST) for field, (name, text) in GAUGES.items()},
    **{name: Metric("counter", text) for name, text, _ in COUNTERS.values()},
    **{name: Metric("histogram", text) for name, text in TIMES.values()},
    **{name: Metric("gauge", text, field in HIGHEST) for field, (name, text) in HUB_GAUGES.items()},
    **{name: Metric("counter", text) for name, text in HUB_COUNTERS.values()},
    DELIVERIES: Metric("counter", "what became of publications, once for each subscriber"),
}


class MetricSource(Protocol):
    """What counts in this process beside its servers and hubs."""

    def samples(self) -> Samples:
        """Return what it counts."""


_sources: WeakSet[MetricSource] = WeakSet()


def add_source(source: MetricSource, metrics: Mapping[str, Metric]) -> None:
    """Have what a process counts, by the names of these metrics, be among its own for as long as there is the source.

    A process that sums what its workers count needs to know the metrics, too: add them before workers are forked.
    """
    METRICS.update(metrics)
    _sources.add(source)


def endpoint(*hubs: HubCore, registry: CollectorRegistry | None = None) -> Callable[[HttpRequest], Response]:
    """Return an endpoint that answers Prometheus, for a route: what the server that is asked counts, and the hubs.

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
        if request.server is None:
            return Response(503, "another server got the request, and its figures are not known\n")
        text = generate_latest(chosen) + exposition(samples_of(request.server, hubs)).encode()
        return Response(200, text, {"Cache-Control": "no-store"}, CONTENT_TYPE_LATEST)

    return metrics


def samples_of(server: RunningServer, hubs: Iterable[HubCore] = (), figures: ServerFigures | None = None) -> Samples:
    """Return what a server counts, and the hubs together; `figures` are those of the server, if they are known."""
    counted = samples_of_figures(server.stats() if figures is None else figures)
    samples: Samples = {BUILD: {build_of(server.settings.loop): 1}, **counted}
    return sum_samples([samples, *map(samples_of_hub, hubs), *(source.samples() for source in tuple(_sources))])


def samples_of_figures(figures: ServerFigures) -> Samples:
    """Return what a server counts."""
    samples: Samples = {name: {"": int(getattr(figures, field))} for field, (name, _) in GAUGES.items()}
    for field, (name, _, label) in COUNTERS.items():
        value = getattr(figures, field)
        by_label = {f'_total{{{label}="{key}"}}': count for key, count in value.items()} if label else {"_total": value}
        samples[name] = by_label
    return samples | {name: dict(histogram(getattr(figures, field))) for field, (name, _) in TIMES.items()}


def samples_of_hub(hub: HubCore) -> Samples:
    """Return what a hub counts."""
    figures = hub.stats()
    samples: Samples = {name: {"": int(getattr(figures, field))} for field, (name, _) in HUB_GAUGES.items()}
    for field, (name, _) in HUB_COUNTERS.items():
        samples[name] = {"_total": getattr(figures, field)}
    samples[DELIVERIES] = {f'_total{{outcome="{name}"}}': getattr(figures, name) for name in OUTCOMES}
    return samples


def series(suffix: str = "", **labels: str) -> str:
    """Return what follows the name of a metric in a line: a suffix, and labels whose values are escaped."""
    inner = ",".join([f'{name}="{text.translate(ESCAPES)}"' for name, text in labels.items()])
    return f"{suffix}{{{inner}}}" if inner else suffix


def histogram(times: TimeFigures, **labels: str) -> Iterator[tuple[str, float]]:
    """Yield the lines of a histogram: each bucket has what the shorter ones have, too."""
    count = 0
    for bound, more in zip((*TIME_BOUNDS, "+Inf"), times.counts, strict=True):
        count += more
        yield series("_bucket", **labels, le=str(bound)), count
    yield series("_sum", **labels), times.total
    yield series("_count", **labels), count


def build_of(loop: asyncio.AbstractEventLoop) -> str:
    """Return what runs here, as labels."""
    labels = {
        "version": __version__,
        "twin": running_twin(),
        "python": platform.python_version(),
        "loop": type(loop).__module__.partition(".")[0],
    }
    return "{" + ",".join([f'{name}="{value}"' for name, value in labels.items()]) + "}"


@lru_cache(maxsize=1)
def running_twin() -> str:
    """Return which twin runs; to find out takes 2 ms, and it does not change."""
    return _twins.running()


def sum_samples(parts: Iterable[Samples]) -> Samples:
    """Return the sums of what several servers, hubs or processes count."""
    whole: Samples = {}
    for samples in parts:
        for name, lines in samples.items():
            known = whole.setdefault(name, {})
            highest = METRICS[name].highest
            for line, value in lines.items():
                before = known.get(line, 0)
                known[line] = max(before, value) if highest else before + value
    return whole


def lasting_samples(samples: Samples) -> Samples:
    """Return the counters and histograms alone: what was, whatever becomes of the process that counted it."""
    return {name: lines for name, lines in samples.items() if METRICS[name].kind != "gauge"}


def exposition(samples: Samples) -> str:
    """Return samples as Prometheus reads them."""
    text = []
    for name, metric in METRICS.items():
        if name in samples:
            # The format 0.0.4 has the suffix of a counter in its name.
            full = f"{name}_total" if metric.kind == "counter" else name
            text += [f"# HELP {full} {metric.text}\n", f"# TYPE {full} {metric.kind}\n"]
            text += [f"{name}{line} {value}\n" for line, value in samples[name].items()]
    return "".join(text)
