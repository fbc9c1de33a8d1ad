"""Script: rawws.js to what browsers get of it: small, or not at all where they have it (docs/use/javascript.md)."""

from __future__ import annotations

import gzip
import hashlib
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from rawws.http.responses import Response

if TYPE_CHECKING:
    from rawws.http.requests import HttpRequest

__all__ = ["script"]

# rawws.js by a minifier, which a test holds equal.
SCRIPT = Path(__file__).parent / "js" / "rawws.min.js"


def script(asked: HttpRequest) -> Response:
    """Answer with rawws.js: small for browsers, or not at all for those that have it."""
    packed, plain, etag = module()
    # No URL is for ever: a browser asks each time whether there is a newer one, and is told by 304 that there is not.
    fields = {"ETag": etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding", "X-Content-Type-Options": "nosniff"}
    if etag in ",".join(asked.headers.get_all("If-None-Match")):
        return Response(304, headers=fields)
    body = plain
    if re.search(r"\bgzip\b(?!\s*;\s*q=0(?:\.0*)?\s*(?:,|$))", ",".join(asked.headers.get_all("Accept-Encoding"))):
        body = packed
        fields["Content-Encoding"] = "gzip"
    return Response(200, body, fields, "text/javascript; charset=utf-8")


@lru_cache(maxsize=1)
def module() -> tuple[bytes, bytes, str]:
    """Return what browsers get of rawws.js, compressed and not, and its entity tag."""
    plain = SCRIPT.read_bytes()
    return gzip.compress(plain, 9, mtime=0), plain, f'"{hashlib.sha256(plain).hexdigest()[:16]}"'
