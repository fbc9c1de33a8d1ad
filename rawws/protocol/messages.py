"""Messages: frames to messages, checked as they arrive (RFC 6455 sections 5.4, 5.6 and 8.1).

Law: what is held of an unfinished message is its octets and nothing else, whatever the number of fragments and whatever
the pieces in which TCP brought them; and the verdict on the same octets is the same for all pieces.
"""

from __future__ import annotations

import codecs

from rawws.errors import RemoteProtocolError

from .deflate import PerMessageDeflate
from .frames import FrameReader

__all__ = ["Fragment", "MessageReader"]


class Fragment:
    """A part of a message that is not held whole: `data` is str or bytes, `final` is True for the last part."""

    __slots__ = ("data", "final")

    def __init__(self, data: str | bytes, final: bool) -> None:
        self.data = data
        self.final = final

    def __repr__(self) -> str:
        return f"Fragment({self.data!r}, final={self.final})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fragment) and (self.data, self.final) == (other.data, other.final)

    __hash__ = None  # type: ignore[assignment]


class MessageReader:
    """The message that is being received: at most one, which control frames may interrupt.

    `streaming` set to True makes the current message, or the next one, come in Fragments. What is streamed is not held,
    so `max_size` does not limit it, unless it is compressed: there a few octets can stand for anything.
    """

    __slots__ = ("checked", "compressed", "deflate", "held", "max_size", "opcode", "size", "streaming", "wire_size")

    def __init__(self, max_size: int, deflate: PerMessageDeflate | None) -> None:
        self.max_size = max_size
        self.deflate = deflate
        self.streaming = False
        self.opcode = 0
        self.compressed = False
        self.held: bytearray | None = None
        self.checked = 0
        self.size = 0
        self.wire_size = 0

    def begin_frame(self, frames: FrameReader) -> None:
        """Take note of the header of a data frame; raise RemoteProtocolError(1009) if its payload is too much."""
        first = frames.first
        if first & 0x0F:
            self.opcode = first & 0x0F
            self.compressed = first & 0x40 != 0
            self.size = 0
            self.wire_size = 0
        length = frames.length
        if self.compressed:
            # What counts is what it inflates to; but blocks that inflate to nothing shall end too. Deflate itself never
            # makes data larger by more than a few bytes in a thousand.
            limit = 2 * self.max_size + 1024
            if length > limit - self.wire_size:
                raise RemoteProtocolError(1009, f"compressed message is over {limit} bytes, limit {self.max_size}")
            self.wire_size += length
        elif not self.streaming:
            if length > self.max_size - self.size:
                raise RemoteProtocolError(1009, f"message is over {self.max_size} bytes, the limit")
            self.size += length

    def receive(self, frames: FrameReader) -> str | bytes | Fragment | None:
        """Take the payload that is here of a data frame; return the message if that completes it, else None."""
        final = frames.first & 0x80 != 0 and frames.has_payload()
        if final and frames.first & 0x0F and not self.compressed and not self.streaming and self.held is None:
            # The common case: a message in one frame, all there.
            if self.opcode == 0x2:
                self.opcode = 0
                return frames.take_bytes()
            self.opcode = 0
            try:
                return frames.take_text()
            except UnicodeDecodeError:
                raise RemoteProtocolError(1007, "a text message is not valid UTF-8") from None
        return self.receive_part(frames.take_bytes(), final)

    def receive_part(self, data: bytes, final: bool) -> str | bytes | Fragment | None:
        """Take some octets of a message; return the message if they are its last ones, a Fragment when streaming."""
        if self.compressed and self.deflate is not None:
            data = self.inflate(data, final)
        if self.held is None:
            self.held = bytearray()
            self.checked = 0
        self.held += data
        # 8.1: "When an endpoint is to interpret a byte stream as UTF-8 but finds that the byte stream is not, in fact, a
        # valid UTF-8 stream, that endpoint MUST _Fail the WebSocket Connection_."
        if self.opcode == 0x1:
            self.check_text(final)
        if self.compressed and self.size > self.max_size:
            raise RemoteProtocolError(1009, f"message is over {self.max_size} bytes, the limit")
        if self.streaming:
            return self.give_part(final)
        if not final:
            return None
        message: str | bytes = self.held.decode("utf-8") if self.opcode == 0x1 else bytes(self.held)
        self.held = None
        self.opcode = 0
        return message

    def inflate(self, data: bytes, final: bool) -> bytes:
        """Return what the octets inflate to, and count it."""
        assert self.deflate is not None
        data = self.deflate.decompress(data, final, self.max_size - self.size)
        self.size += len(data)
        if self.size > self.max_size:
            # Text before the limit is judged before the limit.
            data = data[:-1]
        return data

    def check_text(self, final: bool) -> None:
        """Check the octets that were not checked yet; those of an unfinished character wait unless `final`."""
        assert self.held is not None
        over = self.compressed and self.size > self.max_size
        try:
            _, count = codecs.utf_8_decode(self.held[self.checked :], "strict", final and not over)
        except UnicodeDecodeError:
            raise RemoteProtocolError(1007, "a text message is not valid UTF-8") from None
        self.checked += count

    def give_part(self, final: bool) -> Fragment | None:
        """Return what is held, as far as it is whole characters."""
        assert self.held is not None
        if self.opcode == 0x1:
            data: str | bytes = self.held[: self.checked].decode("utf-8")
            del self.held[: self.checked]
            self.checked = 0
        else:
            data = bytes(self.held)
            self.held.clear()
        if final:
            self.held = None
            self.opcode = 0
            self.streaming = False
        elif not data:
            return None
        return Fragment(data, final)
