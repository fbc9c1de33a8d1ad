"""Connections without asyncio: what a thread calls, to what a WebSocket does in the background.

Laws:
1. Each call is one coroutine in the background, and raises what that raises.
2. What comes as a time limit passes, or Ctrl-C, is given to the next call.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Literal, TypeAlias, final, overload

from rawws.client.connect import connect as connect_async
from rawws.errors import ConnectionClosedOK
from rawws.protocol.opcodes import CloseCode

from .background import background

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType
    from typing import Unpack

    from rawws.client.options import ConnectKeywords
    from rawws.net.socket import SocketAddress
    from rawws.net.websocket import WebSocket
    from rawws.protocol.http11 import HttpResponse, Request

    from .background import BackgroundLoop

__all__ = ["ClientConnection", "connect"]

Data: TypeAlias = str | bytes | bytearray | memoryview


def connect(uri: str, **options: Unpack[ConnectKeywords]) -> ClientConnection:
    """Return a connection to a WebSocket server, which is closed at the end of a `with` block, or by its `close`.

    The options are those of `rawws.connect`, without `handler`, and so is what it raises.
    """
    if options.get("handler") is not None:
        raise TypeError("handler is given, callbacks need an event loop: rawws.connect(uri, handler=...)")
    opening = connect_async(uri, **options)
    loop = background()

    async def opened() -> ClientConnection:
        return ClientConnection(await opening, loop)

    return loop.run(opened())


@final
class ClientConnection:
    """A WebSocket connection whose methods wait. Several threads may send, and one of them may receive at a time.

    `for message in ws` gives its messages, str for text and bytes for binary, until it is closed; it ends where the
    connection closed as agreed and raises ConnectionClosedError where it did not. All methods raise RuntimeError in a
    child that was forked after the connection was made.
    """

    __slots__ = ("_loop", "_received", "_ws")

    def __init__(self, ws: WebSocket, loop: BackgroundLoop) -> None:
        self._ws = ws
        self._loop = loop
        # At most one, which nobody took.
        self._received: deque[str | bytes] = deque()

    def __repr__(self) -> str:
        return f"<rawws.sync.ClientConnection {self._ws.ready_state.name} {self._ws.remote_address}>"

    def __enter__(self) -> ClientConnection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[str | bytes]:
        with contextlib.suppress(ConnectionClosedOK):
            while True:
                yield self.recv()

    def __del__(self) -> None:
        # It may be collected in any thread, as the loop ends, and in a child.
        with contextlib.suppress(RuntimeError):
            self._loop.begin(self._ws.close)

    @overload
    def recv(self, timeout: float | None = None, decode: None = None) -> str | bytes: ...

    @overload
    def recv(self, timeout: float | None = None, *, decode: Literal[True]) -> str: ...

    @overload
    def recv(self, timeout: float | None = None, *, decode: Literal[False]) -> bytes: ...

    def recv(self, timeout: float | None = None, decode: bool | None = None) -> str | bytes:
        """Wait for the next message: str for text, bytes for binary.

        `decode` True makes text of a binary message, False bytes of a text message. Raises TimeoutError after `timeout`
        seconds, and loses nothing; ConnectionClosed after the last message; LocalProtocolError where another thread
        waits already.
        """
        self._loop.run(self._receive(timeout))
        message = self._received.popleft()
        if decode and isinstance(message, bytes):
            return message.decode()
        if decode is False and isinstance(message, str):
            return message.encode()
        return message

    def send(self, message: Data | Iterable[Data], text: bool | None = None) -> None:
        """Send a message: str as text, bytes-like as binary, an iterable of them as one message in fragments.

        It waits while the peer reads too slowly. `text` True sends bytes as text, False sends str as binary. Raises
        ConnectionClosed once the connection is closed or closing, TypeError for other types.
        """
        # An iterable may take its time, which is that of this thread.
        data = message if isinstance(message, (str, bytes, bytearray, memoryview)) else list(message)

        async def sent() -> None:
            await self._ws.send(data, text)

        self._loop.run(sent())

    def ping(self, data: Data | None = None, timeout: float | None = None) -> float:
        """Send a Ping, wait for the Pong, and return how long that took, in seconds.

        `data` is at most 125 bytes, by default four random ones. Raises TimeoutError after `timeout` seconds,
        ConnectionClosed.
        """

        async def pinged() -> float:
            async with asyncio.timeout(timeout):
                return float(await self._ws.ping(data))

        return self._loop.run(pinged())

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Close the connection, and wait until it is: at most `close_timeout` seconds. Do nothing where it is closed.

        Raises LocalProtocolError for a code or a reason that may not be sent.
        """

        async def closed() -> None:
            await self._ws.close(code, reason)

        self._loop.run(closed())

    @property
    def request(self) -> Request | None:
        """The request of the opening handshake."""
        return self._ws.request

    @property
    def response(self) -> HttpResponse | None:
        """The response of the opening handshake."""
        return self._ws.response

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that was agreed on, None without one."""
        return self._ws.subprotocol

    @property
    def local_address(self) -> SocketAddress | None:
        """The address of this side."""
        return self._ws.local_address

    @property
    def remote_address(self) -> SocketAddress | None:
        """The address of the server."""
        return self._ws.remote_address

    @property
    def latency(self) -> float:
        """The last time that an answer to a ping took, in seconds; 0 before the first."""
        return self._ws.latency

    @property
    def close_code(self) -> int | None:
        """The close code (RFC 6455 section 7.1.5): 1006 without a Close frame, None while the connection is open."""
        return self._ws.close_code

    @property
    def close_reason(self) -> str | None:
        """The close reason (RFC 6455 section 7.1.6), None while the connection is open."""
        return self._ws.close_reason

    async def _receive(self, timeout: float | None) -> None:  # noqa: ASYNC109 - that of recv
        if not self._received:
            async with asyncio.timeout(timeout):
                self._received.append(await self._ws.recv())
