"""asgi: the ASGI application of the peer uvicorn, on our own server."""

from __future__ import annotations

from rawws.integrations import asgi

from . import HOST, Options, run
from .uvicorn import echo, stream


def serve(options: Options) -> None:
    async def main() -> None:
        async with asgi.serve(
            stream if options.streaming else echo,
            HOST,
            options.port,
            lifespan="off",
            ssl=options.tls(),
            compression="deflate" if options.scenario.deflate else None,
            ping_interval=None,
            backlog=1024,
        ) as server:
            await server.serve_forever()

    run(main(), options)
