"""JWT: who has a good token is its user until it ends, and no forged one is taken for good."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Callable
from typing import Any, Final

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import rawws
from rawws.integrations.jwt import JwtIdentity
from rawws.topics import Hub
from tests.topics.dialogue import allow, client, served
from tests.topics.test_http import fetch

SECRET: Final = "s" * 32
PRIVATE: Final = rsa.generate_private_key(65537, 2048)
OTHER: Final = rsa.generate_private_key(65537, 2048)
PEM: Final = PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
V1 = "Sec-WebSocket-Protocol: rawws.v1"


class Asker:
    """A client that has a token."""

    def __init__(self, token: str) -> None:
        self.token = token


def of(identify: JwtIdentity, token: str) -> rawws.Identity | None:
    asker: Any = Asker(token)
    return identify(asker)


def claims(**more: Any) -> dict[str, Any]:
    return {"sub": "ann", "exp": int(time.time()) + 1000, **more}


def signed(key: Any = PRIVATE, algorithm: str = "RS256", **more: Any) -> str:
    return jwt.encode({name: value for name, value in claims(**more).items() if value is not None}, key, algorithm)


def raw(header: dict[str, Any], body: dict[str, Any], signature: bytes = b"") -> str:
    """A token of any header, as no library would make it."""
    parts = [json.dumps(each).encode() for each in (header, body)] + [signature]
    return ".".join(base64.urlsafe_b64encode(each).rstrip(b"=").decode() for each in parts)


def confused() -> str:
    """A token that is signed with the public key, as if that were a secret."""
    body = raw({"alg": "HS256", "typ": "JWT"}, claims()).rpartition(".")[0]
    signature = hmac.new(PEM, body.encode(), hashlib.sha256).digest()
    return f"{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


@pytest.fixture
def public() -> JwtIdentity:
    return JwtIdentity(PEM, algorithms=["RS256"])


def test_a_good_token_says_who_it_is_and_until_when(public: JwtIdentity) -> None:
    soon = int(time.time()) + 1000
    found = of(public, signed(exp=soon))
    assert found == rawws.Identity("ann", None, soon)
    named = JwtIdentity(
        {"one": PEM},
        algorithms=["RS256", "RS512"],
        audience="chat",
        issuer="https://id.example",
        user="name",
        info=lambda said: {"picture": said["picture"]},
        leeway=10,
    )
    more = {"aud": ["chat", "x"], "iss": "https://id.example", "name": "bob", "picture": "/b.png", "exp": soon}
    token = jwt.encode(claims(**more), PRIVATE, "RS512", headers={"kid": "one"})
    assert of(named, token) == rawws.Identity("bob", {"picture": "/b.png"}, soon + 10)
    for algorithm, key in (("HS256", SECRET), ("HS512", b"x" * 64)):
        assert of(JwtIdentity(key, algorithms=[algorithm]), signed(key, algorithm)) is not None
    curve = ec.generate_private_key(ec.SECP256R1())
    assert of(JwtIdentity(curve.public_key(), algorithms=["ES256"]), signed(curve, "ES256")) is not None


FORGED: Final[dict[str, Callable[[], str]]] = {
    "none": lambda: raw({"alg": "none", "typ": "JWT"}, claims()),
    "None": lambda: raw({"alg": "None"}, claims()),
    "no algorithm": lambda: raw({"typ": "JWT"}, claims()),
    "public key as secret": confused,
    "another key": lambda: signed(OTHER),
    "another algorithm of the key": lambda: signed(PRIVATE, "RS512"),
    "a secret": lambda: signed("s" * 64, "HS256"),
    "changed": lambda: signed()[:20] + "x" + signed()[21:],
    "other claims": lambda: ".".join([signed().split(".")[0], signed(sub="eve").split(".")[1], signed().split(".")[2]]),
    "no signature": lambda: signed().rpartition(".")[0] + ".",
    "expired": lambda: signed(exp=int(time.time()) - 1),
    "without an end": lambda: signed(exp=None),
    "an end that is none": lambda: raw({"alg": "RS256"}, claims(exp="x")),
    "not yet": lambda: signed(nbf=int(time.time()) + 1000),
    "without a user": lambda: signed(sub=None),
    "a user that is none": lambda: signed(sub=""),
    "for somebody else": lambda: signed(aud="bank"),
    "a key of its own": lambda: jwt.encode(claims(), OTHER, "RS256", headers={"jwk": {"kty": "RSA"}, "jku": "x:"}),
    "no token": lambda: "x.y.z",
    "long": lambda: "x" * 20000,
}


@pytest.mark.parametrize("kind", FORGED)
def test_no_forged_token_is_taken(public: JwtIdentity, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "rawws.topics"), pytest.raises(rawws.HttpError) as caught:
        of(public, FORGED[kind]())
    assert (caught.value.status, caught.value.reason) == (401, "the token is not valid")
    assert caught.value.headers == (("WWW-Authenticate", 'Bearer error="invalid_token"'),)
    assert "a token is refused: " in caplog.text


def test_audience_issuer_and_key_must_be_those_that_are_named() -> None:
    named = JwtIdentity({"one": PEM}, algorithms=["RS256"], audience="chat", issuer="me")
    good = {"aud": "chat", "iss": "me"}
    assert of(named, jwt.encode(claims(**good), PRIVATE, "RS256", headers={"kid": "one"})) is not None
    for wrong, kid in (
        ({"aud": "chat"}, "one"),
        ({"iss": "me"}, "one"),
        ({**good, "aud": "bank"}, "one"),
        ({**good, "iss": "you"}, "one"),
        (good, "two"),
        (good, None),
    ):
        headers = None if kid is None else {"kid": kid}
        with pytest.raises(rawws.HttpError, match="not valid"):
            of(named, jwt.encode(claims(**wrong), PRIVATE, "RS256", headers=headers))


def test_the_log_says_which_audience_and_issuer_are_allowed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rawws.topics")
    for (audience, issuer), told in (
        ((None, None), "Invalid audience, allowed is none, for none is set"),
        (("chat", None), "Audience doesn't match, allowed is 'chat'"),
        (("gateway", "me"), "Invalid issuer, allowed is 'me'"),
    ):
        tokens = JwtIdentity("s" * 32, algorithms=["HS256"], audience=audience, issuer=issuer)
        token = jwt.encode({**claims(), "aud": "gateway", "iss": "you"}, "s" * 32, "HS256")
        with pytest.raises(rawws.HttpError):
            tokens.claims(token)
        assert told in caplog.messages[-1]


def test_a_user_that_no_hub_can_have_and_info_that_is_too_much_are_refused() -> None:
    large = JwtIdentity(SECRET, algorithms=["HS256"], info=lambda said: said["x"])
    with pytest.raises(rawws.HttpError, match="not valid"):
        of(large, signed(SECRET, "HS256", x="y" * 2000))


def test_who_has_no_token_is_nobody_or_anybody(public: JwtIdentity) -> None:
    with pytest.raises(rawws.HttpError, match="a token is needed") as caught:
        of(public, "")
    assert caught.value.headers == (("WWW-Authenticate", "Bearer"),)
    assert of(JwtIdentity(SECRET, algorithms=["HS256"], anonymous=True), "") is None


@pytest.mark.parametrize(
    ("key", "algorithms", "reason"),
    [
        (SECRET, [], "algorithms are \\[\\], allowed are"),
        (SECRET, ["none"], "allowed are ES256"),
        (SECRET, ["HS256", "RS256"], "those of secrets or those of public keys"),
        ("short", ["HS256"], "the secret has 5 bytes, needed are 32 for HS256"),
        (SECRET, ["HS256", "HS512"], "needed are 64"),
        (PEM, ["HS256"], "the secret is a public key"),
        (SECRET, ["RS256"], "the key is none of RS256"),
        ({"one": PEM, "two": "x"}, ["RS256"], "the key is none of RS256"),
    ],
)
def test_a_mistake_is_said_when_it_is_made(key: Any, algorithms: list[str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        JwtIdentity(key, algorithms=algorithms)


def test_algorithms_are_a_list_and_leeway_is_small() -> None:
    with pytest.raises(TypeError, match="algorithms is str"):
        JwtIdentity(SECRET, algorithms="HS256")
    with pytest.raises(TypeError, match="the secret is int"):
        JwtIdentity(5, algorithms=["HS256"])
    with pytest.raises(ValueError, match="leeway is 301"):
        JwtIdentity(SECRET, algorithms=["HS256"], leeway=301)


async def test_a_hub_lets_in_who_has_a_token_and_lets_it_renew() -> None:
    hub = Hub(identify=JwtIdentity(SECRET, algorithms=["HS256"]), authorize=allow)
    async with served(hub) as server:
        token = signed(SECRET, "HS256")
        async with client(server, V1, f"Authorization: Bearer {token}") as ann:
            await ann.ask(id=1, subscribe="a")
            assert (await ann.ask(publish="a", data="x"))["user"] == "ann"
            assert (await ann.ask(id=2, renew=signed(SECRET, "HS256", exp=int(time.time()) + 5000)))["expires"] > 4000
            refused = {"id": 3, "error": "refused", "reason": "the token is not valid"}
            assert await ann.ask(id=3, renew=raw({"alg": "none"}, claims())) == refused
        async with client(server) as nobody:
            assert await nobody.peer.closed() == (4401, "a token is needed")
        assert (await fetch(server, f"/poll?topic=a&token={token}"))[0] == 200
