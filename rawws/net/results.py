"""Results: what an awaitable gives to the task that awaits it."""

from __future__ import annotations

__all__ = ["give"]


def give(value: object) -> None:
    """Raise StopIteration with a value: a `raise StopIteration` follows, which the compiled twin comes to."""
    raise StopIteration(value)
