"""Moving from `websockets`: its programs, run as they are and with no more changed than their imports.

`programs/` holds what that library's documentation teaches, in our own words: echo, chat, broadcast, authentication by
first message and by header, health check, shutdown at SIGTERM, reconnection. Each test sees the same of both.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

import rawws
from tests.processes import LOOPBACK, Process

PROGRAMS: Final = Path(__file__).with_name("programs")
TIMEOUT: Final = 60.0

Run = Callable[..., Process]


def migrated(program: str) -> str:
    """Change the imports of a program, and nothing else: every name is in `rawws` itself."""
    return re.sub(r"^from websockets[\w.]* import ", "from rawws import ", program, flags=re.MULTILINE)


@pytest.fixture(params=["websockets", "rawws"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """Return a function that runs a program with the library of this test."""

    def start(name: str, *arguments: str) -> Process:
        text = (PROGRAMS / name).read_text(encoding="utf-8")
        path = tmp_path / name
        path.write_text(migrated(text) if request.param == "rawws" else text, encoding="utf-8")
        return Process([sys.executable, path, *arguments], listens=not arguments)

    return start


def uri(server: Process) -> str:
    return f"ws://{LOOPBACK}:{server.port}"


def output_of(client: Process) -> list[str]:
    with client:
        return client.result(TIMEOUT).splitlines()


@pytest.mark.parametrize("path", sorted(PROGRAMS.glob("*.py")), ids=lambda path: path.stem)
def test_only_the_imports_change(path: Path) -> None:
    before = path.read_text(encoding="utf-8").splitlines()
    after = migrated("\n".join(before)).splitlines()
    changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert changed
    assert all(re.fullmatch(r"from websockets\.\w+(\.\w+)? import [\w, ]+", old) for old, _ in changed)
    assert all(re.fullmatch(r"from rawws import [\w, ]+", new) for _, new in changed)
    assert not any("websockets" in line for line in after if "import" in line)


def test_echo(run: Run) -> None:
    with run("echo_server.py") as server:
        output = output_of(run("echo_client.py", uri(server)))
    assert output == [
        "Hello world!",
        "b'\\x00\\x01\\x02'",
        "in three parts",
        "b'as bytes'",
        "latency True",
        "nothing more",
        "ConnectionClosedOK 1000 1000 done",
        "1000",
    ]


async def test_chat(run: Run) -> None:
    with run("chat.py") as server:
        async with rawws.connect(uri(server)) as alice:
            assert json.loads(await alice.recv()) == {"type": "users", "count": 1}
            async with rawws.connect(uri(server)) as bob:
                for person in (alice, bob):
                    assert json.loads(await person.recv()) == {"type": "users", "count": 2}
                await bob.send("hello")
                for person in (alice, bob):
                    assert json.loads(await person.recv()) == {"type": "say", "text": "hello"}
            assert json.loads(await alice.recv()) == {"type": "users", "count": 1}
    assert "Traceback" not in server.output


async def test_broadcast(run: Run) -> None:
    with run("broadcast_ticks.py") as server:
        async with rawws.connect(uri(server)) as one:
            first = int(await one.recv())
            for _ in range(3):
                other = await rawws.connect(uri(server))
                await other.recv()
                other.abort()
            rest = [int(await one.recv()) for _ in range(20)]
    assert rest == list(range(first + 1, first + 21))
    assert "Traceback" not in server.output


async def test_authentication_by_first_message(run: Run) -> None:
    with run("first_message.py") as server:
        async with rawws.connect(uri(server)) as ws:
            await ws.send("s3cret")
            assert await ws.recv() == "Hello alice!"
            await ws.send("hi")
            assert await ws.recv() == "alice: hi"
        async with rawws.connect(uri(server)) as ws:
            await ws.send("wrong")
            with pytest.raises(rawws.ConnectionClosedError, match=r"received 1011 \(authentication failed\)"):
                await ws.recv()
        # One that leaves without a word.
        async with rawws.connect(uri(server)):
            pass


def test_authentication_by_header(run: Run) -> None:
    with run("header.py") as server:
        output = output_of(run("header_client.py", uri(server)))
    assert output == [
        "Hello alice! You asked for /news",
        "1000",
        "401 Bearer Missing token",
        "",
        "401 Invalid token",
        "",
    ]


async def test_health_check(run: Run) -> None:
    with run("health.py") as server:

        def get() -> tuple[int, bytes]:
            with urllib.request.urlopen(f"http://{LOOPBACK}:{server.port}/healthz", timeout=60) as response:
                return response.status, response.read()

        assert await asyncio.to_thread(get) == (200, b"OK\n")
        async with rawws.connect(uri(server)) as ws:
            await ws.send("hi")
            assert await ws.recv() == "hi"


async def test_shutdown_at_sigterm(run: Run) -> None:
    with run("shutdown.py") as server:
        async with rawws.connect(uri(server)) as ws:
            await ws.send("hi")
            assert await ws.recv() == "hi"
            os.kill(server.pid, signal.SIGTERM)
            with pytest.raises(rawws.ConnectionClosedOK, match="received 1001"):
                await ws.recv()
        output = await asyncio.to_thread(server.result, TIMEOUT)
    assert output.splitlines()[1:] == ["saved 1001", "done"]


def test_reconnect_loop(run: Run) -> None:
    with run("restless.py") as server:
        output = output_of(run("reconnect.py", uri(server)))
    assert output == ["round 0", "round 1", "1011", "round 2", "403"]
