"""A Kafka of three brokers, which are their own controllers: what is acknowledged is at two of them at least."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Final, final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from rawws.backplanes.kafka_client import KafkaClient, kafka_servers
from tests.backplanes.engine_kafka import JAVA, in_thread
from tests.processes import LOOPBACK, Process, find_program, free_port

__all__ = ["KafkaClusterEngine"]

PROPERTIES: Final = """\
process.roles=broker,controller
node.id={number}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{port}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
broker.heartbeat.interval.ms=200
broker.session.timeout.ms=2000
log.index.size.max.bytes=65536
log.cleaner.dedupe.buffer.size=2097152
num.network.threads=1
num.io.threads=2
"""
# On a machine that is busy, three of them take long to find each other.
START_TIMEOUT: Final = 120.0


@final
class KafkaClusterEngine:
    """Three brokers on free ports; `kill` is of the one that leads the log, `forget` takes its data, and no others."""

    def __init__(self, folder: Path) -> None:
        self.java = find_program("java", "apt-get install default-jre-headless")
        self.prefix = "rawws"
        self.ports = [free_port() for _ in range(3)]
        controllers = [free_port() for _ in range(3)]
        voters = ",".join(f"{number}@{LOOPBACK}:{port}" for number, port in enumerate(controllers, 1))
        self.folders = [folder / f"kafka-{number}" for number in (1, 2, 3)]
        for number, (own, port, controller) in enumerate(zip(self.folders, self.ports, controllers, strict=True), 1):
            own.mkdir()
            words = {"number": number, "voters": voters, "host": LOOPBACK, "port": port, "controller": controller}
            (own / "server.properties").write_text(PROPERTIES.format(data=own / "data", **words), encoding="utf-8")
            self._format(own)
        self.processes: dict[int, Process] = {}
        self.killed = 0
        self.start()

    def _format(self, own: Path) -> None:
        config = str(own / "server.properties")
        words = ["kafka.tools.StorageTool", "format", "-t", "cmF3d3MtdGVzdHMtMTIzNA", "-c", config]
        subprocess.run([self.java, *JAVA, *words], check=True, capture_output=True)

    @property
    def url(self) -> str:
        return f"kafka://{','.join(f'{LOOPBACK}:{port}' for port in self.ports)}/{self.prefix}"

    def start(self) -> None:
        """Start those that do not run, and wait until all are there."""
        started = [number for number in (1, 2, 3) if number not in self.processes]
        for number in started:
            command = [self.java, *JAVA, "kafka.Kafka", str(self.folders[number - 1] / "server.properties")]
            self.processes[number] = Process(command)
        deadline = time.monotonic() + START_TIMEOUT
        while not in_thread(self._is_whole()):
            assert time.monotonic() < deadline, f"three brokers were not in step in {START_TIMEOUT} s"
            time.sleep(0.1)

    async def _is_whole(self) -> bool:
        """Tell whether all brokers are there, and have all that was acknowledged."""
        try:
            brokers, topics = await self._look()
        except (OSError, KafkaError, TimeoutError):
            return False
        return brokers == len(self.ports) and all(in_step == len(self.ports) for _, in_step in topics)

    async def _look(self) -> tuple[int, list[tuple[int, int]]]:
        """Return how many brokers there are, and for each partition its leader, and how many brokers are in step."""
        admin = AIOKafkaAdminClient(bootstrap_servers=[f"{LOOPBACK}:{port}" for port in self.ports])
        await admin.start()
        try:
            brokers = (await admin.describe_cluster())["brokers"]
            topics = await admin.describe_topics()
        finally:
            await admin.close()
        parts = [each for topic in topics for each in topic["partitions"]]
        return len(brokers), [(each["leader"], len(each["isr"])) for each in parts]

    async def _leader(self) -> int:
        """Return which broker leads the log; any, while none does."""
        log = f"{self.prefix}.log"
        client = KafkaClient(kafka_servers(self.url), 20.0, None)
        try:
            await client.connect([log])
            found = client.leaders.get(log, [-1])[0]
        finally:
            await client.close()
        return found if found in self.processes else next(iter(self.processes))

    def kill(self, *, forget: bool = False) -> None:
        number = in_thread(self._leader())
        process = self.processes.pop(number)
        os.kill(process.pid, signal.SIGKILL)
        process.stop()
        self.killed += 1
        if forget:
            own = self.folders[number - 1]
            shutil.rmtree(own / "data")
            self._format(own)

    def end(self) -> None:
        for process in self.processes.values():
            os.kill(process.pid, signal.SIGKILL)
            process.stop()
