"""Web Push: a message, encrypted for one browser, to a request that its push service takes (RFC 8030, 8291, 8292).

Laws:
1. An endpoint is a URL that a client gave: only the hosts of known push services are asked, by https alone.
2. Each message has a key and a salt of its own.
"""

from __future__ import annotations

import os
import re
import time
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final, final

from .messages import SENT, UNREGISTERED, PushOutcome, outcome_again, outcome_refused
from .requests import PushRequest, retry_wait
from .signing import base64url, private_key_of_p256, public_octets, sign_es256

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    from .messages import PushDevice, PushMessage
    from .requests import PushAnswer, PushClient

__all__ = ["PUSH_HOSTS", "WebPush", "encrypt_push", "new_vapid_key"]

# Chrome and its like, Firefox, Edge on Windows, Safari.
PUSH_HOSTS: Final = (
    "fcm.googleapis.com",
    "updates.push.services.mozilla.com",
    "*.notify.windows.com",
    "*.push.apple.com",
)
# What of a URL decides where it leads: nothing in it may be read in two ways.
ENDPOINT: Final = re.compile(r"https://([0-9a-z.-]{1,253}(?::[0-9]{1,5})?)/[!-~]*", re.ASCII)
# RFC 8292 section 2: "exp [...] MUST NOT be more than 24 hours from the time of the request". Half of it is used.
TOKEN_AGE, TOKEN_USE = 12 * 3600, 6 * 3600
# By the origin of the service: there is a host for each region.
MOST_TOKENS: Final = 1000
# RFC 8291 section 4: one record of 4,096 octets.
RECORD_SIZE: Final = 4096


def new_vapid_key() -> tuple[str, str]:
    """Return a new private key, for `WebPush`, and its public key, for `pushManager.subscribe` in the page."""
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - an extra

    key = ec.generate_private_key(ec.SECP256R1())
    return base64url(key.private_numbers().private_value.to_bytes(32, "big")), base64url(public_octets(key))


