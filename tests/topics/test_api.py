"""The HTTP API of a hub: who has a key publishes and looks, on our server and mounted in others; nobody else does."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import patch

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

import rawws
from rawws.backplanes.memory import Engine, MemoryBackplane
from rawws.topics import History, Hub, endpoints
from rawws.topics.http_api import METHODS, HubApi
from tests.server.answers import ask, get
from tests.server.peers import eventually, serve
from tests.topics.asgi import SERVERS, in_asgi
from tests.topics.receivers import Receiver

KEY = "0123456789abcdef"
OTHER = "abcdef-0123456789._~+/=="
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(params=("routes", *SERVERS))
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextlib.asynccontextmanager
async def api(
    hub: Hub, server: str = "routes", headers: dict[str, str] = AUTHORIZED, **options: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the API of a hub at /api/: a client of it."""
    async with contextlib.AsyncExitStack() as stack:
        if server == "routes":
            routes = rawws.Routes(endpoints.api_routes(hub, "/api/", keys=[OTHER, KEY]))
            running = await stack.enter_async_context(serve(routes, **options))
            address = f"127.0.0.1:{running.sockets[0].getsockname()[1]}"
        else:
            mounted = Mount("/api", endpoints.api_application(hub, keys=[OTHER, KEY]))
            address = await stack.enter_async_context(in_asgi(server, Starlette(routes=[mounted]), **options))
        base = f"http://{address}/api/"
        yield await stack.enter_async_context(httpx.AsyncClient(base_url=base, headers=headers, timeout=30))


def error(answer: httpx.Response) -> tuple[int, str, str]:
    """Return what is wrong, as a program is told."""
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in answer.headers
    found = answer.json()
    assert set(found) == {"error", "reason"}
    return answer.status_code, found["error"], found["reason"]


# -- what it does


async def test_it_publishes_to_one_topic_and_to_many(server: str) -> None:
    hub, receiver = Hub(), Receiver()
    for topic in ("a/b", "c d"):
        hub.subscribe(receiver, topic)
    async with api(hub, server) as client:
        answer = await client.post("publish", json={"topic": "a/b", "data": "Grüße"})
        assert (answer.status_code, list(answer.json())) == (200, ["cursor"])
        assert hub.recall("a/b", since="earliest")[1][0].cursor == answer.json()["cursor"]
        await client.post("publish", json={"topic": "c d", "base64": "AP8=", "key": "k"})
        assert receiver.got == ["Grüße", b"\x00\xff"]
        assert hub.recall("c d", since="earliest")[1][0].key == "k"
        answer = await client.post("broadcast", json={"topics": ["a/b", "c d"], "data": "all"})
        assert [each["topic"] for each in answer.json()["results"]] == ["a/b", "c d"]
        assert all(each["cursor"].endswith(":2") for each in answer.json()["results"])
        assert receiver.got[2:] == ["all", "all"]


async def test_what_is_no_text_is_published_as_json(server: str) -> None:
    hub, receiver = Hub(), Receiver()
    hub.subscribe(receiver, "a")
    async with api(hub, server) as client:
        data: Any
        for data in ({"price": 1.5, "é": [None, True]}, [], 7, "7", None):
            assert (await client.post("publish", json={"topic": "a", "data": data})).status_code == 200
    assert receiver.got == ['{"price":1.5,"é":[null,true]}', "[]", "7", "7", "null"]
    assert [each.is_json for each in hub.recall("a", since="earliest")[1]] == [True, True, True, False, True]


async def test_a_text_that_is_json_and_an_event_are_published_as_they_are(server: str) -> None:
    hub = Hub()
    async with api(hub, server) as client:
        first = await client.post("publish", json={"topic": "a", "data": '"x"', "json": True, "event": "e"})
        second = await client.post("broadcast", json={"topics": ["a"], "data": {"x": 1}, "event": "f"})
        assert (first.status_code, second.status_code) == (200, 200)
        found = (await client.get("history?topic=a")).json()["publications"]
    assert [{**each, "cursor": ""} for each in found] == [
        {"topic": "a", "cursor": "", "data": '"x"', "json": True, "event": "e"},
        {"topic": "a", "cursor": "", "data": '{"x":1}', "json": True, "event": "f"},
    ]


