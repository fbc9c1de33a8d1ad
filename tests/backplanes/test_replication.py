"""What a hub makes of what its backplane says, in orders that no engine can be made to say at will."""

from __future__ import annotations

import asyncio
import json
from typing import Any, final

import pytest

import rawws
from rawws.net.prepared import PreparedMessage
from rawws.topics import History, Hub, Publication, TopicError, outbox, replica, replication
from rawws.topics.backplane import (
    BackplaneAway,
    BackplaneHandler,
    HistoryResult,
    Position,
    PresenceEntry,
    Record,
    new_answer,
)
from rawws.topics.history import TOPIC_COST, HistoryStore
from rawws.topics.replica import ReplicaLog
from tests.backplanes.handlers import Reader
from tests.server.answers import ask, get, on
from tests.server.peers import Logged, Peer, eventually, serve
from tests.topics.receivers import Receiver, still
from tests.topics.test_http import Feed, feed


@final
class ByHand:
    """A backplane that answers what a test says, when it says it."""

    patterns = True

    def __init__(self) -> None:
        self.server = ""
        self.handler: BackplaneHandler
        # What is asked and not answered, and what was told.
        self.asked: list[tuple[str, asyncio.Future[Any]]] = []
        self.told: list[str] = []

    def open(self, server: str, history: History, handler: BackplaneHandler) -> None:
        self.server, self.handler = server, handler

    async def close(self) -> None:
        for _, future in self.asked:
            if not future.done():
                future.set_exception(BackplaneAway("the backplane is closed"))

    def publish(
        self, topic: str, message: str | bytes, key: str | None, number: int, extra: str = ""
    ) -> asyncio.Future[Position]:
        return self._ask("publish")

    def follow(self, topic: str) -> asyncio.Future[None]:
        return self._ask("follow")

    def unfollow(self, topic: str) -> None:
        self.told.append("unfollow")

    def history(self, topic: str, since: Position | None) -> asyncio.Future[HistoryResult]:
        return self._ask("history")

    def join(self, topic: str, ident: str, info: str) -> None:
        self.told.append("join")

    def leave(self, topic: str, ident: str) -> None:
        self.told.append("leave")

    def presence(self, topic: str) -> asyncio.Future[list[PresenceEntry]]:
        return self._ask("presence")

    def stats(self) -> dict[str, int]:
        return {"retries": 0}

    # -- what a test does

    async def answer(self, call: str, value: Any) -> None:
        """Wait until something is asked, and answer it."""
        await eventually(lambda: any(name == call and not future.done() for name, future in self.asked))
        [future, *_] = [future for name, future in self.asked if name == call and not future.done()]
        future.set_result(value)
        for _ in range(5):
            await asyncio.sleep(0)

    async def place(self, past: HistoryResult, entries: list[PresenceEntry] | None = None) -> None:
        """Answer all that is asked of a topic that is new here."""
        await self.answer("follow", None)
        await self.answer("history", past)
        await self.answer("presence", entries or [])

    def say(self, offset: int, *, epoch: str = "E", server: str = "other", number: int = 0) -> None:
        """Tell of a publication."""
        self.handler.on_record(record(offset, epoch=epoch, server=server, number=number))

    def _ask(self, call: str) -> asyncio.Future[Any]:
        future = new_answer(asyncio.get_running_loop())
        self.asked.append((call, future))
        return future


def record(offset: int, *, epoch: str = "E", server: str = "other", number: int = 0) -> Record:
    return Record("a", epoch, offset, str(offset), None, server, number)


def empty(epoch: str = "E") -> HistoryResult:
    return HistoryResult(epoch, 0, [], True)


async def live(hub: Hub, hand: ByHand, **options: Any) -> Reader:
    """Return the first subscriber of a topic that has its place."""
    reader = Reader()
    subscription = hub.subscribe(reader, "a", **options)
    hand.handler.on_back()
    await hand.place(empty())
    await subscription
    return reader


