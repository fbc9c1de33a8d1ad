"""Inquiries: the tasks that ask the engine behind a backplane where topics are.

Laws:
1. A topic is asked for by one task at most, and by at most MAX_ASKED all together; the others wait in their order.
2. A topic that the engine could not serve is asked for again by itself, as long as it is wanted, more and more seldom.
"""

from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from .table import Topic

__all__ = ["Inquiries"]

# Each is a handful of commands. A Redis on the same network answers 64 topics in a millisecond or two: with 30,000
# topics that a hub may have, all are asked for within a second or two of its return.
MAX_ASKED = 64
# From one inquiry of a topic that cannot be served to the next, in seconds, less up to a half by chance.
FIRST_WAIT = 0.5
LONGEST_WAIT = 30.0


@final
class Inquiries:
    """Runs `ask(topic)` for the topics that it is given."""

    __slots__ = ("_ask", "_failed", "_tasks", "_timers", "_waiting")

    def __init__(self, ask: Callable[[Topic], Coroutine[Any, Any, None]]) -> None:
        self._ask = ask
        self._waiting: dict[Topic, None] = {}
        self._tasks: dict[Topic, asyncio.Task[None]] = {}
        # Of those that could not be served: how often, and what asks again.
        self._failed: dict[Topic, int] = {}
        self._timers: dict[Topic, asyncio.TimerHandle] = {}

    def __contains__(self, topic: Topic) -> bool:
        """Tell whether a topic is asked for, or will be as soon as others are done."""
        return topic in self._tasks or topic in self._waiting

    def begin(self, topic: Topic) -> None:
        """Ask for a topic, from the beginning where it is asked for already."""
        failed = self._failed.get(topic)
        self.end(topic)
        if failed is not None:
            self._failed[topic] = failed
        self._waiting[topic] = None
        self._start()

    def end(self, topic: Topic) -> asyncio.Task[None] | None:
        """Ask for a topic no more; return the task that did, which is cancelled."""
        self._waiting.pop(topic, None)
        self._failed.pop(topic, None)
        timer = self._timers.pop(topic, None)
        if timer is not None:
            timer.cancel()
        task = self._tasks.pop(topic, None)
        if task is not None:
            task.cancel()
        return task

    def finish(self, topic: Topic) -> None:
        """Record, in its task, that a topic was asked for."""
        self._tasks.pop(topic, None)
        self._failed.pop(topic, None)
        self._start()

    def again(self, topic: Topic, retry: Callable[[], None]) -> None:
        """Record, in its task, that a topic could not be served; call `retry` later, which may begin again."""
        failed = self._failed.get(topic, 0)
        self.finish(topic)
        self._failed[topic] = failed + 1
        wait = min(FIRST_WAIT * 2.0 ** min(failed, 16), LONGEST_WAIT)
        wait *= random.uniform(0.5, 1.0)  # noqa: S311 - no secret

        def act() -> None:
            del self._timers[topic]
            retry()

        self._timers[topic] = asyncio.get_running_loop().call_later(wait, act)

    def _start(self) -> None:
        while self._waiting and len(self._tasks) < MAX_ASKED:
            topic = next(iter(self._waiting))
            del self._waiting[topic]
            task = self._tasks[topic] = asyncio.get_running_loop().create_task(self._ask(topic))
            task.add_done_callback(partial(self._done, topic))

    def _done(self, topic: Topic, task: asyncio.Task[None]) -> None:
        """Have the next one go on, whatever became of this one."""
        if self._tasks.get(topic) is task:
            self.finish(topic)
