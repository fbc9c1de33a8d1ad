"""The shared backplane: what joins the hubs of all workers of one server, where `rawws serve --workers` started them.

Who starts the workers says so by `share`, before there are hubs; a hub asks for its `default_backplane`.
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
    """What joins the hubs of all workers, a broker at a path: `make(name)` returns a backplane.

    The n-th hub of each worker gets the n-th name: so hubs are joined that are made before the workers start, where the
    module of the application is imported.
    """

    __slots__ = ("count", "forked", "make", "path")

    def __init__(self, path: str, make: Callable[[str], Backplane]) -> None:
        self.path = path
        self.make = make
        self.count = 0
        self.forked = False

    def next(self) -> Backplane | None:
        """Return the backplane of a new hub; None where it is too late to join it to those of the other workers."""
        if self.forked:
            logger.warning("a hub was made after the workers started and is not joined: make it where it is imported")
            return None
        self.count += 1
        return self.make(str(self.count))


# Of this process.
shared: SharedBackplane | None = None


def share(backplane: SharedBackplane) -> None:
    """Have all hubs that are made from now on joined to those of the other workers."""
    global shared  # noqa: PLW0603 - workers are forked: it is a property of the process
    shared = backplane


def default_backplane() -> Backplane | None:
    """Return what joins a new hub to those of the other workers, None where there are none."""
    return None if shared is None else shared.next()
