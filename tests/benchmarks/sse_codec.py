"""`python -m tests.benchmarks.sse_codec`: rawws_sse against the encoder of sse-starlette and the decoder of httpx-sse.

Both run in this process, in turns of some milliseconds, so that what the machine does meanwhile meets both. What is
printed is the CPU time of an event in the best turn, and the median of the ratios of all rounds. First the results are
compared.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any, NamedTuple

# httpx_sse has no public decoder: these are what its EventSource.iter_sse hands the response to.
from httpx._decoders import TextDecoder
from httpx_sse import ServerSentEvent as Received
from httpx_sse._decoders import SSEDecoder, SSELineDecoder
from sse_starlette.event import ServerSentEvent

import rawws_sse.decoder
from rawws_sse import Decoder, Event, encode

__all__ = ["CASES", "Case", "Result", "measure"]

TURN = 0.004  # seconds
EVENTS = 200  # of the stream that is decoded
PIECE = 4096  # bytes

JSON = '{"symbol": "ABC", "price": 10.25, "time": 1234567890}'
KINDS: dict[str, dict[str, Any]] = {
    "data": {"data": JSON},
    "data, event, id": {"data": JSON, "event": "tick", "id": "12345"},
    "five lines": {"data": "\n".join(["a line of text"] * 5)},
}


class Case(NamedTuple):
    """What both do with so many events, and what both results shall be equal in."""

    name: str
    theirs: Callable[[], Any]
    ours: Callable[[], Any]
    events: int
    seen: Callable[[Any], object]


class Result(NamedTuple):
    """Microseconds of CPU for an event, and how many times as long theirs takes, in the median round."""

    name: str
    theirs: float
    ours: float
    ratio: float


def decode_theirs(pieces: Sequence[bytes]) -> list[Received]:
    text, lines, decoder = TextDecoder(), SSELineDecoder(), SSEDecoder()
    return [
        event
        for piece in pieces
        for line in lines.decode(text.decode(piece))
        if (event := decoder.decode(line)) is not None
    ]


def decode_ours(pieces: Sequence[bytes]) -> list[Event]:
    receive = Decoder().receive
    return [event for piece in pieces for event in receive(piece)]


def seen_by_a_client(encoded: bytes) -> object:
    """Line ends and the order of fields are free."""
    return Decoder().receive(encoded)


def seen_in_events(events: Sequence[Event | Received]) -> object:
    return [(event.data, event.event or "message", event.id) for event in events]


def encoding(kind: str) -> Case:
    theirs, ours = ServerSentEvent(**KINDS[kind]), Event(**KINDS[kind])
    return Case(f"encode {kind}", theirs.encode, partial(encode, ours), 1, seen_by_a_client)


def decoding(kind: str, ends: str, encoded: bytes, size: int) -> Case:
    whole = encoded * EVENTS
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    how = "one event a piece" if size == len(encoded) else f"pieces of {size}"
    name = f"decode {kind}; {ends}, {how}"
    return Case(name, partial(decode_theirs, pieces), partial(decode_ours, pieces), EVENTS, seen_in_events)


CASES = [encoding(kind) for kind in KINDS] + [
    decoding(kind, ends, encoded, size)
    for kind, fields in KINDS.items()
    for ends, encoded in (("LF", encode(Event(**fields))), ("CRLF", ServerSentEvent(**fields).encode()))
    for size in (len(encoded), PIECE)
]


def turn(call: Callable[[], Any], times: int) -> float:
    began = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - began) / times


def measure(case: Case, rounds: int) -> Result:
    """Measure a case; raise ValueError where the results differ."""
    if case.seen(case.theirs()) != case.seen(case.ours()):
        raise ValueError(f"{case.name}: the results differ")
    calls = (case.theirs, case.ours)
    times = [max(1, round(TURN / turn(call, 20))) for call in calls]
    took = [
        [turn(call, count) / case.events * 1e6 for call, count in zip(calls, times, strict=True)] for _ in range(rounds)
    ]
    theirs, ours = (min(column) for column in zip(*took, strict=True))
    return Result(case.name, theirs, ours, statistics.median(theirs / ours for theirs, ours in took))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.sse_codec", description=__doc__)
    parser.add_argument("--rounds", type=int, default=50, help="turns of each (default: %(default)s)")
    rounds = parser.parse_args().rounds
    twin = "interpreted" if str(rawws_sse.decoder.__file__).endswith(".py") else "compiled"
    print(
        f"rawws_sse {twin}, sse-starlette {version('sse-starlette')}, httpx-sse {version('httpx-sse')}, us of an event"
    )
    print(f"{'':52}{'theirs':>8}{'ours':>8}{'ratio':>8}")
    for case in CASES:
        result = measure(case, rounds)
        print(f"{result.name:52}{result.theirs:8.3f}{result.ours:8.3f}{result.ratio:8.1f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
