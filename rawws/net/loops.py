"""Loops: uvloop where it is installed, asyncio's own elsewhere; and what each has one of."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

__all__ = ["loop_factory", "of_loop"]

Result = TypeVar("Result")


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes a uvloop loop where uvloop is installed, None (asyncio's own) elsewhere."""
    try:
        import uvloop  # noqa: PLC0415 - optional
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def of_loop(
    known: dict[asyncio.AbstractEventLoop, Result],
    loop: asyncio.AbstractEventLoop,
    make: Callable[[asyncio.AbstractEventLoop], Result],
) -> Result:
    """Return what a loop has one of, made when it is first asked for; that of loops that are closed is forgotten."""
    found = known.get(loop)
    if found is None:
        for other in [other for other in known if other.is_closed()]:
            known.pop(other, None)
        found = known[loop] = make(loop)
    return found
