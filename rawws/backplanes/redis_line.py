"""Redis lines: connections to a Redis, on which what is asked in one turn of the loop leaves together (RESP2).

Laws:
1. Answers come in the order of what was asked; each is what it is, an error too.
2. Whatever is asked is answered, or fails with BackplaneAway when the line is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
from collections import deque
from typing import TYPE_CHECKING, Any, Final, final

from rawws.topics.backplane import new_answer

from .session import fail_answers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from redis.asyncio import Connection

__all__ = ["RedisLine", "close_lines", "open_connection"]

# What the package says of a connection that ended, wherever it found out.
LOST: Final = re.compile(r"Connection (lost|closed by server)\.$|while (reading from|writing to) ")


@final
class RedisLine:
    """One connection to a Redis."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.waiting: deque[asyncio.Future[Any]] = deque()
        self.out: list[bytes] = []
        self.heard = 0.0
        self._loop = asyncio.get_running_loop()
        self._flushing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open the connection, as `open_connection`."""
        await open_connection(self.connection)

    def send(self, *words: str | bytes | int) -> None:
        """Send a command."""
        self.out.append(packed(words))
        if self._flushing is None or self._flushing.done():
            self._flushing = self._loop.create_task(self._flush())

    def ask(self, *words: str | bytes | int) -> asyncio.Future[Any]:
        """Send a command, and return its answer."""
        self.send(*words)
        answer = new_answer(self._loop)
        self.waiting.append(answer)
        return answer

    async def read(self) -> Any:
        """Return what comes next, an error as what it is."""
        from redis.exceptions import ResponseError  # noqa: PLC0415

        try:
            found = await self.connection.read_response(disable_decoding=True, timeout=math.inf)
        except ResponseError as error:
            found = error
        self.heard = self._loop.time()
        return found

    async def answer(self) -> None:
        """Hand out answers until the connection is lost."""
        while True:
            found = await self.read()
            waiting = self.waiting.popleft()
            if waiting.done():
                continue
            if isinstance(found, Exception):
                waiting.set_exception(found)
            else:
                waiting.set_result(found)

    async def close(self, reason: str) -> None:
        """End the connection, and fail all that waits."""
        fail_answers(self.waiting, reason)
        self.waiting.clear()
        flushing = self._flushing
        if flushing is not None:
            flushing.cancel()
        # First, and without a turn of the loop: whoever is cancelled behind it leaves nothing open.
        await self.connection.disconnect(nowait=True)
        if flushing is not None:
            await asyncio.wait([flushing])

    async def _flush(self) -> None:
        from redis.exceptions import RedisError  # noqa: PLC0415

        # The reader finds out, where this fails: also in the middle of it, where the package then has no writer.
        with contextlib.suppress(OSError, RedisError, AttributeError):
            # On one that is lost, the package would connect anew, and what is sent would overtake what is not answered.
            while self.out and self.connection.is_connected:
                out, self.out = b"".join(self.out), []
                await self.connection.send_packed_command(out, check_health=False)


async def close_lines(lines: Iterable[RedisLine], reason: str) -> None:
    """Close several, whatever becomes of one of them."""
    async with contextlib.AsyncExitStack() as closing:
        for line in lines:
            closing.push_async_callback(line.close, reason)


def packed(words: tuple[str | bytes | int, ...]) -> bytes:
    """Return a command as the Redis takes it. That of the package takes twice as long."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        data = word if isinstance(word, bytes) else str(word).encode()
        parts += (b"$%d\r\n" % len(data), data, b"\r\n")
    return b"".join(parts)


async def open_connection(connection: Connection) -> None:
    """Open a connection. Raises what the package does, with what may be wrong where the Redis ended it without a word.

    TLS 1.3 is open to a client before the server has looked for its certificate: what that says of it may be lost.
    """
    from redis.asyncio.connection import SSLConnection  # noqa: PLC0415
    from redis.exceptions import ConnectionError as LostError  # noqa: PLC0415

    try:
        await connection.connect()  # type: ignore[no-untyped-call]
    except LostError as error:
        if LOST.search(str(error)) and isinstance(connection, SSLConnection) and not connection.certfile:
            hint = "does it want a certificate of its clients: ssl_certfile=FILE and ssl_keyfile=FILE?"
            raise LostError(f"{error} ({hint})") from error
        raise
