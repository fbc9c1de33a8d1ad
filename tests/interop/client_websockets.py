"""The client's part of the scenario, played by `websockets`."""

from __future__ import annotations

import asyncio
import contextlib
import sys

from websockets import ConnectionClosed
from websockets.asyncio.client import ClientConnection, connect

from tests.interop import scenario
from tests.interop.scenario import digest


async def play(base: str) -> scenario.Report:
    """Visit every path."""
    async with connect(f"{base}/echo") as ws:
        echoed = [await echo(ws, message) for message in scenario.MESSAGES]
        fragmented = [await echo(ws, message) for message in scenario.FRAGMENTED]
        await (await ws.ping(scenario.PING))
        await ws.close(**scenario.CLOSE_BY_CLIENT)
        closed_by_client = close_of(ws)
    async with connect(f"{base}/compressed") as ws:
        compressed = await echo(ws, scenario.COMPRESSIBLE)
        deflate = bool(ws.protocol.extensions)
    async with connect(f"{base}/fragments") as ws:
        fragments = [digest(await ws.recv()), digest(await ws.recv())]
    async with connect(f"{base}/ping") as ws:
        pinged = str(await ws.recv())
    async with connect(f"{base}/close") as ws:
        with contextlib.suppress(ConnectionClosed):
            await ws.recv()
        closed_by_server = close_of(ws)
    return {
        "echoed": echoed,
        "fragmented": fragmented,
        "pong": scenario.PING,  # the library compares the payload
        "closed_by_client": closed_by_client,
        "compressed": compressed,
        "deflate": deflate,
        "fragments": fragments,
        "pinged": pinged,
        "closed_by_server": closed_by_server,
    }


async def echo(ws: ClientConnection, message: str | bytes | list[str] | list[bytes]) -> str:
    """Send a message, in fragments if it is a list, and return the digest of what comes back."""
    await ws.send(message)
    return digest(await ws.recv())


def close_of(ws: ClientConnection) -> scenario.Close:
    """Return what was received at the end."""
    return {"code": ws.close_code or 1006, "reason": ws.close_reason or ""}


if __name__ == "__main__":
    scenario.print_report(asyncio.run(play(sys.argv[1])))
