"""Policies: what becomes of publications whose subscriber reads too slowly, and that it is counted."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Callable
from typing import Any, final

import pytest

from rawws.topics import Hub, Policy, Publication, PublishResult
from tests.server.peers import Logged
from tests.topics.receivers import Receiver


def counts(outcome: PublishResult) -> dict[str, int]:
    names = ("delivered", "queued", "conflated", "dropped", "closed")
    return {name: getattr(outcome, name) for name in names if getattr(outcome, name)}


def slow(policy: str | Policy, hard_limit: int = 1 << 20) -> tuple[Hub, Receiver]:
    hub = Hub(policy=policy)
    receiver = Receiver(hard_limit)
    hub.subscribe(receiver, "t")
    receiver.congested = True
    return hub, receiver


@pytest.mark.parametrize("policy", ["disconnect", "block", "drop_oldest", "drop_newest", "conflate"])
def test_whoever_reads_fast_enough_gets_everything_at_once(policy: str) -> None:
    hub, receiver = slow(policy)
    receiver.congested = False
    assert [counts(hub.publish("t", str(number))) for number in range(3)] == [{"delivered": 1}] * 3
    assert receiver.got == ["0", "1", "2"]


def test_drop_oldest_keeps_the_newest() -> None:
    hub, receiver = slow(Policy("drop_oldest", limit=2))
    assert counts(hub.publish("t", "0")) == {"queued": 1}
    assert counts(hub.publish("t", "1")) == {"queued": 1}
    assert counts(hub.publish("t", "2")) == {"queued": 1, "dropped": 1}
    receiver.read_on()
    assert receiver.got == ["1", "2"]
    assert hub.stats().dropped == 1
    assert hub.stats().waiting == 0


def test_drop_newest_keeps_the_oldest() -> None:
    hub, receiver = slow(Policy("drop_newest", limit=2))
    assert [counts(hub.publish("t", str(number))) for number in range(3)] == [
        {"queued": 1},
        {"queued": 1},
        {"dropped": 1},
    ]
    receiver.read_on()
    assert receiver.got == ["0", "1"]


def test_drop_newest_with_0_lets_none_wait() -> None:
    hub, receiver = slow(Policy("drop_newest", limit=0))
    assert counts(hub.publish("t", "0")) == {"dropped": 1}
    receiver.read_on()
    hub.publish("t", "1")
    assert receiver.got == ["1"]


def test_conflate_keeps_the_latest_of_each_key_in_the_order_of_their_last_change() -> None:
    hub, receiver = slow("conflate")
    for key, message in (("a", "a1"), ("b", "b1"), ("a", "a2"), ("c", "c1"), ("b", "b2")):
        hub.publish("t", message, key=key)
    receiver.read_on()
    assert receiver.got == ["a2", "c1", "b2"]
    assert hub.stats().conflated == 2


def test_conflate_without_keys_keeps_the_latest_of_the_topic() -> None:
    hub, receiver = slow("conflate")
    for number in range(5):
        hub.publish("t", str(number))
    receiver.read_on()
    assert receiver.got == ["4"]


def test_conflate_asks_its_own_key_and_drops_the_oldest_over_the_limit() -> None:
    hub, receiver = slow(Policy("conflate", limit=2, key=lambda publication: publication.message[0]))
    outcomes = [counts(hub.publish("t", message)) for message in ("a1", "b1", "a2", "c1")]
    assert outcomes == [{"queued": 1}, {"queued": 1}, {"queued": 1, "conflated": 1}, {"queued": 1, "dropped": 1}]
    receiver.read_on()
    assert receiver.got == ["a2", "c1"]


def test_a_key_that_raises_ends_its_subscriber_only(logged: Logged) -> None:
    hub = Hub()
    bad, good = Receiver(), Receiver()
    hub.subscribe(bad, "t", policy=Policy("conflate", key=lambda publication: 1 / 0))
    hub.subscribe(good, "t")
    bad.congested = True
    assert counts(hub.publish("t", "0")) == {"delivered": 1, "closed": 1}
    assert bad.failed == (1011, "internal error")
    assert good.got == ["0"]
    logged.take("a subscriber failed", ZeroDivisionError, "rawws.topics")


@pytest.mark.parametrize("policy", ["disconnect", "block"])
def test_over_the_hard_limit_the_subscriber_is_closed_and_out(policy: str) -> None:
    hub, receiver = slow(policy, hard_limit=10_000)
    outcomes = [counts(hub.publish("t", "x" * 4000)) for _ in range(3)]
    assert outcomes == [{"queued": 1}, {"queued": 1}, {"closed": 1}]
    assert receiver.failed == (1013, "slow consumer: over 10000 bytes wait to be sent")
    assert receiver.member is None
    assert counts(hub.publish("t", "on")) == {}
    assert hub.stats().subscribers == hub.stats().waiting == 0


def test_small_publications_that_wait_are_counted_with_what_they_take() -> None:
    hub, receiver = slow("disconnect", hard_limit=1 << 20)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        while receiver.failed is None:
            taken = tracemalloc.get_traced_memory()[0] - before
            hub.publish("t", "")
    finally:
        tracemalloc.stop()
    # The publications themselves are shared with all who wait.
    assert taken <= 2 * receiver.hard_limit + hub.stats().held_bytes


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "conflate"])
def test_those_that_drop_are_not_closed_at_the_hard_limit_but_drop(policy: str) -> None:
    hub, receiver = slow(policy, hard_limit=10_000)
    for number in range(5):
        hub.publish("t", str(number) + "x" * 3999, key=str(number))
    assert receiver.failed is None
    receiver.read_on()
    assert [message[:1] for message in receiver.got] == (["0", "1"] if policy == "drop_newest" else ["3", "4"])
    assert hub.stats().dropped == 3


def test_what_waits_of_one_topic_is_not_dropped_for_another() -> None:
    hub, receiver = slow("drop_oldest", hard_limit=10_000)
    hub.subscribe(receiver, "u")
    for _ in range(2):
        hub.publish("t", "t" * 4000)
    assert counts(hub.publish("u", "u" * 4000)) == {"dropped": 1}
    receiver.read_on()
    assert receiver.got == ["t" * 4000] * 2


async def test_block_waits_until_the_slow_one_has_read() -> None:
    hub, receiver = slow("block")
    task = asyncio.ensure_future(hub.publish("t", "0"))
    other = Receiver()
    hub.subscribe(other, "u")
    assert counts(await hub.publish("u", "at once")) == {"delivered": 1}
    await asyncio.sleep(0.01)
    assert not task.done()
    receiver.read_on()
    outcome = await task
    assert counts(outcome) == {"queued": 1}
    assert receiver.got == ["0"]
    assert await outcome is outcome


async def test_block_holds_all_who_publish_to_one_that_is_slow() -> None:
    hub, receiver = slow("block")
    tasks = [asyncio.ensure_future(hub.publish("t", str(number))) for number in range(3)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    receiver.read_on()
    assert [counts(await task) for task in tasks] == [{"queued": 1}] * 3
    assert receiver.got == ["0", "1", "2"]


@pytest.mark.parametrize("way", [lambda hub, receiver: receiver.die(), lambda hub, receiver: hub.unsubscribe(receiver)])
async def test_block_does_not_wait_for_one_that_is_gone(way: Callable[[Hub, Receiver], Any]) -> None:
    hub, receiver = slow("block")
    task = asyncio.ensure_future(hub.publish("t", "0"))
    await asyncio.sleep(0)
    way(hub, receiver)
    await task


async def test_awaiting_may_be_cancelled_and_leaves_nothing() -> None:
    hub, receiver = slow("block")
    task = asyncio.ensure_future(hub.publish("t", "0"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    receiver.read_on()
    assert receiver.got == ["0"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("drop", {}, "the policy is 'drop', allowed are disconnect, block, drop_oldest, drop_newest, conflate"),
        ("drop_oldest", {"limit": 0}, "limit is 0 with 'drop_oldest', allowed are numbers above 0"),
        ("drop_newest", {"limit": -1}, "limit is -1 with 'drop_newest', allowed are numbers above 0, and 0"),
        ("conflate", {"limit": 0}, "limit is 0 with 'conflate', allowed are numbers above 0"),
        ("disconnect", {"limit": 5}, "limit is 5 with 'disconnect', allowed are no limit but hard_limit"),
        ("block", {"key": str}, "key is given with 'block', it is for 'conflate'"),
    ],
)
def test_a_policy_that_means_nothing_raises_where_it_is_made(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Policy(name, **options)


def test_a_policy_shows_its_name() -> None:
    assert repr(Policy("conflate")) == "<rawws.Policy conflate>"


@pytest.mark.parametrize("policy", ["disconnect", "block", "drop_oldest", "drop_newest", "conflate"])
def test_what_was_read_counts_no_more_against_the_hard_limit(policy: str) -> None:
    hub, receiver = slow(policy, hard_limit=2000)
    for turn in range(5):
        receiver.congested = True
        for each in "ab":
            assert counts(hub.publish("t", f"{turn}{each}".ljust(400), key=each)) == {"queued": 1}
        receiver.read_on()
    assert [message[:2] for message in receiver.got] == [f"{turn}{each}" for turn in range(5) for each in "ab"]


@pytest.mark.parametrize("policy", ["drop_oldest", "conflate"])
def test_what_was_given_up_counts_no_more_against_the_hard_limit(policy: str) -> None:
    hub, receiver = slow(Policy(policy, limit=1), hard_limit=2000)
    for number in range(5):
        assert hub.publish("t", str(number) * 400, key=str(number)).queued == 1
    # There is room for one more, of another topic.
    hub.subscribe(receiver, "u")
    assert counts(hub.publish("u", "u" * 400)) == {"queued": 1}
    receiver.read_on()
    assert receiver.got == ["4" * 400, "u" * 400]


def test_what_waited_of_a_topic_that_is_left_counts_no_more_against_the_hard_limit() -> None:
    hub, receiver = slow("disconnect", hard_limit=2000)
    hub.subscribe(receiver, "u")
    for _ in range(5):
        assert counts(hub.publish("t", "t" * 800)) == {"queued": 1}
        hub.unsubscribe(receiver, "t")
        hub.subscribe(receiver, "t")
    assert counts(hub.publish("u", "u" * 800)) == {"queued": 1}
    receiver.read_on()
    assert receiver.got == ["u" * 800]


def test_the_hard_limit_is_one_of_all_topics_and_may_be_reached() -> None:
    # Of each message, 512 bytes are counted beside its own.
    hub, receiver = slow("drop_newest", hard_limit=2000)
    hub.subscribe(receiver, "u")
    assert counts(hub.publish("t", "t" * 488)) == {"queued": 1}
    assert counts(hub.publish("u", "u" * 489)) == {"dropped": 1}
    assert counts(hub.publish("u", "u" * 488)) == {"queued": 1}
    assert counts(hub.publish("t", "")) == {"dropped": 1}


def test_what_was_missed_waits_beside_the_hard_limit_and_is_not_counted_off_it() -> None:
    hub, receiver = slow("disconnect", hard_limit=2000)
    for _ in range(3):
        hub.publish("u", "m" * 400)
    hub.subscribe(receiver, "u", since="earliest")
    for _ in range(2):
        assert counts(hub.publish("t", "t" * 400)) == {"queued": 1}
    receiver.congested = False
    receiver.member.drained()
    assert len(receiver.got) == 5
    receiver.congested = True
    assert [counts(hub.publish("t", "t" * 400)) for _ in range(3)] == [{"queued": 1}, {"queued": 1}, {"closed": 1}]


def test_conflate_drops_nothing_of_what_has_another_key_or_was_missed() -> None:
    hub, receiver = slow("conflate")
    hub.publish("u", "missed", key="a")
    hub.subscribe(receiver, "u", since="earliest")
    assert counts(hub.publish("u", "a1", key="a")) == {"queued": 1}
    assert counts(hub.publish("u", "a2", key="a")) == {"queued": 1, "conflated": 1}
    assert counts(hub.publish("t", "t", key="a")) == {"queued": 1}
    receiver.read_on()
    assert receiver.got == ["missed", "a2", "t"]


@final
class Sipping:
    """A subscriber that is slow again with each message that it gets."""

    def __init__(self) -> None:
        self.got: list[str | bytes] = []
        self.congested = True
        self.hard_limit = 1 << 20
        self.member: Any = None

    def send(self, publication: Publication) -> None:
        self.got.append(publication.message)
        self.congested = True

    def follow(self, member: Any) -> None:
        self.member = member

    def unfollow(self, member: Any) -> None:
        self.member = None

    def fail(self, code: int, reason: str) -> None:
        raise AssertionError((code, reason))

    def read_on(self) -> None:
        self.congested = False
        self.member.drained()


async def test_what_waits_is_sent_as_it_is_read_and_block_waits_until_that_is_all() -> None:
    hub, receiver = Hub(policy="block"), Sipping()
    hub.subscribe(receiver, "t")
    tasks = [asyncio.ensure_future(hub.publish("t", str(number))) for number in range(3)]
    await asyncio.sleep(0)
    for number in range(3):
        receiver.read_on()
        assert receiver.got == [str(each) for each in range(number + 1)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        # The last one is not read yet.
        assert not any(task.done() for task in tasks)
    receiver.read_on()
    assert [counts(await task) for task in tasks] == [{"queued": 1}] * 3
    assert hub.stats().waiting == 0


def test_what_was_missed_of_a_topic_that_is_left_gives_no_room_to_others() -> None:
    hub, receiver = slow("disconnect", hard_limit=2000)
    for _ in range(3):
        hub.publish("u", "m" * 400)
    hub.subscribe(receiver, "u", since="earliest")
    hub.unsubscribe(receiver, "u")
    assert [counts(hub.publish("t", "t" * 400)) for _ in range(3)] == [{"queued": 1}, {"queued": 1}, {"closed": 1}]
