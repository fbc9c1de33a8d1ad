"""Watch: a server's process, and an innocent client beside it, while something is done to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

from tests.processes import ROOT, Process

__all__ = ["Seen", "facts", "observe", "start"]

# Sockets that were cut are gone when the sweep after their deadline is done: in 3 s, on an idle machine.
SETTLE = 60.0
# An attack goes on for so many seconds at least: an innocent client is to notice, who sends hundreds of messages.
LEAST = 1.0


class Seen(NamedTuple):
    """What an attack cost: memory in bytes at its peak, latencies of the innocent client in milliseconds."""

    growth: int
    echoes: int
    p50: float
    p99: float
    max: float
    seconds: float


@contextmanager
def start(name: str, options: dict[str, Any] | None = None, *, pure: bool = False) -> Iterator[Process]:
    """Run a server."""
    command = [sys.executable, "-m", "tests.attacks.server", name, json.dumps(options or {})]
    # It is ended before it can take away what it wrote.
    with tempfile.TemporaryDirectory() as folder:
        env = {"RAWWS_PURE": "1" if pure else "", "TMPDIR": folder}
        with Process(command, listens=True, env=env) as process:
            yield process


def descriptors(process: Process) -> int:
    """Return how many descriptors the process has open."""
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def memory(process: Process, name: str) -> int:
    """Return a size of the process in bytes: VmRSS, or VmHWM, its highest since it was forgotten."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition(f"\n{name}:")[2].split()[0]) * 1024


def facts(process: Process) -> dict[str, int]:
    """Return what our server says of itself; the request itself is one connection and one task."""
    with urlopen(f"http://127.0.0.1:{process.port}/facts", timeout=SETTLE) as response:
        found: dict[str, int] = json.load(response)
    return found


def settled(process: Process, before: tuple[Any, ...], look: Callable[[], tuple[Any, ...]]) -> None:
    """Wait until all is as it was."""
    deadline = time.monotonic() + SETTLE
    while (now := look()) != before:
        assert process.poll() is None, process.output
        assert time.monotonic() < deadline, f"it is not as before: {now}, and was {before}; {process.output[-2000:]}"
        time.sleep(0.05)


@contextmanager
def innocent(process: Process) -> Iterator[dict[str, Any]]:
    """Run the innocent client; what it saw is in the dict afterwards."""
    command = [sys.executable, "-m", "tests.attacks.witness", str(process.port)]
    found: dict[str, Any] = {}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, **pipes) as client:
        try:
            assert client.stdout is not None
            client.stdout.readline()
            yield found
            output, errors = client.communicate(timeout=60)
            assert client.returncode == 0, errors
            found |= json.loads(output)
        finally:
            client.kill()


def observe(process: Process, attack: Callable[[int], None], *, ours: bool, least: float = LEAST) -> Seen:
    """Do it for `least` seconds; assert that the process lives and that nothing is left of it; return what it cost."""
    assert process.port is not None

    def look() -> tuple[Any, ...]:
        return (*(facts(process).values() if ours else ()), descriptors(process))

    before = look()
    with innocent(process) as found:
        # What was the peak so far is forgotten (proc(5), clear_refs).
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")
        at_rest, began = memory(process, "VmRSS"), time.monotonic()
        while (seconds := time.monotonic() - began) < least:
            attack(process.port)
        growth = memory(process, "VmHWM") - at_rest
    if ours:
        settled(process, before, look)
    return Seen(max(0, growth), found["echoes"], found["p50"], found["p99"], found["max"], round(seconds, 2))
