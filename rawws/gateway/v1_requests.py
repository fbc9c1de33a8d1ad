"""Requests of `/v1`: what servers of an app ask for, in JSON, to checked values; and what is answered where they err.

Laws:
1. A member that nobody reads is a mistake: what is misspelt would be done otherwise.
2. An error says what came, what is allowed, and nothing that is secret.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import rawws
from rawws.protocol.closing import serialize_close
from rawws.topics.payloads import distinct, no_number, parse_json, serialize

from .events import GatewayEvent
from .pusher_rules import check_channel_name, is_name, kind_of_channel
from .spelling import ConnectionId

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from .config import AppConfig

__all__ = [
    "MAX_PAGE",
    "PublishRequest",
    "ServerEndpoint",
    "V1Error",
    "channels_in",
    "close_in",
    "connection_named",
    "digest_of",
    "event_in",
    "fields_in",
    "key_of_request",
    "page_in",
    "publish_in",
]

# What answers a server of an app, in JSON. Raises HttpError, TopicError and RegistryAway.
ServerEndpoint: TypeAlias = "Callable[[AppConfig, rawws.HttpRequest], Coroutine[Any, Any, str]]"
# Of a list: what is told at once by default, and at most.
PAGE, MAX_PAGE = 100, 1000
MAX_IDEMPOTENCY_KEY: Final = 128
EVENT: Final = ("event", "data", "base64", "json")


class V1Error(rawws.HttpError):
    """What a server asked for cannot be: `code` is the word for it in the answer."""

    def __init__(self, status: int, code: str, reason: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(status, reason, headers)
        self.code = code


class PublishRequest(NamedTuple):
    """An event, and the channels that it goes to."""

    channels: list[str]
    event: GatewayEvent
    # Whether it is asked how many are subscribed, at all instances.
    counted: bool


def malformed(reason: str) -> V1Error:
    """Return the error of a request that is none."""
    return V1Error(400, "malformed", reason)


# -- the head


def key_of_request(request: rawws.HttpRequest) -> str:
    """Return the Idempotency-Key, "" for none. Raises V1Error."""
    given = request.headers.get_all("Idempotency-Key")
    if not given:
        return ""
    key = given[0]
    if len(given) > 1 or not 0 < len(key) <= MAX_IDEMPOTENCY_KEY or not (key.isascii() and key.isprintable()):
        raise malformed(
            f"the Idempotency-Key is none, allowed is one of 1 to {MAX_IDEMPOTENCY_KEY} characters of ASCII"
        )
    return key


def digest_of(request: rawws.HttpRequest) -> str:
    """Return what tells a request from another one with its key."""
    head = f"{request.method} {request.head.path.partition('?')[0]}\n"
    return hashlib.sha256(head.encode("utf-8", "surrogateescape") + request.body).hexdigest()


def page_in(request: rawws.HttpRequest) -> tuple[int, str]:
    """Return how much of a list is asked for, and behind what. Raises V1Error."""
    text = request.query.get("limit", str(PAGE))
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 0 < int(text) <= MAX_PAGE):
        raise malformed(f"limit is {text[:64]!r}, allowed are 1 to {MAX_PAGE}")
    return int(text), request.query.get("after", "")


def connection_named(text: str) -> ConnectionId:
    """Return the id of a connection. Raises V1Error."""
    try:
        return ConnectionId.parse(text)
    except ValueError as error:
        raise malformed(str(error)) from None


# -- the body


def fields_in(request: rawws.HttpRequest, *known: str) -> dict[str, Any]:
    """Return the members of the body, which may be missing. Raises V1Error."""
    if not request.body:
        return {}
    try:
        fields = json.loads(request.text(), object_pairs_hook=distinct, parse_constant=no_number)
    except (ValueError, RecursionError) as error:
        raise malformed(f"the body is not JSON: {error}"[:200]) from None
    # A request with an Idempotency-Key may outlive its client.
    request.body = b""
    if not isinstance(fields, dict):
        raise malformed(f"the body is {type(fields).__name__}, allowed is an object")
    for name in fields:
        if name not in known:
            raise malformed(f"the body has {name[:64]!r}, allowed are {', '.join(known)}")
    return fields


def publish_in(app: AppConfig, request: rawws.HttpRequest) -> PublishRequest:
    """Return what is to be published. Raises V1Error and HttpError."""
    fields = fields_in(request, "channel", "channels", *EVENT, "except", "count", "push")
    if ("channel" in fields) is ("channels" in fields):
        raise malformed("there are channel and channels, or neither, needed is one")
    channels = channels_of(app, fields.get("channels", [fields.get("channel")]))
    if len(channels) > 1 and any(kind_of_channel(each).encrypted for each in channels):
        raise malformed("an encrypted event is for one channel: each has a key of its own")
    if "push" in fields:
        elsewhere = "an event has none: POST /push, or the data of what is sent to a user, has a notification"
        raise V1Error(400, "push", "push is not configured" if app.push is None else elsewhere)
    count = fields.get("count", False)
    if not isinstance(count, bool):
        raise malformed(f"count is {type(count).__name__}, allowed is bool")
    return PublishRequest(channels, event_of_fields(app, fields), count)


def event_in(app: AppConfig, request: rawws.HttpRequest) -> GatewayEvent:
    """Return what is to be sent. Raises V1Error and HttpError."""
    return event_of_fields(app, fields_in(request, *EVENT))


def channels_in(app: AppConfig, request: rawws.HttpRequest) -> list[str]:
    """Return the channels that something is to be done about. Raises V1Error and HttpError."""
    return channels_of(app, fields_in(request, "channels").get("channels"))


def channels_of(app: AppConfig, channels: object) -> list[str]:
    """Return channels, each once."""
    most = app.limits.event_channels
    if not isinstance(channels, list) or not 0 < len(channels) <= most:
        raise malformed(f"channels is no list of 1 to {most} channels")
    return list(dict.fromkeys(check_channel_name(each) for each in channels))


def close_in(request: rawws.HttpRequest) -> tuple[int | None, str]:
    """Return a close code, None for that of the face, and a reason. Raises V1Error."""
    fields = fields_in(request, "code", "reason")
    code, reason = fields.get("code"), fields.get("reason", "")
    if not (code is None or (isinstance(code, int) and not isinstance(code, bool))):
        raise malformed(f"code is {type(code).__name__}, allowed is int")
    if not is_text(reason) or not reason.isprintable():
        raise malformed("reason is no printable text")
    try:
        serialize_close(1000 if code is None else code, reason)
    except rawws.LocalProtocolError as error:
        raise malformed(str(error)) from None
    return code, reason


def event_of_fields(app: AppConfig, fields: dict[str, Any]) -> GatewayEvent:
    """Return an event that is said in JSON."""
    name, exclude, data, is_json = fields.get("event"), fields.get("except", ""), *data_of(fields)
    if name is not None and not is_name(name, 255):
        raise V1Error(400, "event", "event is no text of 1 to 255 printable characters")
    size = len(data if isinstance(data, bytes) else data.encode())
    if size > app.limits.event_size:
        raise V1Error(413, "size", f"data has {size} bytes, limit {app.limits.event_size}")
    if not isinstance(exclude, str):
        raise malformed(f"except is {type(exclude).__name__}, allowed is the id of a connection")
    excluded = connection_named(exclude).socket_id if exclude else ""
    return GatewayEvent(name, data, exclude=excluded, is_json=is_json)


def data_of(fields: dict[str, Any]) -> tuple[str | bytes, bool]:
    """Return data, and whether it is the text of JSON: a string goes as it is, what else JSON can say as its text."""
    if ("data" in fields) is ("base64" in fields):
        raise malformed("there are data and base64, or neither, needed is one")
    is_json = fields.get("json", False)
    if not isinstance(is_json, bool):
        raise malformed(f"json is {type(is_json).__name__}, allowed is bool")
    if "base64" in fields:
        try:
            return base64.b64decode(fields["base64"], validate=True), False
        except (ValueError, TypeError):
            raise malformed("base64 is none (RFC 4648 section 4)") from None
    data = fields["data"]
    try:
        if not isinstance(data, str):
            data, is_json = serialize(data), True
        elif is_json:
            parse_json(data)
    except ValueError as error:
        raise malformed(f"data is not JSON: {error}"[:200]) from None
    if not is_text(data):
        raise malformed("data has a lone surrogate, allowed is text that has a UTF-8")
    return data, is_json


def is_text(value: object) -> bool:
    """Tell whether something is a text that has a UTF-8."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
