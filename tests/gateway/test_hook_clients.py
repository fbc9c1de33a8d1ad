"""Hooks of a running gateway: its clients come and go, and the validators of Pusher's libraries read what is told."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

import pusher
import pytest

import rawws
from rawws.gateway import shared_state, state_log
from tests.gateway.backends import Backend, backend
from tests.gateway.running import APP, KEY, SECRET, app_file, gateway, member, node
from tests.server.peers import Logged

HOOK: Final = """
  [[app.hook]]
  url = "{url}"
  events = ["channel_*", "member_*", "client_event"]
"""
LIBRARY: Final = pusher.Pusher(app_id=APP, key=KEY, secret=SECRET)


async def events_of(receiver: Backend, count: int) -> list[dict[str, Any]]:
    """Return all events when so many came; the library for Python reads them."""
    async with asyncio.timeout(20):
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
    monkeypatch.setattr(state_log, "GRACE", 0.5)
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
