"""The memory backplane: hubs in one process, joined by an object (the contract in its shortest form).

Laws:
1. What an engine of another process would do later, it does later: every answer takes a turn of the loop.
2. It can be cut off and mended, and lose its data, as a true engine may.
3. What is held is bounded, as in `rawws.topics.history`: the broker of `rawws serve --workers` is one of these.
4. A topic is held from its first publication on, or while somebody is present there; a pattern from when it is
   followed on.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, TypeVar, final

from rawws import clock
from rawws.topics.backplane import (
    BackplaneAway,
    HistoryResult,
    Placed,
    Position,
    PresenceEntry,
    Record,
    TopicUnavailable,
    new_answer,
)
from rawws.topics.patterns import is_pattern, patterns_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from rawws.topics.backplane import BackplaneHandler, History

__all__ = ["Engine", "MemoryBackplane"]

Answer = TypeVar("Answer")

# Of so many servers it is remembered what they published last to a topic: more seldom publish at once.
MAX_SERVERS = 1000
# The place of a topic is remembered for so many times the age of what is held, for its clients may still come back; and
# for so many seconds, in so many bytes of all topics, where nothing is held.
REMEMBERED = 2
LEAST_AGE = 60.0
LEAST_TOTAL = 1 << 20
# So many topics are known to have been published to and forgotten; with one more, whoever waits for the first
# publication of a topic is told that it may have missed some.
MAX_FORGOTTEN = 10_000
# What a topic and a record take beside the message, in bytes of memory.
TOPIC_COST = 1024
RECORD_COST = 384


class StoredTopic:
    """What the engine knows of one topic."""

    def __init__(self) -> None:
        self.epoch = secrets.token_hex(6)
        self.offset = 0
        # Where the topic was before its first publication.
        self.before: tuple[Position, ...] = ()
        # Records, and when they came.
        self.held: deque[tuple[float, Record]] = deque()
        self.size = TOPIC_COST
        self.touched = 0.0
        self.numbers: dict[str, int] = {}
        self.entries: dict[tuple[str, str], PresenceEntry] = {}

    def add(self, record: Record) -> None:
        """Hold a record."""
        self.offset = record.offset
        self.held.append((clock.monotonic(), record))
        self.size += cost(record)


def cost(record: Record) -> int:
    """Return what a record takes, in bytes of memory: text may have four for each character."""
    return RECORD_COST + sum(map(sys.getsizeof, (record.message, record.key, record.extra)))


@final
class Engine:
    """What all memory backplanes of it share: topics, and who is connected."""

    def __init__(self) -> None:
        # The one that was touched last at the end.
        self.topics: OrderedDict[str, StoredTopic] = OrderedDict()
        # Those of them that are patterns.
        self.patterns: dict[str, StoredTopic] = {}
        # The epoch of topics that were never published to, and of those that were, and are forgotten.
        self.unborn = secrets.token_hex(6)
        self.forgotten: dict[str, str] = {}
        self.size = 0
        self.backplanes: list[MemoryBackplane] = []
        self.reachable = True

    def known(self, topic: str) -> StoredTopic | None:
        """Return what is known of a topic, if anything is."""
        found = self.topics.get(topic)
        if found is not None:
            found.touched = clock.monotonic()
            self.topics.move_to_end(topic)
        return found

    def stored(self, topic: str) -> StoredTopic:
        """Return what is known of a topic from now on."""
        found = self.known(topic)
        if found is None:
            found = self.topics[topic] = StoredTopic()
            found.touched = clock.monotonic()
            self.size += found.size
            if is_pattern(topic):
                self.patterns[topic] = found
        return found

    def matching(self, topic: str) -> dict[str, StoredTopic]:
        """Return the patterns for a topic."""
        known = self.patterns
        return {name: known[name] for name in patterns_of(topic) if name in known} if known else {}

    def start_of(self, topic: str) -> Position:
        """Return where a topic is to which nothing is published yet."""
        return Position(self.forgotten.get(topic, self.unborn), 0)

    def leave(self, topic: str, server: str, ident: str) -> None:
        """Have somebody present no more."""
        stored = self.topics.get(topic)
        if stored is not None:
            stored.entries.pop((server, ident), None)
            if not stored.entries and not stored.offset:
                del self.topics[topic]
                self.size -= stored.size

    def publish(self, record: Record, history: History) -> Placed:
        """Give a record its place in its topic and in the patterns for that, and send it to all that follow them.

        What is held stays within the bounds: a topic or two are forgotten to which nobody comes back.
        """
        topic, stored = record.topic, self.stored(record.topic)
        patterns = self.matching(topic)
        if record.number <= stored.numbers.get(record.server, -1):
            origin = (record.server, record.number)
            first = [each.offset for _, each in stored.held if (each.server, each.number) == origin]
            offset = first[0] if first else 0
        else:
            if not stored.offset:
                stored.before = (self.start_of(topic),)
                self.forgotten.pop(topic, None)
            # The latest to publish is the last.
            stored.numbers.pop(record.server, None)
            stored.numbers[record.server] = record.number
            if len(stored.numbers) > MAX_SERVERS:
                del stored.numbers[next(iter(stored.numbers))]
            self.add(stored, record, history)
            for name, pattern in patterns.items():
                self.add(pattern, record._replace(topic=name, published=topic), history)
            self.forget(history)
            self.forget(history)
            offset = stored.offset
        places = {name: Position(pattern.epoch, pattern.offset) for name, pattern in patterns.items()}
        return Placed(stored.epoch, offset, places)

    def add(self, stored: StoredTopic, record: Record, history: History) -> None:
        """Give a record the next place of a topic or a pattern, hold it and send it."""
        placed = record._replace(epoch=stored.epoch, offset=stored.offset + 1)
        stored.add(placed)
        self.size += cost(placed)
        self.trim(stored, history)
        self.tell(placed.topic, lambda handler: handler.on_record(placed))

    def trim(self, stored: StoredTopic, history: History) -> None:
        """Let go of the records of a topic that are over the bounds."""
        held, oldest = stored.held, clock.monotonic() - history.age
        while held and (len(held) > history.count or stored.size > history.size or held[0][0] < oldest):
            size = cost(held.popleft()[1])
            stored.size -= size
            self.size -= size

    def forget(self, history: History) -> None:
        """Forget the topic that was touched longest ago, where that is too long or all together take too much."""
        if not self.topics:
            return
        topic, stored = next(iter(self.topics.items()))
        age, total = max(REMEMBERED * history.age, LEAST_AGE), max(history.total, LEAST_TOTAL)
        if clock.monotonic() - stored.touched <= age and self.size <= total:
            return
        if stored.entries or any(topic in backplane.followed for backplane in self.backplanes):
            self.topics.move_to_end(topic)
        else:
            del self.topics[topic]
            self.size -= stored.size
            if self.patterns.pop(topic, None) is not None:
                return
            self.forgotten[topic] = secrets.token_hex(6)
            if len(self.forgotten) > MAX_FORGOTTEN:
                self.begin_anew()

    def begin_anew(self) -> None:
        """Have nobody go on from where a topic was before it was published to."""
        self.unborn = secrets.token_hex(6)
        self.forgotten.clear()

    def stop(self, *, forget: bool = False) -> None:
        """Go away, as by `kill -9`; with `forget`, without the data."""
        self.reachable = False
        if forget:
            self.topics.clear()
            self.patterns.clear()
            self.size = 0
            self.begin_anew()
        for backplane in list(self.backplanes):
            backplane.cut("the engine was stopped")

    def start(self) -> None:
        """Come back."""
        self.reachable = True
        for backplane in list(self.backplanes):
            backplane.mend()

    def tell(self, topic: str, told: Callable[[BackplaneHandler], None]) -> None:
        """Tell all that follow a topic."""
        for backplane in self.backplanes:
            if topic in backplane.followed and backplane.reached:
                backplane.say(told)


@final
class MemoryBackplane:
    """A hub's connection to an Engine: `rawws.Hub(backplane=MemoryBackplane(engine))`."""

    patterns = True

    def __init__(self, engine: Engine | None = None, *, lag: int = 0) -> None:
        """With `lag`, what its handler is told comes so many turns of the loop later."""
        self.engine = Engine() if engine is None else engine
        self.lag = lag
        self.followed: set[str] = set()
        self.reached = False
        self._server = ""
        self._here: dict[tuple[str, str], str] = {}
        # What is asked and not answered: it fails where the engine goes away.
        self._asked: dict[asyncio.Future[object], None] = {}
        self._handler: BackplaneHandler | None = None
        self._away = False

    def open(self, server: str, history: History, handler: BackplaneHandler) -> None:
        """Reach the engine in the running loop, then call on_back or on_away of the handler."""
        self._server, self._history, self._handler = server, history, handler
        self._loop = asyncio.get_running_loop()
        self.engine.backplanes.append(self)
        if self.engine.reachable:
            self.mend()
        else:
            self.cut("the engine is stopped")

    async def close(self) -> None:
        """End the lease of this server, and close the connection."""
        self.end()

    def end(self) -> None:
        """Be closed, at once."""
        if self._handler is not None:
            self.engine.backplanes.remove(self)
            self._handler = None
            self._fail("the backplane is closed")
            self._expire()

    def publish(
        self, topic: str, message: str | bytes, key: str | None, number: int, extra: str = ""
    ) -> asyncio.Future[Position]:
        """Store a message and send it to all followers of the topic. The future gets its position."""

        def act() -> Position:
            record = Record(topic, "", 0, message, key, self._server, number, extra)
            return self.engine.publish(record, self._history)

        return self._ask(topic, act)

    def follow(self, topic: str) -> asyncio.Future[None]:
        """Pass records of this topic to the handler, from when the future is done."""

        def act() -> None:
            self.followed.add(topic)
            if is_pattern(topic):
                self.engine.stored(topic)

        return self._ask(topic, act)

    def unfollow(self, topic: str) -> None:
        """Pass no more records of this topic to the handler."""
        self._ask(topic, lambda: self.followed.discard(topic))

    def history(self, topic: str, since: Position | None) -> asyncio.Future[HistoryResult]:
        """Return the records after a position, or all that are stored if it is None."""

        def act() -> HistoryResult:
            stored = self.engine.stored(topic) if is_pattern(topic) else self.engine.known(topic)
            if stored is None or not (stored.offset or is_pattern(topic)):
                start = self.engine.start_of(topic)
                return HistoryResult(*start, [], since in {None, start})
            self.engine.trim(stored, self._history)
            count = len(stored.held) if since is None else stored.offset - since.offset
            known = since is None or since.epoch == stored.epoch or since in stored.before
            recovered = known and 0 <= count <= len(stored.held)
            now, held = clock.monotonic(), list(stored.held)[len(stored.held) - count :] if recovered else []
            records = [record._replace(age=now - at) for at, record in held]
            return HistoryResult(stored.epoch, stored.offset, records, recovered, 0, stored.before)

        return self._ask(topic, act)

    def join(self, topic: str, ident: str, info: str) -> None:
        """Enter somebody into the presence of a topic, and tell its followers."""
        self._here[topic, ident] = info
        if self.reached:
            self._enter(topic, PresenceEntry(self._server, ident, info))

    def leave(self, topic: str, ident: str) -> None:
        """Remove somebody from the presence of a topic, and tell its followers."""
        entry = PresenceEntry(self._server, ident, self._here.pop((topic, ident), "null"))
        if self.reached:
            self.engine.leave(topic, self._server, ident)
            self.engine.tell(topic, lambda handler: handler.on_presence(topic, "leave", entry))

    def presence(self, topic: str) -> asyncio.Future[list[PresenceEntry]]:
        """Return who is present in a topic, at servers whose lease has not ended."""

        def act() -> list[PresenceEntry]:
            stored = self.engine.known(topic)
            return [] if stored is None else list(stored.entries.values())

        return self._ask(topic, act)

    def stats(self) -> dict[str, int]:
        """Return no retries: the engine is in this process."""
        return {"retries": 0}

    # -- what a test does to it

    def cut(self, reason: str) -> None:
        """Lose the engine, and the lease with it."""
        self._fail(reason)
        self.followed.clear()
        if not self._away:
            self._away = True
            self.say(lambda handler: handler.on_away(reason))
        self._expire()

    def mend(self) -> None:
        """Reach the engine again."""
        if not self.reached:
            self.reached, self._away = True, False
            self.say(lambda handler: handler.on_back())
            for (topic, ident), info in self._here.items():
                self._enter(topic, PresenceEntry(self._server, ident, info))

    def say(self, told: Callable[[BackplaneHandler], None]) -> None:
        """Tell the handler in a turn of its own."""

        def act(left: int) -> None:
            if left:
                self._loop.call_soon(act, left - 1)
            elif self._handler is not None:
                told(self._handler)

        self._loop.call_soon(act, self.lag)

    # -- inside

    def _ask(self, topic: str, act: Callable[[], Answer]) -> asyncio.Future[Answer]:
        answer: asyncio.Future[Answer] = new_answer(self._loop)
        if not self.reached:
            answer.set_exception(BackplaneAway("the engine is away"))
            return answer
        asked: asyncio.Future[object] = answer  # type: ignore[assignment]
        self._asked[asked] = None

        def do() -> None:
            if self._asked.pop(asked, 0) is not None:
                return
            try:
                found = act()
            except Exception as error:  # noqa: BLE001 - whatever it is, the engine has other topics
                if not answer.done():
                    answer.set_exception(TopicUnavailable(topic, repr(error)))
                return
            # An engine of another process does not know who waits no longer.
            if not answer.done():
                answer.set_result(found)

        self._loop.call_soon(do)
        return answer

    def _fail(self, reason: str) -> None:
        self.reached = False
        asked, self._asked = self._asked, {}
        for answer in asked:
            if not answer.done():
                answer.set_exception(BackplaneAway(reason))

    def _enter(self, topic: str, entry: PresenceEntry) -> None:
        self.engine.stored(topic).entries[entry.server, entry.id] = entry
        self.engine.tell(topic, lambda handler: handler.on_presence(topic, "join", entry))

    def _expire(self) -> None:
        """End the lease, as time would."""
        for topic, stored in list(self.engine.topics.items()):
            for server, ident in list(stored.entries):
                if server == self._server:
                    self.engine.leave(topic, server, ident)
        for backplane in self.engine.backplanes:
            if backplane.reached and backplane is not self:
                backplane.say(lambda handler: handler.on_server_gone(self._server))
