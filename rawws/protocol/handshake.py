"""The opening handshake: requests to agreements and back, for both sides (RFC 6455 sections 4.1 and 4.2).

A server calls `check_upgrade`, `check_origin` and `accept` and writes the bytes of the `Acceptance`; a `HandshakeError`
on the way is answered with `refusal`. A client writes `build_request` and reads the response with `check_response`.
"""

from __future__ import annotations

import os
import re
from base64 import b64encode
from hashlib import sha1
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from rawws.errors import HandshakeError, LocalProtocolError

from .extensions import (
    Extension,
    excerpt,
    format_extensions,
    is_token,
    parse_extensions,
    parse_list,
    parse_tokens,
)
from .http11 import Headers, Request, Response, content_length, serialize_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = [
    "Acceptance",
    "Agreement",
    "ClientCompression",
    "Origins",
    "ServerCompression",
    "accept",
    "accept_key",
    "build_request",
    "check_origin",
    "check_response",
    "check_upgrade",
    "make_key",
    "refusal",
    "wants_upgrade",
]

P = TypeVar("P")
P_co = TypeVar("P_co", covariant=True)

# None: same origin. "*": any. Else what is allowed: exact origins, patterns for a whole one, None for no Origin header.
Origins: TypeAlias = "str | Sequence[str | re.Pattern[str] | None] | None"

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
# RFC 9110 15.5.22: "The server MUST send an Upgrade header field in a 426 response to indicate the required
# protocol(s)". RFC 6455 4.2.2: and "a |Sec-WebSocket-Version| header field indicating the version(s) the server is
# capable of understanding".
_WHAT_IS_SPOKEN = (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"))
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
# What `build_request` writes itself, and what would give the request a body.
_RESERVED = frozenset((
    "host", "upgrade", "connection", "origin", "sec-websocket-key", "sec-websocket-version", "sec-websocket-protocol",
    "sec-websocket-extensions", "sec-websocket-accept", "content-length", "transfer-encoding", "expect",
))  # fmt: skip


class ServerCompression(Protocol[P_co]):
    """What `accept` needs of a compression extension: the answer to offers and the parameters, or None to decline."""

    def accept(self, offers: list[Extension], /) -> tuple[Extension, P_co] | None: ...


class ClientCompression(Protocol[P_co]):
    """What a client needs of one: an offer, and a check of the answer, which raises `HandshakeError` if it is no answer."""

    def offer(self) -> Extension: ...

    def confirm(self, answer: list[Extension], /) -> P_co | None: ...


class Agreement(NamedTuple, Generic[P]):
    """What a client and a server agreed on; None where there is no subprotocol, no compression."""

    subprotocol: str | None
    parameters: P | None


class Acceptance(NamedTuple, Generic[P]):
    """The agreement on a server's side, and the fields of the response after Upgrade and Connection."""

    subprotocol: str | None
    parameters: P | None
    fields: list[tuple[str, str]]

    def serialize(self, extra: bytes = b"") -> bytes:
        """Write the response; `extra` are header lines of `serialize_fields`, checked once for all connections."""
        # No Date: RFC 9110 6.6.1 leaves it to the server in a 1xx response, and no cache will ever see this one.
        return b"%s%s%s\r\n" % (_ACCEPTED, serialize_fields(self.fields), extra)

    def response(self) -> Response:
        """Return the response for a hook that may add headers; `serialize_response` then writes it."""
        return Response(101, Headers([("Upgrade", "websocket"), ("Connection", "Upgrade"), *self.fields]))


def accept_key(key: str) -> str:
    """Return the Sec-WebSocket-Accept that answers a Sec-WebSocket-Key (RFC 6455 section 4.2.2, step 5.4)."""
    return b64encode(sha1((key + _GUID).encode(), usedforsecurity=False).digest()).decode()


# -- the server's side


def wants_upgrade(request: Request) -> bool:
    """Say whether a request attempts a WebSocket handshake, well or badly; if not, it is plain HTTP."""
    headers = request.headers
    # Not only Upgrade: a proxy that removes it, the most common mistake of all, must be told so by `check_upgrade`.
    if "Sec-WebSocket-Key" in headers:
        return True
    return any("websocket" in value.lower() for value in headers.get_all("Upgrade"))


def check_upgrade(request: Request) -> str:
    """Check the request of a client and return its key; raises `HandshakeError` with 400, 405, 417 or 426."""
    headers = request.headers
    # RFC 6455 4.1: "The method of the request MUST be GET, and the HTTP version MUST be at least 1.1."
    if request.method != "GET":
        raise HandshakeError(405, f"the method is {excerpt(request.method)}, allowed is GET", (("Allow", "GET"),))
    # RFC 9110 7.8: "A server that receives an Upgrade header field in an HTTP/1.0 request MUST ignore that Upgrade
    # field." So the answer is that to a request without one; 505 would be wrong, for it is about the major version.
    if request.http_version == "1.0":
        raise HandshakeError(426, "the request is in HTTP/1.0, a WebSocket handshake needs HTTP/1.1", _WHAT_IS_SPOKEN)
    # RFC 6455 4.1: "The request MUST contain an |Upgrade| header field whose value MUST include the "websocket" keyword."
    if "Upgrade" not in headers:
        reason = "the request has no Upgrade header, 'websocket' is needed (a proxy may have removed it)"
        raise HandshakeError(426, reason, _WHAT_IS_SPOKEN)
    protocols = _parse_protocols(headers)
    if "websocket" not in protocols:
        raise HandshakeError(426, f"Upgrade is {excerpt(', '.join(protocols))}, 'websocket' is needed", _WHAT_IS_SPOKEN)
    # RFC 6455 4.1: "The request MUST contain a |Connection| header field whose value MUST include the "Upgrade" token."
    # 400 rather than 426, for the client did ask to upgrade: what it sent is malformed, or a proxy made it so.
    if "upgrade" not in _parse_connection(headers):
        came = excerpt(", ".join(headers.get_all("Connection")))
        raise HandshakeError(400, f"Connection is {came}, 'Upgrade' is needed (a proxy may have removed it)")
    # RFC 6455 4.2.2: "If this version does not match a version understood by the server, the server MUST abort the
    # WebSocket handshake [...] and instead send an appropriate HTTP error code (such as 426 Upgrade Required)".
    versions = headers.get_all("Sec-WebSocket-Version")
    if versions != ["13"]:
        raise HandshakeError(
            426, f"Sec-WebSocket-Version is {excerpt(', '.join(versions))}, understood is 13", _WHAT_IS_SPOKEN
        )
    _check_no_body(headers)
    key = _only_value(headers, "Sec-WebSocket-Key")
    # RFC 6455 4.1: "The value of this header field MUST be a nonce consisting of a randomly selected 16-byte value that
    # has been base64-encoded". The last character carries four bits too many; they may be set, because they are in the
    # RFC's own example, "AQIDBAUGBwgJCgsMDQ4PEC==".
    if len(key) != 24 or key[22:] != "==" or key[:22].strip(_BASE64):
        raise HandshakeError(400, f"Sec-WebSocket-Key is {excerpt(key)}, 16 bytes in base64 are needed")
    return key


def check_origin(request: Request, origins: Origins, scheme: str, host: str) -> str | None:
    """Return the origin of a request if it is allowed; raises `HandshakeError` with 403 (400 if there are several).

    `origins=None` allows the origin `scheme://host`, with the value of Host that the client's browser saw and the
    scheme, "http" or "https", of the page that may connect, and requests without Origin, which are not from a browser
    (RFC 6455 section 4.2.1). "*" allows every origin. A list allows what it names: origins, compared whole and without
    regard to case; patterns, which must match all of the origin in lower case; and None for requests without Origin.
    "null", the origin of a sandboxed frame, is refused unless it is named.
    """
    # RFC 6454 7.3: "The user agent MUST NOT include more than one Origin header field in any HTTP request."
    origin = _only_value(request.headers, "Origin") if "Origin" in request.headers else None
    # RFC 6455 4.2.2: "The origin is serialized to ASCII and converted to lowercase."
    came = None if origin is None else origin.lower()
    if origins is None:
        port = _DEFAULT_PORTS.get(scheme, "")
        if came is None or came.removesuffix(port) == f"{scheme}://{host.lower().removesuffix(port)}":
            return origin
    else:
        for allowed in (origins,) if isinstance(origins, str) else origins:
            if isinstance(allowed, re.Pattern):
                if came is not None and allowed.fullmatch(came):
                    return origin
            elif allowed == "*" or came == (allowed if allowed is None else allowed.lower()):
                return origin
    # RFC 6455 4.2.2: "If the server does not wish to accept this connection, it MUST return an appropriate HTTP error
    # code (e.g., 403 Forbidden)". What is allowed is not said: the page that asks has no business with it.
    raise HandshakeError(
        403, f"the origin {excerpt(origin)} is not allowed" if origin else "a request without Origin is not allowed"
    )


def accept(
    request: Request,
    key: str,
    *,
    subprotocols: Sequence[str] | None = None,
    select_subprotocol: Callable[[list[str]], str | None] | None = None,
    compression: ServerCompression[P] | None = None,
) -> Acceptance[P]:
    """Negotiate, and return what was agreed on with the response that says so; raises `HandshakeError` with 400.

    `subprotocols` are in the order of the server's preference; as in `websockets`, a server that has some refuses a
    client that offers none of them. `select_subprotocol` replaces that: it gets what the client offers, and returns
    one of it or None; anything else raises `LocalProtocolError`.
    """
    fields = [("Sec-WebSocket-Accept", accept_key(key))]
    subprotocol = _choose_subprotocol(_parse_subprotocols(request.headers), subprotocols, select_subprotocol)
    if subprotocol is not None:
        fields.append(("Sec-WebSocket-Protocol", subprotocol))
    # Parsed even without compression: RFC 6455 9.1 has both sides fail on what does not conform to the grammar.
    offers = _parse_extensions(request.headers)
    # RFC 6455 9.1: "A server MUST NOT respond with any extension not requested by the client." Others are declined by
    # silence.
    accepted = compression.accept(offers) if compression is not None and offers else None
    if accepted is None:
        return Acceptance(subprotocol, None, fields)
    fields.append(("Sec-WebSocket-Extensions", format_extensions([accepted[0]])))
    return Acceptance(subprotocol, accepted[1], fields)


def refusal(error: HandshakeError) -> Response:
    """Return the response that refuses a handshake or a head and closes: its body is a line that says why."""
    headers = Headers(error.headers)
    # RFC 9110 7.8: "A sender of Upgrade MUST also send an "Upgrade" connection option in the Connection header field".
    headers["Connection"] = "Upgrade, close" if "Upgrade" in headers else "close"
    headers["Content-Type"] = "text/plain; charset=utf-8"
    # The body may repeat what came: no browser shall find a script in it.
    headers["X-Content-Type-Options"] = "nosniff"
    return Response(error.status, headers, f"{error.reason}\n".encode())


# -- the client's side


def make_key(random_bytes: Callable[[int], bytes] = os.urandom) -> str:
    """Return a new Sec-WebSocket-Key. RFC 6455 4.1: "The nonce MUST be selected randomly for each connection."."""
    return b64encode(random_bytes(16)).decode()


def build_request(
    host: str,
    path: str,
    key: str,
    *,
    origin: str | None = None,
    subprotocols: Iterable[str] = (),
    compression: ClientCompression[P] | None = None,
    headers: Iterable[tuple[str, str]] = (),
) -> Request:
    """Build the request of a client, for `serialize_request`; raises `LocalProtocolError` on what may not be sent.

    `host` is the value of Host: with the port, unless it is the default of the scheme. `headers` are added ones, such
    as Authorization or Cookie.
    """
    fields = Headers([("Host", host), ("Upgrade", "websocket"), ("Connection", "Upgrade")])
    fields["Sec-WebSocket-Key"] = key
    fields["Sec-WebSocket-Version"] = "13"
    if origin is not None:
        fields["Origin"] = origin
    offered = list(subprotocols)
    # RFC 6455 4.1: "The elements that comprise this value MUST be non-empty strings with characters in the range U+0021
    # to U+007E not including separator characters as defined in [RFC2616] and MUST all be unique strings."
    if not all(map(is_token, offered)) or len(set(offered)) < len(offered):
        raise LocalProtocolError(f"the subprotocols are {offered!r}, different tokens are needed")
    if offered:
        fields["Sec-WebSocket-Protocol"] = ", ".join(offered)
    if compression is not None:
        fields["Sec-WebSocket-Extensions"] = format_extensions([compression.offer()])
    for name, value in headers:
        if name.lower() in _RESERVED:
            raise LocalProtocolError(f"the header {name!r} is written by the handshake, it cannot be added")
        fields[name] = value
    return Request("GET", path, fields)


def check_response(
    response: Response,
    key: str,
    *,
    subprotocols: Iterable[str] = (),
    compression: ClientCompression[P] | None = None,
) -> Agreement[P]:
    """Check the response of a server to what `build_request` asked, and return what was agreed on.

    Raises `HandshakeError` with the status of the response, and its headers unless it is 101. An interim response (1xx
    but 101) is not for this function: RFC 9110 section 15.2 has a client skip it and read the next head.
    """
    headers = response.headers
    if response.status != 101:
        came = f"{response.status} {response.reason_phrase}".strip()
        raise HandshakeError(response.status, f"the server answered {came}, needed is 101", tuple(headers.raw_items()))
    try:
        _check_switch(response, key)
        return Agreement(_check_subprotocol(headers, list(subprotocols)), _check_extensions(headers, compression))
    except HandshakeError as error:
        raise HandshakeError(101, error.reason) from None


def _check_switch(response: Response, key: str) -> None:
    headers = response.headers
    # RFC 9110 15.2: "a server MUST NOT send a 1xx response to an HTTP/1.0 client", and HTTP/1.0 has no upgrade.
    if response.http_version == "1.0":
        raise HandshakeError(101, "the server switched protocols in HTTP/1.0, needed is HTTP/1.1")
    # RFC 6455 4.1: "If the response lacks an |Upgrade| header field or the |Upgrade| header field contains a value that
    # is not an ASCII case-insensitive match for the value "websocket", the client MUST _Fail the WebSocket Connection_."
    if [value.lower() for value in headers.get_all("Upgrade")] != ["websocket"]:
        raise HandshakeError(101, f"Upgrade is {excerpt(', '.join(headers.get_all('Upgrade')))}, needed is 'websocket'")
    # RFC 6455 4.1: "If the response lacks a |Connection| header field or the |Connection| header field doesn't contain a
    # token that is an ASCII case-insensitive match for the value "Upgrade", the client MUST _Fail".
    if "upgrade" not in _parse_connection(headers):
        raise HandshakeError(
            101, f"Connection is {excerpt(', '.join(headers.get_all('Connection')))}, needed is 'Upgrade'"
        )
    # RFC 6455 4.1: "If the response lacks a |Sec-WebSocket-Accept| header field or the |Sec-WebSocket-Accept| contains a
    # value other than [the answer to the key], the client MUST _Fail". It is no secret, so no constant time is needed.
    accepted, expected = _only_value(headers, "Sec-WebSocket-Accept"), accept_key(key)
    if accepted != expected:
        raise HandshakeError(101, f"Sec-WebSocket-Accept is {excerpt(accepted)}, needed is {expected!r}")


def _check_subprotocol(headers: Headers, offered: list[str]) -> str | None:
    if "Sec-WebSocket-Protocol" not in headers:
        return None
    # RFC 6455 4.1: "If the response includes a |Sec-WebSocket-Protocol| header field and this header field indicates the
    # use of a subprotocol that was not present in the client's handshake [...], the client MUST _Fail".
    chosen = _only_value(headers, "Sec-WebSocket-Protocol")
    if chosen not in offered:
        raise HandshakeError(101, f"the server chose the subprotocol {excerpt(chosen)}, offered were {offered!r}")
    return chosen


def _check_extensions(headers: Headers, compression: ClientCompression[P] | None) -> P | None:
    answer = _parse_extensions(headers)
    # RFC 6455 4.1: "If the response includes a |Sec-WebSocket-Extensions| header field and this header field indicates
    # the use of an extension that was not present in the client's handshake [...], the client MUST _Fail".
    if answer and compression is None:
        raise HandshakeError(101, f"the server chose the extension {answer[0][0]!r}, none was offered")
    return None if compression is None else compression.confirm(answer)


# -- both sides


def _only_value(headers: Headers, name: str) -> str:
    values = headers.get_all(name)
    if len(values) != 1:
        raise HandshakeError(400, f"there are {len(values)} {name} headers, exactly one is needed")
    return values[0]


def _parse_connection(headers: Headers) -> list[str]:
    values = headers.get_all("Connection")
    return [token.lower() for token in parse_tokens(values, "Connection")] if values else []


def _parse_protocols(headers: Headers) -> list[str]:
    # RFC 9110 7.8: Upgrade = #protocol, protocol = protocol-name [ "/" protocol-version ], both of them tokens.
    protocols = parse_list(headers.get_all("Upgrade"), "Upgrade")
    for protocol in protocols:
        if not all(map(is_token, protocol.split("/", 1))):
            raise HandshakeError(400, f"{excerpt(protocol)} in the Upgrade header is not a protocol")
    return [protocol.lower() for protocol in protocols]


def _parse_subprotocols(headers: Headers) -> list[str]:
    if "Sec-WebSocket-Protocol" not in headers:
        return []
    # RFC 6455 4.1: "The elements that comprise this value MUST be non-empty strings [...] and MUST all be unique strings."
    offered = parse_tokens(headers.get_all("Sec-WebSocket-Protocol"), "Sec-WebSocket-Protocol")
    if len(set(offered)) < len(offered):
        raise HandshakeError(
            400, f"Sec-WebSocket-Protocol is {excerpt(', '.join(offered))}, repetitions are not allowed"
        )
    return offered


def _parse_extensions(headers: Headers) -> list[Extension]:
    # RFC 6455 9.1: "this header field MAY be split or combined across multiple lines."
    values = headers.get_all("Sec-WebSocket-Extensions")
    return parse_extensions(", ".join(values)) if values else []


def _choose_subprotocol(
    offered: list[str], supported: Sequence[str] | None, select: Callable[[list[str]], str | None] | None
) -> str | None:
    if select is not None:
        chosen = select(list(offered))
        # RFC 6455 4.2.2: "The value chosen MUST be derived from the client's handshake, specifically by selecting one of
        # the values from the |Sec-WebSocket-Protocol| field".
        if chosen is not None and chosen not in offered:
            raise LocalProtocolError(f"select_subprotocol returned {chosen!r}, offered were {offered!r}")
        return chosen
    if not supported:
        return None
    for subprotocol in supported:
        if subprotocol in offered:
            return subprotocol
    came = excerpt(", ".join(offered)) if offered else "none"
    raise HandshakeError(400, f"the subprotocols offered are {came}, supported are {', '.join(supported)}")


def _check_no_body(headers: Headers) -> None:
    # What would follow is a body for one reader and frames for another: the bytes behind the head must be frames.
    if content_length(headers) or "Transfer-Encoding" in headers:
        raise HandshakeError(400, "the request announces a body, none is allowed in a WebSocket handshake")
    # RFC 9110 7.8: "If a server receives both an Upgrade and an Expect header field with the "100-continue" expectation,
    # the server MUST send a 100 (Continue) response before sending a 101 (Switching Protocols) response." RFC 9110
    # 10.1.1 forbids it without a body, and lets a server refuse with 417.
    if "Expect" in headers:
        raise HandshakeError(417, "the request has an Expect header, none is allowed in a WebSocket handshake")
