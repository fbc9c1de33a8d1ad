"""A closing goes on to its end where the task that waits for it is cancelled."""

from __future__ import annotations

import asyncio

import pytest

from rawws.net.cancellation import finish
from tests.server.peers import set_at_end


class Closing:
    """A closing that is over when the test says so, and counts the cancellations that it is told of."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.is_done = False
        self.cancelled = 0

    async def run(self) -> str:
        while not self.over.is_set():
            try:
                await self.over.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
        self.is_done = True
        return "closed"


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_is_finished_returns_what_it_does_or_raises_what_it_raises() -> None:
    closing = Closing()
    closing.over.set()
    assert await finish(closing.run()) == "closed"

    async def fail() -> None:
        raise OSError("of the closing")

    with pytest.raises(OSError, match=r"^of the closing$"):
        await finish(fail())


async def test_a_cancellation_is_raised_behind_the_end_and_a_second_one_is_passed_on() -> None:
    closing = Closing()
    async with set_at_end(closing.over):
        task = asyncio.create_task(finish(closing.run()))
        await turns()
        task.cancel()
        await turns()
        assert (task.done(), closing.cancelled) == (False, 0)
        for count in (1, 2):
            task.cancel()
            await turns()
            assert (task.done(), closing.cancelled) == (False, count)
        closing.over.set()
        await asyncio.wait([task])
        assert (task.cancelled(), closing.is_done) == (True, True)


async def test_a_closing_that_lets_the_second_cancellation_end_it_is_over() -> None:
    task = asyncio.create_task(finish(asyncio.sleep(3600)))
    await turns()
    task.cancel()
    await turns()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_a_cancellation_in_the_turn_of_the_end_is_raised() -> None:
    closing = Closing()
    async with set_at_end(closing.over):
        task = asyncio.create_task(finish(closing.run()))
        await turns()
        closing.over.set()
        # One turn for the closing, one for what waits for its end.
        for count in range(3):
            await turns(count)
            if closing.is_done:
                break
        task.cancel()
        await asyncio.wait([task])
        assert (task.cancelled(), closing.is_done) == (True, True)


async def test_a_time_limit_ends_behind_a_closing() -> None:
    closing = Closing()
    loop = asyncio.get_running_loop()

    async def close() -> None:
        async with asyncio.timeout(0):
            await finish(closing.run())

    task = asyncio.create_task(close())
    loop.call_later(0.05, closing.over.set)
    with pytest.raises(TimeoutError):
        await task
    assert (closing.is_done, closing.cancelled) == (True, 0)
