"""Peers of the server under test: a client that speaks bytes over a socket, and servers on a free port."""

from __future__ import annotations

import asyncio
import inspect
import logging
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar, final

import rawws
from rawws.net.socket import AsyncSocket, SocketAddress
from rawws.protocol.connection import Connection, ConnectionEvent, Ping, Pong, Role
from rawws.protocol.deflate import Compression, PerMessageDeflate
from rawws.protocol.extensions import parse_extensions
from rawws.protocol.handshake import accept_key
from rawws.protocol.http11 import HeadReader, HttpResponse, parse_response
from rawws.server.server import Serve

__all__ = [
    "DEADLINE",
    "KEY",
    "Follower",
    "Logged",
    "Peer",
    "connected",
    "eventually",
    "handler_of",
    "held",
    "host_and_port",
    "narrow",
    "request",
    "run",
    "serve",
    "set_at_end",
    "waits_of",
]

Result = TypeVar("Result")

# A test that takes so many seconds hangs, also on a machine that does other things, and where coverage is measured.
DEADLINE: Final = 60.0
KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="


def serve(handler: Any, **options: Any) -> Serve:
    """Serve on a free port of the loopback address."""
    return rawws.serve(handler, "127.0.0.1", 0, **options)


def narrow() -> socket.socket:
    """Return a listening socket whose connections have the smallest send buffer, so that writes stop in the middle."""
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    return sock


def handler_of(connection: AsyncSocket) -> Any:
    """Return what speaks on a connection that is no WebSocket yet, whatever it is."""
    return connection.handler


def host_and_port(address: SocketAddress | None) -> tuple[str, int]:
    """Return what is alike in the addresses of IPv4 and IPv6."""
    assert isinstance(address, tuple), address
    return address[0], address[1]


