"""Heads: what HTTP/1.1 says of the connection, in requests and in responses (RFC 9112 section 9).

It stands in lines of its own right behind the status line, before those that an application chose.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from rawws.errors import HttpError
from rawws.protocol.extensions import parse_tokens
from rawws.protocol.http11 import Headers, serialize_fields, serialize_response

if TYPE_CHECKING:
    from rawws.protocol.http11 import HttpResponse, Request

__all__ = [
    "CLOSE",
    "asks_for_websocket",
    "expects_continue",
    "field_lines",
    "persists",
    "says_close",
    "serialize_whole",
    "with_chunks",
    "without_chunks",
]

# RFC 9112 9.6: "A sender SHOULD send a Connection header field (Section 7.6.1 of [HTTP]) containing the "close"
# connection option when it intends to close a connection."
CLOSE = b"Connection: close\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def persists(request: Request) -> bool:
    """Tell whether the client wants the connection to outlast this request."""
    options = [option.lower() for option in parse_tokens(request.headers.get_all("Connection"), "Connection")]
    # RFC 9112 9.3: "If the received protocol is HTTP/1.1 (or later), the connection will persist"; "if the received
    # protocol is HTTP/1.0, the "keep-alive" connection option is present".
    return "close" not in options and (request.http_version == "1.1" or "keep-alive" in options)


def expects_continue(request: Request) -> bool:
    """Tell whether the client waits for a word before it sends the body; raises HttpError with 417."""
    # RFC 9110 10.1.1: "A server that receives a 100-continue expectation in an HTTP/1.0 request MUST ignore that
    # expectation"; one "that receives an Expect field value other than 100-continue MAY respond with a 417".
    if "Expect" not in request.headers or request.http_version == "1.0":
        return False
    expected = ", ".join(request.headers.get_all("Expect"))
    if expected.lower() != "100-continue":
        raise HttpError(417, f"the expectation is {expected[:64]!r}, allowed is 100-continue")
    return True


def asks_for_websocket(headers: Headers) -> bool:
    """Tell whether a request wants to be a WebSocket."""
    return "websocket" in ",".join(headers.get_all("Upgrade")).lower()


def says_close(headers: Headers) -> bool:
    """Tell whether a response itself says that the connection ends with it."""
    if "Connection" not in headers:
        return False
    return "close" in [option.strip(" \t") for option in ",".join(headers.get_all("Connection")).lower().split(",")]


def with_chunks(response: HttpResponse) -> HttpResponse:
    """Return a response whose head says that its body is sent in chunks."""
    return response._replace(headers=Headers([*response.headers.raw_items(), ("Transfer-Encoding", "chunked")]))


def without_chunks(head: bytes) -> bytes:
    """Return the head of a response for a client of HTTP/1.0: the end of the connection is that of the body."""
    # RFC 9112 6.1: "A server MUST NOT send a response containing Transfer-Encoding unless the corresponding request
    # indicates HTTP/1.1".
    return head.replace(CHUNKED, b"", 1)


@lru_cache(maxsize=64)
def field_lines(fields: tuple[tuple[str, str], ...]) -> bytes:
    """Return the header lines of fields, which are few and the same again and again."""
    return serialize_fields(fields)


def serialize_whole(response: HttpResponse, date: str, connection: bytes, own: bytes, *, omit_body: bool) -> bytes:
    """Return the octets of a response, with these lines of the server's `own` and what is said of the connection.

    A response that says of the connection what it wants is believed, unless it hides that the connection ends.
    """
    data = serialize_response(response, date, omit_body=omit_body)
    headers, lines = response.headers, connection + own
    if "Connection" in headers and (says_close(headers) or connection != CLOSE):
        lines = own
    end_of_line = data.index(b"\r\n") + 2
    return b"%b%b%b" % (data[:end_of_line], lines, data[end_of_line:]) if lines else data
