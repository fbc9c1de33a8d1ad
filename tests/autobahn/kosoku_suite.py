"""kosoku: Autobahn's own case files, translated to Python 3 and driven by a runner in Rust; several cases at a time.

Importing its cases changes `binascii` and `sys.path`, so only `run.py`, a process of its own, imports this module.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from kosoku import FailureError, run_fuzzingclient, run_fuzzingserver
from kosoku.cases import CASES

from tests.autobahn.verdicts import Outcome, group_of
from tests.processes import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from kosoku._kosoku import CaseResult

    from tests.processes import Process

POLL_INTERVAL: Final = 0.02

# Autobahn's cases for permessage-deflate take a message for octets. kosoku hands them octets if it came compressed, but
# if not, as from us under our threshold, a str: the text, or a character for each octet. They would end as ERROR.
DEFLATE_GROUPS: Final = frozenset({12, 13})

__all__ = ["against_clients", "against_servers", "every_case"]


def every_case() -> list[str]:
    """Return the ids of all the cases, in the order of the suite; the original has the same."""
    return list(CASES)


def _accept_uncompressed(case: Any) -> None:
    """Let a case take messages that came uncompressed."""
    on_message = case.onMessage

    def on_octets(self: object, message: str | bytes, binary: bool) -> None:
        if isinstance(message, str):
            message = message.encode("latin-1" if binary else "utf-8")
        on_message(self, message, binary)

    case.onMessage = on_octets


for _case_id, _case in CASES.items():
    if group_of(_case_id) in DEFLATE_GROUPS:
        _accept_uncompressed(_case)


def against_servers(
    lanes: Sequence[list[str]], uris: Sequence[str], jobs: int, _report: Path, timeout: float
) -> list[Outcome]:
    """Run each lane of cases against the server at its URI, all lanes at once, `jobs` cases of a lane at a time."""

    async def run() -> list[list[Outcome]]:
        async with asyncio.timeout(timeout):
            runs = (_against_server(lane, uri, jobs) for lane, uri in zip(lanes, uris, strict=True))
            return await asyncio.gather(*runs)

    return [outcome for lane in asyncio.run(run()) for outcome in lane]


async def _against_server(cases: list[str], uri: str, jobs: int) -> list[Outcome]:
    try:
        results = await run_fuzzingclient(uri, cases, concurrency=jobs)
    except FailureError as failure:  # its results are those of all cases
        results = failure.results
    return [_outcome(result) for result in results]


def against_clients(
    lanes: Sequence[list[str]], start_client: Callable[[str], Process], _report: Path, timeout: float
) -> list[Outcome]:
    """Offer each lane of cases to a client of its own, which `start_client` starts for a URI, all lanes at once."""

    async def run() -> list[list[Outcome]]:
        async with asyncio.timeout(timeout):
            return await asyncio.gather(*(_against_client(lane, start_client) for lane in lanes))

    return [outcome for lane in asyncio.run(run()) for outcome in lane]


async def _against_client(cases: list[str], start_client: Callable[[str], Process]) -> list[Outcome]:
    async with run_fuzzingserver(cases, host=LOOPBACK, port=0) as server:
        with start_client(f"ws://{LOOPBACK}:{server.port}") as client:
            while client.poll() is None:  # noqa: ASYNC110 - a process is no event of the loop
                await asyncio.sleep(POLL_INTERVAL)
            client.result(0)
        try:
            results = await server.get_result()
        except FailureError as failure:
            results = failure.results
    return [_outcome(result) for result in results]


def _outcome(result: CaseResult) -> Outcome:
    behavior, behavior_close = result.behavior.value, result.behavior_close.value
    reason = result.result_close if behavior == "OK" else result.result
    return Outcome(result.case_id, behavior, behavior_close, result.remote_close_code, result.duration, reason)
