"""HTTP/2 on the wire: frames written and read by other code than the library's, and what comes of octets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import hpack

from rawws.errors import Http2Error
from rawws.protocol.connection import Role
from rawws.protocol.hpack import Field
from rawws.protocol.http2 import DEFAULT_HTTP2_LIMITS, Http2Endpoint
from rawws.protocol.http2_events import DataReceived
from rawws.protocol.http2_limits import Http2Limits
from rawws.protocol.http11 import Headers, Request

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
ACK, END_STREAM, END_HEADERS, PADDED, HAS_PRIORITY = 1, 1, 4, 8, 32

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
REQUEST: list[Field] = [(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "example.com")]
POST: list[Field] = [(":method", "POST"), *REQUEST[1:]]
CONNECT: list[Field] = [
    (":method", "CONNECT"),
    (":protocol", "websocket"),
    (":scheme", "https"),
    (":path", "/chat"),
    (":authority", "server.example.com"),
]


def frame(kind: int, flags: int = 0, stream_id: int = 0, payload: bytes = b"", length: int | None = None) -> bytes:
    """RFC 9113 section 4.1; `length` announces another length than that of the payload."""
    count = len(payload) if length is None else length
    return count.to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big") + payload


def settings(*values: tuple[int, int]) -> bytes:
    return frame(
        SETTINGS, payload=b"".join(code.to_bytes(2, "big") + value.to_bytes(4, "big") for code, value in values)
    )


def number(kind: int, stream_id: int, value: int) -> bytes:
    return frame(kind, 0, stream_id, value.to_bytes(4, "big"))


def block(fields: Iterable[Field]) -> bytes:
    """A header block that touches no table, so that any of them can follow any other."""
    return b"".join(b"\x00" + string(name) + string(value) for name, value in fields)


def string(text: str) -> bytes:
    octets = text.encode("latin-1")
    length = len(octets)
    if length < 127:
        return bytes([length]) + octets
    length -= 127
    count = bytearray(b"\x7f")
    while length >= 128:
        count.append(length & 127 | 128)
        length >>= 7
    count.append(length)
    return bytes(count) + octets


def headers(stream_id: int, fields: Iterable[Field], flags: int = END_HEADERS | END_STREAM) -> bytes:
    return frame(HEADERS, flags, stream_id, block(fields))


def data(stream_id: int, payload: bytes = b"", flags: int = 0) -> bytes:
    return frame(DATA, flags, stream_id, payload)


class Sent(NamedTuple):
    kind: int
    flags: int
    stream_id: int
    payload: bytes


def frames_in(octets: bytes) -> Iterator[Sent]:
    """The frames that lie one behind the other in the octets, with nothing left over."""
    at = len(PREFACE) if octets.startswith(PREFACE) else 0
    while at < len(octets):
        length = int.from_bytes(octets[at : at + 3], "big")
        payload = octets[at + 9 : at + 9 + length]
        assert len(payload) == length, "the last frame is cut"
        yield Sent(octets[at + 3], octets[at + 4], int.from_bytes(octets[at + 5 : at + 9], "big"), payload)
        at += 9 + length


def sent_by(connection: Any) -> list[Sent]:
    """The frames that wait in the connection."""
    return list(frames_in(b"".join(connection.data_to_send())))


def make(role: Role = Role.SERVER, limits: Http2Limits = DEFAULT_HTTP2_LIMITS, *, offer: bool = False) -> Http2Endpoint:
    """A connection that is past its preface, both settings acknowledged, with nothing to send."""
    connection = Http2Endpoint(role, limits, connect_protocol=offer)
    connection.receive((PREFACE if role is Role.SERVER else b"") + settings() + frame(SETTINGS, ACK))
    while connection.next_event() is not None:
        pass
    connection.keep_buffer()
    connection.data_to_send()
    return connection


def describe(event: Any) -> tuple[Any, ...]:
    """An event as a tuple that is equal to another's whichever twin made it."""
    if isinstance(event, DataReceived) or type(event).__name__ == "DataReceived":
        return "DataReceived", event.stream.id, bytes(event.data), event.end_stream
    values = [getattr(event, name) for name in event._fields]
    seen: list[Any] = [value.id if type(value).__name__ == "Http2Stream" else value for value in values]
    for at, value in enumerate(seen):
        if type(value).__name__ == "Request":
            seen[at] = (value.method, value.path, list(value.headers.raw_items()), value.http_version)
        elif type(value).__name__ == "Headers":
            seen[at] = list(value.raw_items())
    return type(event).__name__, *seen


