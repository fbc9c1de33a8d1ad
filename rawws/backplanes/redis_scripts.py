"""Redis scripts: the files of lua/ to what runs in a Redis, and the commands of its channels."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "BEAT_SCRIPT",
    "FOLLOW_SCRIPT",
    "HISTORY_SCRIPT",
    "PLAIN",
    "PUBLISH_SCRIPT",
    "RIGHTS_SCRIPT",
    "SHARDED",
    "Verbs",
    "function_name",
    "introduction",
]

LUA: Final = Path(__file__).parent / "lua"


def script(*names: str) -> str:
    """Return a script that runs in the Redis, made of files in lua/."""
    return "".join([(LUA / f"{name}.lua").read_text(encoding="utf-8") for name in names])


PUBLISH_SCRIPT: Final = script("patterns", "place", "publish")
HISTORY_SCRIPT: Final = script("remember", "place", "history")
# For patterns.
FOLLOW_SCRIPT: Final = script("follow")
BEAT_SCRIPT: Final = script("beat")
RIGHTS_SCRIPT: Final = script("rights")
# For programs that are no hub, which take it from the Redis itself.
OUTSIDE_SCRIPT: Final = script("patterns", "outside", "hub", "outside_place", "place", "publish")


# What hubs say for that of a Redis, in this order.
HUB_FIELDS: Final = ("life", "keeps", "remember", "verb", "channels", "count", "size", "age", "run", "word")


def introduction(prefix: str, hub: Sequence[str | int], *, in_cluster: bool) -> list[str | int]:
    """Return the command that leaves there what publishing without a hub needs, with the values of HUB_FIELDS."""
    if in_cluster:
        return ["FUNCTION", "LOAD", "REPLACE", outside_function(prefix, hub)]
    fields = [word for pair in zip(HUB_FIELDS, hub, strict=True) for word in pair]
    return ["HSET", f"{prefix}:hub", "publish", OUTSIDE_SCRIPT, *fields]


def outside_function(prefix: str, hub: Sequence[str | int]) -> str:
    """Return a library for a node of a cluster: the publishing of those who are no hub, with the values of HUB_FIELDS.

    A script finds what hubs say in a key; of a cluster, each node would need one of its own, in a slot of its own.
    """
    said = ", ".join(f"'{each}'" for each in hub)
    name = function_name(prefix)
    before, behind = script("patterns", "outside"), script("outside_key", "outside_place", "place", "publish")
    body = f"{before}local hub = {{{said}}}\n{behind}"
    return f"#!lua name={name}\nredis.register_function('{name}', function(keys, ARGV)\n{body}end)\n"


def function_name(prefix: str) -> str:
    """Return the name of that function; what is neither letter nor digit in a prefix is there by its code."""
    return re.sub(r"[^a-zA-Z0-9]", lambda found: f"_{ord(found[0]):02x}", prefix) + "_publish"


class Verbs(NamedTuple):
    """The commands of channels: of all, or of those that stay on the node of a cluster that has their slot."""

    publish: str
    subscribe: str
    unsubscribe: str


PLAIN: Final = Verbs("PUBLISH", "SUBSCRIBE", "UNSUBSCRIBE")
SHARDED: Final = Verbs("SPUBLISH", "SSUBSCRIBE", "SUNSUBSCRIBE")
