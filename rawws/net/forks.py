"""Forks: a child that is forked lets go of the sockets of its parent.

What a child keeps open stays open when its parent closes it: a peer waits for an end that does not come, and a port
stays taken. A child that needs a socket is given it (`multiprocessing`, `pass_fds`).
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["SocketHolder", "let_go_in_children"]


class SocketHolder(Protocol):
    """What has sockets."""

    def descriptors(self) -> Iterable[int]:
        """Return those that belong to this process alone."""


HOLDERS: WeakSet[SocketHolder] = WeakSet()


def let_go_in_children(holder: SocketHolder) -> None:
    """Have the descriptors that something holds at that time closed in every child that is forked."""
    HOLDERS.add(holder)


def _let_go() -> None:
    """Put /dev/null in the place of all of them: the objects of the parent may still close their numbers here."""
    found = [descriptor for holder in HOLDERS for descriptor in holder.descriptors() if descriptor >= 0]
    if not found:
        return
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in found:
        with contextlib.suppress(OSError):
            os.dup2(null, descriptor, inheritable=False)
    os.close(null)
    HOLDERS.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
