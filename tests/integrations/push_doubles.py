"""Doubles of push services: one server of ours that is APNs, FCM and a browser's push service, as strict as they are.

`tests/integrations/test_push_oracles.py` has clients of those services push to it, which keeps it honest.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple, final

import jwt
import trustme
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

import rawws
from rawws.integrations.push import Apns, Fcm, PushDevice, WebPush, new_vapid_key
from rawws.integrations.push.signing import base64url
from tests.server.peers import host_and_port

__all__ = [
    "AUTHORITY",
    "KEY_ID",
    "TEAM",
    "TOKEN",
    "TOPIC",
    "Browser",
    "PushDouble",
    "account_file",
    "account_of",
    "apns_device",
    "apns_key",
    "apns_of",
    "fcm_device",
    "fcm_of",
    "pem_of",
    "push_double",
    "rsa_key",
    "web_of",
]

TEAM: Final = "TEAM123456"
KEY_ID: Final = "KEY1234567"
TOPIC: Final = "com.example.chat"
TOKEN: Final = "ab" * 32
PROJECT: Final = "chat-1234"
MAIL: Final = "push@chat-1234.iam.gserviceaccount.com"
AUTHORITY: Final = trustme.CA()
APNS_KEY: Final = ec.generate_private_key(ec.SECP256R1())


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    """Return the key of the service account, which takes a while to make."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def pem_of(key: Any) -> str:
    """Return the PEM of a private key."""
    octets: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return octets.decode()


def apns_key() -> str:
    """Return the text of a .p8 file."""
    return pem_of(APNS_KEY)


class Pushed(NamedTuple):
    """What a service took: for which device, and what the application on it gets, with the headers."""

    device: str
    payload: dict[str, Any]
    headers: dict[str, str]


@final
class Browser:
    """A browser that is subscribed: it decrypts as RFC 8291 has it."""

    def __init__(self, double: PushDouble, ident: str = "subscription-1") -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.auth = b"0123456789abcdef"
        self.endpoint = f"{double.url}/push/{ident}"
        double.browsers[ident] = self

    @property
    def keys(self) -> dict[str, str]:
        """What `PushSubscription.toJSON()` has as keys."""
        point = self.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return {"p256dh": base64url(point), "auth": base64url(self.auth)}

    @property
    def device(self) -> PushDevice:
        """The device as it registers."""
        return PushDevice("browser", "web", self.endpoint, "ann", keys=self.keys)

    def decrypt(self, body: bytes) -> bytes:
        """Return the plaintext of one record (RFC 8188)."""
        salt, size, length = body[:16], int.from_bytes(body[16:20], "big"), body[20]
        sender, record = body[21 : 21 + length], body[21 + length :]
        assert len(record) <= size
        mine = self.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), sender)
        info = b"WebPush: info\0" + mine + sender
        secret = HKDF(SHA256(), 32, self.auth, info).derive(self.key.exchange(ec.ECDH(), point))
        key = HKDF(SHA256(), 16, salt, b"Content-Encoding: aes128gcm\0").derive(secret)
        nonce = HKDF(SHA256(), 12, salt, b"Content-Encoding: nonce\0").derive(secret)
        padded = AESGCM(key).decrypt(nonce, record, None)
        plain, delimiter, padding = padded.rpartition(b"\x02")
        assert delimiter
        assert not padding.strip(b"\0")
        return plain


