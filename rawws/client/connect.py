"""Client: URIs to connections, and lost connections to new ones (RFC 6455 sections 4.1 and 7.2.3)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from typing import TYPE_CHECKING, Any, cast

from rawws import clock
from rawws.net.keepalive import join_clients
from rawws.net.kernel import gone_after
from rawws.net.options import options_for
from rawws.net.settings import Settings
from rawws.net.websocket import WebSocket

from .dialing import TransportOptions, create_connection
from .opening import Opening, StreamOpening
from .options import ConnectOptions
from .pool import ask_over_http2, can_share
from .redirects import added_headers, follow_redirects
from .retrying import STABLE, is_permanent, retry_after
from .uri import parse_uri

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator
    from types import TracebackType
    from typing import TypeAlias, Unpack

    from .http2 import Http2ClientConnection
    from .options import ConnectKeywords, UnixConnectKeywords
    from .uri import Target

    Begin: TypeAlias = Callable[[Opening | StreamOpening], WebSocket]

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
    is not awaited (1013). With `http2`, WebSockets to one server share a connection of HTTP/2 where that offers it, by
    TLS. `proxy` is the URL of a proxy, None for none, True for what the environment says
    (HTTPS_PROXY, NO_PROXY, ...). `path` is that of a unix socket, `sock` a connected socket.

    Raises OSError where it cannot connect (TimeoutError, ssl.SSLCertVerificationError), HandshakeError where the server
    does not agree, InvalidURI for a bad URI, LocalProtocolError for what cannot be sent.
    """

    __slots__ = ("_ws", "logger", "options", "target", "transport")

    def __init__(self, uri: str, **options: Unpack[ConnectKeywords]) -> None:
        self.options = chosen = options_for("connect", ConnectOptions, **options)
        self.target = parse_uri(uri)
        self.transport = TransportOptions.of(chosen)._replace(
            sock=chosen.sock,
            engine=chosen.engine,
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
        latest: Opening | StreamOpening | None = None

        def begin(opening: Opening | StreamOpening) -> WebSocket:
            nonlocal latest
            latest = opening
            return WebSocket(self._settings(), opening)

        async def attempt(target: Target, transport: TransportOptions) -> WebSocket:
            return await self._attempt(target, transport, begin)

        seconds = self.options.open_timeout
        try:
            async with asyncio.timeout(seconds) as timeout:
                return await follow_redirects(self.target, self.transport, attempt)
        except TimeoutError:
            # The network has timeouts of its own.
            if not timeout.expired():
                raise
            assert latest is not None  # noqa: S101 - an attempt begins at once
            where, came = latest.target.authority, latest.progress()
            raise TimeoutError(f"no connection to {where} within {seconds:g} s: {came}") from None

    async def _attempt(self, target: Target, transport: TransportOptions, begin: Begin) -> WebSocket:
        headers = added_headers(target, self.target, self.options)
        opening = Opening(self.options, target, headers)
        ws = begin(opening)

        def factory() -> asyncio.Protocol:
            # Its class cannot say that it is one: a compiled class inherits no asyncio.Protocol.
            return cast("asyncio.Protocol", ws)

        async def ask(shared: Http2ClientConnection) -> WebSocket:
            opening = StreamOpening(self.options, target, headers)
            ws = begin(opening)
            with _leaving_nothing(ws, opening):
                shared.connect(opening.request(), ws, opening)
                await opening.opened
            return _delivered(ws, opening)

        with _leaving_nothing(ws, opening):
            if self.options.http2 and can_share(target, transport):
                found = await ask_over_http2(target, transport, self.logger, ask, factory, websocket=True)
                if found is not None:
                    return found
            else:
                await create_connection(factory, target, transport)
            await opening.opened
        return _delivered(ws, opening)

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
        join_clients(settings)
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


@contextlib.contextmanager
def _leaving_nothing(ws: WebSocket, opening: Opening | StreamOpening) -> Iterator[None]:
    """End a connection whose handshake fails within the block."""
    try:
        yield
    except BaseException:
        ws.abort()
        # Nobody waits for it any more, and nobody shall be told that it was not looked at.
        if not opening.opened.cancel() and not opening.opened.cancelled():
            opening.opened.exception()
        raise


def _delivered(ws: WebSocket, opening: Opening | StreamOpening) -> WebSocket:
    """Return a connection that is open, to which messages come from the next turn of the loop on."""
    if opening.options.handler is None:
        ws.settings.loop.call_soon(opening.deliver)
    return ws


def unix_connect(path: str, uri: str | None = None, **options: Unpack[UnixConnectKeywords]) -> connect:
    """Connect by a unix socket; `uri` is ws://localhost/, or wss://localhost/ with `ssl`, unless it is given."""
    return connect(uri or ("wss://localhost/" if options.get("ssl") else "ws://localhost/"), path=path, **options)
