"""Places: the records of a Kafka partition to the place of each publication, the same at all who read them.

A partition gives its records one order for all, and no server counts for the others: each reads the whole partition and
counts for itself. What a record does depends on the records before it and on nothing else, but for how much is held.

Laws:
1. The same records from the same start lead to the same places, epochs and people present, at every server.
2. A life is what a partition begins with; whoever finds that records are lost ends it, and with it all epochs.
3. A lease is a server's number that grows. What a lease that is over says of who is present is not heard.
4. A record that is none of ours is the fault of the topic that it names, and takes no place.
"""

from __future__ import annotations

import hashlib
import json
import sys
import zlib
from collections import OrderedDict, deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, Self, final

from rawws.topics.backplane import HistoryResult, Position, PresenceEntry, Record, new_entry, new_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rawws.topics.backplane import History

__all__ = [
    "UNKNOWN",
    "Checkpoint",
    "Mark",
    "OtherVersionError",
    "Places",
    "Reader",
    "anew",
    "gone",
    "hello",
    "join",
    "leave",
    "pack_rows",
    "publication",
    "read_written",
    "settled",
    "unpack_rows",
    "written",
]

# Of what a partition's first record says: a server reads no other.
VERSION: Final = 1
# The life of a partition whose beginning is gone, with all that was written down of it.
UNKNOWN: Final = "*"
# For how long a topic's place is remembered that nobody publishes to, in milliseconds: longer than any history is held.
PLACE_AGE: Final = 24 * 3600 * 1000
# So many topics have a place in a partition. One more, and those are forgotten that nothing was published to for the
# longest time: a tenth of them, for each time changes what a topic without publications is called.
MAX_TOPICS: Final = 100_000
# Of so many servers it is remembered what they published last to a topic: more seldom publish at once.
MAX_SERVERS: Final = 100
# So many topics at fault are remembered, and records looked through for one that is published again.
MAX_FAULTS: Final = 1000
MAX_LOOKED: Final = 100
MAX_CHECKPOINTS: Final = 100
# What a record takes beside its message, in bytes of memory.
RECORD_COST: Final = 384
# The octets of a chunk of what is written, before it is compressed: under what any Kafka takes in one message.
CHUNK: Final = 400_000
# A checkpoint has no more of them: who says so is another program.
MAX_PARTS: Final = 10_000
# How many columns the row of a topic has; that of somebody present has one less.
TOPIC_ROW: Final = 6


class OtherVersionError(Exception):
    """A partition that servers of another version write, so that this one would count in another way."""


class Mark(NamedTuple):
    """A record that was read: another one at this offset means that the partition is not the one that it was."""

    offset: int
    timestamp: int
    check: int

    @classmethod
    def of(cls, offset: int, timestamp: int, _: bytes | None, value: bytes | None) -> Self:
        """Return the mark of a record."""
        return cls(offset, timestamp, zlib.crc32(value or b""))


class Checkpoint(NamedTuple):
    """What was written down: under which name in how many parts, up to which offset, and when."""

    name: str
    parts: int
    position: int
    clock: int


class Reader(Protocol):
    """What hears of what the records of a partition say."""

    def on_place(self, record: Record, position: Position, *, is_new: bool) -> None:
        """Hear which place a publication has: its own, or that of the same one before, or offset 0."""

    def on_presence(self, topic: str, event: str, entry: PresenceEntry) -> None:
        """Hear that somebody did "join" or "leave"."""

    def on_beat(self, server: str, lease: int, timestamp: int) -> None:
        """Hear that a server lives."""

    def on_gone(self, server: str, lease: int) -> None:
        """Hear that a server's lease is over."""

    def on_life(self, life: str) -> None:
        """Hear that all epochs are over."""

    def on_fault(self, topic: str, reason: str) -> None:
        """Hear that a record of a topic cannot be read."""


# -- the records: a letter, JSON, and what has no place in JSON behind a new line. A publication can be read by anybody.


