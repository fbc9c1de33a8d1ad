"""The NATS writer: publications to the logs of topics, each with its place, in the order of the calls.

Laws:
1. Of each topic one write is under way; what comes meanwhile is the next one, in one atomic batch where the server
   has those (NATS 2.12), else one after the other.
2. A write says which message is the last of the topic, and the server refuses it where that is another one: so an
   offset is given once, whoever else writes, and whatever was not answered.
3. What was not answered is looked for by its origin before it is written again.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, NamedTuple, final

from rawws.topics.backplane import BackplaneAway, Position, TopicUnavailable

from .nats_line import NatsRefusal
from .nats_records import HEADER, MARK, OUTSIDE, Stored, Tail, headers_of, quoted, stored_of
from .nats_streams import NO_RESPONDERS, WRONG_SEQUENCE
from .remedies import with_remedy
from .session import fail_answers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .nats_line import NatsLine
    from .nats_starts import NatsStarts
    from .nats_streams import NatsStreams
    from .session import EngineSession

__all__ = ["NatsWriter", "Write"]

# What the other headers of a message take, at most.
HEADERS_COST = 256
# So many topics are remembered with where they are: who publishes to others asks first.
MAX_TAILS = 10_000
# The server's own bound of a batch, and one of bytes that leaves it time for others.
MAX_BATCH = 1000
MAX_BATCH_SIZE = 4 << 20
# After so many seconds, a server of a cluster that is behind is asked again.
BEHIND_WAIT = 0.02
# What a message takes of the stream beside its bytes.
MESSAGE_COST = 64
# Batches are off, this one was given up or is too large, or too many are under way: its messages go one by one.
BATCHES_OFF = 10174
NO_BATCH = (BATCHES_OFF, 10175, 10176, 10177, 10179, 10199, 10200, 10201, 10210)


class Write(NamedTuple):
    """A publication that waits for its place."""

    answer: asyncio.Future[Position]
    kind: str
    server: str
    number: int
    key: str | None
    extra: str
    data: bytes


class Conflict(Exception):
    """Somebody else wrote to the topic."""


@final
class NatsWriter:
    """What this server writes to topics, at the server of a line; `line` is None while that is away."""

    def __init__(
        self, streams: NatsStreams, session: EngineSession, starts: NatsStarts, before: Callable[[], Awaitable[None]]
    ) -> None:
        self._streams = streams
        self._session = session
        self._starts = starts
        self.line: NatsLine | None = None
        self._life = ""
        self._batches = False
        self._shares = False
        # The topic that was published to last at the end.
        self._tails: OrderedDict[str, Tail] = OrderedDict()
        self._queues: dict[str, deque[Write]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # What is told before is to be written before: who is present.
        self._before = before

    def begin(self, line: NatsLine, life: str, *, batches: bool, shares: bool) -> None:
        """Write on a line, in a run of the server; with `shares`, several servers have the stream."""
        self.line, self._life, self._batches, self._shares = line, life, batches, shares

    async def end(self) -> None:
        """Forget the line, which is closed, and where topics are: others may go on. What waits fails."""
        self.line = None
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tails.clear()

    def add(self, topic: str, write: Write) -> None:
        """Write a publication, behind those of the same topic that wait."""
        queue = self._queues.get(topic)
        if queue is not None:
            queue.append(write)
            return
        self._queues[topic] = deque([write])
        task = self._session.loop.create_task(self._work(topic))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def saw(self, topic: str, tail: Tail) -> None:
        """Take note of where a topic is by what came of it."""
        known = self._tails.get(topic)
        if known is not None and known.sequence < tail.sequence:
            self._tails[topic] = tail

    async def log(self, topic: str, since: int = 1) -> list[Stored]:
        """Return what the stream has of a topic. Raises ValueError for what nobody can read."""
        line, stream, subject = self._reached, self._streams.topics, self._subject(topic)
        # Any server of a cluster answers, also one that is behind.
        least = await line.last_sequence(stream, subject) if self._shares else 0
        while True:
            found = [stored_of(each) for each in await line.read(stream, subject, since)]
            if least <= (found[-1].tail.sequence if found else 0):
                return found
            await asyncio.sleep(BEHIND_WAIT)
            least = await line.last_sequence(stream, subject)

    async def mark(self, topic: str, epoch: str) -> Tail:
        """Begin a new epoch of a topic that is in this one, and return where it is then."""
        while True:
            found = await self._find(topic)
            if found is None:
                raise ValueError("all of it was just lost")
            tail = found.in_life(self._life)
            if tail.epoch != epoch:
                return tail
            new = tail.in_new_epoch()
            self._tails.pop(topic, None)
            with contextlib.suppress(Conflict):
                await self._put(topic, tail.sequence, [(headers_of(new, MARK, OUTSIDE, 0, None, ""), b"")])
                return new

    # -- inside

    @property
    def _reached(self) -> NatsLine:
        if self.line is None:
            raise BackplaneAway("NATS is away")
        return self.line

    def _subject(self, topic: str) -> str:
        return f"{self._streams.prefix}.topics.{quoted(topic)}"

    async def _work(self, topic: str) -> None:
        """Write what waits of a topic, until nothing does."""
        queue = self._queues[topic]
        while queue:
            writes = take(queue) if self._batches else [queue.popleft()]
            try:
                await self._before()
                left = await self._write(topic, writes)
            except BackplaneAway as error:
                fail_answers([write.answer for write in writes], str(error))
            except NatsRefusal as error:
                if error.code == NO_RESPONDERS and self.line is not None:
                    self.line.fail("the stream of the topics is gone")
                    fail_answers([write.answer for write in writes], str(error))
                else:
                    refuse(topic, writes, str(error))
            except Exception as error:  # noqa: BLE001 - whatever stands there, others may have written it
                refuse(topic, writes, f"what the NATS server has of it cannot be read: {error}")
            else:
                queue.extendleft(reversed(left))
        del self._queues[topic]

    async def _write(self, topic: str, writes: list[Write]) -> list[Write]:
        """Give publications their places, and return those that have to wait."""
        while True:
            tail = self._tails.get(topic) or await self._find(topic)
            first = writes[0]
            last = -1 if tail is None else tail.numbers.get(first.server, -1)
            if tail is not None and first.number <= last and first.server != OUTSIDE:
                known = [write for write in writes if write.number <= last]
                await self._tell_again(topic, tail, known)
                return writes[len(known) :]
            try:
                await self._add(topic, tail, writes)
            except Conflict:
                self._tails.pop(topic, None)
            except NatsRefusal as error:
                if len(writes) == 1 or error.code not in NO_BATCH:
                    raise
                # Without a batch, what is stored is answered before the next one is tried.
                self._batches = self._batches and error.code != BATCHES_OFF
                return [*await self._write(topic, writes[:1]), *writes[1:]]
            else:
                return []

    async def _add(self, topic: str, tail: Tail | None, writes: list[Write]) -> None:
        at = begin = self._first() if tail is None else tail.in_life(self._life)
        most = self._reached.max_payload
        messages: list[tuple[dict[str, str], bytes]] = []
        placed: list[tuple[Write, int]] = []
        for write in writes:
            after = at.after(write.server, write.number)
            headers = headers_of(after, write.kind, write.server, write.number, write.key, write.extra)
            size = len(write.data) + len(headers[HEADER]) + HEADERS_COST
            if size > most:
                refuse(topic, [write], f"it takes {size} bytes with its header, the NATS server allows {most}")
                continue
            at = after
            messages.append((headers, write.data))
            placed.append((write, at.offset))
        if not placed:
            return
        sequence = await self._put(topic, begin.sequence, messages)
        self._tails[topic] = at._replace(sequence=sequence)
        self._tails.move_to_end(topic)
        if len(self._tails) > MAX_TAILS:
            self._tails.popitem(last=False)
        for write, offset in placed:
            if not write.answer.done():
                write.answer.set_result(Position(at.epoch, offset))
        self._trim(topic, [write for write, _ in placed])

    def _trim(self, topic: str, writes: list[Write]) -> None:
        """Have the server drop what is over the bytes of a topic, as if all were as large as the largest."""
        bounds = self._session.history
        entries = max(1, bounds.size // (max(len(write.data) for write in writes) + MESSAGE_COST))
        if entries < bounds.count and self.line is not None:
            self.line.purge(self._streams.topics, self._subject(topic), entries)

    def _first(self) -> Tail:
        """Return where a topic is before its first publication, in the epoch of that."""
        return Tail(0, secrets.token_hex(6), 0, 0, self._life, self._starts.names, {})

    async def _find(self, topic: str) -> Tail | None:
        """Return where a topic is, None for one that has no message."""
        found = await self._reached.last(self._streams.topics, self._subject(topic))
        return None if found is None else stored_of(found).tail

    async def _tell_again(self, topic: str, tail: Tail | None, writes: Sequence[Write]) -> None:
        """Answer those that were written before."""
        assert tail is not None  # noqa: S101 - for mypy
        places = {(each.server, each.number): each.tail.offset for each in await self.log(topic)}
        epoch = tail.in_life(self._life).epoch
        for write in writes:
            if not write.answer.done():
                write.answer.set_result(Position(epoch, places.get((write.server, write.number), 0)))

    async def _put(self, topic: str, expected: int, messages: list[tuple[dict[str, str], bytes]]) -> int:
        """Store messages behind one of this sequence, and return that of the last. Raises Conflict for another one."""
        line, subject, batch = self._reached, self._subject(topic), secrets.token_hex(8)
        for number, (headers, data) in enumerate(messages, 1):
            if number == 1:
                headers["Nats-Expected-Last-Subject-Sequence"] = str(expected)
            if len(messages) > 1:
                headers |= {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
            if number < len(messages):
                line.send(subject, data, headers)
        if len(messages) > 1:
            headers["Nats-Batch-Commit"] = "1"
        try:
            found = await line.ask(subject, data, headers)
        except NatsRefusal as error:
            if error.code in WRONG_SEQUENCE:
                raise Conflict from None
            raise
        return int(found["seq"])


def take(queue: deque[Write]) -> list[Write]:
    """Return the next writes of a queue that fit into one batch, by ascending numbers."""
    writes = [queue.popleft()]
    size = len(writes[0].data)
    while queue and len(writes) < MAX_BATCH:
        last, following = writes[-1], queue[0]
        size += len(following.data)
        if size > MAX_BATCH_SIZE or following.server != last.server:
            break
        if following.number <= last.number and following.server != OUTSIDE:
            break
        writes.append(queue.popleft())
    return writes


def refuse(topic: str, writes: Sequence[Write], reason: str) -> None:
    """Tell those that wait that the topic takes nothing of them."""
    for write in writes:
        if not write.answer.done():
            write.answer.set_exception(TopicUnavailable(topic, with_remedy(reason)))
