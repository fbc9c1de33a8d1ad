"""Event streams as a client reads them.

Invariant: any octets, in any pieces, give the same events, the same Last-Event-ID and reconnection time, and the same
EventTooLarge or none; no more of an event is held than three times `max_size`. With some settings, a NUL in the input
begins a new stream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fuzz.events import SEEDS, WORDS, Reader
from fuzz.target import Target, cut

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuzz.twins import Twin


def make(twin: Twin) -> Callable[[bytes], object]:
    """Return the function that reads streams."""
    reader = Reader(twin)

    def check(data: bytes) -> object:
        if len(data) < 2:
            return None
        settings = data[0]
        streams = data[2:].split(b"\0") if settings & 4 else [data[2:]]
        whole = reader.read([[stream] for stream in streams], settings)
        made = reader.read([cut(stream, data[1]) for stream in streams], settings)
        assert made == whole, (made, whole)
        names = frozenset(event[1] is None for event in whole.events)
        return whole.too_large, min(len(whole.events), 5), whole.retry is None, whole.last_event_id == "", names

    return check


TARGET = Target(make, SEEDS, WORDS)
