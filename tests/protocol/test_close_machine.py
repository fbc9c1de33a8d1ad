"""The closing handshake as a machine: two connections, two pipes, any order of events (RFC 6455 section 7).

Invariant: each side sends at most one Close frame and nothing behind it, every step is one of the table, and once a
side wants to close, both come to an end with the codes of section 7.1.5.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rawws.errors import Close, ConnectionClosed, ConnectionClosedError, ConnectionClosedOK, RemoteProtocolError
from rawws.protocol.connection import Connection, Role
from rawws.protocol.phases import TRANSITIONS, Phase, State, Step
from tests.protocol import strategies
from tests.protocol.wire import CLOSE, OTHER_SIDE, PING, TEXT, frames_in, peer_frame

SENDABLE = [1000, 1001, 1005, 1011, 3000, 4999]


def reachable(start: Phase) -> set[Phase]:
    """The phases that the table allows from here on, this one among them."""
    found = {start}
    todo = [start]
    while todo:
        for phase in TRANSITIONS[todo.pop()].values():
            if phase not in found:
                found.add(phase)
                todo.append(phase)
    return found


REACHABLE = {phase: reachable(phase) for phase in Phase}
# What section 7 allows to be sent in: nothing behind a Close frame of this side.
MAY_SEND = {Phase.OPEN, Phase.CLOSE_RECEIVED, Phase.VIOLATED}


class Side:
    """A connection, the octets on their way to it, and what it did so far."""

    def __init__(self, role: Role) -> None:
        self.role = role
        self.connection = Connection(role)
        self.pipe = bytearray()
        self.sent = bytearray()
        self.closes: list[Close] = []
        self.errors: list[RemoteProtocolError] = []
        self.phase = Phase.OPEN
        self.cut = False

    def receive(self, count: int) -> None:
        """Take so many octets out of the pipe."""
        data = bytes(self.pipe[:count])
        del self.pipe[:count]
        self.connection.receive(data)
        try:
            while (event := self.connection.next_event()) is not None:
                assert not self.errors, "an event after an error"
                assert not self.closes, "an event after a close"
                if isinstance(event, Close):
                    self.closes.append(event)
        except RemoteProtocolError as error:
            self.errors.append(error)

    def end(self) -> None:
        """TCP ends: what is on its way is lost."""
        self.cut = True
        self.pipe.clear()
        self.connection.receive_eof()


class ClosingMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.sides = {role: Side(role) for role in Role}

    roles = st.sampled_from(Role)

    def flush(self, side: Side) -> None:
        data = b"".join(side.connection.data_to_send())
        side.sent += data
        other = self.sides[OTHER_SIDE[side.role]]
        if not other.cut and not side.cut:
            other.pipe += data

    # -- what an application does

    @rule(role=roles, what=st.sampled_from(["text", "bytes", "fragment", "ping", "pong"]))
    def send(self, role: Role, what: str) -> None:
        connection = self.sides[role].connection
        allowed = Phase(connection.phase) in MAY_SEND
        try:
            if what == "text":
                connection.send("text")
            elif what == "bytes":
                connection.send(bytes(130))
            elif what == "fragment":
                connection.send_fragment(0x1, b"all of it", final=True)
            elif what == "ping":
                connection.ping(b"?")
            else:
                connection.pong(b"!")
        except ConnectionClosed:
            assert not allowed
        else:
            assert allowed

    @rule(role=roles, code=st.sampled_from(SENDABLE))
    def close(self, role: Role, code: int) -> None:
        self.sides[role].connection.close(code, "" if code == 1005 else "why")

    @rule(role=roles, code=st.sampled_from([1001, 1008, 1011]))
    def fail(self, role: Role, code: int) -> None:
        self.sides[role].connection.fail(code, "why")

    @rule(role=roles, hold=st.booleans())
    def hold_pongs(self, role: Role, hold: bool) -> None:
        if hold:
            self.sides[role].connection.hold_pongs = True
        else:
            self.sides[role].connection.release_pong()

    # -- what the network does

    @rule(role=roles)
    def write(self, role: Role) -> None:
        self.flush(self.sides[role])

    @precondition(lambda self: any(side.pipe for side in self.sides.values()))
    @rule(role=roles, count=st.integers(1, 20))
    def deliver(self, role: Role, count: int) -> None:
        self.sides[role].receive(count)

    @precondition(lambda self: any(side.pipe for side in self.sides.values()))
    @rule(role=roles)
    def deliver_all(self, role: Role) -> None:
        self.sides[role].receive(len(self.sides[role].pipe))

    @rule(role=roles)
    def end(self, role: Role) -> None:
        self.sides[role].end()

    # -- what a broken or hostile peer does

    @rule(role=roles, first=st.sampled_from([0x83, 0xF1, PING & 0x7F, 0x80]))
    def break_a_rule(self, role: Role, first: int) -> None:
        if not self.sides[role].cut:
            self.sides[role].pipe += peer_frame(role, first)

    @rule(role=roles, payload=st.sampled_from([b"", b"\x03", b"\x03\xed", b"\x03\xe8\xff", b"\x03\xe9late"]))
    def send_another_close(self, role: Role, payload: bytes) -> None:
        if not self.sides[role].cut:
            self.sides[role].pipe += peer_frame(role, CLOSE, payload)

    # -- what holds always

    @invariant()
    def every_step_is_one_of_the_table(self) -> None:
        for side in self.sides.values():
            phase = Phase(side.connection.phase)
            assert phase in REACHABLE[side.phase]
            side.phase = phase

    @invariant()
    def at_most_one_close_is_sent_and_nothing_behind_it(self) -> None:
        for side in self.sides.values():
            firsts = [first for first, _, _ in frames_in(bytes(side.sent))]
            assert CLOSE not in firsts[:-1]

    @invariant()
    def close_codes_are_those_of_7_1_5(self) -> None:
        for side in self.sides.values():
            assert len(side.closes) <= 1
            assert len(side.errors) <= 1
            closed = side.connection.closed()
            assert closed.code == (side.closes[0].code if side.closes else 1006)
            assert closed.rcvd == (side.closes[0] if side.closes else None)

    @invariant()
    def the_state_is_that_of_the_phase(self) -> None:
        for side in self.sides.values():
            state = side.connection.state
            assert (state is State.OPEN) is (side.connection.phase == Phase.OPEN)
            assert (state is State.CLOSED) is (side.connection.phase == Phase.ENDED)

    def teardown(self) -> None:
        """From wherever it is now: one side closes, the network delivers, and both end."""
        client, server = self.sides[Role.CLIENT], self.sides[Role.SERVER]
        client.connection.close()
        for _ in range(3):
            for side in (client, server):
                self.flush(side)
            for side in (client, server):
                side.receive(len(side.pipe))
        for side in (client, server):
            lost = client.cut or server.cut
            assert lost or side.connection.phase in {Phase.CLOSE_DONE, Phase.FAILED}
            assert not side.pipe
        self.at_most_one_close_is_sent_and_nothing_behind_it()
        self.every_step_is_one_of_the_table()
        for side in (client, server):
            side.end()
            assert side.connection.phase == Phase.ENDED
            assert side.connection.data_to_send() == []
            self.every_step_is_one_of_the_table()
            closed = side.connection.closed()
            sent = [payload for first, payload, _ in frames_in(bytes(side.sent)) if first == CLOSE]
            # A Close frame that was gathered and never written may be known to the connection alone.
            if sent:
                assert closed.sent is not None
                assert sent[0][:2] == (b"" if closed.sent.code == 1005 else closed.sent.code.to_bytes(2, "big"))
            normal = {1000, 1001, 1005}
            both_normal = (
                closed.rcvd is not None and closed.sent is not None and {closed.rcvd.code, closed.sent.code} <= normal
            )
            assert type(closed) is (ConnectionClosedOK if both_normal else ConnectionClosedError)


ClosingMachine.TestCase.settings = settings(strategies.examples(150), stateful_step_count=30)
TestClosing = ClosingMachine.TestCase


# -- the table


def in_phase(role: Role, phase: Phase) -> Connection:
    """A connection brought to this phase by its public methods."""
    connection = Connection(role)
    if phase is Phase.CLOSE_SENT:
        connection.close()
    elif phase in {Phase.CLOSE_RECEIVED, Phase.CLOSE_DONE}:
        connection.receive(peer_frame(role, CLOSE))
        assert connection.next_event() == Close(1005, "")
        if phase is Phase.CLOSE_DONE:
            connection.data_to_send()
    elif phase is Phase.VIOLATED:
        connection.receive(peer_frame(role, 0x83))
        with pytest.raises(RemoteProtocolError):
            connection.next_event()
    elif phase is Phase.FAILED:
        connection.fail(1011, "")
    elif phase is Phase.ENDED:
        connection.receive_eof()
    assert connection.phase == phase
    return connection


@pytest.mark.parametrize("phase", Phase)
def test_the_table_is_what_runs(role: Role, phase: Phase) -> None:
    for step in Step:
        connection = in_phase(role, phase)
        if step in TRANSITIONS[phase]:
            connection.step(step)
            assert connection.phase == TRANSITIONS[phase][step]
        else:
            with pytest.raises(KeyError):
                connection.step(step)
            assert connection.phase == phase


def test_a_changed_table_changes_what_runs(role: Role, monkeypatch: pytest.MonkeyPatch) -> None:
    connections = [Connection(role) for _ in range(4)]
    for step in TRANSITIONS[Phase.OPEN]:
        monkeypatch.setitem(TRANSITIONS[Phase.OPEN], step, Phase.ENDED)
    connections[0].close()
    connections[1].fail(1011, "")
    connections[2].receive(peer_frame(role, CLOSE))
    connections[2].next_event()
    connections[3].receive_eof()
    assert [connection.state for connection in connections] == [State.CLOSED] * 4


def test_the_table_ends_and_never_goes_back() -> None:
    assert set(TRANSITIONS) == set(Phase)
    assert TRANSITIONS[Phase.ENDED] == {}
    for phase, steps in TRANSITIONS.items():
        assert phase is Phase.ENDED or steps[Step.END] is Phase.ENDED
        assert all(after > phase for after in steps.values())
    assert REACHABLE[Phase.OPEN] == set(Phase)


@pytest.mark.parametrize("phase", Phase)
def test_in_each_phase_only_what_section_7_allows_is_sent(role: Role, phase: Phase) -> None:
    def attempts() -> Iterator[bool]:
        connection = in_phase(role, phase)
        connection.take_data()
        for message in ("x", b"x"):
            try:
                connection.send(message)
            except ConnectionClosed:
                yield False
            else:
                yield True

    assert set(attempts()) == {phase in MAY_SEND}
    connection = in_phase(role, phase)
    connection.take_data()
    connection.receive(peer_frame(role, PING, b"?") + peer_frame(role, TEXT, b"x"))
    events = [connection.next_event(), connection.next_event()]
    assert events == ([(b"?",), "x"] if phase <= Phase.CLOSE_SENT else [None, None])
    assert [first for first, _, _ in frames_in(b"".join(connection.take_data()))] == (
        [0x8A] if phase is Phase.OPEN else []
    )
