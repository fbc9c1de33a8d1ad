"""Names: what a topic may be called, and what a client may not ask of one."""

from __future__ import annotations

from rawws.errors import HttpError
from rawws.protocol.extensions import excerpt

__all__ = ["CONTROL", "STATUSES", "TopicError", "check_key", "check_name", "unavailable"]

# A name is in every envelope and every log: 255 bytes are as many as a file name has, and about as Kafka takes.
MAX_NAME = 255
# The topic by which servers tell each other what becomes of users: nobody else may name it.
CONTROL = "~rawws/control"


# The status of what a client is told where an endpoint lets such an error out; else it is 400.
STATUSES = {"refused": 403, "call": 404, "size": 413, "limit": 429, "failed": 500, "unavailable": 503, "timeout": 504}


class TopicError(HttpError, ValueError):
    """What was asked of a topic cannot be.

    `code` is "topic", "pattern", "key", "size", "limit", "unavailable" or "refused"; "lost" is what `Hub.listen`
    raises. Out of an endpoint, it is a 400, 403 (refused), 413 (size), 429 (limit) or 503 (unavailable: the backplane
    cannot serve the topic).
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(STATUSES.get(code, 400), reason)
        self.code = code

    def __str__(self) -> str:
        return self.reason


def check_name(topic: object) -> None:
    """Raise TopicError for what is no name of a topic: 1 to 255 bytes of UTF-8 without control characters."""
    if not isinstance(topic, str):
        raise TopicError("topic", f"the topic is {type(topic).__name__}, allowed is str")
    # The first comparison is for a name of megabytes; a lone surrogate is not printable.
    if not topic or len(topic) > MAX_NAME or not topic.isprintable() or len(topic.encode()) > MAX_NAME:
        raise TopicError("topic", f"the topic is {excerpt(topic)}, allowed are 1 to {MAX_NAME} printable bytes")
    if topic == CONTROL:
        raise TopicError("topic", f"the topic {CONTROL!r} is reserved, allowed are others")


def unavailable(topic: str) -> TopicError:
    """Return the error of a topic that the backplane cannot serve. What is wrong with it is for the log."""
    return TopicError("unavailable", f"the topic {topic!r} is unavailable at this time, others are not")


def check_key(key: object) -> None:
    """Raise TopicError for what is no key of a publication: None, or at most 255 bytes of UTF-8."""
    if key is None:
        return
    if not isinstance(key, str):
        raise TopicError("key", f"the key is {type(key).__name__}, allowed are str and None")
    try:
        # The first comparison is for a key of megabytes; JSON can have a lone surrogate, and UTF-8 cannot.
        fits = len(key) <= MAX_NAME and len(key.encode()) <= MAX_NAME
    except UnicodeEncodeError:
        fits = False
    if not fits:
        raise TopicError("key", f"the key is {excerpt(key)}, allowed are up to {MAX_NAME} bytes of UTF-8")
