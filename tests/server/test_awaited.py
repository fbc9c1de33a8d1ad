"""Awaited bytes: each is counted once, for as long as somebody waits for it and the peer has not taken it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rawws.net.awaited import AwaitedBytes, Claim


def test_what_two_wait_for_is_counted_once() -> None:
    awaited = AwaitedBytes()
    one, two = awaited.claim(0, 100), awaited.claim(50, 150)
    assert awaited.waiting(0) == 150
    assert awaited.waiting(120) == 30
    two.release()
    assert awaited.waiting(120) == 0
    one.release()


def test_what_is_waited_for_no_more_may_be_claimed_again() -> None:
    awaited = AwaitedBytes()
    awaited.claim(0, 100).release()
    again = awaited.claim(50, 150)
    assert awaited.waiting(0) == 100
    again.release()
    again.release()
    assert awaited.waiting(0) == 0


def test_what_the_peer_has_taken_is_given_back_once() -> None:
    awaited = AwaitedBytes()
    first, second = awaited.claim(0, 100), awaited.claim(100, 300)
    assert awaited.waiting(100) == 200
    first.release()
    assert awaited.waiting(150) == 150
    del second
    assert awaited.waiting(150) == 0


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 60), st.integers(0, 3), st.integers(0, 40)), max_size=30))
def test_no_more_is_counted_than_was_written_and_not_taken_and_nothing_where_nobody_waits(
    steps: list[tuple[int, int, int, int]],
) -> None:
    awaited, claims, written, taken = AwaitedBytes(), list[Claim](), 0, 0
    for size, back, drop, takes in steps:
        start = max(taken, written - back)
        written += size
        claims.append(awaited.claim(start, written))
        taken = min(written, taken + takes)
        assert 0 <= awaited.waiting(taken) <= written - taken
        for _ in range(min(drop, len(claims))):
            claims.pop(0).release()
        assert 0 <= awaited.waiting(taken) <= written - taken
    claims.clear()
    assert awaited.waiting(taken) == 0
