"""Identity: who a client is, until when, and what the application makes of what it asks for."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

import rawws
from rawws.http.long_poll import POLL_TIMEOUT
from rawws.protocol.closing import close_reason
from rawws.topics import Hub, Identity, endpoints
from rawws.topics.rawws_v1 import remind
from rawws.topics.sessions import ClientSessions, close_code_of
from tests.server.answers import ask, get
from tests.server.peers import Logged, Peer, eventually
from tests.topics.asgi import SERVERS, in_asgi
from tests.topics.dialogue import Client, allow, client, served
from tests.topics.test_http import feed, fetch

V1 = "Sec-WebSocket-Protocol: rawws.v1"
ANN = Identity("ann", {"name": "Ann"})

Identify = Callable[[Any], Any]


def bearer(token: str) -> tuple[str, str]:
    return V1, f"Authorization: Bearer {token}"


def known(asker: Any) -> Identity | None:
    """Whoever names a user is that one; who names nobody is anybody."""
    if asker.token == "wrong":
        raise rawws.HttpError(401, "the token is wrong")
    return Identity(asker.token) if asker.token else None


async def known_later(asker: Any) -> Identity | None:
    await asyncio.sleep(0)
    return known(asker)


async def closed(one: Client) -> tuple[int, str] | None:
    return await one.peer.closed()


# -- what it is


def test_an_identity_is_what_was_said_and_does_not_change_with_that() -> None:
    info = {"name": "Ann"}
    identity = Identity("ann", info, datetime(2030, 1, 1, tzinfo=UTC))
    info["name"] = "Eve"
    assert (identity.user, identity.info, identity.expires) == ("ann", {"name": "Ann"}, 1893456000.0)
    assert identity == Identity("ann", {"name": "Ann"}, 1893456000) != Identity("ann")
    assert hash(identity) == hash(Identity("ann", {"name": "Ann"}, 1893456000))
    assert identity != "ann"
    assert repr(identity) == "<rawws.Identity 'ann'>"
    assert rawws.Identity is Identity


def test_what_has_no_end_is_never_over_and_what_has_one_says_how_long_it_lasts() -> None:
    assert (ANN.left(), ANN.is_over()) == (None, False)
    soon = Identity("ann", None, datetime.now(UTC) + timedelta(hours=1))
    assert 3590 < (soon.left() or 0.0) <= 3600
    assert Identity("ann", None, time.time() - 1).is_over()


@pytest.mark.parametrize("user", ["", "x" * 256, "ä" * 128, "a\nb", "\ud800"])
def test_a_user_is_a_name_of_a_bounded_length(user: str) -> None:
    with pytest.raises(ValueError, match="allowed are 1 to 255 printable bytes"):
        Identity(user)


@pytest.mark.parametrize("info", [object(), {1, 2}, float("nan"), "x" * 1023, "\ud800", b"x"])
def test_info_is_a_little_json(info: Any) -> None:
    with pytest.raises(ValueError, match="info"):
        Identity("ann", info)


@pytest.mark.parametrize(
    ("expires", "error", "reason"),
    [
        (datetime(2030, 1, 1), ValueError, "expires has no timezone"),  # noqa: DTZ001 - that is what is refused
        ("soon", TypeError, "expires is str"),
        (True, TypeError, "expires is bool"),
        (float("nan"), ValueError, "expires is nan"),
        (1e300, ValueError, "allowed are seconds"),
    ],
)
def test_expires_is_a_time(expires: Any, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        Identity("ann", None, expires)
    anything: Any = 5
    with pytest.raises(TypeError, match="user is int"):
        Identity(anything)


def test_a_refusal_is_a_close_code_and_as_much_of_its_reason_as_fits() -> None:
    assert [close_code_of(status) for status in (401, 403, 404, 503)] == [4401, 4403, 4404, 1013]
    assert close_reason("x" * 200) == "x" * 123
    assert close_reason("ä" * 100) == "ä" * 61


# -- who is asked, and when


@pytest.mark.parametrize("identify", [known, known_later])
@pytest.mark.parametrize("callbacks", [False, True])
async def test_each_connection_is_asked_once_and_authorize_sees_the_answer(callbacks: bool, identify: Identify) -> None:
    asked, seen = [], []

    def counted(asker: Any) -> Any:
        asked.append(asker)
        return identify(asker)

    def authorize(asker: Any, action: str, topic: str) -> bool:
        seen.append((asker.identity and asker.identity.user, action, topic))
        return True

    hub = Hub(identify=counted, authorize=authorize)
    async with served(hub, callbacks=callbacks) as server:
        async with client(server, *bearer("ann")) as ann, client(server) as nobody:
            # The first ones are there before it is known who it is.
            await ann.say(id=1, subscribe="a")
            await ann.say(id=2, publish="b", data="x")
            assert [(await ann.hear())["id"] for _ in range(2)] == [1, 2]
            await nobody.ask(id=1, subscribe="a")
        assert len(asked) == 2
        assert (await fetch(server, "/poll?topic=a&token=bob"))[0] == 200
        async with feed(server, "/stream?topic=a", "Authorization: bearer eve") as stream:
            assert (await stream.data())["recovered"]
        body = b'{"publish": "a", "data": "x"}'
        [answer] = await ask(server, get("/", *bearer("joe"), "Connection: close", method="POST", body=body), ["POST"])
        assert answer.status == 200
    assert len(asked) == 5
    assert seen == [
        *(("ann", "subscribe", "a"), ("ann", "publish", "b"), (None, "subscribe", "a")),
        *(("bob", "subscribe", "a"), ("eve", "subscribe", "a"), ("joe", "publish", "a")),
    ]


@pytest.mark.parametrize("identify", [known, known_later])
@pytest.mark.parametrize("callbacks", [False, True])
async def test_who_is_not_known_is_told_so_and_nothing_is_done(callbacks: bool, identify: Identify) -> None:
    hub = Hub(identify=identify, authorize=allow)
    async with served(hub, callbacks=callbacks) as server:
        async with client(server, *bearer("wrong")) as eve:
            await eve.peer.send('{"publish":"a","data":"x"}', '{"id":1,"subscribe":"a"}')
            assert await closed(eve) == (4401, "the token is wrong")
        for target in ("/poll?topic=a&token=wrong", "/stream?topic=a&token=wrong"):
            [answer] = await ask(server, get(target, "Connection: close"))
            assert answer.status == 401
        body = b'{"publish": "a", "data": "x"}'
        post = get("/?token=wrong", "Connection: close", method="POST", body=body)
        [answer] = await ask(server, post, ["POST"])
        assert answer.status == 401
    assert hub.stats().published == 0


@pytest.mark.parametrize("callbacks", [False, True])
@pytest.mark.parametrize("later", [False, True])
async def test_what_identify_raises_or_returns_by_mistake_ends_one_connection(
    logged: Logged, callbacks: bool, later: bool
) -> None:
    async def cancelled() -> Identity:
        raise asyncio.CancelledError

    def identify(asker: Any) -> Any:
        if asker.token == "cancelled":
            if later:
                return cancelled()
            raise asyncio.CancelledError
        return "ann" if not later else known_as_text()

    async def known_as_text() -> Any:
        return "ann"

    hub = Hub(identify=identify, authorize=allow)
    async with served(hub, callbacks=callbacks) as server:
        async with client(server) as one:
            assert await closed(one) == (1011, "internal error")
        logged.take("connection handler failed", TypeError)
        async with client(server, *bearer("cancelled")) as one:
            assert await closed(one) == (1011, "internal error")
        logged.take("connection handler failed", RuntimeError)
        assert (await ask(server, get("/poll?topic=a", "Connection: close")))[0].status == 500
        logged.take("request failed", TypeError)


async def test_who_is_gone_before_it_is_known_is_asked_no_more() -> None:
    asked, ended = asyncio.Event(), asyncio.Event()

    async def identify(_: Any) -> None:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with served(Hub(identify=identify, authorize=allow), callbacks=True) as server:
        async with client(server) as one:
            await asked.wait()
            one.peer.close()
            await ended.wait()


async def test_whom_the_application_knows_already_is_not_asked_for() -> None:
    async def greet(ws: rawws.WebSocket) -> None:
        ws.identity = ANN
        await hub.serve(ws)

    def poll(asked: rawws.HttpRequest) -> Any:
        asked.identity = ANN
        return hub.poll(asked)

    def identify(_: Any) -> Any:
        raise AssertionError("it is known")

    hub = Hub(identify=identify, authorize=lambda asker, *_: asker.identity is ANN)
    routes = rawws.Routes()
    routes.websocket("/ws")(greet)
    routes.get("/poll")(poll)
    # And what the application asks for by itself is nobody's.
    routes.get("/own")(lambda asked: hub.poll(asked, "news"))
    async with rawws.serve(routes, "127.0.0.1", 0, subprotocols=["rawws.v1"]) as server, client(server) as ann:
        assert (await ann.ask(id=1, subscribe="a"))["recovered"]
        assert (await fetch(server, "/poll?topic=a"))[0] == 200
        assert (await fetch(server, "/own"))[0] == 200


@pytest.mark.parametrize("server", SERVERS)
async def test_in_asgi_it_is_the_same(server: str) -> None:
    seen = []

    def authorize(asker: Any, *_: str) -> bool:
        seen.append((asker.identity.user, endpoints.token_of(asker)))
        return True

    hub = Hub(identify=known_later, authorize=authorize)
    async with in_asgi(server, hub.asgi()) as address, httpx.AsyncClient() as http:
        async with rawws.connect(f"ws://{address}/?token=ann", subprotocols=["rawws.v1"]) as ws:
            await ws.send('{"id": 1, "subscribe": "a"}')
            await ws.recv()
            await ws.send('{"id": 2, "renew": "eve"}')
            assert json.loads(await ws.recv()) == {
                "id": 2,
                "error": "refused",
                "reason": "the token is of somebody else",
            }
        async with rawws.connect(f"ws://{address}/?token=wrong", subprotocols=["rawws.v1"]) as ws:
            with pytest.raises(rawws.ConnectionClosed):
                await ws.recv()
            assert (ws.close_code, ws.close_reason) == (4401, "the token is wrong")
        assert (await http.get(f"http://{address}/?topic=a&token=wrong")).status_code == 401
        assert (await http.get(f"http://{address}/?topic=a&token=bob")).status_code == 200
    assert seen == [("ann", "ann"), ("bob", "bob")]


# -- until when


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have clients told at once that their identity will end, and not where half of it is over."""
    monkeypatch.setattr("rawws.topics.sessions.NOTICE_SHARE", 1.0)


