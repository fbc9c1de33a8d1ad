"""Cursors: where a client is in a topic, or in several of them, as text and back.

A cursor is an epoch and an offset, `5f0e:17`; those of several topics are joined to one, `chat=5f0e:17&news=81aa:4`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from rawws.errors import HttpError
from rawws.http.requests import LastEventId
from rawws.protocol.extensions import excerpt

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

__all__ = [
    "EARLIEST",
    "MAX_ID",
    "CursorError",
    "cursor_of",
    "cursors_of",
    "is_lenient",
    "is_short",
    "join_cursors",
    "namespaced",
    "parse_cursor",
]

# Stands for a cursor before the first publication that is held.
EARLIEST = "earliest"
# A joined cursor is no longer than the head of a request, in characters: taking a longer one apart would hold the loop.
MAX_JOINED = 16384
# Stands for a place of which nothing is known: no epoch is called so.
LOST = LastEventId("lost:0")
# What a reconnecting EventSource sends as Last-Event-ID must fit into a request's head, in bytes: nginx takes 8 KiB.
MAX_ID = 4096
# An epoch, an offset, and what stands between them.
CURSOR_SIZE = 52
CURSOR = re.compile(r"([\w-]{1,32}):([0-9]{1,18})", re.ASCII)


class CursorError(HttpError, ValueError):
    """A cursor is none that this topic ever gave; out of an endpoint, it is a 400."""

    def __init__(self, reason: str) -> None:
        super().__init__(400, reason)

    def __str__(self) -> str:
        return self.reason


def is_lenient(cursor: str) -> bool:
    """Tell whether a cursor that the topic never gave is lost, and no mistake."""
    return isinstance(cursor, LastEventId)


def parse_cursor(cursor: object) -> tuple[str, int]:
    """Take a cursor apart into epoch and offset. Raises CursorError."""
    found = CURSOR.fullmatch(cursor) if isinstance(cursor, str) else None
    if found is None:
        shown = excerpt(cursor) if isinstance(cursor, str) else type(cursor).__name__
        raise CursorError(f"the cursor is {shown}, allowed is what a publication came with, an epoch and an offset")
    return found[1], int(found[2])


def join_cursors(cursors: Mapping[str, str], skip: int = 0) -> str:
    """Return one cursor for several topics: `chat=5f0e:17&news=81aa:4`, names percent-encoded.

    The first `skip` characters of each name are left out: a namespace that its client does not know.
    """
    return "&".join([label(topic[skip:]) + cursor for topic, cursor in cursors.items()])


def namespaced(since: str, namespace: str) -> str:
    """Return a cursor as one whose names are within a namespace."""
    # One that is too long is refused where it is read.
    if not namespace or "=" not in since or len(since) > MAX_JOINED:
        return since
    before = quote(namespace, safe="/")
    return type(since)("&".join([before + part for part in since.split("&")]))


@lru_cache(4096)
def label(topic: str) -> str:
    """Return what stands before the cursor of a topic in a joined one."""
    return f"{quote(topic, safe='/')}="


def is_short(topics: Collection[str]) -> bool:
    """Tell whether the joined cursor of these topics always fits into a request's head."""
    return sum(map(len, map(label, topics))) + CURSOR_SIZE * len(topics) <= MAX_ID


def cursor_of(since: str, topic: str) -> str:
    """Return the cursor for one topic out of a joined one, "" if it has none; others are returned as they are.

    Raises CursorError for one that is too long.
    """
    return cursors_of(since, [topic])[topic]


def cursors_of(since: str, topics: Iterable[str]) -> dict[str, str]:
    """Return the same for several topics: a joined cursor is taken apart once, for it may have thousands of parts."""
    if is_lenient(since):
        return _places_of(since, topics)
    if "=" not in since:
        return dict.fromkeys(topics, since)
    if len(since) > MAX_JOINED:
        raise CursorError(f"the cursor has {len(since)} characters, limit {MAX_JOINED}")
    cursors = {}
    # Of a name that stands there twice, the first one counts.
    for part in reversed(since.split("&")):
        name, _, cursor = part.partition("=")
        cursors[unquote(name)] = cursor
    return {topic: cursors.get(topic, "") for topic in topics}


def _places_of(since: str, topics: Iterable[str]) -> dict[str, str]:
    """Return the same of what a browser says, whatever it is: where a topic is not named in it, its place is lost."""
    if not since:
        return dict.fromkeys(topics, "")
    joined = str(since)[:MAX_JOINED]
    return {
        topic: LastEventId(cursor) if cursor == EARLIEST or CURSOR.fullmatch(cursor) else LOST
        for topic, cursor in cursors_of(joined, topics).items()
    }
