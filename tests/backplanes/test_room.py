"""Engines that take nothing, or nothing more: one line says what to do, and all goes on when there is room again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from rawws.backplanes import session
from rawws.backplanes.remedies import with_remedy
from rawws.topics import Hub
from tests.backplanes.engine_kafka import KafkaEngine
from tests.backplanes.engine_nats import NatsEngine
from tests.backplanes.engine_postgres import PostgresEngine
from tests.backplanes.engines import Engine, RedisEngine
from tests.backplanes.handlers import Reader, hubs
from tests.processes import eventually as until
from tests.processes import find_program
from tests.server.peers import Logged, eventually

ON_ONE_LOOP = True

AWAY: Final = "the backplane is away, topics are degraded: "
BACK: Final = "the backplane is back"


async def goes_on(
    one: Hub, two: Hub, readers: list[Reader], full: Callable[[], None], mend: Callable[[], None]
) -> None:
    """Publish to an engine, to one that takes nothing, and to one that does again."""
    for hub, reader in zip((one, two), readers, strict=True):
        await hub.subscribe(reader, "a")
    assert (await one.publish("a", "before")).accepted
    await eventually(lambda: all(reader.got == ["before"] for reader in readers))
    full()
    one.publish("a", "meanwhile")
    # Who is at the same hub hears it, and nobody else does.
    await eventually(lambda: readers[0].got == ["before", "meanwhile"])
    await eventually(lambda: one.stats().degraded and one.stats().retries > 1)
    assert readers[1].got == ["before"]
    mend()
    await eventually(lambda: readers[1].got == ["before", "meanwhile"])
    await eventually(lambda: not (one.stats().degraded or two.stats().degraded))
    assert (await two.publish("a", "after")).accepted
    await eventually(lambda: all(reader.got == ["before", "meanwhile", "after"] for reader in readers))
    assert (one.stats().lost, two.stats().lost) == (0, 0)
    assert (one.stats().declared, two.stats().declared) == (0, 0)


def take(logged: Logged, reason: str) -> None:
    """Take what was logged: of each hub that it is away, in one line that says why, and that it is back."""
    lines = [line for line in logged.left() if AWAY in line]
    assert 1 <= len(lines) <= 2
    assert all(reason in line and "\n" not in line for line in lines), lines
    logged.take_all(AWAY, len(lines))
    logged.take_all(BACK, sum(BACK in line for line in logged.left()))


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have an engine that is back be reached soon."""
    monkeypatch.setattr(session, "LONGEST_WAIT", 0.3)


@contextmanager
def ended(engine: Engine) -> Iterator[None]:
    try:
        yield
    finally:
        engine.end()


async def test_a_redis_that_cannot_save_takes_no_writes_and_publications_wait(tmp_path: Path, logged: Logged) -> None:
    engine = RedisEngine(tmp_path)

    def save(outcome: str) -> None:
        engine.ask("BGSAVE")
        until(lambda: engine.ask("INFO", "persistence")["rdb_last_bgsave_status"] == outcome)

    def full() -> None:
        # A file cannot take the place of a folder: so it is as where the disk is full.
        (engine.folder / "dump.rdb").mkdir()
        engine.ask("CONFIG", "SET", "save", "3600 1")
        save("err")

    def mend() -> None:
        (engine.folder / "dump.rdb").rmdir()
        save("ok")

    with ended(engine):
        async with hubs(engine) as (one, two):
            await goes_on(one, two, [Reader(), Reader()], full, mend)
    saying = (
        "it takes no writes, for it cannot save its data (MISCONF): make room on its disk, or mend what its log says"
    )
    take(logged, saying)


async def test_a_postgresql_that_is_read_only_is_away_until_it_is_no_more(tmp_path: Path, logged: Logged) -> None:
    engine = PostgresEngine(tmp_path)

    def settle(value: str) -> None:
        engine.ask(f"alter system set default_transaction_read_only = {value}")
        engine.ask("select pg_reload_conf()")
        # It reads them a little later, and tells the sessions that there are before it begins one that knows.
        while engine.ask("show default_transaction_read_only") != value:
            pass

    with ended(engine):
        try:
            async with hubs(engine) as (one, two):
                await goes_on(one, two, [Reader(), Reader()], lambda: settle("on"), lambda: settle("off"))
        finally:
            settle("off")
    take(logged, "in a read-only transaction: turn default_transaction_read_only off, or name the primary in the URL")


async def test_a_kafka_whose_disk_is_full_stops_and_goes_on_when_it_is_started_again(
    tmp_path: Path, logged: Logged
) -> None:
    engine = KafkaEngine(tmp_path)
    program = find_program("prlimit", "apt-get install util-linux")

    def full() -> None:
        process = engine.broker.process
        assert process is not None
        # Its files may not grow any more.
        assert os.spawnl(os.P_WAIT, program, program, "--pid", str(process.pid), "--fsize=64:") == 0

    def mend() -> None:
        # It ends by itself, sooner or later.
        engine.kill()
        engine.start()

    async with hubs(engine) as (one, two):
        await goes_on(one, two, [Reader(), Reader()], full, mend)
    lines = [line for line in logged.left() if AWAY in line]
    # One of both may find out by the end of its connection.
    assert any("make room on the disk of its broker, and start that again" in line for line in lines)
    take(logged, "")


async def test_a_nats_stream_that_was_set_to_refuse_what_is_new_is_told_of_and_mended(
    tmp_path: Path, logged: Logged
) -> None:
    engine = NatsEngine(tmp_path)

    def change(**changes: object) -> None:
        with engine.talk() as talk:
            config = talk.api("STREAM.INFO.rawws-topics")["config"]
            assert "error" not in talk.api("STREAM.UPDATE.rawws-topics", **{**config, **changes})

    with ended(engine):
        async with hubs(engine) as (one, two):
            reader = Reader()
            await two.subscribe(reader, "a")
            assert (await one.publish("a", "1")).accepted
            change(discard="new", max_msgs=1)
            outcome = await one.publish("a", "2")
            assert outcome.refused == "the topic 'a' is unavailable at this time, others are not"
            change(discard="old", max_msgs=-1)
            assert (await one.publish("a", "3")).accepted
            await eventually(lambda: reader.got == ["1", "3"])
    [line] = [line for line in logged.left() if "cannot serve all of the topic" in line]
    assert "maximum messages exceeded: have the discard of its stream be old" in line
    for text in ("cannot serve all of the topic", "the backplane serves the topic"):
        logged.take_all(text, sum(text in line for line in logged.left()))


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        (
            "command not allowed when used memory > 'maxmemory'. script: 1",
            "raise its maxmemory, or hold less by History(",
        ),
        ("insufficient resources", "make room in its max_file_store and on its disk"),
        ('could not extend file "base/5/16392": No space left on device', "make room on its disk, or hold less by"),
    ],
)
def test_what_is_said_of_too_little_room_has_a_remedy_once(said: str, remedy: str) -> None:
    told = with_remedy(said)
    assert told.startswith(f"{said}: {remedy}")
    assert with_remedy(told) == told
