"""`python -m fuzz`: run targets, print how much was run, and keep what was found."""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import multiprocessing.connection
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.compiled import refuse

from .board import Board
from .hunt import LOG, REPORT, Budget, alarm, child, guard, uses_atheris
from .target import load, names
from .twins import COMPILED, INTERPRETED, is_compiled

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

FINDINGS = Path(__file__).parent / "findings"


class Run(NamedTuple):
    """A target in its process."""

    name: str
    process: SpawnProcess
    folder: Path
    started: float


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="python -m fuzz",
        description="Run inputs through targets until one fails; exit with 1 if one does.",
        epilog="A failing input is saved, and the command that runs it again is printed.",
    )
    made.add_argument("target", nargs="*", default=["all"], help=f"all, or of {', '.join(names())}")
    made.add_argument("--seconds", type=float, default=0, help="for all targets together (default: 120)")
    made.add_argument("--executions", type=int, default=0, help="of each target, instead of --seconds or before")
    made.add_argument("--pure", action="store_true", help="the interpreted twin, by atheris where it is installed")
    made.add_argument("--seed", type=int, default=0, help="another one gives other inputs (default: %(default)s)")
    made.add_argument("--jobs", type=int, default=1, help="targets at the same time (default: %(default)s)")
    made.add_argument("--timeout", type=int, default=30, help="seconds an input may take (default: %(default)s)")
    made.add_argument("--replay", type=Path, metavar="FILE", help="run this one input, and print what it raises")
    made.add_argument("--findings", type=Path, default=FINDINGS, help="the folder of failing inputs")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Run a command line and return the exit status."""
    given = parser().parse_args(arguments)
    known = names()
    chosen = known if given.target == ["all"] else given.target
    if unknown := sorted(set(chosen) - set(known)):
        return fail(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    if not given.pure and not is_compiled():
        return fail("the compiled twin is not here: `make build` builds it, --pure asks for the interpreted one")
    if not given.pure:
        refuse()
    if given.replay is not None:
        return replay(chosen, given.replay, given.pure, given.timeout)
    if given.pure:
        both = [name for name in chosen if load(name).both]
        chosen = [name for name in chosen if name not in both]
        if both:
            print(f"without the compiled twin there is nothing to compare: {', '.join(both)}")
    if not given.seconds and not given.executions:
        given.seconds = 120.0
    budget = Budget(given.executions, given.seconds * given.jobs / max(1, len(chosen)), given.seed, given.timeout)
    return run_all(chosen, given.pure, budget, given.jobs, given.findings)


def fail(why: str) -> int:
    """Say why nothing was run."""
    print(f"fuzz: {why}", file=sys.stderr)
    return 2


def replay(chosen: list[str], file: Path, pure: bool, timeout: int) -> int:
    """Run one input through a target; what that raises is raised."""
    if len(chosen) != 1:
        return fail("--replay needs the one target that the file is for")
    data = file.read_bytes()
    print(f"{len(data)} bytes: {data.hex(' ')}\n{data!r}", flush=True)
    guard()
    with alarm(timeout):
        behaviour = load(chosen[0]).make(INTERPRETED if pure else COMPILED)(data)
    print(f"nothing raised; the behaviour is {behaviour!r}")
    return 0


def run_all(chosen: list[str], pure: bool, budget: Budget, jobs: int, findings: Path) -> int:
    """Run targets, some at the same time; return 1 if there was a finding."""
    began = time.monotonic()
    waiting, running = list(chosen), list[Run]()
    executions = found = 0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(start(waiting.pop(0), pure, budget, Path(folder)))
            multiprocessing.connection.wait([run.process.sentinel for run in running])
            for run in [run for run in running if not run.process.is_alive()]:
                running.remove(run)
                run.process.join()
                executions += report(run, pure)
                if run.process.exitcode:
                    found += 1
                    keep(run, pure, findings)
    seconds = time.monotonic() - began
    print(f"{executions:,} executions in {seconds:.0f} s, {executions / seconds:,.0f}/s; findings: {found}")
    return 1 if found else 0


def start(name: str, pure: bool, budget: Budget, folder: Path) -> Run:
    """Start the process of a target."""
    own = folder / name
    own.mkdir()
    process = multiprocessing.get_context("spawn").Process(target=child, args=(name, pure, budget, own))
    process.start()
    return Run(name, process, own, time.monotonic())


def report(run: Run, pure: bool) -> int:
    """Print how much was run, and return it."""
    board = Board(run.folder / "board")
    seconds = time.monotonic() - run.started
    engine = "atheris" if uses_atheris(pure) else f"{board.behaviours} behaviours"
    twin = INTERPRETED.name if pure else COMPILED.name
    rate = board.executions / seconds
    print(f"{run.name:18}{twin:12}{board.executions:>12,} executions {rate:>9,.0f}/s  {engine}", flush=True)
    return board.executions


def keep(run: Run, pure: bool, findings: Path) -> None:
    """Print what was found, and save the input."""
    data = Board(run.folder / "board").data
    findings.mkdir(parents=True, exist_ok=True)
    path = findings / f"{run.name}-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    written = run.folder / (REPORT if (run.folder / REPORT).exists() else LOG)
    print(written.read_text(encoding="utf-8", errors="replace"))
    status = run.process.exitcode or 0
    print(f"{run.name} failed" + (f", killed by signal {-status}" if status < 0 else f" with exit status {status}"))
    print(f"saved; to run it again: python -m fuzz {run.name} --replay {path}{' --pure' if pure else ''}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
