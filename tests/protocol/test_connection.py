"""The connection: the closing handshake, pings, masking keys, misuse (RFC 6455 sections 5.3, 5.5 and 7)."""

from __future__ import annotations

import os
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from rawws.errors import (
    Close,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    LocalProtocolError,
    RemoteProtocolError,
)
from rawws.protocol.connection import Connection, Ping, Pong, Role
from rawws.protocol.frames import FrameWriter
from rawws.protocol.phases import State
from tests.protocol.conftest import Feed
from tests.protocol.wire import (
    BINARY,
    CLOSE,
    FIRST_TEXT,
    LAST,
    MIDDLE,
    OTHER_SIDE,
    PING,
    PONG,
    TEXT,
    deflate_for,
    frame,
    frames_in,
    octets_of,
    outcome,
    peer_frame,
    sent_by,
)

NORMAL = b"\x03\xe8"


def sent(connection: Connection) -> list[tuple[int, bytes]]:
    return [(first, payload) for first, payload, _ in sent_by(connection)]


def state_of(connection: Connection) -> State:
    """The state, which mypy would otherwise believe to be what was asserted before."""
    return connection.state


def outcome_before_settling(connection: Connection, data: bytes) -> None:
    """Have the connection take all events, and not answer a Close yet."""
    connection.receive(data)
    while connection.next_event() is not None:
        pass


# -- pings


@pytest.mark.parametrize("payload", [b"", b"Hello", bytes(125)])
def test_a_ping_is_answered_with_its_payload(feed: Feed, role: Role, payload: bytes) -> None:
    result = feed(role, peer_frame(role, PING, payload))
    assert result == ([("Ping", payload)], None, [(PONG, payload)])


def test_a_pong_is_an_event_and_is_not_answered(feed: Feed, role: Role) -> None:
    assert feed(role, peer_frame(role, PONG, b"Hello")) == ([("Pong", b"Hello")], None, [])


def test_ping_and_pong_send_their_payload(role: Role) -> None:
    connection = Connection(role)
    connection.ping(b"1")
    connection.pong(b"2")
    connection.ping(bytes(125))
    connection.pong(bytes(125))
    assert sent(connection) == [(PING, b"1"), (PONG, b"2"), (PING, bytes(125)), (PONG, bytes(125))]


@pytest.mark.parametrize("method", ["ping", "pong"])
@pytest.mark.parametrize("length", [126, 65536])
def test_a_control_frame_of_over_125_bytes_is_not_sent(role: Role, method: str, length: int) -> None:
    connection = Connection(role)
    with pytest.raises(LocalProtocolError, match=f"{method} payload is {length} bytes, limit 125"):
        getattr(connection, method)(bytes(length))
    assert connection.data_to_send() == []


@pytest.mark.parametrize("method", ["ping", "pong"])
@pytest.mark.parametrize("payload", ["text", 5, None])
def test_a_ping_or_pong_that_is_no_bytes_is_a_type_error(role: Role, method: str, payload: object) -> None:
    connection = Connection(role)
    with pytest.raises(TypeError):
        getattr(connection, method)(payload)
    assert connection.data_to_send() == []


def test_held_pongs_are_one_for_the_last_ping(role: Role) -> None:
    connection = Connection(role)
    connection.hold_pongs = True
    assert outcome(connection, [peer_frame(role, PING, b"%d" % i) for i in range(1000)]).sent == []
    connection.release_pong()
    assert sent(connection) == [(PONG, b"999")]
    connection.release_pong()
    assert sent(connection) == []
    assert outcome(connection, [peer_frame(role, PING, b"next")]).sent == [(PONG, b"next")]


def test_whatever_is_true_holds_pongs(role: Role) -> None:
    connection = Connection(role)
    connection.hold_pongs = True
    assert connection.hold_pongs is True
    # In an octet of C this were nothing.
    connection.hold_pongs = 256  # type: ignore[assignment]
    assert outcome(connection, [peer_frame(role, PING, b"1")]).sent == []
    connection.hold_pongs = False
    assert connection.hold_pongs is False


