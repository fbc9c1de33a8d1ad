"""The Pusher face, message by message: what is refused, with which code, and what nobody gets."""

from __future__ import annotations

import asyncio
import json
from typing import Any, final

import pytest

import rawws
from rawws.gateway.events import GatewayEvent
from rawws.gateway.loading import read_config
from rawws.gateway.model import GatewayConnection
from rawws.gateway.pusher_rules import is_signed, signature_of
from tests.gateway.running import APP, KEY, SECRET, Running, app_file, gateway
from tests.server.peers import eventually

PATIENCE = 60
SUCCEEDED = "pusher_internal:subscription_succeeded"


@final
class Client:
    """A client that says what a test has it say."""

    def __init__(self, ws: rawws.WebSocket) -> None:
        self.ws = ws
        self.socket_id = ""

    async def said(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE):
            message: dict[str, Any] = json.loads(await self.ws.recv())
        return message

    async def got(self, event: str) -> Any:
        """Return the data of the next message, which is this event."""
        message = await self.said()
        assert message["event"] == event, message
        return json.loads(message["data"]) if "data" in message else None

    async def ask(self, event: str, data: Any = None, **more: Any) -> None:
        await self.ws.send(json.dumps({"event": event, "data": data, **more}))

    async def subscribe(self, channel: str, member: Any = None, *, secret: str = SECRET) -> Any:
        told = None if member is None else json.dumps(member)
        signed = f"{self.socket_id}:{channel}" + ("" if told is None else f":{told}")
        data = {"channel": channel, "auth": f"{KEY}:{signature_of(secret, signed)}"}
        await self.ask("pusher:subscribe", data if told is None else {**data, "channel_data": told})
        return await self.said()

    async def sign_in(self, told: str) -> None:
        auth = signature_of(SECRET, f"{self.socket_id}::user::{told}")
        await self.ask("pusher:signin", {"auth": f"{KEY}:{auth}", "user_data": told})

    async def closed(self) -> tuple[int, str]:
        """Return the last error, which stands in the close frame too."""
        error = await self.got("pusher:error")
        async with asyncio.timeout(PATIENCE):
            await self.ws.wait_closed()
        assert (self.ws.close_code, self.ws.close_reason) == (error["code"], error["message"])
        return error["code"], error["message"]

    async def quiet(self) -> None:
        """Check that nothing else came."""
        await self.ask("pusher:ping", {})
        await self.got("pusher:pong")


async def reach(running: Running, *, key: str = KEY, query: str = "protocol=7", **options: Any) -> Client:
    return Client(await rawws.connect(f"ws://127.0.0.1:{running.port}/app/{key}?{query}", **options))


async def greeted(running: Running, **options: Any) -> Client:
    client = await reach(running, **options)
    greeting = await client.got("pusher:connection_established")
    client.socket_id = greeting["socket_id"]
    assert greeting["activity_timeout"] == 120
    return client


# -- who may stay


@pytest.mark.parametrize(
    ("more", "key", "query", "code"),
    [
        ("", "unknown", "protocol=7", 4001),
        ("enabled = false", KEY, "protocol=7", 4003),
        ("", KEY, "", 4008),
        ("", KEY, "protocol=4", 4007),
        ("", KEY, "protocol=seven", 4007),
        ("", KEY, "protocol=7&version=" + "9" * 65, 4006),
    ],
)
async def test_who_may_not_stay_is_told_why_by_the_error_and_by_the_close_code(
    more: str, key: str, query: str, code: int
) -> None:
    async with gateway(app_file(more)) as running:
        client = await reach(running, key=key, query=query)
        assert (await client.closed())[0] == code
        assert running.gateway.connections == {}


async def test_connections_over_the_limits_of_an_app_and_of_the_gateway_are_told_to_go() -> None:
    async with gateway(app_file("max_connections = 1")) as running:
        await greeted(running)
        assert await (await reach(running)).closed() == (4004, "the app has 1 connections, the limit")
    async with gateway(app_file(head="[gateway]\nmax_connections = 1")) as running:
        await greeted(running)
        assert await (await reach(running)).closed() == (4100, "the gateway has 1 connections, the limit")


