"""Proxies: a target to the proxy that leads there, and through it (RFC 9110 section 9.3.6, RFC 1928)."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, NamedTuple, final
from urllib.parse import unquote

from rawws.errors import InvalidMessage, InvalidURI, ProxyError
from rawws.net.peer_addresses import parse_ip_address, parse_ip_network
from rawws.net.transports import abort_transport

from .addresses import connect_tcp
from .response import receive_response
from .transports import TlsOptions, default_context, open_transport
from .uri import basic_authorization, split_uri

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

    from .transports import ProtocolFactory
    from .uri import Target

__all__ = ["Proxy", "open_tls_tunnel", "open_tunnel", "parse_proxy", "proxy_for"]

PROXY_PORTS = {"http": 80, "https": 443, "socks4": 1080, "socks4a": 1080, "socks5": 1080, "socks5h": 1080}
# What the environment calls the proxy for a URI of this scheme, the best first.
# RFC 6455 4.1: "If multiple proxies are available, the client is encouraged to select a SOCKS5 proxy, or, failing that,
# to prefer the proxy configured for HTTPS connections over the proxy configured for HTTP connections."
PROXY_NAMES = {
    "wss": ("wss", "socks", "https", "all"),
    "ws": ("ws", "socks", "https", "http", "all"),
    "https": ("https", "socks", "all"),
    "http": ("http", "socks", "all"),
}


class Proxy(NamedTuple):
    """What the URL of a proxy says; `authorization` is for an HTTP proxy, user and password are for SOCKS."""

    scheme: str
    host: str
    port: int
    username: str | None
    password: str | None
    authorization: str | None

    def __repr__(self) -> str:
        user = "" if self.username is None else "***@"
        return f"<{type(self).__name__} {self.scheme}://{user}{self.host}:{self.port}>"


# -- which one


def proxy_for(target: Target) -> str | None:
    """Return the URL of the proxy that the environment or the system names for this target, if any."""
    # It brings an HTTP client and a mail parser, a fifth of the time that `import rawws` would take.
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415

    proxies = getproxies()
    host = f"[{target.host}]" if ":" in target.host else target.host
    if proxy_bypass(f"{host}:{target.port}") or _in_networks(target.host, proxies.get("no", "")):
        return None
    name = next((name for name in PROXY_NAMES[target.scheme] if proxies.get(name)), None)
    if name is None:
        return None
    proxy = proxies[name]
    # Systems name their SOCKS proxy so.
    return proxy.replace("http://", "socks5h://", 1) if name == "socks" else proxy


def _in_networks(host: str, exceptions: str) -> bool:
    """Tell whether a host is an address in a network of NO_PROXY; as with curl, a name is not looked up for that."""
    try:
        address = parse_ip_address(host)
    except ValueError:
        return False
    for exception in exceptions.split(","):
        with contextlib.suppress(ValueError):
            if address in parse_ip_network(exception.strip(), strict=False):
                return True
    return False


def parse_proxy(url: str) -> Proxy:
    """Take the URL of a proxy apart; without a scheme it is an HTTP proxy. Raises InvalidURI."""
    parts, port = split_uri(url if "://" in url else f"http://{url}", "proxy")
    if parts.scheme not in PROXY_PORTS:
        allowed = ", ".join(f"{scheme}://" for scheme in PROXY_PORTS)
        raise InvalidURI(f"the scheme of the proxy is {parts.scheme!r}, allowed are {allowed}")
    return Proxy(
        parts.scheme,
        parts.hostname or "",
        PROXY_PORTS[parts.scheme] if port is None else port,
        None if parts.username is None else unquote(parts.username),
        None if parts.password is None else unquote(parts.password),
        None if parts.username is None else basic_authorization(parts),
    )


# -- through it


async def open_tunnel(proxy: Proxy, target: Target, local_addr: tuple[str, int] | None) -> socket.socket:
    """Connect to the target through a proxy that is not spoken to in TLS."""
    if proxy.scheme != "http":
        return await _open_socks(proxy, target, local_addr)
    loop = asyncio.get_running_loop()
    sock = await connect_tcp(proxy.host, proxy.port, local_addr)
    try:
        broken: OSError | None = None
        try:
            await loop.sock_sendall(sock, _connect_request(target, proxy))
        except OSError as error:
            # It may have refused before, and ended the connection: its answer can still be read.
            broken = error
        try:
            # One byte at a time: what follows the head belongs to the tunnel.
            await _receive_tunnel(lambda: loop.sock_recv(sock, 1), proxy)
        except ProxyError as error:
            if broken is None or error.status:
                raise
            raise broken from None
    except BaseException:
        sock.close()
        raise
    return sock


async def open_tls_tunnel(
    factory: ProtocolFactory,
    proxy: Proxy,
    target: Target,
    local_addr: tuple[str, int] | None,
    tls: TlsOptions | None,
    gone_after: float,
) -> asyncio.Transport:
    """Connect a protocol to the target through a proxy that is spoken to in TLS, with TLS within it if need be."""
    reader = _TunnelReader()
    sock = await connect_tcp(proxy.host, proxy.port, local_addr)
    transport = await open_transport(lambda: reader, sock, TlsOptions(default_context(), proxy.host), gone_after)
    try:
        transport.write(_connect_request(target, proxy))
        rest = await _receive_tunnel(reader.read, proxy)
        # In WebSocket, HTTP and TLS the client speaks first.
        if rest:
            raise ProxyError(0, f"the proxy {proxy.host} sent {len(rest)} bytes behind its response, none is due")
        if tls is not None:
            loop = asyncio.get_running_loop()
            inner = await loop.start_tls(transport, reader, tls.context, **tls.keywords())
            # None where the connection was lost meanwhile (asyncio up to Python 3.12).
            transport = inner or transport
        if reader.ended:
            raise ConnectionResetError(f"the proxy {proxy.host} ended the connection")
        reader.hand_over(transport, factory())
    except BaseException as error:
        abort_transport(transport)
        # Before Python 3.11.8 and 3.12.2, asyncio stumbles over what went wrong in TLS within TLS (CPython #113214).
        if isinstance(error, TypeError) and isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise
    return transport


@final
class _TunnelReader(asyncio.Protocol):
    """Keeps what comes from a proxy until the protocol is there that it is for."""

    def __init__(self) -> None:
        self.ended = False
        self._data = b""
        self._received = asyncio.Event()
        self._protocol: asyncio.Protocol | None = None

    def data_received(self, data: bytes) -> None:
        """Keep it."""
        self._data += data
        self._received.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """End `read`: nothing more comes."""
        self.ended = True
        self._received.set()
        # The loop may tell the end in a later turn, to the protocol that the transport had when it came.
        if self._protocol is not None:
            self._protocol.connection_lost(exc)

    async def read(self) -> bytes:
        """Return what came since the last time, nothing at the end."""
        await self._received.wait()
        self._received.clear()
        data, self._data = self._data, b""
        return data

    def hand_over(self, transport: asyncio.Transport, protocol: asyncio.Protocol) -> None:
        """Connect the protocol that all this is for, and give it what came."""
        self._protocol = protocol
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if self._data:
            protocol.data_received(self._data)


async def _open_socks(proxy: Proxy, target: Target, local_addr: tuple[str, int] | None) -> socket.socket:
    """Connect through a SOCKS proxy, which resolves the name itself where its scheme is socks5h or socks4a."""
    try:
        from python_socks import ProxyError as SocksError  # noqa: PLC0415 - optional
        from python_socks import ProxyType  # noqa: PLC0415
        from python_socks.async_.asyncio import Proxy as SocksProxy  # noqa: PLC0415
    except ImportError:
        raise ImportError("a SOCKS proxy needs python-socks: pip install 'rawws[socks]'") from None
    kind = ProxyType.SOCKS5 if proxy.scheme.startswith("socks5") else ProxyType.SOCKS4
    resolves = proxy.scheme in {"socks5h", "socks4a"}
    through = SocksProxy(kind, proxy.host, proxy.port, proxy.username, proxy.password, resolves)
    try:
        sock: socket.socket = await through.connect(target.host, target.port, local_addr=local_addr)
    except SocksError as error:
        raise ProxyError(0, f"the proxy {proxy.host}:{proxy.port} answered: {error}") from error
    return sock


def _connect_request(target: Target, proxy: Proxy) -> bytes:
    """Write the request for a tunnel (RFC 9110 section 9.3.6, RFC 6455 section 4.1)."""
    host = f"[{target.host}]" if ":" in target.host else target.host
    # RFC 9112 3.2.3: CONNECT has the authority-form, "only the uri-host and port number", always both.
    request = f"CONNECT {host}:{target.port} HTTP/1.1\r\nHost: {host}:{target.port}\r\n"
    if proxy.authorization is not None:
        request += f"Proxy-Authorization: {proxy.authorization}\r\n"
    return request.encode("latin-1") + b"\r\n"


async def _receive_tunnel(read: Callable[[], Awaitable[bytes]], proxy: Proxy) -> bytes:
    """Read the response of a proxy; return what came behind it. Raises ProxyError where it refuses."""
    try:
        response, rest = await receive_response(read, "it ended the connection before its response")
    except InvalidMessage as error:
        raise ProxyError(0, f"the proxy {proxy.host} gave no HTTP response: {error.reason}") from None
    # RFC 9110 9.3.6: "Any 2xx (Successful) response indicates that the sender (and all inbound proxies) will switch to
    # tunnel mode"; any other, "that the tunnel has not yet been formed".
    if not 200 <= response.status < 300:
        headers = tuple(response.headers.raw_items())
        raise ProxyError(response.status, f"the proxy {proxy.host} answered {response.reason_phrase!r}", headers)
    return rest
