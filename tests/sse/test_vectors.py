"""What others' tests say of event streams: web-platform-tests, and those of eventsource-parser.

Written from what those tests send and assert; each has the name that it has there.
"""

from __future__ import annotations

import pytest

from rawws_sse import Decoder, Event
from tests.sse.streams import Feed, Outcome

XS = "x" * (2 * 1024 + 1)


def data(*values: str, last_event_id: str = "") -> list[Event]:
    return [Event(value, id=last_event_id) for value in values]


# web-platform-tests, folder eventsource. Where it does not say "newline=none", resources/message.py ends with two LF.
WEB_PLATFORM_TESTS = {
    "format-bom": ("\ufeffdata:1\n\n\ufeffdata:2\n\ndata:3\n\n", data("1", "3")),
    "format-bom-2": ("\ufeff\ufeffdata:1\n\ndata:2\n\ndata:3\n\n", data("2", "3")),
    "format-comments": (
        f"data:1\r:\0\n:\r\ndata:2\n:{XS}\rdata:3\n:data:fail\r:{XS}\ndata:4\n\n",
        data("1\n2\n3\n4"),
    ),
    "format-data-before-final-empty-line": ("retry:1000\ndata:test1\n\nid:test\ndata:test2", data("test1")),
    "format-field-data": ("data:\n\ndata\ndata\n\ndata:test\n\n", data("", "\n", "test")),
    "format-field-event": ("event:test\ndata:x\n\ndata:x\n\n", [Event("x", "test", ""), Event("x", id="")]),
    "format-field-event-empty": ("event: \ndata:data\n\n", data("data")),
    "format-field-id": ("id: …\nretry: 200\ndata: hello\n\n", data("hello", last_event_id="…")),
    "format-field-id-3 (persists)": (
        "id: 1\ndata: 1\n\ndata:2\n\nid: 2\ndata:3\n\ndata:4\n\n",
        data("1", "2", last_event_id="1") + data("3", "4", last_event_id="2"),
    ),
    "format-field-id-3 (resets)": (
        "id: 1\ndata: 1\n\nid:\ndata:2\n\ndata:3\n\n",
        data("1", last_event_id="1") + data("2", "3"),
    ),
    "format-field-id-3 (resets, without colon)": (
        "id: 1\ndata: 1\n\nid\ndata:2\n\ndata:3\n\n",
        data("1", last_event_id="1") + data("2", "3"),
    ),
    "format-field-parsing": (
        "data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nda-ta:3\rdata_5\ndata:3\rdata:\r\n data:32\ndata:4\n\n",
        data("\0\n 2\n1\n3\n\n4"),
    ),
    "format-field-retry": ("retry:03000\ndata:x\n\n", data("x")),
    "format-field-retry-bogus": ("retry:3000\nretry:1000x\ndata:x\n\n", data("x")),
    "format-field-retry-empty": ("retry\ndata:test\n\n", data("test")),
    "format-field-unknown": (
        "data:test\n data\ndata\nfoobar:xxx\njustsometext\n:thisisacommentyay\ndata:test\n\n",
        data("test\n\ntest"),
    ),
    "format-leading-space": ("data:\ttest\rdata: \ndata:test\n\n", data("\ttest\n\ntest")),
    "format-newlines": ("data:test\r\ndata\ndata:test\r\n\r", data("test\n\ntest")),
    "format-null-character": ("data:\0\n\n\n\n", data("\0")),
    "format-utf-8": ("data:ok…\n\n", data("ok…")),
    "event-data": (
        "data:msg\ndata: msg\n\n:\nfalsefield:msg\n\nfalsefield:msg\nData:data\n\ndata\n\ndata:end\n\n",
        data("msg\nmsg", "", "end"),
    ),
}
RETRIES = {
    "format-data-before-final-empty-line": 1000,
    "format-field-id": 200,
    "format-field-retry": 3000,
    "format-field-retry-bogus": 3000,
}


@pytest.mark.parametrize("name", WEB_PLATFORM_TESTS)
def test_web_platform_tests(feed: Feed, name: str) -> None:
    stream, events = WEB_PLATFORM_TESTS[name]
    outcome = feed(stream.encode())
    assert (outcome.events, outcome.retry) == (events, RETRIES.get(name))


def test_web_platform_tests_format_field_id_2_over_three_connections() -> None:
    # Each request but the first has the Last-Event-ID, and is answered with it as data alone.
    decoder = Decoder()
    assert decoder.receive("id: …\nretry: 200\ndata: hello\n\n".encode()) == data("hello", last_event_id="…")
    for _ in range(2):
        decoder.receive_eof()
        assert decoder.receive(f"data: {decoder.last_event_id}\n\n".encode()) == data("…", last_event_id="…")


@pytest.mark.parametrize("value", ["\0\0", "x\0", "\0x", "x\0x", " \0"])
def test_web_platform_tests_format_field_id_null(feed: Feed, value: str) -> None:
    assert feed(f"id: {value}\nretry: 200\ndata: hello\n\n".encode()) == Outcome(data("hello"), retry=200)


