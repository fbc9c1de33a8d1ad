"""The compiled connection against the interpreted one: receiving.

Invariant: of the same octets in the same pieces both make the same events, the same error, the same answer and the same
state, in both roles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fuzz.connections import SEEDS, SETTINGS, WORDS, Maker, described, feed_pieces
from fuzz.target import Target, cut, short
from fuzz.twins import INTERPRETED

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuzz.twins import Twin

# In the octet that chooses the pieces, this bit chooses the role.
CLIENT = 0x80


def make(twin: Twin) -> Callable[[bytes], object]:
    """Return the function that compares."""
    makers = {role: [Maker(each, role) for each in (twin, INTERPRETED)] for role in ("SERVER", "CLIENT")}

    def outcome(maker: Maker, data: bytes) -> tuple[Any, ...]:
        settings = SETTINGS[data[0]]
        connection = maker.make(settings)
        made = feed_pieces(connection, cut(data[2:], data[1] & 0x7F), settings)
        error = None if made.error is None else (made.error.close_code, made.error.reason)
        closes = connection.close_rcvd, connection.close_sent, connection.rcvd_then_sent
        return error, described(made.events), made.sent, int(connection.phase), closes, str(connection.closed())

    def check(data: bytes) -> object:
        if len(data) < 2:
            return None
        first, second = makers["CLIENT" if data[1] & CLIENT else "SERVER"]
        ours, theirs = outcome(first, data), outcome(second, data)
        assert ours == theirs, (ours, theirs)
        reason = "" if ours[0] is None else short(ours[0][1])
        return reason, frozenset(kind for kind, _ in ours[1]), data[0] >> 2 & 7

    return check


BOTH = [*SEEDS["SERVER"], *(bytes((octets[0], octets[1] | CLIENT)) + octets[2:] for octets in SEEDS["CLIENT"])]
TARGET = Target(make, BOTH, [*WORDS["SERVER"], *WORDS["CLIENT"]], both=True)
