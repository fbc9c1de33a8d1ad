"""Replication: a hub to a backplane and back (rawws/topics/backplane.py).

Laws:
1. Subscribers get a publication when it comes back from the engine: so all servers have one order.
2. What is missing is seen by its offset, and asked for; where it cannot be had, subscribers are told.
3. While the engine is away for a topic, what is published here reaches those who are here, once, and waits for the
   engine; no other topic notices.
4. What waits is bounded, and what is over the bounds is counted.
5. A topic that the engine cannot serve is told to those who wait for it or have it, counted, and named in the log
   once; no other topic notices.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from functools import partial
from typing import TYPE_CHECKING, final

from rawws import clock
from rawws.errors import RawwsError
from rawws.net.prepared import PreparedMessage
from rawws.protocol.extensions import excerpt

from .backplane import ALL_TOPICS, NO_TOPICS, Position
from .cursors import EARLIEST
from .faults import Faults
from .history import FAULT, MISSED, MOVED, HistoryStore, Log, Publication
from .inquiries import Inquiries
from .names import unavailable
from .outbox import Outbox, PendingPublish
from .patterns import text_of
from .replica import BEHIND, LIVE, MAX_BUFFER, ReplicaLog, publication_of
from .roster import Roster
from .subscribers import PublishResult

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from .backplane import Backplane, History, HistoryResult, PresenceEntry, Record
    from .table import Topic, TopicTable

__all__ = ["Replication"]

logger = logging.getLogger("rawws.topics")

# A backplane is opened when its hub is first used; then it says for which topics the engine is away: it is reached for
# all others. When it is closed, those who are here hear each other still, as where it is away for all.
NEW, OPENING, OPEN, CLOSED = range(4)


@final
class Replication:
    """What a hub with a backplane does differently: a BackplaneHandler of the contract.

    `check(topic, message, extra)` raises TopicError for a message that no subscriber of this hub may get.
    """

    def __init__(
        self,
        table: TopicTable,
        backplane: Backplane,
        history: History,
        check: Callable[[str, PreparedMessage, str], None],
    ) -> None:
        self.table = table
        table.on_forget = self.forget
        self.backplane = backplane
        self.history = history
        self.server = ""
        self.state = NEW
        # The topics for which the engine is away.
        self.away = NO_TOPICS
        self.outbox = Outbox()
        # Of what is told while the engine is away.
        self.store = HistoryStore(history)
        self.counts = dict.fromkeys(("lost", "gaps", "declared"), 0)
        self.check = check
        self.inquiries = Inquiries(self._ask)
        self.faults = Faults()
        self.roster = Roster(table, self.faults.add)

    def open(self) -> None:
        """Begin to reach the engine, if that was not begun."""
        if self.state == NEW:
            asyncio.get_running_loop()
            self.state = OPENING
            # Not before: the workers of one server have the same hubs up to when they start.
            self.server = secrets.token_hex(6)
            self.backplane.open(self.server, self.history, self)

    async def close(self) -> None:
        """Let go of the engine, and of all that waits for it."""
        was, self.state, self.away = self.state, CLOSED, ALL_TOPICS
        if was in {NEW, CLOSED}:
            return
        tasks = []
        for found in list(self.table.topics.values()):
            task = self._stop(found)
            if task is not None:
                tasks.append(task)
            replica_of(found).release()
        try:
            await self.backplane.close()
        finally:
            for sent in self.outbox.of(ALL_TOPICS):
                self._drop(sent)
            await asyncio.gather(*tasks, return_exceptions=True)

    # -- what the hub calls

    def publish(self, publication: Publication, outcome: PublishResult) -> PublishResult:
        """Send a publication to the engine, or have it wait for it."""
        self.open()
        outcome.accepted = False
        patterns = self.table.patterns_for(publication.topic)
        sent = self.outbox.add(publication, outcome, patterns, keep=self.state != CLOSED)
        if sent not in self.outbox:
            self.counts["lost"] += 1
        if sent.topic in self.away:
            self._show(sent)
        elif sent in self.outbox:
            outcome.pending = True
            if self.state == OPEN:
                self._send(sent)
        return outcome

    def is_ready(self, topic: str, cursor: str, *, asked: bool = False) -> bool:
        """Tell whether it is known what came since a cursor; with `asked`, it was waited for."""
        self.open()
        if topic in self.away:
            return True
        found = self.table.topics.get(topic)
        if self.state == OPENING or found is None:
            return False
        replica = replica_of(found)
        if replica.state != LIVE:
            return False
        if cursor and replica.local is not None:
            return cursor.startswith(f"{replica.local.epoch}:")
        return asked or not cursor or cursor == EARLIEST or not replica.is_behind(cursor)

    def wait(self, found: Topic, waiter: Callable[[], None], *, again: bool = True) -> None:
        """Have a callback called when something changes of what `is_ready` says, or the topic turns out to be at fault.

        Without `again`, the engine is not asked because of it: it will be, for it failed.
        """
        replica = replica_of(found)
        replica.waiters.append(waiter)
        replica.store.touch(replica, clock.monotonic())
        is_asked = found in self.inquiries or not again
        if self.is_reached(replica.topic) and not is_asked and (replica.state == BEHIND or replica.local is None):
            self._catch_up(found)

    def prepare(self, log: Log) -> None:
        """Have a topic have a place while the engine is away."""
        replica: ReplicaLog = log  # type: ignore[assignment]
        if log.topic in self.away and replica.local is None:
            replica.local = Log(log.topic, self.store)

    async def changed(self, found: Topic) -> None:
        """Wait for such a change. Raises TopicError where the engine cannot serve the topic."""
        waiter = asyncio.get_running_loop().create_future()
        self.wait(found, lambda: None if waiter.done() else waiter.set_result(None))
        await waiter
        self.check_fault(found)

    def check_fault(self, found: Topic) -> None:
        """Raise TopicError for a topic that the engine could not serve when it was asked last."""
        replica = replica_of(found)
        if replica.fault and self.is_reached(replica.topic):
            raise unavailable(text_of(replica.topic))

    def join(self, topic: str, ident: str, info: str) -> None:
        """Have other servers know who is present."""
        self.open()
        if self.state != CLOSED:
            self.backplane.join(topic, ident, info)

    def leave(self, topic: str, ident: str) -> None:
        """Have other servers know who is present no more."""
        if self.state not in {NEW, CLOSED}:
            self.backplane.leave(topic, ident)

    @property
    def is_away(self) -> bool:
        """Whether the engine cannot be reached, for some topics at least."""
        return self.away is not NO_TOPICS

    def is_reached(self, topic: str) -> bool:
        """Tell whether the engine serves a topic, as far as is known."""
        return self.state == OPEN and topic not in self.away

    def stats(self) -> dict[str, int]:
        """Return the other fields of HubStats that are about the backplane."""
        retries = self.backplane.stats()["retries"]
        return {"unsent": len(self.outbox), **self.counts, "faults": self.faults.count, "retries": retries}

    def forget(self, found: Topic) -> None:
        """Stop following a topic that the hub forgot."""
        replica = replica_of(found)
        self._stop(found)
        replica.release()
        if self.is_reached(replica.topic):
            self.backplane.unfollow(replica.topic)
        self._release_placed(replica.topic)

    # -- what the backplane calls

    def on_record(self, record: Record) -> None:
        """Deliver a publication, if it is the next one; else find out what is missing."""
        found = self.table.topics.get(record.topic)
        if found is None or not self.is_reached(record.topic):
            return
        replica = replica_of(found)
        if replica.state == LIVE and record.epoch == replica.epoch:
            if record.offset == replica.offset + 1:
                self._deliver(found, record)
                return
            if record.offset <= replica.offset:
                return
        elif replica.state == LIVE and replica.begin(record):
            self._deliver(found, record)
            return
        is_asked = found in self.inquiries
        # What comes of a topic at fault is asked for when that is mended.
        if is_asked or not replica.fault:
            replica.buffer.append(record)
        if not is_asked and not replica.fault:
            self.counts["gaps"] += 1
            self._catch_up(found)

    def on_presence(self, topic: str, event: str, entry: PresenceEntry) -> None:
        """Enter or remove somebody who joined or left at another server."""
        found = self.table.topics.get(topic)
        if found is None or entry.server == self.server:
            return
        if replica_of(found).entries is None:
            self.roster.meet(found, event, entry)
        else:
            self._put_off(found, (event, entry))

    def on_server_gone(self, server: str, topics: Container[str] = ALL_TOPICS) -> None:
        """Have all leave that were present at a server."""
        if server in {"", self.server}:
            return
        for found in self._found(topics):
            if replica_of(found).entries is not None:
                self._put_off(found, server)
            self.roster.part(found, server)

    def on_doubt(self, topic: str, reason: str = "") -> None:
        """Find out where a topic is, of which something may be missing."""
        if reason:
            self.faults.add(topic, reason)
        found = self.table.topics.get(topic)
        if found is not None and self.is_reached(topic) and found not in self.inquiries and not replica_of(found).fault:
            self._catch_up(found)

    def on_away(self, reason: str, away: Container[str] = ALL_TOPICS) -> None:
        """Have those who are here hear each other meanwhile."""
        # Which of several nodes follow the first one is less than news.
        level = logging.INFO if self.is_away else logging.WARNING
        which = "topics" if away is ALL_TOPICS else "some topics"
        logger.log(level, "the backplane is away, %s are degraded: %s", which, reason or "it says no more")
        self._turn(away)

    def on_back(self, away: Container[str] = NO_TOPICS) -> None:
        """Send what waited, and find out what came meanwhile."""
        if self.is_away and away is NO_TOPICS:
            logger.warning("the backplane is back: %d publications waited for it", len(self.outbox))
        self.faults.named.clear()
        self._turn(away)

    def _turn(self, away: Container[str]) -> None:
        """Take over for which topics the engine is away: it is reached for all others."""
        was_open, before = self.state == OPEN, self.away
        self.state, self.away = OPEN, away
        lost, back = [], []
        for found in self._found(ALL_TOPICS):
            topic = found.log.topic
            if topic in away:
                if not (was_open and topic in before):
                    lost.append(found)
            elif not was_open or topic in before:
                back.append(found)
        for found in lost:
            self._stop(found)
            replica = replica_of(found)
            replica.entries, replica.fault = [], False
        for sent in self.outbox.of(ALL_TOPICS):
            if sent.topic in away:
                self._show(sent)
            elif not was_open or sent.topic in before:
                self._send(sent)
        for found in lost:
            replica_of(found).release()
        for found in back:
            self._catch_up(found)

    # -- publications

    def _send(self, sent: PendingPublish) -> None:
        told = sent.publication
        answer = self.backplane.publish(told.topic, told.message, told.key, sent.number, told.extra)
        answer.add_done_callback(partial(self._answered, sent))

    def _answered(self, sent: PendingPublish, answer: asyncio.Future[Position]) -> None:
        """Store the position of a publication, or drop it if the engine refused it."""
        error = None if answer.cancelled() else answer.exception()
        if sent not in self.outbox or answer.cancelled() or isinstance(error, ConnectionError):
            return  # it came back already, or will be sent again
        topic = sent.topic
        if error is not None:
            self.faults.add(topic, error)
            sent.outcome.refused = unavailable(topic).reason
            self._drop(sent)
            return
        sent.answer(answer.result())
        found = self.table.topics.get(topic)
        if found is None or not replica_of(found).fault:
            self.faults.named.discard(topic)
        for channel in sent.expected:
            found = self.table.topics.get(channel)
            replica = None if found is None else replica_of(found)
            # Else it will come, by itself or by what is being asked.
            if replica is None or replica.fault or (replica.state == LIVE and sent.is_past(replica)):
                self._release(sent, channel)

    def _release(self, sent: PendingPublish, channel: str) -> None:
        """Record that a publication will not come any more in its topic, or in a pattern for that."""
        self.outbox.expect_no_more(sent, channel)
        if not sent.expected:
            sent.settle()
        found = self.table.topics.get(channel)
        if found is not None:
            replica_of(found).shown.discard(sent.number)
            self._settle(found)

    def _drop(self, sent: PendingPublish) -> None:
        """Give a publication up."""
        self.counts["lost"] += 1
        for channel in sent.expected:
            self._release(sent, channel)

    def _release_placed(self, channel: str) -> None:
        """Let go of what has its place in a topic or a pattern that nobody here follows."""
        for sent in self.outbox.expected_in(channel):
            if sent.patterns is not None:
                self._release(sent, channel)

    def _deliver(self, found: Topic, record: Record) -> None:
        """Deliver the next publication of a topic, unless those who are here have it already."""
        replica = replica_of(found)
        sent = self.outbox.come(record) if record.server == self.server else None
        encoded = self._prepared(record) if sent is None else sent.publication.encoded
        if encoded is None:
            self._begin_anew(found, record.epoch, record.offset)
            return
        publication = publication_of(record, encoded)
        replica.hold(publication)
        outcome = PublishResult(publication.cursor) if sent is None else sent.outcome
        if record.server == self.server and record.number in replica.shown:
            replica.shown.discard(record.number)
            replica.mixed = replica.local is not None
            self._settle(found)
        else:
            if replica.local is not None:
                replica.mixed = True
                publication = replica.show(self.store, publication)
            self.table.distribute(found, publication, outcome)
        if sent is not None and not sent.expected:
            sent.settle()

    def _show(self, sent: PendingPublish) -> None:
        """Deliver a publication to those who are here, while the engine is away."""
        is_new = True
        for channel in sent.expected:
            found = self.table.topics.get(channel)
            if found is None:
                if channel != sent.topic:
                    continue
                found = self.table.make(channel)
            replica = replica_of(found)
            if sent.number in replica.shown:
                is_new = False
                continue
            if sent in self.outbox:
                replica.shown.add(sent.number)
            publication = replica.show(self.store, sent.publication)
            self.store.let_go(publication.at)
            self.table.distribute(found, publication, sent.outcome)
            if channel == sent.topic:
                sent.outcome.settle(publication.cursor, accepted=sent.place is not None)
        # What was shown before is known here until it comes back: it would be delivered again.
        if is_new and sent.patterns is not None:
            self.outbox.take(sent.number)

    def _prepared(self, record: Record) -> PreparedMessage | None:
        """Return the message of a record that another server wrote; None where no subscriber here may get it."""
        try:
            encoded = PreparedMessage(record.message)
            self.check(record.published or record.topic, encoded, record.extra)
        except RawwsError as error:
            self.faults.add(record.topic, error)
            return None
        return encoded

    # -- topics

    def _found(self, topics: Container[str]) -> list[Topic]:
        return [found for name, found in self.table.topics.items() if name in topics]

    def _stop(self, found: Topic) -> asyncio.Task[None] | None:
        """Ask no more where a topic is."""
        replica = replica_of(found)
        replica.state = BEHIND
        replica.buffer.clear()
        return self.inquiries.end(found)

    def _catch_up(self, found: Topic) -> None:
        replica = replica_of(found)
        replica.state = BEHIND
        if replica.entries is not None:
            # Who is present is asked for behind all that was told so far.
            replica.entries = []
        self.inquiries.begin(found)

    def _put_off(self, found: Topic, told: tuple[str, PresenceEntry] | str) -> None:
        """Remember what was told before it is known who is present."""
        replica = replica_of(found)
        if replica.entries is not None and len(replica.entries) < MAX_BUFFER:
            replica.entries.append(told)
        elif not replica.fault or found in self.inquiries:
            self._catch_up(found)

    async def _ask(self, found: Topic) -> None:
        """Find out where a topic is; where the engine goes away, `on_back` begins anew."""
        with contextlib.suppress(ConnectionError):
            try:
                await self._find_out(found)
            except ConnectionError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, it is about this topic
                self._fail(found, error)
                return
            self.inquiries.finish(found)
            replica = replica_of(found)
            if replica.fault:
                replica.fault = False
                self.faults.named.discard(replica.topic)
                logger.warning("the backplane serves the topic %s again", excerpt(replica.topic))
            self._settle_past(replica)
            self._settle(found)
            replica.release()

    async def _find_out(self, found: Topic) -> None:
        """Follow a topic, and ask for what is missing, until nothing is."""
        replica = replica_of(found)
        topic = replica.topic
        if replica.entries is not None:
            await self.backplane.follow(topic)
        while replica.state == BEHIND:
            result = await self.backplane.history(topic, position_of(replica))
            if replica.epoch and result.epoch != replica.epoch and not result.recovered:
                # What was lost cannot be had, what came since then may.
                self._begin_anew(found, result.epoch, result.began)
                result = await self.backplane.history(topic, position_of(replica))
            if replica.entries is not None:
                entries = await self.backplane.presence(topic)
                self.roster.meet_all(found, entries, self.server)
                told, replica.entries = replica.entries, None
                self.roster.meet_later(found, told)
            self._go_on(found, result)

    def _fail(self, found: Topic, error: Exception) -> None:
        """Tell all who wait for a topic, or have it, that the engine cannot serve it, and ask again later."""
        replica = replica_of(found)
        is_new, replica.fault = not replica.fault, True
        replica.buffer.clear()
        self.faults.add(replica.topic, error)
        self.inquiries.again(found, lambda: self._retry(found))
        self._release_placed(replica.topic)
        if is_new:
            self._tell_place(found, FAULT)
        replica.release()

    def _retry(self, found: Topic) -> None:
        """Ask for a topic that could not be served, where somebody has it; else whoever wants it next asks."""
        if found.subscriptions and self.is_reached(found.log.topic):
            self._catch_up(found)

    def _go_on(self, found: Topic, result: HistoryResult) -> None:
        """Take what came, and go on live if nothing is missing then."""
        replica = replica_of(found)
        if not replica.epoch:
            self._begin(found, result)
        elif result.recovered:
            if result.epoch != replica.epoch:
                replica.go_over(result.epoch, result.before)
                if not result.offset and replica.local is None:
                    # Nothing was published yet, and that has a new name.
                    self._tell_place(found, MOVED)
            else:
                replica.before.update(result.before)
            for record in result.records:
                if record.offset == replica.offset + 1:
                    self._deliver(found, record)
        else:
            self._begin_anew(found, result.epoch, result.offset)
        replica.store.touch(replica, clock.monotonic())
        while replica.buffer:
            record = replica.buffer.popleft()
            if record.epoch == replica.epoch or replica.begin(record):
                if record.offset > replica.offset + 1:
                    return
                if record.offset > replica.offset:
                    self._deliver(found, record)
        replica.state = LIVE

    def _begin(self, found: Topic, result: HistoryResult) -> None:
        """Take over what the engine holds, for those who come back; who is here already was promised what comes."""
        replica = replica_of(found)
        replica.reset(result.epoch, result.offset - len(result.records))
        replica.go_over(result.epoch, result.before)
        for record in result.records:
            sent = self.outbox.come(record) if record.server == self.server else None
            encoded = self._prepared(record) if sent is None else sent.publication.encoded
            if encoded is None:
                replica.clear()
                replica.offset = record.offset
                continue
            replica.hold(publication_of(record, encoded))
            if record.server == self.server:
                replica.shown.discard(record.number)
            if sent is not None and not sent.expected:
                sent.settle()
        replica.shown &= self.outbox.waiting.keys()
        if replica.local is not None:
            replica.mixed = True
            # What others published meanwhile, and what was published before that, cannot be told apart.
            self._declare(found)

    def _begin_anew(self, found: Topic, epoch: str, offset: int) -> None:
        """Begin at a new epoch and offset, because something is lost."""
        replica = replica_of(found)
        replica.reset(epoch, offset)
        replica.shown &= self.outbox.waiting.keys()
        self._declare(found)

    def _declare(self, found: Topic) -> None:
        """Tell all subscribers that it is not known what they missed."""
        self.counts["declared"] += 1
        replica_of(found).renew()
        for subscription in found.subscriptions.values():
            subscription.recovered = False
        self._tell_place(found, MISSED)

    def _tell_place(self, found: Topic, event: str) -> None:
        place = self.table.notice(found, event, cursor=found.log.cursor)
        for subscription in list(found.subscriptions.values()):
            if not subscription.pending:
                subscription.subscriber.tell_place(subscription, place)

    def _settle(self, found: Topic) -> None:
        """Go back to the engine's cursors, when all that was told here has its place there."""
        replica = replica_of(found)
        is_live = replica.state == LIVE and self.is_reached(replica.topic)
        if replica.local is not None and is_live and not replica.shown:
            replica.local = None
            replica.mixed = False
            self._tell_place(found, MOVED)
            replica.release()

    def _settle_past(self, replica: ReplicaLog) -> None:
        """Let go of what the engine has, and what was not among that which came."""
        for sent in self.outbox.expected_in(replica.topic):
            if sent.is_past(replica):
                self._release(sent, replica.topic)
        # What was shown here, and had its place where this pattern was not known any more, does not come.
        replica.shown &= self.outbox.waiting.keys()


def replica_of(found: Topic) -> ReplicaLog:
    """Return the log of a topic of a hub that has a backplane."""
    return found.log  # type: ignore[return-value]


def position_of(replica: ReplicaLog) -> Position | None:
    """Return where a replica is, None where that is not known."""
    return Position(replica.epoch, replica.offset) if replica.epoch else None
