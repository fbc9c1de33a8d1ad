"""HTTP/2 on a server: streams that are answered as connections of HTTP/1.1 are, by clients that others wrote, too."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trustme
from OpenSSL import SSL as OpenSSL  # noqa: N811 - a module

import rawws
from rawws import clock
from rawws.errors import Close, HttpError
from rawws.http.exchange import SLOWEST
from rawws.http.files import FileResponse
from rawws.integrations.asgi import Application
from rawws.net.streams import StreamTransport, is_stream
from rawws.protocol.http11 import Headers, Request
from rawws.server.server import Serve
from rawws.server.tls import is_prohibited
from tests.protocol.http2_wire import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    REQUEST,
    RST_STREAM,
    WINDOW_UPDATE,
    block,
    frame,
    settings,
)
from tests.protocol.http2_wire import number as frame_of_number
from tests.server import peers
from tests.server.http2_client import Answer, reach
from tests.server.peers import Logged, Peer, eventually, handler_of, set_at_end

AUTHORITY = trustme.CA()


def serve(handler: Any, *, http2: bool | str | None = True, **options: Any) -> Serve:
    """Serve on a free port, HTTP/2 too."""
    return peers.serve(handler, http2=http2, **options)


def server_tls(key: trustme.KeyType = trustme.KeyType.ECDSA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert("localhost", "127.0.0.1", key_type=key).configure_cert(context)
    return context


def client_tls(*protocols: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("http2")
    (path / "large").write_bytes(bytes(range(256)) * 12_000)
    with AUTHORITY.cert_pem.tempfile(str(path)) as pem:
        (path / "authority.pem").write_bytes(Path(pem).read_bytes())
    return path


def site(folder: Path | None = None) -> rawws.Routes:
    """A bit of each thing that an endpoint can answer with."""
    routes = rawws.Routes()

    @routes.get("/")
    def root(request: rawws.HttpRequest) -> str:
        return f"{request.method} {request.path} {request.head.http_version} {request.scheme}"

    @routes.post("/echo")
    async def echo(request: rawws.HttpRequest) -> bytes:
        await asyncio.sleep(0)
        return request.body

    @routes.get("/events")
    def events(_request: rawws.HttpRequest) -> rawws.EventStream:
        async def three() -> AsyncIterator[str]:
            for number in range(3):
                yield str(number)

        return rawws.EventStream(three())

    @routes.get("/stream")
    def stream(_request: rawws.HttpRequest) -> rawws.EventStream:
        opened = rawws.EventStream()
        opened.send("open")
        return opened

    @routes.get("/poll")
    def poll(_request: rawws.HttpRequest) -> rawws.LongPoll:
        held = rawws.LongPoll()
        asyncio.get_running_loop().call_soon(held.respond, "answered")
        return held

    @routes.get("/never", cancel=True)
    async def never(_request: rawws.HttpRequest) -> None:
        await asyncio.Event().wait()

    @routes.get("/forbidden")
    def forbidden(_request: rawws.HttpRequest) -> str:
        raise HttpError(403, "not here")

    @routes.get("/fault")
    async def fault(_request: rawws.HttpRequest) -> str:
        raise RuntimeError("a fault")

    @routes.get("/old")
    def old(_request: rawws.HttpRequest) -> rawws.Response:
        return rawws.Response(200, "old", [("Connection", "close"), ("X-Here", "yes")])

    @routes.get("/file")
    def file(_request: rawws.HttpRequest) -> FileResponse:
        assert folder is not None
        return FileResponse(folder / "large")

    @routes.websocket("/ws")
    async def talk(ws: rawws.WebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    return routes


async def curl(folder: Path, *arguments: str) -> bytes:
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "-m", "30", "--cacert", str(folder / "authority.pem"), *arguments, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return output


# -- clients that others wrote


@pytest.mark.parametrize("secure", [True, False])
async def test_curl_gets_what_http11_gives(secure: bool, folder: Path) -> None:
    async with serve(site(folder), ssl=server_tls() if secure else None) as server:
        port = server.sockets[0].getsockname()[1]
        base, how = ("https", "--http2") if secure else ("http", "--http2-prior-knowledge")
        url = f"{base}://localhost:{port}"
        assert await curl(folder, how, "-w", "%{http_version}", f"{url}/") == f"GET / 2 {base}2".encode()
        assert await curl(folder, how, f"{url}/events") == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
        assert await curl(folder, how, f"{url}/poll") == b"answered"
        assert await curl(folder, how, f"{url}/file") == (folder / "large").read_bytes()
        head = await curl(folder, how, "-I", f"{url}/file")
        assert b"HTTP/2 200" in head and b"content-length: 3072000" in head
        sent = folder / "sent"
        sent.write_bytes(b"a line of a body\n" * 50_000)
        assert await curl(folder, how, "--data-binary", f"@{sent}", f"{url}/echo") == sent.read_bytes()
        sent.write_bytes(b"much too large\n" * 100_000)
        refused = await curl(folder, how, "-w", " %{http_code}", "--data-binary", f"@{sent}", f"{url}/echo")
        assert refused == b"the body is 1500000 bytes, the limit is 1048576\n 413"


async def test_httpx_has_fifty_answers_on_one_connection() -> None:
    async with serve(site(), ssl=server_tls()) as server:
        url = f"https://localhost:{server.sockets[0].getsockname()[1]}"
        async with httpx2.AsyncClient(http2=True, verify=client_tls(), timeout=60) as client:
            answers = await asyncio.gather(*[client.get(url) for _ in range(50)])
            assert {(answer.status_code, answer.http_version) for answer in answers} == {(200, "HTTP/2")}
            assert (await client.post(f"{url}/echo", content=b"body")).content == b"body"
        figures = server.stats()
        assert figures.accepted == 1
        assert figures.responses == {200: 51}


# -- which version is spoken


@pytest.mark.parametrize(
    ("http2", "offered", "spoken"),
    [
        (None, ("h2", "http/1.1"), "h2"),
        (True, ("h2", "http/1.1"), "h2"),
        ("no-websocket", ("h2", "http/1.1"), "h2"),
        (True, ("http/1.1",), "http/1.1"),
        (True, ("h3",), None),
        (False, ("h2", "http/1.1"), None),
    ],
)
async def test_the_tls_handshake_agrees_on_the_version(
    http2: bool | str | None, offered: tuple[str, ...], spoken: str | None
) -> None:
    async with serve(site(), ssl=server_tls(), http2=http2) as server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=client_tls(*offered), server_hostname="localhost"
        )
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == spoken
        writer.close()
        await eventually(lambda: not server.settings.connections)


async def test_another_certificate_offers_the_same_protocols() -> None:
    async with serve(site(), ssl=server_tls) as server:
        server.reload_tls()
        async with reach(server, client_tls("h2")) as client:
            assert (await client.get()).text() == "GET / 2 https"


@pytest.mark.parametrize(
    ("version", "ciphers", "code"),
    [
        ("TLSv1_3", None, None),
        ("TLSv1_2", "ECDHE+AESGCM", None),
        ("TLSv1_2", "ECDHE+CHACHA20", None),
        ("TLSv1_2", "ECDHE-RSA-AES256-SHA384:ECDHE-ECDSA-AES256-SHA384", 12),
        ("TLSv1_2", "AES256-GCM-SHA384", 12),
        ("TLSv1_2", "AES256-SHA256", 12),
    ],
)
async def test_a_cipher_that_http2_forbids_ends_the_connection(
    version: str, ciphers: str | None, code: int | None
) -> None:
    ours, theirs = server_tls(trustme.KeyType.RSA), client_tls("h2", "http/1.1")
    # Whatever the context of an application allows.
    ours.set_ciphers("ALL")
    theirs.minimum_version = theirs.maximum_version = ssl.TLSVersion[version]
    if ciphers is not None:
        theirs.set_ciphers(ciphers)
    async with serve(site(), ssl=ours) as server, reach(server, theirs) as client:
        if code is None:
            assert (await client.get()).status == 200
        else:
            await client.wait_ended()
            assert [event.error_code for event in client.goaways] == [code]
        await eventually(lambda: len(server.settings.connections) == (code is None))


@pytest.mark.parametrize(
    ("version", "cipher", "prohibited"),
    [
        ("TLSv1.3", "TLS_AES_128_GCM_SHA256", False),
        ("TLSv1.2", "DHE-RSA-AES128-GCM-SHA256", False),
        ("TLSv1.2", "ECDHE-ECDSA-AES128-CCM8", False),
        ("TLSv1.2", "DHE-RSA-AES128-SHA256", True),
        ("TLSv1.2", "PSK-CHACHA20-POLY1305", True),
        ("TLSv1.1", "ECDHE-RSA-AES128-SHA", True),
        ("TLSv1.2", None, True),
    ],
)
def test_of_tls_1_2_only_ciphers_are_allowed_that_rfc_9113_does_not_list(
    version: str, cipher: str | None, prohibited: bool
) -> None:
    class Tls:
        """What an SSLObject says, also of what no OpenSSL of today agrees on."""

        def version(self) -> str:
            return version

        def cipher(self) -> tuple[str, str, int] | None:
            return None if cipher is None else (cipher, version, 128)

    agreed: Any = Tls()
    assert is_prohibited(agreed) is prohibited


async def test_a_client_can_neither_compress_nor_renegotiate() -> None:
    context = server_tls()
    context.options &= ~ssl.OP_NO_COMPRESSION
    async with serve(site(), ssl=context) as server:
        assert context.options & ssl.OP_NO_COMPRESSION
        assert context.options & ssl.OP_NO_RENEGOTIATION
        found = await asyncio.to_thread(renegotiate, server.sockets[0].getsockname())
    assert found == (b"h2", "TLSv1.2", "no renegotiation")


def renegotiate(address: tuple[str, int]) -> tuple[bytes, str, str]:
    """Ask for another handshake in TLS 1.2, which Python's own `ssl` cannot."""
    context = OpenSSL.Context(OpenSSL.TLS_METHOD)
    context.set_max_proto_version(OpenSSL.TLS1_2_VERSION)
    context.set_alpn_protos([b"h2"])
    with socket.create_connection(address) as sock:
        sock.setblocking(True)
        connection = OpenSSL.Connection(context, sock)
        connection.set_connect_state()
        connection.do_handshake()
        # What the server begins with; or that would come in the middle of the handshake.
        assert connection.recv(65536)
        agreed = connection.get_alpn_proto_negotiated(), connection.get_protocol_version_name()
        assert connection.renegotiate()
        with pytest.raises(OpenSSL.Error) as refused:
            connection.do_handshake()
        return *agreed, refused.value.args[0][0][2]


