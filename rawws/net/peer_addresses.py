"""Peer addresses: an address as it was written to the address that is compared, counted and shown.

Law: an IPv4 address is one address. A socket for both versions writes that of an IPv4 peer as `::ffff:192.0.2.1`
(RFC 4291 section 2.5.5.2: an "IPv4-mapped IPv6 address"); whoever compares or counts takes it from here.
"""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from typing import Any, Final

__all__ = ["IPAddress", "IPNetwork", "network_of", "parse_ip_address", "parse_ip_network", "plain_peer"]

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

# RFC 4291 2.5.5.2: 80 bits of zeros, 16 of ones, and the IPv4 address. So sockets write the first 96.
MAPPED: Final = "::ffff:"
MAPPED_BITS: Final = 96


def parse_ip_address(host: str) -> IPAddress:
    """Return the address that is written so, an IPv4 one where that is mapped. Raises ValueError for none."""
    found = ipaddress.ip_address(host)
    return getattr(found, "ipv4_mapped", None) or found


def parse_ip_network(text: str, *, strict: bool = True) -> IPNetwork:
    """Return the network that is written so, an IPv4 one where all of it is mapped. Raises ValueError for none.

    An address is a network of one; with `strict`, no bit may be set behind the prefix.
    """
    found = ipaddress.ip_network(text, strict=strict)
    mapped = getattr(found.network_address, "ipv4_mapped", None)
    if mapped is None or found.prefixlen < MAPPED_BITS:
        return found
    return ipaddress.ip_network((mapped, found.prefixlen - MAPPED_BITS))


def plain_peer(address: Any) -> Any:
    """Return an address of a socket; `("192.0.2.1", 50000)` where it is mapped."""
    if isinstance(address, tuple) and address[0].startswith(MAPPED):
        with suppress(ValueError):
            host = parse_ip_address(address[0])
            return (str(host), address[1]) if host.version == 4 else address
    return address


def network_of(address: Any) -> str | None:
    """Return whose address it is: an IPv4 address, or the /64 that one subscriber has of IPv6; None for a unix socket.

    A subscriber of IPv6 has 2**64 addresses, and would be as many.
    """
    if not isinstance(address, tuple):
        return None
    found = parse_ip_address(address[0])
    return str(found if found.version == 4 else ipaddress.ip_network((found, 64), strict=False))
