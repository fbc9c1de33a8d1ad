"""Change one folder of rawws in small ways, one at a time, and list what none of its tests notices (mutmut).

    .ci/mutate.py                                    the protocol core
    .ci/mutate.py 'rawws.topics.history*'            what is changed in one module
    .ci/mutate.py 'rawws.http.*' --sample 60         so many of them, drawn at random
    .ci/mutate.py 'rawws.http.*' --sample 60 --seed 2    others

Each folder has a copy of the sources of its own in build/mutate, with the tests that are about it and the results: so
it resumes where it was stopped. A sample is the same each time as long as the code is.
"""

import argparse
import fnmatch
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Collection
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "mutate"
COPIED = ("pyproject.toml", "docs", "fuzz", "rawws", "rawws_sse", "tests")
# The tests of each folder: none of browsers, of other programs, nor of what is slow for its own reasons.
SERVER = (
    "tests/server",
    "--ignore=tests/server/test_forks.py",
    "--ignore=tests/server/test_http_documentation.py",
    "--ignore=tests/server/test_tls_reload.py",
    "--ignore=tests/server/test_vanished.py",
)
HTTP = (
    "bodies", "event_stream", "http_bad_input", "http_cors", "http_exchange", "http_gone", "http_requests",
    "http_responses", "long_poll", "proxies", "responses", "routes", "server_handshake",
)  # fmt: skip
GATEWAY = (
    "aws_events", "calls", "expressions", "figures", "hook_dispatch", "idempotency", "jwks", "loading", "model",
    "outgoing", "own_calls", "push_api", "push_devices", "push_loading", "sigv4", "state_log", "webhooks",
)  # fmt: skip
TESTS = {
    # Without what compares the mutant with itself.
    "protocol": ("tests/protocol", "--ignore=tests/protocol/test_twins.py"),
    "topics": (
        "tests/topics",
        "--ignore=tests/topics/test_documentation.py",
        *(f"tests/backplanes/test_{name}.py" for name in ("hubs", "memory", "presence", "replication", "servers")),
    ),
    "backplanes": (
        "tests/backplanes",
        "--ignore=tests/backplanes/test_documentation.py",
        "--ignore=tests/torture",
    ),
    "http": tuple(f"tests/server/test_{name}.py" for name in HTTP),
    "server": SERVER,
    "net": SERVER,
    "client": (
        "tests/client",
        "--ignore=tests/client/test_documentation.py",
        "--ignore=tests/client/test_events_servers.py",
        "--ignore=tests/client/test_migration.py",
        "--ignore=tests/client/test_terminal.py",
    ),
    "integrations": ("tests/integrations/test_asgi.py", "tests/integrations/test_uvicorn.py"),
    # The quick ones: the others are for what these leave.
    "gateway": tuple(f"tests/gateway/test_{name}.py" for name in GATEWAY),
    # One engine, or what needs none.
    "backplanes.redis": ("tests/backplanes/test_redis.py", "tests/backplanes/test_redis_urls.py"),
    "backplanes.kafka_places": ("tests/backplanes/test_kafka_places.py",),
}

# Tests that read the sources, and those that wait for time to pass.
LEFT_OUT = ("every_attribute_of_a_line", "one_place_closes_and_aborts", "only_slow", "within_the_lease", "sharded")
# With hubs, the engine in memory stands for all: the others are for their own folder.
ENGINES = ("redis", "broker")


