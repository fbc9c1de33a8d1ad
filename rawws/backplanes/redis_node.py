"""Redis nodes: publications to one Redis 6.2 or later and back, by the package `redis` (extra `redis`).

Of each topic there is a hash, which says where it is, and a stream of what is held; one script gives a publication its
place, holds it and sends it to all that follow, by PUBLISH_SCRIPT. A topic's keys and its channel share one hash tag.

Laws:
1. One connection for what is asked, pipelined; one for what comes.
2. Each run of a Redis begins an epoch of its own: so what it forgot and gives again is not taken for the same. Whoever
   saw no more than is left goes on from an epoch before, where what was answered is on the disk (`appendonly yes`,
   `appendfsync always`); everybody else is told that something may be lost.
3. All that is in doubt ends both connections: what is not answered is asked for once more, in its order.
4. What is no doubt, a refusal or a key or message that is none of ours, is the fault of one topic and of no other.
5. What a node of a cluster says of one slot ends no connection: the cluster is told.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from functools import partial
from itertools import count, filterfalse
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote_to_bytes

from rawws.net.cancellation import cancel_all
from rawws.topics.backplane import (
    BackplaneAway,
    PresenceEntry,
    Record,
    TopicUnavailable,
    new_answer,
    new_entry,
)
from rawws.topics.patterns import is_pattern

from .redis_faults import is_about, is_redirect, is_topics_fault, lack_of, redirect_reason
from .redis_line import RedisLine, close_lines
from .redis_records import pack_record, quoted_topic, server_of, unpack_history, unpack_place, unpack_record
from .redis_run import ask_run
from .redis_scripts import (
    BEAT_SCRIPT,
    FOLLOW_SCRIPT,
    HISTORY_SCRIPT,
    PLAIN,
    PUBLISH_SCRIPT,
    RIGHTS_SCRIPT,
    SHARDED,
    introduction,
)
from .remedies import with_remedy
from .session import EngineSession, both, fail_answers

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

    from rawws.topics.backplane import BackplaneHandler, History, HistoryResult, Position

    from .redis_slots import Shard
    from .redis_urls import RedisSource

__all__ = ["RedisNode"]

Answer = TypeVar("Answer")

# For how long a topic's place is remembered that nobody follows, in milliseconds: longer than any history is held.
PLACE_AGE = 24 * 3600 * 1000
# And a pattern, which costs each publication something, for so many times the age of what is held, or so long.
PATTERN_AGES = 2
LEAST_PATTERN_AGE = 600 * 1000
# Of those who left while the Redis was away.
MAX_LEFT = 10_000
# What a message takes of the stream beside its bytes.
ENTRY_COST = 64


class RedisNode:
    """A hub's two connections to one Redis, which is looked for by its source; a `shard` where it is of a cluster.

    Who is present here is so under a lease, which has the next one of the `numbers`.
    """

    def __init__(
        self,
        source: RedisSource,
        *,
        prefix: str,
        lease: float,
        timeout: float,
        sharded: bool = False,
        shard: Shard | None = None,
        numbers: Iterator[int] | None = None,
    ) -> None:
        from redis.exceptions import RedisError  # noqa: PLC0415

        self.prefix = prefix
        self.lease = lease
        self.timeout = timeout
        self._source = source
        self._shard = shard
        # Channels know nothing of databases.
        self._channels = f"{prefix}:{source.db}"
        self._verbs = SHARDED if sharded else PLAIN
        self._own_verbs = PLAIN if shard is None else SHARDED
        self._session = EngineSession(self, "Redis", (RedisError, OSError))
        self._numbers = count() if numbers is None else numbers
        self._number = next(self._numbers)
        # Which run of a Redis this is, and whether what it answers is on its disk.
        self._run = ""
        self.keeps = False
        # What it keeps as long as its data, and as long as no other run or master had them.
        self._word = self._life = ""
        self._scripts: dict[str, bytes] = {}
        # By their channels.
        self._followed: dict[bytes, str] = {}
        # What was sent on the second connection, each of which has one answer: a verb, a channel, and who waits for it.
        self._sent: deque[tuple[str, str, asyncio.Future[None] | None]] = deque()
        self._left: list[tuple[str, str]] = []
        self._lines: tuple[RedisLine, RedisLine] | None = None
        self._tasks: list[asyncio.Task[Any]] = []

    # -- the contract

    @property
    def patterns(self) -> bool:
        """Whether there are patterns: the nodes of a cluster have some topics each, and no script is at two nodes."""
        return self._shard is None

    def open(self, server: str, history: History, handler: BackplaneHandler) -> None:
        """Reach the engine in the running loop, then call on_back or on_away of the handler."""
        self._session.open(server, history, handler)

    async def close(self) -> None:
        """End the lease of this server, and close the connection."""
        try:
            if self._lines is not None and self._session.reached:
                self._lines[0].ask("ZREM", self._key_of_leases, self._lease)
                gone = self._lines[0].ask(self._own_verbs.publish, self._own_channel, self._lease)
                await asyncio.wait({gone}, timeout=self.timeout)
        finally:
            await self._session.close()

    def publish(
        self, topic: str, message: str | bytes, key: str | None, number: int, extra: str = ""
    ) -> asyncio.Future[Position]:
        """Store a message and send it to all followers of the topic. The future gets its position."""
        session = self._session
        record = pack_record(session.server, number, message, key, extra)
        # As if all were as large as this one: so what is held is at most twice the bytes that the history allows.
        entries = min(session.history.count, max(1, session.history.size // (len(record) + ENTRY_COST)))
        verb, channel = self._verbs.publish, self._channel(topic)
        matched = (topic, self.prefix, self._channels) if self.patterns else ()
        words = (verb, channel, session.server, number, record, entries, self._age, *matched)
        return self._ask(unpack_place, PUBLISH_SCRIPT, topic, *words)

    def follow(self, topic: str) -> asyncio.Future[None]:
        """Pass records of this topic to the handler, from when the future is done."""
        answer: asyncio.Future[None] = self._session.new_answer()
        if self._lines is not None and not answer.done():
            channel = self._channel(topic)
            self._followed[channel.encode()] = topic
            listening = answer
            if is_pattern(topic):
                listening = self._session.new_answer()
                answer = both(listening, self._keep_pattern(topic))
            self._listen(self._lines[1], self._verbs.subscribe, channel, listening)
        return answer

    def unfollow(self, topic: str) -> None:
        """Pass no more records of this topic to the handler."""
        channel = self._channel(topic)
        if self._lines is not None and self._followed.pop(channel.encode(), None) is not None:
            self._listen(self._lines[1], self._verbs.unsubscribe, channel)

    def history(self, topic: str, since: Position | None) -> asyncio.Future[HistoryResult]:
        """Return the records after a position, or all that are stored if it is None."""
        if is_pattern(topic):
            # If its log is gone, it begins anew, and whoever asks is told.
            self._keep_pattern(topic)
        parse = partial(unpack_history, topic, since)
        return self._ask(parse, HISTORY_SCRIPT, topic, *(since or ("", 0)), self._age)

    def join(self, topic: str, ident: str, info: str) -> None:
        """Enter somebody into the presence of a topic, and tell its followers."""
        self._session.join(topic, ident, info)

    def leave(self, topic: str, ident: str) -> None:
        """Remove somebody from the presence of a topic, and tell its followers."""
        if not self._session.leave(topic, ident):
            self._part_later(topic, ident)

    def _part_later(self, topic: str, ident: str) -> None:
        """Remember who left while the node is away."""
        if len(self._left) < MAX_LEFT:
            self._left.append((topic, ident))
        else:
            # The old lease will run out with all that were there.
            self._number = next(self._numbers)
            self._left.clear()

    def presence(self, topic: str) -> asyncio.Future[list[PresenceEntry]]:
        """Return who is present in a topic, at servers whose lease has not ended."""
        answer: asyncio.Future[list[PresenceEntry]] = self._session.new_answer()
        if self._lines is None or answer.done():
            return answer
        asked = self._lines[0]
        key = f"{self._base(topic)}:roster"
        entries = asked.ask("HGETALL", key)

        def done(leases: asyncio.Future[Any]) -> None:
            if answer.done():
                return
            if leases.exception() is not None:
                self._break(answer, leases.exception())
                return
            alive = set(leases.result())

            def parse(found: list[bytes]) -> list[PresenceEntry]:
                there = []
                # Of RESP2, names and values in turns.
                for name, info in zip(found[::2], found[1::2], strict=True):
                    lease, _, ident = name.partition(b" ")
                    if lease in alive:
                        there.append(new_entry(server_of(lease), ident.decode(), info.decode()))
                    else:
                        # This lease ran out, and none is taken twice.
                        asked.ask("HDEL", key, name)
                return there

            self._settle(topic, answer, entries, parse)

        asked.ask("ZRANGE", self._key_of_leases, 0, -1).add_done_callback(done)
        return answer

    def stats(self) -> dict[str, int]:
        """Return the number of retries to reach the engine."""
        return {"retries": self._session.retries}

    # -- the names of things

    @property
    def _lease(self) -> str:
        return f"{self._session.server}.{self._number}"

    @property
    def _age(self) -> int:
        """How long a publication is held, in milliseconds."""
        return max(1, int(self._session.history.age * 1000))

    @property
    def _key_of_leases(self) -> str:
        return f"{self.prefix}:{self._own}"

    @property
    def _own_channel(self) -> str:
        return f"{self._channels}:{self._own}"

    @property
    def _own(self) -> str:
        """What is about the servers at this Redis; in a cluster, each node has its own."""
        return "servers" if self._shard is None else f"{{{self._shard.tag}}}:servers"

    def _base(self, topic: str) -> str:
        # What is quoted_topic has no braces: the hash tag is the whole name, and no two names share one.
        return f"{self.prefix}:{{{quoted_topic(topic)}}}"

    def _channel(self, topic: str) -> str:
        return f"{self._channels}:{{{quoted_topic(topic)}}}"

    @property
    def _keeps_all(self) -> bool:
        """Whether nothing is lost of any topic here by a restart: it may have come from another node."""
        return self.keeps and (self._shard is None or self._shard.keeps_all())

    @property
    def _place_word(self) -> str:
        """What names the places of topics without a publication: to them, a restart that loses nothing is none."""
        return self._word if self.keeps else f"{self._word} {self._life}"

    # -- asking

    def _ask(
        self, parse: Callable[[Any], Answer], script: str, topic: str, *words: str | bytes | int
    ) -> asyncio.Future[Answer]:
        """Run a script on a topic."""
        answer: asyncio.Future[Answer] = self._session.new_answer()
        if self._lines is None or answer.done():
            return answer
        base = self._base(topic)
        keys = (f"{base}:place", f"{base}:log")
        remembered = max(LEAST_PATTERN_AGE, PATTERN_AGES * self._age) if is_pattern(topic) else PLACE_AGE
        common = (secrets.token_hex(6), self._life, remembered, int(self._keeps_all), self._place_word)
        asked = self._lines[0].ask("EVALSHA", self._scripts[script], 2, *keys, *common, *words)
        asked.add_done_callback(lambda done: self._settle(topic, answer, done, parse))
        return answer

    def _settle(
        self, topic: str, answer: asyncio.Future[Answer], asked: asyncio.Future[Any], parse: Callable[[Any], Answer]
    ) -> None:
        """Give the answer that was waited for: what the Redis says, or what is wrong with the topic, or with all."""
        if answer.done():
            return
        error = asked.exception()
        if error is not None:
            if self._is_redirected(topic, error):
                answer.set_exception(BackplaneAway(str(error)))
            elif is_topics_fault(error):
                answer.set_exception(TopicUnavailable(topic, with_remedy(str(error))))
            else:
                self._break(answer, error)
            return
        try:
            answer.set_result(parse(asked.result()))
        except Exception as error:  # noqa: BLE001 - whatever stands there, others may have written it
            answer.set_exception(TopicUnavailable(topic, f"what the Redis has of it cannot be read: {error!r}"))

    def _keep_pattern(self, pattern: str) -> asyncio.Future[bool]:
        """Have a log of a pattern for some time; the future says whether it is a new one."""
        return self._ask(bool, FOLLOW_SCRIPT, pattern, f"{self.prefix}:patterns", pattern)

    def _listen(self, heard: RedisLine, verb: str, channel: str, answer: asyncio.Future[None] | None = None) -> None:
        """Send a command on the second connection, and remember who waits for its answer."""
        heard.send(verb, channel)
        self._sent.append((verb, channel, answer))

    def _is_redirected(self, topic: str, error: BaseException) -> bool:
        """Tell whether a node of a cluster does not serve a topic, which the cluster is told."""
        if self._shard is None or not is_redirect(error):
            return False
        self._shard.on_redirect(topic, redirect_reason(error))
        return True

    def _break(self, answer: asyncio.Future[Any], error: BaseException | None) -> None:
        """Fail an answer, and begin anew: what was sent behind it must not overtake it."""
        reason = with_remedy(str(error))
        answer.set_exception(BackplaneAway(reason))
        self._end(reason)

    def _end(self, reason: str) -> None:
        if self._session.reached and not self._broken.done():
            self._broken.set_exception(BackplaneAway(reason))

    # -- what the session calls: the two connections

    async def reach(self) -> None:
        """Connect, and read which Redis this is."""
        from redis.exceptions import AuthenticationError, NoPermissionError  # noqa: PLC0415

        self._broken = new_answer(self._session.loop)
        self._followed.clear()
        self._sent.clear()
        try:
            async with asyncio.timeout(self.timeout):
                await self._connect()
        except AuthenticationError as error:
            raise BackplaneAway(f"the Redis does not take the user and the password of the URL: {error}") from None
        except NoPermissionError as error:
            raise BackplaneAway(f"{error}; what its user needs is in docs/run/redis.md") from None
        for topic, ident in self._left:
            self.part(topic, ident)
        self._left.clear()

    async def _connect(self) -> None:
        make = await self._source.find()
        asked, heard = self._lines = RedisLine(make()), RedisLine(make())
        for line in self._lines:
            await line.open()
        self._tasks = [self._session.loop.create_task(asked.answer())]
        self._run, self.keeps = await ask_run(asked, sharded=self._verbs is SHARDED)
        for text in (RIGHTS_SCRIPT, PUBLISH_SCRIPT, HISTORY_SCRIPT, FOLLOW_SCRIPT, BEAT_SCRIPT):
            self._scripts[text] = await asked.ask("SCRIPT", "LOAD", text)
        names = (self._key_of_leases, self._own_channel, *self._verbs, *self._own_verbs)
        if missing := await asked.ask("EVALSHA", self._scripts[RIGHTS_SCRIPT], 0, *names):
            raise lack_of([word.decode() for word in missing], self.prefix, self._channels)
        heard.send(self._own_verbs.subscribe, self._own_channel)
        if isinstance(answer := await heard.read(), Exception):
            raise answer
        self._life = ""
        await self._beat()
        # One that is full refuses it, and nothing here needs it; but nobody is told that the Redis is back before.
        await asyncio.wait({self._introduce(asked)})

    def _introduce(self, asked: RedisLine) -> asyncio.Future[Any]:
        """Say what a program needs that publishes without a hub (docs/run/redis.md)."""
        bounds = self._session.history
        engine = (self._life, int(self._keeps_all), PLACE_AGE, self._verbs.publish, self._channels)
        said = (*engine, bounds.count, bounds.size, self._age, self._run, self._place_word)
        return asked.ask(*introduction(self.prefix, said, in_cluster=self._shard is not None))

    async def work(self) -> None:
        """Serve until something is wrong."""
        self._tasks += [self._session.loop.create_task(work) for work in (self._hear(), self._keep())]
        done, _ = await asyncio.wait({*self._tasks, self._broken}, return_when=asyncio.FIRST_COMPLETED)
        await done.pop()

    async def lose(self, reason: str) -> None:
        """End both connections, and fail all that waits."""
        # With their errors: the first of them was the reason.
        await cancel_all(*self._tasks)
        self._tasks = []
        fail_answers([answer for *_, answer in self._sent if answer is not None], reason)
        self._sent.clear()
        self._followed.clear()
        lines, self._lines = self._lines, None
        await close_lines(lines or (), reason)

    def enter(self, topic: str, ident: str, info: str) -> None:
        """Tell Redis that somebody is present."""
        if self._lines is not None:
            asked, key = self._lines[0], f"{self._base(topic)}:roster"
            held = asked.ask("HSET", key, f"{self._lease} {ident}", info)
            held.add_done_callback(lambda done: self._entered(topic, ident, done.exception()))
            asked.ask("PEXPIRE", key, PLACE_AGE)
            asked.ask(self._verbs.publish, self._channel(topic), f"+{self._lease} {ident} {info}")

    def part(self, topic: str, ident: str) -> None:
        """Tell Redis that somebody is no longer present."""
        if self._lines is not None:
            asked = self._lines[0]
            gone = asked.ask("HDEL", f"{self._base(topic)}:roster", f"{self._lease} {ident}")
            gone.add_done_callback(lambda done: self._parted(topic, ident, done.exception()))
            asked.ask(self._verbs.publish, self._channel(topic), f"-{self._lease} {ident} ")

    def _entered(self, topic: str, ident: str, error: BaseException | None) -> None:
        """Remember somebody present whom the Redis refused to hold, to try it again."""
        if error is not None and not self._is_redirected(topic, error) and is_topics_fault(error):
            self._session.not_held(topic, ident, f"the Redis does not hold who is present: {with_remedy(str(error))}")

    def _parted(self, topic: str, ident: str, error: BaseException | None) -> None:
        """Remember somebody who left, where the node does not serve the topic now, or was lost before it answered."""
        if isinstance(error, BackplaneAway):
            self._part_later(topic, ident)
        elif error is not None and self._is_redirected(topic, error) and len(self._left) < MAX_LEFT:
            self._left.append((topic, ident))

    # -- what a cluster does to its nodes

    def restart(self, reason: str) -> None:
        """Begin anew at once, for it is somewhere else now."""
        self._end(reason)
        self._session.hurry()

    def resume(self, topics: Container[str]) -> None:
        """Tell the node who is present in topics that it serves again, and who left meanwhile."""
        left, self._left = self._left, []
        for topic, ident in left:
            if topic not in topics:
                self._left.append((topic, ident))
            elif (topic, ident) not in self._session.here:
                self.part(topic, ident)
        for (topic, ident), info in self._session.here.items():
            if topic in topics:
                self.enter(topic, ident, info)

    def release(self, topics: Container[str]) -> None:
        """Let go of topics that another node serves now; this one ends their channels by itself."""
        for channel in [channel for channel, topic in self._followed.items() if topic in topics]:
            del self._followed[channel]
        for who in [who for who in self._session.here if who[0] in topics]:
            del self._session.here[who]

    def ask(self, *words: str) -> asyncio.Future[Any]:
        """Ask the node something; the future fails where it is not reached."""
        answer = self._session.new_answer()
        return answer if self._lines is None or answer.done() else self._lines[0].ask(*words)

    # -- what comes

    async def _hear(self) -> None:
        """Tell the handler what comes."""
        assert self._lines is not None  # noqa: S101 - for mypy
        heard = self._lines[1]
        while True:
            found = await heard.read()
            if isinstance(found, Exception):
                self._refuse(found)
            elif found[0] in {b"message", b"smessage"}:
                self._tell(found[1], found[2])
            else:
                self._take(found[0].decode().upper(), found[1])

    def _take(self, verb: str, channel: bytes) -> None:
        """Take an answer on the second connection, or that a node of a cluster does not serve a channel any more."""
        expected = self._sent[0][:2] if self._sent else ("", "")
        if expected == (verb if verb != "PONG" else "PING", channel.decode()):
            *_, answer = self._sent.popleft()
            if answer is not None and not answer.done():
                answer.set_result(None)
        elif self._shard is None or verb != "SUNSUBSCRIBE" or channel == self._own_channel.encode():
            raise BackplaneAway(f"the Redis answered {verb} {channel!r} to {' '.join(expected)}")
        elif topic := self._followed.pop(channel, ""):
            self._shard.on_redirect(topic, "its slot moved")

    def _refuse(self, error: Exception) -> None:
        """Tell who waits to follow a topic that the Redis refuses that."""
        redirected = self._shard is not None and is_redirect(error)
        if redirected and not (self._sent and is_about(error, self._sent[0][1])):
            # It is about a channel that the node ended by itself, before it was asked to.
            return
        _, channel, answer = self._sent.popleft() if self._sent else ("", "", None)
        if answer is None and redirected:
            return
        topic = self._followed.pop(channel.encode(), "")
        if answer is None or not (redirected or is_topics_fault(error)):
            raise error
        if redirected and topic:
            self._is_redirected(topic, error)
        if not answer.done():
            answer.set_exception(BackplaneAway(str(error)) if redirected else TopicUnavailable(topic, str(error)))

    def _tell(self, channel: bytes, data: bytes) -> None:
        """Tell the handler what came of a topic, or that nobody can read it."""
        topic = self._followed.get(channel)
        if topic is None:
            # Of what is no name, nobody is gone.
            server = server_of(data) if channel.endswith(b":servers") and data.isascii() else ""
            if server not in {"", self._session.server}:
                self._session.handler.on_server_gone(server)
            return
        kind = data[:1]
        told: Record | PresenceEntry
        try:
            first, second, rest = data[1:].split(b" ", 2)
            if kind == b"=":
                told = unpack_record(topic, first.decode(), int(second), rest)
            elif kind == b"*":
                name, _, rest = rest.partition(b" ")
                told = unpack_record(topic, first.decode(), int(second), rest, 0.0, unquote_to_bytes(name))
            elif kind == b"!":
                raise ValueError(rest.decode())
            elif kind in {b"+", b"-"}:
                told = new_entry(server_of(first), second.decode(), rest.decode())
            else:
                raise ValueError(f"a message begins with {kind!r}, allowed are =, *, !, + and -")
        except ValueError as error:
            self._session.handler.on_doubt(topic, f"what came of it cannot be read: {error}")
            return
        if isinstance(told, Record):
            self._session.handler.on_record(told)
        else:
            self._session.handler.on_presence(topic, "join" if kind == b"+" else "leave", told)

    async def _keep(self) -> None:
        """Keep the lease, and see that both connections live."""
        assert self._lines is not None  # noqa: S101 - for mypy
        heard = self._lines[1]
        refreshed = kept = self._session.loop.time()
        while True:
            await asyncio.sleep(self.lease / 4)
            self._listen(heard, "PING", "")
            async with asyncio.timeout(self.timeout):
                anew = await self._beat()
            await self._source.check()
            if anew:
                # Somebody took this server for dead, and had all leave that were present here.
                self._session.enter_all()
            self._session.enter_again()
            now = self._session.loop.time()
            if now - heard.heard > self.lease / 2 + self.timeout:
                raise TimeoutError("what was published did not come in time")
            if now - kept > LEAST_PATTERN_AGE / 4000:
                kept = now
                self._keep_patterns()
            if now - refreshed > PLACE_AGE / 4000:
                refreshed = now
                for topic in filterfalse(is_pattern, self._followed.values()):
                    for key in ("place", "roster"):
                        self._lines[0].ask("PEXPIRE", f"{self._base(topic)}:{key}", PLACE_AGE)
                    # Where it is has another name after a while, if nothing was published to it.
                    self._session.handler.on_doubt(topic)

    def _keep_patterns(self) -> None:
        """Have the logs of all patterns that are followed for longer; one that is a new one lacks something."""

        def look(pattern: str, kept: asyncio.Future[bool]) -> None:
            if kept.exception() is not None or kept.result():
                self._session.handler.on_doubt(pattern)

        for pattern in filter(is_pattern, self._followed.values()):
            self._keep_pattern(pattern).add_done_callback(partial(look, pattern))

    async def _beat(self) -> bool:
        """Renew the lease; tell whether it had run out, and another one was taken."""
        assert self._lines is not None  # noqa: S101 - for mypy
        asked, key, verb = self._lines[0], self._key_of_leases, self._own_verbs.publish
        words = ("EVALSHA", self._scripts[BEAT_SCRIPT], 1, key, self._own_channel, verb)
        # It runs out after half of it, and the others look each quarter.
        length, word = max(1, int(self.lease * 500)), secrets.token_hex(6)
        before, (is_new, *known) = self._life, await asked.ask(*words, self._lease, length, word, self._run)
        self._word, self._life = (each.decode() for each in known)
        if before not in {"", self._life}:
            raise BackplaneAway("another Redis was the master meanwhile")
        if not is_new:
            return False
        # A roster may hold those of the old lease for a while: so the new one has another name.
        await asked.ask("ZREM", key, self._lease)
        self._left.clear()
        self._number = next(self._numbers)
        await asked.ask(*words, self._lease, length, word, self._run)
        return True
