"""Frames: every header against a table of its own, every length, and the RFC's examples (RFC 6455 section 5)."""

from __future__ import annotations

import struct
import tracemalloc
from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rawws.errors import RemoteProtocolError
from rawws.protocol.connection import Connection, Role
from rawws.protocol.frames import FrameReader, FrameWriter, check_header
from tests.protocol.conftest import Feed
from tests.protocol.wire import (
    BINARY,
    CLOSE,
    FIRST_BINARY,
    FIRST_TEXT,
    KEY,
    LAST,
    PING,
    PONG,
    TEXT,
    deflate_for,
    frame,
    octets_of,
    outcome,
    peer_frame,
)

LENGTHS = [0, 1, 2, 3, 4, 5, 124, 125, 126, 127, 128, 255, 256, 65534, 65535, 65536, 65537]
BOTH = (False, True)

# The first octets that section 5.2 draws: fin, rsv1, rsv2, rsv3, and the opcode in four bits.
ONLY_ALONE = {"0000 0001", "1000 0001", "0000 0010", "1000 0010"}
ONLY_COMPRESSED = {"0100 0001", "1100 0001", "0100 0010", "1100 0010"}
ONLY_WITHIN_A_MESSAGE = {"0000 0000", "1000 0000"}
CONTROL = {"1000 1000", "1000 1001", "1000 1010"}


def legal_headers(must_mask: bool, compression: bool, within_a_message: bool) -> set[tuple[int, int]]:
    """All legal pairs of first octets, made by listing them rather than by rules."""

    def numbers(bits: set[str]) -> set[int]:
        return {int(octet.replace(" ", ""), 2) for octet in bits}

    if within_a_message:
        data = numbers(ONLY_WITHIN_A_MESSAGE)
    elif compression:
        data = numbers(ONLY_ALONE | ONLY_COMPRESSED)
    else:
        data = numbers(ONLY_ALONE)
    base = 128 if must_mask else 0
    return set(product(data, range(base, base + 128))) | set(product(numbers(CONTROL), range(base, base + 126)))


# For each seven bits of length, octets that complete the header legally.
LENGTH_OCTETS = {126: struct.pack("!H", 126), 127: struct.pack("!Q", 65536)}
LENGTH_VALUES = {126: 126, 127: 65536}


@pytest.mark.parametrize(("must_mask", "compression", "within_a_message"), list(product(BOTH, BOTH, BOTH)), ids=str)
def test_every_header_of_two_octets_is_judged_as_listed(
    must_mask: bool, compression: bool, within_a_message: bool
) -> None:
    legal = legal_headers(must_mask, compression, within_a_message)
    accepted = set()
    codes = set()
    for first, second in product(range(256), range(256)):
        length = LENGTH_VALUES.get(second & 127, second & 127)
        try:
            check_header(first, second, length, must_mask, compression, within_a_message)
        except RemoteProtocolError as error:
            codes.add(error.close_code)
        else:
            accepted.add((first, second))
    assert accepted == legal
    assert codes == {1002}


