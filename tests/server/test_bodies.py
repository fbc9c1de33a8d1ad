"""Bodies: octets in any pieces to the body of a message, against h11, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rawws.errors import HttpError
from rawws.protocol.bodies import LONGEST, MAX_EXCESS, MAX_LINE, Body, encode_chunk
from rawws.protocol.http11 import DEFAULT_LIMITS, Headers

CHUNKED = Headers({"Transfer-Encoding": "chunked"})


class Outcome(NamedTuple):
    """What comes of octets: the error has no body, for how much of it came before depends on the pieces."""

    body: bytes = b""
    done: bool = False
    rest: bytes = b""
    error: tuple[int, str] | None = None


def outcome(headers: Headers, pieces: Iterable[bytes], *, max_size: int | None = None, eof: bool = False) -> Outcome:
    body = b""
    try:
        decoder = Body(headers, max_size=max_size, until_eof=eof)
        for piece in pieces:
            body += decoder.receive(piece)
        if eof:
            decoder.receive_eof()
    except HttpError as error:
        return Outcome(error=(error.status, error.reason))
    return Outcome(body, decoder.done, decoder.rest)


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place for place in places if place < len(data))})
    return [data[start:end] for start, end in pairwise(edges)]


def everywhere(headers: Headers, data: bytes, *, max_size: int | None = None, eof: bool = False) -> Outcome:
    """Return the outcome that the octets have whole, in two pieces, and one by one."""
    whole = outcome(headers, [data], max_size=max_size, eof=eof)
    for pieces in (cut(data, [len(data) // 2]), cut(data, range(len(data))), [data[:-1], data[-1:]]):
        assert outcome(headers, pieces, max_size=max_size, eof=eof) == whole
    return whole


# -- with a length, and until the end


def length(value: int) -> Headers:
    return Headers({"Content-Length": str(value)})


def test_a_body_has_the_octets_that_content_length_says_and_the_rest_is_kept() -> None:
    assert everywhere(length(5), b"helloGET / HTTP/1.1") == Outcome(b"hello", done=True, rest=b"GET / HTTP/1.1")
    assert everywhere(length(5), b"hel") == Outcome(b"hel")


@pytest.mark.parametrize("headers", [length(0), Headers()])
def test_an_empty_body_is_done_at_once(headers: Headers) -> None:
    body = Body(headers, max_size=0)
    assert body.done
    assert body.receive(b"next") == b""
    assert body.receive(b" one") == b""
    assert body.rest == b"next one"
    body.receive_eof()


def test_a_response_without_a_length_goes_on_until_the_end_of_the_connection() -> None:
    body = Body(Headers(), max_size=None, until_eof=True)
    assert (body.receive(b"one"), body.receive(b" two"), body.done) == (b"one", b" two", False)
    body.receive_eof()
    assert body.done
    body.receive_eof()
    assert body.rest == b""


def test_a_length_or_chunks_count_where_the_end_of_the_connection_could() -> None:
    assert everywhere(length(3), b"abcde", eof=True) == Outcome(b"abc", done=True, rest=b"de")
    assert everywhere(CHUNKED, b"3\r\nabc\r\n0\r\n\r\nde", eof=True) == Outcome(b"abc", done=True, rest=b"de")


@pytest.mark.parametrize(
    ("headers", "data", "reason"),
    [
        (length(9), b"half", "the connection ended in the body, of 9 bytes, after 4 bytes"),
        (CHUNKED, b"", "the connection ended in the body, which is chunked, after 0 bytes"),
        (CHUNKED, b"5\r\nhal", "the connection ended in the body, which is chunked, after 3 bytes"),
        (CHUNKED, b"5\r\nhello\r\n0\r\n", "the connection ended in the body, which is chunked, after 5 bytes"),
    ],
)
def test_a_body_that_is_cut_is_an_error(headers: Headers, data: bytes, reason: str) -> None:
    assert everywhere(headers, data, eof=True).error == (400, reason)


def test_a_body_over_max_size_is_refused_when_it_is_announced() -> None:
    with pytest.raises(HttpError, match="the body is over the limit of 5 bytes") as caught:
        Body(length(6), max_size=5)
    assert caught.value.status == 413
    for chunks in (b"5\r\nhello\r\n1\r\n", b"FFFFFFFFFFFFFFFF\r\n"):
        assert everywhere(CHUNKED, chunks, max_size=5).error == (413, "the body is over the limit of 5 bytes")
    assert everywhere(CHUNKED, b"5\r\nhello\r\n0\r\n\r\n", max_size=5).body == b"hello"
    assert everywhere(Headers(), b"hello!", max_size=5, eof=True).error == (
        413,
        "the body is over the limit of 5 bytes",
    )


# -- in chunks


@pytest.mark.parametrize(
    ("data", "body", "rest"),
    [
        (b"0\r\n\r\n", b"", b""),
        (b"0000\r\n\r\n", b"", b""),
        (b"5\r\nhello\r\n0\r\n\r\nPOST /", b"hello", b"POST /"),
        (b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", b"hello world", b""),
        (b"0000000000000005\r\nhello\r\n0\r\n\r\n", b"hello", b""),
        (b"a\r\n0123456789\r\n0\r\n\r\n", b"0123456789", b""),
        (b"9\r\n\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n0\r\n\r\n", b""),
        (b"5;name\r\nhello\r\n0;last=1\r\n\r\n", b"hello", b""),
        (b'5; \ta = "b;\xe9\\"c"; d\r\nhello\r\n0\r\n\r\n', b"hello", b""),
        (b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nContent-Length: 7\r\n\r\n\r\n", b"hello", b"\r\n"),
    ],
)
def test_chunks_are_put_together(data: bytes, body: bytes, rest: bytes) -> None:
    assert everywhere(CHUNKED, data) == Outcome(body, done=True, rest=rest)


SIZES = "allowed are 1 to 16 hexadecimal digits"
# Each was taken for a size, or for the end of a line, by one server or proxy that had to be mended.
REFUSED = [
    (b"\r\n", f"the chunk size is '', {SIZES}"),
    (b";x\r\n", f"the chunk size is '', {SIZES}"),
    (b" 5\r\n", f"the chunk size is ' 5', {SIZES}"),
    (b"5 \r\n", f"the chunk size is '5 ', {SIZES}"),
    (b"5 ;x\r\n", f"the chunk size is '5 ', {SIZES}"),
    (b"5\x0c;x\r\n", f"the chunk size is '5\\x0c', {SIZES}"),
    (b"+5\r\n", f"the chunk size is '+5', {SIZES}"),
    (b"-1\r\n", f"the chunk size is '-1', {SIZES}"),
    (b"0x5\r\n", f"the chunk size is '0x5', {SIZES}"),
    (b"1_0\r\n", f"the chunk size is '1_0', {SIZES}"),
    (b"5these\r\n", f"the chunk size is '5these', {SIZES}"),
    (b"5,6\r\n", f"the chunk size is '5,6', {SIZES}"),
    (b"\xb2\r\n", f"the chunk size is '\xb2', {SIZES}"),
    (b"5\x00\r\n", f"the chunk size is '5\\x00', {SIZES}"),
    (b"10000000000000005\r\n", f"the chunk size is '10000000000000005', {SIZES}"),
    (b"5\r\r\n", f"the chunk size is '5\\r', {SIZES}"),
    (b"\r5\r\n", f"the chunk size is '\\r5', {SIZES}"),
    (b"5\n", "a chunk size line ends with a bare LF, needed is CRLF"),
    (b"5;x\nhello\r\n", "a chunk size line ends with a bare LF, needed is CRLF"),
    (b"5;\r\n", "the chunk extension is '', not a token"),
    (b"5;;\r\n", "the chunk extension is ';', not a token"),
    (b"5;=x\r\n", "the chunk extension is '=x', not a token"),
    (b"5;x\rhello\r\n", "the chunk extension is 'x\\rhello', not a token"),
    (b"5;x=\x00\r\n", "the chunk extension is 'x=\\x00', not a token"),
    (b"5;" + b"x" * MAX_LINE, f"a chunk size line is over {MAX_LINE} bytes"),
    (b"5" * (MAX_LINE + 2), f"a chunk size line is over {MAX_LINE} bytes"),
    (b"5\r\nhelloXX0\r\n\r\n", "behind the data of a chunk comes 'XX', needed is CRLF"),
    (b"5\r\nhello0\r\n\r\n", "behind the data of a chunk comes '0\\r', needed is CRLF"),
    (b"5\r\nhello\n0\r\n\r\n", "behind the data of a chunk comes '\\n', needed is CRLF"),
    (b"5\r\nhello \n0\r\n\r\n", "behind the data of a chunk comes ' \\n', needed is CRLF"),
    (b"5\r\nhello\r\n\r\n", f"the chunk size is '', {SIZES}"),
    (b"0\r\n\n", "a trailer line ends with a bare LF, needed is CRLF"),
    (b"0\r\nXX\r\n", "the header line 'XX' is not a name, a colon and a value"),
    (b"0\r\nX : y\r\n", "the header line 'X : y' is not a name, a colon and a value"),
    (b"0\r\nX: a\r\n b\r\n", "the header line ' b' is not a name, a colon and a value (line folding is not allowed)"),
    (b"0\r\nX: \x00\r\n", "the head has a line with the octet 0x00, not allowed there"),
]


@pytest.mark.parametrize(("data", "reason"), REFUSED)
def test_what_two_parsers_could_read_in_two_ways_is_refused(data: bytes, reason: str) -> None:
    assert everywhere(CHUNKED, data).error == (400, reason)


@pytest.mark.parametrize(
    ("trailers", "reason"),
    [
        (b"X: y\r\n" * (DEFAULT_LIMITS.max_headers + 1), "there are over 64 lines and 16384 bytes of trailers"),
        ((b"X: " + b"y" * 4000 + b"\r\n") * 5, "there are over 64 lines and 16384 bytes of trailers"),
        (b"X: " + b"y" * DEFAULT_LIMITS.max_line, "a trailer line is over 8192 bytes"),
    ],
)
def test_too_many_trailers_are_refused(trailers: bytes, reason: str) -> None:
    assert everywhere(CHUNKED, b"0\r\n" + trailers).error == (431, reason)


def test_trailers_up_to_the_limit_are_taken_and_dropped() -> None:
    trailers = b"X: y\r\n" * DEFAULT_LIMITS.max_headers
    assert everywhere(CHUNKED, b"0\r\n" + trailers + b"\r\n!") == Outcome(b"", done=True, rest=b"!")


def test_extensions_are_bounded_by_what_the_data_pays_for() -> None:
    chunk = b"1;" + b"x" * 1000 + b"\r\ny\r\n"
    assert everywhere(CHUNKED, chunk * 16).body == b"y" * 16
    assert everywhere(CHUNKED, chunk * 17).error == (400, f"the chunk extensions are over {MAX_EXCESS} bytes")
    paid = b"400;signature=" + b"0" * 64 + b"\r\n" + b"x" * 1024 + b"\r\n"
    assert everywhere(CHUNKED, paid * 100).body == b"x" * 102_400


@given(st.lists(st.binary(min_size=1), max_size=5))
def test_the_chunks_of_pieces_are_the_body_that_they_make(pieces: list[bytes]) -> None:
    body = Body(Headers([("Transfer-Encoding", "chunked")]), max_size=None)
    assert body.receive(b"".join(map(encode_chunk, pieces)) + b"0\r\n\r\n") == b"".join(pieces)
    assert body.done


def test_a_piece_that_goes_to_many_is_framed_once_and_a_long_one_is_not_remembered() -> None:
    piece, long = b"0123456789abcdef", bytes(LONGEST + 1)
    assert encode_chunk(piece) == b"10\r\n0123456789abcdef\r\n"
    assert encode_chunk(piece) is encode_chunk(piece)
    assert encode_chunk(long) == b"%x\r\n%b\r\n" % (len(long), long)
    assert encode_chunk(long) is not encode_chunk(long)
    assert encode_chunk(piece) is encode_chunk(piece)


def test_a_large_piece_is_handed_on_as_it_came() -> None:
    data = b"x" * 65536
    for headers, before in ((length(100_000), b""), (CHUNKED, b"186A0\r\n"), (Headers(), b"")):
        body = Body(headers, max_size=None, until_eof=True)
        assert body.receive(before) == b""
        assert body.receive(data) is data


# -- against h11


def h11_outcome(data: bytes) -> Outcome:
    """Return what h11 makes of the octets as the chunked body of a request."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
    body, done = b"", False
    try:
        while not done:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                break
            if isinstance(event, h11.Data):
                body += event.data
            done = isinstance(event, h11.EndOfMessage)
    except h11.RemoteProtocolError:
        return Outcome(error=(400, ""))
    return Outcome(body, done, connection.trailing_data[0] if done else b"")


