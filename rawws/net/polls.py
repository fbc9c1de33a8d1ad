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

    from .watched import Watched

__all__ = ["accept_one", "new_batch", "serve", "shut_down", "wait"]

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


def serve(batch: Batch, position: int, table: list[Watched | None]) -> None:
    """Call `ready`, in its context, of what is ready at a position; of what was closed meanwhile nothing is called."""
    fd, events = batch[position]
    watched = table[fd] if fd < len(table) else None
    if watched is not None:
        watched.context.run(watched.ready, events)


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
