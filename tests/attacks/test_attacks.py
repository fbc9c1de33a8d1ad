"""Every attack on both twins: the process's memory, descriptors and tasks, and an innocent client's echoes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator

import pytest

from tests.processes import ROOT, Process

from .attacks import ATTACKS, MAX_SIZE, Attack
from .http2 import HTTP2_ATTACKS
from .watch import Seen, observe, start

# Which twin the tests run on; the server runs on the same.
PURE = os.environ.get("RAWWS_PURE") == "1"
# What a hostile connection may cost at the most, in bytes.
ALLOWED = 2 * MAX_SIZE + (1 << 20)
# The process itself, whoever is connected: so far lie two runs of the same code apart.
PROCESS = 1 << 20
# And how long at most another client waits, of a hundred messages for all but one, where work is paid for: in ms, on a
# machine that counts so far in such a time, and one that is slower or busy has more.
PATIENCE = 50.0
COUNT = 2_000_000
TRIES = 3


@pytest.fixture(scope="module")
def process() -> Iterator[Process]:
    """Run the server, and note what each attack cost."""
    with start("rawws", pure=PURE) as process:
        # The first of each kind loads and makes what is shared by all later ones.
        for attack in ATTACKS[:1]:
            observe(process, attack.run, ours=True)
        yield process
    reports = ROOT / "reports"
    reports.mkdir(exist_ok=True)
    file = reports / "attacks.json"
    table = json.loads(file.read_text()) if file.exists() else {}
    table["rawws interpreted" if PURE else "rawws"] = {name: seen._asdict() for name, seen in COSTS.items()}
    file.write_text(json.dumps(table, indent=1) + "\n")


COSTS: dict[str, Seen] = {}


def patience() -> float:
    began = time.perf_counter()
    for _ in range(COUNT):
        pass
    return PATIENCE * max(1.0, (time.perf_counter() - began) * 1000 / PATIENCE)


@pytest.mark.parametrize("attack", [*ATTACKS, *HTTP2_ATTACKS], ids=lambda attack: attack.name.replace(" ", "_"))
def test_an_attack_costs_little_and_leaves_nothing(process: Process, attack: Attack) -> None:
    seen = COSTS[attack.name] = observe(process, attack.run, ours=True, least=attack.least)
    assert seen.growth <= PROCESS + attack.connections * (ALLOWED + attack.kept * MAX_SIZE)
    assert seen.echoes > 0
    for _ in range(TRIES):
        if not attack.paid or seen.p99 <= patience():
            break
        # What else runs here may have had its turn: what the attack is to blame for comes again.
        seen = observe(process, attack.run, ours=True, least=attack.least)
    else:
        pytest.fail(f"another client waited for {seen.p99} ms")
    assert process.poll() is None
    assert "Traceback" not in process.output