@pytest.mark.parametrize("compression", BOTH)
@pytest.mark.parametrize("within_a_message", BOTH)
def test_every_header_of_two_octets_is_judged_so_on_the_wire(
    role: Role, compression: bool, within_a_message: bool
) -> None:
    must_mask = role is Role.SERVER
    legal = legal_headers(must_mask, compression, within_a_message)
    deflate = deflate_for(role) if compression else None
    for first, second in product(range(256), range(256)):
        reader = FrameReader(must_mask, deflate is not None)
        data = bytes((first, second)) + LENGTH_OCTETS.get(second & 127, b"") + KEY
        reader.feed(bytearray(data), len(data))
        try:
            complete = reader.read_header(within_a_message)
        except RemoteProtocolError:
            complete = False
        assert complete is ((first, second) in legal), (first, second)


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (0x91, 0x80, "reserved bits are 001"),
        (0xA1, 0x80, "reserved bits are 010"),
        (0xC1, 0x80, "reserved bits are 100"),
        (0xF1, 0x80, "reserved bits are 111"),
        (0x83, 0x80, "opcode is 0x3, allowed are 0x0 to 0x2 and 0x8 to 0xa"),
        (0x87, 0x80, "opcode is 0x7"),
        (0x8B, 0x80, "opcode is 0xb"),
        (0x8F, 0x80, "opcode is 0xf"),
        (0x81, 0x00, "a frame from the client is not masked"),
        (0x09, 0x80, "a control frame is fragmented"),
        (0x80, 0x80, "a continuation frame without a message to continue"),
    ],
)
def test_an_illegal_header_fails_with_1002_and_says_why(feed: Feed, first: int, second: int, reason: str) -> None:
    result = feed(Role.SERVER, bytes((first, second)) + KEY)
    assert result.events == []
    assert result.error is not None
    assert result.error[0] == 1002
    assert reason in result.error[1]
    assert result.sent == [(CLOSE, b"\x03\xea" + result.error[1].encode())]


def test_an_unmasked_client_frame_fails_with_1002(feed: Feed) -> None:
    assert feed(Role.SERVER, frame(TEXT, b"Hello")).error == (1002, "a frame from the client is not masked")


def test_a_masked_server_frame_fails_with_1002(feed: Feed) -> None:
    assert feed(Role.CLIENT, frame(TEXT, b"Hello", KEY)).error == (1002, "a frame from the server is masked")


def test_a_new_message_within_a_message_fails_with_1002(feed: Feed, role: Role) -> None:
    data = peer_frame(role, FIRST_TEXT, b"Hel") + peer_frame(role, TEXT, b"lo")
    assert feed(role, data).error == (1002, "a new message before the end of the one in fragments")


@pytest.mark.parametrize("first", [0xC0, 0x40, 0xC8, 0xC9, 0xCA])
def test_rsv1_on_anything_but_the_first_frame_of_a_message_fails_with_1002(feed: Feed, role: Role, first: int) -> None:
    data = peer_frame(role, FIRST_TEXT, b"Hel") + peer_frame(role, first)
    error = feed(role, data, deflate=deflate_for(role)).error
    assert error == (1002, f"rsv1 is set on a frame of opcode {first & 15:#x}, allowed on the first of a message")


@pytest.mark.parametrize("first", [CLOSE, PING, PONG])
@pytest.mark.parametrize("length", [126, 65535, 65536, (1 << 63) - 1])
def test_a_control_frame_of_over_125_bytes_fails_with_1002(feed: Feed, role: Role, first: int, length: int) -> None:
    error = feed(role, peer_frame(role, first, length=length)).error
    assert error == (1002, f"control frame payload is {length} bytes, limit 125")


@pytest.mark.parametrize("length", [0, 1, 125])
def test_a_length_of_seven_bits_in_sixteen_fails_with_1002(feed: Feed, length: int) -> None:
    data = struct.pack("!BBH", BINARY, 126, length) + bytes(length)
    assert feed(Role.CLIENT, data).error == (1002, f"payload length {length} is not encoded in the fewest bytes")


@pytest.mark.parametrize("length", [0, 125, 126, 65535])
def test_a_shorter_length_in_sixty_four_bits_fails_with_1002(feed: Feed, length: int) -> None:
    data = struct.pack("!BBQ", BINARY, 127, length) + bytes(length)
    assert feed(Role.CLIENT, data).error == (1002, f"payload length {length} is not encoded in the fewest bytes")


@pytest.mark.parametrize("length", [1 << 63, (1 << 63) + 5, (1 << 64) - 1])
@pytest.mark.parametrize("first", [BINARY, PING])
def test_a_length_of_2_to_the_63_and_above_fails_with_1002(feed: Feed, role: Role, first: int, length: int) -> None:
    error = feed(role, peer_frame(role, first, length=length)).error
    assert error == (1002, "the most significant bit of a 64-bit payload length is set")


