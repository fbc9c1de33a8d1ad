"""Gateways with notifications, as tests run them: with doubles of the services, and a server of the app that asks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx2
import pusher

from tests.gateway.running import APP, KEY, SECRET, Running, app_file, gateway
from tests.integrations.push_doubles import PushDouble, account_file, push_double

__all__ = ["DEVICE", "AppServer", "Pushing", "app_server", "push_file", "pushing"]

DEVICE: Final = {"service": "fcm", "token": "device:1", "user": "ann"}


class Answered(NamedTuple):
    """A status, and what was answered."""

    status: int
    body: Any


class AppServer:
    """A server of the app, which has its secret."""

    def __init__(self, client: httpx2.AsyncClient, port: int) -> None:
        self.client = client
        self.url = f"http://127.0.0.1:{port}/v1/apps/"
        self.library = pusher.Pusher(app_id=APP, key=KEY, secret=SECRET, ssl=False, host="127.0.0.1", port=port)

    async def ask(
        self, method: str, path: str, body: Any = None, *, secret: str = SECRET, app: str = APP, **headers: str
    ) -> Answered:
        """Send a request."""
        fields = {"Authorization": f"Bearer {secret}", **headers}
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = await self.client.request(method, f"{self.url}{app}{path}", content=content, headers=fields)
        return Answered(answer.status_code, answer.json())

    async def register(self, ident: str = "phone", **fields: str) -> Answered:
        """Register a device."""
        return await self.ask("PUT", f"/devices/{ident}", {**DEVICE, **fields})

    async def push(self, *users: str, **more: Any) -> Answered:
        """Have users notified, at once by default."""
        return await self.ask("POST", "/push", {"users": users, "notification": {"title": "Hello"}, "after": 0, **more})


@asynccontextmanager
async def app_server(port: int) -> AsyncIterator[AppServer]:
    """Give a server of the app."""
    async with httpx2.AsyncClient(trust_env=False, timeout=60) as client:
        yield AppServer(client, port)


def push_file(folder: Path, double: PushDouble, *, head: str = "", after: float = 0) -> str:
    """Return a file with one app, which pushes by FCM."""
    more = f"""
  [app.push]
  after = {after}
  [app.push.fcm]
  account = "file:{account_file(folder, double)}"
  url = "{double.url}"
"""
    return app_file(more, head=head)


class Pushing(NamedTuple):
    """A gateway that pushes, the services, and a server of its app."""

    running: Running
    double: PushDouble
    server: AppServer


@asynccontextmanager
async def pushing(folder: Path, *, head: str = "", after: float = 0) -> AsyncIterator[Pushing]:
    """Run all of it."""
    async with push_double(plain=True) as (double, _):
        async with gateway(push_file(folder, double, head=head, after=after)) as running:
            async with app_server(running.port) as server:
                yield Pushing(running, double, server)
