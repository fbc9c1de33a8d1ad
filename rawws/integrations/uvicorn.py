"""uvicorn: its `--ws` option to connections of ours (ASGI 3, WebSocket specification 2.5).

    uvicorn --ws rawws.integrations.uvicorn:WebSocketProtocol app:app

uvicorn reads the request of the opening handshake and hands the TCP connection over; the rest is done here: the
handshake as the application decides, its `receive` and `send`, and the end.

Laws:
1. The application hears of every end: one `websocket.disconnect`, with the code and the reason.
2. The peer hears of every end: a Close frame, 1000 where the application returned, 1011 where it raised.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, final
from urllib.parse import unquote
from weakref import WeakKeyDictionary

from rawws.errors import ConnectionClosed, HandshakeError, LocalProtocolError
from rawws.keepalive import Keepalive
from rawws.protocol.connection import Connection, Role
from rawws.protocol.deflate import Compression, Deflater, PerMessageDeflate
from rawws.protocol.extensions import parse_tokens
from rawws.protocol.handshake import accept, check_upgrade, refusal
from rawws.protocol.http11 import Headers, HeadReader, Request, Response, parse_request, serialize_fields
from rawws.protocol.http11 import serialize_response as serialize
from rawws.websocket import Settings, WebSocket

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["WebSocketProtocol"]

# What a denial response may have for a body, in bytes: it is held until it is complete.
BODY_SIZE = 1 << 20
# Seconds that the last bytes of a refusal may wait for the peer to read them.
LINGER = 2.0


def WebSocketProtocol(  # noqa: N802 - uvicorn takes it for the class of a protocol
    config: Any, server_state: Any, app_state: dict[str, Any], _loop: asyncio.AbstractEventLoop | None = None
) -> WebSocket:
    """Return the protocol of a new connection, for uvicorn to call `connection_made` and `data_received` of."""
    if not config.loaded:
        config.load()
    gateway = GATEWAYS.get(server_state)
    if gateway is None:
        gateway = GATEWAYS[server_state] = Gateway(config, server_state, _loop or asyncio.get_running_loop())
    return WebSocket(gateway.settings, Session(gateway, app_state))


@final
class Gateway:
    """What all connections of one uvicorn server share."""

    __slots__ = ("compression", "config", "deflaters", "keepalive", "logger", "max_size", "settings", "state")

    def __init__(self, config: Any, server_state: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.config = config
        self.state = server_state
        self.logger = logging.getLogger("uvicorn.error")
        self.settings = settings = Settings(loop, self.logger)
        settings.ping_interval = config.ws_ping_interval or 0.0
        settings.ping_timeout = config.ws_ping_timeout or 0.0
        self.keepalive = Keepalive(settings)
        self.compression = Compression() if config.ws_per_message_deflate else None
        self.max_size: int = config.ws_max_size
        self.deflaters: dict[tuple[int, int, int], Deflater] = {}

    def full(self) -> bool:
        """Tell whether `--limit-concurrency` is reached: it counts WebSockets, too."""
        limit = self.config.limit_concurrency
        return limit is not None and (len(self.state.connections) >= limit or len(self.state.tasks) >= limit)


GATEWAYS: WeakKeyDictionary[Any, Gateway] = WeakKeyDictionary()


@final
class Session:
    """One connection: the opening handshake while it is not done, and the application's side of it all the time."""

    __slots__ = (
        "accepted",
        "app_state",
        "connected",
        "denial",
        "disconnected",
        "gateway",
        "key",
        "over",
        "reader",
        "request",
        "scope",
        "waiting",
        "ws",
    )

    def __init__(self, gateway: Gateway, app_state: dict[str, Any]) -> None:
        self.gateway = gateway
        self.app_state = app_state
        self.ws: WebSocket = None  # type: ignore[assignment]  # from `begin` on
        self.reader = HeadReader()
        self.request: Request = None  # type: ignore[assignment]  # from `receive` on
        self.key = ""
        self.scope: dict[str, Any] = {}
        # `connected`: the application got its first event. `accepted`: there is a WebSocket. `over`: the application
        # said so, or there was an answer that is no WebSocket.
        self.connected = False
        self.accepted = False
        self.over = False
        self.denial: Denial | None = None
        self.disconnected: tuple[int, str] | None = None
        self.waiting: asyncio.Future[None] | None = None

    # -- what the connection calls before it is a WebSocket

    def begin(self, ws: WebSocket) -> None:
        """Begin with a connection that uvicorn hands over."""
        self.ws = ws
        self.gateway.settings.connections.add(ws)
        self.gateway.keepalive.start()

    def receive(self, data: bytes) -> None:
        """Take the request, which comes whole."""
        if self.scope or self.over:
            # Nothing may come before the handshake is done.
            self.ws.abort()
            return
        gateway = self.gateway
        try:
            if not self.reader.receive(data):
                return
            self.request = parse_request(self.reader.head)
            if gateway.full():
                raise HandshakeError(503, "the server has as many connections as it takes", (("Retry-After", "1"),))
            self.key = check_upgrade(self.request)
            subprotocols = parse_tokens(
                self.request.headers.get_all("Sec-WebSocket-Protocol"), "Sec-WebSocket-Protocol"
            )
        except HandshakeError as error:
            self.respond(refusal(error))
            return
        self.ws.request_head = self.reader.head
        self.ws.pause_reading()
        self.scope = self.describe(subprotocols)
        gateway.state.connections.add(self)
        task = gateway.settings.loop.create_task(self.run())
        gateway.state.tasks.add(task)
        task.add_done_callback(gateway.state.tasks.discard)

    def receive_eof(self) -> None:
        """Take note that the peer sends nothing more."""

    def lose(self) -> None:
        """Take note that the connection is gone, before it was a WebSocket."""
        self.gateway.state.connections.discard(self)
        self.end(1006)

    def expire(self) -> None:
        """End a connection whose peer does not read its refusal."""
        self.ws.abort()

    def drained(self) -> None:
        """Take note that more may be written: those who wait for it are woken by the connection itself."""

    def lost(self) -> None:
        """Take note that the WebSocket is gone."""
        self.gateway.state.connections.discard(self)

    # -- what uvicorn calls

    def shutdown(self) -> None:
        """End with the server: 1012 to a WebSocket, 500 to one that the application has not accepted yet."""
        if self.accepted:
            if not self.over:
                self.ws.close(1012)
        else:
            self.end(1006)
            self.respond(refusal(HandshakeError(500, "the server is shutting down")))

    # -- the application

    def describe(self, subprotocols: list[str]) -> dict[str, Any]:
        """Return the scope of the connection."""
        config, ws, request = self.gateway.config, self.ws, self.request
        raw_path, _, query = request.path.partition("?")
        client, server = ws.remote_address, ws.local_address
        return {
            "type": "websocket",
            "asgi": {"version": config.asgi_version, "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if ws.extra("sslcontext") is not None else "ws",
            # That of a unix socket is no address of a client.
            "client": (client[0], client[1]) if isinstance(client, tuple) else None,
            "server": (server[0], server[1]) if isinstance(server, tuple) else (server, None) if server else None,
            "root_path": config.root_path,
            "path": config.root_path + unquote(raw_path),
            "raw_path": (config.root_path + raw_path).encode("ascii"),
            "query_string": query.encode("ascii"),
            "headers": [
                (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in request.headers.raw_items()
            ],
            "subprotocols": subprotocols,
            "state": self.app_state.copy(),
            "extensions": {"websocket.http.response": {}},
        }

    async def run(self) -> None:
        """Run the application, and see to it that the connection ends with it."""
        logger = self.gateway.logger
        try:
            result = await self.gateway.config.loaded_app(self.scope, self.next_event, self.send)
        except Exception as error:
            # The end of the connection was no fault of an application that did not expect it.
            if not (isinstance(error, OSError) and self.gone()):
                logger.exception("Exception in ASGI application")
            self.finish(1011, 500)
        else:
            if not self.accepted and not self.over and self.disconnected is None:
                logger.error("ASGI callable returned without completing handshake.")
            elif result is not None:
                logger.error("ASGI callable should return None, but returned '%s'.", result)
            self.finish(1000, 500)

    def finish(self, code: int, status: int) -> None:
        """End the connection of an application that is done."""
        if self.accepted:
            self.ws.close(code)
        elif not self.over:
            self.respond(refusal(HandshakeError(status, "the application failed")))

    def gone(self) -> bool:
        """Tell whether there is nobody to send to."""
        return self.ws.lost or (self.accepted and self.ws.connection.phase != 0)

    # -- `receive` of ASGI

    async def next_event(self) -> dict[str, Any]:
        """Return the next event."""
        if self.accepted:
            try:
                message = await self.ws.recv()
            except ConnectionClosed as closed:
                if self.disconnected is None:
                    # Where this side failed the connection, the application hears why.
                    close = closed.rcvd or closed.sent
                    self.disconnected = (closed.code, "") if close is None else (close.code, close.reason)
                return self.disconnect()
            if isinstance(message, str):
                return {"type": "websocket.receive", "text": message}
            return {"type": "websocket.receive", "bytes": message}
        if not self.connected:
            self.connected = True
            return {"type": "websocket.connect"}
        while self.disconnected is None and not self.accepted:
            self.waiting = self.gateway.settings.loop.create_future()
            await self.waiting
        return await self.next_event() if self.accepted else self.disconnect()

    def disconnect(self) -> dict[str, Any]:
        """Return the last event."""
        code, reason = self.disconnected or (1006, "")
        return {"type": "websocket.disconnect", "code": code, "reason": reason}

    def end(self, code: int) -> None:
        """Let the application know that there will be no WebSocket."""
        if self.disconnected is None:
            self.disconnected = (code, "")
        self.wake()

    def wake(self) -> None:
        """Let the application look for its next event."""
        waiting, self.waiting = self.waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    # -- `send` of ASGI

    async def send(self, event: dict[str, Any]) -> None:
        """Do what the application says."""
        kind = event["type"]
        if self.accepted and kind == "websocket.send" and not self.over:
            data = event.get("bytes")
            if data is None:
                data = event.get("text")
                if data is None:
                    raise RuntimeError("websocket.send has neither bytes nor text, needed is one of them")
            try:
                await self.ws.send(data)
            except ConnectionClosed:
                raise gone() from None
        elif self.over:
            raise RuntimeError(f"Unexpected ASGI message '{kind}', after sending 'websocket.close'.")
        elif self.accepted:
            if kind != "websocket.close":
                allowed = "'websocket.send' or 'websocket.close'"
                raise RuntimeError(f"Expected ASGI message {allowed}, but got '{kind}'.")
            code, reason = event.get("code", 1000), event.get("reason") or ""
            if self.gone():
                raise gone()
            self.ws.close(code, reason)
            self.over, self.disconnected = True, (code, reason)
        elif self.ws.lost:
            raise gone()
        elif self.denial is not None:
            self.deny(event)
        elif kind == "websocket.accept":
            self.accept(event)
        elif kind == "websocket.close":
            self.log("403")
            self.end(1006)
            self.respond(refusal(HandshakeError(403, "the application refused the connection")))
        elif kind == "websocket.http.response.start":
            self.log(str(event["status"]))
            self.denial = Denial(event["status"], event.get("headers", ()))
        else:
            allowed = "'websocket.accept', 'websocket.close' or 'websocket.http.response.start'"
            raise RuntimeError(f"Expected ASGI message {allowed} but got '{kind}'.")

    def accept(self, event: dict[str, Any]) -> None:
        """Answer the handshake with 101."""
        gateway, ws, subprotocol = self.gateway, self.ws, event.get("subprotocol")
        accepted = accept(
            self.request, self.key, select_subprotocol=lambda _: subprotocol, compression=gateway.compression
        )
        fields = text([*gateway.state.default_headers, *event.get("headers", ())])
        for name, _ in fields:
            if name.lower() in {"sec-websocket-accept", "sec-websocket-extensions", "sec-websocket-protocol"}:
                raise LocalProtocolError(f"the header {name} cannot be added, it is the handshake's own")
        head = accepted.serialize(serialize_fields(fields))
        deflate = None
        if accepted.parameters is not None and gateway.compression is not None:
            deflate = PerMessageDeflate(accepted.parameters, True, gateway.compression, gateway.deflaters)
        self.log("[accepted]")
        ws.subprotocol = accepted.subprotocol
        ws.write([head])
        ws.open(Connection(Role.SERVER, gateway.max_size, deflate, gateway.settings.shared.writers))
        ws.follow(self)
        self.accepted = True
        ws.resume_reading()
        self.wake()

    def deny(self, event: dict[str, Any]) -> None:
        """Gather the response of an application that refuses the handshake with one of its own."""
        denial, kind = self.denial, event["type"]
        if denial is None or kind != "websocket.http.response.body":
            raise RuntimeError(f"Expected ASGI message 'websocket.http.response.body' but got '{kind}'.")
        denial.body += event.get("body", b"")
        if len(denial.body) > BODY_SIZE:
            raise LocalProtocolError(f"the body of a denial response is over {BODY_SIZE} bytes, the limit")
        if not event.get("more_body", False):
            self.end(1006)
            self.respond(denial.response())

    def respond(self, response: Response) -> None:
        """Answer with a response that is no WebSocket, and end the connection once the peer has it."""
        ws = self.ws
        self.gateway.state.connections.discard(self)
        if self.over or ws.lost:
            return
        self.over = True
        if "Connection" not in response.headers:
            response.headers["Connection"] = "close"
        ws.write([serialize(response)])
        ws.set_deadline(LINGER)
        ws.resume_reading()
        if not ws.end_writing():
            ws.transport.close()

    def log(self, outcome: str) -> None:
        """Log what became of the handshake, as uvicorn does."""
        client = self.scope["client"]
        where = f"{client[0]}:{client[1]}" if client else ""
        path = self.request.path
        self.gateway.logger.info('%s - "WebSocket %s" %s', where, path, outcome)


@final
class Denial:
    """The response of an application that refuses a handshake, as far as it came."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: Any, headers: Iterable[tuple[bytes, bytes]]) -> None:
        if not isinstance(status, int) or not 200 <= status <= 599:
            raise RuntimeError(f"Invalid HTTP status code '{status}' in response.")
        self.status = status
        self.headers = Headers(text(headers))
        self.body = b""

    def response(self) -> Response:
        """Return it as it is sent."""
        for name in ("Content-Length", "Transfer-Encoding"):
            self.headers.pop(name, None)
        return Response(self.status, self.headers, self.body)


def text(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    """Return headers of ASGI as they are written."""
    return [(bytes(name).decode("latin-1"), bytes(value).decode("latin-1")) for name, value in headers]


def gone() -> OSError:
    """Return what `send` raises when there is nobody to send to (ASGI: an OSError, uvicorn's own where it has one)."""
    from uvicorn.protocols.utils import ClientDisconnected  # noqa: PLC0415 - where this runs, there is a uvicorn

    return ClientDisconnected()
