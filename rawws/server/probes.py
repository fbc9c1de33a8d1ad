"""Probes: what an orchestrator asks, to yes or no: is the process alive, and may requests be sent to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rawws.http.responses import Response

if TYPE_CHECKING:
    from rawws.http.requests import HttpRequest

__all__ = ["healthz", "readyz"]

UNCACHED = {"Cache-Control": "no-store"}


def healthz(request: HttpRequest) -> Response:  # noqa: ARG001 - an endpoint
    """Answer 200: the process is alive and its event loop turns, also while it drains."""
    return Response(200, "ok\n", UNCACHED)


def readyz(request: HttpRequest) -> Response:
    """Answer 200 while the server wants connections, 503 from the moment on that it is told to end."""
    server = request.server
    if server is None or server.draining or server.closing:
        return Response(503, "draining\n", UNCACHED)
    return Response(200, "ok\n", UNCACHED)
