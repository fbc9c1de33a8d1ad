"""A feed of numbers by rawws: it goes on behind Last-Event-ID, and says 204 behind the last one."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import rawws

PORT, LAST = int(sys.argv[1]), int(sys.argv[2])

routes = rawws.Routes()


@routes.get("/feed")
async def feed(request: rawws.HttpRequest) -> rawws.Response | rawws.EventStream:
    """Answer with the numbers that the client does not have."""
    begin = int(request.headers.get("Last-Event-ID", "0"))
    return rawws.Response(204) if begin == LAST else rawws.EventStream(numbers(begin), retry=20)


async def numbers(begin: int) -> AsyncIterator[rawws.Event]:
    """Count."""
    for number in range(begin + 1, LAST + 1):
        yield rawws.Event(f"{number}\nof {LAST}", event="number", id=str(number))
        await asyncio.sleep(0.001)


if __name__ == "__main__":
    rawws.run(routes, "127.0.0.1", PORT)
