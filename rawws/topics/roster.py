"""Roster: those present at other servers, as the engine behind a backplane tells of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from .history import JOIN, LEAVE
from .names import TopicError
from .presence import PresenceSet, present_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .backplane import PresenceEntry
    from .table import Topic, TopicTable

__all__ = ["Roster"]


@final
class Roster:
    """Has those of other servers come and go in the topics of a table.

    `blame(topic, error)` is called for who cannot be shown to anybody, `on_taken(topic, id)` for who was away from this
    server and is at another one now.
    """

    __slots__ = ("_blame", "_table", "on_taken")

    def __init__(self, table: TopicTable, blame: Callable[[str, TopicError], None]) -> None:
        self._table = table
        self._blame = blame
        self.on_taken: Callable[[Topic, str], None] = lambda _topic, _id: None

    def meet_all(self, found: Topic, entries: list[PresenceEntry], server: str) -> None:
        """Have those be present who are, and nobody else of other servers than this one."""
        there = {(entry.server, entry.id) for entry in entries}
        for present in list(found.presence.members.values()) if found.presence is not None else ():
            if present.server and (present.server, present.id) not in there:
                self._leave(found, present.id, present.server)
        for entry in entries:
            if entry.server != server:
                self.meet(found, "join", entry)

    def meet_later(self, found: Topic, told: Iterable[tuple[str, PresenceEntry] | str]) -> None:
        """Do what was told before it was known who is present: who came and went, and which server is gone."""
        for each in told:
            if isinstance(each, str):
                self.part(found, each)
            else:
                self.meet(found, *each)

    def meet(self, found: Topic, event: str, entry: PresenceEntry) -> None:
        """Have somebody come or go."""
        if event == "leave":
            self._leave(found, entry.id, entry.server)
            return
        try:
            present = present_of(entry.id, entry.info, entry.server, self._table.max_info)
        except TopicError as error:
            self._blame(found.log.topic, error)
            return
        if found.presence is None:
            found.presence = PresenceSet()
        known = found.presence.members.get(present.id)
        if known is not None and known.server != present.server:
            if present.away or not (known.server or known.away):
                # That server does not know yet that it came back here, or somewhere else.
                return
            if not known.server:
                self.on_taken(found, present.id)
        found.presence.join(present)
        if not present.looks_as(known):
            self._table.tell(found, JOIN, present)

    def part(self, found: Topic, server: str) -> None:
        """Have all go who were present at a server."""
        for present in [] if found.presence is None else found.presence.leave_all(server):
            self._table.tell(found, LEAVE, present)

    def _leave(self, found: Topic, ident: str, server: str) -> None:
        known = None if found.presence is None else found.presence.members.get(ident)
        # One that came back by another server is there, whatever the first one says behind that.
        if found.presence is not None and known is not None and known.server == server:
            found.presence.leave(ident)
            self._table.tell(found, LEAVE, known)
