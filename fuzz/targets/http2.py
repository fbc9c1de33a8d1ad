"""Connections of HTTP/2, in both roles.

Invariant: any octets, in any pieces, give the same events, the same error with a code of RFC 9113, and the same
answers, which are whole frames; no event follows an error; what is held is bounded by the limits, and streams that are
over are in no table. What the encoder writes of header fields is what they were.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fuzz.target import Target, cut, seed, short
from rawws.errors import Http2Error

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuzz.twins import Twin

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_FRAME = 16384
MAX_STREAMS, MAX_LIST, BURST = 3, 300, 60


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


class Connections:
    """Makes connections of one twin and sees what comes of octets."""

    def __init__(self, twin: Twin) -> None:
        self.http2 = twin.load("rawws.protocol.http2")
        self.hpack = twin.load("rawws.protocol.hpack")
        self.http11 = twin.load("rawws.protocol.http11")
        self.roles = list(twin.load("rawws.protocol.connection").Role)
        self.limits = self.http2.DEFAULT_HTTP2_LIMITS._replace(
            max_streams=MAX_STREAMS, max_header_list=MAX_LIST, idle_frames=BURST, resets=BURST
        )

    def make(self, settings: int) -> Any:
        """Return a connection that is past its preface, unless the settings say otherwise."""
        role = self.roles[settings & 1]
        connection = self.http2.Http2Endpoint(role, self.limits, connect_protocol=settings & 2 != 0)
        if settings & 4 == 0:
            connection.receive((b"" if settings & 1 else PREFACE) + frame(4, 0, 0))
            assert type(connection.next_event()).__name__ == "SettingsReceived"
        if settings & 1:
            for method in ("GET", "HEAD", "CONNECT"):
                request = self.http11.Request(method, "/", self.http11.Headers({"Host": "a"}))
                connection.request(request, end_stream=settings & 8 == 0)
        connection.data_to_send()
        return connection

    def run(self, pieces: list[bytes], settings: int) -> tuple[Any, ...]:
        """Return what comes of the pieces."""
        connection = self.make(settings)
        events: list[tuple[Any, ...]] = []
        error = None
        for piece in pieces:
            connection.receive(piece)
            try:
                while (event := connection.next_event()) is not None:
                    assert error is None, "an event after an error"
                    self.see(connection, event, events, settings)
            except Http2Error as failure:
                assert error is None, "two errors"
                assert 0 <= failure.error_code <= 0xD, failure
                error = (failure.error_code, failure.reason)
            connection.keep_buffer()
            self.check(connection)
        octets = b"".join(connection.data_to_send())
        return events, error, octets

    def see(self, connection: Any, event: Any, events: list[tuple[Any, ...]], settings: int) -> None:
        """Note an event as what can be compared, and do what an application does."""
        name = type(event).__name__
        stream: Any = getattr(event, "stream", None)
        if name == "DataReceived":
            seen = (name, stream.id, bytes(event.data), event.end_stream)
            if events and events[-1][:2] == seen[:2] and not events[-1][3]:
                seen = (*seen[:2], events.pop()[2] + seen[2], seen[3])
            if settings & 16 and event.end_stream:
                connection.acknowledge(stream, len(seen[2]))
            events.append(seen)
            return
        values = [getattr(event, field) for field in event._fields if field != "stream"]
        events.append((name, stream and stream.id, *map(self.plain, values)))
        if name == "RequestReceived" and settings & 32 and stream.may_send():
            connection.respond(stream, 200, self.http11.Headers({"X": event.request.method}), settings & 64 != 0)

    def plain(self, value: Any) -> Any:
        """Return a value of an event that is equal to that of another."""
        if type(value).__name__ == "Request":
            return value.method, value.path, self.plain(value.headers)
        if type(value).__name__ == "Headers":
            fields = list(value.raw_items())
            encoder, decoder = self.hpack.HpackEncoder(), self.hpack.HpackDecoder(1 << 20)
            for _ in range(2):
                assert decoder.decode(encoder.encode(fields)) == fields
            for name, text in fields:
                assert name == name.lower(), name
                assert not set(name + text) & set("\r\n\0"), (name, text)
            return tuple(fields)
        return value

    def check(self, connection: Any) -> None:
        """See that nothing grew."""
        assert len(connection.streams) <= MAX_STREAMS
        assert len(connection.closed) <= 256
        assert connection.decoder.table.size <= connection.decoder.table.max_size <= 4096
        assert all(stream.state in {1, 2, 3} for stream in connection.streams.values())
        assert connection.pending() < 100 * 2 * BURST


def make(twin: Twin) -> Callable[[bytes], object]:
    """Return the function that reads what came on a connection."""
    connections = Connections(twin)

    def check(data: bytes) -> object:
        if len(data) < 2:
            return None
        octets = data[2:]
        whole = connections.run([octets], data[0])
        pieces = connections.run(cut(octets, data[1]), data[0])
        assert pieces == whole, (pieces, whole)
        events, error, sent = whole
        kinds = []
        at = 0
        while at < len(sent):
            length = int.from_bytes(sent[at : at + 3], "big")
            assert length <= MAX_FRAME, length
            kinds.append(sent[at + 3])
            at += 9 + length
        assert at == len(sent), "an answer is cut"
        assert (error is None) or kinds[-1] == 7, kinds
        return error and (error[0], short(error[1])), frozenset(event[0] for event in events), frozenset(kinds)

    return check


def block(*fields: tuple[bytes, bytes]) -> bytes:
    """Return a header block without Huffman codes and tables."""
    return b"".join(b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in fields)


GET = b"\x82\x87\x84\x01\x01a"
POST = b"\x83\x87\x84\x01\x01a"
CONNECT = block((b":method", b"CONNECT"), (b":protocol", b"websocket"), (b":scheme", b"https")) + b"\x84\x01\x01a"
OK = b"\x88"
WIRE = [
    frame(1, 5, 1, GET),
    frame(1, 4, 1, POST) + frame(0, 0, 1, b"Hello") + frame(0, 1, 1, b"!"),
    frame(1, 4, 1, POST + block((b"content-length", b"3"))) + frame(0, 9, 1, b"\x02abc\0\0"),
    frame(1, 4, 1, POST) + frame(0, 0, 1, b"x") + frame(1, 5, 1, block((b"t", b"u"))),
    frame(1, 4, 1, CONNECT) + frame(0, 0, 1, b"\x81\x80\0\0\0\0") + frame(0, 1, 1),
    frame(1, 1, 1, GET[:2]) + frame(9, 0, 1, GET[2:3]) + frame(9, 4, 1, GET[3:]),
    frame(1, 0x25, 1, b"\0\0\0\0\x10" + GET) + frame(2, 0, 3, b"\0\0\0\x01\x10"),
    frame(1, 5, 1, GET) + frame(3, 0, 1, b"\0\0\0\x08") + frame(0, 0, 1, b"late"),
    frame(1, 5, 1, GET) + frame(1, 5, 3, GET + b"\x40\x01a\x01b\xbe") + frame(1, 5, 5, GET + b"\xbe"),
    frame(4, 0, 0, b"\0\x04\0\0\0\x05\0\x01\0\0\0\0\0\x08\0\0\0\x01") + frame(4, 1, 0) + frame(6, 0, 0, b"12345678"),
    frame(8, 0, 0, b"\0\0\0\x10") + frame(1, 4, 1, POST) + frame(8, 0, 1, b"\x7f\xff\xff\xff"),
    frame(7, 0, 0, b"\0\0\0\x01\0\0\0\0bye") + frame(6, 1, 0, b"12345678"),
    frame(1, 4, 1, OK) + frame(0, 1, 1, b"Hello") + frame(1, 5, 3, OK + block((b"content-length", b"9"))),
    frame(1, 4, 1, block((b":status", b"103"))) + frame(1, 4, 1, OK) + frame(0, 0, 1, b"x") + frame(1, 5, 1, b""),
    frame(1, 4, 5, OK) + frame(0, 1, 5, b"tunnel") + frame(5, 4, 1, bytes(4)),
    frame(1, 5, 1, GET + block((b"Upper", b"x"))) + frame(1, 5, 3, GET + block((b"te", b"gzip"))),
    frame(1, 5, 1, GET + b"\x00\x85\x25\xa8\x49\xe9\x5b\x84\x25\xa8\x49\xff"),
    frame(1, 5, 1, GET + b"\x3f\xe1\x1f") + frame(0xAA, 0, 0, b"?"),
    b"".join(frame(1, 4, stream, POST) for stream in (1, 3, 5, 7, 9)),
    PREFACE + frame(4, 0, 0) + frame(1, 5, 1, GET),
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
]
SETTINGS = (0, 1, 2, 4, 9, 0x33, 0x63)
SEEDS = [seed(octets, settings, number) for number, octets in enumerate(WIRE) for settings in SETTINGS]

WORDS = [
    *(frame(kind, flags, stream) for kind, flags, stream in ((0, 1, 1), (0, 0, 3), (4, 0, 0), (4, 1, 0), (9, 4, 1))),
    frame(1, 5, 3, GET), frame(1, 4, 1, POST), frame(1, 5, 1, OK), frame(3, 0, 1, bytes(4)),
    frame(8, 0, 1, b"\0\0\0\1"),
    frame(6, 0, 0, bytes(8)), frame(2, 0, 1, bytes(5)), frame(7, 0, 0, bytes(8)), GET, POST, CONNECT, OK,
    block((b"content-length", b"1")), block((b"cookie", b"a=b")), block((b"host", b"a")), block((b"a", b"b")),
    b"\x40\x01a\x01b", b"\x20", b"\x3f\xe1\x1f", b"\xbe", b"\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b":path", PREFACE,
]  # fmt: skip
TARGET = Target(make, SEEDS, WORDS)
