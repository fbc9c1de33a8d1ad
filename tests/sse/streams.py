"""Event streams: fed to a Decoder in pieces, read by a transcript of the standard, and drawn by Hypothesis."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

from hypothesis import settings
from hypothesis import strategies as st

from rawws_sse import MAX_RETRY, MAX_SIZE, Decoder, Event, EventTooLarge

__all__ = ["Feed", "Outcome", "bytewise", "cut", "events", "examples", "fed", "normalised", "standard", "streams"]


class Outcome(NamedTuple):
    """What a stream comes to: its events, what a client knows after it, and whether it was broken off."""

    events: list[Event]
    last_event_id: str = ""
    retry: int | None = None
    too_large: bool = False


class Feed(Protocol):
    """Give a stream to a new Decoder, and return what it comes to."""

    def __call__(self, data: bytes, max_size: int | None = MAX_SIZE) -> Outcome: ...


def fed(pieces: Iterable[bytes], max_size: int | None = MAX_SIZE, make: Callable[..., Any] = Decoder) -> Outcome:
    decoder = make(max_size)
    found: list[Event] = []
    try:
        for piece in pieces:
            found += decoder.receive(piece)
        decoder.receive_eof()
    except EventTooLarge:
        return Outcome(found, decoder.last_event_id, decoder.retry, too_large=True)
    return Outcome(found, decoder.last_event_id, decoder.retry)


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def standard(data: bytes) -> Outcome:
    """Read a whole stream as WHATWG HTML 9.2.6 says, step by step and character by character."""
    text = data.decode("utf-8", "replace").removeprefix("\N{BYTE ORDER MARK}")
    lines = [""]
    for at, character in enumerate(text):
        if character == "\r" or (character == "\n" and text[at - 1 : at] != "\r"):
            lines.append("")
        elif character != "\n":
            lines[-1] += character
    found: list[Event] = []
    data_buffer = event_type_buffer = last_event_id_buffer = last_event_id = ""
    retry = None
    for line in lines[:-1]:  # nothing ends the last one
        field, colon, value = line.partition(":")
        if not line:
            last_event_id = last_event_id_buffer
            if data_buffer:
                found.append(Event(data_buffer[:-1], event_type_buffer or None, last_event_id))
            data_buffer = event_type_buffer = ""
        elif colon and not field:
            continue
        elif field == "event":
            event_type_buffer = value.removeprefix(" ")
        elif field == "data":
            data_buffer += value.removeprefix(" ") + "\n"
        elif field == "id" and "\0" not in value:
            last_event_id_buffer = value.removeprefix(" ")
        elif field == "retry" and (digits := value.removeprefix(" ")) and set(digits) <= set("0123456789"):
            retry = min(int(digits), MAX_RETRY)
    return Outcome(found, last_event_id, retry)


def normalised(event: Event, last_event_id: str = "") -> Event:
    """Return an event with data as a client receives it, who got this id before."""
    assert event.data is not None
    data = event.data.replace("\r\n", "\n").replace("\r", "\n")
    return Event(data, event.event or None, last_event_id if event.id is None else event.id)


def examples(count: int) -> settings:
    """So many examples, and in the same proportion more where the profile asks for more than its 100."""
    return settings(max_examples=count * settings().max_examples // 100)


# Characters that line ends, fields, decoders and str.splitlines take to be special.
special = st.sampled_from([*"\r\n\0 :\t\v\f\x1c\x85\u2028\ufeff\ufffdaé😀"])
texts = st.text(special | st.characters(exclude_categories=["Cs"]), max_size=12)
one_line = texts.map(lambda text: text.replace("\r", "").replace("\n", ""))
names = one_line.map(lambda text: text.replace("\0", ""))
retries = st.integers(0, 10**6) | st.sampled_from([MAX_RETRY])


def events(data: st.SearchStrategy[str | None]) -> st.SearchStrategy[Event]:
    """Events that can be encoded."""
    return st.builds(
        Event,
        data,
        event=st.none() | names,
        id=st.none() | names,
        retry=st.none() | retries,
        comment=st.none() | one_line,
    )


fields = st.sampled_from([b"data", b"event", b"id", b"retry", b"Data", b" data", b"data ", b"dat", b"datax", b"x", b""])
values = st.one_of(
    st.sampled_from(
        [b"", b"0", b"12", b"007", b"-1", b"1" * 30, "٣".encode(), b"x", b"x: y", b"\0", b"\xff", b"\xe2\x82"]
    ),
    texts.map(str.encode),
    st.binary(max_size=8),
)
lines = st.builds(b"".join, st.tuples(fields, st.sampled_from([b":", b": ", b":  ", b""]), values)) | st.just(b"")
line_ends = st.sampled_from([b"\n", b"\n", b"\r\n", b"\r", b"\n\n", b"\r\n\r\n", b"\r\r"])


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """A stream of fields, known and unknown, with all kinds of values and line ends; or noise."""
    bom = draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf", b"\xef\xbb", b"\xef\xbb\xbf\xef\xbb\xbf"]))
    parts = draw(st.lists(st.one_of(lines, line_ends, line_ends, st.binary(max_size=3)), max_size=20))
    return bom + b"".join(parts)


@st.composite
def cut(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """The same bytes in pieces, some of them empty."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return [data[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True)]
