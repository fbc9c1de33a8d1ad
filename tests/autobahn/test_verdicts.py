"""Tests of the judge: it must be impossible for a run to pass with fewer cases, or with a flaw."""

from __future__ import annotations

import pytest

from tests.autobahn.verdicts import GROUPS, TOTAL, Outcome, SelectionError, flaws, missing, select, table

EVERY_CASE = [f"{group}.1.{number}" for group, size in GROUPS.items() for number in range(1, size + 1)]


def outcome(case_id: str = "1.1.1", behavior: str = "OK", behavior_close: str = "OK") -> Outcome:
    return Outcome(case_id, behavior, behavior_close, 1000, 1500, "the reason")


def test_the_groups_add_up_to_the_517_cases_of_the_suite() -> None:
    assert sum(GROUPS.values()) == TOTAL == 517
    assert select("1-13", EVERY_CASE) == EVERY_CASE


@pytest.mark.parametrize(
    ("expression", "count"),
    [("1-7,10", 247), ("9,12,13", 270), ("12", 90), ("6.1.1", 1), ("1,1.1.1", 16), ("13.1", 126)],
)
def test_a_selection_names_groups_ranges_and_prefixes(expression: str, count: int) -> None:
    assert len(select(expression, EVERY_CASE)) == count


def test_a_prefix_ends_at_a_dot() -> None:
    assert select("1", EVERY_CASE) == [case for case in EVERY_CASE if case.startswith("1.")]


@pytest.mark.parametrize("expression", ["", "8", "1,,2", "11", "1-a", "7-1", "6.1.999", "*"])
def test_a_selection_that_names_nothing_is_refused(expression: str) -> None:
    with pytest.raises(SelectionError):
        select(expression, EVERY_CASE)


@pytest.mark.parametrize("every_case", [EVERY_CASE[1:], [*EVERY_CASE, "14.1.1"], [*EVERY_CASE[1:], "1.1.2"]])
def test_a_suite_of_another_size_is_refused(every_case: list[str]) -> None:
    with pytest.raises(SelectionError, match="known are 517"):
        select("1-7", every_case)


def test_a_case_that_did_not_run_is_missing() -> None:
    assert missing(["1.1.1", "1.1.2"], [outcome("1.1.2")]) == ["not run: 1.1.1"]


def test_a_case_that_ran_twice_does_not_make_up_for_another() -> None:
    found = missing(["1.1.1", "1.1.2"], [outcome("1.1.2"), outcome("1.1.2")])
    assert found == ["not run: 1.1.1", "run too often, or not asked for: 1.1.2"]


def test_a_full_run_misses_nothing() -> None:
    assert missing(EVERY_CASE, [outcome(case) for case in reversed(EVERY_CASE)]) == []


@pytest.mark.parametrize("behavior", ["NON-STRICT", "INFORMATIONAL", "FAILED", "UNIMPLEMENTED", "ERROR", "NEW"])
def test_any_behavior_but_ok_is_a_flaw(behavior: str) -> None:
    assert flaws(outcome(behavior=behavior)) == [behavior]


@pytest.mark.parametrize("close", ["WRONG CODE", "UNCLEAN", "FAILED", "FAILED BY CLIENT", "INFORMATIONAL"])
def test_any_close_but_ok_is_a_flaw(close: str) -> None:
    assert flaws(outcome(behavior_close=close)) == [f"close {close}"]


@pytest.mark.parametrize("case_id", ["7.1.6", "7.13.1", "7.13.2"])
def test_three_cases_may_be_informational_and_nothing_worse(case_id: str) -> None:
    assert flaws(outcome(case_id, "INFORMATIONAL", "INFORMATIONAL")) == []
    assert flaws(outcome(case_id, "NON-STRICT", "WRONG CODE")) == ["NON-STRICT", "close WRONG CODE"]


def test_the_table_counts_each_group_and_explains_each_case_that_is_not_ok() -> None:
    text = table(
        [outcome("10.1.1"), outcome("2.1", "NON-STRICT"), outcome("2.2"), outcome("7.1.5", "FAILED", "UNCLEAN")]
    )
    assert [line.split() for line in text.splitlines()] == [
        "group cases OK NON-STRICT INFORMATIONAL FAILED wrong close case seconds".split(),
        "2 2 1 1 0 0 0 3.0".split(),
        "7 1 0 0 0 1 1 1.5".split(),
        "10 1 1 0 0 0 0 1.5".split(),
        "all 4 2 1 0 1 1 6.0".split(),
        "2.1 NON-STRICT: the reason (close code 1000)".split(),
        "7.1.5 FAILED, close UNCLEAN: the reason (close code 1000)".split(),
    ]
