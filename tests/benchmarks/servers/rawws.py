"""rawws: callback and coroutine handlers; `RAWWS_PURE=1` in the environment makes it the interpreted twin."""

from typing import Any, final

import rawws

from . import HOST, STREAMED, TEXT, Options, coroutine_handler, run


@final
class Echo(rawws.Handler):
    def on_message(self, ws: Any, message: str | bytes) -> None:
        ws.send(message)


@final
class Stream(rawws.Handler):
    def on_message(self, ws: Any, message: str | bytes) -> None:
        for _ in range(STREAMED):
            ws.send(TEXT)


def serve(options: Options) -> None:
    async def main() -> None:
        handler = Stream() if options.streaming else Echo()
        async with rawws.serve(
            coroutine_handler(options) if options.style == "coroutine" else handler,
            HOST,
            options.port,
            **options.rawws(),
        ) as server:
            await server.serve_forever()

    run(main(), options)
