"""The same octets in any pieces give the same events, the same error (code and reason) and the same answers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rawws.protocol.connection import Connection, Role
from rawws.protocol.deflate import DeflateParameters
from tests.protocol import strategies
from tests.protocol.wire import (
    BINARY,
    CLOSE,
    COMPRESSED_TEXT,
    FIRST_COMPRESSED_TEXT,
    FIRST_TEXT,
    LAST,
    PING,
    TEXT,
    Outcome,
    deflate_for,
    octets_of,
    outcome,
    peer_frame,
)


def fed(
    role: Role,
    pieces: Iterable[bytes],
    max_size: int | None,
    parameters: DeflateParameters | None,
    streaming: bool = False,
    closing: bool = False,
) -> Outcome:
    deflate = None if parameters is None else deflate_for(role, parameters)
    connection = Connection(role, max_size, deflate)
    connection.messages.streaming = streaming
    if closing:
        connection.close()
    return outcome(connection, pieces)


def joined(events: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The events with the fragments of each message as one, in the place of the last."""
    result: list[tuple[Any, ...]] = []
    data: str | bytes | None = None
    for event in events:
        if event[0] == "Fragment":
            data = event[1] if data is None else data + event[1]
            if event[2]:
                result.append(("Fragment", data, True))
                data = None
        else:
            result.append(event)
    return result


@strategies.examples(500)
@given(
    data=st.data(),
    role=strategies.roles,
    max_size=strategies.limits,
    parameters=strategies.parameters,
    closing=st.booleans(),
)
def test_any_pieces_give_the_same_outcome(
    data: st.DataObject, role: Role, max_size: int | None, parameters: DeflateParameters | None, closing: bool
) -> None:
    stream = data.draw(strategies.streams(role, parameters is not None))
    pieces = data.draw(strategies.cut(stream))
    whole = fed(role, [stream], max_size, parameters, closing=closing)
    assert fed(role, pieces, max_size, parameters, closing=closing) == whole
    assert fed(role, octets_of(stream), max_size, parameters, closing=closing) == whole


@strategies.examples(200)
@given(data=st.data(), role=strategies.roles, max_size=strategies.limits, parameters=strategies.parameters)
def test_any_pieces_give_the_same_streamed_messages(
    data: st.DataObject, role: Role, max_size: int | None, parameters: DeflateParameters | None
) -> None:
    stream = data.draw(strategies.streams(role, parameters is not None))
    pieces = data.draw(strategies.cut(stream))
    whole = fed(role, [stream], max_size, parameters, streaming=True)
    for way in (pieces, octets_of(stream)):
        cut = fed(role, way, max_size, parameters, streaming=True)
        assert (cut.error, cut.sent) == (whole.error, whole.sent)
        assert joined(cut.events) == joined(whole.events)


@strategies.examples(200)
@given(data=st.data(), role=strategies.roles, parameters=strategies.parameters)
def test_a_lent_buffer_gives_the_same_as_bytes(
    data: st.DataObject, role: Role, parameters: DeflateParameters | None
) -> None:
    stream = data.draw(strategies.streams(role, parameters is not None))
    pieces = data.draw(strategies.cut(stream))
    buffer = bytearray(max(map(len, pieces)) + 3)

    class Lending:
        """A connection that is fed through the buffer of a transport, which is overwritten in between."""

        def __init__(self, connection: Connection) -> None:
            self.connection = connection
            self.data_to_send = connection.data_to_send

        def receive(self, piece: bytes) -> None:
            self.connection.keep_buffer()
            buffer[:] = b"\xaa" * len(buffer)
            buffer[: len(piece)] = piece
            self.connection.receive_buffer(buffer, len(piece))

        def next_event(self) -> Any:
            return self.connection.next_event()

    def connection() -> Connection:
        return Connection(role, 100, None if parameters is None else deflate_for(role, parameters))

    assert outcome(Lending(connection()), pieces) == outcome(connection(), [stream])


HELLO = bytes.fromhex("f2 48 cd c9 c9 07 00")
CASES: dict[str, list[tuple[int, bytes]]] = {
    "messages": [(TEXT, b"one"), (BINARY, b"two" * 50), (PING, b"?"), (TEXT, b"")],
    "fragments": [(FIRST_TEXT, b"\xe2"), (PING, b""), (0x00, b"\x82"), (LAST, b"\xac"), (TEXT, b"next")],
    "compressed": [(COMPRESSED_TEXT, HELLO), (FIRST_COMPRESSED_TEXT, HELLO[:3]), (LAST, HELLO[3:])],
    "bad utf-8": [(FIRST_TEXT, b"ok"), (LAST, b"\xed\xa0\x80")],
    "bad utf-8 behind a message": [(TEXT, b"ok"), (TEXT, b"ok \xff ok")],
    "bad compressed utf-8": [(COMPRESSED_TEXT, bytes.fromhex("00 01 00 fe ff ff 07"))],
    "bad deflate": [(COMPRESSED_TEXT, HELLO), (COMPRESSED_TEXT, b"\x07\x00")],
    "over max_size": [(FIRST_TEXT, b"x" * 100), (LAST, b"y" * 101)],
    "inflates to over max_size": [(COMPRESSED_TEXT, strategies.compress(bytes(201), 9, 2))],
    "a close and more": [(TEXT, b"one"), (CLOSE, b"\x03\xe8bye"), (TEXT, b"late")],
    "a bad close": [(CLOSE, b"\x03\xe8\xff")],
    "a bad opcode": [(TEXT, b"one"), (0x83, b""), (TEXT, b"late")],
}


@pytest.mark.parametrize("name", CASES)
def test_two_pieces_cut_anywhere_give_the_same_outcome(role: Role, name: str) -> None:
    data = b"".join(peer_frame(role, first, payload) for first, payload in CASES[name])
    whole = fed(role, [data], 200, DeflateParameters())
    for at in range(len(data) + 1):
        assert fed(role, [data[:at], data[at:]], 200, DeflateParameters()) == whole