sizes = st.one_of(
    st.integers(0, 20).map(lambda size: f"{size:x}".encode()),
    st.sampled_from([b"", b"0", b"00", b"A", b"a", b"1_0", b"+1", b"-0", b"0x1", b" 1", b"1 ", b"\t1", b"F" * 17]),
)
extensions = st.sampled_from([b"", b"", b"", b";a", b";a=b", b' ; a="b"', b";", b";a\rb", b";a\x00"])
ends = st.sampled_from([b"\r\n"] * 8 + [b"\n", b"\r", b"\r\r\n", b"", b"\n\r", b"XX"])
chunks = st.builds(
    lambda data, extension, first, last: b"%x" % len(data) + extension + first + data + last,
    st.binary(max_size=20),
    extensions,
    ends,
    ends,
)
trailers = st.sampled_from([b"", b"", b"X: y\r\n", b"X : y\r\n", b" x\r\n", b"X: y\n"])
bodies = st.one_of(
    st.binary(max_size=40),
    st.builds(
        lambda parts, size, end, trailer, last: b"".join(parts) + size + end + trailer + last,
        st.lists(chunks, max_size=4),
        sizes,
        ends,
        trailers,
        ends,
    ),
)


@given(bodies, st.lists(st.integers(0, 100)))
@example(b"5\r\nhello\r\n0\r\n\r\n", [1, 2, 3])
def test_any_split_has_the_same_outcome(data: bytes, places: list[int]) -> None:
    assert outcome(CHUNKED, cut(data, places), max_size=60) == outcome(CHUNKED, [data], max_size=60)


