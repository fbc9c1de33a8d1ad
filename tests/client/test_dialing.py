"""From a URI to a socket: what a URI says, which address is tried when, and the ways other than TCP."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rawws
from rawws.client.addresses import connect_tcp, interleave
from rawws.client.uri import Target, parse_uri
from tests.client.peers import accepted, descriptors, echo, port, scripted, tls
from tests.server.peers import eventually, host_and_port, serve

# -- URIs


@pytest.mark.parametrize(
    ("uri", "secure", "host", "port", "authority", "path"),
    [
        ("ws://example.com", False, "example.com", 80, "example.com", "/"),
        ("wss://example.com/", True, "example.com", 443, "example.com", "/"),
        ("WS://EXAMPLE.com:80/Chat", False, "example.com", 80, "example.com", "/Chat"),
        ("ws://example.com:443?a=b", False, "example.com", 443, "example.com:443", "/?a=b"),
        ("wss://example.com:8443/a/b?c=d&e", True, "example.com", 8443, "example.com:8443", "/a/b?c=d&e"),
        ("ws://example.com:/x", False, "example.com", 80, "example.com", "/x"),
        ("ws://[::1]:8765/", False, "::1", 8765, "[::1]:8765", "/"),
        ("ws://[2001:DB8:0::1]/", False, "2001:db8::1", 80, "[2001:db8::1]", "/"),
        ("ws://[fe80::1%eth0]/", False, "fe80::1%eth0", 80, "[fe80::1]", "/"),
        (
            "ws://müller.example/ä?ö=%20",
            False,
            "xn--mller-kva.example",
            80,
            "xn--mller-kva.example",
            "/%C3%A4?%C3%B6=%20",
        ),
    ],
)
def test_a_uri_says_where_to_go_and_what_to_ask_for(
    uri: str, secure: bool, host: str, port: int, authority: str, path: str
) -> None:
    assert parse_uri(uri) == Target(uri, secure, host, port, authority, path, None)


def test_a_user_in_the_uri_is_basic_authentication() -> None:
    assert parse_uri("ws://Aladdin:open%20sesame@x/").authorization == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    assert parse_uri("ws://me@x/").authorization == "Basic bWU6"


@pytest.mark.parametrize(
    ("uri", "match"),
    [
        ("http://example.com", "it must begin with ws:// or wss://"),
        ("example.com", "it has no host"),
        ("ws://", "it has no host"),
        ("ws:///path", "it has no host"),
        ("ws://example.com/#top", "has a fragment, none is allowed"),
        ("ws://example.com/#", "has a fragment, none is allowed"),
        ("ws://example.com:99999/", "Port out of range"),
        ("ws://example.com:x/", "Port could not be cast"),
        ("ws://[::1/", "Invalid IPv6 URL"),
        ("ws://exa mple.com/", "whitespace and control characters are not allowed"),
        ("ws://example.com/\r\nX: y", "whitespace and control characters are not allowed"),
        ("ws://example.com/\ud800", "it has lone surrogates, which are no text"),
        ("ws://us\udcffer@example.com/", "it has lone surrogates, which are no text"),
        ("ws://example.com/\n", "whitespace and control characters are not allowed"),
        (f"ws://{'ä' * 64}.com/", "its host is no name"),
    ],
)
def test_a_bad_uri_raises_invalid_uri_which_is_a_value_error(uri: str, match: str) -> None:
    with pytest.raises(rawws.InvalidURI, match=match) as caught:
        rawws.connect(uri)
    assert isinstance(caught.value, ValueError)


# -- addresses


def entry(family: int, host: str, port: int = 1) -> tuple[Any, ...]:
    address = (host, port) if family == socket.AF_INET else (host, port, 0, 0)
    return family, socket.SOCK_STREAM, 6, "", address


A = [entry(socket.AF_INET, f"192.0.2.{number}") for number in range(3)]
B = [entry(socket.AF_INET6, f"2001:db8::{number}") for number in range(3)]


@pytest.mark.parametrize(
    ("found", "ordered"),
    [
        ([], []),
        (A, A),
        ([*B, *A], [B[0], A[0], B[1], A[1], B[2], A[2]]),
        ([A[0], *B], [A[0], B[0], B[1], B[2]]),
        ([*B, A[0]], [B[0], A[0], B[1], B[2]]),
    ],
)
def test_addresses_of_the_two_families_take_turns(found: list[Any], ordered: list[Any]) -> None:
    assert interleave(found) == ordered


# A head start that nobody is to wait for.
HOUR = 3600.0


class Addresses:
    """A `getaddrinfo` and a way to connect of the tests: each address answers when the one that is named is tried.

    Its own name is at once; an error is one that it fails with, and None answers never.
    """

    def __init__(self, **answers: str | OSError | None) -> None:
        self.answers = answers
        self.begun = {name: asyncio.Event() for name in answers}
        self.tried: list[tuple[str, float]] = []
        self.closed: list[str] = []

    async def connect(self, entry: tuple[Any, ...], _: Any) -> Any:
        name = entry[4][0]
        self.tried.append((name, time.monotonic()))
        self.begun[name].set()
        answer = self.answers[name]
        if isinstance(answer, OSError):
            raise answer
        try:
            await (asyncio.Event() if answer is None else self.begun[answer]).wait()
        except asyncio.CancelledError:
            self.closed.append(name)
            raise
        return Socket(name, self.closed)


class Socket:
    def __init__(self, name: str, closed: list[str]) -> None:
        self.name = name
        self.closed = closed

    def close(self) -> None:
        self.closed.append(self.name)


@pytest.fixture
def racing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function that races the addresses of a fake host, of which "v4" is of the other family."""

    async def run(addresses: Addresses, delay: float = 0.05) -> Any:
        async def getaddrinfo(*_: object, **__: object) -> list[Any]:
            families = {"v4": socket.AF_INET}
            return [entry(families.get(name, socket.AF_INET6), name) for name in addresses.answers]

        class Loop:
            pass

        loop = Loop()
        loop.getaddrinfo = getaddrinfo  # type: ignore[attr-defined]
        monkeypatch.setattr("asyncio.get_running_loop", lambda: loop)
        monkeypatch.setattr("rawws.client.addresses._connect_socket", addresses.connect)
        monkeypatch.setattr("rawws.client.addresses.ATTEMPT_DELAY", delay)
        try:
            return await connect_tcp("host", 1)
        finally:
            monkeypatch.undo()

    return run


