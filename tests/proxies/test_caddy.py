"""What is Caddy's own: requests wait for a server that restarts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.browser.chromium import serving
from tests.processes import free_port
from tests.proxies.fronts import caddy


def test_a_request_waits_for_the_server(tmp_path: Path) -> None:
    upstream = free_port()
    with caddy(tmp_path, upstream, waits="20s") as front, ThreadPoolExecutor() as pool:
        asked = pool.submit(front.get, "/who")
        with serving(upstream):
            assert asked.result(60).status_code == 200
