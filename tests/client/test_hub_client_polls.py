"""`rawws.HubClient` by polls: where nothing else gets through, and what is told of many topics at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import rawws
from rawws import testing
from rawws.client import hub_http_links, hub_links, topics
from rawws.client.options import HubState
from rawws.topics import Hub, inquiries
from rawws.topics.backplane import HistoryResult
from tests.backplanes.handlers import Reader
from tests.backplanes.test_faults import FAULT, SERVED, fail
from tests.backplanes.test_replication import ByHand, empty, live, record
from tests.client.hubs import HASTY, Network, client_of, hub_of, hub_server
from tests.client.test_hub_client import code, take
from tests.client.test_hub_client_breaks import collect, numbers
from tests.javascript.parts import address
from tests.javascript.proxy import Proxy
from tests.server.peers import Logged, eventually

pytestmark = pytest.mark.usefixtures("coming_back")

CUT_SHORT: Any = {**HASTY, "open_timeout": 1, "ping_interval": 0.2, "ping_timeout": 1}


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try better transports again soon, and topics that are unavailable too; lose patience with a silent one."""
    monkeypatch.setattr(topics, "BETTER_FIRST", 0.05)
    monkeypatch.setattr(topics, "BETTER_LAST", 0.1)
    monkeypatch.setattr(hub_links, "SILENCE", 2.0)
    monkeypatch.setattr(hub_http_links, "UNAVAILABLE_WAIT", 0.05)
    monkeypatch.setattr(inquiries, "FIRST_WAIT", 0.001)
    monkeypatch.setattr(inquiries, "LONGEST_WAIT", 0.01)


@pytest.mark.parametrize("rule", ["refuse", "hold", ("cut", 700)], ids=["refuse", "hold", "cut"])
async def test_where_nothing_else_gets_through_it_polls_and_comes_back_step_by_step(rule: Any) -> None:
    hub = hub_of()
    states: list[HubState] = []
    async with hub_server(hub) as server:
        with Proxy(server.sockets[0].getsockname()[1]) as proxy:
            proxy.rules["websocket"] = proxy.rules["stream"] = rule
            async with rawws.HubClient(address(proxy.port), on_state=states.append, **CUT_SHORT) as client:
                subscription = client.subscribe("numbers", since="earliest")
                publishing = asyncio.ensure_future(numbers(hub, 10_000))
                await eventually(lambda: client.transport == "poll")
                assert (await client.publish("told", "x")).endswith(":1")
                found = await collect(subscription, 50)
                seen = len(proxy.seen)
                # Both of the better ones are tried beside it, in turn.
                await eventually(lambda: {"websocket", "stream"} <= {*proxy.seen[seen:]})
                for better in ("stream", "websocket"):
                    del proxy.rules[better]
                    await eventually(lambda better=better: client.transport == better)  # type: ignore[misc]
                    found += [int((await anext(subscription)).message) for _ in range(20)]
                publishing.cancel()
                assert found == list(range(1, len(found) + 1))
    assert [state.transport for state in states if state.transport is not None][-1] == "websocket"


async def test_the_order_of_the_transports_is_the_programs_own() -> None:
    hub = hub_of()
    async with hub_server(hub) as server:
        with Proxy(server.sockets[0].getsockname()[1]) as proxy:
            proxy.rules["other"] = "refuse"
            options: Any = {**CUT_SHORT, "transports": ["poll", "websocket"]}
            async with rawws.HubClient(address(proxy.port), **options) as client:
                await eventually(lambda: client.transport == "websocket")
                # There is nothing yet that polls could bring; then there is, and they are refused.
                subscription = client.subscribe("told")
                seen = len(proxy.seen)
                await eventually(lambda: "other" in proxy.seen[seen:])
                assert client.transport == "websocket"
                del proxy.rules["other"]
                await eventually(lambda: client.transport == "poll")
                hub.publish("told", "x")
                assert await take(subscription, 1) == ["x"]


@pytest.mark.parametrize("transport", ["stream", "poll"])
async def test_a_topic_that_is_unavailable_holds_up_no_other_and_goes_on_when_it_is_back(
    logged: Logged, transport: str
) -> None:
    hand = ByHand()
    hub = Hub(backplane=hand, authorize=lambda *_: True)
    async with hub, hub_server(hub) as server, client_of(server, transport) as client:
        await live(hub, hand)
        # Without a subscriber, the hub would forget it between two polls, and ask the engine again.
        holding = hub.subscribe(Reader(), "b")
        await hand.place(empty())
        await holding
        told, other = client.subscribe("a"), client.subscribe("b")
        await told.ready()
        await other.ready()
        await eventually(lambda: hub.subscribers("a") == 2)
        hand.say(2)
        # The engine does not have what came before it.
        failing = asyncio.ensure_future(fail_always(hand, "history"))
        hand.handler.on_record(record(1)._replace(topic="b"))
        assert await take(other, 1) == ["1"]
        # Asked for anew, beside a third one: it is still not there, and nobody is told that it ends.
        third = client.subscribe("b", since="E:0")
        assert await take(third, 1) == ["1"]
        hand.handler.on_record(record(2)._replace(topic="b"))
        assert await take(other, 1) == await take(third, 1) == ["2"]
        failing.cancel()
        await hand.answer("history", HistoryResult("E", 2, [record(1), record(2)], True))
        assert await take(told, 2) == ["1", "2"]
        # One that never was there ends with that.
        late = client.subscribe("d")
        failing = asyncio.ensure_future(fail_always(hand, "follow"))
        assert await code(late.ready()) == "unavailable"
        failing.cancel()
    logged.take_all(FAULT, 2)
    logged.take_all(SERVED, 1)


