"""Frames: octets to frames and back (RFC 6455 section 5.2).

`check_header` is the one place that knows which headers are legal. `FrameReader` finds frames in octets that arrive in
any pieces, `FrameWriter` gathers frames until they leave in one write. Neither knows what a message is.
"""

from __future__ import annotations

from rawws.errors import RemoteProtocolError

from . import masking, opcodes
from .opcodes import CloseCode

__all__ = ["FrameReader", "FrameWriter", "check_header"]

# Payloads of this size and above are written from where they are; below it a copy is cheaper than another chunk.
LARGE = 2048
# What a FrameWriter begins with; it grows as needed and is shared, so the number matters little.
CAPACITY = 2048
# Over this it is thrown away after a burst, because writers are kept for later.
KEPT = 262144


def check_header(first: int, second: int, length: int, masked: bool, rsv1: bool, fragmented: bool) -> None:
    """Raise RemoteProtocolError unless a frame may have this header (RFC 6455 sections 5.1 to 5.5, RFC 7692 section 6).

    `first` and `second` are its first two octets, `length` the payload length in bytes that it announces. What is legal
    depends on three facts: whether the peer must mask, whether an extension gave rsv1 a meaning, and whether the
    frames before left a message unfinished.
    """
    opcode = first & opcodes.OPCODE
    control = opcode & opcodes.CONTROL != 0
    # 5.2: "MUST be 0 unless an extension is negotiated that defines meanings for non-zero values."
    if first & opcodes.RSV2_RSV3 or (first & opcodes.RSV1 and not rsv1):
        raise RemoteProtocolError(
            CloseCode.PROTOCOL_ERROR, f"reserved bits are {first >> 4 & 0x7:03b}, and no extension gave them a meaning"
        )
    # RFC 7692 6.1: "An endpoint MUST NOT set the "Per-Message Compressed" bit of control frames and non-first fragments
    # of a data message."
    if first & opcodes.RSV1 and (control or opcode == opcodes.CONTINUATION):
        raise RemoteProtocolError(
            CloseCode.PROTOCOL_ERROR, f"rsv1 is set on a frame of opcode {opcode:#x}, allowed on the first of a message"
        )
    # 5.2: "If an unknown opcode is received, the receiving endpoint MUST _Fail the WebSocket Connection_."
    if opcode > opcodes.PONG or opcodes.BINARY < opcode < opcodes.CLOSE:
        raise RemoteProtocolError(
            CloseCode.PROTOCOL_ERROR, f"opcode is {opcode:#x}, allowed are 0x0 to 0x2 and 0x8 to 0xa"
        )
    # 5.1: "The server MUST close the connection upon receiving a frame that is not masked." "A client MUST close a
    # connection if it detects a masked frame."
    if masked and not second & opcodes.MASK:
        raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, "a frame from the client is not masked")
    if not masked and second & opcodes.MASK:
        raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, "a frame from the server is masked")
    if control:
        # 5.5: "All control frames MUST have a payload length of 125 bytes or less and MUST NOT be fragmented."
        if length > 125:
            raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, f"control frame payload is {length} bytes, limit 125")
        if not first & opcodes.FIN:
            raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, "a control frame is fragmented")
    # 5.4: a message is "a single frame with the FIN bit clear and an opcode other than 0, followed by zero or more
    # frames with the FIN bit clear and the opcode set to 0, and terminated by a single frame with the FIN bit set and
    # an opcode of 0".
    elif opcode == opcodes.CONTINUATION and not fragmented:
        raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, "a continuation frame without a message to continue")
    elif opcode != opcodes.CONTINUATION and fragmented:
        raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, "a new message before the end of the one in fragments")
    # 5.2: "in all cases, the minimal number of bytes MUST be used to encode the length"
    form = second & opcodes.LENGTH
    if (form == 126 and length < 126) or (form == 127 and length < 65536):
        raise RemoteProtocolError(
            CloseCode.PROTOCOL_ERROR, f"payload length {length} is not encoded in the fewest bytes"
        )