def test_a_held_pong_is_not_sent_after_a_close(role: Role) -> None:
    connection = Connection(role)
    connection.hold_pongs = True
    outcome(connection, [peer_frame(role, PING, b"1")])
    connection.close()
    connection.release_pong()
    assert sent(connection) == [(CLOSE, NORMAL)]


def test_a_ping_after_our_close_is_an_event_and_is_not_answered(role: Role) -> None:
    connection = Connection(role)
    connection.close()
    result = outcome(connection, [peer_frame(role, PING, b"1")])
    assert result == ([("Ping", b"1")], None, [(CLOSE, NORMAL)])


# -- the closing handshake


@pytest.mark.parametrize(
    ("payload", "code", "reason"),
    [(b"", 1005, ""), (NORMAL, 1000, ""), (b"\x03\xe9bye", 1001, "bye"), (b"\x13\x87" + b"x" * 123, 4999, "x" * 123)],
)
def test_a_close_is_an_event_and_its_code_and_reason_are_echoed(
    feed: Feed, role: Role, payload: bytes, code: int, reason: str
) -> None:
    result = feed(role, peer_frame(role, CLOSE, payload))
    assert result == ([("Close", code, reason)], None, [(CLOSE, payload)])


def test_after_the_close_of_the_peer_nothing_counts(feed: Feed, role: Role) -> None:
    data = peer_frame(role, CLOSE, NORMAL) + peer_frame(role, TEXT, b"late") + peer_frame(role, PING) + b"\xff" * 20
    result = feed(role, data)
    assert result == ([("Close", 1000, "")], None, [(CLOSE, NORMAL)])


@pytest.mark.parametrize(
    ("payload", "code"), [(b"\x03", 1002), (b"\x03\xed", 1002), (b"\x00\x00", 1002), (NORMAL + b"\xff", 1007)]
)
def test_a_bad_close_fails_the_connection(feed: Feed, role: Role, payload: bytes, code: int) -> None:
    result = feed(role, peer_frame(role, CLOSE, payload))
    assert result.events == []
    assert result.error is not None
    assert result.error[0] == code
    assert [(first, body[:2]) for first, body in result.sent] == [(CLOSE, code.to_bytes(2, "big"))]


def test_a_bad_close_after_our_close_is_an_error_and_is_not_answered(role: Role) -> None:
    connection = Connection(role)
    connection.close(1001, "bye")
    result = outcome(connection, [peer_frame(role, CLOSE, b"\x03")])
    assert result.error is not None
    assert result.sent == [(CLOSE, b"\x03\xe9bye")]


def test_we_close_and_the_peer_answers(role: Role) -> None:
    connection = Connection(role)
    assert state_of(connection) is State.OPEN
    connection.close(1000, "bye")
    assert state_of(connection) is State.CLOSING
    assert sent(connection) == [(CLOSE, b"\x03\xe8bye")]
    result = outcome(connection, [peer_frame(role, TEXT, b"on its way"), peer_frame(role, CLOSE, NORMAL)])
    assert result == ([("str", "on its way"), ("Close", 1000, "")], None, [])
    assert state_of(connection) is State.CLOSING
    connection.receive_eof()
    assert state_of(connection) is State.CLOSED
    closed = connection.closed()
    assert isinstance(closed, ConnectionClosedOK)
    assert (closed.rcvd, closed.sent, closed.rcvd_then_sent) == (Close(1000, ""), Close(1000, "bye"), False)
    assert (closed.code, closed.reason) == (1000, "")
    assert str(closed) == "received 1000; sent 1000 (bye)"


def test_the_peer_closes_and_we_answer(role: Role) -> None:
    connection = Connection(role)
    outcome(connection, [peer_frame(role, CLOSE, b"\x03\xe9bye")])
    assert state_of(connection) is State.CLOSING
    closed = connection.closed()
    assert isinstance(closed, ConnectionClosedOK)
    assert (closed.rcvd, closed.sent, closed.rcvd_then_sent) == (Close(1001, "bye"), Close(1001, "bye"), True)


