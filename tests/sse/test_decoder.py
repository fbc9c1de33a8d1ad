"""The rules of WHATWG HTML 9.2.5 and 9.2.6 for a client, one by one, and the limits that they do not have."""

from __future__ import annotations

import tracemalloc
from itertools import repeat
from typing import Any

import pytest

from rawws_sse import MAX_RETRY, MAX_SIZE, Decoder, Event, EventTooLarge
from tests.sse.streams import Feed, Outcome, bytewise, fed

ONE = Outcome([Event("x", id="")])


# 9.2.6: "Streams must be decoded using the UTF-8 decode algorithm."


@pytest.mark.parametrize(
    ("data", "decoded"),
    [
        ("Grüße, 世界 😀".encode(), "Grüße, 世界 😀"),
        (b"a\xffb", "a\ufffdb"),
        (b"\x80\x80", "\ufffd\ufffd"),
        (b"\xc0\xaf", "\ufffd\ufffd"),  # an overlong solidus
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),  # a surrogate
        (b"\xe2\x82", "\ufffd"),  # the euro sign without its end
        (b"\xf0\x9f\x98 x", "\ufffd x"),
        (b"\xf4\x90\x80\x80", "\ufffd\ufffd\ufffd\ufffd"),  # above U+10FFFF
    ],
)
def test_bytes_that_are_not_utf_8_are_replaced(feed: Feed, data: bytes, decoded: str) -> None:
    stream = b"event: %b\nid: %b\ndata: %b\n\n" % (data, data, data)
    assert feed(stream) == Outcome([Event(decoded, decoded, decoded)], decoded)


# 9.2.6: "The UTF-8 decode algorithm strips one leading UTF-8 Byte Order Mark (BOM), if any."


@pytest.mark.parametrize(
    ("stream", "count"),
    [
        (b"\xef\xbb\xbfdata: x\n\n", 1),
        (b"\xef\xbb\xbf\ndata: x\n\n", 1),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: x\n\n", 0),
        (b"\n\xef\xbb\xbfdata: x\n\n", 0),
        (b"\xef\xbbdata: x\n\n", 0),
        (b"\xefdata: x\n\n", 0),
        (b"\xef\xbb\n\ndata: x\n\n", 1),
        (b"\xef\xbb\xbf", 0),
        (b"\xef\xbb", 0),
        ("ï»¿data: x\n\n".encode(), 0),  # what the mark looks like in Latin-1
    ],
)
def test_one_leading_byte_order_mark_is_stripped(feed: Feed, stream: bytes, count: int) -> None:
    assert feed(stream) == Outcome([Event("x", id="")] * count)


# 9.2.6: "a U+000D CARRIAGE RETURN U+000A LINE FEED (CRLF) character pair, a single U+000A LINE FEED (LF) character
# not preceded by a U+000D CARRIAGE RETURN (CR) character, and a single U+000D CARRIAGE RETURN (CR) character not
# followed by a U+000A LINE FEED (LF) character being the ways in which a line can end"


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
@pytest.mark.parametrize("blank", [b"\n", b"\r", b"\r\n"])
def test_every_line_end_ends_a_line(feed: Feed, end: bytes, blank: bytes) -> None:
    stream = b"id: 1" + end + b"data: a" + end + b"data: b" + end + blank + b"data: c" + end + blank
    if end == b"\r" and blank == b"\n":  # together they are one CRLF
        assert feed(stream).events == []
    else:
        assert feed(stream) == Outcome([Event("a\nb", id="1"), Event("c", id="1")], "1")


def test_line_ends_may_be_mixed(feed: Feed) -> None:
    assert feed(b"data: a\rdata: b\ndata: c\r\n\rdata: d\n\r\n").events == [Event("a\nb\nc", id=""), Event("d", id="")]


def test_lf_behind_crlf_is_a_blank_line_and_lf_before_cr_is_another(feed: Feed) -> None:
    assert feed(b"data: a\r\n\ndata: b\n\r").events == [Event("a", id=""), Event("b", id="")]


def test_an_event_that_ends_with_cr_waits_for_nothing() -> None:
    decoder = Decoder()
    assert decoder.receive(b"data: a\r\r") == [Event("a", id="")]
    assert decoder.receive(b"") == []
    assert decoder.receive(b"\ndata: b\r") == []
    assert decoder.receive(b"\n\r") == [Event("b", id="")]
    assert decoder.receive(b"\n\n") == []


