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
            **options.rawws(),
        ) as server:
            await server.serve_forever()

    run(main(), options)
