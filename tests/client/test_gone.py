"""What is gone already when it is spoken to: a TLS transport of the loop, a server that refused before it was asked."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import struct
from asyncio.sslproto import _SSLProtocolTransport
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import rawws
from rawws.client import dialing, proxies
from rawws.net.transports import abort_transport, close_transport
from rawws.protocol.http11 import Request, parse_request
from tests.client.peers import HOST, accepted, http_proxy, scripted, tls
from tests.client.sources import source, stream
from tests.processes import ROOT
from tests.server.peers import serve

REFUSED = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nRetry-After: 7\r\nContent-Length: 5\r\n\r\nfull\n"
)
RESET = struct.pack("ii", 1, 0)


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have asyncio's TLS transport do what that of Python 3.11.2 does: `abort` raises once it is closed for good."""
    abort = _SSLProtocolTransport.abort

    def abort_as_in_3_11_2(transport: Any) -> None:
        if transport._ssl_protocol is None:
            raise AttributeError("'NoneType' object has no attribute '_abort'")
        abort(transport)

    monkeypatch.setattr(_SSLProtocolTransport, "abort", abort_as_in_3_11_2)


# -- transports


class Lost(asyncio.Protocol):
    def __init__(self) -> None:
        self.lost = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


async def test_a_tls_transport_that_was_closed_twice_can_be_asked_and_aborted() -> None:
    part = tls(HOST)
    loop = asyncio.get_running_loop()
    async with scripted(lambda _: None, ssl=part.server) as server:
        transport, protocol = await loop.create_connection(
            Lost, HOST, server.port, ssl=part.client, server_hostname=HOST
        )
        for _ in range(2):
            close_transport(transport)
            assert transport.get_write_buffer_size() >= 0
            transport.pause_reading()
            transport.resume_reading()
            transport.write(b"in vain")
        abort_transport(transport)
        await protocol.lost.wait()
        for _ in range(2):
            close_transport(transport)
            abort_transport(transport)
            assert transport.get_extra_info("sslcontext") is part.client


async def test_a_tls_transport_that_the_loop_closed_twice_is_aborted_in_silence(forgetful: None) -> None:
    part = tls(HOST)
    loop = asyncio.get_running_loop()
    async with scripted(lambda _: None, ssl=part.server) as server:
        transport, protocol = await loop.create_connection(
            Lost, HOST, server.port, ssl=part.client, server_hostname=HOST
        )
        transport.close()
        transport.close()
        abort_transport(transport)
        await protocol.lost.wait()


async def test_the_end_of_an_event_stream_over_tls_logs_nothing(forgetful: None) -> None:
    # What the loop would log fails each test.
    part = tls(HOST)
    async with source(stream(b"data: 1\n\n"), ssl=part.server) as server:
        feed = rawws.events(server.url, ssl=part.client, reconnect=False)
        assert [event.data async for event in feed] == ["1"]
        await asyncio.sleep(0)
        await feed.aclose()


def trust(monkeypatch: pytest.MonkeyPatch, context: ssl.SSLContext) -> None:
    """Have the client use this context where none is given."""
    for module in (dialing, proxies):
        monkeypatch.setattr(module, "default_context", lambda: context)


async def test_a_refused_certificate_behind_an_https_proxy_is_an_error_of_the_certificate(
    forgetful: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside, inside = tls(), tls(HOST)
    trust(monkeypatch, outside.client)

    async def handler(ws: rawws.WebSocket) -> None:
        pytest.fail("it connected")

    # Where asyncio stumbles over it (CPython #113214) it says so, too.
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: None)
    async with serve(handler, ssl=inside.server) as server, http_proxy(ssl=outside.server) as proxy:
        port = server.sockets[0].getsockname()[1]
        for scheme in ("wss", "https"):
            with pytest.raises(ssl.SSLCertVerificationError):
                await opened(f"{scheme}://{HOST}:{port}/", proxy=f"https://localhost:{proxy.port}")


def test_one_place_closes_and_aborts_the_transports_of_a_loop() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in sorted((ROOT / "rawws").rglob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if re.search(r"\btransport\.(close|abort)\b", line)
    ]
    assert [line.partition(": ")[2] for line in found] == ["transport.close()", "transport.abort()"], found


# -- refused before the request


def refused(answer: bytes) -> socket.socket:
    """Return a socket whose peer sent this, and has reset the connection: what comes to it is refused."""
    with socket.create_server((HOST, 0)) as listening:
        here = socket.create_connection(listening.getsockname())
        there, _ = listening.accept()
    there.sendall(answer)
    there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    there.close()
    here.setblocking(False)
    return here


