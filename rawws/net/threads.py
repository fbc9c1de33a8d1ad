"""Threads: an event loop to the one thread in which what belongs to it may be used.

Laws:
1. What is called in another thread raises before it did anything: so nothing arrives late, or half.
2. In the right thread, that costs one comparison.
"""

from __future__ import annotations

import asyncio
import threading

__all__ = ["LoopThread", "wrong_thread"]


class LoopThread:
    """The thread in which an event loop runs."""

    __slots__ = ("loop", "thread")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.thread = threading.get_ident()

    def is_here(self) -> bool:
        """Tell whether this is the thread, as far as is known."""
        return self.thread == threading.get_ident()

    def check(self) -> None:
        """Raise RuntimeError in another thread than the loop's."""
        if self.thread != threading.get_ident():
            # A loop may be made in one thread and run in another.
            if asyncio._get_running_loop() is not self.loop:  # noqa: SLF001 - asyncio's name, for speed
                raise wrong_thread()
            self.thread = threading.get_ident()


def wrong_thread() -> RuntimeError:
    """Return the error of a call in another thread than the event loop's."""
    return RuntimeError(
        f"this was called in the thread {threading.current_thread().name!r}, allowed is the one of its event loop;"
        " what another may call is hub.publish_threadsafe(topic, message), or loop.call_soon_threadsafe(function)"
    )
