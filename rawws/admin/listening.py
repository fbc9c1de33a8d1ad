"""Listening: an address to a server of those who look on, in this process or in one of its own beside workers."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rawws.server.options import ListenOptions
from rawws.server.server import start_serving

from .application import admin_routes, routes_of
from .guard import is_loopback_host
from .overview import Overview
from .sources import WorkerSource

if TYPE_CHECKING:
    from collections.abc import Callable

    from rawws.http.routes import Routes
    from rawws.server.server import Serve, Server
    from rawws.topics.core import HubCore

__all__ = ["DEFAULT_PORT", "check_reach", "serve", "serve_workers", "worker_path"]

DEFAULT_PORT: Final = 8766
# How often it is looked whether there are workers left, once they were told to end, in seconds.
LOOK: Final = 0.1


def serve(
    server: Server,
    *hubs: HubCore,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    key: str | None = None,
) -> Serve:
    """Listen for those who look into a server; `async with` what this returns, or await it.

    Without hubs, those of the process are looked at. Without a key, only this machine may look; with one of at least 16
    characters, whoever has it. Raises ValueError for such a key, and for a host that others can reach without one;
    OSError where it cannot listen.
    """
    check_reach(host, key)
    return listen(admin_routes(server, *hubs, key=key), host, port)


def listen(routes: Routes, host: str, port: int, *, reuse_port: bool = False) -> Serve:
    """Serve these routes; no WebSockets are, and no large bodies."""
    return start_serving(routes, ListenOptions(host=host, port=port, reuse_port=reuse_port, max_size=1 << 16))


def check_reach(host: str, key: str | None) -> None:
    """Raise ValueError for a host that others can reach, where there is no key."""
    if key is None and not is_loopback_host(host):
        raise ValueError(f"{host} can be reached from other machines, needed for that is a key")


def worker_path(folder: Path, number: int) -> str:
    """Return where a worker is asked."""
    return str(folder / f"worker-{number}")


async def serve_workers(
    folder: Path, count: int, host: str, port: int, key: str | None, on_ready: Callable[[Server], None]
) -> None:
    """Listen for those who look into the workers of a server, until SIGTERM, and then until the last worker is gone."""
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    task = asyncio.current_task()

    def end() -> None:
        if ended.is_set() and task is not None:
            # Nobody waits any longer.
            task.cancel()
        ended.set()

    loop.add_signal_handler(signal.SIGTERM, end)
    sources = [WorkerSource(worker_path(folder, number)) for number in range(count)]
    overview = Overview(sources, folder / "ended.json")
    try:
        async with listen(routes_of(overview, key), host, port, reuse_port=True) as server:
            on_ready(server)
            await ended.wait()
            while not await overview.are_gone():  # noqa: ASYNC110 - they have no event
                await asyncio.sleep(LOOK)
    finally:
        for source in sources:
            source.close()
