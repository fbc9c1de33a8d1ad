"""Through a proxy: HTTP CONNECT and SOCKS5, and which proxy is taken."""

from __future__ import annotations

import asyncio
import socket
import ssl
from types import SimpleNamespace
from typing import Any

import pytest

import rawws
from rawws.client.proxies import proxy_for
from rawws.client.uri import HTTP, WS, parse_uri
from tests.client.peers import Tls, descriptors, echo, http_proxy, port, socks_proxy, tls
from tests.server.peers import eventually, serve


async def talk(uri: str, **options: Any) -> None:
    async with rawws.connect(uri, **options) as ws:
        await ws.send("x" * 100_000)
        assert await ws.recv() == "x" * 100_000


async def test_an_http_proxy_is_asked_for_a_tunnel_with_its_own_credentials() -> None:
    async with serve(echo) as server, http_proxy() as proxy:
        target = f"localhost:{port(server)}"
        headers = {"Authorization": "Bearer secret"}
        await talk(f"ws://{target}/", proxy=f"http://me:p%40ss@127.0.0.1:{proxy.port}", additional_headers=headers)
        authorization = "Proxy-Authorization: Basic bWU6cEBzcw==\r\n"
        assert proxy.asked == [f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{authorization}\r\n"]


async def test_tls_is_spoken_with_the_server_and_not_with_the_proxy() -> None:
    part = tls()
    async with serve(echo, ssl=part.server) as server, http_proxy() as proxy:
        await talk(f"wss://localhost:{port(server)}", proxy=f"http://127.0.0.1:{proxy.port}", ssl=part.client)
        assert proxy.asked[0].startswith(f"CONNECT localhost:{port(server)} ")


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> Tls:
    """Return a certificate of localhost that this machine trusts."""
    part = tls()
    monkeypatch.setattr("rawws.client.proxies.default_context", lambda: part.client)
    return part


class LosingLoop:
    """The running loop, which loses a connection with TLS within TLS some turns before it says that there is one."""

    def __init__(self, turns: int) -> None:
        self.turns = turns

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio.get_running_loop(), name)

    async def start_tls(self, outer: asyncio.Transport, *arguments: Any, **options: Any) -> Any:
        inner = await asyncio.get_running_loop().start_tls(outer, *arguments, **options)
        outer.abort()
        for _ in range(self.turns):
            await asyncio.sleep(0)
        return inner


