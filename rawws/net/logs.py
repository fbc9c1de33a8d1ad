"""Logs: what others wrote, to what may stand in a log or an error: one line, not too long, and no secret.

Laws:
1. What a client chose can neither begin a line nor move a terminal's cursor.
2. A URL is shown without its user and password, and without a token: an error goes to a log, and a log to many.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from .peer_addresses import plain_peer

if TYPE_CHECKING:
    from rawws.protocol.http11 import Request

__all__ = ["LONGEST", "first_line", "printable", "request_line", "shown_address", "without_userinfo"]

# More of what a client wrote than so many characters makes logs large and tells nothing.
LONGEST = 200
# RFC 3986 3.2.1: "The user information, if present, is followed by a commercial at-sign ("@") that delimits it from the
# host." A password with a slash that was not encoded seems to end the authority: so where a colon stands before an "@",
# all up to the last "@" is hidden.
USERINFO = re.compile(
    r"^((?:[a-z][a-z0-9+.-]*:)?//|(?![a-z][a-z0-9+.-]*://))(?:[^@/?#:]*:.*|[^@/?#]*)@", re.IGNORECASE | re.DOTALL
)

# What opens doors to who reads it in a log: `?token=`, as rawws.js has it, `access_token` (RFC 6750 section 2.3), and
# those by which requests are signed.
SECRETS = re.compile(r"([?&](?:\w*token|auth_\w+|jwt|ticket|password|secret)=)[^&\s]+", re.IGNORECASE | re.ASCII)


def printable(text: str) -> str:
    """Return a text of a client as it may stand in a log: one line, nothing that a terminal obeys, and not too long."""
    if len(text) > LONGEST:
        text = text[:LONGEST] + "..."
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def without_userinfo(url: str) -> str:
    """Return a URL as it may be shown: `***` in the place of a user and a password.

    RFC 3986 3.2.1: "Applications should not render as clear text any data after the first colon (":") character found
    within a userinfo subcomponent". The user goes as well: some tokens stand there alone.
    """
    return USERINFO.sub(r"\1***@", url)


def without_tokens(line: str) -> str:
    """Return a request line as it may be shown: `***` in the place of tokens, signatures and passwords in its query."""
    return SECRETS.sub(r"\1***", line)


def shown_address(address: Any) -> str:
    """Return the address of a peer for a log; that of a unix socket's peer is mostly empty."""
    if isinstance(address, tuple):
        host, port = plain_peer(address)[:2]
        return printable(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    return printable(str(address or "unix"))


def first_line(head: bytes) -> str:
    """Return the request line of a head, or what came of it; "-" where nothing did."""
    return printable(without_tokens(head.partition(b"\r")[0].decode("latin-1"))) or "-"


def request_line(request: Request | None, head: bytes = b"") -> str:
    """Return the method and the target of a request, or those that came in this head; "-" where none came."""
    if request is not None:
        return printable(without_tokens(f"{request.method} {request.path}"))
    return " ".join(first_line(head).split(" ")[:2])
