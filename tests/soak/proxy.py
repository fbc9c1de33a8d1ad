"""Proxy: TCP from here to there, badly: it cuts, delays, splits, merges and stalls what passes through it."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import random
from typing import Final, final

__all__ = ["Proxy"]

# Of each thing that happens to what one read brought, how often, in 1000; nothing happens to the rest.
CHANCES: Final = {"cut": 2, "stall": 2, "delay": 60, "split": 150, "merge": 100}
STALL: Final = 2.0
DELAY: Final = 0.05
MERGE: Final = 0.02
PIECES: Final = 8


@final
class Proxy:
    """A listener on a free port for one target; `counts` says what it did."""

    def __init__(self, target: tuple[str, int], dice: random.Random) -> None:
        self.target = target
        self.counts: collections.Counter[str] = collections.Counter()
        self._dice = dice
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._join(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry both directions until both ended, or one was cut."""
        self.counts["connections"] += 1
        there: asyncio.StreamWriter | None = None
        try:
            back, there = await asyncio.open_connection(*self.target)
            await asyncio.gather(self._carry(reader, there), self._carry(back, writer))
        except (OSError, RuntimeError):
            # uvloop raises RuntimeError for a write to what the other direction has just closed.
            pass
        finally:
            for end in (writer, there):
                if end is not None:
                    end.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one direction to its end."""
        while data := await reader.read(65536):
            what = self._choose()
            if what == "cut":
                raise ConnectionAbortedError
            if what == "merge":
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(MERGE):
                        data += await reader.read(65536)
            elif what in {"stall", "delay"}:
                await asyncio.sleep(self._dice.uniform(0, STALL if what == "stall" else DELAY))
            elif what == "split":
                await self._split(data, writer)
                continue
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    def _choose(self) -> str:
        number = self._dice.randrange(1000)
        for what, chance in CHANCES.items():
            number -= chance
            if number < 0:
                self.counts[what] += 1
                return what
        self.counts["untouched"] += 1
        return ""

    async def _split(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        """Write it in pieces, each in a segment of its own."""
        cuts = sorted(self._dice.sample(range(len(data) + 1), min(PIECES, len(data)) - 1)) if len(data) > 1 else []
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            writer.write(data[start:end])
            await writer.drain()
            await asyncio.sleep(0.0005)
