"""Clients that end their side of a connection behind requests (RFC 9112 section 9): who is answered, who is gone."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import rawws
from tests.server.answers import asked, get, on, served
from tests.server.peers import Peer, eventually, handler_of, narrow, serve, set_at_end
from tests.server.test_http_exchange import authority_of_tls, tls_socket
from tests.server.test_http_gone import Endpoint

UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


@asynccontextmanager
async def served_narrowly(endpoint: Any) -> AsyncIterator[tuple[rawws.Server, Peer]]:
    """Give a server whose writes stop in the middle, and a peer that is connected to it."""
    async with rawws.serve(on("/", endpoint), sock=narrow()) as server:
        peer = await Peer.reach(server.sockets[0].getsockname())
        try:
            yield server, peer
        finally:
            peer.close()


async def half_closed(server: rawws.Server, peer: Peer) -> Any:
    """End the peer's side; return the connection once the server has noticed, and stays."""
    [connection] = server.settings.connections
    peer.sock.shutdown(socket.SHUT_WR)
    await eventually(lambda: handler_of(connection).half_closed)
    return connection


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_who_half_closes_behind_a_request_gets_the_answer_and_the_end(method: str) -> None:
    endpoint = Endpoint()
    async with served(on("/", endpoint, method)) as (server, peer), set_at_end(endpoint.go):
        await peer.write(get(method=method, body=b"x" * 1000 if method == "POST" else b""))
        await endpoint.started.wait()
        await half_closed(server, peer)
        endpoint.go.set()
        [answer] = await asked(peer, [method])
        assert (answer.status, answer.body) == (200, b"done")
        assert await peer.read() == b""
        await eventually(lambda: not server.settings.connections)


async def test_all_whole_requests_are_answered_in_their_order() -> None:
    async def later(request: rawws.HttpRequest) -> str:
        await asyncio.sleep(0)
        return request.path_params["number"]

    routes = rawws.Routes([rawws.Route("/now/{number}", lambda request: request.path_params["number"])])
    routes.get("/later/{number}")(later)
    async with served(routes) as (_, peer):
        targets = [f"/{('now', 'later')[number % 3 == 0]}/{number}" for number in range(200)]
        # Of the last one, there is a half.
        await peer.write(b"".join(get(target) for target in targets) + b"GET /now/200 HTTP/1.1\r\nHo")
        peer.sock.shutdown(socket.SHUT_WR)
        answers = await asked(peer, ["GET"] * 200)
        assert [int(answer.body) for answer in answers] == list(range(200))
        assert await peer.read() == b""


async def test_requests_wait_for_a_client_that_reads_late() -> None:
    async with served_narrowly(lambda _: "x" * 200_000) as (server, peer):
        await peer.write(get() * 4)
        await eventually(lambda: any(connection.congested for connection in server.settings.connections))
        peer.sock.shutdown(socket.SHUT_WR)
        assert [len(answer.body) for answer in await asked(peer, ["GET"] * 4)] == [200_000] * 4
        assert await peer.read() == b""


async def test_a_file_is_sent_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(bytes(400_000))
    async with served_narrowly(lambda _: rawws.Response.file(path)) as (server, peer):
        await peer.write(get() + get())
        peer.sock.shutdown(socket.SHUT_WR)
        assert [len(answer.body) for answer in await asked(peer, ["GET", "GET"])] == [400_000] * 2
        assert await peer.read() == b""
        await eventually(lambda: not server.settings.connections)


