"""Heads and bodies against h11 and httptools (llhttp).

Invariant: a request or a response that is accepted here is accepted by both, with the same start and the same fields;
llhttp needs to know the method, and to see no tab behind a transfer coding. A chunked body that is accepted here is the
same body, with the same rest, to h11.
Where we are the stricter ones, tests/protocol/test_heads_differential.py says why.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import h11

from fuzz.heads import REQUEST_SEEDS, REQUEST_WORDS, RESPONSE_SEEDS, RESPONSE_WORDS, Parser, Seen
from fuzz.target import Target, seed, short
from fuzz.targets.bodies import OCTETS, Reader
from fuzz.targets.bodies import WORDS as BODY_WORDS
from tests.protocol.test_heads_differential import TAB, h11_sees, httptools_sees

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuzz.twins import Twin

# What the octet that chooses the settings says.
REQUEST, RESPONSE, BODY = 0, 0x40, 0x80
METHODS = {"GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE"}


# What h11 reads in a trailer section as if it were a head; we read nothing there, as RFC 9112 7.1.2 allows.
FRAMING = re.compile(rb"(?i)(content-length|transfer-encoding):")


def lower(fields: Any) -> list[tuple[str, str]]:
    """Return fields with what has no case in lower case: names, and the coding that h11 writes so."""
    lowered = ((name.lower(), value) for name, value in fields)
    return [(name, value.lower() if name == "transfer-encoding" else value) for name, value in lowered]


def compare_heads(seen: Seen, head: bytes, *, response: bool) -> None:
    """Check that both others see the same."""
    others = [h11_sees(head, response=response)]
    if response or (seen.start[0] in METHODS and not TAB.search(head)):
        others.append(httptools_sees(head, response=response))
    fields = lower(seen.fields)
    start = (seen.start[2], seen.start[0], seen.start[1]) if response else seen.start
    for other in others:
        assert other is not None, ("accepted here alone", seen)
        if not response and not other.start[1].startswith(("/", "*")):
            # An absolute-form target, which was taken apart here.
            assert other.start[1].endswith(seen.start[1]) or seen.start[1][:2] in {"/", "/?"}, (seen, other)
            others_fields = lower(other.fields)
            assert {name for name, _ in fields} - {"host"} == {name for name, _ in others_fields} - {"host"}, other
            continue
        assert other.start == start, (seen, other)
        assert lower(other.fields) == fields, (seen, other)


def h11_body(octets: bytes) -> tuple[bytes, bytes] | None:
    """Return the body and the rest as h11 sees them, None if it refuses them or needs more."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + octets)
    body = b""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return body, connection.trailing_data[0]
            elif not isinstance(event, h11.Request):
                return None
    except h11.RemoteProtocolError:
        return None


def make(twin: Twin) -> Callable[[bytes], object]:
    """Return the function that compares."""
    parsers = {response: Parser(twin, response=response) for response in (False, True)}
    reader = Reader(twin)

    def check(data: bytes) -> object:
        if len(data) < 2:
            return None
        octets = data[2:]
        if data[0] & BODY:
            outcome = reader.read([octets], 0)
            if outcome.done and not FRAMING.search(octets):
                theirs = h11_body(octets)
                assert theirs == (outcome.body, outcome.rest), (theirs, outcome)
            return BODY, outcome.done, outcome.error and short(outcome.error[1])
        response = data[0] & RESPONSE != 0
        head, seen = parsers[response].parse([octets], 0)
        if head is None:
            return response, seen.error and short(seen.error[1])
        compare_heads(seen, octets.removesuffix(seen.rest), response=response)
        return response, seen.start[-1], len(seen.fields) > 3

    return check


SEEDS = [bytes((REQUEST, 0)) + octets[2:] for octets in REQUEST_SEEDS[: len(REQUEST_SEEDS) // 2]]
SEEDS += [bytes((RESPONSE, 0)) + octets[2:] for octets in RESPONSE_SEEDS[::3]]
SEEDS += [seed(octets, BODY, 0) for octets in OCTETS]
TARGET = Target(make, SEEDS, [*REQUEST_WORDS, *RESPONSE_WORDS, *BODY_WORDS], max_length=700)
