"""The server that browsers and proxies are tested against: streams of numbers, a poll, and who the client is.

The arguments are a port, or the path of a unix socket, and options of `rawws.serve` in JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import rawws

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PAGE: Final = "<!doctype html><html lang=en><title>Streams</title><link rel=icon href=data:,><h1>Streams</h1></html>"

routes = rawws.Routes([rawws.Route("/readyz", rawws.readyz)])


@routes.get("/")
def page(request: rawws.HttpRequest) -> rawws.Response:
    """Answer with a page that does nothing by itself."""
    return rawws.Response(200, PAGE, content_type="text/html; charset=utf-8")


@routes.get("/numbers")
def numbers(request: rawws.HttpRequest) -> rawws.EventStream | None:
    """Count from where the client is up to `to`, in about a second for 10,000; who has them all is sent away."""
    seen, to = int(request.last_event_id or 0), int(request.query["to"])
    print("numbers from", seen, flush=True)
    return rawws.EventStream(count(seen, to), retry=50) if seen < to else None


async def count(seen: int, to: int) -> AsyncIterator[rawws.Event]:
    """Give the numbers behind `seen`, with a pause now and then, in which the process can be killed."""
    for number in range(seen + 1, to + 1):
        yield rawws.Event(f"number {number}", id=str(number))
        if number % 20 == 0:
            await asyncio.sleep(0.002)


class Named:
    """A stream that ends, and tells how long the client waited before it came again."""

    ended = 0.0


@routes.get("/named")
async def named(request: rawws.HttpRequest) -> rawws.EventStream | None:
    """Send a named event and a plain one, and ask for 4 s; count them when the client is back."""
    if not request.last_event_id:
        stream = rawws.EventStream(retry=4000)
        stream.send(rawws.Event(comment="nobody sees this"))
        stream.send("in\ntwo lines", event="tick", id="first é")
        stream.send("plain")
        stream.close()
        Named.ended = monotonic()
        return stream
    print(json.dumps([request.last_event_id, monotonic() - Named.ended]), flush=True)
    return None


# Long polling: what was published, and who waits for more

log: list[str] = []
waiting: set[rawws.LongPoll] = set()


@routes.get("/poll")
def poll(request: rawws.HttpRequest) -> rawws.LongPoll | dict[str, Any]:
    """Answer with what was published behind a cursor, as soon as there is something."""
    since = int(request.query["since"])
    if since < len(log):
        return published(since)
    held = rawws.LongPoll(on_close=waiting.discard)
    waiting.add(held)
    return held


def published(since: int) -> dict[str, Any]:
    """Return what is behind a cursor, and the next one."""
    return {"messages": log[since:], "next": len(log)}


@routes.post("/publish")
def publish(request: rawws.HttpRequest) -> str:
    """Publish the body, to all who wait."""
    since = len(log)
    log.append(request.text())
    held = list(waiting)
    waiting.clear()
    for one in held:
        one.respond(published(since))
    return str(len(held))


@routes.get("/waiting")
def count_waiting(request: rawws.HttpRequest) -> str:
    """Tell how many polls are held."""
    return str(len(waiting))


# Who the client is


def client(request: rawws.HttpRequest) -> dict[str, Any]:
    """Return what is known of the client."""
    return {
        "address": request.remote_address,
        "scheme": request.scheme,
        "host": request.headers.get("Host"),
        "cookies": request.cookies,
    }


@routes.get("/who")
def who(request: rawws.HttpRequest) -> dict[str, Any]:
    """Tell a client who it is."""
    return client(request)


@routes.get("/who/stream")
def who_stream(request: rawws.HttpRequest) -> rawws.EventStream:
    """Tell a client who it is in a stream, which then stays open and silent."""
    stream = rawws.EventStream()
    stream.send(json.dumps(client(request)))
    return stream


@routes.websocket("/echo")
async def echo(ws: rawws.WebSocket) -> None:
    """Tell a client who it is, and send back what comes."""
    await ws.send(json.dumps({"address": ws.remote_address}))
    async for message in ws:
        await ws.send(message)


@routes.websocket("/closed")
async def closed(ws: rawws.WebSocket) -> None:
    """Close at once, with a code and a reason of its own."""
    await ws.close(4002, "geschlossen")


if __name__ == "__main__":
    where, options = sys.argv[1], json.loads(sys.argv[2])
    if where.isdecimal():
        rawws.run(routes, "127.0.0.1", int(where), **options)
    else:
        rawws.run(routes, path=where, **options)
