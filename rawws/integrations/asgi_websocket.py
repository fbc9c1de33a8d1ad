"""ASGI WebSockets: one WebSocket to the events of an ASGI application, and back (ASGI 3, WebSocket specification 2.5).

What brought the connection is a WebSocketAcceptor: uvicorn's `--ws`, or a server of ours. It does the handshake as it
is told here.

Laws:
1. The application hears of every end: one `websocket.disconnect`, with the code and the reason.
2. The peer hears of every end: a Close frame, 1000 where the application returned, 1011 where it raised.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol, final
from urllib.parse import unquote

from rawws.errors import ConnectionClosed, HandshakeError, HttpError, LocalProtocolError
from rawws.net.cancellation import is_cancelled
from rawws.net.logs import request_line
from rawws.protocol import phases
from rawws.protocol.extensions import parse_tokens
from rawws.protocol.http11 import Headers, HttpResponse, Request
from rawws.protocol.opcodes import CloseCode

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterable

    from rawws.http.exchange import ByteStream
    from rawws.net.websocket import WebSocket

__all__ = [
    "AsgiEvent",
    "WebSocketAcceptor",
    "WebSocketSession",
    "check_status",
    "describe",
    "describe_websocket",
    "text",
]

AsgiEvent = dict[str, Any]

# What a denial response may have for a body, in bytes: it is held until it is complete.
BODY_SIZE = 1 << 20
# The end of a connection whose peer sent no Close frame.
GONE = (int(CloseCode.ABNORMAL_CLOSURE), "")


class WebSocketAcceptor(Protocol):
    """What a connection came by, and what answers its opening handshake."""

    logger: logging.Logger

    def open(self, subprotocol: str | None, fields: Iterable[tuple[str, str]]) -> None:
        """Answer 101, with these header lines as well; from then on there is a WebSocket."""

    def respond(self, response: HttpResponse) -> None:
        """Answer with this, which is no WebSocket; nothing, where there was an answer."""

    def refuse(self, error: HttpError) -> None:
        """Answer with an error, and log it."""

    def gone(self) -> OSError:
        """Return what `send` raises when there is nobody to send to."""

    def note(self, outcome: str) -> None:
        """Log what became of the handshake."""


@final
class WebSocketSession:
    """What the application has of one connection: its `receive` and `send`, and the end."""

    __slots__ = (
        "accepted",
        "acceptor",
        "app",
        "connected",
        "denial",
        "disconnected",
        "loop",
        "over",
        "scope",
        "waiting",
        "ws",
    )

    def __init__(self, app: Any, scope: AsgiEvent, ws: WebSocket, acceptor: WebSocketAcceptor) -> None:
        self.app = app
        self.scope = scope
        # For a hub, which takes the WebSocket itself (rawws/topics/asgi_socket.py).
        scope["extensions"]["rawws.websocket"] = {"connection": ws}
        self.ws = ws
        self.acceptor = acceptor
        self.loop = ws.settings.loop
        # `connected`: the application got its first event. `accepted`: there is a WebSocket. `over`: the application
        # said so, or there was an answer that is no WebSocket.
        self.connected = False
        self.accepted = False
        self.over = False
        self.denial: Denial | None = None
        self.disconnected: tuple[int, str] | None = None
        self.waiting: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Run the application, and see to it that the connection ends with it."""
        logger, name = self.acceptor.logger, request_line(self.ws.request)
        try:
            result = await self.app(self.scope, self.receive, self.send)
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and is_cancelled():
                raise
            # The end of the connection was no fault of an application that did not expect it.
            if not (isinstance(error, (OSError, ConnectionClosed)) and self.gone()):
                logger.exception("Exception in ASGI application (%s)", name)
            self.finish(CloseCode.INTERNAL_ERROR)
        else:
            if not self.accepted and not self.over and self.disconnected is None:
                logger.error("ASGI callable returned without completing handshake. (%s)", name)
            elif result is not None:
                logger.error("ASGI callable should return None, but returned '%s'. (%s)", result, name)
            self.finish(CloseCode.NORMAL_CLOSURE)

    def finish(self, code: int) -> None:
        """End the connection of an application that is done."""
        if self.accepted:
            self.ws.close(code)
        else:
            self.refuse(HandshakeError(500, "the application failed"))

    def refuse(self, error: HttpError) -> None:
        """Answer a handshake with an error, and let the application know that there will be no WebSocket."""
        self.end()
        if not self.over:
            self.over = True
            self.acceptor.refuse(error)

    def respond(self, response: HttpResponse) -> None:
        """Answer a handshake with what is no WebSocket."""
        if not self.over:
            self.over = True
            self.acceptor.respond(response)

    def gone(self) -> bool:
        """Tell whether there is nobody to send to."""
        return self.ws.lost or (self.accepted and self.ws.connection.phase != phases.OPEN)

    # -- `receive` of ASGI

    async def receive(self) -> AsgiEvent:
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
            self.waiting = self.loop.create_future()
            await self.waiting
        return await self.receive() if self.accepted else self.disconnect()

    def disconnect(self) -> AsgiEvent:
        """Return the last event."""
        code, reason = self.disconnected or GONE
        return {"type": "websocket.disconnect", "code": code, "reason": reason}

    def end(self) -> None:
        """Let the application know that there will be no WebSocket."""
        if self.disconnected is None:
            self.disconnected = GONE
        self.wake()

    def wake(self) -> None:
        """Let the application look for its next event."""
        waiting, self.waiting = self.waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    # -- `send` of ASGI

    async def send(self, event: AsgiEvent) -> None:
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
                raise self.acceptor.gone() from None
        elif self.over:
            raise RuntimeError(f"Unexpected ASGI message '{kind}', after sending 'websocket.close'.")
        elif self.accepted:
            self.close(event)
        elif self.ws.lost:
            raise self.acceptor.gone()
        elif self.denial is not None:
            self.deny(self.denial, event)
        else:
            self.answer(event)

    def close(self, event: AsgiEvent) -> None:
        """Close the WebSocket."""
        if event["type"] != "websocket.close":
            allowed = "'websocket.send' or 'websocket.close'"
            raise RuntimeError(f"Expected ASGI message {allowed}, but got '{event['type']}'.")
        if self.gone():
            raise self.acceptor.gone()
        code, reason = event.get("code", int(CloseCode.NORMAL_CLOSURE)), event.get("reason") or ""
        self.ws.close(code, reason)
        self.over, self.disconnected = True, (code, reason)

    def answer(self, event: AsgiEvent) -> None:
        """Answer the handshake, or begin to."""
        kind = event["type"]
        if kind == "websocket.accept":
            self.acceptor.open(event.get("subprotocol"), text(event.get("headers", ())))
            self.accepted = True
            self.acceptor.note("[accepted]")
            self.wake()
        elif kind == "websocket.close":
            self.refuse(HandshakeError(403, "the application refused the connection"))
        elif kind == "websocket.http.response.start":
            self.denial = Denial(event["status"], event.get("headers", ()))
            self.acceptor.note(str(event["status"]))
        else:
            allowed = "'websocket.accept', 'websocket.close' or 'websocket.http.response.start'"
            raise RuntimeError(f"Expected ASGI message {allowed} but got '{kind}'.")

    def deny(self, denial: Denial, event: AsgiEvent) -> None:
        """Gather the response of an application that refuses the handshake with one of its own."""
        if event["type"] != "websocket.http.response.body":
            raise RuntimeError(f"Expected ASGI message 'websocket.http.response.body' but got '{event['type']}'.")
        denial.body += event.get("body", b"")
        if len(denial.body) > BODY_SIZE:
            raise LocalProtocolError(f"the body of a denial response is over {BODY_SIZE} bytes, the limit")
        if not event.get("more_body", False):
            self.end()
            self.respond(denial.response())