async def test_in_tls_http2_has_to_be_agreed_on() -> None:
    async with serve(site(), ssl=server_tls()) as server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=client_tls("http/1.1"), server_hostname="localhost"
        )
        writer.write(PREFACE + settings())
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 505 ")
        writer.close()


@pytest.mark.parametrize("size", [1, 3, 16, 20, 24])
async def test_prior_knowledge_is_seen_in_any_pieces(size: int) -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
    async with serve(site()) as server:
        peer = await Peer.reach(server.sockets[0].getsockname())
        for at in range(0, len(preface), size):
            await peer.write(preface[at : at + size])
        came = b""
        while len(came) < 9:
            came += await peer.read()
        assert came[3] == 4  # SETTINGS
        await eventually(lambda: server.stats().http2_connections == 1)
        peer.close()


async def test_prior_knowledge_behind_a_response_is_no_request() -> None:
    async with serve(site()) as server:
        peer = await Peer.reach(server.sockets[0].getsockname())
        await peer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await peer.response()).status == 200
        await peer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert b"HTTP/1.1 505 " in await peer.read_to_end()
        peer.close()


@pytest.mark.parametrize("http2", [False, None])
async def test_without_tls_or_http2_prior_knowledge_is_refused(http2: bool | None) -> None:
    async with serve(site(), http2=http2) as server:
        peer = await Peer.reach(server.sockets[0].getsockname())
        await peer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert (await peer.response()).status == 505
        peer.close()


