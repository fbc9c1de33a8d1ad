"""Against h2: what it sends we read, what we send it reads, and of any frames both make the same.

Where we differ stands in `agree`, each with its reason; anything else is a bug here or there.
"""

from __future__ import annotations

from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rawws.errors import LocalProtocolError
from rawws.protocol.connection import Role
from rawws.protocol.hpack import Field
from rawws.protocol.http2 import Http2Endpoint
from rawws.protocol.http2_codes import ErrorCode
from rawws.protocol.http2_events import DataReceived
from rawws.protocol.http11 import Headers, Request
from tests.protocol import strategies
from tests.protocol.http2_wire import (
    CONNECT,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PADDED,
    PING,
    POST,
    PREFACE,
    REQUEST,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Outcome,
    block,
    frame,
    number,
    outcome,
    settings,
)


def make_h2(role: Role) -> Any:
    connection = h2.connection.H2Connection(h2.config.H2Configuration(role is Role.CLIENT, header_encoding="latin-1"))
    connection.initiate_connection()
    return connection


def told(events: list[Any]) -> list[tuple[Any, ...]]:
    """What h2 tells, in the words of our events; content of one stream that comes one behind the other is one."""
    found: list[tuple[Any, ...]] = []
    for event in events:
        if isinstance(event, h2.events.RequestReceived):
            found.append(("request", event.stream_id, fields_of(event.headers)))
        elif isinstance(event, h2.events.ResponseReceived | h2.events.InformationalResponseReceived):
            found.append(("response", event.stream_id, fields_of(event.headers)))
        elif isinstance(event, h2.events.TrailersReceived):
            found.append(("trailers", event.stream_id, fields_of(event.headers)))
        elif isinstance(event, h2.events.DataReceived):
            if event.data:
                found.append(("data", event.stream_id, event.data))
        elif isinstance(event, h2.events.StreamEnded):
            found.append(("end", event.stream_id))
        elif isinstance(event, h2.events.StreamReset):
            found.append(("reset", event.stream_id))
        elif isinstance(event, h2.events.PingAckReceived):
            found.append(("pong", event.ping_data))
        elif isinstance(event, h2.events.ConnectionTerminated):
            found.append(("away", event.last_stream_id))
    return joined(found)


def fields_of(fields: Any) -> list[Field]:
    found = [(name, value) for name, value in fields if name[0] != ":"]
    authority = dict(fields).get(":authority")
    return sorted([*found, *([("host", authority)] if authority is not None and "host" not in dict(found) else [])])


def said(result: Outcome) -> list[tuple[Any, ...]]:
    """The same of our events."""
    found: list[tuple[Any, ...]] = []
    for kind, *values in result.events:
        if kind == "RequestReceived":
            found.append(("request", values[0], sorted(values[1][2])))
        elif kind == "ResponseReceived":
            found.append(("response", values[0], sorted(values[2])))
        elif kind == "TrailersReceived":
            found.append(("trailers", values[0], sorted(values[1])))
        elif kind == "DataReceived" and values[1]:
            found.append(("data", values[0], values[1]))
        elif kind == "StreamReset":
            found.append(("reset", values[0]))
        elif kind == "PingAcknowledged":
            found.append(("pong", values[0]))
        elif kind == "GoAwayReceived":
            found.append(("away", values[0]))
        if kind == "TrailersReceived" or (
            kind in {"RequestReceived", "ResponseReceived", "DataReceived"} and values[-1]
        ):
            found.append(("end", values[0]))
    return joined(found)


