"""The opening handshake: requests to agreements and back, on both sides (RFC 6455 sections 4.1 and 4.2).

A server calls `check_upgrade`, `check_origin` and `accept`, and writes what the `Acceptance` serializes to; a
`HandshakeError` on the way is answered with `refusal`. A client sends what `build_request` makes, and gives what comes
back to `check_response`.
"""

from __future__ import annotations

import os
import re
from base64 import b64encode
from binascii import b2a_base64
from hashlib import sha1
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from rawws.errors import HandshakeError, HttpError, LocalProtocolError, NegotiationError

from .deflate import Compression, DeflateParameters
from .extensions import Extension, excerpt, format_extensions, is_token, parse_extensions, parse_tokens
from .http11 import Headers, HttpResponse, Request, content_length, serialize_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = [
    "Acceptance",
    "Agreement",
    "Origins",
    "accept",
    "accept_key",
    "build_connect",
    "build_request",
    "check_connect",
    "check_connected",
    "check_origin",
    "check_response",
    "check_upgrade",
    "crosses_origins",
    "make_key",
    "refusal",
]  # fmt: skip

# None: the same origin. "*": any. Else those allowed: exact ones, patterns, and None for a request without Origin.
Origins: TypeAlias = "str | Sequence[str | re.Pattern[str] | None] | None"