def test_other_words_for_http2_are_named() -> None:
    with pytest.raises(ValueError, match="http2 is 'yes', allowed are True, False, None and 'no-websocket'"):
        serve(site(), http2="yes")


# -- requests


async def test_endpoints_answer_as_in_http11(logged: Logged) -> None:
    async with serve(site(), server_header="ours") as server, reach(server) as client:
        answer = await client.get("/old")
        assert (answer.status, answer.text()) == (200, "old")
        assert "Connection" not in answer.headers
        assert answer.headers["X-Here"] == "yes"
        assert answer.headers["Server"] == "ours"
        assert "Date" in answer.headers
        refused = await client.get("/forbidden")
        assert (refused.status, refused.text()) == (403, "not here\n")
        assert (await client.get("/fault")).status == 500
        logged.take("request failed: GET /fault", RuntimeError)
        assert (await client.get("/nothing")).status == 404
        wrong = await client.get("/", "DELETE")
        assert (wrong.status, wrong.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")
        alone = await client.get("/ws")
        assert alone.status == 501
        assert alone.text().startswith("there is a WebSocket at this path, needed is CONNECT")
        head = await client.get("/", "HEAD")
        assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", "13")
        nothing = await client.get("/nothing", "HEAD")
        assert (nothing.status, nothing.body) == (404, b"")
        assert server.stats().http2_streams == 0


async def test_a_body_that_is_announced_is_waited_for() -> None:
    async with serve(site()) as server, reach(server) as client:
        answer = client.request("/echo", "POST", ("Expect", "100-continue"), ("Content-Length", "4"), body=b"body")
        assert (await answer.whole()).text() == "body"
        assert answer.interim == [100]
        wrong = client.request("/echo", "POST", ("Expect", "wonders"), body=b"")
        assert (await wrong.head()).status == 417


@pytest.mark.parametrize(("size", "status"), [(1000, 200), (1001, 413)])
async def test_a_body_of_the_limit_is_taken_and_a_byte_more_is_not_whether_announced_or_not(
    size: int, status: int
) -> None:
    async with serve(site(), max_size=1000) as server, reach(server) as client:
        # In frames that are below the limit, each.
        whole = client.request("/echo", "POST", more=True)
        whole.write(b"x" * 600)
        whole.write(b"x" * (size - 600), end=True)
        announced = client.request("/echo", "POST", ("Content-Length", str(size)), body=b"x" * size)
        for answer in (whole, announced):
            assert (await answer.whole()).status == status
            assert len(answer.body) == 1000 or b"limit" in answer.body


async def test_a_hook_may_answer_now_or_later() -> None:
    async def later(_ws: rawws.WebSocket, request: Any) -> Any:
        await asyncio.sleep(0)
        if request.path == "/fault":
            raise HttpError(402, "pay first")
        return None if request.path == "/echo" else rawws.Response(204)

    async with serve(site(), process_request=later) as server, reach(server) as client:
        assert (await client.get("/")).status == 204
        assert (await client.get("/fault")).status == 402
        assert (await client.request("/echo", "POST", body=b"kept meanwhile").whole()).text() == "kept meanwhile"


async def test_header_fields_over_the_limit_are_answered_with_431() -> None:
    async with serve(site()) as server, reach(server) as client:
        answer = await client.get("/", "GET", ("X-Long", "x" * 17_000))
        assert answer.status == 431
        assert (await client.get("/")).status == 200


async def test_a_plain_connect_and_another_protocol_are_not_implemented() -> None:
    async with serve(site()) as server, reach(server) as client:
        await client.wait(lambda: client.settings)
        assert (await client.request("", "CONNECT", body=b"").head()).status == 501
        assert (await client.request("/ws", "CONNECT", protocol="connect-udp").head()).status == 501


async def test_a_client_that_resets_ends_its_endpoint() -> None:
    async with serve(site()) as server, reach(server) as client:
        answer = client.request("/stream")
        await answer.until(b"open")
        assert server.stats().streams == 1
        client.core.reset(answer.stream)
        client.flush()
        await eventually(lambda: server.stats().http2_streams == 0)
        assert (await client.get("/")).status == 200


async def test_the_access_log_names_the_version(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "rawws.access")
    async with serve(site(), access_log=True) as server, reach(server) as client:
        await client.get("/")
    (line,) = [record.getMessage() for record in caplog.records if record.name == "rawws.access"]
    assert line.endswith('"GET / HTTP/2" 200 12')


# -- flow


async def test_a_stream_that_is_not_read_stops_no_other(folder: Path) -> None:
    async with serve(site(folder)) as server, reach(server) as client:
        stalled = client.request("/file")
        client.stalled.add(stalled.stream.id)
        await client.wait(lambda: len(stalled.body) == 65535)
        assert (await client.get("/")).status == 200
        client.core.acknowledge(stalled.stream, 65535)
        client.stalled.clear()
        client.flush()
        assert (await stalled.whole()).body == (folder / "large").read_bytes()


async def test_a_stream_that_lasts_goes_between_the_pieces_of_a_large_one(folder: Path) -> None:
    async with serve(site(folder)) as server, reach(server) as client:
        large = client.request("/file", "GET", ("Priority", "u=0"))
        small = client.request("/events", "GET", ("Priority", "u=7"))
        assert (await small.whole()).text() == "data: 0\n\ndata: 1\n\ndata: 2\n\n"
        assert len((await large.whole()).body) == 3_072_000


async def test_a_ping_is_answered_before_content_that_waits(folder: Path) -> None:
    async with serve(site(folder)) as server, reach(server) as client:
        answer = client.request("/file")
        client.stalled.add(answer.stream.id)
        # The window is full.
        await client.wait(lambda: len(answer.body) == 65535)
        # One write makes room for more content, and asks for an answer behind that.
        client.stalled.clear()
        client.core.acknowledge(answer.stream, len(answer.body))
        client.core.ping(b"12345678")
        client.flush()
        await answer.whole()
        assert client.pings == {b"12345678": 65535}
        assert len(answer.body) == 12_000 * 256


async def test_a_stream_that_is_never_read_is_given_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rawws.server.connection.PATIENCE", 0.1)
    monkeypatch.setattr("rawws.http.files.PATIENCE", 0.1)
    async with serve(site(folder), open_timeout=1) as server, reach(server) as client:
        stalled = client.request("/file")
        client.stalled.add(stalled.stream.id)
        await client.wait(lambda: stalled.reset is not None)
        assert stalled.reset == 8
        assert (await client.get("/")).status == 200
        await eventually(lambda: server.stats().http2_streams == 0)


async def test_a_stream_that_is_read_by_one_octet_at_a_time_is_given_up(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rawws.server.connection.PATIENCE", 0.1)
    monkeypatch.setattr("rawws.http.files.PATIENCE", 0.1)
    async with serve(site(folder), open_timeout=1) as server, reach(server) as client:
        dribbled = client.request("/file")
        client.stalled.add(dribbled.stream.id)
        await client.wait(lambda: len(dribbled.body) == 65535)
        while dribbled.reset is None:
            room = len(dribbled.body) + 1
            dribbled.stream.receive_window += 1
            client.core.write_number(WINDOW_UPDATE, dribbled.stream.id, 1)
            # Who reads answers may give much back: this is no flood.
            assert (await client.get("/")).status == 200
            await client.wait(lambda room=room: len(dribbled.body) == room or dribbled.reset is not None)
        assert dribbled.reset == 8
        await eventually(lambda: server.stats().http2_streams == 0)


async def test_of_a_stream_for_which_little_waits_each_octet_counts() -> None:
    routes = rawws.Routes()
    routes.get("/")(lambda _: "x" * 66_000)
    async with serve(routes) as server, reach(server) as client:
        answer = client.request("/")
        client.stalled.add(answer.stream.id)
        await client.wait(lambda: len(answer.body) == 65535)
        [stream] = transports(server)
        handler = handler_of(stream.protocol)
        assert not handler.stalls()
        assert handler.stalls()
        answer.stream.receive_window += 10
        client.core.write_number(WINDOW_UPDATE, answer.stream.id, 10)
        client.flush()
        await client.wait(lambda: len(answer.body) == 65545)
        assert not handler.stalls()


async def test_a_body_has_more_time_the_longer_it_may_be() -> None:
    async with serve(site(), open_timeout=10, max_size=1 << 20) as server, reach(server) as client:
        client.request("/echo", "POST", ("Content-Length", "1000"), more=True)
        client.request("/echo", "POST", more=True)
        await eventually(lambda: len(transports(server)) == 2)
        peer = await Peer.reach(server.sockets[0].getsockname())
        await peer.write(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048576\r\n\r\n")
        await eventually(lambda: server.stats().sockets == 2)
        sockets = [ws for ws in server.settings.connections if ws.handler is not None and ws.handler.kind != "http2"]
        await eventually(lambda: all(ws.deadline for ws in sockets))
        now = clock.monotonic()
        longest = 10 + (1 << 20) / SLOWEST
        await eventually(lambda: sum(ws.deadline > now + longest - 60 for ws in sockets) == 2)
        assert sum(ws.deadline <= now + 10 + 1000 / SLOWEST for ws in sockets) == 1
        peer.close()


async def test_an_answer_to_a_stream_that_is_gone_is_dropped_and_no_fault() -> None:
    answered = []

    async def later(_ws: rawws.WebSocket, _request: Any) -> rawws.Response:
        await asyncio.sleep(0)
        answered.append(1)
        return rawws.Response(200, "too late")

    routes = rawws.Routes()

    @routes.get("/")
    async def root(_request: rawws.HttpRequest) -> rawws.EventStream:
        answered.append(2)
        return rawws.EventStream()

    async with serve(routes) as server, reach(server) as client:
        for _ in range(20):
            client.core.reset(client.request("/").stream)
        client.flush()
        assert (await client.get("/nothing")).status == 404
        assert answered
    answered.clear()
    async with serve(routes, process_request=later) as server, reach(server) as client:
        for _ in range(20):
            client.core.reset(client.request("/").stream)
        client.flush()
        assert (await client.get("/")).text() == "too late"
        await eventually(lambda: server.stats().http2_streams == 0)


# -- ASGI


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        body = b""
        while (event := await receive()).get("more_body"):
            body += event["body"]
        body += event["body"]
        assert scope["http_version"] == "2"
        if scope["path"] == "/broken":
            head = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100")]}
            await send(head)
            await send({"type": "http.response.body", "body": b"a part", "more_body": True})
            raise RuntimeError("broken")
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b" and more"})
        return
    assert (await receive())["type"] == "websocket.connect"
    if scope["path"] == "/refused":
        await send({"type": "websocket.close"})
        return
    await send({"type": "websocket.accept", "subprotocol": "chat.v1", "headers": [(b"x-here", b"yes")]})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event["text"]})


