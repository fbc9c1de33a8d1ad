"""What the records of a partition say: the same to all who read them, from their beginning or from a checkpoint."""

from __future__ import annotations

import json
import zlib
from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from hypothesis import given, settings
from hypothesis import strategies as st

from rawws.backplanes import kafka_places
from rawws.backplanes.kafka import RECORD_HEAD, KafkaBackplane
from rawws.backplanes.kafka_checkpoints import checkpoints_of
from rawws.backplanes.kafka_client import records_of
from rawws.backplanes.kafka_places import UNKNOWN, Checkpoint, Mark, OtherVersionError, Places
from rawws.topics import History
from rawws.topics.backplane import BackplaneAway, HistoryResult, Position, PresenceEntry, Record
from tests.server.peers import Logged

HOUR = 3600 * 1000
Said = tuple[int, int, bytes | None, bytes | None]


class Heard:
    """A reader that remembers all that it hears."""

    def __init__(self) -> None:
        self.places: list[tuple[str, int, Position, bool]] = []
        self.presence: list[tuple[str, str, PresenceEntry]] = []
        self.beats: list[tuple[str, int]] = []
        self.gone: list[tuple[str, int]] = []
        self.lives: list[str] = []
        self.faults: list[tuple[str, str]] = []

    def on_place(self, record: Record, position: Position, *, is_new: bool) -> None:
        self.places.append((record.server, record.number, position, is_new))

    def on_presence(self, topic: str, event: str, entry: PresenceEntry) -> None:
        self.presence.append((topic, event, entry))

    def on_beat(self, server: str, lease: int, timestamp: int) -> None:
        self.beats.append((server, lease))

    def on_gone(self, server: str, lease: int) -> None:
        self.gone.append((server, lease))

    def on_life(self, life: str) -> None:
        self.lives.append(life)

    def on_fault(self, topic: str, reason: str) -> None:
        self.faults.append((topic, reason))


class Log:
    """A partition in memory, whose clock is told."""

    def __init__(self, history: History | None = None, total: int = 1 << 20) -> None:
        self.said: list[Said] = []
        self.clock = 1_000 * HOUR
        self.heard = Heard()
        self.places = Places(history or History(), total, self.heard)
        self.say(None, kafka_places.anew("", "life"))

    def say(self, key: str | bytes | None, value: bytes | None) -> None:
        named = key.encode() if isinstance(key, str) else key
        self.said.append((len(self.said), self.clock, named, value))
        self.places.read(*self.said[-1])

    def publish(self, topic: str, number: int, message: str | bytes = "x", server: str = "one") -> Position:
        self.say(topic, kafka_places.publication(server, number, message, None, ""))
        return self.heard.places[-1][2]

    def result(self, topic: str, since: Position | None = None) -> HistoryResult:
        return self.places.result(topic, since, self.clock)


def state_of(places: Places) -> Any:
    """Return all that is known, as it is written down."""
    return json.loads(json.dumps(places.rows()))


TOPICS = st.sampled_from(["a", "b", "c"])
ONES = st.sampled_from(["one", "two"])
SMALL = st.integers(0, 5)
VALUES = st.one_of(
    st.builds(
        lambda topic, server, number: (topic, kafka_places.publication(server, number, "m", None, "")),
        TOPICS,
        ONES,
        SMALL,
    ),
    st.builds(lambda topic, server, lease: (topic, kafka_places.join(server, lease, "x", "null")), TOPICS, ONES, SMALL),
    st.builds(lambda topic, server, lease: (topic, kafka_places.leave(server, lease, "x")), TOPICS, ONES, SMALL),
    st.builds(lambda server, lease: (None, kafka_places.hello(server, lease)), ONES, SMALL),
    st.builds(lambda server, lease: (None, kafka_places.settled(server, lease)), ONES, SMALL),
    st.builds(lambda server, lease: (None, kafka_places.gone(server, lease)), ONES, SMALL),
    st.builds(
        lambda old, new: (None, kafka_places.anew(old, new)),
        st.sampled_from(["life", "new", UNKNOWN]),
        st.sampled_from(["life", "new"]),
    ),
    st.builds(lambda topic: (topic, None), TOPICS),
    st.builds(lambda topic, junk: (topic, junk), TOPICS, st.binary(max_size=20)),
    st.just((None, kafka_places.written(Checkpoint("n", 1, 2, 3), ["m"]))),
)