@pytest.mark.parametrize("character", [*"\v\f\x1c\x1d\x1e\x85\u2028\u2029\0\t"])
def test_no_other_character_ends_a_line(feed: Feed, character: str) -> None:
    stream = f"event: e{character}e\ndata: {character}{character}data: y\n\n".encode()
    assert feed(stream).events == [Event(f"{character}{character}data: y", f"e{character}e", "")]


# 9.2.6: "If the line is empty (a blank line): Dispatch the event"


def test_blank_lines_alone_are_no_events(feed: Feed) -> None:
    assert feed(b"\n\n\n\r\r\n\ndata: x\n\n\n\n") == ONE


def test_a_line_with_a_space_is_not_blank(feed: Feed) -> None:
    assert feed(b"data: x\n \ndata: y\n\n").events == [Event("x\ny", id="")]


# 9.2.6: "If the line starts with a U+003A COLON character (:): Ignore the line."


@pytest.mark.parametrize("comment", [b":", b": comment", b":data: y", b"::", b": " + b"y" * 300])
def test_comments_are_ignored_wherever_they_stand(feed: Feed, comment: bytes) -> None:
    assert feed(comment + b"\n\n" + comment + b"\ndata: x\n" + comment + b"\n\n") == ONE


# 9.2.6: "Collect the characters on the line before the first U+003A COLON character (:), and let field be that
# string. Collect the characters on the line after the first U+003A COLON character (:), and let value be that string.
# If value starts with a U+0020 SPACE character, remove it from value."


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (b":x", "x"),
        (b": x", "x"),
        (b":  x", " x"),
        (b":\tx", "\tx"),
        (b":x ", "x "),
        (b":\xc2\xa0x", "\xa0x"),
        (b":", ""),
        (b": ", ""),
        (b":  ", " "),
        (b":x:y: z", "x:y: z"),
        (b"::x", ":x"),
        (b": :x", ":x"),
        # "using the whole line as the field name, and the empty string as the field value"
        (b"", ""),
    ],
)
def test_a_value_begins_behind_the_first_colon_and_one_space(feed: Feed, value: bytes, data: str) -> None:
    stream = b"event%b\nid%b\ndata%b\n\n" % (value, value, value)
    assert feed(stream) == Outcome([Event(data, data or None, data)], data)


# 9.2.6: "Field names must be compared literally, with no case folding performed." "Otherwise: The field is ignored."


@pytest.mark.parametrize("name", [b"Data", b"DATA", b" data", b"data ", b"datax", b"dat", b"\0data", b"da-ta", b"\xff"])
@pytest.mark.parametrize("rest", [b": y", b":y", b""])
def test_names_that_are_not_quite_data_are_ignored(feed: Feed, name: bytes, rest: bytes) -> None:
    assert feed(name + rest + b"\ndata: x\n\n") == ONE


@pytest.mark.parametrize("name", [b"Event", b"events", b"ID", b"Id", b"ids", b"Retry", b"retries", b"comment"])
def test_names_that_are_not_quite_another_field_are_ignored(feed: Feed, name: bytes) -> None:
    assert feed(name + b": 1\n" + name + b":1\ndata: x\n\n") == ONE


# 9.2.6: "If the field name is "event": Set the event type buffer to the field value." "If the event type buffer has a
# value other than the empty string, change the type of the newly created event to equal the value of the event type
# buffer."


def test_the_last_type_counts(feed: Feed) -> None:
    assert feed(b"event: a\nevent: b\ndata: x\n\n").events == [Event("x", "b", "")]


@pytest.mark.parametrize("field", [b"event", b"event:", b"event: "])
def test_an_empty_type_is_none(feed: Feed, field: bytes) -> None:
    assert feed(field + b"\ndata: x\n\nevent: a\n" + field + b"\ndata: x\n\n").events == [Event("x", id="")] * 2


def test_a_type_is_of_one_event_and_goes_where_a_block_has_no_data(feed: Feed) -> None:
    stream = b"event: a\ndata: x\n\ndata: x\n\nevent: b\n\ndata: x\n\n"
    assert feed(stream).events == [Event("x", "a", ""), Event("x", id=""), Event("x", id="")]


