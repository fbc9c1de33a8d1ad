"""NATS records: publications to the header and the payload of NATS messages, and back.

The payload of a message is that of the publication, as it was; all else stands in one header, `Rawws`: words that are
percent-encoded, with a space between them. What one server of rawws writes, another one and any program of NATS reads.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote, unquote

from rawws.topics.backplane import Record, new_position, new_record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nats.aio.msg import Msg

__all__ = ["HEADER", "MARK", "OUTSIDE", "Stored", "Tail", "headers_of", "quoted", "stamp", "stored_of"]

HEADER: Final = "Rawws"
# The version of the words, which is the first of them.
VERSION: Final = "1"
# What a message is: text, bytes, or no publication but a mark that an epoch begins.
TEXT: Final = "t"
BYTES: Final = "b"
MARK: Final = "e"
# The server of those who publish without a hub: each of them is another one, so none has a number.
OUTSIDE: Final = "-"
NOTHING: Final = "-"
# Of so many servers it is remembered what they published last to a topic: more seldom publish at once.
MAX_SERVERS = 32


class Tail(NamedTuple):
    """The end of a topic: the sequence of its last message in the stream, and where it is.

    `life` is the run of the NATS server that took it, `before` the names of the places from which nothing is missed,
    `numbers` what each server published last.
    """

    sequence: int
    epoch: str
    offset: int
    began: int
    life: str
    before: tuple[str, ...]
    numbers: dict[str, int]

    def in_life(self, life: str) -> Tail:
        """Return the end of the same topic in a run of the server that may have lost what the one before took."""
        if life == self.life:
            return self
        # All servers give it this name, and whoever publishes next writes it down.
        epoch = hashlib.sha256(f"{self.epoch} {life}".encode()).hexdigest()[:12]
        return self._replace(epoch=epoch, life=life, began=self.offset, before=())

    def in_new_epoch(self) -> Tail:
        """Return the end of the same topic in an epoch that nobody was in."""
        return self._replace(epoch=secrets.token_hex(6), began=self.offset, before=())

    def after(self, server: str, number: int) -> Tail:
        """Return the end behind one more publication, in the stream at a sequence that is not known yet."""
        numbers = self.numbers
        if server != OUTSIDE:
            numbers = {name: last for name, last in numbers.items() if name != server}
            numbers[server] = number
            if len(numbers) > MAX_SERVERS:
                del numbers[next(iter(numbers))]
        return self._replace(offset=self.offset + 1, numbers=numbers)


class Stored(NamedTuple):
    """A message of a topic's log."""

    tail: Tail
    kind: str
    server: str
    number: int
    key: str | None
    extra: str
    data: bytes
    # When the NATS server took it, in seconds since 1970 by its clock.
    at: float

    def record(self, topic: str, epoch: str, age: float = 0.0) -> Record:
        """Return the publication. Raises ValueError for what is none."""
        message = self.data.decode() if self.kind == TEXT else self.data
        return new_record(topic, epoch, self.tail.offset, message, self.key, self.server, self.number, self.extra, age)


def quoted(name: str) -> str:
    """Return a name as one token of a subject: without dots, spaces and wildcards."""
    return quote(name, safe="").replace(".", "%2E")


def headers_of(tail: Tail, kind: str, server: str, number: int, key: str | None, extra: str) -> dict[str, str]:
    """Return the headers of a message that becomes the end of its topic."""
    words = [
        *(VERSION, tail.epoch, str(tail.offset), str(tail.began), tail.life),
        *(kind, quoted(server), str(number)),
        NOTHING if key is None else f"={quote(key, safe='')}",
        quote(extra, safe='"{}[]:,') or NOTHING,
        ",".join(tail.before) or NOTHING,
        ",".join(f"{quoted(name)}:{last}" for name, last in tail.numbers.items()) or NOTHING,
    ]
    return {HEADER: " ".join(words)}


def stored_of(message: Msg) -> Stored:
    """Return what a message of a topic is. Raises ValueError for one that no server of rawws wrote."""
    headers: Mapping[str, str] = message.headers or {}
    text = headers.get(HEADER)
    if text is None:
        raise ValueError(f"a message has no header {HEADER}: another program published it")
    words = text.split(" ")
    if words[0] != VERSION:
        raise ValueError(f"a message is of version {words[0][:16]!r}, this program reads {VERSION!r}: use one version")
    _, epoch, offset, began, life, kind, server, number, key, extra, before, numbers = words
    position = new_position(epoch, int(offset))
    if kind not in {TEXT, BYTES, MARK}:
        raise ValueError(f"the kind of a message is {kind[:16]!r}, allowed are {TEXT}, {BYTES} and {MARK}")
    tail = Tail(
        int(headers["Nats-Sequence"]),
        *position,
        int(began),
        life,
        () if before == NOTHING else tuple(before.split(",")),
        {} if numbers == NOTHING else dict(map(number_of, numbers.split(","))),
    )
    return Stored(
        tail,
        kind,
        unquote(server, errors="strict"),
        int(number),
        None if key == NOTHING else unquote(key[1:], errors="strict"),
        "" if extra == NOTHING else unquote(extra, errors="strict"),
        message.data,
        stamp(headers["Nats-Time-Stamp"]),
    )


def number_of(word: str) -> tuple[str, int]:
    """Return a server, and what it published last."""
    name, _, last = word.rpartition(":")
    return unquote(name, errors="strict"), int(last)


def stamp(text: str) -> float:
    """Return the seconds since 1970 of a time that a NATS server told. Raises ValueError for what is none."""
    return datetime.fromisoformat(text).timestamp()
