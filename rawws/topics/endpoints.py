"""Endpoints: one URL to all that clients reach a hub by, and the module that pages import (docs/use/javascript.md).

And beside it, the API for programs that have a key (docs/use/api.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rawws.http.routes import Route

from .http_api import METHODS, HubApi, HubApiApplication
from .rawws_v1 import HubHandler
from .rawws_v1_http import answer_get
from .script import script

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rawws.http.requests import HttpRequest
    from rawws.net.websocket import WebSocket

    from .asgi_socket import AsgiSocket
    from .hub import Hub

__all__ = ["api_application", "api_routes", "routes", "token_of"]


def routes(hub: Hub, path: str) -> list[Route]:
    """Return the routes for WebSockets, event streams, polls and posts at one path, and rawws.js below it."""
    return [
        Route(path, HubHandler(hub), websocket=True),
        Route(path, lambda asked: answer_get(hub, asked)),
        Route(path, hub.post, ["POST"]),
        Route(f"{path.rstrip('/')}/rawws.js", script),
    ]


def api_routes(hub: Hub, path: str, *, keys: Iterable[str]) -> list[Route]:
    """Return the routes of the HTTP API, at a path and below it: publish, broadcast, history, presence, subscribers.

    It is for programs that send `Authorization: Bearer KEY` with one of the keys; `authorize` of the hub is not asked.
    Raises ValueError without a key, and for a key of less than 16 characters or that cannot stand in a header.
    """
    api, base = HubApi(hub, keys), path.rstrip("/")
    return [
        Route(
            f"{base}/{name}" if name else path, endpoint, [METHODS[name]], check=lambda asked: api.refuse(asked.headers)
        )
        for name, endpoint in api.endpoints.items()
    ]


def api_application(hub: Hub, *, keys: Iterable[str]) -> HubApiApplication:
    """Return the same as an ASGI application, to be mounted in another. Raises as `api_routes` does."""
    return HubApiApplication(HubApi(hub, keys))


def token_of(client: WebSocket | AsgiSocket | HttpRequest) -> str:
    """Return the token that a client named last, "" if it named none: for `identify` and `authorize`.

    It is that of `Authorization: Bearer` or `?token=`; or the one that renewed it, over the connection.
    """
    return client.token
