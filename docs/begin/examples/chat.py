"""Chat rooms: who is there, what was said before, and the same again after a break.

`python chat.py [PORT]`, and open http://127.0.0.1:8765/. A room is what stands behind the # of the address.
"""

import sys
from pathlib import Path

import rawws
from rawws.topics import endpoints

HERE = Path(__file__).parent


def authorize(client: rawws.WebSocket | rawws.HttpRequest, action: str, topic: str) -> bool:  # noqa: ARG001
    """Let everybody into every room, and nobody anywhere else."""
    return topic.startswith("room/")


# A newcomer gets the last fifty messages of a day; a message is a name and some lines.
hub = rawws.Hub(history=rawws.History(count=50, age=86_400), max_size=4096, max_topics=5, authorize=authorize)

routes = rawws.Routes(
    [
        rawws.Route("/", lambda _: rawws.Response.file(HERE / "chat.html")),
        rawws.Route("/style.css", lambda _: rawws.Response.file(HERE / "style.css")),
        rawws.Route("/state.js", lambda _: rawws.Response.file(HERE / "state.js")),
        *endpoints.routes(hub, "/topics"),
    ]
)

if __name__ == "__main__":
    rawws.run(routes, "127.0.0.1", int(sys.argv[1]) if sys.argv[1:] else 8765, subprotocols=["rawws.v1"])
