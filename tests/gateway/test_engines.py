"""The own face over two instances that each other engine joins: PostgreSQL, NATS, Kafka and a Redis Cluster."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from rawws.cli.joining import JoinedHubs
from rawws.gateway.events import GatewayEvent
from rawws.topics import shared
from tests.backplanes.engines import SERVERS, ServerEngine
from tests.gateway.own_running import everything, own, token_file
from tests.gateway.running import APP, Running, member, pair
from tests.server.peers import eventually

KINDS = ("postgres", "nats", "kafka", "redis-cluster")
CHANNEL = "presence-a"


@pytest.fixture(params=KINDS)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerEngine]:
    """Give a running engine, of which this process has one."""
    made = SERVERS[request.param](tmp_path)
    yield made
    made.end()


def test_clients_of_both_protocols_hear_one_channel_and_one_that_comes_back_misses_nothing(
    engine: ServerEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "shared", None)
    # As `rawws gateway` names them: the hubs of one place in all instances are one.
    hubs = JoinedHubs(engine.url, None, prefix=f"g{secrets.token_hex(4)}")
    shared.share(shared.SharedBackplane(lambda number: hubs._make((number - 1) % 3 + 1)))

    async def main() -> None:
        async with pair(token_file()) as (one, other):
            await eventually(lambda: one.gateway.registry.others() and other.gateway.registry.others(), 60)
            await talk(one, other)

    asyncio.run(main())


async def talk(one: Running, other: Running) -> None:
    bob = await member(one.port, CHANNEL, "bob")

    async def bob_hears() -> tuple[str, object]:
        said = json.loads(await bob.recv())
        return said["event"], json.loads(said["data"]) if isinstance(said["data"], str) else said["data"]

    async with own(other.port, everything("ann")) as ann:
        assert "cursor" in await ann.ask(subscribe=CHANNEL, join=None, watch=True)
        await eventually(lambda: set(other.gateway.main.users(f"{APP}/{CHANNEL}")) == {"ann", "bob"}, 60)
        assert await bob_hears() == ("pusher_internal:member_added", {"user_id": "ann", "user_info": None})
        one.gateway.publish(APP, CHANNEL, GatewayEvent("news", "1"))
        assert await bob_hears() == ("news", 1)
        while (heard := await ann.hear()).get("event") != "news":
            pass
        assert heard["data"] == "1"
        assert "cursor" in await ann.ask(publish=CHANNEL, data="2", event="client-hello")
        assert (await bob_hears())[0] == "client-hello"
        place = (await ann.ask(subscribe="room"))["cursor"]
    assert await bob_hears() == ("pusher_internal:member_removed", {"user_id": "ann"})
    one.gateway.publish(APP, "room", GatewayEvent("missed", "3"))
    async with own(other.port, everything("ann")) as ann:
        assert (await ann.ask(subscribe="room", since=place))["recovered"]
        assert (await ann.hear())["data"] == "3"
    await bob.close()
