"""The HTTP API of the Pusher face, request by request."""

from __future__ import annotations

import hashlib
import json
import time
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

import rawws
from rawws.gateway import pusher_rules
from rawws.gateway.control import RegistryAway
from rawws.gateway.loading import read_config
from rawws.gateway.pusher_rules import signature_of
from tests.gateway.running import APP, KEY, SECRET, Running, app_file, gateway
from tests.gateway.test_pusher_protocol import greeted

EVENT = {"name": "e", "data": "d", "channels": ["a"]}


async def ask(
    running: Running, method: str, path: str, body: Any = None, *, secret: str = SECRET, **query: str | None
) -> httpx.Response:
    """Ask as a server does; what is None in the query is left out."""
    octets = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    params: dict[str, str | None] = {
        "auth_key": KEY,
        "auth_timestamp": str(int(time.time())),
        "auth_version": "1.0",
        "body_md5": hashlib.md5(octets).hexdigest(),
        **query,
    }
    found = {name: value for name, value in params.items() if value is not None}
    text = f"{method}\n{path}\n" + "&".join(f"{name}={found[name]}" for name in sorted(found))
    found["auth_signature"] = signature_of(secret, text)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{running.port}", timeout=60) as client:
        return await client.request(method, path, params=found, content=octets)


def path(rest: str) -> str:
    return f"/apps/{APP}/{rest}"


# -- signatures


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"auth_version": "2.0"}, "auth_version is '2.0', allowed is 1.0"),
        ({"auth_version": None}, "auth_version is '', allowed is 1.0"),
        ({"auth_timestamp": "soon"}, "auth_timestamp is 'soon'"),
        ({"auth_timestamp": "²"}, "auth_timestamp is '²'"),
        ({"auth_timestamp": "1" * 16}, "auth_timestamp is '1111"),
        ({"auth_timestamp": str(int(time.time()) - 900)}, "allowed are times within 600 s of the server's"),
        ({"body_md5": None}, "there is a body and no body_md5"),
        ({"body_md5": "0" * 32}, "body_md5 is not that of the body"),
        ({"body_md5": "é"}, "body_md5 is not that of the body"),
        ({"auth_key": "other"}, "the key or the signature is wrong"),
        ({"auth_key": None}, "the key or the signature is wrong"),
        ({"secret": "other"}, "the key or the signature is wrong"),
    ],
)
async def test_a_request_without_a_good_signature_does_nothing(query: dict[str, Any], reason: str) -> None:
    async with gateway() as running:
        client = await greeted(running)
        await client.subscribe("a")
        answer = await ask(running, "POST", path("events"), EVENT, **query)
        assert answer.status_code == 401
        assert reason in answer.text
        await client.quiet()


async def test_an_app_that_there_is_not_is_told_so() -> None:
    async with gateway() as running:
        assert (await ask(running, "POST", "/apps/9/events", EVENT)).status_code == 404
        assert (await ask(running, "POST", "/users/a/terminate_connections", {}, auth_key="x")).status_code == 404
    async with gateway(app_file("enabled = false")) as running:
        assert (await ask(running, "POST", path("events"), EVENT)).status_code == 403


@pytest.mark.usefixtures("steady")
async def test_requests_over_the_rate_are_told_to_wait() -> None:
    async with gateway(app_file("limits = { requests = 1 }")) as running:
        answers = [await ask(running, "GET", path("channels")) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[-1].headers["Retry-After"] == "1"


# -- events


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"{", 400, "the body is not JSON"),
        ([], 400, "is no JSON object"),
        ({**EVENT, "name": ""}, 400, "name is no text of 1 to 200 characters"),
        ({**EVENT, "name": "x" * 201}, 400, "name is no text of 1 to 200 characters"),
        ({**EVENT, "name": "\n"}, 400, "name is no text of 1 to 200 characters"),
        ({**EVENT, "data": {}}, 400, "data is dict, allowed is a string"),
        (b'{"name":"e","channel":"a","data":"\\ud800"}', 400, "data has a lone surrogate"),
        ({**EVENT, "data": "x" * 10241}, 413, "data has 10241 bytes, limit 10240"),
        ({**EVENT, "channels": []}, 400, "channels is no list of 1 to 100 channels"),
        ({**EVENT, "channels": [f"a{n}" for n in range(101)]}, 400, "channels is no list of 1 to 100 channels"),
        ({**EVENT, "channels": ["a b"]}, 400, "the channel is 'a b'"),
        ({**EVENT, "channels": [7]}, 400, "the channel is int"),
        ({**EVENT, "channels": ["a", "private-encrypted-b"]}, 400, "an encrypted event is for one channel"),
        ({**EVENT, "socket_id": "x"}, 400, "socket_id is none"),
        ({**EVENT, "socket_id": 7}, 400, "socket_id is none"),
        ({**EVENT, "info": "x"}, 400, "info is 'x', allowed are user_count"),
        ({**EVENT, "info": 7}, 400, "info is '7', allowed are user_count"),
    ],
)
async def test_an_event_that_cannot_be_is_refused_whole(body: Any, status: int, reason: str) -> None:
    async with gateway() as running:
        client = await greeted(running)
        await client.subscribe("a")
        answer = await ask(running, "POST", path("events"), body)
        assert (answer.status_code, reason in answer.text) == (status, True), answer.text
        for batch in ([], [body], [EVENT] * 11):
            if not isinstance(body, bytes):
                assert (await ask(running, "POST", path("batch_events"), {"batch": batch})).status_code in {400, 413}
        await client.quiet()


