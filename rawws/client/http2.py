"""HTTP/2: one connection to a server, and the streams of all that share it (RFC 9113, RFC 8441).

Laws:
1. The connection ends with its last stream: nobody needs to close it.
2. Its end is that of its streams, and the end of one is that of no other.
3. As on a server: its window is given back at once, that of a stream as its application takes what came.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol, final

from rawws.errors import Http2Error, InvalidMessage
from rawws.net.http2 import Http2Carrier, stream_of
from rawws.net.streams import StreamTransport
from rawws.net.transports import abort_transport, close_transport
from rawws.protocol.connection import Role
from rawws.protocol.http2 import Http2Endpoint
from rawws.protocol.http2_codes import ErrorCode
from rawws.protocol.http2_events import (
    GoAwayReceived,
    ResponseReceived,
    SettingsReceived,
    StreamReset,
    TrailersReceived,
    WindowOpened,
)
from rawws.protocol.http2_limits import Http2Limits
from rawws.protocol.http11 import HttpResponse

if TYPE_CHECKING:
    from collections.abc import Callable

    from rawws.net.websocket import WebSocket
    from rawws.protocol.http2_events import Http2Event
    from rawws.protocol.http2_streams import Http2Stream
    from rawws.protocol.http11 import Request

__all__ = ["Http1RequiredError", "Http2ClientConnection", "StreamAsker", "StreamRefusedError"]

LIMITS = Http2Limits()
# How long a server may take to read what was written before the end, in seconds.
LINGER = 2.0
PHRASES = {int(status): status.phrase for status in HTTPStatus}
NAMES = {int(code): code.name for code in ErrorCode}


class StreamRefusedError(InvalidMessage):
    """The server did nothing with a request, which can be sent anew."""


class Http1RequiredError(InvalidMessage):
    """The server wants the request over HTTP/1.1."""


class StreamAsker(Protocol):
    """What sent a request on a stream."""

    @property
    def max_window(self) -> int | None:
        """How many bytes of the answer may be on their way at the most, None for as many as are taken."""

    def receive_response(self, response: HttpResponse) -> None:
        """Take the head of the final response."""

    def fail(self, error: Exception) -> None:
        """Take note of why there is no response, or no more of it."""


@final
class Http2ClientConnection(Http2Carrier):
    """A connection to one server. `settled` is done when its settings came; `on_end` is called at the end."""

    __slots__ = ("leaving", "on_end", "settled", "streams")

    def __init__(self, loop: asyncio.AbstractEventLoop, on_end: Callable[[Http2ClientConnection], None]) -> None:
        super().__init__(Http2Endpoint(Role.CLIENT, LIMITS), loop)
        self.on_end = on_end
        self.settled: asyncio.Future[None] = loop.create_future()
        self.streams: dict[StreamTransport, StreamAsker] = {}
        # The server takes no more streams.
        self.leaving = False

    # -- what the pool and those who ask call

    def takes_streams(self) -> bool:
        """Tell whether a stream can begin now."""
        return self.settled.done() and not self.leaving and not self.over and self.core.may_request()

    @property
    def offers_websockets(self) -> bool:
        """Whether the server takes an extended CONNECT."""
        return self.core.peer_connect_protocol

    def connect(self, request: Request, ws: WebSocket, asker: StreamAsker) -> None:
        """Ask for a WebSocket. Raises LocalProtocolError for what cannot be sent, StreamRefusedError for no room."""
        self._check_room()
        self._begin(self.core.request(request, protocol="websocket", end_stream=False), ws, asker)

    def get(self, request: Request, protocol: asyncio.Protocol, asker: StreamAsker) -> StreamTransport:
        """Ask for what the protocol is to get. Raises as `connect` does."""
        self._check_room()
        # To it, this is the transport of a connection.
        return self._begin(self.core.request(request), protocol, asker)  # type: ignore[arg-type]

    def _check_room(self) -> None:
        """Raise StreamRefusedError where no stream can begin: also on a new connection, where the server says so."""
        if not self.takes_streams():
            raise StreamRefusedError(0, "the server takes no stream on its connection (by GOAWAY or its SETTINGS)")

    def _begin(self, key: Http2Stream, protocol: WebSocket, asker: StreamAsker) -> StreamTransport:
        stream = StreamTransport(self, key, LIMITS.window)
        stream.tunnel = key.tunnel
        stream.ending = stream.end_sent = not key.may_send()
        # None holds up another.
        stream.incremental = True
        key.owner = stream
        self.streams[stream] = asker
        stream.begin(protocol)
        self.flush_soon()
        return stream

    def end_if_idle(self) -> None:
        """End a connection that nobody has a stream on."""
        if not self.streams:
            self.end()

    # -- what the socket calls

    def begin(self, socket: WebSocket) -> None:
        """Begin with a connection whose server chose HTTP/2."""
        self.socket = socket
        socket.followers = [self]
        socket.settings.connections.add(socket)
        assert socket.settings.keepalive is not None  # noqa: S101 - the pool has set it
        socket.settings.keepalive.start()
        self.flush()

    def handle(self, event: Http2Event) -> None:
        """Do what an event asks for."""
        if isinstance(event, ResponseReceived):
            self._respond(event)
        elif isinstance(event, TrailersReceived):
            stream_of(event.stream).feed(b"", True)
        elif isinstance(event, StreamReset):
            stream = stream_of(event.stream)
            self.streams[stream].fail(error_of(event))
            stream.lose()
        elif isinstance(event, WindowOpened):
            if event.stream is not None:
                self.schedule(stream_of(event.stream))
        elif isinstance(event, SettingsReceived):
            if not self.settled.done():
                self.settled.set_result(None)
            for stream in self.streams:
                if stream.queued:
                    self.schedule(stream)
        elif isinstance(event, GoAwayReceived):
            self.leaving = True

    def _respond(self, event: ResponseReceived) -> None:
        # RFC 9110 15.2: "A client MUST be able to parse one or more 1xx responses received prior to a final response".
        if event.status < 200:
            return
        stream = stream_of(event.stream)
        # It has no reason phrase; where that is shown, the usual one says more than none.
        phrase = PHRASES.get(event.status, str(event.status))
        response = HttpResponse(event.status, event.headers, reason_phrase=phrase, http_version="2")
        self.streams[stream].receive_response(response)
        if event.end_stream:
            stream.feed(b"", True)

    # -- what a stream calls

    def widen(self, stream: StreamTransport, window: int) -> None:
        """Let the server send so many bytes before the first is taken, as many as its application allows."""
        limit = self.streams[stream].max_window
        self.core.widen(stream.key, window if limit is None else min(window, limit))

    def reset(self, stream: StreamTransport, *, complete: bool) -> None:  # noqa: ARG002 - a server's
        """End a stream at once."""
        # RFC 8441 5: "an RST exchange is the same as [...] CANCEL". RFC 9113 7: "The endpoint uses this error code to
        # indicate that the stream is no longer needed."
        self.core.reset(stream.key, ErrorCode.CANCEL)
        self.flush_soon()

    def forget(self, stream: StreamTransport) -> None:
        """Take note that a stream has ended, and end with the last."""
        self.streams.pop(stream, None)
        self.end_if_idle()

    # -- ends

    def break_off(self, error: Http2Error) -> None:
        """End a connection whose server broke the protocol."""
        self._fail(InvalidMessage(0, f"the server broke HTTP/2: {error.reason}"))
        self.end()

    def end(self) -> None:
        """End the connection once the server has what was written."""
        if self.over:
            return
        self.over = True
        self.on_end(self)
        self.core.go_away()
        self.flush()
        for stream in tuple(self.streams):
            stream.lose()
        socket = self.socket
        waits = socket.buffered
        # RFC 9112 9.8: "Clients MUST send a closure alert before closing the connection. Clients that do not expect to
        # receive any more data MAY choose not to wait for the server's closure alert and simply close the connection".
        close_transport(socket.transport)
        if waits:
            socket.set_deadline(LINGER)
        else:
            # uvloop writes the alert at the end of this turn.
            self.loop.call_soon(abort_transport, socket.transport)

    def receive_eof(self) -> bool:
        """Do nothing: the server sends no more, and the transport closes itself."""
        return False

    def lose(self) -> None:
        """End all streams: the connection has ended."""
        self._fail(InvalidMessage(0, "the connection ended before the response"))
        if not self.over:
            self.over = True
            self.on_end(self)
        for stream in tuple(self.streams):
            stream.lose()

    def expire(self) -> None:
        """End a connection whose server does not read what was written."""
        self.socket.abort()

    def shut_down(self) -> None:
        """End; those who have its streams do that themselves."""

    def _fail(self, error: Exception) -> None:
        """Tell all who wait for something why it does not come."""
        if not self.settled.done():
            self.settled.set_exception(error)
        for asker in tuple(self.streams.values()):
            asker.fail(error)


def error_of(event: StreamReset) -> Exception:
    """Return the error that a reset stands for."""
    code = event.error_code
    # RFC 9113 8.7: REFUSED_STREAM says "that the stream is being closed prior to any processing having occurred. Any
    # request that was sent on the reset stream can be safely retried."
    if event.remote and code == ErrorCode.REFUSED_STREAM:
        return StreamRefusedError(0, "the server refused the stream before it did anything (REFUSED_STREAM)")
    if event.remote and code == ErrorCode.HTTP_1_1_REQUIRED:
        return Http1RequiredError(0, "the server wants the request over HTTP/1.1 (HTTP_1_1_REQUIRED)")
    name = NAMES.get(code, f"{code:#x}")
    who = "the server reset the stream" if event.remote else f"the server broke HTTP/2: {event.reason}"
    return InvalidMessage(0, f"{who} ({name})")
