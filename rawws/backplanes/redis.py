"""The Redis backplane: publications to a Redis 6.2 or later and back, by the package `redis` (extra `redis`).

Of each topic there is a hash, which says where it is, and a stream of what is held; one script gives a publication its
place, holds it and sends it to all that follow, by PUBLISH. A topic's keys and its channel share one hash tag.

Laws:
1. One connection for what is asked, pipelined; one for what comes.
2. Each run of a Redis begins an epoch of its own: so what it forgot and gives again is not taken for the same. Whoever
   saw no more than is left goes on from an epoch before, where what was answered is on the disk (`appendonly yes`,
   `appendfsync always`); everybody else is told that something may be lost.
3. All that is in doubt ends both connections: what is not answered is asked for once more, in its order.
4. What is no doubt, a refusal or a key or message that is none of ours, is the fault of one topic and of no other.
"""

from __future__ import annotations

import asyncio
import random
import re
import secrets
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, final
from urllib.parse import quote, unquote

from rawws.client.retrying import full_jitter
from rawws.net.logs import without_userinfo
from rawws.topics.backplane import (
    BackplaneAway,
    HistoryResult,
    Position,
    PresenceEntry,
    Record,
    TopicUnavailable,
    new_answer,
    new_entry,
    new_position,
    new_record,
)

from .redis_line import RedisLine
from .session import EngineSession, fail_answers

if TYPE_CHECKING:
    from collections.abc import Callable

    from rawws.topics.backplane import BackplaneHandler, History

__all__ = ["RedisBackplane"]

Answer = TypeVar("Answer")

# The servers of one Redis are few, and all their clients wait: they come back sooner than clients do.
LONGEST_WAIT = 5.0
# For how long a topic's place is remembered that nobody follows, in milliseconds: longer than any history is held.
PLACE_AGE = 24 * 3600 * 1000
# Of those who left while the Redis was away.
MAX_LEFT = 10_000
# What a message takes of the stream beside its bytes.
ENTRY_COST = 64
# What stands as it is in the members beside a message; a space ends them.
UNQUOTED = '"{}[]:,'
# So many who are present, and could not be written, are tried again each quarter of a lease.
MAX_ENTERED = 1000


def script(*names: str) -> str:
    """Return a script that runs in the Redis, made of files in lua/."""
    return "".join([(LUA / f"{name}.lua").read_text(encoding="utf-8") for name in names])


LUA: Final = Path(__file__).parent / "lua"
PUBLISH: Final = script("place", "publish")
HISTORY: Final = script("remember", "place", "history")
BEAT: Final = script("beat")
# For programs that are no hub, which take it from the Redis itself.
OUTSIDE: Final = script("outside", "place", "publish")


