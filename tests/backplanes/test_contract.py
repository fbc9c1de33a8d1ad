"""The laws of rawws/topics/backplane.py, which every backplane keeps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from rawws.topics import History
from rawws.topics.backplane import BackplaneAway, HistoryResult, Position, PresenceEntry, Record, TopicUnavailable
from tests.backplanes.engines import Engine
from tests.backplanes.handlers import Told, opened
from tests.server.peers import eventually


async def reached(*backplanes: Told) -> None:
    await eventually(lambda: all(told.backs for told in backplanes))


# What stands beside a message, with all that may confuse who takes it apart.
BESIDE = r'"json":true,"event":"é, %20 \\ \" { 1 t - "'


async def test_a_publication_has_a_place_and_reaches_all_that_follow_its_publisher_too(engine: Engine) -> None:
    async with opened(engine, "one") as one, opened(engine, "two") as two:
        await reached(one, two)
        await asyncio.gather(one.backplane.follow("a"), two.backplane.follow("a"))
        first = await one.backplane.publish("a", "hi", None, 1)
        second = await two.backplane.publish("a", b"\x00\xff\n", "key", 1, BESIDE)
        await one.backplane.publish("b", "for nobody", None, 2)
        assert (first.offset, second) == (1, Position(first.epoch, 2))
        await eventually(lambda: len(one.records) == len(two.records) == 2)
        assert one.records == two.records
        assert one.records[0] == Record("a", first.epoch, 1, "hi", None, "one", 1)
        assert one.records[1] == Record("a", first.epoch, 2, b"\x00\xff\n", "key", "two", 1, BESIDE)
        assert [each._replace(age=0.0) for each in (await one.backplane.history("a", None)).records] == one.records
        # The same origin once more is the same publication.
        assert await two.backplane.publish("a", b"\x00\xff\n", "key", 1, BESIDE) == second


MESSAGES = ["", b"", " ", "1 2 t - x", "=x", "Grüße\n\0", b"\xff" * 70_000, "x" * 300_000]


async def test_messages_keys_and_names_come_as_they_were(engine: Engine) -> None:
    names = ["a", "a}", "{a", "{a}", "a:place", "a%7D", "é" * 127, "x" * 255, "a b", "*", "a\\", "'\"", "🎈"]
    async with opened(engine, "one") as one:
        await reached(one)
        await asyncio.gather(*[one.backplane.follow(name) for name in [*names, "big"]])
        keys = [None, "", " ", "é\n 7"]
        sent = [(name, name, keys[number % 4]) for number, name in enumerate(names)]
        sent += [("big", message, "k") for message in MESSAGES]  # type: ignore[misc]
        for number, (name, message, key) in enumerate(sent):
            one.backplane.publish(name, message, key, number)
        await eventually(lambda: len(one.records) == len(sent))
        # Topics have no order among each other.
        came = sorted(one.records, key=lambda each: [*names, "big"].index(each.topic))
        assert [(each.topic, each.message, each.key) for each in came] == sent
        assert len({each.epoch for each in one.records}) == len(names) + 1
        pasts = await asyncio.gather(*[one.backplane.history(name, None) for name in names])
        assert [past.records[0].message for past in pasts] == names


async def test_offsets_are_one_more_each_for_all_who_publish_at_once(engine: Engine) -> None:
    async with opened(engine, "one") as one, opened(engine, "two") as two:
        await reached(one, two)
        await asyncio.gather(one.backplane.follow("a"), two.backplane.follow("a"))
        answers = []
        for number in range(200):
            for told in (one, two):
                answers.append(told.backplane.publish("a", f"{number}", None, number))
            if number % 20 == 0:
                await asyncio.sleep(0)
        positions = await asyncio.gather(*answers)
        assert sorted(position.offset for position in positions) == [*range(1, 401)]
        await eventually(lambda: len(one.records) == len(two.records) == 400)
        assert one.records == two.records
        assert [record.offset for record in one.records] == [*range(1, 401)]
        for server in ("one", "two"):
            assert [each.number for each in one.records if each.server == server] == [*range(200)]


async def test_since_gives_what_came_behind_a_position_or_says_that_it_cannot(engine: Engine) -> None:
    async with opened(engine, "one", History(count=5)) as one:
        await reached(one)
        ask = one.backplane.history
        for number in range(1, 9):
            epoch, offset = await one.backplane.publish("a", str(number), None, number)
        assert offset == 8
        all_held = await ask("a", None)
        assert [each.message for each in all_held.records] == ["4", "5", "6", "7", "8"]
        empty = HistoryResult(epoch, 8, [], True, 0, all_held.before)
        assert await ask("a", Position(epoch, 8)) == empty
        some = await ask("a", Position(epoch, 6))
        assert [(each.offset, each.message, each.server, each.number) for each in some.records] == [
            (7, "7", "one", 7),
            (8, "8", "one", 8),
        ]
        assert [each.offset for each in (await ask("a", Position(epoch, 3))).records] == [4, 5, 6, 7, 8]
        assert await ask("a", Position(epoch, 2)) == empty._replace(recovered=False)
        assert await ask("a", Position("else", 8)) == empty._replace(recovered=False)


async def test_a_topic_that_was_never_published_to_has_one_place_for_all_and_takes_no_memory(engine: Engine) -> None:
    async with opened(engine, "one") as one, opened(engine, "two") as two:
        await reached(one, two)
        start = await one.backplane.history("a", None)
        assert (start.offset, start.records, start.recovered) == (0, [], True)
        await asyncio.gather(two.backplane.follow("a"), two.backplane.presence("a"))
        assert await two.backplane.history("a", Position(start.epoch, 0)) == start
        await asyncio.gather(*[one.backplane.history(f"{number}", None) for number in range(1000)])
        two.backplane.join("b", "x", "null")
        assert await two.backplane.presence("b") == [PresenceEntry("two", "x", "null")]
        two.backplane.leave("b", "x")
        assert await two.backplane.presence("b") == []
        assert engine.names() == 0
        # Nobody can have been further.
        assert not (await one.backplane.history("a", Position(start.epoch, 3))).recovered


async def test_whoever_was_there_before_the_first_publication_missed_nothing(engine: Engine) -> None:
    async with opened(engine, "one", History(count=3)) as one, opened(engine, "two", History(count=3)) as two:
        await reached(one, two)
        start = await one.backplane.history("a", None)
        place = await two.backplane.publish("a", "1", None, 1)
        assert place.offset == 1
        # Also who counts by the name of the epoch alone sees that this is another one.
        assert place.epoch != start.epoch
        for number in (2, 3):
            await two.backplane.publish("a", str(number), None, number)
        past = await one.backplane.history("a", Position(start.epoch, 0))
        assert ([each.message for each in past.records], past.epoch) == (["1", "2", "3"], place.epoch)
        assert Position(start.epoch, 0) in past.before
        await two.backplane.publish("a", "4", None, 4)
        assert not (await one.backplane.history("a", Position(start.epoch, 0))).recovered
        assert not (await one.backplane.history("a", Position(start.epoch, 1))).recovered


async def test_a_topic_that_is_lost_is_told_to_whoever_was_there_before_its_first_publication(engine: Engine) -> None:
    async with opened(engine, "one") as one:
        await reached(one)
        start = await one.backplane.history("a", None)
        await one.backplane.publish("a", "1", None, 1)
        engine.kill(forget=True)
        await eventually(lambda: one.reasons)
        engine.start()
        await eventually(lambda: one.backs == 2)
        again = await one.backplane.history("a", Position(start.epoch, 0))
        assert (again.offset, again.recovered) == (0, False)
        assert again.epoch != start.epoch


async def test_what_is_wrong_with_one_topic_is_the_fault_of_no_other(engine: Engine) -> None:
    async with opened(engine, "one") as told, opened(engine, "two") as two:
        await reached(told, two)
        one = told.backplane
        await one.follow("good")
        engine.spoil("bad")
        for number in (1, 2, 3):
            with pytest.raises(TopicUnavailable, match=r"^the topic 'bad' is unavailable: ") as caught:
                await one.history("bad", None)
            assert caught.value.topic == "bad"
            assert (await one.publish("good", "x", None, number)).offset == number
        await eventually(lambda: len(told.records) == 3)
        assert (await two.backplane.history("good", None)).offset == 3
        engine.mend("bad")
        again = await one.history("bad", None)
        assert (again.offset, again.recovered) == (0, True)
        assert (await one.publish("bad", "back", None, 9)).offset == 1
        assert (told.reasons, two.reasons) == ([], [])


async def test_without_history_a_topic_has_places_only(engine: Engine) -> None:
    async with opened(engine, "one", History(0, 0, 0.0, 0)) as one:
        await reached(one)
        position = await one.backplane.publish("a", "hi", None, 1)
        assert (await one.backplane.history("a", position)).recovered
        assert not (await one.backplane.history("a", Position(position.epoch, 0))).recovered


async def test_large_messages_are_held_within_twice_the_bytes(engine: Engine) -> None:
    async with opened(engine, "one", History(count=100, size=10_000)) as one:
        await reached(one)
        for number in range(40):
            await one.backplane.publish("a", "x" * (3000 if number % 3 else 10), None, number)
        held = (await one.backplane.history("a", None)).records
        assert 0 < sum(len(each.message) for each in held) <= 20_000


async def test_what_is_older_than_its_age_is_not_given_out_though_the_topic_goes_on(engine: Engine) -> None:
    async with opened(engine, "one", History(count=1000, age=0.5)) as one:
        await reached(one)
        ask, publish = one.backplane.history, one.backplane.publish
        began = time.monotonic()
        place = await publish("a", "first", None, 0)
        for number in range(1, 1000):
            # Each of them keeps the topic alive for as long as itself.
            last = await publish("a", "more", None, number)
            held = (await ask("a", None)).records
            newest = (await ask("a", Position(last.epoch, last.offset - 1))).records
            # On a machine that is slow, all of them may be too old by now.
            if held and newest and held[0].offset > place.offset:
                break
            await asyncio.sleep(0.02)
        assert [each.offset for each in held] == [*range(held[0].offset, last.offset + 1)]
        assert not (await ask("a", Position(place.epoch, 0))).recovered
        assert [(each.offset, each.message) for each in newest] == [(last.offset, "more")]
        assert [each.age for each in held] == sorted([each.age for each in held], reverse=True)
        assert 0 <= held[-1].age <= held[0].age <= time.monotonic() - began


async def test_an_origin_is_taken_once(engine: Engine) -> None:
    async with opened(engine, "one") as one:
        await reached(one)
        await one.backplane.follow("a")
        places = [await one.backplane.publish("a", "x", None, number) for number in (5, 6, 5, 6, 9, 7)]
        assert [place.offset for place in places] == [1, 2, 1, 2, 3, 0]
        await eventually(lambda: len(one.records) == 3)


async def test_what_is_followed_no_more_comes_no_more(engine: Engine) -> None:
    async with opened(engine, "one") as one:
        await reached(one)
        await one.backplane.follow("a")
        await one.backplane.publish("a", "1", None, 1)
        await eventually(lambda: one.messages == ["1"])
        one.backplane.unfollow("a")
        one.backplane.unfollow("never")
        # What is asked for later is answered later.
        await one.backplane.follow("b")
        await one.backplane.publish("a", "2", None, 2)
        one.backplane.unfollow("a")
        await one.backplane.follow("a")
        await one.backplane.publish("a", "3", None, 3)
        await eventually(lambda: one.messages == ["1", "3"])


async def test_those_present_are_known_to_who_follows_and_to_who_asks(engine: Engine) -> None:
    async with opened(engine, "one") as one, opened(engine, "two") as two:
        await reached(one, two)
        await two.backplane.follow("a")
        one.backplane.join("a", "x-1", '{"name": "Ann B"}')
        one.backplane.join("a", "x_2", "null")
        one.backplane.join("b", "x-3", "[]")
        one.backplane.leave("a", "x_2")
        ann = PresenceEntry("one", "x-1", '{"name": "Ann B"}')
        await eventually(lambda: len(two.entries) == 3)
        assert [(topic, event, entry.id) for topic, event, entry in two.entries] == [
            ("a", "join", "x-1"),
            ("a", "join", "x_2"),
            ("a", "leave", "x_2"),
        ]
        assert two.entries[0][2] == ann
        assert await two.backplane.presence("a") == [ann]
        assert await two.backplane.presence("none") == []


async def test_a_server_that_closes_takes_those_present_with_it(engine: Engine) -> None:
    async with opened(engine, "two") as two:
        async with opened(engine, "one") as one:
            await reached(one, two)
            await two.backplane.follow("a")
            one.backplane.join("a", "x", "null")
            await eventually(lambda: two.entries)
        await eventually(lambda: "one" in two.gone)
        # One that was too slow for its lease is gone, and there again, before it closes.
        while await two.backplane.presence("a"):  # noqa: ASYNC110 - what it waits for is asked for
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("forget", [False, True], ids=["with its data", "without its data"])
async def test_an_engine_that_comes_back_is_told_once_and_begins_anew_only_without_its_data(
    engine: Engine, forget: bool
) -> None:
    async with opened(engine, "one") as one, opened(engine, "two") as two:
        await reached(one, two)
        one.backplane.join("a", "x", "null")
        place = await one.backplane.publish("a", "1", None, 1)
        await two.backplane.presence("a")
        engine.kill(forget=forget)
        await eventually(lambda: one.reasons and two.reasons)
        asks: list[Callable[[], Awaitable[object]]] = [
            lambda: one.backplane.publish("a", "2", None, 2),
            lambda: one.backplane.history("a", place),
            lambda: one.backplane.follow("a"),
            lambda: one.backplane.presence("a"),
        ]
        for ask in asks:
            with pytest.raises(BackplaneAway):
                await ask()
        one.backplane.join("a", "y", "null")
        one.backplane.leave("a", "x")
        engine.start()
        await eventually(lambda: one.backs == two.backs == 2)
        assert len(one.reasons) == len(two.reasons) == 1
        past = await two.backplane.history("a", place)
        assert past.recovered is not forget
        assert (past.epoch == place.epoch or place in past.before) is not forget
        second = await one.backplane.publish("a", "2", None, 2)
        assert second.offset == (1 if forget else 2)
        assert await two.backplane.presence("a") == [PresenceEntry("one", "y", "null")]


async def test_an_engine_that_is_away_from_the_beginning_is_told_too(engine: Engine) -> None:
    engine.kill()
    async with opened(engine, "one") as one:
        await eventually(lambda: one.reasons)
        assert one.backs == 0
        engine.start()
        await reached(one)
        assert (await one.backplane.publish("a", "1", None, 1)).offset == 1


async def test_what_was_asked_when_the_engine_went_away_is_answered(engine: Engine) -> None:
    async with opened(engine, "one") as one:
        await reached(one)
        answers = [one.backplane.publish("a", "x" * 1000, None, number) for number in range(2000)]
        asked = [one.backplane.history("a", None), one.backplane.follow("a")]
        engine.kill()
        found = await asyncio.gather(*answers, *asked, return_exceptions=True)
        assert [each for each in found if isinstance(each, Exception) and not isinstance(each, BackplaneAway)] == []
        assert any(isinstance(each, BackplaneAway) for each in found)
        engine.start()


async def test_a_backplane_that_is_closed_at_any_time_leaves_nothing_behind(engine: Engine) -> None:
    for turns in (0, 1, 2, 3, 5, 8, 30):
        async with opened(engine, "one") as one:
            for _ in range(turns):
                await asyncio.sleep(0)
            one.backplane.publish("a", "1", None, 1)
            one.backplane.follow("a")
    closed = engine.backplane()
    await closed.close()


async def test_what_nobody_waits_for_any_more_is_answered_to_nobody(engine: Engine) -> None:
    async with opened(engine, "one") as told:
        await eventually(lambda: told.backs)
        one = told.backplane
        await one.follow("a")
        asked: list[asyncio.Future[Any]] = [one.follow("a"), one.history("a", None), one.presence("a")]
        asked.append(one.publish("a", "x", None, 1))
        for future in asked:
            future.cancel()
        assert (await one.publish("a", "y", None, 2)).offset == 2
        await eventually(lambda: told.messages == ["x", "y"])
        assert told.reasons == []