@pytest.mark.parametrize("turns", range(6))
async def test_a_connection_through_an_https_proxy_that_is_lost_before_it_is_handed_over_is_told(
    trusted: Tls, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    loop = LosingLoop(turns)
    replaced = SimpleNamespace(**{**vars(asyncio), "get_running_loop": lambda: loop})
    inside = tls("127.0.0.1")
    async with serve(echo, ssl=inside.server) as server, http_proxy(ssl=trusted.server) as proxy:
        monkeypatch.setattr("rawws.client.proxies.asyncio", replaced)
        with pytest.raises((rawws.InvalidMessage, ConnectionError)):
            uri = f"wss://127.0.0.1:{port(server)}/"
            through = f"https://localhost:{proxy.port}"
            await rawws.connect(uri, proxy=through, ssl=inside.client, open_timeout=30)


@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
async def test_an_https_proxy_is_asked_in_tls_and_what_goes_through_it_may_be_tls_too(
    trusted: Tls, secure: bool
) -> None:
    inside = tls("127.0.0.1")
    context, scheme = (inside.server, "wss") if secure else (None, "ws")
    async with serve(echo, ssl=context) as server, http_proxy(ssl=trusted.server) as proxy:
        target = f"127.0.0.1:{port(server)}"
        await talk(
            f"{scheme}://{target}/",
            proxy=f"https://me:p%40ss@localhost:{proxy.port}",
            ssl=inside.client if secure else None,
        )
        authorization = "Proxy-Authorization: Basic bWU6cEBzcw==\r\n"
        assert proxy.asked == [f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{authorization}\r\n"]


async def test_a_certificate_is_checked_of_the_https_proxy_and_of_the_server_behind_it(trusted: Tls) -> None:
    inside = tls("127.0.0.1")
    async with serve(echo, ssl=inside.server) as server, http_proxy(ssl=trusted.server) as proxy:
        before = descriptors()
        uri = f"wss://127.0.0.1:{port(server)}/"
        with pytest.raises(ssl.SSLCertVerificationError, match=r"127\.0\.0\.1"):
            await rawws.connect(uri, proxy=f"https://127.0.0.1:{proxy.port}", ssl=inside.client)
        assert proxy.asked == []
        # Where asyncio stumbles over it (CPython #113214) it says so, too.
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: None)
        with pytest.raises(ssl.SSLCertVerificationError):
            await rawws.connect(uri, proxy=f"https://localhost:{proxy.port}")
        assert len(proxy.asked) == 1
        await eventually(lambda: descriptors() == before)


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (b"HTTP/1.1 407 Who Are You\r\n\r\n", "the proxy localhost answered 'Who Are You'"),
        (b"220 smtp.example\r\n", "the proxy localhost gave no HTTP response: the first byte is 0x32"),
        (b"", "the proxy localhost gave no HTTP response: it ended the connection before its response"),
        (b"HTTP/1.1 200 OK\r\n\r\nearly", "the proxy localhost sent 5 bytes behind its response, none is due"),
    ],
)
async def test_an_https_proxy_that_refuses_is_a_proxy_error(trusted: Tls, answer: bytes, match: str) -> None:
    async with serve(echo) as server, http_proxy(answer, ssl=trusted.server) as proxy:
        before = descriptors()
        with pytest.raises(rawws.ProxyError, match=match):
            await rawws.connect(f"ws://127.0.0.1:{port(server)}/", proxy=f"https://localhost:{proxy.port}")
        assert len(proxy.asked) == 1
        await eventually(lambda: descriptors() <= before)


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_a_silent_server_behind_an_https_proxy_is_left_after_open_timeout(trusted: Tls, scheme: str) -> None:
    async with http_proxy(ssl=trusted.server) as proxy:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            before = descriptors()
            uri = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}"
            with pytest.raises(TimeoutError, match=r"within 0\.3 s"):
                await rawws.connect(uri, proxy=f"https://localhost:{proxy.port}", open_timeout=0.3)
            await eventually(lambda: descriptors() <= before)


async def test_a_proxy_without_a_scheme_is_an_http_proxy() -> None:
    async with serve(echo) as server, http_proxy() as proxy:
        await talk(f"ws://127.0.0.1:{port(server)}", proxy=f"127.0.0.1:{proxy.port}")
        assert len(proxy.asked) == 1


@pytest.mark.parametrize(
    ("answer", "status", "match"),
    [
        (
            b"HTTP/1.1 407 Who Are You\r\nProxy-Authenticate: Basic\r\n\r\n",
            407,
            "the proxy 127.0.0.1 answered 'Who Are",
        ),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", 502, "'Bad Gateway'"),
        (b"220 smtp.example\r\n", 0, "gave no HTTP response: the first byte is 0x32"),
        (b"", 0, "gave no HTTP response: it ended the connection before its response"),
    ],
)
async def test_a_proxy_that_refuses_is_a_proxy_error(answer: bytes, status: int, match: str) -> None:
    async with http_proxy(answer) as proxy:
        before = descriptors()
        with pytest.raises(rawws.ProxyError, match=match) as caught:
            await rawws.connect("ws://a.example/", proxy=f"http://127.0.0.1:{proxy.port}")
        assert caught.value.status == status
        assert ("Proxy-Authenticate", "Basic") in caught.value.headers or status != 407
        assert proxy.asked == ["CONNECT a.example:80 HTTP/1.1\r\nHost: a.example:80\r\n\r\n"]
        await eventually(lambda: descriptors() == before)


