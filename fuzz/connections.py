"""Connections: octets to what a connection makes of them, and what holds for each, whichever octets those are."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

from rawws.errors import Close, RemoteProtocolError

from .target import cut, seed, short

if TYPE_CHECKING:
    from collections.abc import Callable

    from .twins import Twin

__all__ = ["SEEDS", "WORDS", "Made", "Maker", "Settings", "frame", "make_frames", "masked"]

LIMITS = (1 << 20, 200, 10, 0)
# RFC 6455 7.4.1: what a peer can do wrong is a protocol error, data that is invalid, or a message that is too big.
CLOSE_CODES = {1002, 1007, 1009}
# The largest header, and the payload of a control frame, which is taken when all of it is there.
MAX_UNREAD = 14 + 125
POISON = b"\xaa" * 4096


class Settings(NamedTuple):
    """What the first octet of an input chooses."""

    max_size: int
    parameters: tuple[bool, bool, int, int] | None
    streaming: bool
    closing: bool
    hold_pongs: bool


PARAMETERS = (None, (True, True, 15, 15), (False, False, 15, 15), (False, True, 9, 12))
SETTINGS = [
    Settings(LIMITS[octet & 3], PARAMETERS[octet >> 2 & 3], octet & 16 != 0, octet & 0xE0 == 0xE0, octet & 96 == 64)
    for octet in range(256)
]


class Made(NamedTuple):
    """What came of octets."""

    events: list[Any]
    error: RemoteProtocolError | None
    sent: bytes


class Maker:
    """Makes the connections of a twin, as a server does: with compressors and writers that they share."""

    def __init__(self, twin: Twin, role: str) -> None:
        self._connection = twin.load("rawws.protocol.connection")
        self._deflate = twin.load("rawws.protocol.deflate")
        self.server = role == "SERVER"
        self._role = self._connection.Role[role]
        self._compression = self._deflate.Compression(threshold=10)
        self._shared: dict[tuple[int, int, int], Any] = {}
        self._writers: list[Any] = []

    def make(self, settings: Settings, random: Callable[[int], bytes] = bytes) -> Any:
        """Return a new connection; its masking keys are 0 unless `random` says otherwise."""
        deflate = None
        if settings.parameters is not None:
            parameters = self._deflate.DeflateParameters(*settings.parameters)
            deflate = self._deflate.PerMessageDeflate(parameters, self.server, self._compression, self._shared)
        connection = self._connection.Connection(self._role, settings.max_size, deflate, self._writers, random)
        connection.messages.streaming = settings.streaming
        connection.hold_pongs = settings.hold_pongs
        if settings.closing:
            connection.close(1001)
        return connection


def feed_whole(connection: Any, octets: bytes, settings: Settings) -> Made:
    """Give all octets at once."""
    connection.receive(octets)
    events: list[Any] = []
    error = take(connection, events, settings.streaming)
    return Made(events, error, finish(connection))


def feed_pieces(connection: Any, pieces: list[bytes], settings: Settings) -> Made:
    """Give piece after piece in a buffer that is lent, and written over in between, as a transport does."""
    buffer = bytearray(4096)
    watched = hasattr(connection.messages, "held")  # a compiled one shows none of it
    events: list[Any] = []
    error = None
    for piece in pieces:
        end = len(piece)
        buffer[:end] = piece
        connection.receive_buffer(buffer, end)
        if error is None:
            error = take(connection, events, settings.streaming)
            if watched and error is None:
                check_held(connection, settings)
        else:
            assert connection.next_event() is None, "an event after an error"
        connection.keep_buffer()
        buffer[:end] = POISON[:end]
    return Made(events, error, finish(connection))


def take(connection: Any, events: list[Any], streaming: bool) -> RemoteProtocolError | None:
    """Take the events that are there, and return the error behind them."""
    try:
        while (event := connection.next_event()) is not None:
            events.append(event)
            if streaming and type(event).__name__ == "Fragment" and event.final:
                connection.messages.streaming = True
    except RemoteProtocolError as error:
        assert connection.next_event() is None, "an event after an error"
        return error
    return None


def described(events: list[Any]) -> list[tuple[str, Any]]:
    """Return the events by the names of their types, so that those of both twins can be compared."""
    return [(type(event).__name__, event if isinstance(event, (str, bytes)) else tuple(event)) for event in events]


def finish(connection: Any) -> bytes:
    """Return all that the connection sends."""
    connection.release_pong()
    sent = b"".join(connection.data_to_send())
    assert connection.data_to_send() == [], "sent twice"
    assert connection.pending() == 0
    return sent


def check_held(connection: Any, settings: Settings) -> None:
    """Check how much an interpreted connection holds between two pieces."""
    connection.keep_buffer()
    unread = len(connection.frames.buffer)
    assert unread <= MAX_UNREAD, f"{unread} octets are held unread"
    held = len(connection.messages.held or b"")
    # One more than the limit, or an unfinished character.
    assert held <= max(settings.max_size + 1, 3), f"{held} octets are held, the limit is {settings.max_size}"


def frame(first: int, payload: bytes = b"", key: bytes | None = None) -> bytes:
    """Return a frame (RFC 6455 section 5.2)."""
    length = len(payload)
    mask_bit = 0 if key is None else 0x80
    if length < 126:
        header = bytes((first, mask_bit | length))
    elif length < 65536:
        header = bytes((first, mask_bit | 126)) + length.to_bytes(2, "big")
    else:
        header = bytes((first, mask_bit | 127)) + length.to_bytes(8, "big")
    return header + payload if key is None else header + key + masked(payload, key)


def masked(payload: bytes, key: bytes) -> bytes:
    """Return the payload, masked (RFC 6455 section 5.3)."""
    repeated = (key * (len(payload) // 4 + 1))[: len(payload)]
    octets = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return octets.to_bytes(len(payload), "big")


def expected_answer(made: Made, settings: Settings, key: bytes | None) -> bytes:
    """Return what a connection must have sent that was asked for nothing but, perhaps, to close."""
    if settings.closing:
        return frame(0x88, b"\x03\xe9", key)
    pings = [event.payload for event in made.events if type(event).__name__ == "Ping"]
    close = made.events[-1] if made.events and type(made.events[-1]) is Close else None
    if settings.hold_pongs:
        # Only the last one is due, and none after a Close.
        pings = pings[-1:] if close is None and made.error is None else []
    answer = b"".join([frame(0x8A, payload, key) for payload in pings])
    if close is not None:
        echoed = b"" if close.code == 1005 else close.code.to_bytes(2, "big") + close.reason.encode()
        answer += frame(0x88, echoed, key)
    elif made.error is not None:
        answer += frame(0x88, made.error.close_code.to_bytes(2, "big") + made.error.reason.encode(), key)
    return answer


def joined(made: Made) -> tuple[list[Any], tuple[int, str] | None, bytes]:
    """Return what must be the same for all pieces: the parts of a message as one, those before an error not at all."""
    events: list[Any] = []
    parts: list[Any] = []
    for event in made.events:
        kind = type(event)
        if kind.__name__ != "Fragment":
            events.append((kind, event))
            continue
        if event.data or event.final:
            parts.append(event.data)
        if event.final:
            events.append((kind, parts[0][:0].join(parts)))
            parts = []
    if made.error is None and parts:
        events.append((None, parts[0][:0].join(parts)))
    return events, None if made.error is None else (made.error.close_code, made.error.reason), made.sent


def check_made(made: Made, settings: Settings, key: bytes | None) -> None:
    """Check what holds for any octets."""
    if made.error is not None:
        assert made.error.close_code in CLOSE_CODES, made.error
    if not settings.streaming:
        for event in made.events:
            if isinstance(event, (str, bytes)):
                size = len(event if isinstance(event, bytes) else event.encode())
                assert size <= settings.max_size, f"a message has {size} bytes, the limit is {settings.max_size}"
    assert made.sent == expected_answer(made, settings, key), (made.sent, expected_answer(made, settings, key))


def make_frames(twin: Twin, role: str) -> Callable[[bytes], object]:
    """Return the function of the targets for arbitrary octets, in one of the roles."""
    maker = Maker(twin, role)
    key = None if maker.server else b"\0\0\0\0"

    def check(data: bytes) -> object:
        if len(data) < 2:
            return None
        settings, octets = SETTINGS[data[0]], data[2:]
        whole = feed_whole(maker.make(settings), octets, settings)
        check_made(whole, settings, key)
        made = feed_pieces(maker.make(settings), cut(octets, data[1]), settings)
        if settings.streaming:
            assert joined(made) == joined(whole), (made, whole)
        else:
            assert made.events == whole.events, (made, whole)
            assert list(map(type, made.events)) == list(map(type, whole.events)), (made, whole)
            assert str(made.error) == str(whole.error), (made, whole)
            assert made.sent == whole.sent, (made, whole)
        reason = "" if whole.error is None else short(whole.error.reason)
        return reason, frozenset(map(type, whole.events)), settings.parameters, settings.streaming

    return check


def deflated(data: bytes, flush: int = zlib.Z_SYNC_FLUSH) -> bytes:
    """Return the payload of a compressed message."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    compressed = compressor.compress(data) + compressor.flush(flush)
    return compressed + b"\0" if flush == zlib.Z_FINISH else compressed[:-4]


