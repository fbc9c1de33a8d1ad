"""Scenario: what every client and every server of these tests says and expects, in whatever language it is written.

A client visits five paths of a server, each on a connection of its own, and prints one line: `report` and JSON.

- `/echo`: each text and each binary message comes back, then a message in fragments and a pong, if the client can send
  fragments and a ping; then the client closes with a code and a reason.
- `/compressed`: a message that compresses well comes back; the relay between counts what that took.
- `/fragments`: the server sends a text and a binary message in fragments.
- `/ping`: the server sends a ping, and the text "pong" when its pong has come.
- `/close`: the server closes with a code and a reason.

The server prints one line for each connection when it has ended: `connection` and JSON. A message is reported by its
kind, its length and its SHA-256. Strings and numbers are in `scenario.json`, which the programs in JavaScript read.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Final, TypedDict

__all__ = [
    "BINARY_FRAGMENTS",
    "CLOSE_BY_CLIENT",
    "CLOSE_BY_SERVER",
    "COMPRESSIBLE",
    "FRAGMENTED",
    "MESSAGES",
    "PATHS",
    "PING",
    "TEXT_FRAGMENTS",
    "Close",
    "Connection",
    "Report",
    "digest",
    "print_connection",
    "print_report",
]

PATHS: Final = ("/echo", "/compressed", "/fragments", "/ping", "/close")


class Close(TypedDict):
    """How a connection ended for one side: the code and the reason that it received."""

    code: int
    reason: str


class Report(TypedDict):
    """What a client got; None stands for what it cannot send, or does not tell."""

    echoed: list[str]
    fragmented: list[str] | None
    pong: str | None
    closed_by_client: Close
    compressed: str
    deflate: bool
    fragments: list[str]
    pinged: str
    closed_by_server: Close


class Connection(TypedDict):
    """What a server got on one connection."""

    path: str
    received: list[str]
    close: Close


def octets(length: int) -> bytes:
    """Return binary contents without a short period; scenario.mjs has the same formula."""
    return bytes(index * index // 7 % 256 for index in range(length))


def digest(message: str | bytes) -> str:
    """Return kind, length in bytes and SHA-256 of a message."""
    kind, data = ("text", message.encode()) if isinstance(message, str) else ("binary", bytes(message))
    return f"{kind} {len(data)} {hashlib.sha256(data).hexdigest()}"


def print_report(report: Report) -> None:
    """Print what a client got."""
    print("report", json.dumps(report), flush=True)


def print_connection(connection: Connection) -> None:
    """Print what a server got."""
    print("connection", json.dumps(connection), flush=True)


_SCENARIO = json.loads(Path(__file__).with_name("scenario.json").read_text(encoding="utf-8"))

MESSAGES: Final[list[str | bytes]] = [
    *(unit * count for unit, count in _SCENARIO["texts"]),
    *(octets(length) for length in _SCENARIO["binaries"]),
]
TEXT_FRAGMENTS: Final[list[str]] = _SCENARIO["textFragments"]
BINARY_FRAGMENTS: Final[list[bytes]] = [octets(length) for length in _SCENARIO["binaryFragments"]]
FRAGMENTED: Final[list[list[str] | list[bytes]]] = [TEXT_FRAGMENTS, BINARY_FRAGMENTS]
COMPRESSIBLE: Final[str] = _SCENARIO["compressible"][0] * _SCENARIO["compressible"][1]
PING: Final[str] = _SCENARIO["ping"]
CLOSE_BY_CLIENT: Final[Close] = _SCENARIO["closeByClient"]
CLOSE_BY_SERVER: Final[Close] = _SCENARIO["closeByServer"]
