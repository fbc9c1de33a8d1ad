"""Overview: what several processes answer to one answer: sums, rates, the longest of lists.

Laws:
1. A sum never falls because a process ended: what the one before it at its place had counted stays.
2. A process that is busy is shown with what it said last, and `busy`; nobody waits for it longer than for the others.
3. However many look on, the processes are asked once.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Final, NamedTuple, final

from rawws import clock
from rawws.metrics import exposition, lasting_samples, sum_samples

from .gateway import gateway_of
from .inspector import SLOW, SPARE, TOPICS_SHOWN
from .sources import SourceBusyError, SourceGoneError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from pathlib import Path

    from rawws.metrics import Samples

    from .sources import Answer, Source

__all__ = ["Look", "Overview"]

# Of a hook of a gateway, so many deliveries of all processes are shown.
DELIVERIES: Final = 50

# A look is as good as a new one for so long, in seconds: a fourth of the time after which the page has the next.
FRESH: Final = 0.5
# Rates are those since the look before, if that is not older than so many seconds.
LONGEST: Final = 60.0
# What is counted and shown as so many a second, by its name.
RATES: Final = {
    "opened": ("rawws_connections_opened", "_total"),
    "closed": ("rawws_connections_closed", ""),
    "received": ("rawws_received_bytes", "_total"),
    "sent": ("rawws_sent_bytes", "_total"),
    "published": ("rawws_hub_published", "_total"),
    "delivered": ("rawws_hub_deliveries", '_total{outcome="delivered"}'),
}
# What a snapshot says of its process, as it is.
SHOWN: Final = ("worker", "pid", "began", "serving", "draining", "degraded", "connections", "streams", "polls", "lag")


class Look(NamedTuple):
    """What all said at one moment: of each process its snapshot, and `samples`, the sums."""

    at: float
    snapshots: list[Answer]
    samples: Samples
    rates: dict[str, float] | None


@final
class Overview:
    """What is asked of all processes of a server, one at each place.

    What those that ended had counted is kept in a file, if there is one, for whoever takes the place of this process.
    """

    __slots__ = ("_ended", "_file", "_known", "_last", "_lock", "_sources", "_status")

    def __init__(self, sources: Sequence[Source], file: Path | None = None) -> None:
        self._sources = sources
        self._file = file
        # By the place: the last snapshot.
        self._known: dict[int, Answer] = {}
        # The sums of those that ended.
        self._ended: Samples = {}
        if file is not None and file.exists():
            self._ended = json.loads(file.read_text(encoding="utf-8"))
        self._last: Look | None = None
        self._status: tuple[float, Answer] | None = None
        self._lock = asyncio.Lock()

    async def look(self) -> Look:
        """Return what all say now, or said just before."""
        async with self._lock:
            if self._last is None or clock.monotonic() - self._last.at > FRESH:
                await self._look()
            assert self._last is not None  # noqa: S101 - `_look` sets it
            return self._last

    async def _look(self) -> None:
        answers = await self._ask({"ask": "snapshot"})
        snapshots, counted = [], [self._ended]
        for place, answer in enumerate(answers):
            known = self._known.get(place)
            if isinstance(answer, dict):
                if known is not None and known["life"] != answer["life"]:
                    self._bury(known)
                    counted[0] = self._ended
                known = self._known[place] = answer
            if known is None:
                continue
            if answer is SourceGoneError:
                # It holds nothing any more.
                counted.append(lasting_samples(known["samples"]))
            else:
                counted.append(known["samples"])
                snapshots.append({**known, "busy": answer is SourceBusyError})
        now, samples, last = clock.monotonic(), sum_samples(counted), self._last
        rates = None
        if last is not None and now - last.at <= LONGEST:
            before = last.samples
            rates = {
                name: round(max(0.0, total(samples, *where) - total(before, *where)) / (now - last.at), 3)
                for name, where in RATES.items()
            }
        self._last = Look(now, snapshots, samples, rates)

    def _bury(self, known: Answer) -> None:
        """Keep what a process that ended had counted."""
        self._ended = sum_samples([self._ended, lasting_samples(known["samples"])])
        if self._file is not None:
            new = self._file.with_suffix(".new")
            new.write_text(json.dumps(self._ended), encoding="utf-8")
            new.replace(self._file)

    async def _ask(self, ask: Answer) -> list[Answer | type[Exception]]:
        return await asyncio.gather(*[answer_of(source.ask(ask)) for source in self._sources])

    async def _ask_all(self, ask: Answer) -> tuple[list[Answer], int]:
        """Return the answers of those that answer, and how many were too busy to."""
        answers = await self._ask(ask)
        return [answer for answer in answers if isinstance(answer, dict)], answers.count(SourceBusyError)

    async def are_gone(self) -> bool:
        """Tell whether no process is there any more."""
        answers = await self._ask({"ask": "snapshot"})
        return all(answer is SourceGoneError for answer in answers)

    async def metrics(self) -> str:
        """Return the sums, as Prometheus reads them."""
        return exposition((await self.look()).samples)

    async def readiness(self, *, backplane: bool) -> str:
        """Return why the server is not ready, "" where it is: some process serves, and none is told to end."""
        snapshots = (await self.look()).snapshots
        if any(snapshot["draining"] for snapshot in snapshots):
            return "draining"
        if not any(snapshot["serving"] for snapshot in snapshots):
            return "nobody serves"
        if backplane and any(snapshot["degraded"] for snapshot in snapshots):
            return "the backplane is away"
        return ""

    async def status(self) -> Answer:
        """Return what there is and how fast it changes, with the largest topics and the slowest consumers."""
        while (look := await self.look()).rates is None:  # noqa: ASYNC110 - time is what it waits for
            # The first one to look has them, too.
            await asyncio.sleep(FRESH / 4)
        if self._status is None or self._status[0] != look.at:
            self._status = look.at, self._render(look)
        return self._status[1]

    def _render(self, look: Look) -> Answer:
        samples, snapshots = look.samples, look.snapshots
        slow = [each for snapshot in snapshots for each in snapshot["slow"]]
        return {
            "time": time.time(),
            "workers": [{**{name: each[name] for name in SHOWN}, "busy": each["busy"]} for each in snapshots],
            "expected": len(self._sources),
            "connections": total(samples, "rawws_connections"),
            "streams": total(samples, "rawws_event_streams"),
            "polls": total(samples, "rawws_long_polls"),
            "subscriptions": total(samples, "rawws_hub_subscriptions"),
            "waiting": total(samples, "rawws_hub_waiting_publications"),
            "closed_slow": total(samples, "rawws_slow_consumers"),
            "opened": total(samples, "rawws_connections_opened"),
            "received": total(samples, "rawws_received_bytes"),
            "sent": total(samples, "rawws_sent_bytes"),
            "published": total(samples, "rawws_hub_published"),
            "rates": look.rates,
            "topics": merge_topics([snapshot["topics"] for snapshot in snapshots], TOPICS_SHOWN),
            "slow": sorted(slow, key=lambda each: -int(each["waiting"]))[:SLOW],
            "gateway": gateway_of(samples),
        }

    async def connections(self, limit: int, sort: str, user: str = "") -> Answer:
        """Return the first connections of all in an order; where a user is named, those of that one alone."""
        answers, busy = await self._ask_all({"ask": "connections", "limit": limit, "sort": sort, "user": user})
        field = {"age": "seconds"}.get(sort, sort)
        found = sorted([each for answer in answers for each in answer["connections"]], key=lambda each: -each[field])
        return {"total": sum(answer["total"] for answer in answers), "busy": busy, "connections": found[:limit]}

    async def topics(self, limit: int) -> Answer:
        """Return the topics with the most subscribers."""
        answers, busy = await self._ask_all({"ask": "topics", "limit": SPARE * limit})
        return {**merge_topics(answers, limit), "busy": busy}

    async def presence(self, topic: str) -> Answer:
        """Return who is present in a topic, and how many are subscribed to it."""
        answers, busy = await self._ask_all({"ask": "presence", "topic": topic})
        there = {each["id"]: each for answer in answers for each in answer["present"]}
        return {
            "topic": topic,
            "subscribers": sum(answer["subscribers"] for answer in answers),
            "total": max([len(there), *(answer["total"] for answer in answers)]),
            "busy": busy,
            "present": list(there.values()),
        }

    async def kick(self, ident: str, code: int, reason: str) -> str | None:
        """Close a connection, wherever it is; return what is wrong with code or reason, None for no such one.

        Raises SourceBusyError where it may be at a process that did not answer: that closes it as soon as it can.
        """
        found = await self._act({"ask": "kick", "ident": ident, "code": code, "reason": reason})
        return None if found is None else str(found.get("wrong", ""))

    async def retry_hook(self, app: str, url: str) -> bool:
        """Have a hook of a gateway tried now, at all processes; tell whether any has it. Raises as `kick` does."""
        return await self._act({"ask": "act", "name": "retry_hook", "fields": {"app": app, "url": url}}) is not None

    async def hook_deliveries(self, app: str, url: str) -> Answer | None:
        """Return the last deliveries of a hook of a gateway, the newest first; None where no process has it.

        Raises SourceBusyError where one may have it that did not answer.
        """
        ask = {"ask": "act", "name": "hook_deliveries", "fields": {"app": app, "url": url}}
        answers, busy = await self._ask_all(ask)
        there = [answer["deliveries"] for answer in answers if answer["found"]]
        if not there:
            if busy:
                raise SourceBusyError
            return None
        found = sorted([each for deliveries in there for each in deliveries], key=lambda each: -each["time"])
        return {"app": app, "url": url, "busy": busy, "deliveries": found[:DELIVERIES]}

    async def test_hook(self, app: str, url: str) -> list[Answer] | None:
        """Have one process send a hook of a gateway a test, and return what came of it; None where none has it.

        Nothing came of it where another test is under way. Raises SourceBusyError as `kick` does.
        """
        ask, busy = {"ask": "act", "name": "test_hook", "fields": {"app": app, "url": url}}, False
        for source in self._sources:
            answer = await answer_of(source.act(ask))
            if isinstance(answer, dict) and answer["found"]:
                found: list[Answer] = answer["deliveries"]
                return found
            busy = busy or answer is SourceBusyError
        if busy:
            raise SourceBusyError
        return None

    async def _act(self, act: Answer) -> Answer | None:
        """Have all processes do something, and return the answer of one that had what it is about."""
        answers = await asyncio.gather(*[answer_of(source.act(act)) for source in self._sources])
        for answer in answers:
            if isinstance(answer, dict) and answer["found"]:
                return answer
        if SourceBusyError in answers:
            raise SourceBusyError
        return None


async def answer_of(asked: Coroutine[None, None, Answer]) -> Answer | type[Exception]:
    """Return an answer, or why there is none."""
    try:
        return await asked
    except (SourceBusyError, SourceGoneError) as error:
        return type(error)


def merge_topics(answers: list[Answer], limit: int) -> Answer:
    """Return the topics with the most subscribers in all processes."""
    found: dict[str, list[int]] = {}
    for answer in answers:
        for topic, subscribers, present, held in answer["topics"]:
            known = found.get(topic, (0, 0, 0))
            # Those present, and what is held, each process has of all.
            found[topic] = [known[0] + subscribers, max(known[1], present), max(known[2], held)]
    first = sorted(found.items(), key=lambda item: (-item[1][0], item[0]))[:limit]
    names = ("subscribers", "present", "held")
    return {
        "total": max([len(found), *(answer["total"] for answer in answers)]),
        "topics": [{"topic": topic, **dict(zip(names, counts, strict=True))} for topic, counts in first],
    }


def total(samples: Samples, name: str, line: str | None = None) -> float:
    """Return one number: that of a line, or of all lines of a metric."""
    lines = samples.get(name, {})
    return lines.get(line, 0) if line else sum(lines.values())
