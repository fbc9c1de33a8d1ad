"""Listening: what listens for a server: that of a loop, or what stands in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ListeningServer"]


class ListeningServer(Protocol):
    """What listens for a server."""

    @property
    def sockets(self) -> Sequence[Any]:
        """The listening sockets."""

    async def start_serving(self) -> None:
        """Accept from now on."""

    def close(self) -> None:
        """Accept no more."""

    async def wait_closed(self) -> None:
        """Wait until that is over."""