@pytest.mark.parametrize("length", [(1 << 63) - 1, 1 << 62, (1 << 60) + 1])
@pytest.mark.parametrize("max_size", [None, 1 << 20, 0])
def test_lengths_near_2_to_the_63_fail_with_1009_before_their_payload(
    feed: Feed, role: Role, length: int, max_size: int | None
) -> None:
    error = feed(role, peer_frame(role, BINARY, length=length), max_size=max_size).error
    assert error is not None
    assert error[0] == 1009


@pytest.mark.parametrize("length", [(1 << 63) - 1, 1 << 62])
def test_lengths_near_2_to_the_63_add_up_without_overflow(role: Role, length: int) -> None:
    connection = Connection(role, None)
    data = peer_frame(role, FIRST_BINARY, b"x") + peer_frame(role, LAST, length=length)
    error = outcome(connection, octets_of(data)).error
    assert error is not None
    assert error[0] == 1009


# -- the short way of short messages


@pytest.mark.parametrize("masked", BOTH)
def test_the_short_way_takes_what_is_legal_whole_and_not_compressed_and_nothing_else(masked: bool) -> None:
    taken = set()
    for first, second in product(range(256), range(256)):
        octets = bytearray((first, second)) + bytes(204)
        frames = FrameReader(masked, True)
        frames.feed(octets, len(octets))
        if frames.take_short() is not None:
            taken.add((first, second))
        else:
            assert frames.position == 0
    wanted = {TEXT, BINARY}
    assert taken == {
        header
        for header in legal_headers(masked, compression=True, within_a_message=False)
        if header[0] in wanted and header[1] & 127 <= 125
    }


@given(
    payload=st.text(max_size=62) | st.binary(max_size=125),
    masked=st.booleans(),
    key=st.binary(min_size=4, max_size=4),
    rest=st.binary(max_size=20),
)
def test_the_short_way_says_what_the_long_one_says(payload: str | bytes, masked: bool, key: bytes, rest: bytes) -> None:
    octets = payload.encode()[:125] if isinstance(payload, str) else payload
    first = TEXT if isinstance(payload, str) else BINARY
    data = frame(first, octets, key if masked else None)
    results: list[object] = []
    for short in BOTH:
        frames = FrameReader(masked, False)
        frames.feed(bytearray(data + rest), len(data + rest))
        try:
            if short:
                results.append((frames.take_short(), frames.position))
            else:
                assert frames.read_header(False)
                results.append((frames.take_text() if first == TEXT else frames.take_bytes(), frames.position))
        except UnicodeDecodeError as error:
            results.append((error.start, error.reason, bytes(error.object)))
    assert results[0] == results[1]
    for end in range(len(data)):
        frames = FrameReader(masked, False)
        frames.feed(bytearray(data), end)
        assert (frames.take_short(), frames.position) == (None, 0)


# -- RFC 6455 section 5.7, verbatim


def test_5_7_a_single_frame_unmasked_text_message(feed: Feed) -> None:
    assert feed(Role.CLIENT, bytes.fromhex("81 05 48 65 6c 6c 6f")).events == [("str", "Hello")]


def test_5_7_a_single_frame_masked_text_message(feed: Feed) -> None:
    assert feed(Role.SERVER, bytes.fromhex("81 85 37 fa 21 3d 7f 9f 4d 51 58")).events == [("str", "Hello")]


def test_5_7_a_fragmented_unmasked_text_message(feed: Feed) -> None:
    assert feed(Role.CLIENT, bytes.fromhex("01 03 48 65 6c 80 02 6c 6f")).events == [("str", "Hello")]


def test_5_7_unmasked_ping_request_and_masked_ping_response() -> None:
    client = Connection(Role.CLIENT, random=lambda count: (KEY * count)[:count])
    client.receive(bytes.fromhex("89 05 48 65 6c 6c 6f"))
    assert client.next_event() == (b"Hello",)
    response = b"".join(client.data_to_send())
    assert response == bytes.fromhex("8a 85 37 fa 21 3d 7f 9f 4d 51 58")
    server = Connection(Role.SERVER)
    server.receive(response)
    assert server.next_event() == (b"Hello",)


