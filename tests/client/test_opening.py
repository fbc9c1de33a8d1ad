"""The opening handshake of the client: what it sends, what it agrees to, and how each bad answer is named."""

from __future__ import annotations

import asyncio
import ssl
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trustme

import rawws
from rawws.client.response import BODY_SIZE
from rawws.protocol.connection import Connection, Role
from rawws.protocol.deflate import DeflateParameters, PerMessageDeflate
from rawws.protocol.extensions import parse_extensions
from rawws.protocol.http11 import Request
from tests.client.peers import accepted, descriptors, echo, port, response, scripted, tls
from tests.server.peers import eventually, serve


async def failure(uri: str, **options: Any) -> Exception:
    """Return how `connect` fails, and see that it leaves no descriptor behind."""
    before = descriptors()
    try:
        await rawws.connect(uri, **options)
    except Exception as error:
        await eventually(lambda: descriptors() <= before + 1)  # the server's end of it may be open
        return error
    raise AssertionError("it did not fail")


# -- what is sent


async def test_each_option_of_the_handshake_is_in_the_request() -> None:
    async with scripted(accepted) as server:
        uri = f"ws://user:pass%21@127.0.0.1:{server.port}/chat/ü?room=1&x=é"
        ws = await rawws.connect(
            uri,
            origin="https://a.example",
            subprotocols=["chat.v2", "chat.v1"],
            additional_headers={"X-Token": "1"},
            user_agent_header="me/1",
        )
        (request,) = server.requests
        assert request.path == "/chat/%C3%BC?room=1&x=%C3%A9"
        headers = request.headers
        assert headers["Host"] == f"127.0.0.1:{server.port}"
        assert headers["Origin"] == "https://a.example"
        assert headers["Sec-WebSocket-Protocol"] == "chat.v2, chat.v1"
        assert headers["Sec-WebSocket-Version"] == "13"
        assert headers["X-Token"] == "1"
        assert headers["User-Agent"] == "me/1"
        assert headers["Authorization"] == "Basic dXNlcjpwYXNzIQ=="
        assert headers["Sec-WebSocket-Extensions"].startswith("permessage-deflate")
        assert ws.request == request
        ws.abort()
        await ws.wait_closed()


async def test_headers_may_be_pairs_that_repeat_and_without_compression_and_user_agent_there_is_neither() -> None:
    async with scripted(accepted) as server:
        headers = [("Cookie", "a=1"), ("Cookie", "b=2"), ("Authorization", "Bearer x")]
        uri = f"ws://user:pass@127.0.0.1:{server.port}"
        ws = await rawws.connect(uri, additional_headers=headers, compression=None, user_agent_header=None)
        (request,) = server.requests
        assert request.headers.get_all("Cookie") == ["a=1", "b=2"]
        # What is said aloud counts for more than what is in the URI.
        assert request.headers.get_all("Authorization") == ["Bearer x"]
        assert "Sec-WebSocket-Extensions" not in request.headers
        assert "User-Agent" not in request.headers
        ws.abort()
        await ws.wait_closed()


