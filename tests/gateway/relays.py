"""Relays: what stands between clients and gateways, as a load balancer does, or a network that loses answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, final

__all__ = ["Relay", "relay"]

READ = 65536


@final
class Relay:
    """Passes connections on to the port that `target` returns.

    Of the first `cuts` answers nothing goes on: the connection ends when they come. In the head of a request, the first
    of `replaced` becomes the second.
    """

    def __init__(self, target: Callable[[], int]) -> None:
        self.target = target
        self.cuts = 0
        self.replaced: tuple[bytes, bytes] = (b"", b"")
        self.port = 0

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what comes of a connection, and what is answered."""
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target())
        asks = asyncio.ensure_future(self._pass_on(reader, far_writer))
        try:
            while data := await far_reader.read(READ):
                if self.cuts:
                    self.cuts -= 1
                    writer.transport.abort()
                    return
                writer.write(data)
        finally:
            asks.cancel()
            far_writer.transport.abort()
            await asyncio.gather(asks, return_exceptions=True)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The head of a request, whole.
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(head.replace(*self.replaced) if self.replaced[0] else head)
        while data := await reader.read(READ):
            writer.write(data)
        writer.close()


@asynccontextmanager
async def relay(target: Callable[[], int]) -> AsyncIterator[Relay]:
    """Run one."""
    made = Relay(target)
    tasks: set[asyncio.Task[Any]] = set()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await made.take(reader, writer)
        # What was written goes out first.
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
