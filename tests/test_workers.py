"""`python -m rawws serve --workers`: several processes on one port, and what becomes of them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidMessage
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from rawws.cli import folders
from rawws.cli.main import parser
from rawws.cli.supervisor import ReservedPort, Supervisor, Worker
from tests.cli.commands import ASGI, port, run, start
from tests.processes import LOOPBACK, ROOT, Process, eventually

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

TALK = """
import os

import rawws

hub = rawws.Hub(authorize=lambda *_: True)

async def talk(ws):
    if ws.subprotocol == "pid":
        await ws.send(str(os.getpid()))
    await hub.serve(ws)

async def late(ws):
    rawws.Hub(authorize=lambda *_: True).publish("a", "x")
    await ws.send("made")
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


def dial(process: Process) -> ClientConnection:
    return connect(f"ws://{LOOPBACK}:{port(process)}", compression=None)


def patient(dialled: Callable[[], ClientConnection]) -> ClientConnection:
    """Dial until a worker is there: all of them may be gone, or one that has just accepted."""
    while True:
        try:
            return dialled()
        except (ConnectionError, ConnectionClosed, EOFError, InvalidMessage):
            time.sleep(0.01)


def patient_dial(process: Process) -> ClientConnection:
    return patient(lambda: dial(process))


def served_by(process: Process) -> int:
    with dial(process) as ws:
        ws.send("who")
        return int(ws.recv(timeout=60))


def assert_going_away(ws: ClientConnection) -> None:
    with pytest.raises(ConnectionClosed) as closed:
        ws.recv(timeout=60)
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
    assert re.fullmatch(line, crowd.output.splitlines()[0])


def test_a_worker_that_dies_is_replaced_and_the_others_do_not_notice(crowd: Process) -> None:
    before = pids(crowd)
    with dial(crowd) as bystander:
        bystander.send("who")
        spared = int(bystander.recv(timeout=60))
        victim = min(before - {spared})
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: victim not in pids(crowd) and len(pids(crowd)) == 3)
        bystander.send("who")
        assert int(bystander.recv(timeout=60)) == spared
    assert f"ended by signal {signal.SIGKILL.value}" in crowd.output
    [new] = pids(crowd) - before
    eventually(lambda: served_by(crowd) == new)


@contextlib.contextmanager
def where_young_is(seconds: float, here: Path, *words: str) -> Iterator[Process]:
    """Serve where a worker is young for so many seconds."""
    code = f"import sys; from rawws.cli import main, supervisor; supervisor.YOUNG = {seconds}; sys.exit(main.main())"
    with Process([sys.executable, "-c", code, "serve", "crowd:who", "--port", "0", *words], cwd=here) as process:
        process.wait_for(lambda output: "Ctrl-C ends it" in output, "it says where it listens")
        yield process


def test_a_worker_that_dies_young_again_and_again_is_replaced_later_and_later(here: Path) -> None:
    with where_young_is(3600, here, "--workers", "3") as crowd:
        for times in range(1, 7):
            with pytest.raises(ConnectionClosed), patient_dial(crowd) as ws:
                ws.send("die")
                ws.recv(timeout=60)
            crowd.wait_for(lambda output, times=times: output.count("ended with status 7") == times, "the log")  # type: ignore[misc]
        waits = [float(wait) for wait in re.findall(r"takes its place in ([\d.]+) s", crowd.output)]
        # Each of three workers has delays of its own, and six deaths among three are at least two of one.
        assert min(waits) == 0.1
        assert max(waits) >= 0.2
        eventually(lambda: len(pids(crowd)) == 3)


