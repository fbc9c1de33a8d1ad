"""Run the soak: `python -m tests.soak --minutes 30`; ends with 1 where anything was wrong."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import re
import signal
import ssl
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import trustme

from rawws.net.loops import loop_factory
from tests.compiled import refuse
from tests.processes import ROOT, Process

from .load import Load, fetch
from .proxy import Proxy

# A server of some minutes has not had its worst moment yet, and the allocator keeps what that needed: memory is judged
# after a quarter of at least so many seconds, and a little more of it is no leak.
JUDGED = 600.0
SLACK = 8 << 20
SETTLE = 60.0
# The certificate is loaded again after so many samples.
RELOAD = 10


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    words = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    words.add_argument("--minutes", type=float, default=30.0, help="how long (default: %(default)g)")
    words.add_argument("--scale", type=int, default=8, help="clients of each kind (default: %(default)s)")
    words.add_argument("--seed", type=int, default=None, help="of the dice (default: another one each time)")
    words.add_argument("--samples", type=int, default=240, help="points of the picture (default: %(default)s)")
    words.add_argument("--picture", action=argparse.BooleanOptionalAction, default=True, help="draw reports/soak.png")
    return words


async def soak(process: Process, secure: int, tls: ssl.SSLContext, options: argparse.Namespace) -> dict[str, Any]:
    """Put the server under load; return the samples and what was found."""
    assert process.port is not None
    seed = random.randrange(1 << 32) if options.seed is None else options.seed
    dice = random.Random(seed)
    before = json.loads((await fetch(process.port, "/stats"))[1])
    async with (
        Proxy(("127.0.0.1", process.port), dice) as plain_proxy,
        Proxy(("127.0.0.1", secure), dice) as secure_proxy,
    ):
        load = Load(process.port, plain_proxy.port, secure_proxy.port, tls, seed)
        seconds = options.minutes * 60
        task = asyncio.create_task(load.run(options.scale, seconds))
        samples: list[dict[str, Any]] = []
        began = time.monotonic()
        while not task.done():
            await asyncio.wait([task], timeout=max(1.0, seconds / options.samples))
            samples.append(await sample(process.port, load, began))
            if len(samples) % RELOAD == 0:
                process.send_signal(signal.SIGHUP)
        await task
    after = await settled(process.port, before)
    proxied = plain_proxy.counts + secure_proxy.counts
    return {
        "seed": seed,
        "seconds": seconds,
        "faults": [*load.faults, *leaks(before, after, samples if seconds >= JUDGED else [])],
        "counts": dict(load.counts),
        "proxy": dict(proxied),
        "before": before,
        "after": after,
        "samples": samples,
    }


async def sample(port: int, load: Load, began: float) -> dict[str, Any]:
    """Look at the server, and at the round trips since the last look."""
    took, load.latencies = sorted(load.latencies) or [math.nan], []
    found: dict[str, Any] = json.loads((await fetch(port, "/stats"))[1])
    return {
        "at": time.monotonic() - began,
        "rss": found["rss"],
        "descriptors": found["descriptors"],
        "tasks": found["tasks"],
        "sockets": sum(server["sockets"] for server in found["servers"]),
        "sent": sum(server["bytes_sent"] for server in found["servers"]),
        "p50": took[len(took) // 2],
        "p99": took[len(took) * 99 // 100],
        "max": took[-1],
    }


async def settled(port: int, before: dict[str, Any]) -> dict[str, Any]:
    """Return what the server holds once its clients are gone, or as soon as it holds no more than at the beginning."""
    deadline = time.monotonic() + SETTLE
    while True:
        found: dict[str, Any] = json.loads((await fetch(port, "/stats"))[1])
        if not any(found[name] > before[name] for name in ("descriptors", "tasks")) or time.monotonic() > deadline:
            return found
        await asyncio.sleep(0.2)


def leaks(before: dict[str, Any], after: dict[str, Any], samples: list[dict[str, Any]]) -> list[str]:
    """Return what the server holds that it should not; without samples, nothing is said of its memory."""
    found = [
        f"{name}: {after[name]} at the end, {before[name]} at the beginning"
        for name in ("descriptors", "tasks")
        if after[name] > before[name]
    ]
    if after["hub"]["subscribers"]:
        found.append(f"subscribers: {after['hub']['subscribers']} at the end")
    quarter = len(samples) // 4
    if quarter:
        early = max(entry["rss"] for entry in samples[quarter : 2 * quarter])
        late = max(entry["rss"] for entry in samples[-quarter:])
        if late > early + SLACK:
            found.append(f"memory: {late >> 20} MiB in the last quarter, {early >> 20} MiB in the second")
    return found


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw memory, tasks, descriptors and latency over time."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - of the extra `bench`

    samples = result["samples"]
    minutes = [entry["at"] / 60 for entry in samples]
    figure = Figure(figsize=(10, 9), layout="constrained")
    axes = figure.subplots(4, 1, sharex=True)
    axes[0].plot(minutes, [entry["rss"] / (1 << 20) for entry in samples])
    axes[0].set_ylabel("memory (MiB)")
    axes[1].plot(minutes, [entry["descriptors"] for entry in samples], label="descriptors")
    axes[1].plot(minutes, [entry["sockets"] for entry in samples], label="connections", linestyle="--")
    axes[2].plot(minutes, [entry["tasks"] for entry in samples])
    axes[2].set_ylabel("tasks")
    for name in ("p50", "p99", "max"):
        axes[3].plot(minutes, [entry[name] * 1000 for entry in samples], label=name)
    axes[3].set_yscale("log")
    axes[3].set_ylabel("round trip (ms)")
    axes[3].set_xlabel("minutes")
    for ax in (axes[1], axes[3]):
        ax.legend(loc="upper right")
    for ax in axes[:3]:
        ax.set_ylim(bottom=0)
    figure.suptitle(f"{len(result['faults'])} faults; {result['counts'].get('echoes', 0):,} echoes compared")
    figure.savefig(path, dpi=110)


def main(arguments: list[str] | None = None) -> int:
    """Run, print and draw."""
    options = parser().parse_args(arguments)
    refuse()
    authority = trustme.CA()
    with tempfile.TemporaryDirectory() as folder:
        certificate = Path(folder) / "both.pem"
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
        tls = ssl.create_default_context()
        authority.configure_trust(tls)
        with Process([sys.executable, "-m", "tests.soak.server", certificate], listens=True) as process:
            found = re.search(r"^tls on \S+:(\d+)$", process.output, re.MULTILINE)
            assert found is not None
            with asyncio.Runner(loop_factory=loop_factory()) as runner:
                result = runner.run(soak(process, int(found[1]), tls, options))
            status = end(process)
    if status or "Traceback" in process.output:
        result["faults"].append(f"the server ended with {status} and printed:\n{process.output}")
    reports = ROOT / "reports"
    reports.mkdir(exist_ok=True)
    (reports / "soak.json").write_text(json.dumps(result, indent=1))
    if options.picture:
        draw(result, reports / "soak.png")
    show(result)
    return 1 if result["faults"] else 0


def end(process: Process) -> int | None:
    """Have the server drain; return its status, None where it goes on."""
    process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + SETTLE
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return process.poll()


def show(result: dict[str, Any]) -> None:
    """Print what was done and found."""
    samples = result["samples"]
    peak = max(entry["rss"] for entry in samples) >> 20
    print(f"{result['seconds']:g} s, seed {result['seed']}")
    for name in ("counts", "proxy"):
        print(f"{name}:", ", ".join(f"{count:,} {what}" for what, count in sorted(result[name].items())))
    print(f"memory: {result['before']['rss'] >> 20} MiB before, {peak} at most, {result['after']['rss'] >> 20} after")
    print("closes:", *(server["closes"] for server in result["after"]["servers"]))
    print("slow:", sum(server["slow"] for server in result["after"]["servers"]))
    p99 = sorted(entry["p99"] for entry in samples if not math.isnan(entry["p99"]))
    print(
        f"round trip, p99 of each sample: {p99[len(p99) // 2] * 1e3:.1f} ms in the middle, {p99[-1] * 1e3:.1f} at most"
    )
    for fault in result["faults"][:20]:
        print("FAULT:", fault)
    print(len(result["faults"]), "faults")


if __name__ == "__main__":
    sys.exit(main())
