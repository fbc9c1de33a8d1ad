"""The broker: what either side makes of what the other should not say, and its end."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import rawws
from rawws.backplanes.broker import Broker, BrokerBackplane
from rawws.topics import History
from tests.backplanes.handlers import Told
from tests.server.peers import Logged, eventually


async def test_a_call_that_there_is_not_ends_its_connection_only(tmp_path: Path, logged: Logged) -> None:
    path = str(tmp_path / "broker")
    async with rawws.unix_serve(Broker(), path):
        told = Told(BrokerBackplane(path))
        told.backplane.open("one", History(), told)
        async with rawws.unix_connect(path, "ws://localhost/") as ws:
            await ws.send('[1,"dance",[]]')
            await ws.wait_closed()
            assert ws.close_code == 1011
        assert (await told.backplane.publish("a", "x", None, 1)).offset == 1
        assert told.reasons == []
        await told.backplane.close()
    logged.take("", ValueError)


async def test_what_was_asked_by_a_hub_that_is_gone_is_answered_to_nobody(tmp_path: Path) -> None:
    path = str(tmp_path / "broker")
    broker = Broker()
    async with rawws.unix_serve(broker, path) as server:
        async with rawws.unix_connect(path, "ws://localhost/") as ws:
            await ws.send('[1,"open",["one",[1,1,1,1]]]')
            # What comes behind the question comes with it.
            for _ in range(10):
                ws.send('[2,"history",["a",null]]')
            await ws.close()
        await eventually(lambda: not server.connections)
        [engine] = broker._engines.values()
        assert engine.backplanes == []


async def test_a_broker_that_says_what_it_should_not_is_left_and_reached_again(tmp_path: Path, logged: Logged) -> None:
    path = str(tmp_path / "broker")
    came = 0

    async def stranger(ws: rawws.WebSocket) -> None:
        nonlocal came
        came += 1
        if came == 1:
            await ws.send('["record",[]]')
        with contextlib.suppress(rawws.ConnectionClosed):
            while True:
                await ws.recv()

    async with rawws.unix_serve(stranger, path):
        told = Told(BrokerBackplane(path))
        told.backplane.open("one", History(), told)
        await eventually(lambda: told.backs == 2)
        assert told.reasons == ["the broker ended the connection"]
        await told.backplane.close()
    logged.take("a hub failed at what the broker told it", IndexError, "rawws.backplanes")
    await asyncio.sleep(0)
