"""Servers of apps: a request at an HTTP API of the gateway to the app whose server asks, and how fast those may ask.

Laws:
1. Who has no secret of an app learns nothing, not even whether there is that app.
2. It is for programs: a page is refused, for its secret would be everybody's.
3. Who asks is known by the head: of a stranger no body is read.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final, final

import rawws
from rawws.http.keys import BearerKeys
from rawws.net.rate import RateLimiter
from rawws.topics.cursors import CursorError
from rawws.topics.envelope import EnvelopeError

from .control import RegistryAway
from .pusher_rules import check_body, check_request
from .v1_requests import V1Error, digest_of, key_of_request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .config import AppConfig, GatewayConfig
    from .idempotency import KeptAnswers
    from .model import Admission, Gateway
    from .v1_requests import ServerEndpoint

__all__ = ["LATER", "AppSecrets", "RequestRates", "ServerFace", "ServerRequests"]

BASE: Final = "/v1/apps/{app}"
# How long an answer may take that other instances are asked for, or the engine of the backplane, in seconds.
PATIENCE: Final = 5.0

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


@final
class ServerRequests:
    """What one HTTP API asks of who asks it: a secret of the app, a pace, a name for what is done once; it counts them.

    `apps_of` returns the apps that the API knows, of a configuration; `check` raises HttpError for one of them that has
    no use for it.
    """

    __slots__ = ("_apps", "_apps_of", "_check", "_gateway", "_kept", "_rates", "_secrets")

    def __init__(
        self,
        gateway: Gateway,
        kept: KeptAnswers,
        apps_of: Callable[[GatewayConfig], Iterable[AppConfig]],
        check: Callable[[AppConfig], None] | None = None,
    ) -> None:
        self._gateway = gateway
        self._kept = kept
        self._apps_of = apps_of
        self._check = check
        self._apps: dict[str, AppConfig] = {}
        self._secrets, self._rates = AppSecrets(), RequestRates()
        self._load(gateway.config)
        gateway.on_reload.append(self._load)

    def _load(self, config: GatewayConfig) -> None:
        self._apps = {app.id: app for app in self._apps_of(config)}
        self._secrets.load(self._apps.values())

    def routes(self, endpoints: Mapping[str, ServerEndpoint]) -> list[rawws.Route]:
        """Return the routes of endpoints, by their methods and paths: "GET /channels"."""
        found = []
        for name, endpoint in endpoints.items():
            method, _, path = name.partition(" ")
            found.append(rawws.Route(BASE + path, partial(self._answer, endpoint), [method], check=self._refusal))
        return found

    def _refusal(self, request: rawws.HttpRequest) -> rawws.Response | None:
        """Refuse a request that is none of a server of the app, or comes too early, before its body is read."""
        app = self._apps.get(request.path_params["app"])
        request.on_response = self._gateway.figures_of("" if app is None else app.id, "own").count_request
        try:
            known = self._known(app, request)
            self._rates.take(known)
            self._gateway.bodies.enter_server(known.id, request)
        except rawws.HttpError as error:
            return answer_error(error)
        return None

    async def _answer(self, endpoint: ServerEndpoint, request: rawws.HttpRequest) -> rawws.Response:
        """Answer a request, if it is one of a server of the app."""
        try:
            # Again: while the body came, the app may have gone from the file.
            known = self._known(self._apps.get(request.path_params["app"]), request)
            self._secrets.check_body(request)
            async with asyncio.timeout(PATIENCE):
                body = await self._done(known, endpoint, request)
        except (CursorError, EnvelopeError) as error:
            return answer_problem(400, "cursor" if isinstance(error, CursorError) else error.code, str(error))
        except rawws.TopicError as error:
            return answer_problem(error.status, error.code, error.reason, *error.headers)
        except rawws.HttpError as error:
            return answer_error(error)
        except (TimeoutError, RegistryAway):
            return answer_problem(503, "unavailable", "other instances cannot be reached at this time", LATER)
        return rawws.Response(200, body.encode(), [FRESH], "application/json")

    async def _done(self, app: AppConfig, endpoint: ServerEndpoint, request: rawws.HttpRequest) -> str:
        """Return what is answered; to a POST with an Idempotency-Key what the first one with it was."""
        key = key_of_request(request) if request.method == "POST" else ""
        if not key:
            return await endpoint(app, request)
        return await self._kept.answer(app.id, key, digest_of(request), partial(endpoint, app, request))

    def _known(self, app: AppConfig | None, request: rawws.HttpRequest) -> AppConfig:
        """Return the app whose server asks. Raises HttpError."""
        known = self._secrets.check(app, request)
        if self._check is not None:
            self._check(known)
        return known


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
