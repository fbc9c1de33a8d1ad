"""RFC 9113 sections 4 and 6: frames in any pieces, their sizes and their streams; hyperframe as the oracle."""

from __future__ import annotations

import pytest
from hyperframe.frame import FRAMES, DataFrame, Frame, HeadersFrame
from hypothesis import given
from hypothesis import strategies as st

from rawws.errors import Http2Error
from rawws.protocol.http2_codes import ErrorCode, FrameFlag, FrameType
from rawws.protocol.http2_frames import Http2FrameReader, Http2FrameWriter
from tests.protocol import strategies
from tests.protocol.http2_wire import (
    ACK,
    CONTINUATION,
    DATA,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Sent,
    frame,
    frames_in,
)

MAX_FRAME = 16384


def read(pieces: list[bytes]) -> list[tuple[int, int, int, bytes]]:
    """The frames in these pieces, their padding left out."""
    reader = Http2FrameReader(MAX_FRAME)
    found = []
    content = bytearray()
    for piece in pieces:
        reader.feed(bytearray(piece), len(piece))
        while reader.in_frame or reader.read_header():
            if reader.kind == DATA:
                view = reader.take_view()
                content += b"" if view is None else view
                if reader.in_frame:
                    break
                found.append((reader.kind, reader.flags, reader.stream_id, bytes(content)))
                content.clear()
            elif reader.has_payload():
                found.append((reader.kind, reader.flags, reader.stream_id, reader.take()))
            else:
                break
        reader.keep()
    return found


def refused(octets: bytes) -> tuple[int, str]:
    with pytest.raises(Http2Error) as caught:
        read([octets])
    return caught.value.error_code, caught.value.reason


def test_the_numbers_are_those_of_the_oracle() -> None:
    assert {kind.value for kind in FrameType} == set(FRAMES) - {0xA}
    assert FrameFlag.PADDED == PADDED
    assert int(FrameFlag.ACK) == int(FrameFlag.END_STREAM) == ACK


def test_the_reserved_bit_is_ignored() -> None:
    assert read([frame(DATA, 0, 0x80000001, b"x")]) == [(DATA, 0, 1, b"x")]


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (frame(DATA, 0, 1, length=MAX_FRAME + 1), "a frame has 16385 bytes, limit 16384"),
        (frame(RST_STREAM, 0, 1, b"123"), "a frame of type RST_STREAM has 3 bytes, not 4"),
        (frame(WINDOW_UPDATE, 0, 0, b"12345"), "a frame of type WINDOW_UPDATE has 5 bytes, not 4"),
        (frame(PING, 0, 0, b"1234567"), "a frame of type PING has 7 bytes, not 8"),
        (frame(SETTINGS, 0, 0, b"12345"), "a SETTINGS frame has 5 bytes, not 6 for each setting"),
        (frame(SETTINGS, ACK, 0, b"123456"), "a SETTINGS frame has 6 bytes, not 6 for each setting"),
        (frame(GOAWAY, 0, 0, b"1234567"), "a GOAWAY frame has 7 bytes, at least 8 are needed"),
        (frame(DATA, PADDED, 1), "a padded frame is empty, it has not even its Pad Length"),
        (frame(HEADERS, PADDED, 1), "a padded frame is empty, it has not even its Pad Length"),
    ],
)
def test_a_frame_of_a_wrong_size_is_refused(octets: bytes, reason: str) -> None:
    assert refused(octets) == (ErrorCode.FRAME_SIZE_ERROR, reason)


@pytest.mark.parametrize("kind", [DATA, HEADERS, PRIORITY, PUSH_PROMISE, CONTINUATION])
def test_a_frame_of_a_stream_is_not_on_stream_0(kind: int) -> None:
    code, reason = refused(frame(kind, 0, 0, b"12345"))
    assert (code, reason) == (ErrorCode.PROTOCOL_ERROR, f"a frame of type {FrameType(kind).name} is on stream 0")


@pytest.mark.parametrize(("kind", "size"), [(SETTINGS, 0), (PING, 8), (GOAWAY, 8)])
def test_a_frame_of_the_connection_is_on_stream_0(kind: int, size: int) -> None:
    code, reason = refused(frame(kind, 0, 3, bytes(size)))
    assert (code, reason) == (
        ErrorCode.PROTOCOL_ERROR,
        f"a frame of type {FrameType(kind).name} is on stream 3, not on 0",
    )


def test_rst_stream_is_not_on_stream_0_and_unknown_frames_may_be() -> None:
    assert refused(frame(RST_STREAM, 0, 0, b"1234"))[0] == ErrorCode.PROTOCOL_ERROR
    assert read([frame(0xF0, 0xFF, 0, b"x")]) == [(0xF0, 0xFF, 0, b"x")]


