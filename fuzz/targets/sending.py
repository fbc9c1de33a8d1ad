"""Sending: calls on one side of a connection, against the events of the other.

Invariant: what is sent on one side, whole or in fragments, compressed or not, masked or not, is what the other side
receives, in any pieces and in the order of the calls; what may not be sent raises, and nothing of it is.

An input is a script: two octets choose the roles, the compression and the pieces; then each call has an octet that
says what it is, one for how long its argument is, and the argument.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fuzz.connections import PARAMETERS, Maker, Settings, described, take
from fuzz.target import Target, cut, seed
from fuzz.targets.messages import WORDS as TEXTS
from fuzz.targets.messages import is_text
from rawws.errors import ConnectionClosed, LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuzz.twins import Twin

TEXT, BINARY, FRAGMENTS, PING, PONG, CLOSE = range(6)
# What an argument is repeated by: LARGE is 2,048 bytes, and a header changes at 126 and at 65,536.
TIMES = (1, 1, 1, 1, 1, 9, 9, 260)
COMPRESS = (None, None, False, True)
KEYS = bytes(range(1, 256)) * 5


def random(count: int) -> bytes:
    """Return the same masking keys each time, none of them 0."""
    return KEYS[:count]


def calls(script: bytes) -> list[tuple[str, tuple[Any, ...]]]:
    """Return the calls of a script, as names and arguments."""
    found: list[tuple[str, tuple[Any, ...]]] = []
    at = 0
    while at + 2 <= len(script):
        octet, length = script[at], script[at + 1]
        argument = script[at + 2 : at + 2 + length]
        at += 2 + length
        kind = octet & 7
        compress = COMPRESS[octet >> 3 & 3]
        if kind in {PING, PONG}:
            found.append(("ping" if kind == PING else "pong", (argument,)))
        elif kind == CLOSE:
            code = int.from_bytes(argument[:2], "big")
            found.append(("close", (code, argument[2:].decode("utf-8", "surrogateescape"))))
        elif kind == FRAGMENTS:
            opcode = 1 if is_text(argument, last=True) else 2
            parts = [argument[part : part + 7] for part in range(0, len(argument), 7)] or [b""]
            for number, part in enumerate(parts):
                found.append(("send_fragment", (opcode if number == 0 else 0, part, number == len(parts) - 1)))
        elif kind == BINARY:
            found.append(("send", (argument * TIMES[octet >> 5], compress)))
        else:
            text = argument.decode("utf-8", "surrogateescape" if octet & 32 else "replace")
            found.append(("send", (text * TIMES[octet >> 5], compress)))
    return found


def perform(connection: Any, name: str, arguments: tuple[Any, ...]) -> str:
    """Make a call, and return what it raised."""
    try:
        getattr(connection, name)(*arguments)
    except (LocalProtocolError, ConnectionClosed) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def expected(done: list[tuple[str, tuple[Any, ...]]]) -> list[tuple[str, Any]]:
    """Return the events that calls must give, which were not refused."""
    events: list[tuple[str, Any]] = []
    closed = False
    parts: list[bytes] = []
    opcode = 0
    for name, arguments in done:
        if name == "send":
            events.append((type(arguments[0]).__name__, arguments[0]))
        elif name == "send_fragment":
            opcode = arguments[0] or opcode
            parts.append(arguments[1])
            if arguments[2]:
                message = b"".join(parts)
                events.append(("str", message.decode()) if opcode == 1 else ("bytes", message))
                parts = []
        elif name != "close":
            events.append((name.capitalize(), arguments))
        elif not closed:
            events.append(("Close", arguments))
            closed = True
    return events


def make(twin: Twin) -> Callable[[bytes], object]:
    """Return the function that runs a script."""
    makers = [Maker(twin, "SERVER"), Maker(twin, "CLIENT")]

    def check(data: bytes) -> object:
        if len(data) < 2:
            return None
        parameters = PARAMETERS[data[0] >> 1 & 3]
        settings = Settings(1 << 20, parameters, streaming=False, closing=False, hold_pongs=False)
        sender = makers[data[0] & 1].make(settings, random)
        receiver = makers[~data[0] & 1].make(settings)
        done = []
        refused = set()
        for name, arguments in calls(data[2:]):
            before = sender.pending()
            error = perform(sender, name, arguments)
            if error:
                refused.add(error[:24])
                assert sender.pending() == before, (name, arguments, error)
            else:
                done.append((name, arguments))
        events: list[Any] = []
        for piece in cut(b"".join(sender.data_to_send()), data[1]):
            receiver.receive(piece)
            assert take(receiver, events, streaming=False) is None, done
        assert described(events) == expected(done), (done, events)
        return frozenset(name for name, _ in done), frozenset(refused), data[0] & 7

    return check


def script(*calls: tuple[int, bytes]) -> bytes:
    """Return the script of these calls."""
    return b"".join(bytes((octet, len(argument))) + argument for octet, argument in calls)


SCRIPTS = [
    script((TEXT, b"Hello"), (BINARY, b"\x00\xff"), (PING, b"?"), (PONG, b"!")),
    script((TEXT, b""), (BINARY, b""), (FRAGMENTS, b""), (PING, b"")),
    script((FRAGMENTS, b"in fragments of seven bytes"), (FRAGMENTS, b"\xff" * 20)),
    script((TEXT, b"bye"), (CLOSE, b"\x03\xe8done"), (TEXT, b"late"), (CLOSE, b"\x03\xe9")),
    script((CLOSE, b"\x03\xed"), (PING, b"late")),
    script((CLOSE, b"\x03\xec"), (TEXT, b"not closed")),
    script((CLOSE, b"\x0f\xa0" + b"*" * 123)),
    script((CLOSE, b"\x0f\xa0" + b"*" * 124), (CLOSE, b"\x03\xe8\xff")),
    script((PING, bytes(125)), (PONG, bytes(126)), (PING, bytes(126))),
    script((TEXT | 32, b"\xff lone surrogate"), (TEXT, "Grüße €😀".encode())),
    script((BINARY | 0xE0, bytes(253)), (TEXT | 0xE0, b"*" * 255), (TEXT, b"*" * 125), (TEXT, b"*" * 126)),
    script((BINARY | 0xC0, b"?" * 228), (BINARY | 0xC0, b"?" * 227), (TEXT, b"behind a large one")),
    script((TEXT | 0x18, b"compressed"), (TEXT | 0x10, b"not compressed"), (TEXT | 0x18, b"compressed")),
]
WORDS = [
    *(script((octet, b"x")) for octet in (TEXT, BINARY, FRAGMENTS, PING, PONG, TEXT | 0x18, BINARY | 0xE0)),
    *(script((CLOSE, code)) for code in (b"\x03\xe8", b"\x03\xed", b"\x03\xee", b"\x0b\xb8")),
    *TEXTS[10:],
]
SEEDS = [seed(octets, settings, number) for number, octets in enumerate(SCRIPTS) for settings in range(8)]
TARGET = Target(make, SEEDS, WORDS, max_length=800)