class FrameReader:
    """The frames in octets that arrive in any pieces.

    `feed` lends it a buffer until `keep`, which copies what was not read yet. `read_header` decodes a header into
    `first`, `length` and `remaining` (the octets of the payload that were not taken yet). Then the payload is taken,
    whole or in pieces, unmasked in place.
    """

    __slots__ = (
        "buffer", "end", "first", "in_frame", "key", "length", "lent", "masked", "position", "remaining", "rsv1",
    )  # fmt: skip

    def __init__(self, masked: bool, rsv1: bool) -> None:
        self.masked = masked
        self.rsv1 = rsv1
        self.buffer = EMPTY
        self.position = 0
        self.end = 0
        self.lent = False
        self.in_frame = False
        self.first = 0
        self.length = 0
        self.remaining = 0
        self.key = 0

    def feed(self, buffer: bytearray, end: int) -> None:
        """Read `buffer[:end]` behind what is left; it stays the reader's to change until `keep`."""
        if self.position < self.end:
            buffer = self.buffer[self.position : self.end] + buffer[:end]
            end = len(buffer)
        self.buffer = buffer
        self.position = 0
        self.end = end
        self.lent = True

    def keep(self) -> None:
        """Give the buffer back."""
        if self.position == self.end:
            self.buffer = EMPTY
            self.position = 0
            self.end = 0
        elif self.lent:
            self.buffer = self.buffer[self.position : self.end]
            self.position = 0
            self.end = len(self.buffer)
        self.lent = False

    def read_header(self, fragmented: bool) -> bool:
        """Decode the next header; return False where its octets are not all there yet."""
        octets = self.buffer
        at = self.position
        available = self.end - at
        if available < 2:
            return False
        first = octets[at]
        second = octets[at + 1]
        length = second & opcodes.LENGTH
        at += 2
        if length == 126:
            if available < 4:
                return False
            length = octets[at] << 8 | octets[at + 1]
            at += 2
        elif length == 127:
            if available < 10:
                return False
            # 5.2: "If 127, the following 8 bytes interpreted as a 64-bit unsigned integer (the most significant bit
            # MUST be 0) are the payload length."
            if octets[at] & 0x80:
                raise RemoteProtocolError(
                    CloseCode.PROTOCOL_ERROR, "the most significant bit of a 64-bit payload length is set"
                )
            length = 0
            for i in range(at, at + 8):
                length = length << 8 | octets[i]
            at += 8
        check_header(first, second, length, self.masked, self.rsv1, fragmented)
        if self.masked:
            if self.end - at < 4:
                return False
            self.key = masking.read_key(octets, at)
            at += 4
        self.position = at
        self.first = first
        self.length = length
        self.remaining = length
        self.in_frame = True
        return True

    def take_short(self) -> str | bytes | None:
        """Take the next frame if it is the most common one: a short message as a whole, not compressed, and all here.

        Its payload has at most 125 octets. This is a shorter way to what `read_header` and the methods below do with
        such a frame; of all others it takes nothing and returns None, so the verdict is theirs. The caller knows that
        no frame and no message is in the middle. Raises UnicodeDecodeError.
        """
        octets = self.buffer
        start = self.position + 2
        if start > self.end:
            return None
        first = octets[start - 2]
        length = octets[start - 1]
        # 5.4: "An unfragmented message consists of a single frame with the FIN bit set (Section 5.2) and an opcode
        # other than 0." 5.2: the reserved bits "MUST be 0 unless an extension is negotiated".
        if first != opcodes.FIN | opcodes.TEXT and first != opcodes.FIN | opcodes.BINARY:
            return None
        # 5.1: "a client MUST mask all frames that it sends to the server"; "A server MUST NOT mask any frames".
        if self.masked:
            length -= opcodes.MASK
            start += 4
        # 5.2: "The length of the "Payload data", in bytes: if 0-125, that is the payload length."
        if length < 0 or length > opcodes.SHORT or start + length > self.end:
            return None
        key = masking.read_key(octets, start - 4) if self.masked else 0
        self.position = start + length
        if first == opcodes.FIN | opcodes.TEXT:
            return masking.unmask_text(octets, start, self.position, key)
        return masking.unmask(octets, start, self.position, key)

    def has_payload(self) -> bool:
        """Tell whether all that remains of the payload is here."""
        return self.remaining <= self.end - self.position

    def discard(self) -> None:
        """Forget all that was not read."""
        self.position = self.end

    def advance(self) -> int:
        """Take what is here of the payload, still masked, and return where it stops; it began at `position`."""
        count = min(self.remaining, self.end - self.position)
        self.position += count
        self.remaining -= count
        self.in_frame = self.remaining > 0
        if self.in_frame:
            self.key = masking.rotate(self.key, count)
        return self.position

    def take_bytes(self) -> bytes:
        """Take what is here of the payload."""
        start = self.position
        key = self.key
        return masking.unmask(self.buffer, start, self.advance(), key)

    def take_into(self, target: bytearray, at: int) -> int:
        """Take what is here of the payload, write it over `target[at:]`, and return where it ends there."""
        start = self.position
        key = self.key
        stop = self.advance()
        masking.place(target, at, self.buffer, start, stop, key)
        return at + stop - start

    def take_text(self) -> str:
        """Take what is here of the payload, which must be UTF-8 to its end (raises UnicodeDecodeError)."""
        start = self.position
        key = self.key
        return masking.unmask_text(self.buffer, start, self.advance(), key)


class FrameWriter:
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

    def write(self, first: int, payload: bytes, masked: bool, key: int) -> None:
        """Append a frame of these first eight bits and this payload, masked with the key if `masked`.

        What `masking.encode` returned is such a payload.
        """
        length = len(payload)
        at = self.length
        room = 14 + (length if length < LARGE else 0)
        if len(self.octets) - at < room:
            self.octets.extend(bytes(len(self.octets) + room))
        octets = self.octets
        mask_bit = opcodes.MASK if masked else 0
        octets[at] = first
        # 5.2: "The length of the "Payload data", in bytes: if 0-125, that is the payload length. If 126, the following
        # 2 bytes interpreted as a 16-bit unsigned integer are the payload length. If 127, the following 8 bytes".
        if length < 126:
            octets[at + 1] = mask_bit | length
            at += 2
        elif length < 65536:
            octets[at + 1] = mask_bit | 126
            octets[at + 2] = length >> 8
            octets[at + 3] = length & 0xFF
            at += 4
        else:
            octets[at + 1] = mask_bit | 127
            for i in range(8):
                octets[at + 2 + i] = length >> (56 - 8 * i) & 0xFF
            at += 10
        if masked:
            for i in range(4):
                octets[at + i] = key >> (8 * i) & 0xFF
            at += 4
        if length < LARGE:
            masking.place(octets, at, payload, 0, length, key if masked else 0)
            self.length = at + length
        else:
            self.length = at
            if masked or not isinstance(payload, bytes):
                copied = masking.blank(length)
                masking.place(copied, 0, payload, 0, length, key if masked else 0)
                payload = masking.sealed(copied)
            self.append(payload)

    def append(self, octets: bytes) -> None:
        """Append octets that are frames already, or the payload of the header written last, without a copy."""
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
        self.length = 0
        self.sealed = 0
        return chunks


EMPTY = bytearray()