async def test_a_silent_proxy_is_left_after_open_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        number = silent.getsockname()[1]
        with pytest.raises(TimeoutError, match="it was not connected"):
            await rawws.connect("ws://a.example/", proxy=f"http://127.0.0.1:{number}", open_timeout=0.1)


@pytest.mark.parametrize(("scheme", "kind", "host"), [("socks5", 1, "127.0.0.1"), ("socks5h", 3, "localhost")])
async def test_a_socks5_proxy_gets_an_address_and_with_socks5h_the_name(
    scheme: str, kind: int, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("python_socks.async_.asyncio._resolver.Resolver.resolve", resolve)
    async with serve(echo) as server, socks_proxy() as proxy:
        await talk(f"ws://localhost:{port(server)}", proxy=f"{scheme}://127.0.0.1:{proxy.port}")
        assert proxy.asked == [(kind, host, port(server))]


async def resolve(*_: object, **__: object) -> tuple[int, str]:
    """Look `localhost` up: it may be ::1 first, where the server is not."""
    return socket.AF_INET, "127.0.0.1"


async def test_a_socks5_proxy_gets_user_and_password() -> None:
    async with serve(echo) as server, socks_proxy(("me", "p@ss")) as proxy:
        await talk(f"ws://127.0.0.1:{port(server)}", proxy=f"socks5h://me:p%40ss@127.0.0.1:{proxy.port}")
        assert len(proxy.asked) == 1


async def test_tls_runs_through_a_socks_proxy() -> None:
    part = tls()
    async with serve(echo, ssl=part.server) as server, socks_proxy() as proxy:
        await talk(f"wss://localhost:{port(server)}", proxy=f"socks5h://127.0.0.1:{proxy.port}", ssl=part.client)


async def test_a_socks_proxy_that_refuses_is_a_proxy_error() -> None:
    async with socks_proxy(reply=5) as proxy:
        before = descriptors()
        with pytest.raises(rawws.ProxyError, match=r"the proxy 127.0.0.1:.* answered: .*refused"):
            await rawws.connect("ws://a.example/", proxy=f"socks5h://127.0.0.1:{proxy.port}")
        await eventually(lambda: descriptors() == before)


async def test_without_python_socks_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "python_socks", None)
    with pytest.raises(ImportError, match=r"pip install 'rawws\[socks\]'"):
        await rawws.connect("ws://a.example/", proxy="socks5://127.0.0.1:1")


@pytest.mark.parametrize(
    ("proxy", "match"),
    [
        ("ftp://p.example", "the scheme of the proxy is 'ftp', allowed are http://, https://, socks4://"),
        ("http://", "it has no host"),
        ("http://p.example:x", "Port could not be cast"),
    ],
)
async def test_a_bad_proxy_is_an_invalid_uri(proxy: str, match: str) -> None:
    with pytest.raises(rawws.InvalidURI, match=match):
        await rawws.connect("ws://a.example/", proxy=proxy)


