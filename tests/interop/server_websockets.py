"""The server's part of the scenario, played by `websockets`."""

from __future__ import annotations

import asyncio
import contextlib

from websockets import ConnectionClosed
from websockets.asyncio.server import ServerConnection, serve

from tests.interop import scenario


async def play(ws: ServerConnection) -> None:
    """Play the part that the path asks for, until the client closes, and print what was received."""
    path = ws.request.path if ws.request else ""
    received = []
    if path == "/fragments":
        await ws.send(scenario.TEXT_FRAGMENTS)
        await ws.send(scenario.BINARY_FRAGMENTS)
    elif path == "/ping":
        await (await ws.ping(scenario.PING))
        await ws.send("pong")
    elif path == "/close":
        await ws.close(**scenario.CLOSE_BY_SERVER)
    with contextlib.suppress(ConnectionClosed):
        async for message in ws:
            received.append(scenario.digest(message))
            if path in {"/echo", "/compressed"}:
                await ws.send(message)
    close: scenario.Close = {"code": ws.close_code or 1006, "reason": ws.close_reason or ""}
    scenario.print_connection({"path": path, "received": received, "close": close})


async def main() -> None:
    """Serve until the process is ended."""
    async with serve(play, "127.0.0.1", 0) as server:
        print(f"listening on 127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
