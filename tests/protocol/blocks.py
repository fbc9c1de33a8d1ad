"""DEFLATE blocks written bit by bit (RFC 1951), to have those structures too that zlib never writes."""

from __future__ import annotations

from collections.abc import Iterable

# RFC 1951 section 3.2.7: the order of the code lengths of the code lengths, as far as it is needed here.
ORDER = (16, 17, 18, 0, 8, 7, 9)


class Bits:
    """A string of bits, packed from the least significant bit of each octet on."""

    def __init__(self) -> None:
        self.value = 0
        self.count = 0

    def put(self, value: int, width: int) -> None:
        """Append a number, its least significant bit first."""
        self.value |= value << self.count
        self.count += width

    def put_code(self, code: int, width: int) -> None:
        """Append a Huffman code, its most significant bit first."""
        for shift in range(width - 1, -1, -1):
            self.put(code >> shift & 1, 1)

    def align(self) -> None:
        self.count += -self.count % 8

    def octets(self) -> bytes:
        return self.value.to_bytes((self.count + 7) // 8, "little")


def canonical(lengths: list[int]) -> list[tuple[int, int]]:
    """RFC 1951 section 3.2.2: code lengths to codes, as pairs of code and length."""
    codes = [(0, 0)] * len(lengths)
    code = 0
    for width in range(1, max(lengths) + 1):
        for symbol, length in enumerate(lengths):
            if length == width:
                codes[symbol] = (code, width)
                code += 1
        code <<= 1
    return codes


FIXED = canonical([8] * 144 + [9] * 112 + [7] * 24 + [8] * 8)
# 255 codes of 8 bits and two of 9 are complete.
DYNAMIC_LENGTHS = [8] * 255 + [9] * 2
DYNAMIC = canonical(DYNAMIC_LENGTHS)


class Writer:
    """A deflate stream, block by block; what does not end at an octet goes on there."""

    def __init__(self) -> None:
        self.bits = Bits()

    def stored(self, data: bytes, *, final: bool = False) -> None:
        self.bits.put(final | 0 << 1, 3)
        self.bits.align()
        self.bits.put(len(data), 16)
        self.bits.put(len(data) ^ 0xFFFF, 16)
        self.bits.put(int.from_bytes(data, "little"), 8 * len(data))

    def fixed(self, symbols: Iterable[int | tuple[int, int]], *, final: bool = False) -> None:
        """Literals, and references as pairs of length 3 to 10 and distance 1 to 32768."""
        self.bits.put(final | 1 << 1, 3)
        for symbol in symbols:
            if isinstance(symbol, tuple):
                length, distance = symbol
                self.bits.put_code(*FIXED[257 + length - 3])
                code, extra, width = distance_code(distance)
                self.bits.put_code(code, 5)
                self.bits.put(extra, width)
            else:
                self.bits.put_code(*FIXED[symbol])
        self.bits.put_code(*FIXED[256])

    def dynamic(self, data: bytes, *, final: bool = False) -> None:
        self.bits.put(final | 2 << 1, 3)
        self.bits.put(0, 5)  # 257 codes of literals
        self.bits.put(0, 5)  # one code of distances, which has no bits
        self.bits.put(len(ORDER) - 4, 4)
        code_lengths = {8: 1, 9: 2, 0: 2}
        for symbol in ORDER:
            self.bits.put(code_lengths.get(symbol, 0), 3)
        codes = canonical([code_lengths.get(symbol, 0) for symbol in range(19)])
        for length in [*DYNAMIC_LENGTHS, 0]:
            self.bits.put_code(*codes[length])
        for octet in data:
            self.bits.put_code(*DYNAMIC[octet])
        self.bits.put_code(*DYNAMIC[256])

    def reserved(self) -> None:
        """The block type that RFC 1951 calls an error."""
        self.bits.put(3 << 1, 3)

    def pad(self) -> None:
        """RFC 7692 section 7.2.3.4: a block with BFINAL set is followed by the rest of its octet."""
        self.bits.align()

    def payload(self) -> bytes:
        """The payload of a message: an empty stored block without its last four octets ends it (7.2.1)."""
        bits = Bits()
        bits.value, bits.count = self.bits.value, self.bits.count
        bits.put(0, 3)
        return bits.octets()


def distance_code(distance: int) -> tuple[int, int, int]:
    """RFC 1951 section 3.2.5: the code, the extra bits and their number."""
    base, code = 1, 0
    while True:
        width = max(0, code // 2 - 1)
        if distance < base + (1 << width):
            return code, distance - base, width
        base += 1 << width
        code += 1
