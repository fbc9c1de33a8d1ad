"""TLS of engines: the files that a URL names to a TLS context.

The names of the options are those of the package `redis`, and the same in the URLs of all engines but PostgreSQL, whose
own names (`sslrootcert` and the like) asyncpg knows.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from rawws.topics.backplane import BackplaneAway

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FILE_OPTIONS", "TlsFiles"]

FILE_OPTIONS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


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
