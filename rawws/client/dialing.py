"""Dialing: a URI to a connected transport, by TCP, TLS, a unix socket or a proxy (RFC 6455 section 4.1)."""

from __future__ import annotations

import asyncio
import ssl as ssl_module
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from rawws.net.engines import chosen_engine
from rawws.net.kernel import GONE_AFTER

from .addresses import connect_tcp, connect_unix
from .proxies import Proxy, open_tls_tunnel, open_tunnel, parse_proxy, proxy_for
from .transports import AlpnContext, TlsOptions, default_context, open_transport

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from rawws.net.engines import SocketEngine

    from .options import ClientOptions
    from .transports import ProtocolFactory
    from .uri import Target

__all__ = ["InMemory", "TransportOptions", "create_connection"]

# What connects a protocol without a socket.
InMemory: TypeAlias = "Callable[[ProtocolFactory], asyncio.Transport]"


class TransportOptions(NamedTuple):
    """How to reach a target: the options of `connect` of the same names, or what needs no socket."""

    ssl: ssl_module.SSLContext | bool | None = None
    server_hostname: str | None = None
    proxy: str | bool | None = None
    local_addr: tuple[str, int] | None = None
    path: str | None = None
    sock: socket.socket | None = None
    in_memory: InMemory | None = None
    close_timeout: float | None = None
    gone_after: float = GONE_AFTER
    # What is offered in the TLS handshake in the place of HTTP/1.1 (RFC 7301).
    alpn: tuple[str, ...] = ()
    # Who reads and writes a plain socket, None for the one that costs less.
    engine: SocketEngine | None = "asyncio"

    @classmethod
    def of(cls, options: ClientOptions) -> TransportOptions:
        """Return what the options of a client say."""
        return cls(options.ssl, options.server_hostname, options.proxy, options.local_addr, options.path)

    def __repr__(self) -> str:
        # The proxy may have a password.
        return f"<{type(self).__name__}>"


async def create_connection(factory: ProtocolFactory, target: Target, options: TransportOptions) -> asyncio.Transport:
    """Connect a protocol to the target. Raises OSError, and ProxyError where a proxy refuses."""
    if options.in_memory is not None:
        return options.in_memory(factory)
    tls = _tls(target, options)
    if options.path is not None:
        return await _open_unix(factory, options.path, tls, options.engine)
    if options.sock is not None:
        return await open_transport(factory, options.sock, tls, options.gone_after)
    proxy = _proxy(target, options.proxy)
    if proxy is None:
        sock = await connect_tcp(target.host, target.port, options.local_addr)
        return await open_transport(factory, sock, tls, options.gone_after, options.engine)
    if proxy.scheme == "https":
        return await open_tls_tunnel(factory, proxy, target, options.local_addr, tls, options.gone_after)
    sock = await open_tunnel(proxy, target, options.local_addr)
    return await open_transport(factory, sock, tls, options.gone_after)


async def _open_unix(
    factory: ProtocolFactory, path: str, tls: TlsOptions | None, engine: SocketEngine | None
) -> asyncio.Transport:
    loop = asyncio.get_running_loop()
    try:
        if tls is None and chosen_engine(engine, loop, tls=False) == "epoll":
            transport = await open_transport(factory, await connect_unix(path), engine=engine)
        elif tls is None:
            transport, _ = await loop.create_unix_connection(factory, path)
        else:
            transport, _ = await loop.create_unix_connection(factory, path, ssl=tls.context, **tls.keywords())
    except (ConnectionRefusedError, FileNotFoundError) as error:
        what = "there is no such socket" if isinstance(error, FileNotFoundError) else "its server is gone"
        raise type(error)(error.errno, f"nothing listens at {path}: {what}") from None
    return transport


def _proxy(target: Target, option: str | bool | None) -> Proxy | None:
    url = proxy_for(target) if option is True else option or None
    return None if url is None else parse_proxy(url)


def _tls(target: Target, options: TransportOptions) -> TlsOptions | None:
    ssl = options.ssl
    if not target.secure:
        if ssl:
            raise ValueError(f"ssl is given for {target.shown!r}, it is for wss:// and https:// only")
        return None
    if ssl is False:
        raise ValueError(f"ssl is False for {target.shown!r}, allowed are True, None and a context")
    context = ssl if isinstance(ssl, ssl_module.SSLContext) else default_context()
    if options.alpn:
        context = AlpnContext(context, options.alpn)
    return TlsOptions(context, options.server_hostname or target.host, options.close_timeout)
