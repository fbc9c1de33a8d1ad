"""Hook log: the last requests of a hook, and what came of each, as whoever looks into the gateway sees them.

Laws:
1. It holds `MOST_DELIVERIES` of a hook, and of each a bounded text: names of events, no payload, the head of an answer.
2. Nothing that the receiver says back of the URL, or of the secrets of the app, is kept.
"""

from __future__ import annotations

import base64
import html
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote_plus, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .config import AppConfig
    from .webhooks import HookEvent

__all__ = ["MOST_DELIVERIES", "DeliveryLog", "HookDelivery", "head_of", "named_events", "secrets_of"]

# As many as fit on a page: those of the last quarter of an hour of a receiver that is away.
MOST_DELIVERIES: Final = 50
# Of the events of a request, so many are named, each with so many characters of where it happened, or whom to.
NAMED, LONGEST_ABOUT = 5, 100
# Characters of an answer that is not 2xx: the first lines of what a framework says of an error.
HEAD: Final = 500
# What is shorter is no secret, and may be in any word.
SHORTEST: Final = 4


class HookDelivery(NamedTuple):
    """A request of a hook, and what came of it: `time` is when it was sent, in seconds since 1970."""

    time: float
    # What the receiver knows it by: X-Rawws-Delivery, or webhook-id. Each try of a delivery has the same.
    ident: str
    attempt: int
    # The first events, and how many there are in all; and the bytes of the body.
    events: tuple[tuple[str, str], ...]
    total: int
    size: int
    # Whether somebody asked for it, and nothing happened.
    is_test: bool
    seconds: float
    # What came of it: the status, or 0 and why there was none; and the head of an answer that is not 2xx.
    status: int
    error: str
    answer: str
    # "sent", "retry", "refused" for good, or "failed" for a test that is not sent again; after how many seconds it is.
    outcome: str = ""
    again: float | None = None

    def shown(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "time": round(self.time, 3),
            "id": self.ident,
            "attempt": self.attempt,
            "events": [{"name": name, "about": about} for name, about in self.events],
            "count": self.total,
            "size": self.size,
            "test": self.is_test,
            "seconds": round(self.seconds, 6),
            "status": self.status or None,
            "error": self.error,
            "answer": self.answer,
            "outcome": self.outcome,
            "again": None if self.again is None else round(self.again, 3),
        }


# The last deliveries of a hook, the newest first.
DeliveryLog = deque[HookDelivery]


def named_events(events: Iterable[HookEvent]) -> tuple[tuple[str, str], ...]:
    """Return the names of the first events, each with the channel, the user or the connection that it is about."""
    found = []
    for event, _ in zip(events, range(NAMED), strict=False):
        members = event.members
        about = str(members.get("channel") or members.get("user_id") or members.get("socket_id") or "")
        found.append((event.name, readable(about, LONGEST_ABOUT)))
    return tuple(found)


def head_of(body: bytes, secrets: Iterable[str]) -> str:
    """Return the first words of an answer, with `***` in the place of each secret."""
    text = body.decode("utf-8", "replace")
    for secret in secrets:
        text = text.replace(secret, "***")
    return readable(text, HEAD)


def readable(text: str, most: int) -> str:
    """Return a text in one line, without what cannot be printed, and at most so many characters of it."""
    words = " ".join(text.split())
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in words[:most])


def secrets_of(app: AppConfig, url: str) -> list[str]:
    """Return what nobody is to read of an app and of a URL, as pages of errors may spell it; the longest first."""
    found: set[str] = set()
    for secret in [*(key.secret for key in app.keys), *secrets_of_url(url)]:
        for spelt in (secret, unquote_plus(secret)):
            found |= {spelt, html.escape(spelt)}
    return sorted([each for each in found if len(each) >= SHORTEST], key=len, reverse=True)


def secrets_of_url(url: str) -> Iterator[str]:
    """Yield what `shown_url` leaves out, in its parts."""
    parts = urlsplit(url)
    userinfo, _, _ = parts.netloc.rpartition("@")
    if userinfo:
        yield from userinfo.split(":", 1)
        # In the header Authorization, which pages of errors show (RFC 7617 section 2).
        yield base64.b64encode(unquote_plus(userinfo).encode()).decode()
    for field in parts.query.split("&"):
        name, _, value = field.partition("=")
        yield value or name
    yield parts.query
