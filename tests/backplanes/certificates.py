"""Certificates for engines: a CA, what it signed for an engine on loopback and for its clients, and another CA."""

from __future__ import annotations

from pathlib import Path
from typing import Final, final

import trustme
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from tests.processes import LOOPBACK

__all__ = ["Certificates"]

NAMES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


@final
class Certificates:
    """Files in a folder; `both` has the key, as Java takes it, and the certificate."""

    def __init__(self, folder: Path) -> None:
        authority, other = trustme.CA(), trustme.CA()
        own = authority.issue_cert(LOOPBACK)
        self.ca, self.other = folder / "ca.pem", folder / "other.pem"
        self.certificate, self.key, self.both = folder / "own.pem", folder / "own.key", folder / "both.pem"
        authority.cert_pem.write_to_path(self.ca)
        other.cert_pem.write_to_path(self.other)
        chain = b"".join(each.bytes() for each in own.cert_chain_pems)
        key = load_pem_private_key(own.private_key_pem.bytes(), None)
        self.certificate.write_bytes(chain)
        self.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self.both.write_bytes(self.key.read_bytes() + chain)

    def query(self, ca: Path | None = None, *, client: bool = True) -> str:
        """Return what stands behind the `?` of a URL: this CA or another one, and the certificate of a client."""
        words = [ca or self.ca, *[self.certificate, self.key] * client]
        return "&".join(f"{name}={path}" for name, path in zip(NAMES, words, strict=False))
