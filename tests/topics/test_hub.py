"""The hub: who gets what, in which order, and that nobody's end is another one's."""

from __future__ import annotations

from typing import Any

import pytest

import rawws
from rawws.topics import CursorError, History, Hub, Policy, TopicError, core
from rawws.topics.history import cost
from tests.server.peers import Logged
from tests.topics.receivers import Receiver, still


def test_a_publication_reaches_those_who_are_subscribed_and_nobody_else() -> None:
    hub = Hub()
    one, two, other = Receiver(), Receiver(), Receiver()
    hub.subscribe(one, "a")
    hub.subscribe(two, "a")
    hub.subscribe(other, "b")
    assert hub.publish("a", "hi").delivered == 2
    assert hub.publish("c", b"nobody").delivered == 0
    assert (one.got, two.got, other.got) == (["hi"], ["hi"], [])


def test_names_that_look_alike_are_different_topics() -> None:
    hub = Hub()
    receivers = {name: Receiver() for name in ("a", "A", "a ", "a/b", "a:b", "a&b", "é", "e\u0301", "*", "a.*", "...")}
    for name, receiver in receivers.items():
        hub.subscribe(receiver, name)
    for name in receivers:
        hub.publish(name, name)
    assert all(receiver.got == [name] for name, receiver in receivers.items())


def shown(value: object) -> str:
    """Return the name of a test: without backslashes, by which pytest does not find one the second time."""
    return ascii(value)[:20].replace("\\", "")


BAD = ["", "a\nb", "a\0", "\x7f", "a\u200b", "\u2028", "\ud800", "x" * 256, "é" * 128, "x" * 10**6, None, 7, b"a"]


@pytest.mark.parametrize("topic", BAD, ids=shown)
def test_what_is_no_name_is_refused_and_leaves_nothing(topic: Any) -> None:
    hub = Hub()
    with pytest.raises(TopicError, match=r"^the topic is .{1,100}, allowed (are 1 to 255 printable bytes|is str)$"):
        hub.publish(topic, "hi")
    receiver = Receiver()
    with pytest.raises(TopicError):
        hub.subscribe(receiver, topic)
    assert receiver.member is None
    assert hub.stats().topics == hub.stats().subscribers == 0


def test_a_name_of_255_bytes_is_one() -> None:
    hub = Hub()
    assert hub.publish("é" * 127 + "x", "hi").cursor.endswith(":1")


@pytest.mark.parametrize("key", ["\ud800", "x" * 256, "é" * 128, "x" * 10**6, 7, b"a"], ids=shown)
def test_what_is_no_key_is_refused_and_takes_no_place(key: Any) -> None:
    hub = Hub()
    with pytest.raises(TopicError, match=r"^the key is .{1,100}, allowed are (up to 255 bytes of UTF-8|str and None)$"):
        hub.publish("a", "hi", key=key)
    assert hub.stats().topics == hub.stats().published == 0
    assert hub.publish("a", "hi", key="é" * 127 + "x").cursor.endswith(":1")


def test_too_large_a_message_and_what_is_none_take_no_place() -> None:
    hub = Hub(max_size=10)
    with pytest.raises(TopicError, match=r"^the message has 11 bytes, limit 10$"):
        hub.publish("a", "x" * 11)
    with pytest.raises(TopicError, match=r"^the message has 14 bytes, limit 10$"):
        hub.publish("a", "é" * 7)
    with pytest.raises(TypeError, match="message is set, allowed are str, bytes"):
        hub.publish("a", {7})
    with pytest.raises(rawws.LocalProtocolError, match="surrogate"):
        hub.publish("a", "\udfff")
    assert hub.publish("a", "x" * 10).cursor.endswith(":1")


@pytest.mark.parametrize(
    "message", ["x" * (1 << 20), "\x01" * 175_000, b"x" * 800_000], ids=["text", "escaped", "base64"]
)
def test_a_message_whose_envelope_is_larger_than_clients_take_is_refused(message: str | bytes) -> None:
    hub = Hub()
    with pytest.raises(TopicError, match=r"^the message has \d+ bytes in its envelope, limit 1040384$"):
        hub.publish("a", message)
    assert hub.stats().topics == hub.stats().published == 0
    # Whoever allows more has clients that take more.
    assert Hub(max_size=1 << 21).publish("a", message).cursor.endswith(":1")


