"""What is Kafka's own: partitions, checkpoints, records that are lost or refused, users without rights."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from rawws.backplanes import kafka_checkpoints, kafka_client, kafka_places
from rawws.backplanes.kafka import KafkaBackplane
from rawws.backplanes.kafka_client import KafkaClient, kafka_servers
from rawws.backplanes.kafka_consumer import consume
from rawws.backplanes.kafka_partition import Partition
from rawws.backplanes.tls import TlsFiles
from rawws.topics import History, Hub
from rawws.topics.backplane import BackplaneAway, Position, PresenceEntry, TopicUnavailable
from tests.backplanes.engine_kafka import PASSWORD, KafkaEngine
from tests.backplanes.handlers import Told, opened
from tests.processes import LOOPBACK, PATIENCE
from tests.server.peers import Logged, eventually

ON_ONE_LOOP = True


@pytest.fixture
def kafka(tmp_path: Path) -> Callable[..., KafkaEngine]:
    return lambda **arguments: KafkaEngine(tmp_path, **arguments)


@pytest.fixture
def quiet() -> Iterator[None]:
    """Leave out that aiokafka warns of a password that it sends without TLS."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("aiokafka").setLevel(logging.NOTSET)


@asynccontextmanager
async def client_of(engine: KafkaEngine, *topics: str) -> AsyncIterator[KafkaClient]:
    client = KafkaClient(kafka_servers(engine.url), 20.0, None)
    try:
        await client.connect(topics)
        yield client
    finally:
        await client.close()


async def reached(*all_told: Told, times: int = 1) -> None:
    # A Kafka that stood still finds out that it leads nothing, and is away once more.
    await eventually(lambda: all(told.backs >= times for told in all_told))


def kafka_of(told: Told) -> KafkaBackplane:
    assert isinstance(told.backplane, KafkaBackplane)
    return told.backplane


async def test_servers_join_and_leave_while_three_partitions_are_written(kafka: Callable[..., KafkaEngine]) -> None:
    engine = kafka(partitions=3)
    topics = [f"topic-{number}" for number in range(9)]
    async with opened(engine, "one") as one, opened(engine, "two") as two:
        await reached(one, two)
        await asyncio.gather(*[told.backplane.follow(topic) for told in (one, two) for topic in topics])
        answers = []
        for turn in range(5):
            async with opened(engine, f"guest-{turn}") as guest:
                for number in range(60):
                    topic = topics[number % 9]
                    answers += [each.backplane.publish(topic, "x", None, turn * 60 + number) for each in (one, two)]
                await reached(guest)
                # It counted for itself, from the beginning or a checkpoint, while others wrote.
                for topic in topics:
                    first, second = await asyncio.gather(
                        one.backplane.history(topic, None), guest.backplane.history(topic, None)
                    )
                    assert first.epoch == second.epoch
                    same = zip(first.records[-5:], second.records[-5:], strict=False)
                    assert all(a[:7] == b[:7] for a, b in same if first.offset == second.offset)
                answers.append(guest.backplane.publish("topic-0", "guest", None, 1))
                await answers[-1]
        await asyncio.gather(*answers)
        await eventually(lambda: len(one.records) == len(two.records) == len(answers))
        for topic in topics:
            mine, others = ([each for each in told.records if each.topic == topic] for told in (one, two))
            assert mine == others
            assert [each.offset for each in mine] == [*range(1, len(mine) + 1)]
        assert len({kafka_of(one)._partition(topic).number for topic in topics}) > 1
        assert (one.reasons, two.reasons) == ([], [])


async def test_a_kafka_that_lost_the_last_of_what_it_acknowledged_begins_a_new_epoch(
    kafka: Callable[..., KafkaEngine],
) -> None:
    engine = kafka()
    async with opened(engine, "one") as one, opened(engine, "two") as two:
        await reached(one, two)
        place = await one.backplane.publish("a", "1", None, 1)
        # What stands in the log up to here is what a machine had on its disk that lost its power then.
        engine.kill()
        [segment] = engine.broker.data.glob(f"{engine.prefix}.log-0/*.log")
        size = segment.stat().st_size
        engine.start()
        await reached(one, two, times=2)
        lost = await one.backplane.publish("a", "2", None, 2)
        assert lost == (place.epoch, 2)
        engine.kill()
        await eventually(lambda: len(one.reasons) == len(two.reasons) == 2)
        os.truncate(segment, size)
        engine.start()
        # One of them may be back when the other one finds out.
        await eventually(lambda: one.backs >= 3 and two.backs >= 3)
        past = await one.backplane.history("a", lost)
        assert not past.recovered
        assert past.epoch != lost.epoch
        again = await one.backplane.publish("a", "2", None, 2)
        assert again.epoch not in {place.epoch, ""}
        await eventually(lambda: two.backs == len(two.reasons) + 1)
        assert (await two.backplane.history("a", None)).epoch == again.epoch


