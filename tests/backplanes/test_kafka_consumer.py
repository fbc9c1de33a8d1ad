"""Records of any program that go from a Kafka to topics of a hub."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from rawws.backplanes import kafka_consumer
from rawws.backplanes.kafka_client import KafkaClient, kafka_servers
from rawws.backplanes.kafka_consumer import ConsumedRecord, consume
from rawws.topics import Hub
from tests.backplanes.engine_kafka import KafkaEngine, produce
from tests.backplanes.handlers import Reader
from tests.processes import LOOPBACK
from tests.server.peers import Logged, eventually

ON_ONE_LOOP = True
pytestmark = pytest.mark.usefixtures("quiet")

BEHIND = "a record of Kafka is left behind"


class Shop:
    """A program that knows nothing of rawws, with a topic of its own in a Kafka."""

    def __init__(self, engine: KafkaEngine, partitions: int = 1) -> None:
        self.engine = engine
        self.topic = f"{engine.prefix}-orders"
        self.partitions = partitions

    async def say(self, *values: bytes | None, partition: int = 0) -> None:
        client = KafkaClient(kafka_servers(self.engine.url), 20.0, None)
        await client.connect([self.topic])
        if self.topic not in client.leaders:
            await client.create(self.topic, self.partitions, {})
        await produce(client, self.topic, *values, key=b"key", partition=partition)
        await client.close()


@contextlib.asynccontextmanager
async def consuming(hub: Hub, shop: Shop, target: Any, **options: Any) -> AsyncIterator[asyncio.Task[None]]:
    options = {"group": shop.topic, "begin": "earliest", "timeout": 20.0, **options}
    task = asyncio.create_task(consume(hub, shop.engine.url, {shop.topic: target}, **options))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()


@pytest.fixture
def quiet() -> Iterator[None]:
    """Leave out what aiokafka says of a Kafka that is away: it has loggers of its own."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("aiokafka").setLevel(logging.NOTSET)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(KafkaEngine(tmp_path))


async def test_what_a_program_says_reaches_a_topic_and_the_next_server_goes_on_behind_it(shop: Shop) -> None:
    reader = Reader()
    async with Hub(backplane=None) as hub:
        hub.subscribe(reader, "news")
        await shop.say(b"1", "é".encode(), b"\xff", None, b"")
        async with consuming(hub, shop, "news"):
            await eventually(lambda: len(reader.got) == 4)
            assert reader.got == ["1", "é", b"\xff", ""]
            await shop.say(b"2")
            await eventually(lambda: reader.got[4:] == ["2"])
            # It is committed behind that.
            await shop.say(b"3")
            await eventually(lambda: reader.got[5:] == ["3"])
        await shop.say(b"4")
        async with consuming(hub, shop, "news"):
            await eventually(lambda: "4" in reader.got)
    # What was not committed may come twice; nothing is missing.
    assert [*dict.fromkeys(reader.got)] == ["1", "é", b"\xff", "", "2", "3", "4"]


async def test_a_function_chooses_the_topic_and_what_it_cannot_publish_is_named_and_left_behind(
    shop: Shop, logged: Logged
) -> None:
    skipped: list[tuple[int, str]] = []

    def choose(record: ConsumedRecord) -> tuple[str, Any] | None:
        order = json.loads(record.value or b"")
        assert record.key == b"key"
        assert 1_600_000_000 < record.time < 100_000_000_000
        return (order["to"], order) if order["to"] != "nobody" else None

    reader = Reader()
    async with Hub(backplane=None) as hub:
        hub.subscribe(reader, "ann")
        said = [{"to": "ann", "n": 1}, {"to": "nobody"}, {"to": ""}, {"to": "ann", "n": 2}]
        await shop.say(b"junk", *[json.dumps(each).encode() for each in said])
        async with consuming(
            hub, shop, choose, on_skip=lambda record, error: skipped.append((record.offset, type(error).__name__))
        ):
            await eventually(lambda: len(reader.got) == 2)
    assert [json.loads(each) for each in reader.got] == [said[0], said[3]]
    assert skipped == [(0, "JSONDecodeError"), (3, "TopicError")]
    logged.take_all(BEHIND, 2)


async def test_the_position_is_behind_what_was_published_and_what_the_engine_refuses_is_left_behind(
    shop: Shop, logged: Logged
) -> None:
    skipped: list[tuple[int, str]] = []
    async with Hub(backplane=shop.engine.backplane()) as hub:
        await hub.publish("news", "begin")
        replication: Any = hub._replication
        # As where Kafka was told meanwhile to take no more.
        replication.backplane._limit = 100
        await shop.say(b"1", b"x" * 200, b"2")
        async with consuming(
            hub, shop, "news", on_skip=lambda record, error: skipped.append((record.offset, str(error)))
        ):
            await eventually(lambda: skipped)
            admin = AIOKafkaAdminClient(bootstrap_servers=f"{LOOPBACK}:{shop.engine.broker.port}")
            await admin.start()
            try:
                place = TopicPartition(shop.topic, 0)
                found: dict[TopicPartition, Any] = {}
                async with asyncio.timeout(60):
                    while not found:
                        found = await admin.list_consumer_group_offsets(shop.topic)
            finally:
                await admin.close()
        reader = Reader()
        await hub.subscribe(reader, "news", since="earliest")
        assert reader.got == ["begin", "1", "2"]
    assert found[place].offset == 3
    assert skipped == [(1, "the topic 'news' is unavailable at this time, others are not")]
    logged.take_all(BEHIND, 1)
    logged.take_all("the backplane cannot serve all of the topic", 1)


