"""Event streams against a transcript of the standard.

Invariant: any octets give the events, the Last-Event-ID and the reconnection time that the steps of WHATWG HTML 9.2.6
give, followed one by one and character by character.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fuzz.events import SEEDS, WORDS, Reader
from fuzz.target import Target, cut
from tests.sse.streams import standard

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuzz.twins import Twin


def make(twin: Twin) -> Callable[[bytes], object]:
    """Return the function that compares."""
    reader = Reader(twin)

    def check(data: bytes) -> object:
        if len(data) < 2:
            return None
        theirs = standard(data[2:])
        ours = reader.read([cut(data[2:], data[1])], 0)
        assert ours.events == [event.fields() for event in theirs.events], (ours, theirs)
        assert (ours.last_event_id, ours.retry) == (theirs.last_event_id, theirs.retry), (ours, theirs)
        names = frozenset(event[1] is None for event in ours.events)
        return min(len(ours.events), 5), ours.retry is None, ours.last_event_id == "", names

    return check


TARGET = Target(make, SEEDS, WORDS)