@pytest.mark.parametrize("kind", [DATA, HEADERS])
def test_padding_that_is_no_less_than_the_frame_is_refused(kind: int) -> None:
    code, reason = refused(frame(kind, PADDED, 1, b"\x03abc"[:3]))
    assert (code, reason) == (ErrorCode.PROTOCOL_ERROR, "a frame of 3 bytes has 3 bytes of padding, which is no less")
    assert read([frame(kind, PADDED, 1, b"\x02\0\0")]) == [(kind, PADDED, 1, b"")]


frames = st.one_of(
    st.builds(
        lambda stream, content, pad, end: DataFrame(
            stream, content, pad_length=pad, flags=[*(["PADDED"] if pad else []), *(["END_STREAM"] if end else [])]
        ).serialize(),
        st.integers(1, 9),
        st.binary(max_size=40),
        st.integers(0, 20),
        st.booleans(),
    ),
    st.builds(
        lambda stream, content, pad: HeadersFrame(
            stream, content, pad_length=pad, flags=["PADDED"] if pad else []
        ).serialize(),
        st.integers(1, 9),
        st.binary(min_size=1, max_size=40),
        st.integers(0, 20),
    ),
    st.builds(frame, st.just(PING), st.integers(0, 255), st.just(0), st.binary(min_size=8, max_size=8)),
    st.builds(frame, st.integers(16, 255), st.integers(0, 255), st.integers(0, 9), st.binary(max_size=20)),
)


def oracle(octets: bytes) -> list[tuple[int, int, int, bytes]]:
    found = []
    at = 0
    while at < len(octets):
        parsed, length = Frame.parse_frame_header(memoryview(octets[at : at + 9]))
        parsed.parse_body(memoryview(octets[at + 9 : at + 9 + length]))
        body = parsed.body if hasattr(parsed, "body") else getattr(parsed, "data", getattr(parsed, "opaque_data", b""))
        found.append((octets[at + 3], octets[at + 4], parsed.stream_id, bytes(getattr(parsed, "data", body))))
        at += 9 + length
    return found


@strategies.examples(300)
@given(data=st.data(), parts=st.lists(frames, max_size=6))
def test_frames_of_the_oracle_are_read_in_any_pieces(data: st.DataObject, parts: list[bytes]) -> None:
    octets = b"".join(parts)
    expected = [(kind, flags, stream, content) for kind, flags, stream, content in oracle(octets)]
    found = read(data.draw(strategies.cut(octets)))
    assert [item[:3] for item in found] == [item[:3] for item in expected]
    for mine, theirs in zip(found, expected, strict=True):
        assert mine[0] > CONTINUATION or mine == theirs


@given(
    parts=st.lists(
        st.tuples(st.integers(0, 255), st.integers(0, 255), st.integers(0, 2**31 - 1), st.integers(0, 5000)), max_size=8
    )
)
def test_what_is_written_is_what_was_given(parts: list[tuple[int, int, int, int]]) -> None:
    writer = Http2FrameWriter()
    expected = [Sent(kind, flags, stream, bytes([kind]) * size) for kind, flags, stream, size in parts]
    for sent in expected:
        writer.write(*sent)
    size = writer.size()
    chunks = writer.take()
    assert list(frames_in(b"".join(chunks))) == expected
    assert size == sum(map(len, chunks))
    assert writer.size() == 0
    assert writer.take() == []


def test_large_payloads_are_not_copied_and_a_burst_leaves_nothing() -> None:
    writer = Http2FrameWriter()
    payload = bytes(5000)
    writer.write(DATA, 0, 1, payload)
    writer.write(DATA, 0, 1, b"x")
    chunks = writer.take()
    assert len(chunks) == 3
    assert chunks[1] is payload
    for _ in range(200):
        writer.write(DATA, 0, 1, bytes(2000))
    assert len(writer.take()) == 1
    writer.write(DATA, 0, 1, b"x")
    assert writer.size() == 10


def test_what_is_discarded_is_not_read() -> None:
    reader = Http2FrameReader(MAX_FRAME)
    octets = bytearray(frame(DATA, 0, 1, b"abc") * 2)
    reader.feed(octets, len(octets))
    assert reader.read_header()
    reader.discard()
    reader.keep()
    reader.keep()
    assert reader.take_view() is None


def test_what_is_left_is_kept_once() -> None:
    reader = Http2FrameReader(MAX_FRAME)
    octets = bytearray(frame(PING, 0, 0, bytes(8)))
    reader.feed(octets, 12)
    assert reader.read_header()
    reader.keep()
    reader.keep()
    assert not reader.has_payload()
    reader.feed(octets[12:], 5)
    assert reader.take() == bytes(8)
