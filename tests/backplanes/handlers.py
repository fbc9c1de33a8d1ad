"""A handler that remembers what it was told, and a backplane that is open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Container
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, final

from rawws.topics import History, Hub, Identity, Publication
from rawws.topics.backplane import ALL_TOPICS, NO_TOPICS, Backplane, PresenceEntry, Record
from tests.backplanes.engines import Engine

__all__ = ["Reader", "Told", "hubs", "opened"]


@final
class Told:
    def __init__(self, backplane: Backplane) -> None:
        self.backplane = backplane
        self.records: list[Record] = []
        self.entries: list[tuple[str, str, PresenceEntry]] = []
        self.gone: list[str] = []
        self.doubts: list[tuple[str, str]] = []
        # For which topics the engine is away, why it was at first, each time, and how often it was back for all.
        self.away = NO_TOPICS
        self.reasons: list[str] = []
        self.aways = self.backs = 0
        # What it raises the next time that it is told of a record, or of the engine.
        self.fails: Exception | None = None

    def fail(self) -> None:
        fails, self.fails = self.fails, None
        if fails is not None:
            raise fails

    def on_record(self, record: Record) -> None:
        self.records.append(record)
        self.fail()

    def on_presence(self, topic: str, event: str, entry: PresenceEntry) -> None:
        self.entries.append((topic, event, entry))

    def on_server_gone(self, server: str, topics: Container[str] = ALL_TOPICS) -> None:
        self.gone.append(server)

    def on_doubt(self, topic: str, reason: str = "") -> None:
        self.doubts.append((topic, reason))

    def on_away(self, reason: str, away: Container[str] = ALL_TOPICS) -> None:
        self.aways += 1
        if self.away is NO_TOPICS:
            self.reasons.append(reason)
        self.away = away
        self.fail()

    def on_back(self, away: Container[str] = NO_TOPICS) -> None:
        self.backs += away is NO_TOPICS
        self.away = away
        self.fail()

    @property
    def messages(self) -> list[str | bytes]:
        return [record.message for record in self.records]


@asynccontextmanager
async def opened(engine: Engine, server: str, history: History | None = None) -> AsyncIterator[Told]:
    """Give a backplane that is open for a server, and what it tells."""
    told = Told(engine.backplane())
    told.backplane.open(server, history or History(), told)
    try:
        yield told
    finally:
        await told.backplane.close()
        await asyncio.sleep(0)


@final
class Reader:
    """A subscriber that knows cursors: it remembers what it got, and where it was told to be."""

    def __init__(self) -> None:
        self.congested = False
        self.hard_limit = 1 << 20
        self.got: list[str | bytes] = []
        self.cursors: list[str] = []
        self.moves: list[tuple[str, bool]] = []
        # What it got up to each time that it was told that something is missing.
        self.lost_at: list[int] = []
        # Topics of which it was told that they cannot be served.
        self.faults: list[str] = []
        self.member: Any = None
        self.identity: Identity | None = None

    def send(self, publication: Publication) -> None:
        self.got.append(publication.message)
        self.cursors.append(publication.cursor)

    def move(self, topic: str, cursor: str, recovered: bool) -> None:
        self.moves.append((cursor, recovered))
        self.cursors.append(cursor)
        if not recovered:
            self.lost_at.append(len(self.got))

    def fault(self, topic: str) -> None:
        self.faults.append(topic)

    def follow(self, member: Any) -> None:
        self.member = member

    def unfollow(self, member: Any) -> None:
        self.member = None

    def die(self) -> None:
        """Lose the connection."""
        self.member.lost()

    def fail(self, code: int, reason: str) -> None:
        raise AssertionError((code, reason))


@asynccontextmanager
async def hubs(engine: Engine, count: int = 2, **options: Any) -> AsyncIterator[list[Hub]]:
    """Give hubs of several servers, joined by an engine."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Hub(backplane=engine.backplane(), **options)) for _ in range(count)]