@pytest.mark.parametrize(
    ("uri", "environment", "proxy"),
    [
        ("ws://a.example/", {}, None),
        ("ws://a.example/", {"http_proxy": "http://p:1"}, "http://p:1"),
        ("wss://a.example/", {"http_proxy": "http://p:1"}, None),
        ("wss://a.example/", {"HTTPS_PROXY": "http://p:2"}, "http://p:2"),
        ("ws://a.example/", {"HTTPS_PROXY": "http://p:2", "http_proxy": "http://p:1"}, "http://p:2"),
        ("wss://a.example/", {"all_proxy": "socks5://p:3"}, "socks5://p:3"),
        ("wss://a.example/", {"wss_proxy": "http://p:4", "https_proxy": "http://p:2"}, "http://p:4"),
        ("ws://a.example/", {"socks_proxy": "http://p:5", "http_proxy": "http://p:1"}, "socks5h://p:5"),
        ("ws://a.example/", {"http_proxy": "http://p:1", "no_proxy": "b.example, a.example"}, None),
        ("ws://x.a.example/", {"http_proxy": "http://p:1", "no_proxy": ".a.example"}, None),
        ("ws://a.example:8080/", {"http_proxy": "http://p:1", "no_proxy": "a.example:8080"}, None),
        ("ws://[::1]/", {"http_proxy": "http://p:1"}, "http://p:1"),
        ("ws://a.example/", {"http_proxy": "http://p:1", "no_proxy": "*"}, None),
        ("ws://10.1.2.3:8765/", {"http_proxy": "http://p:1", "no_proxy": "localhost, 10.0.0.0/8"}, None),
        ("ws://10.1.2.3/", {"http_proxy": "http://p:1", "NO_PROXY": "10.1.2.3/8"}, None),
        ("ws://11.1.2.3/", {"http_proxy": "http://p:1", "no_proxy": "10.0.0.0/8"}, "http://p:1"),
        ("ws://[fd00::1]/", {"http_proxy": "http://p:1", "no_proxy": "10.0.0.0/8,fd00::/8"}, None),
        ("ws://[fd00::1%eth0]/", {"http_proxy": "http://p:1", "no_proxy": "fd00::/8"}, None),
        ("ws://[::1]/", {"http_proxy": "http://p:1", "no_proxy": "::1"}, None),
        ("ws://[::ffff:10.1.2.3]/", {"http_proxy": "http://p:1", "no_proxy": "10.0.0.0/8"}, None),
        ("ws://10.1.2.3/", {"http_proxy": "http://p:1", "no_proxy": "::ffff:10.1.0.0/112"}, None),
        ("ws://[fe80::1]/", {"http_proxy": "http://p:1", "no_proxy": "fd00::/8"}, "http://p:1"),
        ("ws://10.1.2.3/", {"http_proxy": "http://p:1", "no_proxy": "10.0.0.0/33, /8, 10.0.0.0/8/8, "}, "http://p:1"),
        ("ws://a.example/", {"http_proxy": "http://p:1", "no_proxy": "0.0.0.0/0,::/0"}, "http://p:1"),
        ("https://10.1.2.3/", {"https_proxy": "http://p:2", "no_proxy": "10.0.0.0/8"}, None),
        ("http://a.example/", {"https_proxy": "http://p:2", "http_proxy": "http://p:1"}, "http://p:1"),
        ("https://a.example/", {"https_proxy": "http://p:2", "http_proxy": "http://p:1"}, "http://p:2"),
        ("http://a.example/", {"https_proxy": "http://p:2", "all_proxy": "socks5://p:3"}, "socks5://p:3"),
    ],
)
def test_the_environment_names_the_proxy(
    uri: str, environment: dict[str, str], proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(parse_uri(uri, WS if uri.startswith("ws") else HTTP)) == proxy


async def test_the_proxy_of_the_environment_is_taken_unless_it_is_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(echo) as server, http_proxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        await talk(f"ws://127.0.0.1:{port(server)}")
        assert len(proxy.asked) == 1
        await talk(f"ws://127.0.0.1:{port(server)}", proxy=None)
        assert len(proxy.asked) == 1


@pytest.mark.parametrize("scheme", ["http", "https", "socks5h"])
async def test_a_proxy_is_reached_from_local_addr(trusted: Tls, scheme: str) -> None:
    tunnel = socks_proxy() if scheme == "socks5h" else http_proxy(ssl=trusted.server if scheme == "https" else None)
    async with serve(echo) as server, tunnel as proxy:
        url = f"{scheme}://localhost:{proxy.port}"
        uri = f"ws://127.0.0.1:{port(server)}"
        async with rawws.connect(uri, proxy=url, local_addr=("127.0.0.2", 0)) as ws:
            assert isinstance(ws.local_address, tuple)
            assert ws.local_address[0] == "127.0.0.2"
            await ws.send("hi")
            assert await ws.recv() == "hi"
