"""The Redis backplane beyond the contract: which restarts it trusts, what a Redis may refuse, and what it is not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, final

import pytest
import redis as client

from rawws.backplanes import redis_node
from rawws.backplanes.redis import RedisBackplane
from rawws.backplanes.redis_line import RedisLine
from rawws.backplanes.redis_records import pack_record, unpack_record
from rawws.backplanes.redis_run import check_version, is_keeping
from rawws.backplanes.redis_urls import source_of
from rawws.topics import History, Hub, TopicError, inquiries
from rawws.topics.backplane import BackplaneAway, HistoryResult, Position, PresenceEntry, Record, TopicUnavailable
from tests.backplanes.engines import KEEPING, RedisEngine, Started
from tests.backplanes.handlers import Reader, Told, hubs, opened
from tests.processes import LOOPBACK, Process, find_program, free_port
from tests.server.peers import Logged, eventually


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[RedisEngine]:
    made = RedisEngine(tmp_path)
    yield made
    made.end()


def asked(engine: RedisEngine, *words: str | int) -> Any:
    """Ask the Redis itself."""
    return engine.ask(*words)


def test_a_server_of_before_reads_a_record_as_its_message_alone_and_this_one_reads_those_of_before() -> None:
    extra = r'"json":true,"event":"é, %20 \\ \" { 1 t - "'
    packed = pack_record("5f0e", 7, "[1, 2]", "a key", extra)
    # As it was taken apart before there was anything beside a message.
    server, number, kind, length, rest = packed.split(b" ", 4)
    assert (int(number), kind, rest) == (7, b"t", b"a key[1, 2]")
    assert rest[int(length) :] == b"[1, 2]"
    assert server != b"5f0e"
    assert unpack_record("a", "E", 1, packed) == Record("a", "E", 1, "[1, 2]", "a key", "5f0e", 7, extra)
    assert unpack_record("a", "E", 1, b"5f0e 7 t - [1, 2]") == Record("a", "E", 1, "[1, 2]", None, "5f0e", 7)


async def restarted(engine: RedisEngine, one: Told) -> None:
    """Kill the Redis and start it again, and wait until it is reached."""
    backs = one.backs
    engine.kill()
    await eventually(lambda: len(one.reasons) == backs)
    engine.start()
    await eventually(lambda: one.backs == backs + 1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"url": "http://127.0.0.1"}, ValueError, "redis://"),
        ({"url": "redis://127.0.0.1:port"}, ValueError, "port"),
        ({"prefix": "a{b}"}, ValueError, r"prefix is 'a\{b\}', allowed are"),
        ({"prefix": ""}, ValueError, "prefix is '', allowed are"),
        ({"lease": 0}, ValueError, "lease is 0 and timeout 5.0, allowed are numbers above 0"),
    ],
)
def test_what_means_nothing_raises_where_it_is_made(
    arguments: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        RedisBackplane(**arguments)  # type: ignore[arg-type]


def test_without_the_package_the_error_says_how_to_install_it() -> None:
    program = (
        "import sys; sys.modules['redis'] = None\nfrom rawws.backplanes.redis import RedisBackplane\nRedisBackplane()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert "ImportError: the Redis backplane needs redis: pip install 'rawws[redis]'" in done.stderr


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (["--appendonly", "no"], ["1"]),
        # With a busy disk, it answers before it writes.
        (["--appendonly", "yes", "--appendfsync", "everysec"], ["1", "2"]),
        ([*KEEPING, "--no-appendfsync-on-rewrite", "yes"], ["1", "2"]),
        # Its settings cannot be asked for.
        ([*KEEPING, "--rename-command", "CONFIG", ""], ["1", "2"]),
    ],
    ids=["snapshots", "written late", "written late at times", "unknown"],
)
async def test_what_is_not_on_the_disk_before_the_answer_is_no_promise_a_restart_goes_on_from_no_epoch(
    options: list[str], left: list[str], tmp_path: Path, started: Started
) -> None:
    engine = started(tmp_path, *options)
    async with opened(engine, "one") as one:
        await eventually(lambda: one.backs)
        place = await one.backplane.publish("a", "1", None, 1)
        asked(engine, "SAVE")
        await one.backplane.publish("a", "2", None, 2)
        # Whatever it promises: here all is written but what is behind the snapshot.
        await eventually(lambda: not asked(engine, "INFO").get("aof_buffer_length"))
        await restarted(engine, one)
        assert asked(engine, "EXISTS", "rawws:{a}:log") == 1
        past = await one.backplane.history("a", place)
        assert past == HistoryResult(past.epoch, len(left), [], recovered=False, began=len(left))
        assert past.epoch != place.epoch
        assert (await one.backplane.publish("a", "3", None, 3)) == (past.epoch, len(left) + 1)
        # Whoever was nowhere before may have what was held.
        assert [each.message for each in (await one.backplane.history("a", None)).records] == [*left, "3"]


async def test_a_redis_that_keeps_all_goes_over_into_a_new_epoch_and_loses_nothing(
    tmp_path: Path, started: Started
) -> None:
    engine = started(tmp_path)
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
        assert [each.message for each in (await ask("a", places[0])).records] == ["1", "2", "3"]
        for _ in range(7):
            await restarted(engine, one)
            past = await ask("a", again)
            assert [each.message for each in past.records] == ["3"]
            assert past.began == 4
            assert places[2] in past.before
        # It knows of eight epochs before it.
        await restarted(engine, one)
        assert not (await ask("a", places[2])).recovered
        assert (await ask("a", again)).recovered


async def test_what_a_server_of_before_wrote_is_read_though_it_does_not_say_when(engine: RedisEngine) -> None:
    async with opened(engine, "one") as one:
        await eventually(lambda: one.backs)
        place = await one.backplane.publish("a", "1", None, 1)
        for offset in (place.offset + 1, place.offset + 2):
            asked(engine, "XADD", "rawws:{a}:log", f"{offset}-0", "r", f"two {offset} t - {offset}")
            asked(engine, "HSET", "rawws:{a}:place", "offset", offset)
        past = await one.backplane.history("a", None)
        assert [(each.offset, each.message) for each in past.records] == [(1, "1"), (2, "2"), (3, "3")]


async def test_a_redis_that_loads_its_data_is_not_there_yet(tmp_path: Path, started: Started) -> None:
    # It answers each 1,024 commands, of which a publication is six: for four seconds.
    engine = started(tmp_path, *KEEPING, "--key-load-delay", "600")
    async with opened(engine, "one", History(count=1000)) as one:
        await eventually(lambda: one.backs)
        answers = [one.backplane.publish("a", str(number), None, number) for number in range(1000)]
        places = await asyncio.gather(*answers)
    engine.kill()
    engine.start()
    async with opened(engine, "one", History(count=1000)) as one:
        await eventually(lambda: one.backs)
        # There it would have told that it writes nothing to a file.
        assert one.reasons == ["Redis is loading its data"]
        past = await one.backplane.history("a", places[899])
        assert [each.message for each in past.records] == [str(number) for number in range(900, 1000)]


async def test_what_a_redis_lost_and_gave_again_is_not_taken_for_the_same(tmp_path: Path, started: Started) -> None:
    engine = started(tmp_path)
    async with opened(engine, "one") as one:
        await eventually(lambda: one.backs)
        first = await one.backplane.publish("a", "1", None, 1)
        shutil.copytree(engine.folder, tmp_path / "copy")
        lost = await one.backplane.publish("a", "lost", None, 2)
        engine.kill(forget=True)
        shutil.copytree(tmp_path / "copy", engine.folder)
        await eventually(lambda: one.reasons)
        engine.start()
        await eventually(lambda: one.backs == 2)
        here = await one.backplane.publish("a", "2", None, 3)
        assert (await one.backplane.history("a", first)).recovered
        # Here it shows that something is lost: nobody goes on from there any more.
        past = await one.backplane.history("a", lost)
        assert past == HistoryResult(past.epoch, 2, [], recovered=False, began=1)
        assert here.offset == lost.offset
        assert len({first.epoch, here.epoch, past.epoch}) == 3
        for place in (first, here):
            assert not (await one.backplane.history("a", place)).recovered
        assert await one.backplane.publish("a", "3", None, 4) == (past.epoch, 3)


async def test_all_hubs_are_told_where_one_of_them_had_what_the_redis_lost(
    tmp_path: Path, started: Started, logged: Logged
) -> None:
    engine = started(tmp_path)
    async with hubs(engine) as (one, two):
        here, there = Reader(), Reader()
        await one.subscribe(here, "a")
        await one.publish("a", "1")
        shutil.copytree(engine.folder, tmp_path / "copy")
        await one.publish("a", "lost")
        # This one knows nothing of what was lost.
        engine.kill(forget=True)
        await eventually(lambda: one.stats().degraded and two.stats().degraded)
        shutil.copytree(tmp_path / "copy", engine.folder)
        engine.start()
        await eventually(lambda: not one.stats().degraded and not two.stats().degraded)
        await two.subscribe(there, "a")
        for number in range(3):
            await two.publish("a", f"{number}")
        await eventually(lambda: here.got[-1] == there.got[-1] == "2")
        assert here.lost_at == [2]
        assert one.stats().unsent == two.stats().unsent == 0
        logged.take_all("the backplane is away", 2)
        logged.take_all("the backplane is back", 2)


async def test_a_place_ahead_of_what_the_redis_knows_begins_a_new_epoch(engine: RedisEngine) -> None:
    async with opened(engine, "one") as one:
        await eventually(lambda: one.backs)
        place = await one.backplane.publish("a", "1", None, 1)
        past = await one.backplane.history("a", place._replace(offset=7))
        assert past == HistoryResult(past.epoch, 1, [], recovered=False)
        # Not one that was never published to: nobody can have been there.
        past = await one.backplane.history("b", None)
        ahead = await one.backplane.history("b", Position(past.epoch, 7))
        assert ahead == past._replace(recovered=False)
        assert past.epoch != place.epoch


def test_only_a_redis_that_writes_all_before_it_answers_and_was_no_replica_keeps_it() -> None:
    never = "0" * 40
    keeps = {"aof_enabled": "1", "master_replid2": never, "appendfsync": "always", "no-appendfsync-on-rewrite": "no"}
    assert is_keeping(keeps)
    for change in (
        {"aof_enabled": "0"},
        {"master_replid2": never[1:] + "7"},
        {"appendfsync": "everysec"},
        {"no-appendfsync-on-rewrite": "yes"},
    ):
        assert not is_keeping(keeps | change)
    del keeps["appendfsync"]
    assert not is_keeping(keeps)


async def test_a_replica_is_away_until_it_is_a_master(engine: RedisEngine) -> None:
    asked(engine, "REPLICAOF", LOOPBACK, free_port())
    async with opened(engine, "one") as one:
        await eventually(lambda: one.reasons)
        assert one.reasons[0].endswith("this Redis is a replica, which takes no publications")
        asked(engine, "REPLICAOF", "NO", "ONE")
        await eventually(lambda: one.backs)


async def test_scripts_that_were_flushed_cost_a_moment_and_nothing_else(engine: RedisEngine, logged: Logged) -> None:
    async with opened(engine, "one") as one:
        await eventually(lambda: one.backs)
        await one.backplane.follow("a")
        await one.backplane.publish("a", "1", None, 1)
        asked(engine, "SCRIPT", "FLUSH")
        answers = [one.backplane.publish("a", str(number), None, number) for number in (2, 3)]
        found = await asyncio.gather(*answers, return_exceptions=True)
        assert all(isinstance(each, ConnectionError) for each in found)
        await eventually(lambda: one.backs == 2)
        assert (await one.backplane.publish("a", "2", None, 2)).offset == 2
    async with hubs(engine, 1) as (hub,):
        await hub.publish("a", "4")
        asked(engine, "SCRIPT", "FLUSH")
        outcomes = [hub.publish("a", str(number)) for number in range(5, 9)]
        await eventually(lambda: hub.stats().unsent == 0 and not hub.stats().degraded)
        for outcome in outcomes:
            await outcome
        assert hub._replication is not None
        held = (await hub._replication.backplane.history("a", None)).records
        assert [each.message for each in held] == ["1", "2", "4", "5", "6", "7", "8"]
    logged.take_all("the backplane is away", 1)
    logged.take_all("the backplane is back", 1)


async def test_a_loop_that_ends_before_the_hub_is_closed_logs_nothing(engine: RedisEngine, logged: Logged) -> None:
    backplane = engine.backplane()
    assert isinstance(backplane, RedisBackplane)
    hub = Hub(backplane=backplane)
    await hub.publish("a", "x")
    task = backplane._session.task
    assert task is not None
    # As asyncio.run does at its end.
    task.cancel()
    await asyncio.wait([task])
    assert logged.left() == []
    await hub.close()


async def test_what_a_full_redis_refuses_is_counted_and_told(engine: RedisEngine, logged: Logged) -> None:
    async with hubs(engine, 1) as (hub,):
        await hub.publish("a", "1")
        asked(engine, "CONFIG", "SET", "maxmemory", "1")
        for name in ("a", "new"):
            outcome = await hub.publish(name, "2")
            assert (outcome.accepted, outcome.cursor) == (False, "")
            assert outcome.refused == f"the topic '{name}' is unavailable at this time, others are not"
        assert (hub.stats().lost, hub.stats().faults) == (2, 2)
        # What is read needs no memory.
        reader = Reader()
        for name in ("a", "new"):
            await hub.subscribe(reader, name, since="earliest")
        assert reader.got == ["1"]
        asked(engine, "CONFIG", "SET", "maxmemory", "0")
        assert (await hub.publish("a", "3")).cursor.endswith(":2")
        assert (await hub.publish("new", "3")).cursor.endswith(":1")
        assert reader.got == ["1", "3", "3"]
        assert (hub.stats().degraded, hub.stats().retries) == (False, 0)
    assert all("raise its maxmemory, or hold less by History(count=..., size=...)" in line for line in logged.left())
    logged.take_all("the backplane cannot serve all of the topic", 2)


async def test_a_full_redis_keeps_all_servers_and_holds_who_is_present_when_it_has_room_again(
    engine: RedisEngine, logged: Logged
) -> None:
    engine.arguments = {"lease": 0.8}
    async with hubs(engine) as (one, two):
        await one.subscribe(Reader(), "a")
        asked(engine, "CONFIG", "SET", "maxmemory", "1")
        present = (await two.subscribe(Reader(), "a", join="x")).present
        began = time.monotonic()
        await eventually(lambda: time.monotonic() - began > 1.2)
        assert (one.stats().retries, two.stats().retries, two.stats().lost) == (0, 0, 0)
        assert asked(engine, "EXISTS", "rawws:{a}:roster") == 0
        assert two.stats().faults > 0
        asked(engine, "CONFIG", "SET", "maxmemory", "0")
        await eventually(lambda: asked(engine, "EXISTS", "rawws:{a}:roster"))
        await eventually(lambda: [each.id for each in one.presence("a")] == [present])
    logged.take_all("the backplane cannot serve all of the topic", 1)


async def test_a_redis_that_takes_nothing_is_away_until_it_does(engine: RedisEngine) -> None:
    # As behind a failover: who stays would talk to a replica for ever.
    async with opened(engine, "one") as one:
        await eventually(lambda: one.backs)
        asked(engine, "REPLICAOF", LOOPBACK, engine.port)
        with pytest.raises(BackplaneAway):
            await one.backplane.publish("a", "1", None, 1)
        await eventually(lambda: one.reasons)
        asked(engine, "REPLICAOF", "NO", "ONE")
        await eventually(lambda: one.backs == 2)


PLACE = ("HSET", "rawws:{bad}:place")
KEYS: dict[str, list[tuple[str | int, ...]]] = {
    "no place": [("SET", "rawws:{bad}:place", "x")],
    "no log": [(*PLACE, "epoch", "e", "offset", "1"), ("SET", "rawws:{bad}:log", "x")],
    "no roster": [("SET", "rawws:{bad}:roster", "x")],
    "no record": [(*PLACE, "epoch", "e", "offset", "1"), ("XADD", "rawws:{bad}:log", "1-0", "r", "x")],
    "an offset of no number": [(*PLACE, "epoch", "e", "offset", "zzz")],
    "an offset below 0": [(*PLACE, "epoch", "e", "offset", "-5")],
    "a huge offset": [(*PLACE, "epoch", "e", "offset", "9" * 20)],
    "an epoch of no text": [("EVAL", "return redis.call('HSET', KEYS[1], 'epoch', '\\255')", 1, PLACE[1])],
    "an epoch of no cursor": [(*PLACE, "epoch", "%:=&", "offset", "1")],
    "a place before that is none": [(*PLACE, "epoch", "e", "offset", "1", "before", "x y:z")],
}  # fmt: skip


@pytest.mark.parametrize("name", KEYS)
async def test_whatever_stands_in_a_topics_keys_is_that_topics_fault_until_it_is_gone(
    engine: RedisEngine, logged: Logged, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(inquiries, "FIRST_WAIT", 0.01)
    async with hubs(engine, 1) as (hub,):
        good, bad = Reader(), Reader()
        await hub.subscribe(good, "good")
        for words in KEYS[name]:
            asked(engine, *words)
        subscription = hub.subscribe(bad, "bad")
        with pytest.raises(TopicError, match=r"^the topic 'bad' is unavailable") as caught:
            await subscription
        assert (caught.value.code, caught.value.status) == ("unavailable", 503)
        for number in range(3):
            await hub.publish("good", str(number))
        assert good.got == ["0", "1", "2"]
        assert (hub.stats().degraded, hub.stats().retries) == (False, 0)
        assert hub.stats().faults > 0
        asked(engine, "DEL", *[f"rawws:{{bad}}:{key}" for key in ("place", "log", "roster")])
        # It begins by itself.
        await eventually(lambda: not subscription.pending)
        await hub.publish("bad", "back")
        assert bad.got == ["back"]
    logged.take_all("the backplane cannot serve all of the topic", 1)
    logged.take_all("the backplane serves the topic", 1)


@pytest.mark.parametrize(
    "message",
    [b"", b"junk", b"=junk", b"= 1 x", b"=e 1 x", b"=e 0 s 1 t - x", b"+s.1", b"+junk x null", b"+s.1 \xff null", b"?"],
)
async def test_a_message_that_nobody_can_read_is_its_topics_and_harms_nothing(
    engine: RedisEngine, logged: Logged, message: bytes
) -> None:
    async with hubs(engine, 1) as (hub,):
        reader = Reader()
        await hub.subscribe(reader, "a")
        with client.Redis(host=LOOPBACK, port=engine.port) as connection:
            connection.publish("rawws:0:{a}", message)
            for gone in (b"", b"junk", b"\xff"):
                connection.publish("rawws:0:servers", gone)
        await hub.publish("a", "x")
        await eventually(lambda: reader.got == ["x"])
        assert (hub.stats().faults, hub.stats().retries, hub.stats().declared) == (1, 0, 0)
    logged.take_all("the backplane cannot serve all of the topic", 1)


async def test_what_is_told_of_somebody_present_that_is_no_json_is_shown_to_nobody(
    engine: RedisEngine, logged: Logged
) -> None:
    async with hubs(engine) as (one, two):
        await two.subscribe(Reader(), "a", join="here")
        leases = [word.decode() for word in asked(engine, "ZRANGE", "rawws:servers", 0, -1) if b"." in word]
        for ident, info in (("x", "no json"), ("y", '"' + "z" * 2000 + '"'), ("z", "[" * 1000), ("v", '"\\ud800"')):
            asked(engine, "HSET", "rawws:{a}:roster", f"{leases[0]} {ident}", info)
            asked(engine, "HSET", "rawws:{a}:roster", f"{leases[1]} {ident}", info)
        watcher = Reader()
        await one.subscribe(watcher, "a", watch=True)
        assert [present.info for present in one.presence("a")] == ["here"]
        assert one.stats().faults == 4
        # The server that it is told of takes no notice.
        assert two._replication is not None
        told_of: Any = two._replication.backplane
        asked(engine, "PUBLISH", "rawws:0:{a}", f"+{told_of._lease} w no json")
        await two.publish("a", "x")
        await eventually(lambda: "x" in watcher.got)
        assert [present.info for present in one.presence("a")] == ["here"]
    logged.take_all("the backplane cannot serve all of the topic", 1)


async def test_names_that_clients_touch_leave_no_key_in_the_redis(engine: RedisEngine) -> None:
    async with hubs(engine, 1) as (hub,):
        reader = Reader()
        for number in range(300):
            await hub.subscribe(reader, f"{number}", join=number)
            hub.unsubscribe(reader, f"{number}")
        await eventually(lambda: engine.names() == 0)


async def test_a_topic_without_a_publication_that_is_followed_for_long_gets_a_new_cursor_and_loses_nothing(
    engine: RedisEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_node, "PLACE_AGE", 2000)
    engine.arguments = {"lease": 0.4}
    async with hubs(engine) as (one, two):
        reader, late = Reader(), Reader()
        first = (await one.subscribe(reader, "a")).cursor
        await eventually(lambda: len(reader.moves) >= 4)
        assert all(recovered for _, recovered in reader.moves)
        assert len({first, *reader.cursors}) >= 3
        # The cursor of now is good at another server, that of the beginning is not any more.
        subscription = await two.subscribe(late, "a", since=reader.cursors[-1])
        assert subscription.recovered
        assert not (await two.subscribe(Reader(), "a", since=first)).recovered
        await two.publish("a", "x")
        await eventually(lambda: reader.got == late.got == ["x"])
        assert one.stats().declared == two.stats().declared == 0


async def test_a_redis_that_is_silent_is_away(engine: RedisEngine) -> None:
    engine.arguments = {"lease": 0.8, "timeout": 0.3}
    async with opened(engine, "one") as one:
        await eventually(lambda: one.backs)
        assert engine.process is not None
        os.kill(engine.process.pid, signal.SIGSTOP)
        await eventually(lambda: one.reasons)
        os.kill(engine.process.pid, signal.SIGCONT)
        await eventually(lambda: one.backs > 1)


async def test_a_database_and_a_prefix_keep_hubs_apart(engine: RedisEngine) -> None:
    backplanes = [
        RedisBackplane(engine.url + path, prefix=prefix) for path, prefix in (("/0", "x"), ("/1", "x"), ("/0", "y"))
    ]
    held = [Hub(backplane=each) for each in backplanes]
    cursors = [(await hub.publish("a", "1")).cursor for hub in held]
    assert len({cursor.partition(":")[0] for cursor in cursors}) == 3
    assert {cursor.partition(":")[2] for cursor in cursors} == {"1"}
    for hub in held:
        await hub.close()


async def test_in_a_cluster_of_one_node_all_of_a_topic_has_one_slot(tmp_path: Path, started: Started) -> None:
    cluster = ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]
    engine = started(tmp_path, *cluster, "--appendonly", "yes", sharded=True)
    program = find_program("redis-cli", "apt-get install redis-tools")
    with Process([program, "-p", str(engine.port), "cluster", "addslotsrange", "0", "16383"]) as process:
        assert "OK" in process.result(10)
    await eventually(lambda: "ok" in str(asked(engine, "CLUSTER", "INFO")).partition("cluster_state")[2][:10])
    async with opened(engine, "one") as one:
        await eventually(lambda: one.backs)
        for topic in ("a", "b}", "{c}"):
            await one.backplane.follow(topic)
            assert (await one.backplane.publish(topic, topic, None, 1)).offset == 1
            assert [each.message for each in (await one.backplane.history(topic, None)).records] == [topic]
        await eventually(lambda: sorted(map(str, one.messages)) == ["a", "b}", "{c}"])


async def test_what_nobody_needs_any_more_is_forgotten_by_the_redis(engine: RedisEngine) -> None:
    async with opened(engine, "one") as one:
        await eventually(lambda: one.backs)
        one.backplane.join("a", "x", "null")
        await one.backplane.publish("a", "1", None, 1)
        keys = [f"rawws:{{a}}:{name}" for name in ("log", "place", "roster")]
        ttls = [int(str(asked(engine, "PTTL", key))) for key in keys]
        assert 0 < ttls[0] <= 300_000
        assert all(300_000 < ttl <= 24 * 3600 * 1000 for ttl in ttls[1:])


async def test_who_is_present_by_a_lease_that_ran_out_is_not_there_and_is_forgotten_by_the_redis(
    engine: RedisEngine,
) -> None:
    async with opened(engine, "one") as one:
        await eventually(lambda: one.backs)
        one.backplane.join("a", "here", "null")
        await eventually(lambda: present(engine) == 1)
        asked(engine, "HSET", "rawws:{a}:roster", "dead.1 x", "null", "dead.1 y", "null")
        assert [each.id for each in await one.backplane.presence("a")] == ["here"]
        await eventually(lambda: present(engine) == 1)


async def test_a_place_that_is_followed_is_remembered_however_long_nobody_asks_for_it(
    engine: RedisEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_node, "PLACE_AGE", 1000)
    engine.arguments = {"lease": 0.4}
    async with opened(engine, "one") as one:
        await eventually(lambda: one.backs)
        await one.backplane.follow("a")
        place = await one.backplane.publish("a", "1", None, 1)
        await one.backplane.publish("forgotten", "1", None, 2)
        await eventually(lambda: asked(engine, "EXISTS", "rawws:{forgotten}:place") == 0)
        assert (await one.backplane.publish("a", "2", None, 3)) == place._replace(offset=2)


async def test_what_is_no_roster_is_that_topics_fault_and_a_channel_that_may_not_be_heard_too(
    engine: RedisEngine,
) -> None:
    async with opened(engine, "one") as one:
        await eventually(lambda: one.backs)
        asked(engine, "SET", "rawws:{a}:roster", "of another program")
        with pytest.raises(TopicUnavailable, match="WRONGTYPE"):
            await one.backplane.presence("a")
        asked(engine, "DEL", "rawws:{a}:roster")
        assert await one.backplane.presence("a") == []
        # A connection that hears a channel which it may not hear any more is ended by the Redis.
        asked(engine, "ACL", "SETUSER", "default", "resetchannels", "&rawws:0:servers", "&rawws:0:{b}")
        await one.backplane.follow("b")
        refused, followed = one.backplane.follow("a"), one.backplane.follow("b")
        with pytest.raises(TopicUnavailable, match="permissions"):
            await refused
        await followed
        asked(engine, "ACL", "SETUSER", "default", "allchannels")
        await one.backplane.follow("a")
        await one.backplane.publish("a", "x", None, 1)
        await eventually(lambda: one.messages == ["x"])
        assert one.reasons == []


async def test_a_redis_where_the_servers_may_not_hear_of_each_other_is_away(engine: RedisEngine) -> None:
    asked(engine, "ACL", "SETUSER", "default", "resetchannels")
    async with opened(engine, "one") as one:
        await eventually(lambda: one.reasons)
        assert "permissions" in one.reasons[0]
        asked(engine, "ACL", "SETUSER", "default", "allchannels")
        await eventually(lambda: one.backs)


async def test_too_many_who_leave_while_the_redis_is_away_are_gone_by_their_lease(
    engine: RedisEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_node, "MAX_LEFT", 2)
    engine.arguments = {"lease": 2.0}
    async with opened(engine, "one") as one, opened(engine, "two") as two:
        await eventually(lambda: one.backs and two.backs)
        for ident in "wxyz":
            one.backplane.join("a", ident, "null")
        await eventually(lambda: present(engine) == 4)
        engine.kill()
        await eventually(lambda: one.reasons)
        for ident in "xyz":
            one.backplane.leave("a", ident)
        engine.start()
        await eventually(lambda: one.backs == two.backs == 2)
        held: list[Any] = []
        while held != [PresenceEntry("one", "w", "null")]:
            held = await two.backplane.presence("a")


def present(engine: RedisEngine) -> int:
    return int(str(asked(engine, "HLEN", "rawws:{a}:roster")))


@final
class Relay:
    """Passes connections on to a Redis; of those that a test names, it holds back what the Redis says."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.count = 0
        self.mute: set[int] = set()
        # What it makes of what the Redis says.
        self.change: Callable[[bytes], bytes] = bytes
        self.writers: list[asyncio.StreamWriter] = []
        self.passing: set[asyncio.Task[Any] | None] = set()

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self.passing.add(task)
        try:
            await self.both_ways(reader, writer)
        finally:
            self.passing.remove(task)

    async def both_ways(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, self.count = self.count, self.count + 1
        back, out = await asyncio.open_connection(LOOPBACK, self.port)
        self.writers += [writer, out]
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(self.copy(reader, out), self.copy(back, writer, number))

    async def copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int = -1) -> None:
        while data := await reader.read(65536):
            if number not in self.mute:
                writer.write(data if number < 0 else self.change(data))
        writer.close()


