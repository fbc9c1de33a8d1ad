"""Parts: the programs that the interop tests run, each with the command that installs what it needs."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from tests.processes import ROOT, MissingComponentError, Process, find_node, find_program

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CLIENTS", "SERVERS", "Client", "Server", "entries", "python_command", "running"]

HERE: Final = Path(__file__).parent
NODE: Final = HERE / "node"

CHROMIUM: Final = (
    "--headless",
    "--no-sandbox",  # it refuses to run as root with its sandbox
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",  # with the next two: no connection but ours
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--remote-debugging-port=0",  # keeps it running with its page; nobody connects
)


class Client(NamedTuple):
    """A client: the command for the server's base address, and what it can do.

    `inflates`: it agrees on deflate and reads it; `deflates`: it also compresses what it sends. `answers_close_with` is
    its code in answer to a Close, None where it is, as usual, the one that it received. A browser prints nothing: it
    sends its report to the server.
    """

    command: Callable[[str], list[str | Path]]
    fragments: bool = False
    pings: bool = False
    inflates: bool = True
    deflates: bool = True
    answers_close_with: int | None = None
    is_browser: bool = False


class Server(NamedTuple):
    """A server: its command, and what it can do.

    `deflates`: it agrees on deflate. `tells_reasons`: it tells its application the reason of a Close, and what
    answered its own. `answers_close_with` is its code in answer to a Close, None where that is the one that came.
    """

    command: Callable[[], list[str | Path]]
    deflates: bool = True
    tells_reasons: bool = True
    answers_close_with: int | None = None


def python_command(program: str) -> list[str | Path]:
    """Return the command that runs a program of this folder with this Python."""
    return [sys.executable, HERE / program]


def node_command(program: str) -> list[str | Path]:
    """Return the command that runs a program of `node/`, whose packages must be installed."""
    if not (NODE / "node_modules" / "ws").is_dir():
        raise MissingComponentError(f"the packages of node are not installed: npm ci --prefix {NODE.relative_to(ROOT)}")
    return [find_node(), NODE / program]


def _python(program: str) -> Callable[[str], list[str | Path]]:
    return lambda base: [*python_command(program), f"ws://{base}"]


CLIENTS: Final = {
    "websockets": Client(_python("client_websockets.py"), fragments=True, pings=True),
    "aiohttp": Client(_python("client_aiohttp.py"), pings=True, answers_close_with=1000),
    "websocket-client": Client(
        _python("client_websocket_client.py"),
        fragments=True,
        pings=True,
        inflates=False,
        deflates=False,
        answers_close_with=1000,
    ),
    "node-ws": Client(lambda base: [*node_command("client_ws.mjs"), f"ws://{base}"], fragments=True, pings=True),
    "node-builtin": Client(lambda base: [*node_command("client_builtin.mjs"), f"ws://{base}"], deflates=False),
    "chromium": Client(
        lambda base: [find_program("chromium", "apt-get install chromium"), *CHROMIUM, f"http://{base}/"],
        is_browser=True,
    ),
}

SERVERS: Final = {
    "websockets": Server(lambda: python_command("server_websockets.py")),
    "aiohttp": Server(lambda: python_command("server_aiohttp.py"), answers_close_with=1000),
    "node-ws": Server(lambda: node_command("server_ws.mjs")),
    "uvicorn": Server(lambda: [*python_command("server_asgi.py"), "uvicorn"]),
    "granian": Server(lambda: [*python_command("server_asgi.py"), "granian"], deflates=False, tells_reasons=False),
}


def entries(output: str, kind: str) -> list[dict[str, object]]:
    """Return the objects of the lines that begin with `kind`: "report" or "connection"."""
    return [json.loads(line.removeprefix(kind)) for line in output.splitlines() if line.startswith(f"{kind} {{")]


@contextmanager
def running(client: Client, base: str) -> Iterator[Process]:
    """Run a client in a home folder of its own, which it leaves nothing in."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        env = {"HOME": home, "XDG_CONFIG_HOME": home, "XDG_CACHE_HOME": home, "TMPDIR": home}
        with Process(client.command(base), env=env) as process:
            yield process
