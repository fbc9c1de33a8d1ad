"""Autobahn: run the conformance suite's 517 cases against a WebSocket server or client, and say what it says.

    python tests/autobahn/run.py                             our server: compiled, or interpreted without a compiler
    python tests/autobahn/run.py --pure --cases 1-7,10       the interpreted twin, without the large cases
    python tests/autobahn/run.py --suite original            Autobahn itself (Python 2.7) instead of kosoku
    python tests/autobahn/run.py --role client               our client against the suite's server
    python tests/autobahn/run.py --http2 --cases 1-7,10      our server through a tunnel of HTTP/2 (RFC 8441)
    python tests/autobahn/run.py --engine asyncio            our server on the loop's transports
    python tests/autobahn/run.py --peer websockets           another library, to compare

kosoku drives Autobahn's own case files from Python 3 and is several times as fast. The exit status is 0 only if every
case of the selection ran once, was OK and was closed right (three cases can only be INFORMATIONAL), and the peer logged
no traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.autobahn import kosoku_suite, original_suite, verdicts
from tests.compiled import refuse
from tests.processes import LOOPBACK, ROOT, MissingComponentError, Process, ProcessError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.autobahn.verdicts import Outcome

HERE: Final = Path(__file__).resolve().parent
REPORTS: Final = ROOT / "reports" / "autobahn"

# The heaviest phase takes 200 s with kosoku against a slow server, 400 s with the original.
PHASE_TIMEOUT: Final = 1800.0
TRACEBACK: Final = "Traceback (most recent call last)"
TRACEBACK_LIMIT: Final = 3000


class Suite(Protocol):
    """What the two suites' modules offer."""

    def against_servers(
        self, lanes: Sequence[list[str]], uris: Sequence[str], jobs: int, report: Path, timeout: float, /
    ) -> list[Outcome]:
        """Run each lane of cases against the server at its URI."""

    def against_clients(
        self, lanes: Sequence[list[str]], start_client: Callable[[str], Process], report: Path, timeout: float, /
    ) -> list[Outcome]:
        """Offer each lane of cases to a client of its own."""


SUITES: Final[dict[str, Suite]] = {"kosoku": kosoku_suite, "original": original_suite}


class Phase(NamedTuple):
    """Groups that run together: in so many lanes, each with a peer of its own, so many cases of a lane at a time."""

    name: str
    groups: frozenset[int]
    lanes: int
    jobs: int


PHASES: Final = (
    # They wait (up to 2 s) rather than work, so they gain by company. Nothing heavier runs beside them: a verdict here
    # may depend on a second.
    Phase("quick", frozenset({1, 2, 3, 4, 5, 6, 7, 10}), 1, 16),
    # Large messages and many fragments, 2 s in all.
    Phase("large", frozenset({9}), 1, 2),
    # Minutes of compression: one lane for each of the two processors that we reckon with, one lane's server at work
    # while the other's answer is checked.
    Phase("deflate", frozenset({12, 13}), 2, 1),
)


@final
class Run:
    """One run of the suite: what was asked for, and what came of it."""

    __slots__ = ("cases", "options", "outcomes", "peer", "problems")

    def __init__(self, options: argparse.Namespace, cases: list[str]) -> None:
        self.options: Final = options
        self.cases: Final = cases
        self.outcomes: list[Outcome] = []
        self.problems: list[str] = []
        self.peer = options.uri or ""

    def execute(self) -> None:
        """Run the cases phase by phase."""
        for phase in PHASES:
            members = [case_id for case_id in self.cases if verdicts.group_of(case_id) in phase.groups]
            lanes = [lane for lane in (members[start :: phase.lanes] for start in range(phase.lanes)) if lane]
            if lanes and self.options.role == "server":
                self.outcomes += self._against_servers(phase, lanes)
            elif lanes:
                self.outcomes += self._against_clients(phase, lanes)

    def faults(self) -> list[str]:
        """Return what went wrong besides the verdicts: the peer's own faults, cases that did not run."""
        return [*self.problems, *verdicts.missing(self.cases, self.outcomes)]

    def failures(self) -> list[str]:
        """Return everything that keeps this run from having passed."""
        flawed = [(outcome, ", ".join(verdicts.flaws(outcome))) for outcome in self.outcomes]
        cases = [f"{outcome.case_id} {flaws}: {outcome.reason}" for outcome, flaws in flawed if flaws]
        return [*self.faults(), *cases]

    def _against_servers(self, phase: Phase, lanes: list[list[str]]) -> list[Outcome]:
        suite = SUITES[self.options.suite]
        report = REPORTS / f"server-{phase.name}"
        if self.options.uri:
            return suite.against_servers(lanes, [self.options.uri] * len(lanes), phase.jobs, report, PHASE_TIMEOUT)
        with contextlib.ExitStack() as stack:
            more = ["--http2"] if self.options.http2 else []
            more += ["--engine", self.options.engine] if self.options.engine else []
            servers = [
                stack.enter_context(self._start("server.py", "--style", self.options.style, *more)) for _ in lanes
            ]
            tunnels = [stack.enter_context(_tunnel(server)) for server in servers if self.options.http2]
            uris = [f"ws://{LOOPBACK}:{end.port}" for end in tunnels or servers]
            outcomes = suite.against_servers(lanes, uris, phase.jobs, report, PHASE_TIMEOUT)
            self._inspect(servers)
            for tunnel in tunnels:
                self._search("tunnel", tunnel)
        return outcomes

    def _against_clients(self, phase: Phase, lanes: list[list[str]]) -> list[Outcome]:
        clients: list[Process] = []

        def start(uri: str) -> Process:
            clients.append(self._start("client.py", uri, "--jobs", str(phase.jobs)))
            return clients[-1]

        report = REPORTS / f"client-{phase.name}"
        outcomes = SUITES[self.options.suite].against_clients(lanes, start, report, PHASE_TIMEOUT)
        self._inspect(clients)
        return outcomes

    def _start(self, program: str, *arguments: str) -> Process:
        command = [sys.executable, HERE / program, *arguments, "--peer", self.options.peer, "--loop", self.options.loop]
        twin = {"RAWWS_PURE": "1" if self.options.pure else ""}
        return Process(command, listens=program == "server.py", env=twin)

    def _inspect(self, processes: list[Process]) -> None:
        """Note what the peers say of themselves, each that failed, and what each logged that it must not."""
        for process in processes:
            description = process.output.partition("\n")[0]
            if self.peer not in {"", description}:
                self.problems.append(f"the peer of one phase was {self.peer}, of another {description}")
            self.peer = description
            self._search("peer", process)

    def _search(self, name: str, process: Process) -> None:
        if process.poll() not in {None, 0}:
            self.problems.append(f"the {name} ended with status {process.poll()}")
        if (start := process.output.find(TRACEBACK)) >= 0:
            self.problems.append(f"the {name} logged {process.output[start : start + TRACEBACK_LIMIT]}")


