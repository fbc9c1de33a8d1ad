"""Events as a server writes them, and as a client reads them.

Invariant: an event that can be written is read as one event with the same type, id and reconnection time, and the same
data but for its line ends; one without data is read as none. What would become another field raises ValueError.

An input is two octets, which say what fields there are, and the fields, with 0xff between them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fuzz.target import Target
from rawws_sse import MAX_RETRY

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuzz.twins import Twin

NAMES = ("data", "event", "id", "comment")


class Encoding:
    """Writes events with one twin, and reads them."""

    def __init__(self, twin: Twin) -> None:
        self.event = twin.load("rawws_sse.event").Event
        self.encode = twin.load("rawws_sse.encoder").encode
        self.decoder = twin.load("rawws_sse.decoder").Decoder

    def write(self, fields: dict[str, Any]) -> bytes | None:
        """Return the octets of an event, None where it may not be written."""
        try:
            octets: bytes = self.encode(self.event(**fields))
        except ValueError:
            return None
        return octets


def fields_of(data: bytes) -> dict[str, Any]:
    """Return the fields of the event in an input."""
    values = [part.decode("utf-8", "surrogateescape") for part in data[2:].split(b"\xff")]
    present = [name for number, name in enumerate(NAMES) if data[0] >> number & 1]
    fields: dict[str, Any] = dict(zip(present, values, strict=False))
    if data[0] & 0x10:
        fields["retry"] = (data[1], MAX_RETRY, MAX_RETRY + 1, -data[1])[data[0] >> 6]
    return fields


def may_be_written(fields: dict[str, Any]) -> bool:
    """Tell whether an event may be written."""
    for name in NAMES:
        value = fields.get(name, "")
        if any("\ud800" <= character <= "\udfff" for character in value):
            return False
        if name != "data" and ("\n" in value or "\r" in value or (name != "comment" and "\0" in value)):
            return False
    return bool(0 <= fields.get("retry", 0) <= MAX_RETRY)


def make(twin: Twin) -> Callable[[bytes], object]:
    """Return the function that writes an event and reads it."""
    encoding = Encoding(twin)

    def check(data: bytes) -> object:
        if len(data) < 2:
            return None
        fields = fields_of(data)
        octets = encoding.write(fields)
        assert (octets is not None) == may_be_written(fields), (fields, octets)
        if octets is None:
            return frozenset(fields)
        decoder = encoding.decoder(None)
        events = [event.fields() for event in decoder.receive(octets)]
        last_id = fields.get("id", "")
        if "data" in fields:
            text = fields["data"].replace("\r\n", "\n").replace("\r", "\n")
            assert events == [(text, fields.get("event") or None, last_id, None, None)], (fields, octets)
        else:
            assert events == [], (fields, octets)
        assert (decoder.last_event_id, decoder.retry) == (last_id, fields.get("retry")), (fields, octets)
        # Nothing is left over for what follows.
        assert [event.data for event in decoder.receive(b"data: next\n\n")] == ["next"], octets
        return frozenset(fields), "\n" in fields.get("data", ""), len(events)

    return check


SEEDS = [
    bytes((present, 5)) + b"\xff".join(values)
    for present in (0x1F, 0x01, 0x03, 0x07, 0x0E, 0x11, 0x50, 0x90, 0xD1)
    for values in (
        [b"one", b"add", b"42", b"a comment"],
        [b"two\nlines", b"", b"", b""],
        [b"", b"name\n", b"1"],
        [b"CR\rLF\nCRLF\r\nend", b"a: b", b" leading", b": :"],
        ["€ \u2028 \u0085 \x0b \ufeff".encode(), "ß".encode(), "\ufeff".encode(), b"\0"],
        [b"data: x\n\nevent: y", b"x\0", b"id\0"],
        [b"\n", b" ", b"\r", b"\n"],
        [b"\x80 lone", b"a", b"b"],
    )
]
WORDS = [
    b"\n", b"\r", b"\r\n", b"\n\n", b"\0", b"\xff", b": ", b":", b" ", b"data: ", b"event: x\n", b"id: 1", b"retry: 1",
    b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\xc2\x85", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\x0b", b"\x0c", b"\x1c",
]  # fmt: skip
TARGET = Target(make, SEEDS, WORDS, max_length=120)
