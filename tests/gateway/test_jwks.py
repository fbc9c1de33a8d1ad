"""JWKS: keys at a URL, which come, change, fail to come, or are none that anybody should trust."""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

import rawws
from rawws import clock
from rawws.gateway import jwks, outgoing
from rawws.gateway.jwks import KeySet, verifiers_in
from rawws.gateway.loading import read_config
from rawws.gateway.outgoing import Outgoing
from rawws.integrations.jwt import JwtIdentity
from tests.gateway.backends import BAD_BACKENDS, Backend, backend, bad_backend
from tests.gateway.own_running import EVERYTHING, http, own, signed
from tests.gateway.running import APP, app_file, gateway
from tests.server.peers import eventually

ONE, OTHER = (rsa.generate_private_key(65537, 2048) for _ in range(2))
ALL: Final = ("RS256", "PS256", "ES256", "EdDSA")


def public(key: Any, kid: str | None = "one", **more: Any) -> dict[str, Any]:
    """Return the public part of a key, as a set has it."""
    algorithm: Any = jwt.algorithms.RSAAlgorithm
    if isinstance(key, ec.EllipticCurvePrivateKey):
        algorithm = jwt.algorithms.ECAlgorithm
    elif isinstance(key, ed25519.Ed25519PrivateKey):
        algorithm = jwt.algorithms.OKPAlgorithm
    found: dict[str, Any] = algorithm.to_jwk(key.public_key(), as_dict=True)
    # What it says of its use, a provider says otherwise.
    found.pop("key_ops", None)
    return {**found, **({} if kid is None else {"kid": kid}), **more}


def token_of(user: str, key: Any = ONE, kid: str | None = "one", algorithm: str = "RS256", **claims: Any) -> str:
    headers = {} if kid is None else {"kid": kid}
    return signed(user, key, algorithm=algorithm, headers=headers, caps=EVERYTHING, **claims)


def make(key: Any, algorithms: list[str]) -> JwtIdentity:
    return JwtIdentity(key, algorithms=algorithms)


def jwks_file(url: str, more: str = "") -> str:
    return app_file(f'jwt = {{ algorithms = ["RS256", "ES256"], jwks = "{url}?token=hidden"{more} }}')


@asynccontextmanager
async def provider(*keys: dict[str, Any]) -> AsyncIterator[Backend]:
    """Run a provider; its `answer` may be changed."""
    async with backend(lambda _: rawws.Response.json({"keys": keys})) as running:
        yield running


def has(*keys: dict[str, Any]) -> Any:
    return lambda _: rawws.Response.json({"keys": keys})


class Clock:
    """A time that stands still until it is turned."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # A whole number: what is added to it is what is found between two times.
        self.now = float(math.ceil(clock.monotonic()))
        monkeypatch.setattr(clock, "monotonic", lambda: self.now)


@pytest.fixture(autouse=True)
def no_connection_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider whose clock jumps ends those that wait for another request."""
    monkeypatch.setattr(outgoing, "KEEP_ALIVE", 0.0)


# -- through a gateway


async def test_a_token_is_verified_by_the_key_of_its_kid() -> None:
    curve = ec.generate_private_key(ec.SECP256R1())
    async with provider(public(ONE), public(curve, "two")) as asked, gateway(jwks_file(asked.url)) as running:
        async with http(running.port) as client:
            for token in (token_of("ann"), token_of("ann", curve, "two", "ES256")):
                async with own(running.port, token) as ann:
                    assert "cursor" in await ann.ask(subscribe="room")
                    assert "expires" in await ann.ask(renew=token)
                answer = await client.get(f"/connect/{APP}", params={"topic": "room", "token": token, "timeout": 0})
                assert answer.status_code in {200, 204}
        # Before the first client came.
        assert len(asked.requests) == 1
        assert asked.requests[0].headers["Accept"] == "application/jwk-set+json, application/json"


