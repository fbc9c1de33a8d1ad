"""Application: the requests of whoever looks on to answers: probes, metrics, JSON, a page and what it shows live."""

from __future__ import annotations

import asyncio
import json
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from rawws.errors import HttpError
from rawws.http.event_stream import EventStream
from rawws.http.responses import Response
from rawws.http.routes import Route, Routes
from rawws.server.probes import healthz
from rawws_sse import Event

from .guard import AccessGuard, problem
from .inspector import ORDERS, Inspector
from .overview import Overview
from .sources import LocalSource, SourceBusyError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rawws.http.requests import HttpRequest
    from rawws.server.server import Server
    from rawws.topics.core import HubCore

    from .sources import Answer

__all__ = ["admin_routes", "routes_of"]

HERE: Final = Path(__file__).parent
FILES: Final = {
    "/": "page/index.html",
    "/admin.js": "page/admin.js",
    "/admin.css": "page/admin.css",
    "/grafana/dashboard.json": "grafana/dashboard.json",
    "/grafana/alerts.yml": "grafana/alerts.yml",
}
TYPES: Final = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".json": "application/json",
    ".yml": "application/yaml",
}
# The page is this server's alone: nothing of others, nothing inline, in no frame, and no form that leads elsewhere.
PAGE_FIELDS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
FIELDS: Final = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
# Pages that look on at once; each is a connection, and costs a copy of the status each time.
MOST_STREAMS: Final = 32
INTERVAL: Final = 2.0
DEFAULT_LIMIT, LARGEST_LIMIT = 100, 1000
# A policy of the server is what was broken (RFC 6455 section 7.4.1).
KICK_CODE, KICK_REASON = 1008, "closed by the administrator"
NUMBER: Final = re.compile(r"[0-9]{1,9}", re.ASCII)


def admin_routes(server: Server, *hubs: HubCore, key: str | None = None) -> Routes:
    """Return what answers those who look into a server, for `rawws.serve` at another port.

    Without hubs, those of the process are looked at. Without a key, only this machine may look; with one, whoever has
    it. Raises ValueError for a key that is easily guessed.
    """
    return routes_of(Overview([LocalSource(Inspector(server, hubs))]), key)


def routes_of(overview: Overview, key: str | None) -> Routes:
    """Return the same for an overview."""
    admin, guard = AdminEndpoints(overview), AccessGuard(key)
    open_to_all = dict.fromkeys(FILES, static) | {"/healthz": healthz, "/readyz": admin.readyz}
    looks = {
        "/metrics": admin.metrics,
        "/v1/status": admin.status,
        "/v1/connections": admin.connections,
        "/v1/topics": admin.topics,
        "/v1/presence": admin.presence,
        "/v1/deliveries": admin.deliveries,
        "/v1/stream": admin.stream,
    }
    return Routes(
        [
            *(Route(path, endpoint) for path, endpoint in open_to_all.items()),
            *(Route(path, endpoint, check=guard.check) for path, endpoint in looks.items()),
            Route("/v1/kick", admin.kick, ("POST",), check=guard.check_action),
            Route("/v1/retry", admin.retry, ("POST",), check=guard.check_action),
            Route("/v1/test", admin.test, ("POST",), check=guard.check_action),
        ]
    )


