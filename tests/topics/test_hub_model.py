"""A model of the hub: a set of pairs of subscriber and topic, and for each subscriber what it is owed.

Invariant: every subscriber got what the model says, in order; the counts are the model's; and when all are gone and the
history is too old, nothing is left.
"""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rawws.topics import History, Hub, Policy
from tests.topics.receivers import Receiver, still

TOPICS = st.sampled_from("ab")
NUMBERS = st.integers(0, 2)
POLICIES = ("disconnect", "block", "drop_oldest", "drop_newest", "conflate")
HISTORY = History(count=6, age=30.0)
LIMIT = 3


class Model:
    """One subscriber, as naive as can be: what it got, what waits for it, and how each topic treats it."""

    def __init__(self) -> None:
        self.receiver = Receiver()
        self.got: list[str] = []
        # (topic, key, message, whether it was missed and not published)
        self.waiting: list[tuple[str, Any, str, bool]] = []
        self.policies: dict[str, str] = {}
        self.seen: dict[str, str] = {}


class HubMachine(RuleBasedStateMachine):
    @initialize(policies=st.lists(st.sampled_from(POLICIES), min_size=3, max_size=3))
    def begin(self, policies: list[str]) -> None:
        self.stillness = still()
        self.clock = self.stillness.__enter__()
        self.hub = Hub(history=HISTORY)
        self.number = 0
        # Of each topic: all (time, cursor, message) since it began.
        self.logs: dict[str, list[tuple[float, str, str]]] = {topic: [] for topic in "ab"}
        self.alive = [Model() for _ in policies]
        self.counts = dict.fromkeys(("published", "delivered", "queued", "conflated", "dropped", "closed"), 0)
        for number, policy in enumerate(policies):
            self.join_or_leave(number, "a", policy, resume=False)

    def teardown(self) -> None:
        if not hasattr(self, "hub"):
            return
        for model in self.alive:
            model.receiver.die()
        self.clock.now += 31
        stats = self.hub.stats()
        assert stats[:7] == (0, 0, 0, 0, 0, 0, 0)
        assert not self.hub._table.topics
        assert not self.hub._subscribers
        assert not self.hub._table.store.logs
        self.stillness.__exit__(None, None, None)

    # -- what happens

    @rule(number=NUMBERS, topic=TOPICS, policy=st.sampled_from(POLICIES), resume=st.booleans())
    def join_or_leave(self, number: int, topic: str, policy: str, *, resume: bool) -> None:
        model = self.alive[number]
        if topic in model.policies:
            self.hub.unsubscribe(model.receiver, topic)
            del model.policies[topic]
            model.waiting = [each for each in model.waiting if each[0] != topic]
            return
        since = model.seen.get(topic) if resume else None
        chosen = Policy(policy, limit=None if policy in {"disconnect", "block"} else LIMIT)
        subscription = self.hub.subscribe(model.receiver, topic, since=since, policy=chosen)
        model.policies[topic] = policy
        model.seen[topic] = subscription.cursor
        if since is not None:
            self.recover(model, topic, since, recovered=subscription.recovered)

    @rule(number=NUMBERS)
    def die(self, number: int) -> None:
        model = self.alive[number]
        model.receiver.die()
        assert model.receiver.member is None
        # It comes back over another connection, and knows how far it was.
        self.alive[number] = Model()
        self.alive[number].seen = model.seen

    @rule(number=NUMBERS, topic=TOPICS)
    def close_unnoticed(self, number: int, topic: str) -> None:
        """Have a connection be closing: the next publication finds out, unless it waits."""
        model = self.alive[number]
        model.receiver.closed = True
        if topic in model.policies and not model.waiting and not model.receiver.congested:
            self.alive[number] = Model()
            self.counts["closed"] += 1
            self.publish([(topic, "x")])
            assert model.receiver.member is None
        else:
            self.die(number)

    @rule(number=NUMBERS)
    def read_no_more(self, number: int) -> None:
        self.alive[number].receiver.congested = True

    @rule(number=NUMBERS)
    def read_on(self, number: int) -> None:
        model = self.alive[number]
        model.receiver.read_on()
        model.got += [message for _, _, message, _ in model.waiting]
        model.waiting.clear()

    @rule(seconds=st.floats(0, 20))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(burst=st.lists(st.tuples(TOPICS, st.sampled_from("xyz")), min_size=1, max_size=8))
    def publish(self, burst: list[tuple[str, str]]) -> None:
        for topic, key in burst:
            self.number += 1
            message = str(self.number)
            before = dict(self.counts)
            subscribed = [model for model in self.alive if topic in model.policies]
            for model in subscribed:
                self.expect(model, topic, key, message)
            outcome = self.hub.publish(topic, message, key=key)
            self.counts["published"] += 1
            self.logs[topic].append((self.clock.now, outcome.cursor, message))
            for model in subscribed:
                model.seen[topic] = outcome.cursor
            for name in ("delivered", "queued", "conflated", "dropped"):
                assert getattr(outcome, name) == self.counts[name] - before[name]

    # -- what should be

    def recover(self, model: Model, topic: str, since: str, *, recovered: bool) -> None:
        """Owe what was missed, and see that it is declared lost only where it must be."""
        epoch, _, offset = since.partition(":")
        later = [
            (at, message)
            for at, cursor, message in self.logs[topic]
            if cursor.partition(":")[0] == epoch and int(cursor.partition(":")[2]) > int(offset)
        ]
        if recovered:
            self.owe(model, [(topic, None, message, True) for _, message in later])
            assert len(later) <= HISTORY.count
        else:
            held = [at for at, _ in later[-HISTORY.count :] if self.clock.now - at <= HISTORY.age]
            assert len(held) < len(later) or self.hub._table.topics[topic].log.epoch != epoch

    def owe(self, model: Model, entries: list[tuple[str, Any, str, bool]]) -> None:
        if model.receiver.congested or model.waiting:
            model.waiting += entries
        else:
            model.got += [message for _, _, message, _ in entries]

    def expect(self, model: Model, topic: str, key: str, message: str) -> None:
        if not model.receiver.congested and not model.waiting:
            self.counts["delivered"] += 1
            model.got.append(message)
            return
        policy = model.policies[topic]
        mine = [each for each in model.waiting if each[0] == topic and not each[3]]
        if policy == "conflate":
            for each in mine:
                if each[1] == key:
                    model.waiting.remove(each)
                    mine.remove(each)
                    self.counts["conflated"] += 1
        if policy not in {"disconnect", "block"} and len(mine) >= LIMIT:
            self.counts["dropped"] += 1
            if policy == "drop_newest":
                return
            model.waiting.remove(mine[0])
        model.waiting.append((topic, key, message, False))
        self.counts["queued"] += 1

    @invariant()
    def everybody_got_what_it_was_owed(self) -> None:
        for model in getattr(self, "alive", ()):
            assert model.receiver.got == model.got
            assert (model.receiver.member is not None) == bool(model.policies)

    @invariant()
    def the_counts_are_right(self) -> None:
        if hasattr(self, "hub"):
            stats = self.hub.stats()
            assert {name: getattr(stats, name) for name in self.counts} == self.counts
            assert stats.waiting == sum(len(model.waiting) for model in self.alive)
            assert stats.subscriptions == sum(len(model.policies) for model in self.alive)
            assert stats.subscribers == sum(bool(model.policies) for model in self.alive)
            assert stats.held <= HISTORY.count * 2


HubMachine.TestCase.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
TestHub = HubMachine.TestCase
