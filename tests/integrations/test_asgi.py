"""asgi: our ASGI server to bytes on a socket: lifespan, HTTP, and what is its own of WebSockets (test_sessions.py)."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import rawws
from rawws.integrations import asgi
from rawws.protocol.connection import Connection, Role
from tests.integrations.serving import Receive, Recorder, Send, Speaker, echo
from tests.server.peers import Logged, Peer, eventually, narrow, request, set_at_end
from tests.topics.receivers import still

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
Scope = dict[str, Any]


@contextlib.asynccontextmanager
async def visited(app: Any, **options: Any) -> AsyncIterator[tuple[Peer, rawws.Server]]:
    """A server with this application, and a client that is connected to it."""
    where = {} if "sock" in options else {"host": "127.0.0.1", "port": 0}
    async with asgi.serve(app, **{"lifespan": "off", "hosts": "*", **where, **options}) as server:
        peer = await Peer.reach(server.sockets[0].getsockname(), 2048 if "sock" in options else 0)
        try:
            yield peer, server
        finally:
            peer.close()


async def asked(app: Any, data: bytes, **options: Any) -> tuple[bytes, bytes]:
    """Send this, and return the head and the body of all that comes up to the end."""
    async with visited(app, **options) as (peer, _):
        await peer.write(data)
        head, _, body = (await peer.read_to_end()).partition(b"\r\n\r\n")
        return head, body


def answering(*events: dict[str, Any], headers: Any = (), status: int = 200) -> Any:
    """An application that answers each request so."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for event in events:
            await send({"type": "http.response.body", **event})

    return app


