"""The engine of all servers that a test starts without naming one: TEST_ENGINE=epoll has them run on it."""

from __future__ import annotations

import os

__all__ = ["ENGINE", "choose"]

ENGINE = os.environ.get("TEST_ENGINE", "asyncio")


def choose() -> None:
    """Have the servers of this process run on that engine."""
    from rawws.server import engines  # noqa: PLC0415 - what is imported before decides on the twin

    engines.check_engine(ENGINE)
    engines.DEFAULT = ENGINE  # type: ignore[assignment]  # it is one
