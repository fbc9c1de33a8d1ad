"""`@connections`: what backends do to clients by HTTP, as the SDKs of AWS ask for it (API version 2018-11-29).

`x-amzn-errortype` is what an SDK makes its exception of; boto3 and aws-sdk-js read it, and not the body.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, final

import rawws
from rawws.protocol.http11 import content_length

from .aws_events import new_request_id
from .pusher_rules import announces_body
from .sigv4 import AwsCredential, SignatureError, check_signature
from .spelling import ConnectionId, iso_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .config import ApiConfig
    from .deliveries import Delivery
    from .model import Gateway

__all__ = ["ApiKeys", "ConnectionsApi"]

# "128 KB" for a message (API Gateway quotas), whoever sends it.
MAX_POST: Final = 128 * 1024
# What DeleteConnection closes with (seen with AWS by users of boto3).
CLOSED: Final = (1000, "Connection Closed Normally")
ERRORS: Final = {
    400: "BadRequestException",
    403: "ForbiddenException",
    410: "GoneException",
    413: "PayloadTooLargeException",
    429: "LimitExceededException",
    503: "ServiceUnavailableException",
}
REASONS: Final = {
    410: "the connection is gone, or was never given",
    413: f"the message is over {MAX_POST} bytes, the limit",
    429: "the client reads too slowly, nothing was sent",
    503: "the instance that has the connection cannot be reached now",
}


def aws_error(status: int, message: str) -> rawws.Response:
    """Return an answer of which SDKs make the exception of its status."""
    fields = {"x-amzn-errortype": ERRORS[status], "x-amzn-RequestId": new_request_id()}
    if status == 503:
        fields["Retry-After"] = "1"
    return rawws.Response.json({"message": message}, status, fields)


@final
class ApiKeys:
    """The keys that sign requests to some APIs: `owners` has for each the ids of the APIs that it is good for."""

    __slots__ = ("credentials", "owners")

    def __init__(self, apis: Iterable[ApiConfig]) -> None:
        # A key may be that of several APIs; the file has one secret for it.
        self.owners: dict[str, set[str]] = {}
        self.credentials: dict[str, AwsCredential] = {}
        for api in apis:
            for each in api.credentials:
                self.owners.setdefault(each.key, set()).add(api.id)
                self.credentials[each.key] = AwsCredential(each.secret)


@final
class ConnectionsApi:
    """The endpoint of `@connections`; `keys()` returns those of the configuration that holds now."""

    __slots__ = ("_gateway", "_keys")

    def __init__(self, gateway: Gateway, keys: Callable[[], ApiKeys]) -> None:
        self._gateway = gateway
        self._keys = keys

    async def __call__(self, request: rawws.HttpRequest) -> rawws.Response:
        """Answer a request of an SDK."""
        apis = self._signer(request, request.body)
        if isinstance(apis, SignatureError):
            self._count(request, set())
            return aws_error(403, str(apis))
        return await self._answer(request, apis)

    def check(self, request: rawws.HttpRequest) -> rawws.Response | None:
        """Refuse a request by its head, before its body is read."""
        apis = self._signer(request, None if announces_body(request) else b"")
        if isinstance(apis, SignatureError):
            self._count(request, set())
            return aws_error(403, str(apis))
        self._count(request, apis)
        if (content_length(request.headers) or 0) > MAX_POST:
            return aws_error(413, REASONS[413])
        # A key may be that of several: whoever has it has the room of the first.
        self._gateway.bodies.enter_server(min(apis), request)
        return None

    def _count(self, request: rawws.HttpRequest, apis: set[str]) -> None:
        # A key of several APIs does not say of which of them it asks.
        app = min(apis) if len(apis) == 1 else ""
        request.on_response = self._gateway.figures_of(app, "aws").count_request

    async def _answer(self, request: rawws.HttpRequest, apis: set[str]) -> rawws.Response:
        try:
            ident = ConnectionId.parse(request.path_params["connection"])
        except ValueError:
            return aws_error(400, "Invalid connectionId: it has not the form of those that were given")
        if request.method == "POST":
            return await self._post(ident, request, apis)
        if request.method == "DELETE":
            done = await self._gateway.close(ident, *CLOSED, apps=apis)
            return rawws.Response(204) if done.status == 200 else _failed(done)
        done = await self._gateway.get(ident, apps=apis)
        return _described(done) if done.status == 200 else _failed(done)

    def _signer(self, request: rawws.HttpRequest, body: bytes | None) -> set[str] | SignatureError:
        """Return the APIs whose key signed a request, or why none did."""
        keys = self._keys()
        try:
            key = check_signature(
                request.method,
                request.head.path,
                request.headers,
                body,
                keys.credentials,
                now=time.time(),
                secure=request.scheme == "https",
            )
        except SignatureError as error:
            return error
        return keys.owners[key]

    async def _post(self, ident: ConnectionId, request: rawws.HttpRequest, apis: set[str]) -> rawws.Response:
        """Send a message to a client, once for each call, however often an SDK tries."""
        if len(request.body) > MAX_POST:
            return aws_error(413, REASONS[413])
        try:
            message = request.body.decode()
        except UnicodeDecodeError:
            return aws_error(400, "the data is not UTF-8, and clients get text")
        # The same in each try of one call, so that it is done once.
        said = request.headers.get_all("amz-sdk-invocation-id")
        once = f"{ident.aws} {said[0][:128]}" if len(said) == 1 else ""
        done = await self._gateway.send(ident, message, once=once, apps=apis)
        return _sent() if done.status == 200 else _failed(done)


def _sent() -> rawws.Response:
    return rawws.Response(200, b"", {"x-amzn-RequestId": new_request_id()}, "application/json")


def _failed(done: Delivery) -> rawws.Response:
    return aws_error(done.status, REASONS[done.status])


def _described(done: Delivery) -> rawws.Response:
    """Return what is told of a connection."""
    info = done.info
    assert info is not None  # noqa: S101 - that of a status of 200
    told: dict[str, Any] = {
        "connectedAt": iso_time(info.connected_at),
        "identity": {"sourceIp": info.address, "userAgent": info.agent},
        "lastActiveAt": iso_time(info.active_at),
    }
    return rawws.Response.json(told, headers={"x-amzn-RequestId": new_request_id()})
