"""Handshaken: what the opening handshake of a WebSocket said, to what its handler reads of it (RFC 6455 section 4)."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from rawws.errors import LocalProtocolError

from .parameters import parse_cookies, query_of, token_in
from .socket import AsyncSocket

if TYPE_CHECKING:
    from rawws.protocol.http11 import Headers, HttpResponse, Request

    from .identity import Identity
    from .interfaces import SocketHandler
    from .parameters import Query
    from .socket import Shared

__all__ = ["HandshakenSocket"]

NO_PARAMS: Mapping[str, str] = MappingProxyType({})


class HandshakenSocket(AsyncSocket):
    """A connection that began with a request; `rawws.WebSocket` is the one that there is."""

    __slots__ = (
        "_id", "_request", "_state", "_token", "identity", "path_params", "request_head", "response", "subprotocol",
        "username",
    )  # fmt: skip

    def __init__(self, shared: Shared, handler: SocketHandler[Any]) -> None:
        super().__init__(shared, handler)
        self.request_head = b""
        self._request: Request | None = None
        # The response of the opening handshake, on a client.
        self.response: HttpResponse | None = None
        self.subprotocol: str | None = None
        # Who this is, for `process_request` to say; a name of `websockets`.
        self.username: Any = None
        # Who this is to a hub, as its `identify` said, or the application.
        self.identity: Identity | None = None
        self._token: str | None = None
        # What the path of its route has in braces.
        self.path_params: Mapping[str, str] = NO_PARAMS
        self._state: Any = None
        self._id: uuid.UUID | None = None

    @property
    def state(self) -> Any:
        """A place for the application's own data on this connection: an empty namespace, or what is assigned."""
        if self._state is None:
            self._state = SimpleNamespace()
        return self._state

    @state.setter
    def state(self, value: Any) -> None:
        self._state = value

    def lend_request(self, request: Request | None) -> None:
        """Have the request at hand while a server judges it, and let go of it then: it may be one of several."""
        self._request = request

    @property
    def sent_request(self) -> Request | None:
        """The request of the opening handshake, on a client."""
        return self._request

    @sent_request.setter
    def sent_request(self, request: Request) -> None:
        self._request = request

    @property
    def id(self) -> uuid.UUID:
        """A unique name of the connection, for logs."""
        if self._id is None:
            self._id = uuid.uuid4()
        return self._id

    @property
    def request(self) -> Request | None:
        """The request of the opening handshake, parsed again when first asked for: few ask, and all would hold it."""
        if self._request is None and self.request_head:
            from rawws.protocol.http11 import parse_request  # noqa: PLC0415

            line, _, fields = self.request_head.partition(b"\r\n")
            if line.endswith(b" HTTP/2"):
                # A head of fields is kept as HTTP/1.1 would have it.
                request = parse_request(b"%b\r\n%b" % (line.removesuffix(b"2") + b"1.1", fields))
                self._request = request._replace(http_version="2")
            else:
                self._request = parse_request(self.request_head)
        return self._request

    def keep(self, rest: bytes) -> None:
        """Keep what came behind the opening handshake, and read no more, until `read_kept`."""
        self.connection.receive(rest)
        self.connection.keep_buffer()
        self.pause_reading()
        if self.rate_limiter is not None:
            self.account(0, len(rest))

    def read_kept(self) -> None:
        """Process what was kept, also where a write found meanwhile that the peer is gone, and read on."""
        if self.lost or self.aborted:
            return
        self.receive(bytearray(), 0)
        if not self.full and not self.transport.is_closing():
            self.resume_reading()

    def respond(self, status: int, text: str) -> HttpResponse:
        """Return an HTTP response of this status with this text, for `process_request` to return."""
        from rawws.protocol.http11 import Headers, HttpResponse  # noqa: PLC0415

        return HttpResponse(status, Headers([("Content-Type", "text/plain; charset=utf-8")]), text.encode())

    @property
    def headers(self) -> Headers:
        """The header fields of the request. Raises LocalProtocolError before there is one."""
        return self.checked_request().headers

    @property
    def query(self) -> Query:
        """The parameters behind the `?` of the request, read again at each call. Raises as `headers` does."""
        return query_of(self.checked_request())

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies of the request, by name, read again at each call. Raises as `headers` does."""
        return parse_cookies(self.checked_request())

    @property
    def token(self) -> str:
        """The token that it named last: of `Authorization: Bearer` or `?token=`, or what renewed that; "" for none."""
        return token_in(self.checked_request()) if self._token is None else self._token

    @token.setter
    def token(self, token: str) -> None:
        self._token = token

    def checked_request(self) -> Request:
        """Return the request. Raises LocalProtocolError before there is one."""
        request = self.request
        if request is None:
            raise LocalProtocolError("the opening handshake is not done yet, there is no request")
        return request
