"""Tests of the helper that starts programs: a failure says what failed, and nothing is left running."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from tests.processes import (
    ROOT,
    MissingComponentError,
    Process,
    ProcessError,
    eventually,
    find_node,
    find_program,
    free_port,
)

LISTENER = """
import socket, time
with socket.create_server(("127.0.0.1", {port})) as server:
    print("some words first", flush=True)
    print(f"listening on 127.0.0.1:{{server.getsockname()[1]}}", flush=True)
    time.sleep(60)
"""


STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(os.fork(), flush=True)
time.sleep(60)
"""


def test_no_port_is_given_twice_while_who_has_it_may_not_listen_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "2")
    found: list[set[int]] = []
    for worker in ("gw0", "gw1"):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
        found.append({free_port() for _ in range(200)})
    assert [len(ports) for ports in found] == [200, 200]
    assert not found[0] & found[1]


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def test_a_missing_program_is_an_error_that_tells_how_to_install_it() -> None:
    with pytest.raises(MissingComponentError, match=r"^no-such-program is not installed: apt-get install it$"):
        find_program("no-such-program", "apt-get install it")
    assert find_program("sh", "").endswith("/sh")


def test_node_is_the_one_that_is_pinned() -> None:
    locked = json.loads((ROOT / "tests" / "node" / "package-lock.json").read_text())["packages"]
    for major, prefix in (("20", "node-20-linux-"), ("22", "node-linux-"), ("24", "node-24-linux-")):
        [version] = {
            package["version"] for name, package in locked.items() if name.startswith(f"node_modules/{prefix}")
        }
        with Process([find_node(major), "--version"]) as process:
            assert process.result(60) == f"v{version}\n"
        assert version.startswith(f"{major}.")


def test_the_announced_port_is_known_and_the_output_outlives_the_program() -> None:
    with Process(python(LISTENER.format(port=0)), listens=True) as process:
        assert process.port
        assert process.poll() is None
    assert process.poll() is not None
    assert process.output == f"some words first\nlistening on 127.0.0.1:{process.port}\n"


def test_a_given_port_is_waited_for() -> None:
    port = free_port()
    with Process(python(LISTENER.format(port=port)), listens=port) as process:
        assert process.port == port


def test_a_program_that_ends_before_it_listens_is_an_error_with_its_output() -> None:
    with pytest.raises(ProcessError, match=r"ended with status 3 before it listens; it printed:\nalas\n"):
        Process(python("print('alas'); raise SystemExit(3)"), listens=True)


def test_a_program_that_never_listens_is_an_error_and_is_stopped() -> None:
    with pytest.raises(ProcessError, match=r"waited 0\.2 s in vain for it listens"):
        Process(python("import time; time.sleep(60)"), listens=True, timeout=0.2)


def test_a_result_is_the_output_of_a_program_that_ended_well() -> None:
    with Process(python("import os; print(os.environ['WORD'])"), env={"WORD": "here"}) as process:
        assert process.result(60) == "here\n"
    with Process(python("raise SystemExit(4)")) as process, pytest.raises(ProcessError, match="status 4"):
        process.result(60)
    with Process(python("import time; time.sleep(60)")) as process, pytest.raises(ProcessError, match="still runs"):
        process.result(0.1)


def test_a_program_that_ignores_its_end_is_killed_with_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.processes.STOP_TIMEOUT", 0.2)
    with Process(python(STUBBORN)) as process:
        output = process.wait_for(lambda output: output.count("\n") == 2, "parent and child have printed")
        child = max(map(int, output.split()))
    assert process.stop() == -9
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    pytest.fail("the child is still there")


STARTER = """
import os, signal, sys
from tests import processes
from tests.processes import Process
processes.STOP_TIMEOUT = 0.5
program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
gone, meek, stubborn = (
    Process([sys.executable, "-c", text])
    for text in ("pass", "import time; print('up', flush=True); time.sleep(600)", program)
)
gone.result(60)
for process in (meek, stubborn):
    process.wait_for(lambda output: "up" in output, "it is up")
print(meek.pid, stubborn.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_started_by_a_process_that_is_killed_ends_with_it() -> None:
    with Process(python(STARTER)) as starter:
        output = starter.wait_for(lambda output: output.endswith("\n"), "it started two programs")
        pids = [int(word) for word in output.split()]
        assert len(pids) == 2
        assert starter.stop() == -9
    # One takes SIGTERM, the other one is killed seconds later.
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
