"""The engine of all servers that a test starts without naming one: TEST_ENGINE=asyncio has them run on it."""

from __future__ import annotations

import os
import select

__all__ = ["ENGINE", "choose"]

ENGINE = os.environ.get("TEST_ENGINE", "epoll" if hasattr(select, "epoll") else "asyncio")


def choose() -> None:
    """Have the servers of this process run on that engine."""
    from rawws.net import engines  # noqa: PLC0415 - what is imported before decides on the twin

    engines.check_engine(ENGINE)
    engines.default_engine = lambda _loop, **_tls: ENGINE  # type: ignore[assignment]  # it is one
