"""Waking: a message to the task that waits for it, which runs on within the read that brings it.

Laws:
1. While a handler waits for messages alone, its task takes no step: to the task, it waits all the time.
2. Of all else that a handler does (it waits for something else, returns, raises) its task learns by a step.
3. Whoever resumes a handler, `asyncio.current_task()` is its task, and the context is the one of its task.
"""

from __future__ import annotations

# The first two are for who runs the coroutine of a task: "Extending" in the documentation of asyncio.
from asyncio import _enter_task, _leave_task, current_task
from typing import TYPE_CHECKING, Any

from .awaitables import raise_thrown

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine, Generator
    from contextvars import Context

__all__ = ["HandlerCoroutine", "Waiter"]

# What a coroutine yielded that yielded nothing yet: `asyncio.sleep(0)` yields None.
NOTHING: Any = object()


class Waiter:
    """What a task that waits for a message yields: a future to the task, but one that is used again and again.

    asyncio takes for a future what has `_asyncio_future_blocking`; then it calls `get_loop`, `add_done_callback`,
    `cancel` and `result`.
    """

    __slots__ = ("_asyncio_future_blocking", "callback", "cancelled", "context", "coroutine", "loop", "task")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._asyncio_future_blocking = False
        self.callback: Callable[[Any], object] | None = None
        self.context: Context | None = None
        # Where it is the task of a handler that waits: what it runs, and the task.
        self.coroutine: HandlerCoroutine | None = None
        self.task: asyncio.Task[Any] | None = None
        # The coroutine cancelled its own task when it was resumed.
        self.cancelled = False

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop of the task that may wait."""
        return self.loop

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Context | None = None) -> None:
        """Remember how to wake the task."""
        self.callback = callback
        self.context = context

    def cancel(self, msg: Any = None) -> bool:  # noqa: ARG002 - the task keeps it
        """Wake the task, which raises its CancelledError itself: "False" means that it was not done here."""
        self.cancelled = True
        self.wake_soon()
        return False

    def result(self) -> None:
        """Return nothing: the task then looks for its message."""

    def wake(self) -> None:
        """Run what waits now. No other task may be running."""
        callback, context = self.callback, self.context
        coroutine, task = self.coroutine, self.task
        self.forget()
        if callback is None or context is None:
            return
        if coroutine is not None and task is not None and context.run(coroutine.resume, self, task):
            # It waits for the next message.
            self.callback, self.context = callback, context
            self.coroutine, self.task = coroutine, task
        else:
            context.run(callback, self)
        # The task keeps its error, which has the frames that it was raised through, and they have those below, such as
        # this one: with these names, that would be a cycle.
        del callback, context, coroutine, task

    def resume_by(self, coroutine: HandlerCoroutine, task: asyncio.Task[Any] | None) -> None:
        """Have the next message resume what a task runs, which waits for it."""
        self.coroutine = coroutine
        self.task = task

    def wake_soon(self) -> None:
        """Run the task's next step in the loop's next turn."""
        callback, context = self.callback, self.context
        self.forget()
        if callback is not None:
            self.loop.call_soon(callback, self, context=context)

    def forget(self) -> None:
        """Know of nobody who waits."""
        self.callback = self.context = self.coroutine = self.task = None


class HandlerCoroutine:
    """The coroutine of a handler, as its task runs it."""

    __slots__ = ("_coroutine", "_error", "_yielded")

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine
        # What the coroutine yielded or raised when it was resumed, for the step of the task that follows.
        self._yielded = NOTHING
        self._error: BaseException | None = None

    def __getattr__(self, name: str) -> Any:
        # `cr_frame`, `cr_running`, `__qualname__`, ...: what debuggers ask of the coroutine of a task, and anyio.
        return getattr(self._coroutine, name)

    def __await__(self) -> Generator[Any, None, Any]:
        return self

    def __iter__(self) -> HandlerCoroutine:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def resume(self, waiter: Waiter, task: asyncio.Task[Any]) -> bool:
        """Run the coroutine until it waits again; tell whether that is for the next message, so its task waits on."""
        waiter.cancelled = False
        _enter_task(waiter.loop, task)
        try:
            self._yielded = self._coroutine.send(None)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the task raises it
            self._error = error
        finally:
            _leave_task(waiter.loop, task)
            # As in `Waiter.wake`.
            del task
        if self._yielded is waiter and not waiter.cancelled:
            self._yielded = NOTHING
            return True
        return False

    def send(self, value: None) -> Any:
        """Take a step of the task."""
        if self._error is not None:
            self._end()
        yielded = self._yielded
        if yielded is NOTHING:
            yielded = self._coroutine.send(value)
        self._yielded = NOTHING
        if isinstance(yielded, Waiter):
            yielded.resume_by(self, current_task())
        return yielded

    def throw(self, *error: Any) -> Any:
        """Raise the error where the coroutine waits: its task is cancelled."""
        # It may have cancelled its own task when it was resumed. What it raised then counts, what it returned does not;
        # what it waits for since is cancelled, and that cancels the task.
        if self._error is not None and not isinstance(self._error, StopIteration):
            self._end()
        yielded, self._yielded = self._yielded, NOTHING
        if yielded is not NOTHING and yielded is not None and yielded.cancel():
            return yielded
        try:
            if self._error is not None:
                self._error = None
                raise_thrown(*error)
            return self._coroutine.throw(*error)
        finally:
            # As in `raise_thrown`.
            del error

    def _end(self) -> None:
        """Raise what the coroutine raised when it was resumed."""
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                # As in `raise_thrown`.
                del error

    def close(self) -> None:
        """End the coroutine."""
        self._coroutine.close()
