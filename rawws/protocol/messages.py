"""Messages: frames to messages, checked as they arrive (RFC 6455 sections 5.4, 5.6 and 8.1).

Law: what is held of an unfinished message is its octets and nothing else, whatever the number of fragments and whatever
the pieces in which TCP brought them; and the verdict on the same octets is the same for all pieces.
"""

from __future__ import annotations

import codecs
from typing import Any, NamedTuple

from rawws.errors import RemoteProtocolError

from . import masking, opcodes
from .deflate import INVALID, PerMessageDeflate
from .frames import FrameReader
from .opcodes import CloseCode

__all__ = ["UNLIMITED", "Fragment", "MessageReader"]

# A binary message in one frame of up to this size gets its memory at once, and each octet is copied once. The memory is
# not touched until then, so what a header claims costs nothing.
PLACED = 16777216
# Stands for "no limit"; twice this still fits the 64 bits of a length.
UNLIMITED = 1 << 60


class Fragment(NamedTuple):
    """A part of a message that is not held whole: `data` is str or bytes, `final` is True for the last part."""

    data: str | bytes
    final: bool


class MessageReader:
    """The message that is being received: at most one, which control frames may interrupt.

    `streaming` set to True makes the current message, or the next one, come in Fragments. What is streamed is not held,
    so `max_size` does not limit it, unless it is compressed: there a few octets can stand for anything.
    """

    __slots__ = (
        "checked", "compressed", "deflate", "filled", "held", "inflating", "last", "max_frame_size", "max_size",
        "opcode", "short", "size", "streaming", "target", "text_only", "wire_size",
    )  # fmt: skip

    def __init__(self, max_size: int, deflate: PerMessageDeflate | None) -> None:
        # There is one where `compressed` is ever True, and `held` is a bytearray where the methods below use it.
        self.deflate: Any = deflate
        self.streaming = False
        self.opcode = 0
        self.compressed = False
        # Not all of the octets that came is inflated yet: then `receive_rest` is next; whether they are the last ones.
        self.inflating = self.last = False
        self.held: Any = None
        self.target: bytearray | None = None
        self.filled = self.checked = self.size = self.wire_size = 0

        self.limit(max_size, UNLIMITED, False)

    def limit(self, max_size: int, max_frame_size: int, text_only: bool) -> None:
        """Read no messages and no frames over these sizes in bytes, and no binary ones with `text_only`."""
        self.max_size = max_size
        # Of the payload of one frame, as it is on the wire.
        self.max_frame_size = max_frame_size
        self.text_only = text_only
        # Nothing of this concerns a short message.
        self.short = min(max_size, max_frame_size) >= opcodes.SHORT and not text_only

    def begin_frame(self, frames: FrameReader) -> None:
        """Start to read a data frame by its header.

        Raises RemoteProtocolError: with 1009 if its payload is too long, with 1003 for binary where only text is read.
        """
        first = frames.first
        if first & opcodes.OPCODE:
            self.opcode = first & opcodes.OPCODE
            self.compressed = first & opcodes.RSV1 != 0
            self.size = self.wire_size = 0
            if self.text_only and self.opcode == opcodes.BINARY:
                # 7.4.1: 1003 is for "a type of data it cannot accept (e.g., an endpoint that understands only text
                # data MAY send this if it receives a binary message)".
                raise RemoteProtocolError(CloseCode.UNSUPPORTED_DATA, "the message is binary, allowed is text")
        length = frames.length
        if length > self.max_frame_size:
            raise RemoteProtocolError(
                CloseCode.MESSAGE_TOO_BIG, f"frame is over {self.max_frame_size} bytes, the limit"
            )
        if self.compressed:
            # What counts is what it inflates to; but blocks that inflate to nothing shall end too. Deflate itself never
            # makes data larger by more than a few bytes in a thousand.
            limit = 2 * self.max_size + 1024
            if length > limit - self.wire_size:
                raise RemoteProtocolError(
                    CloseCode.MESSAGE_TOO_BIG, f"compressed message is over {limit} bytes, limit {self.max_size}"
                )
            self.wire_size += length
        elif self.streaming:
            self.size = 0
        else:
            if length > self.max_size - self.size:
                raise RemoteProtocolError(
                    CloseCode.MESSAGE_TOO_BIG, f"message is over {self.max_size} bytes, the limit"
                )
            self.size += length

    def receive(self, frames: FrameReader) -> str | bytes | Fragment | None:
        """Take the payload that is here of a data frame; return the message if that completes it, else None.

        Raises RemoteProtocolError, and UnicodeDecodeError for a text in one frame that is not UTF-8.
        """
        first = frames.first
        final = first & opcodes.FIN != 0 and frames.has_payload()
        if (
            first & opcodes.FIN
            and first & opcodes.OPCODE
            and not self.compressed
            and not self.streaming
            and self.held is None
        ):
            if self.target is not None or (
                not final and first & opcodes.OPCODE == opcodes.BINARY and frames.length <= PLACED
            ):
                return self.receive_placed(frames)
            if final:
                # The common case: a message in one frame, all there.
                self.opcode = 0
                return frames.take_bytes() if first & opcodes.OPCODE == opcodes.BINARY else frames.take_text()
        data = frames.take_bytes()
        # An empty fragment says nothing, and a read of 256 KiB may hold 43,000 of them.
        return self.receive_part(data, final) if data or final else None

    def receive_placed(self, frames: FrameReader) -> bytes | None:
        """Take the payload that is here of a large binary message, and put it where it will stay."""
        if self.target is None:
            self.target = masking.blank(frames.length)
            self.filled = 0
        self.filled = frames.take_into(self.target, self.filled)
        if frames.in_frame:
            return None
        message = masking.sealed(self.target)
        self.target, self.opcode = None, 0
        return message

    def receive_part(self, data: bytes, final: bool) -> str | bytes | Fragment | None:
        """Take some octets of a message; return the message if they are its last ones, a Fragment when streaming."""
        if self.compressed:
            data = self.inflate(data, final)
            if self.inflating:
                self.last, final = final, False
            if (
                final
                and self.held is None
                and self.opcode == opcodes.BINARY
                and not self.streaming
                and self.size <= self.max_size
            ):
                # Without a copy: a few octets may stand for a large message.
                self.opcode = 0
                return data
        if self.held is None:
            # `streaming` may have been set in the middle of a large message.
            self.held = bytearray() if self.target is None else bytearray(self.target[: self.filled])
            self.target = None
            self.checked = 0
        self.held += data if self.opcode == opcodes.TEXT or self.size <= self.max_size else b""
        data = b""
        # 8.1: "When an endpoint is to interpret a byte stream as UTF-8 but finds that the byte stream is not, in fact,
        # a valid UTF-8 stream, that endpoint MUST _Fail the WebSocket Connection_."
        if self.opcode == opcodes.TEXT:
            self.check_text(final)
        if self.compressed and self.size > self.max_size:
            raise RemoteProtocolError(CloseCode.MESSAGE_TOO_BIG, f"message is over {self.max_size} bytes, the limit")
        if self.streaming:
            return self.give_part(final)
        if not final:
            return None
        message: str | bytes = self.held.decode("utf-8") if self.opcode == opcodes.TEXT else bytes(self.held)
        self.held, self.opcode = None, 0
        return message

    def receive_rest(self) -> str | bytes | Fragment | None:
        """Inflate the next piece of the octets that came; return what `receive` does."""
        return self.receive_part(b"", self.last)

    def drop(self) -> None:
        """Forget what came of a message that is not complete."""
        self.held = self.target = None
        if self.inflating:
            self.inflating = False
            self.deflate.rest = None

    def inflate(self, data: bytes, final: bool) -> bytes:
        """Return what the octets inflate to, up to the limit, and count it."""
        inflated: bytes = self.deflate.decompress(data, final, self.max_size - self.size)
        self.inflating = self.deflate.rest is not None
        self.size += len(inflated)
        # Text before the limit is judged before the limit.
        return inflated[:-1] if self.size > self.max_size and self.opcode == opcodes.TEXT else inflated

    def check_text(self, final: bool) -> None:
        """Check the octets that were not checked yet; those of an unfinished character wait unless `final`."""
        rest = self.held[self.checked :] if self.checked else self.held
        over = self.compressed and self.size > self.max_size
        try:
            _, count = codecs.utf_8_decode(rest, "strict", final and not over)
        except UnicodeDecodeError:
            count = -1
        # CPython waits for the third octet of a surrogate, which the second gives away already.
        if count < 0 or (count < len(rest) and rest[count] == 0xED and rest[count + 1 :] >= b"\xa0"):
            raise RemoteProtocolError(
                CloseCode.INVALID_DATA, INVALID if self.compressed else "a text message is not valid UTF-8"
            )
        self.checked += count

    def give_part(self, final: bool) -> Fragment | None:
        """Return what is held, as far as it is whole characters."""
        if self.opcode == opcodes.TEXT:
            data: str | bytes = self.held[: self.checked].decode("utf-8")
            del self.held[: self.checked]
            self.checked = 0
        else:
            data = bytes(self.held)
            self.held.clear()
        if final:
            self.held, self.opcode = None, 0
            self.streaming = False
        elif not data:
            return None
        return Fragment(data, final)
