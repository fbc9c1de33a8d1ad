"""Topics over HTTP: event streams, long and short polls, posts; and one cursor for all of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import pytest

import rawws
from rawws.backplanes.memory import MemoryBackplane
from rawws.protocol.http11 import Headers
from rawws.topics import History, Hub, rawws_v1_http
from rawws_sse import Decoder
from tests.server.answers import ask, asked, get, on
from tests.server.answers import served as served_by
from tests.server.peers import Logged, Peer, eventually, serve
from tests.topics.dialogue import allow, client, served
from tests.topics.receivers import Receiver


class Feed:
    """The events of one stream, as an EventSource dispatches them."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.decoder = Decoder()
        self.events: list[rawws.Event] = []
        self.buffer, peer.rest = peer.rest, b""
        self.parse()

    async def next(self) -> rawws.Event:
        while not self.events:
            await self.read()
        return self.events.pop(0)

    async def read(self) -> None:
        """Read on, whether it ends an event or not."""
        data = await self.peer.read()
        assert data, "the stream ended"
        self.buffer += data
        self.parse()

    def parse(self) -> None:
        while b"\r\n" in self.buffer:
            size, _, rest = self.buffer.partition(b"\r\n")
            length = int(size, 16)
            if len(rest) < length + 2:
                break
            self.events += self.decoder.receive(rest[:length])
            self.buffer = rest[length + 2 :]

    async def data(self) -> dict[str, Any]:
        event = await self.next()
        assert event.data is not None
        found = json.loads(event.data)
        assert isinstance(found, dict)
        return found


@contextlib.asynccontextmanager
async def feed(server: rawws.Server, target: str, *fields: str, receive_buffer: int = 0) -> AsyncIterator[Feed]:
    peer = await Peer.reach(server.sockets[0].getsockname(), receive_buffer)
    try:
        await peer.write(get(target, *fields))
        response = await peer.response()
        assert response.status == 200, (response, peer.rest)
        yield Feed(peer)
    finally:
        peer.close()


async def fetch(server: rawws.Server, target: str, *fields: str) -> tuple[int, Any]:
    [answer] = await ask(server, get(target, *fields, "Connection: close"))
    return answer.status, json.loads(answer.body) if answer.body else None


async def post(server: rawws.Server, text: str | bytes) -> tuple[int, Any]:
    body = text.encode() if isinstance(text, str) else text
    [answer] = await ask(server, get("/", "Connection: close", method="POST", body=body), ["POST"])
    return answer.status, json.loads(answer.body)


def poll_of(**parameters: Any) -> str:
    return "/poll?" + urlencode(parameters, doseq=True)


# -- raw event streams


async def test_a_raw_stream_has_the_message_as_data_and_the_cursor_as_id() -> None:
    hub = Hub()

    def endpoint(request: rawws.HttpRequest) -> rawws.EventStream:
        stream = rawws.EventStream()
        hub.subscribe(stream, "a b", since=request.last_event_id)
        return stream

    async with serve(on("/", endpoint)) as server:
        async with feed(server, "/") as one:
            await eventually(lambda: hub.stats().subscribers)
            first = hub.publish("a b", "two\nlines").cursor
            assert await one.next() == rawws.Event("two\nlines", id=f"a%20b={first}")
            hub.publish("a b", b"\x00")
            assert (await one.next()).data == "AA=="
        await eventually(lambda: hub.stats().subscribers == 0)
        hub.publish("a b", "missed")
        async with feed(server, "/", f"Last-Event-ID: a%20b={first}") as back:
            assert [(await back.next()).data for _ in range(2)] == ["AA==", "missed"]


