"""uvicorn with our class for `--ws`: the WebSocket part of ASGI, in a real uvicorn, seen by a client of others."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.protocols.utils import ClientDisconnected
from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK, InvalidStatus
from websockets.typing import Subprotocol

from rawws.integrations.uvicorn import WebSocketProtocol
from tests.server.peers import Logged, eventually

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


@contextlib.asynccontextmanager
async def served(app: Any, **options: Any) -> AsyncIterator[tuple[str, uvicorn.Server]]:
    """A uvicorn with this application: its URL, and the server."""
    options = {"log_config": None, "lifespan": "off", "timeout_graceful_shutdown": 5, **options}
    config = uvicorn.Config(app, "127.0.0.1", 0, ws=WebSocketProtocol, **options)  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    await eventually(lambda: server.started or task.done())
    sock = server.servers[0].sockets[0]
    try:
        yield "" if sock.family == socket.AF_UNIX else f"ws://127.0.0.1:{sock.getsockname()[1]}", server
    finally:
        server.should_exit = True
        await task


async def echo(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "bytes": event.get("bytes"), "text": event.get("text")})


class Recorder:
    """An application that accepts, and keeps what it receives up to the end."""

    def __init__(self, accept: dict[str, Any] | None = None) -> None:
        self.accept = {"type": "websocket.accept"} if accept is None else accept
        self.scope: dict[str, Any] = {}
        self.events: list[dict[str, Any]] = []
        self.send: Send
        self.ended = asyncio.Event()

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        self.scope, self.send = scope, send
        self.events.append(await receive())
        await send(self.accept)
        while self.events[-1]["type"] != "websocket.disconnect":
            self.events.append(await receive())
        self.events.append(await receive())
        self.ended.set()


async def end(ws: ClientConnection) -> tuple[int, str]:
    """Wait for the end; return the code and the reason that the server sent."""
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            await ws.recv()
    assert closed.value.rcvd is not None, "the connection ended without a Close frame"
    return closed.value.rcvd.code, closed.value.rcvd.reason


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_messages_of_both_kinds_go_through(http: str) -> None:
    async with served(echo, http=http) as (url, _), connect(url) as ws:
        for message in ("Grüße", b"\x00\xff", "", b"", "x" * 100_000):
            await ws.send(message)
            assert await ws.recv() == message
        await ws.send(["a", "message ", "in fragments"])
        assert await ws.recv() == "a" + "message " + "in fragments"
        assert await (await ws.ping()) >= 0


async def test_the_scope_tells_of_the_request() -> None:
    app = Recorder()
    async with served(app, root_path="/mount") as (url, server):
        subprotocols = [Subprotocol("chat"), Subprotocol("superchat")]
        headers = {"X-Thing": "grün".encode().decode("latin-1")}
        async with connect(f"{url}/a%20b?c=d", subprotocols=subprotocols, additional_headers=headers) as ws:
            address = ws.local_address
        await app.ended.wait()
        port = server.servers[0].sockets[0].getsockname()[1]
    scope = app.scope
    assert scope["type"] == "websocket"
    assert scope["asgi"]["spec_version"] == "2.4"
    assert scope["scheme"] == "ws"
    assert scope["http_version"] == "1.1"
    assert (scope["root_path"], scope["path"]) == ("/mount", "/mount/a b")
    assert (scope["raw_path"], scope["query_string"]) == (b"/mount/a%20b", b"c=d")
    assert (scope["client"], scope["server"]) == (address[:2], ("127.0.0.1", port))
    assert scope["subprotocols"] == ["chat", "superchat"]
    assert (b"x-thing", "grün".encode()) in scope["headers"]
    assert scope["extensions"] == {"websocket.http.response": {}}
    assert scope["state"] == {}


async def test_a_unix_socket_has_no_client_address(tmp_path: Path) -> None:
    app = Recorder()
    path = str(tmp_path / "app.sock")
    async with served(app, uds=path), unix_connect(path):
        pass
    assert app.scope["client"] is None
    assert app.scope["server"] == (path, None)


async def test_the_application_chooses_the_subprotocol_and_adds_headers() -> None:
    app = Recorder({"type": "websocket.accept", "subprotocol": "chat", "headers": [(b"x-more", b"\xe4")]})
    async with served(app, headers=[("X-Default", "yes")]) as (url, _):
        async with connect(url, subprotocols=[Subprotocol("other"), Subprotocol("chat")]) as ws:
            assert ws.subprotocol == "chat"
            assert ws.response is not None
            assert ws.response.headers["X-More"] == "\xe4"
            assert ws.response.headers["X-Default"] == "yes"
            assert ws.response.headers["Server"] == "uvicorn"


async def test_compression_is_agreed_on_where_it_is_on() -> None:
    async with served(echo) as (url, _), connect(url) as ws:
        assert ws.response is not None
        assert ws.response.headers["Sec-WebSocket-Extensions"].startswith("permessage-deflate")
        await ws.send("compressible " * 1000)
        assert await ws.recv() == "compressible " * 1000
    async with served(echo, ws_per_message_deflate=False) as (url, _), connect(url) as ws:
        assert ws.response is not None
        assert "Sec-WebSocket-Extensions" not in ws.response.headers


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "away"), (3456, "Grüße")])
async def test_the_application_hears_how_its_peer_closed_and_hears_it_again(code: int, reason: str) -> None:
    app = Recorder()
    async with served(app) as (url, _):
        async with connect(url) as ws:
            await ws.send("last")
            await ws.close(code, reason)
        await app.ended.wait()
    assert app.events == [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "last"},
        *2 * [{"type": "websocket.disconnect", "code": code, "reason": reason}],
    ]


async def test_a_peer_that_vanishes_is_a_disconnect_with_1006() -> None:
    app = Recorder()
    async with served(app) as (url, _), connect(url) as ws:
        ws.transport.abort()
        await app.ended.wait()
    assert app.events[-1] == {"type": "websocket.disconnect", "code": 1006, "reason": ""}


async def test_what_breaks_the_protocol_is_told_to_both() -> None:
    app = Recorder()
    async with served(app) as (url, _), connect(url) as ws:
        ws.transport.write(b"\x81\x00")
        assert (await end(ws))[0] == 1002
        await app.ended.wait()
    assert app.events[-1]["code"] == 1002


async def test_a_message_over_the_limit_is_refused_with_1009() -> None:
    app = Recorder()
    async with served(app, ws_max_size=100) as (url, _), connect(url, compression=None) as ws:
        await ws.send("x" * 100)
        await ws.send("x" * 101)
        assert (await end(ws))[0] == 1009
        await app.ended.wait()
    assert [event.get("text") for event in app.events[1:2]] == ["x" * 100]


async def test_an_application_closes_with_its_code() -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4000, "reason": "enough"})
        event = await receive()
        assert event == {"type": "websocket.disconnect", "code": 4000, "reason": "enough"}
        with pytest.raises(RuntimeError, match=r"after sending 'websocket.close'"):
            await send({"type": "websocket.send", "text": "too late"})

    async with served(app) as (url, _), connect(url) as ws:
        assert await end(ws) == (4000, "enough")


async def test_an_application_that_returns_closes_with_1000() -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "bye"})

    async with served(app) as (url, _), connect(url) as ws:
        assert await ws.recv() == "bye"
        assert await end(ws) == (1000, "")


async def test_an_application_that_raises_closes_with_1011(logged: Logged) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        raise ValueError("a fault")

    async with served(app) as (url, _), connect(url) as ws:
        assert (await end(ws))[0] == 1011
    logged.take("Exception in ASGI application", ValueError, "uvicorn.error")


async def refused(url: str, **options: Any) -> tuple[int, dict[str, str], str]:
    with pytest.raises(InvalidStatus) as caught:
        async with connect(url, **options):
            pass
    response = caught.value.response
    return response.status_code, dict(response.headers), (response.body or b"").decode()


async def test_an_application_that_raises_before_it_accepts_answers_500(logged: Logged) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        raise ValueError("a fault")

    async with served(app) as (url, _):
        assert (await refused(url))[0] == 500
    logged.take("Exception in ASGI application", ValueError, "uvicorn.error")


async def test_an_application_that_returns_before_it_accepts_answers_500(logged: Logged) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()

    async with served(app) as (url, _):
        assert (await refused(url))[0] == 500
    logged.take("ASGI callable returned without completing handshake", name="uvicorn.error")


async def test_a_close_before_the_accept_is_403() -> None:
    seen: list[dict[str, Any]] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.close", "code": 4000})
        seen.append(await receive())

    async with served(app) as (url, _):
        assert (await refused(url))[0] == 403
    assert seen == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]


async def test_an_application_denies_with_a_response_of_its_own() -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        headers = [(b"content-type", b"text/plain"), (b"www-authenticate", b"Basic"), (b"content-length", b"99")]
        await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b"who ", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"are you?"})

    async with served(app) as (url, _):
        status, headers, body = await refused(url)
    assert (status, body) == (401, "who are you?")
    assert headers["www-authenticate"] == "Basic"


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([{"type": "websocket.send", "text": "x"}], "Expected ASGI message 'websocket.accept'"),
        ([{"type": "websocket.accept"}, {"type": "websocket.accept"}], "but got 'websocket.accept'"),
        ([{"type": "websocket.accept"}, {"type": "websocket.send"}], "neither bytes nor text"),
        ([{"type": "websocket.accept", "subprotocol": "not offered"}], "allowed are None and one of"),
        ([{"type": "websocket.accept", "headers": [(b"a", b"b\r\nc: d")]}], "0x0d is not allowed"),
        ([{"type": "websocket.accept", "headers": [(b"Sec-WebSocket-Accept", b"x")]}], "the handshake's own"),
        ([{"type": "websocket.http.response.start", "status": 99}], "Invalid HTTP status code '99'"),
    ],
)
async def test_what_asgi_does_not_allow_raises_in_the_application(
    events: list[dict[str, Any]], message: str, logged: Logged
) -> None:
    errors: list[Exception] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        try:
            for event in events:
                await send(event)
        except Exception as error:
            errors.append(error)
            raise

    async with served(app) as (url, _):
        with contextlib.suppress(InvalidStatus, ConnectionClosed):
            async with connect(url) as ws:
                await end(ws)
        await eventually(lambda: errors)
    assert message in str(errors[0])
    logged.take("Exception in ASGI application", type(errors[0]), "uvicorn.error")


async def test_a_send_after_the_end_is_an_oserror_that_nobody_logs() -> None:
    raised: list[BaseException] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        try:
            await send({"type": "websocket.send", "text": "x"})
        except OSError as error:
            raised.append(error)
            raise

    async with served(app) as (url, _):
        async with connect(url):
            pass
        await eventually(lambda: raised)


async def test_a_shutdown_closes_with_1012() -> None:
    app = Recorder()
    async with served(app) as (url, server), connect(url) as ws:
        await eventually(lambda: app.events)
        server.should_exit = True
        assert (await end(ws))[0] == 1012
        await app.ended.wait()
        assert app.events[-1]["code"] == 1012


async def test_a_shutdown_before_the_accept_answers_500() -> None:
    begun, told = asyncio.Event(), asyncio.Event()

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        begun.set()
        assert await receive() == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
        told.set()

    async with served(app) as (url, server):
        client = asyncio.create_task(refused(url))
        await begun.wait()
        server.should_exit = True
        assert (await client)[0] == 500
        await told.wait()


async def test_a_client_that_leaves_before_the_accept_is_a_disconnect() -> None:
    begun, told = asyncio.Event(), asyncio.Event()

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        begun.set()
        assert (await receive())["type"] == "websocket.disconnect"
        with pytest.raises(ClientDisconnected):
            await send({"type": "websocket.accept"})
        told.set()

    async with served(app) as (url, server):
        client = asyncio.create_task(refused(url))
        await begun.wait()
        client.cancel()
        await asyncio.wait([client])
        # It reads nothing before it has accepted: the end shows when the peer's reset arrives, or at the answer.
        for connection in list(server.server_state.connections):
            connection.ws.abort()  # type: ignore[union-attr]
        await told.wait()


async def test_limit_concurrency_counts_websockets() -> None:
    async with served(echo, limit_concurrency=2) as (url, _), connect(url) as ws:
        await ws.send("in")
        assert await ws.recv() == "in"
        async with connect(url):
            status, headers, _ = await refused(url)
        assert status == 503
        assert headers["retry-after"] == "1"
        await ws.send("still in")
        assert await ws.recv() == "still in"


@pytest.mark.parametrize(("version", "status"), [("12", 426), ("13", 403)])
async def test_a_version_that_is_not_understood_is_426(version: str, status: int) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.close"})

    async with served(app) as (url, _):
        port = int(url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: %s\r\n\r\n" % version.encode()
        )
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert answer.endswith(b"\n")


async def test_a_slow_application_holds_its_peer_back() -> None:
    go_on = asyncio.Event()
    count = 0

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        nonlocal count
        await receive()
        await send({"type": "websocket.accept"})
        await go_on.wait()
        while (await receive())["type"] == "websocket.receive":
            count += 1

    async def flood(ws: ClientConnection) -> None:
        for _ in range(400):
            await ws.send(bytes(1 << 16))

    async with served(app) as (url, _), connect(url, compression=None) as ws:
        sending = asyncio.create_task(flood(ws))
        done, _ = await asyncio.wait([sending], timeout=0.5)
        assert not done
        go_on.set()
        await sending
        await ws.close()
        await eventually(lambda: count == 400)


async def test_an_idle_peer_is_pinged_and_one_that_does_not_answer_is_closed_with_1011() -> None:
    app = Recorder()
    async with served(app, ws_ping_interval=0.05, ws_ping_timeout=0.05) as (url, _):
        async with connect(url, ping_interval=None) as ws:
            await asyncio.sleep(0.4)
            await ws.send("alive")
            await eventually(lambda: len(app.events) > 1)
            # From here on it reads nothing.
            ws.transport.pause_reading()
            await app.ended.wait()
            ws.transport.resume_reading()
            assert (await end(ws))[0] == 1011
    assert app.events[-1]["code"] == 1011


async def test_nothing_is_left_of_a_thousand_connections() -> None:
    async with served(echo) as (url, server):
        for _ in range(10):
            async with contextlib.AsyncExitStack() as stack:
                for ws in [await stack.enter_async_context(connect(url)) for _ in range(10)]:
                    await ws.send("x")
                    assert await ws.recv() == "x"
        await eventually(lambda: not server.server_state.connections and not server.server_state.tasks)


async def test_starlette_serves_through_it() -> None:
    from starlette.applications import Starlette  # noqa: PLC0415
    from starlette.routing import WebSocketRoute  # noqa: PLC0415
    from starlette.websockets import WebSocket  # noqa: PLC0415

    async def greet(ws: WebSocket) -> None:
        await ws.accept(subprotocol="json")
        async for message in ws.iter_json():
            await ws.send_json({"hello": message["name"], "path": ws.path_params["room"]})

    app = Starlette(routes=[WebSocketRoute("/rooms/{room}", greet)])
    async with served(app) as (url, _), connect(f"{url}/rooms/a", subprotocols=[Subprotocol("json")]) as ws:
        await ws.send('{"name": "Ada"}')
        assert await ws.recv() == '{"hello":"Ada","path":"a"}'
        await ws.close()
        with pytest.raises(ConnectionClosedOK):
            await ws.recv()
    async with served(app) as (url, _):
        assert (await refused(f"{url}/nowhere"))[0] == 403
