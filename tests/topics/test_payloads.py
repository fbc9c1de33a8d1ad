"""Payloads: JSON and named events come to all subscribers as they were published, and what is none is refused."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rawws
from rawws.backplanes.memory import Engine, MemoryBackplane
from rawws.net.prepared import PreparedMessage
from rawws.topics import Hub, Publication, TopicError
from rawws.topics.envelope import render
from rawws.topics.history import cost
from rawws.topics.payloads import MAX_EXTRA, check_extra, extra_of, payload_of
from tests.server.answers import on
from tests.server.peers import Logged, eventually, serve
from tests.topics.dialogue import allow, client, served
from tests.topics.receivers import Receiver
from tests.topics.test_http import feed, fetch, poll_of, post

MOVE = {"data": '{"x":1}', "json": True, "event": "move"}
# What is published, its message, and what goes beside it.
PAYLOADS: list[tuple[Any, str | None, str | bytes, str]] = [
    ("x", None, "x", ""),
    (b"\x00", None, b"\x00", ""),
    (bytearray(b"a"), None, b"a", ""),
    ({"a": [1, None, True, 1.5], "é": "ü\n"}, None, '{"a":[1,null,true,1.5],"é":"ü\\n"}', '"json":true'),
    ((), None, "[]", '"json":true'),
    (None, None, "null", '"json":true'),
    (False, None, "false", '"json":true'),
    (7, "move", "7", '"json":true,"event":"move"'),
    ("x", 'é"\\', "x", r'"event":"é\"\\"'),
    (b"\x00", "e", b"\x00", '"event":"e"'),
]


def held(hub: Hub, topic: str) -> list[Publication]:
    """Return what is held of a topic."""
    return hub.recall(topic, since="earliest")[1]


@pytest.mark.parametrize(("data", "event", "message", "extra"), PAYLOADS)
def test_what_is_published_has_a_message_and_what_is_beside_it(
    data: Any, event: str | None, message: str | bytes, extra: str
) -> None:
    hub, receiver = Hub(), Receiver()
    hub.subscribe(receiver, "a")
    assert hub.publish("a", data, event=event).delivered == 1
    [publication] = held(hub, "a")
    assert (publication.message, publication.extra, receiver.got) == (message, extra, [message])
    assert (publication.event, publication.is_json, publication.user) == (event, '"json"' in extra, None)
    if publication.is_json:
        assert publication.json() == json.loads(message)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text('aé"\\\n😀'),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('aé"'), inner, max_size=4),
    max_leaves=10,
)


@given(
    JSON.filter(lambda value: not isinstance(value, str)), st.none() | st.text('aé"\\ 😀{},', min_size=1, max_size=63)
)
def test_every_value_comes_back_and_its_envelope_is_json(value: Any, event: str | None) -> None:
    hub = Hub()
    hub.publish("a", value, event=event)
    [publication] = held(hub, "a")
    assert publication.json() == value
    envelope = json.loads(render(publication))
    assert json.loads(envelope.pop("data")) == value
    assert envelope == {"topic": "a", "cursor": publication.cursor, "json": True} | ({"event": event} if event else {})
    # A backplane takes it as it is.
    check_extra(publication.extra)


@pytest.mark.parametrize("event", ["", "a\n", "x" * 256, "é" * 128, "\ud800", 7, b"a"])
def test_what_is_no_name_of_an_event_is_refused_and_takes_no_place(event: Any) -> None:
    hub = Hub()
    with pytest.raises(
        TopicError, match=r"^the event is .{1,100}, allowed are (1 to 255 printable bytes|str and None)$"
    ):
        hub.publish("a", "x", event=event)
    assert hub.stats().topics == hub.stats().published == 0
    assert hub.publish("a", "x", event="é" * 127 + "x").cursor.endswith(":1")


def test_what_json_cannot_say_is_refused() -> None:
    hub = Hub()
    for number in (float("nan"), [float("inf")]):
        with pytest.raises(TopicError, match=r"^the data is no JSON: Out of range float values are not JSON compliant"):
            hub.publish("a", number)
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(TopicError, match="the data is no JSON: Circular reference"):
        hub.publish("a", circle)
    for data in ({1, 2}, object(), [object()]):
        with pytest.raises(TypeError):
            hub.publish("a", data)
    with pytest.raises(rawws.LocalProtocolError, match="surrogate"):
        hub.publish("a", ["\ud800"])
    assert hub.stats().published == 0


def test_what_is_beside_a_message_is_counted_where_it_is_held() -> None:
    hub = Hub()
    hub.publish("a", "x")
    hub.publish("a", "x", event="e" * 200)
    plain, named = held(hub, "a")
    assert cost(named) - cost(plain) > 200
    assert named.size - plain.size == len(named.extra)


def test_the_name_counts_in_the_envelope_that_clients_take() -> None:
    message = "x" * 1_040_300
    assert Hub().publish("a", message).cursor
    with pytest.raises(TopicError, match="bytes in its envelope"):
        Hub().publish("a", message, event="e" * 255)


async def test_clients_publish_json_and_events_and_hear_them_over_each_transport() -> None:
    hub = Hub(authorize=allow)
    async with served(hub) as server, client(server) as one, client(server) as two:
        await one.ask(id=1, subscribe="a")
        async with feed(server, "/stream?topic=a") as stream:
            await stream.data()
            cursor = (await two.ask(id=1, publish="a", **MOVE))["cursor"]
            wanted = {"topic": "a", "cursor": cursor, **MOVE}
            assert await one.hear() == wanted
            event = await stream.next()
            assert (json.loads(event.data or ""), event.event) == (wanted, None)
        status, answer = await post(server, json.dumps({"publish": "a", "data": "[]", "json": False, "event": "e"}))
        assert status == 200
        last = {"topic": "a", "cursor": answer["cursor"], "data": "[]", "event": "e"}
        assert await one.hear() == last
        _, found = await fetch(server, poll_of(topic="a", since="earliest"))
        assert found["publications"] == [wanted, last]
        # Who comes back gets the same.
        async with client(server) as late:
            await late.ask(id=1, subscribe="a", since="earliest")
            assert [await late.hear(), await late.hear()] == [wanted, last]


@pytest.mark.parametrize(
    ("fields", "code", "reason"),
    [
        ({"data": "{", "json": True}, "malformed", "data is not JSON: Expecting property name"),
        ({"data": "", "json": True}, "malformed", "data is not JSON: Expecting value"),
        ({"data": "NaN", "json": True}, "malformed", "data is not JSON: NaN is no number"),
        ({"data": "[" * 16_000, "json": True}, "malformed", "data is not JSON: it is nested too deeply"),
        ({"data": "[" + "1," * 16_385 + "1]", "json": True}, "malformed", "data is not JSON: it has over 16384 values"),
        ({"data": "9" * 5000, "json": True}, "malformed", "data is not JSON: Exceeds the limit"),
        ({"base64": "", "json": True}, "malformed", "json is beside base64, allowed is data"),
        ({"data": "1", "json": 1}, "malformed", "json is int, allowed is bool"),
        ({"data": "1", "event": 1}, "malformed", "event is int, allowed is str"),
        ({"data": "1", "event": ""}, "event", "the event is '', allowed are 1 to 255 printable bytes"),
        ({"data": "1", "user": "ann"}, "malformed", "publish has no 'user'"),
    ],
)
async def test_a_client_cannot_publish_as_json_what_is_none(fields: dict[str, Any], code: str, reason: str) -> None:
    hub = Hub(authorize=allow)
    async with served(hub) as server, client(server) as one:
        answer = await one.ask(id=1, publish="a", **fields)
        assert (answer["id"], answer["error"]) == (1, code)
        assert answer["reason"].startswith(reason)
        # As many as are allowed are, and what stands in strings is none.
        for data in ("[" + "1," * 16_382 + "1]", json.dumps("[," * 20_000)):
            assert "cursor" in await one.ask(id=2, publish="a", data=data, json=True)
    assert hub.stats().published == 2


async def test_a_raw_stream_has_the_name_as_the_type_of_its_event_and_a_raw_websocket_the_message_alone() -> None:
    hub = Hub()

    def endpoint(_: rawws.HttpRequest) -> rawws.EventStream:
        stream = rawws.EventStream()
        hub.subscribe(stream, "a")
        return stream

    async with serve(on("/", endpoint)) as server, feed(server, "/") as one, feed(server, "/") as two:
        await eventually(lambda: hub.stats().subscribers == 2)
        first = hub.publish("a", {"x": 1}, event="move").cursor
        second = hub.publish("a", "plain").cursor
        for stream in (one, two):
            assert await stream.next() == rawws.Event('{"x":1}', "move", f"a={first}")
            assert await stream.next() == rawws.Event("plain", id=f"a={second}")

    async def handler(ws: rawws.WebSocket) -> None:
        hub.subscribe(ws, "a", since=first)
        hub.publish("a", [1], event="move")
        await ws.wait_closed()

    async with serve(handler) as server:
        host, port = server.sockets[0].getsockname()
        async with rawws.connect(f"ws://{host}:{port}/") as ws:
            assert [await ws.recv(), await ws.recv()] == ["plain", "[1]"]


async def test_a_listener_has_the_value_and_the_name() -> None:
    hub = Hub()
    hub.publish("a", {"x": 1}, event="move")
    hub.publish("a", "plain")
    found = []
    async for publication in hub.listen("a", since="earliest"):
        found.append((publication.event, publication.is_json, publication.message))
        if len(found) == 2:
            break
    assert found == [("move", True, '{"x":1}'), (None, False, "plain")]


async def test_another_thread_publishes_what_the_value_was_then() -> None:
    hub, receiver = Hub(), Receiver()
    hub.subscribe(receiver, "a")
    value = {"x": 1}

    def work() -> Any:
        future = hub.publish_threadsafe("a", value, event="move")
        value["x"] = 2
        return future

    with ThreadPoolExecutor(1) as pool:
        future = await asyncio.wrap_future(pool.submit(work))
    assert (await asyncio.wrap_future(future)).delivered == 1
    [publication] = held(hub, "a")
    assert (publication.json(), publication.event) == ({"x": 1}, "move")
    with pytest.raises(TypeError, match="message is object"):
        hub.publish_threadsafe("a", object())
    with pytest.raises(TopicError, match="the event is ''"):
        hub.publish_threadsafe("a", "x", event="")


async def test_hubs_that_are_joined_have_it_from_each_other_also_from_while_the_engine_was_away(
    logged: Logged,
) -> None:
    engine = Engine()
    async with Hub(backplane=MemoryBackplane(engine)) as one, Hub(backplane=MemoryBackplane(engine)) as two:
        receiver = Receiver()
        await two.subscribe(receiver, "a")
        await one.publish("a", {"x": 1}, event="move")
        await eventually(lambda: receiver.got == ['{"x":1}'])
        engine.stop()
        await eventually(lambda: two.degraded)
        two.publish("a", [2], event="alone")
        assert receiver.got[1:] == ["[2]"]
        engine.start()
        await eventually(lambda: not one.degraded and not two.degraded and not two.stats().unsent)
        late = Receiver()
        await one.subscribe(late, "a", since="earliest")
        await eventually(lambda: late.got == ['{"x":1}', "[2]"])
        for hub in (one, two):
            assert [(each.event, each.json()) for each in held(hub, "a")] == [("move", {"x": 1}), ("alone", [2])]
    logged.take_all("the backplane is away", 2)
    logged.take_all("the backplane is back", 2)


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ("x", "Expecting property name"),
        ('"a":1}', "Extra data"),
        ('"a":1,"a":2', "a name stands twice"),
        ('"a":NaN', "NaN is no number"),
        ('"topic":"b"', "which no envelope can have"),
        ('"data":"b"', "which no envelope can have"),
        ('"a":1,\n"b":1', "which no envelope can have"),
        ('"a":' + "[" * 1900, "is no JSON"),
        ('"event":1', "event and user beside the message must be text"),
        ('"json":"true"', "json true or false"),
        ('"user":null', "event and user beside the message must be text"),
        (f'"a":"{"x" * MAX_EXTRA}"', "has 2054 characters, limit 2048"),
    ],
)
def test_what_another_server_says_beside_a_message_is_looked_at(extra: str, reason: str) -> None:
    with pytest.raises(TopicError, match=reason):
        check_extra(extra)


def test_what_another_server_says_and_nobody_here_knows_is_kept() -> None:
    publication = Publication("a", PreparedMessage("x"), extra='"event": "e", "later":[1]')
    check_extra(publication.extra)
    assert json.loads(render(publication)) == {"topic": "a", "cursor": "", "data": "x", "event": "e", "later": [1]}


def test_nothing_beside_a_message_is_the_empty_text() -> None:
    assert (extra_of(), payload_of("x"), payload_of(b"x")) == ("", ("x", ""), (b"x", ""))
