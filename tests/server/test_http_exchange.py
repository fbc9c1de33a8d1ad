"""Requests on one connection: in order, as many as the client likes, and none after a refusal."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trustme
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rawws
from tests.server.answers import Answer, ask, asked, get, judge, on, served
from tests.server.peers import Logged, Peer, eventually, handler_of, narrow, request, serve, set_at_end


def table() -> rawws.Routes:
    routes = rawws.Routes()

    @routes.get("/")
    def hello(_: rawws.HttpRequest) -> str:
        return "hello"

    @routes.get("/later/{word}")
    async def later(asked: rawws.HttpRequest) -> str:
        await asyncio.sleep(0.01)
        return asked.path_params["word"]

    @routes.route("/echo", ["POST", "PUT"])
    def echo(asked: rawws.HttpRequest) -> bytes:
        return asked.body

    @routes.get("/events")
    def events(_: rawws.HttpRequest) -> rawws.EventStream:
        stream = rawws.EventStream()
        stream.send("one")
        stream.send("two")
        stream.close()
        return stream

    @routes.get("/poll")
    def poll(_: rawws.HttpRequest) -> rawws.LongPoll:
        held = rawws.LongPoll()
        asyncio.get_running_loop().call_later(0.01, held.respond, "news")
        return held

    @routes.websocket("/chat")
    async def chat(ws: rawws.WebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    return routes


# -- keep-alive


async def test_a_connection_serves_one_request_after_another() -> None:
    async with served(table()) as (_, peer):
        for _ in range(3):
            await peer.write(get())
            [answer] = await asked(peer)
            assert (answer.status, answer.body) == (200, b"hello")
            assert "connection" not in answer.headers


async def test_a_client_that_says_close_gets_its_response_and_the_end() -> None:
    async with served(table()) as (server, peer):
        await peer.write(get("/", "Connection: close") + get("/later/no"))
        data = await peer.read_to_end()
        [answer] = judge(data, ["GET"], closed=True)
        assert answer.headers["connection"] == "close"
        peer.close()
        await eventually(lambda: not server.settings.connections)


@pytest.mark.parametrize(
    ("field", "kept"), [("X: y", False), ("Connection: keep-alive", True), ("Connection: Keep-Alive, X", True)]
)
async def test_an_http_1_0_client_gets_the_end_unless_it_asks_for_more(field: str, kept: bool) -> None:
    async with served(table()) as (_, peer):
        await peer.write(get("/", field, version="1.0"))
        if kept:
            [answer] = await asked(peer)
            assert answer.headers["connection"] == "keep-alive"
            await peer.write(get("/", version="1.0"))
        [answer] = judge(await peer.read_to_end(), ["GET"], closed=True)
        assert (answer.body, answer.headers["connection"]) == (b"hello", "close")


async def test_a_response_may_end_the_connection() -> None:
    def bye(_: rawws.HttpRequest) -> rawws.Response:
        return rawws.Response(200, "bye", {"Connection": "close"})

    async with served(on("/", bye)) as (_, peer):
        await peer.write(get() + get())
        [answer] = judge(await peer.read_to_end(), ["GET"], closed=True)
        assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("said", "asked_for", "fields", "ends"),
    [
        ("close", "", ["close"], True),
        ("Upgrade, Close", "", ["Upgrade, Close"], True),
        ("X-Hop", "", ["X-Hop"], False),
        ("not closed", "", ["not closed"], False),
        ("X-Hop\nclose\nX-Other", "", ["X-Hop", "close", "X-Other"], True),
        ("X-Hop", "Connection: close", ["close", "X-Hop"], True),
        ("keep-alive", "Connection: close", ["close", "keep-alive"], True),
    ],
)
async def test_who_ends_the_connection_says_close(said: str, asked_for: str, fields: list[str], ends: bool) -> None:
    lines = [("Connection", line) for line in said.split("\n")]
    # One that stayed would stay for good.
    routes = on("/", lambda _: rawws.Response(200, "bye", lines))
    async with served(routes, keep_alive_timeout=None) as (_, peer):
        await peer.write(get("/", asked_for) if asked_for else get())
        if not ends:
            await peer.write(get("/", "Connection: close"))
        async with asyncio.timeout(60):
            data = await peer.read_to_end()
    heads = [head.split(b"\r\n\r\n")[0] for head in data.split(b"HTTP/1.1 ")[1:]]
    assert len(heads) == (1 if ends else 2)
    found = [line.partition(b": ")[2].decode() for line in heads[0].split(b"\r\n") if line.startswith(b"Connection: ")]
    assert found == fields


async def test_one_response_may_be_sent_again_and_again() -> None:
    constant = rawws.Response(200, "x", {"X-Name": "a"})
    async with served(on("/", lambda _: constant)) as (_, peer):
        for field in ("A: b", "A: b", "Connection: close"):
            await peer.write(get("/", field))
            [answer] = await asked(peer)
            assert answer.headers["x-name"] == "a"
        assert list(constant.headers.raw_items()) == [
            ("X-Name", "a"),
            ("Content-Type", "text/plain; charset=utf-8"),
        ]


async def test_an_idle_connection_ends_without_a_word() -> None:
    async with served(table(), keep_alive_timeout=0.1, open_timeout=1) as (server, peer):
        await peer.write(get())
        data = await peer.read_to_end()
        [answer] = judge(data, ["GET"], closed=True)
        assert answer.status == 200
        await eventually(lambda: not server.settings.connections)


async def test_without_a_limit_an_idle_connection_stays() -> None:
    async with served(table(), keep_alive_timeout=None, open_timeout=0.1) as (_, peer):
        await peer.write(get())
        await asked(peer)
        await asyncio.sleep(0.3)
        await peer.write(get())
        await asked(peer)


# -- pipelining


async def test_pipelined_requests_are_answered_in_their_order() -> None:
    words = ["/later/a", "/", "/events", "/poll", "/later/b", "/echo", "/"]
    requests = b"".join(get(word, method="POST", body=b"xyz") if word == "/echo" else get(word) for word in words)
    async with serve(table()) as server:
        answers = await ask(server, requests, ["POST" if word == "/echo" else "GET" for word in words])
    assert [answer.body for answer in answers] == [
        b"a", b"hello", b"data: one\n\ndata: two\n\n", b"news", b"b", b"xyz", b"hello",
    ]  # fmt: skip


async def test_a_thousand_pipelined_requests_leave_turns_to_others() -> None:
    async with served(table()) as (server, peer):
        other = await Peer.reach(server.sockets[0].getsockname())
        await other.shake_hands(line="GET /chat HTTP/1.1")
        await peer.write(get() * 1000)
        task = asyncio.ensure_future(asked(peer, ["GET"] * 1000))
        await other.send("between")
        assert await other.message() == "between"
        assert not task.done()
        assert len(await task) == 1000
        other.close()


async def test_what_is_sent_behind_a_pending_request_is_held_up_to_a_limit() -> None:
    released = asyncio.Event()

    async def wait(_: rawws.HttpRequest) -> str:
        await released.wait()
        return "done"

    routes = table()
    routes.add(rawws.Route("/wait", wait))
    async with served(routes) as (server, peer), set_at_end(released):
        count = 200_000
        sending = asyncio.ensure_future(peer.write(get("/wait") + get() * count))
        await eventually(lambda: any(handler_of(ws).held for ws in server.settings.connections))
        await asyncio.sleep(0.1)
        assert not sending.done()
        [ws] = server.settings.connections
        assert len(handler_of(ws).held) < 600_000
        released.set()
        seen = 0
        while seen < 100_000:
            seen += len(await peer.read())
        sending.cancel()
        await asyncio.wait([sending])


@pytest.mark.parametrize("count_of_requests", [1, 300])
async def test_a_client_that_does_not_read_is_not_answered_further(
    count_of_requests: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rawws.server.http1.PATIENCE", 0.3)
    monkeypatch.setattr("rawws.server.connection.PATIENCE", 0.3)
    body = "x" * 150_000
    count = 0

    def big(_: rawws.HttpRequest) -> str:
        nonlocal count
        count += 1
        return body

    # Also where it may stay for as long as it likes behind what it has read.
    async with rawws.serve(on("/", big), sock=narrow(), open_timeout=1, keep_alive_timeout=None) as server:
        peer = await Peer.reach(server.sockets[0].getsockname(), 2048)
        await peer.write(get() * count_of_requests)
        await eventually(lambda: count)
        await eventually(lambda: not server.settings.connections)
        assert count <= 64
        peer.close()


async def test_a_client_that_has_read_something_at_each_look_is_waited_for_and_may_ask_again(
    monkeypatch: pytest.MonkeyPatch, steady: None
) -> None:
    monkeypatch.setattr("rawws.server.http1.PATIENCE", 0.1)
    monkeypatch.setattr("rawws.server.connection.PATIENCE", 0.1)
    async with rawws.serve(on("/", lambda _: "x" * 150_000), sock=narrow(), keep_alive_timeout=None) as server:
        peer = await Peer.reach(server.sockets[0].getsockname(), 2048)
        with contextlib.closing(peer):
            await peer.write(get())
            await eventually(lambda: server.settings.connections)
            [ws] = server.settings.connections
            # The first look: the response waits, and the client has taken something of it.
            await eventually(lambda: handler_of(ws).taken)
            assert ws.buffered
            await peer.write(get("/", "Connection: close"))
            answers = judge(await peer.read_to_end(), ["GET", "GET"], closed=True)
    assert [len(answer.body) for answer in answers] == [150_000, 150_000]


async def test_a_slow_client_gets_all_it_asked_for() -> None:
    async with rawws.serve(on("/", lambda _: "x" * 100_000), sock=narrow()) as server:
        peer = await Peer.reach(server.sockets[0].getsockname(), 4096)
        await peer.write(get() * 99 + get("/", "Connection: close"))
        data = await peer.read_to_end()
        peer.close()
    answers = judge(data, ["GET"] * 100, closed=True)
    assert {len(answer.body) for answer in answers} == {100_000}


PIPELINE = (
    get("/later/a%20b")
    + get("/", method="HEAD")
    + get("/echo", method="POST", body=b"\r\n\r\nGET / HTTP/1.1\r\n\r\n")
    + get("/echo", "Transfer-Encoding: chunked", method="PUT")
    + b"5;x=y\r\nGET /\r\n1\r\n.\r\n0\r\nA: b\r\n\r\n"
    + get("/events")
    + get("/poll", method="OPTIONS")
    + get("/echo")
)
METHODS = ["GET", "HEAD", "POST", "PUT", "GET", "OPTIONS", "GET"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(1, len(PIPELINE) - 1), max_size=12))
def test_any_split_of_the_same_bytes_gets_the_same_responses(cuts: list[int]) -> None:
    async def answers() -> list[Answer]:
        async with served(table()) as (_, peer):
            at = 0
            for cut in sorted({*cuts, len(PIPELINE)}):
                await peer.write(PIPELINE[at:cut])
                at = cut
                await asyncio.sleep(0)
            return judge(await peer.read_to_end(), METHODS, closed=True)

    found = asyncio.run(answers())
    assert [(answer.status, answer.body) for answer in found[:6]] == [
        (200, b"a b"),
        (200, b""),
        (200, b"\r\n\r\nGET / HTTP/1.1\r\n\r\n"),
        (200, b"GET /."),
        (200, b"data: one\n\ndata: two\n\n"),
        (204, b""),
    ]
    assert (found[6].status, found[6].headers["allow"]) == (405, "OPTIONS, POST, PUT")


# -- bodies


async def test_a_client_that_expects_100_gets_it_before_it_sends_the_body() -> None:
    async with served(table()) as (_, peer):
        await peer.write(get("/echo", "Expect: 100-continue", "Content-Length: 3", method="POST"))
        assert await peer.read() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await peer.write(b"abc")
        [answer] = await asked(peer, ["POST"])
        assert answer.body == b"abc"


async def test_a_body_that_is_there_already_gets_no_100() -> None:
    async with serve(table()) as server:
        [answer] = await ask(server, get("/echo", "Expect: 100-Continue", method="POST", body=b"abc"), ["POST"])
        assert answer == Answer(200, answer.headers, b"abc", ())


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (get("/echo", "Expect: 100-continue", "Content-Length: 3"), 405),
        (get("/none", "Expect: 100-continue", "Content-Length: 3", method="POST"), 404),
        (get("/echo", "Expect: 100-continue", "Content-Length: 101", method="POST"), 413),
        (get("/echo", "Expect: the best", "Content-Length: 3", method="POST"), 417),
    ],
)
async def test_a_body_that_is_not_wanted_is_refused_before_it_is_sent(data: bytes, status: int) -> None:
    async with serve(table(), max_size=100) as server:
        [answer] = await ask(server, data)
        assert (answer.status, answer.interim) == (status, ())


async def test_an_expectation_of_an_http_1_0_client_is_ignored() -> None:
    async with serve(table()) as server:
        data = get("/echo", "Expect: 100-continue", method="POST", body=b"abc", version="1.0")
        [answer] = await ask(server, data, ["POST"])
        assert (answer.status, answer.body, answer.interim) == (200, b"abc", ())


# -- endpoints


async def test_a_plain_endpoint_costs_no_task() -> None:
    counts: list[int] = []

    def count(_: rawws.HttpRequest) -> str:
        counts.append(len(asyncio.all_tasks()))
        return ""

    async with serve(on("/", count)) as server:
        before = len(asyncio.all_tasks())
        await ask(server, get())
        assert counts == [before]


@pytest.mark.parametrize("later", [False, True], ids=["plain", "coroutine"])
async def test_an_endpoint_that_raises_is_a_500_and_logged(later: bool, logged: Logged) -> None:
    def broken(_: rawws.HttpRequest) -> str:
        raise KeyError("secret")

    async def broken_later(_: rawws.HttpRequest) -> str:
        await asyncio.sleep(0)
        raise KeyError("secret")

    async with serve(on("/", broken_later if later else broken)) as server:
        [answer] = await ask(server, get() + get())
        assert (answer.status, answer.body) == (500, b"the server failed\n")
    logged.take("request failed", KeyError)


@pytest.mark.parametrize("later", [False, True], ids=["plain", "coroutine"])
@pytest.mark.parametrize("kind", [rawws.HttpError, rawws.HandshakeError])
async def test_an_endpoint_may_refuse(later: bool, kind: type[rawws.HttpError]) -> None:
    def refuse(_: rawws.HttpRequest) -> str:
        raise kind(409, "not now", (("Retry-After", "5"),))

    async def refuse_later(asked: rawws.HttpRequest) -> str:
        return refuse(asked)

    async with serve(on("/", refuse_later if later else refuse)) as server:
        [answer] = await ask(server, get())
        assert (answer.status, answer.body, answer.headers["retry-after"]) == (409, b"not now\n", "5")


REFUSALS: dict[str, tuple[rawws.HttpError, int]] = {
    "a text without UTF-8": (rawws.HttpError(409, "there is no \ud800"), 409),
    "a header that is none": (rawws.HttpError(409, "no", (("X-Name", "a\r\nSet-Cookie: a=b"),)), 500),
    "a header of another type": (rawws.HttpError(409, "no", 7), 500),  # type: ignore[arg-type]
    "a header without UTF-8": (rawws.HttpError(409, "no", (("X-Name", "\ud800"),)), 500),
    "a status that is none": (rawws.HttpError("gone", "no"), 500),  # type: ignore[arg-type]
    "a status out of range": (rawws.HttpError(42, "no"), 500),
}


@pytest.mark.parametrize("where", ["plain", "coroutine", "process_request", "process_request later"])
@pytest.mark.parametrize(("error", "status"), REFUSALS.values(), ids=REFUSALS)
async def test_whatever_is_wrong_with_a_refusal_there_is_an_answer_and_an_end(
    where: str, error: rawws.HttpError, status: int, logged: Logged
) -> None:
    def refuse(*_: Any) -> Any:
        raise error

    async def refuse_later(*_: Any) -> Any:
        await asyncio.sleep(0)
        raise error

    late = where.endswith("later") or where == "coroutine"
    before = where.startswith("process_request")
    routes = on("/", str if before else refuse_later if late else refuse)
    options = {"process_request": refuse_later if late else refuse} if before else {}
    async with served(routes, open_timeout=None, **options) as (_, peer):
        await peer.write(get())
        [answer] = judge(await peer.read_to_end(), ["GET"], closed=True)
        assert answer.status == status
        assert answer.body == (b"the server failed\n" if status == 500 else b"there is no \\ud800\n")
    logged.take_all("request failed", 1 if status == 500 else 0)


@pytest.mark.parametrize("later", [False, True], ids=["plain", "coroutine"])
async def test_a_process_request_that_awaits_what_is_cancelled_is_a_500_and_logged(later: bool, logged: Logged) -> None:
    def give_up(*_: Any) -> None:
        raise asyncio.CancelledError

    async def give_up_later(*_: Any) -> None:
        await asyncio.sleep(0)
        raise asyncio.CancelledError

    async with serve(table(), open_timeout=None, process_request=give_up_later if later else give_up) as server:
        [answer] = await ask(server, get())
        assert (answer.status, answer.body) == (500, b"the server failed\n")
    logged.take("request failed", RuntimeError if later else asyncio.CancelledError)


@pytest.mark.parametrize("value", [7, object(), rawws.Response, {1, 2}])
async def test_an_answer_that_is_none_is_a_500_and_logged(value: Any, logged: Logged) -> None:
    async with serve(on("/", lambda _: value)) as server:
        [answer] = await ask(server, get())
        assert answer.status == 500
    logged.take("request failed", TypeError)


async def test_a_header_that_would_inject_another_is_a_500_and_logged(logged: Logged) -> None:
    def inject(_: rawws.HttpRequest) -> rawws.Response:
        return rawws.Response(200, "", {"X-Name": "a\r\nSet-Cookie: a=b"})

    async with serve(on("/", inject)) as server:
        [answer] = await ask(server, get())
        assert (answer.status, "set-cookie" in answer.headers) == (500, False)
    logged.take("request failed", rawws.LocalProtocolError)


async def test_requests_behind_a_large_answer_wait_until_it_is_read() -> None:
    count = 0

    def answer(_: rawws.HttpRequest) -> bytes:
        nonlocal count
        count += 1
        return bytes(1 << 20)

    async with rawws.serve(on("/", answer), sock=narrow()) as server:
        peer = await Peer.reach(server.sockets[0].getsockname())
        await peer.write(get() * 3)
        await eventually(lambda: count)
        for _ in range(20):
            await asyncio.sleep(0)
        assert count == 1
        assert [len(each.body) for each in await asked(peer, ["GET"] * 3)] == [1 << 20] * 3
        peer.close()


async def cancelled() -> None:
    """Wait for what somebody else cancels."""
    waited = asyncio.get_running_loop().create_future()
    waited.cancel()
    await waited


@pytest.mark.parametrize("how", ["plain", "raised", "waited for"])
async def test_an_endpoint_that_lets_a_cancellation_out_is_a_500_and_logged(how: str, logged: Logged) -> None:
    def give_up(_: rawws.HttpRequest) -> str:
        raise asyncio.CancelledError

    async def give_up_later(_: rawws.HttpRequest) -> str:
        await asyncio.sleep(0)
        if how == "waited for":
            await cancelled()
        raise asyncio.CancelledError

    async with served(on("/give/up", give_up if how == "plain" else give_up_later)) as (_, peer):
        await peer.write(get("/give/up?a"))
        [answer] = judge(await peer.read_to_end(), ["GET"], closed=True)
        assert (answer.status, answer.body) == (500, b"the server failed\n")
    logged.take("request failed: GET /give/up?a", asyncio.CancelledError)


async def test_an_endpoint_that_the_server_cancels_ends_its_connection_and_is_no_fault() -> None:
    started = asyncio.Event()

    async def wait(_: rawws.HttpRequest) -> str:
        started.set()
        await asyncio.get_running_loop().create_future()
        return "never"

    async with served(on("/", wait)) as (server, peer):
        await peer.write(get())
        await started.wait()
        server.abort()
        assert await peer.read_to_end() == b""
        await eventually(lambda: not server.settings.connections and not server.handlers)


async def test_a_producer_that_lets_a_cancellation_out_ends_its_stream_and_is_logged(logged: Logged) -> None:
    async def numbers() -> AsyncIterator[str]:
        yield "1"
        await cancelled()

    async with served(on("/feed", lambda _: rawws.EventStream(numbers()))) as (server, peer):
        await peer.write(get("/feed"))
        data = await peer.read_to_end()
        assert data.endswith(b"data: 1\n\n\r\n")
        await eventually(lambda: not server.settings.connections)
    logged.take("event stream failed: GET /feed", asyncio.CancelledError)


async def test_an_endpoint_goes_on_when_its_client_leaves() -> None:
    started, released, finished = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def save(_: rawws.HttpRequest) -> str:
        started.set()
        await released.wait()
        finished.set()
        return "saved"

    async with served(on("/", save)) as (server, peer), set_at_end(released):
        await peer.write(get())
        await started.wait()
        peer.reset()
        await eventually(lambda: not server.settings.connections)
        assert not finished.is_set()
        released.set()
        await finished.wait()


async def test_an_endpoint_that_refuses_a_client_that_left_is_heard_by_nobody() -> None:
    started, gone, refused = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def refuse(_: rawws.HttpRequest) -> str:
        started.set()
        await gone.wait()
        refused.set()
        raise rawws.HttpError(409, "not now")

    async with served(on("/", refuse)) as (server, peer), set_at_end(gone):
        await peer.write(get() + get())
        await started.wait()
        peer.reset()
        await eventually(lambda: not server.settings.connections)
        gone.set()
        await refused.wait()


async def test_a_refusal_has_a_body_unless_its_own_request_is_head() -> None:
    async with serve(table()) as server:
        [answer] = await ask(server, get("/missing", method="HEAD"), ["HEAD"])
        assert (answer.status, answer.body) == (404, b"")
        _, answer = await ask(server, get(method="HEAD") + get("/missing"), ["HEAD", "GET"])
        assert (answer.status, len(answer.body)) == (404, int(answer.headers["content-length"]))
        _, answer = await ask(server, get(method="HEAD") + b"nonsense\r\n\r\n", ["HEAD", "GET"])
        assert (answer.status, len(answer.body)) == (400, int(answer.headers["content-length"]))


# What is wrong with a request, beginning behind its method; and the status. `{}` is a header field that is filled up.
REFUSED = {
    "404": (" /missing HTTP/1.1\r\nHost: x\r\n\r\n", 404),
    "405": (" /post HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    "403 of an origin": (" / HTTP/1.1\r\nHost: x\r\nOrigin: https://evil\r\n\r\n", 403),
    "403 of a hook": (" /hook/403 HTTP/1.1\r\nHost: x\r\n\r\n", 403),
    "500 of a hook": (" /hook/500 HTTP/1.1\r\nHost: x\r\n\r\n", 500),
    "429 of an endpoint": (" /raise/429 HTTP/1.1\r\nHost: x\r\n\r\n", 429),
    "426 of an endpoint": (" /raise/426 HTTP/1.1\r\nHost: x\r\n\r\n", 426),
    "503 of an endpoint": (" /raise/503 HTTP/1.1\r\nHost: x\r\n\r\n", 503),
    "500 of an endpoint": (" /raise/500 HTTP/1.1\r\nHost: x\r\n\r\n", 500),
    "no WebSocket": (" /socket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n", None),
    "413": (" / HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n", 413),
    "417": (" / HTTP/1.1\r\nHost: x\r\nExpect: wonders\r\n\r\n", 417),
    "501": (" / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
    "505": (" / HTTP/3.0\r\nHost: x\r\n\r\n", 505),
    "414": (" /" + "x" * 9000, 414),
    "431 of a line": (" / HTTP/1.1\r\nHost: x\r\nX: " + "x" * 9000, 431),
    "431 of lines": (" / HTTP/1.1\r\n" + "X: y\r\n" * 70, 431),
    "400 without a host": (" / HTTP/1.1\r\n\r\n", 400),
    "400 with two hosts": (" / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400),
    "400 in the first line": (" nowhere\r\n\r\n", 400),
    "400 in a line": (" / HTTP/1.1\r\nHost: x\r\nno field\r\n\r\n", 400),
    "400 of the path": (" /page/%ff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "400 of the framing": (" / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", 400),
}


def refusing() -> rawws.Routes:
    """Return a table whose endpoints refuse."""
    routes = table()
    routes.post("/post")(lambda _: "posted")
    routes.get("/page/{name}")(lambda asked: asked.path_params["name"])

    async def socket(ws: rawws.WebSocket) -> None:
        await ws.wait_closed()

    routes.websocket("/socket")(socket)

    @routes.get("/raise/{status}")
    def fail(asked: rawws.HttpRequest) -> None:
        raise rawws.HttpError(int(asked.path_params["status"]), "no")

    return routes


def hook(_ws: rawws.WebSocket, asked: rawws.Request) -> rawws.Response | None:
    status = asked.path.removeprefix("/hook/")
    if status == asked.path:
        return None
    if status == "500":
        raise rawws.HttpError(500, "no")
    return rawws.Response(int(status), "no")


@pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize(("wrong", "status"), REFUSED.values(), ids=REFUSED)
async def test_whatever_refuses_has_a_body_for_get_behind_head_and_never_one_for_head(
    wrong: str, status: int | None, bytewise: bool
) -> None:
    for method in ("GET", "HEAD"):
        async with served(refusing(), process_request=hook, hosts="*") as (_, peer):
            data = get(method="HEAD") + (method + wrong).encode()
            step = 1 if bytewise and len(data) < 500 else len(data)
            # What stands behind the fault may meet a connection that is closed already.
            with contextlib.suppress(ConnectionError):
                for start in range(0, len(data), step):
                    await peer.write(data[start : start + step])
            _, answer = judge(await peer.read_to_end(), ["HEAD", method], closed=True)
            assert status in {answer.status, None}
            assert answer.status >= 400
            length = int(answer.headers["content-length"])
            assert length > 0
            assert len(answer.body) == (length if method == "GET" else 0)


async def test_head_gets_the_head_of_get_and_the_connection_goes_on() -> None:
    async with serve(table()) as server:
        targets = ["/", "/later/abc", "/events", "/poll"]
        data = b"".join(get(target, method="HEAD") for target in targets) + get()
        answers = await ask(server, data, ["HEAD"] * len(targets) + ["GET"])
        assert [answer.status for answer in answers] == [200] * 5
        assert [answer.headers.get("content-length") for answer in answers] == ["5", "3", None, "4", "5"]
        assert answers[2].headers["content-type"] == "text/event-stream"


async def test_the_server_header_is_sent_where_it_is_asked_for() -> None:
    async with serve(table(), server_header="shop/1.0") as server:
        answers = await ask(server, get() + get("/events") + get("/poll") + get(method="PUT"), ["GET"] * 4)
        assert [answer.headers.get("server") for answer in answers] == ["shop/1.0"] * 4


# -- process_request


@pytest.mark.parametrize("later", [False, True], ids=["plain", "coroutine"])
async def test_process_request_comes_first_and_may_answer(later: bool) -> None:
    def process(ws: rawws.WebSocket, asked: rawws.Request) -> Any:
        return ws.respond(403, "no\n") if asked.path == "/later/x" else None

    async def process_later(ws: rawws.WebSocket, asked: rawws.Request) -> Any:
        await asyncio.sleep(0.001)
        return process(ws, asked)

    async with serve(table(), process_request=process_later if later else process) as server:
        data = get() + get("/echo", method="POST", body=b"xyz") + get("/later/y") + get("/later/x") + get()
        answers = await ask(server, data, ["GET", "POST", "GET", "GET"])
        assert [answer.status for answer in answers] == [200, 200, 200, 403]
        assert [answer.body for answer in answers] == [b"hello", b"xyz", b"y", b"no\n"]


@pytest.mark.parametrize("fields", [{"X-Name": "a\nb"}, {"Content-Length": "7"}])
async def test_what_process_request_answers_and_cannot_be_sent_is_a_500_and_logged(
    fields: dict[str, str], logged: Logged
) -> None:
    def process(_: rawws.WebSocket, __: rawws.Request) -> rawws.Response:
        return rawws.Response(200, "x", fields)

    async with serve(table(), process_request=process) as server:
        [answer] = await ask(server, get())
        assert answer.status == 500
    logged.take("request failed", rawws.LocalProtocolError)


async def test_a_body_may_come_after_process_request_was_waited_for() -> None:
    async def process(_: rawws.WebSocket, __: rawws.Request) -> None:
        await asyncio.sleep(0)

    async with served(table(), process_request=process) as (server, peer):
        await peer.write(get("/echo", "Content-Length: 6", method="POST") + b"abc")
        await eventually(lambda: [handler_of(ws).exchange for ws in server.settings.connections if ws.bytes_received])
        await peer.write(b"def")
        [answer] = await asked(peer, ["POST"])
        assert answer.body == b"abcdef"


async def test_a_proxy_may_speak_for_several_clients_over_one_connection() -> None:
    def who(asked: rawws.HttpRequest) -> list[Any]:
        return [asked.remote_address[0], asked.scheme]

    async with serve(on("/", who), trusted_proxies=["127.0.0.1"]) as server:
        one = get("/", "X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: https")
        two = get("/", "X-Forwarded-For: 192.0.2.2")
        answers = await ask(server, one + two + get(), ["GET"] * 3)
    assert [answer.body for answer in answers] == [
        b'["192.0.2.1","https"]',
        b'["192.0.2.2","http"]',
        b'["127.0.0.1","http"]',
    ]


# -- WebSocket


async def test_a_websocket_may_follow_other_requests_on_its_connection() -> None:
    async with served(table()) as (server, peer):
        await peer.write(get() + get("/later/x"))
        await asked(peer, ["GET"] * 2)
        await peer.shake_hands(line="GET /chat HTTP/1.1")
        await peer.send("hi")
        assert await peer.message() == "hi"
        assert len(server.connections) == 1


async def test_a_websocket_in_one_segment_with_other_requests_keeps_the_order() -> None:
    async with served(table()) as (_, peer):
        frame = b"\x81\x82\x00\x00\x00\x00hi"
        await peer.write(get("/later/x") + get() + request(line="GET /chat HTTP/1.1") + frame)
        data = b""
        while not data.endswith(b"\x81\x02hi"):
            data += await peer.read()
        first, second, third = data.split(b"HTTP/1.1 ")[1:]
        assert first.endswith(b"\r\n\r\nx")
        assert second.endswith(b"\r\n\r\nhello")
        assert third.startswith(b"101 Switching Protocols\r\n")


# -- TLS


async def test_all_of_it_works_over_tls() -> None:
    authority = trustme.CA()
    server_tls, client_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server_tls)
    authority.configure_trust(client_tls)
    routes = table()
    routes.get("/scheme")(lambda asked: asked.scheme)
    async with serve(routes, ssl=server_tls) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), ssl=client_tls)
        targets = ["/scheme", "/later/x", "/events", "/poll"]
        own = "Origin: https://localhost"
        writer.write(b"".join(get(target, own) for target in targets) + get("/", "Connection: close"))
        answers = judge(await reader.read(), ["GET"] * 5, closed=True)
        writer.close()
        await writer.wait_closed()
    assert [answer.body for answer in answers] == [
        b"https", b"x", b"data: one\n\ndata: two\n\n", b"news", b"hello",
    ]  # fmt: skip


def tls_socket(server: rawws.Server, context: ssl.SSLContext) -> ssl.SSLSocket:
    """Connect a client that tells an end without a closure alert from one with it."""
    host, port = server.sockets[0].getsockname()[:2]
    plain = socket.create_connection((host, port))
    return context.wrap_socket(plain, server_hostname=host, suppress_ragged_eofs=False)


def authority_of_tls() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    return server, client


async def test_the_end_under_tls_is_announced_by_a_closure_alert() -> None:
    server_tls, client_tls = authority_of_tls()

    def ask(server: rawws.Server) -> bytes:
        with tls_socket(server, client_tls) as client:
            client.sendall(get("/", "Connection: close"))
            # Without the alert this raises SSLEOFError.
            return b"".join(iter(lambda: client.recv(4096), b""))

    async with serve(table(), ssl=server_tls) as server:
        assert (await asyncio.to_thread(ask, server)).endswith(b"hello")


async def test_a_tls_client_that_ends_without_an_alert_is_no_error(logged: Logged) -> None:
    server_tls, client_tls = authority_of_tls()

    def ask(server: rawws.Server) -> bytes:
        client = tls_socket(server, client_tls)
        client.sendall(get("/"))
        answer = client.recv(4096)
        socket.close(client.detach())
        return answer

    async with serve(table(), ssl=server_tls) as server:
        assert b"200 OK" in await asyncio.to_thread(ask, server)
        await eventually(lambda: not server.settings.connections)


# -- the end of the server


async def test_at_the_end_a_pending_request_is_answered_and_others_are_not_waited_for() -> None:
    started, released = asyncio.Event(), asyncio.Event()

    async def slow(_: rawws.HttpRequest) -> str:
        started.set()
        await released.wait()
        return "done"

    async with serve(on("/", slow)) as server, set_at_end(released):
        address = server.sockets[0].getsockname()
        pending, idle, half = [await Peer.reach(address) for _ in range(3)]
        await pending.write(get())
        await idle.write(get("/none", method="OPTIONS"))
        await half.write(get()[:10])
        await started.wait()
        server.close()
        assert b"404" in (await idle.read_to_end())[:20]
        assert await half.read_to_end() == b""
        released.set()
        [answer] = judge(await pending.read_to_end(), ["GET"], closed=True)
        assert (answer.body, answer.headers["connection"]) == (b"done", "close")
        for peer in (pending, idle, half):
            peer.close()


async def test_at_the_end_an_endpoint_has_close_timeout_to_answer() -> None:
    started = asyncio.Event()

    async def hang(_: rawws.HttpRequest) -> str:
        started.set()
        await asyncio.sleep(0.6)
        return "late"

    async with served(on("/", hang), close_timeout=0.1) as (server, peer):
        await peer.write(get())
        await started.wait()
        server.close()
        [answer] = judge(await peer.read_to_end(), ["GET"], closed=True)
        assert (answer.status, answer.body) == (503, b"the server did not decide in time\n")


@pytest.mark.usefixtures("steady")
async def test_a_large_body_has_more_time_than_a_small_one() -> None:
    async with serve(table(), open_timeout=0.2) as server:
        address = server.sockets[0].getsockname()
        large, chunked, small = [await Peer.reach(address) for _ in range(3)]
        # 16 KiB a second are waited for: this has four seconds more.
        await large.write(get("/echo", "Content-Length: 65536", method="POST"))
        # Of this it is not known how large it will be: it has the time of the largest.
        await chunked.write(get("/echo", "Transfer-Encoding: chunked", method="POST"))
        await small.write(get("/echo", "Content-Length: 8", method="POST"))
        [answer] = await asked(small, ["POST"])
        assert answer.status == 408
        await large.write(bytes(65536))
        await chunked.write(b"3\r\nabc\r\n0\r\n\r\n")
        assert [(await asked(peer, ["POST"]))[0].body for peer in (large, chunked)] == [bytes(65536), b"abc"]
        for peer in (large, chunked, small):
            peer.close()
