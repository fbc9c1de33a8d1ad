"""What is sent: the format of WHATWG HTML 9.2.5, and nothing that an application did not mean to send."""

from __future__ import annotations

import copy
import pickle
from enum import Enum
from typing import Any

import pytest

from rawws_sse import MAX_RETRY, Decoder, Event, encode


@pytest.mark.parametrize(
    ("event", "encoded"),
    [
        (Event("x"), "data: x\n\n"),
        (Event(""), "data: \n\n"),
        (Event("x", "tick"), "event: tick\ndata: x\n\n"),
        (Event("x", id="1"), "id: 1\ndata: x\n\n"),
        (Event("x", "tick", "1", 5, "why"), ": why\nevent: tick\nid: 1\nretry: 5\ndata: x\n\n"),
        (Event("Grüße 😀", "é", "ü"), "event: é\nid: ü\ndata: Grüße 😀\n\n"),
        (Event(" x", " e", " 1"), "event:  e\nid:  1\ndata:  x\n\n"),
        (Event("data: x\nid: 1"), "data: data: x\ndata: id: 1\n\n"),
        # "Lines must be separated by either a U+000D CARRIAGE RETURN U+000A LINE FEED (CRLF) character pair, a single
        # U+000A LINE FEED (LF) character, or a single U+000D CARRIAGE RETURN (CR) character."
        (Event("a\nb\rc\r\nd"), "data: a\ndata: b\ndata: c\ndata: d\n\n"),
        (Event("\n"), "data: \ndata: \n\n"),
        (Event("a\n\n"), "data: a\ndata: \ndata: \n\n"),
        (Event("\r\r\n\n"), "data: \ndata: \ndata: \ndata: \n\n"),
        # Blocks that are no events.
        (Event(), "\n"),
        (Event(comment="alive"), ": alive\n\n"),
        (Event(comment=""), ": \n\n"),
        (Event(retry=0), "retry: 0\n\n"),
        (Event(retry=MAX_RETRY), "retry: 9007199254740991\n\n"),
        (Event(id="1"), "id: 1\n\n"),
        (Event(event="tick"), "event: tick\n\n"),
        # An empty type is the default one, an empty id takes the last one back.
        (Event("x", ""), "data: x\n\n"),
        (Event("x", id=""), "id: \ndata: x\n\n"),
    ],
    ids=repr,
)
def test_an_event_is_its_fields_and_a_blank_line(event: Event, encoded: str) -> None:
    assert encode(event) == encoded.encode()


@pytest.mark.parametrize("data", ["x", "", "a\r\nb", "Grüße"])
def test_a_str_is_the_data_of_an_event(data: str) -> None:
    assert encode(data) == encode(Event(data))


@pytest.mark.parametrize("character", [*"\v\f\x1c\x1d\x1e\x85\u2028\u2029\0\t\ufeff"])
def test_what_only_unicode_takes_for_a_line_end_passes_as_data(character: str) -> None:
    data = f"{character}a{character}data: b{character}"
    assert encode(Event(data)) == f"data: {data}\n\n".encode()
    assert Decoder().receive(encode(data)) == [Event(data, id="")]


