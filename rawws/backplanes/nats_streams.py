"""NATS streams: the three that a backplane needs, made or checked (JetStream of NATS 2.11 or later).

- `PREFIX-topics`: the log of each topic, `PREFIX.topics.NAME`; the server sends what it stores to `PREFIX.live.NAME`.
- `PREFIX-presence`: who is present, `PREFIX.present.NAME.LEASE.ID`.
- `PREFIX-servers`: the leases of servers, `PREFIX.servers.LEASE`, which expire; the server sends that to
  `PREFIX.lease.LEASE`.

Laws:
1. A stream of another version, of another kind or with other promises is refused with a word on what to do.
2. Bounds grow: where hubs want several, the largest count and the largest total of bytes hold.
"""

from __future__ import annotations

import json
import re
import secrets
from typing import TYPE_CHECKING, Any, Final, final

from rawws.topics.backplane import BackplaneAway

from .nats_line import NatsRefusal

if TYPE_CHECKING:
    from rawws.topics.backplane import History

    from .nats_line import NatsLine

__all__ = ["NO_RESPONDERS", "PLACE_AGE", "WRONG_SEQUENCE", "NatsStreams"]

# For how long a topic's place is remembered to which nothing is published, in seconds.
PLACE_AGE: Final = 24 * 3600
# Bytes of all topics together, where no history is wanted: the last message of each says where it is.
LEAST_TOTAL = 1 << 20
# How long it is told that a lease ran out, in seconds: the least that a server allows.
MARKER_AGE = 1
NANOSECONDS: Final = 10**9
# With fewer, a mark that an epoch begins, or the next name of what was never published to, would push out the last.
LEAST_COUNT = 2
# The first version of a server that expires messages one by one and sends several at a time, and that of batches.
NEEDED: Final = (2, 11)
BATCHES: Final = (2, 12)
# The first sequence of a stream is drawn, so that one that was deleted and made again has no sequence twice.
FIRST_SEQUENCES: Final = range(1 << 20, 1 << 50)

# What JetStream says by its `err_code`; and what NATS says of a subject that nobody is subscribed to.
NOT_FOUND: Final = 10059
OTHER_CONFIGURATION: Final = 10058
# What a server of a cluster says of it has another number.
WRONG_SEQUENCE: Final = (10071, 10164)
NO_RESPONDERS: Final = 503
# Not enough memory, disk, or of what the account may have of them.
NO_ROOM: Final = (10002, 10023, 10028, 10047)


