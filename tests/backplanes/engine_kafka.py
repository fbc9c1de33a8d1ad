"""A Kafka for tests: one broker, which is its own controller, for all tests of a process; each test has its topics."""

from __future__ import annotations

import asyncio
import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import zlib
from collections.abc import Container, Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar, final

from rawws.backplanes.kafka import KafkaBackplane
from rawws.backplanes.kafka_client import KafkaClient, KafkaError, kafka_servers
from rawws.topics import History
from tests.backplanes.certificates import Certificates
from tests.processes import LOOPBACK, PATIENCE, ROOT, MissingComponentError, Process, find_program, free_port

__all__ = ["PASSWORD", "Broker", "KafkaEngine", "produce"]

Result = TypeVar("Result")

JARS: Final = ROOT / "build" / "kafka"
INSTALL: Final = "mvn -q -f tests/backplanes/kafka/pom.xml dependency:copy-dependencies"
# It starts in half the time so, and needs no more memory for some tests.
JAVA: Final = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{JARS}/*")

PROPERTIES: Final = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{host}:{port},USERS://{host}:{users},TLS://{host}:{tls},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{port},USERS://{host}:{users},TLS://{host}:{tls}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,USERS:SASL_PLAINTEXT,TLS:SSL
sasl.enabled.mechanisms=PLAIN
listener.name.users.plain.sasl.jaas.config={login} required user_ali="{password}";
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:hub
listener.name.tls.ssl.client.auth=required
ssl.principal.mapping.rules=RULE:^.*$/hub/
ssl.keystore.type=PEM
ssl.keystore.location={files.both}
ssl.truststore.type=PEM
ssl.truststore.location={files.ca}
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
broker.heartbeat.interval.ms=100
broker.session.timeout.ms=1500
log.index.size.max.bytes=65536
log.cleaner.dedupe.buffer.size=2097152
num.network.threads=1
num.io.threads=2
"""
LOGIN: Final = "org.apache.kafka.common.security.plain.PlainLoginModule"
# What is asked of it takes no longer, also on a slow machine that has just started it.
ANSWER_TIMEOUT: Final = 60.0
# Of `ali`, whom Kafka knows, and who may do nothing there.
PASSWORD: Final = "open-sesame"


@final
class Broker:
    """A Kafka on free ports, with a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.java = find_program("java", "apt-get install default-jre-headless")
        if not JARS.exists():
            raise MissingComponentError(f"Apache Kafka is not installed: {INSTALL}")
        self.folder = folder
        self.port, self.users, self.tls, controller = (free_port() for _ in range(4))
        self.certificates = Certificates(folder)
        self.data, self.empty = folder / "data", folder / "empty"
        self.properties = folder / "server.properties"
        ports = {"port": self.port, "users": self.users, "tls": self.tls, "controller": controller}
        words = {"login": LOGIN, "password": PASSWORD}
        text = PROPERTIES.format(host=LOOPBACK, data=self.data, files=self.certificates, **words, **ports)
        self.properties.write_text(text)
        command = ["kafka.tools.StorageTool", "format", "-t", "cmF3d3MtdGVzdHMtMTIzNA", "-c", str(self.properties)]
        subprocess.run([self.java, *JAVA, *command], check=True, capture_output=True)
        shutil.copytree(self.data, self.empty)
        self.process: Process | None = None
        self.start()

    def start(self) -> None:
        if self.process is None:
            command = [self.java, *JAVA, "kafka.Kafka", str(self.properties)]
            self.process = Process(command, listens=self.port, timeout=60)

    def kill(self, *, forget: bool = False) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.stop()
        self.process = None
        if forget:
            shutil.rmtree(self.data)
            shutil.copytree(self.empty, self.data)

    def end(self) -> None:
        if self.process is not None:
            self.kill()
        shutil.rmtree(self.folder)


def in_thread(asked: Coroutine[Any, Any, Result]) -> Result:
    """Run something in a loop of its own, while that of the test waits."""
    found: list[Result] = []

    async def limited() -> Result:
        async with asyncio.timeout(ANSWER_TIMEOUT):
            return await asked

    thread = threading.Thread(target=lambda: found.append(asyncio.run(limited())), daemon=True)
    thread.start()
    thread.join(2 * ANSWER_TIMEOUT)
    assert found, f"Kafka did not do {asked!r} in {ANSWER_TIMEOUT} s"
    return found[0]


async def produce(
    client: KafkaClient, topic: str, *values: bytes | None, key: bytes | None = None, partition: int = 0
) -> None:
    """Append records to a topic, as soon as its broker has it."""
    async with asyncio.timeout(ANSWER_TIMEOUT):
        while True:
            await client.connect([topic])
            try:
                await client.produce(topic, partition, [(key, value) for value in values])
            except (KafkaError, LookupError, OSError):
                await asyncio.sleep(0.02)
            else:
                return


class Reached:
    """A handler that hears that its backplane is reached."""

    def __init__(self) -> None:
        self.back = asyncio.Event()

    def on_back(self, away: Container[str] = ()) -> None:
        self.back.set()

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


shared: list[Broker] = []


def the_broker() -> Broker:
    """Return the broker of this process, which runs."""
    if not shared:
        shared.append(Broker(Path(tempfile.mkdtemp(prefix="rawws-kafka-"))))
        atexit.register(shared[0].end)
    shared[0].start()
    return shared[0]


@final
class KafkaEngine:
    """Two topics of that broker."""

    count = 0

    def __init__(self, _folder: Path, **arguments: Any) -> None:
        self.broker = the_broker()
        KafkaEngine.count += 1
        self.prefix = f"test-{os.getpid()}-{KafkaEngine.count}"
        self.arguments = arguments

    @property
    def url(self) -> str:
        return f"kafka://{LOOPBACK}:{self.broker.port}/{self.prefix}"

    def backplane(self) -> KafkaBackplane:
        return KafkaBackplane(self.url, **{"timeout": PATIENCE, **self.arguments})

    def kill(self, *, forget: bool = False) -> None:
        self.broker.kill(forget=forget)

    def start(self) -> None:
        self.broker.start()

    def append(self, key: str | None, value: bytes | None) -> None:
        """Append a record to the log, as any program may."""
        in_thread(self._append(key, value))

    async def _append(self, key: str | None, value: bytes | None) -> None:
        client = KafkaClient(kafka_servers(self.url), 20.0, None)
        await client.connect([log := f"{self.prefix}.log"])
        named = None if key is None else key.encode()
        partition = zlib.crc32(named or b"") % len(client.leaders[log])
        await client.produce(log, partition, [(named, value)])
        await client.close()

    def spoil(self, topic: str) -> None:
        self.append(topic, b"of another program")

    def mend(self, topic: str) -> None:
        self.append(topic, None)

    def names(self) -> int:
        return in_thread(self._names())

    async def _names(self) -> int:
        backplane, reached = self.backplane(), Reached()
        backplane.open("counter", History(), reached)
        await asyncio.wait_for(reached.back.wait(), 20)
        count = backplane.stats()["topics"]
        await backplane.close()
        return count

    def end(self) -> None:
        """Leave its topics: they are gone with the broker."""
