"""Probes: what an orchestrator asks, to yes or no: is the process alive, and may requests be sent to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, final

from rawws.http.responses import Response

if TYPE_CHECKING:
    from rawws.http.requests import HttpRequest

__all__ = ["Readiness", "healthz", "readyz"]

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


class Degradable(Protocol):
    """What a server may need to be ready: a `rawws.Hub`."""

    @property
    def degraded(self) -> bool:
        """Whether it does less than it should: its backplane is away."""


@final
class Readiness:
    """As `readyz`, and 503 too while the backplane of one of these hubs is away: `Route("/readyz", Readiness(hub))`.

    A hub that is not used yet has not looked for its backplane: begin with `async with hub:`.
    """

    __slots__ = ("_hubs",)

    def __init__(self, *hubs: Degradable) -> None:
        for hub in hubs:
            if not hasattr(hub, "degraded"):
                raise TypeError(f"a hub is {type(hub).__name__}, allowed are rawws.Hub")
        self._hubs = hubs

    def __call__(self, request: HttpRequest) -> Response:
        """Answer the probe."""
        answer = readyz(request)
        if answer.status == 200 and any(hub.degraded for hub in self._hubs):
            return Response(503, "the backplane is away\n", UNCACHED)
        return answer