@final
class PushDouble:
    """The three services; `answers` are those of the next requests: a status, a body of JSON, and headers."""

    def __init__(self) -> None:
        self.pushed: list[Pushed] = []
        self.answers: deque[tuple[int, dict[str, Any], dict[str, str]]] = deque()
        self.requests = 0
        self.browsers: dict[str, Browser] = {}
        # Access tokens that were given, and what the next requests for one are answered.
        self.access: list[str] = []
        self.refusals: deque[tuple[int, dict[str, Any]]] = deque()
        self.lasts = 3600
        self.tokens: set[str] = set()
        self.hangs: asyncio.Event | None = None
        self.scheme = "https"
        self.port = 0
        self.server: rawws.Server | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{self.scheme}://localhost:{self.port}"

    @property
    def host(self) -> str:
        """How it is allowed as a push service."""
        return f"localhost:{self.port}"

    def answer(self, status: int, body: dict[str, Any] | None = None, **headers: str) -> None:
        """Have the next request be answered so."""
        self.answers.append((status, body or {}, {name.replace("_", "-"): value for name, value in headers.items()}))

    async def _told(self) -> rawws.Response | None:
        self.requests += 1
        if self.hangs is not None:
            await self.hangs.wait()
        if not self.answers:
            return None
        status, body, headers = self.answers.popleft()
        return rawws.Response(status, json.dumps(body), headers)

    async def apns(self, request: rawws.HttpRequest) -> rawws.Response:
        """POST /3/device/{token}: every answer has an id, that of the request where it has one."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        answer = await self._apns(request, headers)
        ident = {"apns-id": headers.get("apns-id", "5f5ac1b4-8fd8-4bf6-a3c8-6f4a8b4d8a1c")}
        return rawws.Response(answer.status, answer.body, {**dict(answer.headers.items()), **ident})

    async def _apns(self, request: rawws.HttpRequest, headers: dict[str, str]) -> rawws.Response:
        scheme, _, token = headers["authorization"].partition(" ")
        assert scheme == "bearer"
        claims = jwt.decode(token, APNS_KEY.public_key(), algorithms=["ES256"], options={"verify_iat": False})
        assert jwt.get_unverified_header(token)["kid"] == KEY_ID
        assert claims["iss"] == TEAM
        assert time.time() - 3600 < claims["iat"] <= time.time()
        self.tokens.add(token)
        told = await self._told()
        if told is not None:
            return told
        if not re.fullmatch("(?:[0-9a-f]{2}){32,100}", request.path_params["token"]):
            return rawws.Response.json({"reason": "BadDeviceToken"}, 400)
        if headers.get("apns-topic") != TOPIC:
            return rawws.Response.json({"reason": "DeviceTokenNotForTopic"}, 400)
        if len(request.body) > 4096:
            return rawws.Response.json({"reason": "PayloadTooLarge"}, 413)
        payload = request.json()
        silent = "alert" not in payload["aps"]
        assert headers.get("apns-push-type", "alert") == ("background" if silent else "alert")
        assert headers.get("apns-priority", "10") in ({"5", "1"} if silent else {"10", "5", "1"})
        assert int(headers.get("apns-expiration", "0")) >= 0
        assert len(headers.get("apns-collapse-id", "")) <= 64
        self.pushed.append(Pushed(request.path_params["token"], payload, headers))
        return rawws.Response(200)

    async def web(self, request: rawws.HttpRequest) -> rawws.Response:
        """POST to an endpoint (RFC 8030 section 5)."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        found = re.fullmatch(r"vapid t=([\w.-]+), ?k=([\w-]+)", headers["authorization"])
        assert found, headers["authorization"]
        point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), jwt.utils.base64url_decode(found[2]))
        claims = jwt.decode(found[1], point, algorithms=["ES256"], audience=self.url)
        # RFC 8292 section 2: "no more than 24 hours".
        assert claims["exp"] <= time.time() + 86400
        assert claims["sub"].startswith(("mailto:", "https:"))
        told = await self._told()
        if told is not None:
            return told
        assert headers["content-encoding"] == "aes128gcm"
        assert int(headers["ttl"]) >= 0
        assert headers.get("urgency", "normal") in {"very-low", "low", "normal", "high"}
        assert len(request.body) <= 4096
        ident = request.path_params["id"]
        browser = self.browsers.get(ident)
        if browser is None:
            return rawws.Response(404)
        self.pushed.append(Pushed(ident, json.loads(browser.decrypt(request.body)), headers))
        return rawws.Response(201, b"", {"Location": f"{self.url}/message/1"})

    async def token(self, request: rawws.HttpRequest) -> rawws.Response:
        """Give an access token for an assertion (RFC 7523)."""
        if self.refusals:
            status, body = self.refusals.popleft()
            return rawws.Response.json(body, status)
        fields = dict(pair.split("=") for pair in request.text().split("&"))
        assert fields["grant_type"] == "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer"
        claims = jwt.decode(
            fields["assertion"], rsa_key().public_key(), algorithms=["RS256"], audience=f"{self.url}/token"
        )
        assert claims["iss"] == MAIL
        assert claims["scope"] == "https://www.googleapis.com/auth/firebase.messaging"
        assert claims["exp"] - claims["iat"] <= 3600
        self.access.append(f"ya29.{len(self.access)}")
        return rawws.Response.json({"access_token": self.access[-1], "expires_in": self.lasts, "token_type": "Bearer"})

    async def fcm(self, request: rawws.HttpRequest) -> rawws.Response:
        """POST /v1/projects/{project}/messages:send."""
        assert request.path_params["project"] == PROJECT
        if request.headers["Authorization"] != f"Bearer {self.access[-1]}":
            return rawws.Response.json({"error": {"code": 401, "status": "UNAUTHENTICATED"}}, 401)
        told = await self._told()
        if told is not None:
            return told
        message = request.json()["message"]
        assert set(message) <= {"token", "notification", "data", "android", "apns", "webpush"}
        assert all(isinstance(value, str) for value in message["data"].values())
        assert re.fullmatch(r"[0-9]+s", message["android"]["ttl"])
        assert all(isinstance(value, str) for value in message["apns"]["headers"].values())
        self.pushed.append(Pushed(message["token"], message, dict(request.headers.items())))
        return rawws.Response.json({"name": f"projects/{PROJECT}/messages/1"})


