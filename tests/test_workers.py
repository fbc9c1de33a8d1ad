"""`python -m rawws serve --workers`: several processes on one port, and what becomes of them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from rawws.workers import Reserved, Supervisor
from tests.processes import LOOPBACK, ROOT, Process
from tests.test_cli import port, run, start

HANDLERS = """
import os

async def who(ws):
    async for message in ws:
        if message == "die":
            os._exit(7)
        await ws.send(str(os.getpid()))

async def busy(ws):
    await ws.send(str(os.getpid()))
    try:
        await ws.recv()
    except Exception:
        pass
    await __import__("asyncio").sleep(3600)
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "crowd.py").write_text(HANDLERS)
    return tmp_path


@pytest.fixture
def crowd(here: Path) -> Iterator[Process]:
    with start(here, "serve", "crowd:who", "--port", "0", "--workers", "3") as process:
        yield process
        alive = pids(process)
    # Whatever a test did to the supervisor, its workers end with it.
    eventually(lambda: not any(map(exists, alive)))


def pids(process: Process) -> set[int]:
    """The workers that there are now."""
    if process.poll() is not None:
        return set()
    return set(map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()))


def exists(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


def dial(process: Process) -> ClientConnection:
    return connect(f"ws://{LOOPBACK}:{port(process)}", compression=None)


def patient_dial(process: Process) -> ClientConnection:
    """Dial until a worker is there: all of them may be gone at the same time."""
    while True:
        try:
            return dial(process)
        except ConnectionRefusedError:
            time.sleep(0.01)


def served_by(process: Process) -> int:
    with dial(process) as ws:
        ws.send("who")
        return int(ws.recv(timeout=10))


def assert_going_away(ws: ClientConnection) -> None:
    with pytest.raises(ConnectionClosed) as closed:
        ws.recv(timeout=10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001


def assert_ends_well(process: Process) -> None:
    eventually(lambda: process.poll() is not None)
    assert process.poll() == 0


def test_every_worker_serves_on_the_one_port(crowd: Process) -> None:
    seen: set[int] = set()
    while len(seen) < 3:
        seen.add(served_by(crowd))
    assert seen == pids(crowd)
    line = r"listening on ws://127\.0\.0\.1:\d+ \(3 workers; rawws .*; Ctrl-C ends it\)"
    assert re.fullmatch(line, crowd.output.strip())


def test_a_worker_that_dies_is_replaced_and_the_others_do_not_notice(crowd: Process) -> None:
    before = pids(crowd)
    with dial(crowd) as bystander:
        bystander.send("who")
        spared = int(bystander.recv(timeout=10))
        victim = min(before - {spared})
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: victim not in pids(crowd) and len(pids(crowd)) == 3)
        bystander.send("who")
        assert int(bystander.recv(timeout=10)) == spared
    assert f"ended by signal {signal.SIGKILL.value}" in crowd.output
    [new] = pids(crowd) - before
    eventually(lambda: served_by(crowd) == new)


def test_a_worker_that_dies_young_again_and_again_is_replaced_later_and_later(crowd: Process) -> None:
    for times in range(1, 7):
        with pytest.raises(ConnectionClosed), patient_dial(crowd) as ws:
            ws.send("die")
            ws.recv(timeout=10)
        crowd.wait_for(lambda output, times=times: output.count("ended with status 7") == times, "the log", 20)  # type: ignore[misc]
    waits = [float(wait) for wait in re.findall(r"takes its place in ([\d.]+) s", crowd.output)]
    # Each of three workers has delays of its own, and six deaths among three are at least two of one.
    assert min(waits) == 0.1
    assert max(waits) >= 0.2
    eventually(lambda: len(pids(crowd)) == 3)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_closes_the_connections_of_all_workers(crowd: Process, number: signal.Signals) -> None:
    with contextlib.ExitStack() as stack:
        connections: dict[int, ClientConnection] = {}
        while len(connections) < 3:
            ws = stack.enter_context(dial(crowd))
            ws.send("who")
            connections.setdefault(int(ws.recv(timeout=10)), ws)
        os.kill(crowd.pid, number)
        for ws in connections.values():
            assert_going_away(ws)
    assert_ends_well(crowd)


def test_a_signal_to_every_process_at_once_closes_properly_too(crowd: Process) -> None:
    """So does systemd stop a service."""
    with dial(crowd) as ws:
        ws.send("who")
        ws.recv(timeout=10)
        for pid in [*pids(crowd), crowd.pid]:
            os.kill(pid, signal.SIGTERM)
        assert_going_away(ws)
    assert_ends_well(crowd)


def test_a_second_signal_waits_for_no_handler(here: Path) -> None:
    with start(here, "serve", "crowd:busy", "--port", "0", "--workers", "2") as process:
        with dial(process) as ws:
            worker = int(ws.recv(timeout=10))
            os.kill(process.pid, signal.SIGTERM)
            with pytest.raises(ConnectionClosed):
                ws.recv(timeout=10)
        assert process.poll() is None
        os.kill(process.pid, signal.SIGTERM)
        eventually(lambda: process.poll() is not None)
        assert not exists(worker)


def test_workers_do_not_outlive_a_supervisor_that_was_killed(crowd: Process) -> None:
    orphans = pids(crowd)
    os.kill(crowd.pid, signal.SIGKILL)
    eventually(lambda: not any(map(exists, orphans)))


def test_what_stops_the_workers_from_serving_ends_the_command(here: Path) -> None:
    with start(here, "serve", "crowd:who", "--port", "0") as other:
        ran = run(here, "serve", "crowd:who", "--port", str(port(other)), "--workers", "2")
    assert ran.returncode == 1
    assert ran.stderr.strip().endswith("another program listens there; --port chooses another port")
    assert ran.stderr.count("\n") == 1


def test_a_worker_that_ends_before_it_serves_ends_all() -> None:
    # In a process of its own: this one may have threads, with which nobody should fork.
    code = "import os, rawws.workers as w; w.Supervisor(2, lambda post: os._exit(9), print).run()"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=20, check=False
    )
    assert ran.stderr.strip().endswith("StartError: a worker ended with status 9 before it served")
    assert ran.stdout == ""


@pytest.mark.parametrize("workers", ["0", "-1", "many", "1.5", "1000"])
def test_a_number_of_workers_that_makes_no_sense_is_a_usage_error(here: Path, workers: str) -> None:
    ran = run(here, "serve", "crowd:who", "--workers", workers)
    assert ran.returncode == 2
    assert f"{workers!r} is not a number of processes, 1 to 999, or auto" in ran.stderr


def test_a_unix_socket_is_not_shared(here: Path) -> None:
    ran = run(here, "serve", "crowd:who", "--workers", "2", "--uds", "crowd.sock")
    assert ran.returncode == 2
    assert "--workers shares a port, not a unix socket" in ran.stderr


def test_addresses_that_share_any_port_get_the_same_one() -> None:
    with Reserved(["127.0.0.1", "127.0.0.2", "::1"], 0) as reserved:
        assert {sock.getsockname()[1] for sock in reserved.sockets} == {reserved.port}
        assert len(reserved.sockets) == 3


def test_no_workers_are_no_crowd() -> None:
    with pytest.raises(ValueError, match="workers is 0, allowed are numbers above 0"):
        Supervisor(0, lambda post: None, lambda: None)
