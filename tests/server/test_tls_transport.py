"""TLS by the engine: from the first byte of a handshake to the last close_notify, and what ends it before."""

from __future__ import annotations

import asyncio
import ctypes
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
import trustme

import rawws
from rawws.net.tls_transport import TlsTransport
from tests.client.peers import HOST, Tls, tls
from tests.server.answers import get
from tests.server.forked import child
from tests.server.peers import Peer, eventually, narrow, request, set_at_end
from tests.server.tls_client import ALERT, TlsClient

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def serve(handler: Any, part: Tls, **options: Any) -> Any:
    """Serve in TLS by the engine, on a free port."""
    where = {} if "sock" in options else {"host": HOST, "port": 0}
    return rawws.serve(handler, engine="epoll", ssl=part.server, **{**where, **options})


async def echo(ws: rawws.WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


@asynccontextmanager
async def opened(server: Any, part: Tls, receive_buffer: int = 0) -> AsyncIterator[TlsClient]:
    """Give a client whose WebSocket is open."""
    client = await TlsClient.reach(server, part, receive_buffer)
    try:
        await client.open()
        yield client
    finally:
        client.close()


def transport_of(server: Any) -> TlsTransport:
    """Return the transport of the only connection."""
    [ws] = server.settings.connections
    assert isinstance(ws.transport, TlsTransport)
    return ws.transport


# -- messages


@pytest.mark.parametrize("version", VERSIONS)
async def test_messages_of_any_size_go_both_ways(version: ssl.TLSVersion) -> None:
    part = tls(HOST)
    part.server.minimum_version = part.server.maximum_version = version
    async with serve(echo, part, max_size=None) as server, opened(server, part) as client:
        assert isinstance(transport_of(server), TlsTransport)
        assert client.tls.version() == version.name.replace("_", ".")
        for message in ("", "hi", os.urandom(16_380), os.urandom(16_384), os.urandom(16_385), os.urandom(300_000)):
            await client.send(message)
            assert await client.message() == message
        await client.send(*map(str, range(1000)))
        assert [await client.message() for _ in range(1000)] == list(map(str, range(1000)))


@pytest.mark.parametrize("engine", ["epoll", "asyncio"])
async def test_a_client_that_reads_nothing_is_ended_at_the_hard_limit_also_behind_a_turn_full_of_writes(
    engine: Any,
) -> None:
    """The turn that is over makes who sends wait; what the transport says of the client counts longer than that."""
    part, opening = tls(HOST), asyncio.get_running_loop().create_future()

    async def stay(ws: rawws.WebSocket) -> None:
        opening.set_result(ws)
        await ws.wait_closed()

    async with rawws.serve(stay, HOST, 0, engine=engine, ssl=part.server) as server, opened(server, part):
        ws: rawws.WebSocket = await opening
        while ws.buffered < 500_000:
            ws.send(bytes(100_000))
        await asyncio.sleep(0.01)
        assert ws.congested
        waiting = ws.send(b"one more")
        with pytest.raises(rawws.ConnectionClosedError, match="over 1048576 bytes wait"):
            for _ in range(20):
                ws.send(bytes(100_000))
                await asyncio.sleep(0)
        with pytest.raises(rawws.ConnectionClosedError):
            await waiting


@pytest.mark.parametrize("version", VERSIONS)
async def test_large_messages_wait_on_both_sides(version: ssl.TLSVersion) -> None:
    part = tls(HOST)
    part.server.maximum_version = version
    async with serve(echo, part, sock=narrow(), max_size=None) as server, opened(server, part, 4096) as client:
        sent = os.urandom(3_000_000)
        writing = asyncio.ensure_future(client.send(sent))
        assert await client.message() == sent
        await writing


async def test_a_slow_reader_pauses_the_sender() -> None:
    done: list[int] = []

    async def flood(ws: rawws.WebSocket) -> None:
        for number in range(100):
            await ws.send(bytes(50_000))
            done.append(number)

    part = tls(HOST)
    async with serve(flood, part, sock=narrow()) as server, opened(server, part, 4096) as client:
        await eventually(lambda: any(ws.congested for ws in server.connections))
        assert len(done) < 80
        for _ in range(100):
            assert await client.message() == bytes(50_000)


async def test_records_may_come_byte_by_byte() -> None:
    part = tls(HOST)
    async with serve(echo, part) as server:
        client = await TlsClient.reach(server, part)
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.do_handshake()
        while client.tls.version() is None or client.outgoing.pending:
            for byte in client.outgoing.read():
                await client.peer.write(bytes([byte]))
                await asyncio.sleep(0)
            try:
                client.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await client.feed()
        for byte in client.records(request()):
            await client.peer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert (await client.read()).startswith(b"HTTP/1.1 101")
        client.close()


async def test_small_pieces_leave_in_one_record() -> None:
    class Pieces(rawws.Handler):
        def on_message(self, ws: rawws.WebSocket, message: str | bytes) -> None:
            for _ in range(100):
                ws.send("x" * 100)

    part = tls(HOST)
    async with serve(Pieces(), part) as server, opened(server, part) as client:
        await client.send("go")
        # What one call of SSL_read returns is of one record.
        assert len(await client.read()) == 100 * 102


# -- reading that is paused


async def test_what_comes_behind_a_pause_waits_for_the_application() -> None:
    go_on = asyncio.Event()
    got: list[Any] = []

    async def slow(ws: rawws.WebSocket) -> None:
        await go_on.wait()
        async for message in ws:
            got.append(message)

    part = tls(HOST)
    sent = [os.urandom(60_000) for _ in range(40)]
    async with serve(slow, part) as server, opened(server, part) as client, set_at_end(go_on):
        sending = asyncio.ensure_future(client.send(*sent))
        await eventually(lambda: not transport_of(server).is_reading())
        assert got == []
        go_on.set()
        await sending
        await eventually(lambda: len(got) == len(sent))
        assert got == sent


@pytest.mark.parametrize("end", ["close_notify", "fin", "reset"])
async def test_what_came_before_an_end_is_handed_over_before_that(end: str) -> None:
    got: list[Any] = []
    closed: list[int] = []

    class Keeping(rawws.Handler):
        def on_message(self, ws: rawws.WebSocket, message: str | bytes) -> None:
            got.append(message)
            # The write is what finds the reset; the rest is still to be read.
            ws.send(message)

        def on_close(self, ws: rawws.WebSocket, code: int, reason: str) -> None:
            closed.append(code)

    part = tls(HOST)
    sent = [os.urandom(size) for size in (*range(1, 1000, 50), 16_370, 16_370)]
    async with serve(Keeping(), part) as server, opened(server, part) as client:
        data = b""
        for message in sent:
            client.connection.send(message, None)
            data += client.records(b"".join(client.connection.take_data()))
        client.connection.close(1000, "")
        data += client.records(b"".join(client.connection.take_data()))
        data += client.close_notify() if end == "close_notify" else b""
        # At once: the server sees the end with the first byte.
        assert client.peer.sock.send(data) == len(data)
        if end == "reset":
            client.peer.reset()
        elif end == "fin":
            client.close()
        await eventually(lambda: closed)
        assert got == sent
        assert closed == [1000]
        await eventually(lambda: not server.settings.connections)


# -- handshakes


@pytest.mark.parametrize("sent", ["nothing", "half a hello", "a hello"])
async def test_a_handshake_that_never_ends_counts_and_has_a_deadline(sent: str) -> None:
    part = tls(HOST)
    async with serve(echo, part, open_timeout=0.5) as server:
        client = await TlsClient.reach(server, part)
        hello = client.hello()
        await client.peer.write({"nothing": b"", "half a hello": hello[:100], "a hello": hello}[sent])
        await eventually(lambda: len(server.settings.connections) == 1)
        assert server.stats().sockets == 1
        assert server.connections == set()
        await client.drained()
        await eventually(lambda: not server.settings.connections)
        assert server.context.arriving == {}
        client.close()


PHASES = ["nothing", "half a hello", "a hello", "secured", "opened", "half a record", "not reading"]


@pytest.mark.parametrize("how", PHASES)
async def test_a_reset_in_any_phase_ends_the_connection_and_no_other(how: str) -> None:
    part = tls(HOST)
    options: Any = {"sock": narrow(), "max_size": None}
    async with serve(echo, part, **options) as server, opened(server, part) as other:
        client = await TlsClient.reach(server, part)
        if how in {"half a hello", "a hello"}:
            await client.peer.write(client.hello()[: 100 if how == "half a hello" else None])
        elif how == "secured":
            await client.shake_hands()
        elif how != "nothing":
            await client.open()
        if how == "half a record":
            await client.peer.write(client.records(bytes(100))[:50])
        elif how == "not reading":
            sending = asyncio.ensure_future(client.send(bytes(20_000_000)))
            await eventually(lambda: any(ws.congested for ws in server.connections))
            sending.cancel()
            await asyncio.wait([sending])
        await eventually(lambda: len(server.settings.connections) == 2)
        client.peer.reset()
        await eventually(lambda: len(server.settings.connections) == 1)
        await other.send("still here")
        assert await other.message() == "still here"


@pytest.mark.parametrize("data", [b"\0" * 2000, b"\x16\x03\x01\x02\0" + bytes(512), get("/"), request()])
async def test_what_is_no_tls_ends_its_connection(data: bytes) -> None:
    part = tls(HOST)
    async with serve(echo, part) as server, opened(server, part) as other:
        peer = await Peer.reach(server.sockets[0].getsockname())
        await peer.write(data)
        said = await peer.read_to_end()
        assert said[:1] in {b"", bytes([ALERT])}
        peer.close()
        await eventually(lambda: len(server.settings.connections) == 1)
        await other.send("still here")
        assert await other.message() == "still here"


async def test_a_client_that_trusts_nobody_reads_why_the_server_does_not_trust_it() -> None:
    part, stranger = tls(HOST), trustme.CA()
    part.server.verify_mode = ssl.CERT_REQUIRED
    stranger.configure_trust(part.server)
    async with serve(echo, part) as server:
        client = await TlsClient.reach(server, part)
        with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
            await client.open()
        await eventually(lambda: not server.settings.connections)
        client.close()
        stranger.issue_cert("client").configure_cert(part.client)
        seen: list[Any] = []

        async def look(ws: rawws.WebSocket) -> None:
            seen.extend(ws.transport.get_extra_info(name) for name in ("peercert", "cipher", "compression"))

        server.context.endpoint.handler = look
        async with opened(server, part):
            await eventually(lambda: seen)
        assert seen[0]["subjectAltName"] == (("DNS", "client"),)
        assert (seen[1][1], seen[2]) == ("TLSv1.3", None)


async def test_the_facts_of_a_connection_are_those_of_the_loops_transports() -> None:
    part = tls(HOST)
    names: list[Any] = []
    part.server.sni_callback = lambda sock, name, context: names.append((sock.context is context, name))
    async with serve(echo, part) as server, opened(server, part) as client:
        transport = transport_of(server)
        tls_object = transport.get_extra_info("ssl_object")
        assert tls_object.version() == client.tls.version()
        assert transport.get_extra_info("sslcontext") is part.server
        assert transport.get_extra_info("peercert") is None
        assert transport.get_extra_info("peername") == client.peer.sock.getsockname()
        assert transport.get_extra_info("sockname") == client.peer.sock.getpeername()
        assert transport.get_extra_info("socket").fileno() == transport.fd
        assert transport.get_extra_info("colour", "none") == "none"
        assert not transport.can_write_eof()
        with pytest.raises(NotImplementedError):
            transport.write_eof()
        assert names == [(True, None)]


# -- how many


async def test_handshakes_have_their_places_in_the_order_in_which_they_came() -> None:
    part = tls(HOST)
    async with serve(echo, part, max_connections=2) as server, AsyncExitStack() as stack:
        clients: list[TlsClient] = []
        for _ in range(4):
            clients.append(await TlsClient.reach(server, part))
            stack.callback(clients[-1].close)
            await eventually(lambda: len(server.settings.connections) == len(clients))
        # The last ones first: they were too many when they came.
        for client in reversed(clients[2:]):
            await client.shake_hands()
            assert (await client.read()).startswith(b"HTTP/1.1 503")
        for client in clients[:2]:
            await client.open()


async def test_thousands_of_handshakes_are_refused_and_nobody_else_is_disturbed() -> None:
    part = tls(HOST)
    async with serve(echo, part, max_connections=10) as server, opened(server, part) as other:
        most = 0
        async with AsyncExitStack() as stack:
            for _ in range(2000):
                client = await TlsClient.reach(server, part)
                stack.callback(client.close)
                with suppress(ConnectionError):
                    await client.peer.write(client.hello())
                most = max(most, len(server.settings.connections))
            # Ten that are let in, 16 that are told, and what one turn accepts.
            assert most <= 10 + 16 + 32 + 1
            await other.send("still here")
            assert await other.message() == "still here"
        await eventually(lambda: len(server.settings.connections) == 1)
        assert len(server.context.arriving) == 0


async def test_an_address_has_no_more_handshakes_than_connections() -> None:
    part = tls(HOST)
    async with serve(echo, part, max_connections_per_address=1) as server:
        waiting = await TlsClient.reach(server, part)
        await eventually(lambda: server.settings.connections)
        client = await TlsClient.reach(server, part)
        await client.shake_hands()
        assert (await client.read()).startswith(b"HTTP/1.1 429")
        client.close()
        waiting.close()
        await eventually(lambda: not server.settings.connections)
        async with opened(server, part):
            pass


async def test_a_connection_has_one_descriptor() -> None:
    part = tls(HOST)
    async with serve(echo, part) as server:
        before = len(os.listdir("/proc/self/fd"))
        async with opened(server, part):
            # The client's, and the engine's own if it was the first.
            assert len(os.listdir("/proc/self/fd")) == before + 2
        await eventually(lambda: not server.settings.connections)
        assert len(os.listdir("/proc/self/fd")) == before


# -- ends


async def test_the_end_is_said_by_close_notify_and_the_peer_is_waited_for() -> None:
    part = tls(HOST)
    async with serve(echo, part) as server, opened(server, part) as client:
        server.close()
        close = await client.message()
        client.connection.settle()
        await client.write(b"".join(client.connection.take_data()))
        assert (close.code, await client.message()) == (1001, None)
        # The peer's is waited for, with all that comes before it.
        await client.peer.write(client.records(bytes(100), bytes(100)))
        await asyncio.sleep(0.05)
        assert len(server.settings.connections) == 1
        await client.peer.write(client.close_notify())
        await eventually(lambda: not server.settings.connections)


async def test_a_drain_ends_those_in_their_handshake_as_well() -> None:
    part = tls(HOST)
    async with serve(echo, part, drain=rawws.Drain(timeout=30), close_timeout=1) as server:
        waiting = await TlsClient.reach(server, part)
        await waiting.peer.write(waiting.hello())
        async with opened(server, part) as client:
            await eventually(lambda: len(server.settings.connections) == 2)
            draining = asyncio.ensure_future(server.drain())
            close = await client.message()
            assert close.code == 1001
            client.connection.settle()
            await client.write(b"".join(client.connection.take_data()))
            assert await client.message() is None
            await client.peer.write(client.close_notify())
            await draining
        assert server.settings.connections == set()
        waiting.close()


async def test_an_abort_sends_nothing_and_tells_once() -> None:
    part = tls(HOST)
    async with serve(echo, part) as server, opened(server, part) as client:
        [ws] = server.connections
        ws.abort()
        ws.abort()
        with pytest.raises(ConnectionResetError):
            await client.read()
        assert ws.lost


async def test_a_forked_child_keeps_no_connection() -> None:
    part = tls(HOST)
    async with serve(echo, part) as server, opened(server, part) as client, opened(server, part) as other:
        with child():
            client.connection.close(1000, "")
            await client.write(b"".join(client.connection.take_data()))
            while await client.message() is not None:
                pass
            await client.peer.write(client.close_notify())
            await client.drained()
            await other.send("hi")
            assert await other.message() == "hi"


def update_keys(client: TlsClient, *, both: bool) -> None:
    """Have OpenSSL use other keys from now on, and ask the peer for the same, which Python's `ssl` cannot."""
    with open("/proc/self/maps", encoding="utf-8") as maps:
        library = ctypes.CDLL(next(line.split()[-1] for line in maps if "libssl" in line))
    library.SSL_key_update.argtypes = [ctypes.c_void_p, ctypes.c_int]
    # Behind the head of the object and its socket (`PySSLSocket` in _ssl.c).
    inner: Any = client.tls
    address = ctypes.c_void_p.from_address(id(inner._sslobj) + 3 * ctypes.sizeof(ctypes.c_void_p)).value
    assert library.SSL_key_update(address, int(both)) == 1


@pytest.mark.parametrize("both", [True, False])
async def test_keys_may_be_updated_in_the_middle(both: bool) -> None:
    part = tls(HOST)
    async with serve(echo, part, sock=narrow(), max_size=None) as server, opened(server, part, 4096) as client:
        sent = os.urandom(1_000_000)
        for _ in range(3):
            # While the server cannot write, either.
            writing = asyncio.ensure_future(client.send(sent))
            await eventually(lambda: any(ws.congested for ws in server.connections))
            update_keys(client, both=both)
            await client.send("hi")
            assert [await client.message() for _ in range(2)] == [sent, "hi"]
            await writing
