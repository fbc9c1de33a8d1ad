"""Run the tests of what each Python must do alike, on every Python that pyproject.toml claims, and on both twins.

    .ci/pythons.py              all of them
    .ci/pythons.py 3.12 3.13    these

Each is looked for on PATH and among pyenv's versions, and gets an environment in build/pythons. The tests themselves
run on both event loops. The exit status is 0 only where all of them were found and passed.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = [f"tests/{group}" for group in ("protocol", "sse", "server", "client", "topics")]
PYTEST = ["-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", "-p", "no:cacheprovider"]
COUNT = re.compile(r"\d+ (?:passed|failed|skipped|errors?)")


def claimed() -> list[str]:
    """Return the versions of the classifiers."""
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["classifiers"]
    return [name.rpartition(" ")[2] for name in classifiers if re.search(r":: Python :: 3\.\d+$", name)]


def find(version: str) -> str | None:
    """Return the program of a version."""
    candidates = [f"python{version}"]
    if shutil.which("pyenv"):
        run = subprocess.run(["pyenv", "prefix", version], capture_output=True, text=True, check=False)
        candidates += [f"{line.strip()}/bin/python" for line in run.stdout.splitlines()]
    for candidate in candidates:
        # pyenv puts programs on PATH for versions that are not switched on, which only fail.
        show = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
        path = shutil.which(candidate)
        if path is None:
            continue
        shown = subprocess.run([path, "-c", show], capture_output=True, text=True, check=False).stdout
        if shown.strip() == version:
            return path
    return None


def prepare(program: str, version: str) -> Path:
    """Make the environment of a version where it is not there, install what the tests need, and compile."""
    folder = ROOT / "build" / "pythons" / version
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([program, "-m", "venv", "--clear", folder], check=True)
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    subprocess.run([*pip, "pip>=25.1"], cwd=ROOT, check=True)
    subprocess.run([*pip, "--group", "matrix"], cwd=ROOT, check=True)
    # pip shows a warning about every editable installation.
    pure = os.environ | {"RAWWS_PURE": "1", "PYTHONWARNINGS": "ignore"}
    subprocess.run([*pip, "--no-build-isolation", "--no-deps", "--editable", "."], cwd=ROOT, env=pure, check=True)
    compiled = os.environ | {"RAWWS_PURE": "", "RAWWS_REQUIRE_COMPILED": "1"}
    build = [python, "setup.py", "--quiet", "build_ext", "--inplace"]
    subprocess.run(build, cwd=ROOT, env=compiled, stdout=subprocess.DEVNULL, check=True)
    return python


def run(python: Path, pure: str) -> tuple[bool, str]:
    """Run the tests on one twin; return whether they passed, and the counts."""
    env = os.environ | {"RAWWS_PURE": pure}
    with subprocess.Popen([python, *PYTEST, *TESTS], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        last = ""
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line
    return process.returncode == 0, ", ".join(COUNT.findall(last)) or f"exit status {process.returncode}"


def main() -> int:
    """Run all that were asked for, and print a line for each."""
    lines, good = [], True
    for version in sys.argv[1:] or claimed():
        program = find(version)
        if program is None:
            good = False
            lines.append(f"{version:6} not found: put it on PATH, or `pyenv install {version}`")
            continue
        try:
            python = prepare(program, version)
        except subprocess.CalledProcessError as error:
            good = False
            lines.append(f"{version:6} {error}")
            continue
        for pure, twin in (("", "compiled"), ("1", "interpreted")):
            print(f"--- Python {version}, {twin}", flush=True)
            passed, counts = run(python, pure)
            good &= passed
            lines.append(f"{version:6} {twin:12} {'passed' if passed else 'FAILED'}: {counts}")
    print(*lines, sep="\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
