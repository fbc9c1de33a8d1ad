"""The check of a route: a request is judged by its head before its body is read; and what bodies may take in all."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import rawws
from tests.server.answers import ask, asked, get, on, served
from tests.server.http2_client import reach
from tests.server.peers import Logged, Peer, eventually, serve, set_at_end

LARGE = ("Content-Length: 1000000", "Transfer-Encoding: chunked")


def judge_by_key(request: rawws.HttpRequest) -> rawws.Response | None:
    assert request.body == b""
    return None if request.headers.get("Key") == "right" else rawws.Response(401, "no key")


def table(seen: list[str]) -> rawws.Routes:
    def note(request: rawws.HttpRequest) -> bytes:
        seen.append(request.method)
        return request.body or b"empty"

    return rawws.Routes([rawws.Route("/", note, ["GET", "POST"], check=judge_by_key)])


@pytest.mark.parametrize("announced", LARGE)
async def test_who_the_check_refuses_is_answered_before_the_body_comes_and_the_connection_ends(announced: str) -> None:
    seen: list[str] = []
    async with served(table(seen)) as (server, peer):
        # The client waits for a word, which does not come.
        await peer.write(get("/", announced, "Expect: 100-continue", method="POST"))
        [answer] = await asked(peer, ["POST"])
        assert (answer.status, answer.body, answer.interim) == (401, b"no key", ())
        assert answer.headers["connection"] == "close"
        # What comes nevertheless is no request.
        await peer.write(b"x" * 100_000 + get("/", "Key: right"))
        assert await peer.read_to_end() == b""
        assert (seen, server.stats().responses) == ([], {401: 1})


async def test_without_a_body_the_connection_goes_on_behind_the_answer_of_the_check() -> None:
    seen: list[str] = []
    async with served(table(seen)) as (_, peer):
        await peer.write(get() + get(method="HEAD") + get("/", "Key: right") + get("/", "Content-Length: 0"))
        answers = await asked(peer, ["GET", "HEAD", "GET", "GET"])
        assert [answer.status for answer in answers] == [401, 401, 200, 401]
        assert [answer.body for answer in answers] == [b"no key", b"", b"empty", b"no key"]
        assert seen == ["GET"]


async def test_what_the_check_lets_pass_is_read_whole_and_answered_by_the_endpoint() -> None:
    seen: list[str] = []
    async with serve(table(seen)) as server:
        [answer] = await ask(server, get("/", "Key: right", method="POST", body=b"x" * 70_000), ["POST"])
        assert (answer.status, answer.body, seen) == (200, b"x" * 70_000, ["POST"])


async def test_over_http2_the_same() -> None:
    seen: list[str] = []
    async with serve(table(seen), http2=True) as server, reach(server) as client:
        waiting = client.core.request(
            rawws.Request("POST", "/", rawws.Headers([("Host", "localhost")]), "2"), end_stream=False
        )
        answers = client.answers
        answer = answers[waiting.id] = type(client.request("/", "GET"))(client, waiting)
        client.flush()
        assert (await answer.whole()).status == 401
        assert (await client.request("/", "POST", body=b"abc").whole()).status == 401
        passed = await client.request("/", "POST", ("key", "right"), body=b"abc").whole()
        assert (passed.status, bytes(passed.body), seen) == (200, b"abc", ["POST"])


async def test_what_a_check_raises_is_answered_and_what_it_returns_is_a_response(logged: Logged) -> None:
    def refuse(request: rawws.HttpRequest) -> None:
        raise rawws.HttpError(429, "too early", (("Retry-After", "1"),))

    def fail(request: rawws.HttpRequest) -> Any:
        return "nonsense"

    routes = rawws.Routes()
    routes.get("/a", check=refuse)(lambda request: "never")
    routes.post("/b", check=fail)(lambda request: "never")
    async with serve(routes) as server:
        [answer] = await ask(server, get("/a"))
        assert (answer.status, answer.headers["retry-after"]) == (429, "1")
        [answer] = await ask(server, get("/b", method="POST"), ["POST"])
        assert answer.status == 500
    logged.take("request failed: POST /b", TypeError)


@pytest.mark.parametrize("version", ["1.1", "2"])
async def test_what_is_asked_by_options_is_answered_before_a_body_comes_and_none_is_kept(version: str) -> None:
    async with serve(on("/", lambda request: request.body, "POST"), http2=True) as server:
        if version == "1.1":
            peer = await Peer.reach(server.sockets[0].getsockname())
            await peer.write(get("/", "Content-Length: 1000000", method="OPTIONS") + b"x" * 100_000)
            [answer] = await asked(peer, ["OPTIONS"])
            assert (answer.status, answer.headers["connection"]) == (204, "close")
            assert server.context.body_bytes == 0
            peer.close()
        else:
            async with reach(server) as client:
                found = await client.request("/", "OPTIONS", body=b"x" * 10_000).whole()
                assert (found.status, server.context.body_bytes) == (204, 0)


async def test_no_body_is_kept_of_a_preflight_for_options_where_there_is_nothing() -> None:
    async with serve(on("/", lambda request: request.body, "POST"), origins=["https://a.example"]) as server:
        peer = await Peer.reach(server.sockets[0].getsockname())
        lines = ("Origin: https://a.example", "Access-Control-Request-Method: OPTIONS", "Content-Length: 1000000")
        await peer.write(get("/nothing", *lines, method="OPTIONS") + b"x" * 100_000)
        [answer] = await asked(peer, ["OPTIONS"])
        assert (answer.status, answer.headers["connection"]) == (204, "close")
        assert server.context.body_bytes == 0
        peer.close()


async def test_an_endpoint_for_options_gets_the_body() -> None:
    async with serve(on("/", lambda request: request.body, "OPTIONS")) as server:
        [answer] = await ask(server, get("/", method="OPTIONS", body=b"abc"), ["OPTIONS"])
        assert (answer.status, answer.body) == (200, b"abc")


@pytest.mark.parametrize("version", ["1.1", "2"])
async def test_who_asks_for_it_is_told_the_status_of_each_response_once_whoever_answers(
    logged: Logged, version: str
) -> None:
    told: list[tuple[str, int]] = []
    polls: list[rawws.LongPoll] = []

    def note(request: rawws.HttpRequest) -> rawws.Response | None:
        request.on_response = lambda status: told.append((request.path, status))
        return rawws.Response(401) if request.path == "/checked" else None

    def answer(request: rawws.HttpRequest) -> Any:
        assert request.body == b"x"
        if request.path == "/raised":
            raise rawws.HttpError(409, "raised")
        if request.path == "/poll":
            polls.append(rawws.LongPoll())
            return polls[0]
        return {"/failed": 3, "/whole": "x", "/stream": rawws.EventStream()}[request.path]

    expected = [
        ("/checked", 401),
        ("/whole", 200),
        ("/raised", 409),
        ("/failed", 500),
        ("/stream", 200),
        ("/poll", 503),
    ]
    routes = rawws.Routes([rawws.Route(path, answer, ["POST"], check=note) for path, _ in expected])
    async with serve(routes, http2=True) as server, reach(server) as client:
        peers = []
        for number, (path, _) in enumerate(expected):
            if version == "2":
                client.request(path, "POST", body=b"x")
                client.flush()
            else:
                peers.append(await Peer.reach(server.sockets[0].getsockname()))
                await peers[-1].write(get(path, method="POST", body=b"x"))
            if path == "/poll":
                await eventually(lambda: polls)
                assert len(told) == number
                assert polls[0].respond(rawws.Response(503))
            await eventually(lambda number=number: len(told) == number + 1)  # type: ignore[misc]
        for peer in peers:
            peer.close()
    assert told == expected
    logged.take("request failed: POST /failed", TypeError)


async def test_who_asks_for_it_is_told_of_a_body_that_is_refused_and_not_of_a_client_that_left() -> None:
    told: list[int] = []

    def note(request: rawws.HttpRequest) -> None:
        request.on_response = told.append

    routes = rawws.Routes([rawws.Route("/", lambda request: request.body, ["POST"], check=note)])
    async with serve(routes, max_body_memory=1000) as server:
        one, other = await halves(server, 900, 50)
        await other.write(b"x" * 100)
        await eventually(lambda: told == [503])
        for peer in (one, other):
            peer.close()
        await eventually(lambda: not server.settings.connections)
    assert told == [503]


def test_a_check_is_a_function_of_a_request_to_an_endpoint_of_http() -> None:
    async def chat(ws: rawws.WebSocket) -> None: ...

    with pytest.raises(TypeError, match="the check of / is int, allowed is a function"):
        rawws.Routes([rawws.Route("/", lambda request: "x", check=3)])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="/ is for WebSockets, allowed beside check are methods"):
        rawws.Routes([rawws.Route("/", chat, websocket=True, check=judge_by_key)])


def test_the_check_of_get_is_that_of_head_unless_that_has_an_endpoint_of_its_own() -> None:
    routes = rawws.Routes()
    routes.get("/get", check=judge_by_key)(lambda request: "x")
    routes.route("/both", ["HEAD"])(lambda request: "x")
    routes.get("/both", check=judge_by_key)(lambda request: "x")
    assert set(routes.find("/get")[0].checks) == {"GET", "HEAD"}
    assert set(routes.find("/both")[0].checks) == {"GET"}


# -- bodies in all


async def halves(server: rawws.Server, *sizes: int) -> list[Peer]:
    """Send a part of a body over a connection for each; it announces 1,000 bytes."""
    peers = []
    for size in sizes:
        before = server.context.body_bytes
        peer = await Peer.reach(server.sockets[0].getsockname())
        await peer.write(get("/", "Content-Length: 1000", method="POST") + b"x" * size)
        peers.append(peer)
        await eventually(lambda before=before: server.context.body_bytes != before)  # type: ignore[misc]
    return peers


async def test_over_max_body_memory_the_next_piece_of_another_body_gets_503_with_retry_after() -> None:
    async with serve(on("/", lambda request: request.body, "POST"), max_body_memory=1000) as server:
        one, other = await halves(server, 500, 400)
        assert server.context.body_bytes == 900
        await other.write(b"x" * 101)
        [answer] = await asked(other, ["POST"])
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        assert b"the bodies of all requests are over 1000 bytes, the limit" in answer.body
        assert server.context.body_bytes == 500
        # There is room again, for the others.
        await one.write(b"x" * 500)
        [answer] = await asked(one, ["POST"])
        assert (answer.status, answer.body) == (200, b"x" * 1000)
        await eventually(lambda: not server.context.body_bytes)
        for peer in (one, other):
            peer.close()


async def test_one_body_alone_has_max_size_for_its_limit_and_no_other() -> None:
    async with serve(on("/", lambda request: request.body, "POST"), max_body_memory=10, max_size=1000) as server:
        [answer] = await ask(server, get("/", method="POST", body=b"x" * 1000), ["POST"])
        assert (answer.status, server.context.body_bytes) == (200, 0)


async def test_a_body_counts_until_its_client_is_gone_or_its_endpoint_done() -> None:
    go = asyncio.Event()

    async def wait(request: rawws.HttpRequest) -> bytes:
        body = request.body
        await go.wait()
        return body

    async with serve(on("/", wait, "POST")) as server, set_at_end(go):
        [half, whole] = await halves(server, 300, 1000)
        assert server.context.body_bytes == 1300
        half.close()
        await eventually(lambda: server.context.body_bytes == 1000)
        whole.reset()
        await eventually(lambda: not server.settings.connections)
        # Whoever waits in it has the body still.
        assert server.context.body_bytes == 1000
        go.set()
        await eventually(lambda: not server.context.body_bytes)


@pytest.mark.parametrize("later", [False, True])
async def test_a_body_counts_no_longer_where_the_endpoint_fails_or_answers_by_a_stream(
    logged: Logged, later: bool
) -> None:
    streams: list[rawws.EventStream] = []

    def answer(request: rawws.HttpRequest) -> rawws.EventStream:
        if request.body == b"bad":
            raise rawws.HttpError(400, "bad")
        if request.body == b"worse":
            raise RuntimeError("worse")
        streams.append(rawws.EventStream())
        return streams[0]

    async def answer_later(request: rawws.HttpRequest) -> rawws.EventStream:
        await asyncio.sleep(0)
        return answer(request)

    async with serve(on("/", answer_later if later else answer, "POST")) as server:
        for body, status in ((b"bad", 400), (b"worse", 500)):
            [told] = await ask(server, get("/", method="POST", body=body), ["POST"])
            assert (told.status, server.context.body_bytes) == (status, 0)
        peer = await Peer.reach(server.sockets[0].getsockname())
        await peer.write(get("/", method="POST", body=b"good"))
        await eventually(lambda: streams)
        await eventually(lambda: not server.context.body_bytes)
        peer.close()
    logged.take("request failed: POST /", RuntimeError)


async def test_bodies_of_streams_of_http2_count_as_well() -> None:
    routes = on("/", lambda request: request.body, "POST")
    async with serve(routes, http2=True, max_body_memory=1000) as server, reach(server) as client:
        held = await halves(server, 900)
        refused = await client.request("/", "POST", body=b"x" * 101).whole()
        assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
        assert (await client.request("/", "POST", body=b"x" * 100).whole()).status == 200
        assert server.context.body_bytes == 900
        held[0].close()
