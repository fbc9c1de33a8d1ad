"""The package as it is installed: what sdist and wheels hold, and which twin runs with and without a compiler."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Mapping
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from rawws import _twins
from rawws._version import __version__
from rawws_sse import _twins as choice
from tests import compiled
from tests.processes import ROOT

PACKAGES = ("rawws", "rawws_sse")
TYPED = sorted(types for package in PACKAGES for types in (ROOT / package).rglob("*.pxd"))
# A `.pxd` without a `.py` declares what C already has.
COMPILED = [types.with_suffix(".py") for types in TYPED if types.with_suffix(".py").exists()]
SUFFIX = EXTENSION_SUFFIXES[0]
OURS = ("RAWWS_PURE", "RAWWS_REQUIRE_COMPILED", "PYTHONPATH", "CC")
PURE = {"RAWWS_PURE": "1"}
NOT_COMPILED = "rawws: not compiled ("


def inside(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def run(*command: str | Path, cwd: Path, settings: Mapping[str, str] | None = None, status: int = 0) -> str:
    """Run a command as in a fresh shell, and return both of its outputs."""
    env = {**{name: value for name, value in os.environ.items() if name not in OURS}, **(settings or {})}
    parts = [str(part) for part in command]
    done = subprocess.run(parts, cwd=cwd, env=env, stdout=-1, stderr=-2, text=True, timeout=600, check=False)
    assert done.returncode == status, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, made from a copy without anything built."""
    copy = tmp_path_factory.mktemp("checkout") / "rawws"
    unwanted = [".*", "build", "dist", "reports", "node_modules", "*.egg-info", "__pycache__", "*.so"]
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*unwanted))
    run(sys.executable, "-c", "from setuptools import build_meta; build_meta.build_sdist('dist')", cwd=copy)
    [made] = (copy / "dist").iterdir()
    assert made.name == f"rawws-{__version__}.tar.gz"
    return made


@pytest.fixture(scope="module")
def source(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked source distribution: what follows builds from what a stranger gets."""
    folder = tmp_path_factory.mktemp("source")
    run("tar", "-xzf", sdist, cwd=folder)
    [unpacked] = folder.iterdir()
    return unpacked


@pytest.fixture(scope="module")
def compiled_wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel with both twins, compiled as quickly as can be: nothing here asks how fast it is."""
    folder = tmp_path_factory.mktemp("compiled")
    compiler = folder / "cc"
    # The last of several levels counts.
    compiler.write_text(f'#!/bin/sh\nexec {os.environ.get("CC") or sysconfig.get_config_var("CC")} "$@" -O0\n')
    compiler.chmod(0o755)
    return wheel(source, folder, {"RAWWS_REQUIRE_COMPILED": "1", "CC": str(compiler)})[0]


def wheel(source: Path, folder: Path, settings: Mapping[str, str], status: int = 0) -> tuple[Path, str]:
    """Build a wheel of `source` into `folder`; return it and what the build said."""
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
    ]
    said = run(*pip, "--verbose", "--wheel-dir", folder, source, cwd=source, settings=settings, status=status)
    return next(folder.glob("*.whl"), folder), said


def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def version_said_by(wheel: Path, folder: Path, **settings: str) -> str:
    """Install a wheel into a fresh environment, and return what `python -m rawws --version` says there."""
    python = installed(wheel, folder)
    return run(python, "-m", "rawws", "--version", cwd=folder, settings=settings)


def installed(wheel: Path, folder: Path) -> Path:
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    run(*pip, "install", "--no-index", "--quiet", wheel, cwd=folder)
    return python


def test_every_module_that_can_be_compiled_here_is() -> None:
    assert compiled.can_compile(), "no C compiler: `make test` installs one"
    beside = {path for package in PACKAGES for path in (ROOT / package).rglob(f"*{SUFFIX}")}
    assert beside == {module.with_name(module.stem + SUFFIX) for module in COMPILED}, "run `make build`"
    assert compiled.differences() == [], "run `make build`"


def test_the_tests_run_the_twin_that_they_were_asked_for() -> None:
    assert _twins.running() == ("interpreted" if choice.PURE else "compiled")


def test_the_sdist_holds_what_a_build_needs_and_nothing_built(source: Path) -> None:
    held = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    assert {"pyproject.toml", "setup.py", "README.md", "LICENSE", "rawws/demo/page.html", "rawws/py.typed"} <= held
    assert {inside(types) for types in TYPED} <= held
    assert {path for path in held if path.endswith((".so", ".c", ".pyc"))} == set()