async def test_pages_of_other_origins_are_refused_before_there_is_a_connection() -> None:
    async with gateway(app_file('origins = ["https://example.com"]')) as running:
        await greeted(running, origin="https://example.com")
        await greeted(running)
        for count in (1, 2):
            with pytest.raises(rawws.InvalidStatus, match="403"):
                await reach(running, origin="https://example.org")
            assert running.gateway.figures_of(APP, "pusher").refused == {403: count}
    async with gateway() as running:
        await greeted(running, origin="https://example.org")


async def test_a_gateway_that_ends_has_its_clients_come_back_at_once() -> None:
    api = '[[api]]\nid = "chat"\npath = "/prod"\ncredentials = [{ key = "k", secret = "s" }]'
    async with gateway(app_file() + api) as running:
        client = await greeted(running)
        async with rawws.connect(f"ws://127.0.0.1:{running.port}/prod") as other:
            await running.server.drain()
            assert client.ws.close_code == 4200
            # Clients of API Gateway know nothing of that code.
            assert other.close_code == 1001


async def test_a_client_that_sends_too_fast_is_not_read_for_a_while_and_loses_nothing() -> None:
    async with gateway(app_file(head="[gateway]\nmessage_rate = 5")) as running:
        client = await greeted(running)
        began = asyncio.get_running_loop().time()
        for _ in range(11):
            await client.ws.send('{"event": "pusher:ping", "data": {}}')
        for _ in range(11):
            await client.got("pusher:pong")
        # Five at once; and the last one is answered when a second and more has passed.
        assert asyncio.get_running_loop().time() - began > 0.9


async def test_who_does_not_sign_in_or_subscribe_in_time_is_told_to_go() -> None:
    async with gateway(app_file("user_auth_timeout = 1")) as running:
        private = await greeted(running)
        assert (await private.subscribe("private-a"))["event"] == "pusher_internal:subscription_succeeded"
        user = await greeted(running)
        await user.sign_in('{"id":"ann"}')
        await user.got("pusher:signin_success")
        late = await greeted(running)
        assert await late.closed() == (4009, "nobody signed in, in time")
        await private.quiet()
        await user.quiet()


# -- what a client says


@pytest.mark.parametrize("text", ["no json", "[]", "{}", '{"event": 7}', "[" * 50000])
async def test_what_is_no_event_is_told_and_the_connection_stays(text: str) -> None:
    async with gateway() as running:
        client = await greeted(running)
        await client.ws.send(text)
        error = await client.got("pusher:error")
        assert error == {"code": None, "message": 'the message is no JSON object with "event"'}
        await client.ask("pusher:pong", {})
        await client.ask("pusher:unknown", {})
        assert "allowed are pusher:subscribe" in (await client.got("pusher:error"))["message"]
        await client.quiet()


async def test_data_may_be_a_string_of_json_and_unsubscribing_from_nothing_is_nothing() -> None:
    async with gateway() as running:
        client = await greeted(running)
        await client.ask("pusher:subscribe", '{"channel": "room"}')
        await client.got("pusher_internal:subscription_succeeded")
        for channel in ("other", 7, "room", "room"):
            await client.ask("pusher:unsubscribe", {"channel": channel})
        await client.ask("pusher:subscribe", "{")
        assert (await client.got("pusher:subscription_error"))["type"] == "InvalidChannel"
        assert running.gateway.counts == {}


async def test_a_binary_message_and_one_that_is_too_large_close_the_connection() -> None:
    async with gateway() as running:
        for message, code in ((b"{}", 1003), ("x" * 100_000, 1009)):
            client = await greeted(running)
            await client.ws.send(message)
            async with asyncio.timeout(PATIENCE):
                await client.ws.wait_closed()
            assert client.ws.close_code == code


async def test_a_private_channel_may_be_signed_with_data_and_a_presence_channel_is_signed_with_its_data_alone() -> None:
    async with gateway() as running:
        client = await greeted(running)
        assert (await client.subscribe("private-a", {"user_id": "ann"}))["event"] == SUCCEEDED
        signature = signature_of(SECRET, f"{client.socket_id}:private-b")
        data = {"auth": f"{KEY}:{signature}", "channel_data": '{"user_id":"ann"}'}
        await client.ask("pusher:subscribe", {**data, "channel": "private-b"})
        assert (await client.said())["event"] == SUCCEEDED
        signature = signature_of(SECRET, f"{client.socket_id}:presence-c")
        await client.ask("pusher:subscribe", {**data, "auth": f"{KEY}:{signature}", "channel": "presence-c"})
        assert (await client.said())["event"] == "pusher:subscription_error"


