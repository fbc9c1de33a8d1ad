"""What the tests of rawws.js share: its server, and programs of node that use it."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Any, Final

import httpx

from tests.processes import LOOPBACK, NODE_PROCESSORS, MissingComponentError, Process, find_node

__all__ = ["ESBUILD", "HERE", "MODULES", "address", "node", "publish", "serving", "tsc"]

HERE: Final = Path(__file__).parent
MODULES: Final = HERE / "node_modules"
ESBUILD: Final = MODULES / "@esbuild" / f"linux-{NODE_PROCESSORS.get(platform.machine())}" / "bin" / "esbuild"


def serving(port: int) -> Process:
    """Run server.py on this port."""
    return Process([sys.executable, HERE / "server.py", str(port)], listens=port)


def address(port: int | None) -> str:
    """Return the hub's URL at a port."""
    return f"http://{LOOPBACK}:{port}/topics"


def node(program: str, *arguments: Any, version: str = "22", module: Path | None = None) -> Process:
    """Run a program of this folder; what is no text is handed on as JSON. asks.mjs may take another rawws.js."""
    texts = [argument if isinstance(argument, str) else json.dumps(argument) for argument in arguments]
    return Process(
        [find_node(version), HERE / program, *texts], env={} if module is None else {"RAWWS_JS": str(module)}
    )


def tsc() -> Process:
    """Run the compiler of TypeScript."""
    compiler = HERE / "node_modules" / "typescript" / "bin" / "tsc"
    if not compiler.exists():
        raise MissingComponentError("TypeScript is not installed: npm ci --prefix tests/javascript")
    # It would cache itself in the temporary folder.
    env = {"NODE_DISABLE_COMPILE_CACHE": "1"}
    return Process([find_node(), compiler, "-p", HERE / "tsconfig.json"], env=env)


def publish(port: int | None, topic: str, data: str) -> None:
    """Publish by a request of its own."""
    answer = httpx.post(address(port), json={"publish": topic, "data": data}, trust_env=False, timeout=60)
    assert answer.status_code == 200, answer.text
