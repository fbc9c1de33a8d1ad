"""Header blocks: HEADERS and CONTINUATION frames to the block that they carry, and back (RFC 9113 section 4.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rawws.errors import Http2Error

from . import http2_codes as codes
from .http2_codes import ErrorCode

if TYPE_CHECKING:
    from .http2_frames import Http2FrameWriter
    from .http2_limits import Http2Limits

__all__ = ["HeaderBlock", "write_block"]

MAX_STREAM_ID = (1 << 31) - 1


class HeaderBlock:
    """The header block that is being received: at most one, which no other frame may interrupt.

    `stream_id` is that of its stream, 0 where there is none. `end_stream` and `self_dependent` tell what its HEADERS
    frame had.
    """

    __slots__ = ("continuations", "end_stream", "limits", "octets", "self_dependent", "stream_id")

    def __init__(self, limits: Http2Limits) -> None:
        self.limits = limits
        self.octets = b""
        self.stream_id = self.continuations = 0
        self.end_stream = self.self_dependent = False

    def begin(self, stream_id: int, flags: int, payload: bytes) -> None:
        """Take a HEADERS frame."""
        self.self_dependent = False
        if flags & codes.HAS_PRIORITY:
            # 6.2: the priority fields are deprecated (5.3.2), and their octets are there all the same.
            if len(payload) < 5:
                raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "a HEADERS frame is too short for its priority")
            self.self_dependent = int.from_bytes(payload[:4], "big") & MAX_STREAM_ID == stream_id
            payload = payload[5:]
        self.stream_id = stream_id
        self.end_stream = flags & codes.END_STREAM != 0
        self.continuations = 0
        self.octets = payload
        self.check()

    def extend(self, payload: bytes) -> None:
        """Take a CONTINUATION frame."""
        self.continuations += 1
        self.octets += payload
        self.check()

    def check(self) -> None:
        """Raise `Http2Error` where the block is too large: it cannot be skipped, for later ones refer to it."""
        size, limit = len(self.octets), 2 * self.limits.max_header_list
        if size > limit:
            raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, f"a header block has {size} bytes, limit {limit}")
        if self.continuations > self.limits.max_continuations:
            raise Http2Error(
                ErrorCode.ENHANCE_YOUR_CALM,
                f"a header block has over {self.limits.max_continuations} CONTINUATION frames",
            )

    def take(self) -> bytes:
        """Return the block, which is complete, and be empty."""
        octets = self.octets
        self.octets = b""
        self.stream_id = 0
        return octets


def write_block(writer: Http2FrameWriter, stream_id: int, block: bytes, flags: int, max_frame_size: int) -> None:
    """Write a block in a HEADERS frame, and where that is too small in CONTINUATION frames behind it."""
    if len(block) <= max_frame_size:
        writer.write(codes.HEADERS, flags | codes.END_HEADERS, stream_id, block)
        return
    writer.write(codes.HEADERS, flags, stream_id, block[:max_frame_size])
    last = (len(block) - 1) // max_frame_size * max_frame_size
    for at in range(max_frame_size, last, max_frame_size):
        writer.write(codes.CONTINUATION, 0, stream_id, block[at : at + max_frame_size])
    writer.write(codes.CONTINUATION, codes.END_HEADERS, stream_id, block[last:])
