"""History: the last publications of each topic, and which of them a subscriber has missed.

Laws:
1. In one epoch an offset is given once, and each is one more than the one before: so a gap shows.
2. Whoever asks for what came since a cursor gets exactly that, or is told that it cannot be had; never a part of it,
   and nothing twice.
3. What is held is bounded, for each topic and for all together, and what falls out is the oldest.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any, NamedTuple

from rawws import clock
from rawws.net.prepared import PreparedMessage
from rawws.protocol.extensions import excerpt

from .cursors import EARLIEST, CursorError, parse_cursor

if TYPE_CHECKING:
    from collections.abc import Callable

    from rawws_sse import Event

    from .backplane import History
    from .presence import Present

__all__ = ["JOIN", "LEAVE", "MISSED", "MOVED", "HistoryStore", "Log", "Missed", "Notice", "Publication"]

# What a notice may tell.
JOIN, LEAVE, MISSED, MOVED = "join", "leave", "missed", "moved"

# The size of a publication is that of its message and so many bytes: those that wait are bounded in number as well.
MESSAGE_COST = 64
# What a publication that is held takes in bytes of memory, and how often its message: as it came, encoded, and framed,
# and the same of its envelope.
HELD_COST = 1280
COPIES = 6
# What a topic takes that is remembered, in bytes.
TOPIC_COST = 2048
EMPTY = PreparedMessage("")


class Publication:
    """A message of a topic, at its place there; it has none yet without an offset.

    What a client protocol makes of it is made once for all subscribers: `forms` has what WebSockets get, `events` what
    event streams get, each by what rendered it.
    """

    __slots__ = ("at", "cursor", "encoded", "epoch", "events", "forms", "key", "message", "offset", "size", "topic")

    def __init__(self, topic: str, encoded: PreparedMessage, key: Any = None, epoch: str = "", offset: int = 0) -> None:
        self.encoded = encoded
        self.topic = topic
        self.message = encoded.message
        # Which of the topic's things it is about, for those who want only the latest of each.
        self.key = key
        self.epoch = epoch
        self.offset = offset
        # Where it stands: what `since` takes.
        self.cursor = f"{epoch}:{offset}" if offset else ""
        self.at = clock.monotonic()
        self.size = len(encoded.payload) + MESSAGE_COST
        self.forms: dict[Callable[[Publication], str], PreparedMessage] | None = None
        self.events: dict[Callable[[Publication], str | None], Event] | None = None

    def __repr__(self) -> str:
        return f"<rawws.Publication {self.topic!r} {self.cursor}>"

    def move(self, epoch: str) -> None:
        """Have the same offset in another epoch."""
        self.epoch = epoch
        self.cursor = f"{epoch}:{self.offset}"
        self.forms = None
        self.events = None


class Notice(Publication):
    """What subscribers are told of a topic beside its messages: it has no place there, and who missed it misses it.

    `event` is JOIN or LEAVE of somebody `present`; or MISSED or MOVED, where subscribers are at `cursor` from now on,
    and it is not known what they missed, or known that it is nothing. `render` makes the text for those who speak no
    protocol.
    """

    __slots__ = ("event", "present")

    def __init__(
        self,
        topic: str,
        event: str,
        render: Callable[[Publication], str],
        *,
        present: Present | None = None,
        cursor: str = "",
    ) -> None:
        super().__init__(topic, EMPTY, ("place", event) if present is None else ("present", present.id))
        self.event = event
        self.present = present
        self.cursor = cursor
        self.encoded = PreparedMessage(render(self))
        self.message = self.encoded.message
        self.size = len(self.encoded.payload) + MESSAGE_COST


class Missed(NamedTuple):
    """What came since a cursor; `recovered` is False where that cannot be said, and then there are none."""

    publications: list[Publication]
    recovered: bool


class Log:
    """The publications of one topic that are held."""

    __slots__ = ("epoch", "held", "offset", "size", "store", "topic", "touched", "waiters")

    def __init__(self, topic: str, store: HistoryStore) -> None:
        self.topic = topic
        self.epoch = secrets.token_hex(6)
        # That of the last publication; the first one has 1.
        self.offset = 0
        self.store = store
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

    def append(self, encoded: PreparedMessage, key: Any = None) -> Publication:
        """Give a message its place, and hold it."""
        publication = Publication(self.topic, encoded, key, self.epoch, self.offset + 1)
        self.hold(publication)
        self.store.touch(self, publication.at)
        return publication

    def hold(self, publication: Publication) -> None:
        """Hold what has the next place."""
        self.offset = publication.offset
        if self.store.bounds.count:
            self.held.append(publication)
            self._grow(cost(publication))
            self.trim(publication.at)

    def trim(self, now: float) -> None:
        """Let go of what is over the bounds."""
        held, bounds = self.held, self.store.bounds
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
        self.store.size += size


class HistoryStore:
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
