"""Tests of the limit of all tests: one that waits for what never comes fails, says where it waited; others go on."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.processes import Process

HANGING = """
import asyncio, threading, time
import pytest, uvloop

def test_joins_a_thread():
    thread = threading.Thread(target=time.sleep, args=(600,), daemon=True)
    thread.start()
    thread.join()

@pytest.mark.parametrize("new_loop", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_waits_in_a_loop(new_loop):
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(asyncio.Event().wait())

def test_tries_again_for_ever():
    while True:
        try:
            time.sleep(600)
        except Exception:
            pass

@pytest.fixture
def slow():
    time.sleep(600)

def test_has_a_fixture(slow):
    pass

def test_is_quick():
    pass
"""


def test_a_test_that_hangs_fails_and_the_next_one_runs(tmp_path: Path) -> None:
    path = tmp_path / "test_hanging.py"
    path.write_text(HANGING, encoding="utf-8")
    plugins = ["-p", "tests.conftest", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command = [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", *plugins, str(path)]
    with Process(command, cwd=tmp_path, env={"TEST_LIMIT": "0.5"}) as pytest:
        output = pytest.wait_for(lambda text: bool(re.search(r" in [\d.]+s\n$", text)), "it is over", timeout=60)
    assert "4 failed, 1 passed, 1 error" in output, output
    for line in ("    thread.join()", "runner.run(asyncio.Event().wait())", "            time.sleep(600)"):
        assert line in output
    assert "test_hanging.py::test_joins_a_thread was not over after 0.5 s" in output
