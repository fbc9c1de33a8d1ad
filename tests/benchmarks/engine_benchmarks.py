"""The benchmarks that come with engines: what each says of as many publications in flight, which nobody hears."""

import re
import subprocess
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

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


# By the scheme of the engine's URL: publications a second.
OWN: Final[dict[str, Callable[[str, float], float]]] = {"redis": redis_benchmark}
