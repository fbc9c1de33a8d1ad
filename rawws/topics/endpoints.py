"""Endpoints: one URL to all that clients reach a hub by, and the module that pages import (docs/use/javascript.md)."""

from __future__ import annotations

import gzip
import hashlib
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from rawws.http.requests import HttpRequest, Query
from rawws.http.responses import Response
from rawws.http.routes import Route

from .rawws_v1 import HubHandler

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from rawws.http.event_stream import EventStream
    from rawws.http.long_poll import LongPoll
    from rawws.net.websocket import WebSocket

    from .hub import Hub

__all__ = ["routes", "token_of"]

SCRIPT = Path(__file__).parent / "js" / "rawws.js"


def routes(hub: Hub, path: str) -> list[Route]:
    """Return the routes for WebSockets, event streams, polls and posts at one path, and rawws.js below it."""

    def get(
        asked: HttpRequest,
    ) -> EventStream | LongPoll | Response | Awaitable[EventStream | LongPoll | Response]:
        # One resource in two forms, chosen by Accept (RFC 9110 section 12.5.1): none of them may be stored.
        wanted = ",".join(asked.headers.get_all("Accept")).lower()
        return hub.stream(asked) if "text/event-stream" in wanted else hub.poll(asked)

    return [
        Route(path, HubHandler(hub), websocket=True),
        Route(path, get),
        Route(path, hub.post, ["POST"]),
        Route(f"{path.rstrip('/')}/rawws.js", script),
    ]


def script(asked: HttpRequest) -> Response:
    """Answer with rawws.js: small for browsers, or not at all for those that have it."""
    packed, plain, etag = module()
    # No URL is for ever: a browser asks each time whether there is a newer one, and is told by 304 that there is not.
    fields = {"ETag": etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding", "X-Content-Type-Options": "nosniff"}
    if etag in ",".join(asked.headers.get_all("If-None-Match")):
        return Response(304, headers=fields)
    body = plain
    if re.search(r"\bgzip\b(?!\s*;\s*q=0(?:\.0*)?\s*(?:,|$))", ",".join(asked.headers.get_all("Accept-Encoding"))):
        body = packed
        fields["Content-Encoding"] = "gzip"
    return Response(200, body, fields, "text/javascript; charset=utf-8")


@lru_cache(maxsize=1)
def module() -> tuple[bytes, bytes, str]:
    """Return rawws.js without its comments and margins, compressed and not, and its entity tag."""
    lines = (line.strip() for line in SCRIPT.read_text(encoding="utf-8").splitlines())
    code = (re.sub(r" // .*", "", line) for line in lines if line and not line.startswith(("//", "/**")))
    plain = "\n".join(code).encode()
    return gzip.compress(plain, 9, mtime=0), plain, f'"{hashlib.sha256(plain).hexdigest()[:16]}"'


def token_of(client: WebSocket | HttpRequest) -> str:
    """Return what a client named as `?token=`, "" if it named nothing: for `authorize`."""
    head = client.head if isinstance(client, HttpRequest) else client.request
    return "" if head is None else Query(head.path.partition("?")[2]).get("token", "")
