"""Push messages: what an application says, and to which device, to what any service takes.

Laws:
1. What one service does not take is refused where the message or the device is made, not when it is sent.
2. A token, an endpoint and a key stand in no text of a device: who has them can push.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode
from binascii import Error
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "AGAIN",
    "REFUSED",
    "SENT",
    "UNREGISTERED",
    "PushDevice",
    "PushMessage",
    "PushOutcome",
    "octets_of_base64url",
    "octets_of_json",
    "outcome_again",
    "outcome_refused",
]

# RFC 8030 section 5.3.
URGENCIES: Final = ("very-low", "low", "normal", "high")
# Four weeks: as long as FCM keeps a message at most.
LONGEST_TTL: Final = 28 * 86400.0
# APNs and FCM take 4,096 bytes of JSON, and Web Push as many of the encrypted record, of which 103 are not for this;
# what the services want around it is in the rest.
MAX_MESSAGE: Final = 3072
# RFC 8030 section 5.4: "no more than 32 characters from the URL and filename-safe Base 64 alphabet".
COLLAPSE: Final = re.compile(r"[0-9A-Za-z_-]{0,32}", re.ASCII)
# Names that APNs or FCM have for themselves.
RESERVED: Final = re.compile(r"aps|from|notification|message_type|collapse_key|(?:google|gcm).*", re.ASCII)
IDENT: Final = re.compile(r"[0-9A-Za-z_.:-]{1,128}", re.ASCII)
TOKENS: Final = {
    # In the words of Apple, they are "of variable length. Do not hard-code their size."
    "apns": (re.compile(r"(?:[0-9A-Fa-f]{2}){32,100}", re.ASCII), "64 to 200 hexadecimal digits"),
    "fcm": (re.compile(r"[0-9A-Za-z_:-]{1,1024}", re.ASCII), "1 to 1024 letters, digits, _, : and -"),
    # What a URL is of; whether its host may be asked, WebPush says.
    "web": (re.compile(r"https://[!-~]{1,1016}", re.ASCII), "a URL of https:// with up to 1024 characters"),
}
SENT, AGAIN, UNREGISTERED, REFUSED = "sent", "again", "gone", "refused"


class PushOutcome(NamedTuple):
    """What became of one try to send a message to a device.

    `kind` is "sent", "again" (it may be taken later, in `wait` seconds at least), "gone" (there is no such device any
    more: forget it) or "refused" (for good, and `reason` says why).
    """

    kind: str
    reason: str = ""
    wait: float = 0.0


def outcome_again(reason: str, wait: float = 0.0) -> PushOutcome:
    """Return that it may be taken later."""
    return PushOutcome(AGAIN, reason, wait)


def outcome_refused(reason: str) -> PushOutcome:
    """Return that it is refused for good."""
    return PushOutcome(REFUSED, reason)


@final
@dataclass(frozen=True, slots=True)
class PushMessage:
    """A notification, or without `title` and `body` data alone, which wakes the application.

    `data` is for the application: text by names. The services keep it for a device that is off for `ttl` seconds, with
    0 not at all. `urgency` is "very-low", "low", "normal" or "high". Of several messages with one `collapse` a device
    gets the last. All in all it has 3,072 bytes of JSON. Raises TypeError or ValueError for what a service would not
    take.
    """

    title: str = ""
    body: str = ""
    data: Mapping[str, str] = field(default_factory=dict)
    ttl: float = 86400.0
    urgency: str = "normal"
    collapse: str = ""

    def __post_init__(self) -> None:
        texts = [self.title, self.body, *(text for pair in self.data.items() for text in pair)]
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("data is no mapping of str to str, or title and body are no str")
        reserved = [name for name in self.data if RESERVED.fullmatch(name)]
        if reserved:
            raise ValueError(f"data has {reserved[0][:64]!r}, a name that services have for themselves")
        if self.urgency not in URGENCIES:
            raise ValueError(f"urgency is {str(self.urgency)[:64]!r}, allowed are {', '.join(URGENCIES)}")
        if not 0 <= self.ttl <= LONGEST_TTL:
            raise ValueError(f"ttl is {self.ttl}, allowed are 0 to {LONGEST_TTL:.0f} seconds")
        if not COLLAPSE.fullmatch(self.collapse):
            raise ValueError(f"collapse is {self.collapse[:64]!r}, allowed are up to 32 letters, digits, _ and -")
        size = len(self.octets)
        if size > MAX_MESSAGE:
            raise ValueError(f"the message has {size} bytes, limit {MAX_MESSAGE}")

    @property
    def is_silent(self) -> bool:
        """Whether there is nothing to show."""
        return not self.title and not self.body

    @property
    def octets(self) -> bytes:
        """The message as JSON: what a service worker gets by Web Push."""
        fields = {"title": self.title, "body": self.body, "data": dict(self.data)}
        return octets_of_json({name: value for name, value in fields.items() if value})


@final
@dataclass(frozen=True, slots=True)
class PushDevice:
    """Where a user gets notifications: `service` is "web", "apns" or "fcm", and `token` what that gave to the device.

    Of "web", the token is the endpoint of the subscription, and `keys` are its `p256dh` and `auth`, as the browser has
    them. `since` says when the device registered, in seconds since 1970. Raises ValueError for what no service gives.
    """

    id: str
    service: str
    token: str = field(repr=False)
    user: str = ""
    since: float = 0.0
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not IDENT.fullmatch(self.id):
            raise ValueError(f"the id is {self.id[:64]!r}, allowed are 1 to 128 letters, digits and _.:-")
        if self.service not in TOKENS:
            raise ValueError(f"service is {self.service[:64]!r}, allowed are {', '.join(TOKENS)}")
        pattern, allowed = TOKENS[self.service]
        if not pattern.fullmatch(self.token):
            raise ValueError(f"the token of {self.service} is none, allowed is {allowed}")
        if self.service == "web":
            # RFC 8291: a point of P-256, uncompressed, and 16 octets.
            self.octets_of("p256dh", 65)
            self.octets_of("auth", 16)
        elif self.keys:
            raise ValueError(f"keys are those of a subscription of the Web, {self.service} has none")

    def octets_of(self, name: str, size: int) -> bytes:
        """Return a key of a subscription. Raises ValueError for what is none."""
        octets = octets_of_base64url(self.keys.get(name, ""))
        if len(octets) != size:
            raise ValueError(f"keys.{name} has {len(octets)} bytes, needed are {size} in base64url")
        return octets

    def fields(self) -> dict[str, Any]:
        """Return it as what JSON has: keep it, and make it of that again by `of`."""
        found = {"id": self.id, "service": self.service, "token": self.token, "user": self.user, "since": self.since}
        return {**found, "keys": dict(self.keys)} if self.keys else found

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> PushDevice:
        """Return the device that these fields are of. Raises ValueError for what is none."""
        texts = ("id", "service", "token", "user")
        wrong = [name for name in texts if not isinstance(fields.get(name, ""), str)]
        keys, since = fields.get("keys", {}), fields.get("since", 0.0)
        if not isinstance(keys, dict) or not all(isinstance(each, str) for each in keys.values()):
            wrong.append("keys")
        if isinstance(since, bool) or not isinstance(since, (int, float)):
            wrong.append("since")
        unknown = set(fields) - {*texts, "keys", "since"}
        if wrong or unknown:
            raise ValueError(f"wrong in the device: {', '.join([*wrong, *sorted(unknown)])[:128]}")
        found = {name: fields.get(name, "") for name in texts}
        return cls(**found, since=float(since), keys={name: keys[name] for name in ("p256dh", "auth") if name in keys})


def octets_of_base64url(text: str) -> bytes:
    """Return what base64url stands for, with padding or without; b"" for what is none."""
    try:
        return urlsafe_b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4))
    except (Error, ValueError):
        return b""


def octets_of_json(value: Any) -> bytes:
    """Return JSON in UTF-8, as short as it can be. Raises ValueError for a lone surrogate."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
