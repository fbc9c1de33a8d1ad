"""A feed of numbers by sse-starlette on uvicorn: it goes on behind Last-Event-ID, and says 204 behind the last one."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import uvicorn
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

PORT, LAST = int(sys.argv[1]), int(sys.argv[2])


async def numbers(begin: int) -> AsyncIterator[ServerSentEvent]:
    """Count."""
    for number in range(begin + 1, LAST + 1):
        yield ServerSentEvent(f"{number}\nof {LAST}", event="number", id=str(number), retry=20)
        await asyncio.sleep(0.001)


async def feed(request: Request) -> Response:
    """Answer with the numbers that the client does not have."""
    begin = int(request.headers.get("Last-Event-ID", "0"))
    return Response(status_code=204) if begin == LAST else EventSourceResponse(numbers(begin))


if __name__ == "__main__":
    uvicorn.run(Starlette(routes=[Route("/feed", feed)]), port=PORT, log_level="warning")
