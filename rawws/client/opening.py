"""Opening: the opening handshake of one WebSocket, on the client's side (RFC 6455 section 4.1, RFC 8441 section 5)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar, final

from rawws.errors import HandshakeError, HttpError, InvalidMessage, InvalidUpgrade
from rawws.http.responses import Received
from rawws.protocol.bodies import Body
from rawws.protocol.connection import Connection, Role
from rawws.protocol.deflate import PerMessageDeflate
from rawws.protocol.handshake import (
    build_connect,
    build_request,
    check_connected,
    check_response,
    make_key,
)
from rawws.protocol.http11 import serialize_request

from .response import BODY_SIZE, BODY_WAIT, ResponseReader, refusal_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from rawws.net.websocket import WebSocket
    from rawws.protocol.deflate import Deflater
    from rawws.protocol.handshake import Agreement
    from rawws.protocol.http11 import HttpResponse, Request

    from .options import ConnectOptions
    from .uri import Target

__all__ = ["Opening", "StreamOpening"]

T = TypeVar("T")
DEFLATERS: dict[tuple[int, int, int], Deflater] = {}


class OpeningHandshake:
    """A request and its response: the transport gives it the bytes that it reads until `opened` is done."""

    __slots__ = ("begun", "body", "headers", "opened", "options", "received", "refusal", "target", "ws")

    def __init__(self, options: ConnectOptions, target: Target, headers: list[tuple[str, str]]) -> None:
        self.options = options
        self.target = target
        # The added headers of the request.
        self.headers = headers
        self.ws: WebSocket = None  # type: ignore[assignment]  # from `begin` on
        # Done when the connection is open, or cannot be.
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Whether there is a connection, and how many bytes of a response came.
        self.begun = False
        self.received = 0
        # A response that is no handshake, and as much of its body as came.
        self.refusal: HttpResponse | None = None
        self.body = bytearray()

    # -- what the transport calls

    @property
    def lasts(self) -> bool:
        """Whether it sends a response."""
        return False

    @property
    def kind(self) -> str:
        """What it sends."""
        return "http"

    def begin(self, ws: WebSocket) -> None:
        """Begin with a new connection."""
        self.ws = ws
        self.begun = True
        ws.settings.connections.add(ws)
        assert ws.settings.keepalive is not None  # noqa: S101 - `connect` sets it
        ws.settings.keepalive.start()

    def receive_eof(self) -> bool:
        """End the body of a refusal: the server sends nothing more, and is sent nothing more."""
        if self.refusal is not None:
            self.end_refusal()
        return False

    def lose(self) -> None:
        """Fail: the connection is gone."""
        if self.refusal is not None:
            self.end_refusal()
        elif not self.opened.done():
            self.opened.set_exception(InvalidMessage(0, f"the connection ended before the response, {self.progress()}"))

    def expire(self) -> None:
        """Wait no longer for the rest of a refusal; the rest of a handshake is under `open_timeout`."""
        if self.refusal is not None:
            self.end_refusal()

    def shut_down(self) -> None:
        """End; those who wait for it do that themselves."""

    # -- how it ends

    def progress(self) -> str:
        """Describe how far the handshake is."""
        if not self.begun:
            return f"it was not connected{', or its TLS handshake not done' if self.target.secure else ''}"
        return f"{self.received} bytes of the response came" if self.received else "nothing came of the response"

    def judge(self, accept: Callable[[T], None], came: T) -> None:
        """Do something with what came; whatever is wrong with that is told to the caller of connect."""
        try:
            accept(came)
        except HttpError as error:
            # Those of the core have no kind: they are about a response that is not the one that was asked for.
            kind = InvalidUpgrade if type(error) in {HttpError, HandshakeError} else type(error)
            self.fail(kind(error.status, error.reason, error.headers))
        except Exception as error:  # noqa: BLE001 - whatever it is
            self.fail(error)

    def refuse(self, response: HttpResponse) -> None:
        """Take a response that is no handshake; its body is to follow."""
        self.ws.response = self.refusal = Received(*response)
        self.ws.set_deadline(BODY_WAIT)

    def open(self, agreed: Agreement, rest: bytes = b"") -> None:
        """Begin with what was agreed on, and what came behind that: from here on there is a WebSocket."""
        ws, options = self.ws, self.options
        deflate = None
        if agreed.parameters is not None and options.deflate is not None:
            deflate = PerMessageDeflate(agreed.parameters, False, options.deflate, DEFLATERS)
        ws.subprotocol = agreed.subprotocol
        ws.open(Connection(Role.CLIENT, options.max_size, deflate, ws.settings.shared.writers))
        self.opened.set_result(None)
        if options.handler is None:
            ws.keep(rest)
            return
        try:
            options.handler.on_open(ws)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises, it ends its own connection only
            ws.on_handler_error(error)
        if rest:
            ws.receive(bytearray(rest), len(rest))

    def deliver(self) -> None:
        """Let messages come: the task that called `connect` has run, and waits for them if that is what it wants.

        Before that, it could not answer a message that a Close, or a violation of the protocol, follows closely.
        """
        self.ws.read_kept()

    def end_refusal(self) -> None:
        """Fail with the refusal, whose body came as far as it did."""
        if self.refusal is None or self.opened.done():
            return
        error = refusal_of(self.refusal, bytes(self.body), "a WebSocket handshake")
        self.ws.response = error.response  # type: ignore[assignment]  # a Received, made just now
        self.fail(error)

    def fail(self, error: Exception) -> None:
        """Have this raised by who waits for the answer."""
        # That one ends the connection. Here it is too early: a loop that is still handing over a socket
        # (uvloop) would close its descriptor twice.
        if not self.opened.done():
            self.opened.set_exception(error)


@final
class Opening(OpeningHandshake):
    """The handshake of HTTP/1.1, on a connection of its own."""

    __slots__ = ("decoder", "key", "reader")

    def __init__(self, options: ConnectOptions, target: Target, headers: list[tuple[str, str]]) -> None:
        super().__init__(options, target, headers)
        self.key = make_key()
        self.reader = ResponseReader()
        # What decodes the body of a refusal.
        self.decoder: Body | None = None

    def begin(self, ws: WebSocket) -> None:
        """Send the request."""
        super().begin(ws)
        options = self.options
        try:
            request = build_request(
                self.target.authority,
                self.target.path,
                self.key,
                origin=options.origin,
                subprotocols=options.subprotocols or (),
                compression=options.deflate,
                headers=self.headers,
            )
            ws.sent_request = request
            ws.write([serialize_request(request)])
        except Exception as error:  # noqa: BLE001 - what may not be sent is told to the caller of connect
            self.fail(error)

    def receive(self, data: bytes) -> None:
        """Take the next bytes of the response."""
        self.received += len(data)
        if self.opened.done():
            return
        if self.refusal is not None:
            self._receive_body(data)
            return
        self.judge(self._read, data)

    def _read(self, data: bytes) -> None:
        response = self.reader.receive(data)
        if response is not None:
            self._accept(response, self.reader.rest)

    def _accept(self, response: HttpResponse, rest: bytes) -> None:
        options = self.options
        if response.status != 101:
            self.refuse(response)
            if response.status not in {204, 304}:
                self.decoder = Body(response.headers, max_size=None, until_eof=True)
            self._receive_body(rest)
            return
        self.ws.response = response = Received(*response)
        offered = options.subprotocols or ()
        agreed = check_response(response, self.key, subprotocols=offered, compression=options.deflate)
        self.open(agreed, rest)

    def _receive_body(self, data: bytes) -> None:
        """Collect the body of a refusal up to its end, or to where it makes no sense any more."""
        decoder = self.decoder
        try:
            # By lines: what came before one that makes no sense is kept, also where both are in one read.
            for line in data.splitlines(keepends=True):
                self.body += decoder.receive(line) if decoder else b""
        except HttpError:
            decoder = None
        if decoder is None or decoder.done or len(self.body) >= BODY_SIZE:
            self.end_refusal()


@final
class StreamOpening(OpeningHandshake):
    """The handshake of an extended CONNECT, on a stream of a connection that others share (RFC 8441 section 5)."""

    __slots__ = ()

    @property
    def max_window(self) -> int | None:
        """How many bytes may be on their way at the most."""
        return self.options.max_size

    def request(self) -> Request:
        """Return the request. Raises LocalProtocolError for what cannot be sent."""
        options = self.options
        return build_connect(
            self.target.authority,
            self.target.path,
            origin=options.origin,
            subprotocols=options.subprotocols or (),
            compression=options.deflate,
            headers=self.headers,
        )

    def begin(self, ws: WebSocket) -> None:
        """Begin with a new stream, on which the request was sent."""
        super().begin(ws)
        # As a server's handler sees it, and that of a connection of HTTP/1.1.
        ws.sent_request = self.request()._replace(method="GET")

    def receive_response(self, response: HttpResponse) -> None:
        """Take the head of the response."""
        if not self.opened.done():
            self.judge(self._accept, response)

    def _accept(self, response: HttpResponse) -> None:
        options = self.options
        # RFC 8441 5: "a 2xx response" opens the WebSocket, in the place of 101.
        if not 200 <= response.status < 300:
            self.refuse(response)
            return
        self.ws.response = response = Received(*response)
        offered = options.subprotocols or ()
        self.open(check_connected(response, subprotocols=offered, compression=options.deflate))

    def receive(self, data: bytes) -> None:
        """Take the next bytes of the body of a refusal."""
        if self.opened.done():
            return
        self.body += data
        if len(self.body) >= BODY_SIZE:
            self.end_refusal()
