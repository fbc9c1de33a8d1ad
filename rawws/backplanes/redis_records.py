"""Redis records: publications and those present to the bytes that a Redis holds and sends, and back."""

from __future__ import annotations

from urllib.parse import quote, unquote

from rawws.topics.backplane import Record, new_record

__all__ = ["pack_record", "server_of", "unpack_record"]

# What stands as it is in the members beside a message; a space ends them.
UNQUOTED = '"{}[]:,'


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


def unpack_record(topic: str, epoch: str, offset: int, data: bytes, age: float = 0.0) -> Record:
    """Return a record from its bytes. Raises ValueError for what is none."""
    server, number, kind, length, rest = data.split(b" ", 4)
    size = 0 if length == b"-" else int(length)
    key = None if length == b"-" else rest[:size].decode()
    message = rest[size:].decode() if kind == b"t" else rest[size:]
    name, _, extra = server.decode().partition(",")
    return new_record(topic, epoch, offset, message, key, name, int(number), unquote(extra, errors="strict"), age)


def server_of(lease: bytes) -> str:
    """Return whose a lease is, "" for what is none. Raises ValueError for what is no text."""
    return lease.rpartition(b".")[0].decode()
