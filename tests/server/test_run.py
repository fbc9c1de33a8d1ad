"""`run`, which brings its own loop: also where Python takes no signals."""

from __future__ import annotations

import asyncio
import socket
import threading
from urllib.request import urlopen

import pytest

import rawws
from tests.processes import LOOPBACK
from tests.server.peers import DEADLINE


@pytest.mark.parametrize("library", ["uvloop", "asyncio"])
def test_run_serves_in_a_thread_that_is_not_the_main_one(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    if library == "asyncio":
        monkeypatch.setattr("rawws.server.run.loop_factory", lambda: None)
    routes = rawws.Routes([rawws.Route("/healthz", rawws.healthz)])

    ending: list[asyncio.Task[None]] = []

    @routes.get("/end")
    async def end(request: rawws.HttpRequest) -> str:
        assert request.server is not None
        ending.append(asyncio.create_task(request.server.drain()))
        return "bye"

    sock = socket.create_server((LOOPBACK, 0))
    url = f"http://{LOOPBACK}:{sock.getsockname()[1]}"
    thread = threading.Thread(target=rawws.run, args=(routes,), kwargs={"sock": sock}, daemon=True)
    thread.start()
    for path, body in (("/healthz", b"ok\n"), ("/end", b"bye")):
        with urlopen(url + path, timeout=DEADLINE) as answer:
            assert (answer.status, answer.read()) == (200, body)
    thread.join(DEADLINE)
    assert not thread.is_alive()
