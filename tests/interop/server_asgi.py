"""The server's part of the scenario as an ASGI application, which sends whole messages and no pings of its own.

`server_asgi.py uvicorn` runs it there, with pings of the server in short intervals, `server_asgi.py granian` there.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from tests.interop import scenario
from tests.processes import LOOPBACK, free_port


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Serve one connection, or say at the start where this is."""
    if scope["type"] == "lifespan":
        await receive()
        if "INTEROP_PORT" in os.environ:
            print(f"listening on {LOOPBACK}:{os.environ['INTEROP_PORT']}", flush=True)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await receive()
    await send({"type": "websocket.accept"})
    await begin(scope["path"], send)
    received = []
    while (event := await receive())["type"] == "websocket.receive":
        message = event["text"] if event.get("text") is not None else event["bytes"]
        received.append(scenario.digest(message))
        if scope["path"] in {"/echo", "/compressed"}:
            await send_message(send, message)
    close: scenario.Close = {"code": event.get("code") or 1005, "reason": event.get("reason") or ""}
    scenario.print_connection({"path": scope["path"], "received": received, "close": close})


async def begin(path: str, send: Any) -> None:
    """Send what the path asks for before the client sends anything."""
    if path == "/fragments":
        await send_message(send, "".join(scenario.TEXT_FRAGMENTS))
        await send_message(send, b"".join(scenario.BINARY_FRAGMENTS))
    elif path == "/ping":
        # Some pings of the server, which closes where no pong comes.
        await asyncio.sleep(0.5)
        await send_message(send, "pong")
    elif path == "/close":
        await send({"type": "websocket.close", **scenario.CLOSE_BY_SERVER})


async def send_message(send: Any, message: str | bytes) -> None:
    """Send a message of either kind."""
    await send({"type": "websocket.send", "text" if isinstance(message, str) else "bytes": message})


async def run_uvicorn() -> None:
    """Serve until the process is ended."""
    import uvicorn  # noqa: PLC0415 - one of the two

    config = uvicorn.Config(
        app, LOOPBACK, 0, log_level="warning", ws_ping_interval=0.1, ws_ping_timeout=1.0, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started and not serving.done():  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.01)
    if server.started:
        print(f"listening on {LOOPBACK}:{server.servers[0].sockets[0].getsockname()[1]}", flush=True)
    await serving


def run_granian() -> None:
    """Serve until the process is ended."""
    from granian import Granian  # noqa: PLC0415 - one of the two
    from granian.constants import Interfaces  # noqa: PLC0415

    os.environ["INTEROP_PORT"] = str(port := free_port())
    # The worker is another process, which prints where it listens when its application has started.
    Granian(
        "tests.interop.server_asgi:app", address=LOOPBACK, port=port, interface=Interfaces.ASGI, log_enabled=False
    ).serve()


if __name__ == "__main__":
    if sys.argv[1] == "uvicorn":
        asyncio.run(run_uvicorn())
    else:
        run_granian()
