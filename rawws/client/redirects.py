"""Redirects: from one URI to the next, with secrets for the origin that they are meant for (RFC 9110 section 15.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urljoin

from rawws.errors import InvalidStatus, InvalidURI, SecurityError
from rawws.net.logs import without_userinfo
from rawws.protocol.extensions import excerpt

from .uri import HTTP, WS, Target, parse_uri

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .dialing import TransportOptions
    from .options import ClientOptions

__all__ = ["added_headers", "follow_redirects"]

# As in websockets; browsers follow 20. Enough for every honest chain.
MAX_REDIRECTS = 10
REDIRECTS = frozenset((301, 302, 303, 307, 308))
T = TypeVar("T")


async def follow_redirects(
    first: Target, options: TransportOptions, attempt: Callable[[Target, TransportOptions], Awaitable[T]]
) -> T:
    """Return what an attempt gives, at the first target or where redirects lead.

    The attempt raises InvalidStatus for a redirect. Raises it where that leads nowhere, SecurityError where it leads
    from TLS to the open, or where there are too many.
    """
    target, refusal = first, None
    for _ in range(MAX_REDIRECTS + 1):
        # The name in the certificate is that of the first server.
        same = options if target.origin == first.origin else options._replace(server_hostname=None)
        try:
            return await attempt(target, same)
        except InvalidStatus as error:
            refusal, target = error, _redirected(target, options, error)
    status = 0 if refusal is None else refusal.status
    raise SecurityError(status, f"the server redirects over {MAX_REDIRECTS} times, the last to {target.shown!r}")


def _redirected(target: Target, options: TransportOptions, refusal: InvalidStatus) -> Target:
    """Return where a refusal sends the client, or raise it."""
    locations = refusal.response.headers.get_all("Location")
    if refusal.status not in REDIRECTS or len(locations) != 1:
        raise refusal
    schemes = WS if target.scheme in WS else HTTP
    # RFC 9110 10.2.2: a fragment may stand in Location, and is for the client.
    uri = urljoin(target.uri, locations[0]).partition("#")[0]
    # A server names its own scheme: http for ws, https for wss.
    for http, own in zip(HTTP, schemes, strict=True):
        if uri.startswith(f"{http}://"):
            uri = own + uri.removeprefix(http)
            break
    try:
        new = parse_uri(uri, schemes)
    except InvalidURI as error:
        raise InvalidStatus(refusal.response, f"the server redirects to {_shown(locations[0])}: {error}") from None
    if target.secure and not new.secure:
        where = f"from {target.scheme} to {_shown(uri)}, which is not secret"
        raise SecurityError(refusal.status, f"the server redirects {where}")
    if options.sock is not None or (options.path is not None and new.origin != target.origin):
        given = "sock" if options.sock is not None else "path"
        raise InvalidStatus(refusal.response, f"the server redirects to {_shown(uri)}, but {given} is given")
    if new.authorization is None and new.origin == target.origin:
        new = new._replace(authorization=target.authorization)
    return new


def _shown(uri: str) -> str:
    return excerpt(without_userinfo(uri))


def added_headers(target: Target, first: Target, options: ClientOptions) -> list[tuple[str, str]]:
    """Return the added headers of a request; what may be a secret goes to the origin that it is meant for."""
    # Not Authorization and Cookie alone: tokens have many names.
    headers = list(options.headers) if target.origin == first.origin else []
    names = {name.lower() for name, _ in headers}
    if target.authorization is not None and "authorization" not in names:
        headers = [("Authorization", target.authorization), *headers]
    if options.user_agent_header is not None and "user-agent" not in names:
        headers = [("User-Agent", options.user_agent_header), *headers]
    return headers
