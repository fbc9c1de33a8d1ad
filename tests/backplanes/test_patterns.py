"""Patterns behind a backplane: all their topics have one order and one cursor, and nothing is lost silently."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from rawws.topics import History, Hub, PublishResult, TopicError
from rawws.topics.backplane import Placed, Position, Record
from rawws.topics.patterns import Pattern
from tests.backplanes.engines import Engine
from tests.backplanes.handlers import Reader, hubs, opened
from tests.server.peers import Logged, eventually

ALL, NEWS, SPORT = Pattern("*"), Pattern("news/*"), Pattern("news/sport/*")


# Those that have patterns.
KINDS = ("memory", "broker", "redis", "redis-sharded", "valkey")


async def joined(hub: Hub, pattern: str = "news/*", **options: Any) -> Reader:
    reader = Reader()
    await hub.subscribe(reader, pattern, pattern=True, **options)
    return reader


@pytest.mark.parametrize(
    "url", ["redis+cluster://127.0.0.1:1", "postgresql://127.0.0.1:1", "nats://127.0.0.1:1", "kafka://127.0.0.1:1"]
)
async def test_an_engine_that_has_no_patterns_refuses_them_by_name_and_leaves_nothing(url: str) -> None:
    hub = Hub(backplane=url)
    with pytest.raises(TopicError, match="the engine of the backplane has no patterns: name the topics") as caught:
        hub.subscribe(Reader(), "a/*", pattern=True)
    assert caught.value.code == "pattern"
    assert hub.stats().topics == hub.stats().subscribers == 0


# -- the contract


async def test_a_publication_has_a_place_in_its_topic_and_in_each_pattern_that_is_followed(engine: Engine) -> None:
    async with opened(engine, "one") as one, opened(engine, "two") as two:
        await eventually(lambda: one.backs and two.backs)
        before = await one.backplane.publish("news/sport/é 1", "before", None, 1)
        await asyncio.gather(*[told.backplane.follow(NEWS) for told in (one, two)], two.backplane.follow(SPORT))
        start = await two.backplane.history(NEWS, None)
        assert (start.offset, start.records, start.recovered) == (0, [], True)
        sent: list[tuple[str, str | bytes, str | None]] = [
            ("news/sport/é 1", "a", "key"),
            ("news", "no", None),
            ("news/x", b"\0", None),
            ("news/sport/", "c", ""),
        ]
        places = [
            await (one, two)[number % 2].backplane.publish(topic, said, key, number + 2, '"json":true')
            for number, (topic, said, key) in enumerate(sent)
        ]
        assert places[0] == Position(before.epoch, 2)
        assert isinstance(places[0], Placed)
        epoch = places[0].patterns[NEWS].epoch
        assert [getattr(place, "patterns", {}).get(NEWS) for place in places] == [
            Position(epoch, 1),
            None,
            Position(epoch, 2),
            Position(epoch, 3),
        ]
        assert set(places[0].patterns) == {NEWS, SPORT}
        assert epoch == start.epoch
        await eventually(lambda: len(one.records) == 3 and len(two.records) == 5)
        expected = [
            Record(NEWS, epoch, 1, "a", "key", "one", 2, '"json":true', 0.0, "news/sport/é 1"),
            Record(NEWS, epoch, 2, b"\0", None, "one", 4, '"json":true', 0.0, "news/x"),
            Record(NEWS, epoch, 3, "c", "", "two", 5, '"json":true', 0.0, "news/sport/"),
        ]
        assert one.records == [each for each in two.records if each.topic == NEWS] == expected
        held = await two.backplane.history(NEWS, Position(epoch, 1))
        assert (held.offset, held.recovered) == (3, True)
        assert [each._replace(age=0.0) for each in held.records] == expected[1:]
        assert not (await two.backplane.history(NEWS, Position("else", 0))).recovered


async def test_an_origin_is_taken_once_in_patterns_too_and_is_behind_what_is_answered(engine: Engine) -> None:
    async with opened(engine, "one") as one:
        await eventually(lambda: one.backs)
        await one.backplane.follow(NEWS)
        first = await one.backplane.publish("news/a", "1", None, 1)
        await one.backplane.publish("news/b", "2", None, 2)
        again = await one.backplane.publish("news/a", "1", None, 1)
        assert first == again
        assert isinstance(again, Placed)
        assert again.patterns[NEWS].offset in {1, 2}
        await eventually(lambda: one.messages == ["1", "2"])
        assert (await one.backplane.history(NEWS, None)).offset == 2


async def test_what_is_published_at_once_has_one_order_in_a_pattern_for_all(engine: Engine) -> None:
    async with opened(engine, "one") as one, opened(engine, "two") as two:
        await eventually(lambda: one.backs and two.backs)
        await asyncio.gather(*[told.backplane.follow(each) for told in (one, two) for each in (ALL, NEWS)])
        answers = [
            told.backplane.publish(f"news/{number % 5}", str(number), None, number)
            for number in range(100)
            for told in (one, two)
        ]
        await asyncio.gather(*answers)
        await eventually(lambda: len(one.records) == len(two.records) == 400)
        for pattern in (ALL, NEWS):
            mine, yours = ([each for each in told.records if each.topic == pattern] for told in (one, two))
            assert mine == yours
            assert [each.offset for each in mine] == [*range(1, 201)]


# -- hubs


async def test_two_hubs_have_one_order_and_one_cursor_of_a_pattern(engine: Engine) -> None:
    async with hubs(engine) as (one, two):
        readers = [await joined(hub) for hub in (one, two)]
        named = Reader()
        await two.subscribe(named, "news/1")
        outcomes = [hub.publish(f"news/{number % 3}", f"{number}") for number in range(20) for hub in (one, two)]
        for outcome in outcomes:
            assert (await outcome).accepted
        await eventually(lambda: all(len(reader.got) == 40 for reader in readers))
        assert readers[0].got == readers[1].got
        assert readers[0].cursors == readers[1].cursors
        assert [outcome.delivered for outcome in outcomes[:4]] == [1, 1, 1, 2]
        assert len(named.got) == 14
        # Who comes back to the other one gets what it missed, and it has it by the pattern.
        again = Reader()
        subscription = await one.subscribe(again, "news/*", pattern=True, since=readers[1].cursors[4])
        assert subscription.recovered
        assert again.got == readers[0].got[5:]
        async for publication in one.listen("news/*", pattern=True, since=readers[1].cursors[-2]):
            assert (publication.pattern, publication.topic[:5]) == ("news/*", "news/")
            assert publication.cursor == readers[0].cursors[-1]
            break
        assert not (await two.subscribe(Reader(), "news/*", pattern=True, since="else:1")).recovered
        assert one.stats().unsent == two.stats().unsent == one.stats().gaps == two.stats().gaps == 0


async def test_who_is_excluded_gets_it_by_no_pattern(engine: Engine) -> None:
    async with hubs(engine) as (one, two):
        mine, other, there = await joined(one), await joined(one, "*"), await joined(two)
        outcomes = [one.publish("news/a", str(number), exclude=mine) for number in range(10)]
        for outcome in outcomes:
            assert (await outcome).delivered == 1
        await eventually(lambda: len(there.got) == 10)
        await one.publish("news/a", "all")
        await eventually(lambda: mine.got == ["all"])
        assert len(other.got) == 11


async def test_while_the_engine_is_away_those_here_hear_each_other_by_patterns_and_later_the_others_do(
    engine: Engine, logged: Logged
) -> None:
    async with hubs(engine) as (one, two):
        here, there = await joined(one), await joined(two)
        first = await one.publish("news/a", "first")
        await eventually(lambda: len(there.got) == 1)
        engine.kill()
        await eventually(lambda: one.stats().degraded and two.stats().degraded)
        mine = [one.publish(f"news/{number}", f"one {number}") for number in range(3)]
        yours = [two.publish(f"news/{number}", f"two {number}") for number in range(3)]
        assert here.got == ["first", "one 0", "one 1", "one 2"]
        assert there.got == ["first", "two 0", "two 1", "two 2"]
        assert [each.delivered for each in mine + yours] == [1] * 6
        late = await joined(one, "*")
        engine.start()
        await eventually(lambda: len(here.got) == len(there.got) == 7)
        await eventually(lambda: not one.stats().degraded and not two.stats().degraded)
        assert here.got[4:] == there.got[1:4]
        await eventually(lambda: here.moves and there.moves)
        assert all(recovered for _, recovered in here.moves + there.moves)
        await eventually(lambda: one.stats().unsent == two.stats().unsent == 0)
        last = await one.publish("news/z", "last")
        assert last.delivered == 2
        await eventually(lambda: there.got[-1] == late.got[-1] == "last")
        assert here.cursors[-1] == there.cursors[-1]
        again = Reader()
        assert (await two.subscribe(again, "news/*", pattern=True, since=here.moves[-1][0])).recovered
        assert first.accepted
        logged.take_all("the backplane is away", 2)
        logged.take_all("the backplane is back", 2)


@pytest.mark.parametrize("forget", [False, True], ids=["with its data", "without its data"])
async def test_an_engine_killed_in_mid_stream_costs_a_pattern_nothing_that_is_not_told(
    engine: Engine, logged: Logged, forget: bool
) -> None:
    async with hubs(engine, history=History(count=10_000)) as (one, two):
        readers = [await joined(one), await joined(two)]
        outcomes: list[PublishResult] = []

        async def publish(seconds: float) -> None:
            until = asyncio.get_running_loop().time() + seconds
            while asyncio.get_running_loop().time() < until:
                for _ in range(4):
                    number = len(outcomes) // 2
                    outcomes.extend(
                        hub.publish(f"news/{number % 3}", f"{server} {number}") for server, hub in enumerate((one, two))
                    )
                await asyncio.sleep(0.002)

        await publish(0.1)
        engine.kill(forget=forget)
        await publish(0.1)
        await eventually(lambda: one.stats().degraded and two.stats().degraded)
        engine.start()
        await publish(0.1)
        await eventually(lambda: not one.stats().degraded and not two.stats().degraded)
        for outcome in outcomes:
            await outcome
        await eventually(lambda: one.stats().unsent == two.stats().unsent == 0)
        await one.publish("news/", "end")
        await eventually(lambda: all(reader.got[-1] == "end" for reader in readers))
        logged.take_all("the backplane is away", 2)
        logged.take_all("the backplane is back", 2)
        for reader in readers:
            assert bool(reader.lost_at) is forget
            # Declared, and then each once, those of one server to one topic in their order.
            for begin, end in itertools.pairwise([0, *reader.lost_at, len(reader.got) - 1]):
                part = [tuple(map(int, str(message).split())) for message in reader.got[begin:end]]
                assert len(set(part)) == len(part)
                for server, topic in itertools.product(range(2), range(3)):
                    mine = [number for whose, number in part if whose == server and number % 3 == topic]
                    assert mine == sorted(mine)
                assert forget or len(part) == len(outcomes)


async def test_a_pattern_that_nobody_needs_is_followed_no_more(engine: Engine) -> None:
    async with hubs(engine, history=None) as (one, two):
        for _ in range(3):
            reader = await joined(one)
            await two.publish("news/a", "x")
            await eventually(lambda: reader.got)  # noqa: B023 - it is over before the next one
            one.unsubscribe(reader)
            assert one.stats().topics == 0
