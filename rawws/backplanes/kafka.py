"""The Kafka backplane: publications to a Kafka 2.5 or later and back, by the package `aiokafka` (extra `kafka`).

Publications, who is present and the leases of servers are records of one Kafka topic, `PREFIX.log`. Every server reads
all of its partitions and counts the publications of each topic (`kafka_places`): so all give each the same place. There
is no consumer group, hence no rebalance, and no transaction. `PREFIX.places`, a compacted topic, has what was counted
up to some offset: a server that starts reads that, and the log from there on.

Laws:
1. The partition of a topic is chosen by its name. A partition has one order; between two there is none.
2. One batch of a partition is under way at a time, and is tried once: all that is in doubt ends all connections, and
   what has no place is published again, under its number.
3. A question is answered when all is read that was there when it came.
4. Who comes back reads once more the last record that it read: if that is another one or none, Kafka lost what it
   acknowledged, and a new life begins, with new epochs.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
import zlib
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

from rawws.net.cancellation import cancel_all
from rawws.topics.backplane import BackplaneAway, HistoryResult, Position, PresenceEntry

from . import kafka_places
from .kafka_checkpoints import Checkpoints
from .kafka_client import EARLIEST, LATEST, KafkaClient, KafkaError, kafka_servers
from .kafka_partition import Partition
from .kafka_places import UNKNOWN, Mark
from .session import EngineSession, check_times

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from rawws.topics.backplane import BackplaneHandler, History

__all__ = ["KafkaBackplane"]

logger = logging.getLogger("rawws.backplanes")

Answer = TypeVar("Answer")

# What a record takes in Kafka beside its key and its value: the head of a batch, and its own.
RECORD_HEAD: Final = 128
# How often a new topic is asked for until its broker has it.
READY_WAIT: Final = 0.02


@final
class KafkaBackplane:
    """A hub's connection to a Kafka: `rawws.Hub(backplane=KafkaBackplane("kafka://127.0.0.1:9092"))`.

    `prefix` is what the names of both topics in Kafka begin with; it may stand in the URL, behind the brokers. Both are
    created where they are missing, the log with so many `partitions`, and it is kept for `retention` seconds. With one
    partition, what a server publishes keeps its order over all topics; with more, in each topic. `lease` says after how
    many seconds those present at a server that fell silent are so no more. An answer of Kafka may take `timeout`
    seconds. `tls` is for a URL of `kafkas://`.

    Raises ImportError where the package `aiokafka` is missing, ValueError for a URL that is none.
    """

    patterns = False

    def __init__(
        self,
        url: str = "kafka://127.0.0.1:9092",
        *,
        prefix: str = "rawws",
        lease: float = 15.0,
        timeout: float = 5.0,
        partitions: int = 1,
        retention: float = 24 * 3600.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        try:
            import aiokafka  # noqa: F401, PLC0415
        except ImportError:
            raise ImportError("the Kafka backplane needs aiokafka: pip install 'rawws[kafka]'") from None
        self._servers = kafka_servers(url, tls)
        prefix = self._servers.prefix or prefix
        if not re.fullmatch(r"[\w.-]{1,64}", prefix, re.ASCII):
            raise ValueError(f"prefix is {prefix[:64]!r}, allowed are 1 to 64 of letters, digits and _.-")
        check_times(lease, timeout)
        if partitions < 1 or retention < 1:
            raise ValueError(f"partitions is {partitions} and retention {retention}, allowed are numbers from 1 on")
        self._tls = tls
        self.lease = lease
        self.timeout = timeout
        self.partitions = partitions
        self.retention = retention
        self.log = f"{prefix}.log"
        self.places = f"{prefix}.places"
        self._session = EngineSession(self, "Kafka", (KafkaError, BackplaneAway, OSError, EOFError))
        self._client: KafkaClient | None = None
        self._partitions: list[Partition] = []
        self._followed: set[str] = set()
        self._lease = 0
        self._is_closing = False
        # When each other server was heard last, and its lease.
        self._heard: dict[str, tuple[int, float]] = {}
        # Octets that a record may have.
        self._limit = 0
        self._warned = False
        self._asking = asyncio.Event()
        self._tasks: list[asyncio.Task[Any]] = []

    # -- the contract

    def open(self, server: str, history: History, handler: BackplaneHandler) -> None:
        """Reach the engine in the running loop, then call on_back or on_away of the handler."""
        self._is_closing = False
        self._session.open(server, history, handler)

    async def close(self) -> None:
        """End the lease of this server, and close the connection."""
        session = self._session
        try:
            if session.reached:
                # What is read meanwhile of its own end is no reason to begin another lease.
                self._is_closing = True
                sent = [each.send(None, kafka_places.gone(session.server, self._lease)) for each in self._partitions]
                await asyncio.wait(sent, timeout=self.timeout)
        finally:
            await session.close()

    def publish(
        self, topic: str, message: str | bytes, key: str | None, number: int, extra: str = ""
    ) -> asyncio.Future[Position]:
        """Store a message and send it to all followers of the topic. The future gets its position."""
        answer: asyncio.Future[Position] = self._session.new_answer()
        if not answer.done():
            value = kafka_places.publication(self._session.server, number, message, key, extra)
            self._partition(topic).publish(topic, number, value, self._limit, answer)
        return answer

    def follow(self, topic: str) -> asyncio.Future[None]:
        """Pass records of this topic to the handler, from when the future is done."""
        answer: asyncio.Future[None] = self._session.new_answer()
        if not answer.done():
            # All is read, whoever follows it.
            self._followed.add(topic)
            answer.set_result(None)
        return answer

    def unfollow(self, topic: str) -> None:
        """Pass no more records of this topic to the handler."""
        self._followed.discard(topic)

    def history(self, topic: str, since: Position | None) -> asyncio.Future[HistoryResult]:
        """Return the records after a position, or all that are stored if it is None."""
        return self._ask(topic, lambda partition: partition.places.result(topic, since, partition.now))

    def join(self, topic: str, ident: str, info: str) -> None:
        """Enter somebody into the presence of a topic, and tell its followers."""
        self._session.join(topic, ident, info)

    def leave(self, topic: str, ident: str) -> None:
        """Remove somebody from the presence of a topic, and tell its followers."""
        # Where Kafka is away, the next lease is without them.
        self._session.leave(topic, ident)

    def presence(self, topic: str) -> asyncio.Future[list[PresenceEntry]]:
        """Return who is present in a topic, at servers whose lease has not ended."""
        return self._ask(topic, lambda partition: partition.places.present(topic))

    def stats(self) -> dict[str, int]:
        """Return the number of retries to reach the engine, and of topics that have a place."""
        return {"retries": self._session.retries, "topics": sum(len(each.places.topics) for each in self._partitions)}

    # -- asking

    def _partition(self, topic: str) -> Partition:
        return self._partitions[zlib.crc32(topic.encode()) % len(self._partitions)]

    def _ask(self, topic: str, act: Callable[[Partition], Answer]) -> asyncio.Future[Answer]:
        answer: asyncio.Future[Answer] = self._session.new_answer()
        if not answer.done():
            self._partition(topic).ask(topic, answer, act, self._asking)
        return answer

    async def _answer(self) -> None:
        """Find out up to where a partition must be read before what is asked can be answered."""
        assert self._client is not None  # noqa: S101 - for mypy
        while True:
            await self._asking.wait()
            self._asking.clear()
            asked = [(each, each.take_asked()) for each in self._partitions]
            ends = await self._client.offsets(self.log, LATEST, [each.number for each, _ in asked])
            for each, questions in asked:
                each.answer_at(ends[each.number], questions)

    # -- what the session calls

    async def reach(self) -> None:
        """Connect, and read all partitions to their ends."""
        session = self._session
        client = self._client = KafkaClient(self._servers, self.timeout, self._tls)
        async with asyncio.timeout(self.timeout):
            await self._find_topics(client)
        await self._catch_up(client)
        self._renew_lease()
        by_leader: dict[int, list[Partition]] = {}
        for each in self._partitions:
            by_leader.setdefault(client.leaders[self.log][each.number], []).append(each)
        work = [self._read(client, each) for each in by_leader.values()]
        work += [each.write(client, self.log) for each in self._partitions]
        self._tasks = [session.loop.create_task(each) for each in (*work, self._answer())]
        await self._first(session.loop.create_task(self._beat()))

    async def work(self) -> None:
        """Serve until something is wrong."""
        self._say(kafka_places.settled)
        await self._first(self._session.loop.create_task(self._keep()))

    async def _first(self, task: asyncio.Task[None]) -> None:
        """Wait for a task, or for one of the others to fail."""
        self._tasks.append(task)
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        # Those that failed stay among the tasks: their errors are taken where the connection is lost.
        for each in done:
            each.result()
        self._tasks.remove(task)

    async def lose(self, reason: str) -> None:
        """End the connections, and fail all that waits."""
        # With their errors: the first of them was the reason.
        await cancel_all(*self._tasks)
        self._tasks = []
        for each in self._partitions:
            each.fail(reason)
        self._followed.clear()
        self._heard.clear()
        self._asking.clear()
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def enter(self, topic: str, ident: str, info: str) -> None:
        """Tell Kafka that somebody is present."""
        self._partition(topic).send(topic, kafka_places.join(self._session.server, self._lease, ident, info))

    def part(self, topic: str, ident: str) -> None:
        """Tell Kafka that somebody is no longer present."""
        self._partition(topic).send(topic, kafka_places.leave(self._session.server, self._lease, ident))

    # -- reaching

    async def _find_topics(self, client: KafkaClient) -> None:
        """Create what is missing, and read how the log is kept."""
        names = (self.log, self.places)
        await client.connect(names)
        missing = [name for name in names if name not in client.leaders]
        if missing:
            # One copy is written to the disk before it is acknowledged; of several, two brokers have it.
            kept = {"min.insync.replicas": "2"} if client.brokers > 2 else {"flush.messages": "1"}
            milliseconds = int(self.retention * 1000)
            log = {
                "cleanup.policy": "delete",
                "message.timestamp.type": "LogAppendTime",
                "retention.ms": str(milliseconds),
                "segment.ms": str(max(60_000, milliseconds // 8)),
            }
            places = {"cleanup.policy": "compact", "segment.ms": "3600000", "delete.retention.ms": "3600000"}
            if self.log in missing:
                await client.create(self.log, self.partitions, log | kept)
            if self.places in missing:
                await client.create(self.places, 1, places | kept)
        while not await self._are_ready(client, names):
            await asyncio.sleep(READY_WAIT)
            await client.connect(names)
        self._check(await client.settings(self.log))

    async def _are_ready(self, client: KafkaClient, names: tuple[str, str]) -> bool:
        if any(-1 in client.leaders.get(name, [-1]) for name in names):
            return False
        try:
            for name in names:
                await client.offsets(name, LATEST)
        except KafkaError:
            # A broker that has just begun to lead does not know it yet.
            return False
        return True

    def _check(self, settings: dict[str, str]) -> None:
        """See that what is counted stays what it is."""
        self._limit = int(settings.get("max.message.bytes", 1_048_588)) - RECORD_HEAD
        if "compact" in settings.get("cleanup.policy", ""):
            raise BackplaneAway(
                f"the topic {self.log!r} has cleanup.policy=compact, which removes records: set it to delete"
            )
        is_kept = settings.get("flush.messages") == "1" or int(settings.get("min.insync.replicas", 1)) > 1
        if settings and not is_kept and not self._warned:
            self._warned = True
            logger.warning(
                "the topic %r may lose what Kafka acknowledged: set min.insync.replicas=2 with three copies, or "
                "flush.messages=1",
                self.log,
            )

    async def _catch_up(self, client: KafkaClient) -> None:
        """Be where the log is: go on from where it was read to, or from what was written down."""
        count = len(client.leaders[self.log])
        if len(self._partitions) != count:
            self._partitions = [Partition(number, count, self._session, self) for number in range(count)]
        starts = await client.offsets(self.log, EARLIEST)
        ends = await client.offsets(self.log, LATEST)
        checkpoints = Checkpoints(client, self.log, self.places)
        for each in self._partitions:
            start, end = starts[each.number], ends[each.number]
            mark, life = each.places.mark, each.places.life
            is_lost = False
            if mark is None or not await self._is_there(client, each.number, mark, start, end):
                is_lost = mark is not None and mark.offset >= start
                await checkpoints.restore(each, start, end)
            await self._read_to(client, each, end)
            if each.places.life in {"", UNKNOWN} or (is_lost and each.places.life == life):
                await self._begin_anew(client, each)

    async def _is_there(self, client: KafkaClient, number: int, mark: Mark, start: int, end: int) -> bool:
        """Tell whether a partition has the record still that was read as its last."""
        if not start <= mark.offset < end:
            return False
        found = (await client.fetch(self.log, {number: mark.offset}))[number].records
        return bool(found) and Mark.of(*found[0]) == mark

    async def _read_to(self, client: KafkaClient, partition: Partition, end: int) -> None:
        while partition.places.position < end:
            found = await client.fetch(self.log, {partition.number: partition.places.position})
            partition.read(found[partition.number].records)
            await asyncio.sleep(0)

    async def _begin_anew(self, client: KafkaClient, partition: Partition) -> None:
        """Begin a life of a partition, or read that somebody else did."""
        places = partition.places
        old = places.life
        value = kafka_places.anew(old, secrets.token_hex(6))
        await client.produce(self.log, partition.number, [(None, value)])
        while places.life == old:
            await self._read_to(client, partition, places.position + 1)

    def _renew_lease(self) -> None:
        """Begin another lease: what is on its way of the one before is heard no more."""
        self._lease = max(self._lease + 1, int(time.time() * 1000))
        self._say(kafka_places.hello)

    def _say(self, record: Callable[[str, int], bytes]) -> None:
        """Say something of the own lease, in all partitions."""
        for each in self._partitions:
            each.send(None, record(self._session.server, self._lease))

    # -- what is read

    async def _read(self, client: KafkaClient, partitions: list[Partition]) -> None:
        """Read the partitions of one broker."""
        while True:
            found = await client.fetch(self.log, {each.number: each.places.position for each in partitions})
            for each in partitions:
                if each.number in found:
                    each.read(found[each.number].records)
            # What came is handled before more is.
            await asyncio.sleep(0)

    def is_followed(self, topic: str) -> bool:
        """Tell whether the hub hears of a topic."""
        return topic in self._followed

    def on_beat(self, server: str, lease: int) -> None:
        """Hear that another server lives."""
        self._heard[server] = (lease, self._session.loop.time())

    def on_gone(self, server: str, lease: int) -> bool:
        """Hear that a lease is over; tell whether that server is gone."""
        if server == self._session.server:
            if lease == self._lease and self._session.reached and not self._is_closing:
                # Somebody took this server for dead, and had all leave that were present here.
                self._renew_lease()
                self._session.enter_all()
                self._say(kafka_places.settled)
            return False
        if any(server in each.places.leases for each in self._partitions):
            return False
        self._heard.pop(server, None)
        return True

    # -- what is done with time

    async def _beat(self) -> None:
        """Have a record go all the way, through each partition."""
        beats = [each.beat(kafka_places.hello(self._session.server, self._lease)) for each in self._partitions]
        _, late = await asyncio.wait(beats, timeout=self.timeout)
        if late:
            raise TimeoutError("what was published did not come in time")

    async def _keep(self) -> None:
        """Keep the lease, end those of servers that fell silent, and have what is counted be written down."""
        assert self._client is not None  # noqa: S101 - for mypy
        session = self._session
        began = session.loop.time()
        checkpoints = Checkpoints(self._client, self.log, self.places)
        while True:
            await asyncio.sleep(self.lease / 4)
            if self._is_closing:
                # It would live on by that.
                continue
            await self._beat()
            now = session.loop.time()
            for each in self._partitions:
                each.places.sweep(each.now)
                for server, lease in each.places.leases.items():
                    known, heard = self._heard.get(server, (lease, began))
                    # It runs out after half of it, and the others look each quarter.
                    if server != session.server and now - heard > self.lease / 2 and known <= lease:
                        each.send(None, kafka_places.gone(server, lease))
                await checkpoints.write(each)