def test_both_close_at_once(role: Role) -> None:
    here, there = Connection(role), Connection(OTHER_SIDE[role])
    here.close(1000, "here")
    there.close(1001, "there")
    from_here, from_there = here.data_to_send(), there.data_to_send()
    assert outcome(here, from_there) == ([("Close", 1001, "there")], None, [])
    assert outcome(there, from_here) == ([("Close", 1000, "here")], None, [])
    assert here.closed().code == 1001
    assert there.closed().code == 1000


def test_a_second_close_does_nothing(role: Role) -> None:
    connection = Connection(role)
    connection.close(1000)
    connection.close(1001)
    assert sent(connection) == [(CLOSE, NORMAL)]
    outcome(connection, [peer_frame(role, CLOSE)])
    connection.close()
    assert sent(connection) == []


def test_a_close_without_a_code_is_1005(role: Role) -> None:
    connection = Connection(role)
    connection.close(1005)
    assert sent(connection) == [(CLOSE, b"")]
    outcome(connection, [peer_frame(role, CLOSE)])
    assert isinstance(connection.closed(), ConnectionClosedOK)
    assert connection.closed().code == 1005


@pytest.mark.parametrize(
    ("code", "reason"), [(999, ""), (1004, ""), (1006, ""), (1015, ""), (5000, ""), (1000, "x" * 124)]
)
def test_a_close_that_may_not_be_sent_raises_and_changes_nothing(role: Role, code: int, reason: str) -> None:
    connection = Connection(role)
    with pytest.raises(LocalProtocolError):
        connection.close(code, reason)
    assert state_of(connection) is State.OPEN
    assert connection.data_to_send() == []


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1011, 3000, 4000])
def test_a_code_that_is_no_normal_end_is_an_error(role: Role, code: int) -> None:
    connection = Connection(role)
    outcome(connection, [peer_frame(role, CLOSE, code.to_bytes(2, "big"))])
    assert isinstance(connection.closed(), ConnectionClosedError)
    connection = Connection(role)
    connection.close(code)
    outcome(connection, [peer_frame(role, CLOSE, NORMAL)])
    assert isinstance(connection.closed(), ConnectionClosedError)


def test_the_end_of_tcp_without_a_close_is_1006(role: Role) -> None:
    connection = Connection(role)
    connection.receive_eof()
    connection.receive_eof()
    assert state_of(connection) is State.CLOSED
    closed = connection.closed()
    assert isinstance(closed, ConnectionClosedError)
    assert (closed.code, closed.reason, closed.rcvd, closed.sent) == (1006, "", None, None)
    assert str(closed) == "the connection ended without a close frame"
    assert connection.data_to_send() == []


def test_the_end_of_tcp_after_our_close_is_1006(role: Role) -> None:
    connection = Connection(role)
    connection.close()
    connection.receive_eof()
    closed = connection.closed()
    assert isinstance(closed, ConnectionClosedError)
    assert (closed.code, closed.sent) == (1006, Close(1000, ""))
    assert str(closed) == "no close frame received; sent 1000"


def test_data_after_the_end_is_ignored(role: Role) -> None:
    connection = Connection(role)
    connection.receive_eof()
    assert outcome(connection, [peer_frame(role, TEXT, b"late"), b"\xff\xff"]) == ([], None, [])


# -- failures


def test_a_failure_sends_its_code_and_reason_and_ignores_what_follows(feed: Feed, role: Role) -> None:
    data = peer_frame(role, TEXT, b"before") + peer_frame(role, 0x83) + peer_frame(role, TEXT, b"behind")
    result = feed(role, data + peer_frame(role, CLOSE, NORMAL))
    reason = "opcode is 0x3, allowed are 0x0 to 0x2 and 0x8 to 0xa"
    assert result == ([("str", "before")], (1002, reason), [(CLOSE, b"\x03\xea" + reason.encode())])