class Outcome(NamedTuple):
    """What came of some octets: events, the error's code and reason, the frames sent in answer."""

    events: list[tuple[Any, ...]]
    error: tuple[int, str] | None
    sent: list[Sent]


def outcome(connection: Any, pieces: Iterable[bytes], *, take: bool = True) -> Outcome:
    """Feed the pieces to the connection, and go on after an error as a careless caller would.

    Content that comes in several events counts as one; with `take` the application takes it at once.
    """
    events: list[tuple[Any, ...]] = []
    error: tuple[int, str] | None = None
    for piece in pieces:
        connection.receive(piece)
        try:
            while (event := connection.next_event()) is not None:
                assert error is None, "an event after an error"
                seen = describe(event)
                if seen[0] == "DataReceived":
                    if take:
                        connection.acknowledge(event.stream, len(seen[2]))
                    if events and events[-1][:2] == seen[:2] and not events[-1][3]:
                        seen = (*seen[:2], events.pop()[2] + seen[2], seen[3])
                events.append(seen)
        except Http2Error as failure:
            assert error is None, "two errors"
            error = (failure.error_code, failure.reason)
        connection.keep_buffer()
    return Outcome(events, error, sent_by(connection))


def verdict(
    octets: bytes,
    role: Role = Role.SERVER,
    limits: Http2Limits = DEFAULT_HTTP2_LIMITS,
    *,
    offer: bool = False,
    requests: int = 0,
) -> Outcome:
    """What comes of these octets, which must be the same octet by octet; a client has sent so many requests before."""
    results = []
    for pieces in ([octets], [octets[at : at + 1] for at in range(len(octets))]):
        connection = make(role, limits, offer=offer)
        for _ in range(requests):
            ask(connection)
        connection.data_to_send()
        results.append(outcome(connection, pieces))
    assert results[0] == results[1]
    return results[0]


def ask(connection: Http2Endpoint, method: str = "GET", *, end_stream: bool = True) -> Any:
    """Send a request."""
    return connection.request(Request(method, "/", Headers({"Host": "example.com"})), end_stream=end_stream)


def failure(
    octets: bytes, role: Role = Role.SERVER, limits: Http2Limits = DEFAULT_HTTP2_LIMITS, **more: Any
) -> tuple[int, str]:
    """The code and reason for which the connection ends, which its GOAWAY says, too."""
    result = verdict(octets, role, limits, **more)
    assert result.error is not None, result
    last = result.sent[-1]
    assert last.kind == GOAWAY
    assert last.payload[4:] == result.error[0].to_bytes(4, "big") + result.error[1].encode()
    return result.error


def resets(
    octets: bytes, role: Role = Role.SERVER, limits: Http2Limits = DEFAULT_HTTP2_LIMITS, **more: Any
) -> list[tuple[int, int]]:
    """The streams that are reset, and with which code."""
    result = verdict(octets, role, limits, **more)
    assert result.error is None, result.error
    return [(sent.stream_id, int.from_bytes(sent.payload, "big")) for sent in result.sent if sent.kind == RST_STREAM]


def fields_of(sent: Sent) -> list[Field]:
    """The fields of a HEADERS frame that refers to no table."""
    return [(name.decode(), value.decode()) for name, value in hpack.Decoder().decode(sent.payload, raw=True)]
