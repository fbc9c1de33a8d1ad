"""Fixtures of the tests of rawws_sse: every stream whole, byte by byte, and cut in two anywhere."""

from __future__ import annotations

import pytest

from rawws_sse import MAX_SIZE
from tests.sse.streams import Feed, Outcome, bytewise, fed


def whole(data: bytes, max_size: int | None = MAX_SIZE) -> Outcome:
    return fed([data], max_size)


def byte_by_byte(data: bytes, max_size: int | None = MAX_SIZE) -> Outcome:
    return fed(bytewise(data), max_size)


def cut_in_two(data: bytes, max_size: int | None = MAX_SIZE) -> Outcome:
    first, *others = (fed([data[:at], b"", data[at:]], max_size) for at in range(len(data) + 1))
    assert [other for other in others if other != first] == []
    return first


@pytest.fixture(params=[whole, byte_by_byte, cut_in_two], ids=lambda way: way.__name__)
def feed(request: pytest.FixtureRequest) -> Feed:
    way: Feed = request.param
    return way