async def test_the_key_is_a_new_one_for_each_connection() -> None:
    async with scripted(accepted) as server:
        connections = [await rawws.connect(server.uri) for _ in range(8)]
        assert len({request.headers["Sec-WebSocket-Key"] for request in server.requests}) == 8
        for ws in connections:
            ws.abort()
            await ws.wait_closed()


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"subprotocols": "chat"}, TypeError, "subprotocols is 'chat', allowed is a list"),
        ({"compression": "gzip"}, ValueError, "compression is 'gzip'"),
        ({"open_timeout": 0}, ValueError, "open_timeout is 0"),
        ({"max_size": -1}, ValueError, "max_size is -1"),
        ({"handler": echo}, TypeError, "handler is function, allowed is a rawws.Handler"),
        ({"handler": rawws.Handler}, TypeError, "handler is the class Handler"),
        ({"path": "/s", "local_addr": ("127.0.0.1", 0)}, ValueError, "more than one is given"),
        ({"additional_headers": {"X": "a\r\nY: b"}}, rawws.LocalProtocolError, "octet 0x0d is not allowed"),
        ({"additional_headers": {"a b": ""}}, rawws.LocalProtocolError, "not a token"),
    ],
)
def test_a_bad_option_raises_at_the_call(options: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        rawws.connect("ws://localhost", **options)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"additional_headers": {"Sec-WebSocket-Key": "x"}}, "Sec-WebSocket-Key"),
        ({"subprotocols": ["a", "a"]}, "subprotocols"),
        ({"origin": "http://a\n"}, "Origin"),
    ],
)
async def test_what_may_not_be_sent_raises_and_nothing_is_sent(options: dict[str, Any], match: str) -> None:
    async with scripted(accepted) as server:
        error = await failure(server.uri, **options)
        assert isinstance(error, rawws.LocalProtocolError)
        assert match in str(error)
        assert server.requests == []


# -- what is agreed on


async def test_the_subprotocol_that_the_server_chose_is_known() -> None:
    async with (
        serve(echo, subprotocols=["b"]) as server,
        rawws.connect(f"ws://127.0.0.1:{port(server)}", subprotocols=["a", "b"]) as ws,
    ):
        assert ws.subprotocol == "b"
        assert ws.response is not None
        assert ws.response.status == 101


async def test_a_server_may_decline_the_compression() -> None:
    async with (
        serve(echo, compression=None) as server,
        rawws.connect(f"ws://127.0.0.1:{port(server)}") as ws,
    ):
        await ws.send("x" * 5000)
        assert await ws.recv() == "x" * 5000


async def test_frames_that_come_with_the_response_are_delivered_once() -> None:
    def answer(request: Request) -> bytes:
        return accepted(request) + b"\x81\x02hi\x81\x03you"

    async with scripted(answer) as server:
        ws = await rawws.connect(server.uri)
        assert [await ws.recv(), await ws.recv()] == ["hi", "you"]
        ws.abort()
        await ws.wait_closed()


async def test_a_message_that_came_with_the_response_can_be_answered_before_what_follows_it() -> None:
    def answer(request: Request) -> bytes:
        return accepted(request) + b"\x81\x02hi\xf1\x00"  # a message, and a frame with reserved bits

    async with scripted(answer) as server:
        async with rawws.connect(server.uri, compression=None) as ws:
            with pytest.raises(rawws.ConnectionClosedError, match="sent 1002"):
                await echo(ws)
            protocol: Any = server.transports[0].get_protocol()
            await eventually(lambda: b"\x88" in protocol.data.partition(b"\r\n\r\n")[2])
            server.transports[0].close()
        assert protocol.data.partition(b"\r\n\r\n")[2][0] == 0x81


async def test_interim_responses_come_before_the_one_that_counts() -> None:
    def answer(request: Request) -> bytes:
        # As many as may be.
        return b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 8 + accepted(request)

    async with scripted(answer) as server:
        ws = await rawws.connect(server.uri)
        assert ws.ready_state is rawws.State.OPEN
        ws.abort()
        await ws.wait_closed()


# -- what is refused: one named exception each, that says what came


def wrong_key(request: Request) -> bytes:
    return accepted(request).replace(b"Sec-WebSocket-Accept: ", b"Sec-WebSocket-Accept: x")


HTML = "<!doctype html>\n<title>Hello</title>"


