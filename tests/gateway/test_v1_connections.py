"""`/v1`: connections and users of an app, what is told of them and done to them, at whatever instance they are."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import Any, Final

import pytest

import rawws
from rawws.backplanes.memory import Engine as Memory
from rawws.gateway import control, v1_connections
from rawws.gateway.loading import read_config
from rawws.gateway.spelling import ConnectionId
from tests.gateway.own_running import JWT, OwnClient, everything, http, own, token_file
from tests.gateway.running import APP, Running, app_file, gateway, pair
from tests.gateway.test_pusher_protocol import Client, greeted
from tests.gateway.v1_running import OTHER, Server, server
from tests.server.peers import eventually

pytestmark = pytest.mark.usefixtures("patient")

TWO_APPS = token_file() + OTHER + JWT + "\n"
SECRET_OF_OTHER = "the secret of another"


async def signed_in(running: Running, user: str) -> Client:
    client = await greeted(running)
    await client.sign_in(json.dumps({"id": user}))
    await client.got("pusher:signin_success")
    return client


async def ident_of(asking: Server, user: str) -> str:
    """Return the id of the one connection of a user."""
    [found] = (await asking.get("connections", user=user))["connections"]
    return str(found["connection"])


# -- what is told


async def test_connections_of_all_instances_are_listed_in_parts_and_one_is_told_of(engines: list[Memory]) -> None:
    began = time.time()
    async with pair(TWO_APPS) as (one, other), server(one) as asking:
        bob, nobody = await signed_in(one, "bob"), await greeted(other, user_agent_header="tests")
        await nobody.subscribe("room")
        async with own(other.port, everything("ann")) as ann, own(one.port, everything("ann"), "4"):
            await ann.ask(subscribe="room")
            await ann.ask(subscribe="other")
            await ann.ask(unsubscribe="other")
            listed = await asking.get("connections")
            assert len(listed["connections"]) == 3
            assert not listed["more"]
            told = {each["connection"]: each for each in listed["connections"]}
            about = told[nobody.socket_id]
            assert began - 5 < about.pop("connected_at") <= about.pop("active_at") < time.time() + 5
            assert about == {
                "connection": nobody.socket_id,
                "face": "pusher",
                "user": None,
                "channels": ["room"],
                "address": "127.0.0.1",
                "agent": "tests",
            }
            of_ann = told[await ident_of(asking, "ann")]
            assert (of_ann["face"], of_ann["user"], of_ann["channels"]) == ("own", "ann", ["room"])
            assert await asking.get(f"connections/{of_ann['connection']}") == of_ann
            in_room = await asking.get("connections", channel="room")
            assert {each["connection"] for each in in_room["connections"]} == {nobody.socket_id, of_ann["connection"]}
            # In parts, each of them once.
            after, parts = "", []
            while True:
                part = await asking.get("connections", limit=1, after=after)
                parts += [each["connection"] for each in part["connections"]]
                if not part["more"]:
                    break
                after = parts[-1]
            assert sorted(parts) == sorted(told)
            assert parts == sorted(parts, key=ConnectionId.parse)
            assert bob.socket_id in parts
        assert (await asking.refused("connections", None, "GET", params={"after": "x"}))[:2] == (400, "malformed")


async def test_a_list_of_much_is_told_in_smaller_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(v1_connections, "MOST_LISTED", 1000)
    async with gateway() as running, server(running) as asking:
        clients = [await greeted(running, user_agent_header="x" * 600) for _ in range(3)]
        told = await asking.get("connections")
        assert (len(told["connections"]), told["more"]) == (1, True)
        told = await asking.get("connections", after=told["connections"][0]["connection"])
        assert (len(told["connections"]), told["more"]) == (1, True)
        assert len(clients) == 3


async def test_users_are_listed_in_parts_with_how_many_connections_each_has(engines: list[Memory]) -> None:
    async with pair(TWO_APPS) as (one, other), server(other) as asking, http(other.port) as client:
        clients = [await signed_in(one, "ann"), await signed_in(other, "ann"), await signed_in(other, "bob")]
        async with own(one.port, everything("cyd")), own(one.port, everything("eve"), "4"):
            await eventually(lambda: (APP, "u:cyd") in one.gateway.counts)
            told = await asking.get("users", limit=2)
            ann, bob = {"user": "ann", "connections": 2}, {"user": "bob", "connections": 1}
            assert told == {"users": [ann, bob], "more": True}
            assert (await asking.get("users", limit=2, after="bob"))["users"] == [{"user": "cyd", "connections": 1}]
            of_ann = await asking.get("users/ann")
            assert (of_ann["user"], of_ann["count"], of_ann["more"]) == ("ann", 2, False)
            assert {each["connection"] for each in of_ann["connections"]} == {each.socket_id for each in clients[:2]}
            part = await asking.get("users/ann", limit=1)
            last = await asking.get("users/ann", limit=1, after=part["connections"][0]["connection"])
            assert (part["more"], len(last["connections"]), last["more"]) == (True, 1, False)
            assert await asking.get("users/nobody") == {"user": "nobody", "count": 0, "connections": [], "more": False}
            # An event stream is counted, and is no connection of the list.
            asked = {"Accept": "text/event-stream", "Authorization": f"Bearer {everything('dan')}"}
            async with client.stream("GET", f"/connect/{APP}", params={"topic": "room"}, headers=asked):
                assert (await asking.until("users/dan", count=1))["connections"] == []
        for wrong in ("users/%0a", f"users/{'x' * 256}"):
            assert (await asking.refused(wrong, None, "GET"))[:2] == (400, "user")


async def test_connections_of_another_app_are_as_those_that_there_are_not(engines: list[Memory]) -> None:
    async with pair(TWO_APPS) as (one, other):
        client = await greeted(one)
        for running in (one, other):
            async with server(running, "4", SECRET_OF_OTHER) as eve:
                base = f"connections/{client.socket_id}"
                assert await eve.refused(base, None, "GET") == (410, "gone", v1_connections.REASONS[410])
                for act, body in (
                    ("send", {"data": "x"}),
                    ("disconnect", None),
                    ("subscribe", {"channels": ["a"]}),
                    ("unsubscribe", {"channels": ["a"]}),
                ):
                    assert (await eve.refused(f"{base}/{act}", body))[:2] == (410, "gone")
                assert (await eve.get("connections"))["connections"] == []
        await client.quiet()


async def test_who_has_gone_is_gone_and_what_is_no_id_is_told(
    engines: list[Memory], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair() as (one, other), server(one) as asking:
        for ident in (f"{one.gateway.instance}.5", f"{other.gateway.instance}.5", f"{1 << 23}.5"):
            assert (await asking.refused(f"connections/{ident}/send", {"data": "x"}))[:2] == (410, "gone")
        assert (await asking.refused("connections/x", None, "GET"))[:2] == (400, "malformed")
        client = await greeted(other)
        monkeypatch.setattr(control, "PATIENCE", 0.05)
        monkeypatch.setattr(other.gateway.registry._receiver, "_take", lambda _publication: None)
        answer = await asking.answer("POST", f"connections/{client.socket_id}/send", {"data": "x"})
        assert (answer.status_code, answer.json()["error"], answer.headers["Retry-After"]) == (503, "unavailable", "1")
        monkeypatch.setattr(one.gateway.registry, "others", lambda: [1 << 23, other.gateway.instance])
        with monkeypatch.context() as patched:

            async def gone(_instance: int, _verb: str, **_: Any) -> dict[str, Any]:
                raise LookupError

            patched.setattr(one.gateway.registry, "ask", gone)
            assert (await asking.get("connections"))["connections"] == []


# -- what is sent


async def test_an_event_is_sent_to_one_connection_alone(engines: list[Memory]) -> None:
    async with pair(token_file()) as (one, other), server(one) as asking:
        for user, running in (("ann", one), ("anna", other)):
            pusher, fan = await greeted(running), await greeted(running)
            base = f"connections/{pusher.socket_id}/send"
            await asking.post(base, {"event": "hi", "data": "hello"})
            assert await pusher.said() == {"event": "hi", "data": "hello"}
            await asking.post(base, {"data": {"a": 1}})
            assert await pusher.said() == {"event": "message", "data": {"a": 1}}
            found = await asking.refused(base, {"base64": "AA=="})
            assert found == (409, "refused", "clients of Pusher get text, allowed is data")
            await fan.quiet()
            async with own(running.port, everything(user)) as ann:
                await ann.ask(subscribe="room")
                base = f"connections/{await ident_of(asking, user)}/send"
                await asking.post(base, {"event": "hi", "data": "hello"})
                assert await ann.hear() == {"event": "hi", "data": "hello"}
                await asking.post(base, {"data": [1]})
                assert await ann.hear() == {"data": "[1]", "json": True}
                await asking.post(base, {"base64": base64.b64encode(b"\0").decode()})
                assert await ann.hear() == {"base64": "AA=="}
            assert (await asking.refused(base, {"data": "x", "channel": "a"}))[:2] == (400, "malformed")


async def test_a_client_that_reads_too_slowly_is_sent_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with gateway() as running, server(running) as asking:
        client = await greeted(running)
        [connection] = running.gateway.connections.values()
        with monkeypatch.context() as patched:
            patched.setattr(type(connection), "congested", property(lambda _: True))
            answer = await asking.answer("POST", f"connections/{client.socket_id}/send", {"data": "x"})
        assert (answer.status_code, answer.json()["error"], answer.headers["Retry-After"]) == (429, "limit", "1")
        await client.quiet()


async def test_a_connection_that_is_closing_is_gone() -> None:
    async with gateway() as running, server(running) as asking:
        client = await greeted(running)
        [connection] = running.gateway.connections.values()
        connection.close()
        found = await asking.refused(f"connections/{client.socket_id}/send", {"data": "x"})
        assert found[:2] == (410, "gone")


# -- what is ended


async def test_a_connection_is_closed_with_the_code_and_the_reason_of_its_server(engines: list[Memory]) -> None:
    async with pair() as (one, other), server(one) as asking:
        for running in (one, other):
            for body, end in ((None, (1000, "")), ({"code": 4000, "reason": "bye"}, (4000, "bye"))):
                client = await greeted(running)
                await asking.post(f"connections/{client.socket_id}/disconnect", body)
                with pytest.raises(rawws.ConnectionClosed):
                    await client.ws.recv()
                assert (client.ws.close_code, client.ws.close_reason) == end


WRONG_ENDS: Final[list[tuple[Any, str]]] = [
    ({"code": "x"}, "code is str, allowed is int"),
    ({"code": True}, "code is bool, allowed is int"),
    ({"code": 1006}, "close code is 1006"),
    ({"code": 4000, "reason": "x" * 124}, "124 bytes"),
    ({"code": 4000, "reason": 7}, "reason is no printable text"),
    ({"code": 4000, "reason": "\n"}, "reason is no printable text"),
    (b'{"reason": "\\ud800"}', "reason is no printable text"),
]


async def test_what_no_close_frame_may_have_closes_nothing() -> None:
    async with gateway() as running, server(running) as asking:
        client = await signed_in(running, "ann")
        for body, reason in WRONG_ENDS:
            for path in (f"connections/{client.socket_id}/disconnect", "users/ann/disconnect"):
                found = await asking.refused(path, body)
                assert (found[:2], reason in found[2]) == ((400, "malformed"), True), found
        await client.quiet()


async def test_the_connections_of_a_user_are_ended_at_all_instances_and_in_no_other_app(engines: list[Memory]) -> None:
    async with pair(TWO_APPS) as (one, other), server(one) as asking:
        async with own(other.port, everything("ann"), "4") as namesake:
            for body, ends in (
                (
                    None,
                    {
                        (4009, "the connections of the user were ended"),
                        (4401, "the connections of the user were ended"),
                    },
                ),
                ({"code": 4123, "reason": "gone away"}, {(4123, "gone away")}),
            ):
                async with own(other.port, everything("ann")) as ann:
                    pusher, bob = await signed_in(one, "ann"), await signed_in(one, "bob")
                    await ann.ask(subscribe="room")
                    await asking.until("users/ann", count=2)
                    assert await asking.post("users/ann/disconnect", body) == {"count": 2}
                    assert {await pusher.closed(), await ann.ended()} == ends
                    await bob.quiet()
            # Users are those of one app: who has the name in another stays.
            assert "cursor" in await namesake.ask(subscribe="room")
        assert await asking.post("users/nobody/disconnect") == {"count": 0}


# -- subscriptions


async def test_a_server_subscribes_connections_of_both_protocols(engines: list[Memory]) -> None:
    async with pair(token_file()) as (one, other), server(one) as asking:
        for user, running in (("ann", one), ("anna", other)):
            pusher = await signed_in(running, "bob")
            base = f"connections/{pusher.socket_id}/"
            await asking.post(f"{base}subscribe", {"channels": ["private-a", "presence-b"]})
            said = [await pusher.said() for _ in range(2)]
            assert {each["event"] for each in said} == {"pusher_internal:subscription_succeeded"}
            assert {each["channel"] for each in said} == {"private-a", "presence-b"}
            # Again is nothing new.
            await asking.post(f"{base}subscribe", {"channels": ["private-a"]})
            # Its caps allow it nothing: its server does.
            async with own(running.port, everything(user, caps=[])) as ann:
                assert (await ann.ask(subscribe="private-a"))["error"] == "refused"
                ident = f"connections/{await ident_of(asking, user)}"
                await asking.post(f"{ident}/subscribe", {"channels": ["private-a", "presence-b", "private-a"]})
                await asking.post(f"{ident}/subscribe", {"channels": ["private-a"]})
                assert (await pusher.said())["event"] == "pusher_internal:member_added"
                assert sorted((await asking.get(ident))["channels"]) == ["presence-b", "private-a"]
                await asking.post("publish", {"channel": "private-a", "event": "e", "data": "hello"})
                assert (await pusher.said())["data"] == "hello"
                heard = await published(ann)
                assert (heard["topic"], heard["data"]) == ("private-a", "hello")
                members = (await asking.get("channels/presence-b/members"))["members"]
                assert [each["user"] for each in members] == [user, "bob"]
                await asking.post(f"{ident}/unsubscribe", {"channels": ["private-a", "nothing"]})
                assert (await asking.get(ident))["channels"] == ["presence-b"]
                await asking.post(f"{base}unsubscribe", {"channels": ["private-a"]})
                await asking.post("publish", {"channel": "private-a", "data": "nobody hears"})
                await asking.post(f"{ident}/send", {"data": "last"})
                assert await published(ann) == {"data": "last"}
            assert (await pusher.said())["event"] == "pusher_internal:member_removed"
            await pusher.quiet()
            await pusher.ws.close()


async def published(client: OwnClient) -> dict[str, Any]:
    """Return what a client hears next that has data."""
    while "data" not in (heard := await client.hear()):
        pass
    return heard


async def test_a_subscription_that_cannot_be_is_told_with_its_reason() -> None:
    limits = "limits = { channels = 2, members = 1 }"
    async with gateway(token_file(limits)) as running, server(running) as asking:
        pusher = await greeted(running)
        base = f"connections/{pusher.socket_id}/subscribe"
        found = await asking.refused(base, {"channels": ["presence-a"]})
        assert found == (409, "refused", "the channel_data is missing, and nobody is signed in")
        found = await asking.refused(base, {"channels": ["#server-to-user-ann"]})
        assert found == (409, "refused", "the channel #server-to-user-ann is for another user")
        found = await asking.refused(base, {"channels": ["a", "b", "c"]})
        assert found == (429, "limit", "the connection has 2 channels, the limit")
        bodies: list[dict[str, Any]] = [
            {},
            {"channels": "a"},
            {"channels": []},
            {"channels": ["a b"]},
            {"channels": ["a"], "x": 1},
        ]
        for body in bodies:
            assert (await asking.refused(base, body))[:2] == (400, "malformed")
        async with own(running.port, everything("ann")) as ann, own(running.port, everything("bob")) as bob:
            await ann.ask(subscribe="presence-a", join=None)
            await bob.ask(subscribe="room")
            of_ann, of_bob = [f"connections/{await ident_of(asking, user)}/subscribe" for user in ("ann", "bob")]
            found = await asking.refused(of_bob, {"channels": ["presence-a"]})
            assert found == (429, "limit", "the channel presence-a has 1 members, the limit")
            found = await asking.refused(of_ann, {"channels": ["b", "c"]})
            assert found == (429, "limit", "the connection has 2 channels, the limit")
            found = await asking.refused(of_ann, {"channels": ["cache-a"]})
            assert found[:2] == (409, "refused")


async def test_nobody_is_subscribed_before_it_is_known_who_it_is() -> None:
    calls = 'origins = ["*"]\n[app.calls]\nconnect = "http://127.0.0.1:1"'
    async with gateway(app_file(calls)) as running, server(running) as asking:
        clients: Any = running.gateway.main.rules
        waiting = asyncio.Event()

        async def identify(_: Any) -> rawws.Identity:
            await waiting.wait()
            raise rawws.HttpError(401, "nobody")

        clients.identify = identify
        async with own(running.port) as eve:
            await eventually(lambda: len(running.gateway.connections) == 1)
            [ident] = running.gateway.connections
            found = await asking.refused(f"connections/{ident.socket_id}/subscribe", {"channels": ["a"]})
            assert found == (409, "refused", "it is not known yet whose connection it is")
            waiting.set()
            assert (await eve.ended())[0] == 4401


async def test_a_connection_whose_app_is_gone_from_the_file_is_gone() -> None:
    async with gateway(app_file() + OTHER) as running:
        client = await greeted(running)
        [connection] = running.gateway.connections.values()
        [remaining] = [read_config(OTHER)]
        running.gateway.reload(remaining)
        assert v1_connections.join(connection, {"channels": ["a"]}).status == 410
        await client.ws.close()