class Tokens:
    """Tokens such as "ann 0.3": a user, and how many seconds it has."""

    def __init__(self, *, later: bool = False) -> None:
        self.later = later
        self.asked: list[str] = []

    def __call__(self, asker: Any) -> Any:
        self.asked.append(asker.token)
        return self.find(asker.token) if self.later else self.known(asker.token)

    async def find(self, token: str) -> Identity | None:
        return self.known(token)

    def known(self, token: str) -> Identity | None:
        user, _, seconds = token.partition(" ")
        if user == "wrong":
            raise rawws.HttpError(401, "the token is wrong")
        return Identity(user, None, time.time() + float(seconds) if seconds else None) if user else None


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("callbacks", [False, True])
async def test_whose_token_expires_is_told_in_time_and_closed(callbacks: bool) -> None:
    hub = Hub(identify=Tokens(), authorize=allow)
    async with served(hub, callbacks=callbacks) as server, client(server, *bearer("ann 0.3")) as ann:
        told = await ann.hear()
        assert set(told) == {"expires"}
        assert 0 < told["expires"] <= 0.3
        assert await closed(ann) == (4401, "the identity has expired")


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("callbacks", [False, True])
@pytest.mark.parametrize("later", [False, True])
async def test_who_renews_its_token_stays(callbacks: bool, later: bool) -> None:
    tokens = Tokens(later=later)
    hub = Hub(identify=tokens, authorize=allow)
    async with served(hub, callbacks=callbacks) as server, client(server, *bearer("ann 50")) as ann:
        assert set(await ann.hear()) == {"expires"}
        renewed = await ann.ask(id=2, renew="ann 7000")
        assert renewed["id"] == 2
        assert 6900 < renewed["expires"] <= 7000
        assert await ann.ask(id=3, renew="ann") == {"id": 3}
        assert (await ann.ask(id=4, publish="b", data="x"))["id"] == 4
    assert tokens.asked == ["ann 50", "ann 7000", "ann"]


