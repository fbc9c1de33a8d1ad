"""Opening: the opening handshake of one connection, on the client's side (RFC 6455 section 4.1)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, final

from rawws.errors import HandshakeError, HttpError, InvalidMessage, InvalidUpgrade
from rawws.http.responses import Received
from rawws.protocol.bodies import Body
from rawws.protocol.connection import Connection, Role
from rawws.protocol.deflate import PerMessageDeflate
from rawws.protocol.handshake import build_request, check_response, make_key
from rawws.protocol.http11 import serialize_request

from .response import BODY_SIZE, BODY_WAIT, ResponseReader, refusal_of

if TYPE_CHECKING:
    from rawws.net.websocket import WebSocket
    from rawws.protocol.deflate import Deflater
    from rawws.protocol.http11 import HttpResponse

    from .options import ConnectOptions
    from .uri import Target

__all__ = ["Opening"]

DEFLATERS: dict[tuple[int, int, int], Deflater] = {}


@final
class Opening:
    """The request and its response: the transport gives it the bytes that it reads until `opened` is done."""

    __slots__ = (
        "begun",
        "body",
        "decoder",
        "headers",
        "key",
        "opened",
        "options",
        "reader",
        "received",
        "refusal",
        "rest",
        "target",
        "ws",
    )

    def __init__(self, options: ConnectOptions, target: Target, headers: list[tuple[str, str]]) -> None:
        self.options = options
        self.target = target
        # The added headers of the request.
        self.headers = headers
        self.reader = ResponseReader()
        self.key = make_key()
        self.ws: WebSocket = None  # type: ignore[assignment]  # from `begin` on
        # Done when the connection is open, or cannot be.
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Whether there is a connection, and how many bytes of a response came.
        self.begun = False
        self.received = 0
        # A response that is no handshake, what decodes its body, and as much of that as came.
        self.refusal: HttpResponse | None = None
        self.decoder: Body | None = None
        self.body = bytearray()
        # What came behind a response that is a handshake.
        self.rest = b""

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
        """Send the request."""
        self.ws = ws
        self.begun = True
        ws.settings.connections.add(ws)
        assert ws.settings.keepalive is not None  # noqa: S101 - `connect` sets it
        ws.settings.keepalive.start()
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
            self._fail(error)

    def receive(self, data: bytes) -> None:
        """Take the next bytes of the response."""
        self.received += len(data)
        if self.opened.done():
            return
        if self.refusal is not None:
            self._receive_body(data)
            return
        try:
            response = self.reader.receive(data)
            if response is not None:
                self._accept(response, self.reader.rest)
        except HttpError as error:
            # Those of the core have no kind: they are about a 101 that is not the one that was asked for.
            kind = InvalidUpgrade if type(error) in {HttpError, HandshakeError} else type(error)
            self._fail(kind(error.status, error.reason, error.headers))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it is told to the caller of connect
            self._fail(error)

    def receive_eof(self) -> None:
        """End the body of a refusal: the server sends nothing more."""
        if self.refusal is not None:
            self._refuse()

    def lose(self) -> None:
        """Fail: the connection is gone."""
        if self.refusal is not None:
            self._refuse()
        elif not self.opened.done():
            self.opened.set_exception(InvalidMessage(0, f"the connection ended before the response, {self.progress()}"))

    def expire(self) -> None:
        """Wait no longer for the rest of a refusal; the rest of a handshake is under `open_timeout`."""
        if self.refusal is not None:
            self._refuse()

    def shut_down(self) -> None:
        """End; those who wait for it do that themselves."""

    # -- how it ends

    def progress(self) -> str:
        """Describe how far the handshake is."""
        if not self.begun:
            return f"it was not connected{', or its TLS handshake not done' if self.target.secure else ''}"
        return f"{self.received} bytes of the response came" if self.received else "nothing came of the response"

    def _accept(self, response: HttpResponse, rest: bytes) -> None:
        ws, options = self.ws, self.options
        ws.response = response = Received(*response)
        if response.status != 101:
            self.refusal = response
            if response.status not in {204, 304}:
                self.decoder = Body(response.headers, max_size=None, until_eof=True)
            ws.set_deadline(BODY_WAIT)
            self._receive_body(rest)
            return
        offered = options.subprotocols or ()
        agreed = check_response(response, self.key, subprotocols=offered, compression=options.deflate)
        deflate = None
        if agreed.parameters is not None and options.deflate is not None:
            deflate = PerMessageDeflate(agreed.parameters, False, options.deflate, DEFLATERS)
        ws.subprotocol = agreed.subprotocol
        ws.open(Connection(Role.CLIENT, options.max_size, deflate, ws.settings.shared.writers))
        self.opened.set_result(None)
        if options.handler is None:
            self.rest = rest
            ws.pause_reading()
            return
        try:
            options.handler.on_open(ws)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises, it ends its own connection only
            ws.on_handler_error(error)
        if rest:
            ws.data_received(rest)

    def deliver(self) -> None:
        """Let messages come: the task that called `connect` has run, and waits for them if that is what it wants.

        Before that, it could not answer a message that a Close, or a violation of the protocol, follows closely.
        """
        ws = self.ws
        if ws.lost or ws.transport.is_closing():
            return
        if self.rest:
            ws.data_received(self.rest)
        if not ws.full:
            ws.resume_reading()

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
            self._refuse()

    def _refuse(self) -> None:
        """Fail with the refusal, whose body came as far as it did."""
        if self.refusal is None or self.opened.done():
            return
        error = refusal_of(self.refusal, bytes(self.body), "a WebSocket handshake")
        self.ws.response = error.response  # type: ignore[assignment]  # a Received, made just now
        self._fail(error)

    def _fail(self, error: Exception) -> None:
        # Who waits for the answer ends the connection. Here it is too early: a loop that is still handing over a socket
        # (uvloop) would close its descriptor twice.
        if not self.opened.done():
            self.opened.set_exception(error)
