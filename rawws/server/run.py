"""Run: a server in a loop of its own, from its start to the end that a signal asks for."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from typing import TYPE_CHECKING

from rawws.net.allocator import keep_freed_memory
from rawws.net.loops import loop_factory

from .options import ListenOptions, ServerHandler, takes_options
from .server import Server, start_serving

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["run", "until_signal"]


@takes_options(ListenOptions)
def run(handler: ServerHandler, options: ListenOptions) -> None:
    """Serve until SIGINT or SIGTERM, then drain and return; a second signal ends at once.

    SIGHUP loads the certificate again, where `ssl` is a function. Takes what `serve` takes. Runs on uvloop where it is
    installed. Outside of the main thread, where Python takes no signals, it serves until the process ends. In the main
    thread the process is its own: it has glibc keep up to 16 MiB of freed memory for large messages, unless the
    environment says something of that (`MALLOC_TRIM_THRESHOLD_`).
    """
    if threading.current_thread() is threading.main_thread():
        keep_freed_memory()

    async def main() -> None:
        async with start_serving(handler, options) as server:
            await until_signal(server)

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())


async def until_signal(server: Server, on_ready: Callable[[], None] = lambda: None) -> None:
    """Wait for the server's end, which the first SIGINT or SIGTERM begins and the second does not wait for.

    `on_ready()` is called when signals do so: who is told that it serves may send one at once.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()

    def stop() -> None:
        if server.draining or server.closing:
            server.abort()
            if task is not None:
                task.cancel()
        else:
            draining.append(server.start_draining())

    draining: list[asyncio.Task[None]] = []
    signals: dict[int, Callable[[], None]] = {signal.SIGINT: stop, signal.SIGTERM: stop}
    if server.reloads:
        signals[signal.SIGHUP] = server.on_hangup
    if threading.current_thread() is not threading.main_thread():
        # Loops have no signal handlers there: asyncio raises RuntimeError, uvloop ValueError.
        signals.clear()
    for number, react in signals.items():
        # Windows has no signal handlers on its loops: Ctrl-C raises KeyboardInterrupt there.
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, react)
    try:
        on_ready()
        await server.serve_forever()
        # What ended it may have something left to say.
        await asyncio.gather(*draining)
    finally:
        for number in signals:
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(number)
