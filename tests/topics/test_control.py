"""Control: what an application orders for the connections of a user, and what their clients hear of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

import rawws
from rawws.backplanes.memory import Engine, MemoryBackplane
from rawws.net.prepared import PreparedMessage
from rawws.topics import Hub, Identity, Publication, PublishResult, TopicError
from rawws.topics.names import CONTROL
from tests.server.answers import ask, get
from tests.server.peers import Logged, eventually
from tests.topics.asgi import SERVERS, in_asgi
from tests.topics.dialogue import allow, client, served
from tests.topics.receivers import Receiver
from tests.topics.test_http import feed, fetch

V1 = "Sec-WebSocket-Protocol: rawws.v1"


def as_user(user: str) -> tuple[str, str]:
    return V1, f"Authorization: Bearer {user}"


def by_token(asker: Any) -> Identity | None:
    return Identity(asker.token) if asker.token else None


def made(**options: Any) -> Hub:
    return Hub(identify=by_token, authorize=allow, **options)


@pytest.mark.parametrize("callbacks", [False, True])
async def test_all_connections_of_a_user_end_and_no_other(callbacks: bool) -> None:
    hub = made(presence_grace=60)
    async with served(hub, callbacks=callbacks) as server:
        async with client(server, *as_user("ann")) as ann, client(server, *as_user("ann")) as idle:
            async with client(server, *as_user("bob")) as bob, feed(server, "/stream?topic=a&token=ann") as stream:
                await stream.data()
                await bob.ask(id=1, subscribe="a", watch=True)
                await ann.ask(id=1, subscribe="a", join=None)
                await idle.ask(id=1, presence="a")
                _, first = await fetch(server, "/poll?topic=a")
                poll = asyncio.create_task(fetch(server, f"/poll?topic=a&token=ann&since={first['cursor']}"))
                await eventually(lambda: hub.stats().subscribers == 4)
                assert hub.disconnect("ann", reason="bye") == 4
                assert await ann.peer.closed() == await idle.peer.closed() == (4401, "bye")
                assert (await poll)[0] == 204
                while b"0\r\n\r\n" not in stream.buffer:
                    stream.buffer += await stream.peer.read()
                # The grace is for those who are lost.
                assert "join" in await bob.hear()
                assert (await bob.hear())["leave"]["user"] == "ann"
                assert (await bob.ask(id=2, publish="b", data="x"))["id"] == 2
                assert hub.disconnect("ann") == 0
                assert hub.disconnect("bob", code=1000, reason="") == 1
                assert await bob.peer.closed() == (1000, "")


async def test_what_an_application_subscribed_by_itself_ends_too() -> None:
    hub, ann, raw = Hub(), Receiver(), Receiver()
    ann.identity = Identity("ann")
    hub.subscribe(ann, "a")
    hub.subscribe(raw, "a")

    async def handler(ws: rawws.WebSocket) -> None:
        ws.identity = Identity("ann")
        hub.subscribe(ws, "a")
        await ws.wait_closed()

    def stream(_: rawws.HttpRequest) -> rawws.EventStream:
        made = rawws.EventStream()
        made.identity = Identity("ann")
        hub.subscribe(made, "a")
        return made

    routes = rawws.Routes()
    routes.websocket("/ws")(handler)
    routes.get("/stream")(stream)
    async with rawws.serve(routes, "127.0.0.1", 0) as server:
        async with client(server, "X: y") as one, feed(server, "/stream", "Connection: close") as feeding:
            await eventually(lambda: hub.stats().subscribers == 4)
            hub.unsubscribe("ann", "b")
            assert hub.disconnect("ann", code=4000, reason="out") == 3
            assert await one.peer.closed() == (4000, "out")
            await feeding.peer.read_to_end()
    assert ann.failed == (4000, "out")
    assert (raw.failed, raw.got) == (None, [])


@pytest.mark.parametrize(("code", "reason"), [(1006, ""), (99, ""), (4000, "x" * 124)])
def test_a_close_frame_that_cannot_be_is_refused_before_anything_is_done(code: int, reason: str) -> None:
    with pytest.raises(rawws.LocalProtocolError):
        Hub().disconnect("ann", code=code, reason=reason)


async def test_a_client_hears_that_the_application_ended_its_subscription() -> None:
    hub = made()
    async with served(hub) as server, client(server, *as_user("ann")) as ann:
        async with feed(server, "/stream?topic=a&topic=b&token=ann") as stream:
            for _ in range(2):
                await stream.data()
            for topic in "ab":
                await ann.ask(id=1, subscribe=topic)
            hub.unsubscribe("ann", "a", reason="the room is closed")
            told = {"topic": "a", "error": "unsubscribed", "reason": "the room is closed"}
            assert await ann.hear() == told
            assert await stream.data() == told
            hub.publish("a", "x")
            hub.publish("b", "y")
            assert (await ann.hear())["data"] == (await stream.data())["data"] == "y"
            # It may come back, if it may.
            await ann.ask(id=2, subscribe="a")
            hub.unsubscribe("ann")
            ended = [await ann.hear(), await ann.hear()]
            assert ended == [{"topic": topic, "error": "unsubscribed"} for topic in "ba"]
            assert hub.stats().subscriptions == 0
            # What it ends by itself is answered, and told no further.
            await ann.ask(id=3, subscribe="a")
            assert await ann.ask(id=4, unsubscribe="a") == {"id": 4}


async def test_one_connection_hears_it_too_and_who_speaks_no_protocol_hears_nothing() -> None:
    seen: list[rawws.WebSocket] = []

    async def handler(ws: rawws.WebSocket) -> None:
        seen.append(ws)
        hub.subscribe(ws, "a")
        hub.unsubscribe(ws, "a", reason="no")
        hub.unsubscribe(ws)
        await ws.send("end")
        await ws.wait_closed()

    def stream(_: rawws.HttpRequest) -> rawws.EventStream:
        made = rawws.EventStream()
        hub.subscribe(made, "a")
        hub.unsubscribe(made, "a", reason="no")
        made.send("end")
        return made

    hub = Hub()
    routes = rawws.Routes()
    routes.websocket("/ws")(handler)
    routes.get("/stream")(stream)
    async with rawws.serve(routes, "127.0.0.1", 0, subprotocols=["rawws.v1", "x"]) as server:
        async with client(server) as one, client(server, "Sec-WebSocket-Protocol: x") as raw:
            assert await one.hear() == {"topic": "a", "error": "unsubscribed", "reason": "no"}
            assert await one.peer.message() == await raw.peer.message() == "end"
        async with feed(server, "/stream") as feeding:
            assert (await feeding.next()).data == "end"


@pytest.mark.parametrize("server", SERVERS)
async def test_in_asgi_it_is_the_same(server: str) -> None:
    hub = made()
    async with in_asgi(server, hub.asgi()) as address:
        async with rawws.connect(f"ws://{address}/?token=ann", subprotocols=["rawws.v1"]) as ws:
            await ws.send('{"id": 1, "subscribe": "a"}')
            await ws.recv()
            hub.unsubscribe("ann", "a")
            assert json.loads(await ws.recv()) == {"topic": "a", "error": "unsubscribed"}
            assert hub.disconnect("ann") == 1
            with pytest.raises(rawws.ConnectionClosed):
                await ws.recv()
            assert (ws.close_code, ws.close_reason) == (4401, "disconnected")


async def test_it_is_done_at_all_servers_that_share_a_backplane(logged: Logged) -> None:
    engine = Engine()
    one, two = (made(backplane=MemoryBackplane(engine)) for _ in range(2))
    async with one, two, served(one) as first, served(two) as second:
        async with client(first, *as_user("ann")) as here, client(second, *as_user("ann")) as there:
            for each in (here, there):
                await each.ask(id=1, subscribe="a")
            assert (two.stats().topics, two.stats().subscribers, two.stats().subscriptions) == (1, 1, 1)
            one.unsubscribe("ann", "a", reason="no")
            told = {"topic": "a", "error": "unsubscribed", "reason": "no"}
            assert await here.hear() == await there.hear() == told
            # What no server of this version says does no harm.
            other = Hub(backplane=MemoryBackplane(engine))
            assert other._replication is not None
            async with other:
                for text in ("[]", "{", '{"server":"x","disconnect":"ann","code":"x","reason":""}'):
                    await other._replication.publish(Publication(CONTROL, PreparedMessage(text)), PublishResult())
                assert one.disconnect("ann") == 1
                assert await here.peer.closed() == await there.peer.closed() == (4401, "disconnected")
            logged.take_all("an order of another server cannot be done", 6)


def test_the_topic_of_orders_is_nobodys() -> None:
    hub = Hub()
    for act in (
        lambda: hub.publish(CONTROL, "x"),
        lambda: hub.subscribe(Receiver(), CONTROL),
        lambda: hub.publish_threadsafe(CONTROL, "x"),
    ):
        with pytest.raises(TopicError, match="the topic '~rawws/control' is reserved"):
            act()


async def test_no_client_can_order_anything() -> None:
    async with served(made()) as server, client(server, *as_user("eve")) as eve:
        order = '{"disconnect":"ann","code":1000,"reason":"","server":"x"}'
        for action in ("publish", "subscribe", "unsubscribe", "presence", "history", "call"):
            more = {"data": order} if action == "publish" else {}
            assert (await eve.ask(id=1, **{action: CONTROL}, **more))["error"] == "topic"
        for way in ("poll", "stream"):
            assert (await fetch(server, f"/{way}?topic={CONTROL}"))[0] == 400
        body = json.dumps({"publish": CONTROL, "data": order}).encode()
        [answer] = await ask(server, get("/", "Connection: close", method="POST", body=body), ["POST"])
        assert (answer.status, json.loads(answer.body)["error"]) == (400, "topic")
