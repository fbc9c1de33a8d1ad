"""An ASGI application beside routes: it answers what no route does, over HTTP and WebSocket, with its lifespan."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

import rawws
from rawws.integrations.asgi import Application
from tests.integrations.serving import Receive, Send, echo
from tests.server.peers import serve

told: list[str] = []


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await echo(scope, receive, send)
    elif scope["type"] == "http":
        answer = f"{scope['method']} {scope['path']} {scope['query_string'].decode()}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": answer})
    else:
        for _ in range(2):
            told.append((await receive())["type"])
            await send({"type": f"{told[-1]}.complete"})


async def upper(ws: rawws.WebSocket) -> None:
    async for message in ws:
        await ws.send(str(message).upper())


@contextlib.asynccontextmanager
async def beside(**options: Any) -> AsyncIterator[str]:
    routes = [
        rawws.Route("/{rest:path}", Application(app)),
        rawws.Route("/hello", lambda _: "from the route"),
        rawws.Route("/rooms/{name}", lambda request: request.path_params["name"]),
        rawws.Route("/upper", upper, websocket=True),
    ]
    async with serve(rawws.Routes(routes), **options) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_what_no_route_answers_the_application_does() -> None:
    told.clear()
    async with beside() as address, httpx.AsyncClient(base_url=f"http://{address}", timeout=60) as client:
        assert told == ["lifespan.startup"]
        assert (await client.get("/hello")).text == "from the route"
        assert (await client.get("/rooms/a")).text == "a"
        assert (await client.get("/")).text == "GET / "
        assert (await client.put("/rooms/a/b//..%2F?c=d", content=b"body")).text == "PUT /rooms/a/b//../ c=d"
        # A route decides on all methods of its path.
        assert (await client.post("/hello")).status_code == 405
    assert told == ["lifespan.startup", "lifespan.shutdown"]


async def test_websockets_are_those_of_the_route_or_of_the_application() -> None:
    async with beside(subprotocols=["other"]) as address:
        for path, answer in (("/upper", "HELLO"), ("/", "hello"), ("/rooms", "hello")):
            async with connect(f"ws://{address}{path}", subprotocols=[Subprotocol("other")]) as ws:
                await ws.send("hello")
                assert await ws.recv() == answer


async def test_an_application_that_does_not_start_is_not_served() -> None:
    async def fails(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    with pytest.raises(RuntimeError, match="no database"):
        await serve(rawws.Routes([rawws.Route("/{rest:path}", Application(fails))]))


@pytest.mark.parametrize(
    ("route", "why"),
    [
        (rawws.Route("/app/{rest:path}", Application(app)), "allowed for an application is '/{rest:path}'"),
        (rawws.Route("/", Application(app)), "allowed for an application is '/{rest:path}'"),
        (rawws.Route("/{rest:path}", Application(app), ["POST"]), "it answers all itself"),
        (rawws.Route("/{rest:path}", Application(app), websocket=True), "it answers all itself"),
    ],
)
def test_what_cannot_be_said_of_an_application_raises(route: rawws.Route, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        rawws.Routes([route])


def test_there_is_one_application() -> None:
    with pytest.raises(ValueError, match="there is an application for the rest of the paths already"):
        rawws.Routes([rawws.Route("/{rest:path}", Application(app)), rawws.Route("/{all:path}", Application(app))])
