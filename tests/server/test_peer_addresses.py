"""An IPv4 address is one address, also where a socket for both versions writes it as an IPv6 one."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any, Final

import pytest

import rawws
from rawws.net.logs import shown_address
from rawws.net.peer_addresses import network_of, parse_ip_address, parse_ip_network, plain_peer
from tests.server.peers import Peer, eventually, request
from tests.server.test_proxy_protocol import LINE

SELF: Final = "127.0.0.1"


@pytest.fixture
def both() -> Iterator[socket.socket]:
    """Hand out a listening socket for both versions."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listening:
        yield listening


async def tell(ws: rawws.WebSocket) -> None:
    """Say who the peer is, and whom it reached."""
    await ws.send(f"{ws.remote_address} {ws.local_address}")


async def told(port: int, *fields: str, header: bytes = b"", host: str = SELF) -> tuple[str, Any]:
    """Return what the server says to a peer of this host, and the address of that."""
    peer = await Peer.reach((host, port, 0, 0) if ":" in host else (host, port))
    try:
        await peer.write(header)
        await peer.shake_hands(*fields)
        return str(await peer.message()), peer.sock.getsockname()
    finally:
        peer.close()


ENGINES = ("epoll", "asyncio")


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_peer_of_either_version_is_told_as_by_a_socket_of_its_own(both: socket.socket, engine: Any) -> None:
    port = both.getsockname()[1]
    async with rawws.serve(tell, sock=both, engine=engine):
        said, own = await told(port)
        assert said == f"{own} {(SELF, port)}"
        said, own = await told(port, host="::1")
        assert said == f"{own} {('::1', port, 0, 0)}"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("trusted", ["127.0.0.1", "127.0.0.0/8", "::ffff:127.0.0.1", "::ffff:127.0.0.0/104"])
async def test_a_proxy_that_comes_by_ipv4_is_trusted(both: socket.socket, engine: Any, trusted: str) -> None:
    port = both.getsockname()[1]
    async with rawws.serve(tell, sock=both, engine=engine, trusted_proxies=[trusted]):
        said, _ = await told(port, "X-Forwarded-For: 6.6.6.6, ::ffff:1.2.3.4, ::ffff:127.0.0.1")
        assert said == f"{('1.2.3.4', 0)} {(SELF, port)}"
        said, own = await told(port, "X-Forwarded-For: 1.2.3.4", host="::1")
        assert said == f"{own} {('::1', port, 0, 0)}"


@pytest.mark.parametrize("trusted", ["127.0.0.1", "::ffff:127.0.0.0/104"])
async def test_a_proxy_that_comes_by_ipv4_may_send_a_proxy_header(both: socket.socket, trusted: str) -> None:
    port = both.getsockname()[1]
    async with rawws.serve(tell, sock=both, trusted_proxies=[trusted], proxy_protocol=True):
        said, _ = await told(port, header=LINE)
        assert said == f"{('192.0.2.1', 50000)} {(SELF, port)}"
        said, own = await told(port, header=b"PROXY UNKNOWN\r\n")
        assert said == f"{own} {(SELF, port)}"


async def test_the_limit_for_an_address_counts_it_whoever_wrote_it(both: socket.socket) -> None:
    async def stay(ws: rawws.WebSocket) -> None:
        async for _ in ws:
            pass

    options: dict[str, Any] = {"max_connections_per_address": 1, "trusted_proxies": ["::1"]}
    port = both.getsockname()[1]
    async with rawws.serve(stay, sock=both, **options) as server:
        first = await Peer.reach((SELF, port))
        await first.shake_hands()
        # By itself, and as a proxy tells of it.
        for address, fields in [((SELF, port), []), (("::1", port, 0, 0), [f"X-Forwarded-For: ::ffff:{SELF}"])]:
            second = await Peer.reach(address)
            await second.write(request(*fields))
            assert b"127.0.0.1 has 1 connections, the limit for one address" in await second.read_to_end()
            second.close()
        first.close()
        await eventually(lambda: not server.connections)


async def test_the_log_names_it_as_everything_else_does(both: socket.socket, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "rawws"):
        async with rawws.serve(tell, sock=both):
            _, (host, port) = await told(both.getsockname()[1])
            await eventually(lambda: f"{host}:{port} / closed by" in caplog.text)
    assert "::ffff:" not in caplog.text


@pytest.mark.parametrize(
    ("address", "plain"),
    [
        (("::ffff:192.0.2.1", 5, 0, 0), ("192.0.2.1", 5)),
        (("::ffff:c000:201", 5, 0, 0), ("192.0.2.1", 5)),
        (("192.0.2.1", 5), ("192.0.2.1", 5)),
        (("2001:db8::1", 5, 0, 0), ("2001:db8::1", 5, 0, 0)),
        # RFC 2765 2.1: an "IPv4-translated" address is another one.
        (("::ffff:0:192.0.2.1", 5, 0, 0), ("::ffff:0:192.0.2.1", 5, 0, 0)),
        (("::ffff:nobody", 5), ("::ffff:nobody", 5)),
        ("/run/socket", "/run/socket"),
        (None, None),
    ],
)
def test_the_address_of_a_peer_is_plain(address: Any, plain: Any) -> None:
    assert plain_peer(address) == plain
    assert shown_address(address) == shown_address(plain)


def test_an_address_or_a_network_is_an_ipv4_one_where_all_of_it_is_mapped() -> None:
    assert str(parse_ip_address("::FFFF:192.0.2.1")) == "192.0.2.1"
    assert str(parse_ip_address("::ffff:192.0.2.1%eth0")) == "192.0.2.1"
    assert str(parse_ip_address("fe80::1%eth0")) == "fe80::1%eth0"
    for text, network in [
        ("::ffff:192.0.2.1", "192.0.2.1/32"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::ffff:0:0/95", "::fffe:0:0/95"),
        ("::/0", "::/0"),
        ("2001:db8::/32", "2001:db8::/32"),
    ]:
        assert str(parse_ip_network(text, strict=text != "::ffff:0:0/95")) == network
    for text in ("::ffff:10.0.0.1/104", "10.0.0.1/8", "::ffff:10.0.0.0/129", "", "x"):
        with pytest.raises(ValueError, match=r".*"):
            parse_ip_network(text)


def test_an_ipv6_subscriber_is_one_address_and_a_unix_socket_none() -> None:
    assert network_of(("2001:db8::1", 1, 0, 0)) == network_of(("2001:db8::2:3", 1, 0, 0)) == "2001:db8::/64"
    assert network_of(("fe80::1%eth0", 1, 0, 0)) == "fe80::/64"
    assert network_of(("::ffff:192.0.2.1", 1, 0, 0)) == network_of(("192.0.2.1", 1)) == "192.0.2.1"
    assert network_of("") is None
