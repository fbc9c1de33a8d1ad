"""HTTP/2 frames: octets to frames and back (RFC 9113 sections 4 and 6).

`check_frame` is the one place that knows which headers of frames are legal. `Http2FrameReader` finds frames in octets
that arrive in any pieces, `Http2FrameWriter` gathers frames until they leave in one write. Neither knows what a stream
is. The content of DATA is never held: it is given on as it comes.
"""

from __future__ import annotations

from rawws.errors import Http2Error

from . import http2_codes as codes
from . import masking
from .http2_codes import ErrorCode, FrameType

__all__ = ["Http2FrameReader", "Http2FrameWriter", "check_frame"]

# 4.1: "All frames begin with a fixed 9-octet header followed by a variable-length frame payload."
FRAME_HEADER = 9
# Payloads of this size and above are written from where they are; below it a copy is cheaper than another chunk.
LARGE = 2048
CAPACITY = 2048
# Over this the buffer of a writer is thrown away after a burst.
KEPT = 262144
# The sizes of payloads that have one (6.3, 6.4, 6.7, 6.9); PRIORITY of another size is an error of its stream alone.
FIXED_SIZES = {codes.RST_STREAM: 4, codes.PING: 8, codes.WINDOW_UPDATE: 4}


def check_frame(kind: int, flags: int, stream_id: int, length: int, max_frame_size: int) -> None:
    """Raise `Http2Error` unless a frame may have this header, whatever came before (sections 4.2 and 6)."""
    # 4.2: "An endpoint MUST send an error code of FRAME_SIZE_ERROR if a frame exceeds the size defined in
    # SETTINGS_MAX_FRAME_SIZE, exceeds any limit defined for the frame type, or is too small to contain mandatory frame
    # data."
    if length > max_frame_size:
        raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, f"a frame has {length} bytes, limit {max_frame_size}")
    if kind in FIXED_SIZES and length != FIXED_SIZES[kind]:
        raise Http2Error(
            ErrorCode.FRAME_SIZE_ERROR,
            f"a frame of type {FrameType(kind).name} has {length} bytes, not {FIXED_SIZES[kind]}",
        )
    if kind == codes.SETTINGS:
        # 6.5: "Receipt of a SETTINGS frame with the ACK flag set and a length field value other than 0 MUST be treated
        # as a connection error (Section 5.4.1) of type FRAME_SIZE_ERROR." "A SETTINGS frame with a length other than a
        # multiple of 6 octets MUST be treated as a connection error (Section 5.4.1) of type FRAME_SIZE_ERROR."
        if length % 6 or (flags & codes.ACK and length):
            raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, f"a SETTINGS frame has {length} bytes, not 6 for each setting")
    if kind == codes.GOAWAY and length < 8:
        raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, f"a GOAWAY frame has {length} bytes, at least 8 are needed")
    if kind == codes.SETTINGS or kind == codes.PING or kind == codes.GOAWAY:
        # 6.5, and 6.7 and 6.8 alike: "If an endpoint receives a SETTINGS frame whose Stream Identifier field is
        # anything other than 0x00, the endpoint MUST respond with a connection error (Section 5.4.1) of type
        # PROTOCOL_ERROR."
        if stream_id:
            raise Http2Error(
                ErrorCode.PROTOCOL_ERROR, f"a frame of type {FrameType(kind).name} is on stream {stream_id}, not on 0"
            )
    elif stream_id == 0 and kind <= codes.CONTINUATION and kind != codes.WINDOW_UPDATE:
        # 6.1, and 6.2, 6.3, 6.4, 6.6 and 6.10 alike: "If a DATA frame is received whose Stream Identifier field is
        # 0x00, the recipient MUST respond with a connection error (Section 5.4.1) of type PROTOCOL_ERROR."
        raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"a frame of type {FrameType(kind).name} is on stream 0")