@pytest.mark.parametrize("later", [False, True])
async def test_a_token_of_somebody_else_or_of_nobody_renews_nothing(later: bool) -> None:
    tokens = Tokens(later=later)
    seen = []

    def authorize(asker: Any, *_: str) -> bool:
        seen.append((asker.identity and asker.identity.user, asker.token))
        return True

    hub = Hub(identify=tokens, authorize=authorize)
    async with served(hub) as server, client(server, *bearer("ann")) as ann, client(server) as nobody:
        for token, reason in {
            "eve": "the token is of somebody else",
            "": "the token is of somebody else",
            "wrong": "the token is wrong",
            "ann -1": "the identity has expired",
        }.items():
            assert await ann.ask(id=1, renew=token) == {"id": 1, "error": "refused", "reason": reason}
        await ann.ask(id=2, subscribe="a")
        nothing = {"id": 1, "error": "refused", "reason": "there is nothing to renew"}
        assert await nobody.ask(id=1, renew="ann") == nothing
        await nobody.ask(id=2, subscribe="a")
    assert seen == [("ann", "ann"), (None, "")]
    async with served(Hub(authorize=allow)) as server, client(server) as one:
        assert await one.ask(id=1, renew="ann") == nothing


async def test_what_is_expired_lets_nobody_in() -> None:
    hub = Hub(identify=Tokens(), authorize=allow)
    async with served(hub) as server:
        async with client(server, *bearer("ann -1")) as ann:
            assert await closed(ann) == (4401, "the identity has expired")
        assert (await ask(server, get("/poll?topic=a&token=ann%20-1", "Connection: close")))[0].status == 401


