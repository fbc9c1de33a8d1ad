"""HTTP/2 messages: header fields to requests, responses and trailers, and back (RFC 9113 section 8, RFC 8441).

Laws:
1. A message that is malformed is no message (section 8.1.1): what comes out here could also have come in HTTP/1.1, and
   no later parser reads it in another way.
2. A fault of the peer is an `Http2Error` with PROTOCOL_ERROR, which is one of the stream. What this program would send
   that is no message raises `LocalProtocolError`; nothing is stripped silently.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from rawws.errors import HandshakeError, Http2Error, LocalProtocolError

from .extensions import DIGITS, TCHARS, excerpt, is_token
from .http2_codes import ErrorCode
from .http11 import DEFAULT_LIMITS, FIELD_OCTETS, TARGET_OCTETS, Headers, Request, check_host, content_length

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .hpack import Field

__all__ = [
    "StreamRequest",
    "parse_request_fields",
    "parse_response_fields",
    "parse_trailers",
    "request_fields",
    "response_fields",
    "trailer_fields",
]

# 8.2: field names are in lower case.
LOWER_TCHARS: Final = TCHARS.translate({ord(letter): None for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"})
# Names that need no check because nearly every request has them.
KNOWN_NAMES: Final = frozenset((
    "accept", "accept-encoding", "accept-language", "cache-control", "content-length", "content-type", "cookie",
    "origin", "pragma", "priority", "referer", "sec-fetch-dest", "sec-fetch-mode", "sec-fetch-site",
    "sec-websocket-extensions", "sec-websocket-protocol", "sec-websocket-version", "user-agent",
))  # fmt: skip
# 8.2.2: "This includes the Connection header field and those listed as having connection-specific semantics in Section
# 7.6.1 of [HTTP] (that is, Proxy-Connection, Keep-Alive, Transfer-Encoding, and Upgrade)."
CONNECTION_SPECIFIC: Final = frozenset(("connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade"))
REQUEST_PSEUDO: Final = frozenset((":method", ":scheme", ":authority", ":path", ":protocol"))
RESPONSE_PSEUDO: Final = frozenset((":status",))
NO_PSEUDO: Final[frozenset[str]] = frozenset()
MAX_FIELDS: Final = DEFAULT_LIMITS.max_headers


class StreamRequest(NamedTuple):
    """A request that came on a stream: its Host is the authority; `protocol` is that of an extended CONNECT."""

    request: Request
    scheme: str
    protocol: str | None


def malformed(reason: str) -> NoReturn:
    """Refuse a message."""
    raise Http2Error(ErrorCode.PROTOCOL_ERROR, reason)


def parse_request_fields(fields: list[Field], connect_protocol: bool) -> StreamRequest:
    """Return the request that these fields are; `connect_protocol` tells whether `:protocol` was allowed (RFC 8441)."""
    pseudo, headers = _split(fields, REQUEST_PSEUDO)
    method = pseudo.get(":method", "")
    if not is_token(method):
        malformed(f"the method is {excerpt(method)}, needed is a token")
    scheme, path, authority = pseudo.get(":scheme"), pseudo.get(":path"), pseudo.get(":authority")
    protocol = pseudo.get(":protocol")
    if protocol is not None:
        # RFC 8441 3: without the setting, "a non-supporting peer would detect a malformed request and generate a stream
        # error". 4: ":protocol MAY be included" in a CONNECT request; "the :scheme and :path pseudo-header fields of
        # the target URI (see Section 5) MUST also be included".
        if not connect_protocol or method != "CONNECT" or authority is None:
            malformed(f":protocol is {excerpt(protocol)}, which is for an extended CONNECT that this server offered")
        if not is_token(protocol):
            malformed(f":protocol is {excerpt(protocol)}, needed is a token")
    elif method == "CONNECT":
        # 8.5: "The :scheme and :path pseudo-header fields MUST be omitted. The :authority pseudo-header field contains
        # the host and port to connect to". "A CONNECT request that does not conform to these restrictions is
        # malformed".
        if scheme is not None or path is not None or not authority:
            malformed("a CONNECT request has :method and :authority, and no other pseudo-header field")
        return StreamRequest(_with_host(method, "", authority, headers), "", None)
    # 8.3.1: "All HTTP/2 requests MUST include exactly one valid value for the ":method", ":scheme", and ":path"
    # pseudo-header fields, unless they are CONNECT requests".
    if scheme is None or path is None:
        malformed(f"a request of method {method} has no {':scheme' if scheme is None else ':path'}")
    if not scheme or scheme[0] in DIGITS + "+-." or scheme.strip(LOWER_TCHARS + "ABCDEFGHIJKLMNOPQRSTUVWXYZ"):
        malformed(f"the scheme is {excerpt(scheme)}, needed is one as in a URI")
    # 8.3.1: "This pseudo-header field MUST NOT be empty for "http" or "https" URIs"; it begins with "/", but for
    # OPTIONS, which "MUST include a ":path" pseudo-header field with a value of '*'".
    if path[:1] != "/" and (path != "*" or method != "OPTIONS"):
        malformed(f"the path is {excerpt(path)}, it must begin with '/'")
    if path.encode("latin-1").translate(None, TARGET_OCTETS):
        malformed(f"the path is {excerpt(path)}, which has characters that a request target may not have")
    return StreamRequest(_with_host(method, path, authority, headers), scheme, protocol)


def parse_response_fields(fields: list[Field]) -> tuple[int, Headers]:
    """Return the status and the headers of a response, final or not."""
    pseudo, headers = _split(fields, RESPONSE_PSEUDO)
    # 8.3.2: "This pseudo-header field MUST be included in all responses, including interim responses; otherwise, the
    # response is malformed".
    status = pseudo.get(":status", "")
    if len(status) != 3 or status.strip(DIGITS) or status[0] not in "12345":
        malformed(f"the status is {excerpt(status)}, needed is one of 100..599")
    # 8.6: "HTTP/2 removes support for the 101 (Switching Protocols) informational status code".
    if status == "101":
        malformed("the status is 101, which HTTP/2 does not have")
    return int(status), headers


def parse_trailers(fields: list[Field]) -> Headers:
    """Return the trailer fields that came behind the content of a message."""
    # 8.1: "Trailers MUST NOT include pseudo-header fields".
    return _split(fields, NO_PSEUDO)[1]


def _split(fields: list[Field], allowed: frozenset[str]) -> tuple[dict[str, str], Headers]:
    pseudo: dict[str, str] = {}
    headers = Headers()
    cookies: list[str] = []
    count = 0
    for name, value in fields:
        _check_value(name, value)
        if name[:1] == ":":
            # 8.3: "All pseudo-header fields MUST appear in a field block before all regular field lines. Any request or
            # response that contains a pseudo-header field that appears in a field block after a regular field line MUST
            # be treated as malformed". "The same pseudo-header field name MUST NOT appear more than once in a field
            # block." "Endpoints MUST treat a request or response that contains undefined or invalid pseudo-header
            # fields as malformed".
            if count:
                malformed(f"the pseudo-header field {excerpt(name)} follows a header field")
            if name not in allowed or name in pseudo:
                malformed(f"the pseudo-header field {excerpt(name)} is {'twice' if name in pseudo else 'not one'} here")
            pseudo[name] = value
            continue
        # What is split only for the sake of compression counts once.
        count += name != "cookie" or not cookies
        if count > MAX_FIELDS:
            malformed(f"a message has over {MAX_FIELDS} header fields")
        if name == "cookie":
            cookies.append(value)
            continue
        _check_name(name, value)
        headers.add_checked(name, value)
    if cookies:
        # 8.2.3: "If there are multiple Cookie header fields after decompression, these MUST be concatenated into a
        # single octet string using the two-octet delimiter of 0x3b, 0x20 (the ASCII string "; ")".
        headers.add_checked("cookie", "; ".join(cookies))
    return pseudo, headers


def _check_name(name: str, value: str) -> None:
    if name in KNOWN_NAMES:
        return
    # 8.2.1: "A field name MUST NOT contain characters in the ranges 0x00-0x20, 0x41-0x5a, or 0x7f-0xff (all ranges
    # inclusive). This specifically excludes all non-visible ASCII characters, ASCII SP (0x20), and uppercase
    # characters".
    if not name or name.strip(LOWER_TCHARS):
        malformed(f"the name of a header field is {excerpt(name)}, needed is a token in lower case")
    # 8.2.2: "Any message containing connection-specific header fields MUST be treated as malformed". "The only
    # exception to this is the TE header field, which MAY be present in an HTTP/2 request; when it is, it MUST NOT
    # contain any value other than "trailers"."
    if name in CONNECTION_SPECIFIC or (name == "te" and value.lower() != "trailers"):
        malformed(f"a message has the header field {name}: {excerpt(value)}, which is one of HTTP/1.1 connections")


def _check_value(name: str, value: str) -> None:
    # 8.2.1: "A field value MUST NOT contain the zero value (ASCII NUL, 0x00), line feed (ASCII LF, 0x0a), or carriage
    # return (ASCII CR, 0x0d) at any position." No other control character is one of HTTP/1.1.
    if not (value.isascii() and value.isprintable()) and (
        refused := value.encode("latin-1").translate(None, FIELD_OCTETS)
    ):
        malformed(f"the value of {excerpt(name)} has the octet 0x{refused[0]:02x}")
    # 8.2.1: "A field value MUST NOT start or end with an ASCII whitespace character".
    if value and (value[0] in " \t" or value[-1] in " \t"):
        malformed(f"the value of {excerpt(name)} is {excerpt(value)}, with whitespace around it")


def _with_host(method: str, path: str, authority: str | None, headers: Headers) -> Request:
    hosts = headers.get_all("host")
    # 8.3.1: "A server SHOULD treat a request as malformed if it contains a Host header field that identifies an entity
    # that differs from the entity in the ":authority" pseudo-header field." And two are as bad as in HTTP/1.1.
    if len(hosts) > 1 or (hosts and authority is not None and hosts[0].lower() != authority.lower()):
        malformed(f"Host is {excerpt(', '.join(hosts))} and :authority is {excerpt(str(authority))}")
    if authority is None and not hosts:
        malformed("a request has neither :authority nor Host")
    try:
        # 8.3.1: ":authority" MUST NOT include the deprecated userinfo subcomponent for "http" or "https" schemed URIs."
        check_host(hosts[0] if authority is None else authority)
        content_length(headers)
    except HandshakeError as error:
        malformed(error.reason)
    if authority is not None and not hosts:
        headers.add_checked("host", authority)
    return Request(method, path, headers, "2")


def request_fields(request: Request, scheme: str, protocol: str | None = None) -> list[Field]:
    """Return the fields of a request, whose Host becomes `:authority`; `protocol` makes it an extended CONNECT."""
    method, path, headers, _ = request
    if not is_token(method) or (protocol is not None and (method != "CONNECT" or not is_token(protocol))):
        raise LocalProtocolError(
            f"the request is {excerpt(method)} for protocol {protocol}, allowed: a token, or CONNECT"
        )
    fields = [(":method", method)]
    if method != "CONNECT" or protocol is not None:
        if path != "*" and path[:1] != "/":
            raise LocalProtocolError(f"the path is {excerpt(path)}, it must begin with '/'")
        _check_octets("the path", path, TARGET_OCTETS)
        fields += [(":scheme", scheme), (":path", path)]
    fields.append((":authority", headers["Host"]))
    if protocol is not None:
        fields.append((":protocol", protocol))
    return fields + [field for field in _regular(headers.raw_items()) if field[0] != "host"]


def response_fields(status: int, headers: Headers) -> list[Field]:
    """Return the fields of a response."""
    if not 100 <= status <= 599 or status == 101:
        raise LocalProtocolError(f"the status is {status}, allowed is 100..599 without 101")
    return [(":status", str(status)), *_regular(headers.raw_items())]


def trailer_fields(headers: Headers) -> list[Field]:
    """Return the fields of a trailer section."""
    return _regular(headers.raw_items())


def _regular(items: Iterable[Field]) -> list[Field]:
    # 8.2: "Field names MUST be converted to lowercase when constructing an HTTP/2 message." `Headers` has checked the
    # rest.
    fields = [(name.lower(), value) for name, value in items]
    for name, value in fields:
        # 8.2.2: "An endpoint MUST NOT generate an HTTP/2 message containing connection-specific header fields."
        if name in CONNECTION_SPECIFIC or (name == "te" and value != "trailers"):
            raise LocalProtocolError(f"the header {name} is one of HTTP/1.1 connections")
    return fields


def _check_octets(what: str, value: str, allowed: bytes) -> None:
    try:
        refused = value.encode("latin-1").translate(None, allowed)
    except UnicodeEncodeError:
        refused = b"?"
    if refused:
        raise LocalProtocolError(f"{what} is {excerpt(value)}, which has characters that are not allowed")
