"""PostgreSQL lines: a connection on which what waits while a statement is under way is the next statement.

Laws:
1. What is asked is done in its order; what is asked of one function, one behind the other, is done by one statement.
2. What the PostgreSQL refuses is refused alone: all others that were asked with it are asked without it.
3. Whatever is asked is answered, or fails with BackplaneAway when the line is closed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, final

from rawws.topics.backplane import new_answer

from .session import fail_answers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncpg import Connection

__all__ = ["PostgresLine", "Row", "Statement", "is_refusal"]

Row: TypeAlias = "Mapping[str, Any]"

# More at once are not faster; each holds the places of its topics for as long as the whole statement takes.
MAX_BATCH = 500
MAX_BATCH_SIZE = 4 << 20
# A statement that met others in a way that PostgreSQL cannot solve is tried so many times.
MAX_TRIES = 5
# The classes of SQLSTATE (PostgreSQL, appendix A) of a PostgreSQL that serves nobody, or is not the one that it was:
# connection, transaction state (a standby), name or schema that is not there, operator intervention; and our own.
AWAY: Final = ("08", "25", "3D", "3F", "57", "RW")
# What stands in the place of the class of a function or table that is not there any more, too many connections, and a
# prepared statement that is not there, or is there already.
AWAY_STATES: Final = ("42P01", "42883", "53300", "26000", "42P05")
ROLLBACK: Final = "40"


class Statement(NamedTuple):
    """A function of the schema: it takes what is common to all, and arrays, a place in each for who asks."""

    sql: str
    common: tuple[object, ...] = ()


class Request(NamedTuple):
    """What was asked, and who waits for the rows."""

    statement: Statement
    values: tuple[object, ...]
    size: int
    answer: asyncio.Future[list[Row]]


@final
class PostgresLine:
    """One connection, which `connect` of the package `asyncpg` opened. A statement may take `timeout` seconds."""

    def __init__(self, connection: Connection, timeout: float) -> None:
        self.connection = connection
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Request] = deque()
        self._asked: list[Request] = []
        self._is_asked = asyncio.Event()

    def ask(self, statement: Statement, *values: object, size: int = 0) -> asyncio.Future[list[Row]]:
        """Ask for the rows of a statement, of those with an `i` for its own; `size` is that of the values in bytes."""
        answer: asyncio.Future[list[Row]] = new_answer(self._loop)
        self._waiting.append(Request(statement, values, size, answer))
        self._is_asked.set()
        return answer

    async def answer(self) -> None:
        """Do what is asked until the connection is lost."""
        try:
            while True:
                await self._is_asked.wait()
                self._asked = self._next()
                await self._do(self._asked)
                if not self._waiting:
                    self._is_asked.clear()
        except Exception as error:
            self.close(str(error) or "no answer in time")
            raise

    def close(self, reason: str) -> None:
        """Fail all that waits."""
        fail_answers([request.answer for request in (*self._asked, *self._waiting)], reason)
        self._waiting.clear()
        self._asked = []

    # -- inside

    def _next(self) -> list[Request]:
        """Take the requests of the next statement."""
        waiting = self._waiting
        batch = [waiting.popleft()]
        size = batch[0].size
        # A statement of no arrays is asked alone.
        while batch[0].values and waiting and waiting[0].statement is batch[0].statement and len(batch) < MAX_BATCH:
            size += waiting[0].size
            if size > MAX_BATCH_SIZE:
                break
            batch.append(waiting.popleft())
        return batch

    async def _do(self, batch: list[Request]) -> None:
        """Do requests by one statement, by several where one of them is refused."""
        try:
            rows = await self._fetch(batch)
        except Exception as error:
            if not is_refusal(error):
                raise
            if len(batch) > 1:
                half = len(batch) // 2
                await self._do(batch[:half])
                await self._do(batch[half:])
            elif not batch[0].answer.done():
                batch[0].answer.set_exception(error)
            return
        found: list[list[Row]] = [[] for _ in batch]
        for row in rows:
            found[row["i"] - 1 if batch[0].values and "i" in row else 0].append(row)
        for request, mine in zip(batch, found, strict=True):
            if not request.answer.done():
                request.answer.set_result(mine)

    async def _fetch(self, batch: list[Request]) -> list[Row]:
        from asyncpg import PostgresError  # noqa: PLC0415

        statement = batch[0].statement
        columns = [list(column) for column in zip(*[request.values for request in batch], strict=True)]
        tries = 0
        while True:
            tries += 1
            try:
                async with asyncio.timeout(self._timeout):
                    rows: list[Row] = await self.connection.fetch(statement.sql, *statement.common, *columns)
                    return rows
            except PostgresError as error:
                if tries == MAX_TRIES or not sqlstate(error).startswith(ROLLBACK):
                    raise


def sqlstate(error: BaseException) -> str:
    """Return the SQLSTATE of an error, "" for one without."""
    return str(getattr(error, "sqlstate", None) or "")


def is_refusal(error: BaseException) -> bool:
    """Tell whether a PostgreSQL that works refused a statement: for lack of room or a right, or for what is there."""
    from asyncpg import InterfaceError, PostgresError  # noqa: PLC0415

    state = sqlstate(error)
    if isinstance(error, PostgresError):
        return bool(state) and not state.startswith((*AWAY, ROLLBACK)) and state not in AWAY_STATES
    # What cannot be told to a PostgreSQL.
    return isinstance(error, InterfaceError) and isinstance(error, ValueError)
