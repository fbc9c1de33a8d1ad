"""One cell of the report: one scenario on one freshly started server, once."""

import gc
import time
from pathlib import Path
from typing import Final, final

from .load import Load
from .process import SERVERS, ServerProcess
from .scenarios import Scenario

WARM: Final = 64  # connections opened before memory is weighed, so that only growth counts
SETTLE: Final = 0.5  # seconds for a server to come to rest before it is weighed
TICK: Final = 1e-2  # seconds, the unit of /proc/stat

Cell = dict[str, float | str]


@final
class Window:
    """The time between two moments, as both cores spent it."""

    __slots__ = ("elapsed", "marks", "own", "server")

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.marks = self._marks()

    def _marks(self) -> tuple[float, ...]:
        text = Path("/proc/stat").read_text().partition(f"\ncpu{self.server.cpu} ")[2].partition("\n")[0]
        user, nice, system, _idle, _iowait, *more = (int(field) for field in text.split())
        core = (user + nice + system + sum(more[:3])) * TICK  # whomever it worked for
        return core, self.server.cpu_ns() / 1e9, time.process_time(), time.perf_counter()

    def close(self, messages: int) -> Cell:
        """Return what `messages` cost. `neighbours` is the share of a core that went to other processes."""
        core, spent, self.own, self.elapsed = (
            after - before for before, after in zip(self.marks, self._marks(), strict=True)
        )
        if not messages:
            raise RuntimeError(f"no reply in {self.elapsed:.1f} s")
        return {
            "cpu_us": spent * 1e6 / messages,
            "rate": messages / self.elapsed,
            "busy": spent / self.elapsed,
            # The load never sleeps: what is missing of its core went to others.
            "neighbours": max(0.0, core - spent - 2 * TICK, self.elapsed - self.own) / self.elapsed,
        }


def percentiles(seconds: list[float]) -> Cell:
    seconds.sort()
    return {"p50_us": seconds[len(seconds) // 2] * 1e6, "p99_us": seconds[len(seconds) * 99 // 100] * 1e6}


def measure(name: str, scenario: Scenario, seconds: float, connections: int, cpu: int, folder: Path) -> Cell:
    """Return the figures of one cell; raise `WrongReplyError`, `OSError` or `RuntimeError` when the server fails."""
    gc.collect()
    gc.disable()  # the load makes no cycles; a collection would only stall it
    try:
        with ServerProcess.of(SERVERS[name], scenario, cpu, folder) as server:
            time.sleep(0.1)
            with Load(scenario) as load:
                if scenario.kind in {"handshake", "idle"}:
                    return opening(server, load, connections)
                return echo(server, load, connections, seconds)
    finally:
        gc.enable()


def opening(server: ServerProcess, load: Load, connections: int) -> Cell:
    load.open(server.port, WARM)
    load.run(10, once=True)
    time.sleep(SETTLE)
    memory = server.memory()
    window = Window(server)
    took = load.open(server.port, connections)
    cell = window.close(connections)
    if load.scenario.kind == "idle":
        time.sleep(SETTLE)
        cell["memory"] = (server.memory() - memory) / connections
        load.run(30, once=True)  # all are alive and answer rightly
        time.sleep(SETTLE)
        cell["memory_used"] = (server.memory() - memory) / connections
    return cell | percentiles(took)


def echo(server: ServerProcess, load: Load, connections: int, seconds: float) -> Cell:
    seconds = max(seconds, connections / 4000)  # several turns for each connection
    load.open(server.port, connections)
    if load.scenario.deflate:
        load.learn()
    load.await_whole_replies()
    load.run(30, once=True)
    load.run(max(0.3, seconds / 4))
    load.latencies.clear()
    window = Window(server)
    messages = load.run(seconds) * load.asked.messages
    cell = window.close(messages)
    cell["load_us"] = window.own * (1 - load.idle / window.elapsed) * 1e6 / messages
    cell |= {"reply_bytes": float(len(load.reply)), "extension": load.extension}
    return cell | percentiles(load.latencies)
