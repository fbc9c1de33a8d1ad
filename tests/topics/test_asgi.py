"""The hub in ASGI: mounted, and with WebSockets of frameworks as subscribers, on three servers."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

import rawws
from rawws.backplanes.memory import MemoryBackplane
from rawws.net.prepared import FORM_COST
from rawws.topics import AsgiSocket, Hub, endpoints, scope_of
from tests.server.peers import Logged, eventually
from tests.topics.asgi import SERVERS, in_asgi
from tests.topics.dialogue import allow

V1 = [Subprotocol("rawws.v1")]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def pass_on(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    return await call_next(request)


@contextlib.asynccontextmanager
async def mounted(server: str, hub: Hub, *routes: Any, **options: Any) -> AsyncIterator[str]:
    """A Starlette with the hub at /topics: its HOST:PORT."""
    # The second one is between the hub and the server, with tasks and streams of its own.
    middleware = [
        Middleware(SessionMiddleware, secret_key="secret"),
        Middleware(BaseHTTPMiddleware, dispatch=pass_on),
    ]
    app = Starlette(routes=[Mount("/topics", hub.asgi(**options)), *routes], middleware=middleware)
    async with in_asgi(server, app, **options) as address:
        yield address


async def ask(ws: ClientConnection, **fields: Any) -> Any:
    await ws.send(json.dumps(fields))
    return json.loads(await ws.recv())


async def hear(ws: ClientConnection) -> Any:
    return json.loads(await ws.recv())


async def closed(ws: ClientConnection) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as caught:
        while True:
            await ws.recv()
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


# -- mounted


async def test_all_transports_reach_one_hub(server: str) -> None:
    hub = Hub(authorize=allow)
    async with mounted(server, hub) as address, httpx.AsyncClient(base_url=f"http://{address}/topics/") as client:
        async with connect(f"ws://{address}/topics/", subprotocols=V1) as ws:
            assert ws.subprotocol == "rawws.v1"
            answer = await ask(ws, id=1, subscribe="a", join={"name": "Ann"}, watch=True)
            assert [member["info"] for member in answer["members"]] == [{"name": "Ann"}]
            async with client.stream("GET", "", params={"topic": "a"}, headers={"Accept": "text/event-stream"}) as feed:
                assert feed.headers["content-type"] == "text/event-stream"
                assert feed.headers["cache-control"] == "no-store"
                lines = feed.aiter_lines()
                assert json.loads((await anext(lines)).removeprefix("data: "))["recovered"]
                first = (await client.get("", params={"topic": "a"})).json()
                assert first["publications"] == []
                poll = asyncio.create_task(client.get("", params={"topic": "a", "since": first["cursor"]}))
                await eventually(lambda: hub.stats().subscribers == 3)
                posted = (await client.post("", json={"publish": "a", "data": "Grüße", "id": 4})).json()
                assert set(posted) == {"id", "cursor"}
                assert (await hear(ws))["data"] == "Grüße"
                assert (await poll).json()["publications"][0]["data"] == "Grüße"
                while "data: " not in (line := await anext(lines)):
                    pass
                assert json.loads(line.removeprefix("data: "))["cursor"] == posted["cursor"]
            # And back by another transport, with the cursor.
            await eventually(lambda: hub.stats().subscribers == 1)
            await ws.send(json.dumps({"publish": "a", "data": "missed"}))
            assert (await hear(ws))["data"] == "missed"
            again = (await client.get("", params={"topic": "a", "since": posted["cursor"]})).json()
            assert [each["data"] for each in again["publications"]] == ["missed"]
        await eventually(lambda: hub.stats().subscribers == 0)
    assert hub.stats().present == 0


async def test_authorize_reads_headers_cookies_and_query_of_any_client(server: str) -> None:
    found = []

    def authorize(client: Any, _action: str, _topic: str) -> bool:
        found.append((client.headers["X-Who"], client.cookies["a"], client.query["key"]))
        return True

    fields = {"X-Who": "ada", "Cookie": "a=b"}
    async with mounted(server, Hub(authorize=authorize)) as address, httpx.AsyncClient(headers=fields) as client:
        async with connect(f"ws://{address}/topics/?key=c", subprotocols=V1, additional_headers=fields) as ws:
            await ask(ws, id=1, subscribe="x")
        await client.get(f"http://{address}/topics/", params={"topic": "x", "key": "c"})
    assert found == 2 * [("ada", "b", "c")]


async def test_rawws_js_is_below_it(server: str) -> None:
    async with mounted(server, Hub()) as address, httpx.AsyncClient() as client:
        answer = await client.get(f"http://{address}/topics/rawws.js")
        assert (answer.status_code, answer.headers["content-encoding"]) == (200, "gzip")
        plain = await client.get(f"http://{address}/topics/rawws.js", headers={"Accept-Encoding": "identity"})
        assert plain.content == answer.content == gzip.decompress(gzip.compress(plain.content))
        assert plain.headers["content-length"] == str(len(plain.content))
        head = await client.head(f"http://{address}/topics/rawws.js", headers={"Accept-Encoding": "identity"})
        assert (head.content, head.headers["content-length"]) == (b"", plain.headers["content-length"])
        known = {"If-None-Match": answer.headers["etag"]}
        assert (await client.get(f"http://{address}/topics/rawws.js", headers=known)).status_code == 304


async def test_what_is_wrong_has_its_status(server: str) -> None:
    hub = Hub(authorize=lambda client, action, topic: topic != "secret", max_size=100)
    async with mounted(server, hub) as address, httpx.AsyncClient(base_url=f"http://{address}/topics/") as client:
        assert (await client.get("", params={"topic": "secret"})).status_code == 403
        assert (await client.get("")).status_code == 400
        assert (await client.post("", content=b"{")).status_code == 400
        assert (await client.post("", json={"publish": "a", "data": "x" * 101})).status_code == 413
        assert (await client.post("", content=b"x" * 100_000)).status_code == 413
        answer = await client.put("")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS, POST")
        assert (await client.options("")).status_code == 204
        assert (await client.head("", params={"topic": "a"})).content == b""
        async with client.stream("HEAD", "", params={"topic": "a"}, headers={"Accept": "text/event-stream"}) as head:
            assert [piece async for piece in head.aiter_bytes()] == []
    assert hub.stats().subscribers == 0


async def test_pages_of_other_sites_are_refused_unless_they_are_named(server: str) -> None:
    hub = Hub(authorize=allow)
    evil, good = Origin("https://evil.example"), Origin("https://good.example")
    async with mounted(server, hub, origins=[good]) as address, httpx.AsyncClient() as client:
        with pytest.raises(InvalidStatus, match="403"):
            await connect(f"ws://{address}/topics/", subprotocols=V1, origin=evil)
        async with connect(f"ws://{address}/topics/", subprotocols=V1, origin=good) as ws:
            assert "cursor" in await ask(ws, id=1, subscribe="a")
        url = f"http://{address}/topics/"
        body = {"publish": "a", "data": "b"}
        assert (await client.post(url, json=body, headers={"Origin": evil})).status_code == 403
        answer = await client.post(url, json=body, headers={"Origin": good})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, good)
        own = await client.post(url, json=body, headers={"Origin": f"http://{address}"})
        assert (own.status_code, "access-control-allow-origin" in own.headers) == (200, False)
        asked = {"Origin": good, "Access-Control-Request-Method": "POST"}
        assert "POST" in (await client.options(url, headers=asked)).headers["access-control-allow-methods"]


async def test_who_speaks_no_rawws_v1_and_who_says_too_much_is_closed(server: str) -> None:
    hub = Hub(authorize=allow, max_size=1000)
    async with mounted(server, hub) as address:
        async with connect(f"ws://{address}/topics/") as ws:
            assert await closed(ws) == (1008, "the subprotocol must be rawws.v1")
        async with connect(f"ws://{address}/topics/", subprotocols=V1) as ws:
            assert (await ask(ws, id=1, publish="a", data="x" * 1001))["error"] == "size"
            if server == "uvicorn":
                # Bytes, and not letters.
                await ws.send("é" * 6000)
                assert await closed(ws) == (1009, "message is over 10192 bytes, the limit")


async def test_authorize_sees_the_session_on_every_transport(server: str) -> None:
    seen: list[Any] = []

    def authorize(client: Any, action: str, topic: str) -> bool:
        seen.append((scope_of(client)["session"].get("user"), endpoints.token_of(client)))
        return bool(seen[-1][0])

    async def log_in(request: Request) -> PlainTextResponse:
        request.session["user"] = "ada"
        return PlainTextResponse("")

    hub = Hub(authorize=authorize)
    async with mounted(server, hub, Route("/login", log_in)) as address, httpx.AsyncClient() as client:
        url = f"{address}/topics/?token=x"
        assert (await client.post(f"http://{url}", json={"publish": "a", "data": ""})).status_code == 403
        async with connect(f"ws://{url}", subprotocols=V1) as ws:
            assert await ask(ws, id=1, subscribe="a") == {"id": 1, "error": "refused"}
        await client.get(f"http://{address}/login")
        assert (await client.post(f"http://{url}", json={"publish": "a", "data": ""})).status_code == 200
        cookie = {"Cookie": f"session={client.cookies['session']}"}
        async with connect(f"ws://{url}", subprotocols=V1, additional_headers=cookie) as ws:
            assert "cursor" in await ask(ws, id=1, subscribe="a")
    assert seen == [(None, "x"), (None, "x"), ("ada", "x"), ("ada", "x")]


def test_on_a_server_of_ours_there_is_no_scope() -> None:
    head = rawws.Request("GET", "/", rawws.Headers())
    assert scope_of(rawws.HttpRequest(head, {}, None, "http")) == {}


async def test_alone_it_ends_with_its_server(server: str) -> None:
    backplane = MemoryBackplane()
    hub = Hub(authorize=allow, backplane=backplane)
    async with in_asgi(server, hub.asgi()) as address:
        async with connect(f"ws://{address}/", subprotocols=V1) as ws:
            assert "cursor" in await ask(ws, id=1, subscribe="a")
        assert backplane.engine.backplanes == [backplane]
    assert backplane.engine.backplanes == []
    with pytest.raises(ValueError, match="the scope is of type 'x', allowed are"):
        await hub.asgi()({"type": "x"}, None, None)  # type: ignore[arg-type]


async def test_an_authorize_that_fails_ends_its_connection_only(server: str, logged: Logged) -> None:
    def authorize(client: Any, action: str, topic: str) -> bool:
        if topic == "fails":
            raise ZeroDivisionError
        return True

    hub = Hub(authorize=authorize)
    async with mounted(server, hub) as address, httpx.AsyncClient() as client:
        async with connect(f"ws://{address}/topics/", subprotocols=V1) as other:
            assert "cursor" in await ask(other, id=1, subscribe="a")
            async with connect(f"ws://{address}/topics/", subprotocols=V1) as ws:
                await ws.send('{"subscribe": "fails"}')
                assert (await closed(ws))[0] == 1011
            assert (await client.get(f"http://{address}/topics/?topic=fails")).status_code == 500
            hub.publish("a", "b")
            assert (await hear(other))["data"] == "b"
    logged.take_all("Exception in ASGI application", 1)
    logged.take_all("request failed: /topics/", 1)
    logged.forget()


async def test_a_client_that_vanishes_leaves_the_hub_and_no_word_in_the_log(server: str) -> None:
    hub = Hub(authorize=allow)
    async with mounted(server, hub) as address:
        ws = await connect(f"ws://{address}/topics/", subprotocols=V1)
        assert "cursor" in await ask(ws, id=1, subscribe="a", join=1)
        ws.transport.abort()
        await ws.wait_closed()
        hub.publish("a", "to nobody")
        await eventually(lambda: hub.stats().subscribers == hub.stats().present == 0)


# -- WebSockets of frameworks


def subscribing(hub: Hub, kind: str, **options: Any) -> Any:
    """Return an application whose WebSocket is subscribed to "t" and echoes."""

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        hub.subscribe(websocket, "t", **options)
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                text = await websocket.receive_text()
                if text == "leave":
                    hub.unsubscribe(websocket, "t")
                else:
                    await websocket.send_text(text)

    async def plain(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await receive()
        await send({"type": "websocket.accept"})
        hub.subscribe((scope, receive, send), "t", **options)
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": event["text"]})

    return plain if kind == "plain" else Starlette(routes=[WebSocketRoute("/", endpoint)])


@pytest.mark.parametrize("kind", ["plain", "starlette"])
async def test_a_websocket_of_a_framework_is_a_subscriber_up_to_its_end(server: str, kind: str) -> None:
    hub = Hub()
    hub.publish("t", "before")
    async with in_asgi(server, subscribing(hub, kind, since="earliest", join="me")) as address:
        async with connect(f"ws://{address}/") as first, connect(f"ws://{address}/") as second:
            for ws in (first, second):
                assert await ws.recv() == "before"
                await ws.send("hello")
                assert await ws.recv() == "hello"
            assert (hub.stats().subscribers, len(hub.presence("t"))) == (2, 2)
            assert hub.publish("t", b"\x00").delivered == 2
            assert [await first.recv(), await second.recv()] == [b"\x00", b"\x00"]
            if kind == "starlette":
                await first.send("leave")
                await eventually(lambda: hub.stats().subscribers == 1)
        await eventually(lambda: hub.stats().subscribers == 0)


async def test_its_second_subscription_is_of_the_same_subscriber(server: str) -> None:
    hub = Hub()

    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        assert hub.subscribe(websocket, "t") is hub.subscribe(websocket, "t")
        hub.subscribe(websocket, "u")
        await websocket.receive_text()

    async with in_asgi(server, Starlette(routes=[WebSocketRoute("/", endpoint)])) as address:
        async with connect(f"ws://{address}/") as ws:
            await eventually(lambda: hub.stats().subscriptions == 2)
            assert hub.stats().subscribers == 1
            hub.publish("t", "a")
            hub.publish("u", "b")
            assert [await ws.recv(), await ws.recv()] == ["a", "b"]
            await ws.send("")
            with pytest.raises(ConnectionClosed):
                await ws.recv()
        await eventually(lambda: hub.stats().subscribers == 0)


async def test_one_that_is_not_accepted_is_refused(server: str) -> None:
    hub = Hub()
    errors: list[Exception] = []

    async def endpoint(websocket: WebSocket) -> None:
        try:
            hub.subscribe(websocket, "t")
        except rawws.LocalProtocolError as error:
            errors.append(error)
        await websocket.close()

    async with in_asgi(server, Starlette(routes=[WebSocketRoute("/", endpoint)])) as address:
        with pytest.raises(InvalidStatus):
            await connect(f"ws://{address}/")
    assert len(errors) == 1
    assert hub.stats().subscribers == 0


async def test_the_end_of_the_hub_closes_it(server: str) -> None:
    hub = Hub()
    async with in_asgi(server, subscribing(hub, "plain")) as address:
        async with connect(f"ws://{address}/") as ws:
            await eventually(lambda: hub.stats().subscribers == 1)
            await hub.close()
            assert (await closed(ws))[0] == 1000
        await eventually(lambda: hub.stats().subscribers == 0)


@pytest.mark.parametrize("ours", SERVERS[1:])
async def test_to_subscribe_one_that_left_is_no_fault(ours: str) -> None:
    hub = Hub()
    raised = asyncio.Event()

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        try:
            hub.subscribe((scope, receive, send), "t")
        finally:
            raised.set()

    async with in_asgi(ours, app) as address:
        async with connect(f"ws://{address}/"):
            pass
        await raised.wait()
    assert hub.stats().subscribers == 0


async def test_the_head_of_a_silent_stream_is_there_at_once(server: str) -> None:
    stream = rawws.EventStream()

    async def feed(_: Request) -> Any:
        return stream

    async with in_asgi(server, Starlette(routes=[Route("/", feed)])) as address, httpx.AsyncClient() as client:
        async with client.stream("GET", f"http://{address}/") as answer:
            assert answer.headers["content-type"] == "text/event-stream"
            stream.send("a")
            stream.close()
            assert await answer.aread() == b"data: a\n\n"


async def test_what_listen_gives_feeds_a_response_up_to_the_end_of_its_client(server: str) -> None:
    hub = Hub()

    async def lines() -> AsyncIterator[str]:
        async for publication in hub.listen("t", since="earliest"):
            yield f"{publication.message!s}\n"

    async def feed(_: Request) -> StreamingResponse:
        return StreamingResponse(lines())

    async with in_asgi(server, Starlette(routes=[Route("/", feed)])) as address, httpx.AsyncClient() as client:
        hub.publish("t", "a")
        async with client.stream("GET", f"http://{address}/") as answer:
            await eventually(lambda: hub.stats().subscribers == 1)
            hub.publish("t", "b")
            came = answer.aiter_lines()
            assert [await anext(came), await anext(came)] == ["a", "b"]
        await eventually(lambda: hub.stats().subscribers == 0)


async def test_a_request_of_a_framework_is_refused() -> None:
    hub, request = Hub(), Request({"type": "http", "headers": []})
    asked: Any
    for asked in (hub.stream, hub.poll, hub.post):
        with pytest.raises(TypeError, match=r"the request is Request, allowed is a rawws.HttpRequest: mount hub.asgi"):
            asked(request)


async def test_what_is_no_subscriber_is_refused() -> None:
    hub = Hub()
    wrongs: list[Any] = [42, "ws", ({}, None, None), ({"type": "http"}, None, print)]
    for wrong in wrongs:
        with pytest.raises(TypeError, match=r"the subscriber is \w+, allowed are a WebSocket, an EventStream"):
            hub.subscribe(wrong, "t")


# -- slow ones, with a server whose `send` the test holds back


class Held:
    """A WebSocket of ASGI whose server takes what is sent when it is told to."""

    def __init__(self) -> None:
        self.scope: dict[str, Any] = {"type": "websocket", "path": "/", "headers": []}
        self.gate = asyncio.Event()
        self.sent: list[Any] = []
        self.error: Exception | None = None

    async def send(self, event: dict[str, Any]) -> None:
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.sent.append(event.get("text", event.get("code")))


@pytest.mark.parametrize(
    ("policy", "came"),
    [
        (rawws.Policy("drop_oldest", limit=2), [*["first"] * 5, "8", "9"]),
        (rawws.Policy("drop_newest", limit=2), [*["first"] * 5, "0", "1"]),
        (rawws.Policy("conflate"), [*["first"] * 5, "9"]),
        ("block", [*["first"] * 5, *map(str, range(10))]),
    ],
    ids=["drop_oldest", "drop_newest", "conflate", "block"],
)
async def test_a_slow_one_is_treated_as_the_policy_says(policy: Any, came: list[str]) -> None:
    hub, held = Hub(), Held()
    hub.subscribe(held, "t", policy=policy)
    for _ in range(5):
        hub.publish("t", "first" + " " * 16_000)
    results = [hub.publish("t", str(number)) for number in range(10)]
    assert results[0].delivered == 0
    waiting = asyncio.ensure_future(results[0])
    held.gate.set()
    await waiting
    await eventually(lambda: len(held.sent) == len(came))
    assert [text.strip() for text in held.sent] == came
    assert hub.publish("t", "at once").delivered == 1
    await eventually(lambda: held.sent[-1:] == ["at once"])
    hub.unsubscribe(held)
    assert hub.stats().subscribers == 0


async def test_a_slow_one_delays_no_other() -> None:
    hub, slow, stuck, quick = Hub(), Held(), Held(), Held()
    for held in (slow, stuck, quick):
        hub.subscribe(held, "t")
    quick.gate.set()
    for text in "abc":
        hub.publish("t", text)
        await eventually(lambda: quick.sent and quick.sent[-1] == text)  # noqa: B023 - it is called here
    assert (quick.sent, slow.sent, stuck.sent) == (["a", "b", "c"], [], [])
    slow.gate.set()
    await eventually(lambda: slow.sent == ["a", "b", "c"])
    # The end of a task that waits for a server takes nothing from the others.
    sockets: list[Any] = list(hub._subscribers)
    socket = next(each for each in sockets if each.scope is stuck.scope)
    socket.lose()
    hub.publish("t", "d")
    await eventually(lambda: slow.sent[-1] == quick.sent[-1] == "d")
    assert (hub.stats().subscribers, stuck.sent) == (2, [])


async def test_too_slow_a_one_is_closed_with_1013() -> None:
    hub, held = Hub(), Held()
    hub.subscribe(held, "t")
    for _ in range(80):
        hub.publish("t", "x" * 16_000)
    assert (hub.stats().subscribers, hub.stats().closed) == (0, 1)
    held.gate.set()
    await eventually(lambda: held.sent[-1:] == [1013])
    with pytest.raises(rawws.ConnectionClosed):
        hub.subscribe(held, "t")


async def test_one_whose_server_says_that_it_is_gone_is_forgotten() -> None:
    hub, held = Hub(), Held()
    hub.subscribe(held, "t")
    held.error = OSError("gone")
    held.gate.set()
    hub.publish("t", "a")
    await eventually(lambda: hub.stats().subscribers == 0)


async def test_one_whose_task_ends_is_forgotten() -> None:
    hub, held = Hub(), Held()

    async def endpoint() -> None:
        hub.subscribe(held, "t")
        hub.publish("t", "waits")
        await asyncio.sleep(0)

    await asyncio.create_task(endpoint())
    await eventually(lambda: hub.stats().subscribers == 0)
    asyncio.get_running_loop().call_soon(lambda: errors.append(outside()))
    errors: list[Exception | None] = []

    def outside() -> Exception | None:
        try:
            hub.subscribe(Held(), "t")
        except rawws.LocalProtocolError as error:
            return error
        return None

    await eventually(lambda: errors)
    assert "needed is the one of the endpoint" in str(errors[0])


async def test_who_knows_cursors_is_told_of_a_gap_behind_what_it_got_and_others_are_not() -> None:
    hub = Hub()
    for subprotocol in ("rawws.v1", None):
        held = Held()
        held.gate.set()
        ws = AsgiSocket(held.scope, None, held.send, subprotocol=subprotocol)
        subscription = hub.subscribe(ws, "t")
        hub.publish("t", "a")
        place = hub._table.notice(hub._table.topics["t"], "missed", cursor="x:1")
        subscription.subscriber.tell_place(subscription, place)
        hub.publish("t", "b")
        expected = 3 if subprotocol else 2
        await eventually(lambda: len(held.sent) == expected)  # noqa: B023 - it is called here
        if subprotocol:
            assert json.loads(held.sent[1]) == {"topic": "t", "cursor": "x:1", "recovered": False}
            assert [json.loads(text).get("data") for text in held.sent] == ["a", None, "b"]
        else:
            assert held.sent == ["a", "b"]


async def test_what_an_asgi_socket_is_sent_is_bounded_and_its_close_is_not_lost() -> None:
    held = Held()
    ws = AsgiSocket(held.scope, None, held.send)
    sent = 0
    with pytest.raises(rawws.ConnectionClosed, match="1013"):
        while True:
            ws.send("x" * 100_000)
            sent += 1
    assert sent == 11
    # In bytes, and not in letters.
    letters = AsgiSocket(held.scope, None, held.send)
    letters.send("é" * 525_000)
    with pytest.raises(rawws.ConnectionClosed, match="1013"):
        letters.send("one more")
    letters.lose()
    ws.fail(1011, "")
    held.gate.set()
    await eventually(lambda: held.sent == [1013])
    closing = AsgiSocket(held.scope, None, held.send)
    closing.send("last")
    closing.close(4000)
    closing.fail(1011, "")
    await eventually(lambda: held.sent == [1013, "last", 4000])


async def test_an_asgi_socket_sends_and_closes_as_a_websocket() -> None:
    held = Held()
    ws = AsgiSocket(held.scope, None, held.send)
    big = "x" * 70_000
    waiting = asyncio.ensure_future(ws.send(big))
    assert (ws.congested, ws.closed, repr(ws)) == (True, False, "<rawws.topics.AsgiSocket open None>")
    held.gate.set()
    await waiting
    await ws.send(memoryview(b"ab"))
    ws.close(4000, "bye")
    ws.close()
    with pytest.raises(rawws.ConnectionClosed, match="4000"):
        ws.send("late")
    assert [message async for message in ws] == []
    await eventually(lambda: held.sent == [big, None, 4000])
    ws.lose()
    ws.lose()
    assert ws.request.path == "/"
    blocked = AsgiSocket(held.scope, None, held.send)
    held.gate.clear()
    ended = asyncio.ensure_future(blocked.send(big))
    await asyncio.sleep(0)
    blocked.lose()
    with pytest.raises(rawws.ConnectionClosed):
        await ended


async def test_what_is_made_for_clients_of_other_servers_is_counted_as_for_those_of_ours() -> None:
    sent: list[Any] = []

    async def send(event: Any) -> None:
        sent.append(event)

    hub = Hub()
    ws = AsgiSocket({"type": "websocket"}, None, send, subprotocol="rawws.v1")
    hub.subscribe(ws, "news")
    hub.publish("news", "hello")
    assert hub._table.store.forms.size > FORM_COST
    await eventually(lambda: sent)
    assert [json.loads(event["text"])["data"] for event in sent] == ["hello"]
    ws.lose()