def test_a_failure_after_our_close_sends_no_second_one(role: Role) -> None:
    connection = Connection(role)
    connection.close(1001)
    result = outcome(connection, [peer_frame(role, 0x83), peer_frame(role, CLOSE, NORMAL)])
    assert result.error is not None
    assert result.error[0] == 1002
    assert result.events == []
    assert result.sent == [(CLOSE, b"\x03\xe9")]
    closed = connection.closed()
    assert (closed.code, closed.rcvd, closed.sent) == (1006, None, Close(1001, ""))


def test_a_failed_connection_is_closing_until_tcp_ends(role: Role) -> None:
    connection = Connection(role)
    connection.receive(peer_frame(role, 0x83))
    with pytest.raises(RemoteProtocolError):
        connection.next_event()
    assert connection.next_event() is None
    assert state_of(connection) is State.CLOSING
    assert isinstance(connection.closed(), ConnectionClosedError)
    assert [first for first, _ in sent(connection)] == [CLOSE]
    with pytest.raises(ConnectionClosedError, match="no close frame received; sent 1002"):
        connection.send("late")
    connection.receive_eof()
    assert state_of(connection) is State.CLOSED


@pytest.mark.parametrize("end", [b"\x03\xe9bye", b"\x03"], ids=["a close", "a violation"])
def test_what_came_before_the_end_is_answered_before_the_close(role: Role, end: bytes) -> None:
    connection = Connection(role)
    connection.receive(peer_frame(role, TEXT, b"question") + peer_frame(role, CLOSE, end))
    assert connection.next_event() == "question"
    if len(end) == 1:
        with pytest.raises(RemoteProtocolError):
            connection.next_event()
    else:
        assert connection.next_event() == Close(1001, "bye")
    assert connection.next_event() is None
    connection.send("answer")
    assert b"".join(connection.take_data()).endswith(b"answer") or role is Role.CLIENT
    connection.ping(b"!")
    assert [first for first, _ in sent(connection)] == [PING, CLOSE]
    with pytest.raises(ConnectionClosed):
        connection.send("late")


def test_our_own_code_may_answer_the_close_of_the_peer(role: Role) -> None:
    connection = Connection(role)
    outcome_before_settling(connection, peer_frame(role, CLOSE, b"\x03\xe9bye"))
    connection.close(1000, "so long")
    connection.close(1001, "again")
    assert sent(connection) == [(CLOSE, b"\x03\xe8so long")]
    closed = connection.closed()
    assert (closed.rcvd, closed.sent, closed.rcvd_then_sent) == (Close(1001, "bye"), Close(1000, "so long"), True)


def test_a_failure_may_answer_the_close_of_the_peer(role: Role) -> None:
    connection = Connection(role)
    outcome_before_settling(connection, peer_frame(role, CLOSE, NORMAL))
    connection.fail(1011, "the handler raised")
    assert sent(connection) == [(CLOSE, b"\x03\xf3the handler raised")]
    closed = connection.closed()
    assert isinstance(closed, ConnectionClosedError)
    assert closed.code == 1000


def test_a_close_that_was_not_answered_before_tcp_ended_stays_so(role: Role) -> None:
    connection = Connection(role)
    outcome_before_settling(connection, peer_frame(role, CLOSE, NORMAL))
    connection.receive_eof()
    assert connection.data_to_send() == []
    closed = connection.closed()
    assert isinstance(closed, ConnectionClosedError)
    assert (closed.code, closed.sent) == (1000, None)
    assert str(closed) == "received 1000; no close frame sent"


