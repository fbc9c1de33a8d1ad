"""Client: URIs to connections, and lost connections to new ones (RFC 6455 sections 4.1 and 7.2.3)."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from rawws import clock
from rawws._version import __version__
from rawws.net.handlers import Handler, check_handler
from rawws.net.keepalive import Keepalive
from rawws.net.options import check_limits
from rawws.net.socket import shared
from rawws.net.websocket import Settings, WebSocket
from rawws.protocol.deflate import Compression
from rawws.protocol.http11 import Headers

from .dialing import Target, Way, added_headers, dial, follow, parse_uri
from .opening import Opening
from .retrying import asked_wait, full_jitter, never_heals

if TYPE_CHECKING:
    import socket
    import ssl as ssl_module
    from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

__all__ = ["connect", "unix_connect"]

USER_AGENT = f"rawws/{__version__}"
# A connection that lived for so many seconds was a good one: after its end the waits begin with the shortest.
STABLE = 10.0


def process_exception(error: Exception) -> Exception | None:
    """Return None for what may heal, so that `connect` tries again, and else the error, which it raises."""
    return error if never_heals(error) else None


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

    def __init__(
        self,
        uri: str,
        *,
        handler: Handler | None = None,
        origin: str | None = None,
        subprotocols: Sequence[str] | None = None,
        compression: str | Compression | None = "deflate",
        additional_headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        user_agent_header: str | None = USER_AGENT,
        proxy: str | bool | None = True,
        process_exception: Callable[[Exception], Exception | None] = process_exception,
        reconnect_delays: Callable[[], Iterator[float]] = full_jitter,
        on_retry: Callable[[Exception, float], object] | None = None,
        open_timeout: float | None = 10,
        close_timeout: float | None = 10,
        ping_interval: float | None = 20,
        ping_timeout: float | None = 20,
        max_size: int | None = 1 << 20,
        hard_limit: int = 1 << 20,
        ssl: ssl_module.SSLContext | bool | None = None,
        server_hostname: str | None = None,
        local_addr: tuple[str, int] | None = None,
        path: str | None = None,
        sock: socket.socket | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        if handler is not None:
            check_handler(handler, callbacks=True)
        if isinstance(subprotocols, str):
            raise TypeError(f"subprotocols is {subprotocols!r}, allowed is a list of them")
        if sum(option is not None for option in (path, sock, local_addr)) > 1:
            raise ValueError("of path, sock and local_addr more than one is given, allowed is one")
        check_limits(
            open_timeout=open_timeout,
            close_timeout=close_timeout,
            ping_interval=ping_interval,
            ping_timeout=ping_timeout,
            max_size=max_size,
            hard_limit=hard_limit,
        )
        self.target = parse_uri(uri)
        self.handler = handler
        self.origin = origin
        self.subprotocols = list(subprotocols or ())
        self.compression = Compression.of(compression)
        self.headers = list(Headers(additional_headers or ()).raw_items())
        self.user_agent = user_agent_header
        self.process_exception = process_exception
        self.reconnect_delays = reconnect_delays
        self.on_retry = on_retry
        self.open_timeout = open_timeout
        self.close_timeout = close_timeout
        self.ping_interval = ping_interval
        self.ping_timeout = ping_timeout
        self.max_size = max_size
        self.hard_limit = hard_limit
        self.way = Way(ssl, server_hostname, proxy, local_addr, path, sock)
        self.logger = logger or logging.getLogger("rawws.client")
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
        opening = Opening(self, self.target)

        async def attempt(target: Target, way: Way) -> WebSocket:
            nonlocal opening
            opening = Opening(self, target)
            return await self._attempt(opening, way)

        try:
            async with asyncio.timeout(self.open_timeout) as timeout:
                return await follow(self.target, self.way, attempt)
        except TimeoutError:
            # The network has timeouts of its own.
            if not timeout.expired():
                raise
            where, came = opening.target.authority, opening.progress()
            raise TimeoutError(f"no connection to {where} within {self.open_timeout:g} s: {came}") from None

    async def _attempt(self, opening: Opening, way: Way) -> WebSocket:
        ws = WebSocket(self._settings(), opening)
        try:
            await dial(lambda: ws, opening.target, way)
            await opening.answer
        except BaseException:
            ws.abort()
            # Nobody waits for the answer any more, and nobody shall be told that it was not looked at.
            if not opening.answer.cancel() and not opening.answer.cancelled():
                opening.answer.exception()
            raise
        if self.handler is None:
            ws.settings.loop.call_soon(opening.deliver)
        return ws

    def _settings(self) -> Settings:
        loop = asyncio.get_running_loop()
        settings = Settings(loop, self.logger)
        settings.open_timeout = 0.0
        settings.close_timeout = self.close_timeout or 0.0
        settings.ping_interval = self.ping_interval or 0.0
        settings.ping_timeout = self.ping_timeout or 0.0
        settings.hard_limit = self.hard_limit
        handler = self.handler
        if handler is not None:
            settings.on_message = handler.on_message
            settings.on_close = handler.on_close
            settings.on_drain = handler.on_drain
        # One sweep for all clients in a loop; a new one when there are none left, for it is as often as one needed.
        keepalive = shared(loop).clients
        if keepalive is None or not keepalive.settings.connections:
            keepalive = shared(loop).clients = Keepalive(settings)
        settings.connections = keepalive.settings.connections
        settings.keepalive = keepalive
        keepalive.suit(settings)
        return settings

    def headers_for(self, target: Target) -> list[tuple[str, str]]:
        """Return the added headers of a request."""
        return added_headers(target, self.target, self.headers, self.user_agent)

    # -- again and again

    async def __aiter__(self) -> AsyncIterator[WebSocket]:
        if self.way.sock is not None:
            raise ValueError("sock is given, it can be used once: to connect again an address or path is needed")
        waits = self.reconnect_delays()
        while True:
            failure: Exception
            try:
                ws = await self
            except Exception as error:  # noqa: BLE001 - all that can go wrong on the way to a server
                failure = error
                verdict = self.process_exception(error)
                if verdict is not None:
                    raise verdict from (error if verdict is not error else error.__cause__)
            else:
                opened_at = clock.monotonic()
                try:
                    yield ws
                finally:
                    await ws.close()
                failure = ws.connection.closed()
                if never_heals(failure):
                    raise failure
                if clock.monotonic() - opened_at >= STABLE:
                    waits = self.reconnect_delays()
            await self._wait(failure, waits)

    async def _wait(self, failure: Exception, waits: Iterator[float]) -> None:
        """Wait before the next attempt."""
        seconds = next(waits, None)
        if seconds is None:
            raise failure
        seconds += asked_wait(failure)
        self.logger.info("connecting to %s again in %.1f s: %s", self.target.authority, seconds, failure)
        if self.on_retry is not None:
            self.on_retry(failure, seconds)
        await asyncio.sleep(seconds)


def unix_connect(path: str, uri: str | None = None, **options: Any) -> connect:
    """Connect by a unix socket; `uri` is ws://localhost/, or wss://localhost/ with `ssl`, unless it is given."""
    return connect(uri or ("wss://localhost/" if options.get("ssl") else "ws://localhost/"), path=path, **options)
