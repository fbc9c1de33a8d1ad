"""RFC 9113 section 10.5: each flood ends with ENHANCE_YOUR_CALM, and holds no more than its limit until then."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest

from rawws.errors import Http2Error
from rawws.protocol.connection import Role
from rawws.protocol.hpack import Field
from rawws.protocol.http2 import DEFAULT_HTTP2_LIMITS, Http2Endpoint
from rawws.protocol.http2_codes import ErrorCode
from rawws.protocol.http2_events import RequestReceived
from rawws.protocol.http2_limits import Budget
from rawws.protocol.http11 import Headers
from tests.protocol.http2_wire import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    POST,
    PRIORITY,
    REQUEST,
    RST_STREAM,
    Outcome,
    block,
    data,
    failure,
    frame,
    headers,
    make,
    number,
    outcome,
    resets,
    settings,
    verdict,
)

LIMITS = DEFAULT_HTTP2_LIMITS
CALM = ErrorCode.ENHANCE_YOUR_CALM
OPEN = headers(1, POST, END_HEADERS)
IDLE = "over 1000 frames that carry nothing at once, or 100 each second"
UNANSWERED = "over 256 streams that end unanswered at once, or 20 each second"


def rapid_reset(n: int) -> bytes:
    return headers(2 * n + 1, REQUEST) + number(RST_STREAM, 2 * n + 1, 8)


def made_to_reset(n: int) -> bytes:
    return headers(2 * n + 1, POST, END_HEADERS) + number(8, 2 * n + 1, 0)


def malformed(n: int) -> bytes:
    return headers(2 * n + 1, [*REQUEST, ("A", "b")])


# The CVE or the name, what comes again and again, how many are allowed, and how the connection ends.
FLOODS: dict[str, tuple[Callable[[int], bytes], int, str]] = {
    "CVE-2019-9512, PING": (lambda n: frame(PING, payload=bytes(8)), 990, IDLE),
    "CVE-2019-9513, PRIORITY": (lambda n: frame(PRIORITY, 0, 2 * n + 1, bytes(5)), 990, IDLE),
    "CVE-2019-9515, SETTINGS": (lambda n: settings((4, n)), 490, IDLE),
    "SETTINGS of many entries": (lambda n: settings(*[(4, n)] * 32), 30, IDLE),
    "GOAWAY": (lambda n: frame(GOAWAY, payload=bytes(8)), 990, IDLE),
    "acknowledgements": (lambda n: frame(4, 1), 990, IDLE),
    "CVE-2019-9518, empty DATA": (lambda n: OPEN + data(1) if n == 0 else data(1), 990, IDLE),
    "DATA of padding": (lambda n: (OPEN if n == 0 else b"") + frame(DATA, PADDED, 1, b"\x05x" + bytes(5)), 990, IDLE),
    "WINDOW_UPDATE": (lambda n: number(8, 0, 1), 990, IDLE),
    "unknown frames": (lambda n: frame(0xAA, 0, n, b"x" * 100), 990, IDLE),
    "resets of nothing": (lambda n: (rapid_reset(0) if n == 0 else b"") + number(RST_STREAM, 1, 8), 990, IDLE),
    "CVE-2023-44487, rapid reset": (rapid_reset, 256, UNANSWERED),
    "CVE-2025-8671, MadeYouReset": (made_to_reset, 256, UNANSWERED),
    "malformed requests": (malformed, 256, UNANSWERED),
    "too many streams": (lambda n: headers(2 * n + 1, POST, END_HEADERS), 512, UNANSWERED),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_ends_at_its_limit(name: str) -> None:
    one, allowed, reason = FLOODS[name]
    connection = make()
    assert outcome(connection, [b"".join(map(one, range(allowed)))]).error is None
    result = outcome(connection, [b"".join(one(n) for n in range(allowed, allowed + 20))])
    assert result.error == (CALM, reason)
    assert result.sent[-1].kind == GOAWAY


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_leaves_nothing_behind(name: str) -> None:
    one, allowed, _ = FLOODS[name]
    connection = make()
    wire = [one(n) for n in range(allowed)]
    outcome(connection, wire[:1])
    tracemalloc.start()
    try:
        for octets in wire[1:]:
            connection.receive(octets)
            while connection.next_event() is not None:
                pass
            connection.keep_buffer()
            connection.data_to_send()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # 256 open streams, as many that are remembered, and a table of HPACK.
    assert held < 500_000
    assert len(connection.closed) <= 256
    assert len(connection.streams) <= LIMITS.max_streams


def test_what_is_spread_over_time_is_no_flood() -> None:
    connection = make()
    for _ in range(30):
        assert outcome(connection, [frame(PING, payload=bytes(8)) * 100]).error is None
        connection.elapse(1.0)
    for n in range(300):
        assert outcome(connection, [rapid_reset(n)]).error is None
        connection.elapse(0.05)


def test_who_is_sent_much_may_give_much_back() -> None:
    connection = make()
    outcome(connection, [headers(1, REQUEST)])
    connection.respond(connection.streams[1], 200, Headers())
    for _ in range(3000):
        connection.send_data(connection.streams[1], b"x")
        assert outcome(connection, [number(8, 0, 1) + number(8, 1, 1)]).error is None


def test_streams_whose_answer_was_written_may_be_reset() -> None:
    connection = make()
    for n in range(1000):
        outcome(connection, [headers(2 * n + 1, REQUEST)])
        connection.respond(connection.streams[2 * n + 1], 200, Headers())
        connection.data_to_send()
        assert outcome(connection, [number(RST_STREAM, 2 * n + 1, 8)]).error is None


def test_resets_behind_an_answer_that_nobody_can_have_seen_are_rapid_ones() -> None:
    connection = make()
    with pytest.raises(Http2Error, match=UNANSWERED):
        for n in range(1000):
            connection.receive(headers(2 * n + 1, REQUEST) + number(RST_STREAM, 2 * n + 1, 8))
            while (event := connection.next_event()) is not None:
                if isinstance(event, RequestReceived):
                    connection.respond(event.stream, 200, Headers())
    assert n == 256


@pytest.mark.parametrize("stream_window", [True, False])
def test_who_opens_a_window_by_one_octet_at_a_time_is_stopped(stream_window: bool) -> None:
    connection = make()
    outcome(connection, [headers(1, REQUEST)])
    stream = connection.streams[1]
    connection.respond(stream, 200, Headers())
    if stream_window:
        outcome(connection, [number(8, 0, 1 << 20)])
    else:
        outcome(connection, [number(8, 1, 1 << 20)])
    while room := connection.sendable(stream):
        connection.send_data(stream, bytes(min(room, 16384)))
    opened = 0
    while (result := outcome(connection, [number(8, 1 if stream_window else 0, 1)])).error is None:
        opened += 1
        connection.send_data(stream, b"x")
    assert result.error == (CALM, IDLE)
    assert 990 < opened < 1010


def test_a_small_window_that_is_opened_by_what_is_worth_it_is_none() -> None:
    connection = make()
    outcome(connection, [settings((4, 256)) + headers(1, REQUEST)])
    connection.respond(connection.streams[1], 200, Headers())
    for _ in range(3000):
        connection.send_data(connection.streams[1], bytes(256))
        assert outcome(connection, [number(8, 0, 256) + number(8, 1, 256)]).error is None


def test_a_client_does_not_count_what_the_server_resets() -> None:
    octets = b"".join(number(RST_STREAM, 2 * n + 1, 7) for n in range(300))
    assert verdict(octets, Role.CLIENT, requests=300).error is None


def test_a_budget_fills_up_to_its_burst() -> None:
    budget = Budget("things", 2, 10)
    budget.spend()
    budget.earn(0.5)
    assert budget.left == 1.5
    budget.earn(100)
    assert budget.left == 2


def test_streams_over_the_limit_are_refused_one_by_one() -> None:
    limits = LIMITS._replace(max_streams=2)
    octets = b"".join(headers(n, POST, END_HEADERS) for n in (1, 3, 5, 7))
    assert resets(octets, limits=limits) == [(5, ErrorCode.REFUSED_STREAM), (7, ErrorCode.REFUSED_STREAM)]
    # Once one has ended there is room for one.
    assert resets(octets + number(RST_STREAM, 1, 8) + headers(9, REQUEST) + data(5, b"x"), limits=limits) == [
        (5, ErrorCode.REFUSED_STREAM),
        (7, ErrorCode.REFUSED_STREAM),
    ]


# -- header blocks


def test_a_flood_of_continuations_ends_at_its_limit() -> None:
    start = frame(HEADERS, END_STREAM, 1, block(REQUEST)[:5])
    more = frame(CONTINUATION, 0, 1, b"")
    last = frame(CONTINUATION, END_HEADERS, 1, block(REQUEST)[5:])
    assert verdict(start + more * 7 + last).error is None
    assert failure(start + more * 9) == (CALM, "a header block has over 8 CONTINUATION frames")


def test_a_block_over_its_limit_ends_the_connection_before_it_is_complete() -> None:
    start = frame(HEADERS, END_STREAM, 1, bytes(16384))
    more = frame(CONTINUATION, 0, 1, bytes(16384))
    connection = make()
    assert outcome(connection, [start + more]).error is None
    assert outcome(connection, [frame(CONTINUATION, 0, 1, b"x")]).error == (
        CALM,
        "a header block has 32769 bytes, limit 32768",
    )
    limits = LIMITS._replace(max_header_list=100)
    assert outcome(make(limits=limits), [frame(HEADERS, 0, 1, bytes(201))]).error is not None


def large(size: int) -> list[Field]:
    """A request whose fields are of this size, as section 6.5.2 counts them."""
    rest = sum(len(name) + len(value) + 32 for name, value in REQUEST)
    return [*REQUEST, ("x", "y" * (size - rest - 33))]


def test_header_fields_over_the_limit_can_be_answered() -> None:
    def sent(size: int) -> Outcome:
        octets = block(large(size))
        first, rest = octets[:16000], octets[16000:]
        return outcome(make(), [frame(HEADERS, END_STREAM, 1, first) + frame(CONTINUATION, END_HEADERS, 1, rest)])

    assert sent(16384).events[0][0] == "RequestReceived"
    assert sent(16385) == ([("HeadersTooLarge", 1, 16385, True)], None, [])
    connection = make(limits=LIMITS._replace(max_header_list=200))
    assert outcome(connection, [headers(1, large(220), END_HEADERS)]).events == [("HeadersTooLarge", 1, 220, False)]
    connection.respond(connection.streams[1], 431, Headers(), True)
    connection.reset(connection.streams[1], ErrorCode.NO_ERROR)
    assert connection.streams == {}


def test_header_fields_over_the_limit_reset_a_stream_where_nobody_could_answer() -> None:
    limits = LIMITS._replace(max_header_list=200)
    octets = headers(1, [(":status", "200"), ("x", "y" * 150)], END_HEADERS)
    assert resets(octets, Role.CLIENT, limits, requests=1) == [(1, CALM)]
    assert resets(
        headers(1, [*REQUEST[:3], ("host", "a")], END_HEADERS) + headers(1, [("x", "y" * 180)]), limits=limits
    ) == [(1, CALM)]


@pytest.mark.parametrize("indexed", [b"\xbe", b"\x82"], ids=["of a large field", "of a small field"])
def test_a_bomb_of_hpack_ends_the_connection(indexed: bytes) -> None:
    connection = make()
    bomb = b"\x40\x01a\x7f\xa1\x1e" + b"b" * 4000 + indexed * 10000
    tracemalloc.start()
    try:
        result = outcome(connection, [frame(HEADERS, END_HEADERS | END_STREAM, 1, bomb)])
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert result.error == (CALM, f"a header block has over 65536 bytes of fields in {len(bomb)}")
    assert most < 400_000


def test_settings_have_as_many_entries_as_there_can_be() -> None:
    assert verdict(settings(*[(9, 1)] * 32)).error is None
    assert failure(settings(*[(9, 1)] * 33)) == (CALM, "a SETTINGS frame has 33 settings, limit 32")


def test_what_is_held_of_a_stream_that_nobody_reads_is_its_window() -> None:
    connection = make()
    result = outcome(connection, [OPEN + data(1, bytes(16383)) * 5], take=False)
    assert sum(len(event[2]) for event in result.events if event[0] == "DataReceived") <= 65535
    assert result.events[-1][0] == "StreamReset"


@pytest.mark.parametrize("role", Role)
def test_a_frame_that_never_ends_is_held_once(role: Role) -> None:
    connection = make(role)
    connection.receive(frame(PING, length=8)[:9])
    assert connection.next_event() is None
    connection.keep_buffer()
    # Content is not held at all.
    if role is Role.SERVER:
        fresh: Http2Endpoint = make()
        outcome(fresh, [OPEN + frame(DATA, 0, 1, bytes(1000), length=16384)])
        assert fresh.frames.in_frame
        assert fresh.frames.remaining == 15384
