"""The attacks over HTTP/2, where one connection has many streams (RFC 9113 section 10.5).

Found in the advisories of peers: the eight of CVE-2019-9511 to 9518, rapid reset (CVE-2023-44487), MadeYouReset
(CVE-2025-8671), CONTINUATION (CVE-2024-27316), HPACK bomb (CVE-2016-6581), header names that smuggle (CVE-2025-57804).
A connection that is to end says so in its GOAWAY, with the code of the RFC.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from rawws.protocol.http2_codes import ErrorCode
from tests.protocol.http2_wire import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    WINDOW_UPDATE,
    block,
    frame,
    settings,
)
from tests.protocol.http2_wire import number as frame_of_number

from .attacks import MAX_SIZE, WORKS, Attack
from .hostile import HANGS, flood, plain, until_closed
from .hostile import frame as websocket_frame

__all__ = ["HTTP2_ATTACKS"]

INITIAL_WINDOW_SIZE = 4
MAX_STREAMS = 256
WHOLE = END_HEADERS | END_STREAM
LARGEST = (1 << 31) - 1
BINARY = 2


def head(path: str = "/", method: str = "GET", *fields: tuple[str, str]) -> bytes:
    """Return the header block of a request."""
    pseudo = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "localhost")]
    return block([*pseudo, *fields])


def ask(number: int, path: str = "/", method: str = "GET", flags: int = WHOLE) -> bytes:
    """Return a request on the stream of this number, the first is 0."""
    return frame(HEADERS, flags, 2 * number + 1, head(path, method))


def websocket(number: int, path: str = "/") -> bytes:
    """Return the request of a WebSocket (RFC 8441)."""
    protocol = [(":protocol", "websocket"), ("sec-websocket-version", "13")]
    pseudo = [(":method", "CONNECT"), (":scheme", "http"), (":path", path), (":authority", "localhost")]
    return frame(HEADERS, END_HEADERS, 2 * number + 1, block([*pseudo, protocol[0], protocol[1]]))


def update(stream_id: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE frame."""
    return frame_of_number(WINDOW_UPDATE, stream_id, increment)


@contextmanager
def begin(port: int, *values: tuple[int, int], narrow: bool = False) -> Iterator[socket.socket]:
    """Connect, and send the preface and settings."""
    with plain(port, narrow=narrow) as sock:
        sock.sendall(PREFACE + settings(*values))
        yield sock


def frames_of(octets: bytes) -> list[tuple[int, int, bytes]]:
    """Return the type, the stream and the payload of the whole frames in these octets."""
    found, at = [], 0
    while at + 9 <= len(octets):
        length = int.from_bytes(octets[at : at + 3], "big")
        found.append((octets[at + 3], int.from_bytes(octets[at + 5 : at + 9], "big"), octets[at + 9 : at + 9 + length]))
        at += 9 + length
    return found


def check_end(sock: socket.socket, code: ErrorCode) -> None:
    """Read until the server closes; assert that it said why."""
    codes = [
        int.from_bytes(payload[4:8], "big") for kind, _, payload in frames_of(until_closed(sock)) if kind == GOAWAY
    ]
    if codes != [code]:
        raise AssertionError(f"a flood ended its connection with {codes}, it must be {code!r}")


def ending(
    *said: bytes,
    first: bytes = b"",
    code: ErrorCode = ErrorCode.ENHANCE_YOUR_CALM,
    values: Sequence[tuple[int, int]] = (),
) -> Callable[[int], None]:
    """Return an attack: what is said has to end the connection with this code, whether or not it reads meanwhile."""
    data = b"".join(said)

    def attack(port: int) -> None:
        with begin(port, *values) as sock:
            sock.sendall(first)
            flood([sock], data)
            check_end(sock, code)

    return attack


def goes_on(sock: socket.socket) -> bool:
    """Tell whether a connection answers a PING, which is the last that is asked of it."""
    payload = b"the last"
    sock.setblocking(True)
    sock.settimeout(HANGS)
    came = b""
    with suppress(OSError):
        sock.sendall(frame(PING, payload=payload))
        while payload not in came and (piece := sock.recv(65536)):
            came = came[-100:] + piece
    return payload in came


def holding(said: bytes, *values: tuple[int, int], seconds: float = WORKS, count: int = 1) -> Callable[[int], None]:
    """Return an attack: connections that ask, and then do nothing: they read nothing, and end nothing."""

    def attack(port: int) -> None:
        with ExitStack() as stack:
            socks = [stack.enter_context(begin(port, *values, narrow=True)) for _ in range(count)]
            flood(socks, said)
            time.sleep(seconds)

    return attack


# -- header blocks


