"""The opening handshake of a running server: who gets in, who gets which refusal, and what follows either."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import rawws
from rawws.protocol.http11 import HttpResponse
from tests.server.peers import (
    KEY,
    Logged,
    Peer,
    connected,
    eventually,
    handler_of,
    host_and_port,
    narrow,
    request,
    serve,
    set_at_end,
)
from tests.server.test_server_shutdown import descriptors

HI = b"\x81\x82\x00\x00\x00\x00hi"
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def echo(ws: rawws.WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


async def never(ws: rawws.WebSocket) -> None:
    raise AssertionError("the handler of a refused connection was called")


@asynccontextmanager
async def reached(server: rawws.Server) -> AsyncIterator[Peer]:
    """Give a peer that did not send anything yet."""
    peer = await Peer.reach(server.sockets[0].getsockname())
    try:
        yield peer
    finally:
        peer.close()


async def answer(server: rawws.Server, data: bytes) -> tuple[HttpResponse, str]:
    """Send a request and return the response with its body."""
    async with reached(server) as peer:
        await peer.write(data)
        return await peer.answer()


# -- refusals

REFUSALS = {
    "no Host": (request(without=["Host"]), 400, "0 Host headers"),
    "two Hosts": (request("Host: a", "Host: b"), 400, "2 Host headers"),
    "bad Host": (request("Host: a b"), 400, "the host is"),
    "no Connection": (request(without=["Connection"]), 400, "Connection is absent, needed is 'Upgrade'"),
    "Connection without Upgrade": (request("Connection: keep-alive"), 400, "needed is 'Upgrade'"),
    "no key": (request(without=["Sec-WebSocket-Key"]), 400, "Sec-WebSocket-Key"),
    "two keys": (request(f"Sec-WebSocket-Key: {KEY}", f"Sec-WebSocket-Key: {KEY}"), 400, "Sec-WebSocket-Key"),
    "short key": (request("Sec-WebSocket-Key: c2hvcnQ="), 400, "16 bytes in base64"),
    "a body": (request("Content-Length: 5") + b"hello", 400, "body"),
    "a chunked body": (request("Transfer-Encoding: chunked") + b"0\r\n\r\n", 400, "body"),
    "two framings": (request("Transfer-Encoding: chunked", "Content-Length: 5"), 400, "Transfer-Encoding"),
    "unknown coding": (request("Transfer-Encoding: gzip, chunked"), 501, "Transfer-Encoding"),
    "line feeds alone": (request().replace(b"\r\n", b"\n"), 400, "0x0a"),
    "folded header": (request("X: a\r\n b"), 400, ""),
    "space before the colon": (request("X : a"), 400, ""),
    "NUL in a value": (request("X: a\x00b"), 400, "0x00"),
    "no target": (request(line="GET HTTP/1.1"), 400, "request line"),
    "a fragment": (request(line="GET /#a HTTP/1.1"), 400, "fragment"),
    "a relative target": (request(line="GET chat HTTP/1.1"), 400, "must begin with '/'"),
    "malformed extensions": (request("Sec-WebSocket-Extensions: ;"), 400, ""),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "seems to speak TLS"),
    "POST": (request(line="POST / HTTP/1.1"), 405, "the method is 'POST', allowed is GET"),
    "CONNECT": (request(line="CONNECT localhost:80 HTTP/1.1"), 405, "no proxy"),
    "long target": (request(line=f"GET /{'x' * 8192} HTTP/1.1"), 414, "limit of 8192 bytes"),
    "Expect": (request("Expect: 100-continue"), 417, "Expect"),
    "plain HTTP": (HEALTH, 426, "Upgrade is absent, needed is 'websocket'"),
    "another protocol": (request("Upgrade: h2c"), 426, "needed is 'websocket'"),
    "HTTP/1.0": (request(line="GET / HTTP/1.0"), 426, "HTTP/1.0"),
    "no version": (request(without=["Sec-WebSocket-Version"]), 426, "Sec-WebSocket-Version is absent"),
    "version 8": (request("Sec-WebSocket-Version: 8"), 426, "understood is 13"),
    "long header": (request(f"X: {'x' * 8192}"), 431, "limit of 8192 bytes"),
    "many headers": (request(*[f"X{number}: x" for number in range(100)]), 431, "64"),
    "large head": (request(*[f"X{number}: {'x' * 4000}" for number in range(5)]), 431, "limit of 16384 bytes"),
    "HTTP/2.0": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "HTTP/2.0"),
    "HTTP/3.0": (request(line="GET / HTTP/3.0"), 505, "this server speaks HTTP/1.1"),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_request_is_refused_with_its_status_and_a_reason(name: str) -> None:
    data, status, reason = REFUSALS[name]
    async with serve(never) as server:
        response, body = await answer(server, data)
        await eventually(lambda: not server.settings.connections)
    assert response.status == status
    assert reason in body
    assert body.endswith("\n")
    assert body.count("\n") == 1
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert response.headers["Content-Length"] == f"{len(body.encode())}"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "close" in response.headers["Connection"]
    assert response.headers["Date"].endswith("GMT")
    assert ("Allow" in response.headers) is (status == 405)
    assert response.headers.get("Sec-WebSocket-Version") == ("13" if status == 426 else None)
    assert response.headers.get("Upgrade") == ("websocket" if status == 426 else None)


@pytest.mark.parametrize("name", ["POST", "plain HTTP", "a body", "line feeds alone", "HTTP/2.0", "version 8"])
async def test_nothing_behind_a_refused_request_is_processed(name: str) -> None:
    """Or the second half of a smuggled request would be taken for a request of its own."""
    seen: list[str] = []

    def process_request(ws: rawws.WebSocket, request: rawws.Request) -> None:
        seen.append(request.path)

    async with serve(never, process_request=process_request) as server:
        async with reached(server) as peer:
            await peer.write(REFUSALS[name][0] + request(line="GET /smuggled HTTP/1.1") + HI)
            await peer.write(request(line="GET /later HTTP/1.1") + HI)
            data = await peer.read_to_end()
    assert data.count(b"HTTP/1.1 ") == 1
    assert b"101" not in data.partition(b"\r\n")[0]
    assert "/smuggled" not in seen
    assert "/later" not in seen


async def test_a_refusal_reaches_a_peer_that_goes_on_sending() -> None:
    """Closing with unread bytes would reset the connection, and the reset may overtake the response."""
    async with serve(never) as server, reached(server) as peer:
        await peer.write(REFUSALS["POST"][0])
        for _ in range(20):
            await peer.write(bytes(10_000))
            await asyncio.sleep(0.001)
        response, body = await peer.answer()
        assert response.status == 405
        assert "allowed is GET" in body


async def test_a_refused_peer_that_stays_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rawws.server.http1.LINGER", 0.1)
    async with serve(never, open_timeout=0.5) as server, reached(server) as peer:
        await peer.write(REFUSALS["POST"][0])
        await eventually(lambda: not server.settings.connections)
        assert peer.sock.fileno() >= 0


async def test_a_peer_that_does_not_read_its_response_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rawws.server.http1.PATIENCE", 0.1)
    monkeypatch.setattr("rawws.server.connection.PATIENCE", 0.1)

    def process_request(ws: rawws.WebSocket, request: rawws.Request) -> Any:
        return rawws.Response(200, bytes(1_000_000))

    async with rawws.serve(never, sock=narrow(), open_timeout=0.5, process_request=process_request) as server:
        peer = await Peer.reach(server.sockets[0].getsockname(), 2048)
        await peer.write(HEALTH)
        await eventually(lambda: server.settings.connections)
        await eventually(lambda: not server.settings.connections)
        assert len(await peer.read_to_end()) < 1_000_000
        peer.close()


# -- time


async def test_a_peer_that_says_nothing_gets_408() -> None:
    async with serve(never, open_timeout=0.1) as server, reached(server) as peer:
        response, body = await peer.answer()
        assert (response.status, body) == (408, "the request did not arrive in time\n")


async def test_a_request_that_dribbles_gets_408() -> None:
    """Its octets do not extend the time."""
    async with serve(never, open_timeout=0.2) as server, reached(server) as peer:

        async def dribble() -> None:
            for octet in request():
                await peer.write(bytes([octet]))
                await asyncio.sleep(0.02)

        task = asyncio.create_task(dribble())
        response, _ = await peer.answer()
        assert response.status == 408
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_request_octet_by_octet_is_a_request() -> None:
    async with serve(echo) as server, reached(server) as peer:
        for octet in request():
            await peer.write(bytes([octet]))
            await asyncio.sleep(0)
        response = await peer.response()
        assert response.status == 101
        for octet in HI:
            await peer.write(bytes([octet]))
        assert await peer.message() == "hi"


async def test_without_an_open_timeout_a_peer_may_take_its_time() -> None:
    async with serve(echo, open_timeout=None) as server, reached(server) as peer:
        await asyncio.sleep(0.1)
        await peer.shake_hands(then=HI)
        assert await peer.message() == "hi"


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("data", [b"", b"GET / HT", request()[:-2]])
async def test_a_peer_that_leaves_before_its_request_is_complete_leaves_nothing_behind(end: str, data: bytes) -> None:
    async with serve(never) as server:
        before = descriptors(), len(asyncio.all_tasks())
        peer = await Peer.reach(server.sockets[0].getsockname())
        await peer.write(data)
        getattr(peer, end)()
        await eventually(lambda: server.counters.accepted and not server.settings.connections)
        await eventually(lambda: (descriptors(), len(asyncio.all_tasks())) == before)


# -- frames behind the request


async def decide_later(ws: rawws.WebSocket, request: rawws.Request) -> None:
    await asyncio.sleep(0.02)


@pytest.mark.parametrize("process_request", [None, decide_later])
@pytest.mark.parametrize("count", [1, 3, 30_000])
async def test_frames_in_the_segment_of_the_request_are_delivered_once(process_request: Any, count: int) -> None:
    """uvicorn and uWebSockets lose them."""
    received: list[str | bytes] = []

    async def handler(ws: rawws.WebSocket) -> None:
        async for message in ws:
            received.append(message)

    async with serve(handler, process_request=process_request) as server, reached(server) as peer:
        task = asyncio.create_task(peer.write(request() + HI * count))
        response = await peer.response()
        assert response.status == 101
        await task
        await peer.start_close()
        assert await peer.finish() == (1000, "")
    assert received == ["hi"] * count


@pytest.mark.parametrize("process_request", [None, decide_later])
async def test_a_frame_cut_by_the_end_of_the_requests_segment_is_delivered_once(process_request: Any) -> None:
    async with serve(echo, process_request=process_request) as server, reached(server) as peer:
        await peer.shake_hands(then=HI[:5])
        await peer.write(HI[5:] + HI)
        assert [await peer.message(), await peer.message()] == ["hi", "hi"]


@pytest.mark.parametrize("process_request", [None, decide_later])
async def test_a_violation_in_the_segment_of_the_request_is_answered(process_request: Any) -> None:
    async with serve(echo, process_request=process_request) as server, reached(server) as peer:
        await peer.shake_hands(then=b"\x81\x00")
        close = await peer.closed()
        assert close is not None
        assert close[0] == 1002


async def test_frames_that_come_while_process_request_thinks_are_delivered_once() -> None:
    thinks, decided = asyncio.Event(), asyncio.Event()

    async def think(ws: rawws.WebSocket, request: rawws.Request) -> None:
        thinks.set()
        await decided.wait()

    async with serve(echo, process_request=think) as server, reached(server) as peer, set_at_end(decided):
        await peer.write(request())
        await thinks.wait()
        await peer.write(HI)
        decided.set()
        response = await peer.response()
        assert response.status == 101
        peer.connection.receive(peer.rest)
        assert await peer.message() == "hi"


async def test_the_callback_style_gets_frames_in_the_segment_of_the_request_after_on_open() -> None:
    calls: list[str] = []

    class Notes(rawws.Handler):
        def on_open(self, ws: rawws.WebSocket) -> None:
            calls.append("open")

        def on_message(self, ws: rawws.WebSocket, message: str | bytes) -> None:
            calls.append(str(message))
            ws.send(message)

    async with serve(Notes()) as server, reached(server) as peer:
        await peer.shake_hands(then=HI)
        assert await peer.message() == "hi"
    assert calls == ["open", "hi"]


# -- what the handler knows


async def test_a_handler_sees_the_request() -> None:
    async def handler(ws: rawws.WebSocket) -> None:
        assert ws.request is not None
        assert ws.request is ws.request
        assert ws.request.method == "GET"
        assert ws.request.path == "/chat?room=1&x=%20"
        assert ws.request.headers["host"] == "localhost"
        assert ws.request.headers["Cookie"] == "a=b"
        assert ws.request.headers.get_all("X-Twice") == ["1", "2"]
        assert ws.ready_state is rawws.State.OPEN
        await ws.send(f"{host_and_port(ws.remote_address)[1]} {host_and_port(ws.local_address)[1]}")

    async with serve(handler) as server, reached(server) as peer:
        await peer.shake_hands("Cookie: a=b", "X-Twice: 1", "X-Twice: 2", line="GET /chat?room=1&x=%20 HTTP/1.1")
        ports = f"{peer.sock.getsockname()[1]} {server.sockets[0].getsockname()[1]}"
        assert await peer.message() == ports
        assert await peer.finish() == (1000, "")


async def test_a_target_in_absolute_form_is_reduced_to_its_path() -> None:
    async def handler(ws: rawws.WebSocket) -> None:
        assert ws.request is not None
        await ws.send(f"{ws.request.headers['Host']} {ws.request.path}")

    async with serve(handler, hosts="example.com") as server, reached(server) as peer:
        await peer.shake_hands(line="GET http://example.com:81/chat?x HTTP/1.1")
        assert await peer.message() == "example.com:81 /chat?x"


# -- origins

ONLY = ["https://example.com", re.compile(r"https://[a-z]+\.example\.org"), None]
ORIGINS: list[tuple[Any, str | None, bool]] = [
    (None, None, True),
    (None, "http://localhost", True),
    (None, "http://LOCALHOST:80", True),
    (None, "https://localhost", False),
    (None, "http://localhost:8080", False),
    (None, "http://localhost.example.com", False),
    (None, "http://evil.example", False),
    (None, "null", False),
    (None, "", False),
    (ONLY, None, True),
    (ONLY, "https://example.com", True),
    (ONLY, "HTTPS://Example.COM", True),
    (ONLY, "https://chat.example.org", True),
    (ONLY, "https://chat.example.org.evil", False),
    (ONLY, "http://chat.example.org", False),
    (ONLY, "http://localhost", False),
    (["https://example.com"], None, False),
    ([None], "https://example.com", False),
    (["null"], "null", True),
    ("*", None, True),
    ("*", "http://evil.example", True),
    (["*"], "http://evil.example", True),
    ("https://example.com", "https://example.com", True),
    ("https://example.com", "http://localhost", False),
]


@pytest.mark.parametrize(("origins", "origin", "allowed"), ORIGINS)
async def test_origins_decide_which_pages_may_connect(origins: Any, origin: str | None, allowed: bool) -> None:
    fields = [] if origin is None else [f"Origin: {origin}"]
    async with serve(echo, origins=origins) as server, reached(server) as peer:
        await peer.write(request(*fields))
        response = await peer.response()
        assert response.status == (101 if allowed else 403)
        if not allowed:
            body = (await peer.read_to_end()).decode()
            came = "absent" if origin is None else f"'{origin}'"
            if origins is None:
                named = "is 'http://localhost', by the scheme and the Host of the request"
            else:
                listed = [origins] if isinstance(origins, str) else origins
                named = "are " + ", ".join(
                    "none" if one is None else repr(getattr(one, "pattern", one)) for one in listed
                )
            assert body == f"Origin is {came}, allowed {named}\n"


async def test_two_origins_are_refused() -> None:
    async with serve(never, origins="*") as server:
        response, _ = await answer(server, request("Origin: http://localhost", "Origin: http://evil.example"))
        assert response.status == 400


# -- subprotocols and extensions


@pytest.mark.parametrize(
    ("known", "offered", "chosen"),
    [(None, "a", None), (["a"], "a", "a"), (["a", "b"], "b, a", "a"), (["b", "c"], "a, b", "b")],
)
async def test_the_server_chooses_the_subprotocol_it_prefers(known: Any, offered: str, chosen: str | None) -> None:
    async def handler(ws: rawws.WebSocket) -> None:
        await ws.send(f"{ws.subprotocol}")

    async with serve(handler, subprotocols=known) as server, reached(server) as peer:
        response = await peer.shake_hands(f"Sec-WebSocket-Protocol: {offered}")
        assert response.headers.get("Sec-WebSocket-Protocol") == chosen
        assert await peer.message() == f"{chosen}"


@pytest.mark.parametrize("fields", [[], ["Sec-WebSocket-Protocol: other"]])
async def test_a_client_without_a_known_subprotocol_is_refused(fields: list[str]) -> None:
    async with serve(never, subprotocols=["a", "b"]) as server:
        response, body = await answer(server, request(*fields))
        assert response.status == 400
        assert "known are a, b" in body


async def test_select_subprotocol_decides() -> None:
    seen: list[tuple[str, list[str]]] = []

    def select(ws: rawws.WebSocket, offered: list[str]) -> str | None:
        seen.append((host_and_port(ws.remote_address)[0], offered))
        return offered[-1] if offered else None

    async with serve(echo, subprotocols=["x"], select_subprotocol=select) as server:
        async with reached(server) as peer:
            response = await peer.shake_hands("Sec-WebSocket-Protocol: a, b")
            assert response.headers["Sec-WebSocket-Protocol"] == "b"
        async with reached(server) as peer:
            response = await peer.shake_hands()
            assert "Sec-WebSocket-Protocol" not in response.headers
    assert seen == [("127.0.0.1", ["a", "b"]), ("127.0.0.1", [])]


async def test_select_subprotocol_may_look_at_the_request() -> None:
    def select(ws: rawws.WebSocket, offered: list[str]) -> str | None:
        assert ws.request is not None
        return offered[-1] if ws.request.path == "/last?x" and ws.request.headers["Host"] else None

    async with serve(echo, select_subprotocol=select) as server:
        peer = await Peer.reach(server.sockets[0].getsockname())
        response = await peer.shake_hands("Sec-WebSocket-Protocol: a, b", line="GET /last?x HTTP/1.1")
        assert response.headers["Sec-WebSocket-Protocol"] == "b"
        peer.close()


async def test_select_subprotocol_that_chooses_what_was_not_offered_is_a_500(logged: Logged) -> None:
    async with serve(never, select_subprotocol=lambda ws, offered: "other") as server:
        response, body = await answer(server, request("Sec-WebSocket-Protocol: a"))
        assert (response.status, body) == (500, "the server failed\n")
    logged.take("opening handshake failed", rawws.LocalProtocolError)


OFFER = "permessage-deflate; client_max_window_bits"
NO_TAKEOVER = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"


@pytest.mark.parametrize(
    ("compression", "offer", "answer"),
    [
        ("deflate", OFFER, NO_TAKEOVER),
        ("deflate", "x-webkit-deflate-frame", None),
        ("deflate", f"unknown, {OFFER}", NO_TAKEOVER),
        ("deflate", "permessage-deflate; unknown", None),
        (None, OFFER, None),
        (
            rawws.Compression(server_no_context_takeover=False, client_no_context_takeover=False),
            OFFER,
            "permessage-deflate",
        ),
        (rawws.Compression(server_max_window_bits=10), OFFER, f"{NO_TAKEOVER}; server_max_window_bits=10"),
    ],
)
async def test_compression_is_negotiated(compression: Any, offer: str, answer: str | None) -> None:
    async with serve(echo, compression=compression) as server, reached(server) as peer:
        await peer.write(request(f"Sec-WebSocket-Extensions: {offer}"))
        response = await peer.response()
        assert response.status == 101
        assert response.headers.get("Sec-WebSocket-Extensions") == answer


# -- process_request


def health(ws: rawws.WebSocket, request: rawws.Request) -> Any:
    if request.path == "/health":
        return ws.respond(200, "OK\n")
    return None


async def health_later(ws: rawws.WebSocket, request: rawws.Request) -> Any:
    await asyncio.sleep(0.01)
    return health(ws, request)


@pytest.mark.parametrize("process_request", [health, health_later])
async def test_process_request_answers_a_health_check_and_lets_others_in(process_request: Any) -> None:
    async with serve(echo, process_request=process_request) as server:
        for data in (HEALTH, b"GET /health HTTP/1.0\r\n\r\n", request(line="GET /health HTTP/1.1")):
            response, body = await answer(server, data)
            assert (response.status, body) == (200, "OK\n")
            assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
            assert response.headers["Content-Length"] == "3"
            assert response.headers["Connection"] == "close"
        async with connected(server) as peer:
            await peer.send("hi")
            assert await peer.message() == "hi"


@pytest.mark.parametrize("process_request", [health, health_later])
async def test_head_gets_the_headers_without_the_body(process_request: Any) -> None:
    async with serve(never, process_request=process_request) as server:
        response, body = await answer(server, HEALTH.replace(b"GET", b"HEAD"))
        assert (response.status, body) == (200, "")
        assert response.headers["Content-Length"] == "3"


@pytest.mark.parametrize("process_request", [health, health_later])
async def test_a_client_that_ends_its_side_after_the_request_gets_the_response(process_request: Any) -> None:
    async with serve(never, process_request=process_request) as server, reached(server) as peer:
        await peer.write(HEALTH)
        peer.sock.shutdown(1)
        response, body = await peer.answer()
        assert (response.status, body) == (200, "OK\n")


async def test_process_request_may_answer_404_with_headers_and_bytes() -> None:
    def process_request(ws: rawws.WebSocket, request: rawws.Request) -> Any:
        return rawws.Response(404, b"<p>nothing</p>", {"X-Reason": "none"}, content_type="text/html")

    async with serve(never, process_request=process_request) as server:
        response, body = await answer(server, request(line="GET /nowhere HTTP/1.1"))
    assert (response.status, response.reason_phrase, body) == (404, "Not Found", "<p>nothing</p>")
    assert response.headers["X-Reason"] == "none"
    assert response.headers["Content-Type"] == "text/html"


async def test_process_request_sees_requests_with_a_body_and_answers_them() -> None:
    def process_request(ws: rawws.WebSocket, request: rawws.Request) -> Any:
        return ws.respond(200, request.method)

    async with serve(never, process_request=process_request) as server:
        data = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello"
        assert (await answer(server, data))[1] == "POST"


async def test_what_process_request_notes_in_state_is_there_in_the_handler() -> None:
    async def process_request(ws: rawws.WebSocket, request: rawws.Request) -> None:
        assert ws.ready_state is rawws.State.CONNECTING
        assert ws.close_code is None
        assert ws.buffered == 0
        assert host_and_port(ws.remote_address)[0] == "127.0.0.1"
        assert "CONNECTING" in repr(ws)
        ws.state.user = request.headers["Authorization"]

    async def handler(ws: rawws.WebSocket) -> None:
        await ws.send(ws.state.user)

    async with serve(handler, process_request=process_request) as server, reached(server) as peer:
        await peer.shake_hands("Authorization: Bearer x")
        assert await peer.message() == "Bearer x"


@pytest.mark.parametrize("late", [False, True])
async def test_process_request_that_raises_is_a_500_and_logged(late: bool, logged: Logged) -> None:
    def process_request(ws: rawws.WebSocket, request: rawws.Request) -> None:
        raise ValueError("broken")

    async def process_request_later(ws: rawws.WebSocket, request: rawws.Request) -> None:
        process_request(ws, request)

    async with serve(never, process_request=process_request_later if late else process_request) as server:
        response, body = await answer(server, request())
        # What went wrong is nobody's business out there.
        assert (response.status, body) == (500, "the server failed\n")
    logged.take("opening handshake failed", ValueError)


@pytest.mark.parametrize("late", [False, True])
async def test_process_request_may_raise_a_handshake_error(late: bool) -> None:
    def process_request(ws: rawws.WebSocket, request: rawws.Request) -> None:
        raise rawws.HandshakeError(401, "who are you", (("WWW-Authenticate", "Basic"),))

    async def process_request_later(ws: rawws.WebSocket, request: rawws.Request) -> None:
        process_request(ws, request)

    async with serve(never, process_request=process_request_later if late else process_request) as server:
        response, body = await answer(server, request())
        assert (response.status, body) == (401, "who are you\n")
        assert response.headers["WWW-Authenticate"] == "Basic"


@pytest.mark.parametrize("result", ["OK", 200, True, (200, "OK"), b"HTTP/1.1 200 OK\r\n\r\n"])
@pytest.mark.parametrize("late", [False, True])
async def test_process_request_that_returns_no_response_is_a_500_and_logged(
    result: Any, late: bool, logged: Logged
) -> None:
    def process_request(ws: rawws.WebSocket, request: rawws.Request) -> Any:
        return result

    async def process_request_later(ws: rawws.WebSocket, request: rawws.Request) -> Any:
        return result

    async with serve(never, process_request=process_request_later if late else process_request) as server:
        response, body = await answer(server, request())
        assert (response.status, body) == (500, "the server failed\n")
    assert len(logged.left()) == 1
    logged.take_all("opening handshake failed", 1)


async def test_a_response_of_process_request_that_would_inject_a_header_is_a_500_and_logged(logged: Logged) -> None:
    def process_request(ws: rawws.WebSocket, request: rawws.Request) -> Any:
        return rawws.Response(302, "", {"Location": "/\r\nSet-Cookie: a=b"})

    async with serve(never, process_request=process_request) as server:
        response, body = await answer(server, request())
        assert (response.status, body) == (500, "the server failed\n")
        assert "Set-Cookie" not in response.headers
    logged.take("opening handshake failed", rawws.LocalProtocolError)


async def test_process_request_that_does_not_decide_is_cancelled_and_answered_with_503() -> None:
    cancelled: list[bool] = []

    async def process_request(ws: rawws.WebSocket, request: rawws.Request) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async with serve(never, open_timeout=0.1, process_request=process_request) as server:
        response, body = await answer(server, request())
        assert (response.status, body) == (503, "the server did not decide in time\n")
    assert cancelled == [True]


async def test_process_request_ends_when_its_peer_is_aborted() -> None:
    started: list[rawws.WebSocket] = []

    async def process_request(ws: rawws.WebSocket, request: rawws.Request) -> None:
        started.append(ws)
        await asyncio.sleep(60)

    async with serve(never, process_request=process_request) as server, reached(server) as peer:
        await peer.write(request())
        await eventually(lambda: started)
        started[0].abort()
        await eventually(lambda: not server.settings.connections)


async def test_methods_that_need_a_connection_are_refused_before_there_is_one() -> None:
    errors: list[str] = []

    async def process_request(ws: rawws.WebSocket, request: rawws.Request) -> None:
        for attempt in (ws.recv, ws.ping, ws.pong, ws.close, ws.recv_streaming):
            with pytest.raises(rawws.LocalProtocolError) as error:
                attempt()
            errors.append(str(error.value))
        for message in ("text", b"binary", bytearray(b"binary"), ["parts"], 1):
            with pytest.raises(rawws.LocalProtocolError) as error:
                ws.send(message)  # type: ignore[arg-type]
            errors.append(str(error.value))
        with pytest.raises(rawws.LocalProtocolError) as error:
            async for _ in ws:
                pass
        errors.append(str(error.value))

    async with serve(echo, process_request=process_request) as server, connected(server) as peer:
        await peer.send("hi")
        assert await peer.message() == "hi"
    assert errors == ["the opening handshake is not done yet"] * 11


# -- process_response


async def test_process_response_adds_headers() -> None:
    def process_response(ws: rawws.WebSocket, request: rawws.Request, response: HttpResponse) -> None:
        response.headers["X-Path"] = request.path
        assert ws.subprotocol == "a"

    async with serve(echo, subprotocols=["a"], process_response=process_response) as server, reached(server) as peer:
        response = await peer.shake_hands("Sec-WebSocket-Protocol: a", line="GET /chat HTTP/1.1", then=HI)
        assert response.headers["X-Path"] == "/chat"
        assert await peer.message() == "hi"


async def test_process_response_may_return_another_response() -> None:
    def process_response(ws: rawws.WebSocket, request: rawws.Request, response: HttpResponse) -> HttpResponse:
        return response._replace(headers=rawws.Headers([*response.headers.raw_items(), ("Set-Cookie", "a=b")]))

    async with serve(echo, process_response=process_response) as server, reached(server) as peer:
        response = await peer.shake_hands()
        assert response.headers["Set-Cookie"] == "a=b"


@pytest.mark.parametrize(("name", "value"), [("X-Name", "a\r\nSet-Cookie: a=b"), ("X\nName", "a"), ("X", "a\x00b")])
async def test_process_response_that_would_inject_a_header_is_a_500_and_logged(
    name: str, value: str, logged: Logged
) -> None:
    def process_response(ws: rawws.WebSocket, request: rawws.Request, response: HttpResponse) -> None:
        response.headers[name] = value

    async with serve(never, process_response=process_response) as server:
        response, body = await answer(server, request())
        assert (response.status, body) == (500, "the server failed\n")
    logged.take("opening handshake failed", rawws.LocalProtocolError)


@pytest.mark.parametrize("way", ["raises", "another status"])
async def test_process_response_that_fails_is_a_500_and_logged(way: str, logged: Logged) -> None:
    def process_response(ws: rawws.WebSocket, request: rawws.Request, response: HttpResponse) -> HttpResponse:
        if way == "raises":
            raise rawws.LocalProtocolError("broken")
        return ws.respond(200, "OK")

    async with serve(never, process_response=process_response) as server:
        response, body = await answer(server, request())
        assert (response.status, body) == (500, "the server failed\n")
    logged.take("opening handshake failed", rawws.LocalProtocolError)


# -- the Server header


async def test_the_server_header_is_sent_where_it_is_asked_for() -> None:
    async with serve(echo, server_header="chat/1.0") as server, reached(server) as peer:
        assert (await peer.shake_hands()).headers["Server"] == "chat/1.0"
    async with serve(echo) as server, reached(server) as peer:
        assert "Server" not in (await peer.shake_hands()).headers


async def test_a_server_header_that_would_inject_another_is_refused() -> None:
    with pytest.raises(rawws.LocalProtocolError, match="Server"):
        await serve(echo, server_header="chat\r\nSet-Cookie: a=b")


# -- the end of the server


async def test_a_request_that_completes_while_the_server_closes_gets_503() -> None:
    async with serve(never, process_request=decide_later) as server, reached(server) as peer:
        await peer.write(request())
        await eventually(lambda: any(ws.handler and handler_of(ws).task for ws in server.settings.connections))
        server.close()
        response, body = await peer.answer()
        assert (response.status, body) == (503, "the server is shutting down\n")


# -- what a handler reads of the request


async def test_a_websocket_has_headers_cookies_and_query_as_a_request_has() -> None:
    found: list[Any] = []

    def facts(asked: rawws.WebSocket | rawws.HttpRequest) -> Any:
        return asked.headers["X-Who"], asked.cookies, dict(asked.query), asked.query.get_all("a")

    async def handler(ws: rawws.WebSocket) -> None:
        found.append(facts(ws))

    routes = rawws.Routes()
    routes.websocket("/")(handler)
    routes.get("/plain")(lambda asked: found.append(facts(asked)))
    fields = ("X-Who: ada", 'Cookie: bad; json={"a": 1}; session=3a8f', 'Cookie: theme="dark"')
    async with serve(routes) as server:
        peer = await Peer.reach(server.sockets[0].getsockname())
        await peer.shake_hands(*fields, line="GET /?a=1&a=%20&b= HTTP/1.1")
        peer.close()
        lines = "".join(f"{field}\r\n" for field in fields)
        plain = f"GET /plain?a=1&a=%20&b= HTTP/1.1\r\nHost: localhost\r\n{lines}Connection: close\r\n\r\n"
        await answer(server, plain.encode())
    cookies = {"json": '{"a": 1}', "session": "3a8f", "theme": "dark"}
    assert found == 2 * [("ada", cookies, {"a": "1", "b": ""}, ["1", " "])]


async def test_before_there_is_a_request_it_has_no_headers_to_read() -> None:
    seen: list[rawws.WebSocket] = []

    async def handler(ws: rawws.WebSocket) -> None:
        seen.append(ws)

    async with serve(handler) as server:
        async with rawws.connect(f"ws://{':'.join(map(str, server.sockets[0].getsockname()[:2]))}/?a=b") as ws:
            # A client reads what it sent.
            assert ws.query["a"] == "b"
            assert ws.headers["Upgrade"] == "websocket"
            assert ws.cookies == {}
    nobody: Any = None
    socket = rawws.WebSocket(seen[0].settings, nobody)
    for name in ("headers", "cookies", "query"):
        with pytest.raises(rawws.LocalProtocolError, match="there is no request"):
            getattr(socket, name)
