"""RFC 9113 and RFC 8441: what an endpoint makes of frames, in both roles, whole and octet by octet."""

from __future__ import annotations

from typing import Any

import pytest

from rawws.errors import Http2Error, LocalProtocolError
from rawws.protocol.connection import Role
from rawws.protocol.hpack import Field
from rawws.protocol.http2 import DEFAULT_HTTP2_LIMITS, Http2Endpoint
from rawws.protocol.http2_codes import ErrorCode, SettingCode
from rawws.protocol.http2_events import DataReceived, RequestReceived, ResponseReceived
from rawws.protocol.http2_streams import Http2Stream
from rawws.protocol.http11 import Headers, Request
from tests.protocol.http2_wire import (
    ACK,
    CONNECT,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HAS_PRIORITY,
    HEADERS,
    PADDED,
    PING,
    POST,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    REQUEST,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Sent,
    ask,
    block,
    data,
    describe,
    failure,
    fields_of,
    frame,
    frames_in,
    headers,
    make,
    number,
    outcome,
    resets,
    sent_by,
    settings,
    verdict,
)

SERVER, CLIENT = Role.SERVER, Role.CLIENT
SEEN = ("RequestReceived", 1, ("GET", "/", [("host", "example.com")], "2"), "https", None, True)
POSTED = ("RequestReceived", 1, ("POST", "/", [("host", "example.com")], "2"), "https", None, False)
OK: list[Field] = [(":status", "200")]


def reply(fields: list[Field], stream_id: int = 1, *, end: bool = False) -> bytes:
    return headers(stream_id, fields, END_HEADERS | (END_STREAM if end else 0))


def opened(connection: Http2Endpoint, octets: bytes) -> Http2Stream:
    """The stream of the request that these octets are."""
    connection.receive(octets)
    event = connection.next_event()
    assert isinstance(event, RequestReceived)
    assert connection.next_event() is None
    return event.stream


def ok(connection: Http2Endpoint, stream: Http2Stream, *, end: bool = False) -> None:
    connection.respond(stream, 200, Headers(), end)


def both(*, offer: bool = False) -> tuple[Http2Endpoint, Http2Endpoint]:
    """A client and a server that have exchanged their settings."""
    client, server = Http2Endpoint(CLIENT), Http2Endpoint(SERVER, connect_protocol=offer)
    for _ in range(3):
        exchange(client, server)
        exchange(server, client)
    return client, server


def exchange(sender: Http2Endpoint, receiver: Http2Endpoint) -> list[tuple[Any, ...]]:
    """The events that come of what one of them sends; what the other answers stays there."""
    receiver.receive(b"".join(sender.data_to_send()))
    events = []
    while (event := receiver.next_event()) is not None:
        events.append(describe(event))
    receiver.keep_buffer()
    return events


# -- 3.4, the preface


def test_a_server_begins_with_its_settings_and_a_larger_window() -> None:
    first, second = sent_by(Http2Endpoint(SERVER, connect_protocol=True))
    assert (first.kind, first.flags, first.stream_id) == (SETTINGS, 0, 0)
    values = {
        int.from_bytes(first.payload[at : at + 2], "big"): int.from_bytes(first.payload[at + 2 : at + 6], "big")
        for at in range(0, len(first.payload), 6)
    }
    assert values == {
        SettingCode.INITIAL_WINDOW_SIZE: 65535,
        SettingCode.MAX_HEADER_LIST_SIZE: 16384,
        SettingCode.NO_RFC7540_PRIORITIES: 1,
        SettingCode.MAX_CONCURRENT_STREAMS: 256,
        SettingCode.ENABLE_CONNECT_PROTOCOL: 1,
    }
    assert second == Sent(WINDOW_UPDATE, 0, 0, (1048576 - 65535).to_bytes(4, "big"))


def test_a_client_begins_with_the_preface_and_forbids_push() -> None:
    octets = b"".join(Http2Endpoint(CLIENT).data_to_send())
    assert octets.startswith(PREFACE)
    assert b"\0\x02\0\0\0\0" in next(frames_in(octets)).payload


def test_a_server_does_not_offer_what_it_has_not() -> None:
    assert b"\0\x08" not in sent_by(Http2Endpoint(SERVER))[0].payload
    assert len(sent_by(Http2Endpoint(SERVER, DEFAULT_HTTP2_LIMITS._replace(connection_window=1000)))) == 1


@pytest.mark.parametrize("octets", [b"GET / HTTP/1.1\r\n\r\n", PREFACE[:-1] + b"X", b"\0", PREFACE.lower()])
def test_octets_that_are_no_preface_end_the_connection(octets: bytes) -> None:
    for pieces in ([octets], [octets[at : at + 1] for at in range(len(octets))]):
        connection = Http2Endpoint(SERVER)
        assert outcome(connection, pieces).error == (
            ErrorCode.PROTOCOL_ERROR,
            "the connection does not begin with the preface of HTTP/2",
        )


