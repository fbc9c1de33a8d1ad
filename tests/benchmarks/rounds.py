"""The small benchmarks: servers of a few lines that stand beside their load, measured in interleaved rounds."""

import argparse
import os
import socket
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, Final, TypeVar

from .process import ServerProcess
from .scenarios import ACCEPT, Scenario, upgrade

HOST: Final = "127.0.0.1"
PATIENCE: Final = 20.0  # seconds without any answer

Cell = TypeVar("Cell")
Key = TypeVar("Key")
Program = Callable[[int, float], Coroutine[Any, Any, None]]


def options(module: str, doc: str | None, programs: dict[str, Program], **numbers: float) -> argparse.Namespace:
    """Return what the command line asks for; where it asks to be one of the programs, be it, and end.

    `numbers` are options with their defaults. A program gets its port, and the seconds that it is to run.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=doc)
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.add_argument("--be", choices=programs, help="be this one; the benchmark does it by itself")
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--cpu", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.be:
        import uvloop  # noqa: PLC0415

        os.sched_setaffinity(0, {given.cpu})
        uvloop.run(programs[given.be](given.port, given.seconds))
        sys.exit()
    return given


def cores() -> tuple[int, int]:
    """Return the core for the load, to which this process keeps from now on, and that for what is measured."""
    first, *_, last = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {first})
    return first, last


def interleave(names: Iterable[str], rounds: int, measure: Callable[[str], Cell]) -> dict[str, list[Cell]]:
    """Measure each in turn, again and again."""
    cells: dict[str, list[Cell]] = {name: [] for name in names}
    for number in range(rounds):
        for name, found in cells.items():
            print(f"\r\033[Kround {number + 1}/{rounds}: {name}", end="", file=sys.stderr, flush=True)
            found.append(measure(name))
    print(file=sys.stderr)
    return cells


def measure_server(module: str, name: str, cpu: int, weigh: Callable[[ServerProcess], Cell]) -> Cell:
    """Start the server of this name, and return what `weigh` makes of it."""
    with (
        tempfile.TemporaryDirectory() as folder,
        ServerProcess([sys.executable, "-m", module, "--be", name], cpu, Path(folder)) as server,
    ):
        return weigh(server)


def cpu_per(server: ServerProcess, work: Callable[[], int]) -> float:
    """Return the microseconds of CPU that each thing took of which `work` returns the number."""
    before = server.cpu_ns()
    done = work()
    return (server.cpu_ns() - before) / 1000 / done


def medians(rounds: dict[str, list[dict[Key, float]]]) -> dict[str, dict[Key, float]]:
    """Return the median of each figure of each one that was measured."""
    return {
        name: {key: statistics.median(cell[key] for cell in found) for key in found[0]}
        for name, found in rounds.items()
    }


def repeat(seconds: float, work: Callable[[int], object]) -> int:
    """Do something again and again, with its number, for so long; return how often."""
    times, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        work(times)
        times += 1
    return times


def dial(port: int, scenario: Scenario, *, source: str = HOST, room: int = 0) -> socket.socket:
    """Open a WebSocket from an address, with so many bytes of room for what comes, or as many as the kernel gives."""
    sock = socket.socket()
    if room:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    sock.bind((source, 0))
    sock.settimeout(PATIENCE)
    sock.connect((HOST, port))
    request = upgrade(scenario, port)
    sock.sendall(request)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        data = sock.recv(65536)
        assert data, head
        head += data
    assert ACCEPT.encode() in head, head
    assert (b"permessage-deflate" in head) is (b"permessage-deflate" in request), head
    return sock


def reset(socks: Iterable[socket.socket]) -> None:
    """Close connections so that no TIME_WAIT is left for the next server."""
    for sock in socks:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()


def verdict(what: str, ratio: float, goal: float) -> None:
    """Print whether a goal is met."""
    print(f"{'met' if ratio <= goal else 'MISSED':8}{what}: {ratio:.3f}, goal {goal:.2f}")
