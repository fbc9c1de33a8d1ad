"""Masking against the RFC's own loop (RFC 6455 section 5.3): the functions of Python, and by frames those of C."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rawws.protocol.connection import Role
from rawws.protocol.frames import FrameReader, FrameWriter
from rawws.protocol.masking import blank, cut, encode, place, read_key, rotate, sealed, unmask, unmask_text
from tests.protocol.wire import BINARY, KEY, TEXT, masked, peer_frame

keys = st.binary(min_size=4, max_size=4)
LENGTHS = [*range(70), 124, 125, 126, 127, 4095, 4096, 4097, 65535, 65536, 65537]


def number(key: bytes) -> int:
    return int.from_bytes(key, "little")


def test_the_rfc_masks_hello_like_this() -> None:
    assert unmask(bytearray(b"Hello"), 0, 5, number(KEY)) == bytes.fromhex("7f9f4d5158")


@pytest.mark.parametrize("length", LENGTHS)
def test_every_length_is_masked_as_by_the_naive_loop(length: int) -> None:
    payload = bytes(i * 7 & 0xFF for i in range(length))
    assert unmask(bytearray(payload), 0, length, number(KEY)) == masked(payload, KEY)


@given(data=st.binary(max_size=200), key=keys, before=st.integers(0, 9), after=st.integers(0, 9))
def test_only_the_octets_between_start_and_stop_are_taken(data: bytes, key: bytes, before: int, after: int) -> None:
    buffer = bytearray(b"<" * before + data + b">" * after)
    assert unmask(buffer, before, before + len(data), number(key)) == masked(data, key)
    assert buffer == b"<" * before + data + b">" * after


@pytest.mark.parametrize("key", [0, 1, 0x80, 0xFF, 0x100, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_masking_twice_changes_nothing(key: int) -> None:
    once = unmask(bytearray(range(256)), 0, 256, key)
    assert (once == bytes(range(256))) is (key == 0)
    assert unmask(bytearray(once), 0, 256, key) == bytes(range(256))


@given(data=st.binary(max_size=100), key=keys, at=st.integers(0, 100))
def test_a_payload_in_two_pieces_goes_on_with_the_rotated_key(data: bytes, key: bytes, at: int) -> None:
    at = min(at, len(data))
    buffer = bytearray(data)
    first = unmask(buffer, 0, at, number(key))
    assert first + unmask(buffer, at, len(data), rotate(number(key), at)) == masked(data, key)


def test_a_key_has_four_rotations() -> None:
    key = number(b"\x01\x02\x03\x84")
    assert [rotate(key, count).to_bytes(4, "little") for count in range(5)] == [
        b"\x01\x02\x03\x84",
        b"\x02\x03\x84\x01",
        b"\x03\x84\x01\x02",
        b"\x84\x01\x02\x03",
        b"\x01\x02\x03\x84",
    ]
    assert rotate(key, (1 << 62) + 1) == rotate(key, 1)


@given(data=st.binary(max_size=100), start=st.integers(0, 100), length=st.integers(0, 100))
def test_a_cut_is_a_slice(data: bytes, start: int, length: int) -> None:
    start = min(start, len(data))
    stop = min(start + length, len(data))
    assert cut(bytearray(data), start, stop) == data[start:stop]


@given(key=keys, before=st.binary(max_size=5), after=st.binary(max_size=5))
def test_a_key_is_read_where_it_stands(key: bytes, before: bytes, after: bytes) -> None:
    assert read_key(bytearray(before + key + after), len(before)) == number(key)


@given(text=st.text(max_size=50), key=keys)
def test_a_text_is_read_as_it_was_encoded(text: str, key: bytes) -> None:
    octets = bytearray(masked(text.encode(), key))
    assert encode(text) == text.encode()
    assert unmask_text(octets, 0, len(octets), number(key)) == text


@given(
    parts=st.lists(st.binary(max_size=50), min_size=1, max_size=5),
    before=st.integers(0, 9),
    key=st.just(bytes(4)) | keys,
)
def test_what_is_placed_part_by_part_is_the_whole_masked_as_by_the_naive_loop(
    parts: list[bytes], before: int, key: bytes
) -> None:
    whole = b"".join(parts)
    target = blank(len(whole))
    at = 0
    for part in parts:
        source = bytearray(b"<" * before + part + b">")
        place(target, at, source, before, before + len(part), rotate(number(key), at))
        assert source == b"<" * before + part + b">"
        at += len(part)
    assert sealed(target) == masked(whole, key)


# -- by frames: these are the functions of C where the twin is compiled


def reader(octets: bytes, role: Role) -> FrameReader:
    """A reader of these octets, which stand at an odd place in a buffer that has others behind them."""
    frames = FrameReader(role is Role.SERVER, False)
    frames.feed(bytearray(octets + b"\xff" * 40), len(octets))
    return frames


@pytest.mark.parametrize("role", list(Role), ids=str)
@pytest.mark.parametrize("length", LENGTHS)
def test_a_payload_of_every_length_is_read_as_bytes_and_as_text(length: int, role: Role) -> None:
    octets = bytes(i * 7 & 0xFF for i in range(length))
    frames = reader(peer_frame(role, BINARY, octets), role)
    assert frames.read_header(False)
    assert frames.take_bytes() == octets
    text = "".join(chr(i % 128) for i in range(length))
    frames = reader(peer_frame(role, TEXT, text.encode()), role)
    assert frames.read_header(False)
    assert frames.take_text() == text


@pytest.mark.parametrize("role", list(Role), ids=str)
@pytest.mark.parametrize("length", LENGTHS[2:])
def test_one_character_that_is_not_ascii_is_read_at_every_place(length: int, role: Role) -> None:
    for at in {0, 1, 7, 8, 31, 32, 33, 4095, 4096, length - 2} & set(range(length - 1)):
        text = "x" * at + "\xe4" + "x" * (length - 2 - at)
        frames = reader(peer_frame(role, TEXT, text.encode()), role)
        assert frames.read_header(False)
        assert frames.take_text() == text


@pytest.mark.parametrize("role", list(Role), ids=str)
@pytest.mark.parametrize("length", LENGTHS[1:])
def test_one_octet_that_is_no_utf8_is_refused_at_every_place(length: int, role: Role) -> None:
    for at in {0, 1, 7, 8, 31, 32, 33, 4095, 4096, length - 1} & set(range(length)):
        octets = b"x" * at + b"\xff" + b"x" * (length - 1 - at)
        frames = reader(peer_frame(role, TEXT, octets), role)
        assert frames.read_header(False)
        with pytest.raises(UnicodeDecodeError):
            frames.take_text()


@pytest.mark.parametrize("length", [*LENGTHS, 2047, 2048, 2049])
def test_a_payload_of_every_length_is_written_masked_and_not(length: int) -> None:
    text = "".join(chr(i % 128) for i in range(length))
    for payload in (text.encode(), encode(text)):
        for is_masked in (False, True):
            writer = FrameWriter()
            writer.write(0x81, b"before", False, 0)
            writer.write(0x82, payload, is_masked, number(KEY))
            octets = b"".join(writer.take())
            assert octets[:8] == b"\x81\x06before"
            assert octets[len(octets) - length :] == (masked(text.encode(), KEY) if is_masked else text.encode())


@given(text=st.text(min_size=1, max_size=200), key=keys)
@example(text="\x7f", key=bytes(4))
@example(text="a\x00", key=b"\xff\xff\xff\xff")
def test_texts_of_frames_are_what_python_encodes_and_decodes(text: str, key: bytes) -> None:
    payload = text.encode()
    length = len(payload)
    head = bytes([0x81, 0x80 | length]) if length < 126 else b"\x81\xfe" + length.to_bytes(2, "big")
    frames = reader(head + key + masked(payload, key), Role.SERVER)
    assert frames.read_header(False)
    read = frames.take_text()
    assert (read, hash(read), read.isascii()) == (text, hash(text), text.isascii())