async def test_it_lists_history_presence_and_counts_subscribers(server: str) -> None:
    hub, receiver = Hub(), Receiver()
    hub.subscribe(receiver, "a&b", join={"name": "Ann"})
    hub.subscribe(Receiver(), "a&b")
    for number in range(5):
        hub.publish("a&b", str(number))
    async with api(hub, server) as client:

        async def history(**query: Any) -> tuple[list[str], str, bool]:
            found = (await client.get("history", params={"topic": "a&b", **query})).json()
            assert all(each["topic"] == "a&b" for each in found["publications"])
            return [each["data"] for each in found["publications"]], found["cursor"], found["recovered"]

        everything, last, _ = await history()
        assert everything == ["0", "1", "2", "3", "4"]
        # The last ones, without a cursor; the first ones behind one, and on from there.
        assert await history(limit=2) == (["3", "4"], last, True)
        assert await history(limit=0) == ([], last, True)
        some, cursor, _ = await history(since="earliest", limit=3)
        assert some == ["0", "1", "2"]
        assert await history(since=cursor, limit=3) == (["3", "4"], last, True)
        assert await history(since=cursor, limit=0) == ([], cursor, True)
        assert await history(since=last) == ([], last, True)
        assert await history(since="ffff:1") == ([], last, False)
        present = (await client.get("presence", params={"topic": "a&b"})).json()
        assert (present["count"], present["members"][0]["info"]) == (1, {"name": "Ann"})
        assert (await client.get("subscribers", params={"topic": "a&b"})).json() == {"count": 2}
        assert (await client.get("subscribers", params={"topic": "nobody"})).json() == {"count": 0}
        assert (await client.head("subscribers", params={"topic": "nobody"})).content == b""
    assert hub.subscribers("nobody") == 0


async def test_it_streams_publications_and_goes_on_where_it_was(server: str) -> None:
    hub = Hub()
    async with api(hub, server) as client:
        url = f"{client.base_url}?topic=a"
        async with rawws.events(url, additional_headers=AUTHORIZED) as feed:
            assert json.loads((await anext(feed)).data or "")["recovered"]
            hub.publish("a", "one")
            assert json.loads((await anext(feed)).data or "")["data"] == "one"
        hub.publish("a", "two")
        async with rawws.events(url, additional_headers=AUTHORIZED, last_event_id=feed.last_event_id) as back:
            assert json.loads((await anext(back)).data or "")["recovered"]
            assert json.loads((await anext(back)).data or "")["data"] == "two"
        assert error(await client.get(""))[:2] == (400, "topic")
        assert error(await client.get("", params={"topic": "a\n"}))[:2] == (400, "topic")
    await eventually(lambda: hub.stats().subscribers == 0)


async def test_with_a_backplane_it_answers_when_the_place_is_known() -> None:
    engine = Engine()
    async with Hub(backplane=MemoryBackplane(engine)) as hub, Hub(backplane=MemoryBackplane(engine)) as other:
        receiver = Receiver()
        await other.subscribe(receiver, "b", join="Ann")
        async with api(hub) as client:
            first = (await client.post("publish", json={"topic": "a", "data": "1"})).json()
            assert first["cursor"].endswith(":1")
            answer = (await client.post("broadcast", json={"topics": ["a", "b"], "data": "2"})).json()
            assert [each["cursor"][-2:] for each in answer["results"]] == [":2", ":1"]
            await eventually(lambda: receiver.got == ["2"])
            found = (await client.get("history", params={"topic": "a", "since": first["cursor"]})).json()
            assert [each["data"] for each in found["publications"]] == ["2"]
            assert (await client.get("presence", params={"topic": "b"})).json()["count"] == 1
            assert (await client.get("subscribers", params={"topic": "b"})).json()["count"] == 0
            assert error(await client.get("history", params={"topic": "a", "since": "x"}))[:2] == (400, "cursor")


