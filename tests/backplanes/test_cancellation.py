"""A backplane is cancelled, or closed, wherever it waits: it leaves no connection and no task behind."""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import count

import pytest

from rawws.topics import History
from tests.backplanes.cuts import cut_everywhere
from tests.backplanes.engine_postgres import PostgresEngine
from tests.backplanes.engine_redis_cluster import RedisClusterEngine
from tests.backplanes.engines import ENGINES, Engine, RedisEngine
from tests.backplanes.handlers import Told, opened
from tests.server.cuts import Cut, Leftovers, cutting, in_its_turn
from tests.server.peers import eventually

# The one in memory waits for nothing, and the others are a Redis.
KINDS = [kind for kind in ENGINES if kind not in {"memory", "redis-sharded", "valkey"}]
# In so many waits, each of the engines is lost.
LOSS = 4


async def left_by(engine: Engine) -> Leftovers:
    """Return what finds what is left behind, but for what the first connection of all makes for good."""
    async with opened(engine, "zero") as told:
        await eventually(lambda: told.backs)
    return Leftovers()


async def reached(engine: Engine) -> Told:
    """Open a backplane, and wait until its engine is reached."""
    told = Told(engine.backplane())
    told.backplane.open("one", History(), told)
    await eventually(lambda: told.backs)
    return told


async def lose(engine: Engine, told: Told, number: int) -> None:
    """Have the engine end the connections of a backplane, or its hub fail, which does the same."""
    servers = engine.cluster.servers if isinstance(engine, RedisClusterEngine) else [engine]
    if isinstance(engine, (RedisEngine, RedisClusterEngine)):
        for kind in ("normal", "pubsub"):
            for server in servers:
                server.ask("CLIENT", "KILL", "TYPE", kind)  # type: ignore[union-attr]
    elif isinstance(engine, PostgresEngine):
        others = "pid <> pg_backend_pid() and backend_type = 'client backend'"
        engine.ask(f"select count(pg_terminate_backend(pid)) from pg_stat_activity where {others}")
    else:
        await told.backplane.follow("a")
        told.fails = OSError("the hub failed")
        told.backplane.publish("a", "x", None, number)


def is_lost(told: Told, cut: Cut) -> bool:
    return bool(told.aways) or cut.is_over


@in_its_turn
async def test_a_session_that_is_cancelled_wherever_it_waits_leaves_nothing_behind(engine: Engine, late: bool) -> None:
    left = await left_by(engine)
    # Each node of a cluster has a session as a Redis has.
    name = "RedisClusterBackplane._run" if isinstance(engine, RedisClusterEngine) else "EngineSession._run"
    with left.heard():
        await cut_everywhere(engine.backplane, name, left, late=late)


@in_its_turn
@pytest.mark.parametrize("name", ["EngineSession._run", ".lose"], ids=["session", "loss"])
async def test_a_session_that_is_cancelled_while_it_loses_its_engine_leaves_nothing_behind(
    engine: Engine, name: str, late: bool
) -> None:
    left = await left_by(engine)
    with left.heard():
        for more in range(LOSS):
            cut = Cut(0, late=late)
            with cutting(name, cut):
                told = await reached(engine)
                # The next wait is the first one of the loss.
                cut.at = cut.waits + 1 + more
                await lose(engine, told, more)
                await eventually(partial(is_lost, told, cut))
            await told.backplane.close()
            await left.check(more)


@in_its_turn
async def test_a_close_that_is_cancelled_wherever_it_waits_can_be_done_again(engine: Engine, late: bool) -> None:
    left = await left_by(engine)
    with left.heard():
        for at in count(1):
            told = await reached(engine)
            cut = Cut(at, late=late)
            closing = asyncio.ensure_future(cut.run(told.backplane.close()))
            await asyncio.wait([closing])
            await told.backplane.close()
            await left.check(at)
            if not closing.cancelled():
                closing.result()
                break
