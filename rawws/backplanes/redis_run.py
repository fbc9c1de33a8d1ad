"""Redis runs: what a Redis says of itself to which run it is of, and whether that keeps what it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rawws.topics.backplane import BackplaneAway

if TYPE_CHECKING:
    from .redis_line import RedisLine

__all__ = ["ask_run", "is_keeping"]


async def ask_run(line: RedisLine) -> tuple[str, bool]:
    """Return which run of a Redis this is, and whether it keeps what it answers.

    Raises BackplaneAway for one that loads its data, for a replica, and for one that does not say.
    """
    from redis.exceptions import ResponseError  # noqa: PLC0415

    found = await line.ask("INFO")
    info = dict(line.split(":", 1) for line in found.decode().splitlines() if ":" in line)
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


def is_keeping(fields: dict[str, str]) -> bool:
    """Tell by its INFO and CONFIG GET whether a Redis has on its disk what it answers."""
    # With `everysec`, one whose disk is busy answers up to two seconds before it writes.
    writes = [fields.get(name) for name in ("aof_enabled", "appendfsync", "no-appendfsync-on-rewrite")]
    # One that was a replica may never have got the last of what its master answered.
    return writes == ["1", "always", "no"] and not fields.get("master_replid2", "").strip("0")
