"""Hosts: the names by which a server is asked for, in Host (RFC 9110 sections 4.3 and 7.2).

The page of another site can have its own name lead to this machine (DNS rebinding). To the browser the page is then of
the same origin as this server, and so it is to `origins`: Origin and Host agree. What gives it away is the name itself.
So a server that listens on loopback addresses alone answers to the names of loopback; the option `hosts` names others.
An address is safe: there is no name that an attacker could lead elsewhere. So is a name without a dot,
which this machine and its network resolve: a domain that can be had has one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, final

from rawws.errors import HttpError
from rawws.net.peer_addresses import parse_ip_address
from rawws.protocol.extensions import excerpt

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rawws.net.peer_addresses import IPAddress
    from rawws.protocol.http11 import Request

__all__ = ["AllowedHosts", "check_hosts"]

# RFC 6761 6.3: names below "localhost." are resolved to loopback by browsers themselves.
LOOPBACK = ("localhost", "*.localhost")
# So many of them are remembered; a server has few names.
MAX_KNOWN = 64
NAME = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*", re.IGNORECASE)


@final
class AllowedHosts:
    """The names that are answered to: exact ones, `*.example.com` for all below one, addresses; whatever the port."""

    __slots__ = ("_any_address", "_below", "_known", "_names", "_text")

    def __init__(self, names: Iterable[str], *, any_address: bool = False) -> None:
        listed = [name.lower().removesuffix(".") for name in names]
        self._names = frozenset(_plain(name) for name in listed)
        self._below = tuple(name[1:] for name in listed if name.startswith("*."))
        self._any_address = any_address
        # What was allowed before, as it stood in Host: to read an address takes 8 us, a tenth of a handshake.
        self._known: set[str] = set()
        self._text = ", ".join(map(repr, listed)) + (", names without a dot and addresses" if any_address else "")

    @classmethod
    def of(cls, hosts: str | Sequence[str] | None) -> AllowedHosts | None:
        """Return what an option `hosts` allows, None for all."""
        names = [hosts] if isinstance(hosts, str) else hosts
        return None if names is None or "*" in names else cls(names)

    @classmethod
    def at(cls, sockets: Iterable[Any], host: str | Sequence[str] | None) -> AllowedHosts | None:
        """Return what is allowed where these sockets listen, which were bound to `host`; None for all."""
        addresses = [sock.getsockname() for sock in sockets]
        if not addresses or not all(map(_is_loopback, addresses)):
            return None
        bound = [host] if isinstance(host, str) else host or ()
        return cls(dict.fromkeys([*LOOPBACK, *(name for name in bound if NAME.fullmatch(name))]), any_address=True)

    def check(self, request: Request) -> None:
        """Raise HttpError with 421 for a request by another name. Without a Host (HTTP/1.0) it is by none."""
        host = "".join(request.headers.values_of("host"))
        if not host or host in self._known:
            # Every browser sends one.
            return
        name = host.partition("]")[0][1:] if host.startswith("[") else host.partition(":")[0]
        name = _plain(name.lower().removesuffix("."))
        if name in self._names or name.endswith(self._below) or (self._any_address and _is_local(name)):
            if len(self._known) < MAX_KNOWN:
                self._known.add(host)
            return
        # RFC 9110 15.5.20: 421 is for "a target URI that does not match an origin for which the server has been
        # configured". Django and Starlette answer 400 here, Vite and webpack 403; but the request is well-formed, and
        # nobody is forbidden anything.
        reason = f"Host is {excerpt(host)}, allowed are {self._text}: the option `hosts` names others"
        raise HttpError(421, reason)


def check_hosts(hosts: Any) -> None:
    """Raise TypeError or ValueError for what is not an option `hosts`."""
    if hosts is not None and not hasattr(hosts, "__iter__"):
        raise TypeError(f"hosts is {type(hosts).__name__}, allowed are a name, a list of them and None")
    if hosts is not None and not hosts:
        raise ValueError(f"hosts is {hosts!r}, allowed are at least one name, and None")
    for name in [hosts] if isinstance(hosts, str) else hosts or ():
        if not isinstance(name, str):
            raise TypeError(f"hosts has a {type(name).__name__}, allowed are str")
        if name != "*" and not NAME.fullmatch(name.removesuffix(".")) and _address(_plain(name)) is None:
            raise ValueError(f"hosts has {name[:64]!r}, allowed are names, *.names and addresses, without a port")


def _plain(name: str) -> str:
    """Return an address as it is compared: of IPv6 without brackets, in its shortest form."""
    address = _address(name[1:-1] if name.startswith("[") and name.endswith("]") else name)
    return name if address is None else str(address)


def _address(name: str) -> IPAddress | None:
    try:
        return parse_ip_address(name)
    except ValueError:
        return None


def _is_local(name: str) -> bool:
    """Tell whether no attacker can have this name: it is an address, or has no dot."""
    return "." not in name or _address(name) is not None


def _is_loopback(address: Any) -> bool:
    """Tell whether what `getsockname` returned is an address that other machines cannot reach."""
    if not isinstance(address, tuple):
        # A unix socket, which no browser can reach.
        return False
    found = _address(address[0].partition("%")[0])
    return found is not None and found.is_loopback
