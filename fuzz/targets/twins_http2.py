"""Connections of HTTP/2, compiled and interpreted.

Invariant: both twins make the same of the same pieces: events, errors and answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fuzz.target import Target, cut, short
from fuzz.targets.http2 import SEEDS, WORDS, Connections
from fuzz.twins import INTERPRETED

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuzz.twins import Twin


def make(twin: Twin) -> Callable[[bytes], object]:
    """Return the function that compares this twin with the interpreted one."""
    ours, theirs = Connections(twin), Connections(INTERPRETED)

    def check(data: bytes) -> object:
        if len(data) < 2:
            return None
        pieces = cut(data[2:], data[1])
        seen, expected = ours.run(pieces, data[0]), theirs.run(pieces, data[0])
        assert seen == expected, (seen, expected)
        events, error, _ = seen
        return error and (error[0], short(error[1])), frozenset(event[0] for event in events)

    return check


TARGET = Target(make, SEEDS, WORDS, both=True)
