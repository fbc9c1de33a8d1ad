"""Soak, HTTP/2: `python -m tests.soak.http2 --frames 1000000`; ends with 1 where anything is wrong, or left behind.

A server and its clients in one process exchange so many frames: WebSockets, requests, bodies, event streams that end
and that are reset, streams that break a rule, pings. Every answer is compared. Meanwhile nothing may be over its limit,
and at the end there must be no stream, no entry of a table, no timer, no task and no object that was not there before.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, Final

import rawws
from rawws.errors import Close
from rawws.net.streams import StreamTransport
from rawws.net.websocket import WebSocket
from rawws.protocol.http2_streams import Http2Stream
from rawws.server.http2 import Http2Connection
from rawws.server.stream_requests import StreamRequests
from tests.compiled import refuse
from tests.server.http2_client import Client, reach
from tests.server.peers import eventually, handler_of, serve

# Each in a lane of its own on each connection.
CONNECTIONS: Final = 4
# How many closed streams a side remembers, and how large a table of header fields is, in octets.
REMEMBERED, TABLE_SIZE = 256, 4096
# What no connection leaves behind.
KINDS: Final = (Http2Stream, StreamTransport, StreamRequests, WebSocket, Http2Connection)
BODY_SIZE: Final = 100_000

Lane = Callable[[Client, Random], Coroutine[Any, Any, None]]


def site() -> rawws.Routes:
    """Serve what the lanes ask for."""
    routes = rawws.Routes()

    @routes.get("/item/{name}")
    def item(request: rawws.HttpRequest) -> str:
        return request.path_params["name"]

    @routes.post("/echo")
    def echo(request: rawws.HttpRequest) -> bytes:
        return request.body

    @routes.get("/events/{count}")
    def events(request: rawws.HttpRequest) -> rawws.EventStream:
        stream = rawws.EventStream()
        for number in range(int(request.path_params["count"])):
            stream.send(str(number))
        if "ends" in request.query:
            stream.close()
        return stream

    @routes.websocket("/ws")
    async def talk(ws: rawws.WebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    return routes


async def websocket(client: Client, dice: Random) -> None:
    """Talk on a WebSocket, and close it with a code of its own."""
    answer = await client.connect("/ws")
    for number in range(50):
        answer.send(text := f"{number} " + "x" * dice.randrange(300))
        event = await answer.recv()
        assert event == text, event
    code = dice.randrange(4000, 5000)
    answer.websocket.close(code, "enough")
    answer.flush()
    event = await answer.recv()
    assert event == Close(code, "enough"), event
    answer.write(b"", end=True)
    await answer.whole()
    assert answer.reset is None, answer.reset
    del client.answers[answer.stream.id]


async def requests(client: Client, dice: Random) -> None:
    """Ask for some at once."""
    names = [f"{dice.randrange(1 << 60):x}" for _ in range(20)]
    for name, answer in zip(names, await client.gather(f"/item/{name}" for name in names), strict=True):
        assert answer.text() == name, answer.text()
        del client.answers[answer.stream.id]


async def bodies(client: Client, dice: Random) -> None:
    """Send a body of many frames, and have it come back."""
    body = dice.randbytes(dice.randrange(BODY_SIZE))
    answer = await client.request("/echo", "POST", body=body).whole()
    assert answer.body == body, len(answer.body)
    del client.answers[answer.stream.id]


async def events(client: Client, dice: Random) -> None:
    """Read event streams: one that ends, and one that does not and is reset."""
    count = dice.randrange(1, 20)
    ended = await client.request(f"/events/{count}?ends").whole()
    assert ended.body.count(b"data: ") == count, ended.body
    left = client.request(f"/events/{count}")
    await left.until(f"data: {count - 1}\n".encode())
    client.core.reset(left.stream)
    client.flush()
    for answer in (ended, left):
        del client.answers[answer.stream.id]


async def mistakes(client: Client, _dice: Random) -> None:
    """Break a rule on a stream, and ping; not more often than the limits allow."""
    answer = client.request("/echo", "POST", ("Content-Length", "5"), body=b"more than five")
    await answer.whole()
    assert answer.reset is not None, answer.status
    del client.answers[answer.stream.id]
    client.core.ping(b"soaking!")
    client.flush()
    await client.wait(lambda: client.pings.pop(b"soaking!", None) is not None)
    await asyncio.sleep(0.2)


LANES: Final[tuple[Lane, ...]] = (websocket, websocket, requests, bodies, events, mistakes)


async def soak(frames: int, seed: int) -> list[str]:
    """Exchange so many frames with a server; return what is wrong."""
    loop = asyncio.get_running_loop()
    before = held(loop)
    async with serve(site(), http2=True) as server:
        idle = held(loop)
        faults = await exchange(server, frames, seed)
        await eventually(lambda: not server.settings.connections)
        if server.context.carriers:
            faults.append(f"{len(server.context.carriers)} connections with streams at the end")
        # The timer of all connections stops within a second.
        await eventually(lambda: not more(idle, held(loop)))
    return faults + more(before, held(loop))


async def exchange(server: rawws.Server, frames: int, seed: int) -> list[str]:
    """Have clients do all that there is until there were so many frames; return what is wrong."""
    rounds: Counter[str] = Counter()
    began = time.monotonic()
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(reach(server)) for _ in range(CONNECTIONS)]

        async def go_round(lane: Lane, client: Client, dice: Random) -> None:
            while sum(each.frames for each in clients) < frames:
                await lane(client, dice)
                rounds[lane.__name__] += 1

        # The first lane that fails ends all.
        async with asyncio.TaskGroup() as group:
            for number, client in enumerate(clients):
                for place, lane in enumerate(LANES):
                    group.create_task(go_round(lane, client, Random(f"{seed} {number} {place}")))
        counted, took = sum(each.frames for each in clients), time.monotonic() - began
        print(f"{counted:,} frames in {took:.0f} s on {CONNECTIONS} connections, seed {seed}")
        print(*(f"{number:,} x {name}" for name, number in sorted(rounds.items())), sep=", ")
        faults = [fault for client in clients for fault in over("a client", client.core)]
        # A stream is one until it is over.
        await eventually(lambda: len(server.settings.connections) == CONNECTIONS)
        for connection in server.settings.connections:
            handler = handler_of(connection)
            assert isinstance(handler, Http2Connection), handler
            await eventually(lambda handler=handler: not handler.core.streams and not handler.streams)  # type: ignore[misc]
            faults += over("the server", handler.core)
    return faults


def over(who: str, core: Any) -> list[str]:
    """Return what one end of a connection holds that it should not."""
    found = {
        "streams": (len(core.streams), 0),
        "closed streams": (len(core.closed), REMEMBERED),
        "octets in the decoder's table": (core.decoder.table.size, TABLE_SIZE),
        "octets in the encoder's table": (core.encoder.table.size, TABLE_SIZE),
        "bytes to write": (core.pending(), 0),
    }
    wrong = [f"{who} has {count} {what}, limit {limit}" for what, (count, limit) in found.items() if count > limit]
    return wrong + ([f"{who} failed: {core.error}"] if core.error is not None else [])


def held(loop: asyncio.AbstractEventLoop) -> Counter[str]:
    """Count what there is of each kind: objects, tasks and timers."""
    gc.collect()
    kinds = {kind.__name__: kind for kind in KINDS}
    found = Counter(type(each).__name__ for each in gc.get_objects() if isinstance(each, KINDS))
    assert set(found) <= set(kinds), found
    timers: list[asyncio.TimerHandle] = loop._scheduled  # type: ignore[attr-defined]
    found["timers"] = sum(not timer.cancelled() for timer in timers)
    found["tasks"] = len(asyncio.all_tasks(loop))
    return found


def more(before: Counter[str], after: Counter[str]) -> list[str]:
    """Return what there is more of."""
    return [f"{name}: {after[name]} at the end, {before[name]} at the beginning" for name in after - before]


def main() -> int:
    """Run the soak, and return the exit status."""
    words = argparse.ArgumentParser(prog="python -m tests.soak.http2", description=__doc__)
    words.add_argument("--frames", type=int, default=1_000_000, help="how many, both ways (default: %(default)s)")
    words.add_argument("--seed", type=int, default=1, help="of the dice (default: %(default)s)")
    options = words.parse_args()
    refuse()
    # uvloop does not say which timers there are.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        faults = runner.run(soak(options.frames, options.seed))
    print(*faults, f"{len(faults)} faults", sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
