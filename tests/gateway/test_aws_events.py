"""Events of API Gateway: as its documentation has them, and as the models of aws-lambda-powertools parse them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aws_lambda_powertools.utilities.parser.models import (
    APIGatewayWebSocketConnectEventModel,
    APIGatewayWebSocketDisconnectEventModel,
    APIGatewayWebSocketMessageEventModel,
)
from hypothesis import given
from hypothesis import strategies as st

from rawws import Headers
from rawws.gateway.aws_events import (
    AwsClient,
    authorizer_event,
    client_headers,
    connect_event,
    disconnect_event,
    log_time,
    message_event,
    new_request_id,
)

SENT = Headers([
    ("Host", "ws.example.com"), ("Origin", "https://example.com"), ("Connection", "Upgrade"), ("Upgrade", "websocket"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="), ("X-Forwarded-For", "203.0.113.1"), ("Cookie", "a=1"),
    ("Cookie", "b=2"), ("x-forwarded-proto", "gopher"), ("Forwarded", "for=203.0.113.1"),
])  # fmt: skip
CLIENT = AwsClient(
    connection_id="tlqaumKKX4o4gkw=",
    connected_at=1795772100123,
    source_ip="192.0.2.7",
    user_agent="Mozilla/5.0",
    host="ws.example.com",
    headers=client_headers(SENT, "192.0.2.7", 443, "wss"),
    query="room=a&room=b&empty=&%C3%BC=%20",
    domain="ws.example.com",
    stage="prod",
    api_id="chat",
)


def without_times(event: dict[str, Any]) -> dict[str, Any]:
    context = event["requestContext"]
    assert context.pop("requestId") == context.pop("extendedRequestId")
    assert context.pop("requestTime") == log_time(context.pop("requestTimeEpoch"))
    return event


CONTEXT = {
    "messageDirection": "IN",
    "connectionId": "tlqaumKKX4o4gkw=",
    "connectedAt": 1795772100123,
    "domainName": "ws.example.com",
    "stage": "prod",
    "apiId": "chat",
    "identity": {"sourceIp": "192.0.2.7", "userAgent": "Mozilla/5.0"},
}


def test_a_connect_has_headers_and_query() -> None:
    event = connect_event(CLIENT)
    APIGatewayWebSocketConnectEventModel.model_validate_json(json.dumps(event))
    assert without_times(event) == {
        "headers": {
            "Host": "ws.example.com", "Origin": "https://example.com", "Cookie": "b=2",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            "X-Forwarded-For": "192.0.2.7", "X-Forwarded-Port": "443", "X-Forwarded-Proto": "https",
        },
        "multiValueHeaders": {
            "Host": ["ws.example.com"], "Origin": ["https://example.com"], "Cookie": ["a=1", "b=2"],
            "Sec-WebSocket-Key": ["dGhlIHNhbXBsZSBub25jZQ=="],
            "X-Forwarded-For": ["192.0.2.7"], "X-Forwarded-Port": ["443"], "X-Forwarded-Proto": ["https"],
        },
        "queryStringParameters": {"room": "b", "empty": "", "ü": " "},
        "multiValueQueryStringParameters": {"room": ["a", "b"], "empty": [""], "ü": [" "]},
        "requestContext": {"routeKey": "$connect", "eventType": "CONNECT", **CONTEXT},
        "isBase64Encoded": False,
    }  # fmt: skip


def test_a_connect_without_a_query_has_no_members_for_one() -> None:
    event = connect_event(CLIENT._replace(query=""))
    assert {"queryStringParameters", "multiValueQueryStringParameters"} & {*event} == set()


def test_an_authorizer_gets_the_connect_with_its_arn() -> None:
    arn = "arn:aws:execute-api:local:000000000000:chat/prod/$connect"
    event = authorizer_event(CLIENT, arn)
    assert (event.pop("type"), event.pop("methodArn")) == ("REQUEST", arn)
    assert without_times(event) == without_times(connect_event(CLIENT))


def test_a_message_has_its_text_and_no_headers() -> None:
    event = message_event(CLIENT, "join", '{"action":"join"}')
    APIGatewayWebSocketMessageEventModel.model_validate_json(json.dumps(event))
    assert len(event["requestContext"].pop("messageId")) == 16
    assert without_times(event) == {
        "requestContext": {"routeKey": "join", "eventType": "MESSAGE", **CONTEXT},
        "body": '{"action":"join"}',
        "isBase64Encoded": False,
    }


def test_a_disconnect_has_its_code_and_four_headers() -> None:
    event = disconnect_event(CLIENT, 1001, "going away")
    APIGatewayWebSocketDisconnectEventModel.model_validate_json(json.dumps(event))
    assert event["headers"] == {
        "Host": "ws.example.com", "x-api-key": "", "X-Forwarded-For": "192.0.2.7", "x-restapi": ""
    }  # fmt: skip
    context = without_times(event)["requestContext"]
    assert context == {
        "routeKey": "$disconnect", "eventType": "DISCONNECT", **CONTEXT,
        "disconnectStatusCode": 1001, "disconnectReason": "going away",
    }  # fmt: skip


def test_what_the_authorizer_said_stands_in_each_later_event() -> None:
    client = CLIENT._replace(authorizer={"principalId": "u1", "integrationLatency": 3, "role": "admin"})
    for event in (connect_event(client), message_event(client, "x", ""), disconnect_event(client, 1000, "")):
        assert event["requestContext"]["authorizer"] == dict(client.authorizer)
    assert "authorizer" not in connect_event(CLIENT)["requestContext"]


def test_times_are_in_english_wherever_this_runs() -> None:
    assert log_time(1795772100124) == "27/Nov/2026:09:35:00 +0000"


def test_ids_look_like_those_of_aws_and_differ() -> None:
    ids = {new_request_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(len(each) == 16 and each.endswith("=") for each in ids)


@pytest.mark.parametrize(("scheme", "shown"), [("ws", "http"), ("wss", "https"), ("https", "https")])
def test_the_scheme_is_that_of_http(scheme: str, shown: str) -> None:
    assert ("X-Forwarded-Proto", shown) in client_headers(Headers(), "::1", 80, scheme)


@given(st.text(), st.text(), st.text(), st.integers(1000, 4999))
def test_whatever_clients_say_is_json_and_parsed(query: str, agent: str, text: str, code: int) -> None:
    client = CLIENT._replace(query=query, user_agent=agent, source_ip="2001:db8::1")
    for event, model in (
        (connect_event(client), APIGatewayWebSocketConnectEventModel),
        (message_event(client, text, text), APIGatewayWebSocketMessageEventModel),
        (disconnect_event(client, code, text), APIGatewayWebSocketDisconnectEventModel),
    ):
        model.model_validate_json(json.dumps(event))
