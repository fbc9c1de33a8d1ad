"""RFC 9113 section 8 and RFC 8441: which header fields are a message, both ways."""

from __future__ import annotations

import pytest

from rawws.errors import Http2Error, LocalProtocolError
from rawws.protocol.hpack import Field
from rawws.protocol.http2_codes import ErrorCode
from rawws.protocol.http2_messages import (
    parse_request_fields,
    parse_response_fields,
    parse_trailers,
    request_fields,
    response_fields,
    trailer_fields,
)
from rawws.protocol.http11 import Headers, Request
from tests.protocol.http2_wire import CONNECT, REQUEST

HOSTLESS: list[Field] = [(":method", "GET"), (":scheme", "https"), (":path", "/")]


def refusal(fields: list[Field], *, offer: bool = True) -> str:
    with pytest.raises(Http2Error) as caught:
        parse_request_fields(fields, offer)
    assert caught.value.error_code == ErrorCode.PROTOCOL_ERROR
    return caught.value.reason


def with_fields(*more: Field) -> list[Field]:
    return [*REQUEST, *more]


def replaced(name: str, value: str) -> list[Field]:
    return [(key, value if key == name else old) for key, old in REQUEST]


def test_a_request_is_what_it_would_be_in_http_1_1() -> None:
    request, scheme, protocol = parse_request_fields(with_fields(("accept", "*/*"), ("x-a", "b\tc\xff")), False)
    assert (scheme, protocol) == ("https", None)
    assert request.method == "GET"
    assert request.path == "/"
    assert request.http_version == "2"
    assert list(request.headers.raw_items()) == [("accept", "*/*"), ("x-a", "b\tc\xff"), ("host", "example.com")]
    assert request.headers["Host"] == "example.com"


def test_an_extended_connect_has_a_protocol() -> None:
    request, scheme, protocol = parse_request_fields([*CONNECT, ("sec-websocket-version", "13")], True)
    assert (request.method, request.path, scheme, protocol) == ("CONNECT", "/chat", "https", "websocket")
    assert request.headers["host"] == "server.example.com"


def test_a_plain_connect_has_an_authority_alone() -> None:
    request, scheme, protocol = parse_request_fields([(":method", "CONNECT"), (":authority", "a:443")], True)
    assert (request.method, request.path, scheme, protocol) == ("CONNECT", "", "", None)
    for fields in (
        [(":method", "CONNECT"), (":authority", "a:443"), (":path", "/")],
        [(":method", "CONNECT"), (":authority", "a:443"), (":scheme", "https")],
        [(":method", "CONNECT")],
        [(":method", "CONNECT"), (":authority", "")],
    ):
        assert refusal(fields) == "a CONNECT request has :method and :authority, and no other pseudo-header field"


@pytest.mark.parametrize(
    ("fields", "offer"),
    [
        (CONNECT, False),
        ([*REQUEST, (":protocol", "websocket")], True),
        ([field for field in CONNECT if field[0] != ":authority"], True),
        ([(name, "a b" if name == ":protocol" else value) for name, value in CONNECT], True),
        ([(name, "" if name == ":protocol" else value) for name, value in CONNECT], True),
    ],
)
def test_a_protocol_that_was_not_offered_or_is_none_is_refused(fields: list[Field], offer: bool) -> None:
    assert ":protocol is " in refusal(fields, offer=offer)


@pytest.mark.parametrize("missing", [":scheme", ":path"])
def test_an_extended_connect_has_scheme_and_path(missing: str) -> None:
    assert (
        refusal([field for field in CONNECT if field[0] != missing]) == f"a request of method CONNECT has no {missing}"
    )


@pytest.mark.parametrize("missing", [":method", ":scheme", ":path"])
def test_a_request_without_a_pseudo_header_field_that_it_needs_is_refused(missing: str) -> None:
    fields = [field for field in REQUEST if field[0] != missing]
    expected = (
        "the method is '', needed is a token" if missing == ":method" else f"a request of method GET has no {missing}"
    )
    assert refusal(fields) == expected


