"""Presence: who is there in a topic, here and on other servers.

Laws:
1. Whoever watches and applies join and leave to the list that it got has the list of now.
2. A server that is gone takes its own with it.
"""

from __future__ import annotations

import json
import secrets
from typing import Any, Final, NamedTuple, final

from .names import TopicError

__all__ = ["NOTHING", "PresenceSet", "Present", "new_present", "present_of"]

# Stands for what somebody tells of itself who is not present: all else is JSON.
NOTHING: Final = object()
# What others are told of somebody present, as JSON, in bytes: a name and the address of a picture.
MAX_INFO = 1024


class Present(NamedTuple):
    """Somebody in a topic: an id that is its own as long as it stays, and what it told of itself."""

    id: str
    # As JSON in UTF-8, which takes a tenth of the memory of what it stands for, and a quarter of some text.
    octets: bytes
    # Where its connection ends: "" for this server.
    server: str = ""

    @property
    def text(self) -> str:
        """What it told of itself, as JSON."""
        return self.octets.decode()

    @property
    def info(self) -> Any:
        """What it told of itself."""
        return json.loads(self.octets)


@final
class PresenceSet:
    """Those who are present in one topic."""

    __slots__ = ("members",)

    def __init__(self) -> None:
        self.members: dict[str, Present] = {}

    def join(self, present: Present) -> bool:
        """Add somebody; tell whether that is news."""
        known = self.members.get(present.id)
        self.members[present.id] = present
        return known != present

    def leave(self, ident: str) -> Present | None:
        """Remove somebody, and return who it was."""
        return self.members.pop(ident, None)

    def leave_all(self, server: str) -> list[Present]:
        """Remove all of a server that is gone, and return them."""
        gone = [present for present in self.members.values() if present.server == server]
        for present in gone:
            del self.members[present.id]
        return gone


def new_present(info: Any) -> Present:
    """Return somebody who is about to join. Raises TopicError for what cannot be told in a few words of JSON."""
    try:
        octets = serialized(info).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise TopicError("limit", f"what is told of somebody present is no JSON: {error}") from None
    if len(octets) > MAX_INFO:
        raise TopicError("limit", f"what is told of somebody present has {len(octets)} bytes, limit {MAX_INFO}")
    return Present(secrets.token_urlsafe(9), octets)


def serialized(info: Any) -> str:
    """Return what somebody tells of itself, as JSON."""
    return json.dumps(info, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def present_of(ident: str, info: str, server: str) -> Present:
    """Return somebody of whom another server told. Raises TopicError for what no server tells of somebody present."""
    try:
        known = json.loads(info) if len(info) <= MAX_INFO else info
    except (ValueError, RecursionError) as error:
        raise TopicError("limit", f"what is told of somebody present is no JSON: {error}") from None
    return new_present(known)._replace(id=ident, server=server)
