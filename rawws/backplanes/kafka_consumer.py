"""Kafka consumer: the records of any program to topics of a hub, each once or more, with positions that Kafka keeps.

Laws:
1. A position is committed when the hub's engine has all before it. Who is killed in between publishes that again.
2. While the engine is away, nothing more is read: what is not published waits in Kafka.
3. A record that cannot be published is named, counted and left behind; the next one comes.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, final

from rawws.net.cancellation import finish, is_cancelled

from .kafka_client import kafka_servers, security_of
from .session import engine_waits

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping, Sequence

    from rawws.topics import Hub
    from rawws.topics.subscribers import PublishResult

__all__ = ["ConsumedRecord", "consume"]

logger = logging.getLogger("rawws.backplanes")

# For so many milliseconds an answer is waited for; after so many seconds without a record, Kafka is asked whether
# there are some: a consumer of aiokafka may stand still after its broker was started again, and says nothing.
POLL: Final = 500
STALL: Final = 5.0
# How often it is looked whether the hub's engine is back.
LOOK: Final = 0.05
# So many records that cannot be published are named in the log.
MAX_NAMED: Final = 100


class ConsumedRecord(NamedTuple):
    """A record of Kafka: `time` in seconds since 1970, `headers` as (name, value)."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    time: float
    headers: Sequence[tuple[str, bytes]]


Target: TypeAlias = "str | Callable[[ConsumedRecord], tuple[str, Any] | None]"


