"""Prepared: a message for many connections (RFC 6455 section 5.2, RFC 7692 section 7.2.1)."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from typing import TYPE_CHECKING, Protocol

from rawws.errors import LocalProtocolError
from rawws.protocol import opcodes
from rawws.protocol.deflate import DeflateJob
from rawws.protocol.frames import FrameWriter

if TYPE_CHECKING:
    from rawws.protocol.deflate import Deflater, PerMessageDeflate

__all__ = ["FORM_COST", "DataLike", "FormCache", "FormOwner", "PreparedMessage", "control_payload", "encode_part"]

# A message: str as text, the others as binary.
DataLike = str | bytes | bytearray | memoryview
# What a form takes beside its octets, in bytes of memory: an object or two, and its places in a dict and in the cache.
FORM_COST = 640


class FormOwner(Protocol):
    """What has forms that can be made again."""

    def forget_forms(self) -> None:
        """Hold them no more."""


class FormCache:
    """The forms that were made of messages lately: compressed frames, envelopes, events.

    `limit` is for all together, in bytes of memory. Whoever makes a form calls `keep`, and `trim` when it went out to
    all who get it now: those that were made first are forgotten then, and made again for who comes later. An owner that
    nobody holds any more takes its forms with it.
    """

    __slots__ = ("kept", "limit", "size")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        # Owners, and what their forms take.
        self.kept: OrderedDict[weakref.ref[FormOwner], int] = OrderedDict()
        self.size = 0

    def keep(self, owner: FormOwner, size: int) -> None:
        """Count so many bytes more, of a new form or of one that is larger now."""
        key = weakref.ref(owner, self._gone)
        self.kept[key] = self.kept.get(key, 0) + size
        self.size += size

    def trim(self) -> None:
        """Have the oldest forms forgotten, where all take too much."""
        while self.size > self.limit:
            key, size = self.kept.popitem(last=False)
            self.size -= size
            owner = key()
            if owner is not None:
                owner.forget_forms()

    def _gone(self, key: weakref.ref[FormOwner]) -> None:
        self.size -= self.kept.pop(key, 0)


class PreparedMessage:
    """A message for many connections: framed once, and compressed once for all that share a compressor.

    It is held as that frame alone, and the message is made of it when it is asked for: a str may take four bytes for
    each character. `cache` counts what is compressed, if it is set; else that is held as long as this.
    """

    __slots__ = ("__weakref__", "cache", "first", "frames", "plain", "size")

    def __init__(self, message: DataLike) -> None:
        """Take a str as text, bytes-like as binary. Raises TypeError for others, LocalProtocolError without UTF-8."""
        if isinstance(message, str):
            try:
                payload = message.encode()
            except UnicodeEncodeError as error:
                raise LocalProtocolError(f"message has a lone surrogate at index {error.start}") from None
        elif isinstance(message, (bytes, bytearray, memoryview)):
            payload = bytes(message)
        else:
            allowed = "str, bytes, bytearray and memoryview"  # type: ignore[unreachable]
            raise TypeError(f"message is {type(message).__name__}, allowed are {allowed}")
        self.first = opcodes.FIN | (opcodes.TEXT if isinstance(message, str) else opcodes.BINARY)
        # Of the payload, in bytes.
        self.size = len(payload)
        self.plain = frame(self.first, payload)
        self.frames: dict[Deflater | None, bytes | DeflateJob] | None = None
        self.cache: FormCache | None = None

    @property
    def payload(self) -> bytes:
        """The payload of the frame."""
        return self.plain[len(self.plain) - self.size :]

    @property
    def message(self) -> str | bytes:
        """The message: str for text, bytes for binary."""
        return self.payload.decode() if self.first == opcodes.FIN | opcodes.TEXT else self.payload

    def compressed(self, deflate: PerMessageDeflate) -> bytes | DeflateJob | None:
        """Return the frame for a connection with this extension, or what makes its payload of a large message.

        None is for one that must compress for itself.
        """
        if self.size < deflate.threshold:
            return self.plain
        if not deflate.shares:
            return None
        if self.frames is None:
            self.frames = {}
        found = self.frames.get(deflate.deflater)
        if found is None and self.size > deflate.piece_size:
            found = self.frames[deflate.deflater] = deflate.begin(self.payload)
            if self.cache is not None:
                # What it will take is not known, but that it is hardly more than the message.
                self.cache.keep(self, FORM_COST + self.size)
        elif found is None:
            # RFC 7692 7.2.1: the first frame of a compressed message has the "Per-Message Compressed" bit, rsv1.
            found = self.frames[deflate.deflater] = frame(self.first | opcodes.RSV1, deflate.compress(self.payload))
            if self.cache is not None:
                self.cache.keep(self, FORM_COST + len(found))
        return found

    def forget_forms(self) -> None:
        """Hold no compressed frames any more."""
        self.frames = None


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