def test_5_7_256_bytes_binary_message_in_a_single_unmasked_frame(feed: Feed) -> None:
    payload = bytes(range(256))
    assert feed(Role.CLIENT, bytes.fromhex("82 7e 01 00") + payload).events == [("bytes", payload)]


def test_5_7_64_kib_binary_message_in_a_single_unmasked_frame(feed: Feed) -> None:
    payload = bytes(range(256)) * 256
    data = bytes.fromhex("82 7f 00 00 00 00 00 01 00 00") + payload
    assert feed(Role.CLIENT, data).events == [("bytes", payload)]


def test_5_7_examples_are_what_is_sent() -> None:
    server = Connection(Role.SERVER)
    client = Connection(Role.CLIENT, random=lambda count: (KEY * count)[:count])

    def sent(connection: Connection, message: str | bytes) -> bytes:
        connection.send(message)
        return b"".join(connection.data_to_send())

    assert sent(server, "Hello") == bytes.fromhex("81 05 48 65 6c 6c 6f")
    assert sent(client, "Hello") == bytes.fromhex("81 85 37 fa 21 3d 7f 9f 4d 51 58")
    assert sent(server, bytes(256)) == bytes.fromhex("82 7e 01 00") + bytes(256)
    assert sent(server, bytes(65536)) == bytes.fromhex("82 7f 00 00 00 00 00 01 00 00") + bytes(65536)
    server.send_fragment(0x1, b"Hel", final=False)
    server.send_fragment(0x0, b"lo", final=True)
    assert b"".join(server.data_to_send()) == bytes.fromhex("01 03 48 65 6c 80 02 6c 6f")


# -- reading


@pytest.mark.parametrize("length", LENGTHS)
def test_every_length_is_read(feed: Feed, role: Role, length: int) -> None:
    payload = bytes(i * 31 & 0xFF for i in range(length))
    assert feed(role, peer_frame(role, BINARY, payload)).events == [("bytes", payload)]


@pytest.mark.parametrize("cut", range(1, 14))
def test_a_frame_that_is_not_complete_is_no_event_and_no_error(cut: int) -> None:
    connection = Connection(Role.SERVER)
    data = frame(BINARY, bytes(65536), KEY)
    assert outcome(connection, [data[:cut]]).events == []
    assert outcome(connection, [data[cut:]]).events == [("bytes", bytes(65536))]


def test_data_received_before_the_last_was_processed_comes_behind_it(role: Role) -> None:
    connection = Connection(role)
    for text in (b"one", b"two", b"three"):
        connection.receive(peer_frame(role, TEXT, text))
    assert [connection.next_event() for _ in range(4)] == ["one", "two", "three", None]


def test_a_lent_buffer_can_be_used_again_after_keep_buffer(role: Role) -> None:
    connection = Connection(role)
    data = peer_frame(role, TEXT, b"one") + peer_frame(role, TEXT, b"two") + peer_frame(role, TEXT, b"three")
    buffer = bytearray(4096)
    events = []
    for at in range(0, len(data), 7):
        piece = data[at : at + 7]
        buffer[: len(piece)] = piece
        connection.receive_buffer(buffer, len(piece))
        if (event := connection.next_event()) is not None:
            events.append(event)
        connection.keep_buffer()
        buffer[:] = b"\xff" * 4096
    while (event := connection.next_event()) is not None:
        events.append(event)
    connection.keep_buffer()
    connection.keep_buffer()
    assert events == ["one", "two", "three"]
    assert connection.next_event() is None


def test_what_is_kept_twice_is_kept(role: Role) -> None:
    connection = Connection(role)
    data = peer_frame(role, TEXT, b"Hello")
    buffer = bytearray(data)
    connection.receive_buffer(buffer, 1)
    assert connection.next_event() is None
    connection.keep_buffer()
    connection.keep_buffer()
    buffer[: len(data) - 1] = data[1:]
    connection.receive_buffer(buffer, len(data) - 1)
    assert connection.next_event() == "Hello"