# -- publications


async def test_what_comes_twice_is_delivered_once() -> None:
    hand = ByHand()
    async with Hub(backplane=hand) as hub:
        reader = await live(hub, hand)
        for offset in (1, 1, 2, 1):
            hand.say(offset)
        assert reader.got == ["1", "2"]
        assert hub.stats().gaps == 0


async def test_a_gap_behind_what_fills_a_gap_is_asked_for_too() -> None:
    hand = ByHand()
    async with Hub(backplane=hand) as hub:
        reader = await live(hub, hand)
        hand.say(2)
        hand.say(4)
        await hand.answer("history", HistoryResult("E", 2, [record(1), record(2)], True))
        assert reader.got == ["1", "2"]
        await hand.answer("history", HistoryResult("E", 4, [record(3), record(4)], True))
        assert reader.got == ["1", "2", "3", "4"]
        hand.say(5)
        assert reader.got[4:] == ["5"]
        assert hub.stats().gaps == 1


async def test_whoever_waits_for_its_place_is_not_told_of_one_that_is_lost_before() -> None:
    hand = ByHand()
    async with Hub(backplane=hand) as hub:
        reader, plain, late = await live(hub, hand), Receiver(), Reader()
        await hub.subscribe(plain, "a")
        subscription = hub.subscribe(late, "a", since="E:9")
        assert subscription.pending
        await hand.answer("history", HistoryResult("F", 0, [], False))
        assert reader.moves == [("F:0", False)]
        await hand.answer("history", HistoryResult("F", 1, [record(1, epoch="F")], True))
        await subscription
        assert (subscription.recovered, late.moves, late.got) == (False, [], [])
        assert reader.got == plain.got == ["1"]
        hand.say(2, epoch="F")
        assert late.got == ["2"]


async def test_an_epoch_that_goes_over_into_another_leaves_cursors_good(logged: Logged) -> None:
    hand = ByHand()
    async with Hub(backplane=hand) as hub:
        reader = await live(hub, hand)
        hand.say(1)
        hand.say(2)
        before: list[Position] = []
        for last, epoch in ((Position("E", 2), "F"), (Position("F", 3), "G")):
            hand.handler.on_away("a test")
            hand.handler.on_back()
            before.append(last)
            records = [record(last.offset + 1, epoch=epoch)]
            await hand.place(HistoryResult(epoch, last.offset + 1, records, True, last.offset, tuple(before)))
            assert reader.cursors[-1] == f"{epoch}:{last.offset + 1}"
        assert (reader.got, reader.lost_at) == (["1", "2", "3", "4"], [])
        for cursor, got in (("E:1", ["2", "3", "4"]), ("F:2", ["3", "4"]), ("F:3", ["4"]), ("G:4", [])):
            again = Reader()
            assert hub.subscribe(again, "a", since=cursor).recovered
            assert (again.got, again.cursors) == (got, [f"G:{number}" for number in got])
        # These are beyond where their epochs went over, and of none.
        for cursor in ("F:4", "E:3", "H:1"):
            again = Reader()
            assert not hub.subscribe(again, "a", since=cursor).recovered
            assert again.got == []
        assert hub.stats().declared == 0
        logged.take_all("the backplane is away", 2)
        logged.take_all("the backplane is back", 2)


async def test_whoever_finds_an_epoch_that_went_over_takes_cursors_of_the_one_before() -> None:
    hand = ByHand()
    async with Hub(backplane=hand) as hub:
        reader, other = Reader(), Reader()
        subscription = hub.subscribe(reader, "a", since="E:1")
        lost = hub.subscribe(other, "a", since="E:3")
        hand.handler.on_back()
        records = [record(offset, epoch="F") for offset in (1, 2, 3)]
        await hand.place(HistoryResult("F", 3, records, True, 2, (Position("E", 2),)))
        await subscription
        assert (subscription.recovered, reader.got) == (True, ["2", "3"])
        await lost
        assert (lost.recovered, other.got) == (False, [])


