"""A client of HTTP/2 for the tests: the library's own core in its other role, on a socket, and WebSockets over it."""

from __future__ import annotations

import asyncio
import ssl as ssl_module
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import final

from rawws.errors import Http2Error
from rawws.net.transports import abort_transport
from rawws.protocol.connection import Connection, ConnectionEvent, Role
from rawws.protocol.http2 import Http2Endpoint
from rawws.protocol.http2_events import (
    DataReceived,
    GoAwayReceived,
    PingAcknowledged,
    ResponseReceived,
    SettingsReceived,
    StreamReset,
)
from rawws.protocol.http2_sending import PREFACE
from rawws.protocol.http2_streams import Http2Stream
from rawws.protocol.http11 import Headers, Request

__all__ = ["Answer", "Client", "reach"]

# Whatever a test waits for is there long before.
PATIENCE = 60.0


@final
class Answer:
    """What came on one stream; `wait` waits until something is so."""

    def __init__(self, client: Client, stream: Http2Stream) -> None:
        self.client = client
        self.stream = stream
        self.status = 0
        self.headers = Headers()
        self.interim: list[int] = []
        self.body = b""
        self.over = False
        self.reset: int | None = None
        # What is to be sent, as the windows allow, and whether the end is behind it.
        self.waiting = b""
        self.ending = False
        # Where it is a WebSocket.
        self.websocket = Connection(Role.CLIENT, None)
        self.events: list[ConnectionEvent] = []

    async def head(self) -> Answer:
        """Wait for the head of the response."""
        await self.client.wait(lambda: self.status or self.reset is not None)
        return self

    async def whole(self) -> Answer:
        """Wait for the end of the response."""
        await self.client.wait(lambda: self.over or self.reset is not None)
        return self

    async def until(self, piece: bytes) -> None:
        """Wait until this is in the body."""
        await self.client.wait(lambda: piece in self.body)

    def text(self) -> str:
        return self.body.decode()

    # -- WebSocket

    def send(self, message: str | bytes) -> None:
        self.websocket.send(message)
        self.flush()

    def flush(self) -> None:
        self.write(b"".join(self.websocket.data_to_send()))

    async def recv(self) -> ConnectionEvent:
        await self.client.wait(lambda: self.events)
        return self.events.pop(0)

    # -- the stream

    def write(self, data: bytes, *, end: bool = False) -> None:
        """Send data as the windows allow."""
        self.waiting += data
        self.ending = end
        self.client.flush()

    def pump(self) -> None:
        core = self.client.core
        if self.stream.may_send() and core.error is None and (self.waiting or self.ending):
            count = core.sendable(self.stream)
            data, self.waiting = self.waiting[:count], self.waiting[count:]
            if data or not self.waiting:
                core.send_data(self.stream, data, self.ending and not self.waiting)


