"""Publishing to all but one, and to several topics at once."""

from __future__ import annotations

import json
from typing import Any

import pytest

import rawws
from rawws.backplanes.memory import Engine, MemoryBackplane
from rawws.topics import Hub, TopicError
from tests.server.peers import Logged, eventually
from tests.topics.dialogue import allow, client, served
from tests.topics.receivers import Receiver
from tests.topics.test_http import post


def test_who_is_excluded_gets_nothing_and_nobody_else_notices() -> None:
    hub = Hub()
    one, two, stranger = Receiver(), Receiver(), Receiver()
    for receiver in (one, two):
        hub.subscribe(receiver, "a")
    assert hub.publish("a", "1", exclude=one).delivered == 1
    assert hub.publish("a", {"x": 2}, exclude=two).delivered == 1
    # Who is not subscribed is left out already.
    assert hub.publish("a", "3", exclude=stranger).delivered == 2
    assert (one.got, two.got) == (['{"x":2}', "3"], ["1", "3"])
    # It is left out now, and gets it with the others where it comes back.
    back = Receiver()
    hub.subscribe(back, "a", since="earliest")
    assert back.got == ["1", '{"x":2}', "3"]
    not_one: Any = "one"
    with pytest.raises(TypeError, match="the subscriber is str, allowed are a WebSocket"):
        hub.publish("a", "x", exclude=not_one)
    assert hub.stats().published == 3


async def test_with_a_backplane_one_of_this_server_is_left_out_there_and_while_the_engine_is_away(
    logged: Logged,
) -> None:
    engine = Engine()
    async with Hub(backplane=MemoryBackplane(engine)) as one, Hub(backplane=MemoryBackplane(engine)) as two:
        here, other, there = Receiver(), Receiver(), Receiver()
        await one.subscribe(here, "a")
        await one.subscribe(other, "a")
        await two.subscribe(there, "a")
        assert (await one.publish("a", "1", exclude=here)).delivered == 1
        await eventually(lambda: there.got == ["1"])
        engine.stop()
        await eventually(lambda: one.degraded)
        assert one.publish("a", "2", exclude=here).delivered == 1
        engine.start()
        await eventually(lambda: there.got == ["1", "2"])
        await one.publish("a", "3")
        assert (here.got, other.got) == (["3"], ["1", "2", "3"])
    logged.take_all("the backplane is away", 2)
    logged.take_all("the backplane is back", 2)


@pytest.mark.parametrize("callbacks", [False, True])
async def test_a_client_publishes_to_all_but_itself(callbacks: bool) -> None:
    hub = Hub(authorize=allow)
    async with served(hub, callbacks=callbacks) as server, client(server) as one, client(server) as two:
        for each in (one, two):
            await each.ask(id=1, subscribe="a")
        cursor = (await one.ask(id=2, publish="a", data="1", exclude=True))["cursor"]
        assert await two.hear() == {"topic": "a", "cursor": cursor, "data": "1"}
        await one.say(publish="a", data="2", exclude=False)
        assert [(await one.hear())["data"], (await two.hear())["data"]] == ["2", "2"]
        status, answer = await post(server, json.dumps({"id": 3, "publish": "a", "data": "x", "exclude": True}))
        assert (status, answer) == (400, {"id": 3, "error": "malformed", "reason": "exclude needs a WebSocket"})
        answer = await one.ask(id=4, publish="a", data="x", exclude="me")
        assert answer["reason"] == "exclude is str, allowed is bool"


async def test_an_event_stream_is_left_out_and_goes_on_behind_it() -> None:
    hub = Hub()
    stream = rawws.EventStream()
    hub.subscribe(stream, "a")
    other = Receiver()
    hub.subscribe(other, "a")
    assert hub.publish("a", "1", exclude=stream).delivered == 1
    assert hub.publish("a", "2").delivered == 2
    assert other.got == ["1", "2"]


def test_several_topics_get_the_same_or_none_of_them_does() -> None:
    hub = Hub(max_size=5)
    receivers = {topic: Receiver() for topic in "ab"}
    for topic, receiver in receivers.items():
        hub.subscribe(receiver, topic)
    results = hub.broadcast((topic for topic in "ab"), [1], event="e", exclude=receivers["a"])
    assert [(each.cursor[-2:], each.delivered) for each in results] == [(":1", 0), (":1", 1)]
    assert [each.got for each in receivers.values()] == [[], ["[1]"]]
    assert [hub.recall(topic, since="earliest")[1][0].event for topic in "ab"] == ["e", "e"]
    for topics, reason in (
        ([], "no topic is named, needed is at least one"),
        (["a", "b", "a"], "a topic is named twice, allowed is once"),
        (["a", ""], "the topic is ''"),
    ):
        with pytest.raises(TopicError, match=reason):
            hub.broadcast(topics, "x")
    with pytest.raises(TopicError, match="the message has 6 bytes, limit 5"):
        hub.broadcast(["a"], "longer")
    with pytest.raises(TypeError, match="topics is str, allowed is a list of them"):
        hub.broadcast("ab", "x")
    assert hub.stats().published == 2
