"""How many unknown topics a client may bring up: what counts, what is refused, and what is remembered of that."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

import rawws
from rawws.topics import Hub, TopicError, rates
from rawws.topics.rates import TOPIC_BURST, TopicRates, address_of, key_of
from tests.server.answers import ask, get
from tests.server.peers import eventually, serve
from tests.topics.test_http import poll_of


class Client:
    """One that has an address, as a request."""

    def __init__(self, address: Any) -> None:
        self.remote_address = address


ANN, BOB = Client(("10.0.0.1", 1)), Client(("10.0.0.1", 2))


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Give a clock that a test sets."""
    time = [100.0]
    monkeypatch.setattr("rawws.clock.monotonic", lambda: time[0])
    return time


def test_ten_seconds_worth_may_come_at_once_and_the_rest_as_time_goes_by(now: list[float]) -> None:
    limits = TopicRates(2.0)
    for number in range(int(2 * TOPIC_BURST)):
        limits.account(ANN, [f"{number}"], ())
    with pytest.raises(TopicError, match="over 2 new topics a second") as caught:
        limits.account(ANN, ["one more"], ())
    assert (caught.value.code, caught.value.status) == ("limit", 429)
    # Another client has its own, and those that are known are free.
    limits.account(BOB, ["other"], ())
    limits.account(ANN, ["0", "other", "known"], {"known"})
    now[0] += 0.5
    limits.account(ANN, ["one more"], ())
    with pytest.raises(TopicError):
        limits.account(ANN, ["two more"], ())


def test_of_a_request_all_topics_count_or_none(now: list[float]) -> None:
    limits = TopicRates(1.0)
    with pytest.raises(TopicError):
        limits.account(ANN, [f"{number}" for number in range(11)], ())
    limits.account(ANN, [f"{number}" for number in range(10)], ())


def test_what_is_remembered_is_bounded(now: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "MAX_NAMES", 6)
    monkeypatch.setattr(rates, "MAX_CLIENTS", 3)
    limits = TopicRates(1.0)
    for number in range(20):
        limits.account(Client(("10.0.0.1", number)), [f"{number}"], ())
    assert (len(limits._names) + len(limits._older), len(limits._due)) == (5, 3)
    # The last ones are free.
    for number in (17, 18, 19):
        limits.account(ANN, [f"{number}"], ())
    assert len(limits._due) == 3
    # Whoever may bring up as many as any other is forgotten.
    now[0] += 5.0
    for number in range(4):
        limits.account(ANN, [f"new {number}"], ())
    assert list(limits._due) == [ANN.remote_address]
    # Who has no address is not told apart from others.
    for number in range(100):
        limits.account(Client(None), [f"newer {number}"], ())
    assert list(limits._due) == [ANN.remote_address]
    assert key_of(Client("")) is None


@pytest.mark.parametrize("rate", [0, -1.0])
def test_a_rate_that_allows_nothing_raises(rate: float) -> None:
    with pytest.raises(ValueError, match=f"topic_rate is {rate}, allowed are numbers above 0 and None"):
        Hub(topic_rate=rate)


async def test_a_client_that_brings_up_too_many_topics_is_refused_those_and_its_connection_goes_on() -> None:
    hub = Hub(authorize=lambda *_: True, topic_rate=0.3)
    async with (
        serve(rawws.HubHandler(hub), subprotocols=["rawws.v1"]) as server,
        rawws.connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/", subprotocols=["rawws.v1"]) as ws,
    ):
        answers = []
        for number, action in enumerate(("subscribe", "presence", "publish", "subscribe", "unsubscribe", "subscribe")):
            fields = {"data": "x"} if action == "publish" else {}
            await ws.send(json.dumps({"id": number, action: f"{number}" if number < 5 else "0", **fields}))
            answers.append(json.loads(await ws.recv()))
        assert [answer.get("error") for answer in answers] == [None, None, None, "limit", None, "limit"]
        # The last one is the topic that it has already, which is another limit.
        assert "new topics a second" in answers[3]["reason"]
        assert "new topics a second" not in answers[5]["reason"]


async def test_requests_that_bring_up_too_many_topics_get_429_and_a_hub_without_the_limit_takes_them() -> None:
    for rate, status in ((0.3, 429), (None, 200)):
        hub = Hub(authorize=lambda *_: True, topic_rate=rate)
        routes = rawws.Routes([rawws.Route("/poll", hub.poll), rawws.Route("/stream", hub.stream)])
        routes.post("/post")(hub.post)
        async with serve(routes) as server:
            body = b'{"publish": "y", "data": "x"}'
            requests = [
                get(poll_of(topic=["a", "b", "c"], timeout=0)),
                get(poll_of(topic=["a", "c"], timeout=0)),
                get(poll_of(topic=["a", "new"], timeout=0)),
                get("/post", "Connection: close", method="POST", body=body),
            ]
            answers = await ask(server, b"".join(requests), ["GET", "GET", "GET", "POST"])
            assert [answer.status for answer in answers] == [200, 200, status, status]


