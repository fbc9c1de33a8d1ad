"""Topics that an engine cannot serve, and many topics at once: what a hub makes of that, whoever waits for them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

import rawws
from rawws.topics import Hub, TopicError, faults, inquiries, replica, replication
from rawws.topics.backplane import HistoryResult, Position, PresenceEntry, Record, TopicUnavailable
from rawws.topics.endpoints import routes
from tests.backplanes.engines import Engine
from tests.backplanes.handlers import Reader, hubs
from tests.backplanes.test_replication import ByHand, empty, live, record
from tests.server.answers import ask, get
from tests.server.peers import Logged, Peer, eventually, serve
from tests.topics.test_http import feed

FAULT = "the backplane cannot serve all of the topic"
SERVED = "the backplane serves the topic"
WRONG = TopicUnavailable("a", "a test")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have topics at fault be asked for again at once."""
    monkeypatch.setattr(inquiries, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(inquiries, "LONGEST_WAIT", 0.01)


async def fail(hand: ByHand, call: str, error: Exception = WRONG) -> None:
    """Wait until something is asked, and say that it cannot be answered."""
    await eventually(lambda: any(name == call and not future.done() for name, future in hand.asked))
    [future, *_] = [future for name, future in hand.asked if name == call and not future.done()]
    future.set_exception(error)
    for _ in range(5):
        await asyncio.sleep(0)


def count(hand: ByHand, call: str) -> int:
    return sum(name == call for name, _ in hand.asked)


@pytest.mark.parametrize("call", ["follow", "history", "presence"])
async def test_whoever_waits_for_a_topic_at_fault_is_told_and_begins_when_it_is_mended(
    logged: Logged, call: str
) -> None:
    hand = ByHand()
    async with Hub(backplane=hand) as hub:
        reader = Reader()
        subscription = hub.subscribe(reader, "a")
        waiting = asyncio.ensure_future(subscription)
        hand.handler.on_back()
        for number in range(3):
            for name, value in (("follow", None), ("history", empty())):
                if name != call and not (name == "history" and call == "follow"):
                    await hand.answer(name, value)
                if name == call:
                    break
            await fail(hand, call)
            if not number:
                with pytest.raises(TopicError, match="the topic 'a' is unavailable"):
                    await waiting
        assert subscription.pending
        await hand.place(empty())
        await eventually(lambda: not subscription.pending)
        hand.say(1)
        assert (reader.got, reader.faults) == (["1"], [])
        assert hub.stats().faults == 3
    # However often: it is said once.
    logged.take_all(FAULT, 1)
    logged.take_all(SERVED, 1)


async def test_an_error_that_nobody_thought_of_is_the_topics_too(logged: Logged) -> None:
    hand = ByHand()
    async with Hub(backplane=hand) as hub:
        subscription = hub.subscribe(Reader(), "a")
        hand.handler.on_back()
        waiting = asyncio.ensure_future(subscription)
        await fail(hand, "follow", KeyError("a mistake"))
        with pytest.raises(TopicError):
            await waiting
        await hand.place(empty())
        await subscription
    logged.take_all(SERVED, 1)
    logged.take(FAULT, KeyError, "rawws.topics")


async def test_subscribers_are_told_of_a_fault_once_and_get_what_they_missed_when_it_is_mended(logged: Logged) -> None:
    hand = ByHand()
    async with Hub(backplane=hand) as hub:
        reader = await live(hub, hand)
        hand.say(2)
        for _ in range(2):
            await fail(hand, "history")
        # What comes meanwhile is asked for later.
        hand.say(3)
        await hand.answer("history", HistoryResult("E", 3, [record(1), record(2), record(3)], True))
        assert (reader.got, reader.faults, reader.lost_at) == (["1", "2", "3"], ["a"], [])
        hand.say(4)
        assert reader.got[3:] == ["4"]
    logged.take_all(FAULT, 1)
    logged.take_all(SERVED, 1)


async def test_a_topic_at_fault_that_nobody_has_is_asked_for_when_somebody_wants_it(logged: Logged) -> None:
    hand = ByHand()
    async with Hub(backplane=hand) as hub:
        reader = await live(hub, hand)
        hand.say(2)
        await fail(hand, "history")
        hub.unsubscribe(reader)
        asked = count(hand, "history")
        await asyncio.sleep(0.05)
        assert count(hand, "history") == asked
        subscription = hub.subscribe(reader, "a")
        await hand.answer("history", HistoryResult("E", 2, [record(1), record(2)], True))
        await subscription
    logged.take_all(FAULT, 1)
    logged.take_all(SERVED, 1)


async def test_an_engine_that_goes_away_takes_the_fault_with_it(logged: Logged) -> None:
    hand = ByHand()
    async with Hub(backplane=hand) as hub:
        reader = await live(hub, hand)
        hand.say(2)
        await fail(hand, "history")
        hand.handler.on_away("a test")
        hub.publish("a", "here")
        assert (reader.got, reader.faults) == (["here"], ["a"])
        assert not hub.subscribe(Reader(), "a").pending
    logged.take_all(FAULT, 1)
    logged.take_all("the backplane is away", 1)


async def test_who_published_to_a_topic_at_fault_does_not_wait_for_it_to_come_back(logged: Logged) -> None:
    hand = ByHand()
    async with Hub(backplane=hand) as hub:
        await live(hub, hand)
        early = hub.publish("a", "early")
        await hand.answer("publish", Position("E", 3))
        hand.say(2)
        await fail(hand, "history")
        assert ((await early).cursor, early.accepted) == ("E:3", True)
        late = hub.publish("a", "late")
        await hand.answer("publish", Position("E", 4))
        assert ((await late).cursor, late.accepted) == ("E:4", True)
        refused = hub.publish("a", "refused")
        await fail(hand, "publish")
        await refused
        assert (refused.accepted, refused.refused) == (
            False,
            "the topic 'a' is unavailable at this time, others are not",
        )
        assert hub.stats().unsent == 0
    logged.take_all(FAULT, 1)


async def test_those_who_ask_over_http_and_rawws_v1_get_503_and_unavailable(logged: Logged) -> None:
    hand = ByHand()
    hub = Hub(backplane=hand, authorize=lambda *_: True)
    served = rawws.Routes(routes(hub, "/hub"))
    async with hub, serve(served, subprotocols=["rawws.v1"]) as server:
        await live(hub, hand)
        address = server.sockets[0].getsockname()
        stream_of = feed(server, "/hub?topic=a", "Accept: text/event-stream")
        held = await Peer.reach(address)
        await held.write(get("/hub?topic=a&since=E:0", "Connection: close"))
        url = f"ws://127.0.0.1:{address[1]}/hub"
        async with stream_of as stream, rawws.connect(url, subprotocols=["rawws.v1"]) as ws:
            await ws.send('{"id": 1, "subscribe": "a"}')
            assert json.loads(await ws.recv())["cursor"] == "E:0"
            await eventually(lambda: hub.stats().subscribers == 4)
            hand.say(2)
            await fail(hand, "history")
            fault = {"error": "unavailable", "reason": "the topic 'a' is unavailable at this time, others are not"}
            assert json.loads(await ws.recv()) == {"topic": "a", **fault}
            while len(stream.events) < 2:
                await stream.read()
            assert json.loads(stream.events[1].data or "") == {"topic": "a", **fault}
            found, body = await held.answer()
            assert (found.status, json.loads(body)) == (503, fault)
            held.close()
            for accept in ("*/*", "text/event-stream"):
                request = get("/hub?topic=b", "Connection: close", f"Accept: {accept}")
                waiting = asyncio.ensure_future(ask(server, request))
                await fail(hand, "follow")
                [answer] = await waiting
                assert (answer.status, json.loads(answer.body)["error"]) == (503, "unavailable")
            await ws.send('{"id": 2, "publish": "b", "data": "x"}')
            await fail(hand, "publish")
            answer2 = json.loads(await ws.recv())
            assert (answer2["id"], answer2["error"]) == (2, "unavailable")
            posted = json.dumps({"publish": "b", "data": "x"}).encode()
            request = get("/hub", "Connection: close", method="POST", body=posted)
            waiting = asyncio.ensure_future(ask(server, request, ["POST"]))
            await fail(hand, "publish")
            [answer] = await waiting
            assert (answer.status, json.loads(answer.body)["error"]) == (503, "unavailable")
    logged.take_all(FAULT, 2)


async def test_a_stream_of_messages_alone_and_a_raw_subscriber_are_told_nothing_of_a_fault(logged: Logged) -> None:
    hand = ByHand()
    hub = Hub(backplane=hand)

    def stream(_: rawws.HttpRequest) -> rawws.EventStream:
        made = rawws.EventStream()
        hub.subscribe(made, "a")
        return made

    async def raw(ws: rawws.WebSocket) -> None:
        hub.subscribe(ws, "a")
        await ws.wait_closed()

    served = rawws.Routes([rawws.Route("/stream", stream), rawws.Route("/raw", raw, websocket=True)])
    async with hub, serve(served) as server, feed(server, "/stream") as one:
        port = server.sockets[0].getsockname()[1]
        async with rawws.connect(f"ws://127.0.0.1:{port}/raw") as ws:
            await eventually(lambda: hub.stats().subscribers == 2)
            hand.handler.on_back()
            await hand.place(empty())
            hand.say(2)
            await fail(hand, "history")
            await hand.answer("history", HistoryResult("E", 2, [record(1), record(2)], True))
            assert [await ws.recv(), await ws.recv()] == ["1", "2"]
            while len(one.events) < 2:
                await one.read()
            assert [event.data for event in one.events] == ["1", "2"]
    logged.take_all(FAULT, 1)
    logged.take_all(SERVED, 1)


async def test_a_doubt_is_counted_where_it_has_a_reason_and_asked_about_once(logged: Logged) -> None:
    hand = ByHand()
    async with Hub(backplane=hand) as hub:
        await live(hub, hand)
        asked = count(hand, "history")
        for _ in range(100):
            hand.handler.on_doubt("a", "junk\nin two lines")
            hand.handler.on_doubt("nobody has it", "junk")
        hand.handler.on_doubt("a")
        await hand.answer("history", empty())
        assert count(hand, "history") == asked + 1
        assert hub.stats().faults == 200
    logged.take_all(FAULT, 2)


async def test_the_log_names_so_many_topics_at_fault_and_no_more(
    logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "MAX_NAMED", 3)
    hand = ByHand()
    async with Hub(backplane=hand) as hub:
        await live(hub, hand)
        for number in range(10):
            hand.handler.on_doubt(f"{number}", "junk")
        assert hub.stats().faults == 10
    logged.take_all(FAULT, 3)


async def test_a_record_that_is_too_large_for_this_hub_is_told_as_missing_and_the_next_one_comes(
    logged: Logged,
) -> None:
    hand = ByHand()
    async with Hub(backplane=hand, max_size=10) as hub:
        reader = await live(hub, hand)
        hand.say(1)
        hand.handler.on_record(Record("a", "E", 2, "x" * 11, None, "other", 1))
        hand.handler.on_record(Record("a", "E", 3, "\ud800", None, "other", 2))
        # What would be another envelope than the one that this hub makes.
        hand.handler.on_record(Record("a", "E", 4, "x", None, "other", 3, '"topic":"b"'))
        hand.say(5)
        assert (reader.got, reader.moves) == (["1", "5"], [("E:2", False), ("E:3", False), ("E:4", False)])
        late = Reader()
        assert not hub.subscribe(late, "a", since="E:1").recovered
        # Also one that is there when the topic is found.
        subscription = hub.subscribe(late, "b", since="earliest")
        large = Record("b", "F", 1, "x" * 11, None, "other", 1)
        await hand.place(HistoryResult("F", 2, [large, large._replace(offset=2, message="y")], True))
        await subscription
        assert late.got == ["y"]
        assert hub.stats().faults == 4
    logged.take_all(FAULT, 2)


async def test_the_first_publication_of_a_topic_begins_its_epoch_also_where_it_comes_before_its_place() -> None:
    hand = ByHand()
    async with Hub(backplane=hand) as hub:
        reader = await live(hub, hand)
        hand.say(1, epoch="F")
        assert (reader.got, reader.cursors) == (["1"], ["F:1"])
        other = Reader()
        subscription = hub.subscribe(other, "b")
        await hand.answer("follow", None)
        hand.handler.on_record(record(1, epoch="G")._replace(topic="b"))
        await hand.answer("history", empty())
        await hand.answer("presence", [])
        await subscription
        # It was published before the subscription began.
        assert (other.got, subscription.cursor) == ([], "G:1")
        for name, cursor in (("a", "E:0"), ("b", "E:0")):
            again = Reader()
            assert hub.subscribe(again, name, since=cursor).recovered
            assert again.got == ["1"]
        assert (hub.stats().gaps, hub.stats().declared) == (0, 0)


async def test_a_cursor_of_the_first_publication_that_has_not_come_yet_is_asked_for() -> None:
    hand = ByHand()
    async with Hub(backplane=hand) as hub:
        reader, late = await live(hub, hand), Reader()
        subscription = hub.subscribe(late, "a", since="F:1")
        assert subscription.pending
        await hand.answer("history", HistoryResult("F", 1, [record(1, epoch="F")], True, 0, (Position("E", 0),)))
        await subscription
        hand.say(2, epoch="F")
        assert (reader.got, late.got, subscription.recovered) == (["1", "2"], ["2"], True)
        # What nobody gave is asked for once.
        lost = hub.subscribe(Reader(), "a", since="G:0")
        await hand.answer("history", HistoryResult("F", 2, [], True))
        await lost
        assert not lost.recovered


async def test_who_publishes_first_waits_until_it_is_delivered_here() -> None:
    hand = ByHand()
    async with Hub(backplane=hand) as hub:
        reader = await live(hub, hand)
        outcome = hub.publish("a", "1")
        await hand.answer("publish", Position("F", 1))
        assert (outcome.pending, reader.got) == (True, [])
        hand.say(1, epoch="F", server=hand.server, number=1)
        assert ((await outcome).cursor, outcome.delivered, reader.got) == ("F:1", 1, ["1"])
        # The place of one that the engine had already, and does not know any more, is no place to wait for.
        again = hub.publish("b", "2")
        hub.subscribe(reader, "b")
        await hand.place(empty())
        await hand.answer("publish", Position("G", 0))
        assert not again.pending


async def test_what_is_told_of_those_present_while_a_topic_is_at_fault_is_bounded(
    logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replication, "MAX_BUFFER", 3)
    hand = ByHand()
    async with Hub(backplane=hand) as hub:
        subscription = hub.subscribe(Reader(), "a")
        hand.handler.on_back()
        await fail(hand, "follow")
        for number in range(10):
            hand.handler.on_presence("a", "join", PresenceEntry("other", f"{number}", "null"))
            hand.handler.on_server_gone(f"{number}")
        await hand.place(empty(), [PresenceEntry("other", "x", "null"), PresenceEntry("other", "y", "no json")])
        await subscription
        # What came behind the last time that it was asked for is known, too.
        first, *told = [present.id for present in hub.presence("a")]
        assert first == "x"
        assert len(told) <= 3
        # It names nobody: those of this server stay.
        me = await hub.subscribe(Reader(), "a", join="me")
        hand.handler.on_server_gone("")
        assert me.present in {present.id for present in hub.presence("a")}
        assert hub.stats().faults == 2
    logged.take_all(FAULT, 1)
    logged.take_all(SERVED, 1)


async def test_however_many_topics_there_are_few_are_asked_for_at_a_time(
    engine: Engine, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inquiries, "MAX_ASKED", 5)
    async with hubs(engine) as (one, two):
        reader = Reader()
        for number in range(200):
            one.subscribe(reader, f"{number}")
        at_once: list[int] = []
        hub: Any = one
        inquiry = hub._replication.inquiries
        ask_one = inquiry._ask

        async def counted(topic: Any) -> None:
            at_once.append(len(inquiry._tasks))
            await ask_one(topic)

        inquiry._ask = counted
        await eventually(lambda: not any(each.pending for each in reader.member.subscriptions.values()))
        engine.kill()
        await eventually(lambda: one.stats().degraded and two.stats().degraded)
        engine.start()
        await eventually(lambda: not one.stats().degraded and not two.stats().degraded)
        for number in range(200):
            await two.publish(f"{number}", "x")
        await eventually(lambda: len(reader.got) == 200)
        assert len(at_once) >= 200
        assert max(at_once) <= 5
        assert all(found.log.state == replica.LIVE for found in hub._table.topics.values())
    logged.take_all("the backplane is away", 2)
    logged.take_all("the backplane is back", 2)