@final
class NatsStreams:
    """The streams of a prefix, at the server of a line."""

    def __init__(self, prefix: str, *, keeps: bool, replicas: int) -> None:
        self.prefix = prefix
        self.topics = f"{prefix}-topics"
        self.presence = f"{prefix}-presence"
        self.servers = f"{prefix}-servers"
        self._keeps = keeps
        self._replicas = replicas

    async def prepare(self, line: NatsLine, version: str, history: History) -> dict[str, Any]:
        """Make what is missing at a server of a version, and return what it says of the topics.

        Raises BackplaneAway where it cannot.
        """
        found = re.match(r"(\d+)\.(\d+)", version)
        number = (int(found[1]), int(found[2])) if found else (0, 0)
        if number < NEEDED:
            raise BackplaneAway(f"the NATS server is of version {version[:32]!r}, needed is 2.11 or later")
        wanted = self._wanted(history, batches=number >= BATCHES)
        for name in (self.presence, self.servers):
            await self._ensure(line, name, wanted[name])
        return await self._ensure(line, self.topics, wanted[self.topics])

    async def created(self, line: NatsLine) -> str:
        """Return when the stream of topics was made: another one has other contents."""
        found = await line.ask(f"$JS.API.STREAM.INFO.{self.topics}")
        return str(found["created"])

    def _wanted(self, history: History, *, batches: bool) -> dict[str, dict[str, Any]]:
        prefix = self.prefix
        common = {
            "retention": "limits",
            "discard": "old",
            "storage": "file",
            "num_replicas": self._replicas,
            "allow_direct": True,
            "metadata": {"rawws": "1", "keeps": "yes" if self._keeps else "no"},
        }
        topics = {
            "subjects": [f"{prefix}.topics.*"],
            "republish": {"src": f"{prefix}.topics.>", "dest": f"{prefix}.live.>"},
            "max_msgs_per_subject": max(LEAST_COUNT, history.count),
            "max_bytes": max(LEAST_TOTAL, history.total),
            "max_age": int(max(PLACE_AGE, history.age) * NANOSECONDS),
            "allow_atomic": batches,
        }
        last_only = {"max_msgs_per_subject": 1, "allow_msg_ttl": True}
        presence = {"subjects": [f"{prefix}.present.>"], "max_age": PLACE_AGE * NANOSECONDS}
        servers = {
            "subjects": [f"{prefix}.servers.*"],
            "republish": {"src": f"{prefix}.servers.>", "dest": f"{prefix}.lease.>"},
            "subject_delete_marker_ttl": MARKER_AGE * NANOSECONDS,
        }
        return {
            self.topics: {**common, **topics},
            self.presence: {**common, **last_only, **presence},
            self.servers: {**common, **last_only, **servers},
        }

    async def _ensure(self, line: NatsLine, name: str, wanted: dict[str, Any]) -> dict[str, Any]:
        try:
            return await self._find(line, name, wanted)
        except NatsRefusal as error:
            if error.code != NOT_FOUND:
                raise BackplaneAway(self._meaning(name, error)) from None
        first = secrets.choice(FIRST_SEQUENCES)
        try:
            return await self._call(line, "CREATE", name, {**wanted, "name": name, "first_seq": first})
        except NatsRefusal as error:
            if error.code != OTHER_CONFIGURATION:
                raise BackplaneAway(self._meaning(name, error)) from None
        # Another hub was quicker.
        return await self._find(line, name, wanted)

    async def _find(self, line: NatsLine, name: str, wanted: dict[str, Any]) -> dict[str, Any]:
        """Return what a stream is that is there, with the bounds that are wanted."""
        found = await self._call(line, "INFO", name)
        has: dict[str, Any] = found["config"]
        metadata = has.get("metadata") or {}
        for key, meaning in (("rawws", "made by another version of rawws"), ("keeps", "made with another `keeps`")):
            if metadata.get(key) != wanted["metadata"][key]:
                raise BackplaneAway(
                    f"the stream {name} was {meaning} ({key} is {str(metadata.get(key))[:32]!r} there, "
                    f"{wanted['metadata'][key]!r} here): have all hubs alike, delete it, or take another prefix"
                )
        for key in ("subjects", "republish", "retention", "discard", "allow_direct"):
            if has.get(key) != wanted.get(key):
                raise BackplaneAway(
                    f"the stream {name} was changed: its {key} is {has.get(key)!r}, needed is {wanted.get(key)!r}"
                )
        changed: dict[str, Any] = {
            key: wanted[key]
            for key in ("max_msgs_per_subject", "max_bytes", "max_age")
            if key in wanted and 0 < has.get(key, 0) < wanted[key]
        }
        return await self._call(line, "UPDATE", name, {**has, **changed}) if changed else found

    async def _call(self, line: NatsLine, verb: str, name: str, config: dict[str, Any] | None = None) -> dict[str, Any]:
        data = b"" if config is None else json.dumps(config).encode()
        found: dict[str, Any] = await line.ask(f"$JS.API.STREAM.{verb}.{name}", data)
        return found

    def _meaning(self, name: str, error: NatsRefusal) -> str:
        """Return what to do where a stream cannot be had."""
        if error.code == NO_RESPONDERS:
            return "JetStream is off at this NATS server: write `jetstream {}` into its configuration"
        remedy = ": give it more room, or have less with History(total=...)" if error.code in NO_ROOM else ""
        return f"the stream {name} cannot be made or read: {error}{remedy}"
