"""TLS of engines: the files that a URL names to a TLS context, and what is wrong with a certificate to what to do.

The names of the options are those of the package `redis`, and the same in the URLs of all engines but PostgreSQL, whose
own names (`sslrootcert` and the like) asyncpg knows.
"""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from rawws.topics.backplane import BackplaneAway

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FILE_OPTIONS", "TlsFiles", "with_remedy"]

FILE_OPTIONS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
# What OpenSSL says by the mouth of Python's ssl, which each package quotes in its own words.
FAILED: Final = re.compile(r"\[SSL: (\w+)\] (?:certificate verify failed: )?(.*?)\.? \(_ssl\.c:\d+\)\.?")
# What is wrong with the certificate of the other side.
NAMES: Final = ("Hostname mismatch", "IP address mismatch")
TIMES: Final = ("expired", "not yet valid")
# By which alerts a server says that it wants to know its clients.
WANTED: Final = ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE", "UNKNOWN_CA", "BAD_CERTIFICATE")
# What is read where no TLS is spoken.
NO_TLS: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")


@final
class TlsFiles(NamedTuple):
    """Paths of the file of the CA that signed the engine's certificate, of an own certificate, and of its key.

    Each may be empty: the CAs of the system, no certificate, a key that stands in the file of the certificate.
    """

    ca: str = ""
    certificate: str = ""
    key: str = ""

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> TlsFiles:
        """Return the files that the options of a URL name."""
        return cls(*[str(options.get(name) or "") for name in FILE_OPTIONS])

    def check(self, password: str = "") -> None:
        """Raise ValueError for files that cannot be used."""
        try:
            self.context(password)
        except BackplaneAway as error:
            raise ValueError(str(error)) from None

    def context(self, password: str = "") -> ssl.SSLContext:
        """Read the files: where they were renewed, what is new. Raises BackplaneAway for those that cannot be used."""
        if self.key and not self.certificate:
            raise BackplaneAway("ssl_keyfile is named and ssl_certfile is not, needed are both")
        named = f"ssl_ca_certs={self.ca}"
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
            if self.certificate:
                named = f"ssl_certfile={self.certificate}" + (f" with ssl_keyfile={self.key}" if self.key else "")
                # Of a key that wants a password, OpenSSL would ask at the terminal.
                context.load_cert_chain(self.certificate, self.key or None, lambda: password)
        except OSError as error:
            raise BackplaneAway(f"{named} cannot be used: {error.strerror or error}") from None
        return context


def with_remedy(reason: str, options: tuple[str, str, str] = FILE_OPTIONS) -> str:
    """Return why an engine is away, with what to do about it where that is about TLS.

    `options` are the names that the engine's URL has for the file of the CA, of the certificate and of the key.
    """
    return FAILED.sub(lambda found: remedy_of(found[1], found[2], options) or found[0], reason)


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
