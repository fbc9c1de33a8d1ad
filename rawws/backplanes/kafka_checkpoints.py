"""Checkpoints: the places of a partition to a compacted topic and back, so that a start reads the end of the log alone.

A checkpoint is all that is known of a partition up to some offset, in parts that each have a key of their own: so no
server writes over what another one wrote. It counts when a record of the log says that all parts are there. Those are
removed that nobody needs any more, by whoever writes the next one.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
import zlib
from typing import TYPE_CHECKING, Final, final

from . import kafka_places
from .kafka_client import EARLIEST, LATEST
from .kafka_places import Checkpoint, Mark

if TYPE_CHECKING:
    from .kafka_client import KafkaClient
    from .kafka_partition import Partition

__all__ = ["Checkpoints"]

# It is written after so many records, when a quarter of the time went by for which they are held; or after this time.
RECORDS: Final = 10_000
LONGEST: Final = 15 * 60.0
# What nobody removed who wrote a later one is removed by who starts, in milliseconds: its writer was killed.
LEFT_AGE: Final = 3600 * 1000


@final
class Checkpoints:
    """Those of a log, in another topic of the same Kafka."""

    def __init__(self, client: KafkaClient, log: str, topic: str) -> None:
        self._client = client
        self._log = log
        self._topic = topic
        self._parts: dict[str, bytes] | None = None
        # The servers do not all write at once.
        self._patience = random.uniform(1, 1.5)  # noqa: S311 - no secret

    # -- reading

    async def restore(self, partition: Partition, start: int, end: int) -> None:
        """Have a partition be what was written down of it before the oldest that is held, or be at its beginning."""
        partition.begin_anew()
        parts = await self._read(partition.places.history.age)
        oldest = time.time() - partition.places.history.age
        [needed] = (await self._client.offsets(self._log, int(oldest * 1000), [partition.number])).values()
        if needed < 0:
            needed = end
        found = checkpoints_of(str(partition.number), parts)
        # The newest of those before; where there is none, the oldest.
        before = [each for each in found if each.position <= needed][-1:]
        for each in [*reversed(before), *[each for each in found if each.position > needed]]:
            partition.begin_anew()
            if start <= each.position <= end and self._load(partition, each, parts):
                if await self._is_there(partition, start):
                    return
        partition.begin_anew()
        if start:
            # What was there before is gone, and what came of it is not known.
            partition.places.lose(end)

    def _load(self, partition: Partition, found: Checkpoint, parts: dict[str, bytes]) -> bool:
        names = [f"{partition.number} {found.name} {number}" for number in range(found.parts)]
        try:
            partition.places.load(kafka_places.unpack_rows([parts[name] for name in names]))
        except (LookupError, TypeError, ValueError, RecursionError, zlib.error):
            # Of another version, or of nobody.
            return False
        return True

    async def _is_there(self, partition: Partition, start: int) -> bool:
        """Tell whether the log is that of which the places were written down."""
        mark = partition.places.mark
        if mark is None or mark.offset < start:
            return mark is not None
        found = (await self._client.fetch(self._log, {partition.number: mark.offset}))[partition.number].records
        return bool(found) and Mark.of(*found[0]) == mark

    async def _read(self, age: float) -> dict[str, bytes]:
        """Return all that is written down, by its key."""
        if self._parts is None:
            parts: dict[str, bytes] = {}
            stamps: dict[str, int] = {}
            [position] = (await self._client.offsets(self._topic, EARLIEST)).values()
            [end] = (await self._client.offsets(self._topic, LATEST)).values()
            while position < end:
                batch = (await self._client.fetch(self._topic, {0: position}))[0]
                for offset, stamp, key, value in batch.records:
                    position = offset + 1
                    name = (key or b"").decode(errors="replace")
                    parts.pop(name, None)
                    stamps.pop(name, None)
                    if value is not None:
                        parts[name], stamps[name] = value, stamp
                if not batch.records:
                    break
            self._parts = parts
            await self._remove_left(parts, stamps, age)
        return self._parts

    async def _remove_left(self, parts: dict[str, bytes], stamps: dict[str, int], age: float) -> None:
        """Remove what is old, but for the newest checkpoint of each partition."""
        partitions = {name.partition(" ")[0] for name in parts}
        newest = [checkpoints_of(each, parts)[-1:] for each in partitions]
        kept = [[made.name] for found in newest for made in found]
        oldest = max(stamps.values(), default=0) - LEFT_AGE - int(2000 * age)
        for name, stamp in stamps.items():
            if stamp < oldest and name.split(" ")[1:2] not in kept:
                await self._client.produce(self._topic, 0, [(name.encode(), None)])

    # -- writing

    async def write(self, partition: Partition) -> None:
        """Write down what is known of a partition, if it is time to."""
        places = partition.places
        last = places.checkpoints[-1] if places.checkpoints else Checkpoint("", 0, 0, places.began)
        seconds = (places.clock - last.clock) / 1000 / self._patience
        is_due = places.position - last.position > RECORDS and seconds > places.history.age / 4
        if not is_due and seconds < LONGEST:
            return
        self._patience = random.uniform(1, 1.5)  # noqa: S311 - no secret
        name, position, clock = secrets.token_hex(6), places.position, places.clock
        chunks = await asyncio.to_thread(kafka_places.pack_rows, places.rows())
        for number, chunk in enumerate(chunks):
            await self._client.produce(self._topic, 0, [(f"{partition.number} {name} {number}".encode(), chunk)])
        made = Checkpoint(name, len(chunks), position, clock)
        end = kafka_places.written(made, [])
        await self._client.produce(self._topic, 0, [(f"{partition.number} {name}".encode(), end)])
        # Of those from before what is held was published, one is needed.
        old = [each for each in places.checkpoints if each.clock < clock - places.history.age * 1000][:-1]
        gone = [f"{partition.number} {each.name} {part}" for each in old for part in range(each.parts)]
        gone += [f"{partition.number} {each.name}" for each in old]
        for key in gone:
            await self._client.produce(self._topic, 0, [(key.encode(), None)])
        partition.send(None, kafka_places.written(made, [each.name for each in old]))


def checkpoints_of(partition: str, parts: dict[str, bytes]) -> list[Checkpoint]:
    """Return what is written down of a partition, by its position."""
    found = []
    for name, value in parts.items():
        number, _, rest = name.partition(" ")
        if number == partition and " " not in rest and (made := kafka_places.read_written(value)) is not None:
            found.append(made)
    return sorted(found, key=lambda each: each.position)
