"""rawws.v1: what a client says is done or refused in plain words, and its mistakes are its own."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rawws
from rawws.topics import Hub, HubHandler, rawws_v1
from rawws.topics.envelope import EnvelopeError, parse
from tests.server.peers import Logged, eventually, serve
from tests.topics.dialogue import allow, client, served
from tests.topics.receivers import Receiver

STYLES = pytest.mark.parametrize("callbacks", [False, True], ids=["coroutine", "callbacks"])


@STYLES
async def test_a_client_subscribes_publishes_and_unsubscribes(callbacks: bool) -> None:
    hub = Hub(authorize=allow)
    async with served(hub, callbacks=callbacks) as server, client(server) as one, client(server) as two:
        answer = await one.ask(id=1, subscribe="chat")
        assert answer == {"id": 1, "cursor": answer["cursor"], "recovered": True}
        published = await two.ask(id=7, publish="chat", data="Grüße")
        assert published == {"id": 7, "cursor": published["cursor"]}
        assert await one.hear() == {"topic": "chat", "cursor": published["cursor"], "data": "Grüße"}
        await two.say(publish="chat", base64=base64.b64encode(b"\x00\xff").decode())
        assert (await one.hear())["base64"] == "AP8="
        assert await one.ask(id=2, unsubscribe="chat") == {"id": 2}
        await two.ask(id=8, publish="chat", data="missed")
        assert await one.ask(id=3, presence="chat") == {"id": 3, "members": [], "count": 0}
        assert hub.stats().subscribers == 0


@STYLES
async def test_a_client_comes_back_for_what_it_missed_and_the_answer_comes_first(callbacks: bool) -> None:
    hub = Hub(authorize=allow)
    async with served(hub, callbacks=callbacks) as server:
        async with client(server) as before:
            cursor = (await before.ask(id=1, subscribe="chat"))["cursor"]
        await eventually(lambda: hub.stats().subscribers == 0)
        for number in range(3):
            hub.publish("chat", str(number))
        async with client(server) as after:
            assert await after.ask(id=1, subscribe="chat", since=cursor) == {
                "id": 1,
                "cursor": cursor,
                "recovered": True,
            }
            assert [(await after.hear())["data"] for _ in range(3)] == ["0", "1", "2"]
        async with client(server) as other:
            lost = await other.ask(id=1, subscribe="chat", since="0123456789ab:5")
            assert lost == {"id": 1, "cursor": hub.publish("chat", "x").cursor[:-1] + "3", "recovered": False}


MISTAKES = [
    ("{", None, "malformed", "it is not JSON"),
    ("[1]", None, "malformed", "it is list, allowed is an object"),
    ("7", None, "malformed", "it is int"),
    ('{"id": 1}', 1, "malformed", "it has none of subscribe, unsubscribe, publish, presence, renew, history"),
    ('{"id": 1, "subscribe": "a", "publish": "a", "data": ""}', 1, "malformed", "it has subscribe and publish of"),
    ('{"id": 1, "subscribe": "a", "sinc": "x"}', 1, "malformed", "subscribe has no 'sinc'"),
    ('{"id": 1, "unsubscribe": "a", "since": "x"}', 1, "malformed", "unsubscribe has no 'since'"),
    ('{"id": 1, "subscribe": "a", "subscribe": "b"}', None, "malformed", "a name stands twice"),
    ('{"id": -1, "subscribe": "a"}', None, "malformed", "id is int, allowed is an integer from 0"),
    ('{"id": true, "subscribe": "a"}', None, "malformed", "id is bool"),
    ('{"id": 1.5, "subscribe": "a"}', None, "malformed", "id is float"),
    ('{"id": 9007199254740992, "subscribe": "a"}', None, "malformed", "id is int"),
    ('{"id": 1, "subscribe": 7}', 1, "malformed", "subscribe is int, allowed is str"),
    ('{"id": 1, "subscribe": "a", "watch": 1}', 1, "malformed", "watch is int, allowed is bool"),
    ('{"id": 1, "subscribe": "a", "since": null}', 1, "malformed", "since is NoneType, allowed is str"),
    ('{"id": 1, "publish": "a"}', 1, "malformed", "publish has data and base64 or neither, needed is one"),
    ('{"id": 1, "publish": "a", "data": "x", "base64": "eA=="}', 1, "malformed", "publish has data and base64"),
    ('{"id": 1, "publish": "a", "data": {}}', 1, "malformed", "data is dict, allowed is str"),
    ('{"id": 1, "publish": "a", "data": "\\ud800"}', 1, "malformed", "data has a lone surrogate"),
    ('{"id": 1, "publish": "a", "base64": "%"}', 1, "malformed", "base64 is none"),
    ('{"id": 1, "publish": "a", "base64": "\u00e9"}', 1, "malformed", "base64 is none"),
    ('{"id": NaN}', None, "malformed", "NaN is no number"),
    ("[" * 100_000, None, "malformed", "it is not JSON"),
    ('{"id": ' + "9" * 5000 + "}", None, "malformed", "it is not JSON"),
    ('{"id": 1, "subscribe": ""}', 1, "topic", "the topic is ''"),
    ('{"id": 1, "subscribe": "a\\u0000b"}', 1, "topic", r"the topic is 'a\x00b'"),
    ('{"id": 1, "publish": "' + "x" * 256 + '", "data": ""}', 1, "topic", "the topic is 'xxx"),
    ('{"id": 1, "subscribe": "a", "since": "nonsense"}', 1, "cursor", "the cursor is 'nonsense'"),
    ('{"id": 1, "publish": "a", "data": "' + "x" * 101 + '"}', 1, "size", "the message has 101 bytes, limit 100"),
    ('{"id": 1, "subscribe": "a", "join": "' + "x" * 1023 + '"}', 1, "limit", "has 1025 bytes, limit 1024"),
    ('{"id": 1, "subscribe": "a", "join": "\\ud800"}', 1, "limit", "is no JSON"),
    (b"binary", None, "malformed", "the message is binary, allowed is text"),
    ('{"id": 1, "publish": "a", "data": "", "key": "\\ud800"}', 1, "key", "allowed are up to 255 bytes of UTF-8"),
    ('{"id": 1, "subscribe": "a", "since": "' + "&=" * 10_000 + '"}', 1, "cursor", "has 20000 characters, limit 16384"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "number", "code", "reason"), MISTAKES, ids=lambda value: ascii(value)[:30].replace("\\", "")
)
async def test_a_mistake_is_answered_to_its_client_alone_who_goes_on(
    text: str | bytes, number: int | None, code: str, reason: str
) -> None:
    hub = Hub(authorize=allow, max_size=100)
    async with served(hub) as server, client(server) as one, client(server) as other:
        await other.ask(id=1, subscribe="a")
        await one.peer.send(text)
        answer = await one.hear()
        assert answer.pop("error") == code
        assert reason in answer.pop("reason")
        assert answer == ({} if number is None else {"id": number})
        assert "cursor" in await one.ask(id=2, publish="a", data="on")
        assert (await other.hear())["data"] == "on"
        assert hub.stats().subscriptions == 1


async def test_a_cursor_of_the_future_is_a_mistake() -> None:
    hub = Hub(authorize=allow)
    cursor = hub.publish("a", "x").cursor
    async with served(hub) as server, client(server) as one:
        answer = await one.ask(id=1, subscribe="a", since=cursor + "0")
        assert (answer["error"], answer["id"]) == ("cursor", 1)
        assert "the last of the topic is" in answer["reason"]


async def test_a_client_that_wants_10_000_topics_gets_a_thousand_and_then_errors() -> None:
    hub = Hub(authorize=allow)
    async with served(hub) as server, client(server) as one:

        async def ask() -> None:
            for start in range(0, 10_000, 500):
                await one.peer.send(*[json.dumps({"id": n, "subscribe": f"t{n}"}) for n in range(start, start + 500)])

        asking = asyncio.create_task(ask())
        answers = [await one.hear() for _ in range(10_000)]
        await asking
        assert [answer["id"] for answer in answers] == [*range(10_000)]
        assert all("error" not in answer for answer in answers[:1000])
        assert {answer["error"] for answer in answers[1000:]} == {"limit"}
        assert hub.stats().subscriptions == hub.stats().topics == 1000


async def test_a_second_subscription_to_a_topic_is_a_mistake() -> None:
    hub = Hub(authorize=allow)
    async with served(hub) as server, client(server) as one:
        await one.ask(id=1, subscribe="a")
        assert (await one.ask(id=2, subscribe="a"))["error"] == "limit"


@STYLES
async def test_a_client_without_the_subprotocol_is_closed_with_1008(callbacks: bool) -> None:
    async with (
        served(Hub(authorize=allow), callbacks=callbacks, subprotocols=None) as server,
        client(server, "X-None: 1") as one,
    ):
        assert await one.peer.finish() == (1008, "the subprotocol must be rawws.v1")


@pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])
@STYLES
async def test_what_is_not_allowed_is_refused_without_a_reason_and_in_order(callbacks: bool, later: bool) -> None:
    asked: list[tuple[str, str]] = []

    def decide(who: Any, action: str, topic: str) -> Any:
        assert isinstance(who, rawws.WebSocket)
        asked.append((action, topic))
        verdict = (action, topic) in {("subscribe", "read"), ("publish", "write")}

        async def think() -> bool:
            await asyncio.sleep(0.001)
            return verdict

        return think() if later else verdict

    hub = Hub(authorize=decide)
    async with served(hub, callbacks=callbacks) as server, client(server) as one:
        for number, (action, topic) in enumerate(
            [("subscribe", "read"), ("subscribe", "write"), ("publish", "read"), ("publish", "write"),
             ("presence", "read"), ("presence", "write"), ("unsubscribe", "read")]
        ):  # fmt: skip
            await one.say(id=number, **{action: topic}, **({"data": "x"} if action == "publish" else {}))
        answers = [await one.hear() for _ in range(7)]
        assert [answer["id"] for answer in answers] == [*range(7)]
        refused = [number for number, answer in enumerate(answers) if answer == {"id": number, "error": "refused"}]
        assert refused == [1, 2, 5]
        assert asked == [("subscribe", "read"), ("subscribe", "write"), ("publish", "read"), ("publish", "write"),
                         ("subscribe", "read"), ("subscribe", "write")]  # fmt: skip


@STYLES
async def test_without_authorize_nothing_is_allowed_and_the_log_says_why(callbacks: bool, logged: Logged) -> None:
    async with served(Hub(), callbacks=callbacks) as server, client(server) as one:
        await one.say(id=1, subscribe="a")
        assert await one.peer.finish() == (1011, "internal error")
    logged.take("connection handler failed", rawws.LocalProtocolError)


@pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])
@STYLES
async def test_authorize_that_raises_ends_its_client_only(callbacks: bool, later: bool, logged: Logged) -> None:
    async def fail_later() -> bool:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    def decide(_who: Any, _action: str, topic: str) -> Any:
        if topic != "bad":
            return True
        if later:
            return fail_later()
        raise ZeroDivisionError

    hub = Hub(authorize=decide)
    async with served(hub, callbacks=callbacks) as server, client(server) as one, client(server) as other:
        await other.ask(id=1, subscribe="good")
        await one.say(id=1, subscribe="bad")
        assert await one.peer.finish() == (1011, "internal error")
        hub.publish("good", "on")
        assert (await other.hear())["data"] == "on"
    logged.take("connection handler failed", ZeroDivisionError)


@pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])
@STYLES
async def test_authorize_that_is_cancelled_never_leaves_a_client_mute(
    callbacks: bool, later: bool, logged: Logged
) -> None:
    async def wait_for_a_cancelled_task() -> bool:
        task = asyncio.ensure_future(asyncio.sleep(60))
        asyncio.get_running_loop().call_soon(task.cancel)
        await task
        return True

    def decide(_who: Any, _action: str, topic: str) -> Any:
        if topic != "bad":
            return True
        if later:
            return wait_for_a_cancelled_task()
        raise asyncio.CancelledError

    async with served(Hub(authorize=decide), callbacks=callbacks) as server, client(server) as one:
        await one.say(id=1, subscribe="bad")
        await one.say(id=2, subscribe="good")
        assert await one.peer.finish() == (1011, "internal error")
        await eventually(lambda: not server.connections)
    logged.take("connection handler failed", RuntimeError)


@STYLES
async def test_a_client_that_goes_while_it_is_decided_leaves_nothing(callbacks: bool) -> None:
    asked, decided = asyncio.Event(), asyncio.Event()

    async def decide(_who: Any, _action: str, _topic: str) -> bool:
        asked.set()
        await decided.wait()
        return True

    hub = Hub(authorize=decide)
    async with served(hub, callbacks=callbacks) as server:
        before = len(asyncio.all_tasks())
        async with client(server) as one:
            await one.say(id=1, subscribe="a")
            await one.say(id=2, subscribe="b")
            await asked.wait()
        await eventually(lambda: not server.connections)
        decided.set()
        await eventually(lambda: len(asyncio.all_tasks()) == before)
        assert hub.stats()[:3] == (0, 0, 0)


async def test_too_many_requests_behind_an_open_decision_close_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rawws.topics.rawws_v1.MAX_PENDING", 5)
    decided = asyncio.Event()

    async def decide(_who: Any, _action: str, _topic: str) -> bool:
        await decided.wait()
        return True

    async with served(Hub(authorize=decide), callbacks=True) as server, client(server) as one:
        await one.peer.send(*['{"subscribe": "a"}'] * 7)
        assert await one.peer.finish() == (1013, "over 5 requests wait for an answer")
        decided.set()


async def test_requests_behind_an_open_decision_are_bounded_in_bytes_and_none_is_lost() -> None:
    decided = asyncio.Event()

    async def decide(_who: Any, _action: str, topic: str) -> bool:
        if topic == "slow":
            await decided.wait()
        return True

    handler = HubHandler(Hub(authorize=decide))
    options = {"select_subprotocol": lambda _ws, _offered: "rawws.v1"}
    async with serve(handler, **options) as server, client(server) as one:
        await one.say(id=0, subscribe="slow")
        sent = asyncio.ensure_future(
            one.peer.send(
                *[json.dumps({"id": number, "publish": "b", "data": "x" * 50_000}) for number in range(1, 201)]
            )
        )
        await eventually(lambda: any(pending.size > 65536 for pending in handler._busy.values()))
        # What is read and not handed on is bounded as well: the rest stays with the peer.
        for _ in range(20):
            await asyncio.sleep(0)
        assert [pending.size < 200_000 for pending in handler._busy.values()] == [True]
        assert server.stats().bytes_received < 2_000_000
        decided.set()
        assert [(await one.hear())["id"] for _ in range(201)] == list(range(201))
        await sent


async def test_the_largest_message_reaches_clients_of_every_kind() -> None:
    hub = Hub(authorize=allow)
    topic, data = "t" * 255, "x" * ((1 << 20) - 8192 - 300)
    async with served(hub) as server:
        port = server.sockets[0].getsockname()[1]

        async def find() -> None:
            async for event in rawws.events(f"http://127.0.0.1:{port}/stream?topic={topic}", proxy=None):
                if event.data is not None and json.loads(event.data).get("data") == data:
                    return

        found = asyncio.ensure_future(find())
        async with rawws.connect(f"ws://127.0.0.1:{port}/ws", subprotocols=["rawws.v1"], proxy=None) as ws:
            await ws.send(json.dumps({"id": 1, "subscribe": topic}))
            assert "cursor" in json.loads(await ws.recv())
            await eventually(lambda: hub.stats().subscribers == 2)
            hub.publish(topic, data)
            assert json.loads(await ws.recv())["data"] == data
        await found


async def test_a_list_of_those_present_is_no_larger_than_clients_take() -> None:
    hub = Hub(authorize=allow)
    for _ in range(1000):
        hub.subscribe(Receiver(), "a", join="\U0001f600" * 255)
    async with served(hub) as server, client(server) as one:
        answer = await one.ask(id=1, presence="a")
        assert answer["count"] == 1000
        assert 100 < len(answer["members"]) < 1000
        assert len(json.dumps(answer, ensure_ascii=False).encode()) < 1 << 20


@pytest.mark.parametrize("inner", ["[]", "{}", '{"a": [[]]}', "1"])
def test_an_envelope_of_many_values_is_refused_before_they_are_made(inner: str) -> None:
    text = '{"subscribe": "a", "join": [%s]}'
    assert parse(text % ", ".join([inner] * 90)).join
    with pytest.raises(EnvelopeError, match=r"^it is not JSON of at most 512 values$"):
        parse(text % ", ".join([inner] * 520))


@pytest.mark.parametrize("data", ['[{"a": "b"},' * 10_000, "\\" * 10_000 + "," * 1000, '"' * 10_000 + "," * 1000])
def test_a_message_may_look_like_many_values(data: str) -> None:
    assert parse(json.dumps({"publish": "a", "data": data})).message == data


@pytest.mark.parametrize("text", ['"\\"' * 300_000, '"' + '\\"' * 300_000 + "," * 1000, "," * 1000 + '"' * 300_001])
def test_a_text_that_does_not_end_is_looked_at_once(text: str) -> None:
    with pytest.raises(EnvelopeError):
        parse(text)


async def test_an_envelope_is_encoded_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(authorize=allow)
    async with served(hub) as server, client(server) as one, client(server) as two:
        made: list[Any] = []
        for each in (one, two):
            await each.ask(id=1, subscribe="a")

        def make(publication: Any) -> dict[str, Any]:
            made.append(publication)
            return {}

        monkeypatch.setattr("rawws.topics.envelope.publication_fields", make)
        hub.publish("a", "x")
        assert await one.hear() == await two.hear() == {}
        assert len(made) == 1


async def test_a_connection_that_the_server_subscribes_gets_envelopes_too() -> None:
    hub = Hub(authorize=allow)
    async with served(hub) as server, client(server) as one:
        await eventually(lambda: server.connections)
        [ws] = server.connections
        hub.subscribe(ws, "mine")
        cursor = hub.publish("mine", "x").cursor
        assert await one.hear() == {"topic": "mine", "cursor": cursor, "data": "x"}


async def test_a_client_that_publishes_faster_than_block_allows_is_not_read() -> None:
    hub = Hub(authorize=allow, policy="block")
    async with served(hub, slow=True) as server, client(server, receive_buffer=2048) as slow, client(server) as fast:
        await slow.ask(id=1, subscribe="a")
        data = "x" * 50_000
        for number in range(20):
            await fast.say(id=number, publish="a", data=data)
        # All are answered only after the slow one has read.
        answers = [asyncio.ensure_future(fast.hear())]
        while (await slow.hear())["cursor"].rpartition(":")[2] != "20":
            pass
        assert (await answers[0])["id"] == 0
        assert [(await fast.hear())["id"] for _ in range(19)] == [*range(1, 20)]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.sampled_from(
    ["id", "subscribe", "unsubscribe", "publish", "presence", "since", "join", "watch", "data", "base64", "key"]
)


@given(
    st.one_of(st.text(), st.binary(), JSON.map(json.dumps), st.dictionaries(FIELDS, JSON, max_size=4).map(json.dumps))
)
def test_whatever_comes_is_an_ask_or_an_envelope_error(text: str | bytes) -> None:
    with contextlib.suppress(EnvelopeError):
        ask = parse(text)
        fields = json.loads(text)
        assert fields[ask.action] == ask.topic
        assert ask.id == fields.get("id")
        assert isinstance(ask.message, (str, bytes))


def test_what_is_done_of_what_waited_waits_no_more() -> None:
    pending = rawws_v1.PendingCommands()
    for message in ("x" * 100, b"y" * 50):
        pending.append(message)
    assert pending.size == 150
    assert [pending.take(), pending.size, pending.take(), pending.size] == ["x" * 100, 50, b"y" * 50, 0]


async def test_a_client_that_asks_faster_than_it_reads_waits_and_is_not_closed() -> None:
    hub, count = Hub(authorize=allow), 8000
    async with served(hub, slow=True, compression=None, hard_limit=1 << 17) as server:
        async with client(server, receive_buffer=2048) as one:
            for number in range(count):
                one.peer.connection.send(json.dumps({"id": number, "presence": "a"}))
            asking = asyncio.create_task(one.peer.flush())
            [ws] = server.connections
            await eventually(lambda: ws.congested and ws.full)
            assert ws.buffered < 1 << 17
            assert [(await one.hear())["id"] for _ in range(count)] == [*range(count)]
            await asking


async def test_nobody_decides_any_more_about_a_client_that_is_gone() -> None:
    asked, cancelled = asyncio.Event(), asyncio.Event()

    async def decide(*_: Any) -> bool:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return True

    async with served(Hub(authorize=decide), callbacks=True) as server, client(server) as one:
        await one.say(subscribe="a")
        await asked.wait()
        one.peer.close()
        await cancelled.wait()