async def read_body(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the body of the request."""
    body, more = b"", True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            return
        body, more = body + event["body"], event["more_body"]
    await answering({"body": body})(scope, receive, send)


# -- lifespan


async def test_the_lifespan_goes_around_the_connections_and_its_state_into_each_scope() -> None:
    told: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            assert scope["asgi"] == {"version": "3.0", "spec_version": "2.0"}
            told.append((await receive())["type"])
            scope["state"]["number"] = 1
            await send({"type": "lifespan.startup.complete"})
            told.append((await receive())["type"])
            await send({"type": "lifespan.shutdown.complete"})
            return
        told.append(dict(scope["state"]))
        scope["state"]["number"] = 2
        await answering({"body": b"x"})(scope, receive, send)

    async with visited(app, lifespan="on") as (peer, _):
        for _ in range(2):
            await peer.write(GET)
            assert (await peer.response()).status == 200
    assert told == ["lifespan.startup", {"number": 1}, {"number": 1}, "lifespan.shutdown"]


async def fail_to_start(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


async def know_no_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    await answering({"body": b"x"})(scope, receive, send)


async def test_an_application_that_fails_to_start_is_not_served() -> None:
    for mode in ("auto", "on"):
        with pytest.raises(RuntimeError, match="the application did not start: no database"):
            await asgi.serve(fail_to_start, "127.0.0.1", 0, lifespan=mode)


async def test_an_application_without_a_lifespan_is_served_unless_it_must_have_one(logged: Logged) -> None:
    head, body = await asked(know_no_lifespan, LAST, lifespan="auto")
    assert (head[:12], body) == (b"HTTP/1.1 200", b"x")
    with pytest.raises(RuntimeError, match="did not start: AssertionError"):
        await asgi.serve(know_no_lifespan, "127.0.0.1", 0, lifespan="on")
    logged.take("Exception in 'lifespan' protocol", AssertionError)


async def test_a_lifespan_that_fails_at_its_end_is_logged(logged: Logged) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "no disk"})

    async with asgi.serve(app, "127.0.0.1", 0):
        pass
    logged.take("the application did not shut down: no disk")


async def test_a_start_that_is_cancelled_ends_the_lifespan() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await receive()
            begun.set()
            await asyncio.sleep(3600)
        finally:
            ended.set()

    async def start() -> None:
        await asgi.serve(app, "127.0.0.1", 0)

    starting = asyncio.create_task(start())
    await begun.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await ended.wait()


async def test_a_lifespan_ends_where_the_server_cannot_listen() -> None:
    told: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        told.append((await receive())["type"])
        await send({"type": "lifespan.shutdown.complete"})

    async with visited(echo) as (_, server):
        with pytest.raises(OSError, match="address"):
            await asgi.serve(app, "127.0.0.1", server.sockets[0].getsockname()[1])
    assert told == ["lifespan.shutdown"]


async def test_options_that_the_application_decides_are_refused() -> None:
    for options in ({"subprotocols": ["a"]}, {"select_subprotocol": print}, {"process_response": print}):
        with pytest.raises(ValueError, match="the application's to decide"):
            asgi.serve(echo, "127.0.0.1", 0, **options)
    with pytest.raises(ValueError, match=r"lifespan is 'never', allowed are auto, on, off"):
        asgi.serve(echo, "127.0.0.1", 0, lifespan="never")
    with pytest.raises(ValueError, match="root_path is 'a', it must begin with '/'"):
        asgi.serve(echo, "127.0.0.1", 0, root_path="a")
    with pytest.raises(TypeError, match="app is str, allowed is an ASGI application"):
        asgi.serve("app", "127.0.0.1", 0)
    called = re.escape("app takes (scope), it is called with (scope, receive, send)")
    with pytest.raises(TypeError, match=called):
        asgi.serve(lambda scope: None, "127.0.0.1", 0)


# -- requests


async def test_the_scope_of_a_request() -> None:
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await answering({"body": b""})(scope, receive, send)

    async with visited(app, root_path="/mount/", trusted_proxies=["127.0.0.1"]) as (peer, server):
        fields = b"Host: a\r\nX-Thing: gr\xc3\xbcn\r\nX-Forwarded-Proto: https\r\nX-Forwarded-For: 10.0.0.7\r\n"
        await peer.write(b"PUT /a%20b/%C3%BC?c=%20d HTTP/1.1\r\n" + fields + b"\r\n")
        await peer.response()
        port = server.sockets[0].getsockname()[1]
    [scope] = scopes
    headers = scope.pop("headers")
    assert scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "PUT",
        "scheme": "https",
        "path": "/mount/a b/ü",
        "raw_path": b"/mount/a%20b/%C3%BC",
        "query_string": b"c=%20d",
        "root_path": "/mount",
        "client": ("10.0.0.7", 0),
        "server": ("127.0.0.1", port),
        "state": {},
        "extensions": {},
    }
    assert (b"x-thing", "grün".encode()) in headers


@pytest.mark.parametrize(
    "data",
    [
        b"Content-Length: 6\r\n\r\nabcdef",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n4\r\ncdef\r\n0\r\n\r\n",
    ],
)
async def test_a_body_comes_in_any_pieces_and_the_next_request_behind_it(data: bytes) -> None:
    whole = b"POST / HTTP/1.1\r\nHost: a\r\n" + data
    async with visited(read_body) as (peer, _):
        await peer.write(whole + whole)
        for octet in whole:
            await peer.write(bytes([octet]))
        await peer.write(LAST)
        came = await peer.read_to_end()
    assert came.count(b"HTTP/1.1 200 OK\r\n") == 4
    assert came.count(b"\r\n\r\nabcdef") == 3


async def test_a_client_that_waits_for_100_gets_it_when_the_application_wants_the_body() -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    async with visited(read_body) as (peer, _):
        await peer.write(head)
        assert await peer.read() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await peer.write(b"ab" + LAST)
        assert (await peer.read_to_end()).count(b"200 OK") == 2
    # Who answers without the body wants none of it, and closes, for it may come all the same.
    answer, body = await asked(answering({"body": b"no"}, status=403), head)
    assert (answer[:12], body) == (b"HTTP/1.1 403", b"no")
    assert b"Connection: close" in answer


async def test_what_an_application_does_not_receive_is_not_read() -> None:
    go_on = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await go_on.wait()
        await read_body(scope, receive, send)

    size = 8 << 20
    async with visited(app, max_size=None) as (peer, _), set_at_end(go_on):
        await peer.write(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size)
        sending = asyncio.create_task(peer.write(bytes(size)))
        done, _ = await asyncio.wait([sending], timeout=0.3)
        assert not done
        go_on.set()
        assert len(await peer.read_to_end()) > size
        await sending


async def test_a_body_over_the_limit_is_413_and_a_disconnect() -> None:
    heard: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (event := await receive())["type"] == "http.request":
            pass
        heard.append(event["type"])
        with pytest.raises(asgi.ClientDisconnectedError, match="the client is gone"):
            await send({"type": "http.response.start", "status": 200})

    chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n6\r\n"
    head, body = await asked(app, chunked, max_size=10)
    assert head.startswith(b"HTTP/1.1 413 ")
    assert body == b"the body is over the limit of 10 bytes\n"
    assert heard == ["http.disconnect"]
    head, _ = await asked(app, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n", max_size=10)
    assert head.startswith(b"HTTP/1.1 413 ")


async def test_a_body_that_is_waited_for_too_long_is_408_however_it_trickles() -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"
    answer, _ = await asked(read_body, head, open_timeout=0.2)
    assert answer.startswith(b"HTTP/1.1 408 ")
    async with visited(read_body, open_timeout=0.2) as (peer, _):
        await peer.write(head)
        answered = asyncio.create_task(peer.read())
        while not answered.done():
            with contextlib.suppress(ConnectionError):
                await peer.write(b"x")
            await asyncio.sleep(0.02)
        assert answered.result().startswith(b"HTTP/1.1 408 ")


async def test_a_body_has_the_time_that_it_is_given_up_to_the_last_of_it() -> None:
    waits = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["body"] == b"a"
        waits.set()
        await read_body(scope, receive, send)

    with still():
        async with visited(app, open_timeout=0.5) as (peer, _):
            await peer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na")
            await waits.wait()
            await peer.write(b"b")
            assert (await peer.response()).status == 200


async def test_a_body_whose_time_is_up_is_not_waited_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    # Between two looks at the deadlines, more time may pass than there is.
    monkeypatch.setattr(asgi.HttpSession, "expire", lambda session: None)
    async with visited(read_body, open_timeout=0.02) as (peer, _):
        await peer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        await asyncio.sleep(0.05)
        await peer.write(b"x")
        assert (await peer.response()).status == 408


async def test_no_100_stands_in_a_response_that_is_begun() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        event = await receive()
        await send({"type": "http.response.body", "body": event["body"]})

    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n"
    async with visited(app) as (peer, _):
        await peer.write(head)
        assert (await peer.response()).status == 200
        await peer.write(b"b")
        assert await peer.read_to_end() == b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n"


async def test_a_send_that_is_cancelled_leaves_no_deadline_behind() -> None:
    ended = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                while True:
                    await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
        ended.set()
        assert (await receive())["type"] == "http.request"
        assert (await receive())["type"] == "http.disconnect"

    async with visited(app, sock=narrow()) as (peer, server):
        await peer.write(GET)
        await ended.wait()
        assert [ws.deadline for ws in server.settings.connections] == [0.0]


# -- responses


@pytest.mark.parametrize(
    ("app", "line", "expected"),
    [
        (answering({"body": b"abc"}), "GET / HTTP/1.1", "Content-Length: 3||abc"),
        (answering({}), "GET / HTTP/1.1", "Content-Length: 0||"),
        (
            answering({"body": b"ab", "more_body": True}, {"more_body": True}, {"body": b"c"}),
            "GET / HTTP/1.1",
            "Transfer-Encoding: chunked||2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
        ),
        (answering({"body": b"ab", "more_body": True}, {"body": b"c"}), "GET / HTTP/1.0", "||abc"),
        (
            answering({"body": b"ab", "more_body": True}, {"body": b"c"}, headers=[(b"content-length", b"3")]),
            "GET / HTTP/1.1",
            "content-length: 3||abc",
        ),
        (answering({"body": b"abc"}), "HEAD / HTTP/1.1", "Content-Length: 3||"),
        (answering({}, headers=[(b"content-length", b"3")]), "HEAD / HTTP/1.1", "content-length: 3||"),
        (answering({}), "HEAD / HTTP/1.1", "Transfer-Encoding: chunked||"),
        (answering({"body": b"ab", "more_body": True}, {}), "HEAD / HTTP/1.1", "Transfer-Encoding: chunked||"),
        (answering({}, status=204, headers=[(b"content-length", b"0")]), "GET / HTTP/1.1", "||"),
        (answering({"more_body": True}, {}, status=304), "GET / HTTP/1.1", "||"),
        (
            answering({"body": b"a"}, headers=[(b"transfer-encoding", b"chunked"), (b"keep-alive", b"9")]),
            "GET / HTTP/1.1",
            "Content-Length: 1||a",
        ),
    ],
)
async def test_a_response_is_framed_by_what_is_known_of_it(app: Any, line: str, expected: str) -> None:
    fields, _, body = expected.encode().partition(b"||")
    head, came = await asked(app, line.encode() + b"\r\nHost: a\r\nConnection: close\r\n\r\n")
    lines = [field for field in head.split(b"\r\n")[1:] if not field.startswith((b"Date: ", b"Connection: close"))]
    assert (b"\r\n".join(lines), came) == (fields, body)


async def test_responses_come_in_the_order_of_their_requests() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.02 if scope["path"] == "/slow" else 0)
        await answering({"body": scope["path"].encode(), "more_body": True}, {})(scope, receive, send)

    paths = ["/slow", "/b", "/slow", "/c"]
    data = b"".join(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode() for path in paths)
    async with visited(app) as (peer, _):
        await peer.write(data + LAST)
        came = (await peer.read_to_end()).decode()
    assert [piece.split("\r\n")[1] for piece in came.split("\r\n\r\n")[1::2]] == [*paths, "/"]


async def test_a_connection_that_the_application_closes_is_closed() -> None:
    head, body = await asked(answering({"body": b"x"}, headers=[(b"connection", b"close")]), GET + GET)
    assert head.count(b"Connection: close") == 1
    assert body == b"x"


async def test_every_response_has_the_header_of_the_server() -> None:
    for app in (answering({}), answering({"more_body": True}, {})):
        head, _ = await asked(app, LAST, server_header="ours")
        assert b"\r\nServer: ours\r\n" in head
    async with visited(echo, server_header="ours") as (peer, _):
        assert (await peer.shake_hands()).headers["Server"] == "ours"


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([{"type": "http.response.body"}], "Expected ASGI message 'http.response.start'"),
        ([{"type": "http.response.start", "status": 99}], "Invalid HTTP status code '99'"),
        (2 * [{"type": "http.response.start", "status": 200}], "Expected ASGI message 'http.response.body'"),
        ([{"type": "http.response.start", "status": 200, "headers": [(b"a", b"b\r\nc: d")]}], "0x0d is not allowed"),
        (
            [{"type": "http.response.start", "status": 204}, {"type": "http.response.body", "body": b"x"}],
            "a response with status 204 has no body",
        ),
        (
            [
                {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]},
                {"type": "http.response.body", "body": b"x"},
            ],
            "shorter than Content-Length",
        ),
    ],
)
async def test_what_asgi_does_not_allow_raises_in_the_application_and_is_500(
    events: list[dict[str, Any]], message: str, logged: Logged
) -> None:
    app = Speaker(events)
    head, _ = await asked(app, GET)
    assert head.startswith(b"HTTP/1.1 500 ")
    assert message in str(app.errors[0])
    logged.take("Exception in ASGI application", type(app.errors[0]))


@pytest.mark.parametrize(("last", "how"), [(b"abcd", "longer"), (b"", "shorter")])
async def test_a_body_of_another_length_than_its_head_says_is_cut(last: bytes, how: str, logged: Logged) -> None:
    app = answering({"body": b"ab", "more_body": True}, {"body": last}, headers=[(b"content-length", b"5")])
    head, body = await asked(app, GET)
    assert (head[:12], body) == (b"HTTP/1.1 200", b"ab")
    logged.take("Exception in ASGI application", RuntimeError)


async def test_an_event_behind_the_end_raises(logged: Logged) -> None:
    head, body = await asked(answering({"body": b"a"}, {"body": b"b"}), LAST)
    assert (head[:12], body) == (b"HTTP/1.1 200", b"a")
    logged.take("Exception in ASGI application", RuntimeError)


async def test_an_application_that_raises_is_500_and_logged_once(logged: Logged) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        raise ValueError("a fault")

    head, body = await asked(app, GET + GET)
    assert (head[:12], body) == (b"HTTP/1.1 500", b"the application failed\n")
    logged.take("Exception in ASGI application", ValueError)


async def test_an_application_that_raises_in_the_middle_cuts_its_response(logged: Logged) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"ab", "more_body": True})
        raise ValueError("a fault")

    _, body = await asked(app, GET)
    assert body == b"2\r\nab\r\n"
    logged.take("Exception in ASGI application", ValueError)


async def test_an_application_that_returns_without_a_response_is_500(logged: Logged) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        return

    head, _ = await asked(app, GET)
    assert head.startswith(b"HTTP/1.1 500 ")
    logged.take("ASGI callable returned without completing response.")


async def test_what_an_application_returns_is_logged(logged: Logged) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> int:
        await answering({"body": b"x"})(scope, receive, send)
        return 7

    head, body = await asked(app, LAST)
    assert (head[:12], body) == (b"HTTP/1.1 200", b"x")
    logged.take("ASGI callable should return None, but returned '7'.")


async def test_an_application_that_lets_a_cancellation_out_is_500_and_logged(logged: Logged) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        waited = asyncio.get_running_loop().create_future()
        waited.cancel()
        await waited

    head, body = await asked(app, GET)
    assert (head[:12], body) == (b"HTTP/1.1 500", b"the application failed\n")
    logged.take("Exception in ASGI application (GET /)", asyncio.CancelledError)


async def test_the_log_lines_of_an_application_that_fails_have_its_method_and_its_path(logged: Logged) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> Any:
        if scope["path"] == "/raises":
            raise ValueError("a fault")
        if scope["path"] == "/answers":
            await answering({"body": b"x"})(scope, receive, send)
            return 7
        return None

    for path, text in (
        ("/raises?a", "Exception in ASGI application (GET /raises?a)"),
        ("/answers", "ASGI callable should return None, but returned '7'. (GET /answers)"),
        ("/returns", "ASGI callable returned without completing response. (GET /returns)"),
    ):
        await asked(app, f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        logged.take_all(text, 1)


async def test_an_application_that_is_cancelled_ends_its_connection() -> None:
    cancelled: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async with visited(app) as (peer, server):
        await peer.write(GET)
        await eventually(lambda: server.handlers)
        for task in tuple(server.context.tasks):
            task.cancel()
        assert await peer.read_to_end() == b""
    assert cancelled == [True]


async def test_an_application_hears_that_its_client_left_and_what_it_sends_raises_unlogged() -> None:
    heard: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"ab", "more_body": True})
        heard.append(await receive())
        try:
            await send({"type": "http.response.body", "body": b"ab", "more_body": True})
        except OSError as error:
            heard.append(error)
            raise

    async with visited(app) as (peer, _):
        await peer.write(GET)
        assert (await peer.response()).status == 200
        peer.close()
        await eventually(lambda: len(heard) == 2)
    assert heard[0] == {"type": "http.disconnect"}
    assert isinstance(heard[1], asgi.ClientDisconnectedError)


async def test_an_application_hears_the_end_of_its_response() -> None:
    heard: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answering({"body": b"x"})(scope, receive, send)
        heard.append(await receive())

    await asked(app, LAST)
    assert heard == [{"type": "http.disconnect"}]


async def test_an_application_waits_for_a_client_that_does_not_read() -> None:
    sent = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200})
        for _ in range(64):
            await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
            sent += 1
        await send({"type": "http.response.body"})

    async with visited(app, sock=narrow()) as (peer, _):
        await peer.write(LAST)
        await asyncio.sleep(0.2)
        assert sent < 32
        assert len(await peer.read_to_end()) > 64 * 65536


async def test_a_client_that_reads_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "PATIENCE", 0.1)
    ended = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        try:
            while True:
                await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
        finally:
            ended.set()

    async with visited(app, sock=narrow(), close_timeout=1) as (peer, server):
        await peer.write(GET)
        await ended.wait()
        assert server.stats().slow == 1


# -- the end of the server


@pytest.mark.usefixtures("steady")
async def test_a_response_that_is_due_is_waited_for_and_one_without_end_is_cut() -> None:
    begun, heard = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if scope["path"] == "/stream":
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            begun.set()
            assert (await receive())["type"] == "http.disconnect"
            heard.set()
        else:
            await begun.wait()
            await asyncio.sleep(0.05)
            await answering({"body": b"done"})(scope, receive, send)

    async with visited(app, close_timeout=0.3) as (peer, server):
        other = await Peer.reach(server.sockets[0].getsockname())
        await peer.write(GET)
        await other.write(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
        await begun.wait()
        server.close()
        answer = await peer.read_to_end()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b"done")
        assert b"Connection: close" in answer
        assert (await other.read_to_end()).endswith(b"1\r\nx\r\n")
        other.close()
        await heard.wait()


@pytest.mark.parametrize("deaf", [False, True], ids=["listens", "does not listen"])
async def test_a_stream_of_events_is_told_at_once_that_the_server_ends_and_ends_whole(deaf: bool) -> None:
    heard = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": True})
        await receive()
        if deaf:
            await asyncio.Event().wait()
        assert (await receive())["type"] == "http.disconnect"
        # What it still says is sent.
        await send({"type": "http.response.body", "body": b"data: bye\n\n", "more_body": True})
        heard.set()

    async with visited(app, close_timeout=0.5 if deaf else 60) as (peer, server):
        await peer.write(GET)
        await peer.response()
        server.close()
        answer = await peer.read_to_end()
        assert answer.endswith(b"data: x\n\n\r\n" if deaf else b"data: bye\n\n\r\n0\r\n\r\n")
        assert heard.is_set() is not deaf
        if deaf:
            server.abort()


# -- WebSockets


async def test_the_scope_of_a_websocket_and_what_came_with_the_request() -> None:
    app = Recorder({"type": "websocket.accept", "subprotocol": "b"})
    async with visited(app, trusted_proxies=["127.0.0.1"], origins="*") as (peer, _):
        client = Connection(Role.CLIENT, None)
        client.send("early")
        client.close(1000, "")
        fields = ("Sec-WebSocket-Protocol: a, b", "X-Forwarded-Proto: https", "Origin: https://b.example")
        response = await peer.shake_hands(*fields, then=b"".join(client.take_data()))
        assert response.headers["Sec-WebSocket-Protocol"] == "b"
        await app.ended.wait()
    assert [event["type"] for event in app.events[:3]] == [
        "websocket.connect",
        "websocket.receive",
        "websocket.disconnect",
    ]
    assert (app.scope["type"], app.scope["scheme"], app.scope["subprotocols"]) == ("websocket", "wss", ["a", "b"])
    assert app.scope["asgi"] == {"version": "3.0", "spec_version": "2.5"}
    assert app.scope["extensions"].keys() == {"websocket.http.response", "rawws.websocket"}


async def test_a_page_of_another_site_is_refused_before_the_application_is_asked() -> None:
    async with visited(echo) as (peer, _):
        await peer.write(request("Origin: https://elsewhere.example"))
        assert (await peer.answer())[0].status == 403
    async with visited(echo, origins=["https://elsewhere.example"]) as (peer, _):
        await peer.shake_hands("Origin: https://elsewhere.example")


@pytest.mark.parametrize(("field", "status"), [("Sec-WebSocket-Key: x", 400), ("Sec-WebSocket-Version: 12", 426)])
async def test_a_handshake_that_is_none_is_refused(field: str, status: int) -> None:
    async with visited(echo) as (peer, _):
        await peer.write(request(field))
        assert (await peer.answer())[0].status == status


@pytest.mark.usefixtures("steady")
async def test_every_refusal_is_counted(logged: Logged) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path == "/late":
            await undecided(scope, receive, send)
        elif path == "/denied":
            await send({"type": "websocket.http.response.start", "status": 401})
            await send({"type": "websocket.http.response.body"})
        elif path != "/none":
            await send({"type": f"{scope['type']}.close"})

    async with asgi.serve(app, "127.0.0.1", 0, lifespan="off", hosts="*", open_timeout=0.3) as server:
        for data, status, message, error in (
            (request(line="GET /closed HTTP/1.1"), 403, "", None),
            (request(line="GET /none HTTP/1.1"), 500, "without completing handshake", None),
            (request(line="GET /late HTTP/1.1"), 503, "", None),
            (request("Sec-WebSocket-Version: 12"), 426, "", None),
            (request("Origin: https://elsewhere.example"), 403, "", None),
            (GET, 500, "Exception in ASGI application", RuntimeError),
            (b"GET / HTTP/1.1\r\n\r\n", 400, "", None),
        ):
            peer = await Peer.reach(server.sockets[0].getsockname())
            await peer.write(data)
            assert (await peer.answer())[0].status == status
            peer.close()
            if message:
                logged.take(message, error)
        assert server.stats().refusals == {403: 2, 500: 2, 503: 1, 426: 1, 400: 1}
        # What the application itself says is a response and no refusal.
        peer = await Peer.reach(server.sockets[0].getsockname())
        await peer.write(request(line="GET /denied HTTP/1.1"))
        assert (await peer.answer())[0].status == 401
        peer.close()
        assert server.stats().refusals == {403: 2, 500: 2, 503: 1, 426: 1, 400: 1}
        assert server.stats().responses == {**server.stats().refusals, 401: 1}


async def undecided(scope: Scope, receive: Receive, send: Send) -> None:
    """Wait until somebody else decides."""
    assert await receive() == {"type": "websocket.connect"}
    assert await receive() == {"type": "websocket.disconnect", "code": 1006, "reason": ""}


async def end_by_time(server: rawws.Server, peer: Peer) -> None:
    assert (await peer.answer())[0].status == 503


async def end_by_shutdown(server: rawws.Server, peer: Peer) -> None:
    await eventually(lambda: server.handlers)
    server.close()
    assert (await peer.answer())[0].status == 503


async def end_by_reset(server: rawws.Server, peer: Peer) -> None:
    await eventually(lambda: server.handlers)
    for ws in tuple(server.settings.connections):
        ws.abort()


@pytest.mark.parametrize("end", [end_by_time, end_by_shutdown, end_by_reset])
async def test_an_application_that_does_not_decide_hears_of_the_end(end: Callable[..., Any]) -> None:
    done = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await undecided(scope, receive, send)
        done.set()

    async with visited(app, open_timeout=0.3) as (peer, server):
        await peer.write(request())
        await end(server, peer)
        await done.wait()


async def test_a_shutdown_closes_with_1001() -> None:
    app = Recorder()
    async with visited(app) as (peer, server):
        await peer.shake_hands()
        server.close()
        assert await peer.finish() == (1001, "")
        await app.ended.wait()
    assert app.events[-1]["code"] == 1001


async def test_a_connection_may_be_a_websocket_after_other_requests() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (echo if scope["type"] == "websocket" else answering({"body": b"x"}))(scope, receive, send)

    async with visited(app) as (peer, server):
        await peer.write(GET)
        assert (await peer.response()).status == 200
        await peer.shake_hands()
        await peer.send("in")
        assert await peer.message() == "in"
        assert len(server.connections) == 1
