"""Frames against wsproto.

Invariant: of any octets wsproto makes the same events and the same close code, in both roles and with compression; but
for the differences that tests/protocol/test_wsproto_differential.py lists with their reasons, and one more, below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fuzz.connections import SEEDS, WORDS, Maker, Settings, described, feed_whole
from fuzz.target import Target
from rawws.protocol.connection import Role
from rawws.protocol.deflate import DeflateParameters
from tests.protocol.test_wsproto_differential import DIFFERENCES, PARAMETERS, reviewed, wsproto_verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuzz.twins import Twin

CLIENT = 0x80
# wsproto inflates the payload of a frame, and fails with 1007, before it judges whether the frame may come now.
ORDER = ("a new message before", "a continuation frame without")
UNLIMITED = 1 << 60


def plain(parameters: DeflateParameters | None) -> tuple[bool, bool, int, int] | None:
    """Return parameters as both twins take them."""
    if parameters is None:
        return None
    takeovers = parameters.server_no_context_takeover, parameters.client_no_context_takeover
    return *takeovers, parameters.server_max_window_bits, parameters.client_max_window_bits


def without_half_a_header(octets: bytes) -> bytes:
    """Return octets without a last header that is cut: some judge what is there of it, some wait for all of it."""
    at = 0
    while at + 2 <= len(octets):
        length, stop = octets[at + 1] & 0x7F, at + 2
        if length >= 126:
            stop += 2 if length == 126 else 8
            length = int.from_bytes(octets[at + 2 : stop], "big")
        if octets[at + 1] & 0x80:
            stop += 4
        if stop > len(octets):
            break
        at = stop + length
    return octets[:at]


def make(twin: Twin) -> Callable[[bytes], object]:
    """Return the function that compares."""
    makers = {Role.SERVER: Maker(twin, "SERVER"), Role.CLIENT: Maker(twin, "CLIENT")}
    all_settings = [
        Settings(UNLIMITED, plain(parameters), streaming=False, closing=False, hold_pongs=False)
        for parameters in PARAMETERS
    ]

    def check(data: bytes) -> object:
        if len(data) < 2:
            return None
        role = Role.CLIENT if data[1] & CLIENT else Role.SERVER
        number, octets = data[0] >> 2 & 3, without_half_a_header(data[2:])
        made = feed_whole(makers[role].make(all_settings[number]), octets, all_settings[number])
        events = [
            (kind, *([value] if isinstance(value, (str, bytes)) else value)) for kind, value in described(made.events)
        ]
        ours = events, None if made.error is None else made.error.close_code
        theirs = wsproto_verdict(role, PARAMETERS[number], octets)
        difference = None
        if ours != theirs:
            if made.error is not None and made.error.reason.startswith(ORDER) and theirs == (events, 1007):
                return "order"
            difference = reviewed(PARAMETERS[number], role, octets, theirs, ours)
            assert difference in DIFFERENCES, (ours, theirs)
        return difference, ours[1], frozenset(event[0] for event in events), number

    return check


BOTH = [*SEEDS["SERVER"], *(bytes((octets[0], octets[1] | CLIENT)) + octets[2:] for octets in SEEDS["CLIENT"])]
TARGET = Target(make, BOTH, [*WORDS["SERVER"], *WORDS["CLIENT"]])
