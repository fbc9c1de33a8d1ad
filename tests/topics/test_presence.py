"""Presence: who watches knows who is there."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rawws.topics import Hub, Present, TopicError
from rawws.topics.presence import PresenceSet
from tests.server.peers import eventually
from tests.topics.dialogue import allow, client, served
from tests.topics.receivers import Receiver


async def test_who_watches_is_told_who_comes_and_goes() -> None:
    hub = Hub(authorize=allow)
    async with served(hub) as server, client(server) as ann, client(server) as watcher:
        answer = await ann.ask(id=1, subscribe="room", join={"name": "Ann"})
        me = {"id": answer["present"], "info": {"name": "Ann"}}
        listed = await watcher.ask(id=1, subscribe="room", watch=True)
        assert (listed["members"], listed["count"]) == ([me], 1)
        async with client(server) as bob:
            joined = await bob.ask(id=1, subscribe="room", join=None, watch=True)
            him = {"id": joined["present"], "info": None}
            assert joined["members"] == [me, him]
            assert await watcher.hear() == {"topic": "room", "join": him}
            assert [present.id for present in hub.presence("room")] == [me["id"], him["id"]]
        assert await watcher.hear() == {"topic": "room", "leave": him}
        await ann.ask(id=2, unsubscribe="room")
        assert await watcher.hear() == {"topic": "room", "leave": me}
        assert hub.presence("room") == []
        assert hub.stats().present == 0


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
