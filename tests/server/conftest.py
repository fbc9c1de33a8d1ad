"""Fixtures of the server's tests: `async def` tests run once on each loop, and what they leave behind fails them."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop

from tests.server.peers import DEADLINE, Logged, waits_of

MADE: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}
# Those that tests run on: TEST_LOOPS=asyncio leaves out the other one.
LOOPS = {name: MADE[name] for name in os.environ.get("TEST_LOOPS", "uvloop asyncio").split()}


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[Logged]:
    """Hand out what is logged, and fail the test where an error or a warning is left that it did not take."""
    # Each phase of a test has a list of its own.
    errors = Logged(lambda: caplog.get_records("call"))
    yield errors
    assert errors.left() == []


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no more than 20 ms pass between two looks at the clock of the library, however long this process waits.

    Both ends of a connection are in it. What a test leaves a peer in the way of time, it has on a machine that is busy
    too: no silence is noticed that was the machine's, and each end has several turns of the loop to do its part.
    """
    looked = now = time.monotonic()

    def look() -> float:
        nonlocal looked, now
        before, looked = looked, time.monotonic()
        now += min(looked - before, 0.02)
        return now

    monkeypatch.setattr("rawws.clock.monotonic", look)


@pytest.fixture(scope="session", autouse=True)
def quick_collections() -> None:
    """Have the garbage collector leave out what was imported: each test collects."""
    gc.collect()
    gc.freeze()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each `async def` test the two loops."""
    if inspect.iscoroutinefunction(metafunc.function):
        if "loop_name" not in metafunc.fixturenames:
            metafunc.fixturenames.append("loop_name")
        metafunc.parametrize("loop_name", LOOPS)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an `async def` test on its loop."""
    function = pyfuncitem.obj
    if not inspect.iscoroutinefunction(function):
        return None
    names = inspect.signature(function).parameters
    arguments = {name: value for name, value in pyfuncitem.funcargs.items() if name in names}
    failures: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=LOOPS[str(pyfuncitem.callspec.params["loop_name"])]) as runner:
        runner.get_loop().set_exception_handler(lambda _loop, context: failures.append(context))
        runner.run(_guard(function(**arguments)))
        # A task that ended with an exception that nobody looked at says so when it is collected.
        gc.collect()
        runner.run(asyncio.sleep(0))
    assert failures == []
    return True


async def _guard(test: Any) -> None:
    """Run a test to its end, or as long as five waits may take, and see that no task is left."""
    task = asyncio.ensure_future(test)
    done, _ = await asyncio.wait([task], timeout=5 * DEADLINE)
    waits = "" if done else "\n".join(map(waits_of, asyncio.all_tasks()))
    for _ in range(10):
        if task.done():
            break
        # The first cancellation may end in what waits for a handler that hangs as well.
        task.cancel()
        await asyncio.wait([task], timeout=1)
    assert done, f"the test was not over after {5 * DEADLINE} s, when these were left:\n{waits}"
    task.result()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        # What was cancelled just now needs a turn of the loop.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        left = {task for task in left if not task.done()}
    assert not left, f"the test left the tasks {left}"