DONE = "event: done\ndata: ✔\n\n"
# eventsource-parser, test/parse.test.ts and test/fixtures.ts: the pieces that are fed, and what comes of them.
EVENTSOURCE_PARSER: dict[str, tuple[list[str], list[Event]]] = {
    "basic unnamed events stream": (
        [*(f"data: {number}\n\n" for number in range(5)), DONE],
        [*data(*"01234"), Event("✔", "done", "")],
    ),
    "stream of identified messanges + retry interval": (
        [f"event: tick\nid: {number}\nretry: 50\ndata: {number}\n\n" for number in (1337, 1338)],
        [Event("1337", "tick", "1337"), Event("1338", "tick", "1338")],
    ),
    'stream of "heartbeat" comments, unnamed events': (
        [f"{part}" for letter in "ABCDE" for part in (":  ♥\n\n", f"data: {letter}\n\n")],
        data(*"ABCDE"),
    ),
    "stream of multi-line data events": (
        ["event: stock\n", "data: YHOO\n", "data: +2\n", "data: 10\n\n", "event: stock\ndata: GOOG\ndata: -8\n\n"],
        [Event("YHOO\n+2\n10", "stock", ""), Event("GOOG\n-8", "stock", "")],
    ),
    "stream of multi-byte events with some empty lines thrown in": (
        ["\n\n\n\nid: 1\ndata: 我現在都看實況不玩遊戲\n\n", DONE],
        [Event("我現在都看實況不玩遊戲", id="1"), Event("✔", "done", "1")],
    ),
    "stream of leading bom": (["\ufeffdata: bomful 1\n\n", "data: bomless 2\n\n"], data("bomful 1", "bomless 2")),
    "stream containing byte-order mark (multiple places)": (
        ["\ufeffdata: bomful 1\n\n", "\ufeffdata: bomful 2\n\n", "data: bomless 3\n\n"],
        data("bomful 1", "bomless 3"),
    ),
    "stream using carriage returns": (
        ["data: dog\r", "data: bark\r\r", "data: cat\r", "data: meow\r\r"],
        data("dog\nbark", "cat\nmeow"),
    ),
    "stream using line feeds": (
        ["data: cow\n", "data: moo\n\n", "data: horse\n", "data: neigh\n\n"],
        data("cow\nmoo", "horse\nneigh"),
    ),
    "stream using carriage returns and line feeds": (
        ["data: sheep\r\n", "data: bleat\r\n\r\n", "data: pig\r\n", "data: oink\r\n\r\n"],
        data("sheep\nbleat", "pig\noink"),
    ),
    "stream with varying odd uses of comments": (
        [
            ": Hello\n\n",
            ":" * 300,
            "\n",
            "data: First\n\n",
            ": Первый",
            ": 第二",
            "\n",
            "data: Second\n\n",
            ": Moop \n",
        ],
        data("First", "Second"),
    ),
    "stream with even more odd uses of comments": (
        ["data:1\r\r:\0\n:\r\ndata:2\n\n:", XS, "\rdata:3\n\n:data:fail\r:", XS, "\ndata:4\n\n", "data:5"],
        data(*"1234"),
    ),
    "stream with empty `event` field": (
        ["event:\ndata: Hello 1\n\n", "event:\n\n", DONE],
        [Event("Hello 1", id=""), Event("✔", "done", "")],
    ),
    "stream with oddly shaped data field": (["data:\n\ndata\ndata\n\ndata:test\n\n"], data("", "\n", "test")),
    "stream with cr separating chunks of same event": (
        ["data: A\r\n", "data: B\r", "\n", "data: C\r\n", "\n"],
        data("A\nB\nC"),
    ),
    "stream with `id` field containing a NULL character": (
        ["id: 123\nid: bad\0id\ndata: hello\n\n"],
        data("hello", last_event_id="123"),
    ),
    "stream with unknown fields in the stream": (
        ["data:abc\n data\ndata\nfoobar:xxx\njustsometext\n:thisisacommentyay\ndata:123\n\n"],
        data("abc\n\n123"),
    ),
    "a blank cr line ending a chunk dispatches the pending event exactly once": (
        ["data: one\r", "\r", "\n"],
        data("one"),
    ),
    "bare field lines terminated by a cr at a chunk boundary are processed, not discarded": (
        ["data: one\ndata\r", "\ndata: two\n\n"],
        data("one\n\ntwo"),
    ),
    "discarded lines consume a crlf split across chunks as one line terminator": (
        ["data: one\n:", "ignored\r", "\ndata: two\n\n"],
        data("one\ntwo"),
    ),
}


@pytest.mark.parametrize("name", EVENTSOURCE_PARSER)
def test_eventsource_parser(feed: Feed, name: str) -> None:
    pieces, events = EVENTSOURCE_PARSER[name]
    decoder = Decoder()
    assert [event for piece in pieces for event in decoder.receive(piece.encode())] == events
    if sum(map(len, pieces)) < 1000:
        assert feed("".join(pieces).encode()).events == events
