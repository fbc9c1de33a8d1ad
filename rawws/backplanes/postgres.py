"""The PostgreSQL backplane: publications to a PostgreSQL 13 or later and back, by `asyncpg` (extra `postgres`).

Of each topic there is a row, which says where it is, and a row for each publication that is held. One function gives
publications their places, holds them and sends them to all that listen, by NOTIFY: in one transaction.

Laws:
1. One connection for what is asked, where what waits is the next statement; one for what comes.
2. Each run of a PostgreSQL that may have lost something begins an epoch of its own. Whoever saw no more than is left
   goes on from an epoch before, where what was answered is on the disk (`fsync`, `full_page_writes`,
   `synchronous_commit`) and no standby took over; everybody else is told that something may be lost.
3. All that is in doubt ends both connections: what is not answered is asked for once more, in its order.
4. What is no doubt, a refusal or a row or notification that is none of ours, is the fault of one topic and of no other.
"""

from __future__ import annotations

import asyncio
import binascii
import hashlib
import json
import secrets
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

from rawws.net.cancellation import cancel_all
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

from .postgres_line import PostgresLine, Statement, is_refusal
from .postgres_schema import POOLER, check_prefix, check_server, check_url, connect, grant, prepare, settle
from .remedies import with_remedy
from .session import EngineSession, check_times, fail_answers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncpg import Connection

    from rawws.topics.backplane import BackplaneHandler, History

    from .postgres_line import Row

__all__ = ["PostgresBackplane"]

Answer = TypeVar("Answer")

# For how long a topic's place is remembered that nobody follows, in seconds: longer than any history is held.
PLACE_AGE = 24 * 3600.0
# What is too old, or too much of all topics together, is taken away once in so many seconds.
SWEEP_INTERVAL = 60.0
# Of those who left while the PostgreSQL was away.
MAX_LEFT = 10_000
# What is larger than 75 MB in its notifications is asked for.
MAX_PIECES = 10_000

PRESENCE: Final = Statement("select * from presence($1)")


