"""A server with a hub, somebody who looks into it, and requests of all kinds to that."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import rawws
import rawws.admin
from rawws.topics import Hub
from tests.server.answers import Answer, ask
from tests.server.peers import serve

__all__ = ["KEY", "allow", "fetch", "looked_at", "post", "read"]

KEY = "0123456789abcdef"


def allow(_client: Any, _action: str, _topic: str) -> bool:
    return True


@asynccontextmanager
async def looked_at(
    hub: Hub, *, key: str | None = None, **options: Any
) -> AsyncIterator[tuple[rawws.Server, rawws.Server]]:
    """Give a server with a hub at /ws and /stream, a poll at /hold, and the one that looks into it."""
    routes = rawws.Routes([rawws.Route("/hold", lambda _: rawws.LongPoll())])
    routes.websocket("/ws")(hub.serve)
    routes.get("/stream")(hub.stream)
    async with (
        serve(routes, subprotocols=["rawws.v1"], **options) as server,
        rawws.admin.serve(server, hub, port=0, key=key) as admin,
    ):
        yield server, admin


async def fetch(admin: rawws.Server, target: str, *fields: str, method: str = "GET", body: bytes = b"") -> Answer:
    """Ask, as by a name of this machine unless the fields have another Host."""
    host = [] if any(field.startswith("Host:") for field in fields) else ["Host: localhost"]
    size = [f"Content-Length: {len(body)}"] if body else []
    lines = [f"{method} {target} HTTP/1.1", *host, *fields, *size]
    [answer] = await ask(admin, "\r\n".join([*lines, "", ""]).encode("latin-1") + body)
    return answer


async def read(admin: rawws.Server, target: str, *fields: str) -> Any:
    """Return what is answered in JSON."""
    answer = await fetch(admin, target, *fields)
    assert answer.status == 200, answer
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    return json.loads(answer.body)


async def post(admin: rawws.Server, said: Any, *fields: str) -> Answer:
    """Ask for a kick."""
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    return await fetch(admin, "/v1/kick", "Content-Type: application/json", *fields, method="POST", body=body)
