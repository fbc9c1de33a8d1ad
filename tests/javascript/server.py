"""The server that rawws.js is tested against: numbers in a topic, what clients may ask, and a page that does nothing.

The argument is a port.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Awaitable
from typing import Any, Final

import rawws
from rawws.protocol.http11 import HttpResponse
from rawws.topics import History, Hub, endpoints

PAGE: Final = "<!doctype html><html lang=en><title>Topics</title><link rel=icon href=data:,><h1>Topics</h1></html>"
# Between two numbers, in seconds.
PAUSE: Final = 0.004


def authorize(client: Any, _action: str, topic: str) -> bool | Awaitable[bool]:
    """Allow all, but what is secret, and what needs another token; "slower" less and less slowly."""
    if topic == "slower":
        return asyncio.sleep(next(delays), True)
    if topic.startswith("token/"):
        return endpoints.token_of(client) == topic.removeprefix("token/")
    return not topic.startswith("secret")


delays = itertools.cycle([0.3, 0.2, 0.1, 0.0])


def authorize_pattern(_client: Any, pattern: str) -> bool:
    """Allow those in which nothing is secret."""
    return not pattern.startswith(("secret", "*"))


hub = Hub(history=History(count=20_000, size=1 << 25), authorize=authorize, authorize_pattern=authorize_pattern)


@hub.on_call("add")
def add(_: Any, data: Any) -> int:
    """Add numbers up."""
    return sum(data)


@hub.on_call("ask me")
async def ask(client: Any, name: Any) -> Any:
    """Call the client that calls, and return its answer, or what went wrong."""
    try:
        return {"answer": await hub.call(client, name, ["from", "here"])}
    except rawws.CallError as error:
        return {"code": error.code, "reason": error.reason}
    except TypeError as error:
        raise rawws.CallError("no socket", str(error)) from None


async def close(ws: rawws.WebSocket) -> None:
    """Let a client in, and tell it by a code of its own that it may not be."""
    ws.close(4401, "please log in")


asked: list[str] = []


def gate(ws: rawws.WebSocket, request: Any) -> HttpResponse | None:
    """Let clients in at /guarded with the right token only, at /forbidden never; take note of them."""
    path, _, query = request.path.partition("?")
    asked.append(path)
    if path == "/guarded" and "token=good" not in query:
        return ws.respond(401, "who are you?")
    return ws.respond(403, "not you") if path == "/forbidden" else None


async def count() -> None:
    """Publish numbers for ever."""
    for number in itertools.count(1):
        hub.publish("numbers", str(number))
        await asyncio.sleep(PAUSE)


async def main(port: int) -> None:
    """Serve until the process is ended."""
    page = rawws.Route("/", lambda _: rawws.Response(200, PAGE, content_type="text/html; charset=utf-8"))
    rest = [
        rawws.Route("/closing", close, websocket=True),
        rawws.Route("/asked/{path}", lambda request: {"count": asked.count(f"/{request.path_params['path']}")}),
        *endpoints.routes(hub, "/guarded"),
    ]
    routes = rawws.Routes([page, *endpoints.routes(hub, "/topics"), *rest])
    options: Any = {"subprotocols": ["rawws.v1"], "origins": ["*", None], "process_request": gate}
    async with rawws.serve(routes, "127.0.0.1", port, **options) as server:
        counting = asyncio.create_task(count())
        await server.serve_forever()
        counting.cancel()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
