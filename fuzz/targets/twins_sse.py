"""The compiled decoder and encoder of event streams against the interpreted ones.

Invariant: of the same octets in the same pieces both make the same events, the same Last-Event-ID and reconnection
time, and the same error; and both write the same event as the same octets, or refuse it with the same error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fuzz.events import SEEDS, WORDS, Reader
from fuzz.target import Target, cut
from fuzz.targets.sse_encoder import fields_of
from fuzz.twins import INTERPRETED

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuzz.twins import Twin


def written(twin: Twin) -> Callable[[bytes], bytes | str]:
    """Return the function that writes the event in an input."""
    event, encode = twin.load("rawws_sse.event").Event, twin.load("rawws_sse.encoder").encode

    def write(data: bytes) -> bytes | str:
        try:
            octets: bytes = encode(event(**fields_of(data)))
        except ValueError as error:
            return f"{type(error).__name__}: {error}"
        return octets

    return write


def make(twin: Twin) -> Callable[[bytes], object]:
    """Return the function that compares."""
    first, second = Reader(twin), Reader(INTERPRETED)
    write, write_too = written(twin), written(INTERPRETED)

    def check(data: bytes) -> object:
        if len(data) < 2:
            return None
        streams = [cut(stream, data[1]) for stream in (data[2:].split(b"\0") if data[0] & 4 else [data[2:]])]
        ours, theirs = first.read(streams, data[0]), second.read(streams, data[0])
        assert ours == theirs, (ours, theirs)
        octets, octets_too = write(data), write_too(data)
        assert octets == octets_too, (octets, octets_too)
        refused = octets[:16] if isinstance(octets, str) else ""
        return ours.too_large, min(len(ours.events), 5), ours.retry is None, ours.last_event_id == "", refused

    return check


TARGET = Target(make, SEEDS, [*WORDS, b"\xff"], both=True)
