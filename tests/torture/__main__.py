"""Kill servers and engines for long: `python -m tests.torture nats kafka --seconds 120`; ends with 1 for any fault."""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.backplanes.engine_kafka_cluster import KafkaClusterEngine
from tests.backplanes.engines import SERVERS
from tests.compiled import refuse
from tests.server.peers import run

from .torture import CLIENTS, KILLS, Victim, torture

# Three brokers of Kafka take too long to start for the tests of each run.
ENGINES: Final[dict[str, Callable[[Path], Victim]]] = {**SERVERS, "kafka-cluster": KafkaClusterEngine}


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    words = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    words.add_argument("engines", nargs="*", metavar="ENGINE", help=f"{', '.join(ENGINES)} (default: all)")
    words.add_argument("--seconds", type=float, default=120.0, help="how long each (default: %(default)g)")
    words.add_argument("--kills", choices=KILLS, action="append", help="what becomes of the engine (default: each)")
    return words


def tortured(name: str, kills: str, seconds: float) -> list[str]:
    """Torture one engine, print what was done, and return what was wrong."""
    with tempfile.TemporaryDirectory() as folder:
        engine = ENGINES[name](Path(folder))
        try:
            found = run(torture(engine, seconds, kills), 2 * seconds + 240)
        finally:
            engine.end()
    did = f"{found.server_kills} servers and {found.engine_kills} engines killed, {sum(found.resumed.values())} resumed"
    print(f"{name} {kills}: {len(found.log)} publications to {CLIENTS} clients, {did}, {found.declared} declared")
    faults = found.faults()
    if kills == "never" and found.declared:
        faults.append("clients were told of a loss where the engine lived")
    for fault in faults:
        print(f"  {fault}")
    return faults


def main() -> int:
    """Torture the engines that are named."""
    options = parser().parse_args()
    if wrong := set(options.engines) - set(ENGINES):
        parser().error(f"there is no engine {', '.join(sorted(wrong))}, there are {', '.join(ENGINES)}")
    refuse()
    # That an engine is away is no news here.
    logging.getLogger("rawws").setLevel(logging.ERROR)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    faults = 0
    for name in options.engines or ENGINES:
        for kills in options.kills or KILLS:
            faults += len(tortured(name, kills, options.seconds))
            sys.stdout.flush()
    print(f"{faults} faults")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
