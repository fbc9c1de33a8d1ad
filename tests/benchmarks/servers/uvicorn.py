"""uvicorn: a bare ASGI application on httptools, uvloop and `--ws websockets-sansio`, or on our class for `--ws`."""
# mypy: disable-error-code="import-not-found"

from typing import Any

import uvicorn

from . import HOST, STREAMED, TEXT, Options

WS = {"callback": "websockets-sansio", "rawws": "rawws.integrations.uvicorn:WebSocketProtocol"}


async def echo(_scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        if event.get("text") is not None:
            await send({"type": "websocket.send", "text": event["text"]})
        else:
            await send({"type": "websocket.send", "bytes": event["bytes"]})


async def stream(_scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] == "websocket.receive":
        for _ in range(STREAMED):
            await send({"type": "websocket.send", "text": TEXT})


def serve(options: Options) -> None:
    uvicorn.run(
        stream if options.streaming else echo,
        host=HOST,
        port=options.port,
        loop=options.loop,
        http="httptools",
        ws=WS[options.style],
        ws_per_message_deflate=options.scenario.deflate,
        ws_ping_interval=None,
        lifespan="off",
        access_log=False,
        log_level="warning",
        ssl_certfile=str(options.cert) if options.scenario.tls else None,
        backlog=1024,
    )
