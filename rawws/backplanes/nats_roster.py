"""The NATS roster: who is present at which server, by a lease that expires where nobody renews it.

Laws:
1. An entry is of a lease, and gone with it: also where nobody takes it away.
2. A lease that ran out is never taken again: its server takes another one, and enters all again.
3. Whoever hears that somebody joined finds the same when it asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, final
from urllib.parse import unquote

from rawws.topics.backplane import BackplaneAway, PresenceEntry, new_entry

from .nats_line import NatsRefusal
from .nats_records import HEADER, quoted
from .nats_streams import PLACE_AGE, WRONG_SEQUENCE
from .remedies import with_remedy

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from .nats_line import NatsLine
    from .nats_streams import NatsStreams
    from .session import EngineSession

__all__ = ["NatsRoster"]

logger = logging.getLogger("rawws.backplanes")

# Of those who left while the server was away.
MAX_LEFT = 10_000
# What replaces the entry of somebody who left is held for the least time that a server allows.
GONE = {"Nats-TTL": "1s"}
# A server writes this where something expired.
MARKER = "Nats-Marker-Reason"


@final
class NatsRoster:
    """Entries and leases at the server of a line; `line` is None while that is away."""

    def __init__(self, streams: NatsStreams, session: EngineSession, lease: float, timeout: float) -> None:
        self._streams = streams
        self._session = session
        self._timeout = timeout
        # NATS counts whole seconds.
        self._seconds = max(1, int(lease))
        self.line: NatsLine | None = None
        self._leases = 0
        # Where the stream has the own lease, 0 where that was never taken.
        self._sequence = 0
        self._known: set[str] = set()
        # What is heard of leases before it is read which ones run; None behind that.
        self._early: list[tuple[str, bool]] | None = None
        # What is written and not answered.
        self._writes: set[asyncio.Future[object]] = set()
        self._left: list[tuple[str, str]] = []
        # Leases that are given up, and are to be ended.
        self._ended: set[str] = set()
        self._is_refused = False
        self._entered_at = 0.0

    @property
    def lease(self) -> str:
        """The name of the own lease."""
        return f"{self._session.server}-{self._leases}"

    @property
    def interval(self) -> float:
        """After how many seconds the lease is to be renewed."""
        return self._seconds / 4

    async def begin(self, line: NatsLine) -> None:
        """Take a lease, or renew it, and hear of those of others."""
        self.line = line
        self._early = []
        await line.subscribe(f"{self._streams.prefix}.lease.*", self._hear)
        while self._ended:
            await line.ask(next(iter(self._ended)), headers={HEADER: "-", **GONE})
            self._ended.pop()
        await self.renew()
        self._known = await self._living(line)
        # One that was taken, or ended, behind the answer, and was heard before this goes on.
        early, self._early = self._early, None
        for lease, lives in early:
            self._take(lease, lives=lives)
        for topic, ident in self._left:
            self.part(topic, ident)
        self._left.clear()
        self._entered_at = self._session.loop.time()

    def end(self) -> None:
        """Forget the line."""
        self.line = None

    async def close(self) -> None:
        """End the own lease, with all that are present by it."""
        if self.line is not None:
            with contextlib.suppress(BackplaneAway, NatsRefusal, TimeoutError):
                async with asyncio.timeout(self._timeout):
                    await self._put_lease(self.line, gone=True)

    async def renew(self) -> bool:
        """Renew the lease, and tell whether it had run out, and another one was taken."""
        assert self.line is not None  # noqa: S101 - for mypy
        is_new = False
        while True:
            try:
                self._sequence = await self._put_lease(self.line)
            except NatsRefusal as error:
                if error.code not in WRONG_SEQUENCE:
                    # Others take those for gone who are present here, until there is room again.
                    if not self._is_refused:
                        logger.warning("NATS does not renew the lease of this server: %s", error)
                    self._is_refused = True
                    return False
            else:
                self._is_refused = False
                return is_new
            # It ran out, or was renewed by what was not answered.
            found = await self.line.read(self._streams.servers, self._subject_of_lease)
            living = [message for message in found if is_living(message)]
            if living:
                self._sequence = sequence_of(living[0])
            else:
                self._take_another()
                is_new = True

    def again(self) -> None:
        """Enter those again whom the server refused, and all before their entries are too old."""
        self._session.enter_again()
        now = self._session.loop.time()
        if now - self._entered_at > PLACE_AGE / 4:
            self._entered_at = now
            self._session.enter_all()

    def enter(self, topic: str, ident: str, info: str) -> None:
        """Hold that somebody is present, and tell it then."""
        if self.line is not None:
            asked = self.line.ask(self._subject(topic, ident), info.encode())
            self._write(asked, topic, ident, info, "+")

    def part(self, topic: str, ident: str) -> None:
        """Hold that somebody is present no more, and tell it then."""
        if self.line is not None:
            asked = self.line.ask(self._subject(topic, ident), headers={HEADER: "-", **GONE})
            self._write(asked, topic, ident, "", "-")

    def part_later(self, topic: str, ident: str) -> None:
        """Remember who left while the server is away."""
        if len(self._left) < MAX_LEFT:
            self._left.append((topic, ident))
        else:
            # The old lease ends with all that were there.
            self._ended.add(self._subject_of_lease)
            self._take_another()

    async def written(self) -> None:
        """Wait until all is answered that was written so far."""
        if self._writes:
            await asyncio.wait(set(self._writes))

    async def presence(self, topic: str) -> list[PresenceEntry]:
        """Return who is present in a topic."""
        await self.written()
        line = self.line
        if line is None:
            raise BackplaneAway("NATS is away")
        prefix = self._streams.prefix
        entries = await line.read(self._streams.presence, f"{prefix}.present.{quoted(topic)}.>")
        if not entries:
            return []
        # Behind the entries: so those of a lease that was taken meanwhile are not taken for dead.
        living = await self._living(line)
        there: list[PresenceEntry] = []
        dead: set[str] = set()
        for message in entries:
            *_, token, ident = subject_of(message).split(".")
            lease = unquote(token)
            if lease not in living:
                dead.add(token)
            elif is_living(message):
                there.append(new_entry(server_of(lease), unquote(ident), message.data.decode()))
        for token in dead:
            # It ran out, and none is taken twice.
            line.purge(self._streams.presence, f"{prefix}.present.*.{token}.*")
        return there

    # -- inside

    @property
    def _subject_of_lease(self) -> str:
        return f"{self._streams.prefix}.servers.{quoted(self.lease)}"

    def _subject(self, topic: str, ident: str) -> str:
        return f"{self._streams.prefix}.present.{quoted(topic)}.{quoted(self.lease)}.{quoted(ident)}"

    def _take_another(self) -> None:
        """Have another lease than the last one: who left by that one is gone with it."""
        self._leases += 1
        self._sequence = 0
        self._left.clear()

    async def _put_lease(self, line: NatsLine, *, gone: bool = False) -> int:
        """Write that this server lives, or does so no more, behind what it wrote last; return the sequence of that."""
        expected = {"Nats-Expected-Last-Subject-Sequence": str(self._sequence)}
        told = {HEADER: "-", **GONE} if gone else {"Nats-TTL": f"{self._seconds}s"}
        found = await line.ask(self._subject_of_lease, headers={**expected, **told})
        return int(found["seq"])

    async def _living(self, line: NatsLine) -> set[str]:
        """Return the leases that run."""
        found = await line.read(self._streams.servers, f"{self._streams.prefix}.servers.*")
        return {unquote(subject_of(each).rpartition(".")[2]) for each in found if is_living(each)}

    def _hear(self, message: Msg) -> None:
        """Hear that a server has a lease, or that this ended."""
        lease = unquote(message.subject.rpartition(".")[2])
        if self._early is None:
            self._take(lease, lives=is_living(message))
        else:
            self._early.append((lease, is_living(message)))

    def _take(self, lease: str, *, lives: bool) -> None:
        """Know a lease that runs, and tell of a server whose lease ended."""
        if lives:
            self._known.add(lease)
        elif lease in self._known:
            self._known.remove(lease)
            server = server_of(lease)
            if server not in {"", self._session.server}:
                self._session.handler.on_server_gone(server)

    def _write(self, asked: asyncio.Future[object], topic: str, ident: str, info: str, sign: str) -> None:
        self._writes.add(asked)
        told = {HEADER: f"{sign} {quoted(self.lease)} {quoted(ident)}"}

        def done(_: object) -> None:
            self._writes.discard(asked)
            error = asked.exception()
            if sign == "-" and isinstance(error, BackplaneAway):
                # The server may not have it: without this, somebody would be present who left.
                self.part_later(topic, ident)
            if self.line is None or isinstance(error, BackplaneAway):
                return
            if error is not None and sign == "+":
                reason = f"the NATS server does not hold who is present: {error}"
                self._session.not_held(topic, ident, with_remedy(reason))
            if self.line.fits(info.encode(), told):
                self.line.send(f"{self._streams.prefix}.live.{quoted(topic)}", info.encode(), told)

        asked.add_done_callback(done)


def is_living(message: Msg) -> bool:
    """Tell whether an entry or a lease is one, and not what says that it is gone."""
    headers = message.headers or {}
    return HEADER not in headers and MARKER not in headers


def sequence_of(message: Msg) -> int:
    """Return the place of a message in its stream."""
    return int((message.headers or {})["Nats-Sequence"])


def subject_of(message: Msg) -> str:
    """Return the subject of a message that was asked for."""
    return (message.headers or {})["Nats-Subject"]


def server_of(lease: str) -> str:
    """Return whose a lease is, "" for what is none."""
    return lease.rpartition("-")[0]