async def test_an_engines_cursor_waits_until_what_was_said_without_it_has_its_place(logged: Logged) -> None:
    hand = ByHand()
    async with Hub(backplane=hand) as hub:
        reader = await live(hub, hand)
        hand.handler.on_away("a test")
        outcome = hub.publish("a", "1")
        local = outcome.cursor.partition(":")[0]
        assert (reader.got, outcome.accepted) == (["1"], False)
        hand.handler.on_back()
        late = Reader()
        subscription = hub.subscribe(late, "a", since="E:0")
        await hand.place(empty())
        # The topic has its place again, and "1" has not: to whom it was told in another one, it is not told in this.
        assert subscription.pending
        here = Reader()
        assert not hub.subscribe(here, "a", since=f"{local}:0").pending
        assert here.got == ["1"]
        hand.say(1, server=hand.server, number=1)
        await subscription
        assert (late.got, late.cursors, subscription.recovered) == (["1"], ["E:1"], True)
        assert reader.got == here.got == ["1"]
    logged.take_all("the backplane is away", 1)
    logged.take_all("the backplane is back", 1)


async def test_who_was_away_when_a_loss_was_told_is_told_when_it_comes_back(logged: Logged) -> None:
    hand = ByHand()
    async with Hub(backplane=hand) as hub:
        reader = await live(hub, hand)
        hand.say(1)
        hand.handler.on_away("a test")
        assert hub.publish("a", "x").cursor
        guest = Reader()
        subscription = hub.subscribe(guest, "a", since="E:1")
        assert (subscription.recovered, guest.got) == (True, ["x"])
        guest.die()
        hand.handler.on_back()
        # Publications behind E:1 were lost with it. "x" has no place there yet, so all here keep the hub's own cursors.
        await hand.answer("follow", None)
        await hand.answer("history", HistoryResult("F", 0, [], False))
        await hand.answer("history", empty("F"))
        await hand.answer("presence", [])
        assert reader.lost_at == [2]
        back, stays = Reader(), Reader()
        comes = hub.subscribe(back, "a", since=guest.cursors[-1])
        assert hub.subscribe(stays, "a", since=reader.cursors[-1]).recovered
        hand.say(1, epoch="F", server=hand.server, number=1)
        await comes
        assert not comes.recovered
        hand.say(2, epoch="F")
        assert (reader.got, back.got, stays.got) == (["1", "x", "2"], ["2"], ["2"])
    logged.take_all("the backplane is away", 1)
    logged.take_all("the backplane is back", 1)


async def test_a_loss_that_was_told_is_so_also_where_the_engine_goes_away_behind_it(logged: Logged) -> None:
    hand = ByHand()
    async with Hub(backplane=hand) as hub:
        reader = await live(hub, hand)
        hand.say(1)
        hand.handler.on_away("a test")
        guest = Reader()
        cursor = hub.subscribe(guest, "a", since="E:1").cursor
        guest.die()
        hand.handler.on_back()
        await hand.answer("follow", None)
        await hand.answer("history", HistoryResult("F", 0, [], False))
        waits = hub.subscribe(Reader(), "a", since=cursor)
        assert (waits.pending, reader.lost_at) == (True, [1])
        hand.handler.on_away("once more")
        await waits
        assert not waits.recovered
        assert not hub.subscribe(Reader(), "a", since=cursor).recovered
        assert hub.subscribe(Reader(), "a", since=reader.cursors[-1]).recovered
    logged.take_all("the backplane is away", 2)
    logged.take_all("the backplane is back", 1)


