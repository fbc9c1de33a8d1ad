"""The pages about topics tell the truth: their tables match the code."""

from __future__ import annotations

import inspect
import re

import rawws
from rawws.topics.envelope import ACTIONS
from rawws.topics.policies import NAMES
from tests.processes import ROOT

TOPICS = (ROOT / "docs" / "use" / "topics.md").read_text(encoding="utf-8")
ENVELOPE = (ROOT / "docs" / "use" / "rawws.v1.md").read_text(encoding="utf-8")


def test_the_page_lists_every_option_of_a_hub_with_its_default() -> None:
    listed = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", TOPICS, re.MULTILINE))
    parameters = inspect.signature(rawws.Hub.__init__).parameters
    assert listed == {name: repr(each.default) for name, each in parameters.items() if name != "self"}


def test_the_page_lists_every_policy() -> None:
    assert tuple(re.findall(r'^\| "(\w+)" \|', TOPICS, re.MULTILINE)) == NAMES


def test_the_specification_lists_every_action_with_what_may_stand_beside_it() -> None:
    rows = re.findall(r"^\| `(\w+)` \|([^|{]*)\| [a-z]", ENVELOPE, re.MULTILINE)
    assert {name: set(re.findall(r"`(\w+)`", beside)) for name, beside in rows} == {
        name: set(beside) for name, beside in ACTIONS.items()
    }
