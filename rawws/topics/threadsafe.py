"""Threads of others: what they publish, to the one thread in which a hub is used.

Laws:
1. What another thread published arrives once, behind all that this thread published before; or its Future says why not.
2. What waits for the loop is bounded: whoever is faster than the loop waits.
3. A turn of the loop takes a bounded number of it.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple, final

from rawws.net.threads import LoopThread, wrong_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from .subscribers import PublishResult

__all__ = ["HubThread"]

# What waits for the loop, in publications and in bytes, as what waits for the engine of a backplane.
MAX_POSTED = 10_000
MAX_POSTED_SIZE = 16 << 20
# So many are published before the rest of the program has a turn: about 1 ms, without subscribers.
TURN = 256
# After so many seconds, who waits for room looks whether there is a loop still.
PATIENCE = 1.0


class Posted(NamedTuple):
    """A publication that waits for the loop."""

    future: Future[PublishResult]
    topic: str
    message: str | bytes
    extra: str
    key: str | None
    exclude: Any


@final
class HubThread(LoopThread):
    """The thread in which a hub is used, from its first use in an event loop on; `publish` is what it calls there.

    A hub that is used in a second loop, after the first one, goes over to that.
    """

    __slots__ = ("_posted", "_publish", "_room", "_scheduled", "_size", "_tasks")

    def __init__(self, publish: Callable[..., PublishResult]) -> None:
        super().__init__(None)  # type: ignore[arg-type]  # there is none yet
        # No thread has this number.
        self.thread = 0
        self._publish = publish
        self._posted: deque[Posted] = deque()
        self._size = 0
        # Whether `take` is due in the loop.
        self._scheduled = False
        self._room = threading.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    def enter(self) -> None:
        """Use the loop that runs here from now on. Raises RuntimeError in another thread than the hub's.

        Before the hub is used in a loop, any thread may use it, one at a time.
        """
        running = asyncio._get_running_loop()  # noqa: SLF001 - asyncio's name, for speed
        known = self._known()
        if running is known:
            if running is not None:
                self.thread = threading.get_ident()
            return
        if not (known is None or self.is_here() or known.is_closed()):
            raise wrong_thread()
        if running is not None:
            with self._room:
                self.loop = running
                self.thread = threading.get_ident()
                self._scheduled = bool(self._posted)
                if self._posted:
                    running.call_soon(self.take)

    def post(
        self, topic: str, message: Any, extra: str, key: str | None, exclude: Any, *, needs_loop: bool
    ) -> Future[PublishResult]:
        """Have the loop publish, which is done already where this is its thread."""
        future: Future[PublishResult] = Future()
        owned = bytes(message) if isinstance(message, (bytearray, memoryview)) else message
        posted = Posted(future, topic, owned, extra, key, exclude)
        if self.is_here() or self.loop is asyncio._get_running_loop() is not None:  # noqa: SLF001 - asyncio's name
            self.enter()
            self._do(posted)
            return future
        with self._room:
            loop = self._known()
            while loop is not None and self._is_full():
                self._check_loop(loop)
                self._room.wait(PATIENCE)
                loop = self._known()
            if loop is None:
                if needs_loop:
                    raise RuntimeError(
                        "the hub has a backplane and was used in no event loop yet, needed is `async with hub` in one"
                    )
                self._do(posted)
                return future
            self._check_loop(loop)
            if not self._scheduled:
                loop.call_soon_threadsafe(self.take)
                self._scheduled = True
            self._posted.append(posted)
            self._size += len(posted.message)
        return future

    def take(self) -> None:
        """Publish some of what was posted, and the rest in the next turns."""
        with self._room:
            was_full = self._is_full()
            batch = [self._posted.popleft() for _ in range(min(TURN, len(self._posted)))]
            self._size -= sum([len(posted.message) for posted in batch])
            self._scheduled = bool(self._posted)
            if self._scheduled:
                self.loop.call_soon(self.take)
            if was_full:
                self._room.notify_all()
        for posted in batch:
            self._do(posted)

    def take_all(self) -> None:
        """Publish all that was posted up to now."""
        for _ in range(len(self._posted) // TURN + bool(self._posted)):
            self.take()

    def _known(self) -> asyncio.AbstractEventLoop | None:
        """Return the loop, None before there was one."""
        return self.loop

    def _is_full(self) -> bool:
        return len(self._posted) >= MAX_POSTED or self._size >= MAX_POSTED_SIZE

    def _check_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop.is_closed():
            raise RuntimeError("the event loop of the hub is closed: nothing is published any more")

    def _do(self, posted: Posted) -> None:
        """Publish, and tell the Future, now or when more is known."""
        future = posted.future
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = self._publish(posted.topic, posted.message, posted.extra, posted.key, posted.exclude)
        except Exception as error:  # noqa: BLE001 - it is told to who asked for it
            future.set_exception(error)
            return
        if (result.pending or result.queued) and not self.loop.is_closed():
            task = self.loop.create_task(self._settle(result, future))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            future.set_result(result)

    async def _settle(self, result: PublishResult, future: Future[PublishResult]) -> None:
        """Wait for what is known later: where it is, and that those have it whose policy is "block"."""
        try:
            future.set_result(await result)
        except asyncio.CancelledError:
            future.set_exception(RuntimeError("the event loop ended before it was known what became of it"))
            raise
