"""Redis lives: what a Redis says of itself to which run it is of, and whether that keeps what it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rawws.topics.backplane import BackplaneAway

if TYPE_CHECKING:
    from .redis_line import RedisLine

__all__ = ["ask_life", "is_keeping", "life_of"]


async def ask_life(line: RedisLine) -> tuple[str, bool]:
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
    return life_of(info), is_keeping(info | dict(zip(words[::2], words[1::2], strict=True)))


def life_of(info: dict[str, str]) -> str:
    """Return the name of a run of a Redis by its INFO, as lua/outside.lua does: none with other data has the same.

    One that was a replica has another name each time that it becomes the master again. Raises BackplaneAway where the
    Redis does not say.
    """
    was_replica = info.get("master_replid2", "").strip("0")
    life = info.get("master_replid", "") if was_replica else info.get("run_id") or info.get("master_replid", "")
    if not life:
        raise BackplaneAway("INFO of this Redis has no run_id: without it, nobody sees that it lost something")
    return life


def is_keeping(fields: dict[str, str]) -> bool:
    """Tell by its INFO and CONFIG GET whether a Redis has on its disk what it answers."""
    # With `everysec`, one whose disk is busy answers up to two seconds before it writes.
    writes = [fields.get(name) for name in ("aof_enabled", "appendfsync", "no-appendfsync-on-rewrite")]
    # One that was a replica may never have got the last of what its master answered.
    return writes == ["1", "always", "no"] and not fields.get("master_replid2", "").strip("0")
