"""Calls of the own face: an application says who comes in, and what clients may do; one that fails harms no other."""

from __future__ import annotations

import base64
import json
import time
from typing import Any, Final

import pytest
from standardwebhooks import Webhook

import rawws
from rawws.gateway.grants import grant_of_answer
from tests.gateway.backends import BAD_BACKENDS, Backend, backend, bad_backend
from tests.gateway.own_running import EVERYTHING, everything, http, own, token_file
from tests.gateway.running import APP, SECRET, app_file, gateway

ANN: Final[dict[str, Any]] = {"user": "ann", "info": {"name": "Ann"}, "state": {"row": 7}}


def answered(status: int = 200, **fields: Any) -> rawws.Response:
    return rawws.Response.json(fields, status)


def calls_of(url: str, *names: str, more: str = "") -> str:
    calls = ", ".join(f'{name} = "{url}/{name}"' for name in names)
    return f'origins = ["*"]\ncalls = {{ {calls}, timeout = 29 }}\n{more}'


async def test_an_application_says_who_comes_in_and_is_told_its_state_again() -> None:
    def answer(request: rawws.HttpRequest) -> rawws.Response:
        asked = json.loads(request.body)
        if asked["call"] == "connect":
            return answered(**ANN)
        if asked["call"] == "subscribe":
            return rawws.Response(204) if asked["channel"] == "room" else answered(403, reason="not for you")
        if asked.get("data") == "shout":
            return answered(data="SHOUT")
        if "base64" in asked:
            return answered(base64=base64.b64encode(b"other").decode())
        return rawws.Response(204) if asked["data"] == {"a": 1} else answered(403)

    async with (
        backend(answer) as asked,
        gateway(app_file(calls_of(asked.url, "connect", "subscribe", "publish"))) as running,
    ):
        async with own(running.port, "a-token", additional_headers={"Cookie": "session=s"}) as ann:
            assert (await ann.ask(subscribe="room"))["recovered"]
            assert await ann.ask(subscribe="other") == {"id": 1, "error": "refused", "reason": "not for you"}
            await ann.ask(publish="room", data="shout")
            await ann.ask(publish="room", data='{"a":1}', json=True)
            await ann.ask(publish="room", base64="AAAA")
            assert (await ann.ask(publish="room", data="no"))["error"] == "refused"
            page = await ann.ask(history="room")
            assert [each.get("data", each.get("base64")) for each in page["publications"]] == [
                "SHOUT",
                '{"a":1}',
                "b3RoZXI=",
            ]
            assert {each["user"] for each in page["publications"]} == {"ann"}
        first, second, *_ = asked.events
        assert (first["app"], first["token"], first["address"]) == (APP, "a-token", "127.0.0.1")
        assert (first["headers"]["cookie"], first["query"]) == ("session=s", {"token": ["a-token"]})
        assert second == {
            "app": APP, "call": "subscribe", "connection": first["connection"], "user": "ann", "channel": "room",
            "state": {"row": 7},
        }  # fmt: skip
        # Each is signed as Standard Webhooks are.
        for request in asked.requests:
            library = Webhook(base64.b64encode(SECRET.encode()).decode())
            library.verify(request.body.decode(), {name.lower(): value for name, value in request.headers.items()})


async def test_polls_and_posts_ask_too() -> None:
    async with backend(lambda _: answered(user="ann", caps=EVERYTHING)) as asked:
        async with gateway(app_file(calls_of(asked.url, "connect"))) as running, http(running.port) as client:
            posted = await client.post(f"/connect/{APP}", json={"publish": "room", "data": "x"})
            polled = await client.get(f"/connect/{APP}", params={"topic": "room", "timeout": "0"})
            assert (posted.status_code, polled.status_code) == (200, 200)
            asked.answer = lambda _: answered(403, reason="go away")
            refused = await client.get(f"/connect/{APP}", params={"topic": "room", "timeout": "0"})
            assert (refused.status_code, refused.json()) == (403, {"error": "refused", "reason": "go away"})


async def test_a_token_says_who_and_a_call_says_what() -> None:
    async with backend(lambda _: rawws.Response(204)) as asked:
        text = token_file(f'calls = {{ subscribe = "{asked.url}/s", publish = "{asked.url}/p" }}')
        async with gateway(text) as running:
            async with own(running.port, everything("ann", caps=None)) as ann:
                assert "cursor" in await ann.ask(subscribe="room")
                assert "cursor" in await ann.ask(publish="room", data="x")
            async with own(running.port, everything("bob", caps=[])) as bob:
                assert (await bob.ask(subscribe="room"))["error"] == "refused"
        assert [event["call"] for event in asked.events] == ["subscribe", "publish"]


