"""A model of two hubs that are joined: publications are numbers, and each client is owed all of them since it came.

Invariant: whatever is done to the engine and to the connections, a client that comes back by its cursor, to any hub,
has each number once, those of one hub in their order; or it was told that something is missing, and begins anew. Where
the engine was never away and the history is long enough, nobody is told so. When all are gone, nothing is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from rawws.backplanes.memory import Engine, MemoryBackplane
from rawws.topics import History, Hub, Subscription
from rawws.topics.replica import LIVE
from rawws.topics.replication import logger, replica_of
from tests.backplanes.handlers import Reader
from tests.server.peers import DEADLINE

HISTORY = History(count=6)
CLIENTS = 3


class Owed:
    """A client: what it got over all its connections, and what it must have got."""

    def __init__(self) -> None:
        self.reader: Reader | None = None
        self.hub: Hub | None = None
        self.cursor = ""
        self.got: list[tuple[int, int]] = []
        # Where it began anew, in what it got; how many were published before that; None until all is quiet.
        self.mark = 0
        self.since: int | None = None
        self.seen = 0


class HubsMachine(RuleBasedStateMachine):
    # What clients subscribe to, and the topics that are published to, in turns.
    channel = "a"
    topics: tuple[str, ...] = ("a",)

    @initialize(lags=st.tuples(*[st.integers(0, 4)] * 2))
    def begin(self, lags: tuple[int, int]) -> None:
        logger.disabled = True
        self.runner = asyncio.Runner()
        self.engine = Engine()
        self.hubs = [Hub(backplane=MemoryBackplane(self.engine, lag=lag), history=HISTORY) for lag in lags]
        self.clients = [Owed() for _ in range(CLIENTS)]
        self.published: list[tuple[int, int]] = []
        self.stopped = False

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        self.be_quiet()
        for client in self.clients:
            if client.reader is not None:
                client.reader.member.lost()
        for hub in self.hubs:
            stats = hub.stats()
            assert (stats.subscribers, stats.subscriptions, stats.waiting, stats.unsent) == (0, 0, 0, 0)
            self.run(hub.close())
            assert hub._replication is not None
            assert len(hub._replication.outbox) == hub._replication.outbox.size == 0
        self.run(asyncio.sleep(0))
        assert not self.engine.backplanes
        self.runner.close()
        logger.disabled = False

    def run(self, act: Coroutine[Any, Any, None]) -> None:
        """Do something, which takes turns of the loop and no time."""

        async def limited() -> None:
            async with asyncio.timeout(DEADLINE):
                await act

        self.runner.run(limited())

    async def turns(self, count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    def look(self, client: Owed) -> None:
        """Take over what a client got since the last look."""
        reader = client.reader
        if reader is None:
            return
        if reader.lost_at:
            client.mark, client.since = len(client.got) + reader.lost_at.pop() - client.seen, None
            reader.lost_at.clear()
        new = [eval(str(message)) for message in reader.got[client.seen :]]
        client.got += new
        client.seen = len(reader.got)
        if reader.cursors:
            client.cursor = reader.cursors[-1]
        part = client.got[client.mark :]
        assert len(set(part)) == len(part), part
        for hub in range(2):
            mine = [number for whose, number in part if whose == hub]
            assert mine == sorted(mine)

    def subscribe(self, hub: Hub, reader: Reader, cursor: str) -> Subscription:
        return hub.subscribe(reader, self.channel, since=cursor, pattern=self.channel.endswith("*"))

    # -- what happens

    @rule(hub=st.integers(0, 1), count=st.integers(1, 4))
    def publish(self, hub: int, count: int) -> None:
        async def act() -> None:
            for _ in range(count):
                entry = (hub, len(self.published))
                self.published.append(entry)
                self.hubs[hub].publish(self.topics[entry[1] % len(self.topics)], str(entry))

        self.run(act())

    @rule(number=st.integers(0, CLIENTS - 1), hub=st.integers(0, 1))
    def come_or_go(self, number: int, hub: int) -> None:
        client = self.clients[number]
        if client.reader is not None:
            self.look(client)
            client.reader.member.lost()
            client.reader = client.hub = None
            return
        client.reader, client.seen, client.hub = Reader(), 0, self.hubs[hub]

        async def act() -> None:
            assert client.reader is not None
            cursor = client.cursor
            subscription = await self.subscribe(self.hubs[hub], client.reader, cursor)
            client.cursor = client.reader.cursors[-1] if client.reader.cursors else subscription.cursor
            if not cursor or not subscription.recovered:
                if cursor and client.since is not None and not self.stopped:
                    missed = len(self.published) - client.since - len(client.got) + client.mark
                    assert missed > HISTORY.count
                client.mark, client.since = len(client.got), None

        self.run(act())

    @rule(number=st.integers(0, CLIENTS - 1), hub=st.integers(0, 1), count=st.integers(0, 6))
    def move(self, number: int, hub: int, count: int) -> None:
        """Have a client come back at once, here or there, behind what was just published."""
        self.publish(1 - hub, 2)
        self.go_on(count)
        self.come_or_go(number, hub)
        if self.clients[number].reader is None:
            self.come_or_go(number, hub)

    @rule(count=st.integers(0, 6))
    def go_on(self, count: int) -> None:
        self.run(self.turns(count))
        for client in self.clients:
            self.look(client)

    @rule(forget=st.booleans())
    def stop(self, forget: bool) -> None:
        if self.engine.reachable:
            self.stopped = True

            async def act() -> None:
                self.engine.stop(forget=forget)

            self.run(act())

    @rule()
    def start(self) -> None:
        async def act() -> None:
            self.engine.start()

        if not self.engine.reachable:
            self.run(act())

    @rule(hub=st.integers(0, 1), said=st.integers(0, 4), back=st.integers(0, 8), forget=st.booleans())
    def flap(self, hub: int, said: int, back: int, *, forget: bool) -> None:
        """Have the engine go away behind what it was just told, come back for a moment, and lack it perhaps.

        Who is at one of the hubs comes back to it while the engine is away, and again behind that moment.
        """
        self.start()
        self.publish(1 - hub, 2)
        self.go_on(said)
        self.stop(forget)
        self.go_on(5)
        here = [number for number, client in enumerate(self.clients) if client.hub is self.hubs[hub]]
        for number in [*here, *here, *here]:
            self.come_or_go(number, hub)
        self.start()
        self.go_on(back)
        self.stop(False)
        self.go_on(5)
        for number in here:
            self.come_or_go(number, hub)

    @rule()
    def be_quiet(self) -> None:
        """Have the engine come back, if it was away, and all that is under way arrive."""
        self.start()

        async def settle() -> None:
            for _ in range(500):
                await asyncio.sleep(0)
                replicas = [replica_of(found) for hub in self.hubs for found in hub._table.topics.values()]
                at_work = any(replica.state != LIVE or replica.local for replica in replicas)
                unsent = any(hub.stats().unsent or hub.stats().degraded for hub in self.hubs if hub._replication.state)  # type: ignore[union-attr]
                if not at_work and not unsent:
                    break
            else:
                raise AssertionError([hub.stats() for hub in self.hubs])
            await self.turns(5)

        self.run(settle())
        for client in self.clients:
            self.look(client)
            if client.reader is None:
                continue
            if client.since is not None:
                owed = self.published[client.since :]
                assert sorted(client.got[client.mark :]) == sorted(owed)
            client.mark, client.since = len(client.got), len(self.published)
            assert client.cursor


HubsMachine.TestCase.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
TestHubs = HubsMachine.TestCase


class PatternsMachine(HubsMachine):
    """The same of those who have two topics by a pattern, where others may have one of them by its name."""

    channel = "a/*"
    topics = ("a/0", "a/1")

    @initialize(lags=st.tuples(*[st.integers(0, 4)] * 2), named=st.booleans())
    def begin(self, lags: tuple[int, int], *, named: bool) -> None:
        super().begin(lags)
        self.named = Reader() if named else None
        if self.named is not None:
            self.run(self.come_by_name(self.named))

    async def come_by_name(self, reader: Reader) -> None:
        await self.hubs[0].subscribe(reader, "a/0")

    def teardown(self) -> None:
        if hasattr(self, "named") and self.named is not None:
            self.named.die()
        super().teardown()


PatternsMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestPatterns = PatternsMachine.TestCase
