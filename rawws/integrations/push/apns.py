"""APNs: a message to a request that Apple's push service takes, and its answers to what they mean.

Source: https://developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns

Laws:
1. A token that is over an hour old is refused, and a team that makes new ones too often as well: so all instances make
   the same one, which changes every 50 minutes.
2. A device is forgotten where Apple says that it is gone since it registered. What may be a mistake of the
   configuration (another topic, the sandbox) forgets nobody.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, Final, final

from .messages import SENT, UNREGISTERED, PushOutcome, octets_of_json, outcome_again, outcome_refused
from .requests import PushRequest, SingleHost, retry_wait, word_of
from .signing import private_key_of_p256, sign_es256

if TYPE_CHECKING:
    from .messages import PushDevice, PushMessage
    from .requests import PushAnswer, PushClient

__all__ = ["Apns", "headers_of_apns", "payload_of_apns"]

PRODUCTION: Final = "https://api.push.apple.com"
# Seconds for which a token is used. It says that it was made a minute before: clocks differ.
TOKEN_USE: Final = 50 * 60
TOKEN_SKEW: Final = 60
# "10: send the notification immediately. 5: based on power considerations on the device. 1: prioritize the device's
# power considerations over all other factors." What shows nothing may not have 10.
PRIORITIES: Final = {"high": 10, "normal": 10, "low": 5, "very-low": 1}
SILENT: Final = 5
IDENT: Final = re.compile(r"[0-9A-Za-z]{10}", re.ASCII)
TOPIC: Final = re.compile(r"[0-9A-Za-z.-]{1,255}", re.ASCII)


@final
class Apns(SingleHost):
    """Apple's push service: a service of a `PushSender`.

    `key` is the text of the .p8 file, `key_id` and `team_id` have 10 characters, `topic` is the bundle id of the
    application. `url` is another one for the sandbox: https://api.development.push.apple.com. Raises ValueError for
    what is none of that.
    """

    name = "apns"

    def __init__(self, key: str, *, key_id: str, team_id: str, topic: str, url: str = PRODUCTION) -> None:
        for name, value in (("key_id", key_id), ("team_id", team_id)):
            if not IDENT.fullmatch(value):
                raise ValueError(f"{name} is {value[:64]!r}, allowed are 10 letters and digits")
        if not TOPIC.fullmatch(topic):
            raise ValueError(f"topic is {topic[:64]!r}, allowed is the bundle id of an application")
        self._key = private_key_of_p256(key)
        self._key_id = key_id
        self._team_id = team_id
        self._topic = topic
        self._url = url.rstrip("/")
        # With the number of its 50 minutes.
        self._token: tuple[int, str] = (-1, "")

    def check(self, device: PushDevice) -> None:
        """Every device that there is may be asked."""

    def token(self, now: float) -> str:
        """Return the token of a time, in seconds since 1970: the same at all instances."""
        number = int(now // TOKEN_USE)
        if number != self._token[0]:
            claims = {"iss": self._team_id, "iat": number * TOKEN_USE - TOKEN_SKEW}
            self._token = number, sign_es256({"kid": self._key_id}, claims, self._key)
        return self._token[1]

    async def request(self, device: PushDevice, message: PushMessage, left: float, client: PushClient) -> PushRequest:
        """Return the request that sends a message, which the service keeps for so many seconds."""
        del client
        now = time.time()
        headers = [
            ("authorization", f"bearer {self.token(now)}"),
            ("content-type", "application/json"),
            ("apns-topic", self._topic),
            *headers_of_apns(message, left, now).items(),
        ]
        return PushRequest(f"{self._url}/3/device/{device.token}", headers, octets_of_json(payload_of_apns(message)))

    def outcome(self, device: PushDevice, answer: PushAnswer) -> PushOutcome:
        """Return what an answer means."""
        if answer.status == 200:
            return PushOutcome(SENT)
        fields = answer.json()
        reason = word_of(fields.get("reason")) or f"status {answer.status}"
        if answer.status == 410:
            # "The time, in milliseconds since Epoch, at which APNs confirmed the token was no longer valid."
            since = fields.get("timestamp")
            if isinstance(since, (int, float)) and device.since > since / 1000:
                return outcome_refused(f"{reason}, and the device registered since")
            return PushOutcome(UNREGISTERED, reason)
        if answer.status in {429, 500, 503} or reason == "ExpiredProviderToken":
            return outcome_again(reason, retry_wait(answer))
        return outcome_refused(reason)


def headers_of_apns(message: PushMessage, left: float, now: float) -> dict[str, str]:
    """Return the headers that say how a message is sent; FCM hands them on."""
    priority = PRIORITIES[message.urgency]
    found = {
        "apns-push-type": "background" if message.is_silent else "alert",
        "apns-priority": str(min(priority, SILENT) if message.is_silent else priority),
        # "If the value is 0, APNs attempts to deliver the notification only once and doesn't store it."
        "apns-expiration": str(int(now + left)) if left > 0 else "0",
    }
    return {**found, "apns-collapse-id": message.collapse} if message.collapse else found


def payload_of_apns(message: PushMessage) -> dict[str, Any]:
    """Return what an application gets: `aps`, and the data beside it."""
    texts = {"title": message.title, "body": message.body}
    aps: dict[str, Any] = {"alert": {name: text for name, text in texts.items() if text}, "sound": "default"}
    if message.is_silent:
        aps = {"content-available": 1}
    return {"aps": aps, **message.data}
