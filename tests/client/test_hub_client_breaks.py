"""`rawws.HubClient` where connections, proxies and servers break: nothing is lost or comes twice, gaps are told."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import rawws
from rawws import testing
from rawws.client import hub_links, topics
from rawws.client.options import HubState
from rawws.testing import Line
from tests.client.hubs import HASTY, TRANSPORTS, Network, hub_of, hub_server
from tests.javascript.parts import address, serving
from tests.javascript.proxy import Proxy
from tests.processes import free_port
from tests.server.cuts import Cut, Leftovers, cutting, in_its_turn
from tests.server.peers import eventually

pytestmark = pytest.mark.usefixtures("coming_back")


async def numbers(hub: Any, count: int, topic: str = "numbers", pause: float = 0.01) -> None:
    """Publish numbers from 1 on."""
    for number in range(1, count + 1):
        hub.publish(topic, str(number))
        await asyncio.sleep(pause)


async def collect(subscription: Any, count: int) -> list[int]:
    """Return the numbers that came; a gap is 0."""
    found = []
    async for publication in subscription:
        found.append(int(publication.message) if publication.recovered else 0)
        if len(found) == count:
            break
    return found


# -- on a clock that jumps


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("transports", [("websocket",), ("stream",), ("poll",), TRANSPORTS], ids="-".join)
def test_lines_that_break_all_the_time_lose_and_repeat_nothing(seed: int, transports: tuple[str, ...]) -> None:
    dice = random.Random(seed)
    # Of an answer that is cut off, nothing counts: one with all that was missed has to fit.
    longest = 100_000 if transports == ("poll",) else 8_000

    def lines() -> tuple[Line, Line]:
        kind = dice.choice(["cut", "cut", "cut", "stall"])
        length = dice.randrange(300, longest)
        return (
            Line(piece=dice.choice([None, 61])),
            Line(
                piece=dice.choice([None, 61]),
                cut_after=length if kind == "cut" else None,
                stall_after=length if kind == "stall" else None,
            ),
        )

    async def main() -> None:
        hub = hub_of()
        said: list[str] = []
        fates: dict[str, str] = {}

        async def restart() -> None:
            while True:
                await asyncio.sleep(dice.uniform(1, 20))
                await network.kill()
                await asyncio.sleep(dice.uniform(0, 5))
                await network.start()

        async def say(client: rawws.HubClient) -> None:
            for number in itertools.count(1):
                text = str(number)
                said.append(text)
                try:
                    await client.publish("said", text)
                    fates[text] = "done"
                except rawws.HubError as error:
                    fates[text] = error.code
                await asyncio.sleep(0.5)

        states: list[HubState] = []
        async with Network(hub) as network:
            network.lines = lines
            async with network.client(transports=transports, on_state=states.append) as client:
                first = client.subscribe("numbers", since="earliest")
                second = client.subscribe("numbers", since="earliest")
                other = client.subscribe("other", since="earliest")
                tasks = [
                    asyncio.ensure_future(work)
                    for work in (restart(), say(client), numbers(hub, 1000, pause=0.1), numbers(hub, 300, "other", 0.3))
                ]
                async with asyncio.timeout(10_000):
                    found = await asyncio.gather(collect(first, 1000), collect(second, 1000), collect(other, 300))
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        assert list(found) == [list(range(1, 1001)), list(range(1, 1001)), list(range(1, 301))]
        assert sum(state.state == "connecting" for state in states) >= 5
        # What was acknowledged is there once, what was not at most once, in order.
        history = [item.message async for item in taken(hub, "said")]
        assert history == sorted(set(history), key=int)
        assert set(fates.values()) <= {"done", "unanswered", "closed"}
        assert {text for text, fate in fates.items() if fate == "done"} <= set(history)

    async def taken(hub: Any, topic: str) -> Any:
        feed = hub.listen(topic, since="earliest")
        hub.publish(topic, "end")
        async for item in feed:
            if item.message == "end":
                break
            yield item

    testing.run(main())


def test_the_waits_grow_and_are_drawn_and_a_stable_connection_begins_anew() -> None:
    async def main() -> None:
        waits: list[float] = []
        async with Network(hub_of()) as network:
            client = network.client(on_retry=lambda _, seconds: waits.append(seconds), transports=["websocket"])
            async with client:
                await client.wait_open()
                await network.kill()
                await eventually_in(lambda: len(waits) >= 12)
                assert waits[0] <= 1
                assert all(wait <= 60 for wait in waits)
                assert max(waits[:3]) <= 4 < max(waits[6:])
                await network.start()
                await client.wait_open()
                # It lived for a while.
                await asyncio.sleep(15)
                waits.clear()
                network.cut()
                await eventually_in(lambda: waits)
                assert waits[0] <= 1

    testing.run(main())


def test_a_server_that_is_full_says_when_to_come_back() -> None:
    async def main() -> None:
        waits: list[float] = []
        hub = hub_of()

        async def full(ws: rawws.WebSocket) -> None:
            ws.close(1013, "later")

        async with testing.serve(full, subprotocols=["rawws.v1"]) as host:
            async with host.hub_client(on_retry=lambda _, seconds: waits.append(seconds)) as client:
                await eventually_in(lambda: len(waits) >= 3)
                assert min(waits) >= 5
                # A server that says goodbye is no proxy that breaks something.
                assert client.state == "connecting"
        assert hub.stats().subscribers == 0

    testing.run(main())


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_an_answer_that_is_lost_is_told(transport: str) -> None:
    async def main() -> None:
        hub = hub_of()
        async with Network(hub) as network, network.client(transports=[transport]) as client:
            subscription = client.subscribe("told")
            await subscription.ready()
            if transport == "websocket":
                network.made[-1].stall_after = 0
            else:
                await eventually_in(lambda: hub.subscribers("told") == 1)
                network.lines = lambda: (Line(), Line(cut_after=1))
            publishing = asyncio.ensure_future(client.publish("told", "x"))
            with pytest.raises(rawws.HubError, match="unanswered: the connection broke before the answer"):
                await publishing
            network.lines = lambda: (Line(), Line())
            # It was published, once.
            assert (await anext(subscription)).message == "x"
            assert (await client.publish("told", "y")).endswith(":2")

    testing.run(main())


def test_a_subscription_that_waits_for_its_answer_is_made_again() -> None:
    async def main() -> None:
        hub = hub_of()
        async with Network(hub) as network, network.client() as client:
            await client.wait_open()
            network.cut()
            subscription = client.subscribe("told")
            hub.publish("told", "not yet")
            assert (await subscription.ready()).recovered
            hub.publish("told", "x")
            assert (await anext(subscription)).message == "x"

    testing.run(main())


def test_a_silent_server_is_given_up_by_every_transport() -> None:
    async def main() -> None:
        for transport in TRANSPORTS:
            reasons: list[HubState] = []
            hub = hub_of()
            async with Network(hub) as network:
                network.lines = lambda: (Line(), Line(stall_after=5000))
                async with network.client(transports=[transport], on_state=reasons.append) as client:
                    subscription = client.subscribe("told")
                    await subscription.ready()
                    await eventually_in(lambda hub=hub: hub.subscribers("told") == 1)  # type: ignore[misc]
                    for line in network.made:
                        line.stall_after = 0
                    network.lines = lambda: (Line(), Line())
                    await eventually_in(lambda seen=reasons: len(seen) == 3)  # type: ignore[misc]
                    assert [state.state for state in reasons] == ["open", "connecting", "open"]
                    await client.publish("told", "x")
                    assert (await anext(subscription)).message == "x"

    testing.run(main())


def test_presence_comes_back_with_the_connection() -> None:
    async def main() -> None:
        async with Network(hub_of()) as network:
            async with network.client() as ann, network.client() as bob:
                here = ann.subscribe("room", join="Ann", watch=True)
                there = bob.subscribe("room", join="Bob", watch=True)
                await asyncio.gather(here.ready(), there.ready())
                network.cut()
                await eventually_in(lambda: len(here.members) == len(there.members) == 2)
                assert sorted(member.info for member in here.members.values()) == ["Ann", "Bob"]
            assert network.hub.presence("room") == []

    testing.run(main())


def test_closing_leaves_no_task_and_no_connection_wherever_it_stands() -> None:
    async def main() -> None:
        for seconds in (0, 0.001, 0.5, 1, 3, 10, 50):
            async with Network(hub_of()) as network:
                for rule in (lambda: (Line(), Line(stall_after=0)), lambda: (Line(), Line(cut_after=400))):
                    network.lines = rule
                    async with network.client() as client:
                        subscription = client.subscribe("told", watch=True)
                        await asyncio.sleep(seconds)
                    assert [item async for item in subscription] == []
                    assert asyncio.all_tasks() == {asyncio.current_task()}

    testing.run(main())


async def eventually_in(condition: Callable[[], object]) -> None:
    """Wait on the clock that jumps."""
    async with asyncio.timeout(3600):
        while not condition():  # noqa: ASYNC110 - the clock jumps only where all wait for a time
            await asyncio.sleep(0.1)


# -- behind proxies


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try the better transport again soon, and lose patience with a silent one."""
    monkeypatch.setattr(topics, "BETTER_FIRST", 0.1)
    monkeypatch.setattr(hub_links, "SILENCE", 2.0)


