"""The page on security names tests that there are, and options with their defaults."""

from __future__ import annotations

import ast
import inspect
import re

import pytest

import rawws
from tests.processes import ROOT

PAGE = (ROOT / "docs" / "understand" / "security.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))
# What stands in the table, against what stands in the code.
DEFAULTS = {
    "max_size": 1 << 20,
    "hard_limit": 1 << 20,
    "max_compression_memory": 256 << 20,
    "max_body_memory": 256 << 20,
    "open_timeout": 10,
    "close_timeout": 10,
    "ping_interval": 20,
    "ping_timeout": 20,
    "max_connections": None,
    "max_connections_per_address": None,
    "handshake_rate": None,
    "message_rate": None,
    "byte_rate": None,
    "origins": None,
}


@pytest.mark.parametrize(("file", "name"), NAMED, ids=lambda part: part.rpartition("/")[2])
def test_a_test_that_the_page_names_exists(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    functions = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
    assert name in functions


def test_every_threat_has_a_test() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| threat")]
    assert len(rows) > 20
    assert [row for row in rows if not re.search(r"\| `tests/[\w/]+\.py::\w+` \|$", row)] == []


@pytest.mark.parametrize("option", DEFAULTS)
def test_a_default_of_the_page_is_that_of_the_code(option: str) -> None:
    assert f"`{option}`" in PAGE
    assert inspect.signature(rawws.serve).parameters[option].default == DEFAULTS[option]
