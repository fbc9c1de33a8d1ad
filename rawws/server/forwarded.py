"""Forwarded: what a trusted reverse proxy says of its client (the X-Forwarded-* headers; off by default).

Anyone can send these headers, so they count only from an address that the operator names. A proxy appends the address
that it saw to what the client sent, so the list is read from its end, up to the first address that is not trusted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from rawws.errors import HttpError
from rawws.net.peer_addresses import parse_ip_address, parse_ip_network

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rawws.net.peer_addresses import IPAddress, IPNetwork
    from rawws.net.socket import SocketAddress
    from rawws.net.websocket import WebSocket
    from rawws.protocol.http11 import Request

__all__ = ["TrustedProxies", "scheme_of"]


@final
class TrustedProxies:
    """The proxies whose word is taken: addresses and networks, "unix" for unix sockets, "*" for all.

    Raises ValueError for what is none of these.
    """

    __slots__ = ("_all", "_networks", "_unix")

    def __init__(self, proxies: Sequence[str]) -> None:
        if isinstance(proxies, str):
            proxies = [proxies]
        self._all = "*" in proxies
        self._unix = self._all or "unix" in proxies
        self._networks = [_network(proxy) for proxy in proxies if proxy not in {"*", "unix"}]

    @property
    def trusts_unix(self) -> bool:
        """Whether the peers of a unix socket are proxies."""
        return self._unix

    def trusts(self, address: IPAddress) -> bool:
        """Tell whether this address is that of a proxy."""
        return self._all or any(address in network for network in self._networks)

    def apply(self, ws: WebSocket, request: Request, client: SocketAddress | None = None) -> None:
        """Note the client's address and scheme on the connection, if its peer is a trusted proxy.

        `client` is the peer that a PROXY header names: what that says counts only if it is a trusted proxy, too. Raises
        HttpError(400) where a trusted proxy sends what cannot be read.
        """
        peer = ws.extra("peername") if client is None else client
        if not (self.trusts(parse_ip_address(peer[0])) if isinstance(peer, tuple) else self._unix):
            return
        chain = ",".join(request.headers.get_all("X-Forwarded-For")).split(",")
        for entry in reversed([entry.strip() for entry in chain if entry.strip()]):
            address, port = _parse(entry)
            ws.remote = (str(address), port)
            if not self.trusts(address):
                break
        schemes = ",".join(request.headers.get_all("X-Forwarded-Proto")).split(",")
        scheme = schemes[-1].strip().lower()
        if scheme not in {"", "http", "https", "ws", "wss"}:
            raise HttpError(400, f"X-Forwarded-Proto is {scheme[:64]!r}, allowed are http, https, ws and wss")
        if scheme:
            ws.secure = scheme in {"https", "wss"}


def scheme_of(ws: WebSocket) -> str:
    """Return the scheme by which a client came: to a trusted proxy, if it says so, or here."""
    secure = ws.secure if ws.secure is not None else ws.extra("sslcontext") is not None
    return "https" if secure else "http"


def _network(proxy: str) -> IPNetwork:
    try:
        return parse_ip_network(proxy)
    except ValueError as error:
        raise ValueError(f"trusted_proxies has {proxy!r}, which is no address or network: {error}") from None


def _parse(entry: str) -> tuple[IPAddress, int]:
    """Return the address and the port (0 if none is told) of `1.2.3.4`, `1.2.3.4:5`, `::1` or `[::1]:5`."""
    host, port = entry, ""
    if entry.startswith("["):
        host, bracket, port = entry[1:].partition("]")
        # Without the bracket this is no address: parse_ip_address refuses the empty host.
        host, port = (host, port.removeprefix(":")) if bracket else ("", "")
    elif entry.count(":") == 1:
        host, _, port = entry.partition(":")
    try:
        if port and not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
            raise ValueError
        address = parse_ip_address(host)
        # Python takes anything for a zone (RFC 4007 section 11): it may be a line of a log, or a client's invention.
        zone = getattr(address, "scope_id", None)
        if zone is not None and not (len(zone) <= 15 and zone.isascii() and zone.replace("-", "").isalnum()):
            raise ValueError
        return address, int(port or 0)
    except ValueError:
        raise HttpError(400, f"X-Forwarded-For has {entry[:64]!r}, which is not an address") from None
