"""Remedies: what an engine says of its certificate, its room and its disk to one line that says what to do."""

from __future__ import annotations

import re
from typing import Final

from .tls import FILE_OPTIONS

__all__ = ["with_remedy"]

# What OpenSSL says by the mouth of Python's ssl, which each package quotes in its own words.
FAILED: Final = re.compile(r"\[SSL: (\w+)\] (?:certificate verify failed: )?(.*?)\.? \(_ssl\.c:\d+\)\.?")
# What is wrong with the certificate of the other side.
NAMES: Final = ("Hostname mismatch", "IP address mismatch")
TIMES: Final = ("expired", "not yet valid")
# By which alerts a server says that it wants to know its clients.
WANTED: Final = ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE", "UNKNOWN_CA", "BAD_CERTIFICATE")
# What is read where no TLS is spoken.
NO_TLS: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")
# A Redis says so in a paragraph.
MISCONF: Final = re.compile(r"MISCONF .*", re.DOTALL)
# What an engine says that takes nothing, or nothing more, in the order in which it is looked for.
FULL: Final = (
    (
        re.compile(r"command not allowed when used memory > 'maxmemory'"),
        "raise its maxmemory, or hold less by History(count=..., size=...)",
    ),
    (re.compile(r"cannot save its data"), "make room on its disk, or mend what its log says of that"),
    (
        re.compile(r"in a read-only transaction"),
        "turn default_transaction_read_only off, or name the primary in the URL",
    ),
    (
        re.compile(r"could not (?:extend|write to) file|No space left on device"),
        "make room on its disk, or hold less by History(total=...)",
    ),
    (re.compile(r"maximum (?:bytes|messages) (?:per subject )?exceeded"), "have the discard of its stream be old"),
    (
        re.compile(r"insufficient (?:storage )?resources|no space left on device"),
        "make room in its max_file_store and on its disk, or hold less by History(total=...)",
    ),
    (re.compile(r"\bKafkaStorage\b"), "make room on the disk of its broker, and start that again"),
)


def with_remedy(reason: str, options: tuple[str, str, str] = FILE_OPTIONS) -> str:
    """Return why an engine is away or refuses something, with what to do about it where that is known.

    `options` are the names that the engine's URL has for the file of the CA, of the certificate and of the key.
    """
    reason = MISCONF.sub("it takes no writes, for it cannot save its data (MISCONF)", reason)
    reason = FAILED.sub(lambda found: remedy_of(found[1], found[2], options) or found[0], reason)
    for said, remedy in FULL:
        if said.search(reason) and remedy not in reason:
            return f"{reason}: {remedy}"
    return reason


def remedy_of(code: str, said: str, options: tuple[str, str, str]) -> str:
    """Return what to do about what OpenSSL said, nothing for what is not known."""
    ca, certificate, key = options
    if code == "CERTIFICATE_VERIFY_FAILED":
        if said.startswith(NAMES):
            return f"its certificate is of another name ({said}): have the URL name the host as the certificate does"
        if said.endswith(TIMES):
            return f"its certificate is not good at this time ({said}): renew it, or set the clock right"
        return f"its certificate is not trusted ({said}): name the file of the CA that signed it, {ca}=FILE in the URL"
    if code.endswith(WANTED):
        return f"it wants another certificate of its clients ({said}): {certificate}=FILE and {key}=FILE in the URL"
    if code.endswith(NO_TLS):
        return f"no TLS is spoken there ({said}): name another port, or have the URL be without TLS"
    return ""
