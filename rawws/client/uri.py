"""URIs: text to where it leads, for ws, wss, http and https (RFC 6455 section 3, RFC 3986)."""

from __future__ import annotations

import base64
import contextlib
import ipaddress
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from rawws.errors import InvalidURI
from rawws.net.logs import without_userinfo

if TYPE_CHECKING:
    from urllib.parse import SplitResult

__all__ = ["HTTP", "WS", "Target", "basic_authorization", "parse_uri", "split_uri"]

# The schemes of one kind of URI, of which the second is the one with TLS.
WS = ("ws", "wss")
HTTP = ("http", "https")


class Target(NamedTuple):
    """Where a URI leads: `authority` is the value of Host, `path` the request-target."""

    uri: str
    secure: bool
    host: str
    port: int
    authority: str
    path: str
    authorization: str | None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.shown}>"

    @property
    def shown(self) -> str:
        """The URI as a log may have it."""
        return without_userinfo(self.uri)

    @property
    def scheme(self) -> str:
        """The scheme of the URI."""
        return self.uri.partition(":")[0].lower()

    @property
    def origin(self) -> tuple[bool, str, int]:
        """What a secret for this server is bound to."""
        return self.secure, self.host, self.port


def parse_uri(uri: str, schemes: tuple[str, str] = WS) -> Target:
    """Take a ws or wss URI apart (RFC 6455 section 3), or one of other `schemes`. Raises InvalidURI."""
    parts, port = split_uri(uri, "URI")
    plain, tls = schemes
    if parts.scheme not in schemes:
        raise InvalidURI(f"the URI is {without_userinfo(uri)!r}, it must begin with {plain}:// or {tls}://")
    # RFC 6455 3: "Fragment identifiers are meaningless in the context of WebSocket URIs and MUST NOT be used on these
    # URIs."
    if "#" in uri:
        raise InvalidURI(f"the URI {without_userinfo(uri)!r} has a fragment, none is allowed")
    secure = parts.scheme == tls
    default = 443 if secure else 80
    host = _ascii_host(parts.hostname or "", uri)
    # A zone, as in fe80::1%eth0, has a meaning on this machine only.
    authority = f"[{host.partition('%')[0]}]" if ":" in host else host
    if port is not None and port != default:
        authority += f":{port}"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    path = "".join(character if character.isascii() else quote(character) for character in path)
    authorization = None if parts.username is None else basic_authorization(parts)
    return Target(uri, secure, host, default if port is None else port, authority, path, authorization)


def split_uri(uri: str, what: str) -> tuple[SplitResult, int | None]:
    """Split a URI; `urlsplit` alone would drop a line feed and say nothing."""
    shown = without_userinfo(uri)
    if any(character <= " " or character == "\x7f" for character in uri):
        raise InvalidURI(f"the {what} is {shown!r}, whitespace and control characters are not allowed")
    # What Python makes of a command line that is not UTF-8.
    if any("\ud800" <= character <= "\udfff" for character in uri):
        raise InvalidURI(f"the {what} is {shown!r}, it has lone surrogates, which are no text")
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError as error:
        # What it says may quote a piece of a password, which is hidden with the rest of it.
        why = f": {error}" if shown == uri else ", its host or its port is none"
        raise InvalidURI(f"the {what} is {shown!r}{why}") from None
    if not parts.hostname:
        raise InvalidURI(f"the {what} is {shown!r}, it has no host")
    return parts, port


def _ascii_host(host: str, uri: str) -> str:
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(host))
    try:
        return host if host.isascii() else host.encode("idna").decode()
    except UnicodeError as error:
        raise InvalidURI(f"the URI is {without_userinfo(uri)!r}, its host is no name: {error}") from None


def basic_authorization(parts: SplitResult) -> str:
    """Return the Authorization of a user name and a password in a URI (RFC 7617)."""
    pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode()
