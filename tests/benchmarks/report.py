"""The report: medians and ratios out of all rounds; a table, the goals and a chart."""
# mypy: disable-error-code="import-not-found"

import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from .process import SERVERS
from .scenarios import SCENARIOS

BASE: Final = "rawws"
QUIET: Final = 0.05  # of either core: more than that taken by other processes deserves a warning
COLUMNS: Final = (
    ("memory", "KiB/conn", 1024.0, 2),
    ("memory_used", "KiB used", 1024.0, 2),
    ("cpu_us", "CPU us", 1.0, 2),
    ("rate", "per s", 1.0, 0),
    ("p50_us", "p50 us", 1.0, 0),
    ("p99_us", "p99 us", 1.0, 0),
)
# scenario, server, metric, at most this times ... (scenario, server), or bytes
GOALS: Final = (
    ("echo-1", "rawws", "cpu_us", 1.12, "echo-1", "floor"),
    ("echo-1", "rawws", "cpu_us", 0.85, "echo-1", "picows"),
    ("echo-1", "rawws-coroutine", "cpu_us", 1.35, "echo-1", "floor"),
    ("echo-1", "rawws-coroutine", "cpu_us", 1.0, "echo-1", "picows"),
    ("echo-16", "rawws", "cpu_us", 1.3, "echo-16", "floor"),
    ("echo-16", "rawws", "cpu_us", 0.09, "echo-16", "picows"),
    ("echo-16", "rawws-coroutine", "cpu_us", 2.0, "echo-16", "floor"),
    ("echo-16", "rawws-coroutine", "cpu_us", 0.15, "echo-16", "picows"),
    ("echo-16", "rawws-coroutine", "cpu_us", 0.10, "echo-16", "websockets"),
    ("binary-16k", "rawws", "cpu_us", 0.65, "binary-16k", "picows"),
    ("binary-1m", "rawws", "cpu_us", 1.0, "binary-1m", "picows"),
    ("deflate", "rawws", "cpu_us", 0.6, "deflate", "websockets"),
    ("tls-1", "rawws", "cpu_us", 0.85, "tls-1", "picows"),
    ("tls-16", "rawws", "cpu_us", 0.11, "tls-16", "picows"),
    ("idle", "rawws", "memory", 1.5 * 1024, "", ""),
    ("idle", "rawws-coroutine", "memory", 2.8 * 1024, "", ""),
    ("handshake", "rawws", "cpu_us", 0.35, "handshake", "picows"),
    ("scale-1024", "rawws", "cpu_us", 0.85, "scale-1024", "limit"),
    ("echo-1", "rawws-pure", "cpu_us", 0.55, "echo-1", "websockets"),
    ("echo-16", "rawws-pure", "cpu_us", 0.25, "echo-16", "websockets"),
    ("echo-1", "uvicorn-rawws", "cpu_us", 0.55, "echo-1", "uvicorn"),
    ("echo-16", "uvicorn-rawws", "cpu_us", 0.35, "echo-16", "uvicorn"),
    ("scale-1024", "rawws", "cpu_us", 1.25, "echo-1", "rawws"),
    ("scale-8000", "rawws", "cpu_us", 1.25, "echo-1", "rawws"),
    ("scale-1024", "limit", "cpu_us", 1.25, "echo-1", "limit"),  # the kernel's and the loop's own growth
    ("scale-8000", "limit", "cpu_us", 1.25, "echo-1", "limit"),
)

Medians = dict[str, dict[str, dict[str, Any]]]


def medians(cells: Iterable[dict[str, Any]]) -> Medians:
    """Return, for each scenario and server, the median of each metric, its ratio to rawws and the spread of the CPU."""
    gathered: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for cell in cells:
        if "error" not in cell:
            gathered.setdefault(cell["scenario"], {}).setdefault(cell["server"], []).append(cell)
    result: Medians = {}
    for scenario, servers in gathered.items():
        rows = result[scenario] = {}
        for server, rounds in servers.items():
            numbers = [key for key, value in rounds[0].items() if isinstance(value, float)]
            row = rows[server] = {key: statistics.median(cell[key] for cell in rounds) for key in numbers}
            costs = [cell["cpu_us"] for cell in rounds]
            row |= {"extension": rounds[0].get("extension", ""), "spread": (max(costs) - min(costs)) / row["cpu_us"]}
        if base := dict(rows.get(BASE, {})):
            for row in rows.values():
                row |= {f"{key}_ratio": row[key] / base[key] for key, *_ in COLUMNS if base.get(key)}
    return result


def table(result: Medians) -> Iterator[str]:
    """Yield the lines of the terminal's table; a column `x` is the ratio to rawws in the same run."""
    for scenario, servers in result.items():
        columns = [column for column in COLUMNS if column[0] in next(iter(servers.values()))]
        rows = sorted(servers.items(), key=lambda item: float(item[1][columns[0][0]]))
        yield f"\n{scenario}: {SCENARIOS[scenario].title}"
        heads = "".join(f"{head:>11}{'x':>7}" for _, head, _, _ in columns)
        yield f"  {'':24}{heads}{'busy':>7}{'load us':>9}{'spread':>8}"
        for server, row in rows:
            line = f"  {server:24}"
            for key, _, unit, digits in columns:
                ratio = f"{row[f'{key}_ratio']:.2f}" if f"{key}_ratio" in row else ""
                line += f"{row[key] / unit:>11,.{digits}f}{ratio:>7}"
            load = f"{row['load_us']:.2f}" if "load_us" in row else ""
            yield f"{line}{row['busy']:>7.0%}{load:>9}{row['spread']:>8.0%}"
        for server, row in rows:
            if row["extension"]:
                yield f"  {server}: {row['extension']}; the reply is {row['reply_bytes']:.0f} bytes"
        noise = max(row.get("neighbours", 0.0) for row in servers.values())
        if noise > QUIET:
            yield f"  warning: other processes took up to {noise:.0%} of a core; the machine is not quiet"