async def test_the_first_address_wins_if_it_answers_in_time(racing: Callable[..., Any]) -> None:
    addresses = Addresses(v6="v6", v4="v4")
    assert (await racing(addresses, HOUR)).name == "v6"
    assert [name for name, _ in addresses.tried] == ["v6"]


async def test_an_address_that_is_silent_for_250_ms_gets_a_rival_and_is_closed_if_that_wins(
    racing: Callable[..., Any],
) -> None:
    addresses = Addresses(v6=None, v4="v4")
    assert (await racing(addresses)).name == "v4"
    (_, first), (_, second) = addresses.tried
    assert second - first > 0.04
    await eventually(lambda: addresses.closed == ["v6"])


async def test_an_address_that_fails_does_not_use_up_its_head_start(racing: Callable[..., Any]) -> None:
    addresses = Addresses(v6=OSError("no"), v4="v4")
    assert (await racing(addresses, HOUR)).name == "v4"


async def test_a_slow_first_address_may_still_win(racing: Callable[..., Any]) -> None:
    addresses = Addresses(v6="v4", v4=None)
    assert (await racing(addresses)).name == "v6"
    await eventually(lambda: addresses.closed == ["v4"])


async def test_of_two_that_answer_at_once_one_is_closed(racing: Callable[..., Any]) -> None:
    addresses = Addresses(v6="v4", v4="v4")
    winner = await racing(addresses)
    loser = ({"v6", "v4"} - {winner.name}).pop()
    await eventually(lambda: addresses.closed == [loser])


async def test_being_cancelled_closes_all_that_are_under_way(racing: Callable[..., Any]) -> None:
    addresses = Addresses(v6=None, v4=None)
    connecting = asyncio.create_task(racing(addresses))
    await addresses.begun["v4"].wait()
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    await eventually(lambda: sorted(addresses.closed) == ["v4", "v6"])


async def test_the_error_of_all_addresses_names_each_and_keeps_the_kind_they_share(racing: Callable[..., Any]) -> None:
    with pytest.raises(ConnectionRefusedError, match=r"no address of host answers: .*here; .*there"):
        await racing(Addresses(v6=OSError(111, "here"), v4=OSError(111, "there")))
    with pytest.raises(OSError, match=r"no address of host answers: .*here; .*there") as caught:
        await racing(Addresses(v6=OSError(111, "here"), v4=OSError(113, "there")))
    assert type(caught.value) is OSError
    with pytest.raises(ConnectionRefusedError, match=r"^.Errno 111. here$"):
        await racing(Addresses(v6=OSError(111, "here")))
    with pytest.raises(OSError, match="it has none"):
        await racing(Addresses())