async def test_a_stream_ends_with_its_identity_and_a_poll_is_held_no_longer() -> None:
    hub = Hub(identify=Tokens(), authorize=allow)
    async with served(hub) as server:
        async with feed(server, "/stream?topic=a", "Authorization: Bearer ann 0.2", "Connection: close") as stream:
            await stream.data()
            await stream.peer.read_to_end()
        _, first = await fetch(server, "/poll?topic=a")
        began = asyncio.get_running_loop().time()
        status, _ = await fetch(server, f"/poll?topic=a&token=ann%200.2&since={first['cursor']}")
        assert status == 204
        # Else it would be held for that long, and then answered so.
        assert asyncio.get_running_loop().time() - began < POLL_TIMEOUT
        # A renewal is asked over a WebSocket.
        body = b'{"id": 1, "renew": "ann"}'
        [answer] = await ask(server, get("/", "Connection: close", method="POST", body=body), ["POST"])
        assert json.loads(answer.body)["error"] == "malformed"
    await eventually(lambda: hub.stats().subscribers == 0)


async def test_a_clock_that_is_slower_than_the_world_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rawws.topics.sessions.LOOK", 0.01)
    hub = Hub(identify=Tokens(), authorize=allow)
    async with served(hub) as server, client(server, *bearer("ann 0.3")) as ann:
        assert set(await ann.hear()) == {"expires"}
        assert await closed(ann) == (4401, "the identity has expired")


async def test_who_is_about_to_leave_is_not_told_and_what_is_over_does_nothing_more() -> None:
    seen: list[rawws.WebSocket] = []

    async def handler(ws: rawws.WebSocket) -> None:
        seen.append(ws)

    async with rawws.serve(handler, "127.0.0.1", 0) as server:
        peer = await Peer.reach(server.sockets[0].getsockname())
        await peer.shake_hands()
        await peer.finish()
        peer.close()
    remind(seen[0], 1.0)
    ended: list[tuple[int, str]] = []
    sessions = ClientSessions()
    sessions.begin("x", None, lambda *_: None)
    sessions.begin("y", Identity("ann", None, time.time() + 0.001), lambda *end: ended.append(end))
    [session] = sessions.of("ann")
    while (session.identity.left() or 0.0) > 0:
        pass
    # Its time is over before the loop looked.
    assert (sessions.is_over("x"), sessions.is_over("y"), sessions.is_over("y")) == (False, True, True)
    assert ended == [(4401, "the identity has expired")]
    sessions.end("x")
    sessions.end("y")
    assert (sessions.is_over("y"), sessions.of("ann")) == (False, [])