@pytest.mark.parametrize(
    ("data", "kind", "status"),
    [
        ({}, "InvalidChannel", 400),
        ({"channel": 7}, "InvalidChannel", 400),
        ({"channel": "with space"}, "InvalidChannel", 400),
        ({"channel": "x" * 165}, "InvalidChannel", 400),
        ({"channel": "private-a"}, "AuthError", 401),
        ({"channel": "private-a", "auth": 7}, "AuthError", 401),
        ({"channel": "private-a", "auth": f"{KEY}:é"}, "AuthError", 401),
        ({"channel": "private-a", "auth": f"other:{'0' * 64}"}, "AuthError", 401),
        ({"channel": "#server-to-user-ann"}, "AuthError", 401),
        # Lone surrogates, as JSON can say them.
        ({"channel": "\ud800"}, "InvalidChannel", 400),
        ({"channel": "private-a", "auth": f"{KEY}:0", "channel_data": "\ud800"}, "AuthError", 401),
        ({"channel": "presence-a", "auth": f"{KEY}:0", "channel_data": "\ud800"}, "AuthError", 401),
    ],
)
async def test_a_subscription_that_cannot_be_is_told_with_its_kind(data: Any, kind: str, status: int) -> None:
    async with gateway() as running:
        client = await greeted(running)
        await client.ask("pusher:subscribe", data)
        error = await client.got("pusher:subscription_error")
        assert (error["type"], error["status"]) == (kind, status)


@pytest.mark.parametrize(
    ("member", "status"),
    [
        (None, 400),
        ([], 400),
        ({}, 400),
        ({"user_id": ""}, 400),
        ({"user_id": True}, 400),
        ({"user_id": "x" * 129}, 400),
        ({"user_id": "a", "user_info": "x" * 1023}, 413),
    ],
)
async def test_a_member_that_cannot_be_is_refused(member: Any, status: int) -> None:
    async with gateway() as running:
        client = await greeted(running)
        error = json.loads((await client.subscribe("presence-a", member))["data"])
        assert (error["type"], error["status"]) == ("AuthError", status)


async def test_members_are_as_many_as_a_channel_may_have_and_a_number_is_its_text() -> None:
    rule = '[[app.channel]]\nmatch = "presence-small*"\nmembers = 1'
    async with gateway(app_file(rule)) as running:
        one, same, other = [await greeted(running) for _ in range(3)]
        for client in (one, same):
            told = json.loads((await client.subscribe("presence-small", {"user_id": 7}))["data"])
            assert told == {"presence": {"ids": ["7"], "hash": {"7": None}, "count": 1}}
        error = json.loads((await other.subscribe("presence-small", {"user_id": 8}))["data"])
        assert error["type"] == "LimitReached"


async def test_channels_of_a_connection_are_limited_and_each_is_subscribed_once() -> None:
    async with gateway(app_file("limits = { channels = 1 }")) as running:
        client = await greeted(running)
        await client.subscribe("a")
        assert json.loads((await client.subscribe("a"))["data"])["type"] == "AlreadySubscribed"
        assert json.loads((await client.subscribe("b"))["data"])["type"] == "LimitReached"


# -- events of clients


async def test_client_events_are_refused_where_they_may_not_be() -> None:
    async with gateway() as running:
        client = await greeted(running)
        await client.subscribe("public")
        await client.subscribe("private-a")
        await client.subscribe("private-encrypted-a")
        for channel in ("public", "private-b", "private-encrypted-a", 7):
            await client.ask("client-x", {}, channel=channel)
            assert (await client.got("pusher:error"))["code"] == 4301
        await client.ask("client-" + "x" * 200, {}, channel="private-a")
        assert "name of the event" in (await client.got("pusher:error"))["message"]
        await client.ask("client-x", "x" * 10241, channel="private-a")
        assert "over 10240 bytes" in (await client.got("pusher:error"))["message"]
        # Text without UTF-8, and numbers that JSON has not: nobody who hears of it could parse it.
        for data in ('"\\ud800"', '{"a":"\\ud800"}', "NaN", "1e999", '{"a":-Infinity}'):
            await client.ws.send(f'{{"event":"client-x","channel":"private-a","data":{data}}}')
            assert (await client.got("pusher:error"))["code"] == 4301
    async with gateway(app_file().replace("client_events = true", "")) as running:
        client = await greeted(running)
        await client.subscribe("private-a")
        await client.ask("client-x", {}, channel="private-a")
        assert (await client.got("pusher:error"))["message"] == "the app takes no client events"


