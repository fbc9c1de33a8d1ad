"""The pages about the client tell the truth: their tables match the code."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import rawws
from rawws.client.options import ConnectOptions, HubOptions
from rawws.client.subscriptions import SLOW_POLICIES
from tests.client.test_migration import PROGRAMS
from tests.processes import ROOT

CLIENT = (ROOT / "docs" / "use" / "client.md").read_text(encoding="utf-8")
HUB_CLIENT = (ROOT / "docs" / "use" / "hub-client.md").read_text(encoding="utf-8")
MOVING = (ROOT / "docs" / "move" / "websockets.md").read_text(encoding="utf-8")


def test_the_client_page_lists_every_option_with_its_default() -> None:
    listed = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", CLIENT, re.MULTILINE))
    parameters = inspect.signature(ConnectOptions).parameters
    defaults = {
        name: parameter.default.__name__ if callable(parameter.default) else repr(parameter.default)
        for name, parameter in parameters.items()
    }
    assert listed == defaults


def test_every_exception_that_is_listed_exists_and_is_of_the_family_that_the_page_says() -> None:
    listed = re.findall(r"^\| `rawws\.(\w+)` \|", CLIENT, re.MULTILINE)
    kinds = [getattr(rawws, name) for name in listed]
    first, last = listed.index("InvalidStatus"), listed.index("ProxyError")
    assert [issubclass(kind, rawws.HandshakeError) for kind in kinds] == [
        first <= number <= last for number in range(len(kinds))
    ]
    assert all(issubclass(kind, rawws.RawwsError) for kind in kinds)
    subclasses = {kind.__name__ for kind in rawws.HandshakeError.__subclasses__()}
    assert subclasses == set(listed[first : last + 1])


@pytest.mark.parametrize("names", re.findall(r"\| `from rawws import ([\w, ]+)` \|", MOVING))
def test_what_the_migration_page_imports_is_there(names: str) -> None:
    assert all(hasattr(rawws, name) for name in names.split(", "))


def test_the_migration_page_names_every_program() -> None:
    named = {Path(path).name for path in re.findall(r"\(\.\./\.\./tests/client/programs/(\w+\.py)\)", MOVING)}
    assert named == {path.name for path in PROGRAMS.glob("*.py")}


def test_the_page_of_the_hub_client_lists_its_options_with_their_defaults() -> None:
    listed = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", HUB_CLIENT, re.MULTILINE))
    parameters = inspect.signature(HubOptions).parameters
    defaults = {name: repr(parameter.default) for name, parameter in parameters.items()}
    assert listed == {name: defaults[name] for name in listed}
    # The others are those of `connect`, with the same default.
    others = inspect.signature(ConnectOptions).parameters
    assert all(parameters[name].default == others[name].default for name in parameters.keys() - listed.keys())


def test_the_page_of_the_hub_client_lists_every_policy() -> None:
    table = HUB_CLIENT.partition("## A slow reader")[2].partition("##")[0]
    assert tuple(re.findall(r'^\| "(\w+)" \|', table, re.MULTILINE)) == SLOW_POLICIES
