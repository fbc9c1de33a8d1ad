"""A live dashboard: figures of this machine, ten times a second, over Server-Sent Events.

`python dashboard.py [PORT]`, and open http://127.0.0.1:8765/. Whoever reads too slowly gets the latest of each figure.
"""

import asyncio
import contextlib
import json
import os
import sys
import time
from pathlib import Path

import rawws
from rawws.topics import endpoints

HERE = Path(__file__).parent
PAUSE = 0.1

# Nobody publishes but this program. Six figures, two minutes: a newcomer's charts are not empty.
hub = rawws.Hub(
    policy="conflate",
    history=rawws.History(count=600, age=120),
    authorize=lambda _client, action, topic: (action, topic) == ("subscribe", "figures"),
)


async def measure() -> None:
    """Publish each figure under its own key, so that of one that waits only the latest is kept."""
    due, cpu = time.monotonic(), time.process_time()
    while True:
        due += PAUSE
        await asyncio.sleep(due - time.monotonic())
        before, cpu = cpu, time.process_time()
        stats = hub.stats()
        figures = {
            "Load of the machine": os.getloadavg()[0],
            "CPU of this process, %": 100 * (cpu - before) / PAUSE,
            "Late by, ms": 1000 * (time.monotonic() - due),
            "Readers": stats.subscribers,
            "Publications held": stats.held,
            "Figures conflated": stats.conflated,
        }
        for name, value in figures.items():
            hub.publish("figures", json.dumps([name, round(value, 2)]), key=name)


routes = rawws.Routes(
    [
        rawws.Route("/", lambda _: rawws.Response.file(HERE / "dashboard.html")),
        rawws.Route("/style.css", lambda _: rawws.Response.file(HERE / "style.css")),
        rawws.Route("/state.js", lambda _: rawws.Response.file(HERE / "state.js")),
        *endpoints.routes(hub, "/topics"),
    ]
)


async def main(port: int) -> None:
    """Measure and serve until Ctrl-C."""
    async with rawws.serve(routes, "127.0.0.1", port, subprotocols=["rawws.v1"]) as server:
        measuring = asyncio.create_task(measure())
        await server.serve_forever()
        measuring.cancel()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(int(sys.argv[1]) if sys.argv[1:] else 8765))