@pytest.mark.parametrize("reason", ["", "keepalive ping timeout", "x" * 200, "\u20ac" * 100, "x" + "\u20ac" * 100])
def test_fail_sends_as_much_of_its_reason_as_fits(role: Role, reason: str) -> None:
    connection = Connection(role)
    connection.fail(1011, reason)
    ((first, payload),) = sent(connection)
    assert (first, payload[:2]) == (CLOSE, b"\x03\xf3")
    assert reason.startswith(payload[2:].decode())
    assert len(payload) >= min(2 + len(reason.encode()), 123)
    assert connection.close_sent == Close(1011, payload[2:].decode())
    connection.fail(1002, "again")
    connection.close(1000)
    assert sent(connection) == []


def test_fail_sends_what_utf_8_can_hold_of_its_reason(role: Role) -> None:
    connection = Connection(role)
    connection.fail(1011, "half a pair: \ud83d")
    assert sent(connection) == [(CLOSE, b"\x03\xf3half a pair: ?")]


def test_fail_after_both_closes_does_nothing(role: Role) -> None:
    connection = Connection(role)
    outcome(connection, [peer_frame(role, CLOSE, NORMAL)])
    connection.fail(1011, "late")
    assert connection.data_to_send() == []
    assert isinstance(connection.closed(), ConnectionClosedOK)


def test_fail_with_a_code_that_may_not_be_sent_changes_nothing(role: Role) -> None:
    connection = Connection(role)
    with pytest.raises(LocalProtocolError, match="close code is 1006"):
        connection.fail(1006, "")
    assert state_of(connection) is State.OPEN
    assert connection.close_sent is None
    connection.send("still there")
    assert sent(connection) == [(TEXT, b"still there")]


def test_fail_ignores_what_was_received_and_not_read(role: Role) -> None:
    connection = Connection(role)
    connection.receive(peer_frame(role, TEXT, b"unread"))
    connection.fail(1001, "")
    assert connection.next_event() is None


# -- sending


def test_text_and_bytes_have_their_opcodes(role: Role) -> None:
    connection = Connection(role)
    connection.send("h\u00e9")
    connection.send(b"\xff")
    connection.send("")
    connection.send(b"")
    assert sent(connection) == [(TEXT, b"h\xc3\xa9"), (BINARY, b"\xff"), (TEXT, b""), (BINARY, b"")]


@pytest.mark.parametrize("message", [None, 5, 5.0, ["x"], bytearray(b"x"), memoryview(b"x"), object()])
def test_a_message_that_is_neither_str_nor_bytes_is_a_type_error(role: Role, message: Any) -> None:
    connection = Connection(role)
    with pytest.raises(TypeError, match=f"message is {type(message).__name__}, allowed are str and bytes"):
        connection.send(message)
    assert connection.data_to_send() == []


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "not what it is"

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return b"not what it is"


class Octets(bytes):
    __slots__ = ()


def test_subclasses_of_str_and_bytes_are_sent_as_what_they_are(role: Role) -> None:
    connection = Connection(role)
    connection.send(Text("one"))
    connection.send(Octets(b"two"))
    connection.send(Octets(bytes(4096)))
    chunks = connection.data_to_send()
    assert {type(chunk) for chunk in chunks} == {bytes}
    assert [(first, payload) for first, payload, _ in frames_in(b"".join(chunks))] == [
        (TEXT, b"one"),
        (BINARY, b"two"),
        (BINARY, bytes(4096)),
    ]


def test_text_that_utf_8_cannot_hold_is_not_sent(role: Role) -> None:
    connection = Connection(role)
    with pytest.raises(LocalProtocolError, match="surrogate"):
        connection.send("half a pair: \ud83d")
    assert connection.data_to_send() == []


def test_fragments_are_sent_one_by_one(role: Role) -> None:
    connection = Connection(role)
    connection.send_fragment(0x1, b"Hel", final=False)
    connection.ping(b"between")
    connection.send_fragment(0x0, b"l", final=False)
    connection.send_fragment(0x0, b"o", final=True)
    assert sent(connection) == [(FIRST_TEXT, b"Hel"), (PING, b"between"), (MIDDLE, b"l"), (LAST, b"o")]


