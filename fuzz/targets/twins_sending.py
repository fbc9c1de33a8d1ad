"""The compiled connection against the interpreted one: sending.

Invariant: for the same calls both send the same octets, and refuse with the same error, in both roles.

An input is that of `sending`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fuzz.connections import PARAMETERS, Maker, Settings
from fuzz.target import Target
from fuzz.targets.sending import SEEDS, WORDS, calls, perform, random
from fuzz.twins import INTERPRETED

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuzz.twins import Twin


def make(twin: Twin) -> Callable[[bytes], object]:
    """Return the function that compares."""
    makers = [[Maker(each, role) for each in (twin, INTERPRETED)] for role in ("SERVER", "CLIENT")]

    def check(data: bytes) -> object:
        if len(data) < 2:
            return None
        settings = Settings(1 << 20, PARAMETERS[data[0] >> 1 & 3], streaming=False, closing=False, hold_pongs=False)
        first, second = (maker.make(settings, random) for maker in makers[data[0] & 1])
        seen: set[Any] = set()
        for name, arguments in calls(data[2:]):
            ours, theirs = perform(first, name, arguments), perform(second, name, arguments)
            assert ours == theirs, (name, arguments, ours, theirs)
            assert first.pending() == second.pending(), (name, arguments)
            seen.add((name, ours[:24]))
            if data[1] & 1 and name == "ping":
                assert first.data_to_send() == second.data_to_send(), (name, arguments)
        assert first.data_to_send() == second.data_to_send()
        assert str(first.closed()) == str(second.closed())
        return frozenset(seen), data[0] & 7

    return check


TARGET = Target(make, SEEDS, WORDS, max_length=800, both=True)