def markdown(result: Medians) -> Iterator[str]:
    """Yield the table of docs/understand/benchmarks.md: a row for each scenario, the CPU that each server took."""
    names = [name for name in SERVERS if any(name in servers for servers in result.values())]
    yield "| | " + " | ".join(SERVERS[name].label for name in names) + " |"
    yield "|---|" + "---:|" * len(names)
    for scenario, servers in result.items():
        metric, unit, what = ("memory", 1024.0, " (KiB)") if scenario == "idle" else ("cpu_us", 1.0, "")
        costs = [servers[name][metric] / unit if name in servers else None for name in names]
        digits = 2 if min(cost for cost in costs if cost is not None) < 10 else 0
        cells = ["" if cost is None else f"{cost:.{digits}f}" for cost in costs]
        yield f"| {SCENARIOS[scenario].title}{what} | " + " | ".join(cells) + " |"


def goals(result: Medians) -> Iterator[str]:
    """Yield one line for each goal whose figures are there."""
    yield "\ngoals (of those that this run can judge)"
    for scenario, server, metric, limit, other_scenario, other in GOALS:
        figure = result.get(scenario, {}).get(server, {}).get(metric)
        against = result.get(other_scenario, {}).get(other, {}).get(metric) if other else 1.0
        if figure is not None and against:
            ratio = figure / against
            what = f"{scenario} {server} {metric}" + (f" / {other_scenario} {other}" if other else " in bytes")
            yield f"  {'met' if ratio <= limit else 'MISSED':8}{what:56}{ratio:>9,.2f}   goal {limit:,.2f}"


PANELS: Final = (
    ("echo-16", "cpu_us", 1.0, "64 B messages, 16 in flight", "µs of CPU per message"),
    ("echo-1", "cpu_us", 1.0, "64 B messages, 1 in flight", "µs of CPU per message"),
    ("handshake", "cpu_us", 1.0, "Opening handshake", "µs of CPU per connection"),
    ("idle", "memory", 1024.0, "Idle connection", "KiB of memory per connection"),
)
SHOWN: Final = (
    *("rawws", "rawws-coroutine", "rawws-pure", "floor", "limit", "uwebsockets"),
    *("picows", "socketify", "granian", "aiohttp", "uvicorn", "websockets"),
)
INK, OURS, OURS_TOO, THEIRS = "#7a8490", "#2f81f7", "#7fb2f5", "#98a1ab"  # legible on white and on near-black


def chart(result: Medians, versions: dict[str, str], stem: Path) -> list[Path]:
    """Draw the chart of the README as SVG and PNG, transparent, for light and dark pages; return the files."""
    panels = [panel for panel in PANELS if not result.get(panel[0], {}).keys().isdisjoint(SHOWN)]
    if not panels:
        return []
    import matplotlib as mpl  # noqa: PLC0415 - only who draws needs it

    mpl.use("Agg")
    mpl.rcParams.update(
        {"font.size": 9.5, "text.color": INK, "svg.hashsalt": "rawws", "svg.fonttype": "none", "hatch.linewidth": 0.6}
    )
    from matplotlib import pyplot as plt  # noqa: PLC0415

    rows = (len(panels) + 1) // 2
    figure, axes = plt.subplots(rows, 2, figsize=(11, 3.5 * rows), squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    for axis, panel in zip(axes.flat, panels, strict=False):
        bars(axis, result[panel[0]], versions, panel)
    figure.tight_layout(h_pad=2.0, w_pad=2.5)
    files = [stem.with_suffix(".svg"), stem.with_suffix(".png")]
    figure.savefig(files[0], transparent=True, metadata={"Date": None})
    figure.savefig(files[1], transparent=True, dpi=160)
    plt.close(figure)
    return files


def bars(axis: Any, servers: dict[str, dict[str, Any]], versions: dict[str, str], panel: tuple[Any, ...]) -> None:
    _, metric, unit, title, legend = panel
    shown = sorted((servers[name][metric] / unit, name) for name in SHOWN if name in servers)
    room = min(shown[-1][0], 2 * shown[-2 if len(shown) > 1 else -1][0])  # one giant must not hide the rest
    labels = [
        SERVERS[name].label.replace(name, f"{name} {versions.get(name, '')}".rstrip() if name != BASE else name)
        for _, name in shown
    ]
    axis.set_yticks(range(len(shown)), labels, color=INK)
    for place, (value, name) in enumerate(shown):
        colour = OURS if name == BASE else OURS_TOO if name.startswith(BASE) else THEIRS
        ink = {"color": OURS, "weight": "bold"} if name == BASE else {"color": INK}
        hatched = {"color": "none", "edgecolor": THEIRS, "hatch": "////"}
        limit = hatched if name in {"floor", "limit"} else {"color": colour}
        axis.barh(place, min(value, room), 0.68, **limit)
        text = f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
        axis.text(min(value, room) + room * 0.012, place, f"» {text}" if value > room else text, va="center", **ink)
        axis.get_yticklabels()[place].set(**ink)
    axis.invert_yaxis()
    axis.set_xlim(0, room * 1.12)
    axis.set_xticks([])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_title(title, loc="left", weight="bold", color=INK, pad=20, fontsize=12)
    axis.text(0, 1.03, f"{legend} (less is better)", transform=axis.transAxes, color=INK)