def joined(found: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    together: list[tuple[Any, ...]] = []
    for item in found:
        more = item[0] == "data" and together and together[-1][:2] == item[:2]
        together.append((*item[:2], together.pop()[2] + item[2]) if more else item)
    return together


# -- what h2 sends we read, and the other way round

steps = st.lists(
    st.tuples(
        st.sampled_from(["request", "respond", "data", "trailers", "reset", "ping"]),
        st.integers(0, 4),
        st.integers(0, 3000),
        st.booleans(),
    ),
    max_size=25,
)
HEAD: list[Field] = [("accept", "*/*"), ("x-a", "b"), ("cookie", "a=b; c=d")]


def run_h2(connection: Any, peers: dict[int, str], step: tuple[str, int, int, bool], server: bool) -> None:
    """Have h2 do a step that it lets us: one that it does not would close its connection."""
    kind, place, size, end = step
    if kind == "ping":
        connection.ping(b"12345678")
    elif kind == "request" and not server:
        stream = connection.get_next_available_stream_id()
        connection.send_headers(stream, [*POST, *HEAD], end_stream=end)
        peers[stream] = "done" if end else "open"
    wanted = {"respond": "new", "data": "open", "trailers": "open", "reset": "open"}.get(kind)
    streams = [stream for stream, state in peers.items() if state == wanted]
    if not streams:
        return
    stream = streams[place % len(streams)]
    if kind == "respond":
        connection.send_headers(stream, [(":status", "200"), *HEAD[:2]], end_stream=end)
        peers[stream] = "done" if end else "open"
    elif kind == "data" and size + 8 <= connection.local_flow_control_window(stream):
        connection.send_data(stream, b"x" * size, end_stream=end, pad_length=size % 7 or None)
        peers[stream] = "done" if end else "open"
    elif kind == "trailers":
        connection.send_headers(stream, [("t", "u")], end_stream=True)
        peers[stream] = "done"
    elif kind == "reset":
        connection.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        peers[stream] = "done"


def run_ours(connection: Http2Endpoint, step: tuple[str, int, int, bool], server: bool) -> None:
    """Have ours do a step, if it lets us."""
    kind, place, size, end = step
    streams = list(connection.streams.values())
    stream: Any = streams[place % len(streams)] if streams else None
    headers = Headers([(name.title(), value) for name, value in HEAD])
    try:
        if kind == "request" and not server:
            connection.request(Request("POST", "/", Headers([("Host", "a"), *headers.raw_items()])), end_stream=end)
        elif kind == "ping":
            connection.ping(b"12345678")
        elif stream is None:
            return
        elif kind == "respond" and server:
            connection.respond(stream, 200, headers, end)
        elif kind == "data":
            connection.send_data(stream, b"x" * size, end)
        elif kind == "trailers":
            connection.send_trailers(stream, Headers({"t": "u"}))
        elif kind == "reset":
            connection.reset(stream)
    except LocalProtocolError:
        return


@strategies.examples(100)
@given(script=st.lists(st.tuples(st.booleans(), steps), max_size=4), server=st.booleans())
def test_both_understand_all_that_the_other_sends(script: list[tuple[bool, Any]], server: bool) -> None:
    ours = Http2Endpoint(Role.SERVER if server else Role.CLIENT)
    theirs = make_h2(Role.CLIENT if server else Role.SERVER)
    peers: dict[int, str] = {}
    for mine, parts in [(True, []), (False, []), *script, (True, []), (False, [])]:
        if mine:
            for step in parts:
                run_ours(ours, step, server)
            octets = b"".join(ours.data_to_send())
            for event in theirs.receive_data(octets):
                if isinstance(event, h2.events.RequestReceived):
                    peers[event.stream_id] = "new"
                elif isinstance(event, h2.events.DataReceived):
                    theirs.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamReset):
                    peers[event.stream_id] = "done"
        else:
            for step in parts:
                run_h2(theirs, peers, step, not server)
            ours.receive(theirs.data_to_send())
            while (event := ours.next_event()) is not None:
                if isinstance(event, DataReceived):
                    ours.acknowledge(event.stream, len(event.data))
            ours.keep_buffer()
    assert ours.error is None


# -- of any frames both make the same