@given(bodies)
@example(b"5\r\nhello\r\n0\r\n\r\nnext")
def test_what_is_taken_means_the_same_to_h11(data: bytes) -> None:
    ours, theirs = outcome(CHUNKED, [data]), h11_outcome(data)
    if ours.error is None and ours.done:
        assert theirs == ours
    elif ours.error is None:
        # Both wait; h11 hands a chunk on before it is whole, as we do, and judges a line when it is whole.
        assert theirs.error is not None or (theirs.body, theirs.done) == (ours.body, False)


# Where h11 takes what we refuse: whitespace behind the size, bare LF, and what is no token in an extension.
LENIENT = re.compile(rb"[0-9A-Fa-f][ \t]+(\r?\n|;)|(?<!\r)\n|;")


@given(bodies)
def test_what_h11_takes_and_we_refuse_is_what_it_is_lenient_about(data: bytes) -> None:
    ours, theirs = outcome(CHUNKED, [data]), h11_outcome(data)
    if ours.error is not None and theirs.done:
        assert LENIENT.search(data)


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=5), st.binary(max_size=20), st.lists(st.integers(0, 800)))
def test_what_h11_sends_comes_back(parts: list[bytes], rest: bytes, places: list[int]) -> None:
    sender = h11.Connection(h11.CLIENT)
    sender.send(h11.Request(method="POST", target="/", headers=[("Host", "a"), ("Transfer-Encoding", "chunked")]))
    sent = b"".join(sender.send(h11.Data(data=part)) or b"" for part in parts)
    sent += sender.send(h11.EndOfMessage(headers=[("X-Sum", "1")])) or b""
    assert outcome(CHUNKED, cut(sent + rest, places)) == Outcome(b"".join(parts), done=True, rest=rest)


@given(st.one_of(bodies, st.binary(max_size=60)))
def test_any_octets_give_a_body_or_the_one_error(data: bytes) -> None:
    for headers in (CHUNKED, length(7), Headers()):
        came = outcome(headers, [data], max_size=40, eof=True)
        assert (came.error is None) == came.done
        assert came.error is None or came.error[0] in {400, 413, 431}