@pytest.mark.parametrize("callbacks", [False, True])
async def test_what_is_asked_behind_the_end_is_not_done(callbacks: bool) -> None:
    """A verdict that comes when the identity is over is none, and neither is what waits behind it."""
    verdict: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    waiting = asyncio.Event()

    async def authorize(*_: Any) -> bool:
        waiting.set()
        return await verdict

    hub = Hub(identify=Tokens(), authorize=authorize)
    async with served(hub, callbacks=callbacks) as server, client(server, *bearer("ann 0.2")) as ann:
        await ann.peer.send('{"publish":"a","data":"x"}', '{"publish":"a","data":"y"}')
        await waiting.wait()
        assert await closed(ann) == (4401, "the identity has expired")
        verdict.set_result(True)
    assert hub.stats().published == 0


# -- what it may say


async def bobs(asker: Any, topic: str, data: Any) -> Any:
    await asyncio.sleep(0)
    return edited(asker, topic, data)


def edited(asker: Any, topic: str, data: Any) -> Any:
    if data == "nothing":
        return None
    if data == "bad":
        raise rawws.Refused("no bad words")
    return f"{asker.identity.user} in {topic}: {data}"


@pytest.mark.parametrize("callbacks", [False, True])
@pytest.mark.parametrize("on_publish", [edited, bobs])
async def test_what_a_client_publishes_is_checked_and_changed(callbacks: bool, on_publish: Any) -> None:
    hub = Hub(identify=known, authorize=allow, on_publish=on_publish)
    async with served(hub, callbacks=callbacks) as server, client(server, *bearer("ann")) as ann:
        await ann.ask(id=1, subscribe="a")
        await ann.say(publish="a", data="hello")
        assert (await ann.hear())["data"] == "ann in a: hello"
        assert await ann.ask(id=2, publish="a", data="nothing") == {"id": 2, "error": "refused"}
        bad = {"id": 3, "error": "refused", "reason": "no bad words"}
        assert await ann.ask(id=3, publish="a", data="bad") == bad

        async def post(data: str) -> tuple[int, Any]:
            body = json.dumps({"id": 3, "publish": "a", "data": data}).encode()
            request = get("/", "Connection: close", *bearer("bob"), method="POST", body=body)
            [answer] = await ask(server, request, ["POST"])
            return answer.status, json.loads(answer.body)

        assert await post("bad") == (403, bad)
        assert (await post("hello"))[0] == 200
        assert (await ann.hear())["data"] == "bob in a: hello"
        # What the application publishes is its own.
        hub.publish("a", "bad")
        assert (await ann.hear())["data"] == "bad"


async def allowed_later(asker: Any, topic: str) -> None:
    await asyncio.sleep(0)
    allowed(asker, topic)


def allowed(asker: Any, topic: str) -> None:
    if topic.startswith("private/"):
        raise rawws.Refused(f"{topic} is not for {asker.identity.user}")


@pytest.mark.parametrize("callbacks", [False, True])
@pytest.mark.parametrize("on_subscribe", [allowed, allowed_later])
async def test_the_application_hears_of_a_subscription_before_and_may_refuse_it(
    callbacks: bool, on_subscribe: Any
) -> None:
    hub = Hub(identify=known, authorize=allow, on_subscribe=on_subscribe)
    reason = "private/x is not for ann"
    async with served(hub, callbacks=callbacks) as server, client(server, *bearer("ann")) as ann:
        refused = {"id": 1, "error": "refused", "reason": reason}
        assert await ann.ask(id=1, subscribe="private/x") == refused
        assert (await ann.ask(id=2, subscribe="a"))["recovered"]
        for where in ("/poll", "/stream"):
            status, said = await fetch(server, f"{where}?topic=a&topic=private/x&token=ann")
            assert (status, said) == (403, {"error": "refused", "reason": reason})
        assert (await fetch(server, "/poll?topic=a&token=ann"))[0] == 200
        async with feed(server, "/stream?topic=a&topic=b&token=ann") as stream:
            assert (await stream.data())["recovered"]
    await eventually(lambda: hub.stats().subscribers == 0)


@pytest.mark.parametrize("later", [False, True])
async def test_authorize_may_give_a_reason_too(later: bool) -> None:
    async def refuse_later() -> bool:
        raise rawws.Refused("ask for an invitation")

    def authorize(*_: Any) -> Any:
        if later:
            return refuse_later()
        raise rawws.Refused("ask for an invitation")

    refused = {"error": "refused", "reason": "ask for an invitation"}
    async with served(Hub(authorize=authorize)) as server, client(server) as ann:
        assert await ann.ask(id=1, subscribe="a") == {"id": 1, **refused}
        assert await fetch(server, "/poll?topic=a") == (403, refused)