async def test_so_many_are_named_and_the_rest_is_told_to_a_function(
    shop: Shop, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_consumer, "MAX_NAMED", 2)
    skipped: list[ConsumedRecord] = []
    async with Hub(backplane=None, max_size=10) as hub:
        await shop.say(*[b"x" * 11] * 5)
        async with consuming(hub, shop, "news", on_skip=lambda record, _: skipped.append(record)):
            await eventually(lambda: len(skipped) == 5)
    logged.take_all(BEHIND, 2)
    logged.take_all("more records of Kafka that are left behind", 1)


async def test_a_kafka_that_is_away_is_told_once_and_looked_for_again(shop: Shop, logged: Logged) -> None:
    reader = Reader()
    await shop.say(b"1")
    shop.engine.kill()
    async with Hub(backplane=None) as hub:
        hub.subscribe(reader, "news")
        async with consuming(hub, shop, "news", timeout=2.0):
            away = "the Kafka that is consumed from is away"
            await eventually(lambda: any(away in each for each in logged.left()))
            shop.engine.start()
            await eventually(lambda: reader.got == ["1"])
    logged.take_all(away, 1)
    logged.take_all("the Kafka that is consumed from is back", 1)


async def test_a_consumer_that_stands_still_is_replaced(
    shop: Shop, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_consumer, "STALL", 0.5)
    reader = Reader()
    async with Hub(backplane=None) as hub:
        hub.subscribe(reader, "news")
        await shop.say(b"1")
        real = AIOKafkaConsumer.getmany

        async def stand_still(self: AIOKafkaConsumer, *, timeout_ms: int) -> Any:
            if any("do not come" in each for each in logged.left()):
                return await real(self, timeout_ms=timeout_ms)
            await asyncio.sleep(0.05)
            return {}

        monkeypatch.setattr(AIOKafkaConsumer, "getmany", stand_still)
        async with consuming(hub, shop, "news"):
            await eventually(lambda: reader.got == ["1"])
    said = "the Kafka that is consumed from is "
    assert any("records are there and do not come" in each for each in logged.left())
    logged.take_all(said, sum(said in each for each in logged.left()))


async def test_nothing_is_read_while_the_engine_of_the_hub_is_away_and_nothing_is_lost(
    shop: Shop, logged: Logged
) -> None:
    async with Hub(backplane=shop.engine.backplane()) as hub, Hub(backplane=shop.engine.backplane()) as other:
        reader = Reader()
        await other.subscribe(reader, "news")
        await shop.say(b"1")
        async with consuming(hub, shop, "news", timeout=2.0):
            await eventually(lambda: reader.got == ["1"])
            shop.engine.kill()
            await eventually(lambda: hub.stats().degraded and other.stats().degraded)
            shop.engine.start()
            await shop.say(b"2", b"3")
            # A group whose member is gone without a word waits for it, for its session of 10 s, maybe twice and more.
            await eventually(lambda: reader.got[-1:] == ["3"], 240.0)
    assert [*dict.fromkeys(reader.got)] == ["1", "2", "3"]
    logged.take_all("the backplane is away", 2)
    logged.take_all("the backplane is back", 2)
    # Where aiokafka is back by itself, it says so to nobody.
    said = "the Kafka that is consumed from is "
    logged.take_all(said, sum(said in each for each in logged.left()))


@pytest.mark.parametrize(
    ("url", "topics", "options", "said"),
    [
        ("http://127.0.0.1", {"a": "b"}, {}, "allowed is kafka://"),
        ("kafka://127.0.0.1", {}, {}, "no topic or no group"),
        ("kafka://127.0.0.1", {"a": "b"}, {"group": ""}, "no topic or no group"),
        ("kafka://127.0.0.1", {"a": "b"}, {"begin": "now"}, "begin is 'now'"),
        ("kafka://127.0.0.1", {"a": "b"}, {"batch": 0}, "batch 0"),
        ("kafka://127.0.0.1", {"a": "b"}, {"timeout": 0}, "timeout 0"),
    ],
)
async def test_what_is_no_option_is_refused(
    url: str, topics: dict[str, Any], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        await consume(Hub(backplane=None), url, topics, **{"group": "g", **options})
