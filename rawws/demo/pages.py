"""Pages: a file beside this module to the response that a browser gets, which runs nothing but what is in the file."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import re

import rawws

__all__ = ["page_response"]


def page_response(name: str) -> rawws.Response:
    """Return the response with a page, whose one style and one script are allowed by their digests."""
    page = (importlib.resources.files(__package__) / name).read_bytes()
    headers = {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": (
            f"default-src 'none'; style-src {_digest(page, 'style')}; script-src {_digest(page, 'script')}; "
            "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
            "require-trusted-types-for 'script'"
        ),
        "Cache-Control": "no-cache",
        # Alone in its process, the page may read the clock in steps of 5 us; else in steps of 100.
        "Cross-Origin-Embedder-Policy": "require-corp",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return rawws.Response(200, page, headers)


def _digest(page: bytes, tag: str) -> str:
    """Return the CSP source that allows the page's own <style> or <script>, and no other."""
    [inline] = re.findall(rf"<{tag}>(.*?)</{tag}>".encode(), page, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(inline).digest()).decode()}'"
