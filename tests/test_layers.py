"""The invariants that are read off the source: who may import whom, and what the core may not touch."""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import pytest

ROOT = Path(__file__).parent.parent

# From the bottom up: a package, or a module beside the packages, imports from lines below its own. `rawws/__init__.py`,
# the list of the public names, is under no law.
LINES: Final = (
    {"rawws.errors", "rawws._version", "rawws._twins", "rawws.clock"},
    {"rawws.protocol"},
    {"rawws.net"},
    {"rawws.http"},
    {"rawws.server", "rawws.client", "rawws.topics"},
    {"rawws.backplanes", "rawws.integrations", "rawws.metrics", "rawws.sync", "rawws.testing"},
    {"rawws.gateway", "rawws.demo", "rawws.admin"},
    {"rawws.cli"},  # it starts them
    {"rawws.__main__"},
)
# They stand where a user of the library stands, and import what is promised to users.
USERS: Final = {"rawws.demo", "rawws.gateway"}
PUBLIC: Final = re.compile(
    r"rawws|rawws\.(topics|testing|metrics|sync|admin|topics\.endpoints|(backplanes|integrations)\.\w+)"
)

# Written with their module in front: `testing.serve`, `testing.run`, `asgi.serve`, `sync.connect`, `sync.HubClient`.
QUALIFIED: Final = {"connect", "run", "serve", "HubClient", "TopicSubscription"}

MOST_LINES: Final = 600
LONGER: Final = {"rawws/net/websocket.py": 900}
MOST_FOLDERS, MOST_MODULES = 13, 6

# What the sans-I/O core may use of the standard library: nothing that reads a socket, a clock or a log, or throws dice.
CORE_MAY_IMPORT = set(
    "__future__ base64 binascii codecs collections collections.abc dataclasses datetime enum hashlib http os re string"
    " struct types typing zlib".split()
)
# And what does the work of zlib faster, where it is installed.
CORE_MAY_IMPORT.add("isal")
# Of two of them, no more than this.
CORE_MAY_NAME = {"os": {"urandom"}, "http": {"HTTPStatus"}}

SOURCES = sorted(path for package in ("rawws", "rawws_sse") for path in (ROOT / package).rglob("*.py"))
CORE = [path for path in SOURCES if path.parent.name == "protocol"]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCES}


class Import(NamedTuple):
    """`from module import name`, or `import module` without a name."""

    module: str
    name: str | None = None


def unit(module: str) -> str:
    """Return the package, or the module beside the packages, that the law speaks of."""
    return ".".join(module.split(".")[:2])


def line(module: str) -> int:
    """Return the number of the line on which a module stands."""
    return next(number for number, units in enumerate(LINES) if unit(module) in units)


def absolute(module: str, path: Path, level: int) -> str:
    """Return the full name of what a file names relatively."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package.pop()
    base = package[: len(package) - level + 1] if level else []
    return ".".join([*base, *([module] if module else [])])


@cache
def imports(path: Path) -> tuple[Import, ...]:
    """Return all that a file imports, wherever the import stands, also for types alone."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [Import(alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = absolute(node.module or "", path, node.level)
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                found.append(Import(inner) if inner in MODULES else Import(module, alias.name))
    types = path.with_suffix(".pxd")
    if types.exists():
        found += [Import(module) for module in cimports(types) if module in MODULES]
    return tuple(found)


def cimports(path: Path) -> Iterator[str]:
    """Yield the modules of this project that a `.pxd` needs at run time."""
    lines = re.findall(r"^from (\.*)([\w.]*) cimport (.*)", path.read_text(encoding="utf-8"), re.MULTILINE)
    for dots, name, names in lines:
        module = absolute(name, path, len(dots))
        for part in names.split(","):
            types = f"{module}.{part.split()[0]}"
            yield types if (ROOT / types.replace(".", "/")).with_suffix(".pxd").exists() else module


def ours(path: Path) -> list[Import]:
    return [found for found in imports(path) if found.module.partition(".")[0] == "rawws"]


