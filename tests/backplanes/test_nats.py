"""The NATS backplane beyond the contract: which restarts it trusts, what a server may refuse, and what it is not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rawws.backplanes import nats_line, nats_records, nats_roster, nats_starts, nats_writer
from rawws.backplanes.nats import NatsBackplane
from rawws.topics import History, Hub
from rawws.topics.backplane import BackplaneAway, HistoryResult, Position, PresenceEntry, TopicUnavailable
from tests.backplanes.engine_nats import NatsEngine
from tests.backplanes.handlers import Reader, Told, hubs, opened
from tests.processes import LOOPBACK
from tests.server.peers import Logged, eventually

Started = Callable[..., NatsEngine]
FAULT = "the backplane cannot serve all of the topic"


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    """Start servers with a configuration of their own."""
    made: list[NatsEngine] = []

    def start(config: str = "", **arguments: Any) -> NatsEngine:
        made.append(NatsEngine(tmp_path, config, **arguments))
        return made[-1]

    yield start
    for each in made:
        each.end()


@pytest.fixture
def engine(started: Started) -> NatsEngine:
    return started()


async def reached(*backplanes: Told) -> None:
    await eventually(lambda: all(told.backs for told in backplanes))


async def restarted(engine: NatsEngine, one: Told) -> None:
    """Kill the server and start it again, and wait until it is reached."""
    backs = one.backs
    engine.kill()
    await eventually(lambda: len(one.reasons) == backs)
    engine.start()
    await eventually(lambda: one.backs == backs + 1)


async def reason_of(engine: NatsEngine, **arguments: Any) -> str:
    """Return why the server cannot be used."""
    engine.arguments |= arguments
    async with opened(engine, "one") as one:
        await eventually(lambda: one.reasons)
        assert not one.backs
        return one.reasons[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"url": "http://127.0.0.1"}, r"url is 'http://127.0.0.1', allowed is nats://HOST:PORT"),
        ({"url": "nats://"}, "allowed is nats://HOST:PORT or tls://HOST:PORT"),
        ({"url": "nats://127.0.0.1:port"}, "allowed is nats://HOST:PORT"),
        ({"url": "nats://127.0.0.1:4222/a"}, "allowed is nats://HOST:PORT"),
        ({"url": "nats://one:4222,"}, "allowed is nats://HOST:PORT"),
        ({"prefix": "a.b"}, r"prefix is 'a\.b', allowed are 1 to 64 of letters, digits, _ and -"),
        ({"prefix": ""}, "prefix is '', allowed are"),
        ({"lease": 0}, "lease is 0 and timeout 5.0, allowed are numbers above 0"),
        ({"replicas": 0}, "replicas is 0, allowed are 1 to 5"),
    ],
)
def test_what_means_nothing_raises_where_it_is_made(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NatsBackplane(**arguments)


def test_without_the_package_the_error_says_how_to_install_it() -> None:
    program = "import sys; sys.modules['nats'] = None\nfrom rawws.backplanes.nats import NatsBackplane\nNatsBackplane()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert "ImportError: the NATS backplane needs nats-py: pip install 'rawws[nats]'" in done.stderr


# -- what is lost, and what is not


async def test_a_server_that_may_lose_what_it_took_begins_an_epoch_with_each_of_its_runs(started: Started) -> None:
    engine = started(sync="2m")
    async with opened(engine, "one") as one, opened(engine, "two") as two:
        await reached(one, two)
        start = await one.backplane.history("b", None)
        place = await one.backplane.publish("a", "1", None, 1)
        await restarted(engine, one)
        await eventually(lambda: two.backs == 2)
        past = await one.backplane.history("a", place)
        assert past == HistoryResult(past.epoch, 1, [], recovered=False, began=1)
        assert past.epoch != place.epoch
        # All servers know it by one name, also before anybody wrote it.
        assert (await two.backplane.history("a", place)).epoch == past.epoch
        assert await two.backplane.publish("a", "2", None, 1) == (past.epoch, 2)
        assert (await one.backplane.history("a", Position(past.epoch, 1))).records[0].message == "2"
        # Whoever was nowhere before may have what is held.
        assert [each.message for each in (await one.backplane.history("a", None)).records] == ["1", "2"]
        # What was published where nothing was, and is lost, may have been there.
        assert not (await one.backplane.history("b", Position(start.epoch, 0))).recovered


async def test_a_server_that_keeps_all_goes_on_in_its_epochs(engine: NatsEngine) -> None:
    async with opened(engine, "one") as one:
        await reached(one)
        start = await one.backplane.history("b", None)
        places = [await one.backplane.publish("a", str(number), None, number) for number in range(3)]
        await restarted(engine, one)
        past = await one.backplane.history("a", places[0])
        assert (past.epoch, past.offset, [each.message for each in past.records]) == (places[0].epoch, 3, ["1", "2"])
        # The same origins once more.
        again = await asyncio.gather(*[one.backplane.publish("a", "x", None, number) for number in range(4)])
        assert again == [*places, Position(places[0].epoch, 4)]
        assert (await one.backplane.history("b", Position(start.epoch, 0))).recovered


async def test_all_hubs_are_told_where_one_of_them_had_what_the_server_lost(
    engine: NatsEngine, tmp_path: Path, logged: Logged
) -> None:
    async with hubs(engine) as (one, two):
        here, there = Reader(), Reader()
        await one.subscribe(here, "a")
        await one.publish("a", "1")
        engine.kill()
        await eventually(lambda: one.stats().degraded and two.stats().degraded)
        shutil.copytree(engine.folder, tmp_path / "copy")
        engine.start()
        await eventually(lambda: not one.stats().degraded and not two.stats().degraded)
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
        logged.take_all("the backplane is away", 4)
        logged.take_all("the backplane is back", 4)


async def test_a_mark_that_an_epoch_begins_is_made_once(engine: NatsEngine) -> None:
    async with opened(engine, "one") as one, opened(engine, "two") as two:
        await reached(one, two)
        await one.backplane.follow("a")
        place = await one.backplane.publish("a", "1", None, 1)
        ahead = place._replace(offset=7)
        both = await asyncio.gather(one.backplane.history("a", ahead), two.backplane.history("a", ahead))
        assert both[0] == both[1] == HistoryResult(both[0].epoch, 1, [], recovered=False, began=1)
        assert both[0].epoch != place.epoch
        await eventually(lambda: ("a", "") in one.doubts)
        assert await two.backplane.publish("a", "2", None, 1) == (both[0].epoch, 2)
        assert [each.message for each in (await one.backplane.history("a", None)).records] == ["1", "2"]
        await eventually(lambda: one.messages == ["1", "2"])


async def test_a_stream_that_is_deleted_is_made_anew_and_all_are_told(engine: NatsEngine, logged: Logged) -> None:
    engine.arguments |= {"lease": 1.0}
    async with hubs(engine) as (one, two):
        here = Reader()
        await one.subscribe(here, "a")
        await two.publish("a", "1")
        with engine.talk() as talk:
            talk.api("STREAM.DELETE.rawws-topics")
        await eventually(lambda: one.stats().retries and two.stats().retries)
        await eventually(lambda: not one.stats().degraded and not two.stats().degraded)
        await two.publish("a", "2")
        await eventually(lambda: here.got == ["1", "2"])
        assert here.lost_at == [1]
    logged.take_all("the backplane is away", 2)
    logged.take_all("the backplane is back", 2)


async def test_a_publication_to_a_stream_that_is_gone_waits_for_the_next_one(
    engine: NatsEngine, logged: Logged
) -> None:
    async with hubs(engine, 1) as (hub,):
        await hub.publish("a", "1")
        with engine.talk() as talk:
            talk.api("STREAM.DELETE.rawws-topics")
        waiting = hub.publish("a", "2")
        await eventually(lambda: hub.stats().retries and not hub.stats().unsent)
        assert (await waiting).accepted
    logged.take_all("the backplane is away", 1)
    logged.take_all("the backplane is back", 1)


async def test_the_place_of_a_topic_that_was_never_published_to_is_good_as_long_as_nothing_can_be_missing(
    engine: NatsEngine,
) -> None:
    async with opened(engine, "one") as one, opened(engine, "two") as two:
        await reached(one, two)
        ask = one.backplane.history
        first = await ask("a", None)
        await two.backplane.publish("a", "1", None, 1)
        assert (await ask("a", Position(first.epoch, 0))).recovered
        # As if all that is old were pushed out.
        with engine.talk() as talk:
            talk.api("STREAM.PURGE.rawws-topics", filter="rawws.topics.%")
        past = await ask("a", Position(first.epoch, 0))
        assert (past.recovered, past.before, [each.message for each in past.records]) == (False, (), [])
        # The next one is written by who needs it.
        second = await ask("b", None)
        assert second.epoch != first.epoch
        assert not (await ask("b", Position(first.epoch, 0))).recovered
        assert (await two.backplane.history("b", Position(second.epoch, 0))).recovered
        await two.backplane.publish("b", "1", None, 2)
        assert (await ask("b", Position(second.epoch, 0))).recovered


async def test_a_start_gets_a_younger_one_beside_it_before_it_is_old(
    engine: NatsEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(engine, "one") as one:
        await reached(one)
        first = await one.backplane.history("a", None)
        monkeypatch.setattr("rawws.backplanes.nats_starts.PLACE_AGE", 0.01)
        async with opened(engine, "two") as two:
            await reached(two)
            second = await two.backplane.history("a", None)
        assert second.epoch != first.epoch
        assert second.before == (Position(first.epoch, 0),)
        assert (await one.backplane.history("a", Position(first.epoch, 0))).recovered
        # It hears of it at once, and says both where a topic begins.
        await one.backplane.publish("a", "1", None, 1)
        past = await one.backplane.history("a", Position(second.epoch, 0))
        assert (past.recovered, past.before) == (True, (Position(first.epoch, 0), Position(second.epoch, 0)))


# -- publications


async def test_servers_that_write_to_one_topic_at_once_have_one_order_and_lose_nothing(engine: NatsEngine) -> None:
    async with opened(engine, "one") as one, opened(engine, "two") as two, opened(engine, "three") as three:
        await reached(one, two, three)
        await three.backplane.follow("a")
        answers = [
            told.backplane.publish("a", f"{number}", None, number)
            for number in range(300)
            for told in (one, two, three)
        ]
        places = await asyncio.gather(*answers)
        assert sorted(place.offset for place in places) == [*range(1, 901)]
        await eventually(lambda: len(three.records) == 900)
        for server in ("one", "two", "three"):
            assert [each.number for each in three.records if each.server == server] == [*range(300)]


@pytest.mark.parametrize("allowed", [True, False], ids=["batches", "one by one"])
async def test_where_a_stream_takes_no_batches_publications_go_one_by_one(engine: NatsEngine, allowed: bool) -> None:
    async with opened(engine, "one") as one:
        await reached(one)
        await one.backplane.follow("a")
        with engine.talk() as talk:
            config = talk.api("STREAM.INFO.rawws-topics")["config"]
            assert config["allow_atomic"]
            assert "error" not in talk.api("STREAM.UPDATE.rawws-topics", **{**config, "allow_atomic": allowed})
        answers = [one.backplane.publish("a", f"{number}", None, number) for number in range(20)]
        assert [place.offset for place in await asyncio.gather(*answers)] == [*range(1, 21)]
        answers = [one.backplane.publish("a", f"{number}", None, number) for number in range(20, 40)]
        assert [place.offset for place in await asyncio.gather(*answers)] == [*range(21, 41)]
        await eventually(lambda: one.messages == [str(number) for number in range(40)])
        with engine.talk() as talk:
            headers, _ = talk.ask("$JS.API.DIRECT.GET.rawws-topics.rawws.topics.a")
            assert ("Nats-Batch-Id" in headers) is allowed


async def test_what_comes_while_a_batch_is_refused_goes_behind_it(engine: NatsEngine) -> None:
    async with opened(engine, "one") as one:
        await reached(one)
        with engine.talk() as talk:
            config = talk.api("STREAM.INFO.rawws-topics")["config"]
            assert "error" not in talk.api("STREAM.UPDATE.rawws-topics", **{**config, "allow_atomic": False})
        answers = [one.backplane.publish("a", f"{number}", None, number) for number in range(5)]
        # The batch is on its way.
        await asyncio.sleep(0)
        answers += [one.backplane.publish("a", f"{number}", None, number) for number in range(5, 10)]
        assert [place.offset for place in await asyncio.gather(*answers)] == [*range(1, 11)]
        past = await one.backplane.history("a", None)
        assert [each.number for each in past.records] == [*range(10)]


async def test_a_place_that_another_server_took_meanwhile_is_looked_up(engine: NatsEngine) -> None:
    async with opened(engine, "one") as one, opened(engine, "two") as two:
        await reached(one, two)
        # Neither of them follows the topic.
        for number in range(4):
            place = await (one, two)[number % 2].backplane.publish("a", "x", None, number)
            assert place.offset == number + 1


async def test_what_is_too_large_is_refused_and_all_others_of_the_same_batch_go(engine: NatsEngine) -> None:
    async with opened(engine, "one") as one:
        await reached(one)
        await one.backplane.follow("a")
        large = "x" * (1 << 20)
        messages = ["1", large, "2", "y" * 100_000]
        found = await asyncio.gather(
            *[one.backplane.publish("a", message, None, number) for number, message in enumerate(messages)],
            return_exceptions=True,
        )
        assert isinstance(found[1], TopicUnavailable)
        assert found[1].reason.startswith("it takes 1048")
        assert found[1].reason.endswith("the NATS server allows 1048576")
        assert [found[0].offset, found[2].offset, found[3].offset] == [1, 2, 3]  # type: ignore[union-attr]
        with pytest.raises(TopicUnavailable, match="the NATS server allows 1048576"):
            await one.backplane.publish("b", large, None, 9)
        await eventually(lambda: one.messages == ["1", "2", "y" * 100_000])
        assert one.reasons == []


async def test_batches_are_bounded_by_their_messages_and_bytes(
    engine: NatsEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_writer, "MAX_BATCH", 3)
    monkeypatch.setattr(nats_writer, "MAX_BATCH_SIZE", 5000)
    async with opened(engine, "one") as one:
        await reached(one)
        sizes = [10, 10, 10, 10, 4000, 4000, 4000, 10]
        answers = [one.backplane.publish("a", "x" * size, None, number) for number, size in enumerate(sizes)]
        assert [place.offset for place in await asyncio.gather(*answers)] == [*range(1, 9)]
        # Two of one number in one batch are one.
        same = [one.backplane.publish("a", "y", None, number) for number in (10, 10, 9, 11)]
        assert [place.offset for place in await asyncio.gather(*same)] == [9, 9, 0, 10]


async def test_who_publishes_is_remembered_in_a_topic_and_not_all_who_ever_did(
    engine: NatsEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_records, "MAX_SERVERS", 2)
    monkeypatch.setattr(nats_writer, "MAX_TAILS", 1)
    async with opened(engine, "one") as one, opened(engine, "two") as two, opened(engine, "three") as three:
        await reached(one, two, three)
        for told in (one, two, three):
            await told.backplane.publish("a", "x", None, 1)
            # So it has to ask where the other topic is.
            await told.backplane.publish("b", "x", None, 2)
        assert (await two.backplane.publish("a", "x", None, 1)).offset == 2
        # The third one took its place.
        assert (await one.backplane.publish("a", "x", None, 1)).offset == 4


async def test_a_hub_that_asks_from_where_it_is_gets_what_is_new_alone(
    engine: NatsEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    read = nats_line.NatsLine.read

    async def counted(self: Any, stream: str, subject: str, since: int = 1) -> Any:
        found = await read(self, stream, subject, since)
        asked.append(len(found))
        return found

    async with opened(engine, "one") as one:
        await reached(one)
        await one.backplane.follow("a")
        places = [await one.backplane.publish("a", f"{number}", None, number) for number in range(20)]
        await eventually(lambda: len(one.records) == 20)
        monkeypatch.setattr(nats_line.NatsLine, "read", counted)
        past = await one.backplane.history("a", places[-1])
        assert (past.recovered, past.records, asked[0]) == (True, [], 1)
        del asked[:]
        past = await one.backplane.history("a", places[-2])
        assert ([each.message for each in past.records], asked[0]) == (["19"], 20)
        # Where the log begins anew, the last one is there no more.
        engine.mend("a")
        assert not (await one.backplane.history("a", places[-1])).recovered


async def test_a_long_log_is_read_in_pages(engine: NatsEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_line, "PAGE", 7)
    async with opened(engine, "one") as one:
        await reached(one)
        answers = [one.backplane.publish("a", f"{number}", None, number) for number in range(50)]
        await asyncio.gather(*answers)
        records = (await one.backplane.history("a", None)).records
        assert [each.message for each in records] == [str(number) for number in range(50)]


async def test_bounds_of_several_hubs_are_the_largest_and_each_reads_its_own(engine: NatsEngine) -> None:
    async with opened(engine, "one", History(count=3)) as one, opened(engine, "two", History(count=10)) as two:
        await reached(one, two)
        for number in range(20):
            await two.backplane.publish("a", f"{number}", None, number)
        assert [each.message for each in (await one.backplane.history("a", None)).records] == ["17", "18", "19"]
        assert len((await two.backplane.history("a", None)).records) == 10
        with engine.talk() as talk:
            found = talk.api("STREAM.INFO.rawws-topics")
            assert found["config"]["max_msgs_per_subject"] == 10
            assert found["config"]["max_bytes"] == 64 << 20


# -- who is present


async def test_a_lease_that_ran_out_is_another_one_and_all_are_there_again(engine: NatsEngine) -> None:
    engine.arguments |= {"lease": 1.0}
    async with opened(engine, "one") as one, opened(engine, "two") as two:
        await reached(one, two)
        await two.backplane.follow("a")
        one.backplane.join("a", "x", "1")
        await eventually(lambda: two.entries)
        with engine.talk() as talk:
            talk.api("STREAM.PURGE.rawws-servers", filter="rawws.servers.one-0")
        # By a lease that is none, nobody is present; and what it had is taken away.
        assert await two.backplane.presence("a") == []
        await eventually(lambda: len(two.entries) == 2)
        assert await two.backplane.presence("a") == [PresenceEntry("one", "x", "1")]
        with engine.talk() as talk:
            assert talk.api("STREAM.INFO.rawws-presence")["state"]["num_subjects"] == 1
        assert one.reasons == two.reasons == []


async def test_a_server_that_is_killed_is_told_when_its_lease_ends(engine: NatsEngine) -> None:
    engine.arguments |= {"lease": 1.0}
    async with opened(engine, "two") as two:
        one = Told(engine.backplane())
        one.backplane.open("one", History(), one)
        await reached(one, two)
        await two.backplane.follow("a")
        one.backplane.join("a", "x", "1")
        await eventually(lambda: two.entries)
        backplane: Any = one.backplane
        # As one does that is killed.
        backplane._session.reached = False
        await backplane._session.close()
        await eventually(lambda: two.gone == ["one"])
        assert await two.backplane.presence("a") == []


async def test_a_renewal_that_was_not_answered_is_found(engine: NatsEngine) -> None:
    async with opened(engine, "one") as one:
        await reached(one)
        backplane: Any = one.backplane
        roster = backplane._roster
        known, roster._sequence = roster._sequence, 0
        assert not await roster.renew()
        assert roster._sequence > known
        assert roster.lease == "one-0"


async def test_entries_are_written_again_before_they_are_too_old(
    engine: NatsEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_roster, "PLACE_AGE", 0.1)
    engine.arguments |= {"lease": 1.0}
    async with opened(engine, "one") as one:
        await reached(one)
        one.backplane.join("a", "x", "1")
        await one.backplane.presence("a")
        with engine.talk() as talk:
            first = talk.api("STREAM.INFO.rawws-presence")["state"]["last_seq"]
            await eventually(lambda: talk.api("STREAM.INFO.rawws-presence")["state"]["last_seq"] > first)


async def test_of_many_who_left_while_the_server_was_away_none_is_there(
    engine: NatsEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nats_roster, "MAX_LEFT", 1)
    async with opened(engine, "one") as one:
        await reached(one)
        for ident in "xyz":
            one.backplane.join("a", ident, "1")
        assert len(await one.backplane.presence("a")) == 3
        engine.kill()
        await eventually(lambda: one.reasons)
        one.backplane.leave("a", "x")
        one.backplane.leave("a", "y")
        engine.start()
        await eventually(lambda: one.backs == 2)
        assert await one.backplane.presence("a") == [PresenceEntry("one", "z", "1")]


async def test_who_is_too_large_to_be_written_is_told_and_tried_again(engine: NatsEngine) -> None:
    engine.arguments |= {"lease": 1.0}
    async with opened(engine, "one") as one:
        await reached(one)
        await one.backplane.follow("a")
        one.backplane.join("a", "x", "x" * (1 << 20))
        await eventually(lambda: len(one.doubts) > 1)
        topic, reason = one.doubts[0]
        assert topic == "a"
        assert reason.startswith("the NATS server does not hold who is present: it takes 1048")
        one.backplane.leave("a", "x")
        assert await one.backplane.presence("a") == []
        assert one.reasons == []


# -- what comes


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ("", "a message has no header Rawws: another program published it"),
        ("Rawws: 2 E 1 0 L t one 1 - - - -", "a message is of version '2', this program reads '1': use one version"),
        ("Rawws: 1 E 1", "not enough values to unpack"),
        ("Rawws: 1 E! 1 0 L t one 1 - - - -", "the epoch is 'E!'"),
        ("Rawws: 1 E 1 0 L z one 1 - - - -", "the kind of a message is 'z', allowed are t, b and e"),
        ("Rawws: 1 E 1 0 L t one 1 - - - -", "'Nats-Sequence'"),
        ("Rawws: + one-0", "not enough values to unpack"),
        ("Rawws: + one-0 %07", "it is nobody present"),
    ],
)
async def test_what_nobody_can_read_is_a_doubt_of_its_topic(engine: NatsEngine, headers: str, reason: str) -> None:
    async with opened(engine, "one") as one:
        await reached(one)
        await asyncio.gather(one.backplane.follow("a"), one.backplane.follow("b"))
        with engine.talk() as talk:
            talk.tell("rawws.live.a", b"x", headers)
        await eventually(lambda: one.doubts)
        [(topic, said)] = one.doubts
        assert topic == "a"
        assert reason in said
        await one.backplane.publish("b", "1", None, 1)
        await eventually(lambda: one.messages == ["1"])


async def test_a_log_that_nobody_can_read_is_refused_until_it_is_gone(engine: NatsEngine) -> None:
    async with opened(engine, "one") as told:
        await reached(told)
        one = told.backplane
        engine.spoil("a")
        for _ in range(2):
            with pytest.raises(TopicUnavailable, match="what the NATS server has of it cannot be read"):
                await one.publish("a", "1", None, 1)
            with pytest.raises(TopicUnavailable, match="another program published it"):
                await one.history("a", None)
        engine.mend("a")
        assert (await one.publish("a", "1", None, 1)).offset == 1
        assert told.reasons == []


async def test_a_mistake_of_a_handler_is_logged_and_the_server_is_reached_again(
    engine: NatsEngine, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(engine, "one") as one:
        await reached(one)
        await one.backplane.follow("a")

        def fail(_: object) -> None:
            raise KeyError("a mistake")

        with monkeypatch.context() as patch:
            patch.setattr(one, "on_record", fail)
            # The connection may end before the answer is there.
            with contextlib.suppress(BackplaneAway):
                await one.backplane.publish("a", "1", None, 1)
            await eventually(lambda: one.reasons)
        await eventually(lambda: one.backs == 2)
    logged.take("a hub failed at what NATS told it", KeyError, "rawws.backplanes")


async def test_a_lost_connection_leaves_no_task_of_the_package_behind(engine: NatsEngine) -> None:
    async with opened(engine, "one") as one:
        await reached(one)
        for number in range(50):
            await one.backplane.follow(f"{number}")
        before = len(asyncio.all_tasks())
        for number in range(2000):
            one.backplane.publish("a", "x" * 1000, None, number)
        await asyncio.sleep(0)
        await restarted(engine, one)
        await eventually(lambda: len(asyncio.all_tasks()) <= before)


async def test_a_hub_that_is_too_slow_for_the_server_is_told_and_asks_for_what_it_missed(
    started: Started, logged: Logged
) -> None:
    engine = started("max_payload: 150KB\nmax_pending: 1MB")
    held = History(count=1000, size=64 << 20)

    async def flood() -> None:
        async with opened(engine, "three", held) as three:
            await reached(three)
            await asyncio.gather(*[three.backplane.publish("a", "x" * 100_000, None, number) for number in range(300)])

    async with hubs(engine, 1, history=held) as (hub,):
        reader = Reader()
        await hub.subscribe(reader, "a")
        with ThreadPoolExecutor(1) as pool:
            # Its loop stands still until more was published than the kernel and the server keep for it.
            pool.submit(asyncio.run, flood()).result()
        await eventually(lambda: len(reader.got) == 300)
        assert reader.lost_at == []
        assert hub.stats().retries
        logged.take_all("the backplane is away", hub.stats().retries)
        logged.take_all("the backplane is back", hub.stats().retries)


async def test_a_server_that_says_nothing_is_away(engine: NatsEngine) -> None:
    engine.arguments |= {"lease": 1.0, "timeout": 0.5}
    async with opened(engine, "one") as one:
        await reached(one)
        assert engine.process is not None
        os.kill(engine.process.pid, signal.SIGSTOP)
        waiting = one.backplane.publish("a", "1", None, 1)
        await eventually(lambda: one.reasons)
        # It may have been quicker than the signal.
        [found] = await asyncio.gather(waiting, return_exceptions=True)
        assert isinstance(found, (ConnectionError, Position))
        os.kill(engine.process.pid, signal.SIGCONT)
        await eventually(lambda: one.backs == 2)
        assert (await one.backplane.publish("a", "1", None, 1)).offset == 1


# -- bad input


LOGIN = "authorization { user: ali, password: sesame }\n"


async def test_wrong_credentials_are_said_and_right_ones_do(started: Started) -> None:
    engine = started(LOGIN)
    url = engine.url
    for wrong in (url, url.replace("//", "//ali:wrong@")):
        engine.arguments["url"] = wrong
        reason = await reason_of(engine)
        assert "authorization violation" in reason.lower()
        assert "credentials" in reason
        assert "wrong" not in reason
    engine.arguments["url"] = url.replace("//", "//ali:sesame@")
    async with opened(engine, "one") as one:
        await reached(one)
        assert (await one.backplane.publish("a", "1", None, 1)).offset == 1


async def test_where_nobody_listens_the_reason_says_so(engine: NatsEngine) -> None:
    engine.kill()
    assert "Connect" in await reason_of(engine)
    engine.start()


async def test_a_user_without_rights_is_told_which(started: Started) -> None:
    rights = 'permissions: { publish: { deny: "$JS.API.STREAM.CREATE.>" } }'
    engine = started(f"authorization {{ users: [{{ user: ali, password: sesame, {rights} }}] }}\n")
    engine.arguments["url"] = engine.url.replace("//", "//ali:sesame@")
    assert 'permissions violation for publish to "$js.api.stream.create.' in await reason_of(engine)


async def test_rights_that_miss_for_one_topic_are_that_topics_fault(started: Started) -> None:
    rights = 'permissions: { publish: { deny: "rawws.topics.Secret" }, subscribe: { deny: "rawws.live.Secret" } }'
    engine = started(f"authorization {{ users: [{{ user: ali, password: sesame, {rights} }}] }}\n")
    engine.arguments["url"] = engine.url.replace("//", "//ali:sesame@")
    async with opened(engine, "one") as told:
        await reached(told)
        one = told.backplane
        for number in range(2):
            with pytest.raises(TopicUnavailable, match="permissions violation for publish"):
                await one.publish("Secret", "1", None, number)
            with pytest.raises(TopicUnavailable, match="permissions violation for subscription"):
                await one.follow("Secret")
        await one.follow("a")
        await one.publish("a", "1", None, 3)
        await eventually(lambda: told.messages == ["1"])
        # What is asked at the same time of others is answered.
        asked: list[Any] = [one.publish("Secret", "2", None, 4), one.publish("b", "1", None, 5), one.history("c", None)]
        refused, *answered = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(refused, TopicUnavailable)
        assert not any(isinstance(each, Exception) for each in answered)
        assert told.reasons == []


async def test_a_server_without_jetstream_is_told_what_to_write(started: Started) -> None:
    engine = started()
    engine.kill()
    engine.config.write_text(f"listen: 127.0.0.1:{engine.port}\n", encoding="utf-8")
    engine.start()
    assert (
        await reason_of(engine) == "JetStream is off at this NATS server: write `jetstream {}` into its configuration"
    )


async def test_an_account_without_jetstream_is_told_too(started: Started) -> None:
    engine = started("accounts { A { users: [{ user: ali, password: sesame }] } }\n")
    engine.arguments["url"] = engine.url.replace("//", "//ali:sesame@")
    assert "JetStream is off" in await reason_of(engine) or "not enabled" in await reason_of(engine)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"metadata": {"rawws": "2", "keeps": "yes"}}, "was made by another version of rawws (rawws is '2' there, '1'"),
        ({"metadata": None}, "was made by another version of rawws (rawws is 'None' there"),
        (
            {"metadata": {"rawws": "1", "keeps": "no"}},
            "was made with another `keeps` (keeps is 'no' there, 'yes' here)",
        ),
        ({"republish": None}, "the stream rawws-topics was changed: its republish is None, needed is"),
        ({"discard": "new"}, "its discard is 'new', needed is 'old'"),
    ],
)
async def test_a_stream_that_is_another_is_refused_with_a_remedy(
    engine: NatsEngine, changes: dict[str, Any], reason: str
) -> None:
    async with opened(engine, "one") as one:
        await reached(one)
    with engine.talk() as talk:
        config = talk.api("STREAM.INFO.rawws-topics")["config"]
        assert "error" not in talk.api("STREAM.UPDATE.rawws-topics", **{**config, **changes})
    assert reason in await reason_of(engine)


@pytest.mark.parametrize(
    "limits", ["max_file_store: 10MB", "max_file_store: 1GB"], ids=["the server's limit", "the account's limit"]
)
async def test_a_store_that_is_too_small_is_told(started: Started, limits: str) -> None:
    account = "accounts { A { jetstream { max_store: 10MB }, users: [{ user: ali, password: sesame }] } }\n"
    engine = started(account if "1GB" in limits else "", limits=limits)
    if "1GB" in limits:
        engine.arguments["url"] = engine.url.replace("//", "//ali:sesame@")
    reason = await reason_of(engine)
    assert reason.startswith("the stream rawws-topics cannot be made or read: ")
    assert "History(total=...)" in reason


async def test_a_store_that_is_full_refuses_what_is_new_and_all_that_is_read_goes_on(
    started: Started, logged: Logged
) -> None:
    engine = started(limits="max_file_store: 3MB", lease=1.0)
    async with hubs(engine, history=History(total=1 << 20)) as (one, two):
        reader = Reader()
        await one.subscribe(reader, "a")
        await two.publish("a", "1")
        with engine.talk() as talk:
            assert "error" not in talk.api("STREAM.CREATE.full", name="full", subjects=["full"])
            for _ in range(40):
                talk.ask("full", b"x" * 100_000)
        await one.subscribe(Reader(), "a", join="me")
        await eventually(lambda: one.stats().faults)
        outcome = await two.publish("a", "2")
        assert outcome.refused == "the topic 'a' is unavailable at this time, others are not"
        late = Reader()
        await two.subscribe(late, "a", since="earliest")
        assert late.got == ["1"]
        with engine.talk() as talk:
            talk.api("STREAM.DELETE.full")
        assert (await two.publish("a", "3")).accepted
        await eventually(lambda: reader.got == late.got == ["1", "3"])
        # Who could not be written is, and so is the lease.
        await eventually(lambda: len(two.presence("a")) == 1)
        assert one.stats().retries == two.stats().retries == 0
    told = [line for line in logged.left() if FAULT in line]
    assert all("make room in its max_file_store and on its disk, or hold less by" in line for line in told)
    for text in (FAULT, "the backplane serves the topic", "NATS does not renew the lease of this server"):
        logged.take_all(text, sum(text in each for each in logged.left()))


async def test_a_server_of_before_is_refused(engine: NatsEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rawws.backplanes.nats_streams.NEEDED", (99, 0))
    assert await reason_of(engine) == "the NATS server is of version '2.15.1', needed is 2.11 or later"


async def test_a_hub_that_goes_with_its_loop_logs_nothing(engine: NatsEngine, logged: Logged) -> None:
    backplane = engine.backplane()
    hub = Hub(backplane=backplane)
    await hub.publish("a", "x")
    task = backplane._session.task
    assert task is not None
    # As asyncio.run does at its end.
    task.cancel()
    await asyncio.wait([task])
    assert logged.left() == []
    await hub.close()


def test_what_was_written_is_read_as_it_was() -> None:
    tail = nats_records.Tail(0, "E", 1, 0, "L", ("s1", "s2"), {"one": 7, "a b:c,d": 8})
    extra = r'"json":true,"event":"é, %20 \\ \" { 1 t - "'
    for key in (None, "", "-", "a é\n%"):
        [(name, text)] = nats_records.headers_of(tail, "t", "a b", 9, key, extra).items()
        assert text.isascii()
        assert len(text.split(" ")) == 12
        message: Any = type("Message", (), {})()
        message.headers = {name: text, "Nats-Sequence": "5", "Nats-Time-Stamp": "2026-11-27T22:30:07.65813133Z"}
        message.data = b"x"
        stored = nats_records.stored_of(message)
        assert stored.tail == tail._replace(sequence=5)
        assert (stored.server, stored.number, stored.key, stored.extra) == ("a b", 9, key, extra)
        assert json.loads(f"{{{stored.extra}}}")["json"] is True


TAIL = nats_records.Tail(7, "abc", 5, 2, "run", ("start",), {"one": 3})


def test_a_new_run_and_a_new_epoch_begin_where_the_topic_is_and_no_name_of_before_leads_there() -> None:
    for new in (TAIL.in_life("other"), TAIL.in_new_epoch()):
        assert new == TAIL._replace(epoch=new.epoch, life=new.life, began=5, before=())
        assert new.epoch != TAIL.epoch
    assert TAIL.in_life("run") is TAIL
    # All servers give it the same name.
    assert TAIL.in_life("other").epoch == TAIL.in_life("other").epoch != TAIL.in_life("third").epoch


def test_of_many_servers_those_are_known_that_published_last() -> None:
    tail = TAIL
    for number in range(2 * nats_records.MAX_SERVERS):
        tail = tail.after("one", number).after(f"server {number}", 1)
        assert tail.numbers["one"] == number
    assert len(tail.numbers) == nats_records.MAX_SERVERS


async def test_what_was_taken_out_of_the_middle_of_a_log_ends_what_is_known_to_be_whole(engine: NatsEngine) -> None:
    async with opened(engine, "one") as one:
        await reached(one)
        places = [await one.backplane.publish("a", str(number), None, number) for number in range(4)]
        with engine.talk() as talk:
            found = talk.api("STREAM.MSG.GET.rawws-topics", last_by_subj="rawws.topics.a")
            assert talk.api("STREAM.MSG.DELETE.rawws-topics", seq=found["message"]["seq"] - 2)["success"]
        for since in (None, places[1]):
            past = await one.backplane.history("a", since)
            assert ([each.message for each in past.records], past.recovered) == (["2", "3"], True)
        assert not (await one.backplane.history("a", places[0])).recovered


async def test_one_message_that_is_larger_than_the_bytes_of_a_topic_is_held_alone(engine: NatsEngine) -> None:
    async with opened(engine, "one", History(size=1000)) as one:
        await reached(one)
        await one.backplane.publish("a", "small", None, 1)
        await one.backplane.publish("a", "x" * 5000, None, 2)
        past = await one.backplane.history("a", None)
        assert [len(each.message) for each in past.records] == [5000]


async def test_where_something_is_gone_nobody_goes_on_from_before_the_first_publication(engine: NatsEngine) -> None:
    async with opened(engine, "one", History(count=2)) as one:
        await reached(one)
        start = await one.backplane.history("a", None)
        unborn = Position(start.epoch, start.offset)
        for number in range(2):
            await one.backplane.publish("a", str(number), None, number)
        past = await one.backplane.history("a", unborn)
        assert (past.recovered, past.before) == (True, (unborn,))
        await one.backplane.publish("a", "2", None, 2)
        past = await one.backplane.history("a", unborn)
        assert (past.recovered, past.before) == (False, ())


async def test_a_stream_that_was_made_anew_between_two_looks_is_noticed(engine: NatsEngine) -> None:
    engine.arguments["lease"] = 1.0
    async with opened(engine, "one") as one:
        await reached(one)
        with engine.talk() as talk:
            config = talk.api("STREAM.INFO.rawws-topics")["config"]
            assert talk.api("STREAM.DELETE.rawws-topics")["success"]
            assert "error" not in talk.api("STREAM.CREATE.rawws-topics", **config)
        await eventually(lambda: one.backs == 2)
        assert one.reasons == ["the stream rawws-topics was made anew"]


# -- bounds, and what ends


async def test_where_nobody_asks_a_start_gets_a_younger_one_all_the_same(
    engine: NatsEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.arguments |= {"lease": 1.0}
    async with opened(engine, "one") as one:
        await reached(one)
        backplane: Any = one.backplane
        first = backplane._starts.names
        monkeypatch.setattr(nats_starts, "PLACE_AGE", 0.01)
        await eventually(lambda: backplane._starts.names[-1:] != first)


async def test_of_many_starts_the_last_two_are_known(engine: NatsEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(engine, "one") as one:
        await reached(one)
        monkeypatch.setattr(nats_starts, "PLACE_AGE", 0.01)
        for number in range(3):
            async with opened(engine, f"other {number}") as other:
                await reached(other)
                backplane: Any = other.backplane
                names = backplane._starts.names
        assert len(names) == 2
        backplane = one.backplane
        await eventually(lambda: backplane._starts.names[-1] == names[-1])
        await backplane.publish("a", "1", None, 1)
        assert backplane._writer._tails["a"].before == names


async def test_what_another_program_says_where_starts_are_told_harms_nothing(engine: NatsEngine) -> None:
    async with opened(engine, "one") as one:
        await reached(one)
        with engine.talk() as talk:
            for headers in ("", "Rawws: 1", "Rawws: 1 L N\r\nNats-Sequence: x", "Rawws: 1 L N\r\nNats-Sequence: 1"):
                talk.tell("rawws.live.%", b"x", headers)
            talk.ask("rawws.topics.%", b"x", "Rawws: another")
        assert (await one.backplane.publish("a", "1", None, 1)).offset == 1
        assert (await one.backplane.history("a", None)).offset == 1
        async with opened(engine, "two") as two:
            await reached(two)
            assert (await two.backplane.history("b", None)).offset == 0
        assert one.reasons == two.reasons == []


async def test_a_question_that_nobody_answers_in_time_ends_the_connection(engine: NatsEngine) -> None:
    engine.arguments |= {"lease": 1.0, "timeout": 1.0}
    async with opened(engine, "one") as one:
        await reached(one)
        backplane: Any = one.backplane
        with engine.talk() as talk:
            # It hears the question and says nothing; all else is answered.
            talk.socket.sendall(b"SUB silent 2\r\nPING\r\n")
            talk.line()
            waiting = backplane._line.ask("silent")
            await eventually(lambda: one.reasons)
        assert one.reasons == ["no answer in time"]
        with pytest.raises(BackplaneAway):
            await waiting


async def test_a_line_that_cannot_send_what_is_left_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nats_line, "CLOSE_WAIT", 0.05)
    loop = asyncio.get_running_loop()
    with socket.create_server((LOOPBACK, 0)) as listening:
        listening.setblocking(False)
        line = nats_line.NatsLine(20.0)
        connecting = asyncio.ensure_future(line.connect([f"nats://{LOOPBACK}:{listening.getsockname()[1]}"]))
        peer, _ = await loop.sock_accept(listening)
        with peer:
            await loop.sock_sendall(peer, b'INFO {"max_payload": 100000000, "headers": true}\r\n')
            said = b""
            while b"PING\r\n" not in said:
                more = await loop.sock_recv(peer, 4096)
                assert more, said
                said += more
            await loop.sock_sendall(peer, b"PONG\r\n")
            await connecting
            for size in (32 << 20, *[1 << 20] * 30):
                line.send("a", bytes(size))
            # Nobody reads, and the kernel does not hold all of it.
            await asyncio.sleep(0.05)
            count = 0
            async with asyncio.timeout(60):
                await line.close("the test ends")
                with contextlib.suppress(ConnectionResetError):
                    while more := await loop.sock_recv(peer, 1 << 20):
                        count += len(more)
            assert count < 24 << 20


@pytest.mark.parametrize("history", [History(count=0, size=0, age=0.0, total=0), History(count=7, total=8 << 20)])
async def test_streams_have_the_bounds_of_the_history_and_what_places_need(
    engine: NatsEngine, history: History
) -> None:
    async with opened(engine, "one", history) as one:
        await reached(one)
        with engine.talk() as talk:
            config = talk.api("STREAM.INFO.rawws-topics")["config"]
        assert config["max_msgs_per_subject"] == max(2, history.count)
        assert config["max_bytes"] == max(1 << 20, history.total)
        assert config["max_age"] == 24 * 3600 * 10**9


def write_of(server: str, number: int, size: int) -> nats_writer.Write:
    answer: Any = None
    return nats_writer.Write(answer, nats_records.TEXT, server, number, None, "", b"x" * size)


@pytest.mark.parametrize(
    ("sizes", "taken"),
    [([4, 6, 1], 2), ([4, 7, 1], 1), ([20, 1], 1), ([1, 1, 1, 1], 3), ([0, 10], 2), ([3, 3, 3, 3], 3)],
)
def test_a_batch_has_so_many_messages_and_bytes_and_no_more(
    monkeypatch: pytest.MonkeyPatch, sizes: list[int], taken: int
) -> None:
    monkeypatch.setattr(nats_writer, "MAX_BATCH", 3)
    monkeypatch.setattr(nats_writer, "MAX_BATCH_SIZE", 10)
    queue = deque(write_of("one", number, size) for number, size in enumerate(sizes))
    assert [len(write.data) for write in nats_writer.take(queue)] == sizes[:taken]
    assert [len(write.data) for write in queue] == sizes[taken:]


def test_a_batch_is_of_one_server_by_ascending_numbers_but_for_those_without_a_hub() -> None:
    for places, taken in (
        ([("one", 1), ("one", 2), ("two", 3)], 2),
        ([("one", 1), ("one", 1)], 1),
        ([("one", 2), ("one", 1)], 1),
        ([("-", 0), ("-", 0), ("one", 1)], 2),
    ):
        queue = deque(write_of(server, number, 1) for server, number in places)
        assert len(nats_writer.take(queue)) == taken


async def test_a_publication_finds_out_at_once_that_the_stream_is_gone(engine: NatsEngine) -> None:
    # So long that nobody looks before.
    engine.arguments |= {"lease": 1000.0}
    async with opened(engine, "one") as one:
        await reached(one)
        with engine.talk() as talk:
            talk.api("STREAM.DELETE.rawws-topics")
        with pytest.raises(BackplaneAway):
            await one.backplane.publish("a", "1", None, 1)
        await eventually(lambda: one.backs == 2)
        assert one.reasons == ["the stream of the topics is gone"]


async def test_a_lease_that_is_refused_is_told_once_each_time(engine: NatsEngine, logged: Logged) -> None:
    async with opened(engine, "one") as one:
        await reached(one)
        backplane: Any = one.backplane
        with engine.talk() as talk:
            config = talk.api("STREAM.INFO.rawws-servers")["config"]
            for _ in range(2):
                assert "error" not in talk.api("STREAM.UPDATE.rawws-servers", **{**config, "max_msg_size": 1})
                for _ in range(3):
                    assert not await backplane._roster.renew()
                assert "error" not in talk.api("STREAM.UPDATE.rawws-servers", **config)
                assert not await backplane._roster.renew()
    logged.take_all("NATS does not renew the lease of this server", 2)


async def test_the_end_of_the_own_lease_and_of_what_is_none_is_no_server_that_is_gone(engine: NatsEngine) -> None:
    async with opened(engine, "one") as one:
        await reached(one)
        with engine.talk() as talk:
            for lease in ("one-0", "x", "two-0", "two-0"):
                talk.tell(f"rawws.lease.{lease}")
                talk.tell(f"rawws.lease.{lease}", b"", "Rawws: -")
                # Once more what is over already.
                talk.tell(f"rawws.lease.{lease}", b"", "Rawws: -")
        await eventually(lambda: len(one.gone) == 2)
        assert one.gone == ["two", "two"]


async def test_leases_that_begin_or_end_while_it_is_read_which_run_are_known(
    engine: NatsEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(engine, "zero") as zero:
        await reached(zero)
    read = nats_line.NatsLine.read
    with engine.talk() as talk:
        talk.ask("rawws.servers.ends-0")

        async def with_others(self: Any, stream: str, subject: str, since: int = 1) -> Any:
            found = await read(self, stream, subject, since)
            if stream == "rawws-servers":
                talk.tell("rawws.lease.begins-0")
                talk.tell("rawws.lease.ends-0", b"", "Rawws: -")
                talk.socket.sendall(b"PING\r\n")
                talk.line()
                # What was told before comes before the answer.
                await self.ask("$JS.API.INFO")
            return found

        monkeypatch.setattr(nats_line.NatsLine, "read", with_others)
        async with opened(engine, "one") as one:
            await reached(one)
            talk.tell("rawws.lease.begins-0", b"", "Rawws: -")
            await eventually(lambda: one.gone == ["ends", "begins"])