async def test_a_raw_stream_that_watches_is_told_without_a_cursor_who_comes() -> None:
    hub = Hub()

    def endpoint(_: rawws.HttpRequest) -> rawws.EventStream:
        stream = rawws.EventStream()
        hub.subscribe(stream, "a", watch=True)
        return stream

    async with serve(on("/", endpoint)) as server, feed(server, "/") as one:
        await eventually(lambda: hub.stats().subscribers)
        hub.subscribe(Receiver(), "a", join="me")
        notice = await one.next()
        assert notice.data is not None
        assert json.loads(notice.data)["join"]["info"] == "me"
        last = one.decoder.last_event_id
        cursor = hub.publish("a", "x").cursor
        assert await one.next() == rawws.Event("x", id=f"a={cursor}")
        assert last == f"a={cursor.partition(':')[0]}:0"


async def test_a_stream_that_is_cut_off_before_anything_came_has_an_id_to_come_back_with() -> None:
    hub = Hub(authorize=allow)
    async with served(hub) as server:
        async with feed(server, "/stream?topic=a&topic=b") as one:
            [await one.data(), await one.data()]
            while not one.decoder.last_event_id:
                await one.read()
            last = one.decoder.last_event_id
        await eventually(lambda: hub.stats().subscribers == 0)
        hub.publish("b", "missed")
        async with feed(server, "/stream?topic=a&topic=b", f"Last-Event-ID: {last}") as back:
            answers = [await back.data(), await back.data()]
            assert [answer["recovered"] for answer in answers] == [True, True]
            assert (await back.data())["data"] == "missed"


# -- streams of envelopes


async def test_one_stream_has_several_topics_and_one_id_that_holds_them_all() -> None:
    hub = Hub(authorize=allow)
    async with served(hub) as server:
        async with feed(server, "/stream?topic=a&topic=b&topic=a") as one:
            assert [(await one.data())["topic"] for _ in range(2)] == ["a", "b"]
            ids = []
            for number in range(4):
                cursor = hub.publish("ab"[number % 2], str(number)).cursor
                event = await one.next()
                assert json.loads(event.data or "") == {
                    "topic": "ab"[number % 2],
                    "cursor": cursor,
                    "data": str(number),
                }
                ids.append(event.id)
        for missing, ident in enumerate(reversed(ids)):
            # What is newer than the URL goes before what the URL says.
            async with feed(server, "/stream?topic=a&topic=b&since=earliest", f"Last-Event-ID: {ident}") as back:
                assert all([(await back.data())["recovered"] for _ in range(2)])
                assert {(await back.data())["data"] for _ in range(missing)} == {*map(str, range(4 - missing, 4))}


