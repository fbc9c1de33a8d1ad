"""Subscriptions: what a hub says of a topic to what each of those gets that are subscribed to it in this program.

Laws:
1. A cursor only goes forward: whatever connection brings a publication, each subscription gets it once.
2. What is not known to have come is told, in its place: by a publication whose `recovered` is False.
3. What waits is bounded: a full subscription takes nothing, and what it missed is asked for when there is room again.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from rawws.errors import HubError

from .envelopes import channel_key, check_length

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .envelopes import HubEnvelope, TopicMember

__all__ = [
    "EARLIEST_CURSOR",
    "SLOW_POLICIES",
    "Channel",
    "ReceivedPublication",
    "SubscriptionStart",
    "TopicHistory",
    "TopicPresence",
    "TopicReceiver",
    "received_of",
]

# Stands for a cursor before the first publication that the hub holds.
EARLIEST_CURSOR: Final = "earliest"
CURSOR: Final = re.compile(r"(.*):([0-9]{1,18})", re.DOTALL)
# What becomes of publications for which a subscription has no room.
SLOW_POLICIES: Final = ("resume", "drop_oldest", "disconnect")
# What a hub says of a topic that its application took from this client.
UNSUBSCRIBED: Final = "unsubscribed"
# Who is present is listed up to so many; a server lists no more.
MAX_LISTED = 1000


class ReceivedPublication(NamedTuple):
    """What came of a topic: a `message`, a str or bytes.

    Where `recovered` is False, it is none, and empty: publications before `cursor` are lost, and it is not known which.
    """

    topic: str
    #: Behind which publication this one leaves the subscription: the `since` of another time.
    cursor: str
    message: str | bytes = ""
    recovered: bool = True
    #: The name of the event that it is, None where it was published under no name.
    event: str | None = None
    #: Who published it, as the server knows; None where it does not say so.
    user: str | None = None
    #: Whether it was published as JSON: its message is then the text of that.
    is_json: bool = False

    def json(self) -> Any:
        """Return what the message says as JSON. Raises ValueError for what is none."""
        return json.loads(self.message)


class SubscriptionStart(NamedTuple):
    """Where a subscription begins; `recovered` is False where it is not known what was missed since its cursor."""

    cursor: str
    recovered: bool


@dataclass(frozen=True, slots=True)
class TopicPresence:
    """Who is present in a topic: ids, with who that is, at most 1,000 of them, and how many they are.

    `users` is how many users they are, None where the server did not say. `join` or `leave` is the one who came or
    went, with which it became so; None where a whole list came.
    """

    members: dict[str, TopicMember]
    count: int
    users: int | None = None
    join: tuple[str, TopicMember] | None = None
    leave: tuple[str, TopicMember] | None = None


@dataclass(frozen=True, slots=True)
class TopicHistory:
    """What is held of a topic, in its order; `cursor` is where to go on, and `recovered` whether all until there came.

    Iterating gives the publications.
    """

    publications: tuple[ReceivedPublication, ...]
    cursor: str
    recovered: bool

    def __iter__(self) -> Iterator[ReceivedPublication]:
        return iter(self.publications)

    def __len__(self) -> int:
        return len(self.publications)


def received_of(topic: str, envelope: HubEnvelope) -> ReceivedPublication:
    """Return what an envelope says that is a publication."""
    message = "" if envelope.message is None else envelope.message
    return ReceivedPublication(
        topic, envelope.cursor, message, event=envelope.event, user=envelope.user, is_json=envelope.is_json
    )


def is_behind(ours: str, theirs: str) -> bool:
    """Tell whether a cursor is before another one, as far as that can be known: of different epochs each one is."""
    (epoch, offset), (other, following) = parse_place(ours), parse_place(theirs)
    return epoch != other or offset < following


def parse_place(cursor: str) -> tuple[str, int]:
    """Take a cursor apart into epoch and offset; what is none is an epoch of its own."""
    found = CURSOR.fullmatch(cursor)
    return (cursor, 0) if found is None else (found[1], int(found[2]))


def take_no_notice(future: asyncio.Future[SubscriptionStart]) -> None:
    """Look at how a future ended, so that nobody is told that nobody did."""
    if not future.cancelled():
        future.exception()


@final
class TopicReceiver:
    """One subscription: what waits for its reader, at most `count` publications and `size` bytes of messages."""

    __slots__ = (
        "_buffer",
        "_drained",
        "_error",
        "_gap",
        "_limits",
        "_over",
        "_policy",
        "_size",
        "_waiter",
        "behind",
        "cursor",
        "on_presence",
        "started",
        "told",
        "topic",
    )

    def __init__(
        self,
        topic: str,
        cursor: str,
        told: str | None,
        policy: str,
        limits: tuple[int, int],
        on_presence: Callable[[TopicPresence], object] | None,
    ) -> None:
        self.topic = topic
        # Behind which publication it is, with those that wait.
        self.cursor = cursor
        # What it tells of this program to others, as JSON.
        self.told = told
        self.on_presence = on_presence
        # When the hub has accepted it, for the first time.
        self.started: asyncio.Future[SubscriptionStart] = asyncio.get_running_loop().create_future()
        self.started.add_done_callback(take_no_notice)
        # Whether it was full, and has to be brought what it missed.
        self.behind = False
        self._policy = policy
        self._limits = limits
        self._buffer: deque[ReceivedPublication] = deque()
        self._size = 0
        # The cursor behind what is lost and was not told yet, None where nothing is.
        self._gap: str | None = None
        self._error: HubError | None = None
        self._over = False
        self._waiter: asyncio.Future[None] | None = None
        self._drained: Callable[[], object] | None = None

    # -- what its channel calls

    def begin(self, cursor: str, recovered: bool) -> None:
        """Go on at a cursor."""
        # One that is behind asks by its own cursor later.
        if self._over or self.behind:
            return
        # What another connection brought meanwhile counts.
        if not recovered or is_behind(self.cursor, cursor):
            self.cursor = cursor
        if not self.started.done():
            self.started.set_result(SubscriptionStart(cursor, recovered))
        if not recovered:
            self._lose(cursor)

    def take(self, publication: ReceivedPublication) -> None:
        """Take a publication, if it is not known yet and there is room."""
        cursor = publication.cursor
        if self._over or not is_behind(self.cursor, cursor):
            return
        if self.behind or self._is_full(publication):
            if self._policy == "resume":
                self.behind = True
                # From a server that cannot reach the others for now, it has no cursor, and cannot be asked for.
                self._gap = self.cursor if not cursor else self._gap
                return
            if self._policy == "disconnect":
                self.end(HubError("slow", f"over {self._limits[0]} publications or {self._limits[1]} bytes waited"))
                return
            while self._buffer and self._is_full(publication):
                self._gap = self._pop().cursor
        self.cursor = cursor or self.cursor
        self._buffer.append(publication)
        self._size += len(publication.message)
        self._wake()

    def end(self, error: HubError | None = None) -> None:
        """End behind what waits; an error is raised then."""
        if self._over:
            return
        self._over = True
        self._error = error
        if not self.started.done():
            self.started.set_exception(error or HubError("closed", "the subscription was closed"))
        self._wake()

    @property
    def over(self) -> bool:
        """Whether nothing more comes."""
        return self._over

    # -- what its reader calls

    def drop(self) -> None:
        """Drop what waits."""
        self._buffer.clear()
        self._size = 0
        self._gap = self._error = None

    async def next(self, drained: Callable[[], object]) -> ReceivedPublication | None:
        """Return what comes next, None at the end; call `drained` where there is room again. Raises HubError."""
        while not self._buffer and self._gap is None:
            if self._over:
                error, self._error = self._error, None
                if error is not None:
                    raise error
                return None
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._gap is not None and self._policy == "drop_oldest":
            return self._take_gap(self._gap)
        if not self._buffer:
            return self._take_gap(self._gap or self.cursor)
        publication = self._pop()
        if self.behind and not self._over and 2 * len(self._buffer) <= self._limits[0] and self._has_half():
            self.behind = False
            drained()
        return publication

    # -- inside

    def _has_half(self) -> bool:
        return 2 * self._size <= self._limits[1]

    def _is_full(self, publication: ReceivedPublication) -> bool:
        """Tell whether there is no room; a message that is larger than all of it is taken alone."""
        count, size = self._limits
        return bool(self._buffer) and (len(self._buffer) >= count or self._size + len(publication.message) > size)

    def _lose(self, cursor: str) -> None:
        """Tell that something is lost, behind what waits; once, where nothing came since."""
        if self._buffer and not self._buffer[-1].recovered:
            self._buffer.pop()
        self._buffer.append(ReceivedPublication(self.topic, cursor, recovered=False))
        self._wake()

    def _pop(self) -> ReceivedPublication:
        publication = self._buffer.popleft()
        self._size -= len(publication.message)
        return publication

    def _take_gap(self, cursor: str) -> ReceivedPublication:
        self._gap = None
        return ReceivedPublication(self.topic, cursor, recovered=False)

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


@final
class Channel:
    """What the subscriptions to one topic, or by one pattern, share: what the connection brings of it."""

    __slots__ = (
        "_on_error",
        "count",
        "cursor",
        "entry",
        "key",
        "live",
        "members",
        "pattern",
        "present",
        "receivers",
        "topic",
        "watch",
    )

    def __init__(self, topic: str, on_error: Callable[[str, Exception], object], *, pattern: bool = False) -> None:
        self.topic = topic
        # Whether that is a pattern, and what it is known by.
        self.pattern = pattern
        self.key = channel_key(topic, pattern=pattern)
        # In the order in which they came.
        self.receivers: dict[TopicReceiver, None] = {}
        self.watch = False
        # Whether the connection brings it, and by which request over a WebSocket; 0 is none.
        self.live = False
        self.entry = 0
        # Behind which publication the connection is.
        self.cursor = ""
        # Who is present, and the own id there.
        self.members: dict[str, TopicMember] = {}
        self.count = 0
        self.present: str | None = None
        self._on_error = on_error

    @property
    def field(self) -> tuple[str, str]:
        """The field of a query that asks for it."""
        return "pattern" if self.pattern else "topic", self.topic

    @property
    def told(self) -> str | None:
        """What is told of this program to others, as JSON."""
        return next((receiver.told for receiver in self.receivers if receiver.told is not None), None)

    @property
    def wanted(self) -> bool:
        """Whether the connection shall bring it: not while all that would take it are full."""
        return self.watch or self.told is not None or any(not receiver.behind for receiver in self.receivers)

    @property
    def since(self) -> str:
        """The cursor that none of the subscriptions is before."""
        cursors = [receiver.cursor for receiver in self.receivers if receiver.cursor and not receiver.behind]
        if EARLIEST_CURSOR in cursors:
            return EARLIEST_CURSOR
        least = cursors[0] if cursors else ""
        for cursor in cursors:
            least = least if is_behind(least, cursor) else cursor
        return least

    def begin(self, envelope: HubEnvelope, since: str = "") -> bool:
        """Take the answer to a request since a cursor, or a new cursor.

        Where what was missed since the least of all cursors is lost, return True if others have to be asked for again.
        """
        cursor, recovered = envelope.cursor, bool(envelope.recovered)
        check_length("cursor", cursor)
        was, self.live, self.cursor = self.live, True, cursor
        if envelope.id is not None:
            self.present = envelope.present
        if envelope.members is not None:
            self.list(envelope.members, envelope.total)
        unsure = False
        for receiver in tuple(self.receivers):
            ours = receiver.cursor
            if recovered:
                known = was or not ours or since == EARLIEST_CURSOR or not is_behind(ours, since)
                receiver.begin(cursor, known)
            elif since and ours not in {"", since, cursor} and not receiver.behind:
                unsure = True
            else:
                receiver.begin(cursor, ours == cursor)
        self.live = not unsure
        return unsure

    def admit(self, receiver: TopicReceiver) -> None:
        """Have a subscription begin where the others are."""
        if self.live and receiver in self.receivers:
            receiver.begin(self.cursor, recovered=True)
            self._tell(None, None)

    def take(self, envelope: HubEnvelope, since: str = "") -> bool:
        """Take what came: a publication, somebody who came or went, or a new cursor. Return what `begin` does."""
        if envelope.error == UNSUBSCRIBED:
            self.end(HubError(envelope.error, envelope.reason))
            self.leave()
        if envelope.error:
            return False  # it cannot be served for now: what is missed follows, or a cursor that says it is lost
        if envelope.recovered is not None:
            return self.begin(envelope, since)
        if not self.live:
            return False
        if envelope.join is not None or envelope.leave is not None:
            self._move(envelope.join, envelope.leave)
        elif envelope.message is not None:
            check_length("cursor", envelope.cursor)
            self.cursor = envelope.cursor or self.cursor
            publication = received_of(envelope.topic, envelope)
            for receiver in tuple(self.receivers):
                receiver.take(publication)
                if receiver.over:
                    del self.receivers[receiver]
        return False

    def list(self, members: dict[str, TopicMember], count: int) -> None:
        """Take the list of who is present."""
        self.members, self.count = members, count
        self._tell(None, None)

    def end(self, error: HubError | None, cursor: str | None = None) -> None:
        """End all subscriptions, or those at a cursor."""
        for receiver in tuple(self.receivers):
            if cursor is None or receiver.cursor == cursor:
                del self.receivers[receiver]
                receiver.end(None if error is None else HubError(error.code, error.reason, error.status))

    def leave(self) -> None:
        """Forget that a connection brings it."""
        self.live = False
        self.entry = 0

    def _move(self, join: tuple[str, TopicMember] | None, leave: tuple[str, TopicMember] | None) -> None:
        members = dict(self.members)
        if join is not None:
            self.count += join[0] not in members
            if join[0] in members or len(members) < MAX_LISTED:
                members[join[0]] = join[1]
        if leave is not None:
            self.count -= 1
            members.pop(leave[0], None)
        self.members = members
        self._tell(join, leave)

    def _tell(self, join: tuple[str, TopicMember] | None, leave: tuple[str, TopicMember] | None) -> None:
        if not self.watch:
            return
        change = TopicPresence(self.members, self.count, None, join, leave)
        for receiver in tuple(self.receivers):
            if receiver.on_presence is not None:
                try:
                    receiver.on_presence(change)
                except Exception as error:  # noqa: BLE001 - whatever it raises, it disturbs nobody else
                    self._on_error("on_presence", error)
