"""Polls: what the engine asks of the kernel, by Python's `select` and `socket`.

The compiled twin of reactor.py has the functions of epoll.pxd in the place of these: the same calls, without the
interpreter between.
"""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import select
    from contextvars import Context

    from .watched import Watched

__all__ = ["accept_one", "events_at", "fd_at", "new_batch", "ready_in", "shut_down", "wait"]

# So many descriptors that are ready are taken at a time.
BATCH = 128

# In C the memory of an array of `struct epoll_event`.
Batch: TypeAlias = "list[tuple[int, int]]"


def new_batch() -> Batch:
    """Return room for what one call of `wait` tells."""
    return []


def wait(poll: select.epoll, _fd: int, batch: Batch) -> int:
    """Fill the batch with what is ready now, and return how many that are."""
    batch[:] = poll.poll(0, BATCH)
    return len(batch)


def fd_at(batch: Batch, position: int) -> int:
    """Return a descriptor that is ready."""
    return batch[position][0]


def events_at(batch: Batch, position: int) -> int:
    """Return what it is ready for."""
    return batch[position][1]


def ready_in(context: Context, watched: Watched, events: int) -> None:
    """Call `watched.ready` in its context."""
    context.run(watched.ready, events)


def accept_one(listening: socket.socket, _fd: int) -> tuple[int, Any] | None:
    """Return the descriptor and the address of a connection, None where none waits. Raises OSError.

    In C that of IPv4 is one number: the host, and 16 bits of the port.
    """
    try:
        sock, address = listening.accept()
    except (BlockingIOError, InterruptedError):
        return None
    sock.setblocking(False)
    return sock.detach(), address


def shut_down(fd: int, how: int) -> None:
    """End one side of a connection, or both; nothing where the peer was faster."""
    with contextlib.suppress(OSError):
        same = socket.socket(fileno=fd)
        try:
            same.shutdown(how)
        finally:
            same.detach()