async def test_an_event_is_made_once_for_streams_that_are_equally_far(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(authorize=allow)
    async with served(hub) as server, feed(server, "/stream?topic=a") as one, feed(server, "/stream?topic=a") as two:
        await one.data()
        await two.data()
        made: list[Any] = []

        def make(publication: Any) -> dict[str, Any]:
            made.append(publication)
            return {}

        monkeypatch.setattr("rawws.topics.envelope.publication_fields", make)
        hub.publish("a", "x")
        assert await one.data() == await two.data() == {}
        assert len(made) == 1


async def test_a_stream_that_reads_on_gets_everything_and_one_that_does_not_is_cut() -> None:
    hub = Hub(authorize=allow)
    async with served(hub, slow=True) as server:
        async with feed(server, "/stream?topic=a", receive_buffer=2048) as slow:
            await slow.data()
            for number in range(40):
                hub.publish("a", f"{number} " + "x" * 10_000)
                await asyncio.sleep(0)
            assert hub.stats().queued > 0
            assert [(await slow.data())["data"].partition(" ")[0] for _ in range(40)] == [*map(str, range(40))]
            while not hub.stats().closed:
                hub.publish("a", "x" * 10_000)
                await asyncio.sleep(0)
            assert hub.stats().subscribers == 0


async def test_a_long_replay_to_a_new_stream_arrives_whole() -> None:
    hub = Hub(authorize=allow, history=History(size=1 << 30))
    for number in range(100):
        hub.publish("a", f"{number} " + "x" * 20_000)
    async with served(hub) as server, feed(server, "/stream?topic=a&since=earliest") as one:
        await one.data()
        assert [(await one.data())["data"].partition(" ")[0] for _ in range(100)] == [*map(str, range(100))]
        hub.publish("a", "live")
        assert (await one.data())["data"] == "live"


async def test_too_many_topics_for_an_id_are_refused() -> None:
    hub = Hub(authorize=allow)
    async with served(hub) as server:
        status, body = await fetch(server, "/stream?" + urlencode([("topic", f"topic-{n}") for n in range(80)]))
        assert (status, body["error"]) == (429, "limit")
        assert "too many for the id" in body["reason"]
        assert hub.stats().subscribers == hub.stats().subscriptions == 0


# -- polls


async def test_a_first_poll_gives_a_cursor_and_the_next_what_came_since() -> None:
    hub = Hub(authorize=allow)
    async with served(hub) as server:
        status, first = await fetch(server, poll_of(topic=["a", "b"]))
        assert status == 200
        assert first["publications"] == []
        sent = [hub.publish(topic, topic.upper()).cursor for topic in "aba"]
        _, second = await fetch(server, poll_of(topic=["a", "b"], since=first["cursor"]))
        assert second == {
            "publications": [
                {"topic": "a", "cursor": sent[0], "data": "A"},
                {"topic": "b", "cursor": sent[1], "data": "B"},
                {"topic": "a", "cursor": sent[2], "data": "A"},
            ],
            "cursor": f"a={sent[2]}&b={sent[1]}",
            "recovered": True,
        }
        status, third = await fetch(server, poll_of(topic=["a", "b"], since=second["cursor"], timeout=0))
        assert (status, third) == (200, {"publications": [], "cursor": second["cursor"], "recovered": True})


async def test_a_held_poll_is_answered_with_all_of_one_turn_and_costs_no_task() -> None:
    hub = Hub(authorize=allow)
    async with served(hub) as server:
        _, first = await fetch(server, poll_of(topic="a"))
        tasks = len(asyncio.all_tasks())
        peer = await Peer.reach(server.sockets[0].getsockname())
        await peer.write(get(poll_of(topic="a", since=first["cursor"])))
        await eventually(lambda: hub.stats().subscribers == 1)
        assert len(asyncio.all_tasks()) == tasks
        hub.publish("a", "1")
        hub.publish("a", b"2")
        [answer] = await asked(peer)
        body = json.loads(answer.body)
        assert [each.get("data", each.get("base64")) for each in body["publications"]] == ["1", "Mg=="]
        assert answer.headers["cache-control"] == "no-store"
        assert hub.stats().subscribers == 0
        # The connection goes on.
        await peer.write(get(poll_of(topic="a", since=body["cursor"], timeout=0)))
        [answer] = await asked(peer)
        assert json.loads(answer.body)["publications"] == []
        peer.close()


async def test_a_poll_that_times_out_is_204_and_the_same_cursor_loses_nothing() -> None:
    hub = Hub(authorize=allow)
    async with served(hub) as server:
        _, first = await fetch(server, poll_of(topic="a"))
        assert await fetch(server, poll_of(topic="a", since=first["cursor"], timeout=1)) == (204, None)
        assert hub.stats().subscribers == 0
        hub.publish("a", "x")
        _, found = await fetch(server, poll_of(topic="a", since=first["cursor"]))
        assert [each["data"] for each in found["publications"]] == ["x"]


async def test_a_client_that_gives_up_its_poll_is_forgotten() -> None:
    hub = Hub(authorize=allow)
    async with served(hub) as server:
        _, first = await fetch(server, poll_of(topic="a"))
        peer = await Peer.reach(server.sockets[0].getsockname())
        await peer.write(get(poll_of(topic="a", since=first["cursor"])))
        await eventually(lambda: hub.stats().subscribers == 1)
        peer.close()
        await eventually(lambda: hub.stats().subscribers == 0)


async def test_a_poll_of_more_topics_than_a_subscriber_may_have_is_refused() -> None:
    hub = Hub(authorize=allow, max_topics=1)
    async with served(hub) as server:
        _, first = await fetch(server, poll_of(topic="a"))
        for since in ({}, {"since": first["cursor"]}):
            status, found = await fetch(server, poll_of(topic=["a", "b"], **since))
            assert (status, found["error"]) == (429, "limit")
        assert hub.stats().subscribers == 0


@pytest.mark.parametrize("path", ["/poll", "/stream"])
@pytest.mark.parametrize("options", [{}, {"max_topics": 50}], ids=["cursor", "max_topics"])
async def test_how_many_topics_a_request_has_is_judged_before_anybody_is_asked(
    path: str, options: dict[str, Any]
) -> None:
    asked_for: list[str] = []

    def decide(_who: Any, _action: str, topic: str) -> bool:
        asked_for.append(topic)
        return True

    hub = Hub(authorize=decide, **options)
    async with served(hub) as server:
        [answer] = await ask(server, get(f"{path}?" + "&".join(f"topic={number}" for number in range(700))))
        assert answer.status == 429
        assert asked_for == []
        assert hub.stats().subscribers == 0


@pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])
@pytest.mark.parametrize("path", ["/poll", "/stream"])
async def test_an_authorize_that_is_cancelled_fails_the_request(path: str, later: bool, logged: Logged) -> None:
    async def cancelled() -> bool:
        await asyncio.sleep(0)
        raise asyncio.CancelledError

    def decide(_who: Any, _action: str, _topic: str) -> Any:
        if later:
            return cancelled()
        raise asyncio.CancelledError

    async with served(Hub(authorize=decide)) as server:
        [answer] = await ask(server, get(f"{path}?topic=a"))
        assert answer.status == 500
    logged.take("request failed", RuntimeError)


