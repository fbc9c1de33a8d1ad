"""What the tests of rawws.js share: its server, and programs of node that use it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import httpx

from tests.processes import LOOPBACK, MissingComponentError, Process, find_program

__all__ = ["HERE", "address", "node", "publish", "serving", "tsc"]

HERE: Final = Path(__file__).parent


def serving(port: int) -> Process:
    """Run server.py on this port."""
    return Process([sys.executable, HERE / "server.py", str(port)], listens=port)


def address(port: int | None) -> str:
    """Return the hub's URL at a port."""
    return f"http://{LOOPBACK}:{port}/topics"


def node(program: str, *arguments: Any) -> Process:
    """Run a program of this folder; what is no text is handed on as JSON."""
    found = find_program("node", "apt-get install nodejs npm (version 20 or later)")
    texts = [argument if isinstance(argument, str) else json.dumps(argument) for argument in arguments]
    # Node 22 has a WebSocket without this; node 20 needs it, and later ones accept it.
    return Process([found, "--experimental-websocket", "--no-warnings", HERE / program, *texts])


def tsc() -> Process:
    """Run the compiler of TypeScript."""
    found = find_program("node", "apt-get install nodejs npm (version 20 or later)")
    compiler = HERE / "node_modules" / "typescript" / "bin" / "tsc"
    if not compiler.exists():
        raise MissingComponentError("TypeScript is not installed: npm ci --prefix tests/javascript")
    return Process([found, compiler, "-p", HERE / "tsconfig.json"])


def publish(port: int | None, topic: str, data: str) -> None:
    """Publish by a request of its own."""
    answer = httpx.post(address(port), json={"publish": topic, "data": data}, trust_env=False)
    assert answer.status_code == 200, answer.text
