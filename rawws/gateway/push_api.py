"""Push API: what the servers of an app say of devices, and whom they have notified (docs/run/push.md).

Laws:
1. Nothing is done for who is no server of the app (servers.py).
2. A token, an endpoint and a key go in, and never out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, final

import rawws
from rawws.integrations.push import PushDevice
from rawws.topics.payloads import serialize

from .control import RegistryAway
from .push_devices import DevicesAway
from .push_messages import notification_of
from .pusher_rules import MAX_USER_ID, is_name
from .servers import FRESH, LATER, AppSecrets, RequestRates, answer_error, answer_problem
from .v1_requests import V1Error, digest_of, fields_in, key_of_request

if TYPE_CHECKING:
    from rawws.integrations.push import PushMessage

    from .config import AppConfig, GatewayConfig
    from .idempotency import KeptAnswers
    from .model import Gateway
    from .push_devices import DeviceStore

__all__ = ["MOST_USERS", "PushApi", "PushTarget"]

BASE: Final = "/v1/apps/{app}"
# Of one request.
MOST_USERS: Final = 1000
HOUR: Final = 3600.0

PushEndpoint: TypeAlias = Callable[["AppConfig", rawws.HttpRequest], Coroutine[Any, Any, Any]]


class PushTarget(Protocol):
    """What pushes."""

    @property
    def devices(self) -> DeviceStore:
        """What keeps the devices."""

    def check(self, app: str, device: PushDevice) -> None:
        """Raise ValueError for a device that cannot be pushed to."""

    def refusal(self, app: str, count: int) -> str:
        """Return why there is no room for so many users, "" where there is."""

    def notify(self, app: str, user: str, message: PushMessage, *, after: float | None = None) -> bool:
        """Push to the devices of a user; tell whether there is room."""


@final
class PushApi:
    """The endpoints, for all apps."""

    def __init__(self, gateway: Gateway, target: PushTarget, kept: KeptAnswers) -> None:
        self._gateway = gateway
        self._target = target
        self._kept = kept
        self._secrets, self._rates = AppSecrets(), RequestRates()
        self._load(gateway.config)
        gateway.on_reload.append(self._load)

    def _load(self, config: GatewayConfig) -> None:
        self._secrets.load(config.apps)

    def routes(self) -> list[rawws.Route]:
        """Return what is answered."""
        asked: dict[str, PushEndpoint] = {
            "PUT /devices/{device}": self._put,
            "GET /devices/{device}": self._get,
            "DELETE /devices/{device}": self._delete,
            "GET /users/{user}/devices": self._of_user,
            "POST /push": self._push,
        }
        split = [(*name.partition(" ")[::2], endpoint) for name, endpoint in asked.items()]
        return [
            rawws.Route(BASE + path, partial(self._answer, endpoint), [method], check=self._refusal)
            for method, path, endpoint in split
        ]

    # -- who asks

    async def _answer(self, endpoint: PushEndpoint, request: rawws.HttpRequest) -> rawws.Response:
        """Answer a request, if it is one of a server of the app."""
        app = self._gateway.config.app(request.path_params["app"])
        response = await self._attempt(app, endpoint, request)
        self._count(app, response)
        return response

    def _refusal(self, request: rawws.HttpRequest) -> rawws.Response | None:
        """Refuse a request that is none of a server of the app, or comes too early, before its body is read."""
        app = self._gateway.config.app(request.path_params["app"])
        try:
            self._rates.take(self._check(app, request))
        except rawws.HttpError as error:
            response = answer_error(error)
            self._count(app, response)
            return response
        return None

    def _count(self, app: AppConfig | None, response: rawws.Response) -> None:
        self._gateway.figures_of("" if app is None else app.id, "own").requests[response.status] += 1

    async def _attempt(
        self, app: AppConfig | None, endpoint: PushEndpoint, request: rawws.HttpRequest
    ) -> rawws.Response:
        try:
            # Again: while the body came, the app may have gone from the file.
            known = self._check(app, request)
            self._secrets.check_body(request)
            body = await self._found(endpoint, known, request)
        except rawws.HttpError as error:
            return answer_error(error)
        except DevicesAway as error:
            return answer_problem(503, "unavailable", str(error), LATER)
        except RegistryAway:
            return answer_problem(503, "unavailable", "other instances cannot be reached at this time", LATER)
        return rawws.Response(200, body.encode(), [FRESH], "application/json")

    async def _found(self, endpoint: PushEndpoint, app: AppConfig, request: rawws.HttpRequest) -> str:
        """Return what is answered; to a POST with an Idempotency-Key what the first one with it was."""

        async def work() -> str:
            return serialize(await endpoint(app, request))

        key = key_of_request(request) if request.method == "POST" else ""
        return await (self._kept.answer(app.id, key, digest_of(request), work) if key else work())

    def _check(self, app: AppConfig | None, request: rawws.HttpRequest) -> AppConfig:
        """Return the app whose server asks. Raises HttpError."""
        known = self._secrets.check(app, request)
        if known.push is None:
            raise V1Error(409, "push", "push is not configured for the app")
        return known

    # -- what is asked

    async def _put(self, app: AppConfig, request: rawws.HttpRequest) -> dict[str, Any]:
        """Keep a device of a user."""
        fields = fields_in(request, "service", "token", "user", "keys")
        try:
            device = PushDevice.of({**fields, "id": request.path_params["device"], "since": time.time()})
            self._target.check(app.id, device)
        except ValueError as error:
            raise rawws.HttpError(400, str(error)) from None
        check_user(device.user)
        await self._target.devices.put(app.id, device)
        return shown(device)

    async def _get(self, app: AppConfig, request: rawws.HttpRequest) -> dict[str, Any]:
        """Tell of a device."""
        device = await self._target.devices.get(app.id, request.path_params["device"])
        if device is None:
            raise rawws.HttpError(404, "there is no such device")
        return shown(device)

    async def _delete(self, app: AppConfig, request: rawws.HttpRequest) -> dict[str, Any]:
        """Forget a device."""
        return {"deleted": await self._target.devices.remove(app.id, request.path_params["device"])}

    async def _of_user(self, app: AppConfig, request: rawws.HttpRequest) -> dict[str, Any]:
        """List the devices of a user."""
        found = await self._target.devices.of_user(app.id, request.path_params["user"])
        return {"devices": [shown(device) for device in found]}

    async def _push(self, app: AppConfig, request: rawws.HttpRequest) -> dict[str, Any]:
        """Notify users: those who are connected nowhere, or all."""
        fields = fields_in(request, "users", "notification", "unless", "after")
        users, unless, after = fields.get("users"), fields.get("unless", "connected"), fields.get("after")
        if not isinstance(users, list) or not 0 < len(users) <= MOST_USERS:
            raise rawws.HttpError(400, f"users is no list of 1 to {MOST_USERS}")
        for user in users:
            check_user(user)
        if not isinstance(unless, str) or unless not in {"connected", "never"}:
            raise rawws.HttpError(400, f"unless is {str(unless)[:64]!r}, allowed are connected, never")
        if after is not None and not (type(after) in {int, float} and 0 <= after <= HOUR):
            raise rawws.HttpError(400, f"after is {str(after)[:64]!r}, allowed are 0 to {HOUR:g} seconds")
        try:
            message = notification_of(fields.get("notification"))
        except (TypeError, ValueError) as error:
            raise rawws.HttpError(400, str(error)) from None
        after, users = after if unless == "connected" else -1, list(dict.fromkeys(users))
        refusal = self._target.refusal(app.id, len(users))
        if refusal:
            # None of them: who is asked to try again would notify some twice.
            raise rawws.HttpError(429, refusal, (LATER,))
        return {"users": sum([self._target.notify(app.id, user, message, after=after) for user in users])}


def check_user(user: object) -> None:
    """Raise HttpError(400) for what is no name of a user."""
    if not is_name(user, MAX_USER_ID):
        raise rawws.HttpError(400, f"the user is no text of 1 to {MAX_USER_ID} characters")


def shown(device: PushDevice) -> dict[str, Any]:
    """Return what is told of a device."""
    return {"id": device.id, "service": device.service, "user": device.user, "since": device.since}