async def test_an_endpoint_may_name_topics_itself_and_then_nobody_is_asked() -> None:
    hub = Hub()

    def endpoint(request: rawws.HttpRequest) -> Any:
        return hub.poll(request, "news", since="earliest", timeout=0)

    hub.publish("news", "x")
    async with serve(on("/", endpoint)) as server:
        _, found = await fetch(server, "/?topic=other")
        assert [each["topic"] for each in found["publications"]] == ["news"]


# -- cursors of any form

# Those of other servers and of other software, what a proxy or a user made of one, and one of the future.
STRANGE = [
    "44", "1665666647", "f1b2c3d4-aaaa", "nonsense", "a=nonsense", "a=b=c", "=", "&&=&", "%", "a=%", "b=0123456789ab:7",
    "a", ":", "x:" + "9" * 18, "x:" + "9" * 40, "\xff\xfe", "\u00e4", "a=" * 2000, "future", "a=future",
]  # fmt: skip


@pytest.mark.parametrize("cursor", STRANGE)
@pytest.mark.parametrize("backplane", [False, True], ids=["alone", "backplane"])
async def test_a_last_event_id_of_any_form_ends_no_event_source_and_recovers_nothing(
    cursor: str, backplane: bool
) -> None:
    subscriptions: list[Any] = []

    def raw(request: rawws.HttpRequest) -> rawws.EventStream:
        stream = rawws.EventStream(retry=1)
        subscriptions.append(hub.subscribe(stream, "a", since=request.last_event_id))
        return stream

    async with Hub(authorize=allow, backplane=MemoryBackplane() if backplane else None) as hub:
        routes = rawws.Routes([rawws.Route("/raw", raw), rawws.Route("/stream", hub.stream)])
        routes.get("/poll")(hub.poll)
        last = await hub.publish("a", "one")
        field = "Last-Event-ID: " + cursor.replace("future", last.cursor + "0")
        async with serve(routes) as server:
            async with feed(server, "/raw", field):
                await subscriptions[0]
                assert subscriptions[0].recovered is False
            async with feed(server, "/stream?topic=a", field) as one:
                assert (await one.data())["recovered"] is False
                hub.publish("a", "two")
                assert (await one.data())["data"] == "two"
            status, found = await fetch(server, "/poll?topic=a", field)
            assert (status, found["recovered"], found["publications"]) == (200, False, [])


