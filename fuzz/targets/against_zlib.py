"""permessage-deflate against zlib.

Invariant: the payloads of any messages inflate to what zlib makes of them octet by octet, with the tail that RFC 7692
7.2.2 appends, and with a new stream that has the same window behind each block with BFINAL set; and where zlib finds
an error, so do we.

An input is that of `deflate`.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

from fuzz.target import Target, cut
from fuzz.targets.deflate import SEEDS, TAIL, WORDS, Extension, inflate, payloads

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuzz.twins import Twin

WINDOW = 32768
# More than an input of this length can inflate to.
LIMIT = 1 << 20
# Of blocks with BFINAL set in a message.
MAX_FINAL_BLOCKS = 128


class Oracle:
    """Inflates messages by zlib alone, octet by octet."""

    def __init__(self, takeover: bool) -> None:
        self._takeover = takeover
        self._history = b""
        self._stream: Any = zlib.decompressobj(-15)

    def inflate(self, payload: bytes) -> bytes | None:
        """Return what a message inflates to, None where zlib finds an error."""
        if not self._takeover:
            self._history = b""
            self._stream = zlib.decompressobj(-15)
        message, blocks = b"", 0
        octets = payload + TAIL
        for at in range(len(octets)):
            try:
                part = self._stream.decompress(octets[at : at + 1])
            except zlib.error:
                return None
            message += part
            self._history = (self._history + part)[-WINDOW:]
            if self._stream.eof:
                blocks += 1
                self._stream = zlib.decompressobj(-15, zdict=self._history)
        return None if blocks > MAX_FINAL_BLOCKS else message


def make(twin: Twin) -> Callable[[bytes], object]:
    """Return the function that compares."""
    extension = Extension(twin)

    def check(data: bytes) -> object:
        if len(data) < 2:
            return None
        settings, messages = data[0], payloads(data[2:])
        oracle = Oracle(extension.keeps_context(settings))
        theirs = []
        for message in messages:
            inflated = oracle.inflate(message)
            if inflated is None:
                break
            theirs.append(inflated)
        pieces = [cut(message, data[1]) or [b""] for message in messages]
        ours, error = inflate(extension.receiver(settings), pieces, LIMIT)
        assert ours == theirs, (ours, theirs)
        assert (error == "") == (len(theirs) == len(messages)), (error, theirs)
        return error, min(len(ours), 5), (settings >> 2) % 3, sum(map(len, ours)) > 300

    return check


TARGET = Target(make, SEEDS, WORDS)
