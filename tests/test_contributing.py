"""CONTRIBUTING.md tells the truth: its commands run as they are written, and its example is a rule that there is."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest

import fuzz.__main__ as fuzz
import tests.torture.__main__ as torture
from tests.benchmarks.__main__ import arguments
from tests.processes import ROOT
from tests.specification.pages import Rule, standards

PAGE: Final = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
LINES: Final = [
    line.partition("  #")[0].strip()
    for block in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
RUN: Final = [line for line in LINES if not line.startswith("make ")]
MAKE: Final = [shlex.split(line)[1:] for line in LINES if line.startswith("make ")]


@pytest.mark.parametrize("line", RUN)
def test_a_command_runs_as_it_is_written(line: str) -> None:
    folder = Path(sys.executable).parent
    here = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "RAWWS_"))}
    command = line.replace(".venv/bin/", f"{folder}/")
    done = subprocess.run(command, shell=True, cwd=ROOT, env=here, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    if "pytest" in line:
        assert re.search(r"\b[1-9]\d* passed", done.stdout)
    elif line.startswith("RAWWS_PURE=1 "):
        assert "interpreted" in done.stdout


def test_the_commands_of_make_are_given_arguments_that_they_take() -> None:
    known = set(re.findall(r"^([a-z]+):.*?##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {target for target, *_ in MAKE} <= known
    for target, words in (given for given in MAKE if len(given) > 1):
        options = shlex.split(words.removeprefix("ARGS="))
        parsers = {"fuzz": fuzz.parser, "torture": torture.parser}
        assert arguments(options) if target == "bench" else parsers[target]().parse_args(options)
    assert {target for target, *rest in MAKE if rest} == {"bench", "fuzz", "torture"}


def test_the_example_of_a_rule_is_one() -> None:
    [block] = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    [found] = tomllib.loads(block)["rule"]
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in found.items()}
    example = Rule(**fields)
    assert example in [rule for standard in standards() for rule in standard.rules]


def test_it_is_one_page() -> None:
    assert len(PAGE.splitlines()) <= 100
