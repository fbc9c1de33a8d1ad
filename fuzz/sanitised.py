"""`python -m fuzz.sanitised`: the sources to a compiled twin with sanitisers, its tests and its fuzzing.

Address and undefined-behaviour sanitisers watch each access to memory and each calculation of the C code. The build,
the tests of the protocol and the targets run on a copy in a temporary folder, so that nothing of it stays here.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("rawws", "rawws_sse", "tests", "fuzz", "setup.py", "pyproject.toml", "README.md", "LICENSE")
UNWANTED = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__", "node_modules", "findings")
FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer"
SETTINGS = {
    # CPython keeps memory to itself, and its own pools would hide what is wrong with an object that is in one.
    "PYTHONMALLOC": "malloc",
    # The interpreter frees little at its end.
    "ASAN_OPTIONS": "detect_leaks=0:quarantine_size_mb=16:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}
# Without those that need more than this copy: node, and servers of other frameworks.
TESTS = ("tests/protocol", "tests/sse", "--ignore=tests/sse/test_documentation.py", "--ignore=tests/sse/test_oracle.py")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="python -m fuzz.sanitised",
        description="Build the compiled twin with sanitisers, elsewhere, and run its tests and the fuzzer.",
        epilog="All other options are those of `python -m fuzz`.",
    )
    made.add_argument("--no-tests", action="store_true", help="fuzz only")
    return made


def main() -> int:
    """Run a command line and return the exit status."""
    given, others = parser().parse_known_args()
    compiler = os.environ.get("CC") or str(sysconfig.get_config_var("CC") or "cc").split()[0]
    env = os.environ | SETTINGS
    with tempfile.TemporaryDirectory(prefix="rawws-sanitised-") as folder:
        copy(Path(folder))
        build(Path(folder), compiler)
        libraries = [library(compiler, name) for name in ("libasan.so", "libubsan.so")]
        # The interpreter is not built with them, so they have to be there before it.
        env |= {"LD_PRELOAD": " ".join(libraries), "PYTHONPATH": folder, "RAWWS_PURE": ""}
        prove(folder, env)
        status = 0
        if not given.no_tests:
            tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS]
            status = subprocess.run(tests, cwd=folder, env=env, check=False).returncode
        findings = ["--findings", str(ROOT / "fuzz" / "findings")]
        fuzz = [sys.executable, "-m", "fuzz", *findings, *others]
        return subprocess.run(fuzz, cwd=folder, env=env, check=False).returncode or status


def copy(folder: Path) -> None:
    """Copy what is built and run."""
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=UNWANTED)
        else:
            shutil.copy(source, folder / part)


def build(folder: Path, compiler: str) -> None:
    """Build in the copy."""
    env = os.environ | {"CC": compiler, "CFLAGS": f"{FLAGS} -g", "LDFLAGS": FLAGS, "RAWWS_REQUIRE_COMPILED": "1"}
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    subprocess.run(command, cwd=folder, env=env, check=True)


def prove(folder: str, env: dict[str, str]) -> None:
    """Check that the twin is compiled, and that an access behind the end of a buffer does not go unseen."""
    program = (
        "from rawws import _twins; assert _twins.running() == 'compiled', _twins.running()\n"
        "from rawws.protocol.frames import FrameReader; frames = FrameReader(False, False)\n"
        r"frames.feed(bytearray(b'\x82\x40'), 66); frames.take_short()"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=folder, env=env, check=False, capture_output=True)
    if b"heap-buffer-overflow" not in ended.stderr:
        raise SystemExit(f"the sanitisers saw nothing: {ended}")


def library(compiler: str, name: str) -> str:
    """Return the path of a library of the compiler."""
    command = [compiler, f"-print-file-name={name}"]
    path = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    if not Path(path).is_absolute():
        raise SystemExit(f"{compiler} has no {name}: apt-get install libasan8 libubsan1, or another compiler as CC")
    return path


if __name__ == "__main__":
    sys.exit(main())
