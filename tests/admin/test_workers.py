"""`rawws serve --admin`: what all workers of a server say together, also while they are busy, die and drain."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from rawws.cli.environment import options_in
from tests.admin.looks import KEY
from tests.cli.commands import fails, run, start
from tests.processes import LOOPBACK, Process, eventually, free_port

PROGRAM = """
import asyncio
import os
import time

import rawws

hub = rawws.Hub(authorize=lambda *_: True)

async def talk(ws):
    if ws.subprotocol == "rawws.v1":
        return await hub.serve(ws)
    async for message in ws:
        if message == "die":
            os._exit(7)
        what, _, file = message.partition(" ")
        if what == "sleep":
            # Nothing else of this process is done meanwhile.
            while not os.path.exists(file):
                time.sleep(0.01)
        await ws.send(str(os.getpid()))
        if what == "stay":
            while not os.path.exists(file):
                await asyncio.sleep(0.01)
"""
WORKERS = 3


@contextlib.contextmanager
def served(folder: Path, *options: str, workers: int = WORKERS, env: dict[str, str] | None = None) -> Iterator[Process]:
    (folder / "program.py").write_text(PROGRAM)
    words = ["program:talk", "--port", "0", "--workers", str(workers), "--subprotocols", "rawws.v1,plain", *options]
    with start(folder, "serve", *words, env=env) as process:
        yield process


def admin_of(process: Process) -> str:
    found = re.search(r"^admin at (http://\S+)", process.output, re.MULTILINE)
    assert found is not None, process.output
    return found[1]


def dial(process: Process, subprotocol: str = "plain") -> ClientConnection:
    found = re.search(r"^listening on (ws://\S+)", process.output, re.MULTILINE)
    assert found is not None, process.output
    # One that reads nothing for a while would be told that nobody answers its Pings.
    return connect(found[1], compression=None, subprotocols=[Subprotocol(subprotocol)], ping_interval=None)


def pid_of(ws: ClientConnection) -> int:
    ws.send("who")
    return int(ws.recv(timeout=60))


def counted(admin: httpx.Client, name: str) -> float:
    """Return the sum of a metric."""
    for family in text_string_to_metric_families(admin.get("/metrics").text):
        if family.name == name:
            return sum(sample.value for sample in family.samples)
    raise AssertionError(name)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    with served(tmp_path, "--admin", f"{LOOPBACK}:0") as process:
        yield process


@pytest.fixture
def admin(process: Process) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=admin_of(process), timeout=60) as client:
        yield client


def dial_all(process: Process, stack: contextlib.ExitStack) -> dict[int, list[ClientConnection]]:
    """Return connections to all workers, by their processes."""
    found: dict[int, list[ClientConnection]] = {}
    while len(found) < WORKERS:
        ws = stack.enter_context(dial(process))
        found.setdefault(pid_of(ws), []).append(ws)
    return found


def test_all_workers_are_summed(process: Process, admin: httpx.Client) -> None:
    # No look waits for a worker that is busy, as each may be for a moment.
    with contextlib.ExitStack() as stack:
        found = dial_all(process, stack)
        listening = [stack.enter_context(dial(process, "rawws.v1")) for _ in range(6)]
        for number, ws in enumerate(listening):
            ws.send(json.dumps({"id": 1, "subscribe": "news", "join": {"number": number}}))
            assert json.loads(ws.recv(timeout=60))["id"] == 1
        opened = sum(map(len, found.values())) + 6
        eventually(lambda: counted(admin, "rawws_connections_opened") == opened)
        eventually(lambda: admin.get("/v1/status").json()["connections"] == opened)
        status: dict[str, Any] = admin.get("/v1/status").json()
        assert status["connections"] == status["opened"] == opened
        assert {each["pid"] for each in status["workers"]} == set(found)
        assert sorted(each["worker"] for each in status["workers"]) == list(range(WORKERS))
        assert sum(each["connections"] for each in status["workers"]) == opened
        assert status["expected"] == WORKERS
        # Each worker knows of all who are present, and of its own subscribers.
        topic = {"topic": "news", "subscribers": 6, "present": 6, "held": 0}
        eventually(lambda: admin.get("/v1/topics").json()["topics"] == [topic])
        eventually(lambda: counted(admin, "rawws_hub_present") == 6)
        eventually(lambda: counted(admin, "rawws_hub_subscriptions") == 6)
        who = told_by_all(admin, "/v1/presence", topic="news")
        assert sorted(each["info"]["number"] for each in who["present"]) == list(range(6))
        assert (who["subscribers"], who["total"]) == (6, 6)
        listed = told_by_all(admin, "/v1/connections", sort="topics", limit="6")
        assert (listed["total"], [each["topics"] for each in listed["connections"]]) == (opened, [1] * 6)
        ident = listed["connections"][0]["id"]
        assert admin.post("/v1/kick", json={"id": ident, "code": 4009}).json() == {"kicked": ident}
        eventually(lambda: 4009 in [ws.close_code for ws in listening])
        assert admin.post("/v1/kick", json={"id": "nobody"}).status_code == 404
        assert admin.post("/v1/kick", json={"id": listed["connections"][1]["id"], "code": 1}).status_code == 400


def told_by_all(admin: httpx.Client, path: str, **params: str) -> dict[str, Any]:
    """Return an answer that no worker was too busy for."""
    answers: list[dict[str, Any]] = []

    def told() -> bool:
        answers.append(admin.get(path, params=params).json())
        return not answers[-1]["busy"]

    eventually(told)
    return answers[-1]


def test_it_answers_while_workers_are_busy(process: Process, admin: httpx.Client, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        found = dial_all(process, stack)
        opened = sum(map(len, found.values()))
        eventually(lambda: counted(admin, "rawws_connections_opened") == opened)
        for ws, *_ in found.values():
            ws.send(f"sleep {tmp_path / 'over'}")
        eventually(lambda: all(each["busy"] for each in admin.get("/v1/status").json()["workers"]))
        assert admin.get("/healthz").text == "ok\n"
        assert admin.get("/readyz").text == "ok\n"
        status = admin.get("/v1/status").json()
        assert len(status["workers"]) == WORKERS
        assert status["connections"] == opened
        assert counted(admin, "rawws_connections_opened") == opened
        (tmp_path / "over").touch()
        for ws, *_ in found.values():
            assert int(ws.recv(timeout=60)) in found
        eventually(lambda: not any(each["busy"] for each in admin.get("/v1/status").json()["workers"]))


def test_sums_do_not_fall_when_a_worker_dies(process: Process, admin: httpx.Client) -> None:
    with contextlib.ExitStack() as stack:
        found = dial_all(process, stack)
        opened = sum(map(len, found.values()))
        eventually(lambda: counted(admin, "rawws_connections_opened") == opened)
        sent = counted(admin, "rawws_sent_bytes")
        victim, [ws, *_] = found.popitem()
        ws.send("die")

        def replaced() -> bool:
            assert counted(admin, "rawws_connections_opened") >= opened
            assert counted(admin, "rawws_sent_bytes") >= sent
            pids = {each["pid"] for each in admin.get("/v1/status").json()["workers"]}
            return victim not in pids and len(pids) == WORKERS

        eventually(replaced)
        # What held connections holds none now.
        assert counted(admin, "rawws_connections") < opened
        # The process that answers may die as well.
        children = set(map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()))
        serving = {each["pid"] for each in admin.get("/v1/status").json()["workers"]}
        [answering] = [pid for pid in children - serving if listens(pid)]
        os.kill(answering, signal.SIGKILL)

        def back() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return counted(admin, "rawws_connections_opened") >= opened
            return False

        eventually(back)


def listens(pid: int) -> bool:
    """Tell whether a process has a TCP socket that listens."""
    inodes = set()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            inodes.add(str(each.readlink()))
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(line[3] == "0A" and f"socket:[{line[9]}]" in inodes for line in lines)


def test_a_drain_is_told_as_long_as_it_takes(tmp_path: Path) -> None:
    with served(tmp_path, "--admin", f"{LOOPBACK}:0", "--drain-timeout", "off") as process:
        with httpx.Client(base_url=admin_of(process), timeout=60) as admin, dial(process) as ws:
            assert admin.get("/readyz").text == "ok\n"
            ws.send(f"stay {tmp_path / 'over'}")
            assert int(ws.recv(timeout=60))
            process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed, match="1001"):
                ws.recv(timeout=60)
            eventually(lambda: admin.get("/readyz").text == "draining\n")
            assert admin.get("/readyz").status_code == 503
            (tmp_path / "over").touch()
        eventually(lambda: process.poll() is not None)
        assert process.poll() == 0


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    with served(tmp_path, "--admin", f"{LOOPBACK}:0", "--drain-grace", "3600") as process:
        with httpx.Client(base_url=admin_of(process), timeout=60) as admin, dial(process) as ws:
            process.send_signal(signal.SIGTERM)
            eventually(lambda: admin.get("/readyz").text == "draining\n")
            assert pid_of(ws)
            process.send_signal(signal.SIGTERM)
            eventually(lambda: process.poll() is not None)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_key_is_in_a_file_or_in_the_environment(tmp_path: Path, workers: int) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\nignored\n")
    ways: list[tuple[list[str], dict[str, str]]] = [
        (["--admin-key-file", str(file)], {}),
        ([], {"RAWWS_ADMIN_KEY": KEY}),
    ]
    for options, env in ways:
        with (
            served(tmp_path, "--admin", "0.0.0.0:0", *options, workers=workers, env=env) as process,
            httpx.Client(base_url=admin_of(process).replace("0.0.0.0", LOOPBACK), timeout=60) as admin,
        ):
            assert "admin at http://0.0.0.0:" in process.output
            assert " (with the key)\n" in process.output
            assert KEY not in process.output
            assert admin.get("/v1/status").status_code == 401
            bearer = {"Authorization": f"Bearer {KEY}"}
            eventually(lambda: len(admin.get("/v1/status", headers=bearer).json()["workers"]) == workers)  # noqa: B023
            assert admin.get("/healthz").status_code == 200


def test_one_process_answers_for_itself(tmp_path: Path) -> None:
    with served(tmp_path, workers=1, env={"RAWWS_ADMIN": f"http://[::1]:{free_port()}/"}) as process:
        assert "admin at http://[::1]:" in process.output
        with httpx.Client(base_url=admin_of(process), timeout=60) as admin, dial(process) as ws:
            [worker] = admin.get("/v1/status").json()["workers"]
            assert worker["pid"] == pid_of(ws) == process.pid


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_busy_port_is_one_line(tmp_path: Path, workers: str) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    with socket.create_server((LOOPBACK, 0)) as taken:
        number = taken.getsockname()[1]
        words = ["serve", "program:talk", "--port", "0", "--workers", workers, "--admin", f"{LOOPBACK}:{number}"]
        assert f"cannot listen on {LOOPBACK}, port {number} for --admin: " in fails(run(tmp_path, *words), 1)


@pytest.mark.parametrize(
    ("options", "status", "why"),
    [
        (["--admin", "8766"], 2, "'8766' is not HOST:PORT, for example 127.0.0.1:8766"),
        (["--admin", "a:99999"], 2, "is not HOST:PORT"),
        (
            ["--admin", "0.0.0.0:0"],
            1,
            "0.0.0.0 can be reached from other machines, needed for that is a key; ",
        ),
        (["--admin", ":::0"], 1, ":: can be reached from other machines"),
        (["--admin", "no.such.host.invalid:0"], 1, "cannot listen on no.such.host.invalid for --admin: "),
        (["--admin-key-file", "key"], 2, "--admin-key-file needs --admin"),
        (
            ["--admin", "127.0.0.1:0", "--admin-key-file", "nothing"],
            1,
            "cannot read --admin-key-file nothing: No such file",
        ),
        (["--admin", "127.0.0.1:0", "--admin-key-file", "key"], 1, "the key has 5 characters, allowed are 16 and more"),
        (["--admin", "127.0.0.1:0", "--admin-key-file", "empty"], 1, "the key has 0 characters"),
        (["--admin", "127.0.0.1:0", "--admin-key-file", "binary"], 1, "cannot read --admin-key-file binary: "),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, options: list[str], status: int, why: str) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "key").write_text("short\n")
    (tmp_path / "empty").write_text("")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert why in fails(run(tmp_path, "serve", "program:talk", "--port", "0", *options), status)


def test_the_key_is_no_option_of_the_environment() -> None:
    assert options_in({"RAWWS_ADMIN_KEY": KEY, "RAWWS_ADMIN": "a:1"}, []) == {"RAWWS_ADMIN": "--admin=a:1"}
