"""The table of what the gateway must show: each row names tests, and each of those is there."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
TABLE = (HERE / "README.md").read_text()
NAMED = re.compile(r"`([\w./]+\.py)::(test_\w+)`")
ROWS = [*(f"A{n}" for n in range(1, 12)), *(f"P{n}" for n in range(1, 9)), *(f"O{n}" for n in range(1, 7)), "W1", "M1"]


def test_each_row_names_tests_that_there_are() -> None:
    rows = [line for line in TABLE.splitlines() if re.match(r"\| [A-Z]\d", line)]
    assert [row.split()[1] for row in rows] == ROWS
    for row in rows:
        named = NAMED.findall(row)
        assert named, row
        for file, name in named:
            assert re.search(rf"^(async )?def {name}\(", (HERE / file).read_text(), re.MULTILINE), (file, name)


def test_each_test_that_bears_the_name_of_a_row_stands_in_it() -> None:
    for file in sorted(HERE.glob("*.py")):
        for name in re.findall(r"^(?:async )?def (test_([apowm]\d+)_\w+)\(", file.read_text(), re.MULTILINE):
            assert (file.name, name[0]) in NAMED.findall(TABLE), name
