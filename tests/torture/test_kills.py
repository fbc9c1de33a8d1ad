"""An engine is killed while clients of two servers publish, and started again, with its data and without."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import rawws
from rawws.topics import History, Hub, endpoints
from tests.backplanes.engines import SERVERS, ServerEngine
from tests.server.peers import Logged, eventually, run, serve

EACH = 15


class Talker:
    """A client that publishes and hears all, over one WebSocket."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.count = 0
        self.log: list[str] = []
        # Where in the log it was told that something is missing.
        self.told: list[int] = []

    async def talk(self, port: int) -> None:
        async with rawws.connect(f"ws://127.0.0.1:{port}/topics", subprotocols=["rawws.v1"]) as self.ws:
            await self.ws.send(json.dumps({"id": 0, "subscribe": "a"}))
            async for message in self.ws:
                told: dict[str, Any] = json.loads(message)
                assert "error" not in told, told
                if not told.get("recovered", True):
                    self.told.append(len(self.log))
                if "topic" in told and "data" in told:
                    self.log.append(told["data"])

    async def publish(self, count: int = EACH) -> None:
        for _ in range(count):
            await self.ws.send(json.dumps({"id": self.count + 1, "publish": "a", "data": f"{self.name} {self.count}"}))
            self.count += 1

    def parts(self, name: str) -> list[list[int]]:
        """Return what it heard of somebody, cut where it was told that something is missing."""
        bounds = zip([0, *self.told], [*self.told, len(self.log)], strict=True)
        heard = [self.log[begin:end] for begin, end in bounds]
        return [[int(text.split()[1]) for text in part if text.startswith(f"{name} ")] for part in heard]


@contextlib.asynccontextmanager
async def talking(engine: ServerEngine) -> AsyncIterator[tuple[list[Hub], list[Talker]]]:
    """Give two servers, and three clients of them that are subscribed."""
    talkers = [Talker(name) for name in ("ann", "bob", "eve")]
    async with contextlib.AsyncExitStack() as stack:
        hubs = [Hub(backplane=engine.backplane(), authorize=lambda *_: True, history=History(count=1000)) for _ in "12"]
        for hub in hubs:
            await stack.enter_async_context(hub)
        options = {"subprotocols": ["rawws.v1"]}
        routes = [rawws.Routes(endpoints.routes(hub, "/topics")) for hub in hubs]
        servers = [await stack.enter_async_context(serve(each, **options)) for each in routes]
        ports = [server.sockets[0].getsockname()[1] for server in servers]
        tasks = [asyncio.create_task(each.talk(ports[n // 2])) for n, each in enumerate(talkers)]
        await eventually(lambda: [hub.stats().subscriptions for hub in hubs] == [2, 1])
        await eventually(lambda: not any(hub.stats().degraded for hub in hubs))
        yield hubs, talkers
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            assert task.cancelled() or task.exception() is None, task.exception()


async def kill(engine: ServerEngine, *, forget: bool) -> list[Talker]:
    """Kill it behind what three clients just sent; they go on while it is away, and when it is back."""
    async with talking(engine) as (hubs, talkers):

        async def all_publish() -> None:
            await asyncio.gather(*[each.publish() for each in talkers])

        await all_publish()
        await eventually(lambda: all(len(each.log) == 3 * EACH for each in talkers))
        await all_publish()
        await asyncio.to_thread(engine.kill, forget=forget)
        await all_publish()
        await eventually(lambda: all(hub.stats().degraded for hub in hubs))
        await all_publish()
        await asyncio.to_thread(engine.start)
        await all_publish()
        await eventually(lambda: not any(hub.stats().degraded or hub.stats().unsent for hub in hubs))
        await all_publish()
        await eventually(lambda: all(each.parts(name)[-1][-1:] == [6 * EACH - 1] for each in talkers for name in NAMES))
        assert all(hub.stats().lost == 0 for hub in hubs)
        return talkers


NAMES = ("ann", "bob", "eve")


@pytest.mark.parametrize("forget", [False, True], ids=["with its data", "without its data"])
@pytest.mark.parametrize("server", SERVERS)
def test_an_engine_that_is_killed_while_clients_publish_costs_nothing_that_is_not_told(
    server: str, forget: bool, tmp_path: Path, logged: Logged
) -> None:
    engine = SERVERS[server](tmp_path)
    try:
        talkers = run(kill(engine, forget=forget), 300)
    finally:
        engine.end()
    ann, bob, _ = talkers
    # Clients of one server hear the same, in one order.
    assert (ann.log, ann.told) == (bob.log, bob.told)
    for each in talkers:
        assert bool(each.told) == forget
        for name in NAMES:
            if forget:
                assert all(part == sorted(set(part)) for part in each.parts(name))
            else:
                assert each.parts(name) == [[*range(6 * EACH)]]
    for text in ("the backplane is away", "the backplane is back"):
        logged.take_all(text, sum(text in each for each in logged.left()))
