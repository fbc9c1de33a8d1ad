"""A client in TLS whose records the test holds in its hands: it sends them whole, in pieces, or not at all."""

from __future__ import annotations

import contextlib
import ssl
from typing import Any, final

from rawws.protocol.connection import Connection, Role
from rawws.protocol.http11 import HeadReader
from tests.client.peers import HOST, Tls
from tests.server.peers import Peer, request

__all__ = ["ALERT", "TlsClient"]

# RFC 8446 5.1: the type of a record that is an alert, where that is not encrypted.
ALERT = 21


@final
class TlsClient:
    """One connection; `peer` is its TCP connection."""

    def __init__(self, peer: Peer, part: Tls) -> None:
        self.peer = peer
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = part.client.wrap_bio(self.incoming, self.outgoing, server_hostname=HOST)
        self.connection = Connection(Role.CLIENT, None)

    @classmethod
    async def reach(cls, server: Any, part: Tls, receive_buffer: int = 0) -> TlsClient:
        """Connect to a server."""
        return cls(await Peer.reach(server.sockets[0].getsockname(), receive_buffer), part)

    def records(self, *data: bytes) -> bytes:
        """Return what is due, and behind it a record for each of these."""
        for piece in data:
            self.tls.write(piece)
        return self.outgoing.read()

    def hello(self) -> bytes:
        """Return the first flight."""
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return self.outgoing.read()
        raise AssertionError("there was nothing to wait for")

    async def shake_hands(self) -> None:
        """Do the TLS handshake. Raises ssl.SSLError for an alert, ConnectionError where the server ends it."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.flush()
                await self.feed()
            else:
                await self.flush()
                return

    async def open(self) -> None:
        """Do both handshakes."""
        await self.shake_hands()
        await self.write(request())
        reader = HeadReader()
        while not reader.receive(await self.read()):
            pass
        assert reader.head.startswith(b"HTTP/1.1 101"), reader.head
        self.connection.receive(reader.rest)

    async def feed(self) -> None:
        """Take what comes next. Raises ConnectionResetError at the end of TCP."""
        data = await self.peer.read()
        if not data:
            raise ConnectionResetError("the connection ended")
        self.incoming.write(data)

    async def flush(self) -> None:
        """Send the records that are due."""
        await self.peer.write(self.outgoing.read())

    async def write(self, *data: bytes) -> None:
        """Send a record for each of these."""
        await self.peer.write(self.records(*data))

    async def read(self) -> bytes:
        """Return some bytes, none at the end by close_notify. Raises ConnectionResetError at one without."""
        while True:
            try:
                return self.tls.read(65536)
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLWantReadError:
                await self.flush()
                await self.feed()

    async def send(self, *messages: str | bytes) -> None:
        """Send messages."""
        for message in messages:
            self.connection.send(message, None)
        await self.write(b"".join(self.connection.take_data()))

    async def message(self) -> Any:
        """Return the next message or control event, None at the end."""
        while (event := self.connection.next_event()) is None:
            data = await self.read()
            if not data:
                return None
            self.connection.receive(data)
        return event

    def close_notify(self) -> bytes:
        """Return the record that ends this side."""
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()
        return self.outgoing.read()

    async def drained(self) -> None:
        """Read what comes up to the end of TCP, and look at none of it."""
        await self.peer.read_to_end()

    def close(self) -> None:
        """End the TCP connection."""
        self.peer.close()