def test_a_subscriber_gets_all_its_topics_in_the_order_of_publication_slow_or_not() -> None:
    hub = Hub()
    receiver = Receiver()
    for topic in "abc":
        hub.subscribe(receiver, topic)
    sent = []
    for number in range(60):
        receiver.congested = number % 7 > 2
        if not receiver.congested:
            receiver.read_on()
        hub.publish("abc"[number * number % 3], str(number))
        sent.append(str(number))
    receiver.read_on()
    assert receiver.got == sent


def test_since_gives_what_was_missed_before_what_comes() -> None:
    hub = Hub()
    cursor = hub.publish("a", "0").cursor
    for number in range(1, 4):
        hub.publish("a", str(number))
    receiver = Receiver()
    subscription = hub.subscribe(receiver, "a", since=cursor)
    hub.publish("a", "4")
    assert receiver.got == ["1", "2", "3", "4"]
    assert subscription.recovered
    assert subscription.cursor.endswith(":5")


def test_since_a_lost_place_says_so_and_gives_nothing() -> None:
    hub = Hub(history=History(count=2))
    cursor = hub.publish("a", "0").cursor
    for number in range(1, 4):
        hub.publish("a", str(number))
    receiver = Receiver()
    assert not hub.subscribe(receiver, "a", since=cursor).recovered
    assert receiver.got == []


def test_without_history_only_who_missed_nothing_recovers() -> None:
    hub = Hub(history=None)
    receiver, back = Receiver(), Receiver()
    cursor = hub.subscribe(receiver, "a").cursor
    assert hub.subscribe(back, "a", since=cursor).recovered
    hub.publish("a", "0")
    hub.unsubscribe(back)
    assert not hub.subscribe(back, "a", since=cursor).recovered
    hub.unsubscribe(receiver)
    hub.unsubscribe(back)
    assert hub.stats().topics == 0


def test_a_replay_waits_for_a_slow_reader_and_is_dropped_by_no_policy() -> None:
    hub = Hub()
    for number in range(50):
        hub.publish("a", str(number))
    receiver = Receiver(hard_limit=1000)
    receiver.congested = True
    hub.subscribe(receiver, "a", since="earliest", policy=Policy("drop_oldest", limit=1))
    hub.publish("a", "50")
    hub.publish("a", "51")
    receiver.read_on()
    assert receiver.got == [*map(str, range(50)), "51"]


def test_a_replay_that_is_too_long_is_declared_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "MAX_REPLAY", 15 * 1024)
    monkeypatch.setattr(core, "MAX_REPLAYS", 0)
    hub = Hub()
    for number in range(10):
        hub.publish("a", str(number))
        hub.publish("b", str(number))
    receiver = Receiver()
    receiver.congested = True
    assert hub.subscribe(receiver, "a", since="earliest").recovered
    assert not hub.subscribe(receiver, "b", since="earliest").recovered
    receiver.read_on()
    assert receiver.got == [*map(str, range(10))]


def test_what_was_missed_counts_until_it_is_read_or_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub()
    for number in range(10):
        hub.publish("a", str(number))
        hub.publish("b", str(number))
    # One of both is as much as may be.
    monkeypatch.setattr(core, "MAX_REPLAY", sum(map(cost, hub.recall("a", since="earliest")[1])))
    monkeypatch.setattr(core, "MAX_REPLAYS", 0)
    receiver = Receiver()
    hub.subscribe(receiver, "stays")

    def has_room(topic: str) -> bool:
        return hub.subscribe(receiver, topic, since="earliest").recovered

    # It is read at once.
    assert has_room("a") and has_room("b")
    hub.unsubscribe(receiver, "a")
    hub.unsubscribe(receiver, "b")
    receiver.congested = True
    assert has_room("a") and not has_room("b")
    hub.unsubscribe(receiver, "b")
    # It is given up.
    hub.unsubscribe(receiver, "a")
    assert has_room("b") and not has_room("a")
    hub.unsubscribe(receiver, "a")
    # It is read later.
    receiver.read_on()
    assert has_room("a")
    assert receiver.got == [*map(str, range(10))] * 4


def test_a_second_subscription_is_the_first_and_since_needs_a_new_one() -> None:
    hub = Hub()
    receiver = Receiver()
    first = hub.subscribe(receiver, "a")
    assert hub.subscribe(receiver, "a") is first
    with pytest.raises(TopicError, match="has this topic already"):
        hub.subscribe(receiver, "a", since=first.cursor)
    hub.publish("a", "once")
    assert receiver.got == ["once"]


