"""Awaited: which of the bytes that wait for a peer somebody waits for: they do not count against `hard_limit`.

A send counts as awaited while the awaitable that it returned is awaited, or still can be. One that nobody keeps is gone
at once; one that was made a task, or is about to be gathered, is not.
"""

from __future__ import annotations

from collections import deque
from typing import final

__all__ = ["AwaitedBytes", "Claim"]


@final
class Claim:
    """The bytes of one send, while somebody waits for them: it ends with the last reference to it."""

    __slots__ = ("_entry", "_owner")

    def __init__(self, owner: AwaitedBytes, entry: list[int]) -> None:
        self._owner = owner
        self._entry = entry

    def release(self) -> None:
        """Count these bytes no more."""
        self._owner.forget(self._entry)

    def __del__(self) -> None:
        self._owner.forget(self._entry)


@final
class AwaitedBytes:
    """The claims of one connection: where each begins and ends among all bytes that it writes, in their order."""

    __slots__ = ("_entries", "_size")

    def __init__(self) -> None:
        # None of them refers to its claim, which only those who wait may keep.
        self._entries: deque[list[int]] = deque()
        self._size = 0

    def claim(self, start: int, end: int) -> Claim:
        """Count the bytes from `start` to `end` as awaited, less those that are already."""
        entries = self._entries
        if entries:
            start = max(start, entries[-1][1])
        entry = [min(start, end), end]
        entries.append(entry)
        self._size += end - entry[0]
        return Claim(self, entry)

    def forget(self, entry: list[int]) -> None:
        """Count the bytes of an entry no more."""
        self._size -= entry[1] - entry[0]
        entry[0] = entry[1]
        entries = self._entries
        while entries and entries[-1][0] == entries[-1][1]:
            entries.pop()

    def waiting(self, taken: int) -> int:
        """Return how many awaited bytes are behind the first `taken` ones, which wait no more."""
        entries = self._entries
        while entries and entries[0][1] <= taken:
            entry = entries.popleft()
            self._size -= entry[1] - entry[0]
            entry[0] = entry[1]
        return self._size - (max(0, taken - entries[0][0]) if entries else 0)
