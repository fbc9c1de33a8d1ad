"""Cuts: a coroutine is cancelled where it waits for the n-th time, so that a test can try all of its waits in turn."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from collections.abc import Coroutine, Generator, Iterator
from functools import partial
from typing import Any, final

import pytest

from rawws._twins import running
from tests.server.peers import eventually
from tests.torture.torture import sockets

__all__ = ["Cut", "Leftovers", "cutting", "in_its_turn"]

# One twin is cut as it waits, and the other in the turn in which it need not wait any more: it takes its time.
in_its_turn = pytest.mark.parametrize("late", [running() == "interpreted"])


@final
class Cut:
    """Cancels the task of a coroutine where that waits for the `at`-th time.

    It does so in the next turn of the loop, or, `late`, in the turn in which it is done what the coroutine waits for.
    """

    def __init__(self, at: int, *, late: bool) -> None:
        self.at = at
        self.late = late
        self.waits = 0
        self.task: asyncio.Task[Any] | None = None

    @property
    def is_made(self) -> bool:
        """Whether the coroutine waited so often."""
        return self.waits >= self.at

    @property
    def is_over(self) -> bool:
        """Whether the task is done."""
        return self.task is not None and self.task.done()

    async def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine."""
        return await _Steps(self, coroutine)

    def see(self, waited: Any) -> None:
        """Take that the coroutine waits."""
        self.waits += 1
        if self.waits != self.at:
            return
        task = asyncio.current_task()
        assert task is not None
        if self.late and waited is not None:
            waited.add_done_callback(lambda _: task.cancel())
        else:
            task.get_loop().call_soon(task.cancel)


@final
class _Steps:
    """Awaits a coroutine, and has each of its waits be seen."""

    def __init__(self, cut: Cut, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.cut = cut
        self.coroutine = coroutine

    def __await__(self) -> Generator[Any, None, Any]:
        step = partial(self.coroutine.send, None)
        while True:
            try:
                waited = step()
            except StopIteration as done:
                return done.value
            self.cut.see(waited)
            try:
                yield waited
            except BaseException as error:
                # Whatever it is, it is for the coroutine.
                step = partial(self.coroutine.throw, error)
            else:
                step = partial(self.coroutine.send, None)


@contextlib.contextmanager
def cutting(name: str, cut: Cut) -> Iterator[None]:
    """Have the first task be cut that is made of a coroutine whose name ends so."""
    loop = asyncio.get_running_loop()

    def make(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        if cut.task is None and getattr(coroutine, "__qualname__", "").endswith(name):
            cut.task = asyncio.Task(cut.run(coroutine), loop=loop, **options)
            return cut.task
        return asyncio.Task(coroutine, loop=loop, **options)

    loop.set_task_factory(make)
    try:
        yield
    finally:
        loop.set_task_factory(None)


@final
class Leftovers:
    """What is left behind since this was made: tasks, sockets, and what says at its end that it was not closed."""

    def __init__(self) -> None:
        self._tasks = asyncio.all_tasks()
        self._sockets = sockets()
        self._said: list[str] = []

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Hear what is said of objects that nobody closed."""
        before, sys.unraisablehook = sys.unraisablehook, lambda said: self._said.append(str(said.exc_value))
        try:
            yield
        finally:
            sys.unraisablehook = before

    async def check(self, *where: object) -> None:
        """Fail where something is left."""

        def left() -> tuple[set[asyncio.Task[Any]], set[str]]:
            return asyncio.all_tasks() - self._tasks, sockets() - self._sockets

        await eventually(lambda: not any(left()) or self._said)
        gc.collect()
        assert (where, *left(), self._said) == (where, set(), set(), [])
