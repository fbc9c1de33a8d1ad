"""Deliveries: what is done to a connection, at whatever instance, to what is told of it and of what became of that."""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["GONE", "ConnectionInfo", "Delivery"]


class ConnectionInfo(NamedTuple):
    """What is told of a connection: times in seconds since 1970, and the address and agent of its client."""

    connected_at: float
    active_at: float
    address: str
    agent: str
    face: str
    app: str
    user: str
    channels: tuple[str, ...]

    @classmethod
    def read(cls, fields: list[object]) -> ConnectionInfo:
        """Return what another instance told."""
        *others, channels = fields
        assert isinstance(channels, list)  # noqa: S101 - for mypy
        return cls._make([*others, tuple(channels)])


class Delivery(NamedTuple):
    """What became of what was to be done to a connection: a status of HTTP, and the answer."""

    # 200 done, 409 it cannot be done, 410 no such connection, 413 too large, 429 it reads too slowly, or has too much,
    # 503 its instance cannot be reached.
    status: int
    info: ConnectionInfo | None = None
    # Why it cannot be done.
    reason: str = ""


GONE: Final = Delivery(410)