def publication(server: str, number: int, message: str | bytes, key: str | None, extra: str) -> bytes:
    """Return the value of a publication, whose key is the topic."""
    kind, body = ("t", message.encode()) if isinstance(message, str) else ("b", message)
    return b"=" + json.dumps((server, number, kind, key, extra)).encode() + b"\n" + body


def join(server: str, lease: int, ident: str, info: str) -> bytes:
    """Return that somebody is present, in the topic that is the key."""
    return b"+" + json.dumps((server, lease, ident, info)).encode()


def leave(server: str, lease: int, ident: str) -> bytes:
    """Return that somebody is present no more."""
    return b"-" + json.dumps((server, lease, ident)).encode()


def hello(server: str, lease: int) -> bytes:
    """Return that a server lives, which begins its lease."""
    return b"h" + json.dumps((server, lease)).encode()


def settled(server: str, lease: int) -> bytes:
    """Return that all who are present at a server were said: who is there by an older lease is so no more."""
    return b"s" + json.dumps((server, lease)).encode()


def gone(server: str, lease: int) -> bytes:
    """Return that the lease of a server is over."""
    return b"x" + json.dumps((server, lease)).encode()


def anew(old: str, new: str) -> bytes:
    """Return that a life begins, where this is the one before; after UNKNOWN it begins whichever that was."""
    return b"b" + json.dumps((old, new, VERSION)).encode()


def written(found: Checkpoint, removed: Iterable[str]) -> bytes:
    """Return that all places up to an offset are written down, and that older ones are removed."""
    return b"w" + json.dumps((*found, list(removed))).encode()


def read_written(value: bytes) -> Checkpoint | None:
    """Return what such a record says; None for another one."""
    try:
        words = json.loads(value[1:])
    except (ValueError, RecursionError):
        return None
    match words:
        case [str(name), int(parts), int(position), int(clock), list()] if 0 <= parts <= MAX_PARTS:
            return Checkpoint(name, parts, position, clock)
    return None


class Topic:
    """What is known of one topic."""

    __slots__ = ("before", "epoch", "held", "last", "numbers", "offset", "size")

    def __init__(self, epoch: str, before: tuple[Position, ...]) -> None:
        self.epoch = epoch
        self.before = before
        self.offset = 0
        # When something was published last.
        self.last = 0
        # By server, that which published last at the end.
        self.numbers: dict[str, int] = {}
        # Records, and when they came, in milliseconds of Kafka's clock.
        self.held: deque[tuple[int, Record]] = deque()
        self.size = 0


def cost(record: Record) -> int:
    """Return what a record takes, in bytes of memory."""
    return RECORD_COST + sum(map(sys.getsizeof, (record.message, record.key, record.extra)))


