"""An oracle: `eventsource-parser`, run by node, finds the same events in the same pieces.

It is one process for all streams. Where the two differ, and the standard decides, DIFFERENCES says how.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rawws_sse import Event, encode
from tests.processes import ROOT, MissingComponentError, find_node
from tests.sse.streams import Outcome, bytewise, cut, events, examples, fed, streams, texts

NODE = ROOT / "tests" / "interop" / "node"


class Theirs(NamedTuple):
    """What they find: an event has no id where its block has none."""

    events: list[Event]
    retry: int | None


Oracle = Callable[[list[bytes]], Theirs]


@pytest.fixture(scope="session")
def oracle() -> Iterator[Oracle]:
    if not (NODE / "node_modules" / "eventsource-parser").is_dir():
        raise MissingComponentError(f"the packages of node are not installed: npm ci --prefix {NODE.relative_to(ROOT)}")
    process = subprocess.Popen(
        [find_node(), NODE / "parse_events.mjs"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None

        def ask(pieces: list[bytes]) -> Theirs:
            print(json.dumps([piece.hex() for piece in pieces]), file=process.stdin, flush=True)
            answer: Any = json.loads(process.stdout.readline())  # type: ignore[union-attr]
            return Theirs([Event(**event) for event in answer["events"]], answer["retry"])

        try:
            yield ask
        finally:
            process.terminate()


def agree(ours: Outcome, theirs: Theirs) -> bool:
    """Whether both found the same, as far as they tell."""
    return (
        len(ours.events) == len(theirs.events)
        and all(
            (our.data, our.event) == (their.data, their.event) and their.id in {None, our.id}
            for our, their in zip(ours.events, theirs.events, strict=True)
        )
        and ours.retry == theirs.retry
    )


@examples(500)
@given(data=st.data(), stream=streams())
def test_the_oracle_finds_the_same_events_in_any_bytes(oracle: Oracle, data: st.DataObject, stream: bytes) -> None:
    assume(not any(stream.startswith(beginning) for beginning in ("ï»¿".encode(), "\ufeffï»¿".encode())))
    pieces = data.draw(cut(stream))
    theirs = oracle(pieces)
    assert agree(fed(pieces), theirs)
    assert oracle(bytewise(stream)) == oracle([stream]) == theirs


@examples(200)
@given(sent=st.lists(events(texts | st.none()), max_size=5))
def test_the_oracle_reads_what_is_encoded(oracle: Oracle, sent: list[Event]) -> None:
    pieces = [encode(event) for event in sent]
    theirs = oracle(pieces)
    assert agree(fed(pieces), theirs)
    assert [event.id for event in theirs.events] == [event.id for event in sent if event.data is not None]


class Difference(NamedTuple):
    stream: bytes
    ours: list[Event]
    theirs: list[Event]


DIFFERENCES = {
    # 9.2.6: "The buffer does not get reset, so the last event ID string of the event source remains set to this value
    # until the next time it is set by the server.": theirs leaves that to who uses it,
    "an id stays for the events that follow": Difference(
        b"id: 1\ndata: a\n\ndata: b\n\n",
        [Event("a", id="1"), Event("b", id="1")],
        [Event("a", id="1"), Event("b")],
    ),
    # and does not tell of an id without data, although "Set the last event ID string" comes before "If the data buffer
    # is an empty string [...] return.".
    "an id counts in a block without data": Difference(
        b"id: 1\n\ndata: a\n\n",
        [Event("a", id="1")],
        [Event("a")],
    ),
    # "The UTF-8 decode algorithm strips one leading UTF-8 Byte Order Mark (BOM), if any.": theirs reads text, and takes
    # three characters for the three bytes.
    "three characters are no byte order mark": Difference(
        "ï»¿data: a\n\ndata: b\n\n".encode(),
        [Event("b", id="")],
        [Event("a"), Event("b")],
    ),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_the_oracle_differs_where_we_know_it(oracle: Oracle, name: str) -> None:
    difference = DIFFERENCES[name]
    assert fed([difference.stream]).events == difference.ours
    assert oracle([difference.stream]).events == difference.theirs


def test_the_oracle_keeps_a_last_cr_back_and_we_do_not(oracle: Oracle) -> None:
    # The script feeds one more line at the end, so that the last event comes out there too.
    assert fed([b"data: a\r\r"]).events == [Event("a", id="")]
    assert oracle([b"data: a\r\r"]).events == [Event("a")]