def dial_all(crowd: Process, stack: contextlib.ExitStack) -> list[ClientConnection]:
    """Return a connection to each worker."""
    found: dict[int, ClientConnection] = {}
    while len(found) < 3:
        ws = stack.enter_context(dial(crowd))
        ws.send("who")
        found.setdefault(int(ws.recv(timeout=60)), ws)
    return [*found.values()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_closes_the_connections_of_all_workers(crowd: Process, number: signal.Signals) -> None:
    with contextlib.ExitStack() as stack:
        connections = dial_all(crowd, stack)
        os.kill(crowd.pid, number)
        for ws in connections:
            assert_going_away(ws)
    assert_ends_well(crowd)


def test_a_signal_to_every_process_at_once_closes_properly_too(crowd: Process) -> None:
    """So does systemd stop a service."""
    with contextlib.ExitStack() as stack:
        connections = dial_all(crowd, stack)
        for pid in [*pids(crowd), crowd.pid]:
            os.kill(pid, signal.SIGTERM)
        for ws in connections:
            assert_going_away(ws)
    assert_ends_well(crowd)


def test_a_second_signal_waits_for_no_handler(here: Path) -> None:
    with start(here, "serve", "crowd:busy", "--port", "0", "--workers", "2") as process:
        with dial(process) as ws:
            worker = int(ws.recv(timeout=60))
            os.kill(process.pid, signal.SIGTERM)
            with pytest.raises(ConnectionClosed):
                ws.recv(timeout=60)
        assert process.poll() is None
        os.kill(process.pid, signal.SIGTERM)
        eventually(lambda: process.poll() is not None)
        assert not exists(worker)


def test_workers_do_not_outlive_a_supervisor_that_was_killed(crowd: Process) -> None:
    orphans = pids(crowd)
    os.kill(crowd.pid, signal.SIGKILL)
    eventually(lambda: not any(map(exists, orphans)))


def test_a_port_whose_connections_of_before_are_not_over_can_be_had(here: Path) -> None:
    # Those that the server ended are in TIME_WAIT for a minute.
    with socket.create_server((LOOPBACK, 0)) as before:
        where = before.getsockname()
        with socket.create_connection(where) as client:
            before.accept()[0].close()
            assert client.recv(1) == b""
    with start(here, "serve", "crowd:who", "--port", str(where[1]), "--workers", "2") as process:
        assert port(process) == where[1]


def test_what_stops_the_workers_from_serving_ends_the_command(here: Path) -> None:
    with start(here, "serve", "crowd:who", "--port", "0") as other:
        ran = run(here, "serve", "crowd:who", "--port", str(port(other)), "--workers", "2")
    assert ran.returncode == 1
    assert ran.stderr.strip().endswith("another program listens there; --port chooses another port")
    assert ran.stderr.count("\n") == 1


def test_a_certificate_that_cannot_be_had_is_told_once(here: Path) -> None:
    ran = run(here, "serve", "crowd:who", "--port", "0", "--workers", "2", "--ssl-certfile", "none.pem")
    assert (ran.returncode, ran.stderr) == (1, "rawws: cannot read certificate none.pem: No such file or directory\n")


def test_an_application_that_does_not_start_ends_the_command(here: Path) -> None:
    (here / "web.py").write_text(ASGI)
    ran = run(here, "serve", "--asgi", "web:app", "--port", "0", "--workers", "2")
    assert ran.returncode == 1
    lines = set(ran.stderr.splitlines())
    assert "rawws: the application did not start: no database" in lines
    assert "rawws: a worker ended with status 1 before it served" in lines
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("end", "status", "said"),
    [
        ("os._exit(9)", 9, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit('why')", 1, "why"),
        ("sys.exit()", 0, ""),
        ("raise KeyboardInterrupt", 130, ""),
        ("raise ValueError('a fault')", 1, "worker 0 failed"),
    ],
)
def test_a_worker_that_ends_before_it_serves_ends_all(end: str, status: int, said: str) -> None:
    # In a process of its own: this one may have threads, with which nobody should fork.
    code = f"import os, sys, rawws.cli.supervisor as w\ndef work(post): {end}\nw.Supervisor(1, work, print).run()"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.stderr.strip().endswith(f"StartError: a worker ended with status {status} before it served")
    assert said in ran.stderr
    assert ran.stdout == ""


def test_a_worker_that_lived_long_is_replaced_at_once_each_time(here: Path) -> None:
    with where_young_is(0, here, "--workers", "2") as process:
        for times in range(1, 5):
            os.kill(min(pids(process)), signal.SIGKILL)
            process.wait_for(lambda output, times=times: output.count("takes its place in 0.0 s") == times, "the log")  # type: ignore[misc]
            eventually(lambda: len(pids(process)) == 2)


def test_a_worker_that_lived_long_begins_its_delays_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("rawws.clock.monotonic", lambda: now)
    supervisor = Supervisor(1, lambda channel: None, lambda: None)
    supervisor._started = True
    delays = []
    for lived in (1.0, 1.0, 1.0, 60.0, 1.0, 1.0):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            worker = Worker(0, 1, ours)
            now += lived
            supervisor._replace(worker, 7)
        delays.append(round(supervisor._due[0] - now, 3))
    assert delays == [0.1, 0.2, 0.4, 0.0, 0.1, 0.2]


@pytest.mark.parametrize("workers", ["0", "-1", "many", "1.5", "1000"])
def test_a_number_of_workers_that_makes_no_sense_is_a_usage_error(here: Path, workers: str) -> None:
    ran = run(here, "serve", "crowd:who", "--workers", workers)
    assert ran.returncode == 2
    assert f"{workers!r} is not a number of processes, 1 to 999, or auto" in ran.stderr


def test_auto_is_a_worker_for_each_core() -> None:
    options = parser().parse_args(["serve", "crowd:who", "--workers", "auto"])
    assert options.workers == len(os.sched_getaffinity(0))


def test_a_unix_socket_is_not_shared(here: Path) -> None:
    ran = run(here, "serve", "crowd:who", "--workers", "2", "--uds", "crowd.sock")
    assert ran.returncode == 2
    assert "--workers shares a port, not a unix socket" in ran.stderr


def test_addresses_that_share_any_port_get_the_same_one() -> None:
    with ReservedPort(["127.0.0.1", "127.0.0.2", "::1"], 0) as reserved:
        assert {sock.getsockname()[1] for sock in reserved.sockets} == {reserved.port}
        assert len(reserved.sockets) == 3


def test_no_workers_are_no_crowd(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="workers is 0, allowed are numbers above 0"):
        Supervisor(0, lambda post: None, lambda: None)
    monkeypatch.delattr(os, "fork")
    with pytest.raises(RuntimeError, match="several workers need fork and SO_REUSEPORT"):
        Supervisor(2, lambda post: None, lambda: None)


# -- hubs


@pytest.fixture
def hall(tmp_path: Path) -> Iterator[Process]:
    """Give three workers whose hubs are joined: they are four processes."""
    (tmp_path / "hall.py").write_text(TALK)
    command = ["serve", "hall:talk", "--port", "0", "--workers", "3", "--subprotocols", "rawws.v1,pid"]
    with start(tmp_path, *command) as process:
        yield process


def speak(process: Process, subprotocol: str = "rawws.v1") -> ClientConnection:
    return connect(f"ws://{LOOPBACK}:{port(process)}", compression=None, subprotocols=[Subprotocol(subprotocol)])


def ask(ws: ClientConnection, **envelope: object) -> dict[str, Any]:
    """Ask for something, and return the answer; what else comes before it is lost."""
    ws.send(json.dumps({"id": 1, **envelope}))
    while True:
        answer: dict[str, Any] = json.loads(ws.recv(timeout=60))
        if answer.get("id") == 1:
            return answer


def data(ws: ClientConnection) -> str:
    said: str = json.loads(ws.recv(timeout=60))["data"]
    return said


def worker_of(process: Process) -> int:
    """Return the worker that a new connection comes to."""
    with speak(process, "pid") as ws:
        return int(ws.recv(timeout=60))


def broker_of(process: Process) -> int:
    """Return the process that no connection comes to."""
    seen: set[int] = set()
    while len(seen) < 3:
        seen.add(worker_of(process))
    [broker] = pids(process) - seen
    return broker


def test_what_is_published_at_one_worker_reaches_the_clients_of_all_in_one_order(hall: Process) -> None:
    with contextlib.ExitStack() as stack:
        # The kernel spreads them: of so many, two have a worker in common, and two have not.
        crowd = [stack.enter_context(speak(hall)) for _ in range(12)]
        epochs = {ask(ws, subscribe="a")["cursor"] for ws in crowd}
        assert len(epochs) == 1
        for number, ws in enumerate(crowd):
            ws.send(json.dumps({"publish": "a", "data": str(number)}))
        orders = {tuple(data(ws) for _ in crowd) for ws in crowd}
        assert len(orders) == 1
        assert sorted(orders.pop(), key=int) == [str(number) for number in range(12)]


def test_a_worker_that_is_killed_takes_no_history_with_it_and_its_clients_come_back(hall: Process) -> None:
    broker = broker_of(hall)
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(speak(hall)) for _ in range(24)]
        for ws in crowd:
            ask(ws, subscribe="a")
        cursor = ask(crowd[0], publish="a", data="before")["cursor"]
        assert [data(ws) for ws in crowd[1:]] == ["before"] * 23
        os.kill(min(pids(hall) - {broker}), signal.SIGKILL)
        with patient(lambda: speak(hall)) as other:
            ask(other, publish="a", data="after")
        back = 0
        for ws in crowd[1:]:
            try:
                assert data(ws) == "after"
            except ConnectionClosed:
                back += 1
                with patient(lambda: speak(hall)) as anew:
                    assert ask(anew, subscribe="a", since=cursor)["recovered"] is True
                    assert data(anew) == "after"
        assert 0 < back < 23