async def test_the_eleventh_client_event_of_a_second_is_refused_and_the_sender_hears_none() -> None:
    async with gateway() as running:
        sender, other = await greeted(running), await greeted(running)
        await sender.subscribe("private-a")
        await other.subscribe("private-a")
        for number in range(11):
            await sender.ask("client-x", number, channel="private-a")
        assert (await sender.got("pusher:error"))["code"] == 4301
        assert [(await other.said())["data"] for _ in range(10)] == list(range(10))
        await sender.quiet()


async def test_the_user_of_a_client_event_is_the_one_that_was_signed() -> None:
    async with gateway() as running:
        sender, other = await greeted(running), await greeted(running)
        await other.subscribe("presence-a", {"user_id": "bob"})
        await sender.subscribe("presence-a", {"user_id": "ann"})
        assert (await other.said())["event"] == "pusher_internal:member_added"
        await sender.ask("client-x", "text", channel="presence-a", user_id="eve")
        assert await other.said() == {
            "event": "client-x",
            "channel": "presence-a",
            "data": "text",
            "user_id": "ann",
        }


# -- counts


async def test_subscribers_are_told_how_many_they_are_where_the_app_wants_it() -> None:
    async with gateway(app_file("subscription_count = true")) as running:
        one, other = await greeted(running), await greeted(running)
        for client in (one, other):
            assert (await client.subscribe("a"))["event"] == "pusher_internal:subscription_succeeded"
        assert await other.got("pusher_internal:subscription_count") == {"subscription_count": 2}
        while (await one.got("pusher_internal:subscription_count"))["subscription_count"] != 2:
            pass
        await other.ask("pusher:unsubscribe", {"channel": "a"})
        assert await one.got("pusher_internal:subscription_count") == {"subscription_count": 1}
        await one.ask("pusher:unsubscribe", {"channel": "a"})
        await one.subscribe("presence-a", {"user_id": "ann"})
        await one.quiet()


# -- users


async def test_a_sign_in_that_is_wrong_ends_the_connection() -> None:
    async with gateway() as running:
        for told in ("no json", "[]", '{"id": 7}', '{"id": ""}', json.dumps({"id": "x" * 129})):
            client = await greeted(running)
            await client.sign_in(told)
            assert (await client.closed())[0] == 4009
        for auth, told in (("x", '{"id":"a"}'), (f"{KEY}:0", "\ud800")):
            client = await greeted(running)
            await client.ask("pusher:signin", {"auth": auth, "user_data": told})
            assert await client.closed() == (4009, "the signature of the user is wrong or missing")


async def test_a_user_whose_name_fits_in_no_topic_is_refused_with_the_reason() -> None:
    # 128 characters, and 512 bytes.
    user = "\N{GRINNING FACE}" * 128
    async with gateway() as running:
        client = await greeted(running)
        refused = await client.subscribe("presence-a", {"user_id": user})
        assert refused["event"] == "pusher:subscription_error"
        assert json.loads(refused["data"])["type"] == "Unavailable"
        assert not running.gateway.counts
        await client.sign_in(json.dumps({"id": user}))
        error = await client.got("pusher:error")
        assert (error["code"], "255" in error["message"]) == (4009, True)
        # The Close frame has what fits into it.
        async with asyncio.timeout(PATIENCE):
            await client.ws.wait_closed()
        assert client.ws.close_code == 4009
        assert client.ws.close_reason
        assert error["message"].startswith(client.ws.close_reason)


