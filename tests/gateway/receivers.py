"""Receivers of hooks: an application in this process that answers as it is told, on a clock that jumps."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, Final, final

import httpx2

from rawws.gateway.config import AppConfig, HookConfig
from rawws.gateway.loading import read_config
from rawws.gateway.webhooks import HookEvent

__all__ = ["APP", "ReceiverApp", "app_of", "hook_of", "occupied", "vacated"]

APP: Final = """
[[app]]
id = "3"
keys = [{{ key = "new", secret = "secret of today" }}, {{ key = "old", secret = "secret of yesterday" }}]
{more}
  [[app.hook]]
  url = "{url}"
  events = ["*"]
  format = "{format}"
  channels = "{channels}"
"""


def app_of(url: str = "http://hooks.example/", form: str = "pusher", channels: str = "*", more: str = "") -> AppConfig:
    """Return an app that has a hook."""
    return read_config(APP.format(url=url, format=form, channels=channels, more=more)).apps[0]


def hook_of(app: AppConfig) -> HookConfig:
    """Return its hook."""
    return app.hooks[0]


def occupied(channel: str) -> HookEvent:
    """Return an event."""
    return HookEvent("channel_occupied", "3", 0.0, {"channel": channel})


def vacated(channel: str) -> HookEvent:
    """Return another event."""
    return HookEvent("channel_vacated", "3", 0.0, {"channel": channel})


@final
class ReceiverApp:
    """An application of ASGI; `answer(number)` says what it answers to which request: a status, and headers."""

    def __init__(self, answer: Callable[[int], tuple[int, dict[str, str]]] = lambda _: (200, {})) -> None:
        self.answer = answer
        # What stands in each answer.
        self.body = b""
        self.requests: list[tuple[float, dict[str, str], bytes]] = []
        self.transport = httpx2.ASGITransport(app=self)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.requests.append((asyncio.get_running_loop().time(), headers, body))
        status, fields = self.answer(len(self.requests))
        if not status:
            await asyncio.Event().wait()
        raw = [(name.encode(), value.encode()) for name, value in fields.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": self.body})

    @property
    def events(self) -> list[dict[str, Any]]:
        """All events of all requests of Pusher's format."""
        return [event for _, _, body in self.requests for event in json.loads(body)["events"]]

    @property
    def times(self) -> list[float]:
        """When requests came."""
        return [time for time, _, _ in self.requests]