async def test_a_name_is_looked_up_and_its_second_address_is_tried() -> None:
    # `localhost` is ::1 and 127.0.0.1 on most machines; the server is on one of them.
    async with serve(echo) as server, rawws.connect(f"ws://localhost:{port(server)}") as ws:
        await ws.send("hi")
        assert await ws.recv() == "hi"


async def test_a_name_that_does_not_exist_is_an_os_error() -> None:
    with pytest.raises(socket.gaierror):
        await rawws.connect("ws://nowhere.invalid/")


async def test_a_refused_connection_is_a_connection_refused_error_and_leaves_no_descriptor() -> None:
    before = descriptors()
    with pytest.raises(ConnectionRefusedError, match=r"^.Errno 111. nothing listens at 127\.0\.0\.1:1$"):
        await rawws.connect("ws://127.0.0.1:1/")
    assert descriptors() == before


async def test_a_unix_socket_where_nothing_listens_keeps_the_kind_of_its_error(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with pytest.raises(FileNotFoundError, match=r"^.Errno 2. nothing listens at .*/socket: there is no such socket$"):
        await rawws.unix_connect(path)
    # The first connection of uvloop opens a descriptor for all.
    before = descriptors()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)
    with pytest.raises(ConnectionRefusedError, match=r"^.Errno 111. nothing listens at .*: its server is gone$"):
        await rawws.unix_connect(path)
    await eventually(lambda: descriptors() == before)


async def test_local_addr_is_where_it_connects_from() -> None:
    async with (
        serve(echo) as server,
        rawws.connect(f"ws://127.0.0.1:{port(server)}", local_addr=("127.0.0.3", 0)) as ws,
    ):
        assert host_and_port(ws.local_address)[0] == "127.0.0.3"
        assert [host_and_port(other.remote_address)[0] for other in server.connections] == ["127.0.0.3"]


async def test_local_addr_of_the_other_family_is_told() -> None:
    with pytest.raises(OSError, match="an address of another family"):
        await rawws.connect("ws://127.0.0.1:1/", local_addr=("::1", 0))


# -- other ways


