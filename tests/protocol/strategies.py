"""Hypothesis strategies: what a peer may send, from well-formed to noise, and how TCP may cut it."""

from __future__ import annotations

import zlib

from hypothesis import settings
from hypothesis import strategies as st

from rawws.protocol.connection import Role
from rawws.protocol.deflate import DeflateParameters
from tests.protocol.wire import CLOSE, KEY, PING, PONG, TAKEOVER, peer_frame

PARAMETERS: list[DeflateParameters | None] = [
    None,
    DeflateParameters(),
    TAKEOVER,
    DeflateParameters(False, True, 9, 12),
]


def examples(count: int) -> settings:
    """So many examples, and in the same proportion more where the profile asks for more than its 100."""
    return settings(max_examples=count * settings().max_examples // 100)


roles = st.sampled_from(Role)
parameters = st.sampled_from(PARAMETERS)
limits = st.sampled_from([None, 0, 1, 10, 100, 1 << 20])

# Lengths at which the header changes, and at which the library's own ways change.
lengths = st.sampled_from([0, 1, 2, 3, 4, 5, 16, 124, 125, 126, 127, 128, 1000])
valid_text = st.text(max_size=20).map(str.encode)
bad_text = st.sampled_from(
    [b"\x80", b"\xc0\xaf", b"\xe2\x82", b"\xed\xa0\x80", b"\xf0\x9f\x98", b"\xf4\x90\x80\x80", b"\xff"]
)
payloads = st.one_of(
    valid_text,
    st.binary(max_size=20),
    lengths.map(lambda length: b"x" * length),
    st.builds(bytes.__add__, valid_text, bad_text),
)


def compress(data: bytes, level: int, flush: int) -> bytes:
    """The payload of a compressed message: one or more blocks, without the tail; BFINAL is set with Z_FINISH."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, -15)
    compressed = compressor.compress(data) + compressor.flush(flush)
    return compressed + b"\x00" if flush == zlib.Z_FINISH else compressed[:-4]


compressed_payloads = st.one_of(
    st.builds(
        compress,
        payloads | st.integers(0, 3000).map(bytes),
        st.sampled_from([0, 1, 9]),
        st.sampled_from([zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_FINISH]),
    ),
    st.just(b"\x00"),
    st.binary(max_size=10),
)


@st.composite
def messages(draw: st.DrawFn, role: Role, compression: bool) -> bytes:
    """A message as the RFC allows it, in one frame or in fragments with control frames between them."""
    first = draw(st.sampled_from([0x1, 0x2]))
    if compression and draw(st.booleans()):
        first |= 0x40
        payload = draw(compressed_payloads)
    else:
        payload = draw(payloads)
    cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=3)))
    parts = [payload[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
    data = b""
    for number, part in enumerate(parts):
        octet = first if number == 0 else 0
        data += peer_frame(role, octet | (0x80 if number == len(parts) - 1 else 0), part)
        if draw(st.booleans()):
            data += draw(control_frames(role))
    return data


def control_frames(role: Role) -> st.SearchStrategy[bytes]:
    return st.builds(peer_frame, st.just(role), st.sampled_from([PING, PONG]), st.binary(max_size=10))


def closes(role: Role) -> st.SearchStrategy[bytes]:
    codes = st.sampled_from([999, 1000, 1001, 1004, 1005, 1006, 1011, 1015, 3000, 4999, 5000]) | st.integers(0, 65535)
    payload = st.builds(
        lambda code, reason: code.to_bytes(2, "big") + reason, codes, st.just(b"") | valid_text | bad_text
    )
    return st.builds(peer_frame, st.just(role), st.just(CLOSE), st.sampled_from([b"", b"\x03"]) | payload)


def odd_frames(role: Role) -> st.SearchStrategy[bytes]:
    """Frames of any first octet, and of any length that a header can announce."""
    announced = st.none() | lengths | st.sampled_from([65535, 65536, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
    return st.builds(peer_frame, st.just(role), st.integers(0, 255), st.binary(max_size=5), announced)


@st.composite
def streams(draw: st.DrawFn, role: Role, compression: bool) -> bytes:
    """All that a peer sends: mostly messages, sometimes nonsense, sometimes with octets changed on the way."""
    part = st.one_of(
        messages(role, compression),
        messages(role, compression),
        control_frames(role),
        closes(role),
        odd_frames(role),
        st.binary(max_size=8),
    )
    data = bytearray(b"".join(draw(st.lists(part, min_size=1, max_size=5))))
    if data and draw(st.booleans()):
        for at, change in draw(st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(1, 255)), max_size=3)):
            data[at] ^= change
    return bytes(data)


@st.composite
def cut(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """The octets in pieces, of which some may be empty."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return [data[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def fixed_random(count: int) -> bytes:
    """A random source that two connections can share without being told apart."""
    return (KEY * (count // len(KEY) + 1))[:count]