async def test_an_asgi_application_answers_over_http2(logged: Logged) -> None:
    app = Application(application, lifespan="off")
    async with serve(app, compression=None) as server, reach(server) as client:
        answer = await client.request("/", "POST", body=b"x" * 200_000).whole()
        assert answer.body == b"x" * 200_000 + b" and more"
        ws = await client.connect("/ws", ("Sec-WebSocket-Protocol", "chat.v1"))
        assert (ws.status, ws.headers["Sec-WebSocket-Protocol"], ws.headers["X-Here"]) == (200, "chat.v1", "yes")
        ws.send("over it")
        assert await ws.recv() == "over it"
        refused = await client.connect("/refused")
        assert (await refused.whole()).status == 403
        broken = await client.request("/broken").whole()
        assert (broken.body, broken.over, broken.reset) == (b"a part", False, 8)
        logged.take("Exception in ASGI application (GET /broken)", RuntimeError)


# -- WebSocket over extended CONNECT


async def closed(answer: Answer) -> Close | None:
    await answer.client.wait(lambda: answer.over or answer.reset is not None)
    return answer.websocket.closed().rcvd


@pytest.mark.parametrize("secure", [True, False])
async def test_a_websocket_goes_over_a_stream(secure: bool) -> None:
    tls = (server_tls(), client_tls("h2")) if secure else (None, None)
    async with serve(site(), ssl=tls[0], compression=None) as server, reach(server, tls[1]) as client:
        ws = await client.connect("/ws")
        assert ws.status == 200
        assert "Sec-WebSocket-Accept" not in ws.headers
        for message in ("text", b"binary", b"x" * 300_000):
            ws.send(message)
            assert await ws.recv() == message
        assert len(server.connections) == 1
        ws.websocket.close(1000, "bye")
        ws.flush()
        came = await closed(ws)
        assert came == Close(1000, "bye")
        assert ws.reset is None
        # It waits for the client's end, and takes no failure of it.
        ws.write(b"", end=True)
        await eventually(lambda: server.stats().http2_streams == 0)
        assert server.stats().closes == {1000: 1}
        assert ws.reset is None


