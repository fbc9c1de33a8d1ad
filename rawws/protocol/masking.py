"""Masking: XOR octets with a four-octet key (RFC 6455 section 5.3).

A masking key is an int whose least significant octet is the first of the key. Two ways to the same result: `mask` suits
the interpreter (one XOR of two large integers), `mask_octets` is the RFC's own loop, and the fast one when compiled.
The `.pxd` files take the second where Python takes the first; the tests hold them equal. The same goes for the other
two pairs: what copies octets in one step in Python is a loop in C.
"""

from __future__ import annotations

__all__ = [
    "blank",
    "blank_octets",
    "cut",
    "cut_octets",
    "mask",
    "mask_octets",
    "place",
    "place_octets",
    "rotate",
]


def mask(buffer: bytearray, start: int, stop: int, key: int) -> None:
    """XOR `buffer[start:stop]` in place with the key, repeated."""
    length = stop - start
    repeated = (key.to_bytes(4, "little") * (length // 4 + 1))[:length]
    octets = int.from_bytes(buffer[start:stop], "little") ^ int.from_bytes(repeated, "little")
    buffer[start:stop] = octets.to_bytes(length, "little")


def mask_octets(buffer: bytearray, start: int, stop: int, key: int) -> None:
    """Do the same, octet by octet."""
    # RFC 6455 5.3: "Octet i of the transformed data ("transformed-octet-i") is the XOR of octet i of the original data
    # ("original-octet-i") with octet at index i modulo 4 of the masking key ("masking-key-octet-j")"
    octets = buffer
    key0, key1, key2, key3 = key & 0xFF, key >> 8 & 0xFF, key >> 16 & 0xFF, key >> 24
    while start + 4 <= stop:
        octets[start] ^= key0
        octets[start + 1] ^= key1
        octets[start + 2] ^= key2
        octets[start + 3] ^= key3
        start += 4
    for last in range(start, stop):
        octets[last] ^= key & 0xFF
        key >>= 8


def rotate(key: int, count: int) -> int:
    """Return the key as it applies `count` octets further on, for a payload that arrives in pieces."""
    shift = 8 * (count & 3)
    if shift == 0:
        return key
    return (key >> shift | key << (32 - shift)) & 0xFFFFFFFF


def cut(buffer: bytearray, start: int, stop: int) -> bytes:
    """Return `buffer[start:stop]` as bytes."""
    return bytes(buffer[start:stop])


def cut_octets(buffer: bytearray, start: int, stop: int) -> bytes | bytearray:
    """Do the same; compiled, the slice of a C pointer is a bytes object already."""
    octets = buffer
    return octets[start:stop]


def blank(length: int) -> bytearray:  # noqa: ARG001 - for the other twin
    """Return where `place` may put so many octets, from the first to the last; `bytes()` of it is the result."""
    return bytearray()


def blank_octets(length: int) -> bytes:
    """Do the same; compiled, bytes that nobody else has yet can be written to, and `bytes()` of them is no copy."""
    return bytes(length)


def place(target: bytearray, at: int, source: bytes | bytearray, start: int, stop: int, key: int) -> None:
    """Write `source[start:stop]`, masked with the key unless that is 0, at `target[at:]`."""
    target[at : at + stop - start] = source[start:stop]
    if key:
        mask(target, at, at + stop - start, key)


def place_octets(target: bytearray, at: int, source: bytes | bytearray, start: int, stop: int, key: int) -> None:
    """Do the same, octet by octet."""
    octets = target
    origin = source
    key0, key1, key2, key3 = key & 0xFF, key >> 8 & 0xFF, key >> 16 & 0xFF, key >> 24
    while start + 4 <= stop:
        octets[at] = origin[start] ^ key0
        octets[at + 1] = origin[start + 1] ^ key1
        octets[at + 2] = origin[start + 2] ^ key2
        octets[at + 3] = origin[start + 3] ^ key3
        start += 4
        at += 4
    for last in range(start, stop):
        octets[at + last - start] = origin[last] ^ (key & 0xFF)
        key >>= 8
