"""permessage-deflate: negotiation, the RFC's examples, every block structure, bombs (RFC 7692 section 7)."""

from __future__ import annotations

import random
import tracemalloc
import zlib
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rawws.errors import NegotiationError, RemoteProtocolError
from rawws.protocol.connection import Connection, Role
from rawws.protocol.deflate import Compression, DeflateParameters, Deflater
from rawws.protocol.extensions import Extension, format_extensions, parse_extensions
from tests.protocol.blocks import Writer
from tests.protocol.conftest import Feed
from tests.protocol.wire import (
    COMPRESSED_BINARY,
    COMPRESSED_TEXT,
    FIRST_COMPRESSED_BINARY,
    FIRST_COMPRESSED_TEXT,
    LAST,
    MIDDLE,
    OTHER_SIDE,
    PING,
    PONG,
    TAKEOVER,
    TEXT,
    deflate_for,
    frames_in,
    octets_of,
    outcome,
    peer_frame,
)

NAME = "permessage-deflate"
NOT_VALID = (1007, "a compressed message is not valid")
# The reason is the same for text that is not UTF-8, because which of two faults is found first depends on the pieces.
NO_TEXT = NOT_VALID
HELLO = bytes.fromhex("f2 48 cd c9 c9 07 00")

PLAIN = Compression(server_no_context_takeover=False, client_no_context_takeover=False)


def accept(compression: Compression, header: str) -> tuple[str, DeflateParameters] | None:
    """What a server with this configuration answers to the value of Sec-WebSocket-Extensions."""
    accepted = compression.accept(parse_extensions(header))
    return None if accepted is None else (format_extensions([accepted[0]]), accepted[1])


def confirm(compression: Compression, header: str) -> DeflateParameters | None:
    """What a client with this configuration makes of the server's Sec-WebSocket-Extensions."""
    return compression.confirm(parse_extensions(header))


def inflated(payload: bytes) -> bytes:
    """What zlib makes of the payload of a message alone."""
    return zlib.decompressobj(-15).decompress(payload + b"\x00\x00\xff\xff")


# -- RFC 7692 section 7.2.3, verbatim


def test_7_2_3_1_a_message_compressed_using_one_compressed_deflate_block(feed: Feed) -> None:
    data = bytes.fromhex("c1 07 f2 48 cd c9 c9 07 00")
    assert feed(Role.CLIENT, data, deflate=deflate_for(Role.CLIENT)).events == [("str", "Hello")]


def test_7_2_3_1_the_same_in_fragments(feed: Feed) -> None:
    data = bytes.fromhex("41 03 f2 48 cd 80 04 c9 c9 07 00")
    assert feed(Role.CLIENT, data, deflate=deflate_for(Role.CLIENT)).events == [("str", "Hello")]


def test_7_2_3_2_sharing_lz77_sliding_window(feed: Feed) -> None:
    data = bytes.fromhex("c1 07 f2 48 cd c9 c9 07 00 c1 05 f2 00 11 00 00")
    deflate = deflate_for(Role.CLIENT, TAKEOVER)
    assert feed(Role.CLIENT, data, deflate=deflate).events == [("str", "Hello"), ("str", "Hello")]


def test_7_2_3_2_is_what_is_sent() -> None:
    for parameters, second in ((TAKEOVER, "f2 00 11 00 00"), (DeflateParameters(), "f2 48 cd c9 c9 07 00")):
        server = Connection(Role.SERVER, deflate=deflate_for(Role.SERVER, parameters))
        server.send("Hello")
        server.send("Hello")
        frames = list(frames_in(b"".join(server.data_to_send())))
        assert frames == [(COMPRESSED_TEXT, HELLO, None), (COMPRESSED_TEXT, bytes.fromhex(second), None)]


def test_a_reference_to_a_message_before_is_not_valid_without_context_takeover(feed: Feed) -> None:
    data = bytes.fromhex("c1 07 f2 48 cd c9 c9 07 00 c1 05 f2 00 11 00 00")
    result = feed(Role.CLIENT, data, deflate=deflate_for(Role.CLIENT))
    assert result.events == [("str", "Hello")]
    assert result.error == NOT_VALID


def test_7_2_3_3_using_a_deflate_block_with_no_compression(feed: Feed) -> None:
    data = bytes.fromhex("c1 0b 00 05 00 fa ff 48 65 6c 6c 6f 00")
    assert feed(Role.CLIENT, data, deflate=deflate_for(Role.CLIENT)).events == [("str", "Hello")]


def test_7_2_3_4_using_a_deflate_block_with_bfinal_set_to_1(feed: Feed) -> None:
    data = bytes.fromhex("c1 08 f3 48 cd c9 c9 07 00 00")
    for parameters in (DeflateParameters(), TAKEOVER):
        result = feed(Role.CLIENT, data * 3, deflate=deflate_for(Role.CLIENT, parameters))
        assert result.events == [("str", "Hello")] * 3


def test_7_2_3_5_two_deflate_blocks_in_one_message(feed: Feed) -> None:
    data = bytes.fromhex("c1 0d f2 48 05 00 00 00 ff ff ca c9 c9 07 00")
    assert feed(Role.CLIENT, data, deflate=deflate_for(Role.CLIENT)).events == [("str", "Hello")]


def test_7_2_3_6_an_empty_message_is_one_octet_of_zeros(feed: Feed, role: Role) -> None:
    data = peer_frame(role, COMPRESSED_TEXT, b"\x00") + peer_frame(role, COMPRESSED_BINARY, b"\x00")
    for parameters in (DeflateParameters(), TAKEOVER):
        result = feed(role, data * 2, deflate=deflate_for(role, parameters))
        assert result.events == [("str", ""), ("bytes", b"")] * 2
        connection = Connection(role, deflate=deflate_for(role, parameters))
        connection.send("")
        connection.send(b"")
        frames = [(first, payload) for first, payload, _ in frames_in(b"".join(connection.data_to_send()))]
        assert frames == [(COMPRESSED_TEXT, b"\x00"), (COMPRESSED_BINARY, b"\x00")]


def test_an_empty_payload_is_an_empty_message(feed: Feed, role: Role) -> None:
    # The four octets that the receiver appends (7.2.2) are then a stored block that is not complete; but it is empty.
    assert feed(role, peer_frame(role, COMPRESSED_BINARY), deflate=deflate_for(role)).events == [("bytes", b"")]


