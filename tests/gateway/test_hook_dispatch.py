"""What happens at a gateway, as its hooks hear of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import pusher

import rawws
from rawws import testing
from rawws.gateway.config import GatewayConfig
from rawws.gateway.events import GatewayEvent
from rawws.gateway.hook_dispatch import HookDispatch
from rawws.gateway.loading import read_config
from rawws.gateway.model import Gateway, GatewayConnection
from rawws.gateway.outgoing import Outgoing
from rawws.gateway.webhooks import HookEvent
from tests.gateway.receivers import ReceiverApp
from tests.server.peers import Logged, eventually

HOOK: Final = """
  [[app.hook]]
  url = "http://hooks.example/{name}"
  events = {events}
  format = "{form}"
"""


def config_of(*hooks: tuple[str, str, list[str]], secret: str = "secret of app 3") -> GatewayConfig:
    tables = "".join(HOOK.format(name=name, form=form, events=json.dumps(events)) for name, form, events in hooks)
    return read_config(f'[[app]]\nid = "3"\nkeys = [{{ key = "key", secret = "{secret}" }}]\n{tables}')


@asynccontextmanager
async def gateway_with(config: GatewayConfig, receiver: ReceiverApp) -> AsyncIterator[tuple[Gateway, HookDispatch]]:
    gateway = Gateway(config)
    hooks = HookDispatch(gateway, Outgoing(transport=receiver.transport))
    gateway.faces.append(hooks)
    assert [*hooks.routes(), *hooks.server_routes()] == []
    async with gateway:
        yield gateway, hooks


def told(config: GatewayConfig, act: Callable[[Gateway], None]) -> list[dict[str, Any]]:
    """Return what a receiver of Pusher's format is told of what was done."""
    receiver = ReceiverApp()

    async def main() -> None:
        async with gateway_with(config, receiver) as (gateway, _):
            act(gateway)
            await asyncio.sleep(10)

    testing.run(main())
    verify = pusher.Pusher(app_id="3", key="key", secret="secret of app 3").validate_webhook
    for _, headers, body in receiver.requests:
        assert verify(headers["x-pusher-key"], headers["x-pusher-signature"], body.decode())
    return receiver.events


def test_channels_members_and_users_are_told_of_in_the_order_in_which_they_come_and_go() -> None:
    def act(gateway: Gateway) -> None:
        for key in ("c:presence-room", "m:presence-room:u:1", "u:u:1"):
            gateway.count("3", key, 1)
            gateway.count("3", key, 1)
        # Two of an app that nobody has, and of a key that is not told of.
        gateway.count("4", "c:room", 1)
        gateway.count("3", "x:room", 1)

    assert told(config_of(("a", "pusher", ["*"])), act) == [
        {"name": "channel_occupied", "channel": "presence-room"},
        {"name": "member_added", "channel": "presence-room", "user_id": "u:1"},
        {"name": "user_online", "user_id": "u:1"},
        # It ends.
        {"name": "member_removed", "channel": "presence-room", "user_id": "u:1"},
        {"name": "user_offline", "user_id": "u:1"},
        {"name": "channel_vacated", "channel": "presence-room"},
    ]


def test_a_reload_of_a_page_makes_none() -> None:
    receiver = ReceiverApp()

    async def main() -> None:
        async with gateway_with(config_of(("a", "pusher", ["channel_*"])), receiver) as (gateway, _):
            gateway.count("3", "c:room", 1)
            await asyncio.sleep(10)
            gateway.count("3", "c:room", -1)
            await asyncio.sleep(2)
            gateway.count("3", "c:room", 1)
            await asyncio.sleep(10)
            assert len(receiver.events) == 1
            gateway.count("3", "c:room", -1)
            await asyncio.sleep(10)

    testing.run(main())
    assert [event["name"] for event in receiver.events] == ["channel_occupied", "channel_vacated"]


async def test_what_one_instance_knows_alone_is_told_by_it() -> None:
    receiver = ReceiverApp()
    async with gateway_with(config_of(("a", "pusher", ["*"])), receiver) as (gateway, hooks):
        async with testing.serve(lambda ws: ws.wait_closed()) as host, host.connect() as _:
            [ws] = list(host.server.connections)
            connection = GatewayConnection(gateway, "3", "pusher", ws)
            gateway.opened(connection)
            connection.user = "u1"
            event = GatewayEvent("client-typing", '{"x":1}', user="u1", by_client=True)
            for observer in gateway.observers:
                observer.on_client_event(connection, "presence-room", event)
                observer.on_client_event(connection, "private-room", GatewayEvent("client-x", b"1"))
                observer.on_cache_miss("3", "cache-room")
                observer.on_subscription_count("3", "room", 2)
            gateway.closed(connection, 1000, "bye")
            [queue] = hooks.queues.values()
            await eventually(lambda: not queue.waiting)
    ident = connection.id.socket_id
    opened, first, second, miss, counted, closed = receiver.events
    assert opened == {"name": "connection_opened", "socket_id": ident, "face": "pusher"}
    assert first == {
        "name": "client_event",
        "channel": "presence-room",
        "event": "client-typing",
        "data": '{"x":1}',
        "socket_id": ident,
        "user_id": "u1",
    }
    assert second["data"] == "1"
    assert miss == {"name": "cache_miss", "channel": "cache-room"}
    assert counted == {"name": "subscription_count", "channel": "room", "subscription_count": 2}
    assert closed.pop("seconds") >= 0
    assert closed == {
        "name": "connection_closed",
        "socket_id": ident,
        "face": "pusher",
        "user_id": "u1",
        "code": 1000,
        "reason": "bye",
    }