async def test_what_came_back_from_the_engine_is_given_out_once_when_that_is_away_again(logged: Logged) -> None:
    hand = ByHand()
    async with Hub(backplane=hand) as hub:
        reader = await live(hub, hand)
        hand.say(1)
        hand.handler.on_away("a test")
        hub.publish("a", "x")
        hub.publish("a", "y")
        hand.handler.on_back()
        await hand.answer("follow", None)
        await hand.answer("history", HistoryResult("E", 2, [record(2, server=hand.server, number=1)], True))
        await hand.answer("presence", [])
        hand.handler.on_away("once more")
        back = Reader()
        subscription = hub.subscribe(back, "a", since="E:1")
        assert (subscription.recovered, back.got) in ((True, ["x", "y"]), (False, []))
        assert reader.got == ["1", "x", "y"]
    logged.take_all("the backplane is away", 2)
    logged.take_all("the backplane is back", 1)


async def test_what_is_said_without_the_engine_is_not_given_out_when_it_is_older_than_its_age(logged: Logged) -> None:
    hand = ByHand()
    with still() as clock:
        async with Hub(backplane=hand, history=History(age=10.0)) as hub:
            await live(hub, hand)
            hand.handler.on_away("a test")
            local = hub.publish("a", "old").cursor.partition(":")[0]
            clock.now += 6
            hub.publish("a", "new")
            for passed, found in ((0, ["old", "new"]), (5, ["new"]), (6, [])):
                clock.now += passed
                for since in ("earliest", f"{local}:0", "E:0"):
                    reader = Reader()
                    recovered = hub.subscribe(reader, "a", since=since).recovered
                    is_known = passed == 0 or since == "earliest"
                    assert (recovered, reader.got) == (is_known, found if is_known else [])
    logged.take_all("the backplane is away", 1)


async def test_what_the_engine_held_for_a_while_is_held_here_for_the_rest_of_its_age() -> None:
    hand = ByHand()
    with still() as clock:
        async with Hub(backplane=hand, history=History(age=10.0)) as hub:
            subscription = hub.subscribe(Reader(), "a")
            hand.handler.on_back()
            records = [record(1)._replace(age=7.0), record(2)._replace(age=2.0), record(3)]
            await hand.place(HistoryResult("E", 3, records, True))
            await subscription
            for passed, got in ((0.0, ["1", "2", "3"]), (3.5, ["2", "3"]), (5.0, ["3"]), (2.0, [])):
                clock.now += passed
                reader = Reader()
                hub.subscribe(reader, "a", since="earliest")
                assert reader.got == got


async def test_a_cursor_of_the_future_that_waited_is_lost_and_harms_nobody_else(logged: Logged) -> None:
    hand = ByHand()
    async with Hub(backplane=hand) as hub:
        await live(hub, hand)
        hand.handler.on_away("a test")
        local = hub.publish("a", "1").cursor.partition(":")[0]
        hand.handler.on_back()
        subscription = hub.subscribe(Reader(), "a", since=f"{local}:9")
        other = hub.subscribe(Reader(), "a")
        await hand.place(empty())
        await subscription
        await other
        assert (subscription.recovered, other.recovered) == (False, True)
    logged.take_all("the backplane is away", 1)
    logged.take_all("the backplane is back", 1)


async def test_who_published_to_a_topic_that_is_forgotten_waits_no_longer() -> None:
    hand = ByHand()
    async with Hub(backplane=hand, history=None) as hub:
        reader = await live(hub, hand)
        outcome = hub.publish("a", "x")
        waiting = [asyncio.create_task(wait(outcome)) for _ in range(2)]
        hand.say(4)
        await hand.answer("publish", Position("E", 5))
        assert outcome.pending
        hub.unsubscribe(reader)
        await asyncio.gather(*waiting)
        assert (outcome.cursor, outcome.accepted) == ("E:5", True)
        assert hand.told == ["unfollow"]
        assert hub.stats().unsent == 0


async def wait(what: Any) -> None:
    await what


