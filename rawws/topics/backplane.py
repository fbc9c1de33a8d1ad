"""Backplanes: what joins the hubs of several servers, so that they give each topic one order and one history.

The engine behind a backplane (a Redis, a broker, a cluster) is the authority: a publication has its place when the
engine gave it one, and reaches every hub, also that which published it, from there.

Laws, which `tests/backplanes` holds every backplane to:
1. In one epoch of a topic, an offset is given once, and each is one more than the one before. A hub so sees a gap, and
   asks `history` for it.
2. An engine that lost what it gave, or may have, begins a new epoch before it gives an offset again.
3. A publication has an origin, the server and a number that grows; the engine takes each at most once. A hub may so
   publish again what it does not know to have arrived.
4. What one server publishes to a topic goes in the order of its calls, as long as the engine is not away.
5. No callback is made from inside a call, and none after `close`.
6. Nothing here waits without end: where the engine goes away, all futures fail with BackplaneAway. An engine of several
   nodes may be away for some topics: that is said of those, their futures fail, and all others go on.
7. What is wrong with one topic is that topic's: its futures fail with TopicUnavailable, and all others go on. What is
   mended in the engine is served again, without anybody connecting anew.
8. A topic that was never published to takes no memory of the engine, whoever asked for it.
9. A pattern (rawws/topics/patterns.py) that is followed has a log as a topic has, for which the other laws hold. What
   is published to a topic has a place in it and in each such pattern for it, in one step. An engine that cannot says so
   by `patterns`.

How it fits other engines:
- NATS JetStream (rawws/backplanes/nats.py): a subject per topic in one stream. Place and origin are in a header, and
  written under Nats-Expected-Last-Subject-Sequence: who was overtaken, or was not answered, reads the last message and
  tries again. What is stored comes by the server's republishing, `history` is direct get, and a lease is a message that
  expires.
- Kafka (rawws/backplanes/kafka.py): publications, who is present and leases are records of one Kafka topic, which every
  server reads whole; each counts the publications of a topic in the order of its partition, from checkpoints in a
  compacted topic.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, final

from rawws.errors import RawwsError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Container, Mapping

__all__ = [
    "ALL_TOPICS",
    "NO_TOPICS",
    "Backplane",
    "BackplaneAway",
    "BackplaneHandler",
    "History",
    "HistoryResult",
    "Placed",
    "Position",
    "PresenceEntry",
    "Record",
    "TopicUnavailable",
    "new_answer",
    "new_entry",
    "new_placed",
    "new_position",
    "new_record",
]

# What a cursor may be made of (rawws.v1): a topic whose engine says anything else could not be come back to.
EPOCH = re.compile(r"[\w-]{1,32}", re.ASCII)
OFFSETS = range(10**18)
# Those of hubs have twelve.
MAX_IDENT = 64


@final
class AllTopics:
    """Has each topic, whatever its name."""

    __slots__ = ()

    def __contains__(self, topic: object) -> bool:
        return True


# What an engine may be away for, beside those topics that some of its nodes serve.
ALL_TOPICS: Final[Container[str]] = AllTopics()
NO_TOPICS: Final[Container[str]] = frozenset()


class BackplaneAway(RawwsError, ConnectionError):
    """The engine cannot be reached, or went away before it answered: whether it did what it was asked is not known."""


class TopicUnavailable(RawwsError):
    """The engine works, and cannot serve one topic: what it has of it cannot be read, or it refuses to write it."""

    def __init__(self, topic: str, reason: str) -> None:
        super().__init__(f"the topic {topic!r} is unavailable: {reason}")
        self.topic = topic
        self.reason = reason


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


class Position(NamedTuple):
    """The place of a publication in its topic; offset 0 is that before the first one."""

    epoch: str
    offset: int


@final
class Placed(Position):
    """The place of a publication in its topic, and where the patterns for that are behind it: there, or beyond."""

    patterns: Mapping[str, Position]

    def __new__(cls, epoch: str, offset: int, patterns: Mapping[str, Position]) -> Placed:
        """Return a place; equal to it is the position without the patterns."""
        made = super().__new__(cls, epoch, offset)
        made.patterns = patterns
        return made


class Record(NamedTuple):
    """A publication as the engine gives it: its place, what it says, and which server published it as which number.

    `extra` is what goes beside the message, as JSON without braces: `"json":true,"event":"move"`. `age` is how many
    seconds ago it was published, where the engine had it in its history: hubs hold it for no longer than that allows.
    Where `topic` is a pattern, `published` is the topic that it was published to.
    """

    topic: str
    epoch: str
    offset: int
    message: str | bytes
    key: str | None
    server: str
    number: int
    extra: str = ""
    age: float = 0.0
    published: str = ""


class HistoryResult(NamedTuple):
    """Where a topic is now, and the records that lead there; none, where `recovered` is False.

    `began` is the offset at which the epoch begins. `before` has the last places of the epochs that went over into it
    without a loss: their places up to there are good still.
    """

    epoch: str
    offset: int
    records: list[Record]
    recovered: bool
    began: int = 0
    before: tuple[Position, ...] = ()


class PresenceEntry(NamedTuple):
    """Somebody present in a topic: at which server, under which id, and what it tells of itself, as JSON."""

    server: str
    id: str
    info: str


def new_answer(loop: asyncio.AbstractEventLoop) -> asyncio.Future[Any]:
    """Return a future for an answer; where nobody waits for it, nobody is told that it failed."""
    answer: asyncio.Future[Any] = loop.create_future()
    answer.add_done_callback(lambda done: done.cancelled() or done.exception())
    return answer


def new_position(epoch: object, offset: object) -> Position:
    """Return a position that an engine told. Raises ValueError for one that no topic can have."""
    if not isinstance(epoch, str) or EPOCH.fullmatch(epoch) is None:
        raise ValueError(f"the epoch is {str(epoch)[:64]!r}, allowed are 1 to 32 letters, digits, _ and -")
    if not isinstance(offset, int) or offset not in OFFSETS:
        raise ValueError(f"the offset is {str(offset)[:64]!r}, allowed are integers from 0 to 10^18 - 1")
    return Position(epoch, offset)


def new_placed(place: tuple[object, object], patterns: Mapping[str, tuple[object, object]]) -> Placed:
    """Return a place that an engine told, and those of the patterns. Raises ValueError for what is none."""
    return Placed(*new_position(*place), {name: new_position(*each) for name, each in patterns.items()})


def new_record(
    topic: object,
    epoch: object,
    offset: object,
    message: object,
    key: object,
    server: object,
    number: object,
    extra: object = "",
    age: object = 0.0,
    published: object = "",
) -> Record:
    """Return a record that an engine told. Raises ValueError for one that no server can have published."""
    position = new_position(epoch, offset)
    if not (
        isinstance(topic, str)
        and isinstance(message, (str, bytes))
        and (key is None or isinstance(key, str))
        and isinstance(server, str)
        and isinstance(number, int)
        and isinstance(extra, str)
        and isinstance(age, (int, float))
        and isinstance(published, str)
        and offset
    ):
        raise ValueError("it is no record, needed are a topic, an offset, a message, a key, a server and a number")
    return Record(topic, *position, message, key, server, number, extra, max(0.0, age), published)


def new_entry(server: object, ident: object, info: object) -> PresenceEntry:
    """Return who is present, as an engine told. Raises ValueError for who cannot be."""
    if isinstance(server, str) and isinstance(ident, str) and isinstance(info, str):
        if server and 0 < len(ident) <= MAX_IDENT and ident.isprintable():
            return PresenceEntry(server, ident, info)
    raise ValueError(f"it is nobody present, needed are a server, an id of 1 to {MAX_IDENT} characters, and a text")


class BackplaneHandler(Protocol):
    """What a hub hears of its backplane. The calls come one after the other, in the loop that opened the backplane."""

    def on_record(self, record: Record) -> None:
        """Take a publication of a followed topic; those of one topic come by ascending offsets, once."""

    def on_presence(self, topic: str, event: str, entry: PresenceEntry) -> None:
        """Hear that somebody did "join" or "leave" a followed topic; it may be known already."""

    def on_server_gone(self, server: str, topics: Container[str] = ALL_TOPICS) -> None:
        """Hear that a server's lease ran out: those present there are so no more, in any of these topics."""

    def on_doubt(self, topic: str, reason: str = "") -> None:
        """Hear that it is not known any more where a followed topic is: the hub asks.

        With a reason, something of the topic could not be read, or was refused where no future says so.
        """

    def on_away(self, reason: str, away: Container[str] = ALL_TOPICS) -> None:
        """Hear that the engine cannot be reached for more topics: in `away` are all for which it is away now.

        It is reached for all others, also where this is the first call. It is tried again until `close`; of each topic
        this is told once.
        """

    def on_back(self, away: Container[str] = NO_TOPICS) -> None:
        """Hear that the engine is reached, for the first time or again, for all topics but those in `away`.

        None of those that come back is followed then: the hub follows them again, and asks `history` and `presence` for
        what came meanwhile.
        """