@pytest.mark.parametrize(
    "rule", ["strip", "refuse", "hold", ("cut", 5000), ("stall", 5000)], ids=["strip", "refuse", "hold", "cut", "stall"]
)
async def test_what_a_proxy_breaks_is_replaced_and_nothing_is_lost(rule: Any) -> None:
    hub = hub_of()
    states: list[HubState] = []
    async with hub_server(hub) as server:
        with Proxy(server.sockets[0].getsockname()[1]) as proxy:
            proxy.rules["websocket"] = rule
            options: Any = {**HASTY, "open_timeout": 1.5, "ping_interval": 0.2, "ping_timeout": 1}
            async with rawws.HubClient(address(proxy.port), on_state=states.append, **options) as client:
                subscription = client.subscribe("numbers", since="earliest")
                publishing = asyncio.ensure_future(numbers(hub, 400))
                await eventually(lambda: client.transport == "stream")
                assert (await client.publish("told", "x")).endswith(":1")
                assert await collect(subscription, 400) == list(range(1, 401))
                await publishing


async def test_the_better_transport_is_taken_when_it_is_let_through_again(hasty: None) -> None:
    hub = hub_of()
    async with hub_server(hub) as server:
        with Proxy(server.sockets[0].getsockname()[1]) as proxy:
            proxy.rules["websocket"] = "refuse"
            async with rawws.HubClient(address(proxy.port), **HASTY) as client:
                subscription = client.subscribe("numbers", since="earliest")
                publishing = asyncio.ensure_future(numbers(hub, 500))
                await eventually(lambda: client.transport == "stream")
                seen = len(proxy.seen)
                await eventually(lambda: "websocket" in proxy.seen[seen:])
                del proxy.rules["websocket"]
                await eventually(lambda: client.transport == "websocket")
                assert await collect(subscription, 500) == list(range(1, 501))
                await publishing


