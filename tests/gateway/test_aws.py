"""The AWS face with unmodified boto3, and backends that answer as they should and as they should not."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import ProxyHandler, Request, build_opener

import botocore.auth
import pytest
import websockets
from aws_lambda_powertools.utilities.parser.models import (
    APIGatewayWebSocketConnectEventModel,
    APIGatewayWebSocketDisconnectEventModel,
    APIGatewayWebSocketMessageEventModel,
)
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

import rawws
from rawws.backplanes.memory import Engine as Memory
from rawws.gateway.aws import AwsApi, AwsConnection
from rawws.gateway.config import ConfigError
from rawws.gateway.loading import read_config
from rawws.gateway.outgoing import Outgoing
from rawws.gateway.spelling import ConnectionId
from tests.gateway.aws_running import KEY, SECRET, aws_gateway, chat_api, event_of, sdk
from tests.gateway.backends import BAD_BACKENDS, backend, bad_backend
from tests.gateway.running import KEY as PUSHER_KEY
from tests.gateway.running import app_file
from tests.processes import free_port
from tests.server.peers import Logged, eventually, set_at_end

MODELS: dict[str, Any] = {
    "CONNECT": APIGatewayWebSocketConnectEventModel,
    "MESSAGE": APIGatewayWebSocketMessageEventModel,
    "DISCONNECT": APIGatewayWebSocketDisconnectEventModel,
}


def ok(_: rawws.HttpRequest) -> dict[str, Any]:
    return {"statusCode": 200}


def parsed(requests: list[rawws.HttpRequest]) -> list[dict[str, Any]]:
    """Return the events that came, each parsed by its model."""
    events = [event_of(request) for request in requests]
    for event in events:
        MODELS[event["requestContext"]["eventType"]].model_validate_json(json.dumps(event))
    return events


@pytest.mark.parametrize("token", [None, "temporary+credentials/=="])
async def test_a1_boto3_posts_gets_and_deletes(token: str | None) -> None:
    async with backend(ok) as running, aws_gateway(chat_api(running.url, "$connect", "$disconnect")) as gateway:
        client = sdk(gateway.port, token=token)
        async with gateway.connect(user_agent_header="chat/1") as ws:
            ident = gateway.connection_id
            assert len(ident) == 16
            await client.post(ident, '{"text":"Grüße"}')
            assert await ws.recv() == '{"text":"Grüße"}'
            await client.post(ident, b"octets")
            assert await ws.recv() == "octets"
            found = await client.get(ident)
            for name in ("ConnectedAt", "LastActiveAt"):
                assert found[name].tzinfo is not None
                assert abs(found[name] - dt.datetime.now(dt.UTC)) < dt.timedelta(seconds=60)
            assert found["Identity"] == {"SourceIp": "127.0.0.1", "UserAgent": "chat/1"}
            deleted = await client.delete(ident)
            assert deleted["ResponseMetadata"]["HTTPStatusCode"] == 204
            with pytest.raises(rawws.ConnectionClosedOK):
                await ws.recv()
            assert (ws.close_code, ws.close_reason) == (1000, "Connection Closed Normally")
        await running.wait_for(2)
        connect, disconnect = parsed(running.requests)
        assert connect["requestContext"]["connectionId"] == disconnect["requestContext"]["connectionId"] == ident
        assert disconnect["requestContext"]["disconnectStatusCode"] == 1000


async def test_a2_errors_are_the_exceptions_of_boto3() -> None:
    async with aws_gateway(chat_api("http://127.0.0.1:9/")) as gateway:
        client = sdk(gateway.port)
        async with gateway.connect(max_size=None) as ws:
            ident = gateway.connection_id
            await client.post(ident, "x" * 131_072)
            assert len(await ws.recv()) == 131_072
            with pytest.raises(client.exceptions.PayloadTooLargeException):
                await client.post(ident, "x" * 131_073)
            with pytest.raises(ClientError) as caught:
                await client.post("nonsense", "x")
            assert caught.value.response["Error"]["Code"] == "BadRequestException"
            with pytest.raises(ClientError) as caught:
                await client.post(ident, b"\xff")
            assert caught.value.response["Error"]["Code"] == "BadRequestException"
            for wrong in (sdk(gateway.port, secret="wrong"), sdk(gateway.port, key="AKIDUNKNOWN")):
                for call in (wrong.post(ident, "x"), wrong.get(ident), wrong.delete(ident)):
                    with pytest.raises(wrong.exceptions.ForbiddenException):
                        await call
        for gone in (ident, "AAAAAAAAAAAAAAA="):
            for call in (client.post(gone, "x"), client.get(gone), client.delete(gone)):
                with pytest.raises(client.exceptions.GoneException):
                    await call


def signed_request(url: str, body: bytes, *, service: str = "execute-api", method: str = "POST") -> Request:
    """Return a request that is signed as botocore signs."""
    request = AWSRequest(method, url, {}, body)
    SigV4Auth(Credentials(KEY, SECRET), service, "eu-central-1").add_auth(request)
    return Request(url, body, dict(request.headers), method=method)


async def asked(request: Request) -> tuple[int, str | None]:
    """Return the status and the type of the error that a request is answered with."""

    def ask() -> tuple[int, str | None]:
        try:
            with build_opener(ProxyHandler({})).open(request, timeout=60) as answer:
                return answer.status, None
        except HTTPError as error:
            with error:
                return error.code, error.headers["x-amzn-errortype"]

    return await asyncio.to_thread(ask)


async def test_a2_a_signature_that_does_not_fit_is_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    forbidden = (403, "ForbiddenException")
    async with aws_gateway(chat_api("http://127.0.0.1:9/")) as gateway, gateway.connect() as ws:
        url = f"http://127.0.0.1:{gateway.port}/prod/@connections/{quote(gateway.connection_id)}"
        assert await asked(signed_request(url, b"x", service="lambda")) == forbidden
        changed = signed_request(url, b"x")
        changed.data = b"y"
        assert await asked(changed) == forbidden
        assert await asked(Request(url, b"x", method="POST")) == forbidden
        for minutes in (6, -6):
            at = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=minutes)
            with monkeypatch.context() as patched:
                patched.setattr(botocore.auth, "get_current_datetime", lambda at=at: at)
                old = signed_request(url, b"x")
            assert await asked(old) == forbidden
        assert await asked(signed_request(url, b"good")) == (200, None)
        assert await ws.recv() == "good"


@pytest.mark.parametrize("path", ["/prod/%40connections/{}", "/prod/@connections/{}/", "/@connections/{}"])
async def test_a5_the_path_may_be_spelled_otherwise(path: str) -> None:
    async with aws_gateway(chat_api("http://127.0.0.1:9/")) as gateway, gateway.connect() as ws:
        url = f"http://127.0.0.1:{gateway.port}{path.format(quote(gateway.connection_id, safe=''))}"
        assert await asked(signed_request(url, b"text")) == (200, None)
        assert await ws.recv() == "text"
        assert await asked(signed_request(url, b"", method="GET")) == (200, None)


async def test_a2_a_client_that_does_not_read_is_left_alone_and_stays() -> None:
    async with aws_gateway(chat_api("http://127.0.0.1:9/")) as gateway, gateway.connect() as ws:
        client, ident, sent = sdk(gateway.port), gateway.connection_id, 0
        with pytest.raises(client.exceptions.LimitExceededException):
            while True:
                await client.post(ident, f"{sent:<100000}")
                sent += 1
        for number in range(sent):
            assert int(await ws.recv()) == number
        while True:
            try:
                await client.post(ident, "still here")
                break
            except client.exceptions.LimitExceededException:
                await asyncio.sleep(0)
        assert await ws.recv() == "still here"


async def test_a_key_of_one_api_reaches_no_connection_of_another_at_any_instance(engines: list[Memory]) -> None:
    own = chat_api("http://127.0.0.1:9/")
    other = own.replace('"chat"', '"other"').replace("/prod", "/other").replace(KEY, "AKIDOTHER")
    text = f"{own}\n{other}\n{app_file()}"
    async with aws_gateway(text) as one, aws_gateway(text) as two, one.connect() as ws, two.connect("/other") as theirs:
        ident = one.connection_id
        for gateway in (one, two):
            client, foreign = sdk(gateway.port), sdk(gateway.port, "/other", key="AKIDOTHER")
            for call in (foreign.post(ident, "x"), foreign.get(ident), foreign.delete(ident)):
                with pytest.raises(foreign.exceptions.GoneException):
                    await call
            await foreign.post(two.connection_id, "theirs")
            assert await theirs.recv() == "theirs"
            # Nor by the path of the other one, or by none.
            for path in ("/other", ""):
                with pytest.raises(client.exceptions.ClientError) as caught:
                    await sdk(gateway.port, path).delete(two.connection_id)
                assert caught.value.response["Error"]["Code"] in {"ForbiddenException", "GoneException"}
            # Nor one of a client of Pusher.
            pusher = await rawws.connect(f"ws://127.0.0.1:{one.port}/app/{PUSHER_KEY}?protocol=7", proxy=None)
            told = json.loads(json.loads(await pusher.recv())["data"])
            with pytest.raises(client.exceptions.GoneException):
                await client.delete(ConnectionId.parse(told["socket_id"]).aws)
            await pusher.close()
            await client.post(ident, "own")
            assert await ws.recv() == "own"


def test_a_key_has_one_secret_whichever_apis_it_is_of() -> None:
    own = chat_api("http://127.0.0.1:9/")
    other = own.replace('"chat"', '"other"').replace("/prod", "/other")
    assert len(read_config(f"{own}\n{other}").apis) == 2
    with pytest.raises(ConfigError, match=r"api\[1\]\.credentials\[0\]\.key: another API has it with another secret"):
        read_config(f"{own}\n{other.replace(SECRET, 'guessed')}")


def test_expressions_are_refused_where_the_configuration_is_read() -> None:
    text = chat_api("http://h/", "$default", api='route_selection = "$context.x"', route='headers = { a = "text" }')
    with pytest.raises(ConfigError) as caught:
        read_config(text)
    first, second = sorted(caught.value.mistakes)
    assert "route[0].headers.a: " in first
    assert "api[0].route_selection: the expression is" in second


CONNECTS = [
    (rawws.Response(200), 101),
    (rawws.Response(204), 101),
    ({"statusCode": 200}, 101),
    (rawws.Response(400), 400),
    (rawws.Response(403), 403),
    ({"statusCode": 401, "body": "no"}, 401),
    (rawws.Response(302, b"", {"Location": "/"}), 302),
    (rawws.Response(500), 502),
    ({"statusCode": 500}, 502),
    ({"statusCode": 20}, 502),
    ({"statusCode": 200, "body": 5}, 502),
    ({"statusCode": 200, "body": "%", "isBase64Encoded": True}, 502),
    ({"errorMessage": "it failed", "errorType": "Exception"}, 502),
]


async def status_of(connecting: rawws.connect) -> int:
    """Return the status of a handshake."""
    try:
        async with connecting:
            return 101
    except rawws.HandshakeError as error:
        return error.status


@pytest.mark.parametrize(("answer", "status"), CONNECTS)
async def test_a9_the_backend_says_who_may_connect(answer: Any, status: int) -> None:
    async with backend(lambda _: answer) as running, aws_gateway(chat_api(running.url, "$connect")) as gateway:
        assert await status_of(gateway.connect()) == status


async def test_a9_a_backend_that_does_not_answer_lets_nobody_in(logged: Logged) -> None:
    hangs = BAD_BACKENDS["hangs"][0]
    async with bad_backend(hangs) as bad, aws_gateway(chat_api(bad.url, "$connect", route="timeout = 0.1")) as gateway:
        assert await status_of(gateway.connect()) == 504
        assert await status_of(gateway.connect("/prod/")) == 504
    dead = f"http://127.0.0.1:{free_port()}/"
    async with aws_gateway(chat_api(dead, "$connect")) as gateway:
        assert [await status_of(gateway.connect()) for _ in range(6)] == [502] * 5 + [503]
    logged.take_all("$connect of chat failed", 8)


ARN = "arn:aws:execute-api:local:000000000000:chat/prod/$connect"


def policy(effect: str = "Allow", resource: Any = ARN, **more: Any) -> dict[str, Any]:
    statement = {"Action": "execute-api:Invoke", "Effect": effect, "Resource": resource}
    return {"principalId": "u1", "policyDocument": {"Version": "2012-10-17", "Statement": [statement]}, **more}


ALLOWED = policy()["policyDocument"]["Statement"][0]
AUTHORIZERS = [
    (policy(), 101),
    (policy(resource="arn:aws:execute-api:*:*:chat/*"), 101),
    (policy(resource=["no", "arn:aws:execute-api:*/$connec?"]), 101),
    (policy(context={"role": "admin", "level": 3, "on": True}), 101),
    (policy("Deny"), 403),
    (policy(resource="arn:aws:execute-api:local:000000000000:other/*"), 403),
    # Of a refusal that is not understood, nobody knows whom it is about.
    (policy(policyDocument={"Statement": [ALLOWED, {"Effect": "Deny", "NotResource": "x"}]}), 403),
    (policy(principalId=""), 403),
    (policy(principalId=None), 403),
    ({"errorMessage": "Unauthorized", "errorType": "Exception"}, 401),
    ({"errorMessage": "Unauthorized user", "errorType": "Exception"}, 500),
    ({"errorMessage": "a mistake", "errorType": "KeyError"}, 500),
    (rawws.Response(401), 401),
    (rawws.Response(403), 403),
    (rawws.Response(404), 500),
    (policy(context={"much": "x" * 9216}), 500),
    # 8 KiB as JSON, and a byte more.
    (policy(context={"much": "x" * 8180}), 101),
    (policy(context={"much": "x" * 8181}), 500),
    (policy(context={"deep": {}}), 500),
    (policy(context=[1]), 500),
    (policy(policyDocument="text"), 500),
    ("no JSON", 500),
    (["a", "list"], 500),
]


@pytest.mark.parametrize(("answer", "status"), AUTHORIZERS)
async def test_a9_an_authorizer_says_who_may_connect(answer: Any, status: int) -> None:
    async with backend(lambda _: answer) as running, backend(ok) as connects:
        api = f'authorizer = {{ url = "{running.url}", identity = ["route.request.querystring.token"] }}'
        async with aws_gateway(chat_api(connects.url, "$connect", api=api)) as gateway:
            assert await status_of(gateway.connect("/prod?token=x")) == status
            assert event_of(running.requests[0])["methodArn"] == ARN
            # Without its identity nobody is asked.
            assert await status_of(gateway.connect("/prod?Token=x")) == 401
            assert len(running.requests) == 1
        assert len(connects.requests) == (status == 101)
        if status == 101:
            told = event_of(connects.requests[0])["requestContext"]["authorizer"]
            assert told.pop("integrationLatency") >= 0
            assert told == {"principalId": "u1", **answer.get("context", {})}


@pytest.mark.parametrize(
    ("status", "message"), [(401, "Unauthorized"), (403, "Forbidden"), (500, "Internal server error")]
)
async def test_a9_a_client_that_is_refused_is_told_in_the_words_of_aws(status: int, message: str) -> None:
    async with backend(lambda _: rawws.Response(status)) as running:
        text = chat_api(running.url, api=f'authorizer = {{ url = "{running.url}" }}')
        async with aws_gateway(text) as gateway:
            with pytest.raises(rawws.InvalidStatus) as caught:
                await gateway.connect()
    assert (caught.value.status, json.loads(caught.value.response.body)["message"]) == (status, message)


async def test_an_api_that_is_full_has_clients_come_back_later() -> None:
    async with aws_gateway(chat_api("http://127.0.0.1:9/", api="max_connections = 1")) as gateway, gateway.connect():
        with pytest.raises(rawws.InvalidStatus) as caught:
            await gateway.connect()
    assert (caught.value.status, caught.value.response.headers["Retry-After"]) == (503, "1")


async def test_a9_an_authorizer_that_fails_lets_nobody_in(logged: Logged) -> None:
    api = f'authorizer = {{ url = "http://127.0.0.1:{free_port()}/" }}'
    async with aws_gateway(chat_api("http://127.0.0.1:9/", api=api)) as gateway:
        assert await status_of(gateway.connect()) == 500
    logged.take_all("the authorizer of chat failed", 1)


def lambda_chat(request: rawws.HttpRequest) -> dict[str, Any]:
    event = event_of(request)
    return {"statusCode": 200, "body": f"{event['requestContext']['routeKey']} {event['body']}"}


async def test_messages_go_to_their_routes_in_order_and_answers_come_back() -> None:
    async with backend(lambda_chat) as running:
        text = chat_api(running.url, "join", "$default", route="response = true")
        async with aws_gateway(text) as gateway, gateway.connect() as ws:
            messages = ['{"action":"join"}', '{"action":"other"}', "no JSON", '{"action":"$connect"}']
            messages += [f'{{"action":"join","n":{number}}}' for number in range(40)]
            for message in messages:
                await ws.send(message)
            keys = ["join", "$default", "$default", "$default"] + ["join"] * 40
            assert [await ws.recv() for _ in messages] == [f"{k} {m}" for k, m in zip(keys, messages, strict=True)]
        assert [event["body"] for event in parsed(running.requests)] == messages


async def test_what_waits_for_a_slow_backend_is_bounded_in_bytes_and_comes_behind_that() -> None:
    going = asyncio.Event()

    async def slow(request: rawws.HttpRequest) -> dict[str, Any]:
        await going.wait()
        return lambda_chat(request)

    async with backend(slow) as running:
        text = chat_api(running.url, "$default", route="response = true")
        async with aws_gateway(text) as gateway, gateway.connect(compression=None) as ws, set_at_end(going):
            # Fewer than may wait.
            messages = [f"{number} {'x' * 32_000}" for number in range(14)]
            for message in messages:
                await ws.send(message)
            [connection] = gateway.gateway.connections.values()
            assert isinstance(connection, AwsConnection)
            await eventually(lambda: connection.is_full)
            assert (len(connection.waiting), connection.waiting_size) == (9, 9 * 32_002)
            going.set()
            assert [await ws.recv() for _ in messages] == [f"$default {message}" for message in messages]
            assert connection.waiting_size == 0


async def test_a_message_without_a_route_and_one_that_fails_are_told(logged: Logged) -> None:
    answer: Any = rawws.Response(500)
    async with backend(lambda _: answer) as running, aws_gateway(chat_api(running.url, "join")) as gateway:
        async with gateway.connect() as ws:
            await ws.send("hello")
            await ws.send('{"action":"join"}')
            ident = gateway.connection_id
            for message in ("Forbidden", "Internal server error"):
                told = json.loads(await ws.recv())
                assert (told["message"], told["connectionId"], len(told["requestId"])) == (message, ident, 16)
    dead = f"http://127.0.0.1:{free_port()}/"
    async with aws_gateway(chat_api(dead, "$default")) as gateway, gateway.connect() as ws:
        await ws.send("hello")
        assert json.loads(await ws.recv())["message"] == "Internal server error"
    logged.take_all("$default of chat failed", 1)


async def test_plain_http_has_the_text_and_mapped_headers() -> None:
    route = 'format = "http"'
    default = 'headers = { connectionId = "context.connectionId", room = "route.request.body.room" }'
    async with backend(lambda _: None) as running:
        text = chat_api(running.url, "$connect", "$default", "$disconnect", route=route, **{"$default": default})
        async with aws_gateway(text) as gateway:
            forged = {"X-Rawws-Connection-Id": "forged", "X-Own": "1"}
            async with gateway.connect("/prod?a=%20b", additional_headers=forged) as ws:
                ident = gateway.connection_id
                await ws.send('{"room":"ü\\r\\nx"}')
                await running.wait_for(2)
            await running.wait_for(3)
        connect, message, disconnect = running.requests
        assert (connect.method, connect.head.path, connect.headers["X-Own"]) == ("GET", "/backend?a=%20b", "1")
        assert "Sec-WebSocket-Key" not in connect.headers
        assert (message.method, message.body) == ("POST", b'{"room":"\xc3\xbc\\r\\nx"}')
        assert (message.headers["connectionId"], message.headers["room"]) == (ident, "%C3%BC%0D%0Ax")
        assert disconnect.headers["X-Rawws-Close-Code"] == "1000"
        assert [each.headers["X-Rawws-Connection-Id"] for each in running.requests] == [ident] * 3


async def test_a10_what_is_too_large_or_binary_is_refused() -> None:
    async with backend(ok) as running, aws_gateway(chat_api(running.url, "$default")) as gateway:
        for message, code in ((b"binary", 1003), ("x" * 32_769, 1009)):
            async with gateway.connect(compression=None) as ws:
                await ws.send(message)
                with pytest.raises(rawws.ConnectionClosed):
                    await ws.recv()
                assert ws.close_code == code


async def test_a10_a_message_may_have_128_kib_in_frames_of_32_kib() -> None:
    frames = ["x" * 32_768] * 4
    async with backend(ok) as running, aws_gateway(chat_api(running.url, "$default")) as gateway:
        url = f"ws://127.0.0.1:{gateway.port}/prod"
        async with websockets.connect(url, compression=None, proxy=None) as ws:
            await ws.send(frames)
            await running.wait_for(1)
            assert len(event_of(running.requests[0])["body"]) == 131_072
            await ws.send([*frames, "x"])
            await ws.wait_closed()
            assert ws.close_code == 1009
    assert len(running.requests) == 1


async def test_the_backend_chooses_the_subprotocol() -> None:
    answer = {"statusCode": 200, "headers": {"Sec-WebSocket-Protocol": "chat.v2"}}
    async with backend(lambda _: answer) as running, aws_gateway(chat_api(running.url, "$connect")) as gateway:
        async with gateway.connect(subprotocols=["chat.v1", "chat.v2"]) as ws:
            assert ws.subprotocol == "chat.v2"


@pytest.mark.parametrize("event", ["$connect", "$disconnect"])
async def test_no_client_can_say_that_it_comes_or_goes(event: str) -> None:
    config = read_config(chat_api("http://127.0.0.1:1/", "$connect", "$disconnect", "$default")).apis[0]
    outgoing = Outgoing()
    api = AwsApi(config, outgoing)
    assert api.route_of(json.dumps({"action": event})) is api.routes["$default"]
    await outgoing.close()