def test_too_many_topics_are_refused_and_the_others_stay() -> None:
    hub = Hub(max_topics=3)
    receiver = Receiver()
    for topic in "abc":
        hub.subscribe(receiver, topic)
    with pytest.raises(TopicError, match="the subscriber has 3 topics already, the limit"):
        hub.subscribe(receiver, "d")
    assert [hub.publish(topic, topic).delivered for topic in "abcd"] == [1, 1, 1, 0]
    hub.unsubscribe(receiver, "a")
    hub.subscribe(receiver, "d")
    assert [hub.publish(topic, topic).delivered for topic in "abcd"] == [0, 1, 1, 1]
    assert receiver.got == [*"abc", *"bcd"]


def test_a_subscription_that_fails_leaves_no_trace() -> None:
    hub = Hub()
    cursor = hub.publish("a", "0").cursor
    receiver = Receiver()
    with pytest.raises(CursorError):
        hub.subscribe(receiver, "a", since=cursor + "1")
    with pytest.raises(CursorError):
        hub.subscribe(receiver, "new", since="nonsense")
    with pytest.raises(ValueError, match="the policy is 'no'"):
        hub.subscribe(receiver, "a", policy="no")
    receiver.closed = True
    with pytest.raises(rawws.ConnectionClosed):
        hub.subscribe(receiver, "a")
    assert receiver.member is None
    assert hub.stats()[:3] == (1, 0, 0)


def test_unsubscribing_ends_what_waits_and_only_that() -> None:
    hub = Hub()
    receiver = Receiver()
    hub.subscribe(receiver, "a")
    hub.subscribe(receiver, "b")
    receiver.congested = True
    for number in range(3):
        hub.publish("a", f"a{number}")
        hub.publish("b", f"b{number}")
    hub.unsubscribe(receiver, "a")
    hub.unsubscribe(receiver, "never")
    hub.unsubscribe(Receiver())
    receiver.read_on()
    assert receiver.got == ["b0", "b1", "b2"]
    hub.unsubscribe(receiver, "b")
    assert receiver.member is None
    assert hub.stats().subscribers == 0


def test_unsubscribing_ends_a_replay_that_waits() -> None:
    hub = Hub()
    hub.publish("a", "missed")
    receiver = Receiver()
    hub.subscribe(receiver, "b")
    receiver.congested = True
    hub.subscribe(receiver, "a", since="earliest")
    hub.publish("b", "b")
    assert hub.stats().waiting == 2
    hub.unsubscribe(receiver, "a")
    assert hub.stats().waiting == 1
    receiver.read_on()
    assert receiver.got == ["b"]


def test_one_that_closes_or_fails_at_what_it_missed_is_out(logged: Logged) -> None:
    hub = Hub()
    hub.publish("a", "missed")
    broken, closing = Receiver(), Receiver()
    for receiver in (broken, closing):
        hub.subscribe(receiver, "b")
    broken.breaks = closing.closed = True
    for receiver in (broken, closing):
        hub.subscribe(receiver, "a", since="earliest")
    assert hub.stats().subscribers == 0
    assert broken.failed == (1011, "internal error")
    logged.take("a subscriber failed", ZeroDivisionError, "rawws.topics")


async def test_without_a_backplane_a_hub_may_be_opened_and_closed_and_goes_on() -> None:
    receiver = Receiver()
    async with Hub() as hub:
        assert await hub.subscribe(receiver, "a")
    hub.publish("a", "on")
    assert receiver.got == ["on"]


def test_one_that_dies_closes_or_fails_is_unsubscribed_and_the_others_go_on(logged: Logged) -> None:
    hub = Hub()
    receivers = [Receiver() for _ in range(5)]
    for receiver in receivers:
        hub.subscribe(receiver, "a")
        hub.subscribe(receiver, "b")
    receivers[1].die()
    receivers[2].closed = True
    receivers[3].breaks = True
    outcome = hub.publish("a", "hi")
    assert (outcome.delivered, outcome.closed) == (2, 2)
    assert receivers[3].failed == (1011, "internal error")
    assert hub.stats().subscribers == 2
    assert hub.publish("b", "on").delivered == 2
    assert receivers[0].got == receivers[4].got == ["hi", "on"]
    logged.take("a subscriber failed", ZeroDivisionError, "rawws.topics")


