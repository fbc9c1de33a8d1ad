"""Backends: HTTP servers that answer well, badly, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, final

import rawws
from tests.client.peers import port

__all__ = ["BAD_BACKENDS", "Backend", "BadBackend", "backend", "bad_backend"]

Endpoint: TypeAlias = Callable[[rawws.HttpRequest], Any]


@final
class Backend:
    """A server whose `answer` may be changed; `requests` are those that came."""

    def __init__(self, answer: Endpoint) -> None:
        self.answer = answer
        self.requests: list[rawws.HttpRequest] = []
        self.came = asyncio.Condition()
        self.port = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/backend"

    @property
    def events(self) -> list[dict[str, Any]]:
        """What came, read as JSON."""
        return [json.loads(request.body) for request in self.requests]

    async def take(self, request: rawws.HttpRequest) -> Any:
        """Answer a request."""
        async with self.came:
            self.requests.append(request)
            self.came.notify_all()
        answer = self.answer(request)
        return await answer if asyncio.iscoroutine(answer) else answer

    async def wait_for(self, count: int) -> None:
        """Wait until so many requests came."""
        async with asyncio.timeout(60), self.came:
            await self.came.wait_for(lambda: len(self.requests) >= count)


@asynccontextmanager
async def backend(answer: Endpoint) -> AsyncIterator[Backend]:
    """Run a server."""
    running = Backend(answer)
    methods = ("GET", "POST", "PUT", "DELETE")
    routes = rawws.Routes([rawws.Route(path, running.take, methods) for path in ("/backend", "/backend/{rest:path}")])
    async with rawws.serve(routes, "127.0.0.1", 0) as server:
        running.port = port(server)
        yield running


BadAnswer: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]
OK = b"HTTP/1.1 200 OK\r\n"


async def hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Never answer."""
    await reader.read()


async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close the connection in the place of an answer."""
    writer.transport.abort()


async def drips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send an octet now and then."""
    writer.write(OK + b"Content-Length: 100000\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"x")
        await asyncio.sleep(0.05)


async def endless_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a body without an end."""
    writer.write(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"10000\r\n" + bytes(65536) + b"\r\n")
        await writer.drain()


async def endless_headers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send headers without an end."""
    writer.write(OK)
    while not writer.is_closing():
        writer.write(b"X-Header: " + bytes([120]) * 1000 + b"\r\n")
        await writer.drain()


async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """End in the middle of a body."""
    writer.write(OK + b"Content-Length: 100\r\n\r\nhalf")
    await writer.drain()


async def no_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Speak another protocol."""
    writer.write(b"220 mail.example ESMTP\r\n")
    await writer.drain()


async def bomb(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send what is small here and large when it is decoded."""
    writer.write(OK + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nbomb")
    await writer.drain()


# What a call of each comes to.
BAD_BACKENDS: dict[str, tuple[BadAnswer, str]] = {
    "hangs": (hangs, "timeout"),
    "resets": (resets, "broken"),
    "drips": (drips, "timeout"),
    "endless body": (endless_body, "too_large"),
    "endless headers": (endless_headers, "broken"),
    "half": (half, "broken"),
    "no HTTP": (no_http, "broken"),
    "bomb": (bomb, "encoded"),
}


@final
class BadBackend:
    """A server that answers badly; `connections` counts those that were made."""

    def __init__(self) -> None:
        self.connections = 0
        self.connected = asyncio.Event()
        self.port = 0

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/bad"


@asynccontextmanager
async def bad_backend(answer: BadAnswer) -> AsyncIterator[BadBackend]:
    """Run a server that answers each request so."""
    running = BadBackend()
    tasks: set[asyncio.Task[Any]] = set()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running.connections += 1
        running.connected.set()
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await reader.readuntil(b"\r\n\r\n")
            await answer(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    running.port = server.sockets[0].getsockname()[1]
    try:
        yield running
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
