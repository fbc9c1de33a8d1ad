"""What `rawws serve` says, where nobody takes it: a full disk or a closed pipe ends no server, and is told once."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from websockets.sync.client import connect

from rawws.cli.streams import LogHandler
from tests.cli.commands import get
from tests.processes import LOOPBACK, ROOT, Process, end_with_us, eventually, free_port

WEB = """
import rawws

routes = rawws.Routes()
routes.get("/")(lambda _: "x")

@routes.websocket("/ws")
async def echo(ws):
    async for message in ws:
        await ws.send(message)
"""

FULL = "No space left on device"
BROKEN = "Broken pipe"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "web.py").write_text(WEB)
    return tmp_path


def command(port: int, *more: str) -> list[str]:
    return [sys.executable, "-m", "rawws", "serve", "web:routes", "--port", str(port), "--access-log", *more]


def talk(port: int) -> None:
    """Ask often, and talk: each of these is a line of the log."""
    for _ in range(5):
        assert get(port, "/") == (200, b"x")
    with connect(f"ws://{LOOPBACK}:{port}/ws", proxy=None) as ws:
        ws.send("hello")
        assert ws.recv(timeout=60) == "hello"


def ends_well(process: Process) -> None:
    os.kill(process.pid, signal.SIGTERM)
    eventually(lambda: process.poll() is not None)
    assert process.poll() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    ("streams", "said"),
    [
        (">/dev/full", f"rawws: cannot write to standard output: {FULL}; it serves anyway\n"),
        ("2>/dev/full", f"rawws: cannot write the log: {FULL}; it serves anyway\n"),
        (">/dev/full 2>&1", ""),
        (">&- 2>&-", ""),
    ],
)
def test_a_server_whose_streams_are_full_or_closed_serves_and_says_so_once(
    here: Path, streams: str, said: str, workers: str
) -> None:
    port = free_port()
    words = " ".join(command(port, "--workers", workers))
    with Process(["sh", "-c", f"exec {words} {streams}"], cwd=here, listens=port) as process:
        talk(port)
        process.wait_for(lambda output: said in output, "it says so")
        ends_well(process)
        if said:
            # Each worker has a log of its own.
            count = int(workers) if "log" in said else 1
            assert 1 <= process.output.count(said) <= count
        assert "Traceback" not in process.output
        assert "Exception ignored" not in process.output


@pytest.mark.parametrize(
    ("words", "streams", "status", "said"),
    [
        ("--version", ">/dev/full", 1, f"rawws: cannot write to standard output: {FULL}\n"),
        ("backplane init redis://localhost", ">/dev/full", 1, f"rawws: cannot write to standard output: {FULL}\n"),
        ("--version", ">&-", 0, ""),
        ("send 127.0.0.1:1 x --http2", "2>/dev/full", 2, ""),
        ("publish 127.0.0.1:1 a x --key k", "2>/dev/full", 1, ""),
        ("status --url 127.0.0.1:1", "2>/dev/full", 1, ""),
        *(
            (words, "<&- >&-", 1, f"rawws: {said}: nothing listens at 127.0.0.1:1\n")
            for words, said in (
                ("connect 127.0.0.1:1", "cannot connect to ws://127.0.0.1:1"),
                ("send 127.0.0.1:1 -", "cannot connect to ws://127.0.0.1:1"),
                ("publish 127.0.0.1:1 a - --key k", "cannot publish at http://127.0.0.1:1"),
                ("subscribe 127.0.0.1:1 a", "cannot subscribe at http://127.0.0.1:1"),
            )
        ),
    ],
)
def test_a_client_whose_streams_are_full_or_closed_says_so_in_a_line(
    here: Path, words: str, streams: str, status: int, said: str
) -> None:
    with Process(["sh", "-c", f"exec {sys.executable} -m rawws {words} {streams}"], cwd=here) as process:
        eventually(lambda: process.poll() is not None)
        assert (process.poll(), process.output) == (status, said)


@contextlib.contextmanager
def broken_pipe() -> Iterator[int]:
    reads, writes = os.pipe()
    os.close(reads)
    yield writes
    os.close(writes)


@pytest.mark.parametrize("broken", ["stdout", "stderr", "both"])
def test_a_server_whose_reader_is_gone_serves_and_says_so_once(here: Path, broken: str) -> None:
    port = free_port()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with broken_pipe() as pipe, (here / "said").open("w+b") as said:
        files: dict[str, int | IO[bytes]] = {
            name: pipe if broken in {name, "both"} else said for name in ("stdout", "stderr")
        }
        process = subprocess.Popen(command(port), cwd=here, env=environment, **files)  # type: ignore[call-overload]
        end_with_us(process.pid)
        try:
            eventually(lambda: process.poll() is not None or accepts(port))
            talk(port)
        finally:
            process.terminate()
            assert process.wait(60) == 0
    text = (here / "said").read_text()
    whose = {"stdout": "cannot write to standard output", "stderr": "cannot write the log"}.get(broken)
    if whose is not None:
        assert text.count(f"rawws: {whose}: {BROKEN}; it serves anyway\n") == 1
    assert "Traceback" not in text


def accepts(port: int) -> bool:
    try:
        return get(port, "/")[0] == 200
    except OSError:
        return False


class Disk:
    """A stream on a disk that is full, until it is not."""

    def __init__(self) -> None:
        self.full = True
        self.written: list[str] = []

    def write(self, text: str) -> None:
        if self.full:
            raise OSError(28, FULL)
        self.written.append(text)

    def flush(self) -> None:
        """Do nothing."""


def record(text: str, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord("rawws.server", logging.WARNING, __file__, 1, text, arguments, None)


def test_each_outage_of_the_log_is_told_once_and_the_log_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    disk: Any = Disk()
    handler = LogHandler()
    handler.setStream(disk)
    said = f"rawws: cannot write the log: {FULL}; it serves anyway\n"
    for _ in range(2):
        disk.full = True
        for _ in range(3):
            handler.handle(record("lost"))
        assert capsys.readouterr() == (said, "")
        disk.full = False
        handler.handle(record("found"))
        assert capsys.readouterr() == ("", "")
    assert [text.count("WARNING rawws.server: found") for text in disk.written] == [1, 1]


def test_a_record_that_is_wrong_itself_is_told_as_logging_does(capsys: pytest.CaptureFixture[str]) -> None:
    LogHandler().handle(record("%d", "no number"))
    assert "--- Logging error ---" in capsys.readouterr().err


def test_what_a_full_stream_does_not_take_is_let_go_and_the_program_ends_well() -> None:
    code = (
        "import os, sys\n"
        "from rawws.cli.streams import release_streams\n"
        "before = os.listdir('/dev/fd')\n"
        "sys.stdout.write('never written')\n"
        "release_streams()\n"
        "sys.stderr.write(str(len(os.listdir('/dev/fd')) - len(before)))\n"
    )
    with Path("/dev/full").open("w") as full:
        # Where Python holds what is written.
        env = {**os.environ, "PYTHONUNBUFFERED": ""}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=env, check=False)
    # Python itself would end with 120.
    assert (done.returncode, done.stderr) == (0, "0")