@cache
def exported(module: str) -> tuple[str, ...] | None:
    """Return the `__all__` of a module."""
    for node in ast.parse(MODULES[module].read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return tuple(ast.literal_eval(node.value))
    return None


def upward(module: str, imported: Iterable[str]) -> set[str]:
    """Return what of `imported` does not stand below `module`."""
    return {
        other
        for other in imported
        if other.partition(".")[0] == "rawws"
        and unit(other) != unit(module)
        and (other == "rawws" or line(other) >= line(module))
        and not (unit(module) in USERS and PUBLIC.fullmatch(other))
    }


def circles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Return the strongly connected components with more than one member (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in index:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == index[node]:
            at = stack.index(node)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


# -- what each invariant finds: what is against it


def wrong_arrows() -> set[str]:
    """Imports that do not go down."""
    return {
        f"{module} -> {other}"
        for module, path in MODULES.items()
        if module.partition(".")[0] == "rawws" and module != "rawws"
        for other in upward(module, {found.module for found in ours(path)})
    }


def wrong_circles() -> set[str]:
    """Modules that import each other, on whatever way."""
    graph = {
        module: {found.module for found in ours(path) if found.module != "rawws" and found.module != module}
        for module, path in MODULES.items()
        if module != "rawws"
    }
    return {f"circle {number}: {module}" for number, circle in enumerate(sorted(circles(graph))) for module in circle}


def wrong_names() -> set[str]:
    """Names of other packages that are imported and not in their module's `__all__`."""
    return {
        f"{module} -> {found.module}:{found.name}"
        for module, path in MODULES.items()
        if module != "rawws"
        for found in ours(path)
        if found.name is not None and unit(found.module) != unit(module)
        if found.name not in (exported(found.module) or ())
    }


def wrong_exports() -> set[str]:
    """Modules without `__all__`, and names that two modules export."""
    plain = [module for module, path in MODULES.items() if path.name != "__init__.py" and module != "rawws.__main__"]
    names = Counter(name for module in plain for name in exported(module) or ())
    twice = {name: sorted(module for module in plain if name in (exported(module) or ())) for name in names}
    return {f"{module} has no __all__" for module in plain if exported(module) is None} | {
        f"{name} in {', '.join(modules)}"
        for name, modules in twice.items()
        if len(modules) > 1 and name not in QUALIFIED
    }


def wrong_accesses() -> set[str]:
    """Private names of others that are used; `asyncio` has some that are needed."""
    return {
        f"{module}: {text.strip()}"
        for module, path in MODULES.items()
        for text in path.read_text(encoding="utf-8").splitlines()
        if "SLF001" in text and "asyncio" not in text
    }


def wrong_lengths() -> set[str]:
    """Modules that are too long to be read in one sitting."""
    return {
        name
        for path in SOURCES
        if (name := path.relative_to(ROOT).as_posix())
        if len(path.read_text(encoding="utf-8").splitlines()) > LONGER.get(name, MOST_LINES)
    }


INVARIANTS: Final[dict[str, Callable[[], set[str]]]] = {
    "wrong_arrows": wrong_arrows,
    "wrong_circles": wrong_circles,
    "wrong_names": wrong_names,
    "wrong_exports": wrong_exports,
    "wrong_accesses": wrong_accesses,
    "wrong_lengths": wrong_lengths,
}


@pytest.mark.parametrize("name", INVARIANTS)
def test_an_invariant_holds(name: str) -> None:
    assert sorted(INVARIANTS[name]()) == []


def test_every_module_has_a_line() -> None:
    assert {unit(module) for module in MODULES if module.startswith("rawws.")} <= set().union(*LINES)


def test_the_folder_fits_on_a_page() -> None:
    folders = [path for path in (ROOT / "rawws").iterdir() if (path / "__init__.py").exists()]
    modules = [path for path in (ROOT / "rawws").glob("*.py") if path.stem not in {"__init__", "__main__"}]
    assert len(folders) <= MOST_FOLDERS
    assert len(modules) <= MOST_MODULES


def test_the_format_of_event_streams_knows_nothing_of_the_server() -> None:
    for path in SOURCES:
        if module_name(path).partition(".")[0] == "rawws_sse":
            assert ours(path) == []


def test_the_contract_of_backplanes_knows_nothing_of_the_hub() -> None:
    assert {found.module for found in ours(MODULES["rawws.topics.backplane"])} == {"rawws.errors"}


def test_one_clock_is_asked_for_the_time() -> None:
    for path in SOURCES:
        if module_name(path) != "rawws.clock":
            assert Import("time", "monotonic") not in imports(path), path
            assert "time.monotonic" not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize("path", CORE, ids=module_name)
def test_the_core_does_no_io_reads_no_clock_and_throws_no_dice(path: Path) -> None:
    imported = set(imports(path))
    assert {found.module for found in ours(path)} <= {*(module_name(core) for core in CORE), "rawws.errors"}
    outside = {found.module for found in imported if found.module.partition(".")[0] != "rawws"}
    assert outside <= CORE_MAY_IMPORT
    for module, allowed in CORE_MAY_NAME.items():
        attributes = re.findall(rf"\b{module}\.(\w+)", path.read_text(encoding="utf-8"))
        assert {*attributes, *(found.name for found in imported if found.module == module and found.name)} <= allowed


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_no_source_imports_cython(path: Path) -> None:
    assert not [found for found in imports(path) if found.module.partition(".")[0].lower() == "cython"]


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_no_module_needs_more_than_the_standard_library_to_be_imported(path: Path) -> None:
    at_import = ast.parse(path.read_text(encoding="utf-8")).body
    names = {alias.name for node in at_import if isinstance(node, ast.Import) for alias in node.names} | {
        node.module for node in at_import if isinstance(node, ast.ImportFrom) and node.module and not node.level
    }
    known = {*sys.stdlib_module_names, "rawws", "rawws_sse"}
    assert {name for name in names if name.partition(".")[0] not in known} == set()


def test_the_law_would_see_an_import_that_goes_up_or_sideways() -> None:
    assert upward("rawws.protocol.frames", {"rawws.net.socket", "rawws.protocol.masking", "rawws.errors", "os"}) == {
        "rawws.net.socket"
    }
    assert upward("rawws.server.server", {"rawws", "rawws.client.connect", "rawws.http.routes"}) == {
        "rawws",
        "rawws.client.connect",
    }
    assert upward("rawws.demo.app", {"rawws", "rawws.topics", "rawws.server.server"}) == set()


def test_the_law_would_see_a_circle() -> None:
    assert circles({"a": ["b"], "b": ["c"], "c": ["b"], "d": ["a"]}) == [["b", "c"]]
