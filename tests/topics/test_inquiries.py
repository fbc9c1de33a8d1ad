"""Inquiries: how many topics are asked for at a time, and when those are again that could not be served."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rawws.topics.inquiries import FIRST_WAIT, LONGEST_WAIT, MAX_ASKED, Inquiries


async def test_so_many_are_asked_for_at_a_time_and_the_next_when_one_is_done() -> None:
    asked: list[Any] = []
    done = asyncio.Event()

    async def ask(topic: Any) -> None:
        asked.append(topic)
        if topic:
            await done.wait()

    inquiries: Any = Inquiries(ask)
    for number in range(MAX_ASKED + 2):
        inquiries.begin(number)
    await asyncio.sleep(0)
    assert asked == [*range(MAX_ASKED)]
    await asyncio.sleep(0.01)
    # One was done at once, and one more began in its place.
    assert asked == [*range(MAX_ASKED + 1)]
    assert MAX_ASKED + 1 in inquiries
    done.set()
    await asyncio.sleep(0.01)
    assert asked == [*range(MAX_ASKED + 2)]
    assert not any(number in inquiries for number in asked)


async def test_a_topic_that_cannot_be_served_is_asked_for_more_and_more_seldom_up_to_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("random.uniform", lambda _, most: most)
    loop = asyncio.get_running_loop()
    waits: list[float] = []
    retried: list[bool] = []

    async def ask(topic: Any) -> None:
        inquiries.again(topic, lambda: retried.append(True))
        waits.append(round(inquiries._timers[topic].when() - loop.time(), 1))

    inquiries: Any = Inquiries(ask)
    for number in range(9):
        # As who subscribes meanwhile: it does not begin anew with that.
        inquiries.begin("a")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(waits) == number + 1
    assert waits == [min(FIRST_WAIT * 2**number, LONGEST_WAIT) for number in range(9)]
    timer = inquiries._timers["a"]
    assert inquiries.end("a") is None
    assert (timer.cancelled(), inquiries._timers, retried) == (True, {}, [])
    inquiries.begin("a")
    await asyncio.sleep(0.01)
    assert waits[-1] == FIRST_WAIT
    inquiries.end("a")