async def fail_always(hand: ByHand, call: str) -> None:
    """Say again and again that something that is asked cannot be answered."""
    while True:
        await fail(hand, call)


@pytest.mark.parametrize("transport", ["stream", "poll"])
async def test_an_answer_over_the_limit_ends_it_for_it_would_come_again(transport: str) -> None:
    hub = hub_of()
    async with hub_server(hub) as server, client_of(server, transport, max_size=1000) as client:
        subscription = client.subscribe("told")
        await subscription.ready()
        hub.publish("told", "x" * 2000)
        error = await client.wait_closed()
        assert (error.code, "max_size, 1000 bytes" in error.reason) == ("failed", True)
        assert await code(anext(subscription)) == "failed"


async def test_answers_that_are_none_of_a_hub_break_the_connection_and_are_asked_for_again() -> None:
    """Some of them are a proxy's, and some have lost what a poll must say."""
    good = {"publications": [], "cursor": "told=a:1", "recovered": True}
    answers = iter(
        [
            rawws.Response.json({"error": "topic"}, 400),
            rawws.Response(503, "later"),
            rawws.Response(200, "<html>"),
            rawws.Response.json({**good, "cursor": "other=a:1"}),
            rawws.Response.json({**good, "publications": [{"topic": "told", "cursor": "a:1", "data": "x"}]}),
        ]
    )
    states: list[HubState] = []
    routes = rawws.Routes()

    @routes.get("/topics")
    async def answer(_: rawws.HttpRequest) -> rawws.Response:
        found = next(answers, None)
        return await asyncio.Event().wait() if found is None else found  # type: ignore[return-value]

    async with rawws.serve(routes, "127.0.0.1", 0) as server:
        async with client_of(server, "poll", on_state=states.append) as client:
            await client.wait_open()
            subscription = client.subscribe("told", since="a:0")
            assert (await anext(subscription)).message == "x"
        reasons = [state.reason for state in states if state.state == "connecting"]
    assert [reason.partition(" ")[2][:39] for reason in reasons] == [
        "server answered 503 (HTTP status 503)",
        "server sent what is no JSON",
        "server answered a poll without a cursor",
    ]


async def test_of_topics_that_are_told_of_together_each_is_lost_or_known_by_itself() -> None:
    hub = hub_of()
    async with hub_server(hub) as server, client_of(server, "poll") as client:
        known = [await client.publish("known", text) for text in "123"]
        await client.publish("lost", "1")
        whole = client.subscribe("known", since=known[0])
        lost = client.subscribe("lost", since="0123456789ab:1")
        new = client.subscribe("new")
        assert (await whole.ready()).recovered
        assert await take(whole, 2) == ["2", "3"]
        assert not (await lost.ready()).recovered
        assert not (await anext(lost)).recovered
        assert (await new.ready()).recovered
        await client.publish("lost", "2")
        assert await take(lost, 1) == ["2"]


async def test_who_watches_and_is_full_asks_for_no_more_than_the_next_poll() -> None:
    hub = hub_of()
    asked: list[str] = []
    async with hub_server(hub, access_log=lambda request, *_: asked.append(request.path)) as server:
        async with client_of(server, "poll", buffer=2) as client:
            room = client.subscribe("room", watch=True)
            await room.ready()
            for number in range(6):
                await client.publish("room", str(number))
            await eventually(lambda: hub.subscribers("room") == 1)
            count = len(asked)
            await client.presence("room")
            assert await take(room, 6) == [*"012345"]
            assert len(asked) - count < 10


def test_an_event_of_a_stream_that_is_to_be_replaced_is_left_to_the_next_one() -> None:
    async def main() -> None:
        hub = hub_of()
        async with Network(hub) as network, network.client(transports=["stream"]) as client:
            first = client.subscribe("told")
            await first.ready()
            for number in range(50):
                hub.publish("told", f"{number} a")
                # Each asks for more than the stream in use brings.
                again = client.subscribe("told", since="earliest")
                hub.publish("told", f"{number} b")
                found = [await anext(again) for _ in range(2 * number + 2)]
                assert all(publication.recovered for publication in found)
                again.close()
                assert await take(first, 2) == [f"{number} a", f"{number} b"]

    testing.run(main())
