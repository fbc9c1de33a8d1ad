"""The NATS backplane: publications to JetStream (NATS 2.11 or later) and back, by the package `nats-py` (extra `nats`).

Of each topic there is a subject in one stream, which is its log: a message says in its header where the topic is, and
is stored only behind the message that its writer knows as the last one. What is stored comes by the server's own
republishing, as a plain message: who follows a topic needs no consumer.

Laws:
1. One connection, which is not made anew behind the hub's back: where it ends, all is asked for again.
2. A server that may lose what it answered (`keeps` is False) has a new epoch of each topic with each of its runs;
   everybody is told that something may be lost. With `keeps`, its epochs go on.
3. What was lost all the same shows: where a hub is ahead of the log, a mark in the log begins an epoch.
4. What is no doubt, a refusal or a message that is none of ours, is the fault of one topic and of no other.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from typing import TYPE_CHECKING, Any, TypeVar, final
from urllib.parse import parse_qsl, unquote, urlsplit

from rawws.net.logs import without_userinfo
from rawws.topics.backplane import (
    BackplaneAway,
    HistoryResult,
    Position,
    PresenceEntry,
    Record,
    TopicUnavailable,
    new_entry,
)

from .nats_line import NatsLine, NatsRefusal
from .nats_outside import NatsOutside
from .nats_records import BYTES, HEADER, MARK, TEXT, Stored, Tail, quoted, stamp, stored_of
from .nats_roster import NatsRoster, server_of
from .nats_starts import NatsStarts
from .nats_streams import NO_RESPONDERS, NatsStreams
from .nats_writer import NatsWriter, Write
from .remedies import with_remedy
from .session import EngineSession, check_times
from .tls import FILE_OPTIONS, TlsFiles

if TYPE_CHECKING:
    import ssl
    from collections.abc import Coroutine

    from nats.aio.msg import Msg

    from rawws.topics.backplane import BackplaneHandler, History

__all__ = ["NatsBackplane"]

Answer = TypeVar("Answer")

# What JetStream allows.
MAX_REPLICAS = 5
# After so many seconds, all servers of a cluster know who is subscribed at one of them.
SPREAD = 1.0
# What a record takes of memory beside its message, in bytes.
RECORD_COST = 64


@final
class NatsBackplane:
    """A hub's connection to NATS: `rawws.Hub(backplane=NatsBackplane("nats://127.0.0.1:4222"))`.

    `url` may name several servers of one cluster, with commas between them. `prefix` is what all subjects and streams
    begin with. `lease` says after how many seconds those present at a server that fell silent are so no more; NATS
    counts whole ones. `keeps` says that what the server answers is on its disk (`sync_interval: always`). An answer may
    take `timeout` seconds. `replicas` says on how many servers of a cluster a stream is that is made here.
    `credentials` is the path of a `.creds` file, `tls` the context for `tls://`, where the URL names no files for that.

    Raises ImportError where the package `nats-py` is missing, ValueError for a URL that is none.
    """

    patterns = False

    def __init__(
        self,
        url: str = "nats://127.0.0.1:4222",
        *,
        prefix: str = "rawws",
        lease: float = 15.0,
        keeps: bool = False,
        timeout: float = 5.0,
        replicas: int = 1,
        credentials: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        try:
            from nats.errors import Error  # noqa: PLC0415
        except ImportError:
            raise ImportError("the NATS backplane needs nats-py: pip install 'rawws[nats]'") from None
        if not re.fullmatch(r"[\w-]{1,64}", prefix, re.ASCII):
            raise ValueError(f"prefix is {prefix[:64]!r}, allowed are 1 to 64 of letters, digits, _ and -")
        check_times(lease, timeout)
        if not 1 <= replicas <= MAX_REPLICAS:
            raise ValueError(f"replicas is {replicas}, allowed are 1 to {MAX_REPLICAS}")
        self._urls, self._files = urls_of(url)
        if tls is not None and any(self._files):
            raise ValueError("tls is given, and the URL names files, allowed is one of both")
        self._options: dict[str, Any] = {"user_credentials": credentials, "tls": tls}
        self.prefix = prefix
        self.lease = lease
        self.keeps = keeps
        self.timeout = timeout
        self._session = EngineSession(self, "NATS", (Error, OSError, NatsRefusal))
        self._streams = NatsStreams(prefix, keeps=keeps, replicas=replicas)
        self._starts = NatsStarts(self._streams)
        self._roster = NatsRoster(self._streams, self._session, lease, timeout)
        self._writer = NatsWriter(self._streams, self._session, self._starts, self._roster.written)
        self._outside = NatsOutside(prefix, self._session, self._writer)
        self._line: NatsLine | None = None
        # Which run of the server this is, and by how much its clock is before the loop's.
        self._life = ""
        # Whether several servers have the streams, or may have.
        self._shares = False
        self._created = ""
        self._clock = 0.0
        # Where the topics are that are followed, by what came last of each.
        self._followed: dict[str, Tail | None] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # -- the contract

    def open(self, server: str, history: History, handler: BackplaneHandler) -> None:
        """Reach the engine in the running loop, then call on_back or on_away of the handler."""
        self._session.open(server, history, handler)

    async def close(self) -> None:
        """End the lease of this server, and close the connection."""
        try:
            if self._session.reached:
                await self._roster.close()
        finally:
            await self._session.close()

    def publish(
        self, topic: str, message: str | bytes, key: str | None, number: int, extra: str = ""
    ) -> asyncio.Future[Position]:
        """Store a message and send it to all followers of the topic. The future gets its position."""
        answer: asyncio.Future[Position] = self._session.new_answer()
        if not answer.done():
            kind, data = (TEXT, message.encode()) if isinstance(message, str) else (BYTES, message)
            self._writer.add(topic, Write(answer, kind, self._session.server, number, key, extra, data))
        return answer

    def follow(self, topic: str) -> asyncio.Future[None]:
        """Pass records of this topic to the handler, from when the future is done."""
        return self._do(topic, self._follow(topic))

    def unfollow(self, topic: str) -> None:
        """Pass no more records of this topic to the handler."""
        if self._line is not None and topic in self._followed:
            del self._followed[topic]
            self._line.unsubscribe(self._live(topic))

    def history(self, topic: str, since: Position | None) -> asyncio.Future[HistoryResult]:
        """Return the records after a position, or all that are stored if it is None."""
        return self._do(topic, self._history(topic, since))

    def join(self, topic: str, ident: str, info: str) -> None:
        """Enter somebody into the presence of a topic, and tell its followers."""
        self._session.join(topic, ident, info)

    def leave(self, topic: str, ident: str) -> None:
        """Remove somebody from the presence of a topic, and tell its followers."""
        if not self._session.leave(topic, ident):
            self._roster.part_later(topic, ident)

    def presence(self, topic: str) -> asyncio.Future[list[PresenceEntry]]:
        """Return who is present in a topic, at servers whose lease has not ended."""
        return self._do(topic, self._roster.presence(topic))

    def stats(self) -> dict[str, int]:
        """Return the number of retries to reach the engine."""
        return {"retries": self._session.retries}

    # -- asking

    def _do(self, topic: str, asking: Coroutine[Any, Any, Answer]) -> asyncio.Future[Answer]:
        """Ask the server about a topic, and give the answer, or what is wrong with the topic, or with all."""
        answer: asyncio.Future[Answer] = self._session.new_answer()
        if answer.done():
            asking.close()
            return answer
        task = self._session.loop.create_task(self._settle(topic, answer, asking))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return answer

    async def _settle(self, topic: str, answer: asyncio.Future[Answer], asking: Coroutine[Any, Any, Answer]) -> None:
        error: Exception
        try:
            found = await asking
        except BackplaneAway as away:
            error = away
        except NatsRefusal as refusal:
            error = TopicUnavailable(topic, with_remedy(str(refusal)))
            if refusal.code == NO_RESPONDERS:
                # The stream is gone, or a server that starts does not have it yet.
                error = BackplaneAway("nobody answers for the streams")
                if self._line is not None:
                    self._line.fail(str(error))
        except Exception as mistake:  # noqa: BLE001 - whatever stands there, others may have written it
            error = TopicUnavailable(topic, f"what the NATS server has of it cannot be read: {mistake}")
        else:
            if not answer.done():
                answer.set_result(found)
            return
        if not answer.done():
            answer.set_exception(error)

    async def _follow(self, topic: str) -> None:
        line = self._reached
        self._followed[topic] = None
        try:
            await line.subscribe(self._live(topic), lambda message: self._tell(topic, message))
        except NatsRefusal:
            self._followed.pop(topic, None)
            raise
        if self._shares:
            # The other servers of the cluster hear of it later, and send nothing till then.
            self._session.loop.call_later(SPREAD, self._miss, topic)

    async def _history(self, topic: str, since: Position | None) -> HistoryResult:
        log = await self._log(topic, since)
        if not log:
            return await self._unborn(since)
        tail = log[-1].tail.in_life(self._life)
        if since is not None and since.epoch == tail.epoch and since.offset > tail.offset:
            # The server gave that place, and has lost it.
            tail = await self._writer.mark(topic, tail.epoch)
            return HistoryResult(tail.epoch, tail.offset, [], recovered=False, began=tail.began)
        records = self._records(topic, log, tail)
        before: tuple[Position, ...] = ()
        if tail.before and len(records) == tail.offset:
            # As long as it is there, nothing is missing that was published behind it.
            names = await self._starts.find(self._reached)
            before = tuple(Position(name, 0) for name in tail.before if name in names)
        known = since is None
        if since is not None and (since.epoch == tail.epoch or since in before):
            count = tail.offset - since.offset
            known = 0 <= count <= len(records)
            records = records[len(records) - count :]
        return HistoryResult(tail.epoch, tail.offset, records if known else [], known, tail.began, before)

    async def _log(self, topic: str, since: Position | None) -> list[Stored]:
        """Return the log of a topic, or only the end of it, where that is all that is asked for."""
        last = self._followed.get(topic)
        if last is not None and since == (last.epoch, last.offset):
            log = await self._writer.log(topic, last.sequence)
            if log and log[0].tail.sequence == last.sequence:
                return log
        return await self._writer.log(topic)

    def _records(self, topic: str, log: list[Stored], tail: Tail) -> list[Record]:
        """Return the records that lead to the end of a log without a gap, within the bounds."""
        bounds = self._session.history
        now, offset, size = self._session.loop.time() + self._clock, tail.offset, 0
        records: list[Record] = []
        for stored in reversed(log):
            if stored.kind == MARK:
                continue
            size += len(stored.data) + RECORD_COST
            age = now - stored.at
            full = len(records) >= bounds.count or (records and size > bounds.size)
            if stored.tail.offset != offset or full or age > bounds.age:
                break
            records.append(stored.record(topic, tail.epoch, age))
            offset -= 1
        records.reverse()
        return records

    async def _unborn(self, since: Position | None) -> HistoryResult:
        """Return where a topic is that nothing was published to."""
        line = self._reached
        names = await self._starts.find(line)
        if not names:
            await self._starts.renew(line, self._session.loop.time() + self._clock)
            names = self._starts.names
        *before, last = [Position(name, 0) for name in names]
        known = since is None or since == last or since in before
        return HistoryResult(*last, [], known, 0, tuple(before))

    @property
    def _reached(self) -> NatsLine:
        if self._line is None:
            raise BackplaneAway("NATS is away")
        return self._line

    def _live(self, topic: str) -> str:
        return f"{self.prefix}.live.{quoted(topic)}"

    # -- what the session calls

    async def reach(self) -> None:
        """Connect, make what is missing, and read which run of a server this is."""
        line = self._line = NatsLine(self.timeout)
        self._followed.clear()
        options = {name: value for name, value in self._options.items() if value is not None}
        if any(self._files):
            options["tls"] = self._files.context()
        async with asyncio.timeout(self.timeout):
            await line.connect(self._urls, **options)
            server = (await line.ask("$SYS.REQ.USER.INFO"))["server"]
            found = await self._streams.prepare(line, server["ver"], self._session.history)
            self._created = found["created"]
            # A stream of a cluster has no server that it lives and dies with.
            self._shares = bool(server.get("cluster"))
            run = "" if self.keeps or self._shares else server["id"]
            self._life = hashlib.sha256(f"{self._created} {run}".encode()).hexdigest()[:12]
            self._clock = stamp(found["ts"]) - self._session.loop.time()
            await self._starts.begin(line, self._life, stamp(found["ts"]))
            await self._roster.begin(line)
            self._writer.begin(line, self._life, batches=bool(found["config"].get("allow_atomic")), shares=self._shares)
            self._outside.begin(line)

    async def work(self) -> None:
        """Serve until something is wrong."""
        line = self._reached
        keeping = self._session.loop.create_task(self._keep(line))
        try:
            done, _ = await asyncio.wait({keeping, line.ended}, return_when=asyncio.FIRST_COMPLETED)
            await done.pop()
        finally:
            keeping.cancel()

    async def lose(self, reason: str) -> None:
        """End the connection, and fail all that waits."""
        line, self._line = self._line, None
        self._followed.clear()
        self._roster.end()
        if line is not None:
            await line.close(reason)
        await self._writer.end()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def enter(self, topic: str, ident: str, info: str) -> None:
        """Tell NATS that somebody is present."""
        self._roster.enter(topic, ident, info)

    def part(self, topic: str, ident: str) -> None:
        """Tell NATS that somebody is no longer present."""
        self._roster.part(topic, ident)

    async def _keep(self, line: NatsLine) -> None:
        """Keep the lease, and see that the connection lives and the streams are the same."""
        while True:
            await asyncio.sleep(self._roster.interval)
            if line.is_late():
                raise TimeoutError("no answer in time")
            async with asyncio.timeout(self.timeout):
                if await self._streams.created(line) != self._created:
                    raise BackplaneAway(f"the stream {self._streams.topics} was made anew")
                if await self._roster.renew():
                    # It ran out, and all had left that were present here.
                    self._session.enter_all()
                await self._starts.renew(line, self._session.loop.time() + self._clock)
            self._roster.again()

    # -- what comes

    def _miss(self, topic: str) -> None:
        """Have a topic be asked for of which something may be missing."""
        if topic in self._followed:
            self._session.handler.on_doubt(topic)

    def _tell(self, topic: str, message: Msg) -> None:
        """Tell the handler what came of a topic, or that nobody can read it."""
        if topic not in self._followed or not self._session.reached:
            return
        told = (message.headers or {}).get(HEADER, "")
        handler = self._session.handler
        try:
            if told[:2] in {"+ ", "- "}:
                sign, lease, ident = told.split(" ")
                entry = new_entry(server_of(unquote(lease)), unquote(ident), message.data.decode())
                handler.on_presence(topic, "join" if sign == "+" else "leave", entry)
                return
            stored = stored_of(message)
            if stored.kind != MARK:
                record = stored.record(topic, stored.tail.epoch)
        except (LookupError, ValueError) as error:
            handler.on_doubt(topic, f"what came of it cannot be read: {error}")
            return
        self._followed[topic] = stored.tail
        self._writer.saw(topic, stored.tail)
        if stored.kind == MARK:
            handler.on_doubt(topic)
        else:
            handler.on_record(record)


def urls_of(url: str) -> tuple[list[str], TlsFiles]:
    """Return the URLs of the servers, and the files for TLS. Raises ValueError for what is none."""
    servers, _, query = url.partition("?")
    found = []
    for part in servers.split(","):
        each = part.strip()
        try:
            parts = urlsplit(each)
            is_good = parts.scheme in {"nats", "tls"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_good = False
        if not is_good or parts.path.strip("/") or parts.fragment:
            raise ValueError(f"url is {without_userinfo(servers)!r}, allowed is nats://HOST:PORT or tls://HOST:PORT")
        found.append(each)
    options = dict(parse_qsl(query, keep_blank_values=True))
    shown = without_userinfo(servers)
    if unknown := options.keys() - set(FILE_OPTIONS):
        raise ValueError(f"url is {shown!r} with {min(unknown)!r}, allowed are {', '.join(FILE_OPTIONS)}")
    if options and not all(each.startswith("tls:") for each in found):
        raise ValueError(f"url is {shown!r} with {min(options)!r}, which is for tls://HOST:PORT")
    files = TlsFiles.of(options)
    files.check()
    return found, files
