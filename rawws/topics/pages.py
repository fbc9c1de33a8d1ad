"""Pages: what is held of a topic to a part of it, for who looks back, and to the answer that a client is given.

Laws:
1. A page is bounded in publications; one that goes to a client in bytes, too, but for a single publication.
2. Its cursor is where to go on: `since` of the next page, or `before` of the one before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .cursors import EARLIEST, CursorError
from .envelope import answer_of, malformed

if TYPE_CHECKING:
    from .core import HubCore
    from .history import Publication

__all__ = ["MAX_ANSWER", "HistoryPage", "answer_page", "check_page", "page_of"]

# The publications of one answer have so many bytes; a single one may be larger.
MAX_ANSWER: Final = 1 << 19


class HistoryPage(NamedTuple):
    """A part of what is held of a topic.

    `publications` are in their order. `cursor` is where to go on: for the page behind a cursor the `since` of the next
    one, for the page before a cursor the `before` of the next one, else where the topic is. `recovered` is False where
    it is not known what came behind that cursor, or before it, and then there are none.
    """

    publications: list[Publication]
    cursor: str
    recovered: bool


def check_page(since: str | None, before: str | None) -> None:
    """Raise EnvelopeError for a page that would go in both directions."""
    if since and before:
        raise malformed("history has since and before, allowed is one")


def page_of(hub: HubCore, topic: str, since: str, before: str, limit: int, size: int | None = None) -> HistoryPage:
    """Return the first publications behind a cursor, the last ones before one, or the last ones of all.

    They are at most `limit`, and of at most `size` bytes in their envelopes, but for one. Raises CursorError for a
    cursor that the topic never gave.
    """
    if since:
        cursor, found, recovered = hub.recall(topic, since=since)
        chosen = first_of(hub, found, limit, size)
        if len(chosen) < len(found):
            cursor = chosen[-1].cursor if chosen else since
        return HistoryPage(chosen, cursor, recovered)
    cursor, found, recovered = hub.recall(topic, since=EARLIEST)
    if before:
        index = index_of(hub, topic, found, before)
        cursor, found, recovered = before, found[:index] if index else [], index is not None
    chosen = first_of(hub, found[::-1], limit, size)[::-1]
    if before and chosen:
        cursor = chosen[0].cursor
    return HistoryPage(chosen, cursor, recovered)


def index_of(hub: HubCore, topic: str, found: list[Publication], before: str) -> int | None:
    """Return how many of the publications that are held are before a cursor; None where that cannot be said."""
    epoch, offset, last = hub.place_of(topic, before)
    for index, publication in enumerate(found):
        if publication.epoch == epoch and publication.offset >= offset:
            return index
    # It is of an epoch that was lost, or nothing is held from there on.
    if epoch != last.partition(":")[0]:
        return None
    if offset > int(last.partition(":")[2]):
        raise CursorError(f"the cursor is {before}, the last of the topic is {last}")
    return len(found)


def first_of(hub: HubCore, publications: list[Publication], limit: int, size: int | None) -> list[Publication]:
    """Return the first publications, as many as may be; one is, however large."""
    if size is None:
        return publications[:limit]
    chosen: list[Publication] = []
    for publication in publications[:limit]:
        size -= len(publication.form_of(hub.render).payload)
        if chosen and size < 0:
            break
        chosen.append(publication)
    return chosen


def answer_page(hub: HubCore, page: HistoryPage, answer: dict[str, Any]) -> bytes:
    """Return the answer that a page is, as JSON, with what else it says."""
    octets = [publication.form_of(hub.render).payload for publication in page.publications]
    return answer_of(octets, page.cursor, page.recovered, answer)
