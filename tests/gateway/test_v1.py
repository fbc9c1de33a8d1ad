"""`/v1`: who may ask, what is published and looked up, and what is told where that cannot be."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest

from rawws import clock
from rawws.backplanes.memory import Engine as Memory
from rawws.gateway import servers
from rawws.gateway.loading import read_config
from tests.gateway.own_running import everything, http, own, token_file
from tests.gateway.push_running import pushing
from tests.gateway.running import APP, SECRET, app_file, gateway, pair
from tests.gateway.test_pusher_api import ask
from tests.gateway.test_pusher_api import path as of_pusher
from tests.gateway.test_pusher_protocol import greeted
from tests.gateway.v1_running import OTHER, server
from tests.server.peers import eventually

pytestmark = pytest.mark.usefixtures("patient")

EVENT = {"channel": "room", "data": "hello"}


# -- who may ask


@pytest.mark.parametrize(
    ("app", "headers", "query"),
    [
        (APP, {}, ""),
        (APP, {"Authorization": "Bearer wrong"}, ""),
        (APP, {"Authorization": f"Basic {SECRET}"}, ""),
        (APP, {"Authorization": f"Bearer {SECRET[:-1]}"}, ""),
        (APP, {"Authorization": "Bearer the secret of another"}, ""),
        (APP, {"Authorization": "Bearer wrong"}, "auth_signature=x"),
        ("5", {"Authorization": f"Bearer {SECRET}"}, ""),
        ("4", {"Authorization": f"Bearer {SECRET}"}, ""),
    ],
)
async def test_who_has_no_secret_of_the_app_learns_nothing_and_nothing_is_done(
    app: str, headers: dict[str, str], query: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with gateway(app_file() + OTHER) as running, http(running.port, **headers) as client:
        heard = await greeted(running)
        await heard.subscribe("room")
        for method, path in (("POST", "publish"), ("GET", "channels"), ("GET", "users/ann"), ("POST", "users/a/send")):
            answer = await client.request(method, f"/v1/apps/{app}/{path}?{query}", json=EVENT)
            # Whether there is that app, too.
            told = {"error": "unauthorized", "reason": servers.UNAUTHORIZED}
            assert (answer.status_code, answer.json()) == (401, told)
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        await heard.quiet()
    assert not any(SECRET[:-1] in record.getMessage() for record in caplog.records if record.name.startswith("rawws"))


async def test_a_signature_of_pusher_is_as_good_as_the_secret() -> None:
    async with gateway() as running:
        path = f"/v1/apps/{APP}/publish"
        assert (await ask(running, "POST", path, EVENT)).json()["reached"] == 0
        for wrong in ({"secret": "other"}, {"body_md5": "0" * 32}, {"auth_timestamp": "1"}):
            answer = await ask(running, "POST", path, EVENT, **wrong)
            assert (answer.status_code, answer.json()["error"]) == (401, "unauthorized")


async def test_each_secret_of_an_app_is_good_and_those_of_the_file_that_is_read_again() -> None:
    keys = 'keys = [{ key = "new", secret = "the new secret" }, { key = "old", secret = "the old secret" }]'
    text = token_file().split("keys = ")[0] + keys + "\nclient_events = true\n"
    async with gateway(text) as running:
        for secret in ("the new secret", "the old secret"):
            async with server(running, secret=secret) as asking:
                await asking.post("publish", EVENT)
        running.gateway.reload(read_config(app_file()))
        async with server(running, secret="the old secret") as asking:
            assert (await asking.refused("publish", EVENT))[:2] == (401, "unauthorized")
        async with server(running) as asking:
            await asking.post("publish", EVENT)
        running.gateway.reload(read_config(app_file("enabled = false")))
        async with server(running) as asking:
            assert await asking.refused("publish", EVENT) == (403, "refused", "the app is disabled")


async def test_a_file_that_is_read_again_leaves_nothing_behind() -> None:
    async with gateway() as running:
        before = len(running.gateway.on_reload)
        for _ in range(3):
            running.gateway.reload(read_config(app_file()))
        assert len(running.gateway.on_reload) == before


async def test_a_page_is_refused_whatever_it_has() -> None:
    async with gateway() as running, server(running) as asking:
        origin = {"Origin": f"http://127.0.0.1:{running.port}"}
        assert (await asking.refused("publish", EVENT, headers=origin))[:2] == (403, "refused")


async def test_requests_over_the_rate_are_told_to_wait_and_those_of_another_app_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = clock.monotonic()
    monkeypatch.setattr(clock, "monotonic", lambda: now)
    async with gateway(app_file("limits = { requests = 1 }") + OTHER) as running:
        async with server(running) as asking, server(running, "4", "the secret of another") as other:
            answers = [await asking.answer("GET", "channels") for _ in range(3)]
            assert [answer.status_code for answer in answers] == [200, 200, 429]
            assert answers[-1].headers["Retry-After"] == "1"
            assert answers[-1].json()["error"] == "limit"
            await other.get("channels")
        figures = running.gateway.figures_of(APP, "own")
        assert figures.requests == {200: 2, 429: 1}


# -- events


async def test_an_event_is_heard_by_clients_of_both_protocols_at_all_instances(engines: list[Memory]) -> None:
    async with pair(token_file()) as (one, other):
        pusher = await greeted(one)
        await pusher.subscribe("room")
        async with own(other.port, everything("ann")) as ann, server(one) as asking, server(other) as again:
            await ann.ask(subscribe="room")
            told = await asking.post("publish", {**EVENT, "event": "said", "count": True})
            assert (told["reached"], told["subscribers"]) == (1, {"room": 2})
            assert await pusher.said() == {"event": "said", "channel": "room", "data": "hello"}
            heard = await ann.hear()
            assert heard == {
                "topic": "room",
                "cursor": told["cursors"]["room"],
                "data": "hello",
                "event": "said",
            }
            # What JSON can say goes as its text; what is octets as octets.
            for given, data in (({"data": {"a": [1, None]}}, {"a": [1, None]}), ({"data": "[1]", "json": True}, [1])):
                await again.post("publish", {"channels": ["room", "empty", "room"], "event": "e", **given})
                assert await pusher.said() == {"event": "e", "channel": "room", "data": data}
                heard = await ann.hear()
                assert (json.loads(heard["data"]), heard["json"]) == (data, True)
            await asking.post("publish", {"channel": "room", "base64": base64.b64encode(b"\0\xff").decode()})
            assert (await ann.hear())["base64"] == "AP8="


async def test_who_is_excluded_hears_nothing() -> None:
    async with gateway() as running, server(running) as asking:
        one, other = await greeted(running), await greeted(running)
        for each in (one, other):
            await each.subscribe("room")
        await asking.post("publish", {**EVENT, "except": one.socket_id})
        assert (await other.said())["data"] == "hello"
        await one.quiet()


async def test_a_client_of_rawws_that_is_excluded_hears_nothing_at_whatever_instance(engines: list[Memory]) -> None:
    assert engines
    async with pair(token_file()) as (one, two), server(one) as asking, own(two.port, everything("ann")) as ann:
        async with own(one.port, everything("ben")) as ben, own(two.port, everything("eve")) as eve:
            pusher = await greeted(two)
            await pusher.subscribe("room")
            for each in (ann, ben, eve):
                await each.ask(subscribe="room")
            for user, excluded, others in (("ann", ann, (ben, eve)), ("ben", ben, (ann, eve))):
                [told] = (await asking.get("connections", user=user))["connections"]
                await asking.post("publish", {**EVENT, "except": told["connection"]})
                # As the libraries of Pusher have it.
                sent = {"name": "e", "channels": ["room"], "data": "1", "socket_id": told["connection"]}
                assert (await ask(one, "POST", of_pusher("events"), sent)).status_code == 200
                await asking.post("publish", {**EVENT, "data": "to all"})
                for each in others:
                    assert [(await each.hear())["data"] for _ in range(3)] == ["hello", "1", "to all"]
                assert (await excluded.hear())["data"] == "to all"
                assert [(await pusher.said())["data"] for _ in range(3)] == ["hello", "1", "to all"]


async def test_what_another_program_excludes_that_is_no_connection_excludes_nobody() -> None:
    async with gateway(token_file()) as running, own(running.port, everything("ann")) as ann:
        await ann.ask(subscribe="room")
        running.gateway.main.publish_payload(f"{APP}/room", "hello", '"except":"nobody"')
        assert (await ann.hear())["data"] == "hello"


# What cannot be published, with the status, the word, and a part of the reason.
WRONG: Final[list[tuple[Any, int, str, str]]] = [
    (b"{", 400, "malformed", "the body is not JSON"),
    (b"\xff", 400, "malformed", "the body is not UTF-8"),
    (b"[" * 100_000, 400, "malformed", "the body is not JSON"),
    (b'{"channel":"a","data":NaN}', 400, "malformed", "NaN is no number"),
    (b'{"channel":"a","data":1e999}', 400, "malformed", "data is not JSON"),
    (b'{"channel":"a","channel":"b"}', 400, "malformed", "a name stands twice"),
    (b'{"channel":"a","data":"\\ud800"}', 400, "malformed", "data has a lone surrogate"),
    (b'{"channel":"a","data":["\\ud800"]}', 400, "malformed", "data has a lone surrogate"),
    ([], 400, "malformed", "the body is list, allowed is an object"),
    ({}, 400, "malformed", "there are channel and channels, or neither, needed is one"),
    ({**EVENT, "channels": ["a"]}, 400, "malformed", "there are channel and channels, or neither"),
    ({**EVENT, "evnet": "x"}, 400, "malformed", "the body has 'evnet', allowed are channel, channels, event"),
    ({"channels": [], "data": "d"}, 400, "malformed", "channels is no list of 1 to 100 channels"),
    ({"channels": [f"a{n}" for n in range(101)], "data": "d"}, 400, "malformed", "no list of 1 to 100 channels"),
    ({"channel": "a b", "data": "d"}, 400, "malformed", "the channel is 'a b'"),
    ({"channel": 7, "data": "d"}, 400, "malformed", "the channel is int, allowed is a string"),
    ({"channels": ["a", "private-encrypted-b"], "data": "d"}, 400, "malformed", "an encrypted event is for one"),
    ({"channel": "a"}, 400, "malformed", "there are data and base64, or neither, needed is one"),
    ({**EVENT, "base64": "AA=="}, 400, "malformed", "there are data and base64, or neither"),
    ({"channel": "a", "base64": "?"}, 400, "malformed", "base64 is none"),
    ({"channel": "a", "base64": 7}, 400, "malformed", "base64 is none"),
    ({**EVENT, "json": 1}, 400, "malformed", "json is int, allowed is bool"),
    ({**EVENT, "json": True}, 400, "malformed", "data is not JSON"),
    ({**EVENT, "event": ""}, 400, "event", "event is no text of 1 to 255 printable characters"),
    ({**EVENT, "event": "\n"}, 400, "event", "event is no text"),
    ({**EVENT, "event": "é" * 200}, 400, "event", "allowed are 1 to 255 printable bytes"),
    ({**EVENT, "count": 1}, 400, "malformed", "count is int, allowed is bool"),
    ({**EVENT, "except": "nobody"}, 400, "malformed", "the connection id is 'nobody'"),
    ({**EVENT, "except": 7}, 400, "malformed", "except is int"),
    ({**EVENT, "data": "x" * 10241}, 413, "size", "data has 10241 bytes, limit 10240"),
    ({**EVENT, "push": {}}, 400, "push", "push is not configured"),
]


async def test_an_event_that_cannot_be_is_refused_whole() -> None:
    async with gateway() as running, server(running) as asking:
        client = await greeted(running)
        await client.subscribe("a")
        for body, status, code, reason in WRONG:
            found = await asking.refused("publish", body)
            assert (found[0], found[1], reason in found[2]) == (status, code, True), found
        await client.quiet()


async def test_an_event_for_a_user_is_heard_by_its_connections_alone(engines: list[Memory]) -> None:
    async with pair(token_file()) as (one, other), server(one) as asking:
        bob, fan = await greeted(one), await greeted(one)
        await bob.sign_in('{"id": "ann"}')
        await bob.got("pusher:signin_success")
        assert (await bob.subscribe("#server-to-user-ann"))["event"] == "pusher_internal:subscription_succeeded"
        async with own(other.port, everything("ann")) as ann:
            await ann.ask(subscribe="#server-to-user-ann")
            told = await asking.post("users/ann/send", {"event": "hi", "data": "hello"})
            assert told["reached"] == 1
            assert (await bob.said())["data"] == (await ann.hear())["data"] == "hello"
        await fan.quiet()
        assert (await asking.refused("users/a%20b/send", {"data": "x"}))[2].startswith(
            "the channel is '#server-to-user-a b'"
        )


async def test_an_event_for_a_user_who_is_nowhere_is_told_as_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with gateway(app_file('[[app.hook]]\nurl = "http://127.0.0.1:1"\nevents = ["user_missed"]')) as running:
        missed: list[tuple[str, str | bytes]] = []
        monkeypatch.setattr(running.gateway, "missed", lambda _, user, event: missed.append((user, event.data)))
        async with server(running) as asking:
            await asking.post("users/ann/send", {"data": "hello"})
            await asking.post("publish", {"channels": ["room", "#server-to-user-bob"], "data": "x"})
            await eventually(lambda: len(missed) == 2)
        assert missed == [("ann", "hello"), ("bob", "x")]


async def test_what_is_sent_to_a_user_who_is_nowhere_is_pushed(tmp_path: Path) -> None:
    async with pushing(tmp_path) as push, server(push.running) as asking:
        assert (await push.server.register()).status == 200
        notification = {"text": "hello", "notification": {"title": "Hello"}}
        told = await asking.post("users/ann/send", {"event": "said", "data": notification}, key="k")
        assert await asking.post("users/ann/send", {"event": "said", "data": notification}, key="k") == told
        await eventually(lambda: len(push.double.pushed) == 1)
        assert push.double.pushed[0].payload["notification"] == {"title": "Hello"}
        found = await asking.refused("publish", {**EVENT, "push": {}})
        assert found[:2] == (400, "push")
        assert found[2].startswith("an event has none: POST /push")


async def test_while_the_engine_is_away_an_instance_serves_its_own(
    engines: list[Memory], caplog: pytest.LogCaptureFixture
) -> None:
    async with pair() as (one, other), server(one) as asking:
        near, far = await greeted(one), await greeted(other)
        for each in (near, far):
            await each.subscribe("room")
        for engine in engines:
            engine.stop()
        await eventually(lambda: one.gateway.control.degraded and one.gateway.main.degraded)
        answer = await asking.answer("GET", "channels")
        assert (answer.status_code, answer.json()["error"]) == (503, "unavailable")
        assert answer.headers["Retry-After"] == "1"
        told = await asking.post("publish", EVENT)
        assert (told["reached"], told["waiting"]) == (1, True)
        assert (await near.said())["data"] == "hello"
        await far.quiet()
        for engine in engines:
            engine.start()
        assert (await far.said())["data"] == "hello"
    # What the hubs say of it.
    caplog.clear()


async def test_what_takes_too_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async with gateway() as running, server(running) as asking:

        async def hang(_app: str) -> dict[str, int]:
            await asyncio.Event().wait()
            return {}

        monkeypatch.setattr(servers, "PATIENCE", 0.05)
        monkeypatch.setattr(running.gateway, "channel_counts", hang)
        assert (await asking.refused("channels", None, "GET"))[:2] == (503, "unavailable")


async def test_what_an_engine_does_not_take_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async with gateway() as running, server(running) as asking:
        publish: Any = running.gateway.publish

        def refuse(app: str, channel: str, *given: Any) -> Any:
            refused = "" if channel == "full" else "no room"
            lost = SimpleNamespace(pending=False, accepted=False, cursor="", refused=refused)
            return publish(app, channel, *given) if channel == "good" else lost

        monkeypatch.setattr(running.gateway, "publish", refuse)
        found = await asking.refused("publish", {"channels": ["good", "bad"], "data": "x"})
        assert found == (503, "unavailable", "1 of 2 channels did not get it: no room")
        found = await asking.refused("publish", {"channel": "full", "data": ""})
        assert found[2] == "1 of 1 channels did not get it: too many publications wait already"


# -- channels


async def test_channels_are_listed_in_parts_with_how_many_are_subscribed(engines: list[Memory]) -> None:
    async with pair(token_file()) as (one, other), server(one) as asking:
        pusher = await greeted(one)
        for channel in ("room-1", "room-2", "other"):
            await pusher.subscribe(channel)
        async with own(other.port, everything("ann")) as ann:
            await ann.ask(subscribe="room-1")
            await ann.ask(subscribe="room-3")
            told = await asking.get("channels", prefix="room-", limit=2)
            first = [{"channel": "room-1", "connections": 2}, {"channel": "room-2", "connections": 1}]
            assert told == {"channels": first, "more": True}
            told = await asking.get("channels", prefix="room-", limit=2, after="room-2")
            assert told == {"channels": [{"channel": "room-3", "connections": 1}], "more": False}
            assert len((await asking.get("channels"))["channels"]) == 4
            assert await asking.get("channels/room-1") == {"channel": "room-1", "connections": 2, "members": 0}
        for query in ({"limit": "0"}, {"limit": "1001"}, {"limit": "²"}, {"limit": "many"}):
            found = await asking.refused("channels", None, "GET", params=query)
            assert found == (400, "malformed", f"limit is {query['limit']!r}, allowed are 1 to 1000")
        for wrong in ("channels/a%20b", "channels/a%20b/members", "channels/a%20b/history"):
            assert (await asking.refused(wrong, None, "GET"))[:2] == (400, "channel")


async def test_members_are_told_with_their_infos_and_connections(engines: list[Memory]) -> None:
    async with pair(token_file()) as (one, other), server(other) as asking:
        bob = await greeted(one)
        await bob.subscribe("presence-a", {"user_id": "bob", "user_info": {"name": "Bob"}})
        async with own(other.port, everything("ann")) as ann, own(one.port, everything("ann")) as again:
            for each in (ann, again):
                await each.ask(subscribe="presence-a", join=None)
            told = await asking.get("channels/presence-a/members")
            assert told == {
                "members": [
                    {"user": "ann", "info": None, "connections": 2},
                    {"user": "bob", "info": {"name": "Bob"}, "connections": 1},
                ],
                "count": 2,
                "more": False,
            }
            told = await asking.get("channels/presence-a/members", limit=1)
            assert ([each["user"] for each in told["members"]], told["more"]) == (["ann"], True)
            told = await asking.get("channels/presence-a/members", after="ann")
            assert [each["user"] for each in told["members"]] == ["bob"]
            assert (await asking.get("channels/presence-a"))["members"] == 2
        assert (await asking.get("channels/nobody/members")) == {"members": [], "count": 0, "more": False}


async def test_history_is_told_in_pages_forwards_and_backwards(engines: list[Memory]) -> None:
    async with pair() as (one, other), server(one) as asking, server(other) as again:
        cursors = [
            (await asking.post("publish", {"channel": "room", "data": f"{n}"}))["cursors"]["room"] for n in range(5)
        ]

        async def page(**query: Any) -> tuple[list[str], str, bool]:
            told = await again.get("channels/room/history", **query)
            assert all(each["topic"] == "room" for each in told["publications"])
            return [each["data"] for each in told["publications"]], told["cursor"], told["recovered"]

        assert await page() == (["0", "1", "2", "3", "4"], cursors[4], True)
        assert await page(limit=2) == (["3", "4"], cursors[4], True)
        assert await page(since=cursors[1], limit=2) == (["2", "3"], cursors[3], True)
        assert await page(before=cursors[3], limit=2) == (["1", "2"], cursors[1], True)
        assert await page(since="earliest", limit=1) == (["0"], cursors[0], True)
        wrong = {"since": "x", "before": "y"}
        assert (await again.refused("channels/room/history", None, "GET", params=wrong))[:2] == (400, "malformed")
        assert (await again.refused("channels/room/history", None, "GET", params={"since": "x"}))[:2] == (400, "cursor")


async def test_the_history_of_a_cache_channel_is_what_it_holds() -> None:
    async with gateway() as running, server(running) as asking:
        assert (
            await ask(running, "POST", of_pusher("events"), {"name": "e", "data": "d", "channel": "cache-a"})
        ).json() == {}
        await asking.post("publish", {"channel": "cache-a", "event": "e", "data": "last"})
        told = await asking.get("channels/cache-a/history")
        [last] = told["publications"]
        assert (last["topic"], last["event"], last["data"]) == ("cache-a", "e", "last")


async def test_what_is_not_there_is_not_found_and_what_is_asked_otherwise_not_allowed() -> None:
    async with gateway() as running, server(running) as asking:
        assert (await asking.answer("GET", "nothing")).status_code == 404
        assert (await asking.answer("GET", "publish")).status_code == 405
        assert (await asking.answer("DELETE", "channels/room")).status_code == 405