@pytest.mark.parametrize("end", ["reset", "error"])
async def test_messages_in_frames_of_their_own_come_before_the_end_behind_them(
    end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Streams end with what ends their connection, and do not wait for the client to leave it.
    monkeypatch.setattr("rawws.server.http2.LINGER", 600.0)
    came: dict[str, list[str | bytes]] = {"first": [], "second": []}
    ended: list[str] = []
    routes = rawws.Routes()

    @routes.websocket("/{name}")
    async def listen(ws: rawws.WebSocket) -> None:
        assert ws.request is not None
        name = ws.request.path.strip("/")
        with contextlib.suppress(rawws.ConnectionClosed):
            async for message in ws:
                came[name].append(message)
        ended.append(name)

    async with serve(routes, ping_interval=None) as server, reach(server) as client:
        streams = {name: await client.connect(f"/{name}") for name in came}
        for number, name in enumerate(["first", "first", "first", "second", "first"]):
            answer = streams[name]
            answer.websocket.send(str(number))
            client.core.send_data(answer.stream, b"".join(answer.websocket.data_to_send()))
        if end == "reset":
            client.core.reset(streams["first"].stream)
        broken = frame(PUSH_PROMISE, END_HEADERS, 1, bytes(4)) if end == "error" else b""
        client.writer.write(b"".join(client.core.data_to_send()) + broken)
        await eventually(lambda: "first" in ended and came["second"])
        assert came == {"first": ["0", "1", "2", "4"], "second": ["3"]}


async def test_a_websocket_is_what_its_handler_knows() -> None:
    seen: list[Any] = []

    async def handler(ws: rawws.WebSocket) -> None:
        request = ws.request
        assert request is not None
        seen.extend([request.method, request.path, request.http_version, ws.subprotocol, ws.query["a"]])
        await ws.close(4001, "enough")

    def add(_ws: rawws.WebSocket, _request: Any, response: rawws.Response) -> None:
        response.headers["X-Added"] = "yes"

    options: dict[str, Any] = {"subprotocols": ["chat.v1"], "process_response": add, "server_header": "ours"}
    async with serve(handler, **options) as server, reach(server) as client:
        ws = await client.connect("/?a=1", ("Sec-WebSocket-Protocol", "chat.v1"))
        assert ws.headers["Sec-WebSocket-Protocol"] == "chat.v1"
        assert (ws.headers["X-Added"], ws.headers["Server"]) == ("yes", "ours")
        await client.wait(lambda: ws.websocket.closed().rcvd is not None)
        ws.flush()
        assert await closed(ws) == Close(4001, "enough")
        assert seen == ["GET", "/?a=1", "2", "chat.v1", "1"]


async def test_a_websocket_has_the_parameters_of_its_path() -> None:
    routes = rawws.Routes()

    @routes.websocket("/rooms/{room}")
    async def room(ws: rawws.WebSocket) -> None:
        await ws.close(4001, ws.path_params["room"])

    async with serve(routes) as server, reach(server) as client:
        ws = await client.connect("/rooms/blue")
        await client.wait(lambda: ws.websocket.closed().rcvd is not None)
        assert ws.websocket.closed().rcvd == Close(4001, "blue")


@pytest.mark.parametrize(
    ("path", "fields", "version", "status"),
    [
        ("/", (), "13", 403),
        ("/nothing", (), "13", 404),
        ("/ws", (("Origin", "https://elsewhere.example"),), "13", 403),
        ("/ws", (), "12", 426),
    ],
)
async def test_a_websocket_is_refused_with_a_status_and_no_reset(
    path: str, fields: tuple[tuple[str, str], ...], version: str, status: int
) -> None:
    async with serve(site()) as server, reach(server) as client:
        ws = await client.connect(path, *fields, version=version)
        assert (await ws.whole()).status == status
        ws.write(b"", end=True)
        await eventually(lambda: server.stats().http2_streams == 0)
        assert ws.reset is None


async def test_a_websocket_whose_stream_ends_with_its_request_is_refused() -> None:
    async with serve(site()) as server, reach(server) as client:
        await client.wait(lambda: client.settings)
        fields = Headers([("Host", "localhost"), ("Sec-WebSocket-Version", "13")])
        head = Request("CONNECT", "/ws", fields, "2")
        stream = client.core.request(head, protocol="websocket", end_stream=True)
        answer = client.answers[stream.id] = Answer(client, stream)
        client.flush()
        assert (await answer.head()).status == 400


async def test_a_websocket_is_refused_where_there_is_none() -> None:
    async with serve(site()) as server, reach(server) as client:
        ws = await (await client.connect("/")).whole()
        assert (ws.status, ws.text()) == (403, "there is no WebSocket at this path\n")


@pytest.mark.parametrize("http2", [True, "no-websocket"])
async def test_websockets_are_offered_only_where_there_are_some(http2: bool | str) -> None:
    routes = site() if http2 == "no-websocket" else rawws.Routes()
    async with serve(routes, http2=http2) as server, reach(server) as client:
        await client.wait(lambda: client.settings)
        assert 8 not in client.settings


async def test_a_client_that_ends_the_stream_leaves_its_websocket() -> None:
    async with serve(site()) as server, reach(server) as client:
        ws = await client.connect("/ws")
        ws.write(b"", end=True)
        await eventually(lambda: server.stats().closes == {1006: 1})
        assert server.stats().http2_streams == 0


async def test_a_websocket_that_does_not_take_stops_its_client_alone() -> None:
    let_go = asyncio.Event()
    took: list[int] = []

    async def handler(ws: rawws.WebSocket) -> None:
        async for message in ws:
            took.append(len(message))
            if len(took) > 30:
                await let_go.wait()

    async with serve(handler, compression=None, max_size=70_000) as server, reach(server) as client, set_at_end(let_go):
        slow, quick = await client.connect("/"), await client.connect("/")
        for _ in range(100):
            slow.send(b"x" * 10_000)
        await eventually(lambda: max(len(transport.held) for transport in transports(server)) >= 70_000)
        # An answer comes behind all that the client was given room for, the next one behind what it sent then.
        for ping in (b"room for", b"all sent"):
            client.core.ping(ping)
            client.flush()
            await client.wait(lambda ping=ping: ping in client.pings)
        room, kept = slow.stream.send_window, max(len(transport.held) for transport in transports(server))
        quick.send("on its way")
        let_go.set()
        # What goes on and on has a larger window, but none that is larger than a message may be.
        assert room == 0
        assert kept == 70_000
        await eventually(lambda: len(took) == 101)
        assert not slow.waiting


# -- limits and ends


async def test_more_streams_that_last_than_there_may_be_are_told_so() -> None:
    async with serve(site()) as server, reach(server) as client:
        await client.wait(lambda: client.settings)
        assert client.settings[3] == 256
        streams = [client.request("/stream") for _ in range(200)]
        await streams[-1].until(b"open")
        refused = await client.get("/stream")
        assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
        ws = await client.connect("/ws")
        assert (ws.status, ws.headers["Retry-After"]) == (503, "5")
        assert (await client.get("/")).status == 200
        assert (await client.get("/poll")).status == 503


async def test_event_streams_of_an_asgi_application_are_refused_as_others_are() -> None:
    heard: list[str] = []

    async def events(scope: Any, receive: Any, send: Any) -> None:
        kind = b"text/event-stream" if scope["path"] == "/events" else b"text/plain"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        await send({"type": "http.response.body", "body": b"data: open\n\n", "more_body": kind != b"text/plain"})
        if kind != b"text/plain":
            try:
                await send({"type": "http.response.body", "body": b"data: more\n\n", "more_body": True})
            except OSError as error:
                heard.append(str(error))
                raise
            while (await receive())["type"] != "http.disconnect":
                pass

    async with serve(Application(events, lifespan="off")) as server, reach(server) as client:
        streams = [client.request("/events") for _ in range(200)]
        for stream in streams:
            await stream.until(b"more")
        assert all(stream.incremental for stream in transports(server))
        refused = await client.get("/events")
        assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
        assert "streams that last" in refused.text()
        assert (await client.get("/")).status == 200
        client.core.reset(streams[0].stream)
        client.flush()
        await eventually(lambda: server.stats().streams == 199)
        await client.request("/events").until(b"more")
        assert heard == ["the client is gone"]


def transports(server: rawws.Server) -> list[StreamTransport]:
    return [ws.transport for ws in server.settings.connections if isinstance(ws.transport, StreamTransport)]


async def test_streams_count_as_connections() -> None:
    async with serve(site(), max_connections=2) as server, reach(server) as client:
        first, second = client.request("/stream"), client.request("/stream")
        await first.until(b"open")
        await second.until(b"open")
        refused = await client.get("/")
        assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
        figures = server.stats()
        assert (figures.sockets, figures.http2_connections, figures.streams) == (1, 1, 2)


async def test_streams_count_for_their_address() -> None:
    tls = client_tls("h2")
    async with serve(site(), ssl=server_tls(), max_connections_per_address=2) as server:
        async with reach(server, tls) as client:
            for path in ("/stream", "/stream"):
                await client.request(path).until(b"open")
            assert (await client.get("/")).status == 429
        await eventually(lambda: not server.settings.connections)
        async with reach(server, tls) as one, reach(server, tls) as two:
            assert (await one.get("/")).status == (await two.get("/")).status == 200
            async with reach(server, tls) as three:
                await three.wait_ended()
                assert three.goaways[0].error_code == 11


@pytest.mark.parametrize("fields", [(), (("X-Long", "x" * 17_000),)])
async def test_streams_that_are_refused_count_for_their_address_too(fields: tuple[tuple[str, str], ...]) -> None:
    async with serve(site(), max_connections_per_address=1) as server, reach(server) as client:
        # The stream is there until the client ends it, too.
        refused = client.request("/echo", "POST" if fields else "CONNECT", *fields, more=True)
        assert (await refused.head()).status == (431 if fields else 501)
        async with reach(server) as other:
            await other.wait_ended()
            assert not other.settings
        refused.write(b"", end=True)
        await eventually(lambda: server.stats().http2_streams == 0)
        assert (await client.get("/")).status == 200


async def test_a_connection_whose_place_another_one_took_ends_with_its_stream() -> None:
    async with serve(site(), max_connections_per_address=1) as server, reach(server) as client:
        await client.wait(lambda: client.settings)
        # Over the limit of all, a stream is not counted for its address.
        server.context.max_connections = 0
        refused = client.request("/echo", "POST", more=True)
        assert (await refused.head()).status == 503
        server.context.max_connections = None
        async with reach(server) as other:
            assert (await other.get("/")).status == 200
            refused.write(b"", end=True)
            await client.wait_ended()
            assert [event.error_code for event in client.goaways] == [11]
            assert (await other.get("/")).status == 200
        await eventually(lambda: not server.settings.connections)


async def test_a_drain_says_goaway_twice_and_ends_each_stream() -> None:
    async with serve(site()) as server, reach(server) as client:
        stream, ws = client.request("/stream"), await client.connect("/ws")
        await stream.until(b"open")
        task = asyncio.ensure_future(server.drain())
        await client.wait(lambda: ws.websocket.closed().rcvd is not None)
        ws.flush()
        ws.write(b"", end=True)
        await task
        await client.wait_ended()
        assert [event.last_stream_id for event in client.goaways][:2] == [(1 << 31) - 1, ws.stream.id]
        assert ws.websocket.closed().rcvd == Close(1001, "")
        assert stream.over
        assert server.stats().drained == 2


async def test_a_client_that_goes_away_is_let_go_behind_its_last_stream() -> None:
    async with serve(site()) as server, reach(server) as client:
        answer = client.request("/poll")
        client.core.go_away(0)
        client.flush()
        assert (await answer.whole()).text() == "answered"
        await client.wait_ended()
        assert [(goaway.last_stream_id, goaway.error_code) for goaway in client.goaways] == [(1, 0)]
        await eventually(lambda: not server.settings.connections)


async def test_a_silent_connection_ends() -> None:
    async with serve(site(), open_timeout=0.2, keep_alive_timeout=0.2) as server:
        async with reach(server) as silent:
            await silent.wait_ended()
            assert silent.goaways
        async with reach(server) as client:
            assert (await client.get("/")).status == 200
            await client.wait_ended()


async def test_the_end_of_the_connection_is_that_of_its_streams() -> None:
    counts: list[int] = []

    class Leaving(rawws.Handler):
        """Counts as the server does where somebody comes."""

        def on_close(self, ws: rawws.WebSocket, code: int, reason: str) -> None:
            counts.append(len(server.settings.connections) - len(server.context.carriers))

    async with serve(Leaving()) as server:
        async with reach(server) as client:
            assert (await client.connect("/")).status == 200
            # The connection has its stream, which counts in its place.
            assert (len(server.settings.connections), len(server.context.carriers)) == (2, 1)
        await eventually(lambda: not server.settings.connections)
        assert server.stats().closes == {1006: 1}
        assert counts == [0]
        assert not server.context.carriers


async def test_a_connection_has_the_time_of_an_idle_one_from_its_last_stream_on() -> None:
    async with serve(site(), open_timeout=300, keep_alive_timeout=3000) as server, reach(server) as client:
        assert (await client.get()).status == 200
        await eventually(lambda: not server.context.carriers)
        [connection] = server.settings.connections
        assert connection.deadline > clock.monotonic() + 1000


async def some(peer: Peer) -> bytes:
    """Return what comes next, and not the end."""
    data = await peer.read()
    assert data
    return data


async def test_only_the_answer_to_the_ping_of_a_drain_is_behind_its_goaway() -> None:
    async with serve(site(), hosts="*") as server:
        peer = await Peer.reach(server.sockets[0].getsockname())
        await peer.write(PREFACE + settings() + frame(HEADERS, END_HEADERS, 1, block(SLOW_POST)))
        await eventually(lambda: server.stats().http2_streams)
        draining = asyncio.ensure_future(server.drain())
        came = b""
        while PING not in [kind for kind, _ in frames_in(came)]:
            came += await some(peer)
        # On its way before the client knows of the drain: another answer, and a request.
        request = frame(HEADERS, END_HEADERS | END_STREAM, 3, block(REQUEST))
        await peer.write(frame(PING, 1, payload=b"another!") + request + frame(PING, 1, payload=b"draining"))
        goaways: list[bytes] = []
        while len(goaways) < 2:
            came += await some(peer)
            goaways = [payload[:4] for kind, payload in frames_in(came) if kind == GOAWAY]
        # The second one is behind the request, which is answered.
        while b"the server is shutting down" not in came:
            came += await some(peer)
        assert goaways == [b"\x7f\xff\xff\xff", b"\0\0\0\3"]
        peer.close()
        await draining


async def test_a_client_that_does_not_answer_the_ping_of_a_drain_is_told_the_last_stream_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rawws.server.http2.LINGER", 0.1)
    async with serve(site()) as server:
        peer = await Peer.reach(server.sockets[0].getsockname())
        await peer.write(PREFACE + settings() + frame(HEADERS, END_HEADERS, 1, block(SLOW_POST)))
        await eventually(lambda: server.stats().http2_streams)
        [connection] = [ws for ws in server.settings.connections if not is_stream(ws)]
        handler_of(connection).shut_down()
        came = b""
        while [kind for kind, _ in frames_in(came)].count(GOAWAY) < 2:
            came += await some(peer)
        peer.close()


async def test_server_abort_ends_all() -> None:
    async with serve(site()) as server, reach(server) as client:
        await client.connect("/ws")
        await client.request("/stream").until(b"open")
        server.abort()
        await client.wait_ended()


# -- floods (each of them is stopped by the core; here its connection ends, and only that)

SLOW = [(":method", "GET"), (":scheme", "http"), (":path", "/never"), (":authority", "localhost")]
SLOW_POST = [(":method", "POST"), (":scheme", "http"), (":path", "/echo"), (":authority", "localhost")]


def rapid_resets() -> bytes:
    """CVE-2023-44487."""
    return b"".join(
        frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, block(SLOW))
        + frame_of_number(RST_STREAM, 2 * number + 1, 8)
        for number in range(400)
    )