class Http2FrameReader:
    """The frames in octets that arrive in any pieces.

    `feed` lends it a buffer until `keep`, which copies what was not read yet. `read_header` decodes a header into
    `kind`, `flags`, `stream_id`, `length` and, of the payload, `remaining` and `padding`, which are not taken yet. Then
    the payload is taken: whole by `take`, or in pieces by `take_view`.
    """

    __slots__ = (
        "buffer", "end", "flags", "in_frame", "kind", "length", "lent", "max_frame_size", "padding", "position",
        "remaining", "stream_id", "view",
    )  # fmt: skip

    def __init__(self, max_frame_size: int) -> None:
        self.max_frame_size = max_frame_size
        self.buffer = EMPTY
        self.view: memoryview | None = None
        self.position = self.end = 0
        self.lent = False
        self.in_frame = False
        self.kind = self.flags = self.stream_id = self.length = 0
        self.remaining = self.padding = 0

    def feed(self, buffer: bytearray, end: int) -> None:
        """Read `buffer[:end]` behind what is left."""
        if self.position < self.end:
            buffer = self.buffer[self.position : self.end] + buffer[:end]
            end = len(buffer)
        self.buffer = buffer
        self.view = None
        self.position = 0
        self.end = end
        self.lent = True

    def keep(self) -> None:
        """Give the buffer back: what is left is less than a frame, and copied."""
        self.view = None
        if self.position == self.end:
            self.buffer = EMPTY
            self.position = self.end = 0
        elif self.lent:
            self.buffer = self.buffer[self.position : self.end]
            self.position = 0
            self.end = len(self.buffer)
        self.lent = False

    def discard(self) -> None:
        """Forget all that was not read."""
        self.position = self.end
        self.view = None

    def read_header(self) -> bool:
        """Decode the next header; return False where its octets are not all there yet."""
        octets = self.buffer
        at = self.position
        available = self.end - at
        if available < FRAME_HEADER:
            return False
        length = octets[at] << 16 | octets[at + 1] << 8 | octets[at + 2]
        kind = octets[at + 3]
        flags = octets[at + 4]
        # 4.1: the reserved bit "MUST remain unset (0x00) when sending and MUST be ignored when receiving".
        stream_id = (octets[at + 5] & 0x7F) << 24 | octets[at + 6] << 16 | octets[at + 7] << 8 | octets[at + 8]
        check_frame(kind, flags, stream_id, length, self.max_frame_size)
        at += FRAME_HEADER
        padding = 0
        remaining = length
        if flags & codes.PADDED and (kind == codes.DATA or kind == codes.HEADERS):
            if length == 0:
                raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "a padded frame is empty, it has not even its Pad Length")
            if available == FRAME_HEADER:
                return False
            padding = octets[at]
            at += 1
            remaining -= 1 + padding
            # 6.1 and 6.2: "If the length of the padding is the length of the frame payload or greater, the recipient
            # MUST treat this as a connection error (Section 5.4.1) of type PROTOCOL_ERROR."
            if remaining < 0:
                raise Http2Error(
                    ErrorCode.PROTOCOL_ERROR,
                    f"a frame of {length} bytes has {padding} bytes of padding, which is no less",
                )
        self.position = at
        self.kind = kind
        self.flags = flags
        self.stream_id = stream_id
        self.length = length
        self.remaining = remaining
        self.padding = padding
        self.in_frame = True
        return True

    def has_payload(self) -> bool:
        """Tell whether all that remains of the frame is here."""
        return self.remaining + self.padding <= self.end - self.position

    def take(self) -> bytes:
        """Take the payload, which is all here, without its padding, and end the frame."""
        start = self.position
        stop = start + self.remaining
        self.position = stop + self.padding
        self.in_frame = False
        return masking.cut(self.buffer, start, stop)

    def take_view(self) -> memoryview | None:
        """Take what is here of the payload, and of the padding behind it; None where it has no more octets.

        The frame ends where all of it was taken. The view is that of the buffer, and means nothing after `keep`.
        """
        start = self.position
        count = min(self.remaining, self.end - start)
        self.remaining -= count
        self.position = start + count
        if self.remaining == 0:
            skipped = min(self.padding, self.end - self.position)
            self.padding -= skipped
            self.position += skipped
            self.in_frame = self.padding > 0
        if count == 0:
            return None
        if self.view is None:
            self.view = memoryview(self.buffer)
        return self.view[start : start + count]


class Http2FrameWriter:
    """Frames, gathered until they are written: small ones in one buffer, large payloads where they are."""

    __slots__ = ("chunks", "length", "octets", "sealed")

    def __init__(self) -> None:
        self.octets = bytearray(CAPACITY)
        self.length = 0
        self.chunks: list[bytes] | None = None
        self.sealed = 0

    def size(self) -> int:
        """Return how many bytes wait here."""
        return self.sealed + self.length

    def write(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """Append a frame; its payload has less than 2**24 bytes."""
        length = len(payload)
        at = self.length
        room = FRAME_HEADER + (length if length < LARGE else 0)
        if len(self.octets) - at < room:
            self.octets.extend(bytes(len(self.octets) + room))
        octets = self.octets
        octets[at] = length >> 16
        octets[at + 1] = length >> 8 & 0xFF
        octets[at + 2] = length & 0xFF
        octets[at + 3] = kind
        octets[at + 4] = flags
        octets[at + 5] = stream_id >> 24
        octets[at + 6] = stream_id >> 16 & 0xFF
        octets[at + 7] = stream_id >> 8 & 0xFF
        octets[at + 8] = stream_id & 0xFF
        at += FRAME_HEADER
        if length < LARGE:
            masking.place(octets, at, payload, 0, length, 0)
            self.length = at + length
        else:
            self.length = at
            self.append(payload)

    def append(self, octets: bytes) -> None:
        """Append octets without a copy."""
        if self.chunks is None:
            self.chunks = []
        if self.length:
            self.chunks.append(masking.cut(self.octets, 0, self.length))
            self.sealed += self.length
            self.length = 0
        self.chunks.append(octets)
        self.sealed += len(octets)

    def take(self) -> list[bytes]:
        """Return all that waits, in order, and be empty."""
        chunks = self.chunks or []
        if self.length:
            chunks.append(masking.cut(self.octets, 0, self.length))
        if len(self.octets) > KEPT:
            self.octets = bytearray(CAPACITY)
        self.chunks = None
        self.length = self.sealed = 0
        return chunks


EMPTY = bytearray()
