"""Where a server listens: addresses, unix sockets, inherited sockets, TLS; and the options that make no sense."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import re
import socket
import ssl
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import websockets.asyncio.client
import websockets.exceptions

import rawws
from rawws.net.kernel import SendQueue, send_queue
from tests.server.peers import Logged, Peer, connected, eventually, host_and_port, narrow, request, serve
from tests.server.test_server_shutdown import connections, descriptors


async def echo(ws: rawws.WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


async def talk(address: Any) -> None:
    """Send a message to the echo at this address, and get it back."""
    peer = await Peer.reach(address)
    await peer.shake_hands()
    await peer.send("hi")
    assert await peer.message() == "hi"
    await peer.start_close()
    assert await peer.finish() == (1000, "")
    peer.close()


# -- addresses


async def test_several_hosts_with_one_server() -> None:
    async with rawws.serve(echo, ["127.0.0.1", "::1"], 0) as server:
        addresses = [sock.getsockname() for sock in server.sockets]
        assert {address[0] for address in addresses} == {"127.0.0.1", "::1"}
        assert all(address[1] for address in addresses)
        for address in addresses:
            await talk(address)


async def test_ipv6() -> None:
    async def handler(ws: rawws.WebSocket) -> None:
        await ws.send(f"{host_and_port(ws.remote_address)[0]} {host_and_port(ws.local_address)[0]}")

    async with rawws.serve(handler, "::1", 0) as server, connected(server) as peer:
        assert await peer.message() == "::1 ::1"


async def test_a_unix_socket(tmp_path: Path) -> None:
    path = f"{tmp_path}/socket"

    async def handler(ws: rawws.WebSocket) -> None:
        assert ws.local_address == path
        assert not ws.remote_address
        await echo(ws)

    for _ in range(2):
        # The second time the socket of the first lies there.
        async with rawws.serve(handler, path=path):
            await talk(path)
    async with rawws.unix_serve(handler, path):
        await talk(path)


async def test_of_a_unix_socket_it_is_known_how_much_its_peer_has_not_read(tmp_path: Path) -> None:
    async with rawws.unix_serve(rawws.Handler(), f"{tmp_path}/socket") as server:
        peer = await Peer.reach(f"{tmp_path}/socket")
        await peer.shake_hands()
        await eventually(lambda: server.connections)
        [ws] = server.connections
        assert ws.transport is not None
        assert send_queue(ws.transport) == SendQueue(-1, 0, 0)
        await ws.send(bytes(10_000))
        await eventually(lambda: ws.buffered == 0)
        told = send_queue(ws.transport)
        assert (told.acked, told.window) == (-1, 0)
        assert told.held >= 10_000
        assert await peer.message() == bytes(10_000)
        await eventually(lambda: ws.transport is not None and send_queue(ws.transport).held == 0)
        peer.close()


def permissions(path: str) -> int:
    return stat.S_IMODE(Path(path).stat().st_mode)


@pytest.mark.parametrize("mode", [0o600, 0o666, 0o660])
async def test_a_unix_socket_has_the_permissions_of_mode(tmp_path: Path, mode: int) -> None:
    path = f"{tmp_path}/socket"
    async with rawws.unix_serve(echo, path, mode=mode):
        assert permissions(path) == mode
        await talk(path)
    async with rawws.serve(echo, path=path, mode=mode):
        assert permissions(path) == mode


@pytest.mark.parametrize(
    ("mode", "error"), [("660", TypeError), (0o1777, ValueError), (-1, ValueError), (True, TypeError)]
)
async def test_what_are_no_permissions_is_refused(mode: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="mode is"):
        rawws.unix_serve(echo, "/nowhere", mode=mode)
    with pytest.raises(ValueError, match="mode is 0o660 without a path"):
        rawws.serve(echo, "127.0.0.1", 0, mode=0o660)


def leave(path: str) -> None:
    """Have a socket lie there where nobody answers; that of a server of ours is removed by Python 3.13 and later."""
    Path(path).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)


async def test_a_second_server_refuses_the_path_of_one_that_listens_and_the_first_goes_on(tmp_path: Path) -> None:
    path = f"{tmp_path}/socket"
    async with rawws.unix_serve(echo, path):
        for _ in range(2):
            with pytest.raises(OSError, match="another server listens there") as raised:
                await rawws.unix_serve(echo, path)
            assert raised.value.errno == errno.EADDRINUSE
        await talk(path)
    leave(path)
    assert permissions(path)
    async with rawws.unix_serve(echo, path):
        await talk(path)


async def test_a_path_whose_server_takes_no_more_connections_is_refused_as_well(tmp_path: Path) -> None:
    path = f"{tmp_path}/socket"
    with socket.socket(socket.AF_UNIX) as full, contextlib.ExitStack() as stack:
        full.bind(path)
        full.listen(0)
        while True:
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            if client.connect_ex(path):
                break
        with pytest.raises(OSError, match="another server listens there"):
            await rawws.unix_serve(echo, path)


async def test_a_file_that_is_no_socket_is_left_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(OSError, match="in use") as raised:
        await rawws.unix_serve(echo, str(path))
    assert raised.value.errno == errno.EADDRINUSE
    assert path.read_text() == "mine"
    with pytest.raises(FileNotFoundError, match="nowhere"):
        await rawws.unix_serve(echo, f"{tmp_path}/nowhere/socket")


async def test_inherited_sockets(tmp_path: Path) -> None:
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(f"{tmp_path}/socket")
    sockets = [socket.create_server(("127.0.0.1", 0)), socket.create_server(("::1", 0), family=socket.AF_INET6), unix]
    async with rawws.serve(echo, sock=sockets) as server:
        assert len(server.sockets) == 3
        for sock in sockets:
            await talk(sock.getsockname())
    async with rawws.serve(echo, sock=socket.create_server(("127.0.0.1", 0))) as server:
        await talk(server.sockets[0].getsockname())


async def test_await_gives_the_server_too() -> None:
    server = await serve(echo)
    assert server.is_serving()
    await talk(server.sockets[0].getsockname())
    server.close()
    await server.wait_closed()
    assert not server.is_serving()


async def test_a_busy_port_raises_os_error() -> None:
    async with serve(echo) as server:
        with pytest.raises(OSError, match="in use") as error:
            await rawws.serve(echo, *server.sockets[0].getsockname())
        assert error.value.errno == errno.EADDRINUSE


async def test_reuse_port_lets_two_servers_share_a_port() -> None:
    async with serve(echo, reuse_port=True) as server:
        async with rawws.serve(echo, *server.sockets[0].getsockname(), reuse_port=True):
            await talk(server.sockets[0].getsockname())


async def test_a_path_that_cannot_be_bound_raises_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await rawws.serve(echo, path=f"{tmp_path}/nowhere/socket")


async def test_no_socket_stays_open_where_one_of_several_cannot_listen() -> None:
    good = socket.create_server(("127.0.0.1", 0))
    bad = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    address = good.getsockname()
    with pytest.raises(ValueError, match=r"[Ss]tream [Ss]ocket"):
        await rawws.serve(echo, sock=[good, bad])
    await asyncio.sleep(0)
    with socket.socket() as probe:
        assert probe.connect_ex(address) == errno.ECONNREFUSED
    bad.close()


# -- options

BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"open_timeout": 0}, ValueError, "open_timeout is 0, allowed are numbers above 0 and None"),
    ({"close_timeout": -1}, ValueError, "close_timeout is -1"),
    ({"ping_interval": 0.0}, ValueError, "ping_interval is 0.0"),
    ({"ping_timeout": -0.5}, ValueError, "ping_timeout is -0.5"),
    ({"max_size": 0}, ValueError, "max_size is 0"),
    ({"hard_limit": 0}, ValueError, "hard_limit is 0"),
    ({"max_size": "1 MiB"}, TypeError, "max_size is str"),
    ({"ping_interval": "20"}, TypeError, "ping_interval is str"),
    ({"open_timeout": float("nan")}, ValueError, "open_timeout is nan"),
    ({"max_size": 1.5}, TypeError, "max_size is float"),
    ({"hard_limit": 1.5}, TypeError, "hard_limit is float"),
    ({"compression": "gzip"}, ValueError, "compression is 'gzip', allowed are 'deflate', None and a Compression"),
    ({"compression": True}, TypeError, "compression is True"),
    ({"subprotocols": "chat"}, TypeError, "subprotocols is str"),
    ({"subprotocols": ["a b"]}, ValueError, "subprotocols"),
    ({"origins": 5}, TypeError, "origins is int"),
    ({"origins": [5]}, TypeError, "origins"),
    ({"trusted_proxies": ["localhost"]}, ValueError, "trusted_proxies.*'localhost'"),
    ({"trusted_proxies": ["10.0.0.1/8"]}, ValueError, "trusted_proxies.*'10.0.0.1/8'"),
    ({"trusted_proxies": "10.0.0.0/64"}, ValueError, "trusted_proxies.*'10.0.0.0/64'"),
    ({"process_request": "health"}, TypeError, "process_request is str"),
    ({"process_response": 1}, TypeError, "process_response is int"),
    ({"select_subprotocol": []}, TypeError, "select_subprotocol is list"),
    ({"ssl": True}, TypeError, "ssl is bool"),
    ({"port": "80"}, TypeError, "port is str"),
    ({"port": -1}, ValueError, "port is -1, allowed are 0 to 65535"),
    ({"port": 65536}, ValueError, "port is 65536, allowed are 0 to 65535"),
    ({"port": None}, ValueError, "one of port, path and sock"),
    ({"path": "/tmp/socket"}, ValueError, "one of port, path and sock"),
    ({"path": "/tmp/socket", "port": None, "host": "127.0.0.1"}, ValueError, "host"),
    ({"logger": "rawws"}, TypeError, "logger is str"),
    ({"unknown": 1}, TypeError, "unknown"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD, ids=lambda value: "")
async def test_a_bad_option_is_refused_by_its_name(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        async with rawws.serve(echo, **{"port": 0, **options}):
            """It should not have started."""


@pytest.mark.parametrize(
    "options",
    [
        {"open_timeout": None, "close_timeout": None, "ping_interval": None, "ping_timeout": None},
        {"max_size": None, "hard_limit": None, "compression": None},
        {"trusted_proxies": ["127.0.0.1", "10.0.0.0/8", "::1", "fd00::/8", "unix", "*"]},
        {"origins": [re.compile("https://.*"), None, "https://example.com"]},
        {"subprotocols": [], "backlog": 1},
    ],
    ids=lambda value: "",
)
async def test_good_options_are_taken(options: dict[str, Any]) -> None:
    async with serve(echo, **options) as server:
        await talk(server.sockets[0].getsockname())


async def test_a_logger_of_ones_own_gets_what_is_logged(logged: Logged) -> None:
    async def handler(ws: rawws.WebSocket) -> None:
        raise ValueError("broken")

    async with serve(handler, logger=logging.getLogger("mine")) as server, connected(server) as peer:
        assert await peer.finish() == (1011, "internal error")
    logged.take("connection handler failed", ValueError, "mine")


# -- TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture(autouse=True)
def quiet_websockets() -> Iterator[None]:
    """The `websockets` client logs what it does; that is not the subject."""
    logger = logging.getLogger("websockets")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


def url(server: rawws.Server, scheme: str = "ws") -> str:
    return f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def test_tls_with_a_real_client(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    async with serve(echo, ssl=server_tls) as server:
        async with websockets.asyncio.client.connect(url(server, "wss"), ssl=client_tls) as client:
            for message in ("text", b"binary", "x" * 70_000, bytes(1_000_000)):
                await client.send(message)
                assert await client.recv() == message
            await (await client.ping())
        assert client.close_code == 1000


async def test_without_open_timeout_tls_has_the_deadline_of_its_loop(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    async with serve(echo, ssl=server_tls, open_timeout=None) as server:
        async with websockets.asyncio.client.connect(url(server, "wss"), ssl=client_tls) as client:
            await client.send("Hello")
            assert await client.recv() == "Hello"


async def test_a_page_of_the_same_origin_is_https_under_tls(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    async with serve(echo, ssl=server_tls) as server:
        host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with websockets.asyncio.client.connect(url(server, "wss"), ssl=client_tls, origin=f"https://{host}"):  # type: ignore[arg-type]
            pass
        with pytest.raises(websockets.exceptions.InvalidStatus):
            await websockets.asyncio.client.connect(url(server, "wss"), ssl=client_tls, origin=f"http://{host}")  # type: ignore[arg-type]


async def test_backpressure_under_tls(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    sent = largest = 0
    connections: list[rawws.WebSocket] = []
    messages = [f"{number} ".ljust(100_000) for number in range(40)]

    async def handler(ws: rawws.WebSocket) -> None:
        nonlocal sent, largest
        connections.append(ws)
        for message in messages:
            sending = ws.send(message)
            largest = max(largest, ws.buffered)
            await sending
            sent += 1

    async with rawws.serve(handler, sock=narrow(), ssl=server_tls, compression=None) as server:
        peer = await Peer.reach(server.sockets[0].getsockname(), 4096)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client_tls.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        data = bytearray()

        async def until_done(step: Callable[[], bytes | None]) -> None:
            """Do a step of TLS, and read for it what it needs."""
            done = False
            while not done:
                try:
                    data.extend(step() or b"")
                    done = True
                except ssl.SSLWantReadError:
                    await peer.write(outgoing.read())
                    incoming.write(await peer.read())
            await peer.write(outgoing.read())

        await until_done(tls.do_handshake)
        tls.write(request())
        while b"\r\n\r\n" not in data:
            await until_done(lambda: tls.read(65536))
        # Here nothing is read, and there so little waits as without TLS: the high-water mark, and what came upon it.
        await eventually(lambda: connections and connections[0].congested)
        assert sent < len(messages) // 2
        frames = b"".join([b"\x81\x7f" + len(message).to_bytes(8, "big") + message.encode() for message in messages])
        end = data.index(b"\r\n\r\n") + 4 + len(frames)
        while len(data) < end:
            await until_done(lambda: tls.read(65536))
        assert data.endswith(frames)
        assert (len(data), sent) == (end, len(messages))
        assert largest <= 65536 + len(frames) // len(messages)
        peer.close()


async def test_a_violation_under_tls_is_answered_with_its_close_code(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    async with serve(echo, ssl=server_tls) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), ssl=client_tls)
        writer.write(request() + b"\x81\x00")
        data = await reader.readuntil(b"\r\n\r\n")
        assert data.startswith(b"HTTP/1.1 101 ")
        assert (await reader.readexactly(4))[2:] == b"\x03\xea"
        writer.close()
        await writer.wait_closed()
        await eventually(lambda: not server.settings.connections)


async def test_a_refusal_under_tls_has_a_body(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    async with serve(echo, ssl=server_tls) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), ssl=client_tls)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        data = await reader.read()
        assert data.startswith(b"HTTP/1.1 426 ")
        assert data.endswith(b"needed is 'websocket'\n")
        writer.close()
        await writer.wait_closed()


async def test_a_peer_that_does_not_speak_tls_leaves_nothing_behind(server_tls: ssl.SSLContext) -> None:
    async with serve(echo, ssl=server_tls) as server:

        def left() -> tuple[int, int, int]:
            return descriptors(), connections(), len(asyncio.all_tasks())

        before = left()
        peer = await Peer.reach(server.sockets[0].getsockname())
        await peer.write(request())
        await peer.read_to_end()
        peer.close()
        await eventually(lambda: not server.settings.connections)
        await eventually(lambda: left() == before)


async def test_a_peer_that_does_not_finish_its_tls_handshake_is_dropped_after_open_timeout(
    server_tls: ssl.SSLContext,
) -> None:
    async with serve(echo, ssl=server_tls, open_timeout=0.2) as server:
        peer = await Peer.reach(server.sockets[0].getsockname())
        await peer.read_to_end()
        peer.close()


async def test_a_server_closes_over_a_tls_handshake_that_hangs(server_tls: ssl.SSLContext) -> None:
    async with serve(echo, ssl=server_tls, open_timeout=1) as server:
        peer = await Peer.reach(server.sockets[0].getsockname())
        hello = ssl.MemoryBIO()
        with pytest.raises(ssl.SSLWantReadError):
            ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost").do_handshake()
        await peer.write(hello.read())
        assert await peer.read()
    await peer.read_to_end()
    peer.close()


# -- a real client


@pytest.mark.parametrize("compression", ["deflate", None])
async def test_the_websockets_client_is_at_home(compression: str | None) -> None:
    async with serve(echo, subprotocols=["chat"]) as server:
        async with websockets.asyncio.client.connect(
            url(server),
            compression=compression,
            subprotocols=["chat"],  # type: ignore[list-item]
        ) as client:
            assert client.subprotocol == "chat"
            for message in ("", "text", b"binary", "ü" * 5000, bytes(100_000)):
                await client.send(message)
                assert await client.recv() == message
            await client.send(["in ", "fragments"])
            assert await client.recv() == "in fragments"
            await (await client.ping(b"are you there"))
            await client.close(4000, "bye")
        assert (client.close_code, client.close_reason) == (4000, "bye")


async def test_the_websockets_client_sees_codes_and_reasons() -> None:
    async def handler(ws: rawws.WebSocket) -> None:
        await ws.close(4001, "because")

    async with serve(handler) as server, websockets.asyncio.client.connect(url(server)) as client:
        with pytest.raises(websockets.exceptions.ConnectionClosedError):
            await client.recv()
        assert (client.close_code, client.close_reason) == (4001, "because")
