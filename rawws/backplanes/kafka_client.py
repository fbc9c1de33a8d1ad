"""Kafka client: the few requests that a backplane makes, each answered or failed at once.

The producer and the consumer of aiokafka try again by themselves, and tell nobody that a broker is away, or that what
they read was cut off meanwhile. So only its connections, requests and record batches are used: what goes wrong is
raised, and whoever asked decides.
"""

from __future__ import annotations

import asyncio
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final
from urllib.parse import parse_qsl, unquote, urlsplit

from rawws.net.cancellation import cancel_all
from rawws.net.logs import without_userinfo
from rawws.net.transports import abort_transport

from .tls import FILE_OPTIONS, TlsFiles

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["Batch", "KafkaClient", "KafkaError", "RefusedError", "Servers", "kafka_servers", "security_of"]

# An answer has at most so many octets, and the first batch of it, whatever its size.
FETCHED: Final = 4 << 20
# Where nothing is new, Kafka answers after so many milliseconds.
FETCH_WAIT: Final = 500
EARLIEST: Final = -2
LATEST: Final = -1
MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")

# Codes of errors (Kafka's protocol guide, "Error codes").
OUT_OF_RANGE: Final = 1
UNKNOWN_TOPIC: Final = 3
TOO_LARGE: Final = (10, 18)
EXISTS: Final = 36
FORBIDDEN: Final = {29: "topic", 30: "group", 31: "cluster"}


class KafkaError(Exception):
    """What Kafka answered that is no answer, with what to do about it where that is known."""

    def __init__(self, code: int, what: str) -> None:
        self.code = code
        super().__init__(f"{what}: {reason_of(code)}")


class EndedError(ConnectionError):
    """A connection that Kafka, or what stands there, ended."""


class RefusedError(Exception):
    """A batch that is larger than Kafka takes."""


class Batch(NamedTuple):
    """What was read of a partition: records as (offset, timestamp, key, value), where it begins and where it ends."""

    records: list[tuple[int, int, bytes | None, bytes | None]]
    start: int
    end: int


class Servers(NamedTuple):
    """Where Kafka is, and who asks."""

    hosts: list[tuple[str, int]]
    tls: bool
    user: str
    password: str
    mechanism: str
    prefix: str
    files: TlsFiles

    def __repr__(self) -> str:
        return f"<Servers {','.join(f'{host}:{port}' for host, port in self.hosts)}>"


def reason_of(code: int) -> str:
    """Return what a code of Kafka's means."""
    from aiokafka.errors import for_code  # noqa: PLC0415

    error = for_code(code)
    return f"{error.__name__.removesuffix('Error')} ({code})"


def kafka_servers(url: str, context: ssl.SSLContext | None = None) -> Servers:
    """Return what `kafka://user:password@host:port,host:port/prefix` names; `kafkas` is Kafka over TLS.

    TLS is by a `context`, or by the files that the URL names. Raises ValueError for a URL that is none; what it
    says has no password.
    """
    shown = without_userinfo(url)
    scheme, _, rest = url.partition("://")
    userinfo, _, hosts = rest.rpartition("@")
    hosts, _, query = hosts.partition("?")
    hosts, _, prefix = hosts.partition("/")
    found = []
    for each in hosts.split(","):
        try:
            parts = urlsplit(f"//{each}")
            found.append((parts.hostname or "", parts.port or 9092))
        except ValueError:
            found.append(("", 0))
    options = dict(parse_qsl(query, keep_blank_values=True))
    mechanism = options.pop("mechanism", "PLAIN").upper()
    if scheme.lower() not in {"kafka", "kafkas"} or not all(host and port for host, port in found):
        raise ValueError(f"url is {shown!r}, allowed is kafka:// or kafkas://, and host:port of some brokers")
    if options.keys() - set(FILE_OPTIONS) or mechanism not in MECHANISMS:
        allowed = f"mechanism={' or '.join(MECHANISMS)}, {', '.join(FILE_OPTIONS)}"
        raise ValueError(f"url is {shown!r}, behind ? is allowed {allowed}")
    if options and scheme.lower() != "kafkas":
        raise ValueError(f"url is {shown!r}: {min(options)} is for kafkas://")
    files = TlsFiles.of(options)
    files.check()
    if context is not None and any(files):
        raise ValueError("tls is given, and the URL names files, allowed is one of both")
    user, _, password = userinfo.partition(":")
    return Servers(found, scheme.lower() == "kafkas", unquote(user), unquote(password), mechanism, prefix, files)


def security_of(servers: Servers, context: ssl.SSLContext | None) -> dict[str, Any]:
    """Return how aiokafka is to connect: by TLS, and as whom."""
    protocol = ("SASL_" if servers.user else "") + ("SSL" if servers.tls else "PLAINTEXT")
    found: dict[str, Any] = {"security_protocol": protocol}
    if servers.tls:
        found["ssl_context"] = context or servers.files.context()
    if servers.user:
        found["sasl_mechanism"] = servers.mechanism
        found["sasl_plain_username"], found["sasl_plain_password"] = servers.user, servers.password
    return found


