"""RFC 9113 section 5.1 as a table, and as a machine: two endpoints, two pipes, any order of events.

Invariant: every step of a stream is one of the table, both sides agree on what was said, no side breaks the protocol
for the other, and where all that was sent has arrived, windows and streams add up.
"""

from __future__ import annotations

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rawws.errors import LocalProtocolError
from rawws.protocol.connection import Role
from rawws.protocol.http2 import Http2Endpoint
from rawws.protocol.http2_codes import ErrorCode
from rawws.protocol.http2_events import DataReceived, RequestReceived, StreamReset
from rawws.protocol.http2_states import STREAM_TRANSITIONS, StreamState, StreamStep
from rawws.protocol.http2_streams import Http2Stream
from rawws.protocol.http11 import Headers, Request
from tests.protocol import strategies

WINDOW = 65535


def test_the_table_is_that_of_figure_2() -> None:
    # Without push: who sends or receives HEADERS opens, END_STREAM half-closes, RST_STREAM closes.
    ends = {StreamStep.SEND_RESET, StreamStep.RECEIVE_RESET}
    assert set(STREAM_TRANSITIONS) == set(StreamState)
    for state, steps in STREAM_TRANSITIONS.items():
        assert ends <= set(steps) or state in {StreamState.IDLE, StreamState.CLOSED}
        assert all(after >= state for after in steps.values())
        assert all(steps[step] is StreamState.CLOSED for step in ends & set(steps))
    assert STREAM_TRANSITIONS[StreamState.CLOSED] == {}


@pytest.mark.parametrize("state", StreamState)
def test_the_table_is_what_runs(state: StreamState) -> None:
    ways = {
        StreamState.IDLE: [],
        StreamState.OPEN: [StreamStep.SEND_HEADERS],
        StreamState.HALF_CLOSED_LOCAL: [StreamStep.SEND_HEADERS, StreamStep.SEND_END],
        StreamState.HALF_CLOSED_REMOTE: [StreamStep.RECEIVE_HEADERS, StreamStep.RECEIVE_END],
        StreamState.CLOSED: [StreamStep.RECEIVE_HEADERS, StreamStep.SEND_RESET],
    }
    for step in StreamStep:
        stream = Http2Stream(1, WINDOW, WINDOW)
        for before in ways[state]:
            stream.step(before)
        assert stream.state == state
        assert stream.may_send() is (state in {StreamState.OPEN, StreamState.HALF_CLOSED_REMOTE})
        assert stream.may_receive() is (state in {StreamState.OPEN, StreamState.HALF_CLOSED_LOCAL})
        if step in STREAM_TRANSITIONS[state]:
            stream.step(step)
            assert stream.state == STREAM_TRANSITIONS[state][step]
        else:
            with pytest.raises(KeyError):
                stream.step(step)
            assert stream.state == state


class Side:
    """An endpoint, the octets on their way to it, and what it knows of each stream."""

    def __init__(self, role: Role) -> None:
        self.endpoint = Http2Endpoint(role)
        self.pipe = bytearray()
        self.streams: dict[int, Http2Stream] = {}
        self.sent: dict[int, bytes] = {}
        self.received: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.reset: set[int] = set()
        self.states: dict[int, int] = {}

    def receive(self, count: int) -> None:
        self.endpoint.receive(bytes(self.pipe[:count]))
        del self.pipe[:count]
        while (event := self.endpoint.next_event()) is not None:
            stream = getattr(event, "stream", None)
            if stream is None:
                continue
            assert stream.id not in self.reset, "an event after a reset"
            assert (
                stream.id not in self.ended or isinstance(event, StreamReset) or type(event).__name__ == "WindowOpened"
            )
            if isinstance(event, RequestReceived):
                self.streams[stream.id] = stream
                self.received[stream.id] = b""
            elif isinstance(event, DataReceived):
                self.received[stream.id] = self.received.get(stream.id, b"") + bytes(event.data)
            elif isinstance(event, StreamReset):
                assert event.remote, event
                self.reset.add(stream.id)
            if getattr(event, "end_stream", False) or type(event).__name__ == "TrailersReceived":
                self.ended.add(stream.id)
        self.endpoint.keep_buffer()


class StreamMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.sides = {role: Side(role) for role in Role}
        self.broken: set[int] = set()

    roles = st.sampled_from(Role)
    places = st.integers(0, 5)

    def stream(self, role: Role, place: int) -> Http2Stream | None:
        streams = list(self.sides[role].streams.values())
        return streams[place % len(streams)] if streams else None

    @rule(end=st.booleans(), method=st.sampled_from(["GET", "POST"]))
    def request(self, end: bool, method: str) -> None:
        side = self.sides[Role.CLIENT]
        stream = side.endpoint.request(Request(method, "/", Headers({"Host": "a", "X": method})), end_stream=end)
        side.streams[stream.id] = stream

    @rule(place=places, status=st.sampled_from([103, 200, 404]), end=st.booleans())
    def respond(self, place: int, status: int, end: bool) -> None:
        stream = self.stream(Role.SERVER, place)
        if stream is not None:
            allowed = stream.may_send() and not stream.answered and not (end and status < 200)
            try:
                self.sides[Role.SERVER].endpoint.respond(stream, status, Headers({"X": "y"}), end)
            except LocalProtocolError:
                assert not allowed
            else:
                assert allowed

    @rule(role=roles, place=places, size=st.sampled_from([0, 1, 100, 20000]), end=st.booleans())
    def send(self, role: Role, place: int, size: int, end: bool) -> None:
        side, stream = self.sides[role], self.stream(role, place)
        if stream is not None:
            allowed = stream.may_send() and stream.answered and size <= side.endpoint.sendable(stream)
            try:
                side.endpoint.send_data(stream, bytes([stream.id & 0xFF]) * size, end)
            except LocalProtocolError:
                assert not allowed or size == 0
            else:
                side.sent[stream.id] = side.sent.get(stream.id, b"") + bytes([stream.id & 0xFF]) * size

    @rule(role=roles, place=places)
    def trailers(self, role: Role, place: int) -> None:
        stream = self.stream(role, place)
        if stream is not None:
            allowed = stream.may_send() and stream.answered
            try:
                self.sides[role].endpoint.send_trailers(stream, Headers({"a": "b"}))
            except LocalProtocolError:
                assert not allowed
            else:
                assert allowed

    @rule(role=roles, place=places)
    def reset(self, role: Role, place: int) -> None:
        stream = self.stream(role, place)
        if stream is not None:
            self.broken.add(stream.id)
            self.sides[role].endpoint.reset(stream, ErrorCode.CANCEL)

    @rule(role=roles, place=places, count=st.sampled_from([1, 1000, 40000]))
    def acknowledge(self, role: Role, place: int, count: int) -> None:
        stream = self.stream(role, place)
        if stream is not None:
            taken = stream.target - stream.receive_window - stream.given
            self.sides[role].endpoint.acknowledge(stream, min(count, taken))

    @rule(role=roles, place=places)
    def widen(self, role: Role, place: int) -> None:
        stream = self.stream(role, place)
        if stream is not None:
            self.sides[role].endpoint.widen(stream, 100000)

    @rule(role=roles)
    def ping(self, role: Role) -> None:
        self.sides[role].endpoint.ping(bytes(8))

    @rule(role=roles)
    def write(self, role: Role) -> None:
        other = Role.SERVER if role is Role.CLIENT else Role.CLIENT
        self.sides[other].pipe += b"".join(self.sides[role].endpoint.data_to_send())

    @rule(role=roles, count=st.integers(1, 60))
    def deliver(self, role: Role, count: int) -> None:
        self.sides[role].receive(count)

    @rule(role=roles)
    def deliver_all(self, role: Role) -> None:
        self.sides[role].receive(len(self.sides[role].pipe))

    @invariant()
    def every_stream_goes_forward(self) -> None:
        for side in self.sides.values():
            assert side.endpoint.error is None
            for number, stream in side.streams.items():
                assert stream.state >= side.states.get(number, 0)
                side.states[number] = stream.state
                assert (number in side.endpoint.streams) is (stream.state != StreamState.CLOSED)

    def teardown(self) -> None:
        for _ in range(4):
            for role in Role:
                self.write(role)
            for role in Role:
                self.deliver_all(role)
        client, server = self.sides[Role.CLIENT], self.sides[Role.SERVER]
        assert not client.pipe
        assert not server.pipe
        for number, stream in client.streams.items():
            theirs = server.streams[number]
            whole = number not in self.broken
            for side, other in ((client, server), (server, client)):
                got, said = other.received.get(number, b""), side.sent.get(number, b"")
                assert got == said if whole else said.startswith(got)
            if whole:
                mirrored = {StreamState.HALF_CLOSED_LOCAL: 3, StreamState.HALF_CLOSED_REMOTE: 2}
                assert theirs.state == mirrored.get(StreamState(stream.state), stream.state)
            if StreamState.OPEN <= stream.state < StreamState.CLOSED:
                assert not stream.may_send() or stream.send_window == theirs.receive_window
                assert not theirs.may_send() or theirs.send_window == stream.receive_window
        # What was said in header fields was compressed by tables that are equal.
        for side, other in ((client, server), (server, client)):
            assert list(side.endpoint.encoder.table.entries) == list(other.endpoint.decoder.table.entries)


StreamMachine.TestCase.settings = hypothesis_settings(strategies.examples(60), stateful_step_count=30)
TestStreams = StreamMachine.TestCase
