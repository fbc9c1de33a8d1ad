"""The server whose clients are users: a token is a name, and for how many seconds it is good, as in "ann 2".

The argument is a port.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import rawws
from rawws.topics import endpoints


def identify(client: Any) -> rawws.Identity:
    """Believe everybody, for as long as the token says."""
    user, _, seconds = client.token.partition(" ")
    return rawws.Identity(user, {"name": user.title()}, time.time() + float(seconds))


async def main(port: int) -> None:
    """Serve until the process is ended."""
    hub = rawws.Hub(identify=identify, authorize=lambda client, action, topic: True, presence_grace=30)

    def unsubscribe(request: rawws.HttpRequest) -> str:
        hub.unsubscribe(request.path_params["user"], reason="enough")
        return "done"

    routes = rawws.Routes(endpoints.routes(hub, "/topics"))
    routes.post("/disconnect/{user}")(lambda request: str(hub.disconnect(request.path_params["user"])))
    routes.post("/unsubscribe/{user}")(unsubscribe)
    async with rawws.serve(routes, "127.0.0.1", port, subprotocols=["rawws.v1"], origins=["*", None]) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
