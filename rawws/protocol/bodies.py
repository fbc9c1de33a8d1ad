"""Bodies: octets to the body of an HTTP/1.1 message, and pieces to chunks (RFC 9112 sections 6 and 7.1).

Laws: those of `protocol/http11.py`. The same octets in any pieces give the same body and the same verdict; what two
parsers could read in two ways is refused; no octet is searched twice; a fault is a `HttpError` with the status to
answer.
"""

from __future__ import annotations

from typing import Final, NoReturn, final

from rawws.errors import HttpError

from .extensions import DIGITS, TCHARS, excerpt
from .http11 import DEFAULT_LIMITS, Headers, content_length

__all__ = ["Body", "Chunk", "encode_chunk"]

# 2**64 has 17 digits. Who overflows there reads another size than we do.
MAX_DIGITS = 16
# A line with a chunk size and its extensions, as in Go; a signature of 64 digits, which some senders add, fits well.
MAX_LINE = 4096
# What the size lines of a body may be longer than its data pays for: without it, a small body could be an endless one
# (CVE-2023-39326 of Go, whose rule this is). Each chunk may have 16 octets of line, and two more for each of its own.
MAX_EXCESS = 16384

_HEXDIGITS = DIGITS.encode() + b"ABCDEFabcdef"
# RFC 9112 7.1.1: tokens and quoted strings, with whitespace between them; no CR, no LF, no other control.
_EXTENSION = b"\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))

# What the next line of a chunked body is, and how many octets it may have without its CRLF.
SIZE, END, TRAILER = "a chunk size line", "the end of a chunk", "a trailer line"
LINES: Final = {SIZE: MAX_LINE, END: 0, TRAILER: DEFAULT_LIMITS.max_line}


# A chunk that is longer is not remembered.
LONGEST = 65536


@final
class Chunk:
    """A piece of a body, and its chunk; `last` is the one that was made last, if it is not too long."""

    __slots__ = ("octets", "payload")

    last: Chunk

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.octets = b"%x\r\n%b\r\n" % (len(payload), payload)


Chunk.last = Chunk(b"")


def encode_chunk(payload: bytes) -> bytes:
    """Return the chunk of a piece of a body, which is not empty; what goes to many is framed once."""
    last = Chunk.last
    if last.payload is not payload:
        last = Chunk(payload)
        if len(payload) <= LONGEST:
            Chunk.last = last
    return last.octets