@pytest.mark.parametrize("field", ["event", "id", "comment"])
@pytest.mark.parametrize("value", ["\n", "\r", "\r\n", "a\ndata: b", "a\rdata: b", "x\n", "\nx", "a\n\ndata: b\n\n"])
def test_a_line_end_in_a_field_of_one_line_raises(field: str, value: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the whole message below
        encode(Event("x", **{field: value}))  # type: ignore[arg-type]
    assert str(raised.value) == f"{field} is {value!r}, allowed is text without CR and LF"


@pytest.mark.parametrize("field", ["event", "id"])
@pytest.mark.parametrize("value", ["\0", "a\0", "\0a"])
def test_nul_in_a_type_or_an_id_raises(field: str, value: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the whole message below
        encode(Event("x", **{field: value}))  # type: ignore[arg-type]
    assert str(raised.value) == f"{field} is {value!r}, allowed is text without NUL"


def test_nul_in_data_and_in_a_comment_passes() -> None:
    assert encode(Event("\0", comment="\0")) == b": \0\ndata: \0\n\n"


def test_an_error_quotes_no_more_than_the_beginning() -> None:
    with pytest.raises(ValueError, match=r"^id is '\\nx{79}', allowed is text without CR and LF$"):
        encode(Event("x", id="\n" + "x" * 1000))


@pytest.mark.parametrize("character", [*"\v\f\x1c\x85\u2028\u2029"])
def test_what_only_unicode_takes_for_a_line_end_passes_in_every_field(character: str) -> None:
    [event] = Decoder().receive(encode(Event("x", character, character, comment=character)))
    assert event == Event("x", character, character)


@pytest.mark.parametrize("retry", [-1, MAX_RETRY + 1, 10**5000], ids=["negative", "too large", "of 5,001 digits"])
def test_a_reconnection_time_that_no_client_takes_raises(retry: int) -> None:
    with pytest.raises(ValueError, match=r"retry is -?\d+, allowed are 0 to 9007199254740991|4300 digits"):
        encode(Event("x", retry=retry))


@pytest.mark.parametrize("retry", [1.0, "1", True, b"1"])
def test_a_reconnection_time_that_is_no_int_raises(retry: Any) -> None:
    with pytest.raises(TypeError, match=rf"^retry is {type(retry).__name__}, allowed are int and None$"):
        encode(Event("x", retry=retry))


@pytest.mark.parametrize("field", ["event", "id", "comment"])
@pytest.mark.parametrize("value", [1, b"x", 0, False, []])
def test_a_field_that_is_no_str_raises(field: str, value: Any) -> None:
    with pytest.raises(TypeError, match=rf"^{field} is {type(value).__name__}, allowed are str and None$"):
        encode(Event("x", **{field: value}))


@pytest.mark.parametrize("data", [1, b"x", ["x"], {"data": "x"}])
def test_data_that_is_no_str_raises(data: Any) -> None:
    for event in (data, Event(data)):
        with pytest.raises(TypeError, match=rf"^data is {type(data).__name__}, allowed are str and Event$"):
            encode(event)


def test_none_is_no_event() -> None:
    with pytest.raises(TypeError, match=r"^data is NoneType, allowed are str and Event$"):
        encode(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["data", "event", "id", "comment"])
def test_a_lone_surrogate_raises(field: str) -> None:
    with pytest.raises(UnicodeEncodeError):
        encode(Event(**{field: "\ud800"}))  # type: ignore[arg-type]


def test_a_member_of_an_enumeration_of_str_is_its_value() -> None:
    class Kind(str, Enum):  # noqa: UP042 - unlike that of a StrEnum, its str() is its name
        TICK = "tick"

    assert encode(Kind.TICK) == b"data: tick\n\n"
    assert encode(Event(Kind.TICK, Kind.TICK, Kind.TICK)) == b"event: tick\nid: tick\ndata: tick\n\n"


# Event


def test_an_event_has_its_fields_by_name_and_by_position() -> None:
    event = Event("x", "tick", "1", 5, "why")
    assert event == Event(comment="why", retry=5, id="1", event="tick", data="x")
    assert (event.data, event.event, event.id, event.retry, event.comment) == ("x", "tick", "1", 5, "why")
    assert event.fields() == ("x", "tick", "1", 5, "why")
    assert Event().fields() == (None,) * 5


@pytest.mark.parametrize("field", ["data", "event", "id", "retry", "comment", "other"])
def test_an_event_cannot_be_changed(field: str) -> None:
    event = Event("x")
    with pytest.raises(AttributeError):
        setattr(event, field, "y")
    with pytest.raises(AttributeError):
        delattr(event, field)
    assert event == Event("x")


@pytest.mark.parametrize("field", ["data", "event", "id", "retry", "comment"])
def test_events_are_equal_where_all_fields_are(field: str) -> None:
    event = Event("x", "tick", "1", 5, "why")
    values: dict[str, Any] = dict(zip(Event.__match_args__, event.fields(), strict=True))
    same = Event(**values)
    other = Event(**values | {field: None})
    assert event == same
    assert hash(event) == hash(same)
    assert event != other
    assert len({event, same, other}) == 2


def test_an_event_equals_nothing_else() -> None:
    assert Event("x") != "x"
    assert Event("x") != ("x", None, None, None, None)


def test_an_event_shows_the_fields_that_it_has() -> None:
    assert repr(Event("x")) == "Event(data='x')"
    assert repr(Event("", id="", retry=0)) == "Event(data='', id='', retry=0)"
    assert repr(Event()) == "Event()"


def test_an_event_can_be_copied_pickled_and_matched() -> None:
    event = Event("x", "tick", "1", 5, "why")
    assert copy.copy(event) == copy.deepcopy(event) == pickle.loads(pickle.dumps(event)) == event
    match event:
        case Event(data, event=name):
            assert (data, name) == ("x", "tick")
