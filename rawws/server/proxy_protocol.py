"""PROXY protocol: the connections of trusted proxies to those of their clients (haproxy's proxy-protocol.txt).

Laws:
1. Nothing is read of a connection whose peer is not a trusted proxy, and nothing answered to one without a header.
2. No port speaks both ways: a header that is optional could be left out, or sent, by anybody.
3. Before the header is whole, a connection is a task and a socket, counted and with a deadline.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from typing import TYPE_CHECKING, Any, final

from rawws.net.logs import shown_address
from rawws.net.peer_addresses import parse_ip_address

from .proxy_header import ProxyHeaderError, parse_header

if TYPE_CHECKING:
    from collections.abc import Callable

    from rawws.net.socket import AsyncSocket

    from .forwarded import TrustedProxies
    from .listening import ListeningServer
    from .proxy_header import ProxiedClient

__all__ = ["ProxyListener", "ProxyTerms"]

# So many are accepted before others have their turn, as asyncio does it.
ACCEPTED_AT_ONCE = 100
# Where there are no descriptors, in seconds until the next attempt: asyncio's own.
ACCEPT_DELAY = 1.0
NO_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


@final
class ProxyTerms:
    """What all listeners of a server need to know of its proxies."""

    __slots__ = ("adopt", "logger", "make_protocol", "most", "open_timeout", "refuse", "tls", "trusted")

    def __init__(
        self,
        trusted: TrustedProxies,
        make_protocol: Callable[[ProxiedClient], AsyncSocket],
        refuse: Callable[[], object],
        *,
        open_timeout: float | None,
        most: int | None,
        tls: dict[str, Any],
        logger: logging.Logger,
        adopt: Callable[[int, Any, AsyncSocket], None] | None = None,
    ) -> None:
        self.trusted = trusted
        # Of a connection whose header was read.
        self.make_protocol = make_protocol
        # Called for each that is closed in the place of that.
        self.refuse = refuse
        self.open_timeout = open_timeout
        # So many may be on their way at a time.
        self.most = most
        # What the loop needs to speak TLS.
        self.tls = tls
        self.logger = logger
        # What serves a descriptor, where that is not the loop.
        self.adopt = adopt


@final
class ProxyListener:
    """A listening socket whose connections begin with a PROXY header, in the place of the loop's `server`.

    That one listens no more than the socket, and is closed with this.
    """

    def __init__(self, server: ListeningServer, terms: ProxyTerms) -> None:
        self._server = server
        self._terms = terms
        # The loop lets nobody accept with a socket of its own.
        self._listening = [socket.socket(fileno=os.dup(sock.fileno())) for sock in server.sockets]
        self._loop = asyncio.get_running_loop()
        self._arriving: set[asyncio.Task[None]] = set()

    @property
    def sockets(self) -> tuple[Any, ...]:
        """The listening sockets."""
        return tuple(self._server.sockets)

    def descriptors(self) -> list[int]:
        """Return those that it accepts with."""
        return [listening.fileno() for listening in self._listening]

    async def start_serving(self) -> None:
        """Accept from now on."""
        for listening in self._listening:
            listening.setblocking(False)
            listening.listen()
            self._resume(listening)

    def close(self) -> None:
        """Accept no more, and close what is not whole yet."""
        self._server.close()
        for task in self._arriving:
            # Behind its first step: cancelled before that, it would leave its socket open.
            self._loop.call_soon(task.cancel)
        for listening in self._listening:
            if listening.fileno() >= 0:
                self._loop.remove_reader(listening)
            listening.close()

    async def wait_closed(self) -> None:
        """Wait until all that is over."""
        await asyncio.gather(*self._arriving, return_exceptions=True)
        await self._server.wait_closed()

    # -- one connection after the other

    def _accept(self, listening: socket.socket) -> None:
        """Accept those who wait."""
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                sock, address = listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in NO_DESCRIPTORS:
                    raise
                self._terms.logger.error("cannot accept connections: %s", error.strerror)  # noqa: TRY400 - all there is
                self._loop.remove_reader(listening)
                self._loop.call_later(ACCEPT_DELAY, self._resume, listening)
                return
            sock.setblocking(False)
            if not self._trusts(sock.family, address):
                self._refuse(sock, address, "it is none of the trusted proxies")
            elif self._terms.most is not None and len(self._arriving) >= self._terms.most:
                self._refuse(sock, address, "too many connections wait for their PROXY header")
            else:
                task = self._loop.create_task(self._arrive(sock, address))
                self._arriving.add(task)
                task.add_done_callback(self._arriving.discard)

    def _resume(self, listening: socket.socket) -> None:
        """Accept from now on, unless it is closed meanwhile."""
        if listening.fileno() >= 0:
            self._loop.add_reader(listening, self._accept, listening)

    def _trusts(self, family: int, address: Any) -> bool:
        if family == socket.AF_UNIX:
            return self._terms.trusted.trusts_unix
        return self._terms.trusted.trusts(parse_ip_address(address[0]))

    def _refuse(self, sock: socket.socket, address: Any, reason: str) -> None:
        sock.close()
        self._terms.refuse()
        self._terms.logger.info("%s closed before its PROXY header: %s", shown_address(address), reason)

    async def _arrive(self, sock: socket.socket, address: Any) -> None:
        """Read the header, and hand the connection to the loop."""
        seconds = self._terms.open_timeout
        try:
            async with asyncio.timeout(seconds):
                client = await receive_header(sock)
        except TimeoutError:
            self._refuse(sock, address, f"it did not come within {seconds:g} s")
        except (ProxyHeaderError, OSError) as error:
            self._refuse(sock, address, str(error))
        except BaseException:
            sock.close()
            raise
        else:
            await self._hand_over(sock, client)

    async def _hand_over(self, sock: socket.socket, client: ProxiedClient) -> None:
        loop = asyncio.get_running_loop()
        terms = self._terms
        if terms.adopt is not None:
            address = peer_of(sock)
            if address is None:
                sock.close()
            else:
                if sock.family != socket.AF_UNIX:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                terms.adopt(sock.detach(), address, terms.make_protocol(client))
            return
        try:
            # It has the methods of a protocol, without the base class.
            make: Any = terms.make_protocol
            await loop.connect_accepted_socket(lambda: make(client), sock, **terms.tls)
        except OSError as error:
            # The handshake of TLS failed, or the client left in it; where the loop accepts, it says as little.
            terms.logger.debug("the TLS handshake failed: %s", error)


def peer_of(sock: socket.socket) -> Any:
    """Return the address of a peer, None where it is gone."""
    try:
        return sock.getpeername()
    except OSError:
        return None


async def receive_header(sock: socket.socket) -> ProxiedClient:
    """Read a header, and nothing behind it. Raises ProxyHeaderError, OSError."""
    steps = parse_header()
    needed, by_line = next(steps)
    while True:
        data = await (receive_line(sock, needed) if by_line else receive_exactly(sock, needed))
        try:
            needed, by_line = steps.send(data)
        except StopIteration as done:
            client: ProxiedClient = done.value
            return client


async def receive_exactly(sock: socket.socket, count: int) -> bytes:
    """Read so many octets."""
    data = b""
    while len(data) < count:
        more = await asyncio.get_running_loop().sock_recv(sock, count - len(data))
        if not more:
            raise ProxyHeaderError("the connection ended in it")
        data += more
    return data


async def receive_line(sock: socket.socket, most: int) -> bytes:
    """Read up to a line feed, at most so many octets, and at least one."""
    try:
        seen = sock.recv(most, socket.MSG_PEEK)
    except BlockingIOError:
        return await receive_exactly(sock, 1)
    end = seen.find(b"\n")
    return await receive_exactly(sock, max(1, len(seen) if end < 0 else end + 1))