def test_7_2_1_fragments_may_be_cut_anywhere_and_be_empty(feed: Feed, role: Role) -> None:
    for cut in range(len(HELLO) + 1):
        data = (
            peer_frame(role, FIRST_COMPRESSED_TEXT)
            + peer_frame(role, MIDDLE, HELLO[:cut])
            + peer_frame(role, PING, b"?")
            + peer_frame(role, MIDDLE)
            + peer_frame(role, MIDDLE, HELLO[cut:])
            + peer_frame(role, LAST)
        )
        result = feed(role, data, deflate=deflate_for(role))
        assert result.events == [("Ping", b"?"), ("str", "Hello")]
        assert result.sent == [(PONG, b"?")]


def test_6_messages_may_be_compressed_or_not_in_turn(feed: Feed, role: Role) -> None:
    data = peer_frame(role, TEXT, b"one") + peer_frame(role, COMPRESSED_TEXT, HELLO) + peer_frame(role, TEXT, b"three")
    result = feed(role, data, deflate=deflate_for(role, TAKEOVER))
    assert result.events == [("str", "one"), ("str", "Hello"), ("str", "three")]


# -- block structures

PIECES = [b"", b"H", b"Hello, ", bytes(range(256)), b"\xff" * 300, b"x" * 70000]
KINDS = ["stored", "fixed", "dynamic"]


def write(writer: Writer, kind: str, data: bytes, *, final: bool) -> None:
    for at in range(0, len(data) or 1, 65535):
        getattr(writer, kind)(data[at : at + 65535], final=final)
        if final:
            writer.pad()


@pytest.mark.parametrize("kinds", list(product(KINDS, KINDS)), ids="+".join)
@pytest.mark.parametrize("finals", list(product((False, True), repeat=2)), ids=str)
def test_blocks_of_all_kinds_follow_each_other(
    feed: Feed, role: Role, kinds: tuple[str, str], finals: tuple[bool, bool]
) -> None:
    writer = Writer()
    expected = b""
    for kind, final, data in zip(kinds, finals, (b"Hello, ", bytes(range(256))), strict=True):
        write(writer, kind, data, final=final)
        expected += data
    data = peer_frame(role, COMPRESSED_BINARY, writer.payload()) * 2
    for parameters in (DeflateParameters(), TAKEOVER):
        assert feed(role, data, deflate=deflate_for(role, parameters)).events == [("bytes", expected)] * 2


blocks = st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from(PIECES[:-1]), st.booleans()), max_size=8)


@given(
    messages=st.lists(blocks, min_size=1, max_size=3),
    parameters=st.sampled_from([DeflateParameters(), TAKEOVER]),
    cuts=st.lists(st.integers(1, 400), max_size=10),
)
def test_any_structure_of_blocks_inflates(
    messages: list[list[tuple[str, bytes, bool]]], parameters: DeflateParameters, cuts: list[int]
) -> None:
    data = b""
    expected = []
    for message in messages:
        writer = Writer()
        for kind, piece, final in message:
            write(writer, kind, piece, final=final)
        data += peer_frame(Role.CLIENT, COMPRESSED_BINARY, writer.payload())
        expected.append(("bytes", b"".join(piece for _, piece, _ in message)))
    pieces = [data[sum(cuts[:i]) : sum(cuts[: i + 1])] for i in range(len(cuts))] + [data[sum(cuts) :]]
    result = outcome(Connection(Role.CLIENT, deflate=deflate_for(Role.CLIENT, parameters)), pieces)
    assert result.events == expected


@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize("distance", [1, 2, 5, 255, 256, 257, 4096, 32767, 32768])
def test_references_reach_back_over_blocks_and_over_bfinal(feed: Feed, final: bool, distance: int) -> None:
    data = random.Random(distance).randbytes(distance + 100)
    writer = Writer()
    write(writer, "stored", data, final=final)
    writer.fixed([(10, distance), (3, 1)], final=final)
    if final:
        writer.pad()
    expected = bytearray(data)
    for length, back in ((10, distance), (3, 1)):
        for _ in range(length):
            expected.append(expected[-back])
    frames = peer_frame(Role.CLIENT, COMPRESSED_BINARY, writer.payload()) * 2
    for parameters in (DeflateParameters(), TAKEOVER):
        result = feed(Role.CLIENT, frames, deflate=deflate_for(Role.CLIENT, parameters))
        assert result.events == [("bytes", bytes(expected))] * 2


@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize("distance", [1, 7, 30000, 32768])
def test_references_reach_back_over_messages_with_context_takeover(feed: Feed, final: bool, distance: int) -> None:
    before = random.Random(distance).randbytes(20000)
    first, second, third = Writer(), Writer(), Writer()
    write(first, "stored", before, final=final)
    write(second, "stored", before, final=final)
    third.fixed([(10, distance)], final=final)
    if final:
        third.pad()
    data = b"".join(peer_frame(Role.CLIENT, COMPRESSED_BINARY, w.payload()) for w in (first, second, third))
    result = feed(Role.CLIENT, data, deflate=deflate_for(Role.CLIENT, TAKEOVER))
    window = before + before
    assert len(result.events) == 3
    assert result.events[2] == ("bytes", (window[-distance:] * 10)[:10])


@pytest.mark.parametrize("parameters", [DeflateParameters(), TAKEOVER], ids=["no takeover", "takeover"])
def test_references_to_before_the_beginning_are_not_valid(feed: Feed, parameters: DeflateParameters) -> None:
    writer = Writer()
    writer.fixed([*b"Hello", (3, 6)])
    data = peer_frame(Role.CLIENT, COMPRESSED_BINARY, writer.payload())
    assert feed(Role.CLIENT, data, deflate=deflate_for(Role.CLIENT, parameters)).error == NOT_VALID
    writer = Writer()
    write(writer, "stored", b"Hello", final=True)
    writer.fixed([(3, 6)])
    data = peer_frame(Role.CLIENT, COMPRESSED_BINARY, writer.payload())
    assert feed(Role.CLIENT, data, deflate=deflate_for(Role.CLIENT, parameters)).error == NOT_VALID


