"""Background: the one event loop, in a thread of its own, in which all is done that this process does without asyncio.

Laws:
1. It starts when it is first needed, and ends with the interpreter: what is open then is closed with 1001.
2. A child that is forked has none of it, and starts one of its own.
3. Who waits and is interrupted leaves nothing that still runs.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any, TypeVar, final

from rawws.errors import LocalProtocolError
from rawws.net.loops import loop_factory
from rawws.net.socket import shared
from rawws.net.websocket import WebSocket
from rawws.protocol.opcodes import CloseCode

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Coroutine

__all__ = ["BackgroundLoop", "background"]

Result = TypeVar("Result")

# How long the end of the interpreter waits for servers to answer a Close, in seconds.
GRACE = 1.0


@final
class BackgroundLoop:
    """An event loop in a thread of its own."""

    __slots__ = ("loop", "thread")

    def __init__(self) -> None:
        self.loop = (loop_factory() or asyncio.new_event_loop)()
        # A daemon: the interpreter waits for other threads before it says that it ends.
        self.thread = threading.Thread(target=self._work, name="rawws.sync", daemon=True)
        self.thread.start()

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Have the loop do something, and wait for it. Raises what that raises; RuntimeError where no loop is here."""
        try:
            self._check()
            future = asyncio.run_coroutine_threadsafe(work, self.loop)
        except RuntimeError:
            work.close()
            raise
        try:
            return future.result()
        except BaseException:
            # Ctrl-C: nobody waits for it any more.
            future.cancel()
            raise
        finally:
            if self is not _running:
                # The interpreter ends, so this is a daemon: as all that wait then, it is left waiting.
                threading.Event().wait()

    def begin(self, work: Callable[[], object]) -> None:
        """Have the loop do something, if it is that of this process, and wait for nothing."""
        if self is _running:
            self.loop.call_soon_threadsafe(work)

    def stop(self) -> None:
        """Close what is open, and end the thread."""
        asyncio.run_coroutine_threadsafe(self._close_all(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    def _check(self) -> None:
        if self is not _running:
            raise RuntimeError("the connection belongs to the process that forked this one, or the interpreter ends")
        if self.thread is threading.current_thread():
            raise RuntimeError("rawws.sync was called in its own thread, allowed are all others")

    def _work(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.close()

    async def _close_all(self) -> None:
        """Say the end to all servers, and leave nothing open."""
        clients = shared(self.loop).clients
        found = [] if clients is None else [ws for ws in tuple(clients.connections) if isinstance(ws, WebSocket)]
        for ws in found:
            # One whose handshake is not done ends with the task that waits for it.
            with contextlib.suppress(LocalProtocolError):
                ws.close(CloseCode.GOING_AWAY)
        await gone([self.loop.create_task(ws.wait_closed()) for ws in found], GRACE)
        for ws in found:
            ws.abort()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await gone(tasks, GRACE)
        # A transport closes in the turn behind that of its end.
        for _ in range(3):
            await asyncio.sleep(0)


async def gone(tasks: Collection[asyncio.Task[Any]], seconds: float) -> None:
    """Wait until tasks are done, at most so long."""
    if tasks:
        await asyncio.wait(tasks, timeout=seconds)


_running: BackgroundLoop | None = None
# Those of the parents: their threads are not here, and their sockets are not ours.
_left: list[BackgroundLoop] = []
_lock = threading.Lock()


def background() -> BackgroundLoop:
    """Return the loop of this process; the first call starts it."""
    global _running  # noqa: PLW0603 - it is a property of the process
    with _lock:
        if _running is None:
            _running = BackgroundLoop()
        return _running


def _stop() -> None:
    """End with the interpreter: all threads but daemons have ended."""
    global _running
    with _lock:
        found, _running = _running, None
    if found is not None:
        found.stop()


def _forget() -> None:
    """Begin anew in a child."""
    global _running, _lock
    if _running is not None:
        # Not collected: to close the parent's loop here would take its sockets out of the epoll that both have.
        _left.append(_running)
    _running, _lock = None, threading.Lock()


atexit.register(_stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