def stretched(text: bytes) -> bytes:
    """Return a string of HPACK, of 127 octets and more (RFC 7541 section 5.2)."""
    length = len(text) - 127
    return bytes([0x7F, length & 127 | 128, length >> 7]) + text


# A field of 4 KiB for the table, and 16,000 references to it.
BOMB = b"\x40\x01x" + stretched(b"y" * 4000) + b"\xbe" * 12_000
# What is refused with 431 costs its own 32 KiB, and no more.
TOO_LARGE = b"".join(
    frame(HEADERS, END_STREAM, 2 * number + 1, head("/nothing") + b"\x00\x01x" + stretched(b"y" * 16_000))
    + frame(CONTINUATION, END_HEADERS, 2 * number + 1)
    for number in range(500)
)
# As many settings as a frame may have, each for each of the streams.
TOGGLED = settings(*[(INITIAL_WINDOW_SIZE, size) for size in (65_535, 0)] * 16)
SMUGGLED: list[tuple[str, str]] = [
    ("X-Upper", "yes"),
    ("x y", "yes"),
    ("x:y", "yes"),
    ("x\r\ny", "yes"),
    ("x\0", "yes"),
    ("", "yes"),
    ("x\xe9", "yes"),
    ("x", "yes\r\nx-more: yes"),
    ("x", "yes\0"),
    ("x", " yes"),
    ("connection", "close"),
    ("transfer-encoding", "chunked"),
    ("upgrade", "websocket"),
    ("keep-alive", "timeout=5"),
    ("proxy-connection", "close"),
    ("te", "gzip"),
    ("host", "elsewhere"),
    ("content-length", "1, 2"),
    ("content-length", "-1"),
    (":path", "/again"),
    (":status", "200"),
]


def smuggling(port: int) -> None:
    """Header fields that a parser behind this one could read as others: each resets its stream (PROTOCOL_ERROR)."""
    with begin(port) as sock:
        sock.sendall(b"".join(
            frame(HEADERS, WHOLE, 2 * number + 1, head("/facts", "GET", field)) for number, field in enumerate(SMUGGLED)
        ))  # fmt: skip
        came = b""
        while len(ends := [(at, octets) for kind, at, octets in frames_of(came) if kind == RST_STREAM]) < len(SMUGGLED):
            piece = sock.recv(65536)
            if not piece:
                raise AssertionError(f"the connection ended behind {ends}")
            came += piece
        if any(octets != b"\0\0\0\1" for _, octets in ends) or HEADERS in {kind for kind, _, _ in frames_of(came)}:
            raise AssertionError(f"the streams ended with {ends}")
        if not goes_on(sock):
            raise AssertionError("the connection ended, and not only its streams")


# -- windows


def small_pieces(port: int) -> None:
    """Windows that are filled by frames of two octets while nobody reads: behind echoes that are not taken."""
    message = websocket_frame(BINARY, bytes(16_000)) * 10 + websocket_frame(BINARY, length=MAX_SIZE)
    pieces = [message[at : at + 16_000] for at in range(0, len(message), 16_000)]
    with begin(port, (INITIAL_WINDOW_SIZE, 0)) as sock:
        for number in range(8):
            sock.sendall(websocket(number))
            flood([sock], b"".join(frame(DATA, 0, 2 * number + 1, piece) for piece in pieces))
        flood([sock], b"".join(frame(DATA, 0, 2 * number + 1, b"xx") for number in range(8)), 12_000)
        time.sleep(WORKS)


def byte_by_byte(port: int) -> None:
    """A body in frames of one octet, which is all that each carries, up to its end; it is answered."""
    with begin(port) as sock:
        sock.sendall(opened(0))
        flood([sock], frame(DATA, 0, 1, b"x"), 60_000, stalls=HANGS)
        if not goes_on(sock):
            raise AssertionError("the connection ended")


def half_bodies(port: int) -> None:
    """Bodies of which a part comes, as much as the windows allow."""
    with begin(port) as sock:
        sock.sendall(b"".join(opened(number) for number in range(16)))
        flood([sock], b"".join(frame(DATA, 0, 2 * number + 1, bytes(16_000)) for number in range(16)), 4)
        time.sleep(WORKS)


def unread_messages(port: int) -> None:
    """Messages of a WebSocket on each stream, whose echoes are not read."""
    message = websocket_frame(BINARY, bytes(16_000))
    with begin(port, narrow=True) as sock:
        sock.sendall(b"".join(websocket(number) for number in range(8)))
        flood([sock], b"".join(frame(DATA, 0, 2 * number + 1, message) for number in range(8)), 100)
        time.sleep(WORKS)


# -- many of them


def pairs(path: str, ends: Callable[[int], bytes], count: int = 2000) -> bytes:
    """Return requests, each with what ends its stream behind it."""
    return b"".join(ask(number, path) + ends(2 * number + 1) for number in range(count))


