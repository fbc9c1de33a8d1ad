"""PROXY headers: who they name, what is refused, and that nothing behind them is touched, with and without TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

import rawws
from rawws.server.proxy_header import MAX_HEADER_SIZE, ProxiedClient, ProxyHeaderError, parse_header
from tests.server.peers import Peer, eventually, request, serve

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
GET: Final = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
SELF: Final = "127.0.0.1"


def binary(command: int = 0x21, family: int = 0x11, rest: bytes = b"") -> bytes:
    """Return a header of version 2."""
    return SIGNATURE + struct.pack("!BBH", command, family, len(rest)) + rest


def tcp4(source: str = "192.0.2.1", port: int = 50000, more: bytes = b"") -> bytes:
    addresses = socket.inet_aton(source) + socket.inet_aton("192.0.2.2")
    return binary(rest=addresses + struct.pack("!HH", port, 443) + more)


def tcp6(source: str = "2001:db8::1", port: int = 50000) -> bytes:
    addresses = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, "2001:db8::2")
    return binary(family=0x21, rest=addresses + struct.pack("!HH", port, 443))


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


def read(data: bytes) -> tuple[ProxiedClient, bytes]:
    """Return who a header names, and what is left behind it."""
    steps = parse_header()
    needed, by_line = next(steps)
    while True:
        take = needed
        if by_line:
            end = data.find(b"\n", 0, needed)
            take = needed if end < 0 else end + 1
        assert len(data) >= take, "it waits for more"
        piece, data = data[:take], data[take:]
        try:
            needed, by_line = steps.send(piece)
        except StopIteration as done:
            return done.value, data


# -- the header


@pytest.mark.parametrize(
    ("header", "client"),
    [
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 50000 443\r\n", (("192.0.2.1", 50000), None)),
        (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", (("255.255.255.255", 65535), None)),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 0 0\r\n", (("192.0.2.1", 0), None)),
        (b"PROXY TCP6 2001:DB8::1 ::1 50000 443\r\n", (("2001:db8::1", 50000), None)),
        (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 50000 443\r\n", (("192.0.2.1", 50000), None)),
        (b"PROXY UNKNOWN\r\n", (None, None)),
        (b"PROXY UNKNOWN \xff\xff what ever\r\n", (None, None)),
        (b"PROXY UNKNOWN " + b"f" * 91 + b"\r\n", (None, None)),
        (tcp4(), (("192.0.2.1", 50000), None)),
        (tcp6(), (("2001:db8::1", 50000), None)),
        (tcp6("::ffff:192.0.2.1"), (("192.0.2.1", 50000), None)),
        (binary(0x20, 0x00), (None, None)),
        # Of LOCAL, all that follows is discarded.
        (binary(0x20, 0x77, bytes(300)), (None, None)),
        (binary(0x21, 0x00), (None, None)),
        (binary(0x21, 0x31, bytes(216)), (None, None)),
        (binary(0x21, 0x12, bytes(12)), (None, None)),
        (tcp4(more=tlv(0x03, b"crc!") + tlv(0x04, bytes(50)) + tlv(0xEE, b"")), (("192.0.2.1", 50000), None)),
        (
            tcp4(more=tlv(0x01, b"h2") + tlv(0x20, b"\x01\0\0\0\0" + tlv(0x21, b"TLSv1.3"))),
            (("192.0.2.1", 50000), True),
        ),
        # It came without TLS, or there was none to tell of.
        (tcp4(more=tlv(0x20, b"\0\0\0\0\0")), (("192.0.2.1", 50000), None)),
        (tcp4(more=tlv(0x20, b"")), (("192.0.2.1", 50000), None)),
        (binary(rest=tcp4()[16:] + tlv(0x04, bytes(MAX_HEADER_SIZE - 15))), (("192.0.2.1", 50000), None)),
    ],
)
def test_a_header_names_a_client_and_what_follows_is_left(header: bytes, client: Any) -> None:
    assert read(header + b"GET / HTTP") == (ProxiedClient(*client), b"GET / HTTP")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (GET, "it begins with 'GET / HTTP/1', needed is a PROXY header"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00", "needed is a PROXY header"),
        (b"proxy TCP4 192.0.2.1 192.0.2.2 50000 443\r\n", "needed is a PROXY header"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 50000 443\n", "does not end with CR LF"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 50000 443 \r\n", "names no client"),
        (b"PROXY  TCP4 192.0.2.1 192.0.2.2 50000 443\r\n", "names no client"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 50000\r\n", "names no client"),
        (b"PROXY TCP4 192.0.2.01 192.0.2.2 50000 443\r\n", "names no client"),
        (b"PROXY TCP4 2001:db8::1 192.0.2.2 50000 443\r\n", "names no client"),
        (b"PROXY TCP6 192.0.2.1 192.0.2.2 50000 443\r\n", "names no client"),
        (b"PROXY TCP6 fe80::1%eth0 ::1 50000 443\r\n", "names no client"),
        (b"PROXY UDP4 192.0.2.1 192.0.2.2 50000 443\r\n", "names no client"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 050000 443\r\n", "names no client"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 50000 65536\r\n", "names no client"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 +5000 443\r\n", "names no client"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 \xb2 443\r\n", "names no client"),
        (b"PROXY UNKNOWN " + b"f" * 92 + b"\r\n", "no end within 107 octets"),
        (b"PROXY TCP4 " + b"1" * 200, "no end within 107 octets"),
        (binary(0x11), "version and command 0x11"),
        (binary(0x22, rest=bytes(12)), "version and command 0x22"),
        (binary(family=0x44), "family 0x44"),
        (binary(family=0x10, rest=bytes(12)), "family 0x10"),
        (binary(rest=bytes(11)), "has 11 octets, its addresses have 12"),
        (binary(family=0x21, rest=bytes(12)), "has 12 octets, its addresses have 36"),
        (binary(rest=bytes(MAX_HEADER_SIZE + 1)), "has 4097 octets, limit 4096"),
        (binary(0x20, rest=bytes(65535)), "has 65535 octets, limit 4096"),
        (tcp4(more=b"\x04\x00"), "last TLV"),
        (tcp4(more=b"\x04\x00\x05abcd"), "last TLV"),
    ],
)
def test_what_is_no_header_says_what_is_wrong(header: bytes, message: str) -> None:
    with pytest.raises(ProxyHeaderError, match=message):
        read(header)


@given(st.binary(max_size=200), st.sampled_from([b"", SIGNATURE, SIGNATURE + b"\x21\x11", b"PROXY TCP4 ", b"PROXY "]))
def test_any_octets_are_a_client_or_that_error(octets: bytes, start: bytes) -> None:
    try:
        client, _ = read(start + octets + bytes(70_000))
    except ProxyHeaderError:
        return
    assert client.address is None or len(client.address) == 2


# -- the server


async def tell(ws: rawws.WebSocket) -> None:
    assert ws.remote_address is not None
    await ws.send(f"{ws.remote_address[0]} {ws.remote_address[1]}")


def who(request: rawws.HttpRequest) -> str:
    address = request.remote_address
    return f"{request.scheme} {address[0]} {address[1]}" if address else request.scheme


def routes() -> rawws.Routes:
    table = rawws.Routes()
    table.get("/")(who)
    table.websocket("/ws")(tell)
    return table


@asynccontextmanager
async def behind(**options: Any) -> AsyncIterator[rawws.Server]:
    async with serve(routes(), **{"trusted_proxies": [SELF], "proxy_protocol": True, **options}) as server:
        yield server


async def ask(server: rawws.Server, *pieces: bytes) -> str:
    """Send pieces, and return the body of the answer, "" where there is none."""
    peer = await Peer.reach(server.sockets[0].getsockname())
    try:
        for piece in pieces:
            await peer.write(piece)
        return (await peer.read_to_end()).partition(b"\r\n\r\n")[2].decode()
    finally:
        peer.close()


LINE: Final = b"PROXY TCP4 192.0.2.1 192.0.2.2 50000 443\r\n"


async def test_the_client_is_the_one_that_the_header_names() -> None:
    async with behind() as server:
        for header, told in [
            (LINE, "http 192.0.2.1 50000"),
            (b"PROXY TCP6 2001:db8::1 ::1 7 443\r\n", "http 2001:db8::1 7"),
            (tcp4(), "http 192.0.2.1 50000"),
            (tcp4(more=tlv(0x20, b"\x01\0\0\0\0")), "https 192.0.2.1 50000"),
        ]:
            assert await ask(server, header + GET) == told
            # In pieces, down to single octets.
            assert await ask(server, *(bytes([octet]) for octet in header), GET) == told
            assert await ask(server, header, GET) == told
        for header in (b"PROXY UNKNOWN\r\n", binary(0x20, 0x00), binary(0x20, 0x11, bytes(12))):
            assert (await ask(server, header + GET)).startswith(f"http {SELF} ")
        assert server.stats().proxies_refused == 0


async def test_what_the_client_says_of_itself_counts_only_where_it_is_a_proxy_too() -> None:
    forged = GET.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 10.9.9.9\r\nX-Forwarded-Proto: https\r\n\r\n")
    async with behind(trusted_proxies=[SELF, "192.0.2.7"]) as server:
        assert await ask(server, LINE + forged) == "http 192.0.2.1 50000"
        assert await ask(server, tcp4("192.0.2.7") + forged) == "https 10.9.9.9 0"
        # That the proxy itself says is said by it, as everywhere.
        assert await ask(server, binary(0x20, 0x00) + forged) == "https 10.9.9.9 0"


async def test_a_websocket_knows_its_client_and_is_counted_for_it() -> None:
    async with behind(max_connections_per_address=1) as server:
        peers = [await Peer.reach(server.sockets[0].getsockname()) for _ in range(3)]
        await peers[0].write(LINE)
        await peers[0].shake_hands(line="GET /ws HTTP/1.1")
        assert await peers[0].message() == "192.0.2.1 50000"
        await peers[1].write(tcp4(port=1) + request(line="GET /ws HTTP/1.1"))
        assert (await peers[1].response()).status in {101, 429}
        await peers[2].write(tcp4("192.0.2.9", 9))
        await peers[2].shake_hands(line="GET /ws HTTP/1.1")
        assert await peers[2].message() == "192.0.2.9 9"
        for peer in peers:
            peer.close()


async def test_what_is_no_header_is_closed_without_a_word_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "rawws.server")
    wrong = [
        GET,
        LINE[:-2] + b"\n",
        binary(0x31),
        b"PROXY TCP4 " + b"1" * 200,
        LINE[:20],
        b"",
        b"\x16\x03\x01" + bytes(30),
    ]
    async with behind() as server:
        for number, octets in enumerate(wrong, 1):
            peer = await Peer.reach(server.sockets[0].getsockname())
            await peer.write(octets)
            if len(octets) < 30:
                peer.sock.shutdown(socket.SHUT_WR)
            assert await peer.read_to_end() == b""
            peer.close()
            await eventually(lambda number=number: server.stats().proxies_refused == number)  # type: ignore[misc]
        assert server.stats().accepted == 0
        assert await ask(server, LINE + GET) == "http 192.0.2.1 50000"
    lines = [record.getMessage() for record in caplog.records if "PROXY header:" in record.getMessage()]
    assert len(lines) == len(wrong)
    assert "closed before its PROXY header: it begins with 'GET / HTTP/1', needed is a PROXY header" in lines[0]
    assert [line.endswith("PROXY header: the connection ended in it") for line in lines] == [
        octets in {LINE[:20], b""} for octets in wrong
    ]


async def test_a_peer_that_is_no_proxy_is_closed_before_anything_is_read(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "rawws.server")
    async with behind(trusted_proxies=["192.0.2.1"]) as server:
        assert await ask(server, LINE + GET) == ""
        assert server.stats().proxies_refused == 1
    assert "it is none of the trusted proxies" in caplog.text


@pytest.mark.usefixtures("steady")
async def test_a_header_that_does_not_come_in_time_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "rawws.server")
    async with behind(open_timeout=0.05) as server:
        for start in (b"", b"PROXY ", LINE[:-1], SIGNATURE, tcp4()[:-1]):
            peer = await Peer.reach(server.sockets[0].getsockname())
            await peer.write(start)
            assert await peer.read_to_end() == b""
            peer.close()
        await eventually(lambda: server.stats().proxies_refused == 5)
    lines = [record.getMessage() for record in caplog.records if "PROXY header:" in record.getMessage()]
    assert [line.partition(": ")[2] for line in lines] == ["it did not come within 0.05 s"] * 5
    # Without the limit, it waits.
    async with behind(open_timeout=None) as server:
        peer = await Peer.reach(server.sockets[0].getsockname())
        await peer.write(LINE[:9])
        await asyncio.sleep(0)
        await peer.write(LINE[9:] + GET)
        assert (await peer.response()).status == 200
        peer.close()


async def test_so_many_may_be_on_their_way_and_the_end_of_the_server_is_theirs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "rawws.server")
    async with behind(max_connections=2, open_timeout=None) as server:
        peers = [await Peer.reach(server.sockets[0].getsockname()) for _ in range(3)]
        ends = await asyncio.wait(
            [asyncio.ensure_future(peer.read_to_end()) for peer in peers], return_when=asyncio.FIRST_COMPLETED
        )
        assert len(ends[0]) == 1
        assert "too many connections wait for their PROXY header" in caplog.text
    for end in ends[1]:
        assert await end == b""
    for peer in peers:
        peer.close()


@pytest.mark.parametrize("turns", range(6))
async def test_a_connection_that_comes_as_the_server_ends_leaves_no_socket(turns: int) -> None:
    async with behind() as server:
        with socket.create_connection(server.sockets[0].getsockname()) as client:
            for _ in range(turns):
                await asyncio.sleep(0)
            server.close()
            await server.wait_closed()
            client.settimeout(5)
            # Reset, where nobody accepted it.
            with suppress(ConnectionResetError):
                assert client.recv(1) == b""


async def test_tls_begins_behind_the_header(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)

    async def connect(server: rawws.Server, header: bytes) -> rawws.WebSocket:
        """Send the header, and then all that a client says."""
        sock = socket.create_connection(server.sockets[0].getsockname())
        sock.sendall(header)
        return await rawws.connect("wss://localhost/ws", sock=sock, ssl=trust)

    async with behind(ssl=context) as server:
        for header in (LINE, tcp4(), tcp4(more=tlv(0x20, b"\x01\0\0\0\0"))):
            ws = await connect(server, header)
            assert await ws.recv() == "192.0.2.1 50000"
            await ws.close()
        with pytest.raises(rawws.InvalidMessage):
            await rawws.connect("ws://localhost/ws", sock=socket.create_connection(server.sockets[0].getsockname()))
        # What is no TLS behind the header ends there.
        peer = await Peer.reach(server.sockets[0].getsockname())
        await peer.write(LINE + GET)
        await peer.read_to_end()
        peer.close()


async def test_unix_sockets_and_given_ones_do_the_same(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    options: Any = {"proxy_protocol": True, "trusted_proxies": ["unix"]}
    async with rawws.unix_serve(routes(), path, mode=0o600, **options):
        peer = await Peer.reach(path)
        await peer.write(LINE + GET)
        assert (await peer.read_to_end()).endswith(b"http 192.0.2.1 50000")
        peer.close()
    async with rawws.unix_serve(routes(), path, **{**options, "trusted_proxies": [SELF]}) as server:
        peer = await Peer.reach(path)
        with suppress(ConnectionError):
            # Also where it has a header.
            await peer.write(LINE + GET)
            assert await peer.read_to_end() == b""
        peer.close()
        await eventually(lambda: server.stats().proxies_refused == 1)
    given_sockets = [socket.create_server((SELF, 0)) for _ in range(2)]
    async with rawws.serve(routes(), sock=given_sockets, proxy_protocol=True, trusted_proxies="*") as server:
        for sock in server.sockets:
            peer = await Peer.reach(sock.getsockname())
            await peer.write(tcp4() + GET)
            assert (await peer.read_to_end()).endswith(b"http 192.0.2.1 50000")
            peer.close()


async def test_where_there_are_no_descriptors_it_waits_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, logged: Any
) -> None:
    from rawws.server import proxy_protocol  # noqa: PLC0415 - what is patched

    monkeypatch.setattr(proxy_protocol, "ACCEPT_DELAY", 0.01)
    accept, failures = socket.socket.accept, iter([ConnectionAbortedError(), OSError(24, "Too many open files")])

    def failing(sock: socket.socket) -> Any:
        error = next(failures, None)
        if error is not None:
            raise error
        return accept(sock)

    monkeypatch.setattr(socket.socket, "accept", failing)
    async with behind() as server:
        assert await ask(server, LINE + GET) == "http 192.0.2.1 50000"
    logged.take("cannot accept connections: Too many open files")


async def test_until_then_it_does_not_try_again_and_again(monkeypatch: pytest.MonkeyPatch, logged: Any) -> None:
    tries: list[socket.socket] = []

    def fail(sock: socket.socket) -> Any:
        tries.append(sock)
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket.socket, "accept", fail)
    async with behind() as server:
        peer = await Peer.reach(server.sockets[0].getsockname())
        await eventually(lambda: tries)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(tries) == 1
        peer.close()
    logged.take("cannot accept connections: Too many open files")


def test_it_needs_proxies_to_trust() -> None:
    with pytest.raises(ValueError, match="proxy_protocol is True without trusted_proxies"):
        rawws.serve(tell, "127.0.0.1", 0, proxy_protocol=True)
    with pytest.raises(TypeError, match="proxy_protocol is str, allowed are True and False"):
        rawws.serve(tell, "127.0.0.1", 0, proxy_protocol="v2", trusted_proxies=["*"])  # type: ignore[arg-type]
