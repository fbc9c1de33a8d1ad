"""NATS starts: names for the place where a topic is to which nothing was published yet.

A start is a message in the log of all topics. The stream drops its oldest messages first: so as long as a start is
there, nothing is missing that was published behind it, whatever the topic. A topic that has no message is at the start
that was written last; the first publication of a topic says which starts go over into its epoch.

Laws:
1. A start is written where there is none, and anew when the last one is half as old as it may get: so its name is good
   for at least half of that time.
2. A start is of one run of the NATS server, where that may lose what it took.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final, NamedTuple, final

from .nats_line import NatsRefusal
from .nats_records import HEADER, stamp
from .nats_streams import PLACE_AGE, WRONG_SEQUENCE

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from .nats_line import NatsLine
    from .nats_streams import NatsStreams

__all__ = ["NatsStarts"]

# No topic has this name: in those that are quoted, two digits follow.
NAME: Final = "%"
# What a start says of itself: the version, the run of the server, and the name.
WORDS: Final = 3
# The last one, and the one before: who was given that name comes back still.
KEPT = 2


class Start(NamedTuple):
    """A start as the stream has it."""

    sequence: int
    life: str
    name: str
    at: float


@final
class NatsStarts:
    """The starts of a stream of topics; `names` are those that held when they were asked for, the last one last."""

    def __init__(self, streams: NatsStreams) -> None:
        self._streams = streams
        self._life = ""
        self.names: tuple[str, ...] = ()

    @property
    def _subject(self) -> str:
        return f"{self._streams.prefix}.topics.{NAME}"

    async def begin(self, line: NatsLine, life: str, now: float) -> None:
        """Find those of a run of the server, or write one; and hear of others."""
        self._life, self.names = life, ()
        await line.subscribe(f"{self._streams.prefix}.live.{NAME}", self._hear)
        await self.renew(line, now)

    async def renew(self, line: NatsLine, now: float) -> None:
        """Write one where it is time for that."""
        while True:
            found = [start_of(message) for message in await line.read(self._streams.topics, self._subject)]
            self._take(found)
            last = found[-1] if found else None
            if last is not None and last.life == self._life and now - last.at < PLACE_AGE / 2:
                return
            expected = str(last.sequence if last is not None else 0)
            told = f"1 {self._life} {secrets.token_hex(6)}"
            try:
                await line.ask(self._subject, headers={HEADER: told, "Nats-Expected-Last-Subject-Sequence": expected})
            except NatsRefusal as error:
                if error.code not in WRONG_SEQUENCE:
                    raise

    async def find(self, line: NatsLine) -> tuple[str, ...]:
        """Return the names of those that are there, the last one last."""
        self._take([start_of(message) for message in await line.read(self._streams.topics, self._subject)])
        return self.names

    def _take(self, found: list[Start]) -> None:
        self.names = tuple([start.name for start in found if start.life == self._life][-KEPT:])

    def _hear(self, message: Msg) -> None:
        try:
            start = start_of(message)
        except (LookupError, ValueError):
            # Another program said it, and not the stream: it is no start.
            return
        if start.life == self._life and start.name not in self.names:
            self.names = (*self.names, start.name)[-KEPT:]


def start_of(message: Msg) -> Start:
    """Return what a message says of a start; one of another program is of no run of the server.

    Raises LookupError or ValueError for a message that is not from the stream.
    """
    headers = message.headers or {}
    words = headers.get(HEADER, "").split(" ")
    _, life, name = words if len(words) == WORDS else ("", "", "")
    return Start(int(headers["Nats-Sequence"]), life, name, stamp(headers["Nats-Time-Stamp"]))
