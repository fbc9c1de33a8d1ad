"""A gateway in service: its clients and their events while the engine is away, and while instances are replaced."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final, final

import httpx2
import pytest

import rawws
from tests.backplanes.engines import RedisEngine
from tests.cli.commands import port, start
from tests.gateway.instances import instances
from tests.gateway.own_running import OwnClient, everything, own, token_file
from tests.gateway.running import APP, PATIENCE, SECRET, member
from tests.gateway.v1_running import Server, server
from tests.processes import Process

CHANNEL: Final = "presence-room"
# Clients of rawws.v1 at each of two instances.
CLIENTS: Final = 10
# More publications than there are while an engine is away.
EVERYTHING: Final = 10_000


async def until(condition: Callable[[], object]) -> None:
    """Wait until something is so; give up after a minute."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - nobody says when
            await asyncio.sleep(0.01)


@final
class Publisher:
    """A server that publishes numbers, one after the other: those that it asked for, and those that were accepted."""

    def __init__(self, name: str, ask: Callable[[str, str], Any]) -> None:
        self.name = name
        self.asked: list[str] = []
        self.accepted: list[str] = []
        # Those of them that wait for the engine.
        self.waiting: list[str] = []
        self._ask = ask

    async def run(self, ended: asyncio.Event) -> None:
        """Publish until that is set."""
        for number in count():
            if ended.is_set():
                return
            await self.publish(f"{self.name}:{number}")
            await asyncio.sleep(0.01)

    async def publish(self, said: str) -> bool:
        """Publish once; tell whether it was accepted."""
        self.asked.append(said)
        answer = await self._ask(said, f"{said}:{len(self.asked)}")
        if answer is None:
            return False
        self.accepted.append(said)
        if "waiting" in answer:
            self.waiting.append(said)
        return True

    async def last(self) -> str:
        """Publish until one is accepted, and return that."""
        for number in count():
            if await self.publish(f"{self.name}:last{number}"):
                break
        return self.accepted[-1]


@final
class Page:
    """A page of pusher-js in the presence channel: what it heard, and who came and went."""

    def __init__(self, ws: rawws.WebSocket) -> None:
        self.ws = ws
        self.heard: list[str] = []
        self.came: list[str] = []
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for text in self.ws:
            message = json.loads(text)
            if message["event"] == "said":
                self.heard.append(message["data"])
            elif message["event"].startswith("pusher_internal:member_"):
                self.came.append(f"{message['event'][23:]} {json.loads(message['data'])['user_id']}")

    async def leave(self) -> None:
        """End the connection."""
        await self.ws.close()
        await self.task


@final
class Follower:
    """A client of rawws.v1 that comes back where it left, to whichever instance `place` gives then."""

    def __init__(self, user: str, place: Callable[[], int]) -> None:
        self.user = user
        self.heard: list[str] = []
        # The instances where it was, and the codes by which it was told to go.
        self.ports: list[int] = []
        self.codes: list[int | None] = []
        # Whether it was told that it may have missed something.
        self.told = False
        self.subscribed = asyncio.Event()
        self._place = place
        self._cursor = ""
        self.task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        while True:
            at = self._place()
            try:
                async with own(at, everything(self.user)) as client:
                    self.ports.append(at)
                    await self._listen(client)
            except (rawws.ConnectionClosed, rawws.InvalidStatus, OSError):
                # A process that ends listens no more before its place is another one.
                await asyncio.sleep(0.01)

    async def _listen(self, client: OwnClient) -> None:
        since = {"since": self._cursor} if self._cursor else {}
        await client.ws.send(json.dumps({"id": 1, "subscribe": CHANNEL, **since}))
        try:
            while True:
                told = await client.hear()
                if "error" in told:
                    raise AssertionError(told)
                self.told = self.told or not told.get("recovered", True)
                self._cursor = told.get("cursor", self._cursor)
                if "id" in told:
                    self.subscribed.set()
                if "topic" in told and "data" in told:
                    self.heard.append(told["data"])
        finally:
            self.codes.append(client.ws.close_code)

    async def leave(self) -> None:
        """Follow no more."""
        self.task.cancel()
        await asyncio.wait({self.task})


