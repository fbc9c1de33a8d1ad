"""Guard: a request to whether it may look, or do something: who asks, by what name, with what key, and for what page.

Laws:
1. Without a key, there are those on this machine and nobody else. What came over a proxy did not come from here.
2. With a key, all need it: on this machine are other users, and proxies.
3. No page of another site gets an answer or does anything, with a key or without, whatever its name leads to (DNS
   rebinding).
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final, final

from rawws.http.keys import MIN_KEY, TOKEN, BearerKeys
from rawws.http.responses import Response
from rawws.net.peer_addresses import parse_ip_address
from rawws.server.hosts import AllowedHosts

if TYPE_CHECKING:
    from rawws.http.requests import HttpRequest

__all__ = ["AccessGuard", "check_admin_key", "is_loopback_host"]

FORWARDED: Final = ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via")


@final
class AccessGuard:
    """Who may look."""

    __slots__ = ("_hosts", "_keys")

    def __init__(self, key: str | None) -> None:
        self._keys = None if key is None else BearerKeys([check_admin_key(key)])
        self._hosts = AllowedHosts(("localhost", "*.localhost"), any_address=True)

    def check(self, request: HttpRequest) -> Response | None:
        """Return the answer to who may not look; None where nothing is wrong. Raises HttpError for a wrong name."""
        return self._check_page(request) or (
            self._check_here(request) if self._keys is None else self._check_key(request, self._keys)
        )

    def check_action(self, request: HttpRequest) -> Response | None:
        """Return the answer to who may do nothing; None where nothing is wrong."""
        kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            # Nor can a form of a page send that, whatever the browser says of it.
            return problem(415, f"the Content-Type is {kind or 'missing'}, allowed is application/json")
        return self.check(request)

    def _check_page(self, request: HttpRequest) -> Response | None:
        """Refuse the pages of others. Programs send neither of the two fields, and browsers always the second one."""
        headers = request.headers
        site = headers.get("Sec-Fetch-Site", "none")
        if site not in {"same-origin", "none"}:
            return problem(403, f"a page of another site asks (Sec-Fetch-Site is {site[:32]!r})")
        origin = headers.get("Origin")
        if origin is not None and origin.partition("://")[2].lower() != headers.get("Host", "").lower():
            return problem(403, "a page of another site asks (Origin is not Host)")
        return None

    def _check_here(self, request: HttpRequest) -> Response | None:
        """Refuse who is not on this machine."""
        self._hosts.check(request.head)
        address = request.remote_address
        here = not isinstance(address, tuple) or is_loopback(address[0])
        if not here or any(name in request.headers for name in FORWARDED):
            return problem(403, "there is no key, so only this machine itself may look (see --admin-key-file)")
        return None

    def _check_key(self, request: HttpRequest, keys: BearerKeys) -> Response | None:
        """Refuse who has not the key."""
        if not keys.open_to(request.headers):
            # RFC 9110 15.5.2: "The server generating a 401 response MUST send a WWW-Authenticate header field".
            return problem(401, "needed is Authorization: Bearer, and the key", ("WWW-Authenticate", "Bearer"))
        return None


def problem(status: int, reason: str, *fields: tuple[str, str]) -> Response:
    """Return a refusal."""
    return Response.json({"error": reason}, status, [("Cache-Control", "no-store"), *fields])


def check_admin_key(key: str) -> str:
    """Return a key. Raises TypeError or ValueError for one that is easily guessed, or cannot stand in a header."""
    if not isinstance(key, str):
        raise TypeError(f"the key is {type(key).__name__}, allowed is str")
    if len(key) < MIN_KEY or not TOKEN.fullmatch(key):
        raise ValueError(
            f"the key has {len(key)} characters, allowed are {MIN_KEY} and more of A-Z, a-z, 0-9, '-', '.', '_', "
            "'~', '+' and '/': `openssl rand -hex 32` makes one"
        )
    return key


def is_loopback(address: str) -> bool:
    """Tell whether an address is one of this machine that no other can reach."""
    return parse_ip_address(address.partition("%")[0]).is_loopback


def is_loopback_host(host: str) -> bool:
    """Tell whether all addresses of a host are such. Raises OSError for a host that has none."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return all(is_loopback(str(address[0])) for *_, address in found)