async def test_a_start_reads_a_checkpoint_and_what_is_behind_it(
    kafka: Callable[..., KafkaEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_checkpoints, "RECORDS", 20)
    engine, history = kafka(lease=0.4, partitions=2), History(age=0.1)
    async with opened(engine, "one", history) as one:
        await reached(one)
        one.backplane.join("a", "x", "null")
        partitions = kafka_of(one)._partitions
        for number in range(10_000):
            place = await one.backplane.publish("ab"[number % 2], "x", None, number)
            if all(len(each.places.checkpoints) > 1 for each in partitions):
                break
            await asyncio.sleep(0.01)
        async with opened(engine, "two", history) as two:
            await reached(two)
            for mine, other in zip(partitions, kafka_of(two)._partitions, strict=True):
                # It read no record from before the checkpoint.
                assert other.places.began > mine.places.began
            past = await two.backplane.history("ab"[number % 2], place)
            assert (past.epoch, past.offset, past.recovered) == (*place, True)
            assert await two.backplane.presence("a") == [PresenceEntry("one", "x", "null")]
        old = [found.name for each in partitions for found in each.places.checkpoints]
        async with client_of(engine, places := f"{engine.prefix}.places") as client:
            names = [f"{each.number} {found.name} 0" for each in partitions for found in each.places.checkpoints]
            await client.produce(places, 0, [(name.encode(), b"of another program") for name in names])
    # Those that cannot be read are left out: all is counted from the beginning. What is left of old ones is removed.
    monkeypatch.setattr(kafka_checkpoints, "LEFT_AGE", -1000)
    async with opened(engine, "three", history) as three:
        await reached(three)
        assert (await three.backplane.history("ab"[number % 2], place))[:2] == place
    async with client_of(engine, places) as client:
        left = await kafka_checkpoints.Checkpoints(client, f"{engine.prefix}.log", places)._read(0.1)
        assert old[0] not in {name.split(" ")[1] for name in left}


async def test_a_log_whose_beginning_is_gone_and_was_not_written_down_begins_anew(
    kafka: Callable[..., KafkaEngine],
) -> None:
    engine = kafka()
    async with opened(engine, "one") as one:
        await reached(one)
        place = await one.backplane.publish("a", "1", None, 1)
        await delete_before(engine, 3)
        async with opened(engine, "two") as two:
            await reached(two)
            past = await two.backplane.history("a", place)
            assert (past.offset, past.recovered) == (0, False)
            # All count from there, also who knew what was before.
            await eventually(lambda: one.backs == 2)
            assert "Kafka lost records" in one.reasons[0]
            first = await one.backplane.publish("a", "2", None, 2)
            assert (first.offset, first.epoch != place.epoch) == (1, True)
            assert (await two.backplane.history("a", Position(past.epoch, 0))).recovered


async def delete_before(engine: KafkaEngine, offset: int) -> None:
    """Have Kafka forget the beginning of the log, as its retention does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=f"{LOOPBACK}:{engine.broker.port}")
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(f"{engine.prefix}.log", 0): RecordsToDelete(before_offset=offset)})
    finally:
        await admin.close()


async def test_a_server_that_was_away_for_longer_than_the_log_goes_back_begins_at_a_checkpoint(
    kafka: Callable[..., KafkaEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_checkpoints, "RECORDS", 5)
    engine, history = kafka(lease=0.4, timeout=1.0), History(age=0.1)
    async with opened(engine, "one", history) as one:
        await reached(one)
        place = await one.backplane.publish("a", "1", None, 1)
        [mine] = kafka_of(one)._partitions
        await eventually(lambda: len(mine.places.checkpoints) > 1)
        await delete_before(engine, mine.places.checkpoints[-1].position)
        assert engine.broker.process is not None
        engine.broker.process.send_signal(signal.SIGSTOP)
        try:
            await eventually(lambda: one.reasons)
            # As if it had read no further than this, which is no longer there.
            mine.places.mark = kafka_places.Mark(1, 0, 0)
        finally:
            engine.broker.process.send_signal(signal.SIGCONT)
        await eventually(lambda: one.backs > 1)
        assert (await one.backplane.history("a", place))[:2] == place


async def test_a_message_over_the_limit_of_kafka_is_refused_and_others_go_on(kafka: Callable[..., KafkaEngine]) -> None:
    async with opened(kafka(), "one") as one:
        await reached(one)
        with pytest.raises(TopicUnavailable, match=r"has 2000\d\d\d bytes in Kafka, whose topic takes 1048460 \(max"):
            await one.backplane.publish("a", "x" * 2_000_000, None, 1)
        # One that a broker refuses, whose limit was made smaller.
        kafka_of(one)._limit = 1 << 30
        before, large, behind = (
            one.backplane.publish("a", message, None, number)
            for number, message in ((2, "y"), (3, "x" * 2_000_000), (4, "z"))
        )
        one.backplane.join("a", "x", "x" * 2_000_000)
        with pytest.raises(TopicUnavailable, match="MessageSizeTooLarge"):
            await large
        assert ((await before).offset, (await behind).offset) == (1, 2)
        await eventually(lambda: one.doubts)
        assert "Kafka does not hold who is present" in one.doubts[0][1]
        assert one.reasons == []


async def test_a_server_that_was_taken_for_dead_announces_its_clients_again(kafka: Callable[..., KafkaEngine]) -> None:
    engine = kafka()
    async with opened(engine, "one") as one, opened(engine, "two") as two:
        await reached(one, two)
        await two.backplane.follow("a")
        one.backplane.join("a", "x", "null")
        await eventually(lambda: two.entries)
        engine.append(None, kafka_places.gone("one", kafka_of(one)._lease))
        x = PresenceEntry("one", "x", "null")
        await eventually(lambda: len(two.entries) == 3)
        assert [event for _, event, _ in two.entries] == ["join", "leave", "join"]
        assert await two.backplane.presence("a") == [x]


@pytest.mark.parametrize("lease", [0.4])
async def test_a_server_that_falls_silent_is_gone_for_all_others(
    kafka: Callable[..., KafkaEngine], lease: float
) -> None:
    engine = kafka(lease=lease)
    async with opened(engine, "two") as two:
        await reached(two)
        engine.append(None, kafka_places.hello("dead", 1))
        engine.append("a", kafka_places.join("dead", 1, "x", "null"))
        await two.backplane.follow("a")
        await eventually(lambda: two.gone == ["dead"])
        assert await two.backplane.presence("a") == []


async def test_a_kafka_that_does_not_answer_any_more_is_away_within_the_timeout(
    kafka: Callable[..., KafkaEngine],
) -> None:
    engine = kafka(timeout=2.0, lease=0.4)
    async with opened(engine, "one") as one:
        await reached(one)
        process = engine.broker.process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        try:
            await eventually(lambda: one.reasons)
        finally:
            process.send_signal(signal.SIGCONT)
        await reached(one, times=2)
        assert one.reasons == ["no answer in time"] or "did not come in time" in one.reasons[0]


@pytest.mark.parametrize(
    ("login", "said"),
    [
        (f"ali:{PASSWORD}", "TopicAuthorizationFailed"),
        ("ali:wrong", "refuses the user 'ali'"),
        (f"eve:{PASSWORD}?mechanism=SCRAM-SHA-256", "refuses the user 'eve'"),
        ("", "does it want a user, or TLS, which is kafkas://?"),
    ],
)
@pytest.mark.usefixtures("quiet")
async def test_who_may_not_is_told_so_without_the_password(
    kafka: Callable[..., KafkaEngine], login: str, said: str
) -> None:
    engine = kafka()
    async with opened(engine, "one") as one:
        await reached(one)
    user, _, query = login.partition("?")
    at = f"{user}@" if user else ""
    url = f"kafka://{at}{LOOPBACK}:{engine.broker.users}/{engine.prefix}?{query}".rstrip("?")
    told = Told(KafkaBackplane(url, timeout=PATIENCE))
    told.backplane.open("two", History(), told)
    try:
        await eventually(lambda: told.reasons)
    finally:
        await told.backplane.close()
    assert said in told.reasons[0]
    assert PASSWORD not in told.reasons[0]
    assert "wrong" not in told.reasons[0].replace("wrong user", "")


async def test_a_log_that_is_compacted_is_refused_with_what_to_do(kafka: Callable[..., KafkaEngine]) -> None:
    engine = kafka()
    async with client_of(engine) as client:
        await client.create(f"{engine.prefix}.log", 1, {"cleanup.policy": "compact"})
    async with opened(engine, "one") as one:
        await eventually(lambda: one.reasons)
        assert "has cleanup.policy=compact, which removes records: set it to delete" in one.reasons[0]


async def test_a_log_that_may_lose_what_is_acknowledged_is_named_once(
    kafka: Callable[..., KafkaEngine], logged: Logged
) -> None:
    engine = kafka()
    async with client_of(engine) as client:
        await client.create(f"{engine.prefix}.log", 1, {})
    async with opened(engine, "one") as one:
        await reached(one)
        assert (await one.backplane.publish("a", "x", None, 1)).offset == 1
    logged.take("may lose what Kafka acknowledged: set min.insync.replicas=2", name="rawws.backplanes")


async def test_records_of_another_version_are_named(kafka: Callable[..., KafkaEngine]) -> None:
    engine = kafka()
    async with opened(engine, "one") as one:
        await reached(one)
        engine.append(None, b'b["*","new",9]')
        await eventually(lambda: one.reasons)
        assert "another version of rawws writes its records: 9, known is 1" in one.reasons[0]


async def test_two_prefixes_in_one_kafka_know_nothing_of_each_other(kafka: Callable[..., KafkaEngine]) -> None:
    async with opened(kafka(), "one") as one, opened(kafka(), "two") as two:
        await reached(one, two)
        await asyncio.gather(one.backplane.follow("a"), two.backplane.follow("a"))
        assert (await one.backplane.publish("a", "1", None, 1)).offset == 1
        assert (await two.backplane.publish("a", "2", None, 1)).offset == 1
        await eventually(lambda: one.messages == ["1"] and two.messages == ["2"])


@pytest.mark.parametrize(
    ("url", "options", "said"),
    [
        ("http://127.0.0.1", {}, "allowed is kafka:// or kafkas://"),
        ("kafka://", {}, "host:port of some brokers"),
        ("kafka://host:x", {}, "host:port of some brokers"),
        (f"kafka://ali:{PASSWORD}@host:99999", {}, "host:port of some brokers"),
        (f"kafka://ali:{PASSWORD}@host?x=1", {}, "behind \\? is allowed mechanism=PLAIN or"),
        ("kafka://host?mechanism=GSSAPI", {}, "behind \\? is allowed mechanism=PLAIN or"),
        ("kafka://host/a:b", {}, "prefix is 'a:b', allowed are 1 to 64 of letters, digits and _.-"),
        ("kafka://host", {"prefix": ""}, "prefix is ''"),
        ("kafka://host", {"lease": 0}, "lease is 0"),
        ("kafka://host", {"timeout": 0}, "timeout 0"),
        ("kafka://host", {"partitions": 0}, "partitions is 0"),
        ("kafka://host", {"retention": 0}, "retention 0"),
    ],
)
def test_what_is_no_url_or_option_is_refused(url: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as raised:
        KafkaBackplane(url, **options)
    assert PASSWORD not in str(raised.value)


async def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiokafka", None)
    with pytest.raises(ImportError, match=r"pip install 'rawws\[kafka\]'"):
        KafkaBackplane("kafka://host")
    with pytest.raises(ImportError, match=r"pip install 'rawws\[kafka\]'"):
        await consume(Hub(backplane=None), "kafka://host", {"a": "b"}, group="g")


async def test_what_is_asked_of_one_that_was_never_reached_fails_at_once() -> None:
    told = Told(KafkaBackplane("kafka://127.0.0.1:1"))
    told.backplane.open("one", History(), told)
    asks: list[asyncio.Future[Any]] = [told.backplane.follow("a"), told.backplane.history("a", None)]
    asks += [told.backplane.presence("a"), told.backplane.publish("a", "x", None, 1)]
    for ask in asks:
        with pytest.raises(BackplaneAway):
            await ask
    told.backplane.join("a", "x", "null")
    told.backplane.leave("a", "x")
    await eventually(lambda: told.reasons)
    assert "cannot use Kafka at 127.0.0.1:1" in told.reasons[0]
    await told.backplane.close()


def test_a_url_names_brokers_a_user_and_a_prefix() -> None:
    found = kafka_servers("kafkas://al%40i:p%3Aw@a:1,b/chat?mechanism=scram-sha-512")
    assert found == kafka_client.Servers(
        [("a", 1), ("b", 9092)], True, "al@i", "p:w", "SCRAM-SHA-512", "chat", TlsFiles()
    )
    assert kafka_client.security_of(found, None)["security_protocol"] == "SASL_SSL"
    made = KafkaBackplane("kafka://a/chat", prefix="other")
    assert (made.log, made.places) == ("chat.log", "chat.places")
    assert KafkaBackplane("kafka://a", prefix="other").log == "other.log"


# -- bounds, and what ends


async def lose_connections(told: Told) -> None:
    """End the connections of a backplane, and wait until it is back."""
    backplane: Any = kafka_of(told)
    backs = told.backs
    for connection in [*backplane._client._connections.values()]:
        connection.close()
    await eventually(lambda: told.backs == backs + 1)


async def test_who_closes_is_gone_at_once_and_who_lives_never_ends_the_own_lease(
    kafka: Callable[..., KafkaEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = kafka(lease=1000.0)
    async with opened(engine, "two") as two:
        await one_joins_and_closes(engine, two)
    engine = kafka(lease=0.4)
    async with opened(engine, "one") as one, opened(engine, "two") as two:
        await reached(one, two)
        await two.backplane.follow("a")
        one.backplane.join("a", "x", "null")
        lease = kafka_of(one)._lease
        [mine] = kafka_of(one)._partitions
        begin = mine.places.position
        # Both live through ten looks of each.
        await eventually(lambda: mine.places.position > begin + 20)
        assert [event for _, event, _ in two.entries] == ["join"]
        assert (kafka_of(one)._lease, two.gone) == (lease, [])
        # What is on its way and does not come back.
        monkeypatch.setattr(Partition, "on_beat", lambda *_: None)
        kafka_of(one).timeout = 0.5
        await eventually(lambda: one.reasons)
        assert one.reasons == ["what was published did not come in time"]
        monkeypatch.undo()
        kafka_of(one).timeout = PATIENCE
        await reached(one, times=2)


async def one_joins_and_closes(engine: KafkaEngine, two: Told) -> None:
    async with opened(engine, "one") as one:
        await reached(one, two)
        await two.backplane.follow("a")
        one.backplane.join("a", "x", "null")
        await eventually(lambda: two.entries)
        for number in range(4):
            # Of several batches: its end is said behind them all.
            one.backplane.publish("b", "x" * 250_000, None, number)
    await eventually(lambda: two.gone == ["one"])
    # It did not take its own end for a reason to come back.
    await two.backplane.publish("a", "behind it", None, 1)
    assert await two.backplane.presence("a") == []
    assert "one" not in kafka_of(two)._partitions[0].places.leases


async def test_who_comes_back_goes_on_where_the_last_record_is_there_and_begins_anew_where_it_is_another(
    kafka: Callable[..., KafkaEngine],
) -> None:
    engine = kafka()
    async with opened(engine, "one") as one:
        await reached(one)
        place = await one.backplane.publish("a", "1", None, 1)
        [mine] = kafka_of(one)._partitions
        # The very first is another one: all is read anew, and begins anew.
        mine.places.mark = kafka_places.Mark(0, 0, 0)
        await lose_connections(one)
        lost, place = place, await one.backplane.publish("a", "1", None, 1)
        assert place.epoch != lost.epoch
        places = mine.places
        # The last record that was read is the first that is there.
        await delete_before(engine, places.mark.offset)  # type: ignore[union-attr]
        await lose_connections(one)
        assert mine.places is places
        assert (await one.backplane.history("a", place)).epoch == place.epoch
        # The first that is there is another one than was read.
        first = (await start_of(engine))[0]
        places.mark = kafka_places.Mark(first, 0, 0)
        await lose_connections(one)
        assert mine.places is not places
        assert not (await one.backplane.history("a", place)).recovered


async def start_of(engine: KafkaEngine) -> dict[int, int]:
    async with client_of(engine, log := f"{engine.prefix}.log") as client:
        return await client.offsets(log, kafka_client.EARLIEST)


@pytest.mark.parametrize(("brokers", "copies"), [(1, 1), (2, 2), (3, 3), (5, 3)])
async def test_a_topic_has_three_copies_where_there_are_so_many_brokers(
    monkeypatch: pytest.MonkeyPatch, brokers: int, copies: int
) -> None:
    asked: list[Any] = []

    class Answer:
        topic_errors = ((None, 0),)

    async def send(self: Any, node: int, role: str, request: Any) -> Any:
        asked.append(request)
        return Answer

    monkeypatch.setattr(KafkaClient, "_send", send)
    client: Any = KafkaClient(kafka_servers("kafka://127.0.0.1"), 1.0, None)
    client._brokers = dict.fromkeys(range(brokers), ("127.0.0.1", 1))
    await client.create("a", 1, {})
    assert asked[0].create_topic_requests[0][2] == copies
