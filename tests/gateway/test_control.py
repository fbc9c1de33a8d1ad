"""Control: what instances ask of one another, and what is told where one cannot answer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import rawws
from rawws.backplanes.memory import Engine as Memory
from rawws.gateway import control, pusher_counts
from rawws.gateway.control import InstanceRegistry, OnceMemory, RegistryAway
from rawws.gateway.deliveries import Delivery
from rawws.gateway.receivers import ControlReceiver
from rawws.gateway.spelling import ConnectionId
from tests.gateway.running import APP, gateway, pair
from tests.gateway.test_pusher_protocol import greeted
from tests.server.peers import eventually
from tests.topics.receivers import still


async def test_a_connection_is_reached_from_any_instance(engines: list[Memory]) -> None:
    async with pair() as (one, other):
        client = await greeted(one, user_agent_header="tests")
        ident = ConnectionId.parse(client.socket_id)
        assert ident.instance == one.gateway.instance != other.gateway.instance
        for asked in (one.gateway, other.gateway):
            assert await asked.send(ident, "text") == Delivery(200)
            assert await client.ws.recv() == "text"
            assert await asked.send(ident, b"octets") == Delivery(200)
            assert await client.ws.recv() == b"octets"
            found = await asked.get(ident)
            assert found == Delivery(200, one.gateway.connections[ident].info())
            assert found.info is not None
            assert (found.info.address, found.info.agent, found.info.app) == ("127.0.0.1", "tests", APP)
            assert await asked.connection_count(APP) == 1
        assert await other.gateway.close(ident, 4000, "bye") == Delivery(200)
        with pytest.raises(rawws.ConnectionClosed):
            await client.ws.recv()
        assert (client.ws.close_code, client.ws.close_reason) == (4000, "bye")


async def test_a_connection_of_another_app_is_as_one_that_there_is_not_at_any_instance(engines: list[Memory]) -> None:
    async with pair() as (one, other):
        client = await greeted(one)
        ident = ConnectionId.parse(client.socket_id)
        for asked in (one.gateway, other.gateway):
            assert await asked.send(ident, "own", once="a", apps=["another", APP]) == Delivery(200)
            for apps in (["another"], []):
                # Also what was done already for another call.
                assert await asked.send(ident, "foreign", once="a", apps=apps) == Delivery(410)
                assert await asked.send(ident, "foreign", apps=apps) == Delivery(410)
                assert await asked.get(ident, apps=apps) == Delivery(410)
                assert await asked.close(ident, apps=apps) == Delivery(410)
            assert (await asked.get(ident, apps=[APP])).status == 200
        assert await other.gateway.close(ident, 4000, "bye", apps=[APP]) == Delivery(200)
        assert await client.ws.recv() == "own"
        with pytest.raises(rawws.ConnectionClosed):
            await client.ws.recv()
        assert client.ws.close_code == 4000


async def test_what_is_sent_once_is_not_sent_again(engines: list[Memory]) -> None:
    async with pair() as (one, other):
        client = await greeted(one)
        ident = ConnectionId.parse(client.socket_id)
        for asked in (other, one, other):
            assert await asked.gateway.send(ident, "first", once="a") == Delivery(200)
        assert await other.gateway.send(ident, "second", once="b") == Delivery(200)
        assert [await client.ws.recv(), await client.ws.recv()] == ["first", "second"]
        # Who tries again is told what became of it, also of a client that left meanwhile.
        await client.ws.close()
        await eventually(lambda: not one.gateway.connections)
        for asked in (one, other):
            assert await asked.gateway.send(ident, "first", once="a") == Delivery(200)
            assert await asked.gateway.send(ident, "third", once="c") == Delivery(410)


async def test_a_connection_that_there_is_not_is_gone(engines: list[Memory]) -> None:
    async with pair() as (one, other):
        for instance in (one.gateway.instance, other.gateway.instance, 1 << 23):
            ident = ConnectionId(instance, 5)
            assert await one.gateway.send(ident, "x") == Delivery(410)
            assert await one.gateway.get(ident) == Delivery(410)
            assert await one.gateway.close(ident) == Delivery(410)


async def test_an_instance_that_does_not_answer_is_told_from_one_that_is_gone(
    engines: list[Memory], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "PATIENCE", 0.05)
    async with pair() as (one, other):
        monkeypatch.setattr(other.gateway.registry._receiver, "_take", lambda _publication: None)
        ident = ConnectionId(other.gateway.instance, 5)
        assert await one.gateway.send(ident, "x") == Delivery(503)
        with pytest.raises(RegistryAway, match="does not answer"):
            await one.gateway.channel_counts(APP)
        # What was not answered waits no more.
        assert not one.gateway.registry._waiting
        monkeypatch.setattr(control, "MOST_ASKED", 0)
        with pytest.raises(RegistryAway, match="the limit"):
            await one.gateway.registry.ask(other.gateway.instance, "get")


async def test_who_leaves_while_it_is_asked_is_counted_no_more(
    engines: list[Memory], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair() as (one, _):
        monkeypatch.setattr(one.gateway.registry, "others", iter([[7], []]).__next__)
        assert await one.gateway.registry.ask_all("counts", app=APP) == []


async def test_without_its_backplane_an_instance_has_its_own_connections_alone(
    engines: list[Memory], caplog: pytest.LogCaptureFixture
) -> None:
    async with pair() as (one, other):
        client = await greeted(one)
        for engine in engines:
            engine.stop()
        await eventually(lambda: one.gateway.control.degraded)
        assert await one.gateway.send(ConnectionId(other.gateway.instance, 5), "x") == Delivery(503)
        assert await one.gateway.send(ConnectionId.parse(client.socket_id), "x") == Delivery(200)
        with pytest.raises(RegistryAway, match="the backplane is away"):
            await one.gateway.connection_count(APP)
        for engine in engines:
            engine.start()
        await eventually(lambda: not one.gateway.control.degraded and not other.gateway.control.degraded)
        # The other one may need a moment until it hears what it is asked again.
        async with asyncio.timeout(60):
            while (found := await one.gateway.get(ConnectionId(other.gateway.instance, 5))) == Delivery(503):
                pass
        assert found == Delivery(410)
    caplog.clear()


async def test_what_cannot_be_understood_is_logged_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    async with gateway() as running:
        registry = running.gateway.registry
        for text in ("{", "{}", '{"do":"send","n":1,"from":2,"to":"x"}', '{"re":99}'):
            running.gateway.control.publish(control.inbox(registry.instance), text)
        for text in ("{", "[1]"):
            running.gateway.control.publish(pusher_counts.TOPIC, text)
        ControlReceiver().fail(1013, "too slow")
    failed = [record.message for record in caplog.records if record.name == "rawws.gateway"]
    assert failed == ["what another instance says could not be understood"] * 5 + [
        "the gateway is cut off from a hub: too slow (1013)"
    ]
    caplog.clear()


async def test_no_two_instances_have_one_number(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = rawws.Hub(history=None)
    drawn = iter([1, 1, 2])
    monkeypatch.setattr(control, "new_instance", lambda: next(drawn))
    registries = [InstanceRegistry(hub, lambda _verb, _fields: {}) for _ in range(2)]
    for registry in registries:
        await registry.start()
    assert [registry.instance for registry in registries] == [1, 2]
    waiting = asyncio.ensure_future(registries[0].ask(2, "x"))
    await asyncio.sleep(0)
    assert await waiting == {"re": 1}
    for registry in registries:
        registry.close()


def test_it_is_remembered_for_a_minute_what_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "MOST_REMEMBERED", 2)
    with still() as clock:
        memory = OnceMemory()
        memory.remember("", 200)
        assert memory.status_of("") is None
        for once in "abc":
            memory.remember(once, 200)
        known: list[Any] = [memory.status_of(once) for once in "abc"]
        assert known == [None, 200, 200]
        clock.now += 60
        assert memory.status_of("c") == 200
        clock.now += 1
        assert memory.status_of("c") is None