@final
class PostgresBackplane:
    """A hub's connection to a PostgreSQL: `rawws.Hub(backplane=PostgresBackplane("postgresql://user@host/database"))`.

    `prefix` is the schema that has the tables, which are made when it is first reached. `lease` says after how many
    seconds those present at a server that fell silent are so no more. A statement may take `timeout` seconds, and wait
    for a quarter of that until others are done with a topic.

    Raises ImportError where the package `asyncpg` is missing, ValueError for a URL that is none.
    """

    patterns = False

    def __init__(
        self,
        url: str = "postgresql://127.0.0.1:5432/postgres",
        *,
        prefix: str = "rawws",
        lease: float = 15.0,
        timeout: float = 5.0,
    ) -> None:
        try:
            import asyncpg  # noqa: PLC0415
        except ImportError:
            raise ImportError("the PostgreSQL backplane needs asyncpg: pip install 'rawws[postgres]'") from None
        check_url(url)
        check_prefix(prefix)
        check_times(lease, timeout)
        self._url = url
        self.prefix = prefix
        self.lease = lease
        self.timeout = timeout
        errors = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
        self._session = EngineSession(self, "PostgreSQL", errors)
        # By the channels that have them: each has the topics of one hash.
        self._followed: dict[str, set[str]] = {}
        self._listening: set[str] = set()
        self._following: dict[str, list[asyncio.Future[None]]] = {}
        # The pieces that came of a notification that is not whole, by their topics.
        self._pieces: dict[str, list[str]] = {}
        # Those who left while it was away; None for too many.
        self._left: list[tuple[str, str]] | None = []
        self._line: PostgresLine | None = None
        self._connections: list[Connection] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._swept = 0.0

    # -- the contract

    def open(self, server: str, history: History, handler: BackplaneHandler) -> None:
        """Reach the engine in the running loop, then call on_back or on_away of the handler."""
        self._session.open(server, history, handler)

    async def close(self) -> None:
        """End the lease of this server, and close the connection."""
        try:
            if self._line is not None and self._session.reached:
                gone = self._line.ask(Statement("select leave($1)", (self._session.server,)))
                await asyncio.wait({gone}, timeout=self.timeout)
        finally:
            await self._session.close()

    def publish(
        self, topic: str, message: str | bytes, key: str | None, number: int, extra: str = ""
    ) -> asyncio.Future[Position]:
        """Store a message and send it to all followers of the topic. The future gets its position."""
        is_text = isinstance(message, str)
        data = message.encode() if isinstance(message, str) else message
        values = (topic, number, data, is_text, None if key is None else key.encode(), extra)

        def parse(rows: Sequence[Row]) -> Position:
            return new_position(rows[0]["epoch"], rows[0]["offset"])

        return self._ask(parse, topic, "publish", *values, size=len(data))

    def follow(self, topic: str) -> asyncio.Future[None]:
        """Pass records of this topic to the handler, from when the future is done."""
        answer: asyncio.Future[None] = self._session.new_answer()
        if not answer.done():
            channel = self._channel(topic)
            self._followed.setdefault(channel, set()).add(topic)
            if channel in self._listening:
                answer.set_result(None)
            else:
                self._following.setdefault(channel, []).append(answer)
                self._is_changed.set()
        return answer

    def unfollow(self, topic: str) -> None:
        """Pass no more records of this topic to the handler."""
        channel = self._channel(topic)
        topics = self._followed.get(channel, set())
        topics.discard(topic)
        self._pieces.pop(topic, None)
        if channel in self._followed and not topics:
            del self._followed[channel]
            self._is_changed.set()

    def history(self, topic: str, since: Position | None) -> asyncio.Future[HistoryResult]:
        """Return the records after a position, or all that are stored if it is None."""

        def parse(rows: Sequence[Row]) -> HistoryResult:
            first = rows[0]
            epoch, offset = new_position(first["epoch"], first["offset"])
            held = [row for row in rows if row["place"] is not None]
            # Where one was taken out, what is before it is not known to be all.
            whole = takewhile(lambda pair: pair[1]["place"] == offset - pair[0], enumerate(reversed(held)))
            records = [record_of(topic, epoch, row) for _, row in whole][::-1]
            is_known = since is None or (first["last"] is not None and len(records) == offset - since.offset)
            places = (word.rpartition(":") for word in first["before"])
            before = tuple(new_position(each, int(last)) for each, _, last in places)
            return HistoryResult(epoch, offset, records if is_known else [], is_known, first["began"], before)

        epoch, offset = since or (None, None)
        return self._ask(parse, topic, "history", topic, epoch, offset)

    def join(self, topic: str, ident: str, info: str) -> None:
        """Enter somebody into the presence of a topic, and tell its followers."""
        self._session.join(topic, ident, info)

    def leave(self, topic: str, ident: str) -> None:
        """Remove somebody from the presence of a topic, and tell its followers."""
        if not self._session.leave(topic, ident):
            self._part_later(topic, ident)

    def _part_later(self, topic: str, ident: str) -> None:
        """Remember who left while the PostgreSQL is away."""
        if self._left is not None:
            self._left.append((topic, ident))
            if len(self._left) > MAX_LEFT:
                self._left = None

    def presence(self, topic: str) -> asyncio.Future[list[PresenceEntry]]:
        """Return who is present in a topic, at servers whose lease has not ended."""

        def parse(rows: Sequence[Row]) -> list[PresenceEntry]:
            return [new_entry(row["server"], row["id"], row["info"]) for row in rows]

        return self._ask(parse, topic, "presence", topic)

    def stats(self) -> dict[str, int]:
        """Return the number of retries to reach the engine."""
        return {"retries": self._session.retries}

    # -- what comes before the first hub

    @classmethod
    async def initialize(
        cls,
        url: str,
        *,
        prefix: str = "rawws",
        role: str | None = None,
        timeout: float = 5.0,  # noqa: ASYNC109 - as above
    ) -> None:
        """Make what hubs need, where it is not there, and let a role use it who may not make it.

        Raises ImportError where the package `asyncpg` is missing, ValueError for a URL or a prefix that is none, and
        BackplaneAway, which says why it cannot be.
        """
        made = cls(url, prefix=prefix, timeout=timeout)
        async with asyncio.timeout(timeout):
            connection = await connect(made._url, timeout)
            try:
                await settle(connection, prefix)
                await check_server(connection)
                await prepare(connection, prefix)
                if role is not None:
                    await grant(connection, prefix, role)
            finally:
                connection.terminate()

    # -- asking

    @property
    def _servers(self) -> str:
        return f"{self.prefix}.servers"

    def _channel(self, topic: str) -> str:
        # As `tell` in tables.sql.
        return f"{self.prefix}.{hashlib.sha256(topic.encode()).hexdigest()[:2]}"

    def _ask(
        self, parse: Callable[[Sequence[Row]], Answer], topic: str, name: str, *values: object, size: int = 0
    ) -> asyncio.Future[Answer]:
        """Ask a function about a topic."""
        answer: asyncio.Future[Answer] = self._session.new_answer()
        if self._line is None or answer.done():
            return answer

        def settle(asked: asyncio.Future[list[Row]]) -> None:
            error = asked.exception()
            if answer.done():
                return
            if isinstance(error, BackplaneAway):
                answer.set_exception(error)
            elif error is not None:
                answer.set_exception(TopicUnavailable(topic, with_remedy(str(error))))
            else:
                try:
                    answer.set_result(parse(asked.result()))
                except Exception as error:  # noqa: BLE001 - whatever stands there, others may have written it
                    reason = f"what the PostgreSQL has of it cannot be read: {error!r}"
                    answer.set_exception(TopicUnavailable(topic, reason))

        self._line.ask(self._statements[name], *values, size=size).add_done_callback(settle)
        return answer

    # -- what the session calls: the two connections

    async def reach(self) -> None:
        """Connect, make what is missing, and read which run of a PostgreSQL this is."""
        loop, server = self._session.loop, self._session.server
        self._broken = new_answer(loop)
        self._is_changed = asyncio.Event()
        async with asyncio.timeout(self.timeout):
            for _ in range(2):
                connection = await connect(self._url, self.timeout)
                self._connections.append(connection)
                connection.add_termination_listener(self._end)
                await settle(connection, self.prefix)
            asked, heard = self._connections
            await self._check_pooler(asked, heard)
            await prepare(asked, self.prefix)
            await asked.execute(f"set lock_timeout = {max(1, int(self.timeout * 250))}")
            await self._introduce(asked)
            self._line = PostgresLine(asked, self.timeout)
            self._tasks = [loop.create_task(self._line.answer())]
            if self._left is None:
                # All that were present go, and those who still are come again.
                self._line.ask(Statement("select leave($1)", (server,)))
            await self._beat()
        for topic, ident in self._left or ():
            self.part(topic, ident)
        self._left = []

    async def _check_pooler(self, asked: Connection, heard: Connection) -> None:
        """Listen to the servers, and hear what is published. Raises BackplaneAway where a pooler lends connections."""
        from asyncpg import DuplicatePreparedStatementError, InvalidSQLStatementNameError  # noqa: PLC0415

        channel, self._token, self._echoed = self._servers, secrets.token_hex(6), new_answer(self._session.loop)
        try:
            await check_server(asked)
            await heard.add_listener(channel, self._hear_server)
            await asked.execute(f"notify \"{channel}\", '={self._session.server} {self._token}'")
            async with asyncio.timeout(self.timeout / 2):
                await self._echoed
        except (DuplicatePreparedStatementError, InvalidSQLStatementNameError, TimeoutError):
            raise BackplaneAway(POOLER) from None

    async def _introduce(self, asked: Connection) -> None:
        """Read which run of a PostgreSQL this is, and say what a program needs that publishes without a hub."""
        server, bounds = self._session.server, self._session.history
        run = await asked.fetchrow("select * from engine()")
        remember = max(PLACE_AGE, 2 * bounds.age)
        life = (run["life"], run["keeps"], run["word"], remember)
        held = (bounds.count, bounds.size, bounds.age)
        await asked.execute("update about set remember = $1, count = $2, size = $3, age = $4", remember, *held)
        self._statements = {
            "publish": call("publish_all", server, *life, *held, arrays=6),
            "history": call("history", *life, *held, arrays=3),
            "presence": call("presence", arrays=1),
            "enter": call("enter", server, arrays=3),
            "part": call("part", server, arrays=2),
            "touch": call("touch", arrays=1),
            "sweep": call("sweep", remember, bounds.age, bounds.total),
        }

    def _end(self, _connection: Connection) -> None:
        """Hear that a connection ended."""
        if not self._broken.done():
            self._broken.set_exception(BackplaneAway("PostgreSQL ended the connection"))

    async def work(self) -> None:
        """Serve until something is wrong."""
        self._tasks += [self._session.loop.create_task(work) for work in (self._listen(), self._keep())]
        done, _ = await asyncio.wait({*self._tasks, self._broken}, return_when=asyncio.FIRST_COMPLETED)
        await done.pop()

    async def lose(self, reason: str) -> None:
        """End both connections, and fail all that waits."""
        # With their errors: the first of them was the reason.
        await cancel_all(*self._tasks)
        self._tasks = []
        line, self._line = self._line, None
        if line is not None:
            line.close(reason)
        fail_answers([answer for answers in self._following.values() for answer in answers], reason)
        for connection in self._connections:
            connection.remove_termination_listener(self._end)
            connection.terminate()
        for held in (self._connections, self._following, self._followed, self._listening, self._pieces):
            held.clear()

    def enter(self, topic: str, ident: str, info: str) -> None:
        """Tell the PostgreSQL that somebody is present."""
        assert self._line is not None  # noqa: S101 - for mypy

        def entered(done: asyncio.Future[list[Row]]) -> None:
            error = done.exception()
            if error is not None and is_refusal(error):
                self._session.not_held(
                    topic, ident, with_remedy(f"the PostgreSQL does not hold who is present: {error}")
                )

        self._line.ask(self._statements["enter"], topic, ident, info).add_done_callback(entered)

    def part(self, topic: str, ident: str) -> None:
        """Tell the PostgreSQL that somebody is no longer present."""
        assert self._line is not None  # noqa: S101 - for mypy

        def parted(done: asyncio.Future[list[Row]]) -> None:
            if isinstance(done.exception(), BackplaneAway):
                # It was lost before it answered: without this, somebody would be present who left.
                self._part_later(topic, ident)

        self._line.ask(self._statements["part"], topic, ident).add_done_callback(parted)

    # -- what comes

    async def _listen(self) -> None:
        """Listen on the channels of the topics that are followed, and on no others."""
        heard = self._connections[1]
        while True:
            await self._is_changed.wait()
            self._is_changed.clear()
            for channel in self._followed.keys() - self._listening:
                await heard.add_listener(channel, self._hear)
                self._listening.add(channel)
                for answer in self._following.pop(channel, ()):
                    if not answer.done():
                        answer.set_result(None)
            for channel in self._listening - self._followed.keys():
                self._listening.discard(channel)
                await heard.remove_listener(channel, self._hear)

    def _hear(self, _connection: Connection, _pid: int, channel: str, payload: str) -> None:
        """Tell the handler what came of a topic, or that nobody can read it."""
        head, _, body = payload.partition("\n")
        number, piece, topic = [*head[1:].split(" ", 2), "", ""][:3]
        if topic not in self._followed.get(channel, ()):
            return
        try:
            if int(piece) != len(self._pieces.get(topic, ())) or int(piece) >= MAX_PIECES:
                raise ValueError(f"piece {piece} came behind {len(self._pieces.get(topic, ()))} others")
            if head[0] == ".":
                self._pieces.setdefault(topic, []).append(body)
                self._drop_pieces(topic)
                return
            told = read(topic, head[0], int(number), "".join([*self._pieces.pop(topic, ()), body]))
        except (TypeError, ValueError, RecursionError) as error:
            self._pieces.pop(topic, None)
            self._session.handler.on_doubt(topic, f"what came of it cannot be read: {error}")
            return
        if isinstance(told, Record):
            self._session.handler.on_record(told)
        else:
            self._session.handler.on_presence(topic, "join" if head[0] == "+" else "leave", told)

    def _drop_pieces(self, topic: str) -> None:
        """Keep the pieces of this topic alone: those of one notification come one behind the other."""
        for other in self._pieces.keys() - {topic}:
            del self._pieces[other]
            self._session.handler.on_doubt(other, "what came of it cannot be read: it ends in the middle")

    def _hear_server(self, _connection: Connection, _pid: int, _channel: str, payload: str) -> None:
        """Hear that a server is gone, or what this one said itself."""
        if payload == f"={self._session.server} {self._token}":
            if not self._echoed.done():
                self._echoed.set_result(None)
        elif payload.startswith("-") and self._session.reached and payload[1:] not in {"", self._session.server}:
            self._session.handler.on_server_gone(payload[1:])

    # -- what must be done from time to time

    async def _keep(self) -> None:
        """Keep the lease, and see that both connections live."""
        assert self._line is not None  # noqa: S101 - for mypy
        touched = self._session.loop.time()
        while True:
            await asyncio.sleep(self.lease / 4)
            if await self._beat():
                # Somebody took this server for dead, and had all leave that were present here.
                self._session.enter_all()
            self._session.enter_again()
            now = self._session.loop.time()
            if now - self._swept > SWEEP_INTERVAL:
                self._swept = now
                self._line.ask(self._statements["sweep"])
            if now - touched > PLACE_AGE / 4:
                touched = now
                for topic in [topic for topics in self._followed.values() for topic in topics]:
                    self._line.ask(self._statements["touch"], topic)
                    # Where it is has another name after a while, if nothing was published to it.
                    self._session.handler.on_doubt(topic)

    async def _beat(self) -> bool:
        """Renew the lease, and hear of that on the other connection; tell whether it is a new one: it had run out."""
        assert self._line is not None  # noqa: S101 - for mypy
        self._token, self._echoed = secrets.token_hex(6), new_answer(self._session.loop)
        beat = Statement("select beat($1, $2, $3) as anew", (self._session.server, self.lease, self._token))
        # Behind what waits.
        [row] = await self._line.ask(beat)
        try:
            async with asyncio.timeout(self.timeout / 2):
                await self._echoed
        except TimeoutError:
            raise BackplaneAway("what is published did not come in time") from None
        return bool(row["anew"])