@asynccontextmanager
async def relayed(engine: RedisEngine) -> AsyncIterator[tuple[Relay, str]]:
    """Give a relay to a Redis, and the URL of it."""
    relay = Relay(engine.port)
    async with await asyncio.start_server(relay.pass_on, LOOPBACK, 0) as server:
        yield relay, f"redis://{LOOPBACK}:{server.sockets[0].getsockname()[1]}"
        server.close()

        def ended() -> bool:
            for writer in relay.writers:
                writer.close()
            return not relay.passing

        # One that was accepted last may have reached the Redis only now.
        await eventually(ended)
        for writer in relay.writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def test_a_refusal_that_nobody_asked_for_is_a_doubt_and_the_redis_is_reached_anew(engine: RedisEngine) -> None:
    async with relayed(engine) as (relay, url):
        told = Told(RedisBackplane(url))
        told.backplane.open("one", History(), told)
        await eventually(lambda: told.backs)
        await told.backplane.follow("a")
        # On the connection that hears; who follows is answered, and nothing is under way.
        relay.writers[2].write(b"-ERR nobody asked for this\r\n")
        await eventually(lambda: told.backs == 2)
        assert told.reasons == ["nobody asked for this"]
        await told.backplane.follow("a")
        await told.backplane.publish("a", "heard", None, 1)
        await eventually(lambda: told.messages == ["heard"])
        await told.backplane.close()


