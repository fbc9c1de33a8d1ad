"""An instance of a gateway that can be killed: `python owner.py FILE REDIS LEASE`; its lease is short."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import rawws
from rawws.backplanes.redis import RedisBackplane
from rawws.gateway.loading import load_config
from rawws.gateway.main import face_routes, gateway_options, new_gateway
from rawws.topics.shared import SharedBackplane, share


async def main(file: str, url: str, lease: str) -> None:
    """Serve until it ends."""
    share(SharedBackplane(lambda number: RedisBackplane(url, prefix=f"killed.{number}", lease=float(lease))))
    gateway = new_gateway(load_config(Path(file)))
    async with gateway, rawws.serve(face_routes(gateway), "127.0.0.1", 0, **gateway_options(gateway)) as server:
        print(f"listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