# 9.2.6: "If the field name is "data": Append the field value to the data buffer, then append a single U+000A LINE
# FEED (LF) character to the data buffer." "If the data buffer's last character is a U+000A LINE FEED (LF) character,
# then remove the last character from the data buffer."


def test_lines_of_data_are_joined_by_lf(feed: Feed) -> None:
    assert feed(b"data: a\ndata:\ndata\ndata:b\n\n").events == [Event("a\n\n\nb", id="")]


def test_data_without_a_value_is_an_event(feed: Feed) -> None:
    assert feed(b"data\n\ndata:\n\ndata\ndata\n\n").events == [Event("", id=""), Event("", id=""), Event("\n", id="")]


def test_other_fields_may_stand_between_lines_of_data(feed: Feed) -> None:
    assert feed(b"data: a\nid: 1\ndata: b\nevent: e\nx\ndata: c\n\n") == Outcome([Event("a\nb\nc", "e", "1")], "1")


# 9.2.6: "If the field name is "id": If the field value does not contain U+0000 NULL, then set the last event ID
# buffer to the field value. Otherwise, ignore the field."


@pytest.mark.parametrize("value", [b"\0", b"\0\0", b"1\0", b"\x001", b"1\x002", b" \0"])
@pytest.mark.parametrize("colon", [b":", b": "])
def test_an_id_with_nul_is_ignored(feed: Feed, value: bytes, colon: bytes) -> None:
    stream = b"id: 0\nid" + colon + value + b"\ndata: x\n\n"
    assert feed(stream) == Outcome([Event("x", id="0")], "0")


# 9.2.6: "Set the last event ID string of the event source to the value of the last event ID buffer. The buffer does
# not get reset, so the last event ID string of the event source remains set to this value until the next time it is
# set by the server."


def test_an_id_stays_until_another_comes(feed: Feed) -> None:
    stream = b"id: 1\ndata: a\n\ndata: b\n\nid: 2\nid: 3\ndata: c\n\n"
    assert feed(stream) == Outcome([Event("a", id="1"), Event("b", id="1"), Event("c", id="3")], "3")


@pytest.mark.parametrize("field", [b"id", b"id:", b"id: "])
def test_an_empty_id_takes_the_last_one_back(feed: Feed, field: bytes) -> None:
    assert feed(b"id: 1\ndata: a\n\n" + field + b"\ndata: b\n\n") == Outcome([Event("a", id="1"), Event("b", id="")])


def test_an_id_without_data_counts_from_the_blank_line_on(feed: Feed) -> None:
    assert feed(b"id: 1\n") == Outcome([])
    assert feed(b"id: 1\n\n") == Outcome([], "1")
    assert feed(b"id: 1\n\ndata: x\n\n") == Outcome([Event("x", id="1")], "1")


# 9.2.6: "If the field value consists of only ASCII digits, then interpret the field value as an integer in base ten,
# and set the event stream's reconnection time to that integer. Otherwise, ignore the field."


@pytest.mark.parametrize(
    ("value", "retry"),
    [
        (b"0", 0),
        (b"3000", 3000),
        (b"03000", 3000),
        (b"0" * 5000 + b"7", 7),
        (b"9007199254740991", MAX_RETRY),
        (b"9007199254740992", MAX_RETRY),
        (b"9" * 17, MAX_RETRY),
        (b"9" * 5000, MAX_RETRY),  # Python raises ValueError for so many digits
    ],
)
@pytest.mark.parametrize("colon", [b":", b": "])
def test_digits_set_the_reconnection_time(feed: Feed, value: bytes, retry: int, colon: bytes) -> None:
    if len(value) > 100:
        feed = lambda data, max_size=MAX_SIZE: fed([data], max_size)  # noqa: E731 - 5,000 cuts take their time
    assert feed(b"retry" + colon + value + b"\n\n") == Outcome([], retry=retry)


@pytest.mark.parametrize(
    "value",
    [
        "",
        ": ",
        ": -1",
        ": +1",
        ":  1",
        ": 1 ",
        ": 1.5",
        ": 1e3",
        ": 1000x",
        ": 0x10",
        ": 1_000",
        ": ٣",
        ": ²",
        ": \0001",
    ],
)
def test_what_is_not_all_ascii_digits_leaves_the_reconnection_time(feed: Feed, value: str) -> None:
    assert feed(f"retry: 5\nretry{value}\n\n".encode()) == Outcome([], retry=5)


