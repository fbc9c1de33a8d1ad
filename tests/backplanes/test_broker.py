"""The broker: what either side makes of what the other should not say, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import rawws
from rawws.backplanes.broker import Broker, BrokerBackplane
from rawws.topics import History
from rawws.topics.backplane import HistoryResult, Position, Record, TopicUnavailable
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


async def test_hubs_of_different_realms_at_one_broker_are_not_joined(tmp_path: Path) -> None:
    path = str(tmp_path / "broker")
    async with rawws.unix_serve(Broker(), path):
        told = [Told(BrokerBackplane(path, realm)) for realm in ("one", "one", "two")]
        for number, each in enumerate(told):
            each.backplane.open(f"server {number}", History(), each)
            await eventually(lambda each=each: each.backs)  # type: ignore[misc]
            await each.backplane.follow("a")
        assert (await told[0].backplane.publish("a", "x", None, 1)).offset == 1
        assert (await told[2].backplane.publish("a", "y", None, 1)).offset == 1
        await eventually(lambda: all(each.records for each in told))
        assert [each.messages for each in told] == [["x"], ["x"], ["y"]]
        for each in told:
            await each.backplane.close()


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


RECORD: list[Any] = ["a", "E", 1, "x", None, "two", 1]
# What a broker may answer to each question, and be of no use.
ANSWERS: dict[str, list[Any]] = {
    "publish": [None, [], ["E"], ["E", "1"], ["=&", 1], ["E", -1], ["E", 10**18], 7],
    "history": [
        None,
        ["E", 1],
        ["E", 1, [["a"]], True, 0, []],
        ["E", 1, [[*RECORD[:3], 7, *RECORD[4:]]], True, 0, []],
        ["E", 1, [[*RECORD[:2], 0, *RECORD[3:]]], True, 0, []],
        ["E", 1, [], True, 0, [["E"]]],
        ["E", 1, [], True, "x", []],
    ],
    "presence": [None, [["one"]], [["", "x", "1"]], [["one", "", "1"]], [["one", "x", 7]], [["one", "\ud800", "1"]]],
}  # fmt: skip


async def test_an_answer_that_is_none_is_the_fault_of_the_topic_that_was_asked_for(tmp_path: Path) -> None:
    path = str(tmp_path / "broker")
    answers: list[Any] = []

    async def stranger(ws: rawws.WebSocket) -> None:
        with contextlib.suppress(rawws.ConnectionClosed):
            async for message in ws:
                number, call, _ = json.loads(message)
                if call == "follow":
                    await ws.send(json.dumps([number, None, "not this one"]))
                elif call in ANSWERS:
                    await ws.send(json.dumps([number, answers.pop()]))

    async with rawws.unix_serve(stranger, path):
        told = Told(BrokerBackplane(path))
        one = told.backplane
        one.open("one", History(), told)
        await eventually(lambda: told.backs)
        asks: dict[str, Callable[[], Awaitable[object]]] = {
            "publish": lambda: one.publish("a", "x", None, 1),
            "history": lambda: one.history("a", None),
            "presence": lambda: one.presence("a"),
        }
        for call, ask in asks.items():
            for answer in ANSWERS[call]:
                answers.append(answer)
                with pytest.raises(TopicUnavailable, match="the topic 'a' is unavailable"):
                    await ask()
        with pytest.raises(TopicUnavailable, match="not this one"):
            await one.follow("a")
        answers.append(["E", 1, [RECORD], True, 0, [["D", 0]]])
        assert await one.history("a", None) == HistoryResult("E", 1, [Record(*RECORD)], True, 0, (Position("D", 0),))
        assert (told.backs, told.reasons) == (1, [])
        await one.close()


async def test_what_a_broker_tells_of_a_topic_that_nobody_can_read_is_that_topics_fault(tmp_path: Path) -> None:
    path = str(tmp_path / "broker")

    async def stranger(ws: rawws.WebSocket) -> None:
        for message in (
            ["record", [["a", "E", 0, "x", None, "two", 1]]],
            ["record", [["a", "E"]]],
            ["presence", ["a", "join", ["two"]]],
            ["presence", ["a", "join", None]],
            ["record", [RECORD]],
        ):
            await ws.send(json.dumps(message))
        await ws.wait_closed()

    async with rawws.unix_serve(stranger, path):
        told = Told(BrokerBackplane(path))
        told.backplane.open("one", History(), told)
        await eventually(lambda: told.records)
        assert [topic for topic, _ in told.doubts] == ["a"] * 4
        assert all(reason.startswith("what came of it cannot be read: ") for _, reason in told.doubts)
        assert (told.entries, told.backs, told.reasons) == ([], 1, [])
        # Of no topic, it is all that is wrong.
        await told.backplane.close()


async def test_a_broker_says_which_topic_it_cannot_serve(tmp_path: Path) -> None:
    path = str(tmp_path / "broker")
    broker = Broker()
    async with rawws.unix_serve(broker, path):
        told = Told(BrokerBackplane(path))
        one = told.backplane
        one.open("one", History(), told)
        await eventually(lambda: told.backs)
        await one.publish("good", "x", None, 1)
        [engine] = broker._engines.values()
        junk: Any = engine.stored("bad")
        junk.offset, junk.held, junk.entries = 1, None, None
        asks: list[Callable[[], Awaitable[object]]] = [
            lambda: one.history("bad", None),
            lambda: one.presence("bad"),
            lambda: one.publish("bad", "x", None, 2),
        ]
        for ask in asks:
            with pytest.raises(TopicUnavailable, match="the topic 'bad' is unavailable: "):
                await ask()
        assert (await one.publish("good", "y", None, 3)).offset == 2
        # Who waits no longer is told nothing.
        one.history("bad", None).cancel()
        junk.entries = {}
        await one.close()
