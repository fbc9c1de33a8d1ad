"""History: the last publications of each topic, and which of them a subscriber has missed.

Laws:
1. In one epoch an offset is given once, and each is one more than the one before: so a gap shows.
2. Whoever asks for what came since a cursor gets exactly that, or is told that it cannot be had; never a part of it,
   and nothing twice.
3. What is held is bounded, for each topic and for all together, and what falls out is the oldest.
"""

from __future__ import annotations

import re
import secrets
from collections import OrderedDict, deque
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote

from rawws import clock
from rawws.errors import RawwsError
from rawws.protocol.extensions import excerpt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from rawws.net.websocket import Encoded

__all__ = [
    "EARLIEST",
    "CursorError",
    "History",
    "Log",
    "Missed",
    "Position",
    "Publication",
    "Shelf",
    "cursor_of",
    "cursors_of",
    "join_cursors",
    "label",
    "parse_cursor",
]

# Stands for a cursor before the first publication that is held.
EARLIEST = "earliest"
# The size of a publication is that of its message and so many bytes: those that wait are bounded in number as well.
MESSAGE_COST = 64
# What a publication that is held takes in bytes of memory, and how often its message: as it came, encoded, and framed,
# and the same of its envelope.
HELD_COST = 1280
COPIES = 6
# What a topic takes that is remembered, in bytes.
TOPIC_COST = 2048
# A joined cursor is no longer than the head of a request, in characters: taking a longer one apart would hold the loop.
MAX_JOINED = 16384
CURSOR = re.compile(r"([\w-]{1,32}):([0-9]{1,18})", re.ASCII)


class CursorError(RawwsError, ValueError):
    """A cursor is none that this topic ever gave."""


@dataclass(frozen=True, slots=True)
class History:
    """How much is held of each topic: publications (0 for nothing), bytes, seconds; and bytes of all topics together.

    The bytes are those of memory, a multiple of the messages' own. Where all topics together take too much, those are
    forgotten that nothing was published to for the longest time.
    """

    # A chat shows about as many when it is opened, and a phone is seldom away for longer than five minutes.
    count: int = 100
    size: int = 1 << 20
    age: float = 300.0
    total: int = 64 << 20


class Publication:
    """A message of a topic, at its place there. What members make of it, they make once, and keep in `forms`."""

    __slots__ = ("at", "cursor", "encoded", "epoch", "forms", "key", "message", "offset", "size", "topic")

    def __init__(
        self, topic: str, encoded: Encoded, key: Any = None, epoch: str = "", offset: int = 0, at: str = ""
    ) -> None:
        """Without an offset it is a notice: it has no place in the topic, and who missed it does not get it.

        A notice that says where its subscribers are from now on has that cursor as `at`.
        """
        self.encoded = encoded
        self.topic = topic
        self.message = encoded.message
        # Which of the topic's things it is about, for those who want only the latest of each.
        self.key = key
        self.epoch = epoch
        self.offset = offset
        # Where it stands: what `since` takes.
        self.cursor = f"{epoch}:{offset}" if offset else at
        self.at = clock.monotonic()
        self.size = len(encoded.payload) + MESSAGE_COST
        self.forms: dict[Any, Any] | None = None

    def __repr__(self) -> str:
        return f"<rawws.Publication {self.topic!r} {self.cursor}>"

    def move(self, epoch: str) -> None:
        """Have the same offset in another epoch."""
        self.epoch = epoch
        self.cursor = f"{epoch}:{self.offset}"
        self.forms = None


class Position(NamedTuple):
    """The place of a publication in its topic; offset 0 is that before the first one."""

    epoch: str
    offset: int


class Missed(NamedTuple):
    """What came since a cursor; `recovered` is False where that cannot be said, and then there are none."""

    publications: list[Publication]
    recovered: bool


