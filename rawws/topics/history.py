"""History: the last publications of each topic, and which of them a subscriber has missed.

Laws:
1. In one epoch an offset is given once, and each is one more than the one before: so a gap shows.
2. Whoever asks for what came since a cursor gets exactly that, or is told that it cannot be had; never a part of it,
   and nothing twice.
3. What is held is bounded, for each topic and for all together, and what falls out is the oldest.
4. A publication is held as one frame. What is made of it for its subscribers is counted in a cache, and made again.
"""

from __future__ import annotations

import json
import secrets
import sys
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any, NamedTuple

from rawws import clock
from rawws.net.prepared import FORM_COST, FormCache, PreparedMessage
from rawws.protocol.extensions import excerpt
from rawws_sse import Event

from .cursors import EARLIEST, CursorError, parse_cursor
from .patterns import text_of
from .payloads import members_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from .backplane import History
    from .presence import Present

__all__ = [
    "ENDED",
    "FAULT",
    "JOIN",
    "LEAVE",
    "MISSED",
    "MOVED",
    "HistoryStore",
    "Log",
    "MatchedPublication",
    "Missed",
    "Notice",
    "Publication",
]

# What a notice may tell.
JOIN, LEAVE, MISSED, MOVED, FAULT, ENDED = "join", "leave", "missed", "moved", "fault", "ended"

# The size of a publication that waits is that of its message and so many bytes: it has places in the queue of its
# subscriber and among those of its subscription.
MESSAGE_COST = 512
# What a publication that is held takes in bytes of memory, beside its frame and its key.
HELD_COST = 768
# What a topic takes that is remembered, in bytes.
TOPIC_COST = 2048
# Of the bytes of all topics together, the forms of their publications take as many again, divided by this: enough for
# those who come back together, or read slowly together. Where little is held, so many: a form of the largest message.
FORMS_SHARE = 8
LEAST_FORMS = 1 << 20
EMPTY = PreparedMessage("")
# An empty deque takes 600 bytes, and a client may subscribe to a thousand topics of which nothing is held.
NOTHING_HELD: deque[Publication] = deque()


class Publication:
    """A message of a topic, at its place there; it has none yet without an offset.

    What a client protocol makes of it is made once for all subscribers: `forms` has what WebSockets get, `events` what
    event streams get, each by what rendered it. `cache` counts them, if it is set.
    """

    __slots__ = (
        "__weakref__", "at", "cache", "channel", "cursor", "encoded", "epoch", "events", "extra", "forms", "key",
        "offset", "size", "topic",
    )  # fmt: skip

    def __init__(
        self,
        topic: str,
        encoded: PreparedMessage,
        key: Any = None,
        epoch: str = "",
        offset: int = 0,
        extra: str = "",
    ) -> None:
        self.encoded = encoded
        # What goes beside the message, as JSON without braces: `"json":true,"event":"move"`.
        self.extra = extra
        # Where it was published, and what those who get it are subscribed to.
        self.topic = self.channel = topic
        # Which of the topic's things it is about, for those who want only the latest of each.
        self.key = key
        self.epoch = epoch
        self.offset = offset
        # Where it stands: what `since` takes.
        self.cursor = f"{epoch}:{offset}" if offset else ""
        self.at = clock.monotonic()
        self.size = encoded.size + len(extra) + MESSAGE_COST
        self.forms: dict[Callable[[Publication], str], PreparedMessage] | None = None
        self.events: dict[Callable[[Publication], str | None], Event] | None = None
        self.cache: FormCache | None = None

    def __repr__(self) -> str:
        return f"<rawws.Publication {self.topic!r} {self.cursor}>"

    @property
    def message(self) -> str | bytes:
        """The message, made of its frame: str for text, bytes for binary."""
        return self.encoded.message

    @property
    def event(self) -> str | None:
        """The name of the event that it is, None where it was published under no name."""
        event: str | None = members_of(self.extra).get("event")
        return event

    @property
    def user(self) -> str | None:
        """Who published it, as the server knows; None where it does not."""
        user: str | None = members_of(self.extra).get("user")
        return user

    @property
    def pattern(self) -> str | None:
        """The pattern by which it came, and whose cursor it has; None where it came by the name of its topic."""
        return None

    @property
    def is_json(self) -> bool:
        """Whether it was published as JSON: its message is then the text of that."""
        return members_of(self.extra).get("json") is True

    def json(self) -> Any:
        """Return the value that the message is as JSON. Raises ValueError for a message that is none."""
        return json.loads(self.message)

    def move(self, epoch: str) -> None:
        """Have the same offset in another epoch."""
        self.epoch = epoch
        self.cursor = f"{epoch}:{self.offset}"
        self.forget_forms()

    def adopt(self, topic: str, cache: FormCache) -> None:
        """Share the text of a topic's name with others of it, and have a cache count the forms from now on."""
        self.topic = self.channel = topic
        self.cache = self.encoded.cache = cache

    def form_of(self, render: Callable[[Publication], str]) -> PreparedMessage:
        """Return what WebSockets get of it by a client protocol, made once."""
        if self.forms is None:
            self.forms = {}
        form = self.forms.get(render)
        if form is None:
            form = self.forms[render] = PreparedMessage(render(self))
            if self.cache is not None:
                form.cache = self.cache
                self.cache.keep(self, FORM_COST + form.size)
        return form

    def event_of(self, render: Callable[[Publication], str | None], at: str | None, name: str | None = None) -> Event:
        """Return what event streams get of it that are at this id, made once for all that are as far.

        `name` is that of the event, the same for all by this `render`.
        """
        if self.events is None:
            self.events = {}
        event = known = self.events.get(render)
        if event is None or event.id != at:
            event = self.events[render] = Event(render(self) if known is None else known.data, name, at)
            if self.cache is not None:
                # The text stays, the id may be 4 KiB.
                data = FORM_COST + sys.getsizeof(event.data) if known is None else -sys.getsizeof(known.id)
                self.cache.keep(self, data + sys.getsizeof(at))
        return event

    def forget_forms(self) -> None:
        """Hold no forms any more."""
        self.forms = None
        self.events = None


