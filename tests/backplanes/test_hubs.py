"""Two hubs that act as one: one order, one cursor, and what becomes of that when the engine goes away."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from rawws.topics import CursorError, History, Hub, TopicError, outbox
from tests.backplanes.engines import Engine
from tests.backplanes.handlers import Reader, hubs
from tests.server.peers import Logged, eventually

AWAY = "the backplane is away"
BACK = "the backplane is back"


async def joined(hub: Hub, topic: str = "a", **options: Any) -> Reader:
    reader = Reader()
    await hub.subscribe(reader, topic, **options)
    return reader


async def test_a_publication_reaches_the_subscribers_of_all_hubs_in_one_order_at_one_place(engine: Engine) -> None:
    async with hubs(engine) as (one, two):
        readers = [await joined(hub) for hub in (one, one, two)]
        outcomes = [hub.publish("a", f"{number}") for number in range(20) for hub in (one, two)]
        assert [outcome.pending for outcome in outcomes] == [True] * 40
        assert not any(outcome.accepted or outcome.cursor for outcome in outcomes)
        for outcome in outcomes:
            assert await outcome is outcome
        assert all(outcome.accepted for outcome in outcomes)
        assert [outcome.delivered for outcome in outcomes] == [2, 1] * 20
        await eventually(lambda: all(len(reader.got) == 40 for reader in readers))
        assert readers[0].got == readers[1].got == readers[2].got
        assert readers[0].cursors == readers[2].cursors
        assert {outcome.cursor for outcome in outcomes} == set(readers[0].cursors)
        assert one.stats().published == two.stats().published == 20
        assert one.stats().unsent == one.stats().gaps == one.stats().lost == 0


async def test_a_publication_of_a_topic_that_nobody_here_has_gets_its_place_and_no_topic(engine: Engine) -> None:
    async with hubs(engine) as (one, two):
        reader = await joined(two)
        outcome = await one.publish("a", b"hi")
        assert (outcome.delivered, outcome.accepted) == (0, True)
        await eventually(lambda: reader.got == [b"hi"])
        assert reader.cursors == [outcome.cursor]
        assert one.stats().topics == 0


async def test_whoever_comes_back_to_another_server_gets_exactly_what_it_missed(engine: Engine) -> None:
    async with hubs(engine) as (one, two):
        cursors = [(await one.publish("a", str(number))).cursor for number in range(5)]
        reader = Reader()
        subscription = two.subscribe(reader, "a", since=cursors[1])
        assert subscription.pending
        assert await subscription is subscription
        assert subscription.recovered
        assert reader.got == ["2", "3", "4"]
        assert subscription.cursor == cursors[-1]
        # The replica answers the next one without a trip.
        second = Reader()
        assert not two.subscribe(second, "a", since="earliest").pending
        assert second.got == ["0", "1", "2", "3", "4"]
        lost = await two.subscribe(Reader(), "a", since="else:3")
        assert not lost.recovered


async def test_a_cursor_that_is_ahead_of_this_server_is_asked_for_and_repeats_nothing(engine: Engine) -> None:
    async with hubs(engine) as (one, two):
        await joined(two)
        for number in range(50):
            # `two` may not have it yet.
            outcome = await one.publish("a", str(number))
            reader = Reader()
            subscription = two.subscribe(reader, "a", since=outcome.cursor)
            last = await one.publish("a", "last")
            await subscription
            await eventually(lambda: reader.cursors == [last.cursor])  # noqa: B023 - it is over before the next one
            assert subscription.recovered
            two.unsubscribe(reader)
        epoch = last.cursor.partition(":")[0]
        future = await two.subscribe(Reader(), "a", since=f"{epoch}:999")
        assert not future.recovered


async def test_what_is_no_cursor_raises_at_once_and_leaves_nothing(engine: Engine) -> None:
    async with hubs(engine) as (one, _):
        with pytest.raises(CursorError):
            one.subscribe(Reader(), "a", since="nonsense")
        with pytest.raises(TopicError):
            one.subscribe(Reader(), "a\n")
        assert one.stats()[:3] == (0, 0, 0)


async def test_what_is_no_key_raises_at_once_and_nothing_waits_for_the_engine(engine: Engine) -> None:
    async with hubs(engine) as (one, two):
        reader = await joined(two)
        for key in ("\ud800", "x" * 256):
            with pytest.raises(TopicError, match="the key is"):
                one.publish("a", "no", key=key)
        assert one.stats().unsent == 0
        await one.publish("a", "yes", key="k")
        await eventually(lambda: reader.got == ["yes"])


async def test_joining_in_the_middle_of_a_stream_neither_overtakes_nor_repeats(engine: Engine) -> None:
    async with hubs(engine, history=History(count=10_000)) as (one, two):
        readers: list[tuple[Reader, int]] = []
        cursors: list[str] = [(await one.publish("a", "0")).cursor]
        for number in range(1, 400):
            outcome = one.publish("a", str(number))
            if number % 10 == 0:
                await outcome
                cursors.append(outcome.cursor)
                start = random.randrange(len(cursors))
                reader = Reader()
                hub = random.choice((one, two))
                hub.subscribe(reader, "a", since=cursors[start])
                readers.append((reader, start * 10))
            if number % 70 == 0:
                # From here on it must be followed anew.
                for old, _ in readers:
                    for hub in (one, two):
                        hub.unsubscribe(old)
                for hub in (one, two):
                    for found in list(hub._table.topics.values()):
                        del hub._table.topics["a"]
                        assert hub._replication is not None
                        hub._replication.forget(found)
                readers.clear()
        await one.publish("a", "400")
        for reader, start in readers:
            await eventually(lambda: len(reader.got) == 400 - start)  # noqa: B023
            assert reader.got == [str(number) for number in range(start + 1, 401)]


async def test_a_subscription_that_ends_while_it_waits_gets_nothing(engine: Engine) -> None:
    async with hubs(engine) as (one, _):
        reader = Reader()
        subscription = one.subscribe(reader, "a")
        one.unsubscribe(reader)
        await subscription
        await one.publish("a", "x")
        other = await joined(one)
        await one.publish("a", "y")
        assert (reader.got, other.got) == ([], ["y"])
        assert one.stats().subscribers == 1


async def test_topics_that_nobody_needs_are_followed_no_more(engine: Engine) -> None:
    async with hubs(engine, history=None) as (one, two):
        for _ in range(3):
            reader = await joined(one)
            await two.publish("a", "x")
            await eventually(lambda: reader.got)  # noqa: B023
            one.unsubscribe(reader)
            assert one.stats().topics == 0


# -- the engine goes away


async def test_while_the_engine_is_away_those_here_hear_each_other_and_later_the_others_do(
    engine: Engine, logged: Logged
) -> None:
    async with hubs(engine) as (one, two):
        here, there = await joined(one), await joined(two)
        first = await one.publish("a", "first")
        await eventually(lambda: len(there.got) == 1)
        engine.kill()
        await eventually(lambda: one.stats().degraded and two.stats().degraded)
        logged.take_all(AWAY, 2)
        mine = [one.publish("a", f"one {number}") for number in range(3)]
        yours = [two.publish("a", f"two {number}") for number in range(3)]
        assert here.got == ["first", "one 0", "one 1", "one 2"]
        assert there.got == ["first", "two 0", "two 1", "two 2"]
        assert [(each.delivered, each.accepted, each.pending) for each in mine + yours] == [(1, False, False)] * 6
        assert len({each.cursor.partition(":")[0] for each in (first, *mine, *yours)}) == 3
        assert one.stats().unsent == 3
        # Who comes back to this server may go on; who comes from another one is told that it cannot.
        back, stranger = Reader(), Reader()
        assert one.subscribe(back, "a", since=mine[0].cursor).recovered
        assert not one.subscribe(stranger, "a", since=yours[0].cursor).recovered
        assert back.got == ["one 1", "one 2"]
        early = Reader()
        assert one.subscribe(early, "a", since=first.cursor).recovered
        assert early.got == here.got[1:]
        engine.start()
        await eventually(lambda: len(here.got) == len(there.got) == 7)
        await eventually(lambda: not one.stats().degraded and not two.stats().degraded)
        logged.take_all(BACK, 2)
        assert sorted(map(str, here.got)) == sorted(map(str, there.got))
        assert here.got[4:] == there.got[1:4]
        assert early.got == here.got[1:]
        await eventually(lambda: here.moves and there.moves)
        assert here.moves[-1][1]
        # What is published may be heard before its hub knows that the engine has it.
        await eventually(lambda: one.stats().unsent == two.stats().unsent == 0)
        assert one.stats().declared == 0
        # The cursor that it was told is worth the same everywhere.
        last = await one.publish("a", "last")
        await eventually(lambda: here.cursors[-1] == there.cursors[-1] == last.cursor)
        again = Reader()
        assert (await two.subscribe(again, "a", since=here.moves[-1][0])).recovered
        # Those of the other server may have come before it, or behind.
        behind = len(here.cursors) - 1 - here.cursors.index(here.moves[-1][0])
        assert again.got == here.got[-behind:]


@pytest.mark.parametrize("forget", [False, True], ids=["with its data", "without its data"])
async def test_an_engine_killed_in_mid_stream_costs_nothing_that_is_not_told(
    engine: Engine, logged: Logged, forget: bool
) -> None:
    async with hubs(engine, history=History(count=10_000)) as (one, two):
        readers = {0: await joined(one), 1: await joined(two)}
        number = 0
        outcomes = []

        async def publish(seconds: float) -> None:
            nonlocal number
            until = asyncio.get_running_loop().time() + seconds
            while asyncio.get_running_loop().time() < until:
                for _ in range(5):
                    for server, hub in enumerate((one, two)):
                        outcomes.append(hub.publish("a", f"{server} {number}"))
                    number += 1
                await asyncio.sleep(0.002)

        await publish(0.1)
        for _ in range(2):
            engine.kill(forget=forget)
            await publish(0.1)
            await eventually(lambda: one.stats().degraded and two.stats().degraded)
            engine.start()
            await publish(0.1)
            await eventually(lambda: not one.stats().degraded and not two.stats().degraded)
        for outcome in outcomes:
            await outcome
        await eventually(lambda: one.stats().unsent == two.stats().unsent == 0)
        last = one.publish("a", "end")
        await eventually(lambda: all(reader.got[-1] == "end" for reader in readers.values()))
        assert (await last).accepted
        for name in (AWAY, BACK):
            logged.take_all(name, 4)
        for reader in readers.values():
            told = [str(message).split() for message in reader.got[:-1]]
            for server in "01":
                mine = [int(at) for whose, at in told if whose == server]
                if forget:
                    # Declared, and then in order, each once.
                    assert reader.lost_at
                    for begin, end in zip([0, *reader.lost_at], [*reader.lost_at, len(told)], strict=True):
                        part = [int(at) for whose, at in told[begin:end] if whose == server]
                        assert part == sorted(set(part))
                else:
                    assert mine == [*range(number)]
            assert forget or not reader.lost_at


async def test_what_is_over_the_bounds_while_the_engine_is_away_is_counted(
    engine: Engine, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_WAITING", 5)
    async with hubs(engine) as (one, two):
        here, there = await joined(one), await joined(two)
        engine.kill()
        await eventually(lambda: one.stats().degraded and two.stats().degraded)
        outcomes = [one.publish("a", str(number)) for number in range(8)]
        assert [each.delivered for each in outcomes] == [1] * 8
        assert (one.stats().unsent, one.stats().lost) == (5, 3)
        engine.start()
        await eventually(lambda: len(there.got) == 5)
        assert len(here.got) == 8
        await eventually(lambda: here.moves)
        await eventually(lambda: not one.stats().degraded and not two.stats().degraded)
        logged.take_all(AWAY, 2)
        logged.take_all(BACK, 2)


async def test_too_many_publications_at_once_are_refused_and_counted(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_WAITING", 5)
    async with hubs(engine) as (one, _):
        reader = await joined(one)
        outcomes = [one.publish("a", str(number)) for number in range(8)]
        for outcome in outcomes:
            await outcome
        assert [each.accepted for each in outcomes] == [True] * 5 + [False] * 3
        assert len(reader.got) == 5
        assert one.stats().lost == 3


async def test_a_hub_whose_engine_was_never_there_serves_those_who_are_here(engine: Engine, logged: Logged) -> None:
    engine.kill()
    async with hubs(engine, 1) as (one,):
        reader, other = Reader(), Reader()
        early = one.publish("a", "early")
        subscription = await one.subscribe(reader, "a")
        assert subscription.recovered
        assert subscription.cursor
        assert not (await early).accepted
        assert not (await one.subscribe(other, "a", since="else:3")).recovered
        one.publish("a", "hi")
        assert reader.got[-1] == other.got[-1] == "hi"
        engine.start()
        await eventually(lambda: reader.moves and one.stats().unsent == 0)
        epoch = reader.moves[-1][0].partition(":")[0]
        assert (await one.publish("a", "next")).cursor.startswith(epoch)
        assert reader.got[-2:] == ["hi", "next"]
        await eventually(lambda: not one.stats().degraded)
        logged.take_all(AWAY, 1)
        logged.take_all(BACK, 1)


async def test_a_gap_is_seen_and_filled_or_told(engine: Engine) -> None:
    async with hubs(engine, history=History(count=5)) as (one, two):
        reader = await joined(two)
        await one.publish("a", "0")
        await eventually(lambda: reader.got == ["0"])
        for lost, told in ((3, []), (9, [False])):
            # These never reach `two`, as if its connection had dropped them.
            replication: Any = two._replication
            dropped: list[Any] = []
            replication.on_record, hear = dropped.append, replication.on_record
            for number in range(lost):
                await one.publish("a", f"{lost} {number}")
            await eventually(lambda dropped=dropped, lost=lost: len(dropped) == lost)  # type: ignore[misc]
            replication.on_record = hear
            reader.got.clear()
            await one.publish("a", f"{lost} last")
            await eventually(lambda: two.stats().gaps)
            if told:
                await eventually(lambda: reader.moves)
                assert reader.got == []
            else:
                await eventually(lambda: len(reader.got) == 4)
                assert reader.got == ["3 0", "3 1", "3 2", "3 last"]
            assert [recovered for _, recovered in reader.moves] == told
        await one.publish("a", "on")
        await eventually(lambda: reader.got == ["on"])
        assert (two.stats().gaps, two.stats().declared) == (2, 1)


async def test_a_hub_that_is_closed_lets_go_of_all_who_wait(engine: Engine) -> None:
    for turns in range(8):
        hub = Hub(backplane=engine.backplane())
        subscription = hub.subscribe(Reader(), "a")
        outcome = hub.publish("a", "x")
        for _ in range(turns):
            await asyncio.sleep(0)
        await hub.close()
        await subscription
        await outcome
        await hub.close()