async def test_a_unix_socket_is_reached_by_its_path(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    async with rawws.unix_serve(echo, path) as _:
        async with rawws.connect("ws://name.example/", path=path) as ws:
            await ws.send("hi")
            assert await ws.recv() == "hi"
            assert ws.request is not None
            assert ws.request.headers["Host"] == "name.example"
        async with rawws.unix_connect(path) as ws:
            assert ws.request is not None
            assert ws.request.headers["Host"] == "localhost"


async def test_tls_runs_over_a_unix_socket(tmp_path: Path) -> None:
    path, part = str(tmp_path / "s"), tls()
    async with rawws.unix_serve(echo, path, ssl=part.server), rawws.unix_connect(path, ssl=part.client) as ws:
        await ws.send("hi")
        assert await ws.recv() == "hi"


async def test_a_connected_socket_may_be_given() -> None:
    async with serve(echo, hosts="name.example") as server:
        sock = socket.create_connection(("127.0.0.1", port(server)))
        async with rawws.connect("ws://name.example/", sock=sock) as ws:
            await ws.send("hi")
            assert await ws.recv() == "hi"


async def test_a_socket_that_was_given_connects_once() -> None:
    with socket.socket() as sock, pytest.raises(ValueError, match="it can be used once"):
        async for _ in rawws.connect("ws://name.example/", sock=sock):
            pass


async def test_a_server_that_resets_at_once_leaves_no_socket_behind() -> None:
    loop = asyncio.get_running_loop()

    async def reset(listening: socket.socket) -> None:
        while True:
            sock, _ = await loop.sock_accept(listening)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        resetting = asyncio.ensure_future(reset(listening))
        counts = []
        for _ in range(100):
            with pytest.raises((rawws.InvalidMessage, ConnectionError)):
                await rawws.connect(f"ws://127.0.0.1:{listening.getsockname()[1]}")
            counts.append(descriptors())
        # A socket object that is still open, or closes what is not its own any more, is a warning, and so an error.
        gc.collect()
        await eventually(lambda: descriptors() <= counts[0])
        resetting.cancel()
        await asyncio.wait([resetting])


# -- redirects


def redirect(location: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("location", ["/new?x=1", "new?x=1", "ws://{host}/new?x=1", "http://{host}/new?x=1#part"])
async def test_a_redirect_is_followed_and_credentials_stay_within_the_origin(status: int, location: str) -> None:
    def answer(request: Any) -> bytes:
        if request.path == "/old":
            return redirect(location.format(host=request.headers["Host"]), status)
        return accepted(request)

    async with scripted(answer) as server:
        headers = {"Cookie": "a=1"}
        ws = await rawws.connect(f"ws://me:pw@127.0.0.1:{server.port}/old", additional_headers=headers)
        old, new = server.requests
        assert new.path == "/new?x=1"
        for request in (old, new):
            assert request.headers["Cookie"] == "a=1"
            assert request.headers["Authorization"] == "Basic bWU6cHc="
        assert old.headers["Sec-WebSocket-Key"] != new.headers["Sec-WebSocket-Key"]
        ws.abort()
        await ws.wait_closed()


async def test_what_may_be_a_secret_is_not_sent_to_another_origin() -> None:
    async with scripted(accepted) as other, scripted(lambda _: redirect(other.uri)) as server:
        headers = {"Cookie": "a=1", "Authorization": "Bearer x", "X-Api-Key": "y"}
        uri = f"ws://me:pw@127.0.0.1:{server.port}/"
        ws = await rawws.connect(uri, additional_headers=headers, origin="http://a.example", subprotocols=["chat"])
        (request,) = other.requests
        assert not {"cookie", "authorization", "x-api-key"} & set(request.headers)
        assert request.headers["Origin"] == "http://a.example"
        assert request.headers["Sec-WebSocket-Protocol"] == "chat"
        assert request.headers["User-Agent"].startswith("rawws/")
        ws.abort()
        await ws.wait_closed()


async def test_a_redirect_loop_ends_with_an_error_that_says_so() -> None:
    async with scripted(lambda _: redirect("/")) as server:
        before = descriptors()
        with pytest.raises(
            rawws.SecurityError, match=r"the server redirects over 10 times, the last to 'ws://127.0.0.1:"
        ):
            await rawws.connect(server.uri)
        assert len(server.requests) == 11
        await eventually(lambda: descriptors() == before)


async def test_slow_redirects_do_not_stretch_open_timeout() -> None:
    async with scripted(lambda request: redirect("/2") if request.path == "/" else None) as server:
        with pytest.raises(TimeoutError):
            await rawws.connect(server.uri, open_timeout=0.1)


async def test_a_redirect_to_what_is_no_websocket_uri_is_not_followed() -> None:
    async with scripted(lambda _: redirect("ftp://x/")) as server:
        with pytest.raises(rawws.InvalidStatus, match="the server redirects to 'ftp://x/': the URI is"):
            await rawws.connect(server.uri)


async def test_a_redirect_from_wss_to_ws_is_not_followed_and_one_from_ws_to_wss_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    part = tls("127.0.0.1")
    async with scripted(accepted) as plain, scripted(lambda _: redirect(plain.uri), ssl=part.server) as server:
        with pytest.raises(rawws.SecurityError, match="which is not secret"):
            await rawws.connect(f"wss://127.0.0.1:{server.port}", ssl=part.client)
        assert plain.requests == []
    monkeypatch.setattr("ssl.create_default_context", lambda: part.client)
    async with (
        scripted(accepted, ssl=part.server) as secret,
        scripted(lambda _: redirect(f"https://127.0.0.1:{secret.port}/")) as server,
    ):
        ws = await rawws.connect(server.uri)
        assert len(secret.requests) == 1
        ws.abort()
        await ws.wait_closed()


async def test_a_redirect_without_one_location_is_a_refusal() -> None:
    async with scripted(lambda _: b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n") as server:
        with pytest.raises(rawws.InvalidStatus, match="'Found' and not with"):
            await rawws.connect(server.uri)


async def test_a_redirect_elsewhere_is_not_followed_where_the_way_is_given() -> None:
    async with scripted(lambda _: redirect("ws://b.example/")) as server:
        sock = socket.create_connection(("127.0.0.1", server.port))
        with pytest.raises(rawws.InvalidStatus, match="but sock is given"):
            await rawws.connect("ws://a.example/", sock=sock)


async def test_the_name_in_the_certificate_is_that_of_the_first_server_only() -> None:
    first, second = tls("inside.example"), tls("127.0.0.1")
    first.client.load_verify_locations(cadata="".join(pem(second)))
    async with (
        scripted(accepted, ssl=second.server) as other,
        scripted(lambda _: redirect(f"wss://127.0.0.1:{other.port}/"), ssl=first.server) as server,
    ):
        uri = f"wss://127.0.0.1:{server.port}/"
        ws = await rawws.connect(uri, ssl=first.client, server_hostname="inside.example")
        assert len(other.requests) == 1
        ws.abort()
        await ws.wait_closed()


def pem(part: Any) -> list[str]:
    return [ssl.DER_cert_to_PEM_cert(certificate) for certificate in part.client.get_ca_certs(binary_form=True)]