@final
class AdminEndpoints:
    """What answers, once it is known that it may."""

    __slots__ = ("_overview", "_streams")

    def __init__(self, overview: Overview) -> None:
        self._overview = overview
        self._streams: set[EventStream] = set()

    async def readyz(self, request: HttpRequest) -> Response:
        """Answer 200 while some process serves and none is told to end; with ?backplane, and has its backplane."""
        why = await self._overview.readiness(backplane="backplane" in request.query)
        return Response(503 if why else 200, f"{why or 'ok'}\n", FIELDS)

    async def metrics(self, request: HttpRequest) -> Response:  # noqa: ARG002 - an endpoint, as those that follow
        """Answer Prometheus."""
        text = await self._overview.metrics()
        return Response(200, text, FIELDS, "text/plain; version=0.0.4; charset=utf-8")

    async def status(self, request: HttpRequest) -> Response:  # noqa: ARG002
        """Answer with what there is, and the rates."""
        return Response.json(await self._overview.status(), 200, FIELDS)

    async def connections(self, request: HttpRequest) -> Response:
        """Answer with connections."""
        sort = request.query.get("sort", "waiting")
        if sort not in ORDERS:
            return problem(400, f"sort is {sort[:32]!r}, allowed are {', '.join(ORDERS)}")
        user = request.query.get("user", "")
        return Response.json(await self._overview.connections(limit_of(request), sort, user), 200, FIELDS)

    async def topics(self, request: HttpRequest) -> Response:
        """Answer with topics."""
        return Response.json(await self._overview.topics(limit_of(request)), 200, FIELDS)

    async def presence(self, request: HttpRequest) -> Response:
        """Answer with who is there in a topic."""
        return Response.json(await self._overview.presence(one_of(request, "topic")), 200, FIELDS)

    async def deliveries(self, request: HttpRequest) -> Response:
        """Answer with the last deliveries of a hook of a gateway."""
        app, url = one_of(request, "app"), one_of(request, "url")
        try:
            found = await self._overview.hook_deliveries(app, url)
        except SourceBusyError:
            return problem(503, "a process does not answer: it may have the hook")
        return no_hook(app, url) if found is None else Response.json(found, 200, FIELDS)

    async def kick(self, request: HttpRequest) -> Response:
        """Close a connection."""
        fields = fields_of(request, {"id": str, "code": int, "reason": str}, {"code": KICK_CODE, "reason": KICK_REASON})
        try:
            wrong = await self._overview.kick(fields["id"], fields["code"], fields["reason"])
        except SourceBusyError:
            return problem(503, "a process does not answer: if the connection is there, it is closed when it does")
        if wrong is None:
            return problem(404, f"there is no connection {fields['id'][:64]!r}")
        return problem(400, wrong) if wrong else Response.json({"kicked": fields["id"]}, 200, FIELDS)

    async def retry(self, request: HttpRequest) -> Response:
        """Have a hook of a gateway tried now."""
        fields = fields_of(request, {"app": str, "url": str}, {})
        try:
            found = await self._overview.retry_hook(fields["app"], fields["url"])
        except SourceBusyError:
            return problem(503, "a process does not answer: if it has the hook, that is tried when it does")
        return Response.json({"retried": fields["url"]}, 200, FIELDS) if found else no_hook(**fields)

    async def test(self, request: HttpRequest) -> Response:
        """Send a hook of a gateway a test, and answer with what came of it."""
        fields = fields_of(request, {"app": str, "url": str}, {})
        try:
            found = await self._overview.test_hook(fields["app"], fields["url"])
        except SourceBusyError:
            return problem(503, "a process does not answer: if it has the hook, that is sent a test when it does")
        if found is None:
            return no_hook(**fields)
        if not found:
            return problem(409, "another test of this hook is under way")
        return Response.json({"tested": fields["url"], "deliveries": found}, 200, FIELDS)

    def stream(self, request: HttpRequest) -> EventStream | Response:  # noqa: ARG002
        """Send the status again and again."""
        if len(self._streams) >= MOST_STREAMS:
            return problem(503, f"{MOST_STREAMS} look on already, the limit")
        stream = EventStream(self._ticks(), on_close=self._streams.discard)
        self._streams.add(stream)
        return stream

    async def _ticks(self) -> AsyncIterator[Event]:
        while True:
            yield Event(json.dumps(await self._overview.status(), separators=(",", ":")))
            await asyncio.sleep(INTERVAL)


def limit_of(request: HttpRequest) -> int:
    """Return how many are asked for. Raises HttpError for what is no such number."""
    text = request.query.get("limit", str(DEFAULT_LIMIT))
    if not NUMBER.fullmatch(text) or not 0 < int(text) <= LARGEST_LIMIT:
        raise HttpError(400, f"limit is {text[:32]!r}, allowed are 1 to {LARGEST_LIMIT}")
    return int(text)


def one_of(request: HttpRequest, name: str) -> str:
    """Return what a request asks about. Raises HttpError where it names none, or several."""
    found = request.query.get_all(name)
    if len(found) != 1:
        raise HttpError(400, f"the query has {len(found)} of {name!r}, needed is one: ?{name}=...")
    return found[0]


def no_hook(app: str, url: str) -> Response:
    """Return the answer to who asks about a hook that no process has."""
    return problem(404, f"the app {app[:64]!r} has no hook {url[:200]!r}")


def fields_of(request: HttpRequest, kinds: dict[str, type], defaults: Answer) -> Answer:
    """Return what the body of a request says that does something. Raises HttpError for what makes no sense."""
    found = request.json()
    fields = {**defaults, **(found if isinstance(found, dict) else {})}
    if set(fields) != set(kinds):
        needed = ", ".join([f'"{name}": ...' for name in kinds if name not in defaults])
        beside = f", allowed beside it are {' and '.join(defaults)}" if defaults else ""
        raise HttpError(400, f"the body is not {{{needed}}}{beside}")
    for name, kind in kinds.items():
        if type(fields[name]) is not kind:
            raise HttpError(400, f"{name} is {type(fields[name]).__name__}, allowed is {kind.__name__}")
    return fields


def static(request: HttpRequest) -> Response:
    """Answer with the page, what belongs to it, and what Grafana and Prometheus take: nothing of it is secret."""
    name = FILES[request.path]
    fields = {**FIELDS, **PAGE_FIELDS, "Cache-Control": "no-cache"}
    return Response(200, contents(name), fields, f"{TYPES[Path(name).suffix]}; charset=utf-8")


@lru_cache(maxsize=len(FILES))
def contents(name: str) -> bytes:
    """Return a file."""
    return (HERE / name).read_bytes()
