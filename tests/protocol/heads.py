"""Heads fed in all ways: whole, octet by octet and with trailing data, and the verdict on them as one value."""

from __future__ import annotations

from collections.abc import Iterable

from rawws.errors import HandshakeError
from rawws.protocol.http11 import (
    DEFAULT_LIMITS,
    HeadReader,
    HttpResponse,
    Limits,
    Request,
    parse_request,
    parse_response,
)
from tests.protocol.wire import octets_of

# A frame whose payload looks like the end of a head.
TRAILING = b"\x82\x04\r\n\r\n"

# An accepted head and what came behind it; or status, reason and headers of the refusal; or None for "more is needed".
Verdict = tuple[Request | HttpResponse, bytes] | tuple[int, str, tuple[tuple[str, str], ...]] | None


def judge(pieces: Iterable[bytes], limits: Limits = DEFAULT_LIMITS, *, response: bool = False) -> Verdict:
    """The verdict on these pieces of a stream."""
    reader = HeadReader(limits, response=response)
    complete = False
    rest = b""
    try:
        for piece in pieces:
            if complete:
                rest += piece
            elif reader.receive(piece):
                complete = True
                rest = reader.rest
        if not complete:
            return None
        head = parse_response(reader.head) if response else parse_request(reader.head)
    except HandshakeError as error:
        return error.status, error.reason, error.headers
    return head, rest


def verdict(data: bytes, limits: Limits = DEFAULT_LIMITS, *, response: bool = False) -> Verdict:
    """The verdict on a stream, which must be the same octet by octet and, if there is one, with trailing data."""
    result = judge([data], limits, response=response)
    assert judge(octets_of(data), limits, response=response) == result
    if result is not None:
        behind = (result[0], result[1] + TRAILING) if len(result) == 2 else result
        assert judge([data + TRAILING], limits, response=response) == behind
        assert judge([data, TRAILING], limits, response=response) == behind
    return result


def request(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Request:
    """The request that these bytes are, whichever way they come."""
    result = verdict(data, limits)
    assert result is not None
    assert isinstance(result[0], Request), result
    assert result[1] == b""
    return result[0]


def response(data: bytes) -> HttpResponse:
    """The response that these bytes are, whichever way they come."""
    result = verdict(data, response=True)
    assert result is not None
    assert isinstance(result[0], HttpResponse), result
    assert result[1] == b""
    return result[0]


def refusal(data: bytes, limits: Limits = DEFAULT_LIMITS, *, response: bool = False) -> tuple[int, str]:
    """The status and the reason with which these bytes are refused, whichever way they come."""
    result = verdict(data, limits, response=response)
    assert result is not None, "more is needed"
    status, reason = result[0], result[1]
    assert isinstance(status, int), f"accepted: {result}"
    assert isinstance(reason, str)
    return status, reason