@asynccontextmanager
async def push_double(*, plain: bool = False) -> AsyncIterator[tuple[PushDouble, ssl.SSLContext]]:
    """Run the services, `plain` without TLS; also give the TLS of those who trust them."""
    double = PushDouble()
    double.scheme = "http" if plain else "https"
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("localhost", "127.0.0.1").configure_cert(tls)
    trusting = ssl.create_default_context()
    AUTHORITY.configure_trust(trusting)
    routes = rawws.Routes(
        [
            rawws.Route("/3/device/{token}", double.apns, ["POST"]),
            rawws.Route("/push/{id}", double.web, ["POST"]),
            rawws.Route("/token", double.token, ["POST"]),
            rawws.Route("/v1/projects/{project}/messages:send", double.fcm, ["POST"]),
        ]
    )
    async with rawws.serve(routes, "127.0.0.1", 0, ssl=None if plain else tls) as server:
        double.port = host_and_port(server.sockets[0].getsockname())[1]
        double.server = server
        try:
            yield double, trusting
        finally:
            # Requests that it lets hang would hold up its end, and that of a test that fails.
            if double.hangs is not None:
                double.hangs.set()


def apns_of(double: PushDouble) -> Apns:
    """Return the service of Apple that the double is."""
    return Apns(apns_key(), key_id=KEY_ID, team_id=TEAM, topic=TOPIC, url=double.url)


def apns_device(token: str = TOKEN, **more: Any) -> PushDevice:
    """Return a phone of Apple."""
    return PushDevice("phone", "apns", token, "ann", **more)


def account_of(double: PushDouble) -> str:
    """Return the JSON of a service account."""
    return json.dumps(
        {
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": "1",
            "private_key": pem_of(rsa_key()),
            "client_email": MAIL,
            "token_uri": f"{double.url}/token",
        }
    )


def account_file(folder: Path, double: PushDouble) -> Path:
    """Write the file of a service account."""
    path = folder / "account.json"
    path.write_text(account_of(double))
    return path


def fcm_of(double: PushDouble) -> Fcm:
    """Return the service of Google that the double is."""
    return Fcm(account_of(double), url=double.url)


def fcm_device(token: str = "device:1") -> PushDevice:
    """Return a phone of Google."""
    return PushDevice("phone", "fcm", token, "ann")


def web_of(double: PushDouble) -> WebPush:
    """Return the push services that the double is among."""
    return WebPush(new_vapid_key()[0], subject="mailto:ops@example.com", hosts=["push.example.com", double.host])
