"""Control: the instances of a gateway to one another: who there is, and what each asks of another.

Each is present in the topic `instances` of the control hub: that is the instance registry. The lease of the backplane
takes out of it who died. Each has a topic `inbox/NUMBER` for what it is asked, and for the answers to what it asked.

Laws:
1. Who asks waits `PATIENCE` at most, and so many wait at once; then nothing is known of what became of it.
2. What was done once for a `once` is answered again, and not done again, within `REMEMBERED`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Any, Final, final

import rawws
from rawws import clock

from .receivers import ControlReceiver
from .spelling import new_instance

if TYPE_CHECKING:
    from collections.abc import Callable

    from rawws.topics import Publication

__all__ = ["InstanceRegistry", "OnceMemory", "RegistryAway"]


REGISTRY: Final = "instances"
# Seconds for an answer; one takes less than 2 ms.
PATIENCE: Final = 2.0
MOST_ASKED: Final = 10_000
# How long an instance waits for the others before it serves: without them, it serves its own.
START: Final = 5.0
# How long it is remembered what was done, and of how many.
REMEMBERED: Final = 60.0
MOST_REMEMBERED: Final = 10_000


class RegistryAway(Exception):
    """Another instance did not answer, or cannot be reached now."""


@final
class OnceMemory:
    """What was done for whom, for a minute: the status by the name of the call."""

    __slots__ = ("_done",)

    def __init__(self) -> None:
        self._done: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def status_of(self, once: str) -> int | None:
        """Return what became of a call that was made before, None for a new one."""
        found = self._done.get(once) if once else None
        return None if found is None or clock.monotonic() - found[0] > REMEMBERED else found[1]

    def remember(self, once: str, status: int) -> None:
        """Keep what became of a call."""
        if once:
            self._done[once] = clock.monotonic(), status
            if len(self._done) > MOST_REMEMBERED:
                self._done.popitem(last=False)


@final
class InstanceRegistry:
    """Which instances there are, and what is asked of them; `answer(verb, fields)` answers what others ask."""

    def __init__(self, hub: rawws.Hub, answer: Callable[[str, dict[str, Any]], dict[str, Any]]) -> None:
        self._hub = hub
        self._answer = answer
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.instance = -1
        # What became of what was asked: "answered", "gone", or "away".
        self.asked: Counter[str] = Counter()
        self._receiver = ControlReceiver(self._take)

    def _take(self, publication: Publication) -> None:
        """Take what another instance asks, or answers."""
        if publication.topic != inbox(self.instance):
            return
        said = json.loads(publication.message)
        if "re" in said:
            waiter = self._waiting.pop(said["re"], None)
            if waiter is not None and not waiter.done():
                waiter.set_result(said)
            return
        answer = self._answer(said["do"], said)
        self._hub.publish(inbox(said["from"]), json.dumps({**answer, "re": said["n"]}))

    # -- what the gateway calls

    async def start(self) -> None:
        """Draw a number that no other instance has, and be there."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START):
                await self._hub.subscribe(self._receiver, REGISTRY)
        taken = set(self.others())
        while self.instance < 0 or self.instance in taken:
            self.instance = new_instance()
        self._hub.unsubscribe(self._receiver, REGISTRY)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START):
                # First the inbox: who is in the registry is asked.
                await self._hub.subscribe(self._receiver, inbox(self.instance))
                told = {"instance": self.instance, "version": rawws.__version__, "since": round(time.time())}
                await self._hub.subscribe(self._receiver, REGISTRY, join=told)

    def close(self) -> None:
        """Be there no more."""
        self._hub.unsubscribe(self._receiver)
        for waiter in self._waiting.values():
            waiter.cancel()

    def others(self) -> list[int]:
        """Return the numbers of the other instances."""
        told = [present.info for present in self._hub.presence(REGISTRY)]
        return [each["instance"] for each in told if each["instance"] != self.instance]

    async def ask(self, instance: int, verb: str, **fields: Any) -> dict[str, Any]:
        """Return what an instance answers. Raises LookupError for one that there is not, RegistryAway for no answer."""
        outcome = "away"
        try:
            answer = await self._ask(instance, verb, fields)
            outcome = "answered"
        except LookupError:
            outcome = "gone"
            raise
        finally:
            self.asked[outcome] += 1
        return answer

    async def _ask(self, instance: int, verb: str, fields: dict[str, Any]) -> dict[str, Any]:
        if self._hub.degraded:
            raise RegistryAway("the backplane is away")
        if instance not in self.others():
            raise LookupError(f"there is no instance {instance}")
        if len(self._waiting) >= MOST_ASKED:
            raise RegistryAway(f"{MOST_ASKED} questions wait for their answers, the limit")
        number = next(self._numbers)
        waiter: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiter
        asked = {"n": number, "from": self.instance, "do": verb, **fields}
        try:
            self._hub.publish(inbox(instance), json.dumps(asked))
            async with asyncio.timeout(PATIENCE):
                return await waiter
        except (TimeoutError, rawws.TopicError) as error:
            raise RegistryAway(f"instance {instance} does not answer: {error}") from None
        finally:
            self._waiting.pop(number, None)

    async def ask_all(self, verb: str, **fields: Any) -> list[dict[str, Any]]:
        """Return what all other instances answer. Raises RegistryAway where one does not; one that has left is none."""
        found = await asyncio.gather(
            *[self.ask(instance, verb, **fields) for instance in self.others()], return_exceptions=True
        )
        answers = []
        for each in found:
            if isinstance(each, LookupError):
                continue
            if isinstance(each, BaseException):
                raise each
            answers.append(each)
        return answers


def inbox(instance: int) -> str:
    """Return the topic of what an instance is told."""
    return f"inbox/{instance}"