def test_frames_that_were_encoded_before_leave_in_their_order() -> None:
    connection = Connection(Role.SERVER)
    connection.send("one")
    connection.send_frames(frame(TEXT, b"two") + frame(BINARY, b"three"))
    connection.send("four")
    octets = b"".join(connection.data_to_send())
    assert octets == frame(TEXT, b"one") + frame(TEXT, b"two") + frame(BINARY, b"three") + frame(TEXT, b"four")


@pytest.mark.parametrize("end", ["our close", "the peer's close", "a failure", "the end of tcp"])
def test_nothing_is_sent_after_the_close(role: Role, end: str) -> None:
    connection = Connection(role)
    if end == "our close":
        connection.close()
    elif end == "the peer's close":
        outcome(connection, [peer_frame(role, CLOSE)])
    elif end == "a failure":
        outcome(connection, [peer_frame(role, 0x83)])
    else:
        connection.receive_eof()
    connection.data_to_send()
    calls: list[tuple[Any, ...]] = [
        (connection.send, "x"),
        (connection.send, b"x"),
        (connection.send_fragment, 0x1, b"x", True),
        (connection.send_frames, frame(TEXT, b"x")),
        (connection.ping, b""),
        (connection.pong, b""),
    ]
    for method, *arguments in calls:
        with pytest.raises(ConnectionClosed):
            method(*arguments)
    assert connection.data_to_send() == []


def test_misuse_is_told_before_the_state(role: Role) -> None:
    connection = Connection(role)
    connection.close()
    with pytest.raises(TypeError, match="message is int"):
        connection.send(5)  # type: ignore[arg-type]
    with pytest.raises(LocalProtocolError, match="close code is 1"):
        connection.close(1)


# -- what waits


def test_pending_counts_what_data_to_send_returns(role: Role) -> None:
    connection = Connection(role)
    assert connection.pending() == 0
    total = 0
    for length in (0, 125, 126, 16384, 65536):
        connection.send(bytes(length))
        total = connection.pending()
    assert total == len(b"".join(connection.data_to_send()))
    assert connection.pending() == 0
    assert connection.data_to_send() == []


def test_connections_share_writers_and_mix_nothing_up() -> None:
    writers: list[FrameWriter] = []
    connections = [Connection(Role.SERVER, writers=writers) for _ in range(3)]
    for turn in range(3):
        for number, connection in enumerate(connections):
            connection.send(f"{turn} {number}")
        assert [sent(connection) for connection in connections] == [
            [(TEXT, f"{turn} {number}".encode())] for number in range(3)
        ]
        assert len(writers) == 3
    for connection in connections:
        connection.send("alone")
        assert sent(connection) == [(TEXT, b"alone")]
    assert len(writers) == 3


# -- masking keys