def test_a_broker_that_is_killed_is_replaced_and_what_is_lost_is_said(hall: Process) -> None:
    with speak(hall) as ws:
        cursor = ask(ws, subscribe="a")["cursor"]
        ask(ws, publish="a", data="before")
        os.kill(broker_of(hall), signal.SIGKILL)
        hall.wait_for(lambda output: "takes its place" in output, "the log")
        eventually(lambda: ask(ws, subscribe="b" + os.urandom(4).hex())["recovered"])

        def declared() -> bool:
            with speak(hall) as other:
                return ask(other, subscribe="a", since=cursor)["recovered"] is False

        eventually(declared)
    assert "left here" not in hall.output


def test_clients_hear_each_other_until_the_last_worker_is_drained(hall: Process) -> None:
    with speak(hall) as ws:
        ask(ws, subscribe="a")
        os.kill(hall.pid, signal.SIGTERM)
        assert_going_away(ws)
    assert_ends_well(hall)
    assert "cannot be reached" not in hall.output


def test_a_hub_that_is_made_too_late_says_that_it_is_not_joined(tmp_path: Path) -> None:
    (tmp_path / "hall.py").write_text(TALK)
    with start(tmp_path, "serve", "hall:late", "--port", "0", "--workers", "2") as process:
        with dial(process) as ws:
            assert ws.recv(timeout=60) == "made"
        assert "a hub was made after the workers started and is not joined" in process.output


