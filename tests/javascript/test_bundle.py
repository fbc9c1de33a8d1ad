"""rawws.js: its size, its types, its options; and that it stands alone."""

from __future__ import annotations

import re

from rawws.topics import script
from tests.javascript.parts import HERE, tsc
from tests.processes import ROOT

SOURCE = (ROOT / "rawws" / "topics" / "js" / "rawws.js").read_text(encoding="utf-8")
DEFAULTS = SOURCE[: SOURCE.index("};")]


def test_it_is_under_six_kibibytes_as_browsers_get_it() -> None:
    assert len(script.module()[0]) < 6 * 1024


def test_it_imports_nothing_and_what_is_left_out_of_it_is_comment() -> None:
    assert re.findall(r"^\s*import|\bimport\(|\bexport .* from|https?://", SOURCE, re.MULTILINE) == []
    code = [line.strip() for line in SOURCE.splitlines()]
    kept = script.module()[1].decode().splitlines()
    left_out = [line for line in code if line not in kept and line]
    assert all(line.startswith(("//", "/**")) or line.partition(" // ")[0] in kept for line in left_out)


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
    lock = (HERE / "package-lock.json").read_text(encoding="utf-8")
    assert "http" not in lock
    assert "resolved" not in lock
