"""Processes: start a program on a free loopback port, wait until it listens, keep what it prints, stop it by its id.

A program of ours listens on port 0 and prints `listening on HOST:PORT`; one that cannot is handed a port of `free_port`
and is waited for until it accepts. A component that is missing is an error that names the command which installs it:
no test skips for want of one. What runs still when this process is gone, killed or not, is ended by `tests/reaper.py`.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import platform
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = [
    "LOOPBACK",
    "NODE_PROCESSORS",
    "PATIENCE",
    "ROOT",
    "MissingComponentError",
    "Process",
    "ProcessError",
    "end_with_us",
    "eventually",
    "find_installed",
    "find_node",
    "find_program",
    "free_port",
]

ROOT: Final = Path(__file__).resolve().parents[1]
LOOPBACK: Final = "127.0.0.1"

# Two seconds are what a slow machine's interpreter needs to import a library; the rest is for a machine that is busy.
START_TIMEOUT: Final = 60.0
# After SIGTERM a program has this long to end by itself before it is killed.
STOP_TIMEOUT: Final = 5.0
# The kernel has ended what was killed within this time, or never will.
KILL_TIMEOUT: Final = 60.0
POLL_INTERVAL: Final = 0.01
# What a test waits for no answer for, unless it is about that, in seconds: a machine that is busy may stop for some.
PATIENCE: Final = 20.0

# Those of the system are too old (Debian 12 has 18: no global `crypto`, no WebSocket), or will be too new one day.
NODE: Final = Path(__file__).with_name("node")
# The names that npm's packages have for the processors of Linux.
NODE_PROCESSORS: Final = {"x86_64": "x64", "aarch64": "arm64"}

LISTENING: Final = re.compile(r"^listening on \S+:(\d+)$", re.MULTILINE)

# Tests may seed what draws for all.
_dice: Final = random.SystemRandom()
# The ports that were given last.
_given: Final[deque[int]] = deque(maxlen=1000)


class MissingComponentError(Exception):
    """A program that the tests need is not installed; the message holds the command that installs it."""


class ProcessError(Exception):
    """A program ended, or did not do what was waited for; the message holds what it printed."""


def find_program(name: str, install: str) -> str:
    """Return the path of the program `name`; raise `MissingComponentError` with the `install` command if absent."""
    if path := shutil.which(name) or shutil.which(name, path="/usr/sbin"):
        return path
    raise MissingComponentError(f"{name} is not installed: {install}")


def find_installed(name: str) -> str:
    """Return the path of a program that stands beside this Python, as a package of the tests brought it."""
    if path := shutil.which(name, path=Path(sys.executable).parent):
        return path
    raise MissingComponentError(f"{name} is not installed: pip install --group test")


def find_node(version: str = "22") -> str:
    """Return the path of a Node of `node/package-lock.json`; raise `MissingComponentError` if it is not installed."""
    processor = NODE_PROCESSORS.get(platform.machine(), platform.machine())
    name = "node" if version == "22" else f"node-{version}"
    path = NODE / "node_modules" / f"{name}-linux-{processor}" / "bin" / "node"
    if path.exists():
        return str(path)
    raise MissingComponentError(f"the node of the tests is not installed: npm ci --prefix {NODE.relative_to(ROOT)}")


def free_port() -> int:
    """Return a port that nobody listens on now (another may take it: only for programs that need a number).

    It is not one of the last thousand that were returned, nor one that another worker of pytest-xdist may be given: the
    programs that these are for may not listen yet.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    while True:
        # Below those that the kernel gives to clients, of which there are many in other tests.
        port = _dice.randrange(16384 + worker, 32768, workers)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            if port not in _given:
                _given.append(port)
                return port


