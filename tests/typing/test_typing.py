"""What type checkers say of programs of users: mypy (in `make lint`, all of `users.py`) and pyright."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PYRIGHT = HERE / "node_modules" / ".bin" / "pyright"
IGNORED = re.compile(r"  # type: ignore\[[\w-]+\]$")


def test_pyright_finds_each_wrong_line_of_a_users_program_and_no_other(tmp_path: Path) -> None:
    lines = (HERE / "users.py").read_text(encoding="utf-8").splitlines()
    (tmp_path / "users.py").write_text("\n".join(IGNORED.sub("", line) for line in lines), encoding="utf-8")
    settings = {"typeCheckingMode": "strict", "extraPaths": [str(HERE.parent.parent)]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    command: list[str | Path] = [PYRIGHT, "--outputjson", "--pythonpath", sys.executable, "--project", tmp_path]
    found = json.loads(subprocess.run(command, check=False, capture_output=True, text=True, timeout=300).stdout)
    errors = {said["range"]["start"]["line"]: said["message"] for said in found["generalDiagnostics"]}
    wrong = [number for number, line in enumerate(lines) if IGNORED.search(line)]
    assert found["summary"]["filesAnalyzed"] == 1
    assert sorted(errors) == wrong, errors
    assert len(wrong) > 10
