"""The executable specification is true: each MUST has code and a test, and the pages say what the data files do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rawws.protocol.phases import TRANSITIONS, Phase
from tests.autobahn.verdicts import SelectionError, select
from tests.processes import ROOT
from tests.specification.diagram import PICTURE, draw
from tests.specification.pages import FOLDER, Rule, Standard, keywords, page, standards, steps, symbols, unmet

STANDARDS = standards()
RULES = [rule for standard in STANDARDS for rule in standard.rules]
GOOD = Rule(
    "1",
    "both",
    "x MUST y",
    code=("rawws/client/connect.py:connect",),
    tests=("cli/test_commands.py::test_a_busy_port_is_one_line",),
)


def named(standard: Standard) -> str:
    return standard.file


def test_the_standards_are_those_that_are_implemented() -> None:
    assert [standard.file for standard in STANDARDS] == [
        *("rfc6455", "rfc7541", "rfc7692", "rfc8441", "rfc9112", "rfc9113", "sse")
    ]


@pytest.mark.parametrize("standard", STANDARDS, ids=named)
def test_each_rule_has_code_and_a_test_that_exist_or_a_reason(standard: Standard) -> None:
    missing = [(rule.section, rule.text[:60], unmet(rule)) for rule in standard.rules if unmet(rule)]
    assert missing == []


@pytest.mark.parametrize("standard", STANDARDS, ids=named)
def test_no_keyword_of_the_text_is_forgotten(standard: Standard) -> None:
    assert standard.keywords
    assert keywords(standard.rules, standard.words) == standard.keywords


@pytest.mark.parametrize("standard", STANDARDS, ids=named)
def test_no_step_of_an_algorithm_is_forgotten(standard: Standard) -> None:
    assert steps(standard.rules) == standard.steps
    assert (standard.file == "sse") == bool(standard.steps)


@pytest.mark.parametrize("standard", STANDARDS, ids=named)
def test_the_page_is_made_from_the_data(standard: Standard) -> None:
    written = (FOLDER / f"{standard.file}.md").read_text(encoding="utf-8")
    assert written == page(standard), "it is stale: run python -m tests.specification.pages"


def test_each_autobahn_case_exists() -> None:
    program = "from tests.autobahn.kosoku_suite import every_case; print(*every_case())"
    cases = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    named_cases = {case for rule in RULES for case in rule.autobahn}
    assert len(named_cases) > 20
    for case in sorted(named_cases):
        assert select(case, cases)
    with pytest.raises(SelectionError):
        select("5.21", cases)


@pytest.mark.parametrize(
    ("rule", "missing"),
    [
        (GOOD, []),
        (GOOD._replace(code=(), tests=(), aside="no"), []),
        (GOOD._replace(aside="no"), ["a reason, and code or tests"]),
        (GOOD._replace(role="judge"), ["a role of server, client, both"]),
        (GOOD._replace(code=()), ["code"]),
        (GOOD._replace(tests=()), ["a test"]),
        (GOOD._replace(code=("rawws/client/connect.py:connects",)), ["rawws/client/connect.py:connects"]),
        (GOOD._replace(code=("rawws/no.py:x",)), ["rawws/no.py:x"]),
        (GOOD._replace(tests=("cli/test_commands.py::test_no",)), ["cli/test_commands.py::test_no"]),
        (GOOD._replace(tests=("test_no.py::test_no",)), ["test_no.py::test_no"]),
        (GOOD._replace(tests=("cli/test_commands.py::Shout",)), ["cli/test_commands.py::Shout"]),
    ],
)
def test_what_a_rule_lacks_is_found(rule: Rule, missing: list[str]) -> None:
    assert unmet(rule) == missing


@pytest.mark.parametrize("standard", STANDARDS, ids=named)
def test_a_sentence_that_is_taken_out_is_missed(standard: Standard) -> None:
    for at, rule in enumerate(standard.rules):
        if keywords([rule], standard.words):
            others = standard.rules[:at] + standard.rules[at + 1 :]
            assert keywords(others, standard.words) != standard.keywords


@pytest.mark.parametrize("given", [["a 1", "a 3"], ["a 1", "a 1"], ["a 2", "a 1"], ["a 2"]])
def test_a_step_that_is_left_out_or_twice_is_missed(given: list[str]) -> None:
    with pytest.raises(ValueError, match="the steps of 'a' are"):
        steps([GOOD._replace(step=(step,)) for step in given])


def test_the_symbols_of_a_file_are_its_functions_and_classes(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text(
        "def a(): ...\nasync def b(): ...\nclass C:\n    def d(self): ...\n    class E:\n        def f(self): ...\n"
    )
    assert symbols(file) == {"a", "b", "C", "C.d", "C.E", "C.E.f"}


def test_the_picture_of_the_states_is_drawn_from_their_table(monkeypatch: pytest.MonkeyPatch) -> None:
    assert PICTURE.read_text(encoding="utf-8") == draw(), "it is stale: run python -m tests.specification.diagram"
    arrows = draw().count('<line class="arrow"')
    assert all(phase.name in draw() for phase in Phase)
    monkeypatch.setitem(TRANSITIONS, Phase.VIOLATED, {})
    assert draw().count('<line class="arrow"') == arrows - 1
