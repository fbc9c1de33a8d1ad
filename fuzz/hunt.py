"""Hunt: a target to the first input that it fails on, by mutations of our own or by atheris; in a process of its own.

`mutate` keeps inputs that show a new behaviour; `cover` hands over to atheris, which keeps those that reach a new
branch of the interpreted twin. Both leave the input that is being run on the board, so that it is there after a crash.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib.util
import os
import resource
import signal
import sys
import time
import traceback
from typing import TYPE_CHECKING, NamedTuple

from .board import Board
from .mutator import Mutator
from .target import Target, load
from .twins import COMPILED, INTERPRETED, PACKAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["LOG", "REPORT", "Budget", "alarm", "child", "failure", "guard", "minimise", "mutate", "uses_atheris"]

# Files in the folder of a process: what it writes to stderr, such as the report of a sanitiser, and what it found.
LOG, REPORT = "log", "report"
# Between two looks at the clock, the memory and the alarm.
BATCH = 256
# What the process of a target may grow by, in KiB: inputs that are kept, and behaviours.
MAX_GROWTH = 131072
# How often a failing input is tried with something less.
MAX_TRIES = 4000


class Budget(NamedTuple):
    """When to stop: after so many executions or seconds, 0 for no limit, or at an input that takes `timeout` seconds.

    `number` is what the mutations are drawn from.
    """

    executions: int
    seconds: float
    number: int
    timeout: int = 30


def uses_atheris(pure: bool) -> bool:
    """Tell whether atheris is installed, and of use: the compiled twin has no branches that it could see."""
    return pure and importlib.util.find_spec("atheris") is not None


def guard() -> None:
    """Have a crash say where it is, and so the alarm, which ends this process."""
    faulthandler.enable()
    faulthandler.register(signal.SIGALRM, chain=True)


@contextlib.contextmanager
def alarm(seconds: int) -> Iterator[None]:
    """End this process by SIGALRM where the block takes longer, and only then: whoever called may go on after it."""
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def child(name: str, pure: bool, budget: Budget, folder: Path) -> None:
    """Hunt, and end this process with status 1 where there is a finding."""
    # Of the lowest level, for sanitisers and libFuzzer write there.
    os.dup2(os.open(folder / LOG, os.O_WRONLY | os.O_CREAT), 2)
    board = Board(folder / "board")
    if uses_atheris(pure):
        cover(name, budget, board, folder)
    guard()
    target = load(name)
    check = target.make(INTERPRETED if pure else COMPILED)
    try:
        mutate(target, check, budget, board)
    except Exception:  # noqa: BLE001 - whatever it is, it is a finding
        with alarm(budget.timeout):
            write_report(check, board, folder)
        sys.exit(1)


def mutate(target: Target, check: Callable[[bytes], object], budget: Budget, board: Board) -> None:
    """Run the seeds, and then mutations of them, until the budget is used up; raise what the target raises."""
    mutator = Mutator(target.seeds, target.words, target.max_length, budget.number)
    seen = set()
    for data in target.seeds:
        board.data = data
        seen.add(check(data))
    count = len(target.seeds)
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + MAX_GROWTH
    stop = time.monotonic() + budget.seconds if budget.seconds else float("inf")
    while time.monotonic() < stop and (not budget.executions or count < budget.executions):
        with alarm(budget.timeout):
            for _ in range(BATCH):
                data = mutator.draw()
                board.data = data
                behaviour = check(data)
                if behaviour not in seen:
                    seen.add(behaviour)
                    mutator.keep(data)
        count += BATCH
        board.executions, board.behaviours = count, len(seen)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < largest, f"the process grew by {MAX_GROWTH} KiB"


def cover(name: str, budget: Budget, board: Board, folder: Path) -> None:
    """Let atheris do it, which ends the process: with status 0, or with 1 where there is a finding."""
    import atheris  # noqa: PLC0415 - an extra

    with atheris.instrument_imports(include=PACKAGES):
        target = load(name)
        check = target.make(INTERPRETED)

    def run(data: bytes) -> None:
        board.data = data
        board.executions += 1
        try:
            check(data)
        except Exception:  # noqa: BLE001 - whatever it is, it is a finding
            write_report(check, board, folder)
            os._exit(1)

    corpus = folder / "corpus"
    corpus.mkdir()
    for place, data in enumerate(target.seeds):
        (corpus / str(place)).write_bytes(data)
    words = ("".join(rf"\x{octet:02x}" for octet in word) for word in target.words)
    (folder / "words").write_text("".join(f'"{word}"\n' for word in words), encoding="ascii")
    options = [f"-seed={budget.number}", f"-max_len={target.max_length}", f"-timeout={budget.timeout}"]
    options += ["-verbosity=0", "-len_control=0", f"-dict={folder}/words", f"-artifact_prefix={folder}/"]
    options += [f"-max_total_time={max(1, round(budget.seconds))}"] if budget.seconds else []
    options += [f"-runs={budget.executions}"] if budget.executions else []
    atheris.Setup([name, str(corpus), *options], run)
    atheris.Fuzz()


def write_report(check: Callable[[bytes], object], board: Board, folder: Path) -> None:
    """Make the input that has just failed as small as it can be, and write down what it does."""
    report = traceback.format_exc()
    board.data = minimise(check, board.data)
    try:
        check(board.data)
    except Exception as error:  # noqa: BLE001
        report = "".join(traceback.format_exception(error, chain=False))
    (folder / REPORT).write_text(report, encoding="utf-8")


def minimise(check: Callable[[bytes], object], data: bytes) -> bytes:
    """Return the input without what it does not need to fail in the same place."""
    place = failure(check, data)
    tries = 0
    size = len(data) // 2
    while size:
        at = 0
        while at < len(data) and tries < MAX_TRIES:
            tries += 1
            shorter = data[:at] + data[at + size :]
            if place is not None and failure(check, shorter) == place:
                data = shorter
            else:
                at += size
        size //= 2
    return data


def failure(check: Callable[[bytes], object], data: bytes) -> tuple[str, str, int | None] | None:
    """Return what an input raises, and in which line; None if it does not."""
    try:
        check(data)
    except Exception as error:  # noqa: BLE001
        last = traceback.extract_tb(error.__traceback__)[-1]
        return type(error).__name__, last.filename, last.lineno
    return None
