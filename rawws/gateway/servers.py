"""Servers of apps: a request at an HTTP API of the gateway to the app whose server asks, and how fast those may ask.

Laws:
1. Who has no secret of an app learns nothing, not even whether there is that app.
2. It is for programs: a page is refused, for its secret would be everybody's.
3. Who asks is known by the head: of a stranger no body is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import rawws
from rawws.http.keys import BearerKeys
from rawws.net.rate import RateLimiter

from .pusher_rules import check_body, check_request
from .v1_requests import V1Error

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .config import AppConfig
    from .model import Admission

__all__ = ["FRESH", "LATER", "AppSecrets", "RequestRates", "ServerFace", "answer_error", "answer_problem"]

# Seconds of its rate that an app may ask at once.
BURST: Final = 2.0
# No cache keeps what is asked with a secret.
FRESH: Final = ("Cache-Control", "no-store")
LATER: Final = ("Retry-After", "1")
# The words for what has no other.
CODES: Final = {
    401: "unauthorized",
    403: "refused",
    404: "gone",
    409: "conflict",
    410: "gone",
    413: "size",
    429: "limit",
    503: "unavailable",
}
UNAUTHORIZED: Final = "needed is Authorization: Bearer and a secret of the app, or a signature of Pusher"


@final
class RequestRates:
    """How fast the servers of each app may ask one API: `limits.requests` of the app a second."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, RateLimiter]] = {}

    def take(self, app: AppConfig) -> None:
        """Count a request. Raises HttpError(429) for one that comes too early."""
        rate = app.limits.requests
        known = self._known.get(app.id)
        if known is None or known[0] != rate:
            known = self._known[app.id] = rate, RateLimiter(rate, 0)
        if not known[1].take(BURST):
            raise rawws.HttpError(429, f"over {rate:g} requests a second, the limit", (LATER,))


@final
class AppSecrets:
    """The secrets of apps, by which their servers are known."""

    __slots__ = ("_keys",)

    def __init__(self) -> None:
        self._keys: dict[str, BearerKeys] = {}

    def load(self, apps: Iterable[AppConfig]) -> None:
        """Take over what apps there are."""
        self._keys = {app.id: BearerKeys([each.secret for each in app.keys]) for app in apps}

    def check(self, app: AppConfig | None, request: rawws.HttpRequest) -> AppConfig:
        """Return the app, whose server asks. Raises HttpError: 401, 403 for a page and for an app that is disabled."""
        if app is None or not self._is_server(app, request):
            raise rawws.HttpError(401, UNAUTHORIZED, (("WWW-Authenticate", "Bearer"),))
        if "Origin" in request.headers:
            raise rawws.HttpError(403, "a page asks, and the API is for servers")
        if not app.enabled:
            raise rawws.HttpError(403, "the app is disabled")
        return app

    def check_body(self, request: rawws.HttpRequest) -> None:
        """Check what a signature says of the body, once that is here. Raises HttpError(401)."""
        if is_signed_by_query(request):
            check_body(request)

    def _is_server(self, app: AppConfig, request: rawws.HttpRequest) -> bool:
        """Tell whether a request has a secret of an app, or a signature by one. Raises HttpError(401)."""
        if not is_signed_by_query(request):
            return self._keys[app.id].open_to(request.headers)
        check_request(app, request)
        return True


def is_signed_by_query(request: rawws.HttpRequest) -> bool:
    """Tell whether it is a signature that says who asks."""
    return "Authorization" not in request.headers and "auth_signature" in request.query


class ServerFace:
    """What a face is to clients that has none: one for the servers of apps alone."""

    def routes(self) -> Iterable[rawws.Route]:
        """Return nothing: it answers no client."""
        return ()

    def admit(self, ws: rawws.WebSocket, request: rawws.Request) -> Admission:  # noqa: ARG002 - as a face has it
        """Judge nothing: no connection is for it."""
        return None

    def subprotocol(self, ws: rawws.WebSocket, offered: list[str]) -> str | None:  # noqa: ARG002 - as a face has it
        """Choose nothing, as well."""
        return None


def answer_problem(status: int, code: str, reason: str, *fields: tuple[str, str]) -> rawws.Response:
    """Return an answer that says what is wrong."""
    return rawws.Response.json({"error": code, "reason": reason}, status, [FRESH, *fields])


def answer_error(error: rawws.HttpError) -> rawws.Response:
    """Return the answer to a request that cannot be."""
    code = error.code if isinstance(error, V1Error) else CODES.get(error.status, "malformed")
    return answer_problem(error.status, code, error.reason, *error.headers)