def test_a_reconnection_time_counts_from_its_line_on(feed: Feed) -> None:
    assert feed(b"retry: 5\ndata: x") == Outcome([], retry=5)
    assert feed(b"retry: 5") == Outcome([])


# 9.2.6: "Once the end of the file is reached, any pending data must be discarded. (If the file ends in the middle of
# an event, before the final empty line, the incomplete event is not dispatched.)"


@pytest.mark.parametrize("rest", [b"data: y", b"data: y\n", b"id: 2\n", b"id: 2\ndata: y\n", b"event: e\ndata: y\r\n"])
def test_a_block_without_a_blank_line_is_discarded(feed: Feed, rest: bytes) -> None:
    assert feed(b"id: 1\ndata: x\n\n" + rest) == Outcome([Event("x", id="1")], "1")


@pytest.mark.parametrize("rest", [b"data: y", b"data: y\n", b"event: e\n", b"id: 2\n", b"\xef\xbb", b"data: y\r"])
def test_the_next_stream_begins_anew_and_goes_on_behind_the_last_event(rest: bytes) -> None:
    decoder = Decoder()
    assert decoder.receive(b"id: 1\nretry: 5\ndata: x\n\n" + rest) == [Event("x", id="1")]
    decoder.receive_eof()
    assert (decoder.last_event_id, decoder.retry) == ("1", 5)
    assert decoder.receive(b"\xef\xbb\xbfdata: z\n\n") == [Event("z", id="1")]


def test_an_lf_at_the_beginning_of_a_stream_is_not_that_of_the_last_ones_crlf() -> None:
    decoder = Decoder()
    assert decoder.receive(b"data: x\r") == []
    decoder.receive_eof()
    assert decoder.receive(b"data: y\n\n") == [Event("y", id="")]


def test_a_client_may_begin_behind_an_event_that_it_had_before() -> None:
    decoder = Decoder()
    decoder.last_event_id = "7"
    assert decoder.receive(b"data: x\n\nid\ndata: y\n\n") == [Event("x", id="7"), Event("y", id="")]


# Limits


@pytest.mark.parametrize(
    ("block", "size"),
    [
        (b"data: 12345\n", 11),
        (b"data: 12345\r\n", 11),
        ("data:é\n".encode(), 7),
        (b"event: e\ndata: x\n", 16),
        (b"id: 1\ndata\ndata: x\n", 18),
        (b": comment\n:\ndata: 12345\n", 11),
        (b"data: x\n: and the line that arrives\n", 35),
        (b"unknown: 1\nunknown\ndata: 12345\n", 11),
        (b"retry: 1\ndata: 12345\n", 11),
        (b"data: \xff\xff\n", 8),
        (b"12345678901\n", 11),
    ],
)
def test_a_block_of_the_limit_passes_and_one_byte_more_does_not(feed: Feed, block: bytes, size: int) -> None:
    before = b"data\n\n"
    assert feed(before + block + b"\n" + block + b"\n", size) == fed([before, block, b"\n", block, b"\n"], None)
    broken = feed(before + block + b"\n", size - 1)
    assert (broken.events, broken.too_large) == ([Event("", id="")], True)


def test_a_block_over_the_limit_need_not_be_complete(feed: Feed) -> None:
    assert feed(b"data: 12345", 10) == Outcome([], too_large=True)
    assert feed(b":234567890", 10) == Outcome([])
    assert feed(b":2345678901", 10) == Outcome([], too_large=True)
    assert feed(b"data: 123\nd", 10) == Outcome([], too_large=True)


def test_the_error_says_what_is_allowed_and_comes_again_until_the_end() -> None:
    decoder = Decoder(max_size=10)
    for _ in range(3):
        with pytest.raises(EventTooLarge, match=r"^an event is over 10 bytes, the limit$"):
            decoder.receive(b"data: 12345\n\n")
    with pytest.raises(EventTooLarge, match=r"^an event is over 10 bytes, the limit$"):
        decoder.receive_eof()
    assert decoder.receive(b"data: 1\n\n") == [Event("1", id="")]
    decoder.receive_eof()


