"""APNs: what a phone gets, the token that all instances share, and which answers forget a device."""

from __future__ import annotations

import itertools
import time
from typing import Any

import jwt
import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from rawws.integrations.push import Apns, PushMessage, PushOutcome, PushSender
from tests.integrations.push_doubles import (
    APNS_KEY,
    KEY_ID,
    TEAM,
    TOKEN,
    TOPIC,
    apns_device,
    apns_key,
    apns_of,
    pem_of,
    push_double,
    rsa_key,
)

ALERT = PushMessage("Hello", "A body", {"url": "/chat"}, ttl=60, urgency="high", collapse="chat-7")


async def test_a_phone_gets_what_was_said_over_one_connection_of_http2() -> None:
    async with push_double() as (double, tls):
        async with PushSender(apns_of(double), tls=tls) as sender:
            sender.check(apns_device())
            before = int(time.time())
            for _ in range(3):
                assert await sender.deliver(apns_device(), ALERT) == PushOutcome("sent")
            assert double.server is not None
            assert double.server.stats().http2_connections == 1
        assert len(double.tokens) == 1
        pushed = double.pushed[0]
        assert pushed.device == TOKEN
        alert = {"alert": {"title": "Hello", "body": "A body"}, "sound": "default"}
        assert pushed.payload == {"aps": alert, "url": "/chat"}
        expected = {"apns-priority": "10", "apns-push-type": "alert", "apns-collapse-id": "chat-7", "apns-topic": TOPIC}
        assert {name: pushed.headers[name] for name in expected} == expected
        assert before + 60 <= int(pushed.headers["apns-expiration"]) <= time.time() + 60


async def test_a_message_without_a_text_wakes_the_application_and_is_kept_only_where_that_is_asked_for() -> None:
    async with push_double() as (double, tls):
        async with PushSender(apns_of(double), tls=tls) as sender:
            await sender.deliver(apns_device(), PushMessage(data={"id": "5"}, ttl=0, urgency="high"))
            await sender.deliver(apns_device(), PushMessage(body="low", urgency="low"))
            await sender.deliver(apns_device(), PushMessage(urgency="very-low"))
        silent, low, lowest = double.pushed
        assert silent.payload == {"aps": {"content-available": 1}, "id": "5"}
        assert silent.headers["apns-expiration"] == "0"
        assert silent.headers["apns-priority"] == "5"
        assert "apns-collapse-id" not in silent.headers
        assert low.payload["aps"]["alert"] == {"body": "low"}
        assert (low.headers["apns-priority"], lowest.headers["apns-priority"]) == ("5", "1")


# A status, a body, and what they mean.
ANSWERS: list[tuple[int, dict[str, Any], PushOutcome]] = [
    (410, {"reason": "Unregistered", "timestamp": 2_000_000}, PushOutcome("gone", "Unregistered")),
    (410, {"reason": "ExpiredToken"}, PushOutcome("gone", "ExpiredToken")),
    (
        410,
        {"reason": "Unregistered", "timestamp": 999_000},
        PushOutcome("refused", "Unregistered, and the device registered since"),
    ),
    (400, {"reason": "BadDeviceToken"}, PushOutcome("refused", "BadDeviceToken")),
    (400, {"reason": "DeviceTokenNotForTopic"}, PushOutcome("refused", "DeviceTokenNotForTopic")),
    (403, {"reason": "InvalidProviderToken"}, PushOutcome("refused", "InvalidProviderToken")),
    (403, {"reason": "ExpiredProviderToken"}, PushOutcome("again", "ExpiredProviderToken")),
    (413, {"reason": "PayloadTooLarge"}, PushOutcome("refused", "PayloadTooLarge")),
    (429, {"reason": "TooManyProviderTokenUpdates"}, PushOutcome("again", "TooManyProviderTokenUpdates", 7.0)),
    (429, {"reason": "TooManyRequests"}, PushOutcome("again", "TooManyRequests", 7.0)),
    (500, {"reason": "InternalServerError"}, PushOutcome("again", "InternalServerError", 7.0)),
    (503, {"reason": "<html> of a proxy"}, PushOutcome("again", "status 503", 7.0)),
    (404, {"reason": 5}, PushOutcome("refused", "status 404")),
]


async def test_an_answer_of_apple_is_understood() -> None:
    async with push_double() as (double, tls), PushSender(apns_of(double), tls=tls) as sender:
        for status, body, outcome in ANSWERS:
            double.answer(status, body, **({"retry_after": "7"} if outcome.wait else {}))
            assert await sender.deliver(apns_device(since=1000.0), ALERT) == outcome


def service(key: str = "", **options: Any) -> Apns:
    return Apns(key or apns_key(), **{"key_id": KEY_ID, "team_id": TEAM, "topic": TOPIC, **options})


def test_all_instances_have_one_token_which_is_never_an_hour_old() -> None:
    one, other = service(), service()
    seen = []
    for now in range(1_800_000_000, 1_800_040_000, 100):
        token = one.token(now + 0.5)
        assert token == other.token(now + 0.5)
        claims = jwt.decode(
            token, APNS_KEY.public_key(), algorithms=["ES256"], options={"verify_iat": False, "verify_exp": False}
        )
        assert 60 <= now + 0.5 - claims["iat"] < 3600
        if claims["iat"] not in seen:
            seen.append(claims["iat"])
    # "no more than once every 20 minutes".
    assert all(later - earlier == 3000 for earlier, later in itertools.pairwise(seen))


def test_with_an_openssl_that_has_no_deterministic_signatures_the_token_is_good_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = ec.ECDSA

    def old(algorithm: Any, deterministic_signing: bool = False) -> ec.ECDSA:
        if deterministic_signing:
            raise UnsupportedAlgorithm("this OpenSSL")
        return made(algorithm)

    monkeypatch.setattr(ec, "ECDSA", old)
    token = service().token(1_800_000_000.0)
    options: Any = {"verify_iat": False}
    assert jwt.decode(token, APNS_KEY.public_key(), algorithms=["ES256"], options=options)["iss"] == TEAM


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"key_id": "short"}, "key_id is 'short', allowed are 10 letters and digits"),
        ({"team_id": "TEAM12345é"}, "team_id is 'TEAM12345é'"),
        ({"topic": "a b"}, "topic is 'a b', allowed is the bundle id"),
        ({"key": pem_of(ec.generate_private_key(ec.SECP384R1()))}, "the key is none of P-256"),
    ],
)
def test_what_is_none_of_apple_is_refused_at_once(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        service(**options)


def test_a_key_of_rsa_is_none_of_apple() -> None:
    with pytest.raises(ValueError, match="the key is none of P-256"):
        service(pem_of(rsa_key()))
