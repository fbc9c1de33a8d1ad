"""Redis scripts: the files of lua/ to what runs in a Redis, and the commands of its channels."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

__all__ = [
    "BEAT_SCRIPT",
    "FOLLOW_SCRIPT",
    "HISTORY_SCRIPT",
    "OUTSIDE_SCRIPT",
    "PLAIN",
    "PUBLISH_SCRIPT",
    "RIGHTS_SCRIPT",
    "SHARDED",
    "Verbs",
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
OUTSIDE_SCRIPT: Final = script("patterns", "outside", "place", "publish")


class Verbs(NamedTuple):
    """The commands of channels: of all, or of those that stay on the node of a cluster that has their slot."""

    publish: str
    subscribe: str
    unsubscribe: str


PLAIN: Final = Verbs("PUBLISH", "SUBSCRIBE", "UNSUBSCRIBE")
SHARDED: Final = Verbs("SPUBLISH", "SSUBSCRIBE", "SUNSUBSCRIBE")