@given(st.lists(st.tuples(VALUES, st.integers(0, 9 * HOUR)), max_size=40), st.integers(0, 41))
@settings(deadline=None)
def test_who_begins_at_a_checkpoint_knows_what_those_know_who_read_all(steps: list[Any], cut: int) -> None:
    log = Log()
    chunks = kafka_places.pack_rows(log.places.rows())
    begun = 1
    for number, ((key, value), passed) in enumerate(steps):
        log.clock += passed
        log.say(key, value)
        if number == cut:
            chunks, begun = kafka_places.pack_rows(log.places.rows()), len(log.said)
    other = Places(History(), 1 << 20, Heard())
    other.load(kafka_places.unpack_rows(chunks))
    for said in log.said[begun:]:
        other.read(*said)
    assert state_of(other) == state_of(log.places)


def test_places_are_one_more_each_and_an_origin_has_one() -> None:
    log = Log()
    first = log.publish("a", 5)
    assert (first.offset, log.publish("a", 6).offset) == (1, 2)
    assert log.publish("a", 5) == first
    assert log.publish("a", 9).offset == 3
    assert log.publish("a", 7).offset == 0
    assert log.publish("a", 1, server="two").offset == 4
    assert log.publish("b", 1).epoch != first.epoch
    assert [each.offset for each in log.result("a").records] == [1, 2, 3, 4]


def test_a_topic_is_forgotten_at_the_same_record_by_all_and_who_was_there_before_is_told() -> None:
    log = Log()
    early = log.result("a")
    first = log.publish("a", 1)
    log.clock += 25 * HOUR
    log.publish("b", 2)
    again = log.result("a", first)
    assert (again.offset, again.recovered) == (0, False)
    assert not log.result("a", Position(early.epoch, 0)).recovered
    assert log.publish("a", 3).epoch != first.epoch


def test_the_name_of_a_topic_that_nobody_published_to_is_good_for_half_a_day_at_least() -> None:
    log = Log()
    one = log.result("a")
    log.clock += 12 * HOUR
    two = log.result("a", Position(one.epoch, 0))
    assert two.recovered
    assert log.result("a", Position(two.epoch, 0)).recovered
    assert two.epoch != one.epoch
    log.publish("a", 1)
    assert log.result("a", Position(one.epoch, 0)).recovered
    log.clock += 25 * HOUR
    assert not log.result("b", Position(one.epoch, 0)).recovered


def test_topics_have_a_bound_and_those_published_to_longest_ago_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_places, "MAX_TOPICS", 20)
    log = Log()
    unborn = log.result("x")
    for number in range(21):
        log.publish(f"{number}", number)
    assert list(log.places.topics) == [f"{number}" for number in range(2, 21)]
    assert not log.result("x", Position(unborn.epoch, 0)).recovered


def test_servers_whose_numbers_are_remembered_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_places, "MAX_SERVERS", 2)
    log = Log()
    for server in ("one", "two", "one", "three"):
        log.publish("a", len(log.said), server=server)
    assert list(log.places.topics["a"].numbers) == ["one", "three"]


def test_what_is_held_is_within_the_bytes_of_all_topics_and_the_longest_silent_goes() -> None:
    log = Log(total=3000)
    for topic in ("a", "b", "c", "a"):
        log.publish(topic, len(log.said), "x" * 700)
    assert (len(log.result("a").records), len(log.result("b").records), len(log.result("c").records)) == (1, 0, 1)
    assert log.places.size <= 3000
    log.clock += 301_000
    log.places.sweep(log.clock)
    assert (log.places.size, list(log.places.holding)) == (0, [])


@pytest.mark.parametrize(
    ("history", "held"),
    [
        (History(count=2), [2, 3]),
        (History(count=3), [1, 2, 3]),
        (History(size=1 << 11), [2, 3]),
        (History(age=60.0), [3]),
    ],
)
def test_what_is_held_of_a_topic_is_within_each_bound_of_its_history(history: History, held: list[int]) -> None:
    log = Log(history)
    for number, passed in enumerate((0, 1_000, 60_001)):
        log.clock += passed
        log.publish("a", number, "x" * 400)
    assert [each.offset for each in log.result("a").records] == held


def test_a_life_that_ends_takes_all_with_it_and_only_its_own_end_ends_it() -> None:
    log = Log()
    first = log.publish("a", 1)
    log.say(None, kafka_places.anew("another", "not"))
    assert log.result("a", first).recovered
    log.say(None, kafka_places.anew("life", "second"))
    log.say(None, kafka_places.anew("life", "third"))
    assert (log.heard.lives, log.places.life) == (["life", "second"], "second")
    assert not log.result("a", first).recovered
    log.places.lose(10)
    log.say(None, kafka_places.anew("second", "third"))
    assert log.places.life == UNKNOWN
    log.say(None, kafka_places.anew(UNKNOWN, "fourth"))
    assert log.places.life == "fourth"


