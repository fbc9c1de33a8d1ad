"""The table of topics: each with its log and its subscribers, and publications to all of them.

Laws:
1. A publication is encoded once, and compressed once for all that share a compressor.
2. What one subscriber does or suffers, no other one notices.
3. What becomes of each publication for each subscriber is counted.
4. A pattern is held as a topic is, with a log of its own: it takes what is published to all topics that match it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from rawws import clock
from rawws.net.identity import MAX_INFO
from rawws.net.turns import EVENT_COST, spend

from .cursors import CursorError, is_lenient
from .history import HistoryStore, Log, Missed, Notice
from .patterns import Pattern, patterns_of
from .rules import ClientRules
from .subscribers import PublishResult, fan_out

if TYPE_CHECKING:
    from collections.abc import Callable

    from .backplane import History
    from .history import Publication
    from .presence import PresenceSet, Present
    from .subscribers import Subscriber, Subscription

__all__ = ["COUNTED", "Topic", "TopicTable", "missed_since"]

COUNTED: Final = ("delivered", "queued", "conflated", "dropped", "closed")
# What it costs to send a publication to one subscriber, as bytes of a turn's work: as much as any message, so that a
# turn has 2,048 deliveries, of 0.5 us each and 5 us interpreted; and so many bytes of it as one.
DELIVERY_COST = EVENT_COST
DELIVERY_SHARE = 16
# And what each pattern for its topic costs, which has a place, a history and forms of its own: as a request.
MATCH_COST = 2048


@final
class Topic:
    """A topic: its log, who is subscribed to it, who watches and who is present."""

    __slots__ = ("away", "generation", "log", "patterns", "presence", "receivers", "subscriptions", "watchers")

    def __init__(self, log: Log) -> None:
        self.log = log
        self.subscriptions: dict[Subscriber, Subscription] = {}
        # The same as a list, made when it is needed and never changed, for a publication goes through it.
        self.receivers: list[Subscription] | None = None
        self.watchers: dict[Subscriber, Subscription] = {}
        self.presence: PresenceSet | None = None
        # How many are away who may come back here.
        self.away = 0
        # The patterns for it, as they were in that generation of all patterns.
        self.patterns: list[Topic] = []
        self.generation = 0


@final
class TopicTable:
    """The topics of a hub, by their names, and among them the patterns that somebody has or had.

    `render` makes the text of a notice for those who speak no client protocol; `new_log(topic, store)` the log of a
    topic. `on_forget` is called with each topic that is forgotten.
    """

    __slots__ = (
        "counts", "generation", "max_info", "new_log", "on_forget", "patterns", "render", "rules", "store", "topics",
    )  # fmt: skip

    def __init__(
        self, history: History, render: Callable[[Publication], str], new_log: Callable[[str, HistoryStore], Log]
    ) -> None:
        self.store = HistoryStore(history)
        self.render = render
        self.new_log = new_log
        # Of what is told of somebody present, in bytes of JSON.
        self.max_info = MAX_INFO
        self.rules = ClientRules()
        self.topics: dict[str, Topic] = {}
        # Those of them that are patterns, and how often that changed.
        self.patterns: dict[str, Topic] = {}
        self.generation = 0
        self.counts = dict.fromkeys(COUNTED, 0)
        self.on_forget: Callable[[Topic], None] | None = None

    def make(self, topic: str) -> Topic:
        """Add a topic."""
        return self.add(self.new_log(topic, self.store))

    def add(self, log: Log) -> Topic:
        """Add the topic, or the pattern, that has a log."""
        made = self.topics[log.topic] = Topic(log)
        if isinstance(log.topic, Pattern):
            self.patterns[log.topic] = made
            self.generation += 1
        return made

    def distribute(self, topic: Topic, publication: Publication, outcome: PublishResult) -> None:
        """Send a publication to all subscribers of its topic, but for who is excluded."""
        if topic.subscriptions:
            receivers = topic.receivers
            if receivers is None:
                receivers = topic.receivers = [each for each in topic.subscriptions.values() if not each.pending]
            excluded = outcome.excluded
            if excluded is None and self.rules.excluded is not None:
                excluded = self.rules.excluded(publication)
            if excluded is not None:
                receivers = [each for each in receivers if each.subscriber.receiver is not excluded]
            self.send(receivers, publication, outcome)
        self.tidy(topic)

    def match(self, topic: Topic, publication: Publication, outcome: PublishResult) -> None:
        """Publish to the patterns for a topic, too. Behind a backplane, its engine does."""
        if topic.generation != self.generation:
            topic.generation = self.generation
            known = self.patterns
            topic.patterns = [known[name] for name in patterns_of(topic.log.topic) if name in known]
        for pattern in topic.patterns:
            if self.patterns.get(pattern.log.topic) is not pattern:
                # It was forgotten meanwhile, for there was too much, or its last subscriber was found to be gone.
                continue
            spend(MATCH_COST)
            matched = pattern.log.match(publication)
            if pattern.subscriptions:
                # Without them, it is remembered since the last one: else it would be, as long as its topics are.
                self.store.touch(pattern.log, matched.at)
            self.distribute(pattern, matched, outcome)

    def patterns_for(self, topic: str) -> list[str]:
        """Return the names of the patterns for a topic."""
        return [name for name in patterns_of(topic) if name in self.patterns] if self.patterns else []

    def notice(
        self, topic: Topic, event: str, *, present: Present | None = None, cursor: str = "", extra: str = ""
    ) -> Notice:
        """Return a notice of a topic."""
        notice = Notice(topic.log.topic, event, self.render, present=present, cursor=cursor, extra=extra)
        notice.adopt(notice.topic, self.store.forms)
        return notice

    def tell(self, topic: Topic, event: str, present: Present) -> None:
        """Tell those who watch that somebody came or went."""
        if topic.watchers:
            self.send(list(topic.watchers.values()), self.notice(topic, event, present=present), PublishResult())

    def send(self, receivers: list[Subscription], publication: Publication, outcome: PublishResult) -> None:
        """Send a publication or a notice to those who get it, and count what became of it, and what it cost."""
        fan_out(receivers, publication, outcome)
        for name in COUNTED:
            self.counts[name] += getattr(outcome, name)
        self.store.forms.trim()
        spend(len(receivers) * (DELIVERY_COST + publication.encoded.size // DELIVERY_SHARE))

    def tidy(self, topic: Topic | None = None) -> None:
        """Forget the topics of which nothing is left, and this one where nothing is remembered."""
        store = self.store
        store.forms.trim()
        gone = store.let_go(clock.monotonic())
        if topic is not None and not store.bounds.count:
            gone.append(topic.log)
        for log in gone:
            found = self.topics.get(log.topic)
            if found is not None and not found.subscriptions and not found.away and not log.waiters:
                del self.topics[log.topic]
                if self.patterns.pop(log.topic, None) is not None:
                    self.generation += 1
                if self.on_forget is not None:
                    self.on_forget(found)


def missed_since(log: Log, cursor: str) -> Missed:
    """Return what came after a cursor. Raises CursorError for one that the topic never gave, if that is a mistake."""
    try:
        return log.since(str(cursor))
    except CursorError:
        if not is_lenient(cursor):
            raise
        return Missed([], False)
