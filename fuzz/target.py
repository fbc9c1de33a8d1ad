"""Targets: the name of a file in `fuzz/targets/` to what runs one input, its seeds and its dictionary.

A target's docstring opens with its invariant. Its `TARGET` makes, for a twin, the function that takes an input and
raises where the invariant does not hold. What that returns is a behaviour, a small value that says in which way the
input went through; the mutation loop keeps inputs that show a new one. A new file needs no line anywhere else.

Most inputs are two octets and the octets of the wire: the first octet chooses the settings, the second the pieces.
"""

from __future__ import annotations

import importlib
import pkgutil
from random import Random
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .twins import Twin

__all__ = ["Target", "cut", "load", "names", "seed", "short"]


class Target(NamedTuple):
    """What there is to know about a target.

    `words` are what a mutation may put in, `max_length` is that of an input in bytes; with `both`, the target compares
    the compiled twin with the interpreted one, and the interpreted one alone has nothing to show.
    """

    make: Callable[[Twin], Callable[[bytes], object]]
    seeds: Sequence[bytes]
    words: Sequence[bytes]
    max_length: int = 420
    both: bool = False


def names() -> list[str]:
    """Return the names of all targets."""
    folder = importlib.import_module("fuzz.targets")
    return sorted(module.name for module in pkgutil.iter_modules(folder.__path__))


def load(name: str) -> Target:
    """Return a target."""
    target: Target = importlib.import_module(f"fuzz.targets.{name}").TARGET
    return target


def seed(octets: bytes, settings: int = 0, pieces: int = 1) -> bytes:
    """Return the input that has these octets of the wire."""
    return bytes((settings, pieces)) + octets


def short(reason: str) -> str:
    """Return of an error's reason what says which rule it is, and little of what came."""
    return reason.partition("'")[0][:14]


def _sizes(pieces: int) -> list[int]:
    random = Random(pieces)
    largest = random.choice((2, 8, 40, 200))
    return [random.randint(0 if random.random() < 0.1 else 1, largest) for _ in range(random.choice((1, 1, 2, 2, 5)))]


_SIZES = [_sizes(pieces) for pieces in range(256)]


def cut(octets: bytes, pieces: int) -> list[bytes]:
    """Return the octets in pieces: one by one for 0, else in two to six, some of them empty."""
    if pieces == 0:
        return [octets[at : at + 1] for at in range(len(octets))]
    found: list[bytes] = []
    at = 0
    for size in _SIZES[pieces]:
        if at >= len(octets):
            return found
        found.append(octets[at : at + size])
        at += size
    found.append(octets[at:])
    return found