@in_its_turn
async def test_a_client_that_is_cancelled_wherever_it_waits_leaves_no_connection(
    late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topics, "BETTER_FIRST", 0.01)
    async with hub_server(hub_of()) as server:
        left = Leftovers()
        with left.heard():
            for at in itertools.count(1):
                cut = Cut(at, late=late)
                client: Any = rawws.HubClient(address(server.sockets[0].getsockname()[1]), **HASTY)
                # It begins with a stream, and finds that a WebSocket works.
                client._level = 1
                with cutting("HubClient._run", cut):
                    async with client:
                        client.subscribe("numbers")
                        while client.transport != "websocket" and not cut.is_over:  # noqa: ASYNC110 - as above
                            await asyncio.sleep(0.005)
                await left.check(at)
                if not cut.is_made:
                    break


async def test_a_topic_that_is_refused_over_a_stream_leaves_the_others(hasty: None) -> None:
    async with hub_server(hub_of(max_topics=3)) as server:
        port = server.sockets[0].getsockname()[1]
        async with rawws.HubClient(address(port), transports=["stream"], **HASTY) as client:
            told = [client.subscribe(f"told {number}") for number in range(3)]
            secret = client.subscribe("secret")
            with pytest.raises(rawws.HubError, match="refused"):
                await secret.ready()
            for each in told:
                await each.ready()
            # Each alone is allowed: they are too many.
            many = client.subscribe("one more")
            with pytest.raises(rawws.HubError, match="limit"):
                await many.ready()
            await client.publish("told 2", "x")
            assert (await anext(told[2])).message == "x"
            for each in told:
                each.close()
            last = client.subscribe("last")
            await last.ready()


# -- a server that is killed


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_server_that_was_killed_is_found_again_and_what_is_not_known_is_told(transport: str) -> None:
    port = free_port()
    process = await asyncio.to_thread(serving, port)
    log: list[int] = []
    wake = asyncio.Event()

    async def follow(subscription: Any) -> None:
        async for publication in subscription:
            log.append(int(publication.message) if publication.recovered else 0)
            wake.set()

    async def more(done: Callable[[], Awaitable[bool] | bool]) -> None:
        while not done():
            wake.clear()
            await wake.wait()

    try:
        async with rawws.HubClient(address(port), transports=[transport], **HASTY) as client:
            following = asyncio.ensure_future(follow(client.subscribe("numbers", since="earliest")))
            for gaps in range(1, 3):
                known = len(log)
                await more(lambda known=known: len(log) >= known + 200)  # type: ignore[misc]
                os.kill(process.pid, signal.SIGKILL)
                await asyncio.to_thread(process.stop)
                process = await asyncio.to_thread(serving, port)
                await more(lambda gaps=gaps: log.count(0) == gaps)  # type: ignore[misc]
            known = len(log)
            await more(lambda: len(log) >= known + 200)
        await following
    finally:
        await asyncio.to_thread(process.stop)
    # This hub's history dies with it: between two gaps, all is there, once.
    ends = [number for number, item in enumerate(log) if item == 0]
    assert len(ends) == 2
    parts = [log[: ends[0]], log[ends[0] + 1 : ends[1]], log[ends[1] + 1 :]]
    assert parts[0][0] == 1
    for part in parts:
        assert len(part) >= 100
        assert part == list(range(part[0], part[0] + len(part)))
