"""Large messages in pieces: inflated and deflated by several calls, in the order of all that is sent (RFC 7692)."""

from __future__ import annotations

import random
import zlib

import pytest

from rawws.errors import ConnectionClosed, RemoteProtocolError
from rawws.protocol.connection import Connection, Inflated, Pong, Role
from rawws.protocol.deflate import STEP, Compression
from rawws.protocol.messages import Fragment
from rawws.protocol.opcodes import TEXT
from tests.protocol.blocks import Writer
from tests.protocol.wire import (
    CLOSE,
    COMPRESSED_BINARY,
    COMPRESSED_TEXT,
    PING,
    TAKEOVER,
    deflate_for,
    frames_in,
    peer_frame,
)

pytestmark = pytest.mark.usefixtures("compresses")

PIECE = 1000
# What waits behind a message, at most.
BEHIND = 1 << 20
LARGE = b"".join(b"%d," % (number * number) for number in range(5 * STEP // 10))
SETTINGS = [None, TAKEOVER]


def endpoint(role: Role, parameters: object = None, max_size: int | None = None) -> Connection:
    connection = Connection(role, max_size, deflate_for(role, parameters, Compression(threshold=100)))  # type: ignore[arg-type]
    assert connection.deflate is not None
    connection.deflate.piece_size = PIECE
    return connection


def compressed(data: bytes) -> bytes:
    compressor = zlib.compressobj(1, zlib.DEFLATED, -15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def events_of(connection: Connection) -> list[object]:
    found: list[object] = []
    while (event := connection.next_event()) is not None:
        found.append(event)
    return found


# -- inflating


@pytest.mark.parametrize("count", [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 7 * PIECE + 5])
@pytest.mark.parametrize("first", [COMPRESSED_TEXT, COMPRESSED_BINARY])
def test_a_message_comes_in_its_place_after_its_pieces(first: int, count: int, role: Role) -> None:
    data = LARGE[:count]
    connection = endpoint(role)
    connection.receive(peer_frame(role, first, compressed(data)) + peer_frame(role, PING, b"behind"))
    *pieces, message, ping = events_of(connection)
    assert pieces == [Inflated(PIECE)] * (count // PIECE)
    assert message == (data.decode() if first == COMPRESSED_TEXT else data)
    assert ping == (b"behind",)


def test_text_is_cut_within_characters_and_stays_whole(role: Role) -> None:
    text = "a€" * PIECE
    connection = endpoint(role)
    connection.receive(peer_frame(role, COMPRESSED_TEXT, compressed(text.encode())))
    assert events_of(connection) == [*[Inflated(PIECE)] * 4, text]


def test_what_is_streamed_comes_in_pieces(role: Role) -> None:
    connection = endpoint(role)
    connection.messages.streaming = True
    connection.receive(peer_frame(role, COMPRESSED_BINARY, compressed(LARGE[: 2 * PIECE + 5])))
    assert events_of(connection) == [
        Fragment(LARGE[:PIECE], False),
        Fragment(LARGE[PIECE : 2 * PIECE], False),
        Fragment(LARGE[2 * PIECE : 2 * PIECE + 5], True),
    ]


@pytest.mark.parametrize("parameters", SETTINGS)
@pytest.mark.parametrize("size", [PIECE, 2 * PIECE - 1, 2 * PIECE])
def test_blocks_with_bfinal_go_on_at_the_edge_of_a_piece(size: int, parameters: object, role: Role) -> None:
    writer = Writer()
    writer.stored(LARGE[:size], final=True)
    writer.stored(LARGE[size : size + 10], final=True)
    writer.stored(b"", final=False)
    connection = endpoint(role, parameters)
    payload = writer.bits.octets()
    # The tail that the receiver appends is the end of the empty block.
    connection.receive(peer_frame(role, COMPRESSED_BINARY, payload[:-4]))
    assert events_of(connection)[-1] == LARGE[: size + 10]


def test_the_limit_holds_over_pieces_whatever_is_left(role: Role) -> None:
    for size, message in ((3 * PIECE, True), (3 * PIECE + 1, False), (1 << 20, False)):
        connection = endpoint(role, max_size=3 * PIECE)
        connection.receive(peer_frame(role, COMPRESSED_BINARY, compressed(bytes(size))))
        pieces = [connection.next_event() for _ in range(3)]
        assert pieces == [Inflated(PIECE)] * 3
        if message:
            assert connection.next_event() == bytes(size)
            continue
        with pytest.raises(RemoteProtocolError) as caught:
            connection.next_event()
        assert caught.value.close_code == 1009


def test_a_limit_that_is_lowered_in_the_middle_holds_for_the_rest(role: Role) -> None:
    connection = endpoint(role)
    connection.receive(peer_frame(role, COMPRESSED_BINARY, compressed(bytes(5 * PIECE))))
    assert connection.next_event() == Inflated(PIECE)
    connection.limit(10, None, False)
    with pytest.raises(RemoteProtocolError) as caught:
        connection.next_event()
    assert caught.value.close_code == 1009


@pytest.mark.parametrize("parameters", SETTINGS)
def test_an_octet_that_is_not_valid_fails_behind_the_pieces_before_it(parameters: object, role: Role) -> None:
    writer = Writer()
    writer.stored(LARGE[: 2 * PIECE + 1])
    connection = endpoint(role, parameters)
    # A block of type 3 (RFC 1951 section 3.2.3: "reserved (error)").
    connection.receive(peer_frame(role, COMPRESSED_BINARY, writer.bits.octets() + b"\x07" * 10))
    assert [connection.next_event() for _ in range(2)] == [Inflated(PIECE)] * 2
    with pytest.raises(RemoteProtocolError) as caught:
        connection.next_event()
    assert caught.value.close_code == 1007


def test_the_end_of_tcp_lets_go_of_what_is_not_inflated(role: Role) -> None:
    connection = endpoint(role)
    connection.receive(peer_frame(role, COMPRESSED_BINARY, compressed(bytes(1 << 20))))
    assert connection.next_event() == Inflated(PIECE)
    connection.receive_eof()
    assert connection.next_event() is None
    assert connection.deflate is not None
    assert connection.deflate.rest is None


# -- deflating


def messages_at_the_peer(role: Role, parameters: object, octets: bytes) -> list[object]:
    peer = endpoint(Role.CLIENT if role is Role.SERVER else Role.SERVER, parameters)
    peer.receive(octets)
    return [event for event in events_of(peer) if not isinstance(event, Inflated)]


def steps(connection: Connection) -> int:
    """Compress all that waits, and return in how many steps."""
    count = 1
    while connection.deflate_piece():
        count += 1
    return count


@pytest.mark.parametrize("parameters", SETTINGS)
def test_what_is_sent_behind_a_large_message_comes_behind_it(parameters: object, role: Role) -> None:
    connection = endpoint(role, parameters)
    small = "x" * 200
    for message in ("before", LARGE, small, b"plain", b"", LARGE[:5000], LARGE[::-1]):
        connection.send(message, None if message else True)
    connection.send_fragment(TEXT, b"frag", False)
    connection.send_fragment(0, b"ment", True)
    connection.ping(b"overtakes")
    before = b"".join(connection.take_data())
    assert messages_at_the_peer(role, parameters, before) == ["before", (b"overtakes",)]
    # Messages of one step have a step each, if only where they wait for the compressor.
    assert steps(connection) >= 2 * -(-len(LARGE) // STEP)
    assert connection.backlog is None
    octets = b"".join(connection.take_data())
    got = messages_at_the_peer(role, parameters, octets)
    assert got == [LARGE, small, b"plain", b"", LARGE[:5000], LARGE[::-1], "fragment"]
    first, payload, _ = next(frames_in(octets))
    assert first == COMPRESSED_BINARY
    assert len(payload) < len(LARGE) // 2
    connection.send("after")
    assert messages_at_the_peer(role, None, b"".join(connection.take_data())) == ["after"]
    assert not connection.deflate_piece()


def test_a_close_waits_behind_and_pongs_do_not(role: Role) -> None:
    connection = endpoint(role)
    connection.send(LARGE)
    connection.receive(peer_frame(role, PING, b"now"))
    assert connection.next_event() == (b"now",)
    assert messages_at_the_peer(role, None, b"".join(connection.take_data())) == [Pong(b"now")]
    connection.close(1000, "bye")
    with pytest.raises(ConnectionClosed):
        connection.send("late")
    assert connection.take_data() == []
    steps(connection)
    message, close = messages_at_the_peer(role, None, b"".join(connection.take_data()))
    assert (message, close) == (LARGE, (1000, "bye"))


def test_a_violation_of_the_peer_is_answered_behind_what_was_sent(role: Role) -> None:
    connection = endpoint(role)
    connection.send(LARGE)
    connection.receive(peer_frame(role, 0x83))
    with pytest.raises(RemoteProtocolError):
        connection.next_event()
    assert connection.data_to_send() == []
    steps(connection)
    frames = list(frames_in(b"".join(connection.take_data())))
    assert [frame.first for frame in frames] == [COMPRESSED_BINARY, CLOSE]


def test_more_than_a_mebibyte_behind_it_has_it_compressed_at_once(role: Role) -> None:
    connection = endpoint(role)
    noise = random.Random(1).randbytes(BEHIND // 4)
    connection.send(LARGE)
    for _ in range(4):
        connection.send(noise, compress=False)
    assert connection.pending() == 0
    connection.send(b"one more")
    assert connection.pending() > BEHIND
    steps(connection)
    octets = b"".join(connection.take_data())
    assert messages_at_the_peer(role, None, octets) == [LARGE, *[noise] * 4, b"one more"]


def test_the_end_of_tcp_lets_go_of_what_is_not_compressed(role: Role) -> None:
    connection = endpoint(role)
    connection.send(LARGE)
    connection.deflate_piece()
    connection.receive_eof()
    assert connection.backlog is None
    assert not connection.deflate_piece()


def test_one_job_serves_many_connections_and_ends_for_all() -> None:
    one, other = endpoint(Role.SERVER), endpoint(Role.SERVER)
    assert one.deflate is not None
    job = one.deflate.begin(LARGE)
    for connection in (one, other):
        connection.send_job(TEXT, job)
        connection.send_frames(b"\x81\x02hi")
    count = -(-len(LARGE) // STEP)
    assert [one.deflate_piece() for _ in range(count - 1)] == [True] * (count - 1)
    # The last step, which the other does, is the last for both.
    assert not other.deflate_piece()
    assert not one.deflate_piece()
    for connection in (one, other):
        octets = b"".join(connection.take_data())
        assert messages_at_the_peer(Role.SERVER, None, octets) == [LARGE.decode(), "hi"]
    one.close()
    with pytest.raises(ConnectionClosed):
        one.send_job(TEXT, job)
