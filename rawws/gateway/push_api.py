"""Push API: what the servers of an app say of devices, and whom they have notified (docs/run/push.md).

Laws:
1. Nothing is done for who is no server of the app (servers.py).
2. A token, an endpoint and a key go in, and never out.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, final

import rawws
from rawws.integrations.push import PushDevice
from rawws.topics.payloads import serialize

from .push_devices import DevicesAway
from .push_messages import notification_of
from .pusher_rules import MAX_USER_ID, is_name
from .servers import LATER, ServerRequests
from .v1_requests import V1Error, fields_in

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from rawws.integrations.push import PushMessage

    from .config import AppConfig
    from .idempotency import KeptAnswers
    from .model import Gateway
    from .push_devices import DeviceStore

__all__ = ["MOST_USERS", "PushApi", "PushTarget"]

# Of one request.
MOST_USERS: Final = 1000
HOUR: Final = 3600.0

Kept = TypeVar("Kept")


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
        self._target = target
        self._requests = ServerRequests(gateway, kept, lambda config: config.apps, check_push)

    def routes(self) -> list[rawws.Route]:
        """Return what is answered."""
        return self._requests.routes(
            {
                "PUT /devices/{device}": self._put,
                "GET /devices/{device}": self._get,
                "DELETE /devices/{device}": self._delete,
                "GET /users/{user}/devices": self._of_user,
                "POST /push": self._push,
            }
        )

    # -- what is asked

    async def _put(self, app: AppConfig, request: rawws.HttpRequest) -> str:
        """Keep a device of a user."""
        fields = fields_in(request, "service", "token", "user", "keys")
        try:
            device = PushDevice.of({**fields, "id": request.path_params["device"], "since": time.time()})
            self._target.check(app.id, device)
        except ValueError as error:
            raise rawws.HttpError(400, str(error)) from None
        check_user(device.user)
        await reached(self._target.devices.put(app.id, device))
        return serialize(shown(device))

    async def _get(self, app: AppConfig, request: rawws.HttpRequest) -> str:
        """Tell of a device."""
        device = await reached(self._target.devices.get(app.id, request.path_params["device"]))
        if device is None:
            raise rawws.HttpError(404, "there is no such device")
        return serialize(shown(device))

    async def _delete(self, app: AppConfig, request: rawws.HttpRequest) -> str:
        """Forget a device."""
        deleted = await reached(self._target.devices.remove(app.id, request.path_params["device"]))
        return serialize({"deleted": deleted})

    async def _of_user(self, app: AppConfig, request: rawws.HttpRequest) -> str:
        """List the devices of a user."""
        found = await reached(self._target.devices.of_user(app.id, request.path_params["user"]))
        return serialize({"devices": [shown(device) for device in found]})

    async def _push(self, app: AppConfig, request: rawws.HttpRequest) -> str:
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
        notified = sum([self._target.notify(app.id, user, message, after=after) for user in users])
        return serialize({"users": notified})


def check_push(app: AppConfig) -> None:
    """Raise V1Error(409) for an app that has nothing to push by."""
    if app.push is None:
        raise V1Error(409, "push", "push is not configured for the app")


async def reached(asked: Awaitable[Kept]) -> Kept:
    """Return what the store of devices answers. Raises V1Error(503) where it is away."""
    try:
        return await asked
    except DevicesAway as error:
        raise V1Error(503, "unavailable", str(error), (LATER,)) from None


def check_user(user: object) -> None:
    """Raise HttpError(400) for what is no name of a user."""
    if not is_name(user, MAX_USER_ID):
        raise rawws.HttpError(400, f"the user is no text of 1 to {MAX_USER_ID} characters")


def shown(device: PushDevice) -> dict[str, Any]:
    """Return what is told of a device."""
    return {"id": device.id, "service": device.service, "user": device.user, "since": device.since}
