"""FCM: what a phone gets, the access token that is asked for once, and which answers forget a device."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from rawws.integrations.push import Fcm, PushMessage, PushOutcome, PushSender
from rawws.integrations.push import fcm as module
from tests.integrations.push_doubles import account_of, fcm_device, fcm_of, pem_of, push_double

ALERT = PushMessage("Hello", "A body", {"url": "/chat"}, ttl=60.9, urgency="high", collapse="chat-7")


async def test_a_phone_gets_what_was_said_and_one_access_token_is_asked_for() -> None:
    async with push_double() as (double, tls):
        async with PushSender(fcm_of(double), tls=tls) as sender:
            sender.check(fcm_device())
            found = await asyncio.gather(*(sender.deliver(fcm_device(), ALERT) for _ in range(5)))
            assert found == [PushOutcome("sent")] * 5
            await sender.deliver(fcm_device("other"), PushMessage(data={"id": "5"}))
        assert double.access == ["ya29.0"]
        message = double.pushed[0].payload
        assert message["token"] == "device:1"
        assert message["notification"] == {"title": "Hello", "body": "A body"}
        assert message["data"] == {"url": "/chat"}
        assert message["android"] == {"priority": "HIGH", "ttl": "60s", "collapse_key": "chat-7"}
        assert message["apns"]["headers"]["apns-collapse-id"] == "chat-7"
        silent = double.pushed[5].payload
        assert "notification" not in silent
        assert silent["android"] == {"priority": "NORMAL", "ttl": "86400s"}
        assert silent["apns"]["payload"] == {"aps": {"content-available": 1}}


def error(code: str, status: str = "X") -> dict[str, Any]:
    kind = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
    return {"error": {"status": status, "details": [5, {"@type": "other"}, {"@type": kind, "errorCode": code}]}}


# A status, a body, and what they mean.
ANSWERS: list[tuple[int, dict[str, Any], PushOutcome]] = [
    (404, error("UNREGISTERED", "NOT_FOUND"), PushOutcome("gone", "UNREGISTERED")),
    # Such as that of a project that there is not: it says nothing of the device.
    (404, {"error": {"status": "NOT_FOUND"}}, PushOutcome("refused", "NOT_FOUND")),
    (400, error("INVALID_ARGUMENT"), PushOutcome("refused", "INVALID_ARGUMENT")),
    (403, error("SENDER_ID_MISMATCH"), PushOutcome("refused", "SENDER_ID_MISMATCH")),
    (401, error("THIRD_PARTY_AUTH_ERROR"), PushOutcome("refused", "THIRD_PARTY_AUTH_ERROR")),
    (429, error("QUOTA_EXCEEDED"), PushOutcome("again", "QUOTA_EXCEEDED", 60.0)),
    (503, error("UNAVAILABLE"), PushOutcome("again", "UNAVAILABLE", 60.0)),
    (500, error("INTERNAL"), PushOutcome("again", "INTERNAL", 60.0)),
    (502, {"error": "<html>"}, PushOutcome("again", "status 502", 60.0)),
    (413, {"error": {"status": 5, "details": {}}}, PushOutcome("refused", "status 413")),
]


async def test_an_answer_of_google_is_understood() -> None:
    async with push_double() as (double, tls), PushSender(fcm_of(double), tls=tls) as sender:
        for status, body, outcome in ANSWERS:
            double.answer(status, body, **({"retry_after": "60"} if outcome.wait else {}))
            assert await sender.deliver(fcm_device(), ALERT) == outcome


async def test_a_token_is_renewed_before_its_end_and_where_it_was_revoked(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    # Of this module alone: the server beside it has no jumps.
    monkeypatch.setattr(module, "clock", SimpleNamespace(monotonic=lambda: now))
    async with push_double() as (double, tls):
        async with PushSender(fcm_of(double), tls=tls) as sender:
            await sender.deliver(fcm_device(), ALERT)
            now += 3299
            await sender.deliver(fcm_device(), ALERT)
            assert double.access == ["ya29.0"]
            now += 1
            await sender.deliver(fcm_device(), ALERT)
            assert double.access == ["ya29.0", "ya29.1"]
            double.access.append("another one")
            assert await sender.deliver(fcm_device(), ALERT) == PushOutcome("again", "UNAUTHENTICATED")
            assert await sender.deliver(fcm_device(), ALERT) == PushOutcome("sent")
            assert len(double.access) == 4


async def test_after_a_failure_no_access_token_is_asked_for_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    # Of this module alone: the server beside it has no jumps.
    monkeypatch.setattr(module, "clock", SimpleNamespace(monotonic=lambda: now))
    async with push_double() as (double, tls):
        double.refusals += [(400, {"error": "invalid_grant"}), (200, {"expires_in": 5}), (500, {"error": "a b"})]
        async with PushSender(fcm_of(double), tls=tls) as sender:
            for reason in ("no access token: status 400 invalid_grant", "no access token: status 200"):
                assert await sender.deliver(fcm_device(), ALERT) == PushOutcome("again", reason)
                now += 9.9
                again = await sender.deliver(fcm_device(), ALERT)
                assert again == PushOutcome("again", "there was no access token a moment ago")
                now += 0.2
            assert await sender.deliver(fcm_device(), ALERT) == PushOutcome("again", "no access token: status 500")
            now += 10
            assert await sender.deliver(fcm_device(), ALERT) == PushOutcome("sent")
        assert double.access == ["ya29.0"]


async def test_what_is_no_service_account_is_refused_at_once_and_not_shown() -> None:
    async with push_double() as (double, _):
        account = json.loads(account_of(double))
    wrong: list[tuple[str, str]] = [
        ("secret", "the service account is no JSON object with project_id, client_email, private_key, token_uri"),
        ("[]", "no JSON object"),
        (json.dumps({**account, "project_id": 5}), "no JSON object"),
        (json.dumps({**account, "project_id": "a/b"}), "project_id of the service account is none"),
        (json.dumps({**account, "token_uri": "file:///etc"}), "token_uri of the service account is no URL"),
        (json.dumps({**account, "private_key": "secret"}), "the key is no PEM"),
        (json.dumps({**account, "private_key": pem_of(ec.generate_private_key(ec.SECP256R1()))}), "none of RSA"),
    ]
    for text, match in wrong:
        with pytest.raises(ValueError, match=match) as caught:
            Fcm(text)
        assert "secret" not in str(caught.value)
    assert Fcm(json.dumps({name: account[name] for name in account if name != "private_key_id"})).name == "fcm"
