"""Hooks of a running gateway: its clients come and go, and the validators of Pusher's libraries read what is told."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

import pusher
import pytest

import rawws
from rawws.backplanes.memory import Engine as Memory
from rawws.gateway import shared_state, state_log
from rawws.gateway.events import GatewayEvent
from rawws.gateway.pusher_users import Users, user_topic
from tests.gateway.backends import Backend, backend
from tests.gateway.running import APP, KEY, SECRET, app_file, gateway, member, node, pair
from tests.server.peers import Logged, eventually

HOOK: Final = """
  [[app.hook]]
  url = "{url}"
  events = ["channel_*", "member_*", "client_event"]
"""
LIBRARY: Final = pusher.Pusher(app_id=APP, key=KEY, secret=SECRET)


async def events_of(receiver: Backend, count: int) -> list[dict[str, Any]]:
    """Return all events when so many came; the library for Python reads them."""
    async with asyncio.timeout(60):
        while True:
            found: list[dict[str, Any]] = []
            for request in receiver.requests:
                headers = request.headers
                read = LIBRARY.validate_webhook(
                    headers["X-Pusher-Key"], headers["X-Pusher-Signature"], request.body.decode()
                )
                assert read is not None
                found += read["events"]
            if len(found) >= count:
                return found
            async with receiver.came:
                await receiver.came.wait()


async def test_whoever_comes_and_goes_is_told_once_as_both_libraries_of_pusher_read_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(state_log, "GRACE", 3600.0)
    monkeypatch.setattr(shared_state, "SWEEP", 0.05)
    async with backend(lambda _: rawws.Response(200)) as receiver:
        async with gateway(app_file(HOOK.format(url=receiver.url))) as running:
            first = await member(running.port, "presence-room", "ann")
            second = await member(running.port, "presence-room", "ann")
            other = await member(running.port, "presence-room", "bob")
            await first.send(json.dumps({"event": "client-x", "channel": "presence-room", "data": {"a": 1}}))
            assert len(await events_of(receiver, 4)) == 4
            # A page that is loaded anew.
            await other.close()
            other = await member(running.port, "presence-room", "bob")
            monkeypatch.setattr(state_log, "GRACE", 0.1)
            for ws in (first, second, other):
                await ws.close()
            events = await events_of(receiver, 7)
    told = [(event["name"], event.get("user_id", "")) for event in events]
    assert sorted(told[:4]) == [
        *(("channel_occupied", ""), ("client_event", "ann")),
        *(("member_added", "ann"), ("member_added", "bob")),
    ]
    assert sorted(told[4:]) == [("channel_vacated", ""), ("member_removed", "ann"), ("member_removed", "bob")]
    requests: list[dict[str, Any]] = []
    for request in receiver.requests:
        headers = {name.lower(): value for name, value in request.headers.items()}
        requests.append({"headers": headers, "body": request.body.decode()})
    await node("webhooks.mjs", requests=requests)


async def test_at_the_end_each_hook_is_sent_or_counted(logged: Logged) -> None:
    async with backend(lambda _: rawws.Response(500)) as receiver:
        text = app_file(HOOK.format(url=receiver.url), head="[gateway]\ndrain = 0.2")
        async with gateway(text) as running:
            ws = await member(running.port, "presence-room", "ann")
            await events_of(receiver, 2)
        await ws.close()
    logged.take_all("the hook http", 2)


async def signed_in(port: int, user: str) -> rawws.WebSocket:
    """Return a client whose user is signed in."""
    ws = await rawws.connect(f"ws://127.0.0.1:{port}/app/{KEY}?protocol=7")
    ident = json.loads(json.loads(await ws.recv())["data"])["socket_id"]
    await ws.send(json.dumps({"event": "pusher:signin", "data": LIBRARY.authenticate_user(ident, {"id": user})}))
    while json.loads(await ws.recv())["event"] != "pusher:signin_success":
        pass
    return ws


async def test_an_event_for_a_user_who_is_connected_nowhere_is_told_once(engines: list[Memory]) -> None:
    assert engines
    missed = HOOK.replace('["channel_*", "member_*", "client_event"]', '["user_missed"]')
    async with backend(lambda _: rawws.Response(200)) as receiver:
        async with pair(app_file(missed.format(url=receiver.url))) as (one, other):
            library = pusher.Pusher(app_id=APP, key=KEY, secret=SECRET, ssl=False, host="127.0.0.1", port=one.port)
            ws = await signed_in(other.port, "ann")
            for user in ("ann", "bob"):
                await asyncio.to_thread(library.send_to_user, user, "news", {"a": 1})
            # What is for no user in particular is missed by nobody.
            await asyncio.to_thread(library.trigger, "room", "news", "x")
            assert [event["user_id"] for event in await events_of(receiver, 1)] == ["bob"]
            await ws.close()
            await eventually(lambda: not other.gateway.connections)
            # The other instance may hear a moment later that she is gone.
            topic = user_topic(APP, "ann")
            await eventually(lambda: not other.gateway.control.connections(topic, "ann"))
            await asyncio.to_thread(library.send_to_user, "ann", "later", {"a": 2})
            events = await events_of(receiver, 2)
    assert events == [
        {"name": "user_missed", "user_id": user, "event": event, "data": json.dumps(data)}
        for user, event, data in (("bob", "news", {"a": 1}), ("ann", "later", {"a": 2}))
    ]


async def test_where_the_engine_cannot_say_who_is_there_it_is_logged(
    logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise rawws.TopicError("unavailable", "the engine cannot serve the topic")

    async with gateway() as running:
        monkeypatch.setattr(running.gateway.control, "when_ready", refuse)
        await Users(running.gateway).tell_missed(APP, "ann", GatewayEvent("news", "x"))
        monkeypatch.undo()
    logged.take_all("it is not known whether an event for a user was missed", 1)