def test_leases_end_and_what_was_on_its_way_of_them_is_not_heard() -> None:
    log, two = Log(), Heard().presence
    log.say("a", kafka_places.join("one", 1, "early", "null"))
    assert log.heard.presence == two
    log.say(None, kafka_places.hello("one", 1))
    log.say("a", kafka_places.join("one", 1, "x", "null"))
    log.say("a", kafka_places.join("one", 1, "y", '"y"'))
    log.say(None, kafka_places.hello("one", 2))
    log.say(None, kafka_places.hello("one", 1))
    log.say(None, kafka_places.hello("one", 2))
    assert log.heard.beats == [("one", 1), ("one", 2), ("one", 2)]
    log.say("a", kafka_places.join("one", 1, "late", "null"))
    assert [each.id for each in log.places.present("a")] == ["x", "y"]
    log.say("a", kafka_places.join("one", 2, "x", "1"))
    log.say(None, kafka_places.settled("one", 2))
    assert log.places.present("a") == [PresenceEntry("one", "x", "1")]
    assert log.heard.presence[-1] == ("a", "leave", PresenceEntry("one", "y", '"y"'))
    log.say(None, kafka_places.gone("one", 1))
    assert log.heard.gone == []
    log.say(None, kafka_places.gone("one", 2))
    assert (log.heard.gone, log.places.present("a"), log.places.by_server) == ([("one", 2)], [], {})


def test_who_joins_and_leaves_is_told() -> None:
    log, ali = Log(), PresenceEntry("one", "ali", '"a"')
    log.say(None, kafka_places.hello("one", 1))
    log.say("a", kafka_places.join("one", 1, "ali", '"a"'))
    log.say("a", kafka_places.leave("one", 1, "ali"))
    assert log.heard.presence == [("a", "join", ali), ("a", "leave", ali)]
    assert (log.places.present("a"), log.heard.faults) == ([], [])


def test_who_begins_at_a_checkpoint_knows_who_is_present_and_that_they_leave_with_their_server() -> None:
    log, other = Log(), Places(History(), 1 << 20, Heard())
    log.say(None, kafka_places.hello("one", 1))
    log.say("a", kafka_places.join("one", 1, "x", "null"))
    other.load(kafka_places.unpack_rows(kafka_places.pack_rows(log.places.rows())))
    assert other.present("a") == [PresenceEntry("one", "x", "null")]
    other.read(len(log.said), log.clock, None, kafka_places.gone("one", 1))
    assert other.present("a") == []


@pytest.mark.parametrize(
    ("message", "letter", "body"), [("héllo", b"t", "héllo".encode()), (b"\xff\n", b"b", b"\xff\n")]
)
def test_a_publication_is_a_line_of_json_and_the_message(message: str | bytes, letter: bytes, body: bytes) -> None:
    value = kafka_places.publication("one", 7, message, "k", "")
    assert value == b'=["one", 7, "' + letter + b'", "k", ""]\n' + body


JUNK = [
    b"",
    b"=",
    b"=[]\n",
    b"=[1,2,3,4,5]\nx",
    b'=["s",1,"t",null,""]\n\xff',
    b"+",
    b"+[]",
    b'+["s","x","i","n"]',
    b"?[]",
    b"junk",
    b'-["",1,"i"]',
]


@pytest.mark.parametrize("value", JUNK)
def test_a_record_that_is_none_is_the_fault_of_its_topic_until_it_is_dropped_or_old(value: bytes) -> None:
    log = Log()
    log.publish("a", 1)
    log.say("a", value)
    assert [topic for topic, _ in log.heard.faults] == ["a"]
    assert "at offset 2, cannot be read" in log.places.faults["a"][1]
    assert log.publish("a", 2).offset == 2
    log.say("a", None)
    assert log.places.faults == {}
    assert log.publish("a", 3).offset == 1
    log.say("a", value)
    log.clock += 301_000
    log.places.sweep(log.clock)
    assert log.places.faults == {}


