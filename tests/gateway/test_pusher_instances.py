"""What clients of one instance see of those at another, and what they see while the engine between them is away."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from rawws.backplanes.memory import Engine
from rawws.gateway import control, pusher_counts
from rawws.gateway.pusher import PusherFace
from tests.gateway.running import APP, app_file, gateway, pair
from tests.gateway.test_pusher_protocol import Client, greeted
from tests.server.peers import eventually


def present(succeeded: dict[str, Any]) -> list[str]:
    """Return who is in a presence channel, as a subscriber is told."""
    return sorted(json.loads(succeeded["data"])["presence"]["ids"])


async def watches(client: Client, *users: str) -> None:
    await client.sign_in(json.dumps({"id": "fan", "watchlist": users}))
    await client.got("pusher:signin_success")


async def news(client: Client) -> list[tuple[str, list[str]]]:
    """Return what the next event of a watchlist tells."""
    told = await client.got("pusher_internal:watchlist_events")
    return [(event["name"], event["user_ids"]) for event in told["events"]]


async def test_members_of_another_instance_come_and_go(engines: list[Engine]) -> None:
    async with pair() as (one, other):
        ann, bob = await greeted(one), await greeted(other)
        assert present(await ann.subscribe("presence-a", {"user_id": "ann"})) == ["ann"]
        assert present(await bob.subscribe("presence-a", {"user_id": "bob"})) == ["ann", "bob"]
        assert await ann.got("pusher_internal:member_added") == {"user_id": "bob", "user_info": None}
        await bob.ws.close()
        assert await ann.got("pusher_internal:member_removed") == {"user_id": "bob"}
        await ann.quiet()


async def test_who_leaves_before_its_subscription_began_is_in_no_channel(engines: list[Engine]) -> None:
    async with pair() as (one, _):
        client = await greeted(one)
        await client.ask("pusher:subscribe", {"channel": "a"})
        await client.ask("pusher:unsubscribe", {"channel": "a"})
        await client.quiet()
        assert not one.gateway.counts


async def test_what_came_before_a_subscription_began_comes_after_it(engines: list[Engine]) -> None:
    async with pair() as (one, other):
        client, another = await greeted(one), await greeted(other)
        for each in (client, another):
            assert (await each.subscribe("private-a"))["event"] == "pusher_internal:subscription_succeeded"
        await another.ask("client-x", 1, channel="private-a")
        assert (await client.said())["data"] == 1


async def test_users_of_another_instance_are_watched(engines: list[Engine]) -> None:
    async with pair() as (one, other):
        bob, fan, zoe = await greeted(one), await greeted(other), await greeted(one)
        await bob.sign_in('{"id": "bob"}')
        await bob.got("pusher:signin_success")
        await watches(fan, "bob", "zoe")
        assert await news(fan) == [("online", ["bob"])]
        await zoe.sign_in('{"id": "zoe"}')
        assert await news(fan) == [("online", ["zoe"])]
        # The second connection of a user is no news, nor is the end of the first.
        again = await greeted(other)
        await again.sign_in('{"id": "bob"}')
        await again.got("pusher:signin_success")
        await bob.ws.close()
        await zoe.ws.close()
        assert await news(fan) == [("offline", ["zoe"])]
        other.gateway.control.publish("user/3/bob", "terminate")
        assert (await again.closed())[0] == 4009
        assert await news(fan) == [("offline", ["bob"])]


async def test_who_watches_and_goes_at_once_is_told_nothing_and_forgotten(
    engines: list[Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair() as (one, other):
        bob, fan = await greeted(one), await greeted(other)
        await bob.sign_in('{"id": "bob"}')
        await bob.got("pusher:signin_success")
        [users] = [face.users for face in other.gateway.faces if isinstance(face, PusherFace)]
        waiting: list[asyncio.Event] = []
        look = users._look_later

        async def look_late(*given: Any) -> None:
            waiting.append(asyncio.Event())
            await waiting[0].wait()
            await look(*given)

        monkeypatch.setattr(users, "_look_later", look_late)
        await watches(fan, "bob")
        await fan.ws.close()
        await eventually(lambda: not other.gateway.connections)
        waiting[0].set()
        await eventually(lambda: not other.gateway._tasks)
        # Nothing is kept for it.
        assert not users._online


async def test_a_count_that_an_instance_does_not_tell_is_told_the_next_time(
    engines: list[Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pusher_counts, "GATHER", 0.0)
    async with pair(app_file("subscription_count = true")) as (one, other):
        first, second = await greeted(one), await greeted(one)
        with monkeypatch.context() as patched:
            patched.setattr(control, "PATIENCE", 0.05)
            answered: list[object] = []
            patched.setattr(other.gateway.registry._receiver, "_take", answered.append)
            await first.subscribe("a")
            await eventually(lambda: bool(answered) and not one.gateway._tasks)
        await first.quiet()
        await second.subscribe("a")
        assert await first.got("pusher_internal:subscription_count") == {"subscription_count": 2}


async def test_a_channel_of_a_hundred_is_told_of_at_once_and_a_larger_one_now_and_then() -> None:
    async with gateway(app_file("subscription_count = true")) as running:
        [face] = [each for each in running.gateway.faces if isinstance(each, PusherFace)]
        for count in (100, 101):
            key = APP, f"room-{count}"
            face.counts._told[key] = count
            face.counts._change(*key)
            left = face.counts._due[key].when() - asyncio.get_running_loop().time()
            assert (left > 2 * pusher_counts.GATHER) == (count > 100)