def short(text: str) -> str:
    """Return a name for an epoch."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@final
class Places:
    """All that the records of one partition say, up to `position`."""

    def __init__(self, history: History, total: int, reader: Reader) -> None:
        """Hold what the history allows, in so many bytes of all topics."""
        self.history = history
        self.total = total
        self.reader = reader
        self.position = 0
        self.mark: Mark | None = None
        self.clock = 0
        # When the first record was read.
        self.began = 0
        # What is written down of this partition, the newest last.
        self.checkpoints: list[Checkpoint] = []
        self._reset("")

    def lose(self, position: int) -> None:
        """Be at an offset, and know nothing of what was before it: only what begins anew is understood."""
        self._reset(UNKNOWN)
        self.position = position

    def _reset(self, life: str) -> None:
        self.life = life
        # The offset of the record that last made topics be forgotten before their time.
        self.generation = 0
        self.size = 0
        # That which was published to last at the end, and those of which something is held.
        self.topics: OrderedDict[str, Topic] = OrderedDict()
        self.holding: OrderedDict[str, Topic] = OrderedDict()
        self.faults: dict[str, tuple[int, str]] = {}
        # The lease of each server, who is present: what each says and by which lease; and where by which server.
        self.leases: dict[str, int] = {}
        self.roster: dict[str, dict[tuple[str, str], tuple[str, int]]] = {}
        self.by_server: dict[str, dict[tuple[str, str], None]] = {}

    # -- reading

    def read(self, offset: int, timestamp: int, key: bytes | None, value: bytes | None) -> None:
        """Take the next record. Raises OtherVersionError."""
        self.position = offset + 1
        self.mark = Mark.of(offset, timestamp, key, value)
        self.clock = max(self.clock, timestamp)
        self.began = self.began or self.clock
        self._forget_old()
        try:
            if key is None:
                self._rule((value or b"")[:1], json.loads((value or b"")[1:]))
            elif value is None:
                self._drop(key.decode(), offset)
            elif value[:1] == b"=":
                head, _, body = value[1:].partition(b"\n")
                server, number, form, about, extra = json.loads(head)
                message = body.decode() if form == "t" else body
                self._publish(offset, new_record(key.decode(), "-", 1, message, about, server, number, extra))
            elif value[:1] in {b"+", b"-"}:
                server, lease, ident, *info = json.loads(value[1:])
                entry = new_entry(server, ident, *(info or ["null"]))
                self._attend(key.decode(), entry, int(lease), enters=value[:1] == b"+")
            else:
                raise ValueError(f"it begins with {value[:1]!r}, allowed are =, + and -")
        except OtherVersionError:
            raise
        except (TypeError, ValueError, RecursionError) as error:
            self._blame(key, f"a record of it in Kafka, at offset {offset}, cannot be read: {error}")

    def _rule(self, kind: bytes, words: list[object]) -> None:
        """Take a record that is of the whole partition. One that says nothing known is not heard."""
        match kind, words:
            case b"h", [str(server), int(lease)]:
                if lease >= self.leases.get(server, 0):
                    self.leases[server] = lease
                    self.reader.on_beat(server, lease, self.clock)
            case b"s", [str(server), int(lease)]:
                self._leave_all(server, lease)
            case b"x", [str(server), int(lease)]:
                if self.leases.get(server) == lease:
                    del self.leases[server]
                    self._leave_all(server, lease + 1)
                    self.reader.on_gone(server, lease)
            case b"w", [str(name), int(parts), int(position), int(clock), list(removed)] if 0 <= parts <= MAX_PARTS:
                kept = [each for each in self.checkpoints if each.name not in removed]
                self.checkpoints = [*kept, Checkpoint(name, parts, position, clock)][-MAX_CHECKPOINTS:]
            case b"b", [str(old), str(new), int(version), *_]:
                if version != VERSION:
                    raise OtherVersionError(
                        f"another version of rawws writes its records: {version}, known is {VERSION}"
                    )
                if old in {self.life, UNKNOWN}:
                    self._reset(new)
                    self.reader.on_life(new)

    def _publish(self, offset: int, record: Record) -> None:
        topic, server, number = record.topic, record.server, record.number
        stored = self.topics.get(topic)
        if stored is not None and number <= stored.numbers.get(server, -1):
            # Those sent again may be thousands: not all that is held is looked through.
            newest = islice(reversed(stored.held), MAX_LOOKED)
            same = (each.offset for _, each in newest if (each.server, each.number) == (server, number))
            self.reader.on_place(record, Position(stored.epoch, next(same, 0)), is_new=False)
            return
        if stored is None:
            before = (Position(self._unborn(self.clock, 1), 0), Position(self._unborn(self.clock, 0), 0))
            stored = self.topics[topic] = Topic(short(f"{self.life} {offset}"), before)
        stored.offset += 1
        stored.last = self.clock
        stored.numbers.pop(server, None)
        stored.numbers[server] = number
        if len(stored.numbers) > MAX_SERVERS:
            del stored.numbers[next(iter(stored.numbers))]
        self.topics.move_to_end(topic)
        record = record._replace(epoch=stored.epoch, offset=stored.offset)
        self._hold(topic, stored, record)
        if len(self.topics) > MAX_TOPICS:
            self.generation = offset
            for name in list(islice(self.topics, MAX_TOPICS // 10)):
                self._forget(name)
        self.reader.on_place(record, Position(stored.epoch, stored.offset), is_new=True)

    def _forget_old(self) -> None:
        """Forget a topic or two that nothing was published to for too long; all servers do so at the same record."""
        for _ in range(2):
            topic, stored = next(iter(self.topics.items()), ("", None))
            if stored is None or self.clock - stored.last <= PLACE_AGE:
                return
            self._forget(topic)

    def _forget(self, topic: str) -> None:
        stored = self.topics.pop(topic)
        self.holding.pop(topic, None)
        self.size -= stored.size

    def _drop(self, topic: str, offset: int) -> None:
        """Have a topic be as if it had never been; nobody knows what was there."""
        self.faults.pop(topic, None)
        if topic in self.topics:
            self._forget(topic)
        self.generation = offset

    def _blame(self, key: bytes | None, reason: str) -> None:
        topic = (key or b"").decode(errors="replace")
        if topic:
            self.faults.pop(topic, None)
            self.faults[topic] = (self.clock, reason)
            if len(self.faults) > MAX_FAULTS:
                del self.faults[next(iter(self.faults))]
        self.reader.on_fault(topic, reason)

    def _unborn(self, clock: int, ago: int) -> str:
        """Return the epoch of topics that were never published to.

        Its name changes with each half of the time for which a place is remembered: so nobody goes on from one behind
        which a place came and was forgotten.
        """
        return short(f"{self.life} {self.generation} unborn {clock * 2 // PLACE_AGE - ago}")

    # -- what is held: each server for itself

    def _hold(self, topic: str, stored: Topic, record: Record) -> None:
        if self.history.count:
            size = cost(record)
            stored.held.append((self.clock, record))
            stored.size += size
            self.size += size
            self.holding[topic] = stored
            self.holding.move_to_end(topic)
        self._trim(topic, stored, self.clock)
        while self.size > self.total and self.holding:
            oldest, longest = next(iter(self.holding.items()))
            self._let_go(oldest, longest, len(longest.held))

    def _trim(self, topic: str, stored: Topic, now: int) -> None:
        """Let go of the records of a topic that are over the bounds."""
        history, size, count = self.history, stored.size, 0
        oldest = now - int(history.age * 1000)
        for at, record in stored.held:
            if len(stored.held) - count <= history.count and size <= history.size and at >= oldest:
                break
            size -= cost(record)
            count += 1
        if count:
            self._let_go(topic, stored, count)

    def _let_go(self, topic: str, stored: Topic, count: int) -> None:
        for _ in range(count):
            size = cost(stored.held.popleft()[1])
            stored.size -= size
            self.size -= size
        if not stored.held:
            del self.holding[topic]

    def sweep(self, now: int) -> None:
        """Let go of what is older than its age, of topics that nothing was published to since."""
        oldest = now - int(self.history.age * 1000)
        while self.holding:
            topic, stored = next(iter(self.holding.items()))
            if stored.last >= oldest:
                break
            self._let_go(topic, stored, len(stored.held))
        for topic in [topic for topic, (at, _) in self.faults.items() if at < oldest]:
            del self.faults[topic]

    def result(self, topic: str, since: Position | None, now: int) -> HistoryResult:
        """Return the records behind a position, at a time of Kafka's clock."""
        stored = self.topics.get(topic)
        if stored is None:
            name, last = self._unborn(now, 0), Position(self._unborn(now, 1), 0)
            return HistoryResult(name, 0, [], since in {None, Position(name, 0), last}, 0, (last,))
        self._trim(topic, stored, now)
        count = len(stored.held) if since is None else stored.offset - since.offset
        known = since is None or since.epoch == stored.epoch or since in stored.before
        recovered = known and 0 <= count <= len(stored.held)
        held = list(stored.held)[len(stored.held) - count :] if recovered else []
        records = [record._replace(age=max(0, now - at) / 1000) for at, record in held]
        return HistoryResult(stored.epoch, stored.offset, records, recovered, 0, stored.before)

    # -- who is present

    def _attend(self, topic: str, entry: PresenceEntry, lease: int, *, enters: bool) -> None:
        server, ident, info = entry
        if self.leases.get(server) != lease:
            # One that waited on its way, and came behind the end of its lease.
            return
        if enters:
            self.roster.setdefault(topic, {})[server, ident] = (info, lease)
            self.by_server.setdefault(server, {})[topic, ident] = None
            self.reader.on_presence(topic, "join", entry)
        else:
            self._part(topic, server, ident)

    def _part(self, topic: str, server: str, ident: str) -> None:
        present, here = self.roster.get(topic, {}), self.by_server.get(server, {})
        info, _ = present.pop((server, ident), ("null", 0))
        here.pop((topic, ident), None)
        if not present:
            self.roster.pop(topic, None)
        if not here:
            self.by_server.pop(server, None)
        self.reader.on_presence(topic, "leave", PresenceEntry(server, ident, info))

    def _leave_all(self, server: str, lease: int) -> None:
        """Have those leave who are present at a server by a lease before this one."""
        for topic, ident in list(self.by_server.get(server, ())):
            if self.roster[topic][server, ident][1] < lease:
                self._part(topic, server, ident)

    def present(self, topic: str) -> list[PresenceEntry]:
        """Return who is present in a topic."""
        return [PresenceEntry(server, ident, info) for (server, ident), (info, _) in self.roster.get(topic, {}).items()]

    # -- writing all down

    def rows(self) -> list[object]:
        """Return all that is known, but for what is held, to be written down by `pack_rows`."""
        leases, written_down = list(self.leases.items()), list(self.checkpoints)
        head = (self.life, self.generation, self.position, self.mark, self.clock, leases, written_down)
        rows: list[object] = [head]
        for name, each in self.topics.items():
            rows.append((name, each.epoch, each.offset, each.last, each.before, dict(each.numbers)))
        for topic, present in self.roster.items():
            rows.extend((topic, *who, info, lease) for who, (info, lease) in present.items())
        return rows

    def load(self, rows: Iterable[list[Any]]) -> None:
        """Be as those rows say."""
        for number, row in enumerate(rows):
            if not number:
                life, generation, self.position, mark, self.clock, leases, checkpoints = row
                self._reset(life)
                self.generation, self.mark, self.leases = generation, Mark(*mark), dict(leases)
                self.checkpoints = [Checkpoint(*each) for each in checkpoints]
            elif len(row) == TOPIC_ROW:
                name, epoch, offset, last, before, numbers = row
                stored = self.topics[name] = Topic(epoch, tuple(Position(*each) for each in before))
                stored.offset, stored.last, stored.numbers = offset, last, numbers
            else:
                topic, server, ident, info, lease = row
                self.roster.setdefault(topic, {})[server, ident] = (info, lease)
                self.by_server.setdefault(server, {})[topic, ident] = None


def pack_rows(rows: Iterable[object]) -> list[bytes]:
    """Return rows as messages that Kafka takes."""
    chunks, lines, size = [], [], 0
    for row in rows:
        line = json.dumps(row, separators=(",", ":"))
        lines.append(line)
        size += len(line)
        if size > CHUNK:
            chunks.append(zlib.compress("\n".join(lines).encode(), 1))
            lines, size = [], 0
    chunks.append(zlib.compress("\n".join(lines).encode(), 1))
    return chunks


def unpack_rows(chunks: Iterable[bytes]) -> Iterator[list[Any]]:
    """Return the rows of such messages. Raises ValueError or zlib.error for what is none."""
    for chunk in chunks:
        for line in zlib.decompress(chunk).decode().splitlines():
            yield json.loads(line)