async def test_a_subscription_may_be_waited_for_by_several() -> None:
    hand = ByHand()
    async with Hub(backplane=hand) as hub:
        subscription = hub.subscribe(Reader(), "a")
        waiting = [asyncio.create_task(wait(subscription)) for _ in range(2)]
        await asyncio.sleep(0)
        hand.handler.on_back()
        await hand.place(empty())
        await asyncio.gather(*waiting)
        assert subscription.cursor == "E:0"


async def test_what_may_not_wait_for_the_engine_is_refused_to_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "MAX_WAITING", 0)
    async with Hub(backplane=ByHand(), authorize=lambda *_: True) as hub, serve(on("/", hub.post, "POST")) as server:
        body = json.dumps({"publish": "a", "data": "x"}).encode()
        [answer] = await ask(server, get("/", "Connection: close", method="POST", body=body), ["POST"])
        assert answer.status == 429
        assert json.loads(answer.body) == {"error": "limit", "reason": "too many publications wait already"}


# -- an engine of several nodes


async def placed(hub: Hub, hand: ByHand, topic: str) -> Reader:
    """Return a subscriber of a topic that has its place."""
    reader = Reader()
    subscription = hub.subscribe(reader, topic)
    await hand.place(empty())
    await subscription
    return reader


def told_of(topic: str, offset: int) -> Record:
    return record(offset)._replace(topic=topic)


async def test_an_engine_that_is_away_for_some_topics_is_so_for_no_other(logged: Logged) -> None:
    hand = ByHand()
    async with Hub(backplane=hand) as hub:
        hub.publish("begin", "x")
        hand.handler.on_back()
        await hand.answer("publish", Position("E", 1))
        here, there = await placed(hub, hand, "here"), await placed(hub, hand, "there")
        hand.handler.on_away("a node", {"there", "new"})
        assert hub.stats().degraded
        # Who is here hears of it, and the engine is asked for nothing.
        alone, joined = hub.publish("there", "alone"), hub.publish("here", "joined")
        assert (alone.pending, alone.delivered, there.got) == (False, 1, ["alone"])
        assert (joined.pending, here.got, hub.stats().unsent) == (True, [], 2)
        hand.handler.on_record(told_of("here", 1))
        hand.handler.on_record(told_of("there", 1))
        assert (here.got, there.got) == (["1"], ["alone"])
        await hand.answer("publish", Position("E", 1))
        assert not hub.subscribe(Reader(), "new").pending
        assert hub.subscribe(Reader(), "other").pending
        await hand.place(empty())
        # Another node goes, and the first one comes back.
        hand.handler.on_away("another node", {"there", "new", "here"})
        hub.publish("here", "here alone")
        assert here.got == ["1", "here alone"]
        hand.handler.on_back({"here"})
        assert (hub.stats().degraded, here.moves) == (True, [])
        await hand.place(HistoryResult("E", 1, [told_of("there", 1)], True))
        await hand.place(empty())
        assert (there.got, there.moves) == (["alone", "1"], [])
        await hand.answer("publish", Position("E", 2))
        hand.handler.on_record(told_of("there", 2)._replace(server=hand.server, number=2))
        assert (there.got, there.moves) == (["alone", "1"], [("E:2", True)])
        hand.handler.on_back()
        assert (hub.stats().degraded, hub.stats().unsent) == (False, 1)
    logged.take_all("the backplane is away, some topics are degraded: a node", 1)
    logged.take_all("the backplane is back: 1 publications waited for it", 1)


