"""Push messages: the `notification` of an event, or of a request, to what is pushed (docs/run/push.md)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from rawws.integrations.push import PushMessage

if TYPE_CHECKING:
    from .events import GatewayEvent

__all__ = ["notification_of", "notification_of_event"]

FIELDS: Final = ("title", "body", "data", "ttl", "urgency", "collapse")


def notification_of_event(event: GatewayEvent) -> PushMessage | None:
    """Return the `notification` in the data of an event, None where there is none. Raises TypeError or ValueError."""
    if not isinstance(event.data, str) or '"notification"' not in event.data:
        return None
    try:
        data = json.loads(event.data)
    except (ValueError, RecursionError):
        return None
    found = data.get("notification") if isinstance(data, dict) else None
    return None if found is None else notification_of(found)


def notification_of(fields: Any) -> PushMessage:
    """Return a message that is said in JSON. Raises TypeError or ValueError for what is none."""
    if not isinstance(fields, dict):
        raise TypeError(f"the notification is {type(fields).__name__}, allowed is an object")
    unknown = sorted(set(fields) - set(FIELDS))
    if unknown:
        raise ValueError(f"the notification has {unknown[0][:64]!r}, allowed are {', '.join(FIELDS)}")
    ttl = fields.get("ttl", 0.0)
    if isinstance(ttl, bool) or not isinstance(ttl, (int, float)):
        raise TypeError(f"ttl is {type(ttl).__name__}, allowed is a number of seconds")
    if not isinstance(fields.get("data", {}), dict):
        raise TypeError("data is no object")
    if not all(isinstance(fields.get(name, ""), str) for name in ("urgency", "collapse")):
        raise TypeError("urgency or collapse is no string")
    return PushMessage(**fields)
