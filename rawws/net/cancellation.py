"""Cancellation: whose it is. That of this task ends it; that of what it waits for is an error like others.

A CancelledError that an application lets out of a callback or a coroutine, such as that of a future which somebody else
cancelled, would end a task without a word, and what it was to answer with it.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

__all__ = ["CANCEL_INTERVAL", "called", "cancel_all", "end_all", "finish", "is_cancelled", "result_of"]

# A task that swallowed its cancellation is cancelled again after so many seconds; what it does at its end may take as
# long. `asyncio.wait_for` of Python 3.11 swallows it where what it waits for is done in the same turn of the loop.
CANCEL_INTERVAL: Final = 10.0

Result = TypeVar("Result")


def is_cancelled() -> bool:
    """Tell whether the task that runs now is cancelled itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def result_of(awaitable: Awaitable[Result]) -> Result:
    """Return what others may cancel: that raises RuntimeError, CancelledError only where this task is cancelled."""
    try:
        return await awaitable
    except asyncio.CancelledError as error:
        if is_cancelled():
            raise
        raise RuntimeError("what was waited for is cancelled") from error


def called(name: str, function: Callable[..., Any], *given: Any) -> Any:
    """Call a function of the application, and return what it returns, to be awaited safely where it is awaitable."""
    try:
        answer = function(*given)
    except asyncio.CancelledError as error:
        # Of a future of somebody else, which it asked for its result.
        raise RuntimeError(f"{name} raised CancelledError") from error
    return result_of(answer) if inspect.isawaitable(answer) else answer


async def finish(closing: Coroutine[Any, Any, Result]) -> Result:
    """Return what a coroutine returns, which goes on to its end where this task is cancelled meanwhile.

    It runs in a task of its own, for a closing that is cut off leaves open what it has not come to. That this task is
    cancelled is raised behind that end; a second cancellation is passed on to the coroutine. What it raises then goes
    to the exception handler of the loop.
    """
    task = asyncio.get_running_loop().create_task(closing)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:
                task.cancel()
        raise
    return task.result()


async def end_all(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks until they are over; what they raise is still theirs, to be logged where nobody asks for it."""
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=CANCEL_INTERVAL)


async def cancel_all(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks, and wait until they are over; what they raise is known already, or of no interest."""
    await end_all(*tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()
