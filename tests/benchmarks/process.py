"""The server's process: started on its own core, weighed from outside, stopped."""

import os
import random
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, final

from tests.processes import end_with_us

from .scenarios import Scenario

ROOT: Final = Path(__file__).resolve().parents[2]


@final
@dataclass(frozen=True, slots=True)
class Variant:
    """One contestant: a file in `servers/` and how it is run."""

    module: str
    label: str
    style: str = "callback"
    loop: str = "uvloop"
    engine: str | None = None
    pure: bool = False
    deflate: bool = True
    tls: bool = True


SERVERS: Final = {
    "rawws": Variant("rawws", "rawws, callback"),
    "rawws-coroutine": Variant("rawws", "rawws, coroutine", "coroutine"),
    "rawws-loop": Variant("rawws", "rawws, callback, the loop's transports", engine="asyncio"),
    "rawws-loop-coroutine": Variant("rawws", "rawws, coroutine, the loop's transports", "coroutine", engine="asyncio"),
    "rawws-asyncio": Variant("rawws", "rawws, callback, stdlib loop", loop="asyncio"),
    "rawws-coroutine-asyncio": Variant("rawws", "rawws, coroutine, stdlib loop", "coroutine", "asyncio"),
    "rawws-pure": Variant("rawws", "rawws interpreted, callback", pure=True),
    "rawws-pure-coroutine": Variant("rawws", "rawws interpreted, coroutine", "coroutine", pure=True),
    "rawws-pure-epoll": Variant("rawws", "rawws interpreted, our own engine", engine="epoll", pure=True),
    "rawws-pure-asyncio": Variant("rawws", "rawws interpreted, callback, stdlib loop", loop="asyncio", pure=True),
    "rawws-pure-loop-asyncio": Variant(
        "rawws", "rawws interpreted, the loop's transports, stdlib loop", loop="asyncio", engine="asyncio", pure=True
    ),
    "floor": Variant("floor", "C, epoll (no WebSocket)", deflate=False, tls=False),
    "limit": Variant("limit", "uvloop's limit (no WebSocket)", deflate=False),
    "limit-asyncio": Variant("limit", "stdlib loop's limit (no WebSocket)", loop="asyncio", deflate=False),
    "picows": Variant("picows", "picows, callback", deflate=False),
    "picows-coroutine": Variant("picows", "picows, coroutine", "coroutine", deflate=False),
    "picows-asyncio": Variant("picows", "picows, callback, stdlib loop", loop="asyncio", deflate=False),
    "uwebsockets": Variant("uwebsockets", "uWebSockets (C++)"),
    "socketify": Variant("socketify", "socketify"),
    "granian": Variant("granian", "granian (Rust)", deflate=False),
    "aiohttp": Variant("aiohttp", "aiohttp"),
    "uvicorn": Variant("uvicorn", "uvicorn"),
    "uvicorn-rawws": Variant("uvicorn", "uvicorn with rawws", "rawws"),
    "rawws-asgi": Variant("asgi", "rawws, ASGI"),
    "websockets": Variant("websockets", "websockets"),
    "websockets-asyncio": Variant("websockets", "websockets, stdlib loop", loop="asyncio"),
}


def free_port() -> int:
    """Return a free port below those that the kernel lends to clients."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port


@final
class ServerProcess:
    """`with ServerProcess(...) as server:`; CPU and memory are those of the process and of all below it."""

    __slots__ = ("cpu", "log", "pids", "port", "process")

    def __init__(self, command: list[str], cpu: int, folder: Path, *, pure: bool = False) -> None:
        self.cpu = cpu
        self.port = free_port()
        self.log = folder / "server.log"
        self.pids: list[int] = []
        environment = {key: value for key, value in os.environ.items() if key != "RAWWS_PURE"}
        if pure:
            environment["RAWWS_PURE"] = "1"
        command = [*command, "--port", str(self.port), "--cpu", str(cpu)]
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
        end_with_us(self.process.pid)

    @classmethod
    def of(cls, variant: Variant, scenario: Scenario, cpu: int, folder: Path) -> Self:
        """Return the process of a contestant."""
        command = [sys.executable, "-m", f"{__package__}.servers", variant.module, "--scenario", scenario.name]
        command += ["--style", variant.style, "--loop", variant.loop]
        if variant.engine is not None:
            command += ["--engine", variant.engine]
        command += ["--cert", str(folder / "cert.pem")]
        return cls(command, cpu, folder, pure=variant.pure)

    def __enter__(self) -> Self:
        deadline = time.monotonic() + 15
        while self.process.poll() is None and time.monotonic() < deadline:
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", self.port)):
                    self.pids = self._tree(self.process.pid)
                    return self
            time.sleep(0.02)
        self.__exit__()
        last = self.log.read_text(errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(f"the server did not start: {last[0] if last else 'it said nothing'}")

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            for pid in self._tree(self.process.pid):
                os.kill(pid, 9)
            self.process.wait()

    def _tree(self, pid: int) -> list[int]:
        files = Path(f"/proc/{pid}/task").glob("*/children")
        return [
            pid,
            *(below for file in files for child in file.read_text().split() for below in self._tree(int(child))),
        ]

    def cpu_ns(self) -> int:
        """Return the CPU time, user and system, of all threads since they began, in nanoseconds.

        This is the clock that `clock_getcpuclockid` gives for another process. `/proc/PID/schedstat` has the same
        figure for one thread; `/proc/PID/stat` counts ticks of 10 ms.
        """
        return sum(time.clock_gettime_ns(~pid << 3 | 2) for pid in self.pids)

    def memory(self) -> int:
        """Return the anonymous memory in bytes (`Pss_Anon` of `smaps_rollup`), which no other process moves."""
        rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in self.pids]
        return sum(int(rollup.partition("\nPss_Anon:")[2].split()[0]) for rollup in rollups) * 1024