FIELDS: list[list[Field]] = [
    REQUEST, POST, [*POST, ("content-length", "3")], [*REQUEST, ("x-a", "b"), ("cookie", "a=b")], [("t", "u")],
    [(":status", "200")], [(":status", "103")], [(":status", "200"), ("content-length", "3")], REQUEST[:3], REQUEST[1:],
    [*REQUEST, ("Upper", "x")], [*REQUEST, ("connection", "close")], [*REQUEST, ("te", "gzip")],
    [*REQUEST, REQUEST[0]], [("a", "b"), *REQUEST], [*REQUEST, (":status", "200")], [*REQUEST, ("host", "b")],
    [*REQUEST, ("x", "a\0b")], [*REQUEST, ("x", " a")], CONNECT,
]  # fmt: skip
ids = st.sampled_from([0, 1, 1, 1, 2, 3, 3, 5, 7])
wire = st.one_of(
    st.builds(
        lambda stream, fields, end: frame(HEADERS, END_HEADERS | end, stream, block(fields)),
        ids,
        st.sampled_from(FIELDS),
        st.sampled_from([0, END_STREAM]),
    ),
    st.builds(
        lambda stream, content, flags: frame(DATA, flags, stream, content),
        ids,
        st.sampled_from([b"", b"abc", b"a", b"\x01ab\0", bytes(20)]),
        st.sampled_from([0, 0, END_STREAM, PADDED, PADDED | END_STREAM]),
    ),
    st.builds(number, st.just(RST_STREAM), ids, st.integers(0, 14)),
    st.builds(number, st.just(WINDOW_UPDATE), ids, st.sampled_from([0, 1, 100, (1 << 31) - 1])),
    st.builds(
        settings,
        st.tuples(st.sampled_from([1, 2, 3, 4, 5, 6, 8, 0xAA]), st.sampled_from([0, 1, 2, 100, 16384, 1 << 31])),
    ),
    st.builds(frame, st.just(PING), st.sampled_from([0, 1]), st.just(0), st.just(b"12345678")),
    st.builds(frame, st.sampled_from([0xAA, PING, SETTINGS]), st.just(0), ids, st.binary(max_size=9)),
)


@strategies.examples(500)
@given(parts=st.lists(wire, max_size=8), role=strategies.roles, data=st.data())
def test_of_any_frames_both_make_the_same(parts: list[bytes], role: Role, data: st.DataObject) -> None:
    octets = (PREFACE if role is Role.SERVER else b"") + settings() + b"".join(parts)
    ours, theirs = Http2Endpoint(role), make_h2(role)
    if role is Role.CLIENT:
        for _ in range(2):
            ours.request(Request("POST", "/", Headers({"Host": "a"})), end_stream=False)
            theirs.send_headers(theirs.get_next_available_stream_id(), POST)
    ours.data_to_send()
    result = outcome(ours, data.draw(strategies.cut(octets)))
    events: list[Any] = []
    error: Exception | None = None
    # One by one, for h2 gives no event of what it got together with an error.
    for part in [(PREFACE if role is Role.SERVER else b"") + settings(), *parts]:
        try:
            events += theirs.receive_data(part)
        except h2.exceptions.ProtocolError as failure:
            error = failure
            break
    agree(result, told(events), error, events)


def agree(result: Outcome, theirs: list[tuple[Any, ...]], error: Exception | None, events: list[Any]) -> None:
    """Compare up to where one of them stops, and see that the other does, too, or has a reason."""
    mine = [item for item in said(result) if item[0] != "reset"]
    others = [item for item in theirs if item[0] != "reset"]
    shorter = min(len(mine), len(others))
    stopped = result.error is not None or any(event[0] == "StreamReset" for event in result.events)
    resets = [sent for sent in result.sent if sent.kind == RST_STREAM]
    if mine[:shorter] != others[:shorter]:
        # We reset a malformed stream where h2 ends the connection, or goes on: its events are then fewer, or more.
        assert stopped or resets or error is not None, (mine, others)
        return
    if len(mine) > len(others):
        # h2 ends the connection for what is an error of one stream.
        assert error is not None, (mine, others)
    if len(mine) < len(others):
        assert stopped or resets, (mine, others)
    if error is not None and not isinstance(error, h2.exceptions.DenialOfServiceError):
        # What h2 refuses we refuse, too, as an error of the stream or of the connection; but for three: RST_STREAM and
        # WINDOW_UPDATE frames on streams that are closed, fields on streams that were reset, and settings of one side.
        assert stopped or resets or isinstance(error, h2.exceptions.StreamClosedError | h2.exceptions.ProtocolError)


@pytest.mark.parametrize("fields", FIELDS[10:19])
def test_what_h2_calls_malformed_we_do_too(fields: list[Field]) -> None:
    octets = PREFACE + settings() + frame(HEADERS, END_HEADERS | END_STREAM, 1, block(fields))
    result = outcome(Http2Endpoint(Role.SERVER), [octets])
    assert [sent.payload[3] for sent in result.sent if sent.kind == RST_STREAM] == [ErrorCode.PROTOCOL_ERROR]
    with pytest.raises(h2.exceptions.ProtocolError):
        make_h2(Role.SERVER).receive_data(octets)
