"""Sources of events for the client under test: servers that do, connection by connection, what they are told to."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, final

from rawws.protocol.http11 import Request, parse_request

__all__ = ["Act", "Source", "answer", "chunk", "source", "stream"]

HOST: Final = "127.0.0.1"
HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


@final
class Source:
    """A running server: `requests` are those that came, `ended` how many of its connections are over."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.ended = 0
        self.port = 0
        self.scheme = "http"

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{self.scheme}://{HOST}:{self.port}/feed"

    @property
    def ids(self) -> list[str | None]:
        """The Last-Event-ID of each request."""
        return [request.headers.get("Last-Event-ID") for request in self.requests]


# What is done with one connection, whose request came.
Act = Callable[[asyncio.StreamReader, asyncio.StreamWriter, Request], Awaitable[None]]


def answer(data: bytes, *, hold: bool = False) -> Act:
    """Answer with these bytes, and then end the connection or hold it until the client does."""

    async def act(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: Request) -> None:
        writer.write(data)
        await writer.drain()
        if hold:
            await reader.read()

    return act


def stream(*pieces: bytes, hold: bool = False, head: bytes = HEAD) -> Act:
    """Answer with a stream of events, each piece in a segment of its own."""

    async def act(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: Request) -> None:
        for piece in (head, *pieces):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.001)
        if hold:
            await reader.read()

    return act


def chunk(data: bytes) -> bytes:
    """Return the chunk with these octets (RFC 9112 section 7.1)."""
    return b"%x\r\n%s\r\n" % (len(data), data)


@asynccontextmanager
async def source(*acts: Act, ssl: ssl.SSLContext | None = None, path: Path | None = None) -> AsyncIterator[Source]:
    """Run a server on a free port or a unix socket: each connection gets the next act, and those after the last, it."""
    served = Source()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.writers.append(writer)
        try:
            # The client went; uvloop calls it a RuntimeError.
            with contextlib.suppress(ConnectionError, RuntimeError, asyncio.IncompleteReadError):
                request = parse_request(await reader.readuntil(b"\r\n\r\n"))
                served.requests.append(request)
                await acts[min(len(served.requests), len(acts)) - 1](reader, writer, request)
        finally:
            served.ended += 1
            writer.close()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listening: Any
    if path is None:
        listening = await asyncio.start_server(begin, HOST, 0, ssl=ssl)
        served.port = listening.sockets[0].getsockname()[1]
    else:
        listening = await asyncio.start_unix_server(begin, str(path))
    if ssl is not None:
        served.scheme = "https"
    try:
        yield served
    finally:
        listening.close()
        for writer in served.writers:
            writer.transport.abort()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await listening.wait_closed()
