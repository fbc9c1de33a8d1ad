"""The Redis Cluster backplane beyond the contract: what is about one slot, or one node, no other topic notices."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Container, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import redis as client

from rawws.backplanes import redis_slots
from rawws.backplanes.redis_cluster import RedisClusterBackplane
from rawws.backplanes.redis_cluster import topics_of as topics_of_slots
from rawws.backplanes.redis_slots import SLOTS, slot_of
from rawws.backplanes.session import LONGEST_WAIT
from rawws.topics import History, Hub
from rawws.topics.backplane import ALL_TOPICS, NO_TOPICS, BackplaneAway
from tests.backplanes.engine_redis_cluster import RedisCluster, RedisClusterEngine, RedisProcess
from tests.backplanes.engines import Started
from tests.backplanes.handlers import Reader, Told, hubs, opened
from tests.processes import LOOPBACK, free_port
from tests.server.peers import Logged, eventually

ON_ONE_LOOP = True


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[RedisClusterEngine]:
    made = RedisClusterEngine(tmp_path)
    yield made
    made.end()


def topics_of(cluster: RedisCluster) -> dict[int, str]:
    """Return a topic for each master, by its port."""
    found: dict[int, str] = {}
    for number in range(1000):
        found.setdefault(cluster.at(f"t{number}").port, f"t{number}")
        if len(found) == 3:
            return found
    raise AssertionError(found)


def take_transitions(logged: Logged) -> None:
    """Take what was logged of nodes that went and came, however often."""
    for said in ("the backplane is away, some topics are degraded", "the backplane is back"):
        logged.take_all(said, sum(said in line for line in logged.left()))


class Stream:
    """Publications to topics, one after the other, by one hub; and who reads them at another one."""

    def __init__(self, hub: Hub, topics: list[str]) -> None:
        self.hub = hub
        self.readers = {topic: Reader() for topic in topics}
        self.counts = dict.fromkeys(topics, 0)
        self.outcomes: list[Any] = []
        # Seconds from one publication to the next.
        self.interval = 0.002

    async def read(self, hub: Hub) -> None:
        for topic, reader in self.readers.items():
            await hub.subscribe(reader, topic)

    async def run(self) -> None:
        while True:
            for topic in self.readers:
                self.outcomes.append(self.hub.publish(topic, str(self.counts[topic])))
                self.counts[topic] += 1
            await asyncio.sleep(self.interval)

    def is_whole(self, topic: str) -> bool:
        return self.readers[topic].got == [str(number) for number in range(self.counts[topic])]


@asynccontextmanager
async def streaming(one: Hub, two: Hub, topics: list[str]) -> AsyncIterator[Stream]:
    """Publish by one hub what another one hears, and see at the end that all came that was published."""
    stream = Stream(one, topics)
    await stream.read(two)
    task = asyncio.create_task(stream.run())
    try:
        yield stream
    finally:
        task.cancel()
        await asyncio.wait({task})
    for outcome in stream.outcomes:
        await outcome
    await eventually(lambda: one.stats().unsent == 0)


async def goes_on(stream: Stream, topics: list[str], count: int = 100) -> None:
    """Wait until so many more have come of topics."""
    begin = {topic: len(stream.readers[topic].got) for topic in topics}
    await eventually(lambda: all(len(stream.readers[topic].got) >= begin[topic] + count for topic in topics))


async def test_where_one_of_three_masters_is_killed_the_topics_of_the_others_notice_nothing(
    engine: RedisClusterEngine, logged: Logged
) -> None:
    topics = topics_of(engine.cluster)
    async with hubs(engine, history=History(count=10_000)) as (one, two):
        async with streaming(one, two, [*topics.values()]) as stream:
            await goes_on(stream, [*topics.values()])
            server = engine.cluster.servers[0]
            lost, others = topics.pop(server.port), [*topics.values()]
            server.kill()
            await eventually(lambda: one.stats().degraded and two.stats().degraded)
            await goes_on(stream, others, 300)
            # Those of the one that is lost are heard where they are published.
            assert one.stats().unsent > 0
            server.start()
            await eventually(lambda: not one.stats().degraded and not two.stats().degraded)
            await goes_on(stream, [lost])
        await eventually(lambda: all(map(stream.is_whole, [lost, *others])))
        assert [stream.readers[topic].moves for topic in others] == [[], []]
        # It kept all that it answered.
        assert stream.readers[lost].lost_at == []
        assert one.stats().lost == one.stats().gaps == two.stats().gaps == two.stats().declared == 0
    logged.take_all("the backplane is away, some topics are degraded", 2)
    logged.take_all("the backplane is back", 2)


def move_slot(cluster: RedisCluster, topic: str) -> RedisProcess:
    """Move the slot of a topic to another master, as redis-cli does, and return that."""
    slot, source = slot_of(topic), cluster.at(topic)
    [target, *_] = [server for server in cluster.servers if server is not source]
    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.ident)
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.ident)
    while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 1):
        source.ask("MIGRATE", LOOPBACK, target.port, "", 0, 5000, "KEYS", *[key.decode() for key in keys])
    for server in (target, source, *cluster.servers):
        server.ask("CLUSTER", "SETSLOT", slot, "NODE", target.ident)
    return target


async def test_a_slot_that_moves_while_publications_flow_loses_nothing_and_no_other_notices(
    engine: RedisClusterEngine, logged: Logged
) -> None:
    topics = [*topics_of(engine.cluster).values()]
    moving, others = topics[0], topics[1:]
    engine.arguments = {"lease": 2.0}
    async with hubs(engine, history=History(count=10_000)) as (one, two):
        present = (await one.subscribe(Reader(), moving, join="x")).present
        async with streaming(one, two, topics) as stream:
            for _ in range(4):
                await goes_on(stream, topics)
                await asyncio.to_thread(move_slot, engine.cluster, moving)
                await goes_on(stream, topics)
        await eventually(lambda: all(map(stream.is_whole, topics)))
        assert [stream.readers[topic].moves for topic in others] == [[], []]
        assert stream.readers[moving].lost_at == []
        assert one.stats().lost == two.stats().declared == 0
        await eventually(lambda: [each.id for each in two.presence(moving)] == [present])
    take_transitions(logged)


async def test_a_slot_that_is_left_half_moved_is_away_until_somebody_ends_that(
    engine: RedisClusterEngine, logged: Logged
) -> None:
    topic, other, *_ = topics_of(engine.cluster).values()
    slot, source = slot_of(topic), engine.cluster.at(topic)
    [target, *_] = [server for server in engine.cluster.servers if server is not source]
    async with hubs(engine, 1) as (hub,):
        await hub.publish("begin", "x")
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.ident)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.ident)
        outcome = hub.publish(topic, "1")
        await eventually(lambda: hub.stats().degraded)
        assert (await hub.publish(other, "x")).accepted
        for server in (source, target):
            server.ask("CLUSTER", "SETSLOT", slot, "STABLE")
        await eventually(lambda: not hub.stats().degraded and not hub.stats().unsent)
        await outcome
        reader = Reader()
        await hub.subscribe(reader, topic, since="earliest")
        assert reader.got == ["1"]
    take_transitions(logged)


async def test_who_leaves_while_a_slot_moves_is_gone_where_it_went(engine: RedisClusterEngine, logged: Logged) -> None:
    topic = topics_of(engine.cluster).popitem()[1]
    async with opened(engine, "one") as one, opened(engine, "two") as two:
        await eventually(lambda: one.backs and two.backs)
        for ident in ("stays", "goes", "later"):
            one.backplane.join(topic, ident, "null")
        await two.backplane.follow(topic)
        assert len(await two.backplane.presence(topic)) == 3
        source, slot = engine.cluster.at(topic), slot_of(topic)
        [target, *_] = [server for server in engine.cluster.servers if server is not source]
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.ident)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.ident)
        keys = [key.decode() for key in source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100)]
        source.ask("MIGRATE", LOOPBACK, target.port, "", 0, 5000, "KEYS", *keys)
        # The node does not have the roster any more, and no other is the owner yet.
        one.backplane.leave(topic, "goes")
        await eventually(lambda: topic in one.away)
        for server in engine.cluster.servers:
            server.ask("CLUSTER", "SETSLOT", slot, "NODE", target.ident)
        await eventually(lambda: topic not in one.away)
        one.backplane.leave(topic, "later")
        while await present_at(two, topic) != ["stays"]:
            pass


async def present_at(told: Told, topic: str) -> list[str]:
    """Return who is present, nobody where the node is away."""
    try:
        return [entry.id for entry in await told.backplane.presence(topic)]
    except BackplaneAway:
        await asyncio.sleep(0.01)
        return []


async def test_a_server_that_dies_is_gone_from_the_topics_of_all_masters(engine: RedisClusterEngine) -> None:
    topics = [*topics_of(engine.cluster).values()]
    async with opened(engine, "two") as two:
        async with opened(engine, "one") as one:
            await eventually(lambda: one.backs and two.backs)
            for topic in topics:
                one.backplane.join(topic, "x", "null")
                # What one asks, behind it.
                assert len(await one.backplane.presence(topic)) == 1
        await eventually(lambda: two.gone == ["one"] * 3)
        for topic in topics:
            assert await two.backplane.presence(topic) == []


async def test_a_slot_of_the_leases_that_moves_takes_nobody_with_it(engine: RedisClusterEngine, logged: Logged) -> None:
    async with hubs(engine, history=History(count=10_000)) as (one, two):
        replication: Any = one._replication
        await one.publish("begin", "x")
        shard = next(iter(replication.backplane.shards.values()))
        topic = topics_of(engine.cluster)[shard.address[1]]
        present = (await one.subscribe(Reader(), topic, join="x")).present
        reader = Reader()
        await two.subscribe(reader, topic)
        async with streaming(one, two, [topic]) as stream:
            for _ in range(2):
                await goes_on(stream, [topic])
                # Whose slot is that of the node's own.
                await asyncio.to_thread(move_slot, engine.cluster, shard.tag)
                await eventually(lambda: shard.tag not in replication.backplane.shards)  # noqa: B023
                shard = next(each for each in replication.backplane.shards.values() if slot_of(topic) in each.slots)
                await goes_on(stream, [topic])
        await eventually(lambda: stream.is_whole(topic))
        assert stream.readers[topic].lost_at == []
        await eventually(lambda: [each.id for each in two.presence(topic)] == [present])
    take_transitions(logged)


async def test_a_cluster_that_nobody_finds_is_away_and_one_without_slots_too(tmp_path: Path) -> None:
    nowhere = Told(RedisClusterBackplane(f"redis+cluster://{LOOPBACK}:{free_port()}"))
    nowhere.backplane.open("one", History(), nowhere)
    await eventually(lambda: nowhere.reasons)
    assert re.search(r"^127\.0\.0\.1:\d+: .*111", nowhere.reasons[0])
    for ask in (nowhere.backplane.follow("a"), nowhere.backplane.publish("a", "x", None, 1)):
        with pytest.raises(BackplaneAway, match="the node of the topic's slot is away"):
            await ask
    nowhere.backplane.join("a", "x", "null")
    nowhere.backplane.leave("a", "x")
    nowhere.backplane.unfollow("a")
    await eventually(lambda: nowhere.backplane.stats()["retries"] > 2)
    # Once, and of all topics.
    assert (nowhere.aways, nowhere.away) == (1, ALL_TOPICS)
    await nowhere.backplane.close()
    assert nowhere.reasons == nowhere.reasons[:1]
    server = RedisProcess(tmp_path)
    alone = Told(RedisClusterBackplane(f"redis+cluster://{LOOPBACK}:{server.port}"))
    alone.backplane.open("one", History(), alone)
    await eventually(lambda: alone.reasons)
    assert alone.reasons == ["the cluster has no slots"]
    alone.backplane.join("a", "x", "null")
    # Half of them, of which "a" is one.
    server.ask("CLUSTER", "ADDSLOTSRANGE", 8192, 16383)
    await eventually(lambda: "a" not in alone.away)
    assert (alone.backs, "b" in alone.away) == (0, slot_of("b") < 8192)
    assert [entry.id for entry in await alone.backplane.presence("a")] == ["x"]
    server.ask("CLUSTER", "ADDSLOTSRANGE", 0, 8191)
    await eventually(lambda: alone.backs == 1)
    assert alone.aways == 1
    await alone.backplane.close()
    server.kill()


async def test_what_is_no_redis_of_a_cluster_is_said(tmp_path: Path, started: Started) -> None:
    engine = started(tmp_path)
    told = Told(RedisClusterBackplane(f"redis+cluster://{LOOPBACK}:{engine.port}"))
    told.backplane.open("one", History(), told)
    await eventually(lambda: told.reasons)
    assert "This instance has cluster support disabled" in told.reasons[0]
    await told.backplane.close()


@contextmanager
def replicated(folder: Path) -> Iterator[RedisCluster]:
    cluster = RedisCluster(folder, replicas=3)
    try:
        yield cluster
    finally:
        cluster.kill()


# A replica needs the votes of both masters that are left within twice the node timeout, and asks again after four times
# that: where one of them stands still on a busy machine, the third election begins after a minute.
ELECTIONS: Final = 180.0


async def replaced(replica: RedisProcess) -> None:
    """Wait until a replica is in the place of its master, which died."""

    def is_master() -> bool:
        with contextlib.suppress(client.TimeoutError):
            return bool(replica.ask("ROLE")[0] == b"master")
        return False

    try:
        await eventually(is_master, ELECTIONS)
    except AssertionError as error:
        error.add_note(replica.ask("CLUSTER", "NODES").decode())
        raise


async def test_a_master_that_dies_is_replaced_by_its_replica_and_only_its_topics_are_told(
    tmp_path: Path, logged: Logged
) -> None:
    with replicated(tmp_path) as cluster:
        topics = topics_of(cluster)
        server = cluster.servers[0]
        lost, others = topics.pop(server.port), [*topics.values()]
        history = History(count=10_000)
        one, two = (Hub(backplane=RedisClusterBackplane(cluster.url, lease=3.0), history=history) for _ in range(2))
        async with one, two:
            present = (await one.subscribe(Reader(), lost, join="x")).present
            async with streaming(one, two, [lost, *others]) as stream:
                await goes_on(stream, [lost, *others])
                await eventually(lambda: [each.id for each in two.presence(lost)] == [present])
                server.kill()
                await eventually(lambda: one.stats().degraded and two.stats().degraded)
                await goes_on(stream, others)
                # Nobody starts it again; however long that takes, no more waits than may wait.
                stream.interval = 0.05
                await replaced(cluster.servers[3])
                await eventually(lambda: not one.stats().degraded and not two.stats().degraded)
                await goes_on(stream, [lost, *others])
            await eventually(lambda: all(map(stream.is_whole, others)))
            assert [stream.readers[topic].moves for topic in others] == [[], []]
            reader = stream.readers[lost]
            # The replica may not have had the last of what its master answered.
            assert reader.lost_at
            part = reader.got[reader.lost_at[-1] :]
            assert part == [str(number) for number in range(stream.counts[lost] - len(part), stream.counts[lost])]
            assert [each.id for each in two.presence(lost)] == [present]
    take_transitions(logged)


async def take_over(replica: RedisProcess) -> None:
    """Have a replica become the master: it gives up after five seconds where the two do not come together."""
    while replica.ask("ROLE")[0] != b"master":
        replica.ask("CLUSTER", "FAILOVER")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(6):
                await eventually(lambda: replica.ask("ROLE")[0] == b"master")


async def test_a_master_that_hands_over_to_its_replica_is_away_for_a_moment(tmp_path: Path, logged: Logged) -> None:
    with replicated(tmp_path) as cluster:
        topic = topics_of(cluster)[cluster.servers[0].port]
        async with Hub(backplane=RedisClusterBackplane(cluster.url)) as hub:
            reader = Reader()
            await hub.subscribe(reader, topic)
            await hub.publish(topic, "1")
            await take_over(cluster.servers[3])
            await eventually(lambda: reader.moves)
            await hub.publish(topic, "2")
            await eventually(lambda: reader.got[-1] == "2")
            await eventually(lambda: not hub.stats().degraded)
    take_transitions(logged)


async def test_a_hub_that_fails_at_what_the_cluster_tells_it_is_told_what_comes_next(
    engine: RedisClusterEngine, logged: Logged
) -> None:
    told = Told(engine.backplane())
    for backs in (1, 2):
        told.fails = ValueError("of the hub")
        if backs == 1:
            told.backplane.open("one", History(), told)
        else:
            for server in engine.cluster.servers:
                server.ask("CLIENT", "KILL", "TYPE", "normal")
        await eventually(lambda backs=backs: told.backs == backs)  # type: ignore[misc]
    assert (await told.backplane.publish("a", "x", None, 1)).offset == 1
    await told.backplane.close()
    logged.take_all("a hub failed at what the Redis Cluster told it", 2)


# -- slots that are not served


async def test_a_slot_in_doubt_is_asked_for_ever_later_up_to_a_bound_and_begins_anew_with_another_node() -> None:
    backplane: Any = RedisClusterBackplane(f"redis+cluster://{LOOPBACK}:1")
    backplane._loop = asyncio.get_running_loop()
    waits = []
    for _ in range(12):
        backplane.doubt(5, "it said MOVED")
        # Once more while it is not asked for.
        backplane.doubt(5, "it said MOVED")
        waits.append(backplane._doubts[5].wait)
        assert backplane._shut[5]
        backplane._shut[5] = 0
    assert waits[:4] == [0.1, 0.2, 0.4, 0.8]
    assert waits[-2:] == [LONGEST_WAIT, LONGEST_WAIT]
    # One that is shut for another reason is in doubt all the same.
    backplane._shut[6] = 1
    backplane.doubt(6, "it said ASK")
    assert backplane._doubts[6].wait == 0.1


def test_of_no_slot_no_topic_and_of_all_slots_all_are_told() -> None:
    assert topics_of_slots(frozenset()) is NO_TOPICS
    assert topics_of_slots(frozenset(range(SLOTS))) is ALL_TOPICS
    one = topics_of_slots(frozenset({slot_of("a")}))
    assert "a" in one
    assert "b" not in one


async def test_what_a_master_is_lost_with_is_of_its_own_slots_alone(
    engine: RedisClusterEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics = topics_of(engine.cluster)
    async with opened(engine, "one") as one:
        await eventually(lambda: one.backs)
        backplane: Any = one.backplane
        gone: list[tuple[str, list[str]]] = []

        def hear(server: str, away: Container[str]) -> None:
            gone.append((server, [topic for topic in topics.values() if topic in away]))

        monkeypatch.setattr(one, "on_server_gone", hear)
        shards = [*backplane.shards.values()]
        for shard in shards:
            shard.on_server_gone("two")
        assert gone == [("two", [topics[shard.address[1]]]) for shard in shards]
        # Any topic may have come from any of them.
        assert all(shard.keeps_all() for shard in shards)
        shards[0].node.keeps = False
        assert not any(shard.keeps_all() for shard in shards)


async def test_a_slot_that_is_shut_is_not_asked_for_until_it_is_open_again_and_others_are(
    engine: RedisClusterEngine,
) -> None:
    topic, other, *_ = topics_of(engine.cluster).values()
    async with opened(engine, "one") as one:
        await eventually(lambda: one.backs)
        backplane: Any = one.backplane
        backplane.join(topic, "x", "null")
        assert [entry.id for entry in await backplane.presence(topic)] == ["x"]
        # As if the node had refused it: what it was told of who is present may be lost.
        owner = backplane._owners[slot_of(topic)]
        engine.cluster.at(topic).ask("DEL", *engine.cluster.at(topic).ask("KEYS", f"{engine.prefix}:{{{topic}}}:*"))
        backplane.doubt(slot_of(topic), "of the test")
        with pytest.raises(BackplaneAway, match="the node of the topic's slot is away"):
            await backplane.publish(topic, "1", None, 1)
        assert (await backplane.publish(other, "1", None, 2)).offset == 1
        await eventually(lambda: topic in one.away)
        assert other not in one.away
        await eventually(lambda: one.backs == 2)
        assert backplane._owners[slot_of(topic)] is owner
        assert (await backplane.publish(topic, "1", None, 1)).offset == 1
        assert [entry.id for entry in await backplane.presence(topic)] == ["x"]
        # Forgotten when it was right for long enough.
        doubt = backplane._doubts[slot_of(topic)]
        await backplane._look()
        assert slot_of(topic) in backplane._doubts
        backplane._doubts[slot_of(topic)] = doubt._replace(until=doubt.until - LONGEST_WAIT)
        await backplane._look()
        assert slot_of(topic) not in backplane._doubts


async def test_who_is_present_is_told_to_the_node_that_gets_a_slot_without_its_keys(engine: RedisClusterEngine) -> None:
    topic = topics_of(engine.cluster).popitem()[1]
    slot, source = slot_of(topic), engine.cluster.at(topic)
    async with opened(engine, "one") as one:
        await eventually(lambda: one.backs)
        backplane: Any = one.backplane
        await backplane.follow(topic)
        backplane.join(topic, "x", "null")
        assert [entry.id for entry in await backplane.presence(topic)] == ["x"]
        before = backplane._owners[slot]
        backplane.doubt(slot, "of the test")
        for key in source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100):
            source.ask("DEL", key)
        target = await asyncio.to_thread(move_slot, engine.cluster, topic)
        await eventually(lambda: backplane._owners[slot] is not before and topic not in one.away)
        after = backplane._owners[slot]
        assert after.address[1] == target.port
        assert (slot in before.slots, slot in after.slots) == (False, True)
        # What was asked of the old node meanwhile may put it in doubt once more.
        await eventually(lambda: slot not in backplane._doubts)
        # The node before has nothing of it any more.
        assert topic not in before.node._followed.values()
        assert (topic, "x") not in before.node._session.here
        while await present_at(one, topic) != ["x"]:
            pass


async def test_a_master_that_is_somewhere_else_is_reached_there(engine: RedisClusterEngine) -> None:
    topics = topics_of(engine.cluster)
    # So long that the map is not asked for meanwhile.
    engine.arguments = {"lease": 1000.0}
    async with opened(engine, "one") as one:
        await eventually(lambda: one.backs)
        backplane: Any = one.backplane
        assert {port for _, port in backplane._known} == set(topics)
        tag, shard = next(iter(backplane.shards.items()))
        masters = {each.tag: each for each in await masters_now(backplane)}
        moved = next(master.address for other, master in masters.items() if other != tag)
        backplane._apply(masters | {tag: masters[tag]._replace(address=moved)})
        assert shard.address == moved
        await eventually(lambda: one.aways)
        assert topics[masters[tag].address[1]] in one.away
        await eventually(lambda: one.backs == 2)
        # One that is no master any more is closed, at the latest with the backplane.
        backplane._apply({each: master for each, master in masters.items() if each != tag})
        assert len(backplane._ending) == 1
    assert not backplane._ending


async def masters_now(backplane: Any) -> list[Any]:
    """Return the masters that the map has."""
    masters, _ = redis_slots.masters_of(*await backplane._ask_map())
    return masters


async def test_the_nodes_that_were_seen_are_asked_though_the_url_names_one_that_is_gone(
    engine: RedisClusterEngine,
) -> None:
    first = engine.cluster.servers[0]
    nowhere = free_port()
    url = f"redis+cluster://{LOOPBACK}:{first.port},{LOOPBACK}:{nowhere}"
    told = Told(RedisClusterBackplane(url, prefix=engine.prefix))
    told.backplane.open("one", History(), told)
    await eventually(lambda: told.backs)
    backplane: Any = told.backplane
    assert {port for _, port in backplane._known} == {nowhere, *[server.port for server in engine.cluster.servers]}
    await told.backplane.close()
