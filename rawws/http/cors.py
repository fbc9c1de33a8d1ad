"""CORS: the page of another origin to the headers that let it ask and read (WHATWG Fetch section 3.3)."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, final

from rawws.errors import HttpError
from rawws.protocol.extensions import is_token
from rawws.protocol.handshake import check_origin, crosses_origins

if TYPE_CHECKING:
    from rawws.protocol.handshake import Origins
    from rawws.protocol.http11 import Headers, Request

__all__ = ["CrossOrigin", "preflight_fields", "preflight_method", "without_permission"]

# How long a browser may remember what a preflight allowed, in seconds: Chromium's limit is 7200, Firefox's 86400.
PREFLIGHT_AGE = 600
# RFC 9110 9.2.1: "Of the request methods defined by this specification, the GET, HEAD, OPTIONS, and TRACE methods are
# defined to be safe."
SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
VARY = (("Vary", "Origin"),)


@final
class CrossOrigin:
    """The origins that may read the responses of endpoints: those that are listed, with cookies, or all, without."""

    __slots__ = ("_all", "_listed", "_vary")

    def __init__(self, origins: Origins) -> None:
        listed = [origins] if isinstance(origins, str) else list(origins or ())
        self._all = "*" in listed
        self._listed = [origin for origin in listed if origin not in {"*", None}]
        self._vary = VARY if self._listed else ()

    def fields(self, request: Request, scheme: str) -> tuple[tuple[str, str], ...]:
        """Return the header fields that let the page of an allowed origin read the response (WHATWG Fetch 3.3).

        Raises HttpError with 403 for the page of another origin; same-origin pages, and what is no browser, need
        no permission, nor do images and links of other pages, for which browsers send no Origin: but what changes
        something does, where the browser tells by Sec-Fetch-Site alone whose page it is.
        """
        vary, headers = self._vary, request.headers
        if "Origin" not in headers and (request.method in SAFE or not crosses_origins(headers)):
            return vary
        host = headers.get("Host") or ""
        with contextlib.suppress(HttpError):
            check_origin(request, None, scheme, host)
            return vary
        try:
            origin = check_origin(request, [*self._listed, f"{scheme}://{host}"], "", "")
        except HttpError:
            if not self._all:
                raise
            return (("Access-Control-Allow-Origin", "*"), *vary)
        if origin is None:
            return vary
        return (*vary, ("Access-Control-Allow-Origin", origin), ("Access-Control-Allow-Credentials", "true"))

    def fields_of_refusal(self, request: Request, scheme: str) -> tuple[tuple[str, str], ...]:
        """Return the same for a response that no endpoint gives: the page of another origin may not read it."""
        try:
            return self.fields(request, scheme)
        except HttpError:
            return self._vary


def without_permission(fields: tuple[tuple[str, str], ...], headers: Headers) -> tuple[tuple[str, str], ...]:
    """Return those of these fields that stand beside the headers of a response which may grant access itself.

    WHATWG Fetch 4.10: of two Access-Control-Allow-Origin, none counts.
    """
    if "Access-Control-Allow-Origin" not in headers:
        return fields
    return tuple([field for field in fields if not field[0].startswith("Access-Control-")])


def preflight_method(request: Request) -> str:
    """Return the method that a browser asks for before a cross-origin request, "" if this is no such question."""
    if request.method != "OPTIONS" or "Origin" not in request.headers:
        return ""
    method = ", ".join(request.headers.get_all("Access-Control-Request-Method"))
    return method if is_token(method) else ""


def preflight_fields(headers: Headers, allowed: str) -> list[tuple[str, str]]:
    """Return what a browser is told before a cross-origin request: which of these methods its page may send, and how.

    Nothing for a request that is no preflight (WHATWG Fetch 3.3.6). Whether the origin is allowed is told beside it.
    """
    if "Origin" not in headers or "Access-Control-Request-Method" not in headers:
        return []
    fields = [("Access-Control-Allow-Methods", allowed)]
    fields += [("Access-Control-Allow-Headers", names) for names in headers.get_all("Access-Control-Request-Headers")]
    return [*fields, ("Access-Control-Max-Age", str(PREFLIGHT_AGE))]
