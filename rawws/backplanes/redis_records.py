"""Redis records: publications and those present to the bytes that a Redis holds and sends, and back."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from rawws.topics.backplane import HistoryResult, Placed, new_position, new_record

if TYPE_CHECKING:
    from typing import Any

    from rawws.topics.backplane import Position, Record

__all__ = ["pack_record", "quoted_topic", "server_of", "unpack_history", "unpack_place", "unpack_record"]

# What stands as it is in the members beside a message; a space ends them.
UNQUOTED = '"{}[]:,'


@lru_cache(maxsize=1024)
def quoted_topic(topic: str) -> str:
    """Return a topic as names of keys and channels have it: no braces, so that it is the whole of a hash tag."""
    return quote(topic, safe="")


def pack_record(server: str, number: int, message: str | bytes, key: str | None, extra: str) -> bytes:
    """Return the bytes of a record: its origin, its kind, the length of its key; then the key and the message.

    What goes beside the message stands behind the name of the server, percent-encoded: a server of before takes it for
    a part of that name, and has the rest.
    """
    named = b"" if key is None else key.encode()
    if extra:
        server = f"{server},{quote(extra, safe=UNQUOTED)}"
    kind, body = ("t", message.encode()) if isinstance(message, str) else ("b", message)
    length = "-" if key is None else str(len(named))
    return f"{server} {number} {kind} {length} ".encode() + named + body


def unpack_record(topic: str, epoch: str, offset: int, data: bytes, age: float = 0.0, published: bytes = b"") -> Record:
    """Return a record from its bytes. Raises ValueError for what is none."""
    server, number, kind, length, rest = data.split(b" ", 4)
    size = 0 if length == b"-" else int(length)
    key = None if length == b"-" else rest[:size].decode()
    message = rest[size:].decode() if kind == b"t" else rest[size:]
    name, _, extra = server.decode().partition(",")
    extra = unquote(extra, errors="strict")
    return new_record(topic, epoch, offset, message, key, name, int(number), extra, age, published.decode())


def unpack_history(topic: str, since: Position | None, found: list[Any]) -> HistoryResult:
    """Return what the script answered about a topic. Raises ValueError for what no backplane wrote."""
    epoch, offset = new_position(found[0].decode(), found[1])
    records: list[Record] = []
    held, now = found[4:] or ([], b"0")
    for at, each in reversed(held):
        number = int(at.partition(b"-")[0])
        # Where one was taken out, what is before it is not known to be all.
        if number != offset - len(records):
            break
        age = (int(now) - int(each[3])) / 1000 if len(each) > 3 else 0.0
        records.append(unpack_record(topic, epoch, number, each[1], age, b"".join(each[5:6])))
    records.reverse()
    known = len(found) > 4 and (since is None or len(records) == offset - since.offset)
    places = (word.rpartition(":") for word in found[3].decode().split())
    before = tuple(new_position(each, int(last)) for each, _, last in places)
    return HistoryResult(epoch, offset, records if known else [], known, int(found[2]), before)


def unpack_place(found: list[bytes | int]) -> Position:
    """Return where a publication is, and where the patterns for it are. Raises ValueError for what is none."""
    if len(found) == 2:
        return new_position(text(found[0]), found[1])
    place, *patterns = (
        (text(name), new_position(text(epoch), offset))
        for name, epoch, offset in zip(*[iter([b"", *found])] * 3, strict=True)
    )
    return Placed(*place[1], dict(patterns)) if patterns else place[1]


def text(found: bytes | int) -> str:
    """Return text that a script answered. Raises ValueError for what is none."""
    return found.decode() if isinstance(found, bytes) else str(found)


def server_of(lease: bytes) -> str:
    """Return whose a lease is, "" for what is none. Raises ValueError for what is no text."""
    return lease.rpartition(b".")[0].decode()