@final
class FrameCounter:
    """Counts the frames in octets that come in pieces, behind as many that are no frames."""

    def __init__(self, skipped: int = 0) -> None:
        self.count = 0
        # Of the frame, or what is skipped, and of a header that is cut.
        self.left = skipped
        self.header = b""

    def feed(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            if self.left:
                step = min(self.left, len(data) - at)
                self.left -= step
                at += step
                continue
            step = 9 - len(self.header)
            self.header += data[at : at + step]
            at += step
            if len(self.header) == 9:
                self.left = int.from_bytes(self.header[:3], "big")
                self.header = b""
                self.count += 1


@final
class Client:
    """One connection. What comes is read all the time, and acknowledged unless `stalled` has the stream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.core = Http2Endpoint(Role.CLIENT)
        self.answers: dict[int, Answer] = {}
        self.stalled: set[int] = set()
        self.goaways: list[GoAwayReceived] = []
        # The answers to pings, and how many octets of content had come before each.
        self.pings: dict[bytes, int] = {}
        self.settings: dict[int, int] = {}
        self.ended = False
        self.changed = asyncio.Event()
        self.counters = (FrameCounter(len(PREFACE)), FrameCounter())
        self.flush()
        self.task = asyncio.get_running_loop().create_task(self.read())

    def flush(self) -> None:
        for answer in self.answers.values():
            answer.pump()
        data = b"".join(self.core.data_to_send())
        self.counters[0].feed(data)
        self.writer.write(data)

    @property
    def frames(self) -> int:
        """How many frames there were, both ways."""
        return sum(counter.count for counter in self.counters)

    async def read(self) -> None:
        try:
            while data := await self.reader.read(65536):
                self.counters[1].feed(data)
                self.core.receive(data)
                while (event := self.core.next_event()) is not None:
                    self.take(event)
                self.core.keep_buffer()
                self.flush()
                self.changed.set()
        except (OSError, Http2Error):
            pass
        finally:
            self.ended = True
            self.changed.set()

    def take(self, event: object) -> None:
        if isinstance(event, SettingsReceived):
            self.settings.update(event.settings)
        elif isinstance(event, GoAwayReceived):
            self.goaways.append(event)
        elif isinstance(event, PingAcknowledged):
            self.pings[event.payload] = sum(len(answer.body) for answer in self.answers.values())
        elif isinstance(event, ResponseReceived):
            answer = self.answers[event.stream.id]
            if event.status < 200:
                answer.interim.append(event.status)
                return
            answer.status, answer.headers = event.status, event.headers
            answer.over = event.end_stream
        elif isinstance(event, DataReceived):
            answer = self.answers[event.stream.id]
            answer.body += event.data
            if answer.stream.tunnel:
                answer.websocket.receive(bytes(event.data))
                while (come := answer.websocket.next_event()) is not None:
                    answer.events.append(come)
            if event.stream.id not in self.stalled:
                self.core.acknowledge(event.stream, len(event.data))
            answer.over = answer.over or event.end_stream
        elif isinstance(event, StreamReset):
            self.answers[event.stream.id].reset = event.error_code

    async def wait(self, condition: object) -> None:
        assert callable(condition)
        async with asyncio.timeout(PATIENCE):
            while not condition():
                assert not self.ended, "the server ended the connection"
                self.changed.clear()
                await self.changed.wait()

    async def wait_ended(self) -> None:
        async with asyncio.timeout(PATIENCE):
            while not self.ended:
                self.changed.clear()
                await self.changed.wait()

    def request(
        self,
        path: str = "/",
        method: str = "GET",
        *fields: tuple[str, str],
        body: bytes | None = None,
        protocol: str | None = None,
        host: str = "localhost",
        more: bool = False,
    ) -> Answer:
        """Send a request, and return what will be its answer; it ends the stream if there is no body, nor `more`."""
        more = more or protocol is not None or body is not None
        head = Request(method, path, Headers([("Host", host), *fields]), "2")
        stream = self.core.request(head, protocol=protocol, end_stream=not more)
        answer = self.answers[stream.id] = Answer(self, stream)
        if body is not None:
            answer.write(body, end=True)
        self.flush()
        return answer

    async def connect(self, path: str = "/", *fields: tuple[str, str], version: str = "13") -> Answer:
        """Ask for a WebSocket (RFC 8441), and wait for what is answered."""
        await self.wait(lambda: self.settings)
        fields = (("Sec-WebSocket-Version", version), *fields)
        return await self.request(path, "CONNECT", *fields, protocol="websocket").head()

    async def get(self, path: str = "/", method: str = "GET", *fields: tuple[str, str]) -> Answer:
        return await self.request(path, method, *fields).whole()

    async def gather(self, paths: Iterable[str]) -> list[Answer]:
        return list(await asyncio.gather(*[self.request(path).whole() for path in paths]))

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])
        abort_transport(self.writer.transport)


@asynccontextmanager
async def reach(server: object, ssl: ssl_module.SSLContext | None = None) -> AsyncIterator[Client]:
    """Connect to a server of the tests."""
    address = server.sockets[0].getsockname()  # type: ignore[attr-defined]
    name = None if ssl is None else "localhost"
    reader, writer = await asyncio.open_connection(*address[:2], ssl=ssl, server_hostname=name)
    client = Client(reader, writer)
    try:
        yield client
    finally:
        await client.close()