async def test_an_engine_that_is_reached_for_some_topics_first_serves_those(logged: Logged) -> None:
    hand = ByHand()
    async with Hub(backplane=hand) as hub:
        here, there = Reader(), Reader()
        subscriptions = [hub.subscribe(here, "here"), hub.subscribe(there, "there")]
        outcomes = [hub.publish(name, name) for name in ("here", "there")]
        hand.handler.on_away("a node", {"there"})
        assert [outcome.pending for outcome in outcomes] == [True, False]
        assert (subscriptions[0].pending, subscriptions[1].pending) == (True, False)
        await hand.answer("publish", Position("E", 1))
        await hand.place(HistoryResult("E", 1, [told_of("here", 1)], True))
        assert ((await outcomes[0]).accepted, outcomes[1].accepted) == (True, False)
        hand.handler.on_back()
        await hand.answer("publish", Position("F", 1))
        await hand.place(HistoryResult("F", 1, [told_of("there", 1)], True))
        assert hub.stats().unsent == 0
    logged.take_all("the backplane is away", 1)
    logged.take_all("the backplane is back", 1)


async def test_a_server_whose_lease_ran_out_at_one_node_is_gone_from_the_topics_of_that(logged: Logged) -> None:
    hand = ByHand()
    async with Hub(backplane=hand) as hub:
        hub.publish("begin", "x")
        hand.handler.on_back()
        await placed(hub, hand, "a")
        await placed(hub, hand, "b")
        for topic in "ab":
            hand.handler.on_presence(topic, "join", PresenceEntry("other", "x", "null"))
        hand.handler.on_server_gone("other", {"a"})
        assert [len(hub.presence(topic)) for topic in "ab"] == [0, 1]
        hand.handler.on_server_gone("other")
        assert [len(hub.presence(topic)) for topic in "ab"] == [0, 0]
    assert logged.left() == []


# -- presence


async def test_too_many_who_come_and_go_before_it_is_known_who_is_there_are_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replication, "MAX_BUFFER", 3)
    hand = ByHand()
    async with Hub(backplane=hand) as hub:
        subscription = hub.subscribe(Reader(), "a")
        hand.handler.on_back()
        await hand.answer("follow", None)
        entries = [PresenceEntry("other", f"{number}", "null") for number in range(4)]
        for entry in entries:
            hand.handler.on_presence("a", "join", entry)
        await hand.place(empty(), entries)
        await subscription
        assert {present.id for present in hub.presence("a")} == {"0", "1", "2", "3"}


async def test_a_server_that_goes_before_it_is_known_who_is_there_takes_its_own_with_it() -> None:
    hand = ByHand()
    async with Hub(backplane=hand) as hub:
        subscription = hub.subscribe(Reader(), "a", join="me")
        hand.handler.on_back()
        hand.handler.on_presence("a", "join", PresenceEntry("one", "x", "1"))
        hand.handler.on_server_gone("one")
        hand.handler.on_presence("a", "join", PresenceEntry("one", "y", "1"))
        await hand.place(empty(), [PresenceEntry("one", "x", "1"), PresenceEntry("two", "z", "2")])
        await subscription
        assert {present.id for present in hub.presence("a")} == {subscription.present, "y", "z"}
        # It is told of its own lease as well.
        hand.handler.on_server_gone(hand.server)
        hand.handler.on_presence("a", "leave", PresenceEntry("one", "x", "1"))
        assert {present.id for present in hub.presence("a")} == {subscription.present, "y", "z"}


async def test_behind_its_end_a_hub_tells_its_backplane_nothing() -> None:
    hand = ByHand()
    hub = Hub(backplane=hand)
    await live(hub, hand)
    await hub.close()
    reader = Reader()
    assert not hub.subscribe(reader, "a", join="me").pending
    assert [present.info for present in hub.presence("a")] == ["me"]
    hub.publish("a", "here")
    hub.unsubscribe(reader)
    assert reader.got == ["here"]
    assert hand.told == []


# -- event streams and polls


async def told(stream: Feed, ident: str) -> None:
    """Wait for an id, which EventSource remembers and dispatches no event for."""
    while stream.decoder.last_event_id != ident:
        await stream.read()


