"""Webhooks, as the libraries of their receivers verify them."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pusher
import pytest
import standardwebhooks

from rawws.gateway.config import Credential
from rawws.gateway.loading import HOOK_EVENTS
from rawws.gateway.webhooks import TEST_EVENT, TYPES, HookEvent, HookRequest, pusher_webhook, standard_webhook

KEY = Credential("278d425bdf160c739803", "7ad3773142a6692b25b8")
OCCUPIED = HookEvent("channel_occupied", "3", 1795771565.1234, {"channel": "presence-räume"}, "5f0e11:17")
ADDED = HookEvent("member_added", "3", 1795771565.5, {"channel": "presence-räume", "user_id": "u1"})


def verified(request: HookRequest, credential: Credential = KEY) -> Any:
    headers = dict(request.headers)
    client = pusher.Pusher(app_id="3", key=credential.key, secret=credential.secret)
    return client.validate_webhook(headers["X-Pusher-Key"], headers["X-Pusher-Signature"], request.body.decode())


def test_the_library_of_pusher_verifies_a_request_and_reads_its_events() -> None:
    now = time.time()
    request = pusher_webhook([OCCUPIED, ADDED], KEY, "evt_1", 2, now)
    assert verified(request) == {
        "time_ms": int(now * 1000),
        "events": [
            {"name": "channel_occupied", "channel": "presence-räume"},
            {"name": "member_added", "channel": "presence-räume", "user_id": "u1"},
        ],
    }
    assert request.headers[0] == ("Content-Type", "application/json")
    assert request.headers[-2:] == (("X-Rawws-Delivery", "evt_1"), ("X-Rawws-Attempt", "2"))


def test_the_library_of_pusher_refuses_a_changed_body_another_secret_and_a_request_of_six_minutes_ago() -> None:
    request = pusher_webhook([OCCUPIED], KEY, "evt_1", 1, time.time())
    assert verified(request._replace(body=request.body.replace(b"occupied", b"vacated"))) is None
    assert verified(request, Credential(KEY.key, "another")) is None
    assert verified(pusher_webhook([OCCUPIED], KEY, "evt_1", 1, time.time() - 360)) is None


@pytest.mark.parametrize("secret", ["whsec_" + base64.b64encode(b"0123456789abcdef").decode().rstrip("="), "old one"])
def test_the_library_of_standard_webhooks_verifies_with_either_of_two_secrets(secret: str) -> None:
    secrets = ["whsec_" + base64.b64encode(b"0123456789abcdef").decode(), "old one"]
    request = standard_webhook(ADDED, secrets, "evt_1", 1, time.time())
    receiver = standardwebhooks.Webhook(secret if secret.startswith("whsec_") else secret.encode())
    assert receiver.verify(request.body, dict(request.headers)) == {
        "type": "member.added",
        "time": "2026-11-27T09:26:05.500Z",
        "app": "3",
        "channel": "presence-räume",
        "user": "u1",
    }


@pytest.mark.parametrize("field", ["body", "webhook-id", "webhook-timestamp"])
def test_the_library_of_standard_webhooks_refuses_what_was_changed(field: str) -> None:
    request = standard_webhook(OCCUPIED, ["secret"], "evt_1", 1, time.time())
    headers = dict(request.headers)
    body = request.body
    if field == "body":
        body = body.replace(b'"3"', b'"4"')
    else:
        headers[field] = {"webhook-id": "evt_2", "webhook-timestamp": str(int(time.time()) - 1)}[field]
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(b"secret").verify(body, headers)


def test_an_event_of_the_state_log_says_where_it_stands() -> None:
    body = json.loads(standard_webhook(OCCUPIED, ["secret"], "evt_1", 1, time.time()).body)
    assert body["seq"] == "5f0e11:17"


def test_each_event_has_a_type() -> None:
    assert set(TYPES) == {*HOOK_EVENTS, TEST_EVENT}