def eventually(condition: Callable[[], object]) -> None:
    """Wait until something is true; fail after a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


@cache
def _reaper() -> int:
    """Start the reaper of this process; return the descriptor that it reads the other end of."""
    command = [sys.executable, "-I", "-S", str(ROOT / "tests" / "reaper.py"), str(STOP_TIMEOUT)]
    # In a session of its own: what ends this process by its group or its terminal does not end it.
    reaper = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    assert reaper.stdin is not None
    owner = os.getpid()

    def end() -> None:
        if os.getpid() == owner:
            reaper.communicate()

    atexit.register(end)
    return reaper.stdin.fileno()


def end_with_us(pid: int) -> None:
    """Have a program that was just started end when this process does, in whatever way that ends."""
    os.write(_reaper(), b"%d\n" % pid)


@final
class Process:
    """A running program: `with Process([...]) as process:`; `process.port` is where it listens, None if it does not.

    `listens=True` waits for the line that announces the port, `listens=PORT` until that port accepts. What the program
    writes to both outputs is in `process.output`. It has the descriptors that it `inherits`. On exit it gets SIGTERM,
    then SIGKILL.
    """

    __slots__ = ("_file", "_popen", "_rest", "command", "port")

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        listens: bool | int = False,
        env: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
        timeout: float = START_TIMEOUT,
        inherits: Sequence[int] = (),
    ) -> None:
        self.command: Final = [str(part) for part in command]
        self.port: int | None = None
        self._rest: str | None = None
        self._file: Final = tempfile.TemporaryFile()  # noqa: SIM115 - closed in stop; a pipe would block when it is full
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **(env or {})}
        self._popen: Final = subprocess.Popen(
            self.command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=inherits,
        )
        end_with_us(self._popen.pid)
        try:
            self._await_port(listens, timeout)
        except BaseException:
            self.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The id of the process, which is also that of its group."""
        return self._popen.pid

    def poll(self) -> int | None:
        """Return the exit status, None while the program runs."""
        return self._popen.poll()

    @property
    def output(self) -> str:
        """What the program has printed so far, both outputs in one; it can be read after the end too."""
        if self._rest is not None:
            return self._rest
        size = os.fstat(self._file.fileno()).st_size
        return os.pread(self._file.fileno(), size, 0).decode(errors="replace")

    def wait_for(self, condition: Callable[[str], bool], what: str, timeout: float = START_TIMEOUT) -> str:
        """Return the output as soon as it fulfils `condition`; raise `ProcessError` at the end or after `timeout` s."""
        deadline = time.monotonic() + timeout
        while True:
            ended = self._popen.poll() is not None
            output = self.output
            if condition(output):
                return output
            if ended:
                raise self._error(f"ended with status {self._popen.returncode} before {what}")
            if time.monotonic() > deadline:
                raise self._error(f"waited {timeout} s in vain for {what}")
            time.sleep(POLL_INTERVAL)

    def result(self, timeout: float) -> str:
        """Wait until the program has ended well and return its output; raise `ProcessError` if it fails or is late."""
        try:
            status = self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise self._error(f"still runs after {timeout} s") from None
        if status:
            raise self._error(f"ended with status {status}")
        return self.output

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the program alone, if it still runs."""
        if self._popen.poll() is None:
            self._popen.send_signal(number)

    def stop(self) -> int:
        """End the program, and whatever it started, and return its exit status. May be called twice."""
        self._signal(signal.SIGTERM)
        try:
            self._popen.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._popen.wait(KILL_TIMEOUT)
        if self._rest is None:
            self._rest = self.output
            self._file.close()
        return self._popen.returncode

    def _signal(self, number: signal.Signals) -> None:
        """Signal the group while its leader lives, or is not collected: until then nobody else can have its id."""
        if self._popen.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._popen.pid, number)

    def _await_port(self, listens: bool | int, timeout: float) -> None:
        if listens is True:
            output = self.wait_for(lambda text: LISTENING.search(text) is not None, "it listens", timeout)
            match = LISTENING.search(output)
            self.port = int(match[1]) if match else None
        elif listens is not False:
            self.wait_for(lambda _: _accepts(listens), f"port {listens} accepts", timeout)
            self.port = listens

    def _error(self, what: str) -> ProcessError:
        return ProcessError(f"{' '.join(self.command)}: {what}; it printed:\n{self.output or '(nothing)'}")


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((LOOPBACK, port)) == 0
