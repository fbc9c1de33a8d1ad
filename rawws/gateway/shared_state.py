"""Shared state: the state log of all instances, over the hub by which they hear each other.

Laws:
1. Who is ready knows what was told. Only who is ready proposes, and who is told of a gap is ready no more.
2. What this instance has is published until it is seen to have come, and anew where somebody asks.
3. While the backplane is away nobody proposes: there is no order then.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from typing import TYPE_CHECKING, Any, Final, final

import rawws
from rawws.net.cancellation import end_all

from .receivers import ControlReceiver
from .state_log import REPEAT, StateLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rawws.topics import Publication, PublishResult, Subscription

    from .state_log import Transition

__all__ = ["SharedState"]

logger = logging.getLogger("rawws.gateway")

# Who is present in the first is alive, who is in the second is ready.
TOPIC: Final = "state"
READY_TOPIC: Final = "state/ready"
# Seconds: between two looks at what is left to do; until what others ask for is answered, once for all of them; for
# which a newcomer waits where nobody seems to be ready; and until it asks again.
SWEEP: Final = 1.0
ANSWER_WAIT: Final = 0.2
ALONE_WAIT, ASK_WAIT = 1.0, 1.0
# What is said at the end has so long to reach the engine.
LAST_WORDS: Final = 2.0
# Seconds for which an instance that has something is not among the living: its word may come before its presence.
MISSING: Final = 5.0
# Of one record, in bytes of its keys.
PIECE: Final = 128 << 10


@final
class SharedState:
    """The state of all instances, as this one knows it; `start` it in the loop that serves, `close` it before the hub.

    `on_transition(transition, cursor)` is called for what this instance is to tell. `wait` is for how many seconds
    others are waited for at first, 0 where there can be none.
    """

    def __init__(
        self,
        hub: rawws.Hub,
        instance: str,
        on_transition: Callable[[Transition, str], None],
        *,
        wait: float = ALONE_WAIT,
    ) -> None:
        self.hub = hub
        self.log = StateLog(instance)
        # Whether it is known here what was told.
        self.is_ready = False
        self._on_transition = on_transition
        self._wait = wait
        # What this instance has; and when it said so last, of what did not come back yet.
        self._own: set[str] = set()
        self._unseen: dict[str, float] = {}
        # Of a newcomer: the number of its question, whether that has come, what was told since, and the pieces so far.
        self._asked = 0
        self._asked_at = 0.0
        self._question_came = False
        self._told_since: list[tuple[str, bool]] = []
        self._pieces: dict[str, list[str]] = {}
        self._answer: asyncio.TimerHandle | None = None
        # Since when who has something is not among the living.
        self._missing: dict[str, float] = {}
        self._was_degraded = False
        self._task: asyncio.Task[None] | None = None
        self._records = ControlReceiver(self._on_record, self._on_gap)
        self._presence = ControlReceiver()
        self._ready_presence = ControlReceiver()

    def __repr__(self) -> str:
        return f"<SharedState of {self.log.instance}: {len(self.log.told)} told>"

    def start(self) -> None:
        """Begin: hear what others say, and ask what was told."""
        begun = (
            self.hub.subscribe(self._records, TOPIC, join=self.log.instance),
            self.hub.subscribe(self._presence, READY_TOPIC),
        )
        self._task = asyncio.get_running_loop().create_task(self._run(begun))

    def hold(self, key: str, up: bool) -> None:
        """Say that this instance has the first connection for a key, or lost the last one."""
        if up == (key in self._own):
            return
        (self._own.add if up else self._own.discard)(key)
        self._say(key)
        self._propose()

    def replace(self, keys: Iterable[str]) -> None:
        """Say what this instance has, all of it."""
        self._own = set(keys)
        self._publish_all()

    async def close(self) -> None:
        """End. Where nobody else is there, what is still told is over, now; else others will tell that."""
        if self._task is None:
            return
        await end_all(self._task)
        self._task = None
        if self._answer is not None:
            self._answer.cancel()
        is_alone = self.is_ready and not self._living() - {self.log.instance}
        said = [self._publish({"i": self.log.instance, "all": []})]
        if is_alone:
            # Members leave before their channel ends.
            told = sorted(self.log.told, key=lambda key: ("/c:" in key, key))
            said += [self._publish({"i": self.log.instance, "tell": key, "up": False}) for key in told]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                await asyncio.gather(*said)
        for receiver in (self._records, self._presence, self._ready_presence):
            self.hub.unsubscribe(receiver)

    # -- what comes

    def _on_record(self, publication: Publication) -> None:
        record = record_of(publication)
        if record is None:
            return
        now = asyncio.get_running_loop().time()
        author = str(record.get("i", ""))
        if "ask" in record:
            self._on_question(author, int(record["ask"]))
        elif "told" in record:
            self._on_answer(record, now)
        else:
            if author == self.log.instance and self._unseen.get(str(record.get("k"))) is not None:
                if bool(record.get("up")) == (record["k"] in self._own):
                    del self._unseen[record["k"]]
            transition = self.log.apply(record, now)
            if transition is not None:
                if self._question_came:
                    self._told_since.append((transition.key, transition.up))
                if transition.author == self.log.instance:
                    self._on_transition(transition, publication.cursor)
            self._propose()

    def _on_gap(self) -> None:
        """Ask anew: it is not known what was lost."""
        logger.info("instance %s missed what others said, and asks them", self.log.instance)
        self._ask()

    def _on_question(self, author: str, number: int) -> None:
        """Answer with what this instance has, a little later; and with what was told, as of now, if it is the one."""
        if author == self.log.instance:
            if number == self._asked:
                self._question_came = True
                self._told_since, self._pieces = [], {}
        elif self.is_ready and min(self._ready() - {author}, default="") == self.log.instance:
            pieces = list(pieces_of(self.log.told)) or [[]]
            for place, piece in enumerate(pieces, 1):
                last = {"last": True} if place == len(pieces) else {}
                self._publish({"i": self.log.instance, "told": piece, "for": author, "re": number, **last})
        if self._answer is None:
            self._answer = asyncio.get_running_loop().call_later(ANSWER_WAIT, self._publish_all)

    def _on_answer(self, record: dict[str, Any], now: float) -> None:
        """Take over what was told when the question came, and what was since."""
        if record.get("for") != self.log.instance or record.get("re") != self._asked or not self._question_came:
            return
        pieces = self._pieces.setdefault(str(record["i"]), [])
        pieces += record["told"]
        if record.get("last"):
            told = set(pieces)
            for key, up in self._told_since:
                (told.add if up else told.discard)(key)
            self.log.restore(told, now)
            self._become_ready()

    # -- what is said

    def _publish(self, record: dict[str, Any]) -> PublishResult:
        return self.hub.publish(TOPIC, json.dumps(record, ensure_ascii=False, separators=(",", ":")))

    def _say(self, key: str) -> None:
        self._unseen[key] = asyncio.get_running_loop().time()
        self._publish({"i": self.log.instance, "k": key, "up": key in self._own})

    def _publish_all(self) -> None:
        self._answer = None
        self._unseen.clear()
        for place, piece in enumerate(list(pieces_of(self._own)) or [[]]):
            self._publish({"i": self.log.instance, "all": piece, **({"more": True} if place else {})})

    def _ask(self) -> None:
        self.is_ready = False
        self.hub.unsubscribe(self._ready_presence)
        self._asked += 1
        self._asked_at = asyncio.get_running_loop().time()
        self._question_came = False
        self._publish({"i": self.log.instance, "ask": self._asked})

    def _become_ready(self) -> None:
        self.is_ready = True
        self._question_came = False
        self._told_since, self._pieces = [], {}
        self.hub.subscribe(self._ready_presence, READY_TOPIC, join=self.log.instance)
        self._propose()

    def _propose(self) -> None:
        if self.is_ready and not self.hub.degraded:
            # Its own presence may be on its way.
            ready = self._ready() | {self.log.instance}
            for record in self.log.proposals(asyncio.get_running_loop().time(), ready):
                self._publish(record)

    # -- from time to time

    async def _run(self, begun: Iterable[Subscription]) -> None:
        for subscription in begun:
            while subscription.pending:
                # Where the engine cannot serve the topic, it begins when that is mended.
                with contextlib.suppress(rawws.TopicError):
                    await subscription
                await asyncio.sleep(0)
        self._ask()
        if not self._wait:
            self._become_ready()
        while True:
            await asyncio.sleep(SWEEP)
            self._sweep(asyncio.get_running_loop().time())

    def _sweep(self, now: float) -> None:
        """Do what is left to do."""
        if self.hub.degraded:
            self._was_degraded = True
            return
        if self._was_degraded:
            self._was_degraded = False
            # Others may have missed what was said here, and this one what was said elsewhere.
            self._ask()
        elif not self.is_ready:
            if self._ready() - {self.log.instance}:
                if now - self._asked_at >= ASK_WAIT:
                    self._ask()
            elif now - self._asked_at >= self._wait and self.log.instance == min(self._living(), default=""):
                # Of those who know nothing better, one begins, and the others ask it: so all know the same.
                self._become_ready()
        for key in [key for key, since in self._unseen.items() if now - since >= REPEAT]:
            self._say(key)
        self._forget_missing(now)
        self._propose()

    def _forget_missing(self, now: float) -> None:
        """Take those who are gone out of all that they had: their presence ended by itself."""
        missing = self.log.instances() - self._living() - {self.log.instance}
        self._missing = {each: self._missing.get(each, now) for each in missing}
        for each, since in self._missing.items():
            if now - since >= MISSING:
                self.log.forget(each, now)

    def _living(self) -> set[str]:
        return {str(present.info) for present in self.hub.presence(TOPIC)}

    def _ready(self) -> set[str]:
        return {str(present.info) for present in self.hub.presence(READY_TOPIC)}


def record_of(publication: Publication) -> dict[str, Any] | None:
    """Return what an instance said, None for what is no record: somebody else may use the engine, too."""
    try:
        record = json.loads(publication.message)
    except (ValueError, RecursionError):
        record = None
    return record if isinstance(record, dict) and isinstance(record.get("i"), str) else None


def pieces_of(keys: Iterable[str]) -> Iterator[list[str]]:
    """Yield keys in pieces that each fit into a record."""
    piece: list[str] = []
    size = 0
    for key in keys:
        piece.append(key)
        size += 2 * len(key) + 3
        if size >= PIECE:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece
