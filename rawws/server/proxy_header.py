"""PROXY headers: the first octets of a connection to the client that a proxy speaks for (haproxy's proxy-protocol.txt).

Laws:
1. Of what follows the header nothing is read: it is TLS, or HTTP, of the client.
2. What is no header raises ProxyHeaderError, and nothing else; a header has at most MAX_HEADER_SIZE octets.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final, NamedTuple

from rawws.errors import RawwsError
from rawws.net.peer_addresses import parse_ip_address
from rawws.protocol.extensions import excerpt

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["MAX_HEADER_SIZE", "ProxiedClient", "ProxyHeaderError", "parse_header"]

# 2.2: "The binary header format starts with a constant 12 bytes block containing the protocol signature".
SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
# 2.1: "If the CRLF sequence is not found in the first 107 characters, the receiver should declare the line invalid."
MAX_LINE = 107
# What follows the first 16 octets of version 2: addresses take up to 216, and the rest tells of TLS, certificates and
# names. The length is up to 65,535, of which nobody has need.
MAX_HEADER_SIZE = 4096
# 2.2: "The highest four bits contains the version." "The lowest four bits represents the command".
LOCAL, PROXY = 0x20, 0x21
# 2.2, of the 14th octet: the families with the transports, and how much the addresses take. A receiver "automatically
# falls back to the UNSPEC mode for the valid combinations above that it does not support".
INET, INET6 = 0x11, 0x21
ADDRESSES: Final = {0x00: 0, INET: 12, 0x12: 12, INET6: 36, 0x22: 36, 0x31: 216, 0x32: 216}
# 2.2.5, of the TLV that tells of TLS: "the PP2_CLIENT_SSL flag indicates that the client connected over SSL/TLS".
PP2_TYPE_SSL, PP2_CLIENT_SSL = 0x20, 0x01


class ProxyHeaderError(RawwsError):
    """A connection does not begin with a PROXY header."""


class ProxiedClient(NamedTuple):
    """Who a proxy speaks for: None where that is the proxy itself, or unknown."""

    address: tuple[str, int] | None = None
    # Whether the client came to the proxy by TLS; None where that is not told.
    secure: bool | None = None


def parse_header() -> Generator[tuple[int, bool], bytes, ProxiedClient]:
    """Return who a header names. What is yielded is how many octets are needed, and whether fewer are taken, too.

    In the second case they are taken up to a line feed. Raises ProxyHeaderError for what is no header.
    """
    start = yield len(SIGNATURE), False
    if start == SIGNATURE:
        return (yield from parse_binary())
    if not start.startswith(b"PROXY "):
        raise ProxyHeaderError(f"it begins with {excerpt(start.decode('latin-1'))}, needed is a PROXY header")
    line = start
    while not line.endswith(b"\n"):
        if len(line) >= MAX_LINE:
            raise ProxyHeaderError(f"the PROXY header has no end within {MAX_LINE} octets")
        line += yield MAX_LINE - len(line), True
    return parse_line(line)


def parse_line(line: bytes) -> ProxiedClient:
    """Read version 1: `PROXY TCP4 192.0.2.1 192.0.2.2 50000 443`, and CR LF."""
    if not line.endswith(b"\r\n"):
        raise ProxyHeaderError("the line of the PROXY header does not end with CR LF")
    text = line[:-2].decode("latin-1")
    parts = text.split(" ")
    # 2.1: "the receiver must ignore anything presented before the CRLF is found".
    if parts[1] == "UNKNOWN":
        return ProxiedClient()
    try:
        if len(parts) != 6:
            raise ValueError
        kind = {"TCP4": ipaddress.IPv4Address, "TCP6": ipaddress.IPv6Address}[parts[1]]
        address, _, port, _ = kind(parts[2]), kind(parts[3]), parse_port(parts[4]), parse_port(parts[5])
        if getattr(address, "scope_id", None):
            raise ValueError
    except (KeyError, ValueError):
        raise ProxyHeaderError(f"the PROXY header is {excerpt(text)}, which names no client") from None
    return ProxiedClient((str(parse_ip_address(str(address))), port))


def parse_port(text: str) -> int:
    """Return a port in decimal. Raises ValueError."""
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535 and str(int(text)) == text):
        raise ValueError
    return int(text)


def parse_binary() -> Generator[tuple[int, bool], bytes, ProxiedClient]:
    """Read version 2, behind its signature."""
    command, family, *length = yield 4, False
    size = int.from_bytes(bytes(length), "big")
    if size > MAX_HEADER_SIZE:
        raise ProxyHeaderError(f"the PROXY header has {size} octets, limit {MAX_HEADER_SIZE}")
    rest = (yield size, False) if size else b""
    # 2.2: of LOCAL, "the receiver must accept this connection as valid and must use the real connection endpoints and
    # discard the protocol block including the family which is ignored".
    if command == LOCAL:
        return ProxiedClient()
    if command != PROXY:
        raise ProxyHeaderError(
            f"the PROXY header has the version and command {command:#04x}, allowed are 0x20 and 0x21"
        )
    if family not in ADDRESSES:
        raise ProxyHeaderError(f"the PROXY header has the family {family:#04x}, which there is not")
    if size < ADDRESSES[family]:
        raise ProxyHeaderError(f"the PROXY header has {size} octets, its addresses have {ADDRESSES[family]}")
    secure = find_tls(rest[ADDRESSES[family] :])
    if family == INET:
        return ProxiedClient((str(ipaddress.IPv4Address(rest[:4])), int.from_bytes(rest[8:10], "big")), secure)
    if family == INET6:
        address = parse_ip_address(str(ipaddress.IPv6Address(rest[:16])))
        return ProxiedClient((str(address), int.from_bytes(rest[32:34], "big")), secure)
    return ProxiedClient(None, secure)


def find_tls(fields: bytes) -> bool | None:
    """Return what the TLVs behind the addresses tell of TLS; all others are passed over."""
    secure = None
    while fields:
        size = int.from_bytes(fields[1:3], "big")
        if len(fields) < 3 + size:
            raise ProxyHeaderError("the last TLV of the PROXY header is longer than what is there")
        if fields[0] == PP2_TYPE_SSL and size and fields[3] & PP2_CLIENT_SSL:
            secure = True
        fields = fields[3 + size :]
    return secure