async def test_who_has_no_good_token_is_refused_and_no_token_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = {
        "another key": token_of("eve", OTHER),
        "unknown kid": token_of("eve", OTHER, "two"),
        "no kid": token_of("eve", ONE, None),
        "algorithm of another": token_of("eve", algorithm="RS384"),
        "a public key as a secret": signed("eve", "x" * 64, headers={"kid": "one"}),
        "long kid": token_of("eve", kid="k" * 256),
        "long": "x" * 16385,
        "expired": token_of("eve", exp=1),
        "none": jwt.encode({"sub": "eve", "exp": 1 << 33}, "", "none", {"kid": "one"}),
        "no token": "x.y.z",
        "number": "eyJhbGciOiJSUzI1NiIsImtpZCI6MX0.e30.x",
    }
    async with provider(public(ONE), public(OTHER, "other")) as asked, gateway(jwks_file(asked.url)) as running:
        async with http(running.port) as client:
            for kind, token in wrong.items():
                if len(token) < 8000:
                    answer = await client.get(f"/connect/{APP}", params={"topic": "room", "token": token})
                    assert (answer.status_code, answer.json()["reason"]) == (401, "the token is not valid"), kind
            answer = await client.get(f"/connect/{APP}", params={"topic": "room"})
            assert (answer.status_code, answer.json()["reason"]) == (401, "a token is needed")
            async with own(running.port, token_of("ann")) as ann:
                for kind, token in wrong.items():
                    assert (await ann.ask(renew=token))["error"] == "refused", kind
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("rawws")]
    assert not any(token in line for line in ours for token in wrong.values())


async def test_while_the_keys_cannot_be_had_nobody_comes_in_and_nothing_secret_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    time = Clock(monkeypatch)
    async with provider() as asked, gateway(jwks_file(asked.url)) as running:
        await eventually(lambda: bool(caplog.records))
        query = {"topic": "room", "token": token_of("ann"), "timeout": "0"}
        async with http(running.port) as client:
            answer = await client.get(f"/connect/{APP}", params=query)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
        assert answer.json()["reason"] == "the keys of tokens cannot be had at this time"
        async with own(running.port, token_of("ann")) as ann:
            assert (await ann.ended())[0] == 1013
        asked.answer = has(public(ONE))
        time.now += jwks.AGAIN
        async with http(running.port) as client:
            assert (await client.get(f"/connect/{APP}", params=query)).status_code == 200
    [line] = [record.getMessage() for record in caplog.records if record.name == "rawws.gateway"]
    assert line == f"the keys at {asked.url} cannot be had: there is no key for RS256, ES256"
    caplog.clear()


async def test_a_file_that_is_read_again_keeps_the_keys_where_the_url_is_the_same() -> None:
    async with provider(public(ONE)) as asked, gateway(jwks_file(asked.url)) as running:
        async with own(running.port, token_of("ann")) as ann:
            assert "cursor" in await ann.ask(subscribe="room")
        running.gateway.reload(read_config(jwks_file(asked.url) + "limits = { channels = 5 }"))
        async with own(running.port, token_of("ann")) as ann:
            assert "cursor" in await ann.ask(subscribe="room")
        assert len(asked.requests) == 1
        asked.answer = has(public(OTHER, "two"))
        running.gateway.reload(read_config(jwks_file(asked.url, ", jwks_age = 60")))
        async with own(running.port, token_of("ann", OTHER, "two")) as ann:
            assert "cursor" in await ann.ask(subscribe="room")
        async with own(running.port, token_of("ann")) as ann:
            assert (await ann.ended())[0] == 4401
        assert len(asked.requests) == 2


async def test_a_gateway_that_ends_while_keys_are_fetched_leaves_nothing_behind() -> None:
    answer, _ = BAD_BACKENDS["hangs"]
    async with bad_backend(answer) as bad, gateway(jwks_file(bad.url)) as running:
        await bad.connected.wait()
        running.gateway.reload(read_config(app_file()))


# -- the set


