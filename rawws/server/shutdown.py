"""Drain: a server with connections to none, each told to go, in the time that there is (RFC 6455 section 7.4.1, 1001).

1. Readiness says no (`rawws.readyz`), and for `grace` seconds all else goes on: load balancers look elsewhere.
2. What came before is taken, then the listeners close. HTTP requests that are answered now get their answer, silent
   HTTP connections end.
3. WebSockets, event streams and polls are told to go, in batches: those who come back do not all come at once.
4. At the deadline what is left is aborted, and its handlers are cancelled.
"""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rawws import clock
from rawws.net.websocket import WebSocket
from rawws.protocol.closing import serialize_close
from rawws.protocol.opcodes import CloseCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from rawws.net.settings import Settings
    from rawws.net.socket import AsyncSocket

    from .stats import ServerStats

__all__ = ["Drain", "drain"]

# How often it is seen whose turn it is, whether busy handlers are done, and whether all went by themselves, in seconds.
LOOK = 0.02
# Turns of the loop in which a connection that the kernel holds is accepted and its request is read; asyncio needs four.
TURNS = 8


@dataclass(frozen=True, slots=True)
class Drain:
    """How a server ends on a signal, or by `server.drain()`; times in seconds.

    For `grace` it goes on while `readyz` answers 503. Then it takes no new connections, and tells those it has to go
    with `code` and `reason`: `batch` of them at once, the next after about `interval`; larger ones where they would
    take over half of `timeout`. A handler in the middle of a message has `patience` to answer it first. What is left
    `timeout` after the grace is aborted; None waits for ever.
    """

    grace: float = 0.0
    # A server of less ends at once. Phoenix tells 10,000 to go every 2 s; a new TLS handshake costs about 1 ms.
    batch: int = 1000
    interval: float = 1.0
    # Kubernetes kills 30 s after it asked (terminationGracePeriodSeconds).
    timeout: float | None = 25.0
    patience: float = 1.0
    # "Going away". 1012, a restart, asks clients to stay away for 5 to 30 s (IANA's registry, RFC 6455 section 11.7).
    # A function is given each WebSocket, where the protocols above have codes of their own.
    code: int | Callable[[WebSocket], int] = int(CloseCode.GOING_AWAY)
    reason: str = ""

    def __post_init__(self) -> None:
        for name in ("grace", "interval", "patience"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}, allowed are numbers from 0 on")
        for name in ("batch", "timeout"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} is {value}, allowed are numbers above 0")
        serialize_close(self.code if isinstance(self.code, int) else CloseCode.GOING_AWAY, self.reason)

    def size(self, count: int) -> int:
        """Return how many of so many connections are told at once."""
        if self.timeout is None or not self.interval:
            return self.batch
        rounds = max(1, int(self.timeout / 2 / self.interval))
        return max(self.batch, -(-count // rounds))


class DrainedServer(Protocol):
    """What of a server is ended."""

    settings: Settings
    counters: ServerStats

    @property
    def handlers(self) -> int:
        """How many handlers, and answers to requests, are running."""

    def stop_listening(self) -> None:
        """Take no new connections."""

    def close_gracefully(self, ws: AsyncSocket, code: int, reason: str) -> None:
        """Tell one connection to go."""

    def abort(self) -> None:
        """End all connections now."""

    async def wait_closed(self) -> None:
        """Wait until all connections and their handlers are done."""


async def drain(server: DrainedServer, drain_options: Drain) -> None:
    """End a server."""
    logger, counters = server.settings.logger, server.counters
    began, aborted = clock.monotonic(), counters.aborted
    logger.info("draining %d connections", len(server.settings.connections))
    if drain_options.grace:
        await asyncio.sleep(drain_options.grace)
    # A listener that closes resets what waits in it, and a connection what was not read: on a busy loop that is many
    # requests, and no client knows whether it may ask again.
    for _ in range(TURNS):
        await asyncio.sleep(0)
    server.stop_listening()
    try:
        async with asyncio.timeout(drain_options.timeout):
            await _close_all(server, drain_options)
            await server.wait_closed()
    except TimeoutError:
        text = "%d connections and %d handlers are left after %g s, and aborted"
        logger.warning(text, len(server.settings.connections), server.handlers, drain_options.timeout)
        for ws in tuple(server.settings.connections):
            if ws.handler is not None and not ws.handler.lasts:
                # Whoever waits for a response is told that there will be none: 503.
                ws.handler.expire()
        # What was gathered is written.
        await asyncio.sleep(0)
        server.abort()
        await server.wait_closed()
    text = "drained in %.1f s: %d connections were told to go, %d aborted"
    logger.info(text, clock.monotonic() - began, counters.drained, counters.aborted - aborted)


def code_for(drain_options: Drain, ws: AsyncSocket, logger: logging.Logger) -> int:
    """Return the close code for a connection: one that cannot be chosen, or that no Close frame has, is 1001."""
    if isinstance(drain_options.code, int):
        return drain_options.code
    if not isinstance(ws, WebSocket) or ws.handler is not None:
        # No Close frame ends it.
        return CloseCode.GOING_AWAY
    try:
        code = drain_options.code(ws)
        serialize_close(code, drain_options.reason)
    except Exception:
        logger.exception("the code of a drain could not be chosen")
        return CloseCode.GOING_AWAY
    return code


async def _close_all(server: DrainedServer, drain_options: Drain) -> None:
    """Tell all connections to go."""
    told: list[AsyncSocket] = []
    for ws in tuple(server.settings.connections):
        if ws.handler is None or ws.handler.lasts:
            told.append(ws)
        else:
            server.close_gracefully(ws, CloseCode.GOING_AWAY, drain_options.reason)
    size, at, due = drain_options.size(len(told)), 0, 0.0
    # Those whose turn it is, and until when they are waited for.
    busy: dict[AsyncSocket, float] = {}
    while (at < len(told) or busy) and server.settings.connections:
        now = clock.monotonic()
        if at < len(told) and now >= due:
            busy |= dict.fromkeys(told[at : at + size], now + drain_options.patience)
            at += size
            due = now + drain_options.interval * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
        for ws, until in list(busy.items()):
            if now >= until or ws.handler is not None or ws.is_idle():
                del busy[ws]
                server.counters.drained += not ws.lost
                server.close_gracefully(ws, code_for(drain_options, ws, server.settings.logger), drain_options.reason)
        if busy or at < len(told):
            await asyncio.sleep(LOOK)