@final
class WebPush:
    """The push services of browsers: a service of a `PushSender`.

    `key` is the private VAPID key, PEM or base64url, whose public key the pages subscribe with. `subject` says whom a
    push service may ask: `mailto:` or `https:`. `hosts` are those that may be asked, `*` for any characters, with a
    port where it is another than 443. Raises ValueError for what is none of that.
    """

    name = "web"

    def __init__(self, key: str, *, subject: str, hosts: Iterable[str] = PUSH_HOSTS) -> None:
        if not re.fullmatch(r"(?:mailto:|https://)[!-~]{1,256}", subject, re.ASCII):
            raise ValueError(f"subject is {subject[:64]!r}, allowed are those of mailto: and https:// (RFC 8292)")
        self._key = private_key_of_p256(key)
        self._subject = subject
        self._hosts = tuple(hosts)
        # By the origin: the token, and until when it is used.
        self._tokens: dict[str, tuple[str, float]] = {}

    @property
    def public_key(self) -> str:
        """What pages subscribe with: `applicationServerKey`."""
        return base64url(public_octets(self._key))

    def check(self, device: PushDevice) -> None:
        """Raise ValueError for a device whose push service may not be asked, or for which nothing can be encrypted."""
        self._origin(device.token)
        encrypt_push(b"", device.octets_of("p256dh", 65), device.octets_of("auth", 16))

    def host_of(self, device: PushDevice) -> str:
        """Return who is asked for a device: each push service is one of its own."""
        found = ENDPOINT.fullmatch(device.token)
        return "" if found is None else found[1]

    async def request(self, device: PushDevice, message: PushMessage, left: float, client: PushClient) -> PushRequest:
        """Return the request that sends a message, which the service keeps for so many seconds. Raises ValueError."""
        del client
        origin = self._origin(device.token)
        headers = [
            ("Authorization", f"vapid t={self._token(origin, time.time())}, k={self.public_key}"),
            ("Content-Encoding", "aes128gcm"),
            ("Content-Type", "application/octet-stream"),
            ("TTL", str(int(left))),
            ("Urgency", message.urgency),
        ]
        if message.collapse:
            headers.append(("Topic", message.collapse))
        keys = device.octets_of("p256dh", 65), device.octets_of("auth", 16)
        return PushRequest(device.token, headers, encrypt_push(message.octets, *keys))

    def outcome(self, device: PushDevice, answer: PushAnswer) -> PushOutcome:
        """Return what an answer means (RFC 8030 section 5)."""
        del device
        if 200 <= answer.status < 300:
            return PushOutcome(SENT)
        if answer.status in {404, 410}:
            # RFC 8030 7.3: "A push service MUST return a 404 (Not Found) [...] if an application server attempts to
            # send a push message to an expired push message subscription."
            return PushOutcome(UNREGISTERED, f"status {answer.status}")
        if answer.status in {408, 429} or answer.status >= 500:
            return outcome_again(f"status {answer.status}", retry_wait(answer))
        return outcome_refused(f"status {answer.status}")

    def _origin(self, endpoint: str) -> str:
        """Return the origin of an endpoint. Raises ValueError for a host that may not be asked."""
        found = ENDPOINT.fullmatch(endpoint)
        if found is None or not any(fnmatchcase(found[1].removesuffix(":443"), host) for host in self._hosts):
            host = "" if found is None else f" is of {found[1][:64]!r}, and"
            raise ValueError(f"the endpoint{host} is none of a known push service: {', '.join(self._hosts)}")
        return f"https://{found[1].removesuffix(':443')}"

    def _token(self, origin: str, now: float) -> str:
        """Return the token for a push service, which is used for a while (RFC 8292 section 5)."""
        token, until = self._tokens.get(origin, ("", 0.0))
        if now >= until:
            claims = {"aud": origin, "exp": int(now) + TOKEN_AGE, "sub": self._subject}
            token = sign_es256({"typ": "JWT"}, claims, self._key)
            if len(self._tokens) >= MOST_TOKENS:
                self._tokens.clear()
            self._tokens[origin] = token, now + TOKEN_USE
        return token


def encrypt_push(
    plaintext: bytes,
    p256dh: bytes,
    auth: bytes,
    *,
    key: EllipticCurvePrivateKey | None = None,
    salt: bytes | None = None,
) -> bytes:
    """Return a message encrypted for a subscription (RFC 8291, RFC 8188).

    `key` and `salt` are for tests: each message has new ones. Raises ValueError for a `p256dh` that is no point.
    """
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - an extra
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - as above

    try:
        receiver = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), p256dh)
    except ValueError:
        raise ValueError("keys.p256dh is no point of P-256") from None
    key = ec.generate_private_key(ec.SECP256R1()) if key is None else key
    salt = os.urandom(16) if salt is None else salt
    sender = public_octets(key)
    # RFC 8291 section 3.4: "IKM = HKDF(auth_secret, ecdh_secret, key_info, 32)".
    secret = derive(key.exchange(ec.ECDH(), receiver), auth, b"WebPush: info\0" + p256dh + sender, 32)
    content_key = derive(secret, salt, b"Content-Encoding: aes128gcm\0", 16)
    nonce = derive(secret, salt, b"Content-Encoding: nonce\0", 12)
    head = salt + RECORD_SIZE.to_bytes(4, "big") + bytes([len(sender)]) + sender
    # RFC 8188 section 2: the last record ends in 2.
    return head + AESGCM(content_key).encrypt(nonce, plaintext + b"\x02", None)


def derive(secret: bytes, salt: bytes, info: bytes, size: int) -> bytes:
    """Return so many octets of HKDF with SHA-256 (RFC 5869)."""
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415 - an extra
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415 - as above

    return HKDF(SHA256(), size, salt, info).derive(secret)