def test_nobody_else_may_speak_to_the_broker_and_nothing_is_left_of_it(tmp_path: Path) -> None:
    (tmp_path / "hall.py").write_text(TALK)
    command = ["serve", "hall:talk", "--port", "0", "--workers", "2"]
    with start(tmp_path, *command, env={"TMPDIR": str(tmp_path)}) as process:
        [folder] = tmp_path.glob("rawws-*")
        assert (folder / "broker").is_socket()
        assert folder.stat().st_mode & 0o777 == 0o700
        os.kill(process.pid, signal.SIGTERM)
        assert_ends_well(process)
        assert not folder.exists()


def test_what_a_killed_supervisor_left_goes_with_the_next_start_and_nothing_of_a_living_one(tmp_path: Path) -> None:
    (tmp_path / "hall.py").write_text(TALK)
    command = ["serve", "hall:talk", "--port", "0", "--workers", "2", "--subprotocols", "rawws.v1"]
    environment = {"TMPDIR": str(tmp_path)}
    # Of others, of another kind, or just being made.
    (tmp_path / "rawws-file").write_text("x")
    (tmp_path / "rawws-unlocked").mkdir()
    (tmp_path / "rawws-link").symlink_to("rawws-unlocked")
    strange = set(tmp_path.glob("rawws-*"))
    with start(tmp_path, *command, env=environment) as living:
        [kept] = set(tmp_path.glob("rawws-*")) - strange
        killed = start(tmp_path, *command, env=environment)
        [left] = set(tmp_path.glob("rawws-*")) - strange - {kept}
        workers = pids(killed)
        os.kill(killed.pid, signal.SIGKILL)
        killed.stop()
        eventually(lambda: not any(map(exists, workers)))
        assert left.exists()
        with start(tmp_path, *command, env=environment) as third:
            assert not left.exists()
            assert (kept / "broker").is_socket()
            assert set(tmp_path.glob("rawws-*")) > strange | {kept}
            assert_ends_well_on_sigterm(third)
        with speak(living) as ws:
            ask(ws, subscribe="a")
    eventually(lambda: set(tmp_path.glob("rawws-*")) == strange)


def assert_ends_well_on_sigterm(process: Process) -> None:
    os.kill(process.pid, signal.SIGTERM)
    assert_ends_well(process)


