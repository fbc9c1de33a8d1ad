"""Masking: XOR octets with a four-octet key (RFC 6455 section 5.3).

A masking key is an int whose least significant octet is the first of the key; with the key 0, octets stay as they are.
Python masks by one XOR of two large integers. The compiled twin has the functions of octets.pxd in the place of these:
the same in C, eight octets at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["blank", "cut", "octets_of", "place", "read_key", "rotate", "sealed", "unmask", "unmask_text"]

# A text as UTF-8. In C that of a str of ASCII is the str itself, which `place` takes: nothing is copied before.
encode: Callable[[str], bytes] = str.encode
# What `encode` returned, as bytes.
octets_of: Callable[[bytes], bytes] = bytes
# The octets of what `blank` returned, once all are placed. In C without a copy.
sealed = bytes


def read_key(buffer: bytearray, at: int) -> int:
    """Return the masking key that stands at `buffer[at:]`."""
    return int.from_bytes(buffer[at : at + 4], "little")


def rotate(key: int, count: int) -> int:
    """Return the key as it applies `count` octets further on, for a payload that arrives in pieces."""
    shift = 8 * (count & 3)
    if shift == 0:
        return key
    return (key >> shift | key << (32 - shift)) & 0xFFFFFFFF


def cut(buffer: bytearray, start: int, stop: int) -> bytes:
    """Return `buffer[start:stop]` as bytes."""
    return bytes(buffer[start:stop])


def unmask(buffer: bytes | bytearray, start: int, stop: int, key: int) -> bytes:
    """Return `buffer[start:stop]`, masked with the key. Masking twice changes nothing, so this unmasks as well."""
    if not key:
        return bytes(buffer[start:stop])
    # RFC 6455 5.3: "Octet i of the transformed data ("transformed-octet-i") is the XOR of octet i of the original data
    # ("original-octet-i") with octet at index i modulo 4 of the masking key ("masking-key-octet-j")"
    length = stop - start
    repeated = (key.to_bytes(4, "little") * (length // 4 + 1))[:length]
    octets = int.from_bytes(buffer[start:stop], "little") ^ int.from_bytes(repeated, "little")
    return octets.to_bytes(length, "little")


def unmask_text(buffer: bytearray, start: int, stop: int, key: int) -> str:
    """Return `buffer[start:stop]`, masked with the key, as text. Raises UnicodeDecodeError. It may change them."""
    return unmask(buffer, start, stop, key).decode()


def blank(length: int) -> bytearray:  # noqa: ARG001 - for the other twin
    """Return where `place` may put so many octets, from the first to the last."""
    return bytearray()


def place(target: bytearray, at: int, source: bytes | bytearray, start: int, stop: int, key: int) -> None:
    """Write `source[start:stop]`, masked with the key, at `target[at:]`."""
    target[at : at + stop - start] = unmask(source, start, stop, key) if key else source[start:stop]