@pytest.mark.parametrize("first", [frame(SETTINGS, ACK), headers(1, REQUEST), frame(PING, payload=bytes(8))])
@pytest.mark.parametrize("role", [SERVER, CLIENT])
def test_the_first_frame_is_settings(role: Role, first: bytes) -> None:
    connection = Http2Endpoint(role)
    result = outcome(connection, [(PREFACE if role is SERVER else b"") + first])
    assert result.error is not None
    assert result.error[0] == ErrorCode.PROTOCOL_ERROR
    assert "it must be SETTINGS" in result.error[1]


# -- requests and responses


def test_a_request_and_its_content_come_as_events() -> None:
    octets = reply(POST) + data(1, b"Hello, ") + data(1) + frame(DATA, PADDED | END_STREAM, 1, b"\x03world\0\0\0")
    assert verdict(octets).events == [POSTED, ("DataReceived", 1, b"Hello, world", True)]


def test_content_is_a_view_of_what_was_received() -> None:
    connection = make()
    buffer = bytearray(reply(POST) + data(1, b"abc"))
    connection.receive_buffer(buffer, len(buffer))
    connection.next_event()
    event = connection.next_event()
    assert isinstance(event, DataReceived)
    assert isinstance(event.data, memoryview)
    assert event.data.obj is buffer
    assert connection.next_event() is None


def test_the_end_of_a_stream_may_be_an_empty_frame() -> None:
    assert verdict(reply(POST) + data(1, b"", END_STREAM)).events == [POSTED, ("DataReceived", 1, b"", True)]


def test_trailers_end_a_request() -> None:
    octets = reply(POST) + data(1, b"x") + headers(1, [("x-a", "b")])
    assert verdict(octets).events[-1] == ("TrailersReceived", 1, [("x-a", "b")])


@pytest.mark.parametrize(
    "trailers", [headers(1, [("a", "b")], END_HEADERS), headers(1, OK), headers(1, [("A", "b")]), headers(1, REQUEST)]
)
def test_malformed_trailers_reset_the_stream(trailers: bytes) -> None:
    octets = reply(POST) + trailers
    assert resets(octets) == [(1, ErrorCode.PROTOCOL_ERROR)]
    assert verdict(octets).events[-1][0] == "StreamReset"


def test_a_malformed_request_resets_its_stream_and_no_other() -> None:
    octets = headers(1, [*REQUEST, ("Upper", "x")]) + headers(3, REQUEST)
    result = verdict(octets)
    assert [event[:2] for event in result.events] == [("RequestReceived", 3)]
    assert resets(octets) == [(1, ErrorCode.PROTOCOL_ERROR)]


def test_a_response_comes_with_its_interim_ones() -> None:
    octets = reply([(":status", "103"), ("link", "x")]) + reply([*OK, ("a", "b")]) + data(1, b"x", END_STREAM)
    assert verdict(octets, CLIENT, requests=1).events == [
        ("ResponseReceived", 1, 103, [("link", "x")], False),
        ("ResponseReceived", 1, 200, [("a", "b")], False),
        ("DataReceived", 1, b"x", True),
    ]


@pytest.mark.parametrize(
    "octets",
    [
        reply([(":status", "103")], end=True),
        reply([(":status", "101")]),
        reply([]),
        reply(REQUEST),
        data(1, b"x"),
        reply([*OK, ("content-length", "x")]),
        reply([(":status", "103")]) + data(1, b"x"),
    ],
)
def test_a_malformed_response_resets_its_stream(octets: bytes) -> None:
    assert resets(octets, CLIENT, requests=1) == [(1, ErrorCode.PROTOCOL_ERROR)]
    assert verdict(octets, CLIENT, requests=1).events[-1][0] == "StreamReset"


@pytest.mark.parametrize(
    ("length", "contents", "good"),
    [
        ("3", [b"abc"], True),
        ("3", [b"a", b"bc"], True),
        ("0", [b""], True),
        ("3", [b"ab"], False),
        ("3", [b"abcd"], False),
        ("3", [b"ab", b"cd"], False),
        ("0", [b"a"], False),
    ],
)
def test_content_is_as_long_as_content_length_says(length: str, contents: list[bytes], good: bool) -> None:
    parts = [data(1, content) for content in contents[:-1]] + [data(1, contents[-1], END_STREAM)]
    expected = [] if good else [(1, ErrorCode.PROTOCOL_ERROR)]
    assert resets(reply([*POST, ("content-length", length)]) + b"".join(parts)) == expected
    octets = reply([*OK, ("content-length", length)]) + b"".join(parts)
    assert resets(octets, CLIENT, requests=1) == expected


def test_a_request_that_ends_at_once_has_no_content_length_but_0() -> None:
    assert resets(headers(1, [*POST, ("content-length", "1")])) == [(1, ErrorCode.PROTOCOL_ERROR)]
    assert verdict(headers(1, [*POST, ("content-length", "1")])).events == []
    assert resets(headers(1, [*POST, ("content-length", "0")])) == []