def check(heard: list[str], publishers: list[Publisher], *, whole: bool = True) -> None:
    """Check that somebody heard all that was accepted, nothing twice, and each publisher in its order."""
    if whole:
        assert {said for each in publishers for said in each.accepted} - {*heard} == set()
    assert [said for said, times in Counter(heard).items() if times > 1] == []
    for each in publishers:
        assert [said for said in heard if said in each.asked] == [said for said in each.asked if said in heard]


# -- an engine that is away


@contextmanager
def redis(folder: Path) -> Iterator[RedisEngine]:
    """Run a Redis that is there again at the end."""
    engine = RedisEngine(folder)
    try:
        yield engine
    finally:
        if engine.process is not None:
            os.kill(engine.process.pid, signal.SIGCONT)
        engine.end()


def go_away(engine: RedisEngine, how: str) -> None:
    if how == "killed":
        engine.kill()
    else:
        assert engine.process is not None
        os.kill(engine.process.pid, signal.SIGSTOP)


def come_back(engine: RedisEngine) -> None:
    if engine.process is None:
        engine.start()
    else:
        os.kill(engine.process.pid, signal.SIGCONT)


@pytest.mark.parametrize(("how", "history"), [("killed", EVERYTHING), ("stopped", EVERYTHING), ("killed", 10)])
def test_o5_what_is_accepted_while_the_engine_is_away_is_heard_once_or_clients_are_told(
    tmp_path: Path, how: str, history: int
) -> None:
    with redis(tmp_path) as engine:
        head = f'[gateway]\nbackplane = "{engine.url}"\nhistory_count = {history}'
        with instances(tmp_path, token_file(head=head), 2) as processes:
            asyncio.run(outlive(engine, how, history, [port(each) for each in processes]))


async def outlive(engine: RedisEngine, how: str, history: int, ports: list[int]) -> None:
    """Have the engine of two instances go away and come back, and look at what became of all."""
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(server(each)) for each in ports]
        ann, bob = [Page(await member(*each)) for each in zip(ports, [CHANNEL] * 2, ["ann", "bob"], strict=True)]
        followers = [Follower(f"own{each}", lambda each=each: each) for each in ports]  # type: ignore[misc]
        for each in followers:
            stack.push_async_callback(each.leave)
            await each.subscribed.wait()
        publishers = [Publisher(f"server{n}", asking(each)) for n, each in enumerate(servers)]
        ended = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for publisher in publishers:
                group.create_task(publisher.run(ended))
            await until(lambda: all(len(each.accepted) > 5 for each in publishers))
            here, there = [await connection_of(servers[0], each.user) for each in followers]
            await asyncio.to_thread(go_away, engine, how)
            async with asyncio.timeout(PATIENCE):
                # Of a connection of another instance nobody knows now.
                while (told := await send(servers[0], there)).status_code == 200:
                    pass
            assert (told.status_code, told.headers["Retry-After"]) == (503, "1")
            assert (await send(servers[0], here)).status_code == 200
            await bob.leave()
            carl = Page(await member(ports[0], CHANNEL, "carl"))
            # More than the shortest history.
            await until(lambda: all(len(each.waiting) > 20 for each in publishers))
            await asyncio.to_thread(come_back, engine)
            for asked in servers:
                await has_members(asked, "ann", "carl")
            ended.set()
        last = [await each.last() for each in publishers]
        always = [ann.heard, *(each.heard for each in followers)]
        await until(lambda: all({*last} <= {*heard} for heard in (carl.heard, *always)))
        if history == EVERYTHING:
            assert not any(each.told for each in followers)
            check(ann.heard, publishers)
        for each in followers:
            check(each.heard, publishers, whole=not each.told)
        # Who was at the instance that was asked had it at once.
        assert {*publishers[0].waiting} <= {*ann.heard}
        assert max(Counter(ann.heard).values()) == 1
        assert max(Counter(carl.heard).values()) == 1
        # Whoever stayed was never told to go, and heard of each change once.
        assert [each.codes for each in followers] == [[], []]
        assert sorted(each for each in ann.came if "own" not in each) == ["added bob", "added carl", "removed bob"]
        async with asyncio.timeout(PATIENCE):
            while (await send(servers[1], here)).status_code != 200:
                pass
        for page in (ann, carl):
            await page.leave()


