"""Patterns: all topics whose names begin so, over every way to a hub, with one cursor; and no more than is allowed."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from typing import Any

import pytest

import rawws
from rawws.backplanes.memory import Engine, MemoryBackplane
from rawws.topics import History, Hub, TopicError
from rawws.topics.history import cost
from rawws.topics.patterns import Pattern, patterns_of
from tests.server.peers import Logged, connected, eventually, serve
from tests.topics.dialogue import Client, allow, client, served
from tests.topics.receivers import Receiver, still
from tests.topics.test_http import feed, fetch, poll_of


def permit(_client: Any, _pattern: str) -> bool:
    return True


def open_hub(**options: Any) -> Hub:
    return Hub(authorize=allow, authorize_pattern=permit, **options)


def watched(hub: Hub, *patterns: str, **options: Any) -> Receiver:
    receiver = Receiver()
    for pattern in patterns:
        hub.subscribe(receiver, pattern, pattern=True, **options)
    return receiver


# -- what matches


@pytest.mark.parametrize(
    ("pattern", "matched", "others"),
    [
        ("*", ["a", "news", "news/sport", "*", "~x", "é/ü"], []),
        (
            "news/*",
            ["news/", "news/a", "news/a/b", "news//", "news/*", "news/é"],
            ["news", "newsletter", "a/news/b", "*"],
        ),
        ("a/b/*", ["a/b/c", "a/b/"], ["a/b", "a/bc", "a/c"]),
        ("room:*", ["room:1", "room:"], ["room", "rooms:1", "room/1"]),
        ("sensor.1.*", ["sensor.1.x"], ["sensor.10.x", "sensor.1"]),
        ("*", ["x" * 255, "/" * 255], []),
        ("/:." * 5 + "/*", ["/:." * 6, "/:." * 85], ["/:." * 5]),
    ],
)
def test_a_pattern_gets_what_is_published_to_names_that_begin_so(
    pattern: str, matched: list[str], others: list[str]
) -> None:
    hub = Hub()
    receiver = watched(hub, pattern)
    for number, topic in enumerate(matched):
        assert hub.publish(topic, str(number)).delivered == 1
    for topic in others:
        assert hub.publish(topic, "no").delivered == 0
    assert receiver.got == [*map(str, range(len(matched)))]


@pytest.mark.parametrize(
    "pattern",
    ["news", "news/", "news*", "user/1*", "*/a", "a/*/b", "a/**", "**", "a/*/*", "*a", "a/+", "a/#", "a/>", "a/[ab]*",
     "a/ *", "", "\0*/", "x" * 1_000_000],
)  # fmt: skip
def test_what_is_no_pattern_is_refused_with_what_is_allowed(pattern: str) -> None:
    hub = Hub()
    allowed = "allowed is the beginning of names up to a /, : or ., and one \\* behind it"
    with pytest.raises(TopicError, match=allowed) as caught:
        hub.subscribe(Receiver(), pattern, pattern=True)
    assert caught.value.code == "pattern"
    assert len(str(caught.value)) < 250
    assert hub.stats().topics == hub.stats().subscribers == 0


@pytest.mark.parametrize("pattern", ["x" * 254 + "/*", "é" * 127 + "/*", "a\0/*", "\0/*", "a\n/*", "\ud800/*"])
def test_the_text_of_a_pattern_is_bounded_as_a_name_is(pattern: str) -> None:
    with pytest.raises(TopicError, match="allowed are 1 to 255 printable bytes") as caught:
        Hub().subscribe(Receiver(), pattern, pattern=True)
    assert caught.value.code == "topic"


def test_a_pattern_has_no_more_parts_than_one_publication_may_cost() -> None:
    hub = Hub()
    receiver = watched(hub, *[f"{'a/' * count}*" for count in range(17)])
    for pattern in ("a/" * 17 + "*", ":." * 8 + "/*"):
        with pytest.raises(TopicError, match=r"allowed are 16 of /, : and \.") as caught:
            hub.subscribe(receiver, pattern, pattern=True)
        assert caught.value.code == "pattern"
    assert hub.publish("a/" * 100, "x").delivered == 17


@pytest.mark.parametrize("name", [None, 7, b"news/*"])
def test_what_is_no_text_is_no_pattern(name: Any) -> None:
    with pytest.raises(TopicError, match=f"the pattern is {type(name).__name__}, allowed is str"):
        Hub().subscribe(Receiver(), name, pattern=True)


def test_a_topic_that_is_called_as_a_pattern_stays_a_topic() -> None:
    hub = Hub()
    by_name, by_pattern = Receiver(), watched(hub, "news/*")
    hub.subscribe(by_name, "news/*")
    hub.publish("news/sport", "a")
    hub.publish("news/*", "b")
    assert by_name.got == ["b"]
    assert by_pattern.got == ["a", "b"]
    assert hub.subscribers("news/*") == 1
    hub.unsubscribe(by_pattern, "news/*", pattern=True)
    hub.publish("news/*", "c")
    assert (by_name.got, by_pattern.got) == (["b", "c"], ["a", "b"])


def test_no_name_of_a_topic_reaches_a_pattern() -> None:
    hub = Hub()
    watched(hub, "news/*")
    for name in ("\0news/*", "\0*", "\0"):
        for reach in (hub.publish, lambda topic, _: hub.subscribe(Receiver(), topic)):
            with pytest.raises(TopicError, match="allowed are 1 to 255 printable bytes"):
                reach(name, "x")
    assert Pattern("news/*") == "\0news/*"
    assert repr(Pattern("news/*")) == "Pattern('news/*')"


def test_who_has_a_topic_by_name_and_by_two_patterns_gets_it_by_each() -> None:
    hub = Hub()
    receiver = watched(hub, "*", "a/*", "a/b/*")
    hub.subscribe(receiver, "a/b/c")
    result = hub.publish("a/b/c", "x")
    assert result.delivered == 4
    assert receiver.got == ["x"] * 4
    hub.unsubscribe(receiver, "a/*", pattern=True)
    assert hub.publish("a/b/c", "y").delivered == 3


def test_a_second_subscription_by_one_pattern_is_the_first_one() -> None:
    hub = Hub(max_topics=1)
    receiver = Receiver()
    first = hub.subscribe(receiver, "a/*", pattern=True)
    assert hub.subscribe(receiver, "a/*", pattern=True) is first
    assert repr(first) == "<rawws.Subscription to Pattern('a/*')>"
    with pytest.raises(TopicError, match="the subscriber has 1 topics already, the limit"):
        hub.subscribe(receiver, "b/*", pattern=True)


def test_patterns_that_come_and_go_are_found_by_topics_that_were_there_before() -> None:
    hub = Hub()
    hub.publish("a/b", "0")
    first = watched(hub, "a/*")
    hub.publish("a/b", "1")
    second = watched(hub, "*")
    hub.publish("a/b", "2")
    hub.unsubscribe(first)
    third = watched(hub, "a/*")
    hub.publish("a/b", "3")
    assert (first.got, second.got, third.got) == (["1", "2"], ["2", "3"], ["3"])


@pytest.mark.parametrize("history", [History(), None])
def test_random_topics_and_patterns_match_as_their_names_begin(history: History | None) -> None:
    chance = random.Random(7)
    hub = Hub(history=history)
    letters = "ab/.:*"
    receivers: dict[str, Receiver] = {}
    names = ["".join(found) for count in range(1, 4) for found in itertools.product(letters, repeat=count)]
    for number in range(600):
        beginning = "".join(chance.choices("ab/.:", k=chance.randrange(3)))
        pattern = f"{beginning}{chance.choice('/.:')}*" if chance.random() < 0.8 else "*"
        if pattern in receivers and chance.random() < 0.5:
            hub.unsubscribe(receivers.pop(pattern))
        elif pattern not in receivers:
            receivers[pattern] = watched(hub, pattern)
        for receiver in receivers.values():
            receiver.got.clear()
        topic = chance.choice(names)
        expected = {each for each in receivers if topic.startswith(each[:-1])}
        assert hub.publish(topic, str(number)).delivered == len(expected)
        assert {each for each, receiver in receivers.items() if receiver.got == [str(number)]} == expected


def test_to_find_the_patterns_of_a_name_takes_one_look_for_each_separator() -> None:
    assert [*patterns_of("a/b:c.d")] == ["\0*", "\0a/*", "\0a/b:*", "\0a/b:c.*"]
    assert len([*patterns_of("/" * 255)]) == 17
    assert [*patterns_of(Pattern("a/b/*"))] == []


# -- what a publication is for whoever has a pattern


async def test_a_publication_names_its_topic_and_the_pattern_and_has_the_cursor_of_that() -> None:
    hub = Hub()
    hub.publish("news/a", "before")
    listening = hub.listen("news/*", "sport:*", pattern=True)
    first = asyncio.ensure_future(anext(listening))
    await eventually(lambda: hub.stats().subscriptions == 2)
    by_name = hub.publish("news/a", {"x": 1}, key="k", event="move")
    publication = await first
    assert (publication.topic, publication.pattern, publication.offset) == ("news/a", "news/*", 1)
    assert (publication.json(), publication.key, publication.event) == ({"x": 1}, "k", "move")
    assert publication.cursor != by_name.cursor
    hub.publish("news/b", "2")
    hub.publish("sport:a", "3")
    found = [await anext(listening), await anext(listening)]
    assert [(each.topic, each.pattern, each.offset) for each in found] == [
        ("news/b", "news/*", 2),
        ("sport:a", "sport:*", 1),
    ]
    await listening.aclose()
    page = await hub.history("news/a")
    assert [each.pattern for each in page.publications] == [None, None]


async def test_it_goes_on_behind_the_cursor_of_a_pattern_over_all_its_topics() -> None:
    hub = Hub()
    subscription = hub.subscribe(Receiver(), "a/*", pattern=True)
    start = subscription.cursor
    for number in range(10):
        hub.publish(f"a/{number % 3}", str(number))
    feed_of_all = hub.listen("a/*", pattern=True, since=start)
    found = [await anext(feed_of_all) for _ in range(10)]
    assert [each.message for each in found] == [*map(str, range(10))]
    assert [each.offset for each in found] == [*range(1, 11)]
    rest = hub.listen("a/*", pattern=True, since=found[6].cursor)
    assert [(await anext(rest)).message for _ in range(3)] == ["7", "8", "9"]


def test_where_the_history_of_a_pattern_does_not_reach_back_nothing_is_recovered() -> None:
    hub = Hub(history=History(count=5))
    start = hub.subscribe(Receiver(), "a/*", pattern=True).cursor
    for number in range(6):
        hub.publish(f"a/{number}", "x")
    late = Receiver()
    assert not hub.subscribe(late, "a/*", pattern=True, since=start).recovered
    assert late.got == []
    with pytest.raises(rawws.CursorError):
        hub.subscribe(Receiver(), "a/*", pattern=True, since=start.replace(":0", ":9"))


def test_what_came_before_a_pattern_was_subscribed_to_is_not_in_its_history() -> None:
    hub = Hub()
    hub.publish("a/1", "before")
    watched(hub, "a/*")
    hub.publish("a/1", "after")
    late = watched(hub, "a/*", since="earliest")
    assert late.got == ["after"]


def test_a_pattern_is_remembered_for_as_long_as_a_history_and_no_longer_however_much_is_published() -> None:
    with still() as clock:
        hub = Hub(history=History(age=60))
        receiver = Receiver()
        start = hub.subscribe(receiver, "a/*", pattern=True).cursor
        for _ in range(5):
            clock.now += 50
            hub.publish("a/x", "x")
            hub.publish("b", "x")
        assert hub.stats().topics == 3
        hub.unsubscribe(receiver)
        clock.now += 50
        hub.publish("a/x", "missed")
        late = Receiver()
        cursor = f"{start.partition(':')[0]}:5"
        assert hub.subscribe(late, "a/*", pattern=True, since=cursor).recovered
        assert late.got == ["missed"]
        hub.unsubscribe(late)
        for _ in range(3):
            clock.now += 30
            hub.publish("a/x", "x")
        assert hub.stats().topics == 1
        assert not hub.subscribe(late, "a/*", pattern=True, since=cursor).recovered


def test_without_a_history_nothing_is_left_of_a_pattern_and_of_its_topics() -> None:
    hub = Hub(history=None)
    receiver = watched(hub, "a/*")
    for number in range(100):
        assert hub.publish(f"a/{number}", "x").delivered == 1
    assert len(receiver.got) == 100
    assert hub.stats().topics == 1
    hub.unsubscribe(receiver)
    assert hub.publish("a/1", "x").delivered == 0
    assert (hub.stats().topics, hub.stats().held, hub.stats().held_bytes) == (0, 0, 0)


def test_topics_are_forgotten_though_a_pattern_for_them_is_subscribed_to() -> None:
    with still() as clock:
        hub = Hub(history=History(age=60))
        watched(hub, "*")
        for number in range(50):
            hub.publish(f"a/{number}", "x")
        clock.now += 61
        hub.publish("b", "x")
        assert hub.stats().topics == 2


def test_a_pattern_that_is_forgotten_while_a_publication_goes_through_the_others_holds_nothing() -> None:
    hub = Hub(history=History(total=9000))
    receivers = [watched(hub, f"{'a/' * count}*") for count in range(4)]
    for receiver in receivers:
        hub.unsubscribe(receiver)
    # Each pattern takes some of the total: those that were subscribed to first make room for the others.
    for _ in range(20):
        hub.publish("a/a/a/a", "x" * 500)
        held = [publication for topic in hub._table.topics.values() for publication in topic.log.held]
        assert hub.stats().held_bytes == sum(map(cost, held)) <= 9000


# -- slow subscribers


@pytest.mark.parametrize(
    ("policy", "left"),
    [
        (rawws.Policy("drop_oldest", limit=2), ["4", "5"]),
        (rawws.Policy("drop_newest", limit=2), ["0", "1"]),
        ("conflate", ["3", "4", "5"]),
    ],
)
def test_a_policy_is_over_all_topics_of_a_pattern_but_what_conflates_is_of_one(
    policy: str | rawws.Policy, left: list[str]
) -> None:
    hub = Hub()
    receiver = Receiver()
    hub.subscribe(receiver, "a/*", pattern=True, policy=policy)
    receiver.congested = True
    for number in range(6):
        hub.publish(f"a/{number % 3}", str(number))
    receiver.read_on()
    assert receiver.got == left


async def test_a_publisher_can_wait_for_a_slow_subscriber_of_a_pattern() -> None:
    hub = Hub()
    receiver = watched(hub, "a/*", policy="block")
    receiver.congested = True
    waiting = asyncio.ensure_future(hub.publish("a/b", "x"))
    await asyncio.sleep(0)
    assert not waiting.done()
    receiver.read_on()
    assert (await waiting).queued == 1


def test_who_is_excluded_gets_nothing_by_a_pattern_either() -> None:
    hub = Hub()
    one, two = watched(hub, "a/*", "*"), watched(hub, "a/*")
    assert hub.publish("a/b", "x", exclude=one).delivered == 1
    assert (one.got, two.got) == ([], ["x"])


def test_a_subscriber_that_fails_or_leaves_while_it_is_sent_something_disturbs_no_other_one(logged: Logged) -> None:
    hub = Hub(history=None)
    broken, leaving, fine = watched(hub, "a/*"), watched(hub, "a/b/*"), watched(hub, "*")
    broken.breaks = True
    leaving.closed = True
    result = hub.publish("a/b/c", "x")
    assert (result.closed, result.delivered) == (2, 1)
    assert fine.got == ["x"]
    assert hub.stats().topics == 1
    logged.take("a subscriber failed", ZeroDivisionError, "rawws.topics")


# -- rawws.v1


def pairs(heard: dict[str, Any]) -> tuple[Any, ...]:
    return heard["topic"], heard["pattern"], heard["data"]


@pytest.mark.parametrize("callbacks", [False, True], ids=["coroutine", "callbacks"])
async def test_a_client_subscribes_by_a_pattern_and_resumes_and_unsubscribes(callbacks: bool) -> None:
    hub = open_hub()
    async with served(hub, callbacks=callbacks) as server:
        async with client(server) as one:
            answer = await one.ask(id=1, subscribe="news/*", pattern=True)
            assert answer == {"id": 1, "cursor": answer["cursor"], "recovered": True}
            hub.publish("news/a", "1")
            heard = await one.hear()
            epoch = answer["cursor"].partition(":")[0]
            assert heard == {"topic": "news/a", "pattern": "news/*", "cursor": f"{epoch}:1", "data": "1"}
        hub.publish("news/b", "2", event="move")
        hub.publish("other", "no")
        async with client(server) as two:
            answer = await two.ask(id=1, subscribe="news/*", pattern=True, since=heard["cursor"])
            assert answer == {"id": 1, "cursor": heard["cursor"], "recovered": True}
            missed = await two.hear()
            assert pairs(missed) == ("news/b", "news/*", "2")
            assert missed["event"] == "move"
            # The topic of this name is another one.
            assert "error" not in await two.ask(id=2, subscribe="news/*")
            assert await two.ask(id=3, unsubscribe="news/*", pattern=True) == {"id": 3}
            hub.publish("news/c", "3")
            hub.publish("news/*", "4")
            heard = await two.hear()
            assert (heard["topic"], heard["data"], "pattern" in heard) == ("news/*", "4", False)


async def test_joined_cursors_tell_a_pattern_from_the_topic_of_its_name() -> None:
    hub = open_hub()
    async with served(hub) as server:
        _, first = await fetch(server, poll_of(topic="news/*", pattern="news/*"))
        topic, pattern = first["cursor"].split("&")
        assert topic.startswith("news/%2A=")
        assert pattern.startswith("%00news/%2A=")
        hub.publish("news/*", "1")
        hub.publish("news/a", "2")
        _, second = await fetch(server, poll_of(topic="news/*", pattern="news/*", since=first["cursor"]))
        assert [(each["topic"], each.get("pattern"), each["data"]) for each in second["publications"]] == [
            ("news/*", None, "1"),
            ("news/*", "news/*", "1"),
            ("news/a", "news/*", "2"),
        ]
        async with client(server) as one:
            await one.ask(id=1, subscribe="news/*", pattern=True, since=first["cursor"])
            assert pairs(await one.hear()) == ("news/*", "news/*", "1")
            assert pairs(await one.hear()) == ("news/a", "news/*", "2")


async def test_a_held_poll_is_answered_by_what_comes_by_a_pattern() -> None:
    hub = open_hub()
    async with served(hub) as server:
        _, first = await fetch(server, poll_of(pattern="news/*"))
        held = asyncio.ensure_future(fetch(server, poll_of(pattern="news/*", since=first["cursor"])))
        await eventually(lambda: hub.stats().subscriptions == 1)
        hub.publish("news/a", "1")
        hub.publish("news/b", "2")
        _, second = await held
        assert [pairs(each) for each in second["publications"]] == [
            ("news/a", "news/*", "1"),
            ("news/b", "news/*", "2"),
        ]
        assert second["cursor"] == f"%00news/%2A={second['publications'][1]['cursor']}"
        status, third = await fetch(server, poll_of(pattern="news/*", since=second["cursor"], timeout=0))
        assert (status, third["publications"]) == (200, [])


async def test_an_event_stream_by_a_pattern_has_ids_that_stay_short_and_resumes() -> None:
    hub = open_hub()
    async with served(hub) as server:
        async with feed(server, "/stream?pattern=news/*&topic=x") as one:
            places = [await one.data(), await one.data()]
            assert [{*place} for place in places] == [
                {"topic", "cursor", "recovered"},
                {"pattern", "cursor", "recovered"},
            ]
            assert places[1]["pattern"] == "news/*"
            for number in range(200):
                hub.publish(f"news/{number}", str(number))
            for number in range(200):
                event = await one.next()
                assert pairs(json.loads(event.data or "")) == (f"news/{number}", "news/*", str(number))
                assert event.id is not None
                assert len(event.id) < 100
        hub.publish("news/late", "late")
        async with feed(server, "/stream?pattern=news/*&topic=x", f"Last-Event-ID: {event.id}") as two:
            assert [(await two.data())["recovered"] for _ in range(2)] == [True, True]
            assert pairs(await two.data()) == ("news/late", "news/*", "late")


async def test_a_client_may_change_its_transport_in_the_middle_of_a_pattern_and_loses_nothing() -> None:
    hub = open_hub(history=History(count=1000))
    chance = random.Random(6)
    got: list[str] = []
    number = 0

    def publish() -> None:
        nonlocal number
        for _ in range(chance.randrange(1, 4)):
            hub.publish(f"a/{chance.randrange(4)}", str(number))
            number += 1

    async with served(hub) as server:
        _, first = await fetch(server, poll_of(pattern="a/*"))
        cursor = first["cursor"]
        for _ in range(40):
            publish()
            way = chance.choice(["websocket", "stream", "poll"])
            if way == "websocket":
                async with client(server) as one:
                    assert (await one.ask(id=1, subscribe="a/*", pattern=True, since=cursor))["recovered"]
                    heard = await one.hear()
                    got.append(heard["data"])
                    cursor = heard["cursor"]
            elif way == "stream":
                async with feed(server, "/stream?pattern=a/*", f"Last-Event-ID: {cursor}") as two:
                    assert (await two.data())["recovered"]
                    event = await two.next()
                    got.append(json.loads(event.data or "")["data"])
                    cursor = event.id or ""
            else:
                _, body = await fetch(server, poll_of(pattern="a/*", since=cursor))
                assert body["recovered"]
                got += [each["data"] for each in body["publications"]]
                cursor = body["cursor"]
        _, body = await fetch(server, poll_of(pattern="a/*", since=cursor, timeout=0))
        got += [each["data"] for each in body["publications"]]
    assert got == [*map(str, range(number))]


async def test_raw_websockets_and_streams_get_the_messages_as_they_are() -> None:
    hub = Hub()

    async def handler(ws: rawws.WebSocket) -> None:
        hub.subscribe(ws, "news/*", pattern=True)
        await ws.wait_closed()

    async with serve(handler) as server, connected(server) as peer:
        await eventually(lambda: hub.stats().subscribers == 1)
        hub.publish("news/a", "text")
        hub.publish("news/b", b"\x00\xff")
        assert [await peer.message(), await peer.message()] == ["text", b"\x00\xff"]


# -- what is refused


async def refused(one: Client, **fields: Any) -> tuple[str, str]:
    answer = await one.ask(id=1, **fields)
    assert answer["id"] == 1
    return answer["error"], answer.get("reason", "")


async def test_without_authorize_pattern_nobody_gets_by_a_pattern_what_it_may_not_by_name() -> None:
    # It lists what is private: a pattern is none of that, and means it.
    hub = Hub(authorize=lambda _client, _action, topic: topic != "secret/plan" and not topic.startswith("private"))
    async with served(hub) as server, client(server) as one:
        for pattern in ("*", "secret/*", "private/*", "public/*"):
            expected = ("refused", "patterns are not allowed here")
            assert await refused(one, subscribe=pattern, pattern=True) == expected
            status, body = await fetch(server, poll_of(pattern=pattern))
            assert (status, body["error"], body["reason"]) == (403, *expected)
            status, body = await fetch(server, f"/stream?topic=public&pattern={pattern}")
            assert (status, body["error"]) == (403, "refused")
        assert hub.stats().subscribers == hub.stats().topics == 0


@pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])
async def test_authorize_pattern_alone_decides_and_on_subscribe_hears_of_it(later: bool) -> None:
    asked: list[str] = []

    def authorize(_client: Any, _action: str, topic: str) -> bool:
        asked.append(f"name {topic}")
        return True

    def authorize_pattern(_client: Any, pattern: str) -> Any:
        asked.append(f"pattern {pattern}")
        if pattern == "told/*":
            raise rawws.Refused("not for you")
        verdict = pattern.startswith("public/")
        return answer(verdict) if later else verdict

    async def answer(verdict: bool) -> bool:
        await asyncio.sleep(0)
        return verdict

    hub = Hub(
        authorize=authorize,
        authorize_pattern=authorize_pattern,
        on_subscribe=lambda _client, name: asked.append(f"subscribed {name}"),
    )
    async with served(hub) as server, client(server) as one:
        assert await refused(one, subscribe="private/*", pattern=True) == ("refused", "")
        assert await refused(one, subscribe="told/*", pattern=True) == ("refused", "not for you")
        assert "error" not in await one.ask(id=1, subscribe="public/*", pattern=True)
        assert asked == ["pattern private/*", "pattern told/*", "pattern public/*", "subscribed public/*"]
        asked.clear()
        status, _ = await fetch(server, poll_of(pattern="public/*", topic="x", timeout=0))
        assert status == 200
        assert asked == ["name x", "pattern public/*", "subscribed x", "subscribed public/*"]
        status, _ = await fetch(server, poll_of(pattern="private/*", timeout=0))
        assert status == 403


@pytest.mark.parametrize("fields", [{"join": {}}, {"watch": True}])
async def test_presence_is_not_by_pattern(fields: dict[str, Any]) -> None:
    hub = open_hub()
    with pytest.raises(TopicError, match="presence is that of a topic, a pattern has neither join nor watch") as caught:
        hub.subscribe(Receiver(), "a/*", pattern=True, **fields)
    assert caught.value.code == "pattern"
    async with served(hub) as server, client(server) as one:
        assert (await refused(one, subscribe="a/*", pattern=True, **fields))[0] == "pattern"
        # They have no such member.
        for action in ("presence", "history", "publish"):
            more = {"data": ""} if action == "publish" else {}
            assert (await refused(one, **{action: "a/*"}, pattern=True, **more))[0] == "malformed"
        assert (await refused(one, subscribe="a/*", pattern="yes"))[0] == "malformed"
    assert hub.stats().subscribers == hub.stats().topics == 0


async def test_with_an_engine_that_has_none_a_pattern_is_refused_and_topics_go_on() -> None:
    backplane = MemoryBackplane(Engine())
    backplane.patterns = False
    async with open_hub(backplane=backplane) as hub:
        expected = "the engine of the backplane has no patterns: name the topics"
        with pytest.raises(TopicError, match=expected) as caught:
            hub.subscribe(Receiver(), "a/*", pattern=True)
        assert caught.value.code == "pattern"
        with pytest.raises(TopicError, match=expected):
            await anext(hub.listen("a/*", pattern=True))
        async with served(hub) as server, client(server) as one:
            assert await refused(one, subscribe="a/*", pattern=True, since="earliest") == ("pattern", expected)
            assert await refused(one, subscribe="a/*", pattern=True) == ("pattern", expected)
            for target in (poll_of(pattern="a/*"), poll_of(pattern="a/*", since="e:1"), "/stream?pattern=a/*"):
                status, body = await fetch(server, target)
                assert (status, body["error"], body["reason"]) == (400, "pattern", expected)
            assert (await one.ask(id=2, subscribe="a/b"))["recovered"]
            await hub.publish("a/b", "x")
            assert (await one.hear())["data"] == "x"


@pytest.mark.parametrize(
    "target", ["/poll?pattern=a/*/b", "/stream?pattern=a/*/b", "/poll?topic=%00a/*", "/poll?pattern="]
)
async def test_a_request_with_what_is_no_pattern_has_a_status_and_a_reason(target: str) -> None:
    hub = open_hub()
    async with served(hub) as server:
        status, body = await fetch(server, target)
        assert status == 400
        assert body["error"] == ("topic" if "%00" in target else "pattern")
        assert hub.stats().topics == 0


async def test_patterns_count_as_topics_in_every_limit() -> None:
    hub = open_hub(max_topics=3, topic_rate=1.0)
    async with served(hub) as server, client(server) as one:
        for number in range(3):
            assert "error" not in await one.ask(id=1, subscribe=f"{number}/*", pattern=True)
        assert (await refused(one, subscribe="4/*", pattern=True))[0] == "limit"
        for number in range(5, 20):
            await one.ask(id=2, unsubscribe=f"{number - 1}/*", pattern=True)
            answer = await one.ask(id=3, subscribe=f"{number}/*", pattern=True)
        assert answer["error"] == "limit"
        status, body = await fetch(server, poll_of(pattern=["a/*", "b/*", "c/*", "d/*"]))
        assert (status, body["error"]) == (429, "limit")


# -- what the application ends


async def test_who_is_unsubscribed_from_a_topic_gets_nothing_of_it_by_a_pattern_either() -> None:
    identities = iter("ab")
    hub = open_hub(identify=lambda _client: rawws.Identity(next(identities)))
    async with served(hub) as server, client(server) as one, client(server) as two:
        for each in (one, two):
            await each.ask(id=1, subscribe="news/*", pattern=True)
            await each.ask(id=2, subscribe="other/*", pattern=True)
            await each.ask(id=3, subscribe="news/b")
        hub.unsubscribe("a", "news/a", reason="not any more")
        assert await one.hear() == {"pattern": "news/*", "error": "unsubscribed", "reason": "not any more"}
        hub.publish("news/a", "secret")
        hub.publish("news/b", "x")
        heard = await one.hear()
        assert (heard["topic"], "pattern" in heard) == ("news/b", False)
        assert pairs(await two.hear()) == ("news/a", "news/*", "secret")
        assert hub.stats().subscriptions == 5


def test_only_a_pattern_is_ended_where_that_is_meant() -> None:
    hub = Hub()
    receiver = watched(hub, "*", "a/*")
    hub.subscribe(receiver, "a/b")
    hub.unsubscribe(receiver, "a/*", pattern=True)
    assert hub.publish("a/b", "x").delivered == 2
    hub.unsubscribe(receiver, "a/b")
    assert hub.publish("a/b", "x").delivered == 0
    with pytest.raises(TopicError, match="the pattern is 'a/b'"):
        hub.unsubscribe(receiver, "a/b", pattern=True)


def test_a_pattern_is_shown_as_one_where_topics_are_looked_at() -> None:
    hub = Hub()
    watched(hub, "a/*")
    hub.publish("a/b", "x")
    assert [(each.topic, each.subscribers, each.held) for each in hub.topic_figures()] == [
        ("a/* (pattern)", 1, 1),
        ("a/b", 0, 1),
    ]
    assert hub.stats().subscriptions == 1
