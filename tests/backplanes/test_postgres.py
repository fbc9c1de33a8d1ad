"""The PostgreSQL backplane beyond the contract: which restarts it trusts, and what may stand in its way."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from rawws.backplanes import postgres, postgres_line, postgres_schema
from rawws.backplanes.postgres import PostgresBackplane
from rawws.backplanes.postgres_line import PostgresLine, Statement, is_refusal
from rawws.topics import History, Hub, TopicError, inquiries
from rawws.topics.backplane import BackplaneAway, HistoryResult, Position, PresenceEntry, TopicUnavailable
from tests.backplanes.engine_postgres import PostgresEngine, as_nobody
from tests.backplanes.handlers import Reader, Told, hubs, opened
from tests.backplanes.test_redis import Relay
from tests.processes import LOOPBACK, Process, find_program, free_port
from tests.server.peers import Logged, eventually

# As those of `ONCE`.
ON_ONE_LOOP = True


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[PostgresEngine]:
    made = PostgresEngine(tmp_path)
    yield made
    made.end()


@asynccontextmanager
async def told_of(url: str, **arguments: Any) -> AsyncIterator[Told]:
    """Give a backplane that is open, and what it tells."""
    told = Told(PostgresBackplane(url, **arguments))
    told.backplane.open("one", History(), told)
    try:
        yield told
    finally:
        await told.backplane.close()


async def restarted(engine: PostgresEngine, one: Told) -> None:
    """Kill the PostgreSQL and start it again, and wait until it is reached."""
    backs = one.backs
    engine.kill()
    await eventually(lambda: len(one.reasons) == backs)
    engine.start()
    await eventually(lambda: one.backs == backs + 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"url": "http://127.0.0.1"}, r"url is 'http://127.0.0.1', allowed are postgresql://user:password@host:port/"),
        ({"url": "postgresql:/127.0.0.1"}, "allowed are postgresql://"),
        ({"url": "postgresql://[::1"}, "allowed are postgresql://"),
        ({"url": "postgresql://127.0.0.1:port"}, "a port is no number from 0 to 65535"),
        ({"url": "postgresql://one:5432,two:99999/a"}, "a port is no number"),
        ({"prefix": "a b"}, r"prefix is 'a b', allowed are 1 to 48"),
        ({"url": "postgresql://127.0.0.1:65536"}, "a port is no number from 0 to 65535"),
        ({"prefix": "pg_rawws"}, "not beginning with pg_"),
        ({"prefix": "a" * 49}, "allowed are 1 to 48"),
        ({"prefix": ""}, "prefix is ''"),
        ({"lease": 0}, "lease is 0 and timeout 5.0, allowed are numbers above 0"),
    ],
)
def test_what_means_nothing_raises_where_it_is_made(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PostgresBackplane(**arguments)


def test_without_the_package_the_error_says_how_to_install_it() -> None:
    program = (
        "import sys; sys.modules['asyncpg'] = None\n"
        "from rawws.backplanes.postgres import PostgresBackplane\nPostgresBackplane()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert "ImportError: the PostgreSQL backplane needs asyncpg: pip install 'rawws[postgres]'" in done.stderr


def test_hosts_may_be_several_and_addresses_of_ipv6_and_names_as_long_as_postgresql_takes_them() -> None:
    # Of several, none has brackets: Python's own urlsplit takes these in some releases, and asyncpg asks that.
    for hosts in ("[::1]", "[::1]:65535", "one:5432,two"):
        PostgresBackplane(f"postgresql://user:word@{hosts}/base", prefix="a" * 48)


async def test_what_the_package_says_of_a_url_is_not_passed_on_for_it_may_quote_the_password() -> None:
    with pytest.raises(BackplaneAway) as caught:
        await postgres_schema.connect("postgresql://user:sesame@127.0.0.1:1/base?sslmode=nonsense", 1.0)
    assert "sesame" not in str(caught.value)
    assert "check what the URL says" in str(caught.value)


async def test_a_place_is_remembered_for_a_day_and_for_twice_as_long_as_anything_is_held(
    engine: PostgresEngine,
) -> None:
    for age, remembered in ((60.0, postgres.PLACE_AGE), (2 * postgres.PLACE_AGE, 4 * postgres.PLACE_AGE)):
        async with opened(engine, "one", History(age=age)) as one:
            await eventually(lambda one=one: one.backs)  # type: ignore[misc]
            assert engine.ask("select remember from rawws.about") == remembered


# -- which restarts it trusts


@pytest.mark.parametrize("name", ["synchronous_commit", "fsync", "full_page_writes"])
async def test_what_is_not_on_the_disk_before_the_answer_is_no_promise_a_restart_goes_on_from_no_epoch(
    name: str, tmp_path: Path
) -> None:
    engine = PostgresEngine(tmp_path, options={name: "off"})
    try:
        async with opened(engine, "one") as one:
            await eventually(lambda: one.backs)
            place = await one.backplane.publish("a", "1", None, 1)
            # So that it is there behind the restart, whatever it promises.
            engine.ask("checkpoint")
            await restarted(engine, one)
            past = await one.backplane.history("a", place)
            assert past == HistoryResult(past.epoch, 1, [], recovered=False, began=1)
            assert past.epoch != place.epoch
            assert await one.backplane.publish("a", "2", None, 2) == (past.epoch, 2)
            assert [each.message for each in (await one.backplane.history("a", None)).records] == ["1", "2"]
    finally:
        engine.end()


async def test_one_that_keeps_all_goes_over_into_a_new_epoch_and_loses_nothing(engine: PostgresEngine) -> None:
    async with opened(engine, "one") as one:
        await eventually(lambda: one.backs)
        ask = one.backplane.history
        places = [await one.backplane.publish("a", str(number), None, number) for number in range(3)]
        await restarted(engine, one)
        past = await ask("a", places[1])
        assert [each.message for each in past.records] == ["2"]
        assert past == HistoryResult(past.epoch, 3, past.records, True, 3, (*past.before[:-1], places[2]))
        again = await one.backplane.publish("a", "2", None, 2)
        assert again == (past.epoch, 3)
        assert await one.backplane.publish("a", "3", None, 3) == (past.epoch, 4)
        for number in range(7):
            # As behind another restart.
            engine.ask("update rawws.topics set life = split_part(life, ' ', 1) || $1", f" {number}")
            past = await ask("a", again)
            assert [each.message for each in past.records] == ["3"]
            assert past.began == 4
            assert places[2] in past.before
        # It knows of eight epochs before it.
        engine.ask("update rawws.topics set life = split_part(life, ' ', 1) || ' 8'")
        assert not (await ask("a", places[2])).recovered
        assert (await ask("a", again)).recovered


async def test_where_a_standby_takes_over_something_may_be_lost(engine: PostgresEngine) -> None:
    async with opened(engine, "one") as one:
        await eventually(lambda: one.backs)
        place = await one.backplane.publish("a", "1", None, 1)
        engine.kill()
        await eventually(lambda: one.reasons)
        (engine.server.data / "standby.signal").touch()
        engine.start()
        async with opened(engine, "two") as two:
            await eventually(lambda: two.reasons)
            assert two.reasons == ["this PostgreSQL is a standby, which takes no writes: name the primary in the URL"]
            engine.ask("select pg_promote()")
            await eventually(lambda: one.backs == 2 and two.backs)
            past = await one.backplane.history("a", place)
            assert past == HistoryResult(past.epoch, 1, [], recovered=False, began=1)


async def test_what_it_lost_and_gave_again_is_not_taken_for_the_same(engine: PostgresEngine) -> None:
    copy = engine.server.folder / "copy"
    async with opened(engine, "one") as one:
        await eventually(lambda: one.backs)
        first = await one.backplane.publish("a", "1", None, 1)
        engine.kill()
        await eventually(lambda: one.reasons)
        engine.server.run("cp", "-a", str(engine.server.data), str(copy))
        engine.start()
        await eventually(lambda: one.backs == 2)
        lost = await one.backplane.publish("a", "lost", None, 2)
        engine.kill()
        await eventually(lambda: len(one.reasons) == 2)
        shutil.rmtree(engine.server.data)
        copy.rename(engine.server.data)
        engine.start()
        await eventually(lambda: one.backs == 3)
        here = await one.backplane.publish("a", "2", None, 3)
        assert here.offset == lost.offset == 2
        assert (await one.backplane.history("a", first)).recovered
        # It never heard of that epoch.
        past = await one.backplane.history("a", lost)
        assert past == HistoryResult(here.epoch, 2, [], recovered=False, began=1, before=past.before)
        assert len({first.epoch, here.epoch, lost.epoch}) == 3


async def test_a_place_ahead_of_what_it_knows_begins_a_new_epoch(engine: PostgresEngine) -> None:
    async with opened(engine, "one") as one:
        await eventually(lambda: one.backs)
        place = await one.backplane.publish("a", "1", None, 1)
        past = await one.backplane.history("a", place._replace(offset=7))
        assert past == HistoryResult(past.epoch, 1, [], recovered=False)
        assert past.epoch != place.epoch
        # Not one that was never published to: nobody can have been there.
        start = await one.backplane.history("b", None)
        assert await one.backplane.history("b", Position(start.epoch, 7)) == start._replace(recovered=False)
        # Also of an epoch that went over into that of another run.
        engine.ask("update rawws.topics set life = split_part(life, ' ', 1) || ' x'")
        ahead = await one.backplane.history("a", Position(past.epoch, 2))
        assert ahead == HistoryResult(ahead.epoch, 1, [], recovered=False, began=1)


async def test_a_schema_that_is_dropped_is_made_again_and_all_hubs_are_told(
    engine: PostgresEngine, logged: Logged
) -> None:
    async with hubs(engine) as (one, two):
        reader = Reader()
        await two.subscribe(reader, "a")
        await one.publish("a", "1")
        engine.ask("drop schema rawws cascade")
        for hub in (one, two):
            hub.publish("a", "2")
            await eventually(lambda hub=hub: hub.stats().retries and not hub.stats().unsent)  # type: ignore[misc]
        assert (await two.publish("a", "3")).accepted
        await eventually(lambda: reader.got[-1:] == ["3"])
        assert reader.lost_at
    logged.take_all("the backplane is away", 2)
    logged.take_all("the backplane is back", 2)


# -- what may stand in its way


async def test_a_wrong_password_and_what_is_not_there_are_told_with_a_remedy(engine: PostgresEngine) -> None:
    for sql in ("create role secret login password 'sesame'", "create role few login connection limit 1"):
        engine.ask(sql)
    engine.ask("create database latin encoding latin1 locale 'C' template template0")
    url = engine.url
    host = url.partition("@")[2]
    try:
        for wrong, reason in [
            (f"postgresql://secret:wrong@{host}", "PostgreSQL refuses the user or the password of the URL: password"),
            (f"postgresql://nobody@{host}", 'PostgreSQL refuses the user or the password of the URL: role "nobody"'),
            (
                url.replace("/postgres", "/none"),
                'database "none" does not exist: create it, or name another in the URL',
            ),
            (url.replace("tester", "few"), "each hub needs two, see max_connections"),
            (url.replace("/postgres", "/latin"), "database latin has the encoding LATIN1, needed is UTF8"),
            (f"{url}?sslmode=strange", "check what the URL says"),
        ]:
            async with told_of(wrong) as told:
                await eventually(lambda told=told: told.reasons)  # type: ignore[misc]
                assert reason in told.reasons[0]
                assert "sesame" not in told.reasons[0]
        good = PostgresBackplane(f"postgresql://secret:sesame@{host}")
        assert "sesame" not in repr(good)
    finally:
        for sql in ("drop role secret", "drop role few", "drop database latin"):
            engine.ask(sql)


async def test_who_may_not_make_tables_is_told_who_can_and_begins_when_they_are_made(engine: PostgresEngine) -> None:
    engine.ask("create role app login")
    try:
        async with told_of(engine.url.replace("tester", "app")) as told:
            await eventually(lambda: told.reasons)
            assert "the role app may not use or make the schema rawws (permission denied" in told.reasons[0]
            assert told.reasons[0].endswith("have one who may run: rawws backplane init URL --prefix rawws --role app")
            await PostgresBackplane.initialize(engine.url)
            async with told_of(engine.url.replace("tester", "app")) as again:
                await eventually(lambda: again.reasons)
                assert "the role app may not use or make the schema rawws" in again.reasons[0]
            for _ in range(2):
                await PostgresBackplane.initialize(engine.url, role="app")
            await eventually(lambda: told.backs)
            assert (await told.backplane.publish("a", "1", None, 1)).offset == 1
            engine.ask("revoke insert on rawws.records, rawws.origins from app")
            with pytest.raises(TopicUnavailable, match="permission denied"):
                await told.backplane.publish("a", "2", None, 2)
            async with told_of(engine.url.replace("tester", "app")) as third:
                await eventually(lambda: third.reasons)
                assert "the role app may not read and write origins, records of the schema rawws" in third.reasons[0]
        with pytest.raises(BackplaneAway, match="there is no role nobody: create it first"):
            await PostgresBackplane.initialize(engine.url, role="nobody")
    finally:
        engine.ask("drop owned by app")
        engine.ask("drop role app")


async def test_what_stands_there_of_another_version_or_program_is_left_as_it_is(
    engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await PostgresBackplane.initialize(engine.url)
    for version in (7, 0):
        engine.ask(f"update rawws.about set version = {version}")
        with pytest.raises(
            BackplaneAway, match=f"the schema rawws is of version {version}, this rawws needs version 1: run the same"
        ):
            await PostgresBackplane.initialize(engine.url)
    engine.ask("drop schema rawws cascade")
    engine.ask("create schema rawws")
    engine.ask("create table rawws.things ()")
    with pytest.raises(BackplaneAway, match="the schema rawws has tables of another program: choose another prefix"):
        await PostgresBackplane.initialize(engine.url)
    engine.ask("drop table rawws.things")
    # A schema without tables was made for it.
    await PostgresBackplane.initialize(engine.url)
    monkeypatch.setattr(postgres_schema, "OLDEST", 990000)
    with pytest.raises(BackplaneAway, match=r"PostgreSQL is version \d+\.\d+.*, needed is 13 or later"):
        await PostgresBackplane.initialize(engine.url)


async def test_servers_that_start_at_once_make_it_once(engine: PostgresEngine) -> None:
    async with contextlib.AsyncExitStack() as stack:
        all_told = [await stack.enter_async_context(opened(engine, f"{number}")) for number in range(8)]
        await eventually(lambda: all(told.backs for told in all_told))
        assert [told.reasons for told in all_told] == [[]] * 8
        assert engine.ask("select count(*) from rawws.about") == 1


async def test_prefixes_and_databases_keep_hubs_apart(engine: PostgresEngine) -> None:
    engine.ask("create database another")
    prefixes = ("rawws", "rawws.2", "User", "x" * 48)
    made = [PostgresBackplane(engine.url, prefix=prefix) for prefix in prefixes]
    made.append(PostgresBackplane(engine.url.replace("/postgres", "/another")))
    held = [Hub(backplane=each) for each in made]
    cursors = [(await hub.publish("a", "1")).cursor for hub in held]
    assert len({cursor.partition(":")[0] for cursor in cursors}) == 5
    assert {cursor.partition(":")[2] for cursor in cursors} == {"1"}
    for hub in held:
        await hub.close()
    for prefix in prefixes[1:]:
        engine.ask(f'drop schema "{prefix}" cascade')
    engine.ask("drop database another")


@contextlib.contextmanager
def limited(engine: PostgresEngine, size: int) -> Iterator[None]:
    """Have files of the connected processes of a PostgreSQL not grow beyond a size, as where a disk is full."""
    program = find_program("prlimit", "apt-get install util-linux")
    pids = engine.ask(
        "select array_agg(pid) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()"
    )
    for pid in pids:
        engine.server.run(program, "--pid", str(pid), f"--fsize={size}:")
    yield
    for pid in pids:
        engine.server.run(program, "--pid", str(pid), "--fsize=unlimited:")


async def test_what_a_full_disk_refuses_is_counted_and_told_and_the_others_go_on(
    engine: PostgresEngine, logged: Logged
) -> None:
    async with hubs(engine, history=History(count=100, size=64 << 20)) as (one, two):
        reader = Reader()
        await two.subscribe(reader, "a")
        await one.publish("a", "1")
        with limited(engine, 2 << 20):
            outcomes = [one.publish("large", random.randbytes(700_000)) for _ in range(8)]
            small = one.publish("a", "2")
            await small
            for outcome in outcomes:
                await outcome
            refused = [outcome for outcome in outcomes if not outcome.accepted]
            assert refused
            assert small.accepted
            assert refused[-1].refused == "the topic 'large' is unavailable at this time, others are not"
            assert (one.stats().lost, one.stats().faults) == (len(refused), len(refused))
        assert (await one.publish("large", "3")).cursor.endswith(f":{8 - len(refused) + 1}")
        await eventually(lambda: reader.got == ["1", "2"])
        assert (one.stats().degraded, one.stats().retries, two.stats().retries) == (False, 0, 0)
    assert all("make room on its disk, or hold less by History(total=...)" in line for line in logged.left())
    logged.take_all("the backplane cannot serve all of the topic", 1)


async def test_who_is_present_and_is_refused_is_held_when_there_is_room_again(engine: PostgresEngine) -> None:
    engine.arguments = {"lease": 0.4}
    async with opened(engine, "one") as one, opened(engine, "two") as two:
        await eventually(lambda: one.backs and two.backs)
        engine.ask("alter table rawws.roster add constraint full_disk check (info <> 'null')")
        one.backplane.join("a", "x", "null")
        one.backplane.join("a", "gone", "null")
        await eventually(lambda: len(one.doubts) >= 4)
        assert "the PostgreSQL does not hold who is present" in one.doubts[0][1]
        one.backplane.leave("a", "gone")
        engine.ask("alter table rawws.roster drop constraint full_disk")
        held: list[PresenceEntry] = []
        while not held:
            held = await two.backplane.presence("a")
        assert held == [PresenceEntry("one", "x", "null")]
        assert (one.reasons, two.reasons) == ([], [])


async def test_a_topic_that_another_transaction_holds_is_refused_and_no_other_waits_for_long(
    engine: PostgresEngine,
) -> None:
    engine.arguments = {"timeout": 4.0}
    async with opened(engine, "one") as one:
        await eventually(lambda: one.backs)
        await one.backplane.publish("held", "1", None, 1)
        other = await asyncpg.connect(engine.url)
        async with other.transaction():
            await other.fetchval("select rawws.publish('held', 'not committed yet')")
            answers = [one.backplane.publish(topic, "2", None, 2) for topic in ("free", "held", "other")]
            found = await asyncio.gather(*answers, return_exceptions=True)
            assert [isinstance(each, Position) for each in found] == [True, False, True]
            assert isinstance(found[1], TopicUnavailable)
            assert "lock timeout" in found[1].reason
        await other.close()
        assert (await one.backplane.publish("held", "3", None, 3)).offset == 3
        assert one.reasons == []


async def test_what_waits_in_a_circle_with_another_program_is_tried_again(engine: PostgresEngine) -> None:
    engine.arguments = {"timeout": 20.0}
    async with opened(engine, "one") as one:
        await eventually(lambda: one.backs)
        for topic in "ab":
            await one.backplane.publish(topic, "1", None, 1)
        other = await asyncpg.connect(engine.url, server_settings={"deadlock_timeout": "30s"})
        async with other.transaction():
            await other.fetchval("select rawws.publish('b', 'x')")
            answers = [one.backplane.publish(topic, "2", None, 2) for topic in "ab"]
            waits = "select count(*) from pg_locks where not granted"
            await eventually(lambda: engine.ask(waits) == 1)
            # Has `a`, as soon as the other one gives up.
            await other.fetchval("select rawws.publish('a', 'x')")
        assert [place.offset for place in await asyncio.gather(*answers)] == [3, 3]
        await other.close()
        assert one.reasons == []


async def test_batches_of_servers_over_the_same_topics_never_wait_in_a_circle(engine: PostgresEngine) -> None:
    topics = [f"{number}" for number in range(100)]
    history = History(count=10_000, size=64 << 20)
    async with opened(engine, "one", history) as one, opened(engine, "two", history) as two:
        await eventually(lambda: one.backs and two.backs)
        deadlocks = "select deadlocks from pg_stat_database where datname = current_database()"
        before = engine.ask(deadlocks)
        number = 0
        for _ in range(20):
            answers = []
            for told in (one, two):
                for topic in random.sample(topics, 100):
                    number += 1
                    answers.append(told.backplane.publish(topic, "x", None, number))
            await asyncio.gather(*answers)
        for topic in topics:
            past = await one.backplane.history(topic, None)
            assert [each.offset for each in past.records] == [*range(1, 41)]
        assert engine.ask(deadlocks) == before
        assert one.reasons == two.reasons == []


TOPICS = "insert into rawws.topics (topic, epoch, \"offset\", before, life) select 'bad', {}, life from rawws.engine()"
RECORDS = (
    "insert into rawws.records values ('bad', 1, {}, '', 's', 1, now(), 100)",
    TOPICS.format("'e', 1, '{}'"),
)
WRONG: dict[str, tuple[str, ...]] = {
    "an epoch of no cursor": (TOPICS.format("'%:=&', 1, '{}'"),),
    "an offset below 0": (TOPICS.format("'e', -5, '{}'"),),
    "a huge offset": (TOPICS.format("'e', 9000000000000000000, '{}'"),),
    "a place before that is none": (TOPICS.format("'e', 1, '{x}'"),),
    "a text of no UTF-8": (RECORDS[0].format(r"'\xff', true, null"), RECORDS[1]),
    "a key of no UTF-8": (RECORDS[0].format(r"'', true, '\xff'"), RECORDS[1]),
    "nobody": (
        "insert into rawws.leases values ('s', now() + interval '1 day')",
        "insert into rawws.roster values ('bad', 's', '', 'null')",
    ),
}


@pytest.mark.parametrize("name", WRONG)
async def test_whatever_stands_in_a_topics_rows_is_that_topics_fault_until_it_is_gone(
    engine: PostgresEngine, logged: Logged, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(inquiries, "FIRST_WAIT", 0.01)
    async with hubs(engine, 1) as (hub,):
        good, bad = Reader(), Reader()
        await hub.subscribe(good, "good")
        for sql in WRONG[name]:
            engine.ask(sql)
        subscription = hub.subscribe(bad, "bad")
        with pytest.raises(TopicError, match=r"^the topic 'bad' is unavailable"):
            await subscription
        for number in range(3):
            await hub.publish("good", str(number))
        assert good.got == ["0", "1", "2"]
        assert (hub.stats().degraded, hub.stats().retries) == (False, 0)
        for table in ("topics", "records", "roster"):
            engine.ask(f"delete from rawws.{table} where topic = 'bad'")
        # It begins by itself.
        await eventually(lambda: not subscription.pending)
        await hub.publish("bad", "back")
        assert bad.got == ["back"]
    logged.take_all("the backplane cannot serve all of the topic", 1)
    logged.take_all("the backplane serves the topic", 1)


async def test_records_of_which_one_was_taken_out_are_given_from_behind_it(engine: PostgresEngine) -> None:
    async with opened(engine, "one") as one:
        await eventually(lambda: one.backs)
        places = [await one.backplane.publish("a", f"{number}", None, number) for number in range(4)]
        engine.ask('delete from rawws.records where "offset" = 2')
        past = await one.backplane.history("a", None)
        assert [each.message for each in past.records] == ["2", "3"]
        assert (await one.backplane.history("a", places[1])).recovered
        assert not (await one.backplane.history("a", places[0])).recovered


@pytest.mark.parametrize(
    "head", ["?1 0", "=junk 0", "=1 0", "=0 0", "+1 0", "-1 0", "=1 5", ".1 x"], ids=lambda head: head.split()[0]
)
async def test_a_notification_that_nobody_can_read_is_its_topics_and_harms_nothing(
    engine: PostgresEngine, logged: Logged, head: str
) -> None:
    async with hubs(engine, 1) as (hub,):
        reader = Reader()
        await hub.subscribe(reader, "a")
        assert hub._replication is not None
        backplane: Any = hub._replication.backplane
        channel = backplane._channel("a")
        for payload in ("", "junk", "= 0 0", "=1 0 b\njunk", f"{head} a\nW10="):
            engine.ask("select pg_notify($1, $2)", channel, payload)
        for payload in ("", "-", "=", "junk"):
            engine.ask("select pg_notify('rawws.servers', $1)", payload)
        # Its own words, once more.
        engine.ask("select pg_notify('rawws.servers', $1)", f"={hub._replication.server} {backplane._token}")
        await hub.publish("a", "x")
        await eventually(lambda: reader.got == ["x"])
        assert (hub.stats().faults, hub.stats().retries, hub.stats().declared) == (1, 0, 0)
    logged.take_all("the backplane cannot serve all of the topic", 1)


async def test_what_is_larger_than_a_notification_comes_whole_also_where_equal_pieces_are_told_at_once(
    engine: PostgresEngine,
) -> None:
    async with opened(engine, "one", History(0, 0, 0.0, 0)) as one:
        await eventually(lambda: one.backs)
        # Two names of one channel.
        names = [f"{number}" for number in range(2000)]
        channels = [one.backplane._channel(name) for name in names]  # type: ignore[attr-defined]
        first, second = next(
            (names[channels.index(channel)], name)
            for name, channel in zip(names, channels, strict=True)
            if names[channels.index(channel)] != name
        )
        await asyncio.gather(one.backplane.follow(first), one.backplane.follow(second))
        message = "x" * 100_000
        sent = [(topic, message, number) for number in (1, 2) for topic in (first, second)]
        for topic, text, number in sent:
            one.backplane.publish(topic, text, None, number)
        await eventually(lambda: len(one.records) == 4)
        assert [(each.topic, each.message, each.number) for each in one.records] == sent


async def test_a_text_that_has_no_utf_8_is_refused_alone(engine: PostgresEngine) -> None:
    async with opened(engine, "one") as one:
        await eventually(lambda: one.backs)
        extras = ["", '"event":"\ud800"', ""]
        answers = [one.backplane.publish("a", "x", None, number, extra) for number, extra in enumerate(extras)]
        one.backplane.publish("a", "x", None, 9, extras[1]).cancel()
        found = await asyncio.gather(*answers, return_exceptions=True)
        assert [isinstance(each, TopicUnavailable) for each in found] == [False, True, False]
        assert one.reasons == []


# -- what is forgotten


async def test_what_is_too_old_or_too_much_of_all_topics_is_taken_away(
    engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "SWEEP_INTERVAL", 0.01)
    engine.arguments = {"lease": 0.2}
    async with opened(engine, "one", History(count=100, size=1 << 20, age=300.0, total=25_000)) as one:
        await eventually(lambda: one.backs)
        for topic in "abc":
            for number in range(10):
                await one.backplane.publish(topic, "x" * 1000, None, number)
        count = "select string_agg(distinct topic, '') from rawws.records"
        # That which was published to last has the most of it.
        await eventually(lambda: engine.ask(count) == "bc")
        engine.ask("update rawws.topics set published = now() - interval '301 s' where topic = 'b'")
        await eventually(lambda: engine.ask(count) == "c")
        # The places are remembered.
        assert (await one.backplane.history("a", None)).offset == 10
        assert (await one.backplane.publish("a", "y", None, 10)).offset == 11
        assert [each.message for each in (await one.backplane.history("a", None)).records] == ["y"]


async def test_what_nobody_needs_any_more_is_forgotten_and_what_is_followed_is_not(
    engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "SWEEP_INTERVAL", 0.01)
    monkeypatch.setattr(postgres, "PLACE_AGE", 2.0)
    engine.arguments = {"lease": 0.4}
    async with opened(engine, "one", History(age=0.5)) as one:
        await eventually(lambda: one.backs)
        await one.backplane.follow("a")
        place = await one.backplane.publish("a", "1", None, 1)
        await one.backplane.publish("forgotten", "1", None, 2)
        await eventually(lambda: engine.ask("select string_agg(topic, '') from rawws.topics") == "a")
        assert engine.ask("select count(*) from rawws.records") == 0
        await eventually(lambda: engine.ask("select count(*) from rawws.origins") == 0)
        assert (await one.backplane.publish("a", "2", None, 3)) == place._replace(offset=2)
        # Behind what is forgotten, nobody goes on.
        assert not (await one.backplane.history("forgotten", place)).recovered


async def test_a_topic_without_a_publication_that_is_followed_for_long_gets_a_new_cursor_and_loses_nothing(
    engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "PLACE_AGE", 2.0)
    engine.arguments = {"lease": 0.4}
    async with hubs(engine, history=History(age=0.5)) as (one, two):
        reader, late = Reader(), Reader()
        first = (await one.subscribe(reader, "a")).cursor
        await eventually(lambda: len(reader.moves) >= 4)
        assert all(recovered for _, recovered in reader.moves)
        assert len({first, *reader.cursors}) >= 3
        subscription = await two.subscribe(late, "a", since=reader.cursors[-1])
        assert subscription.recovered
        await two.publish("a", "x")
        await eventually(lambda: reader.got == late.got == ["x"])
        assert one.stats().declared == two.stats().declared == 0


# -- leases


async def test_a_server_that_falls_silent_is_gone_within_its_lease_and_back_when_it_was_only_slow(
    engine: PostgresEngine,
) -> None:
    engine.arguments = {"lease": 1.0}
    async with hubs(engine) as (one, two):
        watcher = Reader()
        await one.subscribe(watcher, "a", watch=True)
        ident = (await two.subscribe(Reader(), "a", join="x")).present
        await eventually(lambda: [each.id for each in one.presence("a")] == [ident])
        assert two._replication is not None
        backplane: Any = two._replication.backplane
        beat, blocked = backplane._beat, asyncio.Event()

        async def wait() -> bool:
            await blocked.wait()
            return bool(await beat())

        backplane._beat = wait
        await eventually(lambda: one.presence("a") == [])
        assert engine.ask("select count(*) from rawws.roster") == 0
        backplane._beat = beat
        blocked.set()
        await eventually(lambda: [each.id for each in one.presence("a")] == [ident])
        assert [one.stats().degraded, two.stats().degraded] == [False, False]


async def test_those_who_leave_while_it_is_away_are_gone_and_too_many_of_them_by_the_lease(
    engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "MAX_LEFT", 2)
    async with opened(engine, "one") as one, opened(engine, "two") as two:
        for leaving in ("y", "xyz"):
            await eventually(lambda: one.backs == two.backs == len(one.reasons) + 1)
            for ident in "wxyz":
                one.backplane.join("a", ident, "null")
            await eventually(lambda: engine.ask("select count(*) from rawws.roster") == 4)
            engine.kill()
            await eventually(lambda: len(one.reasons) == one.backs)
            for ident in leaving:
                one.backplane.leave("a", ident)
            engine.start()
            await eventually(lambda: one.backs == two.backs == len(one.reasons) + 1)
            wanted = [PresenceEntry("one", ident, "null") for ident in "wxyz" if ident not in leaving]
            held: list[PresenceEntry] = []
            while sorted(held) != wanted:
                held = await two.backplane.presence("a")


# -- connections


@pytest.mark.parametrize("number", [0, 1], ids=["asked", "heard"])
async def test_a_connection_that_is_dead_is_noticed_and_made_anew(engine: PostgresEngine, number: int) -> None:
    relay = Relay(engine.server.port)
    async with await asyncio.start_server(relay.pass_on, LOOPBACK, 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"{engine.url.replace(str(engine.server.port), str(port))}?sslmode=disable"
        async with told_of(url, lease=0.8, timeout=2.0) as told:
            await eventually(lambda: told.backs)
            await told.backplane.follow("a")
            assert relay.count == 2
            relay.mute.add(number)
            await eventually(lambda: told.backs == 2)
            assert told.reasons == ["no answer in time" if not number else "what is published did not come in time"]
            await told.backplane.follow("a")
            await told.backplane.publish("a", "heard", None, 1)
            await eventually(lambda: told.messages == ["heard"])
        for writer in relay.writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        await eventually(lambda: not any(task for task in asyncio.all_tasks() if "Relay" in repr(task)))


async def test_a_backplane_that_is_closed_while_nobody_answers_is_closed_soon(
    engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_schema, "GRACE", 0.01)
    reached = asyncio.Event()
    gone = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.set()
        await reader.read()
        writer.close()
        gone.set()

    async with await asyncio.start_server(say_nothing, LOOPBACK, 0) as server:
        url = f"postgresql://{LOOPBACK}:{server.sockets[0].getsockname()[1]}?sslmode=disable"
        async with told_of(url, timeout=60.0) as told:
            await reached.wait()
        assert told.reasons == []
        await gone.wait()


async def test_a_message_of_more_pieces_than_are_kept_is_asked_for(
    engine: PostgresEngine, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "MAX_PIECES", 3)
    async with hubs(engine) as (one, two):
        reader = Reader()
        await two.subscribe(reader, "a")
        message = "x" * 100_000
        await one.publish("a", message)
        await eventually(lambda: reader.got == [message])
        assert two.stats().declared == 0
        await eventually(lambda: one.stats().faults == 0 < two.stats().faults)
    logged.take_all("the backplane cannot serve all of the topic", 1)


async def test_a_connection_that_is_ended_is_made_anew_at_once(engine: PostgresEngine) -> None:
    async with opened(engine, "one") as one:
        await eventually(lambda: one.backs)
        for number in (1, 2):
            engine.ask(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where pid <> pg_backend_pid() and backend_type = 'client backend' limit 1"
            )
            await eventually(lambda number=number: one.backs == number + 1)  # type: ignore[misc]
            assert len(one.reasons) == number


@pytest.mark.parametrize("mode", ["session", "transaction", "statement"])
async def test_behind_pgbouncer_it_works_by_sessions_and_says_so_where_connections_are_lent(
    engine: PostgresEngine, tmp_path: Path, mode: str
) -> None:
    port = free_port()
    folder = engine.server.folder
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        f"[databases]\n* = host={LOOPBACK} port={engine.server.port}\n[pgbouncer]\nlisten_addr = {LOOPBACK}\n"
        f"listen_port = {port}\nauth_type = any\npool_mode = {mode}\nunix_socket_dir =\n"
        f"[users]\n"
    )
    settings.write_text(
        settings.read_text().replace("* = host", f"* = user={engine.url.split('/')[2].split('@')[0]} host")
    )
    program = find_program("pgbouncer", "apt-get install pgbouncer")
    with Process([*as_nobody(), program, str(settings)], listens=port):
        url = engine.url.replace(str(engine.server.port), str(port))
        async with told_of(url, timeout=4.0) as told:
            if mode != "session":
                await eventually(lambda: told.reasons)
                assert told.reasons == [postgres_schema.POOLER]
                assert engine.ask("select count(*) from pg_namespace where nspname = 'rawws'") == 0
                return
            await eventually(lambda: told.backs)
            await told.backplane.follow("a")
            await told.backplane.publish("a", "1", None, 1)
            await eventually(lambda: told.messages == ["1"])


async def test_many_topics_are_followed_over_few_channels_and_those_alone_are_heard(engine: PostgresEngine) -> None:
    async with opened(engine, "one") as one:
        await eventually(lambda: one.backs)
        backplane: Any = one.backplane
        names = [f"{number}" for number in range(2000)]
        await asyncio.gather(*[backplane.follow(name) for name in names])
        assert len(backplane._listening) == 256
        for name in names[1:]:
            backplane.unfollow(name)
        await eventually(lambda: len(backplane._listening) == 1)
        for number, name in enumerate(names):
            backplane.publish(name, name, None, number)
        await backplane.publish("0", "last", None, 2000)
        await eventually(lambda: one.messages == ["0", "last"])


def test_the_programs_of_the_tests_run_as_another_user_where_this_one_is_root() -> None:
    assert as_nobody() == ([] if os.getuid() else ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"])


# -- bounds, and what ends


async def test_pieces_are_heard_up_to_their_bound_and_forgotten_with_the_following(
    engine: PostgresEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "MAX_PIECES", 3)
    async with opened(engine, "one") as one:
        await eventually(lambda: one.backs)
        backplane: Any = one.backplane
        await backplane.follow("a")
        first, second = (
            base64.b64encode(each).decode() for each in (json.dumps(["E", "s", 1, True, None, ""]).encode(), b"x" * 60)
        )
        body = f"{first} {second}"

        def tell(count: int) -> None:
            for number in range(count):
                part = body[number * 40 : (number + 1) * 40 if number < count - 1 else None]
                sign = "." if number < count - 1 else "="
                engine.ask("select pg_notify($1, $2)", backplane._channel("a"), f"{sign}7 {number} a\n{part}")

        tell(3)
        await eventually(lambda: one.messages == ["x" * 60])
        assert (one.records[0].epoch, one.records[0].offset, one.doubts) == ("E", 7, [])
        tell(4)
        await eventually(lambda: one.doubts)
        assert one.doubts == [("a", "what came of it cannot be read: piece 3 came behind 3 others")]
        # What is no list of words.
        engine.ask("select pg_notify($1, $2)", backplane._channel("a"), "=1 0 a\nMQ==")
        # What is nested so deep that Python does not read it, in pieces.
        deep = base64.b64encode(b"[" * 9000).decode()
        for number, part in enumerate((deep[:6000], deep[6000:])):
            engine.ask("select pg_notify($1, $2)", backplane._channel("a"), f"{'.='[number]}7 {number} a\n{part}")
        await eventually(lambda: len(one.doubts) == 3)
        # Those of one notification come one behind the other: what is between them ends it.
        await backplane.follow("b")
        for topic in "ba":
            engine.ask("select pg_notify($1, $2)", backplane._channel(topic), f".8 0 {topic}\nx")
        await eventually(lambda: len(one.doubts) == 4)
        assert one.doubts.pop() == ("b", "what came of it cannot be read: it ends in the middle")
        assert backplane._pieces == {"a": ["x"]}
        backplane.unfollow("a")
        await backplane.follow("a")
        await backplane.publish("a", "whole", None, 1)
        await eventually(lambda: one.messages[1:] == ["whole"])
        assert len(one.doubts) == 3


async def test_what_waits_when_a_connection_is_lost_fails_and_nothing_of_it_is_left(engine: PostgresEngine) -> None:
    async with opened(engine, "one") as one:
        await eventually(lambda: one.backs)
        backplane: Any = one.backplane
        await backplane.follow("a")
        engine.ask("select pg_notify($1, $2)", backplane._channel("a"), ".8 0 a\nx")
        await eventually(lambda: backplane._pieces)
        waiting = [backplane.follow("b"), backplane.publish("a", "1", None, 1)]
        backplane.join("a", "x", "null")
        backplane._broken.set_exception(BackplaneAway("lost"))
        async with asyncio.timeout(60):
            found = await asyncio.gather(*waiting, return_exceptions=True)
        assert [str(each) for each in found] == ["lost", "lost"]
        assert all(isinstance(each, BackplaneAway) for each in found)
        await eventually(lambda: one.backs == 2)
        # Who is present was not refused, and is told anew.
        assert one.doubts == []
        await backplane.follow("a")
        await backplane.publish("a", "2", None, 2)
        await eventually(lambda: "2" in one.messages)
        assert await backplane.presence("a") == [PresenceEntry("one", "x", "null")]
        assert (one.doubts, one.reasons) == ([], ["lost"])


async def test_the_end_of_each_connection_is_noticed_though_nothing_is_asked(engine: PostgresEngine) -> None:
    # So long that no beat notices it.
    engine.arguments = {"lease": 1000.0, "timeout": 20.0}
    async with opened(engine, "one") as one:
        for number in range(2):
            await eventually(lambda number=number: one.backs == number + 1)  # type: ignore[misc]
            backplane: Any = one.backplane
            # A statement waits for another transaction for a quarter of the time that it may take.
            assert await backplane._connections[0].fetchval("show lock_timeout") == "5s"
            engine.ask("select pg_terminate_backend($1)", backplane._connections[number].get_server_pid())
        await eventually(lambda: one.backs == 3)
        assert one.reasons == ["PostgreSQL ended the connection"] * 2


async def test_of_what_servers_say_the_end_of_another_one_is_told_and_the_own_echo_taken(
    engine: PostgresEngine,
) -> None:
    async with opened(engine, "one") as one:
        await eventually(lambda: one.backs)
        backplane: Any = one.backplane
        backplane._token, backplane._echoed = "t", asyncio.get_running_loop().create_future()
        for payload in ("-one", "-", "=one other", "=two t", "two", "-two"):
            engine.ask("select pg_notify('rawws.servers', $1)", payload)
        await eventually(lambda: one.gone)
        assert (one.gone, backplane._echoed.done()) == (["two"], False)
        for _ in range(2):
            engine.ask("select pg_notify('rawws.servers', $1)", "=one t")
        await backplane._echoed


@pytest.mark.parametrize(
    ("sizes", "taken"),
    [([4, 6, 1], 2), ([4, 7, 1], 1), ([20, 1], 1), ([1, 1, 1, 1], 3), ([0, 10], 2)],
)
async def test_a_statement_is_for_so_many_requests_and_bytes_and_no_more(
    monkeypatch: pytest.MonkeyPatch, sizes: list[int], taken: int
) -> None:
    monkeypatch.setattr(postgres_line, "MAX_BATCH", 3)
    monkeypatch.setattr(postgres_line, "MAX_BATCH_SIZE", 10)
    connection: Any = None
    line, statement = PostgresLine(connection, 1.0), Statement("select * from one($1)")
    for size in sizes:
        line.ask(statement, "x", size=size)
    assert [request.size for request in line._next()] == sizes[:taken]
    assert [request.size for request in line._waiting] == sizes[taken:]


async def test_a_statement_that_cannot_be_solved_is_tried_five_times(engine: PostgresEngine) -> None:
    await PostgresBackplane.initialize(engine.url)
    engine.ask("create sequence rawws.tries")
    engine.ask(
        "create function rawws.fail(times int) returns int language plpgsql as $$ begin"
        " if nextval('rawws.tries') <= times then raise exception using errcode = '40001'; end if; return 1; end $$"
    )
    connection = await asyncpg.connect(engine.url)
    line = PostgresLine(connection, 20.0)
    answering = asyncio.create_task(line.answer())
    [row] = await line.ask(Statement("select rawws.fail($1) as found", (4,)))
    assert row["found"] == 1
    engine.ask("alter sequence rawws.tries restart")
    with pytest.raises(BackplaneAway):
        await line.ask(Statement("select rawws.fail($1) as found", (100,)))
    assert engine.ask("select last_value from rawws.tries") == 5
    with pytest.raises(asyncpg.SerializationError):
        await answering
    await connection.close()


def test_what_a_postgresql_refuses_is_told_from_one_that_is_away_or_another_one() -> None:
    for error in (
        asyncpg.InsufficientPrivilegeError,
        asyncpg.DiskFullError,
        asyncpg.UniqueViolationError,
        asyncpg.UndefinedColumnError,
        asyncpg.LockNotAvailableError,
    ):
        assert is_refusal(error("x"))
    for error in (
        asyncpg.UndefinedTableError,
        asyncpg.UndefinedFunctionError,
        asyncpg.TooManyConnectionsError,
        asyncpg.InvalidSQLStatementNameError,
        asyncpg.DuplicatePreparedStatementError,
        asyncpg.ConnectionDoesNotExistError,
        asyncpg.ReadOnlySQLTransactionError,
        asyncpg.InvalidCatalogNameError,
        asyncpg.InvalidSchemaNameError,
        asyncpg.AdminShutdownError,
        asyncpg.DeadlockDetectedError,
    ):
        assert not is_refusal(error("x"))
