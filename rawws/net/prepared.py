"""Prepared: a message for many connections (RFC 6455 section 5.2, RFC 7692 section 7.2.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rawws.errors import LocalProtocolError
from rawws.protocol import opcodes
from rawws.protocol.frames import FrameWriter

if TYPE_CHECKING:
    from rawws.protocol.deflate import Deflater, PerMessageDeflate

__all__ = ["DataLike", "PreparedMessage", "control_payload", "encode_part"]

# A message: str as text, the others as binary.
DataLike = str | bytes | bytearray | memoryview


class PreparedMessage:
    """A message for many connections: framed once, and compressed once for all that share a compressor."""

    __slots__ = ("first", "frames", "message", "payload", "plain")

    def __init__(self, message: DataLike) -> None:
        """Take a str as text, bytes-like as binary. Raises TypeError for others, LocalProtocolError without UTF-8."""
        if isinstance(message, (bytearray, memoryview)):
            message = bytes(message)
        if not isinstance(message, (str, bytes)):
            allowed = "str, bytes, bytearray and memoryview"  # type: ignore[unreachable]
            raise TypeError(f"message is {type(message).__name__}, allowed are {allowed}")
        self.message = message
        if isinstance(message, str):
            try:
                self.payload = message.encode()
            except UnicodeEncodeError as error:
                raise LocalProtocolError(f"message has a lone surrogate at index {error.start}") from None
        else:
            self.payload = message
        self.first = opcodes.FIN | (opcodes.TEXT if isinstance(message, str) else opcodes.BINARY)
        self.plain = frame(self.first, self.payload)
        self.frames: dict[Deflater | None, bytes] | None = None

    def compressed(self, deflate: PerMessageDeflate) -> bytes | None:
        """Return the frame for a connection with this extension, None where it must compress for itself."""
        if len(self.payload) < deflate.threshold:
            return self.plain
        if not deflate.shares:
            return None
        if self.frames is None:
            self.frames = {}
        found = self.frames.get(deflate.deflater)
        if found is None:
            # RFC 7692 7.2.1: the first frame of a compressed message has the "Per-Message Compressed" bit, rsv1.
            found = self.frames[deflate.deflater] = frame(self.first | opcodes.RSV1, deflate.compress(self.payload))
        return found


def frame(first: int, payload: bytes) -> bytes:
    """Return one unmasked frame."""
    writer = FrameWriter()
    writer.write(first, payload, False, 0)
    return b"".join(writer.take())


def encode_part(part: DataLike, text: bool | None) -> tuple[int, bytes]:
    """Return the opcode and the payload of a part of a message."""
    if isinstance(part, str):
        return opcodes.BINARY if text is False else opcodes.TEXT, part.encode()
    if isinstance(part, (bytes, bytearray, memoryview)):
        return opcodes.TEXT if text is True else opcodes.BINARY, bytes(part)
    raise TypeError(f"a part of a message is {type(part).__name__}, allowed are str, bytes, bytearray and memoryview")


def control_payload(data: DataLike) -> bytes:
    """Return the payload of a Ping or Pong."""
    if not isinstance(data, (str, bytes, bytearray, memoryview)):
        raise TypeError(f"data is {type(data).__name__}, allowed are str, bytes, bytearray and memoryview")
    payload = data.encode() if isinstance(data, str) else bytes(data)
    # RFC 6455 5.5: "All control frames MUST have a payload length of 125 bytes or less".
    if len(payload) > 125:
        raise LocalProtocolError(f"control frame payload is {len(payload)} bytes, limit 125")
    return payload
