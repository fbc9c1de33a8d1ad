"""The demo's second page: event streams, WebSockets and requests, and the TCP connections that each of them came by."""

from __future__ import annotations

import contextlib
import json
from typing import Any, final

import rawws

from .pages import page_response

__all__ = ["connection_routes"]

# 20 pages of 20 streams.
STREAM_LIMIT = 400
# How long a browser waits before it comes back to a stream, in milliseconds.
RETRY = 500


def connection_routes() -> list[rawws.Route]:
    """Return what the page needs."""
    page, streams = page_response("connection.html"), Streams()
    return [
        rawws.Route("/connection", lambda _: page),
        rawws.Route("/connection/request", answer),
        rawws.Route("/connection/stream", streams.open),
        rawws.Route("/connection/socket", Sockets(), websocket=True),
    ]


def told(number: object, address: Any, version: str) -> str:
    """Return what one of them is told: its number, and which connection it came by (the port of the browser's end)."""
    return json.dumps({"n": number, "port": address[1], "version": version})


def answer(request: rawws.HttpRequest) -> rawws.Response:
    """Answer one request."""
    text = told(request.query.get("n", ""), request.remote_address, request.head.http_version)
    return rawws.Response(200, text, {"Cache-Control": "no-store"}, "application/json")


@final
class Streams:
    """Event streams that tell what they came by, and then stay open."""

    def __init__(self) -> None:
        self.running: set[rawws.EventStream] = set()

    def open(self, request: rawws.HttpRequest) -> rawws.EventStream | rawws.Response:
        """Begin one."""
        if len(self.running) >= STREAM_LIMIT:
            return rawws.Response(503, "there are too many readers\n", {"Retry-After": "10"})
        stream = rawws.EventStream(retry=RETRY, on_close=self.running.discard)
        stream.send(told(request.query.get("n", ""), request.remote_address, request.head.http_version))
        self.running.add(stream)
        return stream


@final
class Sockets(rawws.Handler):
    """WebSockets that say what they came by, and close as they are asked to."""

    def on_message(self, ws: rawws.WebSocket, message: str | bytes) -> None:
        """Do what one message asks for, or say what is allowed."""
        with contextlib.suppress(rawws.ConnectionClosed):
            try:
                match json.loads(message):
                    case {"n": number}:
                        version = ws.request.http_version if ws.request is not None else ""
                        ws.send(told(number, ws.remote_address, version))
                    case {"close": int(code), "reason": str(reason)}:
                        ws.close(code, reason)
                    case _:
                        raise ValueError('allowed are {"n"} and {"close": code, "reason"}')
            except (ValueError, RecursionError, rawws.LocalProtocolError) as error:
                ws.send(json.dumps({"error": str(error)}))
