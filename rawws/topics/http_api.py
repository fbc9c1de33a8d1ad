"""The HTTP API of a hub: what programs with a key ask for, whatever they are written in (docs/use/api.md).

Laws:
1. Who has no key learns nothing, nothing is done, and no body is read. A key is compared in a time that says nothing
   about it.
2. A request is checked whole before any of it is done.
3. It is for programs: a page is refused, for its key would be everybody's.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from typing import TYPE_CHECKING, Any, final

from rawws.errors import HttpError
from rawws.http.asgi import answer_asgi, head_of_scope
from rawws.http.keys import MIN_KEY, TOKEN, BearerKeys
from rawws.http.responses import Response

from .cursors import EARLIEST, cursor_of
from .envelope import DEFAULT_LIMIT, MAX_LIMIT, EnvelopeError, error_of, malformed, members_beside, message_of
from .names import TopicError, check_name
from .pages import MAX_ANSWER, answer_page, check_page, page_of
from .patterns import check_channel
from .payloads import distinct, no_number, serialize
from .rawws_v1 import MISTAKES, place_of
from .rawws_v1_http import FRESH, answer_stream, list_of, names_of, refusal, refused_later

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from rawws.http.asgi import AsgiReceive, AsgiScope, AsgiSend
    from rawws.http.requests import HttpRequest
    from rawws.protocol.http11 import Headers

    from .hub import Hub
    from .subscribers import PublishResult

__all__ = ["HubApi", "HubApiApplication"]

# As Pusher has it. All of them are published to in one turn of the event loop.
MAX_BROADCAST = 100
# Of the body beside the message, in bytes: names, and what base64 and JSON add.
ROOM = 65536
# What a body may have beside where it is published.
BESIDE = ("data", "base64", "json", "event", "key")
METHODS = {"": "GET", "publish": "POST", "broadcast": "POST", "history": "GET", "presence": "GET", "subscribers": "GET"}


@final
class HubApi:
    """The endpoints of the API of a hub, by their names below its path.

    They are for those who have one of the keys, and refuse others; `refuse` does so before a body is read.
    Raises ValueError without a key, and for one that is too short or cannot stand in a header.
    """

    __slots__ = ("_keys", "endpoints", "hub")

    def __init__(self, hub: Hub, keys: Iterable[str]) -> None:
        if isinstance(keys, str):
            raise TypeError("keys is str, allowed is a list of them")
        self.hub = hub
        self._keys = BearerKeys([checked_key(key) for key in keys])
        if not self._keys:
            raise ValueError("keys is empty, needed is at least one")
        asked_for = (self._stream, self._publish, self._broadcast, self._history, self._presence, self._subscribers)
        self.endpoints = {name: self._guarded(each) for name, each in zip(METHODS, asked_for, strict=True)}

    def refuse(self, headers: Headers) -> Response | None:
        """Return the answer to who has no key; None where a key is good."""
        if not self._keys.open_to(headers):
            # RFC 9110 15.5.2: "The server generating a 401 response MUST send a WWW-Authenticate header field".
            challenge = ("WWW-Authenticate", "Bearer")
            return problem(401, "unauthorized", "needed is Authorization: Bearer, and a key", challenge)
        if "Origin" in headers:
            return problem(403, "refused", "a page asks, and the key is for programs")
        return None

    def _guarded(self, endpoint: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
        """Return an endpoint that asks for the key, whoever has asked before, and tells mistakes in JSON."""

        def answer(asked: HttpRequest) -> Any:
            refused = self.refuse(asked.headers)
            if refused is not None:
                return refused
            try:
                found = endpoint(asked)
            except MISTAKES as error:
                return refusal(None, error_of(error))
            return refused_later(found, None) if inspect.iscoroutine(found) else found

        return answer

    def _stream(self, asked: HttpRequest) -> Any:
        """Send what is published to topics, and by patterns, as events."""
        names = names_of(asked, None)
        for name in names:
            check_channel(name)
        return answer_stream(self.hub, asked, names, None)

    def _publish(self, asked: HttpRequest) -> Response | Awaitable[Response]:
        """Publish to one topic."""
        fields = fields_of(asked, "topic")
        message, extra = payload_in(fields)
        result = self.hub.publish_payload(fields["topic"], message, extra, fields.get("key"))

        async def answer_later() -> Response:
            return told(place_of(await result))

        return answer_later() if result.pending else told(place_of(result))

    def _broadcast(self, asked: HttpRequest) -> Response | Awaitable[Response]:
        """Publish the same to several topics: to all, or to none."""
        fields = fields_of(asked, "topics")
        topics, (message, extra), key = fields["topics"], payload_in(fields), fields.get("key")
        if not isinstance(topics, list):
            raise malformed(f"topics is {type(topics).__name__}, allowed is a list")
        if len(topics) > MAX_BROADCAST:
            raise TopicError("limit", f"the request has {len(topics)} topics, limit {MAX_BROADCAST}")
        results = list(zip(topics, self.hub.broadcast_payload(topics, message, extra, key), strict=True))

        def answer() -> Response:
            return told({"results": [{"topic": topic, **place_of(result)} for topic, result in results]})

        async def answer_later(pending: list[PublishResult]) -> Response:
            await asyncio.gather(*pending)
            return answer()

        pending = [result for _, result in results if result.pending]
        return answer_later(pending) if pending else answer()

    def _history(self, asked: HttpRequest) -> Response | Awaitable[Response]:
        """List the last publications of a topic, the last ones before a cursor, or the first ones behind one."""
        topic, limit = topic_of(asked), limit_of(asked)
        since, before = (cursor_of(asked.query.get(name, ""), topic) for name in ("since", "before"))
        check_page(since, before)

        def answer() -> Response:
            page = page_of(self.hub, topic, since, before, limit, MAX_ANSWER)
            return Response(200, answer_page(self.hub, page, {}), FRESH, "application/json")

        return self.hub.when_ready([topic], since or before or EARLIEST, answer)

    def _presence(self, asked: HttpRequest) -> Response | Awaitable[Response]:
        """List who is present in a topic."""
        topic = topic_of(asked)
        return self.hub.when_ready([topic], "", lambda: list_of(self.hub, topic, None))

    def _subscribers(self, asked: HttpRequest) -> Response:
        """Count the subscribers of a topic."""
        return told({"count": self.hub.subscribers(topic_of(asked))})


@final
class HubApiApplication:
    """The same as an ASGI application: what is asked for is the last part of the path."""

    __slots__ = ("_api",)

    def __init__(self, api: HubApi) -> None:
        self._api = api

    async def __call__(self, scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        """Answer what an ASGI server brings."""
        if scope["type"] == "websocket":
            await receive()
            # Before it is accepted, that is a 403.
            await send({"type": "websocket.close", "code": 1008, "reason": ""})
            return
        if scope["type"] != "http":
            raise ValueError(f"the scope is of type {scope['type']!r}, allowed are http and websocket")
        # Before the body is read.
        refused = self._api.refuse(head_of_scope(scope).headers) or wrong_place(scope["method"], scope["path"])
        if refused is None:
            name = scope["path"].rpartition("/")[2]
            size = 2 * self._api.hub.max_size + ROOM if METHODS[name] == "POST" else None
            await answer_asgi(scope, receive, send, self._api.endpoints[name], max_size=size)
        else:
            await answer_asgi(scope, receive, send, lambda _: refused)


def wrong_place(method: str, path: str) -> Response | None:
    """Return the answer where there is nothing, or where it is asked for otherwise."""
    name = path.rpartition("/")[2]
    if name not in METHODS:
        return problem(404, "path", f"there is nothing at this path, there are {', '.join(filter(None, METHODS))}")
    allowed = "GET, HEAD" if METHODS[name] == "GET" else "POST"
    if method not in allowed.split(", "):
        return problem(405, "method", f"the method is {method[:64]}, allowed is {allowed}", ("Allow", allowed))
    return None


def checked_key(key: str) -> str:
    """Return a key that may be one."""
    if not isinstance(key, str):
        raise TypeError(f"a key is {type(key).__name__}, allowed is str")
    # Not a word of it: errors stand in logs.
    if len(key) < MIN_KEY:
        raise ValueError(f"a key has {len(key)} characters, needed are {MIN_KEY}, at random")
    if TOKEN.fullmatch(key) is None:
        raise ValueError("a key has characters that no token has, allowed are letters, digits, -._~+/ and = at the end")
    return key


def fields_of(asked: HttpRequest, where: str) -> dict[str, Any]:
    """Return the members of the body, which says what is published, and `where`. Raises EnvelopeError."""
    try:
        fields = json.loads(asked.text(), object_pairs_hook=distinct, parse_constant=no_number)
    except HttpError as error:
        raise malformed(error.reason) from None
    except (ValueError, RecursionError) as error:
        raise malformed(f"the body is not JSON: {error}"[:200]) from None
    if not isinstance(fields, dict):
        raise malformed(f"the body is {type(fields).__name__}, allowed is an object")
    for name in fields:
        if name not in {where, *BESIDE}:
            raise malformed(f"the body has {name[:64]!r}, allowed are {where}, {', '.join(BESIDE)}")
    if where not in fields:
        raise malformed(f"the body has no {where}")
    return fields


def payload_in(fields: dict[str, Any]) -> tuple[str | bytes, str]:
    """Return what is to be published, and the members beside it: a text as it is, other JSON as its text.

    Raises EnvelopeError.
    """
    for name, wanted in (("base64", str), ("json", bool)):
        if not isinstance(fields.get(name, wanted()), wanted):
            raise malformed(f"{name} is {type(fields[name]).__name__}, allowed is {wanted.__name__}")
    if not isinstance(fields.get("data", ""), str):
        try:
            fields["data"] = serialize(fields["data"])
        except (ValueError, RecursionError) as error:
            raise malformed(f"data is no JSON: {error}") from None
        # It was read already, and need not be read again.
        return message_of(fields), members_beside(fields, is_json=True)
    return message_of(fields), members_beside(fields)


def topic_of(asked: HttpRequest) -> str:
    """Return the one topic of a request. Raises TopicError."""
    names = asked.query.get_all("topic")
    if len(names) != 1:
        raise TopicError("topic", f"the request names {len(names)} topics, needed is ?topic= once")
    check_name(names[0])
    return names[0]


def limit_of(asked: HttpRequest) -> int:
    """Return how many publications are asked for."""
    text = asked.query.get("limit", "")
    if not text:
        return DEFAULT_LIMIT
    if len(text) > 4 or not (text.isascii() and text.isdigit()) or int(text) > MAX_LIMIT:
        raise EnvelopeError("malformed", f"limit is {text[:64]!r}, allowed are 0 to {MAX_LIMIT}")
    return int(text)


def told(answer: dict[str, Any]) -> Response:
    """Return an answer, which may be that something is wrong."""
    return refusal(None, answer) if "error" in answer else Response.json(answer, headers=FRESH)


def problem(status: int, code: str, reason: str, *fields: tuple[str, str]) -> Response:
    """Return an answer that says what is wrong with a request."""
    return Response.json({"error": code, "reason": reason}, status, [*FRESH.items(), *fields])
