"""NATS lines: connections to a NATS server, on which all that is said leaves in its order (package `nats-py`).

Laws:
1. The package never connects anew by itself: a connection that ends is the end of its line, and whoever has the line
   knows that something may be missing.
2. Whatever is asked is answered, or fails with BackplaneAway when the line is closed.
3. What the server refuses of one subject fails what was asked of that subject, and nothing else.
4. A message is told as it is read, in the order of the connection: the package would hold those of each subject in a
   queue and a task of its own, drop what is over the bounds of that, and leave the tasks behind where a connection is
   lost while it sends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, final

from rawws.net.cancellation import cancel_all, is_cancelled
from rawws.net.transports import abort_transport
from rawws.topics.backplane import BackplaneAway, new_answer

from .session import fail_answers

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

__all__ = ["Found", "NatsLine", "NatsRefusal"]

# What a server says of a subject that the user has no right to; the package has it in lower case.
FORBIDDEN = re.compile(r"permissions violation for (?:publish|subscription) to \"([^\"]*)\"")
# How long a connection that is ended may take to send what is left, in seconds.
CLOSE_WAIT = 1.0
# So many messages are asked for at a time, and no more bytes than the largest message may have: a server ends a
# connection to which more than its `max_pending` waits, which is never less than that.
PAGE = 1000
# What headers take beside their names and values, at most.
HEADER_COST = 64
# What ends several messages: all are sent, or there is none.
DONE = ("204", "404")
NO_RESPONDERS = "503"
# What JetStream says by its `err_code` of a subject that has none.
NO_MESSAGE = 10037


class NatsRefusal(Exception):
    """A NATS server that works refuses what it was asked; `code` is the `err_code` of JetStream, or 0."""

    def __init__(self, reason: str, code: int = 0) -> None:
        super().__init__(reason)
        self.code = code


class Found(NamedTuple):
    """Messages of a stream, and how many more there are."""

    messages: list[Msg]
    pending: int


# What an answer is: JSON, one message of a stream, or several.
JSON, ONE, MANY = range(3)


class Asked(NamedTuple):
    """What waits for an answer: of which subject, since when, what it has to be, and what came so far of several."""

    subject: str
    since: float
    answer: asyncio.Future[Any]
    kind: int
    messages: list[Msg]


@final
class NatsLine:
    """One connection; `ended` fails when it is lost. An answer may take `timeout` seconds."""

    def __init__(self, timeout: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeout = timeout
        self._client = new_client()
        # What the package makes of a message it holds, and None it does not.
        self._client.msg_class = self._take
        self.ended: asyncio.Future[Any] = new_answer(self._loop)
        # Of the last of them, the package tells no more than that there was one.
        self._errors: list[Exception] = []
        self._number = 0
        self._inbox = ""
        self._asked: dict[str, Asked] = {}
        self._out: deque[Callable[[], Any]] = deque()
        self._has_out = asyncio.Event()
        self._heard: dict[str, Callable[[Msg], None]] = {}
        self._subscriptions: dict[str, Subscription] = {}
        # Who waits until the server knows of which subscription, and which of them are sent.
        self._subscribing: dict[asyncio.Future[None], str] = {}
        self._sent: list[asyncio.Future[None]] = []
        self._has_sent = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def max_payload(self) -> int:
        """How many bytes a message may have, with its headers."""
        return int(self._client.max_payload)

    async def connect(self, urls: list[str], **options: Any) -> None:
        """Connect to one of these servers. Raises BackplaneAway with what was wrong."""
        from nats.errors import Error  # noqa: PLC0415

        try:
            await self._client.connect(
                urls,
                error_cb=self._fail,
                disconnected_cb=self._disconnected,
                closed_cb=self._disconnected,
                allow_reconnect=False,
                # Each server is tried twice: the package knows no other way to end.
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=self._timeout,
                **options,
            )
        except (Error, OSError, ValueError) as error:
            reason = self._reason_of(error)
            if "authorization" in reason.lower():
                reason = f"the NATS server refuses the credentials, check those in the URL or the file: {reason}"
            elif self._client.wants_certificate and "SSL" not in reason:
                # It ends the connection, and what it says of that may be lost.
                needed = "ssl_certfile=FILE and ssl_keyfile=FILE in the URL"
                reason = f"{reason}: the NATS server wants a certificate of its clients, {needed}"
            raise BackplaneAway(reason) from None
        # Where it may not connect anew, it closes in tasks of its own, whose errors nobody takes.
        self._client.options["allow_reconnect"] = True
        self._inbox = self._client.new_inbox()
        self._heard[f"{self._inbox}.*"] = self._answer
        await self._client.subscribe(f"{self._inbox}.*")
        self._tasks = [self._loop.create_task(work) for work in (self._write(), self._flush())]

    def fits(self, data: bytes, headers: dict[str, str]) -> bool:
        """Tell whether a message is none that the server would end the connection for."""
        return size_of(data, headers) <= self.max_payload

    def send(self, subject: str, data: bytes = b"", headers: dict[str, str] | None = None, reply: str = "") -> None:
        """Send a message."""
        self._out.append(lambda: self._client.publish(subject, data, reply, headers))
        self._has_out.set()

    def ask(self, subject: str, data: bytes = b"", headers: dict[str, str] | None = None) -> asyncio.Future[Any]:
        """Send a message, and return the JSON that answers it. Raises NatsRefusal where that says so."""
        return self._ask(subject, data, headers, JSON)

    def collect(self, subject: str, **request: str | int) -> asyncio.Future[Found]:
        """Ask a stream for messages."""
        return self._ask(subject, json.dumps(request).encode(), None, MANY)

    def last(self, stream: str, subject: str) -> asyncio.Future[Msg | None]:
        """Ask a stream for the last message of a subject, None where it has none."""
        return self._ask(f"$JS.API.DIRECT.GET.{stream}.{subject}", b"", None, ONE)

    async def last_sequence(self, stream: str, subject: str) -> int:
        """Return the sequence of the last message of a subject as the leader of a stream has it, 0 for none."""
        request = json.dumps({"last_by_subj": subject}).encode()
        try:
            found = await self.ask(f"$JS.API.STREAM.MSG.GET.{stream}", request)
        except NatsRefusal as error:
            if error.code != NO_MESSAGE:
                raise
            return 0
        return int(found["message"]["seq"])

    async def read(self, stream: str, subject: str, since: int = 1) -> list[Msg]:
        """Return the messages of a subject in a stream, from a sequence on. Raises NatsRefusal where it cannot."""
        found: list[Msg] = []
        while True:
            page = await self.collect(
                f"$JS.API.DIRECT.GET.{stream}", batch=PAGE, max_bytes=self.max_payload, seq=since, next_by_subj=subject
            )
            found += page.messages
            if not page.pending or not page.messages:
                return found
            since = int((found[-1].headers or {})["Nats-Sequence"]) + 1

    def purge(self, stream: str, subject: str, keep: int = 0) -> None:
        """Have a stream drop the messages of a subject but for the last ones."""
        request = {"filter": subject, "keep": keep} if keep else {"filter": subject}
        self.ask(f"$JS.API.STREAM.PURGE.{stream}", json.dumps(request).encode())

    def fail(self, reason: str) -> None:
        """End the line: `close` follows."""
        fail_answers([self.ended], reason)

    def subscribe(self, subject: str, heard: Callable[[Msg], None], queue: str = "") -> asyncio.Future[None]:
        """Have messages be told, from when the future is done; of those with one `queue`, each to one alone."""
        answer: asyncio.Future[None] = new_answer(self._loop)
        self._heard[subject] = heard
        self._subscribing[answer] = subject
        self._out.append(lambda: self._subscribe(subject, queue, answer))
        self._has_out.set()
        return answer

    def unsubscribe(self, subject: str) -> None:
        """Have messages be told no more."""
        self._heard.pop(subject, None)
        self._out.append(lambda: self._unsubscribe(subject))
        self._has_out.set()

    def is_late(self) -> bool:
        """Tell whether something is not answered in time."""
        first = next(iter(self._asked.values()), None)
        return first is not None and self._loop.time() - first.since > self._timeout

    async def close(self, reason: str) -> None:
        """End the connection, and fail all that waits."""
        try:
            # What comes for somebody who waits no more, the package takes for a mistake.
            await cancel_all(*self._client.reading(), *self._tasks)
        finally:
            waiting = [asked.answer for asked in self._asked.values()]
            fail_answers([*waiting, *self._subscribing, self.ended], reason)
            self._asked.clear()
            self._subscribing.clear()
            self._heard.clear()
            try:
                with contextlib.suppress(Exception):
                    async with asyncio.timeout(CLOSE_WAIT):
                        await self._client.close()
            finally:
                # Where that was cut off, by its time too, the package would never come back to it.
                self._client.abort()

    # -- inside

    def _ask(self, subject: str, data: bytes, headers: dict[str, str] | None, kind: int) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = new_answer(self._loop)
        if self.ended.done():
            fail_answers([answer], "the connection was lost")
            return answer
        size = size_of(data, headers)
        if size > self.max_payload:
            answer.set_exception(
                NatsRefusal(f"it takes {size} bytes with its headers, the NATS server allows {self.max_payload}")
            )
            return answer
        self._number += 1
        token = str(self._number)
        self._asked[token] = Asked(subject, self._loop.time(), answer, kind, [])
        self.send(subject, data, headers, f"{self._inbox}.{token}")
        return answer

    def _take(self, *, subject: str, reply: str, data: bytes, headers: dict[str, str] | None, **_: object) -> None:
        """Tell a message to whom it is for."""
        from nats.aio.msg import Msg  # noqa: PLC0415

        heard = self._heard.get(subject) or self._heard.get(f"{subject.rpartition('.')[0]}.*")
        if heard is None:
            return
        try:
            heard(Msg(_client=self._client, subject=subject, reply=reply, data=data, headers=headers))
        except Exception as error:  # noqa: BLE001 - whatever it is, the line ends by it, and not the reader of the package
            if not self.ended.done():
                self.ended.set_exception(error)

    def _answer(self, message: Msg) -> None:
        """Give an answer to whoever asked."""
        token = message.subject.rpartition(".")[2]
        asked = self._asked.get(token)
        if asked is None:
            return
        headers = message.headers or {}
        status = headers.get("Status")
        if asked.kind == MANY and status is None:
            asked.messages.append(message)
            return
        del self._asked[token]
        if asked.answer.done():
            return
        if status == NO_RESPONDERS:
            asked.answer.set_exception(NatsRefusal("nobody answers for it", int(NO_RESPONDERS)))
        elif asked.kind == JSON:
            self._settle(asked.answer, message.data)
        elif asked.kind == ONE and status in {None, "404"}:
            asked.answer.set_result(None if status else message)
        elif status in DONE:
            asked.answer.set_result(Found(asked.messages, int(headers.get("Nats-Num-Pending", 0))))
        else:
            asked.answer.set_exception(NatsRefusal(f"{status} {headers.get('Description', '')}"))

    def _settle(self, answer: asyncio.Future[Any], data: bytes) -> None:
        found = json.loads(data)
        error = found.get("error")
        if error is None:
            answer.set_result(found)
        else:
            answer.set_exception(NatsRefusal(str(error.get("description")), int(error.get("err_code", 0))))

    async def _write(self) -> None:
        """Send what waits, in its order."""
        from nats.errors import Error  # noqa: PLC0415

        try:
            while True:
                await self._has_out.wait()
                self._has_out.clear()
                while self._out:
                    await self._out.popleft()()
                    if is_cancelled():
                        # The package swallows it where it waits for the server to read.
                        raise asyncio.CancelledError
        except (Error, OSError) as error:
            self._end(self._reason_of(error))

    async def _subscribe(self, subject: str, queue: str, answer: asyncio.Future[None]) -> None:
        # Somebody may have unsubscribed meanwhile, or subscribed before.
        if subject in self._heard and subject not in self._subscriptions:
            self._subscriptions[subject] = await self._client.subscribe(subject, queue)
        self._sent.append(answer)
        self._has_sent.set()

    async def _unsubscribe(self, subject: str) -> None:
        # Somebody may have subscribed again meanwhile.
        if subject not in self._heard and subject in self._subscriptions:
            await self._subscriptions.pop(subject).unsubscribe()

    async def _flush(self) -> None:
        """Tell who subscribed when the server knows: it answers a ping behind what came before that."""
        from nats.errors import Error  # noqa: PLC0415

        while True:
            await self._has_sent.wait()
            self._has_sent.clear()
            sent, self._sent = self._sent, []
            try:
                await self._client.flush()
            except (Error, OSError) as error:
                self._end(self._reason_of(error))
                return
            for answer in sent:
                self._subscribing.pop(answer, None)
                if not answer.done():
                    answer.set_result(None)

    async def _fail(self, error: Exception) -> None:
        """Take an error that the package tells: it is of one subject, or the connection ends by it."""
        self._errors = [*self._errors[-3:], error]
        found = FORBIDDEN.search(str(error))
        if found is not None:
            self._refuse(found[1], str(error).removeprefix("nats: "))

    def _refuse(self, subject: str, reason: str) -> None:
        """Fail what was asked of a subject, of which the package says only the small letters."""
        for token, asked in list(self._asked.items()):
            if asked.subject.lower() == subject:
                del self._asked[token]
                if not asked.answer.done():
                    asked.answer.set_exception(NatsRefusal(reason))
        for answer, name in list(self._subscribing.items()):
            if name.lower() == subject:
                del self._subscribing[answer]
                self._heard.pop(name, None)
                self._subscriptions.pop(name, None)
                if not answer.done():
                    answer.set_exception(NatsRefusal(reason))

    async def _disconnected(self) -> None:
        """Have the line end, and the package wait until it is closed: else it would connect anew."""
        self._end("the connection was lost")
        if not self._client.is_closed:
            await self._loop.create_future()

    def _end(self, reason: str) -> None:
        last = f": {self._reason_of(self._errors[-1])}" if self._errors else ""
        fail_answers([self.ended], f"{reason}{last}")

    def _reason_of(self, error: BaseException) -> str:
        """Return what was wrong: of servers that cannot be reached, the package tells it before."""
        told = [each for each in self._errors if each is not error] if "no servers" in str(error) else [error]
        return str([error, *told][-1]).removeprefix("nats: ") or type(error).__name__


def new_client() -> Any:
    """Return a client of the package that speaks TLS where the URL asks for it, or not at all."""
    from nats.aio.client import Client  # noqa: PLC0415
    from nats.aio.transport import TcpTransport  # noqa: PLC0415
    from nats.errors import Error  # noqa: PLC0415

    class LastingTransport(TcpTransport):
        # `wait_for` of Python 3.11, which the package uses, loses a connection that is there in the turn in which it is
        # cancelled: it stays open for ever, and uvloop waits for it when it closes.
        is_new = True

        def __bool__(self) -> bool:
            return self.is_new or self._io_writer is not None

        async def connect(self, uri: Any, buffer_size: int, connect_timeout: float) -> None:
            try:
                async with asyncio.timeout(connect_timeout):
                    reader, writer = await asyncio.open_connection(uri.hostname, uri.port, limit=buffer_size)
            finally:
                self.is_new = False
            self._bare_io_reader = self._io_reader = reader
            self._bare_io_writer = self._io_writer = writer

        def abort(self) -> None:
            for writer in (self._io_writer, self._bare_io_writer):
                if writer is not None:
                    abort_transport(writer.transport)

    class TlsClient(Client):
        async def _connect_to_server(self, server: Any) -> None:
            if server.uri.scheme in ("nats", "tls"):
                # The package makes one of its own where there is none.
                self._transport = LastingTransport()  # type: ignore[no-untyped-call]
            await super()._connect_to_server(server)

        def _connect_command(self) -> bytes:
            # Whether TLS is spoken is what the server says before that, without any: whoever is in between can say no,
            # and would read the password that is sent next.
            server = self._current_server
            if server is not None and server.uri.scheme == "tls" and not self._server_info.get("tls_required"):
                raise Error("the NATS server speaks no TLS, and the URL is tls://: have it do so, or use nats://")
            return super()._connect_command()

        def reading(self) -> list[asyncio.Task[None]]:
            """Return the task that reads, if there is one."""
            return [] if self._reading_task is None else [self._reading_task]

        def abort(self) -> None:
            """End a connection that is open still."""
            if isinstance(self._transport, LastingTransport):
                self._transport.abort()

        @property
        def wants_certificate(self) -> bool:
            """Whether the server said that its clients must have one."""
            return bool(self._server_info.get("tls_verify"))

    return TlsClient()


def size_of(data: bytes, headers: dict[str, str] | None) -> int:
    """Return how many bytes a message has, with its headers."""
    return len(data) + sum(len(name) + len(value) for name, value in (headers or {}).items()) + HEADER_COST