async def eventually(condition: Callable[[], object], seconds: float = DEADLINE) -> None:
    """Wait until the condition is true; fail with it after so many seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not condition():
        assert loop.time() < deadline, f"it did not come about in {seconds} s: {source_of(condition)}"
        await asyncio.sleep(0.005)


def source_of(condition: Callable[[], object]) -> str:
    """Return what a condition says, with the values that it looks at."""
    try:
        text = inspect.getsource(condition).strip()
    except (OSError, TypeError):
        text = repr(condition)
    closure = getattr(condition, "__closure__", None) or ()
    names = condition.__code__.co_freevars if closure else ()
    return f"{text}; {dict(zip(names, (cell.cell_contents for cell in closure), strict=True))}"[:2000]


def waits_of(task: asyncio.Task[Any]) -> str:
    """Return the lines at which a task waits, from the outermost coroutine in."""
    found: list[str] = []
    waits: Any = task.get_coro()
    while waits is not None:
        frame = getattr(waits, "cr_frame", None) or getattr(waits, "ag_frame", None)
        if frame is not None:
            found.append(f"    {frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}")
        waits = getattr(waits, "cr_await", None) or getattr(waits, "ag_await", None)
    return "\n".join([str(task), *found])


def run(test: Coroutine[Any, Any, Result], seconds: float = DEADLINE) -> Result:
    """Run a coroutine in a loop of its own; fail with what all its tasks wait for after so many seconds."""

    async def limited() -> Result:
        task = asyncio.ensure_future(test)
        done, _ = await asyncio.wait([task], timeout=seconds)
        if not done:
            waits = "\n".join(map(waits_of, asyncio.all_tasks()))
            raise AssertionError(f"it was not over after {seconds} s, when these were left:\n{waits}")
        return task.result()

    return asyncio.run(limited())


def request(*fields: str, line: str = "GET / HTTP/1.1", without: Iterable[str] = ()) -> bytes:
    """Return the request of a handshake, with more header lines or without some of those it needs."""
    names = {name.lower() for name in without} | {field.partition(":")[0].lower() for field in fields}
    lines = [
        "Host: localhost",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 13",
    ]
    kept = [line for line in lines if line.partition(":")[0].lower() not in names]
    return "\r\n".join([line, *kept, *fields, "", ""]).encode("latin-1")


@final
class Peer:
    """A client on a socket of its own: it sends the bytes it is told to, and reads when it is told to."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.loop = asyncio.get_running_loop()
        self.connection = Connection(Role.CLIENT, None)
        # What came behind the head of the response.
        self.rest = b""
        self.written = 0

    @classmethod
    async def reach(cls, address: Any, receive_buffer: int = 0) -> Peer:
        """Connect to an address of a server: a tuple, or the path of a unix socket."""
        family = (
            socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if len(address) == 4 else socket.AF_INET
        )
        sock = socket.socket(family)
        sock.setblocking(False)
        if family != socket.AF_UNIX:
            # Nagle's algorithm would hold back what the tests send in pieces.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(sock, address)
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()

    def reset(self) -> None:
        """Close the socket with a RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    # -- bytes

    async def write(self, data: bytes) -> None:
        """Send bytes."""
        await self.loop.sock_sendall(self.sock, data)
        self.written += len(data)

    async def heard_by(self, connection: AsyncSocket) -> None:
        """Wait until the server has read all that was sent here."""
        await eventually(lambda: connection.bytes_received == self.written)

    async def read(self, limit: int = 65536) -> bytes:
        """Return some bytes, none at the end, whether that came by FIN or by RST."""
        try:
            return await self.loop.sock_recv(self.sock, limit)
        except ConnectionError:
            return b""

    async def read_to_end(self) -> bytes:
        """Return all that comes until the server ends the connection."""
        chunks = [self.rest]
        while data := await self.read():
            chunks.append(data)
        return b"".join(chunks)

    # -- HTTP

    async def response(self) -> HttpResponse:
        """Return the head of the response as an HttpResponse; what follows it is in `rest`."""
        reader = HeadReader()
        while not reader.receive(data := await self.read()):
            assert data, f"the server ended the connection after {reader.head!r}"
        self.rest = reader.rest
        return parse_response(reader.head)

    async def answer(self) -> tuple[HttpResponse, str]:
        """Return the response to a plain request with its body, up to the end of the connection."""
        response = await self.response()
        body = await self.read_to_end()
        self.rest = b""
        return response, body.decode()

    async def shake_hands(self, *fields: str, then: bytes = b"", line: str = "GET / HTTP/1.1") -> HttpResponse:
        """Do the opening handshake; `then` goes out in the segment of the request."""
        await self.write(request(*fields, line=line) + then)
        response = await self.response()
        assert response.status == 101, (response, self.rest)
        assert response.headers["Sec-WebSocket-Accept"] == accept_key(KEY)
        answer = ", ".join(response.headers.get_all("Sec-WebSocket-Extensions"))
        deflate = None
        if answer:
            settings = Compression(threshold=0)
            parameters = settings.confirm(parse_extensions(answer))
            assert parameters is not None
            deflate = PerMessageDeflate(parameters, False, settings, {})
        self.connection = Connection(Role.CLIENT, None, deflate)
        self.connection.receive(self.rest)
        self.rest = b""
        return response

    # -- frames

    async def flush(self) -> None:
        """Send what was gathered in `connection`."""
        await self.write(b"".join(self.connection.take_data()))

    async def send(self, *messages: str | bytes, compress: bool | None = None) -> None:
        """Send messages in one write."""
        for message in messages:
            self.connection.send(message, compress)
        await self.flush()

    async def fragment(self, opcode: int, payload: bytes, *, final: bool = False) -> None:
        """Send one frame of a message in fragments; opcode 0 for all but the first."""
        self.connection.send_fragment(opcode, payload, final)
        await self.flush()

    async def event(self) -> ConnectionEvent | None:
        """Return the next message, Ping, Pong or Close, None at the end of the connection."""
        while (event := self.connection.next_event()) is None:
            data = await self.read()
            if not data:
                return None
            self.connection.receive(data)
        return event

    async def message(self) -> str | bytes:
        """Return the next message, which must come before anything but Pings and Pongs."""
        event = await self.event()
        while isinstance(event, (Ping, Pong)):
            event = await self.event()
        assert isinstance(event, (str, bytes)), event
        return event

    async def closed(self) -> tuple[int, str] | None:
        """Read up to the server's Close frame and return it, None where the connection ends without one."""
        while (event := await self.event()) is not None:
            if isinstance(event, rawws.Close):
                return event
        return None

    async def start_close(self, code: int = 1000, reason: str = "") -> None:
        """Send a Close frame."""
        self.connection.close(code, reason)
        await self.flush()

    async def finish(self) -> tuple[int, str] | None:
        """Answer the server's Close, read to the end of TCP, and return what the server's Close said."""
        close = await self.closed()
        if close is not None and self.connection.close_sent is None:
            self.connection.settle()
            await self.flush()
        while await self.read():
            pass
        return close


