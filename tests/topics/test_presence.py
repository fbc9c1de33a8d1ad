"""Presence: who watches knows who is there."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rawws.net.identity import MAX_INFO
from rawws.topics import Hub, Identity, Present, TopicError
from rawws.topics.presence import PresenceSet, new_present, present_of
from tests.server.peers import eventually
from tests.topics.dialogue import allow, client, served
from tests.topics.receivers import Receiver


async def test_who_watches_is_told_who_comes_and_goes() -> None:
    hub = Hub(authorize=allow)
    async with served(hub) as server, client(server) as ann, client(server) as watcher:
        answer = await ann.ask(id=1, subscribe="room", join={"name": "Ann"})
        me = {"id": answer["present"], "info": {"name": "Ann"}, "claimed": True}
        listed = await watcher.ask(id=1, subscribe="room", watch=True)
        assert (listed["members"], listed["count"]) == ([me], 1)
        async with client(server) as bob:
            joined = await bob.ask(id=1, subscribe="room", join=None, watch=True)
            him = {"id": joined["present"], "info": None, "claimed": True}
            assert joined["members"] == [me, him]
            assert await watcher.hear() == {"topic": "room", "join": him}
            assert [present.id for present in hub.presence("room")] == [me["id"], him["id"]]
        assert await watcher.hear() == {"topic": "room", "leave": him}
        await ann.ask(id=2, unsubscribe="room")
        assert await watcher.hear() == {"topic": "room", "leave": me}
        assert hub.presence("room") == []
        assert hub.stats().present == 0


def test_of_a_user_who_is_gone_nothing_is_left() -> None:
    known = PresenceSet()
    for away in (False, True):
        known.join(Present("@1", b"null", user="ann", away=away))
        assert known.is_connected("ann") is not away
        # Twice is once.
        known.join(Present("@1", b"null", user="ann", away=away))
        assert known.users == {"ann": 1}
        assert known.leave("@1") is not None
        assert (known.members, known.users, known.away) == ({}, {}, {})


def test_the_longest_that_one_server_tells_of_a_user_is_read_by_another() -> None:
    name, info = '"' * 255, "x" * (MAX_INFO - 2)
    present = new_present(info, Identity(name, info), is_claim=True)
    there = present_of(present.id, present.told(), "other")
    assert (there.user, there.info, there.claim) == (name, info, info)
    with pytest.raises(TopicError, match="names none"):
        present_of(present.id, present.told() + " " * 4096, "other")


async def test_nobody_is_present_who_did_not_say_so_and_nobody_told_who_did_not_ask() -> None:
    hub = Hub(authorize=allow)
    async with served(hub) as server, client(server) as one, client(server) as two:
        await one.ask(id=1, subscribe="room")
        await two.ask(id=1, subscribe="room", join="x")
        assert (await one.ask(id=2, presence="room"))["count"] == 1
        hub.publish("room", "next")
        assert (await one.hear())["data"] == "next"


async def test_a_long_list_is_cut_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rawws.topics.envelope.MAX_LISTED", 2)
    hub = Hub(authorize=allow)
    for number in range(5):
        hub.subscribe(Receiver(), "room", join=number)
    async with served(hub) as server, client(server) as one:
        answer = await one.ask(id=1, presence="room")
        assert [member["info"] for member in answer["members"]] == [0, 1]
        assert answer["count"] == 5
        await eventually(lambda: hub.stats().present == 5)


def test_a_notice_is_no_publication_and_has_no_place_in_the_topic() -> None:
    hub = Hub()
    watcher = Receiver()
    cursor = hub.subscribe(watcher, "room", watch=True).cursor
    other = Receiver()
    subscription = hub.subscribe(other, "room", join=["x"])
    assert watcher.got == [f'{{"topic":"room","join":{{"id":"{subscription.present}","info":["x"]}}}}']
    assert subscription.cursor == cursor
    assert other.got == []


def test_under_conflate_the_last_that_is_known_of_each_waits() -> None:
    hub = Hub(policy="conflate")
    watcher, guest = Receiver(), Receiver()
    hub.subscribe(watcher, "room", watch=True)
    watcher.congested = True
    hub.publish("room", "a")
    hub.subscribe(guest, "room", join="x")
    hub.unsubscribe(guest)
    hub.publish("room", "b")
    watcher.read_on()
    assert len(watcher.got) == 2
    assert '"leave"' in str(watcher.got[0])
    assert watcher.got[1] == "b"


@pytest.mark.parametrize("info", [object(), {1, 2}, float("nan"), "x" * 1023, "\ud800", b"x"])
def test_what_cannot_be_told_in_a_few_words_of_json_is_refused_and_leaves_nothing(info: Any) -> None:
    hub = Hub()
    receiver = Receiver()
    with pytest.raises(TopicError, match="what is told of somebody present"):
        hub.subscribe(receiver, "room", join=info)
    assert receiver.member is None
    assert hub.stats()[:4] == (0, 0, 0, 0)


def test_what_was_told_does_not_change_with_what_it_was_made_of() -> None:
    hub = Hub()
    info = {"name": "Ann"}
    hub.subscribe(Receiver(), "room", join=info)
    info["name"] = "Eve"
    assert hub.presence("room")[0].info == {"name": "Ann"}


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["", "s1", "s2"]), st.sampled_from(["+", "-", "gone"])))
)
def test_a_roster_is_a_set_by_ids_and_a_server_takes_its_own_with_it(steps: list[tuple[str, str, str]]) -> None:
    roster = PresenceSet()
    model: dict[str, Present] = {}
    for name, server, step in steps:
        if step == "+":
            present = Present(name, b"null", server)
            assert roster.join(present) == (model.get(name) != present)
            model[name] = present
        elif step == "-":
            assert roster.leave(name) == model.pop(name, None)
        else:
            gone = [present for present in model.values() if present.server == server]
            assert roster.leave_all(server) == gone
            model = {key: present for key, present in model.items() if present.server != server}
        assert roster.members == model


def test_what_becomes_of_a_notice_is_counted_as_of_a_publication() -> None:
    hub, watcher, slow = Hub(), Receiver(), Receiver()
    hub.subscribe(watcher, "a", watch=True)
    hub.subscribe(slow, "a", watch=True)
    slow.congested = True
    somebody = Receiver()
    hub.subscribe(somebody, "a", join="x")
    assert (hub.stats().delivered, hub.stats().queued, hub.stats().published) == (1, 1, 0)
    hub.unsubscribe(somebody)
    assert (hub.stats().delivered, hub.stats().queued, hub.stats().published) == (2, 2, 0)


def test_who_left_a_topic_is_not_told_who_comes_and_goes_there() -> None:
    hub, watcher, other = Hub(), Receiver(), Receiver()
    for topic in ("a", "b"):
        hub.subscribe(watcher, topic, watch=True)
    hub.unsubscribe(watcher, "a")
    hub.subscribe(other, "a", join="x")
    assert watcher.got == []
    hub.subscribe(other, "b", join="x")
    assert len(watcher.got) == 1


# -- users

V1 = "Sec-WebSocket-Protocol: rawws.v1"
INFO = {"picture": "/ann.png"}


def as_user(user: str) -> tuple[str, str]:
    return V1, f"Authorization: Bearer {user}"


def by_token(asker: Any) -> Identity | None:
    return Identity(asker.token, INFO) if asker.token else None


def person(user: str, info: Any = None) -> Receiver:
    """A receiver whose application knows who it is."""
    receiver = Receiver()
    receiver.identity = Identity(user, info)
    return receiver


async def test_one_receiver_may_be_another_user_in_each_topic() -> None:
    hub, both, watcher = Hub(), Receiver(), Receiver()
    hub.subscribe(watcher, "a", watch=True)
    hub.subscribe(both, "a", join=Identity("ann", {"name": "Ann"}))
    hub.subscribe(both, "b", join=Identity("bob"))
    hub.subscribe(Receiver(), "a", join=Identity("ann"))
    assert {user: len(found) for user, found in hub.users("a").items()} == {"ann": 2}
    assert hub.users("b").keys() == {"bob"}
    assert [present.info for present in hub.presence("a")] == [{"name": "Ann"}, None]
    assert [hub.connections(topic, user) for topic in ("a", "b", "c") for user in ("ann", "bob")] == [2, 0, 0, 1, 0, 0]
    hub.unsubscribe(both)
    assert hub.connections("a", "ann") == 1
    assert len(watcher.got) == 3


async def test_what_is_told_of_somebody_is_as_long_as_the_hub_allows() -> None:
    hub = Hub(max_info=2048)
    hub.subscribe(Receiver(), "a", join="x" * 2046)
    with pytest.raises(TopicError, match="has 2049 bytes, limit 2048"):
        hub.subscribe(Receiver(), "a", join="x" * 2047)
    for wrong in (0, (1 << 16) + 1):
        with pytest.raises(ValueError, match="allowed are 1 to 65536 bytes"):
            Hub(max_info=wrong)


async def test_who_is_present_is_the_user_that_the_server_knows_whatever_a_client_claims() -> None:
    hub = Hub(identify=by_token, authorize=allow)
    async with served(hub) as server, client(server) as watcher, client(server, *as_user("ann")) as ann:
        await watcher.ask(id=1, subscribe="room", watch=True)
        first = await ann.ask(id=1, subscribe="room", join={"name": "Admin", "user": "root"}, watch=True)
        me = {"id": first["present"], "info": INFO, "user": "ann", "claim": {"name": "Admin", "user": "root"}}
        assert (first["members"], first["count"], first["users"]) == ([me], 1, 1)
        assert await watcher.hear() == {"topic": "room", "join": me}
        async with client(server, *as_user("ann")) as tab, client(server) as eve:
            second = await tab.ask(id=1, subscribe="room", join=None)
            assert (await watcher.hear())["join"] == {"id": second["present"], "info": INFO, "user": "ann"}
            third = await eve.ask(id=1, subscribe="room", join={"user": "ann"})
            her = {"id": third["present"], "info": {"user": "ann"}, "claimed": True}
            assert (await watcher.hear())["join"] == her
            listed = await eve.ask(id=2, presence="room")
            assert (listed["count"], listed["users"]) == (3, 1)
            assert [member.get("user") for member in listed["members"]] == ["ann", "ann", None]
            assert {user: len(each) for user, each in hub.users("room").items()} == {"ann": 2}
            [one, two, three] = hub.presence("room")
            assert (one.user, one.info, one.claim, one.claimed) == ("ann", INFO, me["claim"], False)
            assert (two.user, two.claim, three.user, three.claimed) == ("ann", None, "", True)
        await eventually(lambda: len(hub.presence("room")) == 1)
    assert hub.users("room") == {}


async def test_claims_may_be_off() -> None:
    hub = Hub(identify=by_token, authorize=allow, claims=False)
    async with served(hub) as server, client(server, *as_user("ann")) as ann, client(server) as eve:
        await ann.ask(id=1, subscribe="room", join={"name": "Admin"})
        answer = await eve.ask(id=1, subscribe="room", join={"name": "Admin"}, watch=True)
        assert [{**member, "id": ""} for member in answer["members"]] == [
            {"id": "", "info": INFO, "user": "ann"},
            {"id": "", "info": None},
        ]


async def test_what_the_application_says_of_somebody_is_no_claim() -> None:
    hub = Hub()
    ann = hub.subscribe(person("ann", INFO), "room", join="writes")
    anybody = hub.subscribe(Receiver(), "room", join="reads")
    assert [(each.id, each.user, each.info, each.claimed) for each in hub.presence("room")] == [
        (ann.present, "ann", "writes", False),
        (anybody.present, "", "reads", False),
    ]


async def test_a_user_that_comes_back_in_time_neither_leaves_nor_joins() -> None:
    hub = Hub(identify=by_token, authorize=allow, presence_grace=60)
    async with served(hub) as server, client(server) as watcher:
        await watcher.ask(id=1, subscribe="room", watch=True)
        async with client(server, *as_user("ann")) as ann:
            first = await ann.ask(id=1, subscribe="room", join="x")
            assert "join" in await watcher.hear()
        await eventually(lambda: hub.stats().subscribers == 1)
        assert [each.away for each in hub.presence("room")] == [True]
        async with client(server, *as_user("ann")) as ann:
            again = await ann.ask(id=1, subscribe="room", join="x")
            assert again["present"] == first["present"]
            assert [each.away for each in hub.presence("room")] == [False]
            # Another tab is another one, and what is new of the same one is told as that.
            async with client(server, *as_user("ann")) as tab:
                assert (await tab.ask(id=1, subscribe="room", join="y"))["present"] != first["present"]
                assert (await watcher.hear())["join"]["claim"] == "y"
            await eventually(lambda: hub.stats().subscribers == 2)
            async with client(server, *as_user("ann")) as tab:
                await tab.ask(id=1, subscribe="room", join="z")
                assert (await watcher.hear())["join"]["claim"] == "z"
                # Who says that it leaves is gone at once.
                await tab.ask(id=2, unsubscribe="room")
                assert (await watcher.hear())["leave"]["claim"] == "z"
            # And of anybody it is not known who comes back.
            async with client(server) as anybody:
                await anybody.ask(id=1, subscribe="room", join="a")
                assert "join" in await watcher.hear()
            assert "leave" in await watcher.hear()
            assert [each.user for each in hub.presence("room")] == ["ann"]
    await hub.close()
    assert hub.presence("room") == []
    assert hub.stats().topics <= 1


async def test_a_user_that_does_not_come_back_leaves_and_the_topic_is_forgotten() -> None:
    hub = Hub(history=None, presence_grace=0.05)
    watcher, ann = Receiver(), person("ann")
    hub.subscribe(watcher, "room", watch=True)
    hub.subscribe(ann, "room", join=None)
    hub.subscribe(ann, "empty", join=None)
    ann.die()
    assert hub.stats().topics == 2
    assert [each.away for each in hub.presence("empty")] == [True]
    await eventually(lambda: len(watcher.got) == 2)
    assert '"leave"' in str(watcher.got[1])
    assert hub.presence("empty") == hub.presence("room") == []
    assert hub.stats().topics == 1


def test_without_a_loop_nobody_is_waited_for() -> None:
    hub, ann = Hub(presence_grace=60), person("ann")
    hub.subscribe(ann, "room", join=None)
    ann.die()
    assert hub.presence("room") == []


@pytest.mark.parametrize("grace", [-1, 3601, float("nan")])
def test_a_grace_is_a_time_of_a_reload(grace: float) -> None:
    with pytest.raises(ValueError, match="presence_grace is"):
        Hub(presence_grace=grace)


@pytest.mark.parametrize("claim", [None, {"a": [1]}, "x" * 1000])
@pytest.mark.parametrize("away", [False, True])
def test_what_other_servers_are_told_is_who_it_is(claim: Any, away: bool) -> None:
    for user in ("", "ann", 'a"n' * 80):
        identity = Identity(user, INFO) if user else None
        present = new_present(claim, identity, is_claim=True)._replace(away=away and bool(user))
        assert present_of(present.id, present.told(), "s") == present._replace(server="s")
        said = new_present(claim, identity)
        assert present_of(said.id, said.told(), "") == said
        json.loads(present.told())


@pytest.mark.parametrize(
    "told",
    ["7", "null", "{}", '{"user":""}', '{"user":7}', "{", "x" * 5000, '{"user":"a","info":' + '"' + "x" * 1100 + '"}'],
)
def test_a_user_of_another_server_that_is_none_is_not_shown(told: str) -> None:
    with pytest.raises(TopicError, match="what is told of"):
        present_of("@x", told, "s")


def test_a_set_counts_users_and_knows_who_of_them_is_away() -> None:
    roster = PresenceSet()
    one, two = Present("@1", b"1", user="ann"), Present("@2", b"1", user="ann", away=True)
    assert roster.join(one)
    assert roster.join(two)
    assert not roster.join(two)
    assert (roster.users, roster.find_away("ann"), roster.find_away("bob")) == ({"ann": 2}, two, None)
    assert roster.join(two._replace(away=False))
    assert roster.find_away("ann") is None
    assert (roster.leave("@1"), roster.leave("@1")) == (one, None)
    assert roster.users == {"ann": 1}
    assert roster.leave_all("") == [two._replace(away=False)]
    assert roster.users == {}
