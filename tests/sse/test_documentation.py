"""docs/use/sse.md tells the truth: its programs run, and print or serve what it says."""

from __future__ import annotations

import os
import re
import signal
import sys
from http.client import HTTPConnection
from pathlib import Path

import pytest

from rawws_sse import Decoder, Event
from tests.processes import LOOPBACK, ROOT, Process, free_port

PAGE = (ROOT / "docs" / "use" / "sse.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
PORT = "8765"
SERVERS = {
    found[1]: program
    for program in PROGRAMS
    if (found := re.search(r"^from (starlette|aiohttp|django)\b", program, re.MULTILINE))
}
CLIENTS = [program for program in PROGRAMS if "import httpx" in program]
PRINTING = [program for program in PROGRAMS if PORT not in program]


def start(program: str, folder: Path, port: int, *, listens: bool | int = False) -> Process:
    (folder / "program.py").write_text(program.replace(PORT, str(port)), encoding="utf-8")
    return Process([sys.executable, "-W", "error", "program.py"], cwd=folder, listens=listens)


def test_every_program_is_of_a_kind_that_runs_below() -> None:
    assert sorted(SERVERS) == ["aiohttp", "django", "starlette"]
    assert (len(CLIENTS), len(PRINTING)) == (1, 2)
    assert len(PROGRAMS) == len(SERVERS) + len(CLIENTS) + len(PRINTING)


@pytest.mark.parametrize("program", PRINTING, ids=["encode", "decode"])
def test_a_program_prints_what_its_comments_say(program: str, tmp_path: Path) -> None:
    expected = re.findall(r"^print\(.*\)  # (.*)$", program, re.MULTILINE)
    assert len(expected) == program.count("print(")
    with start(program, tmp_path, 0) as process:
        assert process.result(60).splitlines() == expected


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_resumes_behind_the_last_event_id(name: str, tmp_path: Path) -> None:
    port = free_port()
    with start(SERVERS[name], tmp_path, port, listens=port) as process:
        connection = HTTPConnection(LOOPBACK, port, timeout=60)
        connection.request("GET", "/feed", headers={"Last-Event-ID": "41"})
        response = connection.getresponse()
        assert response.status == 200
        assert response.headers.get_content_type() == "text/event-stream"
        assert (response.headers["Cache-Control"], response.headers["X-Accel-Buffering"]) == ("no-store", "no")
        decoder = Decoder()
        events: list[Event] = []
        while len(events) < 2:
            piece = response.read1()
            assert piece, process.output
            events += decoder.receive(piece)
        assert events == [Event("tick 42", id="42"), Event("tick 43", id="43")]
        connection.close()
        response.close()
        os.kill(process.pid, signal.SIGINT)
        process.wait_for(lambda _: process.poll() is not None, "it ends")
        assert "Traceback" not in process.output


@pytest.mark.parametrize("program", CLIENTS, ids=["httpx"])
def test_a_client_prints_the_events_of_a_server(program: str, tmp_path: Path) -> None:
    port = free_port()
    for folder in ("server", "client"):
        (tmp_path / folder).mkdir()
    with (
        start(SERVERS["starlette"], tmp_path / "server", port, listens=port),
        start(program, tmp_path / "client", port) as client,
    ):
        client.wait_for(lambda output: output.count("\n") >= 2, "it prints two events")
        assert client.output.startswith("tick 1 1\ntick 2 2\n")