async def test_an_error_of_a_topic_out_of_an_endpoint_has_its_status_and_no_traceback(logged: Logged) -> None:
    hub = Hub(max_size=10, max_topics=1)

    def since(request: rawws.HttpRequest) -> rawws.EventStream:
        stream = rawws.EventStream()
        hub.subscribe(stream, "a", since=request.query["since"])
        return stream

    async def later(request: rawws.HttpRequest) -> rawws.EventStream:
        return since(request)

    async def say(request: rawws.HttpRequest) -> None:
        await hub.publish(request.query["topic"], request.query["text"])

    def two(_: rawws.HttpRequest) -> None:
        stream = rawws.EventStream()
        hub.subscribe(stream, "a")
        hub.subscribe(stream, "b")

    routes = rawws.Routes()
    for path, endpoint in (("/since", since), ("/later", later), ("/say", say), ("/two", two)):
        routes.get(path)(endpoint)
    async with serve(routes) as server:
        for target, expected in (
            ("/since?since=nonsense", 400),
            ("/later?since=44", 400),
            ("/later?since=" + hub.publish("a", "x").cursor + "9", 400),
            ("/say?topic=%00&text=x", 400),
            ("/say?topic=a&text=" + "x" * 11, 413),
            ("/two", 429),
        ):
            [answer] = await ask(server, get(target))
            assert (answer.status, logged.left()) == (expected, []), target
            assert b"(HTTP status" not in answer.body


async def collect(server: rawws.Server, topics: list[str], since: str) -> list[list[str]]:
    """Return the topics of the publications of each answer, up to one that has none."""
    answers: list[list[str]] = []
    while True:
        _, found = await fetch(server, poll_of(topic=topics, since=since, timeout="0"))
        assert found["recovered"]
        if not found["publications"]:
            return answers
        answers.append([each["topic"] for each in found["publications"]])
        since = found["cursor"]


async def test_an_answer_to_a_poll_is_bounded_in_bytes_and_its_cursor_says_where_to_go_on() -> None:
    hub = Hub(authorize=allow)
    topics = [f"t{number}" for number in range(8)]
    for topic in topics:
        hub.publish(topic, "x" * 120_000)
        hub.publish(topic, "small")
    async with served(hub) as server:
        answers = await collect(server, topics, "earliest")
        assert [len(answer) for answer in answers] == [8, 8]
        assert [topic for answer in answers for topic in answer] == [topic for topic in topics for _ in range(2)]


async def test_a_publication_that_is_larger_than_an_answer_is_one_alone() -> None:
    hub = Hub(authorize=allow)
    hub.publish("a", "x" * 600_000)
    hub.publish("a", "small")
    async with served(hub) as server:
        assert await collect(server, ["a"], "earliest") == [["a"], ["a"]]


async def test_a_poll_that_waited_is_answered_with_no_more_either_and_goes_on() -> None:
    hub = Hub(authorize=allow)
    topics = [f"t{number}" for number in range(8)]
    async with served(hub) as server:
        _, first = await fetch(server, poll_of(topic=topics))
        task = asyncio.ensure_future(fetch(server, poll_of(topic=topics, since=first["cursor"])))
        await eventually(lambda: hub.stats().subscribers == 1)
        for topic in topics:
            hub.publish(topic, "x" * 120_000)
        _, found = await task
        assert [each["topic"] for each in found["publications"]] == topics[:4]
        assert await collect(server, topics, found["cursor"]) == [topics[4:]]


# -- mistakes and rights


