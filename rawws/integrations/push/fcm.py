"""FCM: a message to a request of Firebase Cloud Messaging (HTTP v1), and its answers to what they mean.

Sources: https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages, and RFC 7523 for the access token.

Laws:
1. One access token at a time is asked for, and used until shortly before its end; after a failure, not at once again.
2. A device is forgotten where FCM says UNREGISTERED, and by nothing else: a 404 may be that of a wrong project.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import TYPE_CHECKING, Any, Final, final
from urllib.parse import urlencode

from rawws import clock

from .apns import headers_of_apns, payload_of_apns
from .messages import SENT, UNREGISTERED, PushOutcome, octets_of_json, outcome_again, outcome_refused
from .requests import PushFailed, PushRequest, SingleHost, retry_wait, word_of
from .signing import private_key_of_rsa, sign_rs256

if TYPE_CHECKING:
    from .messages import PushDevice, PushMessage
    from .requests import PushAnswer, PushClient

__all__ = ["Fcm"]

SERVICE: Final = "https://fcm.googleapis.com"
SCOPE: Final = "https://www.googleapis.com/auth/firebase.messaging"
GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
# Seconds: of an assertion, "a maximum of 1 hour after the issued time"; how long before its end a token is renewed, and
# how long after a failure none is asked for.
ASSERTION_AGE: Final = 3600
RENEW_BEFORE: Final = 300.0
FAILED_FOR: Final = 10.0
# What is tried again, by the documentation of its errors.
TRANSIENT: Final = frozenset({"QUOTA_EXCEEDED", "UNAVAILABLE", "INTERNAL"})
NEEDED: Final = ("project_id", "client_email", "private_key", "token_uri")


@final
class Fcm(SingleHost):
    """Firebase Cloud Messaging: a service of a `PushSender`.

    `account` is the text of the service account's JSON. The URL of access tokens is the one that stands in it; `url` is
    that of messages. Raises ValueError for what is no service account.
    """

    name = "fcm"

    def __init__(self, account: str, *, url: str = SERVICE) -> None:
        try:
            fields = json.loads(account)
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict) or not all(isinstance(fields.get(name), str) for name in NEEDED):
            raise ValueError(f"the service account is no JSON object with {', '.join(NEEDED)}")
        if not re.fullmatch(r"[0-9A-Za-z.:-]{1,64}", fields["project_id"], re.ASCII):
            raise ValueError("project_id of the service account is none")
        if not re.fullmatch(r"https?://[!-~]+", fields["token_uri"], re.ASCII):
            raise ValueError("token_uri of the service account is no URL of http:// or https://")
        self._key = private_key_of_rsa(fields["private_key"])
        self._key_id = str(fields.get("private_key_id", ""))
        self._issuer = fields["client_email"]
        self._token_uri = fields["token_uri"]
        self._url = f"{url.rstrip('/')}/v1/projects/{fields['project_id']}/messages:send"
        # The access token, until when it is used, and until when none is asked for, by `rawws.clock`.
        self._token = ""
        self._until = self._failed_until = 0.0
        self._asking = asyncio.Lock()

    def check(self, device: PushDevice) -> None:
        """Every device that there is may be asked."""

    async def request(self, device: PushDevice, message: PushMessage, left: float, client: PushClient) -> PushRequest:
        """Return the request that sends a message, which the service keeps for so many seconds. Raises PushFailed."""
        token = await self._access_token(client)
        headers = (("Authorization", f"Bearer {token}"), ("Content-Type", "application/json"))
        return PushRequest(self._url, headers, octets_of_json({"message": fields_of(device, message, left)}))

    def outcome(self, device: PushDevice, answer: PushAnswer) -> PushOutcome:
        """Return what an answer means."""
        del device
        if answer.status == 200:
            return PushOutcome(SENT)
        code = code_of(answer.json())
        reason = code or f"status {answer.status}"
        if code == "UNREGISTERED":
            return PushOutcome(UNREGISTERED, reason)
        if answer.status == 401 and code != "THIRD_PARTY_AUTH_ERROR":
            # The access token was revoked: another one is asked for.
            self._token, self._until = "", 0.0
            return outcome_again(reason)
        if code in TRANSIENT or answer.status in {429, 500, 502, 503, 504}:
            return outcome_again(reason, retry_wait(answer))
        return outcome_refused(reason)

    async def _access_token(self, client: PushClient) -> str:
        """Return a token that is good for a while. Raises PushFailed."""
        async with self._asking:
            now = clock.monotonic()
            if now < self._until:
                return self._token
            if now < self._failed_until:
                raise PushFailed("there was no access token a moment ago")
            # What is cancelled in the middle failed, too.
            self._failed_until = now + FAILED_FOR
            self._token, lasts = await self._ask(client)
            self._until = now + max(lasts - RENEW_BEFORE, lasts / 2)
            self._failed_until = 0.0
            return self._token

    async def _ask(self, client: PushClient) -> tuple[str, float]:
        """Ask for an access token (RFC 7523 section 2.1); return it and for how many seconds it is good."""
        now = int(time.time())
        claims = {"iss": self._issuer, "scope": SCOPE, "aud": self._token_uri, "iat": now, "exp": now + ASSERTION_AGE}
        header = {"typ": "JWT", "kid": self._key_id} if self._key_id else {"typ": "JWT"}
        body = urlencode({"grant_type": GRANT, "assertion": sign_rs256(header, claims, self._key)}).encode()
        fields = (("Content-Type", "application/x-www-form-urlencoded"),)
        answer = await client.send(PushRequest(self._token_uri, fields, body))
        found = answer.json()
        token, lasts = found.get("access_token"), found.get("expires_in")
        is_token = isinstance(token, str) and re.fullmatch("[!-~]{1,8192}", token, re.ASCII)
        if answer.status != 200 or not is_token or not isinstance(lasts, (int, float)):
            said = word_of(found.get("error"))
            raise PushFailed(f"no access token: status {answer.status}{' ' if said else ''}{said}")
        return str(token), float(lasts)


def fields_of(device: PushDevice, message: PushMessage, left: float) -> dict[str, Any]:
    """Return a message as FCM has it, with how it is sent to each kind of device."""
    android: dict[str, Any] = {"priority": "HIGH" if message.urgency == "high" else "NORMAL", "ttl": f"{int(left)}s"}
    if message.collapse:
        android["collapse_key"] = message.collapse
    fields: dict[str, Any] = {
        "token": device.token,
        "data": dict(message.data),
        "android": android,
        "apns": {
            "headers": headers_of_apns(message, left, time.time()),
            "payload": {"aps": payload_of_apns(message)["aps"]},
        },
    }
    texts = {"title": message.title, "body": message.body}
    if not message.is_silent:
        fields["notification"] = {name: text for name, text in texts.items() if text}
    return fields


def code_of(answer: dict[str, Any]) -> str:
    """Return the code of an error: that of FCM where there is one, else the status of Google's APIs."""
    error = answer.get("error")
    if not isinstance(error, dict):
        return ""
    details = error.get("details")
    for each in details if isinstance(details, list) else ():
        code = word_of(each.get("errorCode")) if isinstance(each, dict) else ""
        if code:
            return code
    return word_of(error.get("status"))
