"""AWS events: what happened to a connection to the JSON that a Lambda function gets of it.

The shapes are those of API Gateway's documentation and of recorded events; the models of aws-lambda-powertools parse
them. Times are milliseconds since 1970, where they are numbers.
"""

from __future__ import annotations

import secrets
import time
from base64 import b64encode
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rawws.protocol.http11 import Headers

__all__ = [
    "AwsClient",
    "authorizer_event",
    "client_headers",
    "connect_event",
    "disconnect_event",
    "message_event",
    "new_request_id",
]

MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
# Said by a client, they would be believed: these are said by the gateway, or by nobody.
FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-port", "x-forwarded-proto", "x-forwarded-host")
# Of one connection between two hosts (RFC 9110 section 7.6.1).
HOP_BY_HOP = ("connection", "upgrade", "keep-alive", "te", "trailer", "transfer-encoding", "proxy-connection")


class AwsClient(NamedTuple):
    """What all events of a connection say of it."""

    connection_id: str
    connected_at: int
    source_ip: str
    user_agent: str
    # Of the request: what it asked for, and what it had behind the `?`.
    host: str
    headers: tuple[tuple[str, str], ...]
    query: str
    # Of the API.
    domain: str
    stage: str
    api_id: str
    # What the authorizer said, once it said it.
    authorizer: Mapping[str, Any] = {}


def new_request_id() -> str:
    """Return an id for a request or a message, at random: 16 characters, as API Gateway's are."""
    return b64encode(secrets.token_bytes(11)).decode()


def client_headers(headers: Headers, address: str, port: int, scheme: str) -> tuple[tuple[str, str], ...]:
    """Return the headers of a handshake as an event has them: where it came from is said by us alone."""
    own = [(name, value) for name, value in headers.raw_items() if name.lower() not in {*FORWARDED, *HOP_BY_HOP}]
    return (
        *own,
        ("X-Forwarded-For", address),
        ("X-Forwarded-Port", str(port)),
        ("X-Forwarded-Proto", {"wss": "https", "ws": "http"}.get(scheme, scheme)),
    )


def connect_event(client: AwsClient) -> dict[str, Any]:
    """Return the event of a client that wants to connect."""
    event: dict[str, Any] = _with_headers(client.headers)
    pairs = parse_qsl(client.query, keep_blank_values=True)
    if pairs:
        event["queryStringParameters"] = dict(pairs)
        event["multiValueQueryStringParameters"] = _by_name(pairs)
    event["requestContext"] = _context(client, "$connect", "CONNECT")
    event["isBase64Encoded"] = False
    return event


def authorizer_event(client: AwsClient, arn: str) -> dict[str, Any]:
    """Return the same as an authorizer gets it, with the ARN of what is asked for."""
    return {"type": "REQUEST", "methodArn": arn, **connect_event(client)}


def message_event(client: AwsClient, route: str, body: str) -> dict[str, Any]:
    """Return the event of a message, with the route that it chose."""
    context = _context(client, route, "MESSAGE") | {"messageId": new_request_id()}
    return {"requestContext": context, "body": body, "isBase64Encoded": False}


def disconnect_event(client: AwsClient, code: int, reason: str) -> dict[str, Any]:
    """Return the event of a connection that ended, with its close code and reason."""
    address = next((value for name, value in client.headers if name == "X-Forwarded-For"), "")
    fields = [("Host", client.host), ("x-api-key", ""), ("X-Forwarded-For", address), ("x-restapi", "")]
    context = _context(client, "$disconnect", "DISCONNECT")
    context |= {"disconnectStatusCode": code, "disconnectReason": reason}
    return {**_with_headers(fields), "requestContext": context, "isBase64Encoded": False}


def _context(client: AwsClient, route: str, kind: str) -> dict[str, Any]:
    now = time.time_ns() // 1_000_000
    request_id = new_request_id()
    context = {
        "routeKey": route,
        "eventType": kind,
        "messageDirection": "IN",
        "connectionId": client.connection_id,
        "connectedAt": client.connected_at,
        "requestTime": log_time(now),
        "requestTimeEpoch": now,
        # "requestId: Same as extendedRequestId" (API Gateway's documentation).
        "requestId": request_id,
        "extendedRequestId": request_id,
        "domainName": client.domain,
        "stage": client.stage,
        "apiId": client.api_id,
        "identity": {"sourceIp": client.source_ip, "userAgent": client.user_agent},
    }
    return context | {"authorizer": dict(client.authorizer)} if client.authorizer else context


def log_time(milliseconds: int) -> str:
    """Return a time as the Common Log Format has it, in English wherever this runs."""
    at = time.gmtime(milliseconds // 1000)
    return time.strftime(f"%d/{MONTHS[at.tm_mon - 1]}/%Y:%H:%M:%S +0000", at)


def _with_headers(fields: Iterable[tuple[str, str]]) -> dict[str, Any]:
    fields = list(fields)
    return {"headers": dict(fields), "multiValueHeaders": _by_name(fields)}


def _by_name(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found
