"""Notifications of a gateway: who is pushed to, who is not, and what becomes of each."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

import rawws
import rawws.metrics
from rawws.backplanes.memory import Engine as Memory
from rawws.gateway import push_face
from rawws.gateway.events import GatewayEvent
from rawws.gateway.idempotency import KeptAnswers
from rawws.gateway.loading import read_config
from rawws.gateway.model import Gateway
from rawws.gateway.push_devices import DevicesAway, MemoryDevices
from rawws.gateway.push_face import PushFace
from rawws.gateway.push_messages import notification_of_event
from rawws.integrations.push import PushDevice, PushMessage
from tests.gateway.push_running import Pushing, app_server, push_file, pushing
from tests.gateway.running import APP, KEY, SECRET, app_file, gateway, pair
from tests.gateway.test_hook_clients import signed_in
from tests.integrations.push_doubles import fcm_device, push_double
from tests.server.peers import Logged, eventually

OTHER_SECRET = "the secret of another"
NOTIFICATION = {"title": "Hello", "body": "from Ben", "data": {"room": "5"}, "urgency": "high", "collapse": "room-5"}


def face_of(made: Gateway) -> PushFace:
    """Return what pushes at a gateway."""
    return next(face for face in made.faces if isinstance(face, PushFace))


def users(running: Pushing) -> dict[str, int]:
    """Return what became of users who were to be notified."""
    return {outcome: count for (_, outcome), count in face_of(running.running.gateway).users.items()}


async def test_an_event_for_a_user_goes_to_the_devices_where_nobody_is_signed_in(tmp_path: Path) -> None:
    async with pushing(tmp_path) as push:
        for ident, user in (("phone", "ann"), ("tablet", "ann"), ("other", "ben")):
            assert (await push.server.register(ident, user=user, token=f"{ident}:1")).status == 200
        ws = await signed_in(push.running.port, "ben")
        for user in ("ann", "ben", "eve"):
            data = {"text": "Hello", "notification": NOTIFICATION}
            await asyncio.to_thread(push.server.library.send_to_user, user, "said", data)
        # Without a notification, and for no user, nothing is pushed.
        await asyncio.to_thread(push.server.library.send_to_user, "ann", "said", {"text": "Hello"})
        await asyncio.to_thread(push.server.library.trigger, "room", "said", {"notification": NOTIFICATION})
        await ws.close()
        await eventually(lambda: len(push.double.pushed) == 2)
        await eventually(lambda: users(push) == {"pushed": 1, "without_device": 1})
        assert {pushed.device for pushed in push.double.pushed} == {"phone:1", "tablet:1"}
        message = push.double.pushed[0].payload
        assert message["notification"] == {"title": "Hello", "body": "from Ben"}
        assert (message["data"], message["android"]["collapse_key"]) == ({"room": "5"}, "room-5")


async def test_who_is_back_after_a_while_or_connected_elsewhere_is_not_pushed_to(
    tmp_path: Path, engines: list[Memory], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert engines
    async with push_double(plain=True) as (double, _):
        async with pair(push_file(tmp_path, double)) as (one, other), app_server(one.port) as server:
            await server.register()
            await server.register("laptop", user="ben")
            ws = await signed_in(other.port, "ann")
            # What is asked for is looked at anew.
            assert (await server.push("ann", "ben", "ann")).body == {"users": 2}
            await eventually(lambda: len(double.pushed) == 1)
            face = face_of(one.gateway)
            await eventually(lambda: dict(face.users) == {(APP, "connected"): 1, (APP, "pushed"): 1})
            assert (await server.push("ann", unless="never")).status == 200
            await eventually(lambda: len(double.pushed) == 2)
            await ws.close()


async def test_a_device_that_is_gone_is_forgotten_unless_it_registered_anew(tmp_path: Path) -> None:
    async with pushing(tmp_path) as push:
        gone = {"error": {"details": [{"errorCode": "UNREGISTERED"}]}}
        face = face_of(push.running.gateway)
        for ident in ("phone", "tablet"):
            await push.server.register(ident)
        for _ in range(2):
            push.double.answer(404, gone)
        push.double.hangs = asyncio.Event()
        await push.server.push("ann")
        await eventually(lambda: push.double.requests == 2)
        await push.server.register("tablet", token="device:2")
        push.double.hangs.set()
        await eventually(lambda: face.stats[APP]["fcm"].gone == 2)
        listed = await push.server.ask("GET", "/users/ann/devices")
        assert [device["id"] for device in listed.body["devices"]] == ["tablet"]


async def test_what_was_pushed_is_counted_and_no_secret_is_shown(tmp_path: Path) -> None:
    async with pushing(tmp_path) as push:
        await push.server.register()
        await push.server.push("ann", "eve")
        await eventually(lambda: push.double.pushed)
        await eventually(lambda: not face_of(push.running.gateway).senders[APP].sender.waiting)
        text = rawws.metrics.exposition(push.running.gateway.samples())
        assert f'rawws_gateway_push_total{{app="{APP}",service="fcm",outcome="sent"}} 1' in text
        assert f'rawws_gateway_push_users_total{{app="{APP}",outcome="without_device"}} 1' in text
        assert f'rawws_gateway_push_waiting{{app="{APP}"}} 0' in text
        assert "device:1" not in text


async def test_a_reload_keeps_what_is_the_same_and_ends_what_is_not(tmp_path: Path) -> None:
    async with pushing(tmp_path) as push:
        await push.server.register()
        made, face = push.running.gateway, face_of(push.running.gateway)
        before = face.senders[APP].sender
        await push.server.push("ann")
        await eventually(lambda: len(push.double.pushed) == 1)
        made.reload(read_config(push_file(tmp_path, push.double)))
        assert face.senders[APP].sender is before
        made.reload(read_config(push_file(tmp_path, push.double, after=1)))
        assert face.senders[APP].sender is not before
        await push.server.push("ann")
        await eventually(lambda: len(push.double.pushed) == 2)
        # A counter does not fall.
        await eventually(lambda: face.stats[APP]["fcm"].sent == 2)
        made.reload(read_config(app_file()))
        assert (await push.server.push("ann")).status == 409
        assert not face.senders
        await eventually(lambda: not face._ending)


async def test_a_reload_before_it_begins_is_read_at_the_start(tmp_path: Path) -> None:
    async with push_double(plain=True) as (double, _):
        made = Gateway(read_config(app_file()))
        face = PushFace(made, KeptAnswers(made.registry, made.answers))
        made.reload(read_config(push_file(tmp_path, double)))
        assert not face.senders
        await face.start()
        assert list(face.senders) == [APP]
        await face.close()


async def test_at_the_end_all_who_wait_are_pushed_to(tmp_path: Path) -> None:
    async with pushing(tmp_path, after=3600) as push:
        await push.server.register()
        assert (await push.server.push("ann", after=None)).status == 200
        double = push.double
        await asyncio.sleep(0)
        assert not double.pushed
        await face_of(push.running.gateway).close()
        assert len(double.pushed) == 1


async def test_who_is_not_looked_for_in_time_is_counted_as_lost(
    tmp_path: Path, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(self: MemoryDevices, app: str, user: str) -> list[PushDevice]:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(MemoryDevices, "of_user", never)
    async with push_double(plain=True) as (double, _):
        async with gateway(push_file(tmp_path, double, head="[gateway]\ndrain = 0.01")) as running:
            face = face_of(running.gateway)
            assert face.notify(APP, "ann", PushMessage("Hello"))
    assert dict(face.users) == {("", "lost"): 1}
    logged.take("a user who waits is not told", name="rawws.gateway")


async def test_a_face_whose_closing_is_cancelled_counts_who_is_lost_and_ends_its_senders(
    tmp_path: Path, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def never(self: MemoryDevices, app: str, user: str) -> list[PushDevice]:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(MemoryDevices, "of_user", never)
    async with pushing(tmp_path, head="[gateway]\ndrain = 3600") as push:
        face = face_of(push.running.gateway)
        sender = face.senders[APP].sender
        face.notify(APP, "ann", PushMessage("Hello"))
        await begun.wait()
        closing = asyncio.ensure_future(face.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert dict(face.users) == {("", "lost"): 1}
        assert all(queue._task is None for queue in sender._queues.values())
    logged.take("a user who waits is not told", name="rawws.gateway")


async def test_what_goes_wrong_is_counted_and_logged(
    tmp_path: Path, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(self: MemoryDevices, app: str, user: str) -> list[PushDevice]:
        raise DevicesAway("the Redis is away") if user == "ann" else ZeroDivisionError

    async with pushing(tmp_path) as push:
        face = face_of(push.running.gateway)
        monkeypatch.setattr(MemoryDevices, "of_user", away)
        face.notify(APP, "ann", PushMessage("Hello"))
        await eventually(lambda: users(push) == {"unknown": 1})
        logged.take("push for the app 3: unknown: the Redis is away", name="rawws.gateway")
        face.notify(APP, "ben", PushMessage("Hello"))
        await eventually(logged.left)
        logged.take("a push failed", ZeroDivisionError, "rawws.gateway")
        face.on_missed(APP, "ann", GatewayEvent("said", '{"notification": {"title": 5}}'))
        logged.take("push for the app 3: malformed: the notification of an event is none", name="rawws.gateway")
        face.on_missed("another", "ann", GatewayEvent("said", '{"notification": {"title": "Hello"}}'))
        monkeypatch.setattr(push_face, "MAX_WAITING", 0)
        monkeypatch.setattr(push_face, "LEAST_ROOM", 0)
        assert not face.notify(APP, "ann", PushMessage("Hello"))
        logged.take("push for the app 3: dropped", name="rawws.gateway")
        assert (await push.server.push("ann")).status == 429
        logged.take("push for the app 3: dropped", name="rawws.gateway")
        assert users(push) == {"unknown": 1, "malformed": 1, "dropped": 2}


async def test_no_app_takes_the_room_of_another(
    tmp_path: Path, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push_face, "MAX_WAITING", 4)
    monkeypatch.setattr(push_face, "LEAST_ROOM", 1)
    async with push_double(plain=True) as (double, _):
        one = push_file(tmp_path, double, after=3600)
        two = one.replace(f'id = "{APP}"', 'id = "4"').replace(KEY, "another").replace(SECRET, OTHER_SECRET)
        async with gateway(one + two) as running, app_server(running.port) as server:
            face, later = face_of(running.gateway), {"after": 3600}
            assert (await server.push("a", "b", **later)).status == 200
            refused = await server.push("c", **later)
            assert (refused.status, refused.body["reason"]) == (
                429,
                "2 users of the app wait, with 1 more over 2, the limit of one app",
            )
            # So is what an event would have pushed.
            face.on_missed(APP, "c", GatewayEvent("said", '{"notification": {"title": "Hello"}}'))
            other = {"users": ["a", "b"], "notification": {"title": "Hello"}, **later}
            answer = await server.ask("POST", "/push", other, app="4", secret=OTHER_SECRET)
            assert answer == (200, {"users": 2})
            text = rawws.metrics.exposition(running.gateway.samples())
            for app in (APP, "4"):
                assert f'rawws_gateway_push_users_waiting{{app="{app}"}} 2' in text
            assert f'rawws_gateway_push_users_total{{app="{APP}",outcome="dropped"}} 2' in text
            # With one app less, there is room for more.
            face.gateway.reload(read_config(one))
            assert (await server.push("c", "d", **later)).status == 200
    logged.take_all("push for the app 3: dropped: 2 users of the app wait", 2)
    assert face.waiting == {APP: 0, "4": 0}


async def test_where_it_is_not_known_who_is_connected_all_are_pushed_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pushing(tmp_path) as push:
        await push.server.register()

        def unknown(*_: Any) -> bool:
            raise rawws.TopicError("unavailable", "not now")

        monkeypatch.setattr(push.running.gateway.control, "when_ready", unknown)
        await push.server.push("ann")
        await eventually(lambda: push.double.pushed)


async def test_devices_of_a_service_that_is_configured_no_more_are_left_alone(tmp_path: Path) -> None:
    async with pushing(tmp_path) as push:
        face = face_of(push.running.gateway)
        await face.devices.put(APP, PushDevice("old", "apns", "ab" * 32, "ann"))
        await push.server.push("ann")
        await eventually(lambda: users(push) == {"without_device": 1})
        face.check(APP, fcm_device())
        with pytest.raises(ValueError, match="the device is of 'apns', services are fcm"):
            face.check(APP, PushDevice("old", "apns", "ab" * 32))


@pytest.mark.parametrize(
    ("data", "error", "match"),
    [
        ({"notification": 5}, TypeError, "the notification is int, allowed is an object"),
        ({"notification": {"subtitle": "x"}}, ValueError, "the notification has 'subtitle', allowed are title, body"),
        ({"notification": {"ttl": "x"}}, TypeError, "ttl is str, allowed is a number of seconds"),
        ({"notification": {"ttl": True}}, TypeError, "ttl is bool"),
        ({"notification": {"data": []}}, TypeError, "data is no object"),
        ({"notification": {"urgency": []}}, TypeError, "urgency or collapse is no string"),
        ({"notification": {"title": 5}}, TypeError, "title and body are no str"),
        ({"notification": {"ttl": -1}}, ValueError, "ttl is -1"),
    ],
)
def test_a_notification_that_is_none_is_refused(data: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        notification_of_event(GatewayEvent("said", json.dumps(data)))


def test_an_event_without_a_notification_has_none() -> None:
    for data in (b'{"notification": {}}', "text", '"notification"', '{"notification"', '["notification"]', "{}"):
        assert notification_of_event(GatewayEvent("said", data)) is None
    assert notification_of_event(GatewayEvent("said", '{"notification": null}')) is None
    assert notification_of_event(GatewayEvent("said", '{"notification": {}}')) == PushMessage()
