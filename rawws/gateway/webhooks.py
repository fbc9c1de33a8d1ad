"""Webhooks: events to signed requests, as Pusher's libraries verify them and as those of Standard Webhooks do.

Laws:
1. A body is signed octet by octet, as it is sent, and anew for each try: receivers refuse what is over 300 s old.
2. Of the secrets of an app each verifies, so that one can be replaced by another without a pause.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .spelling import iso_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .config import Credential

__all__ = ["TEST_EVENT", "HookEvent", "HookRequest", "pusher_webhook", "standard_fields", "standard_webhook"]

# The npm library compares the whole value: not even a charset may stand behind it.
JSON: Final = ("Content-Type", "application/json")
# What secrets in the form of Standard Webhooks begin with; the rest is base64.
STANDARD_MARK: Final = "whsec_"
# What is sent where somebody asks for a test: nothing happened.
TEST_EVENT: Final = "hook_test"
# The names of Pusher, and those of Standard Webhooks, which are "full-stop delimited" (its specification, "type").
TYPES: Final = {
    "channel_occupied": "channel.occupied",
    "channel_vacated": "channel.vacated",
    "member_added": "member.added",
    "member_removed": "member.removed",
    "cache_miss": "cache.miss",
    "client_event": "client.event",
    "subscription_count": "channel.count",
    "user_online": "user.online",
    "user_offline": "user.offline",
    "user_missed": "user.missed",
    "connection_opened": "connection.opened",
    "connection_closed": "connection.closed",
    TEST_EVENT: "hook.test",
}

# What is called otherwise than by Pusher.
MEMBERS: Final = {"user_id": "user", "socket_id": "connection", "subscription_count": "count"}


class HookEvent(NamedTuple):
    """What happened: `name` is one of the HOOK_EVENTS, or TEST_EVENT; `time` is in seconds since 1970.

    `members` are what is told of it.
    """

    name: str
    app: str
    time: float
    members: dict[str, Any]
    # Where it stands in the state log, "" for what is told by one instance of its own: repeats have the same.
    seq: str = ""

    @property
    def channel(self) -> str:
        """The channel that it happened in, "" for none."""
        return str(self.members.get("channel", ""))

    @property
    def size(self) -> int:
        """About how many bytes it has in a request."""
        return len(serialized({"name": self.name, **self.members}))


class HookRequest(NamedTuple):
    """What is posted to a URL."""

    headers: tuple[tuple[str, str], ...]
    body: bytes


def pusher_webhook(
    events: Iterable[HookEvent], signing: Credential, ident: str, attempt: int, now: float
) -> HookRequest:
    """Return the request by which Pusher tells of events: `time_ms` is when it is sent.

    `ident` and `attempt` stand in headers of ours, since Pusher's events cannot be told from repeats of them.
    """
    told = [{"name": each.name, **each.members} for each in events]
    body = serialized({"time_ms": int(now * 1000), "events": told})
    signature = hmac.new(signing.secret.encode(), body, hashlib.sha256).hexdigest()
    headers = (
        JSON,
        ("X-Pusher-Key", signing.key),
        ("X-Pusher-Signature", signature),
        ("X-Rawws-Delivery", ident),
        ("X-Rawws-Attempt", str(attempt)),
    )
    return HookRequest(headers, body)


def standard_webhook(event: HookEvent, secrets: Sequence[str], ident: str, attempt: int, now: float) -> HookRequest:
    """Return the request by which Standard Webhooks tells of an event, with a signature by each secret.

    A secret that begins with `whsec_` is base64, any other is taken octet by octet. `ident` is the same in each try.
    """
    told: dict[str, Any] = {"type": TYPES[event.name], "time": iso_time(event.time), "app": event.app}
    if event.seq:
        told["seq"] = event.seq
    body = serialized({**told, **{MEMBERS.get(name, name): value for name, value in event.members.items()}})
    signed = standard_fields(secrets, ident, body, now)
    return HookRequest((JSON, *signed, ("X-Rawws-Attempt", str(attempt))), body)


def standard_fields(secrets: Sequence[str], ident: str, body: bytes, now: float) -> list[tuple[str, str]]:
    """Return the headers by which Standard Webhooks signs a body with each of the secrets; none without one."""
    if not secrets:
        return []
    timestamp = str(int(now))
    # "The content to sign is: msg_id.timestamp.payload" (its specification, "Signature scheme").
    content = b".".join((ident.encode(), timestamp.encode(), body))
    signatures = (hmac.digest(octets_of_secret(secret), content, "sha256") for secret in secrets)
    return [
        ("webhook-id", ident),
        ("webhook-timestamp", timestamp),
        ("webhook-signature", " ".join(f"v1,{base64.b64encode(each).decode()}" for each in signatures)),
    ]


def octets_of_secret(secret: str) -> bytes:
    """Return the key that a secret is. Raises ValueError where no base64 is behind the mark."""
    if not secret.startswith(STANDARD_MARK):
        return secret.encode()
    text = secret.removeprefix(STANDARD_MARK)
    if not text:
        raise ValueError("there is nothing behind the mark")
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def serialized(value: object) -> bytes:
    """Return JSON in UTF-8, in as few octets as it has."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
