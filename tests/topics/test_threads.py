"""Other threads than the loop's: what they call raises at once and does nothing, but for `publish_threadsafe`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

import rawws
from rawws.backplanes.memory import Engine, MemoryBackplane
from rawws.topics import Hub, PublishResult, TopicError, threadsafe
from tests.server.answers import ask, get
from tests.server.peers import connected, eventually, held, serve
from tests.topics.receivers import Receiver

Result = TypeVar("Result")
WRONG = r"this was called in the thread 'other_0', allowed is the one of its event loop; .*hub.publish_threadsafe"


@pytest.fixture
def others() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1, thread_name_prefix="other") as executor:
        yield executor


async def refused(others: ThreadPoolExecutor, *calls: Callable[[], object]) -> None:
    """Have another thread call these, each of which must raise."""
    for call in calls:
        with pytest.raises(RuntimeError, match=WRONG):
            await asyncio.get_running_loop().run_in_executor(others, call)


# -- what raises


async def test_a_websocket_takes_nothing_of_another_thread(others: ThreadPoolExecutor) -> None:
    async with held() as (ws, peer):
        parts = ["a", "b"]
        await refused(
            others,
            lambda: ws.send("late"),
            lambda: ws.send(b"late"),
            lambda: ws.send(parts),
            lambda: ws.send("late", text=False),
            ws.ping,
            ws.pong,
            ws.close,
            ws.abort,
            ws.recv,
            lambda: rawws.broadcast([ws], "late"),
        )
        ws.send("in time")
        assert await peer.message() == "in time"


async def test_a_stream_and_a_poll_take_nothing_of_another_thread(others: ThreadPoolExecutor) -> None:
    routes = rawws.Routes()
    made: dict[str, Any] = {}

    @routes.get("/stream")
    def begin_stream(_: rawws.HttpRequest) -> rawws.EventStream:
        made["stream"] = rawws.EventStream(retry=5)
        return made["stream"]  # type: ignore[no-any-return]

    @routes.get("/poll")
    def begin_poll(_: rawws.HttpRequest) -> rawws.LongPoll:
        made["poll"] = rawws.LongPoll()
        return made["poll"]  # type: ignore[no-any-return]

    async with serve(routes) as server:
        streaming = asyncio.create_task(ask(server, get("/stream", "Connection: close")))
        polling = asyncio.create_task(ask(server, get("/poll", "Connection: close")))
        await eventually(lambda: len(made) == 2)
        stream, poll = made["stream"], made["poll"]
        await refused(others, lambda: stream.send("late"), stream.close, lambda: poll.respond("late"))
        await refused(others, server.close, server.abort)
        stream.send("in time")
        stream.close()
        assert poll.respond("in time")
        assert (await streaming)[0].body == b"retry: 5\n\ndata: in time\n\n"
        assert (await polling)[0].body == b"in time"


async def test_a_stream_that_no_endpoint_returned_is_of_the_thread_that_made_it(others: ThreadPoolExecutor) -> None:
    stream = rawws.EventStream()
    await refused(others, lambda: stream.send("late"))

    def make() -> rawws.EventStream:
        made = rawws.EventStream()
        made.send("before")
        return made

    made = await asyncio.get_running_loop().run_in_executor(others, make)
    made.send("behind")
    assert made.buffered == len(b"data: before\n\ndata: behind\n\n")


async def test_a_hub_takes_nothing_of_another_thread(others: ThreadPoolExecutor) -> None:
    hub, receiver = Hub(), Receiver()
    hub.subscribe(receiver, "t")
    await refused(
        others,
        lambda: hub.publish("t", "late"),
        lambda: hub.subscribe(Receiver(), "t"),
        lambda: hub.subscribe(receiver, "u"),
        lambda: hub.unsubscribe(receiver, "t"),
        lambda: hub.recall("t", since="earliest"),
        lambda: asyncio.run(hub.close()),
    )
    assert hub.publish("t", "in time").delivered == 1
    assert receiver.got == ["in time"]
    assert hub.stats().published == hub.stats().held == 1


def test_before_a_hub_is_in_a_loop_any_thread_may_use_it(others: ThreadPoolExecutor) -> None:
    hub = Hub()
    others.submit(hub.publish, "t", "a").result()
    assert hub.publish_threadsafe("t", "b").result().cursor.endswith(":2")

    async def listen() -> list[Any]:
        feed = hub.listen("t", since="earliest")
        return [(await anext(feed)).message for _ in range(2)]

    # And one loop after the other.
    for _ in range(2):
        assert asyncio.run(listen()) == ["a", "b"]
    assert others.submit(asyncio.run, listen()).result() == ["a", "b"]
    hub.publish("t", "the loop of the other thread is closed")


# -- publish_threadsafe


async def spread(publish: Callable[[str], Result], threads: int, count: int) -> list[list[Result]]:
    """Have threads publish their names and numbers."""

    def run(name: int) -> list[Result]:
        return [publish(f"{name} {number}") for number in range(count)]

    with ThreadPoolExecutor(threads) as executor:
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*[loop.run_in_executor(executor, run, name) for name in range(threads)])


async def test_what_four_threads_publish_arrives_once_and_in_the_order_of_each() -> None:
    count = 5000
    hub = Hub()
    async with serve(hub_handler(hub)) as server, connected(server) as peer:
        await eventually(lambda: hub.stats().subscribers)
        reading = asyncio.create_task(peer_messages(peer, 4 * count))
        futures = await spread(lambda text: hub.publish_threadsafe("t", text), 4, count)
        results = [await asyncio.wrap_future(future) for each in futures for future in each]
        assert len({result.cursor for result in results}) == 4 * count
        came = await reading
    for name in range(4):
        assert [text for text in came if text.startswith(f"{name} ")] == [f"{name} {number}" for number in range(count)]
    assert hub.stats().published == 4 * count


def hub_handler(hub: Hub) -> Callable[[rawws.WebSocket], Any]:
    async def handler(ws: rawws.WebSocket) -> None:
        hub.subscribe(ws, "t", policy="block")
        await ws.wait_closed()

    return handler


async def peer_messages(peer: Any, count: int) -> list[str]:
    return [await peer.message() for _ in range(count)]


async def test_a_thread_that_is_faster_than_the_loop_waits(
    others: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threadsafe, "MAX_POSTED", 3)
    hub, receiver = Hub(), Receiver()
    hub.subscribe(receiver, "t")
    posted: list[Future[PublishResult]] = []

    def publish() -> None:
        posted.extend(hub.publish_threadsafe("t", str(number)) for number in range(10))

    publishing = others.submit(publish)
    # The loop stands still here.
    while len(hub._thread._posted) < 3 or not hub._thread._room._waiters:  # type: ignore[attr-defined]
        pass
    assert (len(posted), publishing.done(), receiver.got) == (3, False, [])
    await asyncio.wrap_future(publishing)
    await asyncio.wrap_future(posted[-1])
    assert receiver.got == [str(number) for number in range(10)]


async def test_bytes_are_bounded_too(others: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threadsafe, "MAX_POSTED_SIZE", 100)
    hub, receiver = Hub(), Receiver()
    hub.subscribe(receiver, "t")
    publishing = others.submit(lambda: [hub.publish_threadsafe("t", bytearray(60)) for _ in range(5)])
    while hub._thread._size < 120:
        pass
    last = (await asyncio.wrap_future(publishing))[-1]
    await asyncio.wrap_future(last)
    assert receiver.got == [bytes(60)] * 5


async def test_a_turn_of_the_loop_takes_a_bounded_number(others: ThreadPoolExecutor) -> None:
    hub, receiver = Hub(), Receiver()
    hub.subscribe(receiver, "t")
    others.submit(lambda: [hub.publish_threadsafe("t", "a") for _ in range(1000)]).result()
    await asyncio.sleep(0)
    assert 0 < len(receiver.got) <= 2 * threadsafe.TURN
    await eventually(lambda: len(receiver.got) == 1000)


async def test_mistakes_raise_at_once(others: ThreadPoolExecutor) -> None:
    hub = Hub(max_size=5)
    for arguments, error in ((("", "a"), TopicError), (("t", "longer"), TopicError), (("t", {1}), TypeError)):
        with pytest.raises(error):
            hub.publish_threadsafe(*arguments)
    with pytest.raises(TopicError, match="the key is int"):
        hub.publish_threadsafe("t", "a", key=1)  # type: ignore[arg-type]
    assert hub.stats().published == 0


async def test_a_thread_may_exclude_a_subscriber(others: ThreadPoolExecutor) -> None:
    hub = Hub()
    one, two = Receiver(), Receiver()
    stranger: Any = ({"type": "websocket"}, None, lambda event: event)
    hub.subscribe(one, "t")
    hub.subscribe(two, "t")
    loop = asyncio.get_running_loop()

    def publish() -> list[Future[PublishResult]]:
        return [
            hub.publish_threadsafe("t", text, exclude=exclude)
            for text, exclude in (("a", one), ("b", None), ("c", Receiver()), ("d", stranger), ("e", two))
        ]

    results = [await asyncio.wrap_future(each) for each in await loop.run_in_executor(others, publish)]
    assert [result.delivered for result in results] == [1, 2, 2, 2, 1]
    assert (one.got, two.got) == (["b", "c", "d", "e"], ["a", "b", "c", "d"])
    # A WebSocket of another framework that no hub had stays so.
    assert set(stranger[0]) == {"type"}
    refused = await loop.run_in_executor(others, lambda: hub.publish_threadsafe("t", "f", exclude=7))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="the subscriber is int"):
        await asyncio.wrap_future(refused)
    assert len(two.got) == 4


async def test_in_the_thread_of_the_loop_it_publishes_at_once() -> None:
    hub, receiver = Hub(), Receiver()
    hub.subscribe(receiver, "t")
    assert hub.publish_threadsafe("t", "a", key="k").result(0).delivered == 1
    assert receiver.got == ["a"]


async def test_what_was_cancelled_in_time_is_not_sent(others: ThreadPoolExecutor) -> None:
    hub, receiver = Hub(), Receiver()
    hub.subscribe(receiver, "t")
    first, second = others.submit(lambda: [hub.publish_threadsafe("t", text) for text in "ab"]).result()
    assert first.cancel()
    await asyncio.wrap_future(second)
    assert receiver.got == ["b"]
    with pytest.raises(CancelledError):
        first.result()


async def test_closing_the_hub_sends_what_was_published_before(others: ThreadPoolExecutor) -> None:
    hub, receiver = Hub(), Receiver()
    hub.subscribe(receiver, "t")
    others.submit(lambda: [hub.publish_threadsafe("t", str(number)) for number in range(600)]).result()
    await hub.close()
    assert receiver.got == [str(number) for number in range(600)]


async def test_the_future_waits_for_those_who_block(others: ThreadPoolExecutor) -> None:
    hub, receiver = Hub(policy="block"), Receiver()
    hub.subscribe(receiver, "t")
    receiver.congested = True
    future = others.submit(hub.publish_threadsafe, "t", "a").result()
    await eventually(lambda: hub.stats().waiting == 1)
    assert not future.done()
    receiver.read_on()
    assert (await asyncio.wrap_future(future)).queued == 1


async def test_with_a_backplane_the_future_waits_for_the_engine(others: ThreadPoolExecutor) -> None:
    hub = Hub(backplane=MemoryBackplane(Engine()))
    with pytest.raises(RuntimeError, match="used in no event loop yet, needed is `async with hub`"):
        others.submit(hub.publish_threadsafe, "t", "a").result()
    async with hub:
        receiver = Receiver()
        await hub.subscribe(receiver, "t")
        result = await asyncio.wrap_future(others.submit(hub.publish_threadsafe, "t", "a").result())
        assert (result.accepted, result.delivered, receiver.got) == (True, 1, ["a"])


def test_what_waited_for_a_loop_that_ended_goes_to_the_next_one(others: ThreadPoolExecutor) -> None:
    hub, receiver = Hub(), Receiver()

    async def begin() -> Future[PublishResult]:
        hub.subscribe(receiver, "t")
        return others.submit(hub.publish_threadsafe, "t", "a").result()

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        waiting = loop.run_until_complete(begin())
        loop.call_soon(lambda: None)
    # Whether the first loop still had a turn is open; with the second, it is over.
    with pytest.raises(RuntimeError, match="the event loop of the hub is closed"):
        others.submit(hub.publish_threadsafe, "t", "b").result()

    async def go_on() -> None:
        hub.publish("t", "c")
        await asyncio.wrap_future(waiting)

    asyncio.run(go_on())
    assert set(receiver.got) == {"a", "c"}


def test_a_future_does_not_wait_for_a_loop_that_ended(others: ThreadPoolExecutor) -> None:
    hub, receiver = Hub(policy="block"), Receiver()

    async def begin() -> Future[PublishResult]:
        hub.subscribe(receiver, "t")
        receiver.congested = True
        future = others.submit(hub.publish_threadsafe, "t", "a").result()
        await eventually(lambda: hub.stats().waiting)
        await asyncio.sleep(0)
        return future

    with pytest.raises(RuntimeError, match="the event loop ended before"):
        asyncio.run(begin()).result(10)


async def test_what_raises_in_the_loop_is_told_by_the_future(
    others: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Hub()
    hub.subscribe(Receiver(), "t")
    monkeypatch.setattr(hub, "max_size", 3)
    monkeypatch.setattr(hub, "check_publish", lambda *_: None)
    future = others.submit(hub.publish_threadsafe, "t", "longer").result()
    with pytest.raises(TopicError):
        await asyncio.wrap_future(future)


def test_a_loop_may_run_in_another_thread_than_it_was_made_in(others: ThreadPoolExecutor) -> None:
    loop = asyncio.new_event_loop()
    from rawws.net.socket import shared  # noqa: PLC0415 - the one test that needs it

    of_loop = shared(loop)
    assert of_loop.is_here()

    async def check() -> None:
        of_loop.check()
        assert of_loop.is_here()

    others.submit(loop.run_until_complete, check()).result()
    with pytest.raises(RuntimeError, match="MainThread"):
        of_loop.check()
    loop.close()
