"""Cursors of many players, thirty times a second: small binary messages, of which a slow page gets the latest only.

`python cursors.py [PORT]`, and open http://127.0.0.1:8765/ twice. A message is a player's number, x, y and the points
that the player has, 16 bits each; its key is the player.
"""

import sys
from pathlib import Path

import rawws
from rawws.topics import endpoints

HERE = Path(__file__).parent


def authorize(client: rawws.WebSocket | rawws.HttpRequest, action: str, topic: str) -> bool:  # noqa: ARG001
    """Let everybody play on the one field."""
    return topic == "field"


# Where a cursor was is of no use to anybody: what waits is conflated by key, and half a second of it is held.
hub = rawws.Hub(
    policy=rawws.Policy("conflate", limit=200),
    history=rawws.History(count=200, age=0.5),
    max_size=64,
    authorize=authorize,
)

routes = rawws.Routes(
    [
        rawws.Route("/", lambda _: rawws.Response.file(HERE / "cursors.html")),
        rawws.Route("/style.css", lambda _: rawws.Response.file(HERE / "style.css")),
        rawws.Route("/state.js", lambda _: rawws.Response.file(HERE / "state.js")),
        *endpoints.routes(hub, "/topics"),
    ]
)

if __name__ == "__main__":
    rawws.run(routes, "127.0.0.1", int(sys.argv[1]) if sys.argv[1:] else 8765, subprotocols=["rawws.v1"])
