"""The state log: records in one order to what is told, alike at all instances."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rawws.gateway.state_log import GRACE, REPEAT, StateLog, Transition, best_instance

KEY = "3/c:room"


def edge(instance: str, up: bool, key: str = KEY) -> dict[str, Any]:
    return {"i": instance, "k": key, "up": up}


def tell(instance: str, up: bool, key: str = KEY) -> dict[str, Any]:
    return {"i": instance, "tell": key, "up": up}


def test_what_begins_is_proposed_at_once_and_told_when_the_proposal_comes_back() -> None:
    log = StateLog("a")
    log.apply(edge("a", True), 0.0)
    [proposal] = log.proposals(0.0, {"a"})
    assert proposal == tell("a", True)
    assert log.told == set()
    assert log.apply(proposal, 0.1) == Transition(KEY, True, "a")
    assert log.told == {KEY}
    assert log.proposals(10.0, {"a"}) == []


def test_what_ends_is_proposed_when_nobody_came_back_in_time() -> None:
    log = StateLog("a")
    for record in (edge("a", True), tell("a", True), edge("a", False)):
        log.apply(record, 1.0)
    assert log.proposals(1.0 + GRACE - 0.1, {"a"}) == []
    assert log.proposals(1.0 + GRACE, {"a"}) == [tell("a", False)]
    # It is on its way.
    assert log.proposals(1.0 + GRACE + 1, {"a"}) == []
    # It does not come.
    assert log.proposals(1.0 + GRACE + 3, {"a"}) == [tell("a", False)]


def test_what_is_proposed_is_proposed_again_after_so_long_and_at_once_when_it_was_told_meanwhile() -> None:
    log = StateLog("a")
    log.apply(edge("a", True), 0.0)
    assert log.proposals(0.0, {"a"}) == [tell("a", True)]
    assert log.proposals(REPEAT - 0.01, {"a"}) == []
    assert log.proposals(REPEAT, {"a"}) == [tell("a", True)]
    log.apply(tell("a", True), REPEAT)
    log.apply(edge("a", False), 10.0)
    assert log.proposals(10.0 + GRACE, {"a"}) == [tell("a", False)]
    log.apply(tell("a", False), 10.0 + GRACE)
    log.apply(edge("a", True), 10.1 + GRACE)
    assert log.proposals(10.2 + GRACE, {"a"}) == [tell("a", True)]


def test_what_is_over_stays_so_since_it_began_whatever_is_said_of_it_once_more() -> None:
    log = StateLog("a")
    for record in (edge("a", True), tell("a", True), edge("a", False)):
        log.apply(record, 0.0)
    log.apply(edge("b", False), GRACE - 0.1)
    assert log.proposals(GRACE, {"a"}) == [tell("a", False)]
    # What another one knows not to be told any more needs nobody.
    log.restore([], GRACE)
    assert (log.unsettled, log.proposals(100.0, {"a"})) == (0, [])


def test_who_comes_back_in_time_was_never_away() -> None:
    log = StateLog("a")
    for record in (edge("a", True), tell("a", True), edge("a", False)):
        log.apply(record, 0.0)
    log.apply(edge("b", True), 2.9)
    assert log.proposals(100.0, {"a"}) == []
    log.apply(edge("b", False), 101.0)
    assert log.proposals(101.0 + GRACE - 0.1, {"a"}) == []


def test_the_second_of_two_proposals_changes_nothing() -> None:
    log = StateLog("a")
    log.apply(edge("a", True), 0.0)
    assert log.apply(tell("b", True), 0.0) == Transition(KEY, True, "b")
    assert log.apply(tell("a", True), 0.0) is None


def test_an_instance_that_is_gone_had_nothing_any_more() -> None:
    log = StateLog("a")
    for record in (edge("a", True), edge("b", True), edge("b", True, "3/u:7"), tell("a", True, "3/u:7")):
        log.apply(record, 0.0)
    assert log.instances() == {"a", "b"}
    log.forget("b", 5.0)
    assert log.instances() == {"a"}
    assert log.holders == {KEY: {"a"}}
    assert [each["tell"] for each in log.proposals(9.0, {"a"})] == [KEY, "3/u:7"]


def test_all_that_an_instance_has_replaces_what_it_had_and_a_further_piece_adds_to_it() -> None:
    log = StateLog("a")
    log.apply(edge("b", True, "3/c:old"), 0.0)
    log.apply({"i": "b", "all": ["3/c:x"]}, 0.0)
    log.apply({"i": "b", "all": ["3/c:y"], "more": True}, 0.0)
    assert log.holders == {"3/c:x": {"b"}, "3/c:y": {"b"}}
    log.apply({"i": "b", "all": []}, 0.0)
    assert log.holders == {}


def test_what_is_told_can_be_taken_over() -> None:
    log = StateLog("a")
    log.apply(edge("a", True), 0.0)
    log.restore([KEY, "3/c:gone"], 1.0)
    assert log.proposals(1.0, {"a"}) == []
    assert log.proposals(1.0 + GRACE, {"a"}) == [tell("a", False, "3/c:gone")]


def test_records_of_others_are_ignored() -> None:
    log = StateLog("a")
    assert log.apply({"i": "b"}, 0.0) is None
    assert log.apply({"i": "b", "all": "x"}, 0.0) is None
    assert log.apply({}, 0.0) is None
    assert log.holders == {}


def test_one_instance_tells_of_all_keys_of_a_channel_and_few_keys_move_when_one_comes() -> None:
    three, four = {"a", "b", "c"}, {"a", "b", "c", "d"}
    keys = [f"3/c:room-{number}" for number in range(1000)]
    assert best_instance("3/m:room-1:u1", three) == best_instance("3/c:room-1", three)
    assert best_instance("3/u:u1", three) in three
    assert best_instance("3/u:u1", ()) == ""
    moved = [key for key in keys if best_instance(key, three) != best_instance(key, four)]
    assert all(best_instance(key, four) == "d" for key in moved)
    assert 180 < len(moved) < 320


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["k", "tell"]), st.booleans(), st.sampled_from("xy")))
)
def test_who_reads_the_same_records_holds_the_same_whenever_it_reads_them(
    records: list[tuple[str, str, bool, str]],
) -> None:
    logs = [StateLog("a"), StateLog("b")]
    changes: list[list[Transition]] = [[], []]
    for number, log in enumerate(logs):
        for time, (instance, kind, up, key) in enumerate(records):
            change = log.apply({"i": instance, kind: f"3/c:{key}", "up": up}, time * (number + 1.0))
            if change is not None:
                changes[number].append(change)
    assert logs[0].holders == logs[1].holders
    assert logs[0].told == logs[1].told
    assert changes[0] == changes[1]
    for key in ("3/c:x", "3/c:y"):
        ups = [change.up for change in changes[0] if change.key == key]
        assert ups == [number % 2 == 0 for number in range(len(ups))]
