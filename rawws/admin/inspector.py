"""Inspector: one server with its hubs to what is asked about it, in what JSON can say.

Laws:
1. A look costs what it shows, and at most one pass over the connections: nothing is counted for it in between.
2. No text of a client is shown whole that could be long, and no query of a path: tokens stand there.
"""

from __future__ import annotations

import heapq
import logging
import os
import secrets
import time
from collections import Counter
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, final

from rawws.errors import LocalProtocolError
from rawws.metrics import samples_of
from rawws.net.logs import printable, shown_address
from rawws.net.websocket import WebSocket
from rawws.protocol.closing import serialize_close
from rawws.server.http1 import Http1Connection
from rawws.server.stats import kind_of, path_of
from rawws.topics.core import known_hubs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rawws.net.identity import Identity
    from rawws.server.server import Server
    from rawws.topics.core import HubCore
    from rawws.topics.presence import Present

    from .sources import Answer

__all__ = ["ORDERS", "SLOW", "SPARE", "TOPICS_SHOWN", "Inspector", "add_action", "add_subscribers"]

logger = logging.getLogger("rawws.admin")

# Of those present that are listed in one answer.
MOST: Final = 10_000
# How many slow consumers come with each snapshot, and how many topics are shown. Of those, each process names so many
# times more: what has few subscribers everywhere is found, too.
SLOW, TOPICS_SHOWN, SPARE = 20, 20, 10

# Characters of a user that are shown: as many as an Identity has at most; an authorizer of a gateway may say more.
LONGEST_USER: Final = 255


class Seen(NamedTuple):
    """A connection, how many bytes wait for its peer, in the socket and in the hubs, and what it is to those.

    It may be several things to them: to some a WebSocket, to others what a gateway makes of it.
    """

    ws: WebSocket
    waiting: int
    receivers: Sequence[Any]
    hubs: Sequence[HubCore]

    @property
    def topics(self) -> int:
        """How many topics it has."""
        return sum([hub.topics_of(each) for hub in self.hubs for each in self.receivers])

    @property
    def user(self) -> str:
        """Whose connection it is, "" where nobody said."""
        return next(filter(None, map(user_of, self.receivers)), "")[:LONGEST_USER]


# What connections are sorted by, the largest first.
ORDERS: Final[dict[str, Callable[[Seen], float]]] = {
    "waiting": lambda seen: seen.waiting,
    "sent": lambda seen: seen.ws.bytes_sent,
    "received": lambda seen: seen.ws.bytes_received,
    "topics": lambda seen: seen.topics,
    "age": lambda seen: age_of(seen.ws),
    "latency": lambda seen: seen.ws.latency,
}


# What else may be asked of this process, or done in it, by its name: `rawws gateway` adds to it, and admin knows no
# gateway.
Action: TypeAlias = "Callable[..., Answer | Awaitable[Answer | None] | None]"
_actions: dict[str, Action] = {}


def add_action(name: str, action: Action) -> None:
    """Have something be done where it is asked for by this name; it returns the answer, None for nothing to do."""
    _actions[name] = action


# What finds the object that is subscribed to hubs for a WebSocket, if another one is: `rawws gateway` has such.
_finders: set[Callable[[WebSocket], Any]] = set()


def add_subscribers(find: Callable[[WebSocket], Any]) -> None:
    """Have connections be shown with the topics of what this finds for them, and with its `user`; it may find None."""
    _finders.add(find)


