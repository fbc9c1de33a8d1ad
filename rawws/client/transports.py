"""Transports: a connected socket to an asyncio transport, in TLS or not."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypedDict, cast, final

from rawws.net.engines import chosen_engine
from rawws.net.kernel import GONE_AFTER, notice_vanished
from rawws.net.reactor import adopt, reactor_of
from rawws.net.socket import AsyncSocket

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from rawws.net.engines import SocketEngine

__all__ = ["AlpnContext", "ProtocolFactory", "TlsOptions", "default_context", "open_transport"]

ProtocolFactory: TypeAlias = "Callable[[], asyncio.Protocol]"
# One of ours: it asks for HTTP/1.1, for servers that would otherwise choose HTTP/2.
ALPN = ["http/1.1"]


class TlsKeywords(TypedDict, total=False):
    """What the methods of a loop are told of TLS, beside the context."""

    server_hostname: str
    ssl_shutdown_timeout: float


class TlsOptions(NamedTuple):
    """How to speak TLS: `server_hostname` is the name that the certificate must have."""

    context: ssl.SSLContext
    server_hostname: str
    # Of a server that does not answer close_notify; the loop's own is 30 s.
    close_timeout: float | None = None

    def keywords(self) -> TlsKeywords:
        """Return the same for the methods of a loop."""
        keywords: TlsKeywords = {"server_hostname": self.server_hostname}
        if self.close_timeout:
            keywords["ssl_shutdown_timeout"] = self.close_timeout
        return keywords


def default_context() -> ssl.SSLContext:
    """Return a context that verifies."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(ALPN)
    return context


@final
class AlpnContext(ssl.SSLContext):
    """Another context that offers these protocols, for one connection (RFC 7301).

    A context cannot be copied, and says all that it offers to all of its connections: so the other one is told just
    before each, and offers HTTP/1.1 again behind it.
    """

    _context: ssl.SSLContext
    _protocols: Sequence[str]

    def __new__(cls, context: ssl.SSLContext, protocols: Sequence[str]) -> AlpnContext:
        """Make a context of no settings of its own."""
        self = super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)
        self._context = context
        self._protocols = protocols
        return self

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """Begin a connection, as the other context does."""
        self._context.set_alpn_protocols(self._protocols)
        try:
            return self._context.wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        finally:
            self._context.set_alpn_protocols(ALPN)


async def open_transport(
    factory: ProtocolFactory,
    sock: socket.socket,
    tls: TlsOptions | None = None,
    gone_after: float = GONE_AFTER,
    engine: SocketEngine | None = "asyncio",
) -> asyncio.Transport:
    """Give a connected socket to the loop, which closes it from here on, also if the TLS handshake fails.

    A server that vanished is given up after `gone_after` seconds without an acknowledgement. What is plain, and one of
    our own protocols, may have our own `engine`.
    """
    loop = asyncio.get_running_loop()
    notice_vanished(sock, gone_after)
    if tls is None and chosen_engine(engine, loop, tls=False) == "epoll":
        protocol: object = factory()
        if isinstance(protocol, AsyncSocket):
            return _adopt(sock, protocol)
        factory = partial(cast, "asyncio.Protocol", protocol)
    try:
        if tls is None:
            transport, _ = await loop.create_connection(factory, sock=sock)
        else:
            transport, _ = await loop.create_connection(factory, sock=sock, ssl=tls.context, **tls.keywords())
        return transport
    finally:
        # uvloop owns the descriptor and not the socket object. Where the peer resets the connection meanwhile, it
        # forgets to tell the object (0.23), which would later close what has the same number then.
        if type(loop).__module__.partition(".")[0] in {"uvloop", "winloop"}:
            sock.detach()


def _adopt(sock: socket.socket, protocol: AsyncSocket) -> asyncio.Transport:
    """Give a connected socket to our own engine."""
    sock.setblocking(False)
    address = None
    # It has none any more where the server has reset it: what came before that is read all the same.
    with contextlib.suppress(OSError):
        address = sock.getpeername()
    adopt(reactor_of(asyncio.get_running_loop()), sock.detach(), address, protocol)
    return protocol.transport  # type: ignore[no-any-return]  # it has the methods of one that are used here