@pytest.mark.parametrize(
    ("answer", "ended"),
    [
        (answered(401), (4401, "the application lets nobody in so")),
        (answered(403, reason="not you"), (4403, "not you")),
        (answered(403, reason="a\nb"), (4403, "the application lets nobody in so")),
        (rawws.Response(403, "text"), (4403, "the application lets nobody in so")),
        (answered(500), (1013, "the application cannot be asked at this time")),
        (rawws.Response(200, "no JSON"), (1013, "the application cannot be asked at this time")),
        (rawws.Response(200, "[" * 50_000), (1013, "the application cannot be asked at this time")),
        (rawws.Response(200, "[]"), (1013, "the application cannot be asked at this time")),
        (answered(user=""), (1013, "the application cannot be asked at this time")),
        (answered(user="ann", expires=1), (4401, "the identity has expired")),
    ],
)  # fmt: skip
async def test_who_is_not_let_in_is_told(
    answer: rawws.Response, ended: tuple[int, str], caplog: pytest.LogCaptureFixture
) -> None:
    async with backend(lambda _: answer) as asked, gateway(app_file(calls_of(asked.url, "connect"))) as running:
        async with own(running.port) as client:
            assert await client.ended() == ended
    assert ended[0] != 1013 or "connect of the app 3 was answered with" in caplog.text
    caplog.clear()


def test_an_answer_that_grants_nothing_is_none() -> None:
    assert grant_of_answer({"user": "ann", "expires": time.time() + 9}).caps is None
    for wrong in (
        {"user": "ann", "state": "x" * 2047},
        {"user": "ann", "caps": [3]},
        {"user": 3},
        {"user": "a", "info": "x" * 1100},
    ):
        with pytest.raises((ValueError, TypeError)):
            grant_of_answer(wrong)


@pytest.mark.parametrize("answer", [rawws.Response(500), rawws.Response(200, "no JSON"), answered(base64="?")])
async def test_what_cannot_be_judged_is_unavailable_and_not_published(
    answer: rawws.Response, caplog: pytest.LogCaptureFixture
) -> None:
    async with backend(lambda _: answer) as asked:
        text = token_file(f'calls = {{ publish = "{asked.url}" }}')
        async with gateway(text) as running, own(running.port, everything("ann")) as ann:
            assert (await ann.ask(publish="room", data="x"))["error"] == "unavailable"
            assert not (await ann.ask(history="room"))["publications"]
    assert "publish of the app 3 was answered with" in caplog.text
    caplog.clear()


async def test_an_answer_without_data_publishes_what_was_said() -> None:
    async with backend(lambda _: answered(ok=True)) as asked:
        text = token_file(f'calls = {{ publish = "{asked.url}" }}')
        async with gateway(text) as running, own(running.port, everything("ann")) as ann:
            await ann.ask(publish="room", data="x")
            assert [each["data"] for each in (await ann.ask(history="room"))["publications"]] == ["x"]


async def test_applications_that_fail_in_each_way_harm_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """Backends that hang, break, drip and never end: their clients are told so, and others go on."""
    good: Backend
    async with backend(lambda _: answered(user="ann", caps=EVERYTHING)) as good:
        for kind, (answer, _) in BAD_BACKENDS.items():
            async with bad_backend(answer) as bad:
                bad_app = app_file(calls_of(bad.url, "connect").replace("timeout = 29", "timeout = 0.3"))
                other = (
                    app_file(calls_of(good.url, "connect"))
                    .replace(f'id = "{APP}"', 'id = "4"')
                    .replace('key = "2', 'key = "3')
                )
                async with gateway(bad_app + other) as running:
                    async with own(running.port) as eve, own(running.port, "", "4") as ann:
                        assert "cursor" in await ann.ask(subscribe="room")
                        assert (await eve.ended())[0] == 1013, kind
                        assert "cursor" in await ann.ask(publish="room", data="x")
                        assert running.gateway.of_app(APP) == 0
    assert caplog.text.count("connect of the app 3 failed") == len(BAD_BACKENDS)
    caplog.clear()
