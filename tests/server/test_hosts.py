"""By what name a server is asked for: pages whose names were made to lead to loopback (DNS rebinding) are refused."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

import pytest

import rawws
from rawws import HttpError, testing
from rawws.integrations import asgi
from rawws.protocol.http11 import Headers, Request
from rawws.server.hosts import MAX_KNOWN, AllowedHosts, _is_loopback
from tests.server.answers import ask, get
from tests.server.peers import Logged, Peer, request, serve

EVIL = "rebound.example"


def table() -> rawws.Routes:
    routes = rawws.Routes()
    routes.get("/")(lambda _: "x")
    routes.get("/events")(lambda _: rawws.EventStream())

    async def echo(ws: rawws.WebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    routes.websocket("/ws")(echo)
    return routes


def named(host: str, target: str = "/", *, upgrade: bool = False) -> bytes:
    """Return a request by this name, from a page of the same name, as a browser would send it."""
    if upgrade:
        return request(f"Host: {host}", f"Origin: http://{host}", line=f"GET {target} HTTP/1.1")
    return f"GET {target} HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nConnection: close\r\n\r\n".encode()


async def status(server: rawws.Server, data: bytes) -> int:
    peer = await Peer.reach(server.sockets[0].getsockname())
    try:
        await peer.write(data)
        return (await peer.response()).status
    finally:
        peer.close()


LOCAL = ["localhost", "LOCALHOST:80", "localhost.", "app.localhost:5173", "127.0.0.1", "127.0.0.1:8765", "[::1]",
         "[::1]:80", "10.1.2.3", "[2001:db8::1]:80", "a", "devbox:8080"]  # fmt: skip
FOREIGN = [EVIL, f"{EVIL}:80", "localhost.rebound.example", "127.0.0.1.rebound.example", "a.b", "127.1"]


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        (("127.0.0.2", 80), True),
        (("::1", 80, 0, 0), True),
        (("::ffff:127.0.0.1", 80, 0, 0), True),
        (("::ffff:192.0.2.1", 80, 0, 0), False),
        (("0.0.0.0", 80), False),
        (("fe80::1%eth0", 80, 0, 2), False),
        ("/run/socket", False),
    ],
)
def test_loopback_is_what_other_machines_cannot_reach(address: object, loopback: bool) -> None:
    assert _is_loopback(address) is loopback


@pytest.mark.parametrize("host", LOCAL)
async def test_a_server_on_loopback_answers_to_the_names_of_loopback_and_to_addresses(host: str) -> None:
    async with serve(table()) as server:
        assert await status(server, named(host)) == 200
        assert await status(server, named(host, "/ws", upgrade=True)) == 101


@pytest.mark.parametrize("host", FOREIGN)
async def test_a_server_on_loopback_refuses_every_request_by_another_name(host: str) -> None:
    async with serve(table()) as server:
        for data in (named(host), named(host, "/events"), named(host, "/nowhere"), named(host, "/ws", upgrade=True)):
            assert await status(server, data) == 421
        assert server.stats().refusals == {421: 4}


async def test_a_refusal_says_what_came_and_what_is_allowed() -> None:
    async with serve(table()) as server:
        peer = await Peer.reach(server.sockets[0].getsockname())
        await peer.write(named(EVIL))
        response, body = await peer.answer()
        peer.close()
    assert (response.status, response.reason_phrase) == (421, "Misdirected Request")
    assert body == (
        "Host is 'rebound.example', allowed are 'localhost', '*.localhost', '127.0.0.1', names without a dot and "
        "addresses: the option `hosts` names others\n"
    )


async def test_no_hook_and_no_application_sees_what_is_refused() -> None:
    seen: list[str] = []

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        seen.append(scope["path"])

    def process(_ws: rawws.WebSocket, asked: rawws.Request) -> None:
        seen.append(asked.path)

    async with serve(table(), process_request=process) as server:
        assert await status(server, named(EVIL)) == 421
    async with asgi.serve(app, "127.0.0.1", 0, lifespan="off") as server:
        assert await status(server, named(EVIL)) == 421
        assert await status(server, named(EVIL, "/ws", upgrade=True)) == 421
    assert seen == []


async def test_each_request_of_a_connection_is_judged() -> None:
    async with serve(table()) as server:
        answers = await ask(server, get() + named(EVIL), ["GET", "GET"])
        assert [answer.status for answer in answers] == [200, 421]


async def test_the_name_in_an_absolute_target_counts() -> None:
    async with serve(table()) as server:
        [answer] = await ask(server, get(f"http://{EVIL}/"))
        assert answer.status == 421


async def test_a_request_without_a_host_comes_from_no_browser() -> None:
    async with serve(table()) as server:
        [answer] = await ask(server, b"GET / HTTP/1.0\r\n\r\n")
        assert answer.status == 200


@pytest.mark.parametrize("proxies", [["127.0.0.1"], ["10.0.0.1"], "*"])
async def test_a_server_behind_a_proxy_answers_to_any_name(proxies: Any) -> None:
    """nginx and haproxy pass on the name of the site."""
    async with serve(table(), trusted_proxies=proxies) as server:
        assert await status(server, named("chat.example")) == 200


async def test_a_server_behind_a_proxy_may_name_its_hosts() -> None:
    async with serve(table(), trusted_proxies=["127.0.0.1"], hosts=["chat.example"]) as server:
        assert await status(server, named("chat.example")) == 200
        assert await status(server, named(EVIL)) == 421


@pytest.mark.parametrize("where", [None, "0.0.0.0", ["127.0.0.1", "0.0.0.0"]])
async def test_a_server_that_others_can_reach_answers_to_any_name(where: Any) -> None:
    if isinstance(where, list):
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("0.0.0.0", 0)) as two:
            async with rawws.serve(table(), sock=[one, two]) as server:
                assert await status(server, named(EVIL)) == 200
        return
    async with rawws.serve(table(), where, 0) as server:
        assert await status(server, named(EVIL)) == 200


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
async def test_a_socket_that_is_given_is_judged_by_its_address(family: socket.AddressFamily) -> None:
    address = "127.0.0.1" if family == socket.AF_INET else "::1"
    with socket.create_server((address, 0), family=family) as sock:
        async with rawws.serve(table(), sock=sock) as server:
            assert await status(server, named(EVIL)) == 421
            assert await status(server, named("localhost")) == 200


async def test_no_browser_reaches_a_unix_socket_or_a_server_in_memory(tmp_path: Path) -> None:
    async with rawws.unix_serve(table(), str(tmp_path / "s")) as server:
        assert await status(server, named(EVIL)) == 200
    async with testing.serve(table()) as host, host.connect(f"ws://{EVIL}/ws") as ws:
        await ws.send("x")
        assert await ws.recv() == "x"


def test_the_name_that_a_server_was_bound_to_is_its_own() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        allowed = AllowedHosts.at([sock], ["devbox.example", "127.0.0.1"])
    assert allowed is not None
    allowed.check(rawws.Request("GET", "/", rawws.Headers([("Host", "DevBox.example:80")])))
    with pytest.raises(rawws.HttpError, match=r"'\*\.localhost', 'devbox\.example', '127\.0\.0\.1', names without"):
        allowed.check(rawws.Request("GET", "/", rawws.Headers([("Host", EVIL)])))


NAMES: list[tuple[Any, str, bool]] = [
    ("chat.example", "chat.example", True),
    ("Chat.Example", "CHAT.example.:81", True),
    (["chat.example"], "a.chat.example", False),
    (["*.chat.example"], "a.b.chat.example", True),
    (["*.chat.example"], "chat.example", False),
    (["*.chat.example"], "evilchat.example", False),
    (["chat.example"], "localhost", False),
    (["chat.example"], "127.0.0.1", False),
    (["chat.example", "127.0.0.1"], "127.0.0.1:80", True),
    (["::1"], "[0:0::1]:80", True),
    (["[::1]"], "[::1]", True),
    (["192.0.2.1"], "[::ffff:192.0.2.1]", True),
    (["::ffff:192.0.2.1"], "192.0.2.1", True),
    ("*", EVIL, True),
    (["a", "*"], EVIL, True),
]


@pytest.mark.parametrize(("hosts", "host", "allowed"), NAMES)
async def test_the_option_names_all_that_are_answered_to(hosts: Any, host: str, allowed: bool) -> None:
    async with serve(table(), hosts=hosts) as server:
        assert await status(server, named(host)) == (200 if allowed else 421)
        assert await status(server, named(host, "/ws", upgrade=True)) == (101 if allowed else 421)


@pytest.mark.parametrize(
    ("hosts", "error", "text"),
    [
        (7, TypeError, "hosts is int, allowed are a name, a list of them and None"),
        ([None], TypeError, "hosts has a NoneType, allowed are str"),
        ([], ValueError, "hosts is [], allowed are at least one name, and None"),
        ("", ValueError, "hosts is '', allowed are at least one name, and None"),
        ("chat.example:80", ValueError, "hosts has 'chat.example:80', allowed are names, *.names and addresses"),
        (["https://a"], ValueError, "hosts has 'https://a', allowed are names, *.names and addresses"),
        (["a.*.b"], ValueError, "hosts has 'a.*.b'"),
    ],
)
def test_what_is_no_name_is_told_where_it_is_said(hosts: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=re.escape(text)):
        serve(table(), hosts=hosts)


async def test_a_refusal_stands_in_the_log_with_its_reason(logged: Logged, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "rawws.server")
    async with serve(table()) as server:
        await status(server, named(EVIL))
    assert f"refused with 421: Host is '{EVIL}', allowed are" in caplog.text
    assert logged.left() == []


def test_what_was_allowed_is_remembered_and_no_more_than_a_few_of_it() -> None:
    allowed = AllowedHosts([], any_address=True)
    for number in range(3 * MAX_KNOWN):
        for _ in range(2):
            allowed.check(Request("GET", "/", Headers([("Host", f"127.0.{number // 250}.{number % 250}:80")])))
    assert len(allowed._known) == MAX_KNOWN
    for _ in range(2):
        with pytest.raises(HttpError, match=r"Host is 'evil\.example'"):
            allowed.check(Request("GET", "/", Headers([("Host", "evil.example")])))