async def test_an_event_stream_and_a_poll_are_told_where_they_are_when_something_is_lost() -> None:
    hand = ByHand()
    hub = Hub(backplane=hand, authorize=lambda *_: True)

    def stream(_: rawws.HttpRequest) -> rawws.EventStream:
        made = rawws.EventStream()
        hub.subscribe(made, "a")
        return made

    routes = rawws.Routes([rawws.Route("/stream", stream), rawws.Route("/poll", hub.poll)])
    async with hub, serve(routes) as server, feed(server, "/stream") as one:
        await eventually(lambda: hub.stats().subscribers)
        hand.handler.on_back()
        await hand.place(empty())
        await told(one, "a=E:0")
        peer = await Peer.reach(server.sockets[0].getsockname())
        await peer.write(get("/poll?topic=a&since=E:0", "Connection: close"))
        await eventually(lambda: hub.stats().subscribers == 2)
        hand.say(2)
        await hand.answer("history", HistoryResult("F", 0, [], False))
        await hand.answer("history", empty("F"))
        await told(one, "a=F:0")
        assert one.events == []
        _, body = await peer.answer()
        assert json.loads(body) == {"publications": [], "cursor": "a=F:0", "recovered": False}
        peer.close()


async def test_a_poll_keeps_the_order_of_a_topic_however_old_the_engine_calls_each() -> None:
    hand = ByHand()
    hub = Hub(backplane=hand, authorize=lambda *_: True)
    async with hub, serve(rawws.Routes([rawws.Route("/poll", hub.poll)])) as server:
        await live(hub, hand)
        for offset in (1, 2):
            hand.say(offset)
        # As if it had come late, and what came behind it was asked for.
        hand.handler.on_record(record(3)._replace(age=9.0))
        [answer] = await ask(server, get("/poll?topic=a&since=E:0", "Connection: close"))
        assert [each["data"] for each in json.loads(answer.body)["publications"]] == ["1", "2", "3"]


async def test_topics_that_are_too_many_for_an_id_are_refused_before_they_have_a_place() -> None:
    hand = ByHand()
    async with Hub(backplane=hand) as hub:
        stream = rawws.EventStream()
        for number in range(30):
            hub.subscribe(stream, f"{number} " + "x" * 60)
        with pytest.raises(TopicError, match="too many for the id"):
            for number in range(30, 80):
                hub.subscribe(stream, f"{number} " + "x" * 60)
        hand.handler.on_back()
        for _ in range(hub.stats().subscriptions):
            await hand.place(empty())
        assert hub.stats().subscriptions > 30
        hand.handler.on_record(record(1)._replace(topic="0 " + "x" * 60))
        stream.close()


