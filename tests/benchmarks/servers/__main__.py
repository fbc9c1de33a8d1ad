"""`python -m tests.benchmarks.servers NAME ...`: one server under test, pinned to one core."""

import argparse
import importlib
import os
import resource
from pathlib import Path

from . import SCENARIOS, Options

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="start one server under test; the benchmark does this by itself")
    parser.add_argument("name", help="a file beside this one")
    parser.add_argument("--scenario", choices=SCENARIOS, default="echo-1")
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--style", choices=("callback", "coroutine", "rawws"), default="callback")
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    parser.add_argument("--engine", choices=("asyncio", "epoll"), help="of our own servers")
    parser.add_argument("--cert", type=Path, default=Path("cert.pem"), help="key and certificate, for TLS scenarios")
    parser.add_argument("--cpu", type=int, help="the core to run on")
    given = parser.parse_args()
    if given.cpu is not None:
        os.sched_setaffinity(0, {given.cpu})
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    module = importlib.import_module(f".{given.name}", __package__)
    scenario = SCENARIOS[given.scenario]
    module.serve(Options(scenario, given.port, given.style, given.loop, given.engine, given.cert))