class Random:
    """A random source that counts, and remembers how much was asked for."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.drawn = b""

    def __call__(self, count: int) -> bytes:
        self.calls.append(count)
        block = os.urandom(count)
        self.drawn += block
        return block


def test_a_client_draws_keys_in_blocks_and_uses_each_once() -> None:
    random = Random()
    client = Connection(Role.CLIENT, random=random)
    assert random.calls == []
    for number in range(600):
        client.send(f"{number}")
    keys = [key for _, _, key in sent_by(client)]
    assert keys == [random.drawn[i : i + 4] for i in range(0, 2400, 4)]
    assert len(random.calls) <= 600 // 100


def test_every_frame_of_a_client_has_a_key_of_its_own() -> None:
    client = Connection(Role.CLIENT)
    client.send("x")
    client.send(bytes(70000))
    client.send_fragment(0x1, b"", final=False)
    client.ping(b"")
    client.pong(b"")
    client.send_fragment(0x0, b"", final=True)
    client.receive(peer_frame(Role.CLIENT, PING))
    client.next_event()
    client.receive(peer_frame(Role.CLIENT, CLOSE))
    client.next_event()
    keys = [key for _, _, key in sent_by(client)]
    assert len(keys) == 8
    assert None not in keys
    assert len(set(keys)) == 8


def test_two_clients_do_not_share_keys() -> None:
    drawn = []
    for _ in range(2):
        client = Connection(Role.CLIENT)
        client.send("x")
        drawn.append(sent_by(client)[0].key)
    assert drawn[0] != drawn[1]


def repeated(block: bytes, count: int) -> bytes:
    return block * (count // len(block))


def test_keys_of_all_bits_go_out_as_drawn() -> None:
    for block in (b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x80\x00\x00\x01", b"\x01\x02\x03\xfe"):
        client = Connection(Role.CLIENT, random=partial(repeated, block))
        client.send("Hello")
        assert sent_by(client) == [(TEXT, b"Hello", block)]


def test_a_random_source_that_falls_short_is_an_error_and_no_frame() -> None:
    client = Connection(Role.CLIENT, random=lambda _count: b"\x01\x02")
    for _ in range(2):
        with pytest.raises(ValueError, match="random"):
            client.send("Hello")


def test_a_server_draws_no_keys() -> None:
    random = Random()
    server = Connection(Role.SERVER, random=random)
    server.send("x")
    server.close()
    assert [key for _, _, key in sent_by(server)] == [None, None]
    assert random.calls == []


# -- compression


@pytest.mark.parametrize("message", ["x" * 2000, b"x" * 2000])
def test_a_message_over_the_threshold_is_compressed_unless_told_otherwise(role: Role, message: str | bytes) -> None:
    first = TEXT if isinstance(message, str) else BINARY
    connection = Connection(role, deflate=deflate_for(role))
    connection.send(message)
    connection.send(message, compress=True)
    connection.send(message, compress=False)
    frames = sent(connection)
    assert [octet for octet, _ in frames] == [first | 0x40, first | 0x40, first]
    assert len(frames[0][1]) < 100
    assert len(frames[2][1]) == 2000


def test_compression_that_was_not_negotiated_is_not_used(role: Role) -> None:
    connection = Connection(role)
    connection.send("x" * 2000, compress=True)
    assert sent(connection) == [(TEXT, b"x" * 2000)]


def test_events_have_names_and_fields() -> None:
    assert Ping(b"x").payload == Pong(b"x").payload == b"x"
    assert repr(Ping(b"x")) == "Ping(payload=b'x')"


def test_everything_works_octet_by_octet_between_two_connections() -> None:
    client, server = Connection(Role.CLIENT), Connection(Role.SERVER)
    client.send("Hello")
    client.ping(b"?")
    client.close(1000, "bye")
    result = outcome(server, octets_of(b"".join(client.data_to_send())))
    assert result.events == [("str", "Hello"), ("Ping", b"?"), ("Close", 1000, "bye")]
    assert result.sent == [(PONG, b"?"), (CLOSE, b"\x03\xe8bye")]


def test_frames_of_one_read_never_overlap() -> None:
    server = Connection(Role.SERVER)
    for i in range(300):
        server.send(bytes([i & 255]) * i)
    chunks = b"".join(server.data_to_send())
    payloads = [payload for _, payload, _ in frames_in(chunks)]
    assert all(len(b) == len(a) + 1 for a, b in pairwise(payloads))


def test_what_was_received_is_unprocessed_until_its_last_message_is_taken(role: Role) -> None:
    connection = Connection(role)
    assert not connection.has_unprocessed()
    connection.receive(peer_frame(role, TEXT, b"one") + peer_frame(role, BINARY, b"two"))
    assert connection.has_unprocessed()
    assert connection.next_event() == "one"
    assert connection.has_unprocessed()
    assert connection.next_event() == b"two"
    assert not connection.has_unprocessed()


def test_what_was_received_behind_a_close_is_not_unprocessed(role: Role) -> None:
    connection = Connection(role)
    outcome_before_settling(connection, peer_frame(role, CLOSE, NORMAL) + peer_frame(role, TEXT, b"late"))
    assert not connection.has_unprocessed()
