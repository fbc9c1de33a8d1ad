"""Partition: what a server says to one partition of the log, asks of it, and hears."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar, final

from rawws.topics.backplane import BackplaneAway, TopicUnavailable, new_answer

from .kafka_client import RefusedError
from .kafka_places import OtherVersionError, Places
from .session import fail_answers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rawws.topics.backplane import Position, PresenceEntry, Record

    from .kafka_client import KafkaClient
    from .session import EngineSession

__all__ = ["Owner", "Partition"]

Answer = TypeVar("Answer")

# So many octets go in one batch, but for one record that is larger: a batch may have no more than Kafka takes.
BATCH: Final = 256 << 10


class Owner(Protocol):
    """The backplane that a partition is of."""

    def is_followed(self, topic: str) -> bool:
        """Tell whether the hub hears of a topic."""

    def on_beat(self, server: str, lease: int) -> None:
        """Hear that another server lives."""

    def on_gone(self, server: str, lease: int) -> bool:
        """Hear that a lease is over; tell whether that server is gone."""


class Item(NamedTuple):
    """A record on its way to Kafka: in which topic, and who waits until it is there, or has a place."""

    topic: str | None
    value: bytes
    answer: asyncio.Future[Any]


class Question(NamedTuple):
    """What is asked of a topic, and who waits for the answer."""

    topic: str
    answer: asyncio.Future[Any]
    act: Callable[[Partition], Any]


@final
class Partition:
    """One partition; it hears of its records as the reader of its places."""

    def __init__(self, number: int, count: int, session: EngineSession, owner: Owner) -> None:
        self.number = number
        self._session = session
        self._owner = owner
        # Of all topics together, each partition has its part.
        self._total = session.history.total // count
        self.places = Places(session.history, self._total, self)
        self._pending: deque[Item] = deque()
        self._wake = asyncio.Event()
        # Own publications that have no place yet, by topic and number: those who wait.
        self._waiting: dict[tuple[str, int], deque[asyncio.Future[Position]]] = {}
        # What was sent last, and what is asked behind it; what is to be asked of Kafka.
        self._last: asyncio.Future[Any] | None = None
        self._behind: dict[Question, None] = {}
        self._asked: list[Question] = []
        # What is answered when all before an offset is read.
        self._due: deque[tuple[int, Question]] = deque()
        # What the records said that are read: the hub hears of it when all is in its place.
        self._told: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self._beat: asyncio.Future[None] | None = None
        # The time of Kafka's clock, in milliseconds, is that of the loop and so many.
        self._clock = 0.0

    def begin_anew(self) -> None:
        """Forget what was read."""
        self.places = Places(self._session.history, self._total, self)

    @property
    def now(self) -> int:
        """The time of Kafka's clock in milliseconds, or a little before."""
        return max(self.places.clock, int(self._session.loop.time() * 1000 + self._clock))

    # -- to Kafka

    def send(self, topic: str | None, value: bytes) -> asyncio.Future[Any]:
        """Append a record, behind what was sent before. The future is done when Kafka has it."""
        item = Item(topic, value, new_answer(self._session.loop))
        self._last = item.answer
        self._pending.append(item)
        self._wake.set()
        return item.answer

    def publish(self, topic: str, number: int, value: bytes, limit: int, answer: asyncio.Future[Position]) -> None:
        """Append a publication; the future has its place."""
        size = len(topic.encode()) + len(value)
        if size > limit:
            answer.set_exception(TopicUnavailable(topic, too_large(size, limit)))
            return
        self._waiting.setdefault((topic, number), deque()).append(answer)
        sent = self.send(topic, value)

        def refuse(done: asyncio.Future[Any]) -> None:
            if not done.cancelled() and isinstance(done.exception(), TopicUnavailable):
                self._place(topic, number, done.exception())

        sent.add_done_callback(refuse)

    def beat(self, value: bytes) -> asyncio.Future[None]:
        """Append a record that says that this server lives. The future is done when it has come back."""
        self._beat = new_answer(self._session.loop)
        self.send(None, value)
        return self._beat

    async def write(self, client: KafkaClient, log: str) -> None:
        """Append what is sent, one batch after the other."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._pending:
                items: list[Item] = []
                size = 0
                while self._pending and (not items or size + len(self._pending[0].value) <= BATCH):
                    items.append(self._pending.popleft())
                    size += len(items[-1].value) + len(items[-1].topic or "")
                try:
                    await self._append(client, log, items)
                except BaseException as error:
                    fail_answers([each.answer for each in items], str(error))
                    raise

    async def _append(self, client: KafkaClient, log: str, items: Sequence[Item]) -> None:
        records = [(None if each.topic is None else each.topic.encode(), each.value) for each in items]
        try:
            await client.produce(log, self.number, records)
        except RefusedError as error:
            if len(items) == 1:
                self._refuse(items[0], str(error))
                return
            for each in items:
                await self._append(client, log, [each])
            return
        for each in items:
            if not each.answer.done():
                each.answer.set_result(None)

    def _refuse(self, item: Item, reason: str) -> None:
        """Have one record be refused, and others go on."""
        topic = item.topic or ""
        if not item.answer.done():
            item.answer.set_exception(TopicUnavailable(topic, reason))
        if not item.value.startswith(b"="):
            self._session.handler.on_doubt(topic, f"Kafka does not hold who is present: {reason}")

    # -- questions

    def ask(
        self, topic: str, answer: asyncio.Future[Answer], act: Callable[[Partition], Answer], wake: asyncio.Event
    ) -> None:
        """Ask when Kafka has all that was sent before; `wake` is then set."""
        question = Question(topic, answer, act)

        def go(_: object) -> None:
            self._behind.pop(question, None)
            self._asked.append(question)
            wake.set()

        if self._last is None or self._last.done():
            go(None)
        else:
            self._behind[question] = None
            self._last.add_done_callback(go)

    def take_asked(self) -> list[Question]:
        """Return what was asked since this was called last."""
        asked, self._asked = self._asked, []
        # Where Kafka goes away now, they fail.
        self._due.extend([(-1, each) for each in asked])
        return asked

    def answer_at(self, end: int, questions: Sequence[Question]) -> None:
        """Answer questions when all before an offset is read."""
        for _ in questions:
            self._due.pop()
        self._due.extend([(end, each) for each in questions])
        self._answer_due()

    def _answer_due(self) -> None:
        while self._due and 0 <= self._due[0][0] <= self.places.position:
            _, (topic, answer, act) = self._due.popleft()
            if answer.done():
                continue
            fault = self.places.faults.get(topic)
            if fault is None:
                answer.set_result(act(self))
            else:
                answer.set_exception(TopicUnavailable(topic, fault[1]))

    # -- from Kafka

    def read(self, records: Sequence[tuple[int, int, bytes | None, bytes | None]]) -> None:
        """Take the next records, and tell the hub what they say."""
        for record in records:
            try:
                self.places.read(*record)
            except OtherVersionError as error:
                raise BackplaneAway(f"the partition {self.number} cannot be read: {error}") from None
            told, self._told = self._told, []
            if self._session.reached:
                for tell, words in told:
                    tell(*words)
        self._answer_due()

    def on_place(self, record: Record, position: Position, *, is_new: bool) -> None:
        """Hear which place a publication has."""
        if is_new and self._owner.is_followed(record.topic):
            self._told.append((self._session.handler.on_record, (record,)))
        if record.server == self._session.server:
            self._told.append((self._place, (record.topic, record.number, position)))

    def _place(self, topic: str, number: int, outcome: Position | BaseException | None) -> None:
        """Tell who published which place that has, or why it has none."""
        waiting = self._waiting.get((topic, number))
        if not waiting:
            return
        answer = waiting.popleft()
        if not waiting:
            del self._waiting[topic, number]
        if answer.done():
            return
        if isinstance(outcome, BaseException):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)  # type: ignore[arg-type]

    def on_presence(self, topic: str, event: str, entry: PresenceEntry) -> None:
        """Hear that somebody did "join" or "leave"."""
        if self._owner.is_followed(topic):
            self._told.append((self._session.handler.on_presence, (topic, event, entry)))

    def on_beat(self, server: str, lease: int, timestamp: int) -> None:
        """Hear that a server lives."""
        if server != self._session.server:
            self._owner.on_beat(server, lease)
            return
        self._clock = timestamp - self._session.loop.time() * 1000
        if self._beat is not None and not self._beat.done():
            self._beat.set_result(None)

    def on_gone(self, server: str, lease: int) -> None:
        """Hear that a server's lease is over."""
        if self._owner.on_gone(server, lease):
            self._told.append((self._session.handler.on_server_gone, (server,)))

    def on_life(self, life: str) -> None:
        """Hear that all epochs are over: the hub asks for all anew."""
        self._told.append((self._end, (life,)))

    def _end(self, life: str) -> None:
        raise BackplaneAway(f"Kafka lost records of the partition {self.number}: the epoch {life} begins")

    def on_fault(self, topic: str, reason: str) -> None:
        """Hear that a record cannot be read."""
        if self._owner.is_followed(topic):
            self._told.append((self._session.handler.on_doubt, (topic, reason)))

    def fail(self, reason: str) -> None:
        """Fail all that is asked, and forget what is not sent: it is published again."""
        waiting, self._waiting = self._waiting, {}
        asked = [*self._behind, *self._asked, *[question for _, question in self._due]]
        fail_answers([each for answers in waiting.values() for each in answers], reason)
        fail_answers([each.answer for each in asked], reason)
        fail_answers([each.answer for each in self._pending], reason)
        self._last = None
        self._behind.clear()
        self._asked.clear()
        self._due.clear()
        self._pending.clear()
        self._told.clear()
        self._wake.clear()


def too_large(size: int, limit: int) -> str:
    """Return what is wrong with a record."""
    return f"the message has {size} bytes in Kafka, whose topic takes {limit} (max.message.bytes)"