def test_events_before_one_that_is_too_large_are_not_lost() -> None:
    decoder = Decoder(max_size=10)
    assert decoder.receive(b"id: 1\ndata\n\ndata: 12345\n\ndata: lost\n\n") == [Event("", id="1")]
    with pytest.raises(EventTooLarge):
        decoder.receive(b"")
    assert decoder.last_event_id == "1"


def test_too_large_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="over 1048576 bytes"):
        Decoder().receive(b":" * (MAX_SIZE + 1))


def test_without_a_limit_an_event_has_any_size() -> None:
    decoder = Decoder(max_size=None)
    assert decoder.receive(b"data: " + b"x" * MAX_SIZE) == []
    assert decoder.receive(b"y\n\n") == [Event("x" * MAX_SIZE + "y", id="")]
    assert Decoder(max_size=2**100).receive(b"data\n\n") == [Event("", id="")]


@pytest.mark.parametrize(("max_size", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("1", TypeError)])
def test_a_limit_is_a_number_above_0(max_size: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^max_size is \S+, allowed are numbers above 0 and None$"):
        Decoder(max_size=max_size)


@pytest.mark.parametrize("data", ["data: x\n\n", None, bytearray(b"data: x\n\n"), 5])
def test_what_is_not_bytes_is_refused(data: Any) -> None:
    with pytest.raises(TypeError, match="bytes"):
        Decoder().receive(data)


SIZE = 1 << 18
PIECE = 1 << 14


@pytest.mark.parametrize(
    ("unit", "ends"),
    [
        (b"x", True),
        (b":", True),
        (b"data:ab\n", True),
        (b"data\n", True),
        (b"data\r", True),
        (b"event: ab\n", True),
        (b"id: ab\r\n", True),
        (b":\n", False),
        (b"retry: 1\n", False),
        (b"unknown\n", False),
        (b"\r\n", False),
        (b"id: ab\n\n", False),
        (b"event: ab\n\n", False),
    ],
)
def test_what_a_decoder_holds_of_a_hostile_stream_is_bounded(unit: bytes, ends: bool) -> None:
    decoder = Decoder(max_size=SIZE)
    piece = unit * (PIECE // len(unit))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        held = 0
        try:
            for _ in range(4 * SIZE // PIECE):
                assert decoder.receive(piece) == []
                held = max(held, tracemalloc.get_traced_memory()[0] - before)
        except EventTooLarge:
            assert ends
        else:
            assert not ends
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    # A bytearray that grows has an eighth in reserve.
    assert held <= SIZE * 9 / 8 + PIECE if ends else held <= PIECE
    assert peak <= 2 * SIZE + (1 << 20)


@pytest.mark.parametrize("unit", [b"x", b"data:ab\n"])
def test_what_was_too_large_is_let_go(unit: bytes) -> None:
    decoder = Decoder(max_size=SIZE)
    piece = unit * (PIECE // len(unit))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        with pytest.raises(EventTooLarge):
            for _ in range(4 * SIZE // PIECE):
                decoder.receive(piece)
        assert tracemalloc.get_traced_memory()[0] - before <= PIECE
    finally:
        tracemalloc.stop()


def test_a_long_line_in_single_bytes_is_copied_once() -> None:
    # Were each byte to copy those before it, this would move 500 GB.
    decoder = Decoder()
    assert decoder.receive(b"data: ") == []
    for byte in repeat(b"x", MAX_SIZE - 6):
        decoder.receive(byte)
    assert decoder.receive(b"\n\n") == [Event("x" * (MAX_SIZE - 6), id="")]


def test_many_short_lines_in_single_pieces_are_copied_once() -> None:
    decoder = Decoder()
    for line in repeat(b"data\n", MAX_SIZE // 5):
        decoder.receive(line)
    [event] = decoder.receive(b"\n")
    assert event.data == "\n" * (MAX_SIZE // 5 - 1)


def test_what_follows_is_read_as_if_it_had_come_alone() -> None:
    decoder = Decoder()
    for data in (b"data: 1\n\n", b":\n\n", b"event: e\nid: 1\ndata: 2\n\n", b"retry: 5\n\n"):
        for piece in bytewise(data):
            decoder.receive(piece)
        assert decoder.receive(b"data: after\n\n") == [Event("after", id=decoder.last_event_id)]
