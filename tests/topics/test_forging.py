"""Forgers: clients that claim to be somebody else, over each transport. Each attempt fails, and nobody else notices."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import jwt
import pytest

import rawws
from rawws.integrations.jwt import JwtIdentity
from rawws.topics import Hub, Identity
from tests.server.answers import ask, get
from tests.topics.dialogue import Client, allow, client, served

SECRET: Final = "of the server, and of nobody else"
V1: Final = "Sec-WebSocket-Protocol: rawws.v1"


def token(user: str, seconds: float = 1000, secret: str = SECRET) -> str:
    return jwt.encode({"sub": user, "exp": time.time() + seconds}, secret, "HS256")


def as_user(user: str, seconds: float = 1000) -> tuple[str, str]:
    return V1, f"Authorization: Bearer {token(user, seconds)}"


@pytest.fixture
def hub() -> Iterator[Hub]:
    made = Hub(
        identify=JwtIdentity(SECRET, algorithms=["HS256"], info=lambda said: {"name": said["sub"].title()}),
        authorize=allow,
    )
    yield made
    assert made.stats().subscribers == 0


@asynccontextmanager
async def room(hub: Hub) -> AsyncIterator[tuple[rawws.Server, Client, Client]]:
    """Ann, who watches a room, and Eve, who would be Ann."""
    async with served(hub) as server:
        async with client(server, *as_user("ann")) as ann, client(server, *as_user("eve")) as eve:
            await ann.ask(id=1, subscribe="room", join=None, watch=True)
            yield server, ann, eve


async def post(server: rawws.Server, name: str, /, **fields: Any) -> tuple[int, Any]:
    body = json.dumps(fields).encode()
    request = get("/", "Connection: close", f"Authorization: Bearer {token(name)}", method="POST", body=body)
    [answer] = await ask(server, request, ["POST"])
    return answer.status, json.loads(answer.body)


async def test_who_claims_the_name_of_another_is_shown_as_who_it_is(hub: Hub) -> None:
    async with room(hub) as (_, ann, eve):
        [me] = hub.presence("room")
        claim = {"id": me.id, "user": "ann", "info": {"name": "Ann"}, "name": "Ann"}
        answer = await eve.ask(id=1, subscribe="room", join=claim, watch=True)
        her = {"id": answer["present"], "user": "eve", "info": {"name": "Eve"}, "claim": claim}
        assert (await ann.hear())["join"] == her
        assert her["id"] != me.id
        assert answer["members"] == [{"id": me.id, "user": "ann", "info": {"name": "Ann"}}, her]
        for more in ({"user": "ann"}, {"present": me.id}, {"identity": {"user": "ann"}}, {"claim": 1}):
            assert (await eve.ask(id=2, subscribe="other", join=None, **more))["error"] == "malformed"
        assert set(hub.users("room")) == {"ann", "eve"}
        await eve.ask(id=3, unsubscribe="room")
        assert (await ann.hear())["leave"]["user"] == "eve"


async def test_what_another_said_is_said_again_in_the_own_name_alone(hub: Hub) -> None:
    async with room(hub) as (server, ann, eve):
        await eve.ask(id=1, subscribe="room")
        said = await eve_hears(ann, eve)
        # As it came, it is no request; as a request, the sender is not the client's to say.
        assert (await eve.ask(**said))["error"] == "malformed"
        replayed = {"publish": said["topic"], "data": said["data"], "user": said["user"]}
        assert (await eve.ask(id=2, **replayed))["error"] == "malformed"
        assert await post(server, "eve", **replayed) == (
            400,
            {"error": "malformed", "reason": "publish has no 'user'"},
        )
        assert (await eve.ask(id=3, publish="room", data="yes", cursor=said["cursor"]))["error"] == "malformed"
        # The request of Ann, word for word.
        assert (await eve.ask(publish="room", data="yes"))["user"] == "eve"
        assert (await ann.hear())["user"] == "eve"
        assert (await post(server, "eve", publish="room", data="yes"))[0] == 200
        assert (await ann.hear())["user"] == (await eve.hear())["user"] == "eve"
        # And what is told of presence is told by servers alone.
        for notice in ({"join": {"id": "x", "info": None, "user": "ann"}}, {"leave": {"id": "x"}}, {"expires": 1}):
            assert (await eve.ask(topic="room", **notice))["error"] == "malformed"
    history = [publication.user for publication in hub.recall("room", since="earliest")[1]]
    assert history == ["ann", "eve", "eve"]


async def eve_hears(ann: Client, eve: Client) -> dict[str, Any]:
    await ann.say(publish="room", data="yes")
    assert (await ann.hear())["user"] == "ann"
    return await eve.hear()


@pytest.mark.parametrize("name", ["user", "sender", "from", "identity", "extra", "cursor", "topic"])
async def test_no_publication_has_a_foreign_sender(hub: Hub, name: str) -> None:
    async with room(hub) as (server, ann, eve):
        asked = {"publish": "room", "data": "x", name: "ann"}
        assert (await eve.ask(id=1, **asked))["error"] == "malformed"
        assert (await post(server, "eve", **asked))[0] == 400
        # Nor by a name of an event that would break out of its place, or JSON that is no value.
        for event in ('e","user":"ann', 'e"}'):
            heard = await ann_hears(ann, eve, publish="room", data="x", event=event)
            assert (heard["event"], heard["user"]) == (event, "eve")
        injected = '1,"user":"ann"'
        assert (await eve.ask(id=2, publish="room", data=injected, json=True))["error"] == "malformed"


async def ann_hears(ann: Client, eve: Client, **fields: Any) -> dict[str, Any]:
    await eve.say(**fields)
    return await ann.hear()


@pytest.mark.parametrize("callbacks", [False, True])
async def test_nobody_goes_on_behind_the_end_of_a_token(hub: Hub, callbacks: bool) -> None:
    async with served(hub, callbacks=callbacks, close_timeout=0.5) as server:
        async with client(server, *as_user("eve", 3)) as eve:
            await eve.ask(id=1, subscribe="room")
            # Tokens that were good, are of another, or signed by herself, renew nothing.
            for wrong in (token("eve", -1), token("ann"), token("eve", 1000, "x" * 32), ""):
                answer = await eve.ask(id=2, renew=wrong)
                while "expires" in answer:
                    answer = await eve.hear()
                assert answer["error"] == "refused"
            assert await eve.peer.closed() == (4401, "the identity has expired")
            before = hub.stats().published
            # And what comes behind the Close is not read.
            await eve.peer.write(masked('{"publish":"room","data":"late"}'))
            await eve.peer.read_to_end()
        async with client(server, *as_user("eve", -1)) as eve:
            await eve.peer.send('{"publish":"room","data":"late"}')
            assert await eve.peer.closed() == (4401, "the token is not valid")
        expired = f"Authorization: Bearer {token('eve', -1)}"
        body = b'{"publish": "room", "data": "late"}'
        for request in (
            get("/poll?topic=room", expired, "Connection: close"),
            get("/stream?topic=room", expired, "Connection: close"),
        ):
            assert (await ask(server, request))[0].status == 401
        late = get("/", expired, "Connection: close", method="POST", body=body)
        assert (await ask(server, late, ["POST"]))[0].status == 401
    assert hub.stats().published == before


def masked(text: str) -> bytes:
    """A text frame of a client, with a mask of nothing."""
    octets = text.encode()
    return bytes([0x81, 0x80 | len(octets), 0, 0, 0, 0]) + octets


async def test_who_is_sent_away_does_no_more_and_takes_nobody_with_it() -> None:
    """What was asked for before `disconnect` and not done yet, is not done behind it."""
    hub = Hub(identify=lambda asker: Identity(asker.token), authorize=allow)
    async with served(hub, callbacks=True) as server:
        eve, ann = f"{V1}|Authorization: Bearer eve".split("|"), f"{V1}|Authorization: Bearer ann".split("|")
        async with client(server, *eve) as her, client(server, *ann) as other:
            await other.ask(id=1, subscribe="room")
            await her.ask(id=1, subscribe="room")
            assert hub.disconnect("eve") == 1
            await her.peer.send('{"publish":"room","data":"late"}')
            assert await her.peer.closed() == (4401, "disconnected")
            assert (await other.ask(publish="room", data="x"))["user"] == "ann"
    assert hub.stats().published == 1