@final
class Body:
    """Decodes the body of one message, whose head has been parsed, and whose method and status allow one.

    Give what comes to `receive`, and use what it returns, until `done`; `rest` is what came behind the end. Where the
    peer ends the connection, call `receive_eof`. `until_eof` is for a response, which may have no other end; a request
    without Content-Length and Transfer-Encoding has an empty body. `max_size` is that of the body in bytes, None for no
    limit. After an error the body is of no more use, and neither is the connection.
    """

    __slots__ = ("_chunked", "_excess", "_left", "_line", "_max_size", "_next", "_size", "_trailers", "done", "rest")

    def __init__(self, headers: Headers, *, max_size: int | None, until_eof: bool = False) -> None:
        self.rest = b""
        self._max_size = max_size
        # Octets of the body that were announced, or came where nothing announces them.
        self._size = 0
        # How many octets of data come before the next line or the end; None where only the end of the connection tells.
        self._left: int | None = 0
        self._chunked = "Transfer-Encoding" in headers
        self._next = SIZE
        self._line = bytearray()
        self._excess = 0
        # Octets and lines of the trailer section.
        self._trailers = (0, 0)
        if not self._chunked:
            length = content_length(headers)
            self._announce(length or 0)
            self._left = None if length is None and until_eof else length or 0
        self.done = not self._chunked and self._left == 0

    def receive(self, data: bytes) -> bytes:
        """Take the next octets, return those of the body. Raises `HttpError` with 400, 413 or 431."""
        if self._chunked and not self.done:
            return self._receive_chunks(data)
        if self._left is None:
            self._announce(len(data))
            return data
        piece, rest = (data, b"") if len(data) <= self._left else (data[: self._left], data[self._left :])
        self._left -= len(piece)
        self.done = self._left == 0
        self.rest += rest
        return piece

    def receive_eof(self) -> None:
        """End the body: the peer sends no more. Raises `HttpError` with 400 if the body is not complete."""
        if self._left is None:
            self._left, self.done = 0, True
        # RFC 9112 8: "A message body that uses the chunked transfer coding is incomplete if the zero-sized chunk that
        # terminates the encoding has not been received"; one with a Content-Length, "if the size of the message body
        # received (in octets) is less than" it.
        if not self.done:
            came = self._size - self._left
            how = "which is chunked" if self._chunked else f"of {self._size} bytes"
            raise HttpError(400, f"the connection ended in the body, {how}, after {came} bytes")

    def _announce(self, size: int) -> None:
        self._size += size
        if self._max_size is not None and self._size > self._max_size:
            raise HttpError(413, f"the body is over the limit of {self._max_size} bytes")

    def _receive_chunks(self, data: bytes) -> bytes:
        # Not a list of pieces: that of a chunk of one octet takes 200.
        content: bytes | bytearray = bytearray()
        at, end = 0, len(data)
        while at < end and not self.done:
            if self._left:
                stop = min(at + self._left, end)
                if stop - at == end:
                    content = data
                else:
                    content += data[at:stop]
                self._left -= stop - at
                at = stop
            else:
                at = self._take_line(data, at)
        self.rest = data[at:]
        return bytes(content)

    def _take_line(self, data: bytes, at: int) -> int:
        """Take a line, or as much of it as there is; return where it ends."""
        limit = LINES[self._next] + 2
        stop = at + limit - len(self._line)
        end = data.find(b"\n", at, stop) + 1
        self._line += data[at : end or stop]
        if not end:
            if len(self._line) == limit:
                self._refuse_line(f"is over {LINES[self._next]} bytes", 431)
            return min(stop, len(data))
        # RFC 9112 2.2 allows to take a bare LF for CRLF in the head; nothing allows it here.
        if not self._line.endswith(b"\r\n"):
            self._refuse_line("ends with a bare LF, needed is CRLF")
        line = bytes(self._line[:-2])
        self._line.clear()
        if self._next == SIZE:
            self._take_size(line)
        elif self._next == END:
            self._next = SIZE
        else:
            self._take_trailer(line)
        return end

    def _refuse_line(self, why: str, status: int = 400) -> NoReturn:
        if self._next == END:
            # What is not checked here is skipped, and two octets are enough to smuggle (CVE-2025-43859 of h11).
            came = excerpt(self._line.decode("latin-1"))
            raise HttpError(400, f"behind the data of a chunk comes {came}, needed is CRLF")
        raise HttpError(status if self._next == TRAILER else 400, f"{self._next} {why}")

    def _take_size(self, line: bytes) -> None:
        # RFC 9112 7.1: chunk-size = 1*HEXDIG. int() would take a sign, a "0x", an underscore and whitespace as well.
        digits, semicolon, extension = line.partition(b";")
        if semicolon:
            # RFC 9112 7.1.1: chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] ). Whitespace
            # behind the size is refused all the same, as by h11: there are parsers that read on, and some that do not.
            name = extension.lstrip(b" \t")[:1].decode("latin-1")
            if not name or name not in TCHARS or extension.translate(None, _EXTENSION):
                raise HttpError(400, f"the chunk extension is {excerpt(extension.decode('latin-1'))}, not a token")
        if not 1 <= len(digits) <= MAX_DIGITS or digits.strip(_HEXDIGITS):
            allowed = f"allowed are 1 to {MAX_DIGITS} hexadecimal digits"
            raise HttpError(400, f"the chunk size is {excerpt(digits.decode('latin-1'))}, {allowed}")
        # RFC 9112 7.1: "recipients MUST anticipate potentially large hexadecimal numerals and prevent parsing errors".
        self._left = size = int(digits, 16)
        self._announce(size)
        # RFC 9112 7.1.1: "A recipient MUST ignore unrecognized chunk extensions. A server ought to limit the total
        # length of chunk extensions received in a request to an amount reasonable for the services provided".
        self._excess = max(0, self._excess + len(line) - 16 - 2 * size)
        if self._excess > MAX_EXCESS:
            raise HttpError(400, f"the chunk extensions are over {MAX_EXCESS} bytes")
        self._next = END if size else TRAILER

    def _take_trailer(self, line: bytes) -> None:
        if not line:
            self.done = True
            return
        # RFC 9112 7.1.2: "A recipient that removes the chunked coding from a message MAY selectively retain or discard
        # the received trailer fields." As headers they could say what a proxy did not look at.
        size, count = self._trailers
        self._trailers = size, count = size + len(line) + 2, count + 1
        if size > DEFAULT_LIMITS.max_head or count > DEFAULT_LIMITS.max_headers:
            allowed = f"{DEFAULT_LIMITS.max_headers} lines and {DEFAULT_LIMITS.max_head} bytes"
            raise HttpError(431, f"there are over {allowed} of trailers")
        Headers().add_lines([line.decode("latin-1")])
