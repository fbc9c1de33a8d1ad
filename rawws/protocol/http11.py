"""HTTP heads: bytes to requests and responses, and back (RFC 9112 sections 2 to 6, RFC 9110 sections 5 to 8).

Laws:
1. Split invariance: the same bytes in any pieces get the same verdict, which is that on the first faulty line; in a
   line the length is judged first, then the octets, then the grammar.
2. What two parsers could read in two ways is refused, even where the RFC allows to be lenient (bare LF, obs-fold,
   repeated Content-Length, an empty line before the request line, `%` in a host): smuggling lives on that.
3. Linear time: no regular expression, and no octet is searched again when the next one arrives.
4. A fault is a `HandshakeError`: on a server with the status to answer, on a client with status 0, for it was no
   response. What this program would send that is not HTTP raises `LocalProtocolError`; nothing is stripped silently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from http import HTTPStatus
from typing import NamedTuple, TypeVar, final

from rawws.errors import HandshakeError, LocalProtocolError

from .extensions import DIGITS, TCHARS, excerpt, is_token

__all__ = [
    "DEFAULT_LIMITS",
    "HeadReader",
    "Headers",
    "HttpResponse",
    "Limits",
    "MultipleValuesError",
    "Request",
    "check_host",
    "content_length",
    "parse_request",
    "parse_response",
    "serialize_fields",
    "serialize_request",
    "serialize_response",
]  # fmt: skip

# The octets that may stand in each part: `part.translate(None, OCTETS)` leaves those that may not, at memory speed.
_VISIBLE = bytes(range(0x21, 0x7F))
_REQUEST_LINE = b" " + _VISIBLE
# RFC 9112 3.2: a fragment is never sent. What RFC 3986 would percent-encode (`{`, `|`) is: browsers do, in queries.
TARGET_OCTETS = _VISIBLE.replace(b"#", b"")
# RFC 9110 5.5: "Field values containing CR, LF, or NUL characters are invalid and dangerous"; so are other controls.
FIELD_OCTETS = b"\t " + _VISIBLE + bytes(range(0x80, 0x100))

# RFC 3986 3.2.2: reg-name, without "%": who decodes it where is not agreed upon, and DNS does not need it.
_HOST = "-._~!$&'()*+,;=" + DIGITS + "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_IPV6 = DIGITS + "ABCDEFabcdef:."

# Names that most handshakes have, as they are written, and in lower case: these need no check, and have one key each.
_KNOWN_NAMES = {
    written: name.lower()
    for name in (
        *("Accept", "Accept-Encoding", "Accept-Language", "Cache-Control", "Connection", "Content-Length"),
        *("Content-Type", "Cookie", "Host", "Origin", "Pragma", "Sec-Fetch-Dest", "Sec-Fetch-Mode", "Sec-Fetch-Site"),
        *("Sec-WebSocket-Extensions", "Sec-WebSocket-Key", "Sec-WebSocket-Protocol", "Sec-WebSocket-Version"),
        *("Upgrade", "User-Agent", "X-Forwarded-For", "X-Forwarded-Proto", "X-Real-IP"),
    )
    for written in (name, name.lower())
}
_KNOWN_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
Start = TypeVar("Start", tuple[str, str, str, str], tuple[str, int, str])  # a request line, a status line
_PHRASES = {int(status): status.phrase for status in HTTPStatus}
_NO_VALUES: tuple[str, ...] = ()
_VERSIONS = {"HTTP/1.1", "HTTP/1.0"}


class Limits(NamedTuple):
    """How large a head may be: bytes of a line without its CRLF, number of headers, bytes of the whole head."""

    # RFC 9112 3 recommends to take 8000 octets at least; 8 KiB is what Apache, nginx and websockets take.
    max_line: int = 8192
    # Browsers send about 15, a chain of proxies adds about 10. Apache takes 100, websockets 128.
    max_headers: int = 64
    # A full request line and a full Cookie; the limit of node. It bounds what a connection holds before it is one.
    max_head: int = 16384


DEFAULT_LIMITS = Limits()


class MultipleValuesError(LookupError):
    """A header was asked for its one value, and it has several."""


@final
class Headers(MutableMapping[str, str]):
    """Header fields: a mapping whose names ignore case and may repeat, as in `websockets`.

    `headers[name]` is the one value: `KeyError` if there is none, `MultipleValuesError` if there are several.
    `headers[name] = value` adds one and replaces none; `LocalProtocolError` if it cannot be sent. Iteration gives each
    name once, in lower case.
    """

    __slots__ = ("_index", "_items")

    def __init__(self, items: Mapping[str, str] | Iterable[tuple[str, str]] = ()) -> None:
        self._items: list[tuple[str, str]] = []
        self._index: dict[str, list[str]] = {}
        if items:  # the parser has none
            self.update(items)

    def __getitem__(self, name: str) -> str:
        values = self._index[name.lower()]
        if len(values) > 1:
            raise MultipleValuesError(f"{name} has {len(values)} values")
        return values[0]

    def __setitem__(self, name: str, value: str) -> None:
        _encode_field(name, value)
        self._items.append((name, value))
        self._index.setdefault(name.lower(), []).append(value)

    def __delitem__(self, name: str) -> None:
        key = name.lower()
        del self._index[key]
        self._items = [item for item in self._items if item[0].lower() != key]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._index

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)

    def __eq__(self, other: object) -> bool:
        return self._index == other._index if isinstance(other, Headers) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # they can change

    def __repr__(self) -> str:
        return f"Headers({self._items!r})"

    def get_all(self, name: str) -> list[str]:
        """Return all values of a header in their order, an empty list if there is none."""
        return list(self._index.get(name.lower(), ()))

    def values_of(self, key: str) -> Sequence[str]:
        """Return the values of a header, whose name is in lower case here; they are no copy."""
        return self._index.get(key, _NO_VALUES)

    def raw_items(self) -> Iterator[tuple[str, str]]:
        """Iterate over all fields as (name, value), in their order and as they were written."""
        return iter(self._items)

    def update(self, items: Mapping[str, str] | Iterable[tuple[str, str]] = (), /, **more: str) -> None:  # type: ignore[override]
        """Add the fields of a mapping, of other headers, or of (name, value) pairs."""
        if isinstance(items, Mapping):
            items = list(items.raw_items() if isinstance(items, Headers) else items.items())
        for name, value in (*items, *more.items()):
            self[name] = value

    def add_checked(self, name: str, value: str) -> None:
        """Add a field whose name and value were checked to be such."""
        self._items.append((name, value))
        self._index.setdefault(name.lower(), []).append(value)

    def add_lines(self, lines: list[str], *, octets_checked: bool = False) -> None:
        """Parse header lines without their CRLF and add them; raises `HandshakeError` with status 400."""
        _add_lines(self._items, self._index, lines, octets_checked)


class Request(NamedTuple):
    """A request head. `path` is the request-target in origin-form, with its query, or `*` (RFC 9112 section 3.2)."""

    method: str
    path: str
    headers: Headers
    http_version: str = "1.1"


class HttpResponse(NamedTuple):
    """A response. An empty `reason_phrase` stands for the usual one of the status when it is sent."""

    status: int
    headers: Headers
    body: bytes = b""
    reason_phrase: str = ""
    http_version: str = "1.1"


@final
class HeadReader:
    """Collects the bytes of one head until the empty line that ends it, within `limits`.

    When `receive` returns True, give `head` to `parse_request` (to `parse_response`, if the reader is for a response);
    `rest` is what came behind it. After an error the reader is of no more use: process nothing of what follows.
    """

    __slots__ = ("_buffer", "_fields", "_limits", "_line", "_response", "_seen", "head", "rest")

    def __init__(self, limits: Limits = DEFAULT_LIMITS, *, response: bool = False) -> None:
        self._limits = limits
        self._response = response
        self._buffer = bytearray()
        self._line = self._seen = 0  # where the first line begins that is not judged yet, where its end can still come
        self._fields = 0
        self.head = self.rest = b""

    def receive(self, data: bytes) -> bool:
        """Take the next bytes; True when the head is complete. Raises `HandshakeError` (law 4)."""
        if not self._buffer:
            limits = self._limits
            end = data.find(b"\r\n\r\n")
            # A head that can break no limit needs this one search; its lines are judged in the parser's one pass.
            small = 0 <= end <= limits.max_line and end + 4 <= limits.max_head
            if small and data.count(b"\n", 0, end) <= limits.max_headers:
                self.head, self.rest = data[: end + 4], data[end + 4 :]
                return True
        self._buffer += data
        try:
            return self._judge_lines()
        except HandshakeError as error:
            raise HandshakeError(0, error.reason) if self._response else error from None

    def received(self) -> bytes:
        """Return all that came, of the head and behind it."""
        return self.head + self.rest or bytes(self._buffer)

    def begins_with(self, octets: bytes) -> bool:
        """Tell whether what came of the head, whole or not, begins with these octets."""
        return self.head.startswith(octets) or self._buffer.startswith(octets)

    def _judge_lines(self) -> bool:
        buffer = self._buffer
        if buffer:
            _check_first(buffer[0], self._response)
        while True:
            end = buffer.find(b"\n", self._seen)
            self._check_length(end if end >= 0 else len(buffer))
            if end < 0:
                self._seen = len(buffer)
                return False
            line = buffer[self._line : end + 1].decode("latin-1")
            if line == "\r\n":
                self.head, self.rest = bytes(buffer[: end + 1]), bytes(buffer[end + 1 :])
                return True
            line = line.removesuffix("\r\n")
            if self._line == 0:
                _parse_status_line(line) if self._response else _parse_request_line(line)
            else:
                self._fields += 1
                if self._fields > self._limits.max_headers:
                    raise HandshakeError(431, f"the head has more than {self._limits.max_headers} headers")
                Headers().add_lines([line])
            self._line = self._seen = end + 1

    def _check_length(self, line_feed: int) -> None:
        """Check where the LF of the current line stands, or the first place where it can still come."""
        max_line, _, max_head = self._limits
        last = self._line + max_line + 1
        if line_feed <= min(last, max_head - 1):
            return
        if last >= max_head:
            raise HandshakeError(431, f"the head is over the limit of {max_head} bytes")
        if self._line:
            raise HandshakeError(431, f"a header line is over the limit of {max_line} bytes")
        # RFC 9112 3: "A server that receives a request-target longer than any URI it wishes to parse MUST respond with
        # a 414 (URI Too Long) status code".
        raise HandshakeError(414, f"the first line is over the limit of {max_line} bytes")


def parse_request(head: bytes) -> Request:
    """Parse the head of a request, its empty line included; raises `HandshakeError` with 400, 405, 501 or 505.

    An absolute-form target is reduced to its path, and Host replaced by its authority.
    """
    (method, authority, path, version), headers = _parse_head(head, _parse_request_line, response=False)
    hosts = headers.values_of("host")
    # RFC 9112 3.2: "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1 request message that
    # lacks a Host header field and to any request message that contains more than one [...] or an invalid" one.
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        raise HandshakeError(400, f"the request has {len(hosts)} Host headers, exactly one is needed")
    if hosts:
        check_host(hosts[0])
    if authority:
        # RFC 9112 3.2.2: "the origin server MUST ignore the received Host header field (if any) and instead use the
        # host information of the request-target."
        headers.pop("Host", None)
        headers["Host"] = authority
    _check_framing(headers, version)
    return Request(method, path, headers, version)


def parse_response(head: bytes) -> HttpResponse:
    """Parse the head of a response, its empty line included; raises `HandshakeError` with status 0."""
    try:
        (version, status, reason), headers = _parse_head(head, _parse_status_line, response=True)
        _check_framing(headers, version)
    except HandshakeError as error:
        raise HandshakeError(0, error.reason) from None
    return HttpResponse(status, headers, b"", reason, version)


def content_length(headers: Headers) -> int | None:
    """Return the value of Content-Length in bytes, None if there is none; raises `HandshakeError` with status 400."""
    values = headers.values_of("content-length")
    if not values:
        return None
    # RFC 9112 6.3: with an invalid Content-Length "the message framing is invalid and the recipient MUST treat it as an
    # unrecoverable error". 18 digits are an exabyte; of more, int() is slow and other parsers overflow.
    value = values[0]
    if len(values) > 1 or not 1 <= len(value) <= 18 or value.strip(DIGITS):
        raise HandshakeError(400, f"Content-Length is {excerpt(', '.join(values))}, one number is allowed")
    return int(value)


def serialize_fields(items: Iterable[tuple[str, str]]) -> bytes:
    """Write header lines; raises `LocalProtocolError` on a name or a value that would break out of its line."""
    return b"".join([_encode_field(name, value) for name, value in items])


def serialize_request(request: Request) -> bytes:
    """Write the head of a request; raises `LocalProtocolError` on what is not HTTP."""
    method, path, headers, version = request
    if not is_token(method) or version not in {"1.0", "1.1"}:
        raise LocalProtocolError(f"the request is {excerpt(method)} in HTTP/{version}, allowed: a token, 1.0 or 1.1")
    target = _encode(path, TARGET_OCTETS, "the path")
    if path != "*" and path[:1] != "/":
        raise LocalProtocolError(f"the path is {excerpt(path)}, it must begin with '/'")
    fields = serialize_fields(headers.raw_items())
    return b"%s %s HTTP/%s\r\n%s\r\n" % (method.encode(), target, version.encode(), fields)


def serialize_response(response: HttpResponse, date: str = "", *, omit_body: bool = False) -> bytes:
    """Write a response, its body included unless `omit_body` (for HEAD); raises `LocalProtocolError`.

    `date` is for a response without Date. Content-Length is added if neither it nor Transfer-Encoding
    is there; one that is there with an empty body announces a body that is sent later.
    """
    status, headers, body, phrase, _ = response
    if not isinstance(status, int) or not 100 <= status <= 599:
        raise LocalProtocolError(f"the status is {status!r}, allowed is 100..599")
    if not isinstance(body, bytes):
        raise LocalProtocolError(f"the body is of type {type(body).__name__}, bytes are needed")
    reason = _encode(phrase or _PHRASES.get(status, ""), FIELD_OCTETS, "the reason phrase")
    fields = list(headers.raw_items())
    lengths = headers.get_all("Content-Length")
    # RFC 9110 6.6.1: "An origin server with a clock [...] MUST generate a Date header field in all 2xx (Successful),
    # 3xx (Redirection), and 4xx (Client Error) responses". The clock is the caller's.
    if date and "Date" not in headers:
        fields.append(("Date", date))
    # RFC 9110 8.6, 9112 6.1: "MUST NOT send a Content-Length [...] in any response with a status code of 1xx" or 204.
    if status < 200 or status in {204, 304}:
        if body or ((lengths or "Transfer-Encoding" in headers) and status != 304):
            raise LocalProtocolError(f"a response with status {status} has no body, and no header that announces one")
    # RFC 9112 6.2: "MUST NOT send a Content-Length header field in any message that contains a Transfer-Encoding".
    elif "Transfer-Encoding" in headers:
        if lengths:
            raise LocalProtocolError("a response has Content-Length and Transfer-Encoding, one of them is allowed")
    elif not lengths:
        fields.append(("Content-Length", str(len(body))))
    elif body and lengths != [str(len(body))]:
        raise LocalProtocolError(f"Content-Length is {', '.join(lengths)}, the body has {len(body)} bytes")
    head = b"HTTP/1.1 %d %s\r\n%s\r\n" % (status, reason, serialize_fields(fields))
    return head if omit_body else head + body


def _check_first(octet: int, response: bool) -> None:
    # Known after one byte, so that a client that speaks TLS here, or anything else, need not time out.
    if chr(octet) not in ("H" if response else TCHARS):
        hint = ", the peer seems to speak TLS" if octet in {0x15, 0x16} else ""
        raise HandshakeError(400, f"the first byte is 0x{octet:02x}, expected is HTTP/1.1{hint}")


def _check_octets(line: str, allowed: bytes) -> None:
    refused = line.encode("latin-1").translate(None, allowed)
    if refused:
        # RFC 9112 2.2: "A recipient of such a bare CR MUST consider that element to be invalid or replace" it. A bare
        # LF, which it allows to take for CRLF, is refused as well (law 2).
        where = "except as CRLF at the end of a line" if refused[0] in b"\r\n" else "there"
        raise HandshakeError(400, f"the head has a line with the octet 0x{refused[0]:02x}, not allowed {where}")


def _parse_head(head: bytes, parse_start: Callable[[str, bool], Start], *, response: bool) -> tuple[Start, Headers]:
    if not head.endswith(b"\r\n\r\n"):
        raise HandshakeError(400, "the head does not end with an empty line")
    # RFC 9112 2.2 has servers ignore an empty line before the request line, for the sake of ancient clients (law 2).
    _check_first(head[0], response)
    lines = head[:-4].decode("latin-1").split("\r\n")
    # All lines at once: what is refused there is looked for line by line.
    checked = head.translate(None, FIELD_OCTETS) == b"\r\n" * (len(lines) + 1)
    start, headers = parse_start(lines[0], checked), Headers()
    headers.add_lines(lines[1:], octets_checked=checked)
    return start, headers


def _add_lines(items: list[tuple[str, str]], index: dict[str, list[str]], lines: list[str], checked: bool) -> None:
    """Parse header lines, whose octets may have been checked, into the fields of `Headers`."""
    for line in lines:
        if not checked:
            _check_octets(line, FIELD_OCTETS)
        name, colon, value = line.partition(":")
        key = _KNOWN_NAMES.get(name)
        if key is None or not colon:
            if not colon or not is_token(name):
                # RFC 9112 5.1: "A server MUST reject, with a response status code of 400 (Bad Request), any received
                # request message that contains whitespace between a header field name and colon." And 5.2: an obs-fold
                # "MUST either [be answered with] a 400 (Bad Request)" or be unfolded.
                hint = " (line folding is not allowed)" if line[:1] in {" ", "\t"} else ""
                raise HandshakeError(400, f"the header line {excerpt(line)} is not a name, a colon and a value{hint}")
            key = name.lower()
        # RFC 9112 5.1: "The field line value does not include that leading or trailing whitespace".
        value = value.strip(" \t")
        items.append((name, value))
        values = index.get(key)
        if values is None:
            index[key] = [value]
        else:
            values.append(value)


def _parse_request_line(line: str, checked: bool = False) -> tuple[str, str, str, str]:
    """Return method, authority (empty unless the target has one), path and version."""
    # Of what may stand in a field, a tab and the octets over 0x7f may not stand here.
    if not checked or "\t" in line or not line.isascii():
        _check_octets(line, _REQUEST_LINE)
    # RFC 9112 3: request-line = method SP request-target SP HTTP-version, with single spaces.
    method, _, rest = line.partition(" ")
    target, _, version = rest.partition(" ")
    if (method not in _KNOWN_METHODS and not is_token(method)) or not target:
        raise HandshakeError(400, f"the request line is {excerpt(line)}, expected are a method, a target and HTTP/1.1")
    if version not in _VERSIONS:
        if len(version) != 8 or version[:5] != "HTTP/" or version[6] != "." or (version[5] + version[7]).strip(DIGITS):
            raise HandshakeError(400, f"the request line ends with {excerpt(version)}, expected is HTTP/1.1")
        hint = ", not HTTP/2 with prior knowledge" if version == "HTTP/2.0" else ""
        raise HandshakeError(505, f"the request is in {version}, this server speaks HTTP/1.1{hint}")
    if method == "CONNECT":
        raise HandshakeError(405, "the method is CONNECT, this server is no proxy", (("Allow", "GET"),))
    if "#" in target:
        raise HandshakeError(400, f"the request target is {excerpt(target)}, a fragment is not allowed")
    if target[0] == "/" or (target == "*" and method == "OPTIONS"):
        return method, "", target, version[5:]
    # RFC 9112 3.2.2: "A server MUST accept the absolute-form in requests".
    scheme, _, rest = target.partition("://")
    if scheme.lower() not in {"http", "https"}:
        raise HandshakeError(400, f"the request target is {excerpt(target)}, it must begin with '/'")
    end = min(end for end in (rest.find("/"), rest.find("?"), len(rest)) if end >= 0)
    check_host(rest[:end])
    return method, rest[:end], rest[end:] if rest[end : end + 1] == "/" else "/" + rest[end:], version[5:]


def _parse_status_line(line: str, checked: bool = False) -> tuple[str, int, str]:
    """Return version, status and reason phrase."""
    if not checked:
        _check_octets(line, FIELD_OCTETS)
    # RFC 9112 4: status-line = HTTP-version SP status-code SP [ reason-phrase ]. Many servers leave the second SP out.
    version, _, rest = line.partition(" ")
    status, _, reason = rest.partition(" ")
    if version not in _VERSIONS or len(status) != 3 or status.strip(DIGITS) or status[0] not in "12345":
        raise HandshakeError(400, f"the status line is {excerpt(line)}, expected are HTTP/1.1 and a status in 100..599")
    return version[5:], int(status), reason


def check_host(value: str) -> None:
    """Check `uri-host [ ":" port ]` (RFC 9110 section 7.2); raises `HandshakeError` with status 400."""
    # RFC 9110 4.2.1, of an empty host: "A recipient that processes such a URI reference MUST reject it as invalid."
    if value[:1] == "[":
        address, _, tail = value[1:].partition("]")
        host, colon, port = tail.partition(":")
        valid = address.count(":") > 1 and not address.strip(_IPV6) and not host and (colon or value[-1] == "]")
    else:
        host, _, port = value.partition(":")
        valid = host and not host.strip(_HOST)
    if not valid or len(port) > 5 or port.strip(DIGITS) or int(port or 0) > 65535:
        raise HandshakeError(400, f"the host is {excerpt(value)}, expected is a name or an address, and maybe a port")


def _check_framing(headers: Headers, version: str) -> None:
    length = content_length(headers)
    coded = headers.values_of("transfer-encoding")
    if not coded:
        return
    # RFC 9112 6.1: "A server MAY reject a request that contains both Content-Length and Transfer-Encoding"; "an
    # HTTP/1.0 message containing a Transfer-Encoding header field MUST [be treated] as if the framing is faulty".
    if length is not None or version == "1.0":
        raise HandshakeError(400, "Transfer-Encoding is allowed in HTTP/1.1 and without Content-Length only")
    # With its empty elements, which h11 and llhttp take for a coding that they do not know (law 2).
    codings = [coding.strip(" \t").lower() for coding in ",".join(coded).split(",")]
    # RFC 9112 6.3: where chunked "is not the final encoding, [...] the server MUST respond with the 400 (Bad Request)".
    # RFC 9112 6.1: "a transfer coding it does not understand SHOULD [be answered] with 501 (Not Implemented)."
    if codings != ["chunked"]:
        status = 501 if codings[-1] == "chunked" and codings.count("chunked") == 1 else 400
        raise HandshakeError(status, f"Transfer-Encoding is {excerpt(', '.join(codings))}, allowed is chunked")


def _encode_field(name: object, value: object) -> bytes:
    if not is_token(name):
        raise LocalProtocolError(f"the header name {name!r} is not a token")
    octets = _encode(value, FIELD_OCTETS, f"the value of the header {name}")
    if octets != octets.strip(b" \t"):
        raise LocalProtocolError(f"the value of the header {name} is {value!r}, whitespace around it is not allowed")
    return b"%s: %s\r\n" % (name.encode(), octets)


def _encode(text: object, allowed: bytes, what: str) -> bytes:
    if not isinstance(text, str):
        raise LocalProtocolError(f"{what} is {text!r}, a str is needed")
    try:
        octets = text.encode("latin-1")
    except UnicodeEncodeError:
        raise LocalProtocolError(f"{what} is {excerpt(text)}, characters over 0xff are not allowed") from None
    refused = octets.translate(None, allowed)
    if refused:
        raise LocalProtocolError(f"{what} is {excerpt(text)}, the octet 0x{refused[0]:02x} is not allowed")
    return octets
