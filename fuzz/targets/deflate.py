"""permessage-deflate, with and without context takeover.

Invariant: the payloads of any messages, in any pieces, inflate to the same octets with the same verdict, which is
RemoteProtocolError 1007 or none, up to the limit and one octet more, never further. What is compressed inflates to what
it was, here and by zlib alone.

An input is two octets, for the settings and the pieces, and messages: an octet for how long a payload is, and it.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fuzz.connections import HELLO, PARAMETERS, deflated
from fuzz.target import Target, cut, seed
from rawws.errors import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuzz.twins import Twin

LIMITS = (1 << 16, 300, 5, 0)
TAIL = b"\0\0\xff\xff"
MAX_HISTORY = 2 * 32768


class Extension:
    """Makes the extension as a server has it."""

    def __init__(self, twin: Twin) -> None:
        deflate = twin.load("rawws.protocol.deflate")
        self._make = deflate.PerMessageDeflate
        self._senders = [deflate.DeflateParameters(*parameters) for parameters in PARAMETERS if parameters]
        # A compressor of its own is the larger half of the work, and only to compress one is needed.
        self._receivers = [replace(parameters, server_no_context_takeover=True) for parameters in self._senders]
        self._settings = deflate.Compression(threshold=0)
        self._shared: dict[tuple[int, int, int], Any] = {}

    def receiver(self, settings: int) -> Any:
        """Return the extension of a new connection, to inflate with."""
        return self._make(self._receivers[(settings >> 2) % 3], True, self._settings, self._shared)

    def sender(self, settings: int) -> Any:
        """Return it to compress with."""
        return self._make(self._senders[(settings >> 2) % 3], True, self._settings, self._shared)

    def keeps_context(self, settings: int) -> bool:
        """Tell whether messages inflate with what came before them."""
        return not self._receivers[(settings >> 2) % 3].client_no_context_takeover


def payloads(octets: bytes) -> list[bytes]:
    """Return the payloads of the messages in an input."""
    found: list[bytes] = []
    at = 0
    while at < len(octets):
        stop = at + 1 + octets[at]
        found.append(octets[at + 1 : stop])
        at = stop
    return found


def inflate(extension: Any, messages: list[list[bytes]], limit: int) -> tuple[list[bytes], str]:
    """Return what messages inflate to, until one is over the limit or wrong, and which of both it was."""
    found: list[bytes] = []
    for pieces in messages:
        message = b""
        for number, piece in enumerate(pieces):
            try:
                message += extension.decompress(piece, number == len(pieces) - 1, limit - len(message))
            except RemoteProtocolError as error:
                assert error.close_code == 1007, error
                return found, error.reason
            assert len(message) <= limit + 1, (len(message), limit)
            if len(message) > limit:
                found.append(message[:limit])
                return found, "over the limit"
            assert len(extension._history) <= MAX_HISTORY  # noqa: SLF001 - only it tells what is held
        found.append(message)
    return found, ""


def make(twin: Twin) -> Callable[[bytes], object]:
    """Return the function that inflates messages."""
    extension = Extension(twin)

    def check(data: bytes) -> object:
        if len(data) < 2:
            return None
        settings, messages = data[0], payloads(data[2:])
        limit = LIMITS[settings & 3]
        whole = inflate(extension.receiver(settings), [[message] for message in messages], limit)
        made = inflate(extension.receiver(settings), [cut(message, data[1]) or [b""] for message in messages], limit)
        assert made == whole, (made, whole)
        if settings & 0x80:
            # What came out is as good as any other message to be compressed.
            sender = extension.sender(settings)
            inflater: Any = None
            for message in whole[0]:
                compressed = sender.compress(message)
                if inflater is None or sender.shares:
                    inflater = zlib.decompressobj(-15)
                assert inflater.decompress(compressed + TAIL) == message, (compressed, message)
        return whole[1], min(len(whole[0]), 5), (settings >> 2) % 3, sum(map(len, whole[0])) > 300

    return check


def messages(*payloads: bytes) -> bytes:
    """Return the input of these messages."""
    return b"".join(bytes((len(payload),)) + payload for payload in payloads)


BLOCKS = [
    # RFC 7692 7.2.3: one block, with context takeover, without compression, with BFINAL, two blocks, an empty message.
    HELLO,
    bytes.fromhex("f2 00 11 00 00"),
    bytes.fromhex("00 05 00 fa ff 48 65 6c 6c 6f 00"),
    bytes.fromhex("f3 48 cd c9 c9 07 00 00"),
    bytes.fromhex("f2 48 05 00 00 00 ff ff ca c9 c9 07 00"),
    b"\0",
    deflated(bytes(3000)),
    deflated(bytes(range(100))),
    deflated(b"a window " * 30, zlib.Z_FINISH),
    deflated(b"flushed", zlib.Z_FULL_FLUSH),
    b"\x03\0" * 20,
    b"\x03\0" * 100,
    b"\x07",
    b"",
]
SEEDS = [seed(messages(block), settings, 3) for block in BLOCKS for settings in (0, 4)]
SEEDS += [seed(messages(HELLO, block, b"\0", block), settings, 5) for block in BLOCKS for settings in (1, 0x88, 0x84)]
WORDS = [*(messages(block) for block in BLOCKS if len(block) < 60), *(block for block in BLOCKS if 0 < len(block) < 60)]
WORDS += [b"\0\0\0\xff\xff", b"\x01\0\0\xff\xff", b"\xf2", b"\xf3", b"\x02", b"\x4b", b"\xed\xc1\x01", b"\xff\xff"]
TARGET = Target(make, SEEDS, WORDS)