@final
class RedisBackplane:
    """A hub's connection to a Redis: `rawws.Hub(backplane=RedisBackplane("redis://127.0.0.1:6379/0"))`.

    `prefix` is what all keys and channels begin with. `lease` says after how many seconds those present at a server
    that fell silent are so no more. `sharded` sends by SPUBLISH (Redis 7), which in a cluster stays on one node; a
    cluster must be one node, for all servers must come to the same Redis, also by a proxy. An answer of the Redis may
    take `timeout` seconds.

    Raises ImportError where the package `redis` is missing, ValueError for a URL that is none.
    """

    def __init__(
        self,
        url: str = "redis://127.0.0.1:6379/0",
        *,
        prefix: str = "rawws",
        lease: float = 15.0,
        sharded: bool = False,
        timeout: float = 5.0,
    ) -> None:
        try:
            from redis.asyncio.connection import Connection, parse_url  # noqa: PLC0415
            from redis.exceptions import RedisError  # noqa: PLC0415
        except ImportError:
            raise ImportError("the Redis backplane needs redis: pip install 'rawws[redis]'") from None
        if not re.fullmatch(r"[\w.:-]{1,64}", prefix, re.ASCII):
            raise ValueError(f"prefix is {prefix[:64]!r}, allowed are 1 to 64 of letters, digits and _.:-")
        if lease <= 0 or timeout <= 0:
            raise ValueError(f"lease is {lease} and timeout {timeout}, allowed are numbers above 0")
        try:
            self._options = dict(parse_url(url))
        except ValueError as error:
            shown = without_userinfo(url)
            # What redis says may quote a piece of a password, which is hidden with the rest of it.
            why = str(error) if shown == url else "its scheme, its host or its port is none"
            raise ValueError(f"url is {shown!r}: {why}") from None
        self._kind: Any = self._options.pop("connection_class", Connection)
        self.prefix = prefix
        self.lease = lease
        self.timeout = timeout
        # Channels know nothing of databases.
        self._channels = f"{prefix}:{self._options.get('db', 0)}"
        self._verbs = ("SPUBLISH", "SSUBSCRIBE", "SUNSUBSCRIBE") if sharded else ("PUBLISH", "SUBSCRIBE", "UNSUBSCRIBE")
        self._session = EngineSession(self, "Redis", (RedisError, OSError), lambda: full_jitter(draw))
        self._leases = 0
        # Which run of a Redis this is, and whether what it answers is on its disk.
        self._life = ""
        self._keeps = False
        # What it keeps as long as its data.
        self._word = ""
        self._scripts: dict[str, bytes] = {}
        # By their channels.
        self._followed: dict[bytes, str] = {}
        # What was sent on the second connection, each of which has one answer: a channel, and who waits for that.
        self._sent: deque[tuple[str, asyncio.Future[None] | None]] = deque()
        # Who is present here, and is not in the Redis: it refused that.
        self._unheld: dict[tuple[str, str], None] = {}
        self._left: list[tuple[str, str]] = []
        self._lines: tuple[RedisLine, RedisLine] | None = None
        self._tasks: list[asyncio.Task[Any]] = []

    # -- the contract

    def open(self, server: str, history: History, handler: BackplaneHandler) -> None:
        """Reach the engine in the running loop, then call on_back or on_away of the handler."""
        self._session.open(server, history, handler)

    async def close(self) -> None:
        """End the lease of this server, and close the connection."""
        if self._lines is not None and self._session.reached:
            asked, _ = self._lines
            asked.ask("ZREM", self._key_of_leases, self._lease)
            gone = asked.ask("PUBLISH", f"{self._channels}:servers", self._lease)
            await asyncio.wait({gone}, timeout=self.timeout)
        await self._session.close()

    def publish(
        self, topic: str, message: str | bytes, key: str | None, number: int, extra: str = ""
    ) -> asyncio.Future[Position]:
        """Store a message and send it to all followers of the topic. The future gets its position."""
        session = self._session
        record = pack(session.server, number, message, key, extra)
        # As if all were as large as this one: so what is held is at most twice the bytes that the history allows.
        entries = min(session.history.count, max(1, session.history.size // (len(record) + ENTRY_COST)))
        verb, channel = self._verbs[0], self._channel(topic)
        words = (verb, channel, session.server, number, record, entries, self._age)
        return self._ask(lambda found: new_position(found[0].decode(), found[1]), PUBLISH, topic, *words)

    def follow(self, topic: str) -> asyncio.Future[None]:
        """Pass records of this topic to the handler, from when the future is done."""
        answer: asyncio.Future[None] = self._session.new_answer()
        if self._lines is not None and not answer.done():
            channel = self._channel(topic)
            self._followed[channel.encode()] = topic
            self._listen(self._lines[1], self._verbs[1], channel, answer)
        return answer

    def unfollow(self, topic: str) -> None:
        """Pass no more records of this topic to the handler."""
        channel = self._channel(topic)
        if self._lines is not None and self._followed.pop(channel.encode(), None) is not None:
            self._listen(self._lines[1], self._verbs[2], channel)

    def history(self, topic: str, since: Position | None) -> asyncio.Future[HistoryResult]:
        """Return the records after a position, or all that are stored if it is None."""

        def parse(found: list[Any]) -> HistoryResult:
            epoch, offset = new_position(found[0].decode(), found[1])
            records: list[Record] = []
            held, now = found[4:] or ([], b"0")
            for at, each in reversed(held):
                number = int(at.partition(b"-")[0])
                # Where one was taken out, what is before it is not known to be all.
                if number != offset - len(records):
                    break
                age = (int(now) - int(each[3])) / 1000 if len(each) > 3 else 0.0
                records.append(unpack(topic, epoch, number, each[1], age))
            records.reverse()
            known = len(found) > 4 and (since is None or len(records) == offset - since.offset)
            places = (word.rpartition(":") for word in found[3].decode().split())
            before = tuple(new_position(each, int(last)) for each, _, last in places)
            return HistoryResult(epoch, offset, records if known else [], known, int(found[2]), before)

        return self._ask(parse, HISTORY, topic, *(since or ("", 0)), self._age)

    def join(self, topic: str, ident: str, info: str) -> None:
        """Enter somebody into the presence of a topic, and tell its followers."""
        self._session.join(topic, ident, info)

    def leave(self, topic: str, ident: str) -> None:
        """Remove somebody from the presence of a topic, and tell its followers."""
        if self._session.leave(topic, ident):
            return
        if len(self._left) < MAX_LEFT:
            self._left.append((topic, ident))
        else:
            # The old lease will run out with all that were there.
            self._leases += 1
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
        return f"{self._session.server}.{self._leases}"

    @property
    def _age(self) -> int:
        """How long a publication is held, in milliseconds."""
        return max(1, int(self._session.history.age * 1000))

    @property
    def _key_of_leases(self) -> str:
        return f"{self.prefix}:servers"

    def _base(self, topic: str) -> str:
        # What is quoted has no braces: the hash tag is the whole name, and no two names share one.
        return f"{self.prefix}:{{{quote(topic, safe='')}}}"

    def _channel(self, topic: str) -> str:
        return f"{self._channels}:{{{quote(topic, safe='')}}}"

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
        # A restart that loses nothing is none to topics that nothing was published to.
        word = self._word if self._keeps else f"{self._word} {self._life}"
        common = (secrets.token_hex(6), self._life, PLACE_AGE, int(self._keeps), word)
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
            if is_refusal(error):
                answer.set_exception(TopicUnavailable(topic, str(error)))
            else:
                self._break(answer, error)
            return
        try:
            found = parse(asked.result())
        except Exception as error:  # noqa: BLE001 - whatever stands there, others may have written it
            answer.set_exception(TopicUnavailable(topic, f"what the Redis has of it cannot be read: {error!r}"))
        else:
            answer.set_result(found)

    def _listen(self, heard: RedisLine, verb: str, channel: str, answer: asyncio.Future[None] | None = None) -> None:
        """Send a command on the second connection, and remember who waits for its answer."""
        heard.send(verb, channel)
        self._sent.append((channel, answer))

    def _break(self, answer: asyncio.Future[Any], error: BaseException | None) -> None:
        """Fail an answer, and begin anew: what was sent behind it must not overtake it."""
        answer.set_exception(BackplaneAway(str(error)))
        if self._session.reached and not self._broken.done():
            self._broken.set_exception(BackplaneAway(str(error)))

    # -- what the session calls: the two connections

    async def reach(self) -> None:
        """Connect, and read which Redis this is."""
        from redis.asyncio.retry import Retry  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415

        loop = self._session.loop
        self._broken = new_answer(loop)
        options = self._options | {"protocol": 2, "retry": Retry(NoBackoff(), 0)}
        asked, heard = self._lines = RedisLine(self._kind(**options)), RedisLine(self._kind(**options))
        self._followed.clear()
        self._sent.clear()
        async with asyncio.timeout(self.timeout):
            for line in self._lines:
                await line.connection.connect()  # type: ignore[no-untyped-call]
            self._tasks = [loop.create_task(asked.answer())]
            await self._ask_life(asked)
            for text in (PUBLISH, HISTORY, BEAT):
                self._scripts[text] = await asked.ask("SCRIPT", "LOAD", text)
            self._introduce(asked)
            heard.send("SUBSCRIBE", f"{self._channels}:servers")
            if isinstance(answer := await heard.read(), Exception):
                raise answer
            await self._beat()
        for topic, ident in self._left:
            self.part(topic, ident)
        self._left.clear()

    def _introduce(self, asked: RedisLine) -> None:
        """Say what a program needs that publishes without a hub (docs/run/scaling.md)."""
        bounds, verb = self._session.history, self._verbs[0]
        # One that is full refuses it, and nothing here needs it.
        asked.ask(
            *("HSET", f"{self.prefix}:hub", "publish", OUTSIDE, "life", self._life, "keeps", int(self._keeps)),
            *("remember", PLACE_AGE, "verb", verb, "channels", self._channels),
            *("count", bounds.count, "size", bounds.size, "age", self._age),
        )

    async def _ask_life(self, asked: RedisLine) -> None:
        """Read which run of a Redis this is, and how it stores what it promises."""
        from redis.exceptions import ResponseError  # noqa: PLC0415

        found = await asked.ask("INFO")
        info = dict(line.split(":", 1) for line in found.decode().splitlines() if ":" in line)
        if info.get("loading") == "1":
            # It tells that nothing is written, and has a part of its data.
            raise BackplaneAway("Redis is loading its data")
        try:
            words = [word.decode() for word in await asked.ask("CONFIG", "GET", "*appendfsync*")]
        except ResponseError:
            # Who rents a Redis may not ask for its settings.
            words = []
        self._life = info.get("run_id", "")
        self._keeps = is_keeping(info | dict(zip(words[::2], words[1::2], strict=True)))

    async def work(self) -> None:
        """Serve until something is wrong."""
        self._tasks += [self._session.loop.create_task(work) for work in (self._hear(), self._keep())]
        done, _ = await asyncio.wait({*self._tasks, self._broken}, return_when=asyncio.FIRST_COMPLETED)
        await done.pop()

    async def lose(self, reason: str) -> None:
        """End both connections, and fail all that waits."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            # With their errors: the first of them was the reason.
            await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        lines, self._lines = self._lines, None
        for line in lines or ():
            await line.close(reason)
        fail_answers([answer for _, answer in self._sent if answer is not None], reason)
        self._sent.clear()
        self._followed.clear()
        self._unheld.clear()

    def enter(self, topic: str, ident: str, info: str) -> None:
        """Tell Redis that somebody is present."""
        if self._lines is not None:
            asked, key = self._lines[0], f"{self._base(topic)}:roster"
            held = asked.ask("HSET", key, f"{self._lease} {ident}", info)
            held.add_done_callback(lambda done: self._entered(topic, ident, done.exception()))
            asked.ask("PEXPIRE", key, PLACE_AGE)
            asked.ask(self._verbs[0], self._channel(topic), f"+{self._lease} {ident} {info}")

    def part(self, topic: str, ident: str) -> None:
        """Tell Redis that somebody is no longer present."""
        if self._lines is not None:
            asked = self._lines[0]
            asked.ask("HDEL", f"{self._base(topic)}:roster", f"{self._lease} {ident}")
            asked.ask(self._verbs[0], self._channel(topic), f"-{self._lease} {ident} ")

    def _entered(self, topic: str, ident: str, error: BaseException | None) -> None:
        """Remember somebody present whom the Redis refused to hold, to try it again."""
        if error is not None and is_refusal(error) and (topic, ident) in self._session.here:
            self._unheld[topic, ident] = None
            self._session.handler.on_doubt(topic, f"the Redis does not hold who is present: {error}")

    def _enter_again(self) -> None:
        """Try those again whom the Redis refused, as far as they are present still."""
        for topic, ident in list(self._unheld)[:MAX_ENTERED]:
            del self._unheld[topic, ident]
            info = self._session.here.get((topic, ident))
            if info is not None:
                self.enter(topic, ident, info)

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
                channel, answer = self._sent.popleft()
                if found[1] != channel.encode():
                    raise BackplaneAway(f"the Redis answered {found[:2]} to what it was asked for {channel}")
                if answer is not None and not answer.done():
                    answer.set_result(None)

    def _refuse(self, error: Exception) -> None:
        """Tell who waits to follow a topic that the Redis refuses that."""
        channel, answer = self._sent.popleft() if self._sent else ("", None)
        if answer is None or not is_refusal(error):
            raise error
        topic = self._followed.pop(channel.encode(), "")
        if not answer.done():
            answer.set_exception(TopicUnavailable(topic, str(error)))

    def _tell(self, channel: bytes, data: bytes) -> None:
        """Tell the handler what came of a topic, or that nobody can read it."""
        topic = self._followed.get(channel)
        if topic is None:
            if channel.endswith(b":servers"):
                # Of what is no name, nobody is gone.
                server = server_of(data) if data.isascii() else ""
                if server not in {"", self._session.server}:
                    self._session.handler.on_server_gone(server)
            return
        kind = data[:1]
        told: Record | PresenceEntry
        try:
            first, second, rest = data[1:].split(b" ", 2)
            if kind == b"=":
                told = unpack(topic, first.decode(), int(second), rest)
            elif kind in {b"+", b"-"}:
                told = new_entry(server_of(first), second.decode(), rest.decode())
            else:
                raise ValueError(f"a message begins with {kind!r}, allowed are =, + and -")
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
        refreshed = self._session.loop.time()
        while True:
            await asyncio.sleep(self.lease / 4)
            self._listen(heard, "PING", "")
            async with asyncio.timeout(self.timeout):
                anew = await self._beat()
            if anew:
                # Somebody took this server for dead, and had all leave that were present here.
                self._session.enter_all()
            self._enter_again()
            now = self._session.loop.time()
            if now - heard.heard > self.lease / 2 + self.timeout:
                raise TimeoutError("what was published did not come in time")
            if now - refreshed > PLACE_AGE / 4000:
                refreshed = now
                for topic in self._followed.values():
                    for key in ("place", "roster"):
                        self._lines[0].ask("PEXPIRE", f"{self._base(topic)}:{key}", PLACE_AGE)
                    # Where it is has another name after a while, if nothing was published to it.
                    self._session.handler.on_doubt(topic)

    async def _beat(self) -> bool:
        """Renew the lease; tell whether it had run out, and another one was taken."""
        assert self._lines is not None  # noqa: S101 - for mypy
        asked = self._lines[0]

        words = "EVALSHA", self._scripts[BEAT], 1, self._key_of_leases, f"{self._channels}:servers"
        # It runs out after half of it, and the others look each quarter.
        length, word = max(1, int(self.lease * 500)), secrets.token_hex(6)
        is_new, known = await asked.ask(*words, self._lease, length, word)
        self._word = known.decode()
        if not is_new:
            return False
        # A roster may hold those of the old lease for a while: so the new one has another name.
        await asked.ask("ZREM", self._key_of_leases, self._lease)
        self._left.clear()
        self._leases += 1
        await asked.ask(*words, self._lease, length, word)
        return True


def pack(server: str, number: int, message: str | bytes, key: str | None, extra: str) -> bytes:
    """Return the bytes of a record: its origin, its kind, the length of its key; then the key and the message.

    What goes beside the message stands behind the name of the server, percent-encoded: a server of before takes it for
    a part of that name, and has the rest.
    """
    named = b"" if key is None else key.encode()
    if extra:
        server = f"{server},{quote(extra, safe=UNQUOTED)}"
    kind, body = ("t", message.encode()) if isinstance(message, str) else ("b", message)
    length = "-" if key is None else str(len(named))
    return f"{server} {number} {kind} {length} ".encode() + named + body


def unpack(topic: str, epoch: str, offset: int, data: bytes, age: float = 0.0) -> Record:
    """Return a record from its bytes. Raises ValueError for what is none."""
    server, number, kind, length, rest = data.split(b" ", 4)
    size = 0 if length == b"-" else int(length)
    key = None if length == b"-" else rest[:size].decode()
    message = rest[size:].decode() if kind == b"t" else rest[size:]
    name, _, extra = server.decode().partition(",")
    return new_record(topic, epoch, offset, message, key, name, int(number), unquote(extra, errors="strict"), age)


def server_of(lease: bytes) -> str:
    """Return whose a lease is, "" for what is none. Raises ValueError for what is no text."""
    return lease.rpartition(b".")[0].decode()


def is_keeping(fields: dict[str, str]) -> bool:
    """Tell by its INFO and CONFIG GET whether a Redis has on its disk what it answers."""
    # With `everysec`, one whose disk is busy answers up to two seconds before it writes.
    writes = [fields.get(name) for name in ("aof_enabled", "appendfsync", "no-appendfsync-on-rewrite")]
    # One that was a replica may never have got the last of what its master answered.
    return writes == ["1", "always", "no"] and not fields.get("master_replid2", "").strip("0")


def is_refusal(error: BaseException) -> bool:
    """Tell whether a Redis that works refused a command: for lack of memory or of a right, or for what stands there.

    One that serves nobody is away: it forgot the scripts, or a replica is where the master was, which is looked for.
    """
    from redis.exceptions import (  # noqa: PLC0415
        ClusterDownError,
        MasterDownError,
        NoScriptError,
        ReadOnlyError,
        ResponseError,
    )

    serves_nobody = (ClusterDownError, MasterDownError, NoScriptError, ReadOnlyError)
    # Redis 6.2 says so behind the name of the script.
    is_replica = "READONLY" in str(error)
    return isinstance(error, ResponseError) and not isinstance(error, serves_nobody) and not is_replica


def draw(low: float, high: float) -> float:
    """Return how long to wait before the Redis is tried again."""
    return random.uniform(low, min(high, LONGEST_WAIT))  # noqa: S311 - no secret