@final
class Denial:
    """The response of an application that refuses a handshake, as far as it came."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: Any, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.status = check_status(status)
        self.headers = Headers(text(headers))
        self.body = b""

    def response(self) -> HttpResponse:
        """Return it as it is sent."""
        for name in ("Content-Length", "Transfer-Encoding"):
            self.headers.pop(name, None)
        return HttpResponse(self.status, self.headers, self.body)


def describe(socket: ByteStream, request: Request, root_path: str, state: AsgiEvent) -> AsgiEvent:
    """Return what the scopes of HTTP and of WebSocket have in common."""
    raw_path, _, query = request.path.partition("?")
    client, server = socket.remote_address, socket.local_address
    return {
        "http_version": request.http_version,
        # That of a unix socket is no address of a client.
        "client": (client[0], client[1]) if isinstance(client, tuple) else None,
        "server": (server[0], server[1]) if isinstance(server, tuple) else (server, None) if server else None,
        "root_path": root_path,
        "path": root_path + unquote(raw_path),
        "raw_path": (root_path + raw_path).encode("ascii"),
        "query_string": query.encode("ascii"),
        "headers": [
            (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in request.headers.raw_items()
        ],
        "state": state.copy(),
    }


def describe_websocket(common: AsgiEvent, request: Request, *, secure: bool) -> AsgiEvent:
    """Return the scope of a WebSocket; raises HandshakeError with 400 for subprotocols that are no tokens."""
    return common | {
        "type": "websocket",
        "scheme": "wss" if secure else "ws",
        "subprotocols": parse_tokens(request.headers.get_all("Sec-WebSocket-Protocol"), "Sec-WebSocket-Protocol"),
        "extensions": {"websocket.http.response": {}},
    }


def check_status(status: Any) -> int:
    """Return the status of a response; raises RuntimeError for what is none."""
    if not isinstance(status, int) or not 200 <= status <= 599:
        raise RuntimeError(f"Invalid HTTP status code '{status}' in response.")
    return status


def text(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    """Return headers of ASGI as they are written."""
    return [(bytes(name).decode("latin-1"), bytes(value).decode("latin-1")) for name, value in headers]