@pytest.mark.parametrize(
    ("number", "reason"), [(0, "no answer in time"), (1, "what was published did not come in time")]
)
async def test_a_redis_of_which_one_connection_is_dead_is_reached_anew(
    engine: RedisEngine, number: int, reason: str
) -> None:
    async with relayed(engine) as (relay, url):
        told = Told(RedisBackplane(url, lease=0.8, timeout=1.0))
        told.backplane.open("one", History(), told)
        await eventually(lambda: told.backs)
        await told.backplane.follow("a")
        assert relay.count == 2
        relay.mute.add(number)
        await eventually(lambda: told.backs == 2)
        assert (told.reasons, relay.count) == ([reason], 4)
        await told.backplane.follow("a")
        await told.backplane.publish("a", "heard", None, 1)
        await eventually(lambda: told.messages == ["heard"])
        await told.backplane.close()


@pytest.mark.parametrize(
    ("version", "sharded", "lack"),
    [
        ("5.0.14", False, "this Redis is 5.0.14, needed is 6.2 or later, or Valkey"),
        ("6.0.16", True, "this Redis is 6.0.16, sharded channels need 7.0 or later, or Valkey"),
        ("6.2.19", True, "this Redis is 6.2.19, sharded channels need 7.0 or later, or Valkey"),
        ("6.2.0", False, ""),
        ("7.0.0", True, ""),
        ("10.1", True, ""),
        ("255.255.255", True, ""),
        # What is no version says nothing.
        ("unstable", True, ""),
        ("", True, ""),
    ],
)
def test_a_redis_that_is_too_old_is_none(version: str, sharded: bool, lack: str) -> None:
    if not lack:
        check_version(version, sharded=sharded)
        return
    with pytest.raises(BackplaneAway, match=f"^{re.escape(lack)}$"):
        check_version(version, sharded=sharded)