_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_SWITCH = [("Upgrade", "websocket"), ("Connection", "Upgrade")]
_ACCEPT = "Sec-WebSocket-Accept"
_PREFIX = b"HTTP/1.1 101 Switching Protocols\r\n" + serialize_fields(_SWITCH) + _ACCEPT.encode()
# RFC 9110 15.5.22: "The server MUST send an Upgrade header field in a 426 response". RFC 6455 4.2.2: it MUST send "a
# |Sec-WebSocket-Version| header field indicating the version(s) the server is capable of understanding."
_UPGRADE = (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"))
# Of a list of origins, so many stand in an error.
_SHOWN = 5
_OWN_HEADERS = {"host", "upgrade", "connection", "origin", "content-length", "transfer-encoding", "expect"}


class Agreement(NamedTuple):
    """What a client and its server agreed on; None where there is no subprotocol, no extension."""

    subprotocol: str | None
    parameters: DeflateParameters | None


class Acceptance(NamedTuple):
    """What a server agreed on (None: no subprotocol, no extension), and the headers that say so."""

    subprotocol: str | None
    parameters: DeflateParameters | None
    fields: list[tuple[str, str]]

    def serialize(self, extra: bytes = b"") -> bytes:
        """Return the bytes of the response; `extra` are lines from `serialize_fields`, such as Server."""
        # No Date: RFC 9110 6.6.1 does not ask for it in a 1xx response, and nothing caches this one.
        # The first of the fields is `accept_key`, in which there is nothing to check.
        return b"%s: %s\r\n%s%s\r\n" % (_PREFIX, self.fields[0][1].encode(), serialize_fields(self.fields[1:]), extra)

    def response(self) -> HttpResponse:
        """Return the response for a hook that adds headers; `serialize_response` writes it then."""
        return HttpResponse(101, Headers([*_SWITCH, *self.fields]))


def accept_key(key: str) -> str:
    """Return the Sec-WebSocket-Accept that answers a Sec-WebSocket-Key (RFC 6455 section 4.2.2)."""
    return b2a_base64(sha1((key + _GUID).encode(), usedforsecurity=False).digest(), newline=False).decode()


def check_upgrade(request: Request) -> str:
    """Check the request of a client and return its key; raises `HandshakeError` with 400, 405, 417 or 426."""
    headers = request.headers
    # RFC 6455 4.1: "The method of the request MUST be GET, and the HTTP version MUST be at least 1.1."
    if request.method != "GET":
        raise HandshakeError(405, f"the method is {excerpt(request.method)}, allowed is GET", (("Allow", "GET"),))
    # RFC 9110 7.8: "A server that receives an Upgrade header field in an HTTP/1.0 request MUST ignore that Upgrade
    # field." So the answer is that to a request without one; 505 is about the major version.
    if request.http_version == "1.0":
        raise HandshakeError(426, "the request is in HTTP/1.0, needed is HTTP/1.1", _UPGRADE)
    # RFC 6455 4.1: "an |Upgrade| header field whose value MUST include the "websocket" keyword." Its elements are
    # tokens, or name/version (RFC 9110 7.8).
    if headers.values_of("upgrade") != ["websocket"] and "websocket" not in _tokens(headers, "Upgrade", "/"):
        raise HandshakeError(426, f"Upgrade is {_came(headers, 'Upgrade')}, needed is 'websocket'", _UPGRADE)
    # RFC 6455 4.1: "a |Connection| header field whose value MUST include the "Upgrade" token." 400 and not 426: the
    # client did ask to upgrade, and what came of it is malformed.
    if headers.values_of("connection") != ["Upgrade"] and "upgrade" not in _tokens(headers, "Connection"):
        raise HandshakeError(400, f"Connection is {_came(headers, 'Connection')}, needed is 'Upgrade'")
    _check_version(headers)
    # RFC 6455 4.1: it "MUST be a nonce consisting of a randomly selected 16-byte value that has been base64-encoded".
    # The four bits left over need not be 0: they are not in the RFC's own example, "AQIDBAUGBwgJCgsMDQ4PEC==".
    key = _only_value(headers, "Sec-WebSocket-Key")
    if len(key) != 24 or key[22:] != "==" or key[:22].encode("latin-1", "replace").translate(None, _BASE64):
        raise HandshakeError(400, f"Sec-WebSocket-Key is {excerpt(key)}, 16 bytes in base64 are needed")
    return key


def check_connect(request: Request) -> None:
    """Check the extended CONNECT of a client for a WebSocket (RFC 8441 section 5); raises `HandshakeError`.

    Of the headers of the handshake there are those that are not about the connection: no Upgrade, no key.
    """
    _check_version(request.headers)


def _check_version(headers: Headers) -> None:
    # RFC 6455 4.2.2: "If this version does not match a version understood by the server, the server MUST abort the
    # WebSocket handshake [...] and instead send an appropriate HTTP error code (such as 426 Upgrade Required)".
    if headers.values_of("sec-websocket-version") != ["13"]:
        came = _came(headers, "Sec-WebSocket-Version")
        raise HandshakeError(426, f"Sec-WebSocket-Version is {came}, understood is 13", _UPGRADE)
    # A body would be one to a proxy and frames to us, so there is none.
    if content_length(headers) or headers.values_of("transfer-encoding"):
        raise HandshakeError(400, "the request announces a body, none is allowed in a WebSocket handshake")
    # RFC 9110 7.8: with Expect, "the server MUST send a 100 (Continue) response before sending a 101". But without a
    # body there is nothing to expect (10.1.1: "A client MUST NOT").
    if headers.values_of("expect"):
        raise HandshakeError(417, "the request has an Expect header, none is allowed in a WebSocket handshake")


def check_origin(request: Request, origins: Origins, scheme: str, host: str) -> str | None:
    """Return the Origin of a request if it is allowed; raises `HandshakeError` with 403 (400 if there are several).

    `origins=None` allows requests without Origin, which no browser sends (RFC 6455 section 4.2.1), and the server's own
    origin, `scheme://host` without a default port: "https" if the client came by TLS, to us or to a trusted proxy, else
    "http", and the value of Host. "*" allows all. A list allows what it names: strings without regard to case, patterns
    for the whole origin in lower case, None for no Origin. "null", the origin of sandboxed frames, must be named; so it
    is judged where there is no Origin, but the browser says that the page is of another one (`crosses_origins`).
    """
    # RFC 6454 7.3: "The user agent MUST NOT include more than one Origin header field in any HTTP request."
    origin = _only_value(request.headers, "Origin") if request.headers.values_of("origin") else None
    # RFC 6455 4.2.2: "The origin is serialized to ASCII and converted to lowercase."
    came = None if origin is None else origin.lower()
    if came is None and crosses_origins(request.headers):
        came = "null"
    if origins is None:
        port = ":443" if scheme == "https" else ":80"
        if came is not None and came.startswith("ws"):
            # Programs that write an Origin write the URI that they connect to; no browser has such an origin.
            came = "http" + came.removeprefix("ws")
        if came is None or came.removesuffix(port) == f"{scheme}://{host.lower().removesuffix(port)}":
            return origin
    else:
        for allowed in [origins] if isinstance(origins, str) else origins:
            if isinstance(allowed, re.Pattern):
                if came is not None and allowed.fullmatch(came):
                    return origin
            elif allowed == "*" or came == (allowed and allowed.lower()):
                return origin
    # RFC 6455 4.2.2: "it MUST return an appropriate HTTP error code (e.g., 403 Forbidden)".
    text = f"Origin is {_came(request.headers, 'Origin')}"
    if origin is None and came is not None:
        text += f" and Sec-Fetch-Site {_came(request.headers, 'Sec-Fetch-Site')}"
    if origins is None:
        own = excerpt(f"{scheme}://{host.lower()}")
        raise HandshakeError(403, f"{text}, allowed is {own}, by the scheme and the Host of the request")
    raise HandshakeError(403, f"{text}, allowed are {_named(origins)}")


def crosses_origins(headers: Headers) -> bool:
    """Tell whether a browser says that the page of another origin sent a request, whatever became of its Origin.

    Fetch Metadata Request Headers 2.3: "same-site" and "cross-site" are not "same-origin", and "none" is the user. What
    is none of the four says nothing: "servers SHOULD ignore this header if it contains an invalid value."
    """
    return headers.values_of("sec-fetch-site") in (["cross-site"], ["same-site"])


def _named(origins: str | Sequence[str | re.Pattern[str] | None]) -> str:
    """Return what an option `origins` allows, for an error."""
    texts = [
        "none" if origin is None else excerpt(origin if isinstance(origin, str) else origin.pattern)
        for origin in ([origins] if isinstance(origins, str) else origins)
    ]
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return (", ".join(texts[:_SHOWN]) or "no others") + more


def accept(
    request: Request,
    key: str,
    *,
    subprotocols: Sequence[str] | None = None,
    select_subprotocol: Callable[[list[str]], str | None] | None = None,
    compression: Compression | None = None,
) -> Acceptance:
    """Negotiate with a client whose request and key are checked; raises `HandshakeError` with 400.

    `subprotocols` stand in the order of preference. As in `websockets`, a server that has some refuses a client that
    offers none of them, unless `select_subprotocol` decides: it gets what is offered and returns one of that or None,
    else `LocalProtocolError` is raised.
    """
    subprotocol = _choose_subprotocol(request.headers, subprotocols, select_subprotocol)
    fields = [(_ACCEPT, accept_key(key))]
    if subprotocol is not None:
        fields.append(("Sec-WebSocket-Protocol", subprotocol))
    # Parsed without compression, too: what is malformed fails the handshake on every server.
    offers = _extensions(request.headers)
    # RFC 6455 9.1: "A server MUST NOT respond with any extension not requested by the client."
    accepted = compression.accept(offers) if compression is not None and offers else None
    if accepted is None:
        return Acceptance(subprotocol, None, fields)
    fields.append(("Sec-WebSocket-Extensions", format_extensions([accepted[0]])))
    return Acceptance(subprotocol, accepted[1], fields)


def _choose_subprotocol(
    headers: Headers, supported: Sequence[str] | None, select: Callable[[list[str]], str | None] | None
) -> str | None:
    offered = parse_tokens(headers.values_of("sec-websocket-protocol"), "Sec-WebSocket-Protocol")
    # RFC 6455 4.1: "The elements that comprise this value [...] MUST all be unique strings."
    if len(set(offered)) < len(offered):
        raise HandshakeError(400, f"Sec-WebSocket-Protocol is {excerpt(', '.join(offered))}, each is allowed once")
    if select is not None:
        chosen = select(list(offered))
        # RFC 6455 4.2.2: "The value chosen MUST be derived from the client's handshake".
        if chosen is not None and chosen not in offered:
            raise LocalProtocolError(f"select_subprotocol returned {chosen!r}, allowed are None and one of {offered!r}")
        return chosen
    for subprotocol in supported or ():
        if subprotocol in offered:
            return subprotocol
    if supported:
        raise HandshakeError(400, f"the subprotocols offered are {offered!r:.99}, known are {', '.join(supported)}")
    return None


def refusal(error: HttpError) -> HttpResponse:
    """Return the response that refuses a request and closes the connection; its body is one line that says why."""
    headers = Headers(error.headers)
    # RFC 9110 7.8: "A sender of Upgrade MUST also send an "Upgrade" connection option".
    headers["Connection"] = "Upgrade, close" if "Upgrade" in headers else "close"
    headers["Content-Type"] = "text/plain; charset=utf-8"
    # The reason may repeat what came, and no browser shall find HTML in that.
    headers["X-Content-Type-Options"] = "nosniff"
    # What came as JSON may have lone surrogates, for which there is no UTF-8.
    return HttpResponse(error.status, headers, f"{error.reason}\n".encode("utf-8", "backslashreplace"))


# -- the client's side


def make_key(random_bytes: Callable[[int], bytes] = os.urandom) -> str:
    """Return a Sec-WebSocket-Key. RFC 6455 4.1: "The nonce MUST be selected randomly for each connection."."""
    return b64encode(random_bytes(16)).decode()


def build_request(
    host: str,
    path: str,
    key: str,
    *,
    origin: str | None = None,
    subprotocols: Iterable[str] = (),
    compression: Compression | None = None,
    headers: Iterable[tuple[str, str]] = (),
) -> Request:
    """Build the request of a client, for `serialize_request`; raises `LocalProtocolError` on what cannot be sent.

    `host` is the value of Host, which has a port unless that is the default one. `headers` are more of them, such as
    Authorization or Cookie; what the handshake itself says cannot be among them, nor what announces a body.
    """
    fields = [*_SWITCH, ("Sec-WebSocket-Key", key)]
    return Request("GET", path, _offer(host, fields, origin, subprotocols, compression, headers))


def build_connect(
    host: str,
    path: str,
    *,
    origin: str | None = None,
    subprotocols: Iterable[str] = (),
    compression: Compression | None = None,
    headers: Iterable[tuple[str, str]] = (),
) -> Request:
    """Build the extended CONNECT of a client, for `Http2Endpoint.request` with the protocol "websocket" (RFC 8441).

    It says what `build_request` does, but for what is about a connection of HTTP/1.1; raises what that raises.
    """
    return Request("CONNECT", path, _offer(host, [], origin, subprotocols, compression, headers), "2")


def _offer(
    host: str,
    fields: Iterable[tuple[str, str]],
    origin: str | None,
    subprotocols: Iterable[str],
    compression: Compression | None,
    headers: Iterable[tuple[str, str]],
) -> Headers:
    """Return the headers of a handshake, with these `fields` behind Host."""
    fields = [("Host", host), *fields, ("Sec-WebSocket-Version", "13")]
    if origin is not None:
        fields.append(("Origin", origin))
    offered = list(subprotocols)
    if not all(map(is_token, offered)) or len(set(offered)) < len(offered):
        raise LocalProtocolError(f"the subprotocols are {offered!r}, different tokens are needed")
    if offered:
        fields.append(("Sec-WebSocket-Protocol", ", ".join(offered)))
    if compression is not None:
        fields.append(("Sec-WebSocket-Extensions", format_extensions(compression.offers())))
    for name, value in headers:
        if name.lower() in _OWN_HEADERS or name.lower().startswith("sec-websocket-"):
            raise LocalProtocolError(f"the header {name!r} cannot be added, it is the handshake's own")
        fields.append((name, value))
    return Headers(fields)


def check_response(
    response: HttpResponse, key: str, *, subprotocols: Iterable[str] = (), compression: Compression | None = None
) -> Agreement:
    """Check the response to a request of `build_request`, and return what was agreed on.

    Raises `HandshakeError` with the status and the headers of the response. After an interim response (1xx but 101) a
    client reads the next head instead (RFC 9110 section 15.2).
    """
    came = tuple(response.headers.raw_items())
    if response.status != 101:
        phrase = excerpt(response.reason_phrase)
        raise HandshakeError(response.status, f"the server answered {response.status} {phrase}, needed is 101", came)
    try:
        _check_switch(response, key)
        return _agree(response, subprotocols, compression)
    except HandshakeError as error:
        raise type(error)(101, error.reason, came) from None


def check_connected(
    response: HttpResponse, *, subprotocols: Iterable[str] = (), compression: Compression | None = None
) -> Agreement:
    """Check the response to a request of `build_connect`, and return what was agreed on (RFC 8441 section 5).

    Raises `HandshakeError` with the status and the headers of the response.
    """
    status, came = response.status, tuple(response.headers.raw_items())
    # RFC 9110 9.3.6: "Any 2xx (Successful) response indicates that the sender [...] will switch to tunnel mode".
    if not 200 <= status < 300:
        raise HandshakeError(status, f"the server answered {status}, needed is 200", came)
    try:
        return _agree(response, subprotocols, compression)
    except HandshakeError as error:
        raise type(error)(status, error.reason, came) from None


def _agree(response: HttpResponse, subprotocols: Iterable[str], compression: Compression | None) -> Agreement:
    # RFC 6455 4.1: if it "indicates the use of a subprotocol that was not present in the client's handshake [...], the
    # client MUST _Fail the WebSocket Connection_.", and the same of "an extension that was not present".
    subprotocol, offered = None, list(subprotocols)
    if "Sec-WebSocket-Protocol" in response.headers:
        subprotocol = _only_value(response.headers, "Sec-WebSocket-Protocol")
        if subprotocol not in offered:
            raise NegotiationError(
                response.status, f"the server chose the subprotocol {excerpt(subprotocol)} of {offered!r}"
            )
    answer = _extensions(response.headers)
    if compression is None and answer:
        raise NegotiationError(
            response.status, f"the server chose the extension {excerpt(answer[0][0])}, none was offered"
        )
    return Agreement(subprotocol, None if compression is None else compression.confirm(answer))


def _check_switch(response: HttpResponse, key: str) -> None:
    headers = response.headers
    # RFC 9110 15.2: "a server MUST NOT send a 1xx response to an HTTP/1.0 client", nor can HTTP/1.0 upgrade.
    if response.http_version == "1.0":
        raise HandshakeError(101, "the response is in HTTP/1.0, needed is HTTP/1.1")
    # RFC 6455 4.1: if "the |Upgrade| header field contains a value that is not an ASCII case-insensitive match for the
    # value "websocket", the client MUST _Fail the WebSocket Connection_."
    if _tokens(headers, "Upgrade", "/") != ["websocket"]:
        raise HandshakeError(101, f"Upgrade is {_came(headers, 'Upgrade')}, needed is 'websocket'")
    # RFC 6455 4.1: if Connection "doesn't contain a token that is an ASCII case-insensitive match for the value
    # "Upgrade", the client MUST _Fail the WebSocket Connection_."
    if "upgrade" not in _tokens(headers, "Connection"):
        raise HandshakeError(101, f"Connection is {_came(headers, 'Connection')}, needed is 'Upgrade'")
    # RFC 6455 4.1: if "the |Sec-WebSocket-Accept| contains a value other than the base64-encoded SHA-1 of [...], the
    # client MUST _Fail the WebSocket Connection_." It is no secret: no constant time is needed.
    accepted, needed = _only_value(headers, "Sec-WebSocket-Accept"), accept_key(key)
    if accepted != needed:
        raise HandshakeError(101, f"Sec-WebSocket-Accept is {excerpt(accepted)}, needed is {needed!r}")


# -- both sides


def _came(headers: Headers, name: str) -> str:
    return excerpt(", ".join(headers.get_all(name))) if name in headers else "absent"


def _only_value(headers: Headers, name: str) -> str:
    values = headers.values_of(name.lower())
    if len(values) != 1:
        raise HandshakeError(400, f"there are {len(values)} {name} headers, exactly one is needed")
    return values[0]


def _tokens(headers: Headers, name: str, also: str = "") -> list[str]:
    return [token.lower() for token in parse_tokens(headers.values_of(name.lower()), name, also)]


def _extensions(headers: Headers) -> list[Extension]:
    # RFC 6455 9.1: "this header field MAY be split or combined across multiple lines."
    values = headers.values_of("sec-websocket-extensions")
    return parse_extensions(", ".join(values)) if values else []
