"""Messages: fragments, UTF-8 at its first bad octet, limits, streaming (RFC 6455 sections 5.4, 5.6 and 8.1)."""

from __future__ import annotations

import resource
import sys
import tracemalloc
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rawws.errors import RemoteProtocolError
from rawws.protocol.connection import Connection, Role
from rawws.protocol.messages import Fragment
from tests.protocol.conftest import Feed
from tests.protocol.wire import (
    BINARY,
    COMPRESSED_BINARY,
    FIRST_BINARY,
    FIRST_COMPRESSED_BINARY,
    FIRST_TEXT,
    LAST,
    MIDDLE,
    PING,
    PONG,
    TEXT,
    deflate_for,
    frame,
    octets_of,
    outcome,
    peer_frame,
    sent_by,
)

LENGTHS = [0, 1, 124, 125, 126, 127, 128, 65534, 65535, 65536, 65537]
INVALID = (1007, "a text message is not valid UTF-8")
TOO_BIG = (1009, "message is over 10 bytes, the limit")


def fragments(role: Role, first: int, parts: list[bytes]) -> bytes:
    """A message in as many frames as there are parts."""
    firsts = [first & 0x7F, *[MIDDLE] * (len(parts) - 1)]
    firsts[-1] |= 0x80
    return b"".join(peer_frame(role, octet, part) for octet, part in zip(firsts, parts, strict=True))


# -- round trips