@asynccontextmanager
async def key_set(url: str, *, age: float = 600.0) -> AsyncIterator[KeySet]:
    calls = Outgoing()
    found = KeySet(url, ("RS256",), age, make, lambda: calls)
    try:
        yield found
    finally:
        await found.close()
        await calls.close()


async def user_of(keys: KeySet, token: str) -> str:
    """Return who a token is of. Raises HttpError."""
    found = keys.verifier_of(token)
    verifier = found if isinstance(found, JwtIdentity) else await found
    return str(verifier.claims(token)["sub"])


async def status_of(keys: KeySet, token: str) -> int:
    try:
        await user_of(keys, token)
    except rawws.HttpError as error:
        return error.status
    return 200


async def test_keys_change_without_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Clock(monkeypatch)
    async with provider(public(ONE)) as asked, key_set(asked.url) as keys:
        assert await user_of(keys, token_of("ann")) == "ann"
        # A new one is found by its first token, the old one is gone with the set that it is not in.
        asked.answer = has(public(ONE), public(OTHER, "two"))
        time.now += jwks.AGAIN
        assert await user_of(keys, token_of("bob", OTHER, "two")) == "bob"
        assert await user_of(keys, token_of("ann")) == "ann"
        asked.answer = has(public(OTHER, "two"))
        time.now += 601
        # Nobody waits for keys that are fetched again.
        assert isinstance(keys.verifier_of(token_of("ann")), JwtIdentity)
        await eventually(lambda: keys._task is None)
        assert await status_of(keys, token_of("ann")) == 401
        assert await status_of(keys, token_of("bob", OTHER, "two")) == 200
        assert len(asked.requests) == 3


async def test_a_token_need_not_name_the_one_key_that_there_is() -> None:
    async with provider(public(ONE, None)) as asked, key_set(asked.url) as keys:
        assert await status_of(keys, token_of("ann", kid=None)) == 200
        assert await status_of(keys, token_of("ann", kid="one")) == 401
        assert await status_of(keys, token_of("ann", OTHER, None)) == 401


async def test_a_flood_of_unknown_kids_asks_the_url_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Clock(monkeypatch)
    async with provider(public(ONE)) as asked, key_set(asked.url) as keys:
        flood = [token_of("eve", OTHER, f"{each}") for each in range(20)]
        for number in range(1, 4):
            assert set(await asyncio.gather(*[status_of(keys, token) for token in flood])) == {401}
            assert await status_of(keys, token_of("ann")) == 200
            assert len(asked.requests) == number
            time.now += jwks.AGAIN


