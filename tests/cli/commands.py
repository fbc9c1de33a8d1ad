"""The command line as tests run it, in a folder as a newcomer has it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from websockets.sync.client import ClientConnection

import rawws.sync
from tests.processes import LOOPBACK, ROOT, Process

HANDLERS = """
import rawws

async def echo(ws):
    async for message in ws:
        await ws.send(message)

class Shout(rawws.Handler):
    def on_message(self, ws, message):
        ws.send(message.upper())

class Echo:
    async def __call__(self, ws):
        await echo(ws)

class Picky(rawws.Handler):
    def __init__(self, room):
        pass

class Namespace:
    shout = Shout()

instance = Echo()
number = 7

def not_async(ws):
    pass

async def two(ws, path):
    pass

async def app(scope, receive, send):
    pass
"""


ASGI = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": scope["path"].encode()})

def make():
    return app

def fail():
    raise ValueError("no settings")

async def chat(ws):
    pass

number = 7
"""


def fill(folder: Path) -> Path:
    """Make a directory as a newcomer has it: one module, and one of every kind of broken one."""
    (folder / "chat.py").write_text(HANDLERS)
    (folder / "needy.py").write_text("import a_package_that_nobody_has\n")
    # What it needs has a name that its own begins with.
    (folder / "needy_too.py").write_text("import needy_to\n")
    (folder / "torn.py").write_text("def half(:\n")
    (folder / "raising.py").write_text("\n\nprint({}['key'])\n")
    return folder


def rawws_command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "rawws", *map(str, arguments)]


def run(here: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "NO_COLOR": "1"}
    command = rawws_command(*arguments)
    return subprocess.run(command, cwd=here, env=env, capture_output=True, text=True, timeout=60, check=False)


def start(here: Path, *arguments: str | Path, env: Mapping[str, str] | None = None) -> Process:
    process = Process(rawws_command(*arguments), cwd=here, env=env)
    try:
        process.wait_for(lambda output: "Ctrl-C ends it" in output, "it says where it listens")
    except BaseException:
        process.stop()
        raise
    return process


def port(process: Process) -> int:
    found = re.search(r"://\S+:(\d+) ", process.output)
    assert found is not None, process.output
    return int(found[1])


def echoes(ws: ClientConnection | rawws.sync.ClientConnection, message: str = "Grüße") -> str | bytes:
    ws.send(message)
    return ws.recv(timeout=60)


def fails(found: subprocess.CompletedProcess[str], status: int) -> str:
    """Check the manners of a failure, and return its one line."""
    assert found.returncode == status, found.stderr
    assert found.stdout == ""
    lines = found.stderr.splitlines()
    if status == 2:
        assert lines[0].startswith("usage: ")
        lines = [line for line in lines if line.startswith("python -m rawws")]
    assert len(lines) == 1, found.stderr
    return lines[0]


def get(number: int, path: str) -> tuple[int, bytes]:
    with socket.create_connection((LOOPBACK, number), timeout=60) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {LOOPBACK}:{number}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body
