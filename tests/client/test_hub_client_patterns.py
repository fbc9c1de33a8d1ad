"""`rawws.HubClient` and patterns: all topics that match by one subscription, beside those to topics of any name."""

from __future__ import annotations

from typing import Any

import pytest

import rawws
from rawws.client.subscriptions import ReceivedPublication
from rawws.topics import Hub
from tests.client.hubs import HASTY, TRANSPORTS, Network, client_of, hub_of, hub_server
from tests.client.test_hub_client import code
from tests.server.peers import eventually


def open_hub() -> Hub:
    return hub_of(authorize_pattern=lambda _client, pattern: not pattern.startswith("secret"))


async def take(subscription: Any, count: int) -> list[tuple[str, str | bytes]]:
    found = [await anext(subscription) for _ in range(count)]
    return [(each.topic, each.message) for each in found]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_pattern_brings_all_topics_that_match_and_none_is_taken_for_it(transport: str) -> None:
    async with hub_server(open_hub()) as server, client_of(server, transport) as hub:
        matching, named = hub.subscribe("rooms/*", pattern=True), hub.subscribe("rooms/*")
        start = await matching.ready()
        await named.ready()
        for topic, message in (("rooms/a", "1"), ("other", "no"), ("rooms/b/c", b"2"), ("rooms/*", "3")):
            await hub.publish(topic, message)
        assert await take(matching, 3) == [("rooms/a", "1"), ("rooms/b/c", b"2"), ("rooms/*", "3")]
        assert await take(named, 1) == [("rooms/*", "3")]
        back = hub.subscribe("rooms/*", pattern=True, since=start.cursor)
        assert (await back.ready()).recovered
        assert await take(back, 3) == [("rooms/a", "1"), ("rooms/b/c", b"2"), ("rooms/*", "3")]
        assert back.cursor == matching.cursor
        # What is left goes on.
        back.close()
        named.close()
        await hub.publish("rooms/d", "4")
        assert await take(matching, 1) == [("rooms/d", "4")]
        lost = hub.subscribe("rooms/*", pattern=True, since="0123456789ab:1")
        begun = await lost.ready()
        assert await anext(lost) == ReceivedPublication("rooms/*", begun.cursor, "", recovered=False)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_what_the_hub_refuses_ends_that_subscription_alone(transport: str) -> None:
    async with hub_server(open_hub()) as server, client_of(server, transport) as hub:
        fine = hub.subscribe("rooms/*", pattern=True)
        refused = [
            await code(hub.subscribe(pattern, pattern=True).ready()) for pattern in ("secret/*", "a/*/b", "rooms")
        ]
        assert refused == ["refused", "pattern", "pattern"]
        await fine.ready()
        await hub.publish("rooms/a", "1")
        assert await take(fine, 1) == [("rooms/a", "1")]


async def test_what_the_application_ends_is_told() -> None:
    server_hub = open_hub()
    async with hub_server(server_hub) as server, client_of(server) as hub:
        matching, named = hub.subscribe("rooms/*", pattern=True), hub.subscribe("rooms/b")
        await matching.ready()
        await named.ready()
        [ws] = server.connections
        server_hub.unsubscribe(ws, "rooms/a", reason="no more")
        with pytest.raises(rawws.HubError, match="no more") as caught:
            await anext(matching)
        assert caught.value.code == "unsubscribed"
        await hub.publish("rooms/b", "1")
        assert await take(named, 1) == [("rooms/b", "1")]


@pytest.mark.parametrize("more", [{"watch": True}, {"join": {}}, {"on_presence": print}])
async def test_presence_is_not_by_pattern(more: dict[str, Any]) -> None:
    async with hub_server(open_hub()) as server, client_of(server) as hub:
        with pytest.raises(rawws.HubError, match="presence is that of a topic") as caught:
            hub.subscribe("rooms/*", pattern=True, **more)
        assert caught.value.code == "pattern"


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_over_broken_connections_each_publication_of_a_pattern_comes_once(transport: str) -> None:
    async with Network(open_hub()) as network, network.client(**HASTY, transports=[transport]) as hub:
        matching, named = hub.subscribe("a/*", pattern=True), hub.subscribe("a/1")
        await matching.ready()
        await named.ready()
        for number in range(60):
            network.hub.publish(f"a/{number % 3}", str(number))
            if number % 20 == 10:
                network.cut()
        assert await take(matching, 60) == [(f"a/{number % 3}", str(number)) for number in range(60)]
        assert [message for _, message in await take(named, 20)] == [str(number) for number in range(1, 60, 3)]


async def test_a_full_subscription_by_a_pattern_asks_again_for_what_it_missed() -> None:
    server_hub = open_hub()
    async with hub_server(server_hub) as server, client_of(server, buffer=4) as hub:
        matching = hub.subscribe("a/*", pattern=True)
        await matching.ready()
        for number in range(50):
            server_hub.publish(f"a/{number % 7}", str(number))
        await eventually(lambda: server_hub.stats().subscriptions == 0)
        assert [message for _, message in await take(matching, 50)] == [*map(str, range(50))]
