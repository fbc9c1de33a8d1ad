"""Loops: uvloop where it is installed, asyncio's own elsewhere; and what a task waits for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["loop_factory", "settled"]

Result = TypeVar("Result")


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes a uvloop loop where uvloop is installed, None (asyncio's own) elsewhere."""
    try:
        import uvloop  # noqa: PLC0415 - optional
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


async def settled(awaitable: Awaitable[Result]) -> Result:
    """Wait for what others may cancel: that raises RuntimeError, CancelledError only where this task is cancelled."""
    try:
        return await awaitable
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise RuntimeError("what was waited for is cancelled") from error
