"""Cancellation: whose it is. That of this task ends it; that of what it waits for is an error like others.

A CancelledError that an application lets out of a callback or a coroutine, such as that of a future which somebody else
cancelled, would end a task without a word, and what it was to answer with it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable

__all__ = ["cancel_all", "is_cancelled", "result_of"]

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


async def cancel_all(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks, and wait until they are over; what they raise is known already, or of no interest."""
    for task in tasks:
        task.cancel()
    if tasks:
        # Of none, it would ask for a loop, which may be closed.
        await asyncio.gather(*tasks, return_exceptions=True)