def test_a_response_to_head_or_of_304_announces_what_does_not_come() -> None:
    connection = make(CLIENT)
    ask(connection, "HEAD")
    ask(connection)
    ask(connection, "HEAD")
    length: Field = ("content-length", "5")
    octets = reply([*OK, length], end=True) + reply([(":status", "304"), length], 3, end=True)
    assert [event[0] for event in outcome(connection, [octets]).events] == ["ResponseReceived"] * 2
    result = outcome(connection, [reply([*OK, length], 5) + data(5, b"x", END_STREAM)])
    assert result.events[-1][0] == "StreamReset"


# -- 8441


def test_a_websocket_is_opened_by_an_extended_connect() -> None:
    client, server = both(offer=True)
    stream = client.request(Request("CONNECT", "/chat", Headers({"Host": "a"})), protocol="websocket", end_stream=False)
    ((name, *_, protocol, over),) = exchange(client, server)
    assert (name, protocol, over) == ("RequestReceived", "websocket", False)
    theirs = server.streams[1]
    ok(server, theirs)
    server.send_data(theirs, b"abc")
    assert exchange(server, client)[1:] == [("DataReceived", 1, b"abc", False)]
    client.send_data(stream, b"close", end_stream=True)
    assert exchange(client, server) == [("DataReceived", 1, b"close", True)]
    server.send_data(theirs, b"close", end_stream=True)
    exchange(server, client)
    assert client.streams == server.streams == {}


def test_an_extended_connect_that_was_not_offered_is_malformed() -> None:
    assert resets(headers(1, CONNECT, END_HEADERS)) == [(1, ErrorCode.PROTOCOL_ERROR)]
    assert resets(headers(1, CONNECT, END_HEADERS), offer=True) == []
    with pytest.raises(LocalProtocolError, match="offers no extended CONNECT"):
        make(CLIENT).request(Request("CONNECT", "/", Headers({"Host": "a"})), protocol="websocket")


def test_a_tunnel_has_no_trailers_and_no_content_length() -> None:
    octets = headers(1, [*CONNECT, ("content-length", "1")], END_HEADERS) + data(1, b"abc")
    assert resets(octets, offer=True) == []
    assert resets(octets + headers(1, [("a", "b")]), offer=True) == [(1, ErrorCode.PROTOCOL_ERROR)]
    connection = make(offer=True)
    stream = opened(connection, headers(1, CONNECT, END_HEADERS))
    ok(connection, stream)
    with pytest.raises(LocalProtocolError, match="which has no trailers"):
        connection.send_trailers(stream, Headers())


def test_a_tunnel_that_was_refused_is_a_response() -> None:
    connection = make(CLIENT)
    connection.receive(settings((8, 1)))
    connection.next_event()
    for _ in range(2):
        connection.request(Request("CONNECT", "/", Headers({"Host": "a"})), protocol="websocket", end_stream=False)
    octets = reply([(":status", "403"), ("content-length", "1")]) + data(1, b"ab")
    assert outcome(connection, [octets]).events[-1][0] == "StreamReset"
    octets = reply([*OK, ("content-length", "1")], 3) + data(3, b"ab")
    assert outcome(connection, [octets]).events[-1] == ("DataReceived", 3, b"ab", False)


def test_an_offer_is_not_taken_back() -> None:
    assert failure(settings((8, 1)) + settings((8, 0)), CLIENT) == (
        ErrorCode.PROTOCOL_ERROR,
        "ENABLE_CONNECT_PROTOCOL is 0 after it was 1",
    )
    assert failure(settings((8, 2)), CLIENT)[0] == ErrorCode.PROTOCOL_ERROR
    assert verdict(settings((8, 0)) + settings((8, 1)), CLIENT).error is None


# -- 4.3 and 6.10, header blocks


def test_a_block_may_come_in_several_frames() -> None:
    octets = block(REQUEST)
    for cuts in ([5, 20], [0, 0], [len(octets), len(octets)], [1, len(octets)]):
        parts = [octets[: cuts[0]], octets[cuts[0] : cuts[1]], octets[cuts[1] :]]
        wire = frame(HEADERS, END_STREAM, 1, parts[0]) + frame(CONTINUATION, 0, 1, parts[1])
        assert verdict(wire + frame(CONTINUATION, END_HEADERS, 1, parts[2])).events == [SEEN]


@pytest.mark.parametrize(
    "between",
    [
        data(1, b"x"),
        headers(3, REQUEST),
        frame(CONTINUATION, END_HEADERS, 3),
        frame(PING, payload=bytes(8)),
        frame(0xF0, 0, 1),
        number(WINDOW_UPDATE, 0, 1),
        number(RST_STREAM, 1, 8),
    ],
)
def test_nothing_comes_inside_of_a_header_block(between: bytes) -> None:
    code, reason = failure(frame(HEADERS, 0, 1, block(REQUEST)) + between)
    assert code == ErrorCode.PROTOCOL_ERROR
    assert "is inside of the header block of 1" in reason


@pytest.mark.parametrize("before", [b"", headers(1, REQUEST), reply(POST)])
def test_a_continuation_continues_something(before: bytes) -> None:
    code, reason = failure(before + frame(CONTINUATION, END_HEADERS, 1))
    assert (code, reason) == (ErrorCode.PROTOCOL_ERROR, "a CONTINUATION frame without a header block to continue")


