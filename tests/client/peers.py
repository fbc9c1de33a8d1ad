"""Peers of the client under test: servers that answer what they are told to, and a proxy of either kind."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, final

import trustme

import rawws
from rawws.protocol.handshake import accept_key
from rawws.protocol.http11 import Request, parse_request

__all__ = ["Tls", "accepted", "descriptors", "echo", "http_proxy", "port", "scripted", "socks_proxy", "tls"]

HOST: Final = "127.0.0.1"

# What a server writes in answer to a request; None for nothing at all.
Answer = Callable[[Request], bytes | None]


async def echo(ws: rawws.WebSocket) -> None:
    """Send back what comes."""
    async for message in ws:
        await ws.send(message)


def port(server: rawws.Server) -> int:
    """Return where a server of ours listens."""
    found: int = server.sockets[0].getsockname()[1]
    return found


def accepted(request: Request, *fields: str) -> bytes:
    """Return the 101 response to a request, with more header lines."""
    key = request.headers["Sec-WebSocket-Key"]
    lines = ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept_key(key)}", *fields]
    return "\r\n".join(["HTTP/1.1 101 Switching Protocols", *lines, "", ""]).encode()


def response(status: int, *fields: str, body: str = "") -> bytes:
    """Return a plain response."""
    return "\r\n".join([f"HTTP/1.1 {status} Status", f"Content-Length: {len(body)}", *fields, "", body]).encode()


def descriptors() -> int:
    """Return how many descriptors this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


@final
class Scripted:
    """A server that answers each request with bytes; `requests` are those that came."""

    def __init__(self, answer: Answer, *, ends: bool) -> None:
        self.answer = answer
        self.ends = ends
        self.requests: list[Request] = []
        self.transports: list[asyncio.Transport] = []
        self.port = 0

    @property
    def uri(self) -> str:
        """Where it listens."""
        return f"ws://{HOST}:{self.port}/"


@final
class ScriptedConnection(asyncio.Protocol):
    """One connection to a Scripted server."""

    def __init__(self, server: Scripted) -> None:
        self.server = server
        self.data = b""
        self.answered = False

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self.transport = transport
        self.server.transports.append(transport)

    def data_received(self, data: bytes) -> None:
        """Answer when the request is complete; ignore what follows."""
        self.data += data
        head, end, _ = self.data.partition(b"\r\n\r\n")
        if end and not self.answered:
            self.answered = True
            request = parse_request(head + end)
            self.server.requests.append(request)
            answer = self.server.answer(request)
            if answer is not None:
                self.transport.write(answer)
                if self.server.ends:
                    self.transport.close()


@asynccontextmanager
async def scripted(answer: Answer, *, ends: bool = False, ssl: ssl.SSLContext | None = None) -> AsyncIterator[Scripted]:
    """Run a server that answers with bytes, and then closes its side or holds the connection."""
    server = Scripted(answer, ends=ends)
    listening = await asyncio.get_running_loop().create_server(lambda: ScriptedConnection(server), HOST, 0, ssl=ssl)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for transport in server.transports:
            transport.abort()
        await listening.wait_closed()


class Tls(NamedTuple):
    """A certificate authority of the tests: a context for a server with that name, and one that trusts it."""

    server: ssl.SSLContext
    client: ssl.SSLContext


def tls(name: str = "localhost") -> Tls:
    """Issue a certificate."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return Tls(server, client)


# -- proxies


@final
class Proxy:
    """A running proxy: `asked` is what it was asked for, one entry for each connection."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.port = 0


@asynccontextmanager
async def http_proxy(
    answer: bytes = b"HTTP/1.1 200 OK\r\n\r\n", *, ssl: ssl.SSLContext | None = None
) -> AsyncIterator[Proxy]:
    """Run an HTTP proxy that knows CONNECT alone, in TLS with `ssl`; with another answer than 200 it refuses."""

    async def connect(proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Any:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        proxy.asked.append(head)
        writer.write(answer)
        host, _, port = head.split()[1].rpartition(":")
        return (host.strip("[]"), int(port)) if b" 200 " in answer else None

    async with _proxy(connect, ssl) as proxy:
        yield proxy


@asynccontextmanager
async def socks_proxy(user: tuple[str, str] | None = None, reply: int = 0) -> AsyncIterator[Proxy]:
    """Run a SOCKS5 proxy (RFC 1928, and RFC 1929 for a user); with a reply that is not 0 it refuses."""

    async def connect(proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Any:
        _, methods = await reader.readexactly(2)
        offered = await reader.readexactly(methods)
        writer.write(bytes([5, 2 if user else 0]))
        if user:
            assert 2 in offered
            _, length = await reader.readexactly(2)
            name = (await reader.readexactly(length)).decode()
            password = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
            writer.write(bytes([1, 0 if (name, password) == user else 1]))
        _, _, _, kind = await reader.readexactly(4)
        if kind == 3:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            family, size = (socket.AF_INET, 4) if kind == 1 else (socket.AF_INET6, 16)
            host = socket.inet_ntop(family, await reader.readexactly(size))
        (port,) = struct.unpack("!H", await reader.readexactly(2))
        proxy.asked.append((kind, host, port))
        writer.write(bytes([5, reply, 0, 1, 0, 0, 0, 0, 0, 0]))
        return None if reply else (host, port)

    async with _proxy(connect) as proxy:
        yield proxy


@asynccontextmanager
async def _proxy(connect: Callable[..., Any], ssl: ssl.SSLContext | None = None) -> AsyncIterator[Proxy]:
    proxy = Proxy()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            target = await connect(proxy, reader, writer)
            if target is not None:
                other_reader, other_writer = await asyncio.open_connection(*target)
                await asyncio.gather(copy(reader, other_writer), copy(other_reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client gave up
        finally:
            writer.close()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
        except ConnectionError:
            pass  # one side was aborted
        finally:
            writer.close()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listening = await asyncio.start_server(begin, HOST, 0, ssl=ssl)
    proxy.port = listening.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        listening.close()
        if tasks:
            await asyncio.wait(tasks, timeout=60)
        await listening.wait_closed()