def test_workers_that_drain_keep_the_folder_of_their_killed_supervisor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker is a fork: it holds the same lock."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    reads, writes = os.pipe()
    owner = os.fork()
    if not owner:
        folder = folders.make_folder()
        worker = os.fork()
        if worker:
            os.write(writes, f"{worker} {folder}".encode())
        else:
            signal.pause()
        os._exit(0)
    os.waitpid(owner, 0)
    pid, _, left = os.read(reads, 1000).decode().partition(" ")
    os.close(reads)
    os.close(writes)
    try:
        shutil.rmtree(folders.make_folder())
        assert Path(left).exists()
    finally:
        os.kill(int(pid), signal.SIGKILL)
    eventually(lambda: not exists(int(pid)))
    shutil.rmtree(folders.make_folder())
    assert not Path(left).exists()


def test_the_program_of_the_page_joins_its_workers(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "run" / "scaling.md").read_text(encoding="utf-8")
    [program] = re.findall(r"```python\n(# hall\.py\n.*?)```", page, re.DOTALL)
    (tmp_path / "hall.py").write_text(program)
    command = ["serve", "hall:hall", "--port", "0", "--workers", "2", "--subprotocols", "rawws.v1"]
    with start(tmp_path, *command) as process, contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(speak(process)) for _ in range(8)]
        for ws in crowd:
            ask(ws, subscribe="a")
        crowd[0].send(json.dumps({"publish": "a", "data": "Hello"}))
        assert [data(ws) for ws in crowd] == ["Hello"] * 8


WORK = """
import asyncio

async def slow(ws):
    async for message in ws:
        await ws.send("begun")
        await asyncio.sleep(0.5)
        await ws.send("done")
"""


@pytest.mark.parametrize("first", ["workers", "supervisor"])
def test_a_signal_to_every_process_at_once_cuts_no_drain_short(tmp_path: Path, first: str) -> None:
    (tmp_path / "work.py").write_text(WORK)
    with start(tmp_path, "serve", "work:slow", "--port", "0", "--workers", "2") as process:
        with contextlib.ExitStack() as stack:
            # The kernel spreads them: of so many, each worker has some.
            crowd = [stack.enter_context(dial(process)) for _ in range(12)]
            for ws in crowd:
                ws.send("go")
            assert [ws.recv(timeout=60) for ws in crowd] == ["begun"] * 12
            workers = list(pids(process))
            for pid in [*workers, process.pid] if first == "workers" else [process.pid, *workers]:
                os.kill(pid, signal.SIGTERM)
            for ws in crowd:
                assert ws.recv(timeout=60) == "done"
                assert_going_away(ws)
        assert_ends_well(process)


def test_a_worker_that_cannot_be_started_again_for_now_ends_no_other() -> None:
    code = (
        "import os, resource, rawws.cli.supervisor as w\n"
        "w.LAST_DELAY = 0.2\n"
        "def work(channel):\n"
        "    channel._sock.send(w.READY)\n"
        "    print('serves', channel.number, os.getpid(), flush=True)\n"
        "    channel._sock.recv(1)\n"
        "limit = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "error = w.logger.error\n"
        "def told(text, *words):\n"
        "    print('told', text % words, flush=True)\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, limit)\n"
        "w.logger.error = told\n"
        # No descriptor from here on, until that is told.
        "def ready():\n"
        "    w.logger.error = lambda *_: setattr(w.logger, 'error', told)\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limit[1]))\n"
        "    print('ready', flush=True)\n"
        "w.Supervisor(2, work, ready).run()"
    )
    with Process([sys.executable, "-c", code]) as process:
        process.wait_for(lambda output: "ready" in output, "the workers serve")
        first, second = (int(found) for found in re.findall(r"serves \d (\d+)", process.output))
        os.kill(first, signal.SIGKILL)
        process.wait_for(lambda output: output.count("serves") == 3, "another worker takes its place")
        assert "cannot be started, it is tried again in 0.2 s: Too many open files" in process.output
        assert exists(second)
        os.kill(process.pid, signal.SIGTERM)
        assert_ends_well(process)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_hangs_at_its_start_ends_with_the_supervisor(number: signal.Signals) -> None:
    code = (
        "import time, rawws.cli.supervisor as w\n"
        "def work(channel):\n    print('hangs', flush=True)\n    time.sleep(3600)\n"
        "w.Supervisor(2, work, lambda: print('ready')).run()"
    )
    with Process([sys.executable, "-c", code]) as process:
        process.wait_for(lambda output: output.count("hangs") == 2, "the workers start")
        hanging = pids(process)
        assert len(hanging) == 2
        os.kill(process.pid, number)
        assert_ends_well(process)
        assert not any(map(exists, hanging))
        assert "ready" not in process.output
