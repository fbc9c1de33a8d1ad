"""Rates: how many topics a client may bring up that the hub does not know, for each costs memory and a question."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, final

from rawws import clock
from rawws.net.websocket import WebSocket

from .asgi_socket import AsgiSocket
from .names import TopicError

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["TOPIC_RATE", "TopicRates"]

# A page asks for what it shows when it opens, and for little later: ten seconds' worth is as many topics as one
# subscriber may have by default, and an attacker waits for the rest.
TOPIC_RATE: Final = 100.0
# What may come at once, in seconds of the rate.
TOPIC_BURST: Final = 10.0
# Of so many names it is remembered that they were brought up, also where the hub has no topic of them: whoever only
# publishes has none. And of so many clients, when they may bring up more.
MAX_NAMES: Final = 10_000
MAX_CLIENTS: Final = 100_000


@final
class TopicRates:
    """How fast clients bring up topics: one number for each, as in `rawws.net.rate`."""

    __slots__ = ("_due", "_names", "_older", "rate")

    def __init__(self, rate: float) -> None:
        self.rate = rate
        # When all that a client brought up would have been due, had it come evenly; the last client at the end.
        self._due: OrderedDict[Any, float] = OrderedDict()
        # By their hashes, a fifth of what long names take: those of now, and those before them.
        self._names: set[int] = set()
        self._older: set[int] = set()

    def account(self, client: Any, topics: Collection[str], known: Collection[str]) -> None:
        """Count the topics that a client brings up, of which the hub has those that are `known`.

        Raises TopicError where they are too many: then none of them counts.
        """
        new = [hash(topic) for topic in topics if topic not in known and not self._has(hash(topic))]
        if not new:
            return
        key = key_of(client)
        now = clock.monotonic()
        due = max(self._due.get(key, now), now) + len(new) / self.rate
        if key is not None and due - now > TOPIC_BURST:
            raise TopicError("limit", f"over {self.rate:g} new topics a second, allowed is to ask again later")
        for name in new:
            if len(self._names) >= MAX_NAMES // 2:
                self._names, self._older = set(), self._names
            self._names.add(name)
        if key is not None:
            self._due[key] = due
            self._due.move_to_end(key)
            self._forget(now)

    def forget(self, client: Any) -> None:
        """Forget a connection that is gone: the next one may be the object where this one was."""
        self._due.pop(key_of(client), None)

    def _has(self, name: int) -> bool:
        return name in self._names or name in self._older

    def _forget(self, now: float) -> None:
        """Forget two clients that may bring up as many as any other."""
        for _ in range(2):
            key, due = next(iter(self._due.items()))
            if due > now and len(self._due) <= MAX_CLIENTS:
                return
            del self._due[key]
            if not self._due:
                return


def key_of(client: Any) -> Any:
    """Return what a client is known by: a WebSocket, or the address of a request; None where it has none."""
    return id(client) if isinstance(client, (WebSocket, AsgiSocket)) else client.remote_address or None
