"""Pool: servers to the connections of HTTP/2 that all who go there share, and to those of HTTP/1.1 that each has alone.

Laws:
1. One dials at a time: those who come meanwhile share what it finds, or why there is nothing.
2. Who is cancelled stops no other.
3. Each event loop has a pool of its own. A connection is in it while it has streams.
"""

from __future__ import annotations

import asyncio
import ssl as ssl_module
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from rawws import clock
from rawws.net.keepalive import join_clients
from rawws.net.loops import of_loop
from rawws.net.settings import Settings
from rawws.net.websocket import WebSocket

from .dialing import create_connection
from .http2 import Http1RequiredError, Http2ClientConnection, StreamRefusedError

if TYPE_CHECKING:
    import logging
    from collections.abc import Awaitable, Callable

    from .dialing import TransportOptions
    from .transports import ProtocolFactory
    from .uri import Target

__all__ = ["Http2Pool", "ask_over_http2", "can_share"]

Result = TypeVar("Result")
# What two must have in common to share a connection: the server, how it is reached, and who it must be.
Key: TypeAlias = "tuple[object, ...]"

ALPN = ("h2", "http/1.1")
# How often a request is sent that the server refused before it did anything: as Chromium does.
TRIES = 3
# A server that does not offer what is needed is not asked again for so many seconds; so many are remembered.
REMEMBERED_FOR = 300.0
REMEMBERED = 64


class Http2Pool:
    """The connections that are shared in one event loop."""

    __slots__ = ("connections", "dialing", "loop", "plain")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.connections: dict[Key, list[Http2ClientConnection]] = {}
        # Done when a connection is there, or none can be; cancelled where another has to dial.
        self.dialing: dict[Key, asyncio.Future[None]] = {}
        # What is to go over HTTP/1.1, and until when: all of a server, or its WebSockets.
        self.plain: dict[tuple[Key, bool], float] = {}

    async def reach(
        self,
        target: Target,
        options: TransportOptions,
        factory: ProtocolFactory,
        logger: logging.Logger,
        *,
        websocket: bool,
    ) -> Http2ClientConnection | None:
        """Return a connection on which a stream can begin at once, None where `factory` made a protocol of HTTP/1.1.

        Raises what `create_connection` raises, and InvalidMessage.
        """
        key = key_of(target, options)
        while not self.is_plain(key, websocket):
            shared = next((shared for shared in self.connections.get(key, ()) if shared.takes_streams()), None)
            if shared is None:
                dialing = self.dialing.get(key)
                if dialing is not None:
                    await asyncio.wait([dialing])
                    if not dialing.cancelled():
                        dialing.result()
                    continue
                shared = await self._dial_first(key, self._dial(key, target, options, factory, logger))
                if shared is None:
                    return None
            if shared.offers_websockets or not websocket:
                return shared
            self.remember_plain(key, websocket=True)
            shared.end_if_idle()
        await create_connection(factory, target, options)
        return None

    async def _dial_first(
        self, key: Key, dial: Awaitable[Http2ClientConnection | None]
    ) -> Http2ClientConnection | None:
        """Connect while the others wait for that."""
        dialing = self.dialing[key] = self.loop.create_future()
        try:
            shared = await dial
        except Exception as error:
            dialing.set_exception(error)
            # Maybe nobody waits.
            dialing.exception()
            raise
        finally:
            del self.dialing[key]
            # Where it is not done, who waits dials.
            dialing.cancel()
        return shared

    async def _dial(
        self,
        key: Key,
        target: Target,
        options: TransportOptions,
        factory: ProtocolFactory,
        logger: logging.Logger,
    ) -> Http2ClientConnection | None:
        settings = Settings(self.loop, logger)
        join_clients(settings)
        shared = Http2ClientConnection(self.loop, lambda shared: self.forget(key, shared))
        switch = AlpnSwitch(lambda: cast("asyncio.Protocol", WebSocket(settings, shared)), factory)
        try:
            await create_connection(lambda: switch, target, options._replace(alpn=ALPN))
            if not switch.is_http2:
                self.remember_plain(key, websocket=False)
                return None
            self.connections.setdefault(key, []).append(shared)
            await shared.settled
        except BaseException:
            # The one that waits for the settings may be cancelled when they are there.
            if switch.is_http2:
                shared.end_if_idle()
            # Nobody waits for it any more, and nobody shall be told that it was not looked at.
            if not shared.settled.cancel() and not shared.settled.cancelled():
                shared.settled.exception()
            raise
        return shared

    def forget(self, key: Key, shared: Http2ClientConnection) -> None:
        """Take out a connection that has ended."""
        there = self.connections.get(key, [])
        if shared in there:
            there.remove(shared)
            if not there:
                del self.connections[key]

    def is_plain(self, key: Key, websocket: bool) -> bool:
        """Tell whether something is known to go over HTTP/1.1."""
        now = clock.monotonic()
        return any(self.plain.get((key, kind), 0.0) > now for kind in {websocket, False})

    def remember_plain(self, key: Key, *, websocket: bool) -> None:
        """Have all, or the WebSockets, of a server go over HTTP/1.1 for a while."""
        self.plain.pop((key, websocket), None)
        self.plain[key, websocket] = clock.monotonic() + REMEMBERED_FOR
        if len(self.plain) > REMEMBERED:
            del self.plain[next(iter(self.plain))]


