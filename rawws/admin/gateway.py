"""Gateway: the metrics of `rawws gateway` to what is shown of its apps, its hooks and its backends.

Law: it knows a gateway by the names of its metrics alone, so that it can be asked of workers, and summed, as all else.
"""

from __future__ import annotations

import heapq
import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rawws.metrics import Samples

    from .sources import Answer

__all__ = ["GATEWAY_ROWS", "gateway_of"]

# Of each kind, so many are shown.
GATEWAY_ROWS: Final = 100
PREFIX: Final = "rawws_gateway_"
LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
ESCAPE: Final = re.compile(r"\\(.)")


class Figure(NamedTuple):
    """A number of a row: a metric without its prefix, and which outcomes of it count, None for all."""

    metric: str
    outcomes: frozenset[str] | None = None


SENT: Final = frozenset({"sent"})
NEVER_TAKEN: Final = frozenset({"refused", "dropped", "expired", "lost"})
FAILED: Final = frozenset({"5xx", "refused", "timeout", "broken", "too_large", "encoded", "open"})
# What a row is about, and its numbers; the first one sorts.
APPS: Final = {
    "connections": Figure("connections"),
    "opened": Figure("connections_opened"),
    "refused": Figure("connections_refused"),
    "received": Figure("messages_received"),
    "sent": Figure("messages_sent"),
    "requests": Figure("requests"),
}
HOOKS: Final = {
    "waiting": Figure("hook_waiting"),
    "age": Figure("hook_age_seconds"),
    "sent": Figure("hook_events", SENT),
    "lost": Figure("hook_events", NEVER_TAKEN),
    "retries": Figure("hook_retries"),
    "off": Figure("hook_off"),
}
BACKENDS: Final = {
    "breaker": Figure("breaker"),
    "failed": Figure("calls", FAILED),
    "calls": Figure("calls"),
    "under_way": Figure("calls_under_way"),
}


def gateway_of(samples: Samples) -> Answer | None:
    """Return what is shown of a gateway, None for a server that is none."""
    instances = samples.get(f"{PREFIX}instances")
    if not instances:
        return None
    return {
        "instances": max(instances.values()),
        "apps": rows_of(samples, ("app", "face"), APPS),
        "hooks": rows_of(samples, ("app", "url"), HOOKS),
        "backends": rows_of(samples, ("url",), BACKENDS),
    }


def rows_of(samples: Samples, keys: Sequence[str], figures: Mapping[str, Figure]) -> list[Answer]:
    """Return a row for each combination of labels, the largest by the first figure first."""
    found: dict[tuple[str, ...], Answer] = {}
    for name, figure in figures.items():
        for line, value in samples.get(f"{PREFIX}{figure.metric}", {}).items():
            labels = labels_of(line)
            key = tuple([labels.get(each, "") for each in keys])
            row = found.setdefault(key, {**dict(zip(keys, key, strict=True)), **dict.fromkeys(figures, 0)})
            if figure.outcomes is None or labels.get("outcome") in figure.outcomes:
                row[name] += value
    first = next(iter(figures))
    return heapq.nsmallest(GATEWAY_ROWS, found.values(), key=lambda row: (-row[first], [row[each] for each in keys]))


def labels_of(line: str) -> dict[str, str]:
    """Return the labels of a line of a metric, such as `_total{app="3"}`: the other way of `rawws.metrics.series`."""
    return {name: ESCAPE.sub(unescaped, text) for name, text in LABEL.findall(line)}


def unescaped(escape: re.Match[str]) -> str:
    """Return the character that an escape stands for."""
    return "\n" if escape[1] == "n" else escape[1]
