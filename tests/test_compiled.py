"""Tests refuse compiled files that differ from their sources, and only those; `make build` mends what they refuse."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.compiled import RECORD, SUFFIX, differences
from tests.processes import ROOT

FRAMES = "rawws/protocol/frames"
REFUSED = "do not match their sources, and nothing was run"
OURS = ("RAWWS_PURE", "RAWWS_REQUIRE_COMPILED", "PYTHONPATH", "CC", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of what is compiled, of what it was compiled from, and of one file of tests."""
    assert differences() == [], "run `make build`"
    unwanted = shutil.ignore_patterns("__pycache__")
    for folder in ("rawws", "rawws_sse"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=unwanted)
    for file in (".ci/can_compile.py", "fuzz/twins.py", "pyproject.toml", "setup.py", "README.md", "LICENSE"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        shutil.copy2(ROOT / file, tmp_path / file)
    (tmp_path / "tests").mkdir()
    for file in ("compiled.py", "conftest.py", "engine.py"):
        shutil.copy2(ROOT / "tests" / file, tmp_path / "tests")
    # As most files of fixtures do, it imports the compiled twin.
    (tmp_path / "tests" / "protocol").mkdir()
    (tmp_path / "tests" / "protocol" / "conftest.py").write_text("import rawws.protocol.frames")
    (tmp_path / "tests" / "protocol" / "test_one.py").write_text("def test_one(): print('it runs')")
    (tmp_path / "build").mkdir()
    shutil.copy2(RECORD, tmp_path / "build")
    return tmp_path


@pytest.fixture
def buildable(clone: Path) -> Path:
    """The copy with what a build left behind, so that the next one has less to do."""
    for folder in ("lib.*", "temp.*", str(sys.implementation.cache_tag)):
        for made in (ROOT / "build").glob(folder):
            shutil.copytree(made, clone / "build" / made.name)
    return clone


def run(clone: Path, *command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name not in OURS} | settings
    return subprocess.run(
        [sys.executable, *command], cwd=clone, env=env, capture_output=True, text=True, timeout=300, check=False
    )


def run_tests(clone: Path, *options: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return run(clone, "-m", "pytest", "-p", "no:cacheprovider", *options, "tests/protocol/test_one.py", **settings)


def change(file: Path, seconds: float = 0) -> None:
    """Write another rule into a source, and have it be so much younger than it was."""
    before = file.stat().st_mtime
    file.write_text(file.read_text(encoding="utf-8") + "\n# another rule\n", encoding="utf-8")
    os.utime(file, (before + seconds, before + seconds))


def change_module(clone: Path) -> None:
    change(clone / f"{FRAMES}.py", 60)


def change_module_with_an_old_time(clone: Path) -> None:
    change(clone / f"{FRAMES}.py", -1e6)


def change_types(clone: Path) -> None:
    change(clone / f"{FRAMES}.pxd", 60)


def remove_one(clone: Path) -> None:
    (clone / f"{FRAMES}{SUFFIX}").unlink()


def remove_all(clone: Path) -> None:
    for file in clone.glob(f"rawws*/**/*{SUFFIX}"):
        file.unlink()


def move_module(clone: Path) -> None:
    for suffix in (".py", ".pxd"):
        (clone / f"{FRAMES}{suffix}").rename(clone / f"rawws/frames{suffix}")


def remove_record(clone: Path) -> None:
    (clone / "build" / RECORD.name).unlink()


def refresh_times(clone: Path) -> None:
    """As a checkout of another branch and back does."""
    for file in clone.glob("rawws*/**/*.p*"):
        file.touch()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (change_module, f"{FRAMES}.py has changed since it was compiled"),
        (change_module_with_an_old_time, f"{FRAMES}.py has changed since it was compiled"),
        (change_types, f"{FRAMES}.pxd has changed since it was compiled"),
        (remove_one, f"{FRAMES}.py is not compiled"),
        (remove_all, "none of them is compiled"),
        (move_module, f"{FRAMES}{SUFFIX} has no source"),
        (remove_record, "what they were compiled from is not written down"),
    ],
)
def test_compiled_files_that_differ_from_their_sources_are_refused(
    clone: Path, what: Callable[[Path], None], said: str
) -> None:
    what(clone)
    ended = run_tests(clone)
    assert ended.returncode == 1, ended
    assert REFUSED in ended.stderr
    assert f"  {said}\n" in ended.stderr
    assert "`make build`" in ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    assert "1 passed" not in ended.stdout


def test_processes_of_xdist_do_not_repeat_the_refusal(clone: Path) -> None:
    change_module(clone)
    ended = run_tests(clone, "-n", "2")
    assert ended.returncode == 1, ended
    assert (ended.stdout + ended.stderr).count(REFUSED) == 1


@pytest.mark.parametrize("options", [[], ["-n", "2"]], ids=["alone", "xdist"])
def test_compiled_files_of_the_same_sources_are_not_refused_whatever_their_times(
    clone: Path, options: list[str]
) -> None:
    refresh_times(clone)
    ended = run_tests(clone, *options)
    assert ended.returncode == 0, ended
    assert "1 passed" in ended.stdout


def test_the_interpreted_twin_needs_no_compiled_files(clone: Path) -> None:
    change_module(clone)
    assert "1 passed" in run_tests(clone, RAWWS_PURE="1").stdout
    assert REFUSED in run_tests(clone, RAWWS_PURE="0").stderr


def test_without_a_compiler_the_interpreted_twin_is_tested(clone: Path) -> None:
    remove_all(clone)
    assert "1 passed" in run_tests(clone, CC="false").stdout


def test_a_build_compiles_what_was_refused_and_nothing_else(buildable: Path) -> None:
    orphan = buildable / f"rawws/gone{SUFFIX}"
    shutil.copy2(buildable / f"{FRAMES}{SUFFIX}", orphan)
    change_module_with_an_old_time(buildable)
    before = {file: file.stat().st_mtime_ns for file in buildable.glob(f"rawws*/**/*{SUFFIX}")}
    assert REFUSED in run_tests(buildable).stderr
    built = run(buildable, "setup.py", "build_ext", "--inplace", RAWWS_REQUIRE_COMPILED="1")
    assert built.returncode == 0, built
    after = {file: file.stat().st_mtime_ns for file in buildable.glob(f"rawws*/**/*{SUFFIX}")}
    changed = {file for file, time in before.items() if after.get(file) != time}
    assert changed == {orphan, buildable / f"{FRAMES}{SUFFIX}"}
    assert "1 passed" in run_tests(buildable).stdout


def test_what_failed_to_compile_stays_refused_when_it_is_taken_back(buildable: Path) -> None:
    module = buildable / f"{FRAMES}.py"
    right = module.read_text(encoding="utf-8")
    module.write_text(right + "\ndef broken(:\n", encoding="utf-8")
    built = run(buildable, "setup.py", "build_ext", "--inplace", RAWWS_REQUIRE_COMPILED="1")
    assert built.returncode != 0
    module.write_text(right, encoding="utf-8")
    assert f"{FRAMES}.py has changed" in run_tests(buildable).stderr
