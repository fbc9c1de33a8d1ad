"""`python -m tests.benchmarks`: measure, print the table, write JSON and the chart."""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trustme

from tests.compiled import refuse

from .load import WrongReplyError
from .measure import measure
from .process import SERVERS
from .report import chart, goals, markdown, medians, table
from .scenarios import SCENARIOS

PACKAGES = ("rawws", "picows", "aiofastnet", "socketify", "granian", "aiohttp", "uvicorn", "websockets", "uvloop")
QUICK = ("echo-1", "echo-16", "handshake", "idle")


def names(known: dict[str, Any]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        chosen = list(known) if text == "all" else text.split(",")
        if unknown := [name for name in chosen if name not in known]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
        return chosen

    return parse


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description="Measure rawws and its peers side by side: CPU of the server process, latency, memory.",
        epilog="It wants a quiet machine with two cores: one for the server under test, one for the load.",
    )
    add = parser.add_argument
    add("--scenarios", type=names(SCENARIOS), metavar="A,B", help=f"default: all; of {', '.join(SCENARIOS)}")
    add(
        "--servers",
        type=names(SERVERS),
        metavar="A,B",
        help=f"default: those on uvloop; all, or of {', '.join(SERVERS)}",
    )
    add("--rounds", type=int, help="each round measures every server once (default: 3)")
    add("--seconds", type=float, help="the length of one measurement (default: 2)")
    add("--connections", type=int, default=8000, help="never open more than this (default: 8000)")
    add("--cpus", metavar="LOAD,SERVER", help="the two cores (default: the first and the last)")
    add("--quick", action="store_true", help=f"1 round of 0.5 s, at most 1,000 connections, {', '.join(QUICK)}")
    add("--output", type=Path, default=Path("reports/bench"), help="path for .json, .svg, .png (default: %(default)s)")
    add("--report", type=Path, metavar="JSON", help="measure nothing: print and draw an earlier run")
    add("--markdown", action="store_true", help="print the table of docs/understand/benchmarks.md too")
    given = parser.parse_args(words)
    given.scenarios = given.scenarios or list(QUICK if given.quick else SCENARIOS)
    given.servers = given.servers or [name for name in SERVERS if not name.endswith("-asyncio")]
    given.rounds = given.rounds or (1 if given.quick else 3)
    given.seconds = given.seconds or (0.5 if given.quick else 2.0)
    given.connections = min(given.connections, 1000 if given.quick else given.connections)
    return given


def machine(cpus: list[int]) -> dict[str, str]:
    """Return what a reader must know to repeat the run."""
    model = Path("/proc/cpuinfo").read_text().partition("model name")[2].partition("\n")[0].strip("\t :")
    core = importlib.util.find_spec("rawws.protocol.connection")
    compiled = core is not None and str(core.origin).endswith(".so")
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return {
        "processor": f"{model}, {os.cpu_count()} cores; load on {cpus[0]}, servers on {cpus[-1]}",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "rawws core": "compiled" if compiled else "INTERPRETED: run `make build` first",
    } | found


def run(given: argparse.Namespace, cpus: list[int]) -> list[dict[str, Any]]:
    """Measure: round by round, scenario by scenario, one server after the other."""
    tty = sys.stderr.isatty()
    plan = [
        (number, SCENARIOS[scenario], server)
        for number in range(given.rounds)
        for scenario in given.scenarios
        for server in given.servers
        if SERVERS[server].deflate or not SCENARIOS[scenario].deflate
        if SERVERS[server].tls or not SCENARIOS[scenario].tls
    ]
    cells: list[dict[str, Any]] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        cert = trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem
        cert.write_to_path(str(Path(name) / "cert.pem"))
        for done, (number, scenario, server) in enumerate(plan):
            minutes = (time.monotonic() - began) / max(done, 1) * (len(plan) - done) / 60
            where = f"[{done + 1}/{len(plan)}] round {number + 1}/{given.rounds}: {scenario.name} {server}"
            print(f"\r\033[K{where}, {minutes:.0f} min left" if tty else where, end="", file=sys.stderr, flush=True)
            cell: dict[str, Any] = {"round": number, "scenario": scenario.name, "server": server}
            try:
                connections = min(scenario.connections, given.connections)
                cell |= measure(server, scenario, given.seconds, connections, cpus[-1], Path(name))
            except KeyboardInterrupt:
                break
            except (WrongReplyError, OSError, RuntimeError) as error:
                cell["error"] = f"{type(error).__name__}: {error}"
            cells.append(cell)
            if not tty or "error" in cell:
                print(f" {cell.get('error') or format(cell['cpu_us'], '.2f')}", file=sys.stderr)
    print(file=sys.stderr)
    return cells


def main() -> int:
    given = arguments()
    if given.report:
        saved = json.loads(given.report.read_text())
    else:
        refuse()
        cpus = [int(cpu) for cpu in given.cpus.split(",")] if given.cpus else sorted(os.sched_getaffinity(0))
        if len(set(cpus)) < 2:
            sys.exit("two cores are needed: one for the server, one for the load")
        os.sched_setaffinity(0, {cpus[0]})
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        given.connections = min(given.connections, hard - 200)
        options = {"rounds": given.rounds, "seconds": given.seconds, "connections": given.connections}
        saved = {"machine": machine(cpus), "options": options, "cells": run(given, cpus)}
    saved["medians"] = medians(saved["cells"])
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.with_suffix(".json").write_text(json.dumps(saved, indent=1) + "\n")
    print(*(f"{title}: {value}" for title, value in (saved["machine"] | saved["options"]).items()), sep="\n")
    print(*table(saved["medians"]), *goals(saved["medians"]), sep="\n")
    if given.markdown:
        print("", *markdown(saved["medians"]), sep="\n")
    failed = sorted({(cell["scenario"], cell["server"], cell["error"]) for cell in saved["cells"] if "error" in cell})
    print(*(f"failed: {scenario} {server}: {error}" for scenario, server, error in failed), sep="\n")
    print("written:", given.output.with_suffix(".json"), *chart(saved["medians"], saved["machine"], given.output))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