@pytest.mark.parametrize(
    ("answer", "error", "match"),
    [
        (lambda _: response(200, "Content-Type: text/html", body=HTML), rawws.InvalidStatus, "but with 'text/html'"),
        (
            lambda _: response(403, "Content-Type: text/plain; charset=utf-8", body="not you\nmore"),
            rawws.InvalidStatus,
            "'Status' and not with a WebSocket handshake: 'not you' (HTTP status 403)",
        ),
        (lambda _: b"HTTP/1.1 200 OK\r\n\r\n", rawws.InvalidStatus, "'OK' and not with"),
        (lambda _: b"<html>hello</html>", rawws.InvalidMessage, "the first byte is 0x3c, expected is HTTP/1.1"),
        (lambda _: b"SSH-2.0-OpenSSH_9\r\n", rawws.InvalidMessage, "the first byte is 0x53"),
        (lambda _: b"\x15\x03\x03\x00\x02\x02\x28", rawws.InvalidMessage, "the peer seems to speak TLS"),
        (lambda _: b"HTTP/2.0 200 OK\r\n\r\n", rawws.InvalidMessage, "the status line is 'HTTP/2.0 200 OK'"),
        (lambda _: b"HTTP/1.1 101 x\r\n bad: x\r\n\r\n", rawws.InvalidMessage, "line folding is not allowed"),
        (lambda _: b"HTTP/1.1 101 x\r\n" + b"a: b\r\n" * 65 + b"\r\n", rawws.InvalidMessage, "more than 64 headers"),
        (lambda _: b"HTTP/1.1 101 x\r\na: " + b"b" * 10000, rawws.InvalidMessage, "over the limit of 8192 bytes"),
        (lambda _: b"HTTP/1.1 103 x\r\n\r\n" * 9, rawws.InvalidMessage, "over 8 interim responses came, the last 103"),
        (lambda _: b"HTTP/1.1 101 x\r\n\r\n", rawws.InvalidUpgrade, "Upgrade is absent, needed is 'websocket'"),
        (wrong_key, rawws.InvalidUpgrade, "Sec-WebSocket-Accept is 'x"),
        (
            lambda request: accepted(request, "Sec-WebSocket-Protocol: soap"),
            rawws.NegotiationError,
            "chose the subprotocol 'soap' of ['chat']",
        ),
        (
            lambda request: accepted(request, "Sec-WebSocket-Extensions: x-zip"),
            rawws.NegotiationError,
            "the server chose the extension 'x-zip'",
        ),
        (
            lambda request: accepted(request, "Sec-WebSocket-Extensions: permessage-deflate; magic"),
            rawws.NegotiationError,
            "unknown parameter 'magic'",
        ),
    ],
)
async def test_each_bad_answer_has_its_exception(answer: Any, error: type[Exception], match: str) -> None:
    async with scripted(answer, ends=True) as server:
        raised = await failure(server.uri, subprotocols=["chat"])
        assert type(raised) is error
        assert isinstance(raised, rawws.HandshakeError)
        assert match in str(raised)


@pytest.mark.parametrize(
    "parameters",
    [
        "",  # Tornado and Mojolicious, whatever was asked for; and Netty, which declines the first of our offers
        "; client_no_context_takeover",
        "; server_no_context_takeover",
        "; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15",
    ],
)
async def test_a_server_may_compress_with_or_without_context(parameters: str) -> None:
    agreed = DeflateParameters(server_no_context_takeover="server_no_context_takeover" in parameters)
    settings = rawws.Compression(threshold=0)
    messages = ["the same words, " * 20] * 3

    def answer(request: Request) -> bytes:
        server = Connection(Role.SERVER, None, PerMessageDeflate(agreed, True, settings, {}))
        for message in messages:
            server.send(message)
        return accepted(request, f"Sec-WebSocket-Extensions: permessage-deflate{parameters}") + b"".join(
            server.take_data()
        )

    async with scripted(answer) as server, rawws.connect(server.uri, close_timeout=0.1) as ws:
        assert [await ws.recv() for _ in messages] == messages
        (request,) = server.requests
        first, second = parse_extensions(request.headers["Sec-WebSocket-Extensions"])
        assert ("server_no_context_takeover", None) in first[1]
        # Netty declines an offer that limits what it sends.
        assert second == (
            "permessage-deflate",
            [("client_no_context_takeover", None), ("client_max_window_bits", None)],
        )


