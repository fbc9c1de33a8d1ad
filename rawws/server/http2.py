"""HTTP/2: one connection to its streams, each of which is answered as a connection of HTTP/1.1 is (RFC 9113, RFC 8441).

Laws:
1. A stream counts as a connection: for the limits, the log, the figures and the end of the server. The connection
   itself counts where it has no stream.
2. The connection's window is given back at once, a stream's as its application takes: one that stands still stops no
   other. What a client can make this side hold are its streams, each with its window.
3. One read is answered by one write; what waits is sent in turns (`Http2Carrier`).
4. A client that breaks the protocol, or makes work for nothing, ends its own connection, with the code of the RFC.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from rawws.errors import Http2Error, HttpError
from rawws.net.http2 import Http2Carrier, stream_of
from rawws.net.streams import StreamTransport
from rawws.net.transports import close_transport
from rawws.net.websocket import WebSocket
from rawws.protocol.connection import Role
from rawws.protocol.http2 import Http2Endpoint
from rawws.protocol.http2_codes import ErrorCode
from rawws.protocol.http2_events import (
    GoAwayReceived,
    HeadersTooLarge,
    PingAcknowledged,
    RequestReceived,
    SettingsReceived,
    StreamReset,
    TrailersReceived,
    WindowOpened,
)
from rawws.protocol.http2_limits import Http2Limits

from .admission import RETRY_AFTER
from .connection import LINGER
from .stream_requests import StreamRequests
from .tls import is_prohibited

if TYPE_CHECKING:
    from rawws.protocol.http2_events import Http2Event
    from rawws.protocol.http2_streams import Http2Stream
    from rawws.protocol.http11 import Headers

    from .context import ServerContext
    from .proxy_header import ProxiedClient

__all__ = ["Http2Connection", "alpn_of"]

LIMITS = Http2Limits()
# Of the streams that may be open, so many may be ones that last: event streams, polls, WebSockets. What is left is for
# requests, for a browser has one connection for all of its tabs, and waits silently where the streams are used up.
LASTING = 200
# RFC 9113 6.8: "A server that is attempting to gracefully shut down a connection SHOULD send an initial GOAWAY frame
# with the last stream identifier set to 2^31-1 and a NO_ERROR code."
ANY_STREAM = (1 << 31) - 1
DRAINING = b"draining"


def alpn_of(ws: WebSocket) -> str | None:
    """Return the protocol that was agreed on in the TLS handshake, None for none (RFC 7301)."""
    tls = ws.extra("ssl_object")
    return None if tls is None else tls.selected_alpn_protocol()


@final
class Http2Connection(Http2Carrier):
    """What speaks on a connection of HTTP/2; it carries the streams of its client."""

    __slots__ = ("client", "context", "draining", "leaving", "streams")

    # SETTINGS are those of each stream.
    large = (RequestReceived, SettingsReceived)

    def __init__(self, context: ServerContext, client: ProxiedClient) -> None:
        core = Http2Endpoint(Role.SERVER, LIMITS, connect_protocol=context.has_websockets())
        super().__init__(core, context.settings.loop)
        self.context = context
        self.client = client
        self.streams: set[StreamTransport] = set()
        # No stream may begin any more: because the client goes, or the server; it ends with its last stream.
        self.leaving = self.draining = False

    def begin(self, socket: WebSocket) -> None:
        """Begin with a connection that another handler has begun with."""
        self.socket = socket
        socket.followers = [self]
        tls = socket.extra("ssl_object")
        if tls is not None and is_prohibited(tls):
            # RFC 9113 9.2.2: "Endpoints MAY choose to generate a connection error (Section 5.4.1) of type
            # INADEQUATE_SECURITY if one of the prohibited cipher suites is negotiated." Its client offered no other.
            self.context.settings.logger.info("%s has no cipher for HTTP/2: %s", socket.remote_address, tls.cipher())
            self.core.go_away(0, ErrorCode.INADEQUATE_SECURITY)
            self.end()
            return
        self.flush()
        try:
            if not self.context.enter(socket):
                socket.abort()
        except HttpError as error:
            self.turn_away(error)

    def turn_away(self, error: HttpError) -> None:
        """End a connection that is one too many."""
        self.context.counters.refuse(self.socket, error, b"")
        # RFC 9113 has no word for it but this one; that of HTTP needs a request, which is not waited for.
        self.core.go_away(error_code=ErrorCode.ENHANCE_YOUR_CALM)
        self.end()

    # -- reading

    def handle(self, event: Http2Event) -> None:
        """Do what an event asks for."""
        if isinstance(event, RequestReceived):
            self.open(event.stream, event.end_stream).receive_request(event.request, event.protocol, event.end_stream)
        elif isinstance(event, HeadersTooLarge):
            self.open(event.stream, event.end_stream).refuse_head(event.size, LIMITS.max_header_list, event.end_stream)
        elif isinstance(event, TrailersReceived):
            stream_of(event.stream).feed(b"", True)
        elif isinstance(event, StreamReset):
            stream_of(event.stream).lose()
        elif isinstance(event, WindowOpened):
            if event.stream is not None:
                self.schedule(stream_of(event.stream))
        elif isinstance(event, SettingsReceived):
            for transport in self.streams:
                if transport.queued:
                    self.schedule(transport)
        elif isinstance(event, PingAcknowledged):
            if self.draining and event.payload == DRAINING:
                self.leave()
        elif isinstance(event, GoAwayReceived):
            self.leaving = True
            self.end_if_idle()

    def open(self, stream: Http2Stream, whole: bool) -> StreamRequests:
        """Begin with a stream; `whole` tells that nothing follows its request."""
        context = self.context
        transport = StreamTransport(self, stream, LIMITS.window)
        transport.whole = whole
        stream.owner = transport
        if not self.streams:
            # From here on the streams count, and not the connection.
            self.socket.deadline = 0.0
            context.carriers.add(self.socket)
            context.admission.leave(self.socket)
        self.streams.add(transport)
        handler = StreamRequests(context, self.client, self, transport)
        transport.begin(WebSocket(context.settings, handler))
        return handler

    # -- what a stream calls

    def enter(self, stream: StreamTransport, ws: WebSocket) -> None:  # noqa: ARG002 - one of HTTP/3 may need it
        """Count a stream. Raises HttpError for one too many."""
        if not self.context.enter(ws):
            # It holds no descriptor, so it can be told.
            headers = (("Retry-After", str(RETRY_AFTER)),)
            raise HttpError(503, f"there are {self.context.max_connections} connections, the limit", headers)

    def check_lasting(self, stream: StreamTransport) -> None:
        """Raise HttpError where there are too many streams already that last."""
        lasting = sum(lasts(other) for other in self.streams if other is not stream)
        if lasting >= LASTING:
            headers = (("Retry-After", str(RETRY_AFTER)),)
            raise HttpError(503, f"there are {lasting} streams that last on this connection, limit {LASTING}", headers)

    def send_head(self, stream: StreamTransport, status: int, fields: Headers) -> None:
        """Send the head of a response. Raises LocalProtocolError for fields that cannot be sent."""
        if stream.over:
            # Reset, or gone with its connection, which who answers has not heard yet: nobody is there to be answered.
            return
        self.core.respond(stream.key, status, fields)
        self.flush_soon()

    def widen(self, stream: StreamTransport, window: int) -> None:
        """Let the client send so many bytes before the first is taken: as large as a message may be."""
        limit = self.context.options.max_size
        self.core.widen(stream.key, window if limit is None else min(window, limit))

    def reset(self, stream: StreamTransport, *, complete: bool) -> None:
        """End a stream at once."""
        # RFC 9113 8.1: a server may "request that the client abort transmission of a request without error by sending
        # a RST_STREAM with an error code of NO_ERROR after sending a complete response". RFC 8441 5: "an RST exchange
        # is the same as [...] CANCEL".
        self.core.reset(stream.key, ErrorCode.NO_ERROR if complete else ErrorCode.CANCEL)
        self.flush_soon()

    def forget(self, stream: StreamTransport) -> None:
        """Take note that a stream has ended."""
        self.streams.discard(stream)
        if not self.streams and self.socket in self.context.carriers:
            self.context.carriers.discard(self.socket)
            if not self.socket.lost:
                self.socket.set_deadline(self.context.keep_alive_timeout)
                self.end_if_idle()
                if not self.over:
                    self.count_again()

    def count_again(self) -> None:
        """Count a connection without streams; where its streams were refused, others may have its place."""
        if self.context.proxies is None:
            try:
                self.context.admission.enter(self.socket)
            except HttpError as error:
                self.turn_away(error)

    # -- ends

    def break_off(self, error: Http2Error) -> None:  # noqa: ARG002 - what a client is told is its code
        """End a connection whose client broke the protocol."""
        self.end()

    def leave(self) -> None:
        """Take no more streams: the last that came is the last."""
        self.leaving = True
        self.core.go_away()
        self.flush_soon()
        self.end_if_idle()

    def end_if_idle(self) -> None:
        """End a connection that takes no more streams, with the last of them."""
        if self.leaving and not self.streams:
            # RFC 9113 6.8: "a receiver of a GOAWAY that has no more use for the connection SHOULD still send a GOAWAY
            # frame before terminating the connection."
            if not self.over and self.core.goaway_sent > ANY_STREAM:
                self.core.go_away()
            self.end()

    def end(self) -> None:
        """End the connection once the client has what was written."""
        if self.over:
            return
        self.over = True
        self.flush()
        for stream in tuple(self.streams):
            stream.lose()
        if not self.socket.lost:
            self.socket.deadline = 0.0
            self.socket.set_deadline(LINGER)
            self.socket.resume_reading()
            # As of HTTP/1.1: a reset may overtake the GOAWAY.
            if not self.socket.end_writing():
                close_transport(self.socket.transport)

    def receive_eof(self) -> bool:
        """Do nothing: the client sends no more, and the transport closes itself."""
        return False

    def lose(self) -> None:
        """End all streams: the connection has ended."""
        self.over = True
        for stream in tuple(self.streams):
            stream.lose()
        self.context.carriers.discard(self.socket)

    def expire(self) -> None:
        """End a connection that nothing was asked on for a while, or one that was to end."""
        if self.over:
            self.socket.abort()
        elif self.draining:
            # It has not answered the PING behind the first GOAWAY.
            self.leave()
        elif not self.streams:
            self.core.go_away()
            self.end()

    def shut_down(self) -> None:
        """End with the server: GOAWAY, and once the client must have read it, GOAWAY with the last stream."""
        if self.draining or self.over:
            return
        self.draining = True
        self.core.go_away(ANY_STREAM)
        self.core.ping(DRAINING)
        self.socket.deadline = 0.0
        self.socket.set_deadline(min(LINGER, self.context.settings.close_timeout or LINGER))
        self.flush_soon()


def lasts(stream: StreamTransport) -> bool:
    """Tell whether a stream is one that lasts."""
    handler = stream.protocol.handler
    return handler is None or handler.kind in {"stream", "poll"}
