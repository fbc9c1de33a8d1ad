"""The client's part of the scenario, played by `rawws.connect`."""

from __future__ import annotations

import asyncio
import contextlib
import sys

import rawws
from rawws import _twins
from tests.interop import scenario
from tests.interop.scenario import digest


async def play(base: str) -> scenario.Report:
    """Visit every path."""
    async with rawws.connect(f"{base}/echo") as ws:
        echoed = [await echo(ws, message) for message in scenario.MESSAGES]
        fragmented = [await echo(ws, parts) for parts in scenario.FRAGMENTED]
        assert await ws.ping(scenario.PING) > 0
        await ws.close(**scenario.CLOSE_BY_CLIENT)
        closed_by_client = close_of(ws)
    async with rawws.connect(f"{base}/compressed") as ws:
        compressed = await echo(ws, scenario.COMPRESSIBLE)
        assert ws.response is not None
        deflate = "permessage-deflate" in ws.response.headers.get("Sec-WebSocket-Extensions", "")
    async with rawws.connect(f"{base}/fragments") as ws:
        fragments = [digest(await ws.recv()), digest(await ws.recv())]
    async with rawws.connect(f"{base}/ping") as ws:
        pinged = await ws.recv(decode=True)
    async with rawws.connect(f"{base}/close") as ws:
        with contextlib.suppress(rawws.ConnectionClosed):
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


async def echo(ws: rawws.WebSocket, message: str | bytes | list[str] | list[bytes]) -> str:
    """Send a message, in fragments if it is a list, and return the digest of what comes back."""
    await ws.send(message)
    return digest(await ws.recv())


def close_of(ws: rawws.WebSocket) -> scenario.Close:
    """Return what was received at the end."""
    return {"code": ws.close_code or 1006, "reason": ws.close_reason or ""}


if __name__ == "__main__":
    print(f"rawws, {_twins.running()}", flush=True)
    scenario.print_report(asyncio.run(play(sys.argv[1])))
