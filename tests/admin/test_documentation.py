"""docs/run/admin.md tells the truth: its program runs, and its paths and numbers are those of the code."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

import httpx

import rawws
import rawws.admin
from rawws.admin.application import DEFAULT_LIMIT, KICK_CODE, LARGEST_LIMIT
from rawws.admin.inspector import ORDERS, TOPICS_SHOWN
from rawws.admin.listening import DEFAULT_PORT
from rawws.admin.overview import RATES
from tests.admin.test_grafana import ALERTS, promtool
from tests.processes import LOOPBACK, ROOT, Process, free_port

PAGE: Final = (ROOT / "docs" / "run" / "admin.md").read_text(encoding="utf-8")


def test_the_program_is_looked_into(tmp_path: Path) -> None:
    [text] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    port, admin_port = free_port(), free_port()
    text = text.replace("8765", str(port)).replace("8766", str(admin_port))
    (tmp_path / "chat.py").write_text(text, encoding="utf-8")
    with Process([sys.executable, "-W", "error", "chat.py"], cwd=tmp_path, listens=admin_port) as process:
        status = httpx.get(f"http://{LOOPBACK}:{admin_port}/v1/status", timeout=60).json()
        assert [worker["pid"] for worker in status["workers"]] == [process.pid]
        assert "Traceback" not in process.output


def test_the_configuration_of_prometheus_is_one(tmp_path: Path) -> None:
    [text] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    key = tmp_path / "key"
    key.write_text("0123456789abcdef", encoding="utf-8")
    (tmp_path / "prometheus.yml").write_text(text.replace("/etc/rawws/admin-key", str(key)), encoding="utf-8")
    (tmp_path / "alerts.yml").write_text(ALERTS.read_text(encoding="utf-8"), encoding="utf-8")
    assert "SUCCESS" in promtool("check", "config", tmp_path / "prometheus.yml")


async def test_the_paths_are_those_that_there_are() -> None:
    table = PAGE.partition("## What there is")[2].partition("\n\nAll answers")[0]
    named = [path.split()[-1] for path in re.findall(r"^\| `([^`?]+)", table, re.MULTILINE)]
    async with rawws.serve(rawws.Handler(), "127.0.0.1", 0) as server:
        routes = rawws.admin.admin_routes(server)
    for path in named:
        resource, _ = routes.find(path)
        assert resource.allowed()
    assert len(named) == 12
    orders = re.findall(r"`(\w+)`", table.partition("connections; by ")[2].partition(", the largest")[0])
    assert orders == list(ORDERS)


def test_the_numbers_are_those_of_the_code() -> None:
    assert f"`limit` is {LARGEST_LIMIT:,} at\nmost" in PAGE
    assert f'"code": {KICK_CODE}' in PAGE
    assert f"limit={DEFAULT_LIMIT}" in PAGE
    assert f"--admin 127.0.0.1:{DEFAULT_PORT}" in PAGE
    assert f"the {TOPICS_SHOWN} largest topics" in PAGE
    rates = PAGE.partition("- `rates` are")[2].partition("\n- ")[0]
    assert set(re.findall(r"`(\w+)`", rates)) == set(RATES)
