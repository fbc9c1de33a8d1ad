"""Deflating: large messages, compressed and decompressed in pieces, between which others have their turn (RFC 7692).

At level 1 deflate takes 10 ms for 1 MiB, and inflate 2 ms: done at once, one message of 20 MiB stops the loop for a
quarter of a second. What one piece holds up is the connection's own: its messages keep their order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .awaitables import release
from .turns import turn_of

if TYPE_CHECKING:
    import asyncio

    from rawws.protocol.connection import Connection

    from .awaited import Claim

__all__ = ["INFLATED", "PIECE_SIZE", "Deflating", "DeflatingSocket"]

# Messages of up to this size are done at once, in 3 ms; so many bytes are inflated at a time, in 1 ms.
PIECE_SIZE = 262144
# What the pieces count for in a turn of the loop, which has 524,288: it takes three that are inflated, or five steps of
# 64 KiB that are deflated, and so 3 ms at most of all connections together.
INFLATED = 262144
DEFLATED = 131072


class DeflatingSocket(Protocol):
    """What is asked of a WebSocket."""

    @property
    def connection(self) -> Connection:
        """The core, which has what waits."""

    @property
    def lost(self) -> bool:
        """Whether the TCP connection is gone."""

    def bytes_written(self) -> int:
        """Return how many bytes were written, whatever became of them."""

    def claim(self, start: int, /) -> Claim:
        """Count what was written from `start` on as awaited."""

    def wrote(self) -> None:
        """See to it that what was gathered is written."""

    def on_deflated(self) -> None:
        """Go on: nothing waits any more."""

    async def drain(self) -> None:
        """Wait for the peer."""


class Deflating:
    """The work on what waits in the backlog of one connection: a step in each turn, until all is written.

    While it is done, it counts as who awaits what it writes; then those do who wait here.
    """

    __slots__ = ("_claims", "_done", "_loop", "_turn", "_waiters", "_ws")

    def __init__(self, ws: DeflatingSocket, loop: asyncio.AbstractEventLoop) -> None:
        self._ws = ws
        self._loop = loop
        self._turn = turn_of(loop)
        self._claims: list[Claim] = []
        self._waiters: list[asyncio.Future[None]] = []
        self._done = False
        self._turn.wait(self.step)

    def keep(self, claim: Claim) -> None:
        """Count these bytes as awaited as long as what is written here."""
        self._claims.append(claim)

    def step(self) -> None:
        """Compress one piece, and go on in the next turn; at the end of all, close if that is due."""
        if self._done:
            return
        ws = self._ws
        self._turn.spend(DEFLATED)
        start = ws.bytes_written()
        more = ws.connection.deflate_piece()
        if ws.connection.pending():
            self._claims.append(ws.claim(start))
            ws.wrote()
        if more:
            self._turn.wait(self.step)
        else:
            self.end()
            ws.on_deflated()

    def end(self) -> None:
        """Let those who wait go on: all is written, or the connection is lost."""
        self._done = True
        release(self._waiters)

    async def drain(self) -> None:
        """Wait until all is compressed and written, then for the peer. Raises ConnectionClosed where it is gone."""
        if not self._done:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter
        if self._ws.lost:
            raise self._ws.connection.closed()
        await self._ws.drain()
