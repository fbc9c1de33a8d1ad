"""The client's part of the scenario, played by `aiohttp`, which sends no fragments."""

from __future__ import annotations

import asyncio
import sys

from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType

from tests.interop import scenario
from tests.interop.scenario import digest

DEFLATE_WINDOW = 15


async def play(session: ClientSession, base: str) -> scenario.Report:
    """Visit every path."""
    async with session.ws_connect(f"{base}/echo", compress=DEFLATE_WINDOW, autoping=False) as ws:
        echoed = [await echo(ws, message) for message in scenario.MESSAGES]
        await ws.ping(scenario.PING.encode())
        pong = await ws.receive()
        assert pong.type is WSMsgType.PONG
        closed_by_client = await close(ws)
    async with session.ws_connect(f"{base}/compressed", compress=DEFLATE_WINDOW) as ws:
        compressed = await echo(ws, scenario.COMPRESSIBLE)
        deflate = bool(ws.compress)
    async with session.ws_connect(f"{base}/fragments", compress=DEFLATE_WINDOW) as ws:
        fragments = [await receive(ws), await receive(ws)]
    async with session.ws_connect(f"{base}/ping") as ws:
        pinged = await ws.receive_str()
    async with session.ws_connect(f"{base}/close") as ws:
        end = await ws.receive()
        assert end.type is WSMsgType.CLOSE
        closed_by_server: scenario.Close = {"code": end.data, "reason": end.extra or ""}
    return {
        "echoed": echoed,
        "fragmented": None,
        "pong": pong.data.decode(),
        "closed_by_client": closed_by_client,
        "compressed": compressed,
        "deflate": deflate,
        "fragments": fragments,
        "pinged": pinged,
        "closed_by_server": closed_by_server,
    }


async def echo(ws: ClientWebSocketResponse, message: str | bytes) -> str:
    """Send a message and return the digest of what comes back."""
    await (ws.send_str(message) if isinstance(message, str) else ws.send_bytes(message))
    return await receive(ws)


async def receive(ws: ClientWebSocketResponse) -> str:
    """Return the digest of the next message."""
    message = await ws.receive()
    assert message.type in {WSMsgType.TEXT, WSMsgType.BINARY}, message
    return digest(message.data)


async def close(ws: ClientWebSocketResponse) -> scenario.Close:
    """Close, and return what was received at the end; the library keeps no reason of its own close."""
    close = scenario.CLOSE_BY_CLIENT
    await ws.close(code=close["code"], message=close["reason"].encode())
    return {"code": ws.close_code or 1006, "reason": ""}


async def main() -> None:
    """Play, and print the report."""
    async with ClientSession() as session:
        scenario.print_report(await play(session, sys.argv[1]))


if __name__ == "__main__":
    asyncio.run(main())