async def test_who_is_signed_in_may_be_present_as_that_user_and_as_no_other() -> None:
    async with gateway() as running:
        client = await greeted(running)
        told = {"id": "ann", "user_info": {"name": "Ann"}, "watchlist": [f"u{n}" for n in range(101)] + ["ann", "\n"]}
        await client.sign_in(json.dumps(told))
        assert (await client.got("pusher:error"))["code"] == 4302
        await client.got("pusher:signin_success")
        await client.sign_in('{"id":"ann"}')
        found = json.loads((await client.subscribe("presence-a"))["data"])
        assert found["presence"]["hash"] == {"ann": {"name": "Ann"}}
        await client.subscribe("#server-to-user-ann")
        await client.sign_in('{"id":"bob"}')
        assert await client.closed() == (4009, "another user is signed in")


# -- what is told


@final
class Observer:
    """Writes down what happens."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def on_count(self, app: str, key: str, count: int) -> None:
        self.told.append((app, key, count))

    def on_client_event(self, connection: GatewayConnection, channel: str, event: GatewayEvent) -> None:
        self.told.append(("said", channel, event.name, event.data, connection.id.socket_id == event.exclude))

    def on_cache_miss(self, app: str, channel: str) -> None:
        self.told.append(("missed", app, channel))

    def on_missed(self, app: str, user: str, event: GatewayEvent) -> None:
        self.told.append(("missed", user))

    def on_subscription_count(self, app: str, channel: str, count: int) -> None:
        self.told.append(("counted", app, channel, count))

    def on_opened(self, connection: GatewayConnection) -> None:
        self.told.append(("opened", connection.face))

    def on_closed(self, connection: GatewayConnection, code: int, reason: str) -> None:
        self.told.append(("closed", code))


async def test_observers_are_told_of_what_happens() -> None:
    async with gateway() as running:
        observer = Observer()
        running.gateway.observers.append(observer)
        client = await greeted(running)
        await client.subscribe("presence-cache-a", {"user_id": "ann"})
        await client.said()
        await client.ask("client-x", {"a": 1}, channel="presence-cache-a")
        await client.sign_in('{"id":"ann"}')
        await client.got("pusher:signin_success")
        await client.ws.close(1000)
        await eventually(lambda: not running.gateway.connections)
    assert observer.told == [
        ("opened", "pusher"),
        ("missed", APP, "presence-cache-a"),
        (APP, "c:presence-cache-a", 1),
        (APP, "m:presence-cache-a:ann", 1),
        ("said", "presence-cache-a", "client-x", '{"a":1}', True),
        (APP, "u:ann", 1),
        (APP, "c:presence-cache-a", 0),
        (APP, "m:presence-cache-a:ann", 0),
        (APP, "u:ann", 0),
        ("closed", 1000),
    ]


# -- configuration


async def test_observers_are_told_how_many_are_subscribed_where_the_app_counts_them() -> None:
    async with gateway(app_file("subscription_count = true")) as running:
        observer = Observer()
        running.gateway.observers.append(observer)
        client = await greeted(running)
        await client.subscribe("a")
        assert await client.got("pusher_internal:subscription_count") == {"subscription_count": 1}
    assert ("counted", APP, "a", 1) in observer.told


async def test_a_reload_holds_from_the_next_message_on() -> None:
    async with gateway() as running:
        client = await greeted(running)
        reloaded: list[Any] = []
        running.gateway.on_reload.append(reloaded.append)
        running.gateway.reload(read_config(app_file().replace('"3"', '"4"').replace(KEY, "new-key")))
        assert reloaded == [running.gateway.config]
        await client.ask("pusher:subscribe", {"channel": "a"})
        assert await client.closed() == (4001, "the app is gone")
        assert (await (await reach(running)).closed())[0] == 4001
        await greeted(running, key="new-key")


def test_the_signatures_are_those_of_the_documentation() -> None:
    private = signature_of(SECRET, "1234.1234:private-foobar")
    assert private == "58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"
    user = signature_of(SECRET, '1234.1234::user::{"id":"12345"}')
    assert user == "4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba"
    app = read_config(app_file()).apps[0]
    assert is_signed(app, f"{KEY}:{private}", "1234.1234:private-foobar")
    assert not is_signed(app, f"{KEY}:{private}", "1234.1234:private-other")
