"""Identity: who a client is, as the server says, whatever it is connected by."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import Any, final

__all__ = ["MAX_INFO", "MAX_USER", "Identity"]

# A name is in every publication of the user: 255 bytes are as many as a topic may have.
MAX_USER = 255
# What others are told of somebody, as JSON, in bytes: a name and the address of a picture.
MAX_INFO = 1024


@final
class Identity:
    """Who a client is: `user` is the one name by which the application knows it, 1 to 255 bytes that can be printed.

    `info` is what others are told of the user where it is present, JSON of at most 1 KiB. `expires` says until when it
    is so: a datetime with a timezone, or seconds since 1970, or None for as long as the connection lasts; it is kept as
    seconds. Raises TypeError or ValueError for what cannot be said.
    """

    __slots__ = ("expires", "octets", "user")

    def __init__(self, user: str, info: Any = None, expires: datetime | float | None = None) -> None:
        if not isinstance(user, str):
            raise TypeError(f"user is {type(user).__name__}, allowed is str")
        if not user.isprintable() or not 0 < len(user.encode()) <= MAX_USER:
            raise ValueError(f"user is {user[:64]!r}, allowed are 1 to {MAX_USER} printable bytes")
        self.user = user
        # As JSON in UTF-8, made once: others get this.
        self.octets = octets_of(info)
        self.expires = seconds_of(expires)

    def __repr__(self) -> str:
        return f"<rawws.Identity {self.user!r}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Identity):
            return NotImplemented
        return (self.user, self.octets, self.expires) == (other.user, other.octets, other.expires)

    def __hash__(self) -> int:
        return hash((self.user, self.octets, self.expires))

    @property
    def info(self) -> Any:
        """What others are told of the user."""
        return json.loads(self.octets)

    def left(self) -> float | None:
        """Return for how many seconds it is so still, None without an end."""
        return None if self.expires is None else self.expires - time.time()

    def is_over(self) -> bool:
        """Tell whether it is so no more."""
        return self.expires is not None and self.expires <= time.time()


def octets_of(info: Any) -> bytes:
    """Return JSON in UTF-8. Raises ValueError for what is none, or too long."""
    try:
        octets = json.dumps(info, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"info is no JSON: {error}") from None
    if len(octets) > MAX_INFO:
        raise ValueError(f"info has {len(octets)} bytes, limit {MAX_INFO}")
    return octets


def seconds_of(expires: object) -> float | None:
    """Return a time as seconds since 1970. Raises TypeError or ValueError for what says none."""
    if expires is None:
        return None
    if isinstance(expires, datetime):
        if expires.tzinfo is None:
            raise ValueError("expires has no timezone, needed is one: datetime.now(UTC) + timedelta(hours=1)")
        return expires.timestamp()
    if isinstance(expires, bool) or not isinstance(expires, (int, float)):
        raise TypeError(f"expires is {type(expires).__name__}, allowed are a datetime, seconds since 1970 and None")
    seconds = float(expires)
    if not -1e18 < seconds < 1e18:
        raise ValueError(f"expires is {expires}, allowed are seconds since 1970")
    return seconds
