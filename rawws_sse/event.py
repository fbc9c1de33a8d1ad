"""Event: what stands between two blank lines of an event stream (WHATWG HTML section 9.2.6)."""

from __future__ import annotations

__all__ = ["Event", "EventTooLarge"]


class Event:
    """An event, to be sent or as it was received. It cannot be changed.

    Without data it is no event to a client, which still uses its `id` and `retry`.
    """

    __slots__ = ("_comment", "_data", "_event", "_id", "_retry")
    __match_args__ = ("data", "event", "id", "retry", "comment")

    def __init__(
        self,
        data: str | None = None,
        event: str | None = None,
        id: str | None = None,  # noqa: A002 - the field's own name
        retry: int | None = None,
        comment: str | None = None,
    ) -> None:
        self._data = data
        self._event = event
        self._id = id
        self._retry = retry
        self._comment = comment

    @property
    def data(self) -> str | None:
        """What it says; a line feed between its lines."""
        return self._data

    @property
    def event(self) -> str | None:
        """Its type; None, as the empty string, stands for "message"."""
        return self._event

    @property
    def id(self) -> str | None:
        """From where a client that reconnects goes on; the empty string: from nowhere, None: as before.

        In a received event it is the last one that came, in this event or before it, and empty where none did.
        """
        return self._id

    @property
    def retry(self) -> int | None:
        """How long a client waits before it reconnects, in milliseconds. A received event has none: see Decoder."""
        return self._retry

    @property
    def comment(self) -> str | None:
        """What clients ignore. A received event has none."""
        return self._comment

    def fields(self) -> tuple[str | None, str | None, str | None, int | None, str | None]:
        """Return the five fields in the order of the constructor."""
        return self._data, self._event, self._id, self._retry, self._comment

    def __eq__(self, other: object) -> bool:
        return self.fields() == other.fields() if isinstance(other, Event) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.fields())

    def __repr__(self) -> str:
        named = zip(self.__match_args__, self.fields(), strict=True)
        return f"Event({', '.join(f'{name}={value!r}' for name, value in named if value is not None)})"

    def __reduce__(self) -> tuple[type[Event], tuple[object, ...]]:
        return Event, self.fields()


class EventTooLarge(ValueError):
    """What a server sent as one event is larger than a Decoder may hold."""
