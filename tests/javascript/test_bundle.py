"""rawws.js: its size, its types, its options; and that it stands alone."""

from __future__ import annotations

import re

from rawws.topics import script
from tests.javascript.minified import minified
from tests.javascript.parts import HERE, tsc
from tests.processes import ROOT

SOURCE = (ROOT / "rawws" / "topics" / "js" / "rawws.js").read_text(encoding="utf-8")
DEFAULTS = SOURCE[: SOURCE.index("};")]


def test_it_is_at_most_seven_kibibytes_as_browsers_get_it() -> None:
    assert len(script.module()[0]) <= 7 * 1024


def test_browsers_get_what_esbuild_makes_of_the_module() -> None:
    assert script.module()[1] == minified(), "rawws.min.js is old: python -m tests.javascript.minified"


def test_it_imports_nothing() -> None:
    assert re.findall(r"^\s*import|\bimport\(|\bexport .* from", SOURCE, re.MULTILINE) == []


def test_the_types_are_those_of_the_module() -> None:
    with tsc() as compiler:
        assert compiler.result(120) == ""
    types = (ROOT / "rawws" / "topics" / "js" / "rawws.d.ts").read_text(encoding="utf-8")
    defaults = re.findall(r"^  (\w+): ", DEFAULTS, re.MULTILINE)
    interface = types[types.index("interface Options") : types.index("export type State")]
    assert sorted(re.findall(r"^  (\w+)\?:", interface, re.MULTILINE)) == sorted(defaults)


def test_the_page_lists_every_option_with_its_default() -> None:
    page = (ROOT / "docs" / "use" / "javascript.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", page, re.MULTILINE))
    assert listed == dict(re.findall(r"^  (\w+): (.*?),(?: //.*)?$", DEFAULTS, re.MULTILINE))


def test_no_registry_is_named_in_the_lock() -> None:
    assert '"resolved"' not in (HERE / "package-lock.json").read_text(encoding="utf-8")
