"""Turns of the loop: what a client of a hub asks for is paid for by what it costs, and others go first."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

import rawws
from rawws.backplanes.broker import Broker, BrokerBackplane
from rawws.net.turns import TURN_SIZE
from rawws.topics import History, Hub
from rawws.topics.table import DELIVERY_COST
from tests.server.answers import ask, get
from tests.server.peers import Peer, connected, eventually, serve
from tests.topics.dialogue import allow, client, served
from tests.topics.receivers import Receiver

# As many as one publication may reach in half a turn.
ROOM = TURN_SIZE // DELIVERY_COST // 2 + 1
STYLES = pytest.mark.parametrize("callbacks", [False, True], ids=["coroutine", "callbacks"])


def fill(hub: Hub, **options: Any) -> Receiver:
    """Fill a room, and return one who is in it."""
    first = Receiver()
    hub.subscribe(first, "a", **options)
    for _ in range(ROOM):
        hub.subscribe(Receiver(), "a", **options)
    return first


async def per_turn(count: Callable[[], int], total: int) -> int:
    """Wait until something was counted so often, and return how often at most in one turn of the loop."""
    most = before = count()
    while before < total:
        await asyncio.sleep(0)
        now = count()
        most, before = max(most, now - before), now
    return most


@STYLES
async def test_a_burst_of_publications_to_a_large_room_leaves_turns_to_others(callbacks: bool) -> None:
    hub = Hub(authorize=allow)
    first = fill(hub)
    async with served(hub, callbacks=callbacks) as server, client(server) as one:
        await one.peer.send(*[json.dumps({"id": number, "publish": "a", "data": str(number)}) for number in range(30)])
        assert await per_turn(lambda: len(first.got), 30) <= 3
        assert first.got == [*map(str, range(30))]
        assert [(await one.hear())["id"] for _ in range(30)] == [*range(30)]


async def test_so_does_one_behind_an_open_decision() -> None:
    decided = asyncio.Event()
    asked = 0

    async def decide(_who: Any, _action: str, _topic: str) -> bool:
        nonlocal asked
        asked += 1
        await decided.wait()
        return True

    hub = Hub(authorize=decide)
    first = fill(hub)
    async with served(hub, callbacks=True) as server, client(server) as one:
        await one.peer.send(*[json.dumps({"publish": "a", "data": str(number)}) for number in range(30)])
        await eventually(lambda: asked > 0)
        decided.set()
        assert await per_turn(lambda: len(first.got), 30) <= 3
        assert first.got == [*map(str, range(30))]


async def test_so_does_what_an_application_publishes_for_a_client() -> None:
    hub = Hub()
    first = fill(hub)

    async def handler(ws: rawws.WebSocket) -> None:
        async for message in ws:
            hub.publish("a", message)

    async with serve(handler) as server, connected(server) as peer:
        await peer.send(*map(str, range(30)))
        assert await per_turn(lambda: len(first.got), 30) <= 3
        assert first.got == [*map(str, range(30))]


async def test_so_do_posts() -> None:
    hub = Hub(authorize=allow)
    first = fill(hub)
    async with served(hub) as server:
        bodies = [json.dumps({"publish": "a", "data": str(number)}).encode() for number in range(30)]
        posts = b"".join([get(method="POST", body=body) for body in bodies])
        asked = asyncio.ensure_future(ask(server, posts, ["POST"] * 30))
        assert await per_turn(lambda: len(first.got), 30) <= 3
        assert [answer.status for answer in await asked] == [200] * 30
        assert first.got == [*map(str, range(30))]


@STYLES
async def test_notices_to_a_large_room_leave_turns_to_others(callbacks: bool) -> None:
    hub = Hub(authorize=allow)
    first = fill(hub, watch=True)
    async with served(hub, callbacks=callbacks) as server, client(server) as one:
        await one.peer.send(*['{"subscribe":"a","join":1}', '{"unsubscribe":"a"}'] * 15)
        assert await per_turn(lambda: len(first.got), 30) <= 3
        kinds = ["join" if "join" in json.loads(each) else "leave" for each in first.got]
        assert kinds == ["join", "leave"] * 15


@STYLES
async def test_long_lists_of_those_present_leave_turns_to_others(callbacks: bool) -> None:
    hub = Hub(authorize=allow)
    for _ in range(1000):
        hub.subscribe(Receiver(), "a", join="x" * 300)
    asked = 0

    def counted(_client: Any, _action: str, _topic: str) -> bool:
        nonlocal asked
        asked += 1
        return True

    hub.rules.authorize = counted
    async with served(hub, callbacks=callbacks) as server, client(server) as one:
        await one.peer.send(*[json.dumps({"id": number, "presence": "a"}) for number in range(10)])
        heard = asyncio.ensure_future(all_of(one, 10))
        assert await per_turn(lambda: asked, 10) <= 3
        assert [(each["id"], each["count"], len(each["members"])) for each in await heard] == [
            (number, 1000, 1000) for number in range(10)
        ]


async def all_of(one: Any, count: int) -> list[dict[str, Any]]:
    return [await one.hear() for _ in range(count)]


async def test_who_is_present_is_not_looked_up_for_an_answer_that_nobody_can_get(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub = Hub(authorize=allow)
    monkeypatch.setattr("rawws.topics.rawws_v1.listed", None)
    async with served(hub, callbacks=True) as server, client(server) as one:
        await one.say(presence="a")
        await one.say(subscribe="a", watch=True)
        assert "cursor" in await one.ask(id=1, publish="b", data="")


@STYLES
async def test_replays_of_long_histories_leave_turns_to_others(callbacks: bool) -> None:
    hub = Hub(authorize=allow, history=History(size=1 << 22))
    for number in range(16):
        hub.publish(f"t{number}", "x" * (TURN_SIZE // 2))
    async with served(hub, callbacks=callbacks) as server, client(server) as one:
        said = [{"id": number, "subscribe": f"t{number}", "since": "earliest"} for number in range(16)]
        await one.peer.send(*map(json.dumps, said))
        heard = asyncio.ensure_future(all_of(one, 32))
        assert await per_turn(lambda: hub.stats().subscriptions, 16) <= 3
        assert [each["id"] for each in await heard if "id" in each] == [*range(16)]


async def test_many_who_publish_share_a_turn_and_all_come_to_their_right() -> None:
    hub = Hub(authorize=allow)
    first = fill(hub)
    async with served(hub, callbacks=True) as server:
        peers = [await Peer.reach(server.sockets[0].getsockname()) for _ in range(8)]
        for peer in peers:
            await peer.shake_hands("Sec-WebSocket-Protocol: rawws.v1", line="GET /ws HTTP/1.1")
        for number, peer in enumerate(peers):
            await peer.send(*[json.dumps({"publish": "a", "data": f"{number}:{count}"}) for count in range(20)])
        # Of each that is read for the first time one message is taken at once, and of the others as many as fit.
        assert await per_turn(lambda: len(first.got), 160) <= len(peers) + 3
        for number in range(8):
            assert [each for each in first.got if each.startswith(f"{number}:")] == [  # type: ignore[arg-type]
                f"{number}:{count}" for count in range(20)
            ]
        for peer in peers:
            peer.close()


async def test_what_a_broker_tells_at_once_leaves_turns_to_others(tmp_path: Any) -> None:
    path = str(tmp_path / "broker")
    async with rawws.unix_serve(Broker(), path, compression=None):
        hubs = [Hub(backplane=BrokerBackplane(path)) for _ in range(2)]
        first = fill(hubs[0])
        await hubs[0].subscribe(Receiver(), "a")
        results = [hubs[1].publish("a", str(number)) for number in range(30)]
        assert await per_turn(lambda: len(first.got), 30) <= 3
        assert first.got == [*map(str, range(30))]
        for result in results:
            await result
        for hub in hubs:
            await hub.close()
