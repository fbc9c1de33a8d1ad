"""The opening handshake: RFC 6455 sections 4.1 and 4.2, each refusal with its status, on both sides."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rawws.errors import HandshakeError, LocalProtocolError, NegotiationError
from rawws.protocol.deflate import Compression, DeflateParameters
from rawws.protocol.extensions import Extension
from rawws.protocol.handshake import (
    Acceptance,
    Origins,
    accept,
    accept_key,
    build_connect,
    build_request,
    check_connect,
    check_connected,
    check_origin,
    check_response,
    check_upgrade,
    make_key,
    refusal,
)
from rawws.protocol.http11 import (
    Headers,
    HttpResponse,
    Request,
    parse_request,
    parse_response,
    serialize_fields,
    serialize_request,
    serialize_response,
)
from tests.protocol import heads
from tests.protocol.test_http11 import ANSWER, EXAMPLE

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
GOOD = {
    "Host": "a",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}
UPGRADE = (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"))


AGREED = DeflateParameters()


class Fake(Compression):
    """An extension of another name, which answers the first offer of it, on both sides."""

    __slots__ = ()

    def accept(self, offers: list[Extension], /) -> tuple[Extension, DeflateParameters] | None:
        for name, parameters in offers:
            if name == "fake":
                return ("fake", parameters), AGREED
        return None

    def offers(self) -> list[Extension]:
        return [("fake", [("p", None)])]

    def confirm(self, answer: list[Extension], /) -> DeflateParameters | None:
        if not answer:
            return None
        if answer != [("fake", [("p", None)])]:
            raise HandshakeError(0, f"the answer is {answer}, needed is fake; p")
        return AGREED


def ask(*more: tuple[str, str], method: str = "GET", version: str = "1.1", **changed: str | None) -> Request:
    """A good request, with headers changed or left out, and more of them."""
    named = {name.replace("_", "-"): value for name, value in changed.items()}
    fields = [(name, named.get(name, value)) for name, value in GOOD.items()]
    return Request(method, "/", Headers([(n, v) for n, v in fields if v is not None] + list(more)), version)


def answer(*more: tuple[str, str], status: int = 101, version: str = "1.1", **changed: str | None) -> HttpResponse:
    named = {name.replace("_", "-"): value for name, value in changed.items()}
    good = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": ACCEPT}
    fields = [(name, named.get(name, value)) for name, value in good.items()]
    return HttpResponse(status, Headers([(n, v) for n, v in fields if v is not None] + list(more)), b"", "a", version)


def refused(request: Request) -> tuple[int, str, tuple[tuple[str, str], ...]]:
    with pytest.raises(HandshakeError) as raised:
        check_upgrade(request)
    return raised.value.status, raised.value.reason, raised.value.headers


# -- the server: what is a handshake


def test_the_rfcs_example_handshake_is_answered_verbatim() -> None:
    request = heads.request(EXAMPLE)
    key = check_upgrade(request)
    assert check_origin(request, ["http://example.com"], "http", "server.example.com") == "http://example.com"
    assert accept(request, key, subprotocols=["chat"]).serialize() == ANSWER


def test_the_rfcs_example_of_a_key_is_a_good_one() -> None:
    # RFC 6455 section 4.1: its last character has bits that a strict base64 decoder would refuse.
    assert check_upgrade(ask(Sec_WebSocket_Key="AQIDBAUGBwgJCgsMDQ4PEC==")) == "AQIDBAUGBwgJCgsMDQ4PEC=="


@pytest.mark.parametrize(
    "request_",
    [
        ask(Upgrade="WebSocket", Connection="upgrade"),
        ask(Connection="keep-alive, Upgrade"),
        ask(("Connection", "keep-alive")),
        ask(Connection=", Upgrade,"),
        ask(Upgrade="h2c, websocket"),
        ask(Upgrade="IRC/6.9, websocket"),
        ask(("Upgrade", "h2c")),
        ask(("Content-Length", "0")),
    ],
)
def test_a_handshake_in_other_words_is_accepted(request_: Request) -> None:
    assert check_upgrade(request_) == KEY


@pytest.mark.parametrize(
    ("request_", "status", "reason", "headers"),
    [
        (ask(method="POST"), 405, "the method is 'POST', allowed is GET", (("Allow", "GET"),)),
        (ask(method="get"), 405, "the method is 'get', allowed is GET", (("Allow", "GET"),)),
        (ask(version="1.0"), 426, "the request is in HTTP/1.0, needed is HTTP/1.1", UPGRADE),
        (ask(Upgrade=None), 426, "Upgrade is absent, needed is 'websocket'", UPGRADE),
        (ask(Upgrade="h2c"), 426, "Upgrade is 'h2c', needed is 'websocket'", UPGRADE),
        (ask(Upgrade="websocket/13"), 426, "Upgrade is 'websocket/13', needed is 'websocket'", UPGRADE),
        (ask(Upgrade="web socket"), 400, "'web socket' in the Upgrade header is not a token", ()),
        (ask(Upgrade="websocket, a/b(c"), 400, "'a/b(c' in the Upgrade header is not a token", ()),
        (ask(Upgrade=""), 400, "the Upgrade header is empty, at least one element is needed", ()),
        (ask(Connection=None), 400, "Connection is absent, needed is 'Upgrade'", ()),
        (ask(Connection="close"), 400, "Connection is 'close', needed is 'Upgrade'", ()),
        (ask(Connection="Upgrade;a"), 400, "'Upgrade;a' in the Connection header is not a token", ()),
        (ask(Connection=""), 400, "the Connection header is empty, at least one element is needed", ()),
        (ask(Sec_WebSocket_Version=None), 426, "Sec-WebSocket-Version is absent, understood is 13", UPGRADE),
        (ask(Sec_WebSocket_Version="8"), 426, "Sec-WebSocket-Version is '8', understood is 13", UPGRADE),
        (ask(Sec_WebSocket_Version="013"), 426, "Sec-WebSocket-Version is '013', understood is 13", UPGRADE),
        (ask(Sec_WebSocket_Version="13, 8"), 426, "Sec-WebSocket-Version is '13, 8', understood is 13", UPGRADE),
        (ask(("Sec-WebSocket-Version", "13")), 426, "Sec-WebSocket-Version is '13, 13', understood is 13", UPGRADE),
        (
            ask(("Content-Length", "1")),
            400,
            "the request announces a body, none is allowed in a WebSocket handshake",
            (),
        ),
        (
            ask(("Transfer-Encoding", "chunked")),
            400,
            "the request announces a body, none is allowed in a WebSocket handshake",
            (),
        ),
        (
            ask(("Expect", "100-continue")),
            417,
            "the request has an Expect header, none is allowed in a WebSocket handshake",
            (),
        ),
        (
            ask(Sec_WebSocket_Key=None),
            400,
            "there are 0 Sec-WebSocket-Key headers, exactly one is needed",
            (),
        ),
        (ask(("sec-websocket-key", KEY)), 400, "there are 2 Sec-WebSocket-Key headers, exactly one is needed", ()),
    ],
)
def test_each_fault_of_a_request_has_its_status_and_its_reason(
    request_: Request, status: int, reason: str, headers: tuple[tuple[str, str], ...]
) -> None:
    assert refused(request_) == (status, reason, headers)
    sent, _, body = serialize_response(refusal(HandshakeError(status, reason, headers))).partition(b"\r\n\r\n")
    assert (parse_response(sent + b"\r\n\r\n").status, body) == (status, f"{reason}\n".encode())


@pytest.mark.parametrize(
    "key",
    [
        *("", "a", KEY[:-1], KEY + "=", KEY[:-4], KEY[:22] + "AA", KEY[:21] + "===", "=" * 24, KEY + "," + KEY),
        *(b64encode(b"a" * 15).decode(), b64encode(b"a" * 17).decode(), "-" + KEY[1:], "_" + KEY[1:], "=" + KEY[1:]),
        *(KEY[:11] + " " + KEY[12:], KEY[:11] + "\xb2" + KEY[12:], "\xe9" + KEY[1:], KEY[:22] + "=A"),
    ],
)
def test_a_key_that_is_not_16_bytes_in_base64_is_refused(key: str) -> None:
    status, reason, _ = refused(ask(Sec_WebSocket_Key=key))
    assert (status, "16 bytes in base64 are needed" in reason) == (400, True)


def test_an_extended_connect_has_the_version_and_nothing_of_the_connection() -> None:
    check_connect(ask(method="CONNECT", Upgrade=None, Connection=None, Sec_WebSocket_Key=None))
    with pytest.raises(HandshakeError, match="understood is 13") as raised:
        check_connect(ask(method="CONNECT", Sec_WebSocket_Version="8"))
    assert raised.value.status == 426


@given(st.binary(min_size=16, max_size=16))
def test_every_key_of_16_bytes_is_accepted(nonce: bytes) -> None:
    key = make_key(lambda _: nonce)
    assert check_upgrade(ask(Sec_WebSocket_Key=key)) == key


# -- the server: origins

SOME: Origins = ["https://a.example", re.compile(r"https://[a-z]+\.b\.example"), "NULL"]


@pytest.mark.parametrize(
    ("origin", "origins", "scheme", "host", "allowed"),
    [
        # The same origin: scheme, host and port, without regard to case and to a default port.
        ("http://a", None, "http", "a", True),
        ("http://A", None, "http", "a", True),
        ("http://a", None, "http", "A", True),
        ("http://a", None, "http", "a:80", True),
        ("http://a:80", None, "http", "a", True),
        ("https://a", None, "https", "a:443", True),
        ("http://a:443", None, "http", "a:443", True),
        ("https://a:80", None, "https", "a:80", True),
        ("http://[::1]:8000", None, "http", "[::1]:8000", True),
        (None, None, "http", "a", True),
        # Programs that write an Origin write the URI that they connect to.
        ("ws://a", None, "http", "a", True),
        ("WS://a:80", None, "http", "a", True),
        ("wss://a", None, "https", "a:443", True),
        ("wss://a", None, "http", "a", False),
        ("ws://a", None, "https", "a", False),
        ("ws://b", None, "http", "a", False),
        ("wsx://a", None, "http", "a", False),
        ("https://a", None, "http", "a", False),
        ("http://a", None, "https", "a", False),
        ("http://a", None, "http", "a:443", False),
        ("https://a", None, "https", "a:80", False),
        ("http://a:81", None, "http", "a", False),
        ("http://b", None, "http", "a", False),
        ("http://b.a", None, "http", "a", False),
        ("http://a.b", None, "http", "a", False),
        ("http://a/", None, "http", "a", False),
        ("http://a, http://b", None, "http", "a", False),
        ("null", None, "http", "a", False),
        ("", None, "http", "a", False),
        ("http://", None, "http", "a", False),
        ("a", None, "http", "a", False),
        # A list: as in websockets.
        ("https://a.example", SOME, "http", "x", True),
        ("HTTPS://A.example", SOME, "http", "x", True),
        ("https://c.b.example", SOME, "http", "x", True),
        ("https://C.B.example", SOME, "http", "x", True),
        ("null", SOME, "http", "x", True),
        ("https://c.b.example.evil", SOME, "http", "x", False),
        ("evil https://c.b.example", SOME, "http", "x", False),
        ("https://a.example.evil", SOME, "http", "x", False),
        ("http://x", SOME, "http", "x", False),
        (None, SOME, "http", "x", False),
        (None, [None], "http", "x", True),
        (None, [re.compile(".*")], "http", "x", False),
        ("", [None], "http", "x", False),
        ("http://x", [None], "http", "x", False),
        ("http://x", [], "http", "x", False),
        (None, [], "http", "x", False),
        # One string is one origin, and never a list of characters.
        ("https://a.example", "https://a.example", "http", "x", True),
        ("h", "https://a.example", "http", "x", False),
        ("", "", "http", "x", True),
        # All.
        ("https://evil.example", "*", "http", "x", True),
        ("https://evil.example", ["*"], "http", "x", True),
        ("null", "*", "http", "x", True),
        (None, "*", "http", "x", True),
    ],
)
def test_an_origin_is_allowed_or_refused_with_403(
    origin: str | None, origins: Origins, scheme: str, host: str, allowed: bool
) -> None:
    request = ask(*([] if origin is None else [("Origin", origin)]))
    if allowed:
        assert check_origin(request, origins, scheme, host) == origin
    else:
        with pytest.raises(HandshakeError) as raised:
            check_origin(request, origins, scheme, host)
        came = "absent" if origin is None else repr(origin)
        assert raised.value.status == 403
        assert raised.value.reason.startswith(f"Origin is {came}, allowed ")


@pytest.mark.parametrize(
    ("origins", "allowed"),
    [
        (None, "is 'https://chat.example:81', by the scheme and the Host of the request"),
        ([], "are no others"),
        ("https://a.example", "are 'https://a.example'"),
        (["https://a.example", None], "are 'https://a.example', none"),
        ([re.compile("https://.*")], "are 'https://.*'"),
        ([f"https://{number}.example" for number in range(7)],
         f"are {', '.join(repr(f'https://{number}.example') for number in range(5))} and 2 more"),
    ],
)  # fmt: skip
def test_the_refusal_of_an_origin_says_what_it_was_compared_with(origins: Origins, allowed: str) -> None:
    with pytest.raises(HandshakeError) as raised:
        check_origin(ask(("Origin", "http://evil")), origins, "https", "Chat.example:81")
    assert raised.value.reason == f"Origin is 'http://evil', allowed {allowed}"


SITE = "Sec-Fetch-Site"


@pytest.mark.parametrize(
    ("fields", "origins", "allowed"),
    [
        # Without an Origin, that of another page is "null": nobody knows which.
        ([(SITE, "cross-site")], None, False),
        ([(SITE, "same-site")], None, False),
        ([(SITE, "cross-site")], [None], False),
        ([(SITE, "cross-site")], ["null"], True),
        ([(SITE, "cross-site")], "*", True),
        # The own page, the user, what is no browser, and what means nothing.
        ([(SITE, "same-origin")], None, True),
        ([(SITE, "none")], None, True),
        ([(SITE, "wonders")], None, True),
        ([(SITE, "cross-site"), (SITE, "same-origin")], None, True),
        # An Origin says more.
        ([(SITE, "cross-site"), ("Origin", "http://a")], None, True),
        ([(SITE, "cross-site"), ("Origin", "http://a")], ["http://a"], True),
        ([(SITE, "same-origin"), ("Origin", "http://b")], None, False),
    ],
)
def test_a_page_of_another_origin_is_told_by_sec_fetch_site_where_its_origin_is_missing(
    fields: list[tuple[str, str]], origins: Origins, allowed: bool
) -> None:
    request = ask(*fields)
    if allowed:
        assert check_origin(request, origins, "http", "a") == request.headers.get("Origin")
    else:
        with pytest.raises(HandshakeError) as raised:
            check_origin(request, origins, "http", "a")
        assert raised.value.status == 403
        if "Origin" not in request.headers:
            assert raised.value.reason.startswith(f"Origin is absent and Sec-Fetch-Site {fields[0][1]!r}, allowed ")


def test_two_origins_are_refused_with_400() -> None:
    with pytest.raises(HandshakeError) as raised:
        check_origin(ask(("Origin", "http://a"), ("Origin", "http://a")), "*", "http", "a")
    assert raised.value.status == 400


# -- the server: the agreement


def negotiate(
    *more: tuple[str, str], subprotocols: Sequence[str] | None = None, compression: Fake | None = None
) -> Acceptance:
    return accept(ask(*more), KEY, subprotocols=subprotocols, compression=compression)


PROTOCOL, EXTENSIONS = "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"


def test_the_first_of_the_servers_subprotocols_that_is_offered_is_chosen() -> None:
    assert negotiate((PROTOCOL, "a, b"), (PROTOCOL, "c"), subprotocols=["d", "c", "a"]).subprotocol == "c"


def test_a_server_without_subprotocols_chooses_none() -> None:
    none: list[str] = []
    for supported in (None, none):
        accepted = negotiate((PROTOCOL, "a"), subprotocols=supported)
        assert accepted.subprotocol is None
        assert PROTOCOL not in accepted.response().headers


@pytest.mark.parametrize(("offers", "came"), [([], "[]"), ([(PROTOCOL, "c, A")], "['c', 'A']")])
def test_a_server_with_subprotocols_refuses_a_client_that_offers_none_of_them(
    offers: list[tuple[str, str]], came: str
) -> None:
    with pytest.raises(HandshakeError) as raised:
        negotiate(*offers, subprotocols=["a", "b"])
    assert raised.value.status == 400
    assert raised.value.reason == f"the subprotocols offered are {came}, known are a, b"


@pytest.mark.parametrize("offer", ["", ",", "a b", "a, a", "a;b", '"a"', "\xe9", "a, b, a"])
def test_a_malformed_offer_of_subprotocols_is_refused_with_400(offer: str) -> None:
    with pytest.raises(HandshakeError) as raised:
        negotiate((PROTOCOL, offer))
    assert raised.value.status == 400
    assert re.search(r"\bSec-WebSocket-Protocol\b", raised.value.reason)


def test_a_subprotocol_that_is_offered_in_two_lines_is_refused() -> None:
    with pytest.raises(HandshakeError, match="is 'a, a', each is allowed once"):
        negotiate((PROTOCOL, "a"), (PROTOCOL, "a"))


def test_select_subprotocol_decides() -> None:
    asked: list[list[str]] = []

    def select(offered: list[str]) -> str | None:
        asked.append(offered)
        return offered[-1] if offered else None

    chosen: Acceptance = accept(ask((PROTOCOL, "a, b")), KEY, subprotocols=["a"], select_subprotocol=select)
    assert chosen.subprotocol == "b"
    assert accept(ask(), KEY, subprotocols=["a"], select_subprotocol=select).subprotocol is None
    assert asked == [["a", "b"], []]


@pytest.mark.parametrize("chosen", ["c", "", "a, b", "A", "a\r\nX: y", 1])
def test_select_subprotocol_cannot_choose_what_was_not_offered(chosen: str) -> None:
    def select(_: list[str]) -> str | None:
        return chosen

    with pytest.raises(LocalProtocolError, match="select_subprotocol returned"):
        accept(ask((PROTOCOL, "a, b")), KEY, select_subprotocol=select)


def test_an_extension_is_accepted_and_others_are_ignored() -> None:
    accepted = negotiate((EXTENSIONS, "other; x=1"), (EXTENSIONS, "fake; p, fake"), compression=Fake())
    assert accepted.parameters == AGREED
    assert accepted.response().headers.get_all(EXTENSIONS) == ["fake; p"]


@pytest.mark.parametrize("offers", [[], [(EXTENSIONS, "other")]])
def test_without_an_acceptable_offer_there_is_no_extension(offers: list[tuple[str, str]]) -> None:
    for compression in (Fake(), None):
        accepted = negotiate(*offers, compression=compression)
        assert accepted.parameters is None
        assert EXTENSIONS not in accepted.response().headers


def test_a_server_without_extensions_ignores_offers() -> None:
    assert negotiate((EXTENSIONS, "fake; p")).parameters is None


def test_a_malformed_offer_of_extensions_is_refused_by_every_server() -> None:
    for compression in (Fake(), None):
        with pytest.raises(HandshakeError) as raised:
            negotiate((EXTENSIONS, "fake;"), compression=compression)
        assert raised.value.status == 400


def test_the_answer_says_what_was_agreed_on() -> None:
    accepted = negotiate((PROTOCOL, "b"), (EXTENSIONS, "fake; p=1"), subprotocols=["b"], compression=Fake())
    expected = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: b\r\n"
        b"Sec-WebSocket-Extensions: fake; p=1\r\n"
    )
    assert accepted.serialize() == expected + b"\r\n"
    assert accepted.serialize(serialize_fields([("Server", "s")])) == expected + b"Server: s\r\n\r\n"


def test_a_hook_may_add_headers_to_the_response() -> None:
    accepted = negotiate()
    response = accepted.response()
    assert serialize_response(response) == accepted.serialize()
    response.headers["Set-Cookie"] = "a=b"
    assert serialize_response(response) == accepted.serialize(b"Set-Cookie: a=b\r\n")
    with pytest.raises(LocalProtocolError):
        response.headers["X"] = "a\r\nb"


def test_deflate_is_negotiated() -> None:
    offer = "permessage-deflate; client_max_window_bits"
    accepted = accept(ask((EXTENSIONS, offer)), KEY, compression=Compression())
    assert isinstance(accepted.parameters, DeflateParameters)
    assert accepted.response().headers[EXTENSIONS].startswith("permessage-deflate")


def test_the_rfcs_example_key_has_the_rfcs_accept() -> None:
    assert accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


# -- the server: refusals


def test_a_refusal_says_why_and_closes() -> None:
    assert serialize_response(refusal(HandshakeError(403, "Origin is 'é', which is not allowed"))) == (
        b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"X-Content-Type-Options: nosniff\r\nContent-Length: 37\r\n\r\nOrigin is '\xc3\xa9', which is not allowed\n"
    )


def test_a_426_says_what_is_spoken() -> None:
    with pytest.raises(HandshakeError) as raised:
        check_upgrade(ask(Upgrade=None))
    headers = refusal(raised.value).headers
    assert headers["Upgrade"] == "websocket"
    assert headers["Connection"] == "Upgrade, close"
    assert headers["Sec-WebSocket-Version"] == "13"


def test_a_405_says_what_is_allowed() -> None:
    with pytest.raises(HandshakeError) as raised:
        check_upgrade(ask(method="HEAD"))
    assert refusal(raised.value).headers["Allow"] == "GET"


@given(st.text(max_size=30).map(lambda text: text.encode("latin-1", "replace").decode("latin-1")))
def test_no_refusal_fails_to_be_sent(value: str) -> None:
    try:
        request = parse_request(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: " + value.encode("latin-1") + b"\r\n\r\n")
        check_upgrade(request)
    except HandshakeError as error:
        sent = serialize_response(refusal(error))
        assert sent.count(b"\r\n\r\n") == 1
        assert sent.endswith(b"\n")
        assert b"\n" not in sent.partition(b"\r\n\r\n")[2][:-1]


# -- the client


def test_a_request_is_built() -> None:
    request = build_request(
        "a:8000",
        "/b?c",
        KEY,
        origin="http://d",
        subprotocols=["e", "f"],
        compression=Fake(),
        headers=[("Authorization", "g"), ("Cookie", "h=i")],
    )
    assert serialize_request(request) == (
        b"GET /b?c HTTP/1.1\r\nHost: a:8000\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nOrigin: http://d\r\n"
        b"Sec-WebSocket-Protocol: e, f\r\nSec-WebSocket-Extensions: fake; p\r\nAuthorization: g\r\nCookie: h=i\r\n\r\n"
    )


def test_a_request_asks_for_no_more_than_it_must() -> None:
    request = build_request("a", "/", KEY)
    assert dict(request.headers.raw_items()) == GOOD
    assert check_upgrade(request) == KEY


@pytest.mark.parametrize(
    "name",
    [
        *("Host", "upgrade", "Connection", "Origin", "Sec-WebSocket-Key", "sec-websocket-accept", "Content-Length"),
        *("Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol", "Transfer-Encoding", "Expect", "SEC-WEBSOCKET-VERSION"),
    ],
)
def test_the_headers_of_the_handshake_cannot_be_added(name: str) -> None:
    with pytest.raises(LocalProtocolError, match="it is the handshake's own"):
        build_request("a", "/", KEY, headers=[(name, "b")])


def test_what_would_break_out_of_the_request_is_not_sent() -> None:
    for fields in ([("A", "b\r\nC: d")], [("A\r\nB", "c")], [("A", "\u20ac")]):
        with pytest.raises(LocalProtocolError):
            build_request("a", "/", KEY, headers=fields)
    with pytest.raises(LocalProtocolError):
        build_request("a\r\nB: c", "/", KEY)
    with pytest.raises(LocalProtocolError):
        build_request("a", "/", KEY, origin="b\nc")
    with pytest.raises(LocalProtocolError):
        serialize_request(build_request("a", "/ HTTP/1.1\r\nA: b", KEY))


@pytest.mark.parametrize("subprotocols", [["a b"], [""], ["a", "a"], ["a,b"], ["\xe9"]])
def test_subprotocols_that_are_not_different_tokens_are_not_offered(subprotocols: list[str]) -> None:
    with pytest.raises(LocalProtocolError, match="different tokens are needed"):
        build_request("a", "/", KEY, subprotocols=subprotocols)


def test_a_key_is_16_random_bytes() -> None:
    asked: list[int] = []

    def source(count: int) -> bytes:
        asked.append(count)
        return bytes(range(count))

    assert make_key(source) == "AAECAwQFBgcICQoLDA0ODw=="
    assert asked == [16]
    assert make_key() != make_key()


def test_the_rfcs_example_response_is_accepted() -> None:
    response = heads.response(ANSWER)
    assert check_response(response, KEY, subprotocols=["chat", "superchat"]) == ("chat", None)


@pytest.mark.parametrize(
    "response",
    [answer(), answer(Upgrade="WebSocket", Connection="upgrade"), answer(Connection="keep-alive, Upgrade")],
)
def test_a_response_in_other_words_is_accepted(response: HttpResponse) -> None:
    assert check_response(response, KEY, subprotocols=["a"], compression=Fake()) == (None, None)


def test_what_the_server_chose_is_returned() -> None:
    response = answer((PROTOCOL, "b"), (EXTENSIONS, "fake; p"))
    agreement = check_response(response, KEY, subprotocols=iter(["a", "b"]), compression=Fake())
    assert agreement == ("b", AGREED)


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (answer(version="1.0"), "the response is in HTTP/1.0, needed is HTTP/1.1"),
        (answer(Upgrade=None), "Upgrade is absent, needed is 'websocket'"),
        (answer(Upgrade="h2c"), "Upgrade is 'h2c', needed is 'websocket'"),
        (answer(Upgrade="websocket, h2c"), "Upgrade is 'websocket, h2c', needed is 'websocket'"),
        (answer(("Upgrade", "websocket")), "Upgrade is 'websocket, websocket', needed is 'websocket'"),
        (answer(Upgrade="websocket/13"), "Upgrade is 'websocket/13', needed is 'websocket'"),
        (answer(Upgrade="web socket"), "'web socket' in the Upgrade header is not a token"),
        (answer(Connection=None), "Connection is absent, needed is 'Upgrade'"),
        (answer(Connection="close"), "Connection is 'close', needed is 'Upgrade'"),
        (answer(Connection="a b"), "'a b' in the Connection header is not a token"),
        (answer(Sec_WebSocket_Accept=None), "there are 0 Sec-WebSocket-Accept headers, exactly one is needed"),
        (
            answer(("Sec-WebSocket-Accept", ACCEPT)),
            "there are 2 Sec-WebSocket-Accept headers, exactly one is needed",
        ),
        (answer(Sec_WebSocket_Accept=KEY), f"Sec-WebSocket-Accept is {KEY!r}, needed is {ACCEPT!r}"),
        (
            answer(Sec_WebSocket_Accept=ACCEPT.lower()),
            f"Sec-WebSocket-Accept is {ACCEPT.lower()!r}, needed is {ACCEPT!r}",
        ),
        (answer((PROTOCOL, "b")), "the server chose the subprotocol 'b' of ['a']"),
        (answer((PROTOCOL, "A")), "the server chose the subprotocol 'A' of ['a']"),
        (answer((PROTOCOL, "")), "the server chose the subprotocol '' of ['a']"),
        (answer((PROTOCOL, "a, a")), "the server chose the subprotocol 'a, a' of ['a']"),
        (
            answer((PROTOCOL, "a"), (PROTOCOL, "a")),
            "there are 2 Sec-WebSocket-Protocol headers, exactly one is needed",
        ),
        (answer((EXTENSIONS, "fake")), "the server chose the extension 'fake', none was offered"),
        (answer((EXTENSIONS, "fake;")), "'' in the Sec-WebSocket-Extensions header is not a token"),
        (answer((EXTENSIONS, "")), "the Sec-WebSocket-Extensions header is empty, at least one element is needed"),
    ],
)
def test_each_fault_of_a_response_has_its_reason(response: HttpResponse, reason: str) -> None:
    with pytest.raises(HandshakeError) as raised:
        check_response(response, KEY, subprotocols=["a"])
    assert (raised.value.status, raised.value.reason) == (101, reason)
    assert raised.value.headers == tuple(response.headers.raw_items())


@pytest.mark.parametrize("value", ["other", "fake", "fake; p, fake; p", "fake; p; p"])
def test_an_extension_that_does_not_answer_the_offer_fails(value: str) -> None:
    with pytest.raises(HandshakeError) as raised:
        check_response(answer((EXTENSIONS, value)), KEY, compression=Fake())
    assert raised.value.status == 101


@pytest.mark.parametrize("value", ["other", "permessage-deflate, permessage-deflate", "permessage-deflate; x"])
def test_an_answer_that_deflate_did_not_ask_for_fails(value: str) -> None:
    with pytest.raises(HandshakeError) as raised:
        check_response(answer((EXTENSIONS, value)), KEY, compression=Compression())
    assert raised.value.status == 101


@pytest.mark.parametrize("status", [100, 103, 200, 301, 401, 426, 500])
def test_another_status_than_101_fails_with_it_and_its_headers(status: int) -> None:
    with pytest.raises(HandshakeError) as raised:
        check_response(answer(("Location", "/b"), status=status), KEY)
    assert raised.value.status == status
    assert raised.value.reason == f"the server answered {status} 'a', needed is 101"
    assert ("Location", "/b") in raised.value.headers


@pytest.mark.parametrize("offered", [[], ["a"], ["b", "a"]])
@pytest.mark.parametrize("compression", [None, Compression()])
def test_both_sides_agree(offered: list[str], compression: Compression | None) -> None:
    key = make_key()
    sent = serialize_request(build_request("h", "/", key, subprotocols=offered, compression=compression))
    request = heads.request(sent)
    accepted = accept(
        request,
        check_upgrade(request),
        subprotocols=["a", "b"] if offered else None,
        compression=Compression(),
    )
    response = heads.response(accepted.serialize())
    agreement = check_response(response, key, subprotocols=offered, compression=compression)
    assert agreement == (accepted.subprotocol, accepted.parameters)
    assert agreement.subprotocol == ("a" if offered else None)


def test_an_extended_connect_says_what_is_not_about_the_connection() -> None:
    request = build_connect(
        "a:8000",
        "/b?c",
        origin="https://d",
        subprotocols=["e", "f"],
        compression=Fake(),
        headers=[("Authorization", "g")],
    )
    assert (request.method, request.path, request.http_version) == ("CONNECT", "/b?c", "2")
    assert list(request.headers.raw_items()) == [
        ("Host", "a:8000"),
        ("Sec-WebSocket-Version", "13"),
        ("Origin", "https://d"),
        (PROTOCOL, "e, f"),
        (EXTENSIONS, "fake; p"),
        ("Authorization", "g"),
    ]
    with pytest.raises(LocalProtocolError, match="it is the handshake's own"):
        build_connect("a", "/", headers=[("Sec-WebSocket-Key", KEY)])


@pytest.mark.parametrize("status", [200, 201, 299])
def test_any_success_opens_the_websocket_of_an_extended_connect(status: int) -> None:
    response = HttpResponse(status, Headers([(PROTOCOL, "b"), (EXTENSIONS, "fake; p")]))
    assert check_connected(response, subprotocols=["a", "b"], compression=Fake()) == ("b", AGREED)
    assert check_connected(HttpResponse(status, Headers())) == (None, None)


@pytest.mark.parametrize("status", [199, 300, 403, 503])
def test_another_status_refuses_an_extended_connect(status: int) -> None:
    response = HttpResponse(status, Headers([("Retry-After", "7")]))
    with pytest.raises(HandshakeError, match=f"the server answered {status}, needed is 200") as raised:
        check_connected(response)
    assert (raised.value.status, raised.value.headers) == (status, (("Retry-After", "7"),))


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ((PROTOCOL, "b"), "the server chose the subprotocol 'b' of ['a']"),
        ((EXTENSIONS, "fake"), "the server chose the extension 'fake', none was offered"),
    ],
)
def test_what_was_not_offered_in_an_extended_connect_cannot_be_chosen(field: tuple[str, str], reason: str) -> None:
    with pytest.raises(NegotiationError) as raised:
        check_connected(HttpResponse(200, Headers([field])), subprotocols=["a"])
    assert (raised.value.status, raised.value.reason, raised.value.headers) == (200, reason, (field,))
