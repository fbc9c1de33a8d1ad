"""Run the attacks on every server, and print a table; what only ours answers is tried on ours alone."""

from __future__ import annotations

import argparse
import json

from tests.compiled import refuse
from tests.processes import ROOT

from .attacks import ATTACKS, MAX_SIZE
from .http2 import HTTP2_ATTACKS
from .watch import Seen, observe, start

SERVERS = {
    "rawws": ("rawws", False),
    "rawws interpreted": ("rawws", True),
    "websockets": ("websockets", False),
    "picows": ("picows", False),
    "aiohttp": ("aiohttp", False),
}


def attack_all(label: str, names: list[str]) -> dict[str, dict[str, object]]:
    """Run the attacks on one server, each on a fresh process; what a peer does not survive is told."""
    server, pure = SERVERS[label]
    found: dict[str, dict[str, object]] = {}
    for attack in [*ATTACKS, *HTTP2_ATTACKS]:
        if (attack.http and server != "rawws") or (names and attack.name not in names):
            continue
        try:
            with start(server, pure=pure) as process:
                found[attack.name] = observe(process, attack.run, ours=server == "rawws", least=attack.least)._asdict()
        except (AssertionError, OSError) as error:
            found[attack.name] = {"failed": (str(error) or type(error).__name__).strip().splitlines()[-1][:80]}
        print(f"{label:18} {attack.name:36} {shown(found[attack.name])}", flush=True)
    return found


def shown(cost: dict[str, object]) -> str:
    """Write what an attack cost."""
    if "failed" in cost:
        return str(cost["failed"])
    seen = Seen(**cost)  # type: ignore[arg-type]
    return f"{seen.growth / 1048576:8.1f} MiB {seen.p99:8.1f} ms {seen.max:8.1f} ms"


def main() -> None:
    """Measure, and write reports/attacks.json."""
    words = argparse.ArgumentParser(prog="python -m tests.attacks", description=__doc__)
    words.add_argument("--server", action="append", choices=SERVERS, help="one of them; may be repeated")
    words.add_argument("--attack", action="append", default=[], help="one attack by its name; may be repeated")
    options = words.parse_args()
    refuse()
    file = ROOT / "reports" / "attacks.json"
    file.parent.mkdir(exist_ok=True)
    table = json.loads(file.read_text()) if file.exists() else {}
    print(f"growth of the process, max_size is {MAX_SIZE}; round trip of another client: p99, longest")
    for label in options.server or SERVERS:
        table.setdefault(label, {}).update(attack_all(label, options.attack))
        file.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
