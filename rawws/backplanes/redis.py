"""The Redis backplane: hubs that one Redis joins, at an address or where sentinels say, by the package `redis`."""

from __future__ import annotations

import re
from typing import final

from .redis_node import RedisNode
from .redis_urls import source_of
from .session import check_times

__all__ = ["RedisBackplane", "check_options"]


@final
class RedisBackplane(RedisNode):
    """A hub's connection to a Redis: `rawws.Hub(backplane=RedisBackplane("redis://127.0.0.1:6379/0"))`.

    `redis+sentinel://a:26379,b:26379/mymaster` asks sentinels where it is. `prefix` is what all keys and channels begin
    with. `lease` says after how many seconds those present at a server that fell silent are so no more. `sharded` sends
    by SPUBLISH (Redis 7). All servers must come to the same Redis, also by a proxy. An answer of it may take `timeout`
    seconds.

    Raises ImportError where the package `redis` is missing, ValueError for a URL that is none.
    """

    def __init__(
        self,
        url: str = "redis://127.0.0.1:6379/0",
        *,
        prefix: str = "rawws",
        lease: float = 15.0,
        sharded: bool = False,
        timeout: float = 5.0,
    ) -> None:
        check_options(prefix, lease, timeout)
        super().__init__(source_of(url, timeout), prefix=prefix, lease=lease, timeout=timeout, sharded=sharded)


def check_options(prefix: str, lease: float, timeout: float) -> None:
    """Raise ImportError where the package is missing, and ValueError for options that mean nothing."""
    try:
        import redis.asyncio.connection  # noqa: PLC0415
        import redis.exceptions  # noqa: F401, PLC0415
    except ImportError:
        raise ImportError("the Redis backplane needs redis: pip install 'rawws[redis]'") from None
    if not re.fullmatch(r"[\w.:-]{1,64}", prefix, re.ASCII):
        raise ValueError(f"prefix is {prefix[:64]!r}, allowed are 1 to 64 of letters, digits and _.:-")
    check_times(lease, timeout)
