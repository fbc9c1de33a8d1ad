"""`rawws.HubClient`: what it asks and what it is told, over each transport, as rawws.js does."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import time
from typing import Any

import pytest

import rawws
from rawws.client.envelopes import HubEnvelope, TopicMember
from rawws.client.hub_requests import HubRequests
from rawws.client.options import HubState
from rawws.client.subscriptions import ReceivedPublication, TopicPresence, TopicReceiver
from rawws.topics import Identity, endpoints
from tests.client.hubs import HASTY, TRANSPORTS, client_of, gate, hub_of, hub_server, routes_of, url_of
from tests.processes import free_port
from tests.server.peers import Logged, eventually


async def code(work: Any) -> str:
    """Return how something ended: "done", or the code of its HubError."""
    try:
        await work
    except rawws.HubError as error:
        return error.code
    return "done"


async def take(subscription: Any, count: int) -> list[str | bytes]:
    return [(await anext(subscription)).message for _ in range(count)]


# -- what is asked


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_every_transport_does_the_same(transport: str) -> None:
    async with hub_server(hub_of()) as server, client_of(server, transport, token="open") as hub:
        told, opaque = hub.subscribe("told"), hub.subscribe("token/open")
        refused = [await code(hub.subscribe(name).ready()) for name in ("secret", "token/shut")]
        assert refused == ["refused", "refused"]
        await told.ready()
        await opaque.ready()
        octets = bytes(range(256)) * 80
        said = ["", "Grüße ✓", octets, *map(str, range(50))]
        cursors = await asyncio.gather(*(hub.publish("told", message) for message in said))
        heard = [await anext(told) for _ in said]
        assert [publication.message for publication in heard] == said
        assert [publication.cursor for publication in heard] == cursors
        assert told.cursor == cursors[-1]
        assert [
            await code(hub.publish("secret", "x")),
            await code(hub.publish("a\nb", "x")),
            await code(hub.publish("told", bytes(700_000))),
            await code(hub.publish("told", "x" * (5 << 20))),
        ] == ["refused", "topic", "done", "queue"]
        # Each is decided on more quickly than the one before, and goes out behind it all the same.
        slower = await asyncio.gather(*(hub.publish("slower", text) for text in "abcd"))
        assert [int(cursor.partition(":")[2]) for cursor in slower] == [1, 2, 3, 4]
        back = hub.subscribe("told", since=heard[50].cursor)
        assert [len(message) for message in await take(back, 3)] == [2, 2, 700_000]
        told.close()
        back.close()
        assert await code(hub.subscribe("told", since=f"{heard[0].cursor}999").ready()) == "cursor"
        lost = hub.subscribe("told", since="0123456789ab:1")
        start = await lost.ready()
        assert not start.recovered
        assert await anext(lost) == ReceivedPublication("told", start.cursor, "", recovered=False)
        assert hub.transport == transport
        assert await hub.presence("told") == TopicPresence({}, 0)
    assert hub.state == "closed"
    assert [await code(hub.publish("told", "x")), await code(hub.presence("told"))] == ["closed", "closed"]
    with pytest.raises(rawws.HubError, match="closed"):
        hub.subscribe("told")


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_json_and_named_events_arrive_as_they_were_published(transport: str) -> None:
    server_hub = hub_of()
    async with hub_server(server_hub) as server, client_of(server, transport) as hub:
        subscription = hub.subscribe("told", since="earliest")
        await hub.publish("told", {"a": [1, None, "ü"]}, event="move")
        server_hub.publish("told", [True], event="turn")
        await hub.publish("told", "7", key="k")
        heard = [await anext(subscription) for _ in range(3)]
        assert [(each.event, each.user, each.json(), each.is_json) for each in heard] == [
            ("move", None, {"a": [1, None, "ü"]}, True),
            ("turn", None, [True], True),
            (None, None, 7, False),
        ]
        with pytest.raises(rawws.HubError, match="event"):
            await hub.publish("told", "x", event="")


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_history_is_turned_page_by_page(transport: str) -> None:
    async with hub_server(hub_of()) as server, client_of(server, transport) as hub:
        cursors = [await hub.publish("told", str(number), event="count") for number in range(5)]
        page = await hub.history("told", limit=2)
        assert ([each.message for each in page], len(page), page.recovered) == (["3", "4"], 2, True)
        assert [each.event for each in page] == ["count", "count"]
        page = await hub.history("told", before=page.publications[0].cursor, limit=2)
        assert [each.cursor for each in page] == cursors[1:3]
        assert [each.message for each in await hub.history("told", since=cursors[0])] == ["1", "2", "3", "4"]
        with pytest.raises(rawws.HubError, match="refused"):
            await hub.history("secret")


async def test_a_reader_that_was_full_goes_on_when_half_of_its_bytes_are_read() -> None:
    receiver = TopicReceiver("a", "", None, "resume", (100, 1000), None)
    drained: list[bool] = []

    def take(number: int) -> None:
        receiver.take(ReceivedPublication("a", f"e:{number}", "x" * 250))

    for number in range(1, 6):
        take(number)
    # Four are as much as may wait; the fifth is asked for when there is room.
    assert receiver.behind
    for cursor, is_drained in (("e:1", False), ("e:2", True)):
        found = await receiver.next(lambda: drained.append(True))
        assert found is not None
        assert (found.cursor, receiver.behind, bool(drained)) == (cursor, not is_drained, is_drained)
    take(5)
    assert [getattr(await receiver.next(lambda: None), "cursor", None) for _ in range(3)] == ["e:3", "e:4", "e:5"]


@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize("end", ["answered", "forgotten", "lost", "ended"])
async def test_requests_that_wait_no_more_make_room_however_they_end(end: str, sent: bool) -> None:
    requests = HubRequests(2, 120)
    for _ in range(3):
        request = requests.ask({"publish": "a", "data": "x" * 50})
        with pytest.raises(rawws.HubError, match="2 requests or 120 bytes wait already"):
            requests.ask({"publish": "a", "data": "x" * 50})
        second = requests.ask({"publish": "b"})
        with pytest.raises(rawws.HubError, match="2 requests or 120 bytes wait already"):
            requests.ask({})
        if sent or end in {"answered", "lost"}:
            assert (requests.take(), requests.take(), requests.take()) == (request, second, None)
        for each in (request, second):
            if end == "answered":
                assert requests.answer(HubEnvelope(id=each.id))
            elif end == "forgotten" or sent:
                requests.forget(each)
        if end == "lost":
            requests.lose()
        elif end == "ended":
            requests.end(rawws.HubError("closed", "it was closed"))
        for each in (request, second):
            # Whose error nobody waits for.
            assert each.future.cancel() or end == "answered" or each.future.exception()


async def test_functions_are_called_in_both_directions(logged: Logged) -> None:
    clients: list[Any] = []

    def authorize(client: Any, _action: str, name: str) -> bool:
        clients.append(client)
        return name != "secret"

    server_hub = hub_of(authorize=authorize)

    @server_hub.on_call("add")
    async def add(_client: Any, data: Any) -> Any:
        return sum(data)

    async with hub_server(server_hub) as server, client_of(server) as hub:
        with pytest.raises(rawws.HubError, match="call"):
            await hub.call("nothing")
        with pytest.raises(rawws.HubError, match="refused"):
            await hub.call("secret")
        assert await hub.call("add", [1, 2, 3]) == 6

        @hub.on_call("name")
        def name(data: Any) -> Any:
            return {"name": "Ann", "data": data}

        @hub.on_call("later")
        async def later(data: Any) -> Any:
            await asyncio.sleep(0)
            if data == "busy":
                raise rawws.HubError("busy", "later")
            return None if data is None else data / 0

        client = clients[-1]
        assert await server_hub.call(client, "name", [1]) == {"name": "Ann", "data": [1]}
        assert await server_hub.call(client, "later") is None
        for call, told in (("nobody", "call"), ("later", "busy")):
            with pytest.raises(rawws.CallError) as raised:
                await server_hub.call(client, call, "busy")
            assert raised.value.code == told
        with pytest.raises(rawws.CallError) as raised:
            await server_hub.call(client, "later", 1)
        assert raised.value.code == "failed"
        logged.take("the function 'later' failed", ZeroDivisionError, "rawws.client")
        # What waits is bounded in bytes too, where it is not one alone.
        going = asyncio.Event()
        waits = hub.on_call("waits")(lambda _: going.wait())
        assert waits is not None
        first = asyncio.ensure_future(server_hub.call(client, "waits", "x" * (700 << 10)))
        await asyncio.sleep(0)
        with pytest.raises(rawws.CallError, match="limit"):
            await server_hub.call(client, "waits", "x" * (700 << 10))
        going.set()
        assert await first is True
        assert await server_hub.call(client, "waits", "x" * (700 << 10)) is True
        # Those that are not done are cancelled with the connection.
        never = hub.on_call("never")(lambda _: asyncio.Event().wait())
        assert never is not None
        calls = [asyncio.ensure_future(server_hub.call(client, "never")) for _ in range(100)]
        await asyncio.sleep(0)
        with pytest.raises(rawws.CallError):
            await server_hub.call(client, "never")
        await hub.presence("x")
    ends = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(end) for end in ends} <= {rawws.ConnectionClosedOK, rawws.ConnectionClosedError}


async def test_over_streams_functions_of_the_server_are_called_too() -> None:
    server_hub = hub_of()
    server_hub.on_call("double")(lambda _client, data: 2 * data)
    async with hub_server(server_hub) as server, client_of(server, "stream") as hub:
        assert await hub.call("double", 21) == 42


async def test_who_publishes_may_be_left_out() -> None:
    async with hub_server(hub_of()) as server, client_of(server) as hub, client_of(server) as other:
        mine, theirs = hub.subscribe("told"), other.subscribe("told")
        await mine.ready()
        await theirs.ready()
        await hub.publish("told", "1", exclude=True)
        await hub.publish("told", "2")
        assert await take(theirs, 2) == ["1", "2"]
        assert await take(mine, 1) == ["2"]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_subscriptions_to_one_topic_share_one(transport: str) -> None:
    server_hub = hub_of()
    async with hub_server(server_hub) as server, client_of(server, transport) as hub:
        for text in "12":
            await hub.publish("shared", text)
        everything = hub.subscribe("shared", since="earliest")
        await everything.ready()
        await hub.publish("shared", "3")
        assert await take(everything, 3) == ["1", "2", "3"]
        # One that wants no more than what comes has it at once, one that wants what was gets that alone.
        now = hub.subscribe("shared")
        assert (await now.ready()).recovered
        again = hub.subscribe("shared", since="earliest")
        epoch, _, offset = everything.cursor.partition(":")
        middle = hub.subscribe("shared", since=f"{epoch}:{int(offset) - 1}")
        assert (await again.ready()).recovered
        assert (await middle.ready()).recovered
        await hub.publish("shared", "4")
        assert await take(everything, 1) == ["4"]
        assert await take(now, 1) == ["4"]
        assert await take(again, 4) == ["1", "2", "3", "4"]
        assert await take(middle, 2) == ["3", "4"]
        assert server_hub.subscribers("shared") <= 1
        # An old cursor is a gap for the one that had it, and for nobody else.
        lost = hub.subscribe("shared", since="0123456789ab:1")
        assert not (await lost.ready()).recovered
        await hub.publish("shared", "5")
        assert await take(everything, 1) == ["5"]
        assert not (await anext(lost)).recovered
        for each in (lost, again, now, middle):
            each.close()
        await hub.publish("shared", "6")
        assert await take(everything, 1) == ["6"]
        with pytest.raises(StopAsyncIteration):
            await anext(again)
        everything.close()
        await eventually(lambda: server_hub.subscribers("shared") == 0)


async def test_who_joins_is_present_once_as_long_as_one_of_those_is_there() -> None:
    async with hub_server(hub_of()) as server, client_of(server) as hub, client_of(server) as other:
        told: list[TopicPresence] = []
        plain = hub.subscribe("room")
        here = hub.subscribe("room", join={"name": "Ann"}, watch=True)
        await here.ready()
        there = hub.subscribe("room", join={"name": "Ann"}, on_presence=told.append)
        await there.ready()
        assert here.present
        assert here.present == there.present == plain.present
        ann = TopicMember({"name": "Ann"}, claimed=True)
        assert here.members == there.members == {here.present: ann}
        assert [plain.count, here.count, there.count] == [1, 1, 1]
        await eventually(lambda: told[-1:] == [TopicPresence(here.members, 1)])
        with pytest.raises(rawws.HubError, match="limit: room was joined by"):
            hub.subscribe("room", join={"name": "Bob"})
        guest = other.subscribe("room", join=None)
        await guest.ready()
        ident = guest.present
        assert ident is not None
        await eventually(lambda: here.count == 2)
        nobody = TopicMember(None, claimed=True)
        assert told[-1].join == (ident, nobody)
        assert await hub.presence("room") == TopicPresence({here.present: ann, ident: nobody}, 2)
        guest.close()
        await eventually(lambda: here.count == 1)
        assert told[-1].leave == (ident, nobody)
        here.close()
        assert (await hub.presence("room")).count == 1
        there.close()
        assert (await hub.presence("room")).count == 0
        assert not plain.present


async def test_over_streams_who_is_there_is_asked_for() -> None:
    async with hub_server(hub_of()) as server, client_of(server) as ann, client_of(server, "stream") as hub:
        here = ann.subscribe("room", join="Ann")
        await here.ready()
        assert here.present is not None
        told: list[TopicPresence] = []
        room = hub.subscribe("room", on_presence=told.append)
        there = TopicPresence({here.present: TopicMember("Ann", claimed=True)}, 1)
        await eventually(lambda: told[-1:] == [there])
        assert room.count == 1
        assert await code(hub.subscribe("told", join="Bob").ready()) == "done"


async def test_a_loop_that_is_left_leaves_the_topic() -> None:
    server_hub = hub_of()
    async with hub_server(server_hub) as server, client_of(server) as hub:
        await hub.publish("told", "x")
        async for publication in hub.subscribe("told", since="earliest"):
            assert publication.message == "x"
            break
        gc.collect()
        await eventually(lambda: server_hub.subscribers("told") == 0)
        async with hub.subscribe("told", since="earliest") as subscription:
            assert await take(subscription, 1) == ["x"]
            assert repr(subscription) == f"<rawws.TopicSubscription 'told' at '{subscription.cursor}'>"
        await eventually(lambda: server_hub.subscribers("told") == 0)


async def test_a_task_that_is_cancelled_while_it_waits_loses_nothing() -> None:
    async with hub_server(hub_of()) as server, client_of(server) as hub:
        subscription = hub.subscribe("told")
        await subscription.ready()
        waiting = asyncio.ensure_future(anext(subscription))
        await asyncio.sleep(0)
        with pytest.raises(rawws.LocalProtocolError, match="another task waits"):
            await anext(subscription)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await hub.publish("told", "x")
        assert await take(subscription, 1) == ["x"]


async def test_what_is_wrong_is_said_at_once() -> None:
    url = "ws://localhost:1/topics"
    wrongs: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"transports": ["pigeon"]}, ValueError, "transports is \\['pigeon'\\], allowed are websocket, stream, poll"),
        ({"transports": []}, ValueError, "allowed are websocket, stream, poll, each once"),
        ({"transports": "stream"}, TypeError, "transports is 'stream', allowed is a list"),
        ({"token": 7}, TypeError, "token is int, allowed are a str and a function"),
        ({"queue": 0}, ValueError, "queue is 0, allowed are whole numbers above 0"),
        ({"buffer": None}, ValueError, "buffer is None, allowed are whole numbers above 0"),
        ({"ping_interval": 0}, ValueError, "ping_interval is 0"),
        ({"reconnect": True}, TypeError, "reconnect"),
    ]
    for wrong, kind, message in wrongs:
        with pytest.raises(kind, match=message):
            rawws.HubClient(url, **wrong)
    for wrong_url in ("localhost:8000/topics", "ftp://localhost/", "ws://localhost/#a", "/topics"):
        with pytest.raises(rawws.InvalidURI):
            rawws.HubClient(wrong_url)
    hub = rawws.HubClient(url)
    assert repr(hub) == "<rawws.HubClient connecting, 0 topics>"
    with pytest.raises(rawws.LocalProtocolError, match="begin with: async with"):
        hub.subscribe("x")
    with pytest.raises(rawws.LocalProtocolError, match="begin with: async with"):
        await hub.publish("x", "y")
    async with hub:
        with pytest.raises(TypeError, match="the topic is int, allowed is str"):
            hub.subscribe(7)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="the policy is 'block', allowed are resume, drop_oldest, disconnect"):
            hub.subscribe("x", policy="block")
        with pytest.raises(TypeError, match="the message is set, allowed are str, bytes"):
            await hub.publish("x", set())
        with pytest.raises(ValueError, match="not JSON compliant"):
            await hub.publish("x", [float("nan")])
        with pytest.raises(TypeError, match="not JSON serializable"):
            hub.subscribe("x", join=object())
        with pytest.raises(rawws.LocalProtocolError, match="used already"):
            await hub.__aenter__()
    await rawws.HubClient(url).aclose()


# -- who is let in


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("path", "status"), [("/guarded", 401), ("/forbidden", 403), ("/nothing", 404)], ids=["401", "403", "404"]
)
async def test_where_nobody_is_let_in_it_ends(transport: str, path: str, status: int) -> None:
    states: list[HubState] = []
    async with hub_server(hub_of()) as server:
        async with client_of(server, transport, path, on_state=states.append) as hub:
            subscription = hub.subscribe("told")
            late = asyncio.ensure_future(code(hub.publish("told", "x")))
            error = await hub.wait_closed()
            assert (error.code, error.status, hub.state) == ("refused", status, "refused")
            assert isinstance(error.__cause__, rawws.InvalidStatus)
            ends = [await code(work) for work in (subscription.ready(), anext(subscription), hub.publish("told", "y"))]
            assert [*ends, await late, await code(hub.wait_open())] == ["refused"] * 5
            with pytest.raises(StopAsyncIteration):
                await anext(subscription)
        assert [(state.state, state.status) for state in states] == [("refused", status)]
        assert hub.state == "refused"


@pytest.mark.parametrize(("close_code", "status"), [(3000, 401), (4403, 403), (4404, 404)])
async def test_a_close_code_that_lets_nobody_in_ends_it_too(close_code: int, status: int) -> None:
    async with hub_server(hub_of()) as server, client_of(server, path=f"/closing/{close_code}") as hub:
        late = asyncio.ensure_future(code(hub.publish("told", "x")))
        assert (await hub.wait_closed()).status == status
        assert await late == "refused"


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_function_is_asked_for_a_token_at_each_connection(
    transport: str, logged: Logged, coming_back: None
) -> None:
    tokens = iter(["", "good", "good"])

    async def later() -> str:
        await asyncio.sleep(0)
        token = next(tokens)
        if not token:
            raise OSError("no login now")
        return token

    async with hub_server(hub_of()) as server:
        async with client_of(server, transport, "/guarded", token=later) as hub:
            subscription = hub.subscribe("told", since="earliest")
            await subscription.ready()
        async with client_of(server, transport, "/guarded", token=lambda: "good") as hub:
            await hub.subscribe("told").ready()
        async with client_of(server, transport, "/guarded", token=lambda: "bad") as hub:
            assert (await hub.wait_closed()).status == 401
        async with client_of(server, transport, "/guarded", token=lambda: 7) as hub:
            error = await hub.wait_closed()
            assert (error.code, hub.state) == ("failed", "failed")
            assert "the token is int, allowed is a str" in error.reason


async def test_a_token_is_renewed_over_the_connection_and_who_it_is_stays_known() -> None:
    given: list[str] = []
    seen: list[str] = []
    states: list[HubState] = []

    def token() -> str:
        given.append(f"ann {len(given) + 1}")
        return given[-1]

    def identify(client: Any) -> Identity:
        seen.append(endpoints.token_of(client))
        user, _, number = seen[-1].partition(" ")
        # The first ends soon.
        return Identity(user, {"number": number}, time.time() + (1.0 if number == "1" else 1000))

    server_hub = hub_of(identify=identify)
    async with hub_server(server_hub) as server, client_of(server, token=token, on_state=states.append) as hub:
        room = hub.subscribe("room", join={"mood": "good"}, watch=True)
        await room.ready()
        assert room.present is not None
        assert room.members[room.present] == TopicMember({"number": "1"}, "ann", {"mood": "good"})
        await eventually(lambda: seen == ["ann 1", "ann 2"])
        await hub.publish("room", "x")
        assert (await anext(room)).user == "ann"
        assert (await hub.presence("room")).users == 1
        assert given == seen
        assert [state.state for state in states] == ["open"]


async def test_a_token_that_cannot_be_renewed_is_asked_for_by_the_next_connection(logged: Logged) -> None:
    given = itertools.count(1)
    states: list[HubState] = []

    async def token() -> str:
        number = next(given)
        if number == 2:
            raise OSError("no login now")
        return f"ann {number}"

    def identify(client: Any) -> Identity:
        number = endpoints.token_of(client).partition(" ")[2]
        return Identity("ann", None, time.time() + (1.0 if number == "1" else 1000))

    async with hub_server(hub_of(identify=identify)) as server:
        async with client_of(server, token=token, on_state=states.append) as hub:
            subscription = hub.subscribe("told")
            await subscription.ready()
            await eventually(lambda: [state.state for state in states] == ["open", "connecting", "open"])
            await hub.publish("told", "x")
            assert await take(subscription, 1) == ["x"]
        logged.take("the token could not be renewed: no login now", name="rawws.client")
        # One that cannot change ends with its token.
        async with client_of(server, token="ann 1") as hub:
            assert (await hub.wait_closed()).status == 401


@pytest.mark.parametrize("transport", ["websocket", "stream"])
async def test_a_user_may_be_sent_out_of_a_topic_and_away(transport: str) -> None:
    server_hub = hub_of(identify=lambda _: Identity("ann"))
    states: list[HubState] = []
    async with hub_server(server_hub) as server, client_of(server, transport, on_state=states.append) as hub:
        first, second, other = hub.subscribe("told"), hub.subscribe("told"), hub.subscribe("other")
        for each in (first, second, other):
            await each.ready()
        server_hub.unsubscribe("ann", "told", reason="you left the room")
        for each in (first, second):
            with pytest.raises(rawws.HubError, match="unsubscribed: you left the room"):
                await anext(each)
        await hub.publish("other", "x")
        assert await take(other, 1) == ["x"]
        # It may come again, as long as it is allowed to.
        again = hub.subscribe("told")
        await again.ready()
        assert server_hub.disconnect("ann", reason="bye") == 1
        if transport == "websocket":
            error = await hub.wait_closed()
            assert (error.code, error.status) == ("refused", 401)
            assert await code(anext(other)) == "refused"
        else:
            # A stream has no close code: it comes again, and is asked again who it is.
            await eventually(lambda: [state.state for state in states] == ["open", "connecting", "open"])
            assert states[1].reason == "the server ended the stream"


async def test_over_polls_who_is_sent_away_is_asked_again_and_refused_what_is_forbidden_now() -> None:
    allowed = {"told", "other"}
    server_hub = hub_of(identify=lambda _: Identity("ann"), authorize=lambda _client, _action, topic: topic in allowed)
    async with hub_server(server_hub) as server, client_of(server, "poll") as hub:
        told, other = hub.subscribe("told"), hub.subscribe("other")
        await told.ready()
        await other.ready()
        await eventually(lambda: server_hub.subscribers("told") == 1)
        allowed.remove("told")
        assert server_hub.disconnect("ann") == 1
        with pytest.raises(rawws.HubError, match="refused"):
            await anext(told)
        await hub.publish("other", "x")
        assert await take(other, 1) == ["x"]


async def test_a_subscription_that_the_application_ends_says_so() -> None:
    told: list[str] = []

    async def ends(ws: rawws.WebSocket) -> None:
        async for message in ws:
            said = json.loads(message)
            told.append(said.get("subscribe") or said.get("unsubscribe"))
            number = said.get("id", 0)
            await ws.send(json.dumps({"id": number, "cursor": "a:1", "recovered": True}))
            if number:
                await ws.send('{"topic": "told", "error": "unavailable", "reason": "for now"}')
                await ws.send('{"topic": "told", "cursor": "a:2", "data": "x"}')
                await ws.send('{"topic": "told", "error": "unsubscribed", "reason": "you left the room"}')

    async with rawws.serve(ends, "127.0.0.1", 0, subprotocols=["rawws.v1"]) as server, client_of(server) as hub:
        subscription = hub.subscribe("told")
        assert await take(subscription, 1) == ["x"]
        with pytest.raises(rawws.HubError, match="unsubscribed: you left the room"):
            await anext(subscription)
        assert told[1:] == ["told"]
        assert hub.state == "open"


async def test_what_never_heals_ends_it_and_what_may_does_not(coming_back: None) -> None:
    async def echo(ws: rawws.WebSocket) -> None:
        await ws.wait_closed()

    states: list[HubState] = []
    async with hub_server(hub_of()):
        # No hub, but a server of WebSockets that knows no subprotocol; and then no event stream.
        async with rawws.serve(echo, "127.0.0.1", 0) as plain:
            async with rawws.HubClient(url_of(plain), **HASTY) as hub:
                error = await hub.wait_closed()
                assert (error.code, hub.state) == ("failed", "failed")
        # Nobody is there: WebSocket is tried again and again, and nothing is said to be its fault.
        nowhere = f"ws://127.0.0.1:{free_port()}/"
        async with rawws.HubClient(nowhere, **HASTY, on_state=states.append) as hub:
            await eventually(lambda: len(states) >= 6)
            assert {(state.state, state.transport) for state in states} == {("connecting", None)}
            assert "nothing listens" in states[0].reason
        retries: list[float] = []
        delays: Any = {
            "reconnect_delays": lambda: iter([0.0, 0.0]),
            "on_retry": lambda _, seconds: retries.append(seconds),
        }
        async with rawws.HubClient(nowhere, **delays) as hub:
            subscription = hub.subscribe("told")
            assert (await hub.wait_closed()).code == "failed"
            assert await code(subscription.ready()) == "failed"
        assert retries == [0.0, 0.0]


async def test_why_it_cannot_connect_is_a_warning_once_for_each_reason_in_a_row(logged: Logged) -> None:
    port = free_port()
    failures: list[str] = []
    busy = True

    def admit(ws: rawws.WebSocket, request: rawws.Request) -> Any:
        return ws.respond(503, "busy") if busy else gate(ws, request)

    async def warned_once(reason: str, count: int) -> None:
        await eventually(lambda: sum(reason in failure for failure in failures) >= count)
        logged.take(f"connecting to the hub at 127.0.0.1:{port} again in 0.0 s: {failures[-1]}", None, "rawws.client")
        failures.clear()

    options: Any = {**HASTY, "transports": ["websocket"], "on_retry": lambda error, _: failures.append(str(error))}
    async with rawws.HubClient(f"ws://127.0.0.1:{port}/topics", **options) as client:
        await warned_once("nothing listens", 3)
        async with rawws.serve(
            routes_of(hub_of()), "127.0.0.1", port, subprotocols=["rawws.v1"], process_request=admit
        ):
            await warned_once("503", 3)
            busy = False
            await client.wait_open()
        # The end of a connection that was open is none, but that there is no other.
        await warned_once("nothing listens", 2)


async def test_a_message_over_the_limit_ends_it_for_it_would_come_again() -> None:
    async with hub_server(hub_of()) as server, client_of(server, max_size=1000) as hub:
        subscription = hub.subscribe("told")
        await subscription.ready()
        late = asyncio.ensure_future(code(hub.publish("told", "x" * 2000)))
        error = await hub.wait_closed()
        assert (error.code, "max_size, 1000 bytes" in error.reason) == ("failed", True)
        assert await late in {"unanswered", "done"}
        assert await code(anext(subscription)) == "failed"


# -- what waits


async def test_what_waits_has_a_bound_and_an_end(coming_back: None) -> None:
    nowhere = f"ws://127.0.0.1:{free_port()}/"
    async with rawws.HubClient(nowhere, **HASTY, queue=3, queue_size=1000) as hub:
        waiting = [asyncio.ensure_future(code(hub.publish("told", text))) for text in "123"]
        silent = hub.subscribe("told")
        await asyncio.sleep(0)
        assert await code(hub.publish("told", "4")) == "queue"
        waiting[0].cancel()
        await asyncio.sleep(0)
        assert await code(hub.publish("told", "x" * 1000)) == "queue"
        fifth = asyncio.ensure_future(code(hub.publish("told", "5")))
        await asyncio.sleep(0)
    assert [await each for each in (*waiting[1:], fifth)] == ["closed"] * 3
    assert await code(silent.ready()) == "closed"
    assert [publication async for publication in silent] == []


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_what_was_published_without_a_connection_goes_out_when_there_is_one(transport: str) -> None:
    async with hub_server(hub_of()) as server, client_of(server, transport) as hub:
        cursor = await hub.publish("late", "first")
        assert cursor.endswith(":1")
        await hub.wait_open()


async def test_a_slow_reader_is_brought_what_it_missed_when_there_is_room() -> None:
    server_hub = hub_of()
    async with hub_server(server_hub) as server, client_of(server, buffer=10) as hub:
        slow, quick = hub.subscribe("told"), hub.subscribe("told")
        await slow.ready()
        await quick.ready()
        for number in range(100):
            await hub.publish("told", str(number))
            assert await take(quick, 1) == [str(number)]
        assert await take(slow, 100) == [str(number) for number in range(100)]
        # Where all are full, the server is asked for nothing.
        alone = hub.subscribe("alone")
        await alone.ready()
        await asyncio.gather(*(hub.publish("alone", str(number)) for number in range(50)))
        await eventually(lambda: server_hub.subscribers("alone") == 0)
        assert await take(alone, 50) == [str(number) for number in range(50)]
        await eventually(lambda: server_hub.subscribers("alone") == 1)
        # One that is larger than all room is taken alone.
    async with hub_server(server_hub) as server, client_of(server, buffer_size=100) as hub:
        large = hub.subscribe("large")
        await large.ready()
        await asyncio.gather(*(hub.publish("large", letter * 200) for letter in "abc"))
        assert await take(large, 3) == [letter * 200 for letter in "abc"]


async def test_over_polls_of_a_hub_without_history_what_came_between_two_of_them_is_told_as_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Half a minute would be spent with waiting between two polls.
    monkeypatch.setattr("rawws.client.hub_http_links.LEAST_INTERVAL", 0.05)
    async with hub_server(hub_of(history=None)) as server, client_of(server, "poll") as hub:

        async def publish() -> None:
            for number in itertools.count(1):
                await hub.publish("told", str(number))

        subscription = hub.subscribe("told")
        publishing = asyncio.ensure_future(publish())
        found = [await anext(subscription) for _ in range(30)]
        publishing.cancel()
        assert not all(publication.recovered for publication in found)
        for before, behind in itertools.pairwise(found):
            if before.recovered and behind.recovered:
                assert int(behind.message) == int(before.message) + 1
        numbers = [int(publication.message) for publication in found if publication.recovered]
        assert numbers == sorted({*numbers})


@pytest.mark.parametrize("transport", ["websocket", "stream"])
async def test_a_slow_reader_of_a_hub_without_history_is_told_what_it_lost(transport: str) -> None:
    async with hub_server(hub_of(history=None)) as server, client_of(server, transport, buffer=2) as hub:
        slow = hub.subscribe("told")
        await slow.ready()
        for number in range(5):
            await hub.publish("told", str(number))
        other = hub.subscribe("other")
        await other.ready()
        assert await take(slow, 2) == ["0", "1"]
        assert not (await anext(slow)).recovered
        await hub.publish("told", "more")
        assert await take(slow, 1) == ["more"]


async def test_a_reader_may_choose_to_end_or_to_drop_the_oldest() -> None:
    async with hub_server(hub_of()) as server, client_of(server, buffer=3) as hub:
        ends = hub.subscribe("told", policy="disconnect")
        drops = hub.subscribe("told", policy="drop_oldest")
        for each in (ends, drops):
            await each.ready()
        for number in range(10):
            await hub.publish("told", str(number))
        await hub.presence("told")
        assert await take(ends, 3) == ["0", "1", "2"]
        with pytest.raises(rawws.HubError, match="slow: over 3 publications"):
            await anext(ends)
        gap = await anext(drops)
        assert not gap.recovered
        assert gap.cursor.endswith(":7")
        assert await take(drops, 3) == ["7", "8", "9"]
        # What ended goes on behind what came.
        again = hub.subscribe("told", since=ends.cursor)
        assert await take(again, 3) == ["3", "4", "5"]


async def test_what_a_callback_raises_is_logged_and_disturbs_nobody(logged: Logged) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError

    async with hub_server(hub_of()) as server, client_of(server) as hub:
        await hub.subscribe("room", on_presence=fail).ready()
        logged.take("on_presence raised", ZeroDivisionError, "rawws.client")
        assert (await hub.publish("room", "x")).endswith(":1")
    async with hub_server(hub_of()) as server:
        async with client_of(server, on_state=fail) as hub:
            await hub.wait_open()
            logged.take("on_state raised", ZeroDivisionError, "rawws.client")
        logged.take("on_state raised", ZeroDivisionError, "rawws.client")


async def test_what_still_comes_for_a_subscription_that_was_closed_is_not_taken_for_the_next_one() -> None:
    async with hub_server(hub_of()) as server, client_of(server) as hub:
        for number in range(10):
            await hub.publish("again", str(number))
        first = hub.subscribe("again")
        await first.ready()
        published = [asyncio.ensure_future(hub.publish("again", str(number))) for number in range(10, 100)]
        await asyncio.sleep(0)
        first.close()
        first.close()
        second = hub.subscribe("again", since="earliest")
        await asyncio.gather(*published)
        assert await take(second, 100) == [str(number) for number in range(100)]


async def test_what_a_server_says_that_is_no_envelope_breaks_the_connection_and_what_is_new_does_not(
    coming_back: None,
) -> None:
    wrong: list[Any] = ["[]", "no JSON", b"octets", '{"topic": 7}', '{"id": true}', '{"join": {}}', '{"base64": "?"}']
    said = iter([None, *wrong])
    states: list[HubState] = []
    served: list[rawws.WebSocket] = []
    heard: list[str] = []

    async def odd(ws: rawws.WebSocket) -> None:
        await ws.recv()
        text = next(said, None)
        await ws.send('{"id": 0, "hint": [1]}' if text is None else text)
        served.append(ws)
        if len(served) == 1:
            return
        async for message in ws:
            heard.append(str(message))
            await ws.send('{"topic": "told", "unknown": {"a": [1, 2]}}')
            await ws.send('{"id": 1, "cursor": "a:1", "recovered": true, "new": 7}')
            await ws.send('{"topic": "told", "cursor": "a:2", "data": "x", "later": null}')

    async with rawws.serve(odd, "127.0.0.1", 0, subprotocols=["rawws.v1"]) as server:
        async with client_of(server, on_state=states.append) as hub:
            await eventually(lambda: len(states) == 10)
            assert [state.state for state in states] == ["open", *["connecting"] * 8, "open"]
            subscription = hub.subscribe("told")
            assert (await anext(subscription)).message == "x"
            assert heard == ['{"id":1,"subscribe":"told"}']
