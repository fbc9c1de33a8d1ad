"""Engines: the listening sockets of a server whose connections our own engine serves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, final

from rawws.net.reactor import Acceptor, adopt, reactor_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from rawws.net.reactor import Reactor
    from rawws.net.socket import AsyncSocket

    from .listening import ListeningServer

__all__ = ["EpollServer"]


@final
class EpollServer:
    """Listening sockets whose connections the reactor serves, in the place of the loop's `server`.

    That one listens no more than the socket, and is closed with this.
    """

    def __init__(
        self,
        server: ListeningServer,
        make_protocol: Callable[[], AsyncSocket],
        adopt: Callable[[Reactor, int, Any, AsyncSocket], None] = adopt,
    ) -> None:
        self._server = server
        self._make_protocol = make_protocol
        self._adopt = adopt
        self._acceptors: list[Acceptor] = []

    @property
    def sockets(self) -> tuple[Any, ...]:
        """The listening sockets."""
        return tuple(self._server.sockets)

    async def start_serving(self) -> None:
        """Accept from now on."""
        reactor = reactor_of(asyncio.get_running_loop())
        for sock in self.sockets:
            self._acceptors.append(Acceptor(reactor, sock.fileno(), self._make_protocol, self._adopt))

    def close(self) -> None:
        """Accept no more."""
        for acceptor in self._acceptors:
            acceptor.close()
        self._server.close()

    async def wait_closed(self) -> None:
        """Wait until that is over."""
        await self._server.wait_closed()
