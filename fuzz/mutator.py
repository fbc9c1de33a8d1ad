"""Mutator: inputs to other inputs, some octets of them changed.

The same seed gives the same inputs, as long as `keep` is called for the same ones. Two octets of every input choose
how the others are fed, so one mutation changes these alone.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Mutator"]

# Of 300 bytes each, a megabyte; past that an input takes the place of another.
MAX_POOL = 4096
# How many mutations an input gets: mostly few, so that what it was stays.
ROUNDS = (1, 1, 1, 1, 2, 2, 3, 4, 6)
# Octets at which words end.
EDGES = b"\r\n :;,="
# Octets at which lengths, signs and characters change.
SPECIAL = bytes.fromhex("00 01 02 03 04 05 09 0a 0d 10 1f 20 2c 30 39 3a 3b 7d 7e 7f 80 81 82 88 89 bf c0 ed f4 fe ff")


@final
class Mutator:
    """Draws an input of the pool and changes it; `keep` adds to the pool."""

    __slots__ = ("_max_length", "_seeds", "pool", "random", "words")

    def __init__(self, seeds: Sequence[bytes], words: Sequence[bytes], max_length: int, number: int) -> None:
        self.random = Random(number).random
        self.pool = list(seeds)
        self.words = list(words)
        self._seeds = len(self.pool)
        self._max_length = max_length

    def draw(self) -> bytes:
        """Return the next input."""
        random = self.random
        # Squared: the seeds stand first, and a large pool shall not bury them.
        data = bytearray(self.pool[int(random() ** 2 * len(self.pool))])
        for _ in range(ROUNDS[int(random() * len(ROUNDS))]):
            if len(data) < 3:
                data += b"\0\x01\0"
            CHANGES[int(random() * len(CHANGES))](data, self)
        del data[self._max_length :]
        return bytes(data)

    def keep(self, data: bytes) -> None:
        """Add an input to the pool."""
        if len(self.pool) < MAX_POOL:
            self.pool.append(data)
        else:
            self.pool[self._seeds + int(self.random() * (MAX_POOL - self._seeds))] = data


def _place(data: bytearray, mutator: Mutator) -> int:
    return int(mutator.random() * len(data))


def _gap(data: bytearray, mutator: Mutator) -> int:
    return int(mutator.random() * (len(data) + 1))


def flip(data: bytearray, mutator: Mutator) -> None:
    """Turn one bit."""
    data[_place(data, mutator)] ^= 1 << int(mutator.random() * 8)


def replace(data: bytearray, mutator: Mutator) -> None:
    """Put any octet in the place of another."""
    data[_place(data, mutator)] = int(mutator.random() * 256)


def replace_special(data: bytearray, mutator: Mutator) -> None:
    """Put an octet at which something changes in the place of another."""
    data[_place(data, mutator)] = SPECIAL[int(mutator.random() * len(SPECIAL))]


def nudge(data: bytearray, mutator: Mutator) -> None:
    """Make an octet one more, or one less."""
    at = _place(data, mutator)
    data[at] = data[at] + (1 if mutator.random() < 0.5 else -1) & 0xFF


def insert(data: bytearray, mutator: Mutator) -> None:
    """Put in some octets, all the same."""
    at = _gap(data, mutator)
    data[at:at] = bytes((int(mutator.random() * 256),)) * (1 + int(mutator.random() ** 4 * 130))


def insert_word(data: bytearray, mutator: Mutator) -> None:
    """Put in a word of the dictionary."""
    at = _gap(data, mutator)
    data[at:at] = mutator.words[int(mutator.random() * len(mutator.words))]


def insert_word_at_edge(data: bytearray, mutator: Mutator) -> None:
    """Put in a word where another one ends: before a space or a line end, for example."""
    edge = EDGES[int(mutator.random() * len(EDGES))]
    at = max(0, data.find(edge, _gap(data, mutator)))
    data[at:at] = mutator.words[int(mutator.random() * len(mutator.words))]


def replace_word(data: bytearray, mutator: Mutator) -> None:
    """Write a word of the dictionary over what is there."""
    at = _place(data, mutator)
    word = mutator.words[int(mutator.random() * len(mutator.words))]
    data[at : at + len(word)] = word


def delete(data: bytearray, mutator: Mutator) -> None:
    """Take some octets away."""
    at = _place(data, mutator)
    del data[at : at + 1 + int(mutator.random() ** 3 * len(data))]


def double(data: bytearray, mutator: Mutator) -> None:
    """Put in a copy of some octets of the input."""
    start = _place(data, mutator)
    at = _gap(data, mutator)
    data[at:at] = data[start : start + 1 + int(mutator.random() ** 2 * 64)]


def splice(data: bytearray, mutator: Mutator) -> None:
    """End as another input does."""
    other = mutator.pool[int(mutator.random() * len(mutator.pool))]
    data[_place(data, mutator) :] = other[int(mutator.random() * len(other)) :]


def truncate(data: bytearray, mutator: Mutator) -> None:
    """Take the end away."""
    del data[_place(data, mutator) :]


def refeed(data: bytearray, mutator: Mutator) -> None:
    """Change the first two octets: the settings, the pieces, or both."""
    which = mutator.random()
    if which < 0.7:
        data[0] = int(mutator.random() * 256)
    if which > 0.4:
        data[1] = int(mutator.random() * 256)


CHANGES: tuple[Callable[[bytearray, Mutator], None], ...] = (
    flip, replace, replace_special, nudge, insert, insert_word, insert_word_at_edge, replace_word, delete, double,
    splice, truncate, refeed, refeed,
)  # fmt: skip