@pytest.mark.parametrize(("count", "size"), [(3, 1 << 20), (1000, 3 * 1448)], ids=["by count", "by bytes"])
async def test_what_waits_for_the_engine_is_bounded_in_counts_and_in_bytes_and_has_room_again(
    count: int, size: int, monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    monkeypatch.setattr(outbox, "MAX_WAITING", count)
    monkeypatch.setattr(outbox, "MAX_WAITING_SIZE", size)
    hand = ByHand()
    async with Hub(backplane=hand) as hub:
        # Of each, 512 bytes are counted beside its own.
        outcomes = [hub.publish("a", "x" * 936) for _ in range(5)]
        assert (hub.stats().unsent, hub.stats().lost) == (3, 2)
        assert [outcome.pending for outcome in outcomes] == [True] * 3 + [False] * 2
        hand.handler.on_back()
        for offset in (1, 2, 3):
            await hand.answer("publish", Position("E", offset))
        assert [(await outcome).accepted for outcome in outcomes] == [True] * 3 + [False] * 2
        # What has its place waits no longer.
        again = [hub.publish("a", "x" * 936) for _ in range(4)]
        assert (hub.stats().unsent, hub.stats().lost) == (3, 3)
        assert [outcome.pending for outcome in again] == [True] * 3 + [False]
        # A refusal of the engine gives the room back as well.
        for future in [future for name, future in hand.asked if name == "publish" and not future.done()]:
            future.set_exception(ValueError("refused"))
            break
        await eventually(lambda: hub.stats().unsent == 2)
        logged.take("the backplane cannot serve all of the topic", ValueError, "rawws.topics")
        assert hub.publish("a", "x" * 936).pending


async def test_what_a_topic_has_already_when_it_gets_its_place_is_settled_with_its_own() -> None:
    hand = ByHand()
    async with Hub(backplane=hand) as hub:
        outcome = hub.publish("a", "1")
        subscription = hub.subscribe(Reader(), "a")
        hand.handler.on_back()
        await hand.place(HistoryResult("E", 2, [record(1), record(2, server=hand.server, number=1)], recovered=True))
        assert (await subscription).cursor == "E:2"
        assert ((await outcome).cursor, outcome.accepted, hub.stats().unsent) == ("E:2", True, 0)


async def test_a_topic_is_not_forgotten_while_somebody_waits_for_its_place() -> None:
    with still() as clock:
        hand = ByHand()
        async with Hub(backplane=hand) as hub:
            waiting: Any = hub.when_ready(["a"], "", lambda: "ready")
            task = asyncio.ensure_future(waiting)
            await asyncio.sleep(0)
            hand.handler.on_back()
            clock.now += 1e6
            assert hub.stats().topics == 1
            assert hand.told == []
            await hand.place(empty())
            assert await task == "ready"
            # Nobody waits any more.
            clock.now += 1e6
            assert hub.stats().topics == 0
            assert hand.told == ["unfollow"]


async def test_what_comes_before_a_topic_has_its_place_is_bounded_and_asked_for_once_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replica, "MAX_BUFFER", 3)
    hand = ByHand()
    async with Hub(backplane=hand) as hub:
        reader = Reader()
        subscription = hub.subscribe(reader, "a")
        hand.handler.on_back()
        await hand.answer("follow", None)
        for offset in range(1, 8):
            hand.say(offset)
        await hand.answer("history", empty())
        await hand.answer("presence", [])
        await hand.answer("history", HistoryResult("E", 7, [record(offset) for offset in range(1, 8)], True))
        await subscription
        hand.say(8)
        assert reader.got[-1] == "8"
        assert len(reader.got) == len(set(reader.got))


def test_what_was_said_here_alone_and_is_held_no_more_cannot_be_had() -> None:
    history = History(2, 1 << 20, 1e9, 1 << 30)
    log = ReplicaLog("a", HistoryStore(history))
    log.reset("E", 5)
    for number in range(3):
        log.show(HistoryStore(history), Publication("a", PreparedMessage(str(number))))
        missed = log.since("E:5")
        assert missed.recovered is (number < 2)
        assert [each.message for each in missed.publications] == (["0", "1"][: number + 1] if number < 2 else [])


async def test_what_is_said_here_while_the_engine_is_away_is_bounded_over_all_topics(logged: Logged) -> None:
    hand = ByHand()
    async with Hub(backplane=hand, history=History(total=100_000)) as hub:
        hub.publish("begin", "x")
        hand.handler.on_away("gone")
        for number in range(200):
            hub.publish(str(number), "x" * 100)
        assert hub._replication is not None
        store = hub._replication.store
        assert 0 < store.size + TOPIC_COST * len(store.logs) <= 100_000
    logged.take_all("the backplane is away", 1)


async def test_a_hub_that_is_cancelled_while_it_closes_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    hand = ByHand()
    close = hand.close

    async def take_long() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await close()

    monkeypatch.setattr(hand, "close", take_long)
    hub = Hub(backplane=hand)
    hub.enter()
    outcome = hub.publish("a", "x")
    closing = asyncio.create_task(hub.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    assert closing.cancelled()
    assert not (await outcome).accepted
    assert (hub.stats().unsent, hub.stats().lost) == (0, 1)
