"""Transports: a connected socket to an asyncio transport, in TLS or not."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypedDict, final

from rawws.net.kernel import GONE_AFTER, notice_vanished

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

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
    factory: ProtocolFactory, sock: socket.socket, tls: TlsOptions | None = None, gone_after: float = GONE_AFTER
) -> asyncio.Transport:
    """Give a connected socket to the loop, which closes it from here on, also if the TLS handshake fails.

    A server that vanished is given up after `gone_after` seconds without an acknowledgement.
    """
    loop = asyncio.get_running_loop()
    notice_vanished(sock, gone_after)
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
