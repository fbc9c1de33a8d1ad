"""Servers in one process and in several, and their clients: rawws.v1, event streams and polls over a backplane."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

import rawws
from rawws.topics import Hub
from tests.backplanes.engines import Engine, Started
from tests.backplanes.handlers import hubs
from tests.processes import Process
from tests.server.peers import Logged, Peer, eventually
from tests.topics.dialogue import Client, allow, client, served


async def http(server: rawws.Server, line: str, *, body: bytes = b"") -> Any:
    """Ask once, and return the JSON of the answer."""
    peer = await Peer.reach(server.sockets[0].getsockname())
    length = [f"Content-Length: {len(body)}"] if body else []
    head = "\r\n".join([f"{line} HTTP/1.1", "Host: localhost", "Connection: close", *length])
    await peer.write(f"{head}\r\n\r\n".encode() + body)
    data = await peer.read_to_end()
    peer.close()
    return json.loads(data.partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize("callbacks", [False, True], ids=["coroutines", "callbacks"])
async def test_clients_of_two_servers_talk_and_their_answers_keep_their_order(engine: Engine, callbacks: bool) -> None:
    async with hubs(engine, authorize=allow) as (one, two):
        async with served(one, callbacks=callbacks) as first, served(two, callbacks=callbacks) as second:
            async with client(first) as ann, client(second) as bob:
                joined = await ann.ask(id=1, subscribe="a", since="earliest")
                assert joined["recovered"]
                assert joined["cursor"].endswith(":0")
                # None of these waits for the answer to the one before.
                await ann.say(id=2, subscribe="b", join="Ann", watch=True)
                await ann.say(id=3, publish="nobody", data="x")
                await ann.say(id=4, presence="b")
                await ann.say(id=5, unsubscribe="b")
                answers = [await ann.hear() for _ in range(4)]
                assert [answer["id"] for answer in answers] == [2, 3, 4, 5]
                assert answers[0]["count"] == answers[2]["count"] == 1
                assert answers[1]["cursor"].endswith(":1")
                sent = await bob.ask(id=1, publish="a", data="hello")
                assert await ann.hear() == {"topic": "a", "cursor": sent["cursor"], "data": "hello"}
                missed = await bob.ask(id=2, subscribe="a", since=joined["cursor"])
                assert missed["recovered"]
                assert await bob.hear() == {"topic": "a", "cursor": sent["cursor"], "data": "hello"}
                wrong = await bob.ask(id=3, subscribe="c", since="nonsense")
                assert wrong["error"] == "cursor"


async def test_event_streams_and_polls_go_on_at_another_server(engine: Engine) -> None:
    async with hubs(engine, authorize=allow) as (one, two), served(one) as first, served(two) as second:
        began = await http(first, "GET /poll?topic=a&topic=b")
        assert began["publications"] == []
        for number in range(3):
            await one.publish("a", str(number))
        told = await http(second, f"GET /poll?topic=a&topic=b&since={began['cursor'].replace('&', '%26')}")
        assert [each["data"] for each in told["publications"]] == ["0", "1", "2"]
        posted = await http(second, "POST /", body=b'{"publish": "b", "data": "3"}')
        assert posted["cursor"].endswith(":1")
        address = first.sockets[0].getsockname()
        peer = await Peer.reach(address)
        since = told["cursor"].replace("&", "%26")
        await peer.write(f"GET /stream?topic=a&topic=b&since={since} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        text = ""
        while '"data":"3"' not in text.replace('\\"', '"'):
            text += (await peer.read()).decode()
        assert '"data":"2"' not in text
        assert text.count('"recovered":true') == 2
        peer.close()
        held = asyncio.ensure_future(http(second, f"GET /poll?topic=a&since={told['cursor'].replace('&', '%26')}"))
        await eventually(lambda: two.stats().subscribers)
        await one.publish("a", "4")
        assert [each["data"] for each in (await held)["publications"]] == ["4"]
        wrong = await http(second, "GET /poll?topic=new&since=nonsense")
        assert wrong["error"] == "cursor"
        await eventually(lambda: one.stats().subscribers == two.stats().subscribers == 0)


async def test_clients_are_told_where_they_are_when_the_engine_was_away(engine: Engine, logged: Logged) -> None:
    async with hubs(engine, authorize=allow) as (one, two), served(one) as first:
        async with client(first) as ann:
            await ann.ask(id=1, subscribe="a")
            engine.kill(forget=True)
            await eventually(lambda: one.stats().degraded and two.stats().degraded)
            asked = await ann.ask(id=2, publish="a", data="alone")
            # The publication came first: it was delivered at once.
            heard = await ann.hear()
            assert asked["data"] == "alone"
            assert asked["cursor"] == heard["cursor"]
            engine.start()
            told = [await ann.hear()]
            while not told[-1].get("recovered"):
                told.append(await ann.hear())
            assert [each["recovered"] for each in told] in ([False, True], [True])
            await eventually(lambda: not one.stats().degraded and not two.stats().degraded)
            last = await two.publish("a", "last")
            assert await ann.hear() == {"topic": "a", "cursor": last.cursor, "data": "last"}
        await eventually(lambda: one.stats().subscribers == 0)
        logged.take_all("the backplane is away", 2)
        logged.take_all("the backplane is back", 2)


async def test_a_killed_server_takes_those_present_with_it_within_the_lease(tmp_path: Path, started: Started) -> None:
    engine = started(tmp_path, lease=2.0)
    command = [sys.executable, "-m", "tests.backplanes.program", engine.url, "2.0"]
    with Process(command, listens=True) as process:
        assert process.port is not None
        async with Hub(backplane=engine.backplane(), authorize=allow) as hub, served(hub) as server:
            async with client(server) as watcher:
                await watcher.ask(id=1, subscribe="a", watch=True)
                peer = await Peer.reach(("127.0.0.1", process.port))
                await peer.shake_hands("Sec-WebSocket-Protocol: rawws.v1", line="GET /ws HTTP/1.1")
                answer = await Client(peer).ask(id=1, subscribe="a", join="x")
                assert (await watcher.hear())["join"] == {"id": answer["present"], "info": "x", "claimed": True}
                os.kill(process.pid, signal.SIGKILL)
                assert (await watcher.hear())["leave"] == {"id": answer["present"], "info": "x", "claimed": True}
                peer.close()
            await eventually(lambda: hub.stats().subscribers == 0)
