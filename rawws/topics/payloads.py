"""Payloads: what is published, also JSON and named events, to a message and the members beside it, and back.

Laws:
1. What is said to be JSON is JSON, whoever published it, so nobody who parses it needs to expect anything else.
2. The members beside a message are the text of JSON: made once, and spliced into each envelope as they are.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any, Final

from rawws.protocol.extensions import excerpt

from .names import MAX_NAME, TopicError

__all__ = [
    "check_event",
    "check_extra",
    "distinct",
    "extra_of",
    "has_many_values",
    "members_of",
    "no_number",
    "of_user",
    "parse_json",
    "payload_of",
    "serialize",
]

# Values of a JSON payload that a client publishes. A list takes 90 bytes of memory, so these take 1.5 MiB: a message of
# 1 MiB can be 350,000 of them, which take 30 MiB. A drawing of some thousand points has room.
MAX_DATA_VALUES = 1 << 14
# Members beside a message, in characters: they fit with the rest of an envelope into the room that a message leaves.
MAX_EXTRA = 2048
# What an envelope says itself: nothing beside a message may say it again.
RESERVED: Final = frozenset({"topic", "cursor", "data", "base64", "recovered", "join", "leave", "error", "id"})
TYPES: Final[dict[str, type]] = {"event": str, "user": str, "json": bool}
# Hubs see the same few members again and again.
KNOWN = 256
# A text of JSON, or one that does not end: so each is looked at once.
STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
STARTS: Final = ("[", "{", ",")
JSON_TYPES: Final = (dict, list, tuple, int, float, type(None))


def payload_of(data: Any, event: str | None = None) -> tuple[Any, str]:
    """Return the message that stands for what is published, and the members beside it.

    str and bytes-like are the message as they are; dict, list, tuple, int, float, bool and None are one of JSON. Raises
    TypeError for anything else, TopicError for numbers that JSON has not, and for no name of an event.
    """
    check_event(event)
    if isinstance(data, (str, bytes, bytearray, memoryview)):
        return data, extra_of(event)
    if not isinstance(data, JSON_TYPES):
        allowed = "str, bytes, bytearray, memoryview, and dict, list, tuple, int, float, bool and None as JSON"
        raise TypeError(f"message is {type(data).__name__}, allowed are {allowed}")
    try:
        return serialize(data), extra_of(event, is_json=True)
    except (ValueError, RecursionError) as error:
        raise TopicError("data", f"the data is no JSON: {error}") from None


def extra_of(event: str | None = None, *, is_json: bool = False) -> str:
    """Return the members beside a message: "", or JSON such as `"json":true,"event":"move"`."""
    extra = '"json":true' if is_json else ""
    if event is not None:
        extra += f'{"," if extra else ""}"event":{serialize(event)}'
    return extra


def of_user(extra: str, user: str | None) -> str:
    """Return the members beside a message, and who published it, where that is known."""
    if user is None:
        return extra
    return f'{extra}{"," if extra else ""}"user":{serialize(user)}'


def check_event(event: object) -> None:
    """Raise TopicError for what is no name of an event: None, or 1 to 255 bytes of UTF-8 without control characters."""
    if event is None:
        return
    if not isinstance(event, str):
        raise TopicError("event", f"the event is {type(event).__name__}, allowed are str and None")
    # As with the name of a topic.
    if not event or len(event) > MAX_NAME or not event.isprintable() or len(event.encode()) > MAX_NAME:
        raise TopicError("event", f"the event is {excerpt(event)}, allowed are 1 to {MAX_NAME} printable bytes")


@lru_cache(KNOWN)
def members_of(extra: str) -> dict[str, Any]:
    """Return the members beside a message by their names; nobody may change them."""
    found: dict[str, Any] = json.loads(f"{{{extra}}}")
    return found


@lru_cache(KNOWN)
def check_extra(extra: str) -> None:
    """Raise TopicError for members that another server put beside a message, where no envelope can have them."""
    if len(extra) > MAX_EXTRA:
        raise TopicError("data", f"what is beside the message has {len(extra)} characters, limit {MAX_EXTRA}")
    try:
        members = json.loads(f"{{{extra}}}", object_pairs_hook=distinct, parse_constant=no_number)
    except (ValueError, RecursionError) as error:
        raise TopicError("data", f"what is beside the message is no JSON: {error}") from None
    # The data of an event is one line to those who read streams.
    if not RESERVED.isdisjoint(members) or "\n" in extra or "\r" in extra:
        raise TopicError("data", f"what is beside the message is {excerpt(extra)}, which no envelope can have")
    if not all(isinstance(members.get(name, kind()), kind) for name, kind in TYPES.items()):
        raise TopicError("data", "event and user beside the message must be text, and json true or false")


def parse_json(text: str) -> Any:
    """Return what JSON from a client stands for. Raises ValueError for what is none, or is of too many values."""
    if has_many_values(text, MAX_DATA_VALUES):
        raise ValueError(f"it has over {MAX_DATA_VALUES} values")
    try:
        return json.loads(text, parse_constant=no_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def has_many_values(text: str, limit: int) -> bool:
    """Tell whether a text of JSON has more values than a limit, without making any; what stands in strings is none."""
    if sum(map(text.count, STARTS)) <= limit:
        return False
    count = at = 0
    for string in STRING.finditer(text):
        count += sum(text.count(start, at, string.start()) for start in STARTS)
        if count > limit:
            return True
        at = string.end()
    return count + sum(text.count(start, at) for start in STARTS) > limit


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object whose members have different names."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a name stands twice in an object")
    return fields


def no_number(name: str) -> None:
    """Refuse what Python takes for a number and JSON does not (RFC 8259 section 6)."""
    raise ValueError(f"{name} is no number")


def serialize(value: Any) -> str:
    """Return a value as JSON."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