def made_resets() -> bytes:
    """CVE-2025-8671: frames that have the server reset the streams."""
    return b"".join(
        frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, block(SLOW))
        + frame_of_number(WINDOW_UPDATE, 2 * number + 1, 0)
        for number in range(400)
    )


FLOODS = {
    "rapid reset": rapid_resets(),
    "made you reset": made_resets(),
    "CONTINUATION": frame(HEADERS, END_STREAM, 1, block(REQUEST)) + frame(CONTINUATION, 0, 1) * 20,
    "SETTINGS": settings() * 2000,
    "PING": frame(PING, payload=b"a flood!") * 2000,
    "empty DATA": frame(HEADERS, END_HEADERS, 1, block(SLOW_POST)) + frame(DATA, 0, 1) * 2000,
    "PRIORITY": frame(PRIORITY, 0, 1, bytes(4) + b"\x01") * 2000,
    "WINDOW_UPDATE": frame_of_number(WINDOW_UPDATE, 0, 1) * 2000,
    "unknown frames": frame(77) * 2000,
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
async def test_a_flood_ends_its_own_connection_with_enhance_your_calm(flood: bytes) -> None:
    async with serve(site()) as server, reach(server) as other:
        ws = await other.connect("/ws")
        peer = await Peer.reach(server.sockets[0].getsockname())
        came = bytearray()
        reading = asyncio.ensure_future(collect(peer, came))
        with contextlib.suppress(ConnectionError):
            await peer.write(PREFACE + settings() + flood)
        await reading
        codes = [int.from_bytes(payload[4:8], "big") for kind, payload in frames_in(bytes(came)) if kind == GOAWAY]
        assert codes == [11]
        peer.close()
        ws.send("still there")
        assert await ws.recv() == "still there"
        await eventually(lambda: server.stats().http2_connections == 1)


async def collect(peer: Peer, came: bytearray) -> None:
    while data := await peer.read():
        came += data


def frames_in(octets: bytes) -> Iterator[tuple[int, bytes]]:
    while len(octets) >= 9:
        length = int.from_bytes(octets[:3], "big")
        yield octets[3], octets[9 : 9 + length]
        octets = octets[9 + length :]


# -- the page


async def test_the_page_on_http2_shows_a_server_that_speaks_it(folder: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "run" / "http2.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {"__name__": "page"}
    exec(code, names)
    async with serve(names["routes"], ssl=server_tls()) as server, reach(server, client_tls("h2")) as client:
        assert (await client.get()).text() == "/ on https"
        ws = await client.connect("/chat")
        ws.send("over it")
        assert await ws.recv() == "over it"
