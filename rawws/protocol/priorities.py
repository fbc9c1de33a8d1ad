"""Priorities: the Priority header to an urgency, and whether parts are of use (RFC 9218 sections 4 and 5)."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Priority", "parse_priority"]

URGENCIES = {str(urgency): urgency for urgency in range(8)}
INCREMENTAL = {"": True, "?1": True, "?0": False}


class Priority(NamedTuple):
    """What a client wants first: 0 before 7, and `incremental` side by side with others of its urgency."""

    # 4.1: "The default is 3." 4.2: "The default value of the incremental parameter is false (0)."
    urgency: int = 3
    incremental: bool = False


def parse_priority(values: list[str]) -> Priority:
    """Return what the Priority headers of a request say; what is no priority is not there.

    It is a hint, which a client may give itself: nothing but the order of what one connection sends hangs on it. So
    members are split at commas also where these stand in a string, which neither parameter is.
    """
    priority = Priority()
    # 4: "Receivers parse the Dictionary as described in Section 4.2 of [STRUCTURED-FIELDS]": of one key the last
    # counts.
    for member in ",".join(values).split(","):
        key, equals, value = member.partition(";")[0].strip(" \t").partition("=")
        # 4: "Where the Dictionary is successfully parsed, this document places the additional requirement that unknown
        # priority parameters, priority parameters with out-of-range values, or values of unexpected types MUST be
        # ignored."
        if key == "u" and value in URGENCIES:
            priority = priority._replace(urgency=URGENCIES[value])
        elif key == "i" and value in INCREMENTAL and bool(equals) == bool(value):
            priority = priority._replace(incremental=INCREMENTAL[value])
    return priority
