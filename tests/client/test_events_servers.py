"""`rawws.events` with the servers of others and ours, in processes of their own that are killed and come back."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import sys

import pytest

import rawws
from tests.client.peers import descriptors
from tests.processes import ROOT, MissingComponentError, Process, free_port
from tests.server.peers import eventually

LAST = 400
FEEDS = {"sse_starlette": "sse-starlette uvicorn", "aiohttp_sse": "aiohttp-sse", "rawws": "."}


def start(module: str, port: int) -> Process:
    if importlib.util.find_spec(module) is None:
        raise MissingComponentError(f"{module} is not installed: pip install {FEEDS[module]}")
    program = ROOT / "tests" / "client" / "feeds" / f"{module}_feed.py"
    return Process([sys.executable, program, str(port), str(LAST)], listens=port)


@pytest.mark.parametrize("module", FEEDS)
async def test_a_server_that_is_killed_and_comes_back_costs_no_event(module: str) -> None:
    port = free_port()
    process = await asyncio.to_thread(start, module, port)
    came, errors, counts = [], [], []
    try:
        feed = rawws.events(f"http://127.0.0.1:{port}/feed", on_retry=lambda error, _: errors.append(error))
        async with feed:
            async for event in feed:
                came.append((event.event, event.data, event.id))
                counts.append(descriptors())
                if len(came) in {50, 150, 250}:
                    os.kill(process.pid, signal.SIGKILL)
                    await asyncio.to_thread(process.stop)
                    process = await asyncio.to_thread(start, module, port)
        assert came == [("number", f"{number}\nof {LAST}", str(number)) for number in range(1, LAST + 1)]
        # Those of the deaths, of which the last may come when all that it could break has arrived, and the end.
        assert len(errors) >= 3
        assert feed.retry == 0.02
        assert feed.last_event_id == str(LAST)
        assert max(counts) == counts[0]
        await eventually(lambda: descriptors() < counts[0])
    finally:
        await asyncio.to_thread(process.stop)