@pytest.mark.parametrize("bits", range(9, 16))
def test_a_reference_beyond_the_agreed_window_has_the_same_verdict_in_any_pieces(role: Role, bits: int) -> None:
    # zlib's own check of a small window misses what comes in one call; 32768 octets are allowed to all, always.
    parameters = DeflateParameters(False, False, bits, bits)
    block = random.Random(bits).randbytes(5000)
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    payload = (compressor.compress(block * 2) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    data = peer_frame(role, COMPRESSED_BINARY, payload)
    for pieces in ([data], [data[:100], data[100:]], octets_of(data)):
        connection = Connection(role, deflate=deflate_for(role, parameters))
        assert outcome(connection, pieces).events == [("bytes", block * 2)]


@pytest.mark.parametrize(
    "payload",
    [
        b"\x07",  # the reserved block type
        b"\x06\x00",
        b"\x00\x05\x00\xfa\xfeHello\x00",  # a stored block whose length and complement disagree
        b"\x04\xff\xff\xff\xff\xff",  # a dynamic block with impossible codes
        b"\xff" * 10,
        b"Hello",
    ],
    ids=lambda payload: payload.hex(),
)
@pytest.mark.parametrize("parameters", [DeflateParameters(), TAKEOVER], ids=["no takeover", "takeover"])
def test_what_is_not_deflate_fails_with_1007(
    feed: Feed, role: Role, payload: bytes, parameters: DeflateParameters
) -> None:
    result = feed(role, peer_frame(role, COMPRESSED_TEXT, payload), deflate=deflate_for(role, parameters))
    assert result.events == []
    assert result.error == NOT_VALID


def test_a_block_behind_a_message_without_its_tail_is_not_valid(feed: Feed) -> None:
    # The tail of the flush was not removed, as 7.2.1 demands: what the receiver appends is then one more block.
    data = peer_frame(Role.CLIENT, COMPRESSED_TEXT, HELLO + b"\x00\x00\xff\xff")
    assert feed(Role.CLIENT, data, deflate=deflate_for(Role.CLIENT)).error in {None, NOT_VALID}


@pytest.mark.parametrize("parameters", [DeflateParameters(), TAKEOVER], ids=["no takeover", "takeover"])
def test_the_verdict_is_the_first_error_of_the_message(feed: Feed, parameters: DeflateParameters) -> None:
    def verdict(first: int, *parts: tuple[str, bytes], finals: int = 0, bad: bool = True) -> tuple[int, str] | None:
        writer = Writer()
        for kind, data in parts:
            write(writer, kind, data, final=False)
        for _ in range(finals):
            write(writer, "fixed", b"", final=True)
        if bad:
            writer.reserved()
        frame = peer_frame(Role.CLIENT, first, writer.payload())
        return feed(Role.CLIENT, frame, max_size=10, deflate=deflate_for(Role.CLIENT, parameters)).error

    over = (1009, "message is over 10 bytes, the limit")
    for kind in KINDS:
        assert verdict(COMPRESSED_BINARY, (kind, b"x" * 10)) == NOT_VALID
        assert verdict(COMPRESSED_BINARY, (kind, b"x" * 12), (kind, b"y" * 9)) == over
        assert verdict(COMPRESSED_BINARY, (kind, b"x" * 11)) == over
        assert verdict(COMPRESSED_TEXT, (kind, b"x" * 11)) == over
        assert verdict(COMPRESSED_TEXT, (kind, b"\xff" * 11)) == NO_TEXT
        assert verdict(COMPRESSED_TEXT, (kind, b"ok\xff"), (kind, b"y" * 4)) == NO_TEXT
        assert verdict(COMPRESSED_TEXT, (kind, b"\xff" * 12), (kind, b"y" * 9)) == NO_TEXT
        assert verdict(COMPRESSED_TEXT, (kind, b"x" * 12 + b"\xff"), (kind, b"y" * 9)) == over
        assert verdict(COMPRESSED_TEXT, (kind, b"x" * 9 + b"\xe2\x82\xac"), (kind, b"y" * 9)) == over
        assert verdict(COMPRESSED_TEXT, (kind, b"x" * 10 + b"\xff")) == over
        assert verdict(COMPRESSED_TEXT, (kind, b"x" * 9 + b"\xff" + b"y")) == NO_TEXT
        assert verdict(COMPRESSED_TEXT, (kind, b"x" * 9 + b"\xc3"), bad=False) == NO_TEXT
        assert verdict(COMPRESSED_TEXT, (kind, b"ok\xff"), finals=200) == NO_TEXT
        assert verdict(COMPRESSED_TEXT, (kind, b"x" * 12), finals=200) == over
        assert verdict(COMPRESSED_TEXT, (kind, b"x" * 11), finals=129) == over
        assert verdict(COMPRESSED_TEXT, (kind, b"ok"), finals=129) == NOT_VALID
        assert verdict(COMPRESSED_TEXT, (kind, b"ok"), finals=128) == NOT_VALID
        assert verdict(COMPRESSED_TEXT, (kind, b"ok"), finals=128, bad=False) is None


@given(
    kinds=st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from([b"", b"ok", b"\xc3", b"\xff", b"x" * 40]))),
    finals=st.sampled_from([0, 1, 130]),
    limit=st.integers(0, 50),
    damage=st.lists(st.tuples(st.integers(0, 500), st.integers(1, 255)), max_size=3),
    cuts=st.lists(st.integers(1, 60), max_size=8),
)
def test_damaged_blocks_have_the_same_verdict_in_any_pieces(
    kinds: list[tuple[str, bytes]], finals: int, limit: int, damage: list[tuple[int, int]], cuts: list[int]
) -> None:
    writer = Writer()
    for kind, data in kinds:
        write(writer, kind, data, final=False)
    for _ in range(finals):
        write(writer, "stored", b"", final=True)
    payload = bytearray(writer.payload())
    for at, change in damage:
        payload[at % len(payload)] ^= change
    data = peer_frame(Role.CLIENT, COMPRESSED_TEXT, bytes(payload))
    pieces = [data[sum(cuts[:i]) : sum(cuts[: i + 1])] for i in range(len(cuts))] + [data[sum(cuts) :]]
    results = [
        outcome(Connection(Role.CLIENT, limit, deflate_for(Role.CLIENT)), way)
        for way in ([data], pieces, octets_of(data))
    ]
    assert results[0] == results[1] == results[2]


