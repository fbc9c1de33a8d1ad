"""Huffman: strings to the code of HPACK and back (RFC 7541 section 5.2 and appendix B).

The code is canonical: codes of one length are consecutive numbers in the order of their symbols, and what has more bits
comes behind what has fewer. So the symbols of each length say all of appendix B, and decoding needs no tree: most text
is in codes of up to eight bits, which one look into a table finds.
"""

from __future__ import annotations

from typing import Final

from rawws.errors import Http2Error

from .http2_codes import ErrorCode

__all__ = ["decode_huffman", "encode_huffman", "huffman_size"]

# Appendix B: the symbols by the number of bits of their code. EOS is the 257th symbol, and the last of 30 bits.
SYMBOLS: Final = {
    5: b"012aceiost",
    6: b" %-./3456789=A_bdfghlmnpru",
    7: b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz",
    8: b"&*,;XZ",
    10: b'!"()?',
    11: b"'+|",
    12: b"#>",
    13: b"\x00$@[]~",
    14: b"^}",
    15: b"<`{",
    19: b"\\\xc3\xd0",
    20: b"\x80\x82\x83\xa2\xb8\xc2\xe0\xe2",
    21: bytes.fromhex("99a1a7acb0b1b3d1d8d9e3e5e6"),
    22: bytes.fromhex("81848586 88929a9c a0a3a4a9 aaadb2b5 b9babbbd bec4c6e4 e8e9"),
    23: bytes.fromhex("0187898a 8b8c8d8f 93959697 989b9d9e a5a6a8ae afb4b6b7 bcbfc5e7 ef"),
    24: bytes.fromhex("098e9091 949fabce d7e1eced"),
    25: bytes.fromhex("c7cfeaeb"),
    26: bytes.fromhex("c0c1c8c9 cacdd2d5 dadbeef0 f2f3ff"),
    27: bytes.fromhex("cbccd3d4 d6dddedf f1f4f5f6 f7f8fafb fcfdfe"),
    28: bytes.fromhex("02030405 0607080b 0c0e0f10 11121314 15171819 1a1b1c1d 1e1f7fdc f9"),
    30: b"\n\r\x16",
}
EOS, LONGEST_CODE = 256, 30

# Of each symbol: its code, and how many bits that has.
CODES: list[int] = [0] * 257
LENGTHS: list[int] = [0] * 257
# Of the next eight bits: the symbol whose code they begin with, and how many bits that has; 0 where it has over eight.
SHORT_SYMBOLS: list[int] = [0] * 256
SHORT_LENGTHS: list[int] = [0] * 256
# Of each number of bits: the first code, how many there are, and where their symbols begin in ORDER.
FIRST: list[int] = [0] * 31
COUNT: list[int] = [0] * 31
OFFSET: list[int] = [0] * 31
ORDER: list[int] = []


def _assign_codes() -> None:
    code = 0
    for length in range(1, LONGEST_CODE + 1):
        code <<= 1
        symbols = [*SYMBOLS.get(length, b""), *([EOS] if length == LONGEST_CODE else [])]
        FIRST[length], COUNT[length], OFFSET[length] = code, len(symbols), len(ORDER)
        ORDER.extend(symbols)
        for symbol in symbols:
            CODES[symbol], LENGTHS[symbol] = code, length
            if length <= 8:
                for behind in range(1 << 8 - length):
                    SHORT_SYMBOLS[(code << 8 - length) + behind] = symbol
                    SHORT_LENGTHS[(code << 8 - length) + behind] = length
            code += 1


_assign_codes()


def huffman_size(octets: bytes) -> int:
    """Return how many octets `encode_huffman` needs for these."""
    bits = 0
    for octet in octets:
        bits += LENGTHS[octet]
    return (bits + 7) >> 3


def encode_huffman(octets: bytes) -> bytes:
    """Return the octets in Huffman code."""
    encoded = bytearray()
    bits = count = 0
    for octet in octets:
        bits = bits << LENGTHS[octet] | CODES[octet]
        count += LENGTHS[octet]
        while count >= 8:
            count -= 8
            encoded.append(bits >> count & 0xFF)
        bits &= (1 << count) - 1
    if count:
        # 5.2: "As the Huffman-encoded data doesn't always end at an octet boundary, some padding is inserted
        # after it, up to the next octet boundary. [...] the most significant bits of the code corresponding to the EOS
        # (end-of-string) symbol are used", which are ones.
        encoded.append((bits << 8 | 0xFF) >> count & 0xFF)
    return bytes(encoded)


def decode_huffman(octets: bytes, start: int, end: int) -> bytes:
    """Return what `octets[start:end]` is the code of. Raises `Http2Error` (COMPRESSION_ERROR)."""
    decoded = bytearray()
    bits = count = 0
    one = 1  # of more than 32 bits, compiled
    while True:
        while count < 32 and start < end:
            bits = bits << 8 | octets[start]
            start += 1
            count += 8
        # What is behind the end reads as ones, like the padding.
        window = bits >> (count - 8) if count >= 8 else (bits << 8 | 0xFF) >> count & 0xFF
        length = SHORT_LENGTHS[window]
        symbol = SHORT_SYMBOLS[window]
        if length == 0:
            window = bits >> (count - 30) if count >= 30 else (bits + 1 << (30 - count)) - 1
            length = long_length(window)
            symbol = ORDER[OFFSET[length] + (window >> (30 - length)) - FIRST[length]]
        if length > count:
            break
        # 5.2: "A Huffman-encoded string literal containing the EOS symbol MUST be treated as a decoding error."
        if symbol == EOS:
            raise Http2Error(ErrorCode.COMPRESSION_ERROR, "a Huffman-coded string has the EOS symbol")
        decoded.append(symbol)
        count -= length
        bits &= (one << count) - 1
    # 5.2: "A padding strictly longer than 7 bits MUST be treated as a decoding error. A padding not
    # corresponding to the most significant bits of the code for the EOS symbol MUST be treated as a decoding error."
    if count > 7 or bits != (one << count) - 1:
        raise Http2Error(
            ErrorCode.COMPRESSION_ERROR, f"a Huffman-coded string ends with {count} bits that are no padding of ones"
        )
    return bytes(decoded)


def long_length(window: int) -> int:
    """Return how many bits, nine or more, the code has that these 30 begin with."""
    length = 9
    while (window >> (30 - length)) - FIRST[length] >= COUNT[length]:
        length += 1
    return length
