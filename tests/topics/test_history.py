"""History: what is held is bounded, and what is missed is told exactly or not at all."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rawws.net.prepared import PreparedMessage
from rawws.protocol.connection import Role
from rawws.protocol.deflate import DeflateParameters
from rawws.topics import CursorError, History, Hub
from rawws.topics.cursors import cursor_of, cursors_of, join_cursors, parse_cursor
from rawws.topics.envelope import render
from rawws.topics.history import HELD_COST, TOPIC_COST, HistoryStore, Log, Publication
from rawws.topics.subscribers import event_data
from tests.protocol.wire import deflate_for
from tests.topics.receivers import Clock, Receiver, still

LARGE = History(1000, 1 << 30, 1e9, 1 << 40)


def log(bounds: History = LARGE) -> Log:
    return Log("topic", HistoryStore(bounds))


def messages(of: Log, cursor: str) -> list[str | bytes] | None:
    """What came since a cursor, None where that is not known."""
    missed = of.since(cursor)
    assert missed.recovered or not missed.publications
    return [publication.message for publication in missed.publications] if missed.recovered else None


def test_what_came_since_each_cursor_is_exactly_what_followed_it() -> None:
    kept = log()
    cursors = [kept.cursor]
    for number in range(10):
        cursors.append(kept.append(PreparedMessage(str(number))).cursor)
    for number, cursor in enumerate(cursors):
        assert messages(kept, cursor) == [str(each) for each in range(number, 10)]
    assert messages(kept, "earliest") == [str(each) for each in range(10)]


def test_offsets_are_one_more_each_and_begin_with_one() -> None:
    kept = log()
    assert [kept.append(PreparedMessage("")).offset for _ in range(3)] == [1, 2, 3]


@given(
    count=st.integers(0, 8),
    size=st.integers(0, 8 * HELD_COST),
    age=st.floats(0, 20),
    steps=st.lists(st.tuples(st.integers(0, 700), st.floats(0, 10)), max_size=30),
    asked=st.integers(0, 40),
)
def test_the_bounds_hold_and_what_is_missed_is_exact_or_unknown(
    count: int, size: int, age: float, steps: list[tuple[int, float]], asked: int
) -> None:
    with still() as clock:
        kept = log(History(count, size, age, 1 << 40))
        sent: list[tuple[float, str]] = []
        for number, (length, pause) in enumerate(steps):
            clock.now += pause
            message = f"{number} " + "x" * length
            kept.append(PreparedMessage(message))
            sent.append((clock.now, message))
            assert len(kept.held) <= count
            assert kept.size <= size
            assert kept.store.size == kept.size
            assert all(clock.now - publication.at <= age for publication in kept.held)
        if asked > len(sent):
            with pytest.raises(CursorError):
                kept.since(f"{kept.epoch}:{asked}")
        else:
            expected = [message for _, message in sent[asked:]]
            held = [publication.message for publication in kept.held]
            found = messages(kept, f"{kept.epoch}:{asked}")
            assert found == (expected if expected == held[len(held) - len(expected) :] or not expected else None)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3000), st.floats(0, 10)), max_size=60))
def test_all_topics_together_stay_under_the_total_and_the_oldest_go_first(steps: list[tuple[int, int, float]]) -> None:
    bounds = History(1000, 1 << 30, 30.0, 40_000)
    with still() as clock:
        store = HistoryStore(bounds)
        logs = [Log(str(number), store) for number in range(6)]
        touched: dict[int, float] = {}
        for number, length, pause in steps:
            clock.now += pause
            logs[number].append(PreparedMessage("x" * length))
            touched[number] = clock.now
            gone = [int(each.topic) for each in store.let_go(clock.now)]
            assert gone == sorted(gone, key=lambda each: touched[each])
            for each in gone:
                del touched[each]
                assert not logs[each].held
            assert set(touched) == {int(each.topic) for each in store.logs}
            assert store.size == sum(each.size for each in logs)
            assert store.size + TOPIC_COST * len(store.logs) <= bounds.total
            assert all(clock.now - at <= bounds.age for at in touched.values())


def test_a_lost_log_does_not_satisfy_whoever_comes_from_the_old_one() -> None:
    old = log()
    cursor = old.append(PreparedMessage("a")).cursor
    new = log()
    new.append(PreparedMessage("b"))
    assert messages(new, cursor) is None
    assert old.epoch != new.epoch


def test_a_cursor_of_the_future_is_an_error_that_says_where_the_topic_is() -> None:
    kept = log()
    kept.append(PreparedMessage("a"))
    with pytest.raises(CursorError, match=f"the cursor is '{kept.epoch}:2', the last of the topic is {kept.cursor}"):
        kept.since(f"{kept.epoch}:2")


@pytest.mark.parametrize(
    "cursor",
    [":", "a", "a:", ":1", "a:-1", "a: 1", "a:1 ", "a:+1", "a:1:2", "a:1.0", "a:\u0661", "a:1\n", "ä:1", "a b:1",
     "a:" + "1" * 19, "a" * 33 + ":1", "", "EARLIEST", "a=b:1", 7, None, b"a:1"],
)  # fmt: skip
def test_what_is_no_cursor_is_an_error(cursor: Any) -> None:
    with pytest.raises(CursorError, match=r"^the cursor is .*, allowed is what a publication came with"):
        parse_cursor(cursor)


@given(st.text())
def test_a_cursor_is_taken_apart_or_refused(text: str) -> None:
    try:
        epoch, offset = parse_cursor(text)
    except CursorError:
        return
    assert text.partition(":")[0] == epoch
    assert int(text.partition(":")[2]) == offset


NAMES = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=20)


@given(st.dictionaries(NAMES, st.integers(0, 10**18 - 1)), NAMES)
def test_a_joined_cursor_gives_each_topic_its_own_and_no_other_any(offsets: dict[str, int], other: str) -> None:
    joined = join_cursors({name: f"e0:{offset}" for name, offset in offsets.items()})
    assert joined.isascii()
    for name, offset in offsets.items():
        assert cursor_of(joined, name) == f"e0:{offset}"
    if other not in offsets:
        assert cursor_of(joined, other) == ""


def test_a_single_cursor_stands_for_every_topic() -> None:
    assert cursor_of("e0:1", "a") == "e0:1"
    assert cursor_of("", "a") == ""
    assert cursor_of("earliest", "a") == "earliest"


TEXTS = {
    "empty": "",
    "short": "x" * 64,
    "ascii": "x" * 5000,
    # Six bytes of JSON for each; and a str that has four bytes for each character.
    "escaped": "\x01" * 5000,
    "wide": "\x01" * 5000 + "\U0001f600",
}
# Clients choose the window, and each window is a compressor of its own.
DEFLATES = [deflate_for(Role.SERVER, DeflateParameters(server_max_window_bits=bits)) for bits in (9, 12, 15)]


def make_forms(publication: Publication) -> None:
    """Make all that subscribers may get."""
    for encoded in (publication.encoded, publication.form_of(render)):
        for deflate in DEFLATES:
            encoded.compressed(deflate)
    publication.event_of(render, publication.cursor)
    publication.event_of(event_data, publication.cursor)


@pytest.mark.parametrize("kind", [str, bytes])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("forms", [False, True])
def test_what_is_held_takes_as_much_memory_as_is_counted_in_every_form(text: str, kind: type, forms: bool) -> None:
    kept = log(History(1000, 1 << 30, 1e9, 1 << 26))
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(300):
            message = f"{number:08}" + text
            publication = kept.append(PreparedMessage(message if kind is str else message.encode()))
            if forms:
                make_forms(publication)
                kept.store.forms.trim()
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    counted = kept.size + kept.store.forms.size
    assert taken <= counted <= 4 * taken
    assert (kept.store.forms.size > 0) is forms
    assert kept.store.forms.size <= kept.store.forms.limit == 1 << 23


def test_forms_over_the_limit_are_forgotten_the_oldest_first_and_made_again() -> None:
    kept = log(History(1000, 1 << 30, 1e9, 1 << 20))
    cache = kept.store.forms
    publications = [kept.append(PreparedMessage("x" * 100_000)) for _ in range(20)]
    made = [publication.form_of(render) for publication in publications]
    assert cache.size > cache.limit
    # Up to here they may be on their way to others.
    assert [publication.form_of(render) for publication in publications] == made
    cache.trim()
    assert cache.limit - 101_000 < cache.size <= cache.limit
    left = [publication.forms is not None for publication in publications]
    assert left == [False] * (20 - sum(left)) + [True] * sum(left)
    assert publications[0].form_of(render).payload == made[0].payload


async def test_a_replay_holds_no_more_forms_than_allowed_and_the_one_that_goes_out() -> None:
    hub = Hub(history=History(1000, 1 << 30, 1e9, 1 << 22))
    for _ in range(20):
        hub.publish("a", "x" * 100_000)
    cache = hub._table.store.forms
    sizes = []

    def send(publication: Publication) -> None:
        publication.form_of(render)
        sizes.append(cache.size)

    receiver = Receiver()
    receiver.send = send  # type: ignore[method-assign]
    hub.subscribe(receiver, "a", since="earliest")
    assert len(sizes) == 20
    assert cache.limit < max(sizes) <= cache.limit + 101_000


def test_forms_go_with_what_they_were_made_of() -> None:
    kept = log(History(3, 1 << 30, 1e9, 1 << 20))
    for number in range(10):
        make_forms(kept.append(PreparedMessage(str(number))))
    gc.collect()
    assert len(kept.held) == 3
    size = kept.store.forms.size
    for number in range(10):
        make_forms(kept.append(PreparedMessage(str(number))))
        assert abs(kept.store.forms.size - size) < 100
    kept.clear()
    assert (kept.store.forms.size, len(kept.store.forms.kept)) == (0, 0)


def test_the_ids_of_events_are_counted_as_long_as_they_are() -> None:
    kept = log()
    publication = kept.append(PreparedMessage("a"))
    sizes = []
    for at in ("a=1", "a=1&" + "x" * 4000, "a=1", "a=1&" + "x" * 4000):
        publication.event_of(event_data, at)
        sizes.append(kept.store.forms.size)
    assert sizes[:2] == sizes[2:]
    assert sizes[1] - sizes[0] == 4001


def test_an_event_for_those_who_are_elsewhere_is_made_of_the_same_text() -> None:
    publication = log().append(PreparedMessage("a"))
    one, two = publication.event_of(event_data, "a=1"), publication.event_of(event_data, "a=1&b=2")
    assert (one.id, two.id) == ("a=1", "a=1&b=2")
    assert one.data is two.data


def test_a_message_is_made_of_its_frame() -> None:
    for message in ("", "Grüße", b"", b"\x00\xff", "x" * 70_000):
        prepared = PreparedMessage(message)
        assert prepared.message == message
        assert prepared.payload == (message.encode() if isinstance(message, str) else message)
        assert prepared.size == len(prepared.payload)
        assert prepared.plain.endswith(prepared.payload)


def test_a_publication_shows_where_it_stands() -> None:
    kept = log()
    publication = kept.append(PreparedMessage(bytearray(b"a")), "key")
    assert publication.message == b"a"
    assert repr(publication) == f"<rawws.Publication 'topic' {kept.epoch}:1>"


def test_the_clock_of_these_tests_stands_still() -> None:
    with still() as clock:
        assert isinstance(clock, Clock)
        assert log().append(PreparedMessage("a")).at == clock.now


def test_a_joined_cursor_is_taken_apart_once_for_all_topics() -> None:
    joined = "a=e0:1&b%20c=e1:2&a=e2:3&d&=e4:5&f=g=h"
    found = cursors_of(joined, ["a", "b c", "d", "x", "f"])
    assert found == {"a": "e0:1", "b c": "e1:2", "d": "", "x": "", "f": "g=h"}
    assert cursors_of("e0:1", ["a", "b"]) == {"a": "e0:1", "b": "e0:1"}
    with pytest.raises(CursorError, match=r"^the cursor has 1000001 characters, limit 16384$"):
        cursors_of("&%" * 499_999 + "a=b", ["a"])


def test_what_is_older_than_its_age_is_not_given_out_though_nothing_came_since() -> None:
    with still() as clock:
        kept = log(History(100, 1 << 20, 10.0, 1 << 30))
        start = kept.cursor
        old = kept.append(PreparedMessage("old")).cursor
        clock.now += 6
        kept.append(PreparedMessage("new"))
        clock.now += 4
        assert messages(kept, start) == ["old", "new"]
        clock.now += 0.5
        assert messages(kept, start) is None
        assert messages(kept, old) == messages(kept, "earliest") == ["new"]
        clock.now += 6
        assert messages(kept, old) is None
        assert messages(kept, "earliest") == []
        assert messages(kept, kept.cursor) == []
        assert (kept.size, kept.store.size, len(kept.held)) == (0, 0, 0)


def test_a_log_is_remembered_up_to_its_age_and_let_go_behind_it() -> None:
    with still() as clock:
        store = HistoryStore(History(100, 1 << 20, 10.0, 1 << 30))
        kept = Log("topic", store)
        kept.append(PreparedMessage("a"))
        clock.now += 10
        assert store.let_go(clock.now) == []
        clock.now += 0.5
        assert store.let_go(clock.now) == [kept]
        assert (store.size, list(store.logs), list(kept.held)) == (0, [], [])


def empty() -> int:
    """Return what an empty message takes that is held."""
    kept = log()
    kept.append(PreparedMessage(""))
    return kept.size


def test_what_all_topics_take_may_be_the_total_and_no_more() -> None:
    def room(count: int) -> int:
        return count * (empty() + TOPIC_COST)

    with still():
        store = HistoryStore(History(100, 1 << 20, 10.0, room(2)))
        logs = [Log(name, store) for name in "abc"]
        for kept in logs[:2]:
            kept.append(PreparedMessage(""))
        assert store.let_go(1000.0) == []
        assert store.size + len(store.logs) * TOPIC_COST == room(2)
        logs[2].append(PreparedMessage(""))
        assert store.let_go(1000.0) == [logs[0]]


def test_bounds_in_counts_and_in_bytes_may_be_reached_each_by_itself() -> None:
    by_count = log(History(3, 1 << 30, 1e9, 1 << 40))
    by_size = log(History(1000, 3 * empty(), 1e9, 1 << 40))
    for kept in (by_count, by_size):
        for number in range(5):
            kept.append(PreparedMessage(""))
            assert len(kept.held) == min(number + 1, 3)
        assert [publication.offset for publication in kept.held] == [3, 4, 5]
    one = log(History(1000, empty() - 1, 1e9, 1 << 40))
    one.append(PreparedMessage(""))
    assert (list(one.held), one.size) == ([], 0)


def test_what_was_made_of_a_publication_is_made_anew_where_its_epoch_goes_over() -> None:
    publication = log().append(PreparedMessage("a"))
    publication.form_of(render)
    publication.event_of(render, publication.cursor)
    publication.move("next")
    assert publication.cursor == "next:1"
    assert "next:1" in str(publication.form_of(render).message)
    assert publication.event_of(render, "next:1").id == "next:1"
