"""A server of topics, and clients that speak rawws.v1 to it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, final

import rawws
from rawws.topics import Hub, HubHandler
from tests.server.peers import Peer, narrow, serve

__all__ = ["Client", "allow", "client", "served"]


def allow(_client: Any, _action: str, _topic: str) -> bool:
    return True


@final
class Client:
    """A client of rawws.v1 over a WebSocket: what it says is a dict, and so is what it hears."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer

    async def say(self, **fields: Any) -> None:
        await self.peer.send(json.dumps(fields))

    async def hear(self) -> dict[str, Any]:
        message = await self.peer.message()
        assert isinstance(message, str)
        heard = json.loads(message)
        assert isinstance(heard, dict)
        return heard

    async def ask(self, **fields: Any) -> dict[str, Any]:
        """Say something, and return what is heard next."""
        await self.say(**fields)
        return await self.hear()


def routes_of(hub: Hub, *, callbacks: bool) -> rawws.Routes:
    routes = rawws.Routes()
    routes.websocket("/ws")(HubHandler(hub) if callbacks else hub.serve)
    routes.get("/stream")(hub.stream)
    routes.get("/poll")(hub.poll)
    routes.post("/")(hub.post)
    return routes


@asynccontextmanager
async def served(
    hub: Hub, *, callbacks: bool = False, slow: bool = False, **options: Any
) -> AsyncIterator[rawws.Server]:
    """Serve a hub at /ws, /stream, /poll and /; `slow` has writes stop in the middle."""
    routes = routes_of(hub, callbacks=callbacks)
    options = {"subprotocols": ["rawws.v1"], **options}
    async with rawws.serve(routes, sock=narrow(), **options) if slow else serve(routes, **options) as server:
        yield server


@asynccontextmanager
async def client(server: rawws.Server, *fields: str, receive_buffer: int = 0) -> AsyncIterator[Client]:
    """Give a client whose handshake is done."""
    peer = await Peer.reach(server.sockets[0].getsockname(), receive_buffer)
    try:
        await peer.shake_hands(*(fields or ("Sec-WebSocket-Protocol: rawws.v1",)), line="GET /ws HTTP/1.1")
        yield Client(peer)
    finally:
        peer.close()
