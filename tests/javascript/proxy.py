"""A TCP proxy that breaks HTTP as proxies do, each kind of request in its own way, as long as it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Final, Self, final

from tests.processes import LOOPBACK, free_port

__all__ = ["Proxy"]

REFUSAL: Final = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@final
class Proxy:
    """Forwards a port to another: `with Proxy(port) as proxy`, and then `proxy.rules["websocket"] = "refuse"`.

    Kinds are "websocket", "stream" and "other". Rules are "strip" (Upgrade is taken off), "refuse" (502), "hold" (what
    the server sends is kept back), ("cut", n) and ("stall", n) behind so many bytes from the server; none passes all.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = free_port()
        self.rules: dict[str, str | tuple[str, int]] = {}
        self.seen: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._pairs: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    def break_all(self) -> None:
        """Break every connection that there is."""
        self._loop.call_soon_threadsafe(lambda: [task.cancel() for task in self._pairs])

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._take, LOOPBACK, self.port)
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in self._pairs:
            task.cancel()
        await asyncio.gather(*self._pairs, return_exceptions=True)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pairs.add(task)
        try:
            await Pair(self, reader, writer).run()
        except asyncio.CancelledError:
            pass
        finally:
            self._pairs.discard(task)


@final
class Pair:
    """A connection of a client, and that to the server."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.proxy = proxy
        self.client = reader, writer
        self.kind = "other"
        self.passed = 0

    async def run(self) -> None:
        writers = [self.client[1]]
        try:
            reader, writer = await asyncio.open_connection(LOOPBACK, self.proxy.target)
            writers.append(writer)
            tasks = [
                asyncio.ensure_future(self.forward_requests(writer)),
                asyncio.ensure_future(self.forward_answers(reader)),
            ]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        except OSError:
            pass  # the server is away
        finally:
            for each in writers:
                each.transport.abort()

    async def forward_requests(self, writer: asyncio.StreamWriter) -> None:
        while data := await self.client[0].read(1 << 16):
            if data.startswith((b"GET ", b"POST ")):
                head = data.lower()
                upgrade = b"upgrade: websocket" in head
                self.kind = "websocket" if upgrade else "stream" if b"text/event-stream" in head else "other"
                self.passed = 0
                self.proxy.seen.append(self.kind)
                rule = self.proxy.rules.get(self.kind)
                if rule == "refuse":
                    self.client[1].write(REFUSAL)
                    await self.client[1].drain()
                    return
                if rule == "strip":
                    lines = data.split(b"\r\n")
                    data = b"\r\n".join(
                        line for line in lines if not line.lower().startswith((b"upgrade:", b"connection:"))
                    )
            writer.write(data)
            await writer.drain()

    async def forward_answers(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(1 << 16):
            match self.proxy.rules.get(self.kind):
                case "hold":
                    continue
                case ("cut", int(limit)) if self.passed + len(data) > limit:
                    self.client[1].write(data[: max(0, limit - self.passed)])
                    with contextlib.suppress(OSError):
                        await self.client[1].drain()
                    await asyncio.sleep(0.05)  # an abort takes what is not sent yet
                    return
                case ("stall", int(limit)) if self.passed + len(data) > limit:
                    self.passed = limit  # from now on nothing passes
                    continue
            self.passed += len(data)
            self.client[1].write(data)
            await self.client[1].drain()
