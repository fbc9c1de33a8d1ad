"""The laws of the house that are read off its source: who may import whom, and what the core may not touch."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# One way through: a module imports only from those above it. A package stands for all of its modules, which are free
# among themselves. rawws/__init__.py, the list of the public names, is under no law.
ORDER = [
    "rawws._version",
    "rawws._twins",
    "rawws.errors",
    "rawws.protocol.opcodes",
    "rawws.protocol.masking",
    "rawws.protocol.frames",
    "rawws.protocol.closing",
    "rawws.protocol.extensions",
    "rawws.protocol.deflate",
    "rawws.protocol.messages",
    "rawws.protocol.http11",
    "rawws.protocol.handshake",
    "rawws.protocol.connection",
    "rawws.bodies",
    "rawws.responses",
    "rawws.transport",
    "rawws.limits",
    "rawws.websocket",
    "rawws.keepalive",
    "rawws.journal",
    "rawws.proxies",
    "rawws.handlers",
    "rawws.requests",
    "rawws.probes",
    "rawws.routes",
    "rawws.event_stream",
    "rawws.long_poll",
    "rawws.exchange",
    "rawws.draining",
    "rawws.server",
    "rawws.retrying",
    "rawws.dialing",
    "rawws.opening",
    "rawws.client",
    "rawws.events",
    "rawws.testing",
    "rawws.workers",
    "rawws.terminal",
    "rawws.topics",
    "rawws.metrics",
    "rawws.backplanes",
    "rawws.integrations",
    "rawws.demo",
    "rawws.cli",
    "rawws.__main__",
]

# They stand where a user of the library stands, and import it by its one name.
USERS = {"rawws.demo"}

# What the sans-I/O core may use of the standard library: nothing that reads a socket, a clock or a log, or throws dice.
CORE_MAY_IMPORT = set(
    "__future__ base64 binascii codecs collections collections.abc dataclasses datetime enum hashlib http os re string"
    " struct types typing zlib".split()
)
# Of two of them, no more than this.
CORE_MAY_NAME = {"os": {"urandom"}, "http": {"HTTPStatus"}}

SOURCES = sorted(path for package in ("rawws", "rawws_sse") for path in (ROOT / package).rglob("*.py"))
CORE = [path for path in SOURCES if path.parent.name == "protocol"]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path) for path in SOURCES}


def room(module: str) -> str | None:
    """Return the entry of ORDER that stands for a module."""
    return next((entry for entry in ORDER if module == entry or module.startswith(f"{entry}.")), None)


def imports(path: Path) -> Iterator[tuple[str, str | None]]:
    """Yield (module, name) for all that a file imports when it runs, wherever the import stands."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module_name(path).split(".")
            base = package[: len(package) - node.level + (path.name == "__init__.py")] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                submodule = f"{module}.{alias.name}"
                yield (submodule, None) if submodule in MODULES else (module, alias.name)


def cimports(path: Path) -> Iterator[str]:
    """Yield the modules of this project that a `.pxd` needs at run time."""
    package = module_name(path).rpartition(".")[0]
    lines = re.findall(r"^from (\.*)([\w.]*) cimport (.*)", path.read_text(encoding="utf-8"), re.MULTILINE)
    for dots, name, names in lines:
        base = package.split(".")[: len(package.split(".")) - len(dots) + 1] if dots else []
        module = ".".join([*base, *([name] if name else [])])
        for part in names.split(","):
            types = f"{module}.{part.split()[0]}"
            yield types if (ROOT / types.replace(".", "/")).with_suffix(".pxd").exists() else module


def wrongs(module: str, imported: set[str]) -> list[str]:
    """Return what stands in `imported` and not above `module` in ORDER."""
    own = room(module)
    assert own is not None, f"{module} has no room: give it a line in ORDER"
    allowed = set(ORDER[: ORDER.index(own) + 1])
    users = {"rawws"} if own in USERS else set()
    return sorted(
        other
        for other in imported
        if other.partition(".")[0] == "rawws" and other not in users and (room(other) not in allowed or other == module)
    )


@pytest.mark.parametrize("path", [path for path in SOURCES if path != ROOT / "rawws/__init__.py"], ids=module_name)
def test_a_module_imports_only_from_those_above_it(path: Path) -> None:
    module = module_name(path)
    if module.partition(".")[0] == "rawws_sse":
        assert not [other for other, _ in imports(path) if other.partition(".")[0] == "rawws"]
        return
    if path.name == "__init__.py" and room(module) is None:  # rawws.protocol: its rooms are listed one by one
        assert not [other for other, _ in imports(path) if other.partition(".")[0] == "rawws"]
        return
    needed = {other for other, _ in imports(path)}
    types = path.with_suffix(".pxd")
    if types.exists():
        needed |= set(cimports(types)) & MODULES
    assert wrongs(module, needed) == []


@pytest.mark.parametrize("path", CORE, ids=module_name)
def test_the_core_does_no_io_reads_no_clock_and_throws_no_dice(path: Path) -> None:
    imported = set(imports(path))
    outside = {module for module, _ in imported if module.partition(".")[0] != "rawws"}
    assert {module for module, _ in imported if not module.startswith("rawws.protocol")} <= {*outside, "rawws.errors"}
    assert outside <= CORE_MAY_IMPORT
    for module, allowed in CORE_MAY_NAME.items():
        attributes = re.findall(rf"\b{module}\.(\w+)", path.read_text(encoding="utf-8"))
        assert {*attributes, *(name for other, name in imported if other == module and name)} <= allowed


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_no_source_imports_cython(path: Path) -> None:
    assert not [module for module, _ in imports(path) if module.partition(".")[0].lower() == "cython"]


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_no_module_needs_more_than_the_standard_library_to_be_imported(path: Path) -> None:
    at_import = ast.parse(path.read_text(encoding="utf-8")).body
    names = {alias.name for node in at_import if isinstance(node, ast.Import) for alias in node.names} | {
        node.module for node in at_import if isinstance(node, ast.ImportFrom) and node.module and not node.level
    }
    known = {*sys.stdlib_module_names, "rawws", "rawws_sse"}
    assert {name for name in names if name.partition(".")[0] not in known} == set()


def test_the_core_with_both_roles_stays_readable_in_one_sitting() -> None:
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in CORE)
    assert lines < 2200


def test_the_law_would_see_an_import_that_goes_up() -> None:
    assert wrongs("rawws.protocol.frames", {"rawws.protocol.connection", "rawws.protocol.masking", "os"}) == [
        "rawws.protocol.connection"
    ]
    assert wrongs("rawws.server", {"rawws"}) == ["rawws"]
    assert wrongs("rawws.cli", {"rawws.demo.app", "rawws.server"}) == []
