"""Autobahn: every case of the suite, against our server and our client as real processes, on both twins.

The verdicts come from `run.py`, which these tests run as a user would. Groups 9, 12 and 13 (16 MiB messages, hundreds
of thousands of messages to compress) run on the compiled twin alone: minutes of work for two processors.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.autobahn.verdicts import TOTAL
from tests.processes import Process

RUN: Final = Path(__file__).with_name("run.py")
TIMEOUT: Final = 1800.0
WITHOUT_HEAVY: Final = 247


def verdict(folder: Path, *arguments: str) -> dict[str, object]:
    """Run the suite and return its verdict; the table is in the failure if it did not pass."""
    report = folder / "verdict.json"
    with Process([sys.executable, RUN, "--json", report, *arguments]) as process:
        process.result(TIMEOUT)
    found: dict[str, object] = json.loads(report.read_text())
    assert found["failures"] == []
    return found


def cases(found: dict[str, object]) -> int:
    outcomes = found["outcomes"]
    assert isinstance(outcomes, list)
    return len(outcomes)


def test_all_517_cases_pass_on_the_compiled_twin(tmp_path: Path) -> None:
    found = verdict(tmp_path)
    assert cases(found) == TOTAL
    assert ", compiled, coroutine" in str(found["peer"])


@pytest.mark.parametrize("style", ["coroutine", "callback"])
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("twin", ["compiled", "interpreted"])
def test_the_cases_without_heavy_load_pass_in_each_style_on_each_loop(
    tmp_path: Path, twin: str, loop: str, style: str
) -> None:
    pure = ["--pure"] if twin == "interpreted" else []
    found = verdict(tmp_path, "--cases", "1-7,10", "--style", style, "--loop", loop, *pure)
    assert cases(found) == WITHOUT_HEAVY
    assert f", {twin}, {style}" in str(found["peer"])
    assert f"{loop} loop" in str(found["peer"])


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_the_cases_without_heavy_load_pass_on_the_transports_of_the_loop(tmp_path: Path, loop: str) -> None:
    found = verdict(tmp_path, "--cases", "1-7,10", "--loop", loop, "--engine", "asyncio")
    assert cases(found) == WITHOUT_HEAVY
    assert f", engine asyncio, {loop} loop" in str(found["peer"])


@pytest.mark.parametrize("twin", ["compiled", "interpreted"])
def test_the_cases_without_heavy_load_pass_in_uvicorn(tmp_path: Path, twin: str) -> None:
    pure = ["--pure"] if twin == "interpreted" else []
    found = verdict(tmp_path, "--peer", "uvicorn", "--cases", "1-7,10", *pure)
    assert cases(found) == WITHOUT_HEAVY
    assert f", {twin}, in uvicorn" in str(found["peer"])


@pytest.mark.parametrize("twin", ["compiled", "interpreted"])
def test_our_client_passes_the_cases_without_heavy_load(tmp_path: Path, twin: str) -> None:
    pure = ["--pure"] if twin == "interpreted" else []
    found = verdict(tmp_path, "--role", "client", "--cases", "1-7,10", *pure)
    assert cases(found) == WITHOUT_HEAVY
    assert f", {twin}" in str(found["peer"])


@pytest.mark.parametrize("twin", ["compiled", "interpreted"])
def test_the_cases_without_heavy_load_pass_on_streams_of_http2(tmp_path: Path, twin: str) -> None:
    pure = ["--pure"] if twin == "interpreted" else []
    found = verdict(tmp_path, "--http2", "--cases", "1-7,10", *pure)
    assert cases(found) == WITHOUT_HEAVY
    assert f", {twin}, coroutine, over HTTP/2" in str(found["peer"])


@pytest.mark.parametrize("option", [["--http2"], ["--engine", "asyncio"]])
def test_some_options_are_for_our_own_server(option: list[str]) -> None:
    with Process([sys.executable, RUN, *option, "--peer", "websockets"]) as process:
        process.wait_for(lambda output: f"{option[0]} is for our own server" in output, "it says so")
