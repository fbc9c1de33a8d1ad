"""Replicas: the log of a topic as the engine behind a backplane has it, and what is said here while that is away.

Laws:
1. A cursor of the engine's epoch stands for the same publication on every server.
2. While the engine is away, and until all that was said here meanwhile has its place there, subscribers are told
   cursors of an epoch of this server's own: with them they can come back to this one, and anywhere else they are told
   that it cannot be had. Where a loss is told, that epoch ends: who was not here then is told when it comes back.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, final

from rawws import clock

from .backplane import Position
from .cursors import EARLIEST, parse_cursor
from .history import HistoryStore, Log, MatchedPublication, Missed, Publication
from .patterns import Pattern

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rawws.net.prepared import PreparedMessage

    from .backplane import PresenceEntry, Record

__all__ = ["BEHIND", "LIVE", "ReplicaLog", "publication_of"]

# Live: all that comes is behind what is here. Else it waits, until the engine said what came between.
BEHIND, LIVE = range(2)
# How much waits so, in publications and in notices, and in bytes of text. What is over it is asked for once more.
MAX_BUFFER = 1000
MAX_BUFFER_SIZE = 4 << 20


def publication_of(record: Record, encoded: PreparedMessage) -> Publication:
    """Return the publication that a record is, with its message."""
    made = MatchedPublication if record.published else Publication
    topic = record.published or record.topic
    publication = made(topic, encoded, record.key, record.epoch, record.offset, record.extra)
    publication.at -= record.age
    return publication


@final
class RecordBuffer:
    """The publications that came last; what does not fit is missing, which is seen by its offset."""

    __slots__ = ("records", "size")

    def __init__(self) -> None:
        self.records: deque[Record] = deque()
        self.size = 0

    def __bool__(self) -> bool:
        return bool(self.records)

    def append(self, record: Record) -> None:
        """Have a record wait, and let go of those before it that are too much."""
        self.records.append(record)
        self.size += len(record.message) + len(record.extra)
        while len(self.records) > MAX_BUFFER or (self.size > MAX_BUFFER_SIZE and len(self.records) > 1):
            self.popleft()

    def popleft(self) -> Record:
        """Return the first one."""
        record = self.records.popleft()
        self.size -= len(record.message) + len(record.extra)
        return record

    def clear(self) -> None:
        """Let go of all."""
        self.records.clear()
        self.size = 0


@final
class ReplicaLog(Log):
    """A log whose places the engine gives."""

    __slots__ = ("before", "buffer", "entries", "fault", "local", "mixed", "shown", "state")

    def __init__(self, topic: str, store: HistoryStore) -> None:
        super().__init__(topic, store)
        # Until the engine says where the topic is.
        self.epoch = ""
        # The last offsets of the epochs that went over into this one: places up to there are good still.
        self.before: dict[str, int] = {}
        self.state = BEHIND
        # Whether the engine could not serve the topic when it was asked last.
        self.fault = False
        self.buffer = RecordBuffer()
        # What was told of those present before it is known who is, or which server is gone; None when it is known.
        self.entries: list[tuple[str, PresenceEntry] | str] | None = []
        # What subscribers get while the engine is away, under places of its own, and the numbers of what of it has not
        # come back from there; whether it also holds what came from there.
        self.local: Log | None = None
        self.shown: set[int] = set()
        self.mixed = False

    @property
    def cursor(self) -> str:
        """Where the topic is now, as subscribers are told; "" where that is not known."""
        if self.local is not None:
            return self.local.cursor
        return f"{self.epoch}:{self.offset}" if self.epoch else ""

    def reset(self, epoch: str, offset: int) -> None:
        """Begin anew at a place."""
        self.clear()
        self.epoch, self.offset, self.before = epoch, offset, {}

    def go_over(self, epoch: str, before: Iterable[Position]) -> None:
        """Go on in an epoch which those before went over into: also what is held has its cursors from now on."""
        self.epoch, self.before = epoch, dict(before)
        for publication in self.held:
            publication.move(epoch)

    def begin(self, record: Record) -> bool:
        """Go over into the epoch of the first publication of a topic, if a record is that; tell whether it is.

        A pattern has its epoch before; another one says that something may be lost.
        """
        if self.offset or record.offset != 1 or not self.epoch or isinstance(self.topic, Pattern):
            return False
        self.go_over(record.epoch, (*map(Position._make, self.before.items()), Position(self.epoch, 0)))
        return True

    def since(self, cursor: str) -> Missed:
        """Return what came after a cursor; what this server does not know cannot be had."""
        local = self.local
        if local is not None and cursor.startswith(f"{local.epoch}:"):
            return local.since(cursor)
        if cursor != EARLIEST and self.is_behind(cursor):
            return Missed([], False)
        earlier = super().since(cursor)
        if local is None:
            return earlier
        local.trim(clock.monotonic())
        if self.mixed or not earlier.recovered or len(local.held) < local.offset:
            return Missed(list(local.held), True) if cursor == EARLIEST else Missed([], False)
        return Missed([*earlier.publications, *local.held], True)

    def is_behind(self, cursor: str) -> bool:
        """Tell whether a cursor is ahead of what is known here. Raises CursorError for what is none.

        Before the first publication and behind it, a topic is in two epochs: the engine may know of one that is not
        known here.
        """
        epoch, offset = self.place_of(cursor)
        return offset > self.offset if epoch == self.epoch else not (offset and self.offset)

    def place_of(self, cursor: str) -> tuple[str, int]:
        """Return what a cursor stands for; one of an epoch that went over into this one is of this one now."""
        epoch, offset = parse_cursor(cursor)
        return self.epoch if offset <= self.before.get(epoch, -1) else epoch, offset

    def show(self, store: HistoryStore, publication: Publication) -> Publication:
        """Return a publication as subscribers are told of it now."""
        if self.local is None:
            self.local = Log(self.topic, store)
        if not isinstance(self.topic, Pattern):
            return self.local.append(publication.encoded, publication.key, publication.extra)
        matched = self.local.match(publication)
        store.touch(self.local, matched.at)
        return matched

    def renew(self) -> None:
        """Have what was said here alone stand in another epoch: cursors of the one before cannot be had any more."""
        before = self.local
        if before is None:
            return
        self.local = Log(self.topic, before.store)
        self.local.offset = before.offset - len(before.held)
        for each in before.held:
            # What is queued for a slow subscriber keeps its cursor: it stands before the loss.
            said = each.encoded, each.key, self.local.epoch, self.local.offset + 1, each.extra
            publication = type(each)(each.topic, *said)
            publication.at = each.at
            self.local.hold(publication)
        self.local.store.touch(self.local, clock.monotonic())
        before.clear()

    def release(self) -> None:
        """Let go of those who wait for the topic's place."""
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter()
