"""Hubs that `HubClient` is tested against: what they allow, where they are, and how the way to them breaks."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, final

import rawws
from rawws import testing
from rawws.protocol.http11 import HttpResponse
from rawws.testing import Host, Line
from rawws.topics import History, Hub, endpoints
from tests.server.peers import serve

__all__ = ["HASTY", "TRANSPORTS", "Network", "client_of", "gate", "hub_of", "hub_server", "routes_of", "url_of"]

TRANSPORTS: Final = ("websocket", "stream", "poll")


def no_waits() -> itertools.repeat[float]:
    """Wait a little between two attempts."""
    return itertools.repeat(0.01)


HASTY: Final[dict[str, Any]] = {"reconnect_delays": no_waits}


def hub_of(**options: Any) -> Hub:
    """Return a hub that allows all, but what is secret, and what needs another token."""
    delays = itertools.cycle([0.03, 0.02, 0.01, 0.0])

    def authorize(client: Any, _action: str, topic: str) -> bool | Awaitable[bool]:
        if topic == "slower":
            return asyncio.sleep(next(delays), True)
        if topic.startswith("token/"):
            return endpoints.token_of(client) == topic.removeprefix("token/")
        return not topic.startswith("secret")

    return Hub(**{"authorize": authorize, "history": History(count=20_000, size=1 << 25, age=1e6), **options})


def routes_of(hub: Hub, asked: list[str] | None = None) -> rawws.Routes:
    """Return the hub at /topics, and at /guarded and /forbidden, which `gate` guards."""

    async def close(ws: rawws.WebSocket) -> None:
        code = int(ws.path_params["code"])
        ws.close(code, "please log in")

    return rawws.Routes(
        [
            rawws.Route("/closing/{code}", close, websocket=True),
            *endpoints.routes(hub, "/topics"),
            *endpoints.routes(hub, "/guarded"),
            *endpoints.routes(hub, "/forbidden"),
        ]
    )


def gate(ws: rawws.WebSocket, request: Any) -> HttpResponse | None:
    """Let clients in at /guarded with the right token only, at /forbidden never."""
    path, _, query = request.path.partition("?")
    if path == "/guarded" and "token=good" not in query:
        return ws.respond(401, "who are you?")
    return ws.respond(403, "not you") if path == "/forbidden" else None


@asynccontextmanager
async def hub_server(hub: Hub, **options: Any) -> AsyncIterator[rawws.Server]:
    """Serve a hub on a port."""
    async with serve(routes_of(hub), subprotocols=["rawws.v1"], process_request=gate, **options) as server:
        yield server


def url_of(server: rawws.Server, path: str = "/topics") -> str:
    """Return the hub's URL."""
    return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}{path}"


def client_of(
    server: rawws.Server, transport: str = "websocket", path: str = "/topics", **options: Any
) -> rawws.HubClient:
    """Return a client that uses one transport, and comes back soon."""
    return rawws.HubClient(url_of(server, path), **{**HASTY, "transports": [transport], **options})


@final
class Network:
    """A server in memory that may be replaced, and the lines to it: `lines` makes those of each connection."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.host: Host | None = None
        self.lines: Callable[[], tuple[Line, Line]] = lambda: (Line(), Line())
        self.made: list[Line] = []
        self._serving: Any = None

    async def start(self, **options: Any) -> None:
        """Serve the hub, that of now."""
        self._serving = testing.serve(routes_of(self.hub), subprotocols=["rawws.v1"], process_request=gate, **options)
        self.host = await self._serving.__aenter__()

    async def kill(self) -> None:
        """Lose the server without a word."""
        host, self.host = self.host, None
        assert host is not None
        self.cut()
        host.server.abort()
        await self._serving.__aexit__(None, None, None)

    def cut(self) -> None:
        """Cut every line."""
        for line in self.made:
            line.cut()
        self.made.clear()

    async def __aenter__(self) -> Network:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.host is not None:
            await self._serving.__aexit__(None, None, None)

    def link(self, factory: Any) -> asyncio.Transport:
        """Connect a protocol."""
        if self.host is None:
            raise ConnectionRefusedError("nobody is there")
        pair = self.lines()
        self.made += pair
        return self.host._link(*pair)(factory)

    def client(self, url: str = "ws://localhost/topics", **options: Any) -> rawws.HubClient:
        """Return a client on this network."""
        client = rawws.HubClient(url, **options)
        client.address.in_memory = self.link
        return client
