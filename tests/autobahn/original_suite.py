"""The original Autobahn test suite: find Python 2.7, install the suite once, run it and read its report.

It was never ported to Python 3 and runs nowhere else; what we publish comes from it. It lives in `.deps/autobahn`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.autobahn.verdicts import Outcome
from tests.processes import LOOPBACK, ROOT, MissingComponentError, Process, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["PACKAGE", "against_clients", "against_servers", "find_python2", "install"]

PACKAGE: Final = "autobahntestsuite==0.8.2"
FOLDER: Final = ROOT / ".deps" / "autobahn"
AGENT: Final = "peer"

# The suite's packages alone, and no warnings that Python 2.7 is old.
ENVIRONMENT: Final = {"PYTHONPATH": str(FOLDER), "PYTHONWARNINGS": "ignore"}


def find_python2() -> Path:
    """Return a Python 2.7 that works, from PATH or from pyenv; a pyenv shim without its version does not."""
    for candidate in _candidates():
        check: list[str | Path] = [candidate, "-c", "import sys, pip; assert sys.version_info[:2] == (2, 7)"]
        if subprocess.run(check, capture_output=True, check=False).returncode == 0:
            return candidate
    raise MissingComponentError(
        "the original Autobahn suite needs Python 2.7 with pip, in PATH or under pyenv: pyenv install 2.7.18"
    )


def _candidates() -> Iterator[Path]:
    if on_path := shutil.which("python2.7"):
        yield Path(on_path)
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from sorted(root.glob("versions/2.7*/bin/python2.7"), reverse=True)


def install() -> Path:
    """Install the suite unless it is there, and return the Python that runs it.

    The suite is moved to its place when it is whole: an interrupted installation is not taken for one.
    """
    python = find_python2()
    if (FOLDER / "zope" / "__init__.py").exists():
        return python
    FOLDER.parent.mkdir(exist_ok=True)
    print(f"installing {PACKAGE} into {FOLDER.relative_to(ROOT)}")
    with tempfile.TemporaryDirectory(dir=FOLDER.parent) as folder:
        target = Path(folder, "autobahn")
        command: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--target", target, PACKAGE]
        done = subprocess.run(command, capture_output=True, check=False, text=True)
        if done.returncode:
            raise MissingComponentError(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
        # A namespace package needs its .pth file, which Python reads in site-packages alone.
        (target / "zope" / "__init__.py").touch()
        shutil.rmtree(FOLDER, ignore_errors=True)
        target.rename(FOLDER)
    return python


def against_servers(
    lanes: Sequence[list[str]], uris: Sequence[str], _jobs: int, report: Path, timeout: float
) -> list[Outcome]:
    """Run each lane of cases against the server at its URI, all lanes at once, a lane's cases one after the other."""
    folders = [_new_folder(report, number) for number in range(len(lanes))]
    with contextlib.ExitStack() as stack:
        runners = []
        for lane, uri, folder in zip(lanes, uris, folders, strict=True):
            spec = {"servers": [{"agent": AGENT, "url": uri}]}
            runners.append(stack.enter_context(Process(_command("fuzzingclient", spec, lane, folder), env=ENVIRONMENT)))
        for runner in runners:
            runner.result(timeout)
    return [outcome for folder in folders for outcome in _outcomes(folder)]


def against_clients(
    lanes: Sequence[list[str]], start_client: Callable[[str], Process], report: Path, timeout: float
) -> list[Outcome]:
    """Offer each lane of cases to a client of its own, which `start_client` starts for a URI, all lanes at once."""
    folders = [_new_folder(report, number) for number in range(len(lanes))]
    with contextlib.ExitStack() as stack:
        clients = []
        for lane, folder in zip(lanes, folders, strict=True):
            port = free_port()
            uri = f"ws://{LOOPBACK}:{port}"
            command = [*_command("fuzzingserver", {"url": uri}, lane, folder), "--webport", "0"]
            stack.enter_context(Process(command, listens=port, env=ENVIRONMENT))
            clients.append(stack.enter_context(start_client(uri)))
        for client in clients:
            client.result(timeout)
    return [outcome for folder in folders for outcome in _outcomes(folder)]


def _new_folder(report: Path, number: int) -> Path:
    """Return an empty folder: an old report must not pass for the new one."""
    folder = report.with_name(f"{report.name}-{number + 1}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _command(mode: str, spec: Mapping[str, object], cases: list[str], folder: Path) -> list[str | Path]:
    path = folder / "spec.json"
    path.write_text(json.dumps({**spec, "outdir": str(folder), "cases": cases}))
    return [install(), FOLDER / "bin" / "wstest", "--mode", mode, "--spec", path]


def _outcomes(folder: Path) -> list[Outcome]:
    """Return what the suite says in `folder`, of whatever agent it names; nothing if it wrote no report."""
    index = folder / "index.json"
    if not index.exists():
        return []
    agents: dict[str, dict[str, dict[str, str]]] = json.loads(index.read_text())
    entries = [(case_id, entry) for cases in agents.values() for case_id, entry in cases.items()]
    return [_outcome(case_id, folder / entry["reportfile"]) for case_id, entry in entries]


def _outcome(case_id: str, path: Path) -> Outcome:
    case = json.loads(path.read_text())
    reason = case["resultClose"] if case["behavior"] == "OK" else case["result"]
    return Outcome(case_id, case["behavior"], case["behaviorClose"], case["remoteCloseCode"], case["duration"], reason)
