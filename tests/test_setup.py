"""The set-up of the two commands: what it asks of the tools that are there, and what it says where it cannot help."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT

PACKAGES = ROOT / ".ci" / "packages"
# What the script itself calls, and no apt-get.
NEEDED = ("sh", "grep", "head", "sort", "id")


@pytest.fixture
def bin_(tmp_path: Path) -> Path:
    """A folder of programs: what the script needs, a curl, and others that give their versions as the real ones do."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in NEEDED:
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    program(folder / "curl", "echo 'curl 7.49.1 (x86_64-pc-linux-gnu) libcurl/7.49.1 zlib/1.2.13'")
    for name, option in (("nginx", "-v"), ("varnishd", "-V"), ("caddy", "version")):
        only = f'if [ "$1" = {option} ]; then echo "mine/1.22.1" >&2; else echo "invalid option" >&2; exit 1; fi'
        program(folder / name, only)
    return folder


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def packages(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # /usr/sbin is looked into as well, and has no apt-get.
    return subprocess.run(
        [PACKAGES, *arguments], env={"PATH": str(folder)}, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("minimum", ["", ":7", ":7.5", ":7.49", ":7.49.1"])
def test_a_tool_that_is_new_enough_is_left_alone(bin_: Path, minimum: str) -> None:
    others = ("nginx:1.9.5=nginx-light", "varnishd:1.22=varnish", "caddy:1.22.1=caddy")
    done = packages(bin_, f"curl{minimum}=curl", *others)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("minimum", ["7.49.2", "7.50", "7.100", "8"])
def test_a_tool_that_is_too_old_is_named_with_both_versions(bin_: Path, minimum: str) -> None:
    done = packages(bin_, f"curl:{minimum}=curl", "nginx=nginx-light", "missing:1=a-package")
    assert done.returncode == 1
    assert done.stderr == (
        f"there is no apt-get here; please install: curl a-package; {bin_}/curl is version 7.49.1,"
        f" needed is {minimum} or later\n"
    )


def test_what_is_optional_is_missing_in_silence(bin_: Path) -> None:
    done = packages(bin_, "--optional", "=gcc")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_without_a_compiler_the_set_up_says_what_it_does_and_nothing_of_errors(bin_: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    (bin_ / "dirname").symlink_to(str(shutil.which("dirname")))
    done = subprocess.run(
        [tmp_path / ".ci" / "venv"],
        cwd=tmp_path,
        env={"PATH": str(bin_), "CC": "/nowhere/cc", "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    assert first == "rawws will run interpreted: the same, slower (gcc, libc6-dev and python3-dev would compile it)"
    assert re.fullmatch(r"making \.venv with Python 3\.\d+\.\d+\S*", second)
    assert os.access(tmp_path / ".venv" / "bin" / "python", os.X_OK)


def test_compiling_shows_a_dot_for_each_step_and_all_of_what_fails(tmp_path: Path) -> None:
    (tmp_path / "rawws").mkdir()
    steps = ["[ 1/12] Cythonizing rawws/a.py", "warning: of no interest", "building 'rawws.a' extension"]
    setup = tmp_path / "setup.py"
    script = ROOT / ".ci" / "compile.py"

    def compiled(end: str) -> subprocess.CompletedProcess[str]:
        setup.write_text("".join(f"print({step!r})\n" for step in steps) + end)
        return subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False)

    done = compiled("")
    assert (done.returncode, done.stdout, done.stderr) == (0, "compiling, once ..\n", "")
    done = compiled("raise SystemExit('no such header')\n")
    assert (done.returncode, done.stdout) == (1, "compiling, once ..\n")
    assert done.stderr.splitlines() == [*steps, "no such header"]
    (tmp_path / "rawws" / "a.so").touch()
    steps = []
    done = compiled("")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def run_tests(folder: Path, path: str, fails: int, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the tests of a project with one that passes, and one that fails so many times."""
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib\n")
    test = folder / path
    test.parent.mkdir(parents=True)
    test.write_text(
        f"""
from pathlib import Path

def test_now_and_then() -> None:
    with Path("runs").open("a+") as runs:
        runs.write("x")
    assert len(Path("runs").read_text()) > {fails}

def test_always() -> None:
    assert True
"""
    )
    here = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, str(ROOT / ".ci" / "tests.py"), "-m", "pytest", "-n", "1", *options, "tests"]
    return subprocess.run(command, cwd=folder, env=here, capture_output=True, text=True, check=False, timeout=600)


def test_a_test_with_programs_that_failed_once_runs_again_and_is_said_to_be_flaky(tmp_path: Path) -> None:
    done = run_tests(tmp_path, "tests/proxies/test_it.py", 1)
    assert done.returncode == 0, done.stdout + done.stderr
    flaky = "failed among the others and passed alone: tests/proxies/test_it.py::test_now_and_then"
    assert done.stdout.splitlines()[-1] == f"FLAKY, {flaky}"
    # Why it failed is not lost.
    assert "1 failed, 1 passed" in done.stdout
    assert "assert 1 > 1" in done.stdout


@pytest.mark.parametrize(
    ("path", "fails", "runs"), [("tests/proxies/test_it.py", 2, 2), ("tests/protocol/test_it.py", 1, 1)]
)
def test_a_test_that_fails_twice_or_that_starts_no_programs_has_failed(
    tmp_path: Path, path: str, fails: int, runs: int
) -> None:
    done = run_tests(tmp_path, path, fails)
    assert (done.returncode, (tmp_path / "runs").read_text()) == (1, "x" * runs)
    assert "FLAKY" not in done.stdout


def test_what_is_no_failure_of_a_test_does_not_run_again(tmp_path: Path) -> None:
    done = run_tests(tmp_path, "tests/proxies/test_it.py", 1, "--no-such-option")
    assert done.returncode == 4
    assert "once more" not in done.stdout
