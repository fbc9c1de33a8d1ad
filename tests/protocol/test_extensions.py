"""Header lists: the grammar of RFC 6455 section 9.1, and that it takes linear time."""

from __future__ import annotations

import contextlib
import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rawws.errors import HandshakeError, LocalProtocolError
from rawws.protocol.extensions import (
    Extension,
    excerpt,
    format_extensions,
    is_token,
    parse_extensions,
    parse_list,
    parse_tokens,
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        # RFC 6455 section 9.1.
        ("deflate-stream", [("deflate-stream", [])]),
        (
            "mux; max-channels=4; flow-control, deflate-stream",
            [("mux", [("max-channels", "4"), ("flow-control", None)]), ("deflate-stream", [])],
        ),
        ("private-extension", [("private-extension", [])]),
        ("foo, bar; baz=2", [("foo", []), ("bar", [("baz", "2")])]),
        # RFC 7692 section 7.1.
        (
            "permessage-deflate; client_max_window_bits; server_max_window_bits=10, permessage-deflate",
            [
                ("permessage-deflate", [("client_max_window_bits", None), ("server_max_window_bits", "10")]),
                ("permessage-deflate", []),
            ],
        ),
        (
            'permessage-deflate; server_max_window_bits="10"',
            [("permessage-deflate", [("server_max_window_bits", "10")])],
        ),
        (r'a; b="\c\d"', [("a", [("b", "cd")])]),
        (r'a; b="c\d"', [("a", [("b", "cd")])]),
        ("a;b;b=c;b=d", [("a", [("b", None), ("b", "c"), ("b", "d")])]),
        ("\t a \t;\t b\t= \tc\t , d ", [("a", [("b", "c")]), ("d", [])]),
        (",, a,\t,b ,", [("a", []), ("b", [])]),
        ("A;B=C", [("A", [("B", "C")])]),
        ("X ; X = X , X", [("X", [("X", "X")]), ("X", [])]),
        ("a" * 8000, [("a" * 8000, [])]),
    ],
)
def test_extensions_are_read(value: str, expected: list[Extension]) -> None:
    assert parse_extensions(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        *(
            "",
            " ",
            ",",
            ", ,\t,",
            ";",
            "a;",
            ";a",
            "a;;b",
            "a; ;b",
            "a; =b",
            "a; b=",
            "a; b= ",
            "a b",
            "a; b c",
            "a; b=c d",
        ),
        *("a=b", "a; b==c", "a; b=c=d", "a(b", "a; b=(", "a; b=c,;", "é", "a; é", "a; b=é", "a\x00", "a\x0b", "\xa0a"),
        *(
            'a; b="',
            'a; b=""',
            'a; b="c',
            'a; b=c"',
            'a; b="c"d',
            'a; b=d"c"',
            'a; b="c d"',
            'a; b="c,d"',
            'a; b="c;d"',
        ),
        *(
            'a; b="c=d"',
            r'a; b="\"',
            r'a; b="c\"',
            r'a; b="\\"',
            r'a; b="c\\d"',
            r'a; b="\""',
            'a; b="c""',
            '"a"',
            "'a"[:0],
        ),
        *(
            'a; "b"=c',
            'a; b="c" "d"',
            'a; b="\\ "',
            'a; b="\\',
            "a\nb",
            "a\r\n b",
            "a; b=\u0661",
            "a/b",
            'a; b="c"; d="',
        ),
        *('a; b=" c"', 'a; b="c "', 'a; b="\tc"'),
        *("a\xa0", "a; b\xa0", "a; b=\xa0c", "a; b=c\x85", "a; b\x0b=c"),
    ],
)
def test_what_does_not_conform_to_the_grammar_is_refused_with_400(value: str) -> None:
    with pytest.raises(HandshakeError) as raised:
        parse_extensions(value)
    assert raised.value.status == 400
    assert "Sec-WebSocket-Extensions header" in raised.value.reason


