"""Pusher rules: names of channels to what they are, and secrets to the signatures over what clients and servers say.

What is signed is kept octet by octet, and never written anew (https://pusher.com/docs/channels/library_auth_reference).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from typing import TYPE_CHECKING, Final, NamedTuple, TypeGuard

import rawws
from rawws.protocol.http11 import content_length

if TYPE_CHECKING:
    from .config import AppConfig

__all__ = [
    "MAX_CHANNEL",
    "MAX_EVENT_NAME",
    "MAX_USER_ID",
    "USER_CHANNEL",
    "ChannelKind",
    "announces_body",
    "check_body",
    "check_channel_name",
    "check_request",
    "is_name",
    "is_signed",
    "kind_of_channel",
    "signature_of",
]

MAX_CHANNEL: Final = 164
# Of the name of an event, and of the id of a user, in characters.
MAX_EVENT_NAME: Final = 200
MAX_USER_ID: Final = 128
CHANNEL: Final = re.compile(r"[-a-zA-Z0-9_=@,.;]{1,164}", re.ASCII)
# The channel of what servers send to one user, whatever connections that has.
USER_CHANNEL: Final = "#server-to-user-"
# How many seconds the clock of a server may differ.
SKEW: Final = 600
VERSION: Final = "1.0"


class ChannelKind(NamedTuple):
    """What the name of a channel says of it."""

    needs_auth: bool
    presence: bool
    encrypted: bool


def is_name(value: object, most: int) -> TypeGuard[str]:
    """Tell whether something is a text of 1 to so many printable characters."""
    return isinstance(value, str) and 0 < len(value) <= most and value.isprintable()


def kind_of_channel(channel: str) -> ChannelKind:
    """Return what a channel is, by the prefix of its name."""
    presence = channel.startswith("presence-")
    private = channel.startswith("private-")
    return ChannelKind(presence or private, presence, channel.startswith("private-encrypted-"))


def check_channel_name(channel: object) -> str:
    """Return the name of a channel that servers may publish to. Raises HttpError(400)."""
    if not isinstance(channel, str):
        raise rawws.HttpError(400, f"the channel is {type(channel).__name__}, allowed is a string")
    if not CHANNEL.fullmatch(channel.removeprefix(USER_CHANNEL) if channel.startswith(USER_CHANNEL) else channel):
        allowed = f"1 to {MAX_CHANNEL} letters, digits and -_=@,.;"
        raise rawws.HttpError(400, f"the channel is {channel[:64]!r}, allowed are {allowed}")
    return channel


def signature_of(secret: str, text: str) -> str:
    """Return the signature over a text: HMAC-SHA256, as small hexadecimal digits."""
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()


def is_signed(app: AppConfig, auth: object, text: str) -> bool:
    """Tell whether `auth`, `KEY:SIGNATURE`, is a signature over a text by a key of an app."""
    key, _, signature = auth.partition(":") if isinstance(auth, str) else ("", "", "")
    # Who names a key that there is not is told the same, at the same time.
    secret = app.secret_of(key)
    try:
        expected = signature_of(secret or "", text)
    except UnicodeEncodeError:
        # JSON can say a lone surrogate: what has no UTF-8, nobody has signed.
        return False
    return hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace")) and secret is not None


def announces_body(request: rawws.HttpRequest) -> bool:
    """Tell whether a body comes behind the head of a request."""
    return "Transfer-Encoding" in request.headers or bool(content_length(request.headers))


def check_body(request: rawws.HttpRequest) -> None:
    """Check that the body is the one whose hash was signed. Raises HttpError(401)."""
    query = {name.lower(): value for name, value in request.query.items()}
    md5 = query.get("body_md5")
    if request.body and md5 is None:
        raise rawws.HttpError(401, "there is a body and no body_md5")
    if md5 is not None and not hmac.compare_digest(md5_of(request.body), ascii_of(md5)):
        raise rawws.HttpError(401, "body_md5 is not that of the body")


def check_request(app: AppConfig, request: rawws.HttpRequest) -> None:
    """Check the signature of a server's request, which is over its head; `check_body` is to follow.

    Raises HttpError(401), which says why but not what would be right.
    """
    query = {name.lower(): value for name, value in request.query.items()}
    signature = query.pop("auth_signature", "")
    stamp = query.get("auth_timestamp", "")
    if query.get("auth_version") != VERSION:
        raise rawws.HttpError(401, f"auth_version is {query.get('auth_version', '')[:16]!r}, allowed is {VERSION}")
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) < 16 and abs(time.time() - int(stamp)) <= SKEW):
        raise rawws.HttpError(
            401, f"auth_timestamp is {stamp[:20]!r}, allowed are times within {SKEW} s of the server's"
        )
    if announces_body(request) and "body_md5" not in query:
        raise rawws.HttpError(401, "there is a body and no body_md5")
    path = request.head.path.partition("?")[0]
    text = f"{request.method}\n{path}\n" + "&".join(f"{name}={query[name]}" for name in sorted(query))
    if not is_signed(app, f"{query.get('auth_key', '')}:{signature}", text):
        raise rawws.HttpError(401, "the key or the signature is wrong")


def ascii_of(text: str) -> str:
    """Return a text as one that can be compared in a time that says nothing."""
    return text if text.isascii() else ""


def md5_of(body: bytes) -> str:
    """Return what tells bodies apart in their protocol; what protects them is the signature, over this as well."""
    return hashlib.md5(body, usedforsecurity=False).hexdigest()
