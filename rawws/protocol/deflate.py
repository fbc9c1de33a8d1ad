"""permessage-deflate: offers to parameters, messages to deflate blocks and back (RFC 7692 section 7).

Laws: inflating stops at the limit, it never checks the size afterwards. Without context takeover nothing is kept
between messages: one compressor serves every connection with the same parameters, and an idle connection holds none.
Where `piece_size` is set, no call inflates or deflates more than that: what is left is done by further calls.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from rawws.errors import HandshakeError, NegotiationError, RemoteProtocolError

from .extensions import Extension
from .opcodes import CloseCode
from .speedups import Compressor, fast_compressor

__all__ = ["Compression", "DeflateJob", "DeflateParameters", "Deflater", "PerMessageDeflate"]

NAME = "permessage-deflate"
# RFC 7692 7.2.2: "Append 4 octets of 0x00 0x00 0xff 0xff to the tail end of the payload of the message."
TAIL = b"\x00\x00\xff\xff"
WINDOW = 32768
# The reason for closing is one for all that can be wrong with a compressed message but its size: which of two faults in
# it is found first depends on how TCP cut the octets, and the verdict must not.
INVALID = "a compressed message is not valid"
# Each block with BFINAL set costs a new decompressor; a sender that flushes with BFINAL needs one for each message, and
# an attacker would pack half a million into 1 MiB.
MAX_FINAL_BLOCKS = 128
# The size of pieces where a message is to be done at once.
WHOLE = 1 << 60
# A DeflateJob compresses so many bytes in one step: 0.5 ms at level 1, where inflating as many takes a fifth of that.
STEP = 65536


@dataclass(frozen=True, slots=True)
class DeflateParameters:
    """What both sides agreed on (RFC 7692 section 7.1), the same object whichever side holds it."""

    server_no_context_takeover: bool = True
    client_no_context_takeover: bool = True
    server_max_window_bits: int = 15
    client_max_window_bits: int = 15


@dataclass(frozen=True, slots=True)
class Compression(DeflateParameters):
    """How to negotiate and use permessage-deflate; the defaults keep no memory on an idle connection.

    Only a client whose server insists on context takeover keeps some (260 KiB were measured).

    `level` is zlib's, 1 (fast) to 9; 1 to 3 are isal's where `rawws[speedups]` is installed. `memory_level` is zlib's,
    1 to 9. Messages under `threshold` bytes are sent as they are: they gain little and cost the same set-up. The four
    parameters are those of RFC 7692 section 7.1: asking for context takeover (`*_no_context_takeover=False`) makes
    similar messages smaller and holds about 300 KiB for each connection; fewer window bits for what this side sends
    hold less.
    """

    # Measured on JSON of 2 to 16 KiB: 1 saves 73 to 78 % in 9 to 35 us, 6 saves 77 to 82 % in 13 to 83 us.
    level: int = 1
    memory_level: int = 8
    threshold: int = 1024

    def __post_init__(self) -> None:
        limits = {"level": (0, 9), "memory_level": (1, 9)}
        limits |= {"server_max_window_bits": (9, 15), "client_max_window_bits": (9, 15)}
        for name, (lowest, highest) in limits.items():
            value = getattr(self, name)
            if not lowest <= value <= highest:
                raise ValueError(f"{name} is {value}, allowed are {lowest} to {highest}")
        if self.threshold < 0:
            raise ValueError(f"threshold is {self.threshold} bytes, allowed are 0 and more")

    @classmethod
    def of(cls, compression: str | Compression | None) -> Compression | None:
        """Return what the option of this name stands for: "deflate" for the defaults, None for none."""
        if compression is None or isinstance(compression, Compression):
            return compression
        if compression == "deflate":
            return cls()
        kind = ValueError if isinstance(compression, str) else TypeError
        raise kind(f"compression is {compression!r}, allowed are 'deflate', None and a Compression")

    # -- the server's side

    def accept(self, offers: list[Extension]) -> tuple[Extension, DeflateParameters] | None:
        """Answer the first acceptable offer of a client with the response and the parameters, or decline with None."""
        for name, parameters in offers:
            if name != NAME:
                continue
            # 7: "A server MUST decline an extension negotiation offer for this extension if": a parameter is not
            # defined for an offer, has an invalid value or stands there twice, or "The server doesn't support the
            # offered configuration."
            try:
                offer = _read(parameters, offer=True)
            except HandshakeError:
                continue
            accepted = self._accept_one(offer)
            if accepted is not None:
                return accepted
        return None

    def _accept_one(self, offer: dict[str, int | None]) -> tuple[Extension, DeflateParameters] | None:
        server_bits = min(offer.get("server_max_window_bits") or 15, self.server_max_window_bits)
        # zlib cannot make a raw stream with a window of 256 bytes.
        # 7.1.2.1: "A server accepts an extension negotiation offer with this parameter by including the
        # "server_max_window_bits" extension parameter in the extension negotiation response [...] with the same or
        # smaller value as the offer." One that cannot, declines.
        if server_bits < 9:
            return None
        server_no_takeover = self.server_no_context_takeover or "server_no_context_takeover" in offer
        client_no_takeover = self.client_no_context_takeover or "client_no_context_takeover" in offer
        answer: list[tuple[str, str | None]] = []
        if server_no_takeover:
            answer.append(("server_no_context_takeover", None))
        if client_no_takeover:
            answer.append(("client_no_context_takeover", None))
        if "server_max_window_bits" in offer or server_bits < 15:
            answer.append(("server_max_window_bits", str(server_bits)))
        client_bits = 15
        # 7.1.2.2: "If a received extension negotiation offer doesn't have the "client_max_window_bits" extension
        # parameter, the corresponding extension negotiation response to the offer MUST NOT include" it.
        if "client_max_window_bits" in offer:
            client_bits = min(offer["client_max_window_bits"] or 15, self.client_max_window_bits)
            if client_bits < 15:
                answer.append(("client_max_window_bits", str(client_bits)))
        return (NAME, answer), DeflateParameters(server_no_takeover, client_no_takeover, server_bits, client_bits)

    # -- the client's side

    def offers(self) -> list[Extension]:
        """Return what a client offers: what it wants, and then what it can do with, if that is more."""
        wanted, accepted = self.offer(), self._offer_without_limits()
        # RFC 7692 5: "This set of elements MAY include multiple PMCEs with the same extension name to offer the
        # possibility to use the same algorithm with different configuration parameters." Some servers (Netty as it
        # comes) decline an offer that limits what they send, others (Tornado, Mojolicious) ignore the limit: both agree
        # to the second offer.
        return [wanted] if wanted == accepted else [wanted, accepted]

    def offer(self) -> Extension:
        """Return the offer that a client prefers."""
        parameters: list[tuple[str, str | None]] = []
        if self.server_no_context_takeover:
            parameters.append(("server_no_context_takeover", None))
        if self.client_no_context_takeover:
            parameters.append(("client_no_context_takeover", None))
        if self.server_max_window_bits < 15:
            parameters.append(("server_max_window_bits", str(self.server_max_window_bits)))
        return NAME, [*parameters, self._client_window()]

    def _offer_without_limits(self) -> Extension:
        takeover: list[tuple[str, str | None]] = []
        if self.client_no_context_takeover:
            takeover.append(("client_no_context_takeover", None))
        return NAME, [*takeover, self._client_window()]

    def _client_window(self) -> tuple[str, str | None]:
        bits = self.client_max_window_bits
        return "client_max_window_bits", str(bits) if bits < 15 else None

    def confirm(self, answer: list[Extension]) -> DeflateParameters | None:
        """Return the parameters that the server's response agrees on, None where it declined.

        Raises NegotiationError where the response is not one to our offers.
        """
        if not answer:
            return None
        # RFC 6455 9.1: a server "MUST NOT" use an extension that the client did not request.
        for name, _ in answer:
            if name != NAME:
                raise NegotiationError(101, f"the server chose the extension {name!r}, offered was {NAME!r}")
        if len(answer) > 1:
            raise NegotiationError(101, f"the server chose {NAME!r} {len(answer)} times, allowed is once")
        chosen = _read(answer[0][1], offer=False)
        # Without "server_no_context_takeover" it is the second of our offers that the server accepts.
        server_bits = chosen.get("server_max_window_bits") or 15
        client_bits = chosen.get("client_max_window_bits") or 15
        # Nor does the second limit the window; but a value is an answer to the one that came with ours.
        if "server_max_window_bits" in chosen and server_bits > self.server_max_window_bits:
            raise NegotiationError(
                101, f"server_max_window_bits is {server_bits}, offered were at most {self.server_max_window_bits}"
            )
        if client_bits < 9:
            raise NegotiationError(101, f"client_max_window_bits is {client_bits}, this client can do 9 to 15")
        return DeflateParameters(
            "server_no_context_takeover" in chosen,
            self.client_no_context_takeover or "client_no_context_takeover" in chosen,
            server_bits,
            min(client_bits, self.client_max_window_bits),
        )


def _read(parameters: list[tuple[str, str | None]], *, offer: bool) -> dict[str, int | None]:
    """Check the parameters of an offer or of a response to one (RFC 7692 section 7.1)."""
    found: dict[str, int | None] = {}
    for name, value in parameters:
        # 7.1: "A client MUST _Fail the WebSocket Connection_ if the peer server accepted an extension negotiation offer
        # [...] with an extension negotiation response meeting any of the following conditions": as for an offer.
        if name in found:
            raise NegotiationError(101, f"{NAME} has the parameter {name!r} twice")
        if name in {"server_no_context_takeover", "client_no_context_takeover"}:
            if value is not None:
                raise NegotiationError(101, f"{name} has the value {value!r}, allowed is none")
            found[name] = None
        elif name in {"server_max_window_bits", "client_max_window_bits"}:
            # 7.1.2.1: "a decimal integer value without leading zeroes between 8 to 15, inclusive". Only the client's
            # offer of its own may be without a value.
            if value is None and offer and name == "client_max_window_bits":
                found[name] = None
            elif value in {"8", "9", "10", "11", "12", "13", "14", "15"}:
                found[name] = int(value or "")
            else:
                raise NegotiationError(101, f"{name} is {value!r}, allowed are 8 to 15")
        else:
            raise NegotiationError(101, f"{NAME} has the unknown parameter {name!r}")
    return found


class Deflater:
    """Compress messages for a peer whose window has `bits` bits."""

    __slots__ = ("_compressor", "_flush", "_parameters", "_takeover")

    def __init__(self, bits: int, takeover: bool, level: int, memory_level: int) -> None:
        self._parameters = level, bits, memory_level
        self._takeover = takeover
        # What each connection keeps shall take the memory that the settings say, which are zlib's.
        self._compressor: Compressor = (
            zlib.compressobj(level, zlib.DEFLATED, -bits, memory_level) if takeover else self._faster()
        )
        # After a full flush zlib forgets what it saw, as a new compressor would, but without the cost of one: so one
        # compressor can serve all connections that keep no context.
        self._flush = zlib.Z_SYNC_FLUSH if takeover else zlib.Z_FULL_FLUSH

    def compress(self, data: bytes) -> bytes:
        """Return the payload of a compressed message (RFC 7692 section 7.2.1)."""
        # 7.2.3.6: where zlib makes nothing of nothing, an empty block stands for it, one octet of zeros.
        if not data:
            return b"\x00"
        compressed = self._compressor.compress(data) + self._compressor.flush(self._flush)
        # 7.2.1: "Remove 4 octets (that are 0x00 0x00 0xff 0xff) from the tail end."
        return compressed[:-4]

    def _faster(self) -> Compressor:
        return fast_compressor(*self._parameters)

    def compressor(self) -> Compressor:
        """Return what can compress one message while others are compressed here."""
        # With context takeover there are no others: each message of a connection waits for the one before.
        return self._compressor if self._takeover else self._faster()


class DeflateJob:
    """A message that is compressed in steps, once for all connections that send it.

    `step` does the next one; `octets` is the payload of the compressed message when all are done, None before.
    """

    __slots__ = ("_at", "_compressor", "_deflater", "_message", "_pieces", "octets", "size")

    def __init__(self, deflater: Deflater, message: bytes) -> None:
        self._deflater = deflater
        self._message = memoryview(message)
        self._compressor: Compressor | None = None
        self._pieces: list[bytes] = []
        self._at = 0
        self.octets: bytes | None = None
        # Of the message, in bytes.
        self.size = len(message)

    def step(self) -> None:
        """Compress up to STEP bytes more; do nothing where all are."""
        if self.octets is not None:
            return
        if self.size <= STEP:
            self.octets = self._deflater.compress(bytes(self._message))
        else:
            if self._compressor is None:
                self._compressor = self._deflater.compressor()
            self._pieces.append(self._compressor.compress(self._message[self._at : self._at + STEP]))
            self._at += STEP
            if self._at < self.size:
                return
            # As `Deflater.compress` does.
            self._pieces.append(self._compressor.flush(zlib.Z_SYNC_FLUSH)[:-4])
            self.octets = b"".join(self._pieces)
        self._message, self._compressor, self._pieces = memoryview(b""), None, []


class PerMessageDeflate:
    """The extension on one connection: what to do with its messages, and the state between them, if any."""

    __slots__ = (
        "_final_blocks", "_history", "_stream", "_takeover", "deflater", "piece_size", "rest", "shares", "threshold",
    )  # fmt: skip

    def __init__(self, parameters: DeflateParameters, server: bool, settings: Compression, shared: Shared) -> None:
        self.threshold = settings.threshold
        # How many bytes one call inflates, and how large a message is that is compressed in steps.
        self.piece_size = WHOLE
        # What was not inflated yet of the octets that came, None where all is.
        self.rest: bytes | None = None
        bits, others_bits = parameters.server_max_window_bits, parameters.client_max_window_bits
        takeover = not parameters.server_no_context_takeover
        self._takeover = not parameters.client_no_context_takeover
        if not server:
            bits, takeover, self._takeover = others_bits, self._takeover, takeover
        key = (bits, settings.level, settings.memory_level)
        deflater = None if takeover else shared.get(key)
        if deflater is None:
            deflater = Deflater(bits, takeover, settings.level, settings.memory_level)
            if not takeover:
                shared[key] = deflater
        self.deflater, self.shares = deflater, not takeover  # without takeover, others get the same octets from it
        self._stream: zlib._Decompress | None = None
        # The last octets that came out, for the case that a block with BFINAL ends zlib's stream but not the window.
        self._history = bytearray()
        self._final_blocks = 0

    def compress(self, data: bytes) -> bytes:
        """Return the payload of a compressed message."""
        return self.deflater.compress(data)

    def begin(self, data: bytes) -> DeflateJob:
        """Return what compresses a message in steps, each message behind the one before."""
        return DeflateJob(self.deflater, data)

    def decompress(self, data: bytes, final: bool, limit: int) -> bytes:
        """Return what the next octets of a message inflate to; `final` is True where they are its last.

        Returns more than `limit` bytes, by one, where the message has more, and `piece_size` bytes at most: where it
        sets `rest`, call it again with no data and the same `final`. Raises RemoteProtocolError(1007) where they are
        not deflate blocks, or too many with BFINAL set.
        """
        if self.rest is not None:
            data, self.rest = self.rest, None
        elif final:
            data += TAIL
        room = min(limit + 1, self.piece_size)
        # Always the largest window: zlib misses a reference beyond a smaller one where all of it comes in one call, so
        # the verdict would depend on how TCP cut the octets.
        stream = self._stream or zlib.decompressobj(-15)
        inflated = b""
        pieces = [data]
        while pieces and len(inflated) < room:
            piece = pieces.pop()
            start = stream.copy(), self._final_blocks
            try:
                stream, part, rest = self._inflate(stream, piece, room - len(inflated))
            except RemoteProtocolError:
                # zlib throws away what came before an error, which may be over the limit: then that is the verdict, as
                # if the octets had come one by one. So look for the bad octet by halves.
                if len(piece) == 1:
                    raise
                stream, self._final_blocks = start
                half = len(piece) // 2
                pieces += [piece[half:], piece[:half]]
                continue
            inflated += part
            if rest is not None:
                pieces.append(rest)
            self._history += part[-WINDOW:]
            if len(self._history) > 2 * WINDOW:
                del self._history[:-WINDOW]
        self._stream = stream
        if len(inflated) == self.piece_size:
            self.rest = b"".join(reversed(pieces))
        elif final:
            self._final_blocks = 0
            if not self._takeover:
                self._stream = None
                self._history.clear()
        return inflated

    def _inflate(
        self, stream: zlib._Decompress, data: bytes, room: int
    ) -> tuple[zlib._Decompress, bytes, bytes | None]:
        """Return the stream, up to `room` bytes, and where there are as many what is left of the octets."""
        inflated = b""
        try:
            while True:
                # 7.2.3.4: "DEFLATE blocks with BFINAL set to 1" are legal, and others may follow, which may refer back.
                if stream.eof:
                    self._final_blocks += 1
                    if self._final_blocks > MAX_FINAL_BLOCKS:
                        raise RemoteProtocolError(CloseCode.INVALID_DATA, INVALID)
                    history = (self._history + inflated[-WINDOW:])[-WINDOW:]
                    stream = zlib.decompressobj(-15, zdict=bytes(history))
                    if not data:
                        return stream, inflated, None
                inflated += stream.decompress(data, room - len(inflated))
                if len(inflated) == room:
                    return stream, inflated, stream.unused_data if stream.eof else stream.unconsumed_tail
                if not stream.eof:
                    return stream, inflated, None
                data = stream.unused_data
        except zlib.error:
            raise RemoteProtocolError(CloseCode.INVALID_DATA, INVALID) from None


Shared = dict[tuple[int, int, int], Deflater]
