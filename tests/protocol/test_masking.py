"""Masking against the RFC's own loop (RFC 6455 section 5.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.twins import is_compiled
from rawws.protocol.masking import (
    blank,
    blank_octets,
    cut,
    cut_octets,
    mask,
    mask_octets,
    place,
    place_octets,
    rotate,
)
from tests.protocol.wire import KEY, masked

Mask = Callable[[bytearray, int, int, int], None]

both_masks = pytest.mark.parametrize("mask", [mask, mask_octets], ids=["mask", "mask_octets"])
keys = st.binary(min_size=4, max_size=4)


def number(key: bytes) -> int:
    return int.from_bytes(key, "little")


@both_masks
def test_the_rfc_masks_hello_like_this(mask: Mask) -> None:
    buffer = bytearray(b"Hello")
    mask(buffer, 0, 5, number(KEY))
    assert buffer == bytes.fromhex("7f9f4d5158")


@both_masks
@pytest.mark.parametrize("length", [*range(36), 124, 125, 126, 127, 65535, 65536, 65537])
def test_every_length_is_masked_as_by_the_naive_loop(mask: Mask, length: int) -> None:
    payload = bytes(i * 7 & 0xFF for i in range(length))
    buffer = bytearray(payload)
    mask(buffer, 0, length, number(KEY))
    assert buffer == masked(payload, KEY)


@both_masks
@given(data=st.binary(max_size=200), key=keys, before=st.integers(0, 9), after=st.integers(0, 9))
def test_only_the_octets_between_start_and_stop_change(
    mask: Mask, data: bytes, key: bytes, before: int, after: int
) -> None:
    buffer = bytearray(b"<" * before + data + b">" * after)
    mask(buffer, before, before + len(data), number(key))
    assert buffer == b"<" * before + masked(data, key) + b">" * after


@both_masks
@pytest.mark.parametrize("key", [0, 1, 0x80, 0xFF, 0x100, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_masking_twice_changes_nothing(mask: Mask, key: int) -> None:
    buffer = bytearray(range(256))
    mask(buffer, 0, 256, key)
    assert (buffer == bytes(range(256))) is (key == 0)
    mask(buffer, 0, 256, key)
    assert buffer == bytes(range(256))


@both_masks
@given(data=st.binary(max_size=100), key=keys, at=st.integers(0, 100))
def test_a_payload_in_two_pieces_goes_on_with_the_rotated_key(mask: Mask, data: bytes, key: bytes, at: int) -> None:
    at = min(at, len(data))
    buffer = bytearray(data)
    mask(buffer, 0, at, number(key))
    mask(buffer, at, len(data), rotate(number(key), at))
    assert buffer == masked(data, key)


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
def test_both_ways_to_cut_are_a_slice(data: bytes, start: int, length: int) -> None:
    start = min(start, len(data))
    stop = min(start + length, len(data))
    assert cut(bytearray(data), start, stop) == cut_octets(bytearray(data), start, stop) == data[start:stop]


@pytest.mark.parametrize(("blank", "place"), [(blank, place), (blank_octets, place_octets)], ids=["slices", "octets"])
@given(
    parts=st.lists(st.binary(max_size=50), min_size=1, max_size=5),
    before=st.integers(0, 9),
    key=st.just(bytes(4)) | keys,
)
def test_what_is_placed_part_by_part_is_the_whole_masked_as_by_the_naive_loop(
    blank: Callable[[int], Any], place: Callable[..., None], parts: list[bytes], before: int, key: bytes
) -> None:
    whole = b"".join(parts)
    target = blank(len(whole))
    if not is_compiled("rawws.protocol.masking"):
        # Interpreted, `blank_octets` is there for the C that is made of it.
        target = bytearray(target)
    at = 0
    for part in parts:
        source = bytearray(b"<" * before + part + b">")
        place(target, at, source, before, before + len(part), rotate(number(key), at))
        assert source == b"<" * before + part + b">"
        at += len(part)
    assert bytes(target) == masked(whole, key)
