"""The state of several instances over one engine: what happens at any of them is told once by one of them."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from itertools import pairwise
from typing import Any, Final, final

import pytest

import rawws
from rawws import testing
from rawws.backplanes.memory import Engine, MemoryBackplane
from rawws.gateway import shared_state
from rawws.gateway.receivers import ControlReceiver
from rawws.gateway.shared_state import SharedState
from rawws.gateway.state_log import Transition
from rawws.topics import Publication
from tests.server.peers import Logged

# Long enough for all that takes its time: the grace, a question, and who is missing.
QUIET: Final = 15.0


@final
class Instance:
    """One instance; what it tells goes into a list of all."""

    def __init__(self, name: str, engine: Engine, told: list[tuple[str, str, bool]], lag: int = 0) -> None:
        self.name = name
        self.told = told
        self.backplane = MemoryBackplane(engine, lag=lag)
        self.hub = rawws.Hub(history=None, backplane=self.backplane)
        self.state = SharedState(self.hub, name, self._on_transition)
        self.counts: Counter[str] = Counter()

    def _on_transition(self, transition: Transition, cursor: str) -> None:
        assert cursor
        self.told.append((self.name, transition.key, transition.up))

    def start(self) -> Instance:
        self.hub.enter()
        self.state.start()
        return self

    def change(self, key: str, by: int) -> None:
        self.counts[key] += by
        assert self.counts[key] >= 0
        self.state.hold(key, self.counts[key] > 0)

    async def close(self) -> None:
        await self.state.close()
        await self.hub.close()

    async def kill(self) -> None:
        """End without a word, and then the lease."""
        self.backplane.end()
        await self.close()


class Group:
    """Instances of one engine."""

    def __init__(self, *names: str, lag: int = 0) -> None:
        self.engine = Engine()
        self.told: list[tuple[str, str, bool]] = []
        self.lag = lag
        self.living: dict[str, Instance] = {}
        for name in names:
            self.add(name)

    def add(self, name: str) -> Instance:
        instance = self.living[name] = Instance(name, self.engine, self.told, self.lag).start()
        return instance

    async def kill(self, name: str) -> None:
        await self.living.pop(name).kill()

    async def close(self, name: str = "") -> None:
        for each in [name] if name else list(self.living):
            await self.living.pop(each).close()

    def transitions(self, key: str) -> list[bool]:
        return [up for _, told, up in self.told if told == key]

    def check(self) -> None:
        """See that all know the same, and that it is so."""
        truth = {key for each in self.living.values() for key, count in each.counts.items() if count}
        for each in self.living.values():
            assert each.state.is_ready
            assert each.state.log.told == truth
            assert set(each.state.log.holders) == truth
        holders = [each.state.log.holders for each in self.living.values()]
        assert all(each == holders[0] for each in holders)

    def check_alternating(self) -> None:
        """See that nothing was told twice, and that nothing is missing."""
        for key in {key for _, key, _ in self.told}:
            ups = self.transitions(key)
            assert ups == [number % 2 == 0 for number in range(len(ups))], (key, self.told)


def test_what_begins_and_ends_at_several_instances_is_told_once() -> None:
    async def main() -> Group:
        group = Group("a", "b", "c")
        await asyncio.sleep(QUIET)
        for name in "abc":
            group.living[name].change("3/c:room", 1)
        await asyncio.sleep(QUIET)
        group.check()
        assert group.transitions("3/c:room") == [True]
        for name in "abc":
            group.living[name].change("3/c:room", -1)
            await asyncio.sleep(1)
        assert group.transitions("3/c:room") == [True]
        await asyncio.sleep(QUIET)
        assert group.transitions("3/c:room") == [True, False]
        group.check()
        await group.close()
        return group

    group = testing.run(main())
    # Of one channel by one instance, so that they leave in order.
    assert len({name for name, _, _ in group.told}) == 1


def test_a_record_that_cannot_be_understood_is_logged_and_what_follows_is_heard(logged: Logged) -> None:
    async def main() -> None:
        group = Group("a", "b")
        await asyncio.sleep(QUIET)
        # The first is no record; the second may be one of another version.
        for text in ("[" * 100_000, '{"i":"b","ask":"all"}'):
            group.living["b"].hub.publish("state", text)
        await asyncio.sleep(1)
        group.living["b"].change("3/c:room", 1)
        await asyncio.sleep(QUIET)
        assert group.transitions("3/c:room") == [True]
        group.check()
        await group.close()

    testing.run(main())
    logged.take_all("what another instance says could not be understood", 2)


def test_who_comes_back_within_the_grace_was_never_away() -> None:
    async def main() -> None:
        group = Group("a", "b")
        await asyncio.sleep(QUIET)
        group.living["a"].change("3/m:presence-x:u", 1)
        await asyncio.sleep(QUIET)
        group.living["a"].change("3/m:presence-x:u", -1)
        await asyncio.sleep(2)
        group.living["b"].change("3/m:presence-x:u", 1)
        await asyncio.sleep(QUIET)
        assert group.transitions("3/m:presence-x:u") == [True]
        group.check()
        await group.close()

    testing.run(main())


def test_what_an_instance_had_that_is_killed_is_over() -> None:
    async def main() -> None:
        group = Group("a", "b", "c")
        await asyncio.sleep(QUIET)
        group.living["a"].change("3/c:both", 1)
        group.living["b"].change("3/c:both", 1)
        group.living["b"].change("3/c:one", 1)
        await asyncio.sleep(QUIET)
        await group.kill("b")
        await asyncio.sleep(QUIET)
        group.check()
        assert group.transitions("3/c:both") == [True]
        assert group.transitions("3/c:one") == [True, False]
        await group.close()

    testing.run(main())


def test_a_newcomer_learns_what_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_state, "PIECE", 100)

    async def main() -> None:
        group = Group("a", "b")
        await asyncio.sleep(QUIET)
        for number in range(50):
            group.living["ab"[number % 2]].change(f"3/c:{number}", 1)
        await asyncio.sleep(1)
        group.add("c")
        for number in range(50, 60):
            group.living["a"].change(f"3/c:{number}", 1)
        await asyncio.sleep(QUIET)
        group.check()
        assert sorted(Counter(key for _, key, _ in group.told).values()) == [1] * 60
        await group.close()

    testing.run(main())


def test_instances_that_begin_at_once_begin_alike() -> None:
    async def main() -> None:
        group = Group("a", "b", "c", "d")
        for each in group.living.values():
            each.change("3/c:room", 1)
        await asyncio.sleep(QUIET)
        group.check()
        assert group.transitions("3/c:room") == [True]
        await group.close()

    testing.run(main())


def test_the_last_one_tells_at_its_end_what_is_over_members_first() -> None:
    async def main() -> Group:
        group = Group("a", "b")
        await asyncio.sleep(QUIET)
        for key in ("3/c:presence-x", "3/m:presence-x:u"):
            group.living["a"].change(key, 1)
        await asyncio.sleep(QUIET)
        await group.close("b")
        assert not group.transitions("3/c:presence-x")[1:]
        await group.close("a")
        return group

    group = testing.run(main())
    assert [(key, up) for _, key, up in group.told][2:] == [("3/m:presence-x:u", False), ("3/c:presence-x", False)]


def test_one_alone_begins_at_once_and_needs_no_engine() -> None:
    told: list[tuple[str, bool]] = []

    async def main() -> None:
        hub = rawws.Hub(history=None)
        state = SharedState(hub, "a", lambda transition, _: told.append((transition.key, transition.up)), wait=0.0)
        state.start()
        state.hold("3/c:room", True)
        await asyncio.sleep(0.01)
        assert told == [("3/c:room", True)]
        state.hold("3/c:room", True)
        state.replace(["3/c:other"])
        await asyncio.sleep(5)
        assert told[1:] == [("3/c:other", True), ("3/c:room", False)]
        assert "1 told" in repr(state)
        await state.close()
        await state.close()
        await hub.close()

    testing.run(main())
    assert told[3:] == [("3/c:other", False)]


def test_what_is_no_record_is_ignored() -> None:
    async def main() -> None:
        group = Group("a")
        await asyncio.sleep(QUIET)
        hub = group.living["a"].hub
        for text in (
            "",
            "[]",
            "{}",
            '{"i":1}',
            '{"i":"x"}',
            '{"i":"x","told":["3/c:x"],"for":"a","re":99,"last":true}',
        ):
            hub.publish("state", text)
        await asyncio.sleep(QUIET)
        group.check()
        assert group.told == []
        await group.close()

    testing.run(main())


def test_while_the_engine_is_away_nothing_is_told_and_afterwards_what_is_so(logged: Logged) -> None:
    async def main() -> None:
        group = Group("a", "b", "c")
        await asyncio.sleep(QUIET)
        group.living["a"].change("3/c:before", 1)
        await asyncio.sleep(QUIET)
        count = len(group.told)
        group.engine.stop()
        await asyncio.sleep(1)
        group.living["a"].change("3/c:before", -1)
        group.living["b"].change("3/c:meanwhile", 1)
        await asyncio.sleep(30)
        assert len(group.told) == count
        group.engine.start()
        await asyncio.sleep(QUIET)
        group.check()
        group.check_alternating()
        await group.close()

    testing.run(main())
    logged.take_all("the backplane is away", 3)
    logged.take_all("the backplane is back", 3)


def test_an_engine_that_forgets_all_changes_nothing(logged: Logged) -> None:
    async def main() -> None:
        group = Group("a", "b")
        await asyncio.sleep(QUIET)
        group.living["a"].change("3/c:room", 1)
        await asyncio.sleep(QUIET)
        group.engine.stop(forget=True)
        await asyncio.sleep(3)
        group.engine.start()
        await asyncio.sleep(QUIET)
        group.check()
        assert group.transitions("3/c:room") == [True]
        await group.close()

    testing.run(main())
    logged.take_all("the backplane is", 4)


@pytest.mark.parametrize("seed", range(12))
def test_whatever_comes_and_goes_is_told_in_turns_and_in_the_end_it_is_so(seed: int) -> None:
    draw = random.Random(seed)

    async def main() -> None:
        group = Group("a", "b", "c", lag=draw.randrange(5))
        await asyncio.sleep(QUIET)
        keys = [f"3/c:{number}" for number in range(5)] + ["3/u:1", "3/m:presence-x:1"]
        killed = False
        for step in range(150):
            each = draw.choice(list(group.living.values()))
            key = draw.choice(keys)
            each.change(key, -1 if each.counts[key] and draw.random() < 0.6 else 1)
            await asyncio.sleep(draw.choice([0, 0, 0.01, 0.5, 4]))
            if step == 50:
                group.add("d")
            if step == 100 and seed % 3 == 0:
                await group.kill(draw.choice("ab"))
                killed = True
            elif step == 100 and seed % 3 == 1:
                await group.close(draw.choice("ab"))
        await asyncio.sleep(QUIET)
        group.check()
        for key in keys:
            # Who is killed with a hook under way takes it along.
            if killed:
                ups = group.transitions(key)
                assert all(before != after for before, after in pairwise(ups))
            assert (key in group.living["c"].state.log.told) == (group.transitions(key)[-1:] == [True])
        if not killed:
            group.check_alternating()
        await group.close()

    testing.run(main())


@final
class Peer:
    """Another instance, whose records are written by the test."""

    def __init__(self, hub: rawws.Hub, name: str) -> None:
        self.hub, self.name = hub, name
        self.heard: list[dict[str, Any]] = []
        hub.subscribe(self.receiver(), "state", join=name)
        hub.subscribe(self.receiver(heard=False), "state/ready", join=name)

    def receiver(self, *, heard: bool = True) -> ControlReceiver:
        def take(publication: Publication) -> None:
            if heard:
                self.heard.append(json.loads(publication.message))

        return ControlReceiver(take)

    def say(self, **record: Any) -> None:
        self.hub.publish("state", json.dumps({"i": self.name, **record}))

    def question(self) -> int:
        return int([record["ask"] for record in self.heard if "ask" in record][-1])


def test_what_is_told_between_the_question_and_its_answer_counts() -> None:
    transitions: list[Transition] = []

    async def main() -> None:
        hub = rawws.Hub(history=None)
        # Its name is the higher one: it does not begin by itself.
        peer = Peer(hub, "a")
        state = SharedState(hub, "b", lambda transition, _: transitions.append(transition))
        state.start()
        await asyncio.sleep(0.1)
        first = peer.question()
        await asyncio.sleep(5)
        # It asks until it is answered, and only the last answer counts.
        assert peer.question() > first
        peer.say(told=["3/c:wrong"], re=first, last=True, **{"for": "b"})
        assert not state.is_ready
        number = peer.question()
        peer.say(all=["3/c:old", "3/c:new"])
        peer.say(told=["3/c:over"], re=number, **{"for": "b"})
        peer.say(tell="3/c:new", up=True)
        peer.say(tell="3/c:over", up=True)
        peer.say(tell="3/c:over", up=False)
        peer.say(told=["3/c:old"], re=number, last=True, **{"for": "b"})
        assert state.log.told == {"3/c:old", "3/c:new"}
        await asyncio.sleep(QUIET)
        assert transitions == []
        await state.close()
        await hub.close()

    testing.run(main())


def test_what_was_said_and_never_came_is_said_again() -> None:
    async def main() -> None:
        group = Group("a", "b")
        await asyncio.sleep(QUIET)
        instance = group.living["a"]
        # As an engine does that fails for one publication.
        instance.state._unseen["3/c:room"] = asyncio.get_running_loop().time()
        instance.state._own.add("3/c:room")
        instance.counts["3/c:room"] += 1
        await asyncio.sleep(QUIET)
        group.check()
        await group.close()

    testing.run(main())