@pytest.mark.parametrize(
    ("target", "status", "error"),
    [
        ("/poll", 400, "topic"),
        ("/stream", 400, "topic"),
        ("/poll?topic=", 400, "topic"),
        ("/stream?topic=%00", 400, "topic"),
        ("/poll?topic=a&since=nonsense", 400, "cursor"),
        ("/stream?topic=a&since=nonsense", 400, "cursor"),
        ("/poll?topic=a&since=a%3Dnonsense", 400, "cursor"),
        ("/stream?topic=a&since=a%3Db%3Dc", 400, "cursor"),
        ("/poll?topic=a&timeout=x", 400, "malformed"),
        ("/poll?topic=a&timeout=-1", 400, "malformed"),
        ("/poll?topic=secret", 403, "refused"),
        ("/stream?topic=a&topic=secret", 403, "refused"),
    ],
)
@pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])
async def test_a_mistake_has_a_status_and_a_reason(target: str, status: int, error: str, later: bool) -> None:
    def decide(who: Any, action: str, topic: str) -> Any:
        assert isinstance(who, rawws.HttpRequest)
        assert action == "subscribe"

        async def think() -> bool:
            return topic != "secret"

        return think() if later else topic != "secret"

    hub = Hub(authorize=decide)
    async with served(hub) as server:
        found, body = await fetch(server, target)
        assert (found, body.pop("error")) == (status, error)
        assert set(body) == (set() if error == "refused" else {"reason"})
        assert hub.stats().subscribers == 0


async def test_a_lost_place_is_declared_and_answered_at_once() -> None:
    hub = Hub(authorize=allow)
    async with served(hub) as server:
        _, found = await fetch(server, poll_of(topic="a", since="0123456789ab:7"))
        assert found["recovered"] is False
        async with feed(server, "/stream?topic=a&since=0123456789ab:7") as one:
            assert await one.data() == {"topic": "a", "cursor": found["cursor"].removeprefix("a="), "recovered": False}


@pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])
async def test_a_post_publishes_lists_who_is_present_or_says_what_is_wrong(later: bool) -> None:
    async def think(verdict: bool) -> bool:
        return verdict

    hub = Hub(max_size=100, authorize=lambda _, action, topic: think(topic != "no") if later else topic != "no")
    async with served(hub) as server:
        status, body = await post(server, '{"id": 5, "publish": "a", "data": "x"}')
        assert (status, body) == (200, {"id": 5, "cursor": body["cursor"]})
        assert hub.stats().published == 1
        assert await post(server, '{"presence": "a"}') == (200, {"members": [], "count": 0})
        for text, expected, error in (
            (b"\xff", 400, "malformed"),
            ('{"subscribe": "a"}', 400, "malformed"),
            ('{"publish": "", "data": ""}', 400, "topic"),
            ('{"publish": "no", "data": ""}', 403, "refused"),
            (json.dumps({"publish": "a", "data": "x" * 101}), 413, "size"),
        ):
            status, body = await post(server, text)
            assert (status, body["error"]) == (expected, error)


async def test_without_authorize_a_request_fails_and_the_log_says_why(logged: Logged) -> None:
    async with served(Hub()) as server:
        [answer] = await ask(server, get(poll_of(topic="a"), "Connection: close"))
        assert answer.status == 500
    logged.take("request failed", rawws.LocalProtocolError)


# -- one cursor for all


async def test_a_client_may_change_its_transport_between_two_messages_and_loses_nothing() -> None:
    hub = Hub(authorize=allow, history=History(count=1000))
    chance = random.Random(6)
    got: list[str] = []
    stop = False

    async def publish() -> None:
        number = 0
        while not stop:
            for _ in range(chance.randrange(4)):
                hub.publish("a", str(number))
                number += 1
            await asyncio.sleep(chance.random() / 200)

    async with served(hub) as server:
        _, first = await fetch(server, poll_of(topic="a"))
        cursor = first["cursor"]
        publishing = asyncio.create_task(publish())
        for _ in range(60):
            way = chance.choice(["websocket", "stream", "poll", "short"])
            take = chance.randrange(3)
            if way == "websocket":
                async with client(server) as one:
                    assert (await one.ask(id=1, subscribe="a", since=cursor))["recovered"]
                    for _ in range(take):
                        heard = await one.hear()
                        got.append(heard["data"])
                        cursor = heard["cursor"]
            elif way == "stream":
                async with feed(server, f"/stream?topic=a&since={cursor}" if take else "/stream?topic=a",
                                *([] if take else [f"Last-Event-ID: {cursor}"])) as two:  # fmt: skip
                    assert (await two.data())["recovered"]
                    for _ in range(take):
                        event = await two.next()
                        got.append(json.loads(event.data or "")["data"])
                        cursor = event.id or ""
            else:
                more = {"timeout": 0} if way == "short" else {}
                _, body = await fetch(server, poll_of(topic="a", since=cursor, **more))
                assert body["recovered"]
                got += [each["data"] for each in body["publications"]]
                cursor = body["cursor"]
        stop = True
        await publishing
        _, body = await fetch(server, poll_of(topic="a", since=cursor, timeout=0))
        got += [each["data"] for each in body["publications"]]
    assert got == [*map(str, range(len(got)))]
    assert len(got) == hub.stats().published > 50