def cancel(stream_id: int) -> bytes:
    """Return a RST_STREAM frame."""
    return frame_of_number(RST_STREAM, stream_id, ErrorCode.CANCEL)


def opened(number: int) -> bytes:
    """Return a request whose body does not come."""
    return ask(number, "/body", "POST", END_HEADERS)


FILES = b"".join(ask(number, "/large") for number in range(100))


def each(*attacks: Callable[[int], None]) -> Callable[[int], None]:
    """Return an attack: these, one after the other."""

    def attack(port: int) -> None:
        for run in attacks:
            run(port)

    return attack


def paid(name: str, run: Callable[[int], None], streams: int = 1) -> Attack:
    """Return an attack for the table; each of its streams counts as a connection."""
    return Attack(f"HTTP/2: {name}", run, streams, http=True, paid=True, least=0.3)


HTTP2_ATTACKS = [
    # CVE-2023-44487, also where the answer is there at once.
    paid("rapid resets", each(*(ending(pairs(path, cancel)) for path in ("/poll", "/nothing", "/large"))), MAX_STREAMS),
    # CVE-2025-8671.
    paid(
        "resets that the server is made to send",
        each(
            ending(pairs("/events", lambda at: update(at, 0))),
            ending(pairs("/events", lambda at: update(at, LARGEST))),
            ending(pairs("/events", lambda at: frame(DATA, 0, at, b"x"))),
            ending(pairs("/events", lambda at: frame(PRIORITY, 0, at, at.to_bytes(4, "big") + b"\1"))),
        ),
        MAX_STREAMS,
    ),
    paid("more streams than there may be", ending(*(opened(number) for number in range(2000))), MAX_STREAMS),
    # CVE-2024-27316, CVE-2016-6581.
    paid(
        "header blocks without an end",
        each(
            ending(frame(HEADERS, END_STREAM, 1, head()), frame(CONTINUATION, 0, 1) * 100_000),
            ending(frame(HEADERS, 0, 1, head()), frame(CONTINUATION, 0, 1, b"\x82" * 16_000) * 100),
            ending(frame(HEADERS, WHOLE, 1, b"\xff" * 16_000), code=ErrorCode.COMPRESSION_ERROR),
        ),
    ),
    paid("a bomb of HPACK", ending(*(frame(HEADERS, WHOLE, 2 * number + 1, head() + BOMB) for number in range(20)))),
    paid("header fields too large, unread", holding(TOO_LARGE), MAX_STREAMS),
    # CVE-2025-57804.
    paid("header names that smuggle", smuggling, len(SMUGGLED)),
    # CVE-2019-9512, 9513, 9515, 9518.
    paid(
        "frames that carry nothing",
        each(
            ending(frame(PRIORITY, 0, 1, bytes(4) + b"\1") * 20_000),
            ending(update(0, 1) * 20_000),
            ending(frame(GOAWAY, payload=bytes(8)) * 20_000, first=opened(0)),
            ending(frame(77, payload=bytes(100)) * 20_000),
            ending(frame(DATA, 0, 1) * 20_000, first=opened(0)),
            ending(frame(DATA, PADDED, 1, b"\xffx" + bytes(255)) * 20_000, first=opened(0)),
        ),
    ),
    paid("PING and SETTINGS", each(ending(frame(PING, payload=b"a flood!") * 20_000), ending(settings() * 20_000))),
    paid(
        "SETTINGS for all streams",
        each(
            ending(TOGGLED * 2000, first=b"".join(opened(number) for number in range(MAX_STREAMS))),
            ending(settings(*[(INITIAL_WINDOW_SIZE, 1)] * 2000)),
        ),
        MAX_STREAMS,
    ),
    paid("DATA of one octet", byte_by_byte),
    # CVE-2019-9511, CVE-2019-9517.
    paid(
        "a window of one octet",
        ending(update(1, 1) * 20_000, first=ask(0, "/large"), values=[(INITIAL_WINDOW_SIZE, 1)]),
    ),
    paid("a window of nothing for files", holding(FILES, (INITIAL_WINDOW_SIZE, 0)), 100),
    paid("files, unread", holding(update(0, LARGEST - 65_535) + FILES, (INITIAL_WINDOW_SIZE, LARGEST)), 100),
    Attack(
        "HTTP/2: a window of nothing for event streams",
        holding(b"".join(ask(number, "/events") for number in range(20)), (INITIAL_WINDOW_SIZE, 0), seconds=1.5),
        20,
        http=True,
    ),
    paid("pieces of two octets, unread", small_pieces, 8),
    paid("half bodies", half_bodies, 16),
    Attack("HTTP/2: messages, unread", unread_messages, 8, http=True),
]