class Backplane(Protocol):
    """A connection of one hub to an engine. All topics are checked names (1 to 255 bytes of UTF-8), or Patterns."""

    @property
    def patterns(self) -> bool:
        """Whether `follow` and `history` take a Pattern, too."""

    def open(self, server: str, history: History, handler: BackplaneHandler) -> None:
        """Begin to reach the engine, for the server of this name, in the running loop: on_back or on_away follows.

        The engine holds of each topic what `history` says, and remembers its place for longer.
        """

    async def close(self) -> None:
        """End the server's lease, with all that are present by it, and the connection."""

    def publish(
        self, topic: str, message: str | bytes, key: str | None, number: int, extra: str = ""
    ) -> asyncio.Future[Position]:
        """Give a message its place, hold it, and send it to all that follow the topic: all of that, or nothing.

        `extra` goes with the message, as that of a Record.
        The future has its place, as Placed where there are patterns for the topic. Where the engine has this origin
        already, nothing is published, and the place is that of the first time, or has offset 0 where that is not known
        any more. It fails with TopicUnavailable where the engine refuses it and will not take it.
        """

    def follow(self, topic: str) -> asyncio.Future[None]:
        """Have the handler told of a topic. What is published after the future is done reaches it.

        A pattern has a log from then on, or from when `history` is asked for it; when nobody follows it, that is
        forgotten as those of topics are.

        As those of `history` and `presence`, the future fails with BackplaneAway where the engine is away, and with
        TopicUnavailable where it can say nothing of this topic.
        """

    def unfollow(self, topic: str) -> None:
        """Have the handler told of a topic no more; what is on its way may still come."""

    def history(self, topic: str, since: Position | None) -> asyncio.Future[HistoryResult]:
        """Ask for the records behind a position, for all that are held with None.

        `recovered` is False for a position of an epoch that did not go over into this one, and for one from where on
        something is held no more. One that is ahead was given by the engine, so that has lost something.

        A topic that was never published to is at offset 0 of an epoch that says so, the same for all who ask. It goes
        over into the epoch of the first publication, and, where the engine gives it another name with time, into that:
        the last name is good still.
        """

    def join(self, topic: str, ident: str, info: str) -> None:
        """Have somebody present, and tell those who follow the topic, the own handler too.

        It acts at once. The backplane remembers it, and says it again where the engine was away or the lease ran out.
        """

    def leave(self, topic: str, ident: str) -> None:
        """Have somebody present no more, and tell those who follow the topic."""

    def presence(self, topic: str) -> asyncio.Future[list[PresenceEntry]]:
        """Ask who is present in a topic, at servers whose lease runs."""

    def stats(self) -> dict[str, int]:
        """Return what it counted: "retries" to reach the engine, and what it sees fit."""
