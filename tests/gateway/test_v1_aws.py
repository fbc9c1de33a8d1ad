"""`/v1` for an API of the AWS face: what API Gateway lacks, a message to many by one request."""

from __future__ import annotations

import pytest

import rawws
from rawws.backplanes.memory import Engine as Memory
from rawws.gateway import aws
from rawws.gateway.spelling import ConnectionId
from tests.gateway.aws_running import KEY, SECRET, chat_api
from tests.gateway.running import SECRET as SECRET_OF_APP
from tests.gateway.running import Running, app_file, pair
from tests.gateway.test_pusher_protocol import greeted
from tests.gateway.v1_running import server
from tests.server.peers import eventually

pytestmark = pytest.mark.usefixtures("patient")

TEXT = app_file() + chat_api("http://127.0.0.1:1")


def connect(running: Running) -> rawws.connect:
    return rawws.connect(f"ws://127.0.0.1:{running.port}/prod")


async def test_a_backend_subscribes_connections_and_publishes_to_all_of_them(engines: list[Memory]) -> None:
    async with pair(TEXT) as (one, other), server(one, "chat", SECRET) as asking:
        async with connect(one) as ann, connect(other) as bob:
            await eventually(lambda: one.gateway.connections and other.gateway.connections)
            idents = [next(iter(each.gateway.connections)) for each in (one, other)]
            # Both spellings of an id.
            for ident in (idents[0].aws, idents[1].socket_id):
                for _ in range(2):
                    await asking.post(f"connections/{ident}/subscribe", {"channels": ["room", "cache-a"]})
            await asking.until("channels/room", connections=2)
            # The place of a channel may be known a moment later.
            for each in (one, other):
                await each.gateway.main.history("chat/room")
                await each.gateway.cache.history("chat/cache-a")
            for channel in ("room", "cache-a"):
                await asking.post("publish", {"channel": channel, "data": {"said": channel}})
                assert [await ann.recv(), await bob.recv()] == [f'{{"said":"{channel}"}}'] * 2
            told = await asking.get(f"connections/{idents[1].aws}")
            assert (told["face"], told["channels"]) == ("aws", ["room", "cache-a"])
            await asking.post(f"connections/{idents[1].aws}/unsubscribe", {"channels": ["room", "nothing"]})
            await asking.post("publish", {"channel": "room", "data": "x"})
            await asking.post(f"connections/{idents[1].aws}/send", {"data": "alone"})
            assert [await ann.recv(), await bob.recv()] == ["x", "alone"]
            found = await asking.refused(f"connections/{idents[0].aws}/send", {"event": "e", "data": "x"})
            assert found == (409, "refused", "the client knows no events, allowed is data alone")
        await eventually(lambda: not one.gateway.counts and not other.gateway.counts)


async def test_keys_of_apis_and_apps_are_good_for_their_own(engines: list[Memory]) -> None:
    async with pair(TEXT) as (one, _):
        client = await greeted(one)
        for app, secret in (("chat", SECRET_OF_APP), ("3", SECRET), ("chat", KEY)):
            async with server(one, app, secret) as asking:
                assert (await asking.refused("publish", {"channel": "a", "data": "x"}))[:2] == (401, "unauthorized")
        async with server(one, "chat", SECRET) as asking:
            assert (await asking.refused(f"connections/{client.socket_id}", None, "GET"))[:2] == (410, "gone")


async def test_channels_of_a_connection_are_limited(engines: list[Memory]) -> None:
    async with pair(TEXT) as (one, _), server(one, "chat", SECRET) as asking, connect(one):
        await eventually(lambda: one.gateway.connections)
        ident: ConnectionId = next(iter(one.gateway.connections))
        path = f"connections/{ident.aws}/subscribe"
        await asking.post(path, {"channels": [f"a{number}" for number in range(aws.MOST_CHANNELS)]})
        found = await asking.refused(path, {"channels": ["more"]})
        assert found == (429, "limit", "the connection has 100 channels, the limit")
