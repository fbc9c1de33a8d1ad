"""Servers that ask `/v1` of a gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, final

import httpx2

from tests.gateway.own_running import http
from tests.gateway.running import APP, PATIENCE, SECRET, Running

__all__ = ["OTHER", "Server", "server"]

# A second app, beside that of `token_file` or `app_file`.
OTHER: Final = """
[[app]]
id = "4"
keys = [{ key = "another", secret = "the secret of another" }]
"""


@final
class Server:
    """A server of an app."""

    def __init__(self, client: httpx2.AsyncClient, app: str) -> None:
        self.client = client
        self.base = f"/v1/apps/{app}/"

    async def answer(self, method: str, path: str, body: Any = None, **more: Any) -> httpx2.Response:
        """Ask, and return the answer."""
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.client.request(method, self.base + path, content=content, **more)

    async def get(self, path: str, **query: Any) -> Any:
        """Ask for something that there is, until the instances answer."""
        async with asyncio.timeout(PATIENCE):
            while (answer := await self.answer("GET", path, params=query)).status_code == 503:
                pass
        assert answer.status_code == 200, answer.text
        assert answer.headers["Cache-Control"] == "no-store"
        return answer.json()

    async def post(self, path: str, body: Any = None, key: str = "") -> Any:
        """Have something done; with a key, until the instances answer."""
        headers, later = ({"Idempotency-Key": key}, {409, 503}) if key else ({}, set())
        async with asyncio.timeout(PATIENCE):
            while (answer := await self.answer("POST", path, body, headers=headers)).status_code in later:
                pass
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def until(self, path: str, **members: Any) -> Any:
        """Ask until the answer has these members, and return it; give up after a minute."""
        async with asyncio.timeout(PATIENCE):
            while not members.items() <= (told := await self.get(path)).items():
                pass
        return told

    async def refused(self, path: str, body: Any = None, method: str = "POST", **more: Any) -> tuple[int, str, str]:
        """Ask for what cannot be; return the status, the word, and the reason."""
        answer = await self.answer(method, path, body, **more)
        told = answer.json()
        assert set(told) == {"error", "reason"}
        return answer.status_code, told["error"], told["reason"]


@asynccontextmanager
async def server(asked: Running | int, app: str = APP, secret: str = SECRET) -> AsyncIterator[Server]:
    """Give a server that asks an instance, or who listens at a port."""
    async with http(asked if isinstance(asked, int) else asked.port, Authorization=f"Bearer {secret}") as client:
        yield Server(client, app)
