"""aiohttp: `web.WebSocketResponse`, without access log."""
# mypy: disable-error-code="import-not-found"

import asyncio

from aiohttp import WSMsgType, web

from . import HOST, STREAMED, TEXT, Options, run


def serve(options: Options) -> None:
    async def handler(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(compress=options.scenario.deflate, max_msg_size=2**24)
        await ws.prepare(request)
        await (stream if options.streaming else echo)(ws)
        return ws

    async def echo(ws: web.WebSocketResponse) -> None:
        async for message in ws:
            if message.type is WSMsgType.TEXT:
                await ws.send_str(message.data)
            else:
                await ws.send_bytes(message.data)

    async def stream(ws: web.WebSocketResponse) -> None:
        async for _ in ws:
            for _ in range(STREAMED):
                await ws.send_str(TEXT)

    async def main() -> None:
        app = web.Application()
        app.router.add_get("/bench", handler)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, HOST, options.port, ssl_context=options.tls(), backlog=1024).start()
        await asyncio.Event().wait()

    run(main(), options)