class Log:
    """The publications of one topic that are held."""

    __slots__ = ("epoch", "held", "offset", "shelf", "size", "topic", "touched", "waiters")

    def __init__(self, topic: str, shelf: Shelf) -> None:
        self.topic = topic
        self.epoch = secrets.token_hex(6)
        # That of the last publication; the first one has 1.
        self.offset = 0
        self.shelf = shelf
        self.held: deque[Publication] = deque()
        # In bytes of memory.
        self.size = 0
        self.touched = 0.0
        # Those who wait until it is known where the topic is; without a backplane, that is always known.
        self.waiters: list[Callable[[], None]] = []

    @property
    def cursor(self) -> str:
        """Where the topic is now."""
        return f"{self.epoch}:{self.offset}"

    def append(self, encoded: Encoded, key: Any = None) -> Publication:
        """Give a message its place, and hold it."""
        publication = Publication(self.topic, encoded, key, self.epoch, self.offset + 1)
        self.hold(publication)
        self.shelf.touch(self, publication.at)
        return publication

    def hold(self, publication: Publication) -> None:
        """Hold what has the next place."""
        self.offset = publication.offset
        if self.shelf.bounds.count:
            self.held.append(publication)
            self._grow(cost(publication))
            self.trim(publication.at)

    def trim(self, now: float) -> None:
        """Let go of what is over the bounds."""
        held, bounds = self.held, self.shelf.bounds
        while held and (len(held) > bounds.count or self.size > bounds.size or now - held[0].at > bounds.age):
            self._grow(-cost(held.popleft()))

    def clear(self) -> None:
        """Let go of all."""
        self._grow(-self.size)
        self.held.clear()

    def since(self, cursor: str) -> Missed:
        """Return what came after a cursor. Raises CursorError for one that this topic never gave."""
        self.trim(clock.monotonic())
        if cursor == EARLIEST:
            return Missed(list(self.held), True)
        epoch, offset = self.place_of(cursor)
        # Of another epoch, the log was lost, or is another server's.
        if epoch != self.epoch:
            return Missed([], False)
        if offset > self.offset:
            raise CursorError(f"the cursor is {excerpt(cursor)}, the last of the topic is {self.cursor}")
        count = self.offset - offset
        if count > len(self.held):
            return Missed([], False)
        return Missed(list(self.held)[len(self.held) - count :], True)

    def place_of(self, cursor: str) -> tuple[str, int]:
        """Return the epoch and the offset that a cursor stands for. Raises CursorError for what is none."""
        return parse_cursor(cursor)

    def _grow(self, size: int) -> None:
        self.size += size
        self.shelf.size += size


class Shelf:
    """The logs that hold something, or to which somebody may come back, bounded together; the last touched at its end.

    Nothing here needs a timer: what is too old is let go when something else is touched, or looked for.
    """

    __slots__ = ("bounds", "logs", "size")

    def __init__(self, bounds: History) -> None:
        self.bounds = bounds
        self.logs: OrderedDict[Log, None] = OrderedDict()
        self.size = 0

    def touch(self, log: Log, now: float) -> None:
        """Remember a log for as long as its publications are, from now on."""
        if self.bounds.count:
            log.touched = now
            self.logs[log] = None
            self.logs.move_to_end(log)

    def let_go(self, now: float) -> list[Log]:
        """Empty the logs that are too old, or too much, and return them: here they are forgotten."""
        gone = []
        bounds, logs = self.bounds, self.logs
        while logs:
            log = next(iter(logs))
            if now - log.touched <= bounds.age and self.size + TOPIC_COST * len(logs) <= bounds.total:
                break
            del logs[log]
            log.clear()
            gone.append(log)
        return gone


def cost(publication: Publication) -> int:
    """Return what a publication that is held takes of memory, in bytes."""
    return HELD_COST + COPIES * (publication.size - MESSAGE_COST)


def parse_cursor(cursor: object) -> tuple[str, int]:
    """Take a cursor apart into epoch and offset. Raises CursorError."""
    found = CURSOR.fullmatch(cursor) if isinstance(cursor, str) else None
    if found is None:
        shown = excerpt(cursor) if isinstance(cursor, str) else type(cursor).__name__
        raise CursorError(f"the cursor is {shown}, allowed is what a publication came with, an epoch and an offset")
    return found[1], int(found[2])


def join_cursors(cursors: Mapping[str, str]) -> str:
    """Return one cursor for several topics: `chat=5f0e:17&news=81aa:4`, names percent-encoded."""
    return "&".join([label(topic) + cursor for topic, cursor in cursors.items()])


@lru_cache(4096)
def label(topic: str) -> str:
    """Return what stands before the cursor of a topic in a joined one."""
    return f"{quote(topic, safe='/')}="


def cursor_of(since: str, topic: str) -> str:
    """Return the cursor for one topic out of a joined one, "" if it has none; others are returned as they are.

    Raises CursorError for one that is too long.
    """
    return cursors_of(since, [topic])[topic]


def cursors_of(since: str, topics: Iterable[str]) -> dict[str, str]:
    """Return the same for several topics: a joined cursor is taken apart once, for it may have thousands of parts."""
    if "=" not in since:
        return dict.fromkeys(topics, since)
    if len(since) > MAX_JOINED:
        raise CursorError(f"the cursor has {len(since)} characters, limit {MAX_JOINED}")
    cursors = {}
    # Of a name that stands there twice, the first one counts.
    for part in reversed(since.split("&")):
        name, _, cursor = part.partition("=")
        cursors[unquote(name)] = cursor
    return {topic: cursors.get(topic, "") for topic in topics}