def test_each_hook_gets_what_it_wants_as_it_wants_it() -> None:
    receiver = ReceiverApp()

    async def main() -> None:
        config = config_of(("a", "pusher", ["channel_occupied"]), ("b", "rawws", ["user_*"]))
        async with gateway_with(config, receiver) as (gateway, _):
            gateway.count("3", "c:room", 1)
            gateway.count("3", "u:u1", 1)
            await asyncio.sleep(1)

    testing.run(main())
    bodies = [json.loads(body) for _, _, body in receiver.requests]
    assert {body["type"] for body in bodies if "type" in body} == {"user.online", "user.offline"}
    assert [body["events"] for body in bodies if "events" in body] == [
        [{"name": "channel_occupied", "channel": "room"}]
    ]
    assert all(body["seq"] for body in bodies if "type" in body)


def test_a_new_configuration_keeps_the_queues_of_hooks_that_are_still_there(logged: Logged) -> None:
    receiver = ReceiverApp(lambda _: (0, {}))

    async def main() -> None:
        kept, ended, added = (("a", "pusher", ["*"]), ("b", "pusher", ["*"]), ("c", "pusher", ["*"]))
        async with gateway_with(config_of(kept, ended), receiver) as (gateway, hooks):
            gateway.count("3", "c:room", 1)
            await asyncio.sleep(0.01)
            first = list(hooks.queues.values())
            gateway.reload(config_of(kept, added, secret="another secret"))
            second = list(hooks.queues.values())
            assert second[0] is first[0]
            assert second[0].app.keys[0].secret == "another secret"
            assert second[1].waiting == 0
            await asyncio.sleep(1)
            assert first[1].stats.lost == 1
            receiver.answer = lambda _: (200, {})
            await asyncio.sleep(60)

    testing.run(main())
    logged.take_all("loses 1 events", 1)
    logged.take_all("fails", 1)


def test_an_app_that_has_hooks_now_tells_what_is_so() -> None:
    receiver = ReceiverApp()

    async def main() -> None:
        async with gateway_with(config_of(), receiver) as (gateway, _):
            gateway.count("3", "c:room", 1)
            await asyncio.sleep(10)
            gateway.reload(config_of(("a", "pusher", ["*"])))
            await asyncio.sleep(10)
            assert receiver.events == [{"name": "channel_occupied", "channel": "room"}]

    testing.run(main())


def test_a_hook_is_tried_by_its_app_and_its_url_as_it_is_shown(logged: Logged) -> None:
    receiver = ReceiverApp(lambda number: (410 if number == 1 else 200, {}))
    config = config_of(("one?token=secret", "rawws", ["connection_opened"]))

    async def main() -> None:
        async with gateway_with(config, receiver) as (_, hooks):
            [queue] = hooks.queues.values()
            queue.put(HookEvent("connection_opened", "3", 0.0, {}))
            await asyncio.sleep(1)
            assert queue.is_off
            shown = "http://hooks.example/one"
            assert not hooks.retry("4", shown)
            assert not hooks.retry("3", f"{shown}?token=secret")
            assert queue.is_off
            assert hooks.retry("3", shown) == {"hooks": 1}
            assert [each.is_off for each in hooks.queues.values()] == [False]
            # So is it shown what it was told, and sent a test.
            [delivery] = (hooks.deliveries("3", shown) or {})["deliveries"]
            assert (delivery["status"], delivery["outcome"]) == (410, "refused")
            assert hooks.deliveries("4", shown) is None
            assert await hooks.test("3", f"{shown}?token=secret") is None
            [sent] = (await hooks.test("3", shown) or {})["deliveries"]
            assert (sent["test"], sent["outcome"]) == (True, "sent")
            assert hooks.deliveries("3", shown) == {"deliveries": [sent, delivery]}

    testing.run(main())
    logged.take_all("answers 410", 1)


def test_hooks_at_one_url_are_shown_together_and_each_is_sent_a_test() -> None:
    receiver = ReceiverApp()
    config = config_of(("one?token=a", "rawws", ["cache_miss"]), ("one?token=b", "pusher", ["cache_miss"]))

    async def main() -> None:
        async with gateway_with(config, receiver) as (_, hooks):
            hooks.on_cache_miss("3", "cache-a")
            await asyncio.sleep(1)
            found = (await hooks.test("3", "http://hooks.example/one") or {})["deliveries"]
            assert [each["test"] for each in found] == [True, True]
            every = (hooks.deliveries("3", "http://hooks.example/one") or {})["deliveries"]
            assert [each["test"] for each in every] == [True, True, False, False]
            assert [each["time"] for each in every] == sorted([each["time"] for each in every], reverse=True)

    testing.run(main())
    assert len(receiver.requests) == 4


def test_a_hook_that_is_off_is_on_again_with_a_new_configuration(logged: Logged) -> None:
    receiver = ReceiverApp(lambda number: (410 if number == 1 else 200, {}))
    config = config_of(("a", "pusher", ["cache_miss"]))

    async def main() -> None:
        async with gateway_with(config, receiver) as (gateway, hooks):
            for _ in range(3):
                hooks.on_cache_miss("3", "cache-a")
                await asyncio.sleep(1)
            assert len(receiver.requests) == 1
            gateway.reload(config)
            # What it answered is shown further on.
            [refused] = (hooks.deliveries("3", "http://hooks.example/a") or {})["deliveries"]
            assert refused["status"] == 410
            hooks.on_cache_miss("3", "cache-b")
            await asyncio.sleep(1)

    testing.run(main())
    assert [event["channel"] for event in receiver.events] == ["cache-a", "cache-b"]
    logged.take_all("answers 410", 1)


async def test_hooks_have_a_client_of_their_own() -> None:
    gateway = Gateway(config_of())
    hooks = HookDispatch(gateway)
    gateway.faces.append(hooks)
    async with gateway:
        assert rawws.Hub is type(gateway.control)
