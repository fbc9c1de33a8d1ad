"""What is pushed, and to what: whatever no service takes is refused before it is sent."""

from __future__ import annotations

from typing import Any

import pytest

from rawws.integrations.push import PushDevice, PushMessage
from rawws.integrations.push.messages import octets_of_base64url

KEYS = {"p256dh": "BA" + "A" * 85, "auth": "A" * 22}
ENDPOINT = "https://push.example.com/1"


@pytest.mark.parametrize(
    ("fields", "error", "match"),
    [
        ({"title": 1}, TypeError, "data is no mapping of str to str"),
        ({"data": {"a": 1}}, TypeError, "data is no mapping of str to str"),
        ({"data": {"aps": "x"}}, ValueError, "data has 'aps', a name that services have"),
        ({"data": {"google.x": "x"}}, ValueError, "a name that services have for themselves"),
        ({"urgency": "now"}, ValueError, "urgency is 'now', allowed are very-low, low, normal, high"),
        ({"ttl": -1}, ValueError, "ttl is -1, allowed are 0 to 2419200 seconds"),
        ({"ttl": float("nan")}, ValueError, "ttl is nan"),
        ({"collapse": "a b"}, ValueError, "collapse is 'a b', allowed are up to 32"),
        ({"collapse": "a" * 33}, ValueError, "collapse is"),
        ({"body": "x" * 3072}, ValueError, "the message has 3083 bytes, limit 3072"),
        ({"body": "\ud800"}, ValueError, "surrogates not allowed"),
    ],
)
def test_a_message_that_no_service_takes_is_none(fields: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        PushMessage(**fields)


def test_a_message_is_json_for_a_service_worker() -> None:
    assert PushMessage().octets == b"{}"
    assert PushMessage().is_silent
    message = PushMessage("A", "ü", {"id": "5"})
    assert message.octets == '{"title":"A","body":"ü","data":{"id":"5"}}'.encode()
    assert not message.is_silent


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"id": ""}, "the id is '', allowed are 1 to 128"),
        ({"id": "a/b"}, "the id is 'a/b'"),
        ({"service": "sms"}, "service is 'sms', allowed are apns, fcm, web"),
        ({"service": "apns", "token": "xy" * 32}, "the token of apns is none, allowed is 64 to 200 hexadecimal digits"),
        ({"service": "fcm", "token": "a/b"}, "the token of fcm is none"),
        ({"service": "web", "token": "http://a/", "keys": KEYS}, "the token of web is none, allowed is a URL"),
        ({"service": "web", "token": ENDPOINT}, "keys.p256dh has 0 bytes, needed are 65 in base64url"),
        ({"service": "web", "token": ENDPOINT, "keys": {**KEYS, "auth": "AA"}}, "keys.auth has 1 bytes, needed are 16"),
        ({"service": "web", "token": ENDPOINT, "keys": {**KEYS, "auth": "\u00fc"}}, "keys.auth has 0 bytes"),
        ({"service": "fcm", "token": "a", "keys": KEYS}, "fcm has none"),
        ({"token": 5, "keys": [], "since": True, "more": 1}, "wrong in the device: token, keys, since, more"),
        ({"keys": {"auth": 5}}, "wrong in the device: keys"),
    ],
)
def test_a_device_that_no_service_gives_is_none(fields: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        PushDevice.of({"id": "1", "service": "fcm", "token": "a", **fields})


def test_a_device_is_what_json_has_and_shows_no_secret() -> None:
    web = PushDevice("1", "web", ENDPOINT, "ann", 5.0, KEYS)
    phone = PushDevice("2", "fcm", "secret:token")
    for device in (web, phone):
        assert PushDevice.of(device.fields()) == device
    assert "keys" not in phone.fields()
    assert ENDPOINT not in repr(web)
    assert KEYS["auth"] not in repr(web)
    assert "secret" not in repr(phone)


def test_base64url_is_read_with_padding_and_without() -> None:
    assert octets_of_base64url("AAE") == octets_of_base64url("AAE=") == b"\0\1"
    assert octets_of_base64url("A") == octets_of_base64url("ü") == b""
