"""Clients of rawws.v1 at a gateway: those that have a token, and what they say and hear."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, final

import httpx2
import jwt

import rawws
from tests.gateway.running import APP, app_file

__all__ = ["EVERYTHING", "JWT", "TOKENS", "OwnClient", "everything", "http", "own", "signed", "token_file"]

TOKENS: Final = "t" * 32
JWT: Final = f'jwt = {{ algorithms = ["HS256"], key = "{TOKENS}" }}'
EVERYTHING: Final = [{"match": "*", "allow": ["subscribe", "publish"]}]


def token_file(more: str = "", *, head: str = "") -> str:
    """Return a file with an app that takes tokens."""
    return app_file(f"{JWT}\n{more}", head=head)


def signed(user: str, key: Any = TOKENS, *, algorithm: str = "HS256", headers: Any = None, **claims: Any) -> str:
    """Return a token; a claim of None is left out."""
    said = {"sub": user, "exp": time.time() + 1000, **claims}
    return jwt.encode({name: each for name, each in said.items() if each is not None}, key, algorithm, headers)


def everything(user: str, **claims: Any) -> str:
    """Return the token of somebody who may do all that there is."""
    return signed(user, **{"caps": EVERYTHING, **claims})


@final
class OwnClient:
    """A client of rawws.v1."""

    def __init__(self, ws: rawws.WebSocket) -> None:
        self.ws = ws

    async def hear(self) -> dict[str, Any]:
        """Return what comes next."""
        found: dict[str, Any] = json.loads(await self.ws.recv())
        return found

    async def ask(self, **fields: Any) -> dict[str, Any]:
        """Ask for something, and return the answer; what comes before it is dropped."""
        await self.ws.send(json.dumps({"id": 1, **fields}))
        while "id" not in (answer := await self.hear()):
            pass
        return answer

    async def ended(self) -> tuple[int | None, str | None]:
        """Return the code and the reason of its end."""
        try:
            while True:
                await self.ws.recv()
        except rawws.ConnectionClosed:
            return self.ws.close_code, self.ws.close_reason


@asynccontextmanager
async def own(port: int, token: str = "", app: str = APP, **options: Any) -> AsyncIterator[OwnClient]:
    """Give a client that is connected."""
    url = f"ws://127.0.0.1:{port}/connect/{app}?token={token}"
    async with rawws.connect(url, subprotocols=["rawws.v1"], **options) as ws:
        yield OwnClient(ws)


@asynccontextmanager
async def http(port: int, **headers: str) -> AsyncIterator[httpx2.AsyncClient]:
    """Give a client of HTTP that gives up after a minute."""
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as client:
        yield client
