"""Compile in place what has changed: a dot for each step shows that it goes on, and what failed is shown whole."""

import os
import re
import subprocess
import sys
from pathlib import Path

# What Cython and setuptools say when they begin with a module.
STEP = re.compile(r"\[ *\d+/\d+\] Cythonizing |building '")

once = ", once" if next(Path("rawws").rglob("*.so"), None) is None else ""
environment = {**os.environ, "RAWWS_REQUIRE_COMPILED": "1", "PYTHONUNBUFFERED": "1"}
said = []
dots = 0
with subprocess.Popen(
    [sys.executable, "setup.py", "build_ext", "--inplace"],
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    errors="replace",
) as build:
    assert build.stdout is not None
    for line in build.stdout:
        said.append(line)
        if STEP.match(line):
            print("." if dots else f"compiling{once} .", end="", flush=True)
            dots += 1
if dots:
    print()
if build.returncode:
    print(*said, sep="", end="", file=sys.stderr)
sys.exit(build.returncode != 0)