def test_one_that_fails_while_it_reads_what_waited_is_out(logged: Logged) -> None:
    hub = Hub()
    broken, closing = Receiver(), Receiver()
    for receiver in (broken, closing):
        hub.subscribe(receiver, "a")
        receiver.congested = True
    hub.publish("a", "hi")
    broken.breaks = closing.closed = True
    broken.read_on()
    closing.read_on()
    assert hub.stats().subscribers == hub.stats().waiting == 0
    logged.take("a subscriber failed", ZeroDivisionError, "rawws.topics")


def test_stalled_subscribers_stop_nobody_else() -> None:
    hub = Hub(policy=Policy("drop_oldest", limit=5))
    receivers = [Receiver() for _ in range(100)]
    for receiver in receivers:
        hub.subscribe(receiver, "a")
    receivers[7].congested = receivers[70].congested = True
    for number in range(200):
        hub.publish("a", str(number))
    fast = [receiver for receiver in receivers if not receiver.congested]
    assert all(receiver.got == [*map(str, range(200))] for receiver in fast)
    assert hub.stats().waiting == 10


def test_a_topic_is_remembered_as_long_as_its_history_and_then_forgotten() -> None:
    with still() as clock:
        hub = Hub(history=History(age=60.0))
        receiver = Receiver()
        cursor = hub.subscribe(receiver, "a").cursor
        hub.unsubscribe(receiver)
        clock.now += 59
        # Nothing was published yet, but whoever left may come back.
        hub.publish("a", "missed")
        back = Receiver()
        assert hub.subscribe(back, "a", since=cursor).recovered
        assert back.got == ["missed"]
        hub.unsubscribe(back)
        clock.now += 61
        assert hub.stats()[:6] == (0, 0, 0, 0, 0, 0)
        assert not hub.subscribe(back, "a", since=cursor).recovered


def test_a_topic_that_is_subscribed_to_keeps_its_epoch_when_its_history_is_too_old() -> None:
    with still() as clock:
        hub = Hub(history=History(age=60.0))
        receiver = Receiver()
        hub.subscribe(receiver, "a")
        cursor = hub.publish("a", "0").cursor
        clock.now += 61
        hub.publish("b", "another")
        assert hub.stats().held == 1
        assert hub.subscribe(Receiver(), "a", since=cursor).recovered


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"history": 5}, TypeError, "history is int, allowed are a History and None"),
        ({"max_topics": 0}, ValueError, "max_topics is 0 .*, allowed are numbers above 0"),
        ({"max_size": 0}, ValueError, "max_size 0, allowed are numbers above 0"),
        ({"policy": "some"}, ValueError, "the policy is 'some'"),
    ],
)
def test_a_hub_that_means_nothing_raises_where_it_is_made(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Hub(**options)


def test_what_is_shown_in_a_log_says_what_it_is() -> None:
    hub = Hub()
    receiver = Receiver()
    subscription = hub.subscribe(receiver, "a")
    outcome = hub.publish("a", "hi")
    assert repr(hub) == "<rawws.Hub 1 topics, 1 subscribers>"
    assert repr(subscription) == "<rawws.Subscription to 'a'>"
    assert repr(outcome) == f"<rawws.PublishResult {outcome.cursor}: 1 delivered>"
    assert repr(hub.publish("b", "hi")).endswith(":1: to nobody>")
    assert repr(receiver.member).startswith("<Subscriber <tests.topics.receivers.Receiver")


def test_a_topic_of_which_a_place_was_told_is_remembered_as_long_as_its_history() -> None:
    with still() as clock:
        hub = Hub(history=History(age=10.0))
        cursor, missed, known = hub.recall("a", since="")
        assert (missed, known, hub.stats().topics) == ([], True, 1)
        clock.now += 10
        assert hub.recall("a", since=cursor) == (cursor, [], True)
        clock.now += 10
        assert hub.stats().topics == 1
        clock.now += 0.5
        assert hub.stats().topics == 0
        assert hub.recall("a", since=cursor)[2] is False


@pytest.mark.parametrize("key", ["", "x" * 255, "é" * 127 + "x"], ids=["none", "ascii", "bytes"])
def test_a_key_of_255_bytes_is_one(key: str) -> None:
    assert Hub().publish("a", "hi", key=key).cursor.endswith(":1")


@pytest.mark.parametrize(("key", "name"), [(7, "int"), (b"a", "bytes")])
def test_the_error_of_a_key_of_another_type_names_the_type(key: Any, name: str) -> None:
    with pytest.raises(TopicError, match=f"^the key is {name}, allowed are str and None$"):
        Hub().publish("a", "hi", key=key)