async def test_an_extension_is_refused_where_none_was_offered() -> None:
    async with scripted(lambda request: accepted(request, "Sec-WebSocket-Extensions: permessage-deflate")) as server:
        error = await failure(server.uri, compression=None)
        assert type(error) is rawws.NegotiationError
        assert str(error).startswith("the server chose the extension 'permessage-deflate', none was offered")


async def test_a_refusal_has_its_response_with_the_body() -> None:
    async with scripted(lambda _: response(404, "Content-Type: text/html", "X-Id: 7", body=HTML)) as server:
        error = await failure(server.uri)
        assert isinstance(error, rawws.InvalidStatus)
        assert error.status == error.response.status == 404
        assert error.response.body == HTML.encode()
        assert ("X-Id", "7") in error.headers


async def test_a_refusal_without_a_body_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rawws.client.opening.BODY_WAIT", 3600.0)
    async with scripted(lambda _: b"HTTP/1.1 204 No Content\r\n\r\n", ends=False) as server:
        error = await failure(server.uri)
        assert isinstance(error, rawws.InvalidStatus)
        assert (error.status, error.response.body) == (204, b"")


@pytest.mark.parametrize("ends", [True, False])
async def test_a_chunked_body_of_a_refusal_is_decoded(ends: bool) -> None:
    head = b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\nContent-Type: text/plain\r\n\r\n"
    async with scripted(lambda _: head + b"5;x=y\r\nbusy,\r\n6\r\n later\r\n0\r\n\r\n", ends=ends) as server:
        error = await failure(server.uri)
        assert isinstance(error, rawws.InvalidStatus)
        assert error.response.body == b"busy, later"
        assert "'busy, later'" in str(error)


async def test_a_body_that_is_no_body_is_taken_as_far_as_it_made_sense() -> None:
    head = b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbusy\r\n"
    async with scripted(lambda _: head + b"2\r\n, \r\n-1\r\n5\r\nlater\r\n") as server:
        error = await failure(server.uri)
        assert isinstance(error, rawws.InvalidStatus)
        assert error.response.body == b"busy, "


async def test_of_an_endless_body_only_the_beginning_is_read() -> None:
    async with scripted(lambda _: b"HTTP/1.1 500 Oh\r\n\r\n" + b"x" * 10 * BODY_SIZE) as server:
        error = await failure(server.uri)
        assert isinstance(error, rawws.InvalidStatus)
        assert error.response.body == b"x" * BODY_SIZE


async def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rawws.client.opening.BODY_WAIT", 0.2)
    async with scripted(lambda _: b"HTTP/1.1 500 Oh\r\nContent-Length: 9\r\n\r\nhalf") as server:
        error = await failure(server.uri, ping_interval=0.5)
        assert isinstance(error, rawws.InvalidStatus)
        assert error.response.body == b"half"


async def test_a_connection_that_ends_before_the_response_says_how_far_it_came() -> None:
    async with scripted(lambda _: b"", ends=True) as server:
        error = await failure(server.uri)
        assert type(error) is rawws.InvalidMessage
        assert str(error) == "the connection ended before the response, nothing came of the response"
    async with scripted(lambda _: b"HTTP/1.1 101", ends=True) as server:
        assert "12 bytes of the response came" in str(await failure(server.uri))


# -- time


@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_a_server_that_accepts_and_says_nothing_is_left_after_open_timeout(scheme: str) -> None:
    async with scripted(lambda _: None) as server:
        begun = time.monotonic()
        error = await failure(f"{scheme}://127.0.0.1:{server.port}", open_timeout=0.1)
        assert isinstance(error, TimeoutError)
        assert str(error).startswith(f"no connection to 127.0.0.1:{server.port} within 0.1 s")
        assert time.monotonic() - begun < 30


