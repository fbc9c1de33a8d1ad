"""Verdicts: which cases a run must have, what counts as passed, and the table that says so.

A run passes only if every case of the selection was run exactly once: a suite that stops early, skips a case or is a
smaller edition fails. The number of cases of each group is written down here for that reason.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["GROUPS", "TOTAL", "Outcome", "SelectionError", "flaws", "group_of", "missing", "select", "table"]

# Group: number of cases. Autobahn has no group 8, and group 11 has no cases. 12 and 13 are permessage-deflate.
GROUPS: Final = {1: 16, 2: 11, 3: 7, 4: 10, 5: 20, 6: 145, 7: 37, 9: 54, 10: 1, 12: 90, 13: 126}
TOTAL: Final = 517

# The suite asks here for what no RFC decides (a ping behind a Close frame; the close codes 5000 and 65535), and gives
# no other verdict than this one to any implementation.
INFORMATIONAL: Final = frozenset({"7.1.6", "7.13.1", "7.13.2"})


class SelectionError(ValueError):
    """A selection names a group or a case that the suite does not have."""


class Outcome(NamedTuple):
    """What the suite says of one case; `duration` in milliseconds, `close_code` as received, if any."""

    case_id: str
    behavior: str
    behavior_close: str
    close_code: int | None
    duration: int
    reason: str


def group_of(case_id: str) -> int:
    """Return the group of a case: 12 of "12.1.3"."""
    return int(case_id.partition(".")[0])


def select(expression: str, every_case: Sequence[str]) -> list[str]:
    """Return the cases that `expression` names, in the order of the suite.

    `expression` is a list of groups (`10`), ranges of groups (`1-7`) and cases or their prefixes (`9.3`, `6.4.1`), such
    as "1-7,10,9.3"; `every_case` is the suite's own list, which must be as large as it is known to be.
    """
    counted = Counter(map(group_of, every_case))
    if counted != GROUPS or len(set(every_case)) != TOTAL:
        raise SelectionError(
            f"the suite has {len(set(every_case))} cases ({dict(counted)}), known are {TOTAL} ({GROUPS})"
        )
    chosen: set[str] = set()
    for part in expression.split(","):
        found = {case_id for case_id in every_case if _names(part.strip(), case_id)}
        if not found:
            raise SelectionError(f"{part.strip()!r} names no case; groups are {', '.join(map(str, GROUPS))}")
        chosen |= found
    return [case_id for case_id in every_case if case_id in chosen]


def _names(part: str, case_id: str) -> bool:
    first, dash, last = part.partition("-")
    if dash:
        if not (first.isdecimal() and last.isdecimal()):
            raise SelectionError(f"{part!r} is no range of groups such as 1-7")
        return int(first) <= group_of(case_id) <= int(last)
    return f"{case_id}.".startswith(f"{part}.")


def flaws(outcome: Outcome) -> list[str]:
    """Return what is wrong with an outcome, nothing if the case is passed."""
    found = []
    allowed = {"OK", "INFORMATIONAL"} if outcome.case_id in INFORMATIONAL else {"OK"}
    if outcome.behavior not in allowed:
        found.append(outcome.behavior)
    if outcome.behavior_close not in allowed:
        found.append(f"close {outcome.behavior_close}")
    return found


def missing(expected: Iterable[str], outcomes: Sequence[Outcome]) -> list[str]:
    """Return in words how the cases that were run differ from those that had to be; nothing if they do not."""
    ran = Counter(outcome.case_id for outcome in outcomes)
    wanted = Counter(expected)
    parts = (("not run", wanted - ran), ("run too often, or not asked for", ran - wanted))
    return [f"{words}: {', '.join(sorted(cases.elements(), key=_order))}" for words, cases in parts if cases]


def table(outcomes: Sequence[Outcome]) -> str:
    """Return a line for each group and one for all, and below them each case that is not OK with its reason."""
    rows: list[tuple[str, ...]] = [
        ("group", "cases", "OK", "NON-STRICT", "INFORMATIONAL", "FAILED", "wrong close", "case seconds")
    ]
    for name, members in [*_by_group(outcomes).items(), ("all", list(outcomes))]:
        seconds = sum(outcome.duration for outcome in members) / 1000
        rows.append((str(name), str(len(members)), *map(str, _counts(members)), f"{seconds:.1f}"))
    lines = [" ".join(cell.rjust(len(head) + 1) for cell, head in zip(row, rows[0], strict=True)) for row in rows]
    others = [outcome for outcome in outcomes if (outcome.behavior, outcome.behavior_close) != ("OK", "OK")]
    lines += [_line(outcome) for outcome in sorted(others, key=lambda outcome: _order(outcome.case_id))]
    return "\n".join(lines)


def _by_group(outcomes: Sequence[Outcome]) -> dict[int, list[Outcome]]:
    groups: dict[int, list[Outcome]] = {}
    for outcome in sorted(outcomes, key=lambda outcome: _order(outcome.case_id)):
        groups.setdefault(group_of(outcome.case_id), []).append(outcome)
    return groups


def _counts(outcomes: Sequence[Outcome]) -> tuple[int, int, int, int, int]:
    """Return how many are OK, NON-STRICT and INFORMATIONAL, anything worse, and closed in a wrong way."""
    named = Counter(outcome.behavior for outcome in outcomes)
    milder = named["OK"], named["NON-STRICT"], named["INFORMATIONAL"]
    wrong_close = sum(outcome.behavior_close not in {"OK", "INFORMATIONAL"} for outcome in outcomes)
    return *milder, len(outcomes) - sum(milder), wrong_close


def _line(outcome: Outcome) -> str:
    verdict = ", ".join(flaws(outcome)) or f"{outcome.behavior} (as it must be)"
    return f"{outcome.case_id:>8}  {verdict}: {outcome.reason} (close code {outcome.close_code})"


def _order(case_id: str) -> tuple[int, ...]:
    return tuple(map(int, case_id.split(".")))
