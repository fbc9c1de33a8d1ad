"""Bodies: chunked ones, ones of a known length, and ones that the connection ends.

Invariant: any octets, in any pieces, give the same body with the same rest, or the same HttpError with status 400,
413 or 431; no body is over `max_size`, and no more of a line is held than a line may have. A chunked body that is done
is what a regular expression makes of it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from fuzz.target import Target, cut, seed, short
from rawws.errors import HttpError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuzz.twins import Twin

STATUSES = {400, 413, 431}
MAX_SIZES = (None, 100, 10, 0)
# RFC 9112 7.1: a chunk size with its extensions, and a trailer line.
SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[^\r\n]*)?\r\n")
TRAILER = re.compile(rb"[^\r\n:]+:[^\r\n]*\r\n")


class Outcome(NamedTuple):
    """What comes of octets; of an error no body, for how much of it came before depends on the pieces."""

    body: bytes = b""
    done: bool = False
    rest: bytes = b""
    error: tuple[int, str] | None = None


def dechunked(octets: bytes) -> tuple[bytes, bytes]:
    """Return the body and the rest of a complete chunked body."""
    body, at = b"", 0
    while True:
        size = SIZE.match(octets, at)
        assert size is not None, octets
        at, length = size.end(), int(size[1], 16)
        if length == 0:
            break
        body += octets[at : at + length]
        assert octets[at + length : at + length + 2] == b"\r\n", octets
        at += length + 2
    while (trailer := TRAILER.match(octets, at)) is not None:
        at = trailer.end()
    assert octets[at : at + 2] == b"\r\n", octets
    return body, octets[at + 2 :]


class Reader:
    """Reads bodies."""

    def __init__(self, twin: Twin) -> None:
        self.bodies = twin.load("rawws.protocol.bodies")
        headers = twin.load("rawws.protocol.http11").Headers
        self.headers = [headers({"Transfer-Encoding": "chunked"}), headers({"Transfer-Encoding": "chunked"}), headers(
            {"Content-Length": "40"}), headers()]  # fmt: skip
        self.max_line = max(self.bodies.LINES.values()) + 2

    def read(self, pieces: list[bytes], settings: int) -> Outcome:
        """Return what the octets come to; the connection ends behind them if the settings say so."""
        max_size = MAX_SIZES[settings >> 2 & 3]
        body = b""
        try:
            decoder: Any = self.bodies.Body(self.headers[settings & 3], max_size=max_size, until_eof=settings & 16 != 0)
            for piece in pieces:
                body += decoder.receive(piece)
                assert len(decoder._line) <= self.max_line  # noqa: SLF001 - only it tells what is held
            assert max_size is None or len(body) <= max_size, body
            if settings & 32:
                decoder.receive_eof()
                assert decoder.done
        except HttpError as error:
            assert error.status in STATUSES, error
            return Outcome(error=(error.status, error.reason))
        return Outcome(body, decoder.done, decoder.rest)


def make(twin: Twin) -> Callable[[bytes], object]:
    """Return the function that reads a body."""
    reader = Reader(twin)

    def check(data: bytes) -> object:
        if len(data) < 2:
            return None
        settings, octets = data[0], data[2:]
        whole = reader.read([octets], settings)
        made = reader.read(cut(octets, data[1]), settings)
        assert made == whole, (made, whole)
        if settings & 3 < 2 and whole.done:
            assert (whole.body, whole.rest) == dechunked(octets), whole
        return settings & 3, whole.done, whole.rest == b"", whole.error and short(whole.error[1])

    return check


OCTETS = [
    # RFC 9112 7.1.3 is code; these are what servers and clients send.
    b"5\r\nHello\r\n0\r\n\r\n",
    b"4\r\nWiki\r\n5\r\npedia\r\nE\r\n in\r\n\r\nchunks.\r\n0\r\n\r\n",
    b"6\r\ndata:\n\r\n1\r\n\n\r\n",
    b"0\r\n\r\nGET / HTTP/1.1\r\n",
    b"a;name=value\r\n0123456789\r\n0\r\n\r\n",
    b'1;a="b;c"\r\nx\r\n0;last\r\n\r\n',
    b"3\r\nabc\r\n0\r\nX-Trailer: 1\r\nX: 2\r\n\r\nrest",
    b"0005\r\nHello\r\n00\r\n\r\n",
    b"5\r\nHello\n0\r\n\r\n",
    b"5\nHello\r\n0\r\n\r\n",
    b"5 \r\nHello\r\n0\r\n\r\n",
    b"5\r\nHelloXX0\r\n\r\n",
    b"0x5\r\nHello\r\n0\r\n\r\n",
    b"+5\r\nHello\r\n0\r\n\r\n",
    b"ffffffffffffffff\r\n",
    b"10000000000000000\r\n",
    b"1;" + b"a" * 300 + b"\r\nx\r\n0\r\n\r\n",
    b"0\r\nTransfer-Encoding : x\r\n\r\n",
    b"0\r\n folded\r\n\r\n",
    b"Hello, a body of no more than forty octets, and some behind it",
]
WORDS = [
    b"\r\n", b"\n", b"\r", b"0\r\n", b"0\r\n\r\n", b"1\r\nx\r\n", b"5\r\nHello\r\n", b"a\r\n", b";", b"; a=b", b'"',
    b"=", b" ", b"\t", b"\0", b"ff\r\n", b"FFFFFFFFFFFFFFFF", b"X: y\r\n", b": y\r\n", b"_", b"0x", b"-", b"+",
    b"\x80", b"\x7f",
]  # fmt: skip
SEEDS = [seed(octets, settings, number) for number, octets in enumerate(OCTETS) for settings in (0, 8, 32)]
SEEDS += [seed(OCTETS[-1], settings, 9) for settings in (2, 3, 16, 19, 34, 35, 47, 51)]
TARGET = Target(make, SEEDS, WORDS)