async def test_where_the_url_fails_the_keys_of_before_are_good_for_a_while(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    time = Clock(monkeypatch)
    async with provider(public(ONE)) as asked, key_set(asked.url) as keys:
        assert await status_of(keys, token_of("ann")) == 200
        asked.answer = lambda _: rawws.Response(500)
        time.now += 600 + jwks.GRACE
        assert await status_of(keys, token_of("ann")) == 200
        await eventually(lambda: keys._task is None)
        time.now += 1
        assert await status_of(keys, token_of("ann")) == 503
        time.now += jwks.AGAIN
        assert await status_of(keys, token_of("ann")) == 503
        asked.answer = has(public(ONE))
        time.now += jwks.AGAIN
        assert await status_of(keys, token_of("ann")) == 200
    assert [record.getMessage() for record in caplog.records if record.name == "rawws.gateway"] == [
        f"the keys at {asked.url} cannot be had: the answer has the status 500, needed is 200"
    ] * 2
    caplog.clear()


@pytest.mark.parametrize("kind", ["resets", "endless body", "half", "no HTTP", "bomb"])
async def test_a_provider_that_answers_badly_is_told_in_the_log(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    async with bad_backend(BAD_BACKENDS[kind][0]) as bad, key_set(bad.url) as keys:
        assert await status_of(keys, token_of("ann")) == 503
    [line] = [record.getMessage() for record in caplog.records if record.name == "rawws.gateway"]
    assert line.startswith(f"the keys at {bad.url} cannot be had: the ")
    caplog.clear()


# -- the keys


def test_each_key_is_good_for_the_algorithms_that_it_is_made_for() -> None:
    curve, edwards = ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()
    keys = [
        public(ONE, "any"),
        public(ONE, "narrow", alg="PS256", use="sig", key_ops=["verify"]),
        public(curve, "curve"),
        public(edwards, "edwards"),
        # For something else, or nothing of ours.
        public(ONE, "encryption", use="enc"),
        public(ONE, "operations", key_ops=["encrypt"]),
        public(ONE, "other algorithm", alg="RS512"),
        public(ec.generate_private_key(ec.SECP384R1()), "other curve"),
        {"kty": "new", "kid": "unknown"},
    ]
    found, wrong = verifiers_in(json.dumps({"keys": keys}).encode(), ALL, make)
    assert wrong == []
    good = {
        kid: [
            algorithm
            for algorithm, key in (("RS256", ONE), ("PS256", ONE), ("ES256", curve), ("EdDSA", edwards))
            if is_good(verifier, signed("ann", key, algorithm=algorithm))
        ]
        for kid, verifier in found.items()
    }
    assert good == {"any": ["RS256", "PS256"], "narrow": ["PS256"], "curve": ["ES256"], "edwards": ["EdDSA"]}


def is_good(verifier: JwtIdentity, token: str) -> bool:
    try:
        verifier.claims(token)
    except rawws.HttpError:
        return False
    return True


def private(key: rsa.RSAPrivateKey) -> dict[str, Any]:
    return dict(jwt.algorithms.RSAAlgorithm.to_jwk(key, as_dict=True), kid="private")


SECRET_PART: Final = "it is secret, or has a secret part, and whoever reads it could sign"


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (private(ONE), SECRET_PART),
        ({"kty": "oct", "k": "c2VjcmV0", "kid": "a"}, SECRET_PART),
        ({"kty": "oct", "kid": "a"}, SECRET_PART),
        ("key", "it is no object"),
        ({**public(ONE), "kid": 7}, "its kid is no text of up to 255 characters"),
        (public(ONE, "k" * 256), "its kid is no text of up to 255 characters"),
        (public(ONE, "good"), "another one has its kid"),
        ({"kty": "RSA", "kid": "a", "alg": "RS256", "n": "secretive", "e": "?"}, "it is none of RS256"),
        (public(ec.generate_private_key(ec.SECP384R1()), "a", alg="ES256"), "it is none of ES256"),
        (public(rsa.generate_private_key(65537, 1024), "a"), "it has 1024 bits, allowed are 2048 to 8192"),
    ],
)
def test_a_bad_key_is_refused_with_its_reason_and_no_word_of_it(key: Any, reason: str) -> None:
    body = json.dumps({"keys": [public(ONE, "good"), key]}).encode()
    found, wrong = verifiers_in(body, ALL, make)
    assert (list(found), wrong) == (["good"], [f"keys[1]: {reason}"])
    if reason != "another one has its kid":
        with pytest.raises(ValueError, match=r"there is no key for RS256, PS256, ES256, EdDSA; keys\[0\]: ") as told:
            verifiers_in(json.dumps({"keys": [key]}).encode(), ALL, make)
        assert str(told.value).endswith(reason)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"{}", b'{"keys": {}}', b"[" * 100_000, b"\xff", json.dumps({"keys": [{}] * 101}).encode()],
)
def test_what_is_no_set_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"the answer is (not JSON|no object with keys, a list of up to 100)"):
        verifiers_in(body, ALL, make)


async def test_a_bad_key_beside_a_good_one_stands_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async with provider(public(ONE), private(OTHER)) as asked, key_set(f"{asked.url}?token=hidden") as keys:
        assert await status_of(keys, token_of("ann")) == 200
    lines = [record.getMessage() for record in caplog.records if record.name == "rawws.gateway"]
    assert lines == [f"a key at {asked.url} is refused: keys[1]: {SECRET_PART}"]
    caplog.clear()
