"""Heads against two other parsers, h11 0.16.0 and httptools 0.9.0 (llhttp): what we accept, both accept, and alike.

Where we are the stricter ones, the difference stands in `STRICTER`, with its reason. Where llhttp knows less than the
RFC, it stands in `LLHTTP_KNOWS_LESS`.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import h11
import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rawws.errors import HandshakeError
from rawws.protocol.handshake import check_upgrade
from rawws.protocol.http11 import HttpResponse, Request, parse_request, parse_response
from tests.protocol.heads import judge
from tests.protocol.test_http11 import ANSWER, EXAMPLE, head


class Seen(NamedTuple):
    """A head as another parser sees it."""

    start: tuple[Any, ...]
    fields: list[tuple[str, str]]


def h11_sees(data: bytes, *, response: bool = False) -> Seen | None:
    """What h11 makes of these bytes, None if it refuses them or needs more."""
    connection = h11.Connection(h11.CLIENT if response else h11.SERVER)
    if response:
        # So that 101 is an answer that h11 understands.
        ask: Any = h11.Request(
            method="GET", target="/", headers=[("Host", "a"), ("Upgrade", "b"), ("Connection", "upgrade")]
        )
        connection.send(ask)
        connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError:
        return None
    if not isinstance(event, (h11.Request, h11.Response, h11.InformationalResponse)):
        return None
    fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers.raw_items()]
    if isinstance(event, h11.Request):
        return Seen((event.method.decode(), event.target.decode(), event.http_version.decode()), fields)
    return Seen((event.http_version.decode(), event.status_code, event.reason.decode("latin-1")), fields)


class Collector:
    """What httptools calls."""

    def __init__(self) -> None:
        self.url = b""
        self.reason = b""
        self.fields: list[tuple[str, str]] = []
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_status(self, reason: bytes) -> None:
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.decode("latin-1"), (value or b"").decode("latin-1").strip(" \t")))

    def on_headers_complete(self) -> None:
        self.complete = True


def httptools_sees(data: bytes, *, response: bool = False) -> Seen | None:
    """What llhttp makes of these bytes, None if it refuses them or needs more."""
    collector = Collector()
    parser: Any = (httptools.HttpResponseParser if response else httptools.HttpRequestParser)(collector)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        # That is how it says that a response without a header ends in an upgrade.
        if "Pause on CONNECT/Upgrade" not in str(error):
            return None
    if not collector.complete:
        return None
    version = parser.get_http_version()
    if response:
        return Seen((version, parser.get_status_code(), collector.reason.decode("latin-1")), collector.fields)
    return Seen((parser.get_method().decode(), collector.url.decode(), version), collector.fields)


def we_see(data: bytes, *, response: bool = False) -> tuple[Request | HttpResponse, bytes] | None:
    """What we make of these bytes, and those that are the head; None if we refuse them or need more."""
    result = judge([data], response=response)
    if result is None or not isinstance(result[0], (Request, HttpResponse)):
        return None
    assert isinstance(result[1], bytes)
    return result[0], data.removesuffix(result[1])


def lower(fields: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name.lower(), value) for name, value in fields]


# Methods that the RFC allows and llhttp has not in its table; we accept them as plain HTTP and never upgrade them.
LLHTTP_KNOWS_LESS = [b"BREW", b"get", b"X", b"!#$%&'*+-.^_`|~1"]

# (the head, whether it is a response, who accepts it, why we do not)
STRICTER: list[tuple[bytes, bool, str, str]] = [
    (
        b"GET / HTTP/1.1\nHost: a\n\n",
        False,
        "h11",
        "RFC 9112 2.2 lets a recipient take a bare LF; smuggling lives on it",
    ),
    (b"GET / HTTP/1.1\r\nHost: a\n\r\n", False, "h11", "the same, in the middle of a head"),
    (b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", False, "httptools", "no empty line is due before a first request"),
    (head(b"X: a\r\n b"), False, "h11", "obs-fold: RFC 9112 5.2 lets us refuse it or put a space there"),
    (head(b"X: a\x01b"), False, "h11", "RFC 9110 5.5: control characters are invalid"),
    (head(b"X: a\x7fb"), False, "h11", "the same"),
    (head(host=b""), False, "httptools", "RFC 9112 3.2 wants 400; llhttp leaves it to its user"),
    (head(b"Host: a"), False, "httptools", "the same"),
    (head(host=b"Host:"), False, "h11 httptools", "RFC 9110 4.2.1: an empty host is invalid in http and https"),
    (head(host=b"Host: a b"), False, "h11 httptools", "RFC 9112 3.2: 400 to an invalid Host; both leave it to users"),
    (head(host=b"Host: a%00"), False, "h11 httptools", "no `%`: who decodes it where is not agreed upon"),
    (head(host=b"Host: a:65536"), False, "h11 httptools", "there is no such port"),
    (head(line=b"GET /#a HTTP/1.1"), False, "h11 httptools", "RFC 9112 3.2: a fragment is no part of a request target"),
    (head(line=b"GET a HTTP/1.1"), False, "h11", "RFC 9112 3.2: none of the four forms"),
    (head(line=b"GET * HTTP/1.1"), False, "h11 httptools", "RFC 9112 3.2.4: only OPTIONS has it"),
    (head(line=b"GET ftp://a/ HTTP/1.1"), False, "h11 httptools", "a scheme that is not ours"),
    (head(line=b"GET http://b@c/ HTTP/1.1"), False, "h11 httptools", "RFC 9110 4.2.4: userinfo hides the authority"),
    (head(line=b"CONNECT a:80 HTTP/1.1"), False, "h11 httptools", "we are no proxy"),
    (head(line=b"GET / HTTP/0.9"), False, "h11 httptools", "an HTTP that has no headers"),
    (head(line=b"GET / HTTP/1.9"), False, "h11", "HTTP/1.1 and 1.0 are all there is"),
    (
        head(b"Content-Length: 1, 1"),
        False,
        "h11",
        "RFC 9110 8.6 lets us refuse a repeated length, even one that agrees",
    ),
    (head(b"Content-Length: 1", b"Content-Length: 1"), False, "h11", "the same"),
    (
        head(b"Content-Length: 1", b"Transfer-Encoding: chunked"),
        False,
        "h11",
        "RFC 9112 6.1 lets us; smuggling's classic",
    ),
    (head(b"Content-Length: 9999999999999999999"), False, "h11 httptools", "over 18 digits is nobody's body"),
    (
        head(b"Transfer-Encoding: chunked", line=b"GET / HTTP/1.0"),
        False,
        "h11 httptools",
        "RFC 9112 6.1: faulty framing",
    ),
    (head(b"Transfer-Encoding: gzip, chunked"), False, "httptools", "RFC 9112 6.1: 501 for a coding not understood"),
    (head(*[b"X: a"] * 64), False, "h11 httptools", "our limit of 64 headers"),
    (head(line=b"GET /" + b"a" * 9000 + b" HTTP/1.1"), False, "h11 httptools", "our limit of 8 KiB a line"),
    (b"HTTP/1.1 101 a\nA: b\n\n", True, "h11", "a bare LF"),
    (b"HTTP/1.1 200 a\r\nA: b\r\n c\r\n\r\n", True, "h11", "obs-fold"),
    (b"HTTP/1.1 200 a\r\nA: b\x01\r\n\r\n", True, "h11", "a control character"),
    (b"HTTP/1.1 200 a\r\nTransfer-Encoding: gzip\r\n\r\n", True, "httptools", "no coding but chunked is understood"),
    (b"HTTP/1.1 999 a\r\n\r\n", True, "h11 httptools", "RFC 9110 15: 600 and above are invalid"),
]


@pytest.mark.parametrize(("data", "response", "by", "why"), STRICTER)
def test_the_list_of_where_we_are_stricter_is_true(data: bytes, response: bool, by: str, why: str) -> None:
    assert why
    assert we_see(data, response=response) is None
    accepted = {
        "h11": h11_sees(data, response=response) is not None,
        "httptools": httptools_sees(data, response=response) is not None,
    }
    assert " ".join(name for name, accepts in accepted.items() if accepts) == by


@pytest.mark.parametrize("method", LLHTTP_KNOWS_LESS)
def test_a_method_that_llhttp_does_not_know_is_plain_http(method: bytes) -> None:
    data = EXAMPLE.replace(b"GET", method)
    assert httptools_sees(data) is None
    assert h11_sees(data) is not None
    with pytest.raises(HandshakeError) as raised:
        check_upgrade(parse_request(data))
    assert raised.value.status == 405


def test_all_three_read_the_rfcs_examples_alike() -> None:
    compare(EXAMPLE, response=False)
    compare(ANSWER, response=True)
    assert we_see(EXAMPLE)
    assert we_see(ANSWER, response=True)


# What llhttp refuses in a request, for a tab is a part of the coding to it; to RFC 9112 5.1 it is none of the value.
TAB = re.compile(rb"(?i)\r\ntransfer-encoding:[^\r\n]*\t *\r\n")


def compare(data: bytes, *, response: bool) -> None:
    """What we accept, the others accept and read alike."""
    ours = we_see(data, response=response)
    if ours is None:
        return
    seen, data = ours
    if isinstance(seen, Request):
        known = seen.method in {"GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE"} and not TAB.search(data)
        start: tuple[Any, ...] = (seen.method, seen.path, seen.http_version)
    else:
        known = True
        start = (seen.http_version, seen.status, seen.reason_phrase)
    fields = lower(list(seen.headers.raw_items()))
    others = [h11_sees(data, response=response)]
    if known:
        others.append(httptools_sees(data, response=response))
    for other in others:
        assert other is not None, "accepted by us alone"
        if isinstance(seen, Request) and not other.start[1].startswith(("/", "*")):
            # An absolute-form target: we took it apart.
            assert other.start[1].endswith(seen.path) or seen.path[:2] in {"/", "/?"}
            assert {name for name, _ in fields} - {"host"} == {name for name, _ in lower(other.fields)} - {"host"}
            continue
        assert other.start == start
        assert lower(other.fields) == fields


OCTETS = st.sampled_from([bytes([octet]) for octet in b"\0\t\n\x0b\r !#%,-./0:;=@[]aA\x7f\x80\xa0\xff"])
FRAGMENTS = OCTETS | st.sampled_from(
    [
        *(
            b"\r\n",
            b"\r\n\r\n",
            b"\r\n ",
            b" HTTP/1.1",
            b"HTTP/1.0",
            b"GET ",
            b"POST ",
            b"http://b",
            b"https://b:8/c",
            b"*",
        ),
        *(b"Host: b\r\n", b"Content-Length: 1\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n"),
        *(
            b"Transfer-Encoding: identity\r\n",
            b"Upgrade: h2c\r\n",
            b"Connection: close\r\n",
            b"Expect: 100-continue\r\n",
        ),
        *(
            b"X: y\r\n",
            b"X : y\r\n",
            b": y\r\n",
            b"X:\r\n",
            b"X\r\n",
            b"\xc2\xa0",
            b"\xd9\xa1",
            b"chunked",
            b"101",
            b"204",
        ),
    ]
)
EDITS = st.lists(st.tuples(st.integers(0, 260), st.integers(0, 6), FRAGMENTS), min_size=1, max_size=4)


def edited(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    """The data with some pieces replaced by others."""
    for at, length, piece in edits:
        data = data[:at] + piece + data[at + length :]
    return data


@given(EDITS, st.booleans())
@example([(0, 0, b"\r\n")], False)
@example([(21, 0, b"Transfer-Encoding: identity\r\n")], False)
def test_a_request_that_we_accept_is_accepted_and_read_alike_by_both(
    edits: list[tuple[int, int, bytes]], short: bool
) -> None:
    data = edited(head(b"A: b", b"C: d") if short else EXAMPLE, edits)
    compare(data, response=False)


@given(EDITS, st.booleans())
def test_a_response_that_we_accept_is_accepted_and_read_alike_by_both(
    edits: list[tuple[int, int, bytes]], short: bool
) -> None:
    data = edited(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n" if short else ANSWER, edits)
    compare(data, response=True)


@given(EDITS)
def test_we_never_upgrade_what_one_of_them_refuses(edits: list[tuple[int, int, bytes]]) -> None:
    data = edited(EXAMPLE, edits)
    ours = we_see(data)
    if ours is None:
        return
    seen, data = ours
    assert isinstance(seen, Request)
    try:
        check_upgrade(seen)
    except HandshakeError:
        return
    assert h11_sees(data) is not None
    assert httptools_sees(data) is not None


@given(st.binary(max_size=80))
def test_hostile_bytes_that_we_accept_are_accepted_by_both(data: bytes) -> None:
    compare(b"GET / HTTP/1.1\r\nHost: a\r\n" + data + b"\r\n\r\n", response=False)
    compare(b"HTTP/1.1 200 OK\r\n" + data + b"\r\n\r\n", response=True)


def test_parsers_agree_on_what_is_behind_the_head() -> None:
    parser: Any = httptools.HttpRequestParser(Collector())
    with pytest.raises(httptools.HttpParserUpgrade) as raised:
        parser.feed_data(EXAMPLE + b"\x81\x00")
    ours = judge([EXAMPLE + b"\x81\x00"])
    assert ours is not None
    assert ours[1] == b"\x81\x00" == (EXAMPLE + b"\x81\x00")[raised.value.args[0] :]
    assert parse_response(ANSWER).status == 101