async def opened(url: str, **options: Any) -> object:
    """Return what comes first of a WebSocket, or of an event stream."""
    if url.startswith("ws"):
        return await rawws.connect(url, **options)
    return await anext(rawws.events(url, reconnect=False, **options))


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Give a list of answers: each next connection has got its one, and its end, before it is used."""
    answers: list[bytes] = []

    async def connect_tcp(host: str, port: int, local_addr: tuple[str, int] | None = None) -> socket.socket:
        return refused(answers.pop(0))

    for module in (dialing, proxies):
        monkeypatch.setattr(module, "connect_tcp", connect_tcp)
    return answers


@pytest.mark.parametrize("scheme", ["ws", "http"])
async def test_a_client_that_is_refused_before_it_asked_reads_the_refusal(scheme: str, early: list[bytes]) -> None:
    early.append(REFUSED)
    with pytest.raises(rawws.InvalidStatus, match=r": 'full' \(HTTP status 503\)$") as caught:
        await opened(f"{scheme}://{HOST}/", proxy=None)
    assert caught.value.response.headers["Retry-After"] == "7"


@pytest.mark.parametrize("scheme", ["ws", "wss", "http", "https"])
async def test_a_proxy_that_refuses_before_it_was_asked_is_a_proxy_error(scheme: str, early: list[bytes]) -> None:
    early.append(b"HTTP/1.1 407 Who Are You\r\n\r\n")
    with pytest.raises(rawws.ProxyError, match="answered 'Who Are You'") as caught:
        await opened(f"{scheme}://{HOST}/", proxy=f"http://{HOST}:1")
    assert caught.value.status == 407


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 503 Serv"])
async def test_a_connection_that_ends_before_it_was_used_says_that_it_ended(answer: bytes, early: list[bytes]) -> None:
    early += [answer] * 3
    with pytest.raises(rawws.InvalidMessage, match="ended before"):
        await opened(f"ws://{HOST}/", proxy=None)
    # A reset says so, too.
    with pytest.raises((OSError, rawws.InvalidMessage), match=r"ended before|reset by peer"):
        await opened(f"http://{HOST}/", proxy=None)
    with pytest.raises(ConnectionError, match=r"ended before|reset by peer"):
        await opened(f"ws://{HOST}/", proxy=f"http://{HOST}:1")


async def test_a_close_that_came_before_the_connection_broke_is_read() -> None:
    with socket.create_server((HOST, 0)) as listening:
        here = socket.create_connection(listening.getsockname())
        there, _ = listening.accept()

    def agree() -> None:
        head = there.recv(65536)
        there.sendall(accepted(parse_request(head)))

    agreed = asyncio.create_task(asyncio.to_thread(agree))
    ws = await rawws.connect(f"ws://{HOST}/", sock=here)
    await agreed
    # From the next turn of the loop on it reads.
    await asyncio.sleep(0)
    there.sendall(b"\x88\x06" + struct.pack("!H", 1008) + b"left")
    there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    there.close()
    ws.send("too late")
    with pytest.raises(rawws.ConnectionClosed) as caught:
        await ws.recv()
    assert caught.value.rcvd is not None
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1008, "left")
    await ws.wait_closed()


# Of these, more than a queue takes are in one read.
SHORT = [b"%02d" % number * 20 for number in range(100)] * 10


@asynccontextmanager
async def reset_behind(frames: bytes, engine: Any) -> AsyncIterator[rawws.WebSocket]:
    """Connect to a server that sends frames with its response, and resets the connection then."""
    accepting: list[socket.socket] = []
    with socket.create_server((HOST, 0)) as listening:

        def agree() -> None:
            there, _ = listening.accept()
            answer = accepted(parse_request(there.recv(65536)))
            accepting.append(there)
            there.sendall(answer + frames)

        agreed = asyncio.create_task(asyncio.to_thread(agree))
        ws = await rawws.connect(f"ws://{HOST}:{listening.getsockname()[1]}/", engine=engine, compression=None)
        [there] = accepting
        there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        there.close()
        yield ws
        await ws.wait_closed()
        await agreed


@pytest.mark.parametrize("engine", ["asyncio", "epoll"])
@pytest.mark.parametrize("size", [10, 100_000, 3_000_000])
async def test_messages_that_came_with_the_response_are_read_where_the_first_write_meets_a_reset(
    engine: Any, size: int
) -> None:
    async with reset_behind(b"\x81\x02hi\x81\x03you", engine) as ws:
        ws.send(bytes(size))
        assert [await ws.recv(), await ws.recv()] == ["hi", "you"]
        with pytest.raises(rawws.ConnectionClosedError):
            await ws.recv()


async def test_more_messages_than_are_queued_that_came_with_the_response_are_read_behind_a_reset() -> None:
    async with reset_behind(b"".join(b"\x82%c" % len(message) + message for message in SHORT), "epoll") as ws:
        ws.send(bytes(100_000))
        assert [await ws.recv() for _ in SHORT] == SHORT
        with pytest.raises(rawws.ConnectionClosedError):
            await ws.recv()


async def test_a_client_that_is_aborted_at_once_gets_nothing_more() -> None:
    def answer(request: Request) -> bytes:
        return accepted(request) + b"\x81\x02hi"

    async with scripted(answer) as server:
        ws = await rawws.connect(server.uri)
        ws.abort()
        with pytest.raises(rawws.ConnectionClosedError):
            await ws.recv()


class Refusing(asyncio.Protocol):
    """A server that is full: it says so to whoever comes, and ends the connection."""

    def connection_made(self, transport: Any) -> None:
        transport.write(REFUSED)
        transport.close()


@pytest.mark.parametrize("kind", ["direct", "http", "https"])
@pytest.mark.parametrize("scheme", ["wss", "https"])
async def test_a_refusal_that_comes_with_the_end_of_a_tls_handshake_is_read(
    scheme: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside, inside = tls(), tls(HOST)
    trust(monkeypatch, outside.client)
    full = await asyncio.get_running_loop().create_server(Refusing, HOST, 0, ssl=inside.server)
    url = f"{scheme}://{HOST}:{full.sockets[0].getsockname()[1]}/"
    async with http_proxy() as http, http_proxy(ssl=outside.server) as https:
        proxy = {"direct": None, "http": f"http://{HOST}:{http.port}", "https": f"https://localhost:{https.port}"}
        with pytest.raises(rawws.InvalidStatus, match=r": 'full' \(HTTP status 503\)$"):
            await opened(url, proxy=proxy[kind], ssl=inside.client)
    full.close()
    await full.wait_closed()
