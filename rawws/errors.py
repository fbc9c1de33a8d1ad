"""Errors: what the peer did wrong, what you did wrong, and the end of a connection.

`LocalProtocolError`: this program misused the library, nothing was sent. `RemoteProtocolError`: the peer broke the
protocol; it carries the close code with which the connection fails; `Http2Error` is the same of HTTP/2. `HttpError`: a
request is refused; it carries the status, and for an opening handshake it is a `HandshakeError`. Hostile bytes raise
nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, overload

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "Close",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "HandshakeError",
    "Http2Error",
    "HttpError",
    "HubError",
    "InvalidContentType",
    "InvalidHandshake",
    "InvalidMessage",
    "InvalidStatus",
    "InvalidURI",
    "InvalidUpgrade",
    "LocalProtocolError",
    "NegotiationError",
    "ProxyError",
    "RawwsError",
    "ReceivedFields",
    "ReceivedResponse",
    "RemoteProtocolError",
    "SecurityError",
    "WebSocketException",
]


class RawwsError(Exception):
    """The base of every error of this package."""


class LocalProtocolError(RawwsError):
    """This program asked for something that the protocol forbids; nothing was sent."""


class RemoteProtocolError(RawwsError):
    """The peer broke the protocol; `close_code` is what RFC 6455 section 7.4.1 names for it."""

    def __init__(self, close_code: int, reason: str) -> None:
        super().__init__(reason)
        self.close_code = int(close_code)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason} (close code {self.close_code})"


class Http2Error(RawwsError):
    """The peer broke HTTP/2 for the whole connection; `error_code` is what RFC 9113 section 7 names for it."""

    def __init__(self, error_code: int, reason: str) -> None:
        super().__init__(reason)
        self.error_code = int(error_code)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason} (HTTP/2 error code {self.error_code:#x})"


class HttpError(RawwsError):
    """A request that is not answered as was asked; an endpoint may raise it, and the server answers with its status.

    `headers` are more header fields of the response, whose body is the reason.
    """

    def __init__(self, status: int, reason: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = headers

    def __str__(self) -> str:
        return f"{self.reason} (HTTP status {self.status})" if self.status else self.reason


class HandshakeError(HttpError):
    """An opening handshake that fails.

    On a server, `status` and `headers` are those of the refusal that is sent. On a client, they are those of the
    response that came, or `status` is 0 where there was none.
    """


# What `connect` raises. The names are those of `websockets`, for programs that catch them.


class InvalidURI(RawwsError, ValueError):
    """The URI is not one of a WebSocket server (RFC 6455 section 3), or that of a proxy is not one of a proxy."""


class InvalidMessage(HandshakeError):
    """What came is not an HTTP response, or the connection ended before there was one."""


class ReceivedFields(Protocol):
    """The header fields of a response that came, by their names in any case: `rawws.Headers`."""

    def __getitem__(self, name: str, /) -> str: ...

    def __contains__(self, name: object, /) -> bool: ...

    def __iter__(self) -> Iterator[str]: ...

    @overload
    def get(self, name: str, /) -> str | None: ...

    @overload
    def get(self, name: str, /, default: str) -> str: ...

    def get_all(self, name: str) -> list[str]:
        """Return all values of a header in their order, an empty list if there is none."""

    def raw_items(self) -> Iterator[tuple[str, str]]:
        """Iterate over all fields as (name, value), in their order and as they were written."""


class ReceivedResponse(Protocol):
    """A response that came."""

    @property
    def status(self) -> int:
        """The status."""

    @property
    def status_code(self) -> int:
        """The status, by its name in `websockets`."""

    @property
    def reason_phrase(self) -> str:
        """The reason phrase."""

    @property
    def headers(self) -> ReceivedFields:
        """The header fields."""

    @property
    def body(self) -> bytes:
        """The body."""


class InvalidStatus(HandshakeError):
    """The server answered in HTTP, but did not switch protocols: a refusal, a web page, a redirect to nowhere.

    `response` is what it answered; its body up to the first 16 KiB.
    """

    def __init__(self, response: ReceivedResponse, reason: str) -> None:
        super().__init__(response.status, reason, tuple(response.headers.raw_items()))
        self.response = response


class InvalidContentType(InvalidStatus):
    """The server answered a request for events with something else, or in a coding that was not asked for."""


class InvalidUpgrade(HandshakeError):
    """The server switched protocols, but its response does not answer this request, for example by a wrong key."""


class NegotiationError(HandshakeError):
    """The server chose a subprotocol or an extension that was not offered, or not so."""


class SecurityError(HandshakeError):
    """The server redirects without end, or from wss to ws."""


class ProxyError(HandshakeError):
    """The proxy does not open a way to the server; `status` is that of an HTTP proxy, 0 elsewhere."""


class HubError(RawwsError):
    """What a hub refused to a `HubClient`, or what did not come about there.

    `code` is one of rawws.v1, which the server said ("refused", "limit", "cursor", ...), or one of the client's own:
    "unanswered", "queue", "slow", "closed", "failed". `status` is the HTTP status where the server let nobody in, else
    0.
    """

    def __init__(self, code: str, reason: str = "", status: int = 0) -> None:
        super().__init__(code, reason, status)
        self.code = code
        self.reason = reason
        self.status = status

    def __str__(self) -> str:
        told = self.reason or ("the hub does not allow it" if self.code == "refused" else "")
        return f"{self.code}: {told}" if told else self.code


InvalidHandshake = HandshakeError
WebSocketException = RawwsError


class Close(NamedTuple):
    """The code and the reason of a Close frame; 1005 stands for a Close frame without a code."""

    code: int
    reason: str


class ConnectionClosed(RawwsError):
    """The connection is closed or closing, and what was asked can no longer be done.

    `rcvd` and `sent` are the Close frames of the two directions, None where there was none. `code` and `reason` are
    those of RFC 6455 section 7.1.5: what the peer sent, or 1006 where it vanished.
    """

    def __init__(self, rcvd: Close | None, sent: Close | None, rcvd_then_sent: bool | None = None) -> None:
        super().__init__(rcvd, sent)
        self.rcvd = rcvd
        self.sent = sent
        self.rcvd_then_sent = rcvd_then_sent

    @property
    def code(self) -> int:
        """The close code of the connection (RFC 6455 section 7.1.5), 1006 if it ended without a Close frame."""
        return 1006 if self.rcvd is None else self.rcvd.code

    @property
    def reason(self) -> str:
        """The close reason of the connection (RFC 6455 section 7.1.6)."""
        return "" if self.rcvd is None else self.rcvd.reason

    def __str__(self) -> str:
        if self.rcvd is None and self.sent is None:
            return "the connection ended without a close frame"
        parts = []
        for verb, close in (("received", self.rcvd), ("sent", self.sent)):
            if close is None:
                parts.append(f"no close frame {verb}")
            else:
                parts.append(f"{verb} {close.code}" + (f" ({close.reason})" if close.reason else ""))
        return "; ".join(parts)


class ConnectionClosedOK(ConnectionClosed):
    """The connection closed as agreed: both Close frames bear 1000, 1001 or no code."""


class ConnectionClosedError(ConnectionClosed):
    """The connection closed on an error: another close code, or none at all."""
