"""The server of the soak: an echo, and a hub over WebSockets, event streams and polls, with and without TLS."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl
import sys
from pathlib import Path
from typing import Any

import rawws
from rawws.net.loops import loop_factory

TICK = 0.05
# 1.3 MB a second: who does not read is over the hard limit, behind what the kernel holds, in a few seconds.
FLOOD = os.urandom(65536)


async def echo(ws: rawws.WebSocket) -> None:
    """Send back what came."""
    async for message in ws:
        await ws.send(message)


async def main(certificate: str) -> None:
    """Serve until SIGTERM, then drain."""
    # 50 s of numbers: nobody is away for so long, and it is full before the picture begins to count.
    history = rawws.History(count=1000, size=8 << 20, age=600)
    hub = rawws.Hub(history=history, authorize=lambda client, action, topic: True)

    async def listen(ws: rawws.WebSocket) -> None:
        hub.subscribe(ws, "flood")
        await ws.wait_closed()

    def stats(request: rawws.HttpRequest) -> dict[str, Any]:
        return {
            "rss": int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE"),
            "descriptors": len(os.listdir("/proc/self/fd")),
            "tasks": len(asyncio.all_tasks()),
            "servers": [server.stats()._asdict() for server in servers],
            "hub": hub.stats()._asdict(),
        }

    def make_tls() -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
        return context

    routes = rawws.Routes(
        [
            rawws.Route("/echo", echo, websocket=True),
            rawws.Route("/hub", hub.serve, websocket=True),
            rawws.Route("/flood", listen, websocket=True),
            rawws.Route("/events", hub.stream),
            rawws.Route("/poll", hub.poll),
            rawws.Route("/stats", stats),
        ]
    )
    options: dict[str, Any] = {
        "select_subprotocol": lambda ws, offered: "rawws.v1" if offered else None,
        "max_lifetime": 120,
        "drain": rawws.Drain(timeout=5),
    }
    plain = await rawws.serve(routes, "127.0.0.1", 0, **options)
    secure = await rawws.serve(routes, "127.0.0.1", 0, ssl=make_tls, **options)
    servers = [plain, secure]
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, told.set)
    loop.add_signal_handler(signal.SIGHUP, secure.on_hangup)
    ticker = loop.create_task(publish(hub))
    print(f"tls on 127.0.0.1:{secure.sockets[0].getsockname()[1]}", flush=True)
    print(f"listening on 127.0.0.1:{plain.sockets[0].getsockname()[1]}", flush=True)
    await told.wait()
    await asyncio.gather(*(server.drain() for server in servers))
    ticker.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await ticker


async def publish(hub: rawws.Hub) -> None:
    """Publish numbers, and a flood for those who do not read."""
    number = 0
    while True:
        hub.publish("ticks", str(number))
        hub.publish("flood", FLOOD)
        number += 1
        await asyncio.sleep(TICK)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main(sys.argv[1]))
