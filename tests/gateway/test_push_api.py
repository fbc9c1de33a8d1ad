"""Requests about devices and notifications: who may ask, what is wrong with them, and what is never told."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from rawws.gateway import push_face
from rawws.gateway.loading import read_config
from rawws.gateway.push_devices import DevicesAway, MemoryDevices
from tests.gateway.push_running import DEVICE, app_server, push_file, pushing
from tests.gateway.running import APP, app_file, gateway
from tests.server.peers import Logged, eventually


async def test_a_device_is_kept_told_of_without_its_token_and_forgotten(tmp_path: Path) -> None:
    async with pushing(tmp_path) as push:
        before = time.time()
        kept = await push.server.register()
        assert kept.status == 200
        since = kept.body.pop("since")
        assert before <= since <= time.time()
        assert kept.body == {"id": "phone", "service": "fcm", "user": "ann"}
        assert (await push.server.ask("GET", "/devices/phone")).body == {**kept.body, "since": since}
        listed = await push.server.ask("GET", "/users/ann/devices")
        assert listed.body == {"devices": [{**kept.body, "since": since}]}
        assert (await push.server.register(user="ben")).status == 200
        assert (await push.server.ask("GET", "/users/ann/devices")).body == {"devices": []}
        for deleted in (True, False):
            assert (await push.server.ask("DELETE", "/devices/phone")).body == {"deleted": deleted}
        assert (await push.server.ask("GET", "/devices/phone")).body == {
            "error": "gone",
            "reason": "there is no such device",
        }


WRONG_DEVICES: list[tuple[Any, str]] = [
    (None, "service"),
    (b"{", "the body is not JSON"),
    (b'{"user": "ann", "user": "ben"}', "a name stands twice"),
    (b'{"user": NaN}', "NaN is no number"),
    ([], "the body is list, allowed is an object"),
    ({**DEVICE, "id": "x"}, "the body has 'id', allowed are service, token, user, keys"),
    ({**DEVICE, "service": "sms"}, "service is 'sms', allowed are apns, fcm, web"),
    ({**DEVICE, "service": "apns", "token": "ab" * 32}, "the device is of 'apns', services are fcm"),
    ({**DEVICE, "token": "a b"}, "the token of fcm is none"),
    ({**DEVICE, "user": ""}, "the user is no text of 1 to"),
    ({**DEVICE, "user": 5}, "wrong in the device: user"),
]


async def test_a_device_that_is_none_is_refused_with_a_reason(tmp_path: Path) -> None:
    async with pushing(tmp_path) as push:
        for body, reason in WRONG_DEVICES:
            answer = await push.server.ask("PUT", "/devices/phone", body)
            assert (answer.status, answer.body["error"]) == (400, "malformed")
            assert reason in answer.body["reason"]
            assert "a b" not in answer.body["reason"]


WRONG_NOTIFICATIONS: list[tuple[dict[str, Any], str]] = [
    ({"users": []}, "users is no list of 1 to 1000"),
    ({"users": "ann"}, "users is no list"),
    ({"users": ["ann"] * 1001}, "users is no list"),
    ({"users": [5]}, "the user is no text"),
    ({"unless": "away"}, "unless is 'away', allowed are connected, never"),
    ({"unless": ["connected"]}, "allowed are connected, never"),
    ({"after": -1}, "after is '-1', allowed are 0 to 3600 seconds"),
    ({"after": True}, "after is 'True'"),
    ({"notification": None}, "the notification is NoneType, allowed is an object"),
    ({"notification": {"ttl": -1}}, "ttl is -1"),
    ({"more": 1}, "the body has 'more', allowed are users, notification, unless, after"),
]


async def test_a_notification_that_is_none_is_refused_whole(tmp_path: Path) -> None:
    async with pushing(tmp_path) as push:
        for change, reason in WRONG_NOTIFICATIONS:
            body = {"users": ["ann"], "notification": {"title": "Hello"}, **change}
            answer = await push.server.ask("POST", "/push", body)
            assert answer.status == 400
            assert reason in answer.body["reason"]


async def test_a_request_to_push_that_is_made_again_with_its_key_is_done_once(tmp_path: Path) -> None:
    async with pushing(tmp_path) as push:
        await push.server.register()
        body = {"users": ["ann"], "notification": {"title": "Hello"}, "after": 0}
        key = {"Idempotency-Key": "k"}
        for _ in range(3):
            assert await push.server.ask("POST", "/push", body, **key) == (200, {"users": 1})
        other = await push.server.ask("POST", "/push", {**body, "after": 1}, **key)
        assert (other.status, other.body["error"]) == (409, "conflict")
        # Of one app, a key is that of one request, whatever it asks for.
        said = await push.server.ask("POST", "/publish", {"channel": "room", "data": "Hello"}, **key)
        assert (said.status, said.body["error"]) == (409, "conflict")
        assert (await push.server.push("ann")).status == 200
        await eventually(lambda: len(push.double.pushed) >= 2)
    assert len(push.double.pushed) == 2


async def test_where_too_many_users_wait_none_of_a_request_is_notified(
    tmp_path: Path, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push_face, "MAX_WAITING", 2)
    monkeypatch.setattr(push_face, "LEAST_ROOM", 2)
    async with pushing(tmp_path) as push:
        await push.server.register()
        answer = await push.server.push("ann", "bob", "eve", "ann")
        assert (answer.status, answer.body["error"]) == (429, "limit")
        reason = "0 users of the app wait, with 3 more over 2, the limit of one app"
        assert answer.body["reason"] == reason
        logged.take(f"push for the app 3: dropped: {reason}", name="rawws.gateway")
        assert await push.server.push("ann", "bob", "ann") == (200, {"users": 2})
    assert len(push.double.pushed) == 1


async def test_only_servers_of_the_app_may_ask(tmp_path: Path) -> None:
    async with pushing(tmp_path) as push:
        server = push.server
        for asked in (server.ask("GET", "/devices/x", secret="wrong"), server.ask("GET", "/devices/x", app="other")):
            answer = await asked
            assert (answer.status, answer.body["error"]) == (401, "unauthorized")
        assert (await server.ask("GET", "/devices/x", Origin="https://example.com")).status == 403
        signed = await server.client.get(f"{server.url}{APP}/devices/x?auth_signature=x&auth_key=y")
        assert signed.status_code == 401
        text = push_file(tmp_path, push.double)
        push.running.gateway.reload(read_config(text.replace("client_events", "enabled = false\nclient_events")))
        assert (await server.ask("GET", "/devices/x")).status == 403
        limited = text.replace("client_events", "limits = { requests = 1 }\nclient_events")
        push.running.gateway.reload(read_config(limited))
        answers = [await server.ask("GET", "/devices/x") for _ in range(5)]
        assert {answer.status for answer in answers[:2]} == {404}
        assert answers[-1].status in {404, 429}


async def test_an_app_without_push_says_so() -> None:
    async with gateway(app_file()) as running, app_server(running.port) as server:
        answer = await server.register()
        assert (answer.status, answer.body["error"]) == (409, "push")


async def test_devices_that_cannot_be_asked_for_are_a_503(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: Any) -> None:
        raise DevicesAway("the Redis is away")

    monkeypatch.setattr(MemoryDevices, "put", away)
    async with pushing(tmp_path) as push:
        answer = await push.server.register()
        assert (answer.status, answer.body) == (503, {"error": "unavailable", "reason": "the Redis is away"})
