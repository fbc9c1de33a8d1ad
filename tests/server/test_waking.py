"""Handlers that messages resume: what their task, asyncio and others see of them is what they see of any task."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import pytest

import rawws
from tests.server.peers import Logged, connected, eventually, serve

Step = Callable[[rawws.WebSocket], Awaitable[Any]]


def task_of_handler() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def resumed(step: Step) -> list[str]:
    """Return what a handler says that takes this step once a message resumed it, and then receives another one."""
    said: list[str] = []

    async def handler(ws: rawws.WebSocket) -> None:
        await ws.recv()
        await ws.recv()
        try:
            said.append(str(await step(ws)))
            said.append(str(await ws.recv()))
        except asyncio.CancelledError:
            said.append("cancelled")
            said.append(f"cancelling {task_of_handler().cancelling()}")
            raise
        finally:
            said.append("end")

    async with serve(handler) as server, connected(server) as peer:
        await peer.send("one")
        await peer.send("two")
        await eventually(lambda: bool(said) or len(server.connections) == 0)
        with suppress(ConnectionError):
            await peer.send("three")
        await eventually(lambda: said[-1:] == ["end"])
    return said


async def nothing(_: rawws.WebSocket) -> str:
    return "nothing"


async def sleeps(_: rawws.WebSocket) -> str:
    await asyncio.sleep(0.01)
    return "slept"


async def yields(_: rawws.WebSocket) -> str:
    await asyncio.sleep(0)
    return "yielded"


async def times_out(ws: rawws.WebSocket) -> str:
    try:
        async with asyncio.timeout(0.01):
            await ws.recv()
    except TimeoutError:
        return "timed out"
    return "received"


async def gathers(_: rawws.WebSocket) -> list[str]:
    return await asyncio.gather(*(asyncio.sleep(0, name) for name in "abc"))


async def groups(_: rawws.WebSocket) -> str:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(asyncio.sleep(0, "of a group"))
    return task.result()


async def fails_in_a_group(_: rawws.WebSocket) -> str:
    async def fail() -> None:
        raise ValueError("of a group")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            await asyncio.sleep(60)
    except ExceptionGroup as errors:
        return str(errors.exceptions[0])
    return "nothing"


async def moves_on(ws: rawws.WebSocket) -> str:
    with anyio.move_on_after(0.01) as scope:
        await ws.recv()
    return f"moved on {scope.cancelled_caught}"


async def scopes(_: rawws.WebSocket) -> str:
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, 60)
        group.cancel_scope.cancel()
    return "scope is over"


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (nothing, "nothing"),
        (sleeps, "slept"),
        (yields, "yielded"),
        (times_out, "timed out"),
        (gathers, "['a', 'b', 'c']"),
        (groups, "of a group"),
        (fails_in_a_group, "of a group"),
        (moves_on, "moved on True"),
        (scopes, "scope is over"),
    ],
)
async def test_a_resumed_handler_may_wait_for_anything(step: Step, said: str) -> None:
    assert await resumed(step) == [said, "three", "end"]


# -- a handler that cancels its own task


async def receives(ws: rawws.WebSocket) -> str | bytes:
    return await ws.recv()


@pytest.mark.parametrize("then", [nothing, sleeps, yields, receives, gathers, groups])
async def test_a_resumed_handler_that_cancels_its_own_task_is_cancelled_where_it_waits_next(then: Step) -> None:
    async def step(ws: rawws.WebSocket) -> Any:
        task_of_handler().cancel()
        return await then(ws)

    said = await resumed(step)
    assert said == [*(["nothing"] if then is nothing else []), "cancelled", "cancelling 1", "end"]


async def cancels_itself(then: Callable[[], None]) -> tuple[asyncio.Task[Any], tuple[int, str] | None]:
    """Return the task of a handler that cancels it once a message resumed it, and does this; and how it closed."""
    tasks: list[asyncio.Task[Any]] = []

    async def handler(ws: rawws.WebSocket) -> None:
        await ws.recv()
        await ws.recv()
        tasks.append(task_of_handler())
        tasks[0].cancel()
        then()

    async with serve(handler) as server, connected(server) as peer:
        await peer.send("one")
        await peer.send("two")
        closed = await peer.closed()
        await eventually(tasks[0].done)
    return tasks[0], closed


async def test_a_resumed_handler_that_cancels_its_own_task_and_returns_is_cancelled() -> None:
    task, closed = await cancels_itself(lambda: None)
    assert task.cancelled()
    assert closed == (1000, "")


async def test_a_resumed_handler_that_cancels_its_own_task_and_raises_has_raised(logged: Logged) -> None:
    def fail() -> None:
        raise ValueError("on purpose")

    task, closed = await cancels_itself(fail)
    assert closed == (1011, "internal error")
    assert isinstance(task.exception(), ValueError)
    logged.take("connection handler failed", ValueError)


# -- what others see


async def test_a_resumed_handler_that_raises_closes_with_1011_and_its_traceback_names_it(
    caplog: pytest.LogCaptureFixture, logged: Logged
) -> None:
    async def handler(ws: rawws.WebSocket) -> None:
        async for message in ws:
            if message == "fail":
                raise ValueError("on purpose")

    async with serve(handler) as server, connected(server) as peer:
        await peer.send("one")
        await peer.send("fail")
        assert await peer.closed() == (1011, "internal error")
    [record] = [record for record in caplog.records if record.exc_info]
    assert "raise ValueError" in (record.exc_text or "")
    logged.take("connection handler failed", ValueError)


async def test_a_second_task_in_recv_is_refused_beside_a_handler_that_was_resumed() -> None:
    async def handler(ws: rawws.WebSocket) -> None:
        async for message in ws:
            if message == "receive":
                # While it runs, it does not wait itself.
                await ws.send(await ws.recv())

    async with serve(handler) as server, connected(server) as peer:
        await peer.send("one")
        await peer.send("receive")
        await peer.send("two")
        assert await peer.message() == "two"
        await peer.send("three")
        [ws] = server.connections
        with pytest.raises(rawws.LocalProtocolError, match="another task waits in recv"):
            await ws.recv()


async def test_the_coroutine_of_a_handler_is_seen_through_its_task() -> None:
    tasks: list[asyncio.Task[Any]] = []

    async def handler(ws: rawws.WebSocket) -> None:
        tasks.append(task_of_handler())
        async for _ in ws:
            pass

    async with serve(handler) as server, connected(server) as peer:
        await peer.send("one")
        await peer.heard_by(next(iter(server.connections)))
        [task] = tasks
        assert "handler" in repr(task)
        coroutine: Any = task.get_coro()
        assert coroutine.__qualname__ == handler.__qualname__
        assert asyncio.iscoroutine(coroutine)
        [frame] = task.get_stack()
        assert frame.f_code is handler.__code__
        assert not hasattr(coroutine, "cr_nothing")


async def test_a_handler_that_ended_leaves_nothing_to_the_garbage_collector() -> None:
    class Held:
        """What a handler holds."""

    held: list[weakref.ref[Held]] = []

    async def handler(ws: rawws.WebSocket) -> None:
        mine = Held()
        held.append(weakref.ref(mine))
        async for message in ws:
            if message == "return":
                return
            if message == "recv":
                # It raises ConnectionClosed, as the handler does then.
                await ws.recv()

    gc.collect()
    gc.disable()
    try:
        async with serve(handler) as server:
            for last in ("return", "recv", "close"):
                async with connected(server) as peer:
                    await peer.send("one")
                    await peer.send(last)
                    await peer.start_close()
                    await peer.finish()
                await eventually(lambda: held[-1]() is None)
    finally:
        gc.enable()
