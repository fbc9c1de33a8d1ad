"""uvicorn with our class for `--ws`: what is uvicorn's own; test_sessions.py has the rest."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvicorn
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.server import ServerState
from websockets.asyncio.client import connect, unix_connect
from websockets.typing import Subprotocol

from rawws.integrations.uvicorn import CONTEXTS, WebSocketProtocol
from tests.integrations.serving import Receive, Recorder, Send, echo, end, exchange_messages, in_uvicorn, refused
from tests.server.peers import Peer, eventually, request


@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_messages_of_both_kinds_go_through(http: str) -> None:
    async with in_uvicorn(echo, http=http) as (url, _), connect(url) as ws:
        await exchange_messages(ws)


async def test_the_scope_tells_of_the_request() -> None:
    app = Recorder()
    async with in_uvicorn(app, root_path="/mount") as (url, server):
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
    assert scope["extensions"].keys() == {"websocket.http.response", "rawws.websocket"}
    assert scope["state"] == {}


async def test_a_unix_socket_has_no_client_address(tmp_path: Path) -> None:
    app = Recorder()
    path = str(tmp_path / "app.sock")
    async with in_uvicorn(app, uds=path), unix_connect(path):
        pass
    assert app.scope["client"] is None
    assert app.scope["server"] == (path, None)


async def test_the_application_chooses_the_subprotocol_and_adds_headers() -> None:
    app = Recorder({"type": "websocket.accept", "subprotocol": "chat", "headers": [(b"x-more", b"\xe4")]})
    async with in_uvicorn(app, headers=[("X-Default", "yes")]) as (url, _):
        async with connect(url, subprotocols=[Subprotocol("other"), Subprotocol("chat")]) as ws:
            assert ws.subprotocol == "chat"
            assert ws.response is not None
            assert ws.response.headers["X-More"] == "\xe4"
            assert ws.response.headers["X-Default"] == "yes"
            assert ws.response.headers["Server"] == "uvicorn"


async def test_compression_is_agreed_on_where_it_is_on() -> None:
    async with in_uvicorn(echo) as (url, _), connect(url) as ws:
        assert ws.response is not None
        assert ws.response.headers["Sec-WebSocket-Extensions"].startswith("permessage-deflate")
        await ws.send("compressible " * 1000)
        assert await ws.recv() == "compressible " * 1000
    async with in_uvicorn(echo, ws_per_message_deflate=False) as (url, _), connect(url) as ws:
        assert ws.response is not None
        assert "Sec-WebSocket-Extensions" not in ws.response.headers


async def test_a_shutdown_closes_with_1012() -> None:
    app = Recorder()
    async with in_uvicorn(app) as (url, server), connect(url) as ws:
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

    async with in_uvicorn(app) as (url, server):
        client = asyncio.create_task(refused(url))
        await begun.wait()
        server.should_exit = True
        assert (await client)[0] == 500
        await told.wait()


async def test_what_is_refused_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.close"})

    caplog.set_level(logging.INFO, "uvicorn.error")
    async with in_uvicorn(app) as (_, server):
        for fields, status in (([], 403), (["Sec-WebSocket-Version: 12"], 426)):
            peer = await Peer.reach(server.servers[0].sockets[0].getsockname())
            await peer.write(request(*fields, line="GET /a HTTP/1.1"))
            assert (await peer.answer())[0].status == status
            peer.close()
    outcomes = [record.getMessage() for record in caplog.records if '"WebSocket' in record.getMessage()]
    assert [outcome.partition(" - ")[2] for outcome in outcomes] == ['"WebSocket /a" 403', '"WebSocket /a" 426']


async def test_a_client_that_leaves_before_the_accept_is_a_disconnect() -> None:
    begun, told = asyncio.Event(), asyncio.Event()

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        begun.set()
        assert (await receive())["type"] == "websocket.disconnect"
        with pytest.raises(ClientDisconnected):
            await send({"type": "websocket.accept"})
        told.set()

    async with in_uvicorn(app) as (url, server):
        client = asyncio.create_task(refused(url))
        await begun.wait()
        client.cancel()
        await asyncio.wait([client])
        # It reads nothing before it has accepted: the end shows when the peer's reset arrives, or at the answer.
        for connection in list(server.server_state.connections):
            connection.ws.abort()  # type: ignore[union-attr]
        await told.wait()


async def test_limit_concurrency_counts_websockets() -> None:
    async with in_uvicorn(echo, limit_concurrency=2) as (url, _), connect(url) as ws:
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

    async with in_uvicorn(app) as (url, _):
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


async def test_what_is_no_request_is_refused_and_logged_without_a_path(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "uvicorn.error")
    config = uvicorn.Config(echo, lifespan="off", log_config=None)
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: WebSocketProtocol(config, ServerState(), {}), "127.0.0.1", 0)  # type: ignore[arg-type,return-value]
    peer = await Peer.reach(listening.sockets[0].getsockname())
    await peer.write(b"GET / HTTP/1.1\r\nno field\r\n\r\n")
    assert (await peer.answer())[0].status == 400
    assert any(record.getMessage().endswith(' - "WebSocket -" 400') for record in caplog.records)
    peer.close()
    listening.close()


async def test_a_request_may_come_in_pieces_from_whoever_hands_over_the_connection() -> None:
    config = uvicorn.Config(echo, lifespan="off", log_config=None)
    state = ServerState()
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: WebSocketProtocol(config, state, {}), "127.0.0.1", 0)  # type: ignore[arg-type,return-value]
    peer = await Peer.reach(listening.sockets[0].getsockname())
    head = request()
    await peer.write(head[:30])
    await asyncio.sleep(0.01)
    await peer.write(head[30:])
    assert (await peer.response()).status == 101
    await peer.send("Hello")
    assert await peer.message() == "Hello"
    assert config.loaded
    await peer.start_close()
    await peer.finish()
    peer.close()
    listening.close()
    await listening.wait_closed()
    await eventually(lambda: not state.connections and not state.tasks)


@pytest.mark.parametrize("speaks", [False, True])
async def test_a_client_that_was_refused_is_let_go_when_it_speaks_or_stays(
    speaks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rawws.integrations.uvicorn.LINGER", 3600.0 if speaks else 0.01)
    async with in_uvicorn(echo) as (_, server):
        peer = await Peer.reach(server.servers[0].sockets[0].getsockname())
        await peer.write(request("Sec-WebSocket-Version: 12"))
        response, _ = await peer.answer()
        assert response.status == 426
        connections = CONTEXTS[server.server_state].settings.connections
        assert len(connections) == 1
        if speaks:
            await peer.write(b"more")
        await eventually(lambda: not connections)
        peer.close()


async def test_a_refusal_arrives_whole_over_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        assert scope["scheme"] == "wss"
        await receive()
        await send({"type": "websocket.close"})

    async with in_uvicorn(app, ssl_certfile=str(tmp_path / "server.pem")) as (url, _):
        assert (await refused(url.replace("ws:", "wss:"), ssl=context))[0] == 403


async def test_a_shutdown_leaves_the_close_of_the_application_as_it_is() -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4000})

    async with in_uvicorn(app) as (_, server):
        peer = await Peer.reach(server.servers[0].sockets[0].getsockname())
        await peer.shake_hands()
        assert await peer.closed() == (4000, "")
        server.should_exit = True
        await eventually(lambda: not server.servers[0].is_serving())
        peer.connection.settle()
        await peer.flush()
        assert await peer.read_to_end() == b""
        peer.close()


async def test_nothing_is_left_of_a_thousand_connections() -> None:
    async with in_uvicorn(echo) as (url, server):
        for _ in range(10):
            async with contextlib.AsyncExitStack() as stack:
                for ws in [await stack.enter_async_context(connect(url)) for _ in range(10)]:
                    await ws.send("x")
                    assert await ws.recv() == "x"
        await eventually(lambda: not server.server_state.connections and not server.server_state.tasks)
