"""Endpoints whose client is gone: they are told, they count, and they keep nothing of it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

import rawws
from tests.server.answers import ask, asked, get, on, served
from tests.server.peers import Peer, eventually, serve, set_at_end


class Endpoint:
    """An endpoint that waits, and says how it ended."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.go = asyncio.Event()
        self.ended = ""

    async def __call__(self, request: rawws.HttpRequest) -> str:
        self.started.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.ended = "cancelled"
            raise
        self.ended = "done"
        return "done"


async def test_at_the_end_of_the_server_a_slow_reader_has_its_time_and_no_more() -> None:
    routes = rawws.Routes()
    routes.get("/")(lambda _: "x" * (8 << 20))
    async with serve(routes, close_timeout=0.3) as server:
        peer = await Peer.reach(server.sockets[0].getsockname(), 2048)
        await peer.write(get())
        await peer.read(1000)
        server.close()
        # It goes on and on.
        with contextlib.suppress(ConnectionError):
            while server.settings.connections:
                await peer.read(1000)
                await asyncio.sleep(0.02)
        peer.close()
        assert server.stats().aborted == 1


@pytest.mark.parametrize("cancel", [False, True])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_an_endpoint_is_cancelled_with_its_client_where_its_route_says_so(cancel: bool, method: str) -> None:
    endpoint = Endpoint()
    routes = rawws.Routes()
    if method == "POST":
        routes.post("/", cancel=cancel)(endpoint)
    else:
        routes.get("/", cancel=cancel)(endpoint)
    async with served(routes) as (server, peer), set_at_end(endpoint.go):
        await peer.write(get(method=method))
        await endpoint.started.wait()
        peer.reset()
        await eventually(lambda: not server.settings.connections)
        if not cancel:
            endpoint.go.set()
        await eventually(lambda: endpoint.ended)
        assert endpoint.ended == ("cancelled" if cancel else "done")


async def test_an_endpoint_that_is_answered_is_not_cancelled_and_the_connection_goes_on() -> None:
    endpoint = Endpoint()
    endpoint.go.set()
    routes = rawws.Routes([rawws.Route("/", endpoint, cancel=True)])
    async with served(routes) as (_, peer), set_at_end(endpoint.go):
        await peer.write(get() + get())
        assert [answer.body for answer in await asked(peer, ["GET", "GET"])] == [b"done", b"done"]


def test_a_route_for_websockets_cannot_be_cancelled() -> None:
    async def chat(ws: rawws.WebSocket) -> None: ...

    with pytest.raises(ValueError, match="/ is for WebSockets, allowed beside cancel are methods"):
        rawws.Routes([rawws.Route("/", chat, websocket=True, cancel=True)])


async def test_a_request_tells_when_its_client_is_gone() -> None:
    told = asyncio.Event()

    async def endpoint(request: rawws.HttpRequest) -> None:
        await request.disconnected()
        await request.disconnected()
        told.set()

    async with served(on("/", endpoint)) as (server, peer):
        await peer.write(get())
        await eventually(lambda: server.handlers)
        assert not told.is_set()
        peer.close()
        await asyncio.wait_for(told.wait(), 60)


@pytest.mark.parametrize("stream", [False, True], ids=["answered", "stream"])
async def test_a_task_beside_the_endpoint_is_told_when_nothing_can_be_answered_any_more(stream: bool) -> None:
    tasks: list[asyncio.Task[None]] = []

    async def endpoint(request: rawws.HttpRequest) -> Any:
        tasks.append(asyncio.create_task(request.disconnected()))
        await asyncio.sleep(0)
        return rawws.EventStream() if stream else "x"

    async with served(on("/", endpoint)) as (_, peer):
        await peer.write(get())
        await peer.response()
        if stream:
            assert not tasks[0].done()
            peer.close()
        await asyncio.wait_for(tasks[0], 60)


async def test_an_endpoint_whose_client_is_gone_counts_as_a_connection_until_it_is_done() -> None:
    endpoint = Endpoint()
    async with serve(on("/", endpoint), max_connections=2) as server, set_at_end(endpoint.go):
        peers = [await Peer.reach(server.sockets[0].getsockname()) for _ in range(2)]
        for peer in peers:
            await peer.write(get())
        await eventually(lambda: server.handlers == 2)
        for peer in peers:
            peer.reset()
        await eventually(lambda: not server.settings.connections)
        [answer] = await ask(server, get())
        assert answer.status == 503
        endpoint.go.set()
        await eventually(lambda: not server.handlers)
        [answer] = await ask(server, get())
        assert (answer.status, answer.body) == (200, b"done")


@pytest.mark.parametrize("early", [False, True], ids=["read later", "read before"])
async def test_an_endpoint_whose_client_is_gone_does_not_keep_the_body(early: bool) -> None:
    requests: list[rawws.HttpRequest] = []
    go = asyncio.Event()

    async def endpoint(request: rawws.HttpRequest) -> None:
        if early:
            assert request.text() == "x" * 1000
        requests.append(request)
        await go.wait()

    async with served(on("/", endpoint, "POST")) as (server, peer):
        await peer.write(get(method="POST", body=b"x" * 1000))
        await eventually(lambda: requests)
        peer.reset()
        await eventually(lambda: not server.settings.connections)
        if not early:
            # Who sends and goes at once is heard.
            assert requests[0].body == b"x" * 1000
        with pytest.raises(rawws.LocalProtocolError, match="the client is gone, and the body with it"):
            requests[0].text()
        requests.clear()
        go.set()


async def test_the_body_of_a_client_that_is_there_may_be_read_again_and_again() -> None:
    async def endpoint(request: rawws.HttpRequest) -> str:
        assert request.body == b"[1]"
        await asyncio.sleep(0)
        return f"{request.json()} {request.text()}"

    async with serve(on("/", endpoint, "POST")) as server:
        [answer] = await ask(server, get(method="POST", body=b"[1]"), ["POST"])
        assert answer.body == b"[1] [1]"
