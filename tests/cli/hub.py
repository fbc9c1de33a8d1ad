"""A hub with an API, for the command line: /api with a key, /topics without, /feed that /drop cuts.

It has TLS with the certificate in the file that is named.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable

import rawws
from rawws.topics import endpoints

KEY = "a-key-of-the-tests"
hub = rawws.Hub(authorize=lambda _client, action, topic: action == "subscribe" and topic != "secret")
routes = rawws.Routes([*endpoints.routes(hub, "/topics"), *endpoints.api_routes(hub, "/api", keys=[KEY])])
streams: list[rawws.EventStream] = []


@routes.get("/feed")
def feed(request: rawws.HttpRequest) -> rawws.EventStream | rawws.Response | Awaitable[object]:
    print("HTTP version", request.head.http_version, flush=True)
    stream = hub.stream(request, request.query.get_all("topic"))
    if isinstance(stream, rawws.EventStream):
        streams.append(stream)
    return stream


@routes.get("/drop")
def drop(_: rawws.HttpRequest) -> None:
    while streams:
        streams.pop().close()


@routes.get("/other")
def other(_: rawws.HttpRequest) -> rawws.EventStream:
    stream = rawws.EventStream()
    stream.send("no\x1b envelope")
    return stream


@routes.get("/envelope")
def envelope(request: rawws.HttpRequest) -> rawws.EventStream:
    """Send this text, so many times in one event."""

    async def events() -> AsyncIterator[str]:
        yield request.query["text"] * int(request.query.get("times", "1"))

    return rawws.EventStream(events())


@routes.post("/strange/publish")
def strange(_: rawws.HttpRequest) -> str:
    return "no hub"


async def main() -> None:
    """Serve."""
    context = None
    if sys.argv[1:]:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(sys.argv[1])
    async with rawws.serve(routes, "127.0.0.1", 0, ssl=context) as server:
        print(f"listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
