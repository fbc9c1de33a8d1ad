"""Servers of HTTP/2 for the client under test: the core's other role, and what it is told to do with each stream."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, final

from rawws.errors import Http2Error
from rawws.net.transports import abort_transport
from rawws.protocol.connection import Role
from rawws.protocol.http2 import DEFAULT_HTTP2_LIMITS, Http2Endpoint
from rawws.protocol.http2_events import DataReceived, GoAwayReceived, RequestReceived, StreamReset
from rawws.protocol.http2_limits import Http2Limits
from rawws.protocol.http2_streams import Http2Stream
from rawws.protocol.http11 import Headers

__all__ = ["Http2Peer", "Http2PeerConnection", "http2_peer"]

HOST: Final = "127.0.0.1"


@final
class Http2PeerConnection:
    """One connection to the peer; `requests`, `data` and `resets` are what came."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limits: Http2Limits) -> None:
        self.reader = reader
        self.writer = writer
        self.core = Http2Endpoint(Role.SERVER, limits, connect_protocol=True)
        self.requests: list[RequestReceived] = []
        self.data: dict[int, bytearray] = {}
        self.resets: list[StreamReset] = []
        self.goaways: list[GoAwayReceived] = []
        # The streams that the client has ended.
        self.ended: set[int] = set()

    def flush(self) -> None:
        self.writer.write(b"".join(self.core.data_to_send()))

    def accept(self, stream: Http2Stream, *fields: tuple[str, str]) -> None:
        """Open a WebSocket."""
        self.core.respond(stream, 200, Headers(fields))

    def send(self, stream: Http2Stream, data: bytes, *, end: bool = False) -> None:
        self.core.send_data(stream, data, end)
        self.flush()


# What is done with a request.
React = Callable[[Http2PeerConnection, RequestReceived], None]


@final
class Http2Peer:
    """A running peer: `connections` are those that came, the last one last."""

    def __init__(self) -> None:
        self.connections: list[Http2PeerConnection] = []
        self.port = 0

    @property
    def uri(self) -> str:
        """Where it listens."""
        return f"wss://localhost:{self.port}/"

    @property
    def requests(self) -> list[RequestReceived]:
        """All requests."""
        return [request for connection in self.connections for request in connection.requests]


@asynccontextmanager
async def http2_peer(
    react: React,
    context: ssl.SSLContext,
    *,
    limits: Http2Limits = DEFAULT_HTTP2_LIMITS,
    greets: bool = True,
    takes: bool = True,
    begins: Callable[[Http2PeerConnection], None] | None = None,
) -> AsyncIterator[Http2Peer]:
    """Run a server that does this with each request; one that does not greet sends nothing, one that takes
    nothing gives no window back. `begins` is done with each connection before it says anything.
    """
    peer = Http2Peer()
    context.set_alpn_protocols(["h2"])
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Http2PeerConnection(reader, writer, limits)
        peer.connections.append(connection)
        core = connection.core
        if begins is not None:
            begins(connection)
        if greets:
            connection.flush()
        # The client went; uvloop calls it a RuntimeError.
        with contextlib.suppress(OSError, RuntimeError, Http2Error):
            while data := await reader.read(65536):
                core.receive(data)
                while (event := core.next_event()) is not None:
                    if isinstance(event, RequestReceived):
                        connection.requests.append(event)
                        react(connection, event)
                    elif isinstance(event, DataReceived):
                        connection.data.setdefault(event.stream.id, bytearray()).extend(event.data)
                        if takes:
                            core.acknowledge(event.stream, len(event.data))
                        if event.end_stream:
                            connection.ended.add(event.stream.id)
                    elif isinstance(event, StreamReset):
                        connection.resets.append(event)
                    elif isinstance(event, GoAwayReceived):
                        connection.goaways.append(event)
                core.keep_buffer()
                if greets:
                    connection.flush()
        writer.close()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listening = await asyncio.start_server(begin, HOST, 0, ssl=context)
    peer.port = listening.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        listening.close()
        for connection in peer.connections:
            abort_transport(connection.writer.transport)
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await listening.wait_closed()
