"""Presence across servers: who watches knows who is there, whichever server they are at, and whatever becomes of it."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis as client

from rawws.topics import Hub, Identity
from tests.backplanes.engines import Engine, Started
from tests.backplanes.handlers import Reader, hubs
from tests.processes import LOOPBACK
from tests.server.peers import Logged, eventually


def seen(reader: Reader) -> dict[str, object]:
    """Return whom a watcher takes to be present, by what it was told."""
    there: dict[str, object] = {}
    for message in reader.got:
        notice = json.loads(message)
        if "join" in notice:
            there[notice["join"]["id"]] = notice["join"]["info"]
        elif "leave" in notice:
            del there[notice["leave"]["id"]]
    return there


def present(hub: Hub) -> dict[str, object]:
    return {each.id: each.info for each in hub.presence("a")}


async def test_who_watches_at_one_server_is_told_who_comes_and_goes_at_another(engine: Engine) -> None:
    async with hubs(engine) as (one, two):
        watcher, ann, bob = Reader(), Reader(), Reader()
        await one.subscribe(watcher, "a", watch=True)
        ann_id = (await two.subscribe(ann, "a", join={"name": "Ann"})).present
        bob_id = (await one.subscribe(bob, "a", join=None)).present
        await eventually(lambda: seen(watcher) == {ann_id: {"name": "Ann"}, bob_id: None})
        await eventually(lambda: present(one) == present(two) == seen(watcher))
        two.unsubscribe(ann)
        await eventually(lambda: present(one) == present(two) == seen(watcher) == {bob_id: None})
        late = Reader()
        await two.subscribe(late, "b", join=1)
        assert present(two) == {bob_id: None}


async def test_who_comes_later_knows_who_was_there(engine: Engine) -> None:
    async with hubs(engine, 3) as (one, two, three):
        ids = [(await hub.subscribe(Reader(), "a", join=number)).present for number, hub in enumerate((one, two))]
        subscription = three.subscribe(Reader(), "a", watch=True)
        await subscription
        await eventually(lambda: present(three) == {ids[0]: 0, ids[1]: 1})


async def test_a_hub_that_closes_takes_its_own_with_it(engine: Engine) -> None:
    async with hubs(engine, 1) as (one,):
        watcher = Reader()
        await one.subscribe(watcher, "a", watch=True)
        async with hubs(engine, 1) as (two,):
            await two.subscribe(Reader(), "a", join="x")
            await eventually(lambda: list(seen(watcher).values()) == ["x"])
        await eventually(lambda: seen(watcher) == present(one) == {})


async def test_who_leaves_as_the_engine_is_lost_is_gone_when_it_is_back(engine: Engine, logged: Logged) -> None:
    async with hubs(engine) as (one, two):
        watcher, stays, goes = Reader(), Reader(), [Reader() for _ in range(20)]
        await one.subscribe(watcher, "a", watch=True)
        stays_id = (await two.subscribe(stays, "a", join="stays")).present
        for each in goes:
            await two.subscribe(each, "a", join="goes")
        await eventually(lambda: len(seen(watcher)) == 21)
        engine.kill(forget=False)
        # The hub does not know it yet: the engine is told, and nobody hears that.
        for each in goes:
            two.unsubscribe(each)
        await eventually(lambda: one.stats().degraded and two.stats().degraded)
        engine.start()
        await eventually(lambda: not one.stats().degraded and not two.stats().degraded)
        await eventually(lambda: seen(watcher) == present(one) == present(two) == {stays_id: "stays"})
        logged.take_all("the backplane is away", 2)
        logged.take_all("the backplane is back", 2)


@pytest.mark.parametrize("forget", [False, True], ids=["with its data", "without its data"])
async def test_who_came_and_went_while_the_engine_was_away_is_told_when_it_is_back(
    engine: Engine, logged: Logged, forget: bool
) -> None:
    async with hubs(engine) as (one, two):
        watcher, stays, goes = Reader(), Reader(), Reader()
        await one.subscribe(watcher, "a", watch=True)
        stays_id = (await two.subscribe(stays, "a", join="stays")).present
        await two.subscribe(goes, "a", join="goes")
        await eventually(lambda: len(seen(watcher)) == 2)
        engine.kill(forget=forget)
        await eventually(lambda: one.stats().degraded and two.stats().degraded)
        two.unsubscribe(goes)
        new_id = (await two.subscribe(Reader(), "a", join="new")).present
        engine.start()
        wanted = {stays_id: "stays", new_id: "new"}
        await eventually(lambda: seen(watcher) == present(one) == present(two) == wanted)
        await eventually(lambda: not one.stats().degraded and not two.stats().degraded)
        logged.take_all("the backplane is away", 2)
        logged.take_all("the backplane is back", 2)


async def test_a_server_that_was_only_slow_is_there_again(tmp_path: Path, started: Started) -> None:
    engine = started(tmp_path, lease=1.0)
    async with hubs(engine) as (one, two):
        watcher = Reader()
        await one.subscribe(watcher, "a", watch=True)
        ident = (await two.subscribe(Reader(), "a", join="x")).present
        await eventually(lambda: seen(watcher) == {ident: "x"})
        assert two._replication is not None
        backplane: Any = two._replication.backplane
        beat, blocked = backplane._beat, asyncio.Event()

        async def wait() -> bool:
            await blocked.wait()
            return bool(await beat())

        backplane._beat = wait
        await eventually(lambda: seen(watcher) == present(one) == {})
        backplane._beat = beat
        blocked.set()
        await eventually(lambda: seen(watcher) == present(one) == {ident: "x"})
        assert [one.stats().degraded, two.stats().degraded] == [False, False]


async def test_those_of_a_lease_that_ran_out_are_listed_no_more_and_forgotten(tmp_path: Path, started: Started) -> None:
    engine = started(tmp_path, lease=0.4)
    async with hubs(engine, 1) as (one,):
        other = Hub(backplane=engine.backplane())
        await other.subscribe(Reader(), "a", join="x")
        # As by SIGKILL: nobody says that it is gone.
        assert other._replication is not None
        backplane: Any = other._replication.backplane
        backplane._session.reached = False
        await backplane.close()
        with client.Redis(host=LOOPBACK, port=engine.port) as connection:
            assert connection.hlen("rawws:{a}:roster") == 1
            # Whoever is there lets go of the leases that ran out.
            await eventually(lambda: connection.zcount("rawws:servers", "-inf", "(+inf") == 1)
            # The roster has it still: nobody asked since.
            assert connection.hlen("rawws:{a}:roster") == 1
            await one.subscribe(Reader(), "a")
            assert present(one) == {}
            await eventually(lambda: connection.hlen("rawws:{a}:roster") == 0)
        await other.close()


# -- users that go from one server to another


def person(user: str) -> Reader:
    reader = Reader()
    reader.identity = Identity(user, {"name": user})
    return reader


def has_nobody_away(hub: Hub) -> bool:
    return not hub.attendance._timers


async def test_users_are_known_at_every_server(engine: Engine) -> None:
    async with hubs(engine) as (one, two):
        watcher = Reader()
        await one.subscribe(watcher, "a", watch=True)
        await two.subscribe(Reader(), "a")
        ann = await two.subscribe(person("ann"), "a", join="writes")
        tab = await one.subscribe(person("ann"), "a", join="reads")
        await eventually(lambda: len(one.presence("a")) == len(two.presence("a")) == 2)
        for hub in (one, two):
            assert {user: {each.id for each in found} for user, found in hub.users("a").items()} == {
                "ann": {ann.present, tab.present}
            }
            assert {each.info for each in hub.presence("a")} == {"writes", "reads"}
        assert seen(watcher) == {ann.present: "writes", tab.present: "reads"}


async def test_a_user_that_comes_back_at_another_server_neither_leaves_nor_joins(engine: Engine) -> None:
    async with hubs(engine, 3, presence_grace=60) as (one, two, three):
        watchers = Reader(), Reader(), Reader()
        for hub, watcher in zip((one, two, three), watchers, strict=True):
            await hub.subscribe(watcher, "a", watch=True)
        ann = person("ann")
        ident = (await one.subscribe(ann, "a", join="x")).present
        await eventually(lambda: all(len(watcher.got) == 1 for watcher in watchers))
        for before, hub in ((one, two), (two, three), (three, one)):
            ann.die()
            await eventually(lambda: all(each.presence("a")[0].away for each in (one, two, three)))
            ann = person("ann")
            assert (await hub.subscribe(ann, "a", join="x")).present == ident
            await eventually(lambda: not any(each.presence("a")[0].away for each in (one, two, three)))
            await eventually(partial(has_nobody_away, before))
        # Behind all that was told meanwhile.
        last = [await hub.subscribe(person("bob"), "a", join=number) for number, hub in enumerate((one, two, three))]
        await eventually(lambda: all(len(watcher.got) == 4 for watcher in watchers))
        wanted = {ident: "x"} | {each.present: number for number, each in enumerate(last)}
        assert all(seen(watcher) == wanted for watcher in watchers)
        one.unsubscribe(ann)
        del wanted[ident]
        await eventually(lambda: all(seen(watcher) == wanted for watcher in watchers))
        assert all(present(hub) == wanted for hub in (one, two, three))


async def test_a_user_that_does_not_come_back_leaves_every_server(engine: Engine) -> None:
    async with hubs(engine, presence_grace=0.2) as (one, two):
        watcher, ann = Reader(), person("ann")
        await two.subscribe(watcher, "a", watch=True)
        await one.subscribe(ann, "a", join="x")
        await eventually(lambda: len(seen(watcher)) == 1)
        ann.die()
        await eventually(lambda: seen(watcher) == present(one) == present(two) == {})
        assert has_nobody_away(one)
