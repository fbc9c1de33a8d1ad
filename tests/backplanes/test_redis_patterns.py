"""Patterns in a Redis: their keys, for how long they are there, and what is wrong with one of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from rawws.backplanes import redis_node
from rawws.backplanes.redis import RedisBackplane
from rawws.topics import Hub
from rawws.topics.backplane import TopicUnavailable
from rawws.topics.patterns import Pattern
from tests.backplanes.engines import RedisEngine
from tests.backplanes.handlers import Reader, hubs, opened
from tests.server.peers import Logged, eventually

ON_ONE_LOOP = True

NEWS: Final = Pattern("news/*")
PLACE: Final = "rawws:{%00news%2F%2A}:place"
LOG: Final = "rawws:{%00news%2F%2A}:log"
FOLLOWED: Final = "rawws:patterns"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[RedisEngine]:
    made = RedisEngine(tmp_path)
    yield made
    made.end()


async def joined(hub: Hub, **options: Any) -> Reader:
    reader = Reader()
    await hub.subscribe(reader, "news/*", pattern=True, **options)
    return reader


async def test_a_pattern_that_nobody_follows_is_forgotten_and_who_comes_back_is_told(engine: RedisEngine) -> None:
    async with hubs(engine) as (one, two):
        reader = await joined(one)
        await two.publish("news/a", "1")
        await eventually(lambda: reader.got == ["1"])
        # Each publication costs something as long as they are there.
        for key in (PLACE, FOLLOWED):
            assert 0 < engine.ask("PTTL", key) <= redis_node.LEAST_PATTERN_AGE
        assert 0 < engine.ask("PTTL", LOG) <= 300_000
    # It is over by then.
    engine.ask("ZADD", FOLLOWED, 1, NEWS)
    async with hubs(engine) as (one, two):
        await two.publish("news/a", "2")
        assert engine.ask("HGET", PLACE, "offset") == b"1"
        engine.ask("ZADD", FOLLOWED, 1, "\0other/*")
        back = Reader()
        subscription = await one.subscribe(back, "news/*", pattern=True, since=reader.cursors[-1])
        assert not subscription.recovered
        assert engine.ask("ZRANGE", FOLLOWED, 0, -1) == [NEWS.encode()]
        await two.publish("news/a", "3")
        await eventually(lambda: back.got == ["3"])
        assert engine.ask("XLEN", LOG) == 1


async def test_a_pattern_that_is_followed_is_kept_and_who_has_it_is_told_where_it_was_not(
    engine: RedisEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_node, "LEAST_PATTERN_AGE", 100)
    async with Hub(backplane=RedisBackplane(engine.url, lease=1.0)) as hub:
        reader = await joined(hub)
        await hub.publish("news/a", "1")
        before = float(engine.ask("ZSCORE", FOLLOWED, NEWS))
        await eventually(lambda: float(engine.ask("ZSCORE", FOLLOWED, NEWS) or 0) > before)
        assert reader.moves == []
        engine.ask("ZREM", FOLLOWED, NEWS)
        await hub.publish("news/a", "2")
        await eventually(lambda: reader.moves)
        assert [recovered for _, recovered in reader.moves] == [False]
        await hub.publish("news/a", "3")
        await eventually(lambda: reader.got[-1] == "3")
        assert (hub.stats().declared, hub.stats().unsent) == (1, 0)


async def test_a_place_that_is_gone_is_told_with_the_next_publication(engine: RedisEngine) -> None:
    async with hubs(engine) as (one, two):
        readers = [await joined(one), await joined(two)]
        engine.ask("DEL", PLACE)
        await one.publish("news/a", "1")
        await eventually(lambda: all(reader.lost_at for reader in readers))
        await two.publish("news/b", "2")
        await eventually(lambda: all(reader.got[-1:] == ["2"] for reader in readers))
        assert engine.ask("PTTL", PLACE) > 0


async def test_what_is_wrong_with_the_log_of_a_pattern_is_no_fault_of_a_topic(
    engine: RedisEngine, logged: Logged
) -> None:
    async with hubs(engine) as (one, two):
        reader, named = await joined(two), Reader()
        await two.subscribe(named, "news/a")
        # A log that is none begins anew, which is told.
        engine.ask("SET", LOG, "of another program")
        for number in range(3):
            assert (await one.publish("news/a", str(number))).accepted
        await eventually(lambda: named.got == ["0", "1", "2"] and reader.lost_at)
        await one.publish("news/a", "3")
        await eventually(lambda: reader.got[-1:] == ["3"])
        # A place that is none is left to whom it is of.
        engine.ask("SET", PLACE, "of another program")
        assert (await one.publish("news/a", "4")).accepted
        await eventually(lambda: named.got[-1] == "4" and reader.faults)
        async with opened(engine, "three") as three:
            await eventually(lambda: three.backs)
            with pytest.raises(TopicUnavailable, match="WRONGTYPE"):
                await three.backplane.follow(NEWS)
            assert (await three.backplane.publish("news/a", "5", None, 1)).offset == 6
        assert engine.ask("GET", PLACE) == b"of another program"
        lost = len(reader.lost_at)
        engine.ask("DEL", PLACE)
        await eventually(lambda: len(reader.lost_at) > lost)
        assert (await one.publish("news/a", "again")).accepted
        await eventually(lambda: reader.got[-1:] == ["again"])
        logged.take_all("the backplane cannot serve all of the topic", 1)
        logged.take_all("the backplane serves the topic", 1)
        assert one.stats().unsent == two.stats().unsent == 0


async def test_a_program_that_is_no_hub_publishes_to_patterns_too(engine: RedisEngine) -> None:
    async with hubs(engine) as (one, two):
        readers = [await joined(one), await joined(two)]
        script = engine.ask("HGET", "rawws:hub", "publish").decode()
        for number in range(3):
            engine.ask("EVAL", script, 0, "rawws", f"news/é {number}", f'{{"n": {number}}}', "", "", "json")
        await eventually(lambda: all(len(reader.got) == 3 for reader in readers))
        assert readers[0].got == ['{"n": 0}', '{"n": 1}', '{"n": 2}']
        assert readers[0].cursors == readers[1].cursors
        again = await joined(two, since="earliest")
        assert again.got == readers[0].got
