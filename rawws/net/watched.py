"""Watched: what the engine calls where a descriptor is ready: a connection, or a listening socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextvars import Context

__all__ = ["READ", "WRITE", "Watched"]

# Of epoll(7). Errors and hang-ups are told unasked: they count as what is waited for; reading or writing tells more.
READ = 1
WRITE = 4


class Watched:
    """The owner of one descriptor."""

    __slots__ = ("context", "fd", "mask")

    def __init__(self, fd: int, context: Context) -> None:
        # -1 once it is closed.
        self.fd = fd
        # What it is called in: each connection has variables of its own, as with a transport of the loop.
        self.context = context
        # What epoll watches it for; where that is nothing, epoll does not know it.
        self.mask = 0

    def ready(self, events: int) -> None:
        """Do what is due. Events are hints, no more: the descriptor may be another's since, and then nothing is."""
        raise NotImplementedError
