"""The soak and the drain for a few seconds, so that both work when somebody has hours for them."""

from __future__ import annotations

import json
import re
import subprocess
import sys

from tests.processes import ROOT
from tests.soak.__main__ import leaks


def run(module: str, *options: str) -> str:
    command = [sys.executable, "-m", module, *options]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout + ran.stderr
    return ran.stdout


def test_twenty_seconds_of_soak_find_no_fault() -> None:
    printed = run("tests.soak", "--minutes", "0.33", "--scale", "3", "--no-picture")
    assert printed.endswith("\n0 faults\n")
    counts = json.loads((ROOT / "reports" / "soak.json").read_text())["counts"]
    assert counts["echoes"] > 50
    assert min(counts[kind] for kind in ("hub", "events", "poll", "killed", "slow readers")) > 0


def test_a_drain_of_some_hundred_connections_under_load_loses_nothing() -> None:
    printed = run("tests.soak.drain", "--connections", "300", "--batch", "100", "--interval", "0.2")
    assert "300 Close frames 1001, 0 other ends, 0 accepted messages without an answer" in printed


def test_a_drain_keeps_its_deadline_where_handlers_do_not_end() -> None:
    printed = run("tests.soak.drain", "--connections", "60", "--stubborn", "20", "--timeout", "2")
    assert "60 Close frames 1001, 0 other ends, 0 accepted messages without an answer" in printed
    # The command itself fails where it takes much longer than its two seconds.
    assert re.search(r"60 told to go, 0 aborted, in \d+\.\d+ s of 2\n", printed)


def test_some_thousand_frames_of_http2_leave_nothing_behind() -> None:
    printed = run("tests.soak.http2", "--frames", "20000")
    assert printed.endswith("\n0 faults\n"), printed


def test_what_is_left_over_is_a_fault() -> None:
    before = {"descriptors": 9, "tasks": 3}
    after = {"descriptors": 10, "tasks": 4, "hub": {"subscribers": 1}}
    samples = [{"rss": 40 << 20}] * 30 + [{"rss": 60 << 20}] * 10
    well = {**before, "hub": {"subscribers": 0}}
    assert leaks(before, well, samples[:30]) == leaks(before, well, []) == []
    assert leaks(before, after, samples) == [
        "descriptors: 10 at the end, 9 at the beginning",
        "tasks: 4 at the end, 3 at the beginning",
        "subscribers: 1 at the end",
        "memory: 60 MiB in the last quarter, 40 MiB in the second",
    ]