async def consume(
    hub: Hub,
    url: str,
    topics: Mapping[str, Target],
    *,
    group: str,
    begin: str = "latest",
    batch: int = 500,
    timeout: float = 5.0,  # noqa: ASYNC109 - of each answer, not of all
    on_skip: Callable[[ConsumedRecord, Exception], None] | None = None,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Publish what is in topics of a Kafka to topics of a hub, until it is cancelled.

    `topics` says for each topic of Kafka to which topic of the hub it goes, as it is: text where it is UTF-8. Or it has
    a function of a ConsumedRecord, which returns (topic, message), or None for nothing. Servers of one `group` share
    the partitions; Kafka keeps their positions. A group without one begins at the "latest" record or the "earliest".
    Records are published in the order of their partition, `batch` at most at a time, and at least once: where a server
    is killed, the last ones come again. `on_skip` is called with what cannot be published, and why.

    Raises ImportError where the package `aiokafka` is missing, ValueError for a URL or an option that is none.
    """
    try:
        import aiokafka  # noqa: F401, PLC0415
    except ImportError:
        raise ImportError("consuming from Kafka needs aiokafka: pip install 'rawws[kafka]'") from None
    servers = kafka_servers(url, tls)
    if not topics or not group:
        raise ValueError("no topic or no group is named, needed are both")
    if begin not in {"latest", "earliest"} or batch < 1 or timeout <= 0:
        given = f"begin is {begin!r}, batch {batch} and timeout {timeout}"
        raise ValueError(f"{given}, allowed are 'latest' and 'earliest', and numbers above 0")
    options = {
        "bootstrap_servers": [f"{host}:{port}" for host, port in servers.hosts],
        "group_id": group,
        "auto_offset_reset": begin,
        "max_poll_records": batch,
        "request_timeout_ms": int(timeout * 1000),
        **security_of(servers, tls),
    }
    await Consumer(hub, topics, options, timeout, on_skip).run()


@final
class Consumer:
    """One call of `consume`."""

    def __init__(
        self,
        hub: Hub,
        topics: Mapping[str, Target],
        options: dict[str, Any],
        timeout: float,
        on_skip: Callable[[ConsumedRecord, Exception], None] | None,
    ) -> None:
        self._hub = hub
        self._topics = topics
        self._options = options
        self._timeout = timeout
        self._on_skip = on_skip
        self._skipped = 0

    async def run(self) -> None:
        """Consume, and begin again where Kafka is away."""
        from aiokafka import AIOKafkaConsumer  # noqa: PLC0415
        from aiokafka.errors import KafkaError  # noqa: PLC0415

        waits = engine_waits()
        is_away = False
        while True:
            consumer = AIOKafkaConsumer(*self._topics, enable_auto_commit=False, **self._options)
            try:
                await consumer.start()
                if is_away:
                    logger.warning("the Kafka that is consumed from is back")
                is_away, waits = False, engine_waits()
                await self._pump(consumer)
            except (KafkaError, OSError) as error:
                if not is_away:
                    logger.warning("the Kafka that is consumed from is away: %s", error or "no answer in time")
                is_away = True
            finally:
                await finish(consumer.stop())
            await asyncio.sleep(next(waits))

    async def _pump(self, consumer: Any) -> None:
        loop = asyncio.get_running_loop()
        last = loop.time()
        while True:
            found = await consumer.getmany(timeout_ms=POLL)
            if found:
                for partition, records in found.items():
                    await self._publish([record_of(each) for each in records])
                    await consumer.commit({partition: records[-1].offset + 1})
                    if is_cancelled():
                        # aiokafka swallowed it.
                        raise asyncio.CancelledError
                last = loop.time()
            elif loop.time() - last > STALL:
                await self._see_that_nothing_is_there(consumer)
                last = loop.time()

    async def _see_that_nothing_is_there(self, consumer: Any) -> None:
        """Raise OSError where Kafka does not answer, or has records that do not come."""
        mine = list(consumer.assignment())
        async with asyncio.timeout(self._timeout):
            before = {each: await consumer.position(each) for each in mine}
            ends = await consumer.end_offsets(mine)
        if any(ends[each] > before[each] for each in mine) and not await consumer.getmany(timeout_ms=POLL):
            raise OSError("records are there and do not come")

    async def _publish(self, records: Sequence[ConsumedRecord]) -> None:
        """Publish records, and return when the hub's engine has them all."""
        await when(lambda: not self._hub.stats().degraded)
        waiting = []
        for record in records:
            try:
                outcome = self._publish_one(record)
            except Exception as error:  # noqa: BLE001 - whatever it is, other records come
                self._skip(record, error)
            else:
                if outcome is not None:
                    waiting.append((record, outcome))
        for _, outcome in waiting:
            await outcome
        # What is published here while the engine is away goes there when it is back.
        await when(lambda: all(outcome.accepted or outcome.refused for _, outcome in waiting))
        for record, outcome in waiting:
            if outcome.refused:
                self._skip(record, ValueError(outcome.refused))

    def _publish_one(self, record: ConsumedRecord) -> PublishResult | None:
        target = self._topics[record.topic]
        if callable(target):
            made = target(record)
            return None if made is None else self._hub.publish(*made)
        if record.value is None:
            # A record that deletes what has this key says nothing that a message could.
            return None
        try:
            return self._hub.publish(target, record.value.decode())
        except UnicodeDecodeError:
            return self._hub.publish(target, record.value)

    def _skip(self, record: ConsumedRecord, error: Exception) -> None:
        self._skipped += 1
        where = f"{record.topic!r}, partition {record.partition}, offset {record.offset}"
        if self._skipped <= MAX_NAMED:
            logger.warning("a record of Kafka is left behind: %s: %s", where, error)
        if self._skipped == MAX_NAMED:
            logger.warning("more records of Kafka that are left behind are not named here")
        if self._on_skip is not None:
            self._on_skip(record, error)


async def when(condition: Callable[[], object]) -> None:
    """Return when something is true that nobody tells of."""
    while not condition():  # noqa: ASYNC110 - a hub has no such event
        await asyncio.sleep(LOOK)


def record_of(found: Any) -> ConsumedRecord:
    """Return a record of aiokafka's."""
    return ConsumedRecord(
        found.topic, found.partition, found.offset, found.key, found.value, found.timestamp / 1000, found.headers
    )
