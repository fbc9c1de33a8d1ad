"""Endpoints: one URL to all that clients reach a hub by, and the module that pages import (docs/use/javascript.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rawws.http.requests import HttpRequest, Query
from rawws.http.routes import Route

from .rawws_v1 import HubHandler
from .rawws_v1_http import answer_get
from .script import script

if TYPE_CHECKING:
    from rawws.net.websocket import WebSocket

    from .asgi_socket import AsgiSocket
    from .hub import Hub

__all__ = ["routes", "token_of"]


def routes(hub: Hub, path: str) -> list[Route]:
    """Return the routes for WebSockets, event streams, polls and posts at one path, and rawws.js below it."""
    return [
        Route(path, HubHandler(hub), websocket=True),
        Route(path, lambda asked: answer_get(hub, asked)),
        Route(path, hub.post, ["POST"]),
        Route(f"{path.rstrip('/')}/rawws.js", script),
    ]


def token_of(client: WebSocket | AsgiSocket | HttpRequest) -> str:
    """Return what a client named as `?token=`, "" if it named nothing: for `authorize`."""
    head = client.head if isinstance(client, HttpRequest) else client.request
    return "" if head is None else Query(head.path.partition("?")[2]).get("token", "")
