"""Metrics of a gateway: what clients, servers, backends and hooks did, in numbers that a scrape reads."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pusher
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pusher.errors import PusherBadAuth

import rawws
import rawws.metrics
from rawws.backplanes.memory import Engine as Memory
from rawws.gateway.loading import read_config
from rawws.gateway.outgoing import IN_A_ROW, CallFailed, Outgoing
from rawws.gateway.spelling import ConnectionId, shown_url
from tests.gateway.aws_running import aws_gateway, chat_api, sdk
from tests.gateway.backends import Backend, backend
from tests.gateway.own_running import everything, http, own, token_file
from tests.gateway.running import APP, KEY, SECRET, Running, app_file, gateway, member, pair
from tests.server.peers import eventually


def read(running: Any) -> dict[str, float]:
    """Return what Prometheus reads of a gateway, by the name and the labels."""
    text = rawws.metrics.exposition(running.gateway.samples())
    return {
        " ".join([sample.name, *map("=".join, sorted(sample.labels.items()))]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def library(running: Running, secret: str = SECRET) -> pusher.Pusher:
    return pusher.Pusher(app_id=APP, key=KEY, secret=secret, ssl=False, host="127.0.0.1", port=running.port)


async def test_clients_and_servers_of_an_app_are_counted() -> None:
    async with gateway() as running:
        ws = await member(running.port, "presence-room", "ann")
        # Twice each: a count is more than that there was one.
        for _ in range(2):
            await ws.send(json.dumps({"event": "client-wave", "channel": "presence-room", "data": 1}))
            await asyncio.to_thread(library(running).trigger, "presence-room", "news", "x")
            while json.loads(await ws.recv())["event"] != "news":
                pass
            with pytest.raises(PusherBadAuth):
                await asyncio.to_thread(library(running, "wrong").trigger, "presence-room", "news", "x")
            async with rawws.connect(f"ws://127.0.0.1:{running.port}/app/unknown?protocol=7") as other:
                await other.recv()
        found = read(running)
        await ws.close()
        assert found["rawws_gateway_connections app=3 face=pusher"] == 1
        assert found["rawws_gateway_connections_opened_total app=3 face=pusher"] == 1
        assert found["rawws_gateway_connections_refused_total app= code=4001 face=pusher"] == 2
        # To subscribe, and the events; the greeting, that it is subscribed, and the news.
        assert found["rawws_gateway_messages_received_total app=3 face=pusher"] == 3
        assert found["rawws_gateway_messages_sent_total app=3 face=pusher"] == 4
        assert found["rawws_gateway_subscriptions app=3"] == 1
        assert found["rawws_gateway_published_total app=3 by=client"] == 2
        assert found["rawws_gateway_published_total app=3 by=server"] == 2
        assert found["rawws_gateway_requests_total app=3 face=pusher status=200"] == 2
        assert found["rawws_gateway_requests_total app=3 face=pusher status=401"] == 2
        assert found["rawws_gateway_instances"] == 1
        await eventually(lambda: read(running)["rawws_gateway_connections app=3 face=pusher"] == 0)
        assert read(running)["rawws_gateway_subscriptions app=3"] == 0


async def test_backends_of_an_api_are_counted_and_no_secret_of_a_url_is_shown() -> None:
    def answer(request: rawws.HttpRequest) -> dict[str, Any]:
        kind = json.loads(request.body)["requestContext"]["eventType"]
        return {"statusCode": 200, "body": "answer"} if kind == "MESSAGE" else {"statusCode": 403}

    async with backend(answer) as running:
        secret = f"{running.url}?token=secret"
        async with aws_gateway(chat_api(secret, "$default", route="response = true")) as aws:
            async with aws.connect() as ws:
                await ws.send("hello")
                assert await ws.recv() == "answer"
                await sdk(aws.port).post(aws.connection_id, "posted")
                assert await ws.recv() == "posted"
                client = sdk(aws.port, secret="wrong")
                with pytest.raises(client.exceptions.ForbiddenException):
                    await client.get(aws.connection_id)
            found = read(aws)
    url = f"url={running.url}"
    assert found[f"rawws_gateway_calls_total outcome=2xx {url}"] == 1
    assert found[f"rawws_gateway_call_seconds_count {url}"] == 1
    assert found[f"rawws_gateway_call_seconds_bucket le=+Inf {url}"] == 1
    assert found[f"rawws_gateway_calls_under_way {url}"] == found[f"rawws_gateway_breaker {url}"] == 0
    assert found["rawws_gateway_messages_received_total app=chat face=aws"] == 1
    assert found["rawws_gateway_messages_sent_total app=chat face=aws"] == 2
    assert found["rawws_gateway_requests_total app=chat face=aws status=200"] == 1
    assert found["rawws_gateway_requests_total app= face=aws status=403"] == 1
    assert "secret" not in " ".join(found)


async def test_what_an_application_is_asked_of_clients_of_rawws_v1_is_counted() -> None:
    async with backend(lambda _: rawws.Response.json({"user": "ann"})) as asked:
        calls = f'origins = ["*"]\ncalls = {{ connect = "{asked.url}" }}'
        async with gateway(app_file(calls)) as running:
            async with own(running.port, "a-token"):
                called = f"rawws_gateway_calls_total outcome=2xx url={asked.url}"
                await eventually(lambda: read(running).get(called) == 1)
                assert read(running)["rawws_gateway_connections app=3 face=own"] == 1
            for name in ("unknown", "other"):
                running.gateway.figures_of(name, "own").opened += 1
            assert read(running)["rawws_gateway_connections_opened_total app= face=own"] == 2


async def test_each_request_of_a_client_of_rawws_v1_is_counted_once_by_its_status() -> None:
    def counts(running: Running) -> dict[str, float]:
        name = "rawws_gateway_client_requests_total "
        return {key.removeprefix(name): value for key, value in read(running).items() if key.startswith(name)}

    path, token = f"/connect/{APP}", everything("ann")
    async with gateway(token_file("max_connections = 1")) as running, http(running.port) as client:
        stream = {"Accept": "text/event-stream"}
        asked: list[tuple[str, str, dict[str, Any], int]] = [
            ("GET", f"{path}?topic=room", {"headers": stream}, 401),
            ("GET", f"{path}?topic=room", {}, 401),
            ("POST", path, {"content": "{}"}, 400),
            ("POST", path, {"json": {"publish": "room", "id": 1, "data": "x"}}, 401),
            ("POST", path, {"content": b"x" * (1 << 20)}, 413),
            ("GET", path, {"content": b"x"}, 413),
            ("GET", f"{path}?topic=room&token={token}", {}, 200),
            ("POST", f"{path}?token={token}", {"json": {"publish": "room", "id": 1, "data": "x"}}, 200),
            ("GET", "/connect/nobody", {}, 404),
            ("POST", "/connect/nobody", {"content": "{}"}, 404),
        ]
        for method, at, more, status in asked:
            answer = await client.request(method, at, **more)
            assert answer.status_code == status, (method, at, answer.text)
        before = {"200": 2, "400": 1, "401": 3, "413": 2}
        found = counts(running)
        assert found == {
            **{f"app=3 face=own status={status}": count for status, count in before.items()},
            "app= face=own status=404": 2,
        }
        async with client.stream("GET", f"{path}?topic=room&token={token}", headers=stream) as held:
            assert held.status_code == 200
            # One connection is the limit: of a stream, and of a WebSocket, which is no request.
            refused = await client.get(f"{path}?topic=room&token={token}", headers=stream)
            assert refused.status_code == 503
            with pytest.raises(rawws.InvalidStatus):
                async with own(running.port, token):
                    pass
            found = counts(running)
            assert (found["app=3 face=own status=200"], found["app=3 face=own status=503"]) == (3, 1)
            assert read(running)["rawws_gateway_connections_refused_total app=3 code=503 face=own"] == 1
    assert not any(figures.requests for figures in running.gateway.figures.values())


async def test_a_poll_that_waits_is_counted_when_it_is_answered() -> None:
    async with gateway(token_file()) as running, http(running.port) as client:
        path = f"/connect/{APP}?topic=room&token={everything('ann')}"
        cursor = (await client.get(path)).json()["cursor"]
        figures = running.gateway.figures_of(APP, "own")
        waiting = asyncio.ensure_future(client.get(f"{path}&since={cursor}"))
        await eventually(lambda: running.server.stats().polls == 1)
        assert figures.asked == {200: 1}
        running.gateway.main.publish(f"{APP}/room", "x")
        cursor = (await waiting).json()["cursor"]
        assert figures.asked == {200: 2}
        assert (await client.get(f"{path}&since={cursor}&timeout=1")).status_code == 204
        assert figures.asked == {200: 2, 204: 1}


async def test_a_client_that_a_backend_refuses_is_counted() -> None:
    async with (
        backend(lambda _: {"statusCode": 403}) as running,
        aws_gateway(chat_api(running.url, "$connect")) as aws,
    ):
        for count in (1, 2):
            with pytest.raises(rawws.InvalidStatus):
                await aws.connect()
            assert read(aws)["rawws_gateway_connections_refused_total app=chat code=403 face=aws"] == count


async def test_a_breaker_is_shown_while_it_is_open() -> None:
    async with gateway() as running:
        outgoing = Outgoing()
        running.gateway.faces[0].outgoing = outgoing  # type: ignore[attr-defined]
        for _ in range(IN_A_ROW):
            with pytest.raises(CallFailed):
                await outgoing.call("http://127.0.0.1:9/", timeout=60)
        found = read(running)
        assert found["rawws_gateway_breaker url=http://127.0.0.1:9/"] == 2
        assert found["rawws_gateway_calls_total outcome=refused url=http://127.0.0.1:9/"] == IN_A_ROW


def hooked(running: Backend, more: str = "") -> str:
    return app_file(f'[[app.hook]]\nurl = "{running.url}"\nevents = ["*"]\n{more}')


async def test_hooks_are_counted_and_a_reload_takes_nothing_back(caplog: pytest.LogCaptureFixture) -> None:
    answers = iter([rawws.Response(503), rawws.Response(200)])
    async with backend(lambda _: next(answers, rawws.Response(400))) as receiver, gateway(hooked(receiver)) as running:
        labels = f"app=3 url={receiver.url}"
        found = read(running)
        # Alone, and with nothing to say: it knows what was told.
        assert found["rawws_gateway_state_keys"] == found["rawws_gateway_state_unsettled"] == 0
        assert found["rawws_gateway_state_behind"] == 0
        ws = await member(running.port, "presence-room", "ann")
        sent = f"rawws_gateway_hook_events_total app=3 outcome=sent url={receiver.url}"
        await eventually(lambda: read(running)[sent] >= 1)
        await eventually(lambda: read(running)["rawws_gateway_state_keys"] == 2)
        await eventually(lambda: read(running)[f"rawws_gateway_hook_waiting {labels}"] == 0)
        found = read(running)
        assert found[f"rawws_gateway_hook_retries_total {labels}"] == 1
        assert found[f"rawws_gateway_hook_age_seconds {labels}"] == found[f"rawws_gateway_hook_off {labels}"] == 0
        running.gateway.reload(read_config(app_file()))
        assert read(running)[sent] == found[sent]
        assert f"rawws_gateway_hook_waiting {labels}" not in read(running)
        running.gateway.reload(read_config(hooked(receiver)))
        assert read(running)[sent] == found[sent]
        await ws.close()
    # What fails is told in the log, too.
    assert len(caplog.records) >= 2
    caplog.clear()


async def test_what_instances_ask_each_other_is_counted(
    engines: list[Memory], caplog: pytest.LogCaptureFixture
) -> None:
    async with pair() as (one, other):
        await eventually(lambda: read(one)["rawws_gateway_instances"] == 2)
        for ident in (ConnectionId(other.gateway.instance, 5), ConnectionId(0, 5)):
            assert (await one.gateway.get(ident)).status == 410
        for engine in engines:
            engine.stop()
        await eventually(lambda: one.gateway.control.degraded)
        assert (await one.gateway.get(ConnectionId(other.gateway.instance, 5))).status == 503
        found = read(one)
        for outcome in ("answered", "gone", "away"):
            assert found[f"rawws_gateway_asked_total outcome={outcome}"] == 1
        for engine in engines:
            engine.start()
    caplog.clear()


async def test_a_server_has_what_its_gateway_counts_among_its_metrics() -> None:
    async with gateway() as running:
        text = rawws.metrics.exposition(rawws.metrics.samples_of(running.server))
        assert "# TYPE rawws_gateway_instances gauge" in text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:password@example.com:8443/hooks?token=secret#part", "https://example.com:8443/hooks"),
        ("http://[::1]:80", "http://[::1]:80"),
    ],
)
def test_of_a_url_what_may_be_secret_is_not_shown(url: str, shown: str) -> None:
    assert shown_url(url) == shown


def test_the_value_of_a_label_is_escaped() -> None:
    line = rawws.metrics.series("_total", app='a"b\\c\nd')
    assert line == '_total{app="a\\"b\\\\c\\nd"}'
    assert rawws.metrics.series("_total") == "_total"