class MatchedPublication(Publication):
    """A publication at its place in a pattern for its topic."""

    __slots__ = ()

    @property
    def pattern(self) -> str:
        """The pattern by which it came."""
        return text_of(self.channel)

    def adopt(self, topic: str, cache: FormCache) -> None:
        """Share the name of its pattern, and have a cache count the forms from now on."""
        self.channel = topic
        self.cache = cache


class Notice(Publication):
    """What subscribers are told of a topic beside its messages: it has no place there, and who missed it misses it.

    `event` is JOIN or LEAVE of somebody `present`; or MISSED or MOVED, where subscribers are at `cursor` from now on,
    and it is not known what they missed, or known that it is nothing; or FAULT, where the backplane cannot serve the
    topic for now; or ENDED, where the application ended the subscription, and `extra` may have the reason. `render`
    makes the text for those who speak no protocol.
    """

    __slots__ = ("kind", "present")

    def __init__(
        self,
        topic: str,
        event: str,
        render: Callable[[Publication], str],
        *,
        present: Present | None = None,
        cursor: str = "",
        extra: str = "",
    ) -> None:
        key = ("place", event) if present is None else ("present", present.id)
        super().__init__(topic, EMPTY, key, extra=extra)
        self.kind = event
        self.present = present
        self.cursor = cursor
        self.encoded = PreparedMessage(render(self))
        self.size = self.encoded.size + MESSAGE_COST

    @property
    def event(self) -> str:
        """What it tells."""
        return self.kind


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
        self.held = NOTHING_HELD
        # In bytes of memory.
        self.size = 0
        self.touched = 0.0
        # Those who wait until it is known where the topic is; without a backplane, that is always known.
        self.waiters: list[Callable[[], None]] = []

    @property
    def cursor(self) -> str:
        """Where the topic is now."""
        return f"{self.epoch}:{self.offset}"

    def append(self, encoded: PreparedMessage, key: Any = None, extra: str = "") -> Publication:
        """Give a message its place, and hold it."""
        publication = Publication(self.topic, encoded, key, self.epoch, self.offset + 1, extra)
        self.hold(publication)
        self.store.touch(self, publication.at)
        return publication

    def match(self, publication: Publication) -> Publication:
        """Give what was published to a topic a place here, too, and hold it: this is the log of a pattern."""
        said = publication.encoded, publication.key, self.epoch, self.offset + 1, publication.extra
        matched = MatchedPublication(publication.topic, *said)
        matched.at = publication.at
        self.hold(matched)
        return matched

    def hold(self, publication: Publication) -> None:
        """Hold what has the next place."""
        self.offset = publication.offset
        publication.adopt(self.topic, self.store.forms)
        if self.store.bounds.count:
            if not self.held:
                self.held = deque()
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
        self.held = NOTHING_HELD

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

    Nothing here needs a timer: what is too old is let go when something else is touched, or looked for. `forms` has
    what was made of the publications, and a bound of its own.
    """

    __slots__ = ("bounds", "forms", "logs", "size")

    def __init__(self, bounds: History) -> None:
        self.bounds = bounds
        self.logs: OrderedDict[Log, None] = OrderedDict()
        self.size = 0
        self.forms = FormCache(max(bounds.total // FORMS_SHARE, LEAST_FORMS))

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
    key, extra = publication.key, publication.extra
    size = HELD_COST + len(publication.encoded.plain) + (0 if key is None else sys.getsizeof(key))
    return size + sys.getsizeof(extra) if extra else size
