"""The benchmarks that come with engines: what each says of as many publications in flight, which nobody hears.

NATS comes with none: in its place stands its client, which publishes to a stream.
"""

import asyncio
import re
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from tests.backplanes.engine_kafka import JAVA
from tests.backplanes.engine_postgres import find_postgres
from tests.processes import find_program

__all__ = ["IN_FLIGHT", "OWN", "SIZE"]

IN_FLIGHT: Final = 256
SIZE: Final = 64


def redis_benchmark(url: str, seconds: float) -> float:
    """Return the PUBLISH commands a second that `redis-benchmark` counts."""
    program = find_program("redis-benchmark", "apt-get install redis-tools")
    count = int(100_000 * max(seconds, 0.5))
    words = ["-p", str(urlsplit(url).port), "-q", "-n", str(count), "-c", "1", "-P", str(IN_FLIGHT)]
    command = [program, *words, "PUBLISH", "feed", "x" * SIZE]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(re.findall(r"([\d.]+) requests per second", text)[-1])


def pgbench(url: str, seconds: float) -> float:
    """Return the transactions a second that `pgbench` counts: each writes one row, and notifies."""
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(f"insert into feed values ('{'x' * SIZE}'); select pg_notify('feed', '{'x' * SIZE}');")
        script.flush()
        psql = [find_postgres("psql"), "--quiet", url, "-c", "create table if not exists feed (message text)"]
        subprocess.run(psql, check=True, capture_output=True)
        words = ["--no-vacuum", "-c", "16", "-T", str(max(1, int(seconds))), "-f", script.name, url]
        text = subprocess.run([find_postgres("pgbench"), *words], capture_output=True, text=True, check=True).stdout
    return float(re.findall(r"tps = ([\d.]+)", text)[-1])


def nats_client(url: str, seconds: float) -> float:
    """Return the publications a second that the client of NATS has answered by a stream."""
    import nats  # noqa: PLC0415

    async def publish() -> float:
        client = await nats.connect(url)
        stream = client.jetstream(publish_async_max_pending=IN_FLIGHT)
        await stream.add_stream(name="feed", subjects=["feed"])
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            await stream.publish_async("feed", b"x" * SIZE)
            count += 1
        await stream.publish_async_completed()
        took = time.perf_counter() - began
        await client.close()
        return count / took

    return asyncio.run(publish())


def producer_performance(url: str, seconds: float) -> float:
    """Return the records a second that `ProducerPerformance` of Kafka counts, each batch acknowledged by all."""
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic  # noqa: PLC0415

    count = int(50_000 * max(seconds, 1))
    server = urlsplit(url).netloc

    async def create() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=server)
        await admin.start()
        await admin.create_topics([NewTopic("feed", 1, 1, topic_configs={"flush.messages": "1"})])
        await admin.close()

    asyncio.run(create())
    words = ["org.apache.kafka.tools.ProducerPerformance", "--topic", "feed", "--num-records", str(count)]
    words += ["--record-size", str(SIZE), "--throughput", "-1"]
    words += ["--producer-props", f"bootstrap.servers={server}", "acks=all", "linger.ms=0"]
    java = find_program("java", "apt-get install default-jre-headless")
    text = subprocess.run([java, *JAVA, *words], capture_output=True, text=True, check=True).stdout
    return float(re.findall(r"([\d.]+) records/sec", text)[-1])


# By the scheme of the engine's URL: publications a second.
OWN: Final[dict[str, Callable[[str, float], float]]] = {
    "redis": redis_benchmark,
    "postgresql": pgbench,
    "nats": nats_client,
    "kafka": producer_performance,
}
