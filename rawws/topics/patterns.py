"""Patterns: what names begin with, to the one under which a hub has all topics whose names begin so.

A pattern is the beginning of names up to a `/`, `:` or `.`, and a `*` behind it: `news/*` is for `news/sport` and for
`news/sport/chess`; `*` alone is for all topics. Redis and WAMP match beginnings, too; what stands in the middle of
names is matched by none of the two.

Laws:
1. A pattern is told from a topic by where it was given, never by its text: a topic may be called `news/*`.
2. To find the patterns of a topic takes one look for each separator in its name, however many patterns there are; and
   one publication is in so many of them at most.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final, final

from rawws.protocol.extensions import excerpt

from .names import TopicError, check_name

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Pattern", "channel_of", "check_channel", "is_matched", "is_pattern", "patterns_of", "text_of"]

# Behind these a `*` may stand: what the field has between the parts of names. Elsewhere, `user/1*` would be for
# `user/10` as well.
SEPARATORS: Final = "/:."
STAR: Final = "*"
# So many of them may stand in a pattern: else one publication to a name of 255 of them would be in 256 patterns, each
# of which costs 20 to 40 us, and memory for its history. AWS IoT takes 7 levels.
MAX_SEPARATORS: Final = 16
# No name of a topic has a control character: with this before it, a pattern is the name of none.
MARK: Final = "\0"


@final
class Pattern(str):
    """What a hub has a pattern under, where it has a topic under its name; `text` is the pattern."""

    __slots__ = ()

    def __new__(cls, text: str) -> Pattern:
        """Return that of a text, which may be no pattern."""
        return super().__new__(cls, MARK + text)

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"

    @property
    def text(self) -> str:
        """The pattern as it was given."""
        return self[len(MARK) :]


def channel_of(name: object, *, pattern: bool) -> str:
    """Return the name of a topic, or the Pattern of a pattern. Raises TopicError for what is none."""
    channel = Pattern(name) if pattern and isinstance(name, str) else name
    if pattern and channel is name:
        raise TopicError("pattern", f"the pattern is {type(name).__name__}, allowed is str")
    check_channel(channel)
    return channel  # type: ignore[return-value]  # `check_channel` says so


def check_channel(channel: object) -> None:
    """Raise TopicError for what is neither a name of a topic nor a Pattern of a pattern."""
    if not isinstance(channel, Pattern):
        check_name(channel)
        return
    text = channel.text
    beginning = text.removesuffix(STAR)
    if beginning == text or STAR in beginning or (beginning and beginning[-1] not in SEPARATORS):
        allowed = "the beginning of names up to a /, : or ., and one * behind it"
        raise TopicError("pattern", f"the pattern is {excerpt(text)}, allowed is {allowed}")
    if sum(map(text.count, SEPARATORS)) > MAX_SEPARATORS:
        raise TopicError("pattern", f"the pattern is {excerpt(text)}, allowed are {MAX_SEPARATORS} of /, : and .")
    check_name(text)


def text_of(channel: str) -> str:
    """Return a name as whoever subscribed gave it: that of a topic as it is, a pattern without what marks it."""
    return channel.text if isinstance(channel, Pattern) else channel


def is_pattern(channel: str) -> bool:
    """Tell whether a checked name is that of a pattern, also where it is a plain str."""
    return channel.startswith(MARK)


def is_matched(channel: str, topic: str) -> bool:
    """Tell whether what somebody is subscribed to is a pattern for a topic."""
    return (
        isinstance(channel, Pattern)
        and not isinstance(topic, Pattern)
        and topic.startswith(channel.text.removesuffix(STAR))
    )


def patterns_of(topic: str) -> Iterator[str]:
    """Yield all that can be patterns for a topic, from the shortest on; none for a pattern."""
    if not isinstance(topic, Pattern):
        yield MARK + STAR
        ends = (index for index, letter in enumerate(topic, 1) if letter in SEPARATORS)
        for index in islice(ends, MAX_SEPARATORS):
            yield f"{MARK}{topic[:index]}{STAR}"
