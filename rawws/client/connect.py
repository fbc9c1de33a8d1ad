"""Client: URIs to connections, and lost connections to new ones (RFC 6455 sections 4.1 and 7.2.3)."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING, Any, cast

from rawws import clock
from rawws.net.keepalive import Keepalive
from rawws.net.kernel import gone_after
from rawws.net.settings import Settings
from rawws.net.socket import shared
from rawws.net.websocket import WebSocket

from .dialing import TransportOptions, create_connection
from .opening import Opening
from .options import ConnectOptions
from .redirects import added_headers, follow_redirects
from .retrying import STABLE, is_permanent, retry_after
from .uri import parse_uri

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator
    from types import TracebackType
    from typing import Unpack

    from .options import ConnectKeywords, UnixConnectKeywords
    from .uri import Target

__all__ = ["connect", "unix_connect"]


class connect:  # noqa: N801 - used as a function, as in `websockets`
    """Connect to a WebSocket server: `async with connect(uri) as ws`, or `ws = await connect(uri)`.

    `async for ws in connect(uri)` connects again and again: each time the connection is lost, or cannot be made, it
    waits for a random time, which is longer from failure to failure and where the server asks for it (Retry-After, the
    close codes 1012 and 1013), and gives a new one. It raises what never heals: a refusal (4xx but 408 and 429, a
    certificate, an answer that is no WebSocket handshake), and an end by the close codes 1002 and 1008.
    `on_retry(error, seconds)` is told why and how long it waits. `process_exception(error)` may decide about a
    connection that could not be made: it returns None to try again, or an exception to raise. `reconnect_delays()`
    gives an iterator over the waits in seconds; where it ends, the last error is raised.

    `uri` begins with ws:// or wss://. `handler` is a Handler, for callbacks instead of `recv`. `additional_headers` are
    sent to the origin of `uri` only, not where a redirect leads. Times are in seconds, None for no limit;
    `open_timeout` spans everything from the look-up of the name to the end of the handshake. `max_size` is that of a
    received message in bytes, after decompression (1009); `hard_limit` of what may wait for a slow peer, where `send`
    is not awaited (1013). `proxy` is the URL of a proxy, None for none, True for what the environment says
    (HTTPS_PROXY, NO_PROXY, ...). `path` is that of a unix socket, `sock` a connected socket.

    Raises OSError where it cannot connect (TimeoutError, ssl.SSLCertVerificationError), HandshakeError where the server
    does not agree, InvalidURI for a bad URI, LocalProtocolError for what cannot be sent.
    """

    __slots__ = ("_ws", "logger", "options", "target", "transport")

    def __init__(self, uri: str, **options: Unpack[ConnectKeywords]) -> None:
        self.options = chosen = ConnectOptions(**options)
        self.target = parse_uri(uri)
        self.transport = TransportOptions.of(chosen)._replace(
            sock=chosen.sock,
            close_timeout=chosen.close_timeout,
            gone_after=gone_after(chosen.ping_interval, chosen.ping_timeout),
        )
        self.logger = chosen.logger or logging.getLogger("rawws.client")
        self._ws: WebSocket | None = None

    # -- once

    def __await__(self) -> Generator[Any, None, WebSocket]:
        return self._connect().__await__()

    async def __aenter__(self) -> WebSocket:
        self._ws = await self
        return self._ws

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ws is not None:
            await self._ws.close()

    async def _connect(self) -> WebSocket:
        """Connect, and follow redirects, within `open_timeout`."""
        opening = self._open(self.target)

        async def attempt(target: Target, transport: TransportOptions) -> WebSocket:
            nonlocal opening
            opening = self._open(target)
            return await self._attempt(opening, transport)

        seconds = self.options.open_timeout
        try:
            async with asyncio.timeout(seconds) as timeout:
                return await follow_redirects(self.target, self.transport, attempt)
        except TimeoutError:
            # The network has timeouts of its own.
            if not timeout.expired():
                raise
            where, came = opening.target.authority, opening.progress()
            raise TimeoutError(f"no connection to {where} within {seconds:g} s: {came}") from None

    def _open(self, target: Target) -> Opening:
        return Opening(self.options, target, added_headers(target, self.target, self.options))

    async def _attempt(self, opening: Opening, transport: TransportOptions) -> WebSocket:
        ws = WebSocket(self._settings(), opening)
        try:
            # Its class cannot say that it is one: a compiled class inherits no asyncio.Protocol.
            await create_connection(lambda: cast("asyncio.Protocol", ws), opening.target, transport)
            await opening.opened
        except BaseException:
            ws.abort()
            # Nobody waits for it any more, and nobody shall be told that it was not looked at.
            if not opening.opened.cancel() and not opening.opened.cancelled():
                opening.opened.exception()
            raise
        if self.options.handler is None:
            ws.settings.loop.call_soon(opening.deliver)
        return ws

    def _settings(self) -> Settings:
        loop = asyncio.get_running_loop()
        options = self.options
        settings = Settings(loop, self.logger)
        settings.open_timeout = 0.0
        settings.close_timeout = options.close_timeout or 0.0
        settings.ping_interval = options.ping_interval or 0.0
        settings.ping_timeout = options.ping_timeout or 0.0
        settings.hard_limit = min(options.hard_limit or sys.maxsize, sys.maxsize)
        handler = options.handler
        if handler is not None:
            settings.take_callbacks(handler)
        # One sweep for all clients in a loop; a new one when there are none left, for it is as often as one needed.
        keepalive = shared(loop).clients
        if keepalive is None or not keepalive.connections:
            keepalive = shared(loop).clients = Keepalive(settings)
        settings.connections = keepalive.connections
        settings.keepalive = keepalive
        keepalive.tighten_interval(settings.shortest_time())
        return settings

    # -- again and again

    async def __aiter__(self) -> AsyncIterator[WebSocket]:
        if self.options.sock is not None:
            raise ValueError("sock is given, it can be used once: to connect again an address or path is needed")
        waits = self.options.reconnect_delays()
        while True:
            failure: Exception
            try:
                ws = await self
            except Exception as error:  # noqa: BLE001 - all that can go wrong on the way to a server
                failure = error
                verdict = self.options.process_exception(error)
                if verdict is not None:
                    raise verdict from (error if verdict is not error else error.__cause__)
            else:
                opened_at = clock.monotonic()
                try:
                    yield ws
                finally:
                    await ws.close()
                failure = ws.connection.closed()
                if is_permanent(failure):
                    raise failure
                if clock.monotonic() - opened_at >= STABLE:
                    waits = self.options.reconnect_delays()
            await self._wait(failure, waits)

    async def _wait(self, failure: Exception, waits: Iterator[float]) -> None:
        """Wait before the next attempt."""
        seconds = next(waits, None)
        if seconds is None:
            raise failure
        seconds += retry_after(failure)
        self.logger.info("connecting to %s again in %.1f s: %s", self.target.authority, seconds, failure)
        if self.options.on_retry is not None:
            self.options.on_retry(failure, seconds)
        await asyncio.sleep(seconds)


def unix_connect(path: str, uri: str | None = None, **options: Unpack[UnixConnectKeywords]) -> connect:
    """Connect by a unix socket; `uri` is ws://localhost/, or wss://localhost/ with `ssl`, unless it is given."""
    return connect(uri or ("wss://localhost/" if options.get("ssl") else "ws://localhost/"), path=path, **options)