async def test_an_answer_is_bounded_in_bytes_and_its_cursor_says_where_to_go_on() -> None:
    hub = Hub(history=History(count=10, size=64 << 20))
    for number in range(4):
        hub.publish("a", str(number) + 200_000 * "x")
    async with api(hub) as client:
        found = (await client.get("history", params={"topic": "a"})).json()
        assert [each["data"][0] for each in found["publications"]] == ["2", "3"]
        found = (await client.get("history", params={"topic": "a", "since": "earliest"})).json()
        assert [each["data"][0] for each in found["publications"]] == ["0", "1"]
        found = (await client.get("history", params={"topic": "a", "since": found["cursor"]})).json()
        assert [each["data"][0] for each in found["publications"]] == ["2", "3"]
        hub.publish("large", 900_000 * "x")
        assert len((await client.get("history", params={"topic": "large"})).json()["publications"]) == 1


# -- who may


@pytest.mark.parametrize(
    "given",
    ["", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", "Bearer", f"Basic {KEY}", KEY, f"Bearer {KEY} {KEY}", "Bearer \xe9"],
)
async def test_without_a_good_key_nothing_is_done_and_nothing_is_told(server: str, given: str) -> None:
    hub, receiver = Hub(authorize=lambda *_: True), Receiver()
    hub.subscribe(receiver, "a", join="Ann")
    headers = [(b"Authorization", given.encode("latin-1"))] if given else []
    async with api(hub, server, {}) as client:
        answers = [
            await client.post("publish", json={"topic": "a", "data": "x"}, headers=headers),
            await client.post("broadcast", content=b"{", headers=headers),
            *[await client.get(name, params={"topic": "a"}, headers=headers) for name in ("", "history", "presence")],
            await client.get("subscribers", params={"topic": "a"}, headers=headers),
        ]
        for answer in answers:
            assert error(answer) == (401, "unauthorized", "needed is Authorization: Bearer, and a key")
            assert answer.headers["www-authenticate"] == "Bearer"
    assert receiver.got == []


async def test_each_of_several_keys_is_good_and_all_are_compared_in_full() -> None:
    async with api(Hub(), headers={}) as client:
        for key, status in ((KEY, 200), (OTHER, 200), ("x" * 5000, 401), ("x", 401)):
            with patch("rawws.http.keys.hmac.compare_digest", wraps=hmac.compare_digest) as looked:
                headers = {"Authorization": f"bearer  {key}"}
                answer = await client.get("subscribers", params={"topic": "a"}, headers=headers)
            assert answer.status_code == status
            # Each against a digest, so no length shows; once before the body comes, and once more with it.
            times = 2 if status == 200 else 1
            assert [[len(each) for each in call.args] for call in looked.call_args_list] == [[32, 32], [32, 32]] * times


async def test_no_endpoint_is_had_without_the_check_of_the_key() -> None:
    found = HubApi(Hub(), [KEY]).endpoints
    # A table that asks for nothing before.
    routes = rawws.Routes([rawws.Route(f"/{name}", each, [METHODS[name]]) for name, each in found.items()])
    async with serve(routes) as running:
        for name in found:
            [answer] = await ask(running, get(f"/{name}", method=METHODS[name]), [METHODS[name]])
            assert answer.status == 401


async def test_two_authorizations_are_none() -> None:
    async with api(Hub(), headers={}) as client:
        headers = [("Authorization", f"Bearer {KEY}"), ("Authorization", "Bearer x")]
        assert (await client.get("subscribers", params={"topic": "a"}, headers=headers)).status_code == 401


async def test_who_has_no_key_is_refused_before_the_body_comes() -> None:
    routes = rawws.Routes(endpoints.api_routes(Hub(), "/api", keys=[KEY]))
    async with serve(routes) as running:
        for path in ("publish", "broadcast"):
            half = get(f"/api/{path}", "Content-Length: 1000", method="POST")
            assert [answer.status for answer in await ask(running, half, ["POST"])] == [401]


async def test_pages_are_refused_whatever_origins_says(server: str) -> None:
    hub = Hub()
    options: dict[str, Any] = {} if server.startswith("uvicorn") else {"origins": "*"}
    async with api(hub, server, **options) as client:
        answer = await client.post("publish", json={"topic": "a", "data": "x"}, headers={"Origin": "https://a.example"})
        assert (answer.status_code, answer.json()["error"]) == (403, "refused")
    assert hub.stats().published == 0


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ([], "keys is empty, needed is at least one"),
        ([KEY, ""], "a key has 0 characters, needed are 16, at random"),
        (["fifteen letters"], "a key has 15 characters, needed are 16, at random"),
        (["sixteen letters!"], "a key has characters that no token has"),
        (["=" + KEY], "a key has characters that no token has"),
    ],
)
def test_without_a_key_or_with_a_bad_one_there_is_no_api(keys: list[str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        endpoints.api_routes(Hub(), "/api", keys=keys)
    with pytest.raises(ValueError, match=reason):
        endpoints.api_application(Hub(), keys=keys)


def test_one_key_is_no_list_of_them() -> None:
    with pytest.raises(TypeError, match="keys is str, allowed is a list of them"):
        endpoints.api_routes(Hub(), "/api", keys=KEY)
    with pytest.raises(TypeError, match="a key is bytes, allowed is str"):
        endpoints.api_routes(Hub(), "/api", keys=[KEY.encode()])  # type: ignore[list-item]


# -- what is wrong


@pytest.mark.parametrize(
    ("body", "status", "code", "reason"),
    [
        (b"{", 400, "malformed", "the body is not JSON"),
        (b"", 400, "malformed", "the body is not JSON"),
        (b"\xff", 400, "malformed", "the body is not UTF-8"),
        (b"[" * 50_000, 400, "malformed", "the body is not JSON"),
        (b"[]", 400, "malformed", "the body is list, allowed is an object"),
        (b"{}", 400, "malformed", "the body has no topic"),
        (b'{"topic":"a","topic":"b","data":""}', 400, "malformed", "a name stands twice in an object"),
        (b'{"topic":"a","data":"","x":1}', 400, "malformed", "the body has 'x', allowed are topic"),
        (b'{"topic":"a"}', 400, "malformed", "publish has data and base64 or neither, needed is one"),
        (b'{"topic":"a","data":"","base64":""}', 400, "malformed", "data and base64 or neither"),
        (b'{"topic":"a","base64":1}', 400, "malformed", "base64 is int, allowed is str"),
        (b'{"topic":"a","base64":"?"}', 400, "malformed", "base64 is none"),
        (b'{"topic":"a","data":NaN}', 400, "malformed", "NaN is no number"),
        (b'{"topic":"a","data":1e999}', 400, "malformed", "data is no JSON"),
        (b'{"topic":"a","data":"\\ud800"}', 400, "malformed", "data has a lone surrogate"),
        (b'{"topic":"a","data":["\\ud800"]}', 400, "malformed", "data has a lone surrogate"),
        (b'{"topic":"a","data":"{","json":true}', 400, "malformed", "data is not JSON"),
        (b'{"topic":"a","base64":"","json":true}', 400, "malformed", "json is beside base64"),
        (b'{"topic":"a","data":"","json":1}', 400, "malformed", "json is int, allowed is bool"),
        (b'{"topic":"a","data":"","event":1}', 400, "event", "the event is int, allowed are str and None"),
        (b'{"topic":"a","data":[],"event":""}', 400, "event", "the event is ''"),
        (b'{"topic":"","data":""}', 400, "topic", "the topic is ''"),
        (b'{"topic":1,"data":""}', 400, "topic", "the topic is int, allowed is str"),
        (b'{"topic":"a","data":"","key":1}', 400, "key", "the key is int"),
        (b'{"topic":"a","data":"%s"}' % (101 * b"x"), 413, "size", "the message has 101 bytes, limit 100"),
    ],
)
async def test_a_body_that_says_nothing_good_is_refused_with_a_reason(
    body: bytes, status: int, code: str, reason: str
) -> None:
    hub = Hub(max_size=100)
    async with api(hub) as client:
        found = error(await client.post("publish", content=body))
        assert found[:2] == (status, code)
        assert reason in found[2]
    assert hub.stats().published == 0


@pytest.mark.parametrize(
    ("topics", "status", "code", "reason"),
    [
        ("a", 400, "malformed", "topics is str, allowed is a list"),
        ([], 400, "topic", "no topic is named, needed is at least one"),
        (["a", "b", "a"], 400, "topic", "a topic is named twice, allowed is once"),
        (["a", ""], 400, "topic", "the topic is ''"),
        (["a", ["b"]], 400, "topic", "the topic is list, allowed is str"),
        ([str(number) for number in range(101)], 429, "limit", "the request has 101 topics, limit 100"),
    ],
)
async def test_a_broadcast_is_done_whole_or_not_at_all(topics: Any, status: int, code: str, reason: str) -> None:
    hub = Hub()
    async with api(hub) as client:
        found = error(await client.post("broadcast", json={"topics": topics, "data": "x"}))
        assert found[:2] == (status, code)
        assert reason in found[2]
        assert hub.stats().published == 0
        answer = await client.post("broadcast", json={"topics": [str(number) for number in range(100)], "data": "x"})
        assert len(answer.json()["results"]) == 100


@pytest.mark.parametrize(
    ("query", "code", "reason"),
    [
        ("", "topic", "the request names 0 topics, needed is ?topic= once"),
        ("topic=a&topic=b", "topic", "the request names 2 topics, needed is ?topic= once"),
        ("topic=", "topic", "the topic is ''"),
        ("topic=a&limit=-1", "malformed", "limit is '-1', allowed are 0 to 1000"),
        ("topic=a&limit=1001", "malformed", "limit is '1001', allowed are 0 to 1000"),
        ("topic=a&limit=%C2%B2", "malformed", "limit is '²', allowed are 0 to 1000"),
        ("topic=a&since=x", "cursor", "the cursor is 'x'"),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused_with_a_reason(query: str, code: str, reason: str) -> None:
    async with api(Hub()) as client:
        found = error(await client.get(f"history?{query}"))
        assert found[:2] == (400, code)
        assert reason in found[2]


async def test_in_asgi_what_there_is_is_named(server: str) -> None:
    if server == "routes":
        return
    async with api(Hub(), server) as client:
        assert error(await client.get("nothing"))[:2] == (404, "path")
        answer = await client.get("publish")
        assert error(answer) == (405, "method", "the method is GET, allowed is POST")
        assert answer.headers["allow"] == "POST"
        assert (await client.post("history")).status_code == 405
        # Over what a message may have, and before it is read whole.
        assert (await client.post("publish", content=(3 << 20) * b"x")).status_code == 413
        with pytest.raises(InvalidStatus, match="403"):
            await connect(str(client.base_url).replace("http", "ws") + "publish")


async def test_another_scope_is_refused() -> None:
    with pytest.raises(ValueError, match="'lifespan', allowed are http and websocket"):
        await endpoints.api_application(Hub(), keys=[KEY])({"type": "lifespan"}, asyncio.sleep, asyncio.sleep)  # type: ignore[arg-type]
