"""docs/reference/stability.md promises what README.md and the docs teach, and what it promises is there."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from typing import Final

import pytest

import rawws
import rawws.protocol
from tests.processes import ROOT
from tests.test_readme import BLOCKS, PAGES, Block

PAGE: Final = (ROOT / "docs" / "reference" / "stability.md").read_text(encoding="utf-8")
API: Final = (ROOT / "docs" / "reference" / "api.rst").read_text(encoding="utf-8")
OPERATIONS: Final = (ROOT / "docs" / "run" / "operations.md").read_text(encoding="utf-8")
PACKAGES: Final = ("rawws", "rawws_sse")
TABLE: Final = re.findall(r"^\| `(rawws[\w.]*)` \|", PAGE, re.MULTILINE)
CORE: Final = [
    module.name
    for module in pkgutil.iter_modules(rawws.protocol.__path__, "rawws.protocol.")
    if hasattr(importlib.import_module(module.name), "__all__")
]
PROMISED: Final = {*TABLE, *CORE}
LOGGERS: Final = set(re.findall(r"^\| `(rawws\.\w+)`[^|]*\| (?:INFO|WARNING|ERROR) \|", OPERATIONS, re.MULTILINE))
# The topics of a hub in Kafka, too, and what signs what is said beside the log.
NO_MODULES: Final = {"rawws.js", "rawws.d.ts", "rawws.v1", "rawws.v1.md", "rawws.log", "rawws.places", "rawws.cli"}
# What these pages call their objects.
OBJECTS: Final = {
    "ws": rawws.WebSocket,
    "hub": rawws.Hub,
    "request": rawws.HttpRequest,
    "stream": rawws.EventStream,
    "poll": rawws.LongPoll,
}
PROGRAMS: Final = [block for block in BLOCKS if block.language == "python"]


def imported(tree: ast.AST) -> dict[str, str]:
    """Return what each name of ours that a program imports stands for."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname:
                    names[alias.asname] = alias.name
                else:
                    names[alias.name.partition(".")[0]] = alias.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return {name: path for name, path in names.items() if path.partition(".")[0] in PACKAGES}


def taught(block: Block) -> Iterator[str]:
    """Yield the dotted names of ours that a program uses, each as far as it is written."""
    tree = ast.parse(block.text)
    names = imported(tree)
    yield from names.values()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, _, rest = ast.unparse(node).partition(".")
            if first in names and re.fullmatch(r"[\w.]+", rest):
                yield f"{names[first]}.{rest}"


def promised(name: str) -> bool:
    """Return whether a dotted name is a module that is promised, or public in one, or leads to one."""
    if name in PROMISED or any(module.startswith(f"{name}.") for module in PROMISED):
        return True
    modules = [module for module in PROMISED if name.startswith(f"{module}.")]
    if not modules:
        return False
    owner = max(modules, key=len)
    module = importlib.import_module(owner)
    first, *rest = name.removeprefix(f"{owner}.").split(".")
    if first not in module.__all__:
        return False
    found = getattr(module, first)
    for part in rest:
        if part.startswith("_") or not hasattr(found, part):
            return False
        found = getattr(found, part)
    return True


def test_every_module_of_the_table_is_there_with_its_names() -> None:
    assert {"rawws", "rawws_sse", "rawws.testing", "rawws.errors", "rawws.protocol.connection"} <= set(TABLE)
    for name in PROMISED:
        module = importlib.import_module(name)
        assert module.__all__
        assert all(hasattr(module, public) for public in module.__all__)
    assert (ROOT / "rawws" / "py.typed").exists()


@pytest.mark.parametrize("block", PROGRAMS, ids=str)
def test_what_a_program_of_the_docs_uses_is_promised(block: Block) -> None:
    assert [name for name in taught(block) if not promised(name)] == []


def test_the_programs_teach_what_the_table_names() -> None:
    used = {name for block in PROGRAMS for name in taught(block)}
    assert {"rawws.serve", "rawws.testing.serve", "rawws_sse.encode", "rawws.metrics.endpoint"} <= used
    assert {"rawws.backplanes.redis.RedisBackplane", "rawws.protocol.connection.Connection"} <= used


@pytest.mark.parametrize(
    "name", ["rawws.nothing", "rawws._version", "rawws.Hub._topics", "rawws.Hub.no", "rawws_sse.no"]
)
def test_what_is_not_public_is_not_promised(name: str) -> None:
    assert not promised(name)


def test_what_the_text_of_a_page_names_is_promised() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    prose = re.sub(r"^```.*?^```$|\]\([^)]*\)", "", text, flags=re.MULTILINE | re.DOTALL)
    quoted = " ".join(re.findall(r"`[^`\n]+`", prose))
    names = {name.replace(":", ".") for name in re.findall(r"(?<![\w./-])rawws(?:_sse)?(?:[.:][A-Za-z_]\w*)+", quoted)}
    names = {name.removesuffix(".__all__") for name in names}
    assert len(names) > 30
    assert sorted(name for name in names - LOGGERS - NO_MODULES if not promised(name)) == []


def test_the_loggers_of_the_page_are_those_of_the_code() -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("rawws/**/*.py"))
    assert set(re.findall(r"getLogger\(\"(rawws[\w.]*)\"\)", sources)) == LOGGERS


def test_the_reference_shows_every_module_that_is_promised() -> None:
    shown = set(re.findall(r"^\.\. auto\w+:: ([\w.]+)", API, re.MULTILINE))
    for name in TABLE:
        elsewhere = set(importlib.import_module(name).__all__) <= set(rawws.__all__)
        assert elsewhere or any(path == name or path.startswith(f"{name}.") for path in shown), name


def members(name: str) -> set[str]:
    """Return the attributes of a class that the reference lists."""
    entry = re.search(rf"^\.\. autoclass:: rawws\.{name}\n((?: +.*\n|\n)*)", API, re.MULTILINE)
    assert entry
    listed = entry[1].partition(":members:")[2].partition("\n\n")[0]
    return set(re.findall(r"\w+", listed)) | set(re.findall(r"attribute:: (\w+)", entry[1]))


@pytest.mark.parametrize("block", PROGRAMS, ids=str)
def test_the_attributes_that_a_program_uses_stand_in_the_reference(block: Block) -> None:
    unlisted = set()
    # What is called so is another's in the programs of other frameworks.
    ours = OBJECTS.keys() - ({"request"} if block.page.name == "frameworks.md" else set())
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ours:
            found = OBJECTS[node.value.id]
            assert inspect.isclass(found)
            if node.attr not in members(found.__name__):
                unlisted.add(f"{node.value.id}.{node.attr}")
    assert unlisted == set()
