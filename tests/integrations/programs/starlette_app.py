"""Starlette: a WebSocket for each room, a denial, a stream, a body that is read as it comes, a lifespan with state."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

ended: list[str] = []


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, Any]]:
    yield {"greeting": "hello"}
    print("the lifespan ended", flush=True)


async def room(ws: WebSocket) -> None:
    await ws.accept(subprotocol="json", headers=[(b"x-room", ws.path_params["room"].encode())])
    async for message in ws.iter_json():
        await ws.send_json({ws.state.greeting: message["name"], "room": ws.path_params["room"]})


async def private(ws: WebSocket) -> None:
    await ws.send_denial_response(JSONResponse({"who": "are you?"}, 401, {"WWW-Authenticate": "Basic"}))


async def digest(request: Request) -> Response:
    found = hashlib.sha256()
    async for piece in request.stream():
        found.update(piece)
    return Response(found.hexdigest())


async def ticks(_request: Request) -> Response:
    async def count() -> AsyncIterator[str]:
        try:
            number = 0
            while True:
                yield f"data: {number}\n\n"
                number += 1
                await asyncio.sleep(0.01 if number < 3 else 60)
        finally:
            ended.append("ticks")

    return StreamingResponse(count(), media_type="text/event-stream")


async def what_ended(_request: Request) -> Response:
    return JSONResponse(ended)


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/digest", digest, methods=["POST"]),
        Route("/ticks", ticks),
        Route("/ended", what_ended),
        WebSocketRoute("/rooms/{room}", room),
        WebSocketRoute("/private", private),
    ],
)
