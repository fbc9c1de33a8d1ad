"""Legal frames: fragments, control frames between them, compression; against a model of their messages.

Invariant: a connection of either role gives the messages, Pings and Pongs that were framed, however they are framed,
and answers each Ping; text that is no UTF-8 fails with 1007, and a message over `max_size` with 1009, behind all that
came before.

An input is a script: two octets choose the role, the limit and the pieces; then each frame has an octet that says
what it is, one for how long its payload is, and the payload.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

from fuzz.connections import LIMITS, Maker, Settings, described, feed_pieces, frame
from fuzz.target import Target, cut, seed

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuzz.twins import Twin

# What the two lowest bits of a frame's octet say.
LAST, MORE, PING, PONG = range(4)
# What the four highest say: the payload is that often there; mostly once, rarely so often that its length has 64 bits.
TIMES = (1, 1, 1, 9) * 3 + (1, 1, 9, 300)


class Model(NamedTuple):
    """The octets of a script, and what must come of them."""

    octets: bytes
    events: list[tuple[str, Any]]
    close_code: int | None


class Writer:
    """Writes the frames of a script, and notes what they mean."""

    def __init__(self, masked: bool, limit: int, compress: bool) -> None:
        self.masked = masked
        self.limit = limit
        self.compress = compress
        self.frames: list[bytes] = []
        self.events: list[tuple[str, Any]] = []
        self.close_code: int | None = None
        self.opcode = 0
        self.message = b""
        self.compressor: Any = None

    def write(self, first: int, payload: bytes) -> None:
        """Write a frame."""
        key = bytes((len(self.frames) & 0xFF, first, len(payload) & 0xFF, 0x5A)) if self.masked else None
        self.frames.append(frame(first, payload, key))

    def add(self, octet: int, payload: bytes) -> None:
        """Add the frame that an octet of the script stands for."""
        kind = octet & 3
        if kind >= PING:
            self.write(0x89 if kind == PING else 0x8A, payload[:125])
            self.events.append(("Ping" if kind == PING else "Pong", (payload[:125],)))
        else:
            self.add_data(octet, payload * TIMES[octet >> 4], kind == LAST)

    def add_data(self, octet: int, payload: bytes, last: bool) -> None:
        """Add a data frame, of the message that is being written or of a new one."""
        first = 0
        if self.opcode == 0:
            first = self.opcode = 1 + (octet >> 2 & 1)
            self.message = b""
            if octet & 8 and self.compress:
                first |= 0x40
                self.compressor = zlib.compressobj(octet >> 6 & 3, zlib.DEFLATED, -15)
        self.message += payload
        bad = self.opcode == 1 and not is_text(self.message, last)
        if self.compressor is not None:
            payload = self.compressor.compress(payload)
            # What zlib keeps for later, the peer cannot find fault with.
            if last or bad:
                payload += self.compressor.flush(zlib.Z_SYNC_FLUSH)[: -4 if last else None]
        self.write(first | (0x80 if last else 0), payload)
        if len(self.message) > self.limit:
            self.close_code = 1009
        elif bad:
            self.close_code = 1007
        elif last:
            text = self.opcode == 1
            self.events.append(("str", self.message.decode()) if text else ("bytes", self.message))
            self.opcode = 0
            self.compressor = None


def is_text(octets: bytes, last: bool) -> bool:
    """Tell whether octets are UTF-8, or can still become it."""
    try:
        octets.decode()
    except UnicodeDecodeError as error:
        # The Unicode standard, table 3-7: which octets may follow the first one of a character.
        rest = octets[error.start :]
        if last or error.end < len(octets) or not 0xC2 <= rest[0] <= 0xF4:
            return False
        lowest = {0xE0: 0xA0, 0xF0: 0x90}.get(rest[0], 0x80)
        highest = {0xED: 0x9F, 0xF4: 0x8F}.get(rest[0], 0xBF)
        return len(rest) < 2 or lowest <= rest[1] <= highest
    return True


def read(script: bytes, masked: bool, limit: int, compress: bool) -> Model:
    """Return what a script says."""
    writer = Writer(masked, limit, compress)
    at = 0
    while at + 2 <= len(script) and writer.close_code is None:
        stop = at + 2 + script[at + 1]
        writer.add(script[at], script[at + 2 : stop])
        at = stop
    return Model(b"".join(writer.frames), writer.events, writer.close_code)


def make(twin: Twin) -> Callable[[bytes], object]:
    """Return the function that runs a script."""
    makers = [Maker(twin, "SERVER"), Maker(twin, "CLIENT")]

    def check(data: bytes) -> object:
        if len(data) < 2:
            return None
        maker = makers[data[0] & 1]
        # A compressed message that is over the limit is judged by its octets in another order: see `deflate`.
        compress = data[0] & 8 != 0
        limit = 1 << 20 if compress else LIMITS[data[0] >> 1 & 3]
        parameters = (data[0] & 16 != 0, data[0] & 16 != 0, 15, 15) if compress else None
        settings = Settings(limit, parameters, streaming=False, closing=False, hold_pongs=False)
        model = read(data[2:], maker.server, limit, compress)
        made = feed_pieces(maker.make(settings), cut(model.octets, data[1]), settings)
        assert described(made.events) == model.events, (made, model)
        assert (made.error and made.error.close_code) == model.close_code, (made, model)
        answer_key = None if maker.server else b"\0\0\0\0"
        pongs = b"".join([frame(0x8A, value[0], answer_key) for kind, value in model.events if kind == "Ping"])
        assert made.sent.startswith(pongs), made
        return model.close_code, len(model.events) > 3, frozenset(kind for kind, _ in model.events), data[0] & 31

    return check


def script(*frames: tuple[int, bytes]) -> bytes:
    """Return the script of these frames."""
    return b"".join(bytes((octet, len(payload))) + payload for octet, payload in frames)


SCRIPTS = [
    script((LAST, b"Hello")),
    script((MORE, b"Hel"), (PING, b"?"), (LAST, b"lo")),
    script((MORE | 4, b"\x00\xff"), (PONG, b""), (MORE, b""), (LAST, b"\x80"), (LAST, b"next")),
    script((MORE, b"\xe2"), (PING, b"1"), (MORE, b"\x82"), (PING, b"2"), (LAST, b"\xac")),
    script((MORE, b"\xed"), (PING, b"1"), (MORE, b"\xa0"), (PING, b"2"), (LAST, b"\x80")),
    script((MORE, b"\xf4"), (MORE, b"\x90"), (LAST, b"\x80\x80")),
    script((LAST | 8, b"Hello"), (LAST | 8, b"Hello"), (LAST, b"plain")),
    script((MORE | 8, b"Hel"), (PING, b""), (MORE, b""), (LAST, b"lo"), (LAST | 12, b"")),
    script((LAST | 12 | 0xF0, bytes(250)), (LAST | 0xCC, bytes(range(200)))),
    script((LAST | 4 | 0xF0, b"*" * 250), (LAST | 4, b"*" * 125), (LAST | 4, b"*" * 126)),
    script((LAST | 0xF0, b"ab"), (MORE | 0x30, b"over"), (PING, b""), (LAST | 0x30, b"the limit")),
    script((LAST | 0x30, b"\xe2\x82\xac" * 80)),
]
WORDS = [
    *(script((octet, b"x")) for octet in (LAST, MORE, PING, PONG, MORE | 8, LAST | 12)),
    *(script((octet, b"")) for octet in (LAST, MORE, PING, LAST | 8)),
    *(bytes.fromhex(word) for word in ("e2 82 ac", "f0 9f 98 80", "ed 9f bf", "ed a0 80", "f4 8f bf bf", "f4 90 80")),
    *(bytes.fromhex(word) for word in ("c0 af", "e0 80", "e0 a0 80", "f0 80", "f0 90 80 80", "c2", "ef bf bf")),
]
SEEDS = [seed(octets, settings, number) for number, octets in enumerate(SCRIPTS) for settings in (0, 1, 4, 8, 25)]
TARGET = Target(make, SEEDS, WORDS, max_length=800)
