"""Held messages: what is sent while a message in fragments is under way, to its place behind that (RFC 6455 5.4).

Laws:
1. Nothing overtakes: it is sent in its order, as soon as the message in fragments ends.
2. Who awaits such a message waits until then. What nobody awaits is bounded by the hard limit, as in any buffer.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, final

from rawws.protocol.opcodes import CloseCode

from .awaitables import Started, later, release

if TYPE_CHECKING:
    from rawws.protocol.connection import Connection

    from .interfaces import Follower
    from .settings import Settings

__all__ = ["HeldMessages"]

# What a message takes beside its bytes: else empty ones would be without a limit.
HELD_COST = 256


class MessageSender(Protocol):
    """The connection on which they are sent."""

    settings: Settings
    connection: Connection

    @property
    def lost(self) -> bool:
        """Whether the connection is gone."""

    def send(self, message: str | bytes, text: None, compress: bool | None) -> object:
        """Send a message."""

    def fail(self, code: int, reason: str) -> None:
        """Fail the connection."""

    async def drain(self) -> None:
        """Wait until the write buffer is under its low-water mark."""

    def follow(self, follower: Follower) -> None:
        """Tell of the end of the connection."""

    def unfollow(self, follower: Follower) -> None:
        """Tell no more."""


@final
class HeldMessages:
    """The messages that wait for the end of one in fragments: a Follower of its connection."""

    __slots__ = ("_dropped", "_messages", "_task", "_unawaited", "_waiters", "_ws")

    def __init__(self, ws: MessageSender) -> None:
        self._ws = ws
        self._messages: list[tuple[str | bytes, bool | None]] = []
        # The connection closed before their time.
        self._dropped = False
        # How many bytes (of a str, characters) nobody waits for.
        self._unawaited = 0
        self._waiters: list[asyncio.Future[None]] = []
        # That of the message in fragments.
        self._task = asyncio.current_task()
        ws.follow(self)

    def add(self, message: str | bytes, compress: bool | None) -> Started[None]:
        """Hold a message; return an awaitable. Raises ConnectionClosed over the hard limit, or at the end."""
        ws, limit = self._ws, self._ws.settings.hard_limit
        if self._unawaited > limit and ws.connection.may_send():
            ws.fail(CloseCode.TRY_AGAIN_LATER, f"over {limit} bytes wait behind a message in fragments")
        if not ws.connection.may_send():
            raise ws.connection.closed()
        self._messages.append((message, compress))
        size = len(message) + HELD_COST
        self._unawaited += size
        return later(lambda: self._wait(size))

    async def _wait(self, size: int) -> None:
        """Wait until a message is sent, and the write buffer has room. Raises ConnectionClosed at the end."""
        # What gives the parts would wait for itself.
        if self._messages and not self._ws.lost and asyncio.current_task() is not self._task:
            waiter: asyncio.Future[None] = self._ws.settings.loop.create_future()
            self._waiters.append(waiter)
            self._unawaited -= size
            try:
                await waiter
            finally:
                self._unawaited += size
        if self._ws.lost or self._dropped:
            raise self._ws.connection.closed()
        await self._ws.drain()

    def end(self) -> None:
        """Send them: the message in fragments is over."""
        self._ws.unfollow(self)
        held, self._messages = self._messages, []
        try:
            self._dropped = not self._ws.connection.may_send()
            for message, compress in held if not self._dropped else ():
                self._ws.send(message, None, compress)
        finally:
            release(self._waiters)

    # -- a Follower

    def drained(self) -> None:
        """Do nothing: room in the write buffer is not what they wait for."""

    def lost(self) -> None:
        """Let those go on who wait."""
        release(self._waiters)