@pytest.mark.parametrize("backplane", [False, True], ids=["alone", "backplane"])
async def test_a_hub_that_is_closed_closes_with_1000_and_ends_its_streams(backplane: bool) -> None:
    hub = Hub(authorize=allow, backplane=MemoryBackplane() if backplane else None)
    async with served(hub) as server, client(server) as one, feed(server, "/stream?topic=a") as stream:
        await one.ask(id=1, subscribe="a")
        await stream.data()
        await hub.close()
        assert await one.peer.finish() == (1000, "")
        data = b""
        while not data.endswith(b"0\r\n\r\n"):
            more = await stream.peer.read()
            assert more
            data += more
        await eventually(lambda: not hub.stats().subscribers)


def table_of(hub: Hub, streams: list[rawws.EventStream]) -> rawws.Routes:
    """Return a route to streams that the application subscribes itself, to the topics that are asked for."""

    def listen(asked: rawws.HttpRequest) -> rawws.EventStream:
        stream = rawws.EventStream()
        streams.append(stream)
        for topic in asked.query.get_all("topic"):
            hub.subscribe(stream, topic)
        return stream

    return on("/", listen)


async def test_an_event_has_the_id_of_its_own_stream_however_many_topics_another_one_has() -> None:
    hub, streams = Hub(), list[rawws.EventStream]()
    async with serve(table_of(hub, streams)) as server:
        async with feed(server, "/?topic=a") as one, feed(server, "/?topic=b&topic=a") as two:
            for each in (one, two):
                while not each.decoder.last_event_id:
                    await each.read()
            begun = two.decoder.last_event_id
            cursor = hub.publish("a", "x").cursor
            assert [(each.id, each.data) for each in (await one.next(), await two.next())] == [
                (f"a={cursor}", "x"),
                (begun.rpartition("a=")[0] + f"a={cursor}", "x"),
            ]
            # What is equal again is made once again, and what ended is in no id.
            hub.unsubscribe(streams[0], "b")
            hub.unsubscribe(streams[1], "b")
            cursor = hub.publish("a", "y").cursor
            assert [(await each.next()).id for each in (one, two)] == [f"a={cursor}"] * 2


async def test_a_stream_is_told_where_it_is_only_where_nothing_else_tells_it() -> None:
    hub, streams = Hub(), list[rawws.EventStream]()
    async with served_by(table_of(hub, streams)) as (_, peer):
        await peer.write(get("/?topic=a"))
        data = b""
        while b"id: a=" not in data:
            data += await peer.read()
        hub.subscribe(streams[0], "b")
        hub.publish("b", "first")
        await asyncio.sleep(0)
        hub.publish("a", "second")
        hub.subscribe(streams[0], "c")
        while b"&c=" not in data:
            data += await peer.read()
        # When it began, with both publications, and when there was one more topic.
        assert data.count(b"id: ") == 4


@pytest.mark.parametrize(("said", "seconds"), [("", 25), ("0", 0), ("7", 7), ("25", 25), ("26", 25), ("9999", 25)])
def test_a_poll_is_held_for_as_long_as_its_client_says_and_no_longer_than_proxies_bear(said: str, seconds: int) -> None:
    head = rawws.Request("GET", f"/poll?topic=a&timeout={said}", Headers())
    assert rawws_v1_http.seconds_of(rawws.HttpRequest(head, {}, None, "http")) == seconds