async def test_what_is_published_may_be_told_with_its_audience() -> None:
    async with gateway() as running:
        one, other = await greeted(running), await greeted(running)
        await one.subscribe("a")
        await other.subscribe("a")
        await one.subscribe("presence-b", {"user_id": "ann"})
        info = "subscription_count,user_count"
        answer = await ask(running, "POST", path("events"), {"name": "e", "data": "d", "channel": "a", "info": info})
        assert answer.json() == {"channels": {"a": {"subscription_count": 2}}}
        batch = [
            {"name": "e", "data": "d", "channel": "presence-b", "info": info},
            {"name": "e", "data": "d", "channel": "a"},
        ]
        answer = await ask(running, "POST", path("batch_events"), {"batch": batch})
        assert answer.json() == {"batch": [{"subscription_count": 1, "user_count": 1}, {}]}
        answer = await ask(running, "GET", path("channels"), filter_by_prefix="presence-", info="user_count")
        assert answer.json() == {"channels": {"presence-b": {"user_count": 1}}}
        answer = await ask(running, "GET", path("channels/presence-b"), info=info)
        assert answer.json() == {"occupied": True, "subscription_count": 1, "user_count": 1}
        answer = await ask(running, "GET", path("channels/cache-x"), info="cache")
        assert answer.json() == {"occupied": False, "cache": None}
        answer = await ask(running, "GET", path("channels/presence-b/users"))
        assert answer.json() == {"users": [{"id": "ann"}]}
        assert (await ask(running, "GET", path("connections"))).json() == {"connections": 2}
        for wrong, query in (("channels/a", {"info": "user_count"}), ("channels/a/users", {})):
            assert (await ask(running, "GET", path(wrong), **query)).status_code == 400


async def test_where_another_instance_does_not_answer_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async with gateway() as running:

        async def away(verb: str, **fields: Any) -> list[dict[str, Any]]:
            raise RegistryAway(verb)

        monkeypatch.setattr(running.gateway.registry, "ask_all", away)
        answer = await ask(running, "GET", path("channels"))
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")


async def test_what_is_published_is_not_refused_where_its_audience_is_not_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with gateway() as running:
        client = await greeted(running)
        await client.subscribe("a")

        async def away(verb: str, **fields: Any) -> list[dict[str, Any]]:
            raise RegistryAway(verb)

        monkeypatch.setattr(running.gateway.registry, "ask_all", away)
        event = {**EVENT, "info": "subscription_count"}
        answer = await ask(running, "POST", path("events"), event)
        assert (answer.status_code, answer.json()) == (200, {"channels": {"a": {}}})
        answer = await ask(running, "POST", path("batch_events"), {"batch": [event, {**EVENT, "name": "last"}]})
        assert (answer.status_code, answer.json()) == (200, {"batch": [{}, {}]})
        assert [(await client.said())["event"] for _ in range(3)] == ["e", "e", "last"]


@pytest.mark.parametrize("off", [-600, 600, -601, 601])
def test_the_clock_of_a_server_may_be_ten_minutes_off(off: int, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_800_000_000
    monkeypatch.setattr(pusher_rules, "time", SimpleNamespace(time=lambda: float(now)))
    query = f"auth_key={KEY}&auth_timestamp={now + off}&auth_version=1.0"
    path = f"/apps/{APP}/channels"
    signature = signature_of(SECRET, f"GET\n{path}\n{query}")
    head = rawws.Request("GET", f"{path}?{query}&auth_signature={signature}", rawws.Headers())
    request = rawws.HttpRequest(head, {}, None, "http")
    app = read_config(app_file()).apps[0]
    if abs(off) <= 600:
        pusher_rules.check_request(app, request)
    else:
        with pytest.raises(rawws.HttpError, match="auth_timestamp is"):
            pusher_rules.check_request(app, request)
