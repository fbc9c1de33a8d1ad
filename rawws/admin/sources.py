"""Sources: one process to what can be asked of it: here by a call, of a worker over a unix socket.

An ask is a JSON object with `ask`, the name of a question, and what belongs to it; the answer is another one.

Laws:
1. Who looks waits at most `PATIENCE`: a worker that is busy keeps nobody. Who acts waits longer, and keeps no look.
2. A worker that is gone is told from one that is busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import TYPE_CHECKING, Any, Final, Protocol, final

from rawws.net.transports import abort_transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = [
    "Answer",
    "Inspected",
    "LocalSource",
    "Source",
    "SourceBusyError",
    "SourceGoneError",
    "WorkerSource",
    "offer",
]

logger = logging.getLogger("rawws.admin")

Answer = dict[str, Any]

# How long a worker has for its answer, in seconds. It has it in less than 10 ms; one that takes longer is busy.
PATIENCE: Final = 1.0
# And for what it is told to do: that is done once, and not as well by the next look.
ACT_PATIENCE: Final = 10.0
# Of a line, in bytes: 10,000 topics with long names in JSON; and of a question.
LONGEST_ANSWER: Final = 16 << 20
LONGEST_ASK: Final = 1 << 16


class SourceGoneError(Exception):
    """There is no such process: it ended, or has not begun."""


class SourceBusyError(Exception):
    """The process did not answer in time."""


class Inspected(Protocol):
    """What answers: an Inspector."""

    async def answer(self, ask: Answer, /) -> Answer:
        """Return the answer."""


class Source(Protocol):
    """A process that can be asked."""

    async def ask(self, ask: Answer, /) -> Answer:
        """Return the answer. Raises SourceGoneError or SourceBusyError where there is none."""

    async def act(self, ask: Answer, /) -> Answer:
        """Return the answer to what changes something. One that was busy may do it yet. Raises as `ask`."""


@final
class LocalSource:
    """This process."""

    __slots__ = ("_inspected",)

    def __init__(self, inspected: Inspected) -> None:
        self._inspected = inspected

    async def ask(self, ask: Answer) -> Answer:
        """Return the answer."""
        return await self._inspected.answer(ask)

    async def act(self, ask: Answer) -> Answer:
        """Do it and return the answer."""
        return await self._inspected.answer(ask)


@final
class WorkerSource:
    """The worker that offers its figures at a path, whichever has that place now."""

    __slots__ = ("_lock", "_path", "_streams")

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = asyncio.Lock()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, ask: Answer) -> Answer:
        """Return the answer. One goes after the other."""
        async with self._lock:
            return await self._exchange(ask, PATIENCE)

    async def act(self, ask: Answer) -> Answer:
        """Return the answer to what changes something, over a connection of its own."""
        acting = WorkerSource(self._path)
        try:
            return await acting._exchange(ask, ACT_PATIENCE)
        finally:
            acting.close()

    async def _exchange(self, ask: Answer, patience: float) -> Answer:
        try:
            async with asyncio.timeout(patience):
                if self._streams is None:
                    self._streams = await asyncio.open_unix_connection(self._path, limit=LONGEST_ANSWER)
                reader, writer = self._streams
                writer.write(json.dumps(ask).encode() + b"\n")
                await writer.drain()
                found: Answer = json.loads(await reader.readuntil())
                return found
        except TimeoutError:
            # Its answer may still come, and would be taken for the next one.
            self.close()
            raise SourceBusyError from None
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            self.close()
            raise SourceGoneError from None
        except asyncio.CancelledError:
            # As above: whoever asked has left.
            self.close()
            raise

    def close(self) -> None:
        """Let go of the connection."""
        streams, self._streams = self._streams, None
        if streams is not None:
            abort_transport(streams[1].transport)


@contextlib.asynccontextmanager
async def offer(path: str, inspected: Inspected) -> AsyncIterator[None]:
    """Answer at a path what is asked there, meanwhile."""
    writers: set[asyncio.StreamWriter] = set()

    async def answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        try:
            while True:
                answer = await inspected.answer(json.loads(await reader.readuntil()))
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        except Exception:
            logger.exception("a question about this process could not be answered")
        finally:
            writers.discard(writer)
            writer.close()

    server = await asyncio.start_unix_server(answer_all, path, limit=LONGEST_ASK)
    try:
        yield
    finally:
        server.close()
        for writer in writers:
            abort_transport(writer.transport)
        await server.wait_closed()