def test_the_compiled_wheel_holds_both_twins(compiled_wheel: Path) -> None:
    held = contents(compiled_wheel)
    modules = {inside(path) for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert modules <= held
    assert {inside(types) for types in TYPED} <= held
    assert {name for name in held if name.endswith(".so")} == {
        inside(module).removesuffix(".py") + SUFFIX for module in COMPILED
    }
    assert {"rawws/demo/page.html", "rawws/py.typed", "rawws_sse/py.typed"} <= held
    script = ("rawws.js", "rawws.d.ts", "package.json", "LICENSE")
    assert {f"rawws/topics/js/{name}" for name in script} <= held
    assert {f"rawws/backplanes/lua/{name}.lua" for name in ("beat", "history", "outside", "place", "publish")} <= held
    assert {path.relative_to(ROOT).as_posix() for path in ROOT.glob("rawws/backplanes/sql/*.sql")} <= held
    assert {name.split("/")[0] for name in held} == {*PACKAGES, f"rawws-{__version__}.dist-info"}
    assert f"rawws-{__version__}.dist-info/licenses/LICENSE" in held


def test_the_wheel_needs_no_other_package(compiled_wheel: Path) -> None:
    with zipfile.ZipFile(compiled_wheel) as archive:
        metadata = archive.read(f"rawws-{__version__}.dist-info/METADATA").decode()
    needed = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line]
    assert needed == []


def test_the_compiled_wheel_runs_compiled_or_interpreted(compiled_wheel: Path, tmp_path: Path) -> None:
    python = installed(compiled_wheel, tmp_path)
    assert f"rawws {__version__} (compiled) on asyncio" in run(python, "-m", "rawws", "--version", cwd=tmp_path)
    assert "(compiled)" in run(python.with_name("rawws"), "--version", cwd=tmp_path)
    assert "(interpreted)" in run(python, "-m", "rawws", "--version", cwd=tmp_path, settings=PURE)
    assert "(compiled)" in run(python, "-m", "rawws", "--version", cwd=tmp_path, settings={"RAWWS_PURE": "0"})
    names = ", ".join(inside(module).removesuffix(".py").replace("/", ".") for module in COMPILED)
    show = f"import {names}, sys; print(*(m.__file__ for n, m in sys.modules.items() if n in '{names}'.split(', ')))"
    assert set(run(python, "-c", show, cwd=tmp_path).split()) == {
        str(path) for path in tmp_path.glob("venv/lib/python*/site-packages/**/*.so")
    }
    shown = run(python, "-c", show, cwd=tmp_path, settings=PURE).split()
    assert len(shown) == len(COMPILED)
    assert all(name.endswith(".py") for name in shown)


def test_a_torn_installation_names_what_is_missing(compiled_wheel: Path, tmp_path: Path) -> None:
    python = installed(compiled_wheel, tmp_path)
    [built] = tmp_path.glob(f"venv/lib/python*/site-packages/rawws/net/broadcast{SUFFIX}")
    built.unlink()
    assert "(partly compiled, without rawws.net.broadcast)" in run(python, "-m", "rawws", "--version", cwd=tmp_path)


def test_the_check_of_a_release_passes_on_the_compiled_wheel_alone(
    source: Path, compiled_wheel: Path, tmp_path: Path
) -> None:
    for folder in ("compiled", "pure"):
        (tmp_path / folder).mkdir()
    check = ROOT / ".ci" / "check_wheel.py"
    said = run(installed(compiled_wheel, tmp_path / "compiled"), check, cwd=tmp_path)
    assert [line.split()[:3] for line in said.splitlines()] == [
        ["rawws", __version__, "compiled"],
        ["rawws", __version__, "interpreted"],
    ]
    made, _ = wheel(source, tmp_path, PURE)
    assert "AssertionError: interpreted" in run(installed(made, tmp_path / "pure"), check, cwd=tmp_path, status=1)


def test_the_wheels_of_a_release_are_for_the_pythons_that_are_claimed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    claimed = [name for name in settings["project"]["classifiers"] if re.search(r":: 3\.\d+$", name)]
    built = settings["tool"]["cibuildwheel"]["build"]
    assert built == [f"cp{name.rpartition(' ')[2].replace('.', '')}-*" for name in claimed]
    assert len(built) == 3


def test_users_are_offered_no_packages_of_developers() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(project["optional-dependencies"]) == {
        "uvloop",
        "speedups",
        "socks",
        "redis",
        "postgres",
        "kafka",
        "nats",
        "metrics",
        "reload",
        "jwt",
        "gateway",
        "push",
    }


def test_pure_at_build_makes_a_wheel_for_every_python(source: Path, tmp_path: Path) -> None:
    made, said = wheel(source, tmp_path, PURE)
    assert made.name == f"rawws-{__version__}-py3-none-any.whl"
    assert [name for name in contents(made) if name.endswith(".so")] == []
    assert NOT_COMPILED not in said
    assert "(interpreted)" in version_said_by(made, tmp_path)


def test_without_a_compiler_the_install_succeeds_and_says_so_once(
    source: Path, compiled_wheel: Path, tmp_path: Path
) -> None:
    assert compiled_wheel.exists()  # so that the C files are there, and Cython need not write them again
    copy = tmp_path / "source"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("lib.*", "temp.*", "bdist.*", "*.so"))
    made, said = wheel(copy, tmp_path, {"CC": "false"})
    assert said.count(NOT_COMPILED) == 1
    assert [name for name in contents(made) if name.endswith(".so")] == []
    assert "(interpreted)" in version_said_by(made, tmp_path)
    refused, said = wheel(copy, tmp_path / "refused", {"CC": "false", "RAWWS_REQUIRE_COMPILED": "1"}, status=1)
    assert refused.suffix != ".whl"
    assert NOT_COMPILED not in said