def test_nothing_more_comes_of_a_buffer_that_was_given_back(role: Role) -> None:
    connection = Connection(role)
    data = peer_frame(role, TEXT, b"Hello")
    for piece in (data[:-3], data[-3:-1]):
        connection.receive_buffer(bytearray(piece), len(piece))
        assert connection.next_event() is None
        connection.keep_buffer()
        assert connection.next_event() is None
    connection.receive(data[-1:])
    assert connection.next_event() == "Hello"


# -- writing


@pytest.mark.parametrize("key", [None, KEY, b"\x00\x00\x00\x00", b"\xff\xfe\xfd\xfc"])
def test_every_length_is_written_in_the_fewest_bytes(key: bytes | None) -> None:
    writer = FrameWriter()
    for length in [*LENGTHS, 2047, 2048, 2049, 16383, 16384, 16385]:
        payload = bytes(i * 31 & 0xFF for i in range(length))
        writer.write(BINARY, payload, key is not None, int.from_bytes(key or b"", "little"))
        expected = frame(BINARY, payload, key)
        assert writer.size() == len(expected)
        assert b"".join(writer.take()) == expected
        assert writer.size() == 0
        assert writer.take() == []


@example(lengths=[16383, 16384, 0, 65536, 5], masks=False)
@example(lengths=[2000, 2000, 2000, 16384, 16384], masks=True)
@given(
    lengths=st.lists(st.sampled_from([0, 1, 125, 126, 2020, 2033, 2034, 2047, 2048, 16383, 16384, 65536]), max_size=9),
    masks=st.booleans(),
)
def test_frames_leave_in_the_order_in_which_they_were_written(lengths: list[int], masks: bool) -> None:
    writer = FrameWriter()
    expected = b""
    for number, length in enumerate(lengths):
        payload = bytes([number]) * length
        writer.write(BINARY, payload, masks, int.from_bytes(KEY, "little"))
        expected += frame(BINARY, payload, KEY if masks else None)
        assert writer.size() == len(expected)
    assert b"".join(writer.take()) == expected


@pytest.mark.parametrize("length", [5, 5000])
def test_a_key_counts_only_where_frames_are_masked(length: int) -> None:
    writer = FrameWriter()
    writer.write(TEXT, b"x" * length, False, int.from_bytes(KEY, "little"))
    assert b"".join(writer.take()) == frame(TEXT, b"x" * length)


def test_what_is_appended_leaves_in_its_place() -> None:
    writer = FrameWriter()
    ready = frame(TEXT, b"ready")
    writer.append(ready)
    writer.write(TEXT, b"one", False, 0)
    writer.append(ready)
    writer.append(ready)
    writer.write(TEXT, b"two", False, 0)
    assert writer.size() == 3 * len(ready) + 10
    assert b"".join(writer.take()) == ready + frame(TEXT, b"one") + ready + ready + frame(TEXT, b"two")


def test_a_large_payload_is_not_copied() -> None:
    writer = FrameWriter()
    payload = bytes(16384)
    writer.write(BINARY, payload, False, 0)
    header, body = writer.take()
    assert header == b"\x82\x7e\x40\x00"
    assert body is payload


def test_a_writer_keeps_no_room_for_large_payloads() -> None:
    payload = bytes(1 << 23)
    tracemalloc.start()
    writer = FrameWriter()
    for _ in range(20):
        writer.write(BINARY, payload, False, 0)
    assert len(writer.take()) == 40
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 16


def test_a_writer_gives_back_the_room_of_a_burst() -> None:
    tracemalloc.start()
    writer = FrameWriter()
    for _ in range(10_000):
        writer.write(BINARY, bytes(1000), False, 0)
    chunks = writer.take()
    assert sum(map(len, chunks)) == 10_040_000
    del chunks
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 1 << 18
    writer.write(TEXT, b"next", False, 0)
    assert writer.take() == [frame(TEXT, b"next")]
