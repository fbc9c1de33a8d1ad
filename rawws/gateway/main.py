"""Main: a configuration to a gateway with all its faces, and what `rawws.serve` is told of it."""

from __future__ import annotations

import inspect
import logging
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import rawws
from rawws.net.logs import printable, request_line, shown_address

from .aws import AwsFace
from .bodies import MAX_BODIES, MAX_BODY
from .hook_dispatch import HookDispatch
from .idempotency import KeptAnswers
from .model import Gateway, GatewayConnection
from .own import OwnFace
from .push_face import PushFace
from .pusher import PusherFace
from .v1 import V1Api

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from .config import ApiConfig, GatewayConfig
    from .model import Admission, Face

__all__ = [
    "face_routes",
    "gateway_options",
    "hook_actions",
    "new_gateway",
    "open_timeout_of",
    "server_api_options",
    "server_api_routes",
    "subscriber_of",
]

logger = logging.getLogger("rawws.gateway")

# Of a handshake, beside what backends are waited for in it, in seconds.
OPEN_TIMEOUT: Final = 10.0


def new_gateway(config: GatewayConfig) -> Gateway:
    """Make a gateway; before workers are forked, so that their hubs are joined. `async with` it where it serves."""
    gateway = Gateway(config)
    # The last to begin is the first to end: what clients did until then is told.
    pusher = PusherFace(gateway)
    own = OwnFace(gateway)
    kept = KeptAnswers(gateway.registry, gateway.answers)
    gateway.faces += [HookDispatch(gateway), PushFace(gateway, kept), pusher, own]
    gateway.faces += [V1Api(gateway, pusher.users, kept), AwsFace(gateway)]
    return gateway


def hook_actions(gateway: Gateway) -> dict[str, Callable[..., Any]]:
    """Return what whoever looks into an instance may ask of its hooks, by the names of `rawws.admin`."""
    [hooks] = [face for face in gateway.faces if isinstance(face, HookDispatch)]
    return {"retry_hook": hooks.retry, "hook_deliveries": hooks.deliveries, "test_hook": hooks.test}


def subscriber_of(ws: rawws.WebSocket) -> GatewayConnection | None:
    """Return what hubs know of a client, and who that is, as soon as its handshake is done."""
    connection = ws.state
    return connection if isinstance(connection, GatewayConnection) else None


def face_routes(gateway: Gateway) -> rawws.Routes:
    """Return what is answered at the port of clients: what servers ask for, too, where that has no port of its own."""
    if gateway.config.api_listen:
        return routes_of(gateway, lambda face: face.routes())
    return routes_of(gateway, lambda face: chain(face.routes(), face.server_routes()))


def server_api_routes(gateway: Gateway) -> rawws.Routes:
    """Return what is answered at the port of servers."""
    return routes_of(gateway, lambda face: face.server_routes())


def routes_of(gateway: Gateway, part: Callable[[Face], Iterable[rawws.Route]]) -> rawws.Routes:
    """Return a part of what all faces answer; what a reload brings is added."""
    routes = rawws.Routes()
    known: set[tuple[str, bool, tuple[str, ...]]] = set()

    def add_new(_: GatewayConfig) -> None:
        for face in gateway.faces:
            for route in part(face):
                key = route.path, route.websocket, tuple(route.methods)
                if key not in known:
                    known.add(key)
                    routes.add(route)

    add_new(gateway.config)
    gateway.on_reload.append(add_new)
    return routes


def gateway_options(gateway: Gateway) -> dict[str, Any]:
    """Return what `rawws.serve` is told beside where it listens."""
    config = gateway.config

    def admit(ws: rawws.WebSocket, request: rawws.Request) -> Admission | Awaitable[Admission]:
        if request.headers.get("Upgrade") is None:
            return None
        for number, face in enumerate(gateway.faces):
            found = face.admit(ws, request)
            if inspect.isawaitable(found):
                return ask_later(found, gateway.faces[number + 1 :], ws, request)
            if found is not None:
                return logged(found, ws, request)
        return None

    def choose(ws: rawws.WebSocket, offered: list[str]) -> str | None:
        return next((found for face in gateway.faces if (found := face.subprotocol(ws, offered)) is not None), None)

    return {
        # The faces look at origins: each app has its own.
        "origins": "*",
        "process_request": admit,
        "select_subprotocol": choose,
        "open_timeout": open_timeout_of(config),
        "max_size": MAX_BODY,
        "max_body_memory": MAX_BODIES,
        "message_rate": config.message_rate or None,
        "trusted_proxies": config.trusted_proxies,
        "engine": config.engine,
        "drain": rawws.Drain(code=code_at_drain),
        # The faces know a client by its Upgrade, which a WebSocket over HTTP/2 has not (RFC 8441).
        "http2": False,
    }


def server_api_options(gateway: Gateway) -> dict[str, Any]:
    """Return what `rawws.serve` is told of the port of servers, beside where that is."""
    config = gateway.config
    return {
        "max_size": MAX_BODY,
        "max_body_memory": MAX_BODIES,
        "trusted_proxies": config.trusted_proxies,
        "engine": config.engine,
        "http2": False,
    }


def code_at_drain(ws: rawws.WebSocket) -> int:
    """Return the close code by which a client comes back."""
    return (subscriber_of(ws) or GatewayConnection).drain_code


def open_timeout_of(config: GatewayConfig) -> float:
    """Return how long a handshake may take in all, in seconds: it does not change while a server serves."""
    return OPEN_TIMEOUT + max([0.0, *map(longest_handshake, config.apis)])


def longest_handshake(api: ApiConfig) -> float:
    """Return how long the authorizer and the backend of an API may take to let a client in, in seconds."""
    connect = api.route("$connect")
    return (api.authorizer.timeout if api.authorizer else 0.0) + (connect.timeout if connect else 0.0)


async def ask_later(
    found: Awaitable[Admission], others: list[Face], ws: rawws.WebSocket, request: rawws.Request
) -> Admission:
    """Wait for what a face says of an opening handshake; then ask the others."""
    answer = await found
    for face in others:
        if answer is None:
            later = face.admit(ws, request)
            answer = await later if inspect.isawaitable(later) else later
    return logged(answer, ws, request)


def logged(answer: Admission, ws: rawws.WebSocket, request: rawws.Request) -> Admission:
    """Log what refuses an opening handshake: a page cannot read it, so only here it is found."""
    if answer is not None:
        told = "%s %s refused with %d: %s"
        said = printable(answer.body.decode("utf-8", "replace").rstrip())
        logger.info(told, shown_address(ws.remote_address), request_line(request), answer.status, said)
    return answer
