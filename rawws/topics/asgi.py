"""Topics in ASGI: one application for all that clients reach a hub by, to be mounted in another.

Laws:
1. Who asks is judged here as on a server of ours: by `origins`, then by `authorize`.
2. Where a WebSocket of ours is below, the hub has that one; else it does the same over ASGI.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, final

from rawws.errors import ConnectionClosed, HttpError
from rawws.http.asgi import answer_asgi, head_of_scope, scheme_of_scope
from rawws.http.cors import CrossOrigin, preflight_fields
from rawws.http.requests import HttpRequest
from rawws.http.responses import Response
from rawws.protocol.handshake import check_origin

from .asgi_socket import AsgiSocket, native_socket
from .envelope import SUBPROTOCOL
from .rawws_v1 import serve_client
from .rawws_v1_http import answer_get, answer_post
from .script import script

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from rawws.http.asgi import AsgiReceive, AsgiScope, AsgiSend
    from rawws.net.websocket import WebSocket
    from rawws.protocol.handshake import Origins

    from .core import HubCore

__all__ = ["HubApplication", "scope_of"]

METHODS = "GET, HEAD, OPTIONS, POST"
ROOM = 8192


@final
class HubApplication:
    """An ASGI application of a hub: `hub.asgi()` returns one, and explains the options."""

    def __init__(self, hub: HubCore, origins: Origins) -> None:
        self.hub = hub
        self.origins = origins
        self._cross_origin = CrossOrigin(origins)
        # Base64 makes four of three, and JSON may make two of one.
        self._max_size = 2 * hub.max_size + ROOM

    async def __call__(self, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        """Answer what an ASGI server brings."""
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._accept(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            raise ValueError(f"the scope is of type {scope['type']!r}, allowed are http, websocket and lifespan")

    async def _answer(self, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        """Answer a request."""
        fields: tuple[tuple[str, str], ...] = ()
        endpoint: Callable[[HttpRequest], Any]
        try:
            fields = self._cross_origin.fields(head_of_scope(scope), scheme_of_scope(scope))
            endpoint = self._endpoint_for(scope["method"], scope["path"])
        except HttpError as error:
            refused = error

            def endpoint(_: HttpRequest) -> None:
                raise refused

        size = self._max_size if scope["method"] == "POST" else None
        await answer_asgi(scope, receive, send, endpoint, fields=fields, max_size=size)

    def _endpoint_for(self, method: str, path: str) -> Callable[[HttpRequest], Any]:
        """Return what answers a method. Raises HttpError with 405."""
        if method == "OPTIONS":
            return lambda asked: Response(204, headers=[("Allow", METHODS), *preflight_fields(asked.headers, METHODS)])
        if method in {"GET", "HEAD"}:
            # Where this is mounted, only those know who did it.
            return script if path.endswith("/rawws.js") else lambda asked: answer_get(self.hub, asked)
        if method == "POST":
            return lambda asked: answer_post(self.hub, asked)
        raise HttpError(405, f"the method is {method[:64]}, allowed are {METHODS}", (("Allow", METHODS),))

    async def _accept(self, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        """Do the opening handshake, and what a client asks for until it is gone."""
        await receive()
        try:
            head = head_of_scope(scope)
            check_origin(head, self.origins, scheme_of_scope(scope), head.headers.get("Host") or "")
        except HttpError:
            # Before it is accepted, that is a 403.
            await send({"type": "websocket.close", "code": 1008, "reason": ""})
            return
        chosen = SUBPROTOCOL if SUBPROTOCOL in scope.get("subprotocols", ()) else None
        await send({"type": "websocket.accept", "subprotocol": chosen, "headers": []})
        native = native_socket(scope)
        if native is not None:
            native.state.scope = scope
            try:
                await serve_client(self.hub, native)
            except ConnectionClosed:
                return
            finally:
                # Each has the other.
                del native.state.scope
        else:
            ws = AsgiSocket(scope, receive, send, subprotocol=chosen, max_size=self._max_size)
            try:
                await serve_client(self.hub, ws)
                # What was said last is still to go out.
                async for _ in ws:
                    pass
            except ConnectionClosed:
                return
            except Exception:
                # Some servers would end the connection without a word.
                with contextlib.suppress(Exception):
                    await send({"type": "websocket.close", "code": 1011, "reason": "internal error"})
                raise
            finally:
                ws.lose()

    async def _live(self, receive: AsgiReceive, send: AsgiSend) -> None:
        """Begin and end with the server, where this is the whole application."""
        await receive()
        self.hub.enter()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.hub.close()
        await send({"type": "lifespan.shutdown.complete"})


def scope_of(client: WebSocket | AsgiSocket | HttpRequest) -> MutableMapping[str, Any]:
    """Return the ASGI scope of a client, as `authorize` gets it: its session, its user. Empty where there is none."""
    if isinstance(client, (AsgiSocket, HttpRequest)):
        return client.scope if client.scope is not None else {}
    found: MutableMapping[str, Any] = getattr(client.state, "scope", {})
    return found
