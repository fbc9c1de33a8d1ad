"""The Redis Cluster backplane: hubs that the masters of a cluster join, each those topics whose slots it has.

Laws:
1. Each master is one node (redis_node.py), with its connections, leases and scripts; a topic is asked for at the one
   that has its slot. What is published stays on that node, by SPUBLISH.
2. A slot that a node does not serve (MOVED, ASK, a new map, a node that is lost, a replica in its place) is shut at
   once: what is asked of its topics fails. They are told as away, once; then, when a node serves the slot, as back.
3. So whatever happens to a slot, also where it is over at once, is away and back to the hub, which follows again, asks
   for what came meanwhile, and sends what waited in its order. No topic of another slot notices.
"""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import suppress
from functools import partial
from itertools import compress, count
from typing import TYPE_CHECKING, Any, NamedTuple, final

from rawws.net.cancellation import end_all, finish
from rawws.topics.backplane import ALL_TOPICS, NO_TOPICS, BackplaneAway, new_answer

from .redis import check_options
from .redis_line import RedisLine
from .redis_node import RedisNode
from .redis_slots import SLOTS, SlotTopics, masters_of, slot_of
from .redis_urls import cluster_of
from .remedies import with_remedy
from .session import LONGEST_WAIT, engine_waits

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

    from redis.asyncio import Connection

    from rawws.topics.backplane import BackplaneHandler, History, HistoryResult, Position, PresenceEntry, Record

    from .redis_slots import Address, MasterSlots

__all__ = ["RedisClusterBackplane"]

logger = logging.getLogger("rawws.backplanes")

# What is lost together is told together, within so many seconds.
TOGETHER = 0.005
# From one look at the map of the slots to the next: while some are away, in seconds, and else as a part of the lease.
LOOK_AWAY = 0.1
LOOK_PART = 8
# A slot on its way to another node is asked for again after so many seconds, then twice as many, up to LONGEST_WAIT.
FIRST_DOUBT = 0.1
EVERY_SLOT = frozenset(range(SLOTS))


class Doubt(NamedTuple):
    """A slot that is not served by the node that has it: until when it is not asked for, and how long that is."""

    until: float
    wait: float


@final
class ClusterShard:
    """A master of the cluster, whichever node that is: where it is, and what comes of it (a BackplaneHandler)."""

    __slots__ = ("_cluster", "address", "db", "node", "reached", "settled", "slots", "tag")

    def __init__(self, cluster: RedisClusterBackplane, master: MasterSlots) -> None:
        self._cluster = cluster
        self.address = master.address
        self.slots = master.slots
        self.tag = master.tag
        self.db = 0
        self.reached = False
        # Whether it was tried to reach it.
        self.settled = False
        self.node = cluster.node_of(self)

    # -- for its node: where it is, and what it is of a cluster

    async def find(self) -> Callable[[], Connection]:
        """Return what makes connections to the master."""
        return partial(self._cluster.url.connection, self.address)

    async def check(self) -> None:
        """Do nothing: the cluster looks at the map."""

    def on_redirect(self, topic: str, error: str) -> None:
        """Have the cluster ask where a topic is."""
        self._cluster.doubt(slot_of(topic), f"{name_of(self.address)}: {error}")

    def keeps_all(self) -> bool:
        """Tell whether all masters have on their disks what they answered: any topic may have come from any."""
        return all(shard.node.keeps for shard in self._cluster.shards.values())

    # -- what its node says

    def on_record(self, record: Record) -> None:
        """Pass a record on."""
        self._cluster.handler.on_record(record)

    def on_presence(self, topic: str, event: str, entry: PresenceEntry) -> None:
        """Pass on who joined or left."""
        self._cluster.handler.on_presence(topic, event, entry)

    def on_server_gone(self, server: str, topics: Container[str] = ALL_TOPICS) -> None:  # noqa: ARG002 - it has some
        """Pass on that a server has no lease here any more: it may have one at other masters."""
        self._cluster.handler.on_server_gone(server, SlotTopics(self.slots))

    def on_doubt(self, topic: str, reason: str = "") -> None:
        """Pass a doubt on."""
        self._cluster.handler.on_doubt(topic, reason)

    def on_away(self, reason: str, away: Container[str] = ALL_TOPICS) -> None:  # noqa: ARG002 - all of its own
        """Shut all slots of the master."""
        self.reached, self.settled = False, True
        self._cluster.shut(self.slots, f"{name_of(self.address)}: {reason}")

    def on_back(self, away: Container[str] = NO_TOPICS) -> None:  # noqa: ARG002 - all of its own
        """Have its slots be opened."""
        self.reached = self.settled = True
        self._cluster.wake()