@final
class KafkaClient:
    """Connections to the brokers of a Kafka that have the partitions of some topics.

    Each thing that may wait in Kafka has a connection of its own, for Kafka answers those of one in their order.
    """

    def __init__(self, servers: Servers, timeout: float, context: ssl.SSLContext | None) -> None:
        self._servers = servers
        self._timeout = timeout
        self._context = context
        self._connections: dict[tuple[int, str], Any] = {}
        # Whoever asks first opens a connection, and the others wait for it.
        self._opening = asyncio.Lock()
        self._brokers: dict[int, tuple[str, int]] = {}
        # By topic, the broker of each partition, -1 for none.
        self.leaders: dict[str, list[int]] = {}

    async def connect(self, topics: Sequence[str]) -> None:
        """Reach one of the brokers that are named, and learn who has which partition."""
        from aiokafka.protocol.metadata import MetadataRequest  # noqa: PLC0415

        answer, first = None, OSError("no broker is named")
        for host, port in self._servers.hosts:
            try:
                connection = await self._open(host, port)
                try:
                    answer = await self._ask(connection, MetadataRequest(list(topics), allow_auto_topic_creation=False))
                finally:
                    await self._end([connection])
                break
            except (OSError, TimeoutError) as error:
                why = str(error) or (
                    "no answer in time" if isinstance(error, TimeoutError) else "it ended the connection"
                )
                first = OSError(f"cannot use Kafka at {host}:{port}: {why}{self._hint(error)}")
        if answer is None:
            raise first
        self._brokers = {node: (host, port) for node, host, port, _ in answer.brokers}
        if not self._brokers:
            raise OSError("no broker of Kafka is up yet")
        self.leaders = {}
        for code, topic, _, partitions in answer.topics:
            if code in FORBIDDEN:
                raise KafkaError(code, f"the user {self._user!r} needs the right to Describe, Read and Write {topic!r}")
            if code == UNKNOWN_TOPIC:
                continue
            by_number = {number: leader for _, number, leader, *_ in partitions}
            # One that is not among the brokers is not up yet.
            leaders = [by_number.get(number, -1) for number in range(len(by_number))]
            self.leaders[topic] = [leader if leader in self._brokers else -1 for leader in leaders]

    @property
    def brokers(self) -> int:
        """How many brokers Kafka has."""
        return len(self._brokers)

    async def create(self, topic: str, partitions: int, config: Mapping[str, str]) -> None:
        """Create a topic, if there is none of this name."""
        from aiokafka.protocol.admin import CreateTopicsRequest  # noqa: PLC0415

        copies = min(3, self.brokers)
        named: Any = (topic, partitions, copies, [], list(config.items()))
        asked: Any = CreateTopicsRequest([named], int(self._timeout * 1000), validate_only=False)
        answer = await self._send(next(iter(self._brokers)), "", asked)
        for _, code, *_ in answer.topic_errors:
            if code in FORBIDDEN:
                raise KafkaError(
                    code, f"there is no topic {topic!r} and the user may not Create it: create it, or grant that"
                )
            if code not in {0, EXISTS}:
                raise KafkaError(code, f"the topic {topic!r} cannot be created")

    async def settings(self, topic: str) -> dict[str, str]:
        """Return how a topic is configured; nothing, where that may not be asked."""
        from aiokafka.protocol.admin import DescribeConfigsRequest  # noqa: PLC0415

        asked = DescribeConfigsRequest([(2, topic, None)], include_synonyms=False)
        answer = await self._send(self.leaders[topic][0], "", asked)
        [(code, _, _, _, entries)] = answer.resources
        return {} if code else {name: value or "" for name, value, *_ in entries}

    async def produce(self, topic: str, partition: int, records: Iterable[tuple[bytes | None, bytes | None]]) -> None:
        """Append records, all of them or none. Raises RefusedError where they are too large."""
        from aiokafka.protocol.produce import ProduceRequest  # noqa: PLC0415
        from aiokafka.record.default_records import DefaultRecordBatchBuilder  # noqa: PLC0415

        batch = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 1 << 30)
        for number, (key, value) in enumerate(records):
            batch.append(number, None, key, value, [])
        asked = ProduceRequest(None, -1, int(self._timeout * 1000), [(topic, [(partition, bytes(batch.build()))])])
        answer = await self._send(self.leaders[topic][partition], f"produce {topic}", asked)
        [(_, [(_, code, *_)])] = answer.topics
        if code in TOO_LARGE:
            raise RefusedError(reason_of(code))
        if code:
            raise KafkaError(code, f"the topic {topic!r} takes nothing")

    async def fetch(self, topic: str, positions: Mapping[int, int], wait: int = FETCH_WAIT) -> dict[int, Batch]:
        """Read partitions, which all are of one broker, from these offsets on; wait for something new."""
        from aiokafka.protocol.fetch import FetchRequest  # noqa: PLC0415

        partitions = [(partition, offset, FETCHED) for partition, offset in positions.items()]
        [leader, *_] = {self.leaders[topic][partition] for partition in positions}
        wait = min(wait, int(self._timeout * 500))
        answer = await self._send(leader, f"fetch {topic}", FetchRequest(wait, 1, FETCHED, 0, [(topic, partitions)]))
        found = {}
        for _, parts in answer.topics:
            for partition, code, end, _, start, _, *_, data in parts:
                if code:
                    raise KafkaError(code, f"the topic {topic!r} cannot be read")
                found[partition] = Batch(records_of(data or b"", positions[partition]), start, end)
        return found

    async def offsets(self, topic: str, at: int, partitions: Sequence[int] | None = None) -> dict[int, int]:
        """Return where partitions begin (EARLIEST), end (LATEST), or were at a time in milliseconds: -1 for the end."""
        from aiokafka.protocol.offset import OffsetRequest  # noqa: PLC0415

        by_leader: dict[int, list[tuple[int, int]]] = {}
        for partition in range(len(self.leaders[topic])) if partitions is None else partitions:
            by_leader.setdefault(self.leaders[topic][partition], []).append((partition, at))
        asking = [
            asyncio.ensure_future(self._send(leader, f"offsets {topic}", OffsetRequest(-1, 0, [(topic, each)])))
            for leader, each in by_leader.items()
        ]
        try:
            done, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_EXCEPTION)
            answers = [each.result() for each in done]
        finally:
            # One that went on would connect behind the end.
            await cancel_all(*asking)
        found = {}
        for answer in answers:
            for _, parts in answer.topics:
                for partition, code, _, offset in parts:
                    if code:
                        raise KafkaError(code, f"the topic {topic!r} cannot be asked")
                    found[partition] = offset
        return found

    async def close(self) -> None:
        """End all connections."""
        connections, self._connections = self._connections, {}
        await self._end(connections.values())

    async def _end(self, connections: Iterable[Any]) -> None:
        closing = [closed for connection in connections if (closed := connection.close()) is not None]
        if closing:
            await asyncio.wait(closing, timeout=self._timeout)

    async def _send(self, node: int, role: str, request: Any) -> Any:
        async with self._opening:
            connection = self._connections.get((node, role))
            if connection is None:
                if node not in self._brokers:
                    raise OSError("a partition has no broker at this time")
                connection = self._connections[node, role] = await self._open(*self._brokers[node])
        return await self._ask(connection, request)

    async def _ask(self, connection: Any, request: Any) -> Any:
        from aiokafka.errors import KafkaError as LibraryError  # noqa: PLC0415

        try:
            return await connection.send(request)
        except LibraryError as error:
            raise EndedError(str(error)) from None

    @property
    def _user(self) -> str:
        """Whom Kafka knows, as far as it is known here."""
        return self._servers.user or ("that of the certificate" if self._servers.files.certificate else "ANONYMOUS")

    def _hint(self, error: Exception) -> str:
        """Return what may be wrong where Kafka ends a connection without a word, or says nothing."""
        if self._servers.tls and isinstance(error, (TimeoutError, ConnectionError)) and not str(error):
            return " (does it speak TLS at this port?)"
        if not isinstance(error, EndedError) or self._servers.user:
            return ""
        if self._servers.tls:
            return " (does it want a user, or a certificate of its clients: ssl_certfile=FILE and ssl_keyfile=FILE?)"
        return " (does it want a user, or TLS, which is kafkas://?)"

    async def _open(self, host: str, port: int) -> Any:
        from aiokafka.errors import KafkaError as LibraryError  # noqa: PLC0415

        servers, milliseconds = self._servers, int(self._timeout * 1000)
        security = security_of(servers, self._context)
        connection = new_connection()(host, port, client_id="rawws", request_timeout_ms=milliseconds, **security)
        try:
            await connection.connect()
        except LibraryError as error:
            refused = f"it refuses the user {servers.user!r}: " if servers.user else ""
            raise EndedError(f"{refused}{error}") from None
        return connection


@cache
def new_connection() -> Callable[..., Any]:
    """Return what makes connections that end at once."""
    from aiokafka.conn import AIOKafkaConnection  # noqa: PLC0415

    class Connection(AIOKafkaConnection):  # type: ignore[misc]
        def close(self, *words: Any, **named: Any) -> Any:
            writer = self._writer
            closed = super().close(*words, **named)
            if writer is not None:
                # With TLS, the end would wait for what Kafka answers last, and for its word that this is the end.
                abort_transport(writer.transport)
            return closed

    return Connection


def records_of(data: bytes, position: int) -> list[tuple[int, int, bytes | None, bytes | None]]:
    """Return the records in an answer of Kafka from an offset on: its batches may begin before that."""
    from aiokafka.record.memory_records import MemoryRecords  # noqa: PLC0415

    found, batches = [], MemoryRecords(data)
    while batches.has_next():
        batch = batches.next_batch()
        if batch is None or getattr(batch, "is_control_batch", False):
            continue
        found += [(each.offset, each.timestamp, each.key, each.value) for each in batch if each.offset >= position]
    return found
