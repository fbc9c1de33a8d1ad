"""Envelopes: what a hub says in rawws.v1, JSON to its fields, and what is said to it (docs/use/rawws.v1.md).

Laws:
1. A member that is not known here is passed over: a newer server says more.
2. One that is known and is of another type is an error of the server.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from rawws.errors import RawwsError

__all__ = [
    "HubEnvelope",
    "ServerEnvelopeError",
    "TopicMember",
    "channel_key",
    "check_length",
    "message_fields",
    "parse_envelope",
    "serialize_request_fields",
]

# RFC 8259 knows one kind of number; bool is no int here, though it is one in Python.
TYPES: Final[dict[str, Any]] = {
    "id": int,
    "topic": str,
    "pattern": str,
    "cursor": str,
    "recovered": bool,
    "data": str,
    "base64": str,
    "json": bool,
    "event": str,
    "user": str,
    "members": list,
    "count": int,
    "users": int,
    "expires": int | float,
    "publications": list,
    "present": str,
    "join": dict,
    "leave": dict,
    "error": str,
    "reason": str,
}

NUMBERS: Final = (int, int | float)
# Names have at most 255 bytes in a hub, cursors of one topic 51 characters. Publications wait with all of these, and
# only their messages are counted.
LONGEST_NAME: Final = 1024
NAMES: Final = ("topic", "pattern", "event", "user", "present")


class ServerEnvelopeError(RawwsError):
    """What a server said is no envelope of rawws.v1."""


@dataclass(frozen=True, slots=True)
class TopicMember:
    """Somebody present in a topic.

    Where the server knows the `user`, `info` is what the server says, and `claim` what the client says beside it. Else
    `claimed` says whether `info` is what the client says of itself, and nobody else.
    """

    info: Any
    user: str | None = None
    claim: Any = None
    claimed: bool = False


class HubEnvelope(NamedTuple):
    """What a hub said. What it did not say is None, or empty."""

    id: int | None = None
    topic: str = ""
    cursor: str = ""
    # None where no place is told: then it is a publication, or an answer to something else.
    recovered: bool | None = None
    message: str | bytes | None = None
    # What goes beside a message.
    is_json: bool = False
    event: str | None = None
    user: str | None = None
    # Who is present, by their ids, how many they are, and how many users.
    members: dict[str, TopicMember] | None = None
    total: int = 0
    users: int | None = None
    present: str | None = None
    # Who came, or went.
    join: tuple[str, TopicMember] | None = None
    leave: tuple[str, TopicMember] | None = None
    # What is held of a topic.
    publications: tuple[HubEnvelope, ...] = ()
    # In how many seconds the token ends.
    expires: float | None = None
    # What a function of the server returned.
    result: Any = None
    # A function of this client that the server calls, the number of the call, and what it is called with.
    call: str = ""
    number: int = 0
    data: Any = None
    # Characters of what it came in.
    size: int = 0
    # The pattern by which it came, empty where it came by the name of its topic.
    pattern: str = ""
    error: str = ""
    reason: str = ""

    @property
    def channel(self) -> str:
        """What it is about: a topic by its name, or a pattern by its key."""
        return channel_key(self.pattern, pattern=True) if self.pattern else self.topic


def channel_key(topic: str, *, pattern: bool) -> str:
    """Return what a topic or a pattern is known by: a pattern has a NUL before it, which no name of a topic has."""
    return f"\0{topic}" if pattern else topic


def parse_envelope(text: str | bytes) -> HubEnvelope:
    """Return what a hub said. Raises ServerEnvelopeError."""
    if not isinstance(text, str):
        raise ServerEnvelopeError("the server sent a binary message, rawws.v1 has text")
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        raise ServerEnvelopeError("the server sent what is no JSON") from None
    envelope = envelope_of(fields)
    return envelope._replace(size=len(text)) if envelope.call else envelope


def envelope_of(fields: object) -> HubEnvelope:
    """Return what the members of an envelope say. Raises ServerEnvelopeError."""
    if not isinstance(fields, dict):
        raise ServerEnvelopeError(f"the server sent {type(fields).__name__}, an envelope is an object")
    call, number = fields.get("call"), fields.get("number")
    if isinstance(call, str) and isinstance(number, int):
        return HubEnvelope(call=call, number=number, data=fields.get("data"))
    for name, kind in TYPES.items():
        value = fields.get(name)
        if value is not None and (not isinstance(value, kind) or (kind in NUMBERS and isinstance(value, bool))):
            raise ServerEnvelopeError(f"the server sent {name} as {type(value).__name__}, which it cannot be")
    said = {name: value for name in TYPES if (value := fields.get(name)) is not None}
    for name in NAMES:
        check_length(name, said.get(name, ""))
    return HubEnvelope(
        said.get("id"),
        said.get("topic", ""),
        said.get("cursor", ""),
        said.get("recovered"),
        message_of(said),
        said.get("json", False),
        said.get("event"),
        said.get("user"),
        dict(map(person, said["members"])) if "members" in said else None,
        said.get("count", 0),
        said.get("users"),
        said.get("present"),
        person(said["join"]) if "join" in said else None,
        person(said["leave"]) if "leave" in said else None,
        tuple(map(envelope_of, said.get("publications", ()))),
        said.get("expires"),
        fields.get("result"),
        pattern=said.get("pattern", ""),
        error=said.get("error", ""),
        reason=said.get("reason", ""),
    )


def check_length(name: str, value: str) -> None:
    """Raise ServerEnvelopeError for a name, or a cursor of one topic, that is longer than a hub's."""
    if len(value) > LONGEST_NAME:
        raise ServerEnvelopeError(f"the server sent {len(value)} characters as {name}, limit {LONGEST_NAME}")


def message_of(fields: dict[str, Any]) -> str | bytes | None:
    """Return what is published: text, or octets."""
    if "base64" not in fields:
        return fields.get("data")
    try:
        return b64decode(fields["base64"], validate=True)
    except ValueError:
        raise ServerEnvelopeError("the server sent a base64 that is none (RFC 4648 section 4)") from None


def person(fields: object) -> tuple[str, TopicMember]:
    """Return the id of somebody present, and who that is."""
    if not isinstance(fields, dict) or not isinstance(fields.get("id"), str):
        raise ServerEnvelopeError("the server sent somebody without an id")
    user = fields.get("user")
    member = TopicMember(
        fields.get("info"),
        user if isinstance(user, str) else None,
        fields.get("claim"),
        fields.get("claimed") is True,
    )
    return fields["id"], member


def message_fields(message: Any) -> dict[str, Any]:
    """Return the members that say what is to be published. Raises TypeError, ValueError for what is no JSON."""
    if isinstance(message, str):
        return {"data": message}
    if isinstance(message, (bytes, bytearray, memoryview)):
        return {"base64": b64encode(message).decode()}
    if isinstance(message, (dict, list, tuple, int, float, type(None))):
        return {"data": json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":")), "json": True}
    allowed = "str, bytes, bytearray, memoryview, and dict, list, tuple, int, float, bool and None as JSON"
    raise TypeError(f"the message is {type(message).__name__}, allowed are {allowed}")


def serialize_request_fields(fields: dict[str, Any]) -> bytes:
    """Return a request as JSON in UTF-8, without the members that are None. Raises ValueError for what has no UTF-8."""
    said = {name: value for name, value in fields.items() if value is not None}
    return json.dumps(said, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
