"""Which checkpoint a start takes, and when one is written: by a Kafka in memory, whose records have any age."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from rawws.backplanes import kafka_places
from rawws.backplanes.kafka_checkpoints import LONGEST, RECORDS, Checkpoints
from rawws.backplanes.kafka_client import EARLIEST, LATEST, Batch
from rawws.backplanes.kafka_partition import Partition
from rawws.backplanes.kafka_places import UNKNOWN, Checkpoint
from rawws.topics import History

AGE = 100.0
COUNT = 10


class Memory:
    """Two topics of one partition each."""

    def __init__(self) -> None:
        self.logs: dict[str, list[tuple[int, int, bytes | None, bytes | None]]] = {"log": [], "places": []}
        self.start = 0

    def add(self, topic: str, stamp: float, key: bytes | None, value: bytes | None) -> None:
        self.logs[topic].append((len(self.logs[topic]), int(stamp * 1000), key, value))

    async def offsets(self, topic: str, at: int, _: Any = None) -> dict[int, int]:
        log = self.logs[topic]
        if at == EARLIEST:
            return {0: self.start if topic == "log" else 0}
        if at == LATEST:
            return {0: len(log)}
        return {0: next((offset for offset, stamp, *_ in log if stamp >= at), -1)}

    async def fetch(self, topic: str, positions: dict[int, int]) -> dict[int, Batch]:
        log = self.logs[topic]
        return {0: Batch([each for each in log if each[0] >= positions[0]], 0, len(log))}

    async def produce(self, topic: str, _: int, records: list[tuple[bytes | None, bytes | None]]) -> None:
        for key, value in records:
            self.add(topic, time.time(), key, value)

    @property
    def keys(self) -> list[bytes | None]:
        return [key for _, _, key, _ in self.logs["places"]]


def partition_of() -> Partition:
    session: Any = SimpleNamespace(history=History(age=AGE), reached=False, server="one")
    owner: Any = SimpleNamespace(is_followed=lambda _: False)
    return Partition(0, 1, session, owner)


def log_of(young: int, written: tuple[int, ...]) -> Memory:
    """Return a log of ten records, those from one on young, with checkpoints at some positions."""
    memory, partition = Memory(), partition_of()
    now = time.time()
    for number in range(COUNT):
        stamp = now if number >= young else now - 10 * AGE
        if number:
            memory.add("log", stamp, b"a", kafka_places.publication("one", number, "x", None, ""))
        else:
            memory.add("log", stamp, None, kafka_places.anew("", "life"))
        partition.read(memory.logs["log"][-1:])
        if number + 1 in written:
            [chunk] = kafka_places.pack_rows(partition.places.rows())
            memory.add("places", now, b"0 at%d 0" % (number + 1), chunk)
            made = Checkpoint(f"at{number + 1}", 1, number + 1, int(stamp * 1000))
            memory.add("places", now, b"0 at%d" % (number + 1), kafka_places.written(made, []))
    return memory


async def restored(memory: Memory, start: int = 0, end: int = COUNT) -> Partition:
    memory.start = start
    client: Any = memory
    partition = partition_of()
    await Checkpoints(client, "log", "places").restore(partition, start, end)
    return partition


@pytest.mark.parametrize(
    ("young", "written", "position"),
    [
        # The newest from before what is held; that which ends there is one.
        (7, (3, 6, 9), 6),
        (6, (3, 6, 9), 6),
        (5, (3, 6, 9), 3),
        # Where nothing is held, the newest of all; where all is, the oldest.
        (COUNT, (3, 6, 9), 9),
        (1, (3, 6, 9), 3),
        (7, (), 0),
    ],
)
async def test_a_start_takes_the_newest_checkpoint_that_is_before_all_that_is_held(
    young: int, written: tuple[int, ...], position: int
) -> None:
    partition = await restored(log_of(young, written))
    assert partition.places.position == position
    assert partition.places.life == ("life" if position else "")


@pytest.mark.parametrize(
    ("start", "end", "position"),
    [(0, COUNT, 6), (6, COUNT, 6), (7, COUNT, 9), (9, COUNT, 9), (0, 6, 6), (0, 5, 0)],
)
async def test_a_checkpoint_counts_that_is_where_the_log_is(start: int, end: int, position: int) -> None:
    assert (await restored(log_of(7, (3, 6, 9)), start, end)).places.position == position


async def test_without_a_checkpoint_what_was_before_the_beginning_of_the_log_is_not_known() -> None:
    partition = await restored(log_of(7, (3,)), start=4)
    assert (partition.places.position, partition.places.life) == (COUNT, UNKNOWN)


@pytest.mark.parametrize(
    ("records", "seconds", "is_written"),
    [
        (RECORDS, AGE, False),
        (RECORDS + 1, AGE / 4, False),
        (RECORDS + 1, AGE / 4 + 0.001, True),
        (0, LONGEST - 0.001, False),
        (0, LONGEST, True),
    ],
)
async def test_it_is_time_to_write_after_so_many_records_and_seconds_or_so_many_more_seconds(
    monkeypatch: pytest.MonkeyPatch, records: int, seconds: float, is_written: bool
) -> None:
    monkeypatch.setattr("random.uniform", lambda *_: 1.0)
    memory: Any = Memory()
    partition: Any = partition_of()
    sent: list[bytes] = []
    monkeypatch.setattr(partition, "send", lambda _, value: sent.append(value))
    places = partition.places
    places.checkpoints, places.mark = [Checkpoint("old", 1, 50, 1_000_000)], kafka_places.Mark(1, 1, 1)
    places.position, places.clock = 50 + records, 1_000_000 + round(seconds * 1000)
    await Checkpoints(memory, "log", "places").write(partition)
    assert bool(sent) == bool(memory.keys) == is_written


async def test_of_those_from_before_what_is_held_the_newest_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    memory: Any = Memory()
    partition: Any = partition_of()
    sent: list[bytes] = []
    monkeypatch.setattr(partition, "send", lambda _, value: sent.append(value))
    places = partition.places
    now = 10_000_000
    # The last is just as old as the oldest that is held.
    clocks = {"a": now - 900_000, "b": now - 800_000, "c": now - int(AGE * 1000) - 1, "d": now - int(AGE * 1000)}
    places.checkpoints = [Checkpoint(name, 2, 1, clock) for name, clock in clocks.items()]
    places.position, places.clock, places.mark = RECORDS + 2, now, kafka_places.Mark(1, 1, 1)
    await Checkpoints(memory, "log", "places").write(partition)
    removed = [key for _, _, key, value in memory.logs["places"] if value is None]
    assert removed == [b"0 a 0", b"0 a 1", b"0 b 0", b"0 b 1", b"0 a", b"0 b"]
    assert sent[0].endswith(b'["a", "b"]]')
