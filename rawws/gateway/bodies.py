"""Bodies: which room the body of a request has, so that no app takes that of another, and no client that of servers.

Laws:
1. Those who have shown no right yet, and those who have the key of an app, share nothing.
2. Each app has an equal part, and in it each address of its clients has one: over that, its own requests wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final
from weakref import WeakValueDictionary

import rawws
from rawws.http.body_room import BodyRoom
from rawws.net.peer_addresses import network_of
from rawws.protocol.http11 import content_length

if TYPE_CHECKING:
    from collections.abc import Callable

    from .config import AppConfig, GatewayConfig

__all__ = ["MAX_BODIES", "MAX_BODY", "BodyRooms"]

# Of a request: a batch of events, each of 10 KiB or more, in JSON, which may write a character as six.
MAX_BODY: Final = 4 << 20
# Of the bodies that are read and answered at a port, in all: 16 of the largest.
MAX_BODIES: Final = 16 * MAX_BODY
# Of that, what clients have, who post to rawws.v1: their bodies come before it is known who they are.
CLIENTS: Final = MAX_BODIES // 4
# Of the part of an app, what one address has: an office of many has it all together.
ADDRESSES: Final = 4
# So many bodies of one address fit at least, whatever their size.
LEAST: Final = 4


@final
class BodyRooms:
    """The rooms of the apps that a configuration has; `config` returns the one that holds now."""

    __slots__ = ("_config", "_rooms")

    def __init__(self, config: Callable[[], GatewayConfig]) -> None:
        self._config = config
        # A room is there for as long as a request is in it.
        self._rooms: WeakValueDictionary[tuple[str, ...], BodyRoom] = WeakValueDictionary()

    @property
    def held(self) -> int:
        """How many bytes are kept of all that have a room."""
        return sum(room.held for room in self._rooms.values() if room.within is None)

    def enter_server(self, app: str, request: rawws.HttpRequest) -> None:
        """Give the body of a server its room, once its key is known."""
        limit = max(MAX_BODY, (MAX_BODIES - CLIENTS) // self._apps())
        request.body_room = self._room((app,), MAX_BODY, limit)

    def enter_client(self, app: AppConfig, request: rawws.HttpRequest, max_size: int) -> None:
        """Give the body of a client its room. Raises HttpError(413) for one that says that it is too long."""
        size = content_length(request.headers)
        if size is not None and size > max_size:
            raise rawws.HttpError(413, f"the body has {size} bytes, limit {max_size}")
        network = network_of(request.remote_address) or ""
        least = LEAST * max_size
        whole = self._room((app.id, "clients"), max_size, max(ADDRESSES * least, CLIENTS // self._apps()))
        own = self._room((app.id, "clients", network), max_size, max(least, whole.limit // ADDRESSES), whole)
        request.body_room = own

    def _apps(self) -> int:
        config = self._config()
        return max(1, len(config.apps) + len(config.apis))

    def _room(self, key: tuple[str, ...], max_size: int, limit: int, within: BodyRoom | None = None) -> BodyRoom:
        room = self._rooms.get(key)
        if room is None:
            room = self._rooms[key] = BodyRoom(max_size, limit, within)
        return room