async def test_a_client_that_is_gone_ends_a_file_at_the_first_write_that_fails(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(bytes(400_000))
    async with served_narrowly(lambda _: rawws.Response.file(path)) as (server, peer):
        await peer.write(get())
        peer.close()
        await eventually(lambda: not server.settings.connections)


async def test_a_client_that_is_gone_is_noticed_with_its_answer() -> None:
    endpoint = Endpoint()
    async with served(on("/", endpoint)) as (server, peer), set_at_end(endpoint.go):
        await peer.write(get() + get())
        await endpoint.started.wait()
        peer.close()
        [connection] = server.settings.connections
        await eventually(lambda: handler_of(connection).half_closed)
        endpoint.go.set()
        await eventually(lambda: not server.settings.connections)
        await eventually(lambda: not server.handlers)


async def test_while_an_answer_is_due_the_end_is_told_once() -> None:
    endpoint = Endpoint()
    async with served(on("/", endpoint)) as (server, peer), set_at_end(endpoint.go):
        await peer.write(get())
        await endpoint.started.wait()
        connection = await half_closed(server, peer)
        handler, told = connection.handler, 0

        class Counting:
            def __getattr__(self, name: str) -> Any:
                return getattr(handler, name)

            def receive_eof(self) -> bool:
                nonlocal told
                told += 1
                result: bool = handler.receive_eof()
                return result

        connection.handler = Counting()
        # So many turns, in each of which a loop that is not told to wait would tell of it.
        for _ in range(100):
            await asyncio.sleep(0.001)
        assert told == 0
        endpoint.go.set()
        assert len(await asked(peer)) == 1
        assert await peer.read() == b""
        assert told == 1


async def test_without_its_whole_body_a_request_is_not_answered() -> None:
    endpoint = Endpoint()
    async with served(on("/", endpoint, "POST")) as (server, peer):
        await peer.write(get(method="POST", body=b"x" * 1000)[:-1])
        peer.sock.shutdown(socket.SHUT_WR)
        assert await peer.read() == b""
        await eventually(lambda: not server.settings.connections)
        assert not endpoint.started.is_set()


@pytest.mark.parametrize("kind", ["stream", "poll"])
async def test_a_stream_and_a_poll_that_begin_behind_the_end_are_over_at_once(kind: str) -> None:
    go, ended = asyncio.Event(), asyncio.Event()

    async def endpoint(request: rawws.HttpRequest) -> Any:
        await go.wait()
        answer = rawws.EventStream if kind == "stream" else rawws.LongPoll
        return answer(on_close=lambda _: ended.set())

    async with served(on("/", endpoint)) as (server, peer), set_at_end(go):
        await peer.write(get())
        await eventually(lambda: server.handlers)
        await half_closed(server, peer)
        go.set()
        await asyncio.wait_for(ended.wait(), 60)
        await eventually(lambda: not server.settings.connections)


async def test_an_endpoint_that_asks_later_hears_that_its_client_may_be_gone() -> None:
    go, told = asyncio.Event(), asyncio.Event()

    async def endpoint(request: rawws.HttpRequest) -> str:
        await go.wait()
        await request.disconnected()
        told.set()
        return "x"

    async with served(on("/", endpoint)) as (server, peer), set_at_end(go):
        await peer.write(get())
        await eventually(lambda: server.handlers)
        await half_closed(server, peer)
        go.set()
        await asyncio.wait_for(told.wait(), 60)
        assert [answer.body for answer in await asked(peer)] == [b"x"]


async def test_in_tls_where_no_loop_ends_one_side_alone_the_client_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    endpoint = Endpoint()
    server_tls, client_tls = authority_of_tls()
    async with serve(on("/", endpoint), ssl=server_tls) as server, set_at_end(endpoint.go):
        with await asyncio.to_thread(tls_socket, server, client_tls) as sock:
            await asyncio.to_thread(sock.sendall, get())
            await endpoint.started.wait()
            sock.shutdown(socket.SHUT_WR)
            await eventually(lambda: not server.settings.connections)
        endpoint.go.set()
        await eventually(lambda: not server.handlers)
    assert not caplog.records


@pytest.mark.parametrize("how", ["cancel", "watched"])
async def test_where_the_end_of_the_client_counts_that_of_its_side_does(how: str) -> None:
    ended = asyncio.Event()

    async def endpoint(request: rawws.HttpRequest) -> None:
        try:
            await (request.disconnected() if how == "watched" else asyncio.Event().wait())
        finally:
            ended.set()

    routes = rawws.Routes([rawws.Route("/", endpoint, cancel=how == "cancel")])
    async with served(routes) as (server, peer):
        await peer.write(get())
        await eventually(lambda: server.handlers)
        # An endpoint begins in the next turn.
        await asyncio.sleep(0)
        peer.sock.shutdown(socket.SHUT_WR)
        assert await peer.read() == b""
        await asyncio.wait_for(ended.wait(), 60)


async def test_a_websocket_behind_a_request_ends_with_the_end() -> None:
    endpoint, closed = Endpoint(), asyncio.Event()

    async def chat(ws: rawws.WebSocket) -> None:
        await ws.wait_closed()
        closed.set()

    routes = rawws.Routes([rawws.Route("/", endpoint), rawws.Route("/ws", chat, websocket=True)])
    async with served(routes) as (server, peer):
        await peer.write(get() + get("/ws", *UPGRADE))
        await endpoint.started.wait()
        await half_closed(server, peer)
        endpoint.go.set()
        await asyncio.wait_for(closed.wait(), 60)
        assert (await peer.read_to_end()).startswith(b"HTTP/1.1 200 OK")
        await eventually(lambda: not server.settings.connections)


async def test_a_server_that_ends_waits_for_the_answer() -> None:
    endpoint = Endpoint()
    async with served(on("/", endpoint)) as (server, peer), set_at_end(endpoint.go):
        await peer.write(get())
        await endpoint.started.wait()
        await half_closed(server, peer)
        server.close()
        endpoint.go.set()
        [answer] = await asked(peer)
        assert (answer.body, answer.headers["connection"]) == (b"done", "close")
        await server.wait_closed()
