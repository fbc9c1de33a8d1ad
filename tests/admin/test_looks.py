"""What is shown of a server, its hub and its connections, and the hand on it: in one process."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import AsyncExitStack
from typing import Any, final

import pytest
from prometheus_client.parser import text_string_to_metric_families

import rawws
import rawws.admin
from rawws.admin import inspector
from rawws.backplanes.redis import RedisBackplane
from rawws.topics import Hub, Publication
from tests.admin.looks import allow, fetch, looked_at, post, read
from tests.server.answers import get
from tests.server.peers import Logged, Peer, eventually, host_and_port, serve

V1 = "Sec-WebSocket-Protocol: rawws.v1"


async def reach(server: rawws.Server, stack: AsyncExitStack, receive_buffer: int = 0) -> Peer:
    peer = await Peer.reach(server.sockets[0].getsockname(), receive_buffer)
    stack.callback(peer.close)
    return peer


async def subscribed(server: rawws.Server, stack: AsyncExitStack, *topics: str, join: Any = None) -> Peer:
    peer = await reach(server, stack)
    await peer.shake_hands(V1, line="GET /ws?token=secret HTTP/1.1")
    for topic in topics:
        await peer.send(json.dumps({"id": 1, "subscribe": topic, **({} if join is None else {"join": join})}))
        await peer.message()
    return peer


async def test_the_status_says_what_there_is() -> None:
    hub = Hub(authorize=allow)
    async with looked_at(hub) as (server, admin), AsyncExitStack() as stack:
        await subscribed(server, stack, "news", "sport")
        for path in ("/stream?topic=news", "/hold"):
            await (await reach(server, stack)).write(get(path))
        await eventually(lambda: (server.stats().streams, server.stats().polls) == (1, 1))
        status = await read(admin, "/v1/status")
        hub.publish("news", "x" * 1000)
        await asyncio.sleep(0.6)
        later = await read(admin, "/v1/status")
    assert (status["connections"], status["streams"], status["polls"]) == (1, 1, 1)
    assert (status["opened"], status["published"], status["expected"]) == (1, 0, 1)
    assert set(status["rates"]) == {"opened", "closed", "received", "sent", "published", "delivered"}
    assert status["rates"]["published"] == 0
    # At most what was published, in half a second.
    assert 0 < later["rates"]["published"] <= 2
    assert later["rates"]["sent"] > 50
    [worker] = later["workers"]
    assert (worker["worker"], worker["serving"], worker["draining"], worker["busy"]) == (0, True, False, False)
    assert [each["topic"] for each in later["topics"]["topics"]] == ["news", "sport"]
    assert later["topics"]["topics"][0] == {"topic": "news", "subscribers": 2, "present": 0, "held": 1}


async def test_connections_are_shown_in_an_order_and_without_what_is_secret() -> None:
    hub = Hub(authorize=allow)
    async with looked_at(hub) as (server, admin), AsyncExitStack() as stack:
        one = await subscribed(server, stack, "a", "b")
        two = await subscribed(server, stack, "a")
        stream = await reach(server, stack)
        await stream.write(get("/stream?topic=a&topic=b&topic=c"))
        await stream.response()
        found = await read(admin, "/v1/connections?sort=topics")
        assert found["total"] == 3
        assert [each["topics"] for each in found["connections"]] == [3, 2, 1]
        assert [each["kind"] for each in found["connections"]] == ["stream", "websocket", "websocket"]
        assert [each["path"] for each in found["connections"]] == ["", "/ws", "/ws"]
        assert [each["subprotocol"] for each in found["connections"]] == ["", "rawws.v1", "rawws.v1"]
        ports = [host_and_port(peer.sock.getsockname())[1] for peer in (stream, one, two)]
        assert [each["remote"] for each in found["connections"]] == [f"127.0.0.1:{port}" for port in ports]
        for sort in ("waiting", "sent", "received", "age", "latency"):
            listed = await read(admin, f"/v1/connections?sort={sort}&limit=2")
            assert (listed["total"], len(listed["connections"])) == (3, 2)
            values = [each["seconds" if sort == "age" else sort] for each in listed["connections"]]
            assert values == sorted(values, reverse=True)
        assert "secret" not in json.dumps(found)
        status = await read(admin, "/v1/status")
        assert status["slow"] == []


async def test_a_connection_is_shown_with_the_user_whom_the_hub_knows() -> None:
    hub = Hub(authorize=allow, identify=lambda client: rawws.Identity(client.token) if client.token else None)
    async with looked_at(hub) as (server, admin), AsyncExitStack() as stack:
        for token in ("ada", ""):
            peer = await reach(server, stack)
            await peer.shake_hands(V1, line=f"GET /ws?token={token} HTTP/1.1")
            await peer.send('{"id": 1, "subscribe": "news"}')
            await peer.message()
        stream = await reach(server, stack)
        await stream.write(get("/stream?topic=a&token=bob"))
        await stream.response()
        await reach(server, stack)
        found = await read(admin, "/v1/connections")
        assert sorted((each["kind"], each["user"]) for each in found["connections"]) == [
            ("http", ""),
            ("stream", "bob"),
            ("websocket", ""),
            ("websocket", "ada"),
        ]
        for user, count in (("bob", 1), ("ada", 1), ("Ada", 0), ("", 4)):
            listed = await read(admin, f"/v1/connections?user={user}")
            assert (listed["total"], len(listed["connections"])) == (count, count)
            assert {each["user"] for each in listed["connections"] if user} <= {user}


@final
class InPlaceOf:
    """What a gateway has subscribe in the place of a WebSocket."""

    def __init__(self, ws: rawws.WebSocket, user: str) -> None:
        self.ws = ws
        self.user = user

    def __getattr__(self, name: str) -> Any:
        return getattr(self.ws, name)

    def send(self, publication: Publication) -> None:
        self.ws.send(publication.message)


async def test_a_connection_is_shown_with_what_is_subscribed_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub()
    monkeypatch.setattr(inspector, "_finders", set())
    inspector.add_subscribers(lambda ws: ws.state)

    class Subscribing(rawws.Handler):
        def on_open(self, ws: rawws.WebSocket) -> None:
            ws.state = InPlaceOf(ws, "u" * 999)
            hub.subscribe(ws.state, "news")
            hub.subscribe(ws.state, "sport")

    async with (
        serve(Subscribing(), hard_limit=1 << 26) as server,
        rawws.admin.serve(server, hub, port=0) as admin,
        AsyncExitStack() as stack,
    ):
        peer = await reach(server, stack, receive_buffer=4096)
        await peer.shake_hands()
        await eventually(lambda: len(list(hub.topic_figures())) == 2)
        [shown] = (await read(admin, "/v1/connections"))["connections"]
        assert (shown["user"], shown["topics"]) == ("u" * 255, 2)
        # Who is asked for as it is shown is found.
        assert (await read(admin, f"/v1/connections?user={'u' * 255}"))["total"] == 1
        for _ in range(100):
            hub.publish("news", "x" * 100_000)
        [slow] = (await read(admin, "/v1/status"))["slow"]
        [ws] = server.connections
        assert slow["waiting"] > ws.buffered > 0


async def test_a_slow_consumer_is_shown_with_what_waits_for_it() -> None:
    hub = Hub(authorize=allow)
    async with looked_at(hub, hard_limit=1 << 26) as (server, admin), AsyncExitStack() as stack:
        peer = await reach(server, stack, receive_buffer=4096)
        await peer.shake_hands(V1, line="GET /ws HTTP/1.1")
        await peer.send('{"id": 1, "subscribe": "news"}')
        await peer.message()
        for _ in range(100):
            hub.publish("news", "x" * 100_000)
        status = await read(admin, "/v1/status")
        [slow] = status["slow"]
        [ws] = server.connections
        assert slow["id"] == str(ws.id)
        assert slow["waiting"] > ws.buffered > 0
        assert status["waiting"] > 0


async def test_topics_and_presence() -> None:
    hub = Hub(authorize=allow)
    async with looked_at(hub) as (server, admin), AsyncExitStack() as stack:
        await subscribed(server, stack, "quiet")
        await subscribed(server, stack, "room", "big", join={"name": "Ada <b>"})
        await subscribed(server, stack, "big")
        hub.publish("room", "x")
        found = await read(admin, "/v1/topics")
        assert found == {
            "total": 3,
            "busy": 0,
            "topics": [
                {"topic": "big", "subscribers": 2, "present": 1, "held": 0},
                {"topic": "quiet", "subscribers": 1, "present": 0, "held": 0},
                {"topic": "room", "subscribers": 1, "present": 1, "held": 1},
            ],
        }
        first = await read(admin, "/v1/topics?limit=1")
        assert (first["total"], [each["topic"] for each in first["topics"]]) == (3, ["big"])
        who = await read(admin, "/v1/presence?topic=room")
        assert (who["topic"], who["subscribers"], who["total"]) == ("room", 1, 1)
        assert [each["info"] for each in who["present"]] == [{"name": "Ada <b>"}]
        # Nobody but the client says so, and its id says that, too.
        [ada] = who["present"]
        assert ada == {"id": ada["id"], "user": "", "info": {"name": "Ada <b>"}, "claimed": True}
        nobody = await read(admin, "/v1/presence?topic=nothing")
        assert nobody == {"topic": "nothing", "subscribers": 0, "total": 0, "busy": 0, "present": []}


async def test_a_user_is_told_from_what_its_client_claims() -> None:
    def identify(client: Any) -> rawws.topics.Identity:
        return rawws.topics.Identity("ada", {"name": "Ada"})

    hub = Hub(authorize=allow, identify=identify)
    async with looked_at(hub) as (server, admin), AsyncExitStack() as stack:
        await subscribed(server, stack, "room", join={"name": "The Queen"})
        [ada] = (await read(admin, "/v1/presence?topic=room"))["present"]
    assert (ada["user"], ada["info"], ada["claimed"]) == ("ada", {"name": "Ada"}, False)
    assert ada.get("claim") in (None, {"name": "The Queen"})


async def test_a_connection_is_kicked_and_the_others_stay(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rawws.admin")
    hub = Hub(authorize=allow)
    async with looked_at(hub) as (server, admin), AsyncExitStack() as stack:
        one, two = [await subscribed(server, stack, "a") for _ in range(2)]
        stream = await reach(server, stack)
        await stream.write(get("/stream?topic=a"))
        await stream.response()
        found = (await read(admin, "/v1/connections"))["connections"]
        by_port = {int(each["remote"].rpartition(":")[2]): each["id"] for each in found}
        ids = [by_port[host_and_port(peer.sock.getsockname())[1]] for peer in (one, two, stream)]
        answer = await post(admin, {"id": ids[0], "code": 4001, "reason": "go\x1b home"})
        assert (answer.status, json.loads(answer.body)) == (200, {"kicked": ids[0]})
        assert await one.finish() == (4001, "go\x1b home")
        answer = await post(admin, {"id": ids[1]})
        assert answer.status == 200
        assert await two.finish() == (1008, "closed by the administrator")
        await post(admin, {"id": ids[2]})
        came = stream.rest
        while not came.endswith(b"0\r\n\r\n"):
            came += await stream.read()
        assert (await post(admin, {"id": ids[0]})).status == 404
    said = [record.getMessage() for record in caplog.records if record.name == "rawws.admin"]
    assert said[0].endswith("is closed with 4001 (go\\x1b home)")
    assert len(said) == 3


@pytest.mark.parametrize(
    ("said", "status", "why"),
    [
        (b"{", 400, "the body is not JSON"),
        ([], 400, 'the body is not {"id": ...}'),
        ({"id": "x", "more": 1}, 400, "allowed beside it are code and reason"),
        ({"id": 7}, 400, "id is int, allowed is str"),
        ({"id": "x", "code": True}, 400, "code is bool, allowed is int"),
        ({"id": "x", "reason": None}, 400, "reason is NoneType, allowed is str"),
        ({"id": "x" * 100}, 404, "there is no connection '" + "x" * 64 + "'"),
    ],
)
async def test_a_kick_that_makes_no_sense_says_why(said: Any, status: int, why: str) -> None:
    async with looked_at(Hub()) as (_, admin):
        answer = await post(admin, said)
        assert answer.status == status
        assert why in answer.body.decode()


async def test_a_code_that_cannot_be_sent_is_refused_and_nobody_is_closed() -> None:
    async with looked_at(Hub(authorize=allow)) as (server, admin), AsyncExitStack() as stack:
        await subscribed(server, stack)
        [ws] = server.connections
        for code, reason in ((1006, ""), (4000, "x" * 124)):
            answer = await post(admin, {"id": str(ws.id), "code": code, "reason": reason})
            assert answer.status == 400
            assert "close " in answer.body.decode()
        assert ws.ready_state.name == "OPEN"


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("/v1/connections?limit=0", "limit is '0', allowed are 1 to 1000"),
        ("/v1/connections?limit=1001", "allowed are 1 to 1000"),
        ("/v1/topics?limit=9999999999999", "allowed are 1 to 1000"),
        ("/v1/topics?limit=-1", "allowed are 1 to 1000"),
        ("/v1/connections?sort=name", "sort is 'name', allowed are waiting, sent, received, topics, age, latency"),
        ("/v1/presence", "the query has 0 of 'topic', needed is one: ?topic=..."),
        ("/v1/presence?topic=a&topic=b", "the query has 2 of 'topic'"),
    ],
)
async def test_a_question_that_makes_no_sense_says_why(target: str, why: str) -> None:
    async with looked_at(Hub()) as (_, admin):
        answer = await fetch(admin, target)
        assert answer.status == 400
        assert why in answer.body.decode()


async def test_probes_tell_what_orchestrators_ask(logged: Logged) -> None:
    hub = Hub()
    async with looked_at(hub) as (server, admin):
        assert (await fetch(admin, "/healthz")).body == b"ok\n"
        assert (await fetch(admin, "/readyz")).body == (await fetch(admin, "/readyz?backplane")).body == b"ok\n"
        await asyncio.sleep(0.6)
        server.context.draining = True
        answer = await fetch(admin, "/readyz")
        assert (answer.status, answer.body) == (503, b"draining\n")
        await asyncio.sleep(0.6)
        server.context.draining, server.context.closing = False, True
        answer = await fetch(admin, "/readyz")
        assert (answer.status, answer.body) == (503, b"nobody serves\n")


async def test_readiness_has_the_backplane_if_it_is_asked_for(logged: Logged) -> None:
    async with Hub(backplane=RedisBackplane("redis://127.0.0.1:1")) as hub, looked_at(hub) as (_, admin):
        await eventually(lambda: hub.degraded)
        assert (await fetch(admin, "/readyz")).status == 200
        answer = await fetch(admin, "/readyz?backplane")
        assert (answer.status, answer.body) == (503, b"the backplane is away\n")
    logged.take("the backplane is away, topics are degraded: ", name="rawws.topics")


async def test_the_metrics_are_those_of_the_server_and_its_hubs() -> None:
    hub = Hub(authorize=allow)
    async with looked_at(hub) as (server, admin), AsyncExitStack() as stack:
        await subscribed(server, stack, "a")
        answer = await fetch(admin, "/metrics")
    families = {family.name: family for family in text_string_to_metric_families(answer.body.decode())}
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert families["rawws_connections"].samples[0].value == 1
    assert families["rawws_hub_subscriptions"].samples[0].value == 1
    assert families["rawws_loop_lag_seconds"].type == "histogram"
    assert families["rawws_sockets_accepted"].type == "counter"


async def test_the_stream_sends_the_status_again_and_again() -> None:
    async with looked_at(Hub()) as (server, admin), AsyncExitStack() as stack:
        peer = await reach(admin, stack)
        await peer.write(get("/v1/stream"))
        response = await peer.response()
        assert response.headers["Content-Type"] == "text/event-stream"
        came = peer.rest
        while came.count(b"data: ") < 2:
            came += await peer.read()
        times = [json.loads(line[6:])["time"] for line in came.splitlines() if line.startswith(b"data: ")]
        assert times == sorted(times)
        assert server.stats().streams == 0


async def test_so_many_may_look_on_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rawws.admin.application.MOST_STREAMS", 1)
    async with looked_at(Hub()) as (_, admin), AsyncExitStack() as stack:
        first = await reach(admin, stack)
        await first.write(get("/v1/stream"))
        await first.response()
        answer = await fetch(admin, "/v1/stream")
        assert (answer.status, json.loads(answer.body)) == (503, {"error": "1 look on already, the limit"})
        first.close()
        await eventually(lambda: admin.stats().streams == 0)
        again = await reach(admin, stack)
        await again.write(get("/v1/stream"))
        assert (await again.response()).headers["Content-Type"] == "text/event-stream"


async def test_without_hubs_those_of_the_process_are_looked_at() -> None:
    hub = Hub()
    async with rawws.serve(hub.serve, "127.0.0.1", 0) as server, rawws.admin.serve(server, port=0) as admin:
        hub.publish("of this very test", "x")
        found = await read(admin, "/v1/topics?limit=1000")
    assert "of this very test" in [each["topic"] for each in found["topics"]]


async def test_the_page_and_what_belongs_to_it_is_all_its_policy_allows() -> None:
    async with looked_at(Hub()) as (_, admin):
        for path, kind in (("/", "text/html"), ("/admin.js", "text/javascript"), ("/admin.css", "text/css")):
            answer = await fetch(admin, path, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate")
            assert (answer.status, answer.headers["content-type"]) == (200, f"{kind}; charset=utf-8")
            policy = answer.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; ")
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
