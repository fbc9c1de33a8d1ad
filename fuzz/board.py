"""Board: what a process that may die at any input leaves behind, in a file that both processes map."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Board"]

SIZE = 1 << 16
HEADER = 24


@final
class Board:
    """The input that is being run, how many were run, and how many behaviours they had."""

    __slots__ = ("_map", "_numbers")

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(SIZE))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), SIZE)
        self._numbers = memoryview(self._map)[:HEADER].cast("Q")

    @property
    def data(self) -> bytes:
        """The input."""
        return self._map[HEADER : HEADER + self._numbers[0]]

    @data.setter
    def data(self, data: bytes) -> None:
        length = len(data)
        self._map[HEADER : HEADER + length] = data
        self._numbers[0] = length

    @property
    def executions(self) -> int:
        """How many inputs were run."""
        return self._numbers[1]

    @executions.setter
    def executions(self, count: int) -> None:
        self._numbers[1] = count

    @property
    def behaviours(self) -> int:
        """How many behaviours were seen."""
        return self._numbers[2]

    @behaviours.setter
    def behaviours(self, count: int) -> None:
        self._numbers[2] = count
