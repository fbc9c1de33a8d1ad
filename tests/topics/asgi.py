"""Servers of ASGI: the same application in uvicorn, with its own WebSockets and with ours, and on our server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

import uvicorn

from rawws.integrations import asgi
from rawws.integrations.uvicorn import WebSocketProtocol
from tests.server.peers import eventually

__all__ = ["SERVERS", "in_asgi"]

SERVERS: Final = ("uvicorn", "uvicorn with ours", "rawws")


@contextlib.asynccontextmanager
async def in_asgi(server: str, app: Any, **options: Any) -> AsyncIterator[str]:
    """Serve an application: its HOST:PORT."""
    if server == "rawws":
        async with asgi.serve(app, "127.0.0.1", 0, lifespan="auto", close_timeout=1, **options) as running:
            yield f"127.0.0.1:{running.sockets[0].getsockname()[1]}"
        return
    protocol: Any = WebSocketProtocol if server == "uvicorn with ours" else "websockets-sansio"
    config = uvicorn.Config(
        app, "127.0.0.1", 0, ws=protocol, log_config=None, timeout_graceful_shutdown=1, lifespan="auto"
    )
    serving = uvicorn.Server(config)
    task = asyncio.create_task(serving.serve())
    await eventually(lambda: serving.started or task.done())
    try:
        yield f"127.0.0.1:{serving.servers[0].sockets[0].getsockname()[1]}"
    finally:
        serving.should_exit = True
        await task
