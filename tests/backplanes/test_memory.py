"""The bounds of the memory engine, which a broker lives with for long."""

from __future__ import annotations

import asyncio

import pytest

from rawws.backplanes import memory
from rawws.backplanes.memory import TOPIC_COST, Engine, MemoryBackplane, cost
from rawws.topics import History
from rawws.topics.backplane import HistoryResult, Position
from tests.backplanes.handlers import Told
from tests.server.peers import eventually
from tests.topics.receivers import still


async def test_what_is_let_go_of_is_counted_no_more_whoever_finds_it_too_old() -> None:
    engine = Engine()
    told = Told(MemoryBackplane(engine))
    told.backplane.open("one", History(age=10.0), told)
    await asyncio.sleep(0)
    with still() as clock:
        for number in range(10):
            await told.backplane.publish("a", "x" * 100, None, number)
        clock.now += 10
        assert len((await told.backplane.history("a", None)).records) == 10
        clock.now += 0.5
        past = await told.backplane.history("a", None)
        assert (past.offset, past.records) == (10, [])
        assert engine.size == TOPIC_COST
        place = await told.backplane.publish("a", "x", None, 10)
        assert place == Position(past.epoch, 11)
        [held] = [record for _, record in engine.stored("a").held]
        assert engine.size == TOPIC_COST + cost(held)
    await told.backplane.close()


async def test_over_the_total_the_topics_that_nobody_follows_are_forgotten() -> None:
    engine = Engine()
    told = Told(MemoryBackplane(engine))
    told.backplane.open("one", History(count=1, size=1 << 20, total=2 << 20), told)
    await asyncio.sleep(0)
    await told.backplane.follow("followed")
    await told.backplane.publish("followed", "x", None, 0)
    for number in range(1, 40):
        await told.backplane.publish(f"topic {number}", "x" * 100_000, None, number)
    assert engine.size <= (2 << 20) + 100_000 + TOPIC_COST
    assert "followed" in engine.topics
    assert "topic 1" not in engine.topics
    assert "topic 39" in engine.topics
    await told.backplane.close()


async def test_of_those_who_publish_to_a_topic_the_latest_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MAX_SERVERS", 2)
    engine = Engine()
    servers = [Told(MemoryBackplane(engine)) for _ in range(3)]
    for name, told in zip("abc", servers, strict=True):
        told.backplane.open(name, History(), told)
    await asyncio.sleep(0)
    places = [await told.backplane.publish("t", "x", None, 1) for told in servers]
    assert await servers[1].backplane.publish("t", "x", None, 1) == places[1]
    assert await servers[2].backplane.publish("t", "x", None, 1) == places[2]
    # Of the first it is not known any more that this is the same.
    assert (await servers[0].backplane.publish("t", "x", None, 1)).offset == 4
    for told in servers:
        await told.backplane.close()


async def test_an_engine_that_is_stopped_or_started_twice_says_so_once() -> None:
    engine = Engine()
    told = Told(MemoryBackplane(engine))
    told.backplane.open("one", History(), told)
    for number, end in enumerate((engine.stop, engine.start)):
        end()
        end()
        await eventually(lambda number=number: (len(told.reasons), told.backs) == (1, number + 1))  # type: ignore[misc]
    assert (told.reasons, told.backs) == (["the engine was stopped"], 2)
    await told.backplane.close()


async def test_whoever_was_before_what_is_forgotten_is_told_and_whoever_waits_for_the_first_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # One topic with a record.
    monkeypatch.setattr(memory, "LEAST_TOTAL", 2000)
    monkeypatch.setattr(memory, "MAX_FORGOTTEN", 2)
    engine = Engine()
    told = Told(MemoryBackplane(engine))
    told.backplane.open("one", History(count=1, total=1), told)
    await asyncio.sleep(0)
    ask, publish = told.backplane.history, told.backplane.publish
    start = Position((await ask("a", None)).epoch, 0)
    assert await ask("waits", start) == HistoryResult(*start, [], recovered=True)
    await publish("a", "1", None, 1)
    assert (await ask("a", start)).recovered
    # It takes the place of the other one.
    await publish("b", "1", None, 2)
    assert list(engine.topics) == ["b"]
    again = await ask("a", start)
    assert (again.offset, again.recovered) == (0, False)
    assert (await ask("a", Position(again.epoch, 0))).recovered
    assert (await ask("waits", start)).recovered
    # It is published to again, from where it was since then.
    await publish("a", "2", None, 3)
    assert (await ask("a", Position(again.epoch, 0))).recovered
    assert not (await ask("a", start)).recovered
    # What can be remembered of those that are forgotten is bounded: then nobody is sure.
    for number in range(4):
        await publish(f"{number}", "x", None, 4 + number)
    assert len(engine.forgotten) <= 2
    assert not (await ask("waits", start)).recovered
    await told.backplane.close()


async def test_who_leaves_a_topic_that_there_is_not_changes_nothing() -> None:
    engine = Engine()
    told = Told(MemoryBackplane(engine))
    told.backplane.open("one", History(), told)
    await asyncio.sleep(0)
    told.backplane.leave("a", "nobody")
    for ident in "xy":
        told.backplane.join("a", ident, "null")
    told.backplane.leave("a", "x")
    assert [entry.id for entry in await told.backplane.presence("a")] == ["y"]
    await told.backplane.publish("a", "1", None, 1)
    told.backplane.leave("a", "y")
    assert (await told.backplane.history("a", None)).offset == 1
    await told.backplane.close()
    assert list(engine.topics) == ["a"]
