"""Cuts of backplanes: what reaches an engine is cancelled at each of its waits in turn."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from rawws.topics import History
from rawws.topics.backplane import Backplane
from tests.backplanes.handlers import Told
from tests.server.cuts import Cut, Leftovers, cutting
from tests.server.peers import eventually

__all__ = ["cut_everywhere", "reach"]


async def cut_everywhere(make: Callable[[], Backplane], name: str, left: Leftovers, *, late: bool) -> None:
    """Cut the first coroutine of this name at each of its waits until the engine is reached."""
    for at in count(1):
        cut = Cut(at, late=late)
        await reach(Told(make()), name, cut)
        await left.check(name, at)
        if not cut.is_made:
            return


async def reach(told: Told, name: str, cut: Cut) -> None:
    """Have an engine be reached, or be cut off before that, and close the backplane."""
    with cutting(name, cut):
        told.backplane.open("one", History(), told)
        await eventually(lambda: told.backs or cut.is_over)
    await told.backplane.close()
