"""RFC 9218 section 4: the parameters of Priority, their defaults, and what is ignored."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rawws.protocol.priorities import Priority, parse_priority


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], Priority(3, False)),
        ([""], Priority(3, False)),
        (["u=5, i"], Priority(5, True)),
        (["u=1, i"], Priority(1, True)),  # an EventSource of Chromium
        (["u=4"], Priority(4, False)),  # one of Firefox
        (["u=0"], Priority(0, False)),
        (["u=7,i=?1"], Priority(7, True)),
        (["i", "i=?0"], Priority(3, False)),
        (["u=1", "u=2"], Priority(2, False)),
        (["u=1;x=2 ,\ti;y"], Priority(1, True)),
        (['x="a", u=2, y'], Priority(2, False)),
    ],
)
def test_a_priority_is_read(values: list[str], expected: Priority) -> None:
    assert parse_priority(values) == expected


@pytest.mark.parametrize(
    "value", ["u", "u=", "u=8", "u=-1", "u=1.0", 'u="1"', "u=?1", "U=1", "i=1", "i=", "i=?2", "I", "=", ",", "u=\u0661"]
)
def test_what_is_out_of_range_or_of_another_type_is_ignored(value: str) -> None:
    assert parse_priority([value]) == Priority()


@given(values=st.lists(st.text(max_size=20), max_size=3))
def test_any_text_is_a_priority(values: list[str]) -> None:
    priority = parse_priority(values)
    assert 0 <= priority.urgency <= 7
    assert isinstance(priority.incremental, bool)
