"""Body room: what the bodies of some requests may have together, beside those of all at a server."""

from __future__ import annotations

from typing import final

from rawws.errors import HttpError

__all__ = ["BodyRoom"]


@final
class BodyRoom:
    """Room for the bodies of some requests: each has `max_size` bytes at most, and all that are kept have `limit`.

    The check of a route puts a request into one: `request.body_room = room`. Each has its place in a larger room, too,
    where that is `within` one.
    """

    __slots__ = ("__weakref__", "held", "limit", "max_size", "within")

    def __init__(self, max_size: int, limit: int, within: BodyRoom | None = None) -> None:
        self.max_size = max_size
        self.limit = limit
        self.within = within
        # How many bytes are kept now.
        self.held = 0

    def take(self, kept: int, size: int) -> None:
        """Count a piece of a body of which so much is kept. Raises HttpError: 413 for its size, 503 for all of them."""
        if kept + size > self.max_size:
            raise HttpError(413, f"the body is over {self.max_size} bytes, the limit")
        for room in (self, self.within):
            if room is not None and room.held + size > room.limit:
                reason = f"the bodies of requests like this are over {room.limit} bytes, the limit"
                raise HttpError(503, reason, (("Retry-After", "1"),))
        self.change(size)

    def change(self, size: int) -> None:
        """Count so many bytes more, or less."""
        self.held += size
        if self.within is not None:
            self.within.held += size