async def test_a_redis_that_is_too_old_is_told_by_its_version(engine: RedisEngine) -> None:
    def age(said: bytes) -> bytes:
        # It is as long as before.
        return re.sub(rb"redis_version:\d", b"redis_version:4", said)

    async with relayed(engine) as (relay, url):
        relay.change = age
        told = Told(RedisBackplane(url))
        told.backplane.open("one", History(), told)
        await eventually(lambda: told.reasons)
        assert re.fullmatch(r"this Redis is 4\.[\d.]+, needed is 6\.2 or later, or Valkey", told.reasons[0])
        await told.backplane.close()


async def test_a_line_that_is_lost_sends_nothing_any_more(engine: RedisEngine) -> None:
    # The package would connect anew, and a publication would overtake those that were not answered.
    line = RedisLine((await source_of(engine.url, 5.0).find())())
    await line.connection.connect()  # type: ignore[no-untyped-call]
    line.send("CLIENT", "ID")
    engine.ask("CLIENT", "KILL", "ID", await line.read())
    with pytest.raises(client.ConnectionError):
        await line.read()
    line.send("SET", "overtaking", "1")
    assert line._flushing is not None
    await line._flushing
    assert engine.ask("EXISTS", "overtaking") == 0
    await line.close("the test is over")


WITHOUT_HIREDIS = """
import asyncio, sys
sys.modules["hiredis"] = None
import redis.connection, rawws
assert not redis.connection.HIREDIS_AVAILABLE
async def main():
    async with rawws.Hub(backplane=sys.argv[1]) as hub:
        for text in ("one", "two"):
            assert (await hub.publish("news", text)).accepted
        found = await hub.history("news")
        print([each.message for each in found.publications])
        async for each in hub.listen("news", since=found.publications[0].cursor):
            print(each.message)
            break
asyncio.run(main())
"""


def test_a_redis_is_read_without_hiredis_too(engine: RedisEngine) -> None:
    program = [sys.executable, "-c", WITHOUT_HIREDIS, engine.url]
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("['one', 'two']\ntwo\n", "")
