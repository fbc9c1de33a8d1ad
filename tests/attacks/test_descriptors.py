"""As many connections as there are descriptors for: the next are refused, the others live, and nothing spins."""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from rawws.server.admission import most_connections
from tests.processes import ROOT, Process, eventually

from .watch import descriptors, start

# Each process of the crowd has the same limit as the server, and uses less than half of it.
CROWDS = 4
# For so many seconds it is seen what the server computes: one that spins, all the time.
LOOK = 3.0


@contextmanager
def crowd(port: int, number: int, count: int) -> Iterator[subprocess.Popen[str]]:
    """Start a crowd; its first line says how many it is."""
    command = [sys.executable, "-m", "tests.attacks.crowd", str(port), f"127.0.0.{number + 2}", str(count)]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    return process.stdout.readline().split()


def echoes(process: subprocess.Popen[str]) -> int:
    """Have a crowd send on each of its connections; return how many answered."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return int(said(process)[1])


def cpu(process: Process) -> float:
    """Return the seconds that a process computed."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


@pytest.fixture
def full() -> Iterator[tuple[Process, int, ExitStack, list[subprocess.Popen[str]]]]:
    """Run a server with all connections that this machine's limit allows (19,000 of 20,000 descriptors)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        limit = most_connections()
        assert limit is not None
        with start("rawws", {"ping_interval": None}) as server, ExitStack() as stack:
            assert server.port is not None
            share = limit // CROWDS
            counts = [share] * (CROWDS - 1) + [limit - share * (CROWDS - 1)]
            crowds = [stack.enter_context(crowd(server.port, n, count)) for n, count in enumerate(counts)]
            assert [said(one) for one in crowds] == [["open", str(count), "0"] for count in counts]
            yield server, limit, stack, crowds
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_as_many_connections_as_there_are_descriptors_for_and_no_more(
    full: tuple[Process, int, ExitStack, list[subprocess.Popen[str]]],
) -> None:
    server, limit, stack, crowds = full
    assert server.port is not None
    held = descriptors(server)
    assert held >= limit
    # One after the other they are told so; all at once, most are cut, and none of them stays.
    late = stack.enter_context(crowd(server.port, CROWDS, 10))
    assert said(late) == ["open", "0", "10"]
    for sock in [socket.create_connection(("127.0.0.1", server.port), timeout=60) for _ in range(2000)]:
        sock.close()
    assert descriptors(server) <= held + 64
    assert sum(echoes(one) for one in crowds) == limit
    before = cpu(server)
    time.sleep(LOOK)
    assert cpu(server) - before < LOOK / 2, "the server computes although nothing happens"
    assert "Too many open files" not in server.output
    assert "Traceback" not in server.output
    # Where one goes, there is room for another.
    crowds[0].kill()
    crowds[0].wait(60)
    eventually(lambda: descriptors(server) <= held - 100)
    again = stack.enter_context(crowd(server.port, 0, 100))
    assert said(again)[1] == "100"
    assert echoes(again) == 100
