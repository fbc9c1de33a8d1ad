"""websockets: the asyncio server, with its C extension."""
# mypy: disable-error-code="import-not-found"

from websockets.asyncio.server import serve as listen
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

from . import HOST, Options, coroutine_handler, run

# The same work for zlib as rawws asks of it: level 1, memory level 8, 15 bits, neither side keeps its context.
DEFLATE = ServerPerMessageDeflateFactory(True, True, compress_settings={"level": 1, "memLevel": 8})


def serve(options: Options) -> None:
    async def main() -> None:
        async with listen(
            coroutine_handler(options),
            HOST,
            options.port,
            ssl=options.tls(),
            compression=None,
            extensions=[DEFLATE] if options.scenario.deflate else None,
            ping_interval=None,
            max_size=2**24,
            backlog=1024,
        ) as server:
            await server.serve_forever()

    run(main(), options)
