"""The own face: clients of rawws.v1, who they are by their tokens, and what that allows."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections import Counter
from types import SimpleNamespace
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import rawws
from rawws.backplanes.memory import Engine as Memory
from rawws.gateway import own_clients
from rawws.gateway.events import GatewayEvent
from rawws.gateway.loading import read_config
from rawws.gateway.own import OwnFace
from rawws.gateway.pusher_users import TERMINATE, user_topic
from tests.gateway.own_running import everything, http, own, signed, token_file
from tests.gateway.running import APP, KEY, app_file, gateway, member, pair
from tests.gateway.v1_running import server
from tests.server.peers import eventually

CAPS = [{"match": "room-*", "allow": ["subscribe", "publish"]}, {"match": "news", "allow": ["subscribe"]}]


async def test_clients_of_both_protocols_hear_one_channel_whatever_server_publishes(engines: list[Memory]) -> None:
    async with pair(token_file()) as (one, other):
        pusher = await member(one.port, "presence-a", "bob")
        async with own(other.port, everything("ann", info={"name": "Ann"})) as ann:
            told = await ann.ask(subscribe="presence-a", join={"name": "Eve"}, watch=True)
            assert {each["user"]: each["info"] for each in told["members"]} == {"bob": None, "ann": {"name": "Ann"}}
            added = json.loads(await pusher.recv())
            assert (added["event"], json.loads(added["data"])) == (
                "pusher_internal:member_added",
                {"user_id": "ann", "user_info": {"name": "Ann"}},
            )
            event = GatewayEvent("news", '{"id":5}', is_json=True)
            one.gateway.publish(APP, "presence-a", event)
            assert json.loads(await pusher.recv()) == {"event": "news", "channel": "presence-a", "data": {"id": 5}}
            while (heard := await ann.hear()).get("event") != "news":
                pass
            assert (heard["topic"], heard["data"], heard["json"]) == ("presence-a", '{"id":5}', True)
            assert "cursor" in await ann.ask(publish="presence-a", data="hello", event="client-hello")
            said = json.loads(await pusher.recv())
            assert said == {"event": "client-hello", "channel": "presence-a", "data": "hello", "user_id": "ann"}
        assert json.loads(await pusher.recv())["event"] == "pusher_internal:member_removed"
        await pusher.close()


async def test_a_client_that_comes_back_by_whatever_transport_misses_nothing() -> None:
    async with gateway(token_file()) as running:
        token = everything("ann")
        async with own(running.port, token) as ann:
            place = (await ann.ask(subscribe="room"))["cursor"]
        running.gateway.publish(APP, "room", GatewayEvent("a", "1"))
        async with own(running.port, token) as ann:
            assert (await ann.ask(subscribe="room", since=place))["recovered"]
            assert (await ann.hear())["data"] == "1"
        async with http(running.port, Authorization=f"Bearer {token}") as client:
            path = f"/connect/{APP}"
            polled = (await client.get(path, params={"topic": "room", "since": place})).json()
            assert [each["data"] for each in polled["publications"]] == ["1"]
            posted = await client.post(path, json={"publish": "room", "data": "2"})
            assert posted.status_code == 200
            asked = {"Accept": "text/event-stream", "Last-Event-ID": polled["cursor"]}
            async with client.stream("GET", path, params={"topic": "room"}, headers=asked) as stream:
                lines = stream.aiter_lines()
                while "recovered" not in (line := await anext(lines)):
                    pass
                assert json.loads(line.removeprefix("data:").strip())["recovered"]
                while '"data":"2"' not in (line := await anext(lines)):
                    pass
            script = await client.get(f"{path}/rawws.js")
            assert (script.status_code, "export" in script.text) == (200, True)


# -- who may come in

PRIVATE = rsa.generate_private_key(65537, 2048)
PEM = PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def forged() -> dict[str, str]:
    """Return tokens that nobody may come in with."""
    claims = {"sub": "eve", "exp": time.time() + 1000}
    none = jwt.encode(claims, "", "none")
    return {
        "no token": "",
        "alg none": none,
        "expired": signed("eve", exp=time.time() - 1),
        "no end": signed("eve", exp=None),
        "another audience": signed("eve", aud="bank"),
        "another key": signed("eve", "x" * 32),
        "another app": signed("eve", app="4"),
        "unknown kid": signed("eve", "x" * 32, headers={"kid": "nobody"}),
        "caps that are none": signed("eve", caps={"room": 1}),
        "a right that there is not": signed("eve", caps=[{"match": "*", "allow": ["fly"]}]),
        "too many caps": signed("eve", caps=[{"match": "*", "allow": []}] * 101),
        "no user": signed("", sub=None),
        "long": "x" * 7000,
    }


async def test_no_forged_token_lets_anybody_in_and_none_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with gateway(token_file()) as running, http(running.port) as client:
        for kind, token in forged().items():
            async with own(running.port, token) as eve:
                reason = "the token is not valid" if token else "a token is needed"
                assert await eve.ended() == (4401, reason), kind
            answer = await client.get(f"/connect/{APP}", params={"topic": "room", "token": token})
            assert (answer.status_code, answer.json()["reason"]) == (401, reason), kind
            assert answer.headers["WWW-Authenticate"].startswith("Bearer"), kind
        assert not running.gateway.main.stats().subscribers
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("rawws")]
    assert ours
    assert not any(token and token in line for line in ours for token in forged().values())


async def test_a_public_key_is_no_secret_and_keys_may_be_several() -> None:
    """HS256 signed with the public key of RS256: the algorithm is chosen by the file, never by the token."""
    keys = json.dumps({"one": PEM}).replace('": "', '" = "')
    text = app_file(f'jwt = {{ algorithms = ["RS256"], keys = {keys}, audience = "gateway", issuer = "me" }}')
    good = signed("ann", PRIVATE, algorithm="RS256", headers={"kid": "one"}, aud="gateway", iss="me", caps=CAPS)
    # As no library would make it: PyJWT refuses to.
    head, body, _ = good.split(".")
    hashed = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    head = jwt.utils.base64url_encode(b'{"alg":"HS256","kid":"one","typ":"JWT"}').decode()
    signature = jwt.utils.base64url_encode(hashed.sign(f"{head}.{body}".encode(), PEM.encode())).decode()
    wrong = [
        f"{head}.{body}.{signature}",
        signed("ann", PRIVATE, algorithm="RS256", aud="gateway", iss="me"),
        signed("ann", PRIVATE, algorithm="RS256", headers={"kid": "two"}, aud="gateway", iss="me"),
        signed("ann", PRIVATE, algorithm="RS256", headers={"kid": "one"}, aud="gateway", iss="you"),
    ]
    async with gateway(text) as running:
        async with own(running.port, good) as ann:
            assert "cursor" in await ann.ask(subscribe="room-1")
        for token in wrong:
            async with own(running.port, token) as eve:
                assert (await eve.ended())[0] == 4401


async def test_a_token_of_ten_megabytes_is_refused_where_it_is_read() -> None:
    async with gateway(token_file()) as running, http(running.port) as client:
        async with own(running.port, everything("ann")) as ann:
            await ann.ws.send(json.dumps({"id": 1, "renew": "x" * 10_000_000}))
            assert (await ann.ended())[0] == 1009
        answer = await client.get(f"/connect/{APP}", headers={"Authorization": "Bearer " + "x" * 100_000})
        assert answer.status_code == 431


async def test_caps_say_what_a_client_may_do_and_nothing_else_is_allowed() -> None:
    async with gateway(token_file()) as running:
        async with own(running.port, signed("ann", caps=CAPS)) as ann:
            assert "cursor" in await ann.ask(subscribe="room-1")
            assert "cursor" in await ann.ask(publish="room-1", data="x")
            assert "cursor" in await ann.ask(subscribe="news")
            for wrong in (
                {"publish": "news", "data": "x"},
                {"subscribe": "other"},
                {"history": "other"},
                {"presence": "other"},
                {"subscribe": "#server-to-user-bob"},
                {"publish": "#server-to-user-ann", "data": "x"},
                {"call": "rpc"},
                {"subscribe": "room-", "pattern": True},
            ):
                assert (await ann.ask(**wrong))["error"] in {"refused", "pattern", "malformed"}
            assert "cursor" in await ann.ask(subscribe="#server-to-user-ann")
        async with own(running.port, signed("bob")) as bob:
            assert (await bob.ask(subscribe="room-1"))["error"] == "refused"
        async with own(running.port, everything("cyd")) as cyd:
            assert "1 to 164 letters" in (await cyd.ask(subscribe="a/b"))["reason"]
            assert "cache channels" in (await cyd.ask(subscribe="private-cache-a"))["reason"]


async def test_an_app_hears_nothing_of_another() -> None:
    other = token_file().replace(f'id = "{APP}"', 'id = "4"').replace('key = "2', 'key = "3')
    async with gateway(token_file() + other) as running:
        async with own(running.port, everything("ann")) as ann, own(running.port, everything("ann"), "4") as eve:
            await ann.ask(subscribe="room")
            await eve.ask(subscribe="room")
            running.gateway.publish(APP, "room", GatewayEvent("x", "ours"))
            running.gateway.publish("4", "room", GatewayEvent("x", "theirs"))
            assert ((await ann.hear())["data"], (await eve.hear())["data"]) == ("ours", "theirs")
            running.gateway.control.publish(user_topic(APP, "ann"), TERMINATE)
            assert await ann.ended() == (4401, "the connections of the user were ended")
            assert "cursor" in await eve.ask(publish="room", data="still here")


async def test_a_token_is_renewed_by_its_user_alone_and_its_caps_count_from_then_on() -> None:
    async with gateway(token_file()) as running:
        async with own(running.port, signed("ann", caps=CAPS)) as ann:
            eve = signed("eve", caps=[{"match": "*", "allow": ["subscribe"]}])
            assert (await ann.ask(renew=eve))["error"] == "refused"
            assert (await ann.ask(renew="x.y.z"))["error"] == "refused"
            # Nothing of what the other one may do was taken.
            assert (await ann.ask(subscribe="other"))["error"] == "refused"
            assert (await ann.ask(renew=signed("ann", caps=[{"match": "other", "allow": ["subscribe"]}])))[
                "expires"
            ] > 900
            assert "cursor" in await ann.ask(subscribe="other")
            assert (await ann.ask(subscribe="room-1"))["error"] == "refused"


async def test_a_client_is_closed_when_its_token_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async with gateway(token_file()) as running, own(running.port, everything("ann", exp=time.time() + 1000)) as ann:
        assert "cursor" in await ann.ask(subscribe="room")
        later = SimpleNamespace(time=lambda: time.time() + 2000)
        monkeypatch.setattr("rawws.net.identity.time", later)
        await ann.ws.send(json.dumps({"id": 2, "publish": "room", "data": "too late"}))
        assert await ann.ended() == (4401, "the identity has expired")


# -- limits, counts and ends


async def test_limits_of_the_app_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = "limits = { channels = 2, client_events = 2, event_size = 10, members = 1 }\nmax_connections = 2"
    async with gateway(token_file(limits)) as running:
        async with own(running.port, everything("ann")) as ann, own(running.port, everything("bob")) as bob:
            await ann.ask(subscribe="a")
            await ann.ask(subscribe="presence-b", join=None)
            assert (await ann.ask(subscribe="c"))["error"] == "limit"
            assert "has 1 members" in (await bob.ask(subscribe="presence-b", join=None))["reason"]
            assert (await bob.ask(publish="a", data="x" * 11))["error"] == "size"
            assert (await bob.ask(publish="a", data='{"a": "xxxxxx"}', json=True))["error"] == "size"
            assert [("error" in await bob.ask(publish="a", data="x")) for _ in range(3)] == [False, False, True]
            with pytest.raises(rawws.InvalidStatus, match="503"):
                async with own(running.port, everything("cyd")):
                    pass
    async with gateway(token_file().replace("client_events = true", "")) as running:
        async with own(running.port, everything("ann")) as ann:
            assert "takes no events" in (await ann.ask(publish="a", data="x"))["reason"]
    async with gateway(token_file(head="[gateway]\nmax_connections = 1")) as running:
        async with own(running.port, everything("ann")):
            with pytest.raises(rawws.InvalidStatus, match="503"):
                async with own(running.port, everything("bob")):
                    pass


@pytest.mark.parametrize("whose", ["app", "gateway"])
async def test_event_streams_are_connections_and_polls_are_none(whose: str) -> None:
    limit = "max_connections = 1"
    text = token_file(limit) if whose == "app" else token_file(head=f"[gateway]\n{limit}")
    path, asked = f"/connect/{APP}", {"topic": "room", "token": everything("ann")}
    async with gateway(text) as running, http(running.port, Accept="text/event-stream") as client:
        # Who may not come in takes no place.
        assert (await client.get(path, params={"topic": "room"})).status_code == 401
        async with client.stream("GET", path, params=asked) as stream:
            assert stream.status_code == 200
            refused = await client.get(path, params=asked)
            assert (refused.status_code, refused.json()["error"]) == (503, "limit")
            assert refused.json()["reason"].startswith(f"the {whose} has 1 connections")
            with pytest.raises(rawws.InvalidStatus, match="503"):
                async with own(running.port, everything("bob")):
                    pass
            pusher = await rawws.connect(f"ws://127.0.0.1:{running.port}/app/{KEY}?protocol=7")
            assert json.loads(await pusher.recv())["event"] == "pusher:error"
            await pusher.close()
            polled = await client.get(path, params={**asked, "timeout": "0"}, headers={"Accept": "application/json"})
            assert polled.status_code in {200, 204}
        await eventually(lambda: not running.gateway.held.total)
        async with own(running.port, everything("bob")):
            assert (await client.get(path, params=asked)).status_code == 503
        await eventually(lambda: not running.gateway.held.total)
        assert (await client.head(path, params=asked)).status_code == 200
        await eventually(lambda: not running.gateway.held.total)


async def test_a_user_with_the_longest_name_is_one_like_others() -> None:
    # With its app, that is longer than the name of a topic may be.
    user, asked = "x" * 255, {"topic": "room"}
    async with gateway(token_file()) as running, server(running) as app:
        other = http(running.port, Accept="text/event-stream", Authorization=f"Bearer {everything(user)}")
        async with own(running.port, everything(user)) as client, other as streams:
            assert "cursor" in await client.ask(subscribe="room")
            async with streams.stream("GET", f"/connect/{APP}", params=asked) as stream:
                assert stream.status_code == 200
                assert (await app.get("users"))["users"] == [{"user": user, "connections": 1}]
                assert await app.post(f"users/{user}/disconnect", {}) == {"count": 2}
                assert (await client.ended())[0] == 4401
                assert await drain(stream)
        await eventually(lambda: not running.gateway.held.total)
        assert not +Counter(running.gateway.counts)
        assert (await app.get("channels"))["channels"] == []
        assert (await app.get("users"))["users"] == []


async def test_who_cannot_come_in_is_told_before_the_handshake_is_done(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "rawws.gateway")
    more = 'origins = ["https://example.com"]'
    async with gateway(token_file(more)) as running, http(running.port) as client:
        path = f"/connect/{APP}"
        for app, origin, status in (("5", None, 404), (APP, "https://evil.example", 403)):
            with pytest.raises(rawws.InvalidStatus, match=str(status)):
                async with own(running.port, everything("ann"), app, origin=origin):
                    pass
            fields = {} if origin is None else {"Origin": origin}
            answer = await client.get(f"/connect/{app}", headers=fields)
            assert (answer.status_code, answer.json()["error"]) == (status, "path" if status == 404 else "refused")
        # A page cannot read why: who runs the gateway can.
        assert re.search(
            rf"GET {path}\?token=\*\*\* refused with 403: .*pages of https://evil.example may", caplog.text
        )
        refused = {key: figures.refused for key, figures in running.gateway.figures.items()}
        assert refused == {("", "own"): {404: 1}, (APP, "own"): {403: 1}}
        async with own(running.port, everything("ann"), origin="https://example.com") as ann:
            assert "cursor" in await ann.ask(subscribe="a")
            running.gateway.reload(read_config(token_file("enabled = false")))
            assert (await ann.ask(subscribe="b"))["reason"] == "the app is disabled"
        assert (await client.get(path)).status_code == 403
        async with rawws.connect(f"ws://127.0.0.1:{running.port}/app/x", subprotocols=["rawws.v1"]) as ws:
            assert ws.subprotocol is None
    async with gateway(app_file()) as running:
        with pytest.raises(rawws.InvalidStatus, match="404"):
            async with own(running.port):
                pass


class Observer:
    """What hooks are told."""

    def __init__(self) -> None:
        self.counts: list[tuple[str, int]] = []

    def on_count(self, app: str, key: str, count: int) -> None:
        self.counts.append((key, count))

    def __getattr__(self, _: str) -> Any:
        return lambda *_: None


async def test_observers_are_told_of_channels_members_and_users() -> None:
    async with gateway(token_file()) as running:
        observer: Any = Observer()
        running.gateway.observers.append(observer)
        async with own(running.port, everything("ann")) as ann:
            await ann.ask(subscribe="presence-a", join=None)
            await ann.ask(subscribe="presence-b")
            await ann.ask(unsubscribe="presence-b")
            assert await running.gateway.channel_counts(APP) == {"presence-a": 1}
        await eventually(lambda: ("u:ann", 0) in observer.counts and ("c:presence-a", 0) in observer.counts)
        assert sorted(observer.counts) == sorted(
            (key, count)
            for key in ("u:ann", "c:presence-a", "m:presence-a:ann", "c:presence-b")
            for count in (1, 0)
        )  # fmt: skip


async def test_the_connections_of_a_user_are_ended_at_all_instances_streams_too(engines: list[Memory]) -> None:
    async with pair(token_file()) as (one, other), http(other.port) as client:
        async with own(one.port, everything("ann")) as ann:
            asked = {"Accept": "text/event-stream", "Authorization": f"Bearer {everything('ann')}"}
            path = f"/connect/{APP}"
            async with client.stream("GET", path, params={"topic": "room"}, headers=asked) as stream:
                topic = user_topic(APP, "ann")
                await eventually(lambda: one.gateway.control.connections(topic, "ann") == 2)
                ends = asyncio.gather(ann.ended(), drain(stream))
                # Who is only just coming in may miss it.
                while not ends.done():
                    await other.gateway.control.publish(topic, TERMINATE)
                    await asyncio.sleep(0.01)
                assert (await ends)[0] == (4401, "the connections of the user were ended")
        await eventually(lambda: not other.gateway.control.connections(user_topic(APP, "ann"), "ann"))


async def drain(stream: httpx2.Response) -> list[str]:
    """Read a stream until its end."""
    async with asyncio.timeout(60):
        return [line async for line in stream.aiter_lines()]


async def test_of_too_many_who_publish_the_first_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_clients, "MOST_RATES", 1)
    async with gateway(token_file()) as running:
        [face] = [each for each in running.gateway.faces if isinstance(each, OwnFace)]
        app = running.gateway.config.apps[0]
        ann, bob = (face.clients._rate_of(app, user) for user in ("ann", "bob"))
        assert face.clients._rate_of(app, "bob") is bob
        assert face.clients._rate_of(app, "ann") is not ann