@pytest.mark.parametrize("callbacks", [False, True])
async def test_what_the_hooks_raise_otherwise_is_their_own_fault(logged: Logged, callbacks: bool) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError

    hub = Hub(authorize=allow, on_publish=broken, on_subscribe=broken)
    async with served(hub, callbacks=callbacks) as server:
        for asked in ({"subscribe": "a"}, {"publish": "a", "data": "x"}):
            async with client(server) as one:
                await one.say(**asked)
                assert await closed(one) == (1011, "internal error")
            logged.take("connection handler failed", ZeroDivisionError)


# -- who said it


@pytest.mark.parametrize("callbacks", [False, True])
async def test_publications_of_clients_say_who_it_was_and_only_the_server_does(callbacks: bool) -> None:
    hub = Hub(identify=known, authorize=allow)
    listening = hub.listen("a", since="earliest")
    async with served(hub, callbacks=callbacks) as server, client(server, *bearer("ann")) as ann:
        async with client(server) as anybody, feed(server, "/stream?topic=a") as stream:
            await stream.data()
            await anybody.ask(id=1, subscribe="a")
            await ann.ask(id=1, publish="a", data="[1]", json=True, event="move")
            said = {"data": "[1]", "json": True, "event": "move", "user": "ann"}
            for heard in (await anybody.hear(), await stream.data()):
                assert {name: value for name, value in heard.items() if name not in {"topic", "cursor"}} == said
            body = b'{"publish": "a", "data": "x"}'
            post = get("/", *bearer('b"b'), "Connection: close", method="POST", body=body)
            assert (await ask(server, post, ["POST"]))[0].status == 200
            assert (await anybody.hear())["user"] == 'b"b'
            assert "user" not in await anybody.ask(publish="a", data="y")
            malformed = await anybody.ask(id=2, publish="a", data="x", user="ann")
            assert malformed == {"id": 2, "error": "malformed", "reason": "publish has no 'user'"}
            hub.publish("a", "z")
            assert "user" not in await anybody.hear()
    found = [await anext(listening) for _ in range(4)]
    assert [each.user for each in found] == ["ann", 'b"b', None, None]
    await listening.aclose()


async def test_on_publish_gets_what_json_stands_for_and_may_make_anything_of_it() -> None:
    def on_publish(_asker: Any, _topic: str, data: Any) -> Any:
        if data == {"price": 1}:
            return {**data, "checked": True}
        return data if isinstance(data, (str, bytes)) else "no JSON"

    hub = Hub(identify=known, authorize=allow, on_publish=on_publish)
    async with served(hub) as server, client(server, *bearer("ann")) as ann:
        await ann.ask(id=1, subscribe="a")
        for asked, wanted in (
            ({"data": '{"price":1}', "json": True, "event": "e"}, {"data": '{"price":1,"checked":true}', "json": True}),
            ({"data": "7", "json": True}, {"data": "no JSON"}),
            ({"data": '{"price":1}'}, {"data": '{"price":1}'}),
            ({"base64": "AAE="}, {"base64": "AAE="}),
        ):
            heard = await ann.ask(publish="a", **asked)
            event = {"event": "e"} if "event" in asked else {}
            said = {name: value for name, value in heard.items() if name not in {"topic", "cursor"}}
            assert said == {**wanted, **event, "user": "ann"}


@pytest.mark.parametrize(("left", "wait"), [(100, 50), (1000, 940), (10_000, 3600)])
async def test_a_client_is_told_a_minute_before_its_end_or_at_half_of_its_time(left: float, wait: float) -> None:
    sessions = ClientSessions()
    sessions.begin(1, Identity("ann", expires=time.time() + left), lambda *_: None, lambda _: None)
    [session] = sessions.of("ann")
    assert session.timer is not None
    due = session.timer.when() - asyncio.get_running_loop().time()
    assert abs(due - wait) < 5
    sessions.end(1)
    assert (session.timer.cancelled() if session.timer else True, sessions._users) == (True, {})
    # One that comes too late begins nothing.
    session.renew(Identity("ann", expires=time.time() + left))
    assert session.timer is None