# -- UTF-8 of compressed text


def test_compressed_text_is_checked_as_it_arrives(role: Role) -> None:
    payload = zlib.compress(b"ok \xf4\x90", wbits=-15)
    connection = Connection(role, deflate=deflate_for(role))
    result = outcome(connection, [peer_frame(role, FIRST_COMPRESSED_TEXT, payload)])
    assert result.error == NO_TEXT


def test_compressed_text_that_ends_within_a_character_fails_with_1007(feed: Feed, role: Role) -> None:
    writer = Writer()
    writer.fixed(b"ok \xe2\x82")
    data = peer_frame(role, COMPRESSED_TEXT, writer.payload())
    assert feed(role, data, deflate=deflate_for(role)).error == NO_TEXT


# -- limits and bombs


def bomb(size: int) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (compressor.compress(bytes(size)) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


@pytest.mark.parametrize("size", [0, 1, 1000, 65536])
def test_a_message_that_inflates_to_max_size_comes_and_one_byte_more_fails(feed: Feed, role: Role, size: int) -> None:
    data = peer_frame(role, COMPRESSED_BINARY, bomb(size) if size else b"\x00")
    assert feed(role, data, max_size=size, deflate=deflate_for(role)).events == [("bytes", bytes(size))]
    data = peer_frame(role, COMPRESSED_BINARY, bomb(size + 1))
    error = feed(role, data, max_size=size, deflate=deflate_for(role)).error
    assert error == (1009, f"message is over {size} bytes, the limit")


def test_a_text_that_inflates_to_max_size_comes(feed: Feed, role: Role) -> None:
    data = peer_frame(role, COMPRESSED_TEXT, bomb(1000))
    assert feed(role, data, max_size=1000, deflate=deflate_for(role)).events == [("str", "\0" * 1000)]


def test_a_compressed_binary_message_can_be_streamed(role: Role) -> None:
    connection = Connection(role, deflate=deflate_for(role))
    connection.messages.streaming = True
    result = outcome(connection, [peer_frame(role, COMPRESSED_BINARY, HELLO)])
    assert result.events == [("Fragment", b"Hello", True)]


def test_without_a_limit_anything_inflates(feed: Feed, role: Role) -> None:
    data = peer_frame(role, COMPRESSED_BINARY, bomb(5_000_000))
    assert feed(role, data, max_size=None, deflate=deflate_for(role)).events == [("bytes", bytes(5_000_000))]


@pytest.mark.parametrize("parameters", [DeflateParameters(), TAKEOVER], ids=["no takeover", "takeover"])
@pytest.mark.parametrize("first", [COMPRESSED_BINARY, COMPRESSED_TEXT])
@pytest.mark.parametrize("before", [b"", b"\x03\x00"], ids=["alone", "behind bfinal"])
def test_a_bomb_never_holds_more_than_the_limit_allows(
    first: int, parameters: DeflateParameters, before: bytes
) -> None:
    data = peer_frame(Role.CLIENT, first, before + bomb(30_000_000))
    max_size = 1 << 18
    connection = Connection(Role.CLIENT, max_size, deflate_for(Role.CLIENT, parameters))
    tracemalloc.start()
    connection.receive(data)
    with pytest.raises(RemoteProtocolError, match="over 262144 bytes"):
        connection.next_event()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * max_size + (1 << 20)


def test_inflating_stops_at_one_byte_over_the_limit() -> None:
    deflate = deflate_for(Role.CLIENT)
    for limit in (0, 1, 100, 16384, 100_000):
        for pieces in (1, 7):
            payload = bomb(10_000_000)
            total = 0
            step = len(payload) // pieces + 1
            for at in range(0, len(payload), step):
                total += len(deflate.decompress(payload[at : at + step], False, limit - total))
                if total > limit:
                    break
            assert total == limit + 1
            deflate = deflate_for(Role.CLIENT)


@pytest.mark.parametrize("length", [1, 99, 100])
def test_inflating_stops_at_one_byte_over_the_limit_behind_bfinal(length: int) -> None:
    payload = zlib.compress(b"x" * length, wbits=-15) + bomb(10_000)
    assert deflate_for(Role.CLIENT).decompress(payload, True, 100) == b"x" * length + bytes(101 - length)


@pytest.mark.parametrize("kind", ["stored", "fixed"])
def test_blocks_that_inflate_to_nothing_end_at_a_limit_of_their_own(feed: Feed, kind: str) -> None:
    writer = Writer()
    for _ in range(4):
        write(writer, kind, b"", final=False)
    writer.bits.align()
    part = writer.bits.octets()
    limit = 2 * 10 + 1024
    data = peer_frame(Role.CLIENT, COMPRESSED_BINARY, part * (limit // len(part)) + b"\x00")
    assert feed(Role.CLIENT, data, max_size=10, deflate=deflate_for(Role.CLIENT)).events == [("bytes", b"")]
    data = peer_frame(Role.CLIENT, COMPRESSED_BINARY, part * (limit // len(part) + 1))
    error = feed(Role.CLIENT, data, max_size=10, deflate=deflate_for(Role.CLIENT)).error
    assert error == (1009, "compressed message is over 1044 bytes, limit 10")
    halves = peer_frame(Role.CLIENT, FIRST_COMPRESSED_BINARY, part * 10) + peer_frame(
        Role.CLIENT, LAST, length=limit - 10 * len(part) + 1
    )
    error = feed(Role.CLIENT, halves, max_size=10, deflate=deflate_for(Role.CLIENT)).error
    assert error == (1009, "compressed message is over 1044 bytes, limit 10")


def test_a_compressed_message_may_take_twice_max_size_and_1024_bytes_in_all_its_fragments(feed: Feed) -> None:
    # Empty stored blocks of 5 bytes each, one of 3 bytes of data, and the beginning of the last one.
    payload = b"\x00\x00\x00\xff\xff" * 207 + b"\x00\x03\x00\xfc\xffabc" + b"\x00"
    assert len(payload) == 2 * 10 + 1024
    for cuts in ([], [500], [300, 600, 900]):
        parts = [payload[start:end] for start, end in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
        firsts = [FIRST_COMPRESSED_BINARY, *[MIDDLE] * len(cuts)]
        firsts[-1] = LAST if cuts else COMPRESSED_BINARY
        for extra, expected in ((b"", None), (b"\x00", (1009, "compressed message is over 1044 bytes, limit 10"))):
            parts[-1] += extra
            data = b"".join([peer_frame(Role.CLIENT, first, part) for first, part in zip(firsts, parts, strict=True)])
            found = feed(Role.CLIENT, data, max_size=10, deflate=deflate_for(Role.CLIENT))
            assert found.error == expected
            assert found.events == ([] if expected else [("bytes", b"abc")])


def test_data_that_cannot_be_compressed_fits_within_max_size(feed: Feed, role: Role) -> None:
    noise = random.Random(1).randbytes(20000)
    for level in (0, 1, 9):
        sender = Connection(OTHER_SIDE[role], deflate=deflate_for(OTHER_SIDE[role], None, Compression(level=level)))
        sender.send(noise, compress=True)
        data = b"".join(sender.data_to_send())
        assert feed(role, data, max_size=20000, deflate=deflate_for(role)).events == [("bytes", noise)]


@pytest.mark.parametrize("parameters", [DeflateParameters(), TAKEOVER], ids=["no takeover", "takeover"])
def test_a_flood_of_final_blocks_is_cheap_and_ends(parameters: DeflateParameters) -> None:
    writer = Writer()
    for _ in range(3000):
        writer.fixed(b"", final=True)
        writer.pad()
    data = peer_frame(Role.CLIENT, COMPRESSED_BINARY, writer.payload())
    connection = Connection(Role.CLIENT, 1 << 20, deflate_for(Role.CLIENT, parameters))
    assert outcome(connection, [data]).error == NOT_VALID


def test_final_blocks_are_counted_for_each_message(feed: Feed) -> None:
    writer = Writer()
    for _ in range(128):
        writer.fixed(b"x", final=True)
        writer.pad()
    data = peer_frame(Role.CLIENT, COMPRESSED_BINARY, writer.payload()) * 3
    for parameters in (DeflateParameters(), TAKEOVER):
        result = feed(Role.CLIENT, data, deflate=deflate_for(Role.CLIENT, parameters))
        assert result.events == [("bytes", b"x" * 128)] * 3


def test_an_idle_connection_without_context_takeover_holds_nothing() -> None:
    shared: dict[tuple[int, int, int], Deflater] = {}
    payload = peer_frame(Role.SERVER, COMPRESSED_BINARY, bomb(100_000))

    def use() -> Connection:
        connection = Connection(Role.SERVER, deflate=deflate_for(Role.SERVER, None, None, shared))
        connection.receive(payload)
        event = connection.next_event()
        assert isinstance(event, bytes)
        connection.send(event)
        connection.data_to_send()
        connection.keep_buffer()
        return connection

    use()
    tracemalloc.start()
    connections = [use() for _ in range(20)]
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(connections) == 20
    assert len(shared) == 1
    assert size / 20 < 5000


def test_a_compressed_message_can_be_streamed(feed: Feed, role: Role) -> None:
    data = peer_frame(role, COMPRESSED_TEXT, bomb(100_000)) + peer_frame(role, TEXT, b"next")
    result = feed(role, data, deflate=deflate_for(role), streaming=True)
    assert result.error is None
    assert result.events[-1] == ("str", "next")
    assert "".join(event[1] for event in result.events[:-1]) == "\0" * 100_000


def test_a_compressed_message_that_is_streamed_is_limited_still(feed: Feed, role: Role) -> None:
    data = peer_frame(role, COMPRESSED_BINARY, bomb(100_000))
    error = feed(role, data, max_size=50_000, deflate=deflate_for(role), streaming=True).error
    assert error == (1009, "message is over 50000 bytes, the limit")


# -- compressing

BITS = [9, 12, 15]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("takeover", [False, True])
@pytest.mark.parametrize("level", [0, 1, 6, 9])
@pytest.mark.parametrize("memory_level", [1, 8, 9])
def test_all_settings_of_the_compressor_make_messages_that_the_peer_reads(
    role: Role, bits: int, takeover: bool, level: int, memory_level: int
) -> None:
    parameters = DeflateParameters(not takeover, not takeover, bits, bits)
    settings = Compression(level=level, memory_level=memory_level, threshold=0)
    sender = Connection(role, deflate=deflate_for(role, parameters, settings))
    receiver = Connection(OTHER_SIDE[role], deflate=deflate_for(OTHER_SIDE[role], parameters))
    noise = random.Random(bits).randbytes(700)
    messages: list[str | bytes] = ["Hello", "", noise, "Hello", b"", noise * 50, noise, "\u20ac" * 5000, "Hello"]
    for message in messages:
        sender.send(message)
    result = outcome(receiver, sender.data_to_send())
    assert result.error is None
    assert [event[1] for event in result.events] == messages


@pytest.mark.parametrize("bits", range(9, 16))
def test_what_is_sent_needs_no_larger_window_than_was_agreed_on(role: Role, bits: int) -> None:
    parameters = DeflateParameters(False, False, bits, bits)
    sender = Connection(role, deflate=deflate_for(role, parameters, Compression(level=9, threshold=0)))
    stream = zlib.decompressobj(-bits)
    block = random.Random(1).randbytes(300)
    for _ in range(200):
        sender.send(block + block)
        for _, payload, _ in frames_in(b"".join(sender.data_to_send())):
            # Octet by octet zlib looks only into its window.
            inflated_octets = b"".join(stream.decompress(octet) for octet in octets_of(payload + b"\x00\x00\xff\xff"))
            assert inflated_octets == block + block


@given(st.lists(st.binary(max_size=600) | st.text(max_size=300), max_size=6), st.booleans(), st.sampled_from(Role))
def test_compressed_messages_come_as_they_were_sent(messages: list[str | bytes], takeover: bool, role: Role) -> None:
    parameters = TAKEOVER if takeover else DeflateParameters()
    sender = Connection(role, deflate=deflate_for(role, parameters))
    for message in messages:
        sender.send(message)
    receiver = Connection(OTHER_SIDE[role], deflate=deflate_for(OTHER_SIDE[role], parameters))
    assert [event[1] for event in outcome(receiver, sender.data_to_send()).events] == messages


@pytest.mark.usefixtures("compresses")
def test_without_context_takeover_each_message_stands_alone() -> None:
    deflater = Deflater(15, takeover=False, level=6, memory_level=8)
    message = b"the same words over and over, " * 10
    first = deflater.compress(message)
    assert [deflater.compress(message) for _ in range(5)] == [first] * 5
    assert inflated(first) == message


@pytest.mark.usefixtures("compresses")
def test_a_shared_compressor_leaks_nothing_between_connections() -> None:
    shared: dict[tuple[int, int, int], Deflater] = {}
    secret = random.Random(1).randbytes(500)
    one, two, alone = (
        Connection(Role.SERVER, deflate=deflate_for(Role.SERVER, None, None, table)) for table in (shared, shared, {})
    )
    one.send(secret)
    two.send(secret + b"guess")
    alone.send(secret + b"guess")
    assert two.data_to_send() == alone.data_to_send()
    assert list(shared) == [(15, 1, 8)]


def test_connections_with_context_takeover_share_no_compressor() -> None:
    shared: dict[tuple[int, int, int], Deflater] = {}
    words = b"words" * 100
    one, two = (Connection(Role.SERVER, deflate=deflate_for(Role.SERVER, TAKEOVER, None, shared)) for _ in range(2))
    one.send(words)
    first = one.data_to_send()
    two.send(words)
    assert two.data_to_send() == first
    one.send(words)
    assert len(b"".join(one.data_to_send())) < len(b"".join(first))
    assert shared == {}


@pytest.mark.usefixtures("compresses")
def test_a_connection_with_context_takeover_takes_no_compressor_of_others() -> None:
    shared: dict[tuple[int, int, int], Deflater] = {}
    alone = deflate_for(Role.SERVER, None, None, shared)
    keeping = deflate_for(Role.SERVER, TAKEOVER, None, shared)
    assert (alone.shares, keeping.shares) == (True, False)
    words = random.Random(1).randbytes(500)
    assert len(alone.compress(words)) == len(alone.compress(words))
    assert len(keeping.compress(words)) > 2 * len(keeping.compress(words))


@pytest.mark.parametrize("kept", [Role.SERVER, Role.CLIENT], ids=["server", "client"])
def test_one_side_alone_may_keep_its_context(role: Role, kept: Role) -> None:
    parameters = DeflateParameters(kept is Role.CLIENT, kept is Role.SERVER)
    sender = Connection(role, deflate=deflate_for(role, parameters))
    receiver = Connection(OTHER_SIDE[role], deflate=deflate_for(OTHER_SIDE[role], parameters))
    words = random.Random(1).randbytes(500)
    sizes = []
    for _ in range(2):
        sender.send(words)
        data = b"".join(sender.data_to_send())
        sizes.append(len(data))
        assert outcome(receiver, [data]).events == [("bytes", words)]
    assert (sizes[1] < sizes[0] // 2) is (role is kept)


@pytest.mark.parametrize("memory_level", [1, 8, 9])
@pytest.mark.parametrize("level", [1, 9])
def test_the_settings_are_those_of_zlib(level: int, memory_level: int) -> None:
    data = random.Random(1).randbytes(20_000).hex().encode()
    stream = zlib.compressobj(level, zlib.DEFLATED, -12, memory_level)
    expected = (stream.compress(data) + stream.flush(zlib.Z_SYNC_FLUSH))[:-4]
    assert Deflater(12, takeover=True, level=level, memory_level=memory_level).compress(data) == expected


@pytest.mark.parametrize("compress", [None, True, False])
@pytest.mark.parametrize("length", [0, 99, 100, 101])
def test_the_threshold_decides_unless_the_caller_does(role: Role, length: int, compress: bool | None) -> None:
    connection = Connection(role, deflate=deflate_for(role, None, Compression(threshold=100)))
    connection.send(bytes(length), compress=compress)
    ((first, _, _),) = frames_in(b"".join(connection.data_to_send()))
    expected = length >= 100 if compress is None else compress
    assert first == (COMPRESSED_BINARY if expected else 0x82)


# -- the configuration


def test_the_defaults_keep_no_context() -> None:
    assert Compression() == Compression(True, True, 15, 15, level=1, memory_level=8, threshold=1024)
    assert DeflateParameters() == DeflateParameters(True, True, 15, 15)


def test_the_option_compression_names_a_configuration() -> None:
    assert Compression.of("deflate") == Compression()
    assert Compression.of(None) is None
    assert Compression.of(PLAIN) is PLAIN
    with pytest.raises(ValueError, match="compression is 'gzip', allowed are 'deflate', None and a Compression"):
        Compression.of("gzip")
    with pytest.raises(TypeError, match="compression is True, allowed are 'deflate', None and a Compression"):
        Compression.of(True)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("level", -1, "0 to 9"),
        ("level", 10, "0 to 9"),
        ("memory_level", 0, "1 to 9"),
        ("memory_level", 10, "1 to 9"),
        ("server_max_window_bits", 8, "9 to 15"),
        ("server_max_window_bits", 16, "9 to 15"),
        ("client_max_window_bits", 8, "9 to 15"),
        ("client_max_window_bits", 16, "9 to 15"),
        ("threshold", -1, "0 and more"),
    ],
)
def test_a_setting_out_of_range_is_a_value_error(name: str, value: int, allowed: str) -> None:
    wrong: dict[str, Any] = {name: value}
    with pytest.raises(ValueError, match=f"{name} is {value}.*allowed are {allowed}"):
        Compression(**wrong)


# -- the server's side of the negotiation (7.1)

BOTH_FLAGS = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"


@pytest.mark.parametrize(
    ("compression", "offer", "answer", "parameters"),
    [
        # 7.1.3: the simplest offer.
        (PLAIN, NAME, NAME, (False, False, 15, 15)),
        (Compression(), NAME, BOTH_FLAGS, (True, True, 15, 15)),
        # 7.1.1.1: what is asked for must be granted.
        (PLAIN, f"{NAME}; server_no_context_takeover", f"{NAME}; server_no_context_takeover", (True, False, 15, 15)),
        # 7.1.1.2: a hint of the client; granting it saves memory.
        (PLAIN, f"{NAME}; client_no_context_takeover", f"{NAME}; client_no_context_takeover", (False, True, 15, 15)),
        # 7.1.2.1: the same value or a smaller one.
        (PLAIN, f"{NAME}; server_max_window_bits=15", f"{NAME}; server_max_window_bits=15", (False, False, 15, 15)),
        (PLAIN, f"{NAME}; server_max_window_bits=10", f"{NAME}; server_max_window_bits=10", (False, False, 10, 15)),
        (PLAIN, f"{NAME}; server_max_window_bits=9", f"{NAME}; server_max_window_bits=9", (False, False, 9, 15)),
        (PLAIN, f'{NAME}; server_max_window_bits="10"', f"{NAME}; server_max_window_bits=10", (False, False, 10, 15)),
        (
            Compression(server_no_context_takeover=False, client_no_context_takeover=False, server_max_window_bits=9),
            f"{NAME}; server_max_window_bits=12",
            f"{NAME}; server_max_window_bits=9",
            (False, False, 9, 15),
        ),
        (
            Compression(server_no_context_takeover=False, client_no_context_takeover=False, server_max_window_bits=9),
            NAME,
            f"{NAME}; server_max_window_bits=9",
            (False, False, 9, 15),
        ),
        # 7.1.2.2: the client can use fewer bits, if it says so.
        (PLAIN, f"{NAME}; client_max_window_bits", NAME, (False, False, 15, 15)),
        (
            Compression(server_no_context_takeover=False, client_no_context_takeover=False, client_max_window_bits=10),
            f"{NAME}; client_max_window_bits",
            f"{NAME}; client_max_window_bits=10",
            (False, False, 15, 10),
        ),
        (
            Compression(server_no_context_takeover=False, client_no_context_takeover=False, client_max_window_bits=10),
            f"{NAME}; client_max_window_bits=12",
            f"{NAME}; client_max_window_bits=10",
            (False, False, 15, 10),
        ),
        (PLAIN, f"{NAME}; client_max_window_bits=12", f"{NAME}; client_max_window_bits=12", (False, False, 15, 12)),
        (PLAIN, f"{NAME}; client_max_window_bits=8", f"{NAME}; client_max_window_bits=8", (False, False, 15, 8)),
        (PLAIN, f"{NAME}; client_max_window_bits=15", NAME, (False, False, 15, 15)),
        # And must not be told to, if it did not.
        (
            Compression(server_no_context_takeover=False, client_no_context_takeover=False, client_max_window_bits=10),
            NAME,
            NAME,
            (False, False, 15, 15),
        ),
        # What browsers offer.
        (Compression(), f"{NAME}; client_max_window_bits", BOTH_FLAGS, (True, True, 15, 15)),
        # 7.1.3: the first acceptable offer is taken.
        (PLAIN, f"{NAME}; server_max_window_bits=8, {NAME}", NAME, (False, False, 15, 15)),
        (
            PLAIN,
            f"{NAME}; server_max_window_bits=10, {NAME}",
            f"{NAME}; server_max_window_bits=10",
            (False, False, 10, 15),
        ),
        (PLAIN, f"x-webkit-deflate-frame, {NAME}; unknown, {NAME}", NAME, (False, False, 15, 15)),
    ],
)
def test_an_offer_is_accepted(
    compression: Compression, offer: str, answer: str, parameters: tuple[bool, bool, int, int]
) -> None:
    accepted = accept(compression, offer)
    assert accepted is not None
    assert parse_extensions(accepted[0]) == parse_extensions(answer)
    assert accepted[1] == DeflateParameters(*parameters)


@pytest.mark.parametrize(
    "offer",
    [
        "x-webkit-deflate-frame",
        "permessage-bzip2",
        f"{NAME}; unknown",
        f"{NAME}; unknown=1",
        f"{NAME}; Server_No_Context_Takeover",
        f"{NAME}; server_no_context_takeover=1",
        f"{NAME}; client_no_context_takeover=true",
        f"{NAME}; server_max_window_bits",
        f"{NAME}; server_max_window_bits=8",
        f"{NAME}; server_max_window_bits=7",
        f"{NAME}; server_max_window_bits=16",
        f"{NAME}; server_max_window_bits=010",
        f"{NAME}; server_max_window_bits=+10",
        f"{NAME}; server_max_window_bits=1e1",
        f"{NAME}; client_max_window_bits=7",
        f"{NAME}; client_max_window_bits=16",
        f"{NAME}; client_max_window_bits=08",
        f"{NAME}; client_max_window_bits=-9",
        f"{NAME}; client_max_window_bits=x",
        f"{NAME}; server_no_context_takeover; server_no_context_takeover",
        f"{NAME}; client_no_context_takeover; client_no_context_takeover",
        f"{NAME}; server_max_window_bits=10; server_max_window_bits=10",
        f"{NAME}; client_max_window_bits; client_max_window_bits=10",
        f"{NAME}; server_max_window_bits=8, {NAME}; unknown",
    ],
)
def test_an_offer_is_declined(offer: str) -> None:
    assert accept(PLAIN, offer) is None
    assert accept(Compression(), offer) is None


def test_digits_of_other_scripts_are_no_number() -> None:
    offers: list[Extension] = [(NAME, [("server_max_window_bits", "\u0661\u0660")])]
    assert PLAIN.accept(offers) is None


def test_no_offer_is_declined() -> None:
    assert Compression().accept([]) is None


# -- the client's side


@pytest.mark.parametrize(
    ("compression", "offer", "without_limits"),
    [
        (
            Compression(),
            f"{BOTH_FLAGS}; client_max_window_bits",
            f"{NAME}; client_no_context_takeover; client_max_window_bits",
        ),
        (PLAIN, f"{NAME}; client_max_window_bits", None),
        (
            Compression(server_max_window_bits=10, client_max_window_bits=11),
            f"{BOTH_FLAGS}; server_max_window_bits=10; client_max_window_bits=11",
            f"{NAME}; client_no_context_takeover; client_max_window_bits=11",
        ),
        (
            Compression(False, False, server_max_window_bits=10),
            f"{NAME}; server_max_window_bits=10; client_max_window_bits",
            f"{NAME}; client_max_window_bits",
        ),
    ],
)
def test_a_client_offers_what_it_is_configured_for_and_then_what_limits_the_server_in_nothing(
    compression: Compression, offer: str, without_limits: str | None
) -> None:
    assert format_extensions([compression.offer()]) == offer
    assert format_extensions(compression.offers()) == ", ".join(filter(None, [offer, without_limits]))


@pytest.mark.parametrize(
    ("compression", "answer", "parameters"),
    [
        (PLAIN, NAME, (False, False, 15, 15)),
        (PLAIN, f"{NAME}; server_no_context_takeover", (True, False, 15, 15)),
        (PLAIN, f"{NAME}; client_no_context_takeover", (False, True, 15, 15)),
        (PLAIN, f"{NAME}; server_max_window_bits=10", (False, False, 10, 15)),
        (PLAIN, f"{NAME}; server_max_window_bits=8", (False, False, 8, 15)),
        (PLAIN, f"{NAME}; client_max_window_bits=10", (False, False, 15, 10)),
        (Compression(), BOTH_FLAGS, (True, True, 15, 15)),
        # 7.1.1.2: what the client said of itself holds, whether the server repeats it or not.
        (Compression(), f"{NAME}; server_no_context_takeover", (True, True, 15, 15)),
        (
            Compression(client_max_window_bits=10, server_no_context_takeover=False),
            NAME,
            (False, True, 15, 10),
        ),
        (
            Compression(client_max_window_bits=10, server_no_context_takeover=False),
            f"{NAME}; client_max_window_bits=9",
            (False, True, 15, 9),
        ),
        # 7.1.2.2: its value is a hint, which holds "even if the server" answers "with a value greater than the one in
        # the extension negotiation offer".
        (
            Compression(client_max_window_bits=10, server_no_context_takeover=False),
            f"{NAME}; client_max_window_bits=12",
            (False, True, 15, 10),
        ),
        (
            Compression(server_max_window_bits=10, server_no_context_takeover=False),
            f"{NAME}; server_max_window_bits=10",
            (False, True, 10, 15),
        ),
        (
            Compression(server_max_window_bits=10, server_no_context_takeover=False),
            f"{NAME}; server_max_window_bits=9",
            (False, True, 9, 15),
        ),
        # The second offer: Tornado and Mojolicious answer so, and so does Netty, which declines the first.
        (Compression(), NAME, (False, True, 15, 15)),
        (Compression(), f"{NAME}; client_no_context_takeover", (False, True, 15, 15)),
        (Compression(server_max_window_bits=10), NAME, (False, True, 15, 15)),
        (Compression(server_max_window_bits=10), f"{NAME}; server_no_context_takeover", (True, True, 15, 15)),
    ],
)
def test_an_answer_is_confirmed(compression: Compression, answer: str, parameters: tuple[bool, bool, int, int]) -> None:
    assert confirm(compression, answer) == DeflateParameters(*parameters)


def test_no_answer_means_no_compression() -> None:
    assert Compression().confirm([]) is None


@pytest.mark.parametrize(
    ("compression", "answer", "reason"),
    [
        (PLAIN, "x-webkit-deflate-frame", "the server chose the extension 'x-webkit-deflate-frame'"),
        (PLAIN, f"{NAME}, x-other", "the server chose the extension 'x-other'"),
        (PLAIN, f"{NAME}, {NAME}", "the server chose 'permessage-deflate' 2 times"),
        (PLAIN, f"{NAME}; unknown", "unknown parameter 'unknown'"),
        (
            PLAIN,
            f"{NAME}; server_no_context_takeover=1",
            "server_no_context_takeover has the value '1', allowed is none",
        ),
        (PLAIN, f"{NAME}; server_max_window_bits", "server_max_window_bits is None, allowed are 8 to 15"),
        (PLAIN, f"{NAME}; client_max_window_bits", "client_max_window_bits is None, allowed are 8 to 15"),
        (PLAIN, f"{NAME}; server_max_window_bits=16", "server_max_window_bits is '16', allowed are 8 to 15"),
        (PLAIN, f"{NAME}; server_max_window_bits=09", "server_max_window_bits is '09', allowed are 8 to 15"),
        (PLAIN, f"{NAME}; client_max_window_bits=7", "client_max_window_bits is '7', allowed are 8 to 15"),
        (PLAIN, f"{NAME}; client_max_window_bits=8", "client_max_window_bits is 8, this client can do 9 to 15"),
        (PLAIN, f"{NAME}; server_max_window_bits=9; server_max_window_bits=9", "server_max_window_bits' twice"),
        (
            Compression(server_max_window_bits=10, server_no_context_takeover=False),
            f"{NAME}; server_max_window_bits=11",
            "server_max_window_bits is 11, offered were at most 10",
        ),
    ],
)
def test_an_answer_that_is_none_to_our_offer_fails_the_handshake(
    compression: Compression, answer: str, reason: str
) -> None:
    with pytest.raises(NegotiationError) as caught:
        confirm(compression, answer)
    assert caught.value.status == 101
    assert reason in caught.value.reason


configurations = st.builds(
    Compression,
    server_no_context_takeover=st.booleans(),
    client_no_context_takeover=st.booleans(),
    server_max_window_bits=st.integers(9, 15),
    client_max_window_bits=st.integers(9, 15),
    threshold=st.just(0),
)


@given(ours=configurations, theirs=configurations, messages=st.lists(st.binary(max_size=300), max_size=3))
def test_any_two_configurations_agree_and_then_understand_each_other(
    ours: Compression, theirs: Compression, messages: list[bytes]
) -> None:
    accepted = ours.accept(parse_extensions(format_extensions(theirs.offers())))
    assert accepted is not None
    answer, server_side = accepted
    client_side = theirs.confirm(parse_extensions(format_extensions([answer])))
    assert client_side is not None
    assert client_side.server_no_context_takeover == server_side.server_no_context_takeover
    assert client_side.client_no_context_takeover == server_side.client_no_context_takeover
    assert client_side.server_max_window_bits == server_side.server_max_window_bits
    assert client_side.client_max_window_bits <= server_side.client_max_window_bits
    server = Connection(Role.SERVER, deflate=deflate_for(Role.SERVER, server_side, ours))
    client = Connection(Role.CLIENT, deflate=deflate_for(Role.CLIENT, client_side, theirs))
    for message in messages * 2:
        server.send(message)
        client.send(message)
    expected = [("bytes", message) for message in messages * 2]
    from_server, from_client = server.data_to_send(), client.data_to_send()
    assert outcome(server, from_client).events == expected
    assert outcome(client, from_server).events == expected
