"""Calls as a backend gets them: signed, and with the trace that the client began."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import standardwebhooks

from rawws.gateway.calls import as_field, call_result
from rawws.gateway.outgoing import BackendAnswer
from tests.gateway.aws_running import aws_gateway, chat_api, event_of
from tests.gateway.backends import backend
from tests.gateway.test_aws import ok, policy

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize("format_", ["event", "http"])
@pytest.mark.parametrize("secret", ["whsec_" + base64.b64encode(bytes(range(24))).decode(), "as it is"])
async def test_every_call_is_signed_and_says_the_trace_of_its_client(secret: str, format_: str) -> None:
    async with backend(ok) as running, backend(lambda _: policy()) as authorizer:
        api = f'signing = "{secret}"\nauthorizer = {{ url = "{authorizer.url}" }}'
        text = chat_api(running.url, "$connect", "$default", "$disconnect", api=api, route=f'format = "{format_}"')
        async with aws_gateway(text) as gateway:
            forged = {"traceparent": TRACE, "webhook-id": "forged", "Webhook-Signature": "v1,forged"}
            async with gateway.connect(additional_headers=forged) as ws:
                await ws.send('{"text":"Grüße"}')
                await running.wait_for(2)
            await running.wait_for(3)
    receiver = standardwebhooks.Webhook(secret if secret.startswith("whsec_") else secret.encode())
    idents = set()
    for request in [*authorizer.requests, *running.requests]:
        headers = {name: request.headers.get_all(name) for name in ("webhook-id", "webhook-timestamp")}
        headers["webhook-signature"] = request.headers.get_all("webhook-signature")
        assert {name: len(values) for name, values in headers.items()} == dict.fromkeys(headers, 1)
        told = {name: values[0] for name, values in headers.items()}
        if request.body.startswith(b"{"):
            receiver.verify(request.body, told)
            with pytest.raises(standardwebhooks.WebhookVerificationError):
                receiver.verify(request.body + b" ", told)
        assert told["webhook-id"] == request.headers["X-Request-Id"]
        idents.add(told["webhook-id"])
    assert len(idents) == 4
    assert [each.headers.get_all("traceparent") for each in running.requests] == [[TRACE]] * 3


async def test_without_a_secret_nothing_is_signed() -> None:
    async with backend(ok) as running, aws_gateway(chat_api(running.url, "$connect")) as gateway:
        async with gateway.connect(additional_headers={"webhook-signature": "v1,forged"}):
            pass
        [request] = running.requests
        assert request.headers.get("webhook-signature") is None
        assert request.headers.get("traceparent") is None
        # In the event, the client's own words are those of the client.
        assert event_of(request)["headers"]["webhook-signature"] == "v1,forged"


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b"text", (200, b"text")),
        (404, b"[]", (404, b"[]")),
        (200, b'{"statusCode":201,"body":"b"}', (201, b"b")),
        (200, b'{"statusCode":200,"body":"Yg==","isBase64Encoded":true}', (200, b"b")),
        (200, b'{"statusCode":true}', (200, b'{"statusCode":true}')),
        (200, b'{"statusCode":99}', (502, b"")),
        (200, b'{"statusCode":200,"headers":[1]}', (502, b"")),
        (200, b'{"errorMessage":"","errorType":"E"}', (500, b'{"errorMessage":"","errorType":"E"}')),
        (200, b'{"errorMessage":"no error"}', (200, b'{"errorMessage":"no error"}')),
    ],
)
def test_an_answer_is_that_of_a_function_or_of_http(status: int, body: bytes, expected: Any) -> None:
    result = call_result(BackendAnswer(status, (("x", "1"), ("x", "2")), body))
    assert (result.status, result.body) == expected


def test_of_two_headers_the_first_counts_and_no_octet_raises() -> None:
    result = call_result(BackendAnswer(200, (("x", "1"), ("x", "2")), b"\xff"))
    assert (result.headers, result.text) == ({"x": "1"}, "\ufffd")
    assert as_field(" ü\r\n\ud800 ") == "%C3%BC%0D%0A?"