@pytest.mark.parametrize("name", ["", "a b", "a,b", "é", "a\r\nb", '"a"', 1, None])
def test_extensions_that_are_not_tokens_are_not_sent(name: Any) -> None:
    for extension in ((name, []), ("a", [(name, None)]), *([("a", [("b", name)])] if name is not None else [])):
        with pytest.raises(LocalProtocolError, match="not a token"):
            format_extensions([extension])


def test_extensions_are_written() -> None:
    assert format_extensions([]) == ""
    assert format_extensions([("a", []), ("b", [("c", None), ("d", "e")])]) == "a, b; c; d=e"


tokens = st.text("!#$%&'*+-.^_`|~059azAZ", min_size=1, max_size=5)
extensions = st.lists(
    st.tuples(tokens, st.lists(st.tuples(tokens, st.none() | tokens), max_size=4)), min_size=1, max_size=4
)


@given(extensions)
def test_extensions_that_are_written_are_read_as_they_were(value: list[Extension]) -> None:
    assert parse_extensions(format_extensions(value)) == value


@given(st.text('ab,;="\\ \té(', max_size=20))
def test_any_value_is_read_or_refused_and_what_is_read_can_be_written(value: str) -> None:
    with contextlib.suppress(HandshakeError):
        read = parse_extensions(value)
        assert parse_extensions(format_extensions(read)) == read


def test_tokens_are_read_from_all_lines() -> None:
    assert parse_tokens([], "A") == []
    assert parse_tokens(["keep-alive, Upgrade", "\tc ,"], "A") == ["keep-alive", "Upgrade", "c"]
    assert parse_tokens(["", "a"], "A") == ["a"]


@pytest.mark.parametrize("values", [[""], [",", " "], ["a b"], ["a", "("], ["a;b"], ["é"], ['"a"']])
def test_what_is_no_list_of_tokens_is_refused_with_400(values: list[str]) -> None:
    with pytest.raises(HandshakeError) as raised:
        parse_tokens(values, "Some-Header")
    assert raised.value.status == 400
    assert "the Some-Header header" in raised.value.reason


def test_a_list_may_hold_anything_but_nothing() -> None:
    assert parse_list(["a b, c/d"], "A") == ["a b", "c/d"]
    with pytest.raises(HandshakeError, match="the A header is empty, at least one element is needed"):
        parse_list([" "], "A")


def test_a_token_is_what_rfc_9110_says() -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    allowed = "!#$%&'*+-.^_`|~0123456789" + letters + letters.upper()
    assert [chr(code) for code in range(0x3000) if is_token(chr(code))] == sorted(allowed)


def test_the_empty_string_is_no_token() -> None:
    assert not is_token("")


def test_digits_of_other_scripts_are_no_token() -> None:
    assert not is_token("\u0661")
    assert not is_token("1\uff11")


def test_an_excerpt_is_short_and_escaped() -> None:
    assert excerpt("a\r\nb") == r"'a\r\nb'"
    assert excerpt("a" * 64) == repr("a" * 64)
    assert excerpt("a" * 65) == repr("a" * 64 + "...")


def lines_run(value: str) -> int:
    """How many lines of Python run while a value is parsed."""
    count = 0

    def trace(_: FrameType, event: str, __: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        parse_extensions(value)
    except HandshakeError:
        pass
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize(
    "unit",
    ["a,", "a;b,", ",", ";", "=", '"', "\\", '\\"', 'a;b="c', 'a; b="\\c",', " ", "\t,", "a;b;", "a;b=", "a;b=c;"],
)
def test_a_hostile_value_takes_linear_time(unit: str) -> None:
    # A quadratic parser would take 16 times as many steps for 4 times as many characters.
    steps, more = (lines_run("a; b=" + unit * (size // len(unit))) for size in (1000, 4000))
    assert more <= 4 * steps + 200
