"""Keys: the Authorization of a request to whether it has one of some secrets (RFC 6750)."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rawws.protocol.http11 import Headers

__all__ = ["MIN_KEY", "TOKEN", "BearerKeys"]

# RFC 6750 2.1: "b64token = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"=""
TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)
# A key is guessed at the speed of requests: of 16 random characters, none ever is.
MIN_KEY: Final = 16


@final
class BearerKeys:
    """Keys that were checked, of which a request needs one."""

    __slots__ = ("_digests",)

    def __init__(self, keys: Iterable[str]) -> None:
        # Of one length, whatever the keys are.
        self._digests = [digest(key) for key in keys]

    def __len__(self) -> int:
        return len(self._digests)

    def open_to(self, headers: Headers) -> bool:
        """Tell whether a request has a key, in a time that says nothing about them."""
        given = headers.get_all("Authorization")
        scheme, _, key = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        came = digest(key.strip() if scheme.lower() == "bearer" else "")
        # All are compared, and each in full.
        return sum([hmac.compare_digest(came, known) for known in self._digests]) > 0


def digest(key: str) -> bytes:
    """Return what stands for a key where it is compared."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