@final
class Inspector:
    """What is asked about a server. Without hubs, those of the process are looked at.

    `worker` is its place among the workers of a server.
    """

    __slots__ = ("_began", "_hubs", "_life", "_questions", "_server", "_worker")

    def __init__(self, server: Server, hubs: Sequence[HubCore] = (), worker: int = 0) -> None:
        self._server = server
        self._hubs = tuple(hubs)
        self._worker = worker
        # Which of all the processes that had this place it is.
        self._life = secrets.token_hex(8)
        self._began = time.time()
        self._questions: dict[str, Callable[..., Answer | Awaitable[Answer]]] = {
            "snapshot": self.snapshot,
            "connections": self.connections,
            "topics": self.topics,
            "presence": self.presence,
            "kick": self.kick,
            "act": self.act,
        }

    @property
    def hubs(self) -> Sequence[HubCore]:
        """The hubs that are looked at."""
        return self._hubs or known_hubs()

    async def answer(self, ask: Answer) -> Answer:
        """Return the answer to a question."""
        fields = dict(ask)
        found = self._questions[fields.pop("ask")](**fields)
        return await found if isinstance(found, Awaitable) else found

    def snapshot(self) -> Answer:
        """Return what it counts, and who is slow."""
        server = self._server
        figures = server.stats()
        return {
            "worker": self._worker,
            "life": self._life,
            "pid": os.getpid(),
            "began": self._began,
            "serving": server.is_serving(),
            "draining": server.draining,
            "degraded": any(hub.degraded for hub in self.hubs),
            "connections": figures.connections,
            "streams": figures.streams,
            "polls": figures.polls,
            "lag": figures.lag.last,
            "samples": samples_of(server, self.hubs, figures),
            "slow": self._first(self._seen(slow=True), SLOW, "waiting"),
            "topics": self.topics(TOPICS_SHOWN * SPARE),
        }

    def connections(self, limit: int, sort: str, user: str = "") -> Answer:
        """Return connections, the first in an order; where a user is named, those of that one alone."""
        seen = [each for each in self._seen() if not user or each.user == user]
        return {"total": len(seen), "connections": self._first(seen, limit, sort)}

    def _first(self, seen: Iterable[Seen], limit: int, sort: str) -> list[Answer]:
        return [self._shown(each) for each in heapq.nlargest(limit, seen, key=ORDERS[sort])]

    def _seen(self, *, slow: bool = False) -> Iterator[Seen]:
        """Yield connections; with `slow`, those alone whose peers are behind."""
        waiting, hubs = Counter[int](), self.hubs
        for hub in hubs:
            for receiver, size in hub.waiting_subscribers():
                waiting[id(receiver)] += size
        for ws in self._sockets():
            # What a hub knows of an event stream is what answers on the connection.
            known = ws.handler.observer if isinstance(ws.handler, Http1Connection) else ws
            receivers = [known, *filter(None, [find(ws) for find in _finders])]
            behind = sum([waiting.get(id(each), 0) for each in receivers])
            if not slow or ws.congested or behind:
                yield Seen(ws, ws.buffered + behind, receivers, hubs)

    def _sockets(self) -> Iterator[WebSocket]:
        """Yield the connections, which are WebSockets or may become one."""
        return (ws for ws in self._server.settings.connections if isinstance(ws, WebSocket))

    def _shown(self, seen: Seen) -> Answer:
        ws = seen.ws
        return {
            "id": str(ws.id),
            "worker": self._worker,
            "kind": kind_of(ws),
            "remote": shown_address(ws.remote_address),
            "user": seen.user,
            "path": path_of(ws.request_head).partition("?")[0] if ws.request_head else "",
            "subprotocol": ws.subprotocol or "",
            "seconds": round(age_of(ws), 3),
            "received": ws.bytes_received,
            "sent": ws.bytes_sent,
            "waiting": seen.waiting,
            "topics": seen.topics,
            "latency": round(ws.latency, 6),
        }

    def topics(self, limit: int) -> Answer:
        """Return topics, those with the most subscribers first."""
        found: dict[str, list[int]] = {}
        for hub in self.hubs:
            for topic, *counts in hub.topic_figures():
                found[topic] = [a + b for a, b in zip(found.get(topic, (0, 0, 0)), counts, strict=True)]
        first = heapq.nsmallest(limit, found.items(), key=lambda item: (-item[1][0], item[0]))
        return {"total": len(found), "topics": [[topic, *counts] for topic, counts in first]}

    def presence(self, topic: str) -> Answer:
        """Return who is present in a topic."""
        there = {present.id: present for hub in self.hubs for present in hub.members(topic)}
        subscribers = sum(each.subscribers for hub in self.hubs for each in hub.topic_figures() if each.topic == topic)
        first = list(there.values())[:MOST]
        return {"subscribers": subscribers, "total": len(there), "present": [shown_present(each) for each in first]}

    def kick(self, ident: str, code: int, reason: str) -> Answer:
        """Close a connection; `found` says whether it is here, `wrong` what is wrong with the code or the reason."""
        ws = next((each for each in self._sockets() if str(each.id) == ident), None)
        if ws is None:
            return {"found": False}
        try:
            serialize_close(code, reason)
        except LocalProtocolError as error:
            return {"found": True, "wrong": str(error)}
        logger.info(
            "%s is closed with %d%s", shown_address(ws.remote_address), code, reason and f" ({printable(reason)})"
        )
        self._server.close_gracefully(ws, code, reason)
        return {"found": True}

    async def act(self, name: str, fields: Answer) -> Answer:
        """Do something that this process was told of; `found` says whether it has what it is about."""
        action = _actions.get(name)
        found = None if action is None else action(**fields)
        if isinstance(found, Awaitable):
            found = await found
        return {"found": False} if found is None else {**found, "found": True}


def shown_present(present: Present) -> Answer:
    """Return what is told of somebody present, and by whom: `claimed` is what its client says, and nobody else."""
    shown: Answer = {"id": present.id, "user": present.user, "info": present.info, "claimed": present.claimed}
    return shown if present.claim is None else {**shown, "claim": present.claim}


def user_of(receiver: Any) -> str:
    """Return whose connection it is, as `identify` of a hub said, the application or a gateway; "" where nobody did."""
    identity: Identity | None = getattr(receiver, "identity", None)
    return str(getattr(receiver, "user", "")) if identity is None else identity.user


def age_of(ws: WebSocket) -> float:
    """Return for how many seconds there has been a WebSocket; 0 for what is none yet."""
    return ws.age() if ws.handler is None else 0.0