HELLO = bytes.fromhex("f2 48 cd c9 c9 07 00")
# As a server or a client sends them: (first octet, payload) of each frame.
STREAMS: list[list[tuple[int, bytes]]] = [
    [(0x81, b"Hello")],
    [(0x01, b"Hel"), (0x80, b"lo")],
    [(0x89, b"Hello"), (0x8A, b"Hello")],
    [(0x82, bytes(256))],
    [(0x82, b"\xfe" * 127), (0x81, b"*" * 125), (0x81, b"*" * 126)],
    [(0x81, "Hello-µ@ßöäüàá-UTF-8!!".encode())],
    [(0x01, b"\xce\xba\xe1"), (0x89, b""), (0x00, b"\xbd\xb9\xcf"), (0x80, b"\x83\xcf\x83\xce\xbc\xce\xb5")],
    [(0x81, b"\xce\xba\xed\xa0\x80edited")],
    [(0x81, b"\xf4\x90\x80\x80"), (0x81, b"late")],
    [(0x01, b"fragment1"), (0x89, b"ping"), (0x00, b"fragment2"), (0x8A, b"pong"), (0x80, b"fragment3")],
    [(0x01, b""), (0x00, b""), (0x80, b"")],
    [(0x80, b"no message"), (0x81, b"late")],
    [(0x01, b"one"), (0x81, b"two")],
    [(0x09, b"in fragments")],
    [(0x89, bytes(125))],
    [(0x89, bytes(126))],
    [(0x83, b""), (0x8B, b"")],
    [(0xD1, b"reserved")],
    [(0x88, b"")],
    [(0x88, b"\x03\xe8bye"), (0x81, b"late")],
    [(0x88, b"\x03\xe8" + b"*" * 123)],
    [(0x88, b"\x03")],
    [(0x88, b"\x03\xec"), (0x88, b"\x0b\xb8")],
    [(0x88, b"\x03\xe8\xff")],
    [(0xC1, HELLO)],
    [(0x41, HELLO[:3]), (0x80, HELLO[3:])],
    [(0xC1, HELLO), (0xC1, bytes.fromhex("f2 00 11 00 00"))],
    [(0xC1, bytes.fromhex("00 05 00 fa ff 48 65 6c 6c 6f 00"))],
    [(0xC1, bytes.fromhex("f3 48 cd c9 c9 07 00 00"))],
    [(0xC1, bytes.fromhex("f2 48 05 00 00 00 ff ff ca c9 c9 07 00"))],
    [(0xC2, deflated(bytes(3000))), (0xC1, b"\0"), (0x89, b"?")],
    [(0xC2, deflated(b"a window" * 40, zlib.Z_FINISH) * 3)],
    [(0x42, deflated(bytes(range(64)))), (0x89, b""), (0x80, b"")],
]
OCTETS = {
    "SERVER": [
        # RFC 6455 5.7, a masked text message and a masked Pong.
        bytes.fromhex("81 85 37 fa 21 3d 7f 9f 4d 51 58"),
        bytes.fromhex("8a 85 37 fa 21 3d 7f 9f 4d 51 58"),
        bytes.fromhex("81 05 48 65 6c 6c 6f"),
        bytes.fromhex("82 ff 80 00 00 00 00 00 00 00 00 00 00 00"),
        bytes.fromhex("82 ff 7f ff ff ff ff ff ff ff 00 00 00 00"),
        bytes.fromhex("82 ff 00 00 00 00 00 00 ff ff 00 00 00 00"),
        bytes.fromhex("82 fe 00 7d 00 00 00 00"),
    ],
    "CLIENT": [
        # RFC 6455 5.7, an unmasked text message, one in fragments, 256 bytes of binary.
        bytes.fromhex("81 05 48 65 6c 6c 6f"),
        bytes.fromhex("01 03 48 65 6c 80 02 6c 6f"),
        bytes.fromhex("82 7e 01 00") + bytes(256),
        bytes.fromhex("82 7f 00 00 00 00 00 01 00 00"),
        bytes.fromhex("82 7f ff 00 00 00 00 00 00 00"),
        bytes.fromhex("81 85 37 fa 21 3d 7f 9f 4d 51 58"),
    ],
}
# Keys of 0 leave the payload as it is, so that a mutation of it, or a word, means what it says.
KEYS = {"SERVER": b"\0\0\0\0", "CLIENT": None}
SEEDS = {
    role: [seed(octets, settings) for settings in (0, 4) for octets in OCTETS[role]]
    + [
        seed(b"".join(frame(first, payload, KEYS[role]) for first, payload in frames), settings, number)
        for number, frames in enumerate(STREAMS)
        for settings in ((4, 8, 17) if frames[0][0] & 0x40 else (0, 17))
    ]
    for role in ("SERVER", "CLIENT")
}
WORDS = {
    role: [
        *(frame(first, payload, KEYS[role]) for frames in STREAMS for first, payload in frames if len(payload) < 20),
        *(bytes((first,)) for first in (0x00, 0x01, 0x02, 0x41, 0x42, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8A, 0xC1, 0xC2)),
        *(bytes.fromhex(word) for word in ("fe 00 7e", "7e 00 7e", "7e 00 7d", "ff 00 00 00 00 00 01 00 00")),
        *(bytes.fromhex(word) for word in ("ed a0 80", "e2 82 ac", "f0 9f 98 80", "f4 90", "c0 af", "03 e8", "03 ee")),
        *(b"\0\0\xff\xff", b"\0\0\0\xff\xff", HELLO, b"\x03\0"),
    ]
    for role in ("SERVER", "CLIENT")
}
