"""Against wsproto: what it sends we read, what we send it reads, and of any octets both make the same.

Where we differ stands in `DIFFERENCES`, each with its reason; anything else is a bug here or there.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto import connection as wsproto_connection
from wsproto import events as wsproto_events
from wsproto.extensions import Extension, PerMessageDeflate

from rawws.protocol.connection import Connection, Role
from rawws.protocol.deflate import DeflateParameters
from tests.protocol import strategies
from tests.protocol.wire import (
    CLOSE,
    COMPRESSED_BINARY,
    COMPRESSED_TEXT,
    FIRST_COMPRESSED_TEXT,
    FIRST_TEXT,
    LAST,
    PING,
    TAKEOVER,
    TEXT,
    deflate_for,
    masked,
    octets_of,
    outcome,
    peer_frame,
)

TYPES = {Role.CLIENT: wsproto_connection.ConnectionType.CLIENT, Role.SERVER: wsproto_connection.ConnectionType.SERVER}
NARROW = DeflateParameters(False, True, 9, 12)
PARAMETERS: list[DeflateParameters | None] = [None, DeflateParameters(), TAKEOVER, NARROW]

# Messages and control events, then the close code of a failure, or None.
Verdict = tuple[list[tuple[Any, ...]], int | None]


def make_wsproto(role: Role, parameters: DeflateParameters | None) -> wsproto_connection.Connection:
    extensions: list[Extension] = []
    if parameters is not None:
        deflate = PerMessageDeflate(
            client_no_context_takeover=parameters.client_no_context_takeover,
            server_no_context_takeover=parameters.server_no_context_takeover,
            client_max_window_bits=parameters.client_max_window_bits,
            server_max_window_bits=parameters.server_max_window_bits,
        )
        deflate.finalize("")
        extensions.append(deflate)
    return wsproto_connection.Connection(TYPES[role], extensions)


def make_ours(role: Role, parameters: DeflateParameters | None) -> Connection:
    return Connection(role, None, None if parameters is None else deflate_for(role, parameters))


def wsproto_verdict(role: Role, parameters: DeflateParameters | None, data: bytes) -> Verdict:
    """What wsproto makes of the octets."""
    connection = make_wsproto(role, parameters)
    connection.receive_data(data)
    events: list[tuple[Any, ...]] = []
    parts: list[Any] = []
    for event in connection.events():
        if isinstance(event, wsproto_events.Message):
            parts.append(event.data)
            if event.message_finished:
                text = isinstance(event, wsproto_events.TextMessage)
                events.append(("str", "".join(parts)) if text else ("bytes", b"".join(map(bytes, parts))))
                parts = []
        elif isinstance(event, wsproto_events.Ping):
            events.append(("Ping", bytes(event.payload)))
        elif isinstance(event, wsproto_events.Pong):
            events.append(("Pong", bytes(event.payload)))
        elif isinstance(event, wsproto_events.CloseConnection):
            if connection.state is wsproto_connection.ConnectionState.OPEN:
                return events, int(event.code)
            events.append(("Close", int(event.code), event.reason or ""))
    return events, None


def our_verdict(role: Role, parameters: DeflateParameters | None, data: bytes) -> Verdict:
    """What we make of them."""
    result = outcome(make_ours(role, parameters), [data])
    return result.events, None if result.error is None else result.error[0]


@strategies.examples(300)
@given(
    role=strategies.roles,
    parameters=st.sampled_from(PARAMETERS),
    messages=st.lists(st.text(max_size=200) | st.binary(max_size=200) | st.integers(0, 70000).map(bytes), max_size=5),
)
def test_wsproto_reads_what_we_send(
    role: Role, parameters: DeflateParameters | None, messages: list[str | bytes]
) -> None:
    sender = make_ours(role, parameters)
    for number, message in enumerate(messages):
        sender.send(message)
        sender.ping(b"%d" % number)
    sender.close(1000, "bye")
    data = b"".join(sender.data_to_send())
    expected: list[tuple[Any, ...]] = []
    for number, message in enumerate(messages):
        expected += [(type(message).__name__, message), ("Ping", b"%d" % number)]
    expected.append(("Close", 1000, "bye"))
    reader = Role.SERVER if role is Role.CLIENT else Role.CLIENT
    assert wsproto_verdict(reader, parameters, data) == (expected, None)


@strategies.examples(300)
@given(
    role=strategies.roles,
    parameters=st.sampled_from(PARAMETERS),
    messages=st.lists(
        st.lists(st.text(max_size=100), min_size=1, max_size=3)
        | st.lists(st.binary(max_size=300), min_size=1, max_size=3),
        max_size=4,
    ),
)
def test_we_read_what_wsproto_sends(
    role: Role, parameters: DeflateParameters | None, messages: list[list[str] | list[bytes]]
) -> None:
    sender = make_wsproto(role, parameters)
    data = b""
    expected: list[tuple[Any, ...]] = []
    for parts in messages:
        for number, part in enumerate(parts):
            kind = wsproto_events.TextMessage if isinstance(part, str) else wsproto_events.BytesMessage
            data += sender.send(kind(data=part, message_finished=number == len(parts) - 1))  # type: ignore[arg-type]
        joined: str | bytes = "".join(map(str, parts)) if isinstance(parts[0], str) else b"".join(map(bytes, parts))
        expected.append((type(joined).__name__, joined))
        data += sender.send(wsproto_events.Ping(payload=b"?"))
        expected.append(("Ping", b"?"))
    data += sender.send(wsproto_events.CloseConnection(code=1001, reason="bye"))
    expected.append(("Close", 1001, "bye"))
    reader = Role.SERVER if role is Role.CLIENT else Role.CLIENT
    for pieces in ([data], octets_of(data)):
        result = outcome(make_ours(reader, parameters), pieces)
        assert result.events == expected
        assert result.error is None


# -- any octets

# Reviewed: where we differ, and why.
DIFFERENCES = {
    "control frame within a compressed message": "wsproto then forgets that the message is compressed",
    "bfinal": "wsproto ignores what follows on a block with BFINAL set, and fails the message behind it with context "
    "takeover; RFC 7692 7.2.3.4 allows such blocks",
    "header alone": "wsproto judges the order of fragments when it sees payload, we at the header",
    "half a header": "wsproto judges the first two octets alone, we the header with its length",
    "surrogate": "CPython's decoder, and so wsproto, waits for the third octet of a surrogate, we fail at the second",
    "1014": "wsproto does not know the close code 1014 of the IANA registry",
    "window": "wsproto refuses a reference beyond the window that was agreed on, where zlib sees it: not where what it "
    "refers to comes in the same call, so that the verdict depends on TCP; we take the largest window",
    "huge": "no frame of 2 to the 60 bytes can be received; wsproto waits for it, we fail with 1009",
}


def frames_announced(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """First octet, announced length (-1 where it is cut) and payload, as far as it is there."""
    while len(data) >= 2:
        first, second = data[0], data[1]
        length, at = second & 0x7F, 2
        if length >= 126:
            at = 4 if length == 126 else 10
            if len(data) < at:
                yield first, -1, b""
                return
            length = int.from_bytes(data[2:at], "big")
        payload = data[at:]
        if second & 0x80:
            key, payload = payload[:4].ljust(4, b"\x00"), payload[4:]
            at += 4
            payload = masked(payload[:length], key)
        yield first, length, payload[:length]
        if first & 0x0F == 0x8:
            return
        data = data[at + length :]


def reviewed(
    parameters: DeflateParameters | None, role: Role, data: bytes, theirs: Verdict, ours: Verdict
) -> str | None:
    """The name of the reviewed difference that these octets show."""
    if parameters is not None and theirs[1] == 1007:
        widest = DeflateParameters(parameters.server_no_context_takeover, parameters.client_no_context_takeover)
        if widest != parameters and wsproto_verdict(role, widest, data) == ours:
            return "window"
    takeover = parameters is not None and not (
        parameters.client_no_context_takeover if role is Role.SERVER else parameters.server_no_context_takeover
    )
    stream = None
    compressed = False
    opcode = 0
    tail = b""
    for first, length, payload in frames_announced(data):
        if length < 0 and theirs[1] == 1002 and ours[1] is None:
            return "half a header"
        if first & 0x08:
            if compressed:
                return "control frame within a compressed message"
            if first == CLOSE and payload[:2] == (1014).to_bytes(2, "big"):
                return "1014"
            continue
        if length > 1 << 60 and ours[1] == 1009:
            return "huge"
        if length > 0 and payload == b"" and ours[1] == 1002 and theirs[1] is None:
            return "header alone"
        if first & 0x0F:
            opcode = first & 0x0F
            compressed = parameters is not None and first & 0x40 != 0
            tail = b""
        octets = payload
        if compressed:
            stream = stream or zlib.decompressobj(-15)
            try:
                octets = stream.decompress(payload)
                if first & 0x80:
                    stream.decompress(b"\x00\x00\xff\xff")
            except zlib.error:
                return None
            if stream.eof:
                return "bfinal"
        tail = (tail + octets)[-2:]
        if opcode == 0x1 and ours[1] == 1007 and tail[:1] == b"\xed" and tail[1:] >= b"\xa0":
            return "surrogate"
        if first & 0x80:
            compressed = False
            stream = stream if takeover else None
    return None


@strategies.examples(1000)
@given(data=st.data(), role=strategies.roles, parameters=st.sampled_from(PARAMETERS))
def test_of_any_octets_both_make_the_same(
    data: st.DataObject, role: Role, parameters: DeflateParameters | None
) -> None:
    stream = data.draw(strategies.streams(role, parameters is not None))
    theirs = wsproto_verdict(role, parameters, stream)
    ours = our_verdict(role, parameters, stream)
    if ours != theirs:
        assert reviewed(parameters, role, stream, theirs, ours) in DIFFERENCES, (stream.hex(" "), theirs, ours)


HELLO = bytes.fromhex("f2 48 cd c9 c9 07 00")
NOISE = random.Random(7).randbytes(1000)
FAR = zlib.compressobj(wbits=-15)
EXAMPLES: dict[str, tuple[list[bytes], Verdict, Verdict]] = {
    "control frame within a compressed message": (
        [
            peer_frame(Role.CLIENT, FIRST_COMPRESSED_TEXT, HELLO[:3]),
            peer_frame(Role.CLIENT, PING),
            peer_frame(Role.CLIENT, LAST, HELLO[3:]),
        ],
        ([("Ping", b"")], 1007),
        ([("Ping", b""), ("str", "Hello")], None),
    ),
    "bfinal": (
        [peer_frame(Role.CLIENT, COMPRESSED_TEXT, bytes.fromhex("f3 48 cd c9 c9 07 00 00"))] * 2,
        ([("str", "Hello")], 1007),
        ([("str", "Hello"), ("str", "Hello")], None),
    ),
    "header alone": ([peer_frame(Role.CLIENT, LAST, length=5)], ([], None), ([], 1002)),
    "half a header": ([b"\x83\x7e\x01"], ([], 1002), ([], None)),
    "surrogate": (
        [peer_frame(Role.CLIENT, FIRST_TEXT, b"\xed\xa0"), peer_frame(Role.CLIENT, PING)],
        ([("Ping", b"")], None),
        ([], 1007),
    ),
    "1014": (
        [peer_frame(Role.CLIENT, CLOSE, (1014).to_bytes(2, "big"))],
        ([], 1002),
        ([("Close", 1014, "")], None),
    ),
    "window": (
        [
            peer_frame(Role.CLIENT, COMPRESSED_BINARY, (FAR.compress(octets) + FAR.flush(zlib.Z_SYNC_FLUSH))[:-4])
            for octets in (NOISE, NOISE[:100])
        ],
        ([("bytes", NOISE)], 1007),
        ([("bytes", NOISE), ("bytes", NOISE[:100])], None),
    ),
    "huge": ([peer_frame(Role.CLIENT, TEXT, length=(1 << 63) - 1)], ([], None), ([], 1009)),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_each_difference_is_still_one(name: str) -> None:
    frames, theirs, ours = EXAMPLES[name]
    data = b"".join(frames)
    parameters = NARROW if name == "window" else TAKEOVER
    assert wsproto_verdict(Role.CLIENT, parameters, data) == theirs
    assert our_verdict(Role.CLIENT, parameters, data) == ours
    assert reviewed(parameters, Role.CLIENT, data, theirs, ours) == name
