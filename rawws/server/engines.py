"""Engines: who reads and writes the sockets of a server: the loop's transports, or an epoll of our own."""

from __future__ import annotations

import asyncio
import select
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, final

from rawws.net.reactor import COMPILED, Acceptor, adopt, reactor_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from rawws.net.reactor import Reactor
    from rawws.net.socket import AsyncSocket

    from .listening import ListeningServer

__all__ = ["ENGINES", "EpollServer", "SocketEngine", "check_engine", "chosen_engine", "default_engine"]

SocketEngine: TypeAlias = Literal["asyncio", "epoll"]

ENGINES: tuple[SocketEngine, ...] = ("asyncio", "epoll")
# Whether None stands for our own engine in TLS, too, wherever it does for plain sockets.
WITH_TLS = True


def check_engine(engine: object) -> None:
    """Raise ValueError for what is no engine, or none that this system has."""
    if engine is not None and engine not in ENGINES:
        raise ValueError(f"engine is {engine!r}, allowed are 'asyncio', 'epoll' and None")
    if engine == "epoll" and not hasattr(select, "epoll"):
        raise ValueError("engine is 'epoll', allowed on Linux only: this system has no epoll")


def default_engine(loop: asyncio.AbstractEventLoop, *, tls: bool) -> SocketEngine:
    """Return what None stands for: the engine that costs less in this loop."""
    if not hasattr(select, "epoll") or (tls and not WITH_TLS):
        return "asyncio"
    # Interpreted, ours takes a tenth less for a message of 64 B than asyncio's transports, which are Python as well,
    # but 7 % more than uvloop's, which are C.
    return "epoll" if COMPILED or isinstance(loop, asyncio.SelectorEventLoop) else "asyncio"


def chosen_engine(engine: SocketEngine | None, loop: asyncio.AbstractEventLoop, *, tls: bool) -> SocketEngine:
    """Return the one that an option stands for in this loop."""
    return default_engine(loop, tls=tls) if engine is None else engine


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
