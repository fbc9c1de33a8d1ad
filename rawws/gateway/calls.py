"""Calls: what happened to a connection to a request of its backend, and the answer to what becomes of it.

A backend gets an event as a Lambda function does, or plain HTTP. It answers as a function does, with `statusCode` and
`body` in JSON, or by the status and the body of HTTP.
"""

from __future__ import annotations

import base64
import json
import time
from binascii import Error as Base64Error
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final
from urllib.parse import quote

from .expressions import NO_JSON, RequestValue, parse_message
from .webhooks import standard_fields

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .aws_events import AwsClient
    from .config import ApiRoute
    from .outgoing import BackendAnswer, Outgoing

__all__ = ["BackendRoute", "CallResult", "call_result", "event_body"]

# What a client may not say to the backend in our name, or what belongs to one connection only.
OURS: Final = ("x-rawws-", "webhook-", "sec-websocket-")
OWN: Final = frozenset({"host", "content-length", "content-type", "accept-encoding", "x-request-id", "expect"})
# What a header can hold (RFC 9110 section 5.5), and a URL behind its `?`; the rest is percent-encoded.
PRINTABLE: Final = "".join(map(chr, range(32, 127)))
IN_QUERY: Final = "%!$&'()*+,;=:@/?-._~[]"


class CallResult(NamedTuple):
    """What a backend answered: a status, headers whose names are in lower case, a body, and what a function raised."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    # The words of an error that a Lambda function raised, "" for none.
    raised: str = ""

    @property
    def accepted(self) -> bool:
        """Whether the status is one of success."""
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        """The body as a client gets it: what is no UTF-8 is replaced."""
        return self.body.decode("utf-8", "replace")


def call_result(answer: BackendAnswer) -> CallResult:
    """Return what an answer says: as a function answers, else by HTTP."""
    headers = dict(reversed(answer.headers))  # of two, the first
    said = parse_message(answer.body.decode("utf-8", "replace"))
    if not isinstance(said, dict):
        return CallResult(answer.status, headers, answer.body)
    status = said.get("statusCode")
    if isinstance(status, int) and not isinstance(status, bool):
        return _function_result(said, status)
    if isinstance(said.get("errorMessage"), str) and "errorType" in said:
        # So AWS's runtimes tell of what a function raised, with a status of 200.
        return CallResult(500, headers, answer.body, said["errorMessage"] or "raised")
    return CallResult(answer.status, headers, answer.body)


def _function_result(said: dict[str, Any], status: int) -> CallResult:
    """Return what a function answered; 502 for what API Gateway calls a malformed proxy response."""
    malformed = CallResult(502, {}, b"", "malformed answer")
    fields, body = said.get("headers") or {}, said.get("body")
    if not 100 <= status <= 599 or not isinstance(fields, dict) or not isinstance(body, (str, type(None))):
        return malformed
    octets = (body or "").encode("utf-8", "replace")
    if said.get("isBase64Encoded") is True:
        try:
            octets = base64.b64decode(octets, validate=True)
        except Base64Error:
            return malformed
    return CallResult(status, {str(name).lower(): str(value) for name, value in fields.items()}, octets)


@final
class BackendRoute:
    """A route of an API: how its backend is called. Raises ExpressionError for headers that are not understood."""

    __slots__ = ("_headers", "_outgoing", "_signing", "config")

    def __init__(self, config: ApiRoute, signing: Sequence[str], outgoing: Outgoing) -> None:
        self.config = config
        self._signing = signing
        self._outgoing = outgoing
        on_connect = config.key == "$connect"
        self._headers = [(name, RequestValue(text, on_connect=on_connect)) for name, text in config.headers.items()]

    async def call(self, client: AwsClient, event: Mapping[str, Any]) -> CallResult:
        """Call the backend with an event. Raises CallFailed."""
        context, url, body = event["requestContext"], self.config.url, b""
        kind, message = context["eventType"], event.get("body", "")
        fields = [("X-Request-Id", context["requestId"])]
        fields += [("traceparent", value) for name, value in client.headers if name.lower() == "traceparent"][:1]
        method = "POST"
        if self.config.format == "event":
            body = event_body(event)
            fields.append(("Content-Type", "application/json"))
        else:
            method = self.config.method or ("GET" if kind == "CONNECT" else "POST")
            fields += self._http_fields(client, event, message)
            if kind == "CONNECT" and client.query:
                url += ("&" if "?" in url else "?") + quote(client.query, safe=IN_QUERY)
            body = message.encode()
        fields += standard_fields(self._signing, context["requestId"], body, time.time())
        timeout, target = self.config.timeout, self.config.url
        return call_result(await self._outgoing.call(url, body, fields, timeout=timeout, method=method, target=target))

    def _http_fields(self, client: AwsClient, event: Mapping[str, Any], message: str) -> list[tuple[str, str]]:
        """Return the headers of a call that is plain HTTP."""
        context = event["requestContext"]
        kind, parsed = context["eventType"], parse_message(message)
        mapped = [(name, as_field(value.find(event, parsed))) for name, value in self._headers]
        taken = {name.lower() for name, _ in mapped} | OWN | {"traceparent"}
        fields = []
        if kind == "CONNECT":
            fields += [
                (name, value)
                for name, value in client.headers
                if name.lower() not in taken and not name.lower().startswith(OURS)
            ]
        elif kind == "MESSAGE":
            is_json = parsed is not NO_JSON
            fields.append(("Content-Type", "application/json" if is_json else "text/plain; charset=utf-8"))
        else:
            fields.append(("X-Rawws-Close-Code", str(context["disconnectStatusCode"])))
            fields.append(("X-Rawws-Close-Reason", as_field(context["disconnectReason"])))
        fields.append(("X-Rawws-Connection-Id", context["connectionId"]))
        fields.append(("X-Rawws-Event", kind))
        fields.append(("X-Rawws-Route", as_field(context["routeKey"])))
        return [*(field for field in fields if field[0].lower() not in {n.lower() for n, _ in mapped}), *mapped]


def event_body(event: Mapping[str, Any]) -> bytes:
    """Return an event as a backend gets it: JSON in ASCII, which also names what has no octets."""
    return json.dumps(event, separators=(",", ":")).encode()


def as_field(value: str) -> str:
    """Return a value as a header can hold it: what is no printable ASCII is percent-encoded, in UTF-8."""
    return quote(value, safe=PRINTABLE, errors="replace").strip()