class AlpnSwitch(asyncio.Protocol):
    """Stands on a connection until the protocol is there that server and client agreed on (RFC 7301)."""

    def __init__(self, http2: ProtocolFactory, http1: ProtocolFactory) -> None:
        self._http2 = http2
        self._http1 = http1
        self._protocol: asyncio.Protocol | None = None
        self.is_http2 = False

    def connection_made(self, transport: Any) -> None:
        """Hand the connection over."""
        tls = transport.get_extra_info("ssl_object")
        self.is_http2 = tls is not None and tls.selected_alpn_protocol() == "h2"
        self._protocol = self._http2() if self.is_http2 else self._http1()
        transport.set_protocol(self._protocol)
        self._protocol.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Hand on what comes by way of who has connected this."""
        assert self._protocol is not None  # noqa: S101 - nothing comes before
        self._protocol.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Hand on the end in the same way."""
        if self._protocol is not None:
            self._protocol.connection_lost(exc)


def can_share(target: Target, options: TransportOptions) -> bool:
    """Tell whether a target can be reached by a connection of HTTP/2: by TLS, whose handshake agrees on the version."""
    return target.secure and options.in_memory is None


async def ask_over_http2(
    target: Target,
    options: TransportOptions,
    logger: logging.Logger,
    ask: Callable[[Http2ClientConnection], Awaitable[Result]],
    factory: ProtocolFactory,
    *,
    websocket: bool,
) -> Result | None:
    """Return what `ask` gives on a shared connection, None where `factory` made a protocol of HTTP/1.1 for one alone.

    What a server refused before it did anything is tried anew, and over HTTP/1.1 where it wants that.
    """
    pool = of_loop(POOLS, asyncio.get_running_loop(), Http2Pool)
    tries = 0
    while (shared := await pool.reach(target, options, factory, logger, websocket=websocket)) is not None:
        tries += 1
        try:
            return await ask(shared)
        except StreamRefusedError:
            if tries == TRIES:
                raise
        except Http1RequiredError:
            pool.remember_plain(key_of(target, options), websocket=websocket)
        finally:
            shared.end_if_idle()
    return None


def key_of(target: Target, options: TransportOptions) -> Key:
    """Return what those who share a connection have in common."""
    ssl = options.ssl if isinstance(options.ssl, ssl_module.SSLContext) else None
    return target.origin, ssl, options.server_hostname, options.proxy, options.local_addr, options.path


POOLS: dict[asyncio.AbstractEventLoop, Http2Pool] = {}
