"""uvicorn: its `--ws` option to connections of ours.

    uvicorn --ws rawws.integrations.uvicorn:WebSocketProtocol app:app

uvicorn reads the request of the opening handshake and hands the TCP connection over; the rest is done here and in
`asgi_websocket.py`: the handshake as the application decides, its `receive` and `send`, and the end.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, final
from weakref import WeakKeyDictionary

from rawws.errors import HandshakeError, HttpError
from rawws.net.keepalive import Keepalive
from rawws.net.kernel import gone_after, notice_vanished
from rawws.net.logs import printable
from rawws.net.settings import Settings
from rawws.net.transports import close_transport
from rawws.net.websocket import WebSocket
from rawws.protocol.deflate import Compression
from rawws.protocol.handshake import accept, check_upgrade, refusal
from rawws.protocol.http11 import HeadReader, HttpResponse, Request, parse_request
from rawws.protocol.http11 import serialize_response as serialize
from rawws.protocol.opcodes import CloseCode
from rawws.server.upgrade import WebSocketTerms, open_websocket, read_on, serialize_accept

from .asgi_websocket import WebSocketSession, describe, describe_websocket, text

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["WebSocketProtocol"]

# Seconds that the last bytes of a refusal may wait for the peer to read them.
LINGER = 2.0


def WebSocketProtocol(  # noqa: N802 - uvicorn takes it for the class of a protocol
    config: Any, server_state: Any, app_state: dict[str, Any], _loop: asyncio.AbstractEventLoop | None = None
) -> WebSocket:
    """Return the protocol of a new connection, for uvicorn to call `connection_made` and `data_received` of."""
    if not config.loaded:
        config.load()
    context = CONTEXTS.get(server_state)
    if context is None:
        context = CONTEXTS[server_state] = UvicornContext(config, server_state, _loop or asyncio.get_running_loop())
    return WebSocket(context.settings, UvicornConnection(context, app_state))


@final
class UvicornContext:
    """What all connections of one uvicorn server share."""

    __slots__ = ("config", "keepalive", "settings", "state", "terms")

    def __init__(self, config: Any, server_state: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.config = config
        self.state = server_state
        self.settings = settings = Settings(loop, logging.getLogger("uvicorn.error"))
        settings.ping_interval = config.ws_ping_interval or 0.0
        settings.ping_timeout = config.ws_ping_timeout or 0.0
        self.keepalive = Keepalive(settings)
        self.terms = WebSocketTerms(config.ws_max_size, Compression() if config.ws_per_message_deflate else None)

    def full(self) -> bool:
        """Tell whether `--limit-concurrency` is reached: it counts WebSockets, too."""
        limit = self.config.limit_concurrency
        return limit is not None and (len(self.state.connections) >= limit or len(self.state.tasks) >= limit)


CONTEXTS: WeakKeyDictionary[Any, UvicornContext] = WeakKeyDictionary()


@final
class UvicornConnection:
    """One connection as uvicorn hands it over, which becomes a WebSocket: the WebSocketAcceptor of its session."""

    __slots__ = ("answered", "app_state", "context", "key", "logger", "reader", "request", "session", "ws")

    def __init__(self, context: UvicornContext, app_state: dict[str, Any]) -> None:
        self.context = context
        self.app_state = app_state
        self.logger = context.settings.logger
        self.ws: WebSocket = None  # type: ignore[assignment]  # from `begin` on
        self.reader = HeadReader()
        self.request: Request = None  # type: ignore[assignment]  # from `receive` on
        self.key = ""
        self.session: WebSocketSession | None = None
        # Whether there was an answer that is no WebSocket.
        self.answered = False

    # -- what the connection calls before it is a WebSocket

    @property
    def lasts(self) -> bool:
        """Whether it sends a response."""
        return False

    @property
    def kind(self) -> str:
        """What it sends."""
        return "http"

    def begin(self, ws: WebSocket) -> None:
        """Begin with a connection that uvicorn hands over."""
        self.ws = ws
        sock = ws.extra("socket")
        if sock is not None:
            settings = self.context.settings
            notice_vanished(sock, gone_after(settings.ping_interval, settings.ping_timeout))
        self.context.settings.connections.add(ws)
        self.context.keepalive.start()

    def receive(self, data: bytes) -> None:
        """Take the request, which comes whole."""
        if self.session is not None or self.answered:
            # Nothing may come before the handshake is done.
            self.ws.abort()
            return
        context = self.context
        try:
            if not self.reader.receive(data):
                return
            self.request = parse_request(self.reader.head)
            if context.full():
                raise HandshakeError(503, "the server has as many connections as it takes", (("Retry-After", "1"),))
            self.key = check_upgrade(self.request)
            scope = self.describe()
        except HttpError as error:
            self.refuse(error)
            return
        self.ws.request_head = self.reader.head
        self.ws.pause_reading()
        self.session = WebSocketSession(context.config.loaded_app, scope, self.ws, self)
        context.state.connections.add(self)
        task = context.settings.loop.create_task(self.session.run())
        context.state.tasks.add(task)
        task.add_done_callback(context.state.tasks.discard)

    def describe(self) -> dict[str, Any]:
        """Return the scope of the connection."""
        config = self.context.config
        common = describe(self.ws, self.request, config.root_path, self.app_state)
        common["asgi"] = {"version": config.asgi_version, "spec_version": "2.4"}
        return describe_websocket(common, self.request, secure=self.ws.extra("sslcontext") is not None)

    def receive_eof(self) -> bool:
        """Do nothing: the peer sends no more, and the transport closes itself."""
        return False

    def lose(self) -> None:
        """End the session: the connection ended before it became a WebSocket."""
        self.context.state.connections.discard(self)
        if self.session is not None:
            self.session.end()

    def expire(self) -> None:
        """End a connection whose peer does not read its refusal."""
        self.ws.abort()

    def shut_down(self) -> None:
        """End; those who wait for it do that themselves."""

    # -- what the WebSocket calls

    def drained(self) -> None:
        """Do nothing: the connection itself wakes those who wait to write."""

    def lost(self) -> None:
        """Forget the connection: the WebSocket has ended."""
        self.context.state.connections.discard(self)

    # -- what uvicorn calls

    def shutdown(self) -> None:
        """End with the server: 1012 to a WebSocket, 500 to one that the application has not accepted yet."""
        session = self.session
        if session is not None and not session.accepted:
            session.refuse(HandshakeError(500, "the server is shutting down"))
        elif session is not None and not session.over:
            self.ws.close(CloseCode.SERVICE_RESTART)

    # -- what the session calls

    def open(self, subprotocol: str | None, fields: Iterable[tuple[str, str]]) -> None:
        """Answer the handshake with 101."""
        context, ws = self.context, self.ws
        fields = [*text(context.state.default_headers), *fields]
        accepted = accept(
            self.request, self.key, select_subprotocol=lambda _: subprotocol, compression=context.terms.compression
        )
        open_websocket(ws, accepted, serialize_accept(accepted, fields), context.terms)
        ws.follow(self)
        read_on(ws)

    def respond(self, response: HttpResponse) -> None:
        """Answer with a response that is no WebSocket, and end the connection once the peer has it."""
        ws = self.ws
        self.context.state.connections.discard(self)
        self.answered = True
        if ws.lost:
            return
        if "Connection" not in response.headers:
            response.headers["Connection"] = "close"
        ws.write([serialize(response)])
        ws.set_deadline(LINGER)
        ws.resume_reading()
        if not ws.end_writing():
            close_transport(ws.transport)

    def refuse(self, error: HttpError) -> None:
        """Answer with an error, and log it: there is a line for what is accepted, too."""
        self.note(str(error.status))
        self.respond(refusal(error))

    def gone(self) -> OSError:
        """Return uvicorn's own error."""
        from uvicorn.protocols.utils import ClientDisconnected  # noqa: PLC0415 - where this runs, there is a uvicorn

        return ClientDisconnected()

    def note(self, outcome: str) -> None:
        """Log what became of the handshake, as uvicorn does."""
        address = self.ws.remote_address
        where = f"{address[0]}:{address[1]}" if isinstance(address, tuple) else ""
        path = "-" if self.request is None else printable(self.request.path)
        self.logger.info('%s - "WebSocket %s" %s', where, path, outcome)
