"""The shared backplane: what joins the hubs of an application, as `rawws serve` was told: --backplane or --workers.

Whoever serves says so by `share`, before there are hubs; a hub asks for its `default_backplane`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Callable

    from .backplane import Backplane

__all__ = ["SharedBackplane", "default_backplane", "share"]

logger = logging.getLogger("rawws.workers")


@final
class SharedBackplane:
    """What joins the hubs of all processes: `make(number)` returns a backplane.

    The n-th hub of each process gets the number n: so hubs are joined that are made before workers start, where the
    module of the application is imported.
    """

    __slots__ = ("count", "forked", "make")

    def __init__(self, make: Callable[[int], Backplane]) -> None:
        self.make = make
        self.count = 0
        self.forked = False

    def next(self) -> Backplane | None:
        """Return the backplane of a new hub; None where it is too late to join it to those of other workers."""
        if self.forked:
            logger.warning("a hub was made after the workers started and is not joined: make it where it is imported")
            return None
        self.count += 1
        return self.make(self.count)


# Of this process.
shared: SharedBackplane | None = None


def share(backplane: SharedBackplane) -> None:
    """Have all hubs that are made from now on joined to those of the other processes."""
    global shared  # noqa: PLW0603 - workers are forked: it is a property of the process
    shared = backplane


def default_backplane() -> Backplane | None:
    """Return what joins a new hub to those of the other processes, None where there is nothing."""
    return None if shared is None else shared.next()