def _tunnel(server: Process) -> Process:
    """Start what carries WebSockets over one connection of HTTP/2 to a server."""
    return Process([sys.executable, "-m", "tests.autobahn.tunnel", str(server.port)], listens=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", choices=SUITES, default="kosoku", help="who drives the cases (default: %(default)s)")
    parser.add_argument("--role", choices=("server", "client"), default="server", help="of the peer that is tested")
    parser.add_argument("--cases", default="1-13", help="groups, ranges of groups, cases or prefixes: 1-7,10,9.3,6.4.1")
    parser.add_argument("--pure", action="store_true", help="run the interpreted twin (RAWWS_PURE=1)")
    parser.add_argument("--style", choices=("coroutine", "callback"), default="coroutine", help="of our handler")
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop", help="event loop of the peer")
    parser.add_argument("--peer", default="rawws", help="the library that is tested (see server.py and client.py)")
    parser.add_argument("--http2", action="store_true", help="have all cases come over one connection of HTTP/2")
    parser.add_argument("--engine", choices=("asyncio", "epoll"), help="of our server's sockets (default: its own)")
    parser.add_argument("--uri", help="test the server at this address instead of starting one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the verdicts to FILE too")
    return parser


def main() -> int:
    """Run the suite, print the table, and return the exit status."""
    parser = _parser()
    options = parser.parse_args()
    if options.uri and options.role == "client":
        parser.error("--uri is the address of a server, it does not go with --role client")
    if options.http2 and (options.uri or options.role == "client" or options.peer != "rawws"):
        parser.error("--http2 is for our own server, it goes with no --uri, --peer and --role client")
    if options.engine and (options.uri or options.role == "client" or options.peer != "rawws"):
        parser.error("--engine is for our own server, it goes with no --uri, --peer and --role client")
    if options.peer == "rawws" and not options.pure and not options.uri:
        refuse()
    try:
        run = Run(options, verdicts.select(options.cases, kosoku_suite.every_case()))
    except verdicts.SelectionError as error:
        parser.error(str(error))
    started = time.monotonic()
    try:
        run.execute()
    except (MissingComponentError, ProcessError, TimeoutError) as error:
        run.problems.append(str(error) or f"the suite did not end within {PHASE_TIMEOUT} s")
    failures = run.failures()
    for line in _summary(run, failures, time.monotonic() - started):
        print(line)
    if options.json:
        verdict = {"peer": run.peer, "failures": failures, "outcomes": [outcome._asdict() for outcome in run.outcomes]}
        options.json.write_text(json.dumps(verdict, indent=1))
    return 1 if failures else 0


def _summary(run: Run, failures: list[str], seconds: float) -> Iterator[str]:
    yield verdicts.table(run.outcomes)
    yield from (f"NOT PASSED: {failure}" for failure in run.faults())
    usage = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    cpu = sum(used.ru_utime + used.ru_stime for used in usage)
    ran = f"{len(run.outcomes)} of {len(run.cases)} cases ran in {seconds:.0f} s ({cpu:.0f} s of processor time)"
    yield f"{run.options.suite} suite, {run.options.role} under test: {run.peer}"
    yield f"{ran}: {f'NOT PASSED, {len(failures)} failures' if failures else 'passed'}"


if __name__ == "__main__":
    sys.exit(main())
