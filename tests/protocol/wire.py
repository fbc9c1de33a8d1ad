"""The wire as the RFC draws it: frames written and read by other code than the library's, and what comes of octets."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from rawws.errors import RemoteProtocolError
from rawws.protocol.connection import Connection, Role
from rawws.protocol.deflate import Compression, DeflateParameters, Deflater, PerMessageDeflate

# The masking key of RFC 6455 section 5.7.
KEY = bytes.fromhex("37fa213d")

# First octets of frames.
TEXT, BINARY, CLOSE, PING, PONG = 0x81, 0x82, 0x88, 0x89, 0x8A
FIRST_TEXT, FIRST_BINARY, MIDDLE, LAST = 0x01, 0x02, 0x00, 0x80
COMPRESSED_TEXT, COMPRESSED_BINARY, FIRST_COMPRESSED_TEXT, FIRST_COMPRESSED_BINARY = 0xC1, 0xC2, 0x41, 0x42

OTHER_SIDE = {Role.SERVER: Role.CLIENT, Role.CLIENT: Role.SERVER}


def masked(payload: bytes, key: bytes) -> bytes:
    """RFC 6455 section 5.3, octet by octet."""
    return bytes(octet ^ key[i % 4] for i, octet in enumerate(payload))


def frame(first: int, payload: bytes = b"", key: bytes | None = None, length: int | None = None) -> bytes:
    """RFC 6455 section 5.2; `length` announces another length than that of the payload."""
    count = len(payload) if length is None else length
    mask_bit = 0 if key is None else 0x80
    if count <= 125:
        header = struct.pack("!BB", first, mask_bit | count)
    elif count <= 0xFFFF:
        header = struct.pack("!BBH", first, mask_bit | 126, count)
    else:
        header = struct.pack("!BBQ", first, mask_bit | 127, count)
    return header + payload if key is None else header + key + masked(payload, key)


def peer_frame(role: Role, first: int, payload: bytes = b"", length: int | None = None) -> bytes:
    """A frame that the peer of a connection in this role may send."""
    return frame(first, payload, KEY if role is Role.SERVER else None, length)


class WireFrame(NamedTuple):
    first: int
    payload: bytes
    key: bytes | None


def frames_in(data: bytes) -> Iterator[WireFrame]:
    """The frames that lie one behind the other in the octets, with nothing left over."""
    at = 0
    while at < len(data):
        first, second = data[at], data[at + 1]
        at += 2
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack_from("!H", data, at)
            at += 2
        elif length == 127:
            (length,) = struct.unpack_from("!Q", data, at)
            at += 8
        key = None
        if second & 0x80:
            key = data[at : at + 4]
            at += 4
        payload = data[at : at + length]
        assert len(payload) == length, "the last frame is cut"
        at += length
        yield WireFrame(first, payload if key is None else masked(payload, key), key)


def sent_by(connection: Connection) -> list[WireFrame]:
    """The frames that wait in the connection."""
    return list(frames_in(b"".join(connection.data_to_send())))


class Outcome(NamedTuple):
    """What came of some octets: events by type and value, the error's code and reason, the frames sent in answer."""

    events: list[tuple[Any, ...]]
    error: tuple[int, str] | None
    sent: list[tuple[int, bytes]]


def describe(event: Any) -> tuple[Any, ...]:
    """An event as a tuple that is equal to another's only if their types are, whichever twin made it."""
    if isinstance(event, (str, bytes)):
        return type(event).__name__, event
    values = event if isinstance(event, tuple) else (event.data, event.final)
    return type(event).__name__, *values


def outcome(connection: Any, pieces: Iterable[bytes]) -> Outcome:
    """Feed the pieces to the connection, and go on after an error as a careless caller would."""
    events: list[tuple[Any, ...]] = []
    error: tuple[int, str] | None = None
    for piece in pieces:
        connection.receive(piece)
        try:
            while (event := connection.next_event()) is not None:
                assert error is None, "an event after an error"
                events.append(describe(event))
        except RemoteProtocolError as failure:
            assert error is None, "two errors"
            error = (failure.close_code, failure.reason)
    sent = [(first, payload) for first, payload, _ in frames_in(b"".join(connection.data_to_send()))]
    return Outcome(events, error, sent)


def pieces_of(data: bytes, sizes: Iterable[int]) -> Iterator[bytes]:
    """The octets cut into pieces of these sizes, and what is left."""
    at = 0
    for size in sizes:
        if at >= len(data):
            return
        yield data[at : at + size]
        at += size
    yield data[at:]


def octets_of(data: bytes) -> Iterator[bytes]:
    """The octets, one by one."""
    return (data[i : i + 1] for i in range(len(data)))


def deflate_for(
    role: Role,
    parameters: DeflateParameters | None = None,
    settings: Compression | None = None,
    shared: dict[tuple[int, int, int], Deflater] | None = None,
) -> PerMessageDeflate:
    """permessage-deflate for a connection in this role."""
    return PerMessageDeflate(
        DeflateParameters() if parameters is None else parameters,
        role is Role.SERVER,
        Compression(threshold=0) if settings is None else settings,
        {} if shared is None else shared,
    )


TAKEOVER = DeflateParameters(server_no_context_takeover=False, client_no_context_takeover=False)
