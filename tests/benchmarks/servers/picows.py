"""picows: its listener callbacks, or its copy of the interface of websockets, on the same core."""
# mypy: disable-error-code="import-not-found, misc"

from typing import final

import picows
from picows.websockets.asyncio.server import serve as listen

from . import HOST, STREAMED, TEXT, Options, coroutine_handler, run

PAYLOAD = TEXT.encode()


@final
class Echo(picows.WSListener):
    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        transport.send(frame.msg_type, frame.get_payload_as_memoryview())


@final
class Stream(picows.WSListener):
    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        for _ in range(STREAMED):
            transport.send(frame.msg_type, PAYLOAD)


def serve(options: Options) -> None:
    listener = Stream if options.streaming else Echo
    tls, port = options.tls(), options.port

    async def callback() -> None:
        server = await picows.ws_create_server(lambda _request: listener(), HOST, port, ssl=tls, backlog=1024)
        await server.serve_forever()

    async def coroutine() -> None:
        listening = listen(
            coroutine_handler(options), HOST, port, ssl=tls, compression=None, ping_interval=None, max_size=2**24
        )
        async with listening as server:
            await server.serve_forever()

    run(coroutine() if options.style == "coroutine" else callback(), options)
