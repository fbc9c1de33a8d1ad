"""Publishing without a hub in a Redis Cluster, as docs/run/redis.md shows it: a function at each master."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

import pytest

from rawws.backplanes.redis_scripts import function_name
from tests.backplanes.engine_redis_cluster import RedisClusterEngine
from tests.backplanes.handlers import Reader, hubs
from tests.backplanes.test_redis_cluster import take_transitions, topics_of
from tests.processes import LOOPBACK, ROOT, find_program
from tests.server.peers import Logged, eventually

ON_ONE_LOOP = True

PAGE: Final = (ROOT / "docs" / "run" / "redis.md").read_text(encoding="utf-8")
[COMMAND] = re.findall(r"^redis-cli -c FCALL .*$", PAGE, re.MULTILINE)
ODD: Final = "\u00e9/a b:{c}%~_.-\u20ac\U0001f600"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[RedisClusterEngine]:
    find_program("redis-cli", "apt-get install redis-tools")
    made = RedisClusterEngine(tmp_path)
    yield made
    made.end()


async def shell(engine: RedisClusterEngine, topic: str, *words: str, key: str | None = None) -> str:
    """Run the command of the page in a shell, at the first node, for a topic and what stands behind it."""
    named = f"{engine.prefix}:{{{quote(topic, safe='')}}}:place" if key is None else key
    port = engine.cluster.servers[0].port
    command = COMMAND.replace("redis-cli", f"redis-cli -h {LOOPBACK} -p {port}").partition(" 1 ")[0]
    command = command.replace("rawws_publish", function_name(engine.prefix))
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", f'{command} 1 "$@"', "sh", named, engine.prefix, topic, *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return out.decode().strip()


async def test_a_shell_publishes_to_topics_of_each_master_by_any_node(engine: RedisClusterEngine) -> None:
    async with hubs(engine) as (one, two):
        for topic in (ODD, *topics_of(engine.cluster).values()):
            reader = Reader()
            await two.subscribe(reader, topic)
            # Nothing was published to it yet.
            epoch, offset = (await shell(engine, topic, "from a shell: Gr\u00fc\u00dfe")).split()
            assert offset == "1"
            assert (await one.publish(topic, "from a hub")).cursor == f"{epoch}:2"
            assert (await shell(engine, topic, '{"x": 1}', "", "move", "json")).split() == [epoch, "3"]
            wanted = ["from a shell: Gr\u00fc\u00dfe", "from a hub", '{"x": 1}']
            await eventually(lambda reader=reader, wanted=wanted: reader.got == wanted)  # type: ignore[misc]
            back = Reader()
            assert (await one.subscribe(back, topic, since=f"{epoch}:1")).recovered
            assert back.got == wanted[1:]
        assert [hub.stats().declared for hub in (one, two)] == [0, 0]


async def test_what_cannot_be_is_refused_with_a_reason(engine: RedisClusterEngine) -> None:
    assert "Function not found" in await shell(engine, "a", "before any hub")
    async with hubs(engine, 1) as (hub,):
        await hub.publish("a", "1")
        assert f"the key of this topic is {engine.prefix}:{{a}}:place" in await shell(
            engine, "a", "x", key=f"{engine.prefix}:{{b}}:place"
        )
        assert "the topic must have 1 to 255 printable bytes of UTF-8" in await shell(engine, "", "x")
        assert "the last may be 'json'" in await shell(engine, "a", "{", "", "", "json")
        assert "allowed are a prefix, a topic, a message" in await shell(engine, "a")
        assert (await hub.publish("a", "2")).cursor.endswith(":2")


async def test_behind_a_restart_that_lost_nothing_it_goes_on_when_a_hub_is_back(
    engine: RedisClusterEngine, logged: Logged
) -> None:
    async with hubs(engine, 1) as (hub,):
        reader = Reader()
        await hub.subscribe(reader, "a")
        await shell(engine, "a", "1")
        await eventually(lambda: reader.got == ["1"])
        engine.kill()
        await eventually(lambda: hub.stats().degraded)
        engine.start()
        await eventually(lambda: not hub.stats().degraded)
        assert (await shell(engine, "a", "2")).split()[1] == "2"
        await eventually(lambda: reader.got == ["1", "2"])
        assert (reader.lost_at, hub.stats().declared) == ([], 0)
    take_transitions(logged)
    logged.take_all("topics are degraded", sum("topics are degraded" in line for line in logged.left()))


def test_a_prefix_names_a_function_of_its_own() -> None:
    names = [function_name(prefix) for prefix in ("rawws", "my-app", "my_app", "my.app", "a:b")]
    assert names == ["rawws_publish", "my_2dapp_publish", "my_5fapp_publish", "my_2eapp_publish", "a_3ab_publish"]