def configuration(folder: str) -> str:
    """Return pyproject.toml for one folder."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    changes: dict[str, object] = {
        "only_mutate": [f"rawws/{folder.replace('.', '/')}*.py" if "." in folder else f"rawws/{folder}/*.py"],
        "pytest_add_cli_args_test_selection": list(TESTS[folder]),
    }
    if folder != "protocol":
        # Sockets and other processes are waited for, and the machine may do something else meanwhile.
        changes |= {"timeout_multiplier": 4.0, "timeout_constant": 30.0}
        names = " and ".join(f"not {name}" for name in LEFT_OUT + (ENGINES if folder == "topics" else ()))
        changes["pytest_add_cli_args"] = ["-p", "no:cacheprovider", "--hypothesis-profile=quick", "-k", names]
    for name, value in changes.items():
        text, count = re.subn(rf"(?m)^{name} = .*$", f"{name} = {json.dumps(value)}", text)
        if count != 1:
            raise SystemExit(f"pyproject.toml has {count} lines of {name}, needed is one")
    return text


def copy(folder: str) -> Path:
    """Copy what is needed for one folder, what is the same not once more; return where it is."""
    place = BUILD / folder
    for name in COPIED:
        for source in [ROOT / name] if (ROOT / name).is_file() else sorted((ROOT / name).rglob("*")):
            if source.is_dir() or source.suffix in {".so", ".pyc"} or "node_modules" in source.parts:
                continue
            target = place / source.relative_to(ROOT)
            data = configuration(folder).encode() if name == "pyproject.toml" else source.read_bytes()
            if not target.exists() or target.read_bytes() != data:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
                shutil.copystat(source, target)
                target.touch()
    return place


def mutmut(place: Path, *arguments: str) -> int:
    """Run mutmut on the interpreted twin; return its exit status."""
    command = [Path(sys.executable).with_name("mutmut"), *arguments]
    return subprocess.run(command, cwd=place, env={**os.environ, "RAWWS_PURE": "1"}, check=False).returncode


def results(place: Path) -> dict[str, int | None]:
    """Return all mutants, and what became of each: None where that is not known."""
    found: dict[str, int | None] = {}
    for meta in sorted((place / "mutants").rglob("*.meta")):
        found |= json.loads(meta.read_text(encoding="utf-8"))["exit_code_by_key"]
    return found


def draw(place: Path, pattern: str, count: int, seed: int) -> list[str]:
    """Return a sample of the mutants."""
    if not results(place):
        # It makes them all, sees which test reaches which, and finds none of this name.
        mutmut(place, "run", "none")
    names = [name for name in sorted(results(place)) if fnmatch.fnmatch(name, pattern)]
    return random.Random(seed).sample(names, min(count, len(names)))


def interval(noticed: int, tried: int) -> tuple[float, float]:
    """Return between which shares the true one is, in 19 of 20 samples (Wilson's score interval)."""
    z, share = 1.96, noticed / tried
    middle = share + z * z / (2 * tried)
    spread = z * math.sqrt(share * (1 - share) / tried + z * z / (4 * tried * tried))
    return (middle - spread) / (1 + z * z / tried), (middle + spread) / (1 + z * z / tried)


def report(place: Path, pattern: str, names: Collection[str]) -> None:
    """Print a line for each module, and one for each mutant that nothing noticed."""
    known = {name: code for name, code in results(place).items() if fnmatch.fnmatch(name, pattern)}
    found = {name: code for name, code in known.items() if name in names and code is not None}
    modules = Counter(name.rpartition(".")[0] for name in known)
    print("\n| module | mutants | tried | noticed | survive | not reached |\n|---|---:|---:|---:|---:|---:|")
    total = Counter[str]()
    for module, count in sorted(modules.items()):
        codes = [code for name, code in found.items() if name.rpartition(".")[0] == module]
        line = Counter(mutants=count, tried=len(codes), survive=codes.count(0), unreached=codes.count(33))
        total += line
        show(module.removeprefix("rawws."), line)
    show("all", total)
    if total["tried"] < total["mutants"] and total["tried"]:
        low, high = interval(total["tried"] - total["survive"] - total["unreached"], total["tried"])
        print(f"\nof all mutants, {low:.0%} to {high:.0%} are noticed (95 % confidence)")
    print(*sorted(f"\n{name}" for name, code in found.items() if code in {0, 33}), sep="")


def show(name: str, line: Counter[str]) -> None:
    """Print a line of the table."""
    noticed = line["tried"] - line["survive"] - line["unreached"]
    print(f"| `{name}` | {line['mutants']:,} | {line['tried']} | {noticed} | {line['survive']} | {line['unreached']} |")


def main() -> None:
    """Read the options, and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mutants", nargs="?", default="rawws.protocol.*", help="a pattern; the folder stands in it")
    parser.add_argument("--sample", type=int, help="how many of them are run, drawn at random")
    parser.add_argument("--seed", type=int, default=1, help="of the draw")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many at a time")
    options = parser.parse_args()
    # The longest: `backplanes.redis` is in `backplanes`.
    named = [name for name in TESTS if options.mutants.startswith(f"rawws.{name}{'' if '.' in name else '.'}")]
    folder = max(named, key=len, default="")
    if not folder:
        raise SystemExit(f"{options.mutants} names no folder, allowed are rawws.FOLDER.* of {', '.join(TESTS)}")
    place = copy(folder)
    run = ("run", "--max-children", str(options.jobs))
    if options.sample is not None:
        names = draw(place, options.mutants, options.sample, options.seed)
        # What is named runs once more, whatever is known of it.
        due = [name for name in names if results(place)[name] is None]
        status = mutmut(place, *run, *due) if due else 0
        report(place, options.mutants, names)
    else:
        whole = options.mutants == f"rawws.{folder}.*"
        status = mutmut(place, *run, *([] if whole else [options.mutants]))
        report(place, options.mutants, results(place))
    sys.exit(status)


if __name__ == "__main__":
    main()
