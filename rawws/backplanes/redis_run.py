"""Redis runs: what a Redis says of itself to which run it is of, and whether that keeps what it answers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rawws.topics.backplane import BackplaneAway

if TYPE_CHECKING:
    from .redis_line import RedisLine

__all__ = ["ask_run", "is_keeping"]

# The first one with ZMSCORE, and the first one with SPUBLISH.
LEAST, LEAST_SHARDED = (6, 2), (7, 0)


async def ask_run(line: RedisLine, *, sharded: bool) -> tuple[str, bool]:
    """Return which run of a Redis this is, and whether it keeps what it answers.

    Raises BackplaneAway for one that is too old, that loads its data, for a replica, and for one that does not say.
    """
    from redis.exceptions import ResponseError  # noqa: PLC0415

    found = await line.ask("INFO")
    info = dict(line.split(":", 1) for line in found.decode().splitlines() if ":" in line)
    check_version(info.get("redis_version", ""), sharded=sharded)
    if info.get("loading") == "1":
        # It tells that nothing is written, and has a part of its data.
        raise BackplaneAway("Redis is loading its data")
    if info.get("role") == "slave":
        raise BackplaneAway("this Redis is a replica, which takes no publications")
    try:
        words = [word.decode() for word in await line.ask("CONFIG", "GET", "*appendfsync*")]
    except ResponseError:
        # Who rents a Redis may not ask for its settings.
        words = []
    run = info.get("run_id", "")
    if not run:
        raise BackplaneAway("INFO of this Redis has no run_id: without it, nobody sees that it lost something")
    return run, is_keeping(info | dict(zip(words[::2], words[1::2], strict=True)))


def check_version(version: str, *, sharded: bool) -> None:
    """Raise BackplaneAway for a Redis that lacks commands: a Valkey tells the version of Redis that it is like."""
    least = LEAST_SHARDED if sharded else LEAST
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is not None and (int(found[1]), int(found[2])) < least:
        needs = f"sharded channels need {least[0]}.{least[1]}" if sharded else f"needed is {least[0]}.{least[1]}"
        raise BackplaneAway(f"this Redis is {version}, {needs} or later, or Valkey")


def is_keeping(fields: dict[str, str]) -> bool:
    """Tell by its INFO and CONFIG GET whether a Redis has on its disk what it answers."""
    # With `everysec`, one whose disk is busy answers up to two seconds before it writes.
    writes = [fields.get(name) for name in ("aof_enabled", "appendfsync", "no-appendfsync-on-rewrite")]
    # One that was a replica may never have got the last of what its master answered.
    return writes == ["1", "always", "no"] and not fields.get("master_replid2", "").strip("0")