@final
class RedisClusterBackplane:
    """A hub's connections to a Redis Cluster: `RedisClusterBackplane("redis+cluster://a:6379,b:6379")`.

    Of the nodes in the URL, any one is asked for all others. The other options are as those of RedisBackplane. Needs
    Redis 7 or Valkey.

    Raises ImportError where the package `redis` is missing, ValueError for a URL that is none.
    """

    patterns = False

    def __init__(
        self,
        url: str = "redis+cluster://127.0.0.1:6379",
        *,
        prefix: str = "rawws",
        lease: float = 15.0,
        timeout: float = 5.0,
    ) -> None:
        check_options(prefix, lease, timeout)
        from redis.exceptions import RedisError  # noqa: PLC0415

        self._errors = (RedisError, OSError, ValueError)
        self.url = cluster_of(url)
        self.prefix = prefix
        self.lease = lease
        self.timeout = timeout
        self.handler: BackplaneHandler
        # The masters, by their tags.
        self.shards: dict[str, ClusterShard] = {}
        self._server = ""
        self._numbers = count()
        self._retries = 0
        self._closed = False
        self._task: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        # Where nodes were seen.
        self._known: set[Address] = set(self.url.nodes)
        self._owners: list[ClusterShard | None] = [None] * SLOTS
        # The slots of which nothing is asked, those that a node did not serve that has them, and those of which the hub
        # knows that they are away: None until it knows anything.
        self._shut = bytearray(b"\x01" * SLOTS)
        self._doubts: dict[int, Doubt] = {}
        self._told: frozenset[int] | None = None
        self._reason = ""
        # Who is present by this server: what each tells of itself, by topic and id.
        self._here: dict[tuple[str, str], str] = {}

    # -- the contract

    def open(self, server: str, history: History, handler: BackplaneHandler) -> None:
        """Reach the engine in the running loop, then call on_back or on_away of the handler."""
        self._server, self._history, self.handler = server, history, handler
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run())

    async def close(self) -> None:
        """End the leases of this server, and close all connections."""
        if self._task is not None:
            self._closed = True
            await finish(self._end(self._task))
            self._task = None

    def publish(
        self, topic: str, message: str | bytes, key: str | None, number: int, extra: str = ""
    ) -> asyncio.Future[Position]:
        """Store a message and send it to all followers of the topic. The future gets its position."""
        node = self._node_of(topic)
        return self._away() if node is None else node.publish(topic, message, key, number, extra)

    def follow(self, topic: str) -> asyncio.Future[None]:
        """Pass records of this topic to the handler, from when the future is done."""
        node = self._node_of(topic)
        return self._away() if node is None else node.follow(topic)

    def unfollow(self, topic: str) -> None:
        """Pass no more records of this topic to the handler."""
        owner = self._owners[slot_of(topic)]
        if owner is not None:
            owner.node.unfollow(topic)

    def history(self, topic: str, since: Position | None) -> asyncio.Future[HistoryResult]:
        """Return the records after a position, or all that are stored if it is None."""
        node = self._node_of(topic)
        return self._away() if node is None else node.history(topic, since)

    def join(self, topic: str, ident: str, info: str) -> None:
        """Enter somebody into the presence of a topic, and tell its followers."""
        self._here[topic, ident] = info
        owner = self._owners[slot_of(topic)]
        if owner is not None:
            owner.node.join(topic, ident, info)

    def leave(self, topic: str, ident: str) -> None:
        """Remove somebody from the presence of a topic, and tell its followers."""
        self._here.pop((topic, ident), None)
        owner = self._owners[slot_of(topic)]
        if owner is not None:
            owner.node.leave(topic, ident)

    def presence(self, topic: str) -> asyncio.Future[list[PresenceEntry]]:
        """Return who is present in a topic, at servers whose lease has not ended."""
        node = self._node_of(topic)
        return self._away() if node is None else node.presence(topic)

    def stats(self) -> dict[str, int]:
        """Return the number of retries to reach a node of the engine."""
        return {"retries": self._retries + sum(shard.node.stats()["retries"] for shard in self.shards.values())}

    # -- what its shards call

    def node_of(self, shard: ClusterShard) -> RedisNode:
        """Return the node of a master that is new."""
        options = {"prefix": self.prefix, "lease": self.lease, "timeout": self.timeout}
        return RedisNode(shard, **options, sharded=True, shard=shard, numbers=self._numbers)  # type: ignore[arg-type]

    def shut(self, slots: Iterable[int], reason: str) -> None:
        """Have nothing be asked of slots any more, and the hub be told that they are away."""
        self._reason = reason
        for slot in slots:
            self._shut[slot] = 1
        self._wake.set()

    def doubt(self, slot: int, reason: str) -> None:
        """Shut a slot that its node does not serve, for a while, or until another node has it."""
        if not self._shut[slot] or slot not in self._doubts:
            before = self._doubts.get(slot)
            wait = FIRST_DOUBT if before is None else min(2 * before.wait, LONGEST_WAIT)
            self._doubts[slot] = Doubt(self._loop.time() + wait, wait)
            self.shut([slot], reason)

    def wake(self) -> None:
        """Have slots be opened that are served."""
        self._wake.set()

    # -- inside

    async def _end(self, task: asyncio.Task[None]) -> None:
        try:
            await end_all(task)
        finally:
            ending = [self._loop.create_task(shard.node.close()) for shard in self.shards.values()]
            await asyncio.gather(*ending, *self._ending)

    def _node_of(self, topic: str) -> RedisNode | None:
        """Return the node that serves a topic, None where none does."""
        slot = slot_of(topic)
        owner = self._owners[slot]
        return None if owner is None or self._shut[slot] else owner.node

    def _away(self) -> asyncio.Future[Any]:
        answer = new_answer(self._loop)
        answer.set_exception(BackplaneAway("the node of the topic's slot is away"))
        return answer

    async def _run(self) -> None:
        waits = engine_waits()
        while not self._closed:
            try:
                await self._look()
            except self._errors as error:
                self._retries += 1
                if self._told is None:
                    self._reason = with_remedy(str(error) or "no answer in time")
                    self._told = EVERY_SLOT
                    self._tell(self.handler.on_away, self._reason)
                await self._wait(next(waits))
            else:
                waits = engine_waits()
                self._turn()
                await self._wait(LOOK_AWAY if self._told else self.lease / LOOK_PART)
            # What is lost is told before it is looked for.
            self._turn()

    async def _wait(self, seconds: float) -> None:
        """Wait until something happens, or it is time to look at the map again."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
                await asyncio.sleep(TOGETHER)
        self._wake.clear()

    def _turn(self) -> None:
        """Tell the hub which slots are away that were not, then which of them are back."""
        if not self.shards or (self._told is None and not all(shard.settled for shard in self.shards.values())):
            return
        shut = frozenset(compress(range(SLOTS), self._shut))
        served = {slot for slot in shut if self._is_served(slot)}
        left = shut - served
        if self._told is None:
            self._open(served)
            self._told = left
            if left:
                self._tell(self.handler.on_away, self._reason, topics_of(left))
            else:
                self._tell(self.handler.on_back)
            return
        if shut != self._told:
            self._told = shut
            self._tell(self.handler.on_away, self._reason, topics_of(shut))
        if served:
            self._open(served)
            self._told = left
            self._tell(self.handler.on_back, topics_of(left))

    def _tell(self, tell: Callable[..., None], *words: object) -> None:
        """Tell the hub, whose failure does not end this."""
        try:
            tell(*words)
        except Exception:
            logger.exception("a hub failed at what the Redis Cluster told it")

    def _is_served(self, slot: int) -> bool:
        """Tell whether the node of a slot may be asked for it."""
        owner, doubt = self._owners[slot], self._doubts.get(slot)
        return owner is not None and owner.reached and (doubt is None or doubt.until <= self._loop.time())

    def _open(self, slots: set[int]) -> None:
        """Have slots be asked for, and their nodes know who is present in those that they did not serve."""
        for slot in slots:
            self._shut[slot] = 0
        doubted = slots & self._doubts.keys()
        for owner in {self._owners[slot] for slot in doubted}:
            if owner is not None:
                owner.node.resume(SlotTopics(owner.slots & doubted))

    # -- the map

    async def _look(self) -> None:
        """Ask a node for the map of the slots."""
        masters, nodes = masters_of(*await self._ask_map())
        if not masters:
            raise BackplaneAway("the cluster has no slots")
        self._known = nodes.union(self.url.nodes)
        self._apply({master.tag: master for master in masters})
        # Those that were right again for so long that they begin anew.
        long_ago = self._loop.time() - LONGEST_WAIT
        for slot in [slot for slot, doubt in self._doubts.items() if doubt.until < long_ago and not self._shut[slot]]:
            del self._doubts[slot]

    async def _ask_map(self) -> tuple[Any, Address]:
        """Return what the first node says that answers, and which it was: one that is reached, or any that was seen."""
        reached = [shard for shard in self.shards.values() if shard.reached]
        if reached:
            shard = random.choice(reached)  # noqa: S311 - no secret
            async with asyncio.timeout(self.timeout):
                return await shard.node.ask("CLUSTER", "SLOTS"), shard.address
        reasons = []
        for address in random.sample(sorted(self._known), len(self._known)):
            try:
                return await self._ask_node(address), address
            except self._errors as error:
                reasons.append(f"{name_of(address)}: {str(error) or 'no answer in time'}")
        raise BackplaneAway("; ".join(reasons))

    async def _ask_node(self, address: Address) -> Any:
        line = RedisLine(self.url.connection(address))
        try:
            async with asyncio.timeout(self.timeout / len(self._known)):
                await line.open()
                line.send("CLUSTER", "SLOTS")
                found = await line.read()
        finally:
            await finish(line.close("the map is known"))
        if isinstance(found, Exception):
            raise found
        return found

    def _apply(self, masters: dict[str, MasterSlots]) -> None:
        """Take over where the slots are."""
        before = dict(self.shards)
        for tag, master in masters.items():
            shard = self.shards.get(tag)
            if shard is None:
                shard = self.shards[tag] = ClusterShard(self, master)
                shard.node.open(self._server, self._history, shard)
            elif shard.address != master.address:
                shard.address = master.address
                shard.node.restart(f"its master is {name_of(master.address)} now")
            self._move({slot for slot in master.slots if self._owners[slot] is not shard}, shard)
            shard.slots = master.slots
        for tag in before.keys() - masters.keys():
            ending = self._loop.create_task(self.shards.pop(tag).node.close())
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    def _move(self, slots: set[int], shard: ClusterShard) -> None:
        """Have slots be served by another node than before."""
        if not slots:
            return
        self.shut(slots, f"slots moved to {name_of(shard.address)}" if self._told is not None else self._reason)
        moved = SlotTopics(frozenset(slots))
        for owner in {self._owners[slot] for slot in slots}:
            if owner is not None:
                owner.node.release(moved)
        for slot in slots:
            self._owners[slot] = shard
            self._doubts.pop(slot, None)
        for (topic, ident), info in self._here.items():
            if topic in moved:
                shard.node.join(topic, ident, info)


def topics_of(slots: frozenset[int]) -> Container[str]:
    """Return the topics of slots, as a hub is told."""
    if not slots:
        return NO_TOPICS
    return ALL_TOPICS if len(slots) == SLOTS else SlotTopics(slots)


def name_of(address: Address) -> str:
    """Return an address for a log."""
    return f"{address[0]}:{address[1]}"