@pytest.mark.parametrize("name", [":method", ":scheme", ":path", ":authority"])
def test_a_pseudo_header_field_that_is_there_twice_is_refused(name: str) -> None:
    assert refusal([*REQUEST, (name, dict(REQUEST)[name])]) == f"the pseudo-header field '{name}' is twice here"


@pytest.mark.parametrize("name", [":status", ":foo", ":", ":Method"])
def test_a_pseudo_header_field_that_nobody_knows_is_refused(name: str) -> None:
    assert refusal([*REQUEST, (name, "200")]) == f"the pseudo-header field '{name}' is not one here"


@pytest.mark.parametrize("before", [("accept", "*/*"), ("cookie", "a=b")])
def test_a_pseudo_header_field_behind_a_header_field_is_refused(before: Field) -> None:
    assert refusal([*REQUEST[:3], before, REQUEST[3]]) == "the pseudo-header field ':authority' follows a header field"


@pytest.mark.parametrize("method", ["", "G T", "GET\0", "G(T", "\xe9"])
def test_a_method_is_a_token(method: str) -> None:
    assert refusal(replaced(":method", method))


@pytest.mark.parametrize("scheme", ["", "1http", "ht tp", "http:", "-a"])
def test_a_scheme_is_one_of_a_uri(scheme: str) -> None:
    assert refusal(replaced(":scheme", scheme)).startswith("the scheme is")


@pytest.mark.parametrize("path", ["", "a", "*", "https://example.com/", "/a b", "/a#b", "/\x7f", "/\xe9", "?a"])
def test_a_path_is_one_that_http_1_1_has(path: str) -> None:
    assert refusal(replaced(":path", path)).startswith(("the path is", "the value of"))


def test_the_path_of_options_may_be_an_asterisk() -> None:
    fields: list[Field] = [(":method", "OPTIONS"), (":scheme", "https"), (":path", "*"), (":authority", "a")]
    assert parse_request_fields(fields, False).request.path == "*"


@pytest.mark.parametrize("authority", ["", "user@example.com", "a b", "a:x", "a:70000", "a/b", "[::1"])
def test_an_authority_is_a_host_and_maybe_a_port(authority: str) -> None:
    assert "the host is" in refusal(replaced(":authority", authority))


def test_host_and_authority_are_the_same() -> None:
    assert parse_request_fields(with_fields(("host", "EXAMPLE.com")), False).request.headers["host"] == "EXAMPLE.com"
    assert parse_request_fields([*HOSTLESS, ("host", "a")], False).request.headers["host"] == "a"
    assert "Host is 'b'" in refusal(with_fields(("host", "b")))
    assert "Host is 'a, a'" in refusal([*HOSTLESS, ("host", "a"), ("host", "a")])
    assert refusal(HOSTLESS) == "a request has neither :authority nor Host"


@pytest.mark.parametrize("name", ["", "Accept", "a b", "a\0", "a:b", "\xe9", "a\r\nb", "\x7f", "a(b"])
def test_a_name_is_a_token_in_lower_case(name: str) -> None:
    assert "the name of a header field is" in refusal(with_fields((name, "x")))


@pytest.mark.parametrize("value", ["\0", "a\rb", "a\nb", "a\x0bb", "\x7f", "a\x1b"])
def test_a_value_has_no_control_characters(value: str) -> None:
    assert "has the octet" in refusal(with_fields(("x-a", value)))
    assert "has the octet" in refusal(with_fields(("cookie", value)))


@pytest.mark.parametrize("value", [" a", "a ", "\ta", "a\t", " "])
def test_a_value_has_no_whitespace_around_it(value: str) -> None:
    assert "with whitespace around it" in refusal(with_fields(("x-a", value)))


@pytest.mark.parametrize(
    "field",
    [
        ("connection", "close"),
        ("proxy-connection", "close"),
        ("keep-alive", "timeout=5"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("te", "trailers, gzip"),
        ("te", ""),
    ],
)
def test_header_fields_of_http_1_1_connections_are_refused(field: Field) -> None:
    assert "which is one of HTTP/1.1 connections" in refusal(with_fields(field))


def test_te_may_be_trailers() -> None:
    assert parse_request_fields(with_fields(("te", "trailers")), False).request.headers["te"] == "trailers"


@pytest.mark.parametrize("value", ["", "-1", "1,1", "a", "+1", "9" * 19])
def test_a_content_length_is_one_number(value: str) -> None:
    assert "Content-Length is" in refusal(with_fields(("content-length", value)))
    assert "Content-Length is" in refusal(with_fields(("content-length", "1"), ("content-length", "1")))


def test_cookies_that_were_split_are_one() -> None:
    fields = with_fields(("cookie", "a=b"), ("x", "y"), *[("cookie", f"c{number}=d") for number in range(100)])
    cookies = parse_request_fields(fields, False).request.headers.get_all("cookie")
    assert cookies == ["; ".join(["a=b", *[f"c{number}=d" for number in range(100)]])]


def test_a_message_has_as_many_header_fields_as_in_http_1_1() -> None:
    fields = with_fields(*[("x", "y")] * 64)
    assert len(list(parse_request_fields(fields, False).request.headers.raw_items())) == 65
    assert refusal([*fields, ("cookie", "a=b")]) == "a message has over 64 header fields"


def test_a_response_has_a_status() -> None:
    assert parse_response_fields([(":status", "204"), ("server", "x")]) == (204, Headers({"server": "x"}))
    bad: list[list[Field]] = [
        [],
        [(":status", "")],
        [(":status", "20")],
        [(":status", "2000")],
        [(":status", "2 0")],
        [(":status", "099")],
        [(":status", "600")],
        [(":status", "\xb20\xb3")],
        [(":status", "200"), (":status", "200")],
        [("server", "x"), (":status", "200")],
        [(":status", "200"), (":method", "GET")],
        [(":status", "101")],
    ]
    for fields in bad:
        with pytest.raises(Http2Error) as caught:
            parse_response_fields(fields)
        assert caught.value.error_code == ErrorCode.PROTOCOL_ERROR


def test_trailers_have_no_pseudo_header_fields() -> None:
    assert parse_trailers([("x", "y")]) == Headers({"x": "y"})
    with pytest.raises(Http2Error):
        parse_trailers([(":status", "200")])
    with pytest.raises(Http2Error):
        parse_trailers([("connection", "close")])


# -- what is sent


def request(method: str = "GET", path: str = "/", **more: str) -> Request:
    return Request(method, path, Headers({"Host": "a:1", **more}))


def test_a_request_becomes_fields_in_lower_case() -> None:
    assert request_fields(request(Accept="*/*"), "https") == [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", "/"),
        (":authority", "a:1"),
        ("accept", "*/*"),
    ]
    assert request_fields(request("CONNECT"), "https") == [(":method", "CONNECT"), (":authority", "a:1")]
    assert dict(request_fields(request("CONNECT", "/x"), "https", "websocket"))[":protocol"] == "websocket"
    assert dict(request_fields(request("OPTIONS", "*"), "https"))[":path"] == "*"


def test_a_response_and_trailers_become_fields() -> None:
    assert response_fields(200, Headers({"X": "y"})) == [(":status", "200"), ("x", "y")]
    assert trailer_fields(Headers({"X": "y", "TE": "trailers"})) == [("x", "y"), ("te", "trailers")]


@pytest.mark.parametrize(
    ("bad", "protocol"),
    [
        (request("G T"), None),
        (request(path="a"), None),
        (request(path="/ a"), None),
        (request(path="/\u20ac"), None),
        (request(), "websocket"),
        (request("CONNECT"), "a b"),
        (request(Connection="close"), None),
        (request(TE="gzip"), None),
    ],
)
def test_what_is_no_request_is_not_sent(bad: Request, protocol: str | None) -> None:
    with pytest.raises(LocalProtocolError):
        request_fields(bad, "https", protocol)


@pytest.mark.parametrize("status", [0, 99, 101, 600])
def test_what_is_no_status_is_not_sent(status: int) -> None:
    with pytest.raises(LocalProtocolError):
        response_fields(status, Headers())


def test_header_fields_of_http_1_1_connections_are_not_sent() -> None:
    with pytest.raises(LocalProtocolError, match="the header transfer-encoding is one"):
        response_fields(200, Headers({"Transfer-Encoding": "chunked"}))
