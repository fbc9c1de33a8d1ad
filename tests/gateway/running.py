"""Gateways as tests run them: in this loop, with clients and servers in Node."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import pusher

import rawws
from rawws.gateway.loading import read_config
from rawws.gateway.main import face_routes, gateway_options, new_gateway
from rawws.gateway.model import Gateway
from tests.processes import find_node

__all__ = ["APP", "KEY", "PATIENCE", "SECRET", "Running", "app_file", "gateway", "member", "node", "pair"]

NODE: Final = Path(__file__).with_name("node")
APP: Final = "3"
# Those of Pusher's own documentation, whose signatures are known.
KEY: Final = "278d425bdf160c739803"
SECRET: Final = "7ad3773142a6692b25b8"
PATIENCE: Final = 60


class Running(NamedTuple):
    """A gateway that runs in this loop."""

    gateway: Gateway
    server: rawws.Server
    port: int


def app_file(more: str = "", *, head: str = "") -> str:
    """Return a file with one app."""
    return f"""
{head}
[[app]]
id = "{APP}"
keys = [{{ key = "{KEY}", secret = "{SECRET}" }}]
client_events = true
{more}
"""


@asynccontextmanager
async def gateway(text: str | None = None) -> AsyncIterator[Running]:
    """Run a gateway."""
    made = new_gateway(read_config(app_file() if text is None else text))
    async with made, rawws.serve(face_routes(made), "127.0.0.1", 0, **gateway_options(made)) as server:
        yield Running(made, server, server.sockets[0].getsockname()[1])


async def member(port: int, channel: str, user: str) -> rawws.WebSocket:
    """Return a client of protocol 7 that is in a presence channel."""
    ws = await rawws.connect(f"ws://127.0.0.1:{port}/app/{KEY}?protocol=7")
    ident = json.loads(json.loads(await ws.recv())["data"])["socket_id"]
    library = pusher.Pusher(app_id=APP, key=KEY, secret=SECRET)
    signed = library.authenticate(channel, ident, {"user_id": user})
    await ws.send(json.dumps({"event": "pusher:subscribe", "data": {"channel": channel, **signed}}))
    while (message := json.loads(await ws.recv()))["event"] != "pusher_internal:subscription_succeeded":
        assert message["event"] != "pusher:subscription_error", message
    return ws


@asynccontextmanager
async def pair(text: str | None = None) -> AsyncIterator[tuple[Running, Running]]:
    """Run two gateways with one file; the fixture `engines` joins them."""
    async with gateway(text) as one, gateway(text) as other:
        yield one, other


async def node(script: str, *ports: int, patience: float = PATIENCE, **more: Any) -> None:
    """Run a scenario in Node, for so many seconds at most; fail with what it says."""
    given = {"app": APP, "key": KEY, "secret": SECRET, "ports": ports, **more}
    process = await asyncio.create_subprocess_exec(
        find_node(),
        script,
        json.dumps(given),
        cwd=NODE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(patience):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, output.decode()
    assert output == b"passed\n"
