"""Presence: who is in a topic now.

Laws:
1. Whoever watches a topic is told of each who comes and goes, once, and in the order in which that happened: who begins
   with the list that it got has the list of now.
2. A server that is gone takes its own with it.
3. Who somebody is, the server says. What a client says of itself is told as its claim.
"""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from rawws.net.identity import MAX_INFO

from .names import TopicError
from .payloads import serialize

if TYPE_CHECKING:
    from rawws.net.identity import Identity

__all__ = ["LARGEST_INFO", "NOTHING", "PresenceSet", "Present", "new_present", "present_of"]

# Stands for what somebody tells of itself who is not present: all else is JSON.
NOTHING: Final = object()
# What begins the ids of users, and of those of whom all is a claim: servers make the ids, so nobody can claim to be
# either. Behind a backplane, what is told of a user is an object with more than its info.
USER, CLAIMED = "@", "~"
# Room in such an object beside info and claim: a name of 255 bytes, each of which JSON may write as six.
TOLD_ROOM = 2048
# The most that a hub may allow: every subscriber that watches gets it, and every list has it of each.
LARGEST_INFO: Final = 1 << 16


class Present(NamedTuple):
    """Somebody in a topic: an id that is its own as long as it stays, and what others are told of it.

    `user` is the one that its server knows, "" for anybody; then `info` is what the server says, and `claim` what its
    client says beside it. Of anybody, `info` is what the client says where `claimed` is True.
    """

    id: str
    # As JSON in UTF-8, which takes a tenth of the memory of what it stands for, and a quarter of some text.
    octets: bytes
    # Where its connection ends: "" for this server.
    server: str = ""
    user: str = ""
    claim_octets: bytes = b""
    # Whether its connection is lost, and may come back in time.
    away: bool = False

    @property
    def text(self) -> str:
        """What others are told of it, as JSON."""
        return self.octets.decode()

    @property
    def info(self) -> Any:
        """What others are told of it."""
        return json.loads(self.octets)

    @property
    def claimed(self) -> bool:
        """Whether `info` is what its client says, and nobody else."""
        return self.id.startswith(CLAIMED)

    @property
    def claim(self) -> Any:
        """What the client of a user says of itself, None for nothing."""
        return json.loads(self.claim_octets) if self.claim_octets else None

    def looks_as(self, other: Present | None) -> bool:
        """Tell whether those who watch see the same of it."""
        mine = (self.octets, self.user, self.claim_octets)
        return other is not None and mine == (other.octets, other.user, other.claim_octets)

    def told(self) -> str:
        """Return what other servers are told of it, as JSON."""
        if not self.user:
            return self.text
        claim = f',"claim":{self.claim_octets.decode()}' if self.claim_octets else ""
        away = ',"away":true' if self.away else ""
        return f'{{"user":{serialize(self.user)},"info":{self.text}{claim}{away}}}'


@final
class PresenceSet:
    """Those who are present in one topic, `users` with how many connections each has."""

    __slots__ = ("away", "members", "users")

    def __init__(self) -> None:
        self.members: dict[str, Present] = {}
        self.users: dict[str, int] = {}
        # The ids of those who are away, of each user.
        self.away: dict[str, dict[str, None]] = {}

    def join(self, present: Present) -> bool:
        """Add somebody; tell whether that is news."""
        known = self.members.get(present.id)
        if known is not None:
            self._forget(known)
        self.members[present.id] = present
        if present.user:
            self.users[present.user] = self.users.get(present.user, 0) + 1
            if present.away:
                self.away.setdefault(present.user, {})[present.id] = None
        return known != present

    def is_connected(self, user: str) -> bool:
        """Tell whether a user has a connection that is not lost."""
        return self.users.get(user, 0) > len(self.away.get(user, ()))

    def leave(self, ident: str) -> Present | None:
        """Remove somebody, and return who it was."""
        known = self.members.pop(ident, None)
        if known is not None:
            self._forget(known)
        return known

    def leave_all(self, server: str) -> list[Present]:
        """Remove all of a server that is gone, and return them."""
        gone = [present for present in self.members.values() if present.server == server]
        for present in gone:
            self.leave(present.id)
        return gone

    def find_away(self, user: str) -> Present | None:
        """Return one connection of a user that is lost, and may come back."""
        idents = self.away.get(user)
        return self.members[next(iter(idents))] if idents else None

    def _forget(self, known: Present) -> None:
        if known.user:
            count = self.users[known.user] = self.users[known.user] - 1
            if not count:
                del self.users[known.user]
            if known.away:
                del self.away[known.user][known.id]
                if not self.away[known.user]:
                    del self.away[known.user]


def new_present(
    info: Any,
    identity: Identity | None = None,
    *,
    is_claim: bool = False,
    claims: bool = True,
    max_info: int = MAX_INFO,
) -> Present:
    """Return somebody who is about to join, where `identity` says who it is, None for anybody.

    `is_claim` where a client says `info` of itself, which is told to others if `claims` are. Raises TopicError for what
    cannot be told in a few words of JSON, of at most `max_info` bytes.
    """
    octets = octets_of(info, max_info)
    if is_claim and not claims:
        octets = b"null"
    ident = secrets.token_urlsafe(9)
    if identity is None:
        return Present(f"{CLAIMED}{ident}" if is_claim and claims else ident, octets)
    if not is_claim:
        return Present(f"{USER}{ident}", octets, user=identity.user)
    claim = b"" if octets == b"null" else octets
    return Present(f"{USER}{ident}", identity.octets, user=identity.user, claim_octets=claim)


def octets_of(info: Any, limit: int) -> bytes:
    """Return what is told of somebody as JSON in UTF-8. Raises TopicError for what is too much, or none."""
    try:
        octets = serialize(info).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise TopicError("limit", f"what is told of somebody present is no JSON: {error}") from None
    if len(octets) > limit:
        raise TopicError("limit", f"what is told of somebody present has {len(octets)} bytes, limit {limit}")
    return octets


def present_of(ident: str, told: str, server: str, max_info: int = MAX_INFO) -> Present:
    """Return somebody of whom another server told. Raises TopicError for what no server tells of somebody present."""
    is_user = ident.startswith(USER)
    try:
        most = MAX_INFO + max_info + TOLD_ROOM if is_user else max_info
        known = json.loads(told) if len(told) <= most else told
    except (ValueError, RecursionError) as error:
        raise TopicError("limit", f"what is told of somebody present is no JSON: {error}") from None
    if not is_user:
        return Present(ident, octets_of(known, max_info), server)
    if not isinstance(known, dict) or not isinstance(known.get("user"), str) or not known["user"]:
        raise TopicError("limit", "what is told of a user names none")
    claim = octets_of(known["claim"], max_info) if "claim" in known else b""
    info = octets_of(known.get("info"), MAX_INFO)
    return Present(ident, info, server, known["user"], claim, known.get("away") is True)
