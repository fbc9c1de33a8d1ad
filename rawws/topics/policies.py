"""Policies: what becomes of publications whose subscriber reads too slowly."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, final

if TYPE_CHECKING:
    from collections.abc import Callable

    from .history import Publication

__all__ = ["BLOCK", "CONFLATE", "DISCONNECT", "DROP_NEWEST", "DROP_OLDEST", "Policy"]

DISCONNECT, BLOCK, DROP_OLDEST, DROP_NEWEST, CONFLATE = range(5)
NAMES: Final = ("disconnect", "block", "drop_oldest", "drop_newest", "conflate")
# How many publications wait where the policy drops some: a page that shows a feed is seldom longer.
LIMIT = 100


@final
class Policy:
    """What becomes of publications while a subscriber's write buffer is over its high-water mark (64 KiB).

    They wait beside it, for each subscriber up to its connection's `hard_limit` (1 MiB), and then:

    - "disconnect": the subscriber is closed, a WebSocket with 1013;
    - "block": the same; meanwhile what `publish` returns waits, when awaited, until the subscriber has read;
    - "drop_oldest", "drop_newest": the oldest, or the newest of the topic is dropped, also over `limit` publications;
    - "conflate": of those about the same thing only the latest waits, and at most `limit` in all, as "drop_oldest".
      What they are about is the key given to `publish`, or what `key(publication)` returns.
    """

    __slots__ = ("key", "kind", "limit")

    def __init__(
        self, name: str = "disconnect", *, limit: int | None = None, key: Callable[[Publication], Any] | None = None
    ) -> None:
        if name not in NAMES:
            raise ValueError(f"the policy is {name!r}, allowed are {', '.join(NAMES)}")
        self.kind = NAMES.index(name)
        drops = self.kind > BLOCK
        if limit is not None and (not drops or limit < (0 if self.kind == DROP_NEWEST else 1)):
            allowed = "numbers above 0, and 0 with 'drop_newest'" if drops else "no limit but hard_limit"
            raise ValueError(f"limit is {limit} with {name!r}, allowed are {allowed}")
        if key is not None and self.kind != CONFLATE:
            raise ValueError(f"key is given with {name!r}, it is for 'conflate'")
        self.limit = (LIMIT if limit is None else limit) if drops else sys.maxsize
        self.key = key

    def __repr__(self) -> str:
        return f"<rawws.Policy {NAMES[self.kind]}>"

    @classmethod
    def of(cls, policy: str | Policy) -> Policy:
        """Return what an option of this name stands for."""
        return policy if isinstance(policy, Policy) else cls(policy)

    def key_of(self, publication: Publication) -> Any:
        """Return what a publication is about, for "conflate"."""
        # A notice is about what it says it is.
        if self.key is None or not publication.offset:
            return publication.key
        return self.key(publication)
