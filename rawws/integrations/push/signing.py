"""Signing: claims to tokens that services take (RFC 7515, RFC 7518), by `cryptography`.

ES256 is deterministic here (RFC 6979): instances that sign the same claims have the same token, without a word.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING, Any

from .messages import octets_of_base64url

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

__all__ = ["base64url", "private_key_of_p256", "private_key_of_rsa", "public_octets", "sign_es256", "sign_rs256"]

PEM = "-----BEGIN"


def base64url(octets: bytes) -> str:
    """Return base64url without padding."""
    return urlsafe_b64encode(octets).rstrip(b"=").decode("ascii")


def private_key_of_p256(text: str) -> EllipticCurvePrivateKey:
    """Return a private key of P-256: PEM, or its 32 octets in base64url. Raises ValueError for another."""
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - an extra

    if not text.lstrip().startswith(PEM):
        octets = octets_of_base64url(text.strip())
        if len(octets) != 32:
            raise ValueError("the key is none of P-256, needed is PEM, or 32 bytes in base64url")
        return ec.derive_private_key(int.from_bytes(octets, "big"), ec.SECP256R1())
    key = key_of_pem(text)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("the key is none of P-256, needed for ES256")  # noqa: TRY004 - it is what the text has
    return key


def private_key_of_rsa(text: str) -> RSAPrivateKey:
    """Return a private key of RSA, of PEM. Raises ValueError for another."""
    from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415 - an extra

    key = key_of_pem(text)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ValueError("the key is none of RSA, needed for RS256")  # noqa: TRY004 - it is what the text has
    return key


def key_of_pem(text: str) -> Any:
    """Return a private key. Raises ValueError, in which nothing of the key stands."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415 - an extra

    try:
        return load_pem_private_key(text.strip().encode() + b"\n", None)
    except Exception:  # noqa: BLE001 - the library has errors of its own, which may show what it read
        raise ValueError("the key is no PEM of a private key without a password") from None


def public_octets(key: EllipticCurvePrivateKey) -> bytes:
    """Return the public key of a private one, as 65 octets: a point, uncompressed."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415 - an extra

    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def sign_es256(header: dict[str, Any], claims: dict[str, Any], key: EllipticCurvePrivateKey) -> str:
    """Return a token that is signed with P-256 and SHA-256 (RFC 7518 section 3.4)."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - an extra
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA  # noqa: PLC0415 - as above
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature  # noqa: PLC0415 - as above
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415 - as above

    signed = signed_part({**header, "alg": "ES256"}, claims)
    try:
        algorithm = ECDSA(SHA256(), deterministic_signing=True)
    except UnsupportedAlgorithm:
        # An OpenSSL before 3.2: instances then have tokens of their own.
        algorithm = ECDSA(SHA256())
    numbers = decode_dss_signature(key.sign(signed.encode("ascii"), algorithm))
    return f"{signed}.{base64url(b''.join(number.to_bytes(32, 'big') for number in numbers))}"


def sign_rs256(header: dict[str, Any], claims: dict[str, Any], key: RSAPrivateKey) -> str:
    """Return a token that is signed with RSA and SHA-256 (RFC 7518 section 3.3)."""
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15  # noqa: PLC0415 - an extra
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415 - as above

    signed = signed_part({**header, "alg": "RS256"}, claims)
    return f"{signed}.{base64url(key.sign(signed.encode('ascii'), PKCS1v15(), SHA256()))}"


def signed_part(header: dict[str, Any], claims: dict[str, Any]) -> str:
    """Return what of a token is signed."""
    parts = (json.dumps(part, separators=(",", ":"), sort_keys=True).encode() for part in (header, claims))
    return ".".join(map(base64url, parts))
