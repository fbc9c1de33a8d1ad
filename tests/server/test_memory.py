"""What a connection that waits keeps: the objects that are its own, in bytes."""

from __future__ import annotations

import gc
import sys
import types
from collections.abc import Iterable
from contextlib import AsyncExitStack

import rawws
from rawws._twins import running
from tests.server.answers import get
from tests.server.peers import Peer, connected, eventually, serve

# What a server, or the whole program, has one of. Behind it nothing is a connection's.
SHARED = (type, types.ModuleType, types.FunctionType, types.FrameType, types.CoroutineType)
NAMES = {"Settings", "Server", "ServerContext", "Reactor", "Shared", "Loop", "_UnixSelectorEventLoop"}

# At most, in bytes, by the twin and by what a connection is. Where a compiled object has octets or a `str`, the garbage
# collector does not see them: the head of a WebSocket's request is not among it.
STREAM, WEBSOCKET = "event stream", "WebSocket in callbacks"
MOST = {
    ("compiled", STREAM): 1229,
    ("compiled", WEBSOCKET): 1100,
    ("interpreted", STREAM): 1600,
    ("interpreted", WEBSOCKET): 1800,
}


def reachable(start: object) -> dict[int, object]:
    """Return what a connection leads to, by the ids."""
    found: dict[int, object] = {}
    waiting = [start]
    while waiting:
        each = waiting.pop()
        if id(each) not in found and not isinstance(each, SHARED) and type(each).__name__ not in NAMES:
            found[id(each)] = each
            waiting += gc.get_referents(each)
    return found


def own_size(one: object, others: Iterable[object]) -> tuple[int, list[str]]:
    """Return how many bytes the objects have that one connection leads to and no other does, and what they are."""
    shared = {ident for other in others for ident in reachable(other)}
    own = [each for ident, each in reachable(one).items() if ident not in shared]
    sizes = [(sys.getsizeof(each), type(each).__name__) for each in own]
    return sum(size for size, _ in sizes), [f"{size} {name}" for size, name in sorted(sizes, reverse=True)]


class Echo(rawws.Handler):
    def on_message(self, ws: rawws.WebSocket, message: str | bytes) -> None:
        ws.send(message)


def check(kind: str, server: rawws.Server) -> None:
    """Look at one of the connections that a server has, beside the others."""
    gc.collect()
    one, *others = server.settings.connections
    size, found = own_size(one, others)
    # Less were a mistake of this test.
    assert MOST[running(), kind] // 2 < size <= MOST[running(), kind], (size, found)


async def test_an_idle_event_stream_keeps_little() -> None:
    routes = rawws.Routes()
    streams: list[rawws.EventStream] = []

    @routes.get("/events")
    def events(request: rawws.HttpRequest) -> rawws.EventStream:
        streams.append(rawws.EventStream())
        return streams[-1]

    async with serve(routes, engine="epoll") as server:
        address = server.sockets[0].getsockname()
        peers = [await Peer.reach(address) for _ in range(3)]
        for peer in peers:
            await peer.write(get("/events"))
            assert (await peer.response()).status == 200
        await eventually(lambda: len(streams) == 3)
        check(STREAM, server)
        for peer in peers:
            peer.close()


async def test_an_idle_websocket_in_callbacks_keeps_little() -> None:
    async with serve(Echo(), engine="epoll") as server, AsyncExitStack() as stack:
        for _ in range(3):
            peer = await stack.enter_async_context(connected(server))
            await peer.send("hi")
            assert await peer.message() == "hi"
        check(WEBSOCKET, server)
