"""Run the WebSocket tests of uvicorn and of Starlette against our class and our ASGI server: `make foreign`.

They come from the source distributions of the versions that are installed, into .deps/. What differs is listed in
differences.py: a test that fails and is not listed there, and one that is listed and passes, fails this run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.integrations.foreign.differences import DIFFERENCES

HERE = Path(__file__).parent
ROOT = HERE.parents[2]

# The file of tests, what is chosen of it, and the servers that it runs against.
SUITES = {
    "uvicorn": ("tests/protocols/test_websocket.py", "not wsproto", ["uvicorn"]),
    "starlette": ("tests/test_websockets.py", "not trio", ["uvicorn", "rawws"]),
}


def source(name: str) -> Path:
    """Return the folder of a package's source distribution, which is fetched where it is not there yet."""
    full = f"{name}-{version(name)}"
    folder = ROOT / ".deps" / full
    if not folder.exists():
        folder.parent.mkdir(exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        with tempfile.TemporaryDirectory() as fetched:
            subprocess.run([*pip, "--no-binary", name, "--dest", fetched, full.replace("-", "==")], check=True)
            with tarfile.open(next(Path(fetched).glob("*.tar.gz"))) as archive:
                archive.extractall(folder.parent, filter="data")
    return folder


def results(name: str, server: str) -> dict[str, bool]:
    """Run a suite; return by the name of each test function whether it passed every time."""
    file, chosen, _ = SUITES[name]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{HERE}", "FOREIGN_SERVER": server}
    with tempfile.NamedTemporaryFile(suffix=".xml") as report:
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-o", "addopts=", "-p", f"{name}_plugin"]
        command += ["-k", chosen, f"--junitxml={report.name}", file]
        done = subprocess.run(command, cwd=source(name), env=env, capture_output=True, text=True, check=False)
        if done.returncode not in {0, 1}:
            raise SystemExit(done.stdout + done.stderr)
        passed: dict[str, bool] = {}
        for case in ET.parse(report.name).iter("testcase"):
            if case.find("skipped") is None:
                test = case.attrib["name"].partition("[")[0]
                failed = case.find("failure") is not None or case.find("error") is not None
                passed[test] = passed.get(test, True) and not failed
    return passed


def main() -> int:
    """Run all; return 0 where nothing differs but what is listed."""
    wrong = 0
    for name, (_, _, servers) in SUITES.items():
        for server in servers:
            passed = results(name, server)
            failed = {test for test, fine in passed.items() if not fine}
            listed = DIFFERENCES[name, server]
            print(f"{name} on {server}: {len(passed)} tests, {len(failed)} differ, {len(listed)} listed", flush=True)
            for test in sorted(failed - set(listed)):
                print(f"  {test} fails and is not listed")
            for test in sorted(set(listed) - failed):
                print(f"  {test} is listed and does not fail")
            wrong += len(failed ^ set(listed))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
