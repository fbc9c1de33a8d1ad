"""Web Push: the example of RFC 8291, what a browser gets, and the URLs that are not asked."""

from __future__ import annotations

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from rawws.integrations.push import PUSH_HOSTS, PushDevice, PushMessage, PushOutcome, PushSender, WebPush, new_vapid_key
from rawws.integrations.push import web_push as module
from rawws.integrations.push.messages import octets_of_base64url
from rawws.integrations.push.signing import base64url, private_key_of_p256
from rawws.integrations.push.web_push import encrypt_push
from tests.integrations.push_doubles import Browser, pem_of, push_double, rsa_key, web_of

SUBJECT = "mailto:ops@example.com"


def test_the_example_of_the_rfc_comes_out_octet_by_octet() -> None:
    # RFC 8291 appendix A.
    encrypted = encrypt_push(
        b"When I grow up, I want to be a watermelon",
        octets_of_base64url("BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"),
        octets_of_base64url("BTBZMqHH6r4Tts7J_aSIgg"),
        key=private_key_of_p256("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"),
        salt=octets_of_base64url("DGv6ra1nlYgDCS1FRnbzlw"),
    )
    assert base64url(encrypted) == (
        "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3j"
        "l7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
    )


async def test_a_browser_gets_what_was_said_and_nobody_else_reads_it() -> None:
    async with push_double() as (double, tls):
        browser = Browser(double)
        async with PushSender(web_of(double), tls=tls) as sender:
            sender.check(browser.device)
            message = PushMessage("Hello", "A body", {"url": "/chat"}, ttl=60, urgency="high", collapse="chat-7")
            assert await sender.deliver(browser.device, message) == PushOutcome("sent")
            assert double.server is not None
            assert double.server.stats().http2_connections == 1
        [pushed] = double.pushed
        assert pushed.payload == {"title": "Hello", "body": "A body", "data": {"url": "/chat"}}
        named = {name: pushed.headers[name] for name in ("ttl", "urgency", "topic")}
        assert named == {"ttl": "60", "urgency": "high", "topic": "chat-7"}


# A status, headers, what they mean, and for how many seconds to wait.
ANSWERS: list[tuple[int, dict[str, str], str, float]] = [
    (200, {}, "sent", 0),
    (202, {}, "sent", 0),
    (404, {}, "gone", 0),
    (410, {}, "gone", 0),
    (429, {"retry_after": "17"}, "again", 17),
    (408, {"retry_after": "soon"}, "again", 0),
    (503, {"retry_after": "86400"}, "again", 3600),
    (400, {}, "refused", 0),
    (403, {}, "refused", 0),
    (413, {}, "refused", 0),
    (301, {"location": "https://elsewhere.example/"}, "refused", 0),
]


async def test_an_answer_of_a_push_service_is_understood() -> None:
    async with push_double() as (double, tls), PushSender(web_of(double), tls=tls) as sender:
        browser = Browser(double)
        for status, headers, kind, wait in ANSWERS:
            double.answer(status, None, **headers)
            outcome = await sender.deliver(browser.device, PushMessage("Hello"))
            assert (outcome.kind, outcome.wait) == (kind, wait)
        assert double.requests == len(ANSWERS)


def device_at(endpoint: str) -> PushDevice:
    key = ec.generate_private_key(ec.SECP256R1())
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return PushDevice("1", "web", endpoint, keys={"p256dh": base64url(point), "auth": "A" * 22})


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://fcm.googleapis.com/fcm/send/abc:1",
        "https://fcm.googleapis.com:443/fcm/send/abc",
        "https://updates.push.services.mozilla.com/wpush/v2/gAAA?x=1",
        "https://wns2-par02p.notify.windows.com/w/?token=BQ",
        "https://web.push.apple.com/QM",
    ],
)
def test_the_services_of_browsers_are_asked(endpoint: str) -> None:
    WebPush(new_vapid_key()[0], subject=SUBJECT).check(device_at(endpoint))


ELSEWHERE = [
    "https://127.0.0.1/latest/meta-data",
    "https://169.254.169.254/",
    "https://localhost/",
    "https://[::1]/",
    "https://fcm.googleapis.com:8443/",
    "https://fcm.googleapis.com.example.com/",
    "https://fcm.googleapis.com@127.0.0.1/",
    "https://127.0.0.1#@fcm.googleapis.com/",
    "https://127.0.0.1?.push.apple.com/",
    "https://127.0.0.1/.push.apple.com",
    "https://127.0.0.1\\.push.apple.com/",
    "https://FCM.googleapis.com/",
    "https://push.apple.com/",
    "https://fcm.googleapis.com",
]


async def test_no_other_host_is_asked_whatever_a_client_says() -> None:
    async with PushSender(WebPush(new_vapid_key()[0], subject=SUBJECT)) as sender:
        for endpoint in ELSEWHERE:
            device = device_at(endpoint)
            with pytest.raises(ValueError, match=r"is none of a known push service: fcm\.googleapis\.com"):
                sender.check(device)
            outcome = await sender.deliver(device, PushMessage("Hello"))
            assert outcome.kind == "refused"
            assert "/latest" not in outcome.reason


def test_a_key_of_a_subscription_that_is_no_point_is_refused() -> None:
    device = PushDevice("1", "web", "https://web.push.apple.com/1", keys={"p256dh": "BA" + "A" * 85, "auth": "A" * 22})
    with pytest.raises(ValueError, match=r"keys\.p256dh is no point of P-256"):
        WebPush(new_vapid_key()[0], subject=SUBJECT).check(device)


def test_a_token_is_for_one_service_and_renewed_long_before_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    private, public = new_vapid_key()
    service = WebPush(private, subject=SUBJECT)
    assert service.public_key == public
    first = service._token("https://a.push.apple.com", 1000.0)
    assert service._token("https://a.push.apple.com", 1000.0 + 6 * 3600 - 1) == first
    later = service._token("https://a.push.apple.com", 1000.0 + 6 * 3600)
    assert later != first
    claims = jwt.decode(later, options={"verify_signature": False})
    assert claims == {"aud": "https://a.push.apple.com", "exp": 1000 + 18 * 3600, "sub": SUBJECT}
    # A service has a host for each region, and a client names it.
    monkeypatch.setattr(module, "MOST_TOKENS", 2)
    for number in range(10):
        service._token(f"https://{number}.push.apple.com", 1000.0)
        assert len(service._tokens) <= 2


def test_a_key_is_pem_or_base64url_and_one_of_p256() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    raw = base64url(key.private_numbers().private_value.to_bytes(32, "big"))
    assert WebPush(pem_of(key), subject=SUBJECT).public_key == WebPush(raw, subject=SUBJECT).public_key
    wrong = {
        "secret": "needed is PEM, or 32 bytes in base64url",
        pem_of(rsa_key()): "the key is none of P-256",
        pem_of(ec.generate_private_key(ec.SECP384R1())): "the key is none of P-256",
        "-----BEGIN PRIVATE KEY-----\nsecret": "the key is no PEM of a private key",
    }
    for text, match in wrong.items():
        with pytest.raises(ValueError, match=match) as caught:
            WebPush(text, subject=SUBJECT)
        assert "secret" not in str(caught.value)
    with pytest.raises(ValueError, match="subject is 'me'"):
        WebPush(raw, subject="me")
    assert len(PUSH_HOSTS) == 4