@final
class Follower:
    """Notes what a hub would be told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def drained(self) -> None:
        self.told.append("drained")

    def lost(self) -> None:
        self.told.append("lost")


@final
class Logged:
    """What was logged as an error; a test takes what it expects, and what is left at its end fails it."""

    def __init__(self, records: Callable[[], list[logging.LogRecord]]) -> None:
        self._get_records = records
        self._taken: list[logging.LogRecord] = []

    @property
    def _records(self) -> list[logging.LogRecord]:
        return self._get_records()

    def left(self) -> list[str]:
        """Return the errors that nobody took."""
        return [
            f"{record.name}: {record.getMessage()} {record.exc_info or ''}"
            for record in self._records
            if record.levelno >= logging.WARNING and record not in self._taken
        ]

    def take(self, message: str, error: type[BaseException] | None = None, name: str = "rawws.server") -> None:
        """Take the one error of the logger `name`, which has this message, and the traceback of an `error`."""
        records = [
            record for record in self._records if record.levelno >= logging.WARNING and record not in self._taken
        ]
        assert len(records) == 1, self.left()
        (record,) = records
        assert record.name == name
        assert message in record.getMessage()
        raised = record.exc_info[0] if record.exc_info else None
        assert raised is error
        self._taken.append(record)

    def take_all(self, message: str, count: int) -> None:
        """Take the errors that have this message, which must be so many."""
        found = [record for record in self._records if message in record.getMessage()]
        assert len(found) == count
        self._taken += found

    def take_any(self, message: str) -> None:
        """Take what was logged with this message, however often that was."""
        self._taken += [record for record in self._records if message in record.getMessage()]

    def forget(self) -> None:
        """Let go of the tracebacks that were taken: their frames hold what was in them."""
        for record in self._taken:
            record.exc_info = None


@asynccontextmanager
async def connected(server: rawws.Server, *fields: str, receive_buffer: int = 0) -> AsyncIterator[Peer]:
    """Give a peer whose handshake with the server is done, and close its socket at the end."""
    peer = await Peer.reach(server.sockets[0].getsockname(), receive_buffer)
    try:
        await peer.shake_hands(*fields)
        yield peer
    finally:
        peer.close()


@asynccontextmanager
async def set_at_end(*events: asyncio.Event) -> AsyncIterator[None]:
    """Set these at the end of a test, also of one that fails: handlers that wait for them hold up the end of a server.

    It stands behind the server in `async with`, so that it ends before that.
    """
    try:
        yield
    finally:
        for event in events:
            event.set()


@asynccontextmanager
async def held(*fields: str, slow: bool = False, **options: Any) -> AsyncIterator[tuple[rawws.WebSocket, Peer]]:
    """Give both ends of a connection: the handler stays, and leaves what it could do to the test.

    `slow` makes the buffers of the kernel as small as can be, so that a peer that does not read is soon noticed.
    """
    opened: asyncio.Queue[rawws.WebSocket] = asyncio.Queue()
    released = asyncio.Event()

    async def handler(ws: rawws.WebSocket) -> None:
        opened.put_nowait(ws)
        await released.wait()

    serving = rawws.serve(handler, sock=narrow(), **options) if slow else serve(handler, **options)
    async with serving as server, connected(server, *fields, receive_buffer=2048 if slow else 0) as peer:
        ws = await opened.get()
        try:
            yield ws, peer
        finally:
            released.set()