async def test_a_server_that_dribbles_its_response_is_left_after_open_timeout() -> None:
    async def dribble(transport: asyncio.Transport) -> None:
        for octet in b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket":
            if transport.is_closing():
                return
            transport.write(bytes([octet]))
            await asyncio.sleep(0.02)

    async with scripted(lambda _: b"") as server, asyncio.TaskGroup() as group:
        connecting = asyncio.ensure_future(failure(server.uri, open_timeout=1))
        await eventually(lambda: server.requests)
        group.create_task(dribble(server.transports[0]))
        error = await connecting
        assert isinstance(error, TimeoutError)
        assert "bytes of the response came" in str(error)


async def test_a_cancelled_connect_leaves_nothing_behind() -> None:
    async with scripted(lambda _: None) as server:
        before = descriptors()
        task = asyncio.ensure_future(_open(server.uri))
        await eventually(lambda: server.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: descriptors() <= before + 1)


async def test_a_connect_that_is_cancelled_before_it_is_connected_complains_to_nobody() -> None:
    """The connection that it opened nevertheless ends without a response, of which nobody is to be told."""
    async with serve(echo) as server:
        for turns in range(12):
            task = asyncio.ensure_future(_open(f"ws://127.0.0.1:{port(server)}"))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _open(uri: str) -> None:
    await rawws.connect(uri)


# -- TLS


async def test_tls_is_verified_and_asks_for_http11(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    context.set_alpn_protocols(["h2", "http/1.1"])
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    async with serve(echo, ssl=context) as server:
        uri = f"wss://localhost:{port(server)}"
        with pytest.raises(ssl.SSLCertVerificationError, match=r"self-signed|unable to get local issuer"):
            await rawws.connect(uri)
        # What OpenSSL looks for where nobody says whom to trust.
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        with pytest.raises(ssl.SSLCertVerificationError, match=r"not valid for '127\.0\.0\.1'"):
            await rawws.connect(uri.replace("localhost", "127.0.0.1"))
        async with rawws.connect(uri) as ws:
            await ws.send("x" * 100_000)
            assert await ws.recv() == "x" * 100_000
            assert ws.transport.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"


async def test_the_name_of_the_server_is_indicated_in_the_tls_handshake() -> None:
    part = tls()
    names = []
    part.server.sni_callback = lambda _socket, name, _context: names.append(name)
    async with serve(echo, ssl=part.server) as server:
        async with rawws.connect(f"wss://localhost:{port(server)}", ssl=part.client):
            assert names == ["localhost"]


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("elsewhere.example", {}, "Hostname mismatch"),
        ("localhost", {"server_hostname": "b.example"}, "Hostname mismatch"),
    ],
)
async def test_a_certificate_of_another_name_is_refused(name: str, options: dict[str, Any], match: str) -> None:
    part = tls(name)
    async with serve(echo, ssl=part.server) as server:
        error = await failure(f"wss://localhost:{port(server)}", ssl=part.client, **options)
        assert isinstance(error, ssl.SSLCertVerificationError)
        assert match in str(error)


async def test_an_authority_that_is_not_trusted_is_refused() -> None:
    async with serve(echo, ssl=tls().server) as server:
        error = await failure(f"wss://localhost:{port(server)}")
        assert isinstance(error, ssl.SSLCertVerificationError)


async def test_server_hostname_names_the_certificate() -> None:
    part = tls("inside.example")
    async with (
        serve(echo, ssl=part.server) as server,
        rawws.connect(f"wss://localhost:{port(server)}", ssl=part.client, server_hostname="inside.example") as ws,
    ):
        await ws.send("hi")
        assert await ws.recv() == "hi"


async def test_tls_where_the_server_speaks_none_is_an_error_of_tls() -> None:
    async with serve(echo) as server:
        assert isinstance(await failure(f"wss://localhost:{port(server)}"), (ssl.SSLError, ConnectionError))


@pytest.mark.parametrize(("scheme", "ssl"), [("ws", True), ("wss", False)])
async def test_ssl_that_contradicts_the_scheme_is_refused(scheme: str, ssl: bool) -> None:
    with pytest.raises(ValueError, match="ssl is"):
        await rawws.connect(f"{scheme}://localhost:1", ssl=ssl)