def call(name: str, *common: object, arrays: int = 0) -> Statement:
    """Return the statement that calls a function of the schema."""
    places = ", ".join(f"${number + 1}" for number in range(len(common) + arrays))
    return Statement(f"select * from {name}({places})", common)  # noqa: S608 - names of this module


def record_of(topic: str, epoch: str, row: Row) -> Record:
    """Return a record from a row of the history. Raises ValueError for what is none."""
    message = row["message"].decode() if row["is_text"] else row["message"]
    key = None if row["key"] is None else row["key"].decode()
    return new_record(topic, epoch, row["place"], message, key, row["server"], row["number"], row["extra"], row["age"])


def read(topic: str, kind: str, number: int, body: str) -> Record | PresenceEntry:
    """Return what a notification tells. Raises ValueError or TypeError for what nobody can have told."""
    first, _, second = body.partition(" ")
    said = json.loads(binascii.a2b_base64(first))
    if kind == "=":
        epoch, server, origin, is_text, key, extra = said
        data = binascii.a2b_base64(second)
        message = data.decode() if is_text else data
        named = None if key is None else binascii.a2b_base64(key).decode()
        return new_record(topic, epoch, number, message, named, server, origin, extra)
    if kind in {"+", "-"}:
        server, ident, info = said
        return new_entry(server, ident, info)
    raise ValueError(f"a notification begins with {kind!r}, allowed are =, +, - and .")
