"""Serving: an ASGI application in this process, on our ASGI server and in uvicorn with our class for `--ws`."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from rawws.integrations import asgi
from rawws.integrations.uvicorn import WebSocketProtocol
from tests.server.peers import eventually

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

# Who logs what an application raises.
LOGGERS = {"rawws": "rawws.server", "uvicorn": "uvicorn.error"}


@contextlib.asynccontextmanager
async def in_uvicorn(app: Any, **options: Any) -> AsyncIterator[tuple[str, uvicorn.Server]]:
    """A uvicorn with this application: its URL, and the server."""
    options = {"log_config": None, "lifespan": "off", "timeout_graceful_shutdown": 5, **options}
    config = uvicorn.Config(app, "127.0.0.1", 0, ws=WebSocketProtocol, **options)  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    await eventually(lambda: server.started or task.done())
    sock = server.servers[0].sockets[0]
    try:
        yield "" if sock.family == socket.AF_UNIX else f"ws://127.0.0.1:{sock.getsockname()[1]}", server
    finally:
        server.should_exit = True
        await task


@contextlib.asynccontextmanager
async def served(server: str, app: Any, **options: Any) -> AsyncIterator[str]:
    """One of the two with this application, and with options by their names in rawws: its URL."""
    if server == "uvicorn":
        async with in_uvicorn(app, **{f"ws_{name}": value for name, value in options.items()}) as (url, _):
            yield url
    else:
        async with asgi.serve(app, "127.0.0.1", 0, lifespan="off", **options) as running:
            yield f"ws://127.0.0.1:{running.sockets[0].getsockname()[1]}"


async def echo(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "bytes": event.get("bytes"), "text": event.get("text")})


async def exchange_messages(ws: ClientConnection) -> None:
    """Send an echo messages of both kinds, whole and in fragments, and a Ping."""
    for message in ("Grüße", b"\x00\xff", "", b"", "x" * 100_000):
        await ws.send(message)
        assert await ws.recv() == message
    await ws.send(["a", "message ", "in fragments"])
    assert await ws.recv() == "a" + "message " + "in fragments"
    assert await (await ws.ping()) >= 0


class Speaker:
    """An application that sends these events, and keeps what that raised."""

    def __init__(self, events: list[dict[str, Any]]) -> None:
        self.events = events
        self.errors: list[Exception] = []

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
        try:
            for event in self.events:
                await send(event)
        except Exception as error:
            self.errors.append(error)
            raise


class Recorder:
    """An application that accepts, and keeps what it receives up to the end."""

    def __init__(self, accept: dict[str, Any] | None = None) -> None:
        self.accept = {"type": "websocket.accept"} if accept is None else accept
        self.scope: dict[str, Any] = {}
        self.events: list[dict[str, Any]] = []
        self.send: Send
        self.ended = asyncio.Event()

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        self.scope, self.send = scope, send
        self.events.append(await receive())
        await send(self.accept)
        while self.events[-1]["type"] != "websocket.disconnect":
            self.events.append(await receive())
        self.events.append(await receive())
        self.ended.set()


async def end(ws: ClientConnection) -> tuple[int, str]:
    """Wait for the end; return the code and the reason that the server sent."""
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            await ws.recv()
    assert closed.value.rcvd is not None, "the connection ended without a Close frame"
    return closed.value.rcvd.code, closed.value.rcvd.reason


async def refused(url: str, **options: Any) -> tuple[int, dict[str, str], str]:
    with pytest.raises(InvalidStatus) as caught:
        async with connect(url, **options):
            pass
    response = caught.value.response
    return response.status_code, dict(response.headers), (response.body or b"").decode()
