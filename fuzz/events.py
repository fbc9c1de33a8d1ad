"""Event streams: octets in pieces to what a decoder makes of them; their seeds and their dictionary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from .target import seed

if TYPE_CHECKING:
    from .twins import Twin

__all__ = ["LIMITS", "SEEDS", "WORDS", "Outcome", "Reader"]

LIMITS = (None, 1 << 20, 30, 5)


class Outcome(NamedTuple):
    """What a stream comes to: its events, what a client knows after it, and whether it was broken off."""

    events: list[tuple[Any, ...]]
    last_event_id: str
    retry: int | None
    too_large: bool


class Reader:
    """Reads streams with one twin."""

    def __init__(self, twin: Twin) -> None:
        self._decoder = twin.load("rawws_sse.decoder").Decoder
        self._too_large = twin.load("rawws_sse.event").EventTooLarge

    def read(self, streams: list[list[bytes]], settings: int) -> Outcome:
        """Return what streams come to, one after the other, to the first that has an event that is too large."""
        limit = LIMITS[settings & 3]
        decoder = self._decoder(limit)
        watched = limit is not None and hasattr(decoder, "_line")  # a compiled one shows none of it
        events: list[tuple[Any, ...]] = []
        too_large = False
        try:
            for pieces in streams:
                for piece in pieces:
                    events += [event.fields() for event in decoder.receive(piece)]
                    if watched:
                        held = len(decoder._line) + len(decoder._data or b"")  # noqa: SLF001 - only they tell it
                        # An octet that is no UTF-8 counts as one, and its replacement character has three.
                        assert limit is None or held <= 3 * limit, f"{held} bytes are held, the limit is {limit}"
                decoder.receive_eof()
        except self._too_large:
            too_large = True
        return Outcome(events, decoder.last_event_id, decoder.retry, too_large)


STREAMS = [
    # WHATWG HTML 9.2.6.
    b"data: YHOO\ndata: +2\ndata: 10\n\n",
    b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
    b"data\n\ndata\ndata\n\ndata:",
    b"data:test\n\ndata: test\n\n",
    # web-platform-tests, eventsource/format-*.
    b"\xef\xbb\xbfdata:1\n\n\xef\xbb\xbfdata:2\n\ndata:3\n\n",
    b"\xef\xbb\xbf\xef\xbb\xbfdata:1\n\ndata:2\n\ndata:3\n\n",
    b"data:test\r\ndata\ndata:test\r\n\r\n",
    b"data:test\rdata: test\r\n\n:\n\r:\r\r",
    b"data:test\n data\ndata\nfoobar:xxx\njustsometext\n:thisisacommentyay\n\n",
    (b"data:\x00\ndata:  2\rData:1\ndata\x00:2\ndata:1\r\x00data:4\nda-ta:3\rdata_5\ndata:3\rdata:\r\n"
    b" data:32\ndata:4\n\n"),
    b"retry:03000\ndata:x\n\nretry:1000x\n\nretry: 5\n\nretry:" + b"9" * 30 + b"\n\n",
    b"id:1\x002\ndata:x\n\nid: \xe2\x80\xa6\ndata:y\n\nid\ndata:z\n\n",
    b"event: add\ndata: 73857293\n\nevent:\ndata: 2\n\nevent: gone\n\ndata: 3\n\n",
    b"data: \xff\xe2\x82\n\ndata: \xc3\xbc\xe2\x80\xa8\xc2\x85\x0b\x0c\x1c\n\n",
    b"data: " + b"*" * 40 + b"\n\ndata: late\n\n",
    b"event: " + b"e" * 20 + b"\nid: " + b"i" * 20 + b"\n\n",
    b": " + b"comment" * 9 + b"\n\ndata: x\n\n",
    b"data: an end of a stream\n\x00data: and the next one\n\n",
]  # fmt: skip
SEEDS = [seed(octets, settings, number) for number, octets in enumerate(STREAMS) for settings in (0, 2, 3, 4)]
WORDS = [
    b"data", b"data: ", b"data:", b"event: ", b"event:", b"id: ", b"id:", b"id", b"retry: ", b"retry:", b"retry:12\n",
    b": ", b":", b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n", b"\n\r", b" ", b"\0", b"\t", b"data: x\n\n",
    b"id: 1\n", b"\xef\xbb\xbf", b"\xef\xbb", b"\xe2\x80\xa8", b"\xc2\x85", b"\xff", b"\xd9\xa3", b"0", b"9" * 18,
    b"-1", b"+1", b"Data: ",
]  # fmt: skip