@pytest.mark.parametrize("kind", ["callbacks", "coroutine"])
async def test_a_client_that_comes_where_another_one_was_owes_nothing_of_what_that_one_brought_up(kind: str) -> None:
    """Its connection may be the object that the other one's was: what is freed is taken again."""
    hub = Hub(authorize=lambda *_: True, topic_rate=0.1)
    handler = rawws.HubHandler(hub) if kind == "callbacks" else hub.serve
    async with serve(handler, subprotocols=["rawws.v1"]) as server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        for number in range(20):
            async with rawws.connect(uri, subprotocols=["rawws.v1"]) as ws:
                await ws.send(json.dumps({"id": number, "subscribe": f"{number}"}))
                assert "cursor" in json.loads(await ws.recv())
        await eventually(lambda: not server.connections)
    rates = hub._rates
    assert rates is not None
    assert not rates._due


# -- clients that come again and again

ATTACKER, OTHER = "8.8.8.8", "9.9.9.9"


@pytest.mark.parametrize(
    ("address", "found"),
    [
        (("8.8.8.8", 1), "8.8.8.8"),
        (["8.8.8.8", 1], "8.8.8.8"),
        (("::ffff:8.8.8.8", 1, 0, 0), "8.8.8.8"),
        (("2001:4860:4860::8888", 1, 0, 0), "2001:4860:4860::/64"),
        (("10.0.0.1", 1), None),
        (("::1", 1, 0, 0), None),
        (("fe80::1%eth0", 1, 0, 2), None),
        (("testclient", 1), None),
        ((None, 0), None),
        ("/run/socket", None),
        ("", None),
        (None, None),
    ],
)
def test_an_address_of_the_internet_is_known_and_one_that_may_be_a_proxys_is_not(address: Any, found: Any) -> None:
    assert address_of(Client(address)) == found


def test_an_address_has_the_topics_of_ten_clients_however_many_connections_it_makes(now: list[float]) -> None:
    limits = TopicRates(1.0)
    for number in range(100):
        limits.account(Client((ATTACKER, number)), [f"{number}"], ())
    with pytest.raises(TopicError, match=r"over 10 new topics a second from 8\.8\.8\.8, allowed is to ask again later"):
        limits.account(Client((ATTACKER, 101)), ["one more"], ())
    limits.account(Client((OTHER, 1)), ["one more"], ())
    now[0] += 0.1
    limits.account(Client((ATTACKER, 102)), ["two more"], ())
    # Those that nobody tells apart: they may come through a proxy.
    for number in range(200):
        limits.account(Client(("10.0.0.2", number)), [f"inside {number}"], ())


async def test_a_client_that_connects_again_for_each_request_has_no_more_topics_than_its_address() -> None:
    hub = Hub(authorize=lambda *_: True, topic_rate=0.1)
    routes = rawws.Routes([rawws.Route("/poll", hub.poll)])
    routes.post("/post")(hub.post)
    routes.websocket("/ws")(hub.serve)
    async with serve(routes, trusted_proxies=["127.0.0.1"], subprotocols=["rawws.v1"]) as server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/ws"

        # Each connection has a port of its own.
        ports = itertools.count(1024)

        async def polled(topic: str, address: str) -> int:
            fields = ("Connection: close", f"X-Forwarded-For: {address}:{next(ports)}")
            [answer] = await ask(server, get(poll_of(topic=[topic], timeout=0), *fields))
            return answer.status

        async def posted(topic: str, address: str) -> int:
            fields = ("Connection: close", f"X-Forwarded-For: {address}:{next(ports)}")
            body = json.dumps({"publish": topic, "data": "x"}).encode()
            [answer] = await ask(server, get("/post", *fields, method="POST", body=body), ["POST"])
            return answer.status

        async def subscribed(topic: str, address: str) -> str:
            headers = {"X-Forwarded-For": f"{address}:{next(ports)}"}
            async with rawws.connect(uri, subprotocols=["rawws.v1"], additional_headers=headers) as ws:
                await ws.send(json.dumps({"id": 1, "subscribe": topic}))
                return str(json.loads(await ws.recv()).get("error", ""))

        for number in range(4):
            assert await polled(f"polled {number}", ATTACKER) == 200
            assert await posted(f"posted {number}", ATTACKER) == 200
        for number in range(2):
            assert await subscribed(f"subscribed {number}", ATTACKER) == ""
        assert await polled("new", ATTACKER) == 429
        assert await posted("new", ATTACKER) == 429
        assert await subscribed("new", ATTACKER) == "limit"
        assert await polled("polled 0", ATTACKER) == 200
        assert (await polled("new", OTHER), await subscribed("newer", OTHER)) == (200, "")
