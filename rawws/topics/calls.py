"""Calls: a name and data to a function of the server or of a client, and its answer back, over one connection.

Laws:
1. Each call ends: by an answer, by an error with a code, after its time, or with its connection.
2. Of one connection, a bounded number is in flight in each direction.
3. What goes wrong within a function is for the log of its own side: the other side learns a code.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from rawws.errors import ConnectionClosed, ConnectionClosedError, LocalProtocolError, RawwsError
from rawws.net.cancellation import called
from rawws.net.turns import spend
from rawws.net.websocket import WebSocket
from rawws.protocol.extensions import excerpt

from .asgi_socket import AsgiSocket
from .envelope import SUBPROTOCOL
from .names import check_name
from .payloads import serialize

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from .envelope import Command

__all__ = ["CALL_TIMEOUT", "CallError", "Calls", "numbered"]

logger = logging.getLogger("rawws.topics")

ClientSocket: TypeAlias = "WebSocket | AsgiSocket"

# Seconds until a function is given up: as long as a person waits for a page.
CALL_TIMEOUT: Final = 30.0
# Calls of one connection in each direction, as HTTP/2 has streams by default.
MAX_CALLS: Final = 100
# What the calls of a client that run here may take together, in bytes; one alone is never too large.
MAX_CALLS_SIZE: Final = 1 << 20
# An answer in bytes: clients take 1 MiB, of which the rest of the envelope has some.
MAX_ANSWER_SIZE: Final = (1 << 20) - 8192
# Characters of a code and of a reason that a client sends.
CODE_SIZE, REASON_SIZE = 64, 256


class CallError(RawwsError):
    """A call failed. `code` says what the other side is told, or told, `reason` is for people.

    A function raises it to have its client told: the codes are its own. Those of the server are "call" (there is no
    function of this name), "timeout", "failed" (it raised something else, which is in the log), "size" and "limit".
    """

    def __init__(self, code: str, reason: str = "") -> None:
        super().__init__(f"{code}: {reason}" if reason else code)
        self.code = code
        self.reason = reason


class Function(NamedTuple):
    """What answers calls of one name, and in how many seconds it must."""

    answer: Callable[[Any, Any], Any]
    timeout: float


@final
class ClientCalls:
    """The calls of one connection: what runs here for it, and what it was asked and did not answer."""

    __slots__ = ("asked", "forget", "number", "size", "tasks")

    def __init__(self, forget: Callable[[], object]) -> None:
        self.forget = forget
        self.tasks: set[asyncio.Task[None]] = set()
        # Bytes of what those tasks were asked.
        self.size = 0
        self.asked: dict[int, asyncio.Future[Any]] = {}
        self.number = 0

    def end(self, task: asyncio.Task[None], size: int) -> None:
        """Count a call that is answered no more."""
        self.tasks.discard(task)
        self.size -= size

    def drained(self) -> None:
        """Do nothing: the hard limit of the connection bounds what waits to be sent."""

    def lost(self) -> None:
        """End all: nobody would get the answers."""
        self.forget()
        for task in self.tasks:
            task.cancel()
        for future in self.asked.values():
            if not future.done():
                future.set_exception(ConnectionClosedError(None, None))


@final
class Calls:
    """The functions of a hub that clients call, and the calls that are in flight."""

    __slots__ = ("clients", "functions")

    def __init__(self) -> None:
        self.functions: dict[str, Function] = {}
        # From their first call on.
        self.clients: dict[ClientSocket, ClientCalls] = {}

    def add(self, name: str, answer: Callable[[Any, Any], Any], timeout: float) -> None:
        """Have a function answer calls of a name. Raises TopicError for what is none, ValueError for a second one."""
        check_name(name)
        if name in self.functions:
            raise ValueError(f"the call {name!r} has a function already, allowed is one")
        if not timeout > 0:
            raise ValueError(f"timeout is {timeout}, allowed are numbers above 0")
        self.functions[name] = Function(answer, timeout)

    def close(self) -> None:
        """End all calls."""
        for client in list(self.clients.values()):
            client.lost()

    # -- a client calls

    def begin(self, ws: ClientSocket, command: Command) -> None:
        """Call a function for a client, and answer when it is done: later calls may be answered before."""
        client = self._client_of(ws)
        size = client.size + command.size
        if len(client.tasks) >= MAX_CALLS:
            reason = f"{MAX_CALLS} calls are in flight already"
        elif client.tasks and size > MAX_CALLS_SIZE:
            reason = f"the calls in flight have {size} bytes, limit {MAX_CALLS_SIZE}"
        else:
            client.size = size
            task = asyncio.get_running_loop().create_task(self._reply(ws, command))
            client.tasks.add(task)
            task.add_done_callback(lambda task: client.end(task, command.size))
            return
        ws.send(serialize({**numbered(command.id), "error": "limit", "reason": reason}))

    async def _reply(self, ws: ClientSocket, command: Command) -> None:
        text, code = await self.answer(ws, command)
        if command.id is not None or code:
            spend(len(text))
            with contextlib.suppress(ConnectionClosed):
                ws.send(text)

    async def answer(self, client: object, command: Command) -> tuple[str, str]:
        """Call a function for a client; return its answer as JSON, and the code of the error that it is, or ""."""
        try:
            result = await self._result(client, command.topic, command.data)
            text = serialize({**numbered(command.id), "result": result})
            if len(text.encode()) > MAX_ANSWER_SIZE:
                raise CallError("size", f"the answer has over {MAX_ANSWER_SIZE} bytes")
        except CallError as error:
            return serialize({**numbered(command.id), "error": error.code, "reason": error.reason}), error.code
        except Exception as error:
            logger.error("the call %s failed", excerpt(command.topic), exc_info=error)  # noqa: TRY400 - as elsewhere
            return serialize({**numbered(command.id), "error": "failed", "reason": "the call failed"}), "failed"
        return text, ""

    async def _result(self, client: object, name: str, data: Any) -> Any:
        function = self.functions.get(name)
        if function is None:
            raise CallError("call", f"there is no call {excerpt(name)}")
        try:
            async with asyncio.timeout(function.timeout) as limit:
                result = called(name, function.answer, client, data)
                return await result if inspect.isawaitable(result) else result
        except TimeoutError:
            if not limit.expired():
                raise
            raise CallError("timeout", f"the call took over {function.timeout:g} s") from None

    # -- the server calls

    async def ask(self, ws: object, name: str, data: Any, timeout: float) -> Any:  # noqa: ASYNC109 - as users call it
        """Call a function of a client, and return its answer. Raises as `Hub.call` does."""
        if not isinstance(ws, (WebSocket, AsgiSocket)):
            raise TypeError(f"the client is {type(ws).__name__}, allowed is a WebSocket: nothing else can be called")
        if ws.subprotocol != SUBPROTOCOL:
            raise LocalProtocolError(f"the subprotocol is {ws.subprotocol}, needed for a call is {SUBPROTOCOL}")
        check_name(name)
        client = self._client_of(ws)
        if len(client.asked) >= MAX_CALLS:
            raise CallError("limit", f"{MAX_CALLS} calls are in flight already")
        client.number += 1
        number = client.number
        text = serialize({"call": name, "number": number, "data": data})
        future = client.asked[number] = asyncio.get_running_loop().create_future()
        try:
            ws.send(text)
            async with asyncio.timeout(timeout) as limit:
                return await future
        except TimeoutError:
            if not limit.expired():
                raise
            raise TimeoutError(f"the client did not answer {name!r} within {timeout:g} s") from None
        finally:
            del client.asked[number]

    def take(self, ws: ClientSocket, command: Command) -> None:
        """Take the answer of a client. One that comes too late is dropped."""
        client = self.clients.get(ws)
        future = None if client is None else client.asked.get(command.number)
        if future is None or future.done():
            return
        if command.error:
            future.set_exception(CallError(command.error[:CODE_SIZE], command.reason[:REASON_SIZE]))
        else:
            future.set_result(command.data)

    def _client_of(self, ws: ClientSocket) -> ClientCalls:
        """Return the calls of a connection. Raises ConnectionClosed where it is over."""
        known = self.clients.get(ws)
        if known is None:
            known = ClientCalls(lambda: self.clients.pop(ws, None))
            ws.follow(known)
            self.clients[ws] = known
        return known


def numbered(number: int | None) -> dict[str, Any]:
    """Return the id of a request, where it has one."""
    return {} if number is None else {"id": number}
