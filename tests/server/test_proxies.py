"""What trusted proxies say of their clients, and that nobody else is believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import rawws
from tests.server.peers import Peer, request, serve

SELF = "127.0.0.1"


async def tell(ws: rawws.WebSocket) -> None:
    """Say who the peer is."""
    await ws.send(str(ws.remote_address))


async def told(trusted: Any, *fields: str) -> str:
    """Return who a server believes its peer is, or the refusal; "PEER" stands for the peer itself."""
    async with serve(tell, trusted_proxies=trusted) as server:
        peer = await Peer.reach(server.sockets[0].getsockname())
        try:
            await peer.write(request(*fields))
            response = await peer.response()
            if response.status != 101:
                return f"{response.status} {(await peer.read_to_end()).decode()}"
            peer.connection.receive(peer.rest)
            message = str(await peer.message())
            return "PEER" if message == str(peer.sock.getsockname()) else message
        finally:
            peer.close()


CHAINS = [
    # Nobody is trusted by default.
    ((), ["1.2.3.4"], "PEER"),
    (["10.0.0.1"], ["1.2.3.4"], "PEER"),
    # The peer is.
    ([SELF], [], "PEER"),
    ([SELF], [""], "PEER"),
    ([SELF], ["1.2.3.4"], "('1.2.3.4', 0)"),
    ([SELF], ["1.2.3.4:56"], "('1.2.3.4', 56)"),
    ([SELF], ["2001:db8::1"], "('2001:db8::1', 0)"),
    ([SELF], ["[2001:db8::1]"], "('2001:db8::1', 0)"),
    ([SELF], ["[2001:DB8:0::1]:56"], "('2001:db8::1', 56)"),
    ([SELF], [" 1.2.3.4 "], "('1.2.3.4', 0)"),
    # What stands before the first that is not trusted is what a client wrote itself.
    ([SELF], ["6.6.6.6, 1.2.3.4"], "('1.2.3.4', 0)"),
    ([SELF, "10.0.0.0/8"], ["6.6.6.6, 1.2.3.4, 10.1.2.3"], "('1.2.3.4', 0)"),
    ([SELF, "10.0.0.0/8"], ["6.6.6.6", "1.2.3.4,10.1.2.3", "10.4.5.6"], "('1.2.3.4', 0)"),
    ([SELF, "10.0.0.0/8"], ["rubbish, 1.2.3.4"], "('1.2.3.4', 0)"),
    # All are trusted: the first is the client.
    ([SELF, "10.0.0.0/8"], ["10.0.0.1, 10.0.0.2"], "('10.0.0.1', 0)"),
    ("*", ["1.2.3.4, 5.6.7.8"], "('1.2.3.4', 0)"),
    (["127.0.0.0/8"], ["1.2.3.4"], "('1.2.3.4', 0)"),
    ([SELF], ["1.2.3.4,,"], "('1.2.3.4', 0)"),
    # Whoever writes an IPv4 address as an IPv6 one means the same.
    (["::ffff:127.0.0.1"], ["[::ffff:1.2.3.4]:56"], "('1.2.3.4', 56)"),
    ([SELF, "::ffff:10.0.0.0/104"], ["1.2.3.4, ::ffff:10.1.2.3"], "('1.2.3.4', 0)"),
    # Of a network that is more than mapped addresses, no IPv4 address is one.
    (["::/0"], ["1.2.3.4"], "PEER"),
]


@pytest.mark.parametrize(("trusted", "chain", "expected"), CHAINS)
async def test_the_client_is_the_last_address_that_is_not_a_proxy(
    trusted: Any, chain: list[str], expected: str
) -> None:
    assert await told(trusted, *[f"X-Forwarded-For: {entries}" for entries in chain]) == expected


@pytest.mark.parametrize(
    "entry",
    [
        "unknown",
        "1.2.3",
        "1.2.3.4.5",
        "256.1.1.1",
        "1.2.3.4:x",
        "1.2.3.4:99999",
        "1.2.3.4:65536",
        "[::1",
        "::g",
        "1.2.3.4:\u0663",
        "-",
        "a" * 5000,
    ],
)
async def test_what_a_trusted_proxy_sends_and_nobody_can_read_is_a_400(entry: str) -> None:
    entry = entry.encode().decode("latin-1")
    answer = await told([SELF], f"X-Forwarded-For: {entry}")
    assert answer.startswith("400 X-Forwarded-For has ")
    assert len(answer) < 200


async def test_what_an_untrusted_peer_sends_is_not_even_read() -> None:
    assert await told((), "X-Forwarded-For: rubbish", "X-Forwarded-Proto: rubbish") == "PEER"


@pytest.mark.parametrize(("trusted", "expected"), [(["unix"], "('1.2.3.4', 0)"), ("*", "('1.2.3.4', 0)"), ([SELF], "")])
async def test_a_proxy_on_a_unix_socket(trusted: Any, expected: str, tmp_path: Path) -> None:
    path = f"{tmp_path}/socket"
    async with rawws.serve(tell, path=path, trusted_proxies=trusted):
        peer = await Peer.reach(path)
        await peer.shake_hands("X-Forwarded-For: 1.2.3.4")
        assert await peer.message() == expected
        peer.close()


SCHEMES = [
    ((), "https", "https", 403),
    ((), "https", "http", 101),
    ([SELF], None, "http", 101),
    ([SELF], None, "https", 403),
    ([SELF], "https", "https", 101),
    ([SELF], "https", "http", 403),
    ([SELF], "wss", "https", 101),
    ([SELF], "http", "http", 101),
    ([SELF], "ws", "https", 403),
    ([SELF], "HTTPS", "https", 101),
    ([SELF], "http, https", "https", 101),
    ([SELF], "gopher", "https", 400),
]


@pytest.mark.parametrize(("trusted", "scheme", "origin", "status"), SCHEMES)
async def test_the_scheme_that_a_trusted_proxy_names_decides_which_origin_is_the_servers_own(
    trusted: Any, scheme: str | None, origin: str, status: int
) -> None:
    fields = [f"Origin: {origin}://localhost"] + ([f"X-Forwarded-Proto: {scheme}"] if scheme else [])
    answer = await told(trusted, *fields)
    assert answer == "PEER" if status == 101 else answer.startswith(f"{status} ")


@pytest.mark.parametrize(
    ("entry", "status"),
    [
        ("fe80::1%eth0", 101),
        ("fe80::1%br-0", 101),
        ("[fe80::1%2]:80", 101),
        ("fe80::1%" + "x" * 16, 400),
        ("fe80::1%a b", 400),
        ("fe80::1%\xe9", 400),
        ('fe80::1%"x', 400),
        ("fe80::1%<script>", 400),
        ("fe80::1%..", 400),
    ],
)
async def test_a_zone_is_the_name_of_an_interface_or_no_address(entry: str, status: int) -> None:
    async with serve(tell, trusted_proxies=[SELF]) as server:
        peer = await Peer.reach(server.sockets[0].getsockname())
        await peer.write(request(f"X-Forwarded-For: {entry}"))
        assert (await peer.response()).status == status
        peer.close()


@pytest.mark.parametrize("port", [0, 1, 65535])
async def test_a_trusted_proxy_may_name_any_port(port: int) -> None:
    assert await told([SELF], f"X-Forwarded-For: 1.2.3.4:{port}") == f"('1.2.3.4', {port})"