@pytest.mark.parametrize("length", LENGTHS)
def test_every_length_goes_from_one_side_to_the_other(role: Role, length: int) -> None:
    sender = Connection(Role.CLIENT if role is Role.SERVER else Role.SERVER)
    text = ("ab\u00e9\u20ac\U0001f600" * (length // 10 + 1)).encode()[:length].decode("utf-8", "ignore")
    binary = bytes(i * 31 & 0xFF for i in range(length))
    sender.send(text)
    sender.send(binary)
    sender.send("x" * length)
    receiver = Connection(role)
    result = outcome(receiver, [b"".join(sender.data_to_send())])
    assert result == ([("str", text), ("bytes", binary), ("str", "x" * length)], None, [])


@given(messages=st.lists(st.text(max_size=200) | st.binary(max_size=200), max_size=5), role=st.sampled_from(Role))
def test_messages_come_as_they_were_sent(messages: list[str | bytes], role: Role) -> None:
    sender = Connection(Role.CLIENT if role is Role.SERVER else Role.SERVER)
    for message in messages:
        sender.send(message)
    result = outcome(Connection(role), sender.data_to_send())
    assert result.events == [(type(message).__name__, message) for message in messages]


@given(length=st.integers(0, 70000) | st.sampled_from(LENGTHS), seed=st.integers(0, 255), role=st.sampled_from(Role))
def test_any_length_comes_as_it_was_sent(length: int, seed: int, role: Role) -> None:
    sender = Connection(Role.CLIENT if role is Role.SERVER else Role.SERVER)
    message = (bytes(range(seed, 256)) + bytes(range(seed))) * (length // 256 + 1)
    sender.send(message[:length])
    assert outcome(Connection(role), sender.data_to_send()).events == [("bytes", message[:length])]


# -- fragments


@pytest.mark.parametrize(
    "parts",
    [
        [b"Hello"],
        [b"Hel", b"lo"],
        [b"", b"Hello"],
        [b"Hello", b""],
        [b"", b"", b""],
        [b"", b"", b"H", b"", b"ello", b""],
        [b"H", b"e", b"l", b"l", b"o"],
        [b"x" * 126, b"y" * 65536, b"z"],
    ],
    ids=lambda parts: "+".join(str(len(part)) for part in parts),
)
@pytest.mark.parametrize("kind", ["str", "bytes"])
def test_fragments_are_one_message(feed: Feed, role: Role, parts: list[bytes], kind: str) -> None:
    data = fragments(role, TEXT if kind == "str" else BINARY, parts)
    joined = b"".join(parts)
    assert feed(role, data).events == [(kind, joined.decode() if kind == "str" else joined)]


def test_control_frames_may_stand_between_fragments(feed: Feed, role: Role) -> None:
    data = (
        peer_frame(role, FIRST_TEXT, b"H")
        + peer_frame(role, PING, b"1")
        + peer_frame(role, MIDDLE, b"el")
        + peer_frame(role, PONG, b"2")
        + peer_frame(role, PING)
        + peer_frame(role, LAST, b"lo")
    )
    result = feed(role, data)
    assert result.events == [("Ping", b"1"), ("Pong", b"2"), ("Ping", b""), ("str", "Hello")]
    assert result.sent == [(PONG, b"1"), (PONG, b"")]


def test_a_message_follows_on_a_message_in_fragments(feed: Feed, role: Role) -> None:
    data = (
        fragments(role, TEXT, [b"o", b"ne"]) + peer_frame(role, BINARY, b"two") + fragments(role, BINARY, [b"3", b""])
    )
    assert feed(role, data).events == [("str", "one"), ("bytes", b"two"), ("bytes", b"3")]


@pytest.mark.parametrize("cut", range(1, 10))
def test_fragments_may_cut_characters(feed: Feed, role: Role, cut: int) -> None:
    text = "\u00e9\u20ac\U0001f600!"
    octets = text.encode()
    data = fragments(role, TEXT, [octets[:cut], octets[cut:]])
    assert feed(role, data).events == [("str", text)]
    data = fragments(role, TEXT, [octets[i : i + 1] for i in range(len(octets))])
    assert feed(role, data).events == [("str", text)]


# -- UTF-8. The Unicode Standard, table 3-7: which octets may follow on which.

RANGES: list[tuple[range, list[range]]] = [
    (range(0x80), []),
    (range(0xC2, 0xE0), [range(0x80, 0xC0)]),
    (range(0xE0, 0xE1), [range(0xA0, 0xC0), range(0x80, 0xC0)]),
    (range(0xE1, 0xED), [range(0x80, 0xC0), range(0x80, 0xC0)]),
    (range(0xED, 0xEE), [range(0x80, 0xA0), range(0x80, 0xC0)]),
    (range(0xEE, 0xF0), [range(0x80, 0xC0), range(0x80, 0xC0)]),
    (range(0xF0, 0xF1), [range(0x90, 0xC0), range(0x80, 0xC0), range(0x80, 0xC0)]),
    (range(0xF1, 0xF4), [range(0x80, 0xC0), range(0x80, 0xC0), range(0x80, 0xC0)]),
    (range(0xF4, 0xF5), [range(0x80, 0x90), range(0x80, 0xC0), range(0x80, 0xC0)]),
]


def first_bad_octet(octets: bytes) -> int | None:
    """Where the octets stop being the beginning of a UTF-8 text."""
    expected: list[range] = []
    for at, octet in enumerate(octets):
        if expected:
            if octet not in expected[0]:
                return at
            expected = expected[1:]
        else:
            following = [rest for leads, rest in RANGES if octet in leads]
            if not following:
                return at
            expected = following[0]
    return None


EDGES = [0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xFF]


def edge_cases() -> Iterator[bytes]:
    """Every leading octet before the edges of every range."""
    yield from (bytes(octets) for octets in product(range(0x80, 256), EDGES))
    yield from (bytes(octets) for octets in product(range(0xDF, 256), EDGES, EDGES))
    yield from (bytes(octets) for octets in product(range(0xEF, 0xF6), EDGES, EDGES, EDGES))


def test_a_text_fails_at_its_first_bad_octet_and_not_before() -> None:
    for octets in edge_cases():
        connection = Connection(Role.CLIENT)
        connection.receive(frame(FIRST_TEXT, b"", length=100))
        expected = first_bad_octet(octets)
        for at, piece in enumerate(octets_of(octets)):
            result = outcome(connection, [piece])
            if at == expected:
                assert result.error == INVALID, octets.hex(" ")
                break
            assert result.error is None, octets.hex(" ")


BAD_TEXTS = {
    "a continuation octet alone": b"\x80",
    "overlong slash in two": b"\xc0\xaf",
    "overlong slash in three": b"\xe0\x80\xaf",
    "overlong slash in four": b"\xf0\x80\x80\xaf",
    "overlong nul": b"\xc0\x80",
    "a high surrogate": b"\xed\xa0\x80",
    "a low surrogate": b"\xed\xbf\xbf",
    "a pair of surrogates": b"\xed\xa0\x81\xed\xb0\x80",
    "over U+10FFFF": b"\xf4\x90\x80\x80",
    "five octets": b"\xf8\x88\x80\x80\x80",
    "six octets": b"\xfc\x84\x80\x80\x80\x80",
    "fe": b"\xfe",
    "ff": b"\xff",
    "a character cut by another": b"\xe2\x82\xe2\x82\xac",
    "cut after one of two": b"\xc3",
    "cut after one of three": b"\xe2",
    "cut after two of three": b"\xe2\x82",
    "cut after three of four": b"\xf0\x9f\x98",
}
bad_texts = pytest.mark.parametrize("bad", BAD_TEXTS.values(), ids=BAD_TEXTS.keys())


@bad_texts
def test_a_message_that_is_not_utf_8_fails_with_1007(feed: Feed, role: Role, bad: bytes) -> None:
    result = feed(role, peer_frame(role, TEXT, b"ok \xe2\x82\xac" + bad))
    assert result.events == []
    assert result.error == INVALID


@bad_texts
def test_fragments_that_are_not_utf_8_fail_with_1007(feed: Feed, role: Role, bad: bytes) -> None:
    assert feed(role, fragments(role, TEXT, [b"ok", bad])).error == INVALID
    assert feed(role, fragments(role, TEXT, [b"ok" + bad, b""])).error == INVALID
    assert feed(role, fragments(role, TEXT, [bad[i : i + 1] for i in range(len(bad))])).error == INVALID


@bad_texts
def test_the_same_octets_are_a_binary_message(feed: Feed, role: Role, bad: bytes) -> None:
    assert feed(role, peer_frame(role, BINARY, bad)).events == [("bytes", bad)]


def test_a_bad_octet_fails_in_the_first_fragment_before_the_second_comes(role: Role) -> None:
    connection = Connection(role)
    connection.receive(peer_frame(role, FIRST_TEXT, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90"))
    with pytest.raises(RemoteProtocolError, match="not valid UTF-8"):
        connection.next_event()


# -- limits


def test_a_message_of_max_size_comes_and_one_byte_more_fails_with_1009(feed: Feed, role: Role) -> None:
    assert feed(role, peer_frame(role, BINARY, bytes(10)), max_size=10).events == [("bytes", bytes(10))]
    assert feed(role, peer_frame(role, BINARY, bytes(11)), max_size=10).error == TOO_BIG
    assert feed(role, peer_frame(role, TEXT, b"x" * 11), max_size=10).error == TOO_BIG


def test_the_limit_counts_bytes_and_not_characters(feed: Feed, role: Role) -> None:
    assert feed(role, peer_frame(role, TEXT, "\u20ac".encode() * 3), max_size=10).events == [("str", "\u20ac" * 3)]
    assert feed(role, peer_frame(role, TEXT, "\u20ac".encode() * 4), max_size=10).error == TOO_BIG


def test_the_limit_counts_all_fragments_of_a_message(feed: Feed, role: Role) -> None:
    assert feed(role, fragments(role, BINARY, [bytes(5), bytes(5), b""]), max_size=10).events == [("bytes", bytes(10))]
    assert feed(role, fragments(role, BINARY, [bytes(5), bytes(5), b"x"]), max_size=10).error == TOO_BIG
    data = fragments(role, BINARY, [bytes(5), bytes(5)]) * 3 + peer_frame(role, BINARY, bytes(10))
    assert len(feed(role, data, max_size=10).events) == 4


def test_too_long_a_message_fails_at_its_header(role: Role) -> None:
    connection = Connection(role, 10)
    connection.receive(peer_frame(role, BINARY, length=11))
    with pytest.raises(RemoteProtocolError, match="over 10 bytes") as caught:
        connection.next_event()
    assert caught.value.close_code == 1009


def test_a_frame_over_its_limit_fails_with_1009_and_smaller_ones_are_one_message(role: Role) -> None:
    connection = Connection(role)
    connection.limit(None, 4, False)
    connection.receive(fragments(role, FIRST_TEXT | 0x80, [b"abcd", b"efgh"]))
    assert connection.next_event() == "abcdefgh"
    connection.receive(peer_frame(role, BINARY, b"abcde"))
    with pytest.raises(RemoteProtocolError, match="frame is over 4 bytes, the limit") as caught:
        connection.next_event()
    assert caught.value.close_code == 1009


def test_a_binary_message_fails_with_1003_where_only_text_is_read(role: Role) -> None:
    connection = Connection(role)
    connection.limit(10, None, True)
    connection.receive(peer_frame(role, TEXT, b"text") + peer_frame(role, BINARY, b""))
    assert connection.next_event() == "text"
    with pytest.raises(RemoteProtocolError, match="the message is binary, allowed is text") as caught:
        connection.next_event()
    assert caught.value.close_code == 1003


@pytest.mark.parametrize("sizes", [(-1, None), (None, -1)])
def test_a_later_limit_below_zero_is_a_value_error(role: Role, sizes: tuple[int | None, int | None]) -> None:
    with pytest.raises(ValueError, match="is -1 bytes, allowed are 0 and more, or None"):
        Connection(role).limit(*sizes, False)


def test_a_limit_of_zero_lets_empty_messages_pass(feed: Feed, role: Role) -> None:
    assert feed(role, peer_frame(role, TEXT), max_size=0).events == [("str", "")]
    error = feed(role, peer_frame(role, TEXT, b"x"), max_size=0).error
    assert error == (1009, "message is over 0 bytes, the limit")


@pytest.mark.parametrize("max_size", [None, sys.maxsize, 1 << 62, 1 << 80])
def test_no_limit_and_a_huge_one_let_all_pass(feed: Feed, role: Role, max_size: int | None) -> None:
    payload = bytes(70000)
    assert feed(role, peer_frame(role, BINARY, payload), max_size=max_size).events == [("bytes", payload)]
    data = fragments(role, COMPRESSED_BINARY, [b"\xf2H\xcd", b"\xc9\xc9\x07\x00"])
    assert feed(role, data, max_size=max_size, deflate=deflate_for(role)).events == [("bytes", b"Hello")]


@pytest.mark.parametrize("max_size", [-1, -1 << 70])
def test_a_limit_below_zero_is_a_value_error(role: Role, max_size: int) -> None:
    with pytest.raises(ValueError, match="max_size is -"):
        Connection(role, max_size)


# -- floods


@pytest.mark.parametrize("part", [b"", b"x"], ids=["empty", "one byte"])
@pytest.mark.parametrize("first", [FIRST_BINARY, FIRST_TEXT, FIRST_COMPRESSED_BINARY])
def test_a_flood_of_tiny_fragments_holds_its_bytes_only(part: bytes, first: int) -> None:
    connection = Connection(Role.CLIENT, 1 << 16, deflate_for(Role.CLIENT))
    # Compressed, each is an empty block, or a part of one.
    part = part and (b"\x00\x00\x00\xff\xff" if first & 0x40 else part)
    outcome(connection, [frame(first, part)])
    flood = frame(MIDDLE, part) * 500
    outcome(connection, [flood])
    tracemalloc.start()
    result = outcome(connection, [flood] * 20)
    size, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert result == ([], None, [])
    assert size < 40_000
    assert peak < 60_000


def resident() -> int:
    """The bytes of memory that this process really uses."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("first", [TEXT, BINARY, FIRST_TEXT, FIRST_BINARY, COMPRESSED_BINARY])
def test_what_a_header_announces_costs_nothing_before_it_comes(first: int) -> None:
    connections = [Connection(Role.CLIENT, None, deflate_for(Role.CLIENT)) for _ in range(200)]
    before = resident()
    for connection in connections:
        connection.receive(frame(first, b"", length=1 << 20))
        for _ in range(3):
            connection.receive(b"\x00")
            assert connection.next_event() is None
    # Whatever the allocator wipes of its own; not the megabyte that the header announces.
    assert resident() - before < 200 * 200_000


# -- streaming


def test_a_streamed_message_comes_as_it_arrives(role: Role) -> None:
    connection = Connection(role)
    connection.messages.streaming = True
    result = outcome(connection, [peer_frame(role, FIRST_TEXT, b"Hel"), peer_frame(role, LAST, b"lo")])
    assert result.events == [("Fragment", "Hel", False), ("Fragment", "lo", True)]
    assert not connection.messages.streaming
    assert outcome(connection, [peer_frame(role, TEXT, b"next")]).events == [("str", "next")]


def test_a_streamed_message_in_one_frame_comes_in_the_pieces_in_which_it_arrives(role: Role) -> None:
    connection = Connection(role)
    connection.messages.streaming = True
    data = peer_frame(role, BINARY, bytes(range(200)))
    result = outcome(connection, [data[:50], data[50:100], data[100:]])
    assert {event[0] for event in result.events} == {"Fragment"}
    assert b"".join(event[1] for event in result.events) == bytes(range(200))
    assert [event[2] for event in result.events] == [False, False, True]


def test_a_streamed_message_that_is_all_there_is_one_fragment(role: Role) -> None:
    for first, payload, data in (
        (TEXT, b"Hello", "Hello"),
        (BINARY, b"Hello", b"Hello"),
        (TEXT, b"", ""),
        (BINARY, b"", b""),
    ):
        connection = Connection(role)
        connection.messages.streaming = True
        assert outcome(connection, [peer_frame(role, first, payload)]).events == [("Fragment", data, True)]


def test_streamed_text_comes_in_whole_characters(feed: Feed, role: Role) -> None:
    text = "\u00e9\u20ac\U0001f600!"
    result = feed(role, fragments(role, TEXT, list(octets_of(text.encode()))), streaming=True)
    assert result.error is None
    assert "".join(event[1] for event in result.events) == text
    assert [event[2] for event in result.events] == [False] * 3 + [True]


def test_an_empty_fragment_of_a_streamed_message_is_no_event_unless_it_is_the_last(feed: Feed, role: Role) -> None:
    result = feed(role, fragments(role, BINARY, [b"", b"", b"x", b"", b""]), streaming=True)
    assert result.events == [("Fragment", b"x", False), ("Fragment", b"", True)]


def test_streaming_may_begin_within_a_message(role: Role) -> None:
    connection = Connection(role)
    assert outcome(connection, [peer_frame(role, FIRST_TEXT, b"H\xc3")]).events == []
    connection.messages.streaming = True
    result = outcome(connection, [peer_frame(role, MIDDLE, b"\xa9"), peer_frame(role, LAST, b"!")])
    assert result.events == [("Fragment", "H\u00e9", False), ("Fragment", "!", True)]


def test_streaming_may_begin_within_a_frame(role: Role) -> None:
    connection = Connection(role)
    payload = bytes(range(200))
    data = peer_frame(role, BINARY, payload)
    assert outcome(connection, [data[:50], data[50:100]]).events == []
    connection.messages.streaming = True
    result = outcome(connection, [data[100:150], data[150:], peer_frame(role, BINARY, b"next")])
    fragments = [data for name, data, _ in result.events[:-1] if name == "Fragment"]
    assert b"".join(fragments) == payload
    assert result.events[-1] == ("bytes", b"next")


@bad_texts
def test_a_streamed_text_that_is_not_utf_8_fails_with_1007(feed: Feed, role: Role, bad: bytes) -> None:
    result = feed(role, fragments(role, TEXT, [b"ok", bad]), streaming=True)
    assert result.error == INVALID
    assert "".join(event[1] for event in result.events) in {"", "ok"}


def test_a_streamed_message_is_not_limited_and_not_held(role: Role) -> None:
    connection = Connection(role, 1000)
    connection.messages.streaming = True
    outcome(connection, [peer_frame(role, FIRST_BINARY, bytes(999))])
    tracemalloc.start()
    total = 0
    for _ in range(100):
        for _, data, final in outcome(connection, [peer_frame(role, MIDDLE, bytes(999))]).events:
            assert not final
            total += len(data)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == 99900
    assert size < 20_000


def test_a_streamed_message_comes_whatever_the_limit(feed: Feed, role: Role) -> None:
    result = feed(role, fragments(role, BINARY, [b"ab", b"c", b"d"]), max_size=0, streaming=True)
    assert result.error is None
    assert b"".join(event[1] for event in result.events) == b"abcd"


def test_a_message_after_a_streamed_one_is_limited_again(feed: Feed, role: Role) -> None:
    data = peer_frame(role, BINARY, bytes(1000)) + peer_frame(role, BINARY, bytes(11))
    assert feed(role, data, max_size=10, streaming=True).error == TOO_BIG


def test_a_fragment_has_names_for_its_parts() -> None:
    fragment = Fragment("Hel", final=False)
    assert (fragment.data, fragment.final) == ("Hel", False)
    assert repr(fragment) == "Fragment(data='Hel', final=False)"


def test_pings_between_fragments_of_a_streamed_message_are_answered(role: Role) -> None:
    connection = Connection(role)
    connection.messages.streaming = True
    result = outcome(
        connection,
        [peer_frame(role, FIRST_BINARY, b"1") + peer_frame(role, PING, b"?") + peer_frame(role, LAST, b"2")],
    )
    assert result.events == [("Fragment", b"1", False), ("Ping", b"?"), ("Fragment", b"2", True)]
    assert result.sent == [(PONG, b"?")]
    assert sent_by(connection) == []


@pytest.mark.parametrize("limit", [{"max_size": 5}, {"max_frame_size": 5}, {"text_only": True}])
def test_limits_hold_for_short_messages_too(role: Role, limit: dict[str, int]) -> None:
    connection = Connection(role)
    connection.limit(limit.get("max_size"), limit.get("max_frame_size"), bool(limit.get("text_only")))
    connection.receive(peer_frame(role, TEXT, b"12345") + peer_frame(role, BINARY, b"123456"))
    assert connection.next_event() == "12345"
    with pytest.raises(RemoteProtocolError) as caught:
        connection.next_event()
    assert caught.value.close_code == (1003 if limit.get("text_only") else 1009)


def test_a_short_message_that_streams_comes_in_parts(role: Role) -> None:
    connection = Connection(role)
    connection.messages.streaming = True
    connection.receive(peer_frame(role, TEXT, b"Hello") + peer_frame(role, TEXT, b"Hello"))
    assert connection.next_event() == Fragment("Hello", True)
    assert connection.next_event() == "Hello"


def test_a_short_message_between_the_parts_of_another_fails_with_1002(role: Role) -> None:
    connection = Connection(role)
    connection.receive(peer_frame(role, FIRST_TEXT, b"Hel") + peer_frame(role, TEXT, b"lo"))
    with pytest.raises(RemoteProtocolError, match="a new message before the end"):
        connection.next_event()
