"""A feed of numbers by aiohttp-sse: it goes on behind Last-Event-ID, and says 204 behind the last one."""

from __future__ import annotations

import asyncio
import sys

from aiohttp import web
from aiohttp_sse import sse_response

PORT, LAST = int(sys.argv[1]), int(sys.argv[2])


async def feed(request: web.Request) -> web.StreamResponse:
    """Answer with the numbers that the client does not have."""
    begin = int(request.headers.get("Last-Event-ID", "0"))
    if begin == LAST:
        return web.Response(status=204)
    async with sse_response(request) as response:
        for number in range(begin + 1, LAST + 1):
            await response.send(f"{number}\nof {LAST}", event="number", id=str(number), retry=20)
            await asyncio.sleep(0.001)
    return response


if __name__ == "__main__":
    app = web.Application()
    app.router.add_get("/feed", feed)
    web.run_app(app, host="127.0.0.1", port=PORT, print=None)