def test_junk_without_a_topic_is_told_and_remembered_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_places, "MAX_FAULTS", 2)
    log = Log()
    for key in (None, b"\xff", "a", "b", "a", "c"):
        log.say(key, b"junk")
    assert list(log.places.faults) == ["a", "c"]
    assert [topic for topic, _ in log.heard.faults] == ["", "\ufffd", "a", "b", "a", "c"]
    # What is of the whole partition, and says nothing known, is nobody's fault.
    log.say(None, b'h["one"]')
    log.say(None, b"z[]")
    assert len(log.heard.faults) == 6


def test_records_of_another_version_are_not_read() -> None:
    log = Log()
    with pytest.raises(OtherVersionError, match="another version of rawws writes its records: 9, known is 1"):
        log.say(None, b'b["life","new",9]')


def test_checkpoints_are_known_by_the_log_and_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_places, "CHUNK", 100)
    monkeypatch.setattr(kafka_places, "MAX_CHECKPOINTS", 2)
    log = Log()
    for number in range(10):
        log.publish(f"{number}", number)
    chunks = kafka_places.pack_rows(log.places.rows())
    assert len(chunks) > 5
    other = Places(History(), 1 << 20, Heard())
    other.load(kafka_places.unpack_rows(chunks))
    assert state_of(other) == state_of(log.places)
    for name in "abc":
        log.say(None, kafka_places.written(Checkpoint(name, 1, 2, 3), []))
    assert [each.name for each in log.places.checkpoints] == ["b", "c"]
    log.say(None, kafka_places.written(Checkpoint("d", 1, 2, 3), ["c"]))
    assert [each.name for each in log.places.checkpoints] == ["b", "d"]
    value = kafka_places.written(Checkpoint("d", 1, 2, 3), ["c"])
    assert kafka_places.read_written(value) == Checkpoint("d", 1, 2, 3)
    assert kafka_places.read_written(b"junk") is None


@pytest.mark.parametrize(
    "said", [b"5", b'["d",1,2]', b'["d","x",2,3,[]]', b'["d",-1,2,3,[]]', b'["d",10001,2,3,[]]', b"[" * 100_000]
)
def test_what_another_program_wrote_is_no_checkpoint_and_no_record(said: bytes) -> None:
    assert kafka_places.read_written(b"w" + said) is None
    log = Log()
    for kind in (b"w", b"h"):
        log.say(None, kind + said)
    assert (log.places.checkpoints, log.places.life) == ([], "life")
    log.say("a", b"=" + said)
    assert log.heard.faults[-1][0] == "a"
    assert log.publish("b", 1).offset == 1


def test_a_mark_is_of_one_record() -> None:
    log = Log()
    log.say("a", b"value")
    assert log.places.mark == Mark(1, log.clock, zlib.crc32(b"value"))
    assert Mark.of(1, log.clock, None, None) != log.places.mark


# -- what is asked of Kafka


def test_a_log_is_judged_by_how_it_is_kept_unless_that_may_not_be_asked(logged: Logged) -> None:
    backplane = KafkaBackplane()
    for kept in ({}, {"min.insync.replicas": "2"}, {"min.insync.replicas": "1", "flush.messages": "1"}):
        backplane._check(kept)
    assert logged.left() == []
    for _ in range(2):
        backplane._check({"cleanup.policy": "delete", "min.insync.replicas": "1", "max.message.bytes": "1000"})
    logged.take("may lose what Kafka acknowledged", None, "rawws.backplanes")
    # What a record takes beside its key and its value.
    assert backplane._limit == 1000 - RECORD_HEAD
    with pytest.raises(BackplaneAway, match=r"cleanup\.policy=compact"):
        backplane._check({"cleanup.policy": "delete,compact"})


def test_of_a_batch_that_begins_before_an_offset_the_records_from_there_on_are_given() -> None:
    batch = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 1 << 20)
    for number in range(4):
        batch.append(number, 1000 + number, b"key", b"%d" % number, [])
    assert records_of(bytes(batch.build()), 2) == [(2, 1002, b"key", b"2"), (3, 1003, b"key", b"3")]


def test_checkpoints_come_by_their_positions_and_those_of_other_partitions_do_not() -> None:
    made = [Checkpoint(name, 1, position, 0) for name, position in (("c", 30), ("a", 10), ("b", 20))]
    parts = {f"1 {each.name}": kafka_places.written(each, []) for each in made}
    parts |= {"1 a 0": b"a part", "11 d": kafka_places.written(Checkpoint("d", 1, 5, 0), [])}
    assert [each.name for each in checkpoints_of("1", parts)] == ["a", "b", "c"]
