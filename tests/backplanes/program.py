"""`python -m tests.backplanes.program URL LEASE [PORT]`: a server of topics that an engine joins with others."""

from __future__ import annotations

import asyncio
import sys

import rawws
from rawws.topics.backplane_urls import backplane_class


async def main(url: str, lease: float, port: int) -> None:
    hub = rawws.Hub(
        backplane=backplane_class(url)(url, lease=lease),
        authorize=lambda _client, _action, _topic: True,
        history=rawws.History(count=10_000, size=64 << 20),
    )
    routes = rawws.Routes()
    routes.websocket("/ws")(hub.serve)
    routes.get("/stream")(hub.stream)
    routes.get("/poll")(hub.poll)
    routes.post("/")(hub.post)
    async with hub, rawws.serve(routes, "127.0.0.1", port, subprotocols=["rawws.v1"]) as server:
        print(f"listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0))