def asking(to: Server) -> Callable[[str, str], Any]:
    """Return what publishes by an instance."""

    async def ask(said: str, key: str) -> Any:
        answer = await to.answer("POST", "publish", {"channel": CHANNEL, "event": "said", "data": said})
        assert answer.status_code in {200, 503}, answer.text
        return answer.json() if answer.status_code == 200 else None

    return ask


async def connection_of(asked: Server, user: str) -> str:
    """Return the id of the connection of a user, once that instance knows of it."""
    async with asyncio.timeout(PATIENCE):
        while not (listed := (await asked.get("connections", user=user))["connections"]):
            pass
    ident: str = listed[0]["connection"]
    return ident


async def send(asked: Server, connection: str) -> httpx2.Response:
    return await asked.answer("POST", f"connections/{connection}/send", {"event": "ping", "data": "x"})


async def has_members(asked: Server, *users: str) -> None:
    """Wait until an instance knows that these are there, and nobody else."""
    async with asyncio.timeout(PATIENCE):
        while [each["user"] for each in (await asked.get(f"channels/{CHANNEL}/members"))["members"]] != [*users]:
            pass


# -- instances that are replaced


@final
class Places:
    """What stands before two instances: it leads to those that are meant to have clients."""

    def __init__(self, *ports: int) -> None:
        self.ports = [*ports]
        self._turns = count()

    def next(self) -> int:
        """Return the port of one of them."""
        return self.ports[next(self._turns) % len(self.ports)]


def test_o6_while_instances_are_replaced_one_by_one_nothing_that_was_accepted_is_lost(tmp_path: Path) -> None:
    with redis(tmp_path) as engine:
        head = f'[gateway]\nbackplane = "{engine.url}"\nhistory_count = {EVERYTHING}'
        with instances(tmp_path, token_file(head=head), 2) as processes:
            asyncio.run(replace(tmp_path, processes))


async def replace(folder: Path, processes: list[Process]) -> None:
    """Replace two instances, one after the other, while clients of both publish and servers do."""
    places = Places(*map(port, processes))
    async with AsyncExitStack() as stack:
        followers = [Follower(f"user{number}", places.next) for number in range(2 * CLIENTS)]
        for follower in followers:
            stack.push_async_callback(follower.leave)
            await follower.subscribed.wait()
        client = await stack.enter_async_context(httpx2.AsyncClient(timeout=PATIENCE))
        publishers = [Publisher(f"server{number}", asking_any(client, places)) for number in range(2)]
        ended = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for publisher in publishers:
                group.create_task(publisher.run(ended))
            for number, old in enumerate(processes):
                before = [len(each.accepted) for each in publishers]
                new = await asyncio.to_thread(start, folder, "gateway", "gateway.toml", "--port", "0")
                stack.push_async_callback(asyncio.to_thread, new.stop)
                left = port(old)
                here = [each for each in followers if each.ports[-1] == left]
                assert here
                places.ports[number] = port(new)
                old.send_signal(signal.SIGTERM)
                await until(lambda old=old: old.poll() is not None)  # type: ignore[misc]
                assert old.poll() == 0
                await until(lambda here=here, left=left: all(each.ports[-1] != left for each in here))  # type: ignore[misc]
                # Each was told to come back.
                assert {each.codes[-1] for each in here} == {1001}
                await until(
                    lambda before=before: all(
                        len(each.accepted) > was + 5 for each, was in zip(publishers, before, strict=True)
                    )  # type: ignore[misc]
                )
            ended.set()
        last = [await each.last() for each in publishers]
        for follower in followers:
            await until(lambda follower=follower: {*last} <= {*follower.heard} or follower.task.done())  # type: ignore[misc]
            check(follower.heard, publishers)


def asking_any(client: httpx2.AsyncClient, places: Places) -> Callable[[str, str], Any]:
    """Return what publishes by whichever instance is there; what was not answered may have been done."""

    async def ask(said: str, key: str) -> Any:
        url = f"http://127.0.0.1:{places.next()}/v1/apps/{APP}/publish"
        headers = {"Authorization": f"Bearer {SECRET}", "Idempotency-Key": key}
        body = {"channel": CHANNEL, "event": "said", "data": said}
        try:
            answer = await client.post(url, json=body, headers=headers)
        except httpx2.TransportError:
            return None
        assert answer.status_code in {200, 503}, answer.text
        return answer.json() if answer.status_code == 200 else None

    return ask
