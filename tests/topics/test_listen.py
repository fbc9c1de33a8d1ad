"""Hub.listen: publications to an `async for`, each once and in order, or an error behind those that came before."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import rawws
from rawws.backplanes.memory import Engine, MemoryBackplane
from rawws.topics import History, Hub, TopicError
from tests.server.peers import eventually


async def take(feed: Any, count: int) -> list[Any]:
    return [(await anext(feed)).message for _ in range(count)]


async def test_it_gives_what_is_published_from_its_first_step_on() -> None:
    hub = Hub()
    hub.publish("t", "before")
    feed = hub.listen("t", "u")
    first = asyncio.ensure_future(anext(feed))
    await eventually(lambda: hub.stats().subscriptions == 2)
    hub.publish("t", "a", key="k")
    hub.publish("u", b"b")
    publication = await first
    assert (publication.topic, publication.message, publication.offset, publication.key) == ("t", "a", 2, "k")
    assert publication.cursor.endswith(":2")
    assert await take(feed, 1) == [b"b"]
    await feed.aclose()
    assert hub.stats().subscribers == 0


async def test_it_goes_on_behind_a_cursor() -> None:
    hub = Hub()
    [first, *_] = [hub.publish("t", str(number)) for number in range(5)]
    assert await take(hub.listen("t", since=first.cursor), 4) == ["1", "2", "3", "4"]
    assert await take(hub.listen("t", since="earliest"), 5) == ["0", "1", "2", "3", "4"]


async def test_a_loop_that_is_left_leaves_the_hub() -> None:
    hub = Hub()
    hub.publish("t", "a")
    async for publication in hub.listen("t", since="earliest"):
        assert publication.message == "a"
        break
    await eventually(lambda: hub.stats().subscribers == 0)


async def test_it_ends_with_the_hub_behind_all_that_came() -> None:
    hub = Hub()
    feed = hub.listen("t", since="earliest")
    for number in range(5):
        hub.publish("t", str(number))
    assert await take(feed, 1) == ["0"]
    await hub.close()
    assert [publication.message async for publication in feed] == ["1", "2", "3", "4"]
    waiting = asyncio.ensure_future(anext(hub.listen("t"), "the end"))
    await eventually(lambda: hub.stats().subscribers == 1)
    await hub.close()
    assert await waiting == "the end"


async def test_where_too_much_waits_it_raises_behind_what_came() -> None:
    hub = Hub(history=None)
    feed = hub.listen("t")
    first = asyncio.ensure_future(anext(feed))
    await eventually(lambda: hub.stats().subscribers == 1)
    for number in range(80):
        hub.publish("t", f"{number} {'x' * 16_000}")
    assert str((await first).message).startswith("0 ")
    with pytest.raises(TopicError, match="slow consumer: over 1048576 bytes wait") as caught:
        await take(feed, 80)
    assert caught.value.code == "lost"
    assert hub.stats().subscribers == 0


async def test_another_policy_drops_what_it_says() -> None:
    hub = Hub()
    feed = hub.listen("t", policy=rawws.Policy("drop_oldest", limit=2))
    first = asyncio.ensure_future(anext(feed))
    await eventually(lambda: hub.stats().subscribers == 1)
    for number in range(10):
        hub.publish("t", str(number))
    assert [(await first).message, *await take(feed, 2)] == ["0", "8", "9"]


async def test_a_publisher_can_wait_for_it() -> None:
    hub = Hub()
    feed = hub.listen("t", policy="block")
    first = asyncio.ensure_future(anext(feed))
    await eventually(lambda: hub.stats().subscribers == 1)
    hub.publish("t", "0")
    waiting = asyncio.ensure_future(hub.publish("t", "1"))
    await first
    assert not waiting.done()
    assert await take(feed, 1) == ["1"]
    await waiting


async def test_a_gap_raises() -> None:
    hub = Hub(history=History(count=2))
    first = hub.publish("t", "0")
    for number in range(5):
        hub.publish("t", str(number))
    with pytest.raises(TopicError, match="not known what came in 't' since the cursor"):
        await take(hub.listen("t", since=first.cursor), 1)
    with pytest.raises(rawws.CursorError):
        await take(hub.listen("t", since="nonsense"), 1)
    with pytest.raises(TopicError, match="no topic is named"):
        await take(hub.listen(), 1)
    assert hub.stats().subscribers == 0


async def test_with_a_backplane_it_waits_for_the_place_of_its_topic() -> None:
    engine = Engine()
    async with Hub(backplane=MemoryBackplane(engine)) as one, Hub(backplane=MemoryBackplane(engine)) as other:
        result = await one.publish("t", "a")
        feed = other.listen("t", since=result.cursor.replace(":1", ":0"))
        assert await take(feed, 1) == ["a"]
        await one.publish("t", "b")
        assert await take(feed, 1) == ["b"]
        await feed.aclose()


async def test_what_a_backplane_lost_raises() -> None:
    hub = Hub()
    feed = hub.listen("t")
    first = asyncio.ensure_future(anext(feed))
    await eventually(lambda: hub.stats().subscribers == 1)
    receiver: Any = next(iter(hub._subscribers))
    hub.publish("t", "a")
    receiver.move("t", "x:1", True)
    receiver.move("t", "x:9", False)
    assert (await first).message == "a"
    with pytest.raises(TopicError, match="publications of 't' were lost on their way"):
        await take(feed, 1)