def test_a_block_that_is_none_ends_the_connection() -> None:
    assert failure(frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x80"))[0] == ErrorCode.COMPRESSION_ERROR
    # Also where nobody wants its fields.
    octets = headers(1, REQUEST) + number(RST_STREAM, 1, 8) + frame(HEADERS, END_HEADERS, 1, b"\x80")
    assert failure(octets)[0] == ErrorCode.COMPRESSION_ERROR


def test_a_block_of_a_stream_that_is_gone_counts_for_the_table() -> None:
    connection = make()
    stream = opened(connection, reply(POST))
    connection.reset(stream)
    late = frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x40\x01a\x01b")
    fields = outcome(connection, [late + frame(HEADERS, END_HEADERS | END_STREAM, 3, block(REQUEST) + b"\xbe")]).events
    assert fields[0][2][2] == [("a", "b"), ("host", "example.com")]


def test_a_large_block_is_sent_in_several_frames() -> None:
    client, server = both()
    stream = client.request(Request("GET", "/", Headers({"Host": "a", "x": "~" * 12000})))
    exchange(client, server)
    for size in (16000, 33000):
        fields = Headers({"a": "\xff" * size})
        server.respond(server.streams[stream.id], 103, fields)
    first, *more = sent_by(server)
    assert [sent.flags for sent in (first, *more)].count(END_HEADERS) == 2
    assert all(len(sent.payload) <= 16384 for sent in (first, *more))
    assert {sent.kind for sent in more} == {HEADERS, CONTINUATION}


def test_priorities_of_rfc_7540_are_read_and_dropped() -> None:
    octets = frame(HEADERS, END_HEADERS | END_STREAM | HAS_PRIORITY, 1, b"\x80\0\0\0\x10" + block(REQUEST))
    assert verdict(octets).events == [SEEN]
    assert verdict(frame(PRIORITY, 0, 1, b"\0\0\0\x03\x10") + octets).events == [SEEN]
    padded = frame(HEADERS, 0x2D, 1, b"\x02\0\0\0\0\x10" + block(REQUEST) + b"\0\0")
    assert verdict(padded).events == [SEEN]


def test_malformed_priorities_are_errors() -> None:
    assert failure(frame(HEADERS, 0x25, 1, b"\0\0\0\0")) == (
        ErrorCode.FRAME_SIZE_ERROR,
        "a HEADERS frame is too short for its priority",
    )
    octets = frame(HEADERS, 0x25, 1, b"\0\0\0\x01\x10" + block(REQUEST))
    assert resets(octets) == [(1, ErrorCode.PROTOCOL_ERROR)]
    assert resets(reply(POST) + frame(PRIORITY, 0, 1, b"\0\0\0\x01\x10")) == [(1, ErrorCode.PROTOCOL_ERROR)]
    assert resets(reply(POST) + frame(PRIORITY, 0, 1, bytes(4))) == [(1, ErrorCode.FRAME_SIZE_ERROR)]
    assert failure(frame(PRIORITY, 0, 1, bytes(6)))[0] == ErrorCode.FRAME_SIZE_ERROR
    assert failure(frame(PRIORITY, 0, 1, b"\0\0\0\x01\x10"))[0] == ErrorCode.PROTOCOL_ERROR


# -- 5.1, states


@pytest.mark.parametrize(
    "octets", [data(1, b"x"), number(RST_STREAM, 1, 8), number(WINDOW_UPDATE, 1, 1), data(2, b"x"), data(5)]
)
def test_a_frame_on_an_idle_stream_ends_the_connection(octets: bytes) -> None:
    assert failure(octets)[0] == ErrorCode.PROTOCOL_ERROR
    assert failure(number(RST_STREAM, 3, 8), CLIENT, requests=1)[0] == ErrorCode.PROTOCOL_ERROR


@pytest.mark.parametrize("late", [data(1, b"x"), headers(1, [("a", "b")]), data(1, b"", END_STREAM)])
def test_what_follows_the_end_of_a_stream_resets_it(late: bytes) -> None:
    assert resets(headers(1, REQUEST) + late) == [(1, ErrorCode.STREAM_CLOSED)]


@pytest.mark.parametrize("late", [data(1, b"x"), headers(1, [("a", "b")]), headers(1, REQUEST)])
def test_what_follows_the_end_of_both_sides_ends_the_connection(late: bytes) -> None:
    connection = make()
    ok(connection, opened(connection, headers(1, REQUEST)), end=True)
    assert connection.streams == {}
    result = outcome(connection, [late])
    assert result.error == (ErrorCode.STREAM_CLOSED, "a frame is on stream 1, which has ended")


@pytest.mark.parametrize("late", [data(1, b"x"), headers(1, [("a", "b")])])
def test_what_follows_a_reset_of_the_peer_is_reset_once(late: bytes) -> None:
    octets = reply(POST) + number(RST_STREAM, 1, 8) + late + late
    assert resets(octets) == [(1, ErrorCode.STREAM_CLOSED)]


@pytest.mark.parametrize("late", [data(1, b"x"), headers(1, [("a", "b")]), number(RST_STREAM, 1, 8), number(8, 1, 1)])
def test_what_follows_a_reset_of_this_side_is_ignored(late: bytes) -> None:
    connection = make()
    stream = opened(connection, reply(POST))
    connection.reset(stream, ErrorCode.CANCEL)
    connection.reset(stream, ErrorCode.CANCEL)
    result = outcome(connection, [late])
    assert result == ([], None, [Sent(RST_STREAM, 0, 1, b"\0\0\0\x08")])


def test_frames_that_cross_with_the_end_are_taken() -> None:
    connection = make()
    ok(connection, opened(connection, headers(1, REQUEST)), end=True)
    late = number(WINDOW_UPDATE, 1, 1) + number(RST_STREAM, 1, 8) + frame(PRIORITY, 0, 1, bytes(5))
    assert outcome(connection, [late]).error is None


def test_only_the_last_streams_are_remembered() -> None:
    connection = make()
    for number_ in range(300):
        ok(connection, opened(connection, headers(2 * number_ + 1, REQUEST)), end=True)
    assert len(connection.closed) == 256
    assert connection.streams == {}
    connection.data_to_send()
    result = outcome(connection, [data(1, b"x")])
    assert result.error is None
    assert [(sent.kind, sent.stream_id) for sent in result.sent] == [(RST_STREAM, 1)]
    result = outcome(connection, [headers(3, REQUEST)])
    assert result.error is not None
    assert result.error[0] == ErrorCode.PROTOCOL_ERROR


@pytest.mark.parametrize("octets", [headers(2, REQUEST), headers(5, REQUEST) + headers(3, REQUEST)])
def test_numbers_of_streams_are_odd_and_grow(octets: bytes) -> None:
    code, reason = failure(octets)
    assert code == ErrorCode.PROTOCOL_ERROR
    assert "which cannot be opened now" in reason


def test_a_server_opens_no_stream() -> None:
    for octets in (reply(OK, 1), reply(OK, 2), frame(PUSH_PROMISE, END_HEADERS, 1, bytes(4))):
        assert failure(octets, CLIENT)[0] == ErrorCode.PROTOCOL_ERROR
    assert failure(frame(PUSH_PROMISE, END_HEADERS, 1, bytes(4)))[0] == ErrorCode.PROTOCOL_ERROR


def test_a_response_on_a_stream_that_ended_is_an_error_and_on_one_that_was_reset_none() -> None:
    connection = make(CLIENT)
    first, second = ask(connection), ask(connection)
    connection.reset(second)
    assert outcome(connection, [reply(OK, second.id, end=True)]).error is None
    assert outcome(connection, [reply(OK, first.id, end=True) + reply(OK, first.id)]).error == (
        ErrorCode.STREAM_CLOSED,
        "a frame is on stream 1, which has ended",
    )


def test_a_stream_that_is_reset_inside_of_a_frame_gives_no_more() -> None:
    connection = make()
    stream = opened(connection, reply(POST))
    octets = data(1, b"abcdef", END_STREAM)
    connection.receive(octets[:12])
    event = connection.next_event()
    assert isinstance(event, DataReceived)
    assert bytes(event.data) == b"abc"
    connection.reset(stream)
    assert outcome(connection, [octets[12:], headers(3, REQUEST)]).events == [(SEEN[0], 3, *SEEN[2:])]


# -- 5.2 and 6.9, flow control


def test_the_window_of_the_connection_is_given_back_at_once() -> None:
    connection = make()
    connection.receive(b"".join(reply(POST, 2 * n + 1) + data(2 * n + 1, bytes(16000)) * 4 for n in range(9)))
    while connection.next_event() is not None:
        pass
    updates = [sent for sent in sent_by(connection) if sent.kind == WINDOW_UPDATE]
    assert [sent.stream_id for sent in updates] == [0]
    assert int.from_bytes(updates[0].payload, "big") == 33 * 16000


def test_the_window_of_a_stream_is_given_back_as_it_is_taken() -> None:
    connection = make()
    stream = opened(connection, reply(POST))
    result = outcome(connection, [data(1, bytes(16000)) * 2], take=False)
    assert result.sent == []
    connection.acknowledge(stream, 32000)
    assert sent_by(connection) == []
    assert stream.receive_window == 65535 - 32000
    connection.acknowledge(stream, 1000)
    assert sent_by(connection) == [Sent(WINDOW_UPDATE, 0, 1, (33000).to_bytes(4, "big"))]
    assert stream.receive_window == 65535 + 1000


def test_padding_is_given_back_at_once() -> None:
    connection = make()
    stream = opened(connection, reply(POST))
    outcome(connection, [frame(DATA, PADDED, 1, b"\xff" + bytes(256))] * 10, take=False)
    assert stream.given == 2560


def test_data_over_the_window_of_a_stream_resets_it() -> None:
    octets = reply(POST) + data(1, bytes(16384)) * 4
    connection = make()
    result = outcome(connection, [octets], take=False)
    assert result.events[-1][0] == "StreamReset"
    assert result.events[-1][2] == ErrorCode.FLOW_CONTROL_ERROR
    assert outcome(make(), [reply(POST) + data(1, bytes(16384)) * 3 + data(1, bytes(16383))], take=False).sent == []


def test_a_small_window_of_the_connection_is_the_default_one() -> None:
    connection = make(limits=DEFAULT_HTTP2_LIMITS._replace(connection_window=0))
    result = outcome(connection, [reply(POST) + data(1, bytes(16384)) * 3], take=False)
    assert result.sent == [Sent(WINDOW_UPDATE, 0, 0, (32768).to_bytes(4, "big"))]


def test_a_window_grows_for_a_large_message() -> None:
    connection = make()
    stream = opened(connection, reply(POST))
    connection.widen(stream, 1 << 20)
    assert sent_by(connection) == [Sent(WINDOW_UPDATE, 0, 1, ((1 << 20) - 65535).to_bytes(4, "big"))]
    assert stream.receive_window == 1 << 20
    connection.widen(stream, 1000)
    connection.acknowledge(stream, 1000)
    assert sent_by(connection) == []


def test_nothing_is_given_back_on_a_stream_that_the_peer_ended() -> None:
    connection = make()
    stream = opened(connection, headers(1, REQUEST))
    connection.acknowledge(stream, 65535)
    assert sent_by(connection) == []


def test_a_smaller_window_holds_once_it_was_acknowledged() -> None:
    limits = DEFAULT_HTTP2_LIMITS._replace(window=10)
    connection = Http2Endpoint(SERVER, limits)
    outcome(connection, [PREFACE + settings() + reply(POST) + data(1, bytes(1000))], take=False)
    stream = connection.streams[1]
    outcome(connection, [frame(SETTINGS, ACK) + frame(SETTINGS, ACK)])
    assert stream.receive_window == 10 - 1000
    assert outcome(connection, [data(1, b"", END_STREAM)]).events == [("DataReceived", 1, b"", True)]
    assert [event[0] for event in outcome(connection, [reply(POST, 3) + data(3, bytes(11))]).events] == [
        "RequestReceived",
        "StreamReset",
    ]


def test_content_is_sent_as_far_as_the_windows_go() -> None:
    connection = make()
    connection.receive(settings((SettingCode.INITIAL_WINDOW_SIZE, 10)))
    connection.next_event()
    stream = opened(connection, headers(1, REQUEST))
    with pytest.raises(LocalProtocolError, match="takes no content now"):
        connection.send_data(stream, b"x")
    ok(connection, stream)
    assert connection.sendable(stream) == 10
    with pytest.raises(LocalProtocolError, match="content is 11 bytes, the windows allow 10"):
        connection.send_data(stream, bytes(11))
    connection.send_data(stream, bytes(10))
    assert connection.sendable(stream) == 0
    assert outcome(connection, [number(WINDOW_UPDATE, 1, 5)]).events == [("WindowOpened", 1)]
    assert outcome(connection, [number(WINDOW_UPDATE, 1, 5)]).events == []
    assert connection.sendable(stream) == 10
    assert outcome(connection, [settings((4, 0))]).events == [("SettingsReceived", {4: 0})]
    assert stream.send_window == 0
    outcome(connection, [settings((4, 5))])
    connection.send_data(stream, b"12345")
    outcome(connection, [settings((4, 0))])
    assert stream.send_window == -5
    assert connection.sendable(stream) == 0
    connection.send_data(stream, b"", end_stream=True)


def test_the_window_of_the_connection_bounds_all_streams() -> None:
    connection = make()
    connection.receive(settings((SettingCode.INITIAL_WINDOW_SIZE, 1 << 20)))
    connection.next_event()
    stream = opened(connection, headers(1, REQUEST))
    ok(connection, stream)
    connection.data_to_send()
    assert connection.sendable(stream) == 65535
    connection.send_data(stream, bytes(65535))
    assert [len(sent.payload) for sent in sent_by(connection)] == [16384, 16384, 16384, 16383]
    assert connection.sendable(stream) == 0
    with pytest.raises(LocalProtocolError):
        connection.send_data(stream, b"x")
    assert outcome(connection, [number(WINDOW_UPDATE, 0, 7)]).events == [("WindowOpened", None)]
    assert connection.sendable(stream) == 7


@pytest.mark.parametrize("increment", [0, 1 << 31])
def test_an_increment_of_0_is_an_error(increment: int) -> None:
    assert failure(number(WINDOW_UPDATE, 0, increment))[0] == ErrorCode.PROTOCOL_ERROR
    assert resets(reply(POST) + number(WINDOW_UPDATE, 1, increment)) == [(1, ErrorCode.PROTOCOL_ERROR)]


def test_a_window_does_not_grow_over_its_maximum() -> None:
    largest = (1 << 31) - 1
    assert failure(number(WINDOW_UPDATE, 0, largest))[0] == ErrorCode.FLOW_CONTROL_ERROR
    assert resets(reply(POST) + number(WINDOW_UPDATE, 1, largest)) == [(1, ErrorCode.FLOW_CONTROL_ERROR)]
    assert verdict(reply(POST) + number(WINDOW_UPDATE, 1, largest - 65535)).error is None
    octets = reply(POST) + number(WINDOW_UPDATE, 1, largest - 65535) + settings((4, 65536))
    assert failure(octets)[0] == ErrorCode.FLOW_CONTROL_ERROR


# -- 6.5, settings


@pytest.mark.parametrize(
    ("code", "value", "error"),
    [
        (SettingCode.ENABLE_PUSH, 2, ErrorCode.PROTOCOL_ERROR),
        (SettingCode.INITIAL_WINDOW_SIZE, 1 << 31, ErrorCode.FLOW_CONTROL_ERROR),
        (SettingCode.MAX_FRAME_SIZE, 16383, ErrorCode.PROTOCOL_ERROR),
        (SettingCode.MAX_FRAME_SIZE, 1 << 24, ErrorCode.PROTOCOL_ERROR),
        (SettingCode.NO_RFC7540_PRIORITIES, 2, ErrorCode.PROTOCOL_ERROR),
    ],
)
@pytest.mark.parametrize("role", [SERVER, CLIENT])
def test_a_setting_with_a_value_that_it_cannot_have_ends_the_connection(
    role: Role, code: int, value: int, error: ErrorCode
) -> None:
    assert failure(settings((code, value)), role)[0] == error


def test_a_server_does_not_allow_push() -> None:
    assert failure(settings((2, 1)), CLIENT) == (ErrorCode.PROTOCOL_ERROR, "a server sent ENABLE_PUSH 1")
    assert verdict(settings((2, 1))).error is None
    assert verdict(settings((2, 0)), CLIENT).error is None


def test_settings_are_acknowledged_and_told() -> None:
    result = verdict(settings((0xF0F0, 7), (5, 20000), (1, 100), (3, 1), (6, 1)))
    assert result.events == [("SettingsReceived", {0xF0F0: 7, 5: 20000, 1: 100, 3: 1, 6: 1})]
    assert result.sent == [Sent(SETTINGS, ACK, 0, b"")]


def test_settings_are_in_force() -> None:
    connection = make()
    stream = opened(connection, headers(1, REQUEST))
    outcome(connection, [settings((5, 20000), (1, 0))])
    ok(connection, stream)
    connection.send_data(stream, bytes(40001))
    first, *rest = sent_by(connection)
    assert first.payload[0] == 0x20
    assert [len(sent.payload) for sent in rest] == [20000, 20000, 1]


def test_a_client_opens_as_many_streams_as_the_server_takes() -> None:
    connection = make(CLIENT)
    outcome(connection, [settings((3, 1))])
    assert connection.may_request()
    ask(connection)
    assert not connection.may_request()
    with pytest.raises(LocalProtocolError, match="no stream can be opened now"):
        ask(connection)
    outcome(connection, [reply(OK, end=True)])
    assert ask(connection).id == 3
    with pytest.raises(LocalProtocolError):
        ask(make(SERVER))


def test_a_client_runs_out_of_numbers() -> None:
    connection = make(CLIENT)
    for _ in range(3):
        ask(connection)
    assert connection.next_id == 7


# -- 6.7, 6.8 and 5.4, the ends


def test_pings_are_answered() -> None:
    result = verdict(frame(PING, payload=b"12345678") + frame(PING, ACK, 0, b"87654321"))
    assert result.sent == [Sent(PING, ACK, 0, b"12345678")]
    assert result.events == [("PingAcknowledged", b"87654321")]
    connection = make()
    connection.ping(b"abcdefgh")
    assert sent_by(connection) == [Sent(PING, 0, 0, b"abcdefgh")]
    with pytest.raises(LocalProtocolError, match="ping payload is 3 bytes, needed are 8"):
        connection.ping(b"abc")


def test_unknown_frames_and_flags_are_ignored() -> None:
    octets = frame(0x10, 0xFF, 0, b"x" * 100) + frame(0xFF, 0, 7, b"") + frame(DATA, 0xF6, 1, b"x")
    assert verdict(reply(POST) + octets).events == [POSTED, ("DataReceived", 1, b"x", False)]


def test_a_reset_of_the_peer_is_told() -> None:
    result = verdict(reply(POST) + number(RST_STREAM, 1, 8))
    assert result.events == [POSTED, ("StreamReset", 1, 8, "the peer reset the stream", True)]
    assert result.sent == []


def test_a_client_is_told_which_requests_were_not_acted_on() -> None:
    octets = frame(GOAWAY, 0, 0, (1).to_bytes(4, "big") + (0).to_bytes(4, "big") + b"bye")
    result = verdict(octets, CLIENT, requests=3)
    assert result.events == [
        ("GoAwayReceived", 1, 0, b"bye"),
        ("StreamReset", 3, ErrorCode.REFUSED_STREAM, "the peer went away before", True),
        ("StreamReset", 5, ErrorCode.REFUSED_STREAM, "the peer went away before", True),
    ]
    connection = make(CLIENT)
    outcome(connection, [octets])
    assert not connection.may_request()
    assert verdict(reply(POST) + octets).events[-1][0] == "GoAwayReceived"


def test_going_away_in_two_steps_loses_no_request() -> None:
    connection = make()
    opened(connection, reply(POST))
    connection.go_away((1 << 31) - 1)
    opened(connection, headers(3, REQUEST))
    connection.go_away()
    first, second = sent_by(connection)
    assert first == Sent(GOAWAY, 0, 0, b"\x7f\xff\xff\xff" + bytes(4))
    assert second == Sent(GOAWAY, 0, 0, b"\0\0\0\x03" + bytes(4))
    # What crosses with it is ignored; what was taken goes on.
    result = outcome(connection, [headers(5, REQUEST) + data(5, b"x") + data(1, b"x")])
    assert result == ([("DataReceived", 1, b"x", False)], None, [])
    connection.go_away(99, ErrorCode.ENHANCE_YOUR_CALM)
    assert sent_by(connection) == [Sent(GOAWAY, 0, 0, b"\0\0\0\x03\0\0\0\x0b")]


def test_a_connection_that_failed_says_so_and_does_nothing_more() -> None:
    connection = make()
    stream = opened(connection, reply(POST))
    connection.receive(data(3, b"x") + headers(5, REQUEST))
    with pytest.raises(Http2Error, match="which is idle") as caught:
        connection.next_event()
    assert str(caught.value) == "a frame is on stream 3, which is idle (HTTP/2 error code 0x1)"
    assert connection.error is not None
    assert connection.error.error_code == ErrorCode.PROTOCOL_ERROR
    assert [sent.kind for sent in sent_by(connection)] == [GOAWAY]
    connection.receive(headers(5, REQUEST))
    assert connection.next_event() is None
    connection.fail(Http2Error(ErrorCode.INTERNAL_ERROR, "again"))
    connection.reset(stream)
    connection.acknowledge(stream, 65535)
    assert connection.pending() == 0
    with pytest.raises(LocalProtocolError, match="nothing can be sent on it"):
        ok(connection, stream)
    stream.answered = True
    with pytest.raises(LocalProtocolError, match="takes no content now"):
        connection.send_data(stream, b"x")


def test_an_owner_may_fail_a_connection() -> None:
    connection = make()
    connection.fail(Http2Error(ErrorCode.INTERNAL_ERROR, "no memory"))
    assert sent_by(connection) == [Sent(GOAWAY, 0, 0, bytes(7) + b"\x02no memory")]


# -- what is sent


def test_a_response_is_sent_once_and_then_its_content() -> None:
    connection = make()
    stream = opened(connection, headers(1, REQUEST))
    connection.respond(stream, 103, Headers({"Link": "x"}))
    connection.respond(stream, 200, Headers({"X": "y"}))
    for status, end in ((200, False), (103, False)):
        with pytest.raises(LocalProtocolError, match="cannot be answered"):
            connection.respond(stream, status, Headers(), end)
    connection.send_data(stream, b"abc")
    connection.send_trailers(stream, Headers({"a": "b"}))
    early, head, content, trailers = sent_by(connection)
    assert early.flags == head.flags == END_HEADERS
    assert fields_of(early) == [(":status", "103"), ("link", "x")]
    assert content == Sent(DATA, 0, 1, b"abc")
    assert trailers.flags == END_HEADERS | END_STREAM
    assert connection.streams == {}
    with pytest.raises(LocalProtocolError, match="stream 1 is CLOSED"):
        connection.send_data(stream, b"x")
    with pytest.raises(LocalProtocolError, match="stream 1 is CLOSED"):
        connection.send_trailers(stream, Headers())


def test_an_interim_response_does_not_end_a_stream() -> None:
    connection = make()
    stream = opened(connection, headers(1, REQUEST))
    with pytest.raises(LocalProtocolError):
        connection.respond(stream, 103, Headers(), True)
    connection.reset(stream)
    with pytest.raises(LocalProtocolError, match="nothing can be sent on it"):
        ok(connection, stream)


def test_streams_belong_to_an_owner() -> None:
    connection = make()
    stream = opened(connection, headers(1, REQUEST))
    stream.owner = self = object()
    assert connection.streams[1].owner is self


def test_a_request_with_content_and_trailers_arrives() -> None:
    client, server = both()
    stream = ask(client, "POST", end_stream=False)
    client.send_data(stream, b"abc")
    client.send_trailers(stream, Headers({"a": "b"}))
    assert [event[0] for event in exchange(client, server)] == ["RequestReceived", "DataReceived", "TrailersReceived"]
    ok(server, server.streams[1], end=True)
    server_events = exchange(server, client)
    assert server_events == [("ResponseReceived", 1, 200, [], True)]
    assert client.streams == {}
    assert isinstance(stream, Http2Stream)
    assert ResponseReceived.__name__ == server_events[0][0]
